//! Waits of tests, all with a bound: a fault that keeps something from happening fails its test instead of hanging the
//! run.

use std::time::{Duration, Instant};

/// Far more than anything on a busy machine takes, in real time.
const LIMIT: Duration = Duration::from_secs(60);

/// Lets other tasks run until `condition` holds.
///
/// # Panics
/// With `what`, if that takes longer than a minute.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Deadline::new(what);
    while !condition() {
        deadline.check();
        // Threads of the test may have to run, too.
        std::thread::yield_now();
        tokio::task::yield_now().await;
    }
}

/// Lets other threads run until `condition` holds.
///
/// # Panics
/// With `what`, if that takes longer than a minute.
pub fn until_blocking(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Deadline::new(what);
    while !condition() {
        deadline.check();
        std::thread::yield_now();
    }
}

struct Deadline<'a> {
    what: &'a str,
    at: Instant,
}

impl<'a> Deadline<'a> {
    fn new(what: &'a str) -> Self {
        Deadline { what, at: Instant::now() + LIMIT }
    }

    fn check(&self) {
        assert!(Instant::now() < self.at, "waited {LIMIT:?} until {}", self.what);
    }
}
