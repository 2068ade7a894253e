//! The one thread that owns the quorum and the controller.
//!
//! Owns the order of the steps of a change. The controller decides a request at once on the newest state, committed or
//! not, and its records are proposed as one entry. Requests that arrive meanwhile share one fsync. Then raft commits,
//! the records are applied to the image, the image is handed over to the publisher, and the request is answered with
//! the offset at which it is published. A reply without records waits instead until a majority has confirmed that this
//! node still leads. A quorum of one takes the same path: it elects itself, and its own fsync is the
//! majority. Such a quorum has no timer, so an idle broker sleeps; with other voters raft gets its ticks. A full disk
//! stops nothing: space is reserved for the metadata log, and while only the reserve is left, only changes that free
//! space are decided. If even the reserve is used up, or no file descriptor is free, the pending writes are kept and
//! retried, the waiting requests fail with a timeout, and no new request is decided until the writes succeed. Leaves
//! decisions to `controller`, storage to `storage.rs`, messages to other voters to the transport, and all that the
//! broker does with a new image to the publisher.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{
    addresses::Addresses,
    cached_image::{CachedImage, STORE_DIR},
    control_records::{BatchContent, VoterEndpoint, VotersRecord, control_batch, data_batch, read_batch},
    handle::{
        ControllerHandle, Event, QuorumGauges, QuorumInfo, ReplicaInfo, ReplySender, SnapshotPermission, Unavailable,
    },
    message,
    metadata_log::LOSS_INSTRUCTIONS,
    node::{Entry, Message, MessageType, Node, RaftError, Ready, Refused, confirmed},
    observers::Observers,
    snapshot::{self, Snapshot, SnapshotId},
    snapshot_fetch::{self, PieceError, PieceRequest, SnapshotFetch, SnapshotFiles, SnapshotSource},
    storage::{Base, BatchLog, MetadataStorage, QuorumStart, node_id, raft_id},
    voters::{Identity, conf_state},
};
use crate::{
    config::Endpoint,
    controller::{
        self, ConfigSchema, ControllerSettings, Entropy, Reply, Request, StepContext,
        brokers::{BrokerHeartbeat, RegisterBroker, check_not_taken},
        elections::{ElectUncleanLeaders, RebalanceLeaders},
        features::bootstrap_records,
        sessions::BrokerSessions,
        shortage::Reserve,
    },
    env::{BoxFuture, Env, Random, Watched},
    log::is_shortage,
    metadata::{
        delta::MetadataDelta,
        image::{MetadataImage, Provenance},
        publisher::Publisher,
        records::MetadataRecord,
    },
    protocol::{quorum_messages::QuorumMessagesRequest, record_batch::BatchView},
    types::{BrokerId, LeaderEpoch, Offset, uuid_to_base64},
};

/// At most this many requests are queued for the driver; further callers wait until there is room in the queue.
const MAX_WAITING_EVENTS: usize = 1024;
/// At most this many requests share one fsync, so that none waits behind an endless stream.
const MAX_EVENTS_PER_ROUND: usize = 256;
/// Disk space reserved for the metadata log. Deleting 20,000 topics takes less than 1 MiB. Registering a broker with
/// 20,000 partitions, which every start does, takes 2 MiB.
const RESERVE_BYTES: u64 = 4 << 20;
/// Changes other than deletions may use this much of it ([`Reserve::Part`]).
const RESERVE_PART_BYTES: u64 = 2 << 20;
/// While disk space or file descriptors are short, failed writes are retried this often, and with every request.
const SHORTAGE_RETRY: Duration = Duration::from_secs(1);
/// A failed snapshot is retried after this time. Until then the log is not trimmed; nothing else is affected.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(60);

/// raft's unit of time, as long as there are other voters. Without them there are no ticks, and an idle node sleeps.
const TICK: Duration = Duration::from_millis(50);

/// The leader waits this long for the next request of a voter that fetches a snapshot. Then the transfer has failed.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(3);

/// The way to the other voters.
pub trait Transport: Send + Sync {
    /// Sends a message to another voter and does not wait. The message may be lost, but messages to one voter must not
    /// overtake each other without need.
    fn send(&self, to: BrokerId, message: Bytes);

    /// The snapshots of another voter, if its address is known.
    fn snapshots_of(&self, voter: BrokerId) -> Option<Box<dyn SnapshotSource>>;

    /// These are the voters from now on.
    fn set_voters(&self, voters: &VotersRecord);

    /// A node that is no voter, as far as this one knows, has sent messages and waits for responses.
    fn reach(&self, node: BrokerId, directory_id: Uuid, endpoint: Endpoint);
}

/// The id of the cluster. Nodes that are new do not know it: the first leader of their quorum chooses it.
pub trait ClusterIdentity: Send + Sync {
    fn cluster_id(&self) -> Option<String>;

    /// Stores the id durably, if none is known.
    fn adopt_cluster_id(&self, id: &str) -> io::Result<()>;
}

/// How to start the metadata quorum.
pub struct Options {
    /// This node, with the id of the log directory that holds the metadata log.
    pub identity: Identity,
    /// The controller listener of this node, for the other voters: its name and its address.
    pub endpoint: Option<VoterEndpoint>,
    pub cluster: Arc<dyn ClusterIdentity>,
    /// Where the controllers are; it hears of new voters.
    pub addresses: Arc<Addresses>,
    /// `<metadata.log.dir>/__cluster_metadata-0`. It must exist.
    pub dir: PathBuf,
    /// The voters of a new cluster; those of an old one are in its log.
    pub voters: VotersRecord,
    /// The way to the other voters.
    pub transport: Arc<dyn Transport>,
    pub settings: ControllerSettings,
    pub schema: Arc<dyn ConfigSchema>,
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub max_bytes_between_snapshots: u64,
    /// `ottla.accept.metadata.loss`: start although the metadata log has lost records.
    pub accept_loss: bool,
    /// This node's broker, which is registered and unfenced as soon as there is a controller. None if the node is only
    /// a controller.
    pub broker: Option<RegisterBroker>,
}

/// The result of a start.
pub struct Started {
    pub controller: ControllerHandle,
    /// The epoch of the broker of `Options`, if it was registered at the start.
    pub broker_epoch: Option<i64>,
}

/// Why the quorum could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("metadata log: {0}")]
    Io(#[from] io::Error),
    #[error("consensus: {0}")]
    Raft(#[from] RaftError),
    #[error("metadata log: {0}")]
    Replay(String),
    #[error("the broker could not register: {0:?}")]
    Registration(controller::ApiError),
}

/// Checks that the log can continue a stored image. `Err(None)` means that the image is only too old.
fn check_stored(storage: &MetadataStorage, at: Provenance) -> Result<(), Option<String>> {
    if at.last_contained_offset + 1 < storage.base().end_offset {
        return Err(None);
    }
    match storage.entry_ending_at(at.last_contained_offset) {
        Some((_, epoch)) if epoch == at.last_contained_epoch || at.last_contained_offset < 0 => Ok(()),
        Some((_, epoch)) => {
            Err(Some(format!("its last record is of epoch {}, in the log of epoch {epoch}", at.last_contained_epoch)))
        }
        None => Err(Some(format!(
            "it ends at offset {}, the log at {}",
            at.last_contained_offset,
            storage.end_offset() - 1
        ))),
    }
}

/// A node that is no voter must know where to fetch the metadata log.
fn check_finds_quorum(options: &Options, storage: &MetadataStorage) -> Result<(), StartError> {
    if storage.is_voter() {
        return Ok(());
    }
    let (Identity { node_id, directory_id }, voters) = (options.identity, storage.voters());
    let ids: Vec<String> = voters.voters.iter().map(|voter| voter.voter_id.to_string()).collect();
    if options.addresses.all().is_empty() && voters.voters.iter().all(|voter| voter.endpoint().is_none()) {
        let message = format!(
            "node.id {node_id} is not a voter of the metadata quorum in this directory ({}), and no setting says where the \
             quorum is (controller.quorum.bootstrap.servers)",
            ids.join(", ")
        );
        return Err(StartError::Replay(message));
    }
    if voters.voter(node_id).is_some() {
        tracing::warn!(
            node_id,
            directory_id = uuid_to_base64(directory_id),
            "the metadata directory of this voter is not the one that the quorum knows: this node follows the quorum and cannot \
             vote until its former directory is removed from the voters and this one is added (kafka-metadata-quorum)"
        );
    }
    Ok(())
}

/// A sole voter stores only records that its log has synced. If the stored image is ahead, the log has lost records.
fn is_ahead(storage: &MetadataStorage, at: Provenance) -> bool {
    storage.is_sole_voter() && at.last_contained_offset >= storage.end_offset()
}

/// The only voter leads as soon as it asks for votes, and at its start it has nothing in flight.
fn refused() -> StartError {
    StartError::Replay("the only voter cannot make a proposal".into())
}

/// Starts the quorum on a thread of its own and waits until its first image is published.
pub async fn start(
    env: &Env,
    options: Options,
    log: Box<dyn BatchLog>,
    store: CachedImage,
    publisher: Arc<Publisher>,
) -> Result<Started, StartError> {
    let (events, receiver) = mpsc::channel(MAX_WAITING_EVENTS);
    let (ended, leader) = (Arc::new(Watched::new(false)), Arc::new(Watched::new(None)));
    let (observes, quorum_has_ended) = (Arc::new(Watched::new(false)), Arc::new(Watched::new(false)));
    let known_lost = quorum_has_ended.clone();
    let (end, known_leader, known_observes) = (Ended(ended.clone()), leader.clone(), observes.clone());
    let addresses = options.addresses.clone();
    let gauges = Arc::<QuorumGauges>::default();
    let driver_gauges = gauges.clone();
    let (started_sender, started) = oneshot::channel();
    let (driver_env, driver_publisher) = (env.clone(), publisher.clone());
    let settings = Arc::new(options.settings.clone());
    let retries = events.downgrade();
    let snapshots = SnapshotFiles { tasks: env.tasks.clone(), disk: env.disk.clone(), dir: options.dir.clone() };
    env.tasks.spawn_thread("metadata", async move {
        let ended = end;
        match Driver::open(driver_env, options, log, store, driver_publisher).and_then(|mut driver| {
            (driver.leader, driver.observes) = (known_leader, known_observes);
            driver.quorum_has_ended = known_lost;
            driver.update_observing();
            driver.gauges = driver_gauges;
            Ok((driver.begin()?, driver))
        }) {
            Ok((broker_epoch, driver)) => {
                let _ = started_sender.send(Ok((broker_epoch, driver.applied_offset())));
                driver.run(receiver, retries).await;
            }
            Err(error) => _ = started_sender.send(Err(error)),
        }
        drop(ended);
    })?;
    let stopped = || StartError::Replay("the metadata thread ended during the start".into());
    let (broker_epoch, applied) = started.await.map_err(|_| stopped())??;
    publisher.published(applied).await;
    let controller = ControllerHandle {
        events,
        publisher,
        settings,
        leader,
        addresses,
        observes,
        quorum_has_ended,
        gauges,
        snapshots,
        ended,
    };
    Ok(Started { controller, broker_epoch })
}

/// Waits for an event, or for the time of the next tick. `None` if nobody can send events any more.
async fn next_event(events: &mut mpsc::Receiver<Event>, tick: Option<BoxFuture<'static, ()>>) -> Option<Event> {
    let Some(tick) = tick else { return events.recv().await };
    tokio::select! {
        biased;
        event = events.recv() => event,
        () = tick => Some(Event::Tick),
    }
}

/// Reports the end of the thread, also after a panic.
struct Ended(Arc<Watched<bool>>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

struct DriverEntropy(Arc<dyn Random>);

impl Entropy for DriverEntropy {
    fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound as u64) as usize
    }
    fn uuid(&mut self) -> Uuid {
        self.0.uuid()
    }
}

/// A reply that is sent once the record at `offset` is applied.
struct Pending {
    offset: Offset,
    reply: Reply,
    sender: ReplySender,
}

/// The disk failed or the log is invalid: the driver must stop.
#[derive(Debug, thiserror::Error)]
enum Fatal {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Raft(#[from] RaftError),
    #[error("{0}")]
    Apply(String),
}

impl From<Fatal> for StartError {
    fn from(fatal: Fatal) -> Self {
        match fatal {
            Fatal::Io(error) => StartError::Io(error),
            Fatal::Raft(error) => StartError::Raft(error),
            Fatal::Apply(reason) => StartError::Replay(reason),
        }
    }
}

impl Fatal {
    /// Whether nothing was written and nothing is lost, so that the write can be retried.
    fn is_shortage(&self) -> bool {
        matches!(self, Fatal::Io(error) if is_shortage(error))
    }
}

/// A `Ready` of raft that is not completely written yet, with its entries taken out.
struct Unwritten {
    ready: Ready,
    /// Replaces the log before the entries are appended.
    snapshot: Option<Box<Snapshot>>,
    /// The last entry of that snapshot, also when it is installed.
    snapshot_index: Option<u64>,
    entries: VecDeque<Entry>,
    committed: Vec<Entry>,
}

/// A snapshot that another voter fetches from this leader.
struct Outgoing {
    id: SnapshotId,
    index: u64,
    /// The transfer has failed if the voter asks for nothing until then.
    until: Duration,
}

/// A snapshot that this node fetches from the leader.
struct Incoming {
    attempt: u64,
    leader: BrokerId,
    epoch: LeaderEpoch,
    /// raft gets this message when the snapshot is durable. There is none if this node is an observer.
    message: Option<Message>,
    /// When it is dropped, the transfer is given up.
    _cancel: oneshot::Sender<()>,
}

/// The quorum and the controller as a state machine: `handle` takes an event, `drive` makes its result durable and
/// applies it.
struct Driver {
    env: Env,
    options: Options,
    node: Node,
    publisher: Arc<Publisher>,
    store: CachedImage,
    /// The image of all committed and applied records.
    committed: MetadataImage,
    /// `committed` plus all records proposed since. The controller decides on this image.
    working: MetadataImage,
    /// The changes in `committed` since the last publication.
    delta: MetadataDelta,
    /// The last offset of the image that was last handed over to the publisher.
    published: Option<Offset>,
    /// The base offset of the next proposal.
    next_offset: Offset,
    /// The number of the newest `Ready` that is written but not synced.
    unsynced: Option<u64>,
    /// Messages that say that something is durable, which must be true when they are sent.
    messages_after_sync: Vec<Message>,
    /// The heartbeats of brokers while this node is active.
    sessions: BrokerSessions,
    /// When raft's next tick is due.
    next_tick: Duration,
    /// When leaders are rebalanced next, while this controller is active.
    next_rebalance: Option<Duration>,
    /// When unclean elections are looked for next, while this controller is active.
    next_unclean_elections: Option<Duration>,
    /// The `Ready` that could not be written because of a shortage.
    unwritten: Option<Unwritten>,
    /// The first records of a new cluster are proposed.
    is_setting_up: bool,
    /// This node's broker, if a shortage kept the start from registering it.
    unregistered: Option<RegisterBroker>,
    /// Committed entries that are not applied yet.
    unapplied: VecDeque<Entry>,
    /// A write failed because of a shortage. Nothing is decided, since nothing can be written before that write.
    is_stalled: bool,
    /// [`RESERVE_BYTES`] cannot be reserved: the disk is full, or no file can be opened.
    lacks_reserve: bool,
    /// Bytes proposed since the reserve was last complete.
    reserve_used: u64,
    /// Bytes proposed and not written yet.
    proposed_bytes: u64,
    /// An `Event::Retry` is scheduled.
    is_retry_armed: bool,
    /// For events that the driver's own tasks send; `None` during the start. Weak, so that the driver still ends when
    /// all controller handles are dropped.
    events: Option<mpsc::WeakSender<Event>>,
    pending: VecDeque<Pending>,
    /// Replies without records. With other voters they wait until a majority has confirmed that this node still leads,
    /// since the image they come from may be old: without a record, nothing else would show it. Each with the number of
    /// its question.
    unconfirmed: VecDeque<(u64, Pending)>,
    /// The number of the last question.
    asked: u64,
    /// The leader of the quorum, for the other parts of this node.
    leader: Arc<Watched<Option<BrokerId>>>,
    /// The voters that raft and the transport know.
    voters: VotersRecord,
    /// Whether they are in the log.
    has_voters: bool,
    /// The change of the voters that is not committed yet.
    pending_change: Option<PendingChange>,
    /// Whether this node must fetch the log, since it is no voter.
    observes: Arc<Watched<bool>>,
    /// Whether a majority of the voters has ended.
    quorum_has_ended: Arc<Watched<bool>>,
    /// How long this node knows no leader.
    ticks_without_leader: u32,
    /// Where to continue to fetch, if the end of this log is not a part of the leader's.
    fetch_from: Option<Offset>,
    /// The nodes that follow this leader.
    observers: Observers,
    /// The directories of the nodes that have sent messages.
    asked_from: BTreeMap<BrokerId, Uuid>,
    /// The node that has last sent messages to this one as the leader to a voter, and its epoch.
    leader_by_messages: Option<(BrokerId, LeaderEpoch)>,
    /// For metrics.
    gauges: Arc<QuorumGauges>,
    /// The epoch in which this node is the leader.
    leads_in: Option<LeaderEpoch>,
    /// The epoch in which it has begun to decide requests.
    decides_in: Option<LeaderEpoch>,
    /// The last offset of the first batch that this node has proposed in that epoch.
    first_batch: Option<Offset>,
    /// The raft index of the newest snapshot.
    last_snapshot_index: u64,
    /// `MetadataStorage::bytes_written` at that snapshot.
    bytes_at_snapshot: u64,
    /// `MetadataStorage::bytes_written` at the snapshot that is being written now.
    running_snapshot: Option<u64>,
    /// No snapshot is tried before this time, because the last one failed.
    next_snapshot_at: Duration,
    /// The voters that fetch a snapshot from this leader.
    outgoing: BTreeMap<BrokerId, Outgoing>,
    /// The snapshot that this node fetches.
    incoming: Option<Incoming>,
    /// The number of snapshots that this node has begun to fetch.
    attempts: u64,
    /// A snapshot that is fetched and durable, for the next `Ready`.
    fetched: Option<Box<Snapshot>>,
}

impl Driver {
    /// Loads the image from the store or a snapshot, then replays the log after it.
    fn open(
        env: Env,
        options: Options,
        log: Box<dyn BatchLog>,
        mut store: CachedImage,
        publisher: Arc<Publisher>,
    ) -> Result<Self, StartError> {
        let disk = env.disk.clone();
        snapshot::remove_leftovers(disk.as_ref(), &options.dir)?;
        let snapshot = snapshot::newest(disk.as_ref(), &options.dir)?;
        let base = snapshot.as_ref().map_or(Base::EMPTY, Snapshot::base);
        let voters = snapshot.as_ref().and_then(|snapshot| snapshot.voters.clone());
        let quorum = QuorumStart { voters, bootstrap_voters: options.voters.clone(), accept_loss: options.accept_loss };
        let mut storage = MetadataStorage::open(log, disk, options.dir.clone(), options.identity, base, quorum)?;

        let Identity { node_id, .. } = options.identity;
        check_finds_quorum(&options, &storage)?;
        let stored = match store.take_image() {
            Some(image) => match check_stored(&storage, image.provenance) {
                Ok(()) => Some(image),
                Err(Some(reason)) if is_ahead(&storage, image.provenance) && !options.accept_loss => {
                    return Err(StartError::Replay(format!(
                        "records are lost: the stored image {STORE_DIR} reaches further than the log; {reason}. {LOSS_INSTRUCTIONS}"
                    )));
                }
                Err(reason) => {
                    store.discard(reason.as_deref());
                    None
                }
            },
            None => None,
        };
        let mut committed = match (stored, snapshot) {
            (Some(image), _) => image,
            (None, Some(snapshot)) => snapshot.image,
            (None, None) => MetadataImage::default(),
        };
        committed.cluster_id = options.cluster.cluster_id().unwrap_or_default().into();
        let (applied, _) = storage
            .entry_ending_at(committed.provenance.last_contained_offset)
            .ok_or_else(|| StartError::Replay("the image does not end where an entry ends".into()))?;
        storage.set_commit(applied);
        if storage.is_sole_voter() {
            // The only voter is the majority: all that it has written is committed.
            storage.set_commit(storage.last_entry_index());
        }
        let last_index = storage.last_entry_index();
        let replay_to = if storage.is_sole_voter() { last_index } else { applied };
        let last_snapshot_index = base.index;
        let next_offset = storage.end_offset();
        // A new node may have lost its disk: it looks for a leader at once.
        let is_empty = next_offset == 0 && !storage.is_sole_voter();
        let node = Node::new(node_id, replay_to, storage, env.random.clone())?;
        let mut driver = Driver {
            env,
            options,
            node,
            publisher,
            store,
            working: committed.clone(),
            committed,
            delta: MetadataDelta::default(),
            published: None,
            next_offset,
            unsynced: None,
            messages_after_sync: Vec::new(),
            sessions: BrokerSessions::default(),
            next_tick: Duration::ZERO,
            next_rebalance: None,
            next_unclean_elections: None,
            unwritten: None,
            is_setting_up: false,
            unregistered: None,
            unapplied: VecDeque::new(),
            is_stalled: false,
            lacks_reserve: false,
            reserve_used: 0,
            proposed_bytes: 0,
            is_retry_armed: false,
            events: None,
            pending: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            asked: 0,
            leader: Arc::default(),
            voters: VotersRecord::default(),
            has_voters: false,
            pending_change: None,
            observes: Arc::default(),
            quorum_has_ended: Arc::default(),
            ticks_without_leader: if is_empty { TICKS_WITHOUT_LEADER } else { 0 },
            fetch_from: None,
            observers: Observers::default(),
            asked_from: BTreeMap::new(),
            leader_by_messages: None,
            gauges: Arc::default(),
            leads_in: None,
            decides_in: None,
            first_batch: None,
            last_snapshot_index,
            bytes_at_snapshot: 0,
            running_snapshot: None,
            next_snapshot_at: Duration::ZERO,
            outgoing: BTreeMap::new(),
            incoming: None,
            attempts: 0,
            fetched: None,
        };
        for index in applied + 1..=replay_to {
            driver.apply_index(index)?;
        }
        driver.update_voters()?;
        driver.working = driver.committed.clone();
        Ok(driver)
    }

    /// Becomes the leader if this node is the only voter, sets up a new log, registers this node's broker, and
    /// publishes the first image.
    fn begin(&mut self) -> Result<Option<i64>, StartError> {
        if !self.node.store().is_sole_voter() {
            self.drive()?;
            return Ok(None);
        }
        self.node.campaign()?;
        let is_new = self.working.features.is_empty();
        match self.write_ready() {
            // The broker serves the cluster as it was before this start; the registration follows when there is room.
            Err(error) if error.is_shortage() && !is_new => {
                self.unregistered = self.options.broker.clone();
                self.drive()?;
                return Ok(None);
            }
            other => other?,
        }
        if is_new {
            self.propose(&bootstrap_records())?.map_err(|Refused| refused())?;
        }
        let broker_epoch = self.options.broker.clone().map(|broker| self.register(broker)).transpose()?;
        if is_new {
            // A new cluster has nothing to serve before this is written, so a shortage fails the start.
            self.write_and_sync()?;
        }
        self.drive()?;
        Ok(broker_epoch)
    }

    /// Registers this node's broker and unfences it.
    fn register(&mut self, request: RegisterBroker) -> Result<i64, StartError> {
        let broker_id = request.broker_id;
        let (Reply::RegisterBroker(reply), _) = self.decide(request.into())?.map_err(|Refused| refused())? else {
            unreachable!("the reply is of the request's kind")
        };
        let epoch = reply.map_err(StartError::Registration)?;
        self.decide(BrokerHeartbeat::new(broker_id, epoch).into())?.map_err(|Refused| refused())?;
        Ok(epoch)
    }

    async fn run(mut self, mut events: mpsc::Receiver<Event>, own_events: mpsc::WeakSender<Event>) {
        self.events = Some(own_events);
        let result = self.serve(&mut events).await;
        events.close();
        if let Err(error) = result {
            tracing::error!(%error, "the metadata log failed; this node can no longer read or change the metadata and must stop");
            return;
        }
        if let Err(error) = self.close() {
            tracing::error!(%error, "closing the metadata log failed");
        }
    }

    async fn serve(&mut self, events: &mut mpsc::Receiver<Event>) -> Result<(), Fatal> {
        self.keep_reserve()?;
        self.arm_retry();
        loop {
            self.tick()?;
            let tick = self.has_others().then(|| self.env.clock.sleep_until(self.next_tick));
            let Some(event) = next_event(events, tick).await else { return Ok(()) };
            let mut next = Some(event);
            for _ in 0..MAX_EVENTS_PER_ROUND {
                match next {
                    Some(Event::Stop) => return self.drive(),
                    Some(event) => self.handle(event)?,
                    None => break,
                }
                next = events.try_recv().ok();
            }
            match next {
                Some(Event::Stop) => return self.drive(),
                Some(event) => self.handle(event)?,
                None => {}
            }
            self.drive()?;
            self.begin_to_decide()?;
            self.note_lost_quorum();
            self.arm_retry();
        }
    }

    /// Whether time matters: there are other voters, or other brokers whose sessions may end.
    fn has_others(&self) -> bool {
        !self.node.store().is_sole_voter() || self.working.brokers.len() > 1
    }

    /// Lets raft's time pass. A node that was paused for long lives through one tick only: it must first hear what the
    /// others have sent meanwhile.
    fn tick(&mut self) -> Result<(), Fatal> {
        let now = self.env.clock.monotonic();
        if !self.has_others() || now < self.next_tick {
            return Ok(());
        }
        self.note_late_tick(now - self.next_tick, now);
        self.next_tick = now + TICK;
        self.node.tick();
        self.count_tick_without_leader();
        self.end_silent_transfers(now);
        self.fence_lost_brokers(now)?;
        self.rebalance_leaders(now)?;
        self.elect_unclean_leaders(now)?;
        self.drive()
    }

    /// The active controller lets preferred replicas lead again from time to time.
    fn rebalance_leaders(&mut self, now: Duration) -> Result<(), Fatal> {
        let Some(interval) = self.options.settings.rebalance_interval.filter(|_| self.is_active()) else {
            self.next_rebalance = None;
            return Ok(());
        };
        let due = *self.next_rebalance.get_or_insert(now + interval);
        if now < due {
            return Ok(());
        }
        self.next_rebalance = match self.decide(RebalanceLeaders.into())? {
            // One step has a limit; the next tick goes on.
            Ok((Reply::RebalanceLeaders(true), _)) => Some(now),
            _ => Some(now + interval),
        };
        Ok(())
    }

    /// The active controller elects leaders where unclean elections are allowed: from time to time, and soon after a
    /// change of settings.
    fn elect_unclean_leaders(&mut self, now: Duration) -> Result<(), Fatal> {
        if !self.is_active() {
            self.next_unclean_elections = None;
            return Ok(());
        }
        let interval = self.options.settings.unclean_election_interval;
        if now < *self.next_unclean_elections.get_or_insert(now + interval) {
            return Ok(());
        }
        self.next_unclean_elections = match self.decide(ElectUncleanLeaders.into())? {
            // One step has a limit; the next tick goes on.
            Ok((Reply::ElectUncleanLeaders(true), _)) => Some(now),
            _ => Some(now + interval),
        };
        Ok(())
    }

    /// Schedules a retry if there is no room.
    fn arm_retry(&mut self) {
        if !self.lacks_room() || std::mem::replace(&mut self.is_retry_armed, true) {
            return;
        }
        let clock = self.env.clock.clone();
        let at = clock.monotonic() + SHORTAGE_RETRY;
        self.send_after("metadata retry", async move {
            clock.sleep_until(at).await;
            Event::Retry
        });
    }

    /// Sends the event that a task returns to this driver, unless it has ended by then.
    fn send_after(&self, task: &'static str, event: impl Future<Output = Event> + Send + 'static) {
        let Some(events) = self.events.clone() else { return };
        self.env.tasks.spawn_until_stopped(task, async move {
            let event = event.await;
            if let Some(events) = events.upgrade() {
                // An error means that the driver has ended.
                let _ = events.send(event).await;
            }
        });
    }

    fn close(&mut self) -> io::Result<()> {
        self.store.save(&self.committed);
        self.node.mut_store().close()
    }

    /// Whether this node may decide requests. A new leader must first apply its first batch and with it everything that
    /// earlier leaders have committed: else it would decide on an old image.
    fn is_active(&self) -> bool {
        self.leads_in.is_some() && self.first_batch.is_some_and(|offset| offset <= self.applied_offset())
    }

    fn handle(&mut self, event: Event) -> Result<(), Fatal> {
        if self.is_stalled && matches!(event, Event::Request(..)) {
            // A failed write costs almost nothing, and there may be room again.
            self.drive()?;
        }
        match event {
            Event::Request(_, sender) if self.is_stalled && self.node.is_leader() => {
                let _ = sender.send(Err(Unavailable::Shortage));
            }
            Event::Request(_, sender) if !self.is_active() => {
                let _ = sender.send(Err(self.not_controller()));
            }
            Event::Request(request, sender) => {
                if let Request::RegisterBroker(broker) = &request
                    && let Err(error) = check_not_taken(&self.working, broker)
                {
                    let _ = sender.send(Ok((Reply::RegisterBroker(Err(error)), self.applied_offset())));
                    return Ok(());
                }
                self.keep_reserve()?;
                if let Request::BrokerHeartbeat(heartbeat) = &request {
                    self.sessions.on_heartbeat(heartbeat.broker_id, self.env.clock.monotonic());
                }
                if self.may_decide(&request) {
                    let before = self.next_offset;
                    match self.decide(request)? {
                        Ok((reply, offset)) => self.await_commit(Pending { offset, reply, sender }, before),
                        Err(Refused) => _ = sender.send(Err(self.not_controller())),
                    }
                } else {
                    let _ = sender.send(Err(Unavailable::Shortage));
                }
            }
            Event::DescribeQuorum(sender) => {
                let _ = sender.send(self.describe_quorum());
            }
            Event::Retry => {
                self.is_retry_armed = false;
                self.keep_reserve()?;
            }
            Event::Messages(messages) => self.receive(messages)?,
            Event::FetchMetadata(fetch, sender) => _ = sender.send(self.fetch_metadata(fetch)),
            Event::ClusterId(cluster_id) => self.learn_cluster_id(&cluster_id)?,
            Event::Position(sender) => _ = sender.send(self.position()),
            Event::Observed(observed, done) => {
                self.on_observed(observed)?;
                self.drive()?;
                let _ = done.send(());
            }
            Event::ChangeVoters(change, sender) => self.change_voters(change, sender)?,
            Event::VoterHasEnded(voter) => self.on_end_of_voter(voter)?,
            Event::BrokerHasDisconnected(broker) => {
                self.sessions.on_disconnect(broker);
                self.ask_silent_brokers(self.env.clock.monotonic());
            }
            Event::Asked(asked) => self.on_asked(asked)?,
            Event::HandOver(sender) => {
                let _ = sender.send(self.node.is_leader() && self.node.transfer_leadership());
            }
            Event::Tick => {}
            Event::SnapshotDone(index, result) => self.on_snapshot_done(index, result)?,
            Event::SnapshotPiece(request, sender) => {
                let _ = sender.send(self.permit_piece(request));
            }
            Event::SnapshotFetched(attempt, result) => self.on_snapshot_fetched(attempt, result)?,
            Event::Stop => {}
        }
        Ok(())
    }

    /// Fills the reserve up.
    fn keep_reserve(&mut self) -> Result<(), Fatal> {
        match self.node.mut_store().reserve_space(RESERVE_BYTES + self.proposed_bytes) {
            Ok(()) => {
                self.reserve_used = 0;
                if std::mem::take(&mut self.lacks_reserve) {
                    tracing::info!("there is room again for the metadata log");
                }
            }
            Err(error) if is_shortage(&error) => {
                if !std::mem::replace(&mut self.lacks_reserve, true) {
                    tracing::error!(
                        %error, "there is no room for the metadata log: until there is, topics can be deleted and retention can be \
                         lowered; all other changes of the cluster are refused"
                    );
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn lacks_room(&self) -> bool {
        self.is_stalled || self.lacks_reserve
    }

    fn may_decide(&self, request: &Request) -> bool {
        !self.lacks_reserve
            || match request.reserve() {
                Reserve::None => false,
                Reserve::Part => self.reserve_used < RESERVE_PART_BYTES,
                Reserve::All => true,
            }
    }

    /// Runs one controller step and proposes its records. The reply is valid once the record at the returned offset is
    /// applied. If the proposal is refused, nothing has changed.
    fn decide(&mut self, request: Request) -> Result<Result<(Reply, Offset), Refused>, Fatal> {
        let mut entropy = DriverEntropy(self.env.random.clone());
        let mut context = StepContext {
            settings: &self.options.settings,
            schema: self.options.schema.as_ref(),
            entropy: &mut entropy,
            now_ms: self.env.clock.now_ms(),
            next_write_offset: self.next_offset,
        };
        if matches!(request, Request::IncrementalAlterConfigs(_) | Request::LegacyAlterConfigs(_)) {
            // It may have changed `unclean.leader.election.enable`.
            self.next_unclean_elections = self.next_unclean_elections.map(|_| self.env.clock.monotonic());
        }
        let step = controller::step(&self.working, &mut context, request);
        // A reply without records may depend on uncommitted records, so it waits for them too.
        Ok(self.propose(&step.records)?.map(|()| (step.reply, self.next_offset - 1)))
    }

    fn propose(&mut self, records: &[MetadataRecord]) -> Result<Result<(), Refused>, Fatal> {
        if records.is_empty() {
            return Ok(Ok(()));
        }
        let batch = data_batch(self.next_offset, self.node.epoch(), self.env.clock.now_ms(), records);
        if self.node.propose(batch.to_vec()).is_err() {
            return Ok(Err(Refused));
        }
        self.proposed_bytes += batch.len() as u64;
        self.reserve_used += batch.len() as u64;
        self.next_offset += records.len() as Offset;
        // The delta that is published is built when the records are committed.
        let mut ignored = MetadataDelta::default();
        for record in records {
            self.working
                .apply(record, &mut ignored)
                .map_err(|error| Fatal::Apply(format!("a decision cannot be applied: {error}")))?;
        }
        self.working.provenance.last_contained_offset = self.next_offset - 1;
        Ok(Ok(()))
    }

    /// A reply waits until its records are committed. One without records waits until this node is known to lead still.
    fn await_commit(&mut self, pending: Pending, next_offset_before: Offset) {
        if pending.offset >= next_offset_before || self.node.store().is_sole_voter() {
            self.pending.push_back(pending);
        } else {
            self.unconfirmed.push_back((self.asked + 1, pending));
        }
    }

    /// Asks once for all replies that have come since the last question.
    fn ask_for_confirmation(&mut self) {
        if let Some((number, _)) = self.unconfirmed.back()
            && *number > self.asked
        {
            self.asked = *number;
            self.node.confirm(self.asked);
        }
    }

    /// A majority has confirmed that this node led when it asked the question of this number.
    fn on_confirmed(&mut self, number: u64) {
        let confirmed = self.unconfirmed.partition_point(|(asked, _)| *asked <= number);
        self.pending.extend(self.unconfirmed.drain(..confirmed).map(|(_, pending)| pending));
    }

    /// Takes messages of another voter.
    fn receive(&mut self, sent: QuorumMessagesRequest) -> Result<(), Fatal> {
        let own = self.options.identity;
        if sent.from == own.node_id || !(sent.to_directory.is_nil() || sent.to_directory == own.directory_id) {
            tracing::debug!(
                from = sent.from,
                "messages for another node, or for the node that this was before it lost its directory"
            );
            return Ok(());
        }
        self.learn_cluster_id(&sent.cluster_id)?;
        let voter = self.node.store().voters().voter(sent.from);
        let is_voter = voter.is_some_and(|voter| voter.is_in(sent.from_directory));
        if !is_voter && !sent.host.is_empty() {
            let endpoint = Endpoint { host: sent.host.to_string(), port: sent.port };
            self.options.transport.reach(sent.from, sent.from_directory, endpoint);
        }
        self.asked_from.insert(sent.from, sent.from_directory);
        for message in &sent.messages {
            match message::decode(message.clone()) {
                Ok(message) if self.may_step(&message, &sent, is_voter) => {
                    if message::is_from_leader(&message) {
                        self.leader_by_messages = Some((sent.from, message.term as LeaderEpoch));
                    }
                    self.step(message)?;
                }
                // raft-rs ends the process on what no voter sends.
                Ok(message) => tracing::debug!(from = message.from, to = message.to, "a message is not from a voter"),
                Err(error) => tracing::warn!(%error, "a message of another voter cannot be read"),
            }
        }
        if is_voter {
            self.note_voter(&sent);
            self.learn_voter(&sent)?;
        }
        Ok(())
    }

    /// A leader remembers when it has heard of a voter, and how far that was: what a Fetch says to Kafka's leader.
    fn note_voter(&mut self, sent: &QuorumMessagesRequest) {
        if !self.node.is_leader() {
            return;
        }
        let store = self.node.store();
        let end_offset = self.node.matched(sent.from).and_then(|index| store.end_offset_of(index)).unwrap_or(-1);
        let now = (self.env.clock.monotonic(), self.env.clock.now_ms());
        let voters = store.voters();
        let is_voter = |(node_id, directory_id)| voters.contains(Identity { node_id, directory_id });
        self.observers.on_fetch((sent.from, sent.from_directory), end_offset, store.end_offset(), now, is_voter);
    }

    /// Requests may come from a node that is no voter here: this node may lack the newest set of voters, unless it is
    /// the only voter. Only voters may answer. Two nodes with the same id, of which one was the other before it lost
    /// its directory, do not both get a vote.
    fn may_step(&self, message: &Message, sent: &QuorumMessagesRequest, is_voter: bool) -> bool {
        let is_response = message::is_response(message);
        let has_voted_for_another = || {
            message.msg_type == MessageType::MsgRequestVote
                && message.term == self.node.epoch() as u64
                && self.node.store().vote().is_some_and(|(voter, directory)| {
                    voter == sent.from && !directory.is_nil() && directory != sent.from_directory
                })
        };
        node_id(message.to) == Some(self.options.identity.node_id)
            && node_id(message.from) == Some(sent.from)
            && (is_voter || !is_response && !self.node.store().is_sole_voter())
            && !has_voted_for_another()
    }

    /// A node that is new takes the id of its cluster from the first voter that knows it.
    fn learn_cluster_id(&mut self, cluster_id: &str) -> Result<(), Fatal> {
        if !self.committed.cluster_id.is_empty() || cluster_id.is_empty() {
            return Ok(());
        }
        self.set_cluster_id(cluster_id)
    }

    fn set_cluster_id(&mut self, cluster_id: &str) -> Result<(), Fatal> {
        self.options.cluster.adopt_cluster_id(cluster_id)?;
        tracing::info!(cluster_id, "this node belongs to a cluster now");
        (self.committed.cluster_id, self.working.cluster_id) = (cluster_id.into(), cluster_id.into());
        Ok(())
    }

    fn step(&mut self, message: Message) -> Result<(), Fatal> {
        if let Some(from) = node_id(message.from) {
            self.sessions.on_message(from, self.env.clock.monotonic());
        }
        match message {
            // raft must get no messages before its last work is written, since they may change that work. The other
            // voters repeat what matters.
            _ if self.unwritten.is_some() => Ok(()),
            message if self.node.needs_snapshot(&message) => {
                let named = node_id(message.from).zip(SnapshotId::from_bytes(&message.get_snapshot().data));
                if let Some((leader, id)) = named {
                    self.fetch_snapshot(leader, message.term as LeaderEpoch, id, Some(message));
                }
                Ok(())
            }
            message => Ok(self.node.step(message)?),
        }
    }

    fn send(&mut self, messages: impl IntoIterator<Item = Message>) {
        let is_voter = self.node.store().is_voter();
        // What an observer has comes from responses to its own requests, and the leader hears of it by these. But the
        // entry that made this node a voter may not have arrived here: then it votes when it is asked, and responds to
        // a leader that sends it messages, for without it there may be no majority (KIP-853).
        let leader = self.leader_by_messages.filter(|(_, epoch)| *epoch == self.node.epoch()).map(|(leader, _)| leader);
        let may_send = |message: &Message| {
            let is_answer = message::is_vote(message) || message::is_response(message) && node_id(message.to) == leader;
            message::is_sendable(message) && (is_voter || is_answer)
        };
        for message in messages.into_iter().filter(may_send) {
            if let Some(to) = node_id(message.to) {
                if let Some(id) = message.snapshot.as_ref().and_then(|snapshot| SnapshotId::from_bytes(&snapshot.data))
                {
                    let index = message.get_snapshot().get_metadata().index;
                    let until = self.env.clock.monotonic() + SNAPSHOT_PATIENCE;
                    self.outgoing.insert(to, Outgoing { id, index, until });
                }
                self.options.transport.send(to, message::encode(&message));
            }
        }
    }

    fn not_controller(&self) -> Unavailable {
        Unavailable::NotController(self.node.leader())
    }

    /// Does the work that raft requests, until none is left or a shortage stops it.
    fn drive(&mut self) -> Result<(), Fatal> {
        let mut has_written = false;
        self.ask_for_confirmation();
        match self.write_and_sync().and_then(|()| self.set_up()).and_then(|()| self.register_late()) {
            Ok(()) => {
                has_written = std::mem::take(&mut self.proposed_bytes) > 0;
                self.on_shortage_end();
            }
            Err(error) if error.is_shortage() => self.on_shortage(&error),
            Err(error) => return Err(error),
        }
        if has_written && self.published.is_some() {
            // The write may have started a new segment, which has no reserve yet.
            self.keep_reserve()?;
        }
        self.publish();
        self.answer();
        self.answer_change();
        self.set_gauges();
        if self.is_stalled {
            self.refuse_pending(Unavailable::TimedOut);
        } else {
            self.maybe_snapshot();
        }
        Ok(())
    }

    fn set_gauges(&self) {
        let QuorumGauges { epoch, high_watermark, log_end_offset } = &*self.gauges;
        epoch.store(self.node.epoch().into(), Ordering::Relaxed);
        high_watermark.store(self.applied_offset() + 1, Ordering::Relaxed);
        log_end_offset.store(self.node.store().end_offset(), Ordering::Relaxed);
    }

    /// The first leader of a new cluster writes its first records.
    fn set_up(&mut self) -> Result<(), Fatal> {
        if !self.is_active() {
            return Ok(());
        }
        let has_learned = self.learn_self()?;
        if !self.committed.features.is_empty() || self.is_setting_up {
            return if has_learned { self.write_and_sync() } else { Ok(()) };
        }
        self.working = self.committed.clone();
        self.is_setting_up = self.propose(&bootstrap_records())?.is_ok();
        self.write_and_sync()
    }

    /// Registers the broker if a shortage prevented that at the start.
    fn register_late(&mut self) -> Result<(), Fatal> {
        let Some(request) = self.unregistered.take() else { return Ok(()) };
        self.register(request).map_err(|error| match error {
            StartError::Io(error) => Fatal::Io(error),
            StartError::Raft(error) => Fatal::Raft(error),
            other => Fatal::Apply(other.to_string()),
        })?;
        self.write_and_sync()
    }

    fn on_shortage(&mut self, error: &Fatal) {
        if !std::mem::replace(&mut self.is_stalled, true) {
            tracing::error!(%error, "the metadata log cannot be written for now; the cluster's metadata cannot be changed until it can");
        }
    }

    fn on_shortage_end(&mut self) {
        if std::mem::take(&mut self.is_stalled) {
            tracing::info!("the metadata log can be written again");
        }
    }

    fn write_and_sync(&mut self) -> Result<(), Fatal> {
        loop {
            self.write_ready()?;
            let Some(number) = self.unsynced else { return Ok(()) };
            if !planted!("SYNC") {
                self.node.mut_store().flush()?;
            }
            self.unsynced = None;
            self.on_persisted(number);
        }
    }

    fn on_persisted(&mut self, number: u64) {
        self.node.on_persisted(number);
        let messages = std::mem::take(&mut self.messages_after_sync);
        self.send(messages);
    }

    /// Writes entries and votes and applies committed entries. Does not sync them.
    fn write_ready(&mut self) -> Result<(), Fatal> {
        self.apply_committed()?;
        while let Some(mut unwritten) = self.unwritten.take().or_else(|| self.take_ready()) {
            if let Err(error) = self.write(&mut unwritten) {
                self.unwritten = Some(unwritten);
                return Err(error);
            }
            let Unwritten { mut ready, committed, snapshot_index, .. } = unwritten;
            let (number, must_sync) = (ready.number(), ready.must_sync());
            self.messages_after_sync.extend(ready.take_persisted_messages());
            self.node.advance(ready);
            self.update_voters()?;
            if let Some(index) = snapshot_index {
                // It is synced, and raft must count the snapshot as applied before anything else happens.
                self.unsynced = None;
                self.on_persisted(number);
                self.node.on_applied(index);
            } else if must_sync || self.unsynced.is_some() {
                self.unsynced = Some(number);
            } else {
                self.on_persisted(number);
            }
            self.unapplied.extend(committed);
            self.apply_committed()?;
            self.on_role();
            self.propose_first_batch();
        }
        Ok(())
    }

    /// raft and the transport hear of new voters as soon as these are in the log.
    fn update_voters(&mut self) -> Result<(), Fatal> {
        let (voters, are_stored) = (self.node.store().voters(), self.node.store().has_voters());
        if *voters != self.voters || are_stored != self.has_voters {
            (self.voters, self.has_voters) = (voters.clone(), are_stored);
            self.options.addresses.set_voters(self.voters.clone(), are_stored);
            self.options.transport.set_voters(&self.voters);
            self.node.update_voters()?;
            self.update_observing();
        }
        Ok(())
    }

    fn take_ready(&mut self) -> Option<Unwritten> {
        let mut ready = self.node.take_ready()?;
        if let Some(number) = confirmed(&mut ready) {
            self.on_confirmed(number);
        }
        // A leader's messages need not wait for its own disk.
        self.send(ready.take_messages());
        let (entries, committed) = (ready.take_entries().into(), ready.take_committed_entries());
        let index = ready.snapshot().get_metadata().index;
        let snapshot_index = (index > 0).then_some(index);
        let snapshot = snapshot_index.and_then(|_| self.fetched.take());
        Some(Unwritten { ready, snapshot, snapshot_index, entries, committed })
    }

    /// Removes each written entry from `unwritten`, so that a retry continues where the last try ended.
    fn write(&mut self, unwritten: &mut Unwritten) -> Result<(), Fatal> {
        let leader = self.node.leader();
        if let Some(snapshot) = &unwritten.snapshot {
            self.install(snapshot)?;
            unwritten.snapshot = None;
        }
        let store = self.node.mut_store();
        if let Some(hard_state) = unwritten.ready.hs() {
            let asked_from = &self.asked_from;
            store.set_hard_state(hard_state, leader, |id| asked_from.get(&id).copied().unwrap_or_default())?;
        }
        while let Some(entry) = unwritten.entries.front() {
            store.append(entry)?;
            unwritten.entries.pop_front();
        }
        if unwritten.snapshot_index.is_some() {
            store.flush()?;
        }
        let end_offset = store.end_offset();
        // The log of a follower may have been truncated. That of a leader lacks what it has only proposed.
        self.next_offset = if self.node.is_leader() { self.next_offset.max(end_offset) } else { end_offset };
        Ok(())
    }

    /// Notices that this node has won or lost an election, or has heard of another leader.
    fn on_role(&mut self) {
        let leader = self.node.leader();
        if self.leader.get() != leader {
            self.leader.set(leader);
            if let Some(leader) = leader.filter(|_| !self.node.store().is_sole_voter()) {
                tracing::info!(leader, epoch = self.node.epoch(), "a node leads the metadata quorum");
            }
        }
        let led = self.node.is_leader().then(|| self.node.epoch());
        if self.leads_in == led {
            return;
        }
        if self.leads_in.take().is_some() {
            // Records that are proposed but not committed may never be committed.
            self.refuse_pending(self.not_controller());
            self.refuse_change();
            self.observers.clear();
            self.working = self.committed.clone();
            self.next_offset = self.node.store().end_offset();
            (self.first_batch, self.is_setting_up) = (None, false);
        }
        self.leads_in = led;
    }

    /// Proposes the first batch of a new leader, after the entry with which raft begins its epoch. The batch says who
    /// leads; raft's entry says nothing, since each node makes its batch for itself.
    fn propose_first_batch(&mut self) {
        let (store, epoch) = (self.node.store(), self.node.epoch());
        if self.leads_in != Some(epoch) || self.first_batch.is_some() || store.last_epoch() != epoch {
            return;
        }
        let is_new = self.committed.cluster_id.is_empty();
        let records = store.leader_change_records(is_new.then(|| uuid_to_base64(self.env.random.uuid())));
        let batch = control_batch(self.next_offset, epoch, self.env.clock.now_ms(), &records);
        // While it is refused, this node does not become active; a leader that hands over its leadership need not.
        if self.node.propose(batch.to_vec()).is_ok() {
            self.next_offset += records.len() as Offset;
            self.first_batch = Some(self.next_offset - 1);
        }
    }

    fn refuse_pending(&mut self, reason: Unavailable) {
        let unconfirmed = self.unconfirmed.drain(..).map(|(_, pending)| pending);
        for pending in self.pending.drain(..).chain(unconfirmed) {
            let _ = pending.sender.send(Err(reason));
        }
    }

    fn apply_committed(&mut self) -> Result<(), Fatal> {
        while let Some(entry) = self.unapplied.pop_front() {
            // For an empty entry the storage has made the batch itself.
            let applied = if entry.data.is_empty() {
                self.apply_index(entry.index)
            } else {
                self.apply(entry.index, &entry.data)
            };
            if let Err(error) = applied {
                self.unapplied.push_front(entry);
                return Err(error);
            }
            if self.unapplied.is_empty() {
                self.node.on_applied(entry.index);
            }
        }
        Ok(())
    }

    /// Reads the batch of entry `index` from the log and applies it.
    fn apply_index(&mut self, index: u64) -> Result<(), Fatal> {
        let bytes = self.node.store().batch(index)?;
        self.apply(index, &bytes)
    }

    /// Applies the batch of entry `index` to the committed image.
    fn apply(&mut self, index: u64, bytes: &[u8]) -> Result<(), Fatal> {
        let fault = |error: &dyn std::fmt::Display| Fatal::Apply(format!("entry {index} of the metadata log: {error}"));
        let batch = BatchView::parse(bytes).map_err(|error| fault(&error))?;
        match read_batch(&batch).map_err(|error| fault(&error))? {
            BatchContent::Data(records) => {
                for record in records {
                    self.committed.apply(&record, &mut self.delta).map_err(|error| fault(&error))?;
                }
            }
            BatchContent::Control(_) if self.committed.cluster_id.is_empty() => {
                let id = self.node.store().cluster_id_at(batch.last_offset()).map(str::to_owned);
                id.map(|id| self.set_cluster_id(&id)).transpose()?;
            }
            BatchContent::Control(_) => {}
        }
        let provenance = &mut self.committed.provenance;
        *provenance = Provenance {
            last_contained_offset: batch.last_offset(),
            last_contained_epoch: batch.partition_leader_epoch(),
            // The first batch of an epoch has no timestamp.
            last_contained_log_time_ms: batch.max_timestamp().max(provenance.last_contained_log_time_ms),
        };
        Ok(())
    }

    /// The offset of the last record in the image of all committed records.
    fn applied_offset(&self) -> Offset {
        self.committed.provenance.last_contained_offset
    }

    fn publish(&mut self) {
        let applied = self.applied_offset();
        let previous = self.published.replace(applied);
        if previous == Some(applied) {
            return;
        }
        let delta = std::mem::take(&mut self.delta);
        self.committed.kraft_version = self.node.store().kraft_version();
        self.store.note(&delta);
        // Subscribers that came before the start get the whole image as one delta.
        let delta = if previous.is_none() { MetadataDelta::from_empty(&self.committed) } else { delta };
        self.publisher.hand_over(self.committed.clone(), delta);
        if self.next_offset == self.committed.provenance.last_contained_offset + 1 {
            // Nothing is in flight, so both images are equal. As a clone, `working` shares its topics with `committed`.
            self.working = self.committed.clone();
        }
    }

    fn answer(&mut self) {
        let applied = self.applied_offset();
        while self.pending.front().is_some_and(|pending| pending.offset <= applied) {
            if let Some(Pending { reply, sender, offset }) = self.pending.pop_front() {
                let _ = sender.send(Ok((reply, offset)));
            }
        }
    }

    fn describe_quorum(&self) -> Result<QuorumInfo, Unavailable> {
        if !self.node.is_leader() {
            return Err(self.not_controller());
        }
        let (store, now_ms) = (self.node.store(), self.env.clock.now_ms());
        let replica = |voter: &super::control_records::Voter| {
            let is_local = voter.voter_id == self.options.identity.node_id;
            let matched = self.node.matched(voter.voter_id).and_then(|index| store.end_offset_of(index));
            let (fetched_at_ms, caught_up_at_ms) = match is_local {
                true => (now_ms, now_ms),
                false => self.observers.times_ms(voter.voter_id, voter.voter_directory_id),
            };
            ReplicaInfo {
                id: voter.voter_id,
                directory_id: voter.voter_directory_id,
                log_end_offset: if is_local { store.end_offset() } else { matched.unwrap_or(-1) },
                last_fetch_timestamp_ms: fetched_at_ms,
                last_caught_up_timestamp_ms: caught_up_at_ms,
            }
        };
        Ok(QuorumInfo {
            leader_id: self.options.identity.node_id,
            leader_epoch: self.node.epoch(),
            high_watermark: self.committed.provenance.last_contained_offset + 1,
            voters: store.voters().voters.iter().map(replica).collect(),
            observers: self
                .observers
                .iter()
                .filter(|((id, directory_id), _)| {
                    !store.voters().contains(Identity { node_id: *id, directory_id: *directory_id })
                })
                .map(|((id, directory_id), observer)| ReplicaInfo {
                    id: *id,
                    directory_id: *directory_id,
                    log_end_offset: observer.end_offset,
                    last_fetch_timestamp_ms: observer.fetched_at_ms,
                    last_caught_up_timestamp_ms: observer.caught_up_at_ms,
                })
                .collect(),
            endpoints: store.voters().clone(),
        })
    }

    /// Starts a snapshot if enough bytes were written since the last one. The blocking pool writes it, and the driver
    /// continues meanwhile.
    fn maybe_snapshot(&mut self) {
        if self.running_snapshot.is_some()
            || self.events.is_none()
            || self.node.store().bytes_written() - self.bytes_at_snapshot < self.options.max_bytes_between_snapshots
            || self.env.clock.monotonic() < self.next_snapshot_at
        {
            return;
        }
        let Some((index, _)) = self.node.store().entry_ending_at(self.applied_offset()) else { return };
        if index <= self.last_snapshot_index {
            return;
        }
        self.running_snapshot = Some(self.node.store().bytes_written());
        let fetched = self.outgoing.values().map(|outgoing| outgoing.id).collect();
        self.store.save(&self.committed);
        let voters = self.node.store().voters_at(self.applied_offset()).clone();
        let image = self.committed.clone();
        let (disk, dir, now_ms) = (self.env.disk.clone(), self.options.dir.clone(), self.env.clock.now_ms());
        let write = move || {
            let id = snapshot::write(&*disk, &dir, &image, Some(&voters), index, now_ms)?;
            snapshot::delete_older(&*disk, &dir, id, &fetched)
        };
        let tasks = self.env.tasks.clone();
        self.send_after("metadata snapshot", async move {
            Event::SnapshotDone(index, tasks.blocking("write a metadata snapshot", write).await)
        });
    }

    /// Trims the log to the previous snapshot, so that the newest snapshot may be damaged without loss. If the snapshot
    /// failed, the log grows and the next start takes longer, but the broker need not stop.
    fn on_snapshot_done(&mut self, index: u64, written: io::Result<()>) -> Result<(), Fatal> {
        self.bytes_at_snapshot = match (self.running_snapshot.take(), &written) {
            (Some(bytes), Ok(())) => bytes,
            _ => self.bytes_at_snapshot,
        };
        if let Err(error) = written.and_then(|()| self.trim(index)) {
            tracing::error!(%error, "the metadata snapshot failed and will be tried again later");
            self.next_snapshot_at = self.env.clock.monotonic() + SNAPSHOT_RETRY;
        }
        // The log may have started a new segment.
        self.keep_reserve()
    }

    fn trim(&mut self, index: u64) -> io::Result<()> {
        if index <= self.last_snapshot_index {
            // A snapshot of the leader was installed meanwhile.
            return Ok(());
        }
        let previous = std::mem::replace(&mut self.last_snapshot_index, index);
        let store = self.node.mut_store();
        store.note_snapshot(index);
        store.compact(previous)
    }

    /// Whether another voter may have a piece of a snapshot (Apache: `validateLeaderOnlyRequest`).
    fn permit_piece(&mut self, request: PieceRequest) -> SnapshotPermission {
        let epoch = self.node.epoch();
        let permission = match request.leader_epoch.cmp(&epoch) {
            std::cmp::Ordering::Less => Err(PieceError::FencedLeaderEpoch),
            std::cmp::Ordering::Greater => Err(PieceError::UnknownLeaderEpoch),
            std::cmp::Ordering::Equal if !self.node.is_leader() => Err(PieceError::NotLeader),
            std::cmp::Ordering::Equal => Ok(()),
        };
        if permission.is_ok()
            && let Some(outgoing) = self.outgoing.get_mut(&request.replica).filter(|outgoing| outgoing.id == request.id)
        {
            outgoing.until = self.env.clock.monotonic() + SNAPSHOT_PATIENCE;
        }
        (self.node.leader(), epoch, permission)
    }

    /// Tells raft of transfers that have failed, so that it tries again: the message may be lost, or the voter has
    /// ended.
    fn end_silent_transfers(&mut self, now: Duration) {
        let node = &mut self.node;
        self.outgoing.retain(|voter, outgoing| {
            if outgoing.until <= now {
                node.snapshot_failed(*voter, outgoing.index);
            }
            node.is_sending_snapshot(*voter, outgoing.index)
        });
    }

    /// Begins to fetch the snapshot that the leader has named, with a message of raft or to an observer. raft gets the
    /// message when the snapshot is durable.
    fn fetch_snapshot(&mut self, leader: BrokerId, epoch: LeaderEpoch, id: SnapshotId, message: Option<Message>) {
        if self.incoming.as_ref().is_some_and(|incoming| (incoming.leader, incoming.epoch) == (leader, epoch)) {
            // The leader has become impatient, or it has a newer snapshot. It keeps the one that is being fetched.
            return;
        }
        self.attempts += 1;
        let (cancel, cancelled) = oneshot::channel();
        let fetch = SnapshotFetch {
            env: self.env.clone(),
            dir: self.options.dir.clone(),
            own: self.options.identity.node_id,
            own_directory: self.options.identity.directory_id,
            leader_epoch: epoch,
            id,
            attempt: self.attempts,
        };
        tracing::info!(
            leader,
            snapshot = id.file_name(),
            "fetching a metadata snapshot: the leader has trimmed its log"
        );
        let (attempt, clock) = (self.attempts, self.env.clock.clone());
        let source = self.options.transport.snapshots_of(leader);
        self.incoming = Some(Incoming { attempt, leader, epoch, message, _cancel: cancel });
        self.send_after("fetch a snapshot", async move {
            let fetched = tokio::select! {
                biased;
                _ = cancelled => Err(anyhow::anyhow!("another leader has sent a newer one")),
                fetched = fetch.run(source) => fetched.map(Box::new),
            };
            if fetched.is_err() {
                clock.sleep_until(clock.monotonic() + snapshot_fetch::RETRY).await;
            }
            Event::SnapshotFetched(attempt, fetched)
        });
    }

    fn on_snapshot_fetched(&mut self, attempt: u64, fetched: anyhow::Result<Box<Snapshot>>) -> Result<(), Fatal> {
        // Else another transfer has taken its place.
        let Some(incoming) = self.incoming.take_if(|incoming| incoming.attempt == attempt) else { return Ok(()) };
        if self.unwritten.is_some() {
            self.drive()?;
        }
        let checked = fetched.and_then(|snapshot| self.check_fetched(&incoming, &snapshot).map(|()| snapshot));
        match checked {
            Ok(snapshot) => {
                let message = self.install_message(incoming, &snapshot);
                self.fetched = Some(snapshot);
                self.node.step(message)?;
                self.drive()?;
                // raft may not need it any more. It is on the disk, where it does no harm.
                self.fetched = None;
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "a metadata snapshot could not be fetched");
                let Some(message) = incoming.message else { return Ok(()) };
                let failed = Message {
                    msg_type: MessageType::MsgSnapStatus,
                    to: message.from,
                    from: raft_id(self.options.identity.node_id),
                    term: message.term,
                    index: message.get_snapshot().get_metadata().index,
                    reject: true,
                    ..Message::default()
                };
                self.send([failed]);
            }
        }
        Ok(())
    }

    /// The message that lets raft install a snapshot. The leader does not know whether this node is among the voters of
    /// the snapshot, so the voters are those that this node sees there.
    fn install_message(&self, incoming: Incoming, snapshot: &Snapshot) -> Message {
        let (own, base) = (self.options.identity, snapshot.base());
        let mut message = incoming.message.unwrap_or_else(|| Message {
            msg_type: MessageType::MsgSnapshot,
            from: raft_id(incoming.leader),
            to: raft_id(own.node_id),
            term: incoming.epoch as u64,
            ..Message::default()
        });
        let voters = snapshot.voters.as_ref().unwrap_or(self.node.store().voters());
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (base.index, base.epoch as u64);
        metadata.set_conf_state(conf_state(voters, own));
        message
    }

    /// Checks that a snapshot is the one that the leader has named, and that it can be installed now.
    fn check_fetched(&self, incoming: &Incoming, snapshot: &Snapshot) -> anyhow::Result<()> {
        let base = snapshot.base();
        if let Some(message) = &incoming.message {
            let named = message.get_snapshot().get_metadata();
            anyhow::ensure!(
                (named.index, named.term) == (base.index, base.epoch as u64),
                "it ends with entry {} of epoch {}, the leader has named {} of {}",
                base.index,
                base.epoch,
                named.index,
                named.term
            );
        }
        anyhow::ensure!(self.unwritten.is_none(), "the metadata log cannot be written for now");
        Ok(())
    }

    /// Replaces the log and the image by a snapshot. Its file is durable, so a crash does no harm: the next start
    /// begins with the snapshot and empties the log again. If this fails, it may be retried.
    fn install(&mut self, snapshot: &Snapshot) -> Result<(), Fatal> {
        let base = snapshot.base();
        self.node.mut_store().install(base, snapshot.voters.clone())?;
        let image = MetadataImage { cluster_id: self.committed.cluster_id.clone(), ..snapshot.image.clone() };
        self.delta.merge(&MetadataDelta::between(&self.committed, &image));
        self.unapplied.clear();
        (self.committed, self.working) = (image.clone(), image);
        (self.last_snapshot_index, self.bytes_at_snapshot) = (base.index, self.node.store().bytes_written());
        tracing::info!(snapshot = snapshot.id.file_name(), "a metadata snapshot of the leader is installed");
        Ok(())
    }
}

/// For tests: a node that knows its cluster or learns it.
#[cfg(test)]
pub(crate) struct TestIdentity(pub std::sync::Mutex<Option<String>>);

#[cfg(test)]
impl TestIdentity {
    pub(crate) fn known(id: &str) -> Arc<Self> {
        Arc::new(TestIdentity(std::sync::Mutex::new(Some(id.to_owned()))))
    }
}

#[cfg(test)]
impl ClusterIdentity for TestIdentity {
    fn cluster_id(&self) -> Option<String> {
        crate::env::lock::lock(&self.0).clone()
    }

    fn adopt_cluster_id(&self, id: &str) -> io::Result<()> {
        crate::env::lock::lock(&self.0).get_or_insert(id.to_owned());
        Ok(())
    }
}

mod fencing;
mod observing;
mod voter_changes;

pub(super) use fencing::Asked;
use observing::TICKS_WITHOUT_LEADER;
pub use observing::{FetchedContent, MetadataFetch, MetadataFetchError, MetadataFetchReply, MetadataFetched};
pub(super) use observing::{Observed, Position};
use voter_changes::PendingChange;
pub(super) use voter_changes::VoterChangeSender;
pub use voter_changes::{VoterChange, VoterChangeError};

#[cfg(test)]
mod quorum_tests;
#[cfg(test)]
mod tests;
