//! Scenarios of Apache Kafka's own system tests on three brokers, with Kafka's verifiable clients and tools: bounces,
//! a rolling restart with static members, and what an operator asks.

use std::{collections::BTreeMap, process::Command, time::Duration};

use protocol_tests::{
    clients::create_replicated_topic,
    cluster::{Cluster, NODES},
    java::{ToolResult, java, main_class, tool},
    process::{Process, eventually},
    verifiable::{Placed, VerifiableConsumer, VerifiableProducer},
};

const TOPIC: &str = "bounced";
const LIMIT: Duration = Duration::from_secs(60);

/// Three brokers with a topic that survives the loss of one of them.
fn cluster(partitions: i32) -> (Cluster, String) {
    let cluster = Cluster::start(|options| options);
    let bootstrap = cluster.bootstrap();
    create_replicated_topic(&bootstrap, TOPIC, partitions, 3, &[("min.insync.replicas", "2")]);
    (cluster, bootstrap)
}

fn await_more(producer: &mut VerifiableProducer, records: usize) {
    let before = producer.acknowledged();
    eventually("records are acknowledged", LIMIT, || (producer.acknowledged() >= before + records).then_some(()));
}

/// Waits until the members together have read all acknowledged records, each at the place that the producer was told.
fn await_read(members: &[VerifiableConsumer], acknowledged: &[Placed]) {
    eventually("the group has read everything", LIMIT, || {
        let read = members.iter().flat_map(VerifiableConsumer::read);
        let read: BTreeMap<(i32, i64), String> =
            read.map(|record| ((record.partition, record.offset), record.value)).collect();
        let missing = acknowledged.iter().find(|record| {
            let found = read.get(&(record.partition, record.offset));
            assert!(found.is_none_or(|value| *value == record.value), "acknowledged {record:?}, read {found:?}");
            found.is_none()
        });
        (missing.is_none() && read.len() == acknowledged.len()).then_some(())
    });
}

/// kafkatest/tests/core/replication_test.py: clean and hard bounces of leaders.
#[test]
fn clean_and_hard_bounces_of_leaders_lose_and_repeat_nothing() {
    let (mut cluster, bootstrap) = cluster(3);
    let mut producer = VerifiableProducer::start(&bootstrap, TOPIC, 1, 200);
    let members = [VerifiableConsumer::start(&bootstrap, TOPIC, "readers", &[])];
    await_more(&mut producer, 100);
    for is_clean in [true, false, true, false] {
        let leader = cluster.await_in_sync(TOPIC)[0];
        let broker = cluster.broker(leader);
        if is_clean {
            broker.stop();
        } else {
            broker.kill();
        }
        await_more(&mut producer, 200);
        cluster.broker(leader).start();
    }
    cluster.await_in_sync(TOPIC);
    let acknowledged = producer.finish();
    await_read(&members, &acknowledged);
    verify_replicas(&bootstrap);
    members.into_iter().for_each(VerifiableConsumer::finish);
}

/// ReplicaVerificationTool compares what all replicas return, from the first offset on. It runs until it is ended.
fn start_verification(bootstrap: &str) -> Process {
    let mut command: Command = java();
    command.arg(main_class("kafka-replica-verification")).args(["--broker-list", bootstrap, "--time", "-2"]);
    command.args(["--topics-include", TOPIC, "--report-interval-ms", "500"]);
    Process::start(command)
}

fn assert_replicas_agree(verification: &Process) {
    let said = verification.lines().join("\n");
    assert!(!said.contains("mismatch") && !said.contains("Exception"), "{said}");
}

fn verify_replicas(bootstrap: &str) {
    let mut verification = start_verification(bootstrap);
    let line = verification.wait_for_line(LIMIT, |line| line.contains("max lag is 0 for partition"));
    let said = verification.lines().join("\n");
    assert!(line.is_some_and(|line| line.contains("among 3 partitions")), "{said}");
    assert_replicas_agree(&verification);
}

/// kafkatest/tests/tools/replica_verification_test.py: the tool follows a load, and reports no lag when it has ended.
#[test]
fn the_replicas_of_a_topic_agree_under_load() {
    const REPORT: &str = "max lag is ";
    let (cluster, bootstrap) = cluster(3);
    cluster.await_in_sync(TOPIC);
    let mut producer = VerifiableProducer::start(&bootstrap, TOPIC, 1, 1000);
    await_more(&mut producer, 100);
    let mut verification = start_verification(&bootstrap);
    let report = |line: &str| line.contains(REPORT) && line.contains("among 3 partitions");
    let first = verification.wait_for_line(LIMIT, report);
    assert!(first.is_some(), "no report:\n{}", verification.lines().join("\n"));
    await_more(&mut producer, 2000);
    assert_replicas_agree(&verification);
    let acknowledged = producer.finish();
    let end_offset = |partition: i32| {
        let ends = acknowledged.iter().filter(|record| record.partition == partition).map(|record| record.offset + 1);
        ends.max().unwrap_or_default()
    };
    // The report that names a lag of 0 names one of the partitions and how far it has been verified: all of its records.
    eventually("the replicas are verified to their ends", LIMIT, || {
        assert!(verification.is_running(), "the tool has ended:\n{}", verification.lines().join("\n"));
        assert_replicas_agree(&verification);
        let lines = verification.lines();
        let last = lines.iter().rev().find(|line| line.contains(REPORT))?;
        let place = last.split_once("max lag is 0 for partition ")?.1;
        let (partition, offset) = place.split_once(" at offset ").expect("an offset");
        let partition = partition.rsplit('-').next().expect("a partition").parse().expect("a number");
        let offset: i64 = offset.split_whitespace().next().expect("an offset").parse().expect("a number");
        (offset == end_offset(partition)).then_some(())
    });
}

/// kafkatest/tests/client/consumer_test.py: rolling bounces of the brokers, with static members.
#[test]
fn static_members_keep_their_partitions_in_a_rolling_restart() {
    let (mut cluster, bootstrap) = cluster(6);
    let mut producer = VerifiableProducer::start(&bootstrap, TOPIC, 1, 100);
    let mut members = ["a", "b", "c"].map(|id| {
        VerifiableConsumer::start(
            &bootstrap,
            TOPIC,
            "static",
            &["--group-instance-id", id, "--session-timeout", "30000"],
        )
    });
    eventually("each member has two partitions", LIMIT, || {
        let mut partitions: Vec<i32> = members.iter().flat_map(VerifiableConsumer::assigned).collect();
        partitions.sort();
        (partitions == [0, 1, 2, 3, 4, 5] && members.iter().all(|member| member.assigned().len() == 2)).then_some(())
    });
    let rebalances = |members: &mut [VerifiableConsumer; 3]| {
        members.each_mut().map(|member| (member.count("partitions_assigned"), member.count("partitions_revoked")))
    };
    let before = rebalances(&mut members);
    for node in NODES {
        cluster.await_in_sync(TOPIC);
        cluster.await_in_sync("__consumer_offsets");
        cluster.broker(node).restart();
        await_more(&mut producer, 100);
    }
    let acknowledged = producer.finish();
    await_read(&members, &acknowledged);
    assert_eq!(rebalances(&mut members), before, "assignments and revocations of each member");
    members.into_iter().for_each(VerifiableConsumer::finish);
}

/// Runs `kafka-NAME --bootstrap-server … ARGUMENTS`.
fn run(bootstrap: &str, name: &str, arguments: &str) -> ToolResult {
    let all: Vec<&str> = ["--bootstrap-server", bootstrap].into_iter().chain(arguments.split_whitespace()).collect();
    tool(name, &all)
}

/// The rows of `kafka-topics --describe` for partitions that are not well.
fn rows(bootstrap: &str, filter: &str) -> Vec<String> {
    let said = run(bootstrap, "kafka-topics", &format!("--describe --topic {TOPIC} {filter}")).ok();
    said.lines().filter(|line| line.contains("Partition:")).map(str::to_owned).collect()
}

#[test]
fn tools_describe_a_broker_that_is_away_and_bring_its_leaders_back() {
    let (mut cluster, bootstrap) = cluster(3);
    let leaders = cluster.await_in_sync(TOPIC);
    assert_eq!(rows(&bootstrap, "--under-replicated-partitions"), [""; 0]);
    let away = leaders[0];
    cluster.broker(away).stop();
    let others: Vec<i32> = NODES.into_iter().filter(|node| *node != away).collect();
    let under_replicated = rows(&bootstrap, "--under-replicated-partitions");
    assert_eq!(under_replicated.len(), 3, "{under_replicated:?}");
    for row in &under_replicated {
        let isr = row.split("Isr: ").nth(1).expect("an ISR").split_whitespace().next().expect("an ISR");
        let mut isr: Vec<i32> = isr.split(',').map(|id| id.parse().expect("an id")).collect();
        isr.sort();
        assert_eq!(isr, others, "{row}");
    }
    assert_eq!(rows(&bootstrap, "--at-min-isr-partitions").len(), 3);
    assert_eq!(rows(&bootstrap, "--under-min-isr-partitions"), [""; 0]);
    assert_eq!(rows(&bootstrap, "--unavailable-partitions"), [""; 0]);

    cluster.broker(away).start();
    let leaders = cluster.await_in_sync(TOPIC);
    assert_ne!(leaders[0], away);
    assert_eq!(rows(&bootstrap, "--under-replicated-partitions"), [""; 0]);
    let election = format!("--election-type preferred --topic {TOPIC} --partition 0");
    run(&bootstrap, "kafka-leader-election", &election)
        .says(&format!("Successfully completed leader election (PREFERRED) for partitions {TOPIC}-0"));
    assert_eq!(cluster.await_in_sync(TOPIC)[0], away);
    run(&bootstrap, "kafka-leader-election", &election).says("Valid replica already elected for partitions");
}

#[test]
fn tools_describe_all_brokers_and_the_quorum() {
    let (mut cluster, bootstrap) = cluster(3);
    cluster.await_in_sync(TOPIC);
    let versions = run(&bootstrap, "kafka-broker-api-versions", "").ok();
    for node in NODES {
        let broker = format!("127.0.0.1:{} (id: {node} rack: null isFenced: false) -> (", cluster.broker(node).port());
        assert!(versions.contains(&broker), "no {broker} in\n{versions}");
    }

    let status = run(&bootstrap, "kafka-metadata-quorum", "describe --status").ok();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in\n{status}")).trim().to_owned()
    };
    let leader: i32 = field("LeaderId").parse().expect("an id");
    assert!(NODES.contains(&leader), "{status}");
    for node in NODES {
        assert!(field("CurrentVoters").contains(&format!("\"id\": {node}")), "{status}");
    }
    let replication = run(&bootstrap, "kafka-metadata-quorum", "describe --replication").ok();
    let mut roles: Vec<(i32, &str)> = replication
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            Some((columns.first()?.parse().ok()?, *columns.last()?))
        })
        .collect();
    roles.sort();
    let expected = NODES.map(|node| (node, if node == leader { "Leader" } else { "Follower" }));
    assert_eq!(roles, expected, "{replication}");

    let described =
        run(&bootstrap, "kafka-log-dirs", &format!("--describe --topic-list {TOPIC} --broker-list 1,2,3")).ok();
    let json =
        described.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no JSON in\n{described}"));
    let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
    for broker in json["brokers"].as_array().expect("brokers") {
        let directories = broker["logDirs"].as_array().expect("directories");
        assert_eq!(directories.len(), 1, "{broker}");
        assert!(directories[0]["error"].is_null(), "{broker}");
        assert_eq!(directories[0]["partitions"].as_array().expect("partitions").len(), 3, "{broker}");
    }
    assert_eq!(json["brokers"].as_array().expect("brokers").len(), 3);
}
