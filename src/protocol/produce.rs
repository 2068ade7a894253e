//! Produce (key 0), versions 3–13. Records are slices of the request's frame and are neither decoded nor copied here.
//!
//! Leaves the check of batches to `log/validator.rs`, and the response to `api/produce.rs`.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use super::{
    part::Part,
    wire::{DecodeError, Reader, Writer},
};
use crate::types::{BrokerId, LeaderEpoch, Offset, TimestampMs, TopicId};

const FIRST_FLEXIBLE: i16 = 9;
/// From this version on, topics have ids instead of names (KIP-516).
const FIRST_WITH_TOPIC_IDS: i16 = 13;

/// The records that a producer sends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProduceRequest {
    pub transactional_id: Option<StrBytes>,
    /// 0 none, 1 the leader, -1 all in-sync replicas. The decoder accepts other values; the handler refuses them.
    pub acks: i16,
    pub timeout_ms: i32,
    pub topics: Vec<TopicProduceData>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicProduceData {
    /// Empty from version 13 on.
    pub name: StrBytes,
    /// Zero before version 13.
    pub topic_id: TopicId,
    pub partitions: Vec<PartitionProduceData>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionProduceData {
    pub index: i32,
    /// A slice of the frame.
    pub records: Option<Bytes>,
}

impl ProduceRequest {
    /// Decodes a request's body.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a valid request. The memory used is proportional to their number.
    pub fn decode(version: i16, body: Bytes) -> Result<Self, DecodeError> {
        if !(3..=13).contains(&version) {
            return Err(DecodeError::Version(version));
        }
        let mut reader = Reader::new(body, version >= FIRST_FLEXIBLE);
        let request = Self {
            transactional_id: reader.nullable_string()?,
            acks: reader.i16()?,
            timeout_ms: reader.i32()?,
            topics: reader.array(2, |r| TopicProduceData::decode(version, r))?,
        };
        reader.skip_tags()?;
        Ok(request)
    }
}

impl TopicProduceData {
    fn decode(version: i16, reader: &mut Reader) -> Result<Self, DecodeError> {
        let by_id = version >= FIRST_WITH_TOPIC_IDS;
        let topic = Self {
            name: if by_id { StrBytes::new() } else { reader.string()? },
            topic_id: if by_id { reader.topic_id()? } else { TopicId::ZERO },
            partitions: reader.array(5, |r| {
                let partition = PartitionProduceData { index: r.i32()?, records: r.nullable_bytes()? };
                r.skip_tags()?;
                Ok(partition)
            })?,
        };
        reader.skip_tags()?;
        Ok(topic)
    }
}

/// The response in all versions. Fields that a version does not have are not written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProduceResponse {
    pub topics: Vec<TopicProduceResponse>,
    pub throttle_time_ms: i32,
    /// The endpoints of the leaders in `current_leader` (version 10, KIP-951).
    pub node_endpoints: Vec<NodeEndpoint>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicProduceResponse {
    /// The name from the request, below version 13.
    pub name: StrBytes,
    /// The id from the request, from version 13 on.
    pub topic_id: TopicId,
    pub partitions: Vec<PartitionProduceResponse>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionProduceResponse {
    pub index: i32,
    pub error_code: i16,
    /// -1 in case of an error.
    pub base_offset: Offset,
    /// -1 unless the topic uses LogAppendTime.
    pub log_append_time_ms: TimestampMs,
    /// Version 5.
    pub log_start_offset: Offset,
    /// The records because of which the batch failed (version 8, KIP-467).
    pub record_errors: Vec<RecordError>,
    pub error_message: Option<String>,
    /// The current leader, for leadership errors (version 10, KIP-951).
    pub current_leader: Option<LeaderIdAndEpoch>,
}

impl PartitionProduceResponse {
    /// A response with this error; all other fields are unknown.
    pub fn error(index: i32, error_code: i16) -> Self {
        Self {
            index,
            error_code,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
            error_message: None,
            current_leader: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    pub batch_index: i32,
    pub message: Option<String>,
}

/// The current leader, sent with leadership errors (KIP-951).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderIdAndEpoch {
    pub leader_id: BrokerId,
    pub leader_epoch: LeaderEpoch,
}

/// The endpoint of a leader in the same response (KIP-951).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEndpoint {
    pub node_id: BrokerId,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

impl ProduceResponse {
    /// Encodes the response body.
    pub fn encode(&self, version: i16) -> Bytes {
        let partitions: usize = self.topics.iter().map(|topic| topic.partitions.len()).sum();
        let mut writer = Writer::new(version >= FIRST_FLEXIBLE, 64 + self.topics.len() * 48 + partitions * 48);
        writer.array(&self.topics, |w, topic| topic.encode(version, w));
        writer.i32(self.throttle_time_ms);
        if version >= 10 && !self.node_endpoints.is_empty() {
            writer.tag_count(1);
            writer.tag(0, |w| w.array(&self.node_endpoints, NodeEndpoint::encode));
        } else {
            writer.no_tags();
        }
        writer.into_bytes()
    }

    /// Encodes the response body as the parts that the connection sends.
    pub fn into_parts(self, version: i16) -> Vec<Part> {
        vec![Part::Bytes(self.encode(version))]
    }
}

impl TopicProduceResponse {
    fn encode(&self, version: i16, writer: &mut Writer) {
        if version >= FIRST_WITH_TOPIC_IDS {
            writer.topic_id(self.topic_id);
        } else {
            writer.string(&self.name);
        }
        writer.array(&self.partitions, |w, partition| partition.encode(version, w));
        writer.no_tags();
    }
}

impl PartitionProduceResponse {
    fn encode(&self, version: i16, writer: &mut Writer) {
        writer.i32(self.index);
        writer.i16(self.error_code);
        writer.i64(self.base_offset);
        writer.i64(self.log_append_time_ms);
        if version >= 5 {
            writer.i64(self.log_start_offset);
        }
        if version >= 8 {
            writer.array(&self.record_errors, |w, error| {
                w.i32(error.batch_index);
                w.nullable_string(error.message.as_deref());
                w.no_tags();
            });
            writer.nullable_string(self.error_message.as_deref());
        }
        match self.current_leader {
            Some(leader) if version >= 10 => {
                writer.tag_count(1);
                writer.tag(0, |w| leader.encode(w));
            }
            _ => writer.no_tags(),
        }
    }
}

impl LeaderIdAndEpoch {
    pub(crate) fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        r.structure(|r| Ok(Self { leader_id: r.i32()?, leader_epoch: r.i32()? }))
    }

    pub(super) fn encode(self, writer: &mut Writer) {
        writer.i32(self.leader_id);
        writer.i32(self.leader_epoch);
        writer.no_tags();
    }
}

impl NodeEndpoint {
    pub(super) fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let endpoint = Self {
            node_id: r.i32()?,
            host: r.string()?.to_string(),
            port: r.i32()?,
            rack: r.nullable_string()?.map(|rack| rack.to_string()),
        };
        r.skip_tags()?;
        Ok(endpoint)
    }

    pub(super) fn encode(writer: &mut Writer, endpoint: &Self) {
        writer.i32(endpoint.node_id);
        writer.string(&endpoint.host);
        writer.i32(endpoint.port);
        writer.nullable_string(endpoint.rack.as_deref());
        writer.no_tags();
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::{
        messages::{self, TopicName, TransactionalId, produce_request, produce_response},
        protocol::{Decodable, Encodable},
    };
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::protocol::testing::{oracle_encode, text, topic_id};

    fn request() -> impl Strategy<Value = ProduceRequest> {
        let partition = (any::<i32>(), option::of(vec(any::<u8>(), 0..200)))
            .prop_map(|(index, records)| PartitionProduceData { index, records: records.map(Bytes::from) });
        let topic = (text(), topic_id(), vec(partition, 0..4))
            .prop_map(|(name, topic_id, partitions)| TopicProduceData { name, topic_id, partitions });
        (option::of(text()), any::<i16>(), any::<i32>(), vec(topic, 0..4)).prop_map(
            |(transactional_id, acks, timeout_ms, topics)| ProduceRequest {
                transactional_id,
                acks,
                timeout_ms,
                topics,
            },
        )
    }

    fn to_oracle(request: &ProduceRequest) -> messages::ProduceRequest {
        messages::ProduceRequest::default()
            .with_transactional_id(request.transactional_id.clone().map(TransactionalId))
            .with_acks(request.acks)
            .with_timeout_ms(request.timeout_ms)
            .with_topic_data(
                request
                    .topics
                    .iter()
                    .map(|topic| {
                        produce_request::TopicProduceData::default()
                            .with_name(TopicName(topic.name.clone()))
                            .with_topic_id(topic.topic_id.0)
                            .with_partition_data(
                                topic
                                    .partitions
                                    .iter()
                                    .map(|partition| {
                                        produce_request::PartitionProduceData::default()
                                            .with_index(partition.index)
                                            .with_records(partition.records.clone())
                                    })
                                    .collect(),
                            )
                    })
                    .collect(),
            )
    }

    fn response() -> impl Strategy<Value = ProduceResponse> {
        let leader = (any::<i32>(), any::<i32>())
            .prop_filter("Kafka does not write the default", |leader| *leader != (-1, -1))
            .prop_map(|(leader_id, leader_epoch)| LeaderIdAndEpoch { leader_id, leader_epoch });
        let error = (any::<i32>(), option::of("[a-z]{0,9}"))
            .prop_map(|(batch_index, message)| RecordError { batch_index, message });
        let partition =
            (any::<(i32, i16, i64, i64, i64)>(), vec(error, 0..3), option::of("[a-z]{0,9}"), option::of(leader))
                .prop_map(
                    |(
                        (index, error_code, base_offset, log_append_time_ms, log_start_offset),
                        record_errors,
                        error_message,
                        current_leader,
                    )| {
                        PartitionProduceResponse {
                            index,
                            error_code,
                            base_offset,
                            log_append_time_ms,
                            log_start_offset,
                            record_errors,
                            error_message,
                            current_leader,
                        }
                    },
                );
        let topic = (text(), topic_id(), vec(partition, 0..4))
            .prop_map(|(name, topic_id, partitions)| TopicProduceResponse { name, topic_id, partitions });
        let endpoint = (any::<i32>(), "[a-z]{0,9}", any::<i32>(), option::of("[a-z]{0,9}"))
            .prop_map(|(node_id, host, port, rack)| NodeEndpoint { node_id, host, port, rack });
        (vec(topic, 0..4), any::<i32>(), vec(endpoint, 0..3)).prop_map(|(topics, throttle_time_ms, node_endpoints)| {
            ProduceResponse { topics, throttle_time_ms, node_endpoints }
        })
    }

    fn response_to_oracle(response: &ProduceResponse, version: i16) -> messages::ProduceResponse {
        let text = |s: &String| StrBytes::from_string(s.clone());
        let mut oracle =
            messages::ProduceResponse::default().with_throttle_time_ms(response.throttle_time_ms).with_responses(
                response
                    .topics
                    .iter()
                    .map(|topic| {
                        produce_response::TopicProduceResponse::default()
                            .with_name(TopicName(topic.name.clone()))
                            .with_topic_id(topic.topic_id.0)
                            .with_partition_responses(
                                topic
                                    .partitions
                                    .iter()
                                    .map(|partition| {
                                        let mut oracle = produce_response::PartitionProduceResponse::default()
                                            .with_index(partition.index)
                                            .with_error_code(partition.error_code)
                                            .with_base_offset(partition.base_offset)
                                            .with_log_append_time_ms(partition.log_append_time_ms)
                                            .with_log_start_offset(partition.log_start_offset)
                                            .with_error_message(partition.error_message.as_ref().map(text))
                                            .with_record_errors(
                                                partition
                                                    .record_errors
                                                    .iter()
                                                    .map(|error| {
                                                        produce_response::BatchIndexAndErrorMessage::default()
                                                            .with_batch_index(error.batch_index)
                                                            .with_batch_index_error_message(
                                                                error.message.as_ref().map(text),
                                                            )
                                                    })
                                                    .collect(),
                                            );
                                        if let (Some(leader), 10..) = (partition.current_leader, version) {
                                            oracle.current_leader = produce_response::LeaderIdAndEpoch::default()
                                                .with_leader_id(leader.leader_id.into())
                                                .with_leader_epoch(leader.leader_epoch);
                                        }
                                        oracle
                                    })
                                    .collect(),
                            )
                    })
                    .collect(),
            );
        if version >= 10 {
            oracle.node_endpoints = response
                .node_endpoints
                .iter()
                .map(|endpoint| {
                    produce_response::NodeEndpoint::default()
                        .with_node_id(endpoint.node_id.into())
                        .with_host(text(&endpoint.host))
                        .with_port(endpoint.port)
                        .with_rack(endpoint.rack.as_ref().map(text))
                })
                .collect();
        }
        oracle
    }

    proptest! {
        #[test]
        fn requests_decode_as_the_oracle_wrote_them(request in request(), version in 3..=13_i16) {
            let mut expected = request.clone();
            for topic in &mut expected.topics {
                if version >= 13 { topic.name = StrBytes::new() } else { topic.topic_id = TopicId::ZERO }
            }
            prop_assert_eq!(ProduceRequest::decode(version, oracle_encode(&to_oracle(&request), version)).unwrap(), expected);
        }

        #[test]
        fn responses_are_byte_for_byte_what_the_oracle_writes(response in response(), version in 3..=13_i16) {
            let ours = response.encode(version);
            prop_assert_eq!(&ours, &oracle_encode(&response_to_oracle(&response, version), version));
            let mut left = ours;
            messages::ProduceResponse::decode(&mut left, version).unwrap();
            prop_assert!(left.is_empty());
        }

        #[test]
        fn broken_requests_are_errors_and_never_panics(request in request(), version in 3..=13_i16, at in any::<prop::sample::Index>(), byte: u8) {
            let good = oracle_encode(&to_oracle(&request), version);
            prop_assert!(ProduceRequest::decode(version, good.slice(..at.index(good.len()))).is_err());
            let mut bad = BytesMut::from(&good[..]);
            bad[at.index(good.len())] = byte;
            let _ = ProduceRequest::decode(version, bad.freeze());
        }
    }

    #[test]
    fn records_are_slices_of_the_frame() {
        let records = Bytes::from(vec![7; 1000]);
        let request = ProduceRequest {
            topics: vec![TopicProduceData {
                name: StrBytes::from_static_str("t"),
                partitions: vec![PartitionProduceData { index: 0, records: Some(records) }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let frame = oracle_encode(&to_oracle(&request), 9);
        let decoded = ProduceRequest::decode(9, frame.clone()).unwrap();
        let slice = decoded.topics[0].partitions[0].records.clone().unwrap();
        assert!(frame.as_ptr_range().contains(&slice.as_ptr()));
    }

    #[test]
    fn twelve_bytes_with_a_huge_topic_count_are_refused() {
        let mut body = BytesMut::from(&[0xff, 0xff, 0, 1, 0, 0, 0, 1][..]);
        body.extend_from_slice(&i32::MAX.to_be_bytes());
        assert_eq!(ProduceRequest::decode(3, body.freeze()), Err(DecodeError::Truncated));
    }

    #[test]
    fn versions_outside_3_to_13_are_refused() {
        for version in [-1, 0, 2, 14] {
            assert_eq!(ProduceRequest::decode(version, Bytes::new()), Err(DecodeError::Version(version)));
        }
    }

    #[test]
    fn bytes_after_the_request_are_ignored_as_kafka_does() {
        let mut body = BytesMut::from(&oracle_encode(&messages::ProduceRequest::default(), 3)[..]);
        body.extend_from_slice(b"more");
        let _ = messages::ProduceRequest::default().encode(&mut body, 3);
        assert!(ProduceRequest::decode(3, body.freeze()).is_ok());
    }
}
