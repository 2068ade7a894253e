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

/// Requests to one API, and the address of the broker.
#[derive(Clone, Copy)]
pub struct Attack<'a> {
    pub address: SocketAddr,
    pub name: &'a str,
    pub api: &'a Api,
    pub plan: &'a [(i16, Shape)],
    pub world: &'a World,
    pub limit: Duration,
}

/// Sends each request of the plan on [`CONNECTIONS`] at the same time, until all are sent or the time limit is over.
pub fn send_all(attack: Attack<'_>) -> Vec<Sent> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(move || send_on_one(attack))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("the attack does not panic")).collect()
    })
}

/// Sends each request of the plan on one connection, which is opened again if the broker closes it.
pub fn send_on_one(attack: Attack<'_>) -> Vec<Sent> {
    let Attack { address, name, api, plan, world, limit } = attack;
    let deadline = Instant::now() + limit;
    let mut connection = None;
    let mut sent = Vec::new();
    for (version, shape) in plan.iter().take_while(|_| Instant::now() < deadline) {
        let bytes = body(name, api, *version, shape, world);
        let flexible = api.request.flexible.contains(*version);
        let frame = framed(&request(api.key, *version, 1, Some("hostile"), flexible, &bytes));
        let begun = Instant::now();
        let stream = connection.get_or_insert_with(|| TcpStream::connect(address).expect("connect"));
        let outcome = exchange(stream, &frame);
        if !matches!(outcome, Outcome::Answer(_)) {
            connection = None;
        }
        let label = format!("{name} v{version} {}", shape.label());
        sent.push(Sent { label, begun, ended: Instant::now(), outcome });
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
