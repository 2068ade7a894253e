//! Consumer groups with librdkafka: rebalances, commits, and both across restarts.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use protocol_tests::{
    broker::Broker,
    clients::{CALL_LIMIT, Record, consumer, create_topic, produce, with_coordinator},
};
use rdkafka::{
    consumer::{BaseConsumer, CommitMode, Consumer},
    message::Message,
    topic_partition_list::{Offset, TopicPartitionList},
};

/// Longest duration of a rebalance, including join and session timeouts.
const REBALANCE_LIMIT: Duration = Duration::from_secs(60);

/// Polls the members in turn until their assignments have these sizes, in any order; collects the values they read.
fn settle(members: &[&BaseConsumer], sizes: &[usize], values: &mut Vec<String>) {
    let deadline = Instant::now() + REBALANCE_LIMIT;
    loop {
        for member in members {
            if let Some(message) = member.poll(Duration::from_millis(20)) {
                let message = message.expect("poll");
                values.push(String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned());
            }
        }
        let assigned: Vec<usize> =
            members.iter().map(|member| member.assignment().expect("assignment").count()).collect();
        if assigned == sizes {
            return;
        }
        assert!(Instant::now() < deadline, "assignments are {assigned:?}, not {sizes:?}, after {REBALANCE_LIMIT:?}");
    }
}

/// Polls until `wanted` different values are read.
fn read_until(members: &[&BaseConsumer], values: &mut Vec<String>, wanted: usize) {
    let deadline = Instant::now() + REBALANCE_LIMIT;
    while values.iter().collect::<BTreeSet<_>>().len() < wanted {
        for member in members {
            if let Some(message) = member.poll(Duration::from_millis(20)) {
                let message = message.expect("poll");
                values.push(String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned());
            }
        }
        assert!(Instant::now() < deadline, "{} of {wanted} records read after {REBALANCE_LIMIT:?}", values.len());
    }
}

fn rebalance(assignor: &str) {
    let broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "shared", 4, &[]);
    let records =
        |from: i32, to: i32| (from..to).map(|i| Record::to_partition(i % 4, format!("{i}"))).collect::<Vec<_>>();
    produce(&bootstrap, "shared", &[], &records(0, 100));
    let settings = [("partition.assignment.strategy", assignor), ("heartbeat.interval.ms", "200")];
    let mut values = Vec::new();

    let first = consumer(&bootstrap, "g", &settings);
    first.subscribe(&["shared"]).expect("subscribe");
    settle(&[&first], &[4], &mut values);
    read_until(&[&first], &mut values, 100);
    first.commit_consumer_state(CommitMode::Sync).expect("commit");

    let second = consumer(&bootstrap, "g", &settings);
    second.subscribe(&["shared"]).expect("subscribe");
    settle(&[&first, &second], &[2, 2], &mut values);
    produce(&bootstrap, "shared", &[], &records(100, 200));
    read_until(&[&first, &second], &mut values, 200);
    let (ours, theirs) = (partitions(&first), partitions(&second));
    assert_eq!(ours.union(&theirs).count(), 4, "{ours:?} and {theirs:?}");
    first.commit_consumer_state(CommitMode::Sync).expect("commit");
    second.commit_consumer_state(CommitMode::Sync).expect("commit");

    // One leaves: the other gets all partitions and continues from the first one's commits.
    first.unsubscribe();
    drop(first);
    settle(&[&second], &[4], &mut values);
    produce(&bootstrap, "shared", &[], &records(200, 300));
    read_until(&[&second], &mut values, 300);
    values.sort_by_key(|value| value.parse::<i32>().expect("a number"));
    let expected: Vec<String> = (0..300).map(|i| i.to_string()).collect();
    assert_eq!(values, expected, "every record is read once, because partitions move only after a commit");
}

fn partitions(member: &BaseConsumer) -> BTreeSet<i32> {
    member.assignment().expect("assignment").elements().iter().map(|element| element.partition()).collect()
}

#[test]
fn two_eager_members_share_and_one_leaves() {
    rebalance("range");
}

#[test]
fn two_cooperative_members_share_and_one_leaves() {
    rebalance("cooperative-sticky");
}

#[test]
fn a_member_that_dies_is_replaced_after_its_session() {
    let broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "t", 2, &[]);
    let settings = [("heartbeat.interval.ms", "200"), ("session.timeout.ms", "6000"), ("max.poll.interval.ms", "6000")];
    let mut values = Vec::new();
    let silent = consumer(&bootstrap, "g", &settings);
    silent.subscribe(&["t"]).expect("subscribe");
    settle(&[&silent], &[2], &mut values);
    let other = consumer(&bootstrap, "g", &settings);
    other.subscribe(&["t"]).expect("subscribe");
    // `silent` is no longer polled: it stops its heartbeats by itself and loses its partitions.
    settle(&[&other], &[2], &mut values);
    // Closing would wait for the revocation of an assignment that is already lost.
    std::mem::forget(silent);
}

#[test]
fn committed_offsets_survive_a_stop_and_a_kill() {
    let mut broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "t", 3, &[]);
    let records: Vec<Record> = (0..30).map(|i| Record::to_partition(i % 3, format!("{i}"))).collect();
    produce(&bootstrap, "t", &[], &records);
    let commit = |offsets: &[(i32, i64)]| {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset("t", *partition, Offset::Offset(*offset)).expect("an offset");
        }
        let committer = consumer(&bootstrap, "g", &[]);
        with_coordinator("commit", || committer.commit(&list, CommitMode::Sync));
    };
    let committed = || {
        let mut list = TopicPartitionList::new();
        list.add_partition_range("t", 0, 2);
        let reader = consumer(&bootstrap, "g", &[]);
        let list = with_coordinator("committed offsets", || reader.committed_offsets(list.clone(), CALL_LIMIT));
        list.elements().iter().map(|element| element.offset().to_raw()).collect::<Vec<_>>()
    };
    assert_eq!(committed(), [Some(-1001); 3]);
    commit(&[(0, 5), (1, 7)]);
    assert_eq!(committed(), [Some(5), Some(7), Some(-1001)]);
    broker.restart();
    assert_eq!(committed(), [Some(5), Some(7), Some(-1001)]);
    commit(&[(1, 8), (2, 0)]);
    broker.kill();
    broker.start();
    assert_eq!(committed(), [Some(5), Some(8), Some(0)]);

    // A new member starts at the group's committed offset.
    let member = consumer(&bootstrap, "g", &[]);
    member.subscribe(&["t"]).expect("subscribe");
    let mut values = Vec::new();
    settle(&[&member], &[3], &mut values);
    read_until(&[&member], &mut values, 5 + 2 + 10);
    assert_eq!(values.len(), 17);
}

#[test]
fn a_group_goes_on_across_a_restart_of_the_broker() {
    let mut broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "t", 2, &[]);
    let member = consumer(&bootstrap, "g", &[("heartbeat.interval.ms", "200"), ("reconnect.backoff.max.ms", "200")]);
    member.subscribe(&["t"]).expect("subscribe");
    let mut values = Vec::new();
    settle(&[&member], &[2], &mut values);
    broker.restart();
    produce(&bootstrap, "t", &[], &[Record::to_partition(0, "a"), Record::to_partition(1, "b")]);
    let deadline = Instant::now() + REBALANCE_LIMIT;
    while values.len() < 2 {
        assert!(Instant::now() < deadline, "only {values:?} after {REBALANCE_LIMIT:?}");
        // A transport error during the restart is not a failure of the group.
        if let Some(Ok(message)) = member.poll(Duration::from_millis(50)) {
            values.push(String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned());
        }
    }
    member.commit_consumer_state(CommitMode::Sync).expect("the member still belongs to the group");
}
