//! Types that prove an authorization. Handlers reach resources only through them, so a handler that forgets to
//! authorize does not compile.
//!
//! [`RequestContext`](super::RequestContext) creates them. There is no authorizer yet, so every client may do
//! everything.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;

use super::Parts;
use crate::{
    controller::ApiError,
    coordinator::{group::GroupError, runtime::GroupCoordinator},
    log::LogManager,
    loggers::Loggers,
    metadata::image::TopicImage,
    raft::ControllerHandle,
    replica::{
        Partition, ReplicaManager,
        producer_ids::ProducerIds,
        replica_manager::{Hosted, LocalTopic},
    },
};

/// Operations on a resource; the names of Kafka's `AclOperation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Alter,
    AlterConfigs,
    ClusterAction,
    Create,
    Delete,
    Describe,
    DescribeConfigs,
    IdempotentWrite,
    Read,
    Write,
}

/// Kinds of resources; the names of Kafka's `ResourceType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    Cluster,
    Group,
    Topic,
    TransactionalId,
}

/// The client is not authorized for a resource of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denied(pub(crate) ResourceKind);

impl From<Denied> for ResponseError {
    fn from(denied: Denied) -> ResponseError {
        match denied.0 {
            ResourceKind::Cluster => ResponseError::ClusterAuthorizationFailed,
            ResourceKind::Group => ResponseError::GroupAuthorizationFailed,
            ResourceKind::Topic => ResponseError::TopicAuthorizationFailed,
            ResourceKind::TransactionalId => ResponseError::TransactionalIdAuthorizationFailed,
        }
    }
}

impl From<Denied> for GroupError {
    fn from(_: Denied) -> GroupError {
        GroupError::GroupAuthorizationFailed
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> ApiError {
        ApiError::code_only(denied.into())
    }
}

impl From<ResponseError> for ApiError {
    fn from(error: ResponseError) -> ApiError {
        ApiError::code_only(error)
    }
}

/// A topic on which the client may do the requested operation.
#[derive(Clone)]
pub(crate) struct AuthorizedTopic {
    found: Found,
    parts: Arc<Parts>,
}

/// Where a topic is.
#[derive(Clone)]
pub(super) enum Found {
    /// This broker has partitions of the topic.
    Local(Arc<LocalTopic>),
    /// Only other brokers have partitions of the topic.
    Elsewhere(Arc<TopicImage>),
    /// There is no such topic; the client gets this error.
    Nowhere(ResponseError),
}

impl AuthorizedTopic {
    pub(super) fn new(found: Found, parts: Arc<Parts>) -> AuthorizedTopic {
        AuthorizedTopic { found, parts }
    }

    /// Returns the part of the topic that this broker hosts.
    pub(crate) fn local(&self) -> Result<&Arc<LocalTopic>, ResponseError> {
        match &self.found {
            Found::Local(topic) => Ok(topic),
            Found::Elsewhere(_) => Err(ResponseError::NotLeaderOrFollower),
            Found::Nowhere(error) => Err(*error),
        }
    }

    /// Returns the partition if this broker hosts it, else the error for the client (P6).
    pub(crate) fn partition(&self, index: i32) -> Result<Arc<Partition>, ResponseError> {
        let exists = match &self.found {
            Found::Local(topic) => match topic.partition(index) {
                Some(Hosted::Online(partition)) => return Ok(partition),
                Some(Hosted::Offline) => return Err(ResponseError::KafkaStorageError),
                // The leader is ready soon; clients retry on this error.
                Some(Hosted::Opening) => return Err(ResponseError::NotLeaderOrFollower),
                None => self.parts.metadata.image().partition(&topic.name, index).is_some(),
            },
            Found::Elsewhere(topic) => topic.partitions.contains_key(&index),
            Found::Nowhere(error) => return Err(*error),
        };
        Err(if exists { ResponseError::NotLeaderOrFollower } else { ResponseError::UnknownTopicOrPartition })
    }

    /// The partitions of this broker.
    pub(crate) fn replica_manager(&self) -> &ReplicaManager {
        &self.parts.replica_manager
    }

    /// The controller, which changes the topic.
    pub(crate) fn controller(&self) -> &ControllerHandle {
        &self.parts.controller
    }
}

/// Returns the partition of a topic, or the error of the topic if the client may not use it.
pub(crate) fn partition_of(
    topic: &Result<AuthorizedTopic, ResponseError>,
    index: i32,
) -> Result<Arc<Partition>, ResponseError> {
    topic.as_ref().map_err(|error| *error).and_then(|topic| topic.partition(index))
}

/// A group on which the client may do the requested operation.
pub(crate) struct AuthorizedGroup<'a> {
    pub(super) parts: &'a Parts,
    /// A copy, so that it does not keep the request's buffer alive.
    pub(crate) id: Arc<str>,
}

impl AuthorizedGroup<'_> {
    /// The coordinator of the groups on this broker.
    pub(crate) fn coordinator(&self) -> &GroupCoordinator {
        &self.parts.groups
    }

    /// The controller, which changes the group's settings.
    pub(crate) fn controller(&self) -> &ControllerHandle {
        &self.parts.controller
    }
}

/// The client may do the requested operation on the cluster.
pub(crate) struct AuthorizedCluster<'a> {
    pub(super) parts: &'a Parts,
}

impl AuthorizedCluster<'_> {
    /// The controller, which changes the cluster.
    pub(crate) fn controller(&self) -> &ControllerHandle {
        &self.parts.controller
    }

    /// Refuses a request for another cluster.
    pub(crate) fn check_cluster_id(&self, requested: Option<&str>) -> Result<(), ResponseError> {
        let own = self.parts.log_manager.cluster_id();
        match requested {
            Some(requested) if own.as_deref() != Some(requested) => Err(ResponseError::InconsistentClusterId),
            _ => Ok(()),
        }
    }

    /// The log directories of this broker.
    pub(crate) fn log_manager(&self) -> &Arc<LogManager> {
        &self.parts.log_manager
    }

    /// The partitions of this broker.
    pub(crate) fn replica_manager(&self) -> &ReplicaManager {
        &self.parts.replica_manager
    }

    /// The levels of this broker's log lines.
    pub(crate) fn loggers(&self) -> &Loggers {
        &self.parts.loggers
    }

    /// All groups that this broker coordinates.
    pub(crate) fn groups(&self) -> &GroupCoordinator {
        &self.parts.groups
    }

    /// Ids for producers without transactions.
    pub(crate) fn producer_ids(&self) -> &ProducerIds {
        &self.parts.producer_ids
    }
}

/// A transactional id on which the client may do the requested operation.
pub(crate) struct AuthorizedTransactionalId;

/// A resource whose settings the client may read or change, as requested.
pub(crate) enum AuthorizedConfig<'a> {
    Topic(AuthorizedTopic),
    Group(AuthorizedGroup<'a>),
    Cluster(AuthorizedCluster<'a>),
}

impl AuthorizedConfig<'_> {
    /// The controller, which changes the settings.
    pub(crate) fn controller(&self) -> &ControllerHandle {
        match self {
            AuthorizedConfig::Topic(topic) => topic.controller(),
            AuthorizedConfig::Group(group) => group.controller(),
            AuthorizedConfig::Cluster(cluster) => cluster.controller(),
        }
    }

    /// The levels of this broker's log lines, for which the client must be authorized on the cluster.
    pub(crate) fn loggers(&self) -> Result<&Loggers, Denied> {
        match self {
            AuthorizedConfig::Cluster(cluster) => Ok(cluster.loggers()),
            AuthorizedConfig::Topic(_) | AuthorizedConfig::Group(_) => Err(Denied(ResourceKind::Cluster)),
        }
    }
}
