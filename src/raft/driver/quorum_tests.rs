//! Three nodes of one quorum on simulated disks, clocks and links, through faults that a seed chooses.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Mutex,
};

use kafka_protocol::error::ResponseError;

use super::*;
use crate::{
    controller::{
        brokers::BrokerHeartbeat,
        testing::TestSchema,
        topics::{CreatableTopic, CreateTopics, DeleteTopics, TopicReference},
    },
    env::{Clock, Disk},
    log::{Log, LogContext, OpenLog},
    metadata::{image::TopicImage, publisher::Subscriber},
    protocol::record_batch::iter_batches,
    raft::{
        MetadataLog,
        control_records::{ControlRecord, KRaftVersionFeature, Voter},
        metadata_log::log_config,
        snapshot_fetch::{Piece, SourceError},
    },
    sim::{NodeId, SimDisk, SimNet, Simulation, World, seeds},
    types::{CLUSTER_METADATA_TOPIC, TopicId, TopicPartition},
};

/// The node that owns what is on its way.
const NETWORK: NodeId = 0;
/// The node that calls the controllers.
const CLIENT: NodeId = 100;
const NODES: [NodeId; 3] = [1, 2, 3];
const LIMIT: Duration = Duration::from_secs(60);
/// Longer than any simulation.
const FOR_EVER: Duration = Duration::from_secs(86_400);
/// Bytes of one piece of a snapshot.
const PIECE_BYTES: usize = 500;
const DIR: &str = "/data/__cluster_metadata-0";

type Controllers = Arc<Mutex<BTreeMap<NodeId, ControllerHandle>>>;

/// Messages take their time, overtake each other, and are lost on a cut link.
struct SimTransport {
    world: World,
    net: SimNet,
    own: NodeId,
    controllers: Controllers,
}

impl Transport for SimTransport {
    fn send(&self, to: BrokerId, message: Bytes) {
        let (net, own, to, controllers) = (self.net.clone(), self.own, to as NodeId, self.controllers.clone());
        if net.is_cut(own, to) {
            return;
        }
        let arrives = self.world.sleep_until(net.arrival());
        self.world.spawn(NETWORK, async move {
            arrives.await;
            let controller = controllers.lock().unwrap().get(&to).cloned();
            if let Some(controller) = controller.filter(|_| !net.is_cut(own, to)) {
                let request = QuorumMessagesRequest {
                    cluster_id: "cluster".into(),
                    from: own as BrokerId,
                    from_directory: Uuid::from_u128(own.into()),
                    messages: vec![message],
                    ..QuorumMessagesRequest::default()
                };
                controller.deliver(request).await;
            }
        });
    }

    fn snapshots_of(&self, voter: BrokerId) -> Option<Box<dyn SnapshotSource>> {
        let (world, net, controllers) = (self.world.clone(), self.net.clone(), self.controllers.clone());
        Some(Box::new(SimSource { world, net, own: self.own, voter: voter as NodeId, controllers }))
    }

    fn set_voters(&self, _: &VotersRecord) {}

    fn reach(&self, _: BrokerId, _: Uuid, _: Endpoint) {}
}

/// The snapshots of another node, in small pieces. Requests and responses are lost on a cut link.
struct SimSource {
    world: World,
    net: SimNet,
    own: NodeId,
    voter: NodeId,
    controllers: Controllers,
}

impl SnapshotSource for SimSource {
    fn piece(&mut self, request: PieceRequest) -> BoxFuture<'_, Result<Piece, SourceError>> {
        let request = PieceRequest { max_bytes: PIECE_BYTES, ..request };
        Box::pin(async move {
            self.world.sleep_until(self.net.arrival()).await;
            let controller = self.controllers.lock().unwrap().get(&self.voter).cloned();
            let Some(controller) = controller.filter(|_| !self.net.is_cut(self.own, self.voter)) else {
                return std::future::pending().await;
            };
            let response = controller.snapshot_piece(request).await;
            let response = response.map_err(|error| SourceError::Failed(error.into()))?;
            self.world.sleep_until(self.net.arrival()).await;
            if self.net.is_cut(self.voter, self.own) {
                return std::future::pending().await;
            }
            response.piece.map_err(|error| SourceError::Refused(error.to_string()))
        })
    }
}

/// Checks that the deltas lead from image to image.
#[derive(Default)]
struct Follows(Mutex<BTreeMap<TopicId, BTreeSet<i32>>>);

impl Subscriber for Follows {
    fn on_delta(&self, image: &Arc<MetadataImage>, delta: &MetadataDelta) {
        let mut topics = self.0.lock().unwrap();
        for id in delta.deleted_topics.keys() {
            assert!(topics.remove(id).is_some(), "only known topics are deleted");
        }
        for (id, topic) in &delta.topics {
            assert_eq!(topic.created, !topics.contains_key(id));
            topics.entry(*id).or_default().extend(&topic.partitions);
        }
        let partitions = |topic: &Arc<TopicImage>| (topic.id, topic.partitions.keys().copied().collect());
        assert_eq!(*topics, image.topics.by_name.values().map(partitions).collect());
    }
}

struct Quorum {
    world: Simulation,
    /// `metadata.log.max.record.bytes.between.snapshots`.
    snapshot_bytes: u64,
    net: SimNet,
    disks: BTreeMap<NodeId, SimDisk>,
    controllers: Controllers,
    publishers: BTreeMap<NodeId, Arc<Publisher>>,
}

fn voters() -> VotersRecord {
    let voter = |id: &NodeId| Voter {
        voter_id: *id as BrokerId,
        voter_directory_id: Uuid::from_u128((*id).into()),
        endpoints: Vec::new(),
        kraft_version_feature: KRaftVersionFeature { min_supported_version: 0, max_supported_version: 1 },
    };
    VotersRecord { version: 0, voters: NODES.iter().map(voter).collect() }
}

impl Quorum {
    fn new(seed: u64) -> Quorum {
        let world = Simulation::new(seed);
        let net = SimNet::new(&world);
        for node in [NETWORK, CLIENT] {
            world.start_node(node, SimDisk::new(seed), &net, 0);
        }
        let disks = NODES.iter().map(|node| (*node, SimDisk::new(seed ^ u64::from(*node) << 40))).collect();
        Quorum { world, snapshot_bytes: u64::MAX, net, disks, controllers: Arc::default(), publishers: BTreeMap::new() }
    }

    /// Ends all faults.
    fn heal(&mut self) {
        self.net.mend();
        for node in NODES {
            self.world.resume(node);
            if !self.is_running(node) {
                self.start(node);
            }
        }
    }

    fn is_running(&self, node: NodeId) -> bool {
        self.controllers.lock().unwrap().contains_key(&node)
    }

    fn start(&mut self, node: NodeId) {
        let disk = self.disks[&node].clone();
        let env = self.world.start_node(node, disk, &self.net, 0);
        env.disk.create_dir_all(Path::new("/data")).unwrap();
        env.disk.sync_dir(Path::new("/")).unwrap();
        let context = LogContext::alone(Path::new("/data"), env.disk.clone(), env.clock.clone()).unwrap();
        let dir = PathBuf::from(DIR);
        let partition = TopicPartition::new(CLUSTER_METADATA_TOPIC, 0);
        let config = Arc::new(log_config(1 << 20, i64::MAX));
        // As in production: everything that was acknowledged is synced.
        let how = OpenLog { acknowledged_is_synced: true, ..OpenLog::default() };
        let log = Log::open(&context, &dir, partition, None, config, how).unwrap();
        let options = Options {
            identity: Identity { node_id: node as BrokerId, directory_id: Uuid::from_u128(node.into()) },
            endpoint: None,
            cluster: TestIdentity::known("cluster"),
            addresses: Arc::default(),
            dir,
            voters: voters(),
            transport: Arc::new(SimTransport {
                world: World::clone(&self.world),
                net: self.net.clone(),
                own: node,
                controllers: self.controllers.clone(),
            }),
            // The registered broker sends no heartbeats.
            settings: ControllerSettings {
                broker_session_timeout: FOR_EVER,
                broker_silence_timeout: None,
                ..ControllerSettings::default()
            },
            schema: Arc::new(TestSchema),
            max_bytes_between_snapshots: self.snapshot_bytes,
            accept_loss: false,
            broker: None,
        };
        let publisher = Publisher::new(&env.tasks);
        publisher.subscribe(Arc::new(Follows::default()));
        let log = Box::new(MetadataLog::new(&env, log));
        let published = publisher.clone();
        let started = self.world.wait(node, "the node has started", LIMIT, async move {
            start(&env, options, log, CachedImage::none(), published).await.map(|started| started.controller)
        });
        let controller = started.unwrap_or_else(|error| panic!("node {node}: {error}"));
        self.controllers.lock().unwrap().insert(node, controller);
        self.publishers.insert(node, publisher);
    }

    fn end(&mut self, node: NodeId, disk: impl Fn(&SimDisk)) {
        disk(&self.disks[&node]);
        self.controllers.lock().unwrap().remove(&node);
        self.publishers.remove(&node);
        self.world.crash(node);
    }

    /// The node that leads as it believes itself, and its epoch.
    fn leader(&self) -> Option<(NodeId, LeaderEpoch)> {
        let controllers: Vec<_> = self.controllers.lock().unwrap().clone().into_iter().collect();
        let asked = self.world.spawn(CLIENT, async move {
            for (node, controller) in controllers {
                if let Ok(info) = controller.describe_quorum().await {
                    return Some((node, info.leader_epoch));
                }
            }
            None
        });
        self.world.runs_until(Duration::from_secs(1), || asked.lock().unwrap().is_some());
        let answer = asked.lock().unwrap().take();
        answer.flatten()
    }

    /// The segments in the log of a node, as it was when the node ended or as it is now.
    fn segments(&self, node: NodeId) -> Vec<String> {
        let names = self.disks[&node].list(Path::new(DIR)).unwrap().into_iter().map(|entry| entry.name);
        names.filter(|name| name.ends_with(".log")).collect()
    }

    /// The offset with which the first segment of a node begins.
    fn log_start(&self, node: NodeId) -> Offset {
        let first = self.segments(node).into_iter().next().expect("a segment");
        first.trim_end_matches(".log").parse().unwrap()
    }

    /// All batches in the log of a node.
    fn log_bytes(&self, node: NodeId) -> Vec<u8> {
        let read = |name: String| self.disks[&node].read(&Path::new(DIR).join(name)).unwrap();
        self.segments(node).into_iter().flat_map(read).collect()
    }

    fn end_offset(&self, node: NodeId) -> Offset {
        self.publishers[&node].image().provenance.last_contained_offset
    }
}

/// Creates topics for ever, each under a new name, at whichever node leads. Those that were acknowledged must stay.
async fn create_for_ever(
    clock: Arc<dyn crate::env::Clock>,
    controllers: Controllers,
    acknowledged: Arc<Mutex<Vec<String>>>,
) {
    let mut number = 0;
    loop {
        let all: Vec<_> = controllers.lock().unwrap().values().cloned().collect();
        for controller in all {
            number += 1;
            let name = format!("t{number}");
            let topic =
                CreatableTopic { name: name.clone(), num_partitions: 1, replication_factor: 1, ..Default::default() };
            let request = CreateTopics { topics: vec![topic], validate_only: false };
            let limit = clock.sleep_until(clock.monotonic() + Duration::from_secs(1));
            let created = tokio::select! {
                biased;
                created = controller.create_topics(request) => created,
                () = limit => continue,
            };
            if created.is_ok_and(|mut created| created.remove(0).1.is_ok()) {
                acknowledged.lock().unwrap().push(name);
            }
        }
        clock.sleep_until(clock.monotonic() + Duration::from_millis(10)).await;
    }
}

/// Registers a broker, on which topics can be placed. Returns its epoch.
fn register_broker(quorum: &Quorum) -> i64 {
    let (leader, _) = quorum.leader().expect("a leader");
    let controller = quorum.controllers.lock().unwrap()[&leader].clone();
    quorum.world.wait(CLIENT, "a broker is registered", LIMIT, async move {
        let request = RegisterBroker {
            cluster_id: "cluster".into(),
            broker_id: 1,
            incarnation_id: Uuid::from_u128(77),
            endpoints: vec![],
            features: controller::features::supported_features(),
            rack: None,
            log_dirs: vec![Uuid::from_u128(4242)],
            previous_broker_epoch: -1,
        };
        let epoch = controller.register_broker(request).await.unwrap();
        controller.broker_heartbeat(BrokerHeartbeat::new(1, epoch)).await.unwrap();
        epoch
    })
}

fn started(seed: u64) -> Quorum {
    let mut quorum = Quorum::new(seed);
    for node in NODES {
        quorum.start(node);
    }
    let is_set_up = || quorum.publishers.values().all(|publisher| !publisher.image().features.is_empty());
    quorum.world.run_until("the first records are applied everywhere", LIMIT, is_set_up);
    quorum
}

/// INV-M1: no epoch has two leaders.
fn check_leaders(log: &[u8], seed: u64) {
    let mut leaders = BTreeMap::new();
    for batch in iter_batches(log).filter(|batch| batch.is_control()) {
        let BatchContent::Control(records) = read_batch(&batch).unwrap() else { continue };
        for record in records {
            if let ControlRecord::LeaderChange(record) = record {
                let epoch = batch.partition_leader_epoch();
                let other = leaders.insert(epoch, record.leader_id);
                assert!(other.is_none_or(|other| other == record.leader_id), "seed {seed}: two leaders of {epoch}");
            }
        }
    }
    assert!(!leaders.is_empty());
}

/// Returns a checksum of all that happened, and how many topics were acknowledged.
fn faults_on_three_nodes(seed: u64) -> (u64, usize) {
    let mut quorum = started(seed);
    register_broker(&quorum);
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let clock = quorum.world.clock();
    quorum.world.spawn(CLIENT, create_for_ever(clock, quorum.controllers.clone(), acknowledged.clone()));
    let written = || acknowledged.lock().unwrap().len();
    quorum.world.run_until("the load has begun", LIMIT, || written() > 0);
    for _ in 0..10 {
        let world = World::clone(&quorum.world);
        let below = move |bound: u64| world.random().below(bound);
        quorum.world.run_for(Duration::from_millis(below(1500)));
        let node = NODES[below(3) as usize];
        match below(7) {
            0 if quorum.is_running(node) => quorum.end(node, SimDisk::kill),
            1 if quorum.is_running(node) => quorum.end(node, SimDisk::crash),
            2 if quorum.is_running(node) => quorum.world.pause(node),
            3 => quorum.net.isolate(node, NODES),
            4 => quorum.net.cut(node, NODES[below(3) as usize]),
            5 => quorum.net.mend(),
            _ if quorum.is_running(node) => quorum.world.resume(node),
            _ => quorum.start(node),
        }
    }
    quorum.heal();
    let before = written();
    quorum.world.run_until("topics are created again", LIMIT, || written() >= before + 3);
    let must_exist = acknowledged.lock().unwrap().clone();
    let offset = |node: NodeId| quorum.publishers[&node].image().provenance.last_contained_offset;
    let target = NODES.iter().map(|node| offset(*node)).max().unwrap();
    quorum.world.run_until("all nodes have caught up", LIMIT, || NODES.iter().all(|node| offset(*node) >= target));
    let logs: Vec<Vec<u8>> = NODES.iter().map(|node| quorum.log_bytes(*node)).collect();
    let shared = logs.iter().map(Vec::len).min().unwrap();
    for (node, log) in NODES.iter().zip(&logs) {
        assert_eq!(log[..shared], logs[0][..shared], "seed {seed}: the log of node {node} differs");
        check_leaders(log, seed);
        let image = quorum.publishers[node].image();
        for name in &must_exist {
            assert!(image.topic_id(name).is_some(), "seed {seed}: topic {name} is lost on node {node}");
        }
    }
    (quorum.world.trace(), written())
}

/// The changes that were acknowledged.
#[derive(Default)]
struct Changes {
    /// The topics that must exist.
    created: BTreeSet<String>,
    /// The topics that must not exist.
    deleted: BTreeSet<String>,
    acknowledged: usize,
}

/// Creates a topic, and deletes every second one, for ever, at whichever node leads.
async fn change_for_ever(clock: Arc<dyn Clock>, controllers: Controllers, changes: Arc<Mutex<Changes>>) {
    for number in 0.. {
        let all: Vec<_> = controllers.lock().unwrap().values().cloned().collect();
        for controller in all {
            let name = format!("t{number}");
            let topic =
                CreatableTopic { name: name.clone(), num_partitions: 2, replication_factor: 1, ..Default::default() };
            let request = CreateTopics { topics: vec![topic], validate_only: false };
            let limited = |work: BoxFuture<'static, bool>| {
                let limit = clock.sleep_until(clock.monotonic() + Duration::from_secs(1));
                async move {
                    tokio::select! {
                        biased;
                        done = work => done,
                        () = limit => false,
                    }
                }
            };
            let (create, delete) = (controller.clone(), controller);
            let created = limited(Box::pin(async move {
                create.create_topics(request).await.is_ok_and(|mut created| created.remove(0).1.is_ok())
            }));
            if !created.await {
                continue;
            }
            if number % 2 == 0 {
                let mut changes = changes.lock().unwrap();
                changes.created.insert(name);
                changes.acknowledged += 1;
                break;
            }
            let topics = vec![TopicReference { name: Some(name.clone()), topic_id: TopicId(Uuid::nil()) }];
            let deleted = limited(Box::pin(async move {
                let deleted = delete.delete_topics(DeleteTopics { topics }).await;
                deleted.is_ok_and(|mut deleted| deleted.remove(0).result.is_ok())
            }));
            if deleted.await {
                let mut changes = changes.lock().unwrap();
                changes.deleted.insert(name);
                changes.acknowledged += 1;
            }
            break;
        }
        clock.sleep_until(clock.monotonic() + Duration::from_millis(10)).await;
    }
}

/// A node is away, maybe with an emptied disk afterwards, until the others have trimmed what it needs. It comes back
/// through faults that the seed chooses. Returns a checksum of all that happened.
fn a_node_comes_back(seed: u64) -> u64 {
    let mut quorum = Quorum::new(seed);
    quorum.snapshot_bytes = 4000;
    NODES.iter().for_each(|node| quorum.start(*node));
    let is_set_up = || quorum.publishers.values().all(|publisher| !publisher.image().features.is_empty());
    quorum.world.run_until("the first records are applied everywhere", LIMIT, is_set_up);
    register_broker(&quorum);
    let changes = Arc::new(Mutex::new(Changes::default()));
    let clock = quorum.world.clock();
    quorum.world.spawn(CLIENT, change_for_ever(clock, quorum.controllers.clone(), changes.clone()));
    let written = || changes.lock().unwrap().acknowledged;
    quorum.world.run_until("the load has begun", LIMIT, || written() > 3);
    let world = World::clone(&quorum.world);
    let below = move |bound: u64| world.random().below(bound);
    if below(3) == 0 {
        quorum.net.set_delay((1_000, 40_000));
    }
    let away = NODES[below(3) as usize];
    // Some of its last entries may never be committed.
    quorum.net.isolate(away, NODES.into_iter().filter(|_| below(2) == 0));
    quorum.world.run_for(Duration::from_millis(below(400)));
    let end = quorum.end_offset(away);
    quorum.end(away, if below(2) == 0 { SimDisk::kill } else { SimDisk::crash });
    quorum.net.mend();
    let others: Vec<NodeId> = NODES.into_iter().filter(|node| *node != away).collect();
    let limit = Duration::from_secs(600);
    quorum.world.run_until("the others have trimmed their logs", limit, || {
        others.iter().all(|node| quorum.log_start(*node) > end + 1)
    });
    if below(3) == 0 {
        quorum.disks.insert(away, SimDisk::new(seed.wrapping_add(7)));
    }
    quorum.start(away);
    for _ in 0..8 {
        quorum.world.run_for(Duration::from_millis(below(if below(2) == 0 { 60 } else { 1500 })));
        let node = if below(2) == 0 { away } else { NODES[below(3) as usize] };
        match below(8) {
            0 | 1 if quorum.is_running(node) => quorum.end(node, SimDisk::kill),
            2 | 3 if quorum.is_running(node) => quorum.end(node, SimDisk::crash),
            4 if quorum.is_running(node) => quorum.world.pause(node),
            5 => quorum.net.isolate(node, NODES),
            6 => quorum.net.cut(node, NODES[below(3) as usize]),
            7 => quorum.net.mend(),
            _ if quorum.is_running(node) => quorum.world.resume(node),
            _ => quorum.start(node),
        }
    }
    quorum.heal();
    let before = written();
    quorum.world.run_until("changes are made again", LIMIT, || written() >= before + 3);
    quorum.world.crash(CLIENT);
    quorum.world.run_for(Duration::from_secs(10));
    let target = NODES.map(|node| quorum.end_offset(node)).into_iter().max().unwrap();
    quorum
        .world
        .run_until("all nodes have caught up", LIMIT, || NODES.iter().all(|node| quorum.end_offset(*node) == target));
    assert!(quorum.log_start(away) > end + 1, "seed {seed}: the log of node {away} begins with a snapshot");
    let mut batches: BTreeMap<Offset, Vec<u8>> = BTreeMap::new();
    for node in NODES {
        let log = quorum.log_bytes(node);
        for batch in iter_batches(&log) {
            let first = batches.entry(batch.base_offset()).or_insert_with(|| batch.bytes().to_vec());
            assert!(first == batch.bytes(), "seed {seed}: node {node} differs at offset {}", batch.base_offset());
        }
        let image = quorum.publishers[&node].image();
        assert!(
            *image == *quorum.publishers[&NODES[0]].image(),
            "seed {seed}: INV-M2: the image of node {node} differs"
        );
        let changes = changes.lock().unwrap();
        for name in &changes.created {
            assert!(image.topic_id(name).is_some(), "seed {seed}: topic {name} is lost on node {node}");
        }
        for name in &changes.deleted {
            assert!(image.topic_id(name).is_none(), "seed {seed}: topic {name} is back on node {node}");
        }
    }
    quorum.world.trace()
}

#[test]
fn inv_m2_a_node_that_needs_trimmed_entries_comes_back_through_a_snapshot_and_faults() {
    for seed in seeds(16, 4) {
        a_node_comes_back(seed);
    }
}

#[test]
fn a_node_that_comes_back_replays_from_its_seed() {
    assert_eq!(a_node_comes_back(5), a_node_comes_back(5));
}

#[test]
fn inv_m1_three_nodes_agree_and_keep_what_they_acknowledged_through_faults() {
    for seed in seeds(16, 4) {
        assert!(faults_on_three_nodes(seed).1 > 3);
    }
}

#[test]
fn three_nodes_replay_from_their_seed() {
    assert_eq!(faults_on_three_nodes(3), faults_on_three_nodes(3));
}

#[test]
fn without_faults_a_leader_leads_for_ever() {
    let quorum = started(1);
    let first = quorum.leader().expect("a leader");
    quorum.world.run_for(Duration::from_secs(600));
    assert_eq!(quorum.leader(), Some(first));
}

/// A broker that hears from a controller that it is not fenced takes itself for the leader of its partitions.
#[test]
fn a_leader_that_is_cut_off_answers_nothing_from_its_old_image() {
    for is_paused in [false, true] {
        let quorum = started(1);
        let epoch = register_broker(&quorum);
        let (old, _) = quorum.leader().expect("a leader");
        let controller = quorum.controllers.lock().unwrap()[&old].clone();
        let controller_of = |node: &NodeId| quorum.controllers.lock().unwrap()[node].clone();
        let others: Vec<_> = NODES.into_iter().filter(|node| *node != old).collect();
        if is_paused {
            quorum.world.pause(old);
        } else {
            quorum.net.isolate(old, others.clone());
        }
        let answer = quorum
            .world
            .spawn(CLIENT, async move { controller.broker_heartbeat(BrokerHeartbeat::new(1, epoch)).await });
        let leads = |node: &NodeId| controller_of(node).leader().is_some_and(|leader| leader as NodeId != old);
        quorum.world.run_until("another node leads", LIMIT, || others.iter().any(leads));
        quorum.world.resume(old);
        quorum.world.run_until("the old leader answers", LIMIT, || answer.lock().unwrap().is_some());
        let answer = answer.lock().unwrap().take().expect("an answer");
        assert_eq!(answer.expect_err("an old answer").code(), ResponseError::NotController.code());
    }
}
