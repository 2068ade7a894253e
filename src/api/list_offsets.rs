//! ListOffsets (key 2): returns offsets by time, and the start and end of a log.
//!
//! Behavior: L1–L3. Searches by time may read files and run on the blocking pool.
//! Version notes: special timestamps -3 from version 7 on (KIP-734), -4 from 8 (KIP-405), -5 from 9
//! (KIP-1005), -6 from 11 (KIP-1023); without tiered storage -4 is the log start offset, -5 and -6 return no offset.

use std::{collections::HashMap, sync::Arc};

use kafka_protocol::error::ResponseError;

use super::{
    RequestContext,
    authorized::{Operation, partition_of},
    errors,
};
use crate::{
    log::TimestampOffset,
    protocol::list_offsets::{
        ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
        ListOffsetsTopicResponse,
    },
    replica::{FetchIsolation, Partition, PartitionError, Watermarks},
    types::{Offset, TimestampMs},
};

const LATEST: TimestampMs = -1;
const EARLIEST: TimestampMs = -2;
const MAX_TIMESTAMP: TimestampMs = -3;
const EARLIEST_LOCAL: TimestampMs = -4;
const LATEST_TIERED: TimestampMs = -5;
const EARLIEST_PENDING_UPLOAD: TimestampMs = -6;

/// Earlier versions do not know OFFSET_NOT_AVAILABLE.
const FIRST_WITH_OFFSET_NOT_AVAILABLE: i16 = 5;

/// There is no such record.
const NONE: TimestampOffset = TimestampOffset { timestamp_ms: -1, offset: -1, leader_epoch: -1 };

pub(crate) async fn handle(ctx: RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let reader = match request.isolation_level {
        _ if request.replica_id >= 0 => FetchIsolation::LogEnd,
        1 => FetchIsolation::LastStable,
        _ => FetchIsolation::HighWatermark,
    };
    let mut named = named(&request);
    let mut topics = Vec::with_capacity(request.topics.len());
    for (topic, same) in request.topics.into_iter().zip(named.same_topic) {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        let authorized = ctx.topic(Operation::Describe, &topic.name);
        for asked in &topic.partitions {
            let index = asked.partition_index;
            let found = match named.partitions.get_mut(&(same, index)) {
                // If a partition is named more than once, the response contains it once, with an error.
                Some(Named::Refused) => continue,
                Some(twice @ Named::Twice) => {
                    *twice = Named::Refused;
                    Err(ResponseError::InvalidRequest)
                }
                Some(Named::Once) | None => list(&ctx, partition_of(&authorized, index), asked, reader).await,
            };
            partitions.push(answer(index, found));
        }
        topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
    }
    ListOffsetsResponse { throttle_time_ms: 0, topics }
}

/// Whether the request names each partition once or more often. The keys contain no topic names, because a topic with
/// a long name may have many partitions in the request.
struct AllNamed {
    /// For each topic of the request, the index of the first topic with the same name.
    same_topic: Vec<usize>,
    /// The key is the topic's index as in `same_topic`, and the partition.
    partitions: HashMap<(usize, i32), Named>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Once,
    Twice,
    /// Named twice, and the response already has the error.
    Refused,
}

fn named(request: &ListOffsetsRequest) -> AllNamed {
    let mut first = HashMap::with_capacity(request.topics.len());
    let topics = request.topics.iter().enumerate();
    let same_topic: Vec<usize> = topics.map(|(at, topic)| *first.entry(topic.name.as_str()).or_insert(at)).collect();
    let mut partitions = HashMap::new();
    for (topic, same) in request.topics.iter().zip(&same_topic) {
        for partition in &topic.partitions {
            let named = partitions.entry((*same, partition.partition_index));
            named.and_modify(|named| *named = Named::Twice).or_insert(Named::Once);
        }
    }
    AllNamed { same_topic, partitions }
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

async fn list(
    ctx: &RequestContext,
    partition: Result<Arc<Partition>, ResponseError>,
    asked: &ListOffsetsPartition,
    reader: FetchIsolation,
) -> Result<TimestampOffset, ResponseError> {
    if !is_served(ctx.api_version, asked.timestamp) {
        return Err(ResponseError::UnsupportedVersion);
    }
    let partition = partition?;
    let epoch = asked.current_leader_epoch;
    let at_end = |watermarks: Watermarks| match reader {
        FetchIsolation::LogEnd => watermarks.log_end_offset,
        FetchIsolation::HighWatermark => watermarks.high_watermark,
        FetchIsolation::LastStable => watermarks.last_stable_offset,
    };
    let found = match asked.timestamp {
        LATEST if reader == FetchIsolation::LogEnd => partition.offset_with_epoch(epoch, at_end),
        LATEST => partition.check_high_watermark_is_known().and_then(|()| partition.offset_with_epoch(epoch, at_end)),
        EARLIEST | EARLIEST_LOCAL => partition.offset_with_epoch(epoch, |watermarks| watermarks.log_start_offset),
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => partition.offset_with_epoch(epoch, |_| -1).map(|_| NONE),
        timestamp_ms => search(ctx, partition, epoch, timestamp_ms, at_end).await,
    };
    found.map_err(|error| match errors::partition(&error) {
        ResponseError::OffsetNotAvailable if ctx.api_version < FIRST_WITH_OFFSET_NOT_AVAILABLE => {
            ResponseError::LeaderNotAvailable
        }
        code => code,
    })
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

/// L2: returns the first record at or after a timestamp, or the record with the largest timestamp. Records beyond the
/// high watermark or last stable offset are not returned.
async fn search(
    ctx: &RequestContext,
    partition: Arc<Partition>,
    epoch: i32,
    timestamp_ms: TimestampMs,
    at_end: impl FnOnce(Watermarks) -> Offset,
) -> Result<TimestampOffset, PartitionError> {
    let (lookup, watermarks) = partition.timestamp_lookup(epoch)?;
    let is_known = partition.check_high_watermark_is_known();
    let end = at_end(watermarks);
    let found = ctx
        .tasks()
        .blocking("search by time", move || {
            if timestamp_ms == MAX_TIMESTAMP { lookup.max_timestamp() } else { lookup.first_at_or_after(timestamp_ms) }
        })
        .await?;
    match found.filter(|found| found.offset < end) {
        Some(found) => Ok(found),
        // The record may become visible soon.
        None => is_known.map(|()| NONE),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::protocol::list_offsets::ListOffsetsTopic;

    #[test]
    fn what_is_named_twice_is_known_by_its_topics_place() {
        let topic = |name: &'static str, partitions: &[i32]| ListOffsetsTopic {
            name: StrBytes::from_static_str(name),
            partitions: partitions
                .iter()
                .map(|index| ListOffsetsPartition { partition_index: *index, current_leader_epoch: -1, timestamp: -1 })
                .collect(),
        };
        let request = ListOffsetsRequest {
            topics: vec![topic("a", &[0, 1, 1]), topic("b", &[0]), topic("a", &[0])],
            replica_id: -1,
            isolation_level: 0,
            timeout_ms: 0,
        };
        let named = named(&request);
        assert_eq!(named.same_topic, [0, 1, 0]);
        let expected = [((0, 0), Named::Twice), ((0, 1), Named::Twice), ((1, 0), Named::Once)];
        assert_eq!(named.partitions, HashMap::from(expected));
    }
}
