//! Owns all partitions of this broker: opens, changes and removes them as the metadata requires.
//!
//! Lookups are by topic name or id; there is one entry per topic. The metadata thread applies deltas one at a time. A
//! delta is complete when the call returns, so the creator of a topic finds its log. If a delta opens or removes very
//! many logs, a task does this in portions, and other deltas are applied in between (`backlog.rs`). Until a log is
//! open, its partition returns a retriable error, and CreateTopics waits for its own topics
//! ([`ReplicaManager::wait_until_opened`]). If a log cannot be opened because disk space or file descriptors are short,
//! the next attempts are made at the next delta and every second.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    backlog::{Backlog, Progress, Work},
    context::{ReplicaContext, ReplicaCounters},
    directories::Directories,
    fetcher::{FetcherSettings, Fetchers},
    isr,
    partition::Partition,
    replica_changes::ReplicaChanges,
    state::{Leadership, RoleChange},
};
use crate::{
    config::{BrokerConfig, ConfigLayers, Configs, LogConfig, StaticConfigs},
    controller::partitions::RECOVERING,
    env::{Env, lock},
    log::{LogError, LogManager, LogOwner, Placement, checkpoints::is_damaged_copy},
    metadata::{
        delta::MetadataDelta,
        image::{ConfigResource, ConfigResourceType, MetadataImage, PartitionImage, TopicImage},
        liveness::Liveness,
        publisher::Subscriber,
    },
    metrics::TopicCounters,
    raft::ControllerChannel,
    types::{BrokerId, CLUSTER_METADATA_TOPIC, TopicId, TopicPartition},
};

/// A partition that this broker hosts according to the metadata.
#[derive(Clone)]
pub enum Hosted {
    /// The log is open.
    Online(Arc<Partition>),
    /// The partition is new, and its log will be opened soon.
    Opening,
    /// The log cannot be used: it is corrupt, its disk has failed, or it is not open yet because of a shortage. The
    /// broker has logged the reason once.
    Offline,
}

/// The partitions of one topic that this broker hosts.
pub struct LocalTopic {
    /// The topic's id.
    pub id: TopicId,
    /// The topic's name.
    pub name: Arc<str>,
    /// The metrics of the topic on this broker.
    pub counters: TopicCounters,
    partitions: RwLock<Vec<Option<Hosted>>>,
}

impl LocalTopic {
    /// The partition, if this broker hosts it.
    pub fn partition(&self, index: i32) -> Option<Hosted> {
        let partitions = lock::read(&self.partitions);
        partitions.get(usize::try_from(index).ok()?)?.clone()
    }

    /// The hosted partitions with their indexes.
    pub fn hosted(&self) -> Vec<(i32, Hosted)> {
        let partitions = lock::read(&self.partitions);
        (0..).zip(partitions.iter()).filter_map(|(index, hosted)| Some((index, hosted.clone()?))).collect()
    }

    fn set(&self, index: i32, hosted: Hosted) {
        let index = index as usize;
        let mut partitions = lock::write(&self.partitions);
        if partitions.len() <= index {
            partitions.resize(index + 1, None);
        }
        partitions[index] = Some(hosted);
    }

    fn offline(&self) -> Vec<TopicPartition> {
        let partitions = lock::read(&self.partitions);
        let offline = partitions.iter().enumerate().filter(|(_, hosted)| matches!(hosted, Some(Hosted::Offline)));
        offline.map(|(index, _)| TopicPartition::new(self.name.clone(), index as i32)).collect()
    }

    fn online(&self) -> Vec<Arc<Partition>> {
        let partitions = lock::read(&self.partitions);
        let online = partitions.iter().flatten().filter_map(|hosted| match hosted {
            Hosted::Online(partition) => Some(partition.clone()),
            Hosted::Opening | Hosted::Offline => None,
        });
        online.collect()
    }
}

/// A listener that is called when this broker becomes the leader of a partition or loses the leadership.
pub trait LeadershipListener: Send + Sync {
    /// This broker is now the leader; the log is open.
    fn on_become_leader(&self, partition: &TopicPartition);
    /// This broker is no longer the leader.
    fn on_resign(&self, partition: &TopicPartition);
}

/// The settings of replication.
pub struct ReplicationSettings {
    /// `replica.lag.time.max.ms`.
    pub max_lag: Duration,
    pub fetchers: FetcherSettings,
}

impl ReplicationSettings {
    /// `listener` is the name of the listener for other brokers.
    pub fn new(config: &BrokerConfig, listener: &str) -> ReplicationSettings {
        let max_lag = Duration::from_millis(u64::try_from(config.replica_lag_time_max_ms).unwrap_or(0));
        ReplicationSettings { max_lag, fetchers: FetcherSettings::new(config, listener) }
    }
}

/// The interval between two attempts to open logs that could not be opened because of a shortage.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);
/// The most logs that a delta opens and removes before it returns. This takes about 50 ms on a busy machine.
const MOST_AT_ONCE: usize = 100;
/// With a shorter `replica.lag.time.max.ms` followers are still not checked more often.
const SHORTEST_LAG_CHECK: Duration = Duration::from_millis(50);
/// The number of logs that one portion of the backlog opens or removes.
const PORTION: usize = 20;
/// After this many failures in one turn, the shortage is assumed to continue, and the turn ends.
const MOST_FAILURES: usize = 16;

/// One attempt to open all logs that a shortage left closed, in portions.
#[derive(Default)]
struct RetryTurn {
    failures: usize,
    is_over: bool,
    /// No log is left, so no further turn is needed.
    is_last: bool,
}

/// All partitions of this broker; see the head of this file.
pub struct ReplicaManager {
    broker_id: BrokerId,
    context: Arc<ReplicaContext>,
    fetchers: Fetchers,
    env: Env,
    this: Weak<ReplicaManager>,
    statics: Arc<StaticConfigs>,
    log_manager: Arc<LogManager>,
    directories: Directories,
    topics: RwLock<Topics>,
    listeners: Mutex<Vec<Weak<dyn LeadershipListener>>>,
    changes: Mutex<Changes>,
    progress: Progress,
    /// Roles have changed since the high watermarks were last asked to be written.
    must_checkpoint: AtomicBool,
}

/// The lock of this struct is held while partitions change: by the metadata thread, the backlog task or the retry task.
#[derive(Default)]
struct Changes {
    /// The image of the last delta.
    image: Arc<MetadataImage>,
    /// Partitions whose logs could not be opened because of a shortage, the least recently tried first.
    unopened: VecDeque<Unopened>,
    /// Whether the retry task runs.
    is_retrying: bool,
    /// Whether the lag of followers is checked: there is more than one broker.
    checks_lag: bool,
    /// The logs of the last deltas that must still be opened or removed.
    backlog: Backlog,
}

/// A partition whose log must be opened.
#[derive(Clone, Copy)]
pub(super) struct Unopened {
    topic_id: TopicId,
    index: i32,
    /// The placement at the first attempt. A log that existed before this start must not count as new at a later
    /// attempt.
    placement: Placement,
}

/// A partition that this broker does not host yet, and whose log must be opened now.
struct NewPartition<'a> {
    topic: &'a TopicImage,
    local: Arc<LocalTopic>,
    unopened: Unopened,
    registered: &'a PartitionImage,
}

#[derive(Default)]
struct Topics {
    by_name: HashMap<Arc<str>, Arc<LocalTopic>>,
    by_id: HashMap<TopicId, Arc<LocalTopic>>,
}

impl ReplicaManager {
    /// A manager without partitions; the metadata adds them.
    pub fn new(
        broker_id: BrokerId,
        env: Env,
        statics: Arc<StaticConfigs>,
        log_manager: Arc<LogManager>,
        replication: ReplicationSettings,
    ) -> Arc<ReplicaManager> {
        let ReplicationSettings { max_lag, fetchers } = replication;
        let context = ReplicaContext::new(broker_id, env.clock.clone(), max_lag);
        Arc::new_cyclic(|this| ReplicaManager {
            broker_id,
            fetchers: Fetchers::new(&env, &context, fetchers),
            context,
            env,
            this: this.clone(),
            statics,
            log_manager,
            directories: Directories::new(broker_id),
            topics: RwLock::default(),
            listeners: Mutex::default(),
            changes: Mutex::default(),
            progress: Progress::default(),
            must_checkpoint: AtomicBool::default(),
        })
    }

    /// Adds a listener to changes of leadership.
    pub fn listen(&self, listener: Weak<dyn LeadershipListener>) {
        lock::lock(&self.listeners).push(listener);
    }

    /// What the fetchers notice of the life of other brokers.
    pub fn liveness(&self) -> &Arc<Liveness> {
        &self.context.liveness
    }

    /// Begins to send changes of ISRs to the controller, and to look for followers that are too far behind.
    pub fn start_replication(&self, channel: Arc<ControllerChannel>) {
        let (this, env) = (self.this.clone(), self.env.clone());
        self.env.tasks.spawn_until_stopped("send changes of ISRs", isr::send_proposals(this, env, channel));
    }

    /// Another broker has sent a fetch request as a follower, after it had an answer that was made at `answered_at`.
    pub fn on_fetch_request(&self, broker: BrokerId, answered_at: Option<Duration>) {
        self.context.on_fetch_request(broker, answered_at);
    }

    /// Waits until a follower with its last answer at this monotonic time is to get another at once.
    pub async fn answer_wanted(&self, answered_at: Duration) {
        self.context.answer_wanted(answered_at).await;
    }

    /// The controller has answered a heartbeat of this monotonic time, and has not fenced this broker; this broker has
    /// applied what the controller knew then.
    pub fn on_unfenced(&self, sent_at: Duration) {
        self.context.on_unfenced(sent_at);
    }

    /// Waits until a leader needs to know whether this broker is fenced.
    pub async fn heartbeat_wanted(&self) {
        self.context.heartbeat_wanted().await;
    }

    /// Counters for metrics.
    pub fn counters(&self) -> &ReplicaCounters {
        &self.context.counters
    }

    /// The number of partitions that cannot follow their leaders because of an error that does not pass by itself.
    pub fn failed_followers(&self) -> usize {
        self.fetchers.failed_count()
    }

    /// What all replicas share.
    /// The partitions of which committed records were truncated here.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn truncated_committed(&self) -> Vec<TopicPartition> {
        lock::lock(&self.context.truncated_committed).clone()
    }

    pub(super) fn context(&self) -> &Arc<ReplicaContext> {
        &self.context
    }

    /// The topic with this name, if this broker hosts partitions of it.
    pub fn topic(&self, name: &str) -> Option<Arc<LocalTopic>> {
        lock::read(&self.topics).by_name.get(name).cloned()
    }

    /// The topic with this id, if this broker hosts partitions of it.
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<LocalTopic>> {
        lock::read(&self.topics).by_id.get(&id).cloned()
    }

    /// All topics of which this broker hosts partitions, sorted by name.
    pub fn topics(&self) -> Vec<Arc<LocalTopic>> {
        // order: they are sorted by name.
        let mut topics: Vec<_> = lock::read(&self.topics).by_id.values().cloned().collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        topics
    }

    /// The partition, if this broker hosts it and its log is open.
    pub fn partition(&self, topic: &str, index: i32) -> Option<Arc<Partition>> {
        match self.topic(topic)?.partition(index)? {
            Hosted::Online(partition) => Some(partition),
            Hosted::Opening | Hosted::Offline => None,
        }
    }

    fn local_topic(&self, topic: &TopicImage) -> Arc<LocalTopic> {
        let mut topics = lock::write(&self.topics);
        if let Some(local) = topics.by_id.get(&topic.id) {
            return local.clone();
        }
        let local = Arc::new(LocalTopic {
            id: topic.id,
            name: topic.name.clone(),
            counters: TopicCounters::default(),
            partitions: RwLock::default(),
        });
        topics.by_name.insert(topic.name.clone(), local.clone());
        topics.by_id.insert(topic.id, local.clone());
        local
    }

    /// Removes a deleted topic: first from the maps, then ends the leadership of its partitions, then deletes its logs.
    fn remove_topic(&self, changes: &mut Changes, topic: &TopicImage, is_large: bool) {
        let is_queued = is_large || self.progress.is_pending(&topic.name);
        let removed = {
            let mut topics = lock::write(&self.topics);
            let removed = topics.by_id.remove(&topic.id);
            if topics.by_name.get(&topic.name).is_some_and(|named| named.id == topic.id) {
                topics.by_name.remove(&topic.name);
            }
            removed
        };
        let online = removed.iter().flat_map(|topic| topic.online());
        let online = online.map(|partition| (partition.topic_partition().clone(), Some(partition)));
        let offline = removed.iter().flat_map(|topic| topic.offline()).map(|name| (name, None));
        for (name, partition) in offline.chain(online) {
            if let Some(partition) = &partition {
                self.fetchers.unfollow((topic.id, name.partition));
                partition.resign();
                self.tell(|listener| listener.on_resign(&name));
            }
            if is_queued {
                self.queue(changes, name, Work::Remove(partition));
            } else {
                self.delete_log(&name, partition.as_deref());
            }
        }
    }

    fn delete_log(&self, name: &TopicPartition, partition: Option<&Partition>) {
        let deleted = match partition {
            Some(partition) => self.log_manager.delete_log(name, partition),
            None => self.log_manager.delete_closed_log(name),
        };
        if let Err(error) = deleted {
            tracing::error!(partition = %name, %error, "cannot delete a log");
        }
    }

    /// Reports to the controller the log directories of partitions that it does not know yet, and the failed
    /// directories.
    ///
    /// # Errors
    /// The controller cannot handle the report now; the next call repeats it.
    pub async fn report_directories(&self, controller: &ControllerChannel) -> anyhow::Result<()> {
        self.directories.report(controller, &self.log_manager).await
    }

    /// Waits until [`ReplicaManager::report_directories`] has something to report.
    pub async fn directories_changed(&self) {
        self.directories.changed().await;
    }

    /// Renames stray partition directories, which are on disk but not in `image`: their topics were deleted while this
    /// broker was down, or just before it was killed. `image` must be up to date.
    ///
    /// # Errors
    /// The disk failed.
    pub fn set_aside_strays(&self, image: &MetadataImage) -> Result<(), LogError> {
        self.log_manager.set_aside_strays(|partition, topic_id| {
            let topic = image.topic(&partition.topic);
            let is_here = topic.and_then(|topic| topic.partitions.get(&partition.partition));
            *partition.topic == *CLUSTER_METADATA_TOPIC
                || is_here.is_some()
                    && topic_id
                        .is_none_or(|id| topic.is_some_and(|topic| topic.id == id || is_damaged_copy(id, topic.id)))
        })
    }

    /// Changes a hosted partition. Returns a new one whose log must be opened now.
    fn change_partition<'a>(
        &self,
        changes: &mut Changes,
        topic: &'a TopicImage,
        local: &Arc<LocalTopic>,
        index: i32,
        is_queued: bool,
    ) -> Option<NewPartition<'a>> {
        let registered = self.registered(topic, index)?;
        match local.partition(index) {
            Some(Hosted::Online(partition)) => self.change_leadership(&partition, registered),
            // When its log is opened, the partition gets the leadership of the image at that time.
            Some(Hosted::Opening) => {}
            Some(Hosted::Offline) if !self.directories.may_begin_empty(registered, &self.log_manager) => {}
            None | Some(Hosted::Offline) => {
                let placement = self.directories.placement(registered, &self.log_manager);
                let unopened = Unopened { topic_id: topic.id, index, placement };
                if !is_queued {
                    return Some(NewPartition { topic, local: local.clone(), unopened, registered });
                }
                local.set(index, Hosted::Opening);
                self.queue(changes, TopicPartition::new(topic.name.clone(), index), Work::Open(unopened));
            }
        }
        None
    }

    /// Opens the logs of new partitions, several at a time at the start.
    fn open_new(&self, changes: &mut Changes, new: Vec<NewPartition<'_>>) {
        let threads = if self.directories.has_started() { 1 } else { self.recovery_threads(&changes.image) };
        let image = changes.image.clone();
        let opened = self.env.tasks.in_parallel(threads, new, |partition| {
            let NewPartition { topic, local, unopened, .. } = &partition;
            let result = self.open_hosted(&image, topic, local, unopened.index, unopened.placement);
            (partition, result)
        });
        for (partition, result) in opened {
            self.on_first_open(changes, partition, result);
        }
    }

    /// `num.recovery.threads.per.data.dir` for all directories together.
    fn recovery_threads(&self, image: &MetadataImage) -> usize {
        let config = self.config_layers(image).broker_config();
        let per_dir = usize::try_from(config.num_recovery_threads_per_data_dir).unwrap_or(1);
        per_dir * self.log_manager.directory_ids().count().max(1)
    }

    fn on_first_open(
        &self,
        changes: &mut Changes,
        partition: NewPartition<'_>,
        result: Result<Arc<Partition>, LogError>,
    ) {
        let NewPartition { topic, local, unopened, registered } = partition;
        let index = unopened.index;
        let error = match result {
            Ok(partition) => return self.change_leadership(&partition, registered),
            Err(error) => error,
        };
        let partition = TopicPartition::new(topic.name.clone(), index);
        if error.is_shortage() {
            tracing::warn!(%partition, %error, "cannot open a log yet; the partition is offline until the log is open");
            changes.unopened.push_back(unopened);
        } else {
            self.directories.on_open_failed(topic.id, &partition, registered, &error);
        }
        local.set(index, Hosted::Offline);
    }

    /// The metadata of a partition, if this broker is a replica.
    fn registered<'a>(&self, topic: &'a TopicImage, index: i32) -> Option<&'a PartitionImage> {
        topic.partitions.get(&index).filter(|partition| partition.replicas.contains(&self.broker_id))
    }

    fn open_hosted(
        &self,
        image: &MetadataImage,
        topic: &TopicImage,
        local: &LocalTopic,
        index: i32,
        placement: Placement,
    ) -> Result<Arc<Partition>, LogError> {
        let partition = self.open(image, topic, &TopicPartition::new(topic.name.clone(), index), placement)?;
        local.set(index, Hosted::Online(partition.clone()));
        Ok(partition)
    }

    fn change_leadership(&self, partition: &Arc<Partition>, registered: &PartitionImage) {
        let name = partition.topic_partition();
        let key = (partition.topic_id(), name.partition);
        let role = partition.on_metadata(leadership(registered));
        if role.is_some() && partition.watermarks().high_watermark > 0 {
            self.must_checkpoint.store(true, Ordering::Release);
        }
        match role {
            Some(RoleChange::Leader) => {
                self.fetchers.unfollow(key);
                self.tell(|listener| listener.on_become_leader(name));
            }
            Some(RoleChange::Follower { has_resigned }) => {
                match registered.leader {
                    ..0 => self.fetchers.unfollow(key),
                    leader => self.fetchers.follow(key, partition, leader),
                }
                if has_resigned {
                    self.tell(|listener| listener.on_resign(name));
                }
            }
            None => {}
        }
    }

    /// Takes over which brokers there are.
    fn change_brokers(&self, changes: &mut Changes, image: &MetadataImage) {
        self.context.set_brokers(image);
        self.fetchers.set_brokers(image);
        if image.brokers.len() > 1 && !std::mem::replace(&mut changes.checks_lag, true) {
            let (this, env) = (self.this.clone(), self.env.clone());
            self.env.tasks.spawn_until_stopped("check the lag of followers", async move {
                while let Some(manager) = this.upgrade() {
                    let interval = (manager.context.max_lag / 2).max(SHORTEST_LAG_CHECK);
                    drop(manager);
                    env.clock.sleep_until(env.clock.monotonic() + interval).await;
                    let Some(manager) = this.upgrade() else { return };
                    for topic in manager.topics() {
                        topic.online().iter().for_each(|partition| partition.check_lag());
                    }
                }
            });
        }
    }

    // --- the backlog of logs that are too many to open or remove at once ---

    /// Whether a delta opens and removes more than [`MOST_AT_ONCE`] logs.
    fn is_large(&self, image: &MetadataImage, delta: &MetadataDelta) -> bool {
        if !self.directories.has_started() {
            // At the start, all logs are opened at once.
            return false;
        }
        let removed = delta.deleted_topics.values().map(|topic| topic.partitions.len());
        let opened = delta.topics.iter().map(|(id, changed)| match (image.topic_by_id(*id), self.topic_by_id(*id)) {
            (Some(_), Some(local)) => {
                changed.partitions.iter().filter(|index| local.partition(**index).is_none()).count()
            }
            (Some(_), None) => changed.partitions.len(),
            (None, _) => 0,
        });
        removed.chain(opened).sum::<usize>() > MOST_AT_ONCE
    }

    fn queue(&self, changes: &mut Changes, name: TopicPartition, work: Work) {
        self.progress.queued(&name.topic);
        changes.backlog.queue.push_back((name, work));
    }

    /// Starts the task that processes the backlog, unless it already runs.
    fn arm_backlog(&self, backlog: &mut Backlog) {
        if backlog.queue.is_empty() || std::mem::replace(&mut backlog.is_task_running, true) {
            return;
        }
        let (this, env) = (self.this.clone(), self.env.clone());
        self.env.tasks.spawn_until_stopped("open and remove logs", async move {
            while let Some(manager) = this.upgrade() {
                if env.tasks.blocking("open and remove logs", move || manager.process_backlog_portion()).await {
                    return;
                }
            }
        });
    }

    /// Processes one portion of the backlog. Returns whether the backlog is empty.
    fn process_backlog_portion(&self) -> bool {
        if self.progress.has_priority_waiter() {
            return false;
        }
        let changes = &mut *self.lock_changes();
        for _ in 0..PORTION {
            let Some((name, work)) = changes.backlog.queue.pop_front() else { break };
            match work {
                Work::Open(unopened) => self.open_queued(changes, unopened),
                Work::Remove(partition) => self.delete_log(&name, partition.as_deref()),
            }
            self.progress.done(&name.topic);
        }
        self.directories.on_applied(&self.log_manager);
        self.arm_retry(changes);
        changes.backlog.is_task_running = !changes.backlog.queue.is_empty();
        !changes.backlog.is_task_running
    }

    fn open_queued(&self, changes: &mut Changes, unopened: Unopened) {
        let image = changes.image.clone();
        // The topic may have been deleted in the meantime.
        let topic = image.topic_by_id(unopened.topic_id).zip(self.topic_by_id(unopened.topic_id));
        let Some((topic, local)) = topic else { return };
        if let Some(registered) = self.registered(topic, unopened.index) {
            self.open_new(changes, vec![NewPartition { topic, local, unopened, registered }]);
        }
    }

    /// Waits until the backlog contains no logs of these topics. Logs that cannot be opened do not delay this.
    pub async fn wait_until_opened(&self, topics: &[&str]) {
        self.progress.wait_until_opened(topics).await;
    }

    /// For the shutdown: removes the logs in the backlog that must be removed, and opens no more logs. The next start
    /// opens them.
    pub fn finish_removals(&self) {
        let changes = &mut *self.progress.with_priority(|| self.lock_changes());
        while let Some((name, work)) = changes.backlog.queue.pop_front() {
            if let Work::Remove(partition) = work {
                self.delete_log(&name, partition.as_deref());
            }
            self.progress.done(&name.topic);
        }
    }

    // --- logs that could not be opened ---

    /// Tries to open one portion of the logs that could not be opened. `turn` is over after `most_failures` failures,
    /// or when all remaining logs have failed once.
    fn retry_unopened(&self, changes: &mut Changes, turn: &mut RetryTurn, most_failures: usize) {
        let image = changes.image.clone();
        for _ in 0..PORTION {
            turn.is_over = turn.failures >= most_failures.min(changes.unopened.len());
            if turn.is_over {
                return;
            }
            let Some(unopened) = changes.unopened.pop_front() else { break };
            let Unopened { topic_id, index, placement } = unopened;
            let (Some(topic), Some(local)) = (image.topic_by_id(topic_id), self.topic_by_id(topic_id)) else {
                continue;
            };
            let Some(registered) = self.registered(topic, index) else { continue };
            let name = TopicPartition::new(topic.name.clone(), index);
            match self.open_hosted(&image, topic, &local, index, placement) {
                Ok(partition) => {
                    tracing::info!(partition = %name, "opened a log that could not be opened before");
                    self.change_leadership(&partition, registered);
                }
                Err(error) if error.is_shortage() => {
                    changes.unopened.push_back(unopened);
                    turn.failures += 1;
                }
                Err(error) => self.directories.on_open_failed(topic_id, &name, registered, &error),
            }
        }
    }

    /// Starts the task that retries until all logs are open, unless it already runs.
    fn arm_retry(&self, changes: &mut Changes) {
        if changes.unopened.is_empty() || std::mem::replace(&mut changes.is_retrying, true) {
            return;
        }
        let (this, env) = (self.this.clone(), self.env.clone());
        self.env.tasks.spawn_until_stopped("open logs again", async move {
            loop {
                env.clock.sleep_until(env.clock.monotonic() + REOPEN_INTERVAL).await;
                let mut turn = RetryTurn::default();
                while !turn.is_over {
                    let Some(manager) = this.upgrade() else { return };
                    turn = env.tasks.blocking("open logs again", move || manager.retry(turn)).await;
                }
                if turn.is_last {
                    return;
                }
            }
        });
    }

    /// Tries one portion of a turn of the retry task.
    fn retry(&self, mut turn: RetryTurn) -> RetryTurn {
        if self.progress.has_priority_waiter() {
            return turn;
        }
        let mut changes = self.lock_changes();
        self.retry_unopened(&mut changes, &mut turn, MOST_FAILURES);
        self.directories.on_applied(&self.log_manager);
        if turn.is_over {
            turn.is_last = changes.unopened.is_empty();
            changes.is_retrying = !turn.is_last;
        }
        turn
    }

    fn lock_changes(&self) -> MutexGuard<'_, Changes> {
        lock::lock(&self.changes)
    }

    fn open(
        &self,
        image: &MetadataImage,
        topic: &TopicImage,
        name: &TopicPartition,
        placement: Placement,
    ) -> Result<Arc<Partition>, LogError> {
        let registered = topic.partitions.get(&name.partition);
        if registered.is_some_and(|registered| self.directories.others_have_it(registered)) {
            self.log_manager.set_aside_without_id(name)?;
        }
        let config = Arc::new(self.log_config(image, &topic.name));
        let log = self.log_manager.open_log(name, Some(topic.id), config, placement)?;
        if let Some(registered) = registered {
            self.directories.on_opened(topic.id, name.partition, registered, self.log_manager.directory_id_of(&log));
        }
        let context = log.context().clone();
        // Another directory may have one of an earlier log of this name.
        let high_watermark = context.checkpointed_high_watermark(name).unwrap_or(0);
        let partition = Partition::new(&self.context, topic.id, log, high_watermark);
        let owner: Arc<dyn LogOwner> = partition.clone();
        self.log_manager.register(name, &context, Arc::downgrade(&owner));
        Ok(partition)
    }

    /// The effective settings of a topic, from all layers.
    pub fn log_config(&self, image: &MetadataImage, topic: &str) -> LogConfig {
        let none = Configs::new();
        self.config_layers(image).log_config(image.topic_config(topic).unwrap_or(&none))
    }

    fn config_layers<'a>(&'a self, image: &'a MetadataImage) -> ConfigLayers<'a> {
        let broker = ConfigResource::broker(self.broker_id);
        ConfigLayers::new(&self.statics, image.config(&ConfigResource::default_broker()), image.config(&broker))
    }

    fn change_configs(&self, image: &MetadataImage, changed: &ConfigResource) {
        let topics: Vec<Arc<LocalTopic>> = match changed.resource_type {
            ConfigResourceType::Topic => self.topic(&changed.name).into_iter().collect(),
            ConfigResourceType::Broker => self.topics(),
            _ => return,
        };
        // Most topics have no settings of their own, so they share one config.
        let mut shared = None;
        for topic in topics {
            let new = || Arc::new(self.log_config(image, &topic.name));
            let config = match image.topic_config(&topic.name) {
                Some(_) => new(),
                None => shared.get_or_insert_with(new).clone(),
            };
            for partition in topic.online() {
                partition.update_config(config.clone());
            }
        }
    }

    fn tell(&self, act: impl Fn(&dyn LeadershipListener)) {
        let listeners: Vec<_> = {
            let listeners = lock::lock(&self.listeners);
            listeners.iter().filter_map(Weak::upgrade).collect()
        };
        for listener in listeners {
            act(&*listener);
        }
    }
}

fn leadership(partition: &PartitionImage) -> Leadership {
    Leadership {
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        replicas: partition.replicas.clone(),
        isr: partition.isr.clone(),
        is_recovering: partition.leader_recovery_state == RECOVERING,
    }
}

impl Subscriber for ReplicaManager {
    fn on_delta(&self, image: &Arc<MetadataImage>, delta: &MetadataDelta) {
        let changes = &mut *self.progress.with_priority(|| self.lock_changes());
        let before = std::mem::replace(&mut changes.image, image.clone());
        if !delta.brokers.is_empty() || !self.directories.has_started() {
            self.change_brokers(changes, image);
        }
        self.directories.on_image(image, &self.log_manager);
        let is_large = self.is_large(image, delta);
        for topic in delta.deleted_topics.values() {
            if !planted!("R4") {
                self.remove_topic(changes, topic, is_large);
            }
        }
        self.retry_unopened(changes, &mut RetryTurn::default(), 1);
        let mut replica_changes = ReplicaChanges::default();
        let mut new = Vec::new();
        for (id, changed) in &delta.topics {
            replica_changes.add(&self.context, &before, image, (*id, changed));
            let Some(topic) = image.topic_by_id(*id) else { continue };
            let local = self.local_topic(topic);
            let is_queued = is_large || self.progress.is_pending(&topic.name);
            for index in &changed.partitions {
                new.extend(self.change_partition(changes, topic, &local, *index, is_queued));
            }
        }
        replica_changes.log();
        self.open_new(changes, new);
        self.arm_retry(changes);
        self.arm_backlog(&mut changes.backlog);
        for resource in &delta.configs {
            self.change_configs(image, resource);
        }
        if delta.configs.iter().any(|resource| resource.resource_type == ConfigResourceType::Broker) {
            let fetchers = self.config_layers(image).broker_config().num_replica_fetchers;
            self.fetchers.set_fetchers_per_source(u64::try_from(fetchers).unwrap_or(1).max(1));
        }
        self.directories.on_applied(&self.log_manager);
        if self.must_checkpoint.swap(false, Ordering::AcqRel) {
            self.log_manager.checkpoint_high_watermarks_soon();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use uuid::Uuid;

    use kafka_protocol::error::ResponseError;

    use super::{super::state::Proposal, *};
    use crate::{
        env::Disk,
        log::LogManagerConfig,
        metadata::records::{MetadataRecord, PartitionRecord, RemoveTopicRecord, TopicRecord},
        sim::{SimClock, SimDisk, disk::Faults, until},
    };

    struct World {
        disk: SimDisk,
        clock: SimClock,
        env: Env,
        manager: Arc<ReplicaManager>,
        image: MetadataImage,
    }

    fn replication() -> ReplicationSettings {
        ReplicationSettings::new(&BrokerConfig::default(), "PLAINTEXT")
    }

    impl World {
        fn new() -> World {
            let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
            let env = Env { disk: Arc::new(disk.clone()), clock: Arc::new(clock.clone()), ..Env::system() };
            let log_manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
            let manager = ReplicaManager::new(1, env.clone(), Arc::default(), log_manager, replication());
            World { disk, clock, env, manager, image: MetadataImage::default() }
        }

        fn apply(&mut self, records: Vec<MetadataRecord>) {
            let mut delta = MetadataDelta::default();
            for record in records {
                self.image.apply(&record, &mut delta).unwrap();
            }
            self.manager.on_delta(&Arc::new(self.image.clone()), &delta);
        }

        /// Creates a topic with two partitions, of which this broker is the leader.
        fn create(&mut self, name: &str) -> Uuid {
            self.create_with(name, 2)
        }

        fn create_with(&mut self, name: &str, partitions: i32) -> Uuid {
            let topic_id = Uuid::new_v4();
            let mut records = vec![TopicRecord { name: name.into(), topic_id }.into()];
            records.extend((0..partitions).map(|partition_id| {
                let (replicas, isr) = (vec![1], vec![1]);
                let epochs = PartitionRecord { leader_epoch: 0, partition_epoch: 0, ..Default::default() };
                MetadataRecord::from(PartitionRecord { partition_id, topic_id, replicas, isr, leader: 1, ..epochs })
            }));
            self.apply(records);
            topic_id
        }

        fn is_led(&self, topic: &str) -> bool {
            (0..2).all(|index| self.manager.partition(topic, index).is_some_and(|partition| partition.is_leader()))
        }

        /// The number of partitions of a topic of which this broker is the leader.
        fn led(&self, topic: &str) -> usize {
            let hosted = self.manager.topic(topic).map(|topic| topic.hosted()).unwrap_or_default();
            let is_led = |hosted: &Hosted| matches!(hosted, Hosted::Online(partition) if partition.is_leader());
            hosted.iter().filter(|(_, hosted)| is_led(hosted)).count()
        }

        /// The number of directories whose name ends with `suffix`.
        fn dirs(&self, suffix: &str) -> usize {
            let entries = self.disk.list(Path::new("/a")).unwrap();
            entries.iter().filter(|entry| entry.is_dir && entry.name.ends_with(suffix)).count()
        }

        /// Waits for the retry task and advances the clock to its next turn.
        async fn retry(&self) {
            until("the retry task sleeps", || self.clock.next_wake().is_some()).await;
            self.clock.advance(REOPEN_INTERVAL);
        }

        async fn until_led(&self, topic: &str) {
            let advance_if_led = || {
                if self.clock.next_wake().is_some() {
                    self.clock.advance(REOPEN_INTERVAL);
                }
                self.is_led(topic)
            };
            until("the partitions are led", advance_if_led).await;
        }
    }

    #[tokio::test]
    async fn a_partition_that_found_no_descriptor_is_opened_when_there_is_one() {
        for left in 0..12 {
            let mut world = World::new();
            world.disk.set_faults(Faults { fail_open: Some(left), ..Faults::default() });
            world.create("t");
            if world.is_led("t") {
                continue;
            }
            assert!(left < 11, "the last number of descriptors must be enough");
            world.retry().await;
            world.disk.set_faults(Faults::default());
            world.until_led("t").await;
            world.env.tasks.shutdown().await;
        }
    }

    #[tokio::test]
    async fn a_topic_that_was_created_on_a_full_disk_works_once_there_is_room() {
        let mut world = World::new();
        world.disk.set_capacity(0);
        world.create("t");
        assert!(!world.is_led("t"));
        world.disk.set_capacity(u64::MAX);
        world.until_led("t").await;
        // Its directories must be as durable as those that were created without a retry.
        let partition = world.manager.partition("t", 0).unwrap();
        crate::log::flush::with_log(&*partition, |log| log.flush()).unwrap();
        world.disk.crash();
        assert!(world.disk.exists(Path::new("/a/t-0/partition.metadata")));
        world.env.tasks.shutdown().await;
    }

    #[tokio::test]
    async fn a_change_of_the_isr_is_repeated_until_it_is_answered_or_its_topic_is_deleted() {
        let world = World::new();
        let key = (TopicId(Uuid::from_u128(7)), 0);
        let proposal = Proposal { leader_epoch: 0, partition_epoch: 0, isr: vec![(1, -1)], members_before: 2 };
        let proposals = &world.manager.context().proposals;
        proposals.add(key, proposal.clone());
        let sent = proposals.all();
        let answered = |error: ResponseError| isr::deliver(&world.manager, &sent, key, Err(error));
        assert!(!answered(ResponseError::NotController));
        assert_eq!(proposals.all(), sent, "KAFKA-15353: it is sent again as it is");
        assert!(answered(ResponseError::UnknownTopicId));
        assert!(proposals.all().is_empty(), "KAFKA-17190: nobody has this partition");
        world.env.tasks.shutdown().await;
    }

    /// A power cut takes the topic id of a new partition that no sync has reached, and may leave its records.
    #[tokio::test]
    async fn a_log_that_has_lost_its_topic_id_is_opened_only_where_no_other_replica_has_the_records() {
        for (isr, kept) in [(vec![1], 3), (vec![1, 2], 3), (vec![2], 0)] {
            let mut world = World::new();
            let topic_id = Uuid::new_v4();
            let dir = Path::new("/a/t-0");
            let manager = LogManager::open(&world.env, LogManagerConfig::new(vec!["/b".into()], 1)).unwrap();
            let name = TopicPartition::new("t", 0);
            let mut log = manager.open_log(&name, None, Arc::default(), Placement::New(None)).unwrap();
            for _ in 0..3 {
                let rules = crate::log::ValidationRules::new(&name, log.config(), 1000, 9);
                let batch = crate::log::validate(crate::log::tests::plain(1, b"x", 1000), &rules).unwrap();
                log.append_as_leader(batch, 0, 1000).unwrap();
            }
            world.disk.rename(Path::new("/b/t-0"), dir).unwrap();
            let epochs = PartitionRecord { leader_epoch: 0, partition_epoch: 0, ..Default::default() };
            let partition = PartitionRecord {
                partition_id: 0,
                topic_id,
                replicas: vec![1, 2],
                isr: isr.clone(),
                leader: 2,
                ..epochs
            };
            world.apply(vec![TopicRecord { name: "t".into(), topic_id }.into(), partition.into()]);
            let opened = world.manager.partition("t", 0).unwrap();
            assert_eq!(opened.watermarks().log_end_offset, kept, "ISR {isr:?}");
            assert_eq!(world.dirs("-stray"), usize::from(kept == 0), "ISR {isr:?}");
            world.env.tasks.shutdown().await;
        }
    }

    #[tokio::test]
    async fn the_next_delta_opens_what_a_shortage_left_closed_and_a_deleted_topic_is_not_tried_again() {
        let mut world = World::new();
        world.disk.set_faults(Faults { fail_open: Some(0), ..Faults::default() });
        world.create("t");
        let deleted = world.create("u");
        world.disk.set_faults(Faults::default());
        world.apply(vec![RemoveTopicRecord { topic_id: deleted }.into()]);
        assert!(world.is_led("t"), "the delta must open the log without the timer");
        assert!(world.manager.topic("u").is_none());
        assert!(world.manager.lock_changes().unopened.is_empty());
        world.env.tasks.shutdown().await;
    }

    #[tokio::test]
    async fn very_many_logs_that_a_shortage_left_closed_are_opened_in_portions() {
        let mut world = World::new();
        let many = MOST_AT_ONCE as i32 - 1;
        world.disk.set_capacity(0);
        for topic in ["a", "b", "c"] {
            world.create_with(topic, many);
        }
        world.disk.set_capacity(u64::MAX);
        let unopened = || world.manager.lock_changes().unopened.len();
        assert_eq!(unopened(), 3 * many as usize);
        let mut turn = RetryTurn::default();
        for left in (0..3 * many as usize).rev().step_by(PORTION).map(|last| (last + 1).saturating_sub(PORTION)) {
            assert!(!turn.is_over);
            turn = world.manager.retry(turn);
            assert_eq!(unopened(), left);
        }
        turn = world.manager.retry(turn);
        assert!(turn.is_over && turn.is_last);
        assert_eq!(["a", "b", "c"].map(|topic| world.led(topic)), [many as usize; 3]);
        world.env.tasks.shutdown().await;
    }

    #[tokio::test]
    async fn very_many_logs_are_opened_and_removed_in_portions_and_in_order() {
        let mut world = World::new();
        world.create("first");
        assert!(world.is_led("first"), "a few logs must be opened at once");
        let many = MOST_AT_ONCE as i32 * 3;
        let old = world.create_with("many", many);
        // The partition exists and returns a retriable error.
        assert!(matches!(world.manager.topic("many").unwrap().partition(many - 1), Some(Hosted::Opening)));
        world.manager.wait_until_opened(&["many"]).await;
        assert_eq!(world.led("many"), many as usize);
        // Delete the topic and create it again before any of its logs is removed, then create another topic.
        let partition = world.manager.partition("many", 0).unwrap();
        world.apply(vec![RemoveTopicRecord { topic_id: old }.into()]);
        assert!(!partition.is_leader() && world.manager.topic("many").is_none());
        let new = world.create_with("many", many);
        world.create("behind");
        assert_eq!(world.led("behind"), 2, "topics with other names must not wait");
        world.manager.wait_until_opened(&["behind", "many"]).await;
        assert_eq!(world.led("many"), many as usize);
        assert_eq!((world.dirs("-delete"), world.dirs("-stray")), (many as usize, 0));
        let text = world.disk.read(Path::new("/a/many-7/partition.metadata")).unwrap();
        assert!(String::from_utf8(text).unwrap().contains(&TopicId(new).to_string()));
        world.env.tasks.shutdown().await;
    }

    #[tokio::test]
    async fn what_is_deleted_before_it_was_opened_is_not_opened() {
        let mut world = World::new();
        world.create("first");
        let topic_id = world.create_with("many", MOST_AT_ONCE as i32 * 20);
        world.apply(vec![RemoveTopicRecord { topic_id }.into()]);
        world.manager.wait_until_opened(&["many"]).await;
        assert!(world.manager.topic("many").is_none());
        let left = world.disk.list(Path::new("/a")).unwrap();
        let left = left.iter().filter(|entry| entry.name.starts_with("many") && !entry.name.ends_with("-delete"));
        assert_eq!(left.count(), 0);
        world.env.tasks.shutdown().await;
    }

    #[tokio::test]
    async fn a_stop_in_between_removes_the_rest_and_the_next_start_opens_the_rest() {
        let mut world = World::new();
        world.create("first");
        let many = MOST_AT_ONCE as i32 * 3;
        let old = world.create_with("old", many);
        world.manager.wait_until_opened(&["old"]).await;
        world.apply(vec![RemoveTopicRecord { topic_id: old }.into()]);
        world.create_with("new", many);
        world.manager.finish_removals();
        world.manager.wait_until_opened(&["old", "new"]).await;
        assert_eq!(world.dirs("-delete"), many as usize);
        world.env.tasks.shutdown().await;
        world.manager.log_manager.shutdown();
        world.disk.sync_volume(Path::new("/a")).unwrap();
        world.disk.crash();
        let log_manager = LogManager::open(&world.env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
        world.manager = ReplicaManager::new(1, world.env.clone(), Arc::default(), log_manager, replication());
        let image = Arc::new(world.image.clone());
        world.manager.on_delta(&image, &MetadataDelta::from_empty(&image));
        assert_eq!((world.led("first"), world.led("new")), (2, many as usize));
    }
}
