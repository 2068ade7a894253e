//! Owns the coordinators: pure state machines over Kafka's internal topics ([`group`]) and the runtime that runs
//! them ([`runtime`]): it locks the shard, steps, appends, applies, unlocks, waits for the commit, and replies.

pub mod group;
pub mod partition_log;
pub mod runtime;
