//! Limits from the broker's settings, small enough to reach: sizes, sessions, group members and their timeouts.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{LIMITS, Row, groups::join};
use crate::differential::{
    batch::Batch,
    case::{Case, fetch, produce},
    wire::{framed, request},
};

pub(super) const CASES: &[Row] = &[
    limited("limits-frame-size", frame_size),
    limited("limits-fetch-max-bytes", fetch_max_bytes),
    limited("limits-message-max-bytes", message_max_bytes),
    limited("limits-fetch-sessions", fetch_sessions),
    limited("limits-describe-partitions", describe_partitions),
    limited("limits-topic-deletion", topic_deletion),
    limited("limits-group-size", group_size),
    limited("limits-group-session-timeouts", group_session_timeouts),
    limited("limits-group-session-expires", session_expires),
    limited("limits-group-pending-member-expires", pending_member_expires),
    limited("limits-group-laggard", laggard),
    limited("limits-group-never-syncs", never_syncs),
    limited("limits-offset-metadata", offset_metadata),
    limited("limits-p2-min-insync-replicas", min_insync_replicas),
    limited("limits-topic-defaults", topic_defaults),
];

const fn limited(name: &'static str, run: fn(&mut Case)) -> Row {
    Row { name, setup: &LIMITS, run }
}

/// socket.request.max.bytes is 100000.
fn frame_size(case: &mut Case) {
    let body = case.body(
        "Metadata",
        1,
        &json!({"Topics": [{"Name": "x".repeat(30_000)}, {"Name": "y".repeat(30_000)}, {"Name": "z".repeat(30_000)}]}),
    );
    let mut connection = case.connect();
    connection.send_bytes(&framed(&request(3, 1, 1, Some("c"), false, &body)));
    case.outcome_kind("90 kB", &mut connection);
    case.raw("a size of 100001", &100_001i32.to_be_bytes());
    case.raw("a size of 100000", &100_000i32.to_be_bytes());
}

/// fetch.max.bytes is 2048.
fn fetch_max_bytes(case: &mut Case) {
    let (topic, _) = case.topic("t", 3, &[("compression.type", "uncompressed")]);
    for index in 0..3 {
        for _ in 0..3 {
            case.quietly(
                "Produce",
                9,
                json!({"Acks": -1, "TimeoutMs": 5000, "TopicData": [{"Name": topic, "PartitionData": [
                {"Index": index, "Records": Batch::of_bytes(700).hex()}]}]}),
            );
        }
    }
    let partitions: Vec<Value> =
        (0..3).map(|index| json!({"Partition": index, "FetchOffset": 0, "PartitionMaxBytes": 100_000})).collect();
    for max_bytes in [500, 1000, 2000, 100_000] {
        case.note(format!("max_bytes {max_bytes}"));
        case.ask("Fetch", 12, json!({"MaxWaitMs": 0, "MinBytes": 1, "MaxBytes": max_bytes, "Topics": [{"Topic": topic, "Partitions": partitions}]}));
    }
}

/// message.max.bytes is 3000.
fn message_max_bytes(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[("compression.type", "producer")]);
    for bytes in [2000, 4000] {
        case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of_bytes(bytes).hex()));
    }
    let (topic, id) = case.topic("own", 1, &[("max.message.bytes", "5000"), ("compression.type", "producer")]);
    for bytes in [4000, 6000] {
        case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of_bytes(bytes).hex()));
    }
}

/// The cache has no slot for fetch sessions.
fn fetch_sessions(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    let mut body = fetch(&topic, &id, 0);
    body["SessionEpoch"] = 0.into();
    for _ in 0..3 {
        case.ask("Fetch", 12, body.clone());
    }
}

/// max.request.partition.size.limit is 3.
fn describe_partitions(case: &mut Case) {
    let (a, _) = case.topic("a", 2, &[]);
    let (b, _) = case.topic("b", 2, &[]);
    for limit in [100, 2, 0] {
        case.ask(
            "DescribeTopicPartitions",
            0,
            json!({"Topics": [{"Name": a}, {"Name": b}], "ResponsePartitionLimit": limit}),
        );
    }
}

/// delete.topic.enable is false.
fn topic_deletion(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    for version in [1, 3, 4, 5, 6] {
        case.ask("DeleteTopics", version, json!({"TimeoutMs": 5000, "TopicNames": [topic, "none"], "Topics": [{"Name": topic}, {"Name": null, "TopicId": id}]}));
    }
}

fn short(group: &str, member: &Value, session_ms: i32, rebalance_ms: i32) -> Value {
    let mut body = join(group, member);
    body["SessionTimeoutMs"] = session_ms.into();
    body["RebalanceTimeoutMs"] = rebalance_ms.into();
    body
}

fn sync(group: &str, answer: &Value) -> Value {
    json!({"GroupId": group, "MemberId": answer["MemberId"], "GenerationId": answer["GenerationId"], "ProtocolType": "consumer",
        "ProtocolName": "range", "Assignments": [{"MemberId": answer["MemberId"], "Assignment": "01"}]})
}

fn new_member(case: &mut Case, group: &str) -> Value {
    let id = case.quietly("JoinGroup", 5, join(group, &"".into()))["MemberId"].clone();
    case.name_member(&id);
    id
}

/// group.max.size is 2.
fn group_size(case: &mut Case) {
    let group = case.named("g");
    let (first, second) = (new_member(case, &group), new_member(case, &group));
    let (mut one, mut two) = (case.connect(), case.connect());
    case.quietly("JoinGroup", 5, short(&group, &first, 10_000, 3000));
    let joining = case.send(&mut two, "JoinGroup", 5, &short(&group, &second, 10_000, 3000));
    std::thread::sleep(Duration::from_millis(150));
    case.ask_on(&mut one, "JoinGroup", 5, short(&group, &first, 10_000, 3000));
    case.receive(&mut two, &joining);
    case.note("a third");
    for version in [0, 3, 4, 9] {
        case.ask("JoinGroup", version, short(&group, &"".into(), 5000, 700));
    }
    case.note("a static third");
    let mut body = short(&group, &"".into(), 5000, 700);
    body["GroupInstanceId"] = "three".into();
    case.ask("JoinGroup", 5, body);
}

/// group.min.session.timeout.ms is 100, group.max.session.timeout.ms 20000.
fn group_session_timeouts(case: &mut Case) {
    let group = case.named("g");
    for timeout_ms in [99, 100, 20_000, 20_001] {
        case.note(format!("{timeout_ms} ms"));
        case.ask("JoinGroup", 5, short(&group, &"".into(), timeout_ms, 1000));
    }
}

/// Waits until the group is in a state and records whether that took at most `limit_ms`.
fn await_state(case: &mut Case, group: &str, state: &str, limit_ms: u64) {
    let start = Instant::now();
    case.until(&format!("the group is {state}"), |case| {
        case.quietly("DescribeGroups", 5, json!({"Groups": [group]}))["Groups"][0]["GroupState"] == state
    });
    case.push_time(start, limit_ms);
}

fn session_expires(case: &mut Case) {
    let group = case.named("g");
    let member = new_member(case, &group);
    let answer = case.ask("JoinGroup", 5, short(&group, &member, 500, 5000));
    case.ask("SyncGroup", 5, sync(&group, &answer));
    case.note("heartbeats keep it");
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(250));
        case.ask("Heartbeat", 4, json!({"GroupId": group, "MemberId": member, "GenerationId": answer["GenerationId"]}));
    }
    case.note("no heartbeats");
    await_state(case, &group, "Empty", 2000);
    case.ask("Heartbeat", 4, json!({"GroupId": group, "MemberId": member, "GenerationId": answer["GenerationId"]}));
    case.ask("DescribeGroups", 6, json!({"Groups": [group]}));
}

fn pending_member_expires(case: &mut Case) {
    let group = case.named("g");
    let id = case.ask("JoinGroup", 5, short(&group, &"".into(), 400, 5000))["MemberId"].clone();
    std::thread::sleep(Duration::from_millis(1200));
    case.ask("JoinGroup", 5, short(&group, &id, 400, 5000));
}

/// A member that does not rejoin within the rebalance timeout is removed.
fn laggard(case: &mut Case) {
    let group = case.named("g");
    let first = new_member(case, &group);
    let answer = case.ask("JoinGroup", 5, short(&group, &first, 10_000, 800));
    case.ask("SyncGroup", 5, sync(&group, &answer));
    let second = new_member(case, &group);
    let start = Instant::now();
    case.note("the second joins, the first does not");
    case.ask("JoinGroup", 5, short(&group, &second, 10_000, 800));
    case.push_time(start, 700);
    case.ask("Heartbeat", 4, json!({"GroupId": group, "MemberId": first, "GenerationId": answer["GenerationId"]}));
}

/// A member that joined but never syncs is removed after the rebalance timeout; the member that waits in SyncGroup
/// joins again.
fn never_syncs(case: &mut Case) {
    let group = case.named("g");
    let (first, second) = (new_member(case, &group), new_member(case, &group));
    let (mut one, mut two) = (case.connect(), case.connect());
    // Without a delay the first member joins alone; the second one starts another rebalance, and the first joins that.
    case.quietly("JoinGroup", 5, short(&group, &first, 10_000, 1000));
    let joining = case.send(&mut two, "JoinGroup", 5, &short(&group, &second, 10_000, 1000));
    std::thread::sleep(Duration::from_millis(150));
    let answer = case.ask_on(&mut one, "JoinGroup", 5, short(&group, &first, 10_000, 1000));
    case.receive(&mut two, &joining);
    case.note("the second syncs, the leader does not");
    let start = Instant::now();
    let waiting = json!({"GroupId": group, "MemberId": second, "GenerationId": answer["GenerationId"], "ProtocolType": "consumer",
        "ProtocolName": "range", "Assignments": []});
    case.ask_on(&mut two, "SyncGroup", 5, waiting);
    case.push_time(start, 700);
    case.ask("Heartbeat", 4, json!({"GroupId": group, "MemberId": first, "GenerationId": answer["GenerationId"]}));
}

/// offset.metadata.max.bytes is 10.
fn offset_metadata(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    for metadata in ["0123456789", "0123456789x", "äöüäö", "äöüäöü"] {
        case.note(metadata);
        case.ask("OffsetCommit", 9, json!({"GroupId": case.named("g"), "GenerationIdOrMemberEpoch": -1, "Topics": [{"Name": topic, "TopicId": id,
            "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 1, "CommittedMetadata": metadata}]}]}));
    }
}

/// The topic requires more in-sync replicas than there are.
fn min_insync_replicas(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[("min.insync.replicas", "2")]);
    for acks in [-1, 1] {
        case.note(format!("acks {acks}"));
        for version in [3, 9, 13] {
            case.ask("Produce", version, produce(&topic, &id, acks, &Batch::of(1).hex()));
        }
    }
    case.ask("DescribeTopicPartitions", 0, json!({"Topics": [{"Name": topic}], "ResponsePartitionLimit": 10}));
}

/// Defaults of new topics if the request does not set them: num.partitions is 4.
fn topic_defaults(case: &mut Case) {
    for version in [4, 5, 7] {
        let name = case.named(&format!("v{version}"));
        case.ask(
            "CreateTopics",
            version,
            json!({"timeoutMs": 5000, "Topics": [{"Name": name, "NumPartitions": -1, "ReplicationFactor": -1}]}),
        );
    }
    let (topic, id) = case.topic("t", 4, &[]);
    case.note("log.message.timestamp.type of the broker");
    case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of(1).hex()));
    case.ask("DescribeConfigs", 4, json!({"IncludeSynonyms": true, "Resources": [{"ResourceType": 2, "ResourceName": topic,
        "ConfigurationKeys": ["message.timestamp.type", "max.message.bytes", "retention.ms", "segment.ms", "compression.type"]}]}));
}
