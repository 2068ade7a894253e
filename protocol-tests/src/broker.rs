//! A broker under test, started on a free port and its own data directory. It can be stopped, killed and started again
//! on the same port and directory. When it is dropped, its log must be clean (see `log_gate`); if the test fails, its
//! log is printed.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::OnceLock,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    kafka::{Kafka, KafkaOptions, SERVER_FLAGS},
    log_gate,
    network::Network,
    process::{Process, free_port},
};

/// Longest duration of a start on a machine that is busy with other tests.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longest duration of a controlled shutdown.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Options of a broker.
#[derive(Debug, Default)]
pub struct BrokerOptions {
    settings: Vec<(String, String)>,
    expected_log: Vec<String>,
    /// File for callgrind's counts; None without callgrind.
    callgrind_file: Option<PathBuf>,
    optimized: bool,
    /// Apache Kafka with the JVM flags of its own start script, in place of Ottla.
    is_kafka: bool,
    /// The host of a [`Network`] on which the broker runs; None is the test's own host.
    host: Option<i32>,
}

impl BrokerOptions {
    /// Runs the broker on a host of a [`Network`].
    pub fn on_host(mut self, host: i32) -> Self {
        self.host = Some(host);
        self
    }

    /// Starts an optimized build, for tests that measure time; without it the profile of the tests is used.
    pub fn optimized(mut self) -> Self {
        self.optimized = true;
        self
    }

    /// Starts Apache Kafka in place of Ottla, for measurements.
    pub fn kafka(mut self) -> Self {
        self.is_kafka = true;
        self
    }

    /// Sets a broker setting by Kafka's name. The last value for a name wins.
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// Allows WARN and ERROR lines that contain `text`.
    pub fn expect_log(mut self, text: &str) -> Self {
        self.expected_log.push(text.to_owned());
        self
    }

    /// Allows the warnings that faults of other brokers and the stop of all brokers explain.
    pub fn expect_faults(self) -> Self {
        let lines = [
            "fenced a broker",
            "stepped down to follower since quorum is not active",
            // The last of all brokers that stop.
            "no controller has given the leaders of this broker to others",
        ];
        lines.into_iter().fold(self, BrokerOptions::expect_log)
    }

    /// Starts the optimized broker with one worker thread under valgrind, which counts its instructions and writes them
    /// to `file` when the broker ends.
    pub fn under_callgrind(mut self, file: &Path) -> Self {
        self.callgrind_file = Some(file.to_owned());
        self
    }

    pub fn start(self) -> Broker {
        let directory = tempfile::Builder::new().prefix("ottla-test-").tempdir().expect("create a temporary directory");
        let port = self.given_port().filter(|port| *port > 0).unwrap_or_else(free_port);
        let mut broker = Broker { options: self, directory, port, running: None, earlier_log: Vec::new() };
        broker.start();
        broker
    }

    /// The port of the first listener that the test has set.
    fn given_port(&self) -> Option<u16> {
        let (_, listeners) = self.settings.iter().find(|(key, _)| key == "listeners")?;
        listeners.split(',').next()?.rsplit(':').next()?.parse().ok()
    }
}

/// A broker, running or stopped. Dropping it kills the process, checks its log and removes its files.
pub struct Broker {
    options: BrokerOptions,
    directory: TempDir,
    /// The same at each start. If the test sets its own listeners, the port of the first, which is in the broker's log.
    port: u16,
    running: Option<Running>,
    earlier_log: Vec<String>,
}

enum Running {
    Ottla(Process),
    Kafka(Kafka),
}

impl Broker {
    /// Options with the settings that every test needs: no delay before a group's first rebalance.
    pub fn options() -> BrokerOptions {
        BrokerOptions::default().set("group.initial.rebalance.delay.ms", 0)
    }

    pub fn start_default() -> Broker {
        Broker::options().start()
    }

    /// True if the scenarios run against Apache Kafka, to prove that they expect nothing that Kafka does not do.
    pub fn is_kafka() -> bool {
        std::env::var("OTTLA_TEST_SERVER").is_ok_and(|server| server == "kafka")
    }

    /// The value for a client's bootstrap.servers.
    pub fn bootstrap(&self) -> String {
        format!("{}:{}", self.options.host.map_or("127.0.0.1".into(), Network::address), self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory in `log.dirs`; the partition directories are directly in it.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts the stopped broker again on the same directory and port.
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "the broker runs already");
        self.running = Some(if self.runs_kafka() { self.start_kafka() } else { self.start_ottla() });
    }

    /// The command line that starts Ottla on this directory and port.
    pub fn command(&self) -> Command {
        let mut command = match &self.options.callgrind_file {
            Some(file) => ottla_under_callgrind(self.directory.path(), file),
            None if self.options.optimized => in_directory(Command::new(optimized_binary()), self.directory.path()),
            None => ottla(self.directory.path()),
        };
        command.arg("serve");
        command.arg("--set").arg(format!("log.dirs={}", self.data().display()));
        if !self.options.settings.iter().any(|(key, _)| key == "listeners") {
            command.arg("--set").arg(format!("listeners=PLAINTEXT://127.0.0.1:{}", self.port));
        }
        for (key, value) in &self.options.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        self.options.host.map(|host| Network::on_host(host, &command)).unwrap_or(command)
    }

    fn runs_kafka(&self) -> bool {
        self.options.is_kafka || Broker::is_kafka()
    }

    fn start_ottla(&mut self) -> Running {
        let mut process = Process::start(self.command());
        let started = process.wait_for_line(START_LIMIT, |line| line.contains("Kafka Server started"));
        if started.is_none() {
            self.fail_start(&process.lines());
        }
        self.port = listening_port(&process.lines()).unwrap_or_else(|| self.fail_start(&process.lines()));
        Running::Ottla(process)
    }

    fn fail_start(&self, lines: &[String]) -> ! {
        panic!("the broker did not start: {:?}\n{}", self.command(), lines.join("\n"));
    }

    fn start_kafka(&mut self) -> Running {
        let mut options = KafkaOptions::default().directory(self.directory.path()).port(self.port);
        options.host = self.options.host;
        if self.options.is_kafka {
            options = options.java_flags(SERVER_FLAGS);
        }
        // Listeners of a node that is alone name ports that Kafka cannot choose.
        let is_alone = !self.options.settings.iter().any(|(key, _)| key == "controller.quorum.voters");
        for (key, value) in self.options.settings.iter().filter(|(key, _)| !is_alone || key != "listeners") {
            options = options.property(key, value);
        }
        let kafka = Kafka::start(&options).expect("start Apache Kafka");
        // The port opens before the broker is unfenced; wait until it can create topics.
        crate::clients::wait_until_ready(&self.bootstrap());
        Running::Kafka(kafka)
    }

    /// Sends SIGKILL: the broker flushes nothing and logs nothing.
    pub fn kill(&mut self) {
        assert!(self.running.is_some(), "the broker does not run");
        self.end();
    }

    fn end(&mut self) {
        match self.running.as_mut() {
            Some(Running::Ottla(process)) => process.kill(),
            Some(Running::Kafka(kafka)) => kafka.kill(),
            None => {}
        }
        self.earlier_log = self.log();
        self.running = None;
    }

    /// Sends SIGTERM, waits for a successful controlled shutdown and returns its duration.
    pub fn stop(&mut self) -> Duration {
        let begun = Instant::now();
        match self.running.as_mut() {
            Some(Running::Ottla(process)) => {
                process.signal("TERM");
                let status: ExitStatus = process.wait(STOP_LIMIT);
                assert!(status.success(), "stopped with {status}\n{}", self.log().join("\n"));
            }
            Some(Running::Kafka(kafka)) => kafka.stop().expect("stop Apache Kafka"),
            None => panic!("the broker does not run"),
        }
        self.end();
        begun.elapsed()
    }

    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// The process of Ottla, to read its memory and CPU time or to send it a signal.
    pub fn process(&mut self) -> &mut Process {
        match self.running.as_mut() {
            Some(Running::Ottla(process)) => process,
            _ => panic!("Ottla does not run"),
        }
    }

    /// The id of the running process, of Ottla or Kafka.
    pub fn process_id(&self) -> u32 {
        match &self.running {
            Some(Running::Ottla(process)) => process.id(),
            Some(Running::Kafka(kafka)) => kafka.process_id(),
            None => panic!("the broker does not run"),
        }
    }

    /// Sends a signal by its name, for example STOP.
    pub fn signal(&mut self, name: &str) {
        match self.running.as_mut() {
            Some(Running::Ottla(process)) => process.signal(name),
            Some(Running::Kafka(kafka)) => kafka.signal(name).expect("send a signal"),
            None => panic!("the broker does not run"),
        }
    }

    /// All log lines of all starts so far.
    pub fn log(&self) -> Vec<String> {
        let mut lines = self.earlier_log.clone();
        match &self.running {
            Some(Running::Ottla(process)) => lines.extend(process.lines()),
            Some(Running::Kafka(kafka)) => lines.extend(kafka.output().lines().map(String::from)),
            None => {}
        }
        lines
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
        let log = self.log();
        if std::thread::panicking() {
            let shown = &log[log.len().saturating_sub(200)..];
            eprintln!("--- the broker's log (last {} lines)\n{}\n---", shown.len(), shown.join("\n"));
        } else if !self.runs_kafka() {
            let unexpected = log_gate::unexpected(&log, &self.options.expected_log);
            assert!(unexpected.is_empty(), "unexpected lines in the broker's log:\n{}", unexpected.join("\n"));
        }
    }
}

/// The command `ottla` in `directory`, without `KAFKA_…` variables from the test's environment.
pub fn ottla(directory: &Path) -> Command {
    in_directory(Command::new(binary()), directory)
}

fn ottla_under_callgrind(directory: &Path, file: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", file.display())).arg(optimized_binary());
    command.env("TOKIO_WORKER_THREADS", "1");
    in_directory(command, directory)
}

fn in_directory(mut command: Command, directory: &Path) -> Command {
    command.current_dir(directory);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KAFKA_") {
            command.env_remove(name);
        }
    }
    command
}

/// The binary under test: `$OTTLA_BIN`, or else this workspace's, built once with the profile of the tests.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| given_binary().unwrap_or_else(|| build(&own_profile())))
}

/// Like [`binary`], but always optimized.
fn optimized_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let profile = own_profile();
        given_binary().unwrap_or_else(|| build(if profile == "debug" { "fast" } else { &profile }))
    })
}

fn given_binary() -> Option<PathBuf> {
    std::env::var_os("OTTLA_BIN").map(|path| std::fs::canonicalize(path).expect("find $OTTLA_BIN"))
}

/// The name of the directory below target in which the tests were built.
fn own_profile() -> String {
    let test = std::env::current_exe().expect("path of the test binary");
    let profile = test.ancestors().nth(2).and_then(Path::file_name).expect("target/PROFILE/deps/test");
    profile.to_string_lossy().into_owned()
}

/// Builds the broker; `profile` is the name of the profile's directory below target.
fn build(profile: &str) -> PathBuf {
    let test = std::env::current_exe().expect("path of the test binary");
    let target = test.ancestors().nth(3).expect("target/PROFILE/deps/test");
    let built = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["build", "--quiet", "--workspace", "--bin", "ottla", "--profile"])
        .arg(if profile == "debug" { "dev" } else { profile })
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status();
    assert!(built.expect("run cargo").success(), "cargo could not build the broker");
    target.join(profile).join("ottla")
}

/// The port of the line `… listening on PLAINTEXT://127.0.0.1:PORT`.
pub fn listening_port(lines: &[String]) -> Option<u16> {
    lines.iter().find_map(|line| {
        let address = line.split("listening on ").nth(1)?.split("://").nth(1)?.split([',', ' ']).next()?;
        let port = address.rsplit(':').next()?;
        port.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_the_start_up_line() {
        let lines = ["x".to_owned(), "INFO ottla: listening on PLAINTEXT://127.0.0.1:40123, data in /d".to_owned()];
        assert_eq!(listening_port(&lines[..1]), None);
        // A list of listeners: the address ends at the comma, not at the line's last colon.
        assert_eq!(listening_port(&lines), Some(40123));
    }
}
