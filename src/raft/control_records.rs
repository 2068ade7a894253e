//! KRaft's control records: leader changes, voter sets, snapshot headers and footers, in Kafka's own encoding.
//!
//! Owns the bytes of control batches in the metadata log and in snapshots. Leaves the use of the voter set to
//! `storage.rs`.

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    metadata::wire::{Field, Reader, RecordError, record_struct},
    protocol::record_batch::{BatchBuilder, BatchError, BatchOptions, BatchView, RecordIter},
    types::{BrokerId, LeaderEpoch, Offset, TimestampMs},
};

record_struct! { LeaderChangeVoter { voter_id: i32; } }
record_struct! {
    /// The cluster id is an addition of Ottla: the first leader of a cluster of fresh nodes chooses it. Kafka's readers
    /// ignore unknown tagged fields.
    LeaderChangeMessage { version: i16; leader_id: i32; voters: Vec<LeaderChangeVoter>; granting_voters: Vec<LeaderChangeVoter>; cluster_id: String = String::new(), tag 10_000; }
}
record_struct! {
    /// The raft index is an addition of Ottla: the index of the last entry in the snapshot. Kafka's readers ignore
    /// unknown tagged fields.
    SnapshotHeaderRecord { version: i16; last_contained_log_timestamp: i64; raft_index: i64 = -1, tag 10_000; }
}
record_struct! { SnapshotFooterRecord { version: i16; } }
record_struct! { KRaftVersionRecord { version: i16; kraft_version: i16; } }
record_struct! { VoterEndpoint { name: String; host: String; port: u16; } }
record_struct! { KRaftVersionFeature { min_supported_version: i16; max_supported_version: i16; } }
record_struct! { Voter { voter_id: i32; voter_directory_id: Uuid; endpoints: Vec<VoterEndpoint>; kraft_version_feature: KRaftVersionFeature; } }
record_struct! {
    /// The voters of the quorum (KIP-853).
    VotersRecord { version: i16; voters: Vec<Voter>; }
}

/// One control record of the metadata log or a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub enum ControlRecord {
    LeaderChange(LeaderChangeMessage),
    SnapshotHeader(SnapshotHeaderRecord),
    SnapshotFooter(SnapshotFooterRecord),
    KRaftVersion(KRaftVersionRecord),
    KRaftVoters(VotersRecord),
    /// A record of an unknown type.
    Unknown(i16),
}

impl ControlRecord {
    /// Kafka's `ControlRecordType`.
    fn type_id(&self) -> i16 {
        match self {
            ControlRecord::LeaderChange(_) => 2,
            ControlRecord::SnapshotHeader(_) => 3,
            ControlRecord::SnapshotFooter(_) => 4,
            ControlRecord::KRaftVersion(_) => 5,
            ControlRecord::KRaftVoters(_) => 6,
            ControlRecord::Unknown(id) => *id,
        }
    }

    fn key(&self) -> [u8; 4] {
        let mut key = [0; 4];
        key[2..].copy_from_slice(&self.type_id().to_be_bytes());
        key
    }

    fn value(&self) -> Vec<u8> {
        let mut value = Vec::new();
        match self {
            ControlRecord::LeaderChange(record) => record.write(&mut value),
            ControlRecord::SnapshotHeader(record) => record.write(&mut value),
            ControlRecord::SnapshotFooter(record) => record.write(&mut value),
            ControlRecord::KRaftVersion(record) => record.write(&mut value),
            ControlRecord::KRaftVoters(record) => record.write(&mut value),
            ControlRecord::Unknown(_) => {}
        }
        value
    }

    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, RecordError> {
        let mut key = Reader::new(key);
        let (_version, type_id) = (i16::read(&mut key)?, i16::read(&mut key)?);
        let mut value = Reader::new(value);
        let record = match type_id {
            2 => ControlRecord::LeaderChange(Field::read(&mut value)?),
            3 => ControlRecord::SnapshotHeader(Field::read(&mut value)?),
            4 => ControlRecord::SnapshotFooter(Field::read(&mut value)?),
            5 => ControlRecord::KRaftVersion(Field::read(&mut value)?),
            6 => ControlRecord::KRaftVoters(Field::read(&mut value)?),
            unknown => return Ok(ControlRecord::Unknown(unknown)),
        };
        value.finish()?;
        Ok(record)
    }
}

/// A batch of the metadata log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MetadataBatchError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("wrong checksum")]
    Crc,
    #[error("the batch is compressed, which the metadata log never is")]
    Compressed,
    #[error("a record has no value")]
    NoValue,
    #[error("record at offset {offset}: {error}")]
    Record { offset: Offset, error: RecordError },
}

fn options(base_offset: Offset, leader_epoch: LeaderEpoch, control: bool) -> BatchOptions {
    BatchOptions { base_offset, leader_epoch, control, ..Default::default() }
}

/// One control batch.
pub fn control_batch(
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    timestamp_ms: TimestampMs,
    records: &[ControlRecord],
) -> Bytes {
    let mut batch = BatchBuilder::new(options(base_offset, leader_epoch, true));
    for record in records {
        batch.append(timestamp_ms, Some(&record.key()), Some(&record.value()), &[]);
    }
    batch.build()
}

/// One batch of metadata records.
pub fn data_batch(
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    timestamp_ms: TimestampMs,
    records: &[crate::metadata::records::MetadataRecord],
) -> Bytes {
    let mut batch = BatchBuilder::new(options(base_offset, leader_epoch, false));
    let mut value = Vec::new();
    for record in records {
        value.clear();
        record.encode(&mut value);
        batch.append(timestamp_ms, None, Some(&value), &[]);
    }
    batch.build()
}

/// The content of a batch of the metadata log.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchContent {
    Control(Vec<ControlRecord>),
    Data(Vec<crate::metadata::records::MetadataRecord>),
}

/// Reads a whole batch and checks its checksum.
pub fn read_batch(batch: &BatchView<'_>) -> Result<BatchContent, MetadataBatchError> {
    if !batch.crc_is_valid() {
        return Err(MetadataBatchError::Crc);
    }
    if batch.compression()? != crate::protocol::record_batch::Compression::None {
        return Err(MetadataBatchError::Compressed);
    }
    let (mut control, mut data) = (Vec::new(), Vec::new());
    for record in RecordIter::new(batch.records_bytes(), batch.record_count()) {
        let record = record?;
        let value = record.value.ok_or(MetadataBatchError::NoValue)?;
        let at =
            |error| MetadataBatchError::Record { offset: batch.base_offset() + i64::from(record.offset_delta), error };
        if batch.is_control() {
            control.push(ControlRecord::decode(record.key.unwrap_or_default(), value).map_err(at)?);
        } else {
            data.push(crate::metadata::records::MetadataRecord::decode(value).map_err(at)?);
        }
    }
    Ok(if batch.is_control() { BatchContent::Control(control) } else { BatchContent::Data(data) })
}

/// The voter set of a quorum whose only member is this node.
pub fn single_voter(id: BrokerId, directory_id: Uuid, endpoints: Vec<VoterEndpoint>) -> VotersRecord {
    let kraft_version_feature = KRaftVersionFeature { min_supported_version: 0, max_supported_version: 1 };
    VotersRecord {
        version: 0,
        voters: vec![Voter { voter_id: id, voter_directory_id: directory_id, endpoints, kraft_version_feature }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_batches_survive_a_round_trip() {
        let voters = single_voter(
            1,
            Uuid::from_u128(5),
            vec![VoterEndpoint { name: "CONTROLLER".into(), host: "h".into(), port: 9093 }],
        );
        let voter = || vec![LeaderChangeVoter { voter_id: 1 }];
        let records = vec![
            ControlRecord::LeaderChange(LeaderChangeMessage {
                version: 0,
                leader_id: 1,
                voters: voter(),
                granting_voters: voter(),
                cluster_id: "c".into(),
            }),
            ControlRecord::KRaftVersion(KRaftVersionRecord { version: 0, kraft_version: 1 }),
            ControlRecord::KRaftVoters(voters),
            ControlRecord::SnapshotHeader(SnapshotHeaderRecord {
                version: 0,
                last_contained_log_timestamp: 7,
                raft_index: 3,
            }),
            ControlRecord::SnapshotFooter(SnapshotFooterRecord { version: 0 }),
        ];
        let bytes = control_batch(10, 2, 1234, &records);
        let batch = BatchView::parse(&bytes).unwrap();
        assert!(batch.is_control());
        assert_eq!((batch.base_offset(), batch.last_offset(), batch.partition_leader_epoch()), (10, 14, 2));
        assert_eq!(read_batch(&batch).unwrap(), BatchContent::Control(records));
        let mut damaged = bytes.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(matches!(read_batch(&BatchView::parse(&damaged).unwrap()), Err(MetadataBatchError::Crc)));
    }
}
