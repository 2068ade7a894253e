//! The metadata quorum of whole nodes: how they form one cluster, follow it without a vote, and come and go as voters.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::BufMut as _;
use kafka_protocol::{
    messages::{
        AddRaftVoterRequest, CreateTopicsRequest, DescribeQuorumRequest, RemoveRaftVoterRequest,
        add_raft_voter_request::Listener,
        create_topics_request::CreatableTopic,
        describe_quorum_request::{PartitionData, TopicData},
        describe_quorum_response::ReplicaState,
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{
    NodeId,
    cluster::{CLIENT, CONTROLLER_PORT, Cluster, listed},
    seeds,
    tests::{connect, limited, metadata, named},
};
use crate::{
    env::{Disk, Env},
    log::checkpoints::MetaProperties,
    peer::{Peer, Wire},
};

const LIMIT: Duration = Duration::from_secs(120);

fn meta(cluster: &Cluster, node: NodeId) -> MetaProperties {
    MetaProperties::parse(&cluster.disk(node).read(Path::new("/data/meta.properties")).unwrap()).unwrap()
}

/// The id of the directory of a node.
pub(super) fn directory_id(cluster: &Cluster, node: NodeId) -> Uuid {
    meta(cluster, node).directory_id
}

async fn controller(env: &Env, node: NodeId) -> Option<Peer> {
    Peer::connect(env, &format!("node-{node}"), CONTROLLER_PORT, "client", 64 << 20).await.ok()
}

/// The voters and their directories, as the first of the nodes says that leads.
async fn voters(env: &Env, nodes: &[NodeId]) -> Option<(NodeId, Vec<(NodeId, Uuid)>)> {
    let (leader, voters) = voter_states(env, nodes).await?;
    let voters = voters.iter().map(|voter| (voter.replica_id.0 as NodeId, voter.replica_directory_id));
    Some((leader, voters.collect()))
}

/// What the first of the nodes that leads says of the voters.
async fn voter_states(env: &Env, nodes: &[NodeId]) -> Option<(NodeId, Vec<ReplicaState>)> {
    let topic = TopicData::default()
        .with_topic_name(named("__cluster_metadata"))
        .with_partitions(vec![PartitionData::default().with_partition_index(0)]);
    let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
    for node in nodes {
        let Some(Some(mut peer)) = limited(env, controller(env, *node)).await else { continue };
        let Some(Ok(response)) = limited(env, peer.call(2, &request)).await else { continue };
        let partition = response.topics.into_iter().flat_map(|topic| topic.partitions).next()?;
        if partition.error_code == 0 {
            return Some((*node, partition.current_voters));
        }
    }
    None
}

fn eventually<T: Send + 'static, F: Future<Output = Option<T>> + Send>(
    cluster: &Cluster,
    what: &str,
    mut ask: impl FnMut(Env) -> F + Send + 'static,
) -> T {
    let env = cluster.clients().clone();
    cluster.world.wait(CLIENT, what, LIMIT, async move {
        loop {
            if let Some(answer) = ask(env.clone()).await {
                return answer;
            }
            env.clock.sleep_until(env.clock.monotonic() + Duration::from_millis(50)).await;
        }
    })
}

/// Waits until the leader among the nodes 1 to 5 names voters as they are expected. Returns the leader.
pub(super) fn wait_for_voters(
    cluster: &Cluster,
    what: &str,
    are_expected: impl Fn(&[(NodeId, Uuid)]) -> bool + Send + Sync + 'static,
) -> NodeId {
    let are_expected = Arc::new(are_expected);
    eventually(cluster, what, move |env| {
        let are_expected = are_expected.clone();
        async move {
            let (leader, voters) = voters(&env, &[1, 2, 3, 4, 5]).await?;
            are_expected(&voters).then_some(leader)
        }
    })
}

fn wait_for_brokers(cluster: &Cluster, at: NodeId, expected: &'static [i32]) {
    eventually(cluster, "a broker tells of all brokers", move |env| async move {
        metadata(&env, at).await.filter(|(brokers, _)| brokers == expected).map(drop)
    });
}

/// Creates topics for ever, each under a new name, at any of these brokers.
async fn create_for_ever(env: Env, brokers: Vec<NodeId>, created: Arc<Mutex<Vec<String>>>) {
    for number in 0.. {
        let name = format!("t{number}");
        let topic = CreatableTopic::default().with_name(named(&name)).with_num_partitions(1).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000);
        let node = brokers[number % brokers.len()];
        let create = async {
            let mut peer = connect(&env, node).await?;
            Some(peer.call(5, &request).await.ok()?.topics.first()?.error_code)
        };
        if limited(&env, create).await == Some(Some(0)) {
            created.lock().unwrap().push(name);
        }
        env.clock.sleep_until(env.clock.monotonic() + Duration::from_millis(20)).await;
    }
}

fn must_exist(cluster: &Cluster, at: NodeId, created: &Arc<Mutex<Vec<String>>>) {
    let created = created.lock().unwrap().clone();
    eventually(cluster, "all topics that were acknowledged are there", move |env| {
        let created = created.clone();
        async move {
            let (_, topics) = metadata(&env, at).await?;
            created.iter().all(|name| topics.contains(name)).then_some(())
        }
    });
}

#[test]
fn fresh_nodes_in_any_order_agree_on_one_cluster_id_and_know_their_directories() {
    for seed in seeds(2, 1) {
        let mut cluster = Cluster::new(seed);
        for node in [1, 2, 3] {
            cluster.add_voter(node, &[1, 2, 3], &[]);
        }
        let random = |bound: u64| cluster.world.random().below(bound);
        let first = 1 + random(3) as NodeId;
        for node in [first, first % 3 + 1, (first + 1) % 3 + 1] {
            cluster.begin_start(node);
            cluster.world.run_for(Duration::from_millis(random([100, 120_000][(seed % 2) as usize])));
            if random(3) == 0 {
                cluster.cut_power(node);
                cluster.begin_start(node);
            }
        }
        let all_serve = || [1, 2, 3].iter().all(|node| cluster.is_serving(*node));
        cluster.world.run_until("all serve", LIMIT, all_serve);
        let expected = [1, 2, 3].map(|node| (node, directory_id(&cluster, node)));
        wait_for_voters(&cluster, "the directories of all voters are known", move |voters| *voters == expected);
        let id = meta(&cluster, 1).cluster_id;
        assert!(id.is_some() && [2, 3].iter().all(|node| meta(&cluster, *node).cluster_id == id));
    }
}

#[test]
fn a_node_of_another_cluster_is_refused() {
    let mut cluster = Cluster::new(1);
    cluster.add(3, &[]);
    cluster.start(3);
    cluster.stop(3);
    for node in [1, 2, 3] {
        let disk = cluster.has(node).then(|| cluster.disk(node).clone());
        cluster.add_voter(node, &[1, 2, 3], &[]);
        disk.into_iter().for_each(|disk| cluster.set_disk(node, disk));
        cluster.begin_start(node);
    }
    let two_serve = || [1, 2].iter().all(|node| cluster.is_serving(*node));
    cluster.world.run_until("the two new nodes form a cluster", LIMIT, two_serve);
    wait_for_brokers(&cluster, 1, &[1, 2]);
    assert!(meta(&cluster, 3).cluster_id != meta(&cluster, 1).cluster_id);
}

#[test]
fn brokers_without_a_vote_follow_separate_controllers_through_faults() {
    for seed in seeds(2, 1) {
        let mut cluster = Cluster::new(seed);
        let snapshots = ["metadata.log.max.record.bytes.between.snapshots=3000"];
        let quorum = format!("controller.quorum.voters={}", listed(&[1, 2, 3]));
        for node in [1, 2, 3] {
            cluster.add_node(node, "controller", &quorum, &snapshots);
        }
        for node in [11, 12] {
            // A broker needs any controller to find the others.
            let found_by =
                if node == 11 { quorum.clone() } else { "controller.quorum.bootstrap.servers=node-2:9093".into() };
            cluster.add_node(node, "broker", &found_by, &snapshots);
        }
        let all = [1, 2, 3, 11, 12];
        all.iter().for_each(|node| cluster.begin_start(*node));
        cluster.world.run_until("all serve", LIMIT, || all.iter().all(|node| cluster.is_serving(*node)));
        wait_for_brokers(&cluster, 12, &[11, 12]);
        let created = Arc::<Mutex<Vec<String>>>::default();
        let count = || created.lock().unwrap().len();
        let load = create_for_ever(cluster.clients().clone(), vec![11, 12], created.clone());
        cluster.world.spawn(CLIENT, load);
        cluster.world.run_until("topics are created", LIMIT, || count() > 5);
        let random = |bound: u64| cluster.world.random().below(bound);
        for _ in 0..6 {
            let node = all[random(5) as usize];
            match random(3) {
                0 => cluster.kill(node),
                1 => cluster.cut_power(node),
                _ => {
                    cluster.net.isolate(node, all);
                    cluster.world.run_for(Duration::from_millis(random(12_000)));
                    cluster.net.mend();
                    continue;
                }
            }
            cluster.world.run_for(Duration::from_millis(random(12_000)));
            cluster.begin_start(node);
            cluster.world.run_until("it serves again", LIMIT, || cluster.is_serving(node));
        }
        let before = count();
        cluster.world.run_until("topics are created again", LIMIT, || count() > before + 5);
        [11, 12].iter().for_each(|node| must_exist(&cluster, *node, &created));
    }
}

async fn add_voter(env: &Env, leader: NodeId, node: NodeId, directory_id: Uuid) -> Option<i16> {
    let listener = Listener::default()
        .with_name(StrBytes::from_static_str("CONTROLLER"))
        .with_host(StrBytes::from_string(format!("node-{node}")))
        .with_port(CONTROLLER_PORT);
    let request = AddRaftVoterRequest::default()
        .with_cluster_id(None)
        .with_timeout_ms(3000)
        .with_voter_id(node as i32)
        .with_voter_directory_id(directory_id)
        .with_listeners(vec![listener]);
    let mut peer = controller(env, leader).await?;
    Some(limited(env, peer.call(0, &request)).await?.ok()?.error_code)
}

async fn remove_voter(env: &Env, leader: NodeId, node: NodeId, directory_id: Uuid) -> Option<i16> {
    let request = RemoveRaftVoterRequest::default()
        .with_cluster_id(None)
        .with_voter_id(node as i32)
        .with_voter_directory_id(directory_id);
    let mut peer = controller(env, leader).await?;
    Some(limited(env, peer.call(0, &request)).await?.ok()?.error_code)
}

const DUPLICATE_VOTER: i16 = 126;
const VOTER_NOT_FOUND: i16 = 127;

#[test]
fn a9_the_leader_says_when_it_heard_of_each_voter_and_when_that_had_all_records() {
    let mut cluster = Cluster::new(5);
    for node in [1, 2, 3] {
        let quorum = format!("controller.quorum.voters={}", listed(&[1, 2, 3]));
        cluster.add_node(node, "broker,controller", &quorum, &[]);
        cluster.begin_start(node);
    }
    let states = |what: &str, since_ms: i64, silent: Option<NodeId>| {
        eventually(&cluster, what, move |env| async move {
            let (leader, voters) = voter_states(&env, &[1, 2, 3]).await?;
            let is_heard = |voter: &ReplicaState| {
                Some(voter.replica_id.0 as NodeId) == silent
                    || (voter.last_fetch_timestamp > since_ms && voter.last_caught_up_timestamp > since_ms)
            };
            (voters.len() == 3 && voters.iter().all(is_heard)).then_some((leader, voters, env.clock.now_ms()))
        })
    };
    let (leader, voters, now_ms) = states("all are heard and have all records", 0, None);
    for voter in &voters {
        let times = [voter.last_fetch_timestamp, voter.last_caught_up_timestamp];
        assert!(times.iter().all(|time| (now_ms - 10_000..=now_ms + 1000).contains(time)), "{times:?} at {now_ms}");
    }
    let dead = [1, 2, 3].into_iter().find(|node| *node != leader).unwrap();
    cluster.kill(dead);
    let (_, voters, later_ms) = states("the others are heard later", now_ms + 5000, Some(dead));
    let silent = voters.iter().find(|voter| voter.replica_id.0 as NodeId == dead).unwrap();
    assert!(silent.last_fetch_timestamp < later_ms - 3000, "{silent:?} at {later_ms}");
    assert!(silent.last_caught_up_timestamp <= silent.last_fetch_timestamp);
}

/// AddRaftVoter in version 1, which kafka-protocol does not have. Returns its error code.
async fn add_voter_in_version_1(
    env: &Env,
    leader: NodeId,
    node: NodeId,
    directory_id: Uuid,
    ack_when_committed: bool,
) -> Option<i16> {
    let mut body = bytes::BytesMut::new();
    body.put_u8(0);
    body.put_i32(1000);
    body.put_i32(node as i32);
    body.put_slice(directory_id.as_bytes());
    body.put_u8(2);
    for text in ["CONTROLLER", &format!("node-{node}")] {
        body.put_u8(text.len() as u8 + 1);
        body.put_slice(text.as_bytes());
    }
    body.put_u16(CONTROLLER_PORT);
    body.put_slice(&[0, u8::from(ack_when_committed), 0]);
    let mut peer = controller(env, leader).await?;
    let answer = limited(env, peer.exchange(Wire::new(80, 1, true), &body)).await?.ok()?;
    Some(i16::from_be_bytes([answer[4], answer[5]]))
}

#[test]
fn an_added_voter_is_acknowledged_before_it_is_committed_if_that_is_asked_for() {
    for ack_when_committed in [false, true] {
        let mut cluster = Cluster::new(4);
        cluster.add_node(1, "broker,controller", "controller.quorum.voters=1@node-1:9093", &[]);
        cluster.add_node(2, "controller", "controller.quorum.bootstrap.servers=node-1:9093", &[]);
        cluster.start(1);
        cluster.start(2);
        let second = directory_id(&cluster, 2);
        let env = cluster.clients().clone();
        // It has caught up. Without it nothing is committed from the moment on at which it is a voter.
        cluster.world.run_for(Duration::from_secs(2));
        cluster.kill(2);
        let add = async move { add_voter_in_version_1(&env, 1, 2, second, ack_when_committed).await };
        let answer = cluster.world.wait(CLIENT, "an answer, or none", LIMIT, add);
        assert_eq!(answer == Some(0), !ack_when_committed, "{answer:?}");
    }
}

/// One node grows to five and shrinks to three others, under load, while nodes are killed.
fn a_quorum_grows_and_shrinks(seed: u64) -> u64 {
    let mut cluster = Cluster::new(seed);
    cluster.add_node(1, "broker,controller", "controller.quorum.voters=1@node-1:9093", &[]);
    for node in [2, 3, 4, 5] {
        cluster.add_node(node, "broker,controller", "controller.quorum.bootstrap.servers=node-1:9093,node-2:9093", &[]);
    }
    cluster.start(1);
    let created = Arc::<Mutex<Vec<String>>>::default();
    let count = || created.lock().unwrap().len();
    let load = create_for_ever(cluster.clients().clone(), vec![1, 2, 3, 4, 5], created.clone());
    cluster.world.spawn(CLIENT, load);
    cluster.world.run_until("topics are created", LIMIT, || count() > 2);
    let random = |bound: u64| cluster.world.random().below(bound);
    let fault = |among: &[NodeId]| {
        let node = among[random(among.len() as u64) as usize];
        if random(2) == 0 {
            return;
        }
        if random(2) == 0 {
            cluster.kill(node)
        } else {
            cluster.cut_power(node)
        }
        cluster.begin_start(node);
    };
    let mut members: Vec<NodeId> = vec![1];
    for node in [2, 3, 4, 5] {
        cluster.begin_start(node);
        members.push(node);
        cluster.world.run_for(Duration::from_millis(random(3_000)));
        // A crash may come between any two steps of the change.
        let directory = directory_id(&cluster, node);
        let (env, known) = (cluster.clients().clone(), members.clone());
        let task = cluster.world.spawn(CLIENT, async move {
            loop {
                if let Some((leader, voters)) = voters(&env, &known).await {
                    if voters.contains(&(node, directory)) {
                        return;
                    }
                    let _ = add_voter(&env, leader, node, directory).await;
                }
                env.clock.sleep_until(env.clock.monotonic() + Duration::from_millis(20)).await;
            }
        });
        cluster.world.run_for(Duration::from_millis(random(1_500)));
        fault(&members);
        cluster.world.run_until("the node is a voter", LIMIT, || task.lock().unwrap().is_some());
    }
    for node in [1, 2] {
        let directory = directory_id(&cluster, node);
        let (env, known) = (cluster.clients().clone(), members.clone());
        let task = cluster.world.spawn(CLIENT, async move {
            loop {
                if let Some((leader, voters)) = voters(&env, &known).await {
                    if !voters.iter().any(|(id, _)| *id == node) {
                        return;
                    }
                    let _ = remove_voter(&env, leader, node, directory).await;
                }
                env.clock.sleep_until(env.clock.monotonic() + Duration::from_millis(20)).await;
            }
        });
        cluster.world.run_for(Duration::from_millis(random(1_500)));
        fault(&members);
        cluster.world.run_until("the node is no voter", LIMIT, || task.lock().unwrap().is_some());
    }
    // The rest needs neither of the two that were removed.
    [1, 2].iter().for_each(|node| cluster.kill(*node));
    [3, 4, 5].iter().filter(|node| cluster.is_stopped(**node)).for_each(|node| cluster.begin_start(*node));
    let before = count();
    cluster.world.run_until("the rest goes on", LIMIT, || count() > before + 3);
    [3, 4, 5].iter().for_each(|node| must_exist(&cluster, *node, &created));
    cluster.world.trace()
}

#[test]
fn a_quorum_grows_from_one_to_five_and_shrinks_to_three_others_through_crashes() {
    for seed in seeds(2, 1) {
        a_quorum_grows_and_shrinks(seed);
    }
}

#[test]
fn changes_of_voters_replay_from_their_seed() {
    assert_eq!(a_quorum_grows_and_shrinks(3), a_quorum_grows_and_shrinks(3));
}

#[test]
fn voters_are_changed_as_kafka_does_it() {
    let mut cluster = Cluster::new(2);
    cluster.add_node(1, "broker,controller", "controller.quorum.voters=1@node-1:9093", &[]);
    cluster.add_node(2, "controller", "controller.quorum.bootstrap.servers=node-1:9093", &[]);
    cluster.start(1);
    let env = cluster.clients().clone();
    let call = |what: &str, call: std::pin::Pin<Box<dyn Future<Output = Option<i16>> + Send>>| {
        cluster.world.wait(CLIENT, what, LIMIT, call).unwrap()
    };
    let own = directory_id(&cluster, 1);
    let stranger = Uuid::from_u128(99);
    let (add, remove) = (
        |node, directory| {
            let env = env.clone();
            Box::pin(async move { add_voter(&env, 1, node, directory).await })
        },
        |node, directory| {
            let env = env.clone();
            Box::pin(async move { remove_voter(&env, 1, node, directory).await })
        },
    );
    assert_eq!(call("it is a voter already", add(1, own)), DUPLICATE_VOTER);
    assert_eq!(call("nobody follows under this id", add(2, stranger)), 7);
    assert_eq!(call("no such voter", remove(2, stranger)), VOTER_NOT_FOUND);
    assert_eq!(call("no such directory", remove(1, stranger)), VOTER_NOT_FOUND);
    assert_eq!(call("the last voter stays", remove(1, own)), VOTER_NOT_FOUND);
    cluster.start(2);
    let second = directory_id(&cluster, 2);
    assert_eq!(call("the second is added", add(2, second)), 0);
    assert_eq!(call("it is a voter", add(2, second)), DUPLICATE_VOTER);
    let both = [(1, own), (2, second)];
    let leader = wait_for_voters(&cluster, "both are voters", move |voters| *voters == both);
    assert_eq!(leader, 1);
    // The leader hands over, and the next one removes it.
    assert_eq!(call("the leader is removed", remove(1, own)), 0);
    let leader = wait_for_voters(&cluster, "one is left", move |voters| *voters == [(2, second)]);
    assert_eq!(leader, 2);
    // As a broker without a vote it goes on.
    wait_for_brokers(&cluster, 1, &[1]);
    cluster.kill(1);
    cluster.start(1);
    wait_for_brokers(&cluster, 1, &[1]);
}
