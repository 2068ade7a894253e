//! AlterPartition: the leader of a partition proposes another ISR.
//!
//! Owns the checks of Apache's `ReplicationControlManager.alterPartition`. Leaves the choice of leaders to
//! `partitions.rs`, and the decision when a replica is in sync to the leader's broker.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;

use super::{
    ApiError, Step, StepContext,
    brokers::check_broker_epoch,
    partitions::{ElectionSettings, PartitionChangeBuilder, RECOVERED, RECOVERING},
};
use crate::{
    metadata::{
        image::{MetadataImage, PartitionImage, TopicImage},
        records::{MetadataRecord, NO_LEADER_CHANGE},
    },
    types::{BrokerId, LeaderEpoch, TopicId},
};

/// AlterPartition: a broker proposes the ISRs of partitions that it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterPartition {
    pub broker_id: BrokerId,
    pub broker_epoch: i64,
    pub proposals: BTreeMap<(TopicId, i32), ProposedIsr>,
}

/// The ISR that the leader of a partition proposes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposedIsr {
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch to which the proposal refers.
    pub partition_epoch: i32,
    /// Each member with its broker epoch (KIP-903), or -1 if the leader does not know it.
    pub isr: Vec<(BrokerId, i64)>,
    /// 1 while the leader recovers from an unclean election, otherwise 0.
    pub leader_recovery_state: i8,
}

/// The state of a partition after a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlteredPartition {
    pub leader: BrokerId,
    pub leader_epoch: LeaderEpoch,
    pub isr: Vec<BrokerId>,
    pub leader_recovery_state: i8,
    pub partition_epoch: i32,
}

/// One result per partition. Err: the whole request is refused.
pub type AlterPartitionReply = Result<BTreeMap<(TopicId, i32), Result<AlteredPartition, ResponseError>>, ApiError>;

/// Decides the proposals, each by itself.
pub fn alter_partition(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    request: AlterPartition,
) -> Step<AlterPartitionReply> {
    if let Err(error) = check_broker_epoch(image, request.broker_id, request.broker_epoch) {
        return Step::reply(Err(error));
    }
    let mut records = Vec::new();
    let mut decide = |(topic_id, index): (TopicId, i32), proposal: &ProposedIsr| {
        let topic = image.topic_by_id(topic_id).ok_or(ResponseError::UnknownTopicId)?;
        let partition = topic.partitions.get(&index).ok_or(ResponseError::UnknownTopicOrPartition)?;
        if check(image, partition, request.broker_id, proposal)? == Proposal::IsCurrent {
            return Ok(AlteredPartition::from(partition));
        }
        let (altered, record) = accept(image, context, topic, index, proposal);
        records.extend(record);
        altered
    };
    let decided = request.proposals.iter().map(|(at, proposal)| (*at, decide(*at, proposal))).collect();
    Step { records, reply: Ok(decided) }
}

#[derive(Debug, PartialEq, Eq)]
enum Proposal {
    IsCurrent,
    IsNew,
}

/// Apache: `validateAlterPartitionData`.
fn check(
    image: &MetadataImage,
    partition: &PartitionImage,
    sender: BrokerId,
    proposal: &ProposedIsr,
) -> Result<Proposal, ResponseError> {
    // The leader has seen a newer state than this controller, so another controller is active (KAFKA-14154). The leader
    // must not take the answer of this one for a reason to stop.
    if proposal.leader_epoch > partition.leader_epoch || proposal.partition_epoch > partition.partition_epoch {
        let believed = planted!("A6");
        return Err(if believed { ResponseError::FencedLeaderEpoch } else { ResponseError::NotController });
    }
    if proposal.leader_epoch < partition.leader_epoch {
        return Err(ResponseError::FencedLeaderEpoch);
    }
    if sender != partition.leader {
        return Err(ResponseError::InvalidRequest);
    }
    // The leader repeats a proposal whose answer it has not got (KAFKA-14144).
    if is_current(partition, proposal) {
        return Ok(Proposal::IsCurrent);
    }
    if proposal.partition_epoch < partition.partition_epoch {
        return Err(ResponseError::InvalidUpdateVersion);
    }
    let is_valid = is_valid_isr(partition, proposal) && is_valid_recovery(partition, proposal);
    if !is_valid {
        return Err(ResponseError::InvalidRequest);
    }
    if proposal.isr.iter().all(|(broker, epoch)| is_eligible(image, *broker, *epoch)) {
        Ok(Proposal::IsNew)
    } else {
        Err(ResponseError::IneligibleReplica)
    }
}

fn members(proposal: &ProposedIsr) -> Vec<BrokerId> {
    proposal.isr.iter().map(|(broker, _)| *broker).collect()
}

fn is_current(partition: &PartitionImage, proposal: &ProposedIsr) -> bool {
    let (mut proposed, mut current) = (members(proposal), partition.isr.clone());
    proposed.sort_unstable();
    current.sort_unstable();
    proposed == current && proposal.leader_recovery_state == partition.leader_recovery_state
}

/// The members are different replicas, and the leader is one of them.
fn is_valid_isr(partition: &PartitionImage, proposal: &ProposedIsr) -> bool {
    let mut members = members(proposal);
    members.sort_unstable();
    members.windows(2).all(|pair| pair[0] != pair[1])
        // linear: a partition has a few replicas
        && members.contains(&partition.leader)
        // linear: a partition has a few replicas
        && members.iter().all(|member| partition.replicas.contains(member))
}

/// A leader that was elected uncleanly recovers alone, and only the controller can make it recover.
fn is_valid_recovery(partition: &PartitionImage, proposal: &ProposedIsr) -> bool {
    match proposal.leader_recovery_state {
        RECOVERED => true,
        RECOVERING => partition.leader_recovery_state == RECOVERING && proposal.isr.len() == 1,
        _ => false,
    }
}

/// KIP-841, KIP-903: a broker that is fenced, is shutting down or was restarted since the leader heard it does not join
/// the ISR.
fn is_eligible(image: &MetadataImage, broker: BrokerId, epoch: i64) -> bool {
    image
        .broker(broker)
        .is_some_and(|broker| broker.is_active() && (epoch == -1 || epoch == broker.epoch || planted!("A4-CONTROLLER")))
}

/// The state after a valid proposal, and the record that makes it so.
fn accept(
    image: &MetadataImage,
    context: &StepContext<'_>,
    topic: &TopicImage,
    index: i32,
    proposal: &ProposedIsr,
) -> (Result<AlteredPartition, ResponseError>, Option<MetadataRecord>) {
    let partition = &topic.partitions[&index];
    let settings = ElectionSettings::of(image, context.schema, topic);
    let builder = PartitionChangeBuilder::new(image, topic, index, partition, settings);
    let Some(change) = builder.with_isr(members(proposal), proposal.leader_recovery_state).build() else {
        return (Ok(partition.into()), None);
    };
    // The directory of the leader is offline: it does not lead any more, and learns that from the metadata.
    let has_new_leader = change.leader != NO_LEADER_CHANGE && change.leader != partition.leader;
    let altered = if has_new_leader {
        Err(ResponseError::NewLeaderElected)
    } else {
        let mut altered = partition.clone();
        altered.merge(&change);
        Ok(AlteredPartition::from(&altered))
    };
    (altered, Some(change.into()))
}

impl From<&PartitionImage> for AlteredPartition {
    fn from(partition: &PartitionImage) -> Self {
        AlteredPartition {
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            isr: partition.isr.clone(),
            leader_recovery_state: partition.leader_recovery_state,
            partition_epoch: partition.partition_epoch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{
        brokers::{BrokerHeartbeat, broker_heartbeat},
        testing::*,
    };

    const EPOCH: i64 = 5;

    fn image() -> MetadataImage {
        let mut image = image_with_brokers(&[1, 2, 3, 4]);
        add_topic(&mut image, "t", &[&[1, 2, 3]]);
        image
    }

    fn proposal(image: &MetadataImage, isr: &[BrokerId]) -> ProposedIsr {
        let partition = image.partition("t", 0).unwrap();
        ProposedIsr {
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: isr.iter().map(|broker| (*broker, EPOCH)).collect(),
            leader_recovery_state: partition.leader_recovery_state,
        }
    }

    fn send(image: &mut MetadataImage, sender: BrokerId, proposal: ProposedIsr) -> Result<AlteredPartition, i16> {
        let at = (image.topic_id("t").unwrap(), 0);
        let proposals = [(at, proposal)].into();
        let request = AlterPartition { broker_id: sender, broker_epoch: EPOCH, proposals };
        let step = with_context(|context| alter_partition(image, context, request));
        apply(image, &step.records);
        step.reply.unwrap().remove(&at).unwrap().map_err(|error| error.code())
    }

    fn altered(isr: &[BrokerId], partition_epoch: i32) -> AlteredPartition {
        AlteredPartition { leader: 1, leader_epoch: 0, isr: isr.to_vec(), leader_recovery_state: 0, partition_epoch }
    }

    #[test]
    fn c4_the_isr_shrinks_and_grows_and_the_leader_epoch_stays() {
        let mut image = image();
        let shrink = proposal(&image, &[1, 2]);
        assert_eq!(send(&mut image, 1, shrink), Ok(altered(&[1, 2], 1)));
        let grow = proposal(&image, &[1, 2, 3]);
        assert_eq!(send(&mut image, 1, grow), Ok(altered(&[1, 2, 3], 2)));
        assert_eq!(AlteredPartition::from(image.partition("t", 0).unwrap()), altered(&[1, 2, 3], 2));
    }

    #[test]
    fn c1_a_repeated_proposal_succeeds_and_another_one_in_its_epoch_does_not() {
        let mut image = image();
        let shrink = proposal(&image, &[2, 1]);
        assert_eq!(send(&mut image, 1, shrink.clone()), Ok(altered(&[2, 1], 1)));
        for isr in [[2, 1], [1, 2]] {
            let repeated = ProposedIsr { isr: proposal(&image, &isr).isr, ..shrink.clone() };
            assert_eq!(send(&mut image, 1, repeated), Ok(altered(&[2, 1], 1)), "nothing changes");
        }
        let other = ProposedIsr { isr: vec![(1, EPOCH)], ..shrink };
        assert_eq!(send(&mut image, 1, other), Err(ResponseError::InvalidUpdateVersion.code()));
    }

    #[test]
    fn c1_epochs_ahead_of_this_controller_are_for_another_one() {
        let mut image = image();
        let current = proposal(&image, &[1, 2]);
        let ahead = [
            ProposedIsr { leader_epoch: 1, ..current.clone() },
            ProposedIsr { partition_epoch: 1, ..current.clone() },
            // Even a proposal that is equal to the state here: the state elsewhere may differ.
            ProposedIsr { partition_epoch: 1, ..proposal(&image, &[1, 2, 3]) },
        ];
        for proposal in ahead {
            assert_eq!(send(&mut image, 1, proposal), Err(ResponseError::NotController.code()));
        }
        let old = ProposedIsr { leader_epoch: -1, ..current.clone() };
        assert_eq!(send(&mut image, 1, old), Err(ResponseError::FencedLeaderEpoch.code()));
        assert_eq!(send(&mut image, 2, current), Err(ResponseError::InvalidRequest.code()), "2 is not the leader");
    }

    #[test]
    fn c2_an_isr_without_the_leader_or_with_strangers_is_refused() {
        let mut image = image();
        for isr in [&[][..], &[2, 3], &[1, 4], &[1, 9], &[1, 2, 2], &[1, 2, 3, 1], &[1, -1]] {
            let invalid = proposal(&image, isr);
            assert_eq!(send(&mut image, 1, invalid), Err(ResponseError::InvalidRequest.code()), "{isr:?}");
        }
        assert_eq!(image.partition("t", 0).unwrap().partition_epoch, 0);
    }

    #[test]
    fn c3_members_must_be_active_and_in_the_incarnation_that_the_leader_heard() {
        let mut image = image();
        let shrink = proposal(&image, &[1]);
        send(&mut image, 1, shrink).unwrap();
        let ineligible = Err(ResponseError::IneligibleReplica.code());
        let mut restarted = proposal(&image, &[1, 2]);
        restarted.isr[1].1 = EPOCH - 1;
        assert_eq!(send(&mut image, 1, restarted.clone()), ineligible);
        edit_broker(&mut image, 2, |broker| broker.fenced = true);
        let grow = proposal(&image, &[1, 2]);
        assert_eq!(send(&mut image, 1, grow.clone()), ineligible);
        edit_broker(&mut image, 2, |broker| (broker.fenced, broker.in_controlled_shutdown) = (false, true));
        assert_eq!(send(&mut image, 1, grow), ineligible);
        edit_broker(&mut image, 2, |broker| broker.in_controlled_shutdown = false);
        restarted.isr[1].1 = -1;
        assert_eq!(send(&mut image, 1, restarted), Ok(altered(&[1, 2], 2)), "the leader does not know its epoch");
    }

    #[test]
    fn c2_the_leader_recovers_alone_and_then_for_good() {
        let mut image = image();
        let invalid = Err(ResponseError::InvalidRequest.code());
        let with = |proposal: ProposedIsr, leader_recovery_state| ProposedIsr { leader_recovery_state, ..proposal };
        let again = with(proposal(&image, &[1]), RECOVERING);
        assert_eq!(send(&mut image, 1, again), invalid, "only an election begins a recovery");
        let unknown = with(proposal(&image, &[1]), 7);
        assert_eq!(send(&mut image, 1, unknown), invalid);
        // 2 and 3 have left the ISR, 1 is fenced, and 2 is elected uncleanly.
        let shrink = proposal(&image, &[1]);
        send(&mut image, 1, shrink).unwrap();
        set_config(&mut image, "t", "unclean.leader.election.enable", "true");
        let fence = BrokerHeartbeat { want_fence: true, ..BrokerHeartbeat::new(1, EPOCH) };
        let step = with_context(|context| broker_heartbeat(&image, context, fence));
        apply(&mut image, &step.records);
        let recovering = proposal(&image, &[2, 3]);
        assert_eq!(recovering.leader_recovery_state, RECOVERING);
        assert_eq!(send(&mut image, 2, recovering.clone()), invalid);
        let recovered = send(&mut image, 2, with(recovering, RECOVERED)).unwrap();
        assert_eq!((recovered.leader, recovered.isr, recovered.leader_recovery_state), (2, vec![2, 3], RECOVERED));
    }

    #[test]
    fn unknown_partitions_do_not_hinder_others_and_an_old_broker_epoch_refuses_all() {
        let mut image = image();
        let topic = image.topic_id("t").unwrap();
        let unknown = TopicId(uuid::Uuid::from_u128(77));
        let shrink = proposal(&image, &[1, 2]);
        let proposals = [(topic, 0), (topic, 7), (unknown, 0)].map(|at| (at, shrink.clone())).into();
        let request = AlterPartition { broker_id: 1, broker_epoch: EPOCH, proposals };
        let stale = AlterPartition { broker_epoch: EPOCH - 1, ..request.clone() };
        let step = with_context(|context| alter_partition(&image, context, stale));
        assert_eq!(step.reply.unwrap_err().error, ResponseError::StaleBrokerEpoch);
        let step = with_context(|context| alter_partition(&image, context, request));
        let codes = step.reply.unwrap().into_values().map(|result| result.map_err(|error| error.code()).err());
        let mut codes: Vec<_> = codes.collect();
        codes.sort_unstable();
        let (partition, id) = (ResponseError::UnknownTopicOrPartition.code(), ResponseError::UnknownTopicId.code());
        assert_eq!(codes, [None, Some(partition), Some(id)]);
        apply(&mut image, &step.records);
        assert_eq!(image.partition("t", 0).unwrap().isr, [1, 2]);
    }

    #[test]
    fn a_leader_whose_directory_is_offline_learns_that_another_one_leads() {
        let mut image = image();
        edit_broker(&mut image, 1, |broker| broker.directories = vec![uuid::Uuid::from_u128(2002)]);
        let shrink = proposal(&image, &[1, 2]);
        assert_eq!(send(&mut image, 1, shrink), Err(ResponseError::NewLeaderElected.code()));
        let partition = image.partition("t", 0).unwrap();
        assert_eq!((partition.leader, partition.leader_epoch, &*partition.isr), (2, 1, &[1, 2][..]));
    }
}
