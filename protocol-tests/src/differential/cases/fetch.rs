//! Fetch: rules F1 to F13 of docs/RULES.md, without transactions and tiering.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Row, shared};
use crate::differential::{
    batch::{Batch, ZSTD},
    case::{Case, fetch, served},
};

pub(super) const CASES: &[Row] = &[
    shared("fetch-versions", versions),
    shared("fetch-f1-waits", waits),
    shared("fetch-f1-min-bytes-small-append", min_bytes_small_append),
    shared("fetch-f1-woken", woken),
    shared("fetch-f1-answers-at-once", answers_at_once),
    shared("fetch-f2-max-bytes", max_bytes),
    shared("fetch-f2-max-bytes-20-partitions", max_bytes_20_partitions),
    shared("fetch-f2-partition-max-bytes", partition_max_bytes),
    shared("fetch-f3-offsets-within-a-batch", offsets_within_a_batch),
    shared("fetch-f4-out-of-range", out_of_range),
    shared("fetch-f5-isolation", isolation),
    shared("fetch-f6-session", session),
    shared("fetch-f6-session-by-id", session_by_id),
    shared("fetch-f6-session-errors", session_errors),
    shared("fetch-f7-topic-ids", topic_ids),
    shared("fetch-f8-epochs", epochs),
    shared("fetch-f12-replicas", replicas),
    shared("fetch-f13-zstd-for-old-clients", zstd_for_old_clients),
    shared("fetch-unknown", unknown),
    shared("fetch-duplicates", duplicates),
];

fn versions(case: &mut Case) {
    let (topic, id) = case.topic("t", 2, &[]);
    for count in 1..4 {
        case.append(&topic, &Batch::of(count).hex());
    }
    for version in served("Fetch") {
        case.note("full");
        case.ask("Fetch", version, fetch(&topic, &id, 0));
        case.note("at the end, and an empty partition");
        let mut body = fetch(&topic, &id, 6);
        let empty = json!({"Partition": 1, "FetchOffset": 0, "PartitionMaxBytes": 1000});
        body["Topics"][0]["Partitions"].as_array_mut().expect("a list").push(empty);
        body["RackId"] = "rack".into();
        case.ask("Fetch", version, body);
    }
}

fn waiting(topic: &str, offset: i64, max_wait_ms: i32, min_bytes: i32) -> Value {
    let mut body = fetch(topic, &Value::Null, offset);
    body["MaxWaitMs"] = max_wait_ms.into();
    body["MinBytes"] = min_bytes.into();
    body
}

fn waits(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    case.append(&topic, &Batch::of(1).hex());
    case.note("nothing to read");
    case.ask_timed(400, "Fetch", 12, waiting(&topic, 1, 500, 1));
    case.note("min_bytes 0");
    case.ask_timed(400, "Fetch", 12, waiting(&topic, 1, 500, 0));
    case.note("too little to read");
    case.ask_timed(400, "Fetch", 12, waiting(&topic, 0, 500, 10_000));
    case.note("enough to read");
    case.ask_timed(400, "Fetch", 12, waiting(&topic, 0, 500, 10));
    case.note("no time to wait");
    case.ask_timed(400, "Fetch", 12, waiting(&topic, 0, 0, 10_000));
    case.ask_timed(400, "Fetch", 12, waiting(&topic, 1, -1, 10_000));
}

/// One small append does not end a wait for many bytes.
fn min_bytes_small_append(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    let mut connection = case.connect();
    let start = Instant::now();
    let pending = case.send(&mut connection, "Fetch", 12, &waiting(&topic, 0, 1500, 100_000));
    std::thread::sleep(Duration::from_millis(300));
    case.append(&topic, &Batch::of(1).hex());
    case.receive(&mut connection, &pending);
    case.push_time(start, 1400);
}

fn woken(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    let (other, _) = case.topic("other", 1, &[]);
    let mut connection = case.connect();
    case.note("by the first append");
    let start = Instant::now();
    let pending = case.send(&mut connection, "Fetch", 12, &waiting(&topic, 0, 5000, 1));
    std::thread::sleep(Duration::from_millis(150));
    case.append(&other, &Batch::of(1).hex());
    case.append(&topic, &Batch::of(2).hex());
    case.receive(&mut connection, &pending);
    case.push_time(start, 4000);
    case.note("by the append that makes it enough");
    let start = Instant::now();
    let pending = case.send(&mut connection, "Fetch", 12, &waiting(&topic, 2, 5000, 150));
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(100));
        case.append(&topic, &Batch::of(1).hex());
    }
    let answer = case.receive(&mut connection, &pending);
    case.push_time(start, 4000);
    let batches = answer["Responses"][0]["Partitions"][0]["Records"].as_array().map_or(0, Vec::len);
    case.push("batches".into(), batches.into(), None);
}

/// An error in one partition ends the wait at once, even if another partition has no data.
fn answers_at_once(case: &mut Case) {
    let (topic, _) = case.topic("t", 2, &[]);
    let mut body = waiting(&topic, 0, 2000, 1);
    body["Topics"][0]["Partitions"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"Partition": 1, "FetchOffset": 99, "PartitionMaxBytes": 1000}));
    case.note("out of range");
    case.ask_timed(1000, "Fetch", 12, body.clone());
    body["Topics"][0]["Partitions"][1]["Partition"] = 5.into();
    case.note("unknown partition");
    case.ask_timed(1000, "Fetch", 12, body);
    case.note("no partitions");
    case.ask_timed(1000, "Fetch", 12, json!({"MaxWaitMs": 2000, "MinBytes": 1, "Topics": []}));
}

fn max_bytes(case: &mut Case) {
    let (topic, _) = case.topic("t", 3, &[]);
    for index in 0..3 {
        for _ in 0..3 {
            case.quietly(
                "Produce",
                9,
                json!({"Acks": -1, "TimeoutMs": 5000, "TopicData": [{"Name": topic, "PartitionData": [
                {"Index": index, "Records": Batch::of_bytes(1000).hex()}]}]}),
            );
        }
    }
    let partitions: Vec<Value> = [1, 0, 2]
        .iter()
        .map(|index| json!({"Partition": index, "FetchOffset": 0, "PartitionMaxBytes": 100_000}))
        .collect();
    for max_bytes in [0, -1, 1, 500, 1069, 1070, 1100, 2500, 3200, 3300, 4500, 7000, 100_000] {
        case.note(format!("max_bytes {max_bytes}"));
        for version in [4, 12] {
            case.ask(
                "Fetch",
                version,
                json!({"MaxWaitMs": 0, "MinBytes": 1, "MaxBytes": max_bytes,
                "Topics": [{"Topic": topic, "Partitions": partitions}]}),
            );
        }
    }
}

fn max_bytes_20_partitions(case: &mut Case) {
    let (topic, _) = case.topic("t", 20, &[]);
    for index in 0..20 {
        case.quietly(
            "Produce",
            9,
            json!({"Acks": -1, "TimeoutMs": 5000, "TopicData": [{"Name": topic, "PartitionData": [
            {"Index": index, "Records": Batch::of_bytes(200_000).hex()}]}]}),
        );
    }
    let partitions: Vec<Value> =
        (0..20).map(|index| json!({"Partition": index, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20})).collect();
    for max_bytes in [100_000, 450_000] {
        case.note(format!("max_bytes {max_bytes}"));
        case.ask("Fetch", 12, json!({"MaxWaitMs": 0, "MinBytes": 1, "MaxBytes": max_bytes, "Topics": [{"Topic": topic, "Partitions": partitions}]}));
    }
}

fn partition_max_bytes(case: &mut Case) {
    let (topic, _) = case.topic("t", 2, &[]);
    for index in 0..2 {
        for _ in 0..3 {
            case.quietly(
                "Produce",
                9,
                json!({"Acks": -1, "TimeoutMs": 5000, "TopicData": [{"Name": topic, "PartitionData": [
                {"Index": index, "Records": Batch::of_bytes(1000).hex()}]}]}),
            );
        }
    }
    for limit in [0, -1, 1, 61, 1000, 1069, 1070, 1071, 1500, 2200, 5000] {
        case.note(format!("partition_max_bytes {limit}"));
        let partitions: Vec<Value> =
            (0..2).map(|index| json!({"Partition": index, "FetchOffset": 0, "PartitionMaxBytes": limit})).collect();
        case.ask(
            "Fetch",
            12,
            json!({"MaxWaitMs": 0, "MinBytes": 1, "Topics": [{"Topic": topic, "Partitions": partitions}]}),
        );
    }
}

fn offsets_within_a_batch(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    for _ in 0..3 {
        case.append(&topic, &Batch::of(10).hex());
    }
    for offset in [0, 1, 9, 10, 11, 25, 29, 30] {
        case.note(format!("offset {offset}"));
        case.ask("Fetch", 12, fetch(&topic, &id, offset));
    }
}

fn out_of_range(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    for filled in [false, true] {
        if filled {
            case.append(&topic, &Batch::of(3).hex());
        }
        for offset in [-1, -2, 4, 1_000_000, i64::MAX] {
            case.note(format!("offset {offset}, filled {filled}"));
            case.ask_timed(1000, "Fetch", 12, waiting(&topic, offset, 2000, 1));
        }
    }
    case.note("offset 4");
    for version in served("Fetch") {
        case.ask("Fetch", version, fetch(&topic, &id, 4));
    }
}

fn isolation(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    case.append(&topic, &Batch::of(3).hex());
    for offset in [0, 3, 9] {
        let mut body = fetch(&topic, &id, offset);
        body["IsolationLevel"] = 1.into();
        for version in served("Fetch") {
            case.note(format!("read_committed, offset {offset}"));
            case.ask("Fetch", version, body.clone());
        }
    }
    let mut body = fetch(&topic, &id, 0);
    for level in [2, -1] {
        case.note(format!("isolation level {level}"));
        body["IsolationLevel"] = level.into();
        case.ask("Fetch", 12, body.clone());
    }
}

/// Adds a session to a body that `fetch` built.
fn in_session(mut body: Value, session: &Value, epoch: i32) -> Value {
    body["SessionId"] = session.clone();
    body["SessionEpoch"] = epoch.into();
    body
}

fn nothing_new() -> Value {
    json!({"MaxWaitMs": 0, "MinBytes": 0, "Topics": []})
}

fn session(case: &mut Case) {
    let (topic, _) = case.topic("t", 3, &[]);
    case.append(&topic, &Batch::of(2).hex());
    let partition =
        |index: i32, offset: i64| json!({"Partition": index, "FetchOffset": offset, "PartitionMaxBytes": 10_000});
    let body =
        |list: Vec<Value>| json!({"MaxWaitMs": 0, "MinBytes": 0, "Topics": [{"Topic": topic, "Partitions": list}]});
    for version in [7, 11, 12] {
        case.note("opens");
        let full = body(vec![partition(0, 0), partition(1, 0)]);
        let answer = case.ask("Fetch", version, in_session(full, &0.into(), 0));
        let id = &answer["SessionId"];
        case.note("incremental, the first partition still has data");
        case.ask("Fetch", version, in_session(nothing_new(), id, 1));
        case.note("the first partition moves on");
        case.ask("Fetch", version, in_session(body(vec![partition(0, 2)]), id, 2));
        case.note("nothing new");
        case.ask("Fetch", version, in_session(nothing_new(), id, 3));
        case.note("an append");
        case.quietly(
            "Produce",
            9,
            json!({"Acks": -1, "TimeoutMs": 5000, "TopicData": [{"Name": topic, "PartitionData": [
            {"Index": 1, "Records": Batch::of(1).hex()}]}]}),
        );
        case.ask("Fetch", version, in_session(nothing_new(), id, 4));
        case.note("a new partition and an unknown one");
        case.ask("Fetch", version, in_session(body(vec![partition(2, 0), partition(9, 0)]), id, 5));
        case.note("forgets one");
        let mut forgets = nothing_new();
        forgets["ForgottenTopicsData"] = json!([{"Topic": topic, "Partitions": [1, 9]}]);
        case.ask("Fetch", version, in_session(forgets, id, 6));
        case.note("out of range");
        case.ask("Fetch", version, in_session(body(vec![partition(2, 50)]), id, 7));
        case.ask("Fetch", version, in_session(nothing_new(), id, 8));
        case.note("a wrong epoch");
        case.ask("Fetch", version, in_session(nothing_new(), id, 8));
        case.ask("Fetch", version, in_session(nothing_new(), id, 10));
        case.note("goes on");
        case.ask("Fetch", version, in_session(nothing_new(), id, 9));
        case.note("a new session instead of the old one");
        let full = body(vec![partition(2, 0)]);
        let answer = case.ask("Fetch", version, in_session(full, id, 0));
        case.note("the old one is gone");
        case.ask("Fetch", version, in_session(nothing_new(), id, 1));
        case.note("closes");
        case.ask("Fetch", version, in_session(nothing_new(), &answer["SessionId"], -1));
        case.ask("Fetch", version, in_session(nothing_new(), &answer["SessionId"], 1));
    }
}

fn session_by_id(case: &mut Case) {
    let (topic, id) = case.topic("t", 2, &[]);
    case.append(&topic, &Batch::of(2).hex());
    for version in [13, 15, 18] {
        case.note("opens, with an unknown topic");
        let mut body = fetch(&topic, &id, 2);
        body["MinBytes"] = 0.into();
        let unknown = json!({"TopicId": "AAAAAAAAAAAAAAAAAAAAAg", "Partitions": [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 100}]});
        body["Topics"].as_array_mut().expect("a list").push(unknown);
        let answer = case.ask("Fetch", version, in_session(body, &0.into(), 0));
        let session = &answer["SessionId"];
        case.note("nothing new");
        case.ask("Fetch", version, in_session(nothing_new(), session, 1));
        case.note("by name in a session of ids");
        case.ask("Fetch", 12, in_session(nothing_new(), session, 2));
        case.note("forgets the unknown one");
        let mut forgets = nothing_new();
        forgets["ForgottenTopicsData"] = json!([{"TopicId": "AAAAAAAAAAAAAAAAAAAAAg", "Partitions": [0]}]);
        case.ask("Fetch", version, in_session(forgets, session, 2));
        case.ask("Fetch", version, in_session(nothing_new(), session, 3));
    }
    case.note("by id in a session of names");
    let answer = case.ask("Fetch", 12, in_session(fetch(&topic, &id, 0), &0.into(), 0));
    case.ask("Fetch", 13, in_session(nothing_new(), &answer["SessionId"], 1));
}

fn session_errors(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    for version in [7, 12, 13] {
        case.note("an unknown session");
        case.ask("Fetch", version, in_session(fetch(&topic, &id, 0), &12345.into(), 1));
        case.ask("Fetch", version, in_session(fetch(&topic, &id, 0), &12345.into(), 0));
        case.ask("Fetch", version, in_session(fetch(&topic, &id, 0), &12345.into(), -1));
        case.note("an epoch without a session");
        case.ask("Fetch", version, in_session(fetch(&topic, &id, 0), &0.into(), 5));
        case.note("no session");
        case.ask("Fetch", version, in_session(fetch(&topic, &id, 0), &0.into(), -1));
        case.note("an empty session");
        case.ask("Fetch", version, in_session(nothing_new(), &0.into(), 0));
    }
}

fn topic_ids(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    for version in 13..=18 {
        case.note("an unknown id");
        case.ask("Fetch", version, fetch(&topic, &json!("AAAAAAAAAAAAAAAAAAAAAg"), 0));
        case.note("the zero id");
        case.ask("Fetch", version, fetch(&topic, &Value::Null, 0));
        case.note("an unknown partition");
        let mut body = fetch(&topic, &id, 0);
        body["Topics"][0]["Partitions"][0]["Partition"] = 3.into();
        case.ask("Fetch", version, body);
    }
}

fn epochs(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    case.append(&topic, &Batch::of(3).hex());
    for version in [9, 12, 13, 16, 18] {
        for (current, last) in [(0, -1), (1, -1), (7, -1), (-1, 0), (-1, 5), (0, 0), (-2, -1), (0, -2)] {
            case.note(format!("current_leader_epoch {current}, last_fetched_epoch {last}"));
            let mut body = fetch(&topic, &id, 3);
            body["Topics"][0]["Partitions"][0]["CurrentLeaderEpoch"] = current.into();
            body["Topics"][0]["Partitions"][0]["LastFetchedEpoch"] = last.into();
            case.ask("Fetch", version, body);
        }
    }
}

fn replicas(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    case.append(&topic, &Batch::of(1).hex());
    for version in [4, 12, 15, 18] {
        for replica in [-2, 1, 99] {
            case.note(format!("replica {replica}"));
            let mut body = fetch(&topic, &id, 0);
            body["ReplicaId"] = replica.into();
            body["ReplicaState"] = json!({"ReplicaId": replica});
            case.ask("Fetch", version, body);
        }
    }
}

fn unknown(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    for version in 4..=12 {
        case.note("an unknown topic");
        case.ask_timed(1000, "Fetch", version, waiting(&case.named("none"), 0, 2000, 1));
        case.note("an unknown partition");
        let mut body = waiting(&topic, 0, 2000, 1);
        body["Topics"][0]["Partitions"][0]["Partition"] = 7.into();
        case.ask("Fetch", version, body);
        case.note("a bad name");
        case.ask("Fetch", version, waiting("a b/..", 0, 2000, 1));
    }
}

fn duplicates(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    case.append(&topic, &Batch::of(3).hex());
    let partition = |offset: i64| json!({"Partition": 0, "FetchOffset": offset, "PartitionMaxBytes": 10_000});
    case.ask("Fetch", 12, json!({"MaxWaitMs": 0, "MinBytes": 1, "Topics": [{"Topic": topic, "Partitions": [partition(0), partition(3)]}]}));
    case.ask(
        "Fetch",
        12,
        json!({"MaxWaitMs": 0, "MinBytes": 1, "Topics": [
        {"Topic": topic, "Partitions": [partition(0)]}, {"Topic": topic, "Partitions": [partition(3)]}]}),
    );
}

/// Batches are not converted for clients that do not know a codec, and these clients are not refused.
fn zstd_for_old_clients(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    case.append(&topic, &Batch::of(5).codec(ZSTD).hex());
    for version in served("Fetch") {
        let answer = case.quietly("Fetch", version, fetch(&topic, &id, 0));
        let partition = &answer["Responses"][0]["Partitions"][0];
        case.push(format!("error at v{version}"), partition["ErrorCode"].clone(), None);
        let batches = partition["Records"].as_array().map_or(0, Vec::len);
        case.push(format!("batches at v{version}"), batches.into(), None);
    }
}
