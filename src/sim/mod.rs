//! Simulated implementations of the traits in `env`, controlled by a seed.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod clock;
pub mod cluster;
pub mod disk;
pub mod net;
#[cfg(test)]
pub mod planted;
pub mod seeds;
pub mod wait;
pub mod world;

pub use clock::SimClock;
pub use cluster::Cluster;
pub use disk::SimDisk;
pub use net::SimNet;
pub use seeds::seeds;
pub use wait::{until, until_blocking};
pub use world::{NodeId, Simulation, World};

/// Locks a part of the simulation, even after a test has panicked: its destructors still run.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod quorum_tests;
#[cfg(test)]
mod replication_tests;
#[cfg(test)]
mod swarm_tests;
#[cfg(test)]
mod tests;
