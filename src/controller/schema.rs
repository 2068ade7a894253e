//! The controller's access to the tables of settings: the settings that exist, their valid values, and the effective
//! values of a topic. Leaves the rules to `config`.

use std::{collections::BTreeMap, sync::Arc};

use super::{ApiError, ConfigSchema, EffectiveConfig};
use crate::{
    config::{
        self, BrokerScope, ConfigLayers, ConfigType, Configs, Default, Definition, Refusal, StaticConfigs,
        broker_settings, client_metrics_settings, group_settings, topic_settings,
    },
    metadata::image::{ConfigResource, ConfigResourceType, MetadataImage},
    types::BrokerId,
};

/// Implements [`ConfigSchema`] with the tables of `config`.
pub struct SettingsSchema {
    broker_id: BrokerId,
    statics: Arc<StaticConfigs>,
}

impl SettingsSchema {
    /// The schema of the broker that was started with these settings.
    pub fn new(broker_id: BrokerId, statics: Arc<StaticConfigs>) -> Self {
        SettingsSchema { broker_id, statics }
    }

    fn layers<'a>(&'a self, image: &'a MetadataImage) -> ConfigLayers<'a> {
        let (cluster, broker) =
            (image.config(&ConfigResource::default_broker()), image.config(&ConfigResource::broker(self.broker_id)));
        ConfigLayers::new(&self.statics, cluster, broker)
    }
}

fn definition(resource_type: ConfigResourceType, key: &str) -> Option<&'static Definition> {
    let table = match resource_type {
        ConfigResourceType::Topic => topic_settings(),
        ConfigResourceType::Broker => broker_settings(),
        ConfigResourceType::ClientMetrics => client_metrics_settings(),
        ConfigResourceType::Group => group_settings(),
        ConfigResourceType::BrokerLogger | ConfigResourceType::Unknown => return None,
    };
    table.get(key).copied()
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::InvalidConfig(message) => ApiError::invalid_config(message),
            Refusal::InvalidRequest(message) => ApiError::invalid_request(message),
        }
    }
}

/// Checks whether a running broker can take a change. `layers` are its current settings. `configs` are all dynamic
/// settings that it would have (or, without `per_broker`, that every broker would have).
pub fn validate_broker_change(layers: &ConfigLayers<'_>, configs: &Configs, per_broker: bool) -> Result<(), ApiError> {
    let scope = if per_broker { BrokerScope::ThisBroker } else { BrokerScope::Cluster };
    Ok(config::validate_broker_configs(layers, scope, configs)?)
}

impl ConfigSchema for SettingsSchema {
    fn validate(&self, resource: &ConfigResource, configs: &BTreeMap<String, String>) -> Result<(), ApiError> {
        let layers = ConfigLayers::of_static(&self.statics);
        match resource.resource_type {
            ConfigResourceType::Topic => config::validate_topic_configs(&layers, configs)?,
            ConfigResourceType::Group => config::validate_group_configs(&layers, configs)?,
            ConfigResourceType::ClientMetrics => config::validate_client_metrics_configs(&resource.name, configs)?,
            // The broker that received the request has already checked the change (`validate_broker_change`).
            ConfigResourceType::Broker | ConfigResourceType::BrokerLogger | ConfigResourceType::Unknown => {}
        }
        Ok(())
    }

    /// Only topics and brokers have lists: Kafka's controller has no types for the settings of other resources.
    fn is_list(&self, resource_type: ConfigResourceType, key: &str) -> bool {
        matches!(resource_type, ConfigResourceType::Topic | ConfigResourceType::Broker)
            && definition(resource_type, key).is_some_and(|definition| definition.value_type == ConfigType::List)
    }

    fn default_value(&self, resource_type: ConfigResourceType, key: &str) -> Option<String> {
        match definition(resource_type, key)?.default {
            Default::Null => None,
            Default::Text(text) => Some(text.to_owned()),
        }
    }

    fn effective_topic_configs(
        &self,
        image: &MetadataImage,
        overrides: &BTreeMap<String, String>,
    ) -> Vec<EffectiveConfig> {
        let entries = self.layers(image).effective_topic(overrides, &|_| true);
        let effective = entries.into_iter().map(|entry| EffectiveConfig {
            name: entry.name,
            value: entry.value,
            read_only: entry.read_only,
            source: entry.source as i8,
            is_sensitive: entry.is_sensitive,
        });
        effective.collect()
    }

    fn effective_topic_value(
        &self,
        image: &MetadataImage,
        overrides: Option<&BTreeMap<String, String>>,
        key: &str,
    ) -> Option<String> {
        let none = Configs::new();
        self.layers(image).describe_topic(overrides.unwrap_or(&none), &|name| name == key).pop()?.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(values: &[(&str, &str)]) -> Configs {
        values.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn validate(resource: ConfigResource, values: &[(&str, &str)]) -> Result<(), (i16, String)> {
        let schema = SettingsSchema::new(1, Arc::new(StaticConfigs::of([])));
        schema.validate(&resource, &configs(values)).map_err(|error| (error.code(), error.message.unwrap()))
    }

    #[test]
    fn a1_topic_settings_are_checked_by_name_value_and_against_each_other() {
        let topic = || ConfigResource::topic("t");
        assert_eq!(validate(topic(), &[("retention.ms", "5"), ("cleanup.policy", "compact,delete")]), Ok(()));
        assert_eq!(validate(topic(), &[("foo.bar", "1")]), Err((40, "Unknown topic config name: foo.bar".into())));
        let not_a_number = "Invalid value abc for configuration retention.ms: Not a number of type LONG";
        assert_eq!(validate(topic(), &[("retention.ms", "abc")]), Err((40, not_a_number.into())));
        assert_eq!(validate(topic(), &[("min.insync.replicas", "0")]).unwrap_err().0, 40);
        assert_eq!(validate(topic(), &[("cleanup.policy", "nonsense")]).unwrap_err().0, 40);
        let conflict = "conflict topic config setting min.compaction.lag.ms (9) > max.compaction.lag.ms (5)";
        assert_eq!(
            validate(topic(), &[("min.compaction.lag.ms", "9"), ("max.compaction.lag.ms", "5")]),
            Err((40, conflict.into()))
        );
        assert!(
            validate(topic(), &[("remote.storage.enable", "true")])
                .unwrap_err()
                .1
                .starts_with("Tiered Storage functionality is disabled")
        );
    }

    #[test]
    fn a6_group_and_client_metrics_settings() {
        let group = || ConfigResource::new(ConfigResourceType::Group, "g");
        assert_eq!(validate(group(), &[("consumer.session.timeout.ms", "50000")]), Ok(()));
        assert_eq!(validate(group(), &[("x", "1")]), Err((40, "Unknown group config name: x".into())));
        let metrics = |name| ConfigResource::new(ConfigResourceType::ClientMetrics, name);
        assert_eq!(
            validate(metrics("m"), &[("interval.ms", "1000"), ("match", "client_id=a.*,client_source_port=1")]),
            Ok(())
        );
        let schema = SettingsSchema::new(1, Arc::new(StaticConfigs::of([])));
        assert!(schema.is_list(ConfigResourceType::Topic, "cleanup.policy"));
        assert!(!schema.is_list(ConfigResourceType::ClientMetrics, "metrics"));
        assert_eq!(validate(metrics(""), &[]), Err((42, "Subscription name can't be empty".into())));
        assert_eq!(validate(metrics("m"), &[("x", "1")]), Err((42, "Unknown client metrics configuration: x".into())));
        assert_eq!(validate(metrics("m"), &[("interval.ms", "5")]).unwrap_err().0, 42);
        assert_eq!(
            validate(metrics("m"), &[("match", "nope=1")]),
            Err((40, "Illegal client matching pattern: nope=1".into()))
        );
    }

    #[test]
    fn a6_only_what_a_running_broker_can_take() {
        let statics = StaticConfigs::of([]);
        let layers = ConfigLayers::of_static(&statics);
        let refused = |values: &[(&str, &str)], per_broker| {
            validate_broker_change(&layers, &configs(values), per_broker).unwrap_err().message.unwrap()
        };
        assert_eq!(
            validate_broker_change(&layers, &configs(&[("log.retention.ms", "5"), ("my.own", "x")]), false),
            Ok(())
        );
        assert_eq!(refused(&[("node.id", "5")], true), "Cannot update these configs dynamically: [node.id]");
        assert!(refused(&[("log.retention.ms", "x")], false).contains("Not a number of type LONG"));
        let at_cluster_level = refused(&[("listener.name.a.ssl.keystore.location", "x")], false);
        assert_eq!(
            at_cluster_level,
            "Cannot update these configs at default cluster level, broker id must be specified: [listener.name.a.ssl.keystore.location]"
        );
    }
}
