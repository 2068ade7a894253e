//! CreateTopics (key 19).
//!
//! Behavior: A1; the controller decides topic by topic, and the response is sent when the topics' logs exist. Results
//! are in the order of the request; duplicate names follow at the end, each once.
//! Version notes: 5+ returns settings and counts (KIP-525), 7 the topic id.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        CreateTopicsRequest, CreateTopicsResponse, TopicName,
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic as WireTopic, CreatableTopicConfig},
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
    },
    protocol::StrBytes,
};

use super::{RequestContext, authorized::Operation, errors::check_time_left};
use crate::{
    controller::{
        ApiError, EffectiveConfig,
        topics::{CreatableTopic, CreateTopics, CreateTopicsReply, CreatedTopic},
    },
    raft::ControllerChannel,
    types::{BrokerId, TopicId},
};

/// The version in which a broker asks the controller for topics, and the time that the controller may take.
const ASK_VERSION: i16 = 7;
const ASK_TIMEOUT_MS: i32 = 5000;

pub(crate) async fn handle(ctx: RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let names: Vec<TopicName> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let reply = async {
        let cluster = ctx.cluster(Operation::Create)?;
        check_time_left(request.timeout_ms)?;
        let timeout_ms = request.timeout_ms;
        let created = cluster.controller().create_topics(controller_request(request)).await;
        // The logs are opened after the decision. If that takes longer than the timeout, clients retry until it is
        // done.
        let topics: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        ctx.wait_at_most(timeout_ms, cluster.replica_manager().wait_until_opened(&topics)).await;
        created
    }
    .await;
    response(ctx.api_version, names, reply)
}

/// Asks the controller on another node to create topics for this broker.
pub(super) async fn ask(channel: &ControllerChannel, node: i32, request: &CreateTopics) -> CreateTopicsReply {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let config = |(name, value): &(String, Option<String>)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(value.as_deref().map(text))
    };
    let assignment = |(partition, replicas): &(i32, Vec<BrokerId>)| {
        CreatableReplicaAssignment::default()
            .with_partition_index(*partition)
            .with_broker_ids(replicas.iter().map(|id| (*id).into()).collect())
    };
    let topic = |topic: &CreatableTopic| {
        WireTopic::default()
            .with_name(TopicName(text(&topic.name)))
            .with_num_partitions(topic.num_partitions)
            .with_replication_factor(topic.replication_factor)
            .with_assignments(topic.assignments.iter().map(assignment).collect())
            .with_configs(topic.configs.iter().map(config).collect())
    };
    let wire = CreateTopicsRequest::default()
        .with_topics(request.topics.iter().map(topic).collect())
        .with_timeout_ms(ASK_TIMEOUT_MS)
        .with_validate_only(request.validate_only);
    let response = channel.call(node, ASK_VERSION, &wire).await?;
    let result = |topic: CreatableTopicResult| match ResponseError::try_from_code(topic.error_code) {
        None => {
            let created = CreatedTopic {
                topic_id: TopicId(topic.topic_id),
                num_partitions: topic.num_partitions,
                replication_factor: topic.replication_factor,
                configs: Vec::new(),
            };
            (topic.name.to_string(), Ok(created))
        }
        Some(error) => {
            let message = topic.error_message.map(|message| message.to_string()).unwrap_or_default();
            (topic.name.to_string(), Err(ApiError::new(error, message)))
        }
    };
    Ok(response.topics.into_iter().map(result).collect())
}

fn controller_request(request: CreateTopicsRequest) -> CreateTopics {
    let topics = request.topics.into_iter().map(|topic| CreatableTopic {
        name: topic.name.to_string(),
        num_partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic
            .assignments
            .into_iter()
            .map(|assignment| (assignment.partition_index, assignment.broker_ids.into_iter().map(|id| id.0).collect()))
            .collect(),
        configs: topic
            .configs
            .into_iter()
            .map(|config| (config.name.to_string(), config.value.map(|value| value.to_string())))
            .collect(),
    });
    CreateTopics { topics: topics.collect(), validate_only: request.validate_only }
}

fn response(version: i16, names: Vec<TopicName>, reply: CreateTopicsReply) -> CreateTopicsResponse {
    let topics = match reply {
        Ok(results) => results
            .into_iter()
            .map(|(name, result)| topic_result(version, TopicName(StrBytes::from_string(name)), result))
            .collect(),
        Err(error) => names.into_iter().map(|name| topic_result(version, name, Err(error.clone()))).collect(),
    };
    CreateTopicsResponse::default().with_topics(topics)
}

fn topic_result(version: i16, name: TopicName, result: Result<CreatedTopic, ApiError>) -> CreatableTopicResult {
    let topic = CreatableTopicResult::default().with_name(name);
    match result {
        // Without settings, Kafka returns an empty list, not null.
        Err(error) => topic
            .with_error_code(error.code())
            .with_error_message(super::error_message(&error))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_configs(Some(Vec::new())),
        Ok(created) => topic
            .with_error_message(None)
            .with_topic_id(created.topic_id.0)
            .with_num_partitions(created.num_partitions)
            .with_replication_factor(created.replication_factor)
            .with_configs(Some(if version >= 5 {
                created.configs.into_iter().map(config).collect()
            } else {
                Vec::new()
            })),
    }
}

fn config(config: EffectiveConfig) -> CreatableTopicConfigs {
    CreatableTopicConfigs::default()
        .with_name(StrBytes::from_string(config.name))
        .with_value(config.value.map(StrBytes::from_string))
        .with_read_only(config.read_only)
        .with_config_source(config.source)
        .with_is_sensitive(config.is_sensitive)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::protocol::{Decodable, Encodable};

    use super::*;

    fn created() -> CreatedTopic {
        let config = EffectiveConfig {
            name: "retention.ms".into(),
            value: Some("1".into()),
            read_only: false,
            source: 1,
            is_sensitive: false,
        };
        CreatedTopic {
            topic_id: TopicId(uuid::Uuid::from_u128(7)),
            num_partitions: 3,
            replication_factor: 1,
            configs: vec![config],
        }
    }

    #[test]
    fn a1_answers_encode_at_every_version_with_what_each_can_tell() {
        for version in 2..=7 {
            let refused = ApiError::new(ResponseError::TopicAlreadyExists, "Topic 'b' already exists.");
            let reply = Ok(vec![("a".to_owned(), Ok(created())), ("b".to_owned(), Err(refused))]);
            let mut bytes = BytesMut::new();
            response(version, vec![], reply).encode(&mut bytes, version).unwrap();
            let decoded = CreateTopicsResponse::decode(&mut bytes, version).unwrap();
            assert_eq!(decoded.topics[1].error_code, 36);
            assert_eq!(decoded.topics[1].error_message.as_deref(), Some("Topic 'b' already exists."));
            assert_eq!(decoded.topics[0].topic_id.as_u128(), if version >= 7 { 7 } else { 0 });
            if version >= 5 {
                assert_eq!((decoded.topics[0].num_partitions, decoded.topics[1].num_partitions), (3, -1));
                assert_eq!(decoded.topics[0].configs.as_ref().unwrap().len(), 1);
            }
        }
    }

    #[test]
    fn a1_an_error_of_the_whole_request_is_every_topic_s() {
        let names = vec![TopicName(StrBytes::from_static_str("a")), TopicName(StrBytes::from_static_str("b"))];
        let response = response(5, names, Err(ApiError::code_only(ResponseError::NotController)));
        assert_eq!(response.topics.iter().map(|topic| topic.error_code).collect::<Vec<_>>(), [41, 41]);
    }
}
