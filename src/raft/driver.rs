//! The one thread that owns the quorum and the controller.
//!
//! Owns the order of the steps of a change. The controller decides a request at once on the newest state, committed or
//! not, and its records are proposed as one entry. Requests that arrive meanwhile share one fsync. Then raft commits,
//! the records are applied to the image, the image is handed over to the publisher, and the request is answered with
//! the offset at which it is published. A quorum of one takes the same path: it elects itself, and its own fsync is the
//! majority. Such a quorum has no timer, so an idle broker sleeps; with other voters raft gets its ticks. A full disk
//! stops nothing: if neither the log nor its reserve has room, or no file descriptor is free, the pending writes are
//! kept and retried, the waiting requests fail with a timeout, and no new request is decided until the writes succeed.
//!
//! The parts in `driver/`: `start`, `replies` that wait, `messages` of voters, `voter_changes`, `observing` as a node
//! without a vote, `fencing` of brokers, `snapshots`, `shortage`. Leaves decisions to `controller`, storage to
//! `storage.rs`, the way of messages to the transport, and all that the broker does with a new image to the publisher.

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

pub use self::start::{Options, StartError, Started, start};
use self::{
    replies::{Pending, Replies},
    shortage::Shortage,
    snapshots::Snapshots,
};
use super::{
    addresses::Addresses,
    cached_image::CachedImage,
    control_records::{BatchContent, VoterEndpoint, VotersRecord, control_batch, data_batch, read_batch},
    handle::{ControllerHandle, Event, QuorumGauges, QuorumInfo, ReplicaInfo, SnapshotPermission, Unavailable},
    node::{Entry, Message, MessageType, Node, RaftError, Ready, Refused, confirmed},
    observers::Observers,
    snapshot::{self, Snapshot, SnapshotId},
    snapshot_fetch::{PieceError, PieceRequest, SnapshotFiles, SnapshotSource},
    storage::{BatchLog, MetadataStorage, node_id, raft_id},
    voters::Identity,
};
use crate::{
    config::Endpoint,
    controller::{
        self, ConfigSchema, ControllerSettings, Entropy, Reply, Request, StepContext,
        brokers::{RegisterBroker, check_not_taken},
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

/// raft's unit of time, as long as there are other voters. Without them there are no ticks, and an idle node sleeps.
const TICK: Duration = Duration::from_millis(50);

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

/// Waits for an event, or for the time of the next tick. `None` if nobody can send events any more.
async fn next_event(events: &mut mpsc::Receiver<Event>, tick: Option<BoxFuture<'static, ()>>) -> Option<Event> {
    let Some(tick) = tick else { return events.recv().await };
    tokio::select! {
        biased;
        event = events.recv() => event,
        () = tick => Some(Event::Tick),
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
    shortage: Shortage,
    /// For events that the driver's own tasks send; `None` during the start. Weak, so that the driver still ends when
    /// all controller handles are dropped.
    events: Option<mpsc::WeakSender<Event>>,
    replies: Replies,
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
    snapshots: Snapshots,
}

impl Driver {
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
        if self.shortage.is_stalled && matches!(event, Event::Request(..)) {
            // A failed write costs almost nothing, and there may be room again.
            self.drive()?;
        }
        match event {
            Event::Request(_, sender) if self.shortage.is_stalled && self.node.is_leader() => {
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
                        Ok((reply, offset)) => {
                            let has_records = self.next_offset > before;
                            let pending = Pending { offset, reply, sender };
                            self.replies.add(pending, has_records || self.node.store().is_sole_voter());
                        }
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
                self.shortage.is_retry_armed = false;
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
        self.shortage.on_proposed(batch.len());
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

    fn not_controller(&self) -> Unavailable {
        Unavailable::NotController(self.node.leader())
    }

    /// Does the work that raft requests, until none is left or a shortage stops it.
    fn drive(&mut self) -> Result<(), Fatal> {
        let mut has_written = false;
        if let Some(question) = self.replies.question() {
            self.node.confirm(question);
        }
        match self.write_and_sync().and_then(|()| self.set_up()).and_then(|()| self.register_late()) {
            Ok(()) => {
                has_written = self.shortage.on_written();
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
        self.replies.send(self.applied_offset());
        self.answer_change();
        self.set_gauges();
        if self.shortage.is_stalled {
            self.replies.refuse(Unavailable::TimedOut);
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
        self.is_setting_up = self.propose(&bootstrap_records(self.options.schema.as_ref()))?.is_ok();
        self.write_and_sync()
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
            self.replies.on_confirmed(number);
        }
        // A leader's messages need not wait for its own disk.
        self.send(ready.take_messages());
        let (entries, committed) = (ready.take_entries().into(), ready.take_committed_entries());
        let index = ready.snapshot().get_metadata().index;
        let snapshot_index = (index > 0).then_some(index);
        let snapshot = snapshot_index.and_then(|_| self.snapshots.fetched.take());
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
            self.replies.refuse(self.not_controller());
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
mod messages;
mod observing;
mod replies;
mod shortage;
mod snapshots;
mod start;
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
