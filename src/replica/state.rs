//! The state of a replica: its partition's leadership, and the log end offsets of the in-sync replicas. It is pure:
//! events come in, the high watermark comes out.
//!
//! Invariants: INV-R3 (the high watermark is the minimum over the in-sync replicas and never decreases while
//! this broker leads), INV-R5 (acks=all needs `min.insync.replicas`).

use std::collections::BTreeMap;

use crate::types::{BrokerId, LeaderEpoch, Offset};

/// The part of a partition's metadata that a replica needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// -1 if there is none.
    pub leader: BrokerId,
    /// The epoch of this leader.
    pub leader_epoch: LeaderEpoch,
    /// The number of changes of this metadata.
    pub partition_epoch: i32,
    /// All replicas, preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// The in-sync replicas.
    pub isr: Vec<BrokerId>,
}

/// The state of one replica.
#[derive(Debug)]
pub struct ReplicaState {
    local: BrokerId,
    leadership: Leadership,
    high_watermark: Offset,
    /// The log end offset of each follower at its last fetch in this leader epoch.
    follower_ends: BTreeMap<BrokerId, Offset>,
}

impl ReplicaState {
    /// A replica without metadata, with the high watermark of the checkpoint.
    pub fn new(local: BrokerId, high_watermark: Offset) -> Self {
        let leadership =
            Leadership { leader: -1, leader_epoch: -1, partition_epoch: -1, replicas: Vec::new(), isr: Vec::new() };
        ReplicaState { local, leadership, high_watermark, follower_ends: BTreeMap::new() }
    }

    /// Applies new metadata. Returns whether this broker has become the leader in a new epoch. Metadata that is older
    /// than the current one is ignored.
    pub fn on_metadata(&mut self, leadership: Leadership) -> bool {
        if leadership.partition_epoch < self.leadership.partition_epoch {
            return false;
        }
        let is_new_epoch = leadership.leader_epoch > self.leadership.leader_epoch;
        if is_new_epoch {
            self.follower_ends.clear();
        }
        self.leadership = leadership;
        is_new_epoch && self.is_leader()
    }

    /// Whether this broker is the leader.
    pub fn is_leader(&self) -> bool {
        self.leadership.leader == self.local
    }

    /// The current metadata.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// INV-R5: the number of in-sync replicas.
    pub fn in_sync_replicas(&self) -> usize {
        self.leadership.isr.len()
    }

    /// All records below this offset are on every in-sync replica.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Updates the high watermark after the log has grown to `log_end_offset` or a follower has fetched. Returns the
    /// high watermark if it has increased (INV-R3).
    pub fn advance(&mut self, log_end_offset: Offset) -> Option<Offset> {
        if !self.is_leader() {
            return None;
        }
        let followers = self.leadership.isr.iter().filter(|id| **id != self.local);
        let lowest = followers
            .map(|id| self.follower_ends.get(id).copied().unwrap_or(self.high_watermark))
            .chain([log_end_offset])
            .min()
            .unwrap_or(log_end_offset);
        (lowest > self.high_watermark).then(|| {
            self.high_watermark = lowest;
            lowest
        })
    }

    /// Keeps the high watermark within the log after its start has moved or its end was truncated.
    pub fn clamp(&mut self, log_start_offset: Offset, log_end_offset: Offset) {
        self.high_watermark = self.high_watermark.clamp(log_start_offset, log_end_offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led_by(leader: BrokerId, epoch: LeaderEpoch, isr: &[BrokerId]) -> Leadership {
        Leadership { leader, leader_epoch: epoch, partition_epoch: epoch, replicas: isr.to_vec(), isr: isr.to_vec() }
    }

    #[test]
    fn inv_r3_alone_in_sync_the_high_watermark_is_the_end_of_the_log() {
        let mut state = ReplicaState::new(1, 0);
        assert_eq!(state.advance(5), None, "there is no leader yet");
        assert!(state.on_metadata(led_by(1, 0, &[1])));
        assert_eq!(state.advance(5), Some(5));
        assert_eq!(state.advance(5), None);
        assert!(!state.on_metadata(led_by(1, 0, &[1])), "the same epoch again");
        assert_eq!(state.advance(6), Some(6));
    }

    #[test]
    fn inv_r3_an_in_sync_follower_that_has_not_fetched_holds_the_high_watermark() {
        let mut state = ReplicaState::new(1, 3);
        state.on_metadata(led_by(1, 1, &[1, 2]));
        assert_eq!(state.advance(9), None);
        assert_eq!(state.high_watermark(), 3);
    }

    #[test]
    fn older_metadata_changes_nothing() {
        let mut state = ReplicaState::new(1, 0);
        state.on_metadata(led_by(1, 5, &[1]));
        assert!(!state.on_metadata(led_by(2, 4, &[2])));
        assert!(state.is_leader());
    }
}
