//! DescribeProducers (key 61): the idempotent producers that a partition remembers (KIP-664).
//!
//! Behavior: Apache's `KafkaApis.handleDescribeProducersRequest`. Any replica can answer; producers expire after
//! `producer.id.expiration.ms`.
//! Deviations: a partition that is named twice is described once; once the response exceeds 48 MiB, the other
//! partitions get INVALID_REQUEST.

use std::{collections::HashSet, sync::Arc};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeProducersRequest, DescribeProducersResponse,
        describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
    },
};

use super::{
    RequestContext,
    answer_bounds::AnswerBudget,
    authorized::{Operation, partition_of},
    error_message,
};
use crate::{
    controller::{ApiError, topics::validate_topic_name},
    log::producer_state::ProducerEntry,
    replica::Partition,
    types::ProducerId,
};

/// The approximate size of a partition's result without its producers.
const PARTITION_BYTES: usize = size_of::<PartitionResponse>();

pub(crate) async fn handle(ctx: RequestContext, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let mut budget = AnswerBudget::new(&ctx);
    let (mut topics, mut seen) = (Vec::with_capacity(request.topics.len()), HashSet::new());
    for topic in request.topics {
        let refused = refuse_topic(&ctx, &topic.name);
        let authorized = ctx.topic(Operation::Read, &topic.name);
        let mut partitions = Vec::new();
        for index in topic.partition_indexes.iter().copied() {
            if !seen.insert((topic.name.clone(), index)) {
                continue;
            }
            let answer = PartitionResponse::default().with_partition_index(index);
            let answer = match &refused {
                Some(error) => answer.with_error_code(error.error.code()).with_error_message(error_message(error)),
                None if !budget.has_room() => too_large(answer),
                None => describe(partition_of(&authorized, index), answer),
            };
            budget.add(PARTITION_BYTES + answer.active_producers.len() * size_of::<ProducerState>()).await;
            partitions.push(answer);
        }
        topics.push(TopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    DescribeProducersResponse::default().with_topics(topics)
}

fn too_large(answer: PartitionResponse) -> PartitionResponse {
    const MESSAGE: &str = "The answer would be too large; ask for fewer partitions at a time.";
    let error = ApiError::invalid_request(MESSAGE);
    answer.with_error_code(error.code()).with_error_message(error_message(&error))
}

fn refuse_topic(ctx: &RequestContext, name: &str) -> Option<ApiError> {
    let unknown = || {
        const UNKNOWN: &str = "This server does not host this topic-partition.";
        ctx.image().topic(name).is_none().then(|| ApiError::new(ResponseError::UnknownTopicOrPartition, UNKNOWN))
    };
    validate_topic_name(name).err().or_else(unknown)
}

fn describe(partition: Result<Arc<Partition>, ResponseError>, answer: PartitionResponse) -> PartitionResponse {
    match partition {
        Ok(partition) => {
            let producers = partition.producers();
            answer.with_active_producers(producers.iter().map(|(id, producer)| state(*id, producer)).collect())
        }
        Err(error) => answer.with_error_code(error.code()),
    }
}

fn state(id: ProducerId, producer: &ProducerEntry) -> ProducerState {
    ProducerState::default()
        .with_producer_id(id.into())
        .with_producer_epoch(producer.epoch.into())
        .with_last_sequence(producer.last_sequence())
        .with_last_timestamp(producer.last_timestamp_ms)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.current_txn_first_offset.unwrap_or(-1))
}
