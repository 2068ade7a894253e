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
