//! What all replicas of this broker share: its id and epoch, the clock, which brokers may be in sync and when they
//! fetched, and the queue of proposed changes of ISRs. Leaves the metadata from which it is set to
//! `replica_manager.rs`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{isr::Proposals, state::LiveBrokers};
use crate::{
    env::{Clock, Watched, lock},
    metadata::{image::MetadataImage, liveness::Liveness},
    metrics::Counter,
    types::BrokerId,
};

/// Counters for metrics.
#[derive(Debug, Default)]
pub struct ReplicaCounters {
    pub isr_shrinks: Counter,
    pub isr_expands: Counter,
    pub failed_isr_updates: Counter,
    pub leader_elections: Counter,
    pub unclean_elections: Counter,
}

impl ReplicaCounters {
    pub(super) fn count_isr_change(&self, members_before: usize, members: usize) {
        self.isr_shrinks.add((members < members_before).into());
        self.isr_expands.add((members > members_before).into());
    }
}

/// See the head of the file.
pub struct ReplicaContext {
    pub(super) local: BrokerId,
    pub(super) clock: Arc<dyn Clock>,
    /// `replica.lag.time.max.ms`.
    pub(super) max_lag: Duration,
    pub(super) proposals: Proposals,
    pub(super) counters: ReplicaCounters,
    pub(super) liveness: Arc<Liveness>,
    /// The broker epochs of those that may be in sync.
    live: RwLock<BTreeMap<BrokerId, i64>>,
    /// When each of the other brokers last sent a fetch request.
    fetched: RwLock<BTreeMap<BrokerId, Duration>>,
    /// Until when each of the other brokers is known to have followed: it has fetched again after an answer of that
    /// time. The time of a request alone says less, since it may have waited here while this process did not run.
    followed_until: RwLock<BTreeMap<BrokerId, Duration>>,
    /// When a leader last wanted to know whether the others follow it. Followers that have had no answer since get one
    /// at once, so that they can ask again.
    answers_wanted: Watched<Duration>,
    /// Until when the controller is known not to have fenced this broker.
    unfenced_until: RwLock<Duration>,
    /// Somebody waits for a newer answer of the controller.
    heartbeat_wanted: Notify,
    /// Woken when a follower has fetched, when the controller has answered, and when the leadership of a partition has
    /// changed.
    pub(super) followers_changed: Notify,
    /// The epoch of this broker; -1 if it is not registered.
    own_epoch: AtomicI64,
    /// The partitions whose logs were truncated below the high watermark, for the checks of simulations.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) truncated_committed: std::sync::Mutex<Vec<crate::types::TopicPartition>>,
}

impl ReplicaContext {
    pub fn new(local: BrokerId, clock: Arc<dyn Clock>, max_lag: Duration) -> Arc<ReplicaContext> {
        Arc::new(ReplicaContext {
            local,
            liveness: Liveness::new(clock.clone()),
            clock,
            max_lag,
            proposals: Proposals::default(),
            counters: ReplicaCounters::default(),
            live: RwLock::default(),
            fetched: RwLock::default(),
            followed_until: RwLock::default(),
            answers_wanted: Watched::default(),
            unfenced_until: RwLock::default(),
            heartbeat_wanted: Notify::new(),
            followers_changed: Notify::new(),
            own_epoch: AtomicI64::new(-1),
            #[cfg(any(test, feature = "sim"))]
            truncated_committed: std::sync::Mutex::default(),
        })
    }

    /// Takes over which brokers may be in sync.
    pub(super) fn set_brokers(&self, image: &MetadataImage) {
        let active = image.brokers.values().filter(|broker| broker.is_active());
        *lock::write(&self.live) = active.map(|broker| (broker.id, broker.epoch)).collect();
        for times in [&self.fetched, &self.followed_until] {
            lock::write(times).retain(|broker, _| image.broker(*broker).is_some());
        }
        let own_epoch = image.broker(self.local).map_or(-1, |broker| broker.epoch);
        self.own_epoch.store(own_epoch, Ordering::Release);
    }

    /// The epoch of this broker; -1 if it is not registered.
    pub(super) fn own_epoch(&self) -> i64 {
        self.own_epoch.load(Ordering::Acquire)
    }

    /// Another broker has sent a fetch request as a follower, after it had an answer that was made at `answered_at`.
    pub(super) fn on_fetch_request(&self, broker: BrokerId, answered_at: Option<Duration>) {
        // A broker that is not registered has no replica here.
        if !lock::read(&self.live).contains_key(&broker) {
            return;
        }
        lock::write(&self.fetched).insert(broker, self.clock.monotonic());
        if let Some(answered_at) = answered_at {
            let mut followed_until = lock::write(&self.followed_until);
            let until = followed_until.entry(broker).or_default();
            *until = answered_at.max(*until);
            drop(followed_until);
            self.followers_changed.notify_waiters();
        }
    }

    /// The followers shall have answers of this time or later soon.
    pub(super) fn want_answers(&self, at: Duration) {
        if self.answers_wanted.get() < at {
            self.answers_wanted.update(|wanted| *wanted = at.max(*wanted));
        }
    }

    /// Waits until a follower with its last answer at this time is to get another.
    pub(super) async fn answer_wanted(&self, answered_at: Duration) {
        self.answers_wanted.until(|wanted| *wanted > Duration::ZERO && *wanted >= answered_at).await;
    }

    /// The controller has answered a heartbeat of this time, and has not fenced this broker; this broker has applied
    /// what the controller knew then.
    pub(super) fn on_unfenced(&self, sent_at: Duration) {
        *lock::write(&self.unfenced_until) = sent_at;
        self.followers_changed.notify_waiters();
    }

    /// Whether the controller is known not to have fenced this broker before this time. If not, a heartbeat is sent
    /// soon.
    pub(super) fn is_unfenced(&self, at: Duration) -> bool {
        let is_known = *lock::read(&self.unfenced_until) >= at;
        if !is_known {
            self.heartbeat_wanted.notify_one();
        }
        is_known
    }

    /// Waits until somebody needs to know whether this broker is fenced.
    pub(super) async fn heartbeat_wanted(&self) {
        self.heartbeat_wanted.notified().await;
    }

    /// Whether the broker is known to have followed at this time.
    pub(super) fn has_followed(&self, broker: BrokerId, at: Duration) -> bool {
        lock::read(&self.followed_until).get(&broker).is_some_and(|until| *until >= at)
    }
}

impl LiveBrokers for ReplicaContext {
    fn epoch(&self, broker: BrokerId) -> Option<i64> {
        lock::read(&self.live).get(&broker).copied()
    }

    fn last_fetch(&self, broker: BrokerId) -> Option<Duration> {
        lock::read(&self.fetched).get(&broker).copied()
    }
}
