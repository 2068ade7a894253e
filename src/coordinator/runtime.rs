//! Runs the group coordinator's shards. There is one lock per partition of `__consumer_offsets`: under the lock
//! step → append → apply, outside of it the wait for the commit and the reply.
//!
//! Owns the loaded partitions, the map of waiting requests to waiting tasks, and the timer task, which sleeps until the
//! earliest deadline. Leaves all decisions about groups to the shards, and the reading of a partition to
//! `runtime/load.rs`. A request with many items is split into several steps (`runtime/slices.rs`), and so is the
//! deletion of the offsets of deleted topics (`runtime/sweep.rs`), so that the lock is held for a few milliseconds at
//! most. It accesses the log through [`CoordinatorLog`]. After a failed append a shard is never repaired: it is dropped
//! and loaded again, and its waiting requests get an error that makes clients find their coordinator again.
//!
//! Lock order: the shard's lock, then (inside the log) the partition's. No code awaits under either lock.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, RwLock,
        atomic::{AtomicI32, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use load::LoadError;
use slices::{ITEMS_PER_STEP, join, slices};
use thiserror::Error;
use tokio::sync::{Notify, oneshot};

use super::group::{
    CommitOffsetsRequest, CommitTopic, DeleteOffsetsRequest, DescribedGroup, FetchOffsetsRequest, FetchedTopic,
    GroupConfig, GroupCounts, GroupError, GroupFilter, HeartbeatRequest, JoinError, JoinRequest, Joined, LeaveRequest,
    LeftMember, ListedGroup, Now, RequestId, SyncRequest, Synced, TopicOutcome,
    records::Record,
    shard::{Deletion, Input, Output, Reply, Shard},
};
use crate::{
    env::{BoxFuture, Env, LogLimit, byte_account::ByteAccount, lock},
    protocol::record_batch::{BatchBuilder, BatchOptions, HEADER_BYTES},
    types::{LeaderEpoch, Offset, TopicId, java_string_hash},
};

mod load;
mod slices;
mod sweep;

/// The most groups that one step describes, because a group may have thousands of members.
const DESCRIBED_PER_STEP: usize = 8;

static WRITE_FAILED: LogLimit = LogLimit::new();
/// One limit for all partitions, because one refusal is mostly followed by many.
static NO_ROOM: LogLimit = LogLimit::of(1, Duration::from_secs(60));

/// No deadline.
const NEVER: i64 = i64::MAX;
/// The maximum size of a record without its key and value: length, attributes, deltas, counts.
const RECORD_OVERHEAD_BYTES: usize = 40;

/// The reason why the log did not accept or confirm a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WriteError {
    /// This broker is no longer the leader of the partition.
    #[error("not the leader of the partition")]
    NotLeader,
    /// Fewer in-sync replicas than `min.insync.replicas`; nothing was written.
    #[error("not enough in-sync replicas")]
    NotEnoughReplicas,
    /// The batch is larger than the topic allows; nothing was written.
    #[error("the batch is too large for the topic")]
    TooLarge,
    /// The records were not replicated in time.
    #[error("not replicated in time")]
    TimedOut,
    /// The log directory failed.
    #[error("the storage failed")]
    Storage,
}

/// Maps append errors to group errors like Kafka (G10).
impl From<WriteError> for GroupError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NotEnoughReplicas | WriteError::TimedOut => GroupError::CoordinatorNotAvailable,
            WriteError::NotLeader | WriteError::Storage => GroupError::NotCoordinator,
            WriteError::TooLarge => GroupError::UnknownServerError,
        }
    }
}

/// The offsets of an appended batch, and the epoch in which this broker has appended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub first_offset: Offset,
    pub last_offset: Offset,
    pub leader_epoch: LeaderEpoch,
}

/// A record in the log of this broker, which was the leader in this epoch when it appended or loaded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
}

/// The coordinator's interface to the partitions of `__consumer_offsets`, addressed by number.
pub trait CoordinatorLog: Send + Sync + 'static {
    /// Appends one batch as the leader and assigns its offsets. It is called under the shard's lock, so it must
    /// not wait. After an error, nothing of the batch was written, or the log is offline.
    fn append(&self, partition: i32, batch: Bytes) -> Result<Appended, WriteError>;

    /// Whether the record at `position` is committed (below the high watermark), and flushed if the topic's settings
    /// require it. False, too, if this broker has lost the leadership of that epoch: it may be another record now.
    fn is_committed(&self, partition: i32, position: Position) -> bool;

    /// Waits until [`CoordinatorLog::is_committed`] is true, or returns an error when it can no longer be.
    fn committed(&self, partition: i32, position: Position) -> BoxFuture<'static, Result<(), WriteError>>;

    /// Waits until this broker is known to lead the partition still, so that no other has acknowledged a write that it
    /// does not know.
    fn confirm_leadership(&self, partition: i32) -> BoxFuture<'static, Result<(), WriteError>>;

    /// The epoch in which this broker leads the partition; -1 if it does not.
    fn leader_epoch(&self, partition: i32) -> LeaderEpoch;

    /// The log start offset and the log end offset. `None` if this broker does not host the partition.
    fn bounds(&self, partition: i32) -> Option<(Offset, Offset)>;

    /// Reads whole batches, from the one that contains `from` on: about `max_bytes`, but at least one batch, and also
    /// uncommitted ones. Returns `InvalidData` if the first batch is damaged, and `ResourceBusy` if disk space, memory
    /// or file descriptors are temporarily short.
    fn read(&self, partition: i32, from: Offset, max_bytes: usize) -> BoxFuture<'_, std::io::Result<Bytes>>;

    /// The base offset of the first valid batch that contains `from` or follows it; the log end offset if there is
    /// none.
    fn next_readable(&self, partition: i32, from: Offset) -> BoxFuture<'_, std::io::Result<Offset>>;

    /// The size of the largest batch that [`CoordinatorLog::append`] accepts.
    fn max_batch_bytes(&self, partition: i32) -> usize;
}

/// The coordinator of the groups whose partition of `__consumer_offsets` this broker leads.
pub struct GroupCoordinator {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<GroupConfig>,
    env: Env,
    log: Arc<dyn CoordinatorLog>,
    partition_count: AtomicI32,
    cells: RwLock<BTreeMap<i32, Arc<Cell>>>,
    /// The time until which the timer task sleeps, in monotonic milliseconds.
    armed_ms: AtomicI64,
    wake_timer: Notify,
    /// The approximate memory of all shards.
    used_bytes: Arc<AtomicUsize>,
    deleted: Mutex<sweep::Queue>,
}

/// One partition of `__consumer_offsets`.
struct Cell {
    partition: i32,
    state: Mutex<CellState>,
    /// The shard's next deadline, which can be read without the lock.
    deadline_ms: AtomicI64,
    loaded: Notify,
}

enum CellState {
    /// The partition is being read. Topics that are deleted meanwhile are kept here. The number distinguishes this load
    /// from a later one.
    Loading {
        load: u64,
        deleted_topics: Vec<(Arc<str>, TopicId)>,
    },
    Active(Box<Active>),
    /// The partition cannot be read, or this broker is no longer its leader.
    Failed,
}

struct Active {
    shard: Shard,
    account: ByteAccount,
    parked: BTreeMap<RequestId, oneshot::Sender<Result<Delivery, GroupError>>>,
    next_request: u64,
    /// The offset that the next append must get. Any other offset means that another writer has appended.
    next_offset: Offset,
    /// The epoch in which this broker leads the partition.
    leader_epoch: LeaderEpoch,
}

/// A reply, and the record that must be committed before the reply is sent.
struct Delivery {
    output: Output,
    commit: Option<Position>,
}

enum Started {
    Answered(Delivery),
    Parked(oneshot::Receiver<Result<Delivery, GroupError>>),
}

impl GroupCoordinator {
    /// Makes a coordinator without partitions and starts its timer task.
    pub fn new(config: GroupConfig, env: Env, log: Arc<dyn CoordinatorLog>) -> Self {
        let inner = Arc::new(Inner {
            partition_count: AtomicI32::new(config.offsets_topic_num_partitions.max(1)),
            config: Arc::new(config),
            env,
            log,
            cells: RwLock::default(),
            armed_ms: AtomicI64::new(NEVER),
            wake_timer: Notify::new(),
            used_bytes: Arc::default(),
            deleted: Mutex::default(),
        });
        let timer = inner.clone();
        inner.env.tasks.spawn_until_stopped("group-coordinator-timer", async move { timer.run_timer().await });
        GroupCoordinator { inner }
    }

    /// The partition of `__consumer_offsets` for the group (M7).
    pub fn partition_for(&self, group_id: &str) -> i32 {
        let count = self.inner.partition_count.load(Ordering::Relaxed).max(1);
        // For i32::MIN, Java's Math.abs returns a negative number, but Kafka's Utils.abs returns 0.
        java_string_hash(group_id).checked_abs().unwrap_or(0) % count
    }

    /// Sets the number of partitions of `__consumer_offsets`, once the topic exists.
    pub fn set_partition_count(&self, count: i32) {
        self.inner.partition_count.store(count.max(1), Ordering::Relaxed);
    }

    /// Starts to load a partition that this broker now leads. Returns at once; until the log is read, requests get
    /// COORDINATOR_LOAD_IN_PROGRESS. An empty log is loaded before this function returns.
    pub fn load(&self, partition: i32) {
        let cell = Arc::new(Cell {
            partition,
            state: Mutex::new(CellState::Loading { load: 0, deleted_topics: Vec::new() }),
            deadline_ms: AtomicI64::new(NEVER),
            loaded: Notify::new(),
        });
        let replaced = lock::write(&self.inner.cells).insert(partition, cell.clone());
        if let Some(replaced) = replaced {
            replaced.close(GroupError::NotCoordinator);
        }
        self.inner.start_load(&cell, 0);
    }

    /// Drops a partition that this broker no longer leads. Its waiting requests get NOT_COORDINATOR.
    pub fn unload(&self, partition: i32) {
        let cell = lock::write(&self.inner.cells).remove(&partition);
        if let Some(cell) = cell {
            cell.close(GroupError::NotCoordinator);
        }
    }

    /// Waits until the partition is not being loaded.
    pub async fn loaded(&self, partition: i32) {
        let Some(cell) = self.inner.cell(partition) else { return };
        loop {
            let notified = cell.loaded.notified();
            if !matches!(*cell.lock(), CellState::Loading { .. }) {
                return;
            }
            notified.await;
        }
    }

    /// Drops all partitions for the controlled shutdown. All waiting requests get NOT_COORDINATOR.
    pub fn shutdown(&self) {
        let cells = std::mem::take(&mut *lock::write(&self.inner.cells));
        for cell in cells.values() {
            cell.close(GroupError::NotCoordinator);
        }
    }

    /// JoinGroup. Waits until the join phase of the rebalance is complete.
    pub async fn join(&self, request: JoinRequest) -> Result<Joined, JoinError> {
        let member_id = request.member_id.clone();
        let partition = self.partition_for(&request.group_id);
        let member_uuid = self.inner.env.random.uuid();
        match self.inner.perform(partition, Input::Join(request, member_uuid)).await {
            Ok(Output::Joined(result)) => result,
            Ok(other) => unexpected(&other),
            Err(error) => Err(JoinError { error, member_id }),
        }
    }

    /// SyncGroup. Waits for the leader's assignment.
    pub async fn sync(&self, request: SyncRequest) -> Result<Synced, GroupError> {
        match self.inner.perform(self.partition_for(&request.group_id), Input::Sync(request)).await? {
            Output::Synced(result) => result,
            other => unexpected(&other),
        }
    }

    /// Heartbeat. It succeeds while the group is being loaded.
    pub async fn heartbeat(&self, request: HeartbeatRequest) -> Result<(), GroupError> {
        match self.inner.perform(self.partition_for(&request.group_id), Input::Heartbeat(request)).await {
            Ok(Output::Heartbeat(result)) => result,
            Ok(other) => unexpected(&other),
            Err(GroupError::CoordinatorLoadInProgress) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// LeaveGroup. Results are in the order of the request.
    pub async fn leave(&self, request: LeaveRequest) -> Result<Vec<LeftMember>, GroupError> {
        let LeaveRequest { group_id, members } = request;
        let partition = self.partition_for(&group_id);
        let mut all = Vec::with_capacity(members.len());
        let mut members = members.into_iter();
        loop {
            let slice = members.by_ref().take(ITEMS_PER_STEP).collect();
            let leave = LeaveRequest { group_id: group_id.clone(), members: slice };
            match self.inner.perform(partition, Input::Leave(leave)).await? {
                Output::Left(result) => all.append(&mut result?),
                other => unexpected(&other),
            }
            if members.len() == 0 {
                return Ok(all);
            }
            self.inner.env.tasks.yield_now().await;
        }
    }

    /// OffsetCommit. Waits until the offsets are replicated. A commit of many partitions may fail for some of them.
    pub async fn commit_offsets(&self, mut request: CommitOffsetsRequest) -> Result<Vec<TopicOutcome>, GroupError> {
        let partition = self.partition_for(&request.group_id);
        let (mut all, mut is_first) = (Vec::new(), true);
        for slice in slices(std::mem::take(&mut request.topics), ITEMS_PER_STEP) {
            let commit = CommitOffsetsRequest { topics: slice.topics.clone(), ..request.clone() };
            let outcomes = match self.inner.perform(partition, Input::CommitOffsets(commit)).await {
                Ok(Output::Outcomes(outcomes)) => outcomes,
                Ok(other) => unexpected(&other),
                Err(error) => Err(error),
            };
            let outcomes = match outcomes {
                Ok(outcomes) => outcomes,
                Err(error) if is_first => return Err(error),
                Err(error) => slice.topics.into_iter().map(|topic| refused_commit(topic, error)).collect(),
            };
            join(&mut all, outcomes, slice.continues);
            is_first = false;
            self.inner.env.tasks.yield_now().await;
        }
        Ok(all)
    }

    /// OffsetFetch of one group, for the requested topics.
    pub async fn fetch_offsets(&self, mut request: FetchOffsetsRequest) -> Result<Vec<FetchedTopic>, GroupError> {
        let partition = self.partition_for(&request.group_id);
        let mut all = Vec::new();
        for slice in slices(std::mem::take(&mut request.topics), ITEMS_PER_STEP) {
            let fetch = FetchOffsetsRequest { topics: slice.topics, ..request.clone() };
            match self.inner.perform(partition, Input::FetchOffsets(fetch)).await.map_err(map_fetch_error)? {
                Output::Fetched(result) => join(&mut all, result?, slice.continues),
                other => unexpected(&other),
            }
            self.inner.env.tasks.yield_now().await;
        }
        self.inner.log.confirm_leadership(partition).await?;
        Ok(all)
    }

    /// OffsetFetch of all offsets of one group.
    pub async fn fetch_all_offsets(
        &self,
        group_id: &Arc<str>,
        require_stable: bool,
    ) -> Result<Vec<FetchedTopic>, GroupError> {
        let partition = self.partition_for(group_id);
        let (mut all, mut after): (Vec<FetchedTopic>, _) = (Vec::new(), None);
        loop {
            let input = Input::FetchAllOffsets { group_id: group_id.clone(), require_stable, after };
            let (page, next) = match self.inner.perform(partition, input).await.map_err(map_fetch_error)? {
                Output::FetchedPage(page, next) => (page, next),
                other => unexpected(&other),
            };
            let last = all.last().map(|topic| topic.name.clone());
            let continues = last.is_some() && last == page.first().map(|topic| topic.name.clone());
            join(&mut all, page, continues);
            if next.is_none() {
                self.inner.log.confirm_leadership(partition).await?;
                return Ok(all);
            }
            after = next;
            self.inner.env.tasks.yield_now().await;
        }
    }

    /// OffsetDelete.
    pub async fn delete_offsets(&self, request: DeleteOffsetsRequest) -> Result<Vec<TopicOutcome>, GroupError> {
        let DeleteOffsetsRequest { group_id, topics } = request;
        let partition = self.partition_for(&group_id);
        let mut all = Vec::new();
        for slice in slices(topics, ITEMS_PER_STEP) {
            let delete = DeleteOffsetsRequest { group_id: group_id.clone(), topics: slice.topics };
            match self.inner.perform(partition, Input::DeleteOffsets(delete)).await? {
                Output::Outcomes(result) => join(&mut all, result?, slice.continues),
                other => unexpected(&other),
            }
            self.inner.env.tasks.yield_now().await;
        }
        Ok(all)
    }

    /// DescribeGroups. Returns one result per id, in order.
    pub async fn describe(&self, group_ids: Vec<Arc<str>>) -> Vec<Result<DescribedGroup, GroupError>> {
        let mut results: Vec<Option<Result<DescribedGroup, GroupError>>> = vec![None; group_ids.len()];
        for (partition, positions) in self.by_partition(&group_ids) {
            for positions in positions.chunks(DESCRIBED_PER_STEP) {
                let requested = positions.iter().map(|position| group_ids[*position].clone()).collect();
                let described = match self.inner.perform(partition, Input::Describe(requested)).await {
                    Ok(Output::Described(described)) => described,
                    Ok(other) => unexpected(&other),
                    Err(error) => vec![Err(error); positions.len()],
                };
                for (position, result) in positions.iter().zip(described) {
                    results[*position] = Some(result);
                }
                self.inner.env.tasks.yield_now().await;
            }
        }
        results.into_iter().map(|result| result.unwrap_or(Err(GroupError::NotCoordinator))).collect()
    }

    /// ListGroups: lists the groups of this coordinator. If a partition is still loading, the whole request fails.
    pub async fn list(&self, filter: GroupFilter) -> Result<Vec<ListedGroup>, GroupError> {
        let (filter, mut groups) = (Arc::new(filter), Vec::new());
        let partitions: Vec<i32> = lock::read(&self.inner.cells).keys().copied().collect();
        for partition in partitions {
            let mut after = None;
            loop {
                let input = Input::List { filter: filter.clone(), after };
                let (mut page, next) = match self.inner.perform(partition, input).await {
                    Ok(Output::Listed(page, next)) => (page, next),
                    Ok(other) => unexpected(&other),
                    Err(GroupError::NotCoordinator) => break,
                    Err(error) => return Err(error),
                };
                groups.append(&mut page);
                if next.is_none() {
                    break;
                }
                after = next;
                self.inner.env.tasks.yield_now().await;
            }
        }
        Ok(groups)
    }

    /// Counts the groups and offsets of all loaded partitions.
    pub fn counts(&self) -> GroupCounts {
        let cells: Vec<Arc<Cell>> = lock::read(&self.inner.cells).values().cloned().collect();
        let mut counts = GroupCounts::default();
        for cell in cells {
            if let CellState::Active(active) = &*cell.lock() {
                active.shard.count(&mut counts);
            }
        }
        counts
    }

    /// DeleteGroups. Returns one result per id, in order.
    pub async fn delete(&self, group_ids: Vec<Arc<str>>) -> Vec<(Arc<str>, Option<GroupError>)> {
        let mut results = Vec::with_capacity(group_ids.len());
        for group_id in group_ids {
            let error = self.delete_group(&group_id).await.err();
            results.push((group_id, error));
            self.inner.env.tasks.yield_now().await;
        }
        results
    }

    async fn delete_group(&self, group_id: &Arc<str>) -> Result<(), GroupError> {
        let partition = self.partition_for(group_id);
        loop {
            match self.inner.perform(partition, Input::DeleteGroup(group_id.clone())).await? {
                Output::Deleted(Ok(Deletion::Begun)) => self.inner.env.tasks.yield_now().await,
                Output::Deleted(result) => return result.map(|_| ()),
                other => unexpected(&other),
            }
        }
    }

    /// Deletes the offsets of deleted topics in every group of this coordinator (O7), in the background.
    pub fn on_topics_deleted(&self, topics: Vec<(Arc<str>, TopicId)>) {
        if !topics.is_empty() {
            self.inner.enqueue_deleted(topics);
        }
    }

    fn by_partition(&self, group_ids: &[Arc<str>]) -> BTreeMap<i32, Vec<usize>> {
        let mut positions: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (position, group_id) in group_ids.iter().enumerate() {
            positions.entry(self.partition_for(group_id)).or_default().push(position);
        }
        positions
    }
}

/// Consumers before 3.9 do not retry COORDINATOR_NOT_AVAILABLE. With NOT_COORDINATOR they find the coordinator again
/// and retry.
fn map_fetch_error(error: GroupError) -> GroupError {
    if error == GroupError::CoordinatorNotAvailable { GroupError::NotCoordinator } else { error }
}

fn refused_commit(topic: CommitTopic, error: GroupError) -> TopicOutcome {
    let partitions = topic.partitions.iter().map(|commit| (commit.partition, Some(error)));
    TopicOutcome { partitions: partitions.collect(), name: topic.name, topic_id: topic.topic_id }
}

/// Panics, because a shard returns a fixed type of output for each input; another type is a bug.
fn unexpected(output: &Output) -> ! {
    panic!("the group coordinator returned the wrong type of output: {output:?}")
}

impl Inner {
    fn cell(&self, partition: i32) -> Option<Arc<Cell>> {
        lock::read(&self.cells).get(&partition).cloned()
    }

    fn now(&self) -> Now {
        let monotonic_ms = i64::try_from(self.env.clock.monotonic().as_millis()).unwrap_or(NEVER);
        Now { timestamp_ms: self.env.clock.now_ms(), monotonic_ms }
    }

    // ---- one request -----------------------------------------------------------------------------------

    async fn perform(self: &Arc<Self>, partition: i32, input: Input) -> Result<Output, GroupError> {
        let cell = self.cell(partition).ok_or(GroupError::NotCoordinator)?;
        self.perform_in(&cell, input).await
    }

    async fn perform_in(self: &Arc<Self>, cell: &Arc<Cell>, input: Input) -> Result<Output, GroupError> {
        let partition = cell.partition;
        let delivery = match self.start(cell, input)? {
            Started::Answered(delivery) => delivery,
            // The sender is dropped without a reply only when the process ends.
            Started::Parked(receiver) => receiver.await.unwrap_or(Err(GroupError::NotCoordinator))?,
        };
        if let Some(position) = delivery.commit.filter(|_| !planted!("K1"))
            && !self.log.is_committed(partition, position)
        {
            self.wait_for_commit(partition, position).await?;
        }
        Ok(delivery.output)
    }

    async fn wait_for_commit(&self, partition: i32, position: Position) -> Result<(), GroupError> {
        let timeout_ms = u64::try_from(self.config.offsets_commit_timeout_ms).unwrap_or(0);
        let deadline = self.env.clock.monotonic() + Duration::from_millis(timeout_ms);
        tokio::select! {
            biased;
            committed = self.log.committed(partition, position) => committed.map_err(GroupError::from),
            () = self.env.clock.sleep_until(deadline) => Err(WriteError::TimedOut.into()),
        }
    }

    /// Runs the step and everything else that must happen under the shard's lock.
    fn start(self: &Arc<Self>, cell: &Arc<Cell>, input: Input) -> Result<Started, GroupError> {
        let mut state = cell.lock();
        let active = match &mut *state {
            CellState::Loading { .. } => return Err(GroupError::CoordinatorLoadInProgress),
            CellState::Failed => return Err(GroupError::NotCoordinator),
            CellState::Active(active) => active,
        };
        let keeps_soft_state =
            matches!(input, Input::CommitOffsets(_) | Input::DeleteOffsets(_) | Input::TopicsDeleted { .. });
        let id = RequestId(active.next_request);
        active.next_request += 1;
        let now = self.now();
        active.shard.set_room(self.config.max_bytes.saturating_sub(self.used_bytes.load(Ordering::Relaxed)));
        let step = active.shard.step(now, id, input);
        if let Some(message) = step.no_room
            && NO_ROOM.admit(self.env.clock.monotonic()).is_some()
        {
            tracing::warn!("{message}");
        }
        match self.write(cell.partition, active, now, &step.records) {
            Ok(()) => {}
            Err(WriteFailure { error, nothing_written: true }) if keeps_soft_state => return Err(error.into()),
            Err(WriteFailure { error, .. }) => {
                self.on_write_failed(cell, &mut state, error);
                return Err(error.into());
            }
        }
        active.account.set(active.shard.memory_bytes());
        let started = active.deliver(id, step.replies);
        self.publish_deadline(cell, active);
        Ok(started)
    }

    /// Appends the records in as few batches as the topic allows, and applies them.
    fn write(&self, partition: i32, active: &mut Active, now: Now, records: &[Record]) -> Result<(), WriteFailure> {
        if records.is_empty() {
            return Ok(());
        }
        let max_batch_bytes = self.log.max_batch_bytes(partition);
        let mut nothing_written = true;
        let mut pending = 0;
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for (position, record) in records.iter().enumerate() {
            let (key, value) = (record.key(), record.value());
            let size = key.len() + value.as_ref().map_or(0, Vec::len) + RECORD_OVERHEAD_BYTES;
            if builder.record_count() > 0 && builder.size_bytes() + size > max_batch_bytes {
                let full = std::mem::replace(&mut builder, BatchBuilder::new(BatchOptions::default()));
                self.append(partition, active, full, &records[pending..position], nothing_written)?;
                (pending, nothing_written) = (position, false);
            }
            builder.append(now.timestamp_ms, Some(&key), value.as_deref(), &[]);
        }
        self.append(partition, active, builder, &records[pending..], nothing_written)
    }

    fn append(
        &self,
        partition: i32,
        active: &mut Active,
        batch: BatchBuilder,
        records: &[Record],
        nothing_written: bool,
    ) -> Result<(), WriteFailure> {
        let appended =
            self.log.append(partition, batch.build()).map_err(|error| WriteFailure { error, nothing_written })?;
        if appended.first_offset != active.next_offset {
            tracing::error!(
                partition,
                expected = active.next_offset,
                actual = appended.first_offset,
                "another writer appended to a partition of __consumer_offsets; loading the partition again"
            );
            return Err(WriteFailure { error: WriteError::TimedOut, nothing_written: false });
        }
        for (offset, record) in (appended.first_offset..).zip(records) {
            active.shard.apply(offset, None, record);
        }
        (active.next_offset, active.leader_epoch) = (appended.last_offset + 1, appended.leader_epoch);
        Ok(())
    }

    /// Drops the shard, because it assumed that its records are written and its state is now wrong.
    fn on_write_failed(self: &Arc<Self>, cell: &Arc<Cell>, state: &mut CellState, error: WriteError) {
        if let Some(suppressed) = WRITE_FAILED.admit(self.env.clock.monotonic()) {
            let partition = cell.partition;
            tracing::error!(partition, %error, suppressed, "cannot write to __consumer_offsets; loading it again");
        }
        let load = self.env.random.next_u64();
        let next = match error {
            WriteError::NotLeader => CellState::Failed,
            _ => CellState::Loading { load, deleted_topics: Vec::new() },
        };
        if let CellState::Active(active) = std::mem::replace(state, next) {
            active.close(error.into());
        }
        cell.deadline_ms.store(NEVER, Ordering::SeqCst);
        if matches!(state, CellState::Loading { .. }) {
            self.spawn_load(cell, load);
        }
    }

    // ---- timers ----------------------------------------------------------------------------------------

    /// Sleeps until the earliest deadline of any shard; without one, until a request sets one.
    async fn run_timer(self: &Arc<Self>) {
        loop {
            // While this task computes the minimum, every new deadline wakes it, so that none is missed.
            self.armed_ms.store(NEVER, Ordering::SeqCst);
            let earliest_ms = self.earliest_deadline_ms();
            self.armed_ms.store(earliest_ms, Ordering::SeqCst);
            if earliest_ms == NEVER {
                self.wake_timer.notified().await;
                continue;
            }
            let at = Duration::from_millis(u64::try_from(earliest_ms).unwrap_or(0));
            let is_due = tokio::select! {
                biased;
                () = self.env.clock.sleep_until(at) => true,
                () = self.wake_timer.notified() => false,
            };
            if is_due {
                self.tick().await;
            }
        }
    }

    fn earliest_deadline_ms(&self) -> i64 {
        let cells = lock::read(&self.cells);
        cells.values().map(|cell| cell.deadline_ms.load(Ordering::SeqCst)).min().unwrap_or(NEVER)
    }

    /// Runs one step of each shard with a due timer. A shard with more due timers stays due.
    async fn tick(self: &Arc<Self>) {
        let now_ms = self.now().monotonic_ms;
        let due: Vec<Arc<Cell>> = lock::read(&self.cells)
            .values()
            .filter(|cell| cell.deadline_ms.load(Ordering::SeqCst) <= now_ms)
            .cloned()
            .collect();
        for cell in due {
            if let Err(error) = self.start(&cell, Input::Tick) {
                // The partition is loading or failed; a load will set the deadline again.
                tracing::debug!(partition = cell.partition, %error, "no timers to run");
                cell.deadline_ms.store(NEVER, Ordering::SeqCst);
            }
            self.env.tasks.yield_now().await;
        }
    }

    fn publish_deadline(&self, cell: &Cell, active: &Active) {
        let deadline_ms = active.shard.next_deadline_ms().unwrap_or(NEVER);
        cell.deadline_ms.store(deadline_ms, Ordering::SeqCst);
        if deadline_ms < self.armed_ms.load(Ordering::SeqCst) {
            self.wake_timer.notify_one();
        }
    }

    // ---- loading ---------------------------------------------------------------------------------------

    fn start_load(self: &Arc<Self>, cell: &Arc<Cell>, load: u64) {
        match self.log.bounds(cell.partition) {
            Some((start, end)) if start >= end => self.finish_load(cell, load, Ok((self.new_shard(cell), end))),
            _ => self.spawn_load(cell, load),
        }
    }

    fn new_shard(&self, cell: &Cell) -> Shard {
        // The batch also contains the key with the group id, which may have 32 KiB. Such long ids only occur in
        // tests of limits, so only 1 KiB is reserved for the key.
        let max_batch_bytes = self.log.max_batch_bytes(cell.partition);
        Shard::new(self.config.clone(), max_batch_bytes.saturating_sub(HEADER_BYTES + RECORD_OVERHEAD_BYTES + 1024))
    }

    fn finish_load(self: &Arc<Self>, cell: &Arc<Cell>, load: u64, loaded: Result<(Shard, Offset), LoadError>) {
        let mut state = cell.lock();
        let CellState::Loading { load: current, deleted_topics } = &mut *state else { return };
        if *current != load {
            return;
        }
        let deleted_topics = std::mem::take(deleted_topics);
        match loaded {
            Ok((shard, next_offset)) => {
                let mut account = ByteAccount::new(self.used_bytes.clone());
                account.set(shard.memory_bytes());
                let leader_epoch = self.log.leader_epoch(cell.partition);
                let active =
                    Active { shard, account, parked: BTreeMap::new(), next_request: 0, next_offset, leader_epoch };
                self.publish_deadline(cell, &active);
                *state = CellState::Active(Box::new(active));
            }
            Err(error) => {
                tracing::error!(partition = cell.partition, %error, "cannot load a partition of __consumer_offsets");
                *state = CellState::Failed;
            }
        }
        drop(state);
        cell.loaded.notify_waiters();
        if !deleted_topics.is_empty() {
            self.enqueue_deleted(deleted_topics);
        }
    }
}

impl Cell {
    fn lock(&self) -> MutexGuard<'_, CellState> {
        lock::lock(&self.state)
    }

    fn is_loading(&self, load: u64) -> bool {
        matches!(&*self.lock(), CellState::Loading { load: current, .. } if *current == load)
    }

    /// Closes the cell: all waiting requests get `error`, and later requests get NOT_COORDINATOR.
    fn close(&self, error: GroupError) {
        let state = std::mem::replace(&mut *self.lock(), CellState::Failed);
        self.deadline_ms.store(NEVER, Ordering::SeqCst);
        if let CellState::Active(active) = state {
            active.close(error);
        }
        self.loaded.notify_waiters();
    }
}

impl Active {
    /// Sends the step's replies to the waiting tasks, and returns the reply to `id` to the caller.
    fn deliver(&mut self, id: RequestId, replies: Vec<Reply>) -> Started {
        let last_written = Position { offset: self.next_offset - 1, leader_epoch: self.leader_epoch };
        let mut own = None;
        for reply in replies {
            let overtakes = planted!("A17") && matches!(reply.output, Output::Fetched(_));
            let commit = (reply.after_commit && last_written.offset >= 0 && !overtakes).then_some(last_written);
            let delivery = Delivery { output: reply.output, commit };
            if reply.request == id {
                own = Some(delivery);
            } else if let Some(waiting) = self.parked.remove(&reply.request) {
                // The send fails if the client is gone, and then the reply is dropped.
                let _ = waiting.send(Ok(delivery));
            }
        }
        match own {
            Some(delivery) => Started::Answered(delivery),
            None => {
                let (sender, receiver) = oneshot::channel();
                self.parked.insert(id, sender);
                Started::Parked(receiver)
            }
        }
    }

    fn close(self, error: GroupError) {
        for waiting in self.parked.into_values() {
            let _ = waiting.send(Err(error));
        }
    }
}

/// The reason why not all records were written to the log.
struct WriteFailure {
    error: WriteError,
    nothing_written: bool,
}

#[cfg(test)]
mod tests;
