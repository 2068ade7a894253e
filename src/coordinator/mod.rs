//! The coordinators: pure machines over Kafka's internal topics ([`group`]) and the one shell that runs
//! them ([`runtime`]): lock the shard, step, append, apply, unlock, wait for the commit, answer.

pub mod group;
pub mod partition_log;
pub mod runtime;
