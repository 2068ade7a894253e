//! Scenarios with three brokers that replicate one partition.
//!
//! What must hold: nothing acknowledged is lost, no reader sees the high watermark go back or another record at an
//! offset, and in the end all replicas have the same bytes below the high watermark (INV-R1, INV-R4).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use kafka_protocol::{
    messages::{
        CreateTopicsRequest, FetchRequest, MetadataRequest, ProduceRequest,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        fetch_request::{FetchPartition, FetchTopic},
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};

use super::{
    NodeId,
    cluster::{CLIENT, Cluster},
    seeds,
    tests::{Acknowledged, TOPIC, VOTERS, connect, fetch_from, limited, produce, three_serving_with, topic_name},
};
use crate::{env::Env, log::tests::plain};

const LIMIT: Duration = Duration::from_secs(60);

async fn pause(env: &Env, ms: u64) {
    env.clock.sleep_until(env.clock.monotonic() + Duration::from_millis(ms)).await;
}

/// Creates the topic with three replicas, of which two must have a record.
async fn create(env: &Env) {
    let config = |name: &'static str, value: &'static str| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_static_str(value)))
    };
    // The records have the timestamp 1000, so they would be deleted soon.
    let configs = vec![config("min.insync.replicas", "2"), config("retention.ms", "-1")];
    let topic = CreatableTopic::default()
        .with_name(topic_name())
        .with_num_partitions(1)
        .with_replication_factor(3)
        .with_configs(configs);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5000);
    loop {
        if let Some(mut peer) = connect(env, 1).await
            && let Ok(response) = peer.call(5, &request).await
            && matches!(response.topics[0].error_code, 0 | 36)
        {
            return;
        }
        pause(env, 50).await;
    }
}

/// The leader and the ISR, as a broker tells them.
async fn told_by(env: &Env, node: NodeId) -> Option<(NodeId, Vec<i32>)> {
    let mut peer = connect(env, node).await?;
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name()));
    let response = peer.call(9, &MetadataRequest::default().with_topics(Some(vec![topic]))).await.ok()?;
    let partition = response.topics.first()?.partitions.first()?;
    let mut isr: Vec<i32> = partition.isr_nodes.iter().map(|node| node.0).collect();
    isr.sort_unstable();
    NodeId::try_from(partition.leader_id.0).ok().map(|leader| (leader, isr))
}

/// The leader that any of the brokers knows, each asked in turn.
async fn leader(env: &Env, turn: usize) -> Option<NodeId> {
    let node = VOTERS[turn % VOTERS.len()];
    env.within(Duration::from_secs(1), told_by(env, node)).await.flatten().map(|(leader, _)| leader)
}

/// Appends numbered records with acks=all for ever, one after the other.
async fn produce_for_ever(env: Env, acknowledged: Acknowledged) {
    let (mut number, mut turn) = (0, 0);
    loop {
        turn += 1;
        if let Some(leader) = leader(&env, turn).await
            && let Some(Some(mut peer)) = limited(&env, connect(&env, leader)).await
        {
            loop {
                number += 1;
                let value = format!("v{number}");
                match env.within(Duration::from_secs(2), produce(&mut peer, &value)).await.flatten() {
                    Some(Ok(offset)) => {
                        acknowledged.lock().unwrap().push((offset, value));
                        pause(&env, 5).await;
                    }
                    Some(Err(_)) | None => break,
                }
            }
        }
        pause(&env, 10).await;
    }
}

/// Reads the partition again and again, the newest records more than once. What was there stays.
async fn read_for_ever(env: Env, seed: u64) {
    let (mut seen, mut turn) = (BTreeMap::<i64, String>::new(), 0);
    loop {
        turn += 1;
        let again = seen.keys().rev().nth(20).copied().unwrap_or(0);
        if let Some(leader) = leader(&env, turn).await
            && let Some(Some(found)) = limited(&env, fetch_from(&env, leader, again)).await
        {
            for (offset, value) in found {
                // A new leader may not know the high watermark yet: then it returns less.
                let before = seen.insert(offset, value.clone());
                let is_same = before.as_ref().is_none_or(|before| *before == value);
                assert!(is_same, "seed {seed}: INV-R1: offset {offset} had {before:?} and has {value}");
            }
        }
        pause(&env, 50).await;
    }
}

/// Waits until all brokers tell of a leader with all replicas in sync.
fn await_full_isr(cluster: &Cluster, seed: u64) {
    for node in VOTERS {
        let env = cluster.clients().clone();
        let what = format!("node {node} tells of three in-sync replicas (seed {seed})");
        cluster.world.wait(CLIENT, &what, LIMIT, async move {
            while limited(&env, told_by(&env, node)).await.flatten().is_none_or(|(_, isr)| isr != [1, 2, 3]) {
                pause(&env, 20).await;
            }
        });
    }
}

fn replicated(seed: u64) -> (Cluster, Acknowledged) {
    replicated_with(seed, &[])
}

fn replicated_with(seed: u64, settings: &[&str]) -> (Cluster, Acknowledged) {
    let cluster = three_serving_with(seed, settings);
    let env = cluster.clients().clone();
    cluster.world.wait(CLIENT, "the topic exists", LIMIT, async move { create(&env).await });
    await_full_isr(&cluster, seed);
    let acknowledged = Acknowledged::default();
    cluster.world.spawn(CLIENT, produce_for_ever(cluster.clients().clone(), acknowledged.clone()));
    cluster.world.spawn(CLIENT, read_for_ever(cluster.clients().clone(), seed));
    let written = || acknowledged.lock().unwrap().len();
    cluster.world.run_until("records are acknowledged", LIMIT, || written() > 10);
    (cluster, acknowledged)
}

/// All that was acknowledged is there, and the replicas are the same.
fn check(cluster: &Cluster, acknowledged: &Acknowledged, seed: u64) {
    await_full_isr(cluster, seed);
    let written = || acknowledged.lock().unwrap().len();
    let before = written();
    cluster.world.run_until("records are acknowledged again", LIMIT, || written() >= before + 10);
    let must_be_stored = acknowledged.lock().unwrap().clone();
    let env = cluster.clients().clone();
    let stored = cluster.world.wait(CLIENT, "all records are read", LIMIT, async move {
        for turn in 0.. {
            if let Some(leader) = leader(&env, turn).await
                && let Some(found) = fetch_from(&env, leader, 0).await
            {
                return found;
            }
            pause(&env, 50).await;
        }
        unreachable!("the loop is endless")
    });
    for (offset, value) in &must_be_stored {
        assert_eq!(
            stored.get(offset),
            Some(value),
            "seed {seed}: INV-R4: the acknowledged record at offset {offset} is lost"
        );
    }
    let logs = VOTERS.map(|node| cluster.log_bytes(node, TOPIC, 0));
    let common = logs.iter().map(|(high_watermark, _)| *high_watermark).min().unwrap();
    assert!(common > 0);
    let below = |log: &[(i64, Vec<u8>)]| {
        log.iter().take_while(|(base_offset, _)| *base_offset < common).cloned().collect::<Vec<_>>()
    };
    let first = below(&logs[0].1);
    for (node, (_, log)) in VOTERS.iter().zip(&logs).skip(1) {
        let other = below(log);
        let differs = first.iter().zip(&other).find(|(a, b)| a != b);
        assert!(
            differs.is_none() && first.len() == other.len(),
            "seed {seed}: INV-R1: nodes 1 and {node} differ below {common}, with {} and {} batches: {differs:?}",
            first.len(),
            other.len()
        );
    }
}

#[test]
fn three_replicas_have_what_was_acknowledged() {
    for seed in seeds(2, 1) {
        let (cluster, acknowledged) = replicated(seed);
        cluster.world.run_for(Duration::from_secs(2));
        check(&cluster, &acknowledged, seed);
    }
}

/// Brokers that are killed, paused and cut off, one after the other or two at a time.
fn faults(seed: u64) -> (u64, usize) {
    let (cluster, acknowledged) = replicated(seed);
    let random = |bound: u64| cluster.world.random().below(bound);
    for _ in 0..5 {
        cluster.world.run_for(Duration::from_millis(random(500)));
        let node = VOTERS[random(3) as usize];
        let other = VOTERS[random(3) as usize];
        match random(6) {
            0 | 1 => {
                cluster.kill(node);
                cluster.world.run_for(Duration::from_millis(random(15_000)));
                cluster.start(node);
            }
            2 => {
                cluster.world.pause(node);
                cluster.world.run_for(Duration::from_millis(random(15_000)));
                cluster.world.resume(node);
            }
            3 if node != other => {
                cluster.kill(node);
                cluster.world.run_for(Duration::from_millis(random(3_000)));
                cluster.kill(other);
                cluster.world.run_for(Duration::from_millis(random(3_000)));
                cluster.begin_start(node);
                cluster.start(other);
            }
            4 => assert!(cluster.stop(node), "seed {seed}: the stop was clean"),
            _ => {
                for other in VOTERS.iter().filter(|other| **other != node) {
                    cluster.net.cut(node, *other);
                    if random(2) == 0 {
                        cluster.net.cut(*other, node);
                    }
                }
                cluster.world.run_for(Duration::from_millis(random(15_000)));
                cluster.net.mend();
            }
        }
        let all_serve = || VOTERS.iter().all(|node| cluster.is_serving(*node));
        if !all_serve() {
            for node in VOTERS {
                if cluster.is_stopped(node) {
                    cluster.begin_start(node);
                }
            }
            cluster.world.run_until("all brokers serve", LIMIT, all_serve);
        }
    }
    check(&cluster, &acknowledged, seed);
    (cluster.world.trace(), acknowledged.lock().unwrap().len())
}

#[test]
fn inv_r4_nothing_acknowledged_is_lost_when_brokers_are_killed_paused_and_cut_off() {
    for seed in seeds(3, 1) {
        faults(seed);
    }
}

/// Records that two brokers have acknowledged are on one only when the other has lost its page cache, and the third
/// missed them. Neither of these may lead then, although that one is killed.
#[test]
fn inv_r4_nothing_is_lost_when_one_broker_is_paused_while_another_loses_its_page_cache() {
    for seed in seeds(24, 6) {
        let (cluster, acknowledged) = replicated(seed);
        let random = |bound| Duration::from_millis(cluster.world.random().below(bound));
        let [paused, powerless, killed] =
            [0, 1 + seed / 3 % 2, 2 - seed / 3 % 2].map(|at| VOTERS[((seed + at) % 3) as usize]);
        cluster.world.pause(paused);
        cluster.world.run_for(random(3_000));
        cluster.cut_power(powerless);
        cluster.world.run_for(random(1_000));
        cluster.begin_start(powerless);
        cluster.world.run_for(random(2_000));
        cluster.world.resume(paused);
        cluster.world.run_for(random(1_000));
        cluster.kill(killed);
        cluster.world.run_for(random(3_000));
        cluster.start(killed);
        check(&cluster, &acknowledged, seed);
    }
}

#[test]
fn replication_replays_from_its_seed() {
    for seed in seeds(0, 1) {
        assert_eq!(faults(seed), faults(seed), "seed {seed}");
    }
}

/// The node whose broker leads.
fn leading(cluster: &Cluster) -> NodeId {
    let env = cluster.clients().clone();
    cluster.world.wait(CLIENT, "the leader", LIMIT, async move {
        loop {
            if let Some(leader) = leader(&env, 0).await {
                return leader;
            }
            pause(&env, 10).await;
        }
    })
}

/// How long writes stop when the broker that leads is killed.
fn gap_after_kill(seed: u64) -> Duration {
    let (cluster, acknowledged) = replicated(seed);
    let leading = leading(&cluster);
    let count = || acknowledged.lock().unwrap().len();
    let killed_at = cluster.world.now();
    cluster.kill(leading);
    let before = count();
    cluster.world.run_until("records are acknowledged again", LIMIT, || count() > before);
    let gap = cluster.world.now() - killed_at;
    cluster.start(leading);
    check(&cluster, &acknowledged, seed);
    gap
}

/// Some of the leaders are the active controller as well: then another one is elected first.
#[test]
fn a_killed_leader_is_replaced_soon_because_its_process_refuses_connections() {
    let mut gaps: Vec<Duration> = (0..16).map(gap_after_kill).collect();
    gaps.sort();
    println!("writes stopped for {gaps:.0?}");
    assert!(gaps[8] < Duration::from_millis(300) && gaps[15] < Duration::from_millis(700), "{gaps:?}");
}

#[test]
fn a_leader_that_is_stopped_hands_over_first() {
    for seed in 0..4 {
        let (cluster, acknowledged) = replicated(seed);
        let leading = leading(&cluster);
        let moments = Arc::new(Mutex::new(Vec::new()));
        let (env, recorded, moments_of_task) = (cluster.clients().clone(), acknowledged.clone(), moments.clone());
        cluster.world.spawn(CLIENT, async move {
            let mut count = 0;
            loop {
                let now = recorded.lock().unwrap().len();
                if now > count {
                    moments_of_task.lock().unwrap().push(env.clock.monotonic());
                }
                count = now;
                pause(&env, 1).await;
            }
        });
        assert!(cluster.stop(leading), "seed {seed}: the stop was clean");
        cluster.world.run_for(Duration::from_secs(1));
        let moments = moments.lock().unwrap().clone();
        let longest = moments.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(longest.is_some_and(|gap| gap < Duration::from_millis(150)), "seed {seed}: {longest:?}");
        cluster.start(leading);
        check(&cluster, &acknowledged, seed);
    }
}

#[test]
fn leaders_return_to_their_preferred_replicas() {
    let (cluster, acknowledged) = replicated_with(3, &["leader.imbalance.check.interval.seconds=20"]);
    let preferred = leading(&cluster);
    cluster.kill(preferred);
    let before = acknowledged.lock().unwrap().len();
    cluster.world.run_until("another one leads", LIMIT, || acknowledged.lock().unwrap().len() > before);
    cluster.start(preferred);
    await_full_isr(&cluster, 3);
    assert_ne!(leading(&cluster), preferred);
    cluster.world.run_for(Duration::from_secs(21));
    assert_eq!(leading(&cluster), preferred, "leader.imbalance.check.interval.seconds is over");
    check(&cluster, &acknowledged, 3);
}

/// KIP-951: so a client finds a new leader without asking for metadata first.
#[test]
fn a_broker_that_does_not_lead_names_the_leader() {
    let (cluster, _) = replicated(2);
    let leader = leading(&cluster);
    let other = VOTERS[usize::from(VOTERS[0] == leader)];
    let env = cluster.clients().clone();
    let named = cluster.world.wait(CLIENT, "both responses", LIMIT, async move {
        let mut peer = connect(&env, other).await.expect("connect");
        let records = PartitionProduceData::default().with_index(0).with_records(Some(plain(1, b"x", 1000)));
        let topic = TopicProduceData::default().with_name(topic_name()).with_partition_data(vec![records]);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(5000).with_topic_data(vec![topic]);
        let produced = peer.call(10, &request).await.expect("a response");
        let partition = &produced.responses[0].partition_responses[0];
        let by_produce = (partition.error_code, partition.current_leader.leader_id.0, produced.node_endpoints.len());

        let topic = MetadataRequestTopic::default().with_name(Some(topic_name()));
        let metadata =
            peer.call(12, &MetadataRequest::default().with_topics(Some(vec![topic]))).await.expect("metadata");
        let topic_id = metadata.topics[0].topic_id;
        let partition = FetchPartition::default().with_partition(0).with_partition_max_bytes(100);
        let topic = FetchTopic::default().with_topic_id(topic_id).with_partitions(vec![partition]);
        let request = FetchRequest::default().with_session_epoch(-1).with_max_bytes(100).with_topics(vec![topic]);
        let fetched = peer.call(16, &request).await.expect("a response");
        let partition = &fetched.responses[0].partitions[0];
        let by_fetch = (partition.error_code, partition.current_leader.leader_id.0, fetched.node_endpoints.len());
        let endpoint = &fetched.node_endpoints[0];
        assert_eq!((endpoint.node_id.0 as NodeId, &*endpoint.host), (leader, &*format!("node-{leader}")));
        [by_produce, by_fetch]
    });
    assert_eq!(named, [(6, leader as i32, 1); 2]);
}
