//! Runs the cases against Apache Kafka or Ottla, writes Kafka's transcripts to files, and compares.

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    case::{Addresses, Case, Step},
    cases::{CASES, Row, STOPPED_BROKER, Setup},
    compare::{Accepted, Difference, differences, matches_any},
    schema::Schemas,
};
use crate::{
    broker::{Broker, BrokerOptions},
    cluster::Cluster,
    kafka::{Kafka, KafkaOptions, jar_directory},
};

/// Transcripts by name of the case.
pub type Transcripts = BTreeMap<String, Vec<Step>>;

/// A server under test, or a cluster of three; it runs until the value is dropped.
pub trait Server {
    fn addresses(&self) -> Addresses;
}

impl Server for Kafka {
    fn addresses(&self) -> Addresses {
        Addresses::of_one(self.address())
    }
}

impl Server for Arc<Mutex<Cluster>> {
    fn addresses(&self) -> Addresses {
        let cluster = self.lock().expect("lock the cluster");
        Addresses {
            brokers: cluster.broker_addresses(),
            controllers: cluster.controller_addresses(),
            cluster: Some(self.clone()),
        }
    }
}

/// A function that starts a server for a setup.
pub type Start<'a> = &'a dyn Fn(&Setup) -> Result<Box<dyn Server>>;

pub fn start_kafka(setup: &Setup) -> Result<Box<dyn Server>> {
    if setup.is_cluster {
        return Ok(Box::new(start_cluster(setup, BrokerOptions::kafka)));
    }
    let options =
        setup.properties.iter().fold(KafkaOptions::default(), |options, (key, value)| options.property(key, value));
    Ok(Box::new(Kafka::start(&options)?))
}

fn all_rows() -> impl Iterator<Item = &'static Row> {
    CASES.iter().flat_map(|rows| rows.iter())
}

impl Server for Broker {
    fn addresses(&self) -> Addresses {
        Addresses::of_one(([127, 0, 0, 1], self.port()).into())
    }
}

/// Starts the same broker as the other tests: its log must be clean at the end, although half of the cases send bad
/// requests.
pub fn start_ottla(setup: &Setup) -> Result<Box<dyn Server>> {
    if setup.is_cluster {
        return Ok(Box::new(start_cluster(setup, |options| options)));
    }
    // Kafka needs these settings to start as a single node (kafka.rs); with the same ones DescribeConfigs returns the
    // same sources.
    let node_settings = [
        ("node.id", "1"),
        ("process.roles", "broker,controller"),
        ("offsets.topic.replication.factor", "1"),
        ("transaction.state.log.replication.factor", "1"),
        ("transaction.state.log.min.isr", "1"),
        ("share.coordinator.state.topic.replication.factor", "1"),
        ("share.coordinator.state.topic.min.isr", "1"),
    ];
    let options = node_settings.iter().fold(Broker::options(), |options, (key, value)| options.set(key, value));
    let options = setup.properties.iter().fold(options, |options, (key, value)| options.set(key, value));
    // One case unregisters the broker, at the end of its setup.
    Ok(Box::new(options.expect_log("a client has unregistered this broker").start()))
}

/// Starts three brokers of the same kind, each in its own rack.
fn start_cluster(setup: &Setup, kind: impl Fn(BrokerOptions) -> BrokerOptions) -> Arc<Mutex<Cluster>> {
    let cluster = Cluster::start_each(|id, options| {
        let options = kind(options).set("broker.rack", format!("rack-{id}"));
        let options = if setup.name == STOPPED_BROKER.name { options.expect_faults() } else { options };
        setup.properties.iter().fold(options, |options, (key, value)| options.set(key, value))
    });
    Arc::new(Mutex::new(cluster))
}

/// Runs all cases whose name matches one of the comma-separated patterns.
pub fn transcripts(schemas: &Schemas, pattern: &str, start: Start) -> Result<Transcripts> {
    let mut all = Transcripts::new();
    for setup in Setup::ALL {
        let rows: Vec<&Row> =
            all_rows().filter(|row| row.setup.name == setup.name && matches_any(pattern, row.name)).collect();
        if rows.is_empty() {
            continue;
        }
        let server = start(setup).with_context(|| format!("start a server for setup {}", setup.name))?;
        let addresses = server.addresses();
        prepare(schemas, &addresses)?;
        all.extend(run_rows(schemas, &rows, &addresses, setup.at_a_time));
    }
    ensure!(!all.is_empty(), "no case fits {pattern:?}");
    Ok(all)
}

/// Waits until the server has a group coordinator (Kafka creates `__consumer_offsets` on the first request for it). If
/// it never has one, the cases about groups fail.
fn prepare(schemas: &Schemas, addresses: &Addresses) -> Result<()> {
    let mut case = Case::new("prepare", schemas, addresses)?;
    if addresses.brokers.len() > 1 {
        return prepare_coordinators(&mut case);
    }
    case.until("the group coordinator answers", |case| {
        let found = case.quietly("FindCoordinator", 0, json!({"Key": "prepare"}));
        let heartbeat =
            case.quietly("Heartbeat", 0, json!({"GroupId": "prepare", "MemberId": "none", "GenerationId": 1}));
        found["ErrorCode"] == 0 && heartbeat["ErrorCode"] == 25
    });
    Ok(())
}

/// Creates `__consumer_offsets` of three brokers such that both servers have the same coordinators: broker N leads
/// partition N-1.
fn prepare_coordinators(case: &mut Case) -> Result<()> {
    let settings = [("cleanup.policy", "compact"), ("compression.type", "producer"), ("segment.bytes", "104857600")];
    case.replicated_topic("__consumer_offsets", &[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]], &settings);
    for broker in 1..=3 {
        case.turn_to_broker(broker);
        // The hash of each of these letters names another partition.
        for (group, partition) in [("a", 1), ("b", 2), ("c", 0)] {
            case.until("the group coordinator is known", |case| {
                let found = case.quietly("FindCoordinator", 0, json!({"Key": group}));
                found["NodeId"] == partition + 1
            });
            case.until("the group coordinator answers", |case| {
                let body = json!({"GroupId": group, "MemberId": "none", "GenerationId": 1});
                let answer = case.quietly("Heartbeat", 0, body);
                answer["ErrorCode"] == if partition + 1 == broker { 25 } else { 16 }
            });
        }
    }
    ensure!(case.steps.is_empty(), "the group coordinators are not as planned: {:?}", case.steps);
    Ok(())
}

fn run_rows(schemas: &Schemas, rows: &[&Row], addresses: &Addresses, at_a_time: usize) -> Vec<(String, Vec<Step>)> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let steps = run_row(schemas, row, addresses);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((row.name.to_owned(), steps));
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one case. If the server is gone, or the case panics, that becomes the last step; the run continues.
fn run_row(schemas: &Schemas, row: &Row, addresses: &Addresses) -> Vec<Step> {
    let mut case = match Case::new(row.name, schemas, addresses) {
        Ok(case) => case,
        Err(error) => return vec![Step { ask: "connect".into(), answer: format!("{error:#}").into() }],
    };
    let ended = catch_unwind(AssertUnwindSafe(|| (row.run)(&mut case)));
    if ended.is_err() {
        case.push("run".into(), "the case broke off".into(), None);
    }
    case.steps
}

pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("differential")
}

/// Writes Kafka's transcripts, one file per group of cases (the part of the name before the first `-`). Records of
/// cases that were not run this time stay; records of deleted cases are removed.
pub fn record(transcripts: Transcripts) -> Result<()> {
    let directory = directory().join("recorded");
    fs::create_dir_all(&directory).context("create the directory of records")?;
    let mut all = recorded()?;
    all.extend(transcripts);
    all.retain(|case, _| all_rows().any(|row| row.name == case));
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    for (case, steps) in &all {
        let group = case.split('-').next().unwrap_or(case);
        let file = files.entry(group).or_default();
        let mut before: Option<&Value> = None;
        for step in steps {
            // Many versions have the same answer; an answer equal to the previous one is left out.
            let line = match before == Some(&step.answer) {
                true => json!({"case": case, "ask": step.ask}),
                false => json!({"case": case, "ask": step.ask, "answer": step.answer}),
            };
            file.push_str(&format!("{line}\n"));
            before = Some(&step.answer);
        }
    }
    for (group, text) in files {
        fs::write(directory.join(format!("{group}.jsonl")), text)
            .with_context(|| format!("write the record {group}"))?;
    }
    Ok(())
}

pub fn recorded() -> Result<Transcripts> {
    let mut all = Transcripts::new();
    for entry in fs::read_dir(directory().join("recorded")).context("list the records")? {
        let text = fs::read_to_string(entry?.path()).context("read a record")?;
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).context("parse a record")?;
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            let steps = all.entry(text("case")).or_default();
            let answer = match line.get("answer") {
                Some(answer) => answer.clone(),
                None => steps.last().map(|step: &Step| step.answer.clone()).context("a record that repeats nothing")?,
            };
            steps.push(Step { ask: text("ask"), answer });
        }
    }
    Ok(all)
}

/// The differences between Kafka's transcripts and others, without the accepted ones.
#[derive(Debug)]
pub struct Verdict {
    pub steps: usize,
    pub unaccepted: Vec<Difference>,
    pub accepted: usize,
    pub unused_rows: Vec<String>,
}

pub fn compare(kafka: &Transcripts, ottla: &Transcripts) -> Result<Verdict> {
    let accepted =
        Accepted::parse(&fs::read_to_string(directory().join("accepted.txt")).context("read accepted.txt")?)?;
    let mut verdict = Verdict { steps: 0, unaccepted: Vec::new(), accepted: 0, unused_rows: Vec::new() };
    let mut used = Vec::new();
    for (case, ours) in ottla {
        let Some(theirs) = kafka.get(case) else {
            bail!("{case} has no record: run the differential tests with RECORD=1")
        };
        verdict.steps += theirs.len();
        for difference in differences(case, theirs, ours) {
            match accepted.row(&difference) {
                Some(row) => {
                    used.push(row);
                    verdict.accepted += 1;
                }
                None => verdict.unaccepted.push(difference),
            }
        }
    }
    verdict.unused_rows = accepted.unused(&used);
    Ok(verdict)
}

pub fn load_schemas() -> Result<Schemas> {
    Schemas::load(&jar_directory()?)
}
