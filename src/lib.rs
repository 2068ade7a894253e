//! Ottla: a Kafka-wire-compatible streaming server in one binary.
//!
//! The modules in reading order. Which module may use which is checked by `tidy.rs`; docs/ARCHITECTURE.md
//! describes them.

// Tests may use files and clocks directly.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

/// Whether the simulation has switched on a planted bug: always false outside of tests (docs/TESTING.md).
#[cfg(test)]
macro_rules! planted {
    ($bug:literal) => {
        crate::sim::planted::is_on($bug)
    };
}
#[cfg(not(test))]
macro_rules! planted {
    ($bug:literal) => {
        false
    };
}

/// Basic types that all modules use.
pub mod types;

/// The broker's loggers and their levels, which change at run time.
pub mod loggers;

/// Settings: their tables, their sources and the resolved values.
pub mod config;
/// Bytes on the wire and in batches: framing, headers, limits, hand-written codecs.
pub mod protocol;

/// The controller: a pure state machine over metadata records.
pub mod controller;
/// The group coordinator: pure state machines, and the runtime that drives them.
pub mod coordinator;
/// The cluster's metadata: records, image, store, publisher.
pub mod metadata;

/// Clock, disk, network, randomness and tasks: the only access to the outside.
pub mod env;

/// Requests to other nodes.
pub mod peer;

/// The broker's counters, and the table of metrics.
pub mod metrics;

/// One partition on disk, in Kafka's own file formats.
pub mod log;
/// The metadata quorum: raft-rs decides, this module stores and sends.
pub mod raft;
/// Partitions on their leader and followers: high watermarks, the ISR, fetchers, fetch sessions.
pub mod replica;

/// One file per Kafka API, and the table of all APIs.
pub mod api;
/// Start order and stop order of the broker.
pub mod broker;
/// The command line.
pub mod cli;
/// The HTTP pages: metrics, health, readiness.
pub mod console;
/// Sockets: accepts connections, reads frames, sends responses in order.
pub mod network;

/// Simulated implementations of the traits in `env`, controlled by a seed.
#[cfg(any(test, feature = "sim"))]
pub mod sim;

#[cfg(test)]
mod script_tests;
#[cfg(test)]
mod tidy;
