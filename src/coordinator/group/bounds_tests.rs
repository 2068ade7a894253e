//! Tests with hostile or very large groups: one step does a bounded amount of work, and all groups together take a
//! bounded amount of memory.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    consumer_protocol::subscription,
    records::Record,
    shard::{Deletion, Input, MAX_MEMBER_BYTES, MAX_PROTOCOLS, Output, Shard, Step},
    *,
};
use crate::types::TopicId;

const MAX_RECORD_BYTES: usize = 1 << 20;
/// The most records that one step may write.
const MOST_RECORDS: usize = 2 * offsets::PAGE;

struct World {
    shard: Shard,
    now_ms: i64,
    requests: u64,
    log: Vec<Record>,
}

impl World {
    fn new() -> World {
        let shard = Shard::new(Arc::new(GroupConfig::default()), MAX_RECORD_BYTES);
        World { shard, now_ms: 0, requests: 0, log: Vec::new() }
    }

    fn now(&self) -> Now {
        Now { timestamp_ms: 1_000_000 + self.now_ms, monotonic_ms: self.now_ms }
    }

    fn step(&mut self, input: Input) -> Step {
        self.requests += 1;
        let step = self.shard.step(self.now(), RequestId(self.requests), input);
        assert!(step.records.len() <= MOST_RECORDS, "{} records in one step", step.records.len());
        for record in &step.records {
            self.shard.apply(self.log.len() as i64, None, record);
            self.log.push(record.clone());
        }
        step
    }

    /// Returns the reply to this request.
    fn output(&mut self, input: Input) -> Output {
        let replies = self.step(input).replies;
        replies.into_iter().find(|reply| reply.request == RequestId(self.requests)).expect("a reply at once").output
    }

    fn join(&mut self, request: JoinRequest) -> Result<Joined, GroupError> {
        let uuid = Uuid::from_u128(self.requests.into());
        match self.output(Input::Join(request, uuid)) {
            Output::Joined(result) => result.map_err(|error| error.error),
            other => panic!("{other:?}"),
        }
    }

    /// Runs all timers until `until_ms` and returns the number of steps.
    fn advance(&mut self, until_ms: i64) -> usize {
        let mut steps = 0;
        while let Some(deadline_ms) = self.shard.next_deadline_ms().filter(|at| *at <= until_ms) {
            self.now_ms = self.now_ms.max(deadline_ms);
            self.step(Input::Tick);
            steps += 1;
        }
        self.now_ms = until_ms;
        steps
    }

    fn commit(&mut self, group_id: &str, partitions: std::ops::Range<i32>, metadata: &str) -> Result<(), GroupError> {
        match self.output(Input::CommitOffsets(commit(group_id, partitions, metadata))) {
            Output::Outcomes(result) => result.map(|_| ()),
            other => panic!("{other:?}"),
        }
    }

    fn check_replay(&self) {
        let mut replayed = Shard::new(Arc::new(GroupConfig::default()), MAX_RECORD_BYTES);
        for (offset, record) in self.log.iter().enumerate() {
            replayed.apply(offset as i64, None, record);
        }
        assert_eq!(replayed.hard(), self.shard.hard(), "G4: replaying the log gives the live state");
    }
}

fn join(group_id: &str, protocols: Vec<MemberProtocol>) -> JoinRequest {
    JoinRequest {
        group_id: group_id.into(),
        member_id: "".into(),
        group_instance_id: None,
        client_id: "c".into(),
        client_host: "/h".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols,
        requires_known_member_id: false,
        supports_skip_assignment: false,
        reason: None,
    }
}

fn protocol(name: &str, metadata: impl Into<Bytes>) -> MemberProtocol {
    MemberProtocol { name: name.into(), metadata: metadata.into() }
}

fn commit(group_id: &str, partitions: std::ops::Range<i32>, metadata: &str) -> CommitOffsetsRequest {
    let partitions = partitions.map(|partition| CommitPartition {
        partition,
        committed_offset: 1,
        committed_leader_epoch: -1,
        committed_metadata: metadata.into(),
    });
    CommitOffsetsRequest {
        group_id: group_id.into(),
        generation_id_or_member_epoch: -1,
        member_id: "".into(),
        group_instance_id: None,
        retention_time_ms: None,
        api_version: 9,
        topics: vec![CommitTopic {
            name: "t".into(),
            topic_id: TopicId(Uuid::from_u128(1)),
            partitions: partitions.collect(),
        }],
    }
}

#[test]
fn a_member_with_too_many_protocols_or_too_much_metadata_is_refused() {
    let mut world = World::new();
    let many = |count: usize| (0..count).map(|number| protocol(&number.to_string(), "")).collect::<Vec<_>>();
    assert_eq!(world.join(join("g", many(40_000))), Err(GroupError::InconsistentGroupProtocol));
    assert_eq!(world.join(join("g", many(MAX_PROTOCOLS + 1))), Err(GroupError::InconsistentGroupProtocol));
    let large = |bytes: usize| vec![0; bytes];
    assert_eq!(
        world.join(join("g", vec![protocol("range", large(MAX_RECORD_BYTES + 1))])),
        Err(GroupError::UnknownServerError)
    );
    let together = (0..=MAX_MEMBER_BYTES / MAX_RECORD_BYTES).map(|n| protocol(&n.to_string(), large(MAX_RECORD_BYTES)));
    assert_eq!(world.join(join("g", together.collect())), Err(GroupError::UnknownServerError));
    assert_eq!((world.shard.group_count(), world.shard.memory_bytes()), (0, 0), "nothing must be left");

    // A protocol name that is given twice counts once.
    let twice = vec![protocol("range", "a"), protocol("range", "b"), protocol("sticky", "c")];
    world.step(Input::Join(join("g", twice), Uuid::nil()));
    let Output::Described(described) = world.output(Input::Describe(vec!["g".into()])) else { panic!() };
    assert_eq!(described[0].as_ref().unwrap().members.len(), 1);
}

#[test]
fn the_bytes_of_groups_stay_within_the_room_and_are_given_back() {
    let mut world = World::new();
    let metadata = vec![0; 10_000];
    world.shard.set_room(100_000);
    let mut joined = 0;
    loop {
        let request = join(&format!("g{joined}"), vec![protocol("range", metadata.clone())]);
        let before = world.shard.memory_bytes();
        let step = world.step(Input::Join(request, Uuid::from_u128(joined)));
        if let [reply] = &step.replies[..] {
            let error = JoinError { error: GroupError::GroupMaxSizeReached, member_id: "".into() };
            assert_eq!(reply.output, Output::Joined(Err(error)));
            break;
        }
        joined += 1;
        let grown = world.shard.memory_bytes() - before;
        assert!(grown >= 10_000);
        world.shard.set_room(100_000_usize.saturating_sub(world.shard.memory_bytes()));
        assert!(joined < 20, "the room must be used up");
    }
    assert!(joined > 4 && world.shard.memory_bytes() < 120_000);
    assert_eq!(world.commit("other", 0..10, "m"), Err(GroupError::GroupMaxSizeReached));
    // All members are removed when their sessions expire, and the empty groups at the next check for expired offsets.
    world.advance(3_600_000);
    assert_eq!((world.shard.group_count(), world.shard.memory_bytes()), (0, 0));
    world.shard.set_room(100_000);
    assert_eq!(world.commit("other", 0..10, "m"), Ok(()));
    world.shard.set_room(0);
    assert_eq!(world.commit("other", 0..10, "n"), Ok(()), "an existing offset may be replaced");
    assert_eq!(world.commit("other", 0..10, "longer"), Err(GroupError::GroupMaxSizeReached));
    world.check_replay();
}

#[test]
fn a_group_of_many_offsets_is_read_expired_and_deleted_in_steps() {
    let mut world = World::new();
    const PARTITIONS: i32 = 5_000;
    for first in (0..PARTITIONS).step_by(500) {
        world.commit("g", first..first + 500, "m").unwrap();
    }
    for group in 0..2_000 {
        world.commit(&format!("small{group}"), 0..1, "m").unwrap();
    }
    let full = world.shard.memory_bytes();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let input = Input::FetchAllOffsets { group_id: "g".into(), require_stable: false, after };
        let Output::FetchedPage(topics, next) = world.output(input) else { panic!() };
        assert!(topics.iter().map(|topic| topic.partitions.len()).sum::<usize>() <= offsets::PAGE);
        seen.extend(topics.iter().flat_map(|topic| topic.partitions.iter().map(|offset| offset.partition)));
        if next.is_none() {
            break;
        }
        after = next;
    }
    assert_eq!(seen, (0..PARTITIONS).collect::<Vec<_>>());

    let (mut listed, mut after) = (0, None);
    loop {
        let input = Input::List { filter: Arc::default(), after };
        let Output::Listed(page, next) = world.output(input) else { panic!() };
        listed += page.len();
        if next.is_none() {
            break;
        }
        after = next;
    }
    assert_eq!(listed, 2_001);

    let mut steps = 1;
    while world.output(Input::DeleteGroup("g".into())) == Output::Deleted(Ok(Deletion::Begun)) {
        steps += 1;
    }
    assert_eq!((steps, world.shard.group_count()), (10, 2_000));
    assert!(world.shard.memory_bytes() < full);

    for first in (0..PARTITIONS).step_by(500) {
        world.commit("g", first..first + 500, "m").unwrap();
    }
    // The first check after the retention deletes all offsets and the small groups, the next one the large group.
    let steps = world.advance(8 * 24 * 3_600_000);
    assert!(steps > 10);
    assert_eq!((world.shard.group_count(), world.shard.memory_bytes()), (0, 0));
    world.check_replay();
}

#[test]
fn offsets_of_many_deleted_topics_go_in_steps() {
    let mut world = World::new();
    for group in 0..1_200 {
        world.commit(&format!("g{group}"), 0..4, "m").unwrap();
    }
    world.commit("large", 0..500, "m").unwrap();
    world.commit("large", 500..900, "m").unwrap();
    let gone = (0..10_000).map(|number| (Arc::from(format!("other{number}")), TopicId(Uuid::from_u128(number))));
    let topics: Arc<DeletedTopics> = Arc::new(gone.chain([("t".into(), TopicId(Uuid::from_u128(1)))]).collect());
    let (mut from, mut steps) = (None, 0);
    loop {
        let Output::Swept(next) = world.output(Input::TopicsDeleted { topics: topics.clone(), from }) else { panic!() };
        steps += 1;
        if next.is_none() {
            break;
        }
        from = next;
    }
    assert!(steps > 10, "{steps}");
    let Output::FetchedPage(left, _) =
        world.output(Input::FetchAllOffsets { group_id: "large".into(), require_stable: false, after: None })
    else {
        panic!()
    };
    assert_eq!(left, []);
    world.check_replay();
}

#[test]
fn a_group_whose_record_could_not_be_stored_takes_no_more_members() {
    let mut world = World::new();
    let mut joined = 0_u128;
    let refused = loop {
        let request = JoinRequest {
            client_id: "c".repeat(10_000).into(),
            ..join("g", vec![protocol("range", subscription(&["t"]))])
        };
        let step = world.step(Input::Join(request, Uuid::from_u128(joined)));
        if let Some(reply) = step.replies.into_iter().next() {
            break reply.output;
        }
        joined += 1;
        assert!(joined < 1_000);
    };
    // The record contains the client id of each member twice, once inside the member id.
    assert_eq!(joined, MAX_RECORD_BYTES as u128 / 20_000);
    let error = JoinError { error: GroupError::GroupMaxSizeReached, member_id: "".into() };
    assert_eq!(refused, Output::Joined(Err(error)));
}

#[test]
fn the_sessions_of_thousands_of_members_that_expire_at_once_end_in_steps() {
    let mut world = World::new();
    const MEMBERS: u128 = 5_000;
    for number in 0..MEMBERS {
        let request = JoinRequest { rebalance_timeout_ms: 600_000, ..join("g", vec![protocol("range", "")]) };
        world.step(Input::Join(request, Uuid::from_u128(number)));
    }
    let before = world.shard.memory_bytes();
    assert!(before > 5_000 * 100);
    // No member sends SyncGroup or Heartbeat.
    let steps = world.advance(3_600_000);
    assert!(steps > MEMBERS as usize / 256, "{steps}");
    assert_eq!((world.shard.live_group_count(), world.shard.group_count()), (0, 0));
    assert_eq!(world.shard.memory_bytes(), 0);
}

#[test]
fn assignments_count_too() {
    let mut world = World::new();
    world.step(Input::Join(join("g", vec![protocol("range", subscription(&["t"]))]), Uuid::nil()));
    world.advance(3_000);
    let member_id: Arc<str> = format!("c-{}", Uuid::nil()).into();
    let sync = |bytes: usize| {
        Input::Sync(SyncRequest {
            group_id: "g".into(),
            generation_id: 1,
            member_id: member_id.clone(),
            group_instance_id: None,
            protocol_type: None,
            protocol_name: None,
            assignments: BTreeMap::from([(member_id.clone(), vec![0; bytes].into())]),
        })
    };
    world.shard.set_room(1_000);
    assert_eq!(world.output(sync(1_001)), Output::Synced(Err(GroupError::GroupMaxSizeReached)));
    assert!(matches!(world.output(sync(900)), Output::Synced(Ok(_))));
}
