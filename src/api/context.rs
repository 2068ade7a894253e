//! What a handler knows beside the request: who asks, over which listener, and the broker's parts.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kafka_protocol::{error::ResponseError, protocol::StrBytes};

use super::{
    Api,
    authorized::{
        AuthorizedCluster, AuthorizedConfig, AuthorizedGroup, AuthorizedTopic, AuthorizedTransactionalId, Denied,
        Found, Operation, ResourceKind,
    },
    groups::kept,
    topics::MAX_NAME_BYTES,
};
use crate::{
    config::{BrokerConfig, ConfigLayers, StaticConfigs},
    controller::topics::{CreatableTopic, CreateTopics, CreateTopicsReply},
    coordinator::runtime::GroupCoordinator,
    env::{Env, Tasks},
    log::LogManager,
    loggers::Loggers,
    metadata::{
        image::{BrokerRegistration, ConfigResource, ConfigResourceType, MetadataImage},
        publisher::Publisher,
    },
    metrics::{Metrics, RequestCounters},
    protocol::header::RequestHeader,
    raft::ControllerHandle,
    replica::{ReplicaManager, fetch_session::FetchSessionCache, producer_ids::ProducerIds},
    types::{TopicId, TopicPartition},
};

/// Handles to everything a handler may use. A plain struct: `broker.rs` builds it once.
pub struct Parts {
    /// Clock, disk, network, randomness, tasks.
    pub env: Env,
    /// The levels of log lines.
    pub loggers: Arc<Loggers>,
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
    /// Requests whose effect is not in its place yet.
    unordered: AtomicUsize,
}

impl ConnectionInfo {
    /// A connection that has not sent anything.
    pub fn new(client_address: SocketAddr, local_address: SocketAddr, listener: Arc<str>) -> ConnectionInfo {
        ConnectionInfo { client_address, local_address, listener, unordered: AtomicUsize::new(0) }
    }

    /// Until the guard is dropped, the connection starts no other request: what this one does comes first.
    pub(crate) fn hold_order(self: &Arc<Self>) -> OrderGuard {
        self.unordered.fetch_add(1, Ordering::Relaxed);
        OrderGuard(self.clone())
    }

    /// Whether a request holds up those behind it.
    pub(crate) fn is_order_held(&self) -> bool {
        self.unordered.load(Ordering::Relaxed) > 0
    }
}

/// See [`ConnectionInfo::hold_order`].
pub(crate) struct OrderGuard(Arc<ConnectionInfo>);

impl Drop for OrderGuard {
    fn drop(&mut self) {
        self.0.unordered.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One request's surroundings. It is the handler's own.
pub struct RequestContext {
    /// Private: what a client may not use without being allowed to is handed out by the methods below.
    parts: Arc<Parts>,
    /// The connection.
    pub connection: Arc<ConnectionInfo>,
    /// The row of the API.
    pub api: &'static Api,
    /// The version that the request is of, and the answer will be.
    pub api_version: i16,
    /// As the client calls itself; empty where it does not.
    pub client_id: StrBytes,
    /// Of the request's frame, in memory for as long as any slice of it is.
    pub request_bytes: usize,
    /// The part of the memory for requests that this one holds. Given back when the handler ends, or earlier.
    memory: Option<Box<dyn Send + Sync>>,
}

impl RequestContext {
    pub(crate) fn new(
        parts: Arc<Parts>,
        connection: Arc<ConnectionInfo>,
        api: &'static Api,
        header: RequestHeader,
        request_bytes: usize,
        memory: Option<Box<dyn Send + Sync>>,
    ) -> RequestContext {
        let RequestHeader { api_version, client_id, .. } = header;
        RequestContext { parts, connection, api, api_version, client_id, request_bytes, memory }
    }

    /// For a handler that keeps nothing of the request's frame and is about to wait.
    pub(crate) fn release_request_memory(&mut self) {
        self.memory = None;
    }

    /// What answering takes after the handler has ended.
    pub(super) fn answering(&self) -> Answering {
        Answering { parts: self.parts.clone() }
    }

    /// Clock, network, randomness, tasks.
    pub(crate) fn env(&self) -> &Env {
        &self.parts.env
    }

    /// Tasks of the broker.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.parts.env.tasks
    }

    /// Tasks of listeners and connections, which stop first.
    pub(crate) fn network(&self) -> &Tasks {
        &self.parts.network
    }

    /// The broker's settings as they were at start.
    pub(crate) fn config(&self) -> &BrokerConfig {
        &self.parts.config
    }

    /// The broker's settings with the dynamic ones of `image`.
    pub(crate) fn config_layers<'a>(&'a self, image: &'a MetadataImage) -> ConfigLayers<'a> {
        self.parts.config_layers(image)
    }

    /// What the cluster knows. It names resources and reaches none.
    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        self.parts.metadata.image()
    }

    /// Whether this broker has the partition; else what to tell the client.
    pub(crate) fn is_hosted(&self, partition: &TopicPartition) -> Result<(), ResponseError> {
        self.find_topic(&partition.topic).partition(partition.partition).map(|_| ())
    }

    /// What consumers fetch.
    pub(crate) fn fetch_sessions(&self) -> &FetchSessionCache {
        &self.parts.fetch_sessions
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    /// The partition of `__consumer_offsets` that a group belongs to.
    pub(crate) fn partition_for_group(&self, group_id: &str) -> i32 {
        self.parts.groups.partition_for(group_id)
    }

    /// Has the broker itself create what a request needs: its internal topics, or topics that Kafka creates when they
    /// are first asked for. What the client may create, it has asked before.
    pub(crate) async fn create_for_request(&self, topics: Vec<CreatableTopic>) -> CreateTopicsReply {
        self.parts.controller.create_topics(CreateTopics { topics, validate_only: false }).await
    }

    /// Waits for `ready`, but not longer than this.
    pub(crate) async fn wait_at_most(&self, timeout_ms: i32, ready: impl Future<Output = ()>) {
        let clock = &self.env().clock;
        let deadline = clock.monotonic() + Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        tokio::select! {
            biased;
            () = ready => {}
            () = clock.sleep_until(deadline) => {}
        }
    }

    /// Where this client reaches a broker: its endpoint of the listener that the request came in on (M4).
    pub(crate) fn endpoint_of(&self, broker: &BrokerRegistration) -> Option<(StrBytes, i32)> {
        let endpoint = broker.endpoint(&self.connection.listener)?;
        if endpoint.host.is_empty() {
            let reached = self.connection.local_address;
            return Some((StrBytes::from_string(reached.ip().to_canonical().to_string()), reached.port().into()));
        }
        Some((StrBytes::from_string(endpoint.host.clone()), endpoint.port.into()))
    }

    /// The one place where an authorizer is asked.
    fn authorize(&self, operation: Operation, kind: ResourceKind, _name: &str) -> Result<(), Denied> {
        debug_assert!(
            self.api.needs.contains(&(operation, kind)),
            "{} asks for {operation:?} on a {kind:?}, which its row does not tell",
            self.api.name
        );
        Ok(())
    }

    /// The topic of that name, wherever it is.
    pub(crate) fn topic(&self, operation: Operation, name: &str) -> Result<AuthorizedTopic, ResponseError> {
        self.authorize(operation, ResourceKind::Topic, name)?;
        Ok(self.find_topic(name))
    }

    fn find_topic(&self, name: &str) -> AuthorizedTopic {
        // A name that no topic can have is not worth hashing: it may be long, and asked for often.
        let local = if name.len() > MAX_NAME_BYTES { None } else { self.parts.replica_manager.topic(name) };
        let found = match local {
            Some(local) => Found::Local(local),
            None => match self.image().topic(name) {
                Some(topic) => Found::Elsewhere(topic.clone()),
                None => Found::Nowhere(ResponseError::UnknownTopicOrPartition),
            },
        };
        AuthorizedTopic::new(found, self.parts.clone())
    }

    /// The topic of that id, wherever it is.
    pub(crate) fn topic_by_id(&self, operation: Operation, id: TopicId) -> Result<AuthorizedTopic, ResponseError> {
        let found = match self.parts.replica_manager.topic_by_id(id) {
            Some(local) => Found::Local(local),
            None => match self.image().topic_by_id(id) {
                Some(topic) => Found::Elsewhere(topic.clone()),
                None => Found::Nowhere(ResponseError::UnknownTopicId),
            },
        };
        match &found {
            Found::Local(topic) => self.authorize(operation, ResourceKind::Topic, &topic.name)?,
            Found::Elsewhere(topic) => self.authorize(operation, ResourceKind::Topic, &topic.name)?,
            Found::Nowhere(_) => {}
        }
        Ok(AuthorizedTopic::new(found, self.parts.clone()))
    }

    /// The group.
    pub(crate) fn group(&self, operation: Operation, id: &str) -> Result<AuthorizedGroup<'_>, Denied> {
        self.authorize(operation, ResourceKind::Group, id)?;
        Ok(AuthorizedGroup { parts: &self.parts, id: kept(id) })
    }

    /// The cluster.
    pub(crate) fn cluster(&self, operation: Operation) -> Result<AuthorizedCluster<'_>, Denied> {
        self.authorize(operation, ResourceKind::Cluster, "kafka-cluster")?;
        Ok(AuthorizedCluster { parts: &self.parts })
    }

    /// The transactional id.
    pub(crate) fn transactional_id(&self, operation: Operation, id: &str) -> Result<AuthorizedTransactionalId, Denied> {
        self.authorize(operation, ResourceKind::TransactionalId, id)?;
        Ok(AuthorizedTransactionalId)
    }

    /// The settings of a topic, a group, or of brokers and anything else that belongs to the cluster.
    pub(crate) fn config_resource(
        &self,
        operation: Operation,
        resource_type: ConfigResourceType,
        name: &str,
    ) -> Result<AuthorizedConfig<'_>, ResponseError> {
        Ok(match resource_type {
            ConfigResourceType::Topic => AuthorizedConfig::Topic(self.topic(operation, name)?),
            ConfigResourceType::Group => AuthorizedConfig::Group(self.group(operation, name)?),
            _ => AuthorizedConfig::Cluster(self.cluster(operation)?),
        })
    }
}

/// See [`RequestContext::answering`].
pub(super) struct Answering {
    parts: Arc<Parts>,
}

impl Answering {
    pub(super) fn request_counters(&self) -> &RequestCounters {
        &self.parts.metrics.requests
    }

    /// Nobody is throttled: quotas are not enforced yet.
    pub(super) fn throttle_time_ms(&self) -> i32 {
        0
    }
}
