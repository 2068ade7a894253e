//! Simulated implementations of the traits in `env`, controlled by a seed.

pub mod clock;
pub mod cluster;
pub mod disk;
pub mod net;
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

#[cfg(test)]
mod tests;
