//! The load generator of the benchmarks. It speaks the protocol itself and sends prepared frames, so that on a small
//! machine the brokers get the cores. Leaves the start of brokers and the measurements to its callers.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::differential::{
    batch::{Batch, Record},
    codec,
    schema::Schemas,
    wire::{framed, request},
};

pub const IN_FLIGHT: usize = 5;
pub const RECORD_BYTES: usize = 1024;
pub const RECORDS_PER_BATCH: usize = 250;
pub const GIGABYTE: f64 = 1e9;

/// A connection that sends complete frames and reads complete answers.
pub struct Client {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, answer: Vec::new() })
    }

    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.stream.write_all(frame).context("send a request")
    }

    /// Reads one answer and returns it without size and correlation id.
    pub fn receive(&mut self) -> Result<&[u8]> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).context("read an answer")?;
        self.answer.resize(u32::from_be_bytes(size) as usize, 0);
        self.stream.read_exact(&mut self.answer).context("read an answer")?;
        self.answer.get(4..).context("an answer without correlation id")
    }

    pub fn ask(&mut self, schemas: &Schemas, api: &str, version: i16, body: &Value) -> Result<Value> {
        self.send(&frame(schemas, api, version, body))?;
        let answer = self.receive()?;
        codec::decode(&schemas.api(api).response, version, &answer[1..])
    }
}

/// A request frame for a flexible version.
pub fn frame(schemas: &Schemas, api: &str, version: i16, body: &Value) -> Vec<u8> {
    let api = schemas.api(api);
    framed(&request(api.key, version, 1, Some("bench"), true, &codec::encode(&api.request, version, body)))
}

/// A Produce v9 with acks=all.
pub fn produce_frame(schemas: &Schemas, topic: &str, partition: i32, batch: &Batch) -> Vec<u8> {
    frame(
        schemas,
        "Produce",
        9,
        &json!({"Acks": -1, "TimeoutMs": 30_000, "TopicData": [
        {"Name": topic, "PartitionData": [{"Index": partition, "Records": batch.hex()}]}]}),
    )
}

/// Checks a Produce v9 answer for one partition.
pub fn check_produced(topic: &str, answer: &[u8]) -> Result<()> {
    // Tags, count, name, count, index.
    let error_at = 1 + 1 + 1 + topic.len() + 1 + 4;
    ensure!(answer.get(error_at..error_at + 2) == Some(&[0, 0]), "a produce failed: {}", codec::hex(answer));
    Ok(())
}

/// A batch of records without a pattern, so that nothing can compress them.
pub fn noise() -> Batch {
    let mut seed = 1u32;
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    let records = (0..RECORDS_PER_BATCH)
        .map(|_| Record { value: Some((0..RECORD_BYTES).map(|_| noise()).collect()), ..Record::default() })
        .collect();
    Batch::new(records)
}

/// A connection of the load: the broker, and the partitions that it serves there in turns.
pub type Assigned = (SocketAddr, Vec<i32>);

/// Sends this many requests with one batch each on each connection, and keeps [`IN_FLIGHT`] of them waiting.
pub fn produce(schemas: &Schemas, topic: &str, to: &[Assigned], batch: &Batch, requests: usize) -> Result<()> {
    on_connections(to, |(address, partitions)| {
        let frames: Vec<Vec<u8>> =
            partitions.iter().map(|partition| produce_frame(schemas, topic, *partition, batch)).collect();
        let mut client = Client::connect(*address)?;
        for at in 0..requests + IN_FLIGHT {
            if at >= IN_FLIGHT {
                check_produced(topic, client.receive()?)?;
            }
            if at < requests {
                client.send(&frames[at % frames.len()])?;
            }
        }
        Ok(())
    })
}

/// The number of requests with one batch of [`noise`] each that make so many bytes.
pub fn requests_of(bytes: usize) -> usize {
    bytes / (RECORD_BYTES * RECORDS_PER_BATCH)
}

/// Does the work of each connection in a thread of its own.
pub fn on_connections(to: &[Assigned], work: impl Fn(&Assigned) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = to.iter().map(|assigned| scope.spawn(move || work(assigned))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a connection panicked")))
    })
}
