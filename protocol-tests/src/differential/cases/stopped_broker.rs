//! Three brokers of which one is stopped by a controlled shutdown, or killed, and started again: in-sync, offline and
//! eligible replicas, leader epochs, elections, and requests with old leader epochs.

use serde_json::{Value, json};

use super::{Row, STOPPED_BROKER};
use crate::differential::{
    batch::Batch,
    case::{Case, fetch, produce, served},
};

pub(super) const CASES: &[Row] = &[row("stopped-broker", stopped_broker), row("stopped-killed", killed_broker)];

const fn row(name: &'static str, run: fn(&mut Case)) -> Row {
    Row { name, setup: &STOPPED_BROKER, run }
}

/// The broker that is stopped.
const STOPPED: i32 = 3;
const ALIVE: [i32; 2] = [1, 2];
const PREFERRED: i32 = 0;
const UNCLEAN: i32 = 1;

struct Topics {
    /// Three replicas; broker 3 leads partitions 1 and 2.
    replicated: (String, Value),
    /// Replicas on brokers 3 and 1, both of them needed for acks=all.
    strict: (String, Value),
    /// A single replica on broker 3.
    single: (String, Value),
}

const REPLICATED: &[&[i32]] = &[&[1, 2, 3], &[3, 1, 2], &[3, 2, 1]];
const STRICT: &[&[i32]] = &[&[3, 1]];
const SINGLE: &[&[i32]] = &[&[3]];

impl Topics {
    fn create(case: &mut Case) -> Topics {
        let mut create = |suffix: &str, replicas: &[&[i32]], configs: &[(&str, &str)]| {
            let name = case.named(suffix);
            let id = case.replicated_topic(&name, replicas, configs);
            (name, id)
        };
        Topics {
            replicated: create("replicated", REPLICATED, &[]),
            strict: create("strict", STRICT, &[("min.insync.replicas", "2")]),
            single: create("single", SINGLE, &[]),
        }
    }

    fn names(&self) -> Value {
        json!([{"Name": self.replicated.0}, {"Name": self.strict.0}, {"Name": self.single.0}])
    }

    /// All partitions for ElectLeaders.
    fn partitions(&self) -> Value {
        json!([{"Topic": self.replicated.0, "Partitions": [0, 1, 2]}, {"Topic": self.strict.0, "Partitions": [0]},
            {"Topic": self.single.0, "Partitions": [0]}])
    }

    /// Waits until the brokers know that the stopped one leads nothing and is in sync nowhere else.
    fn await_other_leaders(&self, case: &mut Case) {
        for broker in ALIVE {
            case.turn_to_broker(broker);
            case.until("the stopped broker leads nothing", |case| {
                let answer = case.quietly("Metadata", 9, json!({"Topics": self.names()}));
                let brokers = answer["Brokers"].as_array().map_or(0, Vec::len);
                let topics = answer["Topics"].as_array().cloned().unwrap_or_default();
                let is_in_sync = |partition: &Value| {
                    let alone = partition["ReplicaNodes"].as_array().is_some_and(|ids| ids.len() == 1);
                    !alone && partition["IsrNodes"].as_array().is_some_and(|ids| ids.contains(&STOPPED.into()))
                };
                brokers == ALIVE.len()
                    && topics
                        .iter()
                        .flat_map(|topic| topic["Partitions"].as_array().into_iter().flatten())
                        .all(|partition| partition["LeaderId"] != STOPPED && !is_in_sync(partition))
            });
        }
    }

    /// Waits until all replicas are in sync, wherever the leaders are.
    fn await_in_sync(&self, case: &mut Case) {
        for broker in [1, 2, 3] {
            case.turn_to_broker(broker);
            case.until("all replicas are in sync", |case| {
                let answer = case.quietly("Metadata", 9, json!({"Topics": self.names()}));
                let topics = answer["Topics"].as_array().cloned().unwrap_or_default();
                topics.iter().flat_map(|topic| topic["Partitions"].as_array().into_iter().flatten()).all(|partition| {
                    let count = |field: &str| partition[field].as_array().map_or(0, Vec::len);
                    partition["LeaderId"] != -1 && count("IsrNodes") == count("ReplicaNodes")
                })
            });
        }
    }
}

fn stopped_broker(case: &mut Case) {
    case.ignore_order("IsrNodes");
    let topics = Topics::create(case);
    case.turn_to_broker(1);
    case.append(&topics.replicated.0, &Batch::of(1).hex());
    case.stop_broker(STOPPED);
    topics.await_other_leaders(case);
    for broker in ALIVE {
        case.turn_to_broker(broker);
        describe(case, &topics, &format!("stopped, at broker {broker}"));
    }
    case.turn_to_broker(1);
    requests_without_it(case, &topics);
    case.start_broker(STOPPED);
    topics.await_in_sync(case);
    for broker in [1, 2, 3] {
        case.turn_to_broker(broker);
        describe(case, &topics, &format!("back, at broker {broker}"));
    }
    old_leader_epochs(case, &topics);
    case.turn_to_broker(2);
    for kind in [UNCLEAN, PREFERRED] {
        case.note(format!("back, election of kind {kind}"));
        case.ask("ElectLeaders", 2, election(kind, &topics.partitions()));
    }
    case.await_replicas(&topics.replicated.0, REPLICATED);
    case.await_replicas(&topics.strict.0, STRICT);
    case.turn_to_broker(2);
    describe(case, &topics, "after the election");
}

/// A broker that is killed is no longer an eligible leader when it comes back (KIP-966).
fn killed_broker(case: &mut Case) {
    case.ignore_order("IsrNodes");
    let topics = Topics::create(case);
    case.turn_to_broker(1);
    case.append(&topics.replicated.0, &Batch::of(1).hex());
    case.kill_broker(STOPPED);
    topics.await_other_leaders(case);
    for broker in ALIVE {
        case.turn_to_broker(broker);
        describe(case, &topics, &format!("killed, at broker {broker}"));
    }
    case.turn_to_broker(1);
    case.note("killed, too few in-sync replicas");
    let (name, id) = &topics.strict;
    case.ask("Produce", 9, produce(name, id, -1, &Batch::of(1).hex()));
    for kind in [PREFERRED, UNCLEAN] {
        case.note(format!("killed, election of kind {kind}"));
        case.ask("ElectLeaders", 2, election(kind, &topics.partitions()));
    }
    case.start_broker(STOPPED);
    topics.await_in_sync(case);
    for broker in [1, 2, 3] {
        case.turn_to_broker(broker);
        describe(case, &topics, &format!("back, at broker {broker}"));
    }
    case.note("back, election");
    case.ask("ElectLeaders", 2, election(PREFERRED, &topics.partitions()));
    case.await_replicas(&topics.replicated.0, REPLICATED);
    case.await_replicas(&topics.strict.0, STRICT);
    case.turn_to_broker(2);
    describe(case, &topics, "after the election");
}

fn describe(case: &mut Case, topics: &Topics, note: &str) {
    case.note(note);
    case.ask_all("Metadata", json!({"Topics": topics.names()}));
    case.ask("DescribeTopicPartitions", 0, json!({"Topics": topics.names()}));
    for include_fenced in [false, true] {
        case.note(format!("{note}, fenced {include_fenced}"));
        case.ask("DescribeCluster", 2, json!({"EndpointType": 1, "IncludeFencedBrokers": include_fenced}));
    }
}

fn election(kind: i32, topics: &Value) -> Value {
    json!({"ElectionType": kind, "TimeoutMs": 5000, "TopicPartitions": topics})
}

fn requests_without_it(case: &mut Case, topics: &Topics) {
    let records = Batch::of(1).hex();
    for version in served("ElectLeaders") {
        for kind in [PREFERRED, UNCLEAN] {
            if version > 0 || kind == PREFERRED {
                case.note(format!("stopped, election of kind {kind}"));
                case.ask("ElectLeaders", version, election(kind, &topics.partitions()));
            }
        }
    }
    for (topic, (name, id)) in
        [("replicated", &topics.replicated), ("strict", &topics.strict), ("single", &topics.single)]
    {
        for version in served("Produce") {
            for acks in [1, -1] {
                case.note(format!("stopped, {topic}, acks {acks}"));
                case.ask("Produce", version, produce(name, id, acks, &records));
            }
        }
        case.note(format!("stopped, {topic}"));
        case.ask_all("Fetch", fetch(name, id, 0));
        for timestamp in [-1, -2] {
            let partition = json!({"PartitionIndex": 0, "Timestamp": timestamp});
            let body = json!({"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": [partition]}]});
            case.ask_all("ListOffsets", body);
        }
    }
    creations_without_it(case);
    case.note("stopped");
    for group in ["a", "b", "c"] {
        case.ask("FindCoordinator", 6, json!({"CoordinatorKeys": [group]}));
    }
    let configs = json!([{"ResourceType": 4, "ResourceName": "3", "ConfigurationKeys": ["node.id"]}]);
    case.ask("DescribeConfigs", 4, json!({"Resources": configs}));
}

/// A stopped broker can get replicas, but leads none.
fn creations_without_it(case: &mut Case) {
    for factor in [1, 2, 3, 4] {
        case.note(format!("stopped, 3 partitions, factor {factor}"));
        let name = case.named(&format!("factor-{factor}"));
        let topic = json!({"Name": name, "NumPartitions": 3, "ReplicationFactor": factor});
        case.ask("CreateTopics", 7, json!({"timeoutMs": 10_000, "Topics": [topic]}));
    }
    for (what, replicas) in [("first", [3, 1]), ("last", [1, 3])] {
        case.note(format!("stopped, assigned as the {what}"));
        let name = case.named(&format!("assigned-{what}"));
        let rows = json!([{"PartitionIndex": 0, "BrokerIds": replicas}]);
        let topic = json!({"Name": name, "NumPartitions": -1, "ReplicationFactor": -1, "Assignments": rows});
        case.ask("CreateTopics", 7, json!({"timeoutMs": 10_000, "Topics": [topic]}));
        case.until("the topic is known", |case| {
            let answer = case.quietly("Metadata", 9, json!({"Topics": [{"Name": name}]}));
            answer["Topics"][0]["ErrorCode"] == 0
        });
        case.ask("Metadata", 9, json!({"Topics": [{"Name": name}]}));
        let more = json!([{"Name": name, "Count": 2, "Assignments": [{"BrokerIds": replicas}]}]);
        case.ask("CreatePartitions", 3, json!({"TimeoutMs": 5000, "Topics": more}));
    }
    case.note("stopped, assigned alone");
    let rows = json!([{"PartitionIndex": 0, "BrokerIds": [3]}]);
    let name = case.named("assigned-alone");
    let topic = json!({"Name": name, "NumPartitions": -1, "ReplicationFactor": -1, "Assignments": rows});
    case.ask("CreateTopics", 7, json!({"timeoutMs": 10_000, "Topics": [topic]}));
}

/// Partition 1 of the replicated topic had leader epoch 0 at broker 3 and has a later one at broker 1 now.
fn old_leader_epochs(case: &mut Case, topics: &Topics) {
    let (name, id) = &topics.replicated;
    for (broker, role) in [(1, "the leader"), (2, "a follower")] {
        case.turn_to_broker(broker);
        for epoch in [-1, 0, 1, 9] {
            case.note(format!("back, {role}, leader epoch {epoch}"));
            for version in served("Fetch").filter(|version| *version >= 9) {
                let mut body = fetch(name, id, 0);
                body["Topics"][0]["Partitions"][0]["Partition"] = 1.into();
                body["Topics"][0]["Partitions"][0]["CurrentLeaderEpoch"] = epoch.into();
                case.ask("Fetch", version, body);
            }
            for version in served("ListOffsets").filter(|version| *version >= 4) {
                let partition = json!({"PartitionIndex": 1, "Timestamp": -1, "CurrentLeaderEpoch": epoch});
                let body = json!({"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": [partition]}]});
                case.ask("ListOffsets", version, body);
            }
            for asked in [0, 1, 9] {
                case.note(format!("back, {role}, leader epoch {epoch}, asks for epoch {asked}"));
                let partition = json!({"Partition": 1, "CurrentLeaderEpoch": epoch, "LeaderEpoch": asked});
                let body = json!({"ReplicaId": -1, "Topics": [{"Topic": name, "Partitions": [partition]}]});
                case.ask_all("OffsetForLeaderEpoch", body);
            }
        }
    }
}
