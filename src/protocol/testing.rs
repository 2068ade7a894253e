//! Helpers of the codecs' tests: `kafka-protocol` as the oracle, and random contents.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;
use uuid::Uuid;

use crate::types::TopicId;

/// Encodes a message with `kafka-protocol`.
pub(super) fn oracle_encode(message: &impl Encodable, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes, version).expect("kafka-protocol encodes all its messages");
    bytes.freeze()
}

pub(super) fn text() -> impl Strategy<Value = StrBytes> {
    "[a-zö]{0,12}".prop_map(StrBytes::from_string)
}

pub(super) fn topic_id() -> impl Strategy<Value = TopicId> {
    any::<u128>().prop_map(|id| TopicId(Uuid::from_u128(id)))
}

/// Decodes a hexadecimal text.
pub(super) fn unhex(hex: &str) -> Bytes {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

/// The topic id in the test vectors, which classes of Kafka 4.3.1 encoded.
pub(super) const JAVA_TOPIC_ID: TopicId = TopicId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10));
