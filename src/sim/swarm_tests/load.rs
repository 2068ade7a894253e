//! The clients of a swarm: producers, readers, a group that commits offsets, and topics that come and go.
//!
//! Owns what the clients were told, and the checks that a client can make by itself: no record, watermark or committed
//! offset goes back. Leaves faults to `swarm_tests.rs` and the state inside of the brokers to `invariants.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use kafka_protocol::{
    messages::{
        BrokerId as WireBrokerId, CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, FindCoordinatorRequest,
        GroupId, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
        ProduceRequest,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        delete_topics_request::DeleteTopicState,
        fetch_request::{FetchPartition, FetchTopic},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::OffsetFetchRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Request, StrBytes},
};
use uuid::Uuid;

use super::super::{
    NodeId,
    tests::{VOTERS, connect, named, values},
};
use crate::{
    env::{BoxFuture, Env},
    peer::Peer,
    protocol::record_batch::{BatchBuilder, BatchOptions},
    types::TopicId,
};

/// Two replicas must have a record: nothing acknowledged with acks=all is lost.
pub(super) const SAFE: &str = "safe";
/// One replica is enough, and producers wait for the leader only.
pub(super) const LOOSE: &str = "loose";
/// Deleted and created again under the same name; two replicas must have a record.
pub(super) const CHURN: &str = "churn";
/// The partition of [`SAFE`] with an idempotent producer.
pub(super) const IDEMPOTENT: i32 = 1;
const GROUP: &str = "group";
const CALL_LIMIT: Duration = Duration::from_secs(2);
/// The pause between two requests of a client, in ms.
const PAUSE_MS: u64 = 40;

/// A partition and the id of its topic.
pub(super) type Key = (TopicId, i32);

/// What clients were told, by all clients of one simulation.
#[derive(Default)]
pub(super) struct History {
    /// The acknowledged records of producers with acks=all, by partition and offset.
    pub(super) acknowledged: BTreeMap<Key, BTreeMap<i64, String>>,
    /// The numbers of acknowledged records of the idempotent producer.
    pub(super) last_in_order: u64,
    /// The records that were read, by partition and offset.
    read: BTreeMap<Key, BTreeMap<i64, String>>,
    /// The topics whose deletion was acknowledged.
    pub(super) deleted: BTreeSet<TopicId>,
    /// What clients were told last, to explain why one does not succeed.
    pub(super) last: BTreeMap<&'static str, String>,
    /// How often each client has succeeded.
    pub(super) progress: BTreeMap<&'static str, u64>,
}

/// Shared by the clients and the test.
#[derive(Clone, Default)]
pub(super) struct Shared {
    pub(super) history: Arc<Mutex<History>>,
    pub(super) seed: u64,
    /// The topic with one replica in sync may lose records in this simulation.
    pub(super) loose_may_lose: bool,
}

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut History) -> T) -> T {
        act(&mut self.history.lock().unwrap())
    }

    fn told(&self, client: &'static str, response: impl std::fmt::Debug) {
        self.with(|history| history.last.insert(client, format!("{response:?}")));
    }

    fn succeeded(&self, client: &'static str) {
        self.with(|history| *history.progress.entry(client).or_default() += 1);
    }
}

/// The state of a partition as a broker tells it.
#[derive(Clone, Copy, Debug)]
struct Located {
    key: Key,
    leader: NodeId,
    leader_epoch: i32,
}

/// A client with a connection to each broker.
pub(super) struct Client {
    env: Env,
    shared: Shared,
    peers: BTreeMap<NodeId, Peer>,
    /// As Kafka's clients do, it ignores metadata that is older than what it has seen.
    epochs: BTreeMap<Key, i32>,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

impl Client {
    pub(super) fn new(env: &Env, shared: &Shared) -> Client {
        Client { env: env.clone(), shared: shared.clone(), peers: BTreeMap::new(), epochs: BTreeMap::new() }
    }

    fn pause(&self, ms: u64) -> BoxFuture<'static, ()> {
        self.env.clock.sleep_until(self.env.clock.monotonic() + Duration::from_millis(ms))
    }

    /// The response, or none if there is none in time.
    async fn call<R: Request>(&mut self, node: NodeId, version: i16, request: &R) -> Option<R::Response> {
        let (env, before) = (self.env.clone(), self.peers.remove(&node));
        let called = env.within(CALL_LIMIT, async {
            let mut peer = match before {
                Some(peer) => peer,
                None => connect(&env, node).await?,
            };
            let response = peer.call(version, request).await.ok()?;
            Some((peer, response))
        });
        let (peer, response) = called.await.flatten()?;
        self.peers.insert(node, peer);
        Some(response)
    }

    /// One of the brokers.
    fn any(&self) -> NodeId {
        VOTERS[self.env.random.below(VOTERS.len() as u64) as usize]
    }

    /// The leader of a partition.
    async fn locate(&mut self, topic: &str, index: i32) -> Option<Located> {
        let node = self.any();
        let wanted = MetadataRequestTopic::default().with_name(Some(named(topic)));
        let request = MetadataRequest::default().with_topics(Some(vec![wanted])).with_allow_auto_topic_creation(false);
        let response = self.call(node, 12, &request).await?;
        let found = response.topics.first()?;
        let partition = found.partitions.iter().find(|partition| partition.partition_index == index)?;
        let key = (TopicId(found.topic_id), index);
        let newest = self.epochs.entry(key).or_insert(-1);
        if found.error_code != 0 || partition.leader_epoch < *newest {
            return None;
        }
        *newest = partition.leader_epoch;
        let leader = NodeId::try_from(partition.leader_id.0).ok()?;
        Some(Located { key, leader, leader_epoch: partition.leader_epoch })
    }

    /// Appends one record. Returns its offset or the error; none if there was no response.
    async fn produce(
        &mut self,
        at: Located,
        acks: i16,
        value: &str,
        options: BatchOptions,
    ) -> Option<Result<i64, i16>> {
        let mut batch = BatchBuilder::new(options);
        batch.append(self.env.clock.now_ms(), Some(b"k"), Some(value.as_bytes()), &[]);
        let records = PartitionProduceData::default().with_index(at.key.1).with_records(Some(batch.build()));
        let topic = TopicProduceData::default().with_topic_id(at.key.0.0).with_partition_data(vec![records]);
        let request = ProduceRequest::default().with_acks(acks).with_timeout_ms(1500).with_topic_data(vec![topic]);
        let response = self.call(at.leader, 13, &request).await?;
        let partition = response.responses.first()?.partition_responses.first()?;
        Some(if partition.error_code == 0 { Ok(partition.base_offset) } else { Err(partition.error_code) })
    }

    /// Records of a partition from an offset on, with the high watermark.
    async fn fetch(&mut self, at: Located, offset: i64) -> Option<(i64, Vec<(i64, String)>)> {
        let partition = FetchPartition::default()
            .with_partition(at.key.1)
            .with_fetch_offset(offset)
            .with_current_leader_epoch(at.leader_epoch)
            .with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_topic_id(at.key.0.0).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(0)
            .with_max_bytes(1 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let response = self.call(at.leader, 16, &request).await?;
        let partition = response.responses.first()?.partitions.first()?.clone();
        if partition.error_code != 0 {
            return None;
        }
        Some((partition.high_watermark, values(&partition.records.unwrap_or_default())))
    }
}

/// Creates a topic with three replicas. Returns the error code.
async fn create(client: &mut Client, name: &str, partitions: i32, min_isr: &str) -> Option<i16> {
    let config = CreatableTopicConfig::default().with_name(text("min.insync.replicas")).with_value(Some(text(min_isr)));
    let topic = CreatableTopic::default()
        .with_name(named(name))
        .with_num_partitions(partitions)
        .with_replication_factor(3)
        .with_configs(vec![config]);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1500);
    let node = client.any();
    Some(client.call(node, 7, &request).await?.topics.first()?.error_code)
}

/// Creates the topics that stay.
pub(super) async fn create_topics(mut client: Client) {
    for (name, partitions, min_isr) in [(SAFE, 2, "2"), (LOOSE, 1, "1")] {
        while !matches!(create(&mut client, name, partitions, min_isr).await, Some(0 | 36)) {
            client.pause(50).await;
        }
    }
}

/// Appends numbered records for ever, one after the other, each once.
pub(super) async fn produce_for_ever(mut client: Client, topic: &'static str, acks: i16, name: &'static str) {
    let mut located = None;
    for number in 0u64.. {
        if located.is_none() {
            located = client.locate(topic, 0).await;
        }
        if let Some(at) = located {
            // The id tells records of a deleted topic from those of its successor.
            let value = format!("{} {number}", at.key.0.0);
            let produced = client.produce(at, acks, &value, BatchOptions::default()).await;
            client.shared.told(name, (at, produced));
            match produced {
                Some(Ok(offset)) => client.shared.with(|history| {
                    *history.progress.entry(name).or_default() += 1;
                    if acks == -1 {
                        history.acknowledged.entry(at.key).or_default().insert(offset, value);
                    }
                }),
                Some(Err(_)) | None => located = None,
            }
        }
        client.pause(PAUSE_MS).await;
    }
}

/// Appends numbered records for ever as an idempotent producer, each until it is acknowledged.
pub(super) async fn produce_in_order(mut client: Client) {
    let identity = loop {
        let node = client.any();
        let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(1000);
        match client.call(node, 4, &request).await {
            Some(response) if response.error_code == 0 => break (response.producer_id.0, response.producer_epoch),
            _ => client.pause(50).await,
        }
    };
    for number in 0u64.. {
        let options = BatchOptions {
            producer_id: identity.0,
            producer_epoch: identity.1,
            base_sequence: number as i32,
            ..BatchOptions::default()
        };
        loop {
            if let Some(at) = client.locate(SAFE, IDEMPOTENT).await {
                let produced = client.produce(at, -1, &number.to_string(), options).await;
                client.shared.told("idempotent producer", (at, produced));
                match produced {
                    Some(Ok(offset)) => {
                        client.shared.with(|history| {
                            history.last_in_order = number;
                            // A repeated batch has the offset of the first append.
                            history.acknowledged.entry(at.key).or_default().insert(offset, number.to_string());
                        });
                        client.shared.succeeded("idempotent producer");
                        break;
                    }
                    Some(Err(code @ (45 | 47 | 59))) => panic!(
                        "seed {}: INV-T4: the retry of sequence {number} by its only producer gets error {code}",
                        client.shared.seed
                    ),
                    Some(Err(_)) | None => {}
                }
            }
            client.pause(PAUSE_MS).await;
        }
        client.pause(PAUSE_MS).await;
    }
}

/// Reads a partition for ever. What was read stays, and the high watermark does not go back in an epoch.
pub(super) async fn read_for_ever(mut client: Client, topic: &'static str, index: i32) {
    let mut watermarks = BTreeMap::<(Key, i32), i64>::new();
    loop {
        if let Some(at) = client.locate(topic, index).await {
            // The newest records are read more than once.
            let from = client.shared.with(|history| {
                history.read.get(&at.key).and_then(|read| read.keys().rev().nth(3).copied()).unwrap_or(0)
            });
            if let Some((high_watermark, found)) = client.fetch(at, from).await {
                let seed = client.shared.seed;
                let known = watermarks.entry((at.key, at.leader_epoch)).or_insert(high_watermark);
                assert!(
                    high_watermark >= *known,
                    "seed {seed}: INV-R3: a reader of {topic}-{index} sees the high watermark go from {known} to \
                     {high_watermark} in epoch {}",
                    at.leader_epoch
                );
                *known = high_watermark;
                let may_change = topic == LOOSE && client.shared.loose_may_lose;
                client.shared.with(|history| {
                    let read = history.read.entry(at.key).or_default();
                    for (offset, value) in found {
                        let is_own = topic != CHURN || value.starts_with(&at.key.0.0.to_string());
                        assert!(is_own, "seed {seed}: a record of a deleted topic is in its successor: {value}");
                        let before = read.insert(offset, value.clone());
                        let is_same = before.as_ref().is_none_or(|before| *before == value);
                        assert!(
                            may_change || is_same,
                            "seed {seed}: INV-R1: offset {offset} of {topic}-{index} had {before:?} and has {value}"
                        );
                    }
                });
                client.shared.succeeded("reader");
            }
        }
        client.pause(3 * PAUSE_MS).await;
    }
}

/// Asks for the end of a partition for ever (L3): it never goes back, whoever leads.
pub(super) async fn ask_for_the_end(mut client: Client) {
    let mut newest = 0;
    loop {
        if let Some(at) = client.locate(SAFE, 0).await {
            let partition = ListOffsetsPartition::default()
                .with_partition_index(0)
                .with_current_leader_epoch(at.leader_epoch)
                .with_timestamp(-1);
            let topic = ListOffsetsTopic::default().with_name(named(SAFE)).with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default().with_replica_id(WireBrokerId(-1)).with_topics(vec![topic]);
            if let Some(response) = client.call(at.leader, 7, &request).await
                && let Some(found) = response.topics.first().and_then(|topic| topic.partitions.first())
                && found.error_code == 0
            {
                let (offset, seed) = (found.offset, client.shared.seed);
                assert!(offset >= newest, "seed {seed}: L3: the end of {SAFE}-0 goes from {newest} to {offset}");
                newest = offset;
                client.shared.succeeded("asks for the end");
            }
        }
        client.pause(2 * PAUSE_MS).await;
    }
}

/// Commits growing offsets for ever, and reads them back: the last acknowledged one, or one without an answer.
pub(super) async fn commit_for_ever(mut client: Client) {
    let (mut acknowledged, mut in_doubt) = (-1, BTreeSet::new());
    let mut coordinator = None;
    for offset in 1i64.. {
        let Some(node) = coordinator else {
            let any = client.any();
            let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(GROUP)]);
            let response = client.call(any, 4, &request).await;
            let found = response.as_ref().and_then(|response| response.coordinators.first());
            coordinator = found.and_then(|found| NodeId::try_from(found.node_id.0).ok());
            client.pause(PAUSE_MS).await;
            continue;
        };
        let partition = OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default().with_name(named(SAFE)).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        let response = client.call(node, 8, &request).await;
        let committed = response.and_then(|response| Some(response.topics.first()?.partitions.first()?.error_code));
        client.shared.told("commits offsets", (node, committed));
        match committed {
            Some(0) => {
                acknowledged = offset;
                client.shared.succeeded("commits offsets");
            }
            Some(_) | None => {
                in_doubt.insert(offset);
                coordinator = None;
            }
        }
        client.pause(PAUSE_MS).await;
        let topic = OffsetFetchRequestTopic::default().with_name(named(SAFE)).with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default().with_group_id(GroupId(text(GROUP))).with_topics(Some(vec![topic]));
        if let Some(response) = client.call(node, 7, &request).await
            && response.error_code == 0
            && let Some(found) = response.topics.first().and_then(|topic| topic.partitions.first())
            && found.error_code == 0
        {
            let offset = found.committed_offset;
            assert!(
                offset == acknowledged || in_doubt.contains(&offset),
                "seed {}: INV-G3: the committed offset is {offset}, acknowledged was {acknowledged}, without an \
                 answer are {in_doubt:?}",
                client.shared.seed
            );
        }
        client.pause(PAUSE_MS).await;
    }
}

/// Creates a topic and deletes it again, for ever, under the same name.
pub(super) async fn churn_for_ever(mut client: Client) {
    loop {
        let created = create(&mut client, CHURN, 1, "2").await;
        client.shared.told("creates topics", created);
        if created == Some(0) {
            client.shared.succeeded("creates topics");
            let lives = 200 + client.env.random.below(2_500);
            client.pause(lives).await;
        }
        let located = client.locate(CHURN, 0).await;
        client.shared.told("finds topics", located);
        if let Some(Located { key: (topic, _), .. }) = located {
            let wanted = DeleteTopicState::default().with_name(None).with_topic_id(topic.0);
            let request = DeleteTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(1500);
            let node = client.any();
            let deleted = client.call(node, 6, &request).await;
            let code = deleted.and_then(|response| Some(response.responses.first()?.error_code));
            client.shared.told("deletes topics", code);
            if code == Some(0) {
                client.shared.with(|history| history.deleted.insert(topic));
            }
        }
        client.pause(PAUSE_MS).await;
    }
}

/// All records of a partition below the high watermark, read from its leader.
pub(super) async fn read_all(mut client: Client, topic: &'static str, index: i32) -> BTreeMap<i64, String> {
    loop {
        if let Some(at) = client.locate(topic, index).await {
            let mut found = BTreeMap::new();
            while let Some((high_watermark, records)) = {
                let next = found.last_key_value().map_or(0, |(offset, _)| offset + 1);
                client.fetch(at, next).await
            } {
                found.extend(records);
                if found.last_key_value().map_or(0, |(offset, _)| offset + 1) >= high_watermark {
                    return found;
                }
            }
        }
        client.pause(PAUSE_MS).await;
    }
}

/// The topics that a broker tells, by id.
pub(super) async fn topics_of(mut client: Client, node: NodeId) -> BTreeSet<TopicId> {
    loop {
        if let Some(response) = client.call(node, 12, &MetadataRequest::default().with_topics(None)).await {
            return response.topics.iter().map(|topic| TopicId(Uuid::from_u128(topic.topic_id.as_u128()))).collect();
        }
        client.pause(PAUSE_MS).await;
    }
}
