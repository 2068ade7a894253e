//! Bytes on the wire and in batches.
//!
//! What a batch looks like is `record_batch`; how its records are packed is `compression`; what
//! answers are made of is `part`. `frame` and `header` are what every request begins with; `wire` has the primitive
//! types. One file per API whose messages are too hot, or too new, for `kafka-protocol`; it decodes all others, and
//! sees only what `guard` let pass.

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
pub mod record_batch;
mod schemas;
#[cfg(test)]
mod testing;
pub mod wire;
