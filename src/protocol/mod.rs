//! Bytes on the wire and in batches.
//!
//! `record_batch` has the format of batches, `compression` their codecs, and `part` the parts of a response. `frame`
//! and `header` read the start of every request; `wire` has the primitive types. An API whose messages are
//! performance-critical, or too new for `kafka-protocol`, has a file of its own. That crate decodes all other messages,
//! after `guard` has checked them.

pub mod add_raft_voter;
mod batch_header;
pub mod compression;
pub mod describe_log_dirs;
pub mod fetch;
pub mod frame;
#[cfg(any(test, feature = "sim"))]
pub mod fuzzing;
pub mod guard;
pub mod header;
pub mod list_offsets;
pub mod offset_commit;
pub mod offset_fetch;
pub mod part;
pub mod produce;
pub mod quorum_messages;
pub mod record_batch;
mod schemas;
#[cfg(test)]
mod testing;
pub mod wire;
