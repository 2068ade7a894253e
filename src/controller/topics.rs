//! Topics: creation, deletion, adding partitions, and the check of names.
//!
//! Owns the topic half of Apache's `ReplicationControlManager` and the request checks of `ControllerApis`. Leaves the
//! placement of replicas to `partitions.rs` and the check of settings to `configs.rs`.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use kafka_protocol::error::ResponseError;

use super::{
    ApiError, EffectiveConfig, Step, StepContext, check_records,
    configs::{self, AlterOp},
    partitions::{active_replicas, new_partition, place, validate_manual_assignment},
    too_many_records,
};
use crate::{
    metadata::{
        image::{ConfigResource, MetadataImage},
        records::{MetadataRecord, RemoveTopicRecord, TopicRecord},
    },
    types::{BrokerId, CLUSTER_METADATA_TOPIC, TopicId, is_internal_topic},
};

const MAX_NAME_LENGTH: usize = 249;
/// Apache: `ReplicationControlManager.MAX_PARTITIONS_PER_BATCH`.
const MAX_PARTITIONS_PER_BATCH: usize = 10_000;

/// Apache: `Topic.validate` (M3). The messages are those of the InvalidTopicException.
pub fn validate_topic_name(name: &str) -> Result<(), ApiError> {
    let reason = match name {
        "" => "the empty string is not allowed".to_owned(),
        "." => "'.' is not allowed".to_owned(),
        ".." => "'..' is not allowed".to_owned(),
        // Java counts UTF-16 code units.
        name if name.encode_utf16().count() > MAX_NAME_LENGTH => {
            format!("the length of '{name}' is longer than the max allowed length {MAX_NAME_LENGTH}")
        }
        name if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) => {
            format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
        }
        _ => return Ok(()),
    };
    Err(ApiError::new(ResponseError::InvalidTopicException, format!("Topic name is invalid: {reason}")))
}

/// One topic to create.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CreatableTopic {
    pub name: String,
    /// -1 for `num.partitions`, or with manual assignments.
    pub num_partitions: i32,
    /// -1 for `default.replication.factor`, or with manual assignments.
    pub replication_factor: i16,
    /// Manual assignments: each partition with its replicas.
    pub assignments: Vec<(i32, Vec<BrokerId>)>,
    pub configs: Vec<(String, Option<String>)>,
}

/// CreateTopics.
#[derive(Debug, Clone, Default)]
pub struct CreateTopics {
    pub topics: Vec<CreatableTopic>,
    pub validate_only: bool,
}

/// The properties of a created topic.
#[derive(Debug, Clone, PartialEq)]
pub struct CreatedTopic {
    pub topic_id: TopicId,
    pub num_partitions: i32,
    pub replication_factor: i16,
    /// All settings in effect, sorted by name.
    pub configs: Vec<EffectiveConfig>,
}

/// One result per topic, or an error of the whole request.
pub type CreateTopicsReply = Result<Vec<(String, Result<CreatedTopic, ApiError>)>, ApiError>;

/// A1: creates topics. A topic that cannot be created does not affect the others.
pub fn create_topics(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    request: CreateTopics,
) -> Step<CreateTopicsReply> {
    let (topics, refused) = partition_duplicates(request.topics, |topic| &topic.name);
    if let Err(error) = validate_total_partitions(&topics, context.settings.default_num_partitions) {
        return Step::reply(Err(error));
    }
    let (mut records, mut replies) = (Vec::new(), Vec::new());
    // Like Kafka, this checks for collisions with existing topics only, not between two names of one request.
    for topic in topics {
        let result = if topic.name == CLUSTER_METADATA_TOPIC {
            Err(ApiError::invalid_request(format!(
                "Creation of internal topic {CLUSTER_METADATA_TOPIC} is prohibited."
            )))
        } else {
            create_topic(image, context, &topic, &mut records)
        };
        replies.push((topic.name, result));
    }
    replies.extend(refused.into_iter().map(|name| (name, Err(ApiError::invalid_request("Duplicate topic name.")))));
    if let Err(error) = check_records(image, context.settings, &records) {
        return Step::reply(Err(error));
    }
    Step { records, reply: Ok(replies) }.without_records_if(request.validate_only)
}

/// Removes all elements whose key occurs more than once, and returns those keys.
pub(super) fn partition_duplicates<T>(elements: Vec<T>, key: impl Fn(&T) -> &String) -> (Vec<T>, BTreeSet<String>) {
    let (mut seen, mut duplicates) = (HashSet::new(), BTreeSet::new());
    for element in &elements {
        if !seen.insert(key(element).clone()) {
            duplicates.insert(key(element).clone());
        }
    }
    (elements.into_iter().filter(|element| !duplicates.contains(key(element))).collect(), duplicates)
}

impl CreatableTopic {
    pub(super) fn partition_count(&self, default_num_partitions: i32) -> usize {
        match (self.assignments.len(), self.num_partitions) {
            (0, -1) => usize::try_from(default_num_partitions).unwrap_or(0),
            (0, count) => usize::try_from(count).unwrap_or(0),
            (assignments, _) => assignments,
        }
    }
}

pub(super) fn validate_total_partitions(
    topics: &[CreatableTopic],
    default_num_partitions: i32,
) -> Result<(), ApiError> {
    let count = |topic: &CreatableTopic| topic.partition_count(default_num_partitions);
    if topics.iter().map(count).fold(0, usize::saturating_add) > MAX_PARTITIONS_PER_BATCH {
        return Err(ApiError::new(
            ResponseError::PolicyViolation,
            "Excessively large number of partitions per request.",
        ));
    }
    Ok(())
}

fn create_topic(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    topic: &CreatableTopic,
    records: &mut Vec<MetadataRecord>,
) -> Result<CreatedTopic, ApiError> {
    if image.topic(&topic.name).is_some() {
        return Err(ApiError::new(
            ResponseError::TopicAlreadyExists,
            format!("Topic '{}' already exists.", topic.name),
        ));
    }
    validate_topic_name(&topic.name)?;
    if let Some(existing) = image.topics.collision(&topic.name) {
        let message = format!("Topic '{}' collides with existing topic: {existing}", topic.name);
        return Err(ApiError::new(ResponseError::InvalidTopicException, message));
    }
    let configs = creation_configs(topic)?;
    let changes =
        configs.iter().map(|(key, value)| (key.clone(), AlterOp::Set, Some(value.clone()))).collect::<Vec<_>>();
    let config_records =
        configs::alter_resource(image, context.schema, &ConfigResource::topic(&topic.name), &changes, true)?;
    let assignments = if topic.assignments.is_empty() {
        automatic_assignments(image, context, topic)?
    } else {
        manual_assignments(image, topic)?
    };
    let topic_id = TopicId(context.entropy.uuid());
    records.push(TopicRecord { name: topic.name.clone(), topic_id: topic_id.0 }.into());
    // The settings come before the partitions, so that they are known when the log is opened.
    records.extend(config_records);
    let (num_partitions, replication_factor) =
        (assignments.len() as i32, assignments.first().map_or(0, |(replicas, _)| replicas.len()) as i16);
    for (partition, (replicas, isr)) in assignments.into_iter().enumerate() {
        records.push(new_partition(image, topic_id, partition as i32, &replicas, isr));
    }
    let configs = context.schema.effective_topic_configs(image, &configs);
    Ok(CreatedTopic { topic_id, num_partitions, replication_factor, configs })
}

fn creation_configs(topic: &CreatableTopic) -> Result<BTreeMap<String, String>, ApiError> {
    let mut configs = BTreeMap::new();
    let mut null = Vec::new();
    for (key, value) in &topic.configs {
        match value {
            Some(value) => {
                configs.insert(key.clone(), value.clone());
            }
            None => null.push(key.as_str()),
        }
    }
    if null.is_empty() {
        Ok(configs)
    } else {
        Err(ApiError::invalid_config(format!("Null value not supported for topic configs: {}", null.join(","))))
    }
}

/// Replicas and ISR of each partition.
type Assignments = Vec<(Vec<BrokerId>, Vec<BrokerId>)>;

fn manual_assignments(image: &MetadataImage, topic: &CreatableTopic) -> Result<Assignments, ApiError> {
    if topic.replication_factor != -1 {
        return Err(ApiError::invalid_request(
            "A manual partition assignment was specified, but replication factor was not set to -1.",
        ));
    }
    if topic.num_partitions != -1 {
        return Err(ApiError::invalid_request(
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        ));
    }
    let invalid = |message: String| ApiError::new(ResponseError::InvalidReplicaAssignment, message);
    let (mut partitions, mut replication_factor) = (BTreeMap::new(), None);
    for (partition, replicas) in &topic.assignments {
        if partitions.contains_key(partition) {
            return Err(invalid(format!("Found multiple manual partition assignments for partition {partition}")));
        }
        validate_manual_assignment(image, replicas, replication_factor)?;
        replication_factor = Some(replicas.len());
        let isr = active_replicas(image, replicas);
        if isr.is_empty() {
            return Err(all_fenced(*partition));
        }
        partitions.insert(*partition, (replicas.clone(), isr));
    }
    if !partitions.keys().copied().eq(0..partitions.len() as i32) {
        return Err(invalid("partitions should be a consecutive 0-based integer sequence".into()));
    }
    Ok(partitions.into_values().collect())
}

fn all_fenced(partition: i32) -> ApiError {
    let message = format!(
        "All brokers specified in the manual partition assignment for partition {partition} are fenced or in controlled shutdown."
    );
    ApiError::new(ResponseError::InvalidReplicaAssignment, message)
}

fn automatic_assignments(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    topic: &CreatableTopic,
) -> Result<Assignments, ApiError> {
    if topic.replication_factor < -1 || topic.replication_factor == 0 {
        let message = "Replication factor must be larger than 0, or -1 to use the default value.";
        return Err(ApiError::new(ResponseError::InvalidReplicationFactor, message));
    }
    if topic.num_partitions < -1 || topic.num_partitions == 0 {
        return Err(ApiError::new(
            ResponseError::InvalidPartitions,
            "Number of partitions was set to an invalid non-positive value.",
        ));
    }
    let settings = context.settings;
    let count = if topic.num_partitions == -1 { settings.default_num_partitions } else { topic.num_partitions };
    let factor =
        if topic.replication_factor == -1 { settings.default_replication_factor } else { topic.replication_factor };
    place_active(image, context, count as usize, factor).map_err(|reason| {
        ApiError::new(
            ResponseError::InvalidReplicationFactor,
            format!("Unable to replicate the partition {factor} time(s): {reason}"),
        )
    })
}

fn place_active(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    count: usize,
    factor: i16,
) -> Result<Assignments, String> {
    let with_isr = |replicas: Vec<BrokerId>| {
        let isr = active_replicas(image, &replicas);
        if isr.is_empty() {
            Err("All brokers are currently fenced or in controlled shutdown.".to_owned())
        } else {
            Ok((replicas, isr))
        }
    };
    place(image, count, factor, context.entropy)?.into_iter().map(with_isr).collect()
}

/// A topic by name or by id, as in DeleteTopics version 6 and later. Before version 6 the id is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicReference {
    pub name: Option<String>,
    pub topic_id: TopicId,
}

/// DeleteTopics.
#[derive(Debug, Clone, Default)]
pub struct DeleteTopics {
    pub topics: Vec<TopicReference>,
}

/// The result for one topic of the request.
#[derive(Debug, Clone, PartialEq)]
pub struct DeletedTopic {
    pub name: Option<String>,
    pub topic_id: TopicId,
    pub result: Result<(), ApiError>,
}

/// One result per topic, or an error of the whole request.
pub type DeleteTopicsReply = Result<Vec<DeletedTopic>, ApiError>;

/// A2: deletes topics.
pub fn delete_topics(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    request: DeleteTopics,
) -> Step<DeleteTopicsReply> {
    if !context.settings.delete_topic_enable {
        return Step::reply(Err(ApiError::code_only(ResponseError::TopicDeletionDisabled)));
    }
    let mut replies = Vec::new();
    let mut reply = |name: Option<String>, topic_id: TopicId, result: Result<(), ApiError>| {
        replies.push(DeletedTopic { name, topic_id, result })
    };
    let (mut names, mut ids) = (Occurrences::default(), Occurrences::default());
    for topic in request.topics {
        match (topic.name, topic.topic_id.is_zero()) {
            (None, true) => {
                reply(None, TopicId::ZERO, Err(ApiError::invalid_request("Neither topic name nor id were specified.")))
            }
            (None, false) => ids.add(topic.topic_id),
            (Some(name), true) => names.add(name),
            (name, false) => reply(
                name,
                topic.topic_id,
                Err(ApiError::invalid_request("You may not specify both topic name and topic id.")),
            ),
        }
    }
    for name in names.repeated {
        reply(Some(name), TopicId::ZERO, Err(ApiError::invalid_request("Duplicate topic name.")));
    }
    for id in &ids.repeated {
        reply(None, *id, Err(ApiError::invalid_request("Duplicate topic id.")));
    }
    let mut to_delete: BTreeMap<TopicId, String> = BTreeMap::new();
    for id in ids.once {
        match image.topic_name(id) {
            Some(name) => _ = to_delete.insert(id, name.to_string()),
            None => reply(
                None,
                id,
                Err(ApiError::new(ResponseError::UnknownTopicId, "This server does not host this topic ID.")),
            ),
        }
    }
    let mut duplicate_ids = ids.repeated;
    for name in names.once {
        let Some(id) = image.topic_id(&name) else {
            let error = ApiError::new(
                ResponseError::UnknownTopicOrPartition,
                "This server does not host this topic-partition.",
            );
            reply(Some(name), TopicId::ZERO, Err(error));
            continue;
        };
        if duplicate_ids.contains(&id) || to_delete.insert(id, name.clone()).is_some() {
            duplicate_ids.insert(id);
            to_delete.remove(&id);
            reply(
                Some(name),
                id,
                Err(ApiError::invalid_request("The provided topic name maps to an ID that was already supplied.")),
            );
        }
    }
    let mut records = Vec::new();
    for (id, name) in to_delete {
        records.push(RemoveTopicRecord { topic_id: id.0 }.into());
        reply(Some(name), id, Ok(()));
    }
    match check_records(image, context.settings, &records) {
        Ok(()) => Step { records, reply: Ok(replies) },
        Err(error) => Step::reply(Err(error)),
    }
}

/// The items that occur once, and those that occur more than once.
struct Occurrences<T> {
    once: BTreeSet<T>,
    repeated: BTreeSet<T>,
}

impl<T> Default for Occurrences<T> {
    fn default() -> Self {
        Occurrences { once: BTreeSet::new(), repeated: BTreeSet::new() }
    }
}

impl<T: Ord + Clone> Occurrences<T> {
    fn add(&mut self, item: T) {
        if self.repeated.contains(&item) {
            return;
        }
        if !self.once.insert(item.clone()) {
            self.once.remove(&item);
            self.repeated.insert(item);
        }
    }
}

/// One topic to which partitions are added.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewPartitions {
    pub name: String,
    /// The new total number of partitions.
    pub count: i32,
    /// Replicas of each added partition. With None the controller places them.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

/// CreatePartitions.
#[derive(Debug, Clone, Default)]
pub struct CreatePartitions {
    pub topics: Vec<NewPartitions>,
    pub validate_only: bool,
}

/// One result per topic, or an error of the whole request.
pub type CreatePartitionsReply = Result<Vec<(String, Result<(), ApiError>)>, ApiError>;

/// A3: adds partitions to topics.
pub fn create_partitions(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    request: CreatePartitions,
) -> Step<CreatePartitionsReply> {
    let (topics, refused) = partition_duplicates(request.topics, |topic| &topic.name);
    let mut replies: Vec<_> =
        refused.into_iter().map(|name| (name, Err(ApiError::invalid_request("Duplicate topic name.")))).collect();
    let mut records = Vec::new();
    for topic in topics {
        let result = add_partitions(image, context, &topic, &mut records);
        replies.push((topic.name, result));
        if let Err(error) = check_records(image, context.settings, &records) {
            return Step::reply(Err(error));
        }
    }
    Step { records, reply: Ok(replies) }.without_records_if(request.validate_only)
}

fn add_partitions(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    request: &NewPartitions,
    records: &mut Vec<MetadataRecord>,
) -> Result<(), ApiError> {
    let topic = image.topic(&request.name).ok_or(ApiError::code_only(ResponseError::UnknownTopicOrPartition))?;
    let current = topic.partitions.len() as i32;
    if is_internal_topic(&request.name) {
        // A group is stored in the partition that is its hash modulo the number of partitions, so after a change all
        // groups would be lost. Apache's broker allows the change; its kafka-topics tool refuses it for the offsets
        // topic with this message.
        let message = format!("The number of partitions for the internal topic {} cannot be changed.", request.name);
        return Err(ApiError::new(ResponseError::InvalidRequest, message));
    }
    if request.count == current {
        return Err(ApiError::new(
            ResponseError::InvalidPartitions,
            format!("Topic already has {current} partition(s)."),
        ));
    }
    if request.count < current {
        let message = format!(
            "The topic {} currently has {current} partition(s); {} would not be an increase.",
            request.name, request.count
        );
        return Err(ApiError::new(ResponseError::InvalidPartitions, message));
    }
    let additional = (request.count - current) as usize;
    if additional > MAX_PARTITIONS_PER_BATCH {
        return Err(too_many_records());
    }
    if let Some(assignments) = &request.assignments
        && assignments.len() != additional
    {
        let message = format!(
            "Attempted to add {additional} additional partition(s), but only {} assignment(s) were specified.",
            assignments.len()
        );
        return Err(ApiError::new(ResponseError::InvalidReplicaAssignment, message));
    }
    let factor = topic.partitions.values().next().map_or(0, |partition| partition.replicas.len());
    let assignments = match &request.assignments {
        Some(assignments) => manual_additions(image, assignments, current, factor)?,
        // Here, unlike in CreateTopics, Kafka passes on the placer's reason without a prefix, but prefixes its own
        // reason.
        None => place(image, additional, factor as i16, context.entropy)
            .map_err(|reason| ApiError::new(ResponseError::InvalidReplicationFactor, reason))?
            .into_iter()
            .map(|replicas| {
                let isr = active_replicas(image, &replicas);
                if isr.is_empty() {
                    let message =
                        format!("Unable to replicate the partition {factor} time(s): All brokers are currently fenced or in controlled shutdown.");
                    return Err(ApiError::new(ResponseError::InvalidReplicationFactor, message));
                }
                Ok((replicas, isr))
            })
            .collect::<Result<Assignments, ApiError>>()?,
    };
    for (at, (replicas, isr)) in assignments.into_iter().enumerate() {
        records.push(new_partition(image, topic.id, current + at as i32, &replicas, isr));
    }
    Ok(())
}

fn manual_additions(
    image: &MetadataImage,
    assignments: &[Vec<BrokerId>],
    first: i32,
    factor: usize,
) -> Result<Assignments, ApiError> {
    let checked = |(at, replicas): (usize, &Vec<BrokerId>)| {
        validate_manual_assignment(image, replicas, Some(factor))?;
        let isr = active_replicas(image, replicas);
        if isr.is_empty() { Err(all_fenced(first + at as i32)) } else { Ok((replicas.clone(), isr)) }
    };
    assignments.iter().enumerate().map(checked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{ControllerSettings, testing::*};

    fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
        CreatableTopic { name: name.into(), num_partitions, replication_factor, ..Default::default() }
    }

    fn create(image: &MetadataImage, topics: Vec<CreatableTopic>) -> Step<CreateTopicsReply> {
        with_context(|context| create_topics(image, context, CreateTopics { topics, validate_only: false }))
    }

    fn create_one(image: &MetadataImage, topic: CreatableTopic) -> Result<CreatedTopic, ApiError> {
        create(image, vec![topic]).reply.unwrap().remove(0).1
    }

    fn error(error: ResponseError, message: &str) -> ApiError {
        ApiError::new(error, message)
    }

    #[test]
    fn a1_a_topic_with_defaults_and_settings_becomes_records_in_kafka_s_order() {
        let mut image = image_with_brokers(&[1]);
        let mut wanted = topic("t", 2, -1);
        wanted.configs = vec![("retention.ms".into(), Some("5".into()))];
        let step = create(&image, vec![wanted]);
        let created = step.reply.unwrap().remove(0).1.unwrap();
        assert_eq!((created.num_partitions, created.replication_factor), (2, 1));
        assert_eq!(created.configs[0].name, "retention.ms");
        let kinds: Vec<&str> = step.records.iter().map(|record| record.type_and_name().1).collect();
        assert_eq!(kinds, ["TopicRecord", "ConfigRecord", "PartitionRecord", "PartitionRecord"]);
        apply(&mut image, &step.records);
        assert_eq!(image.topic_id("t"), Some(created.topic_id));
        let partition = image.partition("t", 1).unwrap();
        assert_eq!((partition.leader, &*partition.isr, partition.directories.len()), (1, &[1][..], 1));
    }

    #[test]
    fn a1_defaults_come_from_num_partitions_and_default_replication_factor() {
        let image = image_with_brokers(&[1, 2]);
        let settings =
            ControllerSettings { default_num_partitions: 7, default_replication_factor: 2, ..Default::default() };
        let request = CreateTopics { topics: vec![topic("t", -1, -1)], validate_only: false };
        let created = with_settings(settings, |context| create_topics(&image, context, request))
            .reply
            .unwrap()
            .remove(0)
            .1
            .unwrap();
        assert_eq!((created.num_partitions, created.replication_factor), (7, 2));
    }

    #[test]
    fn a1_existing_and_duplicate_topics_and_the_metadata_topic() {
        let mut image = image_with_brokers(&[1]);
        add_topic(&mut image, "there", &[&[1]]);
        let step = create(
            &image,
            vec![
                topic("twice", 1, 1),
                topic("there", 1, 1),
                topic("twice", 1, 1),
                topic("__cluster_metadata", 1, 1),
                topic("new", 1, 1),
            ],
        );
        let replies: BTreeMap<_, _> = step.reply.unwrap().into_iter().collect();
        assert_eq!(replies["there"], Err(error(ResponseError::TopicAlreadyExists, "Topic 'there' already exists.")));
        assert_eq!(replies["twice"], Err(error(ResponseError::InvalidRequest, "Duplicate topic name.")));
        let prohibited = "Creation of internal topic __cluster_metadata is prohibited.";
        assert_eq!(replies["__cluster_metadata"], Err(error(ResponseError::InvalidRequest, prohibited)));
        assert!(replies["new"].is_ok());
        assert_eq!(step.records.len(), 2, "only the valid topic is written");
    }

    #[test]
    fn m3_names_are_checked_in_kafka_s_words() {
        let image = image_with_brokers(&[1]);
        let message = |name: &str| create_one(&image, topic(name, 1, 1)).unwrap_err();
        for (name, reason) in [
            ("", "the empty string is not allowed"),
            (".", "'.' is not allowed"),
            ("..", "'..' is not allowed"),
            ("../x", "'../x' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"),
            ("ü", "'ü' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"),
        ] {
            assert_eq!(
                message(name),
                error(ResponseError::InvalidTopicException, &format!("Topic name is invalid: {reason}"))
            );
        }
        let long = "x".repeat(250);
        assert!(message(&long).message.unwrap().ends_with("is longer than the max allowed length 249"));
        assert!(create_one(&image, topic(&"x".repeat(249), 1, 1)).is_ok());
    }

    #[test]
    fn m3_a_name_that_differs_only_in_dot_against_underscore_collides() {
        let mut image = image_with_brokers(&[1]);
        add_topic(&mut image, "a.b", &[&[1]]);
        let collides = error(ResponseError::InvalidTopicException, "Topic 'a_b' collides with existing topic: a.b");
        assert_eq!(create_one(&image, topic("a_b", 1, 1)), Err(collides));
        assert!(create_one(&image, topic("a-b", 1, 1)).is_ok());
    }

    #[test]
    fn a1_bad_counts_and_factors() {
        let image = image_with_brokers(&[1]);
        let invalid_partitions =
            error(ResponseError::InvalidPartitions, "Number of partitions was set to an invalid non-positive value.");
        let invalid_factor = error(
            ResponseError::InvalidReplicationFactor,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        );
        for count in [0, -2] {
            assert_eq!(create_one(&image, topic("t", count, 1)), Err(invalid_partitions.clone()));
            assert_eq!(create_one(&image, topic("t", 1, count as i16)), Err(invalid_factor.clone()));
        }
        let too_many = create_one(&image, topic("t", 1, 2)).unwrap_err();
        assert_eq!(too_many.error, ResponseError::InvalidReplicationFactor);
        assert!(
            too_many
                .message
                .unwrap()
                .starts_with("Unable to replicate the partition 2 time(s): The target replication factor of 2 cannot")
        );
        let excessive = create(&image, vec![topic("a", 9_000, 1), topic("b", 1_001, 1)]).reply.unwrap_err();
        assert_eq!(
            excessive,
            error(ResponseError::PolicyViolation, "Excessively large number of partitions per request.")
        );
    }

    #[test]
    fn a1_manual_assignments() {
        let image = image_with_brokers(&[1, 2]);
        let manual = |assignments: &[(i32, &[i32])]| CreatableTopic {
            assignments: assignments.iter().map(|(partition, replicas)| (*partition, replicas.to_vec())).collect(),
            ..topic("t", -1, -1)
        };
        let created = create_one(&image, manual(&[(1, &[2, 1]), (0, &[1, 2])])).unwrap();
        assert_eq!((created.num_partitions, created.replication_factor), (2, 2));
        let fails = |topic: CreatableTopic, code: ResponseError, message: &str| {
            assert_eq!(create_one(&image, topic), Err(error(code, message)))
        };
        let with_count = CreatableTopic { num_partitions: 1, ..manual(&[(0, &[1])]) };
        fails(
            with_count,
            ResponseError::InvalidRequest,
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        );
        let with_factor = CreatableTopic { replication_factor: 1, ..manual(&[(0, &[1])]) };
        fails(
            with_factor,
            ResponseError::InvalidRequest,
            "A manual partition assignment was specified, but replication factor was not set to -1.",
        );
        let invalid = ResponseError::InvalidReplicaAssignment;
        fails(manual(&[(0, &[1]), (0, &[1])]), invalid, "Found multiple manual partition assignments for partition 0");
        fails(manual(&[(0, &[1]), (2, &[1])]), invalid, "partitions should be a consecutive 0-based integer sequence");
        fails(manual(&[(0, &[])]), invalid, "The manual partition assignment includes an empty replica list.");
        fails(
            manual(&[(0, &[1, 1])]),
            invalid,
            "The manual partition assignment includes the broker 1 more than once.",
        );
        fails(
            manual(&[(0, &[9])]),
            invalid,
            "The manual partition assignment includes broker 9, but no such broker is registered.",
        );
        let unequal = "The manual partition assignment includes a partition with 2 replica(s), but this is not consistent with previous partitions, \
                       which have 1 replica(s).";
        fails(manual(&[(0, &[1]), (1, &[1, 2])]), invalid, unequal);
        let mut image = image;
        edit_broker(&mut image, 1, |broker| broker.in_controlled_shutdown = true);
        let shut = "All brokers specified in the manual partition assignment for partition 0 are fenced or in controlled shutdown.";
        assert_eq!(create_one(&image, manual(&[(0, &[1])])), Err(error(invalid, shut)));
    }

    #[test]
    fn c7_a_fenced_broker_is_a_replica_of_the_last_resort_outside_of_the_isr() {
        let mut image = image_with_brokers(&[1, 2, 3]);
        // Broker 3 has shut down cleanly.
        edit_broker(&mut image, 3, |broker| (broker.fenced, broker.in_controlled_shutdown) = (true, true));
        for (factor, expected) in [(2, vec![1, 2]), (3, vec![1, 2, 3])] {
            let name = format!("factor{factor}");
            let step = create(&image, vec![topic(&name, 8, factor)]);
            assert!(step.reply.unwrap().remove(0).1.is_ok());
            apply(&mut image, &step.records);
            for partition in image.topic(&name).unwrap().partitions.values() {
                let (mut replicas, mut isr) = (partition.replicas.clone(), partition.isr.clone());
                replicas.sort_unstable();
                isr.sort_unstable();
                assert_eq!((&replicas, isr), (&expected, vec![1, 2]));
                assert_eq!(partition.leader, partition.replicas[0], "the preferred leader is not fenced");
            }
        }
        // A broker that shuts down but is not fenced yet is no member of the ISR either.
        edit_broker(&mut image, 3, |broker| broker.fenced = false);
        let step = create(&image, vec![topic("t", 8, 3)]);
        apply(&mut image, &step.records);
        for partition in image.topic("t").unwrap().partitions.values() {
            assert!(!partition.isr.contains(&3) && partition.leader != 3 && partition.replicas.contains(&3));
        }
    }

    #[test]
    fn a1_null_unknown_and_bad_settings() {
        let image = image_with_brokers(&[1]);
        let with = |configs: &[(&str, Option<&str>)]| CreatableTopic {
            configs: configs.iter().map(|(key, value)| (key.to_string(), value.map(str::to_owned))).collect(),
            ..topic("t", 1, 1)
        };
        let fails = |configs: &[(&str, Option<&str>)], message: &str| {
            assert_eq!(create_one(&image, with(configs)), Err(error(ResponseError::InvalidConfig, message)));
        };
        fails(&[("a", None), ("b", None)], "Null value not supported for topic configs: a,b");
        fails(&[("foo.bar", Some("1"))], "Unknown topic config name: foo.bar");
        fails(
            &[("retention.ms", Some("abc"))],
            "Invalid value abc for configuration retention.ms: Not a number of type LONG",
        );
    }

    #[test]
    fn a1_validate_only_checks_everything_and_writes_nothing() {
        let image = image_with_brokers(&[1]);
        let request = CreateTopics { topics: vec![topic("t", 1, 1), topic(".", 1, 1)], validate_only: true };
        let step = with_context(|context| create_topics(&image, context, request));
        assert!(step.records.is_empty());
        let replies = step.reply.unwrap();
        assert!(replies[0].1.is_ok() && replies[1].1.is_err());
    }

    #[test]
    fn a2_delete_by_name_and_by_id_with_every_mistake() {
        let mut image = image_with_brokers(&[1]);
        for name in ["by-name", "by-id", "both", "kept"] {
            add_topic(&mut image, name, &[&[1]]);
        }
        let id = |name: &str| image.topic_id(name).unwrap();
        let by_name = |name: &str| TopicReference { name: Some(name.into()), topic_id: TopicId::ZERO };
        let by_id = |topic_id: TopicId| TopicReference { name: None, topic_id };
        let unknown = TopicId(uuid::Uuid::from_u128(77));
        let topics = vec![
            by_name("by-name"),
            by_id(id("by-id")),
            by_name("missing"),
            by_id(unknown),
            by_name("dup"),
            by_name("dup"),
            by_id(TopicId::ZERO),
            TopicReference { name: Some("kept".into()), topic_id: id("kept") },
            by_id(id("both")),
            by_name("both"),
        ];
        let step = with_context(|context| delete_topics(&image, context, DeleteTopics { topics }));
        let replies = step.reply.unwrap();
        let of = |name: Option<&str>, topic_id: TopicId| {
            replies
                .iter()
                .find(|reply| reply.name.as_deref() == name && reply.topic_id == topic_id)
                .unwrap()
                .result
                .clone()
                .map_err(|error| (error.code(), error.message.unwrap()))
        };
        assert_eq!(of(Some("by-name"), id("by-name")), Ok(()));
        assert_eq!(of(Some("by-id"), id("by-id")), Ok(()));
        assert_eq!(
            of(Some("missing"), TopicId::ZERO),
            Err((3, "This server does not host this topic-partition.".into()))
        );
        assert_eq!(of(None, unknown), Err((100, "This server does not host this topic ID.".into())));
        assert_eq!(of(Some("dup"), TopicId::ZERO), Err((42, "Duplicate topic name.".into())));
        assert_eq!(of(None, TopicId::ZERO), Err((42, "Neither topic name nor id were specified.".into())));
        assert_eq!(of(Some("kept"), id("kept")), Err((42, "You may not specify both topic name and topic id.".into())));
        assert_eq!(
            of(Some("both"), id("both")),
            Err((42, "The provided topic name maps to an ID that was already supplied.".into()))
        );
        assert_eq!(step.records.len(), 2);
        apply(&mut image, &step.records);
        assert!(image.topic("by-name").is_none() && image.topic("by-id").is_none() && image.topic("both").is_some());
    }

    #[test]
    fn a2_delete_topic_enable_off() {
        let mut image = image_with_brokers(&[1]);
        add_topic(&mut image, "t", &[&[1]]);
        let settings = ControllerSettings { delete_topic_enable: false, ..Default::default() };
        let topics = vec![TopicReference { name: Some("t".into()), topic_id: TopicId::ZERO }];
        let step = with_settings(settings, |context| delete_topics(&image, context, DeleteTopics { topics }));
        assert_eq!(step.reply, Err(ApiError::code_only(ResponseError::TopicDeletionDisabled)));
        assert!(step.records.is_empty());
    }

    #[test]
    fn a3_internal_topics_keep_their_number_of_partitions() {
        let mut image = image_with_brokers(&[1]);
        for name in ["__consumer_offsets", "__transaction_state", "__share_group_state"] {
            add_topic(&mut image, name, &[&[1]]);
            let topics = vec![NewPartitions { name: name.into(), count: 5, assignments: None }];
            let step = with_context(|context| {
                create_partitions(&image, context, CreatePartitions { topics, validate_only: false })
            });
            assert!(step.records.is_empty());
            let refused = step.reply.unwrap().remove(0).1.unwrap_err();
            assert_eq!(refused.error, ResponseError::InvalidRequest);
            assert!(refused.message.unwrap().contains(name));
        }
    }

    #[test]
    fn partitions_and_bytes_of_all_topics_together_are_bounded_and_given_back() {
        let mut image = image_with_brokers(&[1]);
        let settings = ControllerSettings { max_partitions: 10, max_metadata_bytes: 2_000, ..Default::default() };
        let try_create = |image: &mut MetadataImage, wanted: CreatableTopic| {
            let request = CreateTopics { topics: vec![wanted], validate_only: false };
            let step = with_settings(settings.clone(), |context| create_topics(image, context, request));
            apply(image, &step.records);
            step.reply.map(|_| ()).map_err(|error| error.error)
        };
        assert_eq!(try_create(&mut image, topic("a", 8, 1)), Ok(()));
        assert_eq!(try_create(&mut image, topic("b", 3, 1)), Err(ResponseError::PolicyViolation));
        assert_eq!(try_create(&mut image, topic("b", 2, 1)), Ok(()));
        assert_eq!(image.size.partitions, 10);
        let before = image.size;
        let id = image.topic_id("b").unwrap();
        apply(&mut image, &[RemoveTopicRecord { topic_id: id.0 }.into()]);
        assert_eq!(image.size.partitions, 8);
        // A long name and a long setting count with their bytes.
        let long = CreatableTopic {
            configs: vec![("cleanup.policy".into(), Some("x".repeat(1_000)))],
            ..topic(&"n".repeat(249), 1, 1)
        };
        assert_eq!(try_create(&mut image, long), Err(ResponseError::PolicyViolation));
        assert_eq!(try_create(&mut image, topic("b", 2, 1)), Ok(()));
        assert_eq!(image.size, before);
    }

    #[test]
    fn a3_more_partitions() {
        let mut image = image_with_brokers(&[1, 2]);
        add_topic(&mut image, "t", &[&[1], &[2]]);
        let run = |image: &MetadataImage, count: i32, assignments: Option<Vec<Vec<i32>>>, validate_only: bool| {
            let topics = vec![NewPartitions { name: "t".into(), count, assignments }];
            let step =
                with_context(|context| create_partitions(image, context, CreatePartitions { topics, validate_only }));
            (step.records, step.reply.unwrap().remove(0).1)
        };
        let invalid = |message: &str| Err(error(ResponseError::InvalidPartitions, message));
        assert_eq!(run(&image, 2, None, false).1, invalid("Topic already has 2 partition(s)."));
        assert_eq!(
            run(&image, 1, None, false).1,
            invalid("The topic t currently has 2 partition(s); 1 would not be an increase.")
        );
        let message = "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.";
        assert_eq!(
            run(&image, 4, Some(vec![vec![1]]), false).1,
            Err(error(ResponseError::InvalidReplicaAssignment, message))
        );
        let message = "The manual partition assignment includes a partition with 2 replica(s), but this is not consistent with previous partitions, \
                       which have 1 replica(s).";
        assert_eq!(
            run(&image, 3, Some(vec![vec![1, 2]]), false).1,
            Err(error(ResponseError::InvalidReplicaAssignment, message))
        );
        let (records, result) = run(&image, 4, None, true);
        assert_eq!((records.len(), result), (0, Ok(())), "validate_only");
        let (records, result) = run(&image, 4, Some(vec![vec![2], vec![1]]), false);
        assert_eq!(result, Ok(()));
        apply(&mut image, &records);
        assert_eq!(image.topic("t").unwrap().partitions.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(image.partition("t", 2).unwrap().replicas, [2]);
        let topics = vec![NewPartitions { name: "no".into(), count: 2, assignments: None }];
        let step = with_context(|context| {
            create_partitions(&image, context, CreatePartitions { topics, validate_only: false })
        });
        assert_eq!(step.reply.unwrap()[0].1, Err(ApiError::code_only(ResponseError::UnknownTopicOrPartition)));
    }
}
