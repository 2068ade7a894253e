//! The follower's side of a fetch session (KIP-227): which partitions the next request must name.
//!
//! Apache: `FetchSessionHandler`. Pure. Leaves the leader's side to `fetch_session.rs`.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::protocol::StrBytes;

use super::{
    fetch_session::{INITIAL_EPOCH, NO_SESSION, next_epoch},
    follower::FetchPosition,
    isr::PartitionKey,
};
use crate::{
    protocol::fetch::{FetchPartition, FetchTopic, ForgottenTopic},
    types::TopicId,
};

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct FollowerSession {
    id: i32,
    /// 0 for a full request.
    epoch: i32,
    /// The leader has answered the last full request without a session.
    is_refused: bool,
    /// The partitions to fetch, as the leader knows them once it has answered the last request.
    known: BTreeMap<PartitionKey, FetchPartition>,
    /// Those that the next request must name.
    changed: BTreeSet<PartitionKey>,
    /// Those that the leader must forget.
    forgotten: BTreeSet<PartitionKey>,
}

/// The part of a request that the session decides.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SessionRequest {
    pub(super) session_id: i32,
    pub(super) session_epoch: i32,
    pub(super) topics: Vec<FetchTopic>,
    pub(super) forgotten_topics: Vec<ForgottenTopic>,
}

impl FollowerSession {
    /// Fetches a partition from this position on.
    pub(super) fn set(&mut self, key: PartitionKey, position: &FetchPosition, partition_max_bytes: i32) {
        let wanted = FetchPartition {
            partition: key.1,
            current_leader_epoch: position.from.current_leader_epoch,
            fetch_offset: position.from.offset,
            last_fetched_epoch: position.from.last_fetched_epoch,
            log_start_offset: position.log_start_offset,
            partition_max_bytes,
            high_watermark: position.high_watermark,
            ..FetchPartition::default()
        };
        self.forgotten.remove(&key);
        if self.known.get(&key) != Some(&wanted) {
            self.known.insert(key, wanted);
            self.changed.insert(key);
        }
    }

    /// Fetches a partition no more.
    pub(super) fn remove(&mut self, key: PartitionKey) {
        if self.known.remove(&key).is_some() {
            self.changed.remove(&key);
            self.forgotten.insert(key);
        }
    }

    /// Whether there is nothing to fetch.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The next request. Its cost is that of what has changed since the last one.
    pub(super) fn request(&mut self) -> SessionRequest {
        let is_full = self.epoch == INITIAL_EPOCH;
        let (changed, forgotten) = (std::mem::take(&mut self.changed), std::mem::take(&mut self.forgotten));
        let named: Vec<(TopicId, FetchPartition)> = if is_full {
            self.known.iter().map(|((topic, _), partition)| (*topic, partition.clone())).collect()
        } else {
            changed.iter().filter_map(|key| Some((key.0, self.known.get(key)?.clone()))).collect()
        };
        let topics = by_topic(named.into_iter());
        let topics = topics.map(|(topic_id, partitions)| FetchTopic { name: StrBytes::new(), topic_id, partitions });
        let forgotten = by_topic(forgotten.into_iter().filter(|_| !is_full));
        let forgotten =
            forgotten.map(|(topic_id, partitions)| ForgottenTopic { name: StrBytes::new(), topic_id, partitions });
        SessionRequest {
            session_id: self.id,
            session_epoch: self.epoch,
            topics: topics.collect(),
            forgotten_topics: forgotten.collect(),
        }
    }

    /// Whether the next request has the leader open a session. Only the response tells its id: a leader whose response
    /// is not read keeps a session that nobody uses.
    pub(super) fn opens_session(&self) -> bool {
        self.epoch == INITIAL_EPOCH && !self.is_refused
    }

    /// The leader has answered with this session id.
    pub(super) fn on_response(&mut self, session_id: i32) {
        self.is_refused = session_id == NO_SESSION && self.epoch == INITIAL_EPOCH;
        let is_known = session_id != NO_SESSION && session_id == self.id;
        self.epoch = match session_id {
            NO_SESSION => INITIAL_EPOCH,
            _ if is_known => next_epoch(self.epoch),
            _ => 1,
        };
        self.id = session_id;
    }

    /// The last request was given up before its response came. The leader has most likely got it; if it has not, it
    /// refuses the next one. What the response may have held is still new to the leader's session, since that looks at
    /// what the follower has.
    pub(super) fn on_given_up(&mut self) {
        if self.epoch != INITIAL_EPOCH {
            self.epoch = next_epoch(self.epoch);
        }
    }

    /// The leader may not have the last request, or refuses the session: the next request is a full one, which ends the
    /// session.
    pub(super) fn restart(&mut self) {
        self.epoch = INITIAL_EPOCH;
    }
}

/// Groups what belongs to partitions by their topic.
fn by_topic<T>(partitions: impl Iterator<Item = (TopicId, T)>) -> impl Iterator<Item = (TopicId, Vec<T>)> {
    let mut topics = BTreeMap::<TopicId, Vec<T>>::new();
    for (topic, partition) in partitions {
        topics.entry(topic).or_default().push(partition);
    }
    topics.into_iter()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::replica::partition::FetchFrom;

    fn key(index: i32) -> PartitionKey {
        (TopicId(Uuid::from_u128(1)), index)
    }

    /// Session id and epoch, the partitions that are named, and those that are forgotten, of a request for exactly
    /// these partitions.
    fn next(session: &mut FollowerSession, offsets: &[(i32, i64)]) -> (i32, i32, Vec<(i32, i64)>, Vec<i32>) {
        let gone: Vec<i32> = session.known.keys().map(|(_, index)| *index).collect();
        for index in gone.into_iter().filter(|known| !offsets.iter().any(|(index, _)| index == known)) {
            session.remove(key(index));
        }
        for (index, offset) in offsets {
            let from = FetchFrom { offset: *offset, current_leader_epoch: 1, last_fetched_epoch: 1 };
            session.set(key(*index), &FetchPosition { from, log_start_offset: 0, high_watermark: 0 }, 100);
        }
        let request = session.request();
        let named = request.topics.iter().flat_map(|topic| &topic.partitions);
        let forgotten = request.forgotten_topics.iter().flat_map(|topic| topic.partitions.clone());
        let named = named.map(|partition| (partition.partition, partition.fetch_offset)).collect();
        (request.session_id, request.session_epoch, named, forgotten.collect())
    }

    #[test]
    fn only_what_has_changed_is_sent() {
        let mut session = FollowerSession::default();
        assert_eq!(next(&mut session, &[(0, 5), (1, 7)]), (0, 0, vec![(0, 5), (1, 7)], vec![]));
        session.on_response(9);
        assert_eq!(next(&mut session, &[(0, 5), (1, 8)]), (9, 1, vec![(1, 8)], vec![]));
        session.on_response(9);
        assert_eq!(next(&mut session, &[(1, 8), (2, 0)]), (9, 2, vec![(2, 0)], vec![0]));
        session.on_response(9);
        assert_eq!(next(&mut session, &[(1, 8), (2, 0)]), (9, 3, vec![], vec![]));
        session.remove(key(2));
        session.on_response(9);
        let again = next(&mut session, &[(1, 8), (2, 0)]);
        assert_eq!(again, (9, 4, vec![(2, 0)], vec![]), "it was removed and comes back in the same request");
    }

    #[test]
    fn after_a_failure_everything_is_sent_again_and_the_session_ends() {
        let mut session = FollowerSession::default();
        next(&mut session, &[(0, 5), (1, 5)]);
        session.on_response(9);
        next(&mut session, &[(0, 6), (1, 5)]);
        session.restart();
        assert_eq!(next(&mut session, &[(0, 6)]), (9, 0, vec![(0, 6)], vec![]));
        session.on_response(11);
        assert_eq!(next(&mut session, &[(0, 7)]), (11, 1, vec![(0, 7)], vec![]));
    }

    #[test]
    fn the_session_goes_on_after_a_request_that_was_given_up() {
        let mut session = FollowerSession::default();
        next(&mut session, &[(0, 5)]);
        session.on_given_up();
        assert_eq!(next(&mut session, &[(0, 5)]), (0, 0, vec![(0, 5)], vec![]), "there is no session yet");
        session.on_response(9);
        assert_eq!(next(&mut session, &[(0, 6)]), (9, 1, vec![(0, 6)], vec![]));
        session.on_given_up();
        assert_eq!(next(&mut session, &[(0, 6), (1, 0)]), (9, 2, vec![(1, 0)], vec![]));
    }

    #[test]
    fn a_request_opens_a_session_unless_there_is_one_or_the_leader_has_none() {
        let mut session = FollowerSession::default();
        assert!(session.opens_session());
        session.on_response(9);
        assert!(!session.opens_session());
        // The leader ends a session that has become too large, and refuses the next one: requests then wait as usual.
        session.on_response(NO_SESSION);
        assert!(session.opens_session());
        session.on_response(NO_SESSION);
        assert!(!session.opens_session());
        session.on_response(10);
        session.restart();
        assert!(session.opens_session());
    }

    #[test]
    fn without_a_session_every_request_is_full() {
        let mut session = FollowerSession::default();
        next(&mut session, &[(0, 5)]);
        session.on_response(0);
        assert_eq!(next(&mut session, &[(0, 5)]), (0, 0, vec![(0, 5)], vec![]));
    }
}
