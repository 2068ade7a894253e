//! The context of a request: the connection, the listener, and the broker's parts that a handler may use.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    protocol::{Decodable, Request, StrBytes},
};

use super::{
    Api,
    authorized::{
        AuthorizedCluster, AuthorizedConfig, AuthorizedGroup, AuthorizedTopic, AuthorizedTransactionalId, Denied,
        Found, Operation, ResourceKind,
    },
    create_topics,
    groups::kept,
    topics::MAX_NAME_BYTES,
};
use crate::{
    config::{BrokerConfig, ConfigLayers, StaticConfigs},
    controller::ApiError,
    controller::topics::{CreatableTopic, CreateTopics, CreateTopicsReply},
    coordinator::runtime::GroupCoordinator,
    env::{Env, Tasks},
    log::LogManager,
    loggers::Loggers,
    metadata::{
        image::{BrokerRegistration, ConfigResource, ConfigResourceType, MetadataImage},
        liveness::Liveness,
        publisher::Publisher,
    },
    metrics::{Metrics, RequestCounters},
    peer::Wire,
    protocol::header::RequestHeader,
    raft::{Active, ControllerChannel, ControllerHandle, Unavailable},
    replica::{ReplicaManager, fetch_session::FetchSessionCache, producer_ids::ProducerIds},
    types::{BrokerId, TopicId, TopicPartition},
};

/// A request that must go to the active controller waits this long for one that can be reached.
const FORWARD_LIMIT: Duration = Duration::from_secs(5);
/// The wait before the next attempt.
const FORWARD_RETRY: Duration = Duration::from_millis(50);

/// Handles to everything a handler may use. A plain struct: `broker.rs` builds it once.
pub struct Parts {
    /// Clock, disk, network, randomness, tasks.
    pub env: Env,
    /// The levels of log lines.
    pub loggers: Arc<Loggers>,
    /// The tasks of listeners and connections, which stop first.
    pub network: Tasks,
    /// The broker's static settings, as they were at start.
    pub config: Arc<BrokerConfig>,
    /// The static settings with their sources, for DescribeConfigs.
    pub statics: Arc<StaticConfigs>,
    /// The current metadata image, and the subscribers to new images.
    pub metadata: Arc<Publisher>,
    /// The controller.
    pub controller: ControllerHandle,
    /// The way to the active controller, wherever it is.
    pub channel: Arc<ControllerChannel>,
    /// Log directories.
    pub log_manager: Arc<LogManager>,
    /// Partitions.
    pub replica_manager: Arc<ReplicaManager>,
    /// Groups.
    pub groups: Arc<GroupCoordinator>,
    /// Fetch sessions.
    pub fetch_sessions: FetchSessionCache,
    /// Ids for idempotent producers.
    pub producer_ids: ProducerIds,
    /// Metrics.
    pub metrics: Metrics,
}

impl Parts {
    /// This broker's settings. The dynamic settings of the image override the static ones.
    pub(crate) fn config_layers<'a>(&'a self, image: &'a MetadataImage) -> ConfigLayers<'a> {
        let broker = ConfigResource::broker(self.config.node_id);
        ConfigLayers::new(&self.statics, image.config(&ConfigResource::default_broker()), image.config(&broker))
    }
}

/// Whom a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// Clients and other brokers.
    Broker,
    /// Brokers and voters that need the controller (`controller.listener.names`).
    Controller,
}

/// The facts that are the same for all requests of a connection.
pub struct ConnectionInfo {
    /// The address of the client.
    pub client_address: SocketAddr,
    /// The address on which the client reached the broker. It is advertised if `advertised.listeners` is unset.
    pub local_address: SocketAddr,
    /// The listener's name, `PLAINTEXT` by default.
    pub listener: Arc<str>,
    /// Whom that listener serves.
    pub kind: ListenerKind,
    /// The number of requests whose effects must be ordered before the connection starts the next request.
    unordered: AtomicUsize,
    /// The broker that has opened it, if it said so.
    node: OnceLock<BrokerId>,
    /// When a fetch request of a follower was last answered here: monotonic nanoseconds, 0 for never.
    follower_answered_at: AtomicU64,
}

impl ConnectionInfo {
    /// A connection without any request yet.
    pub fn new(
        client_address: SocketAddr,
        local_address: SocketAddr,
        listener: Arc<str>,
        kind: ListenerKind,
    ) -> ConnectionInfo {
        ConnectionInfo {
            client_address,
            local_address,
            listener,
            kind,
            unordered: AtomicUsize::new(0),
            node: OnceLock::new(),
            follower_answered_at: AtomicU64::new(0),
        }
    }

    /// A broker keeps this connection to the controller for as long as it lives. The first that says so counts.
    pub(crate) fn belongs_to(&self, node: BrokerId) {
        let _ = self.node.set(node);
    }

    /// The broker that has opened this connection to the controller, if one did.
    pub(crate) fn node(&self) -> Option<BrokerId> {
        self.node.get().copied()
    }

    /// Until the guard is dropped, the connection starts no other request, so the effects of this one come first.
    pub(crate) fn hold_order(self: &Arc<Self>) -> OrderGuard {
        self.unordered.fetch_add(1, Ordering::Relaxed);
        OrderGuard(self.clone())
    }

    /// Whether a request holds back the requests after it.
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

/// The context of one request. The handler owns it.
pub struct RequestContext {
    /// Private: handlers get resources from the methods below, which check the client's authorization.
    parts: Arc<Parts>,
    /// The connection.
    pub connection: Arc<ConnectionInfo>,
    /// The row of the API in the table.
    pub api: &'static Api,
    /// The version of the request, and of the response.
    pub api_version: i16,
    /// The client id of the request header; empty if absent.
    pub client_id: StrBytes,
    /// The size of the request's frame, which stays in memory for as long as any slice of it does.
    pub request_bytes: usize,
    /// This request's share of the memory for requests. It is released when the handler ends, or earlier.
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

    /// For a handler that keeps no slice of the request's frame and is about to wait.
    pub(crate) fn release_request_memory(&mut self) {
        self.memory = None;
    }

    /// The parts that the response needs after the handler has ended.
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

    /// The broker's static settings, as they were at start.
    pub(crate) fn config(&self) -> &BrokerConfig {
        &self.parts.config
    }

    /// The broker's settings with the dynamic ones of `image`.
    pub(crate) fn config_layers<'a>(&'a self, image: &'a MetadataImage) -> ConfigLayers<'a> {
        self.parts.config_layers(image)
    }

    /// Whether the cluster consists of this node.
    pub(crate) fn has_one_node(&self) -> bool {
        self.parts.controller.addresses().voters().voters.len() < 2 && self.image().brokers.len() < 2
    }

    /// The controllers with the addresses of their listeners. One without an address is where the client has reached
    /// it.
    pub(crate) fn controllers(&self) -> Vec<(BrokerId, String, u16)> {
        let controllers = self.parts.controller.addresses().controllers();
        if controllers.is_empty() {
            let address = self.connection.local_address;
            return vec![(self.config().node_id, address.ip().to_canonical().to_string(), address.port())];
        }
        controllers.into_iter().map(|(id, endpoint)| (id, endpoint.host, endpoint.port)).collect()
    }

    /// The active controller, as far as this node knows.
    pub(crate) fn active_controller(&self) -> Option<BrokerId> {
        self.parts.controller.leader()
    }

    /// The current metadata image. It describes resources but gives no access to them.
    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        self.parts.metadata.image()
    }

    /// What this broker has noticed of the life of others.
    pub(crate) fn liveness(&self) -> &Liveness {
        self.parts.replica_manager.liveness()
    }

    /// Returns Ok if this broker hosts the partition, else the error for the client.
    pub(crate) fn is_hosted(&self, partition: &TopicPartition) -> Result<(), ResponseError> {
        self.find_topic(&partition.topic).partition(partition.partition).map(|_| ())
    }

    /// Another broker has sent a fetch request as a follower. It had the answer to its former one on this connection,
    /// for it sends one after the other.
    pub(crate) fn on_follower_fetch(&self, broker: BrokerId) {
        let answered_at = self.connection.follower_answered_at.load(Ordering::Acquire);
        let answered_at = (answered_at > 0).then(|| Duration::from_nanos(answered_at));
        self.parts.replica_manager.on_fetch_request(broker, answered_at);
    }

    /// Waits until the follower of this connection is to get an answer at once, since a leader here wants to know
    /// whether it follows.
    pub(crate) async fn follower_answer_wanted(&self) {
        let answered_at = self.connection.follower_answered_at.load(Ordering::Acquire);
        self.parts.replica_manager.answer_wanted(Duration::from_nanos(answered_at)).await;
    }

    /// That request is answered.
    pub(crate) fn on_follower_answered(&self) {
        let now = self.env().clock.monotonic().as_nanos();
        self.connection.follower_answered_at.store(u64::try_from(now).unwrap_or(0), Ordering::Release);
    }

    /// The fetch sessions of consumers.
    pub(crate) fn fetch_sessions(&self) -> &FetchSessionCache {
        &self.parts.fetch_sessions
    }

    /// The broker's metrics.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    /// The partition of `__consumer_offsets` that a group belongs to.
    pub(crate) fn partition_for_group(&self, group_id: &str) -> i32 {
        self.parts.groups.partition_for(group_id)
    }

    /// Creates topics that a request needs on behalf of the broker: internal topics, or topics that are created
    /// automatically at first use. The caller has authorized the client before.
    pub(crate) async fn create_for_request(&self, topics: Vec<CreatableTopic>) -> CreateTopicsReply {
        let request = CreateTopics { topics, validate_only: false };
        match self.parts.channel.active() {
            Some(Active::At(node)) => create_topics::ask(&self.parts.channel, node, &request).await,
            _ => self.parts.controller.create_topics(request).await,
        }
    }

    /// Sends the body of a request to the active controller, if that is on another node. Returns the body of the
    /// response; `None` if this node must answer itself. While no controller can be reached, another attempt follows,
    /// as with Kafka's forwarding.
    pub(super) async fn forward(&self, body: &Bytes) -> Option<Bytes> {
        let wire = Wire::new(self.api.key, self.api_version, self.api.versions.is_flexible(self.api_version));
        let clock = &self.env().clock;
        let deadline = clock.monotonic() + FORWARD_LIMIT;
        loop {
            match self.parts.channel.active() {
                Some(Active::Here) => return None,
                Some(Active::At(node)) => {
                    if let Ok(response) = self.parts.channel.exchange(node, wire, body.clone()).await {
                        return Some(response);
                    }
                }
                None => {}
            }
            if clock.monotonic() >= deadline {
                // This node answers that it is not the controller, and the client may try again.
                return None;
            }
            clock.sleep_until(clock.monotonic() + FORWARD_RETRY).await;
        }
    }

    /// Like [`forward`](Self::forward), for what is left of a request when this broker has done its own part of it.
    pub(super) async fn forward_rest<R: Request>(
        &self,
        rest: impl FnOnce() -> R,
    ) -> Result<Option<R::Response>, ApiError> {
        let is_broker = self.connection.kind == ListenerKind::Broker;
        if !is_broker || self.parts.channel.active() == Some(Active::Here) {
            return Ok(None);
        }
        let unknown = |_| ApiError::code_only(ResponseError::UnknownServerError);
        let (_, body) = Wire::encode(self.api_version, &rest()).map_err(unknown)?;
        match self.forward(&body.freeze()).await {
            Some(mut response) => {
                let response = R::Response::decode(&mut response, self.api_version);
                response.map(Some).map_err(|_| ApiError::code_only(ResponseError::UnknownServerError))
            }
            None => Ok(None),
        }
    }

    /// Refuses a request on a controller listener if another node is the active controller, since this one may know
    /// older metadata.
    pub(crate) fn check_active_controller(&self) -> Result<(), ApiError> {
        match (self.connection.kind, self.parts.channel.active()) {
            (ListenerKind::Broker, _) | (_, Some(Active::Here)) => Ok(()),
            (_, Some(Active::At(node))) => Err(Unavailable::NotController(Some(node)).into()),
            (_, None) => Err(Unavailable::NotController(None).into()),
        }
    }

    /// Waits until another node is the active controller.
    pub(crate) async fn led_by_another(&self) {
        self.parts.controller.led_by_another().await;
    }

    /// Sends a request of this API to the active controller on another node.
    pub(crate) async fn ask_controller<R: Request>(&self, request: &R) -> Result<R::Response, ApiError> {
        match self.parts.channel.active() {
            Some(Active::At(node)) => self.parts.channel.call(node, self.api_version, request).await,
            _ => Err(ApiError::code_only(ResponseError::NotController)),
        }
    }

    /// Waits for `ready`, at most for `timeout_ms`.
    pub(crate) async fn wait_at_most(&self, timeout_ms: i32, ready: impl Future<Output = ()>) {
        let clock = &self.env().clock;
        let deadline = clock.monotonic() + Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        tokio::select! {
            biased;
            () = ready => {}
            () = clock.sleep_until(deadline) => {}
        }
    }

    /// The host and port by which this client reaches a broker: the broker's endpoint of the listener that the request
    /// came in on (M4).
    pub(crate) fn endpoint_of(&self, broker: &BrokerRegistration) -> Option<(StrBytes, i32)> {
        let endpoint = broker.endpoint(&self.connection.listener)?;
        if endpoint.host.is_empty() {
            let reached = self.connection.local_address;
            return Some((StrBytes::from_string(reached.ip().to_canonical().to_string()), reached.port().into()));
        }
        Some((StrBytes::from_string(endpoint.host.clone()), endpoint.port.into()))
    }

    /// The only place that will ask an authorizer.
    fn authorize(&self, operation: Operation, kind: ResourceKind, _name: &str) -> Result<(), Denied> {
        debug_assert!(
            self.api.needs.contains(&(operation, kind)),
            "{} asks for {operation:?} on a {kind:?}, but its row of the table does not list it",
            self.api.name
        );
        Ok(())
    }

    /// The topic with this name, on this broker or another.
    pub(crate) fn topic(&self, operation: Operation, name: &str) -> Result<AuthorizedTopic, ResponseError> {
        self.authorize(operation, ResourceKind::Topic, name)?;
        Ok(self.find_topic(name))
    }

    fn find_topic(&self, name: &str) -> AuthorizedTopic {
        // A name that is too long for a topic is not hashed: that would be slow, and clients may repeat it often.
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

    /// The topic with this id, on this broker or another.
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

    /// The group with this id.
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

    /// The settings of a topic, of a group, or of the cluster (for brokers and all other types).
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

    /// Always 0, because quotas are not enforced yet.
    pub(super) fn throttle_time_ms(&self) -> i32 {
        0
    }
}
