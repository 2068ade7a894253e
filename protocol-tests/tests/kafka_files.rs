//! Exchange of files: Ottla serves Apache Kafka's files byte for byte, and Apache Kafka opens Ottla's files.

use std::{collections::BTreeMap, path::Path};

use kafka_protocol::{
    messages::{
        FetchRequest, TopicName,
        fetch_request::{FetchPartition, FetchTopic},
    },
    protocol::StrBytes,
};
use protocol_tests::{
    broker::Broker,
    clients::{Record, create_topic, produce, read_all, wait_until_ready},
    kafka::{Kafka, KafkaOptions},
    wire::Wire,
};

/// A small segment size, so that there are several segments.
const SEGMENT_BYTES: i64 = 1 << 20;

fn fill(bootstrap: &str, topic: &str) -> Vec<Record> {
    let mut all = Vec::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let records: Vec<Record> = (0..2000)
            .map(|i| Record {
                headers: vec![("codec".into(), Some(codec.into()))],
                timestamp_ms: Some(1_700_000_000_000 + i64::from(i)),
                partition: Some(0),
                ..Record::of(format!("key {i}"), format!("{codec} {i} {}", "pq".repeat(i as usize % 400)))
            })
            .collect();
        let settings = [("compression.codec", codec), ("enable.idempotence", "true"), ("batch.num.messages", "100")];
        produce(bootstrap, topic, &settings, &records);
        all.extend(records);
    }
    all
}

/// Fetches all bytes of partition 0.
fn fetch_everything(bootstrap: &str, topic: &str) -> Vec<u8> {
    let mut wire = Wire::connect(bootstrap);
    let mut bytes: Vec<u8> = Vec::new();
    let mut offset = 0;
    loop {
        let partition =
            FetchPartition::default().with_partition(0).with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default()
            .with_topic(StrBytes::from_string(topic.to_owned()).into())
            .with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_wait_ms(100)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_topics(vec![topic]);
        let answer = wire.ask(4, &request);
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        let records = partition.records.clone().unwrap_or_default();
        if offset >= partition.high_watermark {
            return bytes;
        }
        // Only complete batches: the last one in an answer may be incomplete.
        let mut rest = &records[..];
        while let Some(size) = batch_size(rest).filter(|size| *size <= rest.len()) {
            bytes.extend_from_slice(&rest[..size]);
            let base = i64::from_be_bytes(rest[..8].try_into().expect("8 bytes"));
            offset = base + i64::from(i32::from_be_bytes(rest[23..27].try_into().expect("4 bytes"))) + 1;
            rest = &rest[size..];
        }
    }
}

fn batch_size(bytes: &[u8]) -> Option<usize> {
    let length = i32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
    (bytes.len() > 27).then_some(12 + length as usize)
}

/// The bytes of all segments of a partition, in order.
fn segments(directory: &Path) -> Vec<u8> {
    let mut logs = BTreeMap::new();
    for entry in std::fs::read_dir(directory).expect("list the partition") {
        let path = entry.expect("directory entry").path();
        if path.extension().is_some_and(|extension| extension == "log") {
            logs.insert(path.file_name().map(|name| name.to_owned()), std::fs::read(&path).expect("read a segment"));
        }
    }
    assert!(logs.len() > 1, "the test needs several segments");
    logs.into_values().flatten().collect()
}

/// Replaces all files of a partition by those of another, except the one with the topic id.
fn replace_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(to).expect("list the partition") {
        let path = entry.expect("directory entry").path();
        if path.file_name().is_some_and(|name| name != "partition.metadata") {
            std::fs::remove_file(path).expect("remove a file");
        }
    }
    for entry in std::fs::read_dir(from).expect("list the partition") {
        let path = entry.expect("directory entry").path();
        let name = path.file_name().expect("a name");
        if name != "partition.metadata" {
            std::fs::copy(&path, to.join(name)).expect("copy a file");
        }
    }
}

fn same(sent: &[Record], bootstrap: &str, topic: &str) {
    let read = read_all(bootstrap, topic);
    assert_eq!(read.len(), sent.len());
    for (sent, read) in sent.iter().zip(&read) {
        assert_eq!(
            (&sent.key, &sent.value, &sent.headers, sent.timestamp_ms),
            (&read.key, &read.value, &read.headers, read.timestamp_ms)
        );
    }
}

#[test]
fn a_partition_written_by_apache_kafka_is_served_byte_for_byte() {
    let mut kafka = Kafka::start(&KafkaOptions::default().property("log.segment.bytes", SEGMENT_BYTES))
        .expect("start Apache Kafka");
    wait_until_ready(&kafka.bootstrap());
    create_topic(&kafka.bootstrap(), "t", 1, &[]);
    let sent = fill(&kafka.bootstrap(), "t");
    kafka.stop().expect("stop Apache Kafka");
    let written = segments(&kafka.log_directory().join("t-0"));

    let mut broker = Broker::options().set("log.segment.bytes", SEGMENT_BYTES).start();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "t", 1, &[]);
    broker.stop();
    replace_files(&kafka.log_directory().join("t-0"), &broker.data().join("t-0"));
    // Ottla's checkpoints do not know these files, so start as after a crash.
    let _ = std::fs::remove_file(broker.data().join(".kafka_cleanshutdown"));
    broker.start();
    assert!(fetch_everything(&bootstrap, "t") == written, "Fetch returns other bytes than Kafka wrote");
    same(&sent, &bootstrap, "t");
    // Ottla appends after them, and still serves them after a restart.
    produce(&bootstrap, "t", &[], &[Record::to_partition(0, "more")]);
    broker.restart();
    let read = read_all(&bootstrap, "t");
    assert_eq!((read.len(), read[read.len() - 1].text().as_str()), (sent.len() + 1, "more"));
}

#[test]
fn a_partition_written_by_ottla_is_served_by_apache_kafka() {
    let mut broker = Broker::options().set("log.segment.bytes", SEGMENT_BYTES).start();
    create_topic(&broker.bootstrap(), "t", 1, &[]);
    let sent = fill(&broker.bootstrap(), "t");
    broker.stop();

    let directory = tempfile::tempdir().expect("temporary directory");
    let options = KafkaOptions::default().property("log.segment.bytes", SEGMENT_BYTES).directory(directory.path());
    let mut kafka = Kafka::start(&options).expect("start Apache Kafka");
    wait_until_ready(&kafka.bootstrap());
    create_topic(&kafka.bootstrap(), "t", 1, &[]);
    kafka.stop().expect("stop Apache Kafka");
    let partition = kafka.log_directory().join("t-0");
    replace_files(&broker.data().join("t-0"), &partition);
    let written = segments(&partition);
    // The checkpoints belong to the empty partition; without them Kafka checks the whole log.
    for file in [".kafka_cleanshutdown", "recovery-point-offset-checkpoint", "replication-offset-checkpoint"] {
        let _ = std::fs::remove_file(kafka.log_directory().join(file));
    }
    let kafka = Kafka::start(&options).expect("start Apache Kafka again");
    wait_until_ready(&kafka.bootstrap());
    same(&sent, &kafka.bootstrap(), "t");
    assert!(segments(&partition) == written, "Kafka has truncated or repaired something");
}

/// What `kafka-storage format` makes of `metadata.log.dir` beside `log.dirs` is taken as it is.
#[test]
fn directories_that_kafka_formatted_with_a_metadata_directory_of_its_own_are_taken_as_they_are() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let metadata = directory.path().join("metadata");
    let options = KafkaOptions::default().directory(directory.path()).property("metadata.log.dir", metadata.display());
    Kafka::format(&options).expect("kafka-storage format");
    let identity = |dir: &Path| {
        let text = std::fs::read_to_string(dir.join("meta.properties")).expect("read meta.properties");
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        (value("cluster.id="), value("directory.id="), value("node.id="))
    };
    let data = directory.path().join("data");
    let before = (identity(&data), identity(&metadata));
    assert!(before.0 != before.1 && !data.join("__cluster_metadata-0").exists());

    let mut broker = Broker::options()
        .set("log.dirs", data.display())
        .set("metadata.log.dir", metadata.display())
        .set("node.id", 1)
        .start();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "t", 1, &[]);
    produce(&bootstrap, "t", &[], &[Record::to_partition(0, "first")]);
    broker.restart();
    produce(&bootstrap, "t", &[], &[Record::to_partition(0, "second")]);
    let values: Vec<_> = read_all(&bootstrap, "t").iter().map(|stored| stored.text()).collect();
    assert_eq!(values, ["first", "second"]);
    broker.stop();
    assert_eq!((identity(&data), identity(&metadata)), before);
    assert!(data.join("t-0").exists() && !data.join("__cluster_metadata-0").exists());
    assert!(metadata.join("__cluster_metadata-0/00000000000000000000.log").exists());
    assert!(!metadata.join("t-0").exists());
}

/// Same as Apache Kafka for a damaged batch header: consumers stop with an error that names the offset. Repeated
/// fetches do not fill the broker's log.
#[test]
fn a_corrupt_batch_is_answered_with_corrupt_message_after_those_before_it() {
    let mut broker = Broker::options().expect_log("cannot read for a fetch request").start();
    let bootstrap = broker.bootstrap();
    for value in ["first", "second", "third"] {
        produce(&bootstrap, "t", &[], &[Record::to_partition(0, value)]);
    }
    broker.stop();
    let path = broker.data().join("t-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&path).expect("read the segment");
    let at = bytes.windows(6).position(|window| window == b"second").expect("the second record");
    bytes[at] ^= 0xff;
    std::fs::write(&path, bytes).expect("write the segment");
    broker.start();
    let mut wire = Wire::connect(&bootstrap);
    let mut fetch = |offset| {
        let partition = FetchPartition::default().with_partition(0).with_fetch_offset(offset);
        let partition = partition.with_partition_max_bytes(1 << 20);
        let name = TopicName(StrBytes::from_static_str("t"));
        let topic = FetchTopic::default().with_topic(name).with_partitions(vec![partition]);
        let request = FetchRequest::default().with_max_wait_ms(10).with_min_bytes(1).with_max_bytes(1 << 20);
        let answer = wire.ask(11, &request.with_topics(vec![topic]));
        let data = &answer.responses[0].partitions[0];
        (data.error_code, data.records.as_ref().map_or(0, |records| records.len()))
    };
    const CORRUPT_MESSAGE: i16 = 2;
    let (error, bytes) = fetch(0);
    assert!(error == 0 && bytes > 0, "the batches before it are served: {error}, {bytes} bytes");
    for _ in 0..50 {
        assert_eq!(fetch(1).0, CORRUPT_MESSAGE);
    }
    assert_eq!(fetch(2).0, 0, "the batches after it are served");
    let said = broker.log().iter().filter(|line| line.contains("cannot read for a fetch request")).count();
    assert!((1..=2).contains(&said), "{said} lines for 50 fetches");
}
