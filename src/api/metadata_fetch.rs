//! Fetch on a controller listener: observers of the metadata quorum fetch `__cluster_metadata`.
//!
//! Behavior: as Apache's `KafkaRaftClient.handleFetchRequest`, but only committed records are returned. A request waits
//! until there are more, or until another node leads.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use super::{RequestContext, authorized::Operation};
use crate::{
    protocol::{
        fetch::{
            EpochEndOffset, FetchPartition, FetchRequest, FetchResponse, FetchSnapshotId, FetchTopic,
            FetchableTopicResponse, FetchedRecords, PartitionData,
        },
        produce::{LeaderIdAndEpoch, NodeEndpoint},
    },
    raft::{FetchedContent, Identity, MetadataFetch, MetadataFetchError, MetadataFetchReply, MetadataFetched},
    types::{CLUSTER_METADATA_TOPIC, METADATA_TOPIC_ID},
};

/// From this version on topics are named by id.
const FIRST_WITH_TOPIC_IDS: i16 = 13;

pub(super) async fn handle(ctx: RequestContext, request: FetchRequest) -> FetchResponse {
    match fetch(&ctx, &request).await {
        Ok(response) => response,
        Err(error) => FetchResponse { error_code: error.code(), ..FetchResponse::default() },
    }
}

async fn fetch(ctx: &RequestContext, request: &FetchRequest) -> Result<FetchResponse, ResponseError> {
    let cluster = ctx.cluster(Operation::ClusterAction)?;
    if cluster.log_manager().cluster_id().is_none() {
        return Err(ResponseError::InconsistentClusterId);
    }
    cluster.check_cluster_id(request.cluster_id.as_deref())?;
    let (topic, partition) = requested(ctx.api_version, request).ok_or(ResponseError::InvalidRequest)?;
    ctx.connection.belongs_to(request.replica_id);
    let mut fetch = MetadataFetch {
        observer: Identity { node_id: request.replica_id, directory_id: partition.replica_directory_id },
        leader_epoch: partition.current_leader_epoch,
        offset: partition.fetch_offset,
        last_epoch: partition.last_fetched_epoch,
        is_new: true,
    };
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = ctx.env().clock.monotonic() + wait;
    let reply = loop {
        let reply = cluster.controller().fetch_metadata(fetch).await.map_err(|_| ResponseError::BrokerNotAvailable)?;
        fetch.is_new = false;
        let now = ctx.env().clock.monotonic();
        if !is_empty(&reply, partition.high_watermark) || now >= deadline {
            break reply;
        }
        // Whether it ends by news or by time, the next look decides.
        let _ = ctx.env().within(deadline - now, cluster.controller().metadata_changes(fetch.offset)).await;
    };
    let (leader, ..) = reply;
    let data = to_wire(reply);
    // linear: the voters are few.
    let endpoint = ctx.controllers().into_iter().find(|(id, ..)| Some(*id) == leader);
    let endpoint = endpoint.map(|(node_id, host, port)| NodeEndpoint { node_id, host, port: port.into(), rack: None });
    let topic = FetchableTopicResponse { name: topic.name.clone(), topic_id: topic.topic_id, partitions: vec![data] };
    Ok(FetchResponse {
        topics: vec![topic],
        node_endpoints: endpoint.into_iter().collect(),
        ..FetchResponse::default()
    })
}

/// The one partition that may be fetched here.
fn requested(version: i16, request: &FetchRequest) -> Option<(&FetchTopic, &FetchPartition)> {
    let [topic] = &request.topics[..] else { return None };
    let is_metadata = match version {
        FIRST_WITH_TOPIC_IDS.. => topic.topic_id == METADATA_TOPIC_ID,
        _ => &*topic.name == CLUSTER_METADATA_TOPIC,
    };
    match &topic.partitions[..] {
        [partition] if is_metadata && partition.partition == 0 => Some((topic, partition)),
        _ => None,
    }
}

/// Whether there is nothing that the observer does not know.
fn is_empty((.., fetched): &MetadataFetchReply, known_high_watermark: i64) -> bool {
    match fetched {
        Ok(MetadataFetched { content: FetchedContent::Records(records), high_watermark, .. }) => {
            records.is_empty() && *high_watermark <= known_high_watermark
        }
        _ => false,
    }
}

fn to_wire((leader, leader_epoch, fetched): MetadataFetchReply) -> PartitionData {
    let leader = Some(LeaderIdAndEpoch { leader_id: leader.unwrap_or(-1), leader_epoch });
    let fetched = match fetched {
        Ok(fetched) => fetched,
        Err(error) => {
            let error = match error {
                MetadataFetchError::NotLeader => ResponseError::NotLeaderOrFollower,
                MetadataFetchError::FencedLeaderEpoch => ResponseError::FencedLeaderEpoch,
                MetadataFetchError::UnknownLeaderEpoch => ResponseError::UnknownLeaderEpoch,
                MetadataFetchError::Io => ResponseError::KafkaStorageError,
            };
            return PartitionData { current_leader: leader, ..PartitionData::error(0, error.code()) };
        }
    };
    let MetadataFetched { high_watermark, log_start_offset, content } = fetched;
    let (mut records, mut diverging_epoch, mut snapshot_id) = (Bytes::new(), None, None);
    match content {
        FetchedContent::Records(read) => records = read,
        FetchedContent::Diverging(epoch, end_offset) => diverging_epoch = Some(EpochEndOffset { epoch, end_offset }),
        FetchedContent::Snapshot(id) => {
            snapshot_id = Some(FetchSnapshotId { end_offset: id.end_offset, epoch: id.epoch });
        }
    }
    PartitionData {
        error_code: 0,
        high_watermark,
        log_start_offset,
        current_leader: leader,
        diverging_epoch,
        snapshot_id,
        records: if records.is_empty() { FetchedRecords::Empty } else { FetchedRecords::Memory(vec![records]) },
        ..PartitionData::error(0, 0)
    }
}
