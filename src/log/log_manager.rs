//! Owns all logs of the log directories: knows which directory a partition is in, and which a new one goes to.
//!
//! Opens a log only when the replica layer asks for it; other partitions on disk stay untouched. The periodic work and
//! the stop are in `log_manager/background.rs`. Leaves locking and identifying the directories to `log_dirs.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    checkpoints::{MetaProperties, OffsetCheckpoint, is_damaged_copy},
    flush::with_log,
    log::moved_dir_name,
    log_dirs::{Holds, LogDir, LogDirs, partitions_in, write_meta},
    recovery::{holds_records, topic_id_in},
};
use crate::{
    config::topic::LogConfig,
    env::{Env, Watched, lock::lock},
    types::{BrokerId, CLUSTER_METADATA_TOPIC, Offset, TopicId, TopicPartition},
};

mod background;
mod cleaner;
#[cfg(test)]
mod cleaner_tests;
#[cfg(test)]
mod tests;

pub use self::{
    background::UncleanDir,
    cleaner::{CleanerConfig, CleanerFigures},
};
use self::{
    background::{DirWork, Owned},
    cleaner::CleanerState,
};

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
    /// `log.cleaner.*`.
    pub cleaner: CleanerConfig,
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
            cleaner: CleanerConfig::default(),
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
    cleaner: Mutex<CleanerState>,
}

impl LogManager {
    /// Locks the log directories and initialises new ones; no format step is needed.
    ///
    /// # Errors
    /// As [`LogDirs::open`].
    pub fn open(env: &Env, config: LogManagerConfig) -> Result<Arc<LogManager>, LogError> {
        let LogDirs { cluster_id, is_new_cluster, dirs } = LogDirs::open(env, &config)?;
        let now = env.clock.monotonic();
        let cleaner = CleanerState::with(config.cleaner);
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
            cleaner: Mutex::new(cleaner),
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
}
