//! ListOffsets (key 2): offsets by time, and the ends of a log.
//!
//! Behavior: L1–L3. Searches by time may read files and run on the blocking pool.
//! Version notes: special timestamps -3 from version 7 on (KIP-734), -4 from 8 (KIP-405), -5 from 9
//! (KIP-1005), -6 from 11 (KIP-1023); without tiers -4 is the start of the log, -5 and -6 are none.

use std::{collections::HashSet, sync::Arc};

use kafka_protocol::error::ResponseError;

use super::{RequestContext, errors};
use crate::{
    log::TimestampOffset,
    protocol::list_offsets::{
        ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
        ListOffsetsTopicResponse,
    },
    replica::{Partition, PartitionError},
    types::{Offset, TimestampMs},
};

const LATEST: TimestampMs = -1;
const EARLIEST: TimestampMs = -2;
const MAX_TIMESTAMP: TimestampMs = -3;
const EARLIEST_LOCAL: TimestampMs = -4;
const LATEST_TIERED: TimestampMs = -5;
const EARLIEST_PENDING_UPLOAD: TimestampMs = -6;

/// "No such record".
const NONE: TimestampOffset = TimestampOffset { timestamp_ms: -1, offset: -1, leader_epoch: -1 };

pub(crate) async fn handle(ctx: &RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let twice = named_twice(&request);
    let read_committed = request.isolation_level == 1;
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut refused = HashSet::new();
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            // What is named twice is refused once.
            if twice.contains(&(topic.name.as_str().into(), asked.partition_index))
                && !refused.insert((topic.name.clone(), asked.partition_index))
            {
                continue;
            }
            let found = if twice.contains(&(topic.name.as_str().into(), asked.partition_index)) {
                Err(ResponseError::InvalidRequest)
            } else {
                list(ctx, &topic.name, asked, read_committed).await
            };
            partitions.push(answer(asked.partition_index, found));
        }
        topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
    }
    ListOffsetsResponse { throttle_time_ms: 0, topics }
}

fn answer(partition_index: i32, found: Result<TimestampOffset, ResponseError>) -> ListOffsetsPartitionResponse {
    match found {
        Err(error) => ListOffsetsPartitionResponse::none(partition_index, error.code()),
        Ok(found) => ListOffsetsPartitionResponse {
            partition_index,
            error_code: 0,
            timestamp: found.timestamp_ms,
            offset: found.offset,
            leader_epoch: found.leader_epoch,
        },
    }
}

fn named_twice(request: &ListOffsetsRequest) -> HashSet<(Box<str>, i32)> {
    let mut seen = HashSet::new();
    let named = request
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.name.as_str(), partition.partition_index)));
    named.filter(|partition| !seen.insert(*partition)).map(|(topic, partition)| (topic.into(), partition)).collect()
}

async fn list(
    ctx: &RequestContext,
    topic: &str,
    asked: &ListOffsetsPartition,
    read_committed: bool,
) -> Result<TimestampOffset, ResponseError> {
    if !is_served(ctx.api_version, asked.timestamp) {
        return Err(ResponseError::UnsupportedVersion);
    }
    let partition = ctx.partition(topic, asked.partition_index)?;
    let epoch = asked.current_leader_epoch;
    let at_end = |watermarks: crate::replica::Watermarks| {
        if read_committed { watermarks.last_stable_offset } else { watermarks.high_watermark }
    };
    let found = match asked.timestamp {
        LATEST => partition.offset_with_epoch(epoch, at_end),
        EARLIEST | EARLIEST_LOCAL => partition.offset_with_epoch(epoch, |watermarks| watermarks.log_start_offset),
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => partition.offset_with_epoch(epoch, |_| -1).map(|_| NONE),
        timestamp_ms => search(ctx, partition, epoch, timestamp_ms, at_end).await,
    };
    found.map_err(|error| errors::partition(&error))
}

fn is_served(version: i16, timestamp: TimestampMs) -> bool {
    match timestamp {
        LATEST | EARLIEST | 0.. => true,
        MAX_TIMESTAMP => version >= 7,
        EARLIEST_LOCAL => version >= 8,
        LATEST_TIERED => version >= 9,
        EARLIEST_PENDING_UPLOAD => version >= 11,
        _ => false,
    }
}

/// L2: the first record at or after a time, or the record with the largest time; none beyond what the
/// client may see.
async fn search(
    ctx: &RequestContext,
    partition: Arc<Partition>,
    epoch: i32,
    timestamp_ms: TimestampMs,
    at_end: impl FnOnce(crate::replica::Watermarks) -> Offset,
) -> Result<TimestampOffset, PartitionError> {
    let (lookup, watermarks) = partition.timestamp_lookup(epoch)?;
    let end = at_end(watermarks);
    let found = ctx
        .parts
        .env
        .tasks
        .blocking("search by time", move || {
            if timestamp_ms == MAX_TIMESTAMP { lookup.max_timestamp() } else { lookup.first_at_or_after(timestamp_ms) }
        })
        .await?;
    Ok(found.filter(|found| found.offset < end).unwrap_or(NONE))
}
