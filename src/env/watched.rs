//! A value that changes, and tasks that wait until it is as they need it.
//!
//! Waiting tasks are woken in the order in which they began to wait, so that a simulation can be replayed. tokio's
//! `watch` wakes them in an order that it draws.

use std::sync::Mutex;

use tokio::sync::Notify;

use super::lock::lock;

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Watched<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Clone> Watched<T> {
    pub fn new(value: T) -> Self {
        Watched { value: Mutex::new(value), changed: Notify::new() }
    }

    pub fn get(&self) -> T {
        lock(&self.value).clone()
    }

    /// Changes the value and wakes the tasks that wait.
    pub fn set(&self, value: T) {
        *lock(&self.value) = value;
        self.changed.notify_waiters();
    }

    /// Changes the value in place and wakes the tasks that wait.
    pub fn update(&self, change: impl FnOnce(&mut T)) {
        change(&mut lock(&self.value));
        self.changed.notify_waiters();
    }

    /// Waits until the value is as `holds` says. Returns it.
    pub async fn until(&self, mut holds: impl FnMut(&T) -> bool) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on a change is not missed.
            changed.as_mut().enable();
            let value = self.get();
            if holds(&value) {
                return value;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_task_waits_until_the_value_is_as_it_needs_it() {
        let watched = Watched::new(1);
        let mut waits = std::pin::pin!(watched.until(|value| *value > 2));
        assert_eq!(waits.as_mut().now_or_never(), None);
        watched.set(2);
        assert_eq!(waits.as_mut().now_or_never(), None);
        watched.set(3);
        assert_eq!(waits.now_or_never(), Some(3));
        assert_eq!(watched.until(|value| *value == 3).now_or_never(), Some(3));
    }
}
