//! Who is to be woken when something of a partition moves: fetches that wait for bytes, appends
//! that wait to be replicated.
//!
//! No change may fall between looking at the state and waiting (the lost wake-up that makes a long poll
//! late): a waiter is registered before the state is looked at, or changes are counted before the look and
//! again after the waiter is registered. Waking runs no code of the waiter's: it only wakes its task.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use crate::env::lock::lock;

/// One task that waits. It may be registered with many partitions; waking it twice is waking it once.
#[derive(Debug, Default)]
pub struct Waiter(Notify);

impl Waiter {
    /// Nothing has happened yet.
    pub fn new() -> Arc<Waiter> {
        Arc::default()
    }

    /// Ready after a wake-up since the last time this was ready.
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
    /// Written under the lock, after the change and before the waiters are woken.
    changes: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By address, so that thousands may wait and registering is still one step.
    by_address: HashMap<usize, Weak<Waiter>>,
    /// The dropped ones are swept out when there are as many as this.
    sweep_at: usize,
}

/// Fewer are not worth a sweep.
const LEAST_SWEEP: usize = 16;

impl Waiters {
    /// Has `waiter` woken at the next change. Registering twice is registering once; a waiter that is
    /// dropped is forgotten.
    pub fn register(&self, waiter: &Arc<Waiter>) {
        let mut waiting = lock(&self.waiting);
        waiting.by_address.insert(Arc::as_ptr(waiter) as usize, Arc::downgrade(waiter));
        if waiting.by_address.len() >= waiting.sweep_at.max(LEAST_SWEEP) {
            waiting.by_address.retain(|_, other| other.strong_count() > 0);
            waiting.sweep_at = 2 * waiting.by_address.len();
        }
    }

    /// How often all were woken.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Wakes and forgets all.
    pub fn wake_all(&self) {
        let mut waiting = lock(&self.waiting);
        self.changes.fetch_add(1, Ordering::Release);
        for (_, waiter) in waiting.by_address.drain() {
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
        assert!(futures_util::FutureExt::now_or_never(waiter.woken()).is_none(), "one change, one wake-up");
    }

    #[tokio::test]
    async fn f1_a_change_before_registering_is_counted_and_one_after_it_wakes() {
        let (waiters, waiter) = (Waiters::default(), Waiter::new());
        let changes = waiters.changes();
        waiters.wake_all();
        waiters.register(&waiter);
        assert_ne!(waiters.changes(), changes, "it wakes nobody, so it must be seen");
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
