//! The way to the other voters: QuorumMessages and FetchSnapshot requests to their controller listeners.
//!
//! Owns one connection to each of them, its queue and its retries. A message that cannot be sent soon is dropped: raft
//! repeats what matters, and an old message helps nobody. If a voter closes its connection and then refuses others, its
//! process has ended: the driver hears of it and need not wait for a timeout. Leaves the content of messages to
//! `message.rs`.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, OnceLock},
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

use super::{
    driver::Transport,
    handle::ControllerHandle,
    snapshot_fetch::{MAX_PIECE_BYTES, Piece, PieceRequest, SnapshotSource, SourceError},
};
use crate::{
    config::Endpoint,
    env::{Backoff, BoxFuture, Env},
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
/// A voter that refuses a connection twice within this time has ended. One that restarts may refuse the first.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// See the head of the file.
pub struct QuorumTransport {
    env: Env,
    cluster_id: StrBytes,
    voters: BTreeMap<BrokerId, Endpoint>,
    queues: BTreeMap<BrokerId, mpsc::Sender<Bytes>>,
    controller: Arc<OnceLock<ControllerHandle>>,
}

/// The way to one voter.
struct Link {
    env: Env,
    own: BrokerId,
    cluster_id: StrBytes,
    voter: BrokerId,
    endpoint: Endpoint,
    peer: Option<Peer>,
    /// The voter has ended, and this was reported.
    has_ended: bool,
    /// Hears which voters have ended, once it is there.
    controller: Arc<OnceLock<ControllerHandle>>,
}

impl QuorumTransport {
    /// Starts the tasks that send to the other voters. They connect when there is something to send.
    pub fn start(env: &Env, own: BrokerId, cluster_id: &str, voters: &[(BrokerId, Endpoint)]) -> Arc<QuorumTransport> {
        let controller = Arc::<OnceLock<ControllerHandle>>::default();
        let cluster_id = StrBytes::from_string(cluster_id.to_owned());
        let others = voters.iter().filter(|(voter, _)| *voter != own);
        let queues = others.map(|(voter, endpoint)| {
            let (sender, receiver) = mpsc::channel(MAX_QUEUED);
            let link = Link {
                env: env.clone(),
                own,
                cluster_id: cluster_id.clone(),
                voter: *voter,
                endpoint: endpoint.clone(),
                peer: None,
                has_ended: false,
                controller: controller.clone(),
            };
            env.tasks.spawn_until_stopped("send to a voter", link.run(receiver));
            (*voter, sender)
        });
        let queues = queues.collect();
        let voters = voters.iter().cloned().collect();
        Arc::new(QuorumTransport { env: env.clone(), cluster_id, voters, queues, controller })
    }

    /// From now on the controller of this node hears which voters have ended.
    pub fn report_to(&self, controller: ControllerHandle) {
        // It is called once.
        let _ = self.controller.set(controller);
    }
}

impl Transport for QuorumTransport {
    fn send(&self, to: BrokerId, message: Bytes) {
        // An error means that the queue is full, or that the broker stops.
        if self.queues.get(&to).is_none_or(|queue| queue.try_send(message).is_err()) {
            tracing::debug!(to, "a message to a voter is dropped");
        }
    }

    fn snapshots_of(&self, voter: BrokerId) -> Option<Box<dyn SnapshotSource>> {
        let endpoint = self.voters.get(&voter)?.clone();
        let (env, cluster_id) = (self.env.clone(), self.cluster_id.clone());
        Some(Box::new(VoterSnapshots { env, cluster_id, endpoint, peer: None }))
    }
}

/// The snapshots of another voter, over a connection of their own.
struct VoterSnapshots {
    env: Env,
    cluster_id: StrBytes,
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
            .with_cluster_id(Some(self.cluster_id.clone()))
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

    /// Finds out whether a voter that has closed its connection has ended.
    async fn probe(&mut self) {
        for _ in 0..2 {
            match connect(&self.env, &self.endpoint).await {
                Err(PeerError::Connect(_, error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                connected => return self.peer = connected.ok(),
            }
            self.env.clock.sleep_until(self.env.clock.monotonic() + PROBE_INTERVAL).await;
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
        let request = QuorumMessagesRequest { cluster_id: self.cluster_id.clone(), from: self.own, messages };
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
            None => connect(&self.env, &self.endpoint).await?,
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
