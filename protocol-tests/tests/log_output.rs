//! A broker whose log output is not read loses log lines and nothing else.

use std::{
    fs::File,
    io::{BufRead, BufReader, PipeReader, Read},
    net::TcpStream,
    os::fd::OwnedFd,
    process::{Child, Command},
    time::Duration,
};

use protocol_tests::{
    broker::ottla,
    clients::{Record, consumer, produce, read_all, with_coordinator},
    process::{eventually, free_port},
};
use rdkafka::consumer::{CommitMode, Consumer};

const START_LIMIT: Duration = Duration::from_secs(60);

/// A broker with standard output and standard error chosen by the test.
struct BrokerWithOutput {
    child: Child,
    bootstrap: String,
    _directory: tempfile::TempDir,
}

impl BrokerWithOutput {
    fn start(output: impl Into<OwnedFd>, arguments: &[&str]) -> BrokerWithOutput {
        let directory = tempfile::tempdir().expect("temporary directory");
        let bootstrap = format!("127.0.0.1:{}", free_port());
        let mut command = ottla(directory.path());
        command.arg("serve").args(arguments).args(["--set", "group.initial.rebalance.delay.ms=0"]);
        command.args(["--set", &format!("listeners=PLAINTEXT://{bootstrap}")]);
        let output = output.into();
        command.stdout(output.try_clone().expect("another handle of the output")).stderr(output);
        let child = command.spawn().expect("start ottla");
        drop(command); // With its handles of the output.
        BrokerWithOutput { child, bootstrap, _directory: directory }
    }

    fn wait_until_it_serves(&self) {
        eventually("the broker listens", START_LIMIT, || TcpStream::connect(&self.bootstrap).ok());
        protocol_tests::clients::wait_until_ready(&self.bootstrap);
    }

    /// Produces records, commits an offset of a group, and stops the broker.
    fn works_and_stops(mut self) {
        let records: Vec<Record> = (0..100).map(|at| Record::of("k", at.to_string())).collect();
        produce(&self.bootstrap, "t", &[], &records);
        assert_eq!(read_all(&self.bootstrap, "t").len(), 100);
        let member = consumer(&self.bootstrap, "g", &[]);
        member.subscribe(&["t"]).expect("subscribe");
        eventually("a record for the group", START_LIMIT, || member.poll(Duration::from_millis(100))?.ok().map(drop));
        with_coordinator("commit", || member.commit_consumer_state(CommitMode::Sync));
        drop(member);
        let sent = Command::new("kill").arg(self.child.id().to_string()).status().expect("run kill");
        assert!(sent.success());
        let status = eventually("the broker stops", START_LIMIT, || self.child.try_wait().expect("wait for ottla"));
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for BrokerWithOutput {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_reader_that_closes_its_end_costs_log_lines_and_nothing_else() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let broker = BrokerWithOutput::start(writer, &[]);
    // Like `ottla serve 2>&1 | head -1`.
    let mut first = String::new();
    BufReader::with_capacity(1, reader).read_line(&mut first).expect("the first line");
    assert!(first.contains("INFO"), "{first}");
    broker.wait_until_it_serves();
    broker.works_and_stops();
}

#[test]
fn an_output_on_a_full_disk_costs_log_lines_and_nothing_else() {
    let full = File::options().write(true).open("/dev/full").expect("open /dev/full");
    let broker = BrokerWithOutput::start(full, &[]);
    broker.wait_until_it_serves();
    broker.works_and_stops();
}

#[test]
fn a_reader_that_stops_reading_holds_up_nobody_and_is_told_what_it_missed() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let broker = BrokerWithOutput::start(writer, &["--log", "trace", "--log-format", "json"]);
    broker.wait_until_it_serves();
    let records: Vec<Record> = (0..100).map(|at| Record::of("k", at.to_string())).collect();
    // Far more lines than fit into the pipe and the queue.
    for _ in 0..20 {
        produce(&broker.bootstrap, "t", &[], &records);
        for _ in 0..400 {
            drop(TcpStream::connect(&broker.bootstrap).expect("connect"));
        }
    }
    let reading = std::thread::spawn(move || read_until(reader, "log lines were lost"));
    // The count comes with the next line after the lost ones.
    eventually("the count of lost lines", START_LIMIT, || {
        drop(TcpStream::connect(&broker.bootstrap).expect("connect"));
        reading.is_finished().then_some(())
    });
    let line = reading.join().expect("read the log").expect("a line with the number of lost lines");
    let count = line.rsplit_once("\"lost\":").expect("a count").1;
    let digits: String = count.chars().take_while(char::is_ascii_digit).collect();
    let lost: u64 = digits.parse().expect("a number");
    assert!(lost > 0, "{line}");
}

/// Returns the first line that contains `text`; a thread reads the rest of the pipe, so that the broker can write.
fn read_until(mut reader: PipeReader, text: &str) -> Option<String> {
    let mut lines = BufReader::new(&mut reader).lines();
    let found = lines.by_ref().map_while(Result::ok).find(|line| line.contains(text));
    drop(lines);
    std::thread::spawn(move || _ = std::io::copy(&mut reader.take(u64::MAX), &mut std::io::sink()));
    found
}
