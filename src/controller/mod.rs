//! The controller: a deterministic state machine over metadata records, with one file per control manager of Kafka.
//!
//! `step` reads the image and decides the records to write and the reply to send once they are committed and applied.
//! It never changes the image: `metadata::image` applies records, in the same way live and at replay. `raft::driver`
//! proposes, persists and publishes. Error codes and messages are Kafka's own, because clients and their tests depend
//! on them.

pub mod brokers;
pub mod client_quotas;
pub mod configs;
#[allow(clippy::module_inception)]
mod controller;
pub mod directories;
pub mod elections;
pub mod features;
pub mod isr;
pub mod partitions;
pub mod portions;
pub mod producer_ids;
pub mod schema;
pub mod sessions;
pub mod shortage;
pub mod topics;

use std::{collections::BTreeMap, time::Duration};

pub use controller::{ControllerRequest, Reply, Request, step};
use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use crate::{
    metadata::{
        image::{ConfigResource, ConfigResourceType, MetadataImage},
        records::MetadataRecord,
    },
    types::{BrokerId, Offset, TimestampMs},
};

/// Apache: `QuorumController.MAX_RECORDS_PER_USER_OP`.
pub const MAX_RECORDS_PER_USER_OP: usize = 10_000;

/// Apache: `ApiError`. An error code with the message for the client. Without a message, the default text of the code
/// is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub error: ResponseError,
    pub message: Option<String>,
}

impl ApiError {
    pub fn new(error: ResponseError, message: impl Into<String>) -> Self {
        ApiError { error, message: Some(message.into()) }
    }

    /// For errors where Kafka sends no message, because it would only repeat the text of the code.
    pub fn code_only(error: ResponseError) -> Self {
        ApiError { error, message: None }
    }

    pub fn invalid_request(message: impl Into<String>) -> Self {
        ApiError::new(ResponseError::InvalidRequest, message)
    }

    pub fn invalid_config(message: impl Into<String>) -> Self {
        ApiError::new(ResponseError::InvalidConfig, message)
    }

    pub fn code(&self) -> i16 {
        self.error.code()
    }
}

/// The settings of the controller.
#[derive(Debug, Clone)]
pub struct ControllerSettings {
    /// `node.id`.
    pub node_id: BrokerId,
    /// `num.partitions`.
    pub default_num_partitions: i32,
    /// `default.replication.factor`.
    pub default_replication_factor: i16,
    /// `delete.topic.enable`.
    pub delete_topic_enable: bool,
    /// `broker.session.timeout.ms`.
    pub broker_session_timeout: Duration,
    /// `ottla.broker.silence.timeout.ms`; `None` if it is 0.
    pub broker_silence_timeout: Option<Duration>,
    /// The name of the listener for other brokers.
    pub inter_broker_listener: String,
    /// `leader.imbalance.check.interval.seconds`; `None` without `auto.leader.rebalance.enable`.
    pub rebalance_interval: Option<Duration>,
    /// `unclean.leader.election.interval.ms`.
    pub unclean_election_interval: Duration,
    /// `ottla.max.partitions`.
    pub max_partitions: usize,
    /// `ottla.metadata.max.bytes`.
    pub max_metadata_bytes: usize,
}

impl Default for ControllerSettings {
    fn default() -> Self {
        ControllerSettings {
            node_id: 1,
            default_num_partitions: 1,
            default_replication_factor: 1,
            delete_topic_enable: true,
            broker_session_timeout: Duration::from_secs(9),
            broker_silence_timeout: Some(Duration::from_millis(1200)),
            inter_broker_listener: "PLAINTEXT".to_owned(),
            rebalance_interval: Some(Duration::from_secs(300)),
            unclean_election_interval: Duration::from_secs(300),
            max_partitions: 20_000,
            max_metadata_bytes: 64 * 1024 * 1024,
        }
    }
}

/// One effective setting of a topic, as in the response to CreateTopics version 5 and later (KIP-525).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveConfig {
    pub name: String,
    /// None if it is sensitive or has no value.
    pub value: Option<String>,
    pub read_only: bool,
    /// The `ConfigSource` id in the response: 1 topic, 2 broker, 3 default broker, 4 static, 5 default.
    pub source: i8,
    pub is_sensitive: bool,
}

/// The controller's access to the tables of settings (Apache: `KafkaConfigSchema` and
/// `ControllerConfigurationValidator`).
pub trait ConfigSchema: Send + Sync {
    /// Checks the name and type of `resource`, and all values (`configs`) that it would have.
    fn validate(&self, resource: &ConfigResource, configs: &BTreeMap<String, String>) -> Result<(), ApiError>;
    /// Whether the setting is a list, so that APPEND and SUBTRACT are allowed.
    fn is_list(&self, resource_type: ConfigResourceType, key: &str) -> bool;
    /// The default as text; None if there is none.
    fn default_value(&self, resource_type: ConfigResourceType, key: &str) -> Option<String>;
    /// All settings of a topic with these overrides, sorted by name.
    fn effective_topic_configs(
        &self,
        image: &MetadataImage,
        overrides: &BTreeMap<String, String>,
    ) -> Vec<EffectiveConfig>;
    /// The effective value of one topic-level key for a topic with these overrides.
    fn effective_topic_value(
        &self,
        image: &MetadataImage,
        overrides: Option<&BTreeMap<String, String>>,
        key: &str,
    ) -> Option<String>;
}

/// Randomness for ids and replica placement. The active controller draws the values once and writes them into records.
pub trait Entropy {
    /// A number from 0 to `bound` - 1.
    fn below(&mut self, bound: usize) -> usize;
    fn uuid(&mut self) -> Uuid;
}

/// The inputs of a step besides the image.
pub struct StepContext<'a> {
    pub settings: &'a ControllerSettings,
    pub schema: &'a dyn ConfigSchema,
    pub entropy: &'a mut dyn Entropy,
    pub now_ms: TimestampMs,
    /// The offset that the first record of this step will get.
    pub next_write_offset: Offset,
}

/// The result of a step: Apache's `ControllerResult`. The records are written as one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Step<R> {
    pub records: Vec<MetadataRecord>,
    /// Valid once the records are committed and applied.
    pub reply: R,
}

impl<R> Step<R> {
    pub fn reply(reply: R) -> Self {
        Step { records: Vec::new(), reply }
    }

    fn without_records_if(mut self, validate_only: bool) -> Self {
        if validate_only {
            self.records.clear();
        }
        self
    }
}

/// Apache: `BoundedListTooLongException` as the client sees it.
pub(crate) fn too_many_records() -> ApiError {
    ApiError::new(ResponseError::PolicyViolation, "Unable to perform excessively large batch operation.")
}

/// Checks that the records of a step fit into one batch and that the cluster stays within its limits.
pub(crate) fn check_records(
    image: &MetadataImage,
    settings: &ControllerSettings,
    records: &[MetadataRecord],
) -> Result<(), ApiError> {
    if records.len() > MAX_RECORDS_PER_USER_OP {
        return Err(too_many_records());
    }
    let growth = image.growth(records);
    let (most_partitions, most_bytes) = (settings.max_partitions, settings.max_metadata_bytes);
    let violation = |message: String| Err(ApiError::new(ResponseError::PolicyViolation, message));
    if growth.partitions > most_partitions.saturating_sub(image.size.partitions) {
        return violation(format!("The cluster may have {most_partitions} partitions at most (ottla.max.partitions)."));
    }
    if growth.bytes > most_bytes.saturating_sub(image.size.bytes) {
        let message =
            format!("All topics, settings and quotas may take {most_bytes} bytes at most (ottla.metadata.max.bytes).");
        return violation(message);
    }
    Ok(())
}

#[cfg(test)]
mod isr_model_tests;
#[cfg(test)]
pub(crate) mod testing;
