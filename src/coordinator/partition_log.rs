//! The group coordinator's access to this broker's partitions of `__consumer_offsets`, and the listener that tells the
//! coordinator which of them this broker leads.

use std::{
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;

use super::runtime::{Appended, CoordinatorLog, GroupCoordinator, Position, WriteError};
use crate::{
    env::{BoxFuture, Env, LogLimit},
    log::{AppendError, AppendOrigin, LogError, ReadError, ReadPlan, ValidatedBatch, flush::with_log, is_shortage},
    metadata::{delta::MetadataDelta, image::MetadataImage, publisher::Subscriber},
    replica::{
        FetchIsolation, Partition, PartitionError, ReplicaManager, partition::FetchFrom,
        replica_manager::LeadershipListener,
    },
    types::{GROUP_METADATA_TOPIC, LeaderEpoch, Offset, TopicPartition},
};

static WRITE_FAILED: LogLimit = LogLimit::new();

/// The log of the group coordinator.
pub struct GroupMetadataLog {
    env: Env,
    replica_manager: Arc<ReplicaManager>,
}

impl GroupMetadataLog {
    /// A log over the partitions of `replica_manager`.
    pub fn new(env: Env, replica_manager: Arc<ReplicaManager>) -> Self {
        GroupMetadataLog { env, replica_manager }
    }

    fn partition(&self, index: i32) -> Option<Arc<Partition>> {
        self.replica_manager.partition(GROUP_METADATA_TOPIC, index)
    }

    /// Returns a plan to read from `from` on. It is `None` only for a diverging epoch, which cannot happen here.
    fn plan(&self, partition: i32, from: Offset, max_bytes: usize) -> io::Result<Option<ReadPlan>> {
        let partition = self.partition(partition);
        let partition = partition
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "this broker does not host the partition"))?;
        let from = FetchFrom { offset: from, current_leader_epoch: -1, last_fetched_epoch: -1 };
        let read = partition.read(&from, max_bytes, FetchIsolation::LogEnd, true);
        let read = read.map_err(|error| match error {
            PartitionError::Read(ReadError::Storage(error)) | PartitionError::Storage(error) => read_error(error),
            other => io::Error::other(other),
        })?;
        Ok(read.plan)
    }
}

/// Maps a log error to the error kinds of [`CoordinatorLog::read`].
fn read_error(error: LogError) -> io::Error {
    let kind = match &error {
        LogError::Corrupt { .. } => io::ErrorKind::InvalidData,
        error if error.is_shortage() => io::ErrorKind::ResourceBusy,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

fn read_bytes(plan: &ReadPlan) -> io::Result<Bytes> {
    plan.records()
        .map_err(read_error)?
        .into_bytes()
        .map_err(|error| if is_shortage(&error) { io::Error::new(io::ErrorKind::ResourceBusy, error) } else { error })
}

/// Whether `flush.messages` requires a flush before the record at `offset` is committed. By default it never does.
fn needs_flush(partition: &Partition, offset: Offset) -> bool {
    let flush_messages = partition.log_config().flush_messages;
    flush_messages != i64::MAX
        && with_log(partition, |log| {
            log.recovery_point() <= offset && log.log_end_offset() - log.recovery_point() >= flush_messages
        })
}

fn write_error(error: &PartitionError, now: Duration) -> WriteError {
    match error {
        PartitionError::NotLeader(_)
        | PartitionError::FencedLeaderEpoch { .. }
        | PartitionError::UnknownLeaderEpoch { .. } => WriteError::NotLeader,
        PartitionError::NotEnoughReplicas { .. }
        | PartitionError::NotEnoughReplicasAfterAppend(_)
        | PartitionError::OffsetNotAvailable(_) => WriteError::NotEnoughReplicas,
        PartitionError::Append(AppendError::LargerThanSegment { .. }) => WriteError::TooLarge,
        PartitionError::Append(_) | PartitionError::Read(_) | PartitionError::Storage(_) => {
            if let Some(suppressed) = WRITE_FAILED.admit(now) {
                tracing::error!(%error, suppressed, "cannot write to {GROUP_METADATA_TOPIC}");
            }
            WriteError::Storage
        }
    }
}

impl CoordinatorLog for GroupMetadataLog {
    fn append(&self, partition: i32, batch: Bytes) -> Result<Appended, WriteError> {
        let partition = self.partition(partition).ok_or(WriteError::NotLeader)?;
        if batch.len() > partition.log_config().max_message_bytes.max(0) as usize {
            return Err(WriteError::TooLarge);
        }
        let batch = ValidatedBatch::from_broker(batch, AppendOrigin::Coordinator);
        let appended = partition
            .append_as_leader(batch, true, self.env.clock.now_ms())
            .map_err(|error| write_error(&error, self.env.clock.monotonic()))?;
        let (first_offset, last_offset) = (appended.info.first_offset, appended.info.last_offset);
        Ok(Appended { first_offset, last_offset, leader_epoch: appended.leader_epoch })
    }

    fn confirm_leadership(&self, partition: i32) -> BoxFuture<'static, Result<(), WriteError>> {
        let partition = self.partition(partition);
        Box::pin(async move {
            let partition = partition.ok_or(WriteError::NotLeader)?;
            partition.confirm_leadership().await.map_err(|_| WriteError::NotLeader)
        })
    }

    fn leader_epoch(&self, partition: i32) -> LeaderEpoch {
        self.partition(partition).and_then(|partition| partition.led_in()).unwrap_or(-1)
    }

    fn is_committed(&self, partition: i32, position: Position) -> bool {
        let Position { offset, leader_epoch } = position;
        self.partition(partition).is_some_and(|partition| {
            partition.is_committed(offset, leader_epoch).unwrap_or(false) && !needs_flush(&partition, offset)
        })
    }

    fn committed(&self, partition: i32, position: Position) -> BoxFuture<'static, Result<(), WriteError>> {
        let Position { offset, leader_epoch } = position;
        let (partition, tasks) = (self.partition(partition), self.env.tasks.clone());
        let clock = self.env.clock.clone();
        Box::pin(async move {
            let partition = partition.ok_or(WriteError::NotLeader)?;
            if needs_flush(&partition, offset) {
                partition.flushed(offset + 1, &tasks).await.map_err(|error| {
                    if let Some(suppressed) = WRITE_FAILED.admit(clock.monotonic()) {
                        tracing::error!(%error, suppressed, "cannot flush {GROUP_METADATA_TOPIC}");
                    }
                    WriteError::Storage
                })?;
            }
            partition.committed(offset, leader_epoch).await.map_err(|_| WriteError::NotLeader)
        })
    }

    fn bounds(&self, partition: i32) -> Option<(Offset, Offset)> {
        let watermarks = self.partition(partition)?.watermarks();
        Some((watermarks.log_start_offset, watermarks.log_end_offset))
    }

    fn read(&self, partition: i32, from: Offset, max_bytes: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        let plan = self.plan(partition, from, max_bytes);
        Box::pin(async move {
            let Some(plan) = plan? else { return Ok(Bytes::new()) };
            self.env.tasks.blocking("read for the coordinator", move || read_bytes(&plan)).await
        })
    }

    fn next_readable(&self, partition: i32, from: Offset) -> BoxFuture<'_, io::Result<Offset>> {
        let plan = self.plan(partition, from, 1);
        Box::pin(async move {
            let Some(plan) = plan? else { return Ok(from) };
            let search = move || plan.next_readable().map_err(read_error);
            self.env.tasks.blocking("search for the coordinator", search).await
        })
    }

    fn max_batch_bytes(&self, partition: i32) -> usize {
        let partition = self.partition(partition);
        partition.map_or(usize::MAX, |partition| partition.log_config().max_message_bytes.max(0) as usize)
    }
}

/// Tells the coordinator about changes of leadership and about deleted topics.
pub struct CoordinatorListener {
    coordinator: Arc<GroupCoordinator>,
}

impl CoordinatorListener {
    /// The replica manager holds only a weak reference, so the caller must keep this value while the broker runs.
    pub fn new(coordinator: Arc<GroupCoordinator>) -> Arc<Self> {
        Arc::new(CoordinatorListener { coordinator })
    }

    /// The weak reference that the replica manager needs.
    pub fn listener(self: &Arc<Self>) -> Weak<dyn LeadershipListener> {
        let listener: Arc<dyn LeadershipListener> = self.clone();
        Arc::downgrade(&listener)
    }
}

impl LeadershipListener for CoordinatorListener {
    fn on_become_leader(&self, partition: &TopicPartition) {
        if &*partition.topic == GROUP_METADATA_TOPIC {
            self.coordinator.load(partition.partition);
        }
    }

    fn on_resign(&self, partition: &TopicPartition) {
        if &*partition.topic == GROUP_METADATA_TOPIC {
            self.coordinator.unload(partition.partition);
        }
    }
}

impl Subscriber for CoordinatorListener {
    fn on_delta(&self, image: &Arc<MetadataImage>, delta: &MetadataDelta) {
        if let Some(topic) = image.topic(GROUP_METADATA_TOPIC) {
            self.coordinator.set_partition_count(topic.partitions.len() as i32);
        }
        self.coordinator
            .on_topics_deleted(delta.deleted_topics.values().map(|topic| (topic.name.clone(), topic.id)).collect());
    }
}
