//! AssignReplicasToDirs (key 73): a broker tells the controller in which log directories its replicas are (KIP-858).
//!
//! Behavior: replicas that do not exist any more are skipped, and the response names all as done.

use kafka_protocol::messages::{
    AssignReplicasToDirsRequest, AssignReplicasToDirsResponse, assign_replicas_to_dirs_request as request,
    assign_replicas_to_dirs_response as response,
};

use super::{RequestContext, authorized::Operation};
use crate::controller::{ApiError, directories::AssignReplicasToDirs};

pub(crate) async fn handle(ctx: RequestContext, request: AssignReplicasToDirsRequest) -> AssignReplicasToDirsResponse {
    let assign = async {
        let cluster = ctx.cluster(Operation::ClusterAction)?;
        cluster.controller().call(AssignReplicasToDirs::from(&request)).await.map_err(ApiError::from)?
    };
    let assigned: Result<(), ApiError> = assign.await;
    match assigned {
        Ok(()) => AssignReplicasToDirsResponse::default()
            .with_directories(request.directories.into_iter().map(directory).collect()),
        Err(error) => AssignReplicasToDirsResponse::default().with_error_code(error.code()),
    }
}

fn directory(directory: request::DirectoryData) -> response::DirectoryData {
    let partition = |partition: request::PartitionData| {
        response::PartitionData::default().with_partition_index(partition.partition_index)
    };
    let topic = |topic: request::TopicData| {
        response::TopicData::default()
            .with_topic_id(topic.topic_id)
            .with_partitions(topic.partitions.into_iter().map(partition).collect())
    };
    response::DirectoryData::default()
        .with_id(directory.id)
        .with_topics(directory.topics.into_iter().map(topic).collect())
}
