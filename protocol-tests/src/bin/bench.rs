//! Measures Ottla and Apache Kafka 4.3.1 in one run under the same load: start-up, memory, and CPU of the broker
//! process per gigabyte and per request. Prints a table; asserts nothing. bench/compare builds both binaries and runs
//! this one.
//!
//! CPU is user and system time of the broker's process, from /proc. Leaves the load to `load.rs`, and clusters to
//! `replication.rs`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use protocol_tests::{
    differential::{
        batch::{Batch, Record},
        codec,
        schema::Schemas,
    },
    kafka::{Kafka, KafkaOptions, SERVER_FLAGS, jar_directory},
    load::{
        self, Assigned, Client, GIGABYTE, IN_FLIGHT, RECORD_BYTES, RECORDS_PER_BATCH, check_produced, frame,
        on_connections, produce_frame,
    },
    process::{cpu_time, free_port, memory_bytes},
};
use serde_json::json;

const TOPIC: &str = "load";
const PARTITIONS: i32 = 6;
const CONNECTIONS: i32 = 3;

/// The amount of work in each measured part, and the number of warm-up rounds before it.
struct Load {
    produce_bytes: usize,
    single_requests: usize,
    consume_bytes: usize,
    warm_up_rounds: usize,
}

fn main() -> Result<()> {
    let mut ottla = None;
    let mut load = Load {
        produce_bytes: 2_000_000_000,
        single_requests: 100_000,
        consume_bytes: 4_000_000_000,
        warm_up_rounds: 2,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--ottla" => ottla = arguments.next().map(PathBuf::from),
            "--quick" => {
                load = Load {
                    produce_bytes: 300_000_000,
                    single_requests: 3_000,
                    consume_bytes: 600_000_000,
                    warm_up_rounds: 1,
                };
            }
            other => bail!("usage: bench [--ottla PATH] [--quick]; what is {other:?}?"),
        }
    }
    let schemas = Schemas::load(&jar_directory()?)?;
    let kafka = measure(&schemas, &load, &start_kafka)?;
    let ottla = match ottla {
        Some(binary) => Some(measure(&schemas, &load, &|directory| start_ottla(&binary, directory))?),
        None => None,
    };
    print_table(&load, ottla.as_ref(), &kafka);
    Ok(())
}

/// The measurements of one broker.
struct Figures {
    first_produce_ms: f64,
    idle_rss_mb: f64,
    idle_cpu_percent: f64,
    loaded_rss_mb: f64,
    produce_cpu_s_per_gb: f64,
    produce_mb_per_s: f64,
    single_cpu_us: f64,
    single_requests_per_s: f64,
    consume_cpu_s_per_gb: f64,
    consume_mb_per_s: f64,
}

enum Broker {
    Kafka(Kafka),
    Ottla(Child, SocketAddr),
}

impl Broker {
    fn process_id(&self) -> u32 {
        match self {
            Broker::Kafka(kafka) => kafka.process_id(),
            Broker::Ottla(child, _) => child.id(),
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Broker::Kafka(kafka) => kafka.address(),
            Broker::Ottla(_, address) => *address,
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Broker::Ottla(child, _) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts Kafka with the JVM flags of its own start script. The directory is formatted before, because only the start
/// is measured.
fn start_kafka(directory: &Path) -> Result<(Broker, Instant)> {
    let options = settings()
        .into_iter()
        .fold(KafkaOptions::default().directory(directory), |options, (key, value)| options.property(key, value))
        .java_flags(SERVER_FLAGS);
    Kafka::format(&options)?;
    let start = Instant::now();
    Ok((Broker::Kafka(Kafka::start(&options)?), start))
}

fn start_ottla(binary: &Path, directory: &Path) -> Result<(Broker, Instant)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let mut command = Command::new(binary);
    command.arg("serve").arg("--set").arg(format!("log.dirs={}", directory.join("data").display()));
    command.arg("--set").arg(format!("listeners=PLAINTEXT://{address}"));
    for (key, value) in settings() {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    let log = std::fs::File::create(directory.join("server.log")).context("create server.log")?;
    let start = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("start ottla")?;
    Ok((Broker::Ottla(child, address), start))
}

/// The batches of the load have old timestamps; retention must not delete them.
fn settings() -> [(&'static str, &'static str); 2] {
    [("log.retention.ms", "-1"), ("num.partitions", "6")]
}

fn measure(schemas: &Schemas, load: &Load, start: &dyn Fn(&Path) -> Result<(Broker, Instant)>) -> Result<Figures> {
    let directory = std::env::temp_dir().join(format!("ottla-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let figures = measure_in(schemas, load, &directory, start);
    std::fs::remove_dir_all(&directory)?;
    figures
}

fn measure_in(
    schemas: &Schemas,
    load: &Load,
    directory: &Path,
    start: &dyn Fn(&Path) -> Result<(Broker, Instant)>,
) -> Result<Figures> {
    let (broker, start) = start(directory)?;
    first_produce(schemas, broker.address())?;
    let first_produce_ms = start.elapsed().as_secs_f64() * 1000.0;
    std::thread::sleep(Duration::from_secs(3));
    let idle_rss_mb = rss_mb(broker.process_id());
    let idle_from = cpu_time(broker.process_id());
    std::thread::sleep(Duration::from_secs(3));
    let idle_cpu_percent = (cpu_time(broker.process_id()) - idle_from).as_secs_f64() / 3.0 * 100.0;
    let part = |run: &dyn Fn(SocketAddr) -> Result<()>| -> Result<(f64, f64)> {
        for _ in 0..load.warm_up_rounds {
            run(broker.address())?;
        }
        let (cpu_from, from) = (cpu_time(broker.process_id()), Instant::now());
        run(broker.address())?;
        Ok(((cpu_time(broker.process_id()) - cpu_from).as_secs_f64(), from.elapsed().as_secs_f64()))
    };
    let (single_cpu, single_time) = part(&|address| single_requests(schemas, address, load.single_requests))?;
    let (produce_cpu, produce_time) = part(&|address| produce(schemas, address, load.produce_bytes))?;
    let (consume_cpu, consume_time) = part(&|address| consume(schemas, address, load.consume_bytes))?;
    let loaded_rss_mb = rss_mb(broker.process_id());
    Ok(Figures {
        first_produce_ms,
        idle_rss_mb,
        idle_cpu_percent,
        loaded_rss_mb,
        produce_cpu_s_per_gb: produce_cpu / (load.produce_bytes as f64 / GIGABYTE),
        produce_mb_per_s: load.produce_bytes as f64 / 1e6 / produce_time,
        single_cpu_us: single_cpu * 1e6 / load.single_requests as f64,
        single_requests_per_s: load.single_requests as f64 / single_time,
        consume_cpu_s_per_gb: consume_cpu / (load.consume_bytes as f64 / GIGABYTE),
        consume_mb_per_s: load.consume_bytes as f64 / 1e6 / consume_time,
    })
}

fn print_table(load: &Load, ottla: Option<&Figures>, kafka: &Figures) {
    println!(
        "\n{} GB of {RECORD_BYTES}-byte records in batches of {RECORDS_PER_BATCH}, acks=all, {CONNECTIONS} connections with {IN_FLIGHT} requests in flight;",
        load.produce_bytes as f64 / GIGABYTE
    );
    println!(
        "{} single-record requests one after the other; {} GB consumed hot. Each after {} rounds to warm up.\n",
        load.single_requests,
        load.consume_bytes as f64 / GIGABYTE,
        load.warm_up_rounds
    );
    println!("{:<44}{:>12}{:>14}{:>10}", "", "Ottla", "Kafka 4.3.1", "ratio");
    type Row = (&'static str, fn(&Figures) -> f64);
    let rows: [Row; 10] = [
        ("exec to first acknowledged produce, ms", |figures| figures.first_produce_ms),
        ("idle: resident memory, MB", |figures| figures.idle_rss_mb),
        ("idle: CPU, % of a core", |figures| figures.idle_cpu_percent),
        ("after the load: resident memory, MB", |figures| figures.loaded_rss_mb),
        ("produce: broker CPU, s per GB", |figures| figures.produce_cpu_s_per_gb),
        ("produce: throughput, MB/s", |figures| figures.produce_mb_per_s),
        ("single record: broker CPU, µs per request", |figures| figures.single_cpu_us),
        ("single record: requests/s", |figures| figures.single_requests_per_s),
        ("consume: broker CPU, s per GB", |figures| figures.consume_cpu_s_per_gb),
        ("consume: throughput, MB/s", |figures| figures.consume_mb_per_s),
    ];
    for (what, value) in rows {
        let theirs = value(kafka);
        match ottla.map(value) {
            Some(ours) => println!("{what:<44}{ours:>12.2}{theirs:>14.2}{:>10.2}", ours / theirs),
            None => println!("{what:<44}{:>12}{theirs:>14.2}{:>10}", "-", "-"),
        }
    }
}

fn rss_mb(process_id: u32) -> f64 {
    memory_bytes(process_id, "VmRSS") as f64 / 1e6
}

/// Connects as soon as possible, lets Metadata create the topic, and returns when a record is acknowledged.
fn first_produce(schemas: &Schemas, address: SocketAddr) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(60);
    let batch = Batch::of(1);
    let produce = json!({"Acks": -1, "TimeoutMs": 30_000, "TopicData": [{"Name": TOPIC, "PartitionData": [{"Index": 0, "Records": batch.hex()}]}]});
    let metadata = json!({"AllowAutoTopicCreation": true, "Topics": [{"Name": TOPIC}]});
    let mut client = loop {
        match Client::connect(address) {
            Ok(client) => break client,
            Err(error) => ensure!(Instant::now() < limit, "the broker does not open its port: {error}"),
        }
        std::thread::sleep(Duration::from_micros(500));
    };
    loop {
        let known = client.ask(schemas, "Metadata", 9, &metadata)?;
        if known["Topics"][0]["ErrorCode"] == 0 {
            let answer = client.ask(schemas, "Produce", 9, &produce)?;
            if answer["Responses"][0]["PartitionResponses"][0]["ErrorCode"] == 0 {
                return Ok(());
            }
        }
        ensure!(Instant::now() < limit, "no produce was acknowledged: {known}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn single_requests(schemas: &Schemas, address: SocketAddr, count: usize) -> Result<()> {
    let record = Record { value: Some(vec![b'x'; 100]), ..Record::default() };
    let frame = produce_frame(schemas, TOPIC, 0, &Batch::new(vec![record]));
    let mut client = Client::connect(address)?;
    for _ in 0..count {
        client.send(&frame)?;
        check_produced(TOPIC, client.receive()?)?;
    }
    Ok(())
}

/// Each connection serves the same number of partitions.
fn connections(address: SocketAddr) -> Vec<Assigned> {
    let partitions = |connection| (0..PARTITIONS).filter(|index| index % CONNECTIONS == connection).collect();
    (0..CONNECTIONS).map(|connection| (address, partitions(connection))).collect()
}

fn produce(schemas: &Schemas, address: SocketAddr, bytes: usize) -> Result<()> {
    let requests = load::requests_of(bytes) / CONNECTIONS as usize;
    load::produce(schemas, TOPIC, &connections(address), &load::noise(), requests)
}

fn consume(schemas: &Schemas, address: SocketAddr, bytes: usize) -> Result<()> {
    on_connections(&connections(address), |(address, partitions)| {
        let mut client = Client::connect(*address)?;
        let mut left = (bytes / CONNECTIONS as usize) as i64;
        while left > 0 {
            for partition in partitions {
                let mut offset = 0;
                while left > 0 {
                    let body = json!({"MaxWaitMs": 100, "MinBytes": 1, "MaxBytes": 52_428_800, "Topics": [{"Topic": TOPIC, "Partitions": [
                        {"Partition": partition, "FetchOffset": offset, "PartitionMaxBytes": 1_048_576}]}]});
                    client.send(&frame(schemas, "Fetch", 12, &body))?;
                    let (next, received) = fetched(client.receive()?)?;
                    left -= received;
                    match next {
                        Some(next) => offset = next,
                        None => break,
                    }
                }
            }
        }
        Ok(())
    })
}

/// Reads a Fetch v12 answer for one partition: the offset after its records, if it has any, and the size of the answer.
fn fetched(answer: &[u8]) -> Result<(Option<i64>, i64)> {
    // Tags, throttle time, error, session, count, name, count, index.
    let error_at = 1 + 4 + 2 + 4 + 1 + 1 + TOPIC.len() + 1 + 4;
    ensure!(
        answer.get(error_at..error_at + 2) == Some(&[0, 0]),
        "a fetch failed: {}",
        codec::hex(&answer[..answer.len().min(100)])
    );
    // High watermark, last stable offset, log start offset, no aborted transactions, preferred replica.
    let mut at = error_at + 2 + 8 + 8 + 8 + 1 + 4;
    let mut length = 0usize;
    for shift in (0..35).step_by(7) {
        let byte = *answer.get(at).context("an answer cut short")?;
        at += 1;
        length |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    let mut records = answer.get(at..at + length.saturating_sub(1)).context("an answer cut short")?;
    let mut next = None;
    while records.len() >= 61 {
        let batch_bytes = 12 + i32::from_be_bytes(records[8..12].try_into()?) as usize;
        if batch_bytes > records.len() {
            break;
        }
        let base = i64::from_be_bytes(records[..8].try_into()?);
        next = Some(base + i64::from(i32::from_be_bytes(records[23..27].try_into()?)) + 1);
        records = &records[batch_bytes..];
    }
    Ok((next, answer.len() as i64))
}
