//! Finds the effective value of a setting. The first of these wins: the topic's own value, the broker's dynamic value,
//! the cluster's dynamic value, the static value, the default. Each has a source and synonyms, as in the response to
//! DescribeConfigs.
//!
//! The functions are pure: the dynamic values come from the caller's metadata image. The rules are those of Kafka's
//! `DynamicBrokerConfig` and `ConfigHelper`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use super::{
    broker::BrokerConfig,
    registry::{broker_setting, broker_settings, client_metrics_settings, group_settings, topic_settings},
    sources::StaticConfigs,
    table::{Default, Definition, UpdateMode},
    topic::LogConfig,
    value::{ConfigType, Value},
};

/// Settings as in the metadata log: names and texts.
pub type Configs = BTreeMap<String, String>;

static NONE: Configs = BTreeMap::new();

/// The source of a value, with Kafka's number in DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
#[allow(missing_docs)]
pub enum ConfigSource {
    DynamicTopic = 1,
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
    DynamicBrokerLogger = 6,
    ClientMetrics = 7,
    Group = 8,
}

/// One of the values that are given for a setting under one of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// The name under which the value is given.
    pub name: String,
    /// Its text; `None` if it is sensitive.
    pub value: Option<String>,
    /// The source of the value.
    pub source: ConfigSource,
}

/// A setting as in the response to DescribeConfigs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The name of the setting.
    pub name: String,
    /// The effective value; `None` if there is none or it is sensitive.
    pub value: Option<String>,
    /// The source of the value.
    pub source: ConfigSource,
    /// Whether the value must not be sent to clients.
    pub is_sensitive: bool,
    /// Whether it can change only with a restart.
    pub read_only: bool,
    /// All given values, the effective one first.
    pub synonyms: Vec<ConfigSynonym>,
    /// Its type; `None` if the setting is unknown.
    pub config_type: Option<ConfigType>,
    /// Its description.
    pub documentation: Option<&'static str>,
}

/// The layers of settings below a topic's own.
#[derive(Clone, Copy, Debug)]
pub struct ConfigLayers<'a> {
    statics: &'a StaticConfigs,
    cluster: &'a Configs,
    broker: &'a Configs,
}

impl<'a> ConfigLayers<'a> {
    /// The settings of a broker: those given at start, the dynamic ones of the cluster (the broker
    /// resource named "") and its own dynamic ones.
    pub fn new(statics: &'a StaticConfigs, cluster: Option<&'a Configs>, broker: Option<&'a Configs>) -> Self {
        ConfigLayers { statics, cluster: cluster.unwrap_or(&NONE), broker: broker.unwrap_or(&NONE) }
    }

    /// Layers without dynamic settings.
    pub fn of_static(statics: &'a StaticConfigs) -> Self {
        ConfigLayers::new(statics, None, None)
    }

    /// The same layers with other dynamic settings of the cluster.
    pub(super) fn with_cluster(self, cluster: &'a Configs) -> Self {
        ConfigLayers { cluster, ..self }
    }

    /// The same layers with other dynamic settings of this broker.
    pub(super) fn with_broker(self, broker: &'a Configs) -> Self {
        ConfigLayers { broker, ..self }
    }

    /// The effective value of a broker setting, if it is a number.
    pub(super) fn broker_number(&self, name: &str) -> Option<i64> {
        match self.broker_value(broker_setting(name)?)? {
            Value::Short(number) => Some(number.into()),
            Value::Int(number) => Some(number.into()),
            Value::Long(number) => Some(number),
            _ => None,
        }
    }

    /// The effective value of a broker setting, as text.
    pub(super) fn broker_text(&self, name: &str) -> Option<String> {
        self.broker_value(broker_setting(name)?).map(|value| value.to_string())
    }

    /// The effective settings of the broker.
    pub fn broker_config(&self) -> BrokerConfig {
        BrokerConfig::from_values(&mut |name| self.broker_value(broker_setting(name)?))
    }

    /// The settings of a topic that has none of its own.
    pub fn log_defaults(&self) -> LogConfig {
        self.log_config(&NONE)
    }

    /// The effective settings of a topic with these own settings.
    pub fn log_config(&self, topic: &Configs) -> LogConfig {
        LogConfig::from_values(&mut |name| self.topic_value(topic_settings()[name], topic))
    }

    /// The entries of a topic for the settings that `wanted` accepts.
    pub fn describe_topic(&self, topic: &Configs, wanted: &dyn Fn(&str) -> bool) -> Vec<ConfigEntry> {
        let shown = topic_settings().values().filter(|row| wanted(row.name) && is_shown(row, topic));
        shown
            .map(|row| {
                let own = topic.contains_key(row.name).then_some(ConfigSource::DynamicTopic);
                let value = self.topic_value(row, topic).map(|value| value.to_string());
                let synonyms = match row.synonyms.first() {
                    Some(synonym) => self.synonyms(synonym.name, row.is_sensitive()),
                    None => Vec::new(),
                };
                entry(row, value, own, synonyms, false)
            })
            .collect()
    }

    /// The entries of a topic as in the response to CreateTopics (`KafkaConfigSchema`): the texts as they were given,
    /// with the source of the synonym that was found, and without synonyms.
    pub fn effective_topic(&self, topic: &Configs, wanted: &dyn Fn(&str) -> bool) -> Vec<ConfigEntry> {
        let shown = topic_settings().values().filter(|row| wanted(row.name) && is_shown(row, topic));
        shown
            .map(|row| {
                let (value, source) = self.effective_text(row, topic);
                ConfigEntry { source, ..entry(row, value, None, Vec::new(), false) }
            })
            .collect()
    }

    fn effective_text(&self, row: &Definition, topic: &Configs) -> (Option<String>, ConfigSource) {
        if let Some(text) = topic.get(row.name) {
            return (Some(text.clone()), ConfigSource::DynamicTopic);
        }
        let given = |layer: &dyn Fn(&str) -> Option<String>| {
            let mut synonyms = row.synonyms.iter();
            synonyms.find_map(|synonym| Some(scaled(layer(synonym.name)?, synonym.factor)))
        };
        if let Some(text) = given(&|name| self.broker.get(name).cloned()) {
            return (Some(text), ConfigSource::DynamicBroker);
        }
        if let Some(text) = given(&|name| self.cluster.get(name).cloned()) {
            return (Some(text), ConfigSource::DynamicDefaultBroker);
        }
        if let Some(text) = given(&|name| self.statics.get(name).map(str::to_owned)) {
            return (Some(text), ConfigSource::StaticBroker);
        }
        (row.default_value().map(|value| value.to_string()), ConfigSource::Default)
    }

    /// The entries of this broker for the settings that `wanted` accepts.
    pub fn describe_broker(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<ConfigEntry> {
        let mut names: BTreeSet<&str> =
            broker_settings().values().filter(|row| !row.internal).map(|row| row.name).collect();
        names.extend(self.statics.iter().map(|(name, _)| name));
        names.extend(self.cluster.keys().chain(self.broker.keys()).map(String::as_str));
        names.into_iter().filter(|name| wanted(name)).map(|name| self.describe_broker_setting(name)).collect()
    }

    /// The entries of the cluster's dynamic settings that `wanted` accepts.
    pub fn describe_cluster_default(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<ConfigEntry> {
        let of_cluster = |synonym: &ConfigSynonym| synonym.source == ConfigSource::DynamicDefaultBroker;
        let names = self.cluster.iter().filter(|(name, _)| wanted(name));
        names
            .map(|(name, text)| {
                let mut entry = self.describe_broker_setting(name);
                entry.value = (!entry.is_sensitive).then(|| text.clone());
                entry.synonyms.retain(of_cluster);
                entry.source = first_source(&entry.synonyms);
                entry
            })
            .collect()
    }

    /// The entries of a group for the settings that `wanted` accepts.
    pub fn describe_group(&self, group: &Configs, wanted: &dyn Fn(&str) -> bool) -> Vec<ConfigEntry> {
        let shown = group_settings().values().filter(|row| wanted(row.name));
        shown
            .map(|row| {
                let own = group.contains_key(row.name).then_some(ConfigSource::Group);
                let value =
                    own_value(row, group).or_else(|| self.value_from_broker(row)).map(|value| value.to_string());
                let synonyms = match (row.synonyms.first(), row.default) {
                    (Some(synonym), _) => self.synonyms(synonym.name, false),
                    (None, Default::Text(text)) => {
                        vec![synonym(row.name, text, ConfigSource::Default, false)]
                    }
                    (None, Default::Null) => Vec::new(),
                };
                entry(row, value, own, synonyms, false)
            })
            .collect()
    }

    /// The effective value of a broker setting.
    fn broker_value(&self, row: &Definition) -> Option<Value> {
        for layer in [self.broker, self.cluster] {
            // As in Kafka, a text that does not parse is ignored: it may have been valid when it was stored.
            if let Some(Ok(value)) = layer.get(row.name).map(|text| row.parse(text)) {
                return Some(value);
            }
            // A dynamic setting hides the values of its other names in the layers below.
            if is_hidden(row.name, layer) {
                return row.default_value();
            }
        }
        match self.statics.get(row.name).map(|text| row.parse(text)) {
            Some(Ok(value)) => Some(value),
            _ => row.default_value(),
        }
    }

    fn topic_value(&self, row: &Definition, topic: &Configs) -> Option<Value> {
        own_value(row, topic).or_else(|| self.value_from_broker(row))
    }

    /// The value from the broker's settings, used if the topic or group has none of its own
    /// (`KafkaConfig.extractLogConfigMap`).
    fn value_from_broker(&self, row: &Definition) -> Option<Value> {
        let mut synonyms = row.synonyms.iter();
        let value = synonyms.find_map(|synonym| {
            let value = self.broker_value(broker_setting(synonym.name)?)?;
            Some(match (row.value_type, value) {
                (ConfigType::Long, Value::Int(number)) => Value::Long(i64::from(number) * synonym.factor),
                (ConfigType::Long, Value::Long(number)) => Value::Long(number.saturating_mul(synonym.factor)),
                (_, value) => value,
            })
        });
        match value {
            Some(Value::Long(number)) if row.name == "retention.ms" && number < 0 => Some(Value::Long(-1)),
            Some(value) => Some(value),
            None => row.default_value(),
        }
    }

    fn describe_broker_setting(&self, name: &str) -> ConfigEntry {
        let row = broker_setting(name).or_else(|| broker_setting(base_name(name)));
        let is_sensitive = row.is_none_or(Definition::is_sensitive);
        let value = match broker_setting(name) {
            Some(row) => self.broker_value(row).map(|value| value.to_string()),
            None => self.given(name).map(str::to_owned),
        };
        let synonyms = self.synonyms(name, is_sensitive);
        ConfigEntry {
            name: name.to_owned(),
            value: value.filter(|_| !is_sensitive),
            source: first_source(&synonyms),
            is_sensitive,
            read_only: broker_setting(name).is_none_or(|row| row.update == UpdateMode::ReadOnly),
            synonyms,
            config_type: row.map(|row| row.value_type),
            documentation: broker_setting(name).map(|row| row.doc),
        }
    }

    fn given(&self, name: &str) -> Option<&str> {
        let dynamic = self.broker.get(name).or_else(|| self.cluster.get(name));
        dynamic.map(String::as_str).or_else(|| self.statics.get(name))
    }

    /// The given values of a broker setting, over its synonyms and the layers. As in Kafka, the values before the first
    /// one under exactly this name are left out.
    fn synonyms(&self, name: &str, is_sensitive: bool) -> Vec<ConfigSynonym> {
        let names = synonym_names(name);
        let mut found = Vec::new();
        for (layer, source) in
            [(self.broker, ConfigSource::DynamicBroker), (self.cluster, ConfigSource::DynamicDefaultBroker)]
        {
            let given = names.iter().filter_map(|name| Some((*name, layer.get(*name)?)));
            found.extend(given.map(|(name, text)| synonym(name, text, source, is_sensitive)));
        }
        let given = names.iter().filter_map(|name| Some((*name, self.statics.get(name)?)));
        found.extend(given.map(|(name, text)| synonym(name, text, ConfigSource::StaticBroker, is_sensitive)));
        for name in &names {
            if let Some(Default::Text(text)) = broker_settings().get(name).map(|row| row.default) {
                found.push(synonym(name, text, ConfigSource::Default, is_sensitive));
            }
        }
        // linear: the names of one setting
        let first = found.iter().position(|synonym| synonym.name == name).unwrap_or(found.len());
        found.split_off(first)
    }
}

/// The entries of a client metrics subscription for the settings that `wanted` accepts.
pub fn describe_client_metrics(subscription: &Configs, wanted: &dyn Fn(&str) -> bool) -> Vec<ConfigEntry> {
    let shown = client_metrics_settings().values().filter(|row| wanted(row.name));
    shown
        .map(|row| {
            let own = subscription.contains_key(row.name).then_some(ConfigSource::ClientMetrics);
            let value = own_value(row, subscription).or_else(|| row.default_value()).map(|value| value.to_string());
            entry(row, value, own, Vec::new(), false)
        })
        .collect()
}

/// Converts a number to another unit; other texts stay unchanged.
fn scaled(text: String, factor: i64) -> String {
    match text.trim().parse::<i64>() {
        Ok(number) if factor != 1 => number.saturating_mul(factor).to_string(),
        _ => text,
    }
}

fn is_shown(row: &Definition, given: &Configs) -> bool {
    !row.internal || given.contains_key(row.name)
}

fn own_value(row: &Definition, given: &Configs) -> Option<Value> {
    given.get(row.name).and_then(|text| row.parse(text).ok())
}

fn synonym(name: &str, text: &str, source: ConfigSource, is_sensitive: bool) -> ConfigSynonym {
    ConfigSynonym { name: name.to_owned(), value: (!is_sensitive).then(|| text.to_owned()), source }
}

fn first_source(synonyms: &[ConfigSynonym]) -> ConfigSource {
    synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source)
}

fn entry(
    row: &Definition,
    value: Option<String>,
    own: Option<ConfigSource>,
    mut synonyms: Vec<ConfigSynonym>,
    read_only: bool,
) -> ConfigEntry {
    let is_sensitive = row.is_sensitive();
    if let (Some(source), Some(value)) = (own, &value) {
        synonyms.insert(0, synonym(row.name, value, source, is_sensitive));
    }
    ConfigEntry {
        name: row.name.to_owned(),
        value: value.filter(|_| !is_sensitive),
        source: first_source(&synonyms),
        is_sensitive,
        read_only,
        synonyms,
        config_type: Some(row.value_type),
        documentation: Some(row.doc),
    }
}

/// The names of the same setting. The first one that is given wins.
const SHARED: [&[&str]; 3] = [
    &["log.roll.ms", "log.roll.hours"],
    &["log.roll.jitter.ms", "log.roll.jitter.hours"],
    &["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
];
const LISTENER_PREFIX: &str = "listener.name.";

/// Whether a layer has the setting under another of its names ([`synonym_names`]). This is called for each setting of
/// each topic when the broker's settings change, so it checks only the names that are possible.
fn is_hidden(name: &str, layer: &Configs) -> bool {
    // linear: a few constants
    let shared = SHARED.iter().find(|names| names.contains(&name)).into_iter().copied().flatten();
    let flush = (name == "log.flush.scheduler.interval.ms").then_some(&"log.flush.interval.ms");
    let mut others = shared.chain(flush).filter(|other| **other != name);
    let of_listeners = layer.range::<str, _>((Bound::Included(LISTENER_PREFIX), Bound::Unbounded));
    let mut of_listeners = of_listeners.map(|(key, _)| key).take_while(|key| key.starts_with(LISTENER_PREFIX));
    others.any(|other| layer.contains_key(*other)) || of_listeners.any(|key| base_name(key) == name)
}

/// The names under which a broker setting may be given; the first one that is given wins
/// (`DynamicBrokerConfig.brokerConfigSynonyms`).
pub(super) fn synonym_names(name: &str) -> Vec<&str> {
    // linear: a few constants
    if let Some(names) = SHARED.iter().find(|names| names.contains(&name)) {
        return names.to_vec();
    }
    if name == "log.flush.interval.ms" {
        return vec![name, "log.flush.scheduler.interval.ms"];
    }
    match base_name(name) {
        base if base != name => vec![name, base],
        _ => vec![name],
    }
}

/// Removes the prefix of `listener.name.<listener>.<setting>`, and the SASL mechanism that some settings have after it.
pub(super) fn base_name(name: &str) -> &str {
    const BY_MECHANISM: [&str; 5] = [
        "sasl.jaas.config",
        "sasl.login.callback.handler.class",
        "sasl.login.class",
        "sasl.server.callback.handler.class",
        "connections.max.reauth.ms",
    ];
    let Some((_, base)) = name.strip_prefix(LISTENER_PREFIX).and_then(|rest| rest.split_once('.')) else {
        return name;
    };
    // linear: a few constants
    BY_MECHANISM.into_iter().find(|setting| base.ends_with(setting)).unwrap_or(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Configs {
        settings.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
    }

    fn one(entries: Vec<ConfigEntry>) -> ConfigEntry {
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries.into_iter().next().expect("one entry")
    }

    fn printed(entry: &ConfigEntry) -> (Option<&str>, ConfigSource, Vec<String>) {
        let synonyms = entry.synonyms.iter();
        let synonyms = synonyms.map(|s| format!("{:?}:{}={}", s.source, s.name, s.value.as_deref().unwrap_or("null")));
        (entry.value.as_deref(), entry.source, synonyms.collect())
    }

    #[test]
    fn a_name_is_hidden_by_each_other_name_of_its_setting() {
        let listener = ["listener.name.a.max.connections", "listener.name.a.gssapi.sasl.jaas.config", "unknown", "zzz"];
        let names: Vec<&str> = broker_settings().keys().copied().chain(listener).collect();
        for name in &names {
            let layer = Configs::from([((*name).to_owned(), "1".to_owned())]);
            for hidden in &names {
                let expected = name != hidden && synonym_names(name).contains(hidden);
                assert_eq!(is_hidden(hidden, &layer), expected, "{hidden} by {name}");
            }
        }
    }

    #[test]
    fn hours_minutes_and_milliseconds_win_in_kafkas_order() {
        let retention = |given: &[(&str, &str)]| {
            let statics = StaticConfigs::of(given.iter().copied());
            ConfigLayers::of_static(&statics).log_defaults().retention_ms
        };
        assert_eq!(retention(&[]), 604_800_000);
        assert_eq!(retention(&[("log.retention.hours", "2")]), 7_200_000);
        assert_eq!(retention(&[("log.retention.hours", "2"), ("log.retention.minutes", "3")]), 180_000);
        let all = [("log.retention.hours", "2"), ("log.retention.minutes", "3"), ("log.retention.ms", "4")];
        assert_eq!(retention(&all), 4);
        assert_eq!(retention(&[("log.retention.hours", "-1")]), -1);
        let statics = StaticConfigs::of([("log.roll.hours", "2"), ("log.flush.scheduler.interval.ms", "9")]);
        let log = ConfigLayers::of_static(&statics).log_defaults();
        assert_eq!((log.segment_ms, log.segment_jitter_ms, log.flush_ms), (7_200_000, 0, 9));
    }

    #[test]
    fn a5_the_layers_win_in_order_and_show_as_synonyms() {
        let statics = StaticConfigs::of([("log.segment.bytes", "2000000")]);
        let cluster = configs([("log.segment.bytes", "3000000")]);
        let broker = configs([("log.segment.bytes", "4000000")]);
        let topic = configs([("segment.bytes", "5000000")]);
        let wanted = |name: &str| name == "segment.bytes";
        let layers = ConfigLayers::new(&statics, Some(&cluster), Some(&broker));
        let entry = one(layers.describe_topic(&topic, &wanted));
        assert_eq!(
            printed(&entry),
            (
                Some("5000000"),
                ConfigSource::DynamicTopic,
                vec![
                    "DynamicTopic:segment.bytes=5000000".into(),
                    "DynamicBroker:log.segment.bytes=4000000".into(),
                    "DynamicDefaultBroker:log.segment.bytes=3000000".into(),
                    "StaticBroker:log.segment.bytes=2000000".into(),
                    "Default:log.segment.bytes=1073741824".into(),
                ]
            )
        );
        assert_eq!(layers.log_config(&topic).segment_bytes, 5_000_000);
        assert_eq!(layers.log_defaults().segment_bytes, 4_000_000);
        let layers = ConfigLayers::new(&statics, Some(&cluster), None);
        assert_eq!(layers.log_defaults().segment_bytes, 3_000_000);
        assert_eq!(ConfigLayers::of_static(&statics).log_defaults().segment_bytes, 2_000_000);
    }

    #[test]
    fn a5_synonyms_before_the_very_name_are_left_out_as_in_kafka() {
        // Kafka 4.3.1 sends exactly this response with log.retention.hours=100 in its file.
        let statics = StaticConfigs::of([("log.retention.hours", "100")]);
        let layers = ConfigLayers::of_static(&statics);
        let topic = configs([("retention.ms", "5000")]);
        let retention = |topic: &Configs| one(layers.describe_topic(topic, &|name| name == "retention.ms"));
        let own = vec!["DynamicTopic:retention.ms=5000".to_owned()];
        assert_eq!(printed(&retention(&topic)), (Some("5000"), ConfigSource::DynamicTopic, own));
        assert_eq!(printed(&retention(&NONE)), (Some("360000000"), ConfigSource::Default, vec![]));
        let broker = |wanted: &str| one(layers.describe_broker(&|name| name == wanted));
        assert_eq!(printed(&broker("log.retention.ms")), (None, ConfigSource::Default, vec![]));
        assert_eq!(
            printed(&broker("log.retention.hours")),
            (
                Some("100"),
                ConfigSource::StaticBroker,
                vec!["StaticBroker:log.retention.hours=100".into(), "Default:log.retention.hours=168".into(),]
            )
        );
    }

    #[test]
    fn a1_a_created_topic_is_told_the_source_of_any_synonym() {
        let statics = StaticConfigs::of([("log.retention.hours", "100")]);
        let cluster = configs([("min.insync.replicas", "1")]);
        let layers = ConfigLayers::new(&statics, Some(&cluster), None);
        let effective = |wanted: &str| {
            let entry = one(layers.effective_topic(&configs([("segment.bytes", " 2000000")]), &|name| name == wanted));
            (entry.value, entry.source)
        };
        assert_eq!(effective("segment.bytes"), (Some(" 2000000".to_owned()), ConfigSource::DynamicTopic));
        assert_eq!(effective("retention.ms"), (Some("360000000".to_owned()), ConfigSource::StaticBroker));
        assert_eq!(effective("min.insync.replicas"), (Some("1".to_owned()), ConfigSource::DynamicDefaultBroker));
        assert_eq!(effective("flush.ms"), (Some(i64::MAX.to_string()), ConfigSource::Default));
        assert_eq!(layers.effective_topic(&NONE, &|_| true).len(), 33);
    }

    #[test]
    fn a_dynamic_value_hides_what_is_given_under_its_other_names() {
        let statics = StaticConfigs::of([("log.retention.ms", "7"), ("log.flush.scheduler.interval.ms", "5")]);
        let cluster = configs([("log.retention.ms", "9"), ("log.flush.interval.ms", "11")]);
        let layers = ConfigLayers::new(&statics, Some(&cluster), None);
        assert_eq!((layers.log_defaults().retention_ms, layers.log_defaults().flush_ms), (9, 11));
        assert_eq!(layers.broker_number("log.flush.scheduler.interval.ms"), Some(i64::MAX));
        let bad = configs([("log.retention.ms", "abc")]);
        assert_eq!(ConfigLayers::new(&statics, Some(&bad), None).log_defaults().retention_ms, 7);
    }

    #[test]
    fn a5_what_is_secret_or_unknown_is_never_shown() {
        let statics = StaticConfigs::of([("ssl.key.password", "hunter2"), ("listener.name.a.ssl.key.password", "x")]);
        let cluster = configs([("my.own.key", "secret")]);
        let layers = ConfigLayers::new(&statics, Some(&cluster), None);
        for name in ["ssl.key.password", "listener.name.a.ssl.key.password", "my.own.key"] {
            let entry = one(layers.describe_broker(&|other| other == name));
            assert!(entry.is_sensitive && entry.value.is_none(), "{entry:?}");
            assert!(entry.synonyms.iter().all(|synonym| synonym.value.is_none()), "{entry:?}");
        }
        assert_eq!(one(layers.describe_broker(&|name| name == "my.own.key")).config_type, None);
    }

    #[test]
    fn a5_a_broker_shows_every_documented_setting_of_kafka() {
        let statics = StaticConfigs::default();
        let entries = ConfigLayers::of_static(&statics).describe_broker(&|name| !name.starts_with("ottla."));
        assert_eq!(entries.len(), 340);
        let message_bytes = entries.iter().find(|entry| entry.name == "message.max.bytes").expect("it is there");
        assert!(!message_bytes.read_only && message_bytes.documentation.is_some());
        let node = entries.iter().find(|entry| entry.name == "node.id").expect("it is there");
        assert!(node.read_only);
    }

    #[test]
    fn a5_the_cluster_default_shows_only_what_was_set() {
        let statics = StaticConfigs::of([("min.insync.replicas", "3")]);
        let cluster = configs([("min.insync.replicas", "2")]);
        let broker = configs([("min.insync.replicas", "4")]);
        let layers = ConfigLayers::new(&statics, Some(&cluster), Some(&broker));
        let entry = one(layers.describe_cluster_default(&|_| true));
        assert_eq!(
            printed(&entry),
            (Some("2"), ConfigSource::DynamicDefaultBroker, vec!["DynamicDefaultBroker:min.insync.replicas=2".into()])
        );
    }

    #[test]
    fn a5_groups_and_client_metrics_have_their_own_sources() {
        let statics = StaticConfigs::default();
        let layers = ConfigLayers::of_static(&statics);
        let group = configs([("consumer.session.timeout.ms", "50000")]);
        let described = layers.describe_group(&group, &|_| true);
        assert_eq!(described.len(), 17);
        let own = described.iter().find(|entry| entry.name == "consumer.session.timeout.ms").expect("it is there");
        assert_eq!(
            printed(own),
            (
                Some("50000"),
                ConfigSource::Group,
                vec![
                    "Group:consumer.session.timeout.ms=50000".into(),
                    "Default:group.consumer.session.timeout.ms=45000".into(),
                ]
            )
        );
        let reset = described.iter().find(|entry| entry.name == "share.auto.offset.reset").expect("it is there");
        assert_eq!(
            printed(reset),
            (Some("latest"), ConfigSource::Default, vec!["Default:share.auto.offset.reset=latest".into()])
        );
        let subscription = configs([("interval.ms", "100")]);
        let described = describe_client_metrics(&subscription, &|_| true);
        let sources: Vec<_> = described.iter().map(|entry| (entry.name.as_str(), entry.source)).collect();
        assert_eq!(
            sources,
            [
                ("interval.ms", ConfigSource::ClientMetrics),
                ("match", ConfigSource::Default),
                ("metrics", ConfigSource::Default),
            ]
        );
    }
}
