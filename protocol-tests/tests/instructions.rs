//! Guards the hot path: valgrind counts the instructions that the broker executes for one request, and the test
//! compares them with the baseline in bench/instructions.txt. `UPDATE=1` rewrites the baseline.
//!
//! The same load runs once with N and once with 2N requests: the difference divided by N is the cost of one request,
//! because the costs of start and stop cancel out. The broker has one worker thread and sleeps before each request, so
//! that the count does not depend on the speed of the client. The client is this process and is not counted.
#![cfg(target_arch = "x86_64")] // Other processors execute other instructions.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use kafka_protocol::{
    messages::{
        CreateTopicsRequest, FetchRequest, MetadataRequest, ProduceRequest, TopicName,
        create_topics_request::CreatableTopic,
        fetch_request::{FetchPartition, FetchTopic},
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};
use protocol_tests::{
    broker::Broker,
    differential::batch::{Batch, Record},
    wire::Wire,
};

const REQUESTS: usize = 500;
/// Allowed difference from the baseline. Three runs on one machine differ by less than 1 %; the rest is for other
/// versions of the compiler and the C library.
const TOLERANCE: f64 = 0.05;
const BASELINE: &str = "bench/instructions.txt";
/// Longest time for one request on a busy machine; valgrind makes the broker about fifty times slower.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// Sends one request of a load, or one group of requests that belong together.
type Load = fn(&mut Clients);

const LOADS: &[(&str, Load)] = &[
    ("produce", Clients::produce),
    ("fetch", Clients::fetch),
    ("long_poll_and_produce", Clients::long_poll_and_produce),
    ("metadata", Clients::metadata),
];

#[test]
fn a_request_takes_the_instructions_that_it_took() {
    if Broker::is_kafka() {
        return;
    }
    let counts: BTreeMap<&str, u64> =
        LOADS.iter().map(|(name, load)| (*name, count_per_request(name, *load))).collect();
    let baseline = root().join(BASELINE);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&baseline, page(&counts)).expect("write the baseline");
    }
    let baseline = std::fs::read_to_string(&baseline).expect("read the baseline");
    let baseline = read_baseline(&baseline);
    assert_eq!(baseline.keys().collect::<Vec<_>>(), counts.keys().collect::<Vec<_>>(), "the names in {BASELINE}");
    let differing: Vec<String> = counts
        .iter()
        .map(|(name, count)| (name, *count, baseline[*name]))
        .filter(|(_, count, expected)| count.abs_diff(*expected) as f64 > *expected as f64 * TOLERANCE)
        .map(|(name, count, expected)| format!("{name}: {count} instructions, {BASELINE} says {expected}"))
        .collect();
    assert!(
        differing.is_empty(),
        "{}\nIf the change is intended, UPDATE=1 writes the new counts. Counts of each function: callgrind_annotate {}/NAME.N.callgrind",
        differing.join("\n"),
        profiles().display()
    );
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The directory of callgrind's profiles; they stay after the test.
fn profiles() -> PathBuf {
    let test = std::env::current_exe().expect("path of the test binary");
    test.ancestors().nth(3).expect("target/PROFILE/deps/test").join("instructions")
}

fn page(counts: &BTreeMap<&str, u64>) -> String {
    let mut page = String::from(
        "# Instructions of the broker per request, written by: UPDATE=1 cargo test -p protocol-tests --test main instructions\n",
    );
    for (name, count) in counts {
        writeln!(page, "{name} {count}").expect("write to memory");
    }
    page
}

fn read_baseline(text: &str) -> BTreeMap<&str, u64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, count) = line.split_once(' ').expect("a name and a count");
            (name, count.parse().expect("a count"))
        })
        .collect()
}

fn count_per_request(name: &str, load: fn(&mut Clients)) -> u64 {
    let [once, twice] = [REQUESTS, 2 * REQUESTS].map(|requests| count(name, load, requests));
    let count = twice.saturating_sub(once) / REQUESTS as u64;
    println!("{name} {count}");
    count
}

/// Counts all instructions of a broker from its start to its end.
fn count(name: &str, load: fn(&mut Clients), requests: usize) -> u64 {
    std::fs::create_dir_all(profiles()).expect("create a directory for the profiles");
    let profile = profiles().join(format!("{name}.{requests}.callgrind"));
    let mut clients = Clients::of(Broker::options().under_callgrind(&profile).start());
    for _ in 0..requests {
        load(&mut clients);
    }
    let Clients { mut broker, wire, other, .. } = clients;
    drop((wire, other));
    broker.stop();
    total(&std::fs::read_to_string(&profile).expect("read the profile"))
}

/// The instructions of all functions except sled's, which spin while they wait for a thread, and memset, with which the
/// allocator zeroes sled's pages unless they are fresh: their counts vary, and a request needs neither.
///
/// A line `fn=(id) name` in callgrind's file starts a function, later only `fn=(id)`; `cfn=` names a called function.
/// Lines `position cost` follow. The line after `calls=` is the cost of the call, which the called function already
/// includes.
fn total(profile: &str) -> u64 {
    let mut varying = BTreeSet::new();
    let (mut total, mut is_counted, mut is_call) = (0, true, false);
    for line in profile.lines() {
        if let Some((key, function)) = line.split_once("fn=") {
            let (id, name) = function.split_once(' ').unwrap_or((function, ""));
            if name.contains("sled::") || name.contains("memset") {
                varying.insert(id);
            }
            if key.is_empty() {
                is_counted = !varying.contains(id);
            }
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '*')) {
            if is_counted && !is_call {
                let cost = line.split(' ').nth(1).expect("a position and a cost");
                total += cost.parse::<u64>().expect("a count of instructions");
            }
            is_call = false;
        }
    }
    total
}

#[test]
fn the_total_of_a_profile_is_what_all_functions_but_sleds_execute_themselves() {
    let profile = "version: 1\nevents: Ir\ntotals: 999\n\nob=(1) /bin/ottla\nfl=(1) ???\nfn=(1) main\n0 5\ncfn=(2) sled::spin\n\
                   calls=1 0\n0 700\n+3 1\n\nfn=(2)\n0 700\n\nfn=(3) log::append\n* 20\ncfi=(2) x.rs\ncfn=(1)\ncalls=2 0\n0 300\n\nfn=(4) __memset_avx2\n0 640\n";
    assert_eq!(total(profile), 5 + 1 + 20);
}

const TOPIC: TopicName = TopicName(StrBytes::from_static_str("load"));

struct Clients {
    broker: Broker,
    wire: Wire,
    other: Wire,
    /// Offset of the next record in partition 1.
    next_offset: i64,
}

impl Clients {
    /// Creates a topic with two partitions. Partition 0 has one record and does not change; loads append to partition
    /// 1.
    fn of(broker: Broker) -> Clients {
        let [wire, other] = [(); 2].map(|()| Wire::connect(&broker.bootstrap()));
        let mut clients = Clients { broker, wire, other, next_offset: 0 };
        let topic = CreatableTopic::default().with_name(TOPIC).with_num_partitions(2).with_replication_factor(1);
        let answer =
            clients.wire.ask(7, &CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000));
        assert_eq!(answer.topics[0].error_code, 0);
        clients.produce_to(0);
        clients
    }

    fn wait_until_asleep(&mut self) {
        self.broker.process().wait_until_asleep(REQUEST_LIMIT);
    }

    /// Produces one record of 100 bytes with acks=all.
    fn produce(&mut self) {
        self.produce_to(1);
    }

    fn produce_to(&mut self, partition: i32) -> i64 {
        let record = Record { value: Some(vec![b'x'; 100]), ..Record::default() };
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(Batch::new(vec![record]).bytes().into()));
        let topic = TopicProduceData::default().with_name(TOPIC).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
        let answer = self.wire.ask(9, &request);
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, 0);
        self.wait_until_asleep();
        partition.base_offset
    }

    /// Fetches one existing batch from the tail cache.
    fn fetch(&mut self) {
        self.wire.send(12, &fetch_request(0, 0));
        assert_fetched(&mut self.wire);
        self.wait_until_asleep();
    }

    /// A Fetch at the end of the log that waits, and the Produce that ends its wait.
    fn long_poll_and_produce(&mut self) {
        let next = self.next_offset;
        self.other.send(12, &fetch_request(1, next));
        self.wait_until_asleep();
        self.next_offset = self.produce_to(1) + 1;
        assert_fetched(&mut self.other);
        self.wait_until_asleep();
    }

    /// Requests the metadata of one topic by its name.
    fn metadata(&mut self) {
        let topic = MetadataRequestTopic::default().with_name(Some(TOPIC));
        let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
        let answer = self.wire.ask(12, &request);
        assert_eq!(answer.topics[0].partitions.len(), 2);
        self.wait_until_asleep();
    }
}

fn fetch_request(partition: i32, offset: i64) -> FetchRequest {
    let partition =
        FetchPartition::default().with_partition(partition).with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
    FetchRequest::default()
        .with_max_wait_ms(60_000)
        .with_min_bytes(1)
        .with_topics(vec![FetchTopic::default().with_topic(TOPIC).with_partitions(vec![partition])])
}

fn assert_fetched(wire: &mut Wire) {
    let answer = wire.receive::<FetchRequest>(12);
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    assert!(partition.records.as_ref().is_some_and(|records| !records.is_empty()), "no records");
}
