//! Messages of other voters, and those to them.
//!
//! Owns which messages raft gets, and which may leave this node. Leaves their bytes to `message.rs`, their way to the
//! transport, and their meaning to raft.

use super::*;
use crate::raft::message;

impl Driver {
    /// Takes messages of another voter.
    pub(super) fn receive(&mut self, sent: QuorumMessagesRequest) -> Result<(), Fatal> {
        let own = self.options.identity;
        if sent.from == own.node_id || !(sent.to_directory.is_nil() || sent.to_directory == own.directory_id) {
            tracing::debug!(
                from = sent.from,
                "messages for another node, or for the node that this was before it lost its directory"
            );
            return Ok(());
        }
        self.learn_cluster_id(&sent.cluster_id)?;
        let voter = self.node.store().voters().voter(sent.from);
        let is_voter = voter.is_some_and(|voter| voter.is_in(sent.from_directory));
        if !is_voter && !sent.host.is_empty() {
            let endpoint = Endpoint { host: sent.host.to_string(), port: sent.port };
            self.options.transport.reach(sent.from, sent.from_directory, endpoint);
        }
        self.asked_from.insert(sent.from, sent.from_directory);
        for message in &sent.messages {
            match message::decode(message.clone()) {
                Ok(message) if self.may_step(&message, &sent, is_voter) => {
                    if message::is_from_leader(&message) {
                        self.leader_by_messages = Some((sent.from, message.term as LeaderEpoch));
                    }
                    self.step(message)?;
                }
                // raft-rs ends the process on what no voter sends.
                Ok(message) => tracing::debug!(from = message.from, to = message.to, "a message is not from a voter"),
                Err(error) => tracing::warn!(%error, "a message of another voter cannot be read"),
            }
        }
        if is_voter {
            let log_end_offset = self.node.store().end_offset();
            self.sessions.on_incarnation(sent.from, sent.broker_incarnation, log_end_offset);
            self.note_voter(&sent);
            self.learn_voter(&sent)?;
        }
        Ok(())
    }

    /// A leader remembers when it has heard of a voter, and how far that was: what a Fetch says to Kafka's leader.
    fn note_voter(&mut self, sent: &QuorumMessagesRequest) {
        if !self.node.is_leader() {
            return;
        }
        let store = self.node.store();
        let end_offset = self.node.matched(sent.from).and_then(|index| store.end_offset_of(index)).unwrap_or(-1);
        let now = (self.env.clock.monotonic(), self.env.clock.now_ms());
        let voters = store.voters();
        let is_voter = |(node_id, directory_id)| voters.contains(Identity { node_id, directory_id });
        self.observers.on_fetch((sent.from, sent.from_directory), end_offset, store.end_offset(), now, is_voter);
    }

    /// Requests may come from a node that is no voter here: this node may lack the newest set of voters, unless it is
    /// the only voter. Only voters may answer. Two nodes with the same id, of which one was the other before it lost
    /// its directory, do not both get a vote.
    fn may_step(&self, message: &Message, sent: &QuorumMessagesRequest, is_voter: bool) -> bool {
        let is_response = message::is_response(message);
        let has_voted_for_another = || {
            message.msg_type == MessageType::MsgRequestVote
                && message.term == self.node.epoch() as u64
                && self.node.store().vote().is_some_and(|(voter, directory)| {
                    voter == sent.from && !directory.is_nil() && directory != sent.from_directory
                })
        };
        node_id(message.to) == Some(self.options.identity.node_id)
            && node_id(message.from) == Some(sent.from)
            && (is_voter || !is_response && !self.node.store().is_sole_voter())
            && !has_voted_for_another()
    }

    /// A node that is new takes the id of its cluster from the first voter that knows it.
    pub(super) fn learn_cluster_id(&mut self, cluster_id: &str) -> Result<(), Fatal> {
        if !self.committed.cluster_id.is_empty() || cluster_id.is_empty() {
            return Ok(());
        }
        self.set_cluster_id(cluster_id)
    }

    pub(super) fn set_cluster_id(&mut self, cluster_id: &str) -> Result<(), Fatal> {
        self.options.cluster.adopt_cluster_id(cluster_id)?;
        tracing::info!(cluster_id, "this node belongs to a cluster now");
        (self.committed.cluster_id, self.working.cluster_id) = (cluster_id.into(), cluster_id.into());
        Ok(())
    }

    fn step(&mut self, message: Message) -> Result<(), Fatal> {
        if let Some(from) = node_id(message.from) {
            self.sessions.on_message(from, self.env.clock.monotonic());
        }
        match message {
            // raft must get no messages before its last work is written, since they may change that work. The other
            // voters repeat what matters.
            _ if self.unwritten.is_some() => Ok(()),
            message if self.node.needs_snapshot(&message) => {
                let named = node_id(message.from).zip(SnapshotId::from_bytes(&message.get_snapshot().data));
                if let Some((leader, id)) = named {
                    self.fetch_snapshot(leader, message.term as LeaderEpoch, id, Some(message));
                }
                Ok(())
            }
            message => Ok(self.node.step(message)?),
        }
    }

    pub(super) fn send(&mut self, messages: impl IntoIterator<Item = Message>) {
        let is_voter = self.node.store().is_voter();
        // What an observer has comes from responses to its own requests, and the leader hears of it by these. But the
        // entry that made this node a voter may not have arrived here: then it votes when it is asked, and responds to
        // a leader that sends it messages, for without it there may be no majority (KIP-853).
        let leader = self.leader_by_messages.filter(|(_, epoch)| *epoch == self.node.epoch()).map(|(leader, _)| leader);
        let may_send = |message: &Message| {
            let is_answer = message::is_vote(message) || message::is_response(message) && node_id(message.to) == leader;
            message::is_sendable(message) && (is_voter || is_answer)
        };
        for message in messages.into_iter().filter(may_send) {
            if let Some(to) = node_id(message.to) {
                self.note_named_snapshot(to, &message);
                self.options.transport.send(to, message::encode(&message));
            }
        }
    }
}
