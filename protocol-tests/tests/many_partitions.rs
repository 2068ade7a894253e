//! A topic with very many partitions: its logs are opened and removed in portions, and other clients do not wait for
//! it.

use std::time::{Duration, Instant};

use protocol_tests::{
    broker::BrokerOptions,
    clients::{
        Record, admin, admin_options, block_on, config, create_replicated_topic, create_topic, producer, read_all, send,
    },
    cluster::{Cluster, NODES},
    process::{eventually, memory_bytes, poll},
};
use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};

const MANY: i32 = 1_500;

fn delete_topic(bootstrap: &str, name: &str) {
    let deleted = block_on(admin(bootstrap).delete_topics(&[name], &admin_options())).expect("ask");
    assert!(deleted[0].is_ok(), "{deleted:?}");
}

#[test]
fn a_topic_of_many_partitions_works_at_once_and_keeps_nobody_waiting() {
    let broker = BrokerOptions::default().start();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "small", 1, &[]);
    // Creates the topic, deletes it and creates it again. Each time the last partition works as soon as the answer
    // comes.
    for round in 0..2 {
        let many = NewTopic::new("many", MANY, TopicReplication::Fixed(1));
        let admin = admin(&bootstrap);
        let created = std::thread::scope(|scope| {
            let creating = scope.spawn(|| {
                let started = Instant::now();
                let created = block_on(admin.create_topics(&[many], &admin_options())).expect("ask");
                (created, started.elapsed())
            });
            // Meanwhile other clients create topics.
            let (mut others, mut longest) = (0, Duration::ZERO);
            while !creating.is_finished() {
                let started = Instant::now();
                create_topic(&bootstrap, &format!("other-{round}-{others}"), 1, &[]);
                longest = longest.max(started.elapsed());
                others += 1;
            }
            let (created, took) = creating.join().expect("join");
            eprintln!("{MANY} partitions took {took:?}; {others} other topics meanwhile, at most {longest:?} each");
            created
        });
        assert!(created[0].is_ok(), "{created:?}");
        let producer = producer(&bootstrap, &[("retries", "0")]);
        send(&producer, "many", &[Record::to_partition(MANY - 1, format!("round {round}"))]);
        assert_eq!(
            read_all(&bootstrap, "many").iter().map(|stored| stored.text()).collect::<Vec<_>>(),
            [format!("round {round}")]
        );
        delete_topic(&bootstrap, "many");
    }
    assert_eq!(read_all(&bootstrap, "small").len(), 0);
}

/// The topics of the cluster with 10,000 partitions.
const TOPICS: i32 = 10;
const PARTITIONS_PER_TOPIC: i32 = 1_000;
const FAIL_OVER_LIMIT: Duration = Duration::from_secs(60);

/// How long the memory is watched after a change: work in the background follows it.
const WATCHED: Duration = Duration::from_secs(10);
const MOST_MB: f64 = 100.0;

/// Watches the memory of the running brokers, and prints it in MB.
fn check_memory(cluster: &mut Cluster, when: &str, running: &[i32]) {
    for node in running {
        let process = cluster.broker(*node).process_id();
        let megabytes = |field| memory_bytes(process, field) as f64 / 1e6;
        let at_once = megabytes("VmRSS");
        let is_too_much = || (megabytes("VmRSS") >= MOST_MB).then_some(());
        let has_grown = poll(WATCHED / running.len() as u32, is_too_much).is_some();
        let (now, most) = (megabytes("VmRSS"), megabytes("VmHWM"));
        eprintln!("{when}: broker {node} had {at_once:.1} MB, has {now:.1} MB, and had {most:.1} MB at most");
        assert!(!has_grown, "{when}: broker {node} has {now:.1} MB");
    }
}

/// It writes 60,000 files, whose removal takes minutes.
#[test]
fn three_brokers_with_10_000_partitions_take_less_than_100_mb_each() {
    if std::env::var_os("FULL").is_none() {
        return eprintln!("FULL=1 runs this test");
    }
    let mut cluster = Cluster::start(|options| options.optimized().expect_faults());
    let names: Vec<String> = (0..TOPICS).map(|number| format!("many-{number}")).collect();
    for name in &names {
        let settings = [("min.insync.replicas", "2")];
        create_replicated_topic(&cluster.bootstrap(), name, PARTITIONS_PER_TOPIC, 3, &settings);
    }
    names.iter().for_each(|name| drop(cluster.await_in_sync(name)));
    check_memory(&mut cluster, "created", &NODES);
    cluster.broker(1).kill();
    let survivors = &NODES[1..];
    let client: BaseConsumer = config(&cluster.broker(2).bootstrap(), &[]).create().expect("create a client");
    eventually("others lead all partitions", FAIL_OVER_LIMIT, || {
        let metadata = client.fetch_metadata(None, FAIL_OVER_LIMIT).ok()?;
        let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        partitions.all(|partition| survivors.contains(&partition.leader()) && partition.isr().len() == 2).then_some(())
    });
    check_memory(&mut cluster, "one was killed", survivors);
    cluster.broker(1).start();
    names.iter().for_each(|name| drop(cluster.await_in_sync(name)));
    check_memory(&mut cluster, "it was started again", &NODES);
}
