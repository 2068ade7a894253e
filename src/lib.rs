//! Ottla: a Kafka-wire-compatible streaming server in one binary.
//!
//! The modules in reading order, each allowed to use only what stands before it
//! (`tidy.rs` enforces the direction; docs/ARCHITECTURE.md draws the map).

// Tests make files and wait on clocks as they like.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

/// Names for the things everything else talks about.
pub mod types;

/// The broker's loggers and their levels, which change at run time.
pub mod loggers;

/// Settings: their tables, sources and resolved forms.
pub mod config;
/// Bytes on the wire and in batches: framing, headers, bounds, hot codecs.
pub mod protocol;

/// The controller: a pure machine over metadata records.
pub mod controller;
/// The group coordinator: pure machines and their one shell.
pub mod coordinator;
/// What the cluster is: records, image, store, publisher.
pub mod metadata;

/// Clock, disk, network, randomness and tasks: the only way to the outside.
pub mod env;

/// What the broker counts, and the table of metrics.
pub mod metrics;

/// One partition on disk, in Kafka's own file formats.
pub mod log;
/// The metadata quorum: raft-rs decides, we store and send.
pub mod raft;
/// Partitions as leaders see them: watermarks, waiters, fetch sessions.
pub mod replica;

/// One file per Kafka API, and the table of them.
pub mod api;
/// Start order and stop order.
pub mod broker;
/// The command line.
pub mod cli;
/// The HTTP pages: metrics, health, readiness.
pub mod console;
/// Sockets: accepting, reading frames, answering in order.
pub mod network;

/// Seeded fakes of `env`'s seams.
#[cfg(any(test, feature = "sim"))]
pub mod sim;

#[cfg(test)]
mod tidy;
