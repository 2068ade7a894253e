//! Returns the memory of large requests to the system after a burst.
//!
//! The allocator keeps freed memory for about a second, since most of it is soon used again, and returns older memory
//! when it next frees something large. An idle broker frees nothing, so it would keep the memory of its busiest moment.
//! Therefore some time after the last large request one more large piece is allocated, never touched, and freed. Then
//! the idle threads for large requests are ended too, which returns their memory. An idle broker has no timer for this.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use crate::env::Env;

/// Longer than the allocator keeps freed memory (mimalloc's `purge_delay`).
const DELAY: Duration = Duration::from_millis(1500);
/// Large enough that the allocator handles it as a separate piece.
const PIECE_BYTES: usize = 576 << 10;

const IDLE: u8 = 0;
const ARMED: u8 = 1;
/// Armed, and something large was freed since.
const FREED_SINCE: u8 = 2;

/// See the head of the file.
#[derive(Default)]
pub(super) struct FreeMemory {
    state: AtomicU8,
}

impl FreeMemory {
    /// Must be called when something large has been freed, or is freed within the next milliseconds.
    #[inline(never)]
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
        assert_eq!(armed(), ARMED, "memory that was freed since may be too young");
        pass(DELAY).await;
        assert_eq!(armed(), IDLE);
        pass(10 * DELAY).await;
        free_memory.on_free(&env);
        assert_eq!(armed(), ARMED);
    }
}
