//! ListOffsets and OffsetForLeaderEpoch: rules L1 to L4 of docs/RULES.md.

use serde_json::{Value, json};

use super::{Row, shared};
use crate::differential::{
    batch::{BASE_TIMESTAMP_MS, Batch, GZIP},
    case::{Case, served},
};

pub(super) const CASES: &[Row] = &[
    shared("offsets-l1-special-timestamps", special_timestamps),
    shared("offsets-l2-by-timestamp", by_timestamp),
    shared("offsets-l2-unordered", unordered),
    shared("offsets-l3-errors", errors),
    shared("offsets-l4-leader-epochs", leader_epochs),
];

fn list(topic: &str, timestamp: i64) -> Value {
    json!({"ReplicaId": -1, "TimeoutMs": 1000, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Timestamp": timestamp}]}]})
}

fn special_timestamps(case: &mut Case) {
    let (empty, _) = case.topic("empty", 1, &[]);
    let (topic, _) = case.topic("t", 1, &[]);
    case.append(&topic, &Batch::of(3).hex());
    case.append(&topic, &Batch::of(2).at_ms(BASE_TIMESTAMP_MS - 500).hex());
    for version in served("ListOffsets") {
        for timestamp in [-1, -2, -3, -4, -5, -6, -7, i64::MIN] {
            for isolation in [0, 1] {
                let name = if isolation == 0 { "uncommitted" } else { "committed" };
                case.note(format!("{timestamp}, {name}"));
                let mut body = list(&topic, timestamp);
                body["IsolationLevel"] = isolation.into();
                case.ask("ListOffsets", version, body);
            }
            case.note(format!("{timestamp}, empty"));
            case.ask("ListOffsets", version, list(&empty, timestamp));
        }
    }
}

fn by_timestamp(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    for batch in 0..4 {
        let batch = Batch::of(5).at_ms(BASE_TIMESTAMP_MS + batch * 100).codec(if batch == 2 { GZIP } else { 0 });
        case.append(&topic, &batch.hex());
    }
    for after in [-1_000_000, 0, 1, 4, 5, 50, 100, 202, 203, 299, 304, 305, 1_000_000] {
        case.note(format!("{after} ms after the first"));
        for version in [1, 4, 7, 11] {
            case.ask("ListOffsets", version, list(&topic, BASE_TIMESTAMP_MS + after));
        }
    }
    case.note("0 and the end of time");
    case.ask_all("ListOffsets", list(&topic, 0));
    case.ask_all("ListOffsets", list(&topic, i64::MAX));
}

fn unordered(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    for at_ms in [500, 100, 900, 300] {
        case.append(&topic, &Batch::of(2).at_ms(BASE_TIMESTAMP_MS + at_ms).hex());
    }
    for after in [0, 100, 101, 102, 400, 500, 501, 502, 901, 902] {
        case.note(format!("{after} ms"));
        case.ask("ListOffsets", 7, list(&topic, BASE_TIMESTAMP_MS + after));
    }
    case.note("max timestamp");
    case.ask("ListOffsets", 7, list(&topic, -3));
}

fn errors(case: &mut Case) {
    let (topic, _) = case.topic("t", 2, &[]);
    for version in served("ListOffsets") {
        case.note("unknown");
        case.ask("ListOffsets", version, list(&case.named("none"), -1));
        case.ask("ListOffsets", version, list("a b/..", -1));
        case.note("unknown partitions among known");
        case.ask("ListOffsets", version, json!({"ReplicaId": -1, "Topics": [{"Name": topic, "Partitions": [
            {"PartitionIndex": 0, "Timestamp": -1}, {"PartitionIndex": 5, "Timestamp": -1}, {"PartitionIndex": 1, "Timestamp": -2}]}]}));
        case.note("the same twice");
        case.ask(
            "ListOffsets",
            version,
            json!({"ReplicaId": -1, "Topics": [{"Name": topic, "Partitions": [
            {"PartitionIndex": 0, "Timestamp": -1}, {"PartitionIndex": 0, "Timestamp": -2}]}]}),
        );
        for epoch in [0, 3, -2] {
            case.note(format!("current_leader_epoch {epoch}"));
            let mut body = list(&topic, -1);
            body["Topics"][0]["Partitions"][0]["CurrentLeaderEpoch"] = epoch.into();
            case.ask("ListOffsets", version, body);
        }
        case.note("replica");
        let mut body = list(&topic, -1);
        for replica in [-2, 1, 99] {
            body["ReplicaId"] = replica.into();
            case.ask("ListOffsets", version, body.clone());
        }
        case.note("isolation level 7");
        body["IsolationLevel"] = 7.into();
        case.ask("ListOffsets", version, body);
        case.note("no topics");
        case.ask("ListOffsets", version, json!({"ReplicaId": -1, "Topics": []}));
    }
}

fn leader_epochs(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    let ask = |partition: i32, epoch: i32, current: i32| {
        json!({"ReplicaId": -1, "Topics": [{"Topic": topic, "Partitions": [
            {"Partition": partition, "LeaderEpoch": epoch, "CurrentLeaderEpoch": current}]}]})
    };
    for filled in [false, true] {
        if filled {
            case.append(&topic, &Batch::of(3).hex());
        }
        for version in served("OffsetForLeaderEpoch") {
            for (partition, epoch, current) in [
                (0, 0, -1),
                (0, 1, -1),
                (0, 50, -1),
                (0, -1, -1),
                (0, -2, -1),
                (0, 0, 0),
                (0, 0, 5),
                (0, 0, -3),
                (4, 0, -1),
            ] {
                case.note(format!("filled {filled}, partition {partition}, epoch {epoch}, current {current}"));
                case.ask("OffsetForLeaderEpoch", version, ask(partition, epoch, current));
            }
            case.note("unknown topic");
            case.ask(
                "OffsetForLeaderEpoch",
                version,
                json!({"ReplicaId": -1, "Topics": [
                {"Topic": case.named("none"), "Partitions": [{"Partition": 0, "LeaderEpoch": 0}]}]}),
            );
        }
    }
}
