//! Basic types that all modules use: plain aliases for values used in arithmetic (offsets, epochs), newtypes where a
//! mix-up would lose data (topic ids).
//!
//! Leaves wire and disk encodings to `protocol` and `log`.

use std::{fmt, str::FromStr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

/// A record's position in its partition.
pub type Offset = i64;
/// Incremented with each change of a partition's leader; -1 if unknown.
pub type LeaderEpoch = i32;
/// The id that a producer got from InitProducerId; -1 if there is none.
pub type ProducerId = i64;
/// Incremented each time a producer id is reused; -1 if there is none.
pub type ProducerEpoch = i16;
/// Milliseconds since 1970; -1 if there is none.
pub type TimestampMs = i64;
/// `node.id`.
pub type BrokerId = i32;

/// A topic's id (KIP-516). A new topic with the same name gets another id.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub Uuid);

impl TopicId {
    /// No topic id, as in older requests.
    pub const ZERO: TopicId = TopicId(Uuid::nil());

    /// Whether this is [`TopicId::ZERO`].
    pub fn is_zero(self) -> bool {
        self.0.is_nil()
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&uuid_to_base64(self.0))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 22 characters of base64url.
#[derive(Debug, thiserror::Error)]
#[error("not an id of Kafka's form (22 characters of base64url): {0:?}")]
pub struct InvalidId(String);

impl FromStr for TopicId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        uuid_from_base64(text).map(TopicId)
    }
}

/// Kafka's text form of a uuid: base64url without padding, 22 characters.
pub fn uuid_to_base64(id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(id.as_bytes())
}

/// The reverse of [`uuid_to_base64`].
pub fn uuid_from_base64(text: &str) -> Result<Uuid, InvalidId> {
    let invalid = || InvalidId(text.chars().take(64).collect());
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
    Uuid::from_slice(&bytes).map_err(|_| invalid())
}

/// One partition of a topic, by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's index, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// The partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Topic of committed offsets and groups.
pub const GROUP_METADATA_TOPIC: &str = "__consumer_offsets";
/// Topic of the state of transactional ids.
pub const TRANSACTION_STATE_TOPIC: &str = "__transaction_state";
/// Topic of the state of share groups.
pub const SHARE_GROUP_STATE_TOPIC: &str = "__share_group_state";
/// Topic of the metadata quorum's log.
pub const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";

/// The id of the metadata log's topic (Apache: `Uuid.METADATA_TOPIC_ID`).
pub const METADATA_TOPIC_ID: TopicId = TopicId(Uuid::from_u128(1));

/// Topics that only the broker itself writes to.
pub fn is_internal_topic(name: &str) -> bool {
    matches!(name, GROUP_METADATA_TOPIC | TRANSACTION_STATE_TOPIC | SHARE_GROUP_STATE_TOPIC)
}

/// Java's `String.hashCode` (over UTF-16 units), with which Kafka assigns groups and transactional ids to partitions.
pub fn java_string_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m7_java_hash_is_the_one_of_the_jdk() {
        assert_eq!(java_string_hash(""), 0);
        assert_eq!(java_string_hash("abc"), 96354);
        assert_eq!(
            java_string_hash("console-consumer-12345"),
            "console-consumer-12345".bytes().fold(0i32, |h, b| h.wrapping_mul(31).wrapping_add(b.into()))
        );
        assert_eq!(java_string_hash("größe"), 98762257);
    }

    #[test]
    fn ids_print_as_kafka_prints_them() {
        let id: TopicId = "AAAAAAAAAAAAAAAAAAAAAQ".parse().unwrap();
        assert_eq!(id.0.as_u128(), 1);
        assert_eq!(id.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert!("short".parse::<TopicId>().is_err());
    }
}
