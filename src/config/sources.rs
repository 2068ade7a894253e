//! The sources of settings and their order: default < config.toml < server.properties < `KAFKA_…` environment <
//! `--set`. Each value keeps its origin, for error messages.
//!
//! Leaves the parsing of values to `value.rs`, and dynamic changes to `layers.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
};

use super::{
    broker::BrokerConfig,
    environment::{self, Variable},
    layers::ConfigLayers,
    listeners::Listeners,
    properties::{self, Entry},
    registry::{broker_settings, nearest_setting},
    table::{Default, Definition, Effect},
    toml_file,
    topic::LogConfig,
};

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file, counted from 1.
    File(String, usize),
    /// An environment variable.
    Environment(String),
    /// `--set`.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path, line) => write!(f, "{path}:{line}"),
            Origin::Environment(name) => f.write_str(name),
            Origin::CommandLine => f.write_str("--set"),
        }
    }
}

/// A value from one of the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The text, which is not parsed yet.
    pub text: String,
    /// The origin of the text.
    pub origin: Origin,
}

/// The settings given at start: Kafka's static broker configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticConfigs {
    given: BTreeMap<String, Given>,
}

impl StaticConfigs {
    /// The text given for a setting.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(|given| given.text.as_str())
    }

    /// All given settings, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Given)> {
        self.given.iter().map(|(name, given)| (name.as_str(), given))
    }

    /// Makes settings for a test or a tool, without files.
    pub fn of<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> StaticConfigs {
        let given = |text: &str| Given { text: text.to_owned(), origin: Origin::CommandLine };
        StaticConfigs { given: settings.into_iter().map(|(name, text)| (name.to_owned(), given(text))).collect() }
    }
}

/// The arguments of the command line about settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// `--config`, in order. A file whose name ends in `.toml` is a config.toml, any other a server.properties.
    pub config_files: Vec<PathBuf>,
    /// `--set`, in order, each `key=value`.
    pub overrides: Vec<String>,
}

/// All settings, resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The broker's settings.
    pub broker: BrokerConfig,
    /// The settings of a topic that has none of its own.
    pub log: LogConfig,
    /// The addresses to listen on.
    pub listeners: Listeners,
    /// The given settings, for DescribeConfigs and for dynamic changes.
    pub statics: StaticConfigs,
    /// The id for a new cluster, if one is given.
    pub cluster_id: Option<String>,
    /// Notes for the operator: settings without effect, one line for each reason.
    pub notes: Vec<String>,
}

/// All problems of the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.join("\n"))]
pub struct SettingsError {
    /// One sentence per problem, with the origin before it.
    pub problems: Vec<String>,
}

/// Settings that Kafka 4 has removed, but that configuration files still often have.
const REMOVED: &[&str] = &[
    "advertised.host.name",
    "advertised.port",
    "auto.include.jmx.reporter",
    "broker.id.generation.enable",
    "control.plane.listener.name",
    "controlled.shutdown.max.retries",
    "controlled.shutdown.retry.backoff.ms",
    "delegation.token.master.key",
    "eligible.leader.replicas.enable",
    "group.coordinator.new.enable",
    "group.share.enable",
    "group.share.max.groups",
    "host.name",
    "inter.broker.protocol.version",
    "leader.imbalance.per.broker.percentage",
    "log.message.downconversion.enable",
    "log.message.format.version",
    "log.message.timestamp.difference.max.ms",
    "offsets.commit.required.acks",
    "port",
    "reserved.broker.max.id",
    "password.encoder.cipher.algorithm",
    "password.encoder.iterations",
    "password.encoder.key.length",
    "password.encoder.keyfactory.algorithm",
    "password.encoder.old.secret",
    "password.encoder.secret",
    "quota.consumer.default",
    "quota.producer.default",
    "sasl.oauthbearer.header.urlencode",
    "transaction.partition.verification.timeout.ms",
    "unstable.metadata.versions.enable",
    "zookeeper.connect",
    "zookeeper.connection.timeout.ms",
    "zookeeper.max.in.flight.requests",
    "zookeeper.metadata.migration.enable",
    "zookeeper.session.timeout.ms",
    "zookeeper.set.acl",
];

/// Prefixes of settings of plugins, of a single listener, or of ZooKeeper.
const FOREIGN_PREFIXES: &[&str] = &[
    "allow.everyone.if.no.acl.found",
    "client.quota.callback.",
    "config.providers.",
    "confluent.",
    "kafka.csv.",
    "listener.name.",
    "metrics.jmx.",
    "remote.log.metadata.",
    "rlmm.config.",
    "rsm.config.",
    "super.users",
    "zookeeper.",
];

impl Settings {
    /// Reads all sources. Without `--config`, `./config.toml` is read if it is there.
    ///
    /// # Errors
    /// All problems with their origins.
    pub fn load(
        arguments: &Arguments,
        environment: impl IntoIterator<Item = (String, String)>,
        read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Settings, SettingsError> {
        let mut gathering = Gathering::default();
        gathering.files(arguments, read_file);
        gathering.environment(environment);
        gathering.command_line(&arguments.overrides);
        gathering.finish()
    }
}

/// The settings while the sources are read.
#[derive(Default)]
struct Gathering {
    given: BTreeMap<String, Given>,
    /// Notes about variables that name no setting.
    ignored: Vec<String>,
    cluster_id: Option<String>,
    problems: Vec<String>,
}

impl Gathering {
    fn files(&mut self, arguments: &Arguments, read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>) {
        if arguments.config_files.is_empty() {
            let path = Path::new("config.toml");
            match read_file(path) {
                Ok(bytes) => self.file(path, &bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.problems.push(format!("config.toml: cannot be read: {error}")),
            }
            return;
        }
        // Properties win over TOML, regardless of their order on the command line.
        let (toml, properties): (Vec<_>, Vec<_>) = arguments.config_files.iter().partition(|path| is_toml(path));
        for path in toml.into_iter().chain(properties) {
            match read_file(path) {
                Ok(bytes) => self.file(path, &bytes),
                Err(error) => self.problems.push(format!("{}: cannot be read: {error}", path.display())),
            }
        }
    }

    fn file(&mut self, path: &Path, bytes: &[u8]) {
        let shown = path.display().to_string();
        let entries = if is_toml(path) { toml_file::parse(bytes) } else { Ok(properties::parse(bytes)) };
        match entries {
            Err((line, message)) => self.problems.push(format!("{shown}:{line}: {message}")),
            Ok(entries) => {
                for Entry { line, key, value } in entries {
                    self.give(key, value, Origin::File(shown.clone(), line));
                }
            }
        }
    }

    fn environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        let mut variables: Vec<(String, String)> = environment.into_iter().collect();
        variables.sort();
        let mut advertised = None;
        let mut has_listeners = false;
        for (name, value) in variables {
            match environment::classify(&name, &value) {
                Variable::Ignored => {}
                Variable::ClusterId if value.is_empty() => {}
                Variable::ClusterId => self.cluster_id = Some(value),
                // As in the image, an empty KAFKA_LISTENERS counts as not set.
                Variable::Setting(key) if key == "listeners" && value.is_empty() => {}
                Variable::Setting(key) => {
                    has_listeners |= key == "listeners";
                    if key == "advertised.listeners" {
                        advertised = Some((name.clone(), value.clone()));
                    }
                    self.give(key, value, Origin::Environment(name));
                }
            }
        }
        if let (Some((name, advertised)), false) = (advertised, has_listeners) {
            let derived = environment::listeners_from_advertised(&advertised);
            if !derived.is_empty() {
                self.give("listeners".to_owned(), derived, Origin::Environment(name));
            }
        }
    }

    fn command_line(&mut self, overrides: &[String]) {
        for pair in overrides {
            match pair.split_once('=') {
                Some((key, value)) => self.give(key.trim().to_owned(), value.to_owned(), Origin::CommandLine),
                None => self.problems.push(format!("--set: '{pair}' is not key=value")),
            }
        }
    }

    /// Stores a value, which replaces an earlier one. An unknown key is a problem.
    fn give(&mut self, key: String, text: String, origin: Origin) {
        if !is_known(&key) {
            let hint = match nearest_setting(&key) {
                Some(nearest) => format!("; did you mean {nearest}?"),
                None => String::new(),
            };
            let unknown = format!("{origin}: unknown setting {key}{hint}");
            // Other programs and images use KAFKA_… variables too, so an unknown one is not an error; Kafka ignores
            // them as well.
            match origin {
                Origin::Environment(_) => self.ignored.push(format!("without effect: {unknown}")),
                _ => self.problems.push(unknown),
            }
            return;
        }
        self.given.insert(key, Given { text, origin });
    }

    fn finish(mut self) -> Result<Settings, SettingsError> {
        self.check_values();
        self.join_node_and_broker_id();
        if !self.problems.is_empty() {
            return Err(SettingsError { problems: self.problems });
        }
        let mut notes = self.notes();
        notes.append(&mut self.ignored);
        let statics = StaticConfigs { given: self.given };
        let layers = ConfigLayers::of_static(&statics);
        let (broker, log) = (layers.broker_config(), layers.log_defaults());
        let mut problems = cross_checks(&broker, &log);
        let listeners = Listeners::resolve(&broker, statics.get("listener.security.protocol.map").is_some());
        let listeners = match listeners {
            Ok(listeners) if problems.is_empty() => listeners,
            Ok(_) => return Err(SettingsError { problems }),
            Err(problem) => {
                problems.push(problem);
                return Err(SettingsError { problems });
            }
        };
        Ok(Settings { broker, log, listeners, statics, cluster_id: self.cluster_id, notes })
    }

    fn check_values(&mut self) {
        for (name, given) in &self.given {
            let Some(definition) = broker_settings().get(name.as_str()) else {
                continue;
            };
            match definition.parse(&given.text) {
                Err(invalid) => self.problems.push(format!("{}: {invalid}", given.origin)),
                Ok(value) => {
                    let refused = matches!(definition.effect, Effect::Refused(_));
                    if refused && !is_default(definition, &value.to_string()) {
                        let Effect::Refused(reason) = definition.effect else {
                            continue;
                        };
                        self.problems.push(format!("{}: {name}={} is refused: {reason}", given.origin, given.text));
                    }
                }
            }
        }
    }

    /// `node.id` and `broker.id` are two names of one setting (`AbstractKafkaConfig.populateSynonyms`).
    fn join_node_and_broker_id(&mut self) {
        match (self.given.get("node.id").cloned(), self.given.get("broker.id").cloned()) {
            (Some(node), None) => drop(self.given.insert("broker.id".to_owned(), node)),
            (None, Some(broker)) => drop(self.given.insert("node.id".to_owned(), broker)),
            (Some(node), Some(broker)) if node.text.trim() != broker.text.trim() => {
                let place = broker.origin;
                self.problems.push(format!("{place}: You must set `node.id` to the same value as `broker.id`."));
            }
            _ => {}
        }
    }

    /// Returns one line for each reason why given settings have no effect.
    fn notes(&self) -> Vec<String> {
        let mut by_reason: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, given) in &self.given {
            let reason = match broker_settings().get(name.as_str()) {
                Some(definition) => match definition.effect {
                    Effect::None(_) if name == "broker.id" || is_default(definition, given.text.trim()) => {
                        continue;
                    }
                    Effect::None(reason) => reason,
                    _ => continue,
                },
                None if REMOVED.contains(&name.as_str()) => "Kafka 4 has removed it",
                None if name.starts_with("listener.name.") => "settings of a single listener are not served yet",
                None => "it belongs to a Java plugin",
            };
            by_reason.entry(reason).or_default().insert(name);
        }
        by_reason
            .into_iter()
            .map(|(reason, names)| {
                let names: Vec<&str> = names.into_iter().collect();
                format!("without effect: {} ({reason})", names.join(", "))
            })
            .collect()
    }
}

fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"))
}

fn is_known(key: &str) -> bool {
    broker_settings().contains_key(key)
        || REMOVED.contains(&key)
        || FOREIGN_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

fn is_default(definition: &Definition, printed: &str) -> bool {
    match definition.default {
        Default::Null => printed.is_empty(),
        Default::Text(text) => text == printed,
    }
}

/// Checks the conditions between settings at the start.
fn cross_checks(broker: &BrokerConfig, log: &LogConfig) -> Vec<String> {
    let mut problems = requirements(broker, log);
    if log.min_compaction_lag_ms > log.max_compaction_lag_ms {
        problems.push(
            "log.cleaner.min.compaction.lag.ms must not be greater than log.cleaner.max.compaction.lag.ms".to_owned(),
        );
    }
    problems.extend(broker.connection_overrides().err());
    problems.extend(broker.http_listener().err());
    if broker.metadata_dir().as_os_str().is_empty() {
        problems.push("metadata.log.dir must not be empty".to_owned());
    }
    problems
}

/// Checks the conditions between settings that must always hold (`KafkaConfig.validateValues`).
pub(super) fn requirements(broker: &BrokerConfig, log: &LogConfig) -> Vec<String> {
    let requirements = [
        (log.segment_ms >= 1, "log.roll.ms must be greater than or equal to 1"),
        (log.segment_jitter_ms >= 0, "log.roll.jitter.ms must be greater than or equal to 0"),
        (
            log.retention_ms >= 1 || log.retention_ms == -1,
            "log.retention.ms must be unlimited (-1) or, greater than or equal to 1",
        ),
        (
            broker.queued_max_request_bytes <= 0
                || broker.queued_max_request_bytes >= i64::from(broker.socket_request_max_bytes),
            "queued.max.request.bytes must be larger or equal to socket.request.max.bytes",
        ),
        (
            broker.max_connections_per_ip > 0 || !broker.max_connections_per_ip_overrides.is_empty(),
            "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is set.",
        ),
    ];
    requirements.iter().filter(|(holds, _)| !holds).map(|(_, problem)| (*problem).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads settings from files that are given as texts.
    fn load(
        files: &[(&str, &str)],
        config_files: &[&str],
        environment: &[(&str, &str)],
        overrides: &[&str],
    ) -> Result<Settings, SettingsError> {
        let arguments = Arguments {
            config_files: config_files.iter().map(PathBuf::from).collect(),
            overrides: overrides.iter().map(|pair| (*pair).to_owned()).collect(),
        };
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::load(&arguments, environment, &|path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    fn problems(result: Result<Settings, SettingsError>) -> Vec<String> {
        result.expect_err("the load must fail").problems
    }

    #[test]
    fn nothing_has_to_be_set() {
        let settings = load(&[], &[], &[], &[]).expect("the defaults");
        assert_eq!(settings.broker, BrokerConfig::default());
        assert_eq!(settings.log, LogConfig::default());
        assert!(settings.notes.is_empty(), "{:?}", settings.notes);
        assert_eq!(settings.cluster_id, None);
    }

    #[test]
    fn later_sources_win_and_each_value_keeps_its_origin() {
        let files = [
            ("a.toml", "num.partitions = 1\nnum.io.threads = 1\n[log]\nroll.ms = 1\n"),
            ("b.properties", "num.partitions=2\nlog.roll.ms=2\nlog.dirs=/b\n"),
        ];
        let environment = [("KAFKA_LOG_ROLL_MS", "3"), ("KAFKA_LOG_DIRS", "/c"), ("CLUSTER_ID", "abc")];
        let settings =
            load(&files, &["b.properties", "a.toml"], &environment, &["log.dirs=/d"]).expect("all sources are valid");
        let given = |name: &str| {
            let (_, given) = settings.statics.iter().find(|(given, _)| *given == name).expect(name);
            (given.text.clone(), given.origin.to_string())
        };
        assert_eq!(given("num.io.threads"), ("1".into(), "a.toml:2".into()));
        assert_eq!(given("num.partitions"), ("2".into(), "b.properties:1".into()));
        assert_eq!(given("log.roll.ms"), ("3".into(), "KAFKA_LOG_ROLL_MS".into()));
        assert_eq!(given("log.dirs"), ("/d".into(), "--set".into()));
        assert_eq!(settings.broker.num_partitions, 2);
        assert_eq!(settings.log.segment_ms, 3);
        assert_eq!(settings.broker.data_dirs(), [Path::new("/d")]);
        assert_eq!(settings.cluster_id.as_deref(), Some("abc"));
    }

    #[test]
    fn config_toml_beside_us_is_read_only_without_config_files() {
        let files = [("config.toml", "num.partitions = 7"), ("other.toml", "node.id = 5")];
        assert_eq!(load(&files, &[], &[], &[]).expect("the settings are valid").broker.num_partitions, 7);
        let other = load(&files, &["other.toml"], &[], &[]).expect("the settings are valid");
        assert_eq!((other.broker.num_partitions, other.broker.node_id), (1, 5));
        assert_eq!(other.statics.get("broker.id"), Some("5"));
        assert!(problems(load(&[], &["missing.toml"], &[], &[]))[0].starts_with("missing.toml: cannot be read"));
    }

    #[test]
    fn every_problem_is_told_at_once_with_its_place() {
        let files = [
            ("a.toml", "num.partition = 1\nlog.roll.ms = \"soon\"\n"),
            ("s.properties", "# listeners\n\nnode.ide=1\n"),
        ];
        let environment = [("KAFKA_NUM_PARTITIONS", "0")];
        assert_eq!(
            problems(load(&files, &["a.toml", "s.properties"], &environment, &["broken", "retention.ms=1"])),
            [
                "a.toml:1: unknown setting num.partition; did you mean num.partitions?",
                "s.properties:3: unknown setting node.ide; did you mean node.id?",
                "--set: 'broken' is not key=value",
                "--set: unknown setting retention.ms; did you mean log.retention.ms?",
                "a.toml:2: Invalid value soon for configuration log.roll.ms: Not a number of type LONG",
                "KAFKA_NUM_PARTITIONS: Invalid value 0 for configuration num.partitions: Value must be at least 1",
            ]
        );
        assert_eq!(problems(load(&[("a.toml", "a = = 1")], &["a.toml"], &[], &[])).len(), 1);
    }

    #[test]
    fn what_has_no_effect_is_accepted_with_one_line_for_each_reason() {
        let settings = load(
            &[],
            &[],
            &[],
            &[
                "num.io.threads=16",
                "num.network.threads=8",
                "background.threads=10",
                "ssl.keystore.location=/k",
                "zookeeper.connect=z:2181",
                "listener.name.a.max.connections=1",
                "super.users=User:a",
            ],
        )
        .expect("all settings are known");
        assert_eq!(
            settings.notes,
            [
                "without effect: zookeeper.connect (Kafka 4 has removed it)",
                "without effect: ssl.keystore.location (TLS is not served yet, every listener is PLAINTEXT)",
                "without effect: super.users (it belongs to a Java plugin)",
                "without effect: listener.name.a.max.connections (settings of a single listener are not served yet)",
                "without effect: num.io.threads, num.network.threads (the runtime has one worker per core and no request queue)",
            ]
        );
    }

    #[test]
    fn what_would_mislead_when_ignored_is_refused() {
        for pair in [
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "create.topic.policy.class.name=a.B",
            "remote.log.storage.system.enable=true",
            "listeners=SSL://:9093",
            "security.inter.broker.protocol=SASL_SSL",
            "process.roles=broker",
            "controller.quorum.voters=1@a:9093,2@b:9093,3@c:9093",
            "log.retention.ms=0",
            "queued.max.request.bytes=1",
            "max.connections.per.ip.overrides=1.2.3.4",
        ] {
            assert_eq!(problems(load(&[], &[], &[], &[pair])).len(), 1, "{pair}");
        }
        assert!(load(&[], &[], &[], &["authorizer.class.name="]).is_ok());
        assert_eq!(problems(load(&[], &[], &[], &["node.id=1", "broker.id=2"])).len(), 1);
    }

    #[test]
    fn the_environment_of_testcontainers_starts_a_node() {
        let settings = load(
            &[],
            &[],
            &[
                ("CLUSTER_ID", "4L6g3nShT-eMCtK--X86sw"),
                ("KAFKA_LISTENERS", "PLAINTEXT://0.0.0.0:9092,BROKER://0.0.0.0:9093,CONTROLLER://0.0.0.0:9094"),
                ("KAFKA_ADVERTISED_LISTENERS", "PLAINTEXT://localhost:32768,BROKER://3c1a5e:9093"),
                ("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "BROKER:PLAINTEXT,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"),
                ("KAFKA_INTER_BROKER_LISTENER_NAME", "BROKER"),
                ("KAFKA_PROCESS_ROLES", "broker,controller"),
                ("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER"),
                ("KAFKA_NODE_ID", "1"),
                ("KAFKA_CONTROLLER_QUORUM_VOTERS", "1@localhost:9094"),
                ("KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "1"),
                ("KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS", "1"),
                ("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1"),
                ("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1"),
                ("KAFKA_LOG_FLUSH_INTERVAL_MESSAGES", "9223372036854775807"),
                ("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0"),
                ("KAFKA_HEAP_OPTS", "-Xmx1G"),
            ],
            &[],
        )
        .expect("testcontainers starts such a node");
        assert_eq!(settings.listeners.all.len(), 3);
        assert_eq!(settings.listeners.inter_broker, "BROKER");
        let told: Vec<_> = settings.listeners.all.iter().map(|listener| listener.advertised.clone()).collect();
        assert_eq!(told[0], Some(super::super::Endpoint { host: "localhost".into(), port: 32768 }));
        assert_eq!(told[2], None);
        assert!(settings.listeners.all[2].is_controller);
        assert_eq!(settings.broker.group_initial_rebalance_delay_ms, 0);
    }

    #[test]
    fn advertised_listeners_alone_are_listened_on_at_every_interface() {
        let environment = [("KAFKA_ADVERTISED_LISTENERS", "PLAINTEXT://broker:19092"), ("KAFKA_LISTENERS", "")];
        let listeners = load(&[], &[], &environment, &[]).expect("as the image does").listeners;
        assert_eq!((listeners.all[0].host.as_deref(), listeners.all[0].port), (Some("0.0.0.0"), 19092));
    }

    /// The settings in `config/server.properties` of Apache Kafka 4.3.1.
    const SHIPPED: &str = "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
";

    fn of_properties(text: &str, environment: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let arguments = Arguments { config_files: vec!["server.properties".into()], ..Arguments::default() };
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::load(&arguments, environment, &|_| Ok(text.as_bytes().to_vec()))
    }

    #[test]
    fn the_file_that_kafka_comes_with_is_taken_as_it_is() {
        let settings = of_properties(SHIPPED, &[]).unwrap();
        assert_eq!(settings.broker.data_dirs(), [PathBuf::from("/tmp/kraft-combined-logs")]);
        assert_eq!(settings.listeners.for_clients().map(|listener| listener.port).collect::<Vec<_>>(), [9092]);
        assert!(settings.listeners.quorum.is_alone());
        let several = SHIPPED.replace("localhost:9093\nlisteners", "a:9093,b:9093\nlisteners");
        assert!(!of_properties(&several, &[]).unwrap().listeners.quorum.is_alone());
    }

    #[test]
    fn variables_of_other_programs_are_passed_over_and_mistakes_in_files_are_not() {
        let settings = of_properties(SHIPPED, &[("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")]).unwrap();
        assert!(settings.notes.iter().any(|note| note.contains("KAFKA_BOOTSTRAP_SERVERS")), "{:?}", settings.notes);
        assert!(of_properties("bootstrap.servers=localhost:9092", &[]).is_err());
        assert!(of_properties("zookeeper.sync.time.ms=1\nquota.producer.default=1\n", &[]).is_ok());
    }

    #[test]
    fn the_metadata_log_is_in_the_first_log_directory_or_in_any_other_directory() {
        let dir = |dir: &str| of_properties(&format!("log.dirs=/a,/b\nmetadata.log.dir={dir}\n"), &[]);
        assert_eq!(dir("/b").unwrap().broker.metadata_dir(), PathBuf::from("/b"));
        assert_eq!(dir("/c").unwrap().broker.metadata_dir(), PathBuf::from("/c"));
        assert_eq!(of_properties("log.dirs=/a,/b\n", &[]).unwrap().broker.metadata_dir(), PathBuf::from("/a"));
        assert!(dir("").is_err());
    }
}
