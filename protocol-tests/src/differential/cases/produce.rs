//! Produce: rules P1 to P12 and I1 to I6 of docs/RULES.md.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Row, shared};
use crate::differential::{
    batch::{BASE_TIMESTAMP_MS, Batch, CONTROL, GZIP, LOG_APPEND_TIME, LZ4, Record, SNAPPY, TRANSACTIONAL, ZSTD},
    case::{Case, fetch, produce, served},
};

pub(super) const CASES: &[Row] = &[
    shared("produce-versions", versions),
    shared("produce-codecs", codecs),
    shared("produce-p1-acks", acks),
    shared("produce-p1-acks-0", acks_0),
    shared("produce-p3-batches-that-are-not-one", batches_that_are_not_one),
    shared("produce-p3-record-contents", record_contents),
    shared("produce-p4-checksum", checksum),
    shared("produce-p5-sizes", sizes),
    shared("produce-p6-unknown-topics", unknown_topics),
    shared("produce-p7-log-append-time", log_append_time),
    shared("produce-p7-max-timestamp", max_timestamp),
    shared("produce-p8-timestamps", timestamps),
    shared("produce-p8-compacted", compacted),
    shared("produce-p9-compression-type", compression_type),
    shared("produce-p10-internal-topics", internal_topics),
    shared("produce-p11-transactional", transactional),
    shared("produce-mixed-partitions", mixed_partitions),
    shared("produce-i2-resent-batches", resent_batches),
    shared("produce-i2-log-append-time", resent_to_log_append_time),
    shared("produce-i3-sequences", sequences),
    shared("produce-i3-sequence-wraps", sequence_wraps),
    shared("produce-i4-unknown-producer", unknown_producer),
    shared("produce-i6-init-producer-id", init_producer_id),
    shared("produce-i6-describe-producers", describe_producers),
];

/// The current time, for topics that check timestamps.
fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis() as i64)
}

fn end_offset(case: &mut Case, topic: &str) {
    let body =
        json!({"ReplicaId": -1, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]}]});
    let answer = case.quietly("ListOffsets", 5, body);
    case.push("end offset after that".into(), answer["Topics"][0]["Partitions"][0]["Offset"].clone(), None);
}

fn versions(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    let rich = Record {
        timestamp_delta_ms: 5,
        key: None,
        value: None,
        headers: vec![(b"h".to_vec(), Some(b"1".to_vec())), (b"h".to_vec(), None), (Vec::new(), Some(Vec::new()))],
        ..Record::default()
    };
    let batch = Batch::of(3).with(|batch| batch.records.push(rich));
    for version in served("Produce") {
        case.ask("Produce", version, produce(&topic, &id, -1, &batch.hex()));
        case.ask("Produce", version, produce(&topic, &id, 1, &Batch::of(1).hex()));
    }
    case.ask("Fetch", 12, fetch(&topic, &id, 0));
}

fn codecs(case: &mut Case) {
    for (name, codec) in [("gzip", GZIP), ("snappy", SNAPPY), ("lz4", LZ4), ("zstd", ZSTD)] {
        let (topic, id) = case.topic(name, 1, &[]);
        case.note(name);
        for version in served("Produce") {
            case.ask("Produce", version, produce(&topic, &id, -1, &Batch::of(20).codec(codec).hex()));
        }
        let answer = case.quietly("Fetch", 12, fetch(&topic, &id, 0));
        let batches = answer["Responses"][0]["Partitions"][0]["Records"].as_array().cloned().unwrap_or_default();
        for mut batch in batches {
            // This program compressed the bytes; its versions may compress differently.
            batch["records_crc"] = Value::Null;
            batch["bytes"] = Value::Null;
            case.push("batch".into(), batch, None);
        }
    }
}

fn acks(case: &mut Case) {
    let (topic, id) = case.topic("t", 2, &[]);
    for acks in [5, 2, -2, i16::MAX] {
        case.note(format!("acks={acks}"));
        for version in [3, 7, 9, 12, 13] {
            let mut body = produce(&topic, &id, acks, &Batch::of(1).hex());
            let second = json!({"Index": 1, "Records": Batch::of(1).hex()});
            body["TopicData"][0]["PartitionData"].as_array_mut().expect("a list").push(second);
            case.ask("Produce", version, body);
        }
        end_offset(case, &topic);
    }
}

/// acks=0 gets no answer; the next answer on the connection is for the next request. An error closes the connection.
fn acks_0(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    for version in [3, 9, 13] {
        let mut connection = case.connect();
        let _no_answer = case.send(&mut connection, "Produce", version, &produce(&topic, &id, 0, &Batch::of(1).hex()));
        let next = case.send(&mut connection, "Fetch", 12, &fetch(&topic, &id, 0));
        case.receive(&mut connection, &next);
        let _no_answer = case.send(&mut connection, "Produce", version, &produce(&topic, &id, 0, &corrupt().hex()));
        case.outcome("a corrupt batch with acks=0", &mut connection);
        let mut connection = case.connect();
        let unknown = produce("no-such-topic", &json!("AAAAAAAAAAAAAAAAAAAAAg"), 0, &Batch::of(1).hex());
        let _no_answer = case.send(&mut connection, "Produce", version, &unknown);
        case.outcome("an unknown topic with acks=0", &mut connection);
    }
    end_offset(case, &topic);
}

fn corrupt() -> Batch {
    Batch::of(1).with(|batch| batch.checksum_xor = 1)
}

fn each_bad(case: &mut Case, batches: &[(&str, String)]) {
    let (topic, id) = case.topic("t", 1, &[]);
    case.append(&topic, &Batch::of(2).hex());
    for (what, records) in batches {
        case.note(*what);
        for version in [3, 7, 9, 13] {
            case.ask("Produce", version, produce(&topic, &id, -1, records));
        }
        end_offset(case, &topic);
    }
}

fn batches_that_are_not_one(case: &mut Case) {
    let one = Batch::of(2).hex();
    let cut = |by: usize| one[..one.len() - by].to_owned();
    let batches = [
        ("no bytes", String::new()),
        ("two batches", format!("{one}{one}")),
        ("a batch and half a one", format!("{one}{}", cut(20))),
        ("a batch and 5 bytes", format!("{one}0000000000")),
        ("a cut batch", cut(4)),
        ("60 bytes", one[..120].to_owned()),
        ("17 bytes", one[..34].to_owned()),
        ("11 bytes", one[..22].to_owned()),
        ("magic 0", Batch::of(2).with(|batch| batch.magic = 0).hex()),
        ("magic 1", Batch::of(2).with(|batch| batch.magic = 1).hex()),
        ("magic 3", Batch::of(2).with(|batch| batch.magic = 3).hex()),
        ("base offset 7", Batch::of(2).with(|batch| batch.base_offset = 7).hex()),
        ("base offset -1", Batch::of(2).with(|batch| batch.base_offset = -1).hex()),
        ("last offset delta 5", Batch::of(2).with(|batch| batch.last_offset_delta = Some(5)).hex()),
        ("last offset delta -1", Batch::of(2).with(|batch| batch.last_offset_delta = Some(-1)).hex()),
        ("count 0", Batch::of(2).with(|batch| batch.count = Some(0)).hex()),
        ("count -1", Batch::of(2).with(|batch| batch.count = Some(-1)).hex()),
        ("no records", Batch::new(Vec::new()).hex()),
        ("length 10", Batch::of(2).with(|batch| batch.length = Some(10)).hex()),
        ("length 48", Batch::of(2).with(|batch| batch.length = Some(48)).hex()),
        ("length -1", Batch::of(2).with(|batch| batch.length = Some(-1)).hex()),
        ("length i32::MAX", Batch::of(2).with(|batch| batch.length = Some(i32::MAX)).hex()),
        ("a control batch", Batch::of(2).codec(CONTROL).hex()),
        ("producer id without sequence", Batch::of(2).idempotent(7, 0, -1).hex()),
        ("producer id without epoch", Batch::of(2).idempotent(7, -1, 0).hex()),
        ("sequence without producer id", Batch::of(2).idempotent(-1, -1, 0).hex()),
    ];
    each_bad(case, &batches);
}

fn record_contents(case: &mut Case) {
    let delta = |at: usize, delta: i32| Batch::of(3).with(|batch| batch.records[at].offset_delta = Some(delta));
    let batches = [
        (
            "count above the records",
            Batch::of(2).with(|batch| (batch.count, batch.last_offset_delta) = (Some(3), Some(2))).hex(),
        ),
        (
            "count below the records",
            Batch::of(3).with(|batch| (batch.count, batch.last_offset_delta) = (Some(2), Some(1))).hex(),
        ),
        ("offset deltas 0 0 2", delta(1, 0).hex()),
        ("offset deltas 0 5 2", delta(1, 5).hex()),
        ("offset deltas 1 1 2", delta(0, 1).hex()),
        (
            "compressed count above the records",
            Batch::of(2).codec(GZIP).with(|batch| (batch.count, batch.last_offset_delta) = (Some(3), Some(2))).hex(),
        ),
        ("codec 5", Batch::of(2).codec(5).hex()),
        ("codec 7", Batch::of(2).codec(7).hex()),
        ("unused attribute bits", Batch::of(2).codec(0x100).hex()),
        ("delete horizon bit", Batch::of(2).codec(1 << 6).hex()),
        ("leader epoch 9 from the client", Batch::of(2).with(|batch| batch.leader_epoch = 9).hex()),
        ("negative timestamp", Batch::of(2).at_ms(-1).hex()),
        ("negative timestamp -5", Batch::of(2).at_ms(-5).hex()),
    ];
    each_bad(case, &batches);
    let (topic, id) = case.topic("deltas", 1, &[]);
    case.note("offset deltas 0 5 2, compressed");
    case.ask("Produce", 9, produce(&topic, &id, -1, &delta(1, 5).codec(GZIP).hex()));
    // Invalid compressed bytes.
    let (topic, id) = case.topic("garbage", 1, &[]);
    for codec in [GZIP, SNAPPY, LZ4, ZSTD] {
        case.note(format!("plain bytes called codec {codec}"));
        let mut bytes = Batch::of(2).bytes();
        bytes[22] |= codec as u8;
        let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[21..]) as u32;
        bytes[17..21].copy_from_slice(&sum.to_be_bytes());
        case.ask("Produce", 9, produce(&topic, &id, -1, &crate::differential::codec::hex(&bytes)));
        end_offset(case, &topic);
    }
    case.note("");
    let topic = case.named("t");
    case.ask("Fetch", 12, fetch(&topic, &Value::Null, 0));
}

fn checksum(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    for version in served("Produce") {
        case.ask("Produce", version, produce(&topic, &id, -1, &corrupt().hex()));
    }
    let flipped = Batch::of(3).codec(GZIP).with(|batch| batch.checksum_xor = 0x8000_0000);
    case.ask("Produce", 9, produce(&topic, &id, -1, &flipped.hex()));
    end_offset(case, &topic);
}

fn sizes(case: &mut Case) {
    let (topic, id) = case.topic("default", 1, &[]);
    case.note("default limit 1048588");
    for bytes in [3_000_000, 1_048_600, 1_048_588 - 61 - 10] {
        for version in [3, 9, 13] {
            case.ask("Produce", version, produce(&topic, &id, -1, &Batch::of_bytes(bytes).hex()));
        }
    }
    let (topic, id) = case.topic("small", 1, &[("max.message.bytes", "200")]);
    case.note("limit 200");
    // A record of this shape is 61 + 7 or more bytes around its value.
    for bytes in 126..136 {
        case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of_bytes(bytes).hex()));
    }
    case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of_bytes(5000).codec(GZIP).hex()));
    end_offset(case, &topic);
    let (topic, id) = case.topic("segment", 1, &[("max.message.bytes", "5000000"), ("segment.bytes", "1048576")]);
    case.note("segment.bytes 1 MiB");
    case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of_bytes(2_000_000).hex()));
    case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of_bytes(700_000).hex()));
    case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of_bytes(700_000).hex()));
    end_offset(case, &topic);
}

fn unknown_topics(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    let batch = Batch::of(1).hex();
    for version in served("Produce") {
        case.note("an unknown topic");
        case.ask("Produce", version, produce(&case.named("none"), &json!("AAAAAAAAAAAAAAAAAAAAAg"), -1, &batch));
        case.note("an unknown partition");
        let mut body = produce(&topic, &id, -1, &batch);
        body["TopicData"][0]["PartitionData"][0]["Index"] = 9.into();
        case.ask("Produce", version, body.clone());
        body["TopicData"][0]["PartitionData"][0]["Index"] = (-1).into();
        case.ask("Produce", version, body);
    }
    case.note("the zero id");
    case.ask("Produce", 13, produce("", &Value::Null, -1, &batch));
    case.note("a bad name");
    case.ask("Produce", 9, produce("a b/..", &Value::Null, -1, &batch));
    case.ask("Produce", 9, produce("", &Value::Null, -1, &batch));
    case.note("no topics");
    case.ask("Produce", 9, json!({"Acks": -1, "TimeoutMs": 100, "TopicData": []}));
    case.ask("Produce", 9, json!({"Acks": -1, "TimeoutMs": 100, "TopicData": [{"Name": topic, "PartitionData": []}]}));
    let mut connection = case.connect();
    let null = json!({"Acks": -1, "TimeoutMs": 100, "TopicData": [{"Name": topic, "PartitionData": [{"Index": 0, "Records": null}]}]});
    case.send(&mut connection, "Produce", 9, &null);
    case.outcome_kind("null records", &mut connection);
}

fn log_append_time(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[("message.timestamp.type", "LogAppendTime")]);
    for version in [3, 9, 13] {
        case.ask("Produce", version, produce(&topic, &id, -1, &Batch::of(2).hex()));
    }
    case.note("a timestamp far ahead does not matter");
    case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of(2).at_ms(now_ms() + 86_400_000 * 10).hex()));
    case.note("compressed");
    case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of(2).codec(LZ4).hex()));
    case.note("the client set the bit");
    case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of(2).codec(LOG_APPEND_TIME).hex()));
    let answer = case.quietly("Fetch", 12, fetch(&topic, &id, 0));
    for mut batch in answer["Responses"][0]["Partitions"][0]["Records"].as_array().cloned().unwrap_or_default() {
        batch["records_crc"] = Value::Null;
        batch["bytes"] = Value::Null;
        if batch["base_timestamp"].as_i64() != Some(BASE_TIMESTAMP_MS) {
            batch["base_timestamp"] = "<ahead>".into();
        }
        case.push("batch".into(), batch, None);
    }
    let (topic, id) = case.topic("create-time", 1, &[]);
    case.note("the client set the bit, CreateTime");
    for version in [3, 9, 13] {
        case.ask("Produce", version, produce(&topic, &id, -1, &Batch::of(2).codec(LOG_APPEND_TIME).hex()));
    }
}

fn max_timestamp(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    for lie in [0, 1, BASE_TIMESTAMP_MS, BASE_TIMESTAMP_MS + 500, -1, i64::MAX] {
        for codec in [0, SNAPPY] {
            let batch = Batch::of(3).codec(codec).with(|batch| batch.max_timestamp_ms = Some(lie));
            case.ask("Produce", 9, produce(&topic, &id, -1, &batch.hex()));
        }
    }
    let unordered = Batch::of(3).with(|batch| batch.records[0].timestamp_delta_ms = 77);
    case.ask("Produce", 9, produce(&topic, &id, -1, &unordered.hex()));
    let back = Batch::of(3).with(|batch| batch.records[1].timestamp_delta_ms = -1000);
    case.ask("Produce", 9, produce(&topic, &id, -1, &back.hex()));
    case.ask("Fetch", 12, fetch(&topic, &id, 0));
}

fn timestamps(case: &mut Case) {
    let hour_ms = 3_600_000;
    let (topic, id) = case.topic("default", 1, &[]);
    for (what, ahead_ms) in
        [("10 days ahead", 240 * hour_ms), ("2 hours ahead", 2 * hour_ms), ("30 minutes ahead", hour_ms / 2)]
    {
        for version in [3, 7, 8, 9, 13] {
            case.note(what);
            let answer = case.quietly(
                "Produce",
                version,
                produce(&topic, &id, -1, &Batch::of(2).at_ms(now_ms() + ahead_ms).hex()),
            );
            case.push(format!("Produce v{version}"), without_times(answer), Some("Produce"));
        }
        end_offset(case, &topic);
    }
    let (topic, id) = case.topic("before", 1, &[("message.timestamp.before.max.ms", "3600000")]);
    for version in [3, 8, 9, 13] {
        case.note("before.max an hour, batch of 2023");
        let answer = case.quietly("Produce", version, produce(&topic, &id, -1, &Batch::of(2).hex()));
        case.push(format!("Produce v{version}"), without_times(answer), Some("Produce"));
    }
    case.note("before.max an hour, one record of three is old");
    let batch = Batch::of(3).at_ms(now_ms()).with(|batch| batch.records[1].timestamp_delta_ms = -2 * hour_ms);
    for batch in [batch.clone(), batch.codec(GZIP)] {
        let answer = case.quietly("Produce", 9, produce(&topic, &id, -1, &batch.hex()));
        case.push("Produce v9".into(), without_times(answer), Some("Produce"));
    }
    end_offset(case, &topic);
}

/// Removes the digits from messages about timestamps, because they contain the time of the request.
fn without_times(mut answer: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::String(text) if text.len() > 40 => {
                *text = text
                    .split(|letter: char| letter.is_ascii_digit())
                    .filter(|part| !part.is_empty())
                    .collect::<Vec<_>>()
                    .join("#");
            }
            Value::Array(list) => list.iter_mut().for_each(walk),
            Value::Object(object) => object.values_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut answer);
    answer
}

fn compacted(case: &mut Case) {
    for (name, policy) in [("compact", "compact"), ("both", "compact,delete")] {
        let (topic, id) = case.topic(name, 1, &[("cleanup.policy", policy)]);
        let keyless = |at: &[usize]| Batch::of(3).with(|batch| at.iter().for_each(|at| batch.records[*at].key = None));
        for version in served("Produce") {
            case.note(format!("{name}: a null key"));
            case.ask("Produce", version, produce(&topic, &id, -1, &keyless(&[1]).hex()));
        }
        case.note(format!("{name}: two null keys"));
        case.ask("Produce", 9, produce(&topic, &id, -1, &keyless(&[0, 2]).hex()));
        case.note(format!("{name}: a null key, compressed"));
        case.ask("Produce", 9, produce(&topic, &id, -1, &keyless(&[1]).codec(ZSTD).hex()));
        case.note(format!("{name}: a null value"));
        case.ask(
            "Produce",
            9,
            produce(&topic, &id, -1, &Batch::of(2).with(|batch| batch.records[0].value = None).hex()),
        );
        end_offset(case, &topic);
    }
}

fn compression_type(case: &mut Case) {
    for kind in ["uncompressed", "gzip", "snappy", "lz4", "zstd", "producer"] {
        let (topic, id) = case.topic(kind, 1, &[("compression.type", kind)]);
        for codec in [0, GZIP, SNAPPY, LZ4, ZSTD] {
            case.note(format!("{kind} topic, codec {codec}"));
            case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of(20).codec(codec).hex()));
        }
        let answer = case.quietly("Fetch", 12, fetch(&topic, &id, 0));
        for mut batch in answer["Responses"][0]["Partitions"][0]["Records"].as_array().cloned().unwrap_or_default() {
            if batch["attributes"] != 0 {
                batch["records_crc"] = Value::Null;
                batch["bytes"] = Value::Null;
            }
            case.push("batch".into(), batch, None);
        }
    }
}

fn internal_topics(case: &mut Case) {
    for version in [3, 9] {
        case.ask("Produce", version, produce("__consumer_offsets", &Value::Null, -1, &Batch::of(1).hex()));
    }
}

fn transactional(case: &mut Case) {
    let (topic, id) = case.topic("t", 2, &[]);
    for version in [3, 7, 9, 11, 12, 13] {
        case.note("transactional batch without transactional id");
        let batch = Batch::of(1).codec(TRANSACTIONAL).idempotent(1000, 0, 0);
        case.ask("Produce", version, produce(&topic, &id, -1, &batch.hex()));
        case.note("two producer ids");
        let mut body = produce(&topic, &id, -1, &Batch::of(1).idempotent(1001, 0, 0).hex());
        let second = json!({"Index": 1, "Records": Batch::of(1).idempotent(1002, 0, 0).hex()});
        body["TopicData"][0]["PartitionData"].as_array_mut().expect("a list").push(second);
        case.ask("Produce", version, body);
    }
    end_offset(case, &topic);
}

fn mixed_partitions(case: &mut Case) {
    let (first, first_id) = case.topic("a", 3, &[]);
    let (second, second_id) = case.topic("b", 1, &[]);
    for version in [3, 9, 13] {
        case.ask("Produce", version, json!({"Acks": -1, "TimeoutMs": 5000, "TopicData": [
            {"Name": first, "TopicId": first_id, "PartitionData": [
                {"Index": 2, "Records": Batch::of(2).hex()},
                {"Index": 0, "Records": corrupt().hex()},
                {"Index": 1, "Records": Batch::of(1).hex()},
                {"Index": 7, "Records": Batch::of(1).hex()}]},
            {"Name": case.named("none"), "TopicId": "AAAAAAAAAAAAAAAAAAAAAg", "PartitionData": [{"Index": 0, "Records": Batch::of(1).hex()}]},
            {"Name": second, "TopicId": second_id, "PartitionData": [{"Index": 0, "Records": Batch::of(3).hex()}]}]}));
    }
}

/// Returns a new producer id. Kafka gets its first block of ids from the controller only when it is needed; the client
/// must retry until then.
fn new_producer(case: &mut Case) -> i64 {
    let mut id = -1;
    case.until("there is a producer id", |case| {
        let answer =
            case.quietly("InitProducerId", 4, json!({"TransactionalId": null, "TransactionTimeoutMs": 60_000}));
        id = answer["ProducerId"].as_i64().unwrap_or(-1);
        id >= 0
    });
    id
}

/// Sends six batches of two records, then all again in reverse order; the oldest is not among the last five (I2).
fn resent_batches(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    let producer = new_producer(case);
    let batch = |at: i32| Batch::of(2).at_ms(BASE_TIMESTAMP_MS + i64::from(at)).idempotent(producer, 0, at * 2).hex();
    for at in 0..6 {
        case.ask("Produce", 9, produce(&topic, &id, -1, &batch(at)));
    }
    for version in [3, 5, 8, 9, 13] {
        case.note("sent again");
        for at in [5, 4, 3, 2, 1, 0, 1, 5] {
            case.ask("Produce", version, produce(&topic, &id, -1, &batch(at)));
        }
    }
    case.note("overlaps");
    for (sequence, count) in [(10, 1), (11, 1), (9, 2), (10, 3), (8, 4)] {
        case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of(count).idempotent(producer, 0, sequence).hex()));
    }
    end_offset(case, &topic);
    case.ask("Fetch", 12, fetch(&topic, &id, 0));
}

fn resent_to_log_append_time(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let producer = new_producer(case);
    let mut times = Vec::new();
    for _ in 0..2 {
        let answer = case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of(2).idempotent(producer, 0, 0).hex()));
        let time = answer["Responses"][0]["PartitionResponses"][0]["LogAppendTimeMs"].clone();
        case.until("the clock shows a later millisecond", |_| unix_time_ms() > time.as_i64().unwrap_or_default());
        times.push(time);
    }
    case.push("the same time".into(), (times[0] == times[1]).into(), None);
}

fn unix_time_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since_1970.as_millis()).expect("a time of this era")
}

fn sequences(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    let producer = new_producer(case);
    let steps: &[(&str, i16, i32)] = &[
        ("first", 0, 0),
        ("a gap", 0, 5),
        ("next", 0, 2),
        ("far back", 0, 100),
        ("a new epoch not from 0", 1, 4),
        ("a new epoch", 1, 0),
        ("the old epoch", 0, 4),
        ("the old epoch, resent", 0, 2),
        ("next of the new", 1, 2),
        ("two epochs on", 3, 0),
        ("a skipped epoch", 2, 0),
    ];
    for (what, epoch, sequence) in steps {
        for version in [3, 9, 13] {
            case.note(*what);
            case.ask(
                "Produce",
                version,
                produce(&topic, &id, -1, &Batch::of(2).idempotent(producer, *epoch, *sequence).hex()),
            );
        }
        end_offset(case, &topic);
    }
}

fn sequence_wraps(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    let producer = new_producer(case);
    for (sequence, count) in [(i32::MAX - 3, 3), (i32::MAX, 1), (0, 1), (1, 1), (i32::MAX - 3, 3)] {
        case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of(count).idempotent(producer, 0, sequence).hex()));
    }
    let (topic, id) = case.topic("across", 1, &[]);
    for (sequence, count) in [(i32::MAX - 1, 4), (2, 1), (i32::MAX - 1, 4), (3, 1)] {
        case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of(count).idempotent(producer, 0, sequence).hex()));
    }
    case.ask("Fetch", 12, fetch(&topic, &id, 0));
}

fn unknown_producer(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    for (producer, epoch, sequence) in [(900_001, 0, 17), (900_002, 5, 3), (900_003, i16::MAX, 0)] {
        let body = produce(&topic, &id, -1, &Batch::of(1).idempotent(producer, epoch, sequence).hex());
        case.ask("Produce", 9, body.clone());
        case.ask("Produce", 9, body);
        case.ask("Produce", 9, produce(&topic, &id, -1, &Batch::of(1).idempotent(producer, epoch, sequence + 1).hex()));
    }
}

fn describe_producers(case: &mut Case) {
    let (topic, id) = case.topic("t", 2, &[]);
    let describe = |case: &mut Case| {
        let body = json!({"Topics": [{"Name": topic, "PartitionIndexes": [0, 1]}]});
        case.ask("DescribeProducers", 0, body);
    };
    case.note("nobody yet");
    describe(case);
    let (first, second) = (new_producer(case), new_producer(case));
    let send = |case: &mut Case, batch: Batch| {
        case.quietly("Produce", 9, produce(&topic, &id, -1, &batch.hex()));
    };
    case.note("one that is idempotent, one that is not");
    send(case, Batch::of(2).at_ms(BASE_TIMESTAMP_MS + 5).idempotent(first, 0, 0));
    send(case, Batch::of(2));
    describe(case);
    case.note("another batch");
    send(case, Batch::of(3).at_ms(BASE_TIMESTAMP_MS + 9).idempotent(first, 0, 2));
    describe(case);
    case.note("another epoch");
    send(case, Batch::of(1).at_ms(BASE_TIMESTAMP_MS + 1).idempotent(first, 1, 0));
    describe(case);
    case.note("another producer");
    send(case, Batch::of(4).at_ms(BASE_TIMESTAMP_MS + 2).idempotent(second, 3, 0));
    describe(case);
    case.note("what is not there");
    case.ask("DescribeProducers", 0, json!({"Topics": []}));
    case.ask(
        "DescribeProducers",
        0,
        json!({"Topics": [{"Name": topic, "PartitionIndexes": [7, -1]}, {"Name": case.named("none"), "PartitionIndexes": [0, 1]},
            {"Name": "a b", "PartitionIndexes": [0]}, {"Name": "", "PartitionIndexes": [0]}, {"Name": "x".repeat(250), "PartitionIndexes": [0]}]}),
    );
}

fn init_producer_id(case: &mut Case) {
    new_producer(case);
    for version in served("InitProducerId") {
        case.note("new");
        let body = |timeout_ms: i32, id: i64, epoch: i16| json!({"TransactionalId": null, "TransactionTimeoutMs": timeout_ms, "ProducerId": id, "ProducerEpoch": epoch});
        case.ask("InitProducerId", version, body(60_000, -1, -1));
        case.ask("InitProducerId", version, body(-1, -1, -1));
        case.note("half a producer");
        case.ask("InitProducerId", version, body(60_000, 4, -1));
        case.ask("InitProducerId", version, body(60_000, -1, 4));
        case.note("a whole producer");
        case.ask("InitProducerId", version, body(60_000, 4, 1));
        case.note("an empty transactional id");
        case.ask("InitProducerId", version, json!({"TransactionalId": "", "TransactionTimeoutMs": 60_000}));
    }
}
