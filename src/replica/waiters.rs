//! Who is to be woken when something of a partition moves: fetches that wait for bytes, appends
//! that wait to be replicated.
//!
//! A waiter is registered before the state is looked at, so that no change falls between (the lost
//! wake-up that makes a long poll late). Waking runs no code of the waiter's: it only wakes its task.

use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Notify;

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
    waiting: Mutex<Vec<Weak<Waiter>>>,
}

impl Waiters {
    /// Has `waiter` woken at the next change. Registering twice is registering once; a waiter that is
    /// dropped is forgotten.
    pub fn register(&self, waiter: &Arc<Waiter>) {
        let mut waiting = self.waiting.lock().expect("a poisoned lock ends the process");
        let mut is_registered = false;
        waiting.retain(|other| {
            is_registered |= other.as_ptr() == Arc::as_ptr(waiter);
            other.strong_count() > 0
        });
        if !is_registered {
            waiting.push(Arc::downgrade(waiter));
        }
    }

    /// Wakes and forgets all.
    pub fn wake_all(&self) {
        let mut waiting = self.waiting.lock().expect("a poisoned lock ends the process");
        for waiter in waiting.drain(..) {
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

    #[test]
    fn dropped_waiters_do_not_pile_up() {
        let waiters = Waiters::default();
        for _ in 0..100 {
            waiters.register(&Waiter::new());
        }
        assert!(waiters.waiting.lock().unwrap().len() <= 1);
    }
}
