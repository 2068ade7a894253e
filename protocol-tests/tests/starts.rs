//! Starts with missing directories and damaged files. No data is lost without a message, and all data that can be
//! served is served.

use std::{
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use kafka_protocol::{
    messages::{
        ListOffsetsRequest, MetadataRequest, ProduceRequest,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};
use protocol_tests::{
    broker::{listening_port, ottla},
    clients::{Record, consumer, create_topic, produce, read_all, with_coordinator},
    process::Process,
    wire::Wire,
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer},
    error::KafkaError,
};

const START_LIMIT: Duration = Duration::from_secs(60);
const KAFKA_STORAGE_ERROR: i16 = 56;
const LEADER_NOT_AVAILABLE: i16 = 5;

/// The disk of a broker that is started several times.
struct Machine(tempfile::TempDir);

struct Running {
    process: Process,
    bootstrap: String,
}

impl Machine {
    fn new() -> Machine {
        Machine(tempfile::tempdir().expect("temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, dirs: &str, settings: &[&str]) -> std::process::Command {
        let mut command = ottla(self.0.path());
        command.args([
            "serve",
            "--set",
            "listeners=PLAINTEXT://127.0.0.1:0",
            "--set",
            "offsets.topic.num.partitions=1",
        ]);
        command.args(["--set", &format!("log.dirs={dirs}")]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command
    }

    fn start(&self, dirs: &str, settings: &[&str]) -> Running {
        let mut process = Process::start(self.command(dirs, settings));
        process.wait_for_line(START_LIMIT, |line| line.contains("Kafka Server started"));
        let port = listening_port(&process.lines());
        let port = port.unwrap_or_else(|| panic!("not started:\n{}", process.lines().join("\n")));
        Running { process, bootstrap: format!("127.0.0.1:{port}") }
    }

    /// Starts the broker, which must refuse, and returns its output.
    fn refusal(&self, dirs: &str) -> String {
        let Output { status, stdout, stderr } = self.command(dirs, &[]).output().expect("run ottla");
        let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        assert!(!status.success() && !said.contains("panicked"), "{said}");
        said
    }
}

impl Running {
    fn stop(mut self) {
        self.process.signal("TERM");
        assert!(self.process.wait(START_LIMIT).success(), "{}", self.process.lines().join("\n"));
    }

    /// Stops the broker, which must report that it cannot close the directory.
    fn stop_without(mut self, dir: &str) {
        self.process.signal("TERM");
        let status = self.process.wait(START_LIMIT);
        let lines = self.process.lines().join("\n");
        assert!(!status.success(), "{lines}");
        assert!(lines.contains(&format!("stopped; the last records may not be on disk dir={dir}")), "{lines}");
    }

    fn kill(mut self) {
        self.process.kill();
    }

    /// Returns the log line with this text.
    fn line(&self, text: &str) -> String {
        let lines = self.process.lines();
        lines.iter().find(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}:\n{}", lines.join("\n"))).clone()
    }

    fn values(&self, topic: &str) -> Vec<String> {
        read_all(&self.bootstrap, topic).iter().map(|stored| stored.text()).collect()
    }

    /// Error and leader of partition 0.
    fn leader(&self, topic: &str) -> (i16, i32) {
        let asked = MetadataRequestTopic::default().with_name(Some(StrBytes::from_string(topic.to_owned()).into()));
        let request = MetadataRequest::default().with_topics(Some(vec![asked]));
        let answer = Wire::connect(&self.bootstrap).ask(9, &request);
        let partition = &answer.topics[0].partitions[0];
        (partition.error_code, partition.leader_id.0)
    }

    /// The error code of a Produce that is sent without regard to Metadata.
    fn produce_error(&self, topic: &str) -> i16 {
        let data = PartitionProduceData::default().with_index(0).with_records(Some(vec![0; 61].into()));
        let topic = TopicProduceData::default()
            .with_name(StrBytes::from_string(topic.to_owned()).into())
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(1000).with_topic_data(vec![topic]);
        Wire::connect(&self.bootstrap).ask(9, &request).responses[0].partition_responses[0].error_code
    }

    /// The latest offset of partition 0 that consumers see.
    fn latest_offset(&self, topic: &str) -> i64 {
        let partition = ListOffsetsPartition::default().with_timestamp(-1);
        let topic = ListOffsetsTopic::default()
            .with_name(StrBytes::from_string(topic.to_owned()).into())
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        Wire::connect(&self.bootstrap).ask(5, &request).topics[0].partitions[0].offset
    }
}

fn fill(broker: &Running, topic: &str, settings: &[(&str, &str)]) {
    create_topic(&broker.bootstrap, topic, 1, settings);
    for at in 0..5 {
        produce(&broker.bootstrap, topic, &[], &[Record::of("k", format!("{topic}-{at}"))]);
    }
}

fn expected(topic: &str) -> Vec<String> {
    (0..5).map(|at| format!("{topic}-{at}")).collect()
}

fn flip(path: &Path, position: impl Fn(usize) -> usize) {
    let mut bytes = std::fs::read(path).expect("read");
    let at = position(bytes.len());
    bytes[at] ^= 4;
    std::fs::write(path, bytes).expect("write");
}

/// Runs the command in a message, as an operator would.
fn follow(message: &str, directory: &Path) {
    let command = message.lines().find_map(|line| Some(format!("printf {}", line.split_once("printf ")?.1)));
    let command = command.expect("a command in the message");
    let done = std::process::Command::new("sh").args(["-c", &command]).current_dir(directory).status().expect("run sh");
    assert!(done.success(), "{command}");
}

#[test]
fn a_log_directory_that_is_not_mounted_takes_its_partitions_offline() {
    let machine = Machine::new();
    let broker = machine.start("one,two", &[]);
    assert!(broker.line("Kafka Server started").contains("new cluster "));
    let topics = ["t0", "t1", "t2"];
    topics.iter().for_each(|topic| fill(&broker, topic, &[]));
    broker.stop();
    let (here, gone): (Vec<_>, Vec<_>) =
        topics.into_iter().partition(|topic| machine.path("one").join(format!("{topic}-0")).exists());
    assert!(!here.is_empty() && !gone.is_empty(), "{here:?} {gone:?}");
    std::fs::rename(machine.path("two"), machine.path("unmounted")).expect("rename");

    // The directory is no longer configured, or an empty one is in its place.
    for dirs in ["one", "one,two"] {
        let broker = machine.start(dirs, &[]);
        // The first consumer, in the loop, creates the offsets topic.
        let ready = broker.line("Kafka Server started");
        assert!(
            ready.contains(if dirs == "one" { ": 3 topics, 3 partitions" } else { ": 4 topics, 4 partitions" }),
            "{ready}"
        );
        let line = broker.line("partitions are offline");
        assert!(gone.iter().all(|topic| line.contains(&format!("{topic}-0"))), "{line}");
        for topic in &here {
            assert_eq!(broker.values(topic), expected(topic));
        }
        for topic in &gone {
            assert_eq!(broker.leader(topic), (LEADER_NOT_AVAILABLE, -1));
            assert_eq!(broker.produce_error(topic), KAFKA_STORAGE_ERROR);
        }
        broker.stop();
    }
    std::fs::remove_dir_all(machine.path("two")).expect("remove");
    std::fs::rename(machine.path("unmounted"), machine.path("two")).expect("rename");
    let broker = machine.start("one,two", &[]);
    for topic in topics {
        assert_eq!(broker.values(topic), expected(topic));
    }
    broker.stop();
    // Put one partition into both directories.
    let name = format!("{}-0", here[0]);
    std::fs::create_dir(machine.path("two").join(&name)).expect("create");
    std::fs::copy(
        machine.path("one").join(&name).join("partition.metadata"),
        machine.path("two").join(&name).join("partition.metadata"),
    )
    .expect("copy");
    let refused = machine.refusal("one,two");
    assert!(refused.contains(&format!("one/{name}")) && refused.contains(&format!("two/{name}")), "{refused}");
}

#[test]
fn a_log_directory_that_cannot_be_used_does_not_stop_the_others() {
    let machine = Machine::new();
    let broker = machine.start("one,two", &[]);
    ["t0", "t1", "t2"].iter().for_each(|topic| fill(&broker, topic, &[]));
    broker.stop();
    std::fs::rename(machine.path("two"), machine.path("failed")).expect("rename");
    std::fs::write(machine.path("two"), "not a directory").expect("write");
    let broker = machine.start("one,two", &[]);
    let offline = ["t0", "t1", "t2"].into_iter().filter(|topic| broker.leader(topic) != (0, 1)).count();
    assert!((1..3).contains(&offline), "{offline}");
    assert!(broker.line("partitions are offline").contains("two"));
    fill(&broker, "new", &[]);
    assert_eq!(broker.values("new"), expected("new"));
    broker.stop_without("two");
}

#[test]
fn an_identity_or_a_metadata_log_that_is_gone_is_never_replaced_by_a_new_one() {
    let machine = Machine::new();
    let broker = machine.start("data", &[]);
    fill(&broker, "t", &[]);
    broker.stop();
    std::fs::remove_file(machine.path("data/meta.properties")).expect("remove");
    let refused = machine.refusal("data");
    assert!(refused.contains("meta.properties") && refused.contains("t-0"), "{refused}");
    follow(&refused, machine.0.path());
    let broker = machine.start("data", &[]);
    assert_eq!((broker.leader("t"), broker.values("t")), ((0, 1), expected("t")));
    broker.stop();

    std::fs::rename(machine.path("data/__cluster_metadata-0"), machine.path("kept")).expect("rename");
    let refused = machine.refusal("data");
    assert!(refused.contains("t-0") && refused.contains("ottla.accept.metadata.loss=true"), "{refused}");
    if machine.path("data/__cluster_metadata-0").exists() {
        std::fs::remove_dir_all(machine.path("data/__cluster_metadata-0")).expect("remove");
    }
    std::fs::rename(machine.path("kept"), machine.path("data/__cluster_metadata-0")).expect("rename");
    let broker = machine.start("data", &[]);
    assert_eq!(broker.values("t"), expected("t"));
    broker.stop();
}

#[test]
fn a_flipped_bit_in_the_metadata_log_after_a_kill_is_not_cut_off_as_a_torn_tail() {
    let machine = Machine::new();
    let broker = machine.start("data", &[]);
    for topic in 0..10 {
        create_topic(&broker.bootstrap, &format!("t{topic}"), 1, &[]);
    }
    broker.kill();
    let log = machine.path("data/__cluster_metadata-0/00000000000000000000.log");
    let whole = std::fs::read(&log).expect("read");
    flip(&log, |len| len * 3 / 10);
    let damaged = std::fs::read(&log).expect("read");
    let refused = machine.refusal("data");
    assert!(refused.contains("corrupt") && refused.contains("ottla.accept.metadata.loss=true"), "{refused}");
    assert_eq!(std::fs::read(&log).expect("read"), damaged, "nothing was changed");
    std::fs::write(&log, whole).expect("write");
    let broker = machine.start("data", &[]);
    assert!(broker.line("Kafka Server started").contains(": 10 topics, 10 partitions"));
    broker.kill();
    flip(&log, |len| len * 3 / 10);
    let broker = machine.start("data", &["ottla.accept.metadata.loss=true"]);
    broker.stop();
    let strays = std::fs::read_dir(machine.path("data")).expect("list");
    let strays =
        strays.filter(|entry| entry.as_ref().expect("entry").file_name().to_string_lossy().ends_with("-stray"));
    assert!(strays.count() > 0, "unknown partitions are kept as strays");
}

#[test]
fn after_a_kill_a_topic_with_flush_messages_ends_where_it_ended() {
    let machine = Machine::new();
    let broker = machine.start("data", &[]);
    fill(&broker, "flushed", &[("flush.messages", "1")]);
    fill(&broker, "plain", &[]);
    broker.kill();
    let broker = machine.start("data", &[]);
    assert_eq!((broker.latest_offset("flushed"), broker.latest_offset("plain")), (5, 5));
    assert_eq!(broker.values("flushed"), expected("flushed"));
    broker.stop();
}

#[test]
fn what_is_damaged_beside_the_records_costs_nothing() {
    let names = [
        "t-0/00000000000000000000.index",
        "t-0/00000000000000000000.timeindex",
        "t-0/leader-epoch-checkpoint",
        "t-0/partition.metadata",
        "recovery-point-offset-checkpoint",
        "log-start-offset-checkpoint",
        "replication-offset-checkpoint",
    ];
    for is_killed in [false, true] {
        let machine = Machine::new();
        let broker = machine.start("data", &[]);
        fill(&broker, "t", &[]);
        broker.stop();
        for name in names {
            std::fs::write(machine.path("data").join(name), [0x33; 70]).expect("write");
            if is_killed {
                // Remove the clean-shutdown file, as after a kill.
                std::fs::remove_file(machine.path("data/.kafka_cleanshutdown")).expect("remove");
            }
            let broker = machine.start("data", &[]);
            assert_eq!(broker.values("t"), expected("t"), "{name}, killed: {is_killed}");
            broker.stop();
        }
    }
}

#[test]
fn what_is_cut_in_front_of_good_records_is_told_and_kept() {
    let machine = Machine::new();
    let broker = machine.start("data", &[]);
    fill(&broker, "t", &[]);
    broker.kill();
    let log = machine.path("data/t-0/00000000000000000000.log");
    flip(&log, |len| len / 2);
    let damaged = std::fs::read(&log).expect("read");
    let broker = machine.start("data", &[]);
    let line = broker.line("a bad batch with good ones behind it");
    assert!(line.contains("WARN") && line.contains("bytes="), "{line}");
    assert_eq!(broker.values("t"), expected("t")[..2]);
    let mut files =
        std::fs::read_dir(machine.path("data/t-0")).expect("list").map(|entry| entry.expect("entry").path());
    let kept = files.find(|path| path.extension().is_some_and(|extension| extension == "cut"));
    let kept = std::fs::read(kept.expect("a file with the removed bytes")).expect("read");
    assert!(damaged.ends_with(&kept) && kept.len() * 2 >= damaged.len());
    broker.stop();
}

fn commit(broker: &Running, group: &str, offset: i64) -> Result<(), KafkaError> {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("t", 0, Offset::Offset(offset)).expect("add");
    consumer(&broker.bootstrap, group, &[]).commit(&offsets, CommitMode::Sync)
}

fn committed(broker: &Running, group: &str) -> Result<Offset, KafkaError> {
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition("t", 0);
    let offsets = consumer(&broker.bootstrap, group, &[]).committed_offsets(wanted, Duration::from_secs(5))?;
    Ok(offsets.elements()[0].offset())
}

#[test]
fn a_damaged_commit_is_told_once_with_the_way_out_and_costs_other_groups_nothing() {
    let machine = Machine::new();
    // The last value of a setting wins. Group a is in partition 1, b in partition 0.
    let two_partitions = "offsets.topic.num.partitions=2";
    let broker = machine.start("data", &[two_partitions]);
    fill(&broker, "t", &[]);
    for group in ["a", "b"] {
        for offset in 1..4 {
            with_coordinator("commit", || commit(&broker, group, offset));
        }
    }
    broker.stop();
    flip(&machine.path("data/__consumer_offsets-1/00000000000000000000.log"), |len| len - 10);
    let broker = machine.start("data", &[two_partitions]);
    with_coordinator("commit", || commit(&broker, "b", 5));
    for _ in 0..3 {
        committed(&broker, "a").expect_err("the group is refused");
    }
    let line = broker.line("of its batches are damaged");
    assert!(line.contains("partition=1") && line.contains("the first at offset 2"), "{line}");
    let lines = broker.process.lines();
    assert_eq!(lines.iter().filter(|line| line.contains("__consumer_offsets")).count(), 1, "{}", lines.join("\n"));
    let accept = line.split_once("start with --set ").expect("a way out").1.trim().to_owned();
    broker.stop();
    let broker = machine.start("data", &[two_partitions, &accept]);
    assert_eq!(with_coordinator("committed", || committed(&broker, "a")), Offset::Offset(2));
    assert_eq!(with_coordinator("committed", || committed(&broker, "b")), Offset::Offset(5));
    broker.line("skipped a damaged batch of __consumer_offsets");
    broker.stop();
}
