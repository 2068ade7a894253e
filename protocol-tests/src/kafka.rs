//! Runs Apache Kafka 4.3.1 as a child process: one combined broker and controller (KRaft) on free loopback ports, in
//! its own directory, started from jars of Maven Central. The differential tests and the benchmarks compare Ottla with
//! it, and other tests let Ottla serve directories that it wrote. Leaves the requests to its callers.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{network::Network, process::free_port};

/// A start that takes longer has failed. A loaded machine with two cores needs about ten seconds.
const START_LIMIT: Duration = Duration::from_secs(90);
/// If a stop by SIGTERM takes longer, the process is killed. It syncs each log, and some tests have 2,000.
const STOP_LIMIT: Duration = Duration::from_secs(120);
/// The cluster id of every node started here (22 characters of base64url, as Kafka requires).
pub const CLUSTER_ID: &str = "b3R0bGEtZGlmZmVyZW5jZQ";

/// The JVM flags of Kafka's own start script, for measurements.
pub const SERVER_FLAGS: [&str; 7] = [
    "-Xms1g",
    "-Xmx1g",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// A running Apache Kafka. Dropping it kills the process and, unless the directory was given, removes its files.
#[derive(Debug)]
pub struct Kafka {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
    owns_directory: bool,
}

/// Options of a node.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    /// Lines of server.properties, after the defaults (so they win).
    pub properties: Vec<(String, String)>,
    /// The directory for data, settings and the log of the process; a temporary one if unset. If it already holds a
    /// formatted log directory, that one is used.
    pub directory: Option<PathBuf>,
    /// The port for clients; a free one if unset.
    pub port: Option<u16>,
    /// The host of a [`Network`] on which the node runs; None is the test's own host.
    pub host: Option<i32>,
    /// Flags for the JVM that replace those for a quick start (benchmarks use `-Xmx1g` and the full JIT).
    pub java_flags: Option<Vec<String>>,
}

impl KafkaOptions {
    pub fn property(mut self, key: &str, value: impl ToString) -> Self {
        self.properties.push((key.to_owned(), value.to_string()));
        self
    }

    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    pub fn java_flags<'a>(mut self, flags: impl IntoIterator<Item = &'a str>) -> Self {
        self.java_flags = Some(flags.into_iter().map(str::to_owned).collect());
        self
    }
}

impl Kafka {
    /// Formats the options' directory. `start` does this too if necessary; call it before if the start is measured.
    pub fn format(options: &KafkaOptions) -> Result<()> {
        let directory = options.directory.as_ref().context("formatting needs a directory")?;
        prepare(directory, [free_port(), free_port()], options).map(drop)
    }

    /// Starts a node and returns when it accepts connections.
    pub fn start(options: &KafkaOptions) -> Result<Kafka> {
        let (directory, owns_directory) = match &options.directory {
            Some(directory) => (directory.clone(), false),
            None => (fresh_directory()?, true),
        };
        let mut ports = [free_port(), free_port()];
        ports[0] = options.port.unwrap_or(ports[0]);
        let settings = prepare(&directory, ports, options)?;
        let log = fs::File::create(directory.join("server.log")).context("create server.log")?;
        let mut command = java(options.java_flags.as_deref())?;
        command.arg("kafka.Kafka").arg(&settings).current_dir(&directory);
        let mut command = options.host.map(|host| Network::on_host(host, &command)).unwrap_or(command);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("start java")?;
        let host = options.host.map_or(Ipv4Addr::LOCALHOST, Network::ip);
        let mut kafka = Kafka { child, address: (host, ports[0]).into(), directory, owns_directory };
        kafka.wait_until_open()?;
        Ok(kafka)
    }

    /// The value for a client's bootstrap.servers.
    pub fn bootstrap(&self) -> String {
        self.address().to_string()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// The directory in `log.dirs`; the partition directories are directly in it.
    pub fn log_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// All output of the process so far.
    pub fn output(&self) -> String {
        fs::read_to_string(self.directory.join("server.log")).unwrap_or_default()
    }

    /// Controlled shutdown: sends SIGTERM and waits for the end. The files stay until drop.
    pub fn stop(&mut self) -> Result<()> {
        self.signal("TERM")?;
        let limit = Instant::now() + STOP_LIMIT;
        while self.child.try_wait().context("wait for Kafka")?.is_none() {
            if Instant::now() > limit {
                self.kill();
                bail!("Kafka did not stop within {STOP_LIMIT:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) -> Result<()> {
        let mut command = Command::new("kill");
        let status = command.args(["-s", name, &self.process_id().to_string()]).status().context("run kill")?;
        ensure!(status.success(), "kill -s {name} failed: {status}");
        Ok(())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn wait_until_open(&mut self) -> Result<()> {
        let limit = Instant::now() + START_LIMIT;
        loop {
            if TcpStream::connect_timeout(&self.address(), Duration::from_millis(200)).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().context("wait for Kafka")? {
                bail!("Kafka ended with {status}:\n{}", self.output());
            }
            ensure!(Instant::now() < limit, "Kafka did not open its port within {START_LIMIT:?}:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.kill();
        if self.owns_directory {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// The directory with kafka_2.13-4.3.1.jar and its dependencies: `$APACHE_KAFKA_JARS`, or else
/// protocol-tests/clients/java/target/jars, which Maven fills once.
pub fn jar_directory() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("APACHE_KAFKA_JARS") {
        return Ok(directory.into());
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/java");
    let directory = project.join("target/jars");
    if !directory.exists() {
        fetch_jars(&project, &directory)?;
    }
    Ok(directory)
}

/// Copies the jars with Maven. Other threads and processes that need them wait for the first one; the directory is
/// renamed to its final name when it is complete.
fn fetch_jars(project: &Path, directory: &Path) -> Result<()> {
    let target = project.join("target");
    fs::create_dir_all(&target).context("create clients/java/target")?;
    let lock = fs::File::create(target.join("jars.lock")).context("create jars.lock")?;
    lock.lock().context("lock jars.lock")?;
    if directory.exists() {
        return Ok(());
    }
    let status = Command::new("mvn")
        .args(["-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=target/jars.incomplete"])
        .current_dir(project)
        .status()
        .context("run mvn to fetch Apache Kafka's jars")?;
    ensure!(status.success(), "mvn failed: {status}");
    fs::rename(target.join("jars.incomplete"), directory).context("name the directory of jars")
}

/// One of Kafka's command line tools by its class name, for example `kafka.tools.StorageTool`, in a small JVM.
pub fn tool(class: &str) -> Result<Command> {
    let mut command = java(None)?;
    command.arg(class).stdin(Stdio::null());
    Ok(command)
}

fn java(flags: Option<&[String]>) -> Result<Command> {
    let mut command = Command::new("java");
    match flags {
        Some(flags) => command.args(flags),
        None => command.args(["-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]),
    };
    command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
    command.arg("-cp").arg(format!("{}/*", jar_directory()?.display()));
    Ok(command)
}

fn server_properties(directory: &Path, [client, controller]: [u16; 2], more: &[(String, String)]) -> String {
    let mut text = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}
log.dirs={}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
",
        directory.join("data").display()
    );
    for (key, value) in more {
        text.push_str(&format!("{key}={value}\n"));
    }
    text
}

/// Writes the settings, formats the log directory if it is new, and returns the path of the settings.
fn prepare(directory: &Path, ports: [u16; 2], options: &KafkaOptions) -> Result<PathBuf> {
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let settings = directory.join("server.properties");
    fs::write(&settings, server_properties(directory, ports, &options.properties))
        .context("write server.properties")?;
    if !directory.join("data/meta.properties").exists() {
        format_log_directory(&settings)?;
    }
    Ok(settings)
}

fn format_log_directory(settings: &Path) -> Result<()> {
    let done = tool("kafka.tools.StorageTool")?
        .args(["format", "--ignore-formatted", "-t", CLUSTER_ID, "-c"])
        .arg(settings)
        .output()
        .context("run kafka-storage format")?;
    ensure!(done.status.success(), "kafka-storage format failed: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

fn fresh_directory() -> Result<PathBuf> {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("kafka-{}-{count}", std::process::id()));
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("clear {}", directory.display()))?;
    }
    Ok(directory)
}
