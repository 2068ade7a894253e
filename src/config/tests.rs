//! Tests that compare the tables with the settings of Apache Kafka 4.3.1, and check that fields are used.

use std::collections::{BTreeMap, BTreeSet};

use super::{table::Default, *};

/// One line of `testdata/kafka-4.3.1-settings.tsv`.
struct KafkaSetting {
    value_type: String,
    default: Option<String>,
    required: bool,
    valid_values: String,
    importance: String,
    update: String,
}

fn kafka_settings() -> BTreeMap<(String, String), KafkaSetting> {
    let lines = include_str!("testdata/kafka-4.3.1-settings.tsv").lines().skip(1);
    lines
        .map(|line| {
            let mut columns = line.split('\t').map(str::to_owned);
            let mut next = || columns.next().unwrap_or_else(|| panic!("a column is missing: {line}"));
            let key = (next(), next());
            let (value_type, default) = (next(), next());
            let setting = KafkaSetting {
                value_type,
                required: default == "required",
                default: default.strip_prefix('"').and_then(|text| text.strip_suffix('"')).map(str::to_owned),
                valid_values: next(),
                importance: next(),
                update: next(),
            };
            (key, setting)
        })
        .collect()
}

fn tables() -> [(&'static str, &'static BTreeMap<&'static str, &'static Definition>); 4] {
    [
        ("broker", broker_settings()),
        ("topic", topic_settings()),
        ("group", group_settings()),
        ("client-metrics", client_metrics_settings()),
    ]
}

#[test]
fn every_setting_of_kafka_is_known_with_its_type_bounds_and_update_mode() {
    let kafka = kafka_settings();
    let mut known = BTreeSet::new();
    for (kind, table) in tables() {
        for (name, definition) in table {
            let Some(setting) = kafka.get(&(kind.to_owned(), (*name).to_owned())) else {
                assert!(name.starts_with("ottla."), "Kafka has no {kind} setting {name}");
                continue;
            };
            known.insert((kind.to_owned(), (*name).to_owned()));
            assert_eq!(definition.value_type.to_string(), setting.value_type, "type of {name}");
            assert_eq!(definition.validator.to_string(), setting.valid_values, "valid values of {name}");
            let importance = format!("{:?}", definition.importance).to_lowercase();
            let importance = if definition.internal { importance + " internal" } else { importance };
            assert_eq!(importance, setting.importance, "importance of {name}");
            if kind == "broker" {
                assert_eq!(definition.update.to_string(), setting.update, "update mode of {name}");
            }
        }
    }
    let missing: Vec<_> = kafka.keys().filter(|key| !known.contains(*key)).collect();
    assert!(missing.is_empty(), "not in the tables: {missing:?}");
}

#[test]
fn a_default_is_kafkas_or_says_why_not() {
    for ((kind, name), setting) in kafka_settings() {
        let table = tables().into_iter().find(|(k, _)| *k == kind).expect("a table for each kind").1;
        let definition = table[name.as_str()];
        let ours = match definition.default {
            Default::Null => None,
            Default::Text(_) => definition.default_value().map(|value| value.to_string()),
        };
        let same = !setting.required && ours == setting.default;
        assert_eq!(same, definition.deviation.is_none(), "{kind} {name}: {ours:?} for {:?}", setting.default);
    }
}

#[test]
fn every_default_is_accepted_by_its_own_row() {
    for (_, table) in tables() {
        for definition in table.values() {
            definition.default_value();
        }
    }
    let broker = BrokerConfig::default();
    assert_eq!(broker.node_id, 1);
    assert_eq!(broker.data_dirs(), [std::path::Path::new("./data")]);
    let log = LogConfig::default();
    assert_eq!((log.segment_bytes, log.retention_ms), (1 << 30, 604_800_000));
    assert_eq!(log.cleanup_policy, CleanupPolicy { compact: false, delete: true });
}

#[test]
fn a_topics_synonyms_are_broker_settings_that_say_so() {
    for definition in topic_settings().values() {
        for synonym in definition.synonyms {
            let broker = broker_settings()[synonym.name];
            assert_eq!(broker.effect, Effect::TopicDefault, "{} stands in for {}", synonym.name, definition.name);
        }
    }
}

/// Fields that no code reads yet, with the feature that will read them.
const NOT_READ_YET: &[(&str, &str)] =
    &[("unclean_leader_election_enable", "replicas that can be out of sync; the controller asks for it by its name")];

#[test]
fn every_field_is_read_where_it_acts() {
    let sources = sources_outside_of_tests(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    for row in broker::FIELDS.iter().chain(topic::FIELDS) {
        let field = row.name.replace('.', "_");
        let is_read = sources.iter().any(|source| reads(source, &field));
        match NOT_READ_YET.iter().find(|(waiting, _)| *waiting == field) {
            None => assert!(is_read, "nothing reads {}: read it, or move its row to accepted.rs", row.name),
            Some((_, what)) => assert!(!is_read, "{field} is read now: remove it from NOT_READ_YET ({what})"),
        }
    }
}

/// Whether the text has `.field` as a whole word after the name of a settings struct.
fn reads(source: &str, field: &str) -> bool {
    source.match_indices(&format!(".{field}")).any(|(at, found)| {
        let before = source[..at].trim_end();
        let is_word = source[at + found.len()..].chars().next().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        is_word && ["config", "config()", "broker", "log", "self"].iter().any(|owner| before.ends_with(owner))
    })
}

fn sources_outside_of_tests(dir: &std::path::Path) -> Vec<String> {
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a source directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources.extend(sources_outside_of_tests(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
            sources.push(code.to_owned());
        }
    }
    sources
}
