//! The interface to the controller for the rest of the broker: one async function per request.
//!
//! When a call returns, the change is committed, applied and published, and every subscriber has handled it (a created
//! topic's log exists). Dropping the future loses the reply, but the change still happens. A large request is sent in
//! portions (`controller/portions.rs`), so that other requests get their turn.

use std::{
    io,
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use kafka_protocol::error::ResponseError;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{
    addresses::Addresses,
    control_records::VotersRecord,
    driver::{
        Asked, MetadataFetch, MetadataFetchReply, Observed, Position, VoterChange, VoterChangeError, VoterChangeSender,
    },
    snapshot::Snapshot,
    snapshot_fetch::{PieceError, PieceRequest, PieceResponse, SnapshotFiles},
};
use crate::{
    config::Endpoint,
    controller::{
        ApiError, ControllerRequest, ControllerSettings, Reply, Request,
        brokers::{BrokerHeartbeat, BrokerState, RegisterBroker, UnregisterBroker, Unregistration},
        client_quotas::{AlterClientQuotas, AlterClientQuotasReply},
        configs::{AlterConfigsReply, IncrementalAlterConfigs, LegacyAlterConfigs},
        features::UpdateFeatures,
        producer_ids::{AllocateProducerIds, ProducerIdsBlock},
        topics::{CreatePartitions, CreateTopics, CreatedTopic, DeleteTopics, DeletedTopic},
    },
    env::{Env, Watched},
    metadata::{
        image::{ClientQuotaEntity, MetadataImage},
        publisher::Publisher,
    },
    protocol::quorum_messages::QuorumMessagesRequest,
    types::{BrokerId, LeaderEpoch, Offset, TimestampMs},
};

/// Why the controller did not decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    #[error("this node is not the active controller")]
    NotController(Option<BrokerId>),
    /// The request was not decided, so nothing will change.
    #[error("the metadata log cannot be written for now")]
    Shortage,
    /// The request was decided but not written. The change happens once the log can be written, unless the node stops
    /// before.
    #[error("the metadata log cannot be written for now; the change may follow")]
    TimedOut,
    #[error("the controller has stopped")]
    Stopped,
}

impl From<Unavailable> for ApiError {
    fn from(reason: Unavailable) -> Self {
        match reason {
            // As Apache's `ControllerExceptions.newWrongControllerException`.
            Unavailable::NotController(Some(active)) => ApiError::new(
                ResponseError::NotController,
                format!("The active controller appears to be node {active}."),
            ),
            Unavailable::NotController(None) => {
                ApiError::new(ResponseError::NotController, "No controller appears to be active.")
            }
            Unavailable::Shortage => ApiError::new(
                ResponseError::KafkaStorageError,
                "The metadata log cannot be written for now (its disk is full, or files cannot be opened); nothing was changed. \
                 Topics can be deleted, and retention.ms and retention.bytes be lowered, to make room.",
            ),
            Unavailable::TimedOut => ApiError::new(
                ResponseError::RequestTimedOut,
                "The metadata log cannot be written for now (its disk is full, or files cannot be opened); the change is made when it can.",
            ),
            // As Apache's `EventHandlerExceptionInfo` for a controller that is shutting down.
            Unavailable::Stopped => ApiError::new(ResponseError::RequestTimedOut, "The controller is shutting down."),
        }
    }
}

/// One member of the quorum, as in the response to DescribeQuorum (A9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaInfo {
    pub id: BrokerId,
    pub directory_id: Uuid,
    pub log_end_offset: Offset,
    /// -1 if unknown.
    pub last_fetch_timestamp_ms: TimestampMs,
    pub last_caught_up_timestamp_ms: TimestampMs,
}

/// The quorum as its leader sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct QuorumInfo {
    pub leader_id: BrokerId,
    pub leader_epoch: LeaderEpoch,
    /// The offset after the last committed record.
    pub high_watermark: Offset,
    pub voters: Vec<ReplicaInfo>,
    pub observers: Vec<ReplicaInfo>,
    /// The voters with their endpoints.
    pub endpoints: VotersRecord,
}

/// A reply is valid once the record at the offset is published on this node.
pub(super) type ReplySender = oneshot::Sender<Result<(Reply, Offset), Unavailable>>;

/// The leader, its epoch, and whether this node may give a piece of a snapshot.
pub(super) type SnapshotPermission = (Option<BrokerId>, LeaderEpoch, Result<(), PieceError>);

/// Everything the driver reacts to.
pub(super) enum Event {
    Request(Request, ReplySender),
    DescribeQuorum(oneshot::Sender<Result<QuorumInfo, Unavailable>>),
    /// An observer asks for records of the metadata log.
    FetchMetadata(MetadataFetch, oneshot::Sender<MetadataFetchReply>),
    /// Another node belongs to this cluster. It is empty if that node does not know it either.
    ClusterId(String),
    /// Where this node continues to fetch as an observer.
    Position(oneshot::Sender<Position>),
    /// What this node has fetched as an observer. The sender hears when it is handled.
    Observed(Observed, oneshot::Sender<()>),
    /// A change of the voters.
    ChangeVoters(VoterChange, VoterChangeSender),
    /// Messages of another voter.
    Messages(QuorumMessagesRequest),
    /// The process of another voter has ended.
    VoterHasEnded(BrokerId),
    /// A broker has closed a connection to this controller.
    BrokerHasDisconnected(BrokerId),
    /// A broker that was silent was asked whether it lives.
    Asked(Asked),
    /// This node stops: another voter shall lead. The reply says whether one is asked to.
    HandOver(oneshot::Sender<bool>),
    /// Time has passed.
    Tick,
    /// Retries the writes that failed because of a shortage.
    Retry,
    /// A snapshot up to the entry with this raft index was written, or could not be written.
    SnapshotDone(u64, io::Result<()>),
    /// Another voter asks for a piece of a snapshot. The reply is the leader, its epoch, and whether the voter may
    /// have it.
    SnapshotPiece(PieceRequest, oneshot::Sender<SnapshotPermission>),
    /// The transfer with this number has ended.
    SnapshotFetched(u64, anyhow::Result<Box<Snapshot>>),
    Stop,
}

/// The state of the quorum as this node sees it, for metrics.
#[derive(Debug, Default)]
pub struct QuorumGauges {
    /// The epoch of the quorum.
    pub epoch: AtomicI64,
    /// The offset after the last record that this node knows to be committed.
    pub high_watermark: AtomicI64,
    /// Where this node's log ends.
    pub log_end_offset: AtomicI64,
}

/// A handle to the controller. Clones use the same controller.
#[derive(Clone)]
pub struct ControllerHandle {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) settings: Arc<ControllerSettings>,
    /// The leader of the quorum, as far as this node knows.
    pub(super) leader: Arc<Watched<Option<BrokerId>>>,
    pub(super) addresses: Arc<Addresses>,
    /// Whether this node must fetch the log, since it is no voter.
    pub(super) observes: Arc<Watched<bool>>,
    pub(super) gauges: Arc<QuorumGauges>,
    /// Whether a majority of the voters has ended.
    pub(super) quorum_has_ended: Arc<Watched<bool>>,
    pub(super) snapshots: SnapshotFiles,
    /// True once the driver has ended.
    pub(super) ended: Arc<Watched<bool>>,
}

impl ControllerHandle {
    /// The current published image.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.publisher.image()
    }

    /// Sends a request to the controller. The error means that the controller did not decide it.
    pub async fn call<R: ControllerRequest>(&self, request: R) -> Result<R::Reply, Unavailable> {
        let (sender, receiver) = oneshot::channel();
        self.events.send(Event::Request(request.into(), sender)).await.map_err(|_| Unavailable::Stopped)?;
        let (reply, offset) = receiver.await.map_err(|_| Unavailable::Stopped)??;
        self.publisher.published(offset).await;
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

    /// Sends the portions one after the other. If the controller becomes unavailable, the remaining portions fail.
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
        while self.call(request.clone()).await?? == Unregistration::Begun {}
        Ok(())
    }

    /// Describes the quorum for DescribeQuorum. Only the leader can do so.
    pub async fn describe_quorum(&self) -> Result<QuorumInfo, Unavailable> {
        let (sender, receiver) = oneshot::channel();
        self.events.send(Event::DescribeQuorum(sender)).await.map_err(|_| Unavailable::Stopped)?;
        receiver.await.map_err(|_| Unavailable::Stopped)?
    }

    /// The leader of the quorum, as far as this node knows.
    pub fn leader(&self) -> Option<BrokerId> {
        self.leader.get()
    }

    /// Reads the metadata log for an observer, if this node leads.
    pub async fn fetch_metadata(&self, fetch: MetadataFetch) -> Result<MetadataFetchReply, Unavailable> {
        let (sender, receiver) = oneshot::channel();
        self.events.send(Event::FetchMetadata(fetch, sender)).await.map_err(|_| Unavailable::Stopped)?;
        receiver.await.map_err(|_| Unavailable::Stopped)
    }

    /// Waits until the record at `offset` is committed, or until another node leads.
    pub async fn metadata_changes(&self, offset: Offset) {
        let before = self.leader.get();
        tokio::select! {
            biased;
            () = self.publisher.published(offset) => {}
            _ = self.leader.until(|leader| *leader != before) => {}
        }
    }

    /// Waits until another node leads.
    pub async fn led_by_another(&self) {
        let own = self.settings.node_id;
        self.leader.until(|leader| leader.is_some_and(|leader| leader != own)).await;
    }

    /// Waits until this node must fetch the log.
    pub(super) async fn observes(&self) {
        self.observes.until(|observes| *observes).await;
    }

    /// Where this node continues to fetch; `None` if the driver has ended.
    pub(super) async fn position(&self) -> Option<Position> {
        let (sender, receiver) = oneshot::channel();
        self.events.send(Event::Position(sender)).await.ok()?;
        receiver.await.ok()
    }

    /// Hands over what this node has fetched, and waits until it is handled.
    pub(super) async fn observed(&self, observed: Observed) {
        let (sender, receiver) = oneshot::channel();
        if self.events.send(Event::Observed(observed, sender)).await.is_ok() {
            // An error means that the driver has ended.
            let _ = receiver.await;
        }
    }

    /// Another node has named the cluster that it belongs to.
    pub(super) async fn learn_cluster_id(&self, cluster_id: &str) {
        // An error means that the driver has ended.
        let _ = self.events.send(Event::ClusterId(cluster_id.to_owned())).await;
    }

    /// Another node has said where the leader is.
    pub(super) fn leader_is_at(&self, leader: BrokerId, endpoint: Endpoint) {
        self.addresses.set_leader(leader, endpoint);
    }

    /// Changes the voters. Returns when the change is committed, or written if the change says so.
    pub async fn change_voters(&self, change: VoterChange) -> Result<(), VoterChangeError> {
        let (sender, receiver) = oneshot::channel();
        let not_controller = |_| VoterChangeError::NotController;
        self.events.send(Event::ChangeVoters(change, sender)).await.map_err(|_| VoterChangeError::NotController)?;
        receiver.await.map_err(not_controller)?
    }

    /// Where the controllers are.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Waits until this node is not the only voter.
    pub async fn has_other_voters(&self) {
        self.addresses.until_voters(|voters| voters.voters.len() > 1).await;
    }

    /// The state of the quorum, for metrics.
    pub fn gauges(&self) -> &QuorumGauges {
        &self.gauges
    }

    /// Whether the controller of this node is the active one.
    pub fn is_active(&self) -> bool {
        !self.is_stopped() && self.leader() == Some(self.settings.node_id)
    }

    /// Passes on messages of another voter.
    pub async fn deliver(&self, messages: QuorumMessagesRequest) {
        // A closed channel means that the driver has ended.
        let _ = self.events.send(Event::Messages(messages)).await;
    }

    /// A broker has closed a connection to this controller: it may have ended.
    pub async fn broker_has_disconnected(&self, broker: BrokerId) {
        let _ = self.events.send(Event::BrokerHasDisconnected(broker)).await;
    }

    /// The process of another voter has ended.
    pub async fn voter_has_ended(&self, voter: BrokerId) {
        let _ = self.events.send(Event::VoterHasEnded(voter)).await;
    }

    /// If the node `own`, which is this one, leads the quorum, another voter takes over. Waits until it does, or for
    /// `limit`. Returns false if no other voter has taken over.
    pub async fn hand_over(&self, env: &Env, own: BrokerId, limit: Duration) -> bool {
        let (sender, receiver) = oneshot::channel();
        if self.events.send(Event::HandOver(sender)).await.is_err() || receiver.await != Ok(true) {
            return true;
        }
        let handed_over = self.leader.until(|leader| leader.is_some_and(|leader| leader != own));
        env.within(limit, handed_over).await.is_some()
    }

    /// Waits until a majority of the voters has ended, so that there can be no controller.
    pub async fn quorum_has_ended(&self) {
        self.quorum_has_ended.until(|has_ended| *has_ended).await;
    }

    /// Reads a piece of a snapshot for another voter. Only the leader has some.
    pub async fn snapshot_piece(&self, request: PieceRequest) -> Result<PieceResponse, Unavailable> {
        let (sender, receiver) = oneshot::channel();
        self.events.send(Event::SnapshotPiece(request, sender)).await.map_err(|_| Unavailable::Stopped)?;
        let (leader, leader_epoch, permission) = receiver.await.map_err(|_| Unavailable::Stopped)?;
        let piece = match permission {
            Ok(()) => self.snapshots.piece(request).await,
            Err(error) => Err(error),
        };
        Ok(PieceResponse { leader, leader_epoch, piece })
    }

    /// Stops the driver and waits until it has flushed and closed its files and its last image is published.
    pub async fn stop(&self) {
        // A closed channel means that it has ended already.
        let _ = self.events.send(Event::Stop).await;
        self.stopped().await;
        self.publisher.settled().await;
    }

    /// Whether the driver has ended.
    pub fn is_stopped(&self) -> bool {
        self.ended.get()
    }

    /// Waits until the driver has ended, by `stop` or because of a disk fault. Without the driver the broker must stop.
    pub async fn stopped(&self) {
        self.ended.until(|ended| *ended).await;
    }
}
