//! A volume that is really full: the requests that free space still work, without a restart.
//!
//! The broker runs in its own mount namespace, on a small tmpfs. That needs root; without it the test prints a message
//! and does nothing.

use std::{path::Path, process::Command, time::Duration};

use protocol_tests::{
    broker::{listening_port, ottla},
    clients::{Record, admin, admin_options, block_on, create_topic, produce, producer, read_all, try_send},
    process::{Process, eventually},
};
use rdkafka::{
    admin::{AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    error::RDKafkaErrorCode,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A broker whose log directory is a tmpfs of 32 MiB.
fn start(directory: &Path) -> Option<(Process, String)> {
    let volume = directory.join("volume");
    std::fs::create_dir_all(&volume).expect("create");
    let may_mount = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    if !may_mount {
        eprintln!("skipped: mounting a volume needs root");
        return None;
    }
    let broker = ottla(directory);
    let mut command = Command::new("unshare");
    command.current_dir(directory).args(["-m", "sh", "-c", r#"mount -t tmpfs -o size=32m none "$0" && exec "$@""#]);
    command.arg(&volume).arg(broker.get_program()).args(broker.get_args());
    for (key, value) in broker.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command.args(["serve", "--set", "listeners=PLAINTEXT://127.0.0.1:0", "--set", "offsets.topic.num.partitions=1"]);
    command.arg("--set").arg(format!("log.dirs={}", volume.display()));
    command.args(["--set", "log.segment.bytes=1048576", "--set", "log.segment.delete.delay.ms=1000"]);
    command.args(["--set", "log.retention.check.interval.ms=1000"]);
    let mut process = Process::start(command);
    process.wait_for_line(LIMIT, |line| line.contains("Kafka Server started"));
    let port = listening_port(&process.lines());
    let port = port.unwrap_or_else(|| panic!("not started:\n{}", process.lines().join("\n")));
    Some((process, format!("127.0.0.1:{port}")))
}

/// Produces until a record fails. Returns the number of acknowledged records.
fn fill(bootstrap: &str, topic: &str) -> usize {
    let producer = producer(bootstrap, &[("message.timeout.ms", "2000"), ("retries", "0"), ("linger.ms", "0")]);
    let record = Record::of("k", vec![7; 500_000]);
    (0..100).take_while(|_| try_send(&producer, topic, std::slice::from_ref(&record)).is_ok()).count()
}

/// Fills the rest of the disk with small records.
fn fill_up(bootstrap: &str, topic: &str) {
    let producer = producer(bootstrap, &[("message.timeout.ms", "2000"), ("retries", "0")]);
    while try_send(&producer, topic, &[Record::of("k", vec![7; 4_000])]).is_ok() {}
}

fn creation_error(bootstrap: &str, topic: &str) -> Option<RDKafkaErrorCode> {
    let topic = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    let created = block_on(admin(bootstrap).create_topics(&[topic], &admin_options())).expect("ask");
    created[0].as_ref().err().map(|(_, code)| *code)
}

#[test]
fn a_full_disk_is_left_by_deleting_topics_and_by_lowering_retention_without_a_restart() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let Some((mut process, bootstrap)) = start(directory.path()) else { return };
    for topic in ["large", "other", "kept"] {
        create_topic(&bootstrap, topic, 1, &[]);
    }
    produce(&bootstrap, "kept", &[], &[Record::of("k", "v")]);
    let written = fill(&bootstrap, "large");
    assert!((20..70).contains(&written), "{written} records of 500 KB on 32 MiB");
    fill_up(&bootstrap, "other");
    assert_eq!(creation_error(&bootstrap, "refused"), Some(RDKafkaErrorCode::KafkaStorageError));

    let deleted = block_on(admin(&bootstrap).delete_topics(&["large"], &admin_options())).expect("ask");
    assert!(deleted[0].is_ok(), "{deleted:?}");
    // The files are deleted after log.segment.delete.delay.ms.
    eventually("produce to another topic", LIMIT, || (fill(&bootstrap, "other") > 20).then_some(()));
    fill_up(&bootstrap, "other");
    assert_eq!(creation_error(&bootstrap, "refused"), Some(RDKafkaErrorCode::KafkaStorageError));

    let lowered = AlterConfig::new(ResourceSpecifier::Topic("other")).set("retention.bytes", "1000000");
    let altered = block_on(admin(&bootstrap).alter_configs([&lowered], &admin_options())).expect("ask");
    assert!(altered[0].is_ok(), "{altered:?}");
    eventually("create a topic", LIMIT, || creation_error(&bootstrap, "new").is_none().then_some(()));
    assert!(fill(&bootstrap, "new") > 20);
    assert_eq!(read_all(&bootstrap, "kept").len(), 1);
    process.signal("TERM");
    assert!(process.wait(LIMIT).success(), "{}", process.lines().join("\n"));
}
