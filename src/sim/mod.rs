//! Simulated implementations of the traits in `env`, controlled by a seed.

pub mod clock;
pub mod disk;
pub mod wait;

pub use clock::SimClock;
pub use disk::SimDisk;
pub use wait::{until, until_blocking};
