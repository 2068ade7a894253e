//! Owns the partitions of this broker: leadership, replication, the bounds of reads and appends, and waiting requests.
//!
//! `state.rs` decides (pure), `partition.rs` has the lock around log and state, `follower.rs` is a partition as its
//! follower changes it. `replica_manager.rs` opens partitions as the metadata requires, `context.rs` is what they
//! share, `backlog.rs` queues logs that are too many to open at once, `replica_changes.rs` tells the operator of lost
//! replicas, `directories.rs` knows the log directories of partitions. `fetcher.rs` fetches from leaders, with
//! `follower_session.rs`; `isr.rs` sends changes of ISRs to the controller. `waiters.rs` wakes tasks that wait for
//! watermarks, `fetch_session.rs` remembers the partitions that a client fetches (KIP-227), `changed_partitions.rs`
//! which of a follower's have changed, `producer_ids.rs` assigns producer ids.

mod backlog;
pub mod changed_partitions;
mod context;
mod directories;
pub mod fetch_session;
mod fetcher;
mod follower;
mod follower_session;
mod isr;
pub mod partition;
pub mod producer_ids;
mod replica_changes;
pub mod replica_manager;
pub mod state;
#[cfg(test)]
mod state_script_tests;
pub mod waiters;

pub use partition::{FetchIsolation, Partition, PartitionError, Watermarks};
pub use replica_manager::{ReplicaManager, ReplicationSettings};
