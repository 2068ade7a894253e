//! Splits a large request into portions. The controller decides one portion at a time, so that other requests get their
//! turn in between.
//!
//! Owns the rules which parts of a request stay together (a topic with all its partitions, all entries for one topic or
//! entity), and the limits of one request. A request within the limits is decided as if it were one step, except that
//! each portion is written separately. The functions are pure, like the steps.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ApiError, ControllerSettings, MAX_RECORDS_PER_USER_OP,
    client_quotas::{AlterClientQuotas, QuotaAlteration},
    configs::{IncrementalAlterConfigs, LegacyAlterConfigs},
    elections::ElectLeaders,
    too_many_records,
    topics::{
        CreatableTopic, CreatePartitions, CreateTopics, DeleteTopics, NewPartitions, TopicReference,
        partition_duplicates, validate_total_partitions,
    },
};
use crate::{
    metadata::image::{ClientQuotaEntity, MetadataImage},
    types::TopicId,
};

/// The maximum weight of one portion: the number of records written or items checked. A single topic may exceed it.
pub(super) const PORTION: usize = 500;
/// The weight of a created topic, in partitions: all its settings are looked up.
const TOPIC_WEIGHT: usize = 10;

/// The portions of a request, and the names of topics that occur more than once in it.
#[derive(Debug)]
pub struct Portions<R> {
    pub portions: Vec<R>,
    pub duplicates: BTreeSet<String>,
}

/// Packs the items into portions and keeps their order.
fn pack<T>(items: Vec<T>, weight: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut portions, mut portion, mut used) = (Vec::new(), Vec::new(), 0);
    for item in items {
        let weight = weight(&item);
        if used + weight > PORTION && !portion.is_empty() {
            portions.push(std::mem::take(&mut portion));
            used = 0;
        }
        used += weight;
        portion.push(item);
    }
    portions.push(portion);
    portions
}

fn check_count(count: usize) -> Result<(), ApiError> {
    if count > MAX_RECORDS_PER_USER_OP { Err(too_many_records()) } else { Ok(()) }
}

impl CreateTopics {
    /// # Errors
    /// An error of the whole request, if it needs more records than one batch may contain.
    pub fn into_portions(self, settings: &ControllerSettings) -> Result<Portions<Self>, ApiError> {
        check_count(self.topics.len())?;
        let (topics, duplicates) = partition_duplicates(self.topics, |topic| &topic.name);
        validate_total_partitions(&topics, settings.default_num_partitions)?;
        let records =
            |topic: &CreatableTopic| 1 + topic.configs.len() + topic.partition_count(settings.default_num_partitions);
        check_count(topics.iter().map(records).sum())?;
        let weight = |topic: &CreatableTopic| {
            let replicas: usize = topic.assignments.iter().map(|(_, replicas)| replicas.len()).sum();
            TOPIC_WEIGHT + records(topic) + replicas
        };
        let portions = pack(topics, weight).into_iter();
        let portions = portions.map(|topics| CreateTopics { topics, validate_only: self.validate_only });
        Ok(Portions { portions: portions.collect(), duplicates })
    }
}

impl CreatePartitions {
    /// # Errors
    /// An error of the whole request, if it needs more records than one batch may contain.
    pub fn into_portions(self, image: &MetadataImage) -> Result<Portions<Self>, ApiError> {
        check_count(self.topics.len())?;
        let (topics, duplicates) = partition_duplicates(self.topics, |topic| &topic.name);
        let added = |topic: &NewPartitions| {
            let present = image.topic(&topic.name).map_or(0, |topic| topic.partitions.len());
            usize::try_from(topic.count).unwrap_or(0).saturating_sub(present)
        };
        if topics.len() > 1 {
            check_count(topics.iter().map(added).fold(0, usize::saturating_add))?;
        }
        let portions = pack(topics, |topic| 1 + added(topic)).into_iter();
        let portions = portions.map(|topics| CreatePartitions { topics, validate_only: self.validate_only });
        Ok(Portions { portions: portions.collect(), duplicates })
    }
}

impl DeleteTopics {
    /// All entries for one topic, by name or by id, stay in one portion.
    ///
    /// # Errors
    /// An error of the whole request, if it needs more records than one batch may contain.
    pub fn into_portions(self, image: &MetadataImage) -> Result<Vec<Self>, ApiError> {
        check_count(self.topics.len())?;
        let mut by_topic: BTreeMap<(TopicId, Option<String>), Vec<TopicReference>> = BTreeMap::new();
        for topic in self.topics {
            let known = topic.name.as_deref().and_then(|name| image.topic_id(name));
            let key = match known {
                Some(id) if topic.topic_id.is_zero() => (id, None),
                _ if topic.name.is_none() => (topic.topic_id, None),
                _ => (topic.topic_id, topic.name.clone()),
            };
            by_topic.entry(key).or_default().push(topic);
        }
        let portions = pack(by_topic.into_values().collect(), Vec::len).into_iter();
        Ok(portions.map(|topics| DeleteTopics { topics: topics.into_iter().flatten().collect() }).collect())
    }
}

impl IncrementalAlterConfigs {
    /// # Errors
    /// An error of the whole request, if it needs more records than one batch may contain.
    pub fn into_portions(self) -> Result<Vec<Self>, ApiError> {
        check_count(self.resources.iter().map(|(_, changes)| changes.len().max(1)).sum())?;
        let portions = pack(self.resources, |(_, changes)| 1 + changes.len()).into_iter();
        let portions = portions.map(|resources| Self { resources, validate_only: self.validate_only });
        Ok(portions.collect())
    }
}

impl LegacyAlterConfigs {
    /// # Errors
    /// An error of the whole request, if it needs more records than one batch may contain.
    pub fn into_portions(self) -> Result<Vec<Self>, ApiError> {
        check_count(self.resources.iter().map(|(_, configs)| configs.len().max(1)).sum())?;
        let portions = pack(self.resources, |(_, configs)| 1 + configs.len()).into_iter();
        let portions = portions.map(|resources| Self { resources, validate_only: self.validate_only });
        Ok(portions.collect())
    }
}

impl AlterClientQuotas {
    /// All entries for one entity stay in one portion.
    ///
    /// # Errors
    /// The entities and an error for each of them, if the request needs more records than one batch may contain.
    pub fn into_portions(self) -> Result<Vec<Self>, (BTreeSet<ClientQuotaEntity>, ApiError)> {
        let mut positions: BTreeMap<ClientQuotaEntity, usize> = BTreeMap::new();
        let mut by_entity: Vec<Vec<QuotaAlteration>> = Vec::new();
        let mut count = 0;
        for alteration in self.alterations {
            count += alteration.ops.len().max(1);
            let position = *positions.entry(alteration.entity.iter().cloned().collect()).or_insert(by_entity.len());
            match by_entity.get_mut(position) {
                Some(mentions) => mentions.push(alteration),
                None => by_entity.push(vec![alteration]),
            }
        }
        check_count(count).map_err(|error| (positions.into_keys().collect(), error))?;
        let weight = |mentions: &Vec<QuotaAlteration>| mentions.iter().map(|mention| 1 + mention.ops.len()).sum();
        let portions = pack(by_entity, weight).into_iter();
        let portions = portions.map(|alterations| AlterClientQuotas {
            alterations: alterations.into_iter().flatten().collect(),
            validate_only: self.validate_only,
        });
        Ok(portions.collect())
    }
}

impl ElectLeaders {
    /// A request has at most this many partitions.
    pub const PORTION: usize = PORTION;
}

#[cfg(test)]
mod tests {
    use kafka_protocol::error::ResponseError;

    use super::*;
    use crate::{
        controller::{
            configs::{AlterOp, ConfigChange},
            testing::*,
        },
        metadata::image::ConfigResource,
    };

    fn topic(name: String, num_partitions: i32) -> CreatableTopic {
        CreatableTopic { name, num_partitions, replication_factor: 1, ..Default::default() }
    }

    fn creation(topics: impl Iterator<Item = CreatableTopic>) -> Result<Portions<CreateTopics>, ApiError> {
        let request = CreateTopics { topics: topics.collect(), validate_only: false };
        request.into_portions(&ControllerSettings::default())
    }

    #[test]
    fn many_topics_are_created_in_portions_and_each_once() {
        let topics = (0..3_000).map(|number| topic(format!("t{number}"), 2));
        let twice = (0..2).map(|_| topic("twice".into(), 1));
        let made = creation(topics.chain(twice)).unwrap();
        assert!(made.portions.len() > 50);
        assert_eq!(made.duplicates, BTreeSet::from(["twice".to_owned()]));
        let names: Vec<String> =
            made.portions.into_iter().flat_map(|portion| portion.topics).map(|topic| topic.name).collect();
        assert_eq!(names, (0..3_000).map(|number| format!("t{number}")).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_more_than_one_batch_is_refused_before_anything_is_done() {
        let code = |result: Result<Portions<CreateTopics>, ApiError>| result.unwrap_err().error;
        let violation = ResponseError::PolicyViolation;
        assert_eq!(code(creation((0..100_000).map(|_| topic("same".into(), 1)))), violation);
        assert_eq!(code(creation((0..6_000).map(|number| topic(format!("t{number}"), 1)))), violation);
        assert_eq!(code(creation(std::iter::once(topic("t".into(), 10_000)))), violation);
        let image = image_with_brokers(&[1]);
        let references =
            (0..10_001).map(|number| TopicReference { name: Some(format!("t{number}")), topic_id: TopicId::ZERO });
        let deletion = DeleteTopics { topics: references.collect() };
        assert_eq!(deletion.into_portions(&image).unwrap_err().error, violation);
        let change: ConfigChange = ("retention.ms".into(), AlterOp::Set, Some("1".into()));
        let resources = vec![(ConfigResource::topic("t"), vec![change; 10_001])];
        let alter = IncrementalAlterConfigs { resources, validate_only: false };
        assert_eq!(alter.into_portions().unwrap_err().error, violation);
    }

    fn quota(user: &str) -> QuotaAlteration {
        let entity = vec![("user".to_owned(), Some(user.to_owned()))];
        QuotaAlteration { entity, ops: vec![("producer_byte_rate".into(), Some(1.0))] }
    }

    #[test]
    fn all_mentions_of_an_entity_are_in_one_portion() {
        let mut alterations: Vec<QuotaAlteration> = (0..1_000).map(|number| quota(&number.to_string())).collect();
        alterations.push(quota("0"));
        let portions = AlterClientQuotas { alterations, validate_only: true }.into_portions().unwrap();
        assert!(portions.len() > 2 && portions.iter().all(|portion| portion.validate_only));
        assert_eq!(portions[0].alterations[1], quota("0"));
        let many = (0..40_000).map(|number| quota(&number.to_string())).collect();
        let (entities, error) =
            AlterClientQuotas { alterations: many, validate_only: false }.into_portions().unwrap_err();
        assert_eq!((entities.len(), error.error), (40_000, ResponseError::PolicyViolation));
    }

    #[test]
    fn all_mentions_of_a_topic_are_deleted_in_one_portion() {
        let mut image = image_with_brokers(&[1]);
        add_topic(&mut image, "both", &[&[1]]);
        let by_name = |name: &str| TopicReference { name: Some(name.into()), topic_id: TopicId::ZERO };
        let mut topics = vec![by_name("both")];
        topics.extend((0..1_200).map(|number| by_name(&format!("missing{number}"))));
        topics.push(TopicReference { name: None, topic_id: image.topic_id("both").unwrap() });
        let portions = DeleteTopics { topics }.into_portions(&image).unwrap();
        assert!(portions.len() > 2);
        let mentions = |portion: &DeleteTopics| {
            let is_both = |topic: &&TopicReference| topic.name.is_none() || topic.name.as_deref() == Some("both");
            portion.topics.iter().filter(is_both).count()
        };
        assert_eq!(portions.iter().map(mentions).filter(|count| *count > 0).collect::<Vec<_>>(), [2]);
    }
}
