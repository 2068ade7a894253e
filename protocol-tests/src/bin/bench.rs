//! Measures Ottla and Apache Kafka 4.3.1 in one run under the same load: start-up, memory, and CPU of the broker
//! process per gigabyte and per request. Prints a table; asserts nothing. bench/compare builds both binaries and runs
//! this one.
//!
//! The load generator speaks the protocol itself and sends prepared frames, so that on a small machine the brokers get
//! the cores. CPU is user and system time of the broker's process, from /proc.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
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
        wire::{framed, request},
    },
    kafka::{Kafka, KafkaOptions, SERVER_FLAGS, jar_directory},
    process::free_port,
};
use serde_json::{Value, json};

const TOPIC: &str = "load";
const PARTITIONS: i32 = 6;
const CONNECTIONS: i32 = 3;
const IN_FLIGHT: usize = 5;
const RECORD_BYTES: usize = 1024;
const RECORDS_PER_BATCH: usize = 250;
const GIGABYTE: f64 = 1e9;

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
    let idle_rss_mb = rss_mb(broker.process_id())?;
    let idle_from = cpu(broker.process_id())?;
    std::thread::sleep(Duration::from_secs(3));
    let idle_cpu_percent = (cpu(broker.process_id())? - idle_from).as_secs_f64() / 3.0 * 100.0;
    let part = |run: &dyn Fn(SocketAddr) -> Result<()>| -> Result<(f64, f64)> {
        for _ in 0..load.warm_up_rounds {
            run(broker.address())?;
        }
        let (cpu_from, from) = (cpu(broker.process_id())?, Instant::now());
        run(broker.address())?;
        Ok(((cpu(broker.process_id())? - cpu_from).as_secs_f64(), from.elapsed().as_secs_f64()))
    };
    let (single_cpu, single_time) = part(&|address| single_requests(schemas, address, load.single_requests))?;
    let (produce_cpu, produce_time) = part(&|address| produce(schemas, address, load.produce_bytes))?;
    let (consume_cpu, consume_time) = part(&|address| consume(schemas, address, load.consume_bytes))?;
    let loaded_rss_mb = rss_mb(broker.process_id())?;
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

/// User and system time of a process so far. The kernel counts hundredths of a second.
fn cpu(process_id: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process_id}/stat")).context("read /proc/PID/stat")?;
    let (_, after_name) = stat.rsplit_once(") ").context("read the process name")?;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

fn rss_mb(process_id: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/status")).context("read /proc/PID/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0 / 1e6)
}

/// A connection that sends complete frames and reads complete answers.
struct Client {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, answer: Vec::new() })
    }

    fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.stream.write_all(frame).context("send a request")
    }

    /// Reads one answer and returns it without size and correlation id.
    fn receive(&mut self) -> Result<&[u8]> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).context("read an answer")?;
        self.answer.resize(u32::from_be_bytes(size) as usize, 0);
        self.stream.read_exact(&mut self.answer).context("read an answer")?;
        self.answer.get(4..).context("an answer without correlation id")
    }

    fn ask(&mut self, schemas: &Schemas, api: &str, version: i16, body: &Value) -> Result<Value> {
        self.send(&frame(schemas, api, version, body))?;
        let answer = self.receive()?;
        codec::decode(&schemas.api(api).response, version, &answer[1..])
    }
}

/// A request frame for a flexible version.
fn frame(schemas: &Schemas, api: &str, version: i16, body: &Value) -> Vec<u8> {
    let api = schemas.api(api);
    framed(&request(api.key, version, 1, Some("bench"), true, &codec::encode(&api.request, version, body)))
}

fn produce_frame(schemas: &Schemas, partition: i32, batch: &Batch) -> Vec<u8> {
    frame(
        schemas,
        "Produce",
        9,
        &json!({"Acks": -1, "TimeoutMs": 30_000, "TopicData": [
        {"Name": TOPIC, "PartitionData": [{"Index": partition, "Records": batch.hex()}]}]}),
    )
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

/// Position of the error code in a Produce v9 answer for one partition: after tags, counts, name and index.
const PRODUCE_ERROR_AT: usize = 1 + 1 + 1 + TOPIC.len() + 1 + 4;

fn check_produced(answer: &[u8]) -> Result<()> {
    ensure!(
        answer.get(PRODUCE_ERROR_AT..PRODUCE_ERROR_AT + 2) == Some(&[0, 0]),
        "a produce failed: {}",
        codec::hex(answer)
    );
    Ok(())
}

fn single_requests(schemas: &Schemas, address: SocketAddr, count: usize) -> Result<()> {
    let record = Record { value: Some(vec![b'x'; 100]), ..Record::default() };
    let frame = produce_frame(schemas, 0, &Batch::new(vec![record]));
    let mut client = Client::connect(address)?;
    for _ in 0..count {
        client.send(&frame)?;
        check_produced(client.receive()?)?;
    }
    Ok(())
}

fn produce(schemas: &Schemas, address: SocketAddr, bytes: usize) -> Result<()> {
    // Bytes without a pattern, so that nothing can compress them.
    let mut seed = 1u32;
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    let records = (0..RECORDS_PER_BATCH)
        .map(|_| Record { value: Some((0..RECORD_BYTES).map(|_| noise()).collect()), ..Record::default() })
        .collect();
    let batch = Batch::new(records);
    let requests = bytes / (RECORD_BYTES * RECORDS_PER_BATCH) / CONNECTIONS as usize;
    on_connections(|connection| {
        let frames: Vec<Vec<u8>> = (0..PARTITIONS)
            .filter(|index| index % CONNECTIONS == connection)
            .map(|index| produce_frame(schemas, index, &batch))
            .collect();
        let mut client = Client::connect(address)?;
        for at in 0..requests + IN_FLIGHT {
            if at >= IN_FLIGHT {
                check_produced(client.receive()?)?;
            }
            if at < requests {
                client.send(&frames[at % frames.len()])?;
            }
        }
        Ok(())
    })
}

fn consume(schemas: &Schemas, address: SocketAddr, bytes: usize) -> Result<()> {
    on_connections(|connection| {
        let mut client = Client::connect(address)?;
        let mut left = (bytes / CONNECTIONS as usize) as i64;
        while left > 0 {
            for partition in (0..PARTITIONS).filter(|index| index % CONNECTIONS == connection) {
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

fn on_connections(work: impl Fn(i32) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                scope.spawn({
                    let work = &work;
                    move || work(connection)
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a connection panicked")))
    })
}
