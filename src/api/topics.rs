//! Code about topics that several handlers share: names, the operations that a client may do, and the settings
//! of internal topics.

use kafka_protocol::{messages::TopicName, protocol::StrBytes};

use crate::{config::BrokerConfig, controller::topics::CreatableTopic, types::GROUP_METADATA_TOPIC};

/// All operations on a topic as bits of `AclOperation`. Without an authorizer every client may do all of them.
pub(crate) const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// Like [`TOPIC_OPERATIONS`], for the cluster.
pub(crate) const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;
/// Longest topic name, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 249;

/// M3: a name has 1 to 249 characters of `[a-zA-Z0-9._-]` and is not `.` or `..`.
pub(crate) fn is_valid_name(name: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(is_legal)
}

/// A topic name for a response.
pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Returns the settings with which the broker creates an internal topic, or `None` for any other topic. `has_one_node`:
/// the cluster consists of this node, so the replication factor is 1 instead of the configured one. In a larger cluster
/// the topic cannot be created before there are enough brokers.
pub(crate) fn internal_topic(config: &BrokerConfig, has_one_node: bool, name: &str) -> Option<CreatableTopic> {
    let most = if has_one_node { 1 } else { i16::MAX };
    let setting = |key: &str, value: String| (key.to_owned(), Some(value));
    let (num_partitions, replication_factor, configs) = match name {
        GROUP_METADATA_TOPIC => (
            config.offsets_topic_num_partitions,
            config.offsets_topic_replication_factor,
            vec![
                setting("cleanup.policy", "compact".into()),
                setting("compression.type", "producer".into()),
                setting("segment.bytes", config.offsets_topic_segment_bytes.to_string()),
            ],
        ),
        _ => return None,
    };
    Some(CreatableTopic {
        name: name.to_owned(),
        num_partitions,
        replication_factor: replication_factor.min(most),
        assignments: Vec::new(),
        configs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m3_names() {
        for good in ["a", "a.b_c-D9", &"x".repeat(249)] {
            assert!(is_valid_name(good), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a b", "ä", "a/b", "a\n", &"x".repeat(250)] {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn m4_operations_are_apaches_bit_fields() {
        let bits = |operations: &[u32]| operations.iter().map(|operation| 1 << operation).sum::<i32>();
        // READ 3, WRITE 4, CREATE 5, DELETE 6, ALTER 7, DESCRIBE 8, CLUSTER_ACTION 9, DESCRIBE_CONFIGS 10,
        // ALTER_CONFIGS 11, IDEMPOTENT_WRITE 12
        assert_eq!(TOPIC_OPERATIONS, bits(&[3, 4, 5, 6, 7, 8, 10, 11]));
        assert_eq!(CLUSTER_OPERATIONS, bits(&[5, 7, 8, 9, 10, 11, 12]));
    }
}
