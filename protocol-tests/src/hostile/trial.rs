//! One attack on one broker: measures the latency of another client, the memory of the process and the memory that it
//! returns.
//!
//! The limits for all tests are here. A machine is noisy, so a fault counts only if it occurs in all [`ATTEMPTS`], and
//! a latency counts only if it is not similar elsewhere: at the first attempt with well-behaved clients, later with a
//! second broker beside the first, which nobody attacks. Trials of one process run one after the other.

use std::{
    fmt,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    attack::{self, CONNECTIONS, Frame, Outcome, Sent},
    probe::{Probe, Seen},
    requests::Shape,
    world::{Client, Size, World},
};
use crate::{
    broker::Broker,
    differential::{
        batch::Batch,
        codec,
        schema::Schemas,
        wire::{framed, request},
    },
    kafka::jar_directory,
};

/// Limits for the latency of the other client.
const P99_LIMIT: Duration = Duration::from_millis(50);
const WORST_LIMIT: Duration = Duration::from_millis(500);
/// Limit for additional memory, beside the frames themselves.
const GROWTH_BYTES: u64 = 100 << 20;
/// Limit for memory that remains at the end: topics of the probe, legal state, memory that the allocator keeps.
const MAX_RETAINED_BYTES: u64 = 24 << 20;
const MEMORY_RELEASE_TIMEOUT: Duration = Duration::from_secs(20);
pub const ATTEMPTS: usize = 5;
/// Duration of the well-behaved load that measures the noise of the machine.
const NOISE_TIME: Duration = Duration::from_secs(2);
const NOISE_BATCH_BYTES: usize = 900_000;
/// The probe runs alone for this time before the measurement.
const WARM_UP_TIME: Duration = Duration::from_millis(700);
/// The probe runs at least this long, even if the attack ends sooner.
const LEAST_TIME: Duration = Duration::from_millis(500);

/// Whether frames have the largest legal size (`FULL=1`).
pub fn is_full() -> bool {
    std::env::var_os("FULL").is_some()
}

/// Longest duration of an attack. To make frames of 100 MiB takes the attackers most of their time.
pub fn attack_limit() -> Duration {
    Duration::from_secs(if is_full() { 900 } else { 120 })
}

/// Kafka's schemas, read once.
pub fn schemas() -> Arc<Schemas> {
    static SCHEMAS: OnceLock<Arc<Schemas>> = OnceLock::new();
    let load = || Schemas::load(&jar_directory().expect("find Apache Kafka's jars")).expect("load schemas");
    SCHEMAS.get_or_init(|| Arc::new(load())).clone()
}

/// A broker under attack.
pub struct Trial {
    pub schemas: Arc<Schemas>,
    pub world: World,
    pub address: SocketAddr,
    sent: Mutex<Vec<Sent>>,
    frame_bytes: Mutex<usize>,
}

/// The result of an attack.
pub struct Report {
    pub seen: Seen,
    /// What a client of a broker that was not attacked has seen meanwhile.
    control: Option<Seen>,
    pub sent: Vec<Sent>,
    grown_bytes: u64,
    left_bytes: u64,
    frame_bytes: u64,
    took: Duration,
}

/// Attacks a new broker, at most [`ATTEMPTS`] times, until no limit is exceeded.
///
/// # Panics
/// If every attempt exceeds a limit.
#[track_caller]
pub fn demand(size: &Size, attack: impl Fn(&Trial)) {
    let mut faults = Vec::new();
    for number in 1..=ATTEMPTS {
        let report = attempt_prepared(size, number, |_| (), |trial, ()| attack(trial));
        println!("{report}");
        faults = report.faults();
        if faults.is_empty() {
            return;
        }
        println!("{}\n{}", faults.join(", "), report.suspects());
    }
    panic!("{}", faults.join(", "));
}

/// Attacks a new broker once, with what was prepared before the measurement. `number` counts the attempts from 1 on.
pub fn attempt_prepared<P>(
    size: &Size,
    number: usize,
    prepare: impl Fn(&Trial) -> P,
    attack: impl Fn(&Trial, &P),
) -> Report {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut broker = size.configure(Broker::options().optimized()).start();
    let (schemas, address) = (schemas(), SocketAddr::from(([127, 0, 0, 1], broker.port())));
    let world = World::make(&schemas, address, &broker.data(), size).expect("make the state that requests name");
    let trial =
        Trial { schemas: schemas.clone(), world, address, sent: Mutex::default(), frame_bytes: Mutex::default() };
    let prepared = prepare(&trial);
    let control = (number > 1).then(|| {
        let broker = Broker::options().optimized().start();
        let address = SocketAddr::from(([127, 0, 0, 1], broker.port()));
        (Probe::start(schemas.clone(), address, "control"), broker)
    });
    let probe = Probe::start(schemas, address, "attack");
    // The broker keeps the memory that its first requests need; do not count it.
    std::thread::sleep(WARM_UP_TIME);
    let before = broker.process().memory_bytes("VmRSS");
    reset_peak_memory(&mut broker);
    let begun = Instant::now();
    attack(&trial, &prepared);
    let took = begun.elapsed();
    std::thread::sleep(LEAST_TIME.saturating_sub(took));
    let seen = probe.stop();
    let control = control.map(|(probe, _broker)| probe.stop());
    assert!(broker.process().is_running(), "the broker must survive the attack");
    let grown_bytes = broker.process().memory_bytes("VmHWM").saturating_sub(before);
    let deadline = Instant::now() + MEMORY_RELEASE_TIMEOUT;
    let mut left = || broker.process().memory_bytes("VmRSS").saturating_sub(before);
    while left() > MAX_RETAINED_BYTES && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    let left_bytes = left();
    let frame_bytes = trial.frame_bytes.into_inner().unwrap_or_else(PoisonError::into_inner) as u64;
    let sent = trial.sent.into_inner().unwrap_or_else(PoisonError::into_inner);
    Report { seen, control, sent, grown_bytes, left_bytes, frame_bytes, took }
}

/// Resets the peak memory (VmHWM) of the process.
fn reset_peak_memory(broker: &mut Broker) {
    let path = format!("/proc/{}/clear_refs", broker.process().id());
    std::fs::write(&path, "5").unwrap_or_else(|error| panic!("write {path}: {error}"));
}

/// Runs the probe beside well-behaved clients that keep the broker busy; its latencies are this machine's noise.
fn noise() -> Seen {
    let broker = Broker::options().optimized().start();
    let (schemas, address) = (schemas(), SocketAddr::from(([127, 0, 0, 1], broker.port())));
    let mut client = Client::open(&schemas, address).expect("connect");
    let topic = |number: usize| format!("busy-{number}");
    (0..CONNECTIONS).for_each(|number| drop(client.create_topic(&topic(number), 1).expect("create a topic")));
    let probe = Probe::start(schemas.clone(), address, "noise");
    let until = Instant::now() + NOISE_TIME;
    std::thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            let schemas = &schemas;
            scope.spawn(move || {
                let mut client = Client::open(schemas, address).expect("connect");
                let batch = Batch::of_bytes(NOISE_BATCH_BYTES);
                while Instant::now() < until {
                    client.produce(&topic(number), &batch).expect("produce");
                }
            });
        }
    });
    probe.stop()
}

impl Trial {
    /// Encodes the requests of a plan.
    pub fn frames(&self, api: &str, plan: &[(i16, Shape)]) -> Vec<Frame> {
        let largest = plan.iter().map(|(_, shape)| shape.bytes).max().unwrap_or_default();
        self.note_frame(largest);
        attack::frames(api, self.schemas.api(api), plan, &self.world)
    }

    /// Sends each frame on each connection, until [`attack_limit`] is over.
    pub fn send_all(&self, frames: &[Frame]) {
        self.note_sent(attack::send_all(self.address, frames, attack_limit()));
    }

    /// Sends one request on a new connection.
    pub fn send_one(&self, api: &str, version: i16, shape: &Shape) {
        let frames = self.frames(api, &[(version, shape.clone())]);
        self.note_sent(attack::send_on_one(self.address, &frames, attack_limit()));
    }

    /// Sends a frame on each connection at the same time and waits for the answers.
    pub fn on_each_connection(&self, frame: &[u8]) {
        std::thread::scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(|| {
                    let mut connection = self.connect();
                    connection.send(frame);
                    connection.drain_answer();
                });
            }
        });
    }

    /// Encodes a complete request from JSON.
    pub fn frame(&self, name: &str, version: i16, body: &Value) -> Vec<u8> {
        frame(&self.schemas, name, version, body)
    }

    /// Sends a request on a new connection and returns the answer.
    pub fn ask(&self, api: &str, version: i16, body: &Value) -> Value {
        let mut client = Client::open(&self.schemas, self.address).expect("connect");
        client.ask(api, version, body).expect("an answer")
    }

    pub fn connect(&self) -> Draining {
        let stream = TcpStream::connect(self.address).expect("connect");
        stream.set_read_timeout(Some(attack_limit())).expect("set a time-out");
        Draining(stream)
    }

    fn note_frame(&self, bytes: usize) {
        let mut largest = self.frame_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *largest = bytes.max(*largest);
    }

    fn note_sent(&self, sent: Vec<Sent>) {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).extend(sent);
    }
}

/// Encodes a complete request from JSON.
pub fn frame(schemas: &Schemas, name: &str, version: i16, body: &Value) -> Vec<u8> {
    let api = schemas.api(name);
    let flexible = api.request.flexible.contains(version);
    let body = codec::encode(&api.request, version, body);
    framed(&request(api.key, version, 1, Some("hostile"), flexible, &body))
}

/// A connection whose answers are read and discarded.
pub struct Draining(TcpStream);

impl Draining {
    /// Ignores errors: if the broker closed the connection, the next read notices.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Waits for one answer, or for the end of the connection.
    pub fn drain_answer(&mut self) {
        let mut size = [0; 4];
        if self.0.read_exact(&mut size).is_ok() {
            let mut answer = (&mut self.0).take(u32::from_be_bytes(size).into());
            let _ = std::io::copy(&mut answer, &mut std::io::sink());
        }
    }
}

impl Report {
    /// Describes each limit that the attack exceeded.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.latency_faults(P99_LIMIT, WORST_LIMIT);
        if !faults.is_empty() {
            let measured = self.control.is_none().then(noise);
            let noise = self.control.as_ref().or(measured.as_ref()).expect("one of them was measured");
            let worst = noise.worst().map(|sample| sample.took).unwrap_or_default();
            faults = self.latency_faults(P99_LIMIT.max(2 * noise.quantile(0.99)), WORST_LIMIT.max(2 * worst));
        }
        // A request takes its frame, what is decoded from it, the request to the controller, and an answer that may be
        // as large.
        let frames_bytes = 4 * CONNECTIONS as u64 * self.frame_bytes;
        if self.grown_bytes > GROWTH_BYTES + frames_bytes {
            faults.push(format!("{} MB more", self.grown_bytes >> 20));
        }
        if self.left_bytes > MAX_RETAINED_BYTES {
            faults.push(format!("{} MB not given back", self.left_bytes >> 20));
        }
        faults.extend(self.seen.failure.iter().map(|failure| format!("the other client: {failure}")));
        if self.took > attack_limit() {
            faults.push(format!("not over within {:?}", attack_limit()));
        }
        faults
    }

    fn latency_faults(&self, p99_limit: Duration, worst_limit: Duration) -> Vec<String> {
        let mut faults = Vec::new();
        let p99 = self.seen.quantile(0.99);
        if p99 > p99_limit {
            faults.push(format!("p99 {p99:.1?}"));
        }
        let worst = self.worst();
        if worst > worst_limit {
            faults.push(format!("worst {worst:.1?}"));
        }
        faults
    }

    fn worst(&self) -> Duration {
        self.seen.worst().map(|sample| sample.took).unwrap_or_default()
    }

    /// Describes the requests that ran during the probe's slowest calls, and the slowest requests.
    pub fn suspects(&self) -> String {
        let mut lines = Vec::new();
        let mut samples: Vec<_> = self.seen.samples.iter().collect();
        samples.sort_by_key(|sample| std::cmp::Reverse(sample.took));
        for sample in samples.iter().take(3) {
            lines.push(format!("    {} took {:.1?} during", sample.what, sample.took));
            let end = sample.begun + sample.took;
            let during = self.sent.iter().filter(|sent| sent.begun < end && sent.ended > sample.begun);
            lines.extend(during.take(4).map(|sent| format!("      {sent}")));
        }
        let mut sent: Vec<_> = self.sent.iter().collect();
        sent.sort_by_key(|sent| std::cmp::Reverse(sent.ended - sent.begun));
        lines.extend(sent.iter().take(4).map(|sent| format!("    slow: {sent}")));
        lines.join("\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answers = self.sent.iter().filter_map(|sent| match sent.outcome {
            Outcome::Answer(bytes) => Some(bytes),
            _ => None,
        });
        write!(
            f,
            "{:.1?}: {} sent, {} answered (largest {} KB); {} probes p50 {:.1?} p99 {:.1?} worst {:.1?}; +{} MB, left {} MB",
            self.took,
            self.sent.len(),
            answers.clone().count(),
            answers.max().unwrap_or_default() >> 10,
            self.seen.samples.len(),
            self.seen.quantile(0.5),
            self.seen.quantile(0.99),
            self.worst(),
            self.grown_bytes >> 20,
            self.left_bytes >> 20,
        )
    }
}
