//! Logs that are to be opened or removed, and that are too many to do so at once.
//!
//! Owns their order and who waits for them. What comes first is done first; a topic of whose name there is something in
//! the queue has to queue up too, so that the logs of a topic are out of the way before those of a later one of its
//! name are opened. Leaves the doing to `replica_manager.rs`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

use super::{partition::Partition, replica_manager::Unopened};
use crate::{env::lock::lock, types::TopicPartition};

/// What is to be done with one log.
pub(super) enum Work {
    Open(Unopened),
    /// The partition is not found by anybody any more. `None` if its log is not open.
    Remove(Option<Arc<Partition>>),
}

/// The queue.
#[derive(Default)]
pub(super) struct Backlog {
    pub(super) queue: VecDeque<(TopicPartition, Work)>,
    /// A task works it off.
    pub(super) is_worked_off: bool,
}

/// What is known of the queue without holding it.
pub(super) struct Progress {
    /// How much there is to do for each topic, by name.
    pending: Mutex<BTreeMap<Arc<str>, usize>>,
    /// Changes when there is nothing left to do for a topic.
    topics_done: watch::Sender<u64>,
    /// Threads that wait for a portion to end, since they have changes of their own.
    waiting: AtomicUsize,
}

impl Default for Progress {
    fn default() -> Self {
        Progress { pending: Mutex::default(), topics_done: watch::Sender::new(0), waiting: AtomicUsize::new(0) }
    }
}

impl Progress {
    /// Something of a topic was put into the queue.
    pub(super) fn queued(&self, topic: &Arc<str>) {
        *lock(&self.pending).entry(topic.clone()).or_default() += 1;
    }

    /// Something of a topic is done.
    pub(super) fn done(&self, topic: &Arc<str>) {
        let mut pending = lock(&self.pending);
        if let Some(left) = pending.get_mut(topic) {
            *left -= 1;
            if *left == 0 {
                pending.remove(topic);
                self.topics_done.send_modify(|topics| *topics += 1);
            }
        }
    }

    /// Whether something of a topic of this name is in the queue.
    pub(super) fn is_pending(&self, topic: &str) -> bool {
        lock(&self.pending).contains_key(topic)
    }

    /// Ready when nothing of these topics is in the queue.
    pub(super) async fn settled(&self, topics: &[&str]) {
        let mut done = self.topics_done.subscribe();
        // linear: for each of the topics that a request has created or changed
        while topics.iter().any(|topic| self.is_pending(topic)) {
            if done.changed().await.is_err() {
                return;
            }
        }
    }

    /// Runs `lock`, before which the next portion does not begin.
    pub(super) fn before_portions<T>(&self, lock: impl FnOnce() -> T) -> T {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let locked = lock();
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        locked
    }

    /// Whether the next portion has to let somebody else go first.
    pub(super) fn must_wait(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }
}
