//! What all replicas of this broker share: its id, the clock, which brokers may be in sync, and the queue of proposed
//! changes of ISRs. Leaves the metadata from which it is set to `replica_manager.rs`.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
    time::Duration,
};

use super::{isr::Proposals, state::LiveBrokers};
use crate::{
    env::{Clock, lock},
    metadata::image::MetadataImage,
    types::BrokerId,
};

/// See the head of the file.
pub struct ReplicaContext {
    pub(super) local: BrokerId,
    pub(super) clock: Arc<dyn Clock>,
    /// `replica.lag.time.max.ms`.
    pub(super) max_lag: Duration,
    pub(super) proposals: Proposals,
    /// The broker epochs of those that may be in sync.
    live: RwLock<BTreeMap<BrokerId, i64>>,
}

impl ReplicaContext {
    pub fn new(local: BrokerId, clock: Arc<dyn Clock>, max_lag: Duration) -> Arc<ReplicaContext> {
        Arc::new(ReplicaContext { local, clock, max_lag, proposals: Proposals::default(), live: RwLock::default() })
    }

    /// Takes over which brokers may be in sync.
    pub(super) fn set_brokers(&self, image: &MetadataImage) {
        let active = image.brokers.values().filter(|broker| broker.is_active());
        *lock::write(&self.live) = active.map(|broker| (broker.id, broker.epoch)).collect();
    }
}

impl LiveBrokers for ReplicaContext {
    fn epoch(&self, broker: BrokerId) -> Option<i64> {
        lock::read(&self.live).get(&broker).copied()
    }
}
