//! The metadata log on disk: `__cluster_metadata-0`, an ordinary log of the broker.
//!
//! Adapts `log::Log` to the quorum. Nothing is deleted by time or size; old batches are deleted only after a snapshot.
//! Owns how the log continues when the disk is full: disk space is reserved after the end of the active segment, where
//! no other file can take it; no segment is rolled, since a new one has no reserve; writes of the indexes and of the
//! epoch file, which can be rebuilt from the batches, wait.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;

use super::{cached_image::STORE_DIR, driver::ClusterIdentity, snapshot, storage::BatchLog};
use crate::{
    config::topic::{CleanupPolicy, LogConfig},
    env::{Clock, Disk, Env, lock::lock},
    log::{AppendError, FlushPlan, Log, LogError, LogManager, LogOwner, ReadError, list_partitions_briefly},
    types::{CLUSTER_METADATA_TOPIC, Offset, TopicPartition},
};

/// For this time after the start the epoch file is not written: it can be rebuilt from the batches, and its sync (and
/// that of its directory) would take most of the time between the start and the first topic.
const EPOCH_FILE_DELAY: Duration = Duration::from_secs(1);

/// Space is reserved in steps of this size, so that only few changes need a call to the disk. A volume with less free
/// space counts as full: otherwise a change would find out later, when it is half done.
const ROOM_STEP: u64 = 1 << 20;
/// A segment is rolled only if this much is free: enough for the reserve of the new one and for concurrent writes of
/// others.
const ROOM_TO_ROLL: u64 = 16 << 20;

/// The settings of the metadata log (Apache: `MetadataLogConfig`).
pub fn log_config(segment_bytes: i32, segment_ms: i64) -> LogConfig {
    LogConfig {
        segment_bytes,
        segment_ms,
        // A batch holds all records of one request, so it may be large.
        max_message_bytes: i32::MAX,
        retention_ms: -1,
        retention_bytes: -1,
        cleanup_policy: CleanupPolicy { compact: false, delete: true },
        ..Default::default()
    }
}

/// See the head of the file.
pub struct MetadataLog {
    log: Arc<Mutex<Log>>,
    clock: Arc<dyn Clock>,
    opened_at: Duration,
    /// The settings while there is room for another segment.
    config: Arc<LogConfig>,
    /// The settings while there is no room for another segment: the log is not rolled.
    config_without_rolls: Arc<LogConfig>,
    /// The base offset of the segment that has the reserve, and the position at which the reserve ends.
    kept: Option<(Offset, u64)>,
    /// The file system cannot reserve space.
    cannot_reserve_space: bool,
}

impl MetadataLog {
    /// Opens or creates the log in the log manager's directories. The manager then writes its checkpoints. With
    /// `accept_loss` a log that has lost records is opened too. A node that `has_other_voters`, by its settings or by
    /// the snapshot, may have nothing but that snapshot: it has fetched it from the leader and ended before its log
    /// began there.
    ///
    /// # Errors
    /// As [`Log::open`]. Also if there was a metadata log, and it is gone or damaged; or if its own directory is new
    /// and others are not, unless the node `has_other_voters`, from which it gets its log again.
    pub fn open(
        env: &Env,
        manager: &LogManager,
        config: LogConfig,
        accept_loss: bool,
        has_other_voters: bool,
    ) -> Result<Self, LogError> {
        let partition = TopicPartition::new(CLUSTER_METADATA_TOPIC, 0);
        if !accept_loss && !manager.has(&partition) {
            check_not_lost("it is gone", manager, None, has_other_voters)?;
        }
        let opened = manager.open_metadata_log(&partition, Arc::new(config), accept_loss);
        let log = opened.map_err(|error| match error {
            LogError::Corrupt { path, position, reason } => {
                LogError::Corrupt { path, position, reason: format!("{reason}. {LOSS_INSTRUCTIONS}") }
            }
            other => other,
        })?;
        if !accept_loss && log.log_end_offset() == 0 {
            check_not_lost("it is empty", manager, Some((&*env.disk, &log.dir())), has_other_voters)?;
        }
        let context = log.context().clone();
        let log = Arc::new(Mutex::new(log));
        let owner: Arc<dyn LogOwner> = log.clone();
        manager.register(&partition, &context, Arc::downgrade(&owner));
        Ok(MetadataLog::over(env, log))
    }

    /// A log that is not registered with a log manager.
    pub fn new(env: &Env, log: Log) -> Self {
        MetadataLog::over(env, Arc::new(Mutex::new(log)))
    }

    fn over(env: &Env, log: Arc<Mutex<Log>>) -> Self {
        let config = Arc::new(LogConfig::clone(lock(&log).config()));
        MetadataLog {
            log,
            clock: env.clock.clone(),
            opened_at: env.clock.monotonic(),
            config_without_rolls: Arc::new(without_rolls(&config)),
            config,
            kept: None,
            cannot_reserve_space: false,
        }
    }

    /// The directory that also holds snapshots, `quorum-state` and the store.
    pub fn dir(&self) -> PathBuf {
        self.log().dir()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    /// Whether there is room for a new segment.
    fn may_roll(&self) -> bool {
        self.has_free(ROOM_TO_ROLL)
    }

    /// Whether `bytes` are free on the volume; true if the file system does not report it.
    fn has_free(&self, bytes: u64) -> bool {
        let ctx = self.log().context().clone();
        ctx.disk.space(&ctx.dir).map_or(true, |space| space.usable >= bytes || space.total == 0)
    }

    fn top_up(&mut self, bytes: u64) -> Result<(), LogError> {
        let (base_offset, end) = {
            let log = self.log();
            (log.active_base_offset(), log.active_size_bytes() + bytes)
        };
        if self.kept.is_some_and(|kept| kept.0 == base_offset && kept.1 >= end) {
            return Ok(());
        }
        let kept = self.log().reserve_space(bytes + ROOM_STEP)?;
        match self.kept.replace(kept) {
            Some((inactive, _)) if inactive != base_offset => self.log().release_space(inactive),
            _ => Ok(()),
        }
    }

    fn flush_plan(&self) -> FlushPlan {
        let log = self.log();
        let mut plan = log.flush_plan(log.log_end_offset());
        if self.clock.monotonic().saturating_sub(self.opened_at) < EPOCH_FILE_DELAY {
            plan.postpone_epochs();
        }
        plan
    }
}

/// The settings of a log that does not roll its segment before offsets or positions overflow.
fn without_rolls(config: &LogConfig) -> LogConfig {
    LogConfig { segment_bytes: i32::MAX, segment_ms: i64::MAX, segment_jitter_ms: 0, ..config.clone() }
}

/// Tells the operator what to do if the metadata log has lost acknowledged records.
pub(super) const LOSS_INSTRUCTIONS: &str = "Nothing was changed. Restore the directory __cluster_metadata-0 from a backup; or, to \
     continue with the rest of it, start once with --set ottla.accept.metadata.loss=true: partitions whose topics are \
     then unknown are renamed to …-stray, their data is kept";

/// Refuses an empty metadata log if something shows that the cluster is not new.
fn check_not_lost(
    what: &str,
    manager: &LogManager,
    dir: Option<(&dyn Disk, &Path)>,
    has_other_voters: bool,
) -> Result<(), LogError> {
    if let Some((disk, dir)) = dir
        && is_from_a_leader(disk, dir)?
    {
        return Ok(());
    }
    let partitions = manager.partitions()?;
    let proof = if !partitions.is_empty() {
        Some(format!("{} partitions ({})", partitions.len(), list_partitions_briefly(partitions.iter())))
    } else if manager.is_metadata_dir_emptied() && !has_other_voters {
        Some("meta.properties in the other directories, while metadata.log.dir is empty".to_owned())
    } else {
        match dir {
            Some((disk, dir)) => evidence_of_records(disk, dir, has_other_voters)?,
            None => None,
        }
    };
    let Some(proof) = proof else { return Ok(()) };
    let path = dir.map_or_else(|| PathBuf::from(format!("{CLUSTER_METADATA_TOPIC}-0")), |(_, dir)| dir.to_owned());
    let reason = format!("{what}, but it must have had records, since this exists: {proof}. {LOSS_INSTRUCTIONS}");
    Err(LogError::Invalid { path, reason })
}

/// Whether the newest snapshot names several voters: the node may have fetched it from their leader, whatever its
/// settings say, and the others have what was committed after it.
fn is_from_a_leader(disk: &dyn Disk, dir: &Path) -> Result<bool, LogError> {
    let newest = snapshot::newest(disk, dir).map_err(LogError::io("read a snapshot in", dir))?;
    let voters = newest.filter(|snapshot| snapshot.id.end_offset > 0).and_then(|snapshot| snapshot.voters);
    Ok(voters.is_some_and(|voters| voters.voters.len() > 1))
}

/// Returns a file that only a log with records can have left in its directory.
fn evidence_of_records(disk: &dyn Disk, dir: &Path, has_other_voters: bool) -> Result<Option<String>, LogError> {
    let snapshots = snapshot::list(disk, dir).map_err(LogError::io("list", dir))?;
    // Kafka's format tool writes a snapshot that ends at 0 before there is a log.
    if let Some(newest) = snapshots.last().filter(|id| id.end_offset > 0 && !has_other_voters) {
        return Ok(Some(format!("the snapshot {}", newest.file_name())));
    }
    Ok(disk.exists(&dir.join(STORE_DIR)).then(|| format!("the stored image {STORE_DIR}")))
}

impl ClusterIdentity for LogManager {
    fn cluster_id(&self) -> Option<String> {
        LogManager::cluster_id(self)
    }

    fn adopt_cluster_id(&self, id: &str) -> io::Result<()> {
        LogManager::adopt_cluster_id(self, id).map_err(io_error)
    }
}

fn io_error(error: LogError) -> io::Error {
    let kind = match &error {
        LogError::Corrupt { .. } => io::ErrorKind::InvalidData,
        // If a sync fails because the disk is full, written data are lost: that is a disk fault and cannot be retried.
        error if error.is_disk_fault() => io::ErrorKind::Other,
        error if error.is_shortage() => io::ErrorKind::StorageFull,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl BatchLog for MetadataLog {
    fn log_start_offset(&self) -> Offset {
        self.log().log_start_offset()
    }

    fn log_end_offset(&self) -> Offset {
        self.log().log_end_offset()
    }

    fn append(&mut self, batch: Bytes) -> io::Result<()> {
        let now_ms = self.clock.now_ms();
        let config = if self.may_roll() { &self.config } else { &self.config_without_rolls };
        let mut log = self.log();
        log.update_config(config.clone());
        match log.append_for_readers(batch, now_ms) {
            Ok(_) => Ok(()),
            Err(AppendError::Storage(error)) => Err(io_error(error)),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = match self.flush_plan().run() {
            Err(error) if error.is_shortage() && !error.is_disk_fault() => {
                let mut plan = self.flush_plan();
                plan.postpone_indexes();
                plan.run()
            }
            other => other,
        };
        let done = done.map_err(io_error)?;
        let mut log = self.log();
        log.flush_done(done);
        let end = log.log_end_offset();
        log.on_high_watermark(end);
        Ok(())
    }

    fn read(&self, from: Offset, max_bytes: usize) -> io::Result<Bytes> {
        let plan = {
            let log = self.log();
            log.read(from, max_bytes, log.log_end_offset(), true)
        };
        let plan = plan.map_err(|error: ReadError| io::Error::new(io::ErrorKind::InvalidData, error))?;
        plan.records().map_err(io_error)?.into_bytes()
    }

    fn reserve_space(&mut self, bytes: u64) -> io::Result<()> {
        if self.cannot_reserve_space {
            return Ok(());
        }
        match self.top_up(bytes) {
            Ok(()) if self.has_free(ROOM_STEP) => Ok(()),
            Ok(()) => Err(io::Error::new(io::ErrorKind::StorageFull, "less than 1 MiB is free")),
            Err(LogError::Io { source, path, .. }) if source.kind() == io::ErrorKind::Unsupported => {
                tracing::info!(
                    path = %path.display(), error = %source,
                    "the file system cannot reserve space for the metadata log: on a full disk, topics cannot be deleted either"
                );
                self.cannot_reserve_space = true;
                Ok(())
            }
            Err(error) => Err(io_error(error)),
        }
    }

    fn truncate_to(&mut self, offset: Offset) -> io::Result<()> {
        self.kept = None;
        self.log().truncate_to(offset).map_err(io_error)?;
        Ok(())
    }

    fn truncate_fully_and_start_at(&mut self, offset: Offset) -> io::Result<()> {
        self.kept = None;
        self.log().truncate_fully_and_start_at(offset).map_err(io_error)
    }

    fn delete_before(&mut self, offset: Offset) -> io::Result<()> {
        let now_ms = self.clock.now_ms();
        let may_roll = self.may_roll();
        let mut log = self.log();
        if log.maybe_increment_log_start_offset(offset).map_err(io_error)? {
            // Only whole segments are deleted. This one is rolled, so that the next snapshot can delete it.
            if may_roll {
                log.roll().map_err(io_error)?;
            }
            let end = log.log_end_offset();
            log.delete_old_segments(now_ms, end).map_err(io_error)?;
        }
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        self.log().close_cleanly().map_err(io_error)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        env::{SystemNet, SystemRandom, Tasks},
        log::LogManagerConfig,
        metadata::image::MetadataImage,
        raft::control_records::{KRaftVersionFeature, Voter, VotersRecord},
        sim::{SimClock, SimDisk},
    };

    #[test]
    fn an_empty_log_beside_a_snapshot_of_several_voters_is_not_lost_even_if_the_settings_name_no_other() {
        for (voters, has_partition, is_opened) in
            [(1, false, false), (1, true, false), (2, false, true), (2, true, true), (3, true, true)]
        {
            let disk = SimDisk::new(1);
            let env = Env {
                clock: Arc::new(SimClock::new(1_000_000)),
                disk: Arc::new(disk.clone()),
                net: Arc::new(SystemNet),
                random: Arc::new(SystemRandom::new()),
                tasks: Tasks::new(),
            };
            let open = || {
                let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
                MetadataLog::open(&env, &manager, log_config(1 << 20, 60_000), false, false)
            };
            let dir = open().unwrap().dir();
            if has_partition {
                disk.create_dir_all(Path::new("/a/t-0")).unwrap();
            }
            let voter = |voter_id| Voter {
                voter_id,
                voter_directory_id: Uuid::from_u128(9),
                endpoints: Vec::new(),
                kraft_version_feature: KRaftVersionFeature::default(),
            };
            let voters = VotersRecord { version: 0, voters: (1..=voters).map(voter).collect() };
            let mut image = MetadataImage::default();
            image.provenance.last_contained_offset = 41;
            snapshot::write(&disk, &dir, &image, Some(&voters), 7, 1_000_000).unwrap();
            let opened = open();
            assert_eq!(opened.is_ok(), is_opened, "{:?}", opened.err());
        }
    }
}
