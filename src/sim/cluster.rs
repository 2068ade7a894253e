//! Whole brokers on simulated hosts, made of production code.
//!
//! Owns the hosts: their disks, their settings, and the starts and ends of their brokers. Leaves time and order to
//! `world.rs`, the links between hosts to `net.rs`, and what clients may observe to the tests.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{NodeId, SimDisk, SimNet, Simulation, locked};
use crate::{
    broker::Broker,
    config::{Arguments, Settings},
    env::Env,
    log::LogOwner,
    loggers::Loggers,
    protocol::record_batch::iter_batches,
    raft::CachedImage,
    types::Offset,
};

/// The port of each broker.
pub const PORT: u16 = 9092;
/// The port of each controller.
pub const CONTROLLER_PORT: u16 = 9093;
/// The node of the test's clients. It has no disk and never fails.
pub const CLIENT: NodeId = 1000;
/// Far more than a start or a stop takes, in simulated time.
const LIMIT: Duration = Duration::from_secs(120);

/// Brokers and the world around them.
pub struct Cluster {
    /// Time, and the tasks of all nodes.
    pub world: Simulation,
    /// The links between the nodes.
    pub net: SimNet,
    clients: Env,
    nodes: BTreeMap<NodeId, Node>,
    seed: u64,
}

struct Node {
    disk: SimDisk,
    settings: Vec<String>,
    skew_ms: i64,
    broker: Arc<Mutex<Started>>,
}

/// The state of the newest start of a broker.
#[derive(Default)]
enum Started {
    #[default]
    Starting,
    Serving(Broker),
    /// The reason.
    Refused(String),
    Stopped,
}

/// Voters as `controller.quorum.voters` lists them.
pub fn listed(voters: &[NodeId]) -> String {
    let voters: Vec<String> = voters.iter().map(|id| format!("{id}@node-{id}:{CONTROLLER_PORT}")).collect();
    voters.join(",")
}

/// Shows the brokers that serve to a check.
pub struct Observer(Vec<(NodeId, Arc<Mutex<Started>>)>);

impl Observer {
    /// Shows nothing.
    pub fn none() -> Observer {
        Observer(Vec::new())
    }

    /// Calls `look` for each broker that serves.
    pub fn each(&self, mut look: impl FnMut(NodeId, &Broker)) {
        for (node, broker) in &self.0 {
            if let Started::Serving(broker) = &*locked(broker) {
                look(*node, broker);
            }
        }
    }
}

impl Cluster {
    /// A cluster without brokers.
    pub fn new(seed: u64) -> Cluster {
        let world = Simulation::new(seed);
        let net = SimNet::new(&world);
        let clients = world.start_node(CLIENT, SimDisk::new(seed), &net, 0);
        Cluster { world, net, clients, nodes: BTreeMap::new(), seed }
    }

    /// The environment of the clients.
    pub fn clients(&self) -> &Env {
        &self.clients
    }

    /// Adds a host with an empty disk, whose broker gets these settings. It is not started.
    pub fn add(&mut self, node: NodeId, settings: &[&str]) {
        self.add_voter(node, &[], settings);
    }

    /// Adds a host as [`Cluster::add`], whose broker is also one of these voters of the metadata quorum.
    pub fn add_voter(&mut self, node: NodeId, voters: &[NodeId], settings: &[&str]) {
        let quorum =
            if voters.is_empty() { String::new() } else { format!("controller.quorum.voters={}", listed(voters)) };
        self.add_node(node, "broker,controller", &quorum, settings);
    }

    /// Adds a host whose node has these roles. `quorum` is the setting that names the controllers; if it is empty, this
    /// node is alone.
    pub fn add_node(&mut self, node: NodeId, roles: &str, quorum: &str, settings: &[&str]) {
        let host = format!("node-{node}");
        let client = format!("PLAINTEXT://{host}:{PORT}");
        let controller = format!("CONTROLLER://{host}:{CONTROLLER_PORT}");
        let mut listeners = Vec::new();
        if roles.contains("broker") {
            listeners.push(client.clone());
        }
        if roles.contains("controller") && !quorum.is_empty() {
            listeners.push(controller);
        }
        let mut all = vec![
            format!("node.id={node}"),
            format!("process.roles={roles}"),
            "log.dirs=/data".to_owned(),
            format!("listeners={}", listeners.join(",")),
            "controller.listener.names=CONTROLLER".to_owned(),
        ];
        if roles.contains("broker") {
            all.push(format!("advertised.listeners={client}"));
        }
        if !quorum.is_empty() {
            all.push(quorum.to_owned());
        }
        all.extend(settings.iter().map(|setting| (*setting).to_owned()));
        let disk = SimDisk::new(self.seed ^ u64::from(node).rotate_left(32));
        let broker = Arc::new(Mutex::new(Started::Stopped));
        self.nodes.insert(node, Node { disk, settings: all, skew_ms: 0, broker });
    }

    /// Sets how far the wall clock of a host is ahead, from its next start on.
    pub fn set_skew_ms(&mut self, node: NodeId, skew_ms: i64) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.skew_ms = skew_ms;
        }
    }

    /// The disk of a host.
    pub fn disk(&self, id: NodeId) -> &SimDisk {
        &self.nodes[&id].disk
    }

    /// Whether there is this host.
    pub fn has(&self, id: NodeId) -> bool {
        self.nodes.contains_key(&id)
    }

    /// Gives a host, whose broker must not be running, the disk of another.
    pub fn set_disk(&mut self, id: NodeId, disk: SimDisk) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.disk = disk;
        }
    }

    /// Gives a host, whose broker must not be running, an empty disk.
    pub fn replace_disk(&mut self, id: NodeId) {
        let disk = SimDisk::new(self.seed ^ u64::from(id).rotate_left(40));
        if let Some(node) = self.nodes.get_mut(&id) {
            node.disk = disk;
        }
    }

    /// Starts the broker of a host, which must not be running, and does not wait for it.
    pub fn begin_start(&self, id: NodeId) {
        let node = &self.nodes[&id];
        let env = self.world.start_node(id, node.disk.clone(), &self.net, node.skew_ms);
        let arguments = Arguments { config_files: Vec::new(), overrides: node.settings.clone() };
        let settings = Settings::load(&arguments, [], &|_| Err(io::ErrorKind::NotFound.into()));
        let settings = settings.unwrap_or_else(|error| panic!("wrong settings: {}", error.problems.join(", ")));
        let broker = node.broker.clone();
        *locked(&broker) = Started::Starting;
        env.tasks.clone().spawn("start the broker", async move {
            let loggers = Arc::new(Loggers::new(Default::default(), |_| {}));
            let started = Broker::start(settings, env, |_, _| CachedImage::none(), loggers).await;
            *locked(&broker) = match started {
                Ok(started) => Started::Serving(started),
                Err(error) => Started::Refused(format!("{error:#}")),
            };
        });
    }

    /// Starts the broker of a host and waits until it serves.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(&self, id: NodeId) {
        self.begin_start(id);
        let broker = &self.nodes[&id].broker;
        let is_over = || !matches!(*locked(broker), Started::Starting);
        self.world.run_until("the broker has started", LIMIT, is_over);
        if let Started::Refused(reason) = &*locked(broker) {
            panic!("node {id} did not start: {reason}");
        }
    }

    /// Whether the broker of a host serves clients.
    pub fn is_serving(&self, id: NodeId) -> bool {
        matches!(&*locked(&self.nodes[&id].broker), Started::Serving(_))
    }

    /// Whether the broker of a host was ended or has ended.
    pub fn is_stopped(&self, id: NodeId) -> bool {
        matches!(&*locked(&self.nodes[&id].broker), Started::Stopped)
    }

    /// Why the newest start of the broker of a host was refused, if it was.
    pub fn refused(&self, id: NodeId) -> Option<String> {
        match &*locked(&self.nodes[&id].broker) {
            Started::Refused(reason) => Some(reason.clone()),
            _ => None,
        }
    }

    /// Shows the brokers of all hosts, also those that are started later.
    pub fn observer(&self) -> Observer {
        Observer(self.nodes.iter().map(|(id, node)| (*id, node.broker.clone())).collect())
    }

    /// The high watermark of a partition on a host, and the batches in its log with their base offsets.
    ///
    /// # Panics
    /// The broker does not serve, or does not have the log.
    pub fn log_bytes(&self, id: NodeId, topic: &str, index: i32) -> (Offset, Vec<(Offset, Vec<u8>)>) {
        let broker = locked(&self.nodes[&id].broker);
        let Started::Serving(broker) = &*broker else { panic!("node {id} does not serve") };
        let partition = broker.replica_manager().partition(topic, index).expect("the log is open");
        let mut batches = Vec::new();
        let mut next = partition.watermarks().log_start_offset;
        while next < partition.watermarks().log_end_offset {
            let mut read = None;
            partition.with_log(&mut |log| read = log.read(next, 1 << 20, log.log_end_offset(), true).ok());
            let found = read.and_then(|plan| plan.records().ok());
            let what = format!("{found:?}");
            let records = found.and_then(|records| records.into_bytes().ok());
            let read = next;
            for batch in iter_batches(&records.expect("the log can be read")) {
                batches.push((batch.base_offset(), batch.bytes().to_vec()));
                next = batch.next_offset();
            }
            assert!(
                next > read,
                "node {id}: nothing is at {next} of {topic}-{index}: {what}, {:?}",
                partition.watermarks()
            );
        }
        (partition.watermarks().high_watermark, batches)
    }

    /// Stops the broker of a host as SIGTERM does, and waits until it has ended. Returns whether all went well.
    pub fn stop(&self, id: NodeId) -> bool {
        self.stop_together(&[id])
    }

    /// Stops the brokers of several hosts at the same time, and waits until all have ended. Returns whether all went
    /// well.
    pub fn stop_together(&self, ids: &[NodeId]) -> bool {
        let stopping: Vec<_> = ids
            .iter()
            .map(|id| {
                let broker = std::mem::replace(&mut *locked(&self.nodes[id].broker), Started::Stopped);
                let Started::Serving(broker) = broker else { panic!("node {id} does not serve") };
                self.world.spawn(*id, broker.shutdown())
            })
            .collect();
        let mut is_running: Vec<bool> = vec![true; ids.len()];
        let mut is_clean = true;
        self.world.run_until("the brokers have stopped", LIMIT, || {
            for ((id, stopping), is_running) in ids.iter().zip(&stopping).zip(&mut is_running) {
                let Some(unclean) = locked(stopping).take() else { continue };
                // Its process has ended, so the others are refused.
                self.kill(*id);
                is_clean &= unclean.is_empty();
                *is_running = false;
            }
            !is_running.contains(&true)
        });
        is_clean
    }

    /// Ends the broker of a host as `kill -9` does: everything that it has written stays.
    pub fn kill(&self, id: NodeId) {
        self.end(id, SimDisk::kill);
    }

    /// Cuts the power of a host: what its disk has not synced may be lost.
    pub fn cut_power(&self, id: NodeId) {
        self.end(id, SimDisk::crash);
    }

    fn end(&self, id: NodeId, disk: impl Fn(&SimDisk)) {
        let node = &self.nodes[&id];
        // The disk first: what the tasks and the broker do while they are dropped must not reach it.
        disk(&node.disk);
        self.world.crash(id);
        let broker = std::mem::replace(&mut *locked(&node.broker), Started::Stopped);
        drop(broker);
    }
}
