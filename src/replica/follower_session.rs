//! The follower's side of a fetch session (KIP-227): which partitions the next request must name.
//!
//! Apache: `FetchSessionHandler`. Pure. Leaves the leader's side to `fetch_session.rs`.

use std::collections::BTreeMap;

use kafka_protocol::protocol::StrBytes;

use super::{
    fetch_session::{INITIAL_EPOCH, NO_SESSION},
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
    /// What the leader knows, once it has answered the last request.
    known: BTreeMap<PartitionKey, FetchPartition>,
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
    /// The next request, for all these partitions.
    pub(super) fn request(
        &mut self,
        wanted: &BTreeMap<PartitionKey, FetchPosition>,
        partition_max_bytes: i32,
    ) -> SessionRequest {
        let named = wanted.iter().map(|((topic, index), position)| {
            let partition = FetchPartition {
                partition: *index,
                current_leader_epoch: position.from.current_leader_epoch,
                fetch_offset: position.from.offset,
                last_fetched_epoch: position.from.last_fetched_epoch,
                log_start_offset: position.log_start_offset,
                partition_max_bytes,
                high_watermark: position.high_watermark,
                ..FetchPartition::default()
            };
            ((*topic, *index), partition)
        });
        let wanted: BTreeMap<PartitionKey, FetchPartition> = named.collect();
        let before = std::mem::take(&mut self.known);
        let is_full = self.epoch == INITIAL_EPOCH;
        let changed = wanted.iter().filter(|(key, partition)| is_full || before.get(key) != Some(partition));
        let topics = by_topic(changed.map(|((topic, _), partition)| (*topic, partition.clone())));
        let topics = topics.map(|(topic_id, partitions)| FetchTopic { name: StrBytes::new(), topic_id, partitions });
        let gone = before.keys().filter(|key| !is_full && !wanted.contains_key(key));
        let forgotten = by_topic(gone.copied());
        let forgotten =
            forgotten.map(|(topic_id, partitions)| ForgottenTopic { name: StrBytes::new(), topic_id, partitions });
        let (topics, forgotten_topics) = (topics.collect(), forgotten.collect());
        self.known = wanted;
        SessionRequest { session_id: self.id, session_epoch: self.epoch, topics, forgotten_topics }
    }

    /// The leader has answered with this session id.
    pub(super) fn on_response(&mut self, session_id: i32) {
        if session_id == NO_SESSION {
            return self.restart_without(session_id);
        }
        self.epoch = if self.id == session_id { self.epoch.checked_add(1).unwrap_or(1) } else { 1 };
        self.id = session_id;
    }

    /// The leader may not have the last request, or refuses the session: the next request is a full one, which ends the
    /// session.
    pub(super) fn restart(&mut self) {
        self.restart_without(self.id);
    }

    fn restart_without(&mut self, id: i32) {
        *self = FollowerSession { id, ..FollowerSession::default() };
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

    fn wanted(offsets: &[(i32, i64)]) -> BTreeMap<PartitionKey, FetchPosition> {
        let position = |offset| FetchPosition {
            from: FetchFrom { offset, current_leader_epoch: 1, last_fetched_epoch: 1 },
            log_start_offset: 0,
            high_watermark: 0,
        };
        offsets.iter().map(|(index, offset)| ((TopicId(Uuid::from_u128(1)), *index), position(*offset))).collect()
    }

    /// Session id and epoch, the partitions that are named, and those that are forgotten.
    fn next(session: &mut FollowerSession, offsets: &[(i32, i64)]) -> (i32, i32, Vec<(i32, i64)>, Vec<i32>) {
        let request = session.request(&wanted(offsets), 100);
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
    }

    #[test]
    fn after_a_failure_everything_is_sent_again_and_the_session_ends() {
        let mut session = FollowerSession::default();
        next(&mut session, &[(0, 5)]);
        session.on_response(9);
        next(&mut session, &[(0, 6)]);
        session.restart();
        assert_eq!(next(&mut session, &[(0, 6)]), (9, 0, vec![(0, 6)], vec![]));
        session.on_response(11);
        assert_eq!(next(&mut session, &[(0, 7)]), (11, 1, vec![(0, 7)], vec![]));
    }

    #[test]
    fn without_a_session_every_request_is_full() {
        let mut session = FollowerSession::default();
        next(&mut session, &[(0, 5)]);
        session.on_response(0);
        assert_eq!(next(&mut session, &[(0, 5)]), (0, 0, vec![(0, 5)], vec![]));
    }
}
