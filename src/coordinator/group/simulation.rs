//! Two hundred members randomly join, sync, send heartbeats, commit, leave, crash and come back, and the coordinator
//! restarts from its log. The test checks that within a generation no partition has two owners (INV-G1), that replaying
//! the log gives the live state (INV-G4), that a fetch returns the last commit (INV-G3), and that the group becomes
//! Stable after the faults stop.
//!
//! A failing run prints its seed; add it to `SEEDS`.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    consumer_protocol::subscription,
    records::Record,
    shard::{Input, Output, Shard},
    *,
};
use crate::{
    env::{Random, random::SystemRandom},
    types::TopicId,
};

const MEMBERS: usize = 200;
const PARTITIONS: usize = 150;
const FAULTS_MS: i64 = 10 * 60 * 1000;
const HEALING_MS: i64 = 5 * 60 * 1000;
const SEEDS: std::ops::Range<u64> = 0..6;

#[test]
fn inv_g1_members_at_random_never_share_a_partition_and_settle_when_faults_stop() {
    for seed in SEEDS {
        let outcome = std::panic::catch_unwind(|| Simulation::new(seed).run());
        assert!(outcome.is_ok(), "the run with seed {seed} failed, see above");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Away,
    Joining,
    Syncing,
    Stable,
}

#[derive(Debug)]
struct Client {
    instance_id: Option<Arc<str>>,
    two_step: bool,
    phase: Phase,
    member_id: Arc<str>,
    generation_id: i32,
    owned: Vec<usize>,
    /// Counts the restarts of the client. Events for an earlier life are ignored.
    life: u64,
}

#[derive(Debug)]
enum Event {
    Wake { client: usize, life: u64 },
    Arrive { client: usize, life: u64, input: Box<Input> },
    Answer { client: usize, life: u64, output: Box<Output> },
    Fault,
}

struct Simulation {
    seed: u64,
    random: SystemRandom,
    now_ms: i64,
    events: BTreeMap<(i64, u64), Event>,
    next: u64,
    shard: Shard,
    log: Vec<Record>,
    waiting: BTreeMap<RequestId, (usize, u64)>,
    clients: Vec<Client>,
    /// (generation, partition) → its owner.
    owners: BTreeMap<(i32, usize), Arc<str>>,
    committed: BTreeMap<i32, i64>,
    highest_generation: i32,
    rebalances: usize,
}

fn config() -> Arc<GroupConfig> {
    Arc::new(GroupConfig::default())
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let random = SystemRandom::seeded(seed);
        let clients = (0..MEMBERS).map(|number| Client {
            instance_id: (number % 4 == 0).then(|| format!("i{number}").into()),
            two_step: number % 3 != 0,
            phase: Phase::Away,
            member_id: "".into(),
            generation_id: -1,
            owned: Vec::new(),
            life: 0,
        });
        let clients = clients.collect();
        Simulation {
            seed,
            random,
            now_ms: 0,
            events: BTreeMap::new(),
            next: 0,
            shard: Shard::new(config(), 1 << 20),
            log: Vec::new(),
            waiting: BTreeMap::new(),
            clients,
            owners: BTreeMap::new(),
            committed: BTreeMap::new(),
            highest_generation: 0,
            rebalances: 0,
        }
    }

    fn below(&self, bound: i64) -> i64 {
        self.random.below(bound as u64) as i64
    }

    fn after(&mut self, delay_ms: i64, event: Event) {
        self.next += 1;
        self.events.insert((self.now_ms + delay_ms, self.next), event);
    }

    fn now(&self) -> Now {
        Now { timestamp_ms: 1_700_000_000_000 + self.now_ms, monotonic_ms: self.now_ms }
    }

    fn run(mut self) {
        for client in 0..MEMBERS {
            let delay_ms = self.below(60_000);
            self.after(delay_ms, Event::Wake { client, life: 0 });
        }
        for _ in 0..400 {
            let at_ms = self.below(FAULTS_MS);
            self.after(at_ms, Event::Fault);
        }
        let end_ms = FAULTS_MS + HEALING_MS;
        loop {
            let event_ms = self.events.keys().next().map_or(end_ms, |(at, _)| *at);
            let tick_ms = self.shard.next_deadline_ms().unwrap_or(end_ms);
            if event_ms.min(tick_ms) >= end_ms {
                break;
            }
            self.now_ms = self.now_ms.max(event_ms.min(tick_ms));
            if tick_ms <= event_ms {
                self.step(None, Input::Tick);
            } else if let Some((_, event)) = self.events.pop_first() {
                self.handle(event);
            }
        }
        self.check_settled();
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake { client, life } if self.clients[client].life == life => self.wake(client),
            // A request of a crashed client may still arrive.
            Event::Arrive { client, life, input } => self.step(Some((client, life)), *input),
            Event::Answer { client, life, output } if self.clients[client].life == life => {
                self.on_answer(client, *output);
            }
            Event::Fault => self.fault(),
            Event::Wake { .. } | Event::Answer { .. } => {}
        }
    }

    fn send(&mut self, client: usize, input: Input) {
        let (delay_ms, life) = (self.below(300), self.clients[client].life);
        self.after(delay_ms, Event::Arrive { client, life, input: Box::new(input) });
    }

    fn step(&mut self, from: Option<(usize, u64)>, input: Input) {
        self.next += 1;
        let id = RequestId(self.next);
        if let Some(from) = from {
            self.waiting.insert(id, from);
        }
        let commits = match &input {
            Input::CommitOffsets(request) => request.topics[0].partitions.clone(),
            _ => Vec::new(),
        };
        let step = self.shard.step(self.now(), id, input);
        for record in step.records {
            self.shard.apply(self.log.len() as i64, None, &record);
            self.on_record(&record);
            self.log.push(record);
        }
        for reply in step.replies {
            if matches!(reply.output, Output::Outcomes(Ok(_))) {
                self.committed.extend(commits.iter().map(|commit| (commit.partition, commit.committed_offset)));
            }
            if let Some((client, life)) = self.waiting.remove(&reply.request) {
                let delay_ms = self.below(300);
                self.after(delay_ms, Event::Answer { client, life, output: Box::new(reply.output) });
            }
        }
    }

    fn on_record(&mut self, record: &Record) {
        if let Record::GroupMetadata { value: Some(value), .. } = record {
            assert!(value.generation_id >= self.highest_generation, "INV-G2: a durable generation must not decrease");
            self.rebalances += usize::from(value.generation_id > self.highest_generation);
            self.highest_generation = value.generation_id;
        }
    }

    fn wake(&mut self, client: usize) {
        match self.clients[client].phase {
            Phase::Away => self.join(client),
            Phase::Joining | Phase::Syncing => {}
            Phase::Stable => {
                let me = &self.clients[client];
                let life = me.life;
                let beat = HeartbeatRequest {
                    group_id: "g".into(),
                    generation_id: me.generation_id,
                    member_id: me.member_id.clone(),
                    group_instance_id: me.instance_id.clone(),
                };
                let commit = me.owned.first().map(|partition| CommitOffsetsRequest {
                    group_id: "g".into(),
                    generation_id_or_member_epoch: me.generation_id,
                    member_id: me.member_id.clone(),
                    group_instance_id: me.instance_id.clone(),
                    retention_time_ms: None,
                    api_version: 9,
                    topics: vec![CommitTopic {
                        name: "t".into(),
                        topic_id: TopicId::ZERO,
                        partitions: vec![CommitPartition {
                            partition: *partition as i32,
                            committed_offset: self.now_ms,
                            committed_leader_epoch: -1,
                            committed_metadata: "".into(),
                        }],
                    }],
                });
                if let Some(commit) = commit {
                    self.send(client, Input::CommitOffsets(commit));
                }
                self.send(client, Input::Heartbeat(beat));
                self.after(3_000, Event::Wake { client, life });
            }
        }
    }

    fn join(&mut self, client: usize) {
        let uuid = self.random.uuid();
        let me = &mut self.clients[client];
        me.phase = Phase::Joining;
        me.owned.clear();
        let request = JoinRequest {
            group_id: "g".into(),
            member_id: me.member_id.clone(),
            group_instance_id: me.instance_id.clone(),
            client_id: format!("c{client}").into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 20_000,
            protocol_type: "consumer".into(),
            protocols: vec![MemberProtocol { name: "range".into(), metadata: subscription(&["t"]) }],
            requires_known_member_id: me.two_step,
            supports_skip_assignment: me.two_step,
            reason: None,
        };
        self.send(client, Input::Join(request, uuid));
    }

    fn rejoin(&mut self, client: usize, error: GroupError) {
        let me = &mut self.clients[client];
        // A client that starts over ignores the responses to its earlier requests.
        me.life += 1;
        me.phase = Phase::Away;
        me.owned.clear();
        match error {
            GroupError::UnknownMemberId | GroupError::FencedInstanceId => me.member_id = "".into(),
            GroupError::IllegalGeneration | GroupError::RebalanceInProgress | GroupError::NotCoordinator => {}
            other => panic!("seed {}: unexpected {other:?}", self.seed),
        }
        let life = me.life;
        let delay_ms = self.below(200);
        self.after(delay_ms, Event::Wake { client, life });
    }

    fn on_answer(&mut self, client: usize, output: Output) {
        match output {
            Output::Joined(Ok(joined)) => self.on_joined(client, joined),
            Output::Joined(Err(JoinError { error: GroupError::MemberIdRequired, member_id })) => {
                self.clients[client].member_id = member_id;
                self.join(client);
            }
            Output::Joined(Err(JoinError { error, .. })) => self.rejoin(client, error),
            Output::Synced(Ok(synced)) => self.on_synced(client, &synced.assignment),
            Output::Synced(Err(error)) => self.rejoin(client, error),
            Output::Heartbeat(Err(error)) | Output::Outcomes(Err(error))
                if self.clients[client].phase == Phase::Stable =>
            {
                self.rejoin(client, error);
            }
            _ => {}
        }
    }

    fn on_joined(&mut self, client: usize, joined: Joined) {
        let me = &mut self.clients[client];
        me.member_id = joined.member_id.clone();
        me.generation_id = joined.generation_id;
        me.phase = Phase::Syncing;
        let leads = joined.leader == joined.member_id && !joined.skip_assignment;
        assert!(!leads || !joined.members.is_empty(), "a leader must get the members");
        let mut assignments: Vec<(Arc<str>, Vec<u8>)> =
            joined.members.iter().filter(|_| leads).map(|member| (member.member_id.clone(), Vec::new())).collect();
        if !assignments.is_empty() {
            let count = assignments.len();
            (0..PARTITIONS).for_each(|partition| assignments[partition % count].1.push(partition as u8));
        }
        let request = SyncRequest {
            group_id: "g".into(),
            generation_id: joined.generation_id,
            member_id: joined.member_id,
            group_instance_id: me.instance_id.clone(),
            protocol_type: joined.protocol_type,
            protocol_name: joined.protocol_name,
            assignments: assignments.into_iter().map(|(member_id, bytes)| (member_id, Bytes::from(bytes))).collect(),
        };
        self.send(client, Input::Sync(request));
    }

    fn on_synced(&mut self, client: usize, assignment: &[u8]) {
        let me = &mut self.clients[client];
        me.phase = Phase::Stable;
        me.owned = assignment.iter().map(|byte| usize::from(*byte)).collect();
        // A static member keeps its partitions when it restarts, so the instance id is the owner.
        let owner = me.instance_id.clone().unwrap_or_else(|| me.member_id.clone());
        for partition in &me.owned {
            let first = self.owners.entry((me.generation_id, *partition)).or_insert_with(|| owner.clone());
            assert_eq!(
                *first, owner,
                "INV-G1: partition {partition} has two owners in generation {}",
                me.generation_id
            );
        }
        let life = me.life;
        let delay_ms = self.below(3_000);
        self.after(delay_ms, Event::Wake { client, life });
    }

    fn fault(&mut self) {
        let client = self.below(MEMBERS as i64) as usize;
        match self.below(20) {
            0 => return self.restart_coordinator(),
            1..8 if self.clients[client].phase == Phase::Stable => {
                let member = LeavingMember {
                    member_id: self.clients[client].member_id.clone(),
                    group_instance_id: self.clients[client].instance_id.clone(),
                    reason: None,
                };
                self.send(client, Input::Leave(LeaveRequest { group_id: "g".into(), members: vec![member] }));
            }
            _ => {}
        }
        // The client crashes, or has just sent LeaveGroup, and comes back later without its member id.
        let me = &mut self.clients[client];
        me.life += 1;
        me.phase = Phase::Away;
        me.member_id = "".into();
        me.owned.clear();
        let life = me.life;
        let delay_ms = self.below(30_000);
        self.after(delay_ms, Event::Wake { client, life });
    }

    fn restart_coordinator(&mut self) {
        let mut reloaded = Shard::new(config(), 1 << 20);
        for (offset, record) in self.log.iter().enumerate() {
            reloaded.apply(offset as i64, None, record);
        }
        assert_eq!(reloaded.hard(), self.shard.hard(), "INV-G4: replaying the log gives the live state");
        reloaded.on_loaded(self.now());
        self.shard = reloaded;
        for (client, life) in std::mem::take(&mut self.waiting).into_values() {
            let error = JoinError { error: GroupError::NotCoordinator, member_id: "".into() };
            let output = match self.clients[client].phase {
                Phase::Syncing => Output::Synced(Err(GroupError::NotCoordinator)),
                _ => Output::Joined(Err(error)),
            };
            self.after(50, Event::Answer { client, life, output: Box::new(output) });
        }
    }

    fn check_settled(mut self) {
        let step = self.shard.step(self.now(), RequestId(0), Input::Describe(vec!["g".into()]));
        let Output::Described(described) = &step.replies[0].output else { panic!("not described") };
        let group = described[0].as_ref().unwrap();
        assert_eq!(group.state, GroupState::Stable, "the group must become Stable");
        assert_eq!(group.members.len(), MEMBERS, "all clients must be members");
        let mut owned: Vec<usize> = Vec::new();
        for client in &self.clients {
            assert_eq!(client.phase, Phase::Stable, "{client:?}");
            assert_eq!(client.generation_id, self.highest_generation, "{client:?}");
            owned.extend(&client.owned);
        }
        owned.sort_unstable();
        assert_eq!(owned, (0..PARTITIONS).collect::<Vec<_>>(), "each partition must have one owner");
        assert!(self.rebalances > 10, "the run rebalanced {} times only", self.rebalances);
        let fetch = Input::FetchAllOffsets { group_id: "g".into(), require_stable: false, after: None };
        let step = self.shard.step(self.now(), RequestId(1), fetch);
        let Output::FetchedPage(topics, None) = &step.replies[0].output else { panic!("not fetched") };
        let fetched: BTreeMap<i32, i64> =
            topics[0].partitions.iter().map(|offset| (offset.partition, offset.committed_offset)).collect();
        assert_eq!(fetched, self.committed, "INV-G3: a fetch must return the last commit");
        assert_eq!(self.shard.live_group_count(), 1);
    }
}
