//! Simulated implementations of the traits in `env`, controlled by a seed.

pub mod clock;
pub mod disk;

pub use clock::SimClock;
pub use disk::SimDisk;
