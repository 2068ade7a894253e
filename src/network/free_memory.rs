//! Memory of large requests, given back to the system once a burst is over.
//!
//! The allocator keeps what is freed for a second, since most of it is soon wanted again, and gives back what is older
//! when it next frees something large. A broker that has gone quiet frees nothing, and would stay as large as in its
//! busiest moment. So some time after the last large request one more large piece is taken, never touched, and freed.
//! What threads for large requests keep goes back when they end, which is then, too. At rest nothing is armed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use crate::env::Env;

/// Longer than the allocator keeps what is freed (mimalloc's `purge_delay`).
const DELAY: Duration = Duration::from_millis(1500);
/// Large enough to be a piece of its own for the allocator.
const PIECE_BYTES: usize = 576 << 10;

const IDLE: u8 = 0;
const ARMED: u8 = 1;
/// Armed, and something was freed since.
const FREED_SINCE: u8 = 2;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct FreeMemory {
    state: AtomicU8,
}

impl FreeMemory {
    /// Something large is free, or about to be.
    pub(super) fn on_free(self: &Arc<Self>, env: &Env) {
        if self.state.load(Ordering::Relaxed) == FREED_SINCE {
            return;
        }
        let armed = |state| Some(if state == IDLE { ARMED } else { FREED_SINCE });
        if self.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, armed) == Ok(IDLE) {
            let (free_memory, env) = (self.clone(), env.clone());
            let tasks = env.tasks.clone();
            tasks.spawn_until_stopped("give memory back", async move { free_memory.give_back(&env).await });
        }
    }

    async fn give_back(&self, env: &Env) {
        loop {
            env.clock.sleep_until(env.clock.monotonic() + DELAY).await;
            env.tasks.end_idle_threads();
            drop(std::hint::black_box(Vec::<u8>::with_capacity(PIECE_BYTES)));
            if self.state.compare_exchange(ARMED, IDLE, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return;
            }
            self.state.store(ARMED, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimClock;

    #[tokio::test]
    async fn it_is_armed_while_there_is_something_and_at_rest_after() {
        let clock = SimClock::new(0);
        let env = Env { clock: Arc::new(clock.clone()), ..Env::system() };
        let free_memory = Arc::new(FreeMemory::default());
        let armed = || free_memory.state.load(Ordering::Relaxed);
        let pass = async |by: Duration| {
            clock.advance(by);
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
        };
        free_memory.on_free(&env);
        pass(Duration::ZERO).await;
        free_memory.on_free(&env);
        assert_eq!(armed(), FREED_SINCE);
        pass(DELAY).await;
        assert_eq!(armed(), ARMED, "what was freed since may be too young");
        pass(DELAY).await;
        assert_eq!(armed(), IDLE);
        pass(10 * DELAY).await;
        free_memory.on_free(&env);
        assert_eq!(armed(), ARMED);
    }
}
