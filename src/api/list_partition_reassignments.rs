//! ListPartitionReassignments (key 46).
//!
//! Behavior: Apache's `ReplicationControlManager.listPartitionReassignments`: lists the partitions with adding or
//! removing replicas, without unknown topics and partitions. On one broker the list is empty.

use std::sync::Arc;

use kafka_protocol::messages::{
    BrokerId as WireBrokerId, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    list_partition_reassignments_response::{OngoingPartitionReassignment, OngoingTopicReassignment},
};

use super::{RequestContext, topics::topic_name};
use crate::{
    metadata::image::{MetadataImage, PartitionImage, TopicImage},
    types::BrokerId,
};

pub(crate) async fn handle(
    ctx: RequestContext,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    list(&ctx.image(), &request)
}

fn list(image: &MetadataImage, request: &ListPartitionReassignmentsRequest) -> ListPartitionReassignmentsResponse {
    let topics = match &request.topics {
        Some(asked) => {
            let ongoing = asked.iter().filter_map(|asked| {
                let topic: &Arc<TopicImage> = image.topics.by_name.get(&*asked.name.0)?;
                ongoing(
                    topic,
                    asked.partition_indexes.iter().filter_map(|index| Some((*index, topic.partitions.get(index)?))),
                )
            });
            ongoing.collect()
        }
        None => {
            let all = image.topics.by_name.values();
            all.filter_map(|topic| {
                ongoing(topic, topic.partitions.iter().map(|(index, partition)| (*index, partition)))
            })
            .collect()
        }
    };
    ListPartitionReassignmentsResponse::default().with_error_message(None).with_topics(topics)
}

fn ongoing<'a>(
    topic: &TopicImage,
    partitions: impl Iterator<Item = (i32, &'a PartitionImage)>,
) -> Option<OngoingTopicReassignment> {
    let is_ongoing =
        |partition: &PartitionImage| !partition.adding_replicas.is_empty() || !partition.removing_replicas.is_empty();
    let brokers = |replicas: &[BrokerId]| replicas.iter().map(|broker| WireBrokerId(*broker)).collect::<Vec<_>>();
    let partitions: Vec<_> = partitions
        .filter(|(_, partition)| is_ongoing(partition))
        .map(|(index, partition)| {
            OngoingPartitionReassignment::default()
                .with_partition_index(index)
                .with_replicas(brokers(&partition.replicas))
                .with_adding_replicas(brokers(&partition.adding_replicas))
                .with_removing_replicas(brokers(&partition.removing_replicas))
        })
        .collect();
    (!partitions.is_empty())
        .then(|| OngoingTopicReassignment::default().with_name(topic_name(&topic.name)).with_partitions(partitions))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;

    use super::*;
    use crate::controller::testing::{add_topic, image_with_brokers};

    #[test]
    fn only_partitions_on_the_move_are_listed() {
        let mut image = image_with_brokers(&[1, 2]);
        add_topic(&mut image, "t", &[&[1], &[1]]);
        let asked = |topic, partitions: &[i32]| {
            let topic = ListPartitionReassignmentsTopics::default()
                .with_name(topic_name(topic))
                .with_partition_indexes(partitions.to_vec());
            ListPartitionReassignmentsRequest::default().with_topics(Some(vec![topic]))
        };
        let all = ListPartitionReassignmentsRequest::default().with_topics(None);
        assert!(list(&image, &all).topics.is_empty());

        let topic = Arc::make_mut(image.topics.by_name.get_mut("t").unwrap());
        topic.partitions.get_mut(&1).unwrap().adding_replicas = vec![2];
        for request in [all, asked("t", &[0, 1, 2])] {
            let listed = list(&image, &request).topics;
            assert_eq!(listed.len(), 1);
            let partitions: Vec<_> = listed[0]
                .partitions
                .iter()
                .map(|partition| (partition.partition_index, partition.adding_replicas[0].0))
                .collect();
            assert_eq!(partitions, [(1, 2)]);
        }
        assert!(list(&image, &asked("t", &[0])).topics.is_empty());
        assert!(list(&image, &asked("u", &[1])).topics.is_empty());
    }
}
