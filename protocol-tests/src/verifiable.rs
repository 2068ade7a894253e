//! Kafka's verifiable clients, the load of its own system tests: each is a process that prints an event as JSON for each
//! record or rebalance. Leaves to the tests what must be true of the events.

use std::{io::Write as _, time::Duration};

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::{
    java::{java, main_class},
    process::Process,
};

/// Longest time until a client has ended after SIGTERM; a producer then waits for all acknowledgements.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A record and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    pub value: String,
    pub partition: i32,
    pub offset: i64,
}

/// An idempotent producer of the values PREFIX.0, PREFIX.1 and so on.
pub struct VerifiableProducer {
    process: Process,
    _settings: NamedTempFile,
}

impl VerifiableProducer {
    pub fn start(bootstrap: &str, topic: &str, prefix: u32, per_second: u32) -> VerifiableProducer {
        // The program does not retry unless it is told to.
        let mut settings = NamedTempFile::new().expect("create a file");
        let text = "retries=2147483647\nenable.idempotence=true\ndelivery.timeout.ms=600000\n";
        settings.write_all(text.as_bytes()).expect("write the settings");
        let mut command = java();
        command.arg(main_class("kafka-verifiable-producer")).args(["--bootstrap-server", bootstrap, "--topic", topic]);
        command.arg("--throughput").arg(per_second.to_string());
        command.arg("--value-prefix").arg(prefix.to_string()).arg("--command-config").arg(settings.path());
        VerifiableProducer { process: Process::start(command), _settings: settings }
    }

    /// How many records were acknowledged so far. Panics if the program has ended.
    pub fn acknowledged(&mut self) -> usize {
        assert_runs(&mut self.process);
        self.process.count_lines_with("producer_send_success")
    }

    /// Ends the program. Returns the acknowledged records; panics if a record was refused.
    pub fn finish(self) -> Vec<Placed> {
        self.finish_with_times().into_iter().map(|(placed, _)| placed).collect()
    }

    /// Like [`finish`](Self::finish), with the time of each acknowledgement in milliseconds since 1970.
    pub fn finish_with_times(mut self) -> Vec<(Placed, u64)> {
        self.process.signal("TERM");
        self.process.wait(STOP_LIMIT);
        let mut refused = events(&self.process, "producer_send_error");
        // Its main thread may still send when the signal has closed the producer: that record was never sent.
        refused
            .retain(|event| !event["message"].as_str().is_some_and(|text| text.contains("producer has been closed")));
        assert!(refused.is_empty(), "records were refused: {refused:?}");
        let acknowledged = events(&self.process, "producer_send_success");
        acknowledged.iter().map(|event| (placed(event), event["timestamp"].as_u64().expect("a timestamp"))).collect()
    }
}

/// A member of a group that commits what it has read.
pub struct VerifiableConsumer {
    process: Process,
}

impl VerifiableConsumer {
    pub fn start(bootstrap: &str, topic: &str, group: &str, more: &[&str]) -> VerifiableConsumer {
        let mut command = java();
        command.arg(main_class("kafka-verifiable-consumer")).args(["--bootstrap-server", bootstrap, "--topic", topic]);
        command.args(["--group-id", group, "--verbose"]).args(more);
        VerifiableConsumer { process: Process::start(command) }
    }

    /// How many events of this name there were. Panics if the program has ended.
    pub fn count(&mut self, event: &str) -> usize {
        assert_runs(&mut self.process);
        self.process.count_lines_with(&format!("\"{event}\""))
    }

    /// The partitions of the last assignment.
    pub fn assigned(&self) -> Vec<i32> {
        let assignments = events(&self.process, "partitions_assigned");
        let partitions =
            assignments.last().and_then(|event| event["partitions"].as_array().cloned()).unwrap_or_default();
        partitions.iter().map(|partition| partition["partition"].as_i64().expect("a partition") as i32).collect()
    }

    /// The records read so far.
    pub fn read(&self) -> Vec<Placed> {
        events(&self.process, "record_data").iter().map(placed).collect()
    }

    /// Ends the program.
    pub fn finish(mut self) {
        self.process.signal("TERM");
        self.process.wait(STOP_LIMIT);
    }
}

fn assert_runs(process: &mut Process) {
    assert!(process.is_running(), "a verifiable client has ended:\n{}", process.lines().join("\n"));
}

fn events(process: &Process, name: &str) -> Vec<Value> {
    let lines = process.lines();
    // Most lines are other events: parse only those that can be meant.
    let meant = lines.iter().filter(|line| line.contains(name));
    meant.filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter(|event| event["name"] == name).collect()
}

fn placed(event: &Value) -> Placed {
    Placed {
        value: event["value"].as_str().expect("a value").to_owned(),
        partition: event["partition"].as_i64().expect("a partition") as i32,
        offset: event["offset"].as_i64().expect("an offset"),
    }
}
