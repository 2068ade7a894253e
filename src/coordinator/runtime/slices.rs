//! Splits the topics of a request into slices, so that no step under a shard's lock handles too many partitions, and
//! joins the results again.

use std::sync::Arc;

use crate::coordinator::group::{CommitPartition, CommitTopic, FetchOffsetsTopic, FetchedTopic, TopicOutcome};

/// The most partitions or members that one step handles.
pub(super) const ITEMS_PER_STEP: usize = 500;

/// A topic and its partitions in a request.
pub(super) trait Partitions: Sized {
    /// The request for one partition.
    type Partition;

    fn partitions(&mut self) -> &mut Vec<Self::Partition>;

    /// The same topic with other partitions.
    fn with(&self, partitions: Vec<Self::Partition>) -> Self;
}

impl Partitions for CommitTopic {
    type Partition = CommitPartition;

    fn partitions(&mut self) -> &mut Vec<CommitPartition> {
        &mut self.partitions
    }

    fn with(&self, partitions: Vec<CommitPartition>) -> Self {
        CommitTopic { name: self.name.clone(), topic_id: self.topic_id, partitions }
    }
}

impl Partitions for FetchOffsetsTopic {
    type Partition = i32;

    fn partitions(&mut self) -> &mut Vec<i32> {
        &mut self.partitions
    }

    fn with(&self, partitions: Vec<i32>) -> Self {
        FetchOffsetsTopic { name: self.name.clone(), topic_id: self.topic_id, partitions }
    }
}

impl Partitions for (Arc<str>, Vec<i32>) {
    type Partition = i32;

    fn partitions(&mut self) -> &mut Vec<i32> {
        &mut self.1
    }

    fn with(&self, partitions: Vec<i32>) -> Self {
        (self.0.clone(), partitions)
    }
}

/// The topics that one step handles.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slice<T> {
    pub(super) topics: Vec<T>,
    /// The first topic also has partitions in the previous slice.
    pub(super) continues: bool,
}

/// Returns at least one slice, each with at most `most` partitions; a topic without partitions counts as one.
pub(super) fn slices<T: Partitions>(topics: Vec<T>, most: usize) -> Vec<Slice<T>> {
    let mut slices = Vec::new();
    let (mut slice, mut room) = (Slice { topics: Vec::new(), continues: false }, most);
    for mut topic in topics {
        let mut left = topic.partitions().len();
        if left <= room {
            room = room.saturating_sub(left.max(1));
            slice.topics.push(topic);
            continue;
        }
        // Each partition is moved only once, even if the topic is in many slices.
        let mut partitions = std::mem::take(topic.partitions()).into_iter();
        while left > room {
            if room > 0 {
                slice.topics.push(topic.with(partitions.by_ref().take(room).collect()));
                left -= room;
            }
            slices.push(std::mem::replace(&mut slice, Slice { topics: Vec::new(), continues: room > 0 }));
            room = most;
        }
        slice.topics.push(topic.with(partitions.collect()));
        room = room.saturating_sub(left.max(1));
    }
    slices.push(slice);
    slices
}

/// The results of a topic's partitions.
pub(super) trait Outcomes {
    fn append(&mut self, rest: Self);
}

impl Outcomes for TopicOutcome {
    fn append(&mut self, mut rest: Self) {
        self.partitions.append(&mut rest.partitions);
    }
}

impl Outcomes for FetchedTopic {
    fn append(&mut self, mut rest: Self) {
        self.partitions.append(&mut rest.partitions);
    }
}

/// Appends the results of the next slice.
pub(super) fn join<T: Outcomes>(all: &mut Vec<T>, next: Vec<T>, continues: bool) {
    let mut next = next.into_iter();
    if continues && let (Some(last), Some(first)) = (all.last_mut(), next.next()) {
        last.append(first);
    }
    all.extend(next);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TopicId;

    fn topic(name: &str, partitions: std::ops::Range<i32>) -> (Arc<str>, Vec<i32>) {
        (name.into(), partitions.collect())
    }

    #[test]
    fn slices_hold_every_partition_once_and_join_again() {
        for most in 1..8 {
            let topics = vec![topic("a", 0..5), topic("none", 0..0), topic("b", 0..1), topic("c", 0..7)];
            let cut = slices(topics.clone(), most);
            assert!(cut.iter().all(|slice| slice.topics.iter().map(|topic| topic.1.len()).sum::<usize>() <= most));
            let mut joined: Vec<TopicOutcome> = Vec::new();
            for slice in cut {
                let outcome = |(name, partitions): (Arc<str>, Vec<i32>)| TopicOutcome {
                    name,
                    topic_id: TopicId::ZERO,
                    partitions: partitions.into_iter().map(|partition| (partition, None)).collect(),
                };
                join(&mut joined, slice.topics.into_iter().map(outcome).collect(), slice.continues);
            }
            let again: Vec<(Arc<str>, Vec<i32>)> = joined
                .into_iter()
                .map(|topic| (topic.name, topic.partitions.into_iter().map(|(partition, _)| partition).collect()))
                .collect();
            assert_eq!(again, topics, "at most {most}");
        }
        assert_eq!(slices(Vec::<(Arc<str>, Vec<i32>)>::new(), 5).len(), 1);
    }
}
