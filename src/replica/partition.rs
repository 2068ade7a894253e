//! One partition: the lock around its log and its replica state.
//!
//! Under the lock there are only decisions and page-cache writes, never an await, an fsync or a read of data.
//! Watermarks are also published as atomics, which can be read without the lock. A read makes a plan under the lock
//! and executes it outside of the lock.
//!
//! Invariants: INV-L2 (log start ≤ last stable ≤ high watermark ≤ log end), INV-R3, INV-R5.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use super::{
    changed_partitions::{ChangedPartitions, Observers},
    context::ReplicaContext,
    state::{Effects, Event, FollowerFetch, IsrAnswer, Leadership, Moment, ReplicaState, RoleChange},
    waiters::{Waiter, Waiters},
};
use crate::{
    config::topic::LogConfig,
    env::{Tasks, lock::lock},
    log::{
        AppendError, AppendInfo, FlushResult, Log, LogError, LogLineLimit, LogOwner, ReadError, ReadPlan,
        TimestampLookup, TimestampOffset, ValidatedBatch, flushed, leader_epochs::LeaderEpochs,
        producer_state::ProducerEntry, request_flush,
    },
    types::{BrokerId, LeaderEpoch, Offset, ProducerId, TimestampMs, TopicId, TopicPartition},
};

/// A leader whose followers are silent for this long answers as if it did not lead. By then a controller that hears
/// neither has fenced them.
const CONFIRM_LIMIT: Duration = Duration::from_secs(2);

/// A partition whose leader has changed this lately has heard of the newest one.
const LATELY: Duration = Duration::from_secs(1);

/// The upper bound of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchIsolation {
    /// For a replica: up to the log end offset.
    LogEnd,
    /// For a consumer with `read_uncommitted`.
    HighWatermark,
    /// For a consumer with `read_committed`.
    LastStable,
}

/// The reason why a partition refuses a request.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// Another broker is the leader, or there is no leader.
    #[error("this broker does not lead {0}")]
    NotLeader(TopicPartition),
    /// F8: the client has sent an epoch older than the leader's.
    #[error("leader epoch {epoch} of {partition} is over, it is now {current}")]
    FencedLeaderEpoch { partition: TopicPartition, epoch: LeaderEpoch, current: LeaderEpoch },
    /// F8: the client has sent an epoch newer than the leader's.
    #[error("leader epoch {epoch} of {partition} is not known here, it is {current}")]
    UnknownLeaderEpoch { partition: TopicPartition, epoch: LeaderEpoch, current: LeaderEpoch },
    /// P2: there are too few in-sync replicas to append with acks=all. Nothing was written.
    #[error("{in_sync} replicas of {partition} are in sync, acks=all needs {needed}")]
    NotEnoughReplicas { partition: TopicPartition, in_sync: usize, needed: usize },
    /// P2: the records are on all in-sync replicas, but these have become too few for acks=all.
    #[error("the records in {0} are on too few replicas for acks=all")]
    NotEnoughReplicasAfterAppend(TopicPartition),
    /// L3: this new leader does not know yet which of its records are committed (KIP-207).
    #[error("the high watermark of {0} is not known yet")]
    OffsetNotAvailable(TopicPartition),
    /// The log refused the batch.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log refused the read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] LogError),
}

/// The log start and end offsets and the watermarks of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that may be read.
    pub log_start_offset: Offset,
    /// The first offset of the oldest open transaction; the high watermark if there is none.
    pub last_stable_offset: Offset,
    /// The first offset that is not on all in-sync replicas.
    pub high_watermark: Offset,
    /// The offset of the next record.
    pub log_end_offset: Offset,
}

/// The result of an append.
#[derive(Debug)]
pub struct Appended {
    /// The log's information about the append.
    pub info: AppendInfo,
    /// The leader epoch of the appended batch.
    pub leader_epoch: LeaderEpoch,
    /// The batch is on all in-sync replicas already, because this broker is the only one.
    pub is_committed: bool,
}

/// The result of a read under the lock; the data is read outside of it.
pub struct PartitionRead {
    /// The watermarks at the time of the read.
    pub watermarks: Watermarks,
    /// The plan to read the data; `None` if the client's log has diverged.
    pub plan: Option<ReadPlan>,
    /// F8: the largest epoch not above the client's, and its end offset in this log.
    pub diverging_epoch: Option<(LeaderEpoch, Offset)>,
    /// The follower has all records and is in sync, so that its next fetch needs to come only after a change.
    pub is_settled: bool,
}

/// One partition; see the head of this file.
pub struct Partition {
    topic_partition: TopicPartition,
    topic_id: TopicId,
    context: Arc<ReplicaContext>,
    inner: Mutex<Inner>,
    published: Published,
    /// They wait for a watermark or the role.
    waiters: Waiters,
    /// Followers wait for the log end offset, too.
    follower_waiters: Waiters,
    /// The fetch sessions of followers.
    observers: Observers,
    failed_reads: LogLineLimit,
}

pub(super) struct Inner {
    pub(super) log: Log,
    pub(super) state: ReplicaState,
    /// When the role of this broker has last changed.
    role_since: Duration,
}

#[derive(Default)]
struct Published {
    log_start_offset: AtomicI64,
    last_stable_offset: AtomicI64,
    high_watermark: AtomicI64,
    log_end_offset: AtomicI64,
    /// The leader's high watermark in its last response to this follower.
    leader_high_watermark: AtomicI64,
}

impl Partition {
    /// A partition with an open log and without a leader.
    pub fn new(context: &Arc<ReplicaContext>, topic_id: TopicId, log: Log, high_watermark: Offset) -> Arc<Partition> {
        let mut state = ReplicaState::new(context.local, high_watermark);
        state.clamp(log.log_start_offset(), log.log_end_offset());
        let partition = Partition {
            topic_partition: log.partition().clone(),
            topic_id,
            context: context.clone(),
            inner: Mutex::new(Inner { log, state, role_since: context.clock.monotonic() }),
            published: Published::default(),
            waiters: Waiters::default(),
            follower_waiters: Waiters::default(),
            observers: Observers::default(),
            failed_reads: LogLineLimit::default(),
        };
        partition.publish(&mut partition.lock());
        Arc::new(partition)
    }

    /// The topic name and partition index.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.topic_partition
    }

    /// The id of the topic.
    pub fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// The current watermarks, read without the lock. The values may be from different moments.
    pub fn watermarks(&self) -> Watermarks {
        let load = |value: &AtomicI64| value.load(Ordering::Acquire);
        Watermarks {
            log_start_offset: load(&self.published.log_start_offset),
            last_stable_offset: load(&self.published.last_stable_offset),
            high_watermark: load(&self.published.high_watermark),
            log_end_offset: load(&self.published.log_end_offset),
        }
    }

    /// How many records of its leader this follower lacks, as Kafka counts: the leader's high watermark at the last
    /// response.
    pub fn follower_lag(&self) -> Offset {
        let leader_high_watermark = self.published.leader_high_watermark.load(Ordering::Acquire);
        (leader_high_watermark - self.watermarks().log_end_offset).max(0)
    }

    pub(super) fn set_leader_high_watermark(&self, high_watermark: Offset) {
        self.published.leader_high_watermark.store(high_watermark, Ordering::Release);
    }

    /// Registers `waiter`, which the next change of what a reader with this isolation may see will wake, or of
    /// leadership.
    pub fn register(&self, waiter: &Arc<Waiter>, isolation: FetchIsolation) {
        self.waiters_of(isolation).register(waiter);
    }

    /// The number of such changes. If it is the same before a read and after [`Partition::register`], the waiter misses
    /// no change.
    pub fn changes(&self, isolation: FetchIsolation) -> u64 {
        self.waiters_of(isolation).changes()
    }

    /// Committed records were truncated: tells the checks of simulations.
    pub(super) fn note_lost_records(&self) {
        #[cfg(any(test, feature = "sim"))]
        lock(&self.context.truncated_committed).push(self.topic_partition.clone());
    }

    /// From now on, changes that concern followers are marked there.
    pub fn observe(&self, changed: &Arc<ChangedPartitions>) {
        self.observers.add(changed);
    }

    fn waiters_of(&self, isolation: FetchIsolation) -> &Waiters {
        match isolation {
            FetchIsolation::LogEnd => &self.follower_waiters,
            FetchIsolation::HighWatermark | FetchIsolation::LastStable => &self.waiters,
        }
    }

    /// Applies new metadata about the leadership. Returns the change of this broker's role.
    pub fn on_metadata(&self, leadership: Leadership) -> Option<RoleChange> {
        let mut inner = self.lock();
        let effects = self.step(&mut inner, Event::Metadata(leadership));
        if effects.role.is_some() {
            inner.role_since = self.context.clock.monotonic();
        }
        drop(inner);
        self.wake_all();
        self.context.followers_changed.notify_waiters();
        effects.role
    }

    /// Applies the controller's answer to a change of the ISR that was proposed in `partition_epoch`.
    pub fn on_isr_answer(&self, partition_epoch: i32, answer: IsrAnswer) {
        let mut inner = self.lock();
        self.step(&mut inner, Event::IsrAnswer { partition_epoch, answer });
        drop(inner);
        self.wake_all();
        self.context.followers_changed.notify_waiters();
    }

    /// Looks for followers that are too far behind.
    pub fn check_lag(&self) {
        let mut inner = self.lock();
        let effects = self.step(&mut inner, Event::LagCheck);
        drop(inner);
        self.wake(&effects, false);
    }

    /// The current leader and leader epoch.
    pub fn leader(&self) -> (BrokerId, LeaderEpoch) {
        let inner = self.lock();
        (inner.state.leadership().leader, inner.state.leadership().leader_epoch)
    }

    /// The epoch in which this broker is the leader.
    pub fn led_in(&self) -> Option<LeaderEpoch> {
        let inner = self.lock();
        inner.state.is_leader().then(|| inner.state.leadership().leader_epoch)
    }

    /// Whether this broker is the leader.
    pub fn is_leader(&self) -> bool {
        self.lock().state.is_leader()
    }

    /// Whether the record at `offset`, which this broker has in its log as the leader in `leader_epoch`, is on all
    /// in-sync replicas.
    ///
    /// # Errors
    /// This broker has lost the leadership since, even if it has regained it: the log may have been truncated, and
    /// another record may be at the offset.
    pub fn is_committed(&self, offset: Offset, leader_epoch: LeaderEpoch) -> Result<bool, PartitionError> {
        let inner = self.lock();
        // The epoch first: the watermark may already be above another record at the offset.
        let is_epoch = inner.state.is_leader() && inner.state.leadership().leader_epoch == leader_epoch;
        if !is_epoch && !planted!("A19") {
            return Err(PartitionError::NotLeader(self.topic_partition.clone()));
        }
        Ok(inner.state.high_watermark() > offset)
    }

    /// Waits until [`Partition::is_committed`] is true.
    ///
    /// # Errors
    /// As [`Partition::is_committed`].
    pub async fn committed(&self, offset: Offset, leader_epoch: LeaderEpoch) -> Result<(), PartitionError> {
        let waiter = Waiter::new();
        loop {
            self.register(&waiter, FetchIsolation::HighWatermark);
            if self.is_committed(offset, leader_epoch)? {
                return Ok(());
            }
            waiter.woken().await;
        }
    }

    /// Whether this broker leads, as far as it knows.
    pub fn is_led_here(&self) -> bool {
        self.lock().state.is_leader()
    }

    /// Lets a producer wait if this broker does not lead, and has not done so lately. When the leader changes, a client
    /// may come here before this broker has heard of it, since the former leader was faster. If it is refused, it waits
    /// for its back-off, which is longer. Beyond Kafka.
    pub async fn may_lead_soon(&self, until: Duration) {
        let ReplicaContext { clock, followers_changed, .. } = &*self.context;
        loop {
            let mut changed = std::pin::pin!(followers_changed.notified());
            // From here on a wake-up is not missed.
            changed.as_mut().enable();
            {
                let inner = self.lock();
                let now = clock.monotonic();
                if inner.state.is_leader() || now < inner.role_since + LATELY || now >= until {
                    return;
                }
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = clock.sleep_until(until) => return,
            }
        }
    }

    /// Waits until this broker is known to lead, so that what it has in memory is not older than what another leader
    /// has acknowledged. A broker that is cut off does not hear of its successor. But that was a follower, and fetches
    /// no more once it leads: this one answers all brokers that can succeed it at once, and waits until they have
    /// fetched again. Beyond Kafka, whose old leaders answer from memory.
    ///
    /// # Errors
    /// This broker does not lead, its log directory has failed, or a follower is silent for [`CONFIRM_LIMIT`].
    pub async fn confirm_leadership(&self) -> Result<(), PartitionError> {
        let ReplicaContext { clock, followers_changed, .. } = &*self.context;
        let begun = clock.monotonic();
        loop {
            let mut changed = std::pin::pin!(followers_changed.notified());
            // From here on a wake-up is not missed.
            changed.as_mut().enable();
            let since = if planted!("G3-FOLLOWERS") { begun.saturating_sub(Duration::from_millis(800)) } else { begun };
            if self.has_no_successor(since)? {
                return Ok(());
            }
            self.context.want_answers(begun);
            tokio::select! {
                biased;
                () = changed => {}
                () = clock.sleep_until(begun + CONFIRM_LIMIT) => {
                    return Err(PartitionError::NotLeader(self.topic_partition.clone()));
                }
            }
        }
    }

    /// Whether no other broker can have been elected before that time. With fewer in-sync replicas than
    /// `min.insync.replicas`, the controller may elect one that does not follow (KIP-966), after it has fenced this
    /// broker.
    fn has_no_successor(&self, until: Duration) -> Result<bool, PartitionError> {
        let inner = self.lock();
        // It refuses a failed log directory, too: this broker hears of that before the controller elects another.
        self.check_leader(&inner, None)?;
        let needed = inner.state.needed_replicas(inner.log.config().min_insync_replicas);
        let all_follow = inner.state.successors().all(|broker| self.context.has_followed(broker, until));
        Ok(all_follow && (inner.state.in_sync_replicas() >= needed || self.context.is_unfenced(until)))
    }

    /// For a committed append with acks=all: fails if there are too few in-sync replicas by now
    /// (`Partition.checkEnoughReplicasReachOffset`).
    ///
    /// # Errors
    /// [`PartitionError::NotEnoughReplicasAfterAppend`].
    pub fn check_enough_replicas(&self) -> Result<(), PartitionError> {
        let inner = self.lock();
        let needed = inner.state.needed_replicas(inner.log.config().min_insync_replicas);
        if inner.state.in_sync_replicas() < needed {
            return Err(PartitionError::NotEnoughReplicasAfterAppend(self.topic_partition.clone()));
        }
        Ok(())
    }

    /// The current settings.
    pub fn log_config(&self) -> Arc<LogConfig> {
        self.lock().log.config().clone()
    }

    /// Sets new settings, which apply from the next batch on.
    pub fn update_config(&self, config: Arc<LogConfig>) {
        self.lock().log.update_config(config);
    }

    /// Appends a batch that `log::validate` has accepted. `all_replicas` means acks=all (P2).
    ///
    /// # Errors
    /// Nothing was written; after a disk failure the outcome is unknown.
    pub fn append_as_leader(
        &self,
        batch: ValidatedBatch,
        all_replicas: bool,
        now_ms: TimestampMs,
    ) -> Result<Appended, PartitionError> {
        let mut inner = self.lock();
        let epoch = self.check_leader(&inner, None)?;
        if all_replicas {
            let needed = inner.state.needed_replicas(inner.log.config().min_insync_replicas);
            let in_sync = inner.state.in_sync_replicas();
            if in_sync < needed {
                let partition = self.topic_partition.clone();
                return Err(PartitionError::NotEnoughReplicas { partition, in_sync, needed });
            }
        }
        let info = inner.log.append_as_leader(batch, epoch, now_ms)?;
        let effects = self.step(&mut inner, Event::Appended);
        let is_committed = inner.state.high_watermark() > info.last_offset;
        let has_followers = inner.state.has_followers();
        drop(inner);
        self.wake(&effects, has_followers);
        Ok(Appended { info, leader_epoch: epoch, is_committed })
    }

    /// Reads for a consumer or replica (F2–F5, F8). The leader epochs in `fetch` are the client's, or -1 if unknown.
    ///
    /// # Errors
    /// See [`PartitionError`].
    pub fn read(
        &self,
        fetch: &FetchFrom,
        max_bytes: usize,
        isolation: FetchIsolation,
        min_one_batch: bool,
    ) -> Result<PartitionRead, PartitionError> {
        let inner = self.lock();
        self.check_leader(&inner, Some(fetch.current_leader_epoch))?;
        self.read_locked(&inner, fetch, max_bytes, isolation, min_one_batch)
    }

    /// F14: like [`Partition::read`], from a follower too.
    ///
    /// # Errors
    /// See [`PartitionError`].
    pub fn read_any_replica(
        &self,
        fetch: &FetchFrom,
        max_bytes: usize,
        isolation: FetchIsolation,
        min_one_batch: bool,
    ) -> Result<PartitionRead, PartitionError> {
        let inner = self.lock();
        match self.check_leader(&inner, Some(fetch.current_leader_epoch)) {
            Err(PartitionError::NotLeader(_)) if inner.state.leadership().leader >= 0 => {}
            checked => drop(checked?),
        }
        self.read_locked(&inner, fetch, max_bytes, isolation, min_one_batch)
    }

    /// Reads for a follower, and records its progress.
    ///
    /// # Errors
    /// See [`PartitionError`]. UNKNOWN_LEADER_EPOCH if the broker is no replica: it may know newer metadata than this
    /// one (KAFKA-14078: the check of the epoch comes first).
    pub fn read_for_follower(
        &self,
        fetch: &FetchFrom,
        max_bytes: usize,
        min_one_batch: bool,
        (replica, broker_epoch): (BrokerId, i64),
    ) -> Result<PartitionRead, PartitionError> {
        let mut inner = self.lock();
        let checked = self.check_leader(&inner, Some(fetch.current_leader_epoch));
        let current = match checked {
            Err(_) if planted!("A14") && !inner.state.is_follower(replica) => inner.state.leadership().leader_epoch,
            checked => checked?,
        };
        if !inner.state.is_follower(replica) {
            let (partition, epoch) = (self.topic_partition.clone(), fetch.current_leader_epoch);
            return Err(match epoch {
                -1 => PartitionError::NotLeader(partition),
                _ => PartitionError::UnknownLeaderEpoch { partition, epoch, current },
            });
        }
        let mut read = self.read_locked(&inner, fetch, max_bytes, FetchIsolation::LogEnd, min_one_batch)?;
        if read.plan.is_none() && !planted!("K8") {
            return Ok(read);
        }
        let leader_end_offset = inner.log.log_end_offset();
        let progress = FollowerFetch { replica, broker_epoch, offset: fetch.offset, leader_end_offset };
        let effects = self.step(&mut inner, Event::Fetched(progress));
        // A replica outside of the ISR may join with each fetch.
        read.is_settled = fetch.offset == leader_end_offset && inner.state.is_in_sync(replica);
        drop(inner);
        self.wake(&effects, false);
        read.watermarks = self.watermarks();
        Ok(read)
    }

    fn read_locked(
        &self,
        inner: &Inner,
        fetch: &FetchFrom,
        max_bytes: usize,
        isolation: FetchIsolation,
        min_one_batch: bool,
    ) -> Result<PartitionRead, PartitionError> {
        let watermarks = self.watermarks();
        if fetch.last_fetched_epoch >= 0 {
            let Some((epoch, end_offset)) = self.end_offset_of_epoch(inner, fetch.last_fetched_epoch) else {
                return Err(self.out_of_range(fetch.offset, watermarks));
            };
            if epoch < fetch.last_fetched_epoch || end_offset < fetch.offset {
                return Ok(PartitionRead {
                    watermarks,
                    plan: None,
                    diverging_epoch: Some((epoch, end_offset)),
                    is_settled: false,
                });
            }
        }
        let upper_bound = match isolation {
            FetchIsolation::LogEnd => watermarks.log_end_offset,
            FetchIsolation::HighWatermark => watermarks.high_watermark,
            FetchIsolation::LastStable => watermarks.last_stable_offset,
        };
        let plan = inner.log.read(fetch.offset, max_bytes, upper_bound, min_one_batch)?;
        Ok(PartitionRead { watermarks, plan: Some(plan), diverging_epoch: None, is_settled: false })
    }

    fn out_of_range(&self, offset: Offset, watermarks: Watermarks) -> PartitionError {
        PartitionError::Read(ReadError::OffsetOutOfRange {
            offset,
            partition: self.topic_partition.clone(),
            log_start_offset: watermarks.log_start_offset,
            log_end_offset: watermarks.log_end_offset,
        })
    }

    /// L4: returns the largest epoch not above `epoch`, and its end offset; `(-1, -1)` if there is none.
    ///
    /// # Errors
    /// See [`PartitionError`].
    pub fn end_offset_for_epoch(
        &self,
        current: LeaderEpoch,
        epoch: LeaderEpoch,
    ) -> Result<(LeaderEpoch, Offset), PartitionError> {
        let inner = self.lock();
        self.check_leader(&inner, Some(current))?;
        Ok(self.end_offset_of_epoch(&inner, epoch).unwrap_or((-1, -1)))
    }

    fn end_offset_of_epoch(&self, inner: &Inner, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        epochs_of_leader(inner).end_offset_for(epoch, inner.log.log_end_offset())
    }

    /// Returns a lookup by timestamp, which must run outside of the lock, and the watermarks that limit its result.
    ///
    /// # Errors
    /// See [`PartitionError`].
    pub fn timestamp_lookup(&self, current: LeaderEpoch) -> Result<(TimestampLookup, Watermarks), PartitionError> {
        let inner = self.lock();
        self.check_leader(&inner, Some(current))?;
        Ok((inner.log.timestamp_lookup(), self.watermarks()))
    }

    /// Returns an offset with the leader epoch of its record, or of the next record at this offset.
    ///
    /// # Errors
    /// See [`PartitionError`].
    pub fn offset_with_epoch(
        &self,
        current: LeaderEpoch,
        which: impl FnOnce(Watermarks) -> Offset,
    ) -> Result<TimestampOffset, PartitionError> {
        let inner = self.lock();
        self.check_leader(&inner, Some(current))?;
        let offset = which(self.watermarks());
        let leader_epoch = epochs_of_leader(&inner).epoch_for_offset(offset).unwrap_or(-1);
        Ok(TimestampOffset { timestamp_ms: -1, offset, leader_epoch })
    }

    /// L3: fails while this new leader does not know the high watermark (KIP-207).
    ///
    /// # Errors
    /// [`PartitionError::OffsetNotAvailable`].
    pub fn check_high_watermark_is_known(&self) -> Result<(), PartitionError> {
        if self.lock().state.knows_high_watermark() {
            return Ok(());
        }
        Err(PartitionError::OffsetNotAvailable(self.topic_partition.clone()))
    }

    /// A4: increases the log start offset to `offset`, which may be at most the high watermark; -1 means the high
    /// watermark. Returns the log start offset.
    ///
    /// # Errors
    /// See [`PartitionError`]. An offset outside of the log is a read error.
    pub fn delete_records_before(&self, offset: Offset) -> Result<Offset, PartitionError> {
        let mut inner = self.lock();
        self.check_leader(&inner, None)?;
        let watermarks = self.watermarks();
        let offset = if offset == -1 { watermarks.high_watermark } else { offset };
        if offset < 0 || offset > watermarks.high_watermark {
            return Err(self.out_of_range(offset, watermarks));
        }
        inner.log.maybe_increment_log_start_offset(offset)?;
        self.publish(&mut inner);
        Ok(inner.log.log_start_offset())
    }

    /// The producer state of the log.
    pub fn producers(&self) -> Vec<(ProducerId, ProducerEntry)> {
        self.lock().log.producers().producers().iter().map(|(id, entry)| (*id, entry.clone())).collect()
    }

    /// The size of all segments in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.lock().log.size_bytes()
    }

    /// Waits until all records below `offset` are flushed. The call itself requests the flush; one flush serves all
    /// waiting tasks.
    ///
    /// # Errors
    /// The log directory is offline, or disk space, memory or file descriptors were short.
    pub fn flushed(
        self: &Arc<Self>,
        offset: Offset,
        tasks: &Tasks,
    ) -> impl Future<Output = FlushResult> + Send + use<> {
        let owner: Arc<dyn LogOwner> = self.clone();
        flushed(&owner, offset, tasks)
    }

    /// Requests a flush in the background, for a producer that does not wait for it.
    pub fn request_flush(self: &Arc<Self>, tasks: &Tasks) {
        let owner: Arc<dyn LogOwner> = self.clone();
        request_flush(&owner, tasks);
    }

    /// Logs a failed read, at most once a minute. Offline directories are not logged, because they were reported
    /// before.
    pub fn report_failed_read(&self, error: &PartitionError, now: Duration) {
        self.report_failure(error, now, "cannot read for a fetch request");
    }

    /// Logs that this follower could not apply what its leader returned, as [`Partition::report_failed_read`].
    pub fn report_failed_follow(&self, error: &PartitionError, now: Duration) {
        self.report_failure(error, now, "cannot follow the leader");
    }

    fn report_failure(&self, error: &PartitionError, now: Duration, what: &str) {
        let is_reported = matches!(
            error,
            PartitionError::Storage(LogError::DirOffline { .. })
                | PartitionError::Append(AppendError::Storage(LogError::DirOffline { .. }))
                | PartitionError::Read(ReadError::Storage(LogError::DirOffline { .. }))
        );
        if is_reported {
            return;
        }
        if let Some(suppressed) = self.failed_reads.admit(now) {
            tracing::error!(partition = %self.topic_partition, %error, suppressed, "{what}");
        }
    }

    /// Ends the leadership for good, because the topic is deleted, and wakes all waiters.
    pub fn resign(&self) {
        let leadership = self.lock().state.leadership().clone();
        self.on_metadata(Leadership { leader: -1, partition_epoch: i32::MAX, ..leadership });
    }

    /// Shows the state of the replica and its log to a check, and changes nothing.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn inspect<T>(&self, look: impl FnOnce(&ReplicaState, &Log) -> T) -> T {
        let inner = self.lock();
        look(&inner.state, &inner.log)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Returns the leader epoch if this broker is the leader and the client's epoch is the same or -1.
    fn check_leader(&self, inner: &Inner, client_epoch: Option<LeaderEpoch>) -> Result<LeaderEpoch, PartitionError> {
        // What is in memory is of no use to a client, since another broker will lead (`HostedPartition.Offline`).
        inner.log.context().check_online()?;
        let current = inner.state.leadership().leader_epoch;
        let partition = || self.topic_partition.clone();
        match client_epoch.unwrap_or(-1) {
            epoch if epoch != -1 && epoch < current => {
                Err(PartitionError::FencedLeaderEpoch { partition: partition(), epoch, current })
            }
            epoch if epoch > current => {
                Err(PartitionError::UnknownLeaderEpoch { partition: partition(), epoch, current })
            }
            _ if !inner.state.is_leader() => Err(PartitionError::NotLeader(partition())),
            _ => Ok(current),
        }
    }

    /// Handles an event of the replica, and publishes the watermarks. The caller wakes waiters after it has released
    /// the lock.
    pub(super) fn step(&self, inner: &mut Inner, event: Event) -> Effects {
        let moment = Moment {
            now: self.context.clock.monotonic(),
            log_end_offset: inner.log.log_end_offset(),
            visible_end_offset: inner.log.visible_end_offset(),
            min_insync_replicas: inner.log.config().min_insync_replicas,
            max_lag: self.context.max_lag,
            brokers: &*self.context,
        };
        let mut effects = inner.state.step(event, &moment);
        if let Some(high_watermark) = effects.high_watermark {
            inner.log.on_high_watermark(high_watermark);
        }
        if let Some(proposal) = effects.proposal.take() {
            self.context.proposals.add((self.topic_id, self.topic_partition.partition), proposal);
        }
        self.publish(inner);
        effects
    }

    /// Wakes who waits for these effects. `is_longer`: followers may fetch more.
    pub(super) fn wake(&self, effects: &Effects, is_longer: bool) {
        if effects.high_watermark.is_some() {
            self.wake_all();
        } else if is_longer {
            self.wake_followers();
        }
    }

    fn wake_all(&self) {
        self.waiters.wake_all();
        // Followers hear of a new high watermark at once (KIP-1166).
        self.wake_followers();
    }

    fn wake_followers(&self) {
        self.follower_waiters.wake_all();
        self.observers.mark((self.topic_id, self.topic_partition.partition));
    }

    pub(super) fn publish(&self, inner: &mut Inner) {
        let (log_start_offset, log_end_offset) = (inner.log.log_start_offset(), inner.log.log_end_offset());
        inner.state.clamp(log_start_offset, log_end_offset);
        let high_watermark = inner.state.high_watermark();
        let last_stable_offset = inner.log.last_stable_offset(high_watermark);
        let store = |value: &AtomicI64, offset| value.store(offset, Ordering::Release);
        store(&self.published.log_end_offset, log_end_offset);
        store(&self.published.high_watermark, high_watermark);
        store(&self.published.last_stable_offset, last_stable_offset.max(log_start_offset));
        let start_before = self.published.log_start_offset.swap(log_start_offset, Ordering::AcqRel);
        // Followers take over the log start offset.
        if start_before != log_start_offset && inner.state.has_followers() {
            self.observers.mark((self.topic_id, self.topic_partition.partition));
        }
    }
}

/// The epochs of the log, and the current epoch if the leader has not written yet: it starts at the log end offset
/// (`UnifiedLog.assignEpochStartOffset` writes it to disk; here the first batch does).
fn epochs_of_leader(inner: &Inner) -> Cow<'_, LeaderEpochs> {
    let known = inner.log.leader_epochs();
    let current = inner.state.leadership().leader_epoch;
    if !inner.state.is_leader() || known.latest() == Some(current) {
        return Cow::Borrowed(known);
    }
    let mut epochs = known.clone();
    epochs.assign(current, inner.log.log_end_offset());
    Cow::Owned(epochs)
}

/// The offset from which a client fetches, and the leader epochs that it knows.
#[derive(Clone, Copy, Debug)]
pub struct FetchFrom {
    /// The offset of the next record that the client wants.
    pub offset: Offset,
    /// The leader epoch that the client knows; -1 for no check.
    pub current_leader_epoch: LeaderEpoch,
    /// The leader epoch of the client's last record; -1 for no check.
    pub last_fetched_epoch: LeaderEpoch,
}

impl LogOwner for Partition {
    fn with_log(&self, act: &mut dyn FnMut(&mut Log)) {
        let mut inner = self.lock();
        act(&mut inner.log);
        // A flush may have increased the high watermark, for which readers and appends wait.
        let effects = self.step(&mut inner, Event::Appended);
        drop(inner);
        self.wake(&effects, false);
    }

    fn high_watermark(&self) -> Option<Offset> {
        Some(self.watermarks().high_watermark)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use futures_util::FutureExt;

    use super::{super::follower::LeaderData, *};
    use crate::{
        log::{LogContext, OpenLog, ValidationRules, tests::plain, validate},
        protocol::record_batch::{BatchBuilder, BatchOptions},
        sim::{SimClock, SimDisk, disk::Faults},
    };

    /// A partition on a simulated disk. This broker is the leader and the only replica.
    pub(crate) fn led_partition(config: LogConfig) -> Arc<Partition> {
        led_partition_at(config).0
    }

    /// The same, with the clock of its context.
    fn led_partition_at(config: LogConfig) -> (Arc<Partition>, SimClock) {
        led_partition_on(&SimDisk::new(1), config)
    }

    fn led_partition_on(disk: &SimDisk, config: LogConfig) -> (Arc<Partition>, SimClock) {
        let clock = SimClock::new(1000);
        let dir = std::path::Path::new("/a");
        crate::env::Disk::create_dir_all(disk, dir).unwrap();
        let ctx = LogContext::alone(dir, Arc::new(disk.clone()), Arc::new(clock.clone())).unwrap();
        let name = TopicPartition::new("t", 0);
        let log = Log::open(&ctx, &dir.join("t-0"), name, None, Arc::new(config), OpenLog::default()).unwrap();
        let context = ReplicaContext::new(1, Arc::new(clock.clone()), Duration::from_secs(30));
        let partition = Partition::new(&context, TopicId::ZERO, log, 0);
        let leadership = Leadership {
            leader: 1,
            leader_epoch: 0,
            partition_epoch: 0,
            replicas: vec![1],
            isr: vec![1],
            is_recovering: false,
        };
        assert_eq!(partition.on_metadata(leadership), Some(RoleChange::Leader));
        (partition, clock)
    }

    /// Appends one small record.
    pub(crate) fn append(partition: &Partition) -> Appended {
        let config = partition.log_config();
        let rules = ValidationRules::new(partition.topic_partition(), &config, 1000, 9);
        partition.append_as_leader(validate(plain(1, b"x", 1000), &rules).unwrap(), true, 1000).unwrap()
    }

    #[test]
    fn readers_do_not_see_what_flush_messages_has_yet_to_make_durable() {
        let partition = led_partition(LogConfig { flush_messages: 1, ..LogConfig::default() });
        let appended = append(&partition);
        assert!(appended.info.flush_due);
        assert_eq!(partition.watermarks().high_watermark, 0);
        let waiter = Waiter::new();
        partition.register(&waiter, FetchIsolation::HighWatermark);
        crate::log::flush_through(&*partition, 1).unwrap();
        assert_eq!(partition.watermarks().high_watermark, 1);
        assert!(waiter.woken().now_or_never().is_some());
    }

    /// Lets the future run until it waits.
    fn is_ready<T>(future: &mut std::pin::Pin<Box<impl Future<Output = T>>>) -> Option<T> {
        future.as_mut().now_or_never()
    }

    #[test]
    fn a_leader_is_confirmed_by_the_fetches_of_all_that_can_succeed_it() {
        let (partition, clock) = led_partition_at(LogConfig::default());
        let confirmed = || Box::pin(partition.confirm_leadership());
        assert!(confirmed().now_or_never().unwrap().is_ok(), "nobody else can lead");
        partition.context.set_brokers(&crate::controller::testing::image_with_brokers(&[1, 2]));
        partition.on_metadata(led_by(1, 1));
        clock.advance(Duration::from_millis(10));
        let mut first = confirmed();
        assert!(is_ready(&mut first).is_none());
        clock.advance(Duration::from_millis(10));
        partition.context.on_fetch_request(2, Some(Duration::ZERO));
        assert!(is_ready(&mut first).is_none(), "the request may have waited here for long");
        partition.context.on_fetch_request(2, Some(crate::env::Clock::monotonic(&clock)));
        assert!(is_ready(&mut first).unwrap().is_ok(), "broker 2 follows");
        let answered_at = crate::env::Clock::monotonic(&clock);
        assert!(partition.context.answer_wanted(answered_at).now_or_never().is_none());
        clock.advance(Duration::from_millis(1));
        let mut second = confirmed();
        assert!(is_ready(&mut second).is_none(), "it has followed a moment ago, which may be over");
        assert!(partition.context.answer_wanted(answered_at).now_or_never().is_some());
        partition.on_metadata(led_by(2, 2));
        assert!(is_ready(&mut second).unwrap().is_err(), "broker 2 leads");
        partition.on_metadata(led_by(1, 3));
        let mut third = confirmed();
        assert!(is_ready(&mut third).is_none());
        clock.advance(CONFIRM_LIMIT);
        assert!(is_ready(&mut third).unwrap().is_err(), "broker 2 is silent for too long");
    }

    #[test]
    fn with_too_few_in_sync_replicas_the_controller_must_say_that_this_leader_is_not_fenced() {
        let (partition, clock) = led_partition_at(LogConfig { min_insync_replicas: 2, ..LogConfig::default() });
        clock.advance(Duration::from_secs(10));
        partition.on_metadata(Leadership { isr: vec![1], ..led_by(1, 1) });
        let mut confirmed = Box::pin(partition.confirm_leadership());
        assert!(is_ready(&mut confirmed).is_none(), "broker 2 may lead, although it does not follow");
        assert!(partition.context.heartbeat_wanted().now_or_never().is_some());
        partition.context.on_unfenced(Duration::from_secs(9));
        assert!(is_ready(&mut confirmed).is_none(), "that was before");
        partition.context.on_unfenced(crate::env::Clock::monotonic(&clock));
        assert!(is_ready(&mut confirmed).unwrap().is_ok());
    }

    #[test]
    fn a_producer_waits_a_moment_for_a_leader_that_has_not_heard_of_itself_yet() {
        let (partition, clock) = led_partition_at(LogConfig::default());
        partition.on_metadata(led_by(2, 1));
        let limit = Duration::from_millis(50);
        let wait = || Box::pin(partition.may_lead_soon(crate::env::Clock::monotonic(&clock) + limit));
        assert!(wait().now_or_never().is_some(), "the former leader knows the new one");
        clock.advance(LATELY);
        let mut waiting = wait();
        assert!(is_ready(&mut waiting).is_none());
        partition.context.on_fetch_request(2, None);
        assert!(is_ready(&mut waiting).is_none());
        partition.on_metadata(led_by(1, 2));
        assert!(is_ready(&mut waiting).is_some(), "it leads");
        partition.on_metadata(led_by(2, 3));
        clock.advance(LATELY);
        let mut waiting = wait();
        assert!(is_ready(&mut waiting).is_none());
        clock.advance(limit);
        assert!(is_ready(&mut waiting).is_some(), "not for long");
    }

    fn led_by(leader: BrokerId, epoch: LeaderEpoch) -> Leadership {
        Leadership {
            leader,
            leader_epoch: epoch,
            partition_epoch: epoch,
            replicas: vec![1, 2],
            isr: vec![1, 2],
            is_recovering: false,
        }
    }

    /// KAFKA-20634: after a truncation another record was at the offset, and its commit was taken for that of the
    /// first.
    #[test]
    fn inv_r5_a_record_is_committed_only_in_the_epoch_in_which_it_was_appended() {
        let partition = led_partition(LogConfig::default());
        partition.on_metadata(led_by(1, 1));
        let waits = append(&partition);
        assert!(!waits.is_committed, "the other in-sync replica has not fetched it");
        let mut committed = std::pin::pin!(partition.committed(waits.info.last_offset, waits.leader_epoch));
        assert!(committed.as_mut().now_or_never().is_none());
        // The leadership is lost and regained before the waiter runs.
        partition.on_metadata(led_by(2, 2));
        partition.on_metadata(Leadership { isr: vec![1], ..led_by(1, 3) });
        assert!(partition.watermarks().high_watermark > waits.info.last_offset);
        assert!(matches!(committed.now_or_never(), Some(Err(PartitionError::NotLeader(_)))));
        let again = append(&partition);
        assert!(again.is_committed);
        let committed = partition.committed(again.info.last_offset, again.leader_epoch);
        assert!(matches!(committed.now_or_never(), Some(Ok(()))));
    }

    /// What a follower is sent: one record from this offset on, fetched in this epoch of its leader.
    fn leader_data(offset: Offset, current_leader_epoch: LeaderEpoch, record_epoch: LeaderEpoch) -> LeaderData {
        let options = BatchOptions { base_offset: offset, leader_epoch: record_epoch, ..BatchOptions::default() };
        let mut batch = BatchBuilder::new(options);
        batch.append(1000, None, Some(b"v"), &[]);
        LeaderData {
            from: FetchFrom { offset, current_leader_epoch, last_fetched_epoch: -1 },
            records: batch.build(),
            high_watermark: offset + 1,
            log_start_offset: 0,
        }
    }

    /// KAFKA-18723.
    #[test]
    fn a_follower_appends_nothing_that_it_fetched_in_another_epoch_or_that_is_of_a_newer_one() {
        let partition = led_partition(LogConfig::default());
        partition.on_metadata(led_by(2, 3));
        for (fetched_in, record_epoch, end_offset) in [(2, 2, 0), (4, 2, 0), (3, 4, 0), (3, 2, 1)] {
            partition.append_as_follower(leader_data(0, fetched_in, record_epoch), 1000).unwrap();
            assert_eq!(partition.watermarks().log_end_offset, end_offset, "{fetched_in} {record_epoch}");
        }
    }

    /// KAFKA-14078: a follower was told UNKNOWN_LEADER_EPOCH by a broker that does not lead, and so asked it again and
    /// again instead of looking for the leader.
    #[test]
    fn f8_a_fetch_of_a_replica_is_checked_for_the_leader_and_its_epoch_before_the_replica() {
        let partition = led_partition(LogConfig::default());
        let fetched_by = |replica, current_leader_epoch| {
            let from = FetchFrom { offset: 0, current_leader_epoch, last_fetched_epoch: -1 };
            partition.read_for_follower(&from, 1000, true, (replica, -1)).map(|_| ())
        };
        partition.on_metadata(led_by(2, 4));
        for replica in [2, 3] {
            assert!(matches!(fetched_by(replica, 4), Err(PartitionError::NotLeader(_))), "{replica}");
            assert!(matches!(fetched_by(replica, -1), Err(PartitionError::NotLeader(_))), "{replica}");
            assert!(matches!(fetched_by(replica, 3), Err(PartitionError::FencedLeaderEpoch { .. })), "{replica}");
            assert!(matches!(fetched_by(replica, 5), Err(PartitionError::UnknownLeaderEpoch { .. })), "{replica}");
        }
        partition.on_metadata(led_by(1, 5));
        for replica in [2, 3] {
            assert!(matches!(fetched_by(replica, 4), Err(PartitionError::FencedLeaderEpoch { .. })), "{replica}");
            assert!(matches!(fetched_by(replica, 6), Err(PartitionError::UnknownLeaderEpoch { .. })), "{replica}");
        }
        assert!(fetched_by(2, 5).is_ok());
        // Broker 3 may know of a new replica set before this leader does: then it asks again (KAFKA-13837).
        assert!(matches!(fetched_by(3, 5), Err(PartitionError::UnknownLeaderEpoch { .. })));
        assert!(matches!(fetched_by(3, -1), Err(PartitionError::NotLeader(_))));
    }

    /// KAFKA-7414, KAFKA-9491.
    #[test]
    fn a_follower_out_of_its_leaders_range_goes_on_where_the_leader_begins_or_ends() {
        let partition = led_partition(LogConfig::default());
        partition.on_metadata(led_by(2, 1));
        for offset in 0..5 {
            partition.append_as_follower(leader_data(offset, 1, 1), 1000).unwrap();
        }
        let at = |offset| FetchFrom { offset, current_leader_epoch: 1, last_fetched_epoch: 1 };
        let range = || (partition.watermarks().log_start_offset, partition.watermarks().log_end_offset);
        partition.continue_at(&at(4), 0, 3).unwrap();
        assert_eq!(range(), (0, 5), "this log has another end by now");
        partition.continue_at(&at(5), 0, 3).unwrap();
        assert_eq!(range(), (0, 3));
        partition.continue_at(&at(3), 100, 200).unwrap();
        assert_eq!(range(), (100, 100));
    }

    /// KAFKA-19474: the comparison came after the truncation had lowered the high watermark, so that it never found
    /// anything.
    #[test]
    fn inv_r4_a_truncation_below_the_high_watermark_is_noticed() {
        let partition = led_partition(LogConfig::default());
        partition.on_metadata(led_by(2, 1));
        for offset in 0..5 {
            let data = LeaderData { high_watermark: 3, ..leader_data(offset, 1, 1) };
            partition.append_as_follower(data, 1000).unwrap();
        }
        let truncated_to = |leader_end_offset| {
            let offset = partition.watermarks().log_end_offset;
            let from = FetchFrom { offset, current_leader_epoch: 1, last_fetched_epoch: 1 };
            partition.continue_at(&from, 0, leader_end_offset).unwrap();
            let Watermarks { high_watermark, log_end_offset, .. } = partition.watermarks();
            (high_watermark, log_end_offset, lock(&partition.context.truncated_committed).len())
        };
        assert_eq!(truncated_to(4), (3, 4, 0));
        assert_eq!(truncated_to(3), (3, 3, 0));
        assert_eq!(truncated_to(2), (2, 2, 1));
    }

    /// A broker whose write of its new epoch had failed went on as the leader. Here an election writes nothing: the
    /// epoch begins with the leader's first record, and is written with the flush of that.
    #[test]
    fn a_new_leader_that_cannot_write_its_epoch_takes_the_directory_offline() {
        for fault in
            [Faults { fail_write: Some(1), ..Faults::default() }, Faults { fail_sync: Some(1), ..Faults::default() }]
        {
            let disk = SimDisk::new(1);
            let (partition, _) = led_partition_on(&disk, LogConfig::default());
            partition.on_metadata(led_by(2, 1));
            partition.append_as_follower(leader_data(0, 1, 1), 1000).unwrap();
            crate::log::flush_through(&*partition, 1).unwrap();
            partition.on_metadata(Leadership { isr: vec![1], ..led_by(1, 2) });
            append(&partition);
            disk.set_faults(Faults { below: "/a/t-0/leader-epoch-checkpoint.tmp".into(), ..fault.clone() });
            assert!(crate::log::flush_through(&*partition, 2).is_err(), "{fault:?}");
            assert!(partition.lock().log.context().is_offline(), "{fault:?}");
            let rules = ValidationRules::new(partition.topic_partition(), &partition.log_config(), 1000, 9);
            let appended = partition.append_as_leader(validate(plain(1, b"x", 1000), &rules).unwrap(), false, 1000);
            assert!(matches!(appended, Err(PartitionError::Storage(LogError::DirOffline { .. }))));
            let from = FetchFrom { offset: 0, current_leader_epoch: 2, last_fetched_epoch: -1 };
            let read = partition.read(&from, 1000, FetchIsolation::HighWatermark, true).map(|_| ());
            assert!(matches!(read, Err(PartitionError::Storage(LogError::DirOffline { .. }))));
        }
    }

    #[test]
    fn a_follower_whose_log_starts_after_its_leaders_end_begins_anew_there() {
        let partition = led_partition(LogConfig::default());
        partition.on_metadata(led_by(2, 1));
        let at = |offset, last_fetched_epoch| FetchFrom { offset, current_leader_epoch: 1, last_fetched_epoch };
        let range = || (partition.watermarks().log_start_offset, partition.watermarks().log_end_offset);
        partition.continue_at(&at(0, -1), 100, 200).unwrap();
        partition.append_as_follower(leader_data(100, 1, 1), 1000).unwrap();
        partition.lock().log.maybe_increment_log_start_offset(101).unwrap();
        assert_eq!(range().1, 101);
        // The leader was elected uncleanly and is far behind.
        partition.continue_at(&at(101, 1), 1, 3).unwrap();
        assert_eq!(range(), (1, 1));
    }

    #[test]
    fn a_coordinator_whose_log_directory_has_failed_is_not_confirmed() {
        let (partition, clock) = led_partition_at(LogConfig::default());
        partition.context.set_brokers(&crate::controller::testing::image_with_brokers(&[1, 2]));
        partition.on_metadata(led_by(1, 1));
        clock.advance(Duration::from_millis(10));
        partition.context.on_fetch_request(2, Some(crate::env::Clock::monotonic(&clock)));
        let ctx = partition.lock().log.context().clone();
        ctx.fail(&LogError::Closed { path: "/a".into() });
        // The controller elects broker 2, which goes on to follow this broker in the partitions of other directories.
        partition.context.on_fetch_request(2, Some(crate::env::Clock::monotonic(&clock)));
        assert!(partition.confirm_leadership().now_or_never().is_none_or(|confirmed| confirmed.is_err()));
        let is_storage_error = |error| matches!(error, PartitionError::Storage(_));
        assert!(partition.end_offset_for_epoch(1, 1).is_err_and(is_storage_error));
        assert!(partition.timestamp_lookup(1).is_err_and(is_storage_error));
        assert!(partition.offset_with_epoch(1, |watermarks| watermarks.log_end_offset).is_err_and(is_storage_error));
    }

    #[test]
    fn l3_a_new_leader_tells_its_end_once_it_knows_the_high_watermark() {
        let partition = led_partition(LogConfig::default());
        partition.on_metadata(led_by(2, 1));
        partition.append_as_follower(LeaderData { high_watermark: 0, ..leader_data(0, 1, 1) }, 1000).unwrap();
        partition.on_metadata(led_by(1, 2));
        assert!(matches!(partition.check_high_watermark_is_known(), Err(PartitionError::OffsetNotAvailable(_))));
        partition.on_metadata(Leadership { isr: vec![1], ..led_by(1, 3) });
        assert!(partition.check_high_watermark_is_known().is_ok());
    }

    #[test]
    fn f14_only_a_consumer_that_asks_for_any_replica_reads_from_a_follower() {
        let partition = led_partition(LogConfig::default());
        append(&partition);
        let read = |any: bool, epoch| {
            let from = FetchFrom { offset: 0, current_leader_epoch: epoch, last_fetched_epoch: -1 };
            match any {
                true => partition.read_any_replica(&from, 1000, FetchIsolation::HighWatermark, true),
                false => partition.read(&from, 1000, FetchIsolation::HighWatermark, true),
            }
        };
        partition.on_metadata(led_by(2, 1));
        assert!(matches!(read(false, 1), Err(PartitionError::NotLeader(_))));
        assert_eq!(read(true, 1).unwrap().watermarks.high_watermark, 1);
        assert!(read(true, -1).unwrap().plan.is_some());
        assert!(matches!(read(true, 0), Err(PartitionError::FencedLeaderEpoch { .. })));
        assert!(matches!(read(true, 2), Err(PartitionError::UnknownLeaderEpoch { .. })));
        partition.resign();
        assert!(matches!(read(true, -1), Err(PartitionError::NotLeader(_))));
    }
}
