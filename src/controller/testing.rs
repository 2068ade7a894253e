//! Helpers of the controller's tests: images with brokers and topics, a small settings schema, deterministic
//! randomness.

use std::{collections::BTreeMap, sync::Arc};

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use super::*;
use crate::{
    metadata::{delta::MetadataDelta, image::BrokerRegistration, records::*},
    types::BrokerId,
};

pub(crate) struct TestEntropy(pub(crate) u64);

impl Entropy for TestEntropy {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound.max(1)
    }
    fn uuid(&mut self) -> Uuid {
        let high = self.below(usize::MAX) as u128;
        Uuid::from_u128(high << 64 | self.below(usize::MAX) as u128 | 1 << 100)
    }
}

/// A schema with `retention.ms` (a number), `cleanup.policy` (a list), `unclean.leader.election.enable` and
/// `min.insync.replicas`.
pub(crate) struct TestSchema;

impl ConfigSchema for TestSchema {
    fn validate(&self, resource: &ConfigResource, configs: &BTreeMap<String, String>) -> Result<(), ApiError> {
        if resource.resource_type != ConfigResourceType::Topic {
            return Ok(());
        }
        for (key, value) in configs {
            match key.as_str() {
                "retention.ms" if value.parse::<i64>().is_err() => {
                    return Err(ApiError::invalid_config(format!(
                        "Invalid value {value} for configuration retention.ms: Not a number of type LONG"
                    )));
                }
                "retention.ms" | "cleanup.policy" | "unclean.leader.election.enable" | "min.insync.replicas" => {}
                other => {
                    return Err(ApiError::new(
                        ResponseError::InvalidConfig,
                        format!("Unknown topic config name: {other}"),
                    ));
                }
            }
        }
        Ok(())
    }
    fn is_list(&self, _: ConfigResourceType, key: &str) -> bool {
        key == "cleanup.policy"
    }
    fn default_value(&self, _: ConfigResourceType, key: &str) -> Option<String> {
        (key == "cleanup.policy").then(|| "delete".into())
    }
    fn effective_topic_configs(&self, _: &MetadataImage, overrides: &BTreeMap<String, String>) -> Vec<EffectiveConfig> {
        let entry = |(name, value): (&String, &String)| EffectiveConfig {
            name: name.clone(),
            value: Some(value.clone()),
            read_only: false,
            source: 1,
            is_sensitive: false,
        };
        overrides.iter().map(entry).collect()
    }
    fn effective_topic_value(
        &self,
        _: &MetadataImage,
        overrides: Option<&BTreeMap<String, String>>,
        key: &str,
    ) -> Option<String> {
        let default = (key == "min.insync.replicas").then(|| "1".into());
        overrides.and_then(|overrides| overrides.get(key)).cloned().or(default)
    }
}

/// Runs a step function with test context.
pub(crate) fn with_context<R>(run: impl FnOnce(&mut StepContext<'_>) -> R) -> R {
    with_settings(ControllerSettings::default(), run)
}

pub(crate) fn with_settings<R>(settings: ControllerSettings, run: impl FnOnce(&mut StepContext<'_>) -> R) -> R {
    run(&mut StepContext {
        settings: &settings,
        schema: &TestSchema,
        entropy: &mut TestEntropy(1),
        now_ms: 0,
        next_write_offset: 100,
    })
}

pub(crate) fn apply(image: &mut MetadataImage, records: &[MetadataRecord]) {
    let mut delta = MetadataDelta::default();
    for record in records {
        // The records are encoded and decoded, so that tests apply the same records as a replay.
        let record = MetadataRecord::decode(&record.to_bytes()).unwrap();
        image.apply(&record, &mut delta).unwrap();
    }
}

/// Brokers that are registered and unfenced, each with one directory.
pub(crate) fn image_with_brokers(ids: &[BrokerId]) -> MetadataImage {
    let mut image = MetadataImage { cluster_id: "cluster".into(), ..Default::default() };
    for id in ids {
        let directory = Uuid::from_u128(1000 + *id as u128);
        let record = RegisterBrokerRecord {
            broker_id: *id,
            broker_epoch: 5,
            fenced: false,
            log_dirs: vec![directory],
            ..Default::default()
        };
        apply(&mut image, &[record.into()]);
    }
    image
}

pub(crate) fn edit_broker(image: &mut MetadataImage, id: BrokerId, edit: impl FnOnce(&mut BrokerRegistration)) {
    let broker = Arc::make_mut(&mut image.brokers).get_mut(&id).unwrap();
    edit(Arc::make_mut(broker));
}

pub(crate) fn add_topic(image: &mut MetadataImage, name: &str, partitions: &[&[BrokerId]]) {
    let topic_id = Uuid::from_u128(u128::from(crate::protocol::record_batch::crc32c(name.as_bytes())) | 1 << 90);
    apply(image, &[TopicRecord { name: name.into(), topic_id }.into()]);
    for (at, replicas) in partitions.iter().enumerate() {
        let record =
            partitions::new_partition(image, crate::types::TopicId(topic_id), at as i32, replicas, replicas.to_vec());
        apply(image, &[record]);
    }
}

pub(crate) fn set_config(image: &mut MetadataImage, topic: &str, name: &str, value: &str) {
    apply(
        image,
        &[ConfigRecord { resource_type: 2, resource_name: topic.into(), name: name.into(), value: Some(value.into()) }
            .into()],
    );
}
