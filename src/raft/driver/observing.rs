//! The metadata log by Fetch, on both sides: the leader reads it for observers, and an observer hands what it has
//! fetched to raft, as if the leader had sent it. Apache: `KafkaRaftClient.handleFetchRequest` and
//! `handleFetchResponse`.
//!
//! Owns the translation between offsets, which Fetch has, and entries, which raft has: one batch is one entry. The
//! leader gives committed records only. Leaves the requests to `follow.rs`, and the API to `api/metadata_fetch.rs`.

use super::*;
use crate::{protocol::record_batch::iter_batches, raft::storage::LogPosition};

/// Records in one response have at most about this many bytes.
const MAX_FETCH_BYTES: usize = 1 << 20;
/// A voter that knows no leader for this many ticks looks for one, since it may have been removed from the voters.
pub(super) const TICKS_WITHOUT_LEADER: u32 = 60;

/// What an observer asks the leader for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataFetch {
    pub observer: Identity,
    /// -1 if the observer does not know it.
    pub leader_epoch: LeaderEpoch,
    pub offset: Offset,
    /// The epoch of the record before `offset`.
    pub last_epoch: LeaderEpoch,
    /// The observer has just sent this request. Later looks on behalf of a request that waits do not show that it
    /// lives.
    pub is_new: bool,
}

/// What the leader gives to an observer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataFetched {
    /// The offset after the last committed record.
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
    pub content: FetchedContent,
}

/// The content of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchedContent {
    /// Whole batches from the offset of the request on.
    Records(Bytes),
    /// The logs differ: the leader's records of this epoch and earlier ones end at this offset.
    Diverging(LeaderEpoch, Offset),
    /// The records are trimmed, and this snapshot contains them.
    Snapshot(SnapshotId),
}

/// Why the leader gives nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MetadataFetchError {
    #[error("this node is not the leader")]
    NotLeader,
    #[error("the epoch of the request is over")]
    FencedLeaderEpoch,
    #[error("the epoch of the request is not known")]
    UnknownLeaderEpoch,
    #[error("the metadata log cannot be read")]
    Io,
}

/// The leader, its epoch, and what it gives.
pub type MetadataFetchReply = (Option<BrokerId>, LeaderEpoch, Result<MetadataFetched, MetadataFetchError>);

/// Where an observer continues to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::raft) struct Position {
    pub(in crate::raft) leader: Option<BrokerId>,
    pub(in crate::raft) epoch: LeaderEpoch,
    pub(in crate::raft) offset: Offset,
    pub(in crate::raft) last_epoch: LeaderEpoch,
}

/// What an observer has got from a leader.
#[derive(Debug)]
pub(in crate::raft) struct Observed {
    pub(in crate::raft) leader: BrokerId,
    pub(in crate::raft) epoch: LeaderEpoch,
    /// The offset of the request.
    pub(in crate::raft) offset: Offset,
    pub(in crate::raft) fetched: MetadataFetched,
}

impl Driver {
    /// Reads the log for an observer.
    pub(super) fn fetch_metadata(&mut self, fetch: MetadataFetch) -> MetadataFetchReply {
        let epoch = self.node.epoch();
        let fetched = match fetch.leader_epoch.cmp(&epoch) {
            _ if !self.is_active() => Err(MetadataFetchError::NotLeader),
            std::cmp::Ordering::Less if fetch.leader_epoch >= 0 => Err(MetadataFetchError::FencedLeaderEpoch),
            std::cmp::Ordering::Greater => Err(MetadataFetchError::UnknownLeaderEpoch),
            _ => self.read_for(fetch).map_err(|error| {
                tracing::error!(%error, "the metadata log cannot be read for an observer");
                MetadataFetchError::Io
            }),
        };
        (self.node.leader(), epoch, fetched)
    }

    fn read_for(&mut self, fetch: MetadataFetch) -> io::Result<MetadataFetched> {
        let (store, high_watermark) = (self.node.store(), self.applied_offset() + 1);
        let content = match store.check_position(fetch.offset, fetch.last_epoch) {
            LogPosition::Continues => {
                let Identity { node_id, directory_id } = fetch.observer;
                let now = (self.env.clock.monotonic(), self.env.clock.now_ms());
                if fetch.is_new {
                    self.sessions.on_message(node_id, now.0);
                }
                let voters = store.voters();
                let is_voter = |(node_id, directory_id)| voters.contains(Identity { node_id, directory_id });
                self.observers.on_fetch((node_id, directory_id), fetch.offset, high_watermark, now, is_voter);
                let records = self.node.store().read(fetch.offset, high_watermark, MAX_FETCH_BYTES)?;
                FetchedContent::Records(records)
            }
            LogPosition::Diverges(epoch, end_offset) => FetchedContent::Diverging(epoch, end_offset),
            LogPosition::IsTrimmed(id) => FetchedContent::Snapshot(id),
        };
        let log_start_offset = self.node.store().base().end_offset;
        Ok(MetadataFetched { high_watermark, log_start_offset, content })
    }

    /// Where this node continues to fetch, if it is an observer.
    pub(super) fn position(&self) -> Position {
        let store = self.node.store();
        let offset = self.fetch_from.unwrap_or(store.end_offset());
        let last_epoch = store.entry_ending_at(offset - 1).map_or(store.last_epoch(), |(_, epoch)| epoch);
        Position { leader: self.node.leader(), epoch: self.node.epoch(), offset, last_epoch }
    }

    /// Whether this node fetches the log: it is no voter, or it knows no leader for long.
    pub(super) fn update_observing(&mut self) {
        let is_lost = self.ticks_without_leader >= TICKS_WITHOUT_LEADER;
        let observes = !self.node.store().is_voter() || is_lost;
        if self.observes.get() != observes {
            self.observes.set(observes);
        }
    }

    /// One tick has passed.
    pub(super) fn count_tick_without_leader(&mut self) {
        let count = self.ticks_without_leader.saturating_add(1);
        self.ticks_without_leader = if self.node.leader().is_some() { 0 } else { count };
        self.update_observing();
    }

    /// Takes what this node has fetched from a leader.
    pub(super) fn on_observed(&mut self, Observed { leader, epoch, offset, fetched }: Observed) -> Result<(), Fatal> {
        if self.unwritten.is_some() {
            self.drive()?;
        }
        if self.unwritten.is_some() || epoch < self.node.epoch() || self.node.is_leader() {
            return Ok(());
        }
        match fetched.content {
            FetchedContent::Records(records) => {
                self.fetch_from = None;
                match self.append_message(leader, epoch, offset, fetched.high_watermark, &records) {
                    Some(message) => self.node.step(message)?,
                    None => tracing::debug!(offset, "the log has changed since it was fetched"),
                }
                Ok(())
            }
            FetchedContent::Diverging(epoch, end_offset) => {
                self.fetch_from =
                    Some(self.node.store().end_of_epoch(epoch, end_offset).max(self.applied_offset() + 1));
                Ok(())
            }
            FetchedContent::Snapshot(id) => {
                self.fetch_snapshot(leader, epoch, id, None);
                Ok(())
            }
        }
    }

    /// The message with which the leader would have sent these batches.
    fn append_message(
        &self,
        leader: BrokerId,
        epoch: LeaderEpoch,
        offset: Offset,
        high_watermark: Offset,
        records: &Bytes,
    ) -> Option<Message> {
        let (index, log_term) = self.node.store().entry_ending_at(offset - 1)?;
        let (mut entries, mut next, mut commit) = (Vec::new(), offset, index);
        for batch in iter_batches(records) {
            if batch.base_offset() != next || batch.partition_leader_epoch() > epoch || !batch.crc_is_valid() {
                tracing::warn!(offset = next, "a batch that was fetched is not the next one");
                break;
            }
            next = batch.next_offset();
            entries.push(Entry {
                index: index + 1 + entries.len() as u64,
                term: batch.partition_leader_epoch() as u64,
                data: records.slice_ref(batch.bytes()),
                ..Entry::default()
            });
            if next <= high_watermark {
                commit = index + entries.len() as u64;
            }
        }
        Some(Message {
            msg_type: MessageType::MsgAppend,
            from: raft_id(leader),
            to: raft_id(self.options.identity.node_id),
            term: epoch as u64,
            index,
            log_term: log_term as u64,
            commit,
            entries: entries.into(),
            ..Message::default()
        })
    }
}
