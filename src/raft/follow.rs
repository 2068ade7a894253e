//! The task of a node that follows the metadata log without being a voter: a broker, or a controller that may become a
//! voter (KIP-853). Apache: the unattached and the follower states of an observer.
//!
//! Owns the search for the leader and the Fetch requests to it, in Kafka's format. A voter that has heard of no leader
//! for long searches, too: it may have been removed. A node that is new asks for the id of its cluster first. Leaves
//! what is fetched to the driver.

use std::time::Duration;

use anyhow::Context as _;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeClusterRequest, DescribeQuorumRequest, TopicName,
        describe_quorum_request::{self, TopicData},
    },
    protocol::StrBytes,
};

use super::{
    driver::{FetchedContent, MetadataFetched, Observed, Position},
    handle::ControllerHandle,
    snapshot::SnapshotId,
    transport::SelfAddress,
};
use crate::{
    config::Endpoint,
    env::{Backoff, Env},
    peer::{Peer, Wire},
    protocol::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchedRecords, PartitionData},
    types::{CLUSTER_METADATA_TOPIC, LeaderEpoch, METADATA_TOPIC_ID},
};

const FETCH: i16 = 1;
const FETCH_VERSION: i16 = 17;
const DESCRIBE_CLUSTER_VERSION: i16 = 1;
const DESCRIBE_QUORUM_VERSION: i16 = 1;
const ENDPOINT_CONTROLLERS: i8 = 2;
/// The leader keeps a request for this long if there is nothing new.
const WAIT: Duration = Duration::from_millis(500);
/// The wait before the next request while a snapshot is fetched.
const SNAPSHOT_WAIT: Duration = Duration::from_millis(100);
/// Beyond the wait.
const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_RESPONSE_BYTES: usize = 64 << 20;
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_millis(500);

/// Follows the quorum whenever this node must, until it stops.
pub async fn follow(env: Env, own: SelfAddress, controller: ControllerHandle) {
    let mut follower = Follower { env, own, controller, peer: None, next: 0, epoch: -1 };
    let mut backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
    loop {
        follower.controller.observes().await;
        let Some(position) = follower.controller.position().await else { return };
        match follower.fetch(position).await {
            Ok(()) => backoff.reset(),
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "cannot fetch the metadata log");
                follower.peer = None;
                follower.env.clock.sleep_until(follower.env.clock.monotonic() + backoff.next_wait()).await;
            }
        }
    }
}

struct Follower {
    env: Env,
    own: SelfAddress,
    controller: ControllerHandle,
    /// The connection to the node that is or may be the leader.
    peer: Option<Peer>,
    /// Counts the addresses that were tried.
    next: usize,
    /// The newest epoch of a leader that another node has named.
    epoch: LeaderEpoch,
}

impl Follower {
    async fn fetch(&mut self, position: Position) -> anyhow::Result<()> {
        let request = self.request(position);
        let env = self.env.clone();
        let limit = WAIT + TIMEOUT;
        let response = env.within(limit, self.exchange(&request)).await;
        let response = response.with_context(|| format!("no response within {limit:?}"))??;
        if let Some(error) = ResponseError::try_from_code(response.error_code) {
            self.next += 1;
            anyhow::bail!("{error}");
        }
        let partition = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
        let partition = partition.context("the response has no partition")?;
        let leader = partition.current_leader.filter(|leader| leader.leader_id >= 0);
        self.epoch = self.epoch.max(leader.map_or(-1, |leader| leader.leader_epoch));
        for node in &response.node_endpoints {
            if let Ok(port) = u16::try_from(node.port)
                && leader.is_some_and(|leader| leader.leader_id == node.node_id)
            {
                self.controller.leader_is_at(node.node_id, Endpoint { host: node.host.clone(), port });
            }
        }
        match ResponseError::try_from_code(partition.error_code) {
            None => {
                let leader = leader.context("the response names no leader")?;
                let (leader, epoch) = (leader.leader_id, leader.leader_epoch);
                let fetched = fetched(partition);
                let is_snapshot = matches!(fetched.content, FetchedContent::Snapshot(_));
                self.controller.observed(Observed { leader, epoch, offset: position.offset, fetched }).await;
                if is_snapshot {
                    // It is being fetched, and until it is there nothing else helps.
                    self.env.clock.sleep_until(self.env.clock.monotonic() + SNAPSHOT_WAIT).await;
                }
                Ok(())
            }
            Some(error) => {
                // It has named the leader, or the next address is tried.
                self.next += 1;
                anyhow::bail!("{error}")
            }
        }
    }

    fn request(&self, Position { epoch, offset, last_epoch, .. }: Position) -> FetchRequest {
        let partition = FetchPartition {
            current_leader_epoch: epoch.max(self.epoch),
            fetch_offset: offset,
            last_fetched_epoch: last_epoch,
            partition_max_bytes: MAX_RESPONSE_BYTES as i32,
            replica_directory_id: self.own.identity.directory_id,
            ..FetchPartition::default()
        };
        FetchRequest {
            cluster_id: self.own.cluster.cluster_id().map(StrBytes::from_string),
            replica_id: self.own.identity.node_id,
            max_wait_ms: WAIT.as_millis() as i32,
            max_bytes: MAX_RESPONSE_BYTES as i32,
            topics: vec![FetchTopic {
                topic_id: METADATA_TOPIC_ID,
                partitions: vec![partition],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        }
    }

    async fn exchange(&mut self, request: &FetchRequest) -> anyhow::Result<FetchResponse> {
        let mut peer = match self.peer.take() {
            Some(peer) => peer,
            None => {
                let mut all = self.controller.addresses().all();
                all.retain(|endpoint| Some(endpoint) != self.own.endpoint.as_ref());
                anyhow::ensure!(!all.is_empty(), "no controller is known");
                let Endpoint { host, port } = &all[self.next % all.len()];
                let connected = Peer::connect(&self.env, host, *port, "ottla-metadata", MAX_RESPONSE_BYTES).await;
                // Only a leader is asked again.
                self.next += usize::from(connected.is_err());
                connected?
            }
        };
        if self.own.cluster.cluster_id().is_none()
            && let Err(error) = self.learn_cluster_id(&mut peer).await
        {
            self.next += 1;
            return Err(error);
        }
        let response = peer.exchange(Wire::new(FETCH, FETCH_VERSION, true), &request.encode(FETCH_VERSION)).await;
        let response = match response {
            Ok(response) => FetchResponse::decode(FETCH_VERSION, response)?,
            Err(error) => {
                self.next += 1;
                return Err(error.into());
            }
        };
        self.peer = Some(peer);
        Ok(response)
    }
}

impl Follower {
    /// Asks a controller for the id of its cluster. If the settings of this node list it as a voter, only a quorum that
    /// has this node among its voters is its own: the other node may belong to another cluster.
    async fn learn_cluster_id(&mut self, peer: &mut Peer) -> anyhow::Result<()> {
        let own = self.own.identity.node_id;
        if self.controller.addresses().lists(own) {
            let topic = TopicData::default()
                .with_topic_name(TopicName(StrBytes::from_static_str(CLUSTER_METADATA_TOPIC)))
                .with_partitions(vec![describe_quorum_request::PartitionData::default()]);
            let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
            let response = peer.call(DESCRIBE_QUORUM_VERSION, &request).await?;
            let partition = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
            let partition = partition.filter(|partition| partition.error_code == 0).context("it does not lead")?;
            let is_voter = partition.current_voters.iter().any(|voter| voter.replica_id.0 == own);
            anyhow::ensure!(is_voter, "its quorum does not know this node");
        }
        let request = DescribeClusterRequest::default().with_endpoint_type(ENDPOINT_CONTROLLERS);
        let response = peer.call(DESCRIBE_CLUSTER_VERSION, &request).await?;
        anyhow::ensure!(!response.cluster_id.is_empty(), "it does not know its cluster yet");
        self.controller.learn_cluster_id(&response.cluster_id).await;
        Ok(())
    }
}

fn fetched(partition: PartitionData) -> MetadataFetched {
    let content = match (partition.diverging_epoch, partition.snapshot_id) {
        (Some(diverging), _) => FetchedContent::Diverging(diverging.epoch, diverging.end_offset),
        (None, Some(id)) => FetchedContent::Snapshot(SnapshotId { end_offset: id.end_offset, epoch: id.epoch }),
        (None, None) => FetchedContent::Records(match partition.records {
            FetchedRecords::Memory(pieces) => pieces.into_iter().next().unwrap_or_default(),
            FetchedRecords::Empty | FetchedRecords::File { .. } => bytes::Bytes::new(),
        }),
    };
    let (high_watermark, log_start_offset) = (partition.high_watermark, partition.log_start_offset);
    MetadataFetched { high_watermark, log_start_offset, content }
}
