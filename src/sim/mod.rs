//! Seeded fakes of `env`'s seams.

pub mod clock;
pub mod disk;

pub use clock::SimClock;
pub use disk::SimDisk;
