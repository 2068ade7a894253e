//! What a handler knows beside the request: who asks, over which listener, and the broker's parts.

use std::{net::SocketAddr, sync::Arc};

use kafka_protocol::{error::ResponseError, protocol::StrBytes};

use super::topics::MAX_NAME_BYTES;
use crate::{
    config::{BrokerConfig, ConfigLayers, StaticConfigs},
    coordinator::runtime::GroupCoordinator,
    env::{Env, Tasks},
    log::LogManager,
    metadata::{
        image::{BrokerRegistration, ConfigResource, MetadataImage},
        publisher::Publisher,
    },
    metrics::Metrics,
    raft::ControllerHandle,
    replica::{
        Partition, ReplicaManager,
        fetch_session::FetchSessionCache,
        producer_ids::ProducerIds,
        replica_manager::{Hosted, LocalTopic},
    },
    types::TopicId,
};

/// Handles to everything a handler may use. A plain struct: `broker.rs` builds it once.
pub struct Parts {
    /// Clock, disk, network, randomness, tasks.
    pub env: Env,
    /// The tasks of listeners and connections, which stop first.
    pub network: Tasks,
    /// The broker's settings as they were at start.
    pub config: Arc<BrokerConfig>,
    /// The same with their origins, for DescribeConfigs.
    pub statics: Arc<StaticConfigs>,
    /// The image, and who hears of the next.
    pub metadata: Arc<Publisher>,
    /// The controller.
    pub controller: ControllerHandle,
    /// Log directories.
    pub log_manager: Arc<LogManager>,
    /// Partitions.
    pub replica_manager: Arc<ReplicaManager>,
    /// Groups.
    pub groups: Arc<GroupCoordinator>,
    /// What consumers fetch.
    pub fetch_sessions: FetchSessionCache,
    /// Ids for idempotent producers.
    pub producer_ids: ProducerIds,
    /// What is counted.
    pub metrics: Metrics,
}

impl Parts {
    /// This broker's settings, with the dynamic ones of an image over those given at start.
    pub(crate) fn config_layers<'a>(&'a self, image: &'a MetadataImage) -> ConfigLayers<'a> {
        let broker = ConfigResource::broker(self.config.node_id);
        ConfigLayers::new(&self.statics, image.config(&ConfigResource::default_broker()), image.config(&broker))
    }
}

/// What stays the same for all requests of a connection.
pub struct ConnectionInfo {
    /// The client's end.
    pub client_address: SocketAddr,
    /// Our end: what the client reached us on. Answered where `advertised.listeners` is unset.
    pub local_address: SocketAddr,
    /// The listener's name, `PLAINTEXT` where nothing else was configured.
    pub listener: Arc<str>,
}

/// One request's surroundings.
pub struct RequestContext {
    /// The broker.
    pub parts: Arc<Parts>,
    /// The connection.
    pub connection: Arc<ConnectionInfo>,
    /// The version that the request is of, and the answer will be.
    pub api_version: i16,
    /// As the client calls itself; empty where it does not.
    pub client_id: StrBytes,
    /// Of the request's frame, in memory for as long as any slice of it is.
    pub request_bytes: usize,
}

impl RequestContext {
    /// Where this client reaches a broker: its endpoint of the listener that the request came in on (M4).
    pub(crate) fn endpoint_of(&self, broker: &BrokerRegistration) -> Option<(StrBytes, i32)> {
        let endpoint = broker.endpoint(&self.connection.listener)?;
        if endpoint.host.is_empty() {
            let reached = self.connection.local_address;
            return Some((StrBytes::from_string(reached.ip().to_canonical().to_string()), reached.port().into()));
        }
        Some((StrBytes::from_string(endpoint.host.clone()), endpoint.port.into()))
    }

    /// A name that no topic can have is not worth hashing: it may be long, and asked for often.
    fn local_topic(&self, name: &str) -> Option<Arc<LocalTopic>> {
        if name.len() > MAX_NAME_BYTES { None } else { self.parts.replica_manager.topic(name) }
    }

    /// The partitions of a topic that this broker has; else what to tell the client (P6). The topic is looked up once.
    pub(crate) fn partitions(&self, topic: &str) -> impl Fn(i32) -> Result<Arc<Partition>, ResponseError> {
        let local = self.local_topic(topic);
        let elsewhere = if local.is_none() { self.parts.metadata.image().topic(topic).map(Arc::clone) } else { None };
        move |index| match (&local, &elsewhere) {
            (Some(local), _) => self.partition_of(local, index),
            (None, Some(topic)) if topic.partitions.contains_key(&index) => Err(ResponseError::NotLeaderOrFollower),
            (None, _) => Err(ResponseError::UnknownTopicOrPartition),
        }
    }

    /// A partition of a topic that was looked up before.
    pub(crate) fn partition_of(&self, topic: &LocalTopic, index: i32) -> Result<Arc<Partition>, ResponseError> {
        match topic.partition(index) {
            Some(Hosted::Online(partition)) => Ok(partition),
            Some(Hosted::Offline) => Err(ResponseError::KafkaStorageError),
            None if self.parts.metadata.image().partition(&topic.name, index).is_some() => {
                Err(ResponseError::NotLeaderOrFollower)
            }
            None => Err(ResponseError::UnknownTopicOrPartition),
        }
    }

    /// The topic a request means, by id where it gives one.
    pub(crate) fn topic(&self, name: &str, id: TopicId) -> Result<Arc<LocalTopic>, ResponseError> {
        let found = if id.is_zero() { self.local_topic(name) } else { self.parts.replica_manager.topic_by_id(id) };
        found.ok_or_else(|| {
            let image = self.parts.metadata.image();
            let exists = if id.is_zero() { image.topic(name).is_some() } else { image.topic_name(id).is_some() };
            match (exists, id.is_zero()) {
                (true, _) => ResponseError::NotLeaderOrFollower,
                (false, true) => ResponseError::UnknownTopicOrPartition,
                (false, false) => ResponseError::UnknownTopicId,
            }
        })
    }
}
