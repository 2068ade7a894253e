//! The tasks that wait for a change of a partition: fetches that wait for records, and appends that wait for
//! replication.
//!
//! A change between the check of the state and the wait must not be lost, or a long poll would end late. So either
//! the waiter is registered before the check, or the change counter is read before the check and again after the
//! registration. A wake-up runs no code of the waiter; it only wakes its task.

use std::sync::{
    Arc, Mutex, Weak,
    atomic::{AtomicU64, Ordering},
};

use indexmap::IndexMap;
use tokio::sync::Notify;

use crate::env::lock::lock;

/// A waiting task. It may be registered with many partitions; two wake-ups before it runs count as one.
#[derive(Debug, Default)]
pub struct Waiter(Notify);

impl Waiter {
    /// A waiter without a wake-up.
    pub fn new() -> Arc<Waiter> {
        Arc::default()
    }

    /// Waits for a wake-up after the previous one.
    pub async fn woken(&self) {
        self.0.notified().await;
    }

    fn wake(&self) {
        self.0.notify_one();
    }
}

/// The waiters of one partition.
#[derive(Debug, Default)]
pub struct Waiters {
    /// The change counter. It is increased under the lock, after the change and before the waiters are woken.
    changes: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By address, so that a registration takes constant time even with thousands of waiters. Waiters are woken in the
    /// order of their registration.
    by_address: IndexMap<usize, Weak<Waiter>>,
    /// The number of entries at which dropped waiters are removed.
    sweep_at: usize,
}

/// With fewer entries, dropped waiters are not removed.
const LEAST_SWEEP: usize = 16;

impl Waiters {
    /// Registers `waiter` for the next change. A second registration has no effect; a dropped waiter is removed later.
    pub fn register(&self, waiter: &Arc<Waiter>) {
        let mut waiting = lock(&self.waiting);
        waiting.by_address.insert(Arc::as_ptr(waiter) as usize, Arc::downgrade(waiter));
        if waiting.by_address.len() >= waiting.sweep_at.max(LEAST_SWEEP) {
            waiting.by_address.retain(|_, other| other.strong_count() > 0);
            waiting.sweep_at = 2 * waiting.by_address.len();
        }
    }

    /// The number of changes so far.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Wakes all waiters and removes them.
    pub fn wake_all(&self) {
        let mut waiting = lock(&self.waiting);
        self.changes.fetch_add(1, Ordering::Release);
        for (_, waiter) in waiting.by_address.drain(..) {
            if let Some(waiter) = waiter.upgrade() {
                waiter.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn f1_a_change_between_registering_and_waiting_is_not_lost() {
        let (waiters, waiter) = (Waiters::default(), Waiter::new());
        waiters.register(&waiter);
        waiters.register(&waiter);
        waiters.wake_all();
        waiter.woken().await;
        assert!(futures_util::FutureExt::now_or_never(waiter.woken()).is_none(), "one change must cause one wake-up");
    }

    #[tokio::test]
    async fn f1_a_change_before_registering_is_counted_and_one_after_it_wakes() {
        let (waiters, waiter) = (Waiters::default(), Waiter::new());
        let changes = waiters.changes();
        waiters.wake_all();
        waiters.register(&waiter);
        assert_ne!(waiters.changes(), changes, "the counter must show a change that woke no waiter");
        assert!(futures_util::FutureExt::now_or_never(waiter.woken()).is_none());
        let changes = waiters.changes();
        waiters.register(&waiter);
        assert_eq!(waiters.changes(), changes);
        waiters.wake_all();
        waiter.woken().await;
    }

    #[test]
    fn dropped_waiters_do_not_pile_up() {
        let waiters = Waiters::default();
        let alive: Vec<_> = (0..40).map(|_| Waiter::new()).collect();
        for waiter in &alive {
            waiters.register(waiter);
            waiters.register(waiter);
        }
        for _ in 0..1000 {
            waiters.register(&Waiter::new());
        }
        let count = || waiters.waiting.lock().unwrap().by_address.len();
        assert!((40..=2 * 40 + LEAST_SWEEP).contains(&count()), "{}", count());
    }
}
