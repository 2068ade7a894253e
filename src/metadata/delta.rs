//! The difference between two metadata images. Subscribers get it and look up the values in the image.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::image::{ClientQuotaEntity, ConfigResource, MetadataImage, TopicImage};
use crate::types::{BrokerId, TopicId};

/// The changes of one topic between two images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDelta {
    pub name: Arc<str>,
    /// The topic is new; otherwise partitions were added or changed.
    pub created: bool,
    /// Partitions that are new or changed.
    pub partitions: BTreeSet<i32>,
}

impl TopicDelta {
    pub(super) fn changed(name: Arc<str>) -> Self {
        TopicDelta { name, created: false, partitions: BTreeSet::new() }
    }
}

/// The difference between the previous image and the current one. It names what changed; the values are in the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetadataDelta {
    /// New and changed topics.
    pub topics: BTreeMap<TopicId, TopicDelta>,
    /// Deleted topics, as they were before. (The same name may be in `topics` with another id, so remove first, then
    /// create.)
    pub deleted_topics: BTreeMap<TopicId, Arc<TopicImage>>,
    pub configs: BTreeSet<ConfigResource>,
    pub brokers: BTreeSet<BrokerId>,
    pub client_quotas: BTreeSet<ClientQuotaEntity>,
    pub features: bool,
    pub producer_ids: bool,
}

impl MetadataDelta {
    /// The delta from an empty image to `image`, which a new subscriber gets first.
    pub fn from_empty(image: &MetadataImage) -> Self {
        let topics = image.topics.by_name.values().map(|topic| {
            let partitions = topic.partitions.keys().copied().collect();
            (topic.id, TopicDelta { name: topic.name.clone(), created: true, partitions })
        });
        MetadataDelta {
            topics: topics.collect(),
            deleted_topics: BTreeMap::new(),
            configs: image.configs.keys().map(|resource| ConfigResource::clone(resource)).collect(),
            brokers: image.brokers.keys().copied().collect(),
            client_quotas: image.client_quotas.keys().map(|entity| ClientQuotaEntity::clone(entity)).collect(),
            features: !image.features.is_empty(),
            producer_ids: image.last_producer_ids.is_some(),
        }
    }

    /// The delta from one image to another, which is not built from it record by record.
    pub fn between(before: &MetadataImage, after: &MetadataImage) -> Self {
        let mut delta = MetadataDelta {
            features: before.features != after.features,
            producer_ids: (before.next_producer_id, before.last_producer_ids)
                != (after.next_producer_id, after.last_producer_ids),
            ..MetadataDelta::default()
        };
        for topic in after.topics.by_name.values() {
            let previous = before.topic_by_id(topic.id);
            let is_changed =
                |(index, partition)| previous.and_then(|topic| topic.partitions.get(index)) != Some(partition);
            let changed = topic.partitions.iter().filter(|(index, partition)| is_changed((*index, *partition)));
            let partitions: BTreeSet<i32> = changed.map(|(index, _)| *index).collect();
            if previous.is_none() || !partitions.is_empty() {
                let topic_delta = TopicDelta { name: topic.name.clone(), created: previous.is_none(), partitions };
                delta.topics.insert(topic.id, topic_delta);
            }
        }
        let deleted = before.topics.by_name.values().filter(|topic| after.topic_by_id(topic.id).is_none());
        delta.deleted_topics = deleted.map(|topic| (topic.id, topic.clone())).collect();
        let configs = before.configs.keys().chain(after.configs.keys());
        let configs = configs.filter(|resource| before.configs.get(*resource) != after.configs.get(*resource));
        delta.configs = configs.map(|resource| ConfigResource::clone(resource)).collect();
        let brokers = before.brokers.keys().chain(after.brokers.keys());
        delta.brokers = brokers.filter(|id| before.brokers.get(id) != after.brokers.get(id)).copied().collect();
        let quotas = before.client_quotas.keys().chain(after.client_quotas.keys());
        let quotas = quotas.filter(|entity| before.client_quotas.get(*entity) != after.client_quotas.get(*entity));
        delta.client_quotas = quotas.map(|entity| ClientQuotaEntity::clone(entity)).collect();
        delta
    }

    pub fn is_empty(&self) -> bool {
        *self == MetadataDelta::default()
    }

    /// Adds the changes of a later delta. The sum leads from the image before this delta to the image after `later`.
    pub fn merge(&mut self, later: &MetadataDelta) {
        for (id, topic) in &later.deleted_topics {
            let created_in_this_delta = self.topics.remove(id).is_some_and(|topic| topic.created);
            if !created_in_this_delta {
                self.deleted_topics.insert(*id, topic.clone());
            }
        }
        for (id, topic) in &later.topics {
            let merged = self.topics.entry(*id).or_insert_with(|| TopicDelta::changed(topic.name.clone()));
            merged.created |= topic.created;
            merged.partitions.extend(&topic.partitions);
        }
        self.configs.extend(later.configs.iter().cloned());
        self.brokers.extend(&later.brokers);
        self.client_quotas.extend(later.client_quotas.iter().cloned());
        self.features |= later.features;
        self.producer_ids |= later.producer_ids;
    }

    pub(super) fn touch_partition(&mut self, topic: &TopicImage, partition: i32) {
        self.topics
            .entry(topic.id)
            .or_insert_with(|| TopicDelta::changed(topic.name.clone()))
            .partitions
            .insert(partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::records::{
        ConfigRecord, FeatureLevelRecord, MetadataRecord, PartitionRecord, RemoveTopicRecord, TopicRecord,
    };

    fn topic(name: &str, id: u128) -> MetadataRecord {
        TopicRecord { name: name.into(), topic_id: uuid::Uuid::from_u128(id) }.into()
    }

    fn partition(id: u128, partition_id: i32, leader_epoch: i32) -> MetadataRecord {
        let record = PartitionRecord {
            partition_id,
            topic_id: uuid::Uuid::from_u128(id),
            replicas: vec![1],
            isr: vec![1],
            leader: 1,
            leader_epoch,
            ..PartitionRecord::default()
        };
        record.into()
    }

    fn config(name: &str, value: Option<&str>) -> MetadataRecord {
        ConfigRecord { resource_type: 2, resource_name: name.into(), name: "k".into(), value: value.map(Into::into) }
            .into()
    }

    fn apply(image: &mut MetadataImage, records: Vec<MetadataRecord>) -> MetadataDelta {
        let mut delta = MetadataDelta::default();
        for record in records {
            image.apply(&record, &mut delta).unwrap();
        }
        delta
    }

    #[test]
    fn the_delta_between_two_images_is_that_of_the_records_between_them() {
        let mut before = MetadataImage::default();
        let first = vec![
            topic("same", 1),
            partition(1, 0, 0),
            topic("changed", 2),
            partition(2, 0, 0),
            partition(2, 1, 0),
            topic("again", 3),
            partition(3, 0, 0),
            config("changed", Some("v")),
            config("same", Some("v")),
        ];
        let from_empty = apply(&mut before, first);
        assert_eq!(MetadataDelta::between(&MetadataImage::default(), &before), from_empty);
        let mut after = before.clone();
        let feature = FeatureLevelRecord { name: "metadata.version".into(), feature_level: 20 };
        let remove = RemoveTopicRecord { topic_id: uuid::Uuid::from_u128(3) };
        let second = vec![
            partition(2, 1, 1),
            partition(2, 2, 0),
            remove.into(),
            topic("again", 4),
            partition(4, 0, 0),
            config("changed", None),
            feature.into(),
        ];
        let delta = apply(&mut after, second);
        assert_eq!(MetadataDelta::between(&before, &after), delta);
        assert_eq!(MetadataDelta::between(&after, &after), MetadataDelta::default());
    }
}
