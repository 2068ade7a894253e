//! DescribeTopicPartitions (key 75, KIP-966): describes topics in pages, with their eligible leader replicas.
//!
//! Behavior: M5. Topics are sorted by name; an empty list means all topics. A page holds at most as many
//! partitions as the request allows, and at most `max.request.partition.size.limit`.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
        describe_topic_partitions_response::{
            Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
        },
    },
};

use super::{RequestContext, topics};
use crate::{
    controller::directories::has_online_directory,
    metadata::image::{MetadataImage, PartitionImage},
    types::is_internal_topic,
};

pub(crate) async fn handle(
    ctx: RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let image = ctx.image();
    let all = request.topics.is_empty();
    let as_asked: Vec<TopicName> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let mut names: Vec<TopicName> = if all {
        image.topics.by_name.keys().map(|name| topics::topic_name(name)).collect()
    } else {
        request.topics.into_iter().map(|topic| topic.name).collect()
    };
    names.sort();
    names.dedup();
    let mut first_partition = 0;
    if let Some(cursor) = request.cursor {
        // linear: runs once per request
        if cursor.partition_index < 0 || (!all && !names.contains(&cursor.topic_name)) {
            return refuse(if all { names } else { as_asked });
        }
        names.retain(|name| *name >= cursor.topic_name);
        if names.first() == Some(&cursor.topic_name) {
            first_partition = cursor.partition_index;
        }
    }
    let most = request.response_partition_limit.clamp(1, ctx.config().max_request_partition_size_limit.max(1)) as usize;
    let mut page = Page { room: most, topics: Vec::new(), next: None };
    for name in names {
        page.add(&image, name, std::mem::take(&mut first_partition));
        if page.next.is_some() {
            break;
        }
    }
    DescribeTopicPartitionsResponse::default().with_topics(page.topics).with_next_cursor(page.next)
}

fn refuse(names: Vec<TopicName>) -> DescribeTopicPartitionsResponse {
    let code = ResponseError::InvalidRequest.code();
    let topics = names
        .into_iter()
        .map(|name| DescribeTopicPartitionsResponseTopic::default().with_name(Some(name)).with_error_code(code));
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect()).with_next_cursor(None)
}

struct Page {
    /// The number of partitions that still fit into the page.
    room: usize,
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
    next: Option<Cursor>,
}

impl Page {
    fn add(&mut self, image: &MetadataImage, name: TopicName, first_partition: i32) {
        let mut described = DescribeTopicPartitionsResponseTopic::default().with_is_internal(is_internal_topic(&name));
        let Some(topic) = image.topic(&name) else {
            let error = if topics::is_valid_name(&name) {
                ResponseError::UnknownTopicOrPartition
            } else {
                ResponseError::InvalidTopicException
            };
            if error == ResponseError::UnknownTopicOrPartition {
                described.topic_authorized_operations = topics::TOPIC_OPERATIONS;
            }
            self.topics.push(described.with_error_code(error.code()).with_name(Some(name)));
            return;
        };
        if self.room == 0 {
            self.next = Some(Cursor::default().with_topic_name(name).with_partition_index(first_partition));
            return;
        }
        for (index, partition) in topic.partitions.range(first_partition..) {
            if self.room == 0 {
                self.next = Some(Cursor::default().with_topic_name(name.clone()).with_partition_index(*index));
                break;
            }
            self.room -= 1;
            described.partitions.push(describe(image, *index, partition));
        }
        described.topic_authorized_operations = topics::TOPIC_OPERATIONS;
        self.topics.push(described.with_name(Some(name)).with_topic_id(topic.id.0));
    }
}

fn describe(image: &MetadataImage, index: i32, partition: &PartitionImage) -> DescribeTopicPartitionsResponsePartition {
    let ids = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect::<Vec<_>>();
    let is_offline =
        |id: &i32| image.broker(*id).is_none_or(|broker| broker.fenced) || !has_online_directory(image, partition, *id);
    let offline: Vec<i32> = partition.replicas.iter().copied().filter(is_offline).collect();
    let has_leader = image.broker(partition.leader).is_some_and(|broker| !broker.fenced);
    // A partition without a leader has no error. Apache: `KRaftMetadataCache.describeTopicResponse`.
    DescribeTopicPartitionsResponsePartition::default()
        .with_partition_index(index)
        .with_leader_id(BrokerId(if has_leader { partition.leader } else { -1 }))
        .with_leader_epoch(partition.leader_epoch)
        .with_replica_nodes(ids(&partition.replicas))
        .with_isr_nodes(ids(&partition.isr))
        .with_eligible_leader_replicas(Some(ids(&partition.elr)))
        .with_last_known_elr(Some(ids(&partition.last_known_elr)))
        .with_offline_replicas(ids(&offline))
}
