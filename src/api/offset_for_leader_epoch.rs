//! OffsetForLeaderEpoch (key 23): returns the end offset of a leader epoch, so that a client can detect that records
//! it has read were truncated (KIP-320).
//!
//! Behavior: L4, on the leader only, with the epoch checks of F8.

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
        offset_for_leader_epoch_request::OffsetForLeaderPartition,
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    },
};

use super::{
    RequestContext,
    authorized::{Operation, partition_of},
    errors,
};
use crate::replica::Partition;

pub(crate) async fn handle(ctx: RequestContext, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let authorized = ctx.topic(Operation::Describe, &topic.topic);
        let partitions = topic
            .partitions
            .iter()
            .map(|asked| end_offset(partition_of(&authorized, asked.partition), asked))
            .collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn end_offset(partition: Result<Arc<Partition>, ResponseError>, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let answer = EpochEndOffset::default().with_partition(asked.partition);
    let refused =
        |error: ResponseError| answer.clone().with_error_code(error.code()).with_leader_epoch(-1).with_end_offset(-1);
    let partition = match partition {
        Ok(partition) => partition,
        Err(error) => return refused(error),
    };
    match partition.end_offset_for_epoch(asked.current_leader_epoch, asked.leader_epoch) {
        Ok((epoch, end_offset)) => answer.with_leader_epoch(epoch).with_end_offset(end_offset),
        Err(error) => refused(errors::partition(&error)),
    }
}
