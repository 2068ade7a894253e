//! Checks changes of dynamic settings for CreateTopics, AlterConfigs and IncrementalAlterConfigs, with Kafka's messages
//! (`LogConfig.validate`, `DynamicBrokerConfig`, `GroupConfig`, `ClientMetricsConfigs`).
//!
//! The functions are pure. Leaves permissions, the existence of the resource and the records to the controller.

use std::collections::BTreeSet;

use super::{
    broker::BrokerConfig,
    layers::{ConfigLayers, Configs, base_name},
    registry::{
        broker_setting, broker_settings, client_metrics_settings, dynamic_only_settings, group_settings,
        topic_settings, topic_settings_in_order,
    },
    sources,
    table::UpdateMode,
    value::{InvalidValue, Value, split_list},
};

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// INVALID_CONFIG (40).
    #[error("{0}")]
    InvalidConfig(String),
    /// INVALID_REQUEST (42).
    #[error("{0}")]
    InvalidRequest(String),
}

impl From<InvalidValue> for Refusal {
    fn from(invalid: InvalidValue) -> Self {
        Refusal::InvalidConfig(invalid.message)
    }
}

/// The brokers to which a dynamic broker setting applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerScope {
    /// All brokers: the resource named "".
    Cluster,
    /// Only this broker.
    ThisBroker,
}

/// Checks all own settings that a topic would have.
///
/// # Errors
/// INVALID_CONFIG for an unknown name, an invalid value, or values that contradict each other.
pub fn validate_topic_configs(layers: &ConfigLayers<'_>, topic: &Configs) -> Result<(), Refusal> {
    if let Some(unknown) = topic.keys().find(|name| !topic_settings().contains_key(name.as_str())) {
        return Err(Refusal::InvalidConfig(format!("Unknown topic config name: {unknown}")));
    }
    for row in topic_settings_in_order() {
        if let Some(text) = topic.get(row.name) {
            row.parse(text)?;
        }
    }
    let log = layers.log_config(topic);
    if log.min_compaction_lag_ms > log.max_compaction_lag_ms {
        return Err(Refusal::InvalidConfig(format!(
            "conflict topic config setting min.compaction.lag.ms ({}) > max.compaction.lag.ms ({})",
            log.min_compaction_lag_ms, log.max_compaction_lag_ms
        )));
    }
    if topic.get("remote.storage.enable").is_some_and(|text| text.trim().eq_ignore_ascii_case("true")) {
        return Err(Refusal::InvalidConfig(
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
                .to_owned(),
        ));
    }
    Ok(())
}

/// Checks all own settings that a group would have.
///
/// # Errors
/// INVALID_CONFIG, as for topics. The limits are the broker's `group.*.min.*` and `group.*.max.*`.
pub fn validate_group_configs(layers: &ConfigLayers<'_>, group: &Configs) -> Result<(), Refusal> {
    if let Some(unknown) = group.keys().find(|name| !group_settings().contains_key(name.as_str())) {
        return Err(Refusal::InvalidConfig(format!("Unknown group config name: {unknown}")));
    }
    for (name, text) in group {
        group_settings()[name.as_str()].parse(text)?;
    }
    let broker = |name: &str| layers.broker_number(name);
    let effective = |name: &str| match group.get(name).map(|text| group_settings()[name].parse(text)) {
        Some(Ok(Value::Int(number))) => Some(i64::from(number)),
        _ => group_settings()[name].synonyms.first().and_then(|synonym| broker(synonym.name)),
    };
    for name in BOUNDED_GROUP_SETTINGS {
        // The default of the assignment interval is dynamic, so Kafka checks it only if the group has its own value.
        if name.ends_with("assignment.interval.ms") && !group.contains_key(*name) {
            continue;
        }
        let Some((kind, setting)) = name.split_once('.') else { continue };
        let bound = |which: &str| match (*name, which) {
            ("streams.num.standby.replicas", "max") => Some("group.streams.max.standby.replicas".to_owned()),
            ("streams.num.standby.replicas", _) => None,
            _ => Some(format!("group.{kind}.{which}.{setting}")),
        };
        let value = effective(name);
        if let Some(min) = bound("min").filter(|min| value < broker(min)) {
            return Err(Refusal::InvalidConfig(format!("{name} must be greater than or equal to {min}")));
        }
        if let Some(max) = bound("max").filter(|max| value > broker(max)) {
            return Err(Refusal::InvalidConfig(format!("{name} must be less than or equal to {max}")));
        }
    }
    for kind in ["consumer", "share", "streams"] {
        let (session, heartbeat) = (format!("{kind}.session.timeout.ms"), format!("{kind}.heartbeat.interval.ms"));
        if effective(&session) <= effective(&heartbeat) {
            return Err(Refusal::InvalidConfig(format!("{session} must be greater than {heartbeat}")));
        }
    }
    Ok(())
}

/// The group settings that the broker limits, in the order in which Kafka checks them.
const BOUNDED_GROUP_SETTINGS: &[&str] = &[
    "consumer.heartbeat.interval.ms",
    "consumer.session.timeout.ms",
    "consumer.assignment.interval.ms",
    "share.heartbeat.interval.ms",
    "share.session.timeout.ms",
    "share.record.lock.duration.ms",
    "share.delivery.count.limit",
    "share.partition.max.record.locks",
    "share.assignment.interval.ms",
    "streams.heartbeat.interval.ms",
    "streams.session.timeout.ms",
    "streams.num.standby.replicas",
    "streams.assignment.interval.ms",
];

/// Checks all the settings that a client metrics subscription would have (KIP-714).
///
/// # Errors
/// INVALID_REQUEST for an unknown name or an interval out of bounds, INVALID_CONFIG for other values.
pub fn validate_client_metrics_configs(subscription: &str, configs: &Configs) -> Result<(), Refusal> {
    const SELECTORS: [&str; 6] = [
        "client_instance_id",
        "client_id",
        "client_software_name",
        "client_software_version",
        "client_source_address",
        "client_source_port",
    ];
    if subscription.is_empty() {
        return Err(Refusal::InvalidRequest("Subscription name can't be empty".to_owned()));
    }
    if let Some(unknown) = configs.keys().find(|name| !client_metrics_settings().contains_key(name.as_str())) {
        return Err(Refusal::InvalidRequest(format!("Unknown client metrics configuration: {unknown}")));
    }
    for (name, text) in configs {
        match client_metrics_settings()[name.as_str()].parse(text)? {
            Value::Int(interval) if !(100..=3_600_000).contains(&interval) => {
                return Err(Refusal::InvalidRequest(format!(
                    "Invalid value {interval} for interval.ms, interval must be between 100 and 3600000 (1 hour)"
                )));
            }
            Value::List(patterns) if name == "match" => {
                for pattern in patterns {
                    let parts: Vec<&str> = pattern.split('=').collect();
                    let is_legal = matches!(parts[..], [selector, value]
                        if SELECTORS.contains(&selector.trim()) && !value.is_empty() && is_balanced(value));
                    if !is_legal {
                        return Err(Refusal::InvalidConfig(format!("Illegal client matching pattern: {pattern}")));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether all brackets of a regular expression are closed. In practice Java refuses a pattern only if they are not.
fn is_balanced(pattern: &str) -> bool {
    let (mut open, mut in_class, mut escaped) = (0_i32, false, false);
    for c in pattern.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' if in_class => in_class = false,
            _ if in_class => {}
            '[' => in_class = true,
            '(' => open += 1,
            ')' => open -= 1,
            _ => {}
        }
        if open < 0 {
            return false;
        }
    }
    open == 0 && !in_class && !escaped && !pattern.starts_with(['*', '+', '?'])
}

/// Checks all the dynamic settings that this broker, or all brokers, would have. `layers` are the current ones.
///
/// # Errors
/// INVALID_REQUEST even for an invalid value, as in Kafka (KAFKA-13609).
pub fn validate_broker_configs(
    layers: &ConfigLayers<'_>,
    scope: BrokerScope,
    proposed: &Configs,
) -> Result<(), Refusal> {
    check_broker_change(layers, scope, proposed).map_err(Refusal::InvalidRequest)
}

fn check_broker_change(layers: &ConfigLayers<'_>, scope: BrokerScope, proposed: &Configs) -> Result<(), String> {
    let names = |holds: &dyn Fn(&str) -> bool| {
        let names: BTreeSet<&str> = proposed.keys().map(String::as_str).filter(|name| holds(name)).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    };
    let refuse = |names: String, why: &str| if names.is_empty() { Ok(()) } else { Err(format!("{why}: [{names}]")) };
    let is_static = |name: &str| broker_settings().get(name).is_some_and(|row| row.update == UpdateMode::ReadOnly);
    refuse(names(&is_static), "Cannot update these configs dynamically")?;
    refuse(
        names(&|name| is_reloadable_tls(name)),
        "These security configs can be dynamically updated only per-listener using the listener prefix",
    )?;
    for (name, text) in proposed {
        if let Some(row) = broker_setting(base_name(name)).filter(|row| row.update != UpdateMode::ReadOnly) {
            row.parse(text).map_err(|invalid| invalid.message)?;
        }
    }
    if scope == BrokerScope::Cluster {
        refuse(
            names(&is_for_one_broker),
            "Cannot update these configs at default cluster level, broker id must be specified",
        )?;
    }
    let changed = match scope {
        BrokerScope::Cluster => layers.with_cluster(proposed),
        BrokerScope::ThisBroker => layers.with_broker(proposed),
    };
    check_together(&changed)?;
    check_against_running(layers, &changed).map_err(|problem| {
        // Kafka wraps the exceptions of its reconfigurable parts in exactly this form.
        format!(
            "Invalid value org.apache.kafka.common.config.ConfigException: {problem} for configuration \
             Invalid dynamic configuration"
        )
    })
}

/// The settings of TLS stores, which can change only for a single listener (`SslConfigs.RECONFIGURABLE_CONFIGS`).
fn is_reloadable_tls(name: &str) -> bool {
    const STORES: [&str; 10] = [
        "ssl.keystore.type",
        "ssl.keystore.location",
        "ssl.keystore.password",
        "ssl.keystore.key",
        "ssl.keystore.certificate.chain",
        "ssl.key.password",
        "ssl.truststore.type",
        "ssl.truststore.location",
        "ssl.truststore.password",
        "ssl.truststore.certificates",
    ];
    STORES.contains(&name)
}

fn is_for_one_broker(name: &str) -> bool {
    if dynamic_only_settings().contains_key(name) {
        return false;
    }
    let base = base_name(name);
    if base != name {
        return !matches!(base, "max.connections" | "max.connection.creation.rate" | "num.network.threads");
    }
    broker_setting(name).is_some_and(|row| row.update == UpdateMode::PerBroker)
}

/// Checks the conditions between the values (`KafkaConfig.validateValues`).
fn check_together(changed: &ConfigLayers<'_>) -> Result<(), String> {
    let broker = changed.broker_config();
    let problems = sources::requirements(&broker, &changed.log_defaults());
    if let Some(problem) = problems.into_iter().next() {
        return Err(format!("requirement failed: {problem}"));
    }
    broker.connection_overrides()?;
    let threads = changed.broker_number("log.cleaner.threads").unwrap_or(1).max(1);
    if changed.broker_number("log.cleaner.dedupe.buffer.size").unwrap_or(i64::MAX) / threads <= 1024 * 1024 {
        return Err(
            "requirement failed: log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.".to_owned()
        );
    }
    check_cordoned(changed, &broker)
}

fn check_cordoned(changed: &ConfigLayers<'_>, broker: &BrokerConfig) -> Result<(), String> {
    let cordoned = split_list(&changed.broker_text("cordoned.log.dirs").unwrap_or_default());
    let dirs = broker.log_dirs.as_ref().unwrap_or(&broker.log_dir);
    if cordoned.iter().any(|dir| dir == "*") {
        if cordoned.len() == 1 {
            return Ok(());
        }
        return Err(
            "requirement failed: When cordoned.log.dirs is set to *, it must not contain other values".to_owned()
        );
    }
    let missing: Vec<&str> = cordoned.iter().filter(|dir| !dirs.contains(dir)).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "requirement failed: All entries in cordoned.log.dirs must be present in log.dirs or log.dir. Missing entries : {}",
        missing.join(", ")
    ))
}

/// Checks the limits of the parts of a running broker (their `validateReconfiguration`).
fn check_against_running(layers: &ConfigLayers<'_>, changed: &ConfigLayers<'_>) -> Result<(), String> {
    const POOLS: [&str; 5] = [
        "num.network.threads",
        "num.io.threads",
        "num.replica.fetchers",
        "num.recovery.threads.per.data.dir",
        "background.threads",
    ];
    let number = |layers: &ConfigLayers<'_>, name: &str| layers.broker_number(name).unwrap_or_default();
    for name in POOLS {
        let (old, new) = (number(layers, name), number(changed, name));
        let problem = format!("Dynamic thread count update validation failed for {name}={new}");
        if new < old / 2 {
            return Err(format!("{problem}, value should be at least half the current value {old}"));
        }
        if new > old * 2 {
            return Err(format!("{problem}, value should not be greater than double the current value {old}"));
        }
    }
    let (old, new) = (number(layers, "log.cleaner.threads"), number(changed, "log.cleaner.threads"));
    if new < 1 {
        return Err("Log cleaner threads should be at least 1".to_owned());
    }
    if new < old / 2 {
        return Err(format!("Log cleaner threads cannot be reduced to less than half the current value {old}"));
    }
    if new > old * 2 {
        return Err(format!("Log cleaner threads cannot be increased to more than double the current value {old}"));
    }
    for name in ["max.connections", "max.connection.creation.rate"] {
        let value = number(changed, name);
        if value <= 0 {
            return Err(format!("Invalid {name} {value}"));
        }
    }
    let log = changed.log_defaults();
    check_local_retention(changed, "log.local.retention.ms", "log.retention.ms", log.retention_ms)?;
    check_local_retention(changed, "log.local.retention.bytes", "log.retention.bytes", log.retention_bytes)?;
    let reporters = |layers: &ConfigLayers<'_>| layers.broker_text("metric.reporters");
    if reporters(layers) != reporters(changed) {
        return Err("Validation of dynamic config update of Set(metric.reporters) failed with class \
                    class kafka.server.DynamicMetricsReporters"
            .to_owned());
    }
    for name in ["listeners", "listener.security.protocol.map"] {
        if layers.broker_text(name) != changed.broker_text(name) {
            return Err(format!("{name} cannot change while the broker runs, restart it with the new value"));
        }
    }
    Ok(())
}

fn check_local_retention(changed: &ConfigLayers<'_>, local: &str, total: &str, retention: i64) -> Result<(), String> {
    let value = changed.broker_number(local).unwrap_or(-2);
    if retention == -1 || value == -2 {
        return Ok(());
    }
    let problem = format!("Invalid value {value} for configuration {local}: Value must not be");
    if value == -1 {
        return Err(format!("{problem} -1 as {total} value is set as {retention}."));
    }
    if value > retention {
        return Err(format!("{problem} more than {total} property value: {retention}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StaticConfigs;

    fn configs(settings: &[(&str, &str)]) -> Configs {
        settings.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn with_layers<T>(check: impl FnOnce(&ConfigLayers<'_>) -> T) -> T {
        let statics = StaticConfigs::of([("log.retention.hours", "100"), ("log.dirs", "/data")]);
        check(&ConfigLayers::of_static(&statics))
    }

    fn topic(settings: &[(&str, &str)]) -> Result<(), Refusal> {
        with_layers(|layers| validate_topic_configs(layers, &configs(settings)))
    }

    fn broker(scope: BrokerScope, settings: &[(&str, &str)]) -> Result<(), Refusal> {
        with_layers(|layers| validate_broker_configs(layers, scope, &configs(settings)))
    }

    fn group(settings: &[(&str, &str)]) -> Result<(), Refusal> {
        with_layers(|layers| validate_group_configs(layers, &configs(settings)))
    }

    // The messages in the tests below are those of Apache Kafka 4.3.1 for the same requests.

    #[test]
    fn a1_a6_topic_settings_are_refused_in_kafkas_words() {
        let refused = |settings: &[(&str, &str)], message: &str| {
            assert_eq!(topic(settings), Err(Refusal::InvalidConfig(message.to_owned())), "{settings:?}");
        };
        refused(&[("foo.bar", "1")], "Unknown topic config name: foo.bar");
        refused(
            &[("retention.ms", "abc")],
            "Invalid value abc for configuration retention.ms: Not a number of type LONG",
        );
        refused(&[("retention.ms", "")], "Invalid value  for configuration retention.ms: Not a number of type LONG");
        refused(
            &[("cleanup.policy", "nonsense")],
            "Invalid value nonsense for configuration cleanup.policy: String must be one of: compact, delete",
        );
        refused(
            &[("min.insync.replicas", "0")],
            "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1",
        );
        refused(
            &[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")],
            "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)",
        );
        refused(
            &[("remote.storage.enable", "true")],
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
        );
        // The first error in Kafka's own order, not in alphabetical order.
        refused(
            &[("retention.ms", "abc"), ("segment.bytes", "abc")],
            "Invalid value abc for configuration segment.bytes: Not a number of type INT",
        );
        for good in [("cleanup.policy", ""), ("cleanup.policy", "compact,compact"), ("internal.segment.bytes", "100")] {
            assert_eq!(topic(&[good]), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn a6_broker_settings_change_only_where_and_as_kafkas_do() {
        use BrokerScope::{Cluster, ThisBroker};
        let refused = |scope, settings: &[(&str, &str)], message: &str| {
            assert_eq!(broker(scope, settings), Err(Refusal::InvalidRequest(message.to_owned())), "{settings:?}");
        };
        refused(ThisBroker, &[("log.dirs", "/x")], "Cannot update these configs dynamically: [log.dirs]");
        refused(
            ThisBroker,
            &[("ssl.keystore.location", "x")],
            "These security configs can be dynamically updated only per-listener using the listener prefix: \
             [ssl.keystore.location]",
        );
        refused(
            ThisBroker,
            &[("log.retention.ms", "abc")],
            "Invalid value abc for configuration log.retention.ms: Not a number of type LONG",
        );
        for name in ["listeners", "cordoned.log.dirs", "listener.name.plaintext.ssl.keystore.location"] {
            let message =
                format!("Cannot update these configs at default cluster level, broker id must be specified: [{name}]");
            refused(Cluster, &[(name, "PLAINTEXT://:1")], &message);
        }
        refused(
            Cluster,
            &[("log.retention.ms", "0")],
            "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1",
        );
        refused(
            ThisBroker,
            &[("cordoned.log.dirs", "/x")],
            "requirement failed: All entries in cordoned.log.dirs must be present in log.dirs or log.dir. \
             Missing entries : /x",
        );
        refused(
            Cluster,
            &[("log.cleaner.dedupe.buffer.size", "1")],
            "requirement failed: log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.",
        );
        refused(
            Cluster,
            &[("leader.replication.throttled.rate", "-1")],
            "Invalid value -1 for configuration leader.replication.throttled.rate: Value must be at least 0",
        );
        let good: [(_, &[(&str, &str)]); 9] = [
            (ThisBroker, &[("foo.bar", "abc")]),
            (Cluster, &[("log.retention.ms", "-5")]),
            (Cluster, &[("num.io.threads", "16")]),
            (Cluster, &[("message.max.bytes", "2000000")]),
            (Cluster, &[("log.cleaner.min.compaction.lag.ms", "10"), ("log.cleaner.max.compaction.lag.ms", "5")]),
            (Cluster, &[("listener.name.plaintext.max.connections", "5")]),
            (Cluster, &[("transaction.partition.verification.enable", "false")]),
            (ThisBroker, &[("cordoned.log.dirs", "*")]),
            (ThisBroker, &[("listeners", "PLAINTEXT://127.0.0.1:9092")]),
        ];
        for (scope, settings) in good {
            assert_eq!(broker(scope, settings), Ok(()), "{settings:?}");
        }
    }

    #[test]
    fn a6_what_a_running_part_refuses_is_wrapped_as_kafka_wraps_it() {
        let wrapped = |settings: &[(&str, &str)], message: &str| {
            let message = format!(
                "Invalid value org.apache.kafka.common.config.ConfigException: {message} for configuration \
                 Invalid dynamic configuration"
            );
            assert_eq!(broker(BrokerScope::Cluster, settings), Err(Refusal::InvalidRequest(message)), "{settings:?}");
        };
        wrapped(
            &[("num.io.threads", "100")],
            "Dynamic thread count update validation failed for num.io.threads=100, value should not be greater than \
             double the current value 8",
        );
        wrapped(
            &[("background.threads", "1")],
            "Dynamic thread count update validation failed for background.threads=1, value should be at least half the \
             current value 10",
        );
        wrapped(
            &[("log.cleaner.threads", "10")],
            "Log cleaner threads cannot be increased to more than double the current value 1",
        );
        wrapped(&[("max.connections", "0")], "Invalid max.connections 0");
        wrapped(
            &[("log.local.retention.ms", "999999999999")],
            "Invalid value 999999999999 for configuration log.local.retention.ms: Value must not be more than \
             log.retention.ms property value: 360000000",
        );
        wrapped(
            &[("metric.reporters", "a.B")],
            "Validation of dynamic config update of Set(metric.reporters) failed with class class \
             kafka.server.DynamicMetricsReporters",
        );
    }

    #[test]
    fn a6_group_settings_stay_within_the_brokers_bounds() {
        let refused = |settings: &[(&str, &str)], message: &str| {
            assert_eq!(group(settings), Err(Refusal::InvalidConfig(message.to_owned())), "{settings:?}");
        };
        refused(&[("foo", "1")], "Unknown group config name: foo");
        refused(
            &[("consumer.session.timeout.ms", "1")],
            "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms",
        );
        refused(
            &[("consumer.session.timeout.ms", "x")],
            "Invalid value x for configuration consumer.session.timeout.ms: Not a number of type INT",
        );
        refused(
            &[("consumer.heartbeat.interval.ms", "20000")],
            "consumer.heartbeat.interval.ms must be less than or equal to group.consumer.max.heartbeat.interval.ms",
        );
        refused(
            &[("share.record.lock.duration.ms", "99999")],
            "share.record.lock.duration.ms must be less than or equal to group.share.max.record.lock.duration.ms",
        );
        refused(
            &[("streams.num.standby.replicas", "9")],
            "streams.num.standby.replicas must be less than or equal to group.streams.max.standby.replicas",
        );
        assert_eq!(group(&[("consumer.session.timeout.ms", "50000")]), Ok(()));
        assert_eq!(group(&[]), Ok(()));
    }

    #[test]
    fn a6_client_metrics_are_refused_in_kafkas_words() {
        let check = |name: &str, settings: &[(&str, &str)]| validate_client_metrics_configs(name, &configs(settings));
        let request = |message: &str| Err(Refusal::InvalidRequest(message.to_owned()));
        let config = |message: &str| Err(Refusal::InvalidConfig(message.to_owned()));
        assert_eq!(check("c", &[("foo", "1")]), request("Unknown client metrics configuration: foo"));
        assert_eq!(check("", &[("interval.ms", "1000")]), request("Subscription name can't be empty"));
        assert_eq!(
            check("c", &[("interval.ms", "1")]),
            request("Invalid value 1 for interval.ms, interval must be between 100 and 3600000 (1 hour)")
        );
        assert_eq!(
            check("c", &[("interval.ms", "x")]),
            config("Invalid value x for configuration interval.ms: Not a number of type INT")
        );
        for pattern in ["a", "client_id=(", "who=me"] {
            assert_eq!(
                check("c", &[("match", pattern)]),
                config(&format!("Illegal client matching pattern: {pattern}"))
            );
        }
        assert_eq!(check("c", &[("match", "client_id=a.*,client_software_name=b"), ("metrics", "*")]), Ok(()));
    }
}
