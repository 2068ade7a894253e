//! Three brokers on hosts of their own, with real clients, while brokers are killed, paused, restarted and cut off at
//! random. Afterwards nothing acknowledged is lost, nothing is stored twice, and all replicas have the same bytes.
//!
//! Each run prints its seed. `CHAOS_SEED=17` repeats its faults, `CHAOS_SECONDS=600` makes them last longer, and with
//! FULL=1 they last an hour.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::FutureExt as _;
use protocol_tests::{
    clients::{Stored, block_on, consumer_config, create_replicated_topic, producer, read_all},
    cluster::{Cluster, NODES},
    foreign::installed,
    network::{self, CLIENTS, Network},
    process::{Process, eventually, poll},
    verifiable::{Placed, VerifiableConsumer, VerifiableProducer},
};
use rdkafka::{
    ClientContext, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    message::Message,
    producer::{DeliveryFuture, FutureRecord, future_producer::Delivery},
};

/// clients/go/load.go writes to this topic, too.
const TOPIC: &str = "chaos";
const PARTITIONS: i32 = 6;
/// How long the faults last together, in a run for every change.
const DURATION: Duration = Duration::from_secs(120);
const LONG_DURATION: Duration = Duration::from_secs(3600);
/// Longest time until all clients make progress again after the faults.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);
/// Time between two records of the librdkafka producer.
const PACE: Duration = Duration::from_millis(10);

#[test]
fn three_brokers_lose_nothing_when_they_are_killed_paused_and_cut_off() {
    installed("go");
    network::run_alone("chaos::in_namespaces");
}

#[test]
#[ignore = "the test above runs it in namespaces of its own"]
fn in_namespaces() {
    let seed = number_from("CHAOS_SEED")
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").subsec_nanos().into());
    let standard = if std::env::var_os("FULL").is_some() { LONG_DURATION } else { DURATION };
    let duration = number_from("CHAOS_SECONDS").map_or(standard, Duration::from_secs);
    println!("CHAOS_SEED={seed}, faults for {duration:?}");

    let network = Network::create(&NODES);
    let cluster = Cluster::start_on(&network, |options| options.expect_faults());
    let bootstrap = cluster.bootstrap();
    create_replicated_topic(&bootstrap, TOPIC, PARTITIONS, 3, &[("min.insync.replicas", "2")]);
    let mut clients = Clients::start(&bootstrap);
    clients.await_progress();

    let mut faults = Faults { network, cluster, random: Random(seed) };
    let begun = Instant::now();
    while begun.elapsed() < duration {
        faults.strike(begun);
        clients.await_progress();
    }

    let acknowledged = clients.finish(&bootstrap);
    faults.cluster.await_in_sync(TOPIC);
    faults.cluster.await_in_sync("__consumer_offsets");
    let stored = read_all(&bootstrap, TOPIC);
    println!("{} records stored, {} acknowledged", stored.len(), acknowledged.records.len());
    acknowledged.check(&stored);
    let directories = NODES.map(|node| {
        let broker = faults.cluster.broker(node);
        broker.stop();
        broker.data()
    });
    check_same_bytes(&directories.each_ref().map(|directory| directory.as_path()));
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// A small generator of random numbers (SplitMix64), so that a seed repeats the faults.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// kill -9.
    Kill,
    /// A controlled shutdown.
    Stop,
    /// SIGSTOP, later SIGCONT.
    Pause,
    /// Nobody reaches the broker, and it reaches nobody.
    CutOff,
    /// Clients reach the broker, but the other brokers do not. If it leads, it is a leader alone.
    CutFromBrokers,
    /// What the broker sends is lost, what others send to it arrives.
    Mute,
    /// What others send to the broker is lost, what it sends arrives.
    Deaf,
}

const FAULTS: [Fault; 7] =
    [Fault::Kill, Fault::Stop, Fault::Pause, Fault::CutOff, Fault::CutFromBrokers, Fault::Mute, Fault::Deaf];

struct Faults {
    network: Network,
    cluster: Cluster,
    random: Random,
}

impl Faults {
    /// Strikes one broker, in every fourth case a second one as well, for a while. Then everything is well again.
    fn strike(&mut self, begun: Instant) {
        let first = 1 + self.random.below(3) as i32;
        let mut struck = vec![(first, FAULTS[self.random.below(FAULTS.len() as u64) as usize])];
        if self.random.below(4) == 0 {
            let second = 1 + (first + self.random.below(2) as i32) % 3;
            struck.push((second, FAULTS[self.random.below(FAULTS.len() as u64) as usize]));
        }
        // Many faults are shorter than the session of a broker (9 s), and some are longer.
        let length = Duration::from_millis(match self.random.below(4) {
            0 => 9_000 + self.random.below(4_000),
            _ => 200 + self.random.below(4_000),
        });
        println!("at {:.1?}: {struck:?} for {length:?}", begun.elapsed());
        for (node, fault) in &struck {
            self.begin(*node, *fault);
        }
        std::thread::sleep(length);
        self.network.heal();
        for (node, fault) in &struck {
            if *fault == Fault::Pause {
                self.cluster.broker(*node).process().signal("CONT");
            }
        }
        let dead: Vec<i32> = struck
            .iter()
            .filter(|(_, fault)| matches!(fault, Fault::Kill | Fault::Stop))
            .map(|(node, _)| *node)
            .collect();
        for node in dead {
            self.cluster.broker(node).start();
        }
    }

    fn begin(&mut self, node: i32, fault: Fault) {
        let others = NODES.into_iter().filter(|other| *other != node);
        match fault {
            Fault::Kill => self.cluster.broker(node).kill(),
            Fault::Stop => drop(self.cluster.broker(node).stop()),
            Fault::Pause => self.cluster.broker(node).process().signal("STOP"),
            Fault::CutOff => others.chain([CLIENTS]).for_each(|other| {
                self.network.cut(node, other);
                self.network.cut(other, node);
            }),
            Fault::CutFromBrokers => others.for_each(|other| {
                self.network.cut(node, other);
                self.network.cut(other, node);
            }),
            Fault::Mute => others.chain([CLIENTS]).for_each(|other| self.network.cut(node, other)),
            Fault::Deaf => others.chain([CLIENTS]).for_each(|other| self.network.cut(other, node)),
        }
    }
}

/// What clients were told.
struct Acknowledged {
    records: Vec<Placed>,
    /// What members of a group read.
    read: Vec<Placed>,
    /// The highest offsets that a group committed, and those that it has.
    committed: BTreeMap<i32, i64>,
    fetched: BTreeMap<i32, i64>,
}

impl Acknowledged {
    fn check(&self, stored: &[Stored]) {
        let by_offset: BTreeMap<(i32, i64), String> =
            stored.iter().map(|record| ((record.partition, record.offset), record.text())).collect();
        // librdkafka does not know the offset of a batch whose answer was lost, if the next one has succeeded
        // (rd_kafka_dr_implicit_ack).
        let (without_offset, records): (Vec<_>, Vec<_>) = self.records.iter().partition(|record| record.offset < 0);
        let by_value: BTreeSet<(i32, &String)> =
            by_offset.iter().map(|((partition, _), value)| (*partition, value)).collect();
        for record in without_offset {
            assert!(by_value.contains(&(record.partition, &record.value)), "acknowledged without offset: {record:?}");
        }
        // No write is lost, and no offset has two values.
        for record in records {
            let found = by_offset.get(&(record.partition, record.offset));
            assert_eq!(found, Some(&record.value), "acknowledged at {}-{}", record.partition, record.offset);
        }
        for record in &self.read {
            let found = by_offset.get(&(record.partition, record.offset));
            assert_eq!(found, Some(&record.value), "a group read {}-{}", record.partition, record.offset);
        }
        // The producers are idempotent: nothing is stored twice, and what one producer sent to a partition is in order
        // and without gaps.
        let mut next: BTreeMap<&str, i64> = BTreeMap::new();
        for record in by_offset.values() {
            let (source, number) = record.rsplit_once(['-', '.']).expect("SOURCE-NUMBER");
            let number: i64 = number.parse().expect("a number");
            if source == JAVA_PREFIX.to_string() {
                continue;
            }
            let expected = next.insert(source, number + 1).unwrap_or(0);
            assert_eq!(number, expected, "{source} is stored in order, once and without gaps");
        }
        let distinct: BTreeSet<&String> = by_offset.values().collect();
        assert_eq!(distinct.len(), by_offset.len(), "nothing is stored twice");
        // The Java producer spreads its numbers over the partitions.
        let mut last: BTreeMap<i32, i64> = BTreeMap::new();
        for ((partition, _), value) in &by_offset {
            if let Some(number) = value.strip_prefix(&format!("{JAVA_PREFIX}.")) {
                let number: i64 = number.parse().expect("a number");
                let before = last.insert(*partition, number).unwrap_or(-1);
                assert!(before < number, "the Java producer's records in {partition}: {before} before {number}");
            }
        }
        // The group has read everything, and its offsets are those that it committed.
        let read: BTreeSet<&String> = self.read.iter().map(|record| &record.value).collect();
        let unseen: Vec<&String> = distinct.difference(&read).copied().collect();
        assert!(unseen.is_empty(), "the group has not read {unseen:?}");
        assert_eq!(self.fetched, self.committed, "the group's offsets");
    }
}

/// The Java producer's values are this prefix, a point and a number.
const JAVA_PREFIX: u32 = 7;

/// All clients: three idempotent producers (librdkafka, franz-go, Java) and two groups (librdkafka, Java).
struct Clients {
    stop: Arc<AtomicBool>,
    produced: Arc<AtomicU64>,
    producer: JoinHandle<Vec<Placed>>,
    franz: Process,
    java_producer: VerifiableProducer,
    java_group: VerifiableConsumer,
    group: Arc<Group>,
    members: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(bootstrap: &str) -> Clients {
        let (stop, produced) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let producer = {
            let (bootstrap, stop, produced) = (bootstrap.to_owned(), stop.clone(), produced.clone());
            std::thread::spawn(move || produce(&bootstrap, &stop, &produced))
        };
        let mut franz = Command::new(installed("go").join("franz"));
        franz.args([bootstrap, "load"]);
        let group = Arc::new(Group::default());
        let members = (0..2).map(|_| Group::join(&group, bootstrap)).collect();
        Clients {
            stop,
            produced,
            producer,
            franz: Process::start(franz),
            java_producer: VerifiableProducer::start(bootstrap, TOPIC, JAVA_PREFIX, 50),
            java_group: VerifiableConsumer::start(bootstrap, TOPIC, "java", &[]),
            group,
            members,
        }
    }

    /// How far each client is.
    fn progress(&mut self) -> [u64; 5] {
        assert!(self.franz.is_running(), "franz-go has ended:\n{}", self.franz.lines().join("\n"));
        [
            self.produced.load(Ordering::Relaxed),
            self.franz.count_lines_with("franz") as u64,
            self.java_producer.acknowledged() as u64,
            self.java_group.count("records_consumed") as u64,
            self.group.read.lock().expect("lock").len() as u64,
        ]
    }

    /// Waits until every client has gone on.
    fn await_progress(&mut self) {
        let before = self.progress();
        let mut now = before;
        let gone_on = poll(PROGRESS_LIMIT, || {
            now = self.progress();
            now.iter().zip(before).all(|(now, before)| *now >= before + 10).then_some(())
        });
        let names = "librdkafka, franz-go, Java, Java's group, librdkafka's group";
        assert!(gone_on.is_some(), "no progress: {names} were at {before:?}, after {PROGRESS_LIMIT:?} at {now:?}");
    }

    /// Ends the producers, lets the groups read the rest, and ends them.
    fn finish(mut self, bootstrap: &str) -> Acknowledged {
        self.franz.signal("TERM");
        self.stop.store(true, Ordering::Relaxed);
        let mut records = self.producer.join().expect("every record is acknowledged");
        let ended = self.franz.wait(PROGRESS_LIMIT);
        assert!(ended.success(), "franz-go ended with {ended}:\n{}", self.franz.lines().join("\n"));
        records.extend(self.franz.lines().iter().map(|line| {
            let [value, partition, offset] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("franz-go: {line}")
            };
            Placed {
                value: value.to_owned(),
                partition: partition.parse().expect("a partition"),
                offset: offset.parse().expect("an offset"),
            }
        }));
        records.extend(self.java_producer.finish());
        let expected: BTreeSet<String> = read_all(bootstrap, TOPIC).iter().map(Stored::text).collect();
        eventually("the group has read everything", PROGRESS_LIMIT, || {
            let read = self.group.read.lock().expect("lock");
            let read: BTreeSet<&String> = read.iter().map(|record| &record.value).collect();
            (read.len() >= expected.len()).then_some(())
        });
        self.group.leave.store(true, Ordering::Relaxed);
        for member in self.members {
            member.join().expect("a member of the group");
        }
        self.java_group.finish();
        let (read, committed) = {
            let mut read = self.group.read.lock().expect("lock");
            (std::mem::take(&mut *read), self.group.committed.lock().expect("lock").clone())
        };
        Acknowledged { records, read, committed, fetched: committed_offsets(bootstrap) }
    }
}

/// Produces until `stop` is set. Returns the acknowledged records; that is all of them.
fn produce(bootstrap: &str, stop: &AtomicBool, produced: &AtomicU64) -> Vec<Placed> {
    let producer = producer(bootstrap, &[("enable.idempotence", "true"), ("acks", "all"), ("linger.ms", "0")]);
    let mut waiting: VecDeque<(String, DeliveryFuture)> = VecDeque::new();
    let mut records = Vec::new();
    let mut acknowledge = |value, delivery| {
        let delivery: Delivery = delivery;
        records.push(Placed { value, partition: delivery.partition, offset: delivery.offset });
        produced.fetch_add(1, Ordering::Relaxed);
    };
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let partition = number % PARTITIONS;
        let value = format!("librdkafka{partition}-{}", number / PARTITIONS);
        let record = FutureRecord::<(), str>::to(TOPIC).partition(partition).payload(&value);
        let delivery = producer.send_result(record).map_err(|(error, _)| error).expect("there is room in the queue");
        waiting.push_back((value, delivery));
        while let Some(done) = waiting.front_mut().and_then(|(_, delivery)| delivery.now_or_never()) {
            let (value, _) = waiting.pop_front().expect("the first one");
            acknowledge(value, done.expect("the producer lives").expect("the record is acknowledged"));
        }
        std::thread::sleep(PACE);
    }
    for (value, delivery) in waiting {
        acknowledge(value, block_on(delivery).expect("the producer lives").expect("the record is acknowledged"));
    }
    records
}

/// A consumer group of librdkafka that commits what it has read.
#[derive(Default)]
struct Group {
    leave: AtomicBool,
    read: Mutex<Vec<Placed>>,
    committed: Mutex<BTreeMap<i32, i64>>,
}

/// Counts rebalances of a member.
#[derive(Default)]
struct Rebalances(AtomicU64);

impl ClientContext for Rebalances {}

impl ConsumerContext for Rebalances {
    fn pre_rebalance(&self, _: &BaseConsumer<Rebalances>, _: &Rebalance<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Group {
    fn join(group: &Arc<Group>, bootstrap: &str) -> JoinHandle<()> {
        let (group, bootstrap) = (group.clone(), bootstrap.to_owned());
        std::thread::spawn(move || group.run_member(&bootstrap))
    }

    fn run_member(&self, bootstrap: &str) {
        let config = consumer_config(bootstrap, "readers", &[]);
        let consumer: BaseConsumer<Rebalances> =
            config.create_with_context(Rebalances::default()).expect("create a consumer");
        consumer.subscribe(&[TOPIC]).expect("subscribe");
        let (mut positions, mut rebalances) = (BTreeMap::<i32, i64>::new(), 0);
        let mut last_commit = Instant::now();
        loop {
            // Errors say that brokers cannot be reached; librdkafka tries again.
            let message = consumer.poll(Duration::from_millis(100)).and_then(Result::ok);
            // What was read in an earlier assignment is not this member's to commit: the next owner has gone on from there,
            // and a commit in the new generation would put its offsets back.
            let seen = consumer.context().0.load(Ordering::Relaxed);
            if seen != rebalances {
                (rebalances, positions) = (seen, BTreeMap::new());
            }
            if let Some(message) = message {
                let (partition, offset) = (message.partition(), message.offset());
                if let Some(next) = positions.insert(partition, offset + 1) {
                    assert_eq!(offset, next, "a member skips or repeats records of partition {partition}");
                }
                let value = String::from_utf8_lossy(message.payload().expect("a value")).into_owned();
                self.read.lock().expect("lock").push(Placed { value, partition, offset });
            }
            let leaves = self.leave.load(Ordering::Relaxed);
            if leaves || last_commit.elapsed() > Duration::from_millis(500) {
                self.commit(&consumer, &positions, leaves);
                last_commit = Instant::now();
            }
            if leaves {
                return;
            }
        }
    }

    /// Commits the positions. Only the last commit must succeed.
    fn commit(&self, consumer: &BaseConsumer<Rebalances>, positions: &BTreeMap<i32, i64>, must_succeed: bool) {
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in positions {
            let offset = rdkafka::Offset::Offset(*offset);
            offsets.add_partition_offset(TOPIC, *partition, offset).expect("add a partition");
        }
        if positions.is_empty() {
            return;
        }
        let attempt = || consumer.commit(&offsets, CommitMode::Sync).ok();
        let is_done = if must_succeed {
            eventually("the last commit", PROGRESS_LIMIT, attempt);
            true
        } else {
            attempt().is_some()
        };
        if is_done {
            let mut committed = self.committed.lock().expect("lock");
            for (partition, offset) in positions {
                let known = committed.entry(*partition).or_default();
                *known = (*known).max(*offset);
            }
        }
    }
}

/// The offsets that the group `readers` has now.
fn committed_offsets(bootstrap: &str) -> BTreeMap<i32, i64> {
    let consumer: BaseConsumer = consumer_config(bootstrap, "readers", &[]).create().expect("create a consumer");
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range(TOPIC, 0, PARTITIONS - 1);
    let offsets = eventually("offsets are fetched", PROGRESS_LIMIT, || {
        consumer.committed_offsets(partitions.clone(), Duration::from_secs(5)).ok()
    });
    let elements = offsets.elements();
    elements.iter().filter_map(|element| Some((element.partition(), element.offset().to_raw()?))).collect()
}

/// All replicas of each partition have the same records in the same batches.
fn check_same_bytes(directories: &[&Path; 3]) {
    let contents = directories.map(partitions);
    let names: BTreeSet<&String> = contents.iter().flat_map(BTreeMap::keys).collect();
    assert_eq!(names.len() as i32, PARTITIONS + 3, "{names:?}");
    for name in names {
        let [first, second, third] = contents.each_ref().map(|partitions| partitions.get(name));
        assert!(first == second && second == third, "the replicas of {name} differ");
    }
}

/// The bytes of the log of each partition in a data directory, without the metadata.
fn partitions(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("list the data directory") {
        let path = entry.expect("directory entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if !path.is_dir() || !(name.starts_with(TOPIC) || name.starts_with("__consumer_offsets")) {
            continue;
        }
        let mut segments: Vec<_> =
            fs::read_dir(&path).expect("list a partition").flatten().map(|file| file.path()).collect();
        segments.retain(|file| file.extension().is_some_and(|extension| extension == "log"));
        segments.sort();
        let bytes = segments.iter().flat_map(|file| fs::read(file).expect("read a segment")).collect();
        found.insert(name, bytes);
    }
    found
}
