//! The nodes that follow the metadata log, as the leader sees them: by Fetch brokers that are no voters and controllers
//! that may become voters, and by raft's messages the other voters.
//!
//! Owns how far each of them is and when it was heard, which only the leader knows. Leaves the reads of the log to the
//! driver, and how far a voter is to raft.

use std::{collections::BTreeMap, time::Duration};

use uuid::Uuid;

use crate::types::{BrokerId, Offset, TimestampMs};

/// An observer that has fetched nothing for this long is forgotten (Apache: `OBSERVER_SESSION_TIMEOUT_MS`).
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);
/// An observer that was at the end of the log within this time may become a voter.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(5);
/// At most this many observers are remembered.
const MAX_OBSERVERS: usize = 10_000;

/// One observer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Observer {
    pub(super) end_offset: Offset,
    fetched_at: Duration,
    pub(super) fetched_at_ms: TimestampMs,
    /// The end of the leader's log at that time.
    leader_end_offset: Offset,
    caught_up_at: Option<Duration>,
    /// -1 if never.
    pub(super) caught_up_at_ms: TimestampMs,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Observers(BTreeMap<(BrokerId, Uuid), Observer>);

impl Observers {
    /// A node has all records below `end_offset`; those that it can have end at `leader_end_offset`: for a voter at the
    /// end of the log, for others at the high watermark. Voters are not forgotten.
    pub(super) fn on_fetch(
        &mut self,
        observer: (BrokerId, Uuid),
        end_offset: Offset,
        leader_end_offset: Offset,
        (now, now_ms): (Duration, TimestampMs),
        is_voter: impl Fn((BrokerId, Uuid)) -> bool,
    ) {
        self.0.retain(|node, observer| now < observer.fetched_at + FORGOTTEN_AFTER || is_voter(*node));
        if self.0.len() >= MAX_OBSERVERS && !self.0.contains_key(&observer) {
            return;
        }
        let entry = self.0.entry(observer).or_insert(Observer {
            end_offset,
            fetched_at: now,
            fetched_at_ms: now_ms,
            leader_end_offset,
            caught_up_at: None,
            caught_up_at_ms: -1,
        });
        // As in Kafka: it has caught up now, or had caught up when it was heard before (`LeaderState.ReplicaState`).
        if end_offset >= leader_end_offset {
            (entry.caught_up_at, entry.caught_up_at_ms) = (Some(now), now_ms);
        } else if end_offset >= entry.leader_end_offset {
            (entry.caught_up_at, entry.caught_up_at_ms) = (Some(entry.fetched_at), entry.fetched_at_ms);
        }
        (entry.end_offset, entry.fetched_at, entry.fetched_at_ms) = (end_offset, now, now_ms);
        entry.leader_end_offset = leader_end_offset;
    }

    /// When the node was heard last, and when it had all records last; -1 if never.
    pub(super) fn times_ms(&self, id: BrokerId, directory_id: Uuid) -> (TimestampMs, TimestampMs) {
        self.0.get(&(id, directory_id)).map_or((-1, -1), |node| (node.fetched_at_ms, node.caught_up_at_ms))
    }

    /// Whether the observer has all committed records, or had them a short time ago.
    pub(super) fn has_caught_up(&self, id: BrokerId, directory_id: Uuid, now: Duration) -> bool {
        let observer = self.0.get(&(id, directory_id));
        observer.and_then(|observer| observer.caught_up_at).is_some_and(|at| now < at + CAUGHT_UP_WITHIN)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&(BrokerId, Uuid), &Observer)> {
        self.0.iter()
    }

    /// This node does not lead any more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observer_has_caught_up_when_it_was_at_the_end_a_short_time_ago() {
        let (mut observers, node) = (Observers::default(), (4, Uuid::from_u128(9)));
        let at = |seconds: u64| (Duration::from_secs(seconds), seconds as TimestampMs * 1000);
        let has_caught_up = |observers: &Observers, seconds| observers.has_caught_up(4, node.1, at(seconds).0);
        assert!(!has_caught_up(&observers, 0));
        let no_voter = |_| false;
        observers.on_fetch(node, 10, 20, at(1), no_voter);
        assert!(!has_caught_up(&observers, 1));
        observers.on_fetch(node, 20, 20, at(2), no_voter);
        assert!(has_caught_up(&observers, 6) && !has_caught_up(&observers, 7));
        assert!(!observers.has_caught_up(4, Uuid::nil(), at(2).0), "another directory is another node");
        observers.on_fetch((5, Uuid::nil()), 0, 20, at(400), no_voter);
        assert_eq!(observers.iter().map(|((id, _), _)| *id).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn the_times_of_a_node_are_those_of_kafka() {
        let (mut observers, node) = (Observers::default(), (4, Uuid::from_u128(9)));
        let at = |seconds: u64| (Duration::from_secs(seconds), seconds as TimestampMs * 1000);
        let mut heard = |end_offset, leader_end_offset, seconds| {
            observers.on_fetch(node, end_offset, leader_end_offset, at(seconds), |heard| heard == node);
            observers.times_ms(4, node.1)
        };
        assert_eq!(heard(10, 20, 1), (1000, -1));
        assert_eq!(heard(19, 25, 2), (2000, -1));
        assert_eq!(heard(25, 30, 3), (3000, 2000), "it has all that there was at its last message");
        assert_eq!(heard(26, 31, 4), (4000, 2000));
        assert_eq!(heard(31, 31, 5), (5000, 5000));
        // A voter is remembered, whatever is heard of others.
        observers.on_fetch((5, Uuid::nil()), 0, 20, at(4000), |heard| heard == node);
        assert_eq!(observers.times_ms(4, node.1), (5000, 5000));
        assert_eq!(observers.times_ms(4, Uuid::nil()), (-1, -1));
    }
}
