//! The immutable image of the cluster's metadata at one offset of the metadata log. Leaves changes between images to
//! `delta.rs`.
//!
//! Owns `MetadataImage` (brokers, topics, settings, quotas, features, producer ids), the effect of each record on it
//! (deterministic, without clock or randomness; the same code runs live, at replay and in the controller), its
//! conversion to records (for snapshots and the store) and its checksum (INV-M2: equal offset, equal image). Leaves
//! decisions to `controller` and publication to `publisher.rs`. The maps are persistent (`imbl`) and share their
//! values: a clone of an image copies a few pointers. A change copies only the changed topic or the changed resource's
//! settings and the path to it, no matter how many others there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::OrdMap;
use uuid::Uuid;

use super::{
    delta::{MetadataDelta, TopicDelta},
    records::*,
};
use crate::{
    protocol::record_batch::crc32c,
    types::{BrokerId, LeaderEpoch, Offset, TimestampMs, TopicId},
};

/// Apache: `MetadataProvenance`. The position of an image in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provenance {
    /// The offset of the last record in the image; -1 if there is none.
    pub last_contained_offset: Offset,
    /// The leader epoch of that record; -1 if there is none.
    pub last_contained_epoch: LeaderEpoch,
    /// When that record's batch was appended, in ms.
    pub last_contained_log_time_ms: TimestampMs,
}

impl Default for Provenance {
    fn default() -> Self {
        Provenance { last_contained_offset: -1, last_contained_epoch: -1, last_contained_log_time_ms: -1 }
    }
}

/// The ids of Kafka's `ConfigResource.Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigResourceType {
    Unknown = 0,
    Topic = 2,
    Broker = 4,
    BrokerLogger = 8,
    ClientMetrics = 16,
    Group = 32,
}

impl ConfigResourceType {
    pub fn from_id(id: i8) -> Self {
        match id {
            2 => ConfigResourceType::Topic,
            4 => ConfigResourceType::Broker,
            8 => ConfigResourceType::BrokerLogger,
            16 => ConfigResourceType::ClientMetrics,
            32 => ConfigResourceType::Group,
            _ => ConfigResourceType::Unknown,
        }
    }

    pub fn id(self) -> i8 {
        self as i8
    }
}

/// A resource that has settings. A broker resource with an empty name has the defaults of all brokers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigResource {
    pub resource_type: ConfigResourceType,
    pub name: String,
}

impl ConfigResource {
    pub fn new(resource_type: ConfigResourceType, name: impl Into<String>) -> Self {
        ConfigResource { resource_type, name: name.into() }
    }

    pub fn topic(name: &str) -> Self {
        Self::new(ConfigResourceType::Topic, name)
    }

    pub fn broker(id: BrokerId) -> Self {
        Self::new(ConfigResourceType::Broker, id.to_string())
    }

    /// The resource for the settings of all brokers, which a broker's own settings override.
    pub fn default_broker() -> Self {
        Self::new(ConfigResourceType::Broker, "")
    }
}

/// An endpoint of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub listener: String,
    /// Empty if each client gets the address to which it has connected (`advertised.listeners` unset).
    pub host: String,
    pub port: u16,
    /// Kafka's `SecurityProtocol` id: 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
    pub security_protocol: i16,
}

/// The last registration of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerRegistration {
    pub id: BrokerId,
    /// The broker epoch: the offset of the registration.
    pub epoch: i64,
    pub incarnation_id: Uuid,
    pub endpoints: Vec<Endpoint>,
    /// Feature name → supported (min, max).
    pub features: BTreeMap<String, (i16, i16)>,
    pub rack: Option<String>,
    pub fenced: bool,
    pub in_controlled_shutdown: bool,
    pub directories: Vec<Uuid>,
    pub cordoned_directories: Option<Vec<Uuid>>,
}

impl BrokerRegistration {
    /// Apache's `isActive`: whether the broker may lead partitions and be in their ISR.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.listener == listener)
    }
}

/// Apache: `PartitionRegistration`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionImage {
    pub replicas: Vec<BrokerId>,
    pub directories: Vec<Uuid>,
    pub isr: Vec<BrokerId>,
    pub removing_replicas: Vec<BrokerId>,
    pub adding_replicas: Vec<BrokerId>,
    pub elr: Vec<BrokerId>,
    pub last_known_elr: Vec<BrokerId>,
    /// -1 if there is none.
    pub leader: BrokerId,
    pub leader_recovery_state: i8,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
}

impl PartitionImage {
    fn from_record(record: &PartitionRecord) -> Self {
        PartitionImage {
            replicas: record.replicas.clone(),
            directories: directories_of(&record.directories, record.replicas.len()),
            isr: record.isr.clone(),
            removing_replicas: record.removing_replicas.clone(),
            adding_replicas: record.adding_replicas.clone(),
            elr: record.eligible_leader_replicas.clone().unwrap_or_default(),
            last_known_elr: record.last_known_elr.clone().unwrap_or_default(),
            leader: record.leader,
            leader_recovery_state: record.leader_recovery_state,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
        }
    }

    /// Apache: `PartitionRegistration.merge`. Absent fields do not change. If the record names a leader, even the old
    /// one, the leader epoch rises.
    pub fn merge(&mut self, record: &PartitionChangeRecord) {
        let replace = |field: &mut Vec<BrokerId>, change: &Option<Vec<BrokerId>>| {
            if let Some(change) = change {
                field.clone_from(change);
            }
        };
        replace(&mut self.replicas, &record.replicas);
        replace(&mut self.isr, &record.isr);
        replace(&mut self.removing_replicas, &record.removing_replicas);
        replace(&mut self.adding_replicas, &record.adding_replicas);
        replace(&mut self.elr, &record.eligible_leader_replicas);
        replace(&mut self.last_known_elr, &record.last_known_elr);
        let directories = record.directories.as_deref().unwrap_or(&self.directories);
        self.directories = directories_of(directories, self.replicas.len());
        if record.leader != NO_LEADER_CHANGE {
            self.leader = record.leader;
            self.leader_epoch += 1;
        }
        if record.leader_recovery_state >= 0 {
            self.leader_recovery_state = record.leader_recovery_state;
        }
        self.partition_epoch += 1;
    }

    fn to_record(&self, topic_id: TopicId, partition_id: i32) -> PartitionRecord {
        let tagged = |replicas: &Vec<BrokerId>| (!replicas.is_empty()).then(|| replicas.clone());
        PartitionRecord {
            partition_id,
            topic_id: topic_id.0,
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
            removing_replicas: self.removing_replicas.clone(),
            adding_replicas: self.adding_replicas.clone(),
            leader: self.leader,
            leader_recovery_state: self.leader_recovery_state,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            directories: self.directories.clone(),
            eligible_leader_replicas: tagged(&self.elr),
            last_known_elr: tagged(&self.last_known_elr),
        }
    }
}

/// One directory per replica. If the record has none, all are Kafka's `DirectoryId.MIGRATING` (the zero id).
fn directories_of(directories: &[Uuid], replicas: usize) -> Vec<Uuid> {
    if directories.len() == replicas { directories.to_vec() } else { vec![Uuid::nil(); replicas] }
}

/// A topic and its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicImage {
    pub id: TopicId,
    pub name: Arc<str>,
    pub partitions: BTreeMap<i32, PartitionImage>,
}

/// All topics, by name and by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicsImage {
    pub by_name: OrdMap<Arc<str>, Arc<TopicImage>>,
    pub by_id: OrdMap<TopicId, Arc<str>>,
    /// Names with `.` or `_`, by their form with only `_` (they collide in the names of metrics).
    colliding: OrdMap<Arc<str>, BTreeSet<Arc<str>>>,
}

impl TopicsImage {
    /// An existing topic that is equal to `name` if `.` and `_` count as equal. This may be `name` itself.
    pub fn collision(&self, name: &str) -> Option<&Arc<str>> {
        self.colliding.get(&*unify_collision_chars(name)?)?.first()
    }
}

/// Apache: `Topic.unifyCollisionChars`; None if the name has neither character.
fn unify_collision_chars(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

/// The entity of a quota: entity type → name; None is the default of that type.
pub type ClientQuotaEntity = BTreeMap<String, Option<String>>;

/// A record that cannot be applied to the image: the log is damaged or belongs to another cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("{record} names topic id {topic_id}, which does not exist")]
    UnknownTopic { record: &'static str, topic_id: TopicId },
    #[error("partition {partition} of topic {topic} does not exist")]
    UnknownPartition { topic: Arc<str>, partition: i32 },
    #[error("topic {0} is created a second time")]
    DuplicateTopic(String),
    #[error("{record} names broker {broker_id} with epoch {broker_epoch}, which is not registered")]
    UnknownBroker { record: &'static str, broker_id: BrokerId, broker_epoch: i64 },
    #[error("{0} belongs to a feature that this version does not support")]
    Unsupported(&'static str),
}

/// The size of an image or of a part of it: its partitions, and the approximate bytes of all names and settings as
/// records. It is computed from the image, so that a removal subtracts what the creation has added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageSize {
    pub partitions: usize,
    pub bytes: usize,
}

impl ImageSize {
    const PARTITION: ImageSize = ImageSize { partitions: 1, bytes: 128 };

    fn of_topic(name: &str) -> Self {
        ImageSize { partitions: 0, bytes: 64 + name.len() }
    }

    fn of_config(resource: &ConfigResource, name: &str, value: &str) -> Self {
        ImageSize { partitions: 0, bytes: 64 + resource.name.len() + name.len() + value.len() }
    }

    fn of_quota(entity: &ClientQuotaEntity, key: &str) -> Self {
        let names = entity.iter().map(|(kind, name)| 16 + kind.len() + name.as_ref().map_or(0, String::len));
        ImageSize { partitions: 0, bytes: 64 + key.len() + names.sum::<usize>() }
    }

    fn add(&mut self, other: ImageSize) {
        self.partitions += other.partitions;
        self.bytes += other.bytes;
    }

    fn subtract(&mut self, other: ImageSize) {
        self.partitions -= other.partitions;
        self.bytes -= other.bytes;
    }
}

/// The metadata of the cluster at one offset of the metadata log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetadataImage {
    /// Empty until known. It is not in the log.
    pub cluster_id: Arc<str>,
    pub provenance: Provenance,
    /// The finalized level of kraft.version. It comes from control records, not from a FeatureLevelRecord.
    pub kraft_version: i16,
    pub brokers: Arc<BTreeMap<BrokerId, Arc<BrokerRegistration>>>,
    pub topics: TopicsImage,
    pub configs: OrdMap<Arc<ConfigResource>, Arc<BTreeMap<String, String>>>,
    pub client_quotas: OrdMap<Arc<ClientQuotaEntity>, BTreeMap<String, f64>>,
    /// Finalized features above level 0.
    pub features: Arc<BTreeMap<String, i16>>,
    /// The first producer id that is not allocated to a broker yet.
    pub next_producer_id: i64,
    /// The id and epoch of the broker that got the last block of producer ids.
    pub last_producer_ids: Option<(BrokerId, i64)>,
    /// The size of the whole image.
    pub size: ImageSize,
}

impl MetadataImage {
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.by_name.get(name)
    }

    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.by_name.get(self.topics.by_id.get(&id)?)
    }

    pub fn topic_name(&self, id: TopicId) -> Option<&Arc<str>> {
        self.topics.by_id.get(&id)
    }

    pub fn topic_id(&self, name: &str) -> Option<TopicId> {
        self.topic(name).map(|topic| topic.id)
    }

    pub fn partition(&self, topic: &str, partition: i32) -> Option<&PartitionImage> {
        self.topic(topic)?.partitions.get(&partition)
    }

    pub fn broker(&self, id: BrokerId) -> Option<&Arc<BrokerRegistration>> {
        self.brokers.get(&id)
    }

    /// Brokers that are registered and not fenced, by id.
    pub fn alive_brokers(&self) -> impl Iterator<Item = &Arc<BrokerRegistration>> {
        self.brokers.values().filter(|broker| !broker.fenced)
    }

    /// The dynamic settings of one resource; None if it has none.
    pub fn config(&self, resource: &ConfigResource) -> Option<&BTreeMap<String, String>> {
        self.configs.get(resource).map(Arc::as_ref)
    }

    pub fn topic_config(&self, topic: &str) -> Option<&BTreeMap<String, String>> {
        self.config(&ConfigResource::topic(topic))
    }

    /// The finalized level; 0 if the feature is off.
    pub fn feature_level(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or(0)
    }

    /// Whether eligible leader replicas are enabled (KIP-966), so that all brokers must have one `min.insync.replicas`.
    pub fn is_elr_enabled(&self) -> bool {
        self.feature_level(super::ELR_FEATURE) > 0
    }

    /// All finalized features above level 0, kraft.version included.
    pub fn finalized_features(&self) -> impl Iterator<Item = (&str, i16)> {
        let kraft = (self.kraft_version > 0).then_some((super::KRAFT_VERSION_FEATURE, self.kraft_version));
        kraft.into_iter().chain(self.features.iter().map(|(name, level)| (name.as_str(), *level)))
    }

    /// `finalized_features_epoch` of ApiVersions: as in Apache, the offset of the image.
    pub fn finalized_features_epoch(&self) -> i64 {
        self.provenance.last_contained_offset
    }

    /// The growth of the image if these records were applied. The image must not contain them yet.
    pub fn growth(&self, records: &[MetadataRecord]) -> ImageSize {
        let mut growth = ImageSize::default();
        for record in records {
            match record {
                MetadataRecord::Topic(record) => growth.add(ImageSize::of_topic(&record.name)),
                MetadataRecord::Partition(_) => growth.add(ImageSize::PARTITION),
                MetadataRecord::Config(ConfigRecord { resource_type, resource_name, name, value: Some(value) }) => {
                    let resource_type = ConfigResourceType::from_id(*resource_type);
                    let resource = ConfigResource::new(resource_type, resource_name.as_str());
                    let present = self.config(&resource).and_then(|configs| configs.get(name));
                    let bytes = ImageSize::of_config(&resource, name, value).bytes;
                    let present = present.map_or(0, |present| ImageSize::of_config(&resource, name, present).bytes);
                    growth.bytes += bytes.saturating_sub(present);
                }
                MetadataRecord::ClientQuota(record) if !record.remove => {
                    let entity = record.entity.iter().map(|part| (part.entity_type.clone(), part.entity_name.clone()));
                    let entity: ClientQuotaEntity = entity.collect();
                    let present = self.client_quotas.get(&entity);
                    if present.is_none_or(|quotas| !quotas.contains_key(&record.key)) {
                        growth.add(ImageSize::of_quota(&entity, &record.key));
                    }
                }
                _ => {}
            }
        }
        growth
    }

    /// Applies one record and adds its changes to `delta`. The caller must update the provenance.
    pub fn apply(&mut self, record: &MetadataRecord, delta: &mut MetadataDelta) -> Result<(), ImageError> {
        match record {
            MetadataRecord::RegisterBroker(record) => self.apply_register_broker(record, delta),
            MetadataRecord::UnregisterBroker(record) => {
                self.registered_broker("UnregisterBrokerRecord", record.broker_id, record.broker_epoch)?;
                Arc::make_mut(&mut self.brokers).remove(&record.broker_id);
                delta.brokers.insert(record.broker_id);
            }
            MetadataRecord::BrokerRegistrationChange(record) => self.apply_registration_change(record, delta)?,
            MetadataRecord::FenceBroker(record) => {
                self.change_broker("FenceBrokerRecord", record.id, record.epoch, delta, |broker| broker.fenced = true)?
            }
            MetadataRecord::UnfenceBroker(record) => {
                self.change_broker("UnfenceBrokerRecord", record.id, record.epoch, delta, |broker| {
                    broker.fenced = false
                })?
            }
            MetadataRecord::Topic(record) => self.apply_topic(record, delta)?,
            MetadataRecord::Partition(record) => self.apply_partition(record, delta)?,
            MetadataRecord::PartitionChange(record) => self.apply_partition_change(record, delta)?,
            MetadataRecord::RemoveTopic(record) => self.apply_remove_topic(record, delta)?,
            MetadataRecord::ClearElr(record) => self.apply_clear_elr(record, delta),
            MetadataRecord::Config(record) => self.apply_config(record, delta),
            MetadataRecord::ClientQuota(record) => self.apply_client_quota(record, delta),
            MetadataRecord::FeatureLevel(record) => self.apply_feature_level(record, delta),
            MetadataRecord::ProducerIds(record) => {
                self.next_producer_id = record.next_producer_id;
                self.last_producer_ids = Some((record.broker_id, record.broker_epoch));
                delta.producer_ids = true;
            }
            // A transaction over several batches is written only while a new log is set up, and an incomplete one is
            // never served.
            MetadataRecord::NoOp(_)
            | MetadataRecord::BeginTransaction(_)
            | MetadataRecord::EndTransaction(_)
            | MetadataRecord::ZkMigrationState(_)
            | MetadataRecord::RegisterController(_) => {}
            other => return Err(ImageError::Unsupported(other.type_and_name().1)),
        }
        Ok(())
    }

    fn registered_broker(
        &self,
        record: &'static str,
        broker_id: BrokerId,
        broker_epoch: i64,
    ) -> Result<&BrokerRegistration, ImageError> {
        self.brokers
            .get(&broker_id)
            .map(Arc::as_ref)
            .filter(|broker| broker.epoch == broker_epoch)
            .ok_or(ImageError::UnknownBroker { record, broker_id, broker_epoch })
    }

    fn change_broker(
        &mut self,
        record: &'static str,
        broker_id: BrokerId,
        broker_epoch: i64,
        delta: &mut MetadataDelta,
        change: impl FnOnce(&mut BrokerRegistration),
    ) -> Result<(), ImageError> {
        let mut broker = self.registered_broker(record, broker_id, broker_epoch)?.clone();
        change(&mut broker);
        Arc::make_mut(&mut self.brokers).insert(broker_id, Arc::new(broker));
        delta.brokers.insert(broker_id);
        Ok(())
    }

    fn apply_register_broker(&mut self, record: &RegisterBrokerRecord, delta: &mut MetadataDelta) {
        let broker = BrokerRegistration {
            id: record.broker_id,
            epoch: record.broker_epoch,
            incarnation_id: record.incarnation_id,
            endpoints: record
                .end_points
                .iter()
                .map(|endpoint| Endpoint {
                    listener: endpoint.name.clone(),
                    host: endpoint.host.clone(),
                    port: endpoint.port,
                    security_protocol: endpoint.security_protocol,
                })
                .collect(),
            features: record
                .features
                .iter()
                .map(|feature| (feature.name.clone(), (feature.min_supported_version, feature.max_supported_version)))
                .collect(),
            rack: record.rack.clone(),
            fenced: record.fenced,
            in_controlled_shutdown: record.in_controlled_shutdown,
            directories: record.log_dirs.clone(),
            cordoned_directories: record.cordoned_log_dirs.clone(),
        };
        Arc::make_mut(&mut self.brokers).insert(broker.id, Arc::new(broker));
        delta.brokers.insert(record.broker_id);
    }

    fn apply_registration_change(
        &mut self,
        record: &BrokerRegistrationChangeRecord,
        delta: &mut MetadataDelta,
    ) -> Result<(), ImageError> {
        self.change_broker("BrokerRegistrationChangeRecord", record.broker_id, record.broker_epoch, delta, |broker| {
            // 1 means fence, -1 unfence, 0 no change (BrokerRegistrationFencingChange).
            match record.fenced {
                1 => broker.fenced = true,
                -1 => broker.fenced = false,
                _ => {}
            }
            if record.in_controlled_shutdown == 1 {
                broker.in_controlled_shutdown = true;
            }
            if !record.log_dirs.is_empty() {
                broker.directories.clone_from(&record.log_dirs);
            }
            if record.cordoned_log_dirs.is_some() {
                broker.cordoned_directories.clone_from(&record.cordoned_log_dirs);
            }
        })
    }

    fn apply_topic(&mut self, record: &TopicRecord, delta: &mut MetadataDelta) -> Result<(), ImageError> {
        if self.topic(&record.name).is_some() {
            return Err(ImageError::DuplicateTopic(record.name.clone()));
        }
        let (id, name) = (TopicId(record.topic_id), Arc::<str>::from(record.name.as_str()));
        let topics = &mut self.topics;
        topics.by_id.insert(id, name.clone());
        if let Some(unified) = unify_collision_chars(&name) {
            topics.colliding.entry(unified.into()).or_default().insert(name.clone());
        }
        topics
            .by_name
            .insert(name.clone(), Arc::new(TopicImage { id, name: name.clone(), partitions: BTreeMap::new() }));
        self.size.add(ImageSize::of_topic(&name));
        delta.topics.insert(id, TopicDelta { name, created: true, partitions: BTreeSet::new() });
        Ok(())
    }

    fn topic_mut(&mut self, record: &'static str, id: TopicId) -> Result<&mut TopicImage, ImageError> {
        let unknown = ImageError::UnknownTopic { record, topic_id: id };
        let Some(name) = self.topics.by_id.get(&id).cloned() else { return Err(unknown) };
        let topic = self.topics.by_name.get_mut(&name).ok_or(unknown)?;
        Ok(Arc::make_mut(topic))
    }

    fn apply_partition(&mut self, record: &PartitionRecord, delta: &mut MetadataDelta) -> Result<(), ImageError> {
        let topic = self.topic_mut("PartitionRecord", TopicId(record.topic_id))?;
        let is_new = topic.partitions.insert(record.partition_id, PartitionImage::from_record(record)).is_none();
        delta.touch_partition(topic, record.partition_id);
        if is_new {
            self.size.add(ImageSize::PARTITION);
        }
        Ok(())
    }

    fn apply_partition_change(
        &mut self,
        record: &PartitionChangeRecord,
        delta: &mut MetadataDelta,
    ) -> Result<(), ImageError> {
        let topic = self.topic_mut("PartitionChangeRecord", TopicId(record.topic_id))?;
        let Some(partition) = topic.partitions.get_mut(&record.partition_id) else {
            return Err(ImageError::UnknownPartition { topic: topic.name.clone(), partition: record.partition_id });
        };
        partition.merge(record);
        delta.touch_partition(topic, record.partition_id);
        Ok(())
    }

    fn apply_remove_topic(&mut self, record: &RemoveTopicRecord, delta: &mut MetadataDelta) -> Result<(), ImageError> {
        let id = TopicId(record.topic_id);
        let topics = &mut self.topics;
        let removed = topics.by_id.remove(&id).and_then(|name| topics.by_name.remove(&name));
        let Some(topic) = removed else {
            return Err(ImageError::UnknownTopic { record: "RemoveTopicRecord", topic_id: id });
        };
        self.size.subtract(ImageSize::of_topic(&topic.name));
        topic.partitions.values().for_each(|_| self.size.subtract(ImageSize::PARTITION));
        if let Some(unified) = unify_collision_chars(&topic.name)
            && let Some(names) = topics.colliding.get_mut(&*unified)
        {
            names.remove(&topic.name);
            if names.is_empty() {
                topics.colliding.remove(&*unified);
            }
        }
        let resource = ConfigResource::topic(&topic.name);
        if let Some(configs) = self.configs.remove(&resource) {
            for (name, value) in configs.iter() {
                self.size.subtract(ImageSize::of_config(&resource, name, value));
            }
            delta.configs.insert(resource);
        }
        // A topic that is created and removed within one delta never had a log.
        let created_in_this_delta = delta.topics.remove(&id).is_some_and(|topic| topic.created);
        if !created_in_this_delta {
            delta.deleted_topics.insert(id, topic);
        }
        Ok(())
    }

    fn apply_clear_elr(&mut self, record: &ClearElrRecord, delta: &mut MetadataDelta) {
        let has_elr = |topic: &TopicImage| {
            topic.partitions.values().any(|partition| !partition.elr.is_empty() || !partition.last_known_elr.is_empty())
        };
        let matches_record = |topic: &TopicImage| record.topic_name.is_empty() || *topic.name == record.topic_name;
        let topics = self.topics.by_name.values().filter(|topic| matches_record(topic) && has_elr(topic));
        let names: Vec<Arc<str>> = topics.map(|topic| topic.name.clone()).collect();
        for name in names {
            let Some(topic) = self.topics.by_name.get_mut(&name) else { continue };
            let topic = Arc::make_mut(topic);
            let mut changed = Vec::new();
            for (id, partition) in &mut topic.partitions {
                if !partition.elr.is_empty() || !partition.last_known_elr.is_empty() {
                    partition.elr.clear();
                    partition.last_known_elr.clear();
                    partition.partition_epoch += 1;
                    changed.push(*id);
                }
            }
            changed.into_iter().for_each(|id| delta.touch_partition(topic, id));
        }
    }

    fn apply_config(&mut self, record: &ConfigRecord, delta: &mut MetadataDelta) {
        let resource =
            ConfigResource::new(ConfigResourceType::from_id(record.resource_type), record.resource_name.clone());
        let replaced = match &record.value {
            Some(value) => {
                self.size.add(ImageSize::of_config(&resource, &record.name, value));
                let values = self.configs.entry(Arc::new(resource.clone())).or_default();
                Arc::make_mut(values).insert(record.name.clone(), value.clone())
            }
            None => self.configs.get_mut(&resource).and_then(|values| Arc::make_mut(values).remove(&record.name)),
        };
        if let Some(replaced) = replaced {
            self.size.subtract(ImageSize::of_config(&resource, &record.name, &replaced));
        }
        if self.configs.get(&resource).is_some_and(|values| values.is_empty()) {
            self.configs.remove(&resource);
        }
        delta.configs.insert(resource);
    }

    fn apply_client_quota(&mut self, record: &ClientQuotaRecord, delta: &mut MetadataDelta) {
        let entity: ClientQuotaEntity =
            record.entity.iter().map(|part| (part.entity_type.clone(), part.entity_name.clone())).collect();
        let was_there = if record.remove {
            self.client_quotas.get_mut(&entity).and_then(|values| values.remove(&record.key)).is_some()
        } else {
            self.size.add(ImageSize::of_quota(&entity, &record.key));
            let values = self.client_quotas.entry(Arc::new(entity.clone())).or_default();
            values.insert(record.key.clone(), record.value).is_some()
        };
        if was_there {
            self.size.subtract(ImageSize::of_quota(&entity, &record.key));
        }
        if self.client_quotas.get(&entity).is_some_and(BTreeMap::is_empty) {
            self.client_quotas.remove(&entity);
        }
        delta.client_quotas.insert(entity);
    }

    fn apply_feature_level(&mut self, record: &FeatureLevelRecord, delta: &mut MetadataDelta) {
        let features = Arc::make_mut(&mut self.features);
        if record.feature_level == 0 {
            features.remove(&record.name);
        } else {
            features.insert(record.name.clone(), record.feature_level);
        }
        delta.features = true;
    }

    /// Converts the image to records, in the order of Apache's `MetadataImage.write`. Applied to an empty image, they
    /// give an equal image.
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records = self.feature_records();
        records.extend(self.brokers.values().map(|broker| broker_record(broker)));
        for topic in self.topics.by_name.values() {
            records.extend(topic_records(topic));
        }
        for resource in self.configs.keys() {
            records.extend(self.config_records(resource));
        }
        for entity in self.client_quotas.keys() {
            records.extend(self.quota_records(entity));
        }
        records.extend(self.producer_id_record());
        records
    }

    pub(super) fn feature_records(&self) -> Vec<MetadataRecord> {
        // metadata.version comes first, since it decides how the other records are read (Apache: FeaturesImage.write).
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for (name, level) in self.features.iter() {
            let records = if name == super::METADATA_VERSION_FEATURE { &mut first } else { &mut rest };
            records.push(FeatureLevelRecord { name: name.clone(), feature_level: *level }.into());
        }
        first.append(&mut rest);
        first
    }

    pub(super) fn config_records(&self, resource: &ConfigResource) -> Vec<MetadataRecord> {
        let values = self.config(resource).into_iter().flatten();
        values
            .map(|(name, value)| {
                ConfigRecord {
                    resource_type: resource.resource_type.id(),
                    resource_name: resource.name.clone(),
                    name: name.clone(),
                    value: Some(value.clone()),
                }
                .into()
            })
            .collect()
    }

    pub(super) fn quota_records(&self, entity: &ClientQuotaEntity) -> Vec<MetadataRecord> {
        let values = self.client_quotas.get(entity).into_iter().flatten();
        values
            .map(|(key, value)| {
                ClientQuotaRecord { entity: quota_entity_data(entity), key: key.clone(), value: *value, remove: false }
                    .into()
            })
            .collect()
    }

    pub(super) fn producer_id_record(&self) -> Option<MetadataRecord> {
        let (broker_id, broker_epoch) = self.last_producer_ids?;
        Some(ProducerIdsRecord { broker_id, broker_epoch, next_producer_id: self.next_producer_id }.into())
    }

    /// CRC-32C over the whole content of the image: equal images have equal checksums (INV-M2).
    pub fn checksum(&self) -> u32 {
        let mut bytes = Vec::new();
        for record in self.to_records() {
            record.encode(&mut bytes);
        }
        bytes.extend(self.provenance.last_contained_offset.to_be_bytes());
        bytes.extend(self.provenance.last_contained_epoch.to_be_bytes());
        crc32c(&bytes)
    }
}

/// Converts an entity to the form of ClientQuotaRecord.
pub(crate) fn quota_entity_data(entity: &ClientQuotaEntity) -> Vec<QuotaEntityData> {
    entity
        .iter()
        .map(|(entity_type, entity_name)| QuotaEntityData {
            entity_type: entity_type.clone(),
            entity_name: entity_name.clone(),
        })
        .collect()
}

pub(super) fn broker_record(broker: &BrokerRegistration) -> MetadataRecord {
    RegisterBrokerRecord {
        broker_id: broker.id,
        is_migrating_zk_broker: false,
        incarnation_id: broker.incarnation_id,
        broker_epoch: broker.epoch,
        end_points: broker
            .endpoints
            .iter()
            .map(|endpoint| BrokerEndpoint {
                name: endpoint.listener.clone(),
                host: endpoint.host.clone(),
                port: endpoint.port,
                security_protocol: endpoint.security_protocol,
            })
            .collect(),
        features: broker
            .features
            .iter()
            .map(|(name, (min, max))| BrokerFeature {
                name: name.clone(),
                min_supported_version: *min,
                max_supported_version: *max,
            })
            .collect(),
        rack: broker.rack.clone(),
        fenced: broker.fenced,
        in_controlled_shutdown: broker.in_controlled_shutdown,
        log_dirs: broker.directories.clone(),
        cordoned_log_dirs: broker.cordoned_directories.clone(),
    }
    .into()
}

pub(super) fn topic_record(topic: &TopicImage) -> MetadataRecord {
    TopicRecord { name: topic.name.to_string(), topic_id: topic.id.0 }.into()
}

pub(super) fn partition_record(topic: &TopicImage, partition: i32) -> Option<MetadataRecord> {
    Some(topic.partitions.get(&partition)?.to_record(topic.id, partition).into())
}

fn topic_records(topic: &TopicImage) -> impl Iterator<Item = MetadataRecord> {
    std::iter::once(topic_record(topic))
        .chain(topic.partitions.keys().filter_map(|partition| partition_record(topic, *partition)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Clock, SystemClock};

    fn apply_all(image: &mut MetadataImage, records: Vec<MetadataRecord>) -> MetadataDelta {
        let mut delta = MetadataDelta::default();
        for record in records {
            image.provenance.last_contained_offset += 1;
            image.apply(&record, &mut delta).unwrap();
        }
        delta
    }

    fn topic(name: &str, id: u128, partitions: i32) -> Vec<MetadataRecord> {
        let topic_id = Uuid::from_u128(id);
        let mut records = vec![TopicRecord { name: name.into(), topic_id }.into()];
        for partition_id in 0..partitions {
            records.push(
                PartitionRecord {
                    partition_id,
                    topic_id,
                    replicas: vec![1],
                    isr: vec![1],
                    leader: 1,
                    leader_epoch: 0,
                    partition_epoch: 0,
                    directories: vec![Uuid::from_u128(500)],
                    ..Default::default()
                }
                .into(),
            );
        }
        records
    }

    fn rich_image() -> MetadataImage {
        let mut image = MetadataImage::default();
        let mut records: Vec<MetadataRecord> = vec![
            FeatureLevelRecord { name: "metadata.version".into(), feature_level: 30 }.into(),
            FeatureLevelRecord { name: "kraft.version".into(), feature_level: 1 }.into(),
            RegisterBrokerRecord {
                broker_id: 1,
                broker_epoch: 2,
                fenced: true,
                log_dirs: vec![Uuid::from_u128(500)],
                ..Default::default()
            }
            .into(),
            BrokerRegistrationChangeRecord { broker_id: 1, broker_epoch: 2, fenced: -1, ..Default::default() }.into(),
            ConfigRecord {
                resource_type: 2,
                resource_name: "a.b".into(),
                name: "retention.ms".into(),
                value: Some("5".into()),
            }
            .into(),
            ConfigRecord { resource_type: 4, resource_name: "".into(), name: "x".into(), value: Some("y".into()) }
                .into(),
            ClientQuotaRecord {
                entity: vec![QuotaEntityData { entity_type: "user".into(), entity_name: None }],
                key: "k".into(),
                value: 2.0,
                remove: false,
            }
            .into(),
            ProducerIdsRecord { broker_id: 1, broker_epoch: 2, next_producer_id: 1000 }.into(),
        ];
        records.extend(topic("a.b", 1000, 3));
        records.extend(topic("c", 1001, 1));
        apply_all(&mut image, records);
        image
    }

    #[test]
    fn an_image_written_as_records_and_read_back_is_the_same() {
        let image = rich_image();
        let mut again = MetadataImage { provenance: image.provenance, ..Default::default() };
        let mut delta = MetadataDelta::default();
        for record in image.to_records() {
            let record = MetadataRecord::decode(&record.to_bytes()).unwrap();
            again.apply(&record, &mut delta).unwrap();
        }
        assert_eq!(again, image);
        assert_eq!(again.checksum(), image.checksum());
        assert_eq!(delta, MetadataDelta::from_empty(&image));
        apply_all(
            &mut again,
            vec![ConfigRecord { resource_type: 4, resource_name: "".into(), name: "x".into(), value: None }.into()],
        );
        assert_ne!(again.checksum(), image.checksum(), "different images have different checksums");
    }

    #[test]
    fn naming_a_leader_bumps_the_leader_epoch_and_any_change_the_partition_epoch() {
        let mut image = rich_image();
        let topic_id = image.topic_id("c").unwrap();
        let before = image.clone();
        let change = PartitionChangeRecord { partition_id: 0, topic_id: topic_id.0, leader: 1, ..Default::default() };
        let delta = apply_all(&mut image, vec![change.into()]);
        let partition = image.partition("c", 0).unwrap();
        assert_eq!((partition.leader, partition.leader_epoch, partition.partition_epoch), (1, 1, 1));
        assert!(!delta.topics[&topic_id].created);
        let change =
            PartitionChangeRecord { partition_id: 0, topic_id: topic_id.0, isr: Some(vec![]), ..Default::default() };
        apply_all(&mut image, vec![change.into()]);
        let partition = image.partition("c", 0).unwrap();
        assert_eq!((partition.leader_epoch, partition.partition_epoch, partition.isr.len()), (1, 2, 0));
        assert_eq!(before.partition("c", 0).unwrap().leader_epoch, 0, "a cloned image never changes");
        assert!(Arc::ptr_eq(before.topic("a.b").unwrap(), image.topic("a.b").unwrap()), "unchanged topics are shared");
    }

    fn topic_with_a_setting(number: u32) -> Vec<MetadataRecord> {
        let name = format!("topic.{number}");
        let setting = ConfigRecord {
            resource_type: 2,
            resource_name: name.clone(),
            name: "retention.ms".into(),
            value: Some("5".into()),
        };
        let mut records = topic(&name, u128::from(number) + 1, 1);
        records.push(setting.into());
        records
    }

    #[test]
    fn a_change_copies_what_it_changes_however_much_else_there_is() {
        let mut image = MetadataImage::default();
        for number in 0..3_000 {
            apply_all(&mut image, topic_with_a_setting(number));
        }
        let before = image.clone();
        apply_all(&mut image, topic_with_a_setting(3_000));
        for (name, topic) in &before.topics.by_name {
            assert!(Arc::ptr_eq(topic, &image.topics.by_name[name]), "{name} is shared");
        }
        for (resource, configs) in &before.configs {
            assert!(Arc::ptr_eq(configs, &image.configs[resource]), "the settings of {} are shared", resource.name);
        }
        assert!(before.topic("topic.3000").is_none());
    }

    /// Each change is published, so that the image before it stays as it was.
    #[test]
    fn topics_created_one_by_one_take_time_in_proportion_to_their_number() {
        let clock = SystemClock::new();
        let seconds_per_topic = |topics: u32| {
            let start = clock.monotonic();
            let (mut image, mut published) = (MetadataImage::default(), MetadataImage::default());
            for number in 0..topics {
                apply_all(&mut image, topic_with_a_setting(number));
                published = image.clone();
            }
            assert_eq!(published.topics.by_name.len(), topics as usize);
            (clock.monotonic() - start).as_secs_f64() / f64::from(topics)
        };
        let (few, many) = (seconds_per_topic(500), seconds_per_topic(16_000));
        assert!(many < few * 8.0, "a topic among 500 takes {few} s, among 16,000 {many} s");
    }

    #[test]
    fn removing_a_topic_takes_its_settings_and_a_name_may_come_back_with_another_id() {
        let mut image = rich_image();
        let old = image.topic_id("a.b").unwrap();
        assert_eq!(image.topics.collision("a_b").map(|name| &**name), Some("a.b"));
        let mut records = vec![RemoveTopicRecord { topic_id: old.0 }.into()];
        records.extend(topic("a.b", 2000, 1));
        let delta = apply_all(&mut image, records);
        assert!(image.topic_config("a.b").is_none());
        assert_eq!(delta.deleted_topics[&old].partitions.len(), 3);
        assert!(delta.topics[&image.topic_id("a.b").unwrap()].created);
        assert!(image.topic_by_id(old).is_none());
        let new = image.topic_id("a.b").unwrap();
        apply_all(&mut image, vec![RemoveTopicRecord { topic_id: new.0 }.into()]);
        assert_eq!(image.topics.collision("a_b"), None);
    }

    #[test]
    fn records_that_cannot_follow_are_errors() {
        let mut image = rich_image();
        let mut delta = MetadataDelta::default();
        let mut fails = |record: MetadataRecord| image.apply(&record, &mut delta).unwrap_err();
        assert!(matches!(
            fails(TopicRecord { name: "c".into(), topic_id: Uuid::nil() }.into()),
            ImageError::DuplicateTopic(_)
        ));
        assert!(matches!(fails(RemoveTopicRecord { topic_id: Uuid::nil() }.into()), ImageError::UnknownTopic { .. }));
        assert!(matches!(
            fails(UnregisterBrokerRecord { broker_id: 1, broker_epoch: 77 }.into()),
            ImageError::UnknownBroker { .. }
        ));
        assert!(matches!(
            fails(AccessControlEntryRecord::default().into()),
            ImageError::Unsupported("AccessControlEntryRecord")
        ));
    }
}
