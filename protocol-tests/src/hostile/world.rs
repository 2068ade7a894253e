//! Creates the state that the requests name: a topic with many producers, a group with a large member and large
//! offsets. A small request that names one of them many times has a large answer.

use std::{
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    broker::BrokerOptions,
    differential::{
        batch::Batch,
        codec,
        schema::Schemas,
        wire::{ANSWER_LIMIT, Connection, Outcome},
    },
    process::eventually,
};

const TOPIC: &str = "hostile";
const WIDE_TOPIC: &str = "hostile-wide";
const GROUP: &str = "hostile-group";
const OFFSET_METADATA_BYTES: usize = 4000;
const READY_LIMIT: Duration = Duration::from_secs(30);
/// COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE and NOT_COORDINATOR: the group's partition is not ready yet.
const NOT_YET: [i64; 3] = [14, 15, 16];

/// The size of the state.
#[derive(Debug, Clone)]
pub struct Size {
    /// Producer ids in the state of the topic's partition.
    pub producers: i64,
    /// Bytes of the metadata of the group's member, and of its assignment.
    pub member_bytes: usize,
    /// Partitions with a committed offset of the group, each with metadata of the maximum length.
    pub offset_partitions: i32,
    /// Limit for groups and offsets in the broker's memory (`ottla.groups.max.bytes`).
    pub groups_max_bytes: u64,
}

impl Default for Size {
    fn default() -> Size {
        Size { producers: 1000, member_bytes: 100_000, offset_partitions: 200, groups_max_bytes: 16 << 20 }
    }
}

impl Size {
    /// Lowers the broker's limits for state: state that an attack legally creates stays, and would hide memory that
    /// stays by mistake.
    pub fn configure(&self, options: BrokerOptions) -> BrokerOptions {
        options
            .set("ottla.groups.max.bytes", self.groups_max_bytes)
            .expect_log("groups and offsets have reached ottla.groups.max.bytes and cannot grow")
            .set("ottla.tail.cache.bytes", 1 << 20)
            .set("ottla.fetch.sessions.max.bytes", 4 << 20)
            .set("ottla.metadata.max.bytes", 8 << 20)
    }
}

/// State of one broker, and the counter for its requests.
pub struct World {
    pub node_id: i32,
    pub topic: String,
    pub topic_id: String,
    pub group: String,
    pub data: String,
    next: AtomicU64,
}

impl World {
    /// Creates the state on an empty broker.
    pub fn make(schemas: &Schemas, address: SocketAddr, data: &Path, size: &Size) -> Result<World> {
        let mut client = Client::open(schemas, address)?;
        let metadata = client.ask("Metadata", 9, &json!({"Topics": []}))?;
        let node_id = metadata["Brokers"][0]["NodeId"].as_i64().context("a broker in Metadata")? as i32;
        let topic_id = client.create_topic(TOPIC, 1)?;
        client.create_topic(WIDE_TOPIC, size.offset_partitions)?;
        client.produce_as_many(size.producers)?;
        client.make_group(size)?;
        Ok(World {
            node_id,
            topic: TOPIC.to_owned(),
            topic_id,
            group: GROUP.to_owned(),
            data: data.display().to_string(),
            next: AtomicU64::new(0),
        })
    }

    /// Returns a number that no other request has.
    pub fn unique(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// A well-behaved client whose requests are written as JSON.
pub struct Client<'a> {
    schemas: &'a Schemas,
    connection: Connection,
}

impl<'a> Client<'a> {
    pub fn open(schemas: &'a Schemas, address: SocketAddr) -> Result<Client<'a>> {
        Ok(Client { schemas, connection: Connection::open(address)? })
    }

    /// Sends a request and returns the answer.
    pub fn ask(&mut self, name: &str, version: i16, body: &Value) -> Result<Value> {
        let api = self.schemas.api(name);
        let bytes = codec::encode(&api.request, version, body);
        self.connection.send(api, version, Some("well-behaved"), &bytes);
        let Outcome::Frame(frame) = self.connection.receive(ANSWER_LIMIT) else { bail!("no answer to {name}") };
        let header_bytes = if api.response.flexible.contains(version) && name != "ApiVersions" { 5 } else { 4 };
        codec::decode(&api.response, version, frame.get(header_bytes..).context("an answer without a header")?)
    }

    /// Encodes a complete request without sending it.
    pub fn frame(&self, name: &str, version: i16, body: &Value) -> Vec<u8> {
        super::trial::frame(self.schemas, name, version, body)
    }

    /// Creates a topic and returns its id.
    pub fn create_topic(&mut self, name: &str, partitions: i32) -> Result<String> {
        // The records have old timestamps, and the first check of retention is 30 s after the start.
        let keep = json!([{"Name": "retention.ms", "Value": "-1"}]);
        let topic = json!({"Name": name, "NumPartitions": partitions, "ReplicationFactor": 1, "Configs": keep});
        let answer = self.ask("CreateTopics", 7, &json!({"timeoutMs": 30_000, "Topics": [topic]}))?;
        ensure!(answer["Topics"][0]["ErrorCode"] == 0, "create {name}: {answer}");
        Ok(answer["Topics"][0]["TopicId"].as_str().context("a topic id")?.to_owned())
    }

    /// Appends a batch to partition 0 of a topic.
    pub fn produce(&mut self, topic: &str, batch: &Batch) -> Result<()> {
        let partition = json!({"Index": 0, "Records": batch.hex()});
        let data = json!([{"Name": topic, "PartitionData": [partition]}]);
        let answer = self.ask("Produce", 9, &json!({"Acks": -1, "TimeoutMs": 30_000, "TopicData": data}))?;
        let error = &answer["Responses"][0]["PartitionResponses"][0]["ErrorCode"];
        ensure!(*error == 0, "produce: {answer}");
        Ok(())
    }

    /// Joins a group as a new member with this many bytes of metadata; returns the member's id and the generation.
    pub fn join(&mut self, group: &str, metadata_bytes: usize) -> Result<(Value, Value)> {
        let join = json!({"GroupId": group, "SessionTimeoutMs": 1_800_000, "RebalanceTimeoutMs": i32::MAX,
            "ProtocolType": "consumer",
            "Protocols": [{"Name": "range", "Metadata": codec::hex(&vec![7; metadata_bytes])}]});
        let member = self.until_there("JoinGroup", 2, &join, |answer| answer["ErrorCode"].as_i64())?;
        Ok((member["MemberId"].clone(), member["GenerationId"].clone()))
    }

    fn produce_as_many(&mut self, producers: i64) -> Result<()> {
        (0..producers).try_for_each(|number| self.produce(TOPIC, &Batch::of(1).idempotent(100_000 + number, 0, 0)))
    }

    fn make_group(&mut self, size: &Size) -> Result<()> {
        let (id, generation) = self.join(GROUP, size.member_bytes)?;
        let assignment = codec::hex(&vec![7; size.member_bytes]);
        let sync = json!({"GroupId": GROUP, "GenerationId": generation, "MemberId": id,
            "Assignments": [{"MemberId": id, "Assignment": assignment}]});
        let synced = self.ask("SyncGroup", 2, &sync)?;
        ensure!(synced["ErrorCode"] == 0, "sync: {synced}");
        let partition = |index| json!({"PartitionIndex": index, "CommittedOffset": 5, "CommittedMetadata": "m".repeat(OFFSET_METADATA_BYTES)});
        let partitions: Vec<Value> = (0..size.offset_partitions).map(partition).collect();
        let commit = json!({"GroupId": GROUP, "GenerationIdOrMemberEpoch": generation, "MemberId": id,
            "Topics": [{"Name": WIDE_TOPIC, "Partitions": partitions}, {"Name": TOPIC, "Partitions": [partition(0)]}]});
        let first = |answer: &Value| answer["Topics"][0]["Partitions"][0]["ErrorCode"].as_i64();
        self.until_there("OffsetCommit", 6, &commit, first).map(drop)
    }

    /// Repeats a request until the coordinator is available.
    fn until_there(
        &mut self,
        name: &str,
        version: i16,
        body: &Value,
        error: impl Fn(&Value) -> Option<i64>,
    ) -> Result<Value> {
        // FindCoordinator creates the offsets topic.
        eventually(&format!("{name} is answered by the coordinator"), READY_LIMIT, || {
            let found = self.ask("FindCoordinator", 0, &json!({"Key": GROUP}));
            let answer = found.and_then(|_| self.ask(name, version, body));
            match answer.as_ref().map(&error) {
                Ok(Some(code)) if NOT_YET.contains(&code) => None,
                Ok(Some(0)) => Some(answer),
                _ => Some(answer.and_then(|answer| bail!("{name}: {answer}"))),
            }
        })
    }
}
