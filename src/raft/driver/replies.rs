//! The replies of the controller that wait.
//!
//! Owns when a reply may be sent: with records, when these are committed and applied; without, when a majority has
//! confirmed that this node still leads, since nothing else would show that the image it comes from is old. Leaves the
//! question itself to raft.

use std::collections::VecDeque;

use crate::{
    controller::Reply,
    raft::handle::{ReplySender, Unavailable},
    types::Offset,
};

/// A reply that is valid once the record at `offset` is applied.
pub(super) struct Pending {
    pub(super) offset: Offset,
    pub(super) reply: Reply,
    pub(super) sender: ReplySender,
}

/// See the head of the file.
#[derive(Default)]
pub(super) struct Replies {
    pending: VecDeque<Pending>,
    /// Those without records, each with the number of its question.
    unconfirmed: VecDeque<(u64, Pending)>,
    /// The number of the last question.
    asked: u64,
}

impl Replies {
    /// A reply is certain if it has records, or if there are no other voters.
    pub(super) fn add(&mut self, pending: Pending, is_certain: bool) {
        if is_certain {
            self.pending.push_back(pending);
        } else {
            self.unconfirmed.push_back((self.asked + 1, pending));
        }
    }

    /// The number of the question whether this node leads, if there are replies that came after the last one.
    pub(super) fn question(&mut self) -> Option<u64> {
        let (number, _) = self.unconfirmed.back().filter(|(number, _)| *number > self.asked)?;
        self.asked = *number;
        Some(self.asked)
    }

    /// A majority has confirmed that this node led when it asked the question of this number.
    pub(super) fn on_confirmed(&mut self, number: u64) {
        let confirmed = self.unconfirmed.partition_point(|(asked, _)| *asked <= number);
        self.pending.extend(self.unconfirmed.drain(..confirmed).map(|(_, pending)| pending));
    }

    /// Everything up to this offset is applied.
    pub(super) fn send(&mut self, applied: Offset) {
        while self.pending.front().is_some_and(|pending| pending.offset <= applied) {
            if let Some(Pending { offset, reply, sender }) = self.pending.pop_front() {
                let _ = sender.send(Ok((reply, offset)));
            }
        }
    }

    pub(super) fn refuse(&mut self, reason: Unavailable) {
        let unconfirmed = self.unconfirmed.drain(..).map(|(_, pending)| pending);
        for pending in self.pending.drain(..).chain(unconfirmed) {
            let _ = pending.sender.send(Err(reason));
        }
    }
}
