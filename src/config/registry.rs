//! Finds the row of a setting by its name, and the nearest existing name for an unknown one.

use std::{collections::BTreeMap, sync::LazyLock};

use super::{accepted, broker, group, table::Definition, topic};

type Registry = BTreeMap<&'static str, &'static Definition>;

fn registry(tables: &[&'static [Definition]]) -> Registry {
    let rows = tables.iter().flat_map(|rows| rows.iter());
    rows.map(|definition| (definition.name, definition)).collect()
}

static BROKER: LazyLock<Registry> = LazyLock::new(|| {
    let mut tables = vec![broker::FIELDS, broker::TOPIC_DEFAULTS];
    tables.extend(accepted::GROUPS);
    registry(&tables)
});
static DYNAMIC_ONLY: LazyLock<Registry> = LazyLock::new(|| registry(&[broker::DYNAMIC_ONLY]));
static TOPIC: LazyLock<Registry> = LazyLock::new(|| registry(&[topic::FIELDS, topic::ACCEPTED]));
static GROUP: LazyLock<Registry> = LazyLock::new(|| registry(&[group::GROUP]));
static CLIENT_METRICS: LazyLock<Registry> = LazyLock::new(|| registry(&[group::CLIENT_METRICS]));

/// The broker's settings by name.
pub fn broker_settings() -> &'static BTreeMap<&'static str, &'static Definition> {
    &BROKER
}

/// The broker's settings that exist only at run time, by name.
pub fn dynamic_only_settings() -> &'static BTreeMap<&'static str, &'static Definition> {
    &DYNAMIC_ONLY
}

/// A topic's settings by name.
pub fn topic_settings() -> &'static BTreeMap<&'static str, &'static Definition> {
    &TOPIC
}

/// A topic's settings in the order in which Kafka checks them.
pub(super) fn topic_settings_in_order() -> impl Iterator<Item = &'static Definition> {
    topic::FIELDS.iter().chain(topic::ACCEPTED)
}

/// A group's settings by name.
pub fn group_settings() -> &'static BTreeMap<&'static str, &'static Definition> {
    &GROUP
}

/// A client metrics subscription's settings by name.
pub fn client_metrics_settings() -> &'static BTreeMap<&'static str, &'static Definition> {
    &CLIENT_METRICS
}

/// Returns the row of a broker setting, including those that exist only at run time.
pub(super) fn broker_setting(name: &str) -> Option<&'static Definition> {
    BROKER.get(name).or_else(|| DYNAMIC_ONLY.get(name)).copied()
}

/// Returns the broker setting whose name is nearest to `unknown`, if it is similar enough for a suggestion.
pub fn nearest_setting(unknown: &str) -> Option<&'static str> {
    let allowed = (unknown.len() / 4).clamp(2, 8);
    let candidates = BROKER.keys().map(|known| (edits(unknown, known), *known));
    let nearest = candidates.min_by_key(|(edits, _)| *edits).filter(|(edits, _)| *edits <= allowed);
    // The other common mistake is to use the topic setting's name for a broker setting.
    let synonym = || TOPIC.get(unknown).and_then(|definition| definition.synonyms.first()).map(|synonym| synonym.name);
    synonym().or(nearest.map(|(_, known)| known))
}

/// The Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_one_meant() {
        assert_eq!(nearest_setting("log.segment.byte"), Some("log.segment.bytes"));
        assert_eq!(nearest_setting("num.partition"), Some("num.partitions"));
        assert_eq!(nearest_setting("advertised.listener"), Some("advertised.listeners"));
        assert_eq!(nearest_setting("retention.ms"), Some("log.retention.ms"));
        assert_eq!(nearest_setting("something.else.entirely"), None);
    }
}
