//! Metadata (key 3): brokers, topics, partitions and their leaders.
//!
//! Behavior: M1–M4. A missing topic is created if broker and request allow it, and the response already contains it.
//! Deviations: Apache returns UNKNOWN_TOPIC_OR_PARTITION while a topic is being created, and the
//! client retries; here the response waits for the creation, which takes a millisecond or two. While a broker has just
//! closed its connections, the response waits up to 200 ms for its fencing, and a fenced broker is listed for 5 s more.
//! Version notes: an empty list means "all topics" in version 0 and "none" from version 1 on (null means
//! "all"); responses have topic ids from version 10 on, requests from version 12 on.

use std::{collections::HashSet, sync::Arc};

use indexmap::IndexSet;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, MetadataRequest, MetadataResponse, TopicName,
        metadata_request::MetadataRequestTopic,
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{RequestContext, topics};
use crate::{
    controller::{directories::has_online_directory, topics::CreatableTopic},
    metadata::image::{MetadataImage, PartitionImage, TopicImage},
    types::{TopicId, is_internal_topic},
};

pub(crate) async fn handle(ctx: RequestContext, request: MetadataRequest) -> MetadataResponse {
    ctx.liveness().settled().await;
    let image = ctx.image();
    if let Some(refused) = refuse_names_or_ids(ctx.api_version, &request) {
        return refused;
    }
    let asked = match request.topics {
        None => None,
        Some(topics) if topics.is_empty() && ctx.api_version == 0 => None,
        Some(topics) => Some(topics),
    };
    let with_operations = request.include_topic_authorized_operations;
    let (image, topics) = match asked {
        None => {
            let all =
                image.topics.by_name.values().map(|topic| describe(&ctx, &image, topic, with_operations)).collect();
            (image, all)
        }
        Some(asked) => {
            let image =
                if request.allow_auto_topic_creation { create_missing(&ctx, image, &asked).await } else { image };
            let topics = describe_asked(&ctx, &image, asked, with_operations);
            (image, topics)
        }
    };
    let listed = image.brokers.values().filter(|broker| ctx.liveness().is_listed(broker));
    let brokers = listed.filter_map(|broker| {
        let (host, port) = ctx.endpoint_of(broker)?;
        Some(
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(broker.id))
                .with_host(host)
                .with_port(port)
                .with_rack(broker.rack.clone().map(StrBytes::from_string)),
        )
    });
    let mut response = MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(StrBytes::from_string(image.cluster_id.to_string())))
        .with_controller_id(BrokerId(image.alive_brokers().next().map_or(-1, |broker| broker.id)))
        .with_topics(topics);
    if request.include_cluster_authorized_operations && (8..=10).contains(&ctx.api_version) {
        response.cluster_authorized_operations = topics::CLUSTER_OPERATIONS;
    }
    response
}

/// Refuses a request before version 12 that has a topic without a name or with an id.
fn refuse_names_or_ids(version: i16, request: &MetadataRequest) -> Option<MetadataResponse> {
    let topics = request.topics.as_ref()?;
    let is_misused = |topic: &MetadataRequestTopic| topic.name.is_none() || !topic.topic_id.is_nil();
    // linear: runs once per request
    if version >= 12 || !topics.iter().any(is_misused) {
        return None;
    }
    let refused = topics.iter().map(|topic| {
        unknown(ResponseError::InvalidRequest, topic.topic_id, Some(topic.name.clone().unwrap_or_default()))
            .with_is_internal(false)
    });
    Some(MetadataResponse::default().with_topics(refused.collect()))
}

fn describe_asked(
    ctx: &RequestContext,
    image: &MetadataImage,
    asked: Vec<MetadataRequestTopic>,
    with_operations: bool,
) -> Vec<MetadataResponseTopic> {
    let mut seen = HashSet::new();
    let mut described = Vec::with_capacity(asked.len());
    for MetadataRequestTopic { topic_id, name, .. } in asked {
        // An id wins over a name, as in Apache.
        let found = match (&name, topic_id.is_nil()) {
            (_, false) => image.topic_by_id(TopicId(topic_id)),
            (Some(name), true) => image.topic(name),
            (None, true) => None,
        };
        // A topic that is requested both by name and by id is described once.
        let identity = found.map_or_else(|| (topic_id, name.clone()), |topic| (topic.id.0, None));
        if !seen.insert(identity) {
            continue;
        }
        described.push(match (found, name) {
            (Some(topic), _) => describe(ctx, image, topic, with_operations),
            (None, Some(name)) if topic_id.is_nil() => {
                let error = if topics::is_valid_name(&name) {
                    ResponseError::UnknownTopicOrPartition
                } else {
                    ResponseError::InvalidTopicException
                };
                let is_internal = is_internal_topic(&name);
                let unknown = unknown(error, topic_id, Some(name)).with_is_internal(is_internal);
                let shows_operations =
                    with_operations && ctx.api_version >= 8 && error == ResponseError::UnknownTopicOrPartition;
                if shows_operations {
                    unknown.with_topic_authorized_operations(topics::TOPIC_OPERATIONS)
                } else {
                    unknown
                }
            }
            (None, _) => unknown(ResponseError::UnknownTopicId, topic_id, None),
        });
    }
    described
}

/// M2: creates the requested topics that are missing, with the broker's defaults, and returns the new image. A topic
/// that cannot be created stays missing and gets an error in the response.
async fn create_missing(
    ctx: &RequestContext,
    image: Arc<MetadataImage>,
    asked: &[MetadataRequestTopic],
) -> Arc<MetadataImage> {
    if !ctx.config().auto_create_topics_enable {
        return image;
    }
    let missing: IndexSet<&str> = asked
        .iter()
        .filter(|topic| topic.topic_id.is_nil())
        .filter_map(|topic| topic.name.as_ref().map(|name| name.as_str()))
        .filter(|name| topics::is_valid_name(name) && image.topic(name).is_none())
        // Internal topics of coordinators that do not exist yet are not created.
        .filter(|name| {
            !is_internal_topic(name) || topics::internal_topic(ctx.config(), ctx.has_one_node(), name).is_some()
        })
        .collect();
    if missing.is_empty() {
        return image;
    }
    let topics = missing.into_iter().map(|name| creatable(ctx, name)).collect();
    if let Err(error) = ctx.create_for_request(topics).await {
        tracing::debug!(?error, "cannot create topics that a client requested");
    }
    ctx.image()
}

fn creatable(ctx: &RequestContext, name: &str) -> CreatableTopic {
    match topics::internal_topic(ctx.config(), ctx.has_one_node(), name) {
        Some(internal) => internal,
        None => CreatableTopic {
            name: name.into(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: Vec::new(),
            configs: Vec::new(),
        },
    }
}

fn unknown(error: ResponseError, topic_id: Uuid, name: Option<TopicName>) -> MetadataResponseTopic {
    MetadataResponseTopic::default().with_error_code(error.code()).with_topic_id(topic_id).with_name(name)
}

fn describe(
    ctx: &RequestContext,
    image: &MetadataImage,
    topic: &TopicImage,
    with_operations: bool,
) -> MetadataResponseTopic {
    let partitions =
        topic.partitions.iter().map(|(index, partition)| describe_partition(ctx, image, *index, partition));
    let described = MetadataResponseTopic::default()
        .with_name(Some(topics::topic_name(&topic.name)))
        .with_topic_id(topic.id.0)
        .with_is_internal(is_internal_topic(&topic.name))
        .with_partitions(partitions.collect());
    if with_operations && ctx.api_version >= 8 {
        described.with_topic_authorized_operations(topics::TOPIC_OPERATIONS)
    } else {
        described
    }
}

fn describe_partition(
    ctx: &RequestContext,
    image: &MetadataImage,
    index: i32,
    partition: &PartitionImage,
) -> MetadataResponsePartition {
    // Version 0 lists only replicas of brokers that are alive, and has an error if there are others.
    let hides_dead = ctx.api_version == 0;
    let is_offline = |id: &&i32| image.broker(**id).is_none_or(|broker| broker.fenced);
    let leader = image.broker(partition.leader).filter(|broker| !broker.fenced);
    let error = match leader {
        None => Some(ResponseError::LeaderNotAvailable),
        Some(leader) if ctx.endpoint_of(leader).is_none() => {
            Some(if ctx.api_version >= 6 { ResponseError::ListenerNotFound } else { ResponseError::LeaderNotAvailable })
        }
        // linear: over the replicas of one partition
        Some(_) if hides_dead && partition.replicas.iter().any(|id| is_offline(&id)) => {
            Some(ResponseError::ReplicaNotAvailable)
        }
        Some(_) => None,
    };
    let has_leader = matches!(error, None | Some(ResponseError::ReplicaNotAvailable));
    let shown = |ids: &[i32]| ids.iter().filter(|id| !hides_dead || !is_offline(id)).map(|id| BrokerId(*id)).collect();
    let mut described = MetadataResponsePartition::default()
        .with_error_code(error.map_or(0, |error| error.code()))
        .with_partition_index(index)
        .with_leader_id(BrokerId(if has_leader { partition.leader } else { -1 }))
        .with_leader_epoch(partition.leader_epoch)
        .with_replica_nodes(shown(&partition.replicas))
        .with_isr_nodes(shown(&partition.isr));
    if ctx.api_version >= 5 {
        let is_offline = |id: &&i32| is_offline(id) || !has_online_directory(image, partition, **id);
        described.offline_replicas = partition.replicas.iter().filter(is_offline).map(|id| BrokerId(*id)).collect();
    }
    described
}
