//! What brokers ask of the controller, on the wire: Kafka's own requests, to and from the controller's types.
//!
//! Owns the versions in which brokers of this kind ask. Leaves the way there to `channel.rs`, and the handlers on the
//! other side to `api`.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterPartitionRequest, AlterPartitionResponse,
        AssignReplicasToDirsRequest, AssignReplicasToDirsResponse, BrokerHeartbeatRequest, BrokerHeartbeatResponse,
        BrokerId, BrokerRegistrationRequest, BrokerRegistrationResponse, alter_partition_request,
        alter_partition_response,
        assign_replicas_to_dirs_request::{DirectoryData, PartitionData, TopicData},
        broker_registration_request::{Feature, Listener},
    },
    protocol::{Request, StrBytes},
};
use uuid::Uuid;

use crate::{
    controller::{
        ApiError, ControllerRequest,
        brokers::{BrokerHeartbeat, BrokerState, RegisterBroker},
        directories::AssignReplicasToDirs,
        isr::{AlterPartition, AlteredPartition, ProposedIsr},
        producer_ids::{AllocateProducerIds, ProducerIdsBlock},
    },
    metadata::image::{Endpoint, MetadataImage},
    types::{Offset, TopicId},
};

/// A request of a broker to the controller.
pub trait BrokerRequest: ControllerRequest<Reply = Result<Self::Value, ApiError>> + Sized {
    /// What the controller answers.
    type Value;
    /// Kafka's request.
    type Wire: Request;
    /// The version in which it is sent.
    const VERSION: i16;

    /// The request on the wire. `image` is the sender's newest.
    fn to_wire(&self, image: &MetadataImage) -> Self::Wire;

    /// The answer in a response.
    ///
    /// # Errors
    /// The error of the response.
    fn value(response: <Self::Wire as Request>::Response) -> Result<Self::Value, ApiError>;
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// The error of a response.
pub(super) fn check(error_code: i16) -> Result<(), ApiError> {
    match ResponseError::try_from_code(error_code) {
        None => Ok(()),
        Some(error) => Err(ApiError::new(error, error.to_string())),
    }
}

impl BrokerRequest for RegisterBroker {
    type Value = i64;
    type Wire = BrokerRegistrationRequest;
    const VERSION: i16 = 4;

    fn to_wire(&self, _: &MetadataImage) -> BrokerRegistrationRequest {
        let listener = |endpoint: &Endpoint| {
            Listener::default()
                .with_name(text(&endpoint.listener))
                .with_host(text(&endpoint.host))
                .with_port(endpoint.port)
                .with_security_protocol(endpoint.security_protocol)
        };
        let feature = |(name, (min, max)): (&String, &(i16, i16))| {
            Feature::default().with_name(text(name)).with_min_supported_version(*min).with_max_supported_version(*max)
        };
        BrokerRegistrationRequest::default()
            .with_broker_id(BrokerId(self.broker_id))
            .with_cluster_id(text(&self.cluster_id))
            .with_incarnation_id(self.incarnation_id)
            .with_listeners(self.endpoints.iter().map(listener).collect())
            .with_features(self.features.iter().map(feature).collect())
            .with_rack(self.rack.as_deref().map(text))
            .with_log_dirs(self.log_dirs.clone())
            .with_previous_broker_epoch(self.previous_broker_epoch)
    }

    fn value(response: BrokerRegistrationResponse) -> Result<i64, ApiError> {
        check(response.error_code).map(|()| response.broker_epoch)
    }
}

impl From<BrokerRegistrationRequest> for RegisterBroker {
    fn from(request: BrokerRegistrationRequest) -> Self {
        let endpoint = |listener: Listener| Endpoint {
            listener: listener.name.to_string(),
            host: listener.host.to_string(),
            port: listener.port,
            security_protocol: listener.security_protocol,
        };
        let feature = |feature: Feature| {
            (feature.name.to_string(), (feature.min_supported_version, feature.max_supported_version))
        };
        RegisterBroker {
            cluster_id: request.cluster_id.to_string(),
            broker_id: request.broker_id.0,
            incarnation_id: request.incarnation_id,
            endpoints: request.listeners.into_iter().map(endpoint).collect(),
            features: request.features.into_iter().map(feature).collect(),
            rack: request.rack.map(|rack| rack.to_string()),
            log_dirs: request.log_dirs,
            previous_broker_epoch: request.previous_broker_epoch,
        }
    }
}

impl BrokerRequest for BrokerHeartbeat {
    type Value = BrokerState;
    type Wire = BrokerHeartbeatRequest;
    const VERSION: i16 = 1;

    fn to_wire(&self, image: &MetadataImage) -> BrokerHeartbeatRequest {
        BrokerHeartbeatRequest::default()
            .with_broker_id(BrokerId(self.broker_id))
            .with_broker_epoch(self.broker_epoch)
            .with_current_metadata_offset(image.provenance.last_contained_offset)
            .with_want_fence(self.want_fence)
            .with_want_shut_down(self.want_shut_down)
            .with_offline_log_dirs(self.offline_log_dirs.clone())
            .with_unknown_tagged_fields(BTreeMap::from([(METADATA_OFFSET_TAG, Bytes::new())]))
    }

    fn value(response: BrokerHeartbeatResponse) -> Result<BrokerState, ApiError> {
        let offset = response.unknown_tagged_fields.get(&METADATA_OFFSET_TAG);
        let metadata_offset = offset.and_then(|bytes| bytes.as_ref().try_into().ok()).map(i64::from_be_bytes);
        let state =
            BrokerState { is_fenced: response.is_fenced, should_shut_down: response.should_shut_down, metadata_offset };
        check(response.error_code).map(|()| state)
    }
}

/// A broker that sends this tag, which Kafka does not know, gets the response with the same tag and the offset of the
/// newest metadata.
const METADATA_OFFSET_TAG: i32 = 10_000;

/// Adds to the response to a heartbeat what the broker of `request` wants to know beyond Kafka.
pub fn tell_offset(
    request: &BrokerHeartbeatRequest,
    response: BrokerHeartbeatResponse,
    metadata_offset: Offset,
) -> BrokerHeartbeatResponse {
    if !request.unknown_tagged_fields.contains_key(&METADATA_OFFSET_TAG) {
        return response;
    }
    let offset = Bytes::copy_from_slice(&metadata_offset.to_be_bytes());
    response.with_unknown_tagged_fields(BTreeMap::from([(METADATA_OFFSET_TAG, offset)]))
}

impl From<BrokerHeartbeatRequest> for BrokerHeartbeat {
    fn from(request: BrokerHeartbeatRequest) -> Self {
        BrokerHeartbeat {
            broker_id: request.broker_id.0,
            broker_epoch: request.broker_epoch,
            // A broker that has not applied its own registration must not get clients yet.
            want_fence: request.want_fence || request.current_metadata_offset < request.broker_epoch,
            want_shut_down: request.want_shut_down,
            offline_log_dirs: request.offline_log_dirs,
            also_lost: Vec::new(),
        }
    }
}

impl BrokerRequest for AllocateProducerIds {
    type Value = ProducerIdsBlock;
    type Wire = AllocateProducerIdsRequest;
    const VERSION: i16 = 0;

    fn to_wire(&self, _: &MetadataImage) -> AllocateProducerIdsRequest {
        AllocateProducerIdsRequest::default()
            .with_broker_id(BrokerId(self.broker_id))
            .with_broker_epoch(self.broker_epoch)
    }

    fn value(response: AllocateProducerIdsResponse) -> Result<ProducerIdsBlock, ApiError> {
        let block = ProducerIdsBlock { first: response.producer_id_start.0, count: response.producer_id_len };
        check(response.error_code).map(|()| block)
    }
}

impl From<AllocateProducerIdsRequest> for AllocateProducerIds {
    fn from(request: AllocateProducerIdsRequest) -> Self {
        AllocateProducerIds { broker_id: request.broker_id.0, broker_epoch: request.broker_epoch }
    }
}

impl BrokerRequest for AssignReplicasToDirs {
    type Value = ();
    type Wire = AssignReplicasToDirsRequest;
    const VERSION: i16 = 0;

    fn to_wire(&self, _: &MetadataImage) -> AssignReplicasToDirsRequest {
        let mut by_directory = BTreeMap::<Uuid, BTreeMap<TopicId, Vec<PartitionData>>>::new();
        for ((topic, index), directory) in &self.directories {
            let partition = PartitionData::default().with_partition_index(*index);
            by_directory.entry(*directory).or_default().entry(*topic).or_default().push(partition);
        }
        let topic = |(id, partitions): (TopicId, Vec<PartitionData>)| {
            TopicData::default().with_topic_id(id.0).with_partitions(partitions)
        };
        let directory = |(id, topics): (Uuid, BTreeMap<TopicId, Vec<PartitionData>>)| {
            DirectoryData::default().with_id(id).with_topics(topics.into_iter().map(topic).collect())
        };
        AssignReplicasToDirsRequest::default()
            .with_broker_id(BrokerId(self.broker_id))
            .with_broker_epoch(self.broker_epoch)
            .with_directories(by_directory.into_iter().map(directory).collect())
    }

    fn value(response: AssignReplicasToDirsResponse) -> Result<(), ApiError> {
        check(response.error_code)
    }
}

impl From<&AssignReplicasToDirsRequest> for AssignReplicasToDirs {
    fn from(request: &AssignReplicasToDirsRequest) -> Self {
        let of_directory = |directory: &DirectoryData| {
            let id = directory.id;
            let of_topic = move |topic: &TopicData| {
                let topic_id = TopicId(topic.topic_id);
                let partitions: Vec<_> =
                    topic.partitions.iter().map(|at| ((topic_id, at.partition_index), id)).collect();
                partitions
            };
            directory.topics.iter().flat_map(of_topic).collect::<Vec<_>>()
        };
        AssignReplicasToDirs {
            broker_id: request.broker_id.0,
            broker_epoch: request.broker_epoch,
            directories: request.directories.iter().flat_map(of_directory).collect(),
        }
    }
}

impl BrokerRequest for AlterPartition {
    type Value = BTreeMap<(TopicId, i32), Result<AlteredPartition, ResponseError>>;
    type Wire = AlterPartitionRequest;
    const VERSION: i16 = 3;

    fn to_wire(&self, _: &MetadataImage) -> AlterPartitionRequest {
        use alter_partition_request::{BrokerState, PartitionData, TopicData};
        let member = |(broker, epoch): &(i32, i64)| {
            BrokerState::default().with_broker_id(BrokerId(*broker)).with_broker_epoch(*epoch)
        };
        let mut by_topic = BTreeMap::<TopicId, Vec<PartitionData>>::new();
        for ((topic, index), proposal) in &self.proposals {
            let partition = PartitionData::default()
                .with_partition_index(*index)
                .with_leader_epoch(proposal.leader_epoch)
                .with_new_isr_with_epochs(proposal.isr.iter().map(member).collect())
                .with_leader_recovery_state(proposal.leader_recovery_state)
                .with_partition_epoch(proposal.partition_epoch);
            by_topic.entry(*topic).or_default().push(partition);
        }
        let topic = |(id, partitions): (TopicId, Vec<PartitionData>)| {
            TopicData::default().with_topic_id(id.0).with_partitions(partitions)
        };
        AlterPartitionRequest::default()
            .with_broker_id(BrokerId(self.broker_id))
            .with_broker_epoch(self.broker_epoch)
            .with_topics(by_topic.into_iter().map(topic).collect())
    }

    fn value(response: AlterPartitionResponse) -> Result<Self::Value, ApiError> {
        use alter_partition_response::PartitionData;
        check(response.error_code)?;
        let result = |partition: PartitionData| match ResponseError::try_from_code(partition.error_code) {
            Some(error) => Err(error),
            None => Ok(AlteredPartition {
                leader: partition.leader_id.0,
                leader_epoch: partition.leader_epoch,
                isr: partition.isr.into_iter().map(|broker| broker.0).collect(),
                leader_recovery_state: partition.leader_recovery_state,
                partition_epoch: partition.partition_epoch,
            }),
        };
        let partitions = response.topics.into_iter().flat_map(|topic| {
            let id = TopicId(topic.topic_id);
            topic.partitions.into_iter().map(move |partition| ((id, partition.partition_index), partition))
        });
        Ok(partitions.map(|(at, partition)| (at, result(partition))).collect())
    }
}

impl From<AlterPartitionRequest> for AlterPartition {
    fn from(request: AlterPartitionRequest) -> Self {
        use alter_partition_request::PartitionData;
        // Version 2 has no epochs, version 3 has nothing else.
        let proposal = |partition: PartitionData| {
            let without_epochs = partition.new_isr.into_iter().map(|broker| (broker.0, -1));
            let with_epochs =
                partition.new_isr_with_epochs.into_iter().map(|member| (member.broker_id.0, member.broker_epoch));
            ProposedIsr {
                leader_epoch: partition.leader_epoch,
                partition_epoch: partition.partition_epoch,
                isr: without_epochs.chain(with_epochs).collect(),
                leader_recovery_state: partition.leader_recovery_state,
            }
        };
        let partitions = request.topics.into_iter().flat_map(|topic| {
            let id = TopicId(topic.topic_id);
            topic.partitions.into_iter().map(move |partition| ((id, partition.partition_index), partition))
        });
        AlterPartition {
            broker_id: request.broker_id.0,
            broker_epoch: request.broker_epoch,
            proposals: partitions.map(|(at, partition)| (at, proposal(partition))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::{Decodable, Encodable};

    use super::*;

    #[test]
    fn what_a_broker_sends_is_what_the_controller_gets() {
        let image = MetadataImage::default();
        let registration = RegisterBroker {
            cluster_id: "c".into(),
            broker_id: 3,
            incarnation_id: Uuid::from_u128(5),
            endpoints: vec![Endpoint { listener: "L".into(), host: "h".into(), port: 9092, security_protocol: 0 }],
            features: [("metadata.version".to_owned(), (7, 30))].into(),
            rack: Some("r".into()),
            log_dirs: vec![Uuid::from_u128(1234)],
            previous_broker_epoch: 7,
        };
        assert_eq!(format!("{:?}", RegisterBroker::from(registration.to_wire(&image))), format!("{registration:?}"));
        let directory = |id: u128| Uuid::from_u128(id);
        let at = |topic: u128, index: i32| (TopicId(Uuid::from_u128(topic)), index);
        let assign = AssignReplicasToDirs {
            broker_id: 3,
            broker_epoch: 9,
            directories: [(at(1, 0), directory(7)), (at(1, 1), directory(8)), (at(2, 0), directory(7))].into(),
        };
        assert_eq!(AssignReplicasToDirs::from(&assign.to_wire(&image)).directories, assign.directories);
        let proposal = |partition_epoch: i32, isr: &[(i32, i64)]| ProposedIsr {
            leader_epoch: 4,
            partition_epoch,
            isr: isr.to_vec(),
            leader_recovery_state: 1,
        };
        let alter = AlterPartition {
            broker_id: 3,
            broker_epoch: 9,
            proposals: [
                (at(1, 0), proposal(5, &[(3, 9), (1, -1)])),
                (at(1, 1), proposal(6, &[(3, 9)])),
                (at(2, 0), proposal(7, &[])),
            ]
            .into(),
        };
        let wire = alter.to_wire(&image);
        assert_eq!(AlterPartition::from(wire.clone()), alter);
        let mut bytes = bytes::BytesMut::new();
        wire.encode(&mut bytes, AlterPartition::VERSION).unwrap();
        let decoded = AlterPartitionRequest::decode(&mut bytes.freeze(), AlterPartition::VERSION).unwrap();
        assert_eq!(AlterPartition::from(decoded), alter);
    }

    #[test]
    fn a_broker_that_lacks_its_own_registration_stays_fenced() {
        let mut image = MetadataImage::default();
        let heartbeat = BrokerHeartbeat::new(3, 10);
        image.provenance.last_contained_offset = 9;
        assert!(BrokerHeartbeat::from(heartbeat.to_wire(&image)).want_fence);
        image.provenance.last_contained_offset = 10;
        assert!(!BrokerHeartbeat::from(heartbeat.to_wire(&image)).want_fence);
    }
}
