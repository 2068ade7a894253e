//! Settings: their tables, sources and resolved forms.
//!
//! A setting is one row of a table (`table.rs`), in `broker.rs`, `topic.rs`, `group.rs` or, if Kafka has it but it has
//! no effect in Ottla, in `accepted.rs`.

mod accepted;
pub mod broker;
mod environment;
mod group;
mod layers;
mod listeners;
mod properties;
mod quorum;
mod registry;
mod sources;
mod table;
mod toml_file;
pub mod topic;
mod validate;
mod value;

pub use broker::BrokerConfig;
pub use layers::{ConfigEntry, ConfigLayers, ConfigSource, ConfigSynonym, Configs, describe_client_metrics};
pub use listeners::{Endpoint, Listener, Listeners};
pub use quorum::QuorumSettings;
pub use registry::{
    broker_settings, client_metrics_settings, dynamic_only_settings, group_settings, nearest_setting, topic_settings,
};
pub use sources::{Arguments, Given, Origin, Settings, SettingsError, StaticConfigs};
pub use table::{Default, Definition, Effect, Importance, Synonym, UpdateMode};
pub use topic::{CleanupPolicy, CompressionType, LogConfig, TimestampType};
pub use validate::{
    BrokerScope, Refusal, validate_broker_configs, validate_client_metrics_configs, validate_group_configs,
    validate_topic_configs,
};
pub use value::{ConfigType, InvalidValue, Validator, Value};

#[cfg(test)]
mod generated;
#[cfg(test)]
mod tests;
