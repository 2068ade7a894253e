//! DeleteRecords (key 21): moves the start of a log up.
//!
//! Behavior: A4. Segments that lie wholly below the new start go with the next retention run.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DeleteRecordsRequest, DeleteRecordsResponse,
        delete_records_request::DeleteRecordsPartition,
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
    },
};

use super::{RequestContext, errors};
use crate::types::{Offset, is_internal_topic};

pub(crate) async fn handle(ctx: &RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let answer = DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
            match delete_before(ctx, &topic.name, asked) {
                Ok(low_watermark) => answer.with_low_watermark(low_watermark),
                Err(error) => answer.with_low_watermark(-1).with_error_code(error.code()),
            }
        });
        DeleteRecordsTopicResult::default().with_partitions(partitions.collect()).with_name(topic.name.clone())
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

fn delete_before(ctx: &RequestContext, topic: &str, asked: &DeleteRecordsPartition) -> Result<Offset, ResponseError> {
    if is_internal_topic(topic) {
        return Err(ResponseError::InvalidTopicException);
    }
    let partition = ctx.partition(topic, asked.partition_index)?;
    if !partition.log_config().cleanup_policy.delete {
        return Err(ResponseError::PolicyViolation);
    }
    partition.delete_records_before(asked.offset).map_err(|error| errors::partition(&error))
}
