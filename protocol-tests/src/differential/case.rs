//! The tools of a case: it sends requests on one or several connections, prepares topics and groups outside of the
//! transcript, and records requests and answers in the transcript. Leaves masking to `mask.rs`.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    codec,
    mask::Names,
    schema::Schemas,
    wire::{ANSWER_LIMIT, Connection, Outcome},
};
use crate::{broker::Broker, cluster::Cluster};

/// Longest wait for a change. Apache Kafka fences a broker that is gone after 9 s.
const CHANGE_LIMIT: Duration = Duration::from_secs(30);

/// The versions that Ottla supports. Each has at least one case.
pub const SERVED: &[(&str, RangeInclusive<i16>)] = &[
    ("Produce", 3..=13),
    ("Fetch", 4..=18),
    ("ListOffsets", 1..=11),
    ("Metadata", 0..=13),
    ("OffsetCommit", 2..=10),
    ("OffsetFetch", 1..=10),
    ("FindCoordinator", 0..=6),
    ("JoinGroup", 0..=9),
    ("Heartbeat", 0..=4),
    ("LeaveGroup", 0..=5),
    ("SyncGroup", 0..=5),
    ("DescribeGroups", 0..=6),
    ("ListGroups", 0..=5),
    ("SaslHandshake", 0..=1),
    ("ApiVersions", 0..=4),
    ("CreateTopics", 2..=7),
    ("DeleteTopics", 1..=6),
    ("DeleteRecords", 0..=2),
    ("InitProducerId", 0..=5),
    ("OffsetForLeaderEpoch", 2..=4),
    ("DescribeAcls", 1..=3),
    ("CreateAcls", 1..=3),
    ("DeleteAcls", 1..=3),
    ("DescribeConfigs", 1..=4),
    ("AlterConfigs", 0..=2),
    ("AlterReplicaLogDirs", 1..=2),
    ("DescribeLogDirs", 1..=5),
    ("CreatePartitions", 0..=3),
    ("DeleteGroups", 0..=2),
    ("ElectLeaders", 0..=2),
    ("IncrementalAlterConfigs", 0..=1),
    ("AlterPartitionReassignments", 0..=1),
    ("ListPartitionReassignments", 0..=0),
    ("OffsetDelete", 0..=0),
    ("DescribeClientQuotas", 0..=1),
    ("AlterClientQuotas", 0..=1),
    ("DescribeUserScramCredentials", 0..=0),
    ("DescribeQuorum", 0..=2),
    ("UpdateFeatures", 0..=2),
    ("DescribeCluster", 0..=2),
    ("DescribeProducers", 0..=0),
    ("UnregisterBroker", 0..=0),
    ("DescribeTransactions", 0..=0),
    ("ListTransactions", 0..=2),
    ("ListConfigResources", 0..=1),
    ("DescribeTopicPartitions", 0..=0),
];

/// # Panics
/// If the API is not supported.
pub fn served(api: &str) -> RangeInclusive<i16> {
    let row = SERVED.iter().find(|(name, _)| *name == api);
    row.unwrap_or_else(|| panic!("{api} is not served")).1.clone()
}

/// One step of a transcript: the request and the masked answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub ask: String,
    pub answer: Value,
}

/// Where a server under test, or each node of a cluster, accepts connections; node N is at index N-1.
pub struct Addresses {
    pub brokers: Vec<SocketAddr>,
    /// Empty if a single node has no listener for controllers.
    pub controllers: Vec<SocketAddr>,
    /// The cluster, whose brokers a case may stop and start.
    pub cluster: Option<Arc<Mutex<Cluster>>>,
}

impl Addresses {
    pub fn of_one(broker: SocketAddr) -> Addresses {
        Addresses { brokers: vec![broker], controllers: Vec::new(), cluster: None }
    }
}

pub struct Case<'a> {
    pub name: &'static str,
    schemas: &'a Schemas,
    addresses: &'a Addresses,
    /// The address of the main connection and of further ones.
    address: SocketAddr,
    main: Connection,
    names: Names,
    note: String,
    pub steps: Vec<Step>,
}

/// A request without an answer yet.
#[derive(Debug)]
pub struct Pending {
    api: &'static str,
    version: i16,
    correlation_id: i32,
}

impl<'a> Case<'a> {
    /// A case that begins at the first broker.
    pub fn new(name: &'static str, schemas: &'a Schemas, addresses: &'a Addresses) -> Result<Case<'a>> {
        let address = *addresses.brokers.first().context("a server without a broker")?;
        let main = Connection::open(address)?;
        let mut names = Names::default();
        if addresses.brokers.len() > 1 {
            // Any of the nodes.
            names.mark("ControllerId", "<controller>");
        }
        Ok(Case { name, schemas, addresses, address, main, names, note: String::new(), steps: Vec::new() })
    }

    /// Sends the following requests to this broker.
    pub fn turn_to_broker(&mut self, id: i32) {
        self.turn_to(self.addresses.brokers[id as usize - 1]);
    }

    /// Sends the following requests to the controller listener of this node.
    pub fn turn_to_controller(&mut self, id: i32) {
        self.turn_to(self.addresses.controllers[id as usize - 1]);
    }

    /// Sorts the numbers in the lists of this field in the following answers.
    pub fn ignore_order(&mut self, field: &'static str) {
        self.names.ignore_order(field);
    }

    /// Stops a broker of the cluster by a controlled shutdown.
    pub fn stop_broker(&mut self, id: i32) {
        self.with_broker(id, |broker| _ = broker.stop());
    }

    /// Kills a broker of the cluster.
    pub fn kill_broker(&mut self, id: i32) {
        self.with_broker(id, Broker::kill);
    }

    /// Starts a broker of the cluster again.
    pub fn start_broker(&mut self, id: i32) {
        self.with_broker(id, Broker::start);
    }

    fn with_broker(&self, id: i32, action: impl FnOnce(&mut Broker)) {
        let cluster = self.addresses.cluster.as_ref().expect("a cluster");
        action(cluster.lock().expect("lock the cluster").broker(id));
    }

    fn turn_to(&mut self, address: SocketAddr) {
        self.address = address;
        self.main = self.connect();
    }

    /// Returns the node id of the active controller.
    pub fn active_controller(&mut self) -> i32 {
        self.turn_to_broker(1);
        let topics = json!([{"TopicName": "__cluster_metadata", "Partitions": [{"PartitionIndex": 0}]}]);
        let answer = self.quietly("DescribeQuorum", 0, json!({"Topics": topics}));
        answer["Topics"][0]["Partitions"][0]["LeaderId"].as_i64().unwrap_or_default() as i32
    }

    /// Replaces the values of this field, unless they are negative, by a mark in the following answers.
    pub fn mark(&mut self, field: &'static str, mark: &'static str) {
        self.names.mark(field, mark);
    }

    /// Returns a name for a topic or group that no other case uses.
    pub fn named(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.name)
    }

    /// Sets a note that the following steps have in the transcript.
    pub fn note(&mut self, note: impl Into<String>) {
        self.note = note.into();
    }

    /// Sends a request in one version on the case's connection; returns the unmasked answer, or `Null` if none came.
    pub fn ask(&mut self, api: &'static str, version: i16, body: Value) -> Value {
        let (answer, text) = self.exchange(api, version, body);
        self.push(format!("{api} v{version}"), text.map_or_else(|| answer.clone(), Value::from), Some(api));
        answer
    }

    /// Sends the same request in every supported version.
    pub fn ask_all(&mut self, api: &'static str, body: Value) {
        for version in served(api) {
            self.ask(api, version, body.clone());
        }
    }

    /// Sends a request without recording it in the transcript.
    pub fn quietly(&mut self, api: &'static str, version: i16, body: Value) -> Value {
        self.exchange(api, version, body).0
    }

    /// Sends a request and records whether the answer came within the limit or later.
    pub fn ask_timed(&mut self, limit_ms: u64, api: &'static str, version: i16, body: Value) -> Value {
        let start = Instant::now();
        let answer = self.ask(api, version, body);
        self.push_time(start, limit_ms);
        answer
    }

    pub fn push_time(&mut self, start: Instant, limit_ms: u64) {
        let early = start.elapsed() < Duration::from_millis(limit_ms);
        self.push(format!("time of that, limit {limit_ms} ms"), if early { "early" } else { "late" }.into(), None);
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address).expect("a second connection opens")
    }

    pub fn send(&self, connection: &mut Connection, api: &'static str, version: i16, body: &Value) -> Pending {
        self.send_as(connection, Some("differential"), api, version, body)
    }

    pub fn send_as(
        &self,
        connection: &mut Connection,
        client_id: Option<&str>,
        api: &'static str,
        version: i16,
        body: &Value,
    ) -> Pending {
        let schema = self.schemas.api(api);
        let body = codec::encode(&schema.request, version, body);
        let correlation_id = connection.send(schema, version, client_id, &body);
        Pending { api, version, correlation_id }
    }

    /// Records the answer to an earlier `send` in the transcript.
    pub fn receive(&mut self, connection: &mut Connection, pending: &Pending) -> Value {
        let outcome = connection.receive(ANSWER_LIMIT);
        let (answer, text) = self.decode(pending, outcome);
        let ask = format!("{} v{}", pending.api, pending.version);
        self.push(ask, text.map_or_else(|| answer.clone(), Value::from), Some(pending.api));
        answer
    }

    /// Sends a request on another connection and records it.
    pub fn ask_on(&mut self, connection: &mut Connection, api: &'static str, version: i16, body: Value) -> Value {
        let pending = self.send(connection, api, version, &body);
        self.receive(connection, &pending)
    }

    /// Sends bytes on a new connection and records the reaction: frames in hex, the end, or nothing within half a
    /// second.
    pub fn raw(&mut self, what: &str, bytes: &[u8]) {
        let mut connection = self.connect();
        connection.send_bytes(bytes);
        self.outcome(what, &mut connection);
    }

    /// Records the next frame of a connection, its end, or silence.
    pub fn outcome(&mut self, what: &str, connection: &mut Connection) {
        let text = match connection.receive(Duration::from_millis(500)) {
            Outcome::Frame(frame) => format!("frame {}", codec::hex(&frame)),
            Outcome::Closed => "closed".into(),
            Outcome::Silent => "silent".into(),
        };
        self.push(what.to_owned(), text.into(), None);
    }

    /// Like `outcome`, but without the content of a frame, for answers with values that differ between servers.
    pub fn outcome_kind(&mut self, what: &str, connection: &mut Connection) {
        let text = match connection.receive(Duration::from_millis(500)) {
            Outcome::Frame(_) => "a frame",
            Outcome::Closed => "closed",
            Outcome::Silent => "silent",
        };
        self.push(what.to_owned(), text.into(), None);
    }

    pub fn key(&self, api: &str) -> i16 {
        self.schemas.api(api).key
    }

    /// Encodes the body of a request, for cases that send their own bytes.
    pub fn body(&self, api: &'static str, version: i16, body: &Value) -> Vec<u8> {
        codec::encode(&self.schemas.api(api).request, version, body)
    }

    /// Records a step, masked and with the current note.
    pub fn push(&mut self, ask: String, mut answer: Value, api: Option<&str>) {
        self.names.mask(api.unwrap_or_default(), &mut answer);
        let ask = if self.note.is_empty() { ask } else { format!("{ask} [{}]", self.note) };
        self.steps.push(Step { ask, answer });
    }

    /// Replaces the value by this name in the following answers.
    pub fn name(&mut self, value: &Value, name: &str) {
        self.names.insert(value, name);
    }

    /// Replaces the member's UUID by a number in the following answers, so that lists of members have an order.
    pub fn name_member(&mut self, id: &Value) {
        let text = id.as_str().unwrap_or_default();
        let uuid = text.len().checked_sub(36).and_then(|at| text.get(at..)).unwrap_or_default();
        self.names.insert_next(uuid, "member");
    }

    /// Creates a topic, waits until all its partitions are ready, and returns its name and id.
    pub fn topic(&mut self, suffix: &str, partitions: i32, configs: &[(&str, &str)]) -> (String, Value) {
        let name = self.named(suffix);
        let configs: Vec<Value> = configs.iter().map(|(name, value)| json!({"Name": name, "Value": value})).collect();
        let answer = self.quietly(
            "CreateTopics",
            7,
            json!({"timeoutMs": 10_000, "Topics": [{"Name": name, "NumPartitions": partitions, "ReplicationFactor": 1, "Configs": configs}]}),
        );
        let id = answer["Topics"][0]["TopicId"].clone();
        self.names.insert(&id, &format!("<id of {suffix}>"));
        self.await_topic(&name, partitions);
        (name, id)
    }

    /// Creates a topic with these replicas for each partition, waits until each broker knows all replicas in sync and
    /// each leader is ready, and returns its id.
    pub fn replicated_topic(&mut self, name: &str, replicas: &[&[i32]], configs: &[(&str, &str)]) -> Value {
        let configs: Vec<Value> = configs.iter().map(|(name, value)| json!({"Name": name, "Value": value})).collect();
        let assignments: Vec<Value> =
            replicas.iter().zip(0..).map(|(ids, index)| json!({"PartitionIndex": index, "BrokerIds": ids})).collect();
        let topic = json!({"Name": name, "NumPartitions": -1, "ReplicationFactor": -1, "Assignments": assignments,
            "Configs": configs});
        let answer = self.quietly("CreateTopics", 7, json!({"timeoutMs": 10_000, "Topics": [topic]}));
        let id = answer["Topics"][0]["TopicId"].clone();
        self.names.insert(&id, &format!("<id of {}>", name.trim_start_matches(self.name).trim_start_matches('-')));
        self.await_replicas(name, replicas);
        id
    }

    /// Waits until all brokers know that these replicas are in sync and that each first one leads its partition.
    pub fn await_replicas(&mut self, name: &str, replicas: &[&[i32]]) {
        let before = self.address;
        for broker in (1..).take(self.addresses.brokers.len()) {
            self.turn_to_broker(broker);
            self.until("a topic's replicas are in sync", |case| {
                let answer = case.quietly("Metadata", 9, json!({"Topics": [{"Name": name}]}));
                let partitions = answer["Topics"][0]["Partitions"].as_array().cloned().unwrap_or_default();
                partitions.len() == replicas.len()
                    && partitions.iter().all(|partition| {
                        let ids = replicas[partition["PartitionIndex"].as_u64().unwrap_or_default() as usize];
                        let in_sync = partition["IsrNodes"].as_array().map_or(0, Vec::len);
                        partition["LeaderId"] == ids[0] && in_sync == ids.len()
                    })
            });
            for (_, index) in replicas.iter().zip(0..).filter(|(ids, _)| ids[0] == broker) {
                self.until("a leader is ready", |case| {
                    let partition = json!({"PartitionIndex": index, "Timestamp": -1});
                    let body = json!({"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": [partition]}]});
                    case.quietly("ListOffsets", 5, body)["Topics"][0]["Partitions"][0]["ErrorCode"] == 0
                });
            }
        }
        self.turn_to(before);
    }

    /// Waits until every partition of a topic accepts ListOffsets (Kafka answers CreateTopics before that).
    pub fn await_topic(&mut self, name: &str, partitions: i32) {
        let all: Vec<Value> = (0..partitions).map(|index| json!({"PartitionIndex": index, "Timestamp": -1})).collect();
        self.until("a topic's partitions answer", |case| {
            let body = json!({"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": all}]});
            let answer = case.quietly("ListOffsets", 5, body);
            let answered = answer["Topics"][0]["Partitions"].as_array();
            answered.is_some_and(|list| list.len() == all.len() && list.iter().all(|one| one["ErrorCode"] == 0))
        });
    }

    /// Repeats until the condition is true. If it stays false, the transcript records that.
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Case) -> bool) {
        let limit = Instant::now() + CHANGE_LIMIT;
        while !is_so(self) {
            if Instant::now() > limit {
                self.push(format!("wait until {what}"), "never".into(), None);
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Appends a batch (in hex) to partition 0 of a topic, without recording it.
    pub fn append(&mut self, topic: &str, records: &str) -> Value {
        self.quietly("Produce", 9, produce(topic, &Value::Null, -1, records))
    }

    fn exchange(&mut self, api: &'static str, version: i16, body: Value) -> (Value, Option<String>) {
        let schema = self.schemas.api(api);
        let bytes = codec::encode(&schema.request, version, &body);
        let correlation_id = self.main.send(schema, version, Some("differential"), &bytes);
        let outcome = self.main.receive(ANSWER_LIMIT);
        if !matches!(outcome, Outcome::Frame(_)) {
            self.main = self.connect();
        }
        self.decode(&Pending { api, version, correlation_id }, outcome)
    }

    /// Returns the answer, or `Null` and a description of what came instead.
    fn decode(&self, pending: &Pending, outcome: Outcome) -> (Value, Option<String>) {
        let frame = match outcome {
            Outcome::Frame(frame) => frame,
            Outcome::Closed => return (Value::Null, Some("closed".into())),
            Outcome::Silent => return (Value::Null, Some("silent".into())),
        };
        match self.response(pending, &frame) {
            Ok(answer) => (answer, None),
            Err(error) => (Value::Null, Some(format!("unreadable: {error:#}"))),
        }
    }

    fn response(&self, pending: &Pending, frame: &[u8]) -> Result<Value> {
        let api = self.schemas.api(pending.api);
        let (id, rest) = frame.split_first_chunk::<4>().context("a response without a header")?;
        ensure!(i32::from_be_bytes(*id) == pending.correlation_id, "another correlation id");
        // ApiVersions always has header v0, and a server answers an unknown version of it in version 0.
        if pending.api == "ApiVersions" {
            let version = if rest.starts_with(&[0, 35]) { 0 } else { pending.version };
            return codec::decode(&api.response, version, rest);
        }
        let rest = match api.response.flexible.contains(pending.version) {
            true => rest.strip_prefix(&[0]).context("a response header without tags")?,
            false => rest,
        };
        codec::decode(&api.response, pending.version, rest)
    }
}

/// A Produce request with one batch for partition 0, by name (up to v12) and id (from v13).
pub fn produce(topic: &str, id: &Value, acks: i16, records: &str) -> Value {
    json!({"Acks": acks, "TimeoutMs": 5000, "TopicData": [
        {"Name": topic, "TopicId": id, "PartitionData": [{"Index": 0, "Records": records}]}]})
}

/// A Fetch request for partition 0, by name (up to v12) and id (from v13), that does not wait.
pub fn fetch(topic: &str, id: &Value, offset: i64) -> Value {
    json!({"MaxWaitMs": 0, "MinBytes": 1, "Topics": [
        {"Topic": topic, "TopicId": id, "Partitions": [{"Partition": 0, "FetchOffset": offset, "PartitionMaxBytes": 1 << 20}]}]})
}
