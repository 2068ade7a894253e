//! Inputs that once blocked a broker or filled its memory, one test each. The limits are those of `hostile.rs`: the
//! latency of another client and the memory of the process hardly change, and the memory is returned.

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use protocol_tests::{
    broker::Broker,
    clients::{Record, create_topic, producer, send},
    differential::{
        batch::Batch,
        codec,
        wire::{framed, request},
    },
    hostile::{
        requests::{Elements, Shape},
        trial::{Trial, demand, schemas},
        world::{Client, Size},
    },
    process::eventually,
    wire::{Answer, Wire},
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
/// Far below the frame deadline (30 s) and the rebalance timeout, for which other clients once had to wait.
const SOON: Duration = Duration::from_secs(10);

/// A request with this many bytes of elements in one array, sent once on each connection.
fn one_request(api: &'static str, version: i16, path: &[&str], elements: Elements, bytes: usize, size: Size) {
    let shape = Shape {
        path: path.iter().map(|name| (*name).to_owned()).collect(),
        elements,
        spread: 1,
        resource_type: 32,
        validate_only: false,
        bytes,
    };
    demand(&size, |trial| trial.send_all(&trial.frames(api, &[(version, shape.clone())])));
}

#[test]
fn a_join_with_40_000_protocols_stops_nobody() {
    one_request("JoinGroup", 3, &["Protocols"], Elements::Distinct, 600 << 10, Size::default());
}

#[test]
fn quotas_of_40_000_entities_stop_nobody() {
    one_request("AlterClientQuotas", 0, &["Entries"], Elements::Distinct, 2 << 20, Size::default());
}

/// A change of the broker's settings looks up their values for each topic.
#[test]
fn settings_of_a_broker_with_many_topics_stop_nobody() {
    demand(&Size::default(), |trial| {
        let topics: Vec<Value> = (0..1000)
            .map(|number| json!({"Name": format!("many-{number}"), "NumPartitions": 1, "ReplicationFactor": 1}))
            .collect();
        let created = trial.ask("CreateTopics", 7, &json!({"Topics": topics, "timeoutMs": 60_000}));
        assert_eq!(created["Topics"][999]["ErrorCode"], 0, "{}", created["Topics"][999]);
        for round in 0..4 {
            let name = |number: usize| format!("{round}-{number:0>2000}");
            let configs: Vec<Value> =
                (0..400).map(|number| json!({"Name": name(number), "ConfigOperation": 0, "Value": "1"})).collect();
            let resources = json!([{"ResourceType": 4, "ResourceName": "", "Configs": configs}]);
            let altered = trial.ask("IncrementalAlterConfigs", 1, &json!({"Resources": resources}));
            assert_eq!(altered["Responses"][0]["ErrorCode"], 0, "{altered}");
        }
    });
}

#[test]
fn log_directories_for_80_000_topics_stop_nobody() {
    one_request("AlterReplicaLogDirs", 1, &["Dirs", "Topics"], Elements::Distinct, 1_200_000, Size::default());
}

#[test]
fn settings_of_100_000_invented_groups_stop_nobody() {
    one_request("DescribeConfigs", 4, &["Resources"], Elements::Distinct, 1 << 20, Size::default());
}

#[test]
fn a_large_group_that_is_described_2_000_times_takes_little_memory() {
    let size = Size { member_bytes: 400_000, ..Size::default() };
    one_request("DescribeGroups", 0, &["Groups"], Elements::Repeated, 30_000, size);
}

#[test]
fn offsets_of_4_mb_that_are_fetched_500_times_take_little_memory() {
    let size = Size { offset_partitions: 1000, ..Size::default() };
    one_request("OffsetFetch", 8, &["Groups"], Elements::Repeated, 10_000, size);
}

#[test]
fn a_partition_with_10_000_producers_that_is_described_1_000_times_takes_little_memory() {
    let size = Size { producers: 10_000, ..Size::default() };
    one_request("DescribeProducers", 0, &["Topics", "PartitionIndexes"], Elements::Repeated, 4000, size);
}

#[test]
fn fetch_sessions_of_invented_partitions_take_little_memory() {
    let partitions: Vec<Value> = (0..10_000).map(|index| json!({"Partition": index, "PartitionMaxBytes": 1})).collect();
    let body = json!({"MaxWaitMs": 0, "SessionEpoch": 0, "Topics": [{"Topic": "nowhere", "Partitions": partitions}]});
    demand(&Size::default(), |trial| {
        let frame = trial.frame("Fetch", 11, &body);
        let mut stream = trial.connect();
        for _ in 0..1100 {
            stream.send(&frame);
            stream.drain_answer();
        }
    });
}

#[test]
fn joins_with_20_mb_of_metadata_take_little_memory_once_they_are_answered() {
    demand(&Size::default(), |trial| {
        for _ in 0..100 {
            let shape = Shape {
                path: vec!["Protocols".to_owned(), "Metadata".to_owned()],
                elements: Elements::Repeated,
                spread: 1,
                resource_type: 0,
                validate_only: false,
                bytes: 20 << 20,
            };
            trial.send_one("JoinGroup", 5, &shape);
        }
    });
}

/// Commits an offset in each of `count` groups, whose ids are padded to `id_bytes`.
fn commit_in_groups(trial: &Trial, count: usize, id_bytes: usize) {
    let mut stream = trial.connect();
    for first in (0..count).step_by(100) {
        let frames: Vec<u8> = (first..first + 100)
            .flat_map(|number| {
                let id = format!("{number:0id_bytes$}");
                let partitions = json!([{"PartitionIndex": 0, "CommittedOffset": 1}]);
                let topics = json!([{"Name": trial.world.topic, "Partitions": partitions}]);
                trial.frame("OffsetCommit", 2, &json!({"GroupId": id, "Topics": topics}))
            })
            .collect();
        stream.send(&frames);
        (0..100).for_each(|_| stream.drain_answer());
    }
}

/// Deletes the groups of [`commit_in_groups`].
fn delete_groups(trial: &Trial, count: usize, id_bytes: usize) {
    const REQUEST_BYTES: usize = 512 << 10;
    let groups_per_request = (REQUEST_BYTES / (id_bytes + 2)).min(1000);
    let mut stream = trial.connect();
    for first in (0..count).step_by(groups_per_request) {
        let ids: Vec<String> =
            (first..count.min(first + groups_per_request)).map(|number| format!("{number:0id_bytes$}")).collect();
        stream.send(&trial.frame("DeleteGroups", 1, &json!({"GroupsNames": ids})));
        stream.drain_answer();
    }
}

/// 180 MB of ids; groups above `ottla.groups.max.bytes` are refused.
#[test]
fn groups_with_ids_of_30_kb_take_little_memory() {
    let size = Size { groups_max_bytes: 32 << 20, ..Size::default() };
    demand(&size, |trial| {
        commit_in_groups(trial, 6000, 30_000);
        delete_groups(trial, 6000, 30_000);
    });
}

/// All groups fit, and their memory is not larger than the broker's estimate.
#[test]
fn a_hundred_thousand_groups_take_little_memory() {
    let size = Size { groups_max_bytes: 96 << 20, ..Size::default() };
    demand(&size, |trial| {
        commit_in_groups(trial, 100_000, 8);
        let described = trial.ask("DescribeGroups", 0, &json!({"Groups": ["00099999"]}));
        assert_eq!(described["Groups"][0]["GroupState"], "Empty", "{described}");
        delete_groups(trial, 100_000, 8);
    });
}

/// The most expensive batch per byte: identical minimal records, of which 24 KB decompress to 37 million.
#[test]
fn a_small_batch_of_37_million_records_stops_nobody() {
    const RECORD: &[u8] = &[12, 0, 0, 0, 1, 1, 0]; // length, attributes, deltas, null key and value, no headers
    const OPENED_BYTES: usize = 250 << 20;
    let count = OPENED_BYTES / RECORD.len();
    let records = zstd::encode_all(&RECORD.repeat(count)[..], 3).expect("compress");
    let batch = crate::bombs::batch(4, count as i32, &records);
    assert!(batch.len() < 30_000, "{} bytes", batch.len());
    demand(&Size::default(), |trial| {
        let topic = trial.world.topic.as_str();
        let partition = json!({"Index": 0, "Records": codec::hex(&batch)});
        let data = json!([{"Name": topic, "PartitionData": [partition]}]);
        let frame = trial.frame("Produce", 9, &json!({"Acks": -1, "TimeoutMs": 30_000, "TopicData": data}));
        trial.on_each_connection(&frame);
    });
}

/// A JoinGroup frame of a new member of the group `parked`, with this many bytes of metadata.
fn join(schemas: &protocol_tests::differential::schema::Schemas, metadata_bytes: usize) -> Vec<u8> {
    let api = schemas.api("JoinGroup");
    let body = json!({"GroupId": "parked", "SessionTimeoutMs": 1_800_000, "RebalanceTimeoutMs": i32::MAX,
        "ProtocolType": "consumer", "Protocols": [{"Name": "range", "Metadata": codec::hex(&vec![7; metadata_bytes])}]});
    framed(&request(api.key, 2, 1, Some("joins"), false, &codec::encode(&api.request, 2, &body)))
}

/// Makes a group with one member whose client is gone; a client that joins now waits for that member.
fn create_group_with_dead_member(broker: &Broker) {
    let schemas = schemas();
    let mut client = Client::open(&schemas, ([127, 0, 0, 1], broker.port()).into()).expect("connect");
    client.join("parked", 10).expect("join as the first member");
}

/// Number of open sockets of the broker.
fn sockets(broker: &mut Broker) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", broker.process().id())).expect("list the open files");
    let is_socket = |path: std::path::PathBuf| path.to_string_lossy().starts_with("socket:");
    files.flatten().filter(|file| std::fs::read_link(file.path()).is_ok_and(is_socket)).count()
}

fn answers_within(broker: &Broker, limit: Duration) -> bool {
    let mut wire = Wire::connect(&broker.bootstrap());
    wire.send_body(18, 0, &[]);
    matches!(wire.answer(limit), Answer::Frame(_))
}

#[test]
fn clients_that_go_while_their_join_waits_free_their_places() {
    let mut broker = Broker::options().optimized().start();
    create_group_with_dead_member(&broker);
    let before = sockets(&mut broker);
    let frame = join(&schemas(), 10);
    // More than max.connections (10,000) allows at the same time.
    for _ in 0..10_500 {
        // A refused connection does not matter; the test checks that a later client is accepted.
        if let Ok(mut stream) = TcpStream::connect(broker.bootstrap()) {
            let _ = stream.write_all(&frame);
        }
    }
    eventually("a new client is served", SOON, || answers_within(&broker, Duration::from_secs(1)).then_some(()));
    eventually("the connections are closed", LIMIT, || (sockets(&mut broker) < before + 50).then_some(()));
}

#[test]
fn clients_that_go_while_their_join_waits_give_back_the_request_budget() {
    const BUDGET_BYTES: usize = 3 << 20;
    let broker = Broker::options().optimized().set("socket.request.max.bytes", BUDGET_BYTES);
    let broker = broker.set("queued.max.request.bytes", BUDGET_BYTES).start();
    create_topic(&broker.bootstrap(), "t", 1, &[]);
    create_group_with_dead_member(&broker);
    let frame = join(&schemas(), BUDGET_BYTES / 3 - 1000);
    for _ in 0..4 {
        let mut stream = TcpStream::connect(broker.bootstrap()).expect("connect");
        stream.write_all(&frame).expect("send a join");
    }
    let begun = Instant::now();
    send(&producer(&broker.bootstrap(), &[]), "t", &[Record::to_partition(0, vec![7; 40_000])]);
    assert!(begun.elapsed() < SOON, "a frame of 40 KB waited {:?}", begun.elapsed());
}

/// Memory for frames is allocated in steps; frames with sizes near the steps must work like all others.
#[test]
fn frames_of_all_sizes_are_served() {
    let broker = Broker::start_default();
    let schemas = schemas();
    let mut client = Client::open(&schemas, ([127, 0, 0, 1], broker.port()).into()).expect("connect");
    client.create_topic("t", 1).expect("create a topic");
    for around in [4 << 10, 32 << 10, 256 << 10, 512 << 10, 768 << 10] {
        // The headers of the batch and of the request take about 150 bytes.
        for bytes in (around - 200..around + 20).step_by(11) {
            client.produce("t", &Batch::of_bytes(bytes)).unwrap_or_else(|error| panic!("{bytes} bytes: {error:#}"));
        }
    }
}

#[test]
fn frames_that_only_declare_their_size_hold_up_nobody() {
    let broker = Broker::options().optimized().start();
    create_topic(&broker.bootstrap(), "t", 1, &[]);
    let declare = || {
        let mut stream = TcpStream::connect(broker.bootstrap()).expect("connect");
        let length = 100_i32 << 20;
        stream.write_all(&[length.to_be_bytes(), [0, 0, 0, 7]].concat()).expect("send a length");
        stream
    };
    let mut held: Vec<TcpStream> = (0..3).map(|_| declare()).collect();
    let producer = producer(&broker.bootstrap(), &[]);
    for _ in 0..20 {
        let begun = Instant::now();
        send(&producer, "t", &[Record::to_partition(0, vec![7; 40_000])]);
        assert!(begun.elapsed() < SOON, "a frame of 40 KB waited {:?}", begun.elapsed());
        held.push(declare());
    }
}

/// Tests one answer that is larger than the socket buffers, and an endless series of small ones.
#[test]
fn clients_that_never_read_are_cut() {
    const CLIENTS: usize = 20;
    let broker = Broker::options().optimized();
    let mut broker = broker.set("ottla.frame.deadline.ms", 1000).set("connections.max.idle.ms", 2000).start();
    let schemas = schemas();
    let address = ([127, 0, 0, 1], broker.port()).into();
    let mut client = Client::open(&schemas, address).expect("connect");
    client.create_topic("t", 1).expect("create a topic");
    for _ in 0..30 {
        client.produce("t", &Batch::of_bytes(900_000)).expect("produce");
    }
    let fetch = json!({"MaxWaitMs": 0, "MaxBytes": i32::MAX, "Topics": [
        {"Topic": "t", "Partitions": [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": i32::MAX}]}]});
    let fetch = client.frame("Fetch", 11, &fetch);
    let metadata = client.frame("Metadata", 1, &json!({"Topics": null})).repeat(1000);
    drop(client);
    eventually("the well-behaved client is disconnected", LIMIT, || (sockets(&mut broker) < CLIENTS).then_some(()));
    let before = sockets(&mut broker);
    let mut stuck = Vec::new();
    for number in 0..CLIENTS {
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.set_nonblocking(true).expect("set non-blocking");
        if number % 2 == 0 {
            stream.write_all(&fetch).expect("send a request");
        } else {
            // Write until the broker stops reading.
            while stream.write(&metadata).is_ok() {}
        }
        stuck.push(stream);
    }
    eventually("their connections are closed", LIMIT, || (sockets(&mut broker) <= before).then_some(()));
    assert!(answers_within(&broker, SOON));
}
