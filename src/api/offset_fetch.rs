//! OffsetFetch (key 9): returns the committed offsets of groups.
//!
//! Behavior: O4, O7. A partition without a committed offset gets -1 and no error, even if group, topic or partition do
//! not exist; topics with an unknown id get an error.
//! Deviations: a group or partition that is named twice is returned once; once the response exceeds 48 MiB, the other
//! groups get COORDINATOR_LOAD_IN_PROGRESS, so that the client asks for them again; a coordinator whose followers are
//! silent answers NOT_COORDINATOR, since another may have taken over and have newer offsets.
//! Version notes: 2 null means all partitions, 7 require_stable (KIP-447), 8 several groups (KIP-709), 9 member epochs
//! (KIP-848), 10 topic ids.

use std::collections::{HashMap, HashSet};

use kafka_protocol::{error::ResponseError, protocol::StrBytes};

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

const FIRST_WITH_GROUP_ERRORS: i16 = 2;
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
    mut group: OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    // Version 1 has errors of partitions only, so its topics are needed again if the group has an error.
    let topics = if ctx.api_version < FIRST_WITH_GROUP_ERRORS { group.topics.clone() } else { group.topics.take() };
    let fetched = match topics {
        None => fetch_all(ctx, image, &group.group_id, require_stable).await,
        Some(topics) => fetch_topics(ctx, image, &group, topics, require_stable).await,
    };
    match fetched {
        Err(error) => OffsetFetchResponseGroup::error(&group, code(Some(error)), ctx.api_version),
        Ok(topics) => OffsetFetchResponseGroup { group_id: group.group_id, topics, error_code: 0 },
    }
}

async fn fetch_all(
    ctx: &RequestContext,
    image: &MetadataImage,
    group_id: &str,
    require_stable: bool,
) -> Result<Vec<OffsetFetchResponseTopic>, GroupError> {
    let by_id = ctx.api_version >= FIRST_WITH_TOPIC_IDS;
    let authorized = ctx.group(Operation::Describe, group_id)?;
    let fetched = authorized.coordinator().fetch_all_offsets(&kept(group_id), require_stable).await?;
    let with_id = |topic: FetchedTopic| {
        // An offset that was committed with a version without topic ids. A topic that no longer exists has none.
        let topic_id =
            if by_id && topic.topic_id == TopicId::ZERO { image.topic(&topic.name)?.id } else { topic.topic_id };
        Some(answer(wire(&topic.name), FetchedTopic { topic_id, ..topic }))
    };
    Ok(fetched.into_iter().filter_map(with_id).collect())
}

/// Asks the coordinator for one portion of the topics after the other. So only the topics of the request and of the
/// response are in memory as a whole, and no intermediate form of a large request is.
async fn fetch_topics(
    ctx: &RequestContext,
    image: &MetadataImage,
    group: &OffsetFetchRequestGroup,
    topics: Vec<OffsetFetchRequestTopic>,
    require_stable: bool,
) -> Result<Vec<OffsetFetchResponseTopic>, GroupError> {
    const PARTITIONS_AT_ONCE: usize = 1_000;
    let by_id = ctx.api_version >= FIRST_WITH_TOPIC_IDS;
    let authorized = ctx.group(Operation::Describe, &group.group_id)?;
    let (group_id, member_id) = (kept(&group.group_id), kept_if_some(&group.member_id));
    let (mut answered, mut unknown) = (Vec::with_capacity(topics.len()), Vec::new());
    let mut repeated = Repeated::default();
    let mut topics = topics.into_iter();
    let mut was_asked = false;
    loop {
        let (mut names, mut known, mut partitions_at_once) = (Vec::new(), Vec::new(), 0);
        for topic in topics.by_ref() {
            let OffsetFetchRequestTopic { name, topic_id, partition_indexes } = topic;
            let Some(partitions) = repeated.without(&name, topic_id, partition_indexes) else { continue };
            let known_name = if by_id { image.topic_name(topic_id).cloned() } else { Some(kept(&name)) };
            let Some(known_name) = known_name else {
                let error = ResponseError::UnknownTopicId.code();
                let refused = |index| OffsetFetchResponsePartition::none(index, error);
                let partitions = partitions.into_iter().map(refused).collect();
                unknown.push(OffsetFetchResponseTopic { name, topic_id, partitions });
                continue;
            };
            partitions_at_once += partitions.len().max(1);
            names.push(name);
            known.push(FetchOffsetsTopic { name: known_name, topic_id, partitions });
            if partitions_at_once >= PARTITIONS_AT_ONCE {
                break;
            }
        }
        // The coordinator is asked once at least, since it may have an error for the group.
        if known.is_empty() && was_asked {
            break;
        }
        was_asked = true;
        let fetch = FetchOffsetsRequest {
            group_id: group_id.clone(),
            member_id: member_id.clone(),
            member_epoch: group.member_epoch,
            require_stable,
            topics: known,
        };
        let fetched = authorized.coordinator().fetch_offsets(fetch).await?;
        debug_assert_eq!(fetched.len(), names.len());
        answered.extend(names.into_iter().zip(fetched).map(|(name, topic)| answer(name, topic)));
    }
    answered.append(&mut unknown);
    Ok(answered)
}

/// The partitions that a request has named so far, so that each is returned once.
#[derive(Default)]
struct Repeated {
    topics: HashMap<(StrBytes, TopicId), u32>,
    partitions: HashSet<(u32, i32)>,
}

impl Repeated {
    /// Returns the partitions that were not named before, or `None` if the topic was and there are none.
    fn without(&mut self, name: &StrBytes, topic_id: TopicId, mut partitions: Vec<i32>) -> Option<Vec<i32>> {
        let next = self.topics.len() as u32;
        let number = *self.topics.entry((name.clone(), topic_id)).or_insert(next);
        partitions.retain(|index| self.partitions.insert((number, *index)));
        (number == next || !partitions.is_empty()).then_some(partitions)
    }
}

fn answer(name: StrBytes, topic: FetchedTopic) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|offset| OffsetFetchResponsePartition {
        partition_index: offset.partition,
        committed_offset: offset.committed_offset,
        committed_leader_epoch: offset.committed_leader_epoch,
        metadata: Some(shared(&offset.metadata)),
        error_code: code(offset.error),
    });
    OffsetFetchResponseTopic { name, topic_id: topic.topic_id, partitions: partitions.collect() }
}
