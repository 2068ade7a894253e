//! The five interfaces to the outside: time, disk, network, randomness, tasks.
//!
//! Production code reaches the outside only through these traits (clippy's `disallowed-methods` checks that), so that a
//! simulation can replace all of it and a seed can be replayed. The real implementations are here, the simulated ones
//! in `sim`. This module also owns process-wide helpers that all layers share: locks, log output, and accounting of
//! shared memory.

mod aside;
mod backoff;
pub mod byte_account;
pub mod clock;
pub mod disk;
pub mod lock;
pub mod log_limit;
pub mod log_output;
pub mod net;
pub mod open_files;
pub mod random;
pub mod tasks;
pub mod watched;

use std::{sync::Arc, time::Duration};

pub use backoff::Backoff;
pub use clock::{Clock, SystemClock};
pub use disk::{Disk, File, Open, SystemDisk};
pub use log_limit::{LogLimit, clip};
pub use net::{Net, SystemNet};
pub use random::{Random, SystemRandom};
pub use tasks::Tasks;
pub use watched::Watched;

/// A boxed future.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn std::future::Future<Output = T> + Send + 'a>>;

/// All five interfaces together: the one argument that start-up passes on.
#[derive(Clone)]
pub struct Env {
    /// Wall time and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Files and directories.
    pub disk: Arc<dyn Disk>,
    /// Listening and connecting.
    pub net: Arc<dyn Net>,
    /// Ids, jitter, shuffles.
    pub random: Arc<dyn Random>,
    /// Background tasks and threads.
    pub tasks: Tasks,
}

impl Env {
    /// The value of `work`, or `None` if it takes longer than `limit`; then it is dropped.
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let limit = self.clock.sleep_until(self.clock.monotonic() + limit);
        tokio::select! {
            biased;
            value = work => Some(value),
            () = limit => None,
        }
    }

    /// The implementations of the operating system.
    pub fn system() -> Env {
        Env {
            clock: Arc::new(SystemClock::new()),
            disk: Arc::new(SystemDisk),
            net: Arc::new(SystemNet),
            random: Arc::new(SystemRandom::new()),
            tasks: Tasks::new(),
        }
    }
}
