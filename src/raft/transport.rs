//! The way to the other voters: QuorumMessages requests to their controller listeners.
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
use kafka_protocol::protocol::StrBytes;
use tokio::sync::mpsc;

use super::{driver::Transport, handle::ControllerHandle};
use crate::{
    config::Endpoint,
    env::Env,
    peer::{Peer, PeerError, Wire},
    protocol::quorum_messages::{
        QUORUM_MESSAGES, QUORUM_MESSAGES_VERSION, QuorumMessagesRequest, QuorumMessagesResponse,
    },
    types::BrokerId,
};

/// Messages that wait for one voter. Further ones are dropped.
const MAX_QUEUED: usize = 1024;
/// The messages of one request have at most about this many bytes.
const MAX_REQUEST_BYTES: usize = 1 << 20;
const MAX_RESPONSE_BYTES: usize = 1 << 10;
/// A connection that takes longer for one request is given up.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(1);
/// The wait after a failure, which doubles up to the longest wait.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_millis(500);
/// A voter that refuses a connection twice within this time has ended. One that restarts may refuse the first.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// See the head of the file.
pub struct QuorumTransport {
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
    /// Hears which voters have ended, once it is there.
    controller: Arc<OnceLock<ControllerHandle>>,
}

impl QuorumTransport {
    /// Starts the tasks that send to the other voters. They connect when there is something to send.
    pub fn start(env: &Env, own: BrokerId, cluster_id: &str, voters: &[(BrokerId, Endpoint)]) -> Arc<QuorumTransport> {
        let controller = Arc::<OnceLock<ControllerHandle>>::default();
        let others = voters.iter().filter(|(voter, _)| *voter != own);
        let queues = others.map(|(voter, endpoint)| {
            let (sender, receiver) = mpsc::channel(MAX_QUEUED);
            let link = Link {
                env: env.clone(),
                own,
                cluster_id: StrBytes::from_string(cluster_id.to_owned()),
                voter: *voter,
                endpoint: endpoint.clone(),
                peer: None,
                controller: controller.clone(),
            };
            env.tasks.spawn_until_stopped("send to a voter", link.run(receiver));
            (*voter, sender)
        });
        Arc::new(QuorumTransport { queues: queues.collect(), controller })
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
}

impl Link {
    async fn run(mut self, mut queue: mpsc::Receiver<Bytes>) {
        let mut backoff = FIRST_BACKOFF;
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
                Ok(()) => backoff = FIRST_BACKOFF,
                Err(error) => {
                    tracing::debug!(voter = self.voter, %error, "cannot send to a voter");
                    self.peer = None;
                    self.probe().await;
                    self.env.clock.sleep_until(self.env.clock.monotonic() + backoff).await;
                    backoff = LONGEST_BACKOFF.min(2 * backoff);
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
