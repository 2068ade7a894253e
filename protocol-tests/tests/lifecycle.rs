//! Start, stop, settings and addresses of the broker.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use kafka_protocol::messages::MetadataRequest;
use protocol_tests::{
    broker::{Broker, listening_port, ottla},
    clients::{Record, create_topic, produce, read_all},
    process::{Process, eventually},
    wire::Wire,
};

const START_LIMIT: Duration = Duration::from_secs(60);

/// Runs a command to its end; returns whether it succeeded, and its output.
fn run(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.output().expect("run ottla");
    (status.success(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

/// Starts a broker by a command; returns its process and the port of its first listener.
fn start(command: Command) -> (Process, u16) {
    let mut process = Process::start(command);
    let line = process.wait_for_line(START_LIMIT, |line| line.contains("Kafka Server started"));
    let port = listening_port(&process.lines());
    assert!(line.is_some() && port.is_some(), "not started:\n{}", process.lines().join("\n"));
    (process, port.expect("a port"))
}

fn end(mut process: Process) {
    process.signal("TERM");
    assert!(process.wait(START_LIMIT).success(), "{}", process.lines().join("\n"));
}

/// The broker's address in Metadata, for a client that connected to `bootstrap`.
fn advertised(bootstrap: &str) -> String {
    let answer = Wire::connect(bootstrap).ask(12, &MetadataRequest::default().with_topics(Some(Vec::new())));
    format!("{}:{}", answer.brokers[0].host, answer.brokers[0].port)
}

#[test]
fn a_first_start_on_an_empty_directory_needs_nothing() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut command = ottla(directory.path());
    // Only the port differs from a start without any argument: 9092 may be taken on this machine.
    command.args(["--set", "listeners=PLAINTEXT://:0"]);
    let (process, port) = start(command);
    let bootstrap = format!("127.0.0.1:{port}");
    produce(&bootstrap, "hello", &[], &[Record::of("k", "v")]);
    assert_eq!(read_all(&bootstrap, "hello").len(), 1);
    assert!(directory.path().join("data/meta.properties").exists());
    assert!(directory.path().join("data/hello-0/00000000000000000000.log").exists());
    end(process);
}

#[test]
fn a_second_start_on_the_same_directory_is_refused_by_name() {
    let mut broker = Broker::start_default();
    let mut second = ottla(Path::new("/"));
    second.args(["serve", "--set", "listeners=PLAINTEXT://127.0.0.1:0", "--set"]);
    second.arg(format!("log.dirs={}", broker.data().display()));
    let (success, said) = run(&mut second);
    assert!(!success && said.contains(&broker.data().display().to_string()), "{said}");
    assert!(said.contains("use") || said.contains("lock"), "it should say why: {said}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(broker.process().is_running());
    produce(&broker.bootstrap(), "t", &[], &[Record::of("k", "v")]);
}

#[test]
fn a_stop_leaves_the_mark_of_a_clean_shutdown_and_a_kill_does_not() {
    let mut broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "t", 10, &[]);
    let records: Vec<Record> = (0..20_000).map(|i| Record::to_partition(i % 10, "x".repeat(1000))).collect();
    produce(&bootstrap, "t", &[], &records);
    let mark = broker.data().join(".kafka_cleanshutdown");
    assert!(!mark.exists());
    broker.stop();
    assert!(mark.exists(), "no clean-shutdown file in {:?}", broker.data());
    let begun = Instant::now();
    broker.start();
    let restart = begun.elapsed();
    // The limit is generous for a busy machine. Without the clean-shutdown file 20 MB would be read again.
    assert!(restart < Duration::from_secs(10), "a clean restart took {restart:?}");
    assert!(!mark.exists(), "a start removes the clean-shutdown file");
    broker.kill();
    assert!(!mark.exists());
    broker.start();
    assert_eq!(read_all(&bootstrap, "t").len(), records.len());
}

#[test]
fn an_idle_broker_uses_no_cpu() {
    let mut broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    // With topics and an open connection the broker must still be idle.
    create_topic(&bootstrap, "t", 20, &[]);
    let mut connection = Wire::connect(&bootstrap);
    connection.ask(12, &MetadataRequest::default());
    // Within a minute there must be three idle seconds: at most one tick (10 ms) of CPU and no log line.
    eventually("three idle seconds", Duration::from_secs(60), || {
        let (cpu, lines) = (broker.process().cpu_time(), broker.log().len());
        std::thread::sleep(Duration::from_secs(3));
        let worked = broker.process().cpu_time() - cpu;
        (worked <= Duration::from_millis(10) && broker.log().len() == lines).then_some(())
    });
}

#[test]
fn unknown_settings_are_errors_that_name_the_nearest_known_one() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (success, said) = run(ottla(directory.path()).args(["serve", "--set", "log.segment.byte=1000000"]));
    assert!(!success && said.contains("log.segment.byte") && said.contains("log.segment.bytes"), "{said}");
    let (success, said) = run(ottla(directory.path()).args(["serve", "--set", "log.segment.bytes=large"]));
    assert!(!success && said.contains("log.segment.bytes") && said.contains("large"), "{said}");
    let (success, said) = run(ottla(directory.path()).args(["serve", "--config", "absent.properties"]));
    assert!(!success && said.contains("absent.properties"), "{said}");
    let (success, said) = run(ottla(directory.path()).arg("--no-such-flag"));
    assert!(!success && said.contains("--no-such-flag"), "{said}");
    assert!(!directory.path().join("data").exists(), "a start that fails leaves nothing behind");
}

#[test]
fn settings_come_from_files_environment_and_flags_and_later_ones_win() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let properties = "# as for Apache Kafka\nlisteners=PLAINTEXT://127.0.0.1:0\nnum.partitions=2\nlog.retention.hours=5\n\
                      num.network.threads=3\ngroup.initial.rebalance.delay.ms=1\nlog.dirs=kafka-data\n";
    std::fs::write(directory.path().join("server.properties"), properties).expect("write server.properties");
    let mut command = ottla(directory.path());
    command.args(["serve", "--config", "server.properties", "--set", "num.partitions=4"]);
    command.env("KAFKA_NUM_PARTITIONS", "3").env("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "2");
    let (process, port) = start(command);
    let bootstrap = format!("127.0.0.1:{port}");
    let admin = protocol_tests::clients::admin(&bootstrap);
    let resource = rdkafka::admin::ResourceSpecifier::Broker(1);
    let described = protocol_tests::clients::block_on(
        admin.describe_configs([&resource], &protocol_tests::clients::admin_options()),
    )
    .expect("call DescribeConfigs")
    .remove(0)
    .expect("described");
    let value = |key: &str| described.get(key).and_then(|entry| entry.value.clone());
    assert_eq!(value("num.partitions").as_deref(), Some("4"), "--set");
    assert_eq!(value("group.initial.rebalance.delay.ms").as_deref(), Some("2"), "the environment");
    assert_eq!(value("log.retention.hours").as_deref(), Some("5"), "the file");
    assert!(directory.path().join("kafka-data/meta.properties").exists());
    end(process);
}

#[test]
fn clients_are_answered_with_the_address_they_used() {
    let broker = Broker::options().set("listeners", "PLAINTEXT://0.0.0.0:0").start();
    let port = broker.port();
    for host in ["127.0.0.1", "127.0.0.2"] {
        assert_eq!(advertised(&format!("{host}:{port}")), format!("{host}:{port}"));
    }
    let fixed = Broker::options().set("advertised.listeners", "PLAINTEXT://kafka.example:1234").start();
    assert_eq!(advertised(&fixed.bootstrap()), "kafka.example:1234");
}

#[test]
fn every_named_listener_answers_for_itself() {
    let broker = Broker::options()
        .set("listeners", "INSIDE://127.0.0.1:0,OUTSIDE://127.0.0.1:0")
        .set("listener.security.protocol.map", "INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT")
        .set("inter.broker.listener.name", "INSIDE")
        .start();
    let log = broker.log();
    let line = log.iter().find(|line| line.contains("listening on ")).expect("the start-up line");
    let ports: BTreeSet<u16> = line
        .split("127.0.0.1:")
        .skip(1)
        .filter_map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok())
        .collect();
    assert_eq!(ports.len(), 2, "{line}");
    for port in ports {
        assert_eq!(advertised(&format!("127.0.0.1:{port}")), format!("127.0.0.1:{port}"));
    }
}

#[test]
fn the_command_tells_its_version_and_its_use() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (success, said) = run(ottla(directory.path()).arg("--version"));
    assert!(success && said.contains("ottla") && said.contains(env!("CARGO_PKG_VERSION")), "{said}");
    let (success, said) = run(ottla(directory.path()).arg("--help"));
    assert!(success && said.contains("--set") && said.contains("--config"), "{said}");
}

#[test]
fn a_data_directory_keeps_its_cluster_id() {
    let mut broker = Broker::start_default();
    let cluster_id = |broker: &Broker| {
        let answer = Wire::connect(&broker.bootstrap()).ask(12, &MetadataRequest::default());
        answer.cluster_id.expect("a cluster id").to_string()
    };
    let first = cluster_id(&broker);
    assert_eq!(first.len(), 22, "{first}");
    broker.restart();
    assert_eq!(cluster_id(&broker), first);
    broker.kill();
    broker.start();
    assert_eq!(cluster_id(&broker), first);
    let properties = std::fs::read_to_string(broker.data().join("meta.properties")).expect("read meta.properties");
    assert!(properties.contains(&format!("cluster.id={first}")), "{properties}");
}

/// The broker raises the soft limit of open files to the hard limit; connections leave enough descriptors for the logs.
#[test]
fn more_connections_than_the_soft_limit_of_open_files_harm_nobody() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let inner = ottla(directory.path());
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -Sn 256; exec "$0" "$@""#]).arg(inner.get_program()).args(inner.get_args());
    command.current_dir(directory.path()).args(["--set", "listeners=PLAINTEXT://:0"]);
    let (process, port) = start(command);
    let bootstrap = format!("127.0.0.1:{port}");
    let _idle: Vec<Wire> = (0..500).map(|_| Wire::connect(&bootstrap)).collect();
    produce(&bootstrap, "hello", &[], &[Record::of("k", "v")]);
    assert_eq!(read_all(&bootstrap, "hello").len(), 1);
    end(process);
}

/// Closing the terminal sends SIGHUP.
#[test]
fn a_hangup_is_a_controlled_shutdown_and_nohup_is_heeded() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let inner = ottla(directory.path());
    // The tests may run under nohup themselves, which every program they start would inherit.
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP").arg(inner.get_program()).args(["--set", "listeners=PLAINTEXT://:0"]);
    command.current_dir(directory.path());
    let (mut process, _) = start(command);
    process.signal("HUP");
    assert!(process.wait(START_LIMIT).success(), "{}", process.lines().join("\n"));
    assert!(directory.path().join("data/.kafka_cleanshutdown").exists());

    let inner = ottla(directory.path());
    let mut command = Command::new("nohup");
    command.arg(inner.get_program()).args(["--set", "listeners=PLAINTEXT://:0"]).current_dir(directory.path());
    let (mut process, port) = start(command);
    process.signal("HUP");
    produce(&format!("127.0.0.1:{port}"), "hello", &[], &[Record::of("k", "v")]);
    end(process);
}

/// A terminal and a supervisor, or an impatient user, may send the same signal more than once.
#[test]
fn a_signal_that_comes_twice_is_one_request_to_stop() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut command = ottla(directory.path());
    command.args(["--set", "listeners=PLAINTEXT://:0"]);
    let (mut process, port) = start(command);
    let bootstrap = format!("127.0.0.1:{port}");
    produce(&bootstrap, "hello", &[], &[Record::of("k", "v")]);
    // A client that sends requests and never reads delays the shutdown as long as possible.
    let mut non_reading_client = Wire::connect(&bootstrap);
    std::thread::spawn(move || {
        for _ in 0..20_000 {
            non_reading_client.send(12, &MetadataRequest::default()); // Blocks until the broker ends.
        }
    });
    // Before the signals come, this client must be connected, with more answers than it reads.
    read_all(&bootstrap, "hello");
    for _ in 0..3 {
        process.signal("TERM");
        process.signal("INT");
    }
    assert!(process.wait(START_LIMIT).success(), "{}", process.lines().join("\n"));
    assert!(directory.path().join("data/.kafka_cleanshutdown").exists());
    let last = process.lines().pop().unwrap_or_default();
    assert!(last.contains("stopped, all data is on disk"), "{last}");
}
