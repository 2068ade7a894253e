//! The nodes that follow the metadata log by Fetch, as the leader sees them: brokers that are no voters, and
//! controllers that may become voters.
//!
//! Owns how far each of them is, which only the leader knows. Leaves the reads of the log to the driver.

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
    caught_up_at: Option<Duration>,
    /// -1 if never.
    pub(super) caught_up_at_ms: TimestampMs,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Observers(BTreeMap<(BrokerId, Uuid), Observer>);

impl Observers {
    /// An observer has all records below `end_offset`; the committed ones end at `high_watermark`.
    pub(super) fn on_fetch(
        &mut self,
        observer: (BrokerId, Uuid),
        end_offset: Offset,
        high_watermark: Offset,
        (now, now_ms): (Duration, TimestampMs),
    ) {
        self.0.retain(|_, observer| now < observer.fetched_at + FORGOTTEN_AFTER);
        if self.0.len() >= MAX_OBSERVERS && !self.0.contains_key(&observer) {
            return;
        }
        let entry = self.0.entry(observer).or_insert(Observer {
            end_offset,
            fetched_at: now,
            fetched_at_ms: now_ms,
            caught_up_at: None,
            caught_up_at_ms: -1,
        });
        (entry.end_offset, entry.fetched_at, entry.fetched_at_ms) = (end_offset, now, now_ms);
        if end_offset >= high_watermark {
            (entry.caught_up_at, entry.caught_up_at_ms) = (Some(now), now_ms);
        }
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
        observers.on_fetch(node, 10, 20, at(1));
        assert!(!has_caught_up(&observers, 1));
        observers.on_fetch(node, 20, 20, at(2));
        assert!(has_caught_up(&observers, 6) && !has_caught_up(&observers, 7));
        assert!(!observers.has_caught_up(4, Uuid::nil(), at(2).0), "another directory is another node");
        observers.on_fetch((5, Uuid::nil()), 0, 20, at(400));
        assert_eq!(observers.iter().map(|((id, _), _)| *id).collect::<Vec<_>>(), [5]);
    }
}
