//! OffsetFetch (key 9): returns the committed offsets of groups.
//!
//! Behavior: O4, O7. A partition without a committed offset gets -1 and no error, even if group, topic or partition do
//! not exist; topics with an unknown id get an error.
//! Deviations: a group or partition that is named twice is returned once; once the response exceeds 48 MiB, the other
//! groups get COORDINATOR_LOAD_IN_PROGRESS, so that the client asks for them again.
//! Version notes: 2 null means all partitions, 7 require_stable (KIP-447), 8 several groups (KIP-709), 9 member epochs
//! (KIP-848), 10 topic ids.

use std::collections::HashSet;

use kafka_protocol::error::ResponseError;

use super::{
    RequestContext,
    answer_bounds::{AnswerBudget, unique_by},
    authorized::Operation,
    groups::{code, kept, kept_if_some, shared, wire},
};
use crate::{
    coordinator::group::{FetchOffsetsRequest, FetchOffsetsTopic, FetchedTopic, GroupError},
    metadata::image::MetadataImage,
    protocol::offset_fetch::{
        OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchResponse,
        OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponseTopic,
    },
    types::TopicId,
};

const FIRST_WITH_TOPIC_IDS: i16 = 10;

pub(crate) async fn handle(ctx: RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let image = ctx.image();
    let (mut budget, mut groups) = (AnswerBudget::new(&ctx), Vec::new());
    for group in unique_by(request.groups, |group| group.group_id.clone()) {
        let answered = if budget.has_room() {
            fetch(&ctx, &image, group, request.require_stable).await
        } else {
            let error = code(Some(GroupError::CoordinatorLoadInProgress));
            OffsetFetchResponseGroup::error(&group, error, ctx.api_version)
        };
        budget.add(answered.size_bytes()).await;
        groups.push(answered);
    }
    OffsetFetchResponse { throttle_time_ms: 0, groups }
}

async fn fetch(
    ctx: &RequestContext,
    image: &MetadataImage,
    group: OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    let by_id = ctx.api_version >= FIRST_WITH_TOPIC_IDS;
    let (topics, unknown) = match &group.topics {
        None => (None, Vec::new()),
        Some(asked) => {
            let (known, unknown) = resolve(image, by_id, asked);
            (Some(known), unknown)
        }
    };
    let fetched = async {
        let authorized = ctx.group(Operation::Describe, &group.group_id)?;
        let Some(topics) = topics else {
            return authorized.coordinator().fetch_all_offsets(&kept(&group.group_id), require_stable).await;
        };
        let fetch = FetchOffsetsRequest {
            group_id: kept(&group.group_id),
            member_id: kept_if_some(&group.member_id),
            member_epoch: group.member_epoch,
            require_stable,
            topics,
        };
        authorized.coordinator().fetch_offsets(fetch).await
    };
    match fetched.await {
        Err(error) => OffsetFetchResponseGroup::error(&group, code(Some(error)), ctx.api_version),
        Ok(fetched) => {
            let answered = fetched.iter().filter_map(|topic| answer(image, by_id, topic));
            OffsetFetchResponseGroup {
                group_id: group.group_id,
                topics: answered.chain(unknown).collect(),
                error_code: 0,
            }
        }
    }
}

/// Returns the topics with their names, and the results of topics with an unknown id.
fn resolve(
    image: &MetadataImage,
    by_id: bool,
    asked: &[OffsetFetchRequestTopic],
) -> (Vec<FetchOffsetsTopic>, Vec<OffsetFetchResponseTopic>) {
    let (mut known, mut unknown) = (Vec::with_capacity(asked.len()), Vec::new());
    let mut seen = HashSet::new();
    for topic in asked {
        let partitions = topic.partition_indexes.iter().copied();
        let partitions: Vec<i32> =
            partitions.filter(|index| seen.insert((&topic.name, topic.topic_id, *index))).collect();
        if partitions.is_empty() && !topic.partition_indexes.is_empty() {
            continue;
        }
        let name = if by_id { image.topic_name(topic.topic_id).cloned() } else { Some(kept(&topic.name)) };
        match name {
            Some(name) => known.push(FetchOffsetsTopic { name, topic_id: topic.topic_id, partitions }),
            None => {
                let refused =
                    |index: &i32| OffsetFetchResponsePartition::none(*index, ResponseError::UnknownTopicId.code());
                unknown.push(OffsetFetchResponseTopic {
                    name: topic.name.clone(),
                    topic_id: topic.topic_id,
                    partitions: partitions.iter().map(refused).collect(),
                });
            }
        }
    }
    (known, unknown)
}

/// Returns `None` for a topic whose id is needed but which no longer exists.
fn answer(image: &MetadataImage, by_id: bool, topic: &FetchedTopic) -> Option<OffsetFetchResponseTopic> {
    let topic_id = if by_id && topic.topic_id == TopicId::ZERO { image.topic(&topic.name)?.id } else { topic.topic_id };
    let partitions = topic.partitions.iter().map(|offset| OffsetFetchResponsePartition {
        partition_index: offset.partition,
        committed_offset: offset.committed_offset,
        committed_leader_epoch: offset.committed_leader_epoch,
        metadata: Some(shared(&offset.metadata)),
        error_code: code(offset.error),
    });
    Some(OffsetFetchResponseTopic { name: wire(&topic.name), topic_id, partitions: partitions.collect() })
}
