//! OffsetDelete (key 47): deletes the committed offsets of a group for some partitions.
//!
//! Behavior: O6. Offsets of topics to which the group is subscribed are not deleted.

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        OffsetDeleteRequest, OffsetDeleteResponse,
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
    },
};

use super::{
    RequestContext,
    authorized::Operation,
    groups::{code, kept},
};
use crate::{
    coordinator::group::{DeleteOffsetsRequest, GroupError},
    metadata::image::TopicImage,
};

pub(crate) async fn handle(ctx: RequestContext, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let image = ctx.image();
    let existing = request.topics.iter().map(|topic| {
        let found = image.topic(&topic.name);
        let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
        (kept(&topic.name), indexes.filter(|index| has_partition(found, *index)).collect())
    });
    let delete = DeleteOffsetsRequest { group_id: kept(&request.group_id), topics: existing.collect() };
    let deleted = async { ctx.group(Operation::Delete, &request.group_id)?.coordinator().delete_offsets(delete).await };
    match deleted.await {
        Err(error) => OffsetDeleteResponse::default().with_error_code(code(Some(error))),
        Ok(outcomes) => {
            let topics = request.topics.iter().zip(outcomes).map(|(topic, outcome)| {
                let found = image.topic(&topic.name);
                let mut deleted = outcome.partitions.into_iter();
                let partitions = topic.partitions.iter().map(|partition| {
                    let index = partition.partition_index;
                    answer(has_partition(found, index), index, || deleted.next().and_then(|(_, error)| error))
                });
                OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
            });
            OffsetDeleteResponse::default().with_topics(topics.collect())
        }
    }
}

fn has_partition(topic: Option<&Arc<TopicImage>>, index: i32) -> bool {
    topic.is_some_and(|topic| topic.partitions.contains_key(&index))
}

/// Takes the next outcome if the partition exists: the coordinator returns them in the request's order.
fn answer(
    exists: bool,
    index: i32,
    next_outcome: impl FnOnce() -> Option<GroupError>,
) -> OffsetDeleteResponsePartition {
    let error_code = if exists { code(next_outcome()) } else { ResponseError::UnknownTopicOrPartition.code() };
    OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(error_code)
}
