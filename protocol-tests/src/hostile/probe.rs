//! The other client: sends small Produce, Fetch and Metadata requests, creates topics and opens connections, one after
//! the other, and measures the duration of each.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::world::Client;
use crate::differential::{batch::Batch, schema::Schemas};

const TOPIC: &str = "probe";
/// Pause between two rounds, so that the probe is no load of its own.
const PAUSE: Duration = Duration::from_millis(1);
/// Only every so many rounds create a topic, so that new topics are no load of their own.
const ROUNDS_PER_TOPIC: usize = 8;
const ROUNDS_PER_CONNECTION: usize = 4;

/// One call of the probe.
#[derive(Debug, Clone)]
pub struct Sample {
    pub what: &'static str,
    pub begun: Instant,
    pub took: Duration,
}

/// A running probe.
pub struct Probe {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<(Vec<Sample>, Option<String>)>,
}

/// The results of a probe.
#[derive(Debug)]
pub struct Seen {
    pub samples: Vec<Sample>,
    /// The first call that failed; the probe ends with it.
    pub failure: Option<String>,
}

impl Probe {
    /// Starts a thread that calls the broker at the address.
    pub fn start(schemas: Arc<Schemas>, address: std::net::SocketAddr, name: &str) -> Probe {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, name) = (is_over.clone(), name.to_owned());
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::new();
            let result = call_until(&over, &schemas, address, &name, &mut samples);
            (samples, result.err().map(|error| format!("{error:#}")))
        });
        Probe { is_over, thread }
    }

    pub fn stop(self) -> Seen {
        self.is_over.store(true, Ordering::Relaxed);
        let (samples, failure) = self.thread.join().expect("the probe does not panic");
        Seen { samples, failure }
    }
}

impl Seen {
    /// The latency at this quantile of all calls; `part` is between 0 and 1.
    pub fn quantile(&self, part: f64) -> Duration {
        let mut all: Vec<Duration> = self.samples.iter().map(|sample| sample.took).collect();
        all.sort();
        let at = ((all.len() as f64 * part) as usize).min(all.len().saturating_sub(1));
        all.get(at).copied().unwrap_or_default()
    }

    pub fn worst(&self) -> Option<&Sample> {
        self.samples.iter().max_by_key(|sample| sample.took)
    }
}

fn call_until(
    is_over: &AtomicBool,
    schemas: &Schemas,
    address: std::net::SocketAddr,
    name: &str,
    samples: &mut Vec<Sample>,
) -> Result<()> {
    let mut client = Client::open(schemas, address)?;
    let topic = format!("{TOPIC}-{name}");
    client.create_topic(&topic, 1)?;
    let mut offset = 0;
    for round in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let mut timed = |what, call: &mut dyn FnMut() -> Result<()>| {
            let begun = Instant::now();
            let result = call().context(what);
            samples.push(Sample { what, begun, took: begun.elapsed() });
            result
        };
        timed("Produce", &mut || produce(&mut client, &topic, &mut offset))?;
        timed("Fetch", &mut || fetch(&mut client, &topic, offset))?;
        timed("Metadata", &mut || metadata(&mut client, &topic))?;
        if round % ROUNDS_PER_CONNECTION == 0 {
            timed("a new connection", &mut || {
                Client::open(schemas, address)?.ask("ApiVersions", 0, &Value::Null).map(drop)
            })?;
        }
        if round % ROUNDS_PER_TOPIC == 0 {
            timed("CreateTopics", &mut || client.create_topic(&format!("{topic}-{round}"), 1).map(drop))?;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn produce(client: &mut Client, topic: &str, offset: &mut i64) -> Result<()> {
    let partition = json!({"Index": 0, "Records": Batch::of(1).hex()});
    let data = json!([{"Name": topic, "PartitionData": [partition]}]);
    let answer = client.ask("Produce", 9, &json!({"Acks": -1, "TimeoutMs": 30_000, "TopicData": data}))?;
    let answer = &answer["Responses"][0]["PartitionResponses"][0];
    ensure!(answer["ErrorCode"] == 0, "{answer}");
    *offset = answer["BaseOffset"].as_i64().context("an offset")?;
    Ok(())
}

fn fetch(client: &mut Client, topic: &str, offset: i64) -> Result<()> {
    let partition = json!({"Partition": 0, "FetchOffset": offset, "PartitionMaxBytes": 1 << 20});
    let topics = json!([{"Topic": topic, "Partitions": [partition]}]);
    let answer = client.ask("Fetch", 11, &json!({"MaxWaitMs": 0, "MinBytes": 0, "Topics": topics}))?;
    let partition = &answer["Responses"][0]["Partitions"][0];
    let is_there = partition["Records"].as_array().is_some_and(|batches| !batches.is_empty());
    ensure!(partition["ErrorCode"] == 0 && is_there, "{answer}");
    Ok(())
}

fn metadata(client: &mut Client, topic: &str) -> Result<()> {
    let answer = client.ask("Metadata", 9, &json!({"Topics": [{"Name": topic}]}))?;
    ensure!(answer["Topics"][0]["ErrorCode"] == 0, "{answer}");
    Ok(())
}
