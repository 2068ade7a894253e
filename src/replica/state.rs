//! What a replica knows of its partition's leadership and how far the in-sync replicas are: pure,
//! events in, watermark out.
//!
//! Invariants: INV-R3 (the high watermark is the minimum over the in-sync replicas and never falls while
//! this broker leads), INV-R5 (acks=all needs `min.insync.replicas`).

use std::collections::BTreeMap;

use crate::types::{BrokerId, LeaderEpoch, Offset};

/// A partition as the metadata image has it, as far as a replica needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// -1 where there is none.
    pub leader: BrokerId,
    /// Of that leader.
    pub leader_epoch: LeaderEpoch,
    /// How often any of this has changed.
    pub partition_epoch: i32,
    /// All replicas, preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// Those in sync.
    pub isr: Vec<BrokerId>,
}

/// One replica's view.
#[derive(Debug)]
pub struct ReplicaState {
    local: BrokerId,
    leadership: Leadership,
    high_watermark: Offset,
    /// Where each follower's log ended when it last fetched in this leader epoch.
    follower_ends: BTreeMap<BrokerId, Offset>,
}

impl ReplicaState {
    /// A replica that has been told nothing yet, with the high watermark that was checkpointed.
    pub fn new(local: BrokerId, high_watermark: Offset) -> Self {
        let leadership =
            Leadership { leader: -1, leader_epoch: -1, partition_epoch: -1, replicas: Vec::new(), isr: Vec::new() };
        ReplicaState { local, leadership, high_watermark, follower_ends: BTreeMap::new() }
    }

    /// Takes over what the metadata says. Answers whether this broker has become the leader of a new
    /// epoch. News older than what is known are left out.
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

    /// Whether this broker leads.
    pub fn is_leader(&self) -> bool {
        self.leadership.leader == self.local
    }

    /// What the metadata said last.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// INV-R5: how many replicas are in sync.
    pub fn in_sync_replicas(&self) -> usize {
        self.leadership.isr.len()
    }

    /// All below is on every in-sync replica.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The log has grown to `log_end_offset`, or a follower has. Answers the high watermark where it moved (INV-R3).
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

    /// Keeps the watermark inside of the log after its start has moved or its end was cut.
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
        assert_eq!(state.advance(5), None, "nobody leads yet");
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
