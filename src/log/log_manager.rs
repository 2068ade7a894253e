//! Owns all logs of the log directories: knows which directory a partition is in, and does the periodic work for all of
//! them (flush, checkpoints, retention, removal of files).
//!
//! Opens a log only when the replica layer asks for it; other partitions on disk stay untouched. The background work is
//! `tick`, a function of the time, with one small loop around it. Leaves locking and identifying the directories to
//! `log_dirs.rs`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use uuid::Uuid;

use super::{
    Log, LogContext, LogError, LogLimits, LogOwner, OpenLog,
    checkpoints::{CLEAN_SHUTDOWN_FILE, MetaProperties, OffsetCheckpoint, clean_shutdown_text, is_damaged_copy},
    flush::{flush_rolled, flush_through, with_log},
    line_limit::LogLineLimit,
    log::moved_dir_name,
    log_dirs::{Holds, LogDir, LogDirs, partitions_in, write_meta},
    recovery::{holds_records, topic_id_in},
};
use crate::{
    config::topic::LogConfig,
    env::{Env, Watched, lock::lock},
    types::{BrokerId, CLUSTER_METADATA_TOPIC, Offset, TopicId, TopicPartition},
};

/// Delay of the first retention check after the start (`LogManager.initialTaskDelayMs`).
const INITIAL_RETENTION_DELAY: Duration = Duration::from_secs(30);
/// Shortest time between two runs of other work.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);
/// Precision of `flush.ms`.
const LEAST_FLUSH_INTERVAL: Duration = Duration::from_millis(10);

/// Broker settings that concern the log directories.
#[derive(Clone, Debug)]
pub struct LogManagerConfig {
    /// `log.dirs`.
    pub log_dirs: Vec<PathBuf>,
    /// `node.id`.
    pub node_id: BrokerId,
    /// The cluster's id, if known before the directories are read; it is written to new directories.
    pub cluster_id: Option<String>,
    /// This node is a cluster of its own, so it chooses the id of a new cluster. Else the quorum does.
    pub is_alone: bool,
    /// `metadata.log.dir`, where a new metadata log is created; `None` for any of `log_dirs`. If it is none of them, it
    /// holds only the metadata log.
    pub metadata_dir: Option<PathBuf>,
    /// Bounds on open files and memory.
    pub limits: LogLimits,
    /// `log.flush.offset.checkpoint.interval.ms`.
    pub recovery_point_checkpoint_interval_ms: i64,
    /// `log.flush.start.offset.checkpoint.interval.ms`.
    pub log_start_offset_checkpoint_interval_ms: i64,
    /// `replica.high.watermark.checkpoint.interval.ms`.
    pub high_watermark_checkpoint_interval_ms: i64,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval_ms: i64,
    /// `producer.id.expiration.check.interval.ms`.
    pub producer_id_expiration_check_interval_ms: i64,
}

impl LogManagerConfig {
    /// Kafka's defaults for these directories.
    pub fn new(log_dirs: Vec<PathBuf>, node_id: BrokerId) -> Self {
        LogManagerConfig {
            log_dirs,
            node_id,
            cluster_id: None,
            is_alone: true,
            limits: LogLimits::default(),
            metadata_dir: None,
            recovery_point_checkpoint_interval_ms: 60_000,
            log_start_offset_checkpoint_interval_ms: 60_000,
            high_watermark_checkpoint_interval_ms: 5_000,
            retention_check_interval_ms: 300_000,
            producer_id_expiration_check_interval_ms: 600_000,
        }
    }

    /// The directory that holds only the metadata log, if there is one.
    pub(super) fn separate_metadata_dir(&self) -> Option<&PathBuf> {
        self.metadata_dir.as_ref().filter(|dir| !self.log_dirs.contains(dir))
    }
}

/// Where the cluster metadata says that a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// It is new; it belongs in the directory with this `directory.id`, if one is given.
    New(Option<Uuid>),
    /// It existed before this start.
    Existing {
        /// `directory.id` of its directory, if known. It is unknown until the log has been created.
        directory: Option<Uuid>,
        /// Another partition of this broker is assigned to a directory that is missing.
        lacks_directory: bool,
    },
}

struct Registered {
    owner: Weak<dyn LogOwner>,
    ctx: Arc<LogContext>,
}

/// Description of a log directory (DescribeLogDirs).
#[derive(Clone, Debug)]
pub struct LogDirDescription {
    /// The directory.
    pub path: PathBuf,
    /// `directory.id`.
    pub directory_id: Uuid,
    /// Whether it has failed.
    pub offline: bool,
    /// Size of the volume in bytes; -1 if unknown.
    pub total_bytes: i64,
    /// Bytes that may still be written to the volume; -1 if unknown.
    pub usable_bytes: i64,
    /// Its logs: size in bytes and offset lag.
    pub logs: Vec<(TopicPartition, u64, Offset)>,
}

/// When each kind of work is next due, as time on the monotonic clock.
struct Schedule {
    recovery_points: Duration,
    log_start_offsets: Duration,
    high_watermarks: Duration,
    retention: Duration,
    producers: Duration,
    flush: Duration,
}

/// Manager of all logs; see the module.
pub struct LogManager {
    env: Env,
    config: LogManagerConfig,
    cluster_id: Watched<Option<String>>,
    is_new_cluster: bool,
    dirs: Vec<LogDir>,
    /// State of the background work of each directory, in the order of `dirs`.
    work: Vec<DirWork>,
    logs: Mutex<BTreeMap<TopicPartition, Registered>>,
    /// Logs that this process has opened: the clean-shutdown file is only valid for the first opening.
    opened: Mutex<BTreeSet<TopicPartition>>,
    /// The broker epoch of this process; -1 if it is not registered.
    broker_epoch: AtomicI64,
}

impl LogManager {
    /// Locks the log directories and initialises new ones; no format step is needed.
    ///
    /// # Errors
    /// As [`LogDirs::open`].
    pub fn open(env: &Env, config: LogManagerConfig) -> Result<Arc<LogManager>, LogError> {
        let LogDirs { cluster_id, is_new_cluster, dirs } = LogDirs::open(env, &config)?;
        let now = env.clock.monotonic();
        Ok(Arc::new(LogManager {
            env: env.clone(),
            work: dirs.iter().map(|_| DirWork::starting_at(now, &config)).collect(),
            config,
            cluster_id: Watched::new(cluster_id),
            is_new_cluster,
            dirs,
            logs: Mutex::default(),
            opened: Mutex::default(),
            broker_epoch: AtomicI64::new(-1),
        }))
    }

    /// The id of the cluster that the directories belong to. `None` until the quorum of a new cluster has chosen it.
    pub fn cluster_id(&self) -> Option<String> {
        self.cluster_id.get()
    }

    /// The id of the cluster, as soon as it is known.
    pub async fn known_cluster_id(&self) -> String {
        self.cluster_id.until(Option::is_some).await.unwrap_or_default()
    }

    /// The directories belong to this cluster from now on, if they belong to none. Returns when that is durable.
    ///
    /// # Errors
    /// A directory cannot be written.
    pub fn adopt_cluster_id(&self, id: &str) -> Result<(), LogError> {
        if self.cluster_id().is_some() {
            return Ok(());
        }
        let (cluster_id, node_id) = (Some(id.to_owned()), self.config.node_id);
        let online = self.dirs.iter().filter(|dir| !dir.ctx.is_offline());
        for (dir, directory_id) in online.filter_map(|dir| Some((&dir.ctx.dir, dir.directory_id?))) {
            write_meta(&self.env, dir, MetaProperties { cluster_id: cluster_id.clone(), node_id, directory_id })?;
        }
        self.cluster_id.set(cluster_id);
        Ok(())
    }

    /// Whether none of the directories belonged to a cluster before this start.
    pub fn is_new_cluster(&self) -> bool {
        self.is_new_cluster
    }

    /// Whether the directory that holds only the metadata log is new, while others belong to a cluster: it was emptied.
    pub fn is_metadata_dir_emptied(&self) -> bool {
        !self.is_new_cluster && self.metadata_dir().is_some_and(|dir| dir.is_new)
    }

    /// Whether the directory that holds only the metadata log has failed.
    pub fn has_metadata_dir_failed(&self) -> bool {
        self.metadata_dir().is_some_and(|dir| dir.ctx.is_offline())
    }

    /// The directory that holds only the metadata log, if there is one.
    fn metadata_dir(&self) -> Option<&LogDir> {
        self.dirs.iter().find(|dir| dir.holds == Holds::MetadataLog)
    }

    /// The directories in `log.dirs`, which are those that the cluster knows.
    fn data_dirs(&self) -> impl Iterator<Item = &LogDir> {
        self.dirs.iter().filter(|dir| dir.holds != Holds::MetadataLog)
    }

    /// `directory.id` of each directory in `log.dirs` that is in use.
    pub fn directory_ids(&self) -> impl Iterator<Item = (&Path, Uuid)> {
        self.online().filter_map(|dir| Some((dir.ctx.dir.as_path(), dir.directory_id?)))
    }

    /// The `directory.id` of the directory of `log`.
    pub fn directory_id_of(&self, log: &Log) -> Option<Uuid> {
        self.dirs.iter().find(|dir| Arc::ptr_eq(&dir.ctx, log.context())).and_then(|dir| dir.directory_id)
    }

    /// The `directory.id` of the directory that the metadata log is in.
    pub fn metadata_directory_id(&self, log_dir: &Path) -> Option<Uuid> {
        let dir = self.dirs.iter().find(|dir| Some(dir.ctx.dir.as_path()) == log_dir.parent());
        dir.and_then(|dir| dir.directory_id)
    }

    /// Directories in `log.dirs` that this start has initialised.
    pub fn new_dirs(&self) -> impl Iterator<Item = &Path> {
        self.data_dirs().filter(|dir| dir.is_new).map(|dir| dir.ctx.dir.as_path())
    }

    /// Directories in `log.dirs` that are offline.
    pub fn offline_dir_paths(&self) -> impl Iterator<Item = &Path> {
        self.data_dirs().filter(|dir| dir.ctx.is_offline()).map(|dir| dir.ctx.dir.as_path())
    }

    /// Whether the last stop was clean, in all directories in `log.dirs`.
    pub fn was_clean_shutdown(&self) -> bool {
        self.data_dirs().all(|dir| dir.clean_shutdown.is_some())
    }

    /// The broker epoch of the last process, if it has stopped cleanly in all directories; otherwise -1 (KIP-966).
    pub fn previous_broker_epoch(&self) -> i64 {
        let mut epochs = self.data_dirs().map(|dir| dir.clean_shutdown.unwrap_or(-1));
        let first = epochs.next().unwrap_or(-1);
        if epochs.all(|epoch| epoch == first) { first } else { -1 }
    }

    /// Sets the broker epoch that a clean stop stores for the next start.
    pub fn set_broker_epoch(&self, broker_epoch: i64) {
        self.broker_epoch.store(broker_epoch, Ordering::Relaxed);
    }

    /// Calls `listener` once for each directory that goes offline, also for that of the metadata log, in the thread
    /// that met the fault.
    pub fn on_dir_failure(&self, listener: impl Fn(&Path, &LogError) + Clone + Send + Sync + 'static) {
        for dir in &self.dirs {
            dir.ctx.on_failure(listener.clone());
        }
    }

    /// `directory.id` of each directory in `log.dirs` that is offline, if it is known.
    pub fn offline_directory_ids(&self) -> impl Iterator<Item = Uuid> {
        self.data_dirs().filter(|dir| dir.ctx.is_offline()).filter_map(|dir| dir.directory_id)
    }

    /// Whether all directories in `log.dirs` are offline.
    pub fn is_offline(&self) -> bool {
        self.data_dirs().all(|dir| dir.ctx.is_offline())
    }

    /// Sets a new `producer.id.expiration.ms`; it applies from the next expiration check on.
    pub fn set_producer_id_expiration_ms(&self, expiration_ms: i64) {
        for dir in &self.dirs {
            dir.ctx.producer_id_expiration_ms.store(expiration_ms, Ordering::Relaxed);
        }
    }

    /// Number of directories in `log.dirs` that are offline.
    pub fn offline_dirs(&self) -> usize {
        self.data_dirs().filter(|dir| dir.ctx.is_offline()).count()
    }

    /// Bytes of memory that hold the last produced batches.
    pub fn tail_cache_bytes(&self) -> usize {
        // All directories share one cache.
        self.dirs.first().map_or(0, |dir| dir.ctx.tail.used_bytes())
    }

    /// Opens the log of `partition` in the directory where it exists, or creates it as `placement` says. Does not
    /// create it if it may be in a missing directory. The caller must then call [`LogManager::register`].
    ///
    /// # Errors
    /// As [`Log::open`]; also if the partition was lost, or its directory is missing.
    pub fn open_log(
        &self,
        partition: &TopicPartition,
        topic_id: Option<TopicId>,
        config: Arc<LogConfig>,
        placement: Placement,
    ) -> Result<Log, LogError> {
        let existing = self.dir_of(partition, topic_id)?;
        let dir = match existing {
            Some(dir) => dir,
            None => self.dir_to_create_in(partition, placement)?,
        };
        let opened = self.open_in(dir, partition, topic_id, config, self.start_of(dir, partition));
        if opened.is_err() && existing.is_some() {
            lock(&dir.refused_logs).insert(partition.clone());
        }
        opened
    }

    fn open_in(
        &self,
        dir: &LogDir,
        partition: &TopicPartition,
        topic_id: Option<TopicId>,
        config: Arc<LogConfig>,
        start: OpenLog,
    ) -> Result<Log, LogError> {
        let path = dir.ctx.dir.join(partition.to_string());
        let log = Log::open(&dir.ctx, &path, partition.clone(), topic_id, config, start)?;
        lock(&dir.refused_logs).remove(partition);
        lock(&self.opened).insert(partition.clone());
        Ok(log)
    }

    /// Opens the metadata log, in which every acknowledged record was synced. Damage is therefore never truncated,
    /// unless `accept_loss` permits the loss of everything after it.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_metadata_log(
        &self,
        partition: &TopicPartition,
        config: Arc<LogConfig>,
        accept_loss: bool,
    ) -> Result<Log, LogError> {
        let dir = match self.dir_of(partition, None)? {
            Some(dir) => dir,
            None => self.dir_to_create_in(partition, Placement::New(None))?,
        };
        let mut start = OpenLog { acknowledged_is_synced: true, ..self.start_of(dir, partition) };
        if accept_loss {
            dir.ctx.recovery_points.remove(partition)?;
            start = OpenLog { log_start_offset: start.log_start_offset, ..OpenLog::default() };
        }
        self.open_in(dir, partition, None, config, start)
    }

    fn start_of(&self, dir: &LogDir, partition: &TopicPartition) -> OpenLog {
        let first_time = !lock(&self.opened).contains(partition);
        OpenLog {
            log_start_offset: dir.ctx.log_start_offsets.get(partition).unwrap_or(0),
            recovery_point: dir.ctx.recovery_points.get(partition).unwrap_or(0),
            clean_shutdown: dir.clean_shutdown.is_some() && first_time,
            acknowledged_is_synced: false,
        }
    }

    /// The directories in `log.dirs` that are in use.
    fn online(&self) -> impl Iterator<Item = &LogDir> {
        self.data_dirs().filter(|dir| !dir.ctx.is_offline())
    }

    /// The directories in use that `partition` may be in.
    fn online_for(&self, partition: &TopicPartition) -> impl Iterator<Item = &LogDir> {
        let other = if *partition.topic == *CLUSTER_METADATA_TOPIC { Holds::Topics } else { Holds::MetadataLog };
        self.dirs.iter().filter(move |dir| dir.holds != other && !dir.ctx.is_offline())
    }

    /// The directory that the partition is in. Sets aside the partition's directory of an earlier topic of that name.
    fn dir_of(&self, partition: &TopicPartition, topic_id: Option<TopicId>) -> Result<Option<&LogDir>, LogError> {
        let mut found = None;
        for dir in self.online_for(partition) {
            let path = dir.ctx.dir.join(partition.to_string());
            if !self.env.disk.exists(&path) {
                continue;
            }
            match (topic_id_in(&*self.env.disk, &path)?, topic_id) {
                (Some(here), Some(wanted)) if here != wanted && !is_damaged_copy(here, wanted) => {
                    self.set_aside(dir, partition, "it belongs to an earlier topic of that name")?;
                }
                _ => found = found.or(Some(dir)),
            }
        }
        Ok(found)
    }

    fn dir_to_create_in(&self, partition: &TopicPartition, placement: Placement) -> Result<&LogDir, LogError> {
        let dir = match placement {
            Placement::New(Some(id)) | Placement::Existing { directory: Some(id), .. } => {
                let dir = self.dirs.iter().find(|dir| dir.directory_id == Some(id));
                dir.ok_or(LogError::DirMissing { directory_id: Some(id) })?
            }
            Placement::New(None) => self.dir_for_new_log(partition)?,
            Placement::Existing { directory: None, lacks_directory } => {
                if lacks_directory || self.offline_dirs() > 0 {
                    return Err(LogError::DirMissing { directory_id: None });
                }
                self.dir_for_new_log(partition)?
            }
        };
        dir.ctx.check_online()?;
        if matches!(placement, Placement::Existing { .. }) {
            self.refuse_lost(partition)?;
        }
        // The checkpoints may still hold offsets of an earlier topic of this name.
        for checkpoint in dir.ctx.checkpoints() {
            checkpoint.remove(partition)?;
        }
        Ok(dir)
    }

    /// Refuses to create a partition that a checkpoint knows to hold records. A partition whose log was not created
    /// before a crash is in no checkpoint; but a deleted one of its name may be, while its files wait for their
    /// removal.
    fn refuse_lost(&self, partition: &TopicPartition) -> Result<(), LogError> {
        for dir in self.online() {
            let known = dir.ctx.checkpoints().into_iter().filter_map(|checkpoint| checkpoint.get(partition)).max();
            let Some(offset) = known.filter(|offset| *offset > 0) else { continue };
            let entries = self.env.disk.list(&dir.ctx.dir).map_err(LogError::io("list", &dir.ctx.dir))?;
            let deleted = format!("{partition}.");
            if !entries.iter().any(|entry| entry.name.starts_with(&deleted) && entry.name.ends_with("-delete")) {
                return Err(LogError::Lost { path: dir.ctx.dir.join(partition.to_string()), offset });
            }
        }
        Ok(())
    }

    /// Renames the directories of partitions that the cluster does not know to `…-stray`, as Apache Kafka does: their
    /// topic was deleted while this broker was down. A new topic can use the name, and no records are lost. `is_known`
    /// is called for each partition with the topic id on disk, if there is one.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn set_aside_strays(
        &self,
        is_known: impl Fn(&TopicPartition, Option<TopicId>) -> bool,
    ) -> Result<(), LogError> {
        for (dir, partition) in self.partition_dirs()? {
            let found = topic_id_in(&*dir.ctx.disk, &dir.ctx.dir.join(partition.to_string()))?;
            if !is_known(&partition, found) {
                self.set_aside(dir, &partition, "no topic of the cluster has it")?;
            }
        }
        Ok(())
    }

    /// Sets aside a partition's directory that has lost its topic id, unless it is empty: a power cut can take the file
    /// and leave the records, which may be those of an earlier topic of that name. For a replica whose records others
    /// have.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn set_aside_without_id(&self, partition: &TopicPartition) -> Result<(), LogError> {
        for dir in self.online_for(partition) {
            let path = dir.ctx.dir.join(partition.to_string());
            if self.env.disk.exists(&path)
                && topic_id_in(&*self.env.disk, &path)?.is_none()
                && holds_records(&dir.ctx, &path)?
            {
                self.set_aside(dir, partition, "it has lost its topic id, and other replicas have the records")?;
            }
        }
        Ok(())
    }

    /// Deletes the directory of a partition whose log could not be opened; [`LogManager::delete_log`] is for an open
    /// log.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn delete_closed_log(&self, partition: &TopicPartition) -> Result<(), LogError> {
        let found = self.partition_dirs()?.into_iter().find(|(_, other)| other == partition);
        let Some((dir, _)) = found else { return Ok(()) };
        let path = match self.move_dir(dir, partition, "delete") {
            Ok(to) => to,
            // No space for the new name: remove it under its own name, before a later topic can use that name.
            Err(error) if error.is_disk_full() => {
                let path = dir.ctx.dir.join(partition.to_string());
                return dir.ctx.disk.remove_dir_all(&path).map_err(LogError::io("remove", &path));
            }
            Err(error) => return Err(error),
        };
        lock(&dir.refused_logs).remove(partition);
        dir.ctx.schedule_removal(path, true, 0);
        Ok(())
    }

    fn set_aside(&self, dir: &LogDir, partition: &TopicPartition, why: &str) -> Result<(), LogError> {
        let to = self.move_dir(dir, partition, "stray")?;
        tracing::warn!(%partition, to = %to.display(), "a partition's directory is set aside: {why}");
        Ok(())
    }

    fn move_dir(&self, dir: &LogDir, partition: &TopicPartition, suffix: &str) -> Result<PathBuf, LogError> {
        let ctx = &dir.ctx;
        let from = ctx.dir.join(partition.to_string());
        let to = ctx.dir.join(moved_dir_name(partition, &self.env.random.uuid().simple().to_string(), suffix));
        ctx.disk.rename(&from, &to).map_err(LogError::io("rename", &from))?;
        for checkpoint in ctx.checkpoints() {
            checkpoint.forget(partition);
        }
        Ok(to)
    }

    fn dir_for_new_log(&self, partition: &TopicPartition) -> Result<&LogDir, LogError> {
        // No other directory: the operator has configured this one and will look for the log there.
        if *partition.topic == *CLUSTER_METADATA_TOPIC
            && let Some(dir) = self.dirs.iter().find(|dir| Some(&dir.ctx.dir) == self.config.metadata_dir.as_ref())
        {
            return Ok(dir);
        }
        let mut counts: Vec<usize> = vec![0; self.data_dirs().count()];
        if counts.len() > 1 {
            for registered in lock(&self.logs).values() {
                if let Some(at) = self.data_dirs().position(|dir| Arc::ptr_eq(&dir.ctx, &registered.ctx)) {
                    counts[at] += 1;
                }
            }
        }
        let online = self.data_dirs().zip(counts).filter(|(dir, _)| !dir.ctx.is_offline());
        match online.min_by_key(|(_, count)| *count) {
            Some((dir, _)) => Ok(dir),
            None => match self.data_dirs().next().map(|dir| dir.ctx.check_online()) {
                Some(Err(error)) => Err(error),
                _ => Err(LogError::Invalid { path: PathBuf::new(), reason: "there is no log directory".into() }),
            },
        }
    }

    /// Lets the background work reach the log, until the log is dropped.
    pub fn register(&self, partition: &TopicPartition, ctx: &Arc<LogContext>, owner: Weak<dyn LogOwner>) {
        lock(&self.logs).insert(partition.clone(), Registered { owner, ctx: ctx.clone() });
    }

    /// The high watermark that was checkpointed for `partition`.
    pub fn checkpointed_high_watermark(&self, partition: &TopicPartition) -> Option<Offset> {
        self.dirs.iter().find_map(|dir| dir.ctx.high_watermarks.get(partition))
    }

    /// Deletes the log: renames it at once; its files are removed after `file.delete.delay.ms`.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn delete_log(&self, partition: &TopicPartition, owner: &dyn LogOwner) -> Result<(), LogError> {
        lock(&self.logs).remove(partition);
        let unique = self.env.random.uuid().simple().to_string();
        // A running flush finds its files by their paths: wait until it ends, and let no other begin.
        let flushes = with_log(owner, |log| log.flushes());
        let _turn = flushes.turn();
        with_log(owner, |log| log.delete(&unique))
    }

    /// Partitions with a directory on disk, opened or not.
    fn partition_dirs(&self) -> Result<Vec<(&LogDir, TopicPartition)>, LogError> {
        let mut partitions = Vec::new();
        for dir in self.online() {
            let here = partitions_in(&*dir.ctx.disk, &dir.ctx.dir)?;
            partitions.extend(here.into_iter().map(|partition| (dir, partition)));
        }
        Ok(partitions)
    }

    /// Partitions on disk, without the metadata log.
    ///
    /// # Errors
    /// A directory that cannot be listed.
    pub fn partitions(&self) -> Result<Vec<TopicPartition>, LogError> {
        let found = self.partition_dirs()?.into_iter().map(|(_, partition)| partition);
        Ok(found.filter(|partition| *partition.topic != *CLUSTER_METADATA_TOPIC).collect())
    }

    /// Whether a log directory contains the partition.
    pub fn has(&self, partition: &TopicPartition) -> bool {
        self.online_for(partition).any(|dir| self.env.disk.exists(&dir.ctx.dir.join(partition.to_string())))
    }

    /// For DescribeLogDirs.
    pub fn describe(&self) -> Vec<LogDirDescription> {
        let logs = self.registered();
        self.data_dirs()
            .map(|dir| {
                let space = dir.ctx.disk.space(&dir.ctx.dir).ok();
                let bytes = |value: Option<u64>| value.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
                LogDirDescription {
                    path: dir.ctx.dir.clone(),
                    directory_id: dir.directory_id.unwrap_or_default(),
                    offline: dir.ctx.is_offline(),
                    total_bytes: bytes(space.map(|space| space.total)),
                    usable_bytes: bytes(space.map(|space| space.usable)),
                    logs: logs
                        .iter()
                        .filter(|(_, ctx, _)| Arc::ptr_eq(ctx, &dir.ctx))
                        .map(|(partition, _, owner)| {
                            with_log(&**owner, |log| {
                                // How far the log's end is behind the high watermark, as in
                                // `ReplicaManager.getLogEndOffsetLag`.
                                let lag = owner
                                    .high_watermark()
                                    .map_or(0, |high_watermark| (high_watermark - log.log_end_offset()).max(0));
                                (partition.clone(), log.size_bytes(), lag)
                            })
                        })
                        .collect(),
                }
            })
            .collect()
    }

    fn registered(&self) -> Vec<(TopicPartition, Arc<LogContext>, Arc<dyn LogOwner>)> {
        let mut logs = lock(&self.logs);
        logs.retain(|_, registered| registered.owner.strong_count() > 0);
        let live = |(partition, registered): (&TopicPartition, &Registered)| {
            Some((partition.clone(), registered.ctx.clone(), registered.owner.upgrade()?))
        };
        logs.iter().filter_map(live).collect()
    }

    // --- background work ---

    /// Starts the background work; it ends with the task group. Each directory has its own task, so that a slow
    /// directory does not delay the others.
    pub fn start(self: &Arc<Self>) {
        for at in 0..self.dirs.len() {
            let manager = self.clone();
            self.env.tasks.spawn_until_stopped("log-manager", async move {
                loop {
                    manager.wait_for_work(at).await;
                    let worker = manager.clone();
                    manager.env.tasks.blocking("log-manager-tick", move || worker.tick_dir(at)).await;
                }
            });
            let (ctx, tasks) = (self.dirs[at].ctx.clone(), self.env.tasks.clone());
            self.env.tasks.spawn_until_stopped("sync ids of partitions", async move {
                loop {
                    ctx.topic_ids_written().await;
                    let worker = ctx.clone();
                    tasks.blocking("sync ids of partitions", move || worker.sync_topic_ids()).await;
                }
            });
        }
    }

    async fn wait_for_work(&self, at: usize) {
        let ctx = &self.dirs[at].ctx;
        tokio::select! {
            biased;
            () = self.env.clock.sleep_until(self.work[at].next_due(ctx)) => {}
            () = ctx.rolled_notify.notified() => {}
        }
    }

    /// Has the high watermarks written soon, because partitions have got other leaders: a replica that starts with an
    /// old one serves its clients less until it hears of a newer one.
    pub fn checkpoint_high_watermarks_soon(&self) {
        let now = self.env.clock.monotonic();
        for (dir, work) in self.dirs.iter().zip(&self.work) {
            lock(&work.schedule).high_watermarks = now;
            dir.ctx.rolled_notify.notify_one();
        }
    }

    /// Does all work that is due. May wait for the disk.
    pub fn tick(&self) {
        for at in 0..self.dirs.len() {
            self.tick_dir(at);
        }
    }

    fn tick_dir(&self, at: usize) {
        let (dir, work) = (&self.dirs[at], &self.work[at]);
        let now = self.env.clock.monotonic();
        let now_ms = self.env.clock.now_ms();
        let due = lock(&work.schedule).take_due(now, &self.config);
        let logs = self.logs_in_dir(dir);
        if dir.ctx.rolled.swap(false, Ordering::AcqRel) {
            // Makes rolled segments durable, so that later flushes have less to sync.
            work.for_each(dir, &logs, now, "flush rolled segments", flush_rolled);
        }
        if due.flush {
            let interval = self.flush_due(at, &logs, now);
            lock(&work.schedule).flush = now.saturating_add(interval);
        }
        if due.retention {
            work.for_each(dir, &logs, now, "apply retention", |owner| {
                let high_watermark = owner.high_watermark();
                with_log(owner, |log| {
                    log.delete_old_segments(now_ms, high_watermark.unwrap_or(log.log_end_offset())).map(|_| ())
                })
            });
        }
        if due.producers {
            for (_, owner) in &logs {
                with_log(&**owner, |log| log.remove_expired_producers(now_ms));
            }
        }
        if !dir.ctx.is_offline()
            && let Err(error) = checkpoint(dir, &logs, &due)
        {
            work.warn_rate_limited(now, |suppressed| {
                tracing::warn!(dir = %dir.ctx.dir.display(), %error, suppressed, "cannot write checkpoint");
            });
        }
        self.remove_due_files(dir, now);
    }

    fn logs_in_dir(&self, dir: &LogDir) -> Vec<Owned> {
        let mut logs = self.registered();
        logs.retain(|(_, ctx, _)| Arc::ptr_eq(ctx, &dir.ctx));
        logs.into_iter().map(|(partition, _, owner)| (partition, owner)).collect()
    }

    /// Flushes the logs whose `flush.ms` has passed. Returns the time until the next check.
    fn flush_due(&self, at: usize, logs: &[Owned], now: Duration) -> Duration {
        let (dir, work) = (&self.dirs[at], &self.work[at]);
        let mut shortest_ms = self.config.high_watermark_checkpoint_interval_ms;
        for (_, owner) in logs {
            shortest_ms = shortest_ms.min(with_log(&**owner, |log| log.config().flush_ms));
        }
        work.for_each(dir, logs, now, "flush", |owner| {
            let up_to = with_log(owner, |log| log.flush_is_due(now).then(|| log.log_end_offset()));
            up_to.map_or(Ok(()), |up_to| flush_through(owner, up_to))
        });
        millis(shortest_ms).max(LEAST_FLUSH_INTERVAL)
    }

    fn remove_due_files(&self, dir: &LogDir, now: Duration) {
        let due = {
            let mut pending_removals = lock(&dir.ctx.pending_removals);
            let (due, later): (VecDeque<_>, VecDeque<_>) =
                pending_removals.drain(..).partition(|pending_removals| pending_removals.due <= now);
            *pending_removals = later;
            due
        };
        for pending_removals in due {
            let disk = &dir.ctx.disk;
            let removed = if pending_removals.is_dir {
                disk.remove_dir_all(&pending_removals.path)
            } else {
                disk.remove_file(&pending_removals.path)
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %pending_removals.path.display(), %error, "cannot remove a deleted file");
                }
                _ => {}
            }
        }
    }

    /// Makes the records durable that recovery has checked, if a log shows its readers only durable records
    /// (`flush.messages`): without this its high watermark would be 0, and clients would see an empty log. One sync
    /// serves a whole volume.
    pub fn sync_recovered(&self) {
        let logs = self.registered();
        for dir in self.dirs.iter().filter(|dir| !dir.ctx.is_offline()) {
            let here = || logs.iter().filter(|(_, ctx, _)| Arc::ptr_eq(ctx, &dir.ctx)).map(|(_, _, owner)| owner);
            let hides = |log: &mut Log| log.visible_end_offset() < log.log_end_offset();
            if !here().any(|owner| with_log(&**owner, hides)) {
                continue;
            }
            let mut prepared = Vec::new();
            for owner in here() {
                match with_log(&**owner, Log::prepare_sync) {
                    Ok(done) => prepared.extend(done.map(|done| (owner, done))),
                    Err(error) => {
                        tracing::warn!(dir = %dir.ctx.dir.display(), %error, "cannot prepare a recovered log for its sync")
                    }
                }
            }
            // A failure takes the directory offline, which reports it.
            if dir.ctx.sync_volume().is_ok() {
                for (owner, done) in prepared {
                    with_log(&**owner, |log| log.flush_done(done));
                }
            }
        }
    }

    /// Closes all logs so that the next start needs no recovery; after that they accept no change. A directory in which
    /// a log could not be closed gets no clean-shutdown file, and is returned.
    pub fn shutdown(&self) -> Vec<UncleanDir> {
        self.dirs.iter().filter_map(|dir| self.close_dir(dir).err()).collect()
    }

    fn close_dir(&self, dir: &LogDir) -> Result<(), UncleanDir> {
        let unclean = |is_synced: bool| {
            move |error: LogError| {
                tracing::error!(dir = %dir.ctx.dir.display(), %error, "cannot close the logs cleanly");
                UncleanDir { dir: dir.ctx.dir.clone(), error, is_synced }
            }
        };
        let logs = self.logs_in_dir(dir);
        let (closed, synced) = close_all(&dir.ctx, &logs);
        synced.map_err(unclean(false))?;
        let checkpointed = checkpoint(dir, &logs, &Due::all());
        closed.and(checkpointed).map_err(unclean(true))?;
        if dir.holds == Holds::MetadataLog {
            return Ok(());
        }
        if !lock(&dir.refused_logs).is_empty() {
            // A log that could not be opened was not closed either: without the clean-shutdown file the next start
            // checks it again.
            return Ok(());
        }
        let path = dir.ctx.dir.join(CLEAN_SHUTDOWN_FILE);
        let text = clean_shutdown_text(self.broker_epoch.load(Ordering::Relaxed));
        let marked = dir.ctx.disk.write_atomically(&path, text.as_bytes());
        marked.map_err(LogError::io("write", &path)).map_err(unclean(true))
    }
}

/// A log of a directory and its partition.
type Owned = (TopicPartition, Arc<dyn LogOwner>);

/// A log directory that could not be closed cleanly: the next start recovers its logs.
#[derive(Debug)]
pub struct UncleanDir {
    /// The directory.
    pub dir: PathBuf,
    /// Why.
    pub error: LogError,
    /// Whether all records are durable nevertheless.
    pub is_synced: bool,
}

/// The background work of one log directory.
struct DirWork {
    schedule: Mutex<Schedule>,
    warnings: LogLineLimit,
}

impl DirWork {
    fn starting_at(now: Duration, config: &LogManagerConfig) -> Self {
        DirWork { schedule: Mutex::new(Schedule::starting_at(now, config)), warnings: LogLineLimit::default() }
    }

    fn next_due(&self, ctx: &LogContext) -> Duration {
        let schedule = lock(&self.schedule);
        let deletion = lock(&ctx.pending_removals).iter().map(|deletion| deletion.due).min();
        [
            schedule.recovery_points,
            schedule.log_start_offsets,
            schedule.high_watermarks,
            schedule.retention,
            schedule.producers,
            schedule.flush,
            deletion.unwrap_or(Duration::MAX),
        ]
        .into_iter()
        .min()
        .unwrap_or(Duration::MAX)
    }

    /// During a shortage the same work fails again and again: log at most one line a minute, with the number of
    /// suppressed lines.
    fn warn_rate_limited(&self, now: Duration, warn: impl FnOnce(u64)) {
        if let Some(suppressed) = self.warnings.admit(now) {
            warn(suppressed);
        }
    }

    fn for_each<E: std::fmt::Display>(
        &self,
        dir: &LogDir,
        logs: &[Owned],
        now: Duration,
        what: &str,
        act: impl Fn(&dyn LogOwner) -> Result<(), E>,
    ) {
        for (partition, owner) in logs {
            if dir.ctx.is_offline() {
                return;
            }
            if let Err(error) = act(&**owner)
                && !dir.ctx.is_offline()
            {
                // An offline directory has been reported already.
                self.warn_rate_limited(
                    now,
                    |suppressed| tracing::warn!(%partition, %error, suppressed, "cannot {what}"),
                );
            }
        }
    }
}

/// Writes the checkpoints that are due. If one fails, the others are still written.
fn checkpoint(dir: &LogDir, logs: &[Owned], due: &Due) -> Result<(), LogError> {
    let ctx = &dir.ctx;
    // A log deleted since the list was made may already have a successor with the same name.
    let gather = |read: fn(&Log) -> Offset| -> Vec<(TopicPartition, Offset)> {
        let offset = |(partition, owner): &Owned| {
            let offset = with_log(&**owner, |log| (!log.is_deleted()).then(|| read(log)))?;
            Some((partition.clone(), offset))
        };
        logs.iter().filter_map(offset).collect()
    };
    let write = |checkpoint: &OffsetCheckpoint, gather: &dyn Fn() -> Vec<(TopicPartition, Offset)>| {
        checkpoint.update_gathered(gather).map_err(|error| ctx.handle_io_error(error))
    };
    let mut result = Ok(());
    if due.recovery_points {
        result = result.and(write(&ctx.recovery_points, &|| gather(Log::recovery_point_of_checkpoint)));
    }
    if due.log_start_offsets {
        result = result.and(write(&ctx.log_start_offsets, &|| gather(Log::log_start_offset)));
    }
    if due.high_watermarks {
        let high_watermark = |(partition, owner): &Owned| {
            let is_here = with_log(&**owner, |log| !log.is_deleted());
            is_here.then(|| Some((partition.clone(), owner.high_watermark()?)))?
        };
        result = result.and(write(&ctx.high_watermarks, &|| logs.iter().filter_map(high_watermark).collect()));
    }
    result
}

/// Closes the logs of one directory; if one fails, the others are still closed. The first result says whether all could
/// be closed, the second whether their records are durable.
fn close_all(ctx: &LogContext, logs: &[Owned]) -> (Result<(), LogError>, Result<(), LogError>) {
    let mut closed = Ok(());
    let mut prepared = Vec::new();
    let mut is_dirty = false;
    for (_, owner) in logs {
        match with_log(&**owner, Log::prepare_close) {
            Ok(Some(done)) => prepared.push((owner, done)),
            Ok(None) => {}
            Err(error) => {
                is_dirty = true;
                closed = closed.and(Err(error));
            }
        }
    }
    if let Err(error) = ctx.check_online() {
        return (closed, Err(error));
    }
    if prepared.is_empty() && !is_dirty {
        return (closed, Ok(()));
    }
    // One sync of the volume: thousands of single syncs would make the shutdown too slow.
    let synced = ctx.sync_volume();
    if synced.is_ok() {
        for (owner, done) in prepared {
            with_log(&**owner, |log| log.flush_done(done));
        }
    }
    (closed, synced)
}

struct Due {
    recovery_points: bool,
    log_start_offsets: bool,
    high_watermarks: bool,
    retention: bool,
    producers: bool,
    flush: bool,
}

impl Due {
    fn all() -> Self {
        Due {
            recovery_points: true,
            log_start_offsets: true,
            high_watermarks: true,
            retention: true,
            producers: true,
            flush: true,
        }
    }
}

impl Schedule {
    fn starting_at(now: Duration, config: &LogManagerConfig) -> Self {
        Schedule {
            recovery_points: now.saturating_add(millis(config.recovery_point_checkpoint_interval_ms)),
            log_start_offsets: now.saturating_add(millis(config.log_start_offset_checkpoint_interval_ms)),
            high_watermarks: now.saturating_add(millis(config.high_watermark_checkpoint_interval_ms)),
            retention: now.saturating_add(millis(config.retention_check_interval_ms).min(INITIAL_RETENTION_DELAY)),
            producers: now.saturating_add(millis(config.producer_id_expiration_check_interval_ms)),
            flush: now.saturating_add(LEAST_FLUSH_INTERVAL),
        }
    }

    fn take_due(&mut self, now: Duration, config: &LogManagerConfig) -> Due {
        let take = |at: &mut Duration, interval_ms: i64| {
            let due = *at <= now;
            if due {
                // Kafka accepts intervals of 0 too; they must not use up a whole core.
                *at = now.saturating_add(millis(interval_ms).max(LEAST_INTERVAL));
            }
            due
        };
        Due {
            recovery_points: take(&mut self.recovery_points, config.recovery_point_checkpoint_interval_ms),
            log_start_offsets: take(&mut self.log_start_offsets, config.log_start_offset_checkpoint_interval_ms),
            high_watermarks: take(&mut self.high_watermarks, config.high_watermark_checkpoint_interval_ms),
            retention: take(&mut self.retention, config.retention_check_interval_ms),
            producers: take(&mut self.producers, config.producer_id_expiration_check_interval_ms),
            flush: self.flush <= now,
        }
    }
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        env::{Disk, Open, SystemNet, SystemRandom, Tasks},
        log::{ValidationRules, tests::plain, validate},
        sim::{SimClock, SimDisk},
    };

    fn env(disk: &SimDisk, clock: &SimClock) -> Env {
        Env {
            clock: Arc::new(clock.clone()),
            disk: Arc::new(disk.clone()),
            net: Arc::new(SystemNet),
            random: Arc::new(SystemRandom::new()),
            tasks: Tasks::new(),
        }
    }

    fn two_dirs() -> LogManagerConfig {
        LogManagerConfig::new(vec!["/a".into(), "/b".into()], 1)
    }

    fn tp(name: &str) -> TopicPartition {
        TopicPartition::new(name, 0)
    }

    fn append(log: &Mutex<Log>, now_ms: i64) {
        let mut log = log.lock().unwrap();
        let config = log.config().clone();
        let partition = log.partition().clone();
        let batch =
            validate(plain(1, &[1; 500], now_ms), &ValidationRules::new(&partition, &config, now_ms, 9)).unwrap();
        log.append_as_leader(batch, 0, now_ms).unwrap();
    }

    fn open(manager: &LogManager, name: &str, config: LogConfig) -> Arc<Mutex<Log>> {
        let log = manager.open_log(&tp(name), None, Arc::new(config), Placement::New(None)).unwrap();
        let ctx = log.context().clone();
        let log = Arc::new(Mutex::new(log));
        let owner: Arc<dyn LogOwner> = log.clone();
        manager.register(&tp(name), &ctx, Arc::downgrade(&owner));
        log
    }

    #[test]
    fn a_fresh_directory_is_initialised_and_belongs_to_its_node_and_cluster_from_then_on() {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(1000));
        let env = env(&disk, &clock);
        let manager = LogManager::open(&env, two_dirs()).unwrap();
        let cluster_id = manager.cluster_id();
        assert_eq!(cluster_id.as_ref().unwrap().len(), 22);
        let refused = LogManager::open(&env, two_dirs()).err().unwrap();
        assert!(matches!(&refused, LogError::Locked { dir } if dir == Path::new("/a")), "{refused}");
        assert!(refused.to_string().contains("in use by another process"));
        let ids: Vec<_> = manager.directory_ids().map(|(_, id)| id).collect();
        drop(manager);
        let again = LogManager::open(&env, two_dirs()).unwrap();
        assert_eq!(again.cluster_id(), cluster_id);
        assert_eq!(again.directory_ids().map(|(_, id)| id).collect::<Vec<_>>(), ids);
        drop(again);
        let other = LogManagerConfig { node_id: 2, ..two_dirs() };
        assert!(LogManager::open(&env, other).err().unwrap().to_string().contains("belongs to node.id 1"));
        let other = LogManagerConfig { cluster_id: Some("x".into()), ..two_dirs() };
        assert!(LogManager::open(&env, other).err().unwrap().to_string().contains("belongs to cluster"));
    }

    #[test]
    fn new_logs_go_where_the_fewest_are() {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(1000));
        let manager = LogManager::open(&env(&disk, &clock), two_dirs()).unwrap();
        let _logs: Vec<_> = (0..6).map(|index| open(&manager, &format!("t{index}"), LogConfig::default())).collect();
        assert!(manager.describe().iter().all(|dir| dir.logs.len() == 3 && !dir.offline));
        let mut partitions: Vec<_> = manager.partition_dirs().unwrap().into_iter().map(|(_, tp)| tp).collect();
        partitions.sort();
        assert_eq!(partitions.len(), 6);
        assert_eq!(partitions[5], tp("t5"));
    }

    #[test]
    fn c6_a_clean_stop_proves_itself_by_the_broker_epoch_in_all_directories() {
        let (disk, clock) = (SimDisk::new(7), SimClock::new(1_000_000));
        let env = env(&disk, &clock);
        let start = |dirs: &[&str]| {
            let dirs = dirs.iter().map(|dir| dir.into()).collect();
            LogManager::open(&env, LogManagerConfig::new(dirs, 1)).unwrap()
        };
        let stop = |manager: Arc<LogManager>, epoch: i64| {
            manager.set_broker_epoch(epoch);
            manager.shutdown();
        };
        let manager = start(&["/a", "/b"]);
        assert_eq!(manager.previous_broker_epoch(), -1, "a new broker");
        stop(manager, 17);
        let manager = start(&["/a", "/b"]);
        assert_eq!(manager.previous_broker_epoch(), 17);
        drop(manager);
        let manager = start(&["/a", "/b"]);
        assert_eq!(manager.previous_broker_epoch(), -1, "the last process was killed");
        stop(manager, 18);
        stop(start(&["/a"]), 19);
        let manager = start(&["/a", "/b"]);
        assert_eq!((manager.previous_broker_epoch(), manager.was_clean_shutdown()), (-1, true), "/b is older");
        drop(manager);
        for content in ["", "{}", "{\"version\":0,\"brokerEpoch\":\"x\"}", "\u{0}"] {
            disk.write_atomically(Path::new("/a/.kafka_cleanshutdown"), content.as_bytes()).unwrap();
            let manager = start(&["/a"]);
            assert_eq!((manager.previous_broker_epoch(), manager.was_clean_shutdown()), (-1, true), "{content}");
        }
    }

    #[test]
    fn inv_l4_after_a_clean_stop_nothing_is_recovered_and_after_a_crash_nothing_flushed_is_missing() {
        for clean in [true, false] {
            let (disk, clock) = (SimDisk::new(7), SimClock::new(1_000_000));
            let env = env(&disk, &clock);
            let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
            let log = open(&manager, "t", LogConfig::default());
            for _ in 0..5 {
                append(&log, 1_000_000);
            }
            flush_through(&*log, 3).unwrap();
            append(&log, 1_000_000);
            if clean {
                manager.shutdown();
            } else {
                clock.advance(Duration::from_secs(60));
                manager.tick();
            }
            drop((log, manager));
            disk.crash();
            let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
            assert_eq!(manager.was_clean_shutdown(), clean);
            assert!(!disk.exists(Path::new("/a/.kafka_cleanshutdown")), "the clean-shutdown file is valid once");
            let log = open(&manager, "t", LogConfig::default());
            let end = log.lock().unwrap().log_end_offset();
            assert!(end == 6 || !clean && end == 5, "{end}");
        }
    }

    #[test]
    fn flush_ms_and_rolled_segments_become_durable_by_themselves() {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
        let manager = LogManager::open(&env(&disk, &clock), LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
        let timed = open(&manager, "timed", LogConfig { flush_ms: 1000, ..LogConfig::default() });
        let rolled = open(&manager, "rolled", LogConfig { segment_bytes: 600, ..LogConfig::default() });
        for _ in 0..3 {
            append(&timed, 1_000_000);
            append(&rolled, 1_000_000);
        }
        manager.tick();
        assert_eq!(rolled.lock().unwrap().recovery_point(), 2, "all but the active segment");
        assert_eq!(timed.lock().unwrap().recovery_point(), 0);
        clock.advance(Duration::from_millis(1010));
        manager.tick();
        assert_eq!(timed.lock().unwrap().recovery_point(), 3);
        let syncs = disk.syncs();
        for _ in 0..100 {
            clock.advance(Duration::from_secs(1));
            manager.tick();
        }
        assert_eq!(disk.syncs(), syncs + 2, "two checkpoints have changed, and an idle broker writes nothing");
    }

    #[test]
    fn retention_runs_and_deleted_files_go_after_their_delay() {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
        let manager = LogManager::open(&env(&disk, &clock), LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
        let config =
            LogConfig { segment_bytes: 600, retention_ms: 60_000, file_delete_delay_ms: 5000, ..LogConfig::default() };
        let log = open(&manager, "t", config);
        for _ in 0..3 {
            append(&log, 1_000_000);
        }
        clock.advance(Duration::from_secs(29));
        manager.tick();
        assert_eq!(log.lock().unwrap().log_start_offset(), 0);
        clock.advance(Duration::from_secs(300));
        manager.tick();
        assert_eq!(with_log(&*log, |log| (log.log_start_offset(), log.log_end_offset())), (3, 3));
        let deleted =
            || disk.list(Path::new("/a/t-0")).unwrap().iter().filter(|entry| entry.name.ends_with(".deleted")).count();
        assert!(deleted() >= 3);
        clock.advance(Duration::from_secs(5));
        manager.tick();
        assert_eq!(deleted(), 0);

        manager.delete_log(&tp("t"), &*log).unwrap();
        assert!(!disk.exists(Path::new("/a/t-0")));
        assert!(manager.partition_dirs().unwrap().is_empty());
        // Retention may have taken its list of logs just before.
        let late = with_log(&*log, |log| log.delete_old_segments(i64::MAX, 3));
        assert_eq!(late.unwrap(), 0);
        clock.advance(Duration::from_secs(5));
        manager.tick();
        assert!(disk.list(Path::new("/a")).unwrap().iter().all(|entry| !entry.is_dir));
    }

    #[test]
    fn a_delete_waits_for_the_flush_under_way_and_ends_those_behind_it() {
        // A real disk: its fsync takes long enough to overlap with the delete.
        let directory = tempfile::tempdir().unwrap();
        let env =
            Env { disk: Arc::new(crate::env::disk::SystemDisk), ..env(&SimDisk::new(1), &SimClock::new(1_000_000)) };
        let manager = LogManager::open(&env, LogManagerConfig::new(vec![directory.path().into()], 1)).unwrap();
        for _ in 0..20 {
            let log = open(&manager, "t", LogConfig { segment_bytes: 600, ..LogConfig::default() });
            for _ in 0..5 {
                append(&log, 1_000_000);
            }
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| flush_through(&*log, 5).unwrap());
                }
                manager.delete_log(&tp("t"), &*log).unwrap();
            });
            assert!(!manager.dirs[0].ctx.is_offline());
            assert!(!directory.path().join("t-0").exists());
        }
    }

    #[tokio::test]
    async fn the_topic_ids_of_new_partitions_are_soon_durable() {
        for partitions in [2, super::super::context::IDS_SYNCED_ONE_BY_ONE + 2] {
            let disk = SimDisk::new(1);
            let env = env(&disk, &SimClock::new(1_000_000));
            let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
            manager.start();
            let open = |index| {
                let name = TopicPartition::new("t", i32::try_from(index).unwrap());
                manager.open_log(&name, topic_id(3), Arc::default(), Placement::New(None)).unwrap()
            };
            let logs: Vec<_> = (0..partitions).map(open).collect();
            let ctx = manager.dirs[0].ctx.clone();
            crate::sim::until("the ids are synced", || ctx.synced_ids() == partitions).await;
            disk.crash();
            for index in 0..logs.len() {
                let dir = format!("/a/t-{index}");
                assert_eq!(topic_id_in(&disk, Path::new(&dir)).unwrap(), topic_id(3), "{dir}");
            }
            env.tasks.shutdown().await;
        }
    }

    fn topic_id(id: u128) -> Option<TopicId> {
        // As different from one another as random ids.
        Some(TopicId(Uuid::from_u128(id.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))))
    }

    fn names(disk: &SimDisk, suffix: &str) -> usize {
        disk.list(Path::new("/a")).unwrap().iter().filter(|entry| entry.name.ends_with(suffix)).count()
    }

    #[test]
    fn what_no_topic_has_is_set_aside_and_a_name_can_be_used_again() {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
        let manager = LogManager::open(&env(&disk, &clock), LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
        let config = || Arc::new(LogConfig::default());
        for (name, id) in [("known", 1), ("gone", 2), ("other-id", 3)] {
            manager.open_log(&tp(name), topic_id(id), config(), Placement::New(None)).unwrap();
        }
        // A broker that was killed after its topic was deleted and before its directory was.
        manager.set_aside_strays(|partition, id| &*partition.topic == "known" || id == topic_id(3)).unwrap();
        assert_eq!((names(&disk, "-stray"), names(&disk, "-0")), (1, 2));
        let log = manager.open_log(&tp("other-id"), topic_id(4), config(), Placement::New(None)).unwrap();
        assert_eq!((log.topic_id(), log.log_end_offset()), (topic_id(4), 0));
        assert_eq!(names(&disk, "-stray"), 2);
        // A log that cannot be opened is deleted with its topic nevertheless.
        manager.delete_closed_log(&tp("known")).unwrap();
        manager.delete_closed_log(&tp("never-there")).unwrap();
        assert_eq!((names(&disk, "-delete"), names(&disk, "-0")), (1, 1));
        manager.tick();
        assert_eq!(names(&disk, "-delete"), 0);
    }

    #[test]
    fn inv_l4_a_log_that_was_refused_is_refused_again_after_a_clean_stop() {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
        let env = env(&disk, &clock);
        let config = || LogManagerConfig::new(vec!["/a".into()], 1);
        let manager = LogManager::open(&env, config()).unwrap();
        let log = open(&manager, "t", LogConfig::default());
        append(&log, 1);
        log.lock().unwrap().flush().unwrap();
        clock.advance(Duration::from_secs(60));
        manager.tick();
        drop((log, manager));
        disk.crash();
        disk.remove_file(Path::new("/a/t-0/00000000000000000000.log")).unwrap();
        for _ in 0..2 {
            let manager = LogManager::open(&env, config()).unwrap();
            let refused = manager.open_log(&tp("t"), None, Arc::new(LogConfig::default()), Placement::New(None));
            assert!(matches!(refused, Err(LogError::Corrupt { .. })), "{:?}", refused.err());
            manager.shutdown();
            assert!(!disk.exists(Path::new("/a").join(CLEAN_SHUTDOWN_FILE).as_path()));
        }
    }

    #[test]
    fn deleting_logs_writes_no_checkpoint_and_a_late_one_says_nothing_of_them() {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
        let env = env(&disk, &clock);
        let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
        let logs: Vec<_> = (0..50).map(|index| open(&manager, &format!("t{index}"), LogConfig::default())).collect();
        for log in &logs {
            append(log, 1);
            log.lock().unwrap().flush().unwrap();
        }
        let dir = &manager.dirs[0];
        checkpoint(dir, &manager.logs_in_dir(dir), &Due::all()).unwrap();
        let stale = manager.logs_in_dir(dir);
        let syncs = disk.syncs();
        for (index, log) in logs.iter().enumerate() {
            manager.delete_log(&tp(&format!("t{index}")), &**log).unwrap();
        }
        assert_eq!(disk.syncs(), syncs);
        let again = open(&manager, "t7", LogConfig::default());
        // A tick that made its list of logs before the deletes.
        checkpoint(dir, &stale, &Due::all()).unwrap();
        drop((again, logs, stale, manager));
        disk.crash();
        let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
        assert_eq!(manager.dirs[0].ctx.recovery_points.get(&tp("t7")), None);
        assert_eq!(manager.dirs[0].ctx.recovery_points.get(&tp("t8")), None);
    }

    #[test]
    fn what_runs_short_is_not_a_broken_disk() {
        use rustix::io::Errno;
        let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
        let manager = LogManager::open(&env(&disk, &clock), LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
        let ctx = &manager.dirs[0].ctx;
        let fault = |errno: Errno| LogError::io("open", Path::new("/a/t-0"))(errno.into());
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOSPC, Errno::DQUOT] {
            ctx.handle_io_error(fault(errno));
            assert!(!ctx.is_offline(), "{errno}");
        }
        ctx.handle_io_error(fault(Errno::IO));
        assert!(ctx.is_offline());
    }

    #[test]
    fn what_is_deleted_goes_at_once_where_there_is_no_room_for_a_new_name() {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
        let manager = LogManager::open(&env(&disk, &clock), LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
        let config = LogConfig { segment_bytes: 600, retention_ms: 60_000, ..LogConfig::default() };
        let log = open(&manager, "t", config);
        for _ in 0..3 {
            append(&log, 1_000_000);
        }
        disk.set_capacity(0);
        disk.set_faults(crate::sim::disk::Faults { no_space_for_names: true, ..Default::default() });
        clock.advance(Duration::from_secs(400));
        manager.tick();
        assert_eq!(with_log(&*log, |log| log.log_start_offset()), 2);
        assert!(!disk.exists(Path::new("/a/t-0/00000000000000000000.log")));
        let plan = log.lock().unwrap().read(2, 1000, Offset::MAX, true).unwrap();
        manager.delete_log(&tp("t"), &*log).unwrap();
        assert!(!disk.exists(Path::new("/a/t-0")) && !manager.is_offline());
        assert!(
            plan.records()
                .and_then(|records| records.into_bytes().map_err(LogError::io("read", Path::new("/a"))))
                .is_ok()
        );
        disk.create_dir_all(Path::new("/a/closed-0")).unwrap();
        manager.delete_closed_log(&tp("closed")).unwrap();
        assert!(!disk.exists(Path::new("/a/closed-0")));
    }

    #[test]
    fn retention_makes_room_on_a_full_disk() {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
        let manager = LogManager::open(&env(&disk, &clock), LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
        let config =
            LogConfig { segment_bytes: 600, retention_ms: 60_000, file_delete_delay_ms: 0, ..LogConfig::default() };
        let log = open(&manager, "t", config);
        for _ in 0..3 {
            append(&log, 1_000_000);
        }
        let start = || with_log(&*log, |log| log.log_start_offset());
        disk.set_capacity(0);
        clock.advance(Duration::from_secs(400));
        manager.tick();
        assert_eq!(start(), 2, "all but the segment whose end needs a new one");
        disk.set_capacity(u64::MAX);
        clock.advance(Duration::from_secs(400));
        manager.tick();
        assert_eq!(start(), 3);
        assert!(!manager.is_offline());
    }

    #[test]
    fn a_topic_created_again_has_nothing_to_do_with_the_checkpoints_of_the_old_one() {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
        let env = env(&disk, &clock);
        let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
        let log = open(&manager, "t", LogConfig::default());
        append(&log, 1);
        flush_through(&*log, 1).unwrap();
        clock.advance(Duration::from_secs(60));
        manager.tick();
        manager.delete_log(&tp("t"), &*log).unwrap();
        let log = open(&manager, "t", LogConfig::default());
        assert_eq!(log.lock().unwrap().log_end_offset(), 0);
        assert_eq!(manager.checkpointed_high_watermark(&tp("t")), None);
        drop((log, manager));
        disk.crash();
        let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
        assert_eq!(open(&manager, "t", LogConfig::default()).lock().unwrap().log_end_offset(), 0);
    }

    #[tokio::test]
    async fn the_background_work_wakes_at_a_roll() {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
        let env = env(&disk, &clock);
        let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
        let log = open(&manager, "t", LogConfig { segment_bytes: 600, ..LogConfig::default() });
        manager.start();
        append(&log, 1);
        append(&log, 1);
        crate::sim::until("the closed segment is flushed", || log.lock().unwrap().recovery_point() >= 1).await;
        env.tasks.shutdown().await;
    }

    #[test]
    fn a_directory_that_fails_is_reported_once_and_the_other_goes_on() {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
        let manager = LogManager::open(&env(&disk, &clock), two_dirs()).unwrap();
        let failed: Arc<Mutex<Vec<PathBuf>>> = Arc::default();
        let heard = failed.clone();
        manager.on_dir_failure(move |dir, _| heard.lock().unwrap().push(dir.to_owned()));
        let (a, b) = (open(&manager, "t", LogConfig::default()), open(&manager, "u", LogConfig::default()));
        append(&a, 1);
        append(&b, 1);
        disk.set_faults(crate::sim::disk::Faults { fail_sync: Some(1), ..Default::default() });
        assert!(flush_through(&*a, 1).is_err());
        assert!(flush_through(&*a, 1).is_err());
        flush_through(&*b, 1).unwrap();
        assert_eq!(*failed.lock().unwrap(), [PathBuf::from("/a")]);
        assert!(!manager.is_offline());
        manager.shutdown();
        assert!(!disk.exists(Path::new("/a/.kafka_cleanshutdown")));
        assert!(disk.exists(Path::new("/b/.kafka_cleanshutdown")));
        assert!(disk.open(Path::new("/b/recovery-point-offset-checkpoint"), Open::Read).is_ok());
    }
}
