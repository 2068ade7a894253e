//! DescribeQuorum (key 55).
//!
//! Behavior: A9; the quorum's leader describes the only partition of the metadata topic.
//! Version notes: 1+ has timestamps, 2 directory ids, endpoints and messages (KIP-853).

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, DescribeQuorumRequest, DescribeQuorumResponse, TopicName,
        describe_quorum_request::TopicData as RequestedTopic,
        describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData},
    },
    protocol::StrBytes,
};

use super::{RequestContext, authorized::Operation};
use crate::{
    raft::{QuorumInfo, ReplicaInfo, Unavailable},
    types::CLUSTER_METADATA_TOPIC,
};

pub(crate) async fn handle(ctx: RequestContext, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    if !is_for_the_quorum(&request.topics) {
        return unknown_partitions(ctx.api_version, request.topics);
    }
    match ctx.cluster(Operation::Describe) {
        Ok(cluster) => response(ctx.api_version, cluster.controller().describe_quorum().await),
        Err(denied) => DescribeQuorumResponse::default().with_error_code(ResponseError::from(denied).code()),
    }
}

/// Apache: `hasValidTopicPartition`.
fn is_for_the_quorum(topics: &[RequestedTopic]) -> bool {
    match topics {
        [topic] => {
            &*topic.topic_name.0 == CLUSTER_METADATA_TOPIC
                && matches!(&topic.partitions[..], [partition] if partition.partition_index == 0)
        }
        _ => false,
    }
}

/// Kafka's message for the code, which is sent from version 2 on.
fn message(version: i16, error: ResponseError) -> Option<StrBytes> {
    let text = match error {
        ResponseError::UnknownTopicOrPartition => "This server does not host this topic-partition.",
        _ => {
            "For requests intended only for the leader, this error indicates that the broker is not the current leader. For requests intended for \
             any replica, this error indicates that the broker is not a replica of the topic partition."
        }
    };
    (version >= 2).then(|| StrBytes::from_static_str(text))
}

/// Kafka leaves the default message here, which is "" and not null.
fn no_message(version: i16) -> Option<StrBytes> {
    (version >= 2).then(StrBytes::default)
}

fn partition_error(version: i16, index: i32, error: ResponseError) -> PartitionData {
    PartitionData::default()
        .with_partition_index(index)
        .with_error_code(error.code())
        .with_error_message(message(version, error))
        .with_leader_id(BrokerId(0))
}

fn topic(name: TopicName, partitions: Vec<PartitionData>) -> TopicData {
    TopicData::default().with_topic_name(name).with_partitions(partitions)
}

fn unknown_partitions(version: i16, topics: Vec<RequestedTopic>) -> DescribeQuorumResponse {
    let unknown = |index| partition_error(version, index, ResponseError::UnknownTopicOrPartition);
    let topics = topics.into_iter().map(|requested| {
        let partitions = requested.partitions.iter().map(|partition| unknown(partition.partition_index)).collect();
        topic(requested.topic_name, partitions)
    });
    DescribeQuorumResponse::default().with_error_message(no_message(version)).with_topics(topics.collect())
}

fn response(version: i16, quorum: Result<QuorumInfo, Unavailable>) -> DescribeQuorumResponse {
    let response = DescribeQuorumResponse::default().with_error_message(no_message(version));
    let (partition, nodes) = match quorum {
        Err(_) => (partition_error(version, 0, ResponseError::NotLeaderOrFollower), Vec::new()),
        Ok(quorum) => {
            let replicas =
                |replicas: &[ReplicaInfo]| replicas.iter().map(|replica| replica_state(version, replica)).collect();
            let partition = PartitionData::default()
                .with_partition_index(0)
                .with_error_message(no_message(version))
                .with_leader_id(BrokerId(quorum.leader_id))
                .with_leader_epoch(quorum.leader_epoch)
                .with_high_watermark(quorum.high_watermark)
                .with_current_voters(replicas(&quorum.voters))
                .with_observers(replicas(&quorum.observers));
            (partition, if version >= 2 { nodes(&quorum) } else { Vec::new() })
        }
    };
    response
        .with_topics(vec![topic(TopicName(StrBytes::from_static_str(CLUSTER_METADATA_TOPIC)), vec![partition])])
        .with_nodes(nodes)
}

fn replica_state(version: i16, replica: &ReplicaInfo) -> ReplicaState {
    let state = ReplicaState::default()
        .with_replica_id(BrokerId(replica.id))
        .with_log_end_offset(replica.log_end_offset)
        .with_last_fetch_timestamp(replica.last_fetch_timestamp_ms)
        .with_last_caught_up_timestamp(replica.last_caught_up_timestamp_ms);
    if version >= 2 { state.with_replica_directory_id(replica.directory_id) } else { state }
}

fn nodes(quorum: &QuorumInfo) -> Vec<Node> {
    let nodes = quorum.endpoints.voters.iter().map(|voter| {
        let listeners = voter.endpoints.iter().map(|endpoint| {
            Listener::default()
                .with_name(StrBytes::from_string(endpoint.name.clone()))
                .with_host(StrBytes::from_string(endpoint.host.clone()))
                .with_port(endpoint.port)
        });
        Node::default().with_node_id(BrokerId(voter.voter_id)).with_listeners(listeners.collect())
    });
    nodes.collect()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::{
        messages::describe_quorum_request::PartitionData as RequestedPartition,
        protocol::{Decodable, Encodable},
    };
    use uuid::Uuid;

    use super::*;
    use crate::raft::control_records::single_voter;

    fn requested(name: &'static str, partitions: &[i32]) -> RequestedTopic {
        let partition = |index: &i32| RequestedPartition::default().with_partition_index(*index);
        RequestedTopic::default()
            .with_topic_name(TopicName(StrBytes::from_static_str(name)))
            .with_partitions(partitions.iter().map(partition).collect())
    }

    fn reencode(response: DescribeQuorumResponse, version: i16) -> DescribeQuorumResponse {
        let mut bytes = BytesMut::new();
        response.encode(&mut bytes, version).unwrap();
        DescribeQuorumResponse::decode(&mut bytes, version).unwrap()
    }

    #[test]
    fn a9_answers_encode_at_every_version_with_what_each_can_tell() {
        let directory_id = Uuid::from_u128(5);
        let replica = ReplicaInfo {
            id: 1,
            directory_id,
            log_end_offset: 9,
            last_fetch_timestamp_ms: 7,
            last_caught_up_timestamp_ms: 7,
        };
        let quorum = QuorumInfo {
            leader_id: 1,
            leader_epoch: 2,
            high_watermark: 9,
            voters: vec![replica],
            observers: vec![],
            endpoints: single_voter(1, directory_id, vec![]),
        };
        for version in 0..=2 {
            let decoded = reencode(response(version, Ok(quorum.clone())), version);
            let partition = &decoded.topics[0].partitions[0];
            assert_eq!((partition.leader_id.0, partition.leader_epoch, partition.high_watermark), (1, 2, 9));
            assert_eq!(partition.current_voters[0].last_fetch_timestamp, if version >= 1 { 7 } else { -1 });
            assert_eq!(partition.current_voters[0].replica_directory_id.as_u128(), if version >= 2 { 5 } else { 0 });
            assert_eq!(decoded.nodes.len(), usize::from(version >= 2));
            let decoded = reencode(response(version, Err(Unavailable::NotController(None))), version);
            assert_eq!(decoded.topics[0].partitions[0].error_code, 6);
        }
    }

    #[test]
    fn a9_any_other_partition_is_unknown() {
        assert!(is_for_the_quorum(&[requested("__cluster_metadata", &[0])]));
        for wrong in [
            vec![],
            vec![requested("t", &[0])],
            vec![requested("__cluster_metadata", &[1])],
            vec![requested("__cluster_metadata", &[0, 1])],
        ] {
            assert!(!is_for_the_quorum(&wrong));
            for version in 0..=2 {
                let decoded = reencode(unknown_partitions(version, wrong.clone()), version);
                assert!(
                    decoded
                        .topics
                        .iter()
                        .flat_map(|topic| &topic.partitions)
                        .all(|partition| partition.error_code == 3)
                );
            }
        }
    }
}
