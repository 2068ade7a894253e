//! librdkafka reads back exactly the records that it produced.

use std::time::{Duration, Instant, SystemTime};

use protocol_tests::{
    broker::Broker,
    clients::{CALL_LIMIT, Record, consumer, create_topic, produce, producer, read_all, read_all_with, try_send},
    process::eventually,
};
use rdkafka::{consumer::Consumer, producer::Producer, types::RDKafkaErrorCode};

/// Records with unusual keys, values and headers.
fn awkward_records() -> Vec<Record> {
    let header = |key: &str, value: Option<&str>| (key.to_owned(), value.map(|value| value.as_bytes().to_vec()));
    vec![
        Record::of("key", "value"),
        Record { key: None, ..Record::of("", "no key") },
        Record { value: None, ..Record::of("tombstone", "") },
        Record::of("", ""),
        Record { key: None, value: None, ..Record::default() },
        Record {
            headers: vec![
                header("a", Some("1")),
                header("b", None),
                header("a", Some("2")),
                header("a", Some("")),
                header("", Some("x")),
            ],
            ..Record::of("headers", "repeated, in order, null and empty")
        },
        Record::of(vec![0, 255, 0, 128], (0..=255).collect::<Vec<u8>>()),
    ]
}

#[test]
fn every_codec_keeps_keys_values_headers_and_order() {
    let broker = Broker::start_default();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("codec-{codec}");
        create_topic(&broker.bootstrap(), &topic, 1, &[]);
        let mut sent = awkward_records();
        // Enough similar records that every codec compresses, in more than one batch.
        sent.extend(
            (0..5_000).map(|i| Record::of(format!("key-{}", i % 10), format!("value {i} {}", "x".repeat(100)))),
        );
        let settings = [("compression.codec", codec), ("batch.num.messages", "1000"), ("linger.ms", "20")];
        let places = produce(&broker.bootstrap(), &topic, &settings, &sent);
        assert_eq!(places, (0..sent.len() as i64).map(|offset| (0, offset)).collect::<Vec<_>>(), "{codec}");
        let read = read_all(&broker.bootstrap(), &topic);
        assert_eq!(read.len(), sent.len(), "{codec}");
        for (sent, read) in sent.iter().zip(&read) {
            assert_eq!((&sent.key, &sent.value, &sent.headers), (&read.key, &read.value, &read.headers), "{codec}");
        }
    }
}

#[test]
fn ten_megabyte_messages_pass_where_the_topic_allows_them() {
    let broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "large", 1, &[("max.message.bytes", "12000000")]);
    create_topic(&bootstrap, "ordinary", 1, &[]);
    // Random bytes, which no codec can compress.
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    let large: Vec<Record> =
        (0..3).map(|i| Record::of(format!("{i}"), (0..10 << 20).map(|_| noise()).collect::<Vec<u8>>())).collect();
    let allow = ("message.max.bytes", "13000000");
    for codec in ["none", "lz4"] {
        produce(&bootstrap, "large", &[allow, ("compression.codec", codec)], &large);
    }
    let settings = [("max.partition.fetch.bytes", "1000000"), ("receive.message.max.bytes", "100000000")];
    let read = read_all_with(&bootstrap, "large", &settings);
    assert_eq!(read.len(), 6);
    for (read, sent) in read.iter().zip(large.iter().cycle()) {
        assert!(read.value == sent.value && read.key == sent.key, "record {} differs", read.offset);
    }
    let refused = try_send(&producer(&bootstrap, &[allow]), "ordinary", &large[..1]);
    assert_eq!(refused.expect_err("too large").rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge));
    assert_eq!(read_all(&bootstrap, "ordinary"), []);
}

#[test]
fn timestamps_are_the_producers_or_the_logs() {
    let broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "create-time", 1, &[]);
    create_topic(&bootstrap, "append-time", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let now_ms = now_ms();
    let times = [now_ms - 3_600_000, now_ms, now_ms - 1, 1_000, 0];
    let records: Vec<Record> =
        times.iter().map(|time| Record { timestamp_ms: Some(*time), ..Record::of("k", "v") }).collect();
    // librdkafka replaces timestamp 0 by the current time, so only the first four records are used.
    produce(&bootstrap, "create-time", &[], &records[..4]);
    let read: Vec<Option<i64>> = read_all(&bootstrap, "create-time").iter().map(|record| record.timestamp_ms).collect();
    assert_eq!(read, times[..4].iter().map(|time| Some(*time)).collect::<Vec<_>>());

    produce(&bootstrap, "append-time", &[("compression.codec", "gzip")], &records);
    let after_ms = self::now_ms();
    for record in read_all(&bootstrap, "append-time") {
        let time = record.timestamp_ms.expect("a timestamp");
        assert!((now_ms..=after_ms).contains(&time), "{time} is not between {now_ms} and {after_ms}");
    }

    // A timestamp more than an hour ahead is refused (message.timestamp.after.max.ms).
    let ahead = Record { timestamp_ms: Some(now_ms + 2 * 3_600_000), ..Record::of("k", "v") };
    let refused = try_send(&producer(&bootstrap, &[]), "create-time", &[ahead]);
    assert_eq!(refused.expect_err("too far ahead").rdkafka_error_code(), Some(RDKafkaErrorCode::InvalidTimestamp));
}

#[test]
fn an_idempotent_producer_writes_each_record_once_and_in_order() {
    let broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "idempotent", 3, &[]);
    let records: Vec<Record> = (0..20_000).map(|i| Record::to_partition(i % 3, format!("{i}"))).collect();
    let settings = [("enable.idempotence", "true"), ("batch.num.messages", "50")];
    let places = produce(&bootstrap, "idempotent", &settings, &records);
    let read = read_all(&bootstrap, "idempotent");
    assert_eq!(read.len(), records.len());
    for partition in 0..3 {
        let sent =
            records.iter().filter(|record| record.partition == Some(partition)).map(|record| record.value.clone());
        let read = read.iter().filter(|record| record.partition == partition).map(|record| record.value.clone());
        assert!(sent.eq(read), "the records of partition {partition} differ from the sent ones");
    }
    // Each record is at the partition and offset of its acknowledgement.
    for ((partition, offset), sent) in places.iter().zip(&records) {
        let at = read.binary_search_by_key(&(*partition, *offset), |record| (record.partition, record.offset));
        assert_eq!(read[at.expect("a record at the acknowledged offset")].value, sent.value);
    }
}

#[test]
fn acks_0_and_acks_1_arrive_too() {
    let broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    for acks in ["0", "1"] {
        let topic = format!("acks-{acks}");
        create_topic(&bootstrap, &topic, 1, &[]);
        let records: Vec<Record> = (0..1000).map(|i| Record::of("k", format!("{i}"))).collect();
        produce(&bootstrap, &topic, &[("acks", acks)], &records);
        // With acks=0 a record counts as acknowledged when it is sent; it may reach the log later.
        eventually("all records are there", CALL_LIMIT, || (read_all(&bootstrap, &topic).len() == 1000).then_some(()));
    }
}

#[test]
fn an_empty_topic_is_read_to_its_end_at_once() {
    let broker = Broker::start_default();
    create_topic(&broker.bootstrap(), "empty", 4, &[]);
    assert_eq!(read_all(&broker.bootstrap(), "empty"), []);
    let consumer = consumer(&broker.bootstrap(), "g", &[]);
    for partition in 0..4 {
        assert_eq!(consumer.fetch_watermarks("empty", partition, CALL_LIMIT).expect("watermarks"), (0, 0));
    }
}

#[test]
fn a_topic_of_2000_partitions() {
    let mut broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "wide", 2000, &[]);
    let records: Vec<Record> = (0..2000).map(|i| Record::to_partition(i, format!("in {i}"))).collect();
    // Idempotent: if the broker is busy, the producer retries, and a record must not be stored twice.
    produce(&bootstrap, "wide", &[("enable.idempotence", "true")], &records);
    let check = |bootstrap: &str| {
        let read = read_all(bootstrap, "wide");
        assert_eq!(read.len(), 2000);
        assert!(read.iter().all(|record| record.offset == 0 && record.text() == format!("in {}", record.partition)));
    };
    check(&bootstrap);
    broker.restart();
    check(&bootstrap);
}

#[test]
fn producing_to_an_unknown_topic_creates_it_with_the_brokers_defaults() {
    let broker = Broker::options().set("num.partitions", 5).start();
    let bootstrap = broker.bootstrap();
    produce(&bootstrap, "by-itself", &[("allow.auto.create.topics", "true")], &[Record::of("k", "v")]);
    assert_eq!(read_all(&bootstrap, "by-itself").len(), 1);
    let metadata = consumer(&bootstrap, "g", &[]).fetch_metadata(Some("by-itself"), CALL_LIMIT).expect("metadata");
    assert_eq!(metadata.topics()[0].partitions().len(), 5);
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
    now.as_millis() as i64
}

/// Transactions are not supported yet; without a clear error librdkafka would ask for the coordinator until its own
/// timeout.
#[test]
fn transactional_producers_hear_at_once_that_there_are_no_transactions() {
    let broker = Broker::start_default();
    let producer = producer(&broker.bootstrap(), &[("transactional.id", "t")]);
    let start = Instant::now();
    let error = producer.init_transactions(Duration::from_secs(60)).expect_err("transactions are not served");
    assert!(start.elapsed() < Duration::from_secs(20), "an answer after {:?}", start.elapsed());
    assert!(error.to_string().contains("transactions are not served"), "{error}");
}
