//! Dynamic settings of topics, brokers, client metrics and groups (Apache: `ConfigurationControlManager`).
//!
//! Owns the changes of stored values. Leaves the check of a value to the schema (`config`). The broker that receives
//! the request checks whether a broker setting can change while it runs (`api/incremental_alter_configs.rs`).

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError;

use super::{
    ApiError, ConfigSchema, Step, StepContext, check_records, partitions::clear_elr, topics::validate_topic_name,
};
use crate::metadata::{
    image::{ConfigResource, ConfigResourceType, MetadataImage},
    records::{ConfigRecord, MetadataRecord},
};

/// At most this many settings per resource, since every change of a resource checks all of them. It is five times the
/// number of settings that exist.
const MAX_CONFIGS_PER_RESOURCE: usize = 2_000;

const MIN_ISR: &str = "min.insync.replicas";

/// What to do with one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlterOp {
    Set,
    Delete,
    /// Adds to a list.
    Append,
    /// Takes from a list.
    Subtract,
}

impl AlterOp {
    /// Returns None for a number that Kafka does not define.
    pub fn from_id(id: i8) -> Option<Self> {
        Some(match id {
            0 => AlterOp::Set,
            1 => AlterOp::Delete,
            2 => AlterOp::Append,
            3 => AlterOp::Subtract,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            AlterOp::Set => "SET",
            AlterOp::Delete => "DELETE",
            AlterOp::Append => "APPEND",
            AlterOp::Subtract => "SUBTRACT",
        }
    }
}

/// One key's change.
pub type ConfigChange = (String, AlterOp, Option<String>);

/// IncrementalAlterConfigs. Resources are distinct.
#[derive(Debug, Clone, Default)]
pub struct IncrementalAlterConfigs {
    pub resources: Vec<(ConfigResource, Vec<ConfigChange>)>,
    pub validate_only: bool,
}

/// AlterConfigs: settings that the request does not name are deleted. Resources are distinct.
#[derive(Debug, Clone, Default)]
pub struct LegacyAlterConfigs {
    pub resources: Vec<(ConfigResource, BTreeMap<String, String>)>,
    pub validate_only: bool,
}

/// One result per resource, in the order of the request.
pub type AlterConfigsReply = Vec<Result<(), ApiError>>;

/// A6: all changes of a resource are made, or none.
pub fn incremental_alter_configs(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    request: IncrementalAlterConfigs,
) -> Step<AlterConfigsReply> {
    let altered = request
        .resources
        .iter()
        .map(|(resource, changes)| alter_resource(image, context.schema, resource, changes, false));
    collect(image, context, altered, request.validate_only)
}

/// A6 for AlterConfigs, which replaces all settings of a resource.
pub fn legacy_alter_configs(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    request: LegacyAlterConfigs,
) -> Step<AlterConfigsReply> {
    let altered = request.resources.iter().map(|(resource, configs)| {
        let changed = configs.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
        let current = image.config(resource).into_iter().flatten();
        let deleted = current.filter(|(key, _)| !configs.contains_key(*key)).map(|(key, _)| (key.clone(), None));
        write_resource(image, context.schema, resource, changed.chain(deleted).collect(), false)
    });
    collect(image, context, altered, request.validate_only)
}

fn collect(
    image: &MetadataImage,
    context: &StepContext<'_>,
    altered: impl Iterator<Item = Result<Vec<MetadataRecord>, ApiError>>,
    validate_only: bool,
) -> Step<AlterConfigsReply> {
    let (mut records, mut reply) = (Vec::new(), Vec::new());
    for result in altered {
        reply.push(result.map(|mut new| records.append(&mut new)));
    }
    if let Err(error) = check_records(image, context.settings, &records) {
        return Step::reply(vec![Err(error); reply.len()]);
    }
    records.extend(elr_changes(image, &records));
    Step { records, reply }.without_records_if(validate_only)
}

/// The changes of eligible leaders that changes of `min.insync.replicas` cause.
fn elr_changes(image: &MetadataImage, records: &[MetadataRecord]) -> Vec<MetadataRecord> {
    let changed = |record: &MetadataRecord| match record {
        MetadataRecord::Config(config) if config.name == MIN_ISR => {
            let is_topic = config.resource_type == ConfigResourceType::Topic.id();
            Some(is_topic.then(|| config.resource_name.clone()))
        }
        _ => None,
    };
    let changed: BTreeSet<Option<String>> = records.iter().filter_map(changed).collect();
    if changed.contains(&None) {
        return clear_elr(image, None).collect();
    }
    changed.iter().flat_map(|topic| clear_elr(image, topic.as_deref())).collect()
}

/// Returns the records that change one resource. `is_new` is true if the same step creates the resource.
pub(super) fn alter_resource(
    image: &MetadataImage,
    schema: &dyn ConfigSchema,
    resource: &ConfigResource,
    changes: &[ConfigChange],
    is_new: bool,
) -> Result<Vec<MetadataRecord>, ApiError> {
    let mut values: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (key, op, operand) in changes {
        let current = image.config(resource).and_then(|configs| configs.get(key));
        let value = match op {
            AlterOp::Set => operand.clone(),
            AlterOp::Delete => None,
            AlterOp::Append | AlterOp::Subtract => {
                if !schema.is_list(resource.resource_type, key) {
                    let message = format!("Can't {} to key {key} because its type is not LIST.", op.name());
                    return Err(ApiError::invalid_config(message));
                }
                let current = current.cloned().or_else(|| schema.default_value(resource.resource_type, key));
                Some(change_list(&current.unwrap_or_default(), *op, operand.as_deref().unwrap_or_default()))
            }
        };
        values.insert(key.clone(), value);
    }
    write_resource(image, schema, resource, values.into_iter().collect(), is_new)
}

pub(crate) fn change_list(current: &str, op: AlterOp, operand: &str) -> String {
    let mut parts: Vec<&str> = current.split(',').filter(|part| !part.is_empty()).collect();
    match op {
        AlterOp::Append => {
            let mut present: BTreeSet<&str> = parts.iter().copied().collect();
            parts.extend(operand.split(',').filter(|part| present.insert(part)));
        }
        AlterOp::Subtract => {
            // Each part of the operand removes one matching part of the list, the first.
            let mut mentions: BTreeMap<&str, usize> = BTreeMap::new();
            operand.split(',').for_each(|part| *mentions.entry(part).or_default() += 1);
            parts.retain(|part| match mentions.get_mut(part) {
                Some(left @ 1..) => {
                    *left -= 1;
                    false
                }
                _ => true,
            });
        }
        AlterOp::Set | AlterOp::Delete => {}
    }
    parts.join(",")
}

/// Validates the values that the resource would have, and returns the records for the change. The value None deletes a
/// key.
fn write_resource(
    image: &MetadataImage,
    schema: &dyn ConfigSchema,
    resource: &ConfigResource,
    values: Vec<(String, Option<String>)>,
    is_new: bool,
) -> Result<Vec<MetadataRecord>, ApiError> {
    let current = image.config(resource).cloned().unwrap_or_default();
    let (mut all, mut records) = (current.clone(), Vec::new());
    check_min_isr(image, resource, &values)?;
    for (name, value) in values {
        if value.as_ref().is_some_and(|value| value.encode_utf16().count() > i16::MAX as usize) {
            let message = format!(
                "The configuration value cannot be added because it exceeds the maximum value size of {} bytes.",
                i16::MAX
            );
            return Err(ApiError::invalid_config(message));
        }
        // A record makes brokers reload, even if the value is the same (KAFKA-14136).
        let is_change = current.get(&name) != value.as_ref() || resource.resource_type == ConfigResourceType::Broker;
        match &value {
            Some(value) => _ = all.insert(name.clone(), value.clone()),
            None => _ = all.remove(&name),
        }
        if is_change {
            let (resource_type, resource_name) = (resource.resource_type.id(), resource.name.clone());
            records.push(ConfigRecord { resource_type, resource_name, name, value }.into());
        }
    }
    if all.len() > MAX_CONFIGS_PER_RESOURCE {
        let message = format!("A resource may have {MAX_CONFIGS_PER_RESOURCE} settings at most.");
        return Err(ApiError::new(ResponseError::PolicyViolation, message));
    }
    validate_resource(resource)?;
    schema.validate(resource, &all)?;
    if !is_new {
        check_exists(image, resource)?;
    }
    Ok(records)
}

/// With eligible leader replicas all brokers must have one `min.insync.replicas` (KIP-966). Apache:
/// `isDisallowedBrokerMinIsrTransition`, `isDisallowedClusterMinIsrTransition`.
fn check_min_isr(
    image: &MetadataImage,
    resource: &ConfigResource,
    values: &[(String, Option<String>)],
) -> Result<(), ApiError> {
    let is_restricted = resource.resource_type == ConfigResourceType::Broker && image.is_elr_enabled();
    // linear: it is read once for a request
    let change = values.iter().find(|(name, _)| name == MIN_ISR).filter(|_| is_restricted);
    let refused = match change {
        Some(_) if !resource.name.is_empty() => "Broker-level min.insync.replicas cannot be altered",
        Some((_, None)) => "Cluster-level min.insync.replicas cannot be removed",
        _ => return Ok(()),
    };
    Err(ApiError::invalid_config(format!("{refused} while ELR is enabled.")))
}

/// The records that make `min.insync.replicas` one setting of the whole cluster, before eligible leader replicas are
/// enabled. A cluster without it gets this node's. Apache: `maybeGenerateElrSafetyRecords`.
pub(super) fn unify_min_isr(image: &MetadataImage, schema: &dyn ConfigSchema) -> Vec<MetadataRecord> {
    let record = |resource_name: &str, value| {
        let resource_type = ConfigResourceType::Broker.id();
        ConfigRecord { resource_type, resource_name: resource_name.into(), name: MIN_ISR.into(), value }.into()
    };
    let has_value = |resource: &ConfigResource| image.config(resource).is_some_and(|all| all.contains_key(MIN_ISR));
    let mut records = Vec::new();
    if !has_value(&ConfigResource::default_broker()) {
        records.push(record("", schema.effective_topic_value(&MetadataImage::default(), None, MIN_ISR)));
    }
    let of_brokers = image.configs.keys().filter(|resource| {
        resource.resource_type == ConfigResourceType::Broker && !resource.name.is_empty() && has_value(resource)
    });
    records.extend(of_brokers.map(|resource| record(&resource.name, None)));
    records
}

/// The part of Apache's `ControllerConfigurationValidator` about resource names.
fn validate_resource(resource: &ConfigResource) -> Result<(), ApiError> {
    match resource.resource_type {
        ConfigResourceType::Topic if resource.name.is_empty() => {
            Err(ApiError::invalid_request("Default topic resources are not allowed."))
        }
        ConfigResourceType::Topic => validate_topic_name(&resource.name),
        ConfigResourceType::Broker if resource.name.is_empty() => Ok(()),
        ConfigResourceType::Broker => match resource.name.parse::<i32>() {
            Err(_) => Err(ApiError::invalid_request("Unable to parse broker name as a base 10 number.")),
            Ok(..0) => Err(ApiError::invalid_request("Invalid negative broker ID.")),
            Ok(_) => Ok(()),
        },
        ConfigResourceType::Group if resource.name.is_empty() => {
            Err(ApiError::invalid_request("Default group resources are not allowed."))
        }
        ConfigResourceType::Group | ConfigResourceType::ClientMetrics => Ok(()),
        ConfigResourceType::BrokerLogger => Err(ApiError::invalid_request("Unknown resource type BROKER_LOGGER")),
        ConfigResourceType::Unknown => Err(ApiError::invalid_request("Unknown resource type UNKNOWN")),
    }
}

/// Apache: `QuorumController.ConfigResourceExistenceChecker`.
fn check_exists(image: &MetadataImage, resource: &ConfigResource) -> Result<(), ApiError> {
    match resource.resource_type {
        ConfigResourceType::Topic if image.topic(&resource.name).is_none() => {
            let message = format!("The topic '{}' does not exist.", resource.name);
            Err(ApiError::new(ResponseError::UnknownTopicOrPartition, message))
        }
        ConfigResourceType::Broker if !resource.name.is_empty() => match resource.name.parse() {
            Ok(id) if image.broker(id).is_some() => Ok(()),
            _ => Err(ApiError::new(
                ResponseError::BrokerIdNotRegistered,
                format!("No node with id {} found.", resource.name),
            )),
        },
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::*;

    #[test]
    fn c6_another_min_insync_replicas_empties_the_elr_of_partitions_that_have_an_isr() {
        let mut image = image_with_brokers(&[1, 2]);
        for topic in ["t", "u"] {
            add_topic(&mut image, topic, &[&[1, 2], &[1, 2]]);
            for (partition_id, isr) in [(0, vec![1]), (1, vec![])] {
                let topic_id = image.topic_id(topic).unwrap().0;
                let change = crate::metadata::records::PartitionChangeRecord {
                    partition_id,
                    topic_id,
                    isr: Some(isr),
                    eligible_leader_replicas: Some(vec![2]),
                    ..Default::default()
                };
                apply(&mut image, &[change.into()]);
            }
        }
        let elrs = |image: &MetadataImage| {
            let topics = image.topics.by_name.values().flat_map(|topic| topic.partitions.values());
            topics.map(|partition| partition.elr.len()).collect::<Vec<_>>()
        };
        let resources = |resource: ConfigResource| {
            let change = ("min.insync.replicas".to_owned(), AlterOp::Set, Some("1".to_owned()));
            IncrementalAlterConfigs { resources: vec![(resource, vec![change])], validate_only: false }
        };
        let mut alter = |resource: ConfigResource| {
            let request = resources(resource);
            let step = with_context(|context| incremental_alter_configs(&image, context, request));
            assert_eq!(step.reply, [Ok(())]);
            apply(&mut image, &step.records);
            elrs(&image)
        };
        assert_eq!(alter(ConfigResource::topic("t")), [0, 1, 1, 1], "with an empty ISR the ELR must stay");
        assert_eq!(alter(ConfigResource::default_broker()), [0, 1, 0, 1]);
    }

    fn alter(
        image: &mut MetadataImage,
        resource: ConfigResource,
        key: &str,
        op: AlterOp,
        value: Option<&str>,
    ) -> Result<usize, ApiError> {
        let changes = vec![(key.to_owned(), op, value.map(str::to_owned))];
        let request = IncrementalAlterConfigs { resources: vec![(resource, changes)], validate_only: false };
        let mut step = with_context(|context| incremental_alter_configs(image, context, request));
        apply(image, &step.records);
        step.reply.remove(0).map(|()| step.records.len())
    }

    fn image() -> MetadataImage {
        let mut image = image_with_brokers(&[1]);
        add_topic(&mut image, "t", &[&[1]]);
        image
    }

    #[test]
    fn a6_a_list_is_changed_in_time_that_follows_its_length() {
        assert_eq!(change_list("a,b,a", AlterOp::Append, "b,c,c,d"), "a,b,a,c,d");
        assert_eq!(change_list("a,b,a,c", AlterOp::Subtract, "a,c,c,x"), "b,a");
        assert_eq!(change_list("", AlterOp::Append, "a"), "a");
        let parts: Vec<String> = (0..200_000).map(|number| number.to_string()).collect();
        let (list, reversed) = (parts.join(","), parts.iter().rev().cloned().collect::<Vec<_>>().join(","));
        // Comparing each part with each other would take 4 * 10^10 steps.
        assert_eq!(change_list(&list, AlterOp::Append, &reversed), list);
        assert_eq!(change_list(&list, AlterOp::Subtract, &reversed), "");
    }

    #[test]
    fn a6_one_resource_has_a_bounded_number_of_settings() {
        let image = image();
        let changes = |count: usize| (0..count).map(|n| (format!("my.{n}"), AlterOp::Set, Some("v".into()))).collect();
        let resource = ConfigResource::default_broker();
        let alter = |count| {
            let resources = vec![(resource.clone(), changes(count))];
            let request = IncrementalAlterConfigs { resources, validate_only: false };
            with_context(|context| incremental_alter_configs(&image, context, request)).reply.remove(0)
        };
        assert_eq!(alter(MAX_CONFIGS_PER_RESOURCE), Ok(()));
        assert_eq!(alter(MAX_CONFIGS_PER_RESOURCE + 1).unwrap_err().error, ResponseError::PolicyViolation);
    }

    #[test]
    fn a6_set_delete_append_and_subtract() {
        let mut image = image();
        let topic = || ConfigResource::topic("t");
        let value =
            |image: &MetadataImage, key: &str| image.topic_config("t").and_then(|configs| configs.get(key).cloned());
        assert_eq!(alter(&mut image, topic(), "retention.ms", AlterOp::Set, Some("5")), Ok(1));
        assert_eq!(
            alter(&mut image, topic(), "retention.ms", AlterOp::Set, Some("5")),
            Ok(0),
            "an unchanged value writes no record"
        );
        assert_eq!(value(&image, "retention.ms").as_deref(), Some("5"));
        assert_eq!(alter(&mut image, topic(), "retention.ms", AlterOp::Delete, None), Ok(1));
        assert_eq!(value(&image, "retention.ms"), None);
        assert_eq!(alter(&mut image, topic(), "cleanup.policy", AlterOp::Append, Some("compact")), Ok(1));
        assert_eq!(value(&image, "cleanup.policy").as_deref(), Some("delete,compact"), "appended to the default");
        assert_eq!(alter(&mut image, topic(), "cleanup.policy", AlterOp::Subtract, Some("delete")), Ok(1));
        assert_eq!(value(&image, "cleanup.policy").as_deref(), Some("compact"));
        let not_a_list = ApiError::invalid_config("Can't APPEND to key retention.ms because its type is not LIST.");
        assert_eq!(alter(&mut image, topic(), "retention.ms", AlterOp::Append, Some("5")), Err(not_a_list));
    }

    #[test]
    fn a6_bad_keys_values_and_resources() {
        let mut image = image();
        let mut fails = |resource: ConfigResource, key: &str, value: &str| {
            alter(&mut image, resource, key, AlterOp::Set, Some(value)).unwrap_err()
        };
        let broker = |name: &str| ConfigResource::new(ConfigResourceType::Broker, name);
        assert_eq!(
            fails(ConfigResource::topic("t"), "foo.bar", "1"),
            ApiError::invalid_config("Unknown topic config name: foo.bar")
        );
        assert_eq!(fails(ConfigResource::topic("t"), "retention.ms", "x").error, ResponseError::InvalidConfig);
        let unknown = ApiError::new(ResponseError::UnknownTopicOrPartition, "The topic 'no' does not exist.");
        assert_eq!(fails(ConfigResource::topic("no"), "retention.ms", "1"), unknown);
        assert_eq!(
            fails(ConfigResource::topic(""), "retention.ms", "1"),
            ApiError::invalid_request("Default topic resources are not allowed.")
        );
        assert_eq!(
            fails(broker("x"), "k", "1"),
            ApiError::invalid_request("Unable to parse broker name as a base 10 number.")
        );
        assert_eq!(fails(broker("-1"), "k", "1"), ApiError::invalid_request("Invalid negative broker ID."));
        assert_eq!(
            fails(broker("7"), "k", "1"),
            ApiError::new(ResponseError::BrokerIdNotRegistered, "No node with id 7 found.")
        );
        let long = "x".repeat(32768);
        assert!(
            fails(broker(""), "k", &long).message.unwrap().contains("exceeds the maximum value size of 32767 bytes")
        );
    }

    #[test]
    fn a6_broker_settings_are_written_again_even_when_unchanged() {
        let mut image = image();
        for _ in 0..2 {
            assert_eq!(alter(&mut image, ConfigResource::default_broker(), "k", AlterOp::Set, Some("v")), Ok(1));
        }
        assert_eq!(alter(&mut image, ConfigResource::broker(1), "k", AlterOp::Set, Some("v")), Ok(1));
    }

    #[test]
    fn a6_validate_only_and_atomicity_per_resource() {
        let image = image();
        let good = (ConfigResource::topic("t"), vec![("retention.ms".to_owned(), AlterOp::Set, Some("1".to_owned()))]);
        let bad = (
            ConfigResource::topic("t2"),
            vec![
                ("retention.ms".to_owned(), AlterOp::Set, Some("1".to_owned())),
                ("nope".to_owned(), AlterOp::Set, Some("1".to_owned())),
            ],
        );
        let run = |validate_only| {
            let request = IncrementalAlterConfigs { resources: vec![good.clone(), bad.clone()], validate_only };
            with_context(|context| incremental_alter_configs(&image, context, request))
        };
        assert_eq!(run(false).records.len(), 1, "no record for the invalid resource");
        let step = run(true);
        assert!(step.records.is_empty() && step.reply[0].is_ok() && step.reply[1].is_err());
    }

    #[test]
    fn a6_alter_configs_replaces_everything() {
        let mut image = image();
        set_config(&mut image, "t", "retention.ms", "1");
        set_config(&mut image, "t", "cleanup.policy", "compact");
        let configs = BTreeMap::from([("retention.ms".to_owned(), "2".to_owned())]);
        let request =
            LegacyAlterConfigs { resources: vec![(ConfigResource::topic("t"), configs.clone())], validate_only: false };
        let step = with_context(|context| legacy_alter_configs(&image, context, request));
        assert_eq!(step.reply, [Ok(())]);
        apply(&mut image, &step.records);
        assert_eq!(image.topic_config("t"), Some(&configs));
    }
}
