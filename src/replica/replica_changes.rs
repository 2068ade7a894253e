//! Tells the operator which replicas the partitions of this broker have lost and regained, and counts elections.
//!
//! One change of the metadata may concern thousands of partitions, so there is one log line for each other broker, not
//! for each partition.

use std::collections::BTreeMap;

use super::context::ReplicaContext;
use crate::{
    controller::partitions::RECOVERING,
    metadata::{
        delta::TopicDelta,
        image::{MetadataImage, PartitionImage},
    },
    types::{BrokerId, TopicId, TopicPartition},
};

/// The partitions led here whose ISR a broker has left or joined: their number and the first of them.
type Changed = BTreeMap<BrokerId, (usize, TopicPartition)>;

/// See the head of the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ReplicaChanges {
    lost: Changed,
    regained: Changed,
}

impl ReplicaChanges {
    /// Adds the changes of a topic between two images.
    pub(super) fn add(
        &mut self,
        context: &ReplicaContext,
        before: &MetadataImage,
        now: &MetadataImage,
        (id, changed): (TopicId, &TopicDelta),
    ) {
        let (Some(before), Some(now)) = (before.topic_by_id(id), now.topic_by_id(id)) else { return };
        for index in &changed.partitions {
            let (Some(old), Some(new)) = (before.partitions.get(index), now.partitions.get(index)) else { continue };
            if new.leader_epoch > old.leader_epoch && new.leader >= 0 && new.leader != old.leader {
                context.counters.leader_elections.add(1);
                let is_unclean = new.leader_recovery_state == RECOVERING && !is_in_sync(old, new.leader);
                context.counters.unclean_elections.add(is_unclean.into());
            }
            if new.leader != context.local {
                continue;
            }
            let name = || TopicPartition::new(now.name.clone(), *index);
            for gone in old.isr.iter().filter(|broker| !is_in_sync(new, **broker)) {
                self.lost.entry(*gone).or_insert_with(|| (0, name())).0 += 1;
            }
            for joined in new.isr.iter().filter(|broker| !is_in_sync(old, **broker)) {
                self.regained.entry(*joined).or_insert_with(|| (0, name())).0 += 1;
            }
        }
    }

    pub(super) fn log(&self) {
        for (broker, (partitions, first)) in &self.lost {
            tracing::info!(broker, partitions, %first, "a broker has left the in-sync replicas of partitions that this one leads");
        }
        for (broker, (partitions, first)) in &self.regained {
            tracing::info!(broker, partitions, %first, "a broker has joined the in-sync replicas of partitions that this one leads");
        }
    }
}

fn is_in_sync(partition: &PartitionImage, broker: BrokerId) -> bool {
    // linear: a partition has a few replicas
    partition.isr.contains(&broker)
}
