//! Replica placement, manual assignments and leader election.
//!
//! Owns the logic of Apache's `StripedReplicaPlacer` and `PartitionChangeBuilder`, and the checks of manual
//! assignments. Leaves the requests that cause changes to `topics.rs`, `brokers.rs` and `directories.rs`.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use super::{
    ApiError, ConfigSchema, Entropy,
    directories::{MIGRATING, UNASSIGNED, directory_of, has_online_directory},
};
use crate::{
    metadata::{
        image::{BrokerRegistration, MetadataImage, PartitionImage, TopicImage},
        records::{MetadataRecord, NO_LEADER, PartitionChangeRecord, PartitionRecord},
    },
    types::{BrokerId, TopicId},
};

/// Apache: `KRaftClusterDescriber.defaultDir`.
fn default_directory(image: &MetadataImage, broker: BrokerId) -> Uuid {
    match image.broker(broker).map(|broker| broker.directories.as_slice()) {
        Some([]) => MIGRATING,
        Some([only]) => *only,
        Some(_) | None => UNASSIGNED,
    }
}

pub(super) fn is_active(image: &MetadataImage, broker: BrokerId) -> bool {
    image.broker(broker).is_some_and(|broker| broker.is_active())
}

/// The replicas of an assignment whose brokers are active, so that they can be in sync from the start.
pub(super) fn active_replicas(image: &MetadataImage, replicas: &[BrokerId]) -> Vec<BrokerId> {
    replicas.iter().copied().filter(|broker| is_active(image, *broker)).collect()
}

/// Apache: `buildPartitionRegistration`. `isr` must not be empty; its first member leads.
pub(super) fn new_partition(
    image: &MetadataImage,
    topic_id: TopicId,
    partition_id: i32,
    replicas: &[BrokerId],
    isr: Vec<BrokerId>,
) -> MetadataRecord {
    PartitionRecord {
        partition_id,
        topic_id: topic_id.0,
        replicas: replicas.to_vec(),
        leader: isr.first().copied().unwrap_or(NO_LEADER),
        isr,
        leader_epoch: 0,
        partition_epoch: 0,
        directories: replicas.iter().map(|broker| default_directory(image, *broker)).collect(),
        ..Default::default()
    }
    .into()
}

/// Apache: `validateManualPartitionAssignment`.
pub(crate) fn validate_manual_assignment(
    image: &MetadataImage,
    replicas: &[BrokerId],
    replication_factor: Option<usize>,
) -> Result<(), ApiError> {
    let invalid = |message: String| Err(ApiError::new(ResponseError::InvalidReplicaAssignment, message));
    if replicas.is_empty() {
        return invalid("The manual partition assignment includes an empty replica list.".into());
    }
    let mut sorted = replicas.to_vec();
    sorted.sort_unstable();
    for (at, broker) in sorted.iter().enumerate() {
        if image.broker(*broker).is_none() {
            return invalid(format!(
                "The manual partition assignment includes broker {broker}, but no such broker is registered."
            ));
        }
        if at > 0 && sorted[at - 1] == *broker {
            return invalid(format!("The manual partition assignment includes the broker {broker} more than once."));
        }
    }
    match replication_factor {
        Some(expected) if expected != sorted.len() => invalid(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with previous partitions, \
             which have {expected} replica(s).",
            sorted.len()
        )),
        _ => Ok(()),
    }
}

/// The fenced or the unfenced brokers of one rack. `next` returns them in turn, from a random start.
#[derive(Default)]
struct BrokerList {
    brokers: Vec<BrokerId>,
    index: usize,
    offset: usize,
    epoch: usize,
}

impl BrokerList {
    fn initialize(&mut self, entropy: &mut dyn Entropy) {
        if !self.brokers.is_empty() {
            self.brokers.sort_unstable();
            self.offset = entropy.below(self.brokers.len());
        }
    }

    fn next(&mut self, epoch: usize) -> Option<BrokerId> {
        if self.brokers.is_empty() {
            return None;
        }
        if self.epoch != epoch {
            self.epoch = epoch;
            self.index = 0;
            self.offset = (self.offset + 1) % self.brokers.len();
        }
        if self.index >= self.brokers.len() {
            return None;
        }
        let broker = self.brokers[(self.index + self.offset) % self.brokers.len()];
        self.index += 1;
        Some(broker)
    }
}

#[derive(Default)]
struct Rack {
    fenced: BrokerList,
    unfenced: BrokerList,
}

/// Apache: `StripedReplicaPlacer.RackList`. Spreads leaders over racks and brokers, and replicas over racks. A fenced
/// broker is used only if no other is left, and never as the leader.
struct RackList {
    racks: Vec<Rack>,
    broker_count: usize,
    unfenced_count: usize,
    epoch: usize,
    offset: usize,
}

impl RackList {
    fn new<'a>(brokers: impl Iterator<Item = &'a BrokerRegistration>, entropy: &mut dyn Entropy) -> Self {
        let mut by_name: BTreeMap<Option<&str>, Rack> = BTreeMap::new();
        let (mut broker_count, mut unfenced_count) = (0, 0);
        for broker in brokers {
            let rack = by_name.entry(broker.rack.as_deref()).or_default();
            broker_count += 1;
            if broker.fenced {
                rack.fenced.brokers.push(broker.id);
            } else {
                unfenced_count += 1;
                rack.unfenced.brokers.push(broker.id);
            }
        }
        let mut racks: Vec<Rack> = by_name.into_values().collect();
        for rack in &mut racks {
            rack.fenced.initialize(entropy);
            rack.unfenced.initialize(entropy);
        }
        let offset = entropy.below(racks.len());
        RackList { racks, broker_count, unfenced_count, epoch: 0, offset }
    }

    fn shuffle(&mut self, entropy: &mut dyn Entropy) {
        shuffle(&mut self.racks, entropy);
        for rack in &mut self.racks {
            shuffle(&mut rack.fenced.brokers, entropy);
            shuffle(&mut rack.unfenced.brokers, entropy);
        }
    }

    /// Returns the replicas of one partition. The checks in `place` guarantee that both loops end.
    fn place(&mut self, replication_factor: usize, entropy: &mut dyn Entropy) -> Vec<BrokerId> {
        // After as many assignments as there are unfenced brokers, shuffle, so that the assignments do not repeat.
        if self.epoch == self.unfenced_count && self.unfenced_count > 1 {
            self.shuffle(entropy);
            self.epoch = 0;
        }
        let racks = self.racks.len();
        self.offset %= racks;
        let mut brokers = Vec::with_capacity(replication_factor);
        let mut first_rack = self.offset;
        while brokers.is_empty() {
            brokers.extend(self.racks[first_rack].unfenced.next(self.epoch));
            if brokers.is_empty() {
                first_rack = (first_rack + 1) % racks;
            }
        }
        // The rack of the leader is skipped once.
        let (mut skip, mut rack) = (Some(first_rack), self.offset);
        while brokers.len() < replication_factor {
            if skip == Some(rack) {
                skip = None;
            } else {
                let (unfenced, fenced) = (self.racks[rack].unfenced.next(self.epoch), &mut self.racks[rack].fenced);
                brokers.extend(unfenced.or_else(|| fenced.next(self.epoch)));
            }
            rack = (rack + 1) % racks;
        }
        self.epoch += 1;
        self.offset += 1;
        brokers
    }
}

fn shuffle<T>(items: &mut [T], entropy: &mut dyn Entropy) {
    for at in (1..items.len()).rev() {
        items.swap(at, entropy.below(at + 1));
    }
}

/// Returns the replicas for `count` new partitions. The error is Kafka's text without its prefix.
pub(super) fn place(
    image: &MetadataImage,
    count: usize,
    replication_factor: i16,
    entropy: &mut dyn Entropy,
) -> Result<Vec<Vec<BrokerId>>, String> {
    // As in Apache's UsableBrokerIterator, brokers in controlled shutdown are usable here; the later check of
    // `is_active` keeps them out of the ISR.
    let usable = || {
        image
            .brokers
            .values()
            .map(|broker| broker.as_ref())
            .filter(|broker| has_uncordoned_directory(broker) && !(broker.fenced && planted!("K11")))
    };
    let brokers = usable().count();
    let Ok(factor @ 1..) = usize::try_from(replication_factor) else {
        return Err(format!(
            "Invalid replication factor {replication_factor}: the replication factor must be positive."
        ));
    };
    if usable().all(|broker| broker.fenced) {
        return Err("All brokers are currently fenced, or have all their log directories cordoned.".into());
    }
    if factor > brokers {
        return Err(format!(
            "The target replication factor of {factor} cannot be reached because only {brokers} broker(s) are registered or some brokers \
             have all their log directories cordoned."
        ));
    }
    let mut racks = RackList::new(usable(), entropy);
    debug_assert_eq!(racks.broker_count, brokers);
    Ok((0..count).map(|_| racks.place(factor, entropy)).collect())
}

fn has_uncordoned_directory(broker: &BrokerRegistration) -> bool {
    let cordoned = broker.cordoned_directories.as_deref().unwrap_or_default();
    // linear: a broker has a few log directories
    broker.directories.is_empty() || broker.directories.iter().any(|directory| !cordoned.contains(directory))
}

/// A change of a broker that is not in the image yet but that elections must respect.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BrokerChange {
    /// The broker leaves all ISRs and loses its leaderships.
    remove: Option<BrokerId>,
    /// The broker may lead although it is still fenced in the image.
    add: Option<BrokerId>,
    /// The removed broker is not eligible any more: it may lack records that it had acknowledged.
    is_unclean: bool,
}

impl BrokerChange {
    /// The broker stops or is silent. It keeps its log.
    pub(super) fn leaves(broker: BrokerId) -> Self {
        BrokerChange { remove: Some(broker), ..Default::default() }
    }

    /// The broker has stopped without flushing its logs, or does not come back.
    pub(super) fn is_lost(broker: BrokerId) -> Self {
        BrokerChange { remove: Some(broker), is_unclean: true, ..Default::default() }
    }

    /// The broker is unfenced.
    pub(super) fn returns(broker: BrokerId) -> Self {
        BrokerChange { add: Some(broker), ..Default::default() }
    }

    fn may_lead(&self, image: &MetadataImage, partition: &PartitionImage, broker: BrokerId) -> bool {
        let is_unfenced = |registration: &BrokerRegistration| !registration.fenced || Some(broker) == self.add;
        Some(broker) != self.remove
            && image.broker(broker).is_some_and(|broker| is_unfenced(broker) && !broker.in_controlled_shutdown)
            && has_online_directory(image, partition, broker)
    }

    fn concerns(&self, partition: &PartitionImage) -> bool {
        // linear: a partition has a few replicas
        match self.remove {
            Some(removed) => partition.isr.contains(&removed) || (self.is_unclean && partition.elr.contains(&removed)),
            None => partition.leader == NO_LEADER,
        }
    }
}

/// Apache: `generateLeaderAndIsrUpdates`. Returns new leaders and ISRs for all partitions that `change` affects, each
/// when it is asked for.
pub(super) fn leader_and_isr_updates<'a>(
    image: &'a MetadataImage,
    schema: &'a dyn ConfigSchema,
    change: BrokerChange,
) -> impl Iterator<Item = MetadataRecord> + 'a {
    updates_where(image, schema, change, move |partition| change.concerns(partition))
}

/// Elects new leaders, or none, for the partitions whose replica on `broker` is in an offline directory.
pub(super) fn leaders_without_directories(
    image: &MetadataImage,
    schema: &dyn ConfigSchema,
    broker: BrokerId,
    offline: &[Uuid],
) -> Vec<MetadataRecord> {
    // linear: a broker has a few log directories
    let is_lost = |partition: &PartitionImage| directory_of(partition, broker).is_some_and(|id| offline.contains(&id));
    updates_where(image, schema, BrokerChange::leaves(broker), is_lost).collect()
}

fn updates_where<'a>(
    image: &'a MetadataImage,
    schema: &'a dyn ConfigSchema,
    change: BrokerChange,
    is_concerned: impl Fn(&PartitionImage) -> bool + Clone + 'a,
) -> impl Iterator<Item = MetadataRecord> + 'a {
    image.topics.by_name.values().flat_map(move |topic| {
        let is_concerned = is_concerned.clone();
        let mut settings = None;
        let partitions = topic.partitions.iter().filter(move |(_, partition)| is_concerned(partition));
        partitions.filter_map(move |(id, partition)| {
            let settings = *settings.get_or_insert_with(|| ElectionSettings::of(image, schema, topic));
            let builder = PartitionChangeBuilder::new(image, topic, *id, partition, settings);
            builder.with_broker_change(change).build().map(MetadataRecord::from)
        })
    })
}

/// Empties the ELRs of a topic, or of all topics, because `min.insync.replicas` changes: with another minimum the high
/// watermark may have moved without their members. Apache: `ClearElrRecord`.
///
/// Deviations: an ELR whose ISR is empty stays. No record was committed since, and without it nobody could lead.
pub(super) fn clear_elr<'a>(
    image: &'a MetadataImage,
    topic_name: Option<&'a str>,
) -> impl Iterator<Item = MetadataRecord> + 'a {
    let topics = image.topics.by_name.values().filter(move |topic| topic_name.is_none_or(|name| *topic.name == *name));
    topics.flat_map(|topic| {
        let has_elr = |partition: &PartitionImage| !partition.elr.is_empty() && !partition.isr.is_empty();
        let partitions = topic.partitions.iter().filter(move |(_, partition)| has_elr(partition));
        partitions.map(|(id, _)| {
            let change = PartitionChangeRecord { partition_id: *id, topic_id: topic.id.0, ..Default::default() };
            PartitionChangeRecord { eligible_leader_replicas: Some(Vec::new()), ..change }.into()
        })
    })
}

/// The settings of a topic that elections need.
#[derive(Debug, Clone, Copy)]
pub(super) struct ElectionSettings {
    /// `unclean.leader.election.enable`.
    pub(super) unclean_election: bool,
    /// `min.insync.replicas`, at most the number of replicas.
    min_isr: usize,
}

impl ElectionSettings {
    pub(super) fn of(image: &MetadataImage, schema: &dyn ConfigSchema, topic: &TopicImage) -> Self {
        let value = |key: &str| schema.effective_topic_value(image, image.topic_config(&topic.name), key);
        let replicas = topic.partitions.values().next().map_or(1, |partition| partition.replicas.len()).max(1);
        let min_isr = || value("min.insync.replicas").and_then(|value| value.parse().ok()).unwrap_or(1);
        ElectionSettings {
            unclean_election: value("unclean.leader.election.enable").is_some_and(|value| value == "true"),
            // Apache: `getTopicEffectiveMinIsr`.
            min_isr: if replicas == 1 { 1 } else { replicas.min(min_isr()) },
        }
    }
}

/// Apache: `PartitionChangeBuilder.Election`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Election {
    /// The preferred replica leads if it is in sync.
    Preferred,
    /// The leader stays while it is in sync.
    Online,
    /// As `Online`, but a replica that is not in sync is better than none.
    Unclean,
}

/// `LeaderRecoveryState`: the leader has all committed records.
pub(super) const RECOVERED: i8 = 0;
/// `LeaderRecoveryState`: the leader was elected although it may lack committed records.
pub const RECOVERING: i8 = 1;

/// Apache: `PartitionChangeBuilder`, without reassignment. Chooses the leader, the ISR and the eligible leader replicas
/// (ELR, KIP-966) of one partition.
///
/// The high watermark stands still while the ISR is smaller than `min.insync.replicas`. So a replica that leaves such
/// an ISR has all committed records for as long as the ISR stays small, and may lead later: it is in the ELR. A broker
/// that stopped without flushing its logs leaves both. If nobody is left in either, the last leader may lead again,
/// which counts as unclean.
///
/// Deviations: with Kafka a partition with a single replica gets an empty ISR, too. Here its replica stays in the ISR,
/// since no other one could have records that it lacks.
pub(super) struct PartitionChangeBuilder<'a> {
    image: &'a MetadataImage,
    topic: &'a TopicImage,
    partition_id: i32,
    partition: &'a PartitionImage,
    settings: ElectionSettings,
    change: BrokerChange,
    election: Election,
    isr: Vec<BrokerId>,
    elr: Vec<BrokerId>,
    leader_recovery_state: i8,
}

impl<'a> PartitionChangeBuilder<'a> {
    pub(super) fn new(
        image: &'a MetadataImage,
        topic: &'a TopicImage,
        partition_id: i32,
        partition: &'a PartitionImage,
        settings: ElectionSettings,
    ) -> Self {
        PartitionChangeBuilder {
            image,
            topic,
            partition_id,
            partition,
            settings,
            change: BrokerChange::default(),
            election: if settings.unclean_election { Election::Unclean } else { Election::Online },
            isr: partition.isr.clone(),
            elr: partition.elr.clone(),
            leader_recovery_state: partition.leader_recovery_state,
        }
    }

    /// Respects a change of a broker that is not in the image yet.
    pub(super) fn with_broker_change(mut self, change: BrokerChange) -> Self {
        self.change = change;
        self.isr.retain(|broker| Some(*broker) != change.remove);
        self
    }

    pub(super) fn with_election(self, election: Election) -> Self {
        PartitionChangeBuilder { election, ..self }
    }

    /// The ISR and the recovery state that the leader proposes.
    pub(super) fn with_isr(self, isr: Vec<BrokerId>, leader_recovery_state: i8) -> Self {
        PartitionChangeBuilder { isr, leader_recovery_state, ..self }
    }

    /// The change; None if there is none.
    pub(super) fn build(mut self) -> Option<PartitionChangeRecord> {
        let partition = self.partition;
        let unchanged =
            PartitionChangeRecord { partition_id: self.partition_id, topic_id: self.topic.id.0, ..Default::default() };
        let mut record = unchanged.clone();
        self.update_elr();
        let (leader, is_unclean) = self.elect();
        if leader != partition.leader {
            record.leader = leader;
            if is_unclean {
                self.isr = vec![leader];
                self.elr.clear();
                self.leader_recovery_state = RECOVERING;
            // linear: a partition has a few replicas
            } else if self.elr.contains(&leader) {
                self.isr = vec![leader];
                self.elr.retain(|replica| *replica != leader);
            }
        }
        let last_known = self.last_known_leader(leader);
        // The last in-sync replica stays in the ISR if it is the only replica.
        let is_kept = self.isr.is_empty() && self.is_single();
        record.isr = (!is_kept && self.isr != partition.isr).then_some(self.isr);
        record.eligible_leader_replicas = (self.elr != partition.elr).then_some(self.elr);
        record.last_known_elr = (last_known != partition.last_known_elr).then_some(last_known);
        if self.leader_recovery_state != partition.leader_recovery_state {
            record.leader_recovery_state = self.leader_recovery_state;
        }
        (record != unchanged).then_some(record)
    }

    fn is_single(&self) -> bool {
        self.partition.replicas.len() == 1
    }

    /// Apache: `maybePopulateTargetElr`.
    fn update_elr(&mut self) {
        if self.isr.len() >= self.settings.min_isr {
            self.elr.clear();
        } else if !self.is_single() {
            let is_lost = |replica: &BrokerId| self.change.is_unclean && Some(*replica) == self.change.remove;
            // linear: a partition has a few replicas
            let is_eligible = |replica: &BrokerId| {
                (self.partition.isr.contains(replica) || self.elr.contains(replica))
                    && !self.isr.contains(replica)
                    && !is_lost(replica)
            };
            self.elr = self.partition.replicas.iter().copied().filter(is_eligible).collect();
        }
    }

    /// The leader, and whether it may lack committed records. Apache: `electLeader`.
    fn elect(&self) -> (BrokerId, bool) {
        let partition = self.partition;
        let may_lead = |broker: &BrokerId| self.change.may_lead(self.image, partition, *broker);
        // linear: a partition has a few replicas
        let is_eligible = |broker: &BrokerId| {
            (self.isr.contains(broker) || (self.isr.is_empty() && self.elr.contains(broker))) && may_lead(broker)
        };
        let replicas = || partition.replicas.iter().copied();
        let preferred = replicas().take(usize::from(self.election == Election::Preferred));
        let clean = preferred.chain([partition.leader]).chain(replicas()).find(is_eligible);
        let last_known = || match partition.last_known_elr[..] {
            [leader] if self.isr.is_empty() && self.elr.is_empty() => {
                Some(leader).filter(|leader| partition.replicas.contains(leader) && may_lead(leader))
            }
            _ => None,
        };
        let unclean = || replicas().find(|broker| self.election == Election::Unclean && may_lead(broker));
        match clean {
            Some(leader) => (leader, false),
            None => last_known().or_else(unclean).map_or((NO_LEADER, false), |leader| (leader, true)),
        }
    }

    /// Apache: `maybeUpdateLastKnownLeader`. It is stored in the field of the last known ELR. Beyond Kafka it is stored
    /// as well if the leader goes before the last in-sync replica does: nothing is committed between.
    fn last_known_leader(&self, leader: BrokerId) -> Vec<BrokerId> {
        let partition = self.partition;
        if leader != NO_LEADER || self.is_single() {
            return Vec::new();
        }
        if partition.leader != NO_LEADER {
            return vec![partition.leader];
        }
        let loses_isr = self.isr.is_empty() && !partition.isr.is_empty();
        match partition.isr.first() {
            Some(last) if loses_isr && partition.last_known_elr.is_empty() => vec![*last],
            _ => partition.last_known_elr.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::*;

    #[test]
    fn placement_spreads_leaders_and_uses_every_broker_once_per_partition() {
        let image = image_with_brokers(&[1, 2, 3]);
        let placed = place(&image, 6, 2, &mut TestEntropy(5)).unwrap();
        let mut leaders: Vec<i32> = placed.iter().map(|replicas| replicas[0]).collect();
        leaders[..3].sort();
        leaders[3..].sort();
        assert_eq!(leaders, [1, 2, 3, 1, 2, 3], "all brokers lead equally often: {placed:?}");
        assert!(placed.iter().all(|replicas| replicas[0] != replicas[1]));
    }

    #[test]
    fn placement_puts_replicas_into_different_racks_and_no_leader_on_a_fenced_broker() {
        let mut image = image_with_brokers(&[1, 2, 3, 4]);
        edit_broker(&mut image, 1, |broker| broker.rack = Some("a".into()));
        edit_broker(&mut image, 2, |broker| broker.rack = Some("a".into()));
        edit_broker(&mut image, 3, |broker| broker.rack = Some("b".into()));
        edit_broker(&mut image, 4, |broker| broker.rack = Some("b".into()));
        let in_a = |broker: &i32| *broker <= 2;
        for replicas in place(&image, 20, 2, &mut TestEntropy(3)).unwrap() {
            assert_ne!(in_a(&replicas[0]), in_a(&replicas[1]), "{replicas:?}");
        }
        edit_broker(&mut image, 3, |broker| broker.fenced = true);
        for replicas in place(&image, 20, 4, &mut TestEntropy(3)).unwrap() {
            assert_ne!(replicas[0], 3);
            let mut all = replicas.clone();
            all.sort();
            assert_eq!(all, [1, 2, 3, 4]);
        }
    }

    #[test]
    fn a1_replication_factor_beyond_the_brokers_is_refused_in_kafka_s_words() {
        let image = image_with_brokers(&[1]);
        assert_eq!(
            place(&image, 1, 2, &mut TestEntropy(0)).unwrap_err(),
            "The target replication factor of 2 cannot be reached because only 1 broker(s) are registered or some brokers have all their \
             log directories cordoned."
        );
        let mut image = image;
        edit_broker(&mut image, 1, |broker| broker.fenced = true);
        assert_eq!(
            place(&image, 1, 1, &mut TestEntropy(0)).unwrap_err(),
            "All brokers are currently fenced, or have all their log directories cordoned."
        );
    }

    #[test]
    fn a_single_replica_loses_its_leader_but_not_its_isr_and_gets_it_back() {
        let mut image = image_with_brokers(&[1]);
        add_topic(&mut image, "t", &[&[1]]);
        let records = leader_and_isr_updates(&image, &TestSchema, BrokerChange::leaves(1)).collect::<Vec<_>>();
        apply(&mut image, &records);
        let partition = image.partition("t", 0).unwrap();
        assert_eq!((partition.leader, partition.leader_epoch, &*partition.isr), (NO_LEADER, 1, &[1][..]));
        edit_broker(&mut image, 1, |broker| broker.fenced = true);
        let records = leader_and_isr_updates(&image, &TestSchema, BrokerChange::returns(1)).collect::<Vec<_>>();
        apply(&mut image, &records);
        let partition = image.partition("t", 0).unwrap();
        assert_eq!((partition.leader, partition.leader_epoch), (1, 2));
    }

    #[test]
    fn a_follower_takes_over_and_the_isr_shrinks_and_only_unclean_election_leaves_the_isr() {
        let mut image = image_with_brokers(&[1, 2]);
        add_topic(&mut image, "t", &[&[1, 2]]);
        let records = leader_and_isr_updates(&image, &TestSchema, BrokerChange::leaves(1)).collect::<Vec<_>>();
        apply(&mut image, &records);
        edit_broker(&mut image, 1, |broker| broker.fenced = true);
        let partition = image.partition("t", 0).unwrap();
        assert_eq!((partition.leader, &*partition.isr), (2, &[2][..]));
        // Now broker 2 fails too, and broker 1 comes back, but it is not in sync.
        let records = leader_and_isr_updates(&image, &TestSchema, BrokerChange::leaves(2)).collect::<Vec<_>>();
        apply(&mut image, &records);
        edit_broker(&mut image, 2, |broker| broker.fenced = true);
        let back = BrokerChange::returns(1);
        assert_eq!(leader_and_isr_updates(&image, &TestSchema, back).count(), 0);
        set_config(&mut image, "t", "unclean.leader.election.enable", "true");
        let records = leader_and_isr_updates(&image, &TestSchema, back).collect::<Vec<_>>();
        apply(&mut image, &records);
        let partition = image.partition("t", 0).unwrap();
        assert_eq!((partition.leader, &*partition.isr, partition.leader_recovery_state), (1, &[1][..], 1));
    }
}
