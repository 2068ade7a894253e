//! The records of `__consumer_offsets` in Kafka's schemas. Kafka's tools can read Ottla's log, and Ottla can
//! read a log that Kafka has written.
//!
//! Writes OffsetCommit value v4 (v1 if the client set a retention) and GroupMetadata value v3, like Apache
//! Kafka 4.3. Reads OffsetCommit v0–4 with key types 0 and 1, and GroupMetadata v0–4. Records of other
//! types (KIP-848, KIP-932, KIP-1071) are reported as unknown, never as errors.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::codec::{CodecError, Reader, Writer};
use crate::types::{TimestampMs, TopicId};

const OFFSET_COMMIT_LEGACY: i16 = 0;
const OFFSET_COMMIT: i16 = 1;
const GROUP_METADATA: i16 = 2;

const OFFSET_COMMIT_VALUE_VERSION: i16 = 4;
/// Only version 1 has an expire timestamp.
const OFFSET_COMMIT_VALUE_VERSION_WITH_RETENTION: i16 = 1;
const GROUP_METADATA_VALUE_VERSION: i16 = 3;

/// One record; a `None` value is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    OffsetCommit { group_id: Arc<str>, topic: Arc<str>, partition: i32, value: Option<OffsetCommitValue> },
    GroupMetadata { group_id: Arc<str>, value: Option<GroupMetadataValue> },
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommitValue {
    pub offset: i64,
    /// -1 if unknown.
    pub leader_epoch: i32,
    pub metadata: Arc<str>,
    pub commit_timestamp_ms: TimestampMs,
    /// Set if the client requested a retention.
    pub expire_timestamp_ms: Option<TimestampMs>,
    pub topic_id: TopicId,
}

/// A classic group as of the moment when its generation became durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMetadataValue {
    /// Empty for a group without members that never had a type.
    pub protocol_type: Arc<str>,
    pub generation_id: i32,
    pub protocol_name: Option<Arc<str>>,
    pub leader: Option<Arc<str>>,
    /// When the group entered its state; -1 if unknown (versions 0 and 1).
    pub current_state_timestamp_ms: TimestampMs,
    pub members: Vec<MemberMetadata>,
}

/// A member of a durable generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberMetadata {
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

/// A decoded key and value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    Record(Record),
    /// The broker does not know the record type or value version. It skips the record, like Kafka.
    Unknown {
        record_type: i16,
    },
}

/// The reason why a record of a known type cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    #[error("a record of the group coordinator has no key")]
    MissingKey,
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl Record {
    /// Returns the encoded key.
    pub fn key(&self) -> Vec<u8> {
        match self {
            Record::OffsetCommit { group_id, topic, partition, .. } => {
                let mut key = Writer::new(OFFSET_COMMIT, false);
                key.string(group_id);
                key.string(topic);
                key.int32(*partition);
                key.finish()
            }
            Record::GroupMetadata { group_id, .. } => {
                let mut key = Writer::new(GROUP_METADATA, false);
                key.string(group_id);
                key.finish()
            }
        }
    }

    /// Returns the encoded value; `None` for a tombstone.
    pub fn value(&self) -> Option<Vec<u8>> {
        match self {
            Record::OffsetCommit { value, .. } => value.as_ref().map(OffsetCommitValue::encode),
            Record::GroupMetadata { value, .. } => value.as_ref().map(GroupMetadataValue::encode),
        }
    }

    /// Decodes a key and value from the log.
    pub fn decode(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Decoded, RecordError> {
        let mut key = Reader::new(key.ok_or(RecordError::MissingKey)?);
        let record_type = key.int16()?;
        let record = match record_type {
            OFFSET_COMMIT_LEGACY | OFFSET_COMMIT => {
                let (group_id, topic, partition) = (key.shared_string()?, key.shared_string()?, key.int32()?);
                let value = match value.map(OffsetCommitValue::decode).transpose()? {
                    Some(None) => return Ok(Decoded::Unknown { record_type }),
                    Some(value) => value,
                    None => None,
                };
                Record::OffsetCommit { group_id, topic, partition, value }
            }
            GROUP_METADATA => {
                let group_id = key.shared_string()?;
                let value = match value.map(GroupMetadataValue::decode).transpose()? {
                    Some(None) => return Ok(Decoded::Unknown { record_type }),
                    Some(value) => value,
                    None => None,
                };
                Record::GroupMetadata { group_id, value }
            }
            _ => return Ok(Decoded::Unknown { record_type }),
        };
        Ok(Decoded::Record(record))
    }
}

impl OffsetCommitValue {
    fn encode(&self) -> Vec<u8> {
        if let Some(expire_timestamp_ms) = self.expire_timestamp_ms {
            let mut value = Writer::new(OFFSET_COMMIT_VALUE_VERSION_WITH_RETENTION, false);
            value.int64(self.offset);
            value.string(&self.metadata);
            value.int64(self.commit_timestamp_ms);
            value.int64(expire_timestamp_ms);
            return value.finish();
        }
        let mut value = Writer::new(OFFSET_COMMIT_VALUE_VERSION, true);
        value.int64(self.offset);
        value.int32(self.leader_epoch);
        value.string(&self.metadata);
        value.int64(self.commit_timestamp_ms);
        value.single_tagged_field(0, (self.topic_id != TopicId::ZERO).then_some(self.topic_id));
        value.finish()
    }

    /// Returns `None` if the broker does not know the version.
    fn decode(bytes: &[u8]) -> Result<Option<Self>, CodecError> {
        let mut value = Reader::new(bytes);
        let version = value.int16()?;
        if !(0..=4).contains(&version) {
            return Ok(None);
        }
        value.set_flexible(version >= 4);
        let offset = value.int64()?;
        let leader_epoch = if version >= 3 { value.int32()? } else { -1 };
        let metadata = value.shared_string()?;
        let commit_timestamp_ms = value.int64()?;
        let expire_timestamp_ms = if version == 1 { Some(value.int64()?).filter(|at| *at != -1) } else { None };
        let mut topic_id = TopicId::ZERO;
        value.tagged_fields(|tag, field| {
            if tag == 0 {
                topic_id = field.uuid()?;
            }
            Ok(())
        })?;
        Ok(Some(OffsetCommitValue {
            offset,
            leader_epoch,
            metadata,
            commit_timestamp_ms,
            expire_timestamp_ms,
            topic_id,
        }))
    }
}

impl GroupMetadataValue {
    fn encode(&self) -> Vec<u8> {
        let mut value = Writer::new(GROUP_METADATA_VALUE_VERSION, false);
        value.string(&self.protocol_type);
        value.int32(self.generation_id);
        value.nullable_string(self.protocol_name.as_deref());
        value.nullable_string(self.leader.as_deref());
        value.int64(self.current_state_timestamp_ms);
        value.array_length(self.members.len());
        for member in &self.members {
            value.string(&member.member_id);
            value.nullable_string(member.group_instance_id.as_deref());
            value.string(&member.client_id);
            value.string(&member.client_host);
            value.int32(member.rebalance_timeout_ms);
            value.int32(member.session_timeout_ms);
            value.bytes(&member.subscription);
            value.bytes(&member.assignment);
        }
        value.finish()
    }

    /// Returns `None` if the broker does not know the version.
    fn decode(bytes: &[u8]) -> Result<Option<Self>, CodecError> {
        let mut value = Reader::new(bytes);
        let version = value.int16()?;
        if !(0..=4).contains(&version) {
            return Ok(None);
        }
        value.set_flexible(version >= 4);
        let protocol_type = value.shared_string()?;
        let generation_id = value.int32()?;
        let protocol_name = value.nullable_shared_string()?;
        let leader = value.nullable_shared_string()?;
        let current_state_timestamp_ms = if version >= 2 { value.int64()? } else { -1 };
        let count = value.array_length(10)?;
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            members.push(MemberMetadata::decode(&mut value, version)?);
        }
        value.tagged_fields(|_, _| Ok(()))?;
        Ok(Some(GroupMetadataValue {
            protocol_type,
            generation_id,
            protocol_name,
            leader,
            current_state_timestamp_ms,
            members,
        }))
    }

    /// An upper bound of the encoded size, used to check whether the record fits into a batch.
    pub(crate) fn size_bytes(&self) -> usize {
        let members: usize = self
            .members
            .iter()
            .map(|member| {
                member.member_id.len()
                    + member.group_instance_id.as_deref().map_or(0, str::len)
                    + member.client_id.len()
                    + member.client_host.len()
                    + member.subscription.len()
                    + member.assignment.len()
                    + 24
            })
            .sum();
        let strings = self.protocol_type.len()
            + self.protocol_name.as_deref().map_or(0, str::len)
            + self.leader.as_deref().map_or(0, str::len);
        24 + strings + members
    }
}

impl MemberMetadata {
    fn decode(value: &mut Reader<'_>, version: i16) -> Result<Self, CodecError> {
        let member_id = value.shared_string()?;
        let group_instance_id = if version >= 3 { value.nullable_shared_string()? } else { None };
        let client_id = value.shared_string()?;
        let client_host = value.shared_string()?;
        let rebalance_timeout_ms = if version >= 1 { value.int32()? } else { -1 };
        let session_timeout_ms = value.int32()?;
        let (subscription, assignment) = (value.bytes()?, value.bytes()?);
        value.tagged_fields(|_, _| Ok(()))?;
        Ok(MemberMetadata {
            member_id,
            group_instance_id,
            client_id,
            client_host,
            // Version 0 has no rebalance timeout, so the session timeout is used.
            rebalance_timeout_ms: if rebalance_timeout_ms == -1 { session_timeout_ms } else { rebalance_timeout_ms },
            session_timeout_ms,
            subscription,
            assignment,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    const OFFSET_KEY: &str = "000100016700017400000003";
    const LEGACY_OFFSET_KEY: &str = "000000016700017400000003";
    const GROUP_KEY: &str = "0002000167";

    fn offset_record(value: Option<OffsetCommitValue>) -> Record {
        Record::OffsetCommit { group_id: "g".into(), topic: "t".into(), partition: 3, value }
    }

    fn offset_value() -> OffsetCommitValue {
        OffsetCommitValue {
            offset: 5,
            leader_epoch: -1,
            metadata: "m".into(),
            commit_timestamp_ms: 1000,
            expire_timestamp_ms: None,
            topic_id: TopicId::ZERO,
        }
    }

    fn group_value() -> GroupMetadataValue {
        GroupMetadataValue {
            protocol_type: "consumer".into(),
            generation_id: 4,
            protocol_name: Some("range".into()),
            leader: Some("id".into()),
            current_state_timestamp_ms: 1000,
            members: vec![MemberMetadata {
                member_id: "id".into(),
                group_instance_id: Some("i".into()),
                client_id: "c".into(),
                client_host: "/h".into(),
                rebalance_timeout_ms: 20,
                session_timeout_ms: 10,
                subscription: Bytes::from_static(&[1]),
                assignment: Bytes::from_static(&[2, 3]),
            }],
        }
    }

    fn group_record(value: Option<GroupMetadataValue>) -> Record {
        Record::GroupMetadata { group_id: "g".into(), value }
    }

    #[track_caller]
    fn reads(key: &str, value: &str, expected: &Record) {
        let decoded = Record::decode(Some(&bytes(key)), Some(&bytes(value)));
        assert_eq!(decoded, Ok(Decoded::Record(expected.clone())));
    }

    #[track_caller]
    fn writes(record: &Record, key: &str, value: &str) {
        assert_eq!((record.key(), record.value()), (bytes(key), Some(bytes(value))));
        reads(key, value, record);
    }

    // The serializers of Apache Kafka 4.3.1 produced all bytes below.

    #[test]
    fn offsets_are_written_as_apache_writes_them() {
        let topic_id = TopicId(Uuid::from_u64_pair(1, 2));
        let value = OffsetCommitValue { leader_epoch: 7, topic_id, ..offset_value() };
        writes(
            &offset_record(Some(value)),
            OFFSET_KEY,
            "0004000000000000000500000007026d00000000000003e801001000000000000000010000000000000002",
        );
        let value = OffsetCommitValue { metadata: "".into(), ..offset_value() };
        writes(&offset_record(Some(value)), OFFSET_KEY, "00040000000000000005ffffffff0100000000000003e800");
        let value = OffsetCommitValue { expire_timestamp_ms: Some(2000), ..offset_value() };
        writes(&offset_record(Some(value)), OFFSET_KEY, "0001000000000000000500016d00000000000003e800000000000007d0");
        assert_eq!(offset_record(None).value(), None);
    }

    #[test]
    fn offsets_of_all_versions_are_read() {
        let plain = offset_record(Some(offset_value()));
        reads(OFFSET_KEY, "0000000000000000000500016d00000000000003e8", &plain);
        reads(LEGACY_OFFSET_KEY, "0000000000000000000500016d00000000000003e8", &plain);
        reads(OFFSET_KEY, "0002000000000000000500016d00000000000003e8", &plain);
        let with_epoch = offset_record(Some(OffsetCommitValue { leader_epoch: 7, ..offset_value() }));
        reads(OFFSET_KEY, "000300000000000000050000000700016d00000000000003e8", &with_epoch);
        let tombstone = Record::decode(Some(&bytes(OFFSET_KEY)), None);
        assert_eq!(tombstone, Ok(Decoded::Record(offset_record(None))));
    }

    #[test]
    fn groups_are_written_as_apache_writes_them() {
        writes(
            &group_record(Some(group_value())),
            GROUP_KEY,
            "00030008636f6e73756d657200000004000572616e67650002696400000000000003e8000000010002696400016900016300022f68000000140000000a0000000101000000020203",
        );
        let empty = GroupMetadataValue {
            protocol_type: "".into(),
            generation_id: 0,
            protocol_name: None,
            leader: None,
            current_state_timestamp_ms: 1000,
            members: Vec::new(),
        };
        writes(&group_record(Some(empty)), GROUP_KEY, "0003000000000000ffffffff00000000000003e800000000");
    }

    #[test]
    fn groups_of_all_versions_are_read() {
        let with = |change: fn(&mut GroupMetadataValue)| {
            let mut value = group_value();
            change(&mut value);
            group_record(Some(value))
        };
        reads(
            GROUP_KEY,
            "00000008636f6e73756d657200000004000572616e676500026964000000010002696400016300022f680000000a0000000101000000020203",
            &with(|value| {
                value.current_state_timestamp_ms = -1;
                value.members[0].group_instance_id = None;
                value.members[0].rebalance_timeout_ms = 10;
            }),
        );
        reads(
            GROUP_KEY,
            "00010008636f6e73756d657200000004000572616e676500026964000000010002696400016300022f68000000140000000a0000000101000000020203",
            &with(|value| {
                value.current_state_timestamp_ms = -1;
                value.members[0].group_instance_id = None;
            }),
        );
        reads(
            GROUP_KEY,
            "00020008636f6e73756d657200000004000572616e67650002696400000000000003e8000000010002696400016300022f68000000140000000a0000000101000000020203",
            &with(|value| value.members[0].group_instance_id = None),
        );
        reads(
            GROUP_KEY,
            "000409636f6e73756d6572000000040672616e676503696400000000000003e80203696402690263032f68000000140000000a02010302030000",
            &with(|_| {}),
        );
    }

    #[test]
    fn records_of_other_kinds_and_versions_are_unknown_not_errors() {
        let kip_848 = Record::decode(Some(&bytes("0003000167")), Some(&bytes("00000000000100")));
        assert_eq!(kip_848, Ok(Decoded::Unknown { record_type: 3 }));
        let newer = Record::decode(Some(&bytes(OFFSET_KEY)), Some(&bytes("0005")));
        assert_eq!(newer, Ok(Decoded::Unknown { record_type: 1 }));
        assert_eq!(Record::decode(None, None), Err(RecordError::MissingKey));
        let torn = Record::decode(Some(&bytes("00010001")), None);
        assert_eq!(torn, Err(RecordError::Codec(CodecError::Truncated)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            mut key in proptest::collection::vec(any::<u8>(), 0..40),
            mut value in proptest::collection::vec(any::<u8>(), 0..200),
            record_type in 0u8..4,
            version in 0u8..6,
        ) {
            if key.len() > 1 {
                key[..2].copy_from_slice(&[0, record_type]);
            }
            if value.len() > 1 {
                value[..2].copy_from_slice(&[0, version]);
            }
            let _ = Record::decode(Some(&key), Some(&value));
        }

        #[test]
        fn the_estimated_size_of_a_group_is_never_too_small(members in 0usize..20, length in 0usize..50) {
            let mut value = group_value();
            let member = MemberMetadata { subscription: vec![0; length].into(), ..value.members[0].clone() };
            value.members = vec![member; members];
            prop_assert!(value.encode().len() <= value.size_bytes());
        }
    }
}
