//! A clock that stands still until the test moves it.

use std::{
    sync::{Arc, Mutex},
    task::{Poll, Waker},
    time::Duration,
};

use crate::{
    env::{BoxFuture, Clock},
    types::TimestampMs,
};

/// Wall time and monotonic time that move together, unless wall time is set.
#[derive(Clone)]
pub struct SimClock {
    state: Arc<Mutex<State>>,
}

struct State {
    wall_ms: TimestampMs,
    monotonic: Duration,
    sleepers: Vec<(Duration, Waker)>,
}

impl SimClock {
    /// A clock with wall time `wall_ms` and monotonic time 0.
    pub fn new(wall_ms: TimestampMs) -> Self {
        SimClock { state: Arc::new(Mutex::new(State { wall_ms, monotonic: Duration::ZERO, sleepers: Vec::new() })) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Advances both times, and wakes the sleepers whose time has come.
    pub fn advance(&self, by: Duration) {
        let due: Vec<Waker> = self.with(|state| {
            state.wall_ms += by.as_millis() as TimestampMs;
            state.monotonic += by;
            let now = state.monotonic;
            let (due, later) = std::mem::take(&mut state.sleepers).into_iter().partition(|(at, _)| *at <= now);
            state.sleepers = later;
            due.into_iter().map(|(_, waker): (Duration, Waker)| waker).collect()
        });
        due.into_iter().for_each(Waker::wake);
    }

    /// Sets the wall time alone, as an administrator or NTP may do.
    pub fn set_wall_ms(&self, wall_ms: TimestampMs) {
        self.with(|state| state.wall_ms = wall_ms);
    }

    /// The earliest time at which a sleeper wakes.
    pub fn next_wake(&self) -> Option<Duration> {
        self.with(|state| state.sleepers.iter().map(|(at, _)| *at).min())
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> TimestampMs {
        self.with(|state| state.wall_ms)
    }

    fn monotonic(&self) -> Duration {
        self.with(|state| state.monotonic)
    }

    fn sleep_until(&self, at: Duration) -> BoxFuture<'static, ()> {
        let clock = self.clone();
        Box::pin(std::future::poll_fn(move |context| {
            clock.with(|state| {
                if state.monotonic >= at {
                    return Poll::Ready(());
                }
                // An older waker of the same future stays in the list; at worst it causes one extra wake-up.
                state.sleepers.retain(|(other, waker)| *other != at || !waker.will_wake(context.waker()));
                state.sleepers.push((at, context.waker().clone()));
                Poll::Pending
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sleepers_wake_when_their_time_has_come() {
        let clock = SimClock::new(1000);
        let sleeper = tokio::spawn(clock.sleep_until(Duration::from_secs(5)));
        crate::sim::until("the task sleeps", || clock.next_wake().is_some()).await;
        clock.advance(Duration::from_secs(4));
        assert_eq!(clock.next_wake(), Some(Duration::from_secs(5)));
        clock.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
        assert_eq!((clock.now_ms(), clock.next_wake()), (6000, None));
    }
}
