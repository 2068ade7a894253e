//! DescribeLogDirs (key 35), versions 1–5. It has its own codec, since `kafka-protocol` ends at version 4.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use super::{
    part::Part,
    wire::{DecodeError, Reader, Writer},
};

const FIRST_FLEXIBLE: i16 = 2;

/// A request for the log directories of partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescribeLogDirsRequest {
    /// `None` means all topics.
    pub topics: Option<Vec<DescribableLogDirTopic>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescribableLogDirTopic {
    pub topic: StrBytes,
    pub partitions: Vec<i32>,
}

impl DescribeLogDirsRequest {
    /// Decodes a request's body.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a valid request. The memory used is proportional to their number.
    pub fn decode(version: i16, body: Bytes) -> Result<Self, DecodeError> {
        if !(1..=5).contains(&version) {
            return Err(DecodeError::Version(version));
        }
        let mut reader = Reader::new(body, version >= FIRST_FLEXIBLE);
        let topics = reader.nullable_array(2, |r| {
            let topic = DescribableLogDirTopic { topic: r.string()?, partitions: r.array(4, Reader::i32)? };
            r.skip_tags()?;
            Ok(topic)
        })?;
        reader.skip_tags()?;
        Ok(Self { topics })
    }
}

/// The response in all versions. Fields that a version does not have are not written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescribeLogDirsResponse {
    pub throttle_time_ms: i32,
    /// Version 3.
    pub error_code: i16,
    pub results: Vec<DescribeLogDirsResult>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescribeLogDirsResult {
    pub error_code: i16,
    /// An absolute path.
    pub log_dir: String,
    pub topics: Vec<DescribeLogDirsTopic>,
    /// The size of the volume (version 4); -1 if unknown.
    pub total_bytes: i64,
    pub usable_bytes: i64,
    /// Version 5: the directory takes no new partitions.
    pub is_cordoned: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescribeLogDirsTopic {
    pub name: StrBytes,
    pub partitions: Vec<DescribeLogDirsPartition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescribeLogDirsPartition {
    pub partition_index: i32,
    pub size_bytes: i64,
    /// The number of records by which the log end is behind the high watermark; for a future log, behind the current
    /// log.
    pub offset_lag: i64,
    pub is_future: bool,
}

impl DescribeLogDirsResponse {
    /// Encodes the response body.
    pub fn encode(&self, version: i16) -> Bytes {
        let partitions: usize =
            self.results.iter().flat_map(|result| &result.topics).map(|topic| 32 + topic.partitions.len() * 24).sum();
        let mut writer = Writer::new(version >= FIRST_FLEXIBLE, 64 + self.results.len() * 64 + partitions);
        writer.i32(self.throttle_time_ms);
        if version >= 3 {
            writer.i16(self.error_code);
        }
        writer.array(&self.results, |w, result| result.encode(version, w));
        writer.no_tags();
        writer.into_bytes()
    }

    /// Encodes the response body as the parts that the connection sends.
    pub fn into_parts(self, version: i16) -> Vec<Part> {
        vec![Part::Bytes(self.encode(version))]
    }
}

impl DescribeLogDirsResult {
    fn encode(&self, version: i16, w: &mut Writer) {
        w.i16(self.error_code);
        w.string(&self.log_dir);
        w.array(&self.topics, |w, topic| {
            w.string(&topic.name);
            w.array(&topic.partitions, |w, partition| {
                w.i32(partition.partition_index);
                w.i64(partition.size_bytes);
                w.i64(partition.offset_lag);
                w.bool(partition.is_future);
                w.no_tags();
            });
            w.no_tags();
        });
        if version >= 4 {
            w.i64(self.total_bytes);
            w.i64(self.usable_bytes);
        }
        if version >= 5 {
            w.bool(self.is_cordoned);
        }
        w.no_tags();
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{self, TopicName, describe_log_dirs_request, describe_log_dirs_response};
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::protocol::testing::{oracle_encode, text, unhex};

    fn response() -> impl Strategy<Value = DescribeLogDirsResponse> {
        let partition =
            any::<(i32, i64, i64, bool)>().prop_map(|(partition_index, size_bytes, offset_lag, is_future)| {
                DescribeLogDirsPartition { partition_index, size_bytes, offset_lag, is_future }
            });
        let topic =
            (text(), vec(partition, 0..4)).prop_map(|(name, partitions)| DescribeLogDirsTopic { name, partitions });
        let result = (any::<(i16, i64, i64)>(), "[a-z/]{0,20}", vec(topic, 0..4)).prop_map(
            |((error_code, total_bytes, usable_bytes), log_dir, topics)| DescribeLogDirsResult {
                error_code,
                log_dir,
                topics,
                total_bytes,
                usable_bytes,
                is_cordoned: false,
            },
        );
        (any::<(i32, i16)>(), vec(result, 0..3)).prop_map(|((throttle_time_ms, error_code), results)| {
            DescribeLogDirsResponse { throttle_time_ms, error_code, results }
        })
    }

    proptest! {
        #[test]
        fn requests_decode_as_the_oracle_wrote_them(topics in option::of(vec((text(), vec(any::<i32>(), 0..4)), 0..4)), version in 1..=4_i16) {
            let oracle = messages::DescribeLogDirsRequest::default().with_topics(topics.as_ref().map(|topics| topics.iter().map(|(topic, partitions)| {
                describe_log_dirs_request::DescribableLogDirTopic::default()
                    .with_topic(TopicName(topic.clone()))
                    .with_partitions(partitions.clone())
            }).collect()));
            let topics = topics.map(|topics| topics.into_iter().map(|(topic, partitions)| DescribableLogDirTopic { topic, partitions }).collect());
            let bytes = oracle_encode(&oracle, version);
            prop_assert_eq!(DescribeLogDirsRequest::decode(version, bytes.clone()).unwrap(), DescribeLogDirsRequest { topics });
            for cut in 0..bytes.len() {
                prop_assert!(DescribeLogDirsRequest::decode(version, bytes.slice(..cut)).is_err());
            }
        }

        #[test]
        fn responses_are_byte_for_byte_what_the_oracle_writes(response in response(), version in 1..=4_i16) {
            let oracle = messages::DescribeLogDirsResponse::default()
                .with_throttle_time_ms(response.throttle_time_ms)
                .with_error_code(response.error_code)
                .with_results(response.results.iter().map(|result| {
                    describe_log_dirs_response::DescribeLogDirsResult::default()
                        .with_error_code(result.error_code)
                        .with_log_dir(StrBytes::from_string(result.log_dir.clone()))
                        .with_total_bytes(result.total_bytes)
                        .with_usable_bytes(result.usable_bytes)
                        .with_topics(result.topics.iter().map(|topic| {
                            describe_log_dirs_response::DescribeLogDirsTopic::default()
                                .with_name(TopicName(topic.name.clone()))
                                .with_partitions(topic.partitions.iter().map(|p| {
                                    describe_log_dirs_response::DescribeLogDirsPartition::default()
                                        .with_partition_index(p.partition_index)
                                        .with_partition_size(p.size_bytes)
                                        .with_offset_lag(p.offset_lag)
                                        .with_is_future_key(p.is_future)
                                }).collect())
                        }).collect())
                }).collect());
            prop_assert_eq!(response.encode(version), oracle_encode(&oracle, version));
        }
    }

    #[test]
    fn version_5_is_as_kafka_4_3_1_writes_it() {
        let request = DescribeLogDirsRequest::decode(5, unhex("0202740300000001000000020000"));
        let topics =
            Some(vec![DescribableLogDirTopic { topic: StrBytes::from_static_str("t"), partitions: vec![1, 2] }]);
        assert_eq!(request, Ok(DescribeLogDirsRequest { topics }));
        let response = DescribeLogDirsResponse {
            throttle_time_ms: 9,
            error_code: 31,
            results: vec![DescribeLogDirsResult {
                error_code: 56,
                log_dir: "/d".into(),
                topics: vec![DescribeLogDirsTopic {
                    name: StrBytes::from_static_str("t"),
                    partitions: vec![DescribeLogDirsPartition {
                        partition_index: 3,
                        size_bytes: 1000,
                        offset_lag: 4,
                        is_future: true,
                    }],
                }],
                total_bytes: 100,
                usable_bytes: 50,
                is_cordoned: true,
            }],
        };
        assert_eq!(
            response.encode(5),
            unhex(
                "00000009001f020038032f64020274020000000300000000000003e8000000000000000401000000000000000000640000000000000032010000"
            )
        );
    }
}
