//! Timers as data: keys with deadlines. Nothing here waits; the runtime reads [`Timers::next_deadline_ms`] and sends a
//! tick. Scheduling a key again replaces its deadline, as in Kafka's `CoordinatorTimer`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The events that timers stand for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerKey {
    /// The session of a member or of a pending member id has expired.
    Session { group_id: Arc<str>, member_id: Arc<str> },
    /// The join phase of a group is over.
    Join { group_id: Arc<str> },
    /// The sync phase of a generation is over.
    Sync { group_id: Arc<str> },
    /// The next check for expired offsets.
    OffsetExpiration,
}

/// The deadlines in monotonic milliseconds, in order.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    deadlines: BTreeMap<TimerKey, i64>,
    queue: BTreeSet<(i64, TimerKey)>,
}

impl Timers {
    /// Sets or replaces the timer.
    pub(crate) fn schedule(&mut self, key: TimerKey, deadline_ms: i64) {
        if let Some(previous) = self.deadlines.insert(key.clone(), deadline_ms) {
            if previous == deadline_ms {
                return;
            }
            let entry = (previous, key);
            self.queue.remove(&entry);
            self.queue.insert((deadline_ms, entry.1));
        } else {
            self.queue.insert((deadline_ms, key));
        }
    }

    pub(crate) fn cancel(&mut self, key: &TimerKey) {
        if let Some((key, deadline_ms)) = self.deadlines.remove_entry(key) {
            self.queue.remove(&(deadline_ms, key));
        }
    }

    pub(crate) fn next_deadline_ms(&self) -> Option<i64> {
        self.queue.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Removes and returns the earliest timer that is due.
    pub(crate) fn pop_due(&mut self, now_ms: i64) -> Option<TimerKey> {
        if self.next_deadline_ms()? > now_ms {
            return None;
        }
        let (_, key) = self.queue.pop_first()?;
        self.deadlines.remove(&key);
        Some(key)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        debug_assert_eq!(self.deadlines.len(), self.queue.len());
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rescheduled_timer_fires_once_at_its_last_deadline() {
        let key = TimerKey::Join { group_id: "g".into() };
        let mut timers = Timers::default();
        timers.schedule(key.clone(), 10);
        timers.schedule(key.clone(), 30);
        timers.schedule(TimerKey::OffsetExpiration, 20);
        assert_eq!(timers.pop_due(15), None);
        assert_eq!(timers.pop_due(40), Some(TimerKey::OffsetExpiration));
        assert_eq!(timers.pop_due(40), Some(key.clone()));
        assert_eq!((timers.pop_due(40), timers.len()), (None, 0));
        timers.schedule(key.clone(), 5);
        timers.cancel(&key);
        assert_eq!((timers.next_deadline_ms(), timers.len()), (None, 0));
    }
}
