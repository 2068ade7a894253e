//! Apache Kafka's own programs: the command-line tools and the Java client scenarios of clients/java. The start of a
//! JVM takes longer than most tools, so one JVM (clients/java/src/ToolRunner.java) calls their main methods one after
//! another; a few tests start real processes.

use std::{
    fmt,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
    sync::{Mutex, MutexGuard, OnceLock},
};

use crate::kafka::jar_directory;

/// The main class behind each `kafka-….sh`.
const TOOLS: &[(&str, &str)] = &[
    ("kafka-topics", "org.apache.kafka.tools.TopicCommand"),
    ("kafka-configs", "kafka.admin.ConfigCommand"),
    ("kafka-consumer-groups", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    ("kafka-groups", "org.apache.kafka.tools.GroupsCommand"),
    ("kafka-get-offsets", "org.apache.kafka.tools.GetOffsetShell"),
    ("kafka-log-dirs", "org.apache.kafka.tools.LogDirsCommand"),
    ("kafka-broker-api-versions", "org.apache.kafka.tools.BrokerApiVersionsCommand"),
    ("kafka-metadata-quorum", "org.apache.kafka.tools.MetadataQuorumCommand"),
    ("kafka-leader-election", "org.apache.kafka.tools.LeaderElectionCommand"),
    ("kafka-replica-verification", "org.apache.kafka.tools.ReplicaVerificationTool"),
    ("kafka-cluster", "org.apache.kafka.tools.ClusterTool"),
    ("kafka-features", "org.apache.kafka.tools.FeatureCommand"),
    ("kafka-acls", "org.apache.kafka.tools.AclCommand"),
    ("kafka-transactions", "org.apache.kafka.tools.TransactionsCommand"),
    ("kafka-dump-log", "org.apache.kafka.tools.DumpLogSegments"),
    ("kafka-producer-perf-test", "org.apache.kafka.tools.ProducerPerformance"),
    ("kafka-consumer-perf-test", "org.apache.kafka.tools.ConsumerPerformance"),
    ("kafka-e2e-latency", "org.apache.kafka.tools.EndToEndLatency"),
    ("kafka-verifiable-producer", "org.apache.kafka.tools.VerifiableProducer"),
    ("kafka-verifiable-consumer", "org.apache.kafka.tools.VerifiableConsumer"),
    ("kafka-console-producer", "org.apache.kafka.tools.ConsoleProducer"),
    ("kafka-console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
    ("scenario", "Scenarios"),
];

/// The result of one run of a tool.
#[derive(Clone)]
pub struct ToolResult {
    pub exit_code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl ToolResult {
    /// Returns standard output; panics if the exit code was not 0.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.exit_code, 0, "{self:?}");
        self.stdout
    }

    /// Returns standard output; panics if it does not contain `text` or the exit code was not 0.
    #[track_caller]
    pub fn says(self, text: &str) -> String {
        assert!(self.exit_code == 0 && self.stdout.contains(text), "expected {text:?}: {self:?}");
        self.stdout
    }

    /// Returns all output; panics if the exit code was 0.
    #[track_caller]
    pub fn fails(self) -> String {
        assert_ne!(self.exit_code, 0, "{self:?}");
        self.stdout + &self.stderr
    }
}

impl fmt::Debug for ToolResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}\n--- stdout\n{}\n--- stderr\n{}", self.exit_code, self.stdout, self.stderr)
    }
}

/// Runs a tool by the name of its script, such as `kafka-topics`, in the shared JVM.
pub fn tool(name: &str, arguments: &[&str]) -> ToolResult {
    tool_with_input(name, arguments, "")
}

/// Like `tool`, with `input` on standard input.
pub fn tool_with_input(name: &str, arguments: &[&str], input: &str) -> ToolResult {
    runner().run(main_class(name), arguments, input)
}

/// Runs a tool in a new process, as a user's shell would.
pub fn process(name: &str, arguments: &[&str], input: &str) -> ToolResult {
    let mut command = java();
    command.arg(main_class(name)).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start java");
    child.stdin.take().expect("stdin is piped").write_all(input.as_bytes()).expect("write the tool's input");
    let Output { status, stdout, stderr } = child.wait_with_output().expect("wait for java");
    ToolResult {
        exit_code: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// `java` with Kafka's jars and our own classes in the class path, tuned for a quick start.
pub fn java() -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]);
    command.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.logFile=System.err"]);
    command.arg("-cp").arg(format!("{}:{}/*", classes().display(), jars().display()));
    command
}

fn jars() -> &'static Path {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| jar_directory().expect("find Apache Kafka's jars"))
}

/// Our own Java programs, compiled once per run of the tests.
fn classes() -> &'static Path {
    static CLASSES: OnceLock<PathBuf> = OnceLock::new();
    CLASSES.get_or_init(|| {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/java");
        let target = project.join(format!("target/classes-{}", std::process::id()));
        let sources = std::fs::read_dir(project.join("src")).expect("list clients/java/src");
        let sources: Vec<PathBuf> = sources.map(|entry| entry.expect("directory entry").path()).collect();
        let compiled = Command::new("javac")
            .args(["-nowarn", "-J-XX:TieredStopAtLevel=1", "-cp"])
            .arg(format!("{}/*", jars().display()))
            .arg("-d")
            .arg(&target)
            .args(sources)
            .status();
        assert!(compiled.expect("run javac").success(), "clients/java does not compile");
        target
    })
}

/// The main class of a tool.
pub fn main_class(name: &str) -> &'static str {
    let known = TOOLS.iter().find(|(script, _)| *script == name);
    known.unwrap_or_else(|| panic!("no tool is called {name}")).1
}

/// The JVM that runs one tool after another.
struct ToolRunner {
    jvm: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

fn runner() -> MutexGuard<'static, ToolRunner> {
    static RUNNER: OnceLock<Mutex<ToolRunner>> = OnceLock::new();
    let runner = RUNNER.get_or_init(|| Mutex::new(ToolRunner::start()));
    // If a test failed while it held the runner, the JVM may have ended: then start a new one.
    let mut runner = runner.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if runner.jvm.try_wait().expect("look at the JVM").is_some() {
        *runner = ToolRunner::start();
    }
    runner
}

impl ToolRunner {
    fn start() -> ToolRunner {
        let mut command = java();
        command.arg("ToolRunner").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut jvm = command.spawn().expect("start java");
        let requests = jvm.stdin.take().expect("stdin is piped");
        let answers = BufReader::new(jvm.stdout.take().expect("stdout is piped"));
        ToolRunner { jvm, requests, answers }
    }

    /// Request: the number of fields on a line, then each field as `length\n` and its bytes (class, input, arguments
    /// …). Answer: a line `exit-code stdout-length stderr-length`, then the bytes of both.
    fn run(&mut self, class: &str, arguments: &[&str], input: &str) -> ToolResult {
        let mut request = format!("{}\n", arguments.len() + 2);
        for field in [class, input].iter().chain(arguments) {
            request.push_str(&format!("{}\n{field}", field.len()));
        }
        self.requests.write_all(request.as_bytes()).and_then(|()| self.requests.flush()).expect("ask the JVM");
        let mut head = String::new();
        self.answers.read_line(&mut head).expect("read the JVM's answer");
        let numbers: Vec<i64> = head.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [exit_code, stdout, stderr] = numbers[..] else {
            let _ = self.jvm.kill();
            panic!("the JVM ended while it ran {class} {arguments:?}: {head:?}")
        };
        ToolResult { exit_code: exit_code as i32, stdout: self.take_text(stdout), stderr: self.take_text(stderr) }
    }

    fn take_text(&mut self, length: i64) -> String {
        let mut bytes = vec![0; length as usize];
        self.answers.read_exact(&mut bytes).expect("read the JVM's answer");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
