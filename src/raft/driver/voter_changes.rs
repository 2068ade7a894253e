//! Changes of the voters (KIP-853): one at a time, each decided by the active controller and valid as soon as it is in
//! the log.
//!
//! Owns the checks of a change, and what the leader learns of voters from their messages: the directory of a voter that
//! only the settings have named, and new addresses. Leaves the sets of voters in the log to `voters.rs`, and the way of
//! raft from one set to the next to `node.rs`.

use super::*;
use crate::raft::control_records::{ControlRecord, Voter};

/// A change of one voter.
#[derive(Debug, Clone, PartialEq)]
pub enum VoterChange {
    Add {
        voter: Voter,
        /// Else the change is answered when this node has written it (KIP-1186).
        ack_when_committed: bool,
    },
    Remove(Identity),
    /// New addresses of a voter.
    Update(Voter),
}

/// Why a change was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VoterChangeError {
    #[error("this node is not the active controller")]
    NotController,
    #[error("another change of the voters is not committed yet")]
    Pending,
    #[error("the node is a voter already")]
    Duplicate,
    #[error("there is no such voter")]
    NotFound,
    #[error("the node has not caught up with the metadata log")]
    Lagging,
    #[error("the node hands over its leadership, since a leader is not removed")]
    HandsOver,
}

pub(in crate::raft) type VoterChangeSender = oneshot::Sender<Result<(), VoterChangeError>>;

/// A change that is in the log and not committed.
pub(super) struct PendingChange {
    offset: Offset,
    sender: Option<VoterChangeSender>,
    ack_when_committed: bool,
}

impl Driver {
    /// Makes a change. The sender hears when it is committed, or earlier if the change says so.
    pub(super) fn change_voters(&mut self, change: VoterChange, sender: VoterChangeSender) -> Result<(), Fatal> {
        let ack_when_committed = !matches!(change, VoterChange::Add { ack_when_committed: false, .. });
        let decided = self.decide_change(change);
        let voters = match decided {
            Ok(voters) => voters,
            Err(error) => {
                let _ = sender.send(Err(error));
                return Ok(());
            }
        };
        self.propose_voters(voters, Some(sender), ack_when_committed)
    }

    fn decide_change(&mut self, change: VoterChange) -> Result<VotersRecord, VoterChangeError> {
        if !self.is_active() {
            return Err(VoterChangeError::NotController);
        }
        if self.has_pending_change() {
            return Err(VoterChangeError::Pending);
        }
        let mut voters = self.node.store().voters().clone();
        match change {
            VoterChange::Add { voter, .. } => {
                if voters.voter(voter.voter_id).is_some() {
                    return Err(VoterChangeError::Duplicate);
                }
                if !self.observers.has_caught_up(voter.voter_id, voter.voter_directory_id, self.env.clock.monotonic()) {
                    return Err(VoterChangeError::Lagging);
                }
                voters.voters.push(voter);
                voters.voters.sort_by_key(|voter| voter.voter_id);
            }
            VoterChange::Remove(Identity { node_id, directory_id }) => {
                let is_removed = |voter: &Voter| voter.voter_id == node_id && voter.voter_directory_id == directory_id;
                let before = voters.voters.len();
                voters.voters.retain(|voter| !is_removed(voter));
                if voters.voters.len() == before || voters.voters.is_empty() {
                    return Err(VoterChangeError::NotFound);
                }
                if node_id == self.options.identity.node_id {
                    self.node.transfer_leadership();
                    return Err(VoterChangeError::HandsOver);
                }
            }
            VoterChange::Update(update) => {
                let same = |voter: &&mut Voter| {
                    voter.voter_id == update.voter_id && voter.voter_directory_id == update.voter_directory_id
                };
                let voter = voters.voters.iter_mut().find(same).ok_or(VoterChangeError::NotFound)?;
                *voter = update;
            }
        }
        Ok(voters)
    }

    fn propose_voters(
        &mut self,
        voters: VotersRecord,
        sender: Option<VoterChangeSender>,
        ack_when_committed: bool,
    ) -> Result<(), Fatal> {
        if self.node.store().is_sole_voter() {
            // From now on another voter relies on it.
            self.node.store().sync_hard_state()?;
        }
        let ids = |voters: &VotersRecord| voters.voters.iter().map(|voter| voter.voter_id).collect::<Vec<_>>();
        let (before, after) = (ids(self.node.store().voters()), ids(&voters));
        let records = [ControlRecord::KRaftVoters(voters)];
        let batch = control_batch(self.next_offset, self.node.epoch(), self.env.clock.now_ms(), &records);
        if self.node.propose(batch.to_vec()).is_err() {
            if let Some(sender) = sender {
                let _ = sender.send(Err(VoterChangeError::NotController));
            }
            return Ok(());
        }
        if before != after {
            tracing::info!(voters = ?after, "the voters of the metadata quorum change");
        }
        self.pending_change = Some(PendingChange { offset: self.next_offset, sender, ack_when_committed });
        self.next_offset += 1;
        Ok(())
    }

    fn has_pending_change(&self) -> bool {
        let applied = self.applied_offset();
        self.pending_change.is_some() || self.node.store().voters_offset().is_some_and(|offset| offset > applied)
    }

    /// Answers a change that is committed, or written if that suffices. Another one begins only when it is committed.
    pub(super) fn answer_change(&mut self) {
        let (applied, written) = (self.applied_offset(), self.node.store().end_offset());
        if let Some(change) = &mut self.pending_change
            && !change.ack_when_committed
            && change.offset < written
            && let Some(sender) = change.sender.take()
        {
            let _ = sender.send(Ok(()));
        }
        if let Some(change) = self.pending_change.take_if(|change| change.offset <= applied)
            && let Some(sender) = change.sender
        {
            let _ = sender.send(Ok(()));
        }
    }

    /// This node is no longer the leader, so the change may be lost.
    pub(super) fn refuse_change(&mut self) {
        if let Some(sender) = self.pending_change.take().and_then(|change| change.sender) {
            let _ = sender.send(Err(VoterChangeError::NotController));
        }
    }

    /// The active controller stores what it does not know yet of a voter that has sent messages.
    pub(super) fn learn_voter(&mut self, sent: &QuorumMessagesRequest) -> Result<(), Fatal> {
        let identity = Identity { node_id: sent.from, directory_id: sent.from_directory };
        let address = (!sent.host.is_empty()).then_some((&*sent.host, sent.port));
        if self.must_learn(identity, address) {
            self.learn(identity, address.map(|(host, port)| (host.to_owned(), port)))?;
        }
        Ok(())
    }

    /// The active controller stores its own directory and address, if they have changed. Returns whether it has
    /// something to write.
    pub(super) fn learn_self(&mut self) -> Result<bool, Fatal> {
        let identity = self.options.identity;
        let address = self.options.endpoint.as_ref().map(|endpoint| (endpoint.host.as_str(), endpoint.port));
        let must_learn = self.must_learn(identity, address);
        if must_learn {
            let address = address.map(|(host, port)| (host.to_owned(), port));
            self.learn(identity, address)?;
        }
        Ok(must_learn)
    }

    fn must_learn(&self, identity: Identity, address: Option<(&str, u16)>) -> bool {
        let Some(known) = self.node.store().voters().voter(identity.node_id) else { return false };
        let stored = known.endpoint().map(|endpoint| (endpoint.host.as_str(), endpoint.port));
        let has_moved = address.is_some() && stored != address;
        (known.voter_directory_id != identity.directory_id || has_moved)
            && self.is_active()
            && !self.has_pending_change()
    }

    fn learn(&mut self, identity: Identity, endpoint: Option<(String, u16)>) -> Result<(), Fatal> {
        let mut voters = self.node.store().voters().clone();
        let name = voters.voters.iter().filter_map(Voter::endpoint).map(|endpoint| endpoint.name.clone()).next();
        let name = self.options.endpoint.as_ref().map(|endpoint| endpoint.name.clone()).or(name).unwrap_or_default();
        for voter in voters.voters.iter_mut().filter(|voter| voter.voter_id == identity.node_id) {
            voter.voter_directory_id = identity.directory_id;
            if let Some((host, port)) = endpoint.clone() {
                voter.endpoints = vec![VoterEndpoint { name: name.clone(), host, port }];
            }
        }
        self.propose_voters(voters, None, true)
    }
}
