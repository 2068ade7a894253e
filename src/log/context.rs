//! State shared by all logs of one log directory: disk, clock, open files, tail cache, and whether the directory is
//! offline.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{LogError, checkpoints::OffsetCheckpoint, files::FileCache, flush::FlushQueue, tail_cache::TailCache};
use crate::{
    env::{Clock, Disk, Open, lock::lock},
    types::{Offset, TopicPartition},
};

/// Bounds on open files and memory of logs.
#[derive(Clone, Debug)]
pub struct LogLimits {
    /// Files kept open between uses, over all logs.
    pub open_files: usize,
    /// Bytes of new batches kept in memory for readers at the tail, over all logs.
    pub tail_cache_bytes: usize,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
    /// Producer ids that each log remembers, besides those with an open transaction.
    pub producer_ids: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        LogLimits {
            open_files: 1024,
            tail_cache_bytes: 16 << 20,
            producer_id_expiration_ms: 24 * 3_600_000,
            // About 2 MB, and far more producers than write to one partition within a day.
            producer_ids: 10_000,
        }
    }
}

/// A renamed file or directory that waits for its removal.
pub(crate) struct PendingRemoval {
    pub(crate) due: Duration,
    pub(crate) path: PathBuf,
    pub(crate) is_dir: bool,
}

type FailureListener = Box<dyn Fn(&Path, &LogError) + Send + Sync>;

/// In the order of [`LogContext::checkpoints`].
const CHECKPOINT_FILES: [&str; 4] = [
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    "replication-offset-checkpoint",
    "cleaner-offset-checkpoint",
];

/// More files than this are made durable by a sync of the whole volume, which costs less than one sync for each.
pub(super) const IDS_SYNCED_ONE_BY_ONE: usize = 16;

/// Shared by all logs of one log directory.
pub struct LogContext {
    /// The log directory.
    pub dir: PathBuf,
    /// The volume.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// `producer.id.expiration.ms`, which changes at run time.
    pub(crate) producer_id_expiration_ms: AtomicI64,
    /// [`LogLimits::producer_ids`].
    pub max_producer_ids: usize,
    pub(crate) files: Arc<FileCache>,
    pub(crate) tail: Arc<TailCache>,
    /// `recovery-point-offset-checkpoint`: the offset up to which each log is known to be durable.
    pub(crate) recovery_points: OffsetCheckpoint,
    /// `log-start-offset-checkpoint`.
    pub(crate) log_start_offsets: OffsetCheckpoint,
    /// `replication-offset-checkpoint`.
    pub(crate) high_watermarks: OffsetCheckpoint,
    /// `cleaner-offset-checkpoint`: below it, the keys of each compacted log were compared with one another.
    pub(crate) cleaner_offsets: OffsetCheckpoint,
    pub(crate) flush_queue: FlushQueue,
    pub(crate) pending_removals: Mutex<VecDeque<PendingRemoval>>,
    /// Whether a segment was rolled since the last background flush.
    pub(crate) rolled: AtomicBool,
    pub(crate) rolled_notify: tokio::sync::Notify,
    /// The `partition.metadata` files that were written and are not durable yet.
    unsynced_ids: Mutex<Vec<PathBuf>>,
    unsynced_ids_notify: tokio::sync::Notify,
    synced_ids: AtomicUsize,
    /// Number of partition directories created so far, and how many of them are durable: one sync serves all.
    partitions_created: AtomicU64,
    pub(crate) partitions_synced: AtomicU64,
    offline: OnceLock<String>,
    on_failure: OnceLock<FailureListener>,
}

impl LogContext {
    /// The context of the log directory `dir`, which exists.
    ///
    /// # Errors
    /// When a checkpoint file cannot be read.
    pub fn new(
        dir: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        files: Arc<FileCache>,
        tail: Arc<TailCache>,
        limits: &LogLimits,
    ) -> Result<Arc<LogContext>, LogError> {
        let mut checkpoints = Vec::new();
        for name in CHECKPOINT_FILES {
            checkpoints.push(OffsetCheckpoint::open(disk.clone(), dir.join(name))?);
        }
        let Ok(checkpoints) = <[OffsetCheckpoint; 4]>::try_from(checkpoints) else { unreachable!("one per file") };
        Ok(Self::with(dir, disk, clock, checkpoints, files, tail, limits))
    }

    /// The context of a log directory that cannot be read. The caller must take it offline.
    pub(crate) fn unreadable(dir: &Path, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Arc<LogContext> {
        let checkpoints = CHECKPOINT_FILES.map(|name| OffsetCheckpoint::empty(disk.clone(), dir.join(name)));
        let (files, tail) = (Arc::new(FileCache::new(0)), Arc::new(TailCache::new(0)));
        Self::with(dir, disk, clock, checkpoints, files, tail, &LogLimits::default())
    }

    fn with(
        dir: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        [recovery_points, log_start_offsets, high_watermarks, cleaner_offsets]: [OffsetCheckpoint; 4],
        files: Arc<FileCache>,
        tail: Arc<TailCache>,
        limits: &LogLimits,
    ) -> Arc<LogContext> {
        Arc::new(LogContext {
            recovery_points,
            log_start_offsets,
            high_watermarks,
            cleaner_offsets,
            dir: dir.to_owned(),
            disk,
            clock,
            producer_id_expiration_ms: AtomicI64::new(limits.producer_id_expiration_ms),
            max_producer_ids: limits.producer_ids,
            files,
            tail,
            flush_queue: FlushQueue::default(),
            pending_removals: Mutex::default(),
            rolled: AtomicBool::new(false),
            rolled_notify: tokio::sync::Notify::new(),
            unsynced_ids: Mutex::default(),
            unsynced_ids_notify: tokio::sync::Notify::new(),
            synced_ids: AtomicUsize::new(0),
            partitions_created: AtomicU64::new(0),
            partitions_synced: AtomicU64::new(0),
            offline: OnceLock::new(),
            on_failure: OnceLock::new(),
        })
    }

    /// A context for a single log or a test, with default limits.
    ///
    /// # Errors
    /// When a checkpoint file cannot be read.
    pub fn alone(dir: &Path, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Result<Arc<LogContext>, LogError> {
        let limits = LogLimits::default();
        let files = Arc::new(FileCache::new(limits.open_files));
        let tail = Arc::new(TailCache::new(limits.tail_cache_bytes));
        LogContext::new(dir, disk, clock, files, tail, &limits)
    }

    /// The files of offsets.
    pub(crate) fn checkpoints(&self) -> [&OffsetCheckpoint; 4] {
        [&self.recovery_points, &self.log_start_offsets, &self.high_watermarks, &self.cleaner_offsets]
    }

    /// Sets the listener that is called once, with the first fault, when the directory goes offline.
    pub fn on_failure(&self, listener: impl Fn(&Path, &LogError) + Send + Sync + 'static) {
        let set = self.on_failure.set(Box::new(listener));
        assert!(set.is_ok(), "one listener per log directory");
    }

    /// Takes the directory offline after an I/O error: the page cache can no longer be trusted, least of all after a
    /// failed fsync, which must never be retried.
    pub(crate) fn fail(&self, error: &LogError) {
        if self.offline.set(error.to_string()).is_ok() {
            tracing::error!(dir = %self.dir.display(), %error, "log directory goes offline");
            if let Some(listener) = self.on_failure.get() {
                listener(&self.dir, error);
            }
        }
    }

    /// Whether an earlier fault took the directory offline.
    pub fn is_offline(&self) -> bool {
        self.offline.get().is_some()
    }

    /// Returns the fault that took the directory offline, as an error.
    pub(crate) fn check_online(&self) -> Result<(), LogError> {
        match self.offline.get() {
            None => Ok(()),
            Some(reason) => Err(LogError::DirOffline { dir: self.dir.clone(), reason: reason.clone() }),
        }
    }

    /// Takes the directory offline if `error` is a fault of the disk ([`LogError::is_disk_fault`]), and returns it.
    pub(crate) fn handle_io_error(&self, error: LogError) -> LogError {
        if error.is_disk_fault() {
            self.fail(&error);
        }
        error
    }

    /// Schedules the removal of `path` after `delay_ms`, so that readers can finish.
    pub(crate) fn schedule_removal(&self, path: PathBuf, is_dir: bool, delay_ms: i64) {
        let due = self.clock.monotonic() + Duration::from_millis(delay_ms.max(0) as u64);
        lock(&self.pending_removals).push_back(PendingRemoval { due, path, is_dir });
    }

    /// Counts a new partition directory. Returns its number.
    pub(crate) fn partition_created(&self) -> u64 {
        self.partitions_created.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Makes the names of all partition directories durable.
    pub(crate) fn sync_partitions(&self) -> Result<(), LogError> {
        let created = self.partitions_created.load(Ordering::Acquire);
        self.disk.sync_dir(&self.dir).map_err(LogError::io("sync", &self.dir))?;
        self.partitions_synced.fetch_max(created, Ordering::AcqRel);
        Ok(())
    }

    /// The high watermark that was checkpointed in this directory for `partition`.
    pub fn checkpointed_high_watermark(&self, partition: &TopicPartition) -> Option<Offset> {
        self.high_watermarks.get(partition)
    }

    /// A `partition.metadata` was written: it must be durable soon, because it tells whose records the directory holds.
    pub(crate) fn wrote_topic_id(&self, path: PathBuf) {
        lock(&self.unsynced_ids).push(path);
        self.unsynced_ids_notify.notify_one();
    }

    /// Waits until [`LogContext::sync_topic_ids`] has something to do.
    pub(crate) async fn topic_ids_written(&self) {
        while lock(&self.unsynced_ids).is_empty() {
            self.unsynced_ids_notify.notified().await;
        }
    }

    /// Makes the topic ids of new partitions durable, and the names of their directories. May wait for the disk.
    /// Returns false if it must be tried again later, because no file can be opened.
    pub(crate) fn sync_topic_ids(&self) -> bool {
        let mut paths = std::mem::take(&mut *lock(&self.unsynced_ids));
        if self.is_offline() || paths.is_empty() {
            return true;
        }
        let synced = if paths.len() > IDS_SYNCED_ONE_BY_ONE {
            self.sync_volume()
        } else {
            let one_by_one = paths.iter().try_for_each(|path| self.sync_file_and_dir(path));
            one_by_one.and_then(|()| self.sync_partitions()).map_err(|error| self.handle_io_error(error))
        };
        match synced {
            Ok(()) => _ = self.synced_ids.fetch_add(paths.len(), Ordering::AcqRel),
            Err(error) => {
                tracing::debug!(dir = %self.dir.display(), %error, "cannot sync the ids of new partitions");
                if error.is_shortage() {
                    lock(&self.unsynced_ids).append(&mut paths);
                    return false;
                }
            }
        }
        true
    }

    /// How many topic ids [`LogContext::sync_topic_ids`] has made durable.
    #[cfg(test)]
    pub(crate) fn synced_ids(&self) -> usize {
        self.synced_ids.load(Ordering::Acquire)
    }

    /// A partition that was deleted meanwhile needs no sync.
    fn sync_file_and_dir(&self, path: &Path) -> Result<(), LogError> {
        let sync = || {
            self.disk.open(path, Open::ReadWrite)?.sync_data()?;
            path.parent().map_or(Ok(()), |dir| self.disk.sync_dir(dir))
        };
        match sync() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::io("sync", path)(error)),
            _ => Ok(()),
        }
    }

    /// Makes everything in the log directory durable. As with any sync, a failure is final.
    pub(crate) fn sync_volume(&self) -> Result<(), LogError> {
        self.check_online()?;
        self.disk.sync_volume(&self.dir).map_err(LogError::io("sync", &self.dir)).inspect_err(|error| self.fail(error))
    }

    pub(crate) fn announce_roll(&self) {
        self.rolled.store(true, Ordering::Release);
        self.rolled_notify.notify_one();
    }
}
