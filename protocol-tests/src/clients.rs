//! Helpers for tests with librdkafka: create topics, produce and wait for every acknowledgement, read a topic to its
//! end. They check what must hold in every test: batch CRCs, no delivery error, order of offsets.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::OnceLock,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{Header, Headers, Message, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
    topic_partition_list::{Offset, TopicPartitionList},
    types::RDKafkaErrorCode,
};
use tokio::runtime::Runtime;

use crate::process::eventually;

/// Longest duration of one client call on a busy machine.
pub const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Longest time to read a topic to its end.
const READ_LIMIT: Duration = Duration::from_secs(120);

/// A record to produce. Built from its default: `Record { key: …, ..Record::default() }`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp_ms: Option<i64>,
}

impl Record {
    pub fn of(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Record {
        Record { key: Some(key.into()), value: Some(value.into()), ..Record::default() }
    }

    /// A record without a key, for a chosen partition.
    pub fn to_partition(partition: i32, value: impl Into<Vec<u8>>) -> Record {
        Record { partition: Some(partition), value: Some(value.into()), ..Record::default() }
    }
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp_ms: Option<i64>,
}

impl Stored {
    pub fn copy(message: &impl Message) -> Stored {
        let headers = message.headers().map(|headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        Stored {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
            timestamp_ms: message.timestamp().to_millis(),
        }
    }

    /// The value as text; "" if it is null.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

/// Runs a client's future to its end.
pub fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let build =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio runtime");
    RUNTIME.get_or_init(build).block_on(future)
}

/// librdkafka's settings with the bootstrap address and `more`.
pub fn config(bootstrap: &str, more: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    for (key, value) in more {
        config.set(*key, *value);
    }
    config
}

pub fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    config(bootstrap, &[]).create().expect("create an admin client")
}

pub fn admin_options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(CALL_LIMIT)).request_timeout(Some(CALL_LIMIT))
}

/// Waits until the broker lists itself in Metadata.
pub fn wait_until_ready(bootstrap: &str) {
    let consumer: BaseConsumer = config(bootstrap, &[]).create().expect("create a client");
    eventually("the broker answers Metadata and lists itself", Duration::from_secs(60), || {
        let metadata = consumer.fetch_metadata(None, Duration::from_secs(5)).ok()?;
        (!metadata.brokers().is_empty()).then_some(())
    });
}

/// Creates a topic and waits until all its partitions have a leader in Metadata.
pub fn create_topic(bootstrap: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    create_replicated_topic(bootstrap, name, partitions, 1, settings);
}

/// Like [`create_topic`], with more than one replica.
pub fn create_replicated_topic(bootstrap: &str, name: &str, partitions: i32, replicas: i32, settings: &[(&str, &str)]) {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let results = block_on(admin(bootstrap).create_topics([&topic], &admin_options())).expect("call CreateTopics");
    assert_eq!(results, [Ok(name.to_owned())]);
    let consumer: BaseConsumer = config(bootstrap, &[]).create().expect("create a client");
    eventually("the new topic has leaders", CALL_LIMIT, || {
        let metadata = consumer.fetch_metadata(Some(name), CALL_LIMIT).ok()?;
        let topic = metadata.topics().first()?;
        let led = topic.partitions().iter().filter(|partition| partition.leader() >= 0).count();
        (topic.error().is_none() && led == partitions as usize).then_some(())
    });
}

pub fn producer(bootstrap: &str, settings: &[(&str, &str)]) -> FutureProducer {
    let mut config = config(bootstrap, &[("linger.ms", "1"), ("queue.buffering.max.messages", "1000000")]);
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create().expect("create a producer")
}

/// Sends the records in order, waits for all acknowledgements and returns (partition, offset) of each record.
pub fn send(producer: &FutureProducer, topic: &str, records: &[Record]) -> Vec<(i32, i64)> {
    try_send(producer, topic, records).expect("every record is acknowledged")
}

/// Like `send`, but returns the first delivery error.
pub fn try_send(producer: &FutureProducer, topic: &str, records: &[Record]) -> Result<Vec<(i32, i64)>, KafkaError> {
    let mut waiting = Vec::with_capacity(records.len());
    for record in records {
        let mut message = FutureRecord::<[u8], [u8]>::to(topic);
        message.partition = record.partition;
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.timestamp = record.timestamp_ms;
        if !record.headers.is_empty() {
            let empty = OwnedHeaders::new_with_capacity(record.headers.len());
            message.headers = Some(
                record
                    .headers
                    .iter()
                    .fold(empty, |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() })),
            );
        }
        waiting.push(producer.send_result(message).map_err(|(error, _)| error)?);
    }
    block_on(async {
        let mut places = Vec::with_capacity(waiting.len());
        for delivery in waiting {
            let delivery = delivery.await.expect("the producer lives").map_err(|(error, _)| error)?;
            places.push((delivery.partition, delivery.offset));
        }
        Ok(places)
    })
}

/// Produces the records with a new producer.
pub fn produce(bootstrap: &str, topic: &str, settings: &[(&str, &str)], records: &[Record]) -> Vec<(i32, i64)> {
    send(&producer(bootstrap, settings), topic, records)
}

/// A consumer that starts at the beginning, checks CRCs and does not commit automatically.
pub fn consumer(bootstrap: &str, group: &str, settings: &[(&str, &str)]) -> BaseConsumer {
    consumer_config(bootstrap, group, settings).create().expect("create a consumer")
}

pub fn consumer_config(bootstrap: &str, group: &str, settings: &[(&str, &str)]) -> ClientConfig {
    let common = [
        ("group.id", group),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
        ("check.crcs", "true"),
        ("session.timeout.ms", "6000"),
    ];
    let mut config = config(bootstrap, &common);
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config
}

/// Repeats a group call until the coordinator is available. While `__consumer_offsets` is created and while the broker
/// starts, the call fails, and librdkafka returns that error.
pub fn with_coordinator<T>(what: &str, mut call: impl FnMut() -> Result<T, KafkaError>) -> T {
    eventually(what, CALL_LIMIT, || match call() {
        Ok(done) => Some(done),
        Err(error) => {
            let code = error.rdkafka_error_code();
            let moves = matches!(
                code,
                Some(
                    RDKafkaErrorCode::NotCoordinator
                        | RDKafkaErrorCode::CoordinatorNotAvailable
                        | RDKafkaErrorCode::CoordinatorLoadInProgress
                )
            );
            assert!(moves, "{what}: {error}");
            None
        }
    })
}

/// Reads a whole topic, ordered by partition and offset. Offsets must rise within each partition.
pub fn read_all(bootstrap: &str, topic: &str) -> Vec<Stored> {
    read_all_with(bootstrap, topic, &[])
}

pub fn read_all_with(bootstrap: &str, topic: &str, settings: &[(&str, &str)]) -> Vec<Stored> {
    let mut config = consumer_config(bootstrap, "reader", settings);
    config.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "100");
    let consumer: BaseConsumer = config.create().expect("create a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), CALL_LIMIT).expect("fetch metadata");
    let partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
    assert!(!partitions.is_empty(), "topic {topic} has no partitions");
    let mut assignment = TopicPartitionList::new();
    for partition in &partitions {
        assignment.add_partition_offset(topic, *partition, Offset::Beginning).expect("assign a partition");
    }
    consumer.assign(&assignment).expect("assign");
    let mut read: BTreeMap<i32, Vec<Stored>> = BTreeMap::new();
    let mut open = partitions.len();
    let deadline = Instant::now() + READ_LIMIT;
    while open > 0 {
        assert!(Instant::now() < deadline, "{topic} not read to its end within {READ_LIMIT:?}: {open} partitions left");
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            // One of several brokers may just have ended; librdkafka goes on with the others.
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::BrokerTransportFailure) => {}
            Some(Err(error)) => panic!("read {topic}: {error}"),
            Some(Ok(message)) => read.entry(message.partition()).or_default().push(Stored::copy(&message)),
        }
    }
    for (partition, records) in &read {
        let rising = records.windows(2).all(|pair| pair[0].offset < pair[1].offset);
        assert!(rising, "offsets of {topic}-{partition} do not rise");
    }
    read.into_values().flatten().collect()
}
