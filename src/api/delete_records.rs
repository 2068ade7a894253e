//! DeleteRecords (key 21): increases the log start offset.
//!
//! Behavior: A4. The next retention run deletes the segments that lie wholly below the new log start offset.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DeleteRecordsRequest, DeleteRecordsResponse,
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
    },
};

use super::{
    RequestContext,
    authorized::{Operation, partition_of},
    errors,
};
use crate::{
    replica::Partition,
    types::{Offset, is_internal_topic},
};

pub(crate) async fn handle(ctx: RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let is_internal = is_internal_topic(&topic.name);
        let authorized = ctx.topic(Operation::Delete, &topic.name);
        let partitions = topic.partitions.iter().map(|asked| {
            let answer = DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
            let partition = if is_internal {
                Err(ResponseError::InvalidTopicException)
            } else {
                partition_of(&authorized, asked.partition_index)
            };
            match partition.and_then(|partition| delete_before(&partition, asked.offset)) {
                Ok(low_watermark) => answer.with_low_watermark(low_watermark),
                Err(error) => answer.with_low_watermark(-1).with_error_code(error.code()),
            }
        });
        DeleteRecordsTopicResult::default().with_partitions(partitions.collect()).with_name(topic.name.clone())
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

fn delete_before(partition: &Partition, offset: Offset) -> Result<Offset, ResponseError> {
    if !partition.log_config().cleanup_policy.delete {
        return Err(ResponseError::PolicyViolation);
    }
    partition.delete_records_before(offset).map_err(|error| errors::partition(&error))
}
