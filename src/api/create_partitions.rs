//! CreatePartitions (key 37).
//!
//! Behavior: A3, topic by topic; a name that the request contains more than once gets INVALID_REQUEST.

use kafka_protocol::{
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, TopicName,
        create_partitions_response::CreatePartitionsTopicResult,
    },
    protocol::StrBytes,
};

use super::{RequestContext, authorized::Operation, errors::check_time_left};
use crate::controller::{
    ApiError,
    topics::{CreatePartitions, CreatePartitionsReply, NewPartitions},
};

pub(crate) async fn handle(ctx: RequestContext, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let names: Vec<TopicName> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let reply = async {
        let mut authorized = None;
        for topic in &request.topics {
            authorized = Some(ctx.topic(Operation::Alter, &topic.name)?);
        }
        check_time_left(request.timeout_ms)?;
        let timeout_ms = request.timeout_ms;
        match authorized {
            Some(topic) => {
                let created = topic.controller().create_partitions(controller_request(request)).await;
                let topics: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
                ctx.wait_at_most(timeout_ms, topic.replica_manager().wait_until_opened(&topics)).await;
                created
            }
            None => Ok(Vec::new()),
        }
    };
    let reply = reply.await;
    response(names, reply)
}

fn controller_request(request: CreatePartitionsRequest) -> CreatePartitions {
    let topics = request.topics.into_iter().map(|topic| NewPartitions {
        name: topic.name.to_string(),
        count: topic.count,
        assignments: topic.assignments.map(|assignments| {
            assignments
                .into_iter()
                .map(|assignment| assignment.broker_ids.into_iter().map(|id| id.0).collect())
                .collect()
        }),
    });
    CreatePartitions { topics: topics.collect(), validate_only: request.validate_only }
}

fn response(names: Vec<TopicName>, reply: CreatePartitionsReply) -> CreatePartitionsResponse {
    let results = match reply {
        Ok(results) => results
            .into_iter()
            .map(|(name, result)| topic_result(TopicName(StrBytes::from_string(name)), result.err()))
            .collect(),
        Err(error) => names.into_iter().map(|name| topic_result(name, Some(error.clone()))).collect(),
    };
    CreatePartitionsResponse::default().with_results(results)
}

fn topic_result(name: TopicName, error: Option<ApiError>) -> CreatePartitionsTopicResult {
    CreatePartitionsTopicResult::default()
        .with_name(name)
        .with_error_code(error.as_ref().map_or(0, ApiError::code))
        .with_error_message(error.as_ref().and_then(super::error_message))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::{
        error::ResponseError,
        protocol::{Decodable, Encodable},
    };

    use super::*;

    #[test]
    fn a3_answers_encode_at_every_version() {
        for version in 0..=3 {
            let error = ApiError::new(ResponseError::InvalidPartitions, "Topic already has 2 partition(s).");
            let reply = Ok(vec![("a".to_owned(), Ok(())), ("b".to_owned(), Err(error))]);
            let mut bytes = BytesMut::new();
            response(vec![], reply).encode(&mut bytes, version).unwrap();
            let decoded = CreatePartitionsResponse::decode(&mut bytes, version).unwrap();
            assert_eq!((decoded.results[0].error_code, &decoded.results[0].error_message), (0, &None));
            assert_eq!(decoded.results[1].error_code, 37);
        }
    }
}
