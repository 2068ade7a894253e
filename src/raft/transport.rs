//! The way to the other voters: QuorumMessages and FetchSnapshot requests to their controller listeners.
//!
//! Owns one connection to each of them, its queue and its retries. A message that cannot be sent soon is dropped: raft
//! repeats what matters, and an old message helps nobody. If a voter closes its connection and then refuses others, its
//! process has ended: the driver hears of it and need not wait for a timeout. Leaves the content of messages to
//! `message.rs`.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use kafka_protocol::{
    messages::{
        self, FetchSnapshotRequest, TopicName,
        fetch_snapshot_request::{PartitionSnapshot, SnapshotId, TopicSnapshot},
    },
    protocol::StrBytes,
};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    addresses::Addresses,
    control_records::VotersRecord,
    driver::{ClusterIdentity, Transport},
    handle::ControllerHandle,
    snapshot_fetch::{MAX_PIECE_BYTES, Piece, PieceRequest, SnapshotSource, SourceError},
    voters::Identity,
};
use crate::{
    config::Endpoint,
    env::{Backoff, BoxFuture, Env, lock::lock},
    peer::{Peer, PeerError, Wire},
    protocol::quorum_messages::{
        QUORUM_MESSAGES, QUORUM_MESSAGES_VERSION, QuorumMessagesRequest, QuorumMessagesResponse,
    },
    types::{BrokerId, CLUSTER_METADATA_TOPIC},
};

/// Messages that wait for one voter. Further ones are dropped.
const MAX_QUEUED: usize = 1024;
/// The messages of one request have at most about this many bytes.
const MAX_REQUEST_BYTES: usize = 1 << 20;
const MAX_RESPONSE_BYTES: usize = 1 << 10;
const MAX_SNAPSHOT_RESPONSE_BYTES: usize = MAX_PIECE_BYTES + (1 << 10);
const FETCH_SNAPSHOT_VERSION: i16 = 1;
/// A connection that takes longer for one request is given up.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(1);
/// The waits after failures.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_millis(500);
/// A voter that refuses a connection, again after this time, and once more, has ended. One that restarts may refuse the
/// first.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
const PROBES: usize = 3;

/// At most this many nodes are sent messages. Nodes that are no voters may ask for a vote and get a response.
const MAX_LINKS: usize = 64;

/// This node, as the other voters see it.
#[derive(Clone)]
pub struct SelfAddress {
    pub identity: Identity,
    /// The incarnation of this node's broker; nil if it has none.
    pub broker_incarnation: Uuid,
    /// Where they reach its controller; `None` if it has no listener for them.
    pub endpoint: Option<Endpoint>,
    pub cluster: Arc<dyn ClusterIdentity>,
}

/// See the head of the file.
pub struct QuorumTransport {
    env: Env,
    own: SelfAddress,
    addresses: Arc<Addresses>,
    links: Mutex<BTreeMap<BrokerId, Queue>>,
    controller: Arc<OnceLock<ControllerHandle>>,
}

/// The messages for one node, and where it is.
struct Queue {
    messages: mpsc::Sender<Bytes>,
    target: Arc<Mutex<Target>>,
}

/// Where a node is, and which directory it must have.
#[derive(Clone)]
struct Target {
    endpoint: Endpoint,
    directory_id: Uuid,
}

/// The way to one voter.
struct Link {
    env: Env,
    own: SelfAddress,
    voter: BrokerId,
    target: Arc<Mutex<Target>>,
    peer: Option<Peer>,
    /// The voter has ended, and this was reported.
    has_ended: bool,
    /// Hears which voters have ended, once it is there.
    controller: Arc<OnceLock<ControllerHandle>>,
}

impl QuorumTransport {
    /// A transport that reaches nobody until it knows voters.
    pub fn new(env: &Env, own: SelfAddress, addresses: Arc<Addresses>) -> Arc<QuorumTransport> {
        let (env, controller) = (env.clone(), Arc::default());
        Arc::new(QuorumTransport { env, own, addresses, links: Mutex::default(), controller })
    }

    /// From now on the controller of this node hears which voters have ended.
    pub fn report_to(&self, controller: ControllerHandle) {
        // It is called once.
        let _ = self.controller.set(controller);
    }

    /// Starts the task that sends to a node. It connects when there is something to send, and ends with its queue.
    fn link(&self, voter: BrokerId, target: Target) -> Queue {
        let (messages, receiver) = mpsc::channel(MAX_QUEUED);
        let target = Arc::new(Mutex::new(target));
        let link = Link {
            env: self.env.clone(),
            own: self.own.clone(),
            voter,
            target: target.clone(),
            peer: None,
            has_ended: false,
            controller: self.controller.clone(),
        };
        self.env.tasks.spawn_until_stopped("send to a voter", link.run(receiver));
        Queue { messages, target }
    }
}

impl Transport for QuorumTransport {
    fn send(&self, to: BrokerId, message: Bytes) {
        // An error means that the queue is full, or that the broker stops.
        if lock(&self.links).get(&to).is_none_or(|queue| queue.messages.try_send(message).is_err()) {
            tracing::debug!(to, "a message to a voter is dropped");
        }
    }

    fn snapshots_of(&self, voter: BrokerId) -> Option<Box<dyn SnapshotSource>> {
        let endpoint = self.addresses.of(voter)?;
        let cluster_id = self.own.cluster.cluster_id().map(StrBytes::from_string);
        Some(Box::new(VoterSnapshots { env: self.env.clone(), cluster_id, endpoint, peer: None }))
    }

    fn set_voters(&self, voters: &VotersRecord) {
        let mut links = lock(&self.links);
        links.retain(|id, _| voters.voter(*id).is_some());
        for voter in voters.voters.iter().filter(|voter| voter.voter_id != self.own.identity.node_id) {
            let Some(endpoint) = self.addresses.of(voter.voter_id) else { continue };
            let target = Target { endpoint, directory_id: voter.voter_directory_id };
            match links.get(&voter.voter_id) {
                Some(queue) => *lock(&queue.target) = target,
                None => _ = links.insert(voter.voter_id, self.link(voter.voter_id, target)),
            }
        }
    }

    fn reach(&self, node: BrokerId, directory_id: Uuid, endpoint: Endpoint) {
        let mut links = lock(&self.links);
        if links.len() < MAX_LINKS && !links.contains_key(&node) {
            links.insert(node, self.link(node, Target { endpoint, directory_id }));
        }
    }
}

/// The snapshots of another voter, over a connection of their own.
struct VoterSnapshots {
    env: Env,
    /// `None` if this node does not know it yet.
    cluster_id: Option<StrBytes>,
    endpoint: Endpoint,
    peer: Option<Peer>,
}

impl SnapshotSource for VoterSnapshots {
    fn piece(&mut self, request: PieceRequest) -> BoxFuture<'_, Result<Piece, SourceError>> {
        Box::pin(self.fetch(request))
    }
}

impl VoterSnapshots {
    async fn fetch(&mut self, request: PieceRequest) -> Result<Piece, SourceError> {
        let failed = |error: PeerError| SourceError::Failed(error.into());
        let mut peer = match self.peer.take() {
            Some(peer) => peer,
            None => {
                let Endpoint { host, port } = &self.endpoint;
                let peer = Peer::connect(&self.env, host, *port, "ottla-quorum", MAX_SNAPSHOT_RESPONSE_BYTES);
                peer.await.map_err(failed)?
            }
        };
        let response = peer.call(FETCH_SNAPSHOT_VERSION, &self.to_wire(request)).await.map_err(failed)?;
        self.peer = Some(peer);
        let partition = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
        let error_code = partition.as_ref().map_or(0, |partition| partition.error_code);
        match (partition, [response.error_code, error_code].into_iter().find(|code| *code != 0)) {
            (_, Some(code)) => Err(SourceError::Refused(format!("error {code}"))),
            (Some(partition), None) => Ok(Piece {
                size: u64::try_from(partition.size).unwrap_or(0),
                position: u64::try_from(partition.position).unwrap_or(0),
                bytes: partition.unaligned_records,
            }),
            (None, None) => Err(SourceError::Refused("the response has no partition".into())),
        }
    }

    fn to_wire(&self, request: PieceRequest) -> FetchSnapshotRequest {
        let PieceRequest { replica, replica_directory, leader_epoch, id, position, max_bytes } = request;
        let partition = PartitionSnapshot::default()
            .with_current_leader_epoch(leader_epoch)
            .with_snapshot_id(SnapshotId::default().with_end_offset(id.end_offset).with_epoch(id.epoch))
            .with_position(position as i64)
            .with_replica_directory_id(replica_directory);
        let topic = TopicSnapshot::default()
            .with_name(TopicName(StrBytes::from_static_str(CLUSTER_METADATA_TOPIC)))
            .with_partitions(vec![partition]);
        FetchSnapshotRequest::default()
            .with_cluster_id(self.cluster_id.clone())
            .with_replica_id(messages::BrokerId(replica))
            .with_max_bytes(i32::try_from(max_bytes).unwrap_or(i32::MAX))
            .with_topics(vec![topic])
    }
}

impl Link {
    async fn run(mut self, mut queue: mpsc::Receiver<Bytes>) {
        let mut backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
        loop {
            let first = tokio::select! {
                biased;
                first = queue.recv() => first,
                () = closed(&mut self.peer) => {
                    self.peer = None;
                    self.probe().await;
                    continue;
                }
            };
            let Some(first) = first else { return };
            let messages = with_more(first, &mut queue);
            match self.exchange(messages).await {
                Ok(()) => {
                    backoff.reset();
                    self.has_ended = false;
                }
                Err(error) => {
                    tracing::debug!(voter = self.voter, %error, "cannot send to a voter");
                    self.peer = None;
                    self.probe().await;
                    self.env.clock.sleep_until(self.env.clock.monotonic() + backoff.next_wait()).await;
                    while queue.try_recv().is_ok() {}
                }
            }
        }
    }

    fn target(&self) -> Target {
        lock(&self.target).clone()
    }

    /// Finds out whether a voter that has closed its connection has ended.
    async fn probe(&mut self) {
        for probe in 0..PROBES {
            if probe > 0 {
                self.env.clock.sleep_until(self.env.clock.monotonic() + PROBE_INTERVAL).await;
            }
            match connect(&self.env, &self.target().endpoint).await {
                Err(PeerError::Connect(_, error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                // Its kernel is closing the listener, and will refuse the next.
                Err(PeerError::Connect(_, error)) if error.kind() == io::ErrorKind::ConnectionReset && probe == 0 => {}
                connected => return self.peer = connected.ok(),
            }
        }
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        tracing::info!(voter = self.voter, "a voter of the metadata quorum has ended: it refuses connections");
        if let Some(controller) = self.controller.get() {
            controller.voter_has_ended(self.voter).await;
        }
    }

    async fn exchange(&mut self, messages: Vec<Bytes>) -> anyhow::Result<()> {
        let SelfAddress { identity, broker_incarnation, endpoint, cluster } = &self.own;
        let (host, port) = endpoint.as_ref().map_or(("", 0), |endpoint| (&*endpoint.host, endpoint.port));
        let request = QuorumMessagesRequest {
            cluster_id: StrBytes::from_string(cluster.cluster_id().unwrap_or_default()),
            from: identity.node_id,
            from_directory: identity.directory_id,
            to_directory: self.target().directory_id,
            host: StrBytes::from_string(host.to_owned()),
            port,
            broker_incarnation: *broker_incarnation,
            messages,
        };
        let env = self.env.clone();
        let response = env.within(EXCHANGE_LIMIT, self.send(request.encode())).await;
        let response = response.with_context(|| format!("no response within {EXCHANGE_LIMIT:?}"))??;
        let error_code = QuorumMessagesResponse::decode(response)?.error_code;
        anyhow::ensure!(error_code == 0, "the voter answers with error {error_code}");
        Ok(())
    }

    async fn send(&mut self, body: Bytes) -> Result<Bytes, PeerError> {
        let mut peer = match self.peer.take() {
            Some(peer) => peer,
            None => connect(&self.env, &self.target().endpoint).await?,
        };
        let response = peer.exchange(Wire::new(QUORUM_MESSAGES, QUORUM_MESSAGES_VERSION, false), &body).await?;
        self.peer = Some(peer);
        Ok(response)
    }
}

async fn connect(env: &Env, Endpoint { host, port }: &Endpoint) -> Result<Peer, PeerError> {
    Peer::connect(env, host, *port, "ottla-quorum", MAX_RESPONSE_BYTES).await
}

/// Ready when an open connection is closed by the other side.
async fn closed(peer: &mut Option<Peer>) {
    match peer {
        Some(peer) => peer.closed().await,
        None => std::future::pending().await,
    }
}

/// Adds what else waits, up to about [`MAX_REQUEST_BYTES`].
fn with_more(first: Bytes, queue: &mut mpsc::Receiver<Bytes>) -> Vec<Bytes> {
    let mut bytes = first.len();
    let mut messages = vec![first];
    while bytes < MAX_REQUEST_BYTES
        && let Ok(message) = queue.try_recv()
    {
        bytes += message.len();
        messages.push(message);
    }
    messages
}
