//! OffsetCommit (key 8), versions 2–10. It has its own codec, since `kafka-protocol` ends at version 9, and so that the
//! handler gets one shape for topics with names and topics with ids (version 10, KIP-848).

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use super::{
    part::Part,
    wire::{DecodeError, Reader, Writer},
};
use crate::types::{LeaderEpoch, Offset, TopicId};

const FIRST_FLEXIBLE: i16 = 8;
const FIRST_WITH_TOPIC_IDS: i16 = 10;

/// The offsets that a member or an admin client commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommitRequest {
    pub group_id: StrBytes,
    /// -1 if the sender is not a member of the group.
    pub generation_id_or_member_epoch: i32,
    pub member_id: StrBytes,
    /// Version 7.
    pub group_instance_id: Option<StrBytes>,
    /// Versions 2–4; -1 for the broker's default.
    pub retention_time_ms: i64,
    pub topics: Vec<OffsetCommitRequestTopic>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetCommitRequestTopic {
    /// Empty from version 10 on.
    pub name: StrBytes,
    /// Zero before version 10.
    pub topic_id: TopicId,
    pub partitions: Vec<OffsetCommitRequestPartition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommitRequestPartition {
    pub partition_index: i32,
    pub committed_offset: Offset,
    /// Version 6; -1 if unknown.
    pub committed_leader_epoch: LeaderEpoch,
    pub committed_metadata: Option<StrBytes>,
}

impl OffsetCommitRequest {
    /// Decodes a request's body.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a valid request. The memory used is proportional to their number.
    pub fn decode(version: i16, body: Bytes) -> Result<Self, DecodeError> {
        Reader::message(body, version, 2..=10, FIRST_FLEXIBLE, |r| {
            Ok(Self {
                group_id: r.string()?,
                generation_id_or_member_epoch: r.i32()?,
                member_id: r.string()?,
                group_instance_id: if version >= 7 { r.nullable_string()? } else { None },
                retention_time_ms: if version <= 4 { r.i64()? } else { -1 },
                topics: r.array(2, |r| r.structure(|r| OffsetCommitRequestTopic::decode(version, r)))?,
            })
        })
    }
}

impl OffsetCommitRequestTopic {
    fn decode(version: i16, r: &mut Reader) -> Result<Self, DecodeError> {
        let (name, topic_id) = r.topic(version >= FIRST_WITH_TOPIC_IDS)?;
        let partitions = r.array(13, |r| r.structure(|r| OffsetCommitRequestPartition::decode(version, r)))?;
        Ok(Self { name, topic_id, partitions })
    }
}

impl OffsetCommitRequestPartition {
    fn decode(version: i16, r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            partition_index: r.i32()?,
            committed_offset: r.i64()?,
            committed_leader_epoch: if version >= 6 { r.i32()? } else { -1 },
            committed_metadata: r.nullable_string()?,
        })
    }
}

/// The response in all versions. Fields that a version does not have are not written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetCommitResponse {
    /// Version 3.
    pub throttle_time_ms: i32,
    pub topics: Vec<OffsetCommitResponseTopic>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetCommitResponseTopic {
    /// The name from the request, below version 10.
    pub name: StrBytes,
    /// The id from the request, from version 10 on.
    pub topic_id: TopicId,
    pub partitions: Vec<OffsetCommitResponsePartition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetCommitResponsePartition {
    pub partition_index: i32,
    pub error_code: i16,
}

impl OffsetCommitResponse {
    /// A response with the same error for every partition of the request.
    pub fn error(request: &OffsetCommitRequest, error_code: i16) -> Self {
        let topics = request.topics.iter().map(|topic| OffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: topic
                .partitions
                .iter()
                .map(|partition| OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code,
                })
                .collect(),
        });
        Self { throttle_time_ms: 0, topics: topics.collect() }
    }

    /// Encodes the response body.
    pub fn encode(&self, version: i16) -> Bytes {
        let partitions: usize = self.topics.iter().map(|topic| topic.partitions.len()).sum();
        let mut writer = Writer::new(version >= FIRST_FLEXIBLE, 16 + self.topics.len() * 48 + partitions * 8);
        if version >= 3 {
            writer.i32(self.throttle_time_ms);
        }
        writer.array(&self.topics, |w, topic| {
            if version >= FIRST_WITH_TOPIC_IDS {
                w.topic_id(topic.topic_id);
            } else {
                w.string(&topic.name);
            }
            w.array(&topic.partitions, |w, partition| {
                w.i32(partition.partition_index);
                w.i16(partition.error_code);
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
    use kafka_protocol::messages::{self, TopicName, offset_commit_request, offset_commit_response};
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::protocol::testing::{JAVA_TOPIC_ID, oracle_encode, text, unhex};

    fn request() -> impl Strategy<Value = OffsetCommitRequest> {
        let partition = (any::<(i32, i64, i32)>(), option::of(text())).prop_map(
            |((partition_index, committed_offset, committed_leader_epoch), committed_metadata)| {
                OffsetCommitRequestPartition {
                    partition_index,
                    committed_offset,
                    committed_leader_epoch,
                    committed_metadata,
                }
            },
        );
        let topic = (text(), vec(partition, 0..4)).prop_map(|(name, partitions)| OffsetCommitRequestTopic {
            name,
            topic_id: TopicId::ZERO,
            partitions,
        });
        (text(), any::<i32>(), text(), option::of(text()), any::<i64>(), vec(topic, 0..4)).prop_map(
            |(group_id, generation_id_or_member_epoch, member_id, group_instance_id, retention_time_ms, topics)| {
                OffsetCommitRequest {
                    group_id,
                    generation_id_or_member_epoch,
                    member_id,
                    group_instance_id,
                    retention_time_ms,
                    topics,
                }
            },
        )
    }

    fn at_version(mut request: OffsetCommitRequest, version: i16) -> OffsetCommitRequest {
        if version < 7 {
            request.group_instance_id = None;
        }
        if version > 4 {
            request.retention_time_ms = -1;
        }
        if version < 6 {
            request
                .topics
                .iter_mut()
                .flat_map(|topic| &mut topic.partitions)
                .for_each(|p| p.committed_leader_epoch = -1);
        }
        request
    }

    fn to_oracle(request: &OffsetCommitRequest) -> messages::OffsetCommitRequest {
        messages::OffsetCommitRequest::default()
            .with_group_id(request.group_id.clone().into())
            .with_generation_id_or_member_epoch(request.generation_id_or_member_epoch)
            .with_member_id(request.member_id.clone())
            .with_group_instance_id(request.group_instance_id.clone())
            .with_retention_time_ms(request.retention_time_ms)
            .with_topics(
                request
                    .topics
                    .iter()
                    .map(|topic| {
                        offset_commit_request::OffsetCommitRequestTopic::default()
                            .with_name(TopicName(topic.name.clone()))
                            .with_partitions(
                                topic
                                    .partitions
                                    .iter()
                                    .map(|partition| {
                                        offset_commit_request::OffsetCommitRequestPartition::default()
                                            .with_partition_index(partition.partition_index)
                                            .with_committed_offset(partition.committed_offset)
                                            .with_committed_leader_epoch(partition.committed_leader_epoch)
                                            .with_committed_metadata(partition.committed_metadata.clone())
                                    })
                                    .collect(),
                            )
                    })
                    .collect(),
            )
    }

    proptest! {
        #[test]
        fn requests_decode_as_the_oracle_wrote_them(request in request(), version in 2..=9_i16) {
            let request = at_version(request, version);
            let bytes = oracle_encode(&to_oracle(&request), version);
            prop_assert_eq!(OffsetCommitRequest::decode(version, bytes.clone()).unwrap(), request);
            for cut in 0..bytes.len() {
                prop_assert!(OffsetCommitRequest::decode(version, bytes.slice(..cut)).is_err());
            }
        }

        #[test]
        fn responses_are_byte_for_byte_what_the_oracle_writes(request in request(), error_code: i16, throttle_time_ms: i32, version in 2..=9_i16) {
            let response = OffsetCommitResponse { throttle_time_ms, ..OffsetCommitResponse::error(&request, error_code) };
            let oracle = messages::OffsetCommitResponse::default()
                .with_throttle_time_ms(throttle_time_ms)
                .with_topics(request.topics.iter().map(|topic| {
                    offset_commit_response::OffsetCommitResponseTopic::default()
                        .with_name(TopicName(topic.name.clone()))
                        .with_partitions(topic.partitions.iter().map(|partition| {
                            offset_commit_response::OffsetCommitResponsePartition::default()
                                .with_partition_index(partition.partition_index)
                                .with_error_code(error_code)
                        }).collect())
                }).collect());
            prop_assert_eq!(response.encode(version), oracle_encode(&oracle, version));
        }
    }

    #[test]
    fn version_10_is_as_kafka_4_3_1_writes_it() {
        let request = OffsetCommitRequest::decode(
            10,
            unhex(
                "026700000005026d0269020102030405060708090a0b0c0d0e0f100300000003000000000000004d0000000202780000000004000000000000004effffffff00000000",
            ),
        );
        let partition = |partition_index, committed_offset, committed_leader_epoch, metadata: Option<&'static str>| {
            OffsetCommitRequestPartition {
                partition_index,
                committed_offset,
                committed_leader_epoch,
                committed_metadata: metadata.map(StrBytes::from_static_str),
            }
        };
        let expected = OffsetCommitRequest {
            group_id: StrBytes::from_static_str("g"),
            generation_id_or_member_epoch: 5,
            member_id: StrBytes::from_static_str("m"),
            group_instance_id: Some(StrBytes::from_static_str("i")),
            retention_time_ms: -1,
            topics: vec![OffsetCommitRequestTopic {
                name: StrBytes::new(),
                topic_id: JAVA_TOPIC_ID,
                partitions: vec![partition(3, 77, 2, Some("x")), partition(4, 78, -1, None)],
            }],
        };
        assert_eq!(request, Ok(expected));
        let response = OffsetCommitResponse {
            throttle_time_ms: 9,
            topics: vec![OffsetCommitResponseTopic {
                name: StrBytes::new(),
                topic_id: JAVA_TOPIC_ID,
                partitions: vec![OffsetCommitResponsePartition { partition_index: 3, error_code: 100 }],
            }],
        };
        assert_eq!(response.encode(10), unhex("00000009020102030405060708090a0b0c0d0e0f1002000000030064000000"));
    }
}
