//! The voters of the quorum, as the log names them at each offset (KIP-853).
//!
//! Owns the sets of voters in the log, and the question who is a voter: a node id together with the id of its metadata
//! directory, so that a node whose disk was emptied is not the voter that it was. The newest set counts as soon as it
//! is in the log, committed or not; if it is truncated, the set before it counts again. Leaves changes of the set to
//! `voter_changes.rs`.

use std::collections::VecDeque;

use raft::eraftpb::ConfState;
use uuid::Uuid;

use super::{
    control_records::{Voter, VoterEndpoint, VotersRecord},
    storage::raft_id,
};
use crate::types::{BrokerId, Offset};

/// raft needs a voter, also on a node that does not know one yet.
const UNKNOWN_VOTER: u64 = u64::MAX;

/// This node's ids in the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub node_id: BrokerId,
    /// The id of the directory with the metadata log.
    pub directory_id: Uuid,
}

impl VotersRecord {
    /// The voter with this node id, whatever its directory.
    pub fn voter(&self, id: BrokerId) -> Option<&Voter> {
        // linear: a quorum has a few voters
        self.voters.iter().find(|voter| voter.voter_id == id)
    }

    /// Whether this node with this directory is a voter. The directory of a voter is nil until it is known. The only
    /// voter has voted for nobody else, so it may have got a new directory id.
    pub fn contains(&self, Identity { node_id, directory_id }: Identity) -> bool {
        match &self.voters[..] {
            [only] => only.voter_id == node_id,
            _ => self.voter(node_id).is_some_and(|voter| voter.is_in(directory_id)),
        }
    }
}

impl Voter {
    /// Whether the voter's directory is this one, as far as it is known.
    pub fn is_in(&self, directory_id: Uuid) -> bool {
        self.voter_directory_id.is_nil() || self.voter_directory_id == directory_id
    }

    /// Where other nodes reach the voter.
    pub fn endpoint(&self) -> Option<&VoterEndpoint> {
        self.endpoints.first()
    }
}

/// The voters as raft on this node names them. A node that is no voter sees itself as a learner, which raft needs to
/// let it follow.
pub(super) fn conf_state(voters: &VotersRecord, own: Identity) -> ConfState {
    let is_voter = voters.contains(own);
    let ids = voters.voters.iter().map(|voter| voter.voter_id).filter(|id| is_voter || *id != own.node_id);
    let mut voters: Vec<u64> = ids.map(raft_id).collect();
    if voters.is_empty() {
        voters.push(UNKNOWN_VOTER);
    }
    let learners = if is_voter { Vec::new() } else { vec![raft_id(own.node_id)] };
    ConfState { voters, learners, ..ConfState::default() }
}

/// All sets of voters that the log may come back to.
pub(super) struct VoterSets {
    /// The set before the first offset in `later`.
    base: VotersRecord,
    /// Whether a snapshot or a batch contains `base`. If not, the first leader writes it.
    base_is_stored: bool,
    /// The base offset of a batch and the voters in it.
    later: VecDeque<(Offset, VotersRecord)>,
}

impl VoterSets {
    pub(super) fn new(base: VotersRecord, base_is_stored: bool) -> Self {
        VoterSets { base, base_is_stored, later: VecDeque::new() }
    }

    /// The newest set.
    pub(super) fn latest(&self) -> &VotersRecord {
        self.later.back().map_or(&self.base, |(_, voters)| voters)
    }

    /// The offset of the batch with the newest set; `None` if it is older than the log.
    pub(super) fn latest_offset(&self) -> Option<Offset> {
        self.later.back().map(|(offset, _)| *offset)
    }

    /// The set that the log names up to `offset`.
    pub(super) fn at(&self, offset: Offset) -> &VotersRecord {
        let found = self.later.iter().rev().find(|(base_offset, _)| *base_offset <= offset);
        found.map_or(&self.base, |(_, voters)| voters)
    }

    pub(super) fn is_stored(&self) -> bool {
        self.base_is_stored || !self.later.is_empty()
    }

    pub(super) fn add(&mut self, base_offset: Offset, voters: VotersRecord) {
        self.later.push_back((base_offset, voters));
    }

    /// The log ends at `offset` now.
    pub(super) fn truncate(&mut self, offset: Offset) {
        self.later.retain(|(base_offset, _)| *base_offset < offset);
    }

    /// The log starts at `offset` now, and a snapshot contains what was before.
    pub(super) fn forget_before(&mut self, offset: Offset) {
        while self.later.front().is_some_and(|(base_offset, _)| *base_offset < offset)
            && let Some((_, voters)) = self.later.pop_front()
        {
            (self.base, self.base_is_stored) = (voters, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::control_records::KRaftVersionFeature;

    fn voters(ids: &[(BrokerId, u128)]) -> VotersRecord {
        let voter = |(id, directory): &(BrokerId, u128)| Voter {
            voter_id: *id,
            voter_directory_id: Uuid::from_u128(*directory),
            endpoints: Vec::new(),
            kraft_version_feature: KRaftVersionFeature::default(),
        };
        VotersRecord { version: 0, voters: ids.iter().map(voter).collect() }
    }

    fn node(node_id: BrokerId, directory: u128) -> Identity {
        Identity { node_id, directory_id: Uuid::from_u128(directory) }
    }

    #[test]
    fn a_voter_is_a_node_with_its_directory() {
        let three = voters(&[(1, 11), (2, 12), (3, 0)]);
        let is_voter = [node(1, 11), node(1, 99), node(2, 12), node(3, 13), node(4, 14)].map(|it| three.contains(it));
        assert_eq!(is_voter, [true, false, true, true, false]);
        assert!(voters(&[(1, 11)]).contains(node(1, 99)), "the only voter");
        assert!(!voters(&[(1, 11)]).contains(node(2, 11)) && !voters(&[]).contains(node(1, 11)));
        let conf = |own| {
            let ConfState { voters, learners, .. } = conf_state(&three, own);
            (voters, learners)
        };
        assert_eq!(conf(node(1, 11)), (vec![2, 3, 4], vec![]));
        assert_eq!(conf(node(1, 99)), (vec![3, 4], vec![2]));
        assert_eq!(conf(node(4, 14)), (vec![2, 3, 4], vec![5]));
        assert_eq!(conf_state(&voters(&[]), node(1, 11)).voters, [UNKNOWN_VOTER]);
    }

    #[test]
    fn the_sets_follow_the_log_forth_and_back() {
        let [bootstrap, first, second] = [voters(&[(1, 0)]), voters(&[(1, 11)]), voters(&[(1, 11), (2, 12)])];
        let mut sets = VoterSets::new(bootstrap.clone(), false);
        assert!((sets.latest(), sets.is_stored(), sets.latest_offset()) == (&bootstrap, false, None));
        sets.add(1, first.clone());
        sets.add(20, second.clone());
        assert!((sets.latest(), sets.is_stored(), sets.latest_offset()) == (&second, true, Some(20)));
        assert!([0, 1, 19, 20, 99].map(|offset| sets.at(offset)) == [&bootstrap, &first, &first, &second, &second]);
        sets.truncate(20);
        assert!(sets.latest() == &first);
        sets.truncate(0);
        assert!((sets.latest(), sets.is_stored()) == (&bootstrap, false));
        sets.add(1, first.clone());
        sets.add(20, second.clone());
        sets.forget_before(10);
        assert!((sets.at(5), sets.latest(), sets.is_stored()) == (&first, &second, true));
        sets.truncate(10);
        assert!((sets.latest(), sets.is_stored(), sets.latest_offset()) == (&first, true, None));
    }
}
