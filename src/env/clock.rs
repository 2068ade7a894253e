//! Time behind a trait: wall time for stored timestamps, monotonic time for waiting.
#![allow(clippy::disallowed_methods)] // These calls are allowed only here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::BoxFuture;
use crate::types::TimestampMs;

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Wall time in milliseconds since 1970. It may jump.
    fn now_ms(&self) -> TimestampMs;

    /// Time since some moment before start-up. It never goes back.
    fn monotonic(&self) -> Duration;

    /// Ready once [`Clock::monotonic`] has reached `at`.
    fn sleep_until(&self, at: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's clocks.
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock with a monotonic time that starts at 0 now.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> TimestampMs {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as TimestampMs)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep_until(&self, at: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until((self.start + at).into()))
    }
}
