//! FetchSnapshot (key 59): a voter gets a piece of a snapshot of the metadata log (KIP-630).
//!
//! Behavior: the checks and their order are those of Apache's `KafkaRaftClient.handleFetchSnapshotRequest`. A response
//! has at most 1 MiB.
//! Version notes: 1+ has the directory of the replica and the endpoint of the leader (KIP-853).

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, FetchSnapshotRequest, FetchSnapshotResponse,
        fetch_snapshot_request::PartitionSnapshot as Requested,
        fetch_snapshot_response::{LeaderIdAndEpoch, NodeEndpoint, PartitionSnapshot, SnapshotId, TopicSnapshot},
    },
    protocol::StrBytes,
};

use super::{RequestContext, authorized::Operation};
use crate::{
    raft::{
        snapshot,
        snapshot_fetch::{PieceError, PieceRequest, PieceResponse},
    },
    types::CLUSTER_METADATA_TOPIC,
};

pub(crate) async fn handle(ctx: RequestContext, request: FetchSnapshotRequest) -> FetchSnapshotResponse {
    match fetch(&ctx, request).await {
        Ok(response) => response,
        Err(error) => FetchSnapshotResponse::default().with_error_code(error.code()),
    }
}

async fn fetch(ctx: &RequestContext, request: FetchSnapshotRequest) -> Result<FetchSnapshotResponse, ResponseError> {
    let cluster = ctx.cluster(Operation::ClusterAction)?;
    cluster.check_cluster_id(request.cluster_id.as_deref())?;
    let [topic] = &request.topics[..] else { return Err(ResponseError::InvalidRequest) };
    let [partition] = &topic.partitions[..] else { return Err(ResponseError::InvalidRequest) };
    let respond = |partition| {
        let topic = TopicSnapshot::default().with_name(topic.name.clone()).with_partitions(vec![partition]);
        FetchSnapshotResponse::default().with_topics(vec![topic])
    };
    if &*topic.name.0 != CLUSTER_METADATA_TOPIC || partition.partition != 0 {
        let unknown = PartitionSnapshot::default()
            .with_index(partition.partition)
            .with_error_code(ResponseError::UnknownTopicOrPartition.code());
        return Ok(respond(unknown));
    }
    let max_bytes = usize::try_from(request.max_bytes).map_err(|_| ResponseError::InvalidRequest)?;
    let piece = cluster.controller().snapshot_piece(to_piece(&request, partition, max_bytes)).await;
    let piece = piece.map_err(|_| ResponseError::BrokerNotAvailable)?;
    let leader = piece.leader;
    let response = respond(to_wire(piece, partition));
    // linear: the voters are few.
    let endpoint = ctx.controllers().into_iter().find(|(id, ..)| ctx.api_version >= 1 && Some(*id) == leader);
    let endpoint = endpoint.map(|(id, host, port)| {
        NodeEndpoint::default().with_node_id(BrokerId(id)).with_host(StrBytes::from_string(host)).with_port(port)
    });
    Ok(response.with_node_endpoints(endpoint.into_iter().collect()))
}

fn to_piece(request: &FetchSnapshotRequest, partition: &Requested, max_bytes: usize) -> PieceRequest {
    PieceRequest {
        replica: request.replica_id.0,
        replica_directory: partition.replica_directory_id,
        leader_epoch: partition.current_leader_epoch,
        id: snapshot::SnapshotId { end_offset: partition.snapshot_id.end_offset, epoch: partition.snapshot_id.epoch },
        // A negative position is outside of every snapshot.
        position: u64::try_from(partition.position).unwrap_or(u64::MAX),
        max_bytes,
    }
}

fn to_wire(response: PieceResponse, requested: &Requested) -> PartitionSnapshot {
    let leader = LeaderIdAndEpoch::default()
        .with_leader_id(BrokerId(response.leader.unwrap_or(-1)))
        .with_leader_epoch(response.leader_epoch);
    let partition = PartitionSnapshot::default().with_current_leader(leader);
    let error = match response.piece {
        Ok(piece) => {
            let id = &requested.snapshot_id;
            return partition
                .with_snapshot_id(SnapshotId::default().with_end_offset(id.end_offset).with_epoch(id.epoch))
                .with_size(piece.size as i64)
                .with_position(piece.position as i64)
                .with_unaligned_records(piece.bytes);
        }
        Err(PieceError::FencedLeaderEpoch) => ResponseError::FencedLeaderEpoch,
        Err(PieceError::UnknownLeaderEpoch) => ResponseError::UnknownLeaderEpoch,
        Err(PieceError::NotLeader) => ResponseError::NotLeaderOrFollower,
        Err(PieceError::NotFound) => ResponseError::SnapshotNotFound,
        Err(PieceError::OutOfRange) => ResponseError::PositionOutOfRange,
        Err(PieceError::Io(error)) => {
            tracing::error!(%error, "a metadata snapshot cannot be read");
            ResponseError::KafkaStorageError
        }
    };
    partition.with_error_code(error.code())
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::protocol::{Decodable, Encodable};

    use super::*;
    use crate::raft::snapshot_fetch::Piece;

    #[test]
    fn each_outcome_has_kafkas_code_and_names_the_leader() {
        let requested = Requested::default().with_position(7);
        let response = |piece| to_wire(PieceResponse { leader: Some(3), leader_epoch: 5, piece }, &requested);
        for (error, code) in [
            (PieceError::FencedLeaderEpoch, 74),
            (PieceError::UnknownLeaderEpoch, 75),
            (PieceError::NotLeader, 6),
            (PieceError::NotFound, 98),
            (PieceError::OutOfRange, 99),
            (PieceError::Io(std::io::ErrorKind::Other.into()), 56),
        ] {
            let partition = response(Err(error));
            assert_eq!((partition.error_code, partition.current_leader.leader_id.0), (code, 3));
        }
        let piece = Piece { size: 10, position: 7, bytes: Bytes::from_static(b"abc") };
        let partition = response(Ok(piece));
        assert_eq!((partition.error_code, partition.size, partition.position), (0, 10, 7));
        let topic = TopicSnapshot::default().with_partitions(vec![partition]);
        let answer = FetchSnapshotResponse::default().with_topics(vec![topic]);
        for version in 0..=1 {
            let mut bytes = BytesMut::new();
            answer.encode(&mut bytes, version).unwrap();
            assert_eq!(FetchSnapshotResponse::decode(&mut bytes, version).unwrap(), answer);
        }
    }

    #[test]
    fn a_negative_position_is_outside_of_every_snapshot() {
        let request = FetchSnapshotRequest::default();
        let piece = to_piece(&request, &Requested::default().with_position(-1), 5);
        assert_eq!((piece.position, piece.max_bytes), (u64::MAX, 5));
    }
}
