//! QuorumMessages (key 10000): raft's messages from one voter of the metadata quorum to another.
//!
//! The one request between nodes that is not Kafka's: KRaft and raft-rs are different protocols. Only controller
//! listeners serve it, and no client is told of it. Leaves the content of the messages to `raft/message.rs`.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{
    part::Part,
    wire::{DecodeError, Reader, Writer},
};
use crate::types::{BrokerId, TopicId};

/// The key is far above those that Kafka will give away.
pub const QUORUM_MESSAGES: i16 = 10_000;
/// The only version.
pub const QUORUM_MESSAGES_VERSION: i16 = 0;
/// Bytes of a message without its content.
const MIN_MESSAGE_BYTES: usize = 4;

/// Messages of one voter, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuorumMessagesRequest {
    /// The cluster of the sender; empty if the sender is new and does not know it yet.
    pub cluster_id: StrBytes,
    pub from: BrokerId,
    /// The directory of the sender's metadata log.
    pub from_directory: Uuid,
    /// The directory of the voter to which the sender wants to talk; nil if it is not known.
    pub to_directory: Uuid,
    /// Where others reach the sender; empty if it has no listener for them.
    pub host: StrBytes,
    pub port: u16,
    /// The incarnation of the sender's broker; nil if it has none.
    pub broker_incarnation: Uuid,
    pub messages: Vec<Bytes>,
}

/// Says that the messages have arrived, not that they are handled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuorumMessagesResponse {
    pub error_code: i16,
}

impl QuorumMessagesRequest {
    /// Decodes a request's body.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a valid request. The memory used is proportional to their number.
    pub fn decode(version: i16, body: Bytes) -> Result<Self, DecodeError> {
        let versions = QUORUM_MESSAGES_VERSION..=QUORUM_MESSAGES_VERSION;
        Reader::message(body, version, versions, i16::MAX, |r| {
            Ok(Self {
                cluster_id: r.string()?,
                from: r.i32()?,
                from_directory: r.uuid()?,
                to_directory: r.uuid()?,
                host: r.string()?,
                port: r.i16()? as u16,
                broker_incarnation: r.uuid()?,
                messages: r.array(MIN_MESSAGE_BYTES, Reader::bytes)?,
            })
        })
    }

    /// Encodes the request's body.
    pub fn encode(&self) -> Bytes {
        let messages: usize = self.messages.iter().map(|message| 4 + message.len()).sum();
        let mut writer = Writer::new(false, 80 + self.cluster_id.len() + self.host.len() + messages);
        writer.string(&self.cluster_id);
        writer.i32(self.from);
        writer.topic_id(TopicId(self.from_directory));
        writer.topic_id(TopicId(self.to_directory));
        writer.string(&self.host);
        writer.i16(self.port as i16);
        writer.topic_id(TopicId(self.broker_incarnation));
        writer.array(&self.messages, |w, message| {
            w.i32(message.len() as i32);
            w.raw(message);
        });
        writer.into_bytes()
    }
}

impl QuorumMessagesResponse {
    /// Decodes a response's body.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a valid response.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let versions = QUORUM_MESSAGES_VERSION..=QUORUM_MESSAGES_VERSION;
        Reader::message(body, QUORUM_MESSAGES_VERSION, versions, i16::MAX, |r| Ok(Self { error_code: r.i16()? }))
    }

    /// Encodes the response body as the parts that the connection sends.
    pub fn into_parts(self, _: i16) -> Vec<Part> {
        let mut writer = Writer::new(false, 2);
        writer.i16(self.error_code);
        vec![Part::Bytes(writer.into_bytes())]
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn a_request_reads_back(from in any::<i32>(), messages in vec(vec(any::<u8>(), 0..20), 0..5)) {
            let messages = messages.into_iter().map(Bytes::from).collect();
            let [from_directory, to_directory, broker_incarnation] = [7, 8, 9].map(Uuid::from_u128);
            let (cluster_id, host, port) = ("c".into(), "h".into(), 65_000);
            let request = QuorumMessagesRequest {
                cluster_id, from, from_directory, to_directory, host, port, broker_incarnation, messages,
            };
            prop_assert_eq!(QuorumMessagesRequest::decode(0, request.encode()), Ok(request));
        }

        #[test]
        fn any_bytes_are_a_request_or_an_error(bytes in vec(any::<u8>(), 0..60)) {
            let _ = QuorumMessagesRequest::decode(0, bytes.into());
        }
    }
}
