//! A client that sends any request in any version, or raw bytes, exactly as the test gives them. The kafka-protocol
//! crate decodes the answers. For tests that no real client can do.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, RequestHeader, ResponseHeader},
    protocol::{Decodable, Request, StrBytes, encode_request_header_into_buffer},
};

/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The broker's reaction on a connection.
#[derive(Debug)]
pub enum Answer {
    /// A frame without its length prefix.
    Frame(Bytes),
    /// The broker closed the connection.
    Closed,
    /// Neither happened within the time limit.
    Silence,
}

/// One connection to a broker.
pub struct Wire {
    stream: TcpStream,
    correlation_id: i32,
}

impl Wire {
    pub fn connect(bootstrap: &str) -> Wire {
        let stream = TcpStream::connect(bootstrap).unwrap_or_else(|error| panic!("connect to {bootstrap}: {error}"));
        stream.set_nodelay(true).expect("set nodelay");
        Wire { stream, correlation_id: 0 }
    }

    /// Sends a request and waits for its answer.
    pub fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request);
        self.receive::<R>(version)
    }

    /// Sends a request; `receive` reads the answer.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).expect("encode the request");
        self.send_body(R::KEY, version, &body);
    }

    /// Sends a well-formed header followed by `body`, in a frame with the right length.
    pub fn send_body(&mut self, api_key: i16, version: i16, body: &[u8]) {
        self.correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(api_key)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("wire")));
        let mut frame = BytesMut::new();
        encode_request_header_into_buffer(&mut frame, &header).expect("encode the header");
        frame.put_slice(body);
        self.send_frame(&frame);
    }

    /// Sends `frame` after its length prefix.
    pub fn send_frame(&mut self, frame: &[u8]) {
        let mut bytes = (frame.len() as i32).to_be_bytes().to_vec();
        bytes.extend_from_slice(frame);
        self.send_bytes(&bytes);
    }

    /// Sends bytes unchanged. If the broker has already closed the connection, `answer` reports it.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Returns the answer to the oldest unanswered request.
    pub fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        let Answer::Frame(mut frame) = self.answer(ANSWER_LIMIT) else {
            panic!("no answer to {:?} version {version}", ApiKey::try_from(R::KEY))
        };
        let key = ApiKey::try_from(R::KEY).expect("a known api key");
        ResponseHeader::decode(&mut frame, key.response_header_version(version)).expect("decode the header");
        let response = R::Response::decode(&mut frame, version).expect("decode the answer");
        assert!(!frame.has_remaining(), "{} bytes after the answer to {key:?} version {version}", frame.remaining());
        response
    }

    /// Waits up to `limit` for the next frame or the end of the connection.
    pub fn answer(&mut self, limit: Duration) -> Answer {
        self.stream.set_read_timeout(Some(limit)).expect("set the read timeout");
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Answer::Silence;
            }
            Err(_) => return Answer::Closed,
        }
        let mut frame = vec![0; i32::from_be_bytes(length) as usize];
        match self.stream.read_exact(&mut frame) {
            Ok(()) => Answer::Frame(frame.into()),
            Err(_) => Answer::Closed,
        }
    }
}
