//! The metadata log as raft-rs sees it.
//!
//! Owns the map between raft's index, which counts batches, and Kafka's offset, which counts records (rebuilt at open
//! from a stored base); what the control records of the log say; and the quorum-state file. One raft entry is one
//! batch. The entry's data are the bytes of the batch, with offsets and epoch assigned, so that a receiver appends it
//! unchanged (INV-R1). raft's empty entry at a new term becomes a batch with a NoOpRecord, and the leader's
//! LeaderChange batch is the next entry. Protobuf is not used in these files.

use std::{collections::VecDeque, io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use raft::{
    GetEntriesContext, RaftState,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
};
use uuid::Uuid;

use super::{
    control_records::{
        BatchContent, ControlRecord, KRaftVersionRecord, LeaderChangeMessage, LeaderChangeVoter, VotersRecord,
        data_batch, read_batch,
    },
    metadata_log::LOSS_INSTRUCTIONS,
    quorum_state::{ElectionState, QuorumStateFile},
    snapshot::SnapshotId,
    voters::{Identity, VoterSets, conf_state},
};
use crate::{
    controller::features::KRAFT_VERSION,
    env::Disk,
    log::is_shortage,
    metadata::records::{MetadataRecord, NoOpRecord},
    protocol::record_batch::{BatchView, iter_batches},
    types::{BrokerId, LeaderEpoch, Offset},
};

/// The functions of a log that the quorum needs; `MetadataLog` implements them with `log::Log`.
pub trait BatchLog: Send {
    fn log_start_offset(&self) -> Offset;
    fn log_end_offset(&self) -> Offset;
    /// Appends a whole batch whose offsets are assigned. After `StorageFull` nothing is written, and the call may be
    /// retried.
    fn append(&mut self, batch: Bytes) -> io::Result<()>;
    /// Makes all appended batches durable. After `StorageFull` nothing is lost, and the call may be retried.
    fn flush(&mut self) -> io::Result<()>;
    /// Reads whole batches, starting with the one that contains `from`: at least one if there is one, then up to about
    /// `max_bytes`.
    fn read(&self, from: Offset, max_bytes: usize) -> io::Result<Bytes>;
    /// Reserves disk space for `bytes` more bytes, so that they can be appended and flushed when the disk is full.
    /// After `StorageFull` the earlier reserve remains. A disk that cannot reserve space is no error.
    fn reserve_space(&mut self, bytes: u64) -> io::Result<()>;
    /// Removes all records from `offset` on.
    fn truncate_to(&mut self, offset: Offset) -> io::Result<()>;
    /// Removes all records; the next one gets `offset`.
    fn truncate_fully_and_start_at(&mut self, offset: Offset) -> io::Result<()>;
    /// Deletes records below `offset`, which are not needed any more.
    fn delete_before(&mut self, offset: Offset) -> io::Result<()>;
    /// Closes the log. No other call may follow.
    fn close(&mut self) -> io::Result<()>;
}

/// One batch in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    base_offset: Offset,
    last_offset: Offset,
    epoch: LeaderEpoch,
    bytes: u32,
    /// raft's empty entry, see [`first_of_epoch`].
    is_empty_entry: bool,
}

/// The position before the first entry: the end of a snapshot, or the start of an empty log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    pub index: u64,
    pub epoch: LeaderEpoch,
    pub end_offset: Offset,
}

impl Base {
    pub const EMPTY: Base = Base { index: 0, epoch: 0, end_offset: 0 };
}

/// How another log fits to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogPosition {
    /// It is a part of this log, or all of it.
    Continues,
    /// This log's records of this epoch and earlier ones end at this offset.
    Diverges(LeaderEpoch, Offset),
    /// It ends before this log begins, with this snapshot.
    IsTrimmed(SnapshotId),
}

/// Node ids start at 0, raft's at 1.
pub fn raft_id(node: BrokerId) -> u64 {
    node as u64 + 1
}

/// The reverse of [`raft_id`].
pub fn node_id(raft_id: u64) -> Option<BrokerId> {
    BrokerId::try_from(raft_id.checked_sub(1)?).ok()
}

/// The voters with which the storage starts.
pub struct QuorumStart {
    /// The voters of the newest snapshot.
    pub voters: Option<VotersRecord>,
    /// The voters of an empty log.
    pub bootstrap_voters: VotersRecord,
    /// Start from the snapshot if the log after it is lost.
    pub accept_loss: bool,
}

/// See the head of the file.
pub struct MetadataStorage {
    log: Box<dyn BatchLog>,
    base: Base,
    positions: VecDeque<Position>,
    quorum_state: QuorumStateFile,
    election: ElectionState,
    commit: u64,
    identity: Identity,
    voters: VoterSets,
    kraft_version: i16,
    /// The id that the first leader of a cluster of fresh nodes has chosen, with the offset of its batch.
    cluster_id: Option<(Offset, String)>,
    bytes_written: u64,
    /// The newest snapshot, which raft has sent to a voter that lacks trimmed entries.
    newest_snapshot: Option<Base>,
}

const SCAN_BYTES: usize = 1 << 20;

impl MetadataStorage {
    /// Opens the storage and reads the log from `base` on.
    ///
    /// # Errors
    /// `InvalidData` if the log does not continue `base`, has lost its end, or contains an invalid metadata batch.
    pub fn open(
        log: Box<dyn BatchLog>,
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        identity: Identity,
        base: Base,
        QuorumStart { voters, bootstrap_voters, accept_loss }: QuorumStart,
    ) -> io::Result<Self> {
        let quorum_state = QuorumStateFile::new(disk, dir);
        let voters_are_stored = voters.is_some();
        let mut storage = MetadataStorage {
            log,
            base,
            positions: VecDeque::new(),
            quorum_state,
            election: ElectionState::default(),
            commit: base.index,
            identity,
            voters: VoterSets::new(voters.unwrap_or(bootstrap_voters), voters_are_stored),
            cluster_id: None,
            kraft_version: if voters_are_stored { KRAFT_VERSION } else { 0 },
            bytes_written: 0,
            newest_snapshot: (base.index > 0).then_some(base),
        };
        storage.scan(accept_loss)?;
        storage.read_election_state()?;
        Ok(storage)
    }

    fn scan(&mut self, accept_loss: bool) -> io::Result<()> {
        let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
        if end < self.base.end_offset {
            // A sole voter's snapshot holds only records that were synced in its log, so the log has lost records.
            if self.is_sole_voter() && !accept_loss {
                return Err(invalid(format!(
                    "records are lost: the metadata log ends at offset {end}, and the newest snapshot at {}. {LOSS_INSTRUCTIONS}",
                    self.base.end_offset
                )));
            }
            // The snapshot holds everything up to its end.
            self.log.truncate_fully_and_start_at(self.base.end_offset)?;
            return Ok(());
        }
        if start > self.base.end_offset {
            return Err(invalid(format!(
                "the metadata log starts at offset {start}, but no snapshot reaches further than {}",
                self.base.end_offset
            )));
        }
        if !self.is_sole_voter() && start < self.base.end_offset && !self.has_end_of_base()? {
            // A crash came between the transfer of the snapshot and its installation: the log has the records of an
            // earlier leader that were never committed.
            self.log.truncate_fully_and_start_at(self.base.end_offset)?;
            return Ok(());
        }
        let mut next = self.base.end_offset;
        while next < end {
            let bytes = self.log.read(next, SCAN_BYTES)?;
            let before = next;
            for batch in iter_batches(&bytes) {
                // The read starts at the batch that holds `next`; a snapshot never ends inside one.
                if batch.base_offset() < next {
                    continue;
                }
                self.note(&batch)?;
                next = batch.next_offset();
            }
            if next == before {
                return Err(invalid(format!("the metadata log has no batch at offset {next}")));
            }
        }
        Ok(())
    }

    /// Whether the log has the last batch that the snapshot contains, in the same epoch. Then it has the same records
    /// up to there.
    fn has_end_of_base(&self) -> io::Result<bool> {
        let Base { epoch, end_offset, .. } = self.base;
        let bytes = self.log.read(end_offset - 1, 1)?;
        let last = iter_batches(&bytes).next();
        Ok(last.is_some_and(|batch| batch.next_offset() == end_offset && batch.partition_leader_epoch() == epoch))
    }

    /// Adds a batch of the log to the map.
    fn note(&mut self, batch: &BatchView<'_>) -> io::Result<()> {
        if batch.base_offset() != self.end_offset() {
            return Err(invalid(format!(
                "the metadata log continues with offset {}, but {} was expected",
                batch.base_offset(),
                self.end_offset()
            )));
        }
        let (bytes, epoch) = (batch.size_bytes(), batch.partition_leader_epoch());
        let is_empty_entry = epoch != self.last_epoch() && batch.bytes() == first_of_epoch(batch.base_offset(), epoch);
        self.positions.push_back(Position {
            base_offset: batch.base_offset(),
            last_offset: batch.last_offset(),
            epoch,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            is_empty_entry,
        });
        self.bytes_written += bytes as u64;
        if batch.is_control()
            && let BatchContent::Control(records) = read_batch(batch).map_err(|error| invalid(error.to_string()))?
        {
            for record in records {
                match record {
                    ControlRecord::KRaftVersion(record) => self.kraft_version = record.kraft_version,
                    ControlRecord::KRaftVoters(record) => self.voters.add(batch.base_offset(), record),
                    ControlRecord::LeaderChange(record) if !record.cluster_id.is_empty() => {
                        self.cluster_id = Some((batch.base_offset(), record.cluster_id));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn read_election_state(&mut self) -> io::Result<()> {
        let stored = match self.quorum_state.read() {
            // A sole voter has never voted for another node, so the epochs in the log are enough.
            Err(error) if error.kind() == io::ErrorKind::InvalidData && self.is_sole_voter() => {
                tracing::warn!(%error, "the quorum-state file is damaged; the epoch is taken from the metadata log");
                None
            }
            other => other?,
        };
        self.election = stored.unwrap_or_default();
        if self.last_epoch() > self.election.epoch {
            self.election = ElectionState { epoch: self.last_epoch(), leader: None, vote: None };
        }
        Ok(())
    }

    /// Whether this node is the only voter.
    pub fn is_sole_voter(&self) -> bool {
        self.is_voter() && self.voters().voters.len() == 1
    }

    /// Whether this node is a voter.
    pub fn is_voter(&self) -> bool {
        self.voters().contains(self.identity)
    }

    /// The newest voters in the log, committed or not.
    pub fn voters(&self) -> &VotersRecord {
        self.voters.latest()
    }

    /// Whether the log or a snapshot has voters, not only the settings.
    pub fn has_voters(&self) -> bool {
        self.voters.is_stored()
    }

    /// The voters that the log names up to `offset`.
    pub fn voters_at(&self, offset: Offset) -> &VotersRecord {
        self.voters.at(offset)
    }

    /// The offset of the batch that names the voters; `None` if it is older than the log.
    pub fn voters_offset(&self) -> Option<Offset> {
        self.voters.latest_offset()
    }

    /// The cluster id in the records up to `offset`, if one of them has it.
    pub fn cluster_id_at(&self, offset: Offset) -> Option<&str> {
        self.cluster_id.as_ref().filter(|(base_offset, _)| *base_offset <= offset).map(|(_, id)| id.as_str())
    }

    pub fn kraft_version(&self) -> i16 {
        self.kraft_version
    }

    /// The offset after the last entry.
    pub fn end_offset(&self) -> Offset {
        self.positions.back().map_or(self.base.end_offset, |position| position.last_offset + 1)
    }

    pub fn last_epoch(&self) -> LeaderEpoch {
        self.positions.back().map_or(self.base.epoch, |position| position.epoch)
    }

    pub fn last_entry_index(&self) -> u64 {
        self.base.index + self.positions.len() as u64
    }

    pub fn base(&self) -> Base {
        self.base
    }

    /// The bytes of all entries found at open or appended since. It never decreases.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    fn position(&self, index: u64) -> Option<&Position> {
        let at = index.checked_sub(self.base.index + 1)?;
        self.positions.get(usize::try_from(at).ok()?)
    }

    /// The index and the epoch of the entry whose last offset is `offset`. The base is such an entry too.
    pub fn entry_ending_at(&self, offset: Offset) -> Option<(u64, LeaderEpoch)> {
        if offset + 1 == self.base.end_offset {
            return Some((self.base.index, self.base.epoch));
        }
        let at = self.positions.binary_search_by_key(&offset, |position| position.last_offset).ok()?;
        Some((self.base.index + 1 + at as u64, self.positions[at].epoch))
    }

    /// The offset after entry `index`.
    pub fn end_offset_of(&self, index: u64) -> Option<Offset> {
        if index == self.base.index {
            return Some(self.base.end_offset);
        }
        self.position(index).map(|position| position.last_offset + 1)
    }

    /// How a log that ends before `offset`, with a record of `last_epoch`, fits to this one (Apache:
    /// `validateOffsetAndEpoch`).
    pub fn check_position(&self, offset: Offset, last_epoch: LeaderEpoch) -> LogPosition {
        let base = self.base;
        let is_trimmed =
            offset < base.end_offset || (offset == base.end_offset && base.end_offset > 0 && last_epoch != base.epoch);
        if let Some(newest) = self.newest_snapshot.filter(|_| is_trimmed) {
            return LogPosition::IsTrimmed(SnapshotId { end_offset: newest.end_offset, epoch: newest.epoch });
        }
        let at = self.positions.partition_point(|position| position.epoch <= last_epoch);
        let last = at.checked_sub(1).and_then(|at| self.positions.get(at));
        let (epoch, end_offset) =
            last.map_or((base.epoch, base.end_offset), |position| (position.epoch, position.last_offset + 1));
        // A log without records is part of every log.
        if offset == 0 || (epoch == last_epoch && offset <= end_offset) {
            return LogPosition::Continues;
        }
        LogPosition::Diverges(epoch, end_offset)
    }

    /// Where this log stops to agree with one whose records up to `epoch` end at `end_offset`.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch, end_offset: Offset) -> Offset {
        let agrees = |position: &Position| position.epoch <= epoch && position.last_offset < end_offset;
        let at = self.positions.partition_point(agrees);
        let last = at.checked_sub(1).and_then(|at| self.positions.get(at));
        last.map_or(self.base.end_offset, |position| position.last_offset + 1)
    }

    /// Whole batches from `offset` on that end before `end_offset`: at least one if there is one, then up to about
    /// `max_bytes`.
    pub fn read(&self, offset: Offset, end_offset: Offset, max_bytes: usize) -> io::Result<Bytes> {
        let first = self.positions.partition_point(|position| position.base_offset < offset);
        let mut bytes = 0;
        for position in self.positions.iter().skip(first) {
            let next = bytes + position.bytes as usize;
            if position.last_offset >= end_offset || (bytes > 0 && next > max_bytes) {
                break;
            }
            bytes = next;
        }
        if bytes == 0 {
            return Ok(Bytes::new());
        }
        let mut read = bytes::BytesMut::with_capacity(bytes);
        let mut next = self.positions[first].base_offset;
        while read.len() < bytes {
            let piece = self.log.read(next, bytes - read.len())?;
            let before = read.len();
            for batch in iter_batches(&piece).filter(|batch| batch.base_offset() >= next) {
                if read.len() + batch.size_bytes() > bytes {
                    break;
                }
                read.extend_from_slice(batch.bytes());
            }
            match iter_batches(&read[before..]).last() {
                Some(last) => next = last.next_offset(),
                None => return Err(invalid(format!("the metadata log lost its batch at {next}"))),
            }
        }
        Ok(read.freeze())
    }

    /// The batch of entry `index`.
    pub fn batch(&self, index: u64) -> io::Result<Bytes> {
        let position =
            self.position(index).ok_or_else(|| invalid(format!("entry {index} is not in the metadata log")))?;
        let bytes = self.log.read(position.base_offset, position.bytes as usize)?;
        let batch = iter_batches(&bytes).find(|batch| batch.base_offset() == position.base_offset);
        let size = batch
            .map(|batch| batch.size_bytes())
            .ok_or_else(|| invalid(format!("the metadata log lost its batch at {}", position.base_offset)))?;
        // The read starts at this batch: `note` has checked that the batches follow each other without gap or overlap.
        Ok(bytes.slice(..size))
    }

    /// Marks all entries up to `index` as committed. The content of the store or of a snapshot always is.
    pub fn set_commit(&mut self, index: u64) {
        self.commit = self.commit.max(index.min(self.last_entry_index()));
    }

    /// Appends an entry of raft. If its index is not after the last one, it replaces the entries from there on. It is
    /// durable after `flush`.
    ///
    /// # Errors
    /// After `StorageFull` nothing is written, and the call may be retried.
    pub fn append(&mut self, entry: &Entry) -> io::Result<()> {
        if entry.index <= self.last_entry_index() {
            self.truncate_from(entry.index)?;
        }
        let batch = if entry.data.is_empty() {
            first_of_epoch(self.end_offset(), entry.term as LeaderEpoch)
        } else {
            entry.data.clone()
        };
        let view = BatchView::parse(&batch).map_err(|error| invalid(error.to_string()))?;
        debug_assert_eq!(view.partition_leader_epoch(), entry.term as LeaderEpoch);
        self.log.append(batch.clone())?;
        self.note(&view)
    }

    fn truncate_from(&mut self, index: u64) -> io::Result<()> {
        let Some(position) = self.position(index).copied() else {
            return Err(invalid(format!("entry {index} is below the metadata log's start")));
        };
        assert!(index > self.commit, "a committed entry must never be replaced");
        self.log.truncate_to(position.base_offset)?;
        self.voters.truncate(position.base_offset);
        if !self.voters.is_stored() {
            self.kraft_version = 0;
        }
        self.cluster_id.take_if(|(offset, _)| *offset >= position.base_offset);
        self.positions.truncate((index - self.base.index - 1) as usize);
        Ok(())
    }

    /// Kafka's records at the start of an epoch, if this node leads it. The first ones also name the voters (KIP-853),
    /// and the cluster id `new_cluster_id`, if the nodes have none yet.
    pub fn leader_change_records(&self, new_cluster_id: Option<String>) -> Vec<ControlRecord> {
        let voters =
            || self.voters().voters.iter().map(|voter| LeaderChangeVoter { voter_id: voter.voter_id }).collect();
        let granting_voters =
            if self.is_sole_voter() { voters() } else { vec![LeaderChangeVoter { voter_id: self.identity.node_id }] };
        let message = LeaderChangeMessage {
            version: 0,
            leader_id: self.identity.node_id,
            voters: voters(),
            granting_voters,
            cluster_id: new_cluster_id.filter(|_| self.cluster_id.is_none()).unwrap_or_default(),
        };
        let mut records = vec![ControlRecord::LeaderChange(message)];
        if !self.voters.is_stored() {
            records.push(ControlRecord::KRaftVersion(KRaftVersionRecord { version: 0, kraft_version: KRAFT_VERSION }));
            records.push(ControlRecord::KRaftVoters(self.voters().clone()));
        }
        records
    }

    /// Reserves disk space, see [`BatchLog::reserve_space`].
    pub fn reserve_space(&mut self, bytes: u64) -> io::Result<()> {
        self.log.reserve_space(bytes)
    }

    /// Makes appended entries durable.
    pub fn flush(&mut self) -> io::Result<()> {
        self.log.flush()
    }

    /// Stores raft's term and vote, durably before they are sent to another voter. A sole voter sends them to nobody,
    /// so it saves this fsync at its start: its first entry of the term is synced before it acts on it, and a restart
    /// reads the term from the log. `directory_of` is the directory of a node that has asked for a vote.
    pub fn set_hard_state(
        &mut self,
        hard_state: &HardState,
        leader: Option<BrokerId>,
        directory_of: impl Fn(BrokerId) -> Uuid,
    ) -> io::Result<()> {
        let vote = node_id(hard_state.vote)
            .map(|id| (id, if id == self.identity.node_id { self.identity.directory_id } else { directory_of(id) }));
        let election = ElectionState { epoch: hard_state.term as LeaderEpoch, leader, vote };
        if election != self.election {
            match self.quorum_state.write(&election, !self.is_sole_voter()) {
                // The file is not needed: the next entry in the log contains the epoch.
                Err(error) if self.is_sole_voter() && is_shortage(&error) => {
                    tracing::debug!(%error, "the quorum-state file cannot be written for now");
                }
                other => other?,
            }
            self.election = election;
        }
        Ok(())
    }

    /// Replaces the whole log by a snapshot, whose file must be durable: a crash leaves the old log or a part of it,
    /// and the next start empties it. If it fails, it may be retried.
    pub fn install(&mut self, base: Base, voters: Option<VotersRecord>) -> io::Result<()> {
        assert!(base.index >= self.commit, "a snapshot must contain all committed entries");
        self.log.truncate_fully_and_start_at(base.end_offset)?;
        self.positions.clear();
        (self.base, self.newest_snapshot, self.commit) = (base, Some(base), base.index);
        let is_stored = voters.is_some() || self.voters.is_stored();
        self.voters = VoterSets::new(voters.unwrap_or_else(|| self.voters().clone()), is_stored);
        self.kraft_version = if is_stored { KRAFT_VERSION } else { 0 };
        self.cluster_id = None;
        Ok(())
    }

    /// The voter for which this node has voted in the current epoch, and its directory.
    pub fn vote(&self) -> Option<(BrokerId, Uuid)> {
        self.election.vote
    }

    /// Makes term and vote durable, before this node stops to be the only voter.
    pub fn sync_hard_state(&self) -> io::Result<()> {
        self.quorum_state.write(&self.election, true)
    }

    /// There is a snapshot that ends with entry `index`.
    pub fn note_snapshot(&mut self, index: u64) {
        if let Some(position) = self.position(index) {
            self.newest_snapshot = Some(Base { index, epoch: position.epoch, end_offset: position.last_offset + 1 });
        }
    }

    /// The voters as raft on this node names them.
    pub fn conf_state(&self) -> ConfState {
        conf_state(self.voters(), self.identity)
    }

    /// Deletes the log up to and including entry `index`, which a snapshot contains.
    pub fn compact(&mut self, index: u64) -> io::Result<()> {
        if let Some(position) = self.position(index).copied() {
            self.base = Base { index, epoch: position.epoch, end_offset: position.last_offset + 1 };
            while self.positions.front().is_some_and(|first| first.last_offset <= position.last_offset) {
                self.positions.pop_front();
            }
            self.voters.forget_before(self.base.end_offset);
        }
        self.log.delete_before(self.base.end_offset)
    }

    pub fn close(&mut self) -> io::Result<()> {
        self.log.close()
    }
}

/// The batch of raft's empty entry at the start of an epoch. Every node makes it for itself, so it depends on nothing
/// but its place and has no timestamp: the logs of all nodes are equal (INV-R1).
fn first_of_epoch(offset: Offset, epoch: LeaderEpoch) -> Bytes {
    data_batch(offset, epoch, -1, &[MetadataRecord::from(NoOpRecord {})])
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn unavailable(error: io::Error) -> raft::Error {
    raft::Error::Store(raft::StorageError::Other(Box::new(error)))
}

impl raft::Storage for MetadataStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let hard_state = HardState {
            term: self.election.epoch as u64,
            vote: self.election.vote.map_or(0, |(id, _)| raft_id(id)),
            commit: self.commit,
            ..Default::default()
        };
        Ok(RaftState { hard_state, conf_state: self.conf_state() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.index {
            return Err(raft::Error::Store(raft::StorageError::Compacted));
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let (mut entries, mut size) = (Vec::new(), 0u64);
        for index in low..high {
            let position = self.position(index).ok_or(raft::Error::Store(raft::StorageError::Unavailable))?;
            size = size.saturating_add(u64::from(position.bytes));
            if size > max_size && !entries.is_empty() {
                break;
            }
            let data = if position.is_empty_entry { Bytes::new() } else { self.batch(index).map_err(unavailable)? };
            entries.push(Entry { index, term: position.epoch as u64, data, ..Default::default() });
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.index {
            return Ok(self.base.epoch as u64);
        }
        if index < self.base.index {
            return Err(raft::Error::Store(raft::StorageError::Compacted));
        }
        self.position(index)
            .map(|position| position.epoch as u64)
            .ok_or(raft::Error::Store(raft::StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last_entry_index())
    }

    /// Only names the snapshot. The voter that needs it fetches the file.
    fn snapshot(&self, request_index: u64, _: u64) -> raft::Result<Snapshot> {
        let unavailable = raft::Error::Store(raft::StorageError::SnapshotTemporarilyUnavailable);
        let newest = self.newest_snapshot.filter(|newest| newest.index >= request_index).ok_or(unavailable)?;
        let Base { index, epoch, end_offset } = newest;
        let mut snapshot = Snapshot { data: SnapshotId { end_offset, epoch }.to_bytes(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, epoch as u64);
        // The voter that gets it adds itself, if it became a voter later.
        metadata.set_conf_state(conf_state(self.voters_at(end_offset - 1), self.identity));
        Ok(snapshot)
    }
}

/// A log in memory that loses unflushed batches in a crash, for tests and simulations.
#[cfg(any(test, feature = "sim"))]
pub mod memory {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Default)]
    struct Inner {
        start: Offset,
        batches: Vec<Bytes>,
        durable: usize,
        flushes: u64,
    }

    /// Clones share the content, like two logs opened on the same directory.
    #[derive(Clone, Default)]
    pub struct MemoryLog(Arc<Mutex<Inner>>);

    fn view(batch: &Bytes) -> BatchView<'_> {
        BatchView::parse(batch).expect("only whole batches are appended")
    }

    impl MemoryLog {
        fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Simulates a power failure: batches that were not flushed are lost.
        pub fn crash(&self) {
            let mut inner = self.inner();
            let durable = inner.durable;
            inner.batches.truncate(durable);
        }

        pub fn flushes(&self) -> u64 {
            self.inner().flushes
        }

        /// The bytes of all batches, in order.
        pub fn bytes(&self) -> Vec<u8> {
            self.inner().batches.concat()
        }
    }

    impl BatchLog for MemoryLog {
        fn log_start_offset(&self) -> Offset {
            let inner = self.inner();
            inner.batches.first().map_or(inner.start, |batch| view(batch).base_offset())
        }
        fn log_end_offset(&self) -> Offset {
            let inner = self.inner();
            inner.batches.last().map_or(inner.start, |batch| view(batch).next_offset())
        }
        fn append(&mut self, batches: Bytes) -> io::Result<()> {
            self.inner().batches.extend(iter_batches(&batches).map(|batch| Bytes::copy_from_slice(batch.bytes())));
            Ok(())
        }
        fn flush(&mut self) -> io::Result<()> {
            let mut inner = self.inner();
            inner.durable = inner.batches.len();
            inner.flushes += 1;
            Ok(())
        }
        fn read(&self, from: Offset, max_bytes: usize) -> io::Result<Bytes> {
            let mut bytes = Vec::new();
            for batch in self.inner().batches.iter().filter(|batch| view(batch).last_offset() >= from) {
                if !bytes.is_empty() && bytes.len() + batch.len() > max_bytes {
                    break;
                }
                bytes.extend_from_slice(batch);
            }
            Ok(bytes.into())
        }
        fn reserve_space(&mut self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn truncate_to(&mut self, offset: Offset) -> io::Result<()> {
            let mut inner = self.inner();
            inner.batches.retain(|batch| view(batch).last_offset() < offset);
            inner.durable = inner.durable.min(inner.batches.len());
            Ok(())
        }
        fn truncate_fully_and_start_at(&mut self, offset: Offset) -> io::Result<()> {
            let mut inner = self.inner();
            inner.batches.clear();
            (inner.durable, inner.start) = (0, offset);
            Ok(())
        }
        fn delete_before(&mut self, offset: Offset) -> io::Result<()> {
            let mut inner = self.inner();
            let before = inner.batches.len();
            inner.batches.retain(|batch| view(batch).last_offset() >= offset);
            inner.durable -= before - inner.batches.len();
            inner.start = offset;
            Ok(())
        }
        fn close(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
