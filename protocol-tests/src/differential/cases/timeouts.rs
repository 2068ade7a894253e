//! Timeouts in requests: zero, negative and the longest, for every API that has one. The case checks the effect of a
//! request with timeout zero afterwards.

use serde_json::{Value, json};

use super::{Row, shared};
use crate::differential::{
    batch::Batch,
    case::{Case, served},
};

pub(super) const CASES: &[Row] = &[
    shared("timeouts-create", create),
    shared("timeouts-create-partitions", create_partitions),
    shared("timeouts-delete", delete),
    shared("timeouts-elect-leaders", elect_leaders),
    shared("timeouts-reassignments", reassignments),
    shared("timeouts-delete-records", delete_records),
    shared("timeouts-produce", produce),
    shared("timeouts-list-offsets", list_offsets),
];

const TIMEOUTS_MS: [i32; 4] = [0, -1, i32::MIN, i32::MAX];

/// Number of partitions of a topic; 0 if it does not exist.
fn count_partitions(case: &mut Case, topic: &str) -> usize {
    let answer = case.quietly("Metadata", 8, json!({"Topics": [{"Name": topic}], "AllowAutoTopicCreation": false}));
    answer["Topics"][0]["Partitions"].as_array().map_or(0, Vec::len)
}

fn tell_partitions(case: &mut Case, topic: &str) {
    let count = count_partitions(case, topic);
    case.push("partitions afterwards".into(), count.into(), None);
}

/// Creates a topic. The server does this after all earlier requests, so their effects are visible when it returns.
fn fence(case: &mut Case, suffix: &str) {
    case.topic(&format!("fence-{suffix}"), 1, &[]);
}

fn each(api: &'static str) -> impl Iterator<Item = (i16, i32)> {
    served(api).flat_map(|version| TIMEOUTS_MS.map(|timeout_ms| (version, timeout_ms)))
}

fn create(case: &mut Case) {
    for (version, timeout_ms) in each("CreateTopics") {
        let name = case.named(&format!("v{version}{timeout_ms}"));
        case.note(format!("{timeout_ms} ms"));
        let topics = json!([{"Name": name, "NumPartitions": 2, "ReplicationFactor": 1}]);
        case.ask("CreateTopics", version, json!({"timeoutMs": timeout_ms, "Topics": topics}));
        fence(case, &format!("v{version}{timeout_ms}"));
        tell_partitions(case, &name);
    }
    case.note("only checked, 0 ms");
    let topics = json!([{"Name": case.named("checked"), "NumPartitions": 2, "ReplicationFactor": 1}]);
    case.ask("CreateTopics", 7, json!({"timeoutMs": 0, "Topics": topics, "validateOnly": true}));
    case.note("a bad name, 0 ms");
    let topics = json!([{"Name": "a b", "NumPartitions": 2, "ReplicationFactor": 1}]);
    case.ask("CreateTopics", 7, json!({"timeoutMs": 0, "Topics": topics}));
    case.note("nothing, 0 ms");
    case.ask("CreateTopics", 7, json!({"timeoutMs": 0, "Topics": []}));
}

fn create_partitions(case: &mut Case) {
    for (version, timeout_ms) in each("CreatePartitions") {
        let (topic, _) = case.topic(&format!("v{version}{timeout_ms}"), 1, &[]);
        case.note(format!("{timeout_ms} ms"));
        let topics = json!([{"Name": topic, "Count": 3, "Assignments": null}]);
        case.ask("CreatePartitions", version, json!({"TimeoutMs": timeout_ms, "Topics": topics}));
        fence(case, &format!("v{version}{timeout_ms}"));
        tell_partitions(case, &topic);
    }
    case.note("nothing, 0 ms");
    case.ask("CreatePartitions", 3, json!({"TimeoutMs": 0, "Topics": []}));
}

fn delete(case: &mut Case) {
    for (version, timeout_ms) in each("DeleteTopics") {
        let (topic, _) = case.topic(&format!("v{version}{timeout_ms}"), 2, &[]);
        case.note(format!("{timeout_ms} ms"));
        let body = json!({"TimeoutMs": timeout_ms, "TopicNames": [topic, "none"], "Topics": [{"Name": topic}, {"Name": "none"}]});
        case.ask("DeleteTopics", version, body);
        fence(case, &format!("v{version}{timeout_ms}"));
        tell_partitions(case, &topic);
    }
    case.note("nothing, 0 ms");
    case.ask("DeleteTopics", 6, json!({"TimeoutMs": 0, "Topics": []}));
}

fn elect_leaders(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    for (version, timeout_ms) in each("ElectLeaders") {
        case.note(format!("{timeout_ms} ms"));
        for topics in [json!([{"Topic": topic, "Partitions": [0, 5]}]), json!([])] {
            let body = json!({"ElectionType": 0, "TimeoutMs": timeout_ms, "TopicPartitions": topics});
            case.ask("ElectLeaders", version, body);
        }
    }
    case.note("an unknown kind, 0 ms");
    let topics = json!([{"Topic": topic, "Partitions": [0]}]);
    case.ask("ElectLeaders", 2, json!({"ElectionType": 5, "TimeoutMs": 0, "TopicPartitions": topics}));
}

fn reassignments(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    for (version, timeout_ms) in each("AlterPartitionReassignments") {
        case.note(format!("{timeout_ms} ms"));
        let partitions = json!([{"PartitionIndex": 0, "Replicas": [1]}, {"PartitionIndex": 1, "Replicas": null}]);
        for topics in [json!([{"Name": topic, "Partitions": partitions}]), json!([])] {
            case.ask("AlterPartitionReassignments", version, json!({"TimeoutMs": timeout_ms, "Topics": topics}));
        }
    }
    for (version, timeout_ms) in each("ListPartitionReassignments") {
        case.note(format!("{timeout_ms} ms"));
        for topics in [json!([{"Name": topic, "PartitionIndexes": [0, 1]}]), json!([])] {
            case.ask("ListPartitionReassignments", version, json!({"TimeoutMs": timeout_ms, "Topics": topics}));
        }
    }
}

fn delete_records(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    for (version, timeout_ms) in each("DeleteRecords") {
        case.append(&topic, &Batch::of(2).hex());
        case.note(format!("{timeout_ms} ms"));
        let topics = json!([{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Offset": -1}]}]);
        case.ask("DeleteRecords", version, json!({"TimeoutMs": timeout_ms, "Topics": topics}));
    }
}

fn produce(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    for (version, timeout_ms) in each("Produce") {
        case.note(format!("{timeout_ms} ms"));
        for acks in [1, -1] {
            let data = json!([{"Name": topic, "TopicId": id, "PartitionData": [
                {"Index": 0, "Records": Batch::of(1).hex()}]}]);
            case.ask("Produce", version, json!({"Acks": acks, "TimeoutMs": timeout_ms, "TopicData": data}));
        }
    }
}

fn list_offsets(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    for (version, timeout_ms) in each("ListOffsets").filter(|(version, _)| *version >= 10) {
        case.note(format!("{timeout_ms} ms"));
        let partitions: Value = json!([{"PartitionIndex": 0, "Timestamp": -1}]);
        let topics = json!([{"Name": topic, "Partitions": partitions}]);
        case.ask("ListOffsets", version, json!({"ReplicaId": -1, "TimeoutMs": timeout_ms, "Topics": topics}));
    }
}
