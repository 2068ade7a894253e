//! ElectLeaders: elections that a client asks for, the return of leaders to their preferred replicas, and unclean
//! elections where the settings allow them.
//!
//! Owns Apache's `ReplicationControlManager.electLeaders`, `maybeBalancePartitionLeaders` and
//! `maybeElectUncleanLeaders`. Leaves the choice of leaders to `partitions.rs`, and the time of an election to the
//! caller.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;

use super::{
    ApiError, Step, StepContext,
    partitions::{Election, ElectionSettings, PartitionChangeBuilder, is_active},
};
use crate::metadata::{
    image::{MetadataImage, PartitionImage, TopicImage},
    records::{MetadataRecord, PartitionChangeRecord},
};

/// Apache: `ReplicationControlManager.MAX_ELECTIONS_PER_IMBALANCE`.
const MAX_ELECTIONS_PER_IMBALANCE: usize = 1_000;

/// Apache: `ElectionType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElectionType {
    /// The first replica shall lead.
    Preferred,
    /// Any replica shall lead a partition that has no leader, even if committed records are lost.
    Unclean,
}

impl ElectionType {
    /// Returns None for a number that Kafka does not define.
    pub fn from_id(id: i8) -> Option<Self> {
        match id {
            0 => Some(ElectionType::Preferred),
            1 => Some(ElectionType::Unclean),
            _ => None,
        }
    }

    fn is_needed(self, partition: &PartitionImage) -> bool {
        match self {
            ElectionType::Preferred => partition.replicas.first() != Some(&partition.leader),
            ElectionType::Unclean => partition.leader < 0,
        }
    }

    fn not_available(self) -> ApiError {
        match self {
            ElectionType::Preferred => {
                ApiError::new(ResponseError::PreferredLeaderNotAvailable, "The preferred leader was not available.")
            }
            ElectionType::Unclean => ApiError::new(
                ResponseError::EligibleLeadersNotAvailable,
                "Eligible topic partition leaders are not available.",
            ),
        }
    }
}

/// ElectLeaders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElectLeaders {
    pub election_type: ElectionType,
    /// Topic and partition.
    pub partitions: Vec<(String, i32)>,
}

/// One result per partition, in the order of the request.
pub type ElectLeadersReply = Vec<Result<(), ApiError>>;

pub fn elect_leaders(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    request: ElectLeaders,
) -> Step<ElectLeadersReply> {
    let mut changes = BTreeMap::new();
    let mut reply = Vec::with_capacity(request.partitions.len());
    for at in &request.partitions {
        reply.push(match elect(image, context, at, request.election_type) {
            // The first of two elections of a partition has succeeded.
            Ok(_) if changes.contains_key(at) => Err(not_needed()),
            Ok(change) => {
                changes.insert(at, change);
                Ok(())
            }
            Err(error) => Err(error),
        });
    }
    Step { records: changes.into_values().map(MetadataRecord::from).collect(), reply }
}

fn elect(
    image: &MetadataImage,
    context: &StepContext<'_>,
    (name, index): &(String, i32),
    election_type: ElectionType,
) -> Result<PartitionChangeRecord, ApiError> {
    let (topic, partition) = find(image, name, *index, election_type)?;
    let election = match election_type {
        ElectionType::Preferred => Election::Preferred,
        ElectionType::Unclean => Election::Unclean,
    };
    let settings = ElectionSettings::of(image, context.schema, topic);
    let builder = PartitionChangeBuilder::new(image, topic, *index, partition, settings);
    builder.with_election(election).build().ok_or_else(|| election_type.not_available())
}

fn not_needed() -> ApiError {
    ApiError::new(ResponseError::ElectionNotNeeded, "Leader election not needed for topic partition.")
}

/// The partition, or the error if it does not exist or needs no election.
fn find<'a>(
    image: &'a MetadataImage,
    name: &str,
    index: i32,
    election_type: ElectionType,
) -> Result<(&'a TopicImage, &'a PartitionImage), ApiError> {
    let unknown = |message| ApiError::new(ResponseError::UnknownTopicOrPartition, message);
    let topic = image.topic(name).ok_or_else(|| unknown(format!("No such topic as {name}")))?;
    let partition = topic.partitions.get(&index);
    let partition = partition.ok_or_else(|| unknown(format!("No such partition as {name}-{index}")))?;
    if election_type.is_needed(partition) { Ok((topic, partition)) } else { Err(not_needed()) }
}

/// Whether an election may change the leader of this partition. The error says why not.
///
/// # Errors
/// There is no such partition, or its leader is the desired one.
pub fn check_needed(
    image: &MetadataImage,
    name: &str,
    index: i32,
    election_type: ElectionType,
) -> Result<(), ApiError> {
    find(image, name, index, election_type).map(|_| ())
}

/// Lets the preferred replicas lead again (`auto.leader.rebalance.enable`). In this version of Kafka each partition
/// whose preferred replica is in sync counts as imbalanced; there is no threshold per broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebalanceLeaders;

/// Whether there may be more leaders to move: the limit of one step was reached.
pub type RebalanceLeadersReply = bool;

pub fn rebalance_leaders(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    _: RebalanceLeaders,
) -> Step<RebalanceLeadersReply> {
    // linear: a partition has a few replicas
    let is_imbalanced = |partition: &PartitionImage| match partition.replicas.first() {
        Some(preferred) => {
            *preferred != partition.leader && partition.isr.contains(preferred) && is_active(image, *preferred)
        }
        None => false,
    };
    elect_some(image, context, is_imbalanced, |builder, _| Some(builder.with_election(Election::Preferred)))
}

/// Elects leaders for the partitions without leader whose topic allows an unclean election
/// (`unclean.leader.election.enable`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElectUncleanLeaders;

/// Whether there may be more leaders to elect: the limit of one step was reached.
pub type ElectUncleanLeadersReply = bool;

pub fn elect_unclean_leaders(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    _: ElectUncleanLeaders,
) -> Step<ElectUncleanLeadersReply> {
    let has_no_leader = |partition: &PartitionImage| partition.leader < 0;
    elect_some(image, context, has_no_leader, |builder, settings| settings.unclean_election.then_some(builder))
}

/// Elects leaders for the partitions that `is_candidate` selects, at most [`MAX_ELECTIONS_PER_IMBALANCE`] in a step.
/// Returns whether there may be more.
fn elect_some<'a>(
    image: &'a MetadataImage,
    context: &StepContext<'_>,
    is_candidate: impl Fn(&PartitionImage) -> bool,
    election: impl Fn(PartitionChangeBuilder<'a>, ElectionSettings) -> Option<PartitionChangeBuilder<'a>>,
) -> Step<bool> {
    let (schema, is_candidate, election) = (context.schema, &is_candidate, &election);
    let changes = image.topics.by_name.values().flat_map(|topic| {
        let mut settings = None;
        let candidates = topic.partitions.iter().filter(|(_, partition)| is_candidate(partition));
        candidates.filter_map(move |(index, partition)| {
            let settings = *settings.get_or_insert_with(|| ElectionSettings::of(image, schema, topic));
            let builder = PartitionChangeBuilder::new(image, topic, *index, partition, settings);
            election(builder, settings)?.build().map(MetadataRecord::from)
        })
    });
    let records: Vec<MetadataRecord> = changes.take(MAX_ELECTIONS_PER_IMBALANCE).collect();
    let reply = records.len() >= MAX_ELECTIONS_PER_IMBALANCE;
    Step { records, reply }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        controller::{
            brokers::{BrokerHeartbeat, broker_heartbeat},
            testing::*,
        },
        types::BrokerId,
    };

    fn fence(image: &mut MetadataImage, broker: BrokerId, want_fence: bool) {
        let heartbeat = BrokerHeartbeat { want_fence, ..BrokerHeartbeat::new(broker, 5) };
        let step = with_context(|context| broker_heartbeat(image, context, heartbeat));
        apply(image, &step.records);
    }

    fn set_isr(image: &mut MetadataImage, isr: &[BrokerId]) {
        let topic = image.topic("t").unwrap().clone();
        for (partition_id, _) in topic.partitions.iter() {
            let change = PartitionChangeRecord {
                partition_id: *partition_id,
                topic_id: topic.id.0,
                isr: Some(isr.to_vec()),
                ..Default::default()
            };
            apply(image, &[change.into()]);
        }
    }

    fn elect(image: &mut MetadataImage, election_type: ElectionType, partitions: &[i32]) -> Vec<i16> {
        let partitions = partitions.iter().map(|index| ("t".to_owned(), *index)).collect();
        let request = ElectLeaders { election_type, partitions };
        let step = with_context(|context| elect_leaders(image, context, request));
        apply(image, &step.records);
        step.reply.into_iter().map(|result| result.map_or_else(|error| error.code(), |()| 0)).collect()
    }

    fn leader(image: &MetadataImage) -> (BrokerId, i32, Vec<BrokerId>) {
        let partition = image.partition("t", 0).unwrap();
        (partition.leader, partition.leader_epoch, partition.isr.clone())
    }

    const NOT_NEEDED: i16 = ResponseError::ElectionNotNeeded.code();

    #[test]
    fn c9_the_preferred_replica_leads_again_when_it_is_in_sync() {
        let mut image = image_with_brokers(&[1, 2]);
        add_topic(&mut image, "t", &[&[1, 2]]);
        let unknown = ResponseError::UnknownTopicOrPartition.code();
        assert_eq!(elect(&mut image, ElectionType::Preferred, &[0, 7]), [NOT_NEEDED, unknown]);
        fence(&mut image, 1, true);
        fence(&mut image, 1, false);
        assert_eq!(leader(&image), (2, 1, vec![2]));
        let not_available = ResponseError::PreferredLeaderNotAvailable.code();
        assert_eq!(elect(&mut image, ElectionType::Preferred, &[0]), [not_available]);
        set_isr(&mut image, &[2, 1]);
        assert_eq!(elect(&mut image, ElectionType::Preferred, &[0, 0]), [0, NOT_NEEDED], "once, although asked twice");
        assert_eq!(leader(&image), (1, 2, vec![2, 1]));
    }

    #[test]
    fn c9_an_unclean_election_is_only_for_partitions_without_leader() {
        let mut image = image_with_brokers(&[1, 2]);
        add_topic(&mut image, "t", &[&[1, 2]]);
        fence(&mut image, 2, true);
        assert_eq!(elect(&mut image, ElectionType::Unclean, &[0]), [NOT_NEEDED]);
        fence(&mut image, 1, true);
        let not_available = ResponseError::EligibleLeadersNotAvailable.code();
        assert_eq!(elect(&mut image, ElectionType::Unclean, &[0]), [not_available], "nobody is alive");
        fence(&mut image, 2, false);
        assert_eq!(leader(&image), (-1, 1, vec![]), "2 is not in sync");
        assert_eq!(elect(&mut image, ElectionType::Unclean, &[0]), [0]);
        assert_eq!(leader(&image), (2, 2, vec![2]));
        let partition = image.partition("t", 0).unwrap();
        assert_eq!((partition.leader_recovery_state, partition.elr.len()), (1, 0), "1 is no eligible leader any more");
    }

    #[test]
    fn c9_a_topic_that_allows_unclean_elections_later_gets_its_leaders_then() {
        let mut image = image_with_brokers(&[1, 2]);
        add_topic(&mut image, "t", &[&[1, 2]]);
        fence(&mut image, 2, true);
        fence(&mut image, 1, true);
        fence(&mut image, 2, false);
        let run = |image: &mut MetadataImage| {
            let step = with_context(|context| elect_unclean_leaders(image, context, ElectUncleanLeaders));
            apply(image, &step.records);
            (step.records.len(), step.reply)
        };
        assert_eq!((run(&mut image), leader(&image).0), ((0, false), -1));
        set_config(&mut image, "t", "unclean.leader.election.enable", "true");
        assert_eq!((run(&mut image), leader(&image)), ((1, false), (2, 2, vec![2])));
        assert_eq!(image.partition("t", 0).unwrap().leader_recovery_state, 1);
        assert_eq!(run(&mut image), (0, false), "it has a leader now");
    }

    #[test]
    fn c9_leaders_return_to_their_preferred_replicas_and_each_step_moves_a_limited_number() {
        let mut image = image_with_brokers(&[1, 2, 3]);
        let count = MAX_ELECTIONS_PER_IMBALANCE + 10;
        add_topic(&mut image, "t", &vec![&[1, 2, 3][..]; count]);
        let rebalance = |image: &mut MetadataImage| {
            let step = with_context(|context| rebalance_leaders(image, context, RebalanceLeaders));
            apply(image, &step.records);
            (step.records.len(), step.reply)
        };
        assert_eq!(rebalance(&mut image), (0, false));
        fence(&mut image, 1, true);
        assert_eq!(rebalance(&mut image), (0, false), "the preferred replica is fenced");
        fence(&mut image, 1, false);
        assert_eq!(rebalance(&mut image), (0, false), "the preferred replica is not in sync yet");
        set_isr(&mut image, &[1, 2, 3]);
        assert_eq!(rebalance(&mut image), (MAX_ELECTIONS_PER_IMBALANCE, true));
        assert_eq!(rebalance(&mut image), (10, false));
        assert_eq!(leader(&image), (1, 2, vec![1, 2, 3]));
        assert_eq!(rebalance(&mut image), (0, false));
    }
}
