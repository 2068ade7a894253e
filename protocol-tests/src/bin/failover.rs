//! Measures how long clients wait when a broker of three fails: Ottla's and Apache Kafka's, in one run, with the same
//! clients and their default settings. `bench/failover` builds and calls it. Prints a table and the distribution of
//! each figure; asserts nothing.
//!
//! A librdkafka producer sends 1,000 records/s with acks=all to three partitions, each with its leader on another
//! broker, and three librdkafka consumers commit offsets all the time, each to another coordinator. A figure is the
//! longest time without an acknowledgement of one partition, or of one group's commits. Brokers run on hosts with a
//! network of their own, in namespaces, so that packets can be lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use protocol_tests::{
    clients::{config, consumer, create_replicated_topic},
    cluster::{Cluster, NODES},
    differential::{batch::Batch, schema::Schemas},
    hostile::world::Client,
    kafka::jar_directory,
    network::{self, CLIENTS, Network},
    process::{eventually, poll},
    verifiable::VerifiableProducer,
};
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{CommitMode, Consumer},
    message::{DeliveryResult, Message},
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};
use serde_json::{Value, json};

const TOPIC: &str = "failover";
const OFFSETS: &str = "__consumer_offsets";
const PARTITIONS: usize = 3;
const RECORD_BYTES: usize = 1000;
/// 1,000 records/s.
const PACE: Duration = Duration::from_millis(1);
/// Records that must be acknowledged per partition, and commits per group, until a broker counts as replaced.
const GOES_ON: usize = 100;
/// How long the load is watched after the broker was replaced: a second gap may follow.
const AFTERWARDS: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(120);
/// Set for the process in the namespaces.
const INSIDE: &str = "OTTLA_FAILOVER_INSIDE";

/// The topic with one partition whose preferred leader is this broker.
fn led_by(node: i32) -> String {
    format!("{TOPIC}-{node}")
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = Options::parse(&arguments)?;
    if std::env::var_os(INSIDE).is_none() {
        // Inside there is no network to fetch them from.
        jar_directory()?;
        let status = network::alone().args(&arguments).env(INSIDE, "1").status().context("run in namespaces")?;
        ensure!(status.success(), "failed with {status}");
        return Ok(());
    }
    let network = Network::create(&NODES);
    let mut tables = Vec::new();
    for server in &options.servers {
        tables.push(measure(&network, *server, &options)?);
    }
    for fault in &options.faults {
        print_fault(*fault, &options, &tables);
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Ottla,
    Kafka,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// kill -9 of a broker that leads a partition and coordinates a group, but is not the active controller.
    Leader,
    /// kill -9 of one that is the active controller as well.
    Controller,
    /// SIGTERM of any broker.
    Stop,
    /// All packets from and to a broker are lost.
    Cut,
}

impl Fault {
    const ALL: [Fault; 4] = [Fault::Leader, Fault::Controller, Fault::Stop, Fault::Cut];

    fn name(self) -> &'static str {
        match self {
            Fault::Leader => "leader",
            Fault::Controller => "controller",
            Fault::Stop => "stop",
            Fault::Cut => "cut",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Fault::Leader => "kill -9 of a leader and group coordinator",
            Fault::Controller => "kill -9 of a leader and group coordinator that is the active controller",
            Fault::Stop => "SIGTERM of a leader and group coordinator",
            Fault::Cut => "all packets from and to a leader and group coordinator are lost",
        }
    }
}

struct Options {
    servers: Vec<Server>,
    faults: Vec<Fault>,
    rounds: usize,
    kafka_rounds: usize,
    /// The log level of librdkafka (`debug`), to find out what it waits for.
    debug: Option<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Options> {
        let mut options = Options {
            servers: vec![Server::Ottla, Server::Kafka],
            faults: Fault::ALL.to_vec(),
            rounds: 30,
            kafka_rounds: 10,
            debug: None,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--rounds" => options.rounds = value()?.parse().context("a number of rounds")?,
                "--kafka-rounds" => options.kafka_rounds = value()?.parse().context("a number of rounds")?,
                "--only" if value()? == "ottla" => options.servers = vec![Server::Ottla],
                "--only" => options.servers = vec![Server::Kafka],
                "--faults" => {
                    let names: Vec<&str> = value()?.split(',').collect();
                    options.faults.retain(|fault| names.contains(&fault.name()));
                }
                "--debug" => options.debug = Some(value()?.clone()),
                other => bail!("what is {other:?}? See the head of bench/failover"),
            }
        }
        Ok(options)
    }

    fn rounds(&self, server: Server, fault: Fault) -> usize {
        let rounds = if server == Server::Kafka { self.kafka_rounds } else { self.rounds };
        // librdkafka notices a cut after a minute (socket.timeout.ms).
        if fault == Fault::Cut { rounds.min(4) } else { rounds }
    }
}

/// The figures of one server: what was measured, under which fault, in each round.
type Figures = BTreeMap<(Fault, &'static str), Vec<Duration>>;

fn measure(network: &Network, server: Server, options: &Options) -> Result<Figures> {
    let schemas = Schemas::load(&jar_directory()?)?;
    let mut cluster = Cluster::start_on(network, |options| {
        let options = options.set("offsets.topic.replication.factor", 3).expect_faults();
        if server == Server::Kafka { options.kafka() } else { options.optimized() }
    });
    create_replicated_topic(&cluster.bootstrap(), TOPIC, PARTITIONS as i32, 3, &[("min.insync.replicas", "2")]);
    let mut asked = Asked { schemas: &schemas };
    for node in NODES {
        asked.create_led_by(&mut cluster, node)?;
    }
    let groups = asked.groups(&mut cluster)?;
    let load = Load::start(&cluster.bootstrap(), &groups, options.debug.as_deref());
    let mut figures = Figures::new();
    for fault in &options.faults {
        for round in 0..options.rounds(server, *fault) {
            asked.balance(&mut cluster)?;
            // A client that has not yet reconnected to the broker of the last round, because of its back-off, would
            // have a gap of its own.
            load.await_more(Instant::now());
            let controller = asked.controller(&mut cluster)?;
            let victim = match fault {
                Fault::Controller => controller,
                // In every other round the active controller is cut off.
                Fault::Cut if round % 2 == 1 => controller,
                _ => NODES[(controller as usize + round % 2) % NODES.len()],
            };
            let with_java = matches!(fault, Fault::Stop | Fault::Cut);
            let mut java = with_java.then(|| VerifiableProducer::start(&cluster.bootstrap(), &led_by(victim), 1, 300));
            if let Some(java) = &mut java {
                eventually("the Java producer writes", LIMIT, || (java.acknowledged() > 300).then_some(()));
            }
            eprintln!("{:?} broker {victim} fails now", load.begun.elapsed());
            let begun = Instant::now();
            let wall_clock = SystemTime::now();
            match fault {
                Fault::Leader | Fault::Controller => cluster.broker(victim).kill(),
                Fault::Stop => drop(cluster.broker(victim).stop()),
                Fault::Cut => for_each_peer(victim, |peer| {
                    network.cut(victim, peer);
                    network.cut(peer, victim);
                }),
            }
            let mut add = |what, took: Duration| figures.entry((*fault, what)).or_default().push(took);
            add("a fresh client writes", asked.fresh_client(&mut cluster, victim, begun)?);
            load.await_more(begun);
            if let Some(java) = &mut java {
                // It may notice later than librdkafka, or sooner: each has its own request timeout.
                let before = java.acknowledged();
                eventually("the Java producer goes on", LIMIT, || (java.acknowledged() > before + 300).then_some(()));
            }
            std::thread::sleep(AFTERWARDS);
            let (writes, commits) = load.longest_gaps(begun);
            add("writes stop", writes);
            add("commits stop", commits);
            if let Some(java) = java {
                network.heal();
                add("writes of Java stop", java_gap(java, wall_clock)?);
            }
            eprintln!(
                "{:?} {server:?}, {} {round}: broker {victim}, controller {controller}: writes {} ms, commits {} ms",
                load.begun.elapsed(),
                fault.name(),
                writes.as_millis(),
                commits.as_millis(),
            );
            network.heal();
            if *fault != Fault::Cut {
                cluster.broker(victim).start();
            }
        }
    }
    let errors = load.finish();
    eprintln!("{server:?}: {errors} records were refused");
    Ok(figures)
}

fn for_each_peer(node: i32, act: impl Fn(i32)) {
    NODES.into_iter().chain([CLIENTS]).filter(|peer| *peer != node).for_each(act);
}

/// The longest time without an acknowledgement that the Java producer saw.
fn java_gap(java: VerifiableProducer, since: SystemTime) -> Result<Duration> {
    let since = since.duration_since(SystemTime::UNIX_EPOCH).context("after 1970")?.as_millis() as u64;
    let times: Vec<u64> = java.finish_with_times().into_iter().map(|(_, at)| at).collect();
    let gaps = times.windows(2).filter(|pair| pair[1] > since).map(|pair| pair[1].saturating_sub(pair[0]));
    Ok(Duration::from_millis(gaps.max().unwrap_or_default()))
}

/// Questions that any broker answers.
struct Asked<'a> {
    schemas: &'a Schemas,
}

impl Asked<'_> {
    fn client(&self, cluster: &mut Cluster, node: i32) -> Result<Client<'_>> {
        let address: SocketAddr = cluster.broker(node).bootstrap().parse().context("an address")?;
        Client::open(self.schemas, address)
    }

    /// Asks again until the answer is the wished one.
    fn until<T>(
        &self,
        cluster: &mut Cluster,
        what: &str,
        name: &str,
        version: i16,
        body: &Value,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        let mut answer = None;
        let mut seen = String::new();
        let mut next = 0;
        poll(LIMIT, || {
            next = (next + 1) % NODES.len();
            match self.client(cluster, NODES[next]).and_then(|mut client| client.ask(name, version, body)) {
                Ok(read_from) => {
                    seen = read_from.to_string();
                    answer = read(&read_from);
                }
                Err(error) => seen = format!("{error:#}"),
            }
            answer.is_some().then_some(())
        });
        answer.with_context(|| format!("{what}: {seen}"))
    }

    fn controller(&self, cluster: &mut Cluster) -> Result<i32> {
        let body = json!({"Topics": [{"TopicName": "__cluster_metadata", "Partitions": [{"PartitionIndex": 0}]}]});
        self.until(cluster, "there is a controller", "DescribeQuorum", 0, &body, |answer| {
            let leader = answer["Topics"][0]["Partitions"][0]["LeaderId"].as_i64()?;
            NODES.contains(&(leader as i32)).then_some(leader as i32)
        })
    }

    fn create_led_by(&self, cluster: &mut Cluster, node: i32) -> Result<()> {
        let mut replicas = vec![node];
        replicas.extend(NODES.into_iter().filter(|other| *other != node));
        let assignments = json!([{"PartitionIndex": 0, "BrokerIds": replicas}]);
        let topic = json!({"Name": led_by(node), "NumPartitions": -1, "ReplicationFactor": -1, "Assignments": assignments,
            "Configs": [{"Name": "min.insync.replicas", "Value": "2"}]});
        let body = json!({"timeoutMs": 30_000, "Topics": [topic]});
        self.until(cluster, "a topic is created", "CreateTopics", 7, &body, |answer| {
            (answer["Topics"][0]["ErrorCode"] == 0).then_some(())
        })
    }

    /// Three groups with different coordinators.
    fn groups(&mut self, cluster: &mut Cluster) -> Result<Vec<String>> {
        let mut coordinators = BTreeMap::new();
        for number in 0.. {
            let group = format!("group-{number}");
            let body = json!({"KeyType": 0, "CoordinatorKeys": [group]});
            let node = self.until(cluster, "the group has a coordinator", "FindCoordinator", 4, &body, |answer| {
                let found = &answer["Coordinators"][0];
                (found["ErrorCode"] == 0).then(|| found["NodeId"].as_i64()).flatten()
            })?;
            if number == 0 {
                self.balance(cluster)?;
                continue;
            }
            coordinators.insert(node, group);
            if coordinators.len() == NODES.len() {
                break;
            }
        }
        Ok(coordinators.into_values().collect())
    }

    /// Waits until all replicas are in sync, and each partition is led by its preferred leader.
    fn balance(&mut self, cluster: &mut Cluster) -> Result<()> {
        let mut topics = NODES.map(led_by).to_vec();
        topics.extend([TOPIC, OFFSETS].map(String::from));
        let named: Vec<Value> = topics.iter().map(|name| json!({"Name": name})).collect();
        let body = json!({"Topics": named});
        for topic in &topics {
            cluster.await_in_sync(topic);
        }
        let elect = json!({"ElectionType": 0, "TopicPartitions": null, "TimeoutMs": 60_000});
        self.until(cluster, "preferred leaders are elected", "ElectLeaders", 2, &elect, |answer| {
            (answer["ErrorCode"] == 0).then_some(())
        })?;
        self.until(cluster, "preferred leaders lead", "Metadata", 9, &body, |answer| {
            let mut partitions = answer["Topics"]
                .as_array()?
                .iter()
                .flat_map(|topic| topic["Partitions"].as_array().into_iter().flatten());
            partitions.all(|partition| partition["LeaderId"] == partition["ReplicaNodes"][0]).then_some(())
        })
    }

    /// How long after `begun` a client could write that connects now: it asks a broker for the leader of each partition
    /// and writes to it.
    fn fresh_client(&self, cluster: &mut Cluster, victim: i32, begun: Instant) -> Result<Duration> {
        let mut missing: BTreeSet<usize> = (0..PARTITIONS).collect();
        let batch = Batch::of(1);
        while !missing.is_empty() {
            ensure!(begun.elapsed() < LIMIT, "nobody can write to {missing:?}");
            for node in NODES.into_iter().filter(|node| *node != victim) {
                let mut client = self.client(cluster, node)?;
                let metadata = client.ask("Metadata", 9, &json!({"Topics": [{"Name": TOPIC}]}))?;
                let partitions = metadata["Topics"][0]["Partitions"].as_array().context("partitions")?;
                let led = partitions.iter().filter(|partition| partition["LeaderId"] == node);
                let led: BTreeSet<usize> = led
                    .filter_map(|partition| partition["PartitionIndex"].as_u64())
                    .map(|index| index as usize)
                    .collect();
                for index in led.intersection(&missing.clone()) {
                    let partition = json!({"Index": index, "Records": batch.hex()});
                    let data = json!([{"Name": TOPIC, "PartitionData": [partition]}]);
                    let body = json!({"Acks": -1, "TimeoutMs": 10_000, "TopicData": data});
                    let answer = client.ask("Produce", 9, &body)?;
                    if answer["Responses"][0]["PartitionResponses"][0]["ErrorCode"] == 0 {
                        missing.remove(index);
                    }
                }
            }
        }
        Ok(begun.elapsed())
    }
}

/// When each record of a partition was acknowledged, or each commit of a group.
type Times = Arc<Mutex<Vec<Vec<Instant>>>>;

fn locked(times: &Times) -> MutexGuard<'_, Vec<Vec<Instant>>> {
    times.lock().expect("lock")
}

struct Acknowledged {
    begun: Instant,
    times: Times,
    errors: Arc<AtomicUsize>,
}

impl ClientContext for Acknowledged {
    /// Prints what `--debug` asks for.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        eprintln!("{:?} {level:?} {facility}: {text}", self.begun.elapsed());
    }
}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => locked(&self.times)[message.partition() as usize].push(Instant::now()),
            Err((error, _)) => {
                eprintln!("a record was refused: {error}");
                self.errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The clients.
struct Load {
    begun: Instant,
    is_over: Arc<AtomicBool>,
    writes: Times,
    commits: Times,
    errors: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(bootstrap: &str, groups: &[String], debug: Option<&str>) -> Load {
        let times = |count| Arc::new(Mutex::new(vec![Vec::new(); count]));
        let is_over = Arc::new(AtomicBool::new(false));
        let (writes, commits) = (times(PARTITIONS), times(groups.len()));
        let errors = Arc::new(AtomicUsize::new(0));
        let begun = Instant::now();
        let mut threads = vec![{
            let is_over = is_over.clone();
            let acknowledged = Acknowledged { begun, times: writes.clone(), errors: errors.clone() };
            let debug: Vec<_> = debug.map(|debug| ("debug", debug)).into_iter().collect();
            let mut config = config(bootstrap, &debug);
            if !debug.is_empty() {
                config.set_log_level(RDKafkaLogLevel::Debug);
            }
            std::thread::spawn(move || write(&config, acknowledged, &is_over))
        }];
        for (number, group) in groups.iter().enumerate() {
            let (is_over, commits, group) = (is_over.clone(), commits.clone(), group.clone());
            let bootstrap = bootstrap.to_owned();
            threads.push(std::thread::spawn(move || {
                commit(&bootstrap, &group, &is_over, || {
                    locked(&commits)[number].push(Instant::now());
                })
            }));
        }
        let load = Load { begun, is_over, writes, commits, errors, threads };
        load.await_more(Instant::now());
        load
    }

    /// Waits until each partition and each group has been acknowledged something many times since then.
    fn await_more(&self, since: Instant) {
        eventually("all writes and commits go on", LIMIT, || {
            let goes_on = |times: &Times| {
                locked(times)
                    .iter()
                    .all(|all| all.iter().rev().take(GOES_ON + 1).filter(|at| **at > since).count() > GOES_ON)
            };
            (goes_on(&self.writes) && goes_on(&self.commits)).then_some(())
        });
    }

    /// The longest time between two acknowledgements that ended after `since`, of the writes and of the commits.
    fn longest_gaps(&self, since: Instant) -> (Duration, Duration) {
        let longest = |times: &Times| {
            let times = locked(times);
            let gaps = times.iter().flat_map(|all| all.windows(2)).filter(|pair| pair[1] > since);
            gaps.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
        };
        (longest(&self.writes), longest(&self.commits))
    }

    /// Ends the load. Returns how many records were refused.
    fn finish(self) -> usize {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("the client does not panic");
        }
        self.errors.load(Ordering::Relaxed)
    }
}

fn write(config: &rdkafka::ClientConfig, acknowledged: Acknowledged, is_over: &AtomicBool) {
    let producer: ThreadedProducer<Acknowledged> = config.create_with_context(acknowledged).expect("create a producer");
    let value = vec![b'v'; RECORD_BYTES];
    let begun = Instant::now();
    for number in 0_u32.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep((begun + PACE * number).saturating_duration_since(Instant::now()));
        let partition = (number as usize % PARTITIONS) as i32;
        let record = BaseRecord::<(), [u8]>::to(TOPIC).partition(partition).payload(&value);
        if let Err((error, _)) = producer.send(record) {
            // The queue is full; the gap shows it.
            eprintln!("a record could not be queued: {error}");
        }
    }
    producer.flush(LIMIT).expect("records in flight are answered");
}

/// Commits one offset after the other.
fn commit(bootstrap: &str, group: &str, is_over: &AtomicBool, on_commit: impl Fn()) {
    let consumer = consumer(bootstrap, group, &[]);
    for offset in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(TOPIC, 0, Offset::Offset(offset)).expect("an offset");
        if consumer.commit(&offsets, CommitMode::Sync).is_ok() {
            on_commit();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn print_fault(fault: Fault, options: &Options, tables: &[Figures]) {
    println!("\n{}", fault.title());
    let whats: BTreeSet<_> = tables.iter().flat_map(|table| table.keys()).filter(|key| key.0 == fault).collect();
    for key in whats {
        for (server, table) in options.servers.iter().zip(tables) {
            let mut took = table.get(key).cloned().unwrap_or_default();
            took.sort();
            let (Some(least), Some(worst)) = (took.first(), took.last()) else { continue };
            let median = took[took.len() / 2];
            println!(
                "  {:<22} {server:?}: median {}, least {}, worst {} ms ({} times)",
                key.1,
                median.as_millis(),
                least.as_millis(),
                worst.as_millis(),
                took.len()
            );
            print!("{}", histogram(&took));
        }
    }
}

/// One line per range of times, each twice as long as the one before.
fn histogram(took: &[Duration]) -> String {
    let mut text = String::new();
    let mut from = Duration::ZERO;
    let mut to = Duration::from_millis(25);
    while took.iter().any(|took| *took >= from) {
        let count = took.iter().filter(|took| (from..to).contains(took)).count();
        if count > 0 {
            let bar = "#".repeat(count);
            writeln!(text, "    {:>6} to {:>6} ms {bar}", from.as_millis(), to.as_millis()).expect("write to a string");
        }
        (from, to) = (to, 2 * to);
    }
    text
}
