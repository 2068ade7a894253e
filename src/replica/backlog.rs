//! The queue of logs that must be opened or removed later, because they are too many to do at once.
//!
//! Owns their order and the tasks that wait for them. The queue is first in, first out. If it contains logs of a topic
//! name, all later changes of this name are queued, too, so that the logs of a deleted topic are removed before those
//! of a new topic with the same name are opened. Leaves the opening and removal to `replica_manager.rs`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{partition::Partition, replica_manager::Unopened};
use crate::{
    env::{Watched, lock::lock},
    types::TopicPartition,
};

/// The work on one log.
pub(super) enum Work {
    Open(Unopened),
    /// The partition is already removed from the maps. `None` if its log is not open.
    Remove(Option<Arc<Partition>>),
}

/// The queue.
#[derive(Default)]
pub(super) struct Backlog {
    pub(super) queue: VecDeque<(TopicPartition, Work)>,
    /// A task processes the queue.
    pub(super) is_task_running: bool,
}

/// The progress of the queue, which can be read without the queue's lock.
pub(super) struct Progress {
    /// The number of queued logs by topic name.
    pending: Mutex<BTreeMap<Arc<str>, usize>>,
    /// Changes when a topic has no queued logs left.
    topics_done: Watched<u64>,
    /// The number of threads that wait for the current portion to end, because they have changes of their own.
    waiting: AtomicUsize,
}

impl Default for Progress {
    fn default() -> Self {
        Progress { pending: Mutex::default(), topics_done: Watched::new(0), waiting: AtomicUsize::new(0) }
    }
}

impl Progress {
    /// Counts a queued log of a topic.
    pub(super) fn queued(&self, topic: &Arc<str>) {
        *lock(&self.pending).entry(topic.clone()).or_default() += 1;
    }

    /// Counts a finished log of a topic.
    pub(super) fn done(&self, topic: &Arc<str>) {
        let mut pending = lock(&self.pending);
        if let Some(left) = pending.get_mut(topic) {
            *left -= 1;
            if *left == 0 {
                pending.remove(topic);
                self.topics_done.update(|topics| *topics += 1);
            }
        }
    }

    /// Whether logs of a topic with this name are in the queue.
    pub(super) fn is_pending(&self, topic: &str) -> bool {
        lock(&self.pending).contains_key(topic)
    }

    /// Waits until no logs of these topics are in the queue.
    pub(super) async fn wait_until_opened(&self, topics: &[&str]) {
        // linear: visits only the topics that a request has created or changed
        self.topics_done.until(|_| !topics.iter().any(|topic| self.is_pending(topic))).await;
    }

    /// Runs `lock`. The next portion of the queue does not begin before it returns.
    pub(super) fn with_priority<T>(&self, lock: impl FnOnce() -> T) -> T {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let locked = lock();
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        locked
    }

    /// Whether the next portion must wait for another thread.
    pub(super) fn has_priority_waiter(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }
}
