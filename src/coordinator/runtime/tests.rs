//! Tests of the runtime with an in-memory log that can hold back commits and fail, and a manual clock.
#![allow(clippy::disallowed_methods)] // Tests start tasks of their own.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use bytes::BytesMut;
use tokio::sync::watch;

use super::*;
use crate::{
    coordinator::group::{
        CommitPartition, CommitTopic, FetchOffsetsTopic, GroupState, LeavingMember, MemberProtocol, records::Decoded,
    },
    env::{Clock, Disk, SystemDisk, SystemNet, SystemRandom, Tasks},
    protocol::{
        compression::compress,
        record_batch::{BatchView, Compression, RecordIter},
    },
};

const PARTITION: i32 = 0;

#[derive(Default)]
struct MemoryLog {
    batches: Mutex<Vec<Bytes>>,
    /// Offsets below this one are committed; `None` commits every offset at once.
    committed_below: Mutex<Option<watch::Sender<Offset>>>,
    fail_with: Mutex<Option<WriteError>>,
    hold_reads: AtomicBool,
    reads_released: Notify,
    appended_batches: AtomicUsize,
}

impl MemoryLog {
    fn end(&self) -> Offset {
        self.end_of(&self.batches.lock().unwrap())
    }

    fn end_of(&self, batches: &[Bytes]) -> Offset {
        batches.last().map_or(0, |bytes| BatchView::parse(bytes).unwrap().next_offset())
    }

    /// Appends a batch, of which only the base offset is changed.
    fn push(&self, batch: &[u8]) {
        let mut bytes = batch.to_vec();
        bytes[..8].copy_from_slice(&self.end().to_be_bytes());
        self.batches.lock().unwrap().push(bytes.into());
    }

    fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for bytes in self.batches.lock().unwrap().iter() {
            let batch = BatchView::parse(bytes).unwrap();
            assert!(batch.crc_is_valid());
            for record in RecordIter::new(batch.records_bytes(), batch.record_count()) {
                let record = record.unwrap();
                match Record::decode(record.key, record.value).unwrap() {
                    Decoded::Record(record) => records.push(record),
                    Decoded::Unknown { record_type } => panic!("unknown record type {record_type}"),
                }
            }
        }
        records
    }
}

impl CoordinatorLog for MemoryLog {
    fn append(&self, _: i32, batch: Bytes) -> Result<Appended, WriteError> {
        if let Some(error) = *self.fail_with.lock().unwrap() {
            return Err(error);
        }
        assert!(batch.len() <= self.max_batch_bytes(PARTITION), "a batch of {} bytes", batch.len());
        let first_offset = self.end();
        self.push(&batch);
        self.appended_batches.fetch_add(1, Ordering::SeqCst);
        Ok(Appended { first_offset, last_offset: self.end() - 1, leader_epoch: 0 })
    }

    fn confirm_leadership(&self, _: i32) -> BoxFuture<'static, Result<(), WriteError>> {
        Box::pin(async { Ok(()) })
    }

    fn leader_epoch(&self, _: i32) -> LeaderEpoch {
        0
    }

    fn is_committed(&self, _: i32, Position { offset, .. }: Position) -> bool {
        self.committed_below.lock().unwrap().as_ref().is_none_or(|below| offset < *below.borrow())
    }

    fn committed(&self, _: i32, Position { offset, .. }: Position) -> BoxFuture<'static, Result<(), WriteError>> {
        let below = self.committed_below.lock().unwrap().as_ref().map(watch::Sender::subscribe);
        Box::pin(async move {
            if let Some(mut below) = below {
                below.wait_for(|below| offset < *below).await.map_err(|_| WriteError::NotLeader)?;
            }
            Ok(())
        })
    }

    fn bounds(&self, _: i32) -> Option<(Offset, Offset)> {
        Some((0, self.end()))
    }

    fn read(&self, _: i32, from: Offset, max_bytes: usize) -> BoxFuture<'_, std::io::Result<Bytes>> {
        Box::pin(async move {
            while self.hold_reads.load(Ordering::SeqCst) {
                self.reads_released.notified().await;
            }
            let mut bytes = BytesMut::new();
            for batch in self.batches.lock().unwrap().iter() {
                if BatchView::parse(batch).unwrap().last_offset() >= from && bytes.len() < max_bytes {
                    bytes.extend_from_slice(batch);
                }
            }
            Ok(bytes.freeze())
        })
    }

    fn next_readable(&self, _: i32, from: Offset) -> BoxFuture<'_, std::io::Result<Offset>> {
        let batches = self.batches.lock().unwrap();
        let mut good = batches.iter().map(|bytes| BatchView::parse(bytes).unwrap()).filter(BatchView::crc_is_valid);
        let found = good
            .find(|batch| batch.last_offset() >= from)
            .map_or_else(|| self.end_of(&batches), |batch| batch.base_offset());
        Box::pin(async move { Ok(found) })
    }

    fn max_batch_bytes(&self, _: i32) -> usize {
        10_000
    }
}

struct ManualClock {
    now: watch::Sender<Duration>,
    sleepers: Arc<AtomicUsize>,
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000 + self.now.borrow().as_millis() as i64
    }

    fn monotonic(&self) -> Duration {
        *self.now.borrow()
    }

    fn sleep_until(&self, at: Duration) -> BoxFuture<'static, ()> {
        let (mut now, sleepers) = (self.now.subscribe(), self.sleepers.clone());
        Box::pin(async move {
            sleepers.fetch_add(1, Ordering::SeqCst);
            let _ = now.wait_for(|now| *now >= at).await;
            sleepers.fetch_sub(1, Ordering::SeqCst);
        })
    }
}

struct World {
    coordinator: Arc<GroupCoordinator>,
    log: Arc<MemoryLog>,
    clock: Arc<ManualClock>,
}

impl World {
    fn new() -> World {
        World::over(MemoryLog::default())
    }

    fn over(log: MemoryLog) -> World {
        World::with(GroupConfig { offsets_load_buffer_size: 200, ..GroupConfig::default() }, log)
    }

    fn with(config: GroupConfig, log: MemoryLog) -> World {
        let log = Arc::new(log);
        let clock = Arc::new(ManualClock { now: watch::Sender::new(Duration::ZERO), sleepers: Arc::default() });
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        let env = Env {
            clock: clock.clone(),
            disk,
            net: Arc::new(SystemNet),
            random: Arc::new(SystemRandom::seeded(1)),
            tasks: Tasks::new(),
        };
        let coordinator = Arc::new(GroupCoordinator::new(config, env, log.clone()));
        coordinator.set_partition_count(1);
        World { coordinator, log, clock }
    }

    async fn loaded() -> World {
        let world = World::new();
        world.load().await;
        world
    }

    async fn load(&self) {
        self.coordinator.load(PARTITION);
        self.coordinator.loaded(PARTITION).await;
    }

    fn advance(&self, by: Duration) {
        self.clock.now.send_modify(|now| *now += by);
    }

    fn hold_commits(&self) {
        *self.log.committed_below.lock().unwrap() = Some(watch::Sender::new(self.log.end()));
    }

    fn commit_all(&self) {
        self.commit_below(Offset::MAX);
    }

    fn commit_below(&self, offset: Offset) {
        let below = self.log.committed_below.lock().unwrap();
        below.as_ref().unwrap().send_replace(offset);
    }

    /// Lets all tasks run that can.
    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
        tokio::spawn(future)
    }

    fn join(&self, group_id: &str) -> tokio::task::JoinHandle<Result<Joined, JoinError>> {
        let (coordinator, request) = (self.coordinator.clone(), join_request(group_id));
        self.spawn(async move { coordinator.join(request).await })
    }

    /// Makes a Stable group with one member in generation 1.
    async fn stable_group(&self, group_id: &str) -> Joined {
        let joining = self.join(group_id);
        self.settle().await;
        self.advance(Duration::from_secs(3));
        let joined = joining.await.unwrap().unwrap();
        self.coordinator.sync(sync_request(group_id, &joined)).await.unwrap();
        joined
    }

    async fn committed_offset(&self, group_id: &str) -> i64 {
        let topics = vec![FetchOffsetsTopic { name: "t".into(), topic_id: TopicId::ZERO, partitions: vec![0] }];
        let fetched = self.coordinator.fetch_offsets(fetch_request(group_id, topics)).await.unwrap();
        fetched[0].partitions[0].committed_offset
    }
}

fn join_request(group_id: &str) -> JoinRequest {
    JoinRequest {
        group_id: group_id.into(),
        member_id: "".into(),
        group_instance_id: None,
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![MemberProtocol { name: "range".into(), metadata: Bytes::from_static(&[0, 0, 0, 0, 0, 0]) }],
        requires_known_member_id: false,
        supports_skip_assignment: false,
        reason: None,
    }
}

fn sync_request(group_id: &str, joined: &Joined) -> SyncRequest {
    SyncRequest {
        group_id: group_id.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: None,
        protocol_type: None,
        protocol_name: None,
        assignments: BTreeMap::from([(joined.member_id.clone(), Bytes::from_static(b"all"))]),
    }
}

fn heartbeat_request(group_id: &str, joined: &Joined) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: group_id.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: None,
    }
}

fn commit_request(group_id: &str, partitions: impl Iterator<Item = i32>, offset: i64) -> CommitOffsetsRequest {
    let commit = |partition| CommitPartition {
        partition,
        committed_offset: offset,
        committed_leader_epoch: -1,
        committed_metadata: "".into(),
    };
    CommitOffsetsRequest {
        group_id: group_id.into(),
        generation_id_or_member_epoch: -1,
        member_id: "".into(),
        group_instance_id: None,
        retention_time_ms: None,
        api_version: 9,
        topics: vec![CommitTopic {
            name: "t".into(),
            topic_id: TopicId(uuid::Uuid::from_u128(1)),
            partitions: partitions.map(commit).collect(),
        }],
    }
}

fn fetch_request(group_id: &str, topics: Vec<FetchOffsetsTopic>) -> FetchOffsetsRequest {
    FetchOffsetsRequest { group_id: group_id.into(), member_id: None, member_epoch: -1, require_stable: false, topics }
}

#[tokio::test]
async fn m7_groups_are_placed_as_apache_places_them() {
    let world = World::new();
    world.coordinator.set_partition_count(50);
    // Utils.abs("…".hashCode()) % 50 in Java; the hash of the third id is Integer.MIN_VALUE.
    for (group_id, partition) in [("", 0), ("my-group", 12), ("polygenelubricants", 0), ("größe", 7)] {
        assert_eq!(world.coordinator.partition_for(group_id), partition, "{group_id}");
    }
}

#[tokio::test]
async fn g3_a_join_waits_for_the_clock_and_an_idle_coordinator_for_nothing() {
    let world = World::loaded().await;
    world.settle().await;
    assert_eq!(world.clock.sleepers.load(Ordering::SeqCst), 0, "the timer must not sleep while there is no group");
    let joining = world.join("g");
    world.settle().await;
    assert!(!joining.is_finished());
    world.advance(Duration::from_millis(2999));
    world.settle().await;
    assert!(!joining.is_finished());
    world.advance(Duration::from_millis(1));
    assert_eq!(joining.await.unwrap().unwrap().generation_id, 1);
    world.settle().await;
    assert_eq!(world.clock.sleepers.load(Ordering::SeqCst), 1, "only one task must sleep for all timers");
}

#[tokio::test]
async fn g6_nobody_is_answered_before_the_assignment_is_committed() {
    let world = World::loaded().await;
    let joining = world.join("g");
    world.settle().await;
    world.advance(Duration::from_secs(3));
    let joined = joining.await.unwrap().unwrap();
    world.hold_commits();
    let (coordinator, request) = (world.coordinator.clone(), sync_request("g", &joined));
    let again = request.clone();
    let syncing = world.spawn(async move { coordinator.sync(request).await });
    world.settle().await;
    let coordinator = world.coordinator.clone();
    let syncing_again = world.spawn(async move { coordinator.sync(again).await });
    world.settle().await;
    assert!(!syncing.is_finished() && !syncing_again.is_finished());
    world.coordinator.heartbeat(heartbeat_request("g", &joined)).await.unwrap();
    world.commit_all();
    assert_eq!(&syncing.await.unwrap().unwrap().assignment[..], b"all");
    assert_eq!(&syncing_again.await.unwrap().unwrap().assignment[..], b"all");
}

/// KAFKA-16374. A request sees what was written before it, so its answer waits for the commit of all of that, and of
/// nothing that was written after it.
#[tokio::test]
async fn inv_g3_an_answer_overtakes_no_record_that_was_written_before_it() {
    let world = World::loaded().await;
    world.hold_commits();
    let commit = |offset| {
        let coordinator = world.coordinator.clone();
        world.spawn(async move { coordinator.commit_offsets(commit_request("g", 0..1, offset)).await })
    };
    let fetch = || {
        let coordinator = world.coordinator.clone();
        let topics = vec![FetchOffsetsTopic { name: "t".into(), topic_id: TopicId::ZERO, partitions: vec![0] }];
        world.spawn(async move {
            coordinator.fetch_offsets(fetch_request("g", topics)).await.unwrap()[0].partitions[0].committed_offset
        })
    };
    let first = commit(5);
    world.settle().await;
    let end_of_first = world.log.end();
    let between = fetch();
    world.settle().await;
    let second = commit(6);
    world.settle().await;
    let last = fetch();
    world.settle().await;
    assert!(!first.is_finished() && !between.is_finished() && !second.is_finished() && !last.is_finished());
    world.commit_below(end_of_first);
    world.settle().await;
    assert!(first.is_finished() && between.is_finished() && !second.is_finished() && !last.is_finished());
    world.commit_all();
    assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
    assert_eq!((between.await.unwrap(), last.await.unwrap()), (5, 6));
}

#[tokio::test]
async fn g10_a_commit_that_is_not_replicated_in_time_is_unavailable_and_may_still_happen() {
    let world = World::loaded().await;
    world.hold_commits();
    let coordinator = world.coordinator.clone();
    let committing = world.spawn(async move { coordinator.commit_offsets(commit_request("g", 0..1, 5)).await });
    world.settle().await;
    world.advance(Duration::from_millis(5000));
    assert_eq!(committing.await.unwrap(), Err(GroupError::CoordinatorNotAvailable));
    world.commit_all();
    assert_eq!(world.committed_offset("g").await, 5);
}

#[tokio::test]
async fn g10_requests_while_loading_and_after_unloading() {
    let log = MemoryLog::default();
    log.push(&commit_batch("g", 5));
    log.hold_reads.store(true, Ordering::SeqCst);
    let world = World::over(log);
    let joined = Joined {
        generation_id: 1,
        protocol_type: None,
        protocol_name: None,
        leader: "m".into(),
        skip_assignment: false,
        member_id: "m".into(),
        members: Vec::new(),
    };
    let not_here = world.coordinator.sync(sync_request("g", &joined)).await;
    assert_eq!(not_here, Err(GroupError::NotCoordinator));
    assert_eq!(world.coordinator.list(GroupFilter::default()).await.unwrap(), []);

    world.coordinator.load(PARTITION);
    let loading = GroupError::CoordinatorLoadInProgress;
    assert_eq!(world.coordinator.join(join_request("g")).await.unwrap_err().error, loading);
    assert_eq!(world.coordinator.sync(sync_request("g", &joined)).await, Err(loading));
    assert_eq!(world.coordinator.heartbeat(heartbeat_request("g", &joined)).await, Ok(()));
    assert_eq!(world.coordinator.fetch_all_offsets(&"g".into(), false).await, Err(loading));
    assert_eq!(world.coordinator.commit_offsets(commit_request("g", 0..1, 1)).await, Err(loading));
    assert_eq!(world.coordinator.list(GroupFilter::default()).await, Err(loading));
    assert_eq!(world.coordinator.describe(vec!["g".into()]).await, [Err(loading)]);
    assert_eq!(world.coordinator.delete(vec!["g".into()]).await, [("g".into(), Some(loading))]);

    world.log.hold_reads.store(false, Ordering::SeqCst);
    world.log.reads_released.notify_waiters();
    world.coordinator.loaded(PARTITION).await;
    assert_eq!(world.committed_offset("g").await, 5);

    let joining = world.join("h");
    world.settle().await;
    world.coordinator.unload(PARTITION);
    assert_eq!(joining.await.unwrap().unwrap_err().error, GroupError::NotCoordinator);
    assert_eq!(world.coordinator.join(join_request("h")).await.unwrap_err().error, GroupError::NotCoordinator);
}

#[tokio::test]
async fn g10_after_a_failed_append_the_shard_is_what_the_log_says() {
    let world = World::loaded().await;
    let joined = world.stable_group("g").await;
    world.coordinator.commit_offsets(commit_request("other", 0..1, 7)).await.unwrap();
    let parked = world.join("parked");
    world.settle().await;
    *world.log.fail_with.lock().unwrap() = Some(WriteError::NotEnoughReplicas);

    // A failed offset commit changes no volatile state, so it affects no other request.
    let refused = world.coordinator.commit_offsets(commit_request("other", 0..1, 8)).await;
    assert_eq!(refused, Err(GroupError::CoordinatorNotAvailable));
    world.settle().await;
    assert!(!parked.is_finished());
    assert_eq!(world.committed_offset("other").await, 7);

    // LeaveGroup of the last member cannot be written: the group's state is as before, and waiting requests fail.
    let member = LeavingMember { member_id: joined.member_id.clone(), group_instance_id: None, reason: None };
    let leaving = LeaveRequest { group_id: "g".into(), members: vec![member] };
    assert_eq!(world.coordinator.leave(leaving.clone()).await, Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(parked.await.unwrap().unwrap_err().error, GroupError::CoordinatorNotAvailable);
    world.coordinator.loaded(PARTITION).await;
    *world.log.fail_with.lock().unwrap() = None;
    world.coordinator.heartbeat(heartbeat_request("g", &joined)).await.unwrap();
    assert_eq!(world.coordinator.leave(leaving).await.unwrap()[0].error, None);
    assert_eq!(world.coordinator.describe(vec!["g".into()]).await[0].as_ref().unwrap().state, GroupState::Empty);

    // After NotLeader the partition is not loaded again; the metadata will name the new leader.
    *world.log.fail_with.lock().unwrap() = Some(WriteError::NotLeader);
    assert_eq!(world.coordinator.join(join_request("new")).await.unwrap_err().error, GroupError::NotCoordinator);
    *world.log.fail_with.lock().unwrap() = None;
    assert_eq!(world.coordinator.join(join_request("new")).await.unwrap_err().error, GroupError::NotCoordinator);
}

#[tokio::test]
async fn g10_groups_and_offsets_are_there_after_a_restart() {
    let world = World::loaded().await;
    let joined = world.stable_group("g").await;
    for offset in 0..200 {
        world.coordinator.commit_offsets(commit_request("offsets", 0..1, offset)).await.unwrap();
    }
    world.coordinator.unload(PARTITION);
    world.load().await;
    assert_eq!(world.committed_offset("offsets").await, 199);
    world.coordinator.heartbeat(heartbeat_request("g", &joined)).await.unwrap();
    // Sessions continue after the load: without heartbeats the member is removed.
    world.advance(Duration::from_secs(10));
    world.settle().await;
    let gone = world.coordinator.heartbeat(heartbeat_request("g", &joined)).await;
    assert_eq!(gone, Err(GroupError::UnknownMemberId));
}

#[tokio::test]
async fn g10_another_writer_is_noticed() {
    let world = World::loaded().await;
    world.coordinator.commit_offsets(commit_request("g", 0..1, 1)).await.unwrap();
    world.log.push(&commit_batch("g", 99));
    assert!(world.coordinator.commit_offsets(commit_request("h", 0..1, 2)).await.is_err());
    world.coordinator.loaded(PARTITION).await;
    assert_eq!((world.committed_offset("g").await, world.committed_offset("h").await), (99, 2));
}

#[tokio::test]
async fn o2_a_large_commit_is_written_in_batches_that_the_topic_takes() {
    let world = World::loaded().await;
    world.coordinator.commit_offsets(commit_request("g", 0..1000, 3)).await.unwrap();
    assert!(world.log.appended_batches.load(Ordering::SeqCst) > 5);
    assert_eq!(world.log.records().len(), 1000);
    let fetched = world.coordinator.fetch_all_offsets(&"g".into(), false).await.unwrap();
    assert_eq!(fetched[0].partitions.len(), 1000);
    // The tombstones are written in several batches, too.
    assert_eq!(world.coordinator.delete(vec!["g".into()]).await, [("g".into(), None)]);
    assert_eq!(world.coordinator.fetch_all_offsets(&"g".into(), false).await.unwrap(), []);
}

#[tokio::test]
async fn o7_offsets_of_deleted_topics_go_even_while_loading() {
    let topic = || vec![("t".into(), TopicId::ZERO)];
    let world = World::loaded().await;
    world.coordinator.commit_offsets(commit_request("g", 0..1, 5)).await.unwrap();
    world.coordinator.on_topics_deleted(vec![("t".into(), TopicId(uuid::Uuid::from_u128(2)))]);
    world.settle().await;
    assert_eq!(world.committed_offset("g").await, 5, "the offset of another topic with the same name must stay");
    world.coordinator.on_topics_deleted(vec![("t".into(), TopicId(uuid::Uuid::from_u128(1)))]);
    world.settle().await;
    assert_eq!(world.committed_offset("g").await, -1);

    world.coordinator.unload(PARTITION);
    world.log.push(&commit_batch("g", 6));
    world.log.hold_reads.store(true, Ordering::SeqCst);
    world.coordinator.load(PARTITION);
    world.coordinator.on_topics_deleted(topic());
    world.log.hold_reads.store(false, Ordering::SeqCst);
    world.log.reads_released.notify_waiters();
    world.coordinator.loaded(PARTITION).await;
    world.settle().await;
    assert_eq!(world.committed_offset("g").await, -1);
}

#[tokio::test]
async fn requests_about_many_things_are_done_in_steps_and_answered_whole() {
    let world = World::loaded().await;
    world.coordinator.commit_offsets(commit_request("g", 0..2_600, 3)).await.unwrap();
    let all = world.coordinator.fetch_all_offsets(&"g".into(), false).await.unwrap();
    assert_eq!(all.iter().map(|topic| topic.partitions.len()).collect::<Vec<_>>(), [2_600]);
    let topics =
        vec![FetchOffsetsTopic { name: "t".into(), topic_id: TopicId::ZERO, partitions: (0..2_601).collect() }];
    let fetched = world.coordinator.fetch_offsets(fetch_request("g", topics)).await.unwrap();
    let offsets = fetched[0].partitions.iter().map(|offset| offset.committed_offset);
    assert_eq!(offsets.collect::<Vec<_>>(), [vec![3; 2_600], vec![-1]].concat());
    let leaving = (0..1_200).map(|number| LeavingMember {
        member_id: format!("m{number}").into(),
        group_instance_id: None,
        reason: None,
    });
    let leave = LeaveRequest { group_id: "g".into(), members: leaving.collect() };
    let left = world.coordinator.leave(leave).await.unwrap();
    assert_eq!((left.len(), &*left[1_199].member_id), (1_200, "m1199"));
    for number in 0..1_200 {
        world.coordinator.commit_offsets(commit_request(&format!("small{number}"), 0..1, 3)).await.unwrap();
    }
    assert_eq!(world.coordinator.list(GroupFilter::default()).await.unwrap().len(), 1_201);
    assert_eq!(world.coordinator.describe(vec!["g".into(); 20]).await.len(), 20);
    let topics = vec![("t".into(), (0..2_600).collect())];
    let delete = DeleteOffsetsRequest { group_id: "g".into(), topics };
    assert_eq!(world.coordinator.delete_offsets(delete).await.unwrap()[0].partitions.len(), 2_600);
    assert_eq!(world.coordinator.fetch_all_offsets(&"g".into(), false).await.unwrap(), []);
}

#[tokio::test]
async fn all_shards_share_one_budget_and_give_back_what_they_took() {
    let config = GroupConfig { max_bytes: 1 << 20, ..GroupConfig::default() };
    let world = World::with(config, MemoryLog::default());
    world.load().await;
    let refused = loop {
        let number = world.log.appended_batches.load(Ordering::SeqCst);
        assert!(number < 10_000, "the budget must be used up");
        if let Err(error) = world.coordinator.commit_offsets(commit_request(&format!("g{number}"), 0..1, 3)).await {
            break error;
        }
    };
    assert_eq!(refused, GroupError::GroupMaxSizeReached);
    let used = || world.coordinator.inner.used_bytes.load(Ordering::Relaxed);
    assert!((1 << 19..=1 << 20).contains(&used()), "{}", used());
    world.coordinator.commit_offsets(commit_request("g0", 0..1, 4)).await.unwrap();
    world.coordinator.unload(PARTITION);
    assert_eq!(used(), 0);
}

fn commit_record(group_id: &str, offset: i64) -> Record {
    Record::OffsetCommit {
        group_id: group_id.into(),
        topic: "t".into(),
        partition: 0,
        value: Some(crate::coordinator::group::records::OffsetCommitValue {
            offset,
            leader_epoch: -1,
            metadata: "".into(),
            commit_timestamp_ms: 1,
            expire_timestamp_ms: None,
            topic_id: TopicId::ZERO,
        }),
    }
}

fn batch_of(options: BatchOptions, records: &[(Vec<u8>, Option<Vec<u8>>)]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for (key, value) in records {
        builder.append(1, Some(key), value.as_deref(), &[]);
    }
    builder.build()
}

fn commit_batch(group_id: &str, offset: i64) -> Bytes {
    let record = commit_record(group_id, offset);
    batch_of(BatchOptions::default(), &[(record.key(), record.value())])
}

/// The same batch with its records compressed.
fn compressed(codec: Compression, batch: &Bytes) -> Bytes {
    let records = compress(codec, None, &batch[HEADER_BYTES..]).unwrap();
    let mut bytes = batch[..HEADER_BYTES].to_vec();
    bytes.extend_from_slice(&records);
    let length = (bytes.len() - 12) as i32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[22] |= codec.id() as u8;
    let crc = crate::protocol::record_batch::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

#[tokio::test]
async fn o4_logs_of_apache_kafka_are_loaded_with_transactions_compression_and_unknown_records() {
    let log = MemoryLog::default();
    let transactional = |producer_id| BatchOptions {
        transactional: true,
        producer_id,
        producer_epoch: 0,
        base_sequence: 0,
        ..BatchOptions::default()
    };
    let marker = |producer_id, kind: u8| {
        let options = BatchOptions { control: true, ..transactional(producer_id) };
        batch_of(options, &[(vec![0, 0, 0, kind], Some(vec![0, 0, 0, 0, 0, 0]))])
    };
    let pending = |producer_id, group_id, offset| {
        let record = commit_record(group_id, offset);
        batch_of(transactional(producer_id), &[(record.key(), record.value())])
    };
    log.push(&compressed(Compression::Gzip, &commit_batch("gzip", 1)));
    log.push(&pending(7, "committed", 2));
    log.push(&pending(8, "aborted", 3));
    log.push(&pending(9, "open", 4));
    log.push(&pending(7, "superseded", 5));
    log.push(&commit_batch("superseded", 6));
    log.push(&marker(7, 1));
    log.push(&marker(8, 0));
    // A record of a KIP-848 group, and one that cannot be decoded.
    log.push(&batch_of(BatchOptions::default(), &[(vec![0, 3, 0, 1, b'g'], Some(vec![0, 0, 0, 0, 0, 1, 0]))]));
    log.push(&batch_of(BatchOptions::default(), &[(vec![0, 1, 0, 99], None)]));
    let world = World::over(log);
    world.load().await;
    for (group_id, offset) in [("gzip", 1), ("committed", 2), ("aborted", -1), ("open", -1), ("superseded", 6)] {
        assert_eq!(world.committed_offset(group_id).await, offset, "{group_id}");
    }
    let topics = || vec![FetchOffsetsTopic { name: "t".into(), topic_id: TopicId::ZERO, partitions: vec![0] }];
    let stable = FetchOffsetsRequest { require_stable: true, ..fetch_request("open", topics()) };
    let fetched = world.coordinator.fetch_offsets(stable).await.unwrap();
    assert_eq!(fetched[0].partitions[0].error, Some(GroupError::UnstableOffsetCommit));
}

#[tokio::test]
async fn g10_a_corrupt_log_is_not_served() {
    let log = MemoryLog::default();
    let mut batch = commit_batch("g", 5).to_vec();
    *batch.last_mut().unwrap() ^= 1;
    log.push(&batch);
    let world = World::over(log);
    world.load().await;
    let refused = world.coordinator.commit_offsets(commit_request("g", 0..1, 1)).await;
    assert_eq!(refused, Err(GroupError::NotCoordinator));
}

#[tokio::test]
async fn g10_what_is_damaged_is_passed_over_only_if_its_loss_is_accepted() {
    let log = || {
        let log = MemoryLog::default();
        log.push(&commit_batch("before", 1));
        for group_id in ["lost", "superseded"] {
            let mut batch = commit_batch(group_id, 2).to_vec();
            *batch.last_mut().unwrap() ^= 1;
            log.push(&batch);
        }
        log.push(&commit_batch("superseded", 3));
        // The checksum is correct, but the records are not valid gzip.
        let mut garbage = compressed(Compression::Gzip, &commit_batch("lost", 4)).to_vec();
        garbage[HEADER_BYTES] ^= 0xff;
        let crc = crate::protocol::record_batch::crc32c(&garbage[21..]);
        garbage[17..21].copy_from_slice(&crc.to_be_bytes());
        log.push(&garbage);
        log.push(&commit_batch("behind", 5));
        log
    };
    let load = async |accepted: &[(i32, Option<Offset>)]| {
        let accepted_loss = accepted.iter().copied().collect();
        let config = GroupConfig { offsets_load_buffer_size: 200, accepted_loss, ..GroupConfig::default() };
        let world = World::with(config, log());
        world.load().await;
        world
    };
    // The two batches with a wrong checksum count as one damage, because there is no valid batch between them.
    for accepted in [&[][..], &[(0, Some(1))], &[(0, Some(4))], &[(1, None)], &[(1, Some(1)), (1, Some(4))]] {
        let world = load(accepted).await;
        let refused = world.coordinator.commit_offsets(commit_request("before", 0..1, 1)).await;
        assert_eq!(refused, Err(GroupError::NotCoordinator), "{accepted:?}");
    }
    for accepted in [&[(0, None)][..], &[(0, Some(1)), (0, Some(4))]] {
        let world = load(accepted).await;
        for (group_id, offset) in [("before", 1), ("lost", -1), ("superseded", 3), ("behind", 5)] {
            assert_eq!(world.committed_offset(group_id).await, offset, "{group_id}");
        }
        world.coordinator.commit_offsets(commit_request("before", 0..1, 6)).await.unwrap();
    }
}
