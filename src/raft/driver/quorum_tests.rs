//! Three nodes of one quorum on simulated disks, clocks and links, through faults that a seed chooses.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Mutex,
};

use super::*;
use crate::{
    controller::{
        testing::TestSchema,
        topics::{CreatableTopic, CreateTopics},
    },
    env::Disk,
    log::{Log, LogContext, OpenLog},
    protocol::record_batch::iter_batches,
    raft::{
        MetadataLog,
        control_records::{ControlRecord, KRaftVersionFeature, Voter},
        metadata_log::log_config,
    },
    sim::{NodeId, SimDisk, SimNet, Simulation, World, seeds},
    types::{CLUSTER_METADATA_TOPIC, TopicPartition},
};

/// The node that owns what is on its way.
const NETWORK: NodeId = 0;
/// The node that calls the controllers.
const CLIENT: NodeId = 100;
const NODES: [NodeId; 3] = [1, 2, 3];
const LIMIT: Duration = Duration::from_secs(60);
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
                controller.deliver(message).await;
            }
        });
    }
}

struct Quorum {
    world: Simulation,
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
        Quorum { world, net, disks, controllers: Arc::default(), publishers: BTreeMap::new() }
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
            node_id: node as BrokerId,
            cluster_id: "cluster".into(),
            directory_id: Uuid::from_u128(node.into()),
            dir,
            voters: voters(),
            transport: Arc::new(SimTransport {
                world: World::clone(&self.world),
                net: self.net.clone(),
                own: node,
                controllers: self.controllers.clone(),
            }),
            settings: ControllerSettings::default(),
            schema: Arc::new(TestSchema),
            max_bytes_between_snapshots: u64::MAX,
            accept_loss: false,
            broker: None,
        };
        let publisher = Publisher::new(&env.tasks);
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

    /// All batches in the log of a node.
    fn log_bytes(&self, node: NodeId) -> Vec<u8> {
        self.disks[&node].read(&Path::new(DIR).join("00000000000000000000.log")).unwrap()
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

/// Registers a broker, on which topics can be placed.
fn register_broker(quorum: &Quorum) {
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
    });
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
    quorum.net.mend();
    for node in NODES {
        quorum.world.resume(node);
        if !quorum.is_running(node) {
            quorum.start(node);
        }
    }
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
