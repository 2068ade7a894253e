//! The assignment of replicas to the log directories of a broker (KIP-858).
//!
//! Owns the records of Apache's `ReplicationControlManager.handleAssignReplicasToDirs`. Purpose: if a broker registers
//! without a directory, the partitions in that directory have no leader, and the broker does not create them again,
//! empty.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    ApiError, Step, StepContext,
    brokers::check_broker_epoch,
    partitions::{ElectionSettings, PartitionChangeBuilder},
};
use crate::{
    metadata::{
        image::{MetadataImage, PartitionImage},
        records::{MetadataRecord, PartitionChangeRecord},
    },
    types::{BrokerId, TopicId},
};

/// Kafka's `DirectoryId`: an old replica whose directory was never reported.
pub const MIGRATING: Uuid = Uuid::nil();
/// Kafka's `DirectoryId`: the broker has not chosen a directory yet.
pub const UNASSIGNED: Uuid = Uuid::from_u128(1);
/// Kafka's `DirectoryId`: the directory is offline.
pub const LOST: Uuid = Uuid::from_u128(2);

/// The directory of the replica on `broker` in the metadata; `None` if there is no such replica.
pub fn directory_of(partition: &PartitionImage, broker: BrokerId) -> Option<Uuid> {
    // linear: a partition has a few replicas
    let at = partition.replicas.iter().position(|replica| *replica == broker)?;
    partition.directories.get(at).copied()
}

/// The part of Apache's `LeaderAcceptor` about directories.
pub fn has_online_directory(image: &MetadataImage, partition: &PartitionImage, broker: BrokerId) -> bool {
    let Some(registration) = image.broker(broker) else { return false };
    match directory_of(partition, broker) {
        None | Some(MIGRATING | UNASSIGNED) => true,
        Some(LOST) => false,
        Some(directory) => registration.directories.is_empty() || registration.directories.contains(&directory),
    }
}

/// AssignReplicasToDirs: a broker reports the directories of its replicas.
#[derive(Debug, Clone)]
pub struct AssignReplicasToDirs {
    pub broker_id: BrokerId,
    pub broker_epoch: i64,
    /// The directory of each partition.
    pub directories: BTreeMap<(TopicId, i32), Uuid>,
}

pub type AssignReplicasToDirsReply = Result<(), ApiError>;

/// Stores the directories and elects new leaders where needed. Replicas that no longer exist are skipped.
pub fn assign_replicas_to_dirs(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    request: AssignReplicasToDirs,
) -> Step<AssignReplicasToDirsReply> {
    if let Err(error) = check_broker_epoch(image, request.broker_id, request.broker_epoch) {
        return Step::reply(Err(error));
    }
    let mut records = Vec::new();
    for ((topic_id, index), directory) in request.directories {
        let Some(topic) = image.topic_by_id(topic_id) else { continue };
        let Some(partition) = topic.partitions.get(&index) else { continue };
        // linear: a partition has a few replicas
        let Some(at) = partition.replicas.iter().position(|replica| *replica == request.broker_id) else { continue };
        let mut moved = partition.clone();
        moved.directories[at] = directory;
        if moved.directories == partition.directories {
            continue;
        }
        let settings = ElectionSettings::of(image, context.schema, topic);
        let elected = PartitionChangeBuilder::new(image, topic, index, &moved, settings).build();
        let mut record = elected.unwrap_or_else(|| PartitionChangeRecord {
            partition_id: index,
            topic_id: topic_id.0,
            ..Default::default()
        });
        record.directories = Some(moved.directories);
        records.push(MetadataRecord::from(record));
    }
    Step { records, reply: Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::*;

    const A: Uuid = Uuid::from_u128(1001);
    const B: Uuid = Uuid::from_u128(2002);

    fn assign(image: &mut MetadataImage, directory: Uuid) -> usize {
        let topic_id = image.topic_id("t").unwrap();
        let request = AssignReplicasToDirs {
            broker_id: 1,
            broker_epoch: image.broker(1).unwrap().epoch,
            directories: [((topic_id, 0), directory), ((topic_id, 7), directory), ((TopicId(B), 0), directory)].into(),
        };
        let step = with_context(|context| assign_replicas_to_dirs(image, context, request));
        step.reply.unwrap();
        apply(image, &step.records);
        step.records.len()
    }

    fn leader(image: &MetadataImage) -> (BrokerId, i32) {
        let partition = image.partition("t", 0).unwrap();
        (partition.leader, partition.leader_epoch)
    }

    #[test]
    fn a_replica_leads_while_its_directory_is_registered() {
        let mut image = image_with_brokers(&[1]);
        edit_broker(&mut image, 1, |broker| broker.directories = vec![A, B]);
        add_topic(&mut image, "t", &[&[1]]);
        assert_eq!(
            directory_of(image.partition("t", 0).unwrap(), 1),
            Some(UNASSIGNED),
            "with two directories the broker must choose"
        );
        assert_eq!(assign(&mut image, B), 1);
        assert_eq!(
            (leader(&image), assign(&mut image, B)),
            ((1, 0), 0),
            "the leader stays, and the second assignment changes nothing"
        );
        edit_broker(&mut image, 1, |broker| broker.directories = vec![A]);
        assert!(!has_online_directory(&image, image.partition("t", 0).unwrap(), 1));
        assert_eq!(assign(&mut image, LOST), 1);
        assert_eq!(leader(&image), (-1, 1), "no replica is online");
        // The replica is found again in another directory.
        assert_eq!(assign(&mut image, A), 1);
        assert_eq!(leader(&image), (1, 2));
    }

    #[test]
    fn an_earlier_incarnation_assigns_nothing() {
        let mut image = image_with_brokers(&[1]);
        add_topic(&mut image, "t", &[&[1]]);
        let request = AssignReplicasToDirs { broker_id: 1, broker_epoch: 4, directories: BTreeMap::new() };
        let step = with_context(|context| assign_replicas_to_dirs(&image, context, request));
        assert!(step.reply.is_err() && step.records.is_empty());
    }
}
