//! The partitions of a follower's fetch session that have changed since the session last took them.
//!
//! A session with 10,000 partitions must not look at all of them for each request. So its partitions mark their changes
//! here. A mark is set after the change and taken before the read, so that no change is missed. Only the owner of the
//! session takes marks. Leaves to `fetch_session.rs` what a session does with them.

use std::sync::{Arc, Mutex, Weak};

use indexmap::IndexSet;
use tokio::sync::Notify;

use super::isr::PartitionKey;
use crate::env::lock::lock;

/// See the head of the file.
#[derive(Debug, Default)]
pub struct ChangedPartitions {
    marked: Mutex<IndexSet<PartitionKey>>,
    woken: Notify,
}

impl ChangedPartitions {
    fn mark(&self, partition: PartitionKey) {
        lock(&self.marked).insert(partition);
        self.wake();
    }

    /// Has the waiting tasks look at what they wait for.
    pub fn wake(&self) {
        self.woken.notify_waiters();
    }

    /// Waits until there is a mark, or until `is_over` holds, which changes only before a call of
    /// [`ChangedPartitions::wake`].
    pub async fn marked(&self, is_over: impl Fn() -> bool) {
        loop {
            let mut woken = std::pin::pin!(self.woken.notified());
            // From here on a wake-up is not missed.
            woken.as_mut().enable();
            if is_over() || !lock(&self.marked).is_empty() {
                return;
            }
            woken.await;
        }
    }

    /// Returns the marked partitions in the order of their first mark, and removes the marks.
    pub fn take(&self) -> Vec<PartitionKey> {
        std::mem::take(&mut *lock(&self.marked)).into_iter().collect()
    }
}

/// The sessions that observe one partition: a few, one for each follower.
#[derive(Debug, Default)]
pub(super) struct Observers(Mutex<Vec<Weak<ChangedPartitions>>>);

impl Observers {
    /// From now on changes are marked there. A second call has no effect.
    pub(super) fn add(&self, observer: &Arc<ChangedPartitions>) {
        let mut observers = lock(&self.0);
        if observers.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(observer))) {
            return;
        }
        // Sessions that have ended are removed here, so that they do not pile up while nothing changes.
        observers.retain(|known| known.strong_count() > 0);
        observers.push(Arc::downgrade(observer));
    }

    pub(super) fn mark(&self, partition: PartitionKey) {
        for observer in lock(&self.0).iter().filter_map(Weak::upgrade) {
            observer.mark(partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::types::TopicId;

    #[test]
    fn each_session_gets_each_changed_partition_once_and_is_woken() {
        let (observers, first, second) = (Observers::default(), Arc::<ChangedPartitions>::default(), Arc::default());
        observers.add(&first);
        observers.add(&first);
        observers.add(&second);
        assert!(first.marked(|| false).now_or_never().is_none());
        assert!(first.marked(|| true).now_or_never().is_some());
        for partition in [7, 3, 7] {
            observers.mark((TopicId::ZERO, partition));
        }
        assert!(first.marked(|| false).now_or_never().is_some());
        let taken = |changed: &ChangedPartitions| changed.take().iter().map(|key| key.1).collect::<Vec<_>>();
        assert_eq!((taken(&first), taken(&first), taken(&second)), (vec![7, 3], vec![], vec![7, 3]));
    }

    #[test]
    fn ended_sessions_do_not_pile_up() {
        let observers = Observers::default();
        for _ in 0..100 {
            observers.add(&Arc::default());
        }
        assert_eq!(lock(&observers.0).len(), 1);
    }
}
