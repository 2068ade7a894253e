//! The five seams to the outside: time, disk, network, randomness, tasks.
//!
//! Production code reaches the world only through these traits (clippy's
//! `disallowed-methods` guards that), so that a simulation can stand in for all of it and
//! a seed replays. The real ones are here, the simulated ones in `sim`. Beside them stand what all
//! layers share of the process: its locks, the output of its log, and how shared memory is counted.

mod aside;
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

use std::sync::Arc;

pub use clock::{Clock, SystemClock};
pub use disk::{Disk, File, Open, SystemDisk};
pub use log_limit::{LogLimit, clip};
pub use net::{Net, SystemNet};
pub use random::{Random, SystemRandom};
pub use tasks::Tasks;

/// A future that owns what it needs.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn std::future::Future<Output = T> + Send + 'a>>;

/// All seams together: the one argument that start-up hands around.
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
    /// Everything that runs beside the caller.
    pub tasks: Tasks,
}

impl Env {
    /// The real world.
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
