//! Requests for single partitions and their replicas: DeleteRecords (A4), ElectLeaders and reassignments (A7),
//! AlterReplicaLogDirs (A8).

use serde_json::{Value, json};

use super::{Row, alone, shared};
use crate::differential::{
    batch::Batch,
    case::{Case, fetch, served},
};

pub(super) const CASES: &[Row] = &[
    shared("partitions-a4-delete-records", delete_records),
    shared("partitions-a4-delete-records-policy", delete_records_policy),
    shared("partitions-a7-elect-leaders", elect_leaders),
    alone("partitions-a7-elect-leaders-all", elect_leaders_all),
    shared("partitions-a7-reassign", reassign),
    alone("partitions-a7-reassignments-all", reassignments_all),
    shared("partitions-a8-move-between-log-dirs", alter_replica_log_dirs),
];

fn before(topic: &str, partition: i32, offset: i64) -> Value {
    json!({"TimeoutMs": 5000, "Topics": [
        {"Name": topic, "Partitions": [{"PartitionIndex": partition, "Offset": offset}]}]})
}

fn delete_records(case: &mut Case) {
    for version in served("DeleteRecords") {
        let (topic, id) = case.topic(&format!("v{version}"), 2, &[]);
        for count in 1..4 {
            case.append(&topic, &Batch::of(count).hex());
        }
        case.note("nothing to delete");
        case.ask("DeleteRecords", version, before(&topic, 0, 0));
        case.note("into a batch");
        case.ask("DeleteRecords", version, before(&topic, 0, 2));
        case.note("what is left");
        case.ask("Fetch", 12, fetch(&topic, &id, 1));
        case.ask("Fetch", 12, fetch(&topic, &id, 2));
        case.note("below what is deleted");
        case.ask("DeleteRecords", version, before(&topic, 0, 1));
        for offset in [7, i64::MAX, -2, i64::MIN] {
            case.note(format!("offset {offset}"));
            case.ask("DeleteRecords", version, before(&topic, 0, offset));
        }
        case.note("all there is");
        case.ask("DeleteRecords", version, before(&topic, 0, -1));
        case.note("the start and the end");
        for timestamp in [-2, -1] {
            let partition = json!({"PartitionIndex": 0, "Timestamp": timestamp});
            case.ask(
                "ListOffsets",
                5,
                json!({"ReplicaId": -1, "Topics": [{"Name": topic, "Partitions": [partition]}]}),
            );
        }
        case.note("an empty partition");
        case.ask("DeleteRecords", version, before(&topic, 1, -1));
        case.note("unknown");
        case.ask("DeleteRecords", version, before(&topic, 2, 0));
        case.ask("DeleteRecords", version, before(&case.named("none"), 0, 0));
        case.note("nothing");
        case.ask("DeleteRecords", version, json!({"TimeoutMs": 5000, "Topics": []}));
    }
}

fn delete_records_policy(case: &mut Case) {
    let (compacted, _) = case.topic("compacted", 1, &[("cleanup.policy", "compact")]);
    let (both, _) = case.topic("both", 1, &[("cleanup.policy", "compact,delete")]);
    for topic in [compacted, both, "__consumer_offsets".into()] {
        case.ask_all("DeleteRecords", before(&topic, 0, -1));
    }
}

fn election(kind: i32, topics: Value) -> Value {
    json!({"ElectionType": kind, "TimeoutMs": 5000, "TopicPartitions": topics})
}

fn elect_leaders(case: &mut Case) {
    let (topic, _) = case.topic("t", 2, &[]);
    for version in served("ElectLeaders") {
        for kind in [0, 1, 2, -1] {
            // Version 0 knows preferred leaders only.
            if version == 0 && kind != 0 {
                continue;
            }
            case.note(format!("kind {kind}"));
            case.ask("ElectLeaders", version, election(kind, json!([{"Topic": topic, "Partitions": [0, 1]}])));
            case.note(format!("kind {kind}, unknown"));
            let unknown = json!([{"Topic": topic, "Partitions": [5]}]);
            case.ask("ElectLeaders", version, election(kind, unknown));
            let unknown = json!([{"Topic": case.named("none"), "Partitions": [0]}]);
            case.ask("ElectLeaders", version, election(kind, unknown));
        }
        case.note("nothing");
        case.ask("ElectLeaders", version, election(0, json!([])));
    }
}

fn elect_leaders_all(case: &mut Case) {
    case.topic("t", 2, &[]);
    for version in served("ElectLeaders") {
        let mut answer = case.quietly("ElectLeaders", version, election(0, Value::Null));
        // Kafka lists each topic, even those without a partition in the answer.
        if let Some(list) = answer["ReplicaElectionResults"].as_array_mut() {
            list.retain(|topic| topic["Topic"].as_str().is_some_and(|name| name.starts_with("partitions-a7")));
        }
        case.push(format!("ElectLeaders v{version}"), answer, Some("ElectLeaders"));
    }
}

fn reassignment(topic: &str, partition: i32, replicas: Value) -> Value {
    json!({"TimeoutMs": 5000, "Topics": [
        {"Name": topic, "Partitions": [{"PartitionIndex": partition, "Replicas": replicas}]}]})
}

fn reassign(case: &mut Case) {
    let (topic, _) = case.topic("t", 2, &[]);
    let none = case.named("none");
    for version in served("AlterPartitionReassignments") {
        for (what, replicas) in [
            ("as it is", json!([1])),
            ("cancel", Value::Null),
            ("none", json!([])),
            ("the same twice", json!([1, 1])),
            ("a broker that is not there", json!([9])),
            ("one that is there and one that is not", json!([1, 9])),
            ("a negative broker", json!([-1])),
        ] {
            case.note(what);
            case.ask("AlterPartitionReassignments", version, reassignment(&topic, 0, replicas));
        }
        case.note("unknown");
        case.ask("AlterPartitionReassignments", version, reassignment(&topic, 7, json!([1])));
        case.ask("AlterPartitionReassignments", version, reassignment(&none, 0, json!([1])));
        case.ask("AlterPartitionReassignments", version, reassignment(&none, 0, Value::Null));
        case.note("the same partition twice");
        let partition = json!({"PartitionIndex": 0, "Replicas": [1]});
        let twice = json!({"TimeoutMs": 5000, "Topics": [{"Name": topic, "Partitions": [partition, partition]}]});
        case.ask("AlterPartitionReassignments", version, twice);
        case.note("nothing");
        case.ask("AlterPartitionReassignments", version, json!({"TimeoutMs": 5000, "Topics": []}));
    }
    for version in served("ListPartitionReassignments") {
        for (what, topics) in [
            ("there", json!([{"Name": topic, "PartitionIndexes": [0, 1]}])),
            ("unknown", json!([{"Name": topic, "PartitionIndexes": [7]}, {"Name": none, "PartitionIndexes": [0]}])),
            ("nothing", json!([])),
        ] {
            case.note(what);
            case.ask("ListPartitionReassignments", version, json!({"TimeoutMs": 5000, "Topics": topics}));
        }
    }
}

fn reassignments_all(case: &mut Case) {
    case.topic("t", 2, &[]);
    case.ask_all("ListPartitionReassignments", json!({"TimeoutMs": 5000, "Topics": null}));
}

fn alter_replica_log_dirs(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    let none = case.named("none");
    let described = case.quietly("DescribeLogDirs", 1, json!({"Topics": []}));
    let here = described["Results"][0]["LogDir"].clone();
    case.name(&here, "<the log directory>");
    let ask = |case: &mut Case, version: i16, dir: &Value, topic: &str, partition: i32| {
        let body = json!({"Dirs": [{"Path": dir, "Topics": [{"Name": topic, "Partitions": [partition]}]}]});
        case.ask("AlterReplicaLogDirs", version, body);
    };
    for version in served("AlterReplicaLogDirs") {
        case.note("where it is");
        ask(case, version, &here, &topic, 0);
        case.note("where nothing is");
        ask(case, version, &json!("/nonexistent"), &topic, 0);
        ask(case, version, &json!("/nonexistent"), &none, 0);
        case.note("a relative path");
        ask(case, version, &json!("data"), &topic, 0);
        case.note("unknown");
        ask(case, version, &here, &topic, 5);
        ask(case, version, &here, &none, 0);
        case.note("nothing");
        case.ask("AlterReplicaLogDirs", version, json!({"Dirs": []}));
    }
}
