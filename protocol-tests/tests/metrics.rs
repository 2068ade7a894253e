//! The HTTP pages: the metrics match the clients' requests, and /health and /ready report the state of the broker.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use protocol_tests::{
    broker::Broker,
    clients::{
        Record, consumer, create_replicated_topic, create_topic, produce, producer, read_all, try_send,
        with_coordinator,
    },
    cluster::{Cluster, NODES},
    process::eventually,
    wire::{Answer, Wire},
};
use rdkafka::consumer::{CommitMode, Consumer};

const LIMIT: Duration = Duration::from_secs(20);

fn broker(settings: &[(&str, &str)]) -> Broker {
    let options = Broker::options().set("ottla.http.listener", "127.0.0.1:0");
    settings.iter().fold(options, |options, (key, value)| options.set(key, value)).start()
}

/// The address of the HTTP pages, from the broker's log.
fn address(broker: &Broker) -> String {
    let log = broker.log();
    // The line of the last start.
    let line = log.iter().rev().find_map(|line| line.split("metrics are at http://").nth(1));
    line.and_then(|rest| rest.split('/').next()).expect("the address in the log").to_owned()
}

/// Sends bytes and reads to the end of the connection.
fn http(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("connect to the metrics");
    stream.set_read_timeout(Some(LIMIT)).expect("set a timeout");
    stream.write_all(request).expect("send a request");
    let mut answer = Vec::new();
    // If a request is refused before its end, the connection is reset after the answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("text")
}

/// The samples of a page, by name and labels as printed.
struct Samples(BTreeMap<String, f64>);

impl Samples {
    fn of(broker: &Broker) -> Samples {
        let answer = http(&address(broker), b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{head}");
        assert!(format!("{head}\r\n").contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        let lines = body.lines().filter(|line| !line.starts_with('#'));
        Samples(
            lines
                .map(|line| line.rsplit_once(' ').expect("a name and a value"))
                .map(|(name, value)| (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{name} is {value}"))))
                .collect(),
        )
    }

    /// The value of a sample, 0 if it is missing.
    fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default() as u64
    }

    /// A topic's counter of the family `kafka_server_brokertopicmetrics`.
    fn topic(&self, name: &str, topic: &str) -> u64 {
        self.get(&format!("kafka_server_brokertopicmetrics_{name}_total{{topic=\"{topic}\"}}"))
    }

    /// The sum of all samples whose name and labels start with `start`.
    fn sum(&self, start: &str) -> u64 {
        self.0.iter().filter(|(name, _)| name.starts_with(start)).map(|(_, value)| value).sum::<f64>() as u64
    }
}

#[test]
fn three_brokers_tell_who_leads_and_which_replicas_are_missing() {
    let mut cluster = Cluster::start(|options| options.set("ottla.http.listener", "127.0.0.1:0"));
    create_replicated_topic(&cluster.bootstrap(), "t", 6, 3, &[("min.insync.replicas", "2")]);
    cluster.await_in_sync("t");
    let of = |cluster: &mut Cluster, nodes: &[i32], name: &str| -> Vec<u64> {
        nodes.iter().map(|node| Samples::of(cluster.broker(*node)).get(name)).collect()
    };
    let sum = |cluster: &mut Cluster, nodes: &[i32], name: &str| of(cluster, nodes, name).iter().sum::<u64>();
    let manager = |name: &str| format!("kafka_server_replicamanager_{name}");
    let controller = "kafka_controller_kafkacontroller_activecontrollercount";
    let quorum_leader = "kafka_server_raft_metrics_current_leader";
    let active: Vec<i32> =
        NODES.into_iter().filter(|node| Samples::of(cluster.broker(*node)).get(controller) == 1).collect();
    assert_eq!(active.len(), 1, "one controller is active: {active:?}");
    assert_eq!(of(&mut cluster, &NODES, quorum_leader), [active[0] as u64; 3]);
    assert_eq!(of(&mut cluster, &NODES, &manager("partitioncount")), [6; 3]);
    assert_eq!(sum(&mut cluster, &NODES, &manager("leadercount")), 6);
    assert_eq!(sum(&mut cluster, &NODES, &manager("underreplicatedpartitions")), 0);
    assert_eq!(sum(&mut cluster, &NODES, "ottla_leader_elections_total"), 0);

    let dead = *NODES.iter().find(|node| **node != active[0]).expect("another broker");
    let led = Samples::of(cluster.broker(dead)).get(&manager("leadercount"));
    cluster.broker(dead).kill();
    let alive: Vec<i32> = NODES.into_iter().filter(|node| *node != dead).collect();
    eventually("the others lead", LIMIT, || (sum(&mut cluster, &alive, &manager("leadercount")) == 6).then_some(()));
    assert_eq!(sum(&mut cluster, &alive, &manager("underreplicatedpartitions")), 6);
    assert_eq!(sum(&mut cluster, &alive, &manager("atminisrpartitioncount")), 6);
    assert_eq!(sum(&mut cluster, &alive, &manager("underminisrpartitioncount")), 0);
    assert_eq!(of(&mut cluster, &alive, "kafka_controller_kafkacontroller_fencedbrokercount"), [1; 2]);
    assert_eq!(of(&mut cluster, &alive, "kafka_controller_kafkacontroller_activebrokercount"), [2; 2]);
    let elections = "ottla_leader_elections_total";
    assert_eq!(of(&mut cluster, &alive, elections), [led; 2]);
    assert_eq!(sum(&mut cluster, &alive, "kafka_controller_controllerstats_uncleanleaderelections_total"), 0);

    cluster.broker(dead).start();
    cluster.await_in_sync("t");
    eventually("the replicas are back", LIMIT, || {
        (sum(&mut cluster, &NODES, &manager("underreplicatedpartitions")) == 0).then_some(())
    });
    assert_eq!(sum(&mut cluster, &NODES, &manager("isrexpands_total")), 6);
    assert_eq!(sum(&mut cluster, &NODES, "kafka_server_replicafetchermanager_failedpartitionscount"), 0);
    for node in alive {
        let joined = cluster.broker(node).log().iter().filter(|line| line.contains("has joined the in-sync")).count();
        assert!(joined >= 1, "the log tells that replicas are back");
    }
    let ends = of(&mut cluster, &NODES, "kafka_server_raft_metrics_log_end_offset");
    assert!(ends.iter().all(|end| *end > 6), "{ends:?}");
}

#[test]
fn what_was_sent_and_read_is_what_is_told() {
    let broker = broker(&[]);
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "t", 2, &[]);
    create_topic(&bootstrap, "small", 1, &[("max.message.bytes", "1000")]);
    let records: Vec<Record> = (0..30).map(|n| Record::to_partition(n % 2, format!("value {n}"))).collect();
    produce(&bootstrap, "t", &[], &records);
    let too_large = try_send(&producer(&bootstrap, &[]), "small", &[Record::to_partition(0, vec![7; 5000])]);
    assert!(too_large.is_err(), "5000 bytes are more than 1000");

    let samples = Samples::of(&broker);
    assert_eq!(samples.topic("messagesin", "t"), 30);
    assert_eq!(samples.get("kafka_server_brokertopicmetrics_messagesin_total"), 30);
    let bytes = samples.topic("bytesin", "t");
    assert_eq!(samples.sum("kafka_log_log_size{topic=\"t\""), bytes, "all received bytes are stored");
    assert_eq!(samples.sum("kafka_log_log_logendoffset{topic=\"t\""), 30);
    assert_eq!(samples.sum("kafka_topic_partition_current_offset{topic=\"t\""), 30);
    assert_eq!(samples.topic("bytesout", "t"), 0);
    assert!(samples.topic("bytesrejected", "small") > 5000);
    assert_eq!(samples.topic("bytesin", "small"), 0);
    assert_eq!(samples.topic("failedproducerequests", "small"), 0, "a client's error is not a failed request");
    assert_eq!(samples.get("ottla_limit_reached_total{limit=\"max.message.bytes\"}"), 1);
    let produced = |error| {
        samples.get(&format!("kafka_network_requestmetrics_errors_total{{request=\"Produce\",error=\"{error}\"}}"))
    };
    assert_eq!(produced("NONE"), samples.topic("totalproducerequests", "t"));
    assert_eq!(produced("MESSAGE_TOO_LARGE"), 1);
    assert!(samples.sum("kafka_network_requestmetrics_requests_total{request=\"Produce\"") >= 2);
    assert_eq!(samples.get("kafka_server_replicamanager_partitioncount"), 3);
    assert_eq!(samples.get("kafka_server_replicamanager_leadercount"), 3);
    assert_eq!(samples.get("kafka_server_replicamanager_atminisrpartitioncount"), 3);
    assert_eq!(samples.get("kafka_controller_kafkacontroller_globalpartitioncount"), 3);
    assert_eq!(samples.get("kafka_controller_kafkacontroller_activebrokercount"), 1);
    for nothing in ["offlinereplicacount", "underreplicatedpartitions", "underminisrpartitioncount"] {
        assert_eq!(samples.get(&format!("kafka_server_replicamanager_{nothing}")), 0);
    }
    assert!(samples.get("process_resident_memory_bytes") > 1 << 20 && samples.get("process_open_fds") > 5);

    assert_eq!(read_all(&bootstrap, "t").len(), 30);
    let later = Samples::of(&broker);
    assert!(later.topic("bytesout", "t") >= bytes, "all of it was read");
    assert!(later.topic("totalfetchrequests", "t") >= 2);
    assert_eq!(later.topic("failedfetchrequests", "t"), 0);
    for (name, value) in &samples.0 {
        let is_counter = name.split('{').next().expect("a name").ends_with("_total");
        assert!(!is_counter || later.0[name] >= *value, "{name} fell from {value} to {}", later.0[name]);
    }
}

#[test]
fn groups_and_connections_are_counted_while_they_are_there() {
    let broker = broker(&[]);
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "t", 1, &[]);
    produce(&bootstrap, "t", &[], &[Record::of("k", "v")]);
    let group = |samples: &Samples, state: &str| {
        samples.get(&format!("kafka_coordinator_group_groupmetadatamanager_num{state}"))
    };
    {
        let member = consumer(&bootstrap, "g", &[]);
        member.subscribe(&["t"]).expect("subscribe");
        eventually("a record", LIMIT, || member.poll(Duration::from_millis(100))?.ok().map(drop));
        with_coordinator("commit", || member.commit_consumer_state(CommitMode::Sync));
        let samples = Samples::of(&broker);
        assert_eq!((group(&samples, "groups"), group(&samples, "groupsstable"), group(&samples, "offsets")), (1, 1, 1));
    }
    eventually("the member has left", LIMIT, || {
        let samples = Samples::of(&broker);
        ((group(&samples, "groups"), group(&samples, "groupsempty")) == (1, 1)).then_some(())
    });
    let connections =
        || Samples::of(&broker).get("kafka_server_socket_server_metrics_connection_count{listener=\"PLAINTEXT\"}");
    let before = eventually("the clients have gone", LIMIT, || Some(connections()).filter(|count| *count == 0));
    let mut open: Vec<Wire> = (0..7).map(|_| Wire::connect(&bootstrap)).collect();
    eventually("seven connections", LIMIT, || (connections() == before + 7).then_some(()));
    open.truncate(2);
    eventually("two are left", LIMIT, || (connections() == before + 2).then_some(()));
}

#[test]
fn limits_that_were_met_are_counted_by_their_setting() {
    let broker = broker(&[("max.connections.per.ip", "3"), ("socket.request.max.bytes", "1000")]);
    let bootstrap = broker.bootstrap();
    let mut open: Vec<Wire> = (0..3).map(|_| Wire::connect(&bootstrap)).collect();
    for wire in &mut open {
        wire.send_bytes(&[0, 0]);
    }
    let reached = |limit: &str| Samples::of(&broker).get(&format!("ottla_limit_reached_total{{limit=\"{limit}\"}}"));
    eventually("one more is refused", LIMIT, || {
        matches!(Wire::connect(&bootstrap).answer(LIMIT), Answer::Closed).then_some(())
    });
    assert!(reached("max.connections.per.ip") >= 1);
    assert_eq!(reached("max.connections"), 0);
    open[0].send_bytes(&[0x10, 0]);
    assert!(matches!(open[0].answer(LIMIT), Answer::Closed), "a frame of 4096 bytes");
    eventually("the frame's size is counted", LIMIT, || (reached("socket.request.max.bytes") == 1).then_some(()));
}

/// docs/generated/metrics.md, which is written from the same table, lists the same metrics.
#[test]
fn every_metric_of_the_documentation_is_told() {
    let broker = broker(&[]);
    let page = http(&address(&broker), b"GET /metrics HTTP/1.1\r\n\r\n");
    let samples: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let text = include_str!("../../docs/generated/metrics.md");
    let documented: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(samples, documented);
}

#[test]
fn the_listener_answers_scrapers_and_bounds_everybody_else() {
    let broker = broker(&[]);
    let address = address(&broker);
    let head = http(&address, b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(http(&address, b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
    assert!(http(&address, b"POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(http(&address, b"\x16\x03\x01\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let long = [b"GET /metrics HTTP/1.1\r\nA: ", &[b'x'; 8 << 10][..]].concat();
    assert!(http(&address, &long).starts_with("HTTP/1.1 431 "), "a header that is too long");
    let body = http(&address, b"GET /metrics HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n");
    assert!(body.starts_with("HTTP/1.1 413 "), "{body}");
    let begun = Instant::now();
    assert_eq!(http(&address, b"GET /metrics HT"), "", "a connection with an incomplete header is closed");
    assert!(begun.elapsed() < LIMIT);
    // Silent connections use the whole limit; the next client gets an answer when one of them ends.
    let mut silent: Vec<TcpStream> = (0..16).map(|_| TcpStream::connect(&address).expect("connect")).collect();
    let mut waiting = TcpStream::connect(&address).expect("connect");
    waiting.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("send a request");
    waiting.set_read_timeout(Some(Duration::from_millis(300))).expect("set a timeout");
    let mut byte = [0];
    assert!(waiting.read(&mut byte).is_err(), "the limit of connections should be reached");
    silent.pop();
    waiting.set_read_timeout(Some(LIMIT)).expect("set a timeout");
    assert_eq!(waiting.read(&mut byte).expect("an answer"), 1);
}

/// The status line and the text of a page.
fn page(address: &str, path: &str) -> (String, String) {
    let answer = http(address, format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

#[test]
fn a_broker_that_serves_is_healthy_and_ready() {
    let mut broker = broker(&[]);
    let status = "HTTP/1.1 200 OK";
    for _ in 0..2 {
        let address = address(&broker);
        assert_eq!(page(&address, "/health"), (status.into(), "healthy\n".into()));
        assert_eq!(page(&address, "/ready"), (status.into(), "ready\n".into()));
        broker.restart();
    }
}

#[test]
fn the_earlier_name_of_the_setting_works() {
    let broker = Broker::options().set("ottla.metrics.listener", "127.0.0.1:0").start();
    assert_eq!(page(&address(&broker), "/ready").1, "ready\n");
}

#[test]
fn nothing_is_served_unless_it_is_set() {
    let broker = Broker::start_default();
    assert!(!broker.log().iter().any(|line| line.contains("metrics are at")));
    let wrong = protocol_tests::broker::ottla(&broker.data()).args(["--set", "ottla.http.listener=9404"]).output();
    let wrong = wrong.expect("run ottla");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("ottla.http.listener is '9404', which is not host:port"));
}
