//! OffsetFetch (key 9), versions 1–10. It has its own codec, since `kafka-protocol` ends at version 9, and so that the
//! handler always gets a list of groups; versions below 8 have only one group.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use super::{
    part::Part,
    wire::{DecodeError, Reader, Writer},
};
use crate::types::{LeaderEpoch, Offset, TopicId};

const FIRST_FLEXIBLE: i16 = 6;
/// From this version on, the request has a list of groups instead of one (KIP-709).
const FIRST_WITH_GROUPS: i16 = 8;
const FIRST_WITH_TOPIC_IDS: i16 = 10;

/// A request for the committed offsets of groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetFetchRequest {
    /// Exactly one below version 8.
    pub groups: Vec<OffsetFetchRequestGroup>,
    /// Version 7 (KIP-447): pending offsets of open transactions cause an error instead of being ignored.
    pub require_stable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetFetchRequestGroup {
    pub group_id: StrBytes,
    /// Version 9.
    pub member_id: Option<StrBytes>,
    /// Version 9; -1 if the sender is not a member.
    pub member_epoch: i32,
    /// `None` means all topics of the group.
    pub topics: Option<Vec<OffsetFetchRequestTopic>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetFetchRequestTopic {
    /// Empty from version 10 on.
    pub name: StrBytes,
    /// Zero before version 10.
    pub topic_id: TopicId,
    pub partition_indexes: Vec<i32>,
}

impl OffsetFetchRequest {
    /// Decodes a request's body.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a valid request. The memory used is proportional to their number.
    pub fn decode(version: i16, body: Bytes) -> Result<Self, DecodeError> {
        Reader::message(body, version, 1..=10, FIRST_FLEXIBLE, |r| {
            let groups = match version >= FIRST_WITH_GROUPS {
                true => r.array(3, |r| r.structure(|r| OffsetFetchRequestGroup::decode(version, r)))?,
                false => vec![OffsetFetchRequestGroup::decode(version, r)?],
            };
            Ok(Self { groups, require_stable: version >= 7 && r.bool()? })
        })
    }
}

impl OffsetFetchRequestGroup {
    fn decode(version: i16, r: &mut Reader) -> Result<Self, DecodeError> {
        let group = Self {
            group_id: r.string()?,
            member_id: if version >= 9 { r.nullable_string()? } else { None },
            member_epoch: if version >= 9 { r.i32()? } else { -1 },
            topics: topics(version, r)?,
        };
        if version == 1 && group.topics.is_none() {
            return Err(DecodeError::Null);
        }
        Ok(group)
    }
}

fn topics(version: i16, r: &mut Reader) -> Result<Option<Vec<OffsetFetchRequestTopic>>, DecodeError> {
    r.nullable_array(2, |r| {
        r.structure(|r| {
            let (name, topic_id) = r.topic(version >= FIRST_WITH_TOPIC_IDS)?;
            Ok(OffsetFetchRequestTopic { name, topic_id, partition_indexes: r.array(4, Reader::i32)? })
        })
    })
}

/// The response in all versions. Fields that a version does not have are not written. Below version 8 only the first
/// group is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetFetchResponse {
    /// Version 3.
    pub throttle_time_ms: i32,
    pub groups: Vec<OffsetFetchResponseGroup>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetFetchResponseGroup {
    pub group_id: StrBytes,
    pub topics: Vec<OffsetFetchResponseTopic>,
    /// Version 2. In version 1 every partition has the error instead.
    pub error_code: i16,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetFetchResponseTopic {
    /// The name from the request, below version 10.
    pub name: StrBytes,
    /// The id from the request, from version 10 on.
    pub topic_id: TopicId,
    pub partitions: Vec<OffsetFetchResponsePartition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetFetchResponsePartition {
    pub partition_index: i32,
    /// -1 if nothing is committed.
    pub committed_offset: Offset,
    /// Version 5; -1 if unknown.
    pub committed_leader_epoch: LeaderEpoch,
    pub metadata: Option<StrBytes>,
    pub error_code: i16,
}

impl OffsetFetchResponsePartition {
    /// A response without an offset. The error code is 0 if none was committed.
    pub fn none(partition_index: i32, error_code: i16) -> Self {
        Self {
            partition_index,
            committed_offset: -1,
            committed_leader_epoch: -1,
            metadata: Some(StrBytes::new()),
            error_code,
        }
    }
}

impl OffsetFetchResponseGroup {
    /// The approximate memory of the group in bytes.
    pub fn size_bytes(&self) -> usize {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        let metadata = partitions.map(|partition| partition.metadata.as_ref().map_or(0, |metadata| metadata.len()));
        let partitions = metadata.map(|bytes| size_of::<OffsetFetchResponsePartition>() + bytes).sum::<usize>();
        let topics = self.topics.iter().map(|topic| size_of::<OffsetFetchResponseTopic>() + topic.name.len());
        size_of::<Self>() + self.group_id.len() + partitions + topics.sum::<usize>()
    }

    /// An error of the whole group, in the form that Kafka uses in this version.
    pub fn error(group: &OffsetFetchRequestGroup, error_code: i16, version: i16) -> Self {
        let has_top_level_error = version >= 2;
        let topics =
            group.topics.iter().flatten().filter(|_| !has_top_level_error).map(|topic| OffsetFetchResponseTopic {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                partitions: topic
                    .partition_indexes
                    .iter()
                    .map(|index| OffsetFetchResponsePartition::none(*index, error_code))
                    .collect(),
            });
        Self { group_id: group.group_id.clone(), topics: topics.collect(), error_code }
    }
}

impl OffsetFetchResponse {
    /// Encodes the response body.
    pub fn encode(&self, version: i16) -> Bytes {
        let mut writer = Writer::new(version >= FIRST_FLEXIBLE, self.size_guess_bytes());
        let w = &mut writer;
        if version >= 3 {
            w.i32(self.throttle_time_ms);
        }
        if version >= FIRST_WITH_GROUPS {
            w.array(&self.groups, |w, group| {
                w.string(&group.group_id);
                put_topics(version, w, &group.topics);
                w.i16(group.error_code);
                w.no_tags();
            });
        } else {
            let group = self.groups.first();
            put_topics(version, w, group.map_or(&[], |group| &group.topics));
            if version >= 2 {
                w.i16(group.map_or(0, |group| group.error_code));
            }
        }
        w.no_tags();
        writer.into_bytes()
    }

    fn size_guess_bytes(&self) -> usize {
        let topics = self.groups.iter().flat_map(|group| &group.topics);
        64 + topics.map(|topic| 48 + topic.partitions.len() * 24).sum::<usize>()
    }

    /// Encodes the response body as the parts that the connection sends.
    pub fn into_parts(self, version: i16) -> Vec<Part> {
        vec![Part::Bytes(self.encode(version))]
    }
}

fn put_topics(version: i16, writer: &mut Writer, topics: &[OffsetFetchResponseTopic]) {
    writer.array(topics, |w, topic| {
        if version >= FIRST_WITH_TOPIC_IDS {
            w.topic_id(topic.topic_id);
        } else {
            w.string(&topic.name);
        }
        w.array(&topic.partitions, |w, partition| {
            w.i32(partition.partition_index);
            w.i64(partition.committed_offset);
            if version >= 5 {
                w.i32(partition.committed_leader_epoch);
            }
            w.nullable_string(partition.metadata.as_deref());
            w.i16(partition.error_code);
            w.no_tags();
        });
        w.no_tags();
    });
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{self, TopicName, offset_fetch_request, offset_fetch_response},
        protocol::Decodable,
    };
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::protocol::testing::{JAVA_TOPIC_ID, oracle_encode, text, unhex};

    fn request() -> impl Strategy<Value = OffsetFetchRequest> {
        let topic = (text(), vec(any::<i32>(), 0..4)).prop_map(|(name, partition_indexes)| OffsetFetchRequestTopic {
            name,
            topic_id: TopicId::ZERO,
            partition_indexes,
        });
        let group = (text(), option::of(text()), any::<i32>(), option::of(vec(topic, 0..4))).prop_map(
            |(group_id, member_id, member_epoch, topics)| OffsetFetchRequestGroup {
                group_id,
                member_id,
                member_epoch,
                topics,
            },
        );
        (vec(group, 1..4), any::<bool>())
            .prop_map(|(groups, require_stable)| OffsetFetchRequest { groups, require_stable })
    }

    fn at_version(mut request: OffsetFetchRequest, version: i16) -> OffsetFetchRequest {
        request.require_stable &= version >= 7;
        if version < 8 {
            request.groups.truncate(1);
        }
        for group in &mut request.groups {
            if version < 9 {
                (group.member_id, group.member_epoch) = (None, -1);
            }
            if version < 2 {
                group.topics.get_or_insert_default();
            }
        }
        request
    }

    fn to_oracle(request: &OffsetFetchRequest, version: i16) -> messages::OffsetFetchRequest {
        let oracle = messages::OffsetFetchRequest::default().with_require_stable(request.require_stable);
        if version < 8 {
            let group = &request.groups[0];
            return oracle.with_group_id(group.group_id.clone().into()).with_topics(group.topics.as_ref().map(
                |topics| {
                    topics
                        .iter()
                        .map(|topic| {
                            offset_fetch_request::OffsetFetchRequestTopic::default()
                                .with_name(TopicName(topic.name.clone()))
                                .with_partition_indexes(topic.partition_indexes.clone())
                        })
                        .collect()
                },
            ));
        }
        oracle.with_groups(
            request
                .groups
                .iter()
                .map(|group| {
                    offset_fetch_request::OffsetFetchRequestGroup::default()
                        .with_group_id(group.group_id.clone().into())
                        .with_member_id(group.member_id.clone())
                        .with_member_epoch(group.member_epoch)
                        .with_topics(group.topics.as_ref().map(|topics| {
                            topics
                                .iter()
                                .map(|topic| {
                                    offset_fetch_request::OffsetFetchRequestTopics::default()
                                        .with_name(TopicName(topic.name.clone()))
                                        .with_partition_indexes(topic.partition_indexes.clone())
                                })
                                .collect()
                        }))
                })
                .collect(),
        )
    }

    fn response() -> impl Strategy<Value = OffsetFetchResponse> {
        let partition = (any::<(i32, i64, i32, i16)>(), option::of(text())).prop_map(
            |((partition_index, committed_offset, committed_leader_epoch, error_code), metadata)| {
                OffsetFetchResponsePartition {
                    partition_index,
                    committed_offset,
                    committed_leader_epoch,
                    metadata,
                    error_code,
                }
            },
        );
        let topic = (text(), vec(partition, 0..4)).prop_map(|(name, partitions)| OffsetFetchResponseTopic {
            name,
            topic_id: TopicId::ZERO,
            partitions,
        });
        let group = (text(), vec(topic, 0..4), any::<i16>())
            .prop_map(|(group_id, topics, error_code)| OffsetFetchResponseGroup { group_id, topics, error_code });
        (any::<i32>(), vec(group, 1..4))
            .prop_map(|(throttle_time_ms, groups)| OffsetFetchResponse { throttle_time_ms, groups })
    }

    fn response_to_oracle(response: &OffsetFetchResponse, version: i16) -> messages::OffsetFetchResponse {
        let oracle = messages::OffsetFetchResponse::default().with_throttle_time_ms(response.throttle_time_ms);
        if version < 8 {
            let group = &response.groups[0];
            return oracle.with_error_code(group.error_code).with_topics(
                group
                    .topics
                    .iter()
                    .map(|topic| {
                        offset_fetch_response::OffsetFetchResponseTopic::default()
                            .with_name(TopicName(topic.name.clone()))
                            .with_partitions(
                                topic
                                    .partitions
                                    .iter()
                                    .map(|p| {
                                        offset_fetch_response::OffsetFetchResponsePartition::default()
                                            .with_partition_index(p.partition_index)
                                            .with_committed_offset(p.committed_offset)
                                            .with_committed_leader_epoch(if version >= 5 {
                                                p.committed_leader_epoch
                                            } else {
                                                -1
                                            })
                                            .with_metadata(p.metadata.clone())
                                            .with_error_code(p.error_code)
                                    })
                                    .collect(),
                            )
                    })
                    .collect(),
            );
        }
        oracle.with_groups(
            response
                .groups
                .iter()
                .map(|group| {
                    offset_fetch_response::OffsetFetchResponseGroup::default()
                        .with_group_id(group.group_id.clone().into())
                        .with_error_code(group.error_code)
                        .with_topics(
                            group
                                .topics
                                .iter()
                                .map(|topic| {
                                    offset_fetch_response::OffsetFetchResponseTopics::default()
                                        .with_name(TopicName(topic.name.clone()))
                                        .with_partitions(
                                            topic
                                                .partitions
                                                .iter()
                                                .map(|p| {
                                                    offset_fetch_response::OffsetFetchResponsePartitions::default()
                                                        .with_partition_index(p.partition_index)
                                                        .with_committed_offset(p.committed_offset)
                                                        .with_committed_leader_epoch(p.committed_leader_epoch)
                                                        .with_metadata(p.metadata.clone())
                                                        .with_error_code(p.error_code)
                                                })
                                                .collect(),
                                        )
                                })
                                .collect(),
                        )
                })
                .collect(),
        )
    }

    proptest! {
        #[test]
        fn requests_decode_as_the_oracle_wrote_them(request in request(), version in 1..=9_i16) {
            let request = at_version(request, version);
            let bytes = oracle_encode(&to_oracle(&request, version), version);
            prop_assert_eq!(OffsetFetchRequest::decode(version, bytes.clone()).unwrap(), request);
            for cut in 0..bytes.len() {
                prop_assert!(OffsetFetchRequest::decode(version, bytes.slice(..cut)).is_err());
            }
        }

        #[test]
        fn responses_are_byte_for_byte_what_the_oracle_writes(response in response(), version in 1..=9_i16) {
            let mut ours = response.encode(version);
            prop_assert_eq!(&ours, &oracle_encode(&response_to_oracle(&response, version), version));
            messages::OffsetFetchResponse::decode(&mut ours, version).unwrap();
            prop_assert!(ours.is_empty());
        }
    }

    #[test]
    fn version_10_is_as_kafka_4_3_1_writes_it() {
        let request = OffsetFetchRequest::decode(
            10,
            unhex("030267026d00000004020102030405060708090a0b0c0d0e0f100300000001000000020000026800ffffffff00000100"),
        );
        let group = |id, member_id: Option<&'static str>, member_epoch, topics| OffsetFetchRequestGroup {
            group_id: StrBytes::from_static_str(id),
            member_id: member_id.map(StrBytes::from_static_str),
            member_epoch,
            topics,
        };
        let topic =
            OffsetFetchRequestTopic { name: StrBytes::new(), topic_id: JAVA_TOPIC_ID, partition_indexes: vec![1, 2] };
        let groups = vec![group("g", Some("m"), 4, Some(vec![topic])), group("h", None, -1, None)];
        assert_eq!(request, Ok(OffsetFetchRequest { groups, require_stable: true }));
        let response = OffsetFetchResponse {
            throttle_time_ms: 9,
            groups: vec![OffsetFetchResponseGroup {
                group_id: StrBytes::from_static_str("g"),
                topics: vec![OffsetFetchResponseTopic {
                    name: StrBytes::new(),
                    topic_id: JAVA_TOPIC_ID,
                    partitions: vec![OffsetFetchResponsePartition {
                        partition_index: 1,
                        committed_offset: 77,
                        committed_leader_epoch: 2,
                        metadata: Some(StrBytes::from_static_str("x")),
                        error_code: 3,
                    }],
                }],
                error_code: 16,
            }],
        };
        assert_eq!(
            response.encode(10),
            unhex(
                "00000009020267020102030405060708090a0b0c0d0e0f100200000001000000000000004d0000000202780003000000100000"
            )
        );
    }

    #[test]
    fn version_1_tells_a_groups_error_with_every_partition() {
        let topic = OffsetFetchRequestTopic {
            name: StrBytes::from_static_str("t"),
            partition_indexes: vec![7],
            ..Default::default()
        };
        let group = OffsetFetchRequestGroup {
            group_id: StrBytes::new(),
            member_id: None,
            member_epoch: -1,
            topics: Some(vec![topic]),
        };
        assert_eq!(
            OffsetFetchResponseGroup::error(&group, 16, 1).topics[0].partitions,
            [OffsetFetchResponsePartition::none(7, 16)]
        );
        assert!(OffsetFetchResponseGroup::error(&group, 16, 2).topics.is_empty());
    }
}
