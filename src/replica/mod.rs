//! Owns the partitions of this broker: leadership, the bounds of reads and appends, and waiting requests.
//!
//! `state.rs` decides (pure), `partition.rs` has the lock around log and state, `replica_manager.rs` opens partitions
//! as the metadata requires, `backlog.rs` queues logs that are too many to open at once, `directories.rs` knows the log
//! directories of partitions, `waiters.rs` wakes tasks that wait for watermarks, `fetch_session.rs` remembers the
//! partitions that a consumer fetches (KIP-227), `producer_ids.rs` assigns producer ids.

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
