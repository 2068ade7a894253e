//! DescribeProducers (key 61): the idempotent producers that a partition remembers (KIP-664).
//!
//! Behavior: Apache's `KafkaApis.handleDescribeProducersRequest`. Any replica answers; producers are forgotten after
//! `producer.id.expiration.ms`.

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeProducersRequest, DescribeProducersResponse,
        describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
    },
};

use super::{
    RequestContext,
    authorized::{Operation, partition_of},
    error_message,
};
use crate::{
    controller::{ApiError, topics::validate_topic_name},
    log::producer_state::ProducerEntry,
    replica::Partition,
    types::ProducerId,
};

pub(crate) async fn handle(ctx: RequestContext, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let refused = refuse_topic(&ctx, &topic.name);
        let authorized = ctx.topic(Operation::Read, &topic.name);
        let partitions = topic.partition_indexes.iter().map(|index| {
            let answer = PartitionResponse::default().with_partition_index(*index);
            match &refused {
                Some(error) => answer.with_error_code(error.error.code()).with_error_message(error_message(error)),
                None => describe(partition_of(&authorized, *index), answer),
            }
        });
        let partitions = partitions.collect();
        TopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
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
