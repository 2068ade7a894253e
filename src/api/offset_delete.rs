//! OffsetDelete (key 47): forgets how far a group has come in some partitions.
//!
//! Behavior: O6. Offsets of topics that the group consumes stay.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        OffsetDeleteRequest, OffsetDeleteResponse, TopicName,
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
    },
};

use super::{
    RequestContext,
    groups::{code, kept},
};
use crate::{
    coordinator::group::{DeleteOffsetsRequest, GroupError},
    metadata::image::MetadataImage,
};

pub(crate) async fn handle(ctx: &RequestContext, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let image = ctx.parts.metadata.image();
    let existing = request.topics.iter().map(|topic| {
        let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
        (kept(&topic.name), indexes.filter(|index| image.partition(&topic.name, *index).is_some()).collect())
    });
    let delete = DeleteOffsetsRequest { group_id: kept(&request.group_id), topics: existing.collect() };
    match ctx.parts.groups.delete_offsets(delete).await {
        Err(error) => OffsetDeleteResponse::default().with_error_code(code(Some(error))),
        Ok(outcomes) => {
            let topics = request.topics.iter().zip(outcomes).map(|(topic, outcome)| {
                let mut deleted = outcome.partitions.into_iter();
                let partitions = topic.partitions.iter().map(|partition| {
                    let index = partition.partition_index;
                    answer(&image, &topic.name, index, || deleted.next().and_then(|(_, error)| error))
                });
                OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
            });
            OffsetDeleteResponse::default().with_topics(topics.collect())
        }
    }
}

/// The outcomes are those of the partitions that exist, in the request's order.
fn answer(
    image: &MetadataImage,
    topic: &TopicName,
    index: i32,
    next_outcome: impl FnOnce() -> Option<GroupError>,
) -> OffsetDeleteResponsePartition {
    let error_code = match image.partition(topic, index) {
        None => ResponseError::UnknownTopicOrPartition.code(),
        Some(_) => code(next_outcome()),
    };
    OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(error_code)
}
