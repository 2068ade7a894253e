//! Three brokers with real clients, of which one at a time is killed or stopped.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use protocol_tests::{
    clients::{self, Record, consumer, create_replicated_topic, producer, read_all, with_coordinator},
    cluster::{Cluster, NODES},
    java::tool,
    process::eventually,
};
use rdkafka::{
    consumer::{CommitMode, Consumer},
    message::Message,
};

const TOPIC: &str = "replicated";
const GO_ON_LIMIT: Duration = Duration::from_secs(60);
/// `broker.session.timeout.ms`.
const SESSION: Duration = Duration::from_secs(9);

/// Three brokers with a replicated topic, and a load on it that has begun.
fn under_load() -> (Cluster, String, Load) {
    let cluster = Cluster::start(|options| options);
    let bootstrap = cluster.bootstrap();
    create_replicated_topic(&bootstrap, TOPIC, 1, 3, &[("min.insync.replicas", "2")]);
    cluster.await_in_sync(TOPIC);
    let load = Load::start(&bootstrap);
    load.await_more(100);
    (cluster, bootstrap, load)
}

/// Sends numbered records one after the other until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    /// When each record was acknowledged, and its offset.
    acknowledged: Arc<Mutex<Vec<(Instant, i64)>>>,
    thread: JoinHandle<()>,
}

impl Load {
    fn start(bootstrap: &str) -> Load {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<(Instant, i64)>>>::default());
        let (stopped, record) = (stop.clone(), acknowledged.clone());
        let producer = producer(bootstrap, &[("enable.idempotence", "true"), ("linger.ms", "0")]);
        let thread = std::thread::spawn(move || {
            for number in 0_u64.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // An error would be seen by an application.
                let places = clients::send(&producer, TOPIC, &[Record::to_partition(0, number.to_string())]);
                record.lock().expect("lock").push((Instant::now(), places[0].1));
            }
        });
        Load { stop, acknowledged, thread }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().expect("lock").len()
    }

    fn await_more(&self, records: usize) {
        let before = self.count();
        eventually("records are acknowledged", GO_ON_LIMIT, || (self.count() >= before + records).then_some(()));
    }

    /// The longest time between two acknowledgements since then.
    fn longest_gap(&self, since: Instant) -> Duration {
        let acknowledged = self.acknowledged.lock().expect("lock");
        let gaps = acknowledged.windows(2).filter(|pair| pair[1].0 > since).map(|pair| pair[1].0 - pair[0].0);
        gaps.max().unwrap_or_default()
    }

    /// Ends the load. Returns the offset of each record.
    fn finish(self) -> Vec<i64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no record was refused");
        let acknowledged = self.acknowledged.lock().expect("lock");
        acknowledged.iter().map(|(_, offset)| *offset).collect()
    }
}

/// Every record that was acknowledged is stored once, at its offset.
fn check_stored(bootstrap: &str, offsets: &[i64]) {
    let stored = read_all(bootstrap, TOPIC);
    let texts: Vec<String> = stored.iter().map(|record| record.text()).collect();
    let expected: Vec<String> = (0..offsets.len()).map(|number| number.to_string()).collect();
    assert_eq!(texts, expected, "each record is stored once and in order");
    let stored: Vec<i64> = stored.iter().map(|record| record.offset).collect();
    assert_eq!(stored, offsets);
}

/// Reads with a group, and commits, until it has read this many records. Returns how many were new.
fn read_with_group(bootstrap: &str, from: usize, to: usize) {
    let consumer = consumer(bootstrap, "readers", &[]);
    consumer.subscribe(&[TOPIC]).expect("subscribe");
    let deadline = Instant::now() + GO_ON_LIMIT;
    let mut next = from;
    while next < to {
        assert!(Instant::now() < deadline, "read up to {next} of {to}");
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) {
            let number: usize = String::from_utf8_lossy(message.payload().expect("a value")).parse().expect("a number");
            assert_eq!(number, next, "the group goes on where it has committed");
            next += 1;
        }
    }
    with_coordinator("commit", || consumer.commit_consumer_state(CommitMode::Sync));
}

#[test]
fn three_brokers_lose_nothing_when_leaders_are_killed_and_a_group_goes_on() {
    let (mut cluster, bootstrap, load) = under_load();
    let mut read = 0;
    for round in 0..3 {
        let leader = cluster.await_in_sync(TOPIC)[0];
        let killed_at = Instant::now();
        cluster.broker(leader).kill();
        load.await_more(100);
        let gap = load.longest_gap(killed_at);
        println!("round {round}: writes stopped for {gap:.0?} when broker {leader} was killed");
        assert!(gap < SESSION, "a killed broker must be replaced before its session ends: {gap:?}");
        let written = load.count();
        read_with_group(&bootstrap, read, written);
        read = written;
        cluster.broker(leader).start();
    }
    cluster.await_in_sync(TOPIC);
    check_stored(&bootstrap, &load.finish());
}

#[test]
fn a_rolling_restart_stops_no_writes() {
    let (mut cluster, bootstrap, load) = under_load();
    let begun = Instant::now();
    for node in protocol_tests::cluster::NODES {
        cluster.await_in_sync(TOPIC);
        cluster.broker(node).stop();
        load.await_more(50);
        cluster.broker(node).start();
    }
    cluster.await_in_sync(TOPIC);
    println!("writes stopped for {:.0?} at most", load.longest_gap(begun));
    check_stored(&bootstrap, &load.finish());
}

/// Whichever of them is the active controller, and whichever broker the client has found first.
#[test]
fn settings_and_loggers_of_each_broker_change() {
    let cluster = Cluster::start(|options| options);
    let bootstrap = cluster.bootstrap();
    for node in NODES.map(|node| node.to_string()) {
        let configs = |arguments: &[&str]| {
            let common = ["--bootstrap-server", &bootstrap, "--entity-name", &node];
            tool("kafka-configs", &[&common[..], arguments].concat()).ok()
        };
        let retention = format!("log.retention.ms=12345{node}");
        configs(&["--entity-type", "brokers", "--alter", "--add-config", &retention]);
        configs(&["--entity-type", "broker-loggers", "--alter", "--add-config", "ottla.replica=WARN"]);
        eventually("the broker tells of its new setting", GO_ON_LIMIT, || {
            configs(&["--entity-type", "brokers", "--describe"]).contains(&retention).then_some(())
        });
        let loggers = configs(&["--entity-type", "broker-loggers", "--describe"]);
        assert!(loggers.contains("ottla.replica=WARN"), "{loggers}");
    }
    // All brokers, and a topic: nobody is named who must check it.
    let configs =
        |arguments: &[&str]| tool("kafka-configs", &[&["--bootstrap-server", &bootstrap][..], arguments].concat()).ok();
    configs(&["--entity-type", "brokers", "--entity-default", "--alter", "--add-config", "log.retention.bytes=777"]);
    let all = configs(&["--entity-type", "brokers", "--entity-default", "--describe"]);
    assert!(all.contains("log.retention.bytes=777"), "{all}");
}

#[test]
fn a_broker_whose_disk_was_emptied_fetches_its_replicas_again() {
    let (mut cluster, bootstrap, load) = under_load();
    for node in [1, 2] {
        cluster.await_in_sync(TOPIC);
        let broker = cluster.broker(node);
        broker.kill();
        std::fs::remove_dir_all(broker.data()).expect("empty the disk");
        load.await_more(50);
        cluster.broker(node).start();
        // Until the new disk has a vote, no other voter may be lost.
        cluster.await_voters(&NODES);
    }
    cluster.await_in_sync(TOPIC);
    check_stored(&bootstrap, &load.finish());
    let logs = NODES.map(|node| {
        let file = cluster.broker(node).data().join(format!("{TOPIC}-0/00000000000000000000.log"));
        std::fs::read(file).expect("read the log")
    });
    assert!(!logs[0].is_empty() && logs[0] == logs[1] && logs[1] == logs[2], "the replicas differ");
}
