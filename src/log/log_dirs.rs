//! Checks the log directories at the start: which cluster and node they belong to, which of them can be used, and that
//! no partition is in two.
//!
//! Owns the lock files, `meta.properties` and the clean-shutdown files. Never initialises a directory that may hold
//! data: one that has partitions and no identity is refused, and the error says what to do. Leaves opening logs and all
//! later work to `log_manager.rs`.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use uuid::Uuid;

use super::{
    FileCache, LogContext, LogError, LogManagerConfig, TailCache,
    checkpoints::{CLEAN_SHUTDOWN_FILE, MetaProperties, clean_broker_epoch, read_if_exists},
    log::PARTITION_METADATA_FILE,
    recovery::topic_id_in,
};
use crate::{
    env::{Disk, Env},
    types::{BrokerId, CLUSTER_METADATA_TOPIC, TopicId, TopicPartition, uuid_to_base64},
};

/// A message names at most this many partitions, and counts the others.
const MOST_NAMED: usize = 20;

/// What a log directory may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// All logs: `metadata.log.dir` is one of `log.dirs`.
    All,
    /// Partitions of topics: one of `log.dirs`, while `metadata.log.dir` is none of them.
    Topics,
    /// The metadata log: `metadata.log.dir`, which is none of `log.dirs`.
    MetadataLog,
}

/// One log directory.
pub(super) struct LogDir {
    pub(super) holds: Holds,
    pub(super) ctx: Arc<LogContext>,
    /// `directory.id`; `None` if the directory could not be read.
    pub(super) directory_id: Option<Uuid>,
    /// Whether this start has initialised it.
    pub(super) is_new: bool,
    /// The broker epoch in the clean-shutdown file (-1 if it had none), if the directory contained the file when it was
    /// opened. Always `None` for the directory of the metadata log alone: Apache Kafka neither writes the file there
    /// nor removes it, so it would say nothing of a process of Kafka that ran meanwhile.
    pub(super) clean_shutdown: Option<i64>,
    /// Logs that exist and could not be opened.
    pub(super) refused_logs: Mutex<BTreeSet<TopicPartition>>,
    _lock: Option<Box<dyn Any + Send + Sync>>,
}

/// All log directories.
pub(super) struct LogDirs {
    /// `None` if the quorum of a new cluster has not chosen it yet.
    pub(super) cluster_id: Option<String>,
    /// Whether no directory had an identity: this is the first start.
    pub(super) is_new_cluster: bool,
    pub(super) dirs: Vec<LogDir>,
}

/// A directory that this process has locked, before its cluster is checked.
struct Taken {
    holds: Holds,
    meta: Result<MetaProperties, Unidentified>,
    partitions: Vec<TopicPartition>,
    lock: Box<dyn Any + Send + Sync>,
}

/// Why a directory has no readable identity.
enum Unidentified {
    /// `meta.properties` does not exist.
    Missing,
    /// `meta.properties` is not valid.
    Damaged(String),
}

impl LogDirs {
    /// Locks the log directories and initialises new ones; no format step is needed. A directory that cannot be read
    /// does not affect the others.
    ///
    /// # Errors
    /// A directory is used by another process, belongs to another node or cluster, or has no readable identity; a
    /// partition is in two directories, or in one that may not hold it; no directory can be read, or not the one of the
    /// metadata log alone.
    pub(super) fn open(env: &Env, config: &LogManagerConfig) -> Result<LogDirs, LogError> {
        let mut taken = Vec::new();
        for dir in &config.log_dirs {
            let holds = if config.separate_metadata_dir().is_some() { Holds::Topics } else { Holds::All };
            taken.push((dir, usable(take(env, dir, holds))?));
        }
        if taken.iter().all(|(_, taken)| taken.is_err()) {
            let first = taken.into_iter().find_map(|(_, taken)| taken.err());
            let none = || LogError::Invalid { path: PathBuf::new(), reason: "there is no log directory".into() };
            return Err(first.unwrap_or_else(none));
        }
        if let Some(dir) = config.separate_metadata_dir() {
            let metadata = take(env, dir, Holds::MetadataLog)?;
            refuse_misplaced(dir, &metadata, &taken)?;
            // It is initialised first: others that have an identity show that this one is not new.
            taken.insert(0, (dir, Ok(metadata)));
        }
        Self::of(env, config, taken)
    }

    fn of(
        env: &Env,
        config: &LogManagerConfig,
        taken: Vec<(&PathBuf, Result<Taken, LogError>)>,
    ) -> Result<LogDirs, LogError> {
        let readable = || taken.iter().filter_map(|(dir, taken)| Some((*dir, taken.as_ref().ok()?)));
        let identified = || readable().filter_map(|(dir, taken)| Some((dir, taken.meta.as_ref().ok()?)));
        let known = agree_on_cluster_id(config, identified())?;
        let cluster_id = match known {
            None if config.is_alone => Some(uuid_to_base64(env.random.uuid())),
            known => known,
        };
        for (dir, taken) in readable() {
            refuse_unidentified(env, dir, taken, cluster_id.as_deref(), config.node_id)?;
        }
        refuse_duplicates(env, readable())?;
        let is_new_cluster = identified().next().is_none();
        let files = Arc::new(FileCache::new(config.limits.open_files));
        let tail = Arc::new(TailCache::new(config.limits.tail_cache_bytes));
        let mut dirs = Vec::new();
        for (dir, taken) in taken {
            let (files, tail) = (files.clone(), tail.clone());
            let is_metadata_dir = config.separate_metadata_dir() == Some(dir);
            let opened = taken.and_then(|taken| {
                let ctx = LogContext::new(dir, env.disk.clone(), env.clock.clone(), files, tail, &config.limits)?;
                LogDir::open(env, ctx, taken, cluster_id.as_deref(), config.node_id)
            });
            dirs.push(match usable(opened)? {
                Ok(opened) => opened,
                Err(error) if is_metadata_dir => return Err(error),
                Err(error) => {
                    LogDir::unreadable(LogContext::unreadable(dir, env.disk.clone(), env.clock.clone()), &error)
                }
            });
        }
        Ok(LogDirs { cluster_id, is_new_cluster, dirs })
    }
}

impl LogDir {
    fn open(
        env: &Env,
        ctx: Arc<LogContext>,
        taken: Taken,
        cluster_id: Option<&str>,
        node_id: BrokerId,
    ) -> Result<LogDir, LogError> {
        let Taken { holds, lock, .. } = taken;
        let is_new = taken.meta.is_err();
        let cluster_id = cluster_id.map(str::to_owned);
        let meta = match taken.meta {
            Ok(meta) if meta.cluster_id == cluster_id => meta,
            Ok(meta) => write_meta(env, &ctx.dir, MetaProperties { cluster_id, ..meta })?,
            Err(_) => {
                let directory_id = env.random.uuid();
                write_meta(env, &ctx.dir, MetaProperties { cluster_id, node_id, directory_id })?
            }
        };
        let clean_shutdown = consume_clean_shutdown_file(&ctx)?.filter(|_| holds != Holds::MetadataLog);
        schedule_leftover_deletions(&ctx)?;
        Ok(LogDir {
            holds,
            ctx,
            directory_id: Some(meta.directory_id),
            is_new,
            clean_shutdown,
            refused_logs: Mutex::default(),
            _lock: Some(lock),
        })
    }

    /// A configured directory that is offline from the start.
    fn unreadable(ctx: Arc<LogContext>, error: &LogError) -> LogDir {
        ctx.fail(error);
        LogDir {
            // If all logs may be in it, the metadata log is in another one, or cannot be opened.
            holds: Holds::All,
            ctx,
            directory_id: None,
            is_new: false,
            clean_shutdown: None,
            refused_logs: Mutex::default(),
            _lock: None,
        }
    }
}

/// The outer error stops the start; the inner error only makes one directory unusable.
fn usable<T>(opened: Result<T, LogError>) -> Result<Result<T, LogError>, LogError> {
    match opened {
        Err(error) if !matches!(error, LogError::Io { .. }) => Err(error),
        other => Ok(other),
    }
}

fn take(env: &Env, dir: &Path, holds: Holds) -> Result<Taken, LogError> {
    create_durably(&*env.disk, dir)?;
    let lock = env.disk.lock(&dir.join(".lock")).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => LogError::Locked { dir: dir.to_owned() },
        _ => LogError::io("lock", dir)(error),
    })?;
    let path = dir.join(MetaProperties::FILE_NAME);
    let meta = match read_if_exists(&*env.disk, &path)? {
        Some(bytes) => MetaProperties::parse(&bytes).map_err(Unidentified::Damaged),
        None => Err(Unidentified::Missing),
    };
    Ok(Taken { holds, meta, partitions: partitions_in(&*env.disk, dir)?, lock })
}

/// Creates the directory and its parents, and makes their names durable: without that a crash could lose the directory
/// with all its synced files.
fn create_durably(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    let ancestors = dir.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty());
    let missing: Vec<&Path> = ancestors.take_while(|ancestor| !disk.exists(ancestor)).collect();
    disk.create_dir_all(dir).map_err(LogError::io("create", dir))?;
    missing.into_iter().try_for_each(|created| sync_parent(disk, created))
}

fn sync_parent(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    match disk.sync_dir(parent) {
        // The process may not read the parent, so somebody else has created the directory.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(LogError::io("sync", parent)(error)),
        _ => Ok(()),
    }
}

/// Partitions with a directory in `dir`.
pub(super) fn partitions_in(disk: &dyn Disk, dir: &Path) -> Result<Vec<TopicPartition>, LogError> {
    let entries = disk.list(dir).map_err(LogError::io("list", dir))?;
    Ok(entries.iter().filter(|entry| entry.is_dir).filter_map(|entry| parse_partition_dir(&entry.name)).collect())
}

/// `UnifiedLog.parseTopicPartitionName`; `None` for deleted, future and stray directories.
fn parse_partition_dir(name: &str) -> Option<TopicPartition> {
    if ["-delete", "-future", "-stray"].iter().any(|suffix| name.ends_with(suffix)) {
        return None;
    }
    let (topic, partition) = name.rsplit_once('-')?;
    (!topic.is_empty())
        .then_some(TopicPartition::new(topic, partition.parse().ok().filter(|partition| *partition >= 0)?))
}

/// The first names, internal topics last, and how many more there are.
pub(crate) fn list_partitions_briefly<'a>(partitions: impl Iterator<Item = &'a TopicPartition>) -> String {
    let mut partitions: Vec<_> = partitions.collect();
    partitions.sort_by_key(|partition| (partition.topic.starts_with("__"), *partition));
    let more = partitions.len().saturating_sub(MOST_NAMED);
    let mut text = String::new();
    for partition in partitions.into_iter().take(MOST_NAMED) {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{partition}"); // Writing to a String cannot fail.
    }
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    text
}

fn agree_on_cluster_id<'a>(
    config: &LogManagerConfig,
    known: impl Iterator<Item = (&'a PathBuf, &'a MetaProperties)>,
) -> Result<Option<String>, LogError> {
    let mut cluster_id = config.cluster_id.clone();
    for (dir, meta) in known {
        let path = dir.join(MetaProperties::FILE_NAME);
        if meta.node_id != config.node_id {
            let reason = format!("the directory belongs to node.id {}, this is node {}", meta.node_id, config.node_id);
            return Err(LogError::Invalid { path, reason });
        }
        match &cluster_id {
            Some(expected) if meta.cluster_id.as_ref().is_some_and(|id| id != expected) => {
                let found = meta.cluster_id.as_deref().unwrap_or_default();
                let reason = format!("the directory belongs to cluster {found}, not to {expected}");
                return Err(LogError::Invalid { path, reason });
            }
            Some(_) => {}
            None => cluster_id = meta.cluster_id.clone(),
        }
    }
    Ok(cluster_id)
}

/// Refuses a directory without a readable `meta.properties`, if it holds partitions or the file is damaged: it is not
/// new. The message says how to rewrite the file. A new `directory.id` is as good as the old one, since a partition is
/// found in any directory.
fn refuse_unidentified(
    env: &Env,
    dir: &Path,
    taken: &Taken,
    cluster_id: Option<&str>,
    node_id: BrokerId,
) -> Result<(), LogError> {
    let partitions: Vec<&TopicPartition> =
        taken.partitions.iter().filter(|partition| holds_log(&*env.disk, &dir.join(partition.to_string()))).collect();
    let found = match partitions.len() {
        0 => "no partitions".to_owned(),
        count => format!("{count} partitions ({})", list_partitions_briefly(partitions.iter().copied())),
    };
    let what = match &taken.meta {
        Err(Unidentified::Missing) if !partitions.is_empty() => "it is missing".to_owned(),
        Err(Unidentified::Damaged(reason)) => reason.clone(),
        _ => return Ok(()),
    };
    let path = dir.join(MetaProperties::FILE_NAME);
    let directory_id = env.random.uuid();
    let meta = MetaProperties { cluster_id: cluster_id.map(str::to_owned), node_id, directory_id };
    let reason = format!(
        "{what}, and the directory holds {found}. Nothing was changed. Put the file back from a backup; or, if these \
         partitions belong to node {node_id} of this cluster, write a new one and start again: printf '{}' > {}",
        meta.properties_text().replace('\n', "\\n"),
        path.display()
    );
    Err(LogError::Invalid { path, reason })
}

/// Whether the directory really is a partition's, not only by its name.
fn holds_log(disk: &dyn Disk, dir: &Path) -> bool {
    let entries = disk.list(dir).unwrap_or_default();
    entries.iter().any(|entry| entry.name == PARTITION_METADATA_FILE || entry.name.ends_with(".log"))
}

/// `LogManager.loadLog`: refuses two copies of one partition, since the broker cannot know which one is valid. A
/// directory of the same name with another topic id is no copy, and is set aside later.
fn refuse_duplicates<'a>(env: &Env, taken: impl Iterator<Item = (&'a PathBuf, &'a Taken)>) -> Result<(), LogError> {
    let mut found: BTreeMap<&TopicPartition, Vec<&PathBuf>> = BTreeMap::new();
    for (dir, taken) in taken {
        for partition in &taken.partitions {
            found.entry(partition).or_default().push(dir);
        }
    }
    for (partition, dirs) in found.into_iter().filter(|(_, dirs)| dirs.len() > 1) {
        let mut ids: Vec<(PathBuf, Option<TopicId>)> = Vec::new();
        for dir in &dirs {
            let path = dir.join(partition.to_string());
            let id = topic_id_in(&*env.disk, &path)?;
            if let Some((other, _)) = ids.iter().find(|(_, other)| id.is_none() || other.is_none() || *other == id) {
                let reason = format!(
                    "the partition is also in {}. Remove or move away one of the two: the one in the directory that had \
                     failed, was restored or was mounted again is the older one",
                    other.display()
                );
                return Err(LogError::Invalid { path, reason });
            }
            ids.push((path, id));
        }
    }
    Ok(())
}

/// Refuses partitions of topics in the directory of the metadata log, and a metadata log elsewhere: the broker would
/// serve without them.
fn refuse_misplaced(
    metadata_dir: &Path,
    metadata: &Taken,
    others: &[(&PathBuf, Result<Taken, LogError>)],
) -> Result<(), LogError> {
    let of_topics: Vec<_> = metadata.partitions.iter().filter(|name| *name.topic != *CLUSTER_METADATA_TOPIC).collect();
    if !of_topics.is_empty() {
        let reason = format!(
            "it is metadata.log.dir and none of log.dirs, and it holds partitions of topics ({}). Add it to log.dirs, \
             or move them to one of log.dirs",
            list_partitions_briefly(of_topics.into_iter())
        );
        return Err(LogError::Invalid { path: metadata_dir.to_owned(), reason });
    }
    if metadata.partitions.is_empty() {
        let readable = others.iter().filter_map(|(dir, taken)| Some((*dir, taken.as_ref().ok()?)));
        for (dir, taken) in readable {
            let Some(log) = taken.partitions.iter().find(|name| *name.topic == *CLUSTER_METADATA_TOPIC) else {
                continue;
            };
            let reason = format!(
                "the metadata log is here, but metadata.log.dir is {}. Move it there, with a copy of meta.properties; or \
                 set metadata.log.dir to {}",
                metadata_dir.display(),
                dir.display()
            );
            return Err(LogError::Invalid { path: dir.join(log.to_string()), reason });
        }
    }
    Ok(())
}

/// Writes the identity of a directory durably.
pub(super) fn write_meta(env: &Env, dir: &Path, meta: MetaProperties) -> Result<MetaProperties, LogError> {
    let path = dir.join(MetaProperties::FILE_NAME);
    env.disk.write_atomically(&path, meta.to_text().as_bytes()).map_err(LogError::io("write", &path))?;
    // An earlier start may have been killed after it had created the directory.
    sync_parent(&*env.disk, dir)?;
    Ok(meta)
}

/// Removes the clean-shutdown file, which is valid for one start only. Returns the broker epoch in it, if it existed.
fn consume_clean_shutdown_file(ctx: &LogContext) -> Result<Option<i64>, LogError> {
    let path = ctx.dir.join(CLEAN_SHUTDOWN_FILE);
    let Some(content) = read_if_exists(&*ctx.disk, &path)? else { return Ok(None) };
    ctx.disk.remove_file(&path).map_err(LogError::io("remove", &path))?;
    ctx.disk.sync_dir(&ctx.dir).map_err(LogError::io("sync", &ctx.dir))?;
    Ok(Some(clean_broker_epoch(&content)))
}

/// Schedules the removal of partitions that an earlier process deleted and had not yet removed.
fn schedule_leftover_deletions(ctx: &LogContext) -> Result<(), LogError> {
    for entry in ctx.disk.list(&ctx.dir).map_err(LogError::io("list", &ctx.dir))? {
        if entry.is_dir && entry.name.ends_with("-delete") {
            ctx.schedule_removal(ctx.dir.join(entry.name), true, 0);
        }
    }
    Ok(())
}
