//! All partitions of this broker, and how metadata opens, changes and removes them.
//!
//! Lookups are by topic name or id; they share one entry per topic. Deltas arrive on the metadata
//! thread, one at a time, and are done when the call returns: whoever created a topic finds its log.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, RwLock, Weak},
};

use super::{directories::Directories, partition::Partition, state::Leadership};
use crate::{
    config::{ConfigLayers, Configs, LogConfig, StaticConfigs},
    log::{LogError, LogManager, LogOwner, checkpoints::is_damaged_copy},
    metadata::{
        delta::MetadataDelta,
        image::{ConfigResource, ConfigResourceType, MetadataImage, PartitionImage, TopicImage},
        publisher::Subscriber,
    },
    metrics::TopicCounters,
    raft::ControllerHandle,
    types::{BrokerId, CLUSTER_METADATA_TOPIC, TopicId, TopicPartition},
};

/// A partition that this broker should have.
#[derive(Clone)]
pub enum Hosted {
    /// It is open.
    Online(Arc<Partition>),
    /// Its log cannot be used: corrupt, or on a failed disk. Said once in the log of the broker.
    Offline,
}

/// The partitions of one topic that this broker has.
pub struct LocalTopic {
    /// The topic's id.
    pub id: TopicId,
    /// The topic's name.
    pub name: Arc<str>,
    /// What is counted for it here.
    pub counters: TopicCounters,
    partitions: RwLock<Vec<Option<Hosted>>>,
}

impl LocalTopic {
    /// The partition, if it is here.
    pub fn partition(&self, index: i32) -> Option<Hosted> {
        let partitions = self.partitions.read().expect("a poisoned lock ends the process");
        partitions.get(usize::try_from(index).ok()?)?.clone()
    }

    /// What is here, by index.
    pub fn hosted(&self) -> Vec<(i32, Hosted)> {
        let partitions = self.partitions.read().expect("a poisoned lock ends the process");
        (0..).zip(partitions.iter()).filter_map(|(index, hosted)| Some((index, hosted.clone()?))).collect()
    }

    fn set(&self, index: i32, hosted: Hosted) {
        let index = index as usize;
        let mut partitions = self.partitions.write().expect("a poisoned lock ends the process");
        if partitions.len() <= index {
            partitions.resize(index + 1, None);
        }
        partitions[index] = Some(hosted);
    }

    fn offline(&self) -> Vec<TopicPartition> {
        let partitions = self.partitions.read().expect("a poisoned lock ends the process");
        let offline = partitions.iter().enumerate().filter(|(_, hosted)| matches!(hosted, Some(Hosted::Offline)));
        offline.map(|(index, _)| TopicPartition::new(self.name.clone(), index as i32)).collect()
    }

    fn online(&self) -> Vec<Arc<Partition>> {
        let partitions = self.partitions.read().expect("a poisoned lock ends the process");
        let online = partitions.iter().flatten().filter_map(|hosted| match hosted {
            Hosted::Online(partition) => Some(partition.clone()),
            Hosted::Offline => None,
        });
        online.collect()
    }
}

/// Told when this broker becomes the leader of a partition, or loses one.
pub trait LeadershipListener: Send + Sync {
    /// The partition is led from here; its log is open.
    fn on_become_leader(&self, partition: &TopicPartition);
    /// The partition is not led from here any more.
    fn on_resign(&self, partition: &TopicPartition);
}

/// See the module's documentation.
pub struct ReplicaManager {
    broker_id: BrokerId,
    statics: Arc<StaticConfigs>,
    log_manager: Arc<LogManager>,
    directories: Directories,
    topics: RwLock<Topics>,
    listeners: Mutex<Vec<Weak<dyn LeadershipListener>>>,
}

#[derive(Default)]
struct Topics {
    by_name: HashMap<Arc<str>, Arc<LocalTopic>>,
    by_id: HashMap<TopicId, Arc<LocalTopic>>,
}

impl ReplicaManager {
    /// No partitions yet; they come with the metadata.
    pub fn new(broker_id: BrokerId, statics: Arc<StaticConfigs>, log_manager: Arc<LogManager>) -> Arc<ReplicaManager> {
        Arc::new(ReplicaManager {
            broker_id,
            statics,
            log_manager,
            directories: Directories::new(broker_id),
            topics: RwLock::default(),
            listeners: Mutex::default(),
        })
    }

    /// Has `listener` told of changes of leadership from now on.
    pub fn listen(&self, listener: Weak<dyn LeadershipListener>) {
        self.listeners.lock().expect("a poisoned lock ends the process").push(listener);
    }

    /// The topic of that name, if any of it is here.
    pub fn topic(&self, name: &str) -> Option<Arc<LocalTopic>> {
        self.topics.read().expect("a poisoned lock ends the process").by_name.get(name).cloned()
    }

    /// The topic of that id, if any of it is here.
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<LocalTopic>> {
        self.topics.read().expect("a poisoned lock ends the process").by_id.get(&id).cloned()
    }

    /// All topics of which there is something here, by name.
    pub fn topics(&self) -> Vec<Arc<LocalTopic>> {
        let mut topics: Vec<_> =
            self.topics.read().expect("a poisoned lock ends the process").by_id.values().cloned().collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        topics
    }

    /// The partition, if it is here and its log can be used.
    pub fn partition(&self, topic: &str, index: i32) -> Option<Arc<Partition>> {
        match self.topic(topic)?.partition(index)? {
            Hosted::Online(partition) => Some(partition),
            Hosted::Offline => None,
        }
    }

    fn local_topic(&self, topic: &TopicImage) -> Arc<LocalTopic> {
        let mut topics = self.topics.write().expect("a poisoned lock ends the process");
        if let Some(local) = topics.by_id.get(&topic.id) {
            return local.clone();
        }
        let local = Arc::new(LocalTopic {
            id: topic.id,
            name: topic.name.clone(),
            counters: TopicCounters::default(),
            partitions: RwLock::default(),
        });
        topics.by_name.insert(topic.name.clone(), local.clone());
        topics.by_id.insert(topic.id, local.clone());
        local
    }

    /// Removes a topic that is gone: nobody finds it any more, then its logs go.
    fn remove_topic(&self, topic: &TopicImage) {
        let removed = {
            let mut topics = self.topics.write().expect("a poisoned lock ends the process");
            let removed = topics.by_id.remove(&topic.id);
            if topics.by_name.get(&topic.name).is_some_and(|named| named.id == topic.id) {
                topics.by_name.remove(&topic.name);
            }
            removed
        };
        for name in removed.iter().flat_map(|topic| topic.offline()) {
            if let Err(error) = self.log_manager.delete_closed_log(&name) {
                tracing::error!(partition = %name, %error, "cannot delete a log");
            }
        }
        for partition in removed.iter().flat_map(|topic| topic.online()) {
            let name = partition.topic_partition();
            partition.resign();
            self.tell(|listener| listener.on_resign(name));
            if let Err(error) = self.log_manager.delete_log(name, &*partition) {
                tracing::error!(partition = %name, %error, "cannot delete a log");
            }
        }
    }

    /// Has the controller note in which directory each partition is, where it does not know.
    ///
    /// # Errors
    /// The controller cannot note it now; it is asked again with the next call.
    pub async fn report_directories(&self, controller: &ControllerHandle) -> anyhow::Result<()> {
        self.directories.report(controller).await
    }

    /// Waits until [`ReplicaManager::report_directories`] has something to do.
    pub async fn directories_changed(&self) {
        self.directories.changed().await;
    }

    /// Sets aside what is on disk and not in `image`, which must be up to date: what was deleted while this broker was away,
    /// or just before it was killed.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn set_aside_strays(&self, image: &MetadataImage) -> Result<(), LogError> {
        self.log_manager.set_aside_strays(|partition, topic_id| {
            let topic = image.topic(&partition.topic);
            let is_here = topic.and_then(|topic| topic.partitions.get(&partition.partition));
            *partition.topic == *CLUSTER_METADATA_TOPIC
                || is_here.is_some()
                    && topic_id
                        .is_none_or(|id| topic.is_some_and(|topic| topic.id == id || is_damaged_copy(id, topic.id)))
        })
    }

    fn change_partition(&self, image: &MetadataImage, topic: &TopicImage, local: &LocalTopic, index: i32) {
        let Some(registered) =
            topic.partitions.get(&index).filter(|partition| partition.replicas.contains(&self.broker_id))
        else {
            return;
        };
        let name = TopicPartition::new(topic.name.clone(), index);
        let partition = match local.partition(index) {
            Some(Hosted::Online(partition)) => partition,
            Some(Hosted::Offline) => return,
            None => match self.open(image, topic, &name, registered) {
                Ok(partition) => {
                    local.set(index, Hosted::Online(partition.clone()));
                    partition
                }
                Err(error) => {
                    self.directories.on_refused(topic.id, &name, registered, &error);
                    return local.set(index, Hosted::Offline);
                }
            },
        };
        match partition.on_metadata(leadership(registered)) {
            super::partition::LeadershipChange::Gained => self.tell(|listener| listener.on_become_leader(&name)),
            super::partition::LeadershipChange::Lost => self.tell(|listener| listener.on_resign(&name)),
            super::partition::LeadershipChange::None => {}
        }
    }

    fn open(
        &self,
        image: &MetadataImage,
        topic: &TopicImage,
        name: &TopicPartition,
        registered: &PartitionImage,
    ) -> Result<Arc<Partition>, LogError> {
        let config = Arc::new(self.log_config(image, &topic.name));
        let placement = self.directories.placement(registered);
        let log = self.log_manager.open_log(name, Some(topic.id), config, placement)?;
        self.directories.on_opened(topic.id, name.partition, registered, self.log_manager.directory_id_of(&log));
        let high_watermark = self.log_manager.checkpointed_high_watermark(name).unwrap_or(0);
        let context = log.context().clone();
        let partition = Partition::new(self.broker_id, topic.id, log, high_watermark);
        let owner: Arc<dyn LogOwner> = partition.clone();
        self.log_manager.register(name, &context, Arc::downgrade(&owner));
        Ok(partition)
    }

    /// A topic's settings over all layers.
    pub fn log_config(&self, image: &MetadataImage, topic: &str) -> LogConfig {
        let (cluster, broker) =
            (image.config(&ConfigResource::default_broker()), image.config(&ConfigResource::broker(self.broker_id)));
        let none = Configs::new();
        ConfigLayers::new(&self.statics, cluster, broker).log_config(image.topic_config(topic).unwrap_or(&none))
    }

    fn change_configs(&self, image: &MetadataImage, changed: &ConfigResource) {
        let topics: Vec<Arc<LocalTopic>> = match changed.resource_type {
            ConfigResourceType::Topic => self.topic(&changed.name).into_iter().collect(),
            ConfigResourceType::Broker => self.topics(),
            _ => return,
        };
        for topic in topics {
            let config = Arc::new(self.log_config(image, &topic.name));
            for partition in topic.online() {
                partition.update_config(config.clone());
            }
        }
    }

    fn tell(&self, act: impl Fn(&dyn LeadershipListener)) {
        let listeners: Vec<_> = {
            let listeners = self.listeners.lock().expect("a poisoned lock ends the process");
            listeners.iter().filter_map(Weak::upgrade).collect()
        };
        for listener in listeners {
            act(&*listener);
        }
    }
}

fn leadership(partition: &PartitionImage) -> Leadership {
    Leadership {
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        replicas: partition.replicas.clone(),
        isr: partition.isr.clone(),
    }
}

impl Subscriber for ReplicaManager {
    fn on_delta(&self, image: &Arc<MetadataImage>, delta: &MetadataDelta) {
        self.directories.on_image(image, &self.log_manager);
        for topic in delta.deleted_topics.values() {
            self.remove_topic(topic);
        }
        for (id, changed) in &delta.topics {
            let Some(topic) = image.topic_by_id(*id) else { continue };
            let local = self.local_topic(topic);
            for index in &changed.partitions {
                self.change_partition(image, topic, &local, *index);
            }
        }
        for resource in &delta.configs {
            self.change_configs(image, resource);
        }
        self.directories.on_applied(&self.log_manager);
    }
}
