//! Scenarios with whole brokers.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        CreateTopicsRequest, DeleteTopicsRequest, DescribeQuorumRequest, FetchRequest, InitProducerIdRequest,
        MetadataRequest, ProduceRequest, TopicName,
        create_topics_request::CreatableTopic,
        describe_quorum_request::{PartitionData, TopicData},
        fetch_request::{FetchPartition, FetchTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};

use super::{
    NodeId,
    cluster::{CLIENT, Cluster, PORT, listed},
    quorum_tests, seeds,
};
use crate::{
    env::{Disk, Env},
    log::tests::plain,
    peer::Peer,
    protocol::record_batch::{RecordIter, iter_batches},
};

pub(super) const TOPIC: &str = "t";
const CALL_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn topic_name() -> TopicName {
    named(TOPIC)
}

pub(super) fn named(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

pub(super) async fn connect(env: &Env, node: NodeId) -> Option<Peer> {
    Peer::connect(env, &format!("node-{node}"), PORT, "client", 64 << 20).await.ok()
}

/// The value, or none after [`CALL_LIMIT`].
pub(super) async fn limited<T>(env: &Env, call: impl Future<Output = T>) -> Option<T> {
    env.within(CALL_LIMIT, call).await
}

pub(super) async fn create_topic(peer: &mut Peer, name: &str, settings: &[(&str, &str)]) -> Option<i16> {
    let mut topic = CreatableTopic::default().with_name(named(name)).with_num_partitions(1).with_replication_factor(1);
    for (name, value) in settings {
        let config = kafka_protocol::messages::create_topics_request::CreatableTopicConfig::default()
            .with_name(StrBytes::from_string((*name).to_owned()))
            .with_value(Some(StrBytes::from_string((*value).to_owned())));
        topic.configs.push(config);
    }
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5000);
    Some(peer.call(5, &request).await.ok()?.topics.first()?.error_code)
}

/// Appends one record. Returns its offset, or the error code.
pub(super) async fn produce(peer: &mut Peer, value: &str) -> Option<Result<i64, i16>> {
    let records = PartitionProduceData::default().with_index(0).with_records(Some(plain(1, value.as_bytes(), 1000)));
    let topic = TopicProduceData::default().with_name(topic_name()).with_partition_data(vec![records]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(5000).with_topic_data(vec![topic]);
    let response = peer.call(9, &request).await.ok()?;
    let partition = response.responses.first()?.partition_responses.first()?;
    Some(if partition.error_code == 0 { Ok(partition.base_offset) } else { Err(partition.error_code) })
}

/// All records of the partition, by offset.
async fn fetch_all(env: &Env, node: NodeId) -> Option<BTreeMap<i64, String>> {
    fetch_from(env, node, 0).await
}

/// The records of the partition from an offset on.
pub(super) async fn fetch_from(env: &Env, node: NodeId, first: i64) -> Option<BTreeMap<i64, String>> {
    let mut peer = connect(env, node).await?;
    let mut found = BTreeMap::new();
    loop {
        let next = found.last_key_value().map_or(first, |(offset, _)| offset + 1);
        let partition =
            FetchPartition::default().with_partition(0).with_fetch_offset(next).with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_topic(topic_name()).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(0)
            .with_max_bytes(1 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let response = peer.call(11, &request).await.ok()?;
        let partition = response.responses.first()?.partitions.first()?.clone();
        if partition.error_code != 0 {
            return None;
        }
        found.extend(values(&partition.records.unwrap_or_default()));
        if found.last_key_value().is_none_or(|(offset, _)| offset + 1 >= partition.high_watermark) {
            return Some(found);
        }
    }
}

/// The values of records, each with its offset.
pub(super) fn values(records: &Bytes) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    for batch in iter_batches(records).filter(|batch| !batch.is_control()) {
        let record = RecordIter::new(batch.records_bytes(), 1).next().and_then(Result::ok);
        let value = record.and_then(|record| record.value).expect("each batch has one record with a value");
        found.push((batch.base_offset(), String::from_utf8_lossy(value).into_owned()));
    }
    found
}

/// What a producer was told.
pub(super) type Acknowledged = Arc<Mutex<Vec<(i64, String)>>>;

/// Appends numbered records for ever, through all faults.
async fn produce_for_ever(env: Env, node: NodeId, acknowledged: Acknowledged) {
    let mut number = 0;
    loop {
        if let Some(Some(mut peer)) = limited(&env, connect(&env, node)).await {
            let _ = limited(&env, create_topic(&mut peer, TOPIC, &[("flush.messages", "1")])).await;
            loop {
                number += 1;
                let value = format!("v{number}");
                match limited(&env, produce(&mut peer, &value)).await.flatten() {
                    Some(Ok(offset)) => acknowledged.lock().unwrap().push((offset, value)),
                    Some(Err(_)) => env.clock.sleep_until(env.clock.monotonic() + Duration::from_millis(5)).await,
                    // It is unknown whether the record was stored.
                    None => break,
                }
            }
        }
        env.clock.sleep_until(env.clock.monotonic() + Duration::from_millis(20)).await;
    }
}

/// One broker under load, and faults that the seed chooses. Returns a checksum of all that happened and the number of
/// acknowledged records.
fn faults_on_one_broker(seed: u64) -> (u64, usize) {
    let mut cluster = Cluster::new(seed);
    cluster.add(1, &["log.segment.bytes=1048576"]);
    cluster.start(1);
    let acknowledged = Acknowledged::default();
    let written = || acknowledged.lock().unwrap().len();
    cluster.world.spawn(CLIENT, produce_for_ever(cluster.clients().clone(), 1, acknowledged.clone()));
    cluster.world.run_until("the load has begun", Duration::from_secs(60), || written() > 0);
    for _ in 0..6 {
        let below = |bound: u64| cluster.world.random().below(bound);
        cluster.world.run_for(Duration::from_millis(20 + below(300)));
        match below(5) {
            0 => {
                cluster.kill(1);
                cluster.start(1);
            }
            1 => {
                cluster.cut_power(1);
                cluster.start(1);
            }
            2 => {
                assert!(cluster.stop(1), "seed {seed}: the stop was clean");
                cluster.start(1);
            }
            3 => {
                cluster.world.pause(1);
                cluster.world.run_for(Duration::from_millis(below(8000)));
                cluster.world.resume(1);
            }
            _ => {
                cluster.net.cut(CLIENT, 1);
                cluster.world.run_for(Duration::from_millis(below(8000)));
                cluster.net.mend();
                cluster.net.reset(CLIENT, 1);
            }
        }
    }
    let before = written();
    cluster.world.run_until("records are acknowledged again", Duration::from_secs(60), || written() >= before + 10);
    // The load goes on during the read.
    let must_be_stored = acknowledged.lock().unwrap().clone();
    let env = cluster.clients().clone();
    let stored = cluster.world.wait(CLIENT, "all records are read", Duration::from_secs(60), async move {
        fetch_all(&env, 1).await.expect("the partition can be read")
    });
    for (offset, value) in &must_be_stored {
        assert_eq!(stored.get(offset), Some(value), "seed {seed}: the acknowledged record {offset} is lost");
    }
    (cluster.world.trace(), written())
}

#[test]
fn inv_l4_one_broker_loses_nothing_acknowledged_through_kills_power_cuts_and_pauses() {
    for seed in seeds(16, 4) {
        assert!(faults_on_one_broker(seed).1 > 20);
    }
}

#[test]
fn a_seed_replays_to_the_same_trace() {
    assert_eq!(faults_on_one_broker(7), faults_on_one_broker(7));
    assert_ne!(faults_on_one_broker(7).0, faults_on_one_broker(8).0);
}

/// The brokers and the topics that a broker tells clients.
pub(super) async fn metadata(env: &Env, node: NodeId) -> Option<(Vec<i32>, Vec<String>)> {
    let mut peer = connect(env, node).await?;
    let response = peer.call(9, &MetadataRequest::default().with_topics(None)).await.ok()?;
    let mut brokers: Vec<i32> = response.brokers.iter().map(|broker| broker.node_id.0).collect();
    brokers.sort_unstable();
    let topics = response.topics.iter().filter_map(|topic| topic.name.as_ref().map(|name| name.to_string()));
    Some((brokers, topics.collect()))
}

pub(super) const VOTERS: [NodeId; 3] = [1, 2, 3];

/// The topics that were created, with the broker that was asked.
type Created = Arc<Mutex<Vec<(NodeId, String)>>>;

/// Creates topics for ever, each under a new name, at each broker in turn.
async fn create_for_ever(env: Env, created: Created) {
    let mut number = 0;
    loop {
        for node in VOTERS {
            let Some(Some(mut peer)) = limited(&env, connect(&env, node)).await else { continue };
            number += 1;
            let name = format!("t{number}");
            if limited(&env, create_topic(&mut peer, &name, &[])).await == Some(Some(0)) {
                created.lock().unwrap().push((node, name));
            }
        }
        env.clock.sleep_until(env.clock.monotonic() + Duration::from_millis(50)).await;
    }
}

/// The node whose controller is active, if it is one that answers.
async fn active_controller(env: &Env) -> Option<NodeId> {
    for node in VOTERS {
        let Some(mut peer) = connect(env, node).await else { continue };
        let topic = TopicData::default()
            .with_topic_name(named("__cluster_metadata"))
            .with_partitions(vec![PartitionData::default().with_partition_index(0)]);
        let response = peer.call(1, &DescribeQuorumRequest::default().with_topics(vec![topic])).await.ok()?;
        let partition = response.topics.first()?.partitions.first()?;
        if partition.error_code == 0 {
            return Some(partition.leader_id.0 as NodeId);
        }
    }
    None
}

/// Three brokers that were started together and serve clients.
fn three_serving(seed: u64) -> Cluster {
    three_serving_with(seed, &[])
}

pub(super) fn three_serving_with(seed: u64, settings: &[&str]) -> Cluster {
    let mut cluster = Cluster::new(seed);
    for node in VOTERS {
        cluster.add_voter(node, &VOTERS, settings);
    }
    VOTERS.iter().for_each(|node| cluster.begin_start(*node));
    let all_serve = || VOTERS.iter().all(|node| cluster.is_serving(*node));
    cluster.world.run_until("all brokers serve", Duration::from_secs(60), all_serve);
    cluster
}

#[test]
fn a_killed_controller_is_replaced_without_waiting_for_the_whole_election_timeout() {
    let mut gaps = Vec::new();
    for seed in 0..10 {
        let cluster = three_serving(seed);
        let limit = Duration::from_secs(60);
        let env = cluster.clients().clone();
        let active = cluster.world.wait(CLIENT, "the active controller", limit, async move {
            active_controller(&env).await.expect("one is active")
        });
        let created = Created::default();
        cluster.world.spawn(CLIENT, create_for_ever(cluster.clients().clone(), created.clone()));
        let count = || created.lock().unwrap().len();
        cluster.world.run_until("topics are created", limit, || count() > 2);
        cluster.kill(active);
        let (before, killed_at) = (count(), cluster.world.now());
        cluster.world.run_until("topics are created again", limit, || count() > before);
        gaps.push(cluster.world.now() - killed_at);
    }
    gaps.sort();
    // The shortest election timeout alone would be 500 ms.
    assert!(gaps[gaps.len() / 2] < Duration::from_millis(500) && gaps[9] < Duration::from_millis(1000), "{gaps:?}");
}

/// A controller that stops hands its leadership over: nobody waits for an election timeout.
#[test]
fn a_controller_that_stops_is_replaced_at_once() {
    for seed in seeds(6, 2) {
        let cluster = three_serving(seed);
        let env = cluster.clients().clone();
        let active = cluster.world.wait(CLIENT, "the active controller", Duration::from_secs(60), async move {
            active_controller(&env).await.expect("one is active")
        });
        let others: Vec<NodeId> = VOTERS.into_iter().filter(|node| *node != active).collect();
        let times = Arc::<Mutex<Vec<Duration>>>::default();
        let env = cluster.clients().clone();
        let (asked, noted) = (others[0], times.clone());
        cluster.world.spawn(CLIENT, async move {
            let mut peer = connect(&env, asked).await.expect("connect");
            for number in 0.. {
                create_topic(&mut peer, &format!("t{number}"), &[]).await.expect("a response");
                noted.lock().unwrap().push(env.clock.monotonic());
            }
        });
        let count = || times.lock().unwrap().len();
        cluster.world.run_until("topics are created", Duration::from_secs(60), || count() > 5);
        assert!(cluster.stop(active), "seed {seed}: the stop was not clean");
        let before = count();
        cluster.world.run_until("topics are created again", Duration::from_secs(60), || count() > before + 5);
        let times = times.lock().unwrap().clone();
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        assert!(longest < Duration::from_millis(250), "seed {seed}: no topic was created for {longest:?}");
    }
}

/// The last of them have nobody who could lead their partitions, and do not wait for it.
#[test]
fn all_brokers_stop_at_the_same_time() {
    for seed in seeds(6, 2) {
        let cluster = three_serving(seed);
        let begun = cluster.world.now();
        assert!(cluster.stop_together(&VOTERS), "seed {seed}: the stop was not clean");
        let took = cluster.world.now() - begun;
        assert!(took < Duration::from_secs(2), "seed {seed}: the stop took {took:?}");
        VOTERS.iter().for_each(|node| cluster.begin_start(*node));
        wait_until_alive(&cluster, &VOTERS, &[1, 2, 3], Duration::from_secs(60));
    }
}

/// Three brokers that start in any order, long after each other, and are killed and started again.
fn three_brokers(seed: u64) -> u64 {
    let mut cluster = Cluster::new(seed);
    for node in VOTERS {
        cluster.add_voter(node, &VOTERS, &[]);
        // Wall clocks may be wrong by minutes.
        cluster.set_skew_ms(node, cluster.world.random().below(600_000) as i64 - 300_000);
    }
    let random = |bound: u64| cluster.world.random().below(bound);
    if random(3) == 0 {
        cluster.net.set_delay((1_000, 40_000));
    }
    let first = random(3) as usize;
    for at in 0..3 {
        cluster.begin_start(VOTERS[(first + at) % 3]);
        cluster.world.run_for(Duration::from_millis(random(if seed.is_multiple_of(2) { 1000 } else { 120_000 })));
    }
    let all_serve = || VOTERS.iter().all(|node| cluster.is_serving(*node));
    cluster.world.run_until("all brokers serve", Duration::from_secs(60), all_serve);
    let created = Created::default();
    cluster.world.spawn(CLIENT, create_for_ever(cluster.clients().clone(), created.clone()));
    let count = || created.lock().unwrap().len();
    let by_all = || VOTERS.iter().all(|node| created.lock().unwrap().iter().any(|(by, _)| by == node));
    cluster.world.run_until("each broker creates topics, or has the controller do it", Duration::from_secs(60), by_all);
    let mut producer_ids = BTreeSet::new();
    for node in VOTERS {
        let env = cluster.clients().clone();
        let id = cluster.world.wait(CLIENT, "a producer id", Duration::from_secs(10), async move {
            let mut peer = connect(&env, node).await.expect("connect");
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            peer.call(4, &request).await.expect("a response").producer_id.0
        });
        assert!(id >= 0 && producer_ids.insert(id), "seed {seed}: producer id {id} of node {node}");
    }
    for _ in 0..4 {
        let node = VOTERS[random(3) as usize];
        if random(2) == 0 {
            cluster.kill(node)
        } else {
            cluster.cut_power(node)
        }
        let before = count();
        cluster.world.run_until("two of three go on", Duration::from_secs(60), || count() > before + 2);
        cluster.start(node);
    }
    let must_exist = created.lock().unwrap().clone();
    for node in VOTERS {
        let (env, must_exist) = (cluster.clients().clone(), must_exist.clone());
        let what = format!("node {node} tells of all brokers and topics (seed {seed})");
        cluster.world.wait(CLIENT, &what, Duration::from_secs(10), async move {
            // A node applies what the controller has decided a little later.
            while !metadata(&env, node).await.is_some_and(|(brokers, topics)| {
                brokers == [1, 2, 3] && must_exist.iter().all(|(_, name)| topics.contains(name))
            }) {
                env.clock.sleep_until(env.clock.monotonic() + Duration::from_millis(10)).await;
            }
        });
    }
    cluster.world.trace()
}

/// The offsets with which the metadata log of a node begins and ends.
fn metadata_log(cluster: &Cluster, node: NodeId) -> (i64, i64) {
    let (disk, dir) = (cluster.disk(node), Path::new("/data/__cluster_metadata-0"));
    let names = disk.list(dir).unwrap().into_iter().map(|entry| entry.name);
    let segments: Vec<String> = names.filter(|name| name.ends_with(".log")).collect();
    let start = segments[0].trim_end_matches(".log").parse().unwrap();
    let bytes: Vec<u8> = segments.iter().flat_map(|name| disk.read(&dir.join(name)).unwrap()).collect();
    (start, iter_batches(&bytes).last().map_or(start, |batch| batch.next_offset()))
}

/// Creates topics for ever, each under a new name, at one broker.
async fn create_at(env: Env, node: NodeId, created: Created) {
    for number in 0.. {
        let Some(Some(mut peer)) = limited(&env, connect(&env, node)).await else { continue };
        let name = format!("t{number}");
        if limited(&env, create_topic(&mut peer, &name, &[])).await == Some(Some(0)) {
            created.lock().unwrap().push((node, name));
        }
        env.clock.sleep_until(env.clock.monotonic() + Duration::from_millis(50)).await;
    }
}

/// The second of the two steps is not forgotten: a removed voter must not come back by itself, but this one must.
#[test]
fn a_new_disk_becomes_a_voter_although_its_node_ends_after_the_former_one_was_removed() {
    for seed in seeds(3, 1) {
        let mut cluster = three_serving(seed);
        let away = VOTERS[(seed % 3) as usize];
        cluster.cut_power(away);
        cluster.replace_disk(away);
        cluster.begin_start(away);
        let observer = cluster.observer();
        cluster.world.run_until("the former directory is removed", Duration::from_secs(20), || {
            let mut is_removed = false;
            observer.each(|node, broker| is_removed |= node != away && broker.voter_count() == 2);
            is_removed
        });
        cluster.kill(away);
        cluster.start(away);
        let directory = quorum_tests::directory_id(&cluster, away);
        quorum_tests::wait_for_voters(&cluster, "the broker is a voter", move |voters| {
            voters.len() == 3 && voters.contains(&(away, directory))
        });
        let mark = Path::new("/data/__cluster_metadata-0/joining");
        cluster.world.run_until("it need not join again", Duration::from_secs(5), || !cluster.disk(away).exists(mark));
    }
}

/// The directories of partitions of the topics `gone…` on a node.
fn gone_partitions(cluster: &Cluster, node: NodeId) -> Vec<String> {
    let names = cluster.disk(node).list(Path::new("/data")).unwrap().into_iter().map(|entry| entry.name);
    names.filter(|name| name.starts_with("gone") && name.ends_with("-0")).collect()
}

/// A broker is cut off, killed, or loses its disk, and comes back when the others have trimmed the metadata log.
fn a_broker_comes_back_through_a_snapshot(seed: u64) {
    let mut cluster = three_serving_with(seed, &["metadata.log.max.record.bytes.between.snapshots=3000"]);
    let (limit, away) = (Duration::from_secs(120), VOTERS[(seed % 3) as usize]);
    let other = VOTERS[((seed + 1) % 3) as usize];
    let mut gone: Vec<String> = Vec::new();
    while gone_partitions(&cluster, away).is_empty() {
        let (env, name) = (cluster.clients().clone(), format!("gone{}", gone.len()));
        gone.push(name.clone());
        cluster.world.wait(CLIENT, "a topic is created", limit, async move {
            while !matches!(create_topic(&mut connect(&env, other).await.unwrap(), &name, &[]).await, Some(0 | 36)) {
                env.clock.sleep_until(env.clock.monotonic() + Duration::from_millis(50)).await;
            }
        });
        cluster.world.run_for(Duration::from_millis(100));
    }
    let created = Created::default();
    let fault = seed / 3 % 3;
    match fault {
        0 => cluster.net.isolate(away, VOTERS),
        1 => cluster.kill(away),
        _ => {
            cluster.cut_power(away);
            cluster.replace_disk(away);
        }
    }
    let end = if fault == 2 { 0 } else { metadata_log(&cluster, away).1 };
    let env = cluster.clients().clone();
    cluster.world.wait(CLIENT, "the topics are deleted", limit, async move {
        let topic_names = gone.iter().map(|name| named(name)).collect();
        let request = DeleteTopicsRequest::default().with_topic_names(topic_names).with_timeout_ms(5000);
        let deleted = async || {
            let mut peer = connect(&env, other).await?;
            let response = limited(&env, peer.call(5, &request)).await?.ok()?;
            Some(response.responses.iter().all(|topic| matches!(topic.error_code, 0 | 3)))
        };
        while deleted().await != Some(true) {
            env.clock.sleep_until(env.clock.monotonic() + Duration::from_millis(50)).await;
        }
    });
    cluster.world.spawn(CLIENT, create_at(cluster.clients().clone(), other, created.clone()));
    cluster.world.run_until("the others have trimmed their logs", Duration::from_secs(600), || {
        VOTERS.into_iter().all(|node| node == away || metadata_log(&cluster, node).0 > end + 1)
    });
    cluster.net.mend();
    if fault > 0 {
        cluster.start(away);
    }
    let must_exist = created.lock().unwrap().clone();
    let env = cluster.clients().clone();
    cluster.world.wait(CLIENT, "the broker tells of all brokers and topics", limit, async move {
        while !metadata(&env, away).await.is_some_and(|(brokers, topics)| {
            brokers == [1, 2, 3]
                && must_exist.iter().all(|(_, name)| topics.contains(name))
                && !topics.iter().any(|name| name.starts_with("gone"))
        }) {
            env.clock.sleep_until(env.clock.monotonic() + Duration::from_millis(50)).await;
        }
    });
    assert!(metadata_log(&cluster, away).0 > end, "seed {seed}: the log begins with a snapshot");
    cluster.world.run_until("the logs of deleted topics go away", limit, || gone_partitions(&cluster, away).is_empty());
    // It is a voter again, with its new disk: with it, one of the others can be missed.
    let directory = quorum_tests::directory_id(&cluster, away);
    quorum_tests::wait_for_voters(&cluster, "the broker is a voter", move |voters| {
        voters.len() == 3 && voters.contains(&(away, directory))
    });
    let third = VOTERS[((seed + 2) % 3) as usize];
    cluster.kill(third);
    let count = || created.lock().unwrap().len();
    let before = count();
    cluster.world.run_until("two of three go on", limit, || count() > before + 2);
    cluster.start(third);
}

#[test]
fn a_broker_that_was_away_for_long_comes_back_through_a_snapshot() {
    for seed in seeds(9, 1) {
        a_broker_comes_back_through_a_snapshot(seed);
    }
}

/// The brokers that each serving node knows to be alive.
fn alive(cluster: &Cluster) -> BTreeMap<NodeId, Vec<i32>> {
    let mut alive = BTreeMap::new();
    cluster.observer().each(|node, broker| {
        alive.insert(node, broker.image().alive_brokers().map(|broker| broker.id).collect());
    });
    alive
}

/// Waits until these nodes know exactly these brokers to be alive. Returns how long it took.
fn wait_until_alive(cluster: &Cluster, by: &[NodeId], expected: &[i32], limit: Duration) -> Duration {
    let begun = cluster.world.now();
    cluster.world.run_until(&format!("the nodes {by:?} know {expected:?}"), limit, || {
        let alive = alive(cluster);
        by.iter().all(|node| alive.get(node).is_some_and(|alive| alive == expected))
    });
    cluster.world.now() - begun
}

/// Longest time until a broker that is silent, or back, is known to be so.
const NOTICE_LIMIT: Duration = Duration::from_secs(2);

#[test]
fn a_silent_broker_is_fenced_soon_and_comes_back() {
    for seed in seeds(4, 2) {
        let cluster = three_serving(seed);
        wait_until_alive(&cluster, &VOTERS, &[1, 2, 3], Duration::from_secs(60));
        for (silent, others) in [(3, [1, 2]), (1, [2, 3]), (2, [1, 3])] {
            let expected = others.map(|node| node as i32);
            // A killed one would refuse connections, and would be fenced at once.
            cluster.world.pause(silent);
            let paused = wait_until_alive(&cluster, &others, &expected, NOTICE_LIMIT);
            cluster.world.resume(silent);
            wait_until_alive(&cluster, &VOTERS, &[1, 2, 3], 3 * NOTICE_LIMIT);
            cluster.net.isolate(silent, others);
            let cut = wait_until_alive(&cluster, &others, &expected, NOTICE_LIMIT);
            cluster.net.mend();
            wait_until_alive(&cluster, &VOTERS, &[1, 2, 3], 3 * NOTICE_LIMIT);
            let least = Duration::from_millis(1000);
            assert!(paused > least && cut > least, "seed {seed}: paused for {paused:?}, cut off for {cut:?}");
        }
    }
}

#[test]
fn a_broker_without_a_vote_is_fenced_at_once_when_it_is_killed() {
    for seed in seeds(4, 2) {
        let mut cluster = Cluster::new(seed);
        let quorum = format!("controller.quorum.voters={}", listed(&VOTERS));
        VOTERS.into_iter().for_each(|node| cluster.add_node(node, "controller", &quorum, &[]));
        [11, 12].into_iter().for_each(|node| cluster.add_node(node, "broker", &quorum, &[]));
        let all = [1, 2, 3, 11, 12];
        all.into_iter().for_each(|node| cluster.begin_start(node));
        wait_until_alive(&cluster, &all, &[11, 12], Duration::from_secs(60));
        cluster.kill(12);
        wait_until_alive(&cluster, &[1, 2, 3, 11], &[11], Duration::from_millis(150));
        cluster.start(12);
        wait_until_alive(&cluster, &all, &[11, 12], NOTICE_LIMIT);
        cluster.world.pause(12);
        wait_until_alive(&cluster, &[1, 2, 3, 11], &[11], NOTICE_LIMIT);
        cluster.world.resume(12);
        wait_until_alive(&cluster, &all, &[11, 12], 3 * NOTICE_LIMIT);
    }
}

/// Losing connections, a pause of the controller, or a short pause of a broker is no silence.
#[test]
fn a_broker_that_lives_is_not_fenced() {
    for seed in seeds(4, 2) {
        let cluster = three_serving(seed);
        wait_until_alive(&cluster, &VOTERS, &[1, 2, 3], Duration::from_secs(60));
        let calm = |what: &str, length: Duration| {
            let until = cluster.world.now() + length;
            while cluster.world.now() < until {
                cluster.world.run_for(Duration::from_millis(50));
                let alive = alive(&cluster);
                assert!(alive.values().all(|alive| alive == &[1, 2, 3]), "seed {seed}: {what}: {alive:?}");
            }
        };
        for node in VOTERS {
            for other in VOTERS.into_iter().filter(|other| *other != node) {
                cluster.net.reset(node, other);
                calm("a connection was lost", Duration::from_secs(2));
            }
            // Shorter than an election timeout.
            cluster.world.pause(node);
            cluster.world.run_for(Duration::from_millis(400));
            cluster.world.resume(node);
            calm("a broker was paused", Duration::from_secs(2));
        }
        // All of them are paused, as on a host that did not run.
        VOTERS.into_iter().for_each(|node| cluster.world.pause(node));
        cluster.world.run_for(Duration::from_secs(5));
        VOTERS.into_iter().for_each(|node| cluster.world.resume(node));
        calm("all were paused", Duration::from_secs(5));
    }
}

#[test]
fn without_a_limit_for_silence_a_silent_broker_is_fenced_after_its_session() {
    let cluster = three_serving_with(4, &["ottla.broker.silence.timeout.ms=0"]);
    wait_until_alive(&cluster, &VOTERS, &[1, 2, 3], Duration::from_secs(60));
    cluster.world.pause(3);
    let took = wait_until_alive(&cluster, &[1, 2], &[1, 2], Duration::from_secs(12));
    assert!(took > Duration::from_secs(7), "not before broker.session.timeout.ms: {took:?}");
}

/// With FULL=1 for 24 hours.
#[test]
fn without_faults_no_broker_is_fenced_and_nobody_else_is_elected() {
    let cluster = three_serving(4);
    wait_until_alive(&cluster, &VOTERS, &[1, 2, 3], Duration::from_secs(60));
    let epochs = || {
        let mut epochs = BTreeMap::new();
        cluster.observer().each(|node, broker| _ = epochs.insert(node, broker.quorum_epoch()));
        epochs
    };
    let before = epochs();
    let minutes = if std::env::var_os("FULL").is_some() { 24 * 60 } else { 10 };
    for _ in 0..minutes * 60 {
        cluster.world.run_for(Duration::from_secs(1));
        assert!(alive(&cluster).values().all(|alive| alive == &[1, 2, 3]), "a broker was fenced");
    }
    assert_eq!(epochs(), before, "there was an election");
}

#[test]
fn three_brokers_started_in_any_order_are_one_cluster_and_any_two_of_them_go_on() {
    for seed in seeds(8, 2) {
        three_brokers(seed);
    }
}

#[test]
fn three_brokers_replay_from_their_seed() {
    for seed in seeds(3, 1) {
        assert_eq!(three_brokers(seed), three_brokers(seed), "seed {seed}");
    }
}
