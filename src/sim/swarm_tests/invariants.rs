//! What must hold inside of the brokers of a swarm between any two steps, one checker for each.
//!
//! Owns what the checkers remember of earlier steps. Leaves what clients see to `load.rs`.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
};

use super::{
    super::{NodeId, cluster::Observer},
    load::{Key, LOOSE},
};
use crate::{
    broker::Broker,
    log::Log,
    metadata::image::{MetadataImage, PartitionImage},
    replica::{replica_manager::Hosted, state::ReplicaState},
    types::{BrokerId, CLUSTER_METADATA_TOPIC, LeaderEpoch, Offset},
};

/// The brokers' state as of all steps so far.
pub(super) struct Invariants {
    seed: u64,
    /// The topic with one replica in sync may lose records.
    loose_may_lose: bool,
    observer: Observer,
    /// The newest metadata that any broker has published.
    newest: Option<Arc<MetadataImage>>,
    /// The image of each broker that was checked last.
    checked: BTreeMap<NodeId, Offset>,
    checksums: BTreeMap<Offset, u32>,
    states: BTreeMap<(Key, i32), PartitionImage>,
    leaders: BTreeMap<(Key, LeaderEpoch), BrokerId>,
    watermarks: BTreeMap<(NodeId, Key, LeaderEpoch), Offset>,
    committed: BTreeMap<Key, Committed>,
    /// How often a broker was fenced.
    pub(super) fencings: u32,
    /// How often the leader of a partition changed.
    pub(super) elections: u32,
}

/// The end of the records that were committed, and the epoch of the last one.
#[derive(Clone, Copy, Debug)]
struct Committed {
    end_offset: Offset,
    leader_epoch: LeaderEpoch,
}

/// One replica between two steps.
struct Replica<'a> {
    node: NodeId,
    key: Key,
    name: &'a str,
    state: &'a ReplicaState,
    log: &'a Log,
}

impl Invariants {
    pub(super) fn new(seed: u64, loose_may_lose: bool, observer: Observer) -> Invariants {
        Invariants {
            seed,
            loose_may_lose,
            observer,
            newest: None,
            checked: BTreeMap::new(),
            checksums: BTreeMap::new(),
            states: BTreeMap::new(),
            leaders: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            committed: BTreeMap::new(),
            fencings: 0,
            elections: 0,
        }
    }

    pub(super) fn newest(&self) -> Option<&Arc<MetadataImage>> {
        self.newest.as_ref()
    }

    /// Checks everything.
    pub(super) fn check(&mut self) {
        let observer = std::mem::replace(&mut self.observer, Observer::none());
        observer.each(|node, broker| self.see_image(node, &broker.image()));
        observer.each(|node, broker| {
            each_replica(node, broker, |replica| {
                self.watermarks_are_in_order(&replica);
                self.epochs_of_the_log_grow(&replica);
                if replica.state.is_leader() {
                    self.one_leader_in_an_epoch(&replica);
                    self.the_leader_has_the_controllers_isr(&replica);
                    self.the_high_watermark_stays(&replica);
                    self.note_committed(&replica);
                }
            });
        });
        observer.each(|node, broker| self.nothing_committed_is_truncated(node, broker));
        observer.each(|node, broker| {
            each_replica(node, broker, |replica| self.eligible_replicas_have_what_is_committed(&replica));
        });
        self.observer = observer;
    }

    fn see_image(&mut self, node: NodeId, image: &Arc<MetadataImage>) {
        let offset = image.provenance.last_contained_offset;
        if self.checked.insert(node, offset) == Some(offset) {
            return;
        }
        self.images_at_an_offset_are_equal(node, image);
        if self.newest.as_ref().is_some_and(|newest| newest.provenance.last_contained_offset >= offset) {
            return;
        }
        self.count_changes(image);
        for topic in image.topics.by_name.values() {
            for (index, partition) in &topic.partitions {
                let key = (topic.id, *index);
                self.one_state_in_a_partition_epoch(key, partition);
                self.the_sets_of_replicas_are_consistent(key, image, partition);
                if partition.leader >= 0 {
                    self.one_leader(key, partition.leader_epoch, partition.leader);
                }
            }
        }
        self.newest = Some(image.clone());
    }

    fn count_changes(&mut self, image: &MetadataImage) {
        let Some(before) = &self.newest else { return };
        for broker in image.brokers.values() {
            let was_unfenced = before.broker(broker.id).is_some_and(|before| !before.fenced);
            self.fencings += u32::from(broker.fenced && was_unfenced);
        }
        for topic in image.topics.by_name.values() {
            for (index, partition) in &topic.partitions {
                let epoch = before.topic_by_id(topic.id).and_then(|topic| topic.partitions.get(index));
                self.elections += u32::from(epoch.is_some_and(|before| before.leader_epoch < partition.leader_epoch));
            }
        }
    }

    /// INV-M2.
    fn images_at_an_offset_are_equal(&mut self, node: NodeId, image: &MetadataImage) {
        let (offset, checksum) = (image.provenance.last_contained_offset, image.checksum());
        let known = *self.checksums.entry(offset).or_insert(checksum);
        assert_eq!(known, checksum, "seed {}: INV-M2: node {node} has another image at offset {offset}", self.seed);
    }

    fn one_state_in_a_partition_epoch(&mut self, key: Key, partition: &PartitionImage) {
        let known = self.states.entry((key, partition.partition_epoch)).or_insert_with(|| partition.clone());
        // The directories change without a new partition epoch.
        let same = PartitionImage { directories: known.directories.clone(), ..partition.clone() } == *known;
        assert!(same, "seed {}: INV-M1: {key:?} was {known:?} and is {partition:?} in one epoch", self.seed);
    }

    /// KIP-966, INV-M3.
    fn the_sets_of_replicas_are_consistent(&self, key: Key, image: &MetadataImage, partition: &PartitionImage) {
        let PartitionImage { replicas, isr, elr, leader, .. } = partition;
        let is_fenced = |broker: &BrokerId| image.broker(*broker).is_none_or(|broker| broker.fenced);
        let seed = self.seed;
        assert!(
            *leader < 0 || isr.contains(leader) && !is_fenced(leader),
            "seed {seed}: INV-M3: {key:?} has a leader that is fenced or not in sync: {partition:?}"
        );
        assert!(isr.iter().chain(elr).all(|member| replicas.contains(member)), "seed {seed}: {key:?} {partition:?}");
        assert!(!isr.iter().any(|member| elr.contains(member)), "seed {seed}: KIP-966: {key:?} {partition:?}");
        let has_fenced = *leader >= 0 && isr.iter().any(is_fenced);
        assert!(!has_fenced, "seed {seed}: a fenced broker is in the ISR of {key:?}: {partition:?}");
    }

    fn one_leader(&mut self, key: Key, epoch: LeaderEpoch, leader: BrokerId) {
        let known = *self.leaders.entry((key, epoch)).or_insert(leader);
        assert_eq!(known, leader, "seed {}: two leaders of {key:?} in epoch {epoch}", self.seed);
    }

    fn one_leader_in_an_epoch(&mut self, replica: &Replica<'_>) {
        let leadership = replica.state.leadership();
        self.one_leader(replica.key, leadership.leader_epoch, leadership.leader);
    }

    /// INV-L2.
    fn watermarks_are_in_order(&self, replica: &Replica<'_>) {
        let (start, end) = (replica.log.log_start_offset(), replica.log.log_end_offset());
        let high_watermark = replica.state.high_watermark();
        let Replica { node, key, .. } = replica;
        assert!(
            start <= high_watermark && high_watermark <= end,
            "seed {}: INV-L2: {key:?} on node {node}: {start} {high_watermark} {end}",
            self.seed
        );
    }

    fn epochs_of_the_log_grow(&self, replica: &Replica<'_>) {
        let entries = replica.log.leader_epochs().entries();
        let grows = entries.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        // A log that was just opened has no metadata yet.
        let current = replica.state.leadership().leader_epoch;
        let last = entries
            .last()
            .is_none_or(|(epoch, start)| (current < 0 || *epoch <= current) && *start <= replica.log.log_end_offset());
        let (seed, node, key) = (self.seed, replica.node, replica.key);
        assert!(grows && last, "seed {seed}: the epochs of {key:?} on node {node}: {entries:?}");
    }

    fn the_leader_has_the_controllers_isr(&self, replica: &Replica<'_>) {
        let leadership = replica.state.leadership();
        if let Some(known) = self.states.get(&(replica.key, leadership.partition_epoch)) {
            let sorted = |isr: &[BrokerId]| {
                let mut isr = isr.to_vec();
                isr.sort_unstable();
                isr
            };
            let (node, key) = (replica.node, replica.key);
            assert_eq!(
                sorted(&known.isr),
                sorted(&leadership.isr),
                "seed {}: the ISR of {key:?} in its epoch {} on node {node}",
                self.seed,
                leadership.partition_epoch
            );
        }
    }

    /// INV-R3.
    fn the_high_watermark_stays(&mut self, replica: &Replica<'_>) {
        let high_watermark = replica.state.high_watermark();
        let at = (replica.node, replica.key, replica.state.leadership().leader_epoch);
        let known = self.watermarks.insert(at, high_watermark).unwrap_or(0);
        assert!(known <= high_watermark, "seed {}: INV-R3: {at:?} from {known} to {high_watermark}", self.seed);
    }

    /// A follower never has records of its own below the high watermark (KAFKA-14704, KAFKA-19474).
    fn nothing_committed_is_truncated(&self, node: NodeId, broker: &Broker) {
        let truncated = broker.replica_manager().truncated_committed();
        let lost = truncated.iter().find(|partition| *partition.topic != *LOOSE);
        assert!(lost.is_none(), "seed {}: INV-R4: node {node} truncates {lost:?} below its high watermark", self.seed);
    }

    fn may_lose(&self, name: &str) -> bool {
        self.loose_may_lose && name == LOOSE
    }

    /// All below the high watermark of a leader is committed.
    fn note_committed(&mut self, replica: &Replica<'_>) {
        let end_offset = replica.state.high_watermark();
        if end_offset <= replica.log.log_start_offset() || self.may_lose(replica.name) {
            return;
        }
        let known = self.committed.get(&replica.key).copied();
        if known.is_none_or(|known| known.end_offset < end_offset)
            && let Some(leader_epoch) = replica.log.leader_epochs().epoch_for_offset(end_offset - 1)
        {
            self.committed.insert(replica.key, Committed { end_offset, leader_epoch });
        }
    }

    /// INV-R4: each replica that may be elected has all committed records. By the rule of the log, it has the same
    /// records below one that it has in the same epoch.
    fn eligible_replicas_have_what_is_committed(&self, replica: &Replica<'_>) {
        let Some(committed) = self.committed.get(&replica.key) else { return };
        let partition = self.newest.as_ref().and_then(|image| image.topic_by_id(replica.key.0));
        let Some(partition) = partition.and_then(|topic| topic.partitions.get(&replica.key.1)) else { return };
        let broker = replica.node as BrokerId;
        if !partition.isr.contains(&broker) && !partition.elr.contains(&broker) {
            return;
        }
        let (end, epochs) = (replica.log.log_end_offset(), replica.log.leader_epochs());
        assert!(
            end >= committed.end_offset
                && epochs.epoch_for_offset(committed.end_offset - 1) == Some(committed.leader_epoch),
            "seed {}: INV-R4: node {} may lead {} {:?} and lacks committed records: {committed:?}, its log ends at \
             {end} with epochs {:?}; {partition:?}",
            self.seed,
            replica.node,
            replica.name,
            replica.key,
            epochs.entries()
        );
    }
}

/// Prints what each broker thinks of each partition.
pub(super) fn describe(observer: &Observer) {
    observer.each(|node, broker| {
        let image = broker.image();
        eprintln!("node {node} has metadata up to {}", image.provenance.last_contained_offset);
        for topic in broker.replica_manager().topics() {
            for (index, hosted) in topic.hosted() {
                let state = match &hosted {
                    Hosted::Online(partition) => {
                        partition.inspect(|state, log| format!("{:?} in {log:?}", state.leadership()))
                    }
                    Hosted::Opening => "opening".to_owned(),
                    Hosted::Offline => "offline".to_owned(),
                };
                let registered = image.topic_by_id(topic.id).and_then(|topic| topic.partitions.get(&index));
                eprintln!("node {node}, {}-{index}: {state}; metadata: {registered:?}", topic.name);
            }
        }
    });
}

fn each_replica(node: NodeId, broker: &Broker, mut look: impl FnMut(Replica<'_>)) {
    for topic in broker.replica_manager().topics() {
        if &*topic.name == CLUSTER_METADATA_TOPIC {
            continue;
        }
        for (index, hosted) in topic.hosted() {
            let Hosted::Online(partition) = hosted else { continue };
            // A failed check must not poison the lock of the partition: then the process would end without a message.
            let checked = partition.inspect(|state, log| {
                let replica = Replica { node, key: (topic.id, index), name: &topic.name, state, log };
                catch_unwind(AssertUnwindSafe(|| {
                    if !log.is_deleted() {
                        look(replica)
                    }
                }))
            });
            if let Err(failure) = checked {
                resume_unwind(failure);
            }
        }
    }
}
