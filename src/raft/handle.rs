//! How the rest of the broker talks to the controller: one async function per request.
//!
//! An answer means: committed, applied, published, and every subscriber told (a created topic's log exists). Dropping
//! the future loses the answer, not the deed. A large request is asked in portions (`controller/portions.rs`), so that
//! others get their turn.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::control_records::VotersRecord;
use crate::{
    controller::{
        ApiError, ControllerRequest, ControllerSettings, Reply, Request,
        brokers::{BrokerHeartbeat, BrokerState, RegisterBroker, UnregisterBroker},
        client_quotas::{AlterClientQuotas, AlterClientQuotasReply},
        configs::{AlterConfigsReply, IncrementalAlterConfigs, LegacyAlterConfigs},
        features::UpdateFeatures,
        producer_ids::{AllocateProducerIds, ProducerIdsBlock},
        topics::{CreatePartitions, CreateTopics, CreatedTopic, DeleteTopics, DeletedTopic},
    },
    metadata::{
        image::{ClientQuotaEntity, MetadataImage},
        publisher::Publisher,
    },
    types::{BrokerId, LeaderEpoch, Offset, TimestampMs},
};

/// Why the controller did not decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    #[error("this node is not the active controller")]
    NotController(Option<BrokerId>),
    /// Nothing was decided.
    #[error("the metadata log cannot be written for now")]
    Shortage,
    /// Decided, and not written: it becomes true once the log can be written, unless the node stops before that.
    #[error("the metadata log cannot be written for now; the change may follow")]
    TimedOut,
    #[error("the controller has stopped")]
    Stopped,
}

impl From<Unavailable> for ApiError {
    fn from(reason: Unavailable) -> Self {
        match reason {
            Unavailable::NotController(_) => ApiError::code_only(ResponseError::NotController),
            Unavailable::Shortage => ApiError::new(
                ResponseError::KafkaStorageError,
                "The metadata log cannot be written for now (its disk is full, or files cannot be opened); nothing was changed. \
                 Topics can be deleted, and retention.ms and retention.bytes be lowered, to make room.",
            ),
            Unavailable::TimedOut => ApiError::new(
                ResponseError::RequestTimedOut,
                "The metadata log cannot be written for now (its disk is full, or files cannot be opened); the change is made when it can.",
            ),
            // Apache: what `EventHandlerExceptionInfo` makes of a controller that is going down.
            Unavailable::Stopped => ApiError::new(ResponseError::RequestTimedOut, "The controller is shutting down."),
        }
    }
}

/// One member of the quorum, as DescribeQuorum tells (A9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaInfo {
    pub id: BrokerId,
    pub directory_id: Uuid,
    pub log_end_offset: Offset,
    /// -1 where unknown.
    pub last_fetch_timestamp_ms: TimestampMs,
    pub last_caught_up_timestamp_ms: TimestampMs,
}

/// The quorum as its leader sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct QuorumInfo {
    pub leader_id: BrokerId,
    pub leader_epoch: LeaderEpoch,
    /// The offset behind the last committed record.
    pub high_watermark: Offset,
    pub voters: Vec<ReplicaInfo>,
    pub observers: Vec<ReplicaInfo>,
    /// Where the voters listen.
    pub endpoints: VotersRecord,
}

pub(super) type ReplySender = oneshot::Sender<Result<Reply, Unavailable>>;

/// Everything the driver reacts to.
pub(super) enum Event {
    Request(Request, ReplySender),
    DescribeQuorum(oneshot::Sender<Result<QuorumInfo, Unavailable>>),
    /// Time to try again what a full disk refused.
    Retry,
    Stop,
}

/// The way to the controller. Clones share it.
#[derive(Clone)]
pub struct ControllerHandle {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) settings: Arc<ControllerSettings>,
    /// True once the driver has ended.
    pub(super) ended: watch::Receiver<bool>,
}

impl ControllerHandle {
    /// The present image.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.publisher.image()
    }

    /// Asks the controller; the error is its absence.
    pub async fn call<R: ControllerRequest>(&self, request: R) -> Result<R::Reply, Unavailable> {
        let (sender, receiver) = oneshot::channel();
        self.events.send(Event::Request(request.into(), sender)).await.map_err(|_| Unavailable::Stopped)?;
        let reply = receiver.await.map_err(|_| Unavailable::Stopped)??;
        R::reply(reply).ok_or(Unavailable::Stopped)
    }

    pub async fn create_topics(
        &self,
        request: CreateTopics,
    ) -> Result<Vec<(String, Result<CreatedTopic, ApiError>)>, ApiError> {
        let made = request.into_portions(&self.settings)?;
        let mut replies = Vec::new();
        for (position, portion) in made.portions.into_iter().enumerate() {
            let names: Vec<String> = portion.topics.iter().map(|topic| topic.name.clone()).collect();
            match self.call(portion).await.map_err(ApiError::from).flatten() {
                Ok(mut decided) => replies.append(&mut decided),
                Err(error) if position == 0 => return Err(error),
                Err(error) => replies.extend(names.into_iter().map(|name| (name, Err(error.clone())))),
            }
        }
        let duplicate = |name| (name, Err(ApiError::invalid_request("Duplicate topic name.")));
        replies.extend(made.duplicates.into_iter().map(duplicate));
        Ok(replies)
    }

    pub async fn delete_topics(&self, request: DeleteTopics) -> Result<Vec<DeletedTopic>, ApiError> {
        let mut replies = Vec::new();
        for (position, portion) in request.into_portions(&self.image())?.into_iter().enumerate() {
            let topics = portion.topics.clone();
            match self.call(portion).await.map_err(ApiError::from).flatten() {
                Ok(mut decided) => replies.append(&mut decided),
                Err(error) if position == 0 => return Err(error),
                Err(error) => replies.extend(topics.into_iter().map(|topic| DeletedTopic {
                    name: topic.name,
                    topic_id: topic.topic_id,
                    result: Err(error.clone()),
                })),
            }
        }
        Ok(replies)
    }

    pub async fn create_partitions(
        &self,
        request: CreatePartitions,
    ) -> Result<Vec<(String, Result<(), ApiError>)>, ApiError> {
        let made = request.into_portions(&self.image())?;
        let duplicate = |name| (name, Err(ApiError::invalid_request("Duplicate topic name.")));
        let mut replies: Vec<_> = made.duplicates.into_iter().map(duplicate).collect();
        for (position, portion) in made.portions.into_iter().enumerate() {
            let names: Vec<String> = portion.topics.iter().map(|topic| topic.name.clone()).collect();
            match self.call(portion).await.map_err(ApiError::from).flatten() {
                Ok(mut decided) => replies.append(&mut decided),
                Err(error) if position == 0 => return Err(error),
                Err(error) => replies.extend(names.into_iter().map(|name| (name, Err(error.clone())))),
            }
        }
        Ok(replies)
    }

    pub async fn incremental_alter_configs(
        &self,
        request: IncrementalAlterConfigs,
    ) -> Result<AlterConfigsReply, ApiError> {
        self.alter_portions(request.into_portions()?, |portion| portion.resources.len()).await
    }

    pub async fn legacy_alter_configs(&self, request: LegacyAlterConfigs) -> Result<AlterConfigsReply, ApiError> {
        self.alter_portions(request.into_portions()?, |portion| portion.resources.len()).await
    }

    /// One decision after the other. If the controller is lost on the way, what is undecided fails.
    async fn alter_portions<R>(
        &self,
        portions: Vec<R>,
        resources: impl Fn(&R) -> usize,
    ) -> Result<AlterConfigsReply, ApiError>
    where
        R: ControllerRequest<Reply = AlterConfigsReply>,
    {
        let mut replies = Vec::new();
        for portion in portions {
            let count = resources(&portion);
            match self.call(portion).await {
                Ok(mut decided) => replies.append(&mut decided),
                Err(error) if replies.is_empty() => return Err(error.into()),
                Err(error) => replies.extend(vec![Err(error.into()); count]),
            }
        }
        Ok(replies)
    }

    pub async fn alter_client_quotas(&self, request: AlterClientQuotas) -> Result<AlterClientQuotasReply, ApiError> {
        let portions = match request.into_portions() {
            Ok(portions) => portions,
            Err((entities, error)) => {
                return Ok(entities.into_iter().map(|entity| (entity, Err(error.clone()))).collect());
            }
        };
        let mut replies = Vec::new();
        for portion in portions {
            let entities: Vec<ClientQuotaEntity> = portion.entities().collect();
            match self.call(portion).await {
                Ok(mut decided) => replies.append(&mut decided),
                Err(error) if replies.is_empty() => return Err(error.into()),
                Err(error) => replies.extend(entities.into_iter().map(|entity| (entity, Err(error.into())))),
            }
        }
        Ok(replies)
    }

    pub async fn allocate_producer_ids(&self, request: AllocateProducerIds) -> Result<ProducerIdsBlock, ApiError> {
        self.call(request).await?
    }

    pub async fn update_features(&self, request: UpdateFeatures) -> Result<(), ApiError> {
        self.call(request).await?
    }

    pub async fn register_broker(&self, request: RegisterBroker) -> Result<i64, ApiError> {
        self.call(request).await?
    }

    pub async fn broker_heartbeat(&self, request: BrokerHeartbeat) -> Result<BrokerState, ApiError> {
        self.call(request).await?
    }

    pub async fn unregister_broker(&self, request: UnregisterBroker) -> Result<(), ApiError> {
        self.call(request).await?
    }

    /// The quorum, for DescribeQuorum; only its leader knows.
    pub async fn describe_quorum(&self) -> Result<QuorumInfo, Unavailable> {
        let (sender, receiver) = oneshot::channel();
        self.events.send(Event::DescribeQuorum(sender)).await.map_err(|_| Unavailable::Stopped)?;
        receiver.await.map_err(|_| Unavailable::Stopped)?
    }

    /// Tells the driver to end, and waits until it has flushed and closed everything.
    pub async fn stop(&self) {
        // A closed channel means that it has ended already.
        let _ = self.events.send(Event::Stop).await;
        self.stopped().await;
    }

    /// Whether the driver has ended.
    pub fn is_stopped(&self) -> bool {
        *self.ended.borrow()
    }

    /// Ready once the driver has ended, be it by `stop` or by a fault of its disk: without it the broker cannot go on.
    pub async fn stopped(&self) {
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
    }
}
