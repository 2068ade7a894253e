//! Committed offsets, and those that open transactions hold back.
//!
//! Owns the map (group, topic, partition) → offset, how records change it, how a fetch reads it, and which
//! offsets are expired. Who may commit is decided by the group; which topics exist, by the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::records::{OffsetCommitValue, Record};
use super::{FetchOffsetsTopic, FetchedOffset, FetchedTopic, GroupError};
use crate::types::{Offset, ProducerId, TimestampMs, TopicId};

const NO_OFFSET: i64 = -1;

/// A committed offset and where in the log it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffsetAndMetadata {
    pub(crate) value: OffsetCommitValue,
    /// The record's own offset: of a transactional and a plain commit, the later record wins.
    pub(crate) record_offset: Offset,
}

type TopicOffsets = BTreeMap<Arc<str>, BTreeMap<i32, OffsetAndMetadata>>;
type PendingPartitions = BTreeMap<Arc<str>, BTreeMap<i32, BTreeSet<ProducerId>>>;

/// All offsets of one `__consumer_offsets` partition.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    committed: BTreeMap<Arc<str>, TopicOffsets>,
    /// Written by transactions that have not ended.
    pending: BTreeMap<ProducerId, BTreeMap<Arc<str>, TopicOffsets>>,
    /// Which transactions have something pending for a partition.
    open_transactions: BTreeMap<Arc<str>, PendingPartitions>,
}

impl Offsets {
    /// How many are committed.
    pub(crate) fn len(&self) -> usize {
        self.committed.values().flat_map(TopicOffsets::values).map(BTreeMap::len).sum()
    }

    /// `producer_id` is set when the record stands in a transactional batch.
    pub(crate) fn put(
        &mut self,
        group_id: &Arc<str>,
        topic: &Arc<str>,
        partition: i32,
        offset: OffsetAndMetadata,
        producer_id: Option<ProducerId>,
    ) {
        let groups = match producer_id {
            None => &mut self.committed,
            Some(producer_id) => {
                let topics = entry(&mut self.open_transactions, group_id);
                entry(topics, topic).entry(partition).or_default().insert(producer_id);
                self.pending.entry(producer_id).or_default()
            }
        };
        entry(entry(groups, group_id), topic).insert(partition, offset);
    }

    /// A tombstone: the offset and all that is pending for it are gone.
    pub(crate) fn remove(&mut self, group_id: &str, topic: &str, partition: i32) {
        remove_offset(&mut self.committed, group_id, topic, partition);
        let Some(topics) = self.open_transactions.get_mut(group_id) else { return };
        let Some(partitions) = topics.get_mut(topic) else { return };
        for producer_id in partitions.remove(&partition).unwrap_or_default() {
            if let Some(groups) = self.pending.get_mut(&producer_id) {
                remove_offset(groups, group_id, topic, partition);
                if groups.is_empty() {
                    self.pending.remove(&producer_id);
                }
            }
        }
        if partitions.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.open_transactions.remove(group_id);
        }
    }

    /// The transaction's marker: its offsets become visible, or vanish.
    pub(crate) fn end_transaction(&mut self, producer_id: ProducerId, committed: bool) {
        for (group_id, topics) in self.pending.remove(&producer_id).unwrap_or_default() {
            for (topic, partitions) in topics {
                for (partition, offset) in partitions {
                    self.close_transaction(&group_id, &topic, partition, producer_id);
                    let newer = self
                        .get(&group_id, &topic, partition)
                        .is_none_or(|existing| existing.record_offset < offset.record_offset);
                    if committed && newer {
                        self.put(&group_id, &topic, partition, offset, None);
                    }
                }
            }
        }
    }

    fn close_transaction(&mut self, group_id: &str, topic: &str, partition: i32, producer_id: ProducerId) {
        let Some(topics) = self.open_transactions.get_mut(group_id) else { return };
        let Some(partitions) = topics.get_mut(topic) else { return };
        let Some(producers) = partitions.get_mut(&partition) else { return };
        producers.remove(&producer_id);
        if producers.is_empty() {
            partitions.remove(&partition);
        }
        if partitions.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.open_transactions.remove(group_id);
        }
    }

    pub(crate) fn get(&self, group_id: &str, topic: &str, partition: i32) -> Option<&OffsetAndMetadata> {
        self.committed.get(group_id)?.get(topic)?.get(&partition)
    }

    fn is_unstable(&self, group_id: &str, topic: &str, partition: i32) -> bool {
        let topics = self.open_transactions.get(group_id);
        topics.and_then(|topics| topics.get(topic)).is_some_and(|partitions| partitions.contains_key(&partition))
    }

    /// True when a tombstone for the partition would remove something.
    pub(crate) fn contains(&self, group_id: &str, topic: &str, partition: i32) -> bool {
        self.get(group_id, topic, partition).is_some() || self.is_unstable(group_id, topic, partition)
    }

    /// The offsets asked for, in the order asked for.
    pub(crate) fn fetch(
        &self,
        group_id: &str,
        topics: Vec<FetchOffsetsTopic>,
        require_stable: bool,
    ) -> Vec<FetchedTopic> {
        let group = self.committed.get(group_id);
        topics
            .into_iter()
            .map(|topic| {
                let offsets = group.and_then(|group| group.get(&topic.name));
                let fetch = |partition: &i32| {
                    if require_stable && self.is_unstable(group_id, &topic.name, *partition) {
                        return unstable_offset(*partition);
                    }
                    match offsets.and_then(|offsets| offsets.get(partition)) {
                        Some(offset) if !of_another_topic(offset, topic.topic_id) => fetched(*partition, offset),
                        _ => no_offset(*partition),
                    }
                };
                let partitions = topic.partitions.iter().map(fetch).collect();
                FetchedTopic { name: topic.name.clone(), topic_id: topic.topic_id, partitions }
            })
            .collect()
    }

    /// Every offset of the group.
    pub(crate) fn fetch_all(&self, group_id: &str, require_stable: bool) -> Vec<FetchedTopic> {
        let Some(topics) = self.committed.get(group_id) else { return Vec::new() };
        topics
            .iter()
            .map(|(name, offsets)| {
                let fetch = |(partition, offset): (&i32, &OffsetAndMetadata)| {
                    if require_stable && self.is_unstable(group_id, name, *partition) {
                        unstable_offset(*partition)
                    } else {
                        fetched(*partition, offset)
                    }
                };
                // The committed topic id would not fit the topic of that name if it was created anew.
                let partitions = offsets.iter().map(fetch).collect();
                FetchedTopic { name: name.clone(), topic_id: TopicId::ZERO, partitions }
            })
            .collect()
    }

    /// Tombstones for all that the group has, pending offsets included.
    pub(crate) fn tombstones_of_group(&self, group_id: &Arc<str>, records: &mut Vec<Record>) {
        let mut partitions: BTreeSet<(&Arc<str>, i32)> = BTreeSet::new();
        for (topic, offsets) in self.committed.get(group_id).into_iter().flatten() {
            partitions.extend(offsets.keys().map(|partition| (topic, *partition)));
        }
        for (topic, pending) in self.open_transactions.get(group_id).into_iter().flatten() {
            partitions.extend(pending.keys().map(|partition| (topic, *partition)));
        }
        records.extend(partitions.into_iter().map(|(topic, partition)| tombstone(group_id, topic, partition)));
    }

    /// Tombstones for the offsets of a deleted topic, in every group. Offsets without a topic id (written
    /// before Kafka 4.3) go by the name alone.
    pub(crate) fn tombstones_of_topic(&self, topic: &str, topic_id: TopicId, records: &mut Vec<Record>) {
        let belongs =
            |offset: &OffsetAndMetadata| offset.value.topic_id == TopicId::ZERO || offset.value.topic_id == topic_id;
        let mut found: BTreeSet<(&Arc<str>, &Arc<str>, i32)> = BTreeSet::new();
        for groups in std::iter::once(&self.committed).chain(self.pending.values()) {
            for (group_id, topics) in groups {
                let Some((name, offsets)) = topics.get_key_value(topic) else { continue };
                let gone = offsets.iter().filter(|(_, offset)| belongs(offset));
                found.extend(gone.map(|(partition, _)| (group_id, name, *partition)));
            }
        }
        records.extend(found.into_iter().map(|(group_id, name, partition)| tombstone(group_id, name, partition)));
    }

    /// Tombstones for the group's expired offsets; returns whether the group would have none left.
    /// `since` says since when an offset is unused, `None` that it is in use.
    pub(crate) fn expire(
        &self,
        group_id: &Arc<str>,
        now_ms: TimestampMs,
        retention_ms: i64,
        since: impl Fn(&str, &OffsetCommitValue) -> Option<TimestampMs>,
        records: &mut Vec<Record>,
    ) -> bool {
        let mut all_expired = !self.open_transactions.contains_key(group_id);
        for (topic, offsets) in self.committed.get(group_id).into_iter().flatten() {
            for (partition, offset) in offsets {
                let expired =
                    since(topic, &offset.value).is_some_and(|since_ms| match offset.value.expire_timestamp_ms {
                        Some(expire_timestamp_ms) => now_ms >= expire_timestamp_ms,
                        None => now_ms.saturating_sub(since_ms) >= retention_ms,
                    });
                if expired && !self.is_unstable(group_id, topic, *partition) {
                    records.push(tombstone(group_id, topic, *partition));
                } else {
                    all_expired = false;
                }
            }
        }
        all_expired
    }
}

pub(crate) fn tombstone(group_id: &Arc<str>, topic: &Arc<str>, partition: i32) -> Record {
    Record::OffsetCommit { group_id: group_id.clone(), topic: topic.clone(), partition, value: None }
}

fn entry<'a, V: Default>(map: &'a mut BTreeMap<Arc<str>, V>, key: &Arc<str>) -> &'a mut V {
    map.entry(key.clone()).or_default()
}

fn remove_offset(groups: &mut BTreeMap<Arc<str>, TopicOffsets>, group_id: &str, topic: &str, partition: i32) {
    let Some(topics) = groups.get_mut(group_id) else { return };
    let Some(offsets) = topics.get_mut(topic) else { return };
    offsets.remove(&partition);
    if offsets.is_empty() {
        topics.remove(topic);
    }
    if topics.is_empty() {
        groups.remove(group_id);
    }
}

/// The topic was deleted and created anew since the commit (O7).
fn of_another_topic(offset: &OffsetAndMetadata, topic_id: TopicId) -> bool {
    let stored = offset.value.topic_id;
    stored != TopicId::ZERO && topic_id != TopicId::ZERO && stored != topic_id
}

fn fetched(partition: i32, offset: &OffsetAndMetadata) -> FetchedOffset {
    FetchedOffset {
        partition,
        committed_offset: offset.value.offset,
        committed_leader_epoch: offset.value.leader_epoch,
        metadata: offset.value.metadata.clone(),
        error: None,
    }
}

fn no_offset(partition: i32) -> FetchedOffset {
    FetchedOffset {
        partition,
        committed_offset: NO_OFFSET,
        committed_leader_epoch: -1,
        metadata: "".into(),
        error: None,
    }
}

fn unstable_offset(partition: i32) -> FetchedOffset {
    FetchedOffset { error: Some(GroupError::UnstableOffsetCommit), ..no_offset(partition) }
}
