//! Proofs that a client may do what it asks for. Resources are reached only through them, so a handler that forgets to
//! ask does not compile.
//!
//! [`RequestContext`](super::RequestContext) hands them out. Without an authorizer everybody may do everything.

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

/// What may be done with a resource; the names of Kafka's `AclOperation`.
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

/// The client may not do this.
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

/// A topic that the client may use as it asked.
#[derive(Clone)]
pub(crate) struct AuthorizedTopic {
    found: Found,
    parts: Arc<Parts>,
}

/// Where a topic is.
#[derive(Clone)]
pub(super) enum Found {
    /// This broker has partitions of it.
    Local(Arc<LocalTopic>),
    /// Only other brokers have.
    Elsewhere(Arc<TopicImage>),
    /// There is no such topic; what the client is told.
    Nowhere(ResponseError),
}

impl AuthorizedTopic {
    pub(super) fn new(found: Found, parts: Arc<Parts>) -> AuthorizedTopic {
        AuthorizedTopic { found, parts }
    }

    /// What this broker has of the topic.
    pub(crate) fn local(&self) -> Result<&Arc<LocalTopic>, ResponseError> {
        match &self.found {
            Found::Local(topic) => Ok(topic),
            Found::Elsewhere(_) => Err(ResponseError::NotLeaderOrFollower),
            Found::Nowhere(error) => Err(*error),
        }
    }

    /// The partition, if this broker has it; else what to tell the client (P6).
    pub(crate) fn partition(&self, index: i32) -> Result<Arc<Partition>, ResponseError> {
        let exists = match &self.found {
            Found::Local(topic) => match topic.partition(index) {
                Some(Hosted::Online(partition)) => return Ok(partition),
                Some(Hosted::Offline) => return Err(ResponseError::KafkaStorageError),
                // Its leader is about to be ready: clients ask again.
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

    /// Who changes the topic.
    pub(crate) fn controller(&self) -> &ControllerHandle {
        &self.parts.controller
    }
}

/// The partition of a topic that the client may or may not use.
pub(crate) fn partition_of(
    topic: &Result<AuthorizedTopic, ResponseError>,
    index: i32,
) -> Result<Arc<Partition>, ResponseError> {
    topic.as_ref().map_err(|error| *error).and_then(|topic| topic.partition(index))
}

/// A group that the client may use as it asked.
pub(crate) struct AuthorizedGroup<'a> {
    pub(super) parts: &'a Parts,
    /// Kept, not a slice of the request.
    pub(crate) id: Arc<str>,
}

impl AuthorizedGroup<'_> {
    /// Who coordinates the group, if this broker does.
    pub(crate) fn coordinator(&self) -> &GroupCoordinator {
        &self.parts.groups
    }

    /// Who changes the group's settings.
    pub(crate) fn controller(&self) -> &ControllerHandle {
        &self.parts.controller
    }
}

/// The client may do with the cluster what it asked.
pub(crate) struct AuthorizedCluster<'a> {
    pub(super) parts: &'a Parts,
}

impl AuthorizedCluster<'_> {
    /// Who changes the cluster.
    pub(crate) fn controller(&self) -> &ControllerHandle {
        &self.parts.controller
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

/// A transactional id that the client may use as it asked.
pub(crate) struct AuthorizedTransactionalId;

/// A resource whose settings the client may see or change, as it asked.
pub(crate) enum AuthorizedConfig<'a> {
    Topic(AuthorizedTopic),
    Group(AuthorizedGroup<'a>),
    Cluster(AuthorizedCluster<'a>),
}

impl AuthorizedConfig<'_> {
    /// Who changes the settings.
    pub(crate) fn controller(&self) -> &ControllerHandle {
        match self {
            AuthorizedConfig::Topic(topic) => topic.controller(),
            AuthorizedConfig::Group(group) => group.controller(),
            AuthorizedConfig::Cluster(cluster) => cluster.controller(),
        }
    }

    /// The levels of this broker's log lines, which belong to the cluster.
    pub(crate) fn loggers(&self) -> Result<&Loggers, Denied> {
        match self {
            AuthorizedConfig::Cluster(cluster) => Ok(cluster.loggers()),
            AuthorizedConfig::Topic(_) | AuthorizedConfig::Group(_) => Err(Denied(ResourceKind::Cluster)),
        }
    }
}
