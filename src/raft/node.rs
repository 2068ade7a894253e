//! raft-rs as the driver uses it.
//!
//! Owns what raft-rs does not do as this broker needs it: election timeouts come from the environment's randomness, so
//! that a simulation can be replayed; a proposal that cannot be made is an answer and not an error of the log; and
//! proposals of other nodes are never taken, since they were decided on another image. Also hides raft's logger. Leaves
//! the order of writing, sending and applying to the driver.

use std::sync::Arc;

use raft::{
    Config, ProgressState, RawNode, SnapshotStatus, StateRole,
    eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2},
};
pub(super) use raft::{
    Ready,
    eraftpb::{Entry, Message, MessageType},
};

use super::{
    logger::logger,
    storage::{MetadataStorage, node_id, raft_id},
};
use crate::{
    env::Random,
    types::{BrokerId, LeaderEpoch},
};

/// Without a sign of a leader for this many ticks, and up to twice as many, a node asks for votes.
const ELECTION_TICKS: usize = 10;
/// A leader sends a heartbeat after this many ticks.
const HEARTBEAT_TICKS: usize = 3;
/// If the leader's process has ended, each voter lets the one before it try for this many ticks.
const TURN_TICKS: usize = 3;
/// Votes that are only asked for on trial are asked for again after this many ticks, if the leader's process has ended.
const TRIAL_TICKS: usize = 2;
/// Messages with entries that a follower has not acknowledged yet.
const MAX_INFLIGHT_MESSAGES: usize = 64;
/// Entries in one message.
const MAX_MESSAGE_BYTES: u64 = 1 << 20;
/// Proposed entries that are not committed yet. More are refused.
const MAX_UNCOMMITTED_BYTES: u64 = 16 << 20;
/// At most this many committed bytes are handed out to be applied at once.
const MAX_APPLY_BYTES: u64 = 4 << 20;

/// raft-rs found the log or a message invalid.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RaftError(#[from] raft::Error);

/// A proposal was not made: this node is not the leader, is handing over its leadership, or has too much in flight.
#[derive(Debug)]
pub(super) struct Refused;

#[derive(Clone, Copy)]
struct EndedLeader {
    id: u64,
    epoch: u64,
}

/// The highest number for which a majority has answered [`Node::confirm`]; so have lower ones.
pub(super) fn confirmed(ready: &mut Ready) -> Option<u64> {
    let numbers = ready.take_read_states().into_iter().map(|state| state.request_ctx);
    numbers.filter_map(|number| Some(u64::from_be_bytes(number.try_into().ok()?))).max()
}

/// See the head of the file.
pub(super) struct Node {
    raw: RawNode<MetadataStorage>,
    random: Arc<dyn Random>,
    /// Ticks until the next election; raft-rs draws its own at moments of its choice, and it is overwritten.
    election_timeout: usize,
    /// Epoch, role and leader when `election_timeout` was drawn.
    drawn_for: (u64, StateRole, u64),
    /// A leader whose process has ended, and its epoch.
    ended: Option<EndedLeader>,
    /// The last trial vote that was refused because there was a leader.
    refused_trial: Option<Message>,
}

impl Node {
    /// A node that has applied the entries up to `applied`.
    pub(super) fn new(
        id: BrokerId,
        applied: u64,
        storage: MetadataStorage,
        random: Arc<dyn Random>,
    ) -> Result<Self, RaftError> {
        let config = Config {
            id: raft_id(id),
            applied,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            pre_vote: true,
            check_quorum: true,
            max_inflight_msgs: MAX_INFLIGHT_MESSAGES,
            max_size_per_msg: MAX_MESSAGE_BYTES,
            max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
            max_committed_size_per_ready: MAX_APPLY_BYTES,
            ..Default::default()
        };
        let raw = RawNode::new(&config, storage, &logger())?;
        let mut node = Node {
            raw,
            random,
            election_timeout: 0,
            drawn_for: (0, StateRole::Follower, 0),
            ended: None,
            refused_trial: None,
        };
        node.draw_election_timeout();
        Ok(node)
    }

    pub(super) fn store(&self) -> &MetadataStorage {
        self.raw.store()
    }

    pub(super) fn mut_store(&mut self) -> &mut MetadataStorage {
        self.raw.mut_store()
    }

    pub(super) fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// raft's term.
    pub(super) fn epoch(&self) -> LeaderEpoch {
        self.raw.raft.term as LeaderEpoch
    }

    pub(super) fn leader(&self) -> Option<BrokerId> {
        node_id(self.raw.raft.leader_id)
    }

    /// The last entry that a voter has, as far as the leader knows.
    pub(super) fn matched(&self, voter: BrokerId) -> Option<u64> {
        self.raw.raft.prs().get(raft_id(voter)).map(|progress| progress.matched)
    }

    /// Tells raft the voters that the storage has now. Sets of voters differ by one voter, so each majority of one set
    /// meets each majority of the next.
    pub(super) fn update_voters(&mut self) -> Result<(), RaftError> {
        let (wanted, now) = (self.store().conf_state(), self.raw.raft.prs().conf().to_conf_state());
        let new = |wanted: &[u64], now: &[u64], kind: ConfChangeType| {
            let new: Vec<_> = wanted.iter().filter(|id| !now.contains(id)).map(|id| (*id, kind)).collect();
            new
        };
        let gone = |now: &[u64]| {
            let gone = now.iter().filter(|id| !wanted.voters.contains(id) && !wanted.learners.contains(id));
            gone.map(|id| (*id, ConfChangeType::RemoveNode)).collect::<Vec<_>>()
        };
        let changes = [
            new(&wanted.voters, &now.voters, ConfChangeType::AddNode),
            new(&wanted.learners, &now.learners, ConfChangeType::AddLearnerNode),
            gone(&now.voters),
            gone(&now.learners),
        ];
        for (node_id, change_type) in changes.into_iter().flatten() {
            let mut change = ConfChangeV2::default();
            change.changes.push(ConfChangeSingle { change_type, node_id, ..ConfChangeSingle::default() });
            self.raw.raft.apply_conf_change(&change)?;
        }
        Ok(())
    }

    /// Asks for votes now; the only voter becomes the leader.
    pub(super) fn campaign(&mut self) -> Result<(), RaftError> {
        Ok(self.raw.campaign()?)
    }

    /// Proposes a batch as one entry.
    pub(super) fn propose(&mut self, batch: Vec<u8>) -> Result<(), Refused> {
        // A follower would pass the proposal on to the leader.
        if !self.is_leader() {
            return Err(Refused);
        }
        // For a proposal of data raft-rs has no other errors.
        self.raw.propose(Vec::new(), batch).map_err(|_| Refused)
    }

    /// The leader asks the other voters whether it still leads. [`confirmed`] says when a majority has answered. The
    /// number must be higher than any before.
    pub(super) fn confirm(&mut self, number: u64) {
        self.raw.read_index(number.to_be_bytes().to_vec());
    }

    /// One unit of raft's time has passed.
    pub(super) fn tick(&mut self) {
        let raft = &self.raw.raft;
        if self.drawn_for != (raft.term, raft.state, raft.leader_id) {
            self.draw_election_timeout();
        }
        if self.is_leaderless() {
            let raft = &mut self.raw.raft;
            raft.election_elapsed = raft.election_elapsed.max(ELECTION_TICKS - TRIAL_TICKS);
        }
        // raft-rs may have drawn one of its own meanwhile.
        self.raw.raft.set_randomized_election_timeout(self.election_timeout);
        self.raw.tick();
        if self.raw.raft.election_elapsed == 0 {
            self.draw_election_timeout();
        }
    }

    /// The leader's process has ended, so its lease, in which no other node gets votes, need not be waited for. All
    /// others hear of it at about the same time; they take turns, so that they do not divide the votes. The first asks
    /// for votes now.
    pub(super) fn on_leader_end(&mut self) -> Result<(), RaftError> {
        let raft = &mut self.raw.raft;
        if raft.state != StateRole::Follower || node_id(raft.leader_id).is_none() {
            return Ok(());
        }
        self.ended = Some(EndedLeader { id: raft.leader_id, epoch: raft.term });
        raft.election_elapsed = raft.election_elapsed.max(ELECTION_TICKS);
        self.draw_election_timeout();
        let epoch = self.raw.raft.term;
        // Another voter has heard of it earlier and has asked already.
        if let Some(trial) = self.refused_trial.take().filter(|trial| trial.term > epoch) {
            self.step_raft(trial)?;
        }
        if self.turn() == 0 && self.raw.raft.promotable() {
            self.campaign()?;
        }
        Ok(())
    }

    /// Whether the process of this epoch's leader has ended, and the election of the next has not begun. Trial votes
    /// change nothing on a disk, so they may be asked for often; in an election, time passes as always.
    fn is_leaderless(&self) -> bool {
        let raft = &self.raw.raft;
        self.ended.is_some_and(|ended| ended.epoch == raft.term)
            && matches!(raft.state, StateRole::Follower | StateRole::PreCandidate)
    }

    /// How many of the other voters try first when the leader has ended.
    fn turn(&self) -> usize {
        let raft = &self.raw.raft;
        let earlier = |id: &u64| *id < raft.id && self.ended.is_none_or(|ended| ended.id != *id);
        raft.prs().conf().voters().ids().iter().filter(earlier).count()
    }

    /// The voter that has most of the log takes over the leadership. Returns false if no other voter was heard lately.
    pub(super) fn transfer_leadership(&mut self) -> bool {
        let raft = &mut self.raw.raft;
        let own = raft.id;
        let others = raft.prs().iter().filter(|(id, progress)| {
            **id != own && progress.recent_active && raft.prs().conf().voters().contains(**id)
        });
        let next = others.max_by_key(|(_, progress)| progress.matched).map(|(id, _)| *id);
        if let Some(next) = next {
            self.raw.transfer_leader(next);
        }
        next.is_some()
    }

    fn draw_election_timeout(&mut self) {
        let raft = &self.raw.raft;
        self.drawn_for = (raft.term, raft.state, raft.leader_id);
        let later = if self.is_leaderless() {
            (ELECTION_TICKS - 1).min(self.turn() * TURN_TICKS)
        } else {
            self.random.below(ELECTION_TICKS as u64) as usize
        };
        self.election_timeout = ELECTION_TICKS + later;
    }

    /// Takes a message of another voter. One that is out of date, or that no other voter may send, changes nothing.
    pub(super) fn step(&mut self, message: Message) -> Result<(), RaftError> {
        match message.msg_type {
            MessageType::MsgPropose => return Ok(()),
            MessageType::MsgSnapStatus => {
                if let Some(voter) = node_id(message.from).filter(|_| message.term == self.raw.raft.term) {
                    self.snapshot_failed(voter, message.index);
                }
                return Ok(());
            }
            MessageType::MsgHeartbeat if message.commit > self.raw.raft.raft_log.last_index() => {
                return self.step_with_lost_entries(message);
            }
            MessageType::MsgAppendResponse if message.reject => self.forget_lost_entries(&message),
            MessageType::MsgRequestPreVote if self.leader().is_some() => self.refused_trial = Some(message.clone()),
            // The leader lives.
            MessageType::MsgHeartbeat | MessageType::MsgAppend => {
                self.ended.take_if(|ended| ended.epoch == message.term);
            }
            _ => {}
        }
        self.step_raft(message)
    }

    fn step_raft(&mut self, message: Message) -> Result<(), RaftError> {
        match self.raw.step(message) {
            Err(raft::Error::StepPeerNotFound | raft::Error::ProposalDropped | raft::Error::StepLocalMsg) => Ok(()),
            other => Ok(other?),
        }
    }

    /// A heartbeat whose commit index is above the last entry: the leader believes that this node has entries which it
    /// has lost, since its directory was emptied. raft-rs would end the process. The leader hears where the log ends.
    fn step_with_lost_entries(&mut self, mut message: Message) -> Result<(), RaftError> {
        let (from, term, commit) = (message.from, message.term, std::mem::take(&mut message.commit));
        self.step_raft(message)?;
        let raft = &mut self.raw.raft;
        if (raft.state, raft.term, raft.leader_id) == (StateRole::Follower, term, from) {
            raft.msgs.push(Message {
                msg_type: MessageType::MsgAppendResponse,
                to: from,
                from: raft.id,
                term,
                index: commit,
                reject: true,
                reject_hint: raft.raft_log.last_index(),
                log_term: raft.raft_log.last_term(),
                commit: raft.raft_log.committed,
                ..Message::default()
            });
        }
        Ok(())
    }

    /// A voter may lose entries that it has acknowledged, see [`Node::step_with_lost_entries`]. The leader then starts
    /// anew with it. If the message is only late, the next acknowledgement corrects that.
    fn forget_lost_entries(&mut self, message: &Message) {
        let raft = &mut self.raw.raft;
        if raft.state != StateRole::Leader || raft.term != message.term {
            return;
        }
        let Some(progress) = raft.mut_prs().get_mut(message.from) else { return };
        if message.reject_hint < progress.matched && progress.state != ProgressState::Snapshot {
            progress.matched = 0;
            progress.become_probe();
            progress.next_idx = message.reject_hint + 1;
        }
    }

    /// Whether the snapshot that a message names must be fetched before the message can be stepped. Else raft needs
    /// nothing of it.
    pub(super) fn needs_snapshot(&self, message: &Message) -> bool {
        if message.msg_type != MessageType::MsgSnapshot {
            return false;
        }
        let (raft, snapshot) = (&self.raw.raft, message.get_snapshot().get_metadata());
        message.term >= raft.term
            && snapshot.index > raft.raft_log.committed
            && !raft.raft_log.match_term(snapshot.index, snapshot.term)
    }

    /// Whether the voter still needs the snapshot up to this entry, as far as the leader knows.
    pub(super) fn is_sending_snapshot(&self, voter: BrokerId, index: u64) -> bool {
        let progress = self.raw.raft.prs().get(raft_id(voter));
        progress.is_some_and(|progress| {
            self.is_leader() && progress.state == ProgressState::Snapshot && progress.pending_snapshot == index
        })
    }

    /// The voter has not got the snapshot up to this entry. raft tries again after the next heartbeat.
    pub(super) fn snapshot_failed(&mut self, voter: BrokerId, index: u64) {
        if self.is_sending_snapshot(voter, index) {
            self.raw.report_snapshot(raft_id(voter), SnapshotStatus::Failure);
        }
    }

    /// The next work that raft requests. Nothing else may be called before [`Node::advance`].
    pub(super) fn take_ready(&mut self) -> Option<Ready> {
        self.raw.has_ready().then(|| self.raw.ready())
    }

    /// The entries of a `Ready` are written, though maybe not synced.
    pub(super) fn advance(&mut self, ready: Ready) {
        self.raw.advance_append_async(ready);
    }

    /// Everything up to the `Ready` with this number is durable.
    pub(super) fn on_persisted(&mut self, number: u64) {
        self.raw.on_persist_ready(number);
    }

    /// The entries up to `index` are applied.
    pub(super) fn on_applied(&mut self, index: u64) {
        self.raw.advance_apply_to(index);
    }
}
