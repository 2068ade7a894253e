//! The log directories of this broker's partitions: those that the metadata assigns, those that are found at the start,
//! and the assignments and directory failures that must be reported to the controller.
//!
//! Apache: `AssignmentsManager` and `BrokerLifecycleManager.propagateDirectoryFailure`. Leaves the search and creation
//! of logs to `log::LogManager`, and the metadata records to the controller.

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
    log::{LogError, LogManager, Placement, list_partitions_briefly},
    metadata::image::{MetadataImage, PartitionImage},
    raft::ControllerChannel,
    types::{BrokerId, TopicId, TopicPartition, uuid_to_base64},
};

/// The most partitions in one AssignReplicasToDirs request.
const MOST_PER_REQUEST: usize = 1000;

/// The log directories of this broker's partitions; see the head of this file.
pub(super) struct Directories {
    broker_id: BrokerId,
    /// Whether the first image was applied. Partitions of later images are new.
    has_started: AtomicBool,
    /// Directories that the first image assigns partitions to, but that this broker does not have.
    missing: Mutex<BTreeSet<Uuid>>,
    /// Partitions whose log directory is missing or has lost their log, by the reason in the log line.
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

    /// Must be called before each image is applied.
    pub(super) fn on_image(&self, image: &MetadataImage, log_manager: &LogManager) {
        if self.has_started.load(Ordering::Acquire) {
            return;
        }
        let ours: BTreeSet<Uuid> = log_manager.directory_ids().map(|(_, id)| id).collect();
        let partitions = image.topics.by_name.values().flat_map(|topic| topic.partitions.values());
        let noted = partitions.filter_map(|partition| assigned_directory(partition, self.broker_id));
        *lock(&self.missing) = noted.filter(|id| !ours.contains(id)).collect();
    }

    /// Whether the first image was applied.
    pub(super) fn has_started(&self) -> bool {
        self.has_started.load(Ordering::Acquire)
    }

    /// Whether others have the records of a partition: the controller counts this replica neither as in sync nor as one
    /// that may lead (KIP-966).
    pub(super) fn others_have_it(&self, partition: &PartitionImage) -> bool {
        let PartitionImage { isr, elr, last_known_elr, .. } = partition;
        !isr.is_empty() && ![isr, elr, last_known_elr].into_iter().any(|of| of.contains(&self.broker_id))
    }

    /// Whether an empty log may take the place of one that is gone: others have the records. A directory that has
    /// failed may come back with the log, so it is waited for.
    pub(super) fn may_begin_empty(&self, partition: &PartitionImage, log_manager: &LogManager) -> bool {
        let own = self.broker_id;
        let is_ours = assigned_directory(partition, own)
            .is_some_and(|assigned| log_manager.directory_ids().any(|(_, id)| id == assigned));
        self.others_have_it(partition)
            && !is_ours
            && directory_of(partition, own) != Some(UNASSIGNED)
            && log_manager.offline_dir_paths().next().is_none()
    }

    /// Returns where the log manager must look for the log of a partition.
    pub(super) fn placement(&self, partition: &PartitionImage, log_manager: &LogManager) -> Placement {
        if self.may_begin_empty(partition, log_manager) {
            return Placement::New(None);
        }
        let directory = assigned_directory(partition, self.broker_id);
        if self.has_started.load(Ordering::Acquire) {
            return Placement::New(directory);
        }
        let is_lost = directory_of(partition, self.broker_id) == Some(LOST);
        Placement::Existing { directory, lacks_directory: is_lost || !lock(&self.missing).is_empty() }
    }

    /// Must be called when a log was opened in the directory `actual`.
    pub(super) fn on_opened(&self, topic_id: TopicId, index: i32, partition: &PartitionImage, actual: Option<Uuid>) {
        if let Some(actual) = actual.filter(|actual| directory_of(partition, self.broker_id) != Some(*actual)) {
            self.assign(topic_id, index, actual);
        }
    }

    /// Must be called when a log could not be opened.
    pub(super) fn on_open_failed(
        &self,
        topic_id: TopicId,
        name: &TopicPartition,
        partition: &PartitionImage,
        error: &LogError,
    ) {
        let what = match error {
            LogError::DirMissing { directory_id: Some(id) } => {
                format!("the log directory with directory.id {} is missing", uuid_to_base64(*id))
            }
            LogError::DirMissing { directory_id: None } => "no log directory contains them".to_owned(),
            LogError::Lost { path, .. } => {
                let dir = path.parent().unwrap_or(path);
                format!("their logs in {}, which contained records, are lost", dir.display())
            }
            error => return tracing::error!(partition = %name, %error, "cannot open a log; the partition is offline"),
        };
        lock(&self.offline).entry(what).or_default().push(name.clone());
        // A partition that is assigned to the LOST directory gets no leader, and clients learn this. If the assigned
        // directory is no longer registered, the partition already has no leader.
        if assigned_directory(partition, self.broker_id).is_none() || matches!(error, LogError::Lost { .. }) {
            self.assign(topic_id, name.partition, LOST);
        }
    }

    fn assign(&self, topic_id: TopicId, index: i32, directory: Uuid) {
        lock(&self.to_assign).insert((topic_id, index), directory);
        self.changed.notify_one();
    }

    /// Must be called after each image was applied. Logs one line for all partitions that are offline for the same
    /// reason.
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
        let hint = dirs(new, "was empty at this start") + &dirs(failed, "cannot be used");
        for (what, partitions) in offline {
            tracing::error!(
                "{} partitions are offline, because {what}: {}{hint}",
                partitions.len(),
                list_partitions_briefly(partitions.iter())
            );
        }
    }

    /// Waits until there is an assignment to report.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Reports failed directories and new assignments to the controller.
    pub(super) async fn report(&self, controller: &ControllerChannel, log_manager: &LogManager) -> anyhow::Result<()> {
        self.report_failures(controller, log_manager).await?;
        loop {
            let directories: BTreeMap<_, _> =
                lock(&self.to_assign).iter().take(MOST_PER_REQUEST).map(|(at, directory)| (*at, *directory)).collect();
            let epoch = controller.local().image().broker(self.broker_id).map(|broker| broker.epoch);
            let (Some(broker_epoch), false) = (epoch, directories.is_empty()) else { return Ok(()) };
            let request =
                AssignReplicasToDirs { broker_id: self.broker_id, broker_epoch, directories: directories.clone() };
            controller.ask(request).await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
            lock(&self.to_assign).retain(|at, directory| directories.get(at) != Some(directory));
        }
    }

    /// Reports failed directories (KIP-858). Their partitions lose their leader, and clients learn this.
    async fn report_failures(&self, controller: &ControllerChannel, log_manager: &LogManager) -> anyhow::Result<()> {
        let image = controller.local().image();
        let Some(broker) = image.broker(self.broker_id) else { return Ok(()) };
        // linear: a broker has a few log directories
        let is_registered = |id: &Uuid| broker.directories.contains(id);
        let offline_log_dirs: Vec<Uuid> = log_manager.offline_directory_ids().filter(is_registered).collect();
        if offline_log_dirs.is_empty() || log_manager.is_offline() {
            return Ok(());
        }
        let heartbeat = BrokerHeartbeat { offline_log_dirs, ..BrokerHeartbeat::new(self.broker_id, broker.epoch) };
        let noted = controller.ask(heartbeat).await;
        noted.map(|_| ()).map_err(|error| anyhow::anyhow!("{error:?}"))
    }
}

/// The directory that the metadata assigns, or `None` if it is one of the reserved ids.
fn assigned_directory(partition: &PartitionImage, broker: BrokerId) -> Option<Uuid> {
    directory_of(partition, broker).filter(|id| ![MIGRATING, UNASSIGNED, LOST].contains(id))
}
