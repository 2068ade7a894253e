//! Seeded fakes of `env`'s seams.

pub mod clock;
pub mod disk;
pub mod wait;

pub use clock::SimClock;
pub use disk::SimDisk;
pub use wait::{until, until_blocking};
