//! A raw connection: sends frames and receives frames, the end of the connection or nothing. It retries nothing.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};

use super::schema::Api;

/// Longest wait for an answer. The longest wait that a case requests is 3 s.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(12);

#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    correlation_id: i32,
}

/// The server's reaction to a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response frame without its size.
    Frame(Vec<u8>),
    Closed,
    /// Neither an answer nor the end of the connection within the limit.
    Silent,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).context("connect")?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, correlation_id: 0 })
    }

    /// Sends a request and returns its correlation id. If the connection is already closed, the next `receive` reports
    /// it.
    pub fn send(&mut self, api: &Api, version: i16, client_id: Option<&str>, body: &[u8]) -> i32 {
        self.correlation_id += 1;
        let flexible = api.request.flexible.contains(version);
        self.send_bytes(&framed(&request(api.key, version, self.correlation_id, client_id, flexible, body)));
        self.correlation_id
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn receive(&mut self, limit: Duration) -> Outcome {
        let mut size = [0; 4];
        match self.read(&mut size, limit) {
            Ok(()) => {}
            Err(outcome) => return outcome,
        }
        let mut frame = vec![0; i32::from_be_bytes(size).max(0) as usize];
        match self.read(&mut frame, ANSWER_LIMIT) {
            Ok(()) => Outcome::Frame(frame),
            Err(outcome) => outcome,
        }
    }

    fn read(&mut self, into: &mut [u8], limit: Duration) -> Result<(), Outcome> {
        self.stream.set_read_timeout(Some(limit)).map_err(|_| Outcome::Closed)?;
        self.stream.read_exact(into).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Outcome::Silent,
            _ => Outcome::Closed,
        })
    }
}

/// Request header (v1, or v2 with empty tags) and body, without the size.
pub fn request(
    key: i16,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    flexible: bool,
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32 + body.len());
    bytes.extend(key.to_be_bytes());
    bytes.extend(version.to_be_bytes());
    bytes.extend(correlation_id.to_be_bytes());
    bytes.extend(client_id.map_or(-1, |id| id.len() as i16).to_be_bytes());
    bytes.extend(client_id.unwrap_or_default().as_bytes());
    if flexible {
        bytes.push(0);
    }
    bytes.extend(body);
    bytes
}

pub fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut frame = (bytes.len() as i32).to_be_bytes().to_vec();
    frame.extend(bytes);
    frame
}
