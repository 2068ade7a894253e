//! Compacted topics with real clients: what consumers read, what a restart and Apache Kafka's own tool make of the files.

use std::{collections::BTreeMap, path::Path, time::Duration};

use protocol_tests::{
    broker::Broker,
    clients::{Record, Stored, consumer, create_topic, produce, read_all, with_coordinator},
    process::eventually,
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer},
};

const LIMIT: Duration = Duration::from_secs(60);
const KEYS: usize = 50;
/// The smallest segment that Kafka allows.
const SEGMENT_BYTES: u64 = 1 << 20;

fn broker() -> Broker {
    let options = Broker::options().set("log.cleaner.backoff.ms", 100).set("group.initial.rebalance.delay.ms", 0);
    options.set("offsets.topic.num.partitions", 1).set("offsets.topic.segment.bytes", SEGMENT_BYTES).start()
}

/// Bytes of the `.log` files that are part of the partition.
fn log_bytes(broker: &Broker, partition: &str) -> u64 {
    let entries = std::fs::read_dir(broker.data().join(partition)).expect("the directory of the partition");
    let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
    let files = entries.map(|entry| entry.expect("an entry").path()).filter(|path| is_log(path));
    // A file may be replaced while the directory is read.
    files.filter_map(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
}

fn newest(records: &[Stored]) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    records.iter().map(|record| (record.key.clone().expect("a key"), record.value.clone())).collect()
}

#[test]
fn consumers_read_the_newest_record_of_each_key_also_after_a_kill() {
    let mut broker = broker();
    let settings = [("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.01")];
    create_topic(&broker.bootstrap(), "t", 1, &settings);
    let mut expected = BTreeMap::new();
    for (round, codec) in ["none", "gzip", "snappy", "lz4", "zstd"].iter().enumerate() {
        let records: Vec<Record> = (0..1_500)
            .map(|at| {
                // It does not shrink, so that each round fills a segment.
                let value: Vec<u8> =
                    (0..1_000u32).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 13) as u8 ^ at as u8).collect();
                let value = [format!("{round}-{at} ").into_bytes(), value].concat();
                Record::of(format!("key-{}", at % KEYS), value)
            })
            .collect();
        produce(&broker.bootstrap(), "t", &[("compression.type", codec)], &records);
        expected.extend(records.into_iter().map(|record| (record.key, record.value)));
    }
    // What cannot go: the newest records, and what the active segment holds.
    let most = 2 * SEGMENT_BYTES;
    eventually("the log is compacted", LIMIT, || (log_bytes(&broker, "t-0") < most).then_some(()));
    let stored = read_all(&broker.bootstrap(), "t");
    let wanted: BTreeMap<Vec<u8>, Option<Vec<u8>>> =
        expected.into_iter().map(|(key, value)| (key.expect("a key"), value)).collect();
    assert_eq!(newest(&stored), wanted);
    assert!(stored.windows(2).all(|pair| pair[0].offset < pair[1].offset));
    assert_eq!(stored.last().map(|record| record.offset), Some(7_499), "offsets stay");

    broker.kill();
    broker.start();
    assert_eq!(newest(&read_all(&broker.bootstrap(), "t")), wanted);
    broker.stop();
    assert!(crate::cli::nothing_wrong(&broker.data(), "t-0", &[]) > 1, "kafka-dump-log reads all segments");
}

#[test]
fn committed_offsets_are_compacted_and_a_restart_knows_them() {
    let mut broker = broker();
    create_topic(&broker.bootstrap(), "t", 1, &[]);
    let member = consumer(&broker.bootstrap(), "g", &[]);
    let commit = |offset: i64| {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset("t", 0, Offset::Offset(offset)).expect("an offset");
        with_coordinator("commit", || member.commit(&offsets, CommitMode::Async));
    };
    // About 100 bytes each.
    let commits = 60_000;
    for offset in 1..=commits {
        commit(offset);
    }
    let mut last = TopicPartitionList::new();
    last.add_partition_offset("t", 0, Offset::Offset(commits)).expect("an offset");
    with_coordinator("the last commit", || member.commit(&last, CommitMode::Sync));
    eventually("the offsets are compacted", LIMIT, || {
        (log_bytes(&broker, "__consumer_offsets-0") < 2 * SEGMENT_BYTES).then_some(())
    });
    broker.kill();
    broker.start();
    let committed = with_coordinator("committed", || member.committed_offsets(last.clone(), LIMIT));
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(commits));
}
