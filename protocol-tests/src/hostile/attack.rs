//! Sends large requests on several connections at the same time, as many as a small machine has tokio workers, and
//! reads their answers without keeping them.

use std::{
    fmt,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use super::{
    requests::{Shape, body},
    world::World,
};
use crate::differential::{
    schema::Api,
    wire::{framed, request},
};

/// Connections that send the same requests at the same time.
pub const CONNECTIONS: usize = 2;
/// After this time a request without an answer is abandoned; it is allowed to wait.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A sent request and its outcome.
#[derive(Debug, Clone)]
pub struct Sent {
    pub label: String,
    pub begun: Instant,
    pub ended: Instant,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with this number of bytes.
    Answer(u64),
    /// The broker closed the connection.
    Closed,
    /// No answer within the limit.
    Silence,
}

/// A request that is encoded and can be sent many times.
pub struct Frame {
    label: String,
    bytes: Vec<u8>,
}

/// Encodes the requests of a plan. That takes the test longer than it takes the broker to handle them, so it must not
/// happen while the latency of another client is measured.
pub fn frames(name: &str, api: &Api, plan: &[(i16, Shape)], world: &World) -> Vec<Frame> {
    let frame = |(version, shape): &(i16, Shape)| {
        let bytes = body(name, api, *version, shape, world);
        let flexible = api.request.flexible.contains(*version);
        let bytes = framed(&request(api.key, *version, 1, Some("hostile"), flexible, &bytes));
        Frame { label: format!("{name} v{version} {}", shape.label()), bytes }
    };
    plan.iter().map(frame).collect()
}

/// Sends each frame on [`CONNECTIONS`] at the same time, until all are sent or the time limit is over.
pub fn send_all(address: SocketAddr, frames: &[Frame], limit: Duration) -> Vec<Sent> {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..CONNECTIONS).map(|_| scope.spawn(move || send_on_one(address, frames, limit))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("the attack does not panic")).collect()
    })
}

/// Sends each frame on one connection, which is opened again if the broker closes it.
pub fn send_on_one(address: SocketAddr, frames: &[Frame], limit: Duration) -> Vec<Sent> {
    let deadline = Instant::now() + limit;
    let mut connection = None;
    let mut sent = Vec::new();
    for Frame { label, bytes } in frames.iter().take_while(|_| Instant::now() < deadline) {
        let begun = Instant::now();
        let stream = connection.get_or_insert_with(|| TcpStream::connect(address).expect("connect"));
        let outcome = exchange(stream, bytes);
        if !matches!(outcome, Outcome::Answer(_)) {
            connection = None;
        }
        sent.push(Sent { label: label.clone(), begun, ended: Instant::now(), outcome });
    }
    sent
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?} after {:.1?}", self.label, self.outcome, self.ended - self.begun)
    }
}

fn exchange(stream: &mut TcpStream, frame: &[u8]) -> Outcome {
    let limits = stream.set_read_timeout(Some(ANSWER_LIMIT)).and(stream.set_write_timeout(Some(ANSWER_LIMIT)));
    limits.expect("set time-outs");
    if let Err(error) = stream.write_all(frame) {
        return ended(&error);
    }
    let mut size = [0; 4];
    if let Err(error) = stream.read_exact(&mut size) {
        return ended(&error);
    }
    let size = u64::from(u32::from_be_bytes(size));
    match std::io::copy(&mut stream.take(size), &mut std::io::sink()) {
        Ok(read) if read == size => Outcome::Answer(size),
        Ok(_) => Outcome::Closed,
        Err(error) => ended(&error),
    }
}

fn ended(error: &std::io::Error) -> Outcome {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Outcome::Silence,
        _ => Outcome::Closed,
    }
}
