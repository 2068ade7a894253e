//! AlterPartition (key 56): the leader of a partition tells the controller which replicas are in sync.
//!
//! Behavior: the partitions are answered in the order of their topic ids and indexes.
//! Version notes: 3 has the broker epoch of each member of the ISR (KIP-903).

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, BrokerId,
    alter_partition_response::{PartitionData, TopicData},
};

use super::{RequestContext, authorized::Operation};
use crate::{
    controller::{
        ApiError,
        isr::{AlterPartition, AlterPartitionReply, AlteredPartition},
    },
    types::TopicId,
};

pub(crate) async fn handle(ctx: RequestContext, request: AlterPartitionRequest) -> AlterPartitionResponse {
    let alter = async {
        let cluster = ctx.cluster(Operation::ClusterAction)?;
        cluster.controller().call(AlterPartition::from(request)).await.map_err(ApiError::from)?
    };
    response(alter.await)
}

fn response(reply: AlterPartitionReply) -> AlterPartitionResponse {
    let response = AlterPartitionResponse::default();
    let partitions = match reply {
        Ok(partitions) => partitions,
        Err(error) => return response.with_error_code(error.code()),
    };
    let mut by_topic = BTreeMap::<TopicId, Vec<PartitionData>>::new();
    for ((topic, index), result) in partitions {
        let partition = match result {
            Ok(partition) => partition_data(partition),
            Err(error) => PartitionData::default().with_error_code(error.code()),
        };
        by_topic.entry(topic).or_default().push(partition.with_partition_index(index));
    }
    let topic = |(id, partitions): (TopicId, Vec<PartitionData>)| {
        TopicData::default().with_topic_id(id.0).with_partitions(partitions)
    };
    response.with_topics(by_topic.into_iter().map(topic).collect())
}

fn partition_data(partition: AlteredPartition) -> PartitionData {
    PartitionData::default()
        .with_leader_id(BrokerId(partition.leader))
        .with_leader_epoch(partition.leader_epoch)
        .with_isr(partition.isr.into_iter().map(BrokerId).collect())
        .with_leader_recovery_state(partition.leader_recovery_state)
        .with_partition_epoch(partition.partition_epoch)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::error::ResponseError;
    use uuid::Uuid;

    use super::*;
    use crate::raft::BrokerRequest;

    #[test]
    fn what_the_controller_answers_is_what_the_broker_gets() {
        let at = |topic: u128, index: i32| (TopicId(Uuid::from_u128(topic)), index);
        let altered = AlteredPartition {
            leader: 1,
            leader_epoch: 2,
            isr: vec![1, 3],
            leader_recovery_state: 1,
            partition_epoch: 4,
        };
        let reply = Ok(BTreeMap::from([
            (at(1, 0), Ok(altered.clone())),
            (at(1, 1), Err(ResponseError::IneligibleReplica)),
            (at(2, 0), Ok(altered)),
        ]));
        assert_eq!(AlterPartition::value(response(reply.clone())), reply);
        let refused = Err(ApiError::code_only(ResponseError::StaleBrokerEpoch));
        assert_eq!(AlterPartition::value(response(refused)).unwrap_err().error, ResponseError::StaleBrokerEpoch);
    }
}
