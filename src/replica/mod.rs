//! Partitions as their leader sees them: who may append and read, up to where, and who waits.
//!
//! `state.rs` decides (pure), `partition.rs` holds the lock around log and state, `replica_manager.rs` turns metadata
//! into open partitions, `backlog.rs` keeps those that are too many at once, `waiters.rs` wakes those who wait for
//! offsets, `fetch_session.rs` remembers what a consumer fetches (KIP-227).

mod backlog;
mod directories;
pub mod fetch_session;
pub mod partition;
pub mod producer_ids;
pub mod replica_manager;
pub mod state;
pub mod waiters;

pub use partition::{FetchIsolation, Partition, PartitionError, Watermarks};
pub use replica_manager::ReplicaManager;
