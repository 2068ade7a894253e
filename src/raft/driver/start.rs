//! The start of the quorum's thread: the image and the log as the last process left them.
//!
//! Owns what must agree before this node takes part: the stored image, the newest snapshot, the log, and the settings
//! that say where the quorum is. Leaves the log's own repair to `metadata_log.rs` and `storage.rs`.

use super::*;
use crate::{
    controller::brokers::BrokerHeartbeat,
    metadata::image::Provenance,
    raft::{
        cached_image::STORE_DIR,
        metadata_log::LOSS_INSTRUCTIONS,
        storage::{Base, QuorumStart},
    },
};

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

/// Reports the end of the thread, also after a panic.
struct Ended(Arc<Watched<bool>>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.set(true);
    }
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

impl Driver {
    /// Loads the image from the store or a snapshot, then replays the log after it.
    pub(super) fn open(
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
            shortage: Shortage::default(),
            events: None,
            replies: Replies::default(),
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
            snapshots: Snapshots::since(base.index),
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
    pub(super) fn begin(&mut self) -> Result<Option<i64>, StartError> {
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
            self.propose(&bootstrap_records(self.options.schema.as_ref()))?.map_err(|Refused| refused())?;
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
    pub(super) fn register(&mut self, request: RegisterBroker) -> Result<i64, StartError> {
        let broker_id = request.broker_id;
        let (Reply::RegisterBroker(reply), _) = self.decide(request.into())?.map_err(|Refused| refused())? else {
            unreachable!("the reply is of the request's kind")
        };
        let epoch = reply.map_err(StartError::Registration)?;
        self.decide(BrokerHeartbeat::new(broker_id, epoch).into())?.map_err(|Refused| refused())?;
        Ok(epoch)
    }

    /// Registers the broker if a shortage prevented that at the start.
    pub(super) fn register_late(&mut self) -> Result<(), Fatal> {
        let Some(request) = self.unregistered.take() else { return Ok(()) };
        self.register(request).map_err(|error| match error {
            StartError::Io(error) => Fatal::Io(error),
            StartError::Raft(error) => Fatal::Raft(error),
            other => Fatal::Apply(other.to_string()),
        })?;
        self.write_and_sync()
    }
}
