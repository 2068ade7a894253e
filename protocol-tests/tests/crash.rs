//! Repeated kill -9 under load: all acknowledged records are stored once and in order, and no committed offset is lost.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use protocol_tests::{
    broker::Broker,
    clients::{CALL_LIMIT, config, consumer, create_topic, read_all},
    process::eventually,
};
use rdkafka::{
    ClientContext,
    consumer::{CommitMode, Consumer},
    error::KafkaError,
    message::Message,
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
    topic_partition_list::{Offset, TopicPartitionList},
    types::RDKafkaErrorCode,
};

const PARTITIONS: i32 = 4;
const PRODUCERS: usize = 2;

/// Collects the acknowledged records: (partition, offset, value).
#[derive(Default)]
struct Acknowledged {
    count: AtomicU64,
    records: Mutex<Vec<(i32, i64, Vec<u8>)>>,
    grew: Condvar,
    failures: Mutex<Vec<String>>,
}

impl Acknowledged {
    /// Waits until more than `count` records are acknowledged, at most a second, because a failed record frees space in
    /// the producer's queue too.
    fn wait_for_more_than(&self, count: u64) {
        let records = self.records.lock().expect("lock");
        let wait =
            self.grew.wait_timeout_while(records, Duration::from_secs(1), |records| records.len() as u64 <= count);
        drop(wait.expect("lock"));
    }
}

#[derive(Clone)]
struct Recorder(Arc<Acknowledged>);

impl ClientContext for Recorder {}

impl ProducerContext for Recorder {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                let value = message.payload().unwrap_or_default().to_vec();
                self.0.records.lock().expect("lock").push((message.partition(), message.offset(), value));
                self.0.count.fetch_add(1, Ordering::Relaxed);
                self.0.grew.notify_all();
            }
            Err((error, message)) => {
                let value = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
                self.0.failures.lock().expect("lock").push(format!("{value}: {error}"));
            }
        }
    }
}

/// Sends numbered values without a pause until `stop` is set, then waits for the last acknowledgement. Returns the
/// number of sent values.
fn load(bootstrap: &str, name: usize, acknowledged: Arc<Acknowledged>, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    let settings = [
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("linger.ms", "2"),
        ("batch.num.messages", "100"),
        ("queue.buffering.max.messages", "2000"),
        ("message.timeout.ms", "120000"),
        ("reconnect.backoff.ms", "10"),
        ("reconnect.backoff.max.ms", "50"),
        ("retry.backoff.ms", "10"),
        ("topic.metadata.refresh.interval.ms", "1000"),
        ("log_level", "2"),
    ];
    let producer: ThreadedProducer<Recorder> =
        config(bootstrap, &settings).create_with_context(Recorder(acknowledged.clone())).expect("create a producer");
    std::thread::spawn(move || {
        let mut next = 0;
        while !stop.load(Ordering::Relaxed) {
            let value = format!("{name}-{next}");
            let known = acknowledged.count.load(Ordering::Relaxed);
            let record = BaseRecord::<(), str>::to("crash").partition(next as i32 % PARTITIONS).payload(&value);
            match producer.send(record) {
                Ok(()) => next += 1,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    // The queue is full; an acknowledgement frees space, but none comes while the broker is down.
                    acknowledged.wait_for_more_than(known);
                }
                Err((error, _)) => panic!("produce: {error}"),
            }
        }
        producer.flush(Duration::from_secs(120)).expect("the last records are acknowledged");
        next
    })
}

/// Commits increasing offsets of a group and stores the last acknowledged one.
fn commit_offsets(bootstrap: &str, acknowledged: Arc<AtomicI64>, stop: Arc<AtomicBool>) -> JoinHandle<i64> {
    let settings = [("reconnect.backoff.ms", "10"), ("reconnect.backoff.max.ms", "50"), ("log_level", "2")];
    let consumer = consumer(bootstrap, "crash-group", &settings);
    std::thread::spawn(move || {
        let mut next = 1;
        while !stop.load(Ordering::Relaxed) {
            let mut offsets = TopicPartitionList::new();
            offsets.add_partition_offset("crash", 0, Offset::Offset(next)).expect("an offset");
            // A failed commit may still have been applied, so the next one is higher.
            if consumer.commit(&offsets, CommitMode::Sync).is_ok() {
                acknowledged.store(next, Ordering::Relaxed);
            }
            next += 1;
            // Limits the rate of commits: the producers are the load.
            std::thread::sleep(Duration::from_millis(2));
        }
        next - 1
    })
}

fn committed_offset(bootstrap: &str) -> Option<i64> {
    let mut list = TopicPartitionList::new();
    list.add_partition("crash", 0);
    let reader = consumer(bootstrap, "crash-group", &[]);
    // librdkafka retries NOT_COORDINATOR and similar errors; a group without commits has no offset yet.
    let list = reader.committed_offsets(list, CALL_LIMIT).ok()?;
    match list.find_partition("crash", 0)?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

#[test]
fn fifty_kills_under_load_lose_and_repeat_nothing() {
    let cycles = if Broker::is_kafka() { 3 } else { 50 };
    // Small segments, so that crashes also happen during rolls and recovery has several segments.
    // A kill may interrupt a write, which leaves a torn tail.
    let mut broker = Broker::options().set("log.segment.bytes", 1 << 20).expect_log("torn tail is cut").start();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "crash", PARTITIONS, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged: Vec<Arc<Acknowledged>> = (0..PRODUCERS).map(|_| Arc::default()).collect();
    let producers: Vec<_> =
        acknowledged.iter().enumerate().map(|(name, of)| load(&bootstrap, name, of.clone(), stop.clone())).collect();
    let committed = Arc::new(AtomicI64::new(-1));
    let committer = commit_offsets(&bootstrap, committed.clone(), stop.clone());
    let total = || acknowledged.iter().map(|of| of.count.load(Ordering::Relaxed)).sum::<u64>();

    for cycle in 0..cycles {
        let before = (total(), committed.load(Ordering::Relaxed));
        // Each cycle kills the broker at another point of the load.
        let wanted = before.0 + 200 + 137 * (cycle % 7);
        eventually(&format!("cycle {cycle}: producers and committer make progress"), Duration::from_secs(60), || {
            (total() >= wanted && committed.load(Ordering::Relaxed) > before.1).then_some(())
        });
        let known = committed.load(Ordering::Relaxed);
        broker.kill();
        broker.start();
        let found = eventually(&format!("cycle {cycle}: the committed offset is returned"), CALL_LIMIT, || {
            committed_offset(&bootstrap)
        });
        assert!(found >= known, "cycle {cycle}: offset {known} was committed, but {found} is returned after the kill");
    }

    stop.store(true, Ordering::Relaxed);
    let sent: Vec<u64> = producers.into_iter().map(|thread| thread.join().expect("producer thread")).collect();
    let last_commit = committer.join().expect("committer thread");
    let found = committed_offset(&bootstrap).expect("a committed offset");
    assert!((committed.load(Ordering::Relaxed)..=last_commit).contains(&found), "{found} is not the last commit");

    let read = read_all(&bootstrap, "crash");
    for (name, (sent, acknowledged)) in sent.iter().zip(&acknowledged).enumerate() {
        let failures = acknowledged.failures.lock().expect("lock");
        assert!(
            failures.is_empty(),
            "producer {name}: {} deliveries failed, first {:?}",
            failures.len(),
            failures.first()
        );
        for partition in 0..PARTITIONS {
            let prefix = format!("{name}-");
            let values: Vec<u64> = read
                .iter()
                .filter(|record| record.partition == partition)
                .filter_map(|record| record.text().strip_prefix(&prefix)?.parse().ok())
                .collect();
            let expected: Vec<u64> = (0..*sent).filter(|number| *number as i32 % PARTITIONS == partition).collect();
            let differs = values.iter().zip(&expected).position(|(read, sent)| read != sent);
            assert!(
                values == expected,
                "producer {name}, partition {partition}: {} records read, {} sent, first difference at {differs:?}",
                values.len(),
                expected.len()
            );
        }
        // Each record is at the offset of its acknowledgement.
        for (partition, offset, value) in acknowledged.records.lock().expect("lock").iter() {
            let at = read.binary_search_by_key(&(*partition, *offset), |record| (record.partition, record.offset));
            assert_eq!(read[at.expect("a record at the acknowledged offset")].value.as_ref(), Some(value));
        }
    }
}

#[test]
fn a_kill_while_topics_are_created_and_deleted_keeps_what_was_answered() {
    let cycles = if Broker::is_kafka() { 2 } else { 10 };
    let mut broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    for cycle in 0..cycles {
        for number in 0..5 {
            create_topic(&bootstrap, &format!("t-{cycle}-{number}"), 2, &[("retention.ms", "1234567")]);
        }
        if cycle > 0 {
            let name = format!("t-{}-0", cycle - 1);
            let admin = protocol_tests::clients::admin(&bootstrap);
            let deleted = protocol_tests::clients::block_on(
                admin.delete_topics(&[&name], &protocol_tests::clients::admin_options()),
            );
            assert_eq!(deleted.expect("call DeleteTopics"), [Ok(name)]);
        }
        broker.kill();
        broker.start();
        let metadata = consumer(&bootstrap, "g", &[]).fetch_metadata(None, CALL_LIMIT).expect("metadata");
        let mut names: Vec<&str> =
            metadata.topics().iter().map(|topic| topic.name()).filter(|name| !name.starts_with("__")).collect();
        names.sort_unstable();
        let mut expected: Vec<String> = Vec::new();
        for earlier in 0..=cycle {
            let first = if earlier < cycle { 1 } else { 0 };
            expected.extend((first..5).map(|number| format!("t-{earlier}-{number}")));
        }
        expected.sort_unstable();
        assert_eq!(names, expected, "after kill {cycle}");
    }
}
