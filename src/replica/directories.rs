//! Where this broker's partitions are: what the metadata has noted, what is found at the start, what has to be noted;
//! and which directories have failed since.
//!
//! Apache's `AssignmentsManager` and `BrokerLifecycleManager.propagateDirectoryFailure`. Leaves finding and creating
//! logs to `log::LogManager`, and the records to the controller.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    controller::{
        brokers::BrokerHeartbeat,
        directories::{AssignReplicasToDirs, LOST, MIGRATING, UNASSIGNED, directory_of},
    },
    env::lock::lock,
    log::{LogError, LogManager, Placement, name_some},
    metadata::image::{MetadataImage, PartitionImage},
    raft::ControllerHandle,
    types::{BrokerId, TopicId, TopicPartition, uuid_to_base64},
};

/// Partitions whose directory is told to the controller at once.
const MOST_PER_REQUEST: usize = 1000;

/// See the head of the file.
pub(super) struct Directories {
    broker_id: BrokerId,
    /// The first image was applied: what comes now was created now.
    has_started: AtomicBool,
    /// Directories that the first image knows and this broker does not have.
    missing: Mutex<BTreeSet<Uuid>>,
    /// Partitions that the first image has and no directory, by what is said of them.
    offline: Mutex<BTreeMap<String, Vec<TopicPartition>>>,
    to_assign: Mutex<BTreeMap<(TopicId, i32), Uuid>>,
    changed: Notify,
}

impl Directories {
    pub(super) fn new(broker_id: BrokerId) -> Directories {
        Directories {
            broker_id,
            has_started: AtomicBool::new(false),
            missing: Mutex::default(),
            offline: Mutex::default(),
            to_assign: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// To be called before each image is applied.
    pub(super) fn on_image(&self, image: &MetadataImage, log_manager: &LogManager) {
        if self.has_started.load(Ordering::Acquire) {
            return;
        }
        let ours: BTreeSet<Uuid> = log_manager.directory_ids().map(|(_, id)| id).collect();
        let partitions = image.topics.by_name.values().flat_map(|topic| topic.partitions.values());
        let noted = partitions.filter_map(|partition| noted_directory(partition, self.broker_id));
        *lock(&self.missing) = noted.filter(|id| !ours.contains(id)).collect();
    }

    /// Whether the first image was applied.
    pub(super) fn has_started(&self) -> bool {
        self.has_started.load(Ordering::Acquire)
    }

    /// Where the log of a partition is to be looked for.
    pub(super) fn placement(&self, partition: &PartitionImage) -> Placement {
        let directory = noted_directory(partition, self.broker_id);
        if self.has_started.load(Ordering::Acquire) {
            return Placement::New(directory);
        }
        let is_lost = directory_of(partition, self.broker_id) == Some(LOST);
        Placement::Existing { directory, lacks_directory: is_lost || !lock(&self.missing).is_empty() }
    }

    /// A log was opened in `actual`.
    pub(super) fn on_opened(&self, topic_id: TopicId, index: i32, partition: &PartitionImage, actual: Option<Uuid>) {
        if let Some(actual) = actual.filter(|actual| directory_of(partition, self.broker_id) != Some(*actual)) {
            self.assign(topic_id, index, actual);
        }
    }

    /// A log could not be opened.
    pub(super) fn on_refused(
        &self,
        topic_id: TopicId,
        name: &TopicPartition,
        partition: &PartitionImage,
        error: &LogError,
    ) {
        let what = match error {
            LogError::DirMissing { directory_id: Some(id) } => {
                format!("the log directory with directory.id {} is not there", uuid_to_base64(*id))
            }
            LogError::DirMissing { directory_id: None } => "they are in none of the log directories".to_owned(),
            LogError::Lost { path, .. } => {
                let dir = path.parent().unwrap_or(path);
                format!("{} has lost them, although it held records of theirs", dir.display())
            }
            error => return tracing::error!(partition = %name, %error, "cannot open a log; the partition is offline"),
        };
        lock(&self.offline).entry(what).or_default().push(name.clone());
        // Without a directory it has no leader, and clients are told so. One that is registered no more has none
        // already.
        if noted_directory(partition, self.broker_id).is_none() || matches!(error, LogError::Lost { .. }) {
            self.assign(topic_id, name.partition, LOST);
        }
    }

    fn assign(&self, topic_id: TopicId, index: i32, directory: Uuid) {
        lock(&self.to_assign).insert((topic_id, index), directory);
        self.changed.notify_one();
    }

    /// To be called after each image was applied: one line for all partitions that are missing for the same reason.
    pub(super) fn on_applied(&self, log_manager: &LogManager) {
        self.has_started.store(true, Ordering::Release);
        let offline = std::mem::take(&mut *lock(&self.offline));
        if offline.is_empty() {
            return;
        }
        let dirs = |paths: Vec<String>, what: &str| match paths.len() {
            0 => String::new(),
            _ => format!("; {} {what}", paths.join(", ")),
        };
        let new = log_manager.new_dirs().map(|path| path.display().to_string()).collect();
        let failed = log_manager.offline_dir_paths().map(|path| path.display().to_string()).collect();
        let hint = dirs(new, "came up empty at this start") + &dirs(failed, "cannot be used");
        for (what, partitions) in offline {
            tracing::error!(
                "{} partitions are offline, since {what}: {}{hint}",
                partitions.len(),
                name_some(partitions.iter())
            );
        }
    }

    /// Waits until there is something to assign.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Has the controller note which directories have failed, and what is to be assigned.
    pub(super) async fn report(&self, controller: &ControllerHandle, log_manager: &LogManager) -> anyhow::Result<()> {
        self.report_failures(controller, log_manager).await?;
        loop {
            let directories: BTreeMap<_, _> =
                lock(&self.to_assign).iter().take(MOST_PER_REQUEST).map(|(at, directory)| (*at, *directory)).collect();
            let epoch = controller.image().broker(self.broker_id).map(|broker| broker.epoch);
            let (Some(broker_epoch), false) = (epoch, directories.is_empty()) else { return Ok(()) };
            let request =
                AssignReplicasToDirs { broker_id: self.broker_id, broker_epoch, directories: directories.clone() };
            let assigned = controller.call(request).await?;
            assigned.map_err(|error| anyhow::anyhow!("{error:?}"))?;
            lock(&self.to_assign).retain(|at, directory| directories.get(at) != Some(directory));
        }
    }

    /// Partitions in a directory that fails lose their leader, and clients are told so (KIP-858).
    async fn report_failures(&self, controller: &ControllerHandle, log_manager: &LogManager) -> anyhow::Result<()> {
        let image = controller.image();
        let Some(broker) = image.broker(self.broker_id) else { return Ok(()) };
        // linear: a broker has a few log directories
        let is_registered = |id: &Uuid| broker.directories.contains(id);
        let offline_log_dirs: Vec<Uuid> = log_manager.offline_directory_ids().filter(is_registered).collect();
        if offline_log_dirs.is_empty() || log_manager.is_offline() {
            return Ok(());
        }
        let heartbeat = BrokerHeartbeat { offline_log_dirs, ..BrokerHeartbeat::new(self.broker_id, broker.epoch) };
        let noted = controller.broker_heartbeat(heartbeat).await;
        noted.map(|_| ()).map_err(|error| anyhow::anyhow!("{error:?}"))
    }
}

/// The directory that the metadata names, unless it only says that none is known.
fn noted_directory(partition: &PartitionImage, broker: BrokerId) -> Option<Uuid> {
    directory_of(partition, broker).filter(|id| ![MIGRATING, UNASSIGNED, LOST].contains(id))
}
