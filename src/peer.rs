//! Requests to another node: Kafka's own, over a connection of their own.
//!
//! Owns the frames, the headers and the check that a response belongs to its request. A response passes no bounds walk:
//! its size is limited, and a peer is not an arbitrary client. Leaves retries, time limits and the choice of the peer
//! to its users: who drops a call that has not ended must drop the connection, too.

use std::{io, net::SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::env::{Env, net::Stream};

/// Why a request has no response.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("cannot resolve {0}: {1}")]
    Resolve(String, io::Error),
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, io::Error),
    #[error("the connection failed: {0}")]
    Connection(#[from] io::Error),
    #[error("a response of {0} bytes is too large")]
    TooLarge(usize),
    #[error("the response belongs to another request")]
    OutOfStep,
    #[error("cannot encode the request: {0}")]
    Encode(anyhow::Error),
    #[error("cannot decode the response: {0}")]
    Decode(anyhow::Error),
}

impl PeerError {
    /// Whether the other node has closed the connection, or refuses it: its process may have ended.
    pub fn is_disconnect(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
        let (PeerError::Connect(_, error) | PeerError::Connection(error)) = self else { return false };
        matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | UnexpectedEof)
    }
}

/// A request as its header describes it.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    /// The API key.
    pub key: i16,
    pub version: i16,
    /// The version of the request's header: 2 for flexible versions, otherwise 1.
    pub request_header: i16,
    /// The version of the response's header: 1 for flexible versions, otherwise 0.
    pub response_header: i16,
}

impl Wire {
    /// The description of a request of this API and version.
    pub fn new(key: i16, version: i16, is_flexible: bool) -> Wire {
        Wire { key, version, request_header: 1 + i16::from(is_flexible), response_header: i16::from(is_flexible) }
    }

    /// The description of a request and its encoded body.
    ///
    /// # Errors
    /// [`PeerError::Encode`].
    pub fn encode<R: Request>(version: i16, request: &R) -> Result<(Wire, BytesMut), PeerError> {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).map_err(PeerError::Encode)?;
        let (request_header, response_header) = (R::header_version(version), R::Response::header_version(version));
        Ok((Wire { key: R::KEY, version, request_header, response_header }, body))
    }
}

/// A connection to another node.
pub struct Peer {
    stream: Box<dyn Stream>,
    client_id: StrBytes,
    max_response_bytes: usize,
    next_correlation_id: i32,
    memory: FrameMemory,
}

impl Peer {
    /// Connects to `host:port`, to the first of its addresses that accepts. The host name is resolved at each call.
    ///
    /// # Errors
    /// The name is unknown, or no address accepts.
    pub async fn connect(
        env: &Env,
        host: &str,
        port: u16,
        client_id: &str,
        max_response_bytes: usize,
    ) -> Result<Peer, PeerError> {
        let (net, name) = (env.net.clone(), host.to_owned());
        let resolved = env.tasks.blocking("resolve a peer", move || net.resolve(&name, port)).await;
        let unknown = |error| PeerError::Resolve(host.to_owned(), error);
        let mut failed = unknown(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        for address in resolved.map_err(unknown)? {
            match env.net.connect(address).await {
                Ok(stream) => return Ok(Peer::over(stream, client_id, max_response_bytes)),
                Err(error) => failed = PeerError::Connect(address, error),
            }
        }
        Err(failed)
    }

    fn over(stream: Box<dyn Stream>, client_id: &str, max_response_bytes: usize) -> Peer {
        Peer {
            stream,
            client_id: StrBytes::from_string(client_id.to_owned()),
            max_response_bytes,
            next_correlation_id: 0,
            memory: FrameMemory::default(),
        }
    }

    /// Sends a request and waits for its response.
    ///
    /// # Errors
    /// The connection must not be used any more.
    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, PeerError> {
        let (wire, body) = Wire::encode(version, request)?;
        let mut response = self.exchange(wire, &body).await?;
        R::Response::decode(&mut response, version).map_err(PeerError::Decode)
    }

    /// Sends the encoded body of a request and waits for the body of its response.
    ///
    /// # Errors
    /// The connection must not be used any more.
    pub async fn exchange(&mut self, wire: Wire, body: &[u8]) -> Result<Bytes, PeerError> {
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(wire.key)
            .with_request_api_version(wire.version)
            .with_correlation_id(self.next_correlation_id)
            .with_client_id(Some(self.client_id.clone()));
        let mut frame = BytesMut::with_capacity(64 + body.len());
        frame.put_i32(0);
        header.encode(&mut frame, wire.request_header).map_err(PeerError::Encode)?;
        frame.put_slice(body);
        let length = i32::try_from(frame.len() - 4).map_err(|error| PeerError::Encode(error.into()))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).await?;

        let mut response = self.read_frame().await?;
        let header = ResponseHeader::decode(&mut response, wire.response_header).map_err(PeerError::Decode)?;
        if header.correlation_id != self.next_correlation_id {
            return Err(PeerError::OutOfStep);
        }
        Ok(response)
    }

    /// Waits until the other node has closed the connection. No response may be outstanding.
    pub async fn closed(&mut self) {
        // A byte that comes without a request ends the connection as well.
        let _ = self.stream.read_u8().await;
    }

    async fn read_frame(&mut self) -> Result<Bytes, PeerError> {
        let length = self.stream.read_u32().await? as usize;
        if length > self.max_response_bytes {
            return Err(PeerError::TooLarge(length));
        }
        let mut frame = self.memory.take(length);
        while frame.len() < length {
            let missing = length - frame.len();
            if self.stream.read_buf(&mut (&mut frame).limit(missing)).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(self.memory.keep(frame))
    }
}

/// The memory of a large frame that is used again for the next one. Pages that the system hands out anew for each frame
/// cost a follower more than the copy of the records into them.
#[derive(Default)]
struct FrameMemory {
    /// The last large frame. Its memory is free when nobody has kept a part of it.
    kept: Bytes,
    kept_capacity: usize,
    /// The frames in a row that did not need it.
    unused: u32,
}

/// The memory of smaller frames costs little, and that of larger ones is returned at once.
const KEPT_BYTES: std::ops::RangeInclusive<usize> = 64 << 10..=2 << 20;
/// After so many small frames the connection counts as idle, and its memory is returned.
const MOST_UNUSED: u32 = 16;

impl FrameMemory {
    /// Empty space for a frame.
    fn take(&mut self, length: usize) -> BytesMut {
        if length < *KEPT_BYTES.start() {
            self.unused += 1;
            if self.unused >= MOST_UNUSED {
                *self = FrameMemory::default();
            }
        } else if length <= self.kept_capacity
            && let Ok(mut space) = std::mem::take(&mut self.kept).try_into_mut()
        {
            space.clear();
            return space;
        }
        BytesMut::with_capacity(length)
    }

    fn keep(&mut self, frame: BytesMut) -> Bytes {
        let capacity = frame.capacity();
        let frame = frame.freeze();
        if KEPT_BYTES.contains(&frame.len()) && KEPT_BYTES.contains(&capacity) {
            *self = FrameMemory { kept: frame.clone(), kept_capacity: capacity, unused: 0 };
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes a frame of this length through the memory. Returns where it was.
    fn frame(memory: &mut FrameMemory, length: usize) -> Bytes {
        let mut space = memory.take(length);
        assert!(space.is_empty() && space.capacity() >= length);
        space.resize(length, 7);
        memory.keep(space)
    }

    #[test]
    fn the_memory_of_a_large_frame_is_used_again_when_nobody_uses_it() {
        let mut memory = FrameMemory::default();
        let first = frame(&mut memory, 1 << 20).as_ptr();
        assert_ne!(frame(&mut memory, 100).as_ptr(), first);
        assert_eq!(frame(&mut memory, 300_000).as_ptr(), first);
        let used = frame(&mut memory, 1 << 20);
        assert_eq!(used.as_ptr(), first, "the whole memory is still known");
        let records = used.slice(10..20);
        drop(used);
        assert_ne!(frame(&mut memory, 1 << 20).as_ptr(), first);
        assert_eq!(records[..], [7; 10]);
    }

    #[test]
    fn an_idle_connection_and_a_huge_frame_keep_no_memory() {
        let mut memory = FrameMemory::default();
        frame(&mut memory, 1 << 20);
        for _ in 1..MOST_UNUSED {
            frame(&mut memory, 100);
        }
        assert_eq!(memory.kept.len(), 1 << 20);
        frame(&mut memory, 100);
        assert!(memory.kept.is_empty());
        frame(&mut memory, 3 << 20);
        assert!(memory.kept.is_empty());
    }
}
