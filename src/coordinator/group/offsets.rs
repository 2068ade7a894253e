//! Committed offsets, and the pending offsets of open transactions.
//!
//! Owns the map (group, topic, partition) → offset: how records change it, how a fetch reads it, which offsets have
//! expired, and how much memory it takes. The group decides which members may commit; the caller checks that topics
//! exist. Operations over many offsets work in pages; each page returns the position of the next one.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use super::{
    FetchOffsetsTopic, FetchedOffset, FetchedTopic, GroupError,
    records::{OffsetCommitValue, Record},
    small_map::SmallMap,
};
use crate::types::{Offset, ProducerId, TimestampMs, TopicId};

const NO_OFFSET: i64 = -1;
/// The approximate memory of a group, a topic and an offset without their strings: the entry, unused capacity of the
/// maps, and the reference counters of a name.
const GROUP_OVERHEAD_BYTES: usize = 192;
const TOPIC_OVERHEAD_BYTES: usize = 128;
const OFFSET_OVERHEAD_BYTES: usize = size_of::<(i32, OffsetAndMetadata)>() + 96;

/// The most offsets that one step visits, and the most records that it writes, in operations over many offsets.
pub(crate) const PAGE: usize = 500;

/// A committed offset and the position of its record in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffsetAndMetadata {
    pub(crate) value: OffsetCommitValue,
    /// The offset of the record. If there is a transactional and a plain commit, the later record wins.
    pub(crate) record_offset: Offset,
}

impl OffsetAndMetadata {
    fn memory_bytes(&self) -> usize {
        OFFSET_OVERHEAD_BYTES + self.value.metadata.len()
    }
}

/// The end of a page over the offsets of one group: the last topic and partition of the page.
pub type OffsetPosition = (Arc<str>, i32);

type TopicOffsets = SmallMap<Arc<str>, SmallMap<i32, OffsetAndMetadata>>;
type PendingPartitions = BTreeMap<Arc<str>, BTreeMap<i32, BTreeSet<ProducerId>>>;

/// All offsets of one `__consumer_offsets` partition.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    committed: BTreeMap<Arc<str>, TopicOffsets>,
    /// Offsets written by open transactions.
    pending: BTreeMap<ProducerId, BTreeMap<Arc<str>, TopicOffsets>>,
    /// The transactions that have a pending offset for a partition.
    open_transactions: BTreeMap<Arc<str>, PendingPartitions>,
    /// The number of committed offsets.
    committed_count: usize,
    /// The approximate memory of committed and pending offsets.
    memory_bytes: usize,
}

impl Offsets {
    /// The number of committed offsets.
    pub(crate) fn len(&self) -> usize {
        self.committed_count
    }

    /// The approximate memory of committed and pending offsets.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Returns how much the memory would grow if these offsets were committed.
    pub(crate) fn growth_bytes<'a>(
        &self,
        group_id: &str,
        topic: &str,
        offsets: impl Iterator<Item = (i32, &'a str)>,
    ) -> usize {
        let group = self.committed.get(group_id);
        let topic_offsets = group.and_then(|topics| topics.get(topic));
        let group_bytes = if group.is_some() { 0 } else { GROUP_OVERHEAD_BYTES + group_id.len() };
        let topic_bytes = if topic_offsets.is_some() { 0 } else { TOPIC_OVERHEAD_BYTES + topic.len() };
        let growth = offsets.map(|(partition, metadata)| {
            let present = topic_offsets.and_then(|offsets| offsets.get(&partition));
            (OFFSET_OVERHEAD_BYTES + metadata.len()).saturating_sub(present.map_or(0, OffsetAndMetadata::memory_bytes))
        });
        group_bytes + topic_bytes + growth.sum::<usize>()
    }

    /// `producer_id` is set if the record is in a transactional batch.
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
        self.memory_bytes += offset.memory_bytes();
        if !groups.contains_key(group_id) {
            self.memory_bytes += GROUP_OVERHEAD_BYTES + group_id.len();
        }
        let topics = entry(groups, group_id);
        let replaced = match topics.get_mut(topic) {
            Some(offsets) => offsets.insert(partition, offset),
            None => {
                self.memory_bytes += TOPIC_OVERHEAD_BYTES + topic.len();
                let mut offsets = SmallMap::default();
                offsets.insert(partition, offset);
                topics.insert(topic.clone(), offsets);
                None
            }
        };
        match replaced {
            Some(replaced) => self.memory_bytes -= replaced.memory_bytes(),
            None => self.committed_count += usize::from(producer_id.is_none()),
        }
    }

    /// Applies a tombstone: removes the committed offset and all pending ones.
    pub(crate) fn remove(&mut self, group_id: &str, topic: &str, partition: i32) {
        if let Some(freed) = remove_offset(&mut self.committed, group_id, topic, partition) {
            self.committed_count -= 1;
            self.memory_bytes -= freed;
        }
        let Some(topics) = self.open_transactions.get_mut(group_id) else { return };
        let Some(partitions) = topics.get_mut(topic) else { return };
        for producer_id in partitions.remove(&partition).unwrap_or_default() {
            if let Some(groups) = self.pending.get_mut(&producer_id) {
                self.memory_bytes -= remove_offset(groups, group_id, topic, partition).unwrap_or(0);
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

    /// Applies a transaction marker: commits or drops the transaction's pending offsets.
    pub(crate) fn end_transaction(&mut self, producer_id: ProducerId, committed: bool) {
        for (group_id, topics) in self.pending.remove(&producer_id).unwrap_or_default() {
            self.memory_bytes -= GROUP_OVERHEAD_BYTES + group_id.len();
            for (topic, partitions) in topics.into_entries() {
                self.memory_bytes -= TOPIC_OVERHEAD_BYTES + topic.len();
                for (partition, offset) in partitions.into_entries() {
                    self.memory_bytes -= offset.memory_bytes();
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

    /// Whether a tombstone for the partition would remove an offset.
    pub(crate) fn contains(&self, group_id: &str, topic: &str, partition: i32) -> bool {
        self.get(group_id, topic, partition).is_some() || self.is_unstable(group_id, topic, partition)
    }

    /// Returns the requested offsets, in the order of the request.
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

    /// Returns a page of the group's offsets, and the position of the next page.
    pub(crate) fn fetch_all(
        &self,
        group_id: &str,
        require_stable: bool,
        after: Option<&OffsetPosition>,
    ) -> (Vec<FetchedTopic>, Option<OffsetPosition>) {
        let mut fetched_topics: Vec<FetchedTopic> = Vec::new();
        let (page, next) = page(self.committed.get(group_id), after);
        for (name, partition, offset) in page {
            let offset = if require_stable && self.is_unstable(group_id, name, partition) {
                unstable_offset(partition)
            } else {
                fetched(partition, offset)
            };
            match fetched_topics.last_mut().filter(|topic| topic.name == *name) {
                Some(topic) => topic.partitions.push(offset),
                // If the topic was deleted and recreated, the committed topic id would be the wrong one.
                None => {
                    let partitions = vec![offset];
                    fetched_topics.push(FetchedTopic { name: name.clone(), topic_id: TopicId::ZERO, partitions });
                }
            }
        }
        (fetched_topics, next)
    }

    /// Writes tombstones for the group's committed and pending offsets, at most for one page. Returns whether these are
    /// all.
    pub(crate) fn tombstones_of_group(&self, group_id: &Arc<str>, records: &mut Vec<Record>) -> bool {
        let mut partitions: BTreeSet<(&Arc<str>, i32)> = BTreeSet::new();
        for (topic, offsets) in self.committed.get(group_id).into_iter().flat_map(SmallMap::iter) {
            partitions.extend(offsets.iter().take(PAGE + 1).map(|(partition, _)| (topic, *partition)));
            if partitions.len() > PAGE {
                break;
            }
        }
        for (topic, pending) in self.open_transactions.get(group_id).into_iter().flatten() {
            if partitions.len() > PAGE {
                break;
            }
            partitions.extend(pending.keys().take(PAGE + 1).map(|partition| (topic, *partition)));
        }
        let is_all = partitions.len() <= PAGE;
        let page = partitions.into_iter().take(PAGE);
        records.extend(page.map(|(topic, partition)| tombstone(group_id, topic, partition)));
        is_all
    }

    /// Writes tombstones for the offsets of deleted topics in the groups from `from` on, at most for one page. Returns
    /// the group at which to continue. Offsets without a topic id (written before Kafka 4.3) are matched by topic name
    /// only.
    pub(crate) fn tombstones_of_topics(
        &self,
        deleted: &DeletedTopics,
        from: Option<&Arc<str>>,
        records: &mut Vec<Record>,
    ) -> Option<Arc<str>> {
        let start = from.map_or(Bound::Unbounded, |group_id| Bound::Included(group_id.clone()));
        let mut found: BTreeSet<(&Arc<str>, &Arc<str>, i32)> = BTreeSet::new();
        let mut looked_at = 0;
        let mut next = None;
        'groups: for (group_id, topics) in self.committed.range((start, Bound::Unbounded)) {
            if looked_at >= PAGE {
                next = Some(group_id.clone());
                break;
            }
            looked_at += 1 + deleted.0.len().min(topics.len());
            for (topic, partition) in deleted.of_group(topics) {
                if found.len() >= PAGE {
                    // The next page continues with the same group, after these offsets are deleted.
                    next = Some(group_id.clone());
                    break 'groups;
                }
                found.insert((group_id, topic, partition));
            }
        }
        if next.is_none() {
            // There are few transactions, and none is open for long.
            for (group_id, topics) in self.pending.values().flatten() {
                found.extend(deleted.of_group(topics).map(|(topic, partition)| (group_id, topic, partition)));
            }
        }
        records.extend(found.into_iter().map(|(group, topic, partition)| tombstone(group, topic, partition)));
        next
    }

    /// Writes tombstones for the expired offsets in a page of the group's offsets. `since` returns the time since which
    /// an offset is unused, or `None` if it is in use.
    pub(crate) fn expire(
        &self,
        group_id: &Arc<str>,
        after: Option<&OffsetPosition>,
        now_ms: TimestampMs,
        retention_ms: i64,
        since: impl Fn(&str, &OffsetCommitValue) -> Option<TimestampMs>,
        records: &mut Vec<Record>,
    ) -> ExpiredPage {
        let (page, next) = page(self.committed.get(group_id), after);
        let mut all_expired = after.is_none() && next.is_none() && !self.open_transactions.contains_key(group_id);
        let looked_at = page.len();
        for (topic, partition, offset) in page {
            let expired = since(topic, &offset.value).is_some_and(|since_ms| match offset.value.expire_timestamp_ms {
                Some(expire_timestamp_ms) => now_ms >= expire_timestamp_ms,
                None => now_ms.saturating_sub(since_ms) >= retention_ms,
            });
            if expired && !self.is_unstable(group_id, topic, partition) {
                records.push(tombstone(group_id, topic, partition));
            } else {
                all_expired = false;
            }
        }
        ExpiredPage { all_expired, looked_at, next }
    }
}

/// The result of a check for expired offsets.
pub(crate) struct ExpiredPage {
    /// The group will have no offsets left. If the group has more than one page, only the next check reports this.
    pub(crate) all_expired: bool,
    pub(crate) looked_at: usize,
    /// The position of the next page.
    pub(crate) next: Option<OffsetPosition>,
}

/// Deleted topics: their names, each with the ids of the deleted topics of that name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeletedTopics(BTreeMap<Arc<str>, BTreeSet<TopicId>>);

impl FromIterator<(Arc<str>, TopicId)> for DeletedTopics {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, TopicId)>>(topics: I) -> Self {
        let mut deleted = DeletedTopics::default();
        for (name, id) in topics {
            deleted.0.entry(name).or_default().insert(id);
        }
        deleted
    }
}

impl DeletedTopics {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the partitions of deleted topics for which a group has offsets.
    fn of_group<'a>(&'a self, topics: &'a TopicOffsets) -> impl Iterator<Item = (&'a Arc<str>, i32)> {
        let by_topic = self.0.len() < topics.len();
        let few = self.0.keys().filter(move |_| by_topic).filter_map(|name| topics.get_key_value(name));
        let many = topics.iter().filter(move |_| !by_topic);
        let gone = few.chain(many).filter_map(|(name, offsets)| Some((name, offsets, self.0.get(name)?)));
        gone.flat_map(|(name, offsets, ids)| {
            let belongs = |offset: &OffsetAndMetadata| {
                offset.value.topic_id == TopicId::ZERO || ids.contains(&offset.value.topic_id)
            };
            offsets.iter().filter(move |(_, offset)| belongs(offset)).map(move |(partition, _)| (name, *partition))
        })
    }
}

type Page<'a> = Vec<(&'a Arc<str>, i32, &'a OffsetAndMetadata)>;

/// Returns at most [`PAGE`] offsets after the position `after`, and the position of the next page.
fn page<'a>(topics: Option<&'a TopicOffsets>, after: Option<&OffsetPosition>) -> (Page<'a>, Option<OffsetPosition>) {
    let first_topic = after.map_or(Bound::Unbounded, |(topic, _)| Bound::Included(topic));
    let mut page = Vec::new();
    let topics = topics.into_iter().flat_map(|topics| topics.from(first_topic));
    for (topic, offsets) in topics {
        let first = match after {
            Some((at, partition)) if at == topic => Bound::Excluded(partition),
            _ => Bound::Unbounded,
        };
        for (partition, offset) in offsets.from(first) {
            if page.len() == PAGE {
                let last: Option<&(&Arc<str>, i32, _)> = page.last();
                let next = last.map(|(topic, partition, _)| (Arc::clone(topic), *partition));
                return (page, next);
            }
            page.push((topic, *partition, offset));
        }
    }
    (page, None)
}

pub(crate) fn tombstone(group_id: &Arc<str>, topic: &Arc<str>, partition: i32) -> Record {
    Record::OffsetCommit { group_id: group_id.clone(), topic: topic.clone(), partition, value: None }
}

fn entry<'a, V: Default>(map: &'a mut BTreeMap<Arc<str>, V>, key: &Arc<str>) -> &'a mut V {
    map.entry(key.clone()).or_default()
}

/// Returns the freed memory in bytes; `None` if there is no such offset.
fn remove_offset(
    groups: &mut BTreeMap<Arc<str>, TopicOffsets>,
    group_id: &str,
    topic: &str,
    partition: i32,
) -> Option<usize> {
    let topics = groups.get_mut(group_id)?;
    let offsets = topics.get_mut(topic)?;
    let mut freed = offsets.remove(&partition)?.memory_bytes();
    if offsets.is_empty() {
        topics.remove(topic);
        freed += TOPIC_OVERHEAD_BYTES + topic.len();
    }
    if topics.is_empty() {
        groups.remove(group_id);
        freed += GROUP_OVERHEAD_BYTES + group_id.len();
    }
    Some(freed)
}

/// Whether the topic was deleted and recreated after the commit (O7).
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
