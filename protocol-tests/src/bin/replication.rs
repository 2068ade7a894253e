//! Measures what replication costs: the CPU of three brokers for each gigabyte that is produced with acks=all to
//! partitions with three replicas, Ottla's and Apache Kafka's in one run and by turns. `bench/replication` builds both
//! binaries and runs this one. Prints a table of medians; asserts nothing about them.
//!
//! Each run has a cluster of its own on empty directories. CPU is user and system time of the three processes, from
//! /proc. Leaves the load to `load.rs`, and a broker that is alone to `bench.rs`.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use protocol_tests::{
    clients::create_replicated_topic,
    cluster::{Cluster, NODES},
    differential::{
        batch::{Batch, Record},
        schema::Schemas,
    },
    kafka::jar_directory,
    load::{Assigned, GIGABYTE, IN_FLIGHT, RECORD_BYTES, RECORDS_PER_BATCH, noise, produce, requests_of},
    process::{cpu_time, memory_bytes},
};

const TOPIC: &str = "replicated";
const PARTITIONS: i32 = 6;
const REPLICAS: i32 = 3;

struct Options {
    servers: Vec<Server>,
    runs: usize,
    produce_bytes: usize,
    warm_up_bytes: usize,
    /// Small requests compile more of the JVM's code in the same time.
    warm_up_requests: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Server {
    Ottla,
    Kafka,
}

/// The figures of one run.
struct Figures {
    cpu_s_per_gb: f64,
    mb_per_s: f64,
    /// Of the broker that has most.
    resident_mb: f64,
}

fn main() -> Result<()> {
    let options = Options::parse()?;
    let schemas = Schemas::load(&jar_directory()?)?;
    let mut runs: BTreeMap<Server, Vec<Figures>> = BTreeMap::new();
    for run in 1..=options.runs {
        for server in &options.servers {
            let figures = measure(&schemas, *server, &options)?;
            eprintln!(
                "run {run}, {server:?}: {:.2} s of CPU per GB, {:.0} MB/s, {:.0} MB resident",
                figures.cpu_s_per_gb, figures.mb_per_s, figures.resident_mb
            );
            runs.entry(*server).or_default().push(figures);
        }
    }
    print_table(&options, &runs);
    Ok(())
}

impl Options {
    fn parse() -> Result<Options> {
        let mut options = Options {
            servers: vec![Server::Ottla, Server::Kafka],
            runs: 5,
            produce_bytes: 1_000_000_000,
            warm_up_bytes: 2_000_000_000,
            warm_up_requests: 20_000,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--quick" => {
                    (options.runs, options.produce_bytes) = (1, 300_000_000);
                    (options.warm_up_bytes, options.warm_up_requests) = (300_000_000, 5_000);
                }
                "--runs" => options.runs = value()?.parse().context("a number of runs")?,
                "--warm-up-gb" => {
                    let gigabytes: f64 = value()?.parse().context("a number of gigabytes")?;
                    options.warm_up_bytes = (gigabytes * GIGABYTE) as usize;
                }
                "--only" if value()? == "ottla" => options.servers = vec![Server::Ottla],
                "--only" => options.servers = vec![Server::Kafka],
                other => bail!("what is {other:?}? See the head of bench/replication"),
            }
        }
        Ok(options)
    }
}

fn measure(schemas: &Schemas, server: Server, options: &Options) -> Result<Figures> {
    let mut cluster = Cluster::start(|settings| {
        // The batches of the load have old timestamps; retention must not delete them.
        let settings = settings.set("log.retention.ms", -1).expect_faults();
        if server == Server::Kafka { settings.kafka() } else { settings.optimized() }
    });
    create_replicated_topic(&cluster.bootstrap(), TOPIC, PARTITIONS, REPLICAS, &[("min.insync.replicas", "2")]);
    let leaders = cluster.await_in_sync(TOPIC);
    let connections = connections(&mut cluster, &leaders)?;
    let per_connection = |requests| requests / connections.len();
    let write = |batch: &Batch, requests| produce(schemas, TOPIC, &connections, batch, per_connection(requests));
    let small = Batch::new(vec![Record { value: Some(vec![b'x'; 100]), ..Record::default() }]);
    write(&small, options.warm_up_requests)?;
    let batch = noise();
    write(&batch, requests_of(options.warm_up_bytes))?;

    let processes: Vec<u32> = NODES.iter().map(|id| cluster.broker(*id).process_id()).collect();
    let cpu_s = || processes.iter().map(|id| cpu_time(*id).as_secs_f64()).sum::<f64>();
    let (cpu_from, from) = (cpu_s(), Instant::now());
    write(&batch, requests_of(options.produce_bytes))?;
    let (cpu_s, took_s) = (cpu_s() - cpu_from, from.elapsed().as_secs_f64());
    // A follower out of sync would have cost nothing, and a leader that moved means a failure.
    ensure!(cluster.await_in_sync(TOPIC) == leaders, "leaders have changed");
    let resident = processes.iter().map(|id| memory_bytes(*id, "VmRSS")).max().context("three brokers")?;
    Ok(Figures {
        cpu_s_per_gb: cpu_s / (options.produce_bytes as f64 / GIGABYTE),
        mb_per_s: options.produce_bytes as f64 / 1e6 / took_s,
        resident_mb: resident as f64 / 1e6,
    })
}

/// One connection to each broker, for the partitions that it leads. All brokers lead equally many, so that the work of
/// leaders and followers is spread in the same way with both servers.
fn connections(cluster: &mut Cluster, leaders: &[i32]) -> Result<Vec<Assigned>> {
    NODES
        .iter()
        .map(|id| {
            let led: Vec<i32> = (0..PARTITIONS).filter(|index| leaders[*index as usize] == *id).collect();
            ensure!(led.len() == PARTITIONS as usize / NODES.len(), "broker {id} leads {led:?}");
            Ok((cluster.broker(*id).bootstrap().parse().context("an address")?, led))
        })
        .collect()
}

fn print_table(options: &Options, runs: &BTreeMap<Server, Vec<Figures>>) {
    println!(
        "\n{} GB of {RECORD_BYTES}-byte records in batches of {RECORDS_PER_BATCH}, acks=all, {REPLICAS} replicas, min.insync.replicas=2, \
         one connection to each of three brokers with {IN_FLIGHT} requests in flight; after {} GB and {} small requests to warm up. \
         Medians of {} runs, and all runs in order.\n",
        options.produce_bytes as f64 / GIGABYTE,
        options.warm_up_bytes as f64 / GIGABYTE,
        options.warm_up_requests,
        options.runs,
    );
    type Row = (&'static str, fn(&Figures) -> f64);
    let rows: [Row; 3] = [
        ("produce: CPU of all brokers, s per GB", |figures| figures.cpu_s_per_gb),
        ("produce: throughput, MB/s", |figures| figures.mb_per_s),
        ("afterwards: resident memory per broker, MB", |figures| figures.resident_mb),
    ];
    for (what, value) in rows {
        println!("{what}");
        for (server, figures) in runs {
            let all: Vec<f64> = figures.iter().map(value).collect();
            let listed: Vec<String> = all.iter().map(|value| format!("{value:.2}")).collect();
            println!("    {:<8}{:>10.2}    ({})", format!("{server:?}"), median(all), listed.join(", "));
        }
        if let [Some(ours), Some(theirs)] = [Server::Ottla, Server::Kafka].map(|server| runs.get(&server)) {
            let of = |figures: &[Figures]| median(figures.iter().map(value).collect());
            println!("    {:<8}{:>10.2}", "ratio", of(ours) / of(theirs));
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
