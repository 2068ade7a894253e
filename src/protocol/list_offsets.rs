//! ListOffsets (key 2), versions 1–11. It has its own codec, since `kafka-protocol` ends at version 10. Version 11 has
//! the fields of version 10 and allows one more special timestamp (KIP-1023).

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use super::{
    part::Part,
    wire::{DecodeError, Reader, Writer},
};
use crate::types::{BrokerId, LeaderEpoch, Offset, TimestampMs};

const FIRST_FLEXIBLE: i16 = 6;

/// A request for the offsets of timestamps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListOffsetsRequest {
    /// -1 from clients.
    pub replica_id: BrokerId,
    /// Version 2: 0 read uncommitted, 1 read committed.
    pub isolation_level: i8,
    pub topics: Vec<ListOffsetsTopic>,
    /// Version 10: the time limit for offsets in remote storage; 0 in older versions.
    pub timeout_ms: i32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOffsetsTopic {
    pub name: StrBytes,
    pub partitions: Vec<ListOffsetsPartition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListOffsetsPartition {
    pub partition_index: i32,
    /// Version 4 (KIP-320); -1 means no check.
    pub current_leader_epoch: LeaderEpoch,
    /// A time, or a negative value with a special meaning that depends on the version.
    pub timestamp: TimestampMs,
}

impl ListOffsetsRequest {
    /// Decodes a request's body.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a valid request. The memory used is proportional to their number.
    pub fn decode(version: i16, body: Bytes) -> Result<Self, DecodeError> {
        Reader::message(body, version, 1..=11, FIRST_FLEXIBLE, |r| {
            Ok(Self {
                replica_id: r.i32()?,
                isolation_level: if version >= 2 { r.i8()? } else { 0 },
                topics: r.array(2, |r| r.structure(|r| ListOffsetsTopic::decode(version, r)))?,
                timeout_ms: if version >= 10 { r.i32()? } else { 0 },
            })
        })
    }
}

impl ListOffsetsTopic {
    fn decode(version: i16, r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            name: r.string()?,
            partitions: r.array(12, |r| r.structure(|r| ListOffsetsPartition::decode(version, r)))?,
        })
    }
}

impl ListOffsetsPartition {
    fn decode(version: i16, r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            partition_index: r.i32()?,
            current_leader_epoch: if version >= 4 { r.i32()? } else { -1 },
            timestamp: r.i64()?,
        })
    }
}

/// The response in all versions. Fields that a version does not have are not written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOffsetsResponse {
    /// Version 2.
    pub throttle_time_ms: i32,
    pub topics: Vec<ListOffsetsTopicResponse>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOffsetsTopicResponse {
    pub name: StrBytes,
    pub partitions: Vec<ListOffsetsPartitionResponse>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListOffsetsPartitionResponse {
    pub partition_index: i32,
    pub error_code: i16,
    /// The timestamp of the record found; -1 for special timestamps or if nothing was found.
    pub timestamp: TimestampMs,
    /// -1 if nothing was found.
    pub offset: Offset,
    /// Version 4; -1 if unknown.
    pub leader_epoch: LeaderEpoch,
}

impl ListOffsetsPartitionResponse {
    /// A response without an offset. The error code is 0 if there is none.
    pub fn none(partition_index: i32, error_code: i16) -> Self {
        Self { partition_index, error_code, timestamp: -1, offset: -1, leader_epoch: -1 }
    }
}

impl ListOffsetsResponse {
    /// Encodes the response body.
    pub fn encode(&self, version: i16) -> Bytes {
        let partitions: usize = self.topics.iter().map(|topic| topic.partitions.len()).sum();
        let mut writer = Writer::new(version >= FIRST_FLEXIBLE, 16 + self.topics.len() * 48 + partitions * 32);
        if version >= 2 {
            writer.i32(self.throttle_time_ms);
        }
        writer.array(&self.topics, |w, topic| {
            w.string(&topic.name);
            w.array(&topic.partitions, |w, partition| {
                w.i32(partition.partition_index);
                w.i16(partition.error_code);
                w.i64(partition.timestamp);
                w.i64(partition.offset);
                if version >= 4 {
                    w.i32(partition.leader_epoch);
                }
                w.no_tags();
            });
            w.no_tags();
        });
        writer.no_tags();
        writer.into_bytes()
    }

    /// Encodes the response body as the parts that the connection sends.
    pub fn into_parts(self, version: i16) -> Vec<Part> {
        vec![Part::Bytes(self.encode(version))]
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{self, TopicName, list_offsets_request, list_offsets_response};
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::protocol::testing::{oracle_encode, text, unhex};

    proptest! {
        #[test]
        fn requests_decode_as_the_oracle_wrote_them(
            (replica_id, isolation_level, timeout_ms) in any::<(i32, i8, i32)>(),
            topics in vec((text(), vec(any::<(i32, i32, i64)>(), 0..4)), 0..4),
            version in 1..=10_i16,
        ) {
            let oracle = messages::ListOffsetsRequest::default()
                .with_replica_id(replica_id.into())
                .with_isolation_level(if version >= 2 { isolation_level } else { 0 })
                .with_timeout_ms(timeout_ms)
                .with_topics(topics.iter().map(|(name, partitions)| {
                    list_offsets_request::ListOffsetsTopic::default()
                        .with_name(TopicName(name.clone()))
                        .with_partitions(partitions.iter().map(|(index, epoch, timestamp)| {
                            list_offsets_request::ListOffsetsPartition::default()
                                .with_partition_index(*index)
                                .with_current_leader_epoch(*epoch)
                                .with_timestamp(*timestamp)
                        }).collect())
                }).collect());
            let expected = ListOffsetsRequest {
                replica_id,
                isolation_level: if version >= 2 { isolation_level } else { 0 },
                timeout_ms: if version >= 10 { timeout_ms } else { 0 },
                topics: topics.into_iter().map(|(name, partitions)| ListOffsetsTopic {
                    name,
                    partitions: partitions.into_iter().map(|(partition_index, epoch, timestamp)| ListOffsetsPartition {
                        partition_index,
                        current_leader_epoch: if version >= 4 { epoch } else { -1 },
                        timestamp,
                    }).collect(),
                }).collect(),
            };
            let bytes = oracle_encode(&oracle, version);
            prop_assert_eq!(ListOffsetsRequest::decode(version, bytes.clone()).unwrap(), expected);
            for cut in 0..bytes.len() {
                prop_assert!(ListOffsetsRequest::decode(version, bytes.slice(..cut)).is_err());
            }
        }

        #[test]
        fn responses_are_byte_for_byte_what_the_oracle_writes(
            throttle_time_ms: i32,
            topics in vec((text(), vec(any::<(i32, i16, i64, i64, i32)>(), 0..4)), 0..4),
            version in 1..=10_i16,
        ) {
            let oracle = messages::ListOffsetsResponse::default()
                .with_throttle_time_ms(throttle_time_ms)
                .with_topics(topics.iter().map(|(name, partitions)| {
                    list_offsets_response::ListOffsetsTopicResponse::default()
                        .with_name(TopicName(name.clone()))
                        .with_partitions(partitions.iter().map(|(index, error, timestamp, offset, epoch)| {
                            list_offsets_response::ListOffsetsPartitionResponse::default()
                                .with_partition_index(*index)
                                .with_error_code(*error)
                                .with_timestamp(*timestamp)
                                .with_offset(*offset)
                                .with_leader_epoch(if version >= 4 { *epoch } else { -1 })
                        }).collect())
                }).collect());
            let ours = ListOffsetsResponse {
                throttle_time_ms,
                topics: topics.into_iter().map(|(name, partitions)| ListOffsetsTopicResponse {
                    name,
                    partitions: partitions.into_iter().map(|(partition_index, error_code, timestamp, offset, leader_epoch)| {
                        ListOffsetsPartitionResponse { partition_index, error_code, timestamp, offset, leader_epoch }
                    }).collect(),
                }).collect(),
            };
            prop_assert_eq!(ours.encode(version), oracle_encode(&oracle, version));
        }
    }

    #[test]
    fn version_11_is_as_kafka_4_3_1_writes_it() {
        let request =
            ListOffsetsRequest::decode(11, unhex("ffffffff01020274020000000300000002fffffffffffffffa00000000001e00"));
        let partitions = vec![ListOffsetsPartition { partition_index: 3, current_leader_epoch: 2, timestamp: -6 }];
        let topics = vec![ListOffsetsTopic { name: StrBytes::from_static_str("t"), partitions }];
        assert_eq!(request, Ok(ListOffsetsRequest { replica_id: -1, isolation_level: 1, topics, timeout_ms: 30 }));
        let response = ListOffsetsResponse {
            throttle_time_ms: 9,
            topics: vec![ListOffsetsTopicResponse {
                name: StrBytes::from_static_str("t"),
                partitions: vec![ListOffsetsPartitionResponse {
                    partition_index: 3,
                    error_code: 35,
                    timestamp: 8,
                    offset: 7,
                    leader_epoch: 2,
                }],
            }],
        };
        assert_eq!(
            response.encode(11),
            unhex("00000009020274020000000300230000000000000008000000000000000700000002000000")
        );
    }
}
