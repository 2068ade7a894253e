//! Few file descriptors: connections, segments and the process itself share them, and none of these takes them all.

use std::{net::TcpStream, process::Command, time::Duration};

use kafka_protocol::{
    messages::create_topics_request::{CreatableTopic, CreateTopicsRequest},
    protocol::StrBytes,
};
use protocol_tests::{
    broker::{listening_port, ottla},
    clients::{Record, create_topic, produce, read_all},
    process::{Process, eventually},
    wire::Wire,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A broker with a hard limit of open files.
struct Limited {
    process: Process,
    bootstrap: String,
    _directory: tempfile::TempDir,
}

impl Limited {
    fn start(open_files: usize, settings: &[&str]) -> Limited {
        let directory = tempfile::tempdir().expect("temporary directory");
        let inner = ottla(directory.path());
        let mut command = Command::new("sh");
        command.args(["-c", &format!(r#"ulimit -n {open_files}; exec "$0" "$@""#)]);
        command.arg(inner.get_program()).args(["--set", "listeners=PLAINTEXT://127.0.0.1:0"]);
        command.args(settings.iter().flat_map(|setting| ["--set", setting])).current_dir(directory.path());
        let mut process = Process::start(command);
        let started = process.wait_for_line(LIMIT, |line| line.contains("Kafka Server started"));
        assert!(started.is_some(), "not started:\n{}", process.lines().join("\n"));
        let bootstrap = format!("127.0.0.1:{}", listening_port(&process.lines()).expect("a port"));
        Limited { process, bootstrap, _directory: directory }
    }

    fn stop(mut self) {
        self.process.signal("TERM");
        assert!(self.process.wait(LIMIT).success(), "{}", self.process.lines().join("\n"));
        let log = self.process.lines();
        assert!(!log.iter().any(|line| line.contains("ERROR")), "{}", log.join("\n"));
    }
}

fn create(wire: &mut Wire, name: &str, partitions: i32) -> i16 {
    let topic = CreatableTopic::default()
        .with_name(StrBytes::from_string(name.to_owned()).into())
        .with_num_partitions(partitions)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    wire.ask(7, &request).topics[0].error_code
}

#[test]
fn idle_connections_that_take_all_there_are_end_neither_the_broker_nor_its_topics() {
    for open_files in [64, 300] {
        let mut broker = Limited::start(open_files, &[]);
        let mut first = Wire::connect(&broker.bootstrap);
        assert_eq!(create(&mut first, "t", 5), 0);
        // The system accepts all connections; the broker closes those above its limit.
        let idle: Vec<TcpStream> =
            (0..2 * open_files).filter_map(|_| TcpStream::connect(&broker.bootstrap).ok()).collect();
        for at in 0..10 {
            assert_eq!(create(&mut first, &format!("n{at}"), 5), 0, "with {open_files} files");
        }
        assert!(broker.process.is_running());
        drop(idle);
        eventually("a place for a new connection", LIMIT, || {
            std::panic::catch_unwind(|| create(&mut Wire::connect(&broker.bootstrap), "late", 1)).ok()
        });
        let records: Vec<Record> = (0..5).map(|partition| Record::to_partition(partition, "v")).collect();
        for at in 0..10 {
            let topic = format!("n{at}");
            produce(&broker.bootstrap, &topic, &[], &records);
            assert_eq!(read_all(&broker.bootstrap, &topic).len(), 5);
        }
        broker.stop();
    }
}

#[test]
fn more_segments_than_descriptors_are_written_and_read_and_leave_some_for_connections() {
    let broker = Limited::start(128, &["log.segment.bytes=1048576"]);
    create_topic(&broker.bootstrap, "t", 200, &[]);
    // These connections use up the broker's file descriptors for connections.
    let _idle: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(&broker.bootstrap).expect("connect")).collect();
    let records: Vec<Record> =
        (0..3).flat_map(|_| (0..200).map(|partition| Record::to_partition(partition, vec![b'x'; 100_000]))).collect();
    produce(&broker.bootstrap, "t", &[], &records);
    assert_eq!(read_all(&broker.bootstrap, "t").len(), records.len());
    broker.stop();
}
