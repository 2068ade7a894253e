//! DeleteTopics (key 20).
//!
//! Behavior: A2. Kafka shuffles the results so that their order reveals nothing; Ottla groups them by outcome.
//! Version notes: 6 also names topics by id; 5+ has messages; before 3, if topic deletion is disabled, the error is
//! INVALID_REQUEST.

use kafka_protocol::{
    error::ResponseError,
    messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName, delete_topics_response::DeletableTopicResult},
    protocol::StrBytes,
};

use super::{RequestContext, authorized::Operation, errors::check_time_left};
use crate::{
    controller::{
        ApiError,
        topics::{DeleteTopics, DeleteTopicsReply, TopicReference},
    },
    types::TopicId,
};

pub(crate) async fn handle(ctx: RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let timeout_ms = request.timeout_ms;
    let controller_request = controller_request(request);
    let topics = controller_request.topics.clone();
    let reply = async {
        // One denied topic refuses the whole request. An authorizer will have to refuse topics one by one.
        let mut authorized = None;
        for topic in &controller_request.topics {
            authorized = Some(match &topic.name {
                Some(name) => ctx.topic(Operation::Delete, name)?,
                None => ctx.topic_by_id(Operation::Delete, topic.topic_id)?,
            });
        }
        // Apache checks first whether topic deletion is disabled, before the timeout.
        if ctx.config().delete_topic_enable {
            check_time_left(timeout_ms)?;
        }
        match authorized {
            Some(topic) => topic.controller().delete_topics(controller_request).await,
            None => Ok(Vec::new()),
        }
    };
    let reply = reply.await;
    response(ctx.api_version, topics, reply)
}

fn controller_request(request: DeleteTopicsRequest) -> DeleteTopics {
    let by_name = request
        .topic_names
        .into_iter()
        .map(|name| TopicReference { name: Some(name.to_string()), topic_id: TopicId::ZERO });
    let states = request.topics.into_iter().map(|topic| TopicReference {
        name: topic.name.map(|name| name.to_string()),
        topic_id: TopicId(topic.topic_id),
    });
    DeleteTopics { topics: by_name.chain(states).collect() }
}

fn response(version: i16, topics: Vec<TopicReference>, reply: DeleteTopicsReply) -> DeleteTopicsResponse {
    let responses = match reply {
        Ok(results) => {
            results.into_iter().map(|deleted| result(deleted.name, deleted.topic_id, deleted.result.err())).collect()
        }
        Err(error) => {
            // Apache's getErrorResponse leaves out the messages here.
            let error = match error.error {
                ResponseError::TopicDeletionDisabled if version < 3 => {
                    ApiError::code_only(ResponseError::InvalidRequest)
                }
                code => ApiError::code_only(code),
            };
            let failed = |topic: TopicReference| {
                result(topic.name, topic.topic_id, Some(error.clone())).with_error_message(None)
            };
            topics.into_iter().map(failed).collect()
        }
    };
    DeleteTopicsResponse::default().with_responses(responses)
}

fn result(name: Option<String>, topic_id: TopicId, error: Option<ApiError>) -> DeletableTopicResult {
    DeletableTopicResult::default()
        .with_name(name.map(|name| TopicName(StrBytes::from_string(name))))
        .with_topic_id(topic_id.0)
        .with_error_code(error.as_ref().map_or(0, ApiError::code))
        .with_error_message(error.as_ref().and_then(super::error_message))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::protocol::{Decodable, Encodable};

    use super::*;
    use crate::controller::topics::DeletedTopic;

    #[test]
    fn a2_answers_encode_at_every_version() {
        let id = TopicId(uuid::Uuid::from_u128(7));
        for version in 1..=6 {
            let unknown = ApiError::new(
                ResponseError::UnknownTopicOrPartition,
                "This server does not host this topic-partition.",
            );
            let reply = Ok(vec![
                DeletedTopic { name: Some("a".into()), topic_id: id, result: Ok(()) },
                DeletedTopic { name: Some("b".into()), topic_id: TopicId::ZERO, result: Err(unknown) },
            ]);
            let mut bytes = BytesMut::new();
            response(version, vec![], reply).encode(&mut bytes, version).unwrap();
            let decoded = DeleteTopicsResponse::decode(&mut bytes, version).unwrap();
            assert_eq!((decoded.responses[0].error_code, decoded.responses[1].error_code), (0, 3));
            assert_eq!(decoded.responses[1].error_message.is_some(), version >= 5);
            assert_eq!(decoded.responses[0].topic_id.as_u128(), if version >= 6 { 7 } else { 0 });
        }
    }

    #[test]
    fn a2_deletion_disabled_is_73_and_before_version_3_it_is_42() {
        let topics = vec![TopicReference { name: Some("t".into()), topic_id: TopicId::ZERO }];
        let disabled = || Err(ApiError::code_only(ResponseError::TopicDeletionDisabled));
        assert_eq!(response(2, topics.clone(), disabled()).responses[0].error_code, 42);
        assert_eq!(response(3, topics, disabled()).responses[0].error_code, 73);
    }
}
