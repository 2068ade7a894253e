//! Kafka's metadata snapshots: `<end offset>-<epoch>.checkpoint` beside the metadata log.
//!
//! Owns the file format (one control batch with header, kraft.version and voters; batches of metadata records; a
//! footer), the atomic write, and the search for the newest valid snapshot. Kafka's dump tool can read the file.

use std::{collections::BTreeSet, io, path::Path};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    control_records::{
        BatchContent, ControlRecord, KRaftVersionRecord, SnapshotFooterRecord, SnapshotHeaderRecord, VotersRecord,
        control_batch, data_batch, read_batch,
    },
    storage::Base,
};
use crate::{
    controller::features::KRAFT_VERSION,
    env::{Disk, Open},
    metadata::{
        delta::MetadataDelta,
        image::{MetadataImage, Provenance},
    },
    protocol::record_batch::iter_batches,
    types::{LeaderEpoch, Offset, TimestampMs},
};

const SUFFIX: &str = ".checkpoint";
const PARTIAL_SUFFIX: &str = ".checkpoint.part";
/// Small enough for any reader's buffer, large enough to keep headers negligible.
const RECORDS_PER_BATCH: usize = 1000;

/// Apache: `OffsetAndEpoch`. A snapshot holds everything below `end_offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotId {
    pub end_offset: Offset,
    pub epoch: LeaderEpoch,
}

impl SnapshotId {
    pub fn file_name(&self) -> String {
        format!("{:020}-{:010}{SUFFIX}", self.end_offset, self.epoch)
    }

    pub fn parse(file_name: &str) -> Option<Self> {
        let (offset, epoch) = file_name.strip_suffix(SUFFIX)?.split_once('-')?;
        if offset.len() != 20 || epoch.len() != 10 {
            return None;
        }
        Some(SnapshotId { end_offset: offset.parse().ok()?, epoch: epoch.parse().ok()? })
    }

    /// The name of the file while it is fetched from the leader, in the n-th attempt of this process.
    pub fn partial_file_name(&self, attempt: u64) -> String {
        format!("{:020}-{:010}-{attempt}{PARTIAL_SUFFIX}", self.end_offset, self.epoch)
    }

    /// The id as raft carries it.
    pub fn to_bytes(self) -> Bytes {
        let mut to = BytesMut::with_capacity(12);
        to.put_i64(self.end_offset);
        to.put_i32(self.epoch);
        to.freeze()
    }

    /// The reverse of [`SnapshotId::to_bytes`].
    pub fn from_bytes(mut from: &[u8]) -> Option<Self> {
        let id = SnapshotId { end_offset: from.try_get_i64().ok()?, epoch: from.try_get_i32().ok()? };
        (from.is_empty() && id.end_offset > 0 && id.epoch >= 0).then_some(id)
    }
}

/// The content of a snapshot file.
#[derive(Debug)]
pub struct Snapshot {
    pub id: SnapshotId,
    pub image: MetadataImage,
    pub voters: Option<VotersRecord>,
    /// The raft index of the last entry in it; None if Apache Kafka wrote the file.
    pub raft_index: Option<u64>,
}

impl Snapshot {
    /// The position at which the log continues.
    pub fn base(&self) -> Base {
        Base {
            // A snapshot written by Apache Kafka has no raft index. The first node of a quorum may choose any index;
            // the end offset is never too small.
            index: self.raft_index.unwrap_or(self.id.end_offset as u64),
            epoch: self.id.epoch,
            end_offset: self.id.end_offset,
        }
    }
}

/// Why a file is not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Invalid(String),
}

/// The snapshots in a directory, oldest first.
pub fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<SnapshotId>> {
    let mut ids: Vec<_> = disk.list(dir)?.iter().filter_map(|entry| SnapshotId::parse(&entry.name)).collect();
    ids.sort();
    Ok(ids)
}

/// Removes what an interrupted write or transfer has left. Must be called before the first of this process.
pub fn remove_leftovers(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    for entry in disk.list(dir)? {
        if entry.name.ends_with(PARTIAL_SUFFIX) {
            disk.remove_file(&dir.join(&entry.name))?;
        }
    }
    Ok(())
}

/// Deletes all snapshots but `newest`, the one before it, and those that are being fetched.
pub fn delete_older(disk: &dyn Disk, dir: &Path, newest: SnapshotId, fetched: &BTreeSet<SnapshotId>) -> io::Result<()> {
    let older: Vec<SnapshotId> = list(disk, dir)?.into_iter().filter(|id| *id < newest).collect();
    for id in older.iter().rev().skip(1).filter(|id| !fetched.contains(id)) {
        disk.remove_file(&dir.join(id.file_name()))?;
    }
    Ok(())
}

/// Reads the newest valid snapshot. Logs a warning for each damaged one.
pub fn newest(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Snapshot>> {
    for id in list(disk, dir)?.into_iter().rev() {
        match read(disk, dir, id) {
            Ok(snapshot) => return Ok(Some(snapshot)),
            Err(SnapshotError::Io(error)) => return Err(error),
            Err(SnapshotError::Invalid(reason)) => {
                tracing::warn!(
                    file = id.file_name(),
                    reason,
                    "a metadata snapshot is damaged; an older one and the log are used instead"
                );
            }
        }
    }
    Ok(None)
}

/// Writes the image; it is durable when this returns.
pub fn write(
    disk: &dyn Disk,
    dir: &Path,
    image: &MetadataImage,
    voters: Option<&VotersRecord>,
    raft_index: u64,
    now_ms: TimestampMs,
) -> io::Result<SnapshotId> {
    let Provenance { last_contained_offset, last_contained_epoch: epoch, last_contained_log_time_ms } =
        image.provenance;
    let id = SnapshotId { end_offset: last_contained_offset + 1, epoch };
    let raft_index = i64::try_from(raft_index).unwrap_or(-1);
    let header =
        SnapshotHeaderRecord { version: 0, last_contained_log_timestamp: last_contained_log_time_ms, raft_index };
    let mut control = vec![ControlRecord::SnapshotHeader(header)];
    if let Some(voters) = voters {
        control.push(ControlRecord::KRaftVersion(KRaftVersionRecord { version: 0, kraft_version: KRAFT_VERSION }));
        control.push(ControlRecord::KRaftVoters(voters.clone()));
    }
    let partial = dir.join(format!("{}.part", id.file_name()));
    write_batches(disk, &partial, image, epoch, &control, now_ms).inspect_err(|_| {
        // On a full disk its space is needed. If this fails, the next start removes the file.
        let _ = disk.remove_file(&partial);
    })?;
    disk.rename(&partial, &dir.join(id.file_name()))?;
    disk.sync_dir(dir)?;
    tracing::debug!(file = id.file_name(), "metadata snapshot written");
    Ok(id)
}

fn write_batches(
    disk: &dyn Disk,
    path: &Path,
    image: &MetadataImage,
    epoch: LeaderEpoch,
    control: &[ControlRecord],
    now_ms: TimestampMs,
) -> io::Result<()> {
    let file = disk.open(path, Open::Create)?;
    file.set_len(0)?;
    let mut position = 0u64;
    let mut append = |batch: Bytes| -> io::Result<()> {
        file.write_all_at(&batch, position)?;
        position += batch.len() as u64;
        Ok(())
    };
    append(control_batch(0, epoch, now_ms, control))?;
    let mut offset = control.len() as Offset;
    for records in image.to_records().chunks(RECORDS_PER_BATCH) {
        append(data_batch(offset, epoch, now_ms, records))?;
        offset += records.len() as Offset;
    }
    let footer = [ControlRecord::SnapshotFooter(SnapshotFooterRecord { version: 0 })];
    append(control_batch(offset, epoch, now_ms, &footer))?;
    file.sync_all()
}

/// Reads one whole snapshot. Missing or damaged parts are errors.
pub fn read(disk: &dyn Disk, dir: &Path, id: SnapshotId) -> Result<Snapshot, SnapshotError> {
    read_file(disk, &dir.join(id.file_name()), id)
}

/// [`read`] for a file that has not got its name yet.
pub fn read_file(disk: &dyn Disk, path: &Path, id: SnapshotId) -> Result<Snapshot, SnapshotError> {
    let bytes = disk.read(path)?;
    let invalid = |reason: &dyn std::fmt::Display| SnapshotError::Invalid(reason.to_string());
    let mut image = MetadataImage::default();
    let (mut header, mut voters, mut is_complete) = (None, None, false);
    let mut delta = MetadataDelta::default();
    let mut batches = iter_batches(&bytes);
    for batch in batches.by_ref() {
        if is_complete {
            return Err(invalid(&"data follow the footer"));
        }
        match read_batch(&batch).map_err(|error| invalid(&error))? {
            BatchContent::Control(records) => {
                for record in records {
                    match record {
                        ControlRecord::SnapshotHeader(record) => header = Some(record),
                        ControlRecord::SnapshotFooter(_) => is_complete = true,
                        ControlRecord::KRaftVersion(record) => image.kraft_version = record.kraft_version,
                        ControlRecord::KRaftVoters(record) => voters = Some(record),
                        ControlRecord::LeaderChange(_) | ControlRecord::Unknown(_) => {}
                    }
                }
            }
            BatchContent::Data(records) => {
                for record in records {
                    image.apply(&record, &mut delta).map_err(|error| invalid(&error))?;
                }
            }
        }
    }
    let Some(header) = header else { return Err(invalid(&"it has no header")) };
    if !is_complete || batches.position() != bytes.len() {
        return Err(invalid(&"it is cut short"));
    }
    image.provenance = Provenance {
        last_contained_offset: id.end_offset - 1,
        last_contained_epoch: id.epoch,
        last_contained_log_time_ms: header.last_contained_log_timestamp,
    };
    Ok(Snapshot { id, image, voters, raft_index: u64::try_from(header.raft_index).ok() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        env::SystemDisk,
        metadata::records::{ConfigRecord, MetadataRecord},
        raft::control_records::single_voter,
    };

    fn image(configs: usize) -> MetadataImage {
        let mut image = MetadataImage::default();
        for at in 0..configs {
            let record = ConfigRecord {
                resource_type: 2,
                resource_name: format!("t{at}"),
                name: "k".into(),
                value: Some("v".into()),
            };
            image.apply(&MetadataRecord::from(record), &mut MetadataDelta::default()).unwrap();
        }
        image.kraft_version = 1;
        image.provenance =
            Provenance { last_contained_offset: 41, last_contained_epoch: 3, last_contained_log_time_ms: 77 };
        image
    }

    #[test]
    fn a_snapshot_reads_back_as_the_same_image() {
        let dir = tempfile::tempdir().unwrap();
        let (image, voters) = (image(2500), single_voter(1, uuid::Uuid::from_u128(9), vec![]));
        let id = write(&SystemDisk, dir.path(), &image, Some(&voters), 17, 5).unwrap();
        assert_eq!(id.file_name(), "00000000000000000042-0000000003.checkpoint");
        let snapshot = newest(&SystemDisk, dir.path()).unwrap().unwrap();
        assert_eq!(snapshot.image, image);
        assert_eq!((snapshot.id, snapshot.raft_index, snapshot.voters), (id, Some(17), Some(voters)));
    }

    #[test]
    fn a_damaged_or_cut_snapshot_is_passed_over_for_an_older_one() {
        let dir = tempfile::tempdir().unwrap();
        let older = image(3);
        write(&SystemDisk, dir.path(), &older, None, 1, 5).unwrap();
        let mut newer = image(5);
        newer.provenance.last_contained_offset = 99;
        let path = dir.path().join(write(&SystemDisk, dir.path(), &newer, None, 2, 5).unwrap().file_name());
        assert_eq!(
            newest(&SystemDisk, dir.path()).unwrap().unwrap().image,
            MetadataImage { kraft_version: 0, ..newer }
        );
        let whole = std::fs::read(&path).unwrap();
        for damage in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[damage] ^= 0x10;
            // The checksum does not cover offsets and epochs of batches, and this code does not read them.
            std::fs::write(&path, &bytes).unwrap();
            let found = newest(&SystemDisk, dir.path()).unwrap().unwrap();
            let unchanged = found.id.end_offset == 100 && found.image.configs.len() == 5;
            assert!(unchanged || found.image.configs == older.configs, "flipped byte {damage}");
            std::fs::write(&path, &whole[..damage]).unwrap();
            assert_eq!(
                newest(&SystemDisk, dir.path()).unwrap().unwrap().image.configs,
                older.configs,
                "cut at {damage}"
            );
        }
    }

    #[test]
    fn leftovers_of_an_interrupted_write_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let partial = dir.path().join("00000000000000000042-0000000003.checkpoint.part");
        std::fs::write(&partial, b"x").unwrap();
        std::fs::write(dir.path().join("x.checkpoint"), b"x").unwrap();
        assert_eq!(list(&SystemDisk, dir.path()).unwrap(), []);
        remove_leftovers(&SystemDisk, dir.path()).unwrap();
        assert!(!partial.exists());
    }

    #[test]
    fn the_newest_two_snapshots_and_one_that_is_being_fetched_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let write_at = |offset| {
            let mut image = image(1);
            image.provenance.last_contained_offset = offset;
            write(&SystemDisk, dir.path(), &image, None, 1, 5).unwrap()
        };
        let ids: Vec<SnapshotId> = [9, 19, 29, 39].into_iter().map(write_at).collect();
        delete_older(&SystemDisk, dir.path(), ids[3], &BTreeSet::from([ids[0]])).unwrap();
        assert_eq!(list(&SystemDisk, dir.path()).unwrap(), [ids[0], ids[2], ids[3]]);
        delete_older(&SystemDisk, dir.path(), ids[3], &BTreeSet::new()).unwrap();
        assert_eq!(list(&SystemDisk, dir.path()).unwrap(), [ids[2], ids[3]]);
    }

    #[test]
    fn an_id_reads_back_from_its_bytes() {
        let id = SnapshotId { end_offset: 42, epoch: 3 };
        assert_eq!(SnapshotId::from_bytes(&id.to_bytes()), Some(id));
        for wrong in [&b""[..], &id.to_bytes()[1..], &[&id.to_bytes()[..], b"x"].concat(), &[0; 12], &[0xff; 12]] {
            assert_eq!(SnapshotId::from_bytes(wrong), None);
        }
    }
}
