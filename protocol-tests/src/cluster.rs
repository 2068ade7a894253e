//! Three brokers under test that form one cluster, each of them a voter of the metadata quorum.

use std::{net::SocketAddr, time::Duration};

use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::{
    broker::{Broker, BrokerOptions},
    clients::{CALL_LIMIT, config},
    java::tool,
    network::Network,
    process::{eventually, free_port},
};

/// The ids of the brokers.
pub const NODES: [i32; 3] = [1, 2, 3];
/// Longest time until a replica has caught up on a busy machine.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);

/// See the head of the file.
pub struct Cluster {
    brokers: Vec<Broker>,
    /// For clients and for the other controllers.
    addresses: [[String; 2]; 3],
}

impl Cluster {
    /// Starts three brokers at the same time. `configure` adds settings to each of them.
    pub fn start(configure: impl Fn(BrokerOptions) -> BrokerOptions) -> Cluster {
        Cluster::start_each(|_, options| configure(options))
    }

    /// Like [`Cluster::start`]; `configure` also gets the id of the broker.
    pub fn start_each(configure: impl Fn(i32, BrokerOptions) -> BrokerOptions) -> Cluster {
        let addresses = NODES.map(|_| [(); 2].map(|()| format!("127.0.0.1:{}", free_port())));
        Cluster::start_at(addresses, configure)
    }

    /// Starts three brokers on hosts with their ids.
    pub fn start_on(_network: &Network, configure: impl Fn(BrokerOptions) -> BrokerOptions) -> Cluster {
        let addresses = NODES.map(|id| [9092, 9093].map(|port| format!("{}:{port}", Network::address(id))));
        Cluster::start_at(addresses, |id, options| configure(options.on_host(id)))
    }

    fn start_at(addresses: [[String; 2]; 3], configure: impl Fn(i32, BrokerOptions) -> BrokerOptions) -> Cluster {
        let voters: Vec<String> =
            NODES.iter().zip(&addresses).map(|(id, [_, controller])| format!("{id}@{controller}")).collect();
        let options = NODES.iter().zip(&addresses).map(|(id, [clients, controller])| {
            let options = Broker::options()
                .set("node.id", id)
                .set("listeners", format!("PLAINTEXT://{clients},CONTROLLER://{controller}"))
                .set("advertised.listeners", format!("PLAINTEXT://{clients}"))
                .set("controller.listener.names", "CONTROLLER")
                .set("controller.quorum.voters", voters.join(","))
                .set("offsets.topic.num.partitions", 3)
                .expect_log("fenced a broker whose process has ended")
                // On a busy machine.
                .expect_log("fenced a broker that is silent");
            configure(*id, options)
        });
        // None of them can start alone: two voters elect the controller.
        let brokers = std::thread::scope(|scope| {
            let starting: Vec<_> = options.map(|options| scope.spawn(move || options.start())).collect();
            starting.into_iter().map(|broker| broker.join().expect("the broker starts")).collect()
        });
        let cluster = Cluster { brokers, addresses };
        cluster.await_brokers();
        cluster
    }

    /// Waits until each broker lists all of them. A client that is told of fewer gives up its connections to the others.
    fn await_brokers(&self) {
        for broker in &self.brokers {
            let client: BaseConsumer = config(&broker.bootstrap(), &[]).create().expect("create a client");
            eventually("the broker lists all brokers", CATCH_UP_LIMIT, || {
                let metadata = client.fetch_metadata(None, CALL_LIMIT).ok()?;
                (metadata.brokers().len() == NODES.len()).then_some(())
            });
        }
    }

    /// The broker with this id.
    pub fn broker(&mut self, id: i32) -> &mut Broker {
        &mut self.brokers[id as usize - 1]
    }

    /// Where each broker accepts clients.
    pub fn broker_addresses(&self) -> Vec<SocketAddr> {
        self.addresses.iter().map(|[clients, _]| clients.parse().expect("an address")).collect()
    }

    /// Where each node accepts the other controllers.
    pub fn controller_addresses(&self) -> Vec<SocketAddr> {
        self.addresses.iter().map(|[_, controllers]| controllers.parse().expect("an address")).collect()
    }

    /// The addresses of all brokers, for bootstrap.servers.
    pub fn bootstrap(&self) -> String {
        self.brokers.iter().map(Broker::bootstrap).collect::<Vec<_>>().join(",")
    }

    /// Waits until exactly these nodes are voters of the metadata quorum, each with the directory that it has now.
    pub fn await_voters(&self, expected: &[i32]) {
        eventually("the nodes are voters", CATCH_UP_LIMIT, || {
            let arguments = ["--bootstrap-server", &self.bootstrap(), "describe", "--status"];
            let status = tool("kafka-metadata-quorum", &arguments).stdout;
            let voters = status.lines().find(|line| line.starts_with("CurrentVoters"))?.to_owned();
            let is_voter = |id: &&i32| {
                let meta = std::fs::read_to_string(self.brokers[**id as usize - 1].data().join("meta.properties"));
                let meta = meta.unwrap_or_default();
                let directory = meta.lines().find_map(|line| line.strip_prefix("directory.id="));
                directory.is_some_and(|id| voters.contains(id))
            };
            let count = voters.matches("\"id\"").count();
            (count == expected.len() && expected.iter().all(|id| is_voter(&id))).then_some(())
        });
    }

    /// Waits until all replicas of a topic are in sync. Returns the leaders of its partitions.
    pub fn await_in_sync(&self, topic: &str) -> Vec<i32> {
        let client: BaseConsumer = config(&self.bootstrap(), &[]).create().expect("create a client");
        eventually("all replicas are in sync", CATCH_UP_LIMIT, || {
            let metadata = client.fetch_metadata(Some(topic), CALL_LIMIT).ok()?;
            let partitions = metadata.topics().first()?.partitions();
            let in_sync = partitions.iter().all(|partition| {
                partition.leader() > 0
                    && !partition.isr().is_empty()
                    && partition.isr().len() == partition.replicas().len()
            });
            (in_sync && !partitions.is_empty()).then(|| partitions.iter().map(|partition| partition.leader()).collect())
        })
    }
}
