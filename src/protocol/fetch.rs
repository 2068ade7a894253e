//! Fetch (key 1), versions 4–18. The response is a list of parts: slices of one buffer with the small fields, and
//! between them the records in memory or on disk, which are never copied.
//!
//! Leaves the reads to `replica/partition.rs`, and sessions, waiting and responses to `api/fetch.rs`.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

pub use super::produce::{LeaderIdAndEpoch, NodeEndpoint};
use super::{
    part::Part,
    wire::{DecodeError, Reader, Writer},
};
use crate::{
    env::File,
    types::{BrokerId, LeaderEpoch, Offset, ProducerId, TopicId},
};

const FIRST_FLEXIBLE: i16 = 12;
/// From this version on, topics have ids instead of names (KIP-516).
const FIRST_WITH_TOPIC_IDS: i16 = 13;

/// The request of a consumer or a follower. A field that a version does not have gets Kafka's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// Version 12.
    pub cluster_id: Option<StrBytes>,
    /// -1 for consumers. From version 15 on it is in the tagged field ReplicaState.
    pub replica_id: BrokerId,
    /// Version 15; -1 if unknown.
    pub replica_epoch: i64,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    /// 0 read uncommitted, 1 read committed.
    pub isolation_level: i8,
    /// Version 7 (KIP-227). Session id 0 with epoch -1 means a request without a session.
    pub session_id: i32,
    pub session_epoch: i32,
    pub topics: Vec<FetchTopic>,
    pub forgotten_topics: Vec<ForgottenTopic>,
    /// Version 11 (KIP-392); empty if unknown.
    pub rack_id: StrBytes,
}

impl Default for FetchRequest {
    fn default() -> Self {
        Self {
            cluster_id: None,
            replica_id: -1,
            replica_epoch: -1,
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: i32::MAX,
            isolation_level: 0,
            session_id: 0,
            session_epoch: -1,
            topics: Vec::new(),
            forgotten_topics: Vec::new(),
            rack_id: StrBytes::new(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchTopic {
    /// Empty from version 13 on.
    pub name: StrBytes,
    /// Zero before version 13.
    pub topic_id: TopicId,
    pub partitions: Vec<FetchPartition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPartition {
    pub partition: i32,
    /// Version 9 (KIP-320); -1 means no check.
    pub current_leader_epoch: LeaderEpoch,
    pub fetch_offset: Offset,
    /// Version 12; -1 if the sender has no records yet or does not send it.
    pub last_fetched_epoch: LeaderEpoch,
    /// The log start offset of the follower (version 5); -1 from consumers.
    pub log_start_offset: Offset,
    pub partition_max_bytes: i32,
    /// The log directory of the follower (version 17); zero if unknown.
    pub replica_directory_id: Uuid,
    /// The high watermark that the follower knows (version 18); `i64::MAX` if not sent.
    pub high_watermark: Offset,
}

impl Default for FetchPartition {
    fn default() -> Self {
        Self {
            partition: 0,
            current_leader_epoch: -1,
            fetch_offset: 0,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: 0,
            replica_directory_id: Uuid::nil(),
            high_watermark: i64::MAX,
        }
    }
}

/// Partitions to remove from an incremental fetch session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForgottenTopic {
    pub name: StrBytes,
    pub topic_id: TopicId,
    pub partitions: Vec<i32>,
}

impl FetchRequest {
    /// Decodes a request's body.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a valid request. The memory used is proportional to their number.
    pub fn decode(version: i16, body: Bytes) -> Result<Self, DecodeError> {
        if !(4..=18).contains(&version) {
            return Err(DecodeError::Version(version));
        }
        let mut reader = Reader::new(body, version >= FIRST_FLEXIBLE);
        let r = &mut reader;
        let mut request = Self {
            replica_id: if version <= 14 { r.i32()? } else { -1 },
            max_wait_ms: r.i32()?,
            min_bytes: r.i32()?,
            max_bytes: r.i32()?,
            isolation_level: r.i8()?,
            session_id: if version >= 7 { r.i32()? } else { 0 },
            session_epoch: if version >= 7 { r.i32()? } else { -1 },
            topics: r.array(2, |r| FetchTopic::decode(version, r))?,
            forgotten_topics: if version >= 7 {
                r.array(2, |r| ForgottenTopic::decode(version, r))?
            } else {
                Vec::new()
            },
            rack_id: if version >= 11 { r.string()? } else { StrBytes::new() },
            cluster_id: None,
            replica_epoch: -1,
        };
        reader.tags(|tag, r| {
            match tag {
                0 => request.cluster_id = r.nullable_string()?,
                1 if version >= 15 => {
                    request.replica_id = r.i32()?;
                    request.replica_epoch = r.i64()?;
                    r.skip_tags()?;
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(request)
    }

    /// Encodes a request's body, as a follower sends it.
    pub fn encode(&self, version: i16) -> Bytes {
        let partitions: usize = self.topics.iter().map(|topic| topic.partitions.len()).sum();
        let mut writer = Writer::new(version >= FIRST_FLEXIBLE, 128 + self.topics.len() * 32 + partitions * 48);
        let w = &mut writer;
        if version <= 14 {
            w.i32(self.replica_id);
        }
        w.i32(self.max_wait_ms);
        w.i32(self.min_bytes);
        w.i32(self.max_bytes);
        w.i8(self.isolation_level);
        if version >= 7 {
            w.i32(self.session_id);
            w.i32(self.session_epoch);
        }
        w.array(&self.topics, |w, topic| topic.encode(version, w));
        if version >= 7 {
            w.array(&self.forgotten_topics, |w, topic| {
                put_topic(version, w, &topic.name, topic.topic_id);
                w.array(&topic.partitions, |w, partition| w.i32(*partition));
                w.no_tags();
            });
        }
        if version >= 11 {
            w.string(&self.rack_id);
        }
        let has_state = version >= 15 && (self.replica_id, self.replica_epoch) != (-1, -1);
        if version >= FIRST_FLEXIBLE {
            w.tag_count(usize::from(self.cluster_id.is_some()) + usize::from(has_state));
            if let Some(cluster_id) = &self.cluster_id {
                w.tag(0, |w| w.string(cluster_id));
            }
            if has_state {
                w.tag(1, |w| {
                    w.i32(self.replica_id);
                    w.i64(self.replica_epoch);
                    w.no_tags();
                });
            }
        }
        writer.into_bytes()
    }
}

fn topic_name(version: i16, reader: &mut Reader) -> Result<(StrBytes, TopicId), DecodeError> {
    if version >= FIRST_WITH_TOPIC_IDS {
        Ok((StrBytes::new(), reader.topic_id()?))
    } else {
        Ok((reader.string()?, TopicId::ZERO))
    }
}

fn put_topic(version: i16, writer: &mut Writer, name: &str, topic_id: TopicId) {
    if version >= FIRST_WITH_TOPIC_IDS {
        writer.topic_id(topic_id);
    } else {
        writer.string(name);
    }
}

impl FetchTopic {
    fn decode(version: i16, reader: &mut Reader) -> Result<Self, DecodeError> {
        let (name, topic_id) = topic_name(version, reader)?;
        let partitions = reader.array(16, |r| FetchPartition::decode(version, r))?;
        reader.skip_tags()?;
        Ok(Self { name, topic_id, partitions })
    }

    fn encode(&self, version: i16, writer: &mut Writer) {
        put_topic(version, writer, &self.name, self.topic_id);
        writer.array(&self.partitions, |w, partition| partition.encode(version, w));
        writer.no_tags();
    }
}

impl FetchPartition {
    fn decode(version: i16, reader: &mut Reader) -> Result<Self, DecodeError> {
        let r = reader;
        let mut partition = Self {
            partition: r.i32()?,
            current_leader_epoch: if version >= 9 { r.i32()? } else { -1 },
            fetch_offset: r.i64()?,
            last_fetched_epoch: if version >= 12 { r.i32()? } else { -1 },
            log_start_offset: if version >= 5 { r.i64()? } else { -1 },
            partition_max_bytes: r.i32()?,
            ..Self::default()
        };
        r.tags(|tag, r| {
            match tag {
                0 if version >= 17 => partition.replica_directory_id = r.uuid()?,
                1 if version >= 18 => partition.high_watermark = r.i64()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(partition)
    }

    fn encode(&self, version: i16, writer: &mut Writer) {
        let w = writer;
        w.i32(self.partition);
        if version >= 9 {
            w.i32(self.current_leader_epoch);
        }
        w.i64(self.fetch_offset);
        if version >= 12 {
            w.i32(self.last_fetched_epoch);
        }
        if version >= 5 {
            w.i64(self.log_start_offset);
        }
        w.i32(self.partition_max_bytes);
        if version >= FIRST_FLEXIBLE {
            let has_directory = version >= 17 && !self.replica_directory_id.is_nil();
            let has_watermark = version >= 18 && self.high_watermark != i64::MAX;
            w.tag_count(usize::from(has_directory) + usize::from(has_watermark));
            if has_directory {
                w.tag(0, |w| w.topic_id(TopicId(self.replica_directory_id)));
            }
            if has_watermark {
                w.tag(1, |w| w.i64(self.high_watermark));
            }
        }
    }
}

impl ForgottenTopic {
    fn decode(version: i16, reader: &mut Reader) -> Result<Self, DecodeError> {
        let (name, topic_id) = topic_name(version, reader)?;
        let partitions = reader.array(4, Reader::i32)?;
        reader.skip_tags()?;
        Ok(Self { name, topic_id, partitions })
    }
}

/// The response in all versions. Fields that a version does not have are not written.
#[derive(Debug, Default)]
pub struct FetchResponse {
    pub throttle_time_ms: i32,
    /// The error of the fetch session (version 7).
    pub error_code: i16,
    pub session_id: i32,
    pub topics: Vec<FetchableTopicResponse>,
    /// The endpoints of the leaders in `current_leader` (version 16, KIP-951).
    pub node_endpoints: Vec<NodeEndpoint>,
}

#[derive(Debug, Default)]
pub struct FetchableTopicResponse {
    /// The name from the request, below version 13.
    pub name: StrBytes,
    /// The id from the request, from version 13 on.
    pub topic_id: TopicId,
    pub partitions: Vec<PartitionData>,
}

#[derive(Debug)]
pub struct PartitionData {
    pub partition_index: i32,
    pub error_code: i16,
    /// -1 in case of an error.
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    pub log_start_offset: Offset,
    /// The end of the last epoch that the follower's log shares with the leader's (version 12).
    pub diverging_epoch: Option<EpochEndOffset>,
    /// The current leader, for leadership errors. The field exists from version 12; consumers get it from version 16 on
    /// (KIP-951).
    pub current_leader: Option<LeaderIdAndEpoch>,
    /// The snapshot to fetch instead, for an observer of the metadata log (version 12, KIP-595).
    pub snapshot_id: Option<FetchSnapshotId>,
    /// `None` with isolation level read uncommitted.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// Version 11 (KIP-392); -1 for none.
    pub preferred_read_replica: BrokerId,
    /// Kafka sends empty records, not null.
    pub records: FetchedRecords,
}

impl PartitionData {
    /// A response with this error; all other fields are unknown.
    pub fn error(partition_index: i32, error_code: i16) -> Self {
        Self {
            partition_index,
            error_code,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: None,
            current_leader: None,
            snapshot_id: None,
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: FetchedRecords::Empty,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEndOffset {
    pub epoch: LeaderEpoch,
    pub end_offset: Offset,
}

/// A snapshot of the metadata log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchSnapshotId {
    pub end_offset: Offset,
    pub epoch: LeaderEpoch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: ProducerId,
    pub first_offset: Offset,
}

/// Record batches in memory or in a segment file.
#[derive(Clone, Default)]
pub enum FetchedRecords {
    #[default]
    Empty,
    /// Batches in order.
    Memory(Vec<Bytes>),
    /// A range of a segment file.
    File { file: Arc<dyn File>, position: u64, length: usize },
}

impl std::fmt::Debug for FetchedRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Memory(pieces) => write!(f, "Memory({} bytes)", pieces.iter().map(Bytes::len).sum::<usize>()),
            Self::File { position, length, .. } => write!(f, "File({position}+{length})"),
        }
    }
}

impl FetchedRecords {
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Memory(pieces) => pieces.iter().map(Bytes::len).sum(),
            Self::File { length, .. } => *length,
        }
    }
}

impl FetchResponse {
    /// Decodes a response's body, as a follower gets it. The records are slices of it.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a valid response. The memory used is proportional to their number.
    pub fn decode(version: i16, body: Bytes) -> Result<Self, DecodeError> {
        if !(FIRST_WITH_TOPIC_IDS..=18).contains(&version) {
            return Err(DecodeError::Version(version));
        }
        let mut reader = Reader::new(body, true);
        let r = &mut reader;
        let mut response = Self {
            throttle_time_ms: r.i32()?,
            error_code: r.i16()?,
            session_id: r.i32()?,
            topics: r.array(2, |r| {
                let (name, topic_id) = topic_name(version, r)?;
                let partitions = r.array(32, PartitionData::decode)?;
                r.skip_tags()?;
                Ok(FetchableTopicResponse { name, topic_id, partitions })
            })?,
            node_endpoints: Vec::new(),
        };
        reader.tags(|tag, r| {
            if tag == 0 && version >= 16 {
                response.node_endpoints = r.array(8, NodeEndpoint::decode)?;
            }
            Ok(tag == 0 && version >= 16)
        })?;
        Ok(response)
    }

    /// Encodes the response body as parts, in the order of the wire. Their total size is known before the first part is
    /// sent.
    pub fn into_parts(self, version: i16) -> Vec<Part> {
        let partitions: usize = self.topics.iter().map(|topic| topic.partitions.len()).sum();
        let mut writer = Writer::new(version >= FIRST_FLEXIBLE, 64 + self.topics.len() * 48 + partitions * 72);
        let w = &mut writer;
        w.i32(self.throttle_time_ms);
        if version >= 7 {
            w.i16(self.error_code);
            w.i32(self.session_id);
        }
        w.length(self.topics.len());
        for topic in self.topics {
            put_topic(version, w, &topic.name, topic.topic_id);
            w.length(topic.partitions.len());
            for partition in topic.partitions {
                partition.put(version, w);
            }
            w.no_tags();
        }
        if version >= 16 && !self.node_endpoints.is_empty() {
            w.tag_count(1);
            w.tag(0, |w| w.array(&self.node_endpoints, NodeEndpoint::encode));
        } else {
            w.no_tags();
        }
        writer.into_parts()
    }
}

impl PartitionData {
    fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let mut data = Self {
            partition_index: r.i32()?,
            error_code: r.i16()?,
            high_watermark: r.i64()?,
            last_stable_offset: r.i64()?,
            log_start_offset: r.i64()?,
            aborted_transactions: r.nullable_array(17, |r| {
                let aborted = AbortedTransaction { producer_id: r.i64()?, first_offset: r.i64()? };
                r.skip_tags()?;
                Ok(aborted)
            })?,
            preferred_read_replica: r.i32()?,
            records: match r.nullable_bytes()? {
                Some(records) if !records.is_empty() => FetchedRecords::Memory(vec![records]),
                _ => FetchedRecords::Empty,
            },
            diverging_epoch: None,
            current_leader: None,
            snapshot_id: None,
        };
        r.tags(|tag, r| {
            match tag {
                0 => {
                    data.diverging_epoch = Some(EpochEndOffset { epoch: r.i32()?, end_offset: r.i64()? });
                    r.skip_tags()?;
                }
                1 => data.current_leader = Some(LeaderIdAndEpoch::decode(r)?),
                2 => {
                    data.snapshot_id = Some(FetchSnapshotId { end_offset: r.i64()?, epoch: r.i32()? });
                    r.skip_tags()?;
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(data)
    }

    fn put(self, version: i16, w: &mut Writer) {
        w.i32(self.partition_index);
        w.i16(self.error_code);
        w.i64(self.high_watermark);
        w.i64(self.last_stable_offset);
        if version >= 5 {
            w.i64(self.log_start_offset);
        }
        w.nullable_array(self.aborted_transactions.as_deref(), |w, aborted| {
            w.i64(aborted.producer_id);
            w.i64(aborted.first_offset);
            w.no_tags();
        });
        if version >= 11 {
            w.i32(self.preferred_read_replica);
        }
        w.length(self.records.size_bytes());
        match self.records {
            FetchedRecords::Empty => {}
            FetchedRecords::Memory(pieces) => pieces.into_iter().for_each(|piece| w.piece(Part::Bytes(piece))),
            FetchedRecords::File { file, position, length } => w.piece(Part::File { file, position, length }),
        }
        if version >= FIRST_FLEXIBLE {
            let tags = [self.diverging_epoch.is_some(), self.current_leader.is_some(), self.snapshot_id.is_some()];
            w.tag_count(tags.into_iter().filter(|is_some| *is_some).count());
            if let Some(diverging) = self.diverging_epoch {
                w.tag(0, |w| {
                    w.i32(diverging.epoch);
                    w.i64(diverging.end_offset);
                    w.no_tags();
                });
            }
            if let Some(leader) = self.current_leader {
                w.tag(1, |w| leader.encode(w));
            }
            if let Some(id) = self.snapshot_id {
                w.tag(2, |w| {
                    w.i64(id.end_offset);
                    w.i32(id.epoch);
                    w.no_tags();
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::{
        messages::{self, TopicName, fetch_request, fetch_response},
        protocol::Decodable,
    };
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::protocol::testing::{oracle_encode, text, topic_id};

    fn request() -> impl Strategy<Value = FetchRequest> {
        let partition = (any::<(i32, i32, i64, i32, i64, i32)>(), topic_id(), any::<i64>()).prop_map(
            |(
                (
                    partition,
                    current_leader_epoch,
                    fetch_offset,
                    last_fetched_epoch,
                    log_start_offset,
                    partition_max_bytes,
                ),
                directory,
                high_watermark,
            )| FetchPartition {
                partition,
                current_leader_epoch,
                fetch_offset,
                last_fetched_epoch,
                log_start_offset,
                partition_max_bytes,
                replica_directory_id: directory.0,
                high_watermark,
            },
        );
        let topic = (text(), topic_id(), vec(partition, 0..4)).prop_map(|(name, topic_id, partitions)| FetchTopic {
            name,
            topic_id,
            partitions,
        });
        let forgotten = (text(), topic_id(), vec(any::<i32>(), 0..4))
            .prop_map(|(name, topic_id, partitions)| ForgottenTopic { name, topic_id, partitions });
        (
            option::of(text()),
            any::<(i32, i64, i32, i32, i32, i8, i32, i32)>(),
            vec(topic, 0..3),
            vec(forgotten, 0..3),
            text(),
        )
            .prop_map(
                |(
                    cluster_id,
                    (
                        replica_id,
                        replica_epoch,
                        max_wait_ms,
                        min_bytes,
                        max_bytes,
                        isolation_level,
                        session_id,
                        session_epoch,
                    ),
                    topics,
                    forgotten_topics,
                    rack_id,
                )| FetchRequest {
                    cluster_id,
                    replica_id,
                    replica_epoch,
                    max_wait_ms,
                    min_bytes,
                    max_bytes,
                    isolation_level,
                    session_id,
                    session_epoch,
                    topics,
                    forgotten_topics,
                    rack_id,
                },
            )
    }

    /// The request without the fields that a version does not have.
    fn at_version(mut request: FetchRequest, version: i16) -> FetchRequest {
        let name = |name: &mut StrBytes, id: &mut TopicId| {
            if version >= 13 { *name = StrBytes::new() } else { *id = TopicId::ZERO }
        };
        if version < 12 {
            request.cluster_id = None
        }
        if version < 15 {
            request.replica_epoch = -1
        }
        if version < 7 {
            (request.session_id, request.session_epoch) = (0, -1);
            request.forgotten_topics.clear();
        }
        if version < 11 {
            request.rack_id = StrBytes::new()
        }
        for topic in &mut request.topics {
            name(&mut topic.name, &mut topic.topic_id);
            for partition in &mut topic.partitions {
                if version < 9 {
                    partition.current_leader_epoch = -1
                }
                if version < 12 {
                    partition.last_fetched_epoch = -1
                }
                if version < 5 {
                    partition.log_start_offset = -1
                }
                if version < 17 {
                    partition.replica_directory_id = Uuid::nil()
                }
                if version < 18 {
                    partition.high_watermark = i64::MAX
                }
            }
        }
        request.forgotten_topics.iter_mut().for_each(|topic| name(&mut topic.name, &mut topic.topic_id));
        request
    }

    fn to_oracle(request: &FetchRequest, version: i16) -> messages::FetchRequest {
        let mut oracle = messages::FetchRequest::default()
            .with_cluster_id(request.cluster_id.clone())
            .with_max_wait_ms(request.max_wait_ms)
            .with_min_bytes(request.min_bytes)
            .with_max_bytes(request.max_bytes)
            .with_isolation_level(request.isolation_level)
            .with_session_id(request.session_id)
            .with_session_epoch(request.session_epoch)
            .with_rack_id(request.rack_id.clone())
            .with_topics(
                request
                    .topics
                    .iter()
                    .map(|topic| {
                        fetch_request::FetchTopic::default()
                            .with_topic(TopicName(topic.name.clone()))
                            .with_topic_id(topic.topic_id.0)
                            .with_partitions(
                                topic
                                    .partitions
                                    .iter()
                                    .map(|partition| {
                                        fetch_request::FetchPartition::default()
                                            .with_partition(partition.partition)
                                            .with_current_leader_epoch(partition.current_leader_epoch)
                                            .with_fetch_offset(partition.fetch_offset)
                                            .with_last_fetched_epoch(partition.last_fetched_epoch)
                                            .with_log_start_offset(partition.log_start_offset)
                                            .with_partition_max_bytes(partition.partition_max_bytes)
                                            .with_replica_directory_id(partition.replica_directory_id)
                                            .with_high_watermark(partition.high_watermark)
                                    })
                                    .collect(),
                            )
                    })
                    .collect(),
            )
            .with_forgotten_topics_data(
                request
                    .forgotten_topics
                    .iter()
                    .map(|topic| {
                        fetch_request::ForgottenTopic::default()
                            .with_topic(TopicName(topic.name.clone()))
                            .with_topic_id(topic.topic_id.0)
                            .with_partitions(topic.partitions.clone())
                    })
                    .collect(),
            );
        if version >= 15 {
            oracle.replica_state = fetch_request::ReplicaState::default()
                .with_replica_id(request.replica_id.into())
                .with_replica_epoch(request.replica_epoch);
        } else {
            oracle.replica_id = request.replica_id.into();
        }
        oracle
    }

    fn response() -> impl Strategy<Value = FetchResponse> {
        let leader = any::<(i32, i32)>()
            .prop_filter("Kafka does not write the default", |leader| *leader != (-1, -1))
            .prop_map(|(leader_id, leader_epoch)| LeaderIdAndEpoch { leader_id, leader_epoch });
        let diverging = any::<(i32, i64)>()
            .prop_filter("Kafka does not write the default", |epoch| *epoch != (-1, -1))
            .prop_map(|(epoch, end_offset)| EpochEndOffset { epoch, end_offset });
        let snapshot = any::<(i64, i32)>()
            .prop_filter("Kafka does not write the default", |id| *id != (-1, -1))
            .prop_map(|(end_offset, epoch)| FetchSnapshotId { end_offset, epoch });
        let aborted = any::<(i64, i64)>()
            .prop_map(|(producer_id, first_offset)| AbortedTransaction { producer_id, first_offset });
        let records = vec(vec(any::<u8>(), 0..150).prop_map(Bytes::from), 0..4)
            .prop_map(|pieces| if pieces.is_empty() { FetchedRecords::Empty } else { FetchedRecords::Memory(pieces) });
        let partition = (
            any::<(i32, i16, i64, i64, i64, i32)>(),
            option::of(diverging),
            option::of(leader),
            option::of(snapshot),
            option::of(vec(aborted, 0..3)),
            records,
        )
            .prop_map(
                |(
                    (
                        partition_index,
                        error_code,
                        high_watermark,
                        last_stable_offset,
                        log_start_offset,
                        preferred_read_replica,
                    ),
                    diverging_epoch,
                    current_leader,
                    snapshot_id,
                    aborted_transactions,
                    records,
                )| PartitionData {
                    partition_index,
                    error_code,
                    high_watermark,
                    last_stable_offset,
                    log_start_offset,
                    preferred_read_replica,
                    diverging_epoch,
                    current_leader,
                    snapshot_id,
                    aborted_transactions,
                    records,
                },
            );
        let topic = (text(), topic_id(), vec(partition, 0..4))
            .prop_map(|(name, topic_id, partitions)| FetchableTopicResponse { name, topic_id, partitions });
        let endpoint = (any::<i32>(), "[a-z]{0,9}", any::<i32>(), option::of("[a-z]{0,9}"))
            .prop_map(|(node_id, host, port, rack)| NodeEndpoint { node_id, host, port, rack });
        (any::<(i32, i16, i32)>(), vec(topic, 0..4), vec(endpoint, 0..3)).prop_map(
            |((throttle_time_ms, error_code, session_id), topics, node_endpoints)| FetchResponse {
                throttle_time_ms,
                error_code,
                session_id,
                topics,
                node_endpoints,
            },
        )
    }

    fn response_to_oracle(response: &FetchResponse, version: i16) -> messages::FetchResponse {
        let text = |s: &String| StrBytes::from_string(s.clone());
        let mut oracle = messages::FetchResponse::default()
            .with_throttle_time_ms(response.throttle_time_ms)
            .with_error_code(response.error_code)
            .with_session_id(if version >= 7 { response.session_id } else { 0 })
            .with_responses(
                response
                    .topics
                    .iter()
                    .map(|topic| {
                        fetch_response::FetchableTopicResponse::default()
                            .with_topic(TopicName(topic.name.clone()))
                            .with_topic_id(topic.topic_id.0)
                            .with_partitions(
                                topic
                                    .partitions
                                    .iter()
                                    .map(|partition| {
                                        let mut oracle = fetch_response::PartitionData::default()
                                            .with_partition_index(partition.partition_index)
                                            .with_error_code(partition.error_code)
                                            .with_high_watermark(partition.high_watermark)
                                            .with_last_stable_offset(partition.last_stable_offset)
                                            .with_log_start_offset(partition.log_start_offset)
                                            .with_aborted_transactions(partition.aborted_transactions.as_ref().map(
                                                |aborted| {
                                                    aborted
                                                        .iter()
                                                        .map(|aborted| {
                                                            fetch_response::AbortedTransaction::default()
                                                                .with_producer_id(aborted.producer_id.into())
                                                                .with_first_offset(aborted.first_offset)
                                                        })
                                                        .collect()
                                                },
                                            ))
                                            .with_preferred_read_replica(
                                                if version >= 11 { partition.preferred_read_replica } else { -1 }
                                                    .into(),
                                            )
                                            .with_records(Some(match &partition.records {
                                                FetchedRecords::Memory(pieces) => pieces.concat().into(),
                                                _ => Bytes::new(),
                                            }));
                                        if version >= 12 {
                                            if let Some(epoch) = partition.diverging_epoch {
                                                oracle.diverging_epoch = fetch_response::EpochEndOffset::default()
                                                    .with_epoch(epoch.epoch)
                                                    .with_end_offset(epoch.end_offset);
                                            }
                                            if let Some(leader) = partition.current_leader {
                                                oracle.current_leader = fetch_response::LeaderIdAndEpoch::default()
                                                    .with_leader_id(leader.leader_id.into())
                                                    .with_leader_epoch(leader.leader_epoch);
                                            }
                                            if let Some(id) = partition.snapshot_id {
                                                oracle.snapshot_id = fetch_response::SnapshotId::default()
                                                    .with_end_offset(id.end_offset)
                                                    .with_epoch(id.epoch);
                                            }
                                        }
                                        oracle
                                    })
                                    .collect(),
                            )
                    })
                    .collect(),
            );
        if version >= 16 {
            oracle.node_endpoints = response
                .node_endpoints
                .iter()
                .map(|endpoint| {
                    fetch_response::NodeEndpoint::default()
                        .with_node_id(endpoint.node_id.into())
                        .with_host(text(&endpoint.host))
                        .with_port(endpoint.port)
                        .with_rack(endpoint.rack.as_ref().map(text))
                })
                .collect();
        }
        oracle
    }

    fn joined(parts: Vec<Part>) -> Bytes {
        let mut bytes = BytesMut::new();
        for part in parts {
            match part {
                Part::Bytes(part) => bytes.extend_from_slice(&part),
                Part::File { file, position, length } => {
                    let mut part = vec![0; length];
                    assert_eq!(file.read_at(&mut part, position).unwrap(), length);
                    bytes.extend_from_slice(&part);
                }
            }
        }
        bytes.freeze()
    }

    /// Each of these partitions has a tagged field, and there are more of them than a message may have unknown ones.
    #[test]
    fn a_follower_may_have_very_many_partitions() {
        const MANY: i32 = 20_000;
        let partition = |partition| FetchPartition { partition, high_watermark: 7, ..FetchPartition::default() };
        let topic_id = TopicId(Uuid::from_u128(1));
        let topics =
            vec![FetchTopic { topic_id, partitions: (0..MANY).map(partition).collect(), ..FetchTopic::default() }];
        let request = FetchRequest { topics, ..FetchRequest::default() };
        assert_eq!(FetchRequest::decode(18, request.encode(18)).unwrap().topics, request.topics);
        let current_leader = Some(LeaderIdAndEpoch { leader_id: 2, leader_epoch: 3 });
        let refused = |index| PartitionData { current_leader, ..PartitionData::error(index, 6) };
        let partitions = (0..MANY).map(refused).collect();
        let topics = vec![FetchableTopicResponse { name: StrBytes::new(), topic_id, partitions }];
        let response = FetchResponse { topics, ..FetchResponse::default() };
        let body = oracle_encode(&response_to_oracle(&response, 18), 18);
        assert_eq!(FetchResponse::decode(18, body).unwrap().topics[0].partitions.len(), MANY as usize);
    }

    proptest! {
        #[test]
        fn requests_go_both_ways_as_the_oracle_writes_them(request in request(), version in 4..=18_i16) {
            let request = at_version(request, version);
            let oracle = oracle_encode(&to_oracle(&request, version), version);
            prop_assert_eq!(&request.encode(version), &oracle);
            prop_assert_eq!(FetchRequest::decode(version, oracle).unwrap(), request);
        }

        #[test]
        fn responses_are_byte_for_byte_what_the_oracle_writes(response in response(), version in 4..=18_i16) {
            let oracle = oracle_encode(&response_to_oracle(&response, version), version);
            let parts = response.into_parts(version);
            prop_assert_eq!(parts.iter().map(Part::len).sum::<usize>(), oracle.len());
            let mut ours = joined(parts);
            prop_assert_eq!(&ours, &oracle);
            messages::FetchResponse::decode(&mut ours, version).unwrap();
            prop_assert!(ours.is_empty());
        }

        #[test]
        fn broken_requests_are_errors_and_never_panics(request in request(), version in 4..=18_i16, at in any::<prop::sample::Index>(), byte: u8) {
            let good = request.encode(version);
            prop_assert!(FetchRequest::decode(version, good.slice(..at.index(good.len()))).is_err());
            let mut bad = BytesMut::from(&good[..]);
            bad[at.index(good.len())] = byte;
            let _ = FetchRequest::decode(version, bad.freeze());
        }
    }

    #[test]
    fn records_in_memory_and_on_disk_are_parts_of_their_own() {
        use crate::env::{Disk, Open, SystemDisk};
        let directory = tempfile::tempdir().unwrap();
        let file = SystemDisk.open(&directory.path().join("0.log"), Open::Create).unwrap();
        file.write_all_at(b"0123456789", 0).unwrap();
        let in_memory = Bytes::from_static(b"cached batch");
        let mut partitions = vec![PartitionData::error(0, 0), PartitionData::error(1, 0), PartitionData::error(2, 3)];
        partitions[0].records = FetchedRecords::Memory(vec![in_memory.clone()]);
        partitions[1].records = FetchedRecords::File { file, position: 2, length: 5 };
        let response = FetchResponse {
            topics: vec![FetchableTopicResponse { partitions, ..Default::default() }],
            ..Default::default()
        };
        let parts = response.into_parts(12);
        assert!(parts.iter().any(|part| matches!(part, Part::Bytes(bytes) if bytes.as_ptr() == in_memory.as_ptr())));
        assert!(parts.iter().any(|part| matches!(part, Part::File { position: 2, length: 5, .. })));
        let decoded = messages::FetchResponse::decode(&mut joined(parts), 12).unwrap();
        let records: Vec<_> =
            decoded.responses[0].partitions.iter().map(|partition| partition.records.clone().unwrap()).collect();
        assert_eq!(records, [&b"cached batch"[..], b"23456", b""]);
    }

    #[test]
    fn versions_outside_4_to_18_are_refused() {
        for version in [-1, 3, 19] {
            assert_eq!(FetchRequest::decode(version, Bytes::new()), Err(DecodeError::Version(version)));
        }
    }
}
