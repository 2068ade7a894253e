//! OffsetCommit (key 8): stores the offsets that a group has committed.
//!
//! Behavior: O1–O3. Topics and partitions that do not exist get an error; the others are committed
//! together, and the response is sent when they are replicated.
//! Version notes: 2–4 have a retention time, 6 the leader epoch (KIP-320), 7 the instance id (KIP-345), 9
//! member epochs (KIP-848), 10 topic ids.

use std::{collections::HashMap, sync::Arc};

use kafka_protocol::error::ResponseError;

use super::{
    RequestContext,
    authorized::Operation,
    groups::{code, kept, kept_if_some},
};
use crate::{
    coordinator::group::{CommitOffsetsRequest, CommitPartition, CommitTopic, GroupError, TopicOutcome},
    metadata::image::{MetadataImage, TopicImage},
    protocol::offset_commit::{
        OffsetCommitRequest, OffsetCommitRequestTopic, OffsetCommitResponse, OffsetCommitResponsePartition,
        OffsetCommitResponseTopic,
    },
};

const FIRST_WITH_TOPIC_IDS: i16 = 10;

pub(crate) async fn handle(ctx: RequestContext, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let image = ctx.image();
    let topics = commit_topics(&image, ctx.api_version, &request);
    if topics.is_empty() {
        return response(&image, ctx.api_version, &request, &Ok(Vec::new()));
    }
    let commit = CommitOffsetsRequest {
        group_id: kept(&request.group_id),
        generation_id_or_member_epoch: request.generation_id_or_member_epoch,
        member_id: kept(&request.member_id),
        group_instance_id: kept_if_some(&request.group_instance_id),
        retention_time_ms: Some(request.retention_time_ms).filter(|retention_ms| *retention_ms != -1),
        api_version: ctx.api_version,
        topics,
    };
    let committed = async { ctx.group(Operation::Read, &request.group_id)?.coordinator().commit_offsets(commit).await };
    let result = committed.await;
    response(&image, ctx.api_version, &request, &result)
}

fn find<'a>(image: &'a MetadataImage, version: i16, topic: &OffsetCommitRequestTopic) -> Option<&'a Arc<TopicImage>> {
    if version >= FIRST_WITH_TOPIC_IDS { image.topic_by_id(topic.topic_id) } else { image.topic(&topic.name) }
}

/// Returns the topics and partitions of the request that exist.
fn commit_topics(image: &MetadataImage, version: i16, request: &OffsetCommitRequest) -> Vec<CommitTopic> {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let Some(found) = find(image, version, topic) else { continue };
        let existing =
            topic.partitions.iter().filter(|partition| found.partitions.contains_key(&partition.partition_index));
        let partitions: Vec<CommitPartition> = existing
            .map(|partition| CommitPartition {
                partition: partition.partition_index,
                committed_offset: partition.committed_offset,
                committed_leader_epoch: partition.committed_leader_epoch,
                committed_metadata: partition.committed_metadata.as_deref().map_or_else(Arc::default, kept),
            })
            .collect();
        if !partitions.is_empty() {
            topics.push(CommitTopic { name: found.name.clone(), topic_id: found.id, partitions });
        }
    }
    topics
}

/// Returns the outcome of every requested partition; unknown topics and partitions get an error.
fn response(
    image: &MetadataImage,
    version: i16,
    request: &OffsetCommitRequest,
    result: &Result<Vec<TopicOutcome>, GroupError>,
) -> OffsetCommitResponse {
    let outcomes: HashMap<(&str, i32), Option<GroupError>> = match result {
        Err(_) => HashMap::new(),
        Ok(topics) => {
            let of_topic = |topic: &'_ TopicOutcome| topic.partitions.len();
            let mut outcomes = HashMap::with_capacity(topics.iter().map(of_topic).sum());
            for topic in topics {
                outcomes.extend(topic.partitions.iter().map(|(index, error)| ((&*topic.name, *index), *error)));
            }
            outcomes
        }
    };
    let topics = request.topics.iter().map(|topic| {
        let found = find(image, version, topic);
        let unknown_topic = if version >= FIRST_WITH_TOPIC_IDS {
            ResponseError::UnknownTopicId
        } else {
            ResponseError::UnknownTopicOrPartition
        };
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let error_code = match found {
                None => unknown_topic.code(),
                Some(found) if !found.partitions.contains_key(&index) => ResponseError::UnknownTopicOrPartition.code(),
                Some(found) => match result {
                    Err(error) => code(Some(*error)),
                    Ok(_) => code(outcomes.get(&(&*found.name, index)).copied().flatten()),
                },
            };
            OffsetCommitResponsePartition { partition_index: index, error_code }
        });
        OffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: partitions.collect(),
        }
    });
    OffsetCommitResponse { throttle_time_ms: 0, topics: topics.collect() }
}
