//! One partition on disk, in Kafka's own file formats.
//!
//! `Log` is one partition. It has no lock inside: its owner (`replica::Partition`) holds a mutex around appends. Work
//! that may wait for the disk is returned as a short-lived plan ([`ReadPlan`], [`FlushPlan`], [`TimestampLookup`]) and
//! runs outside the mutex. `LogManager` owns the directories.

pub mod checkpoints;
mod cleaner;
mod context;
mod error;
mod file_names;
mod files;
pub mod flush;
mod index_reader;
pub mod leader_epochs;
pub(crate) mod line_limit;
#[allow(clippy::module_inception)]
mod log;
mod log_dirs;
pub mod log_manager;
mod offset_index;
pub mod producer_state;
mod read_plan;
mod recovery;
mod replace;
pub mod retention;
mod segment;
pub mod tail_cache;
mod time_index;
mod transaction_index;
pub mod validator;

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod start_tests;
#[cfg(test)]
pub(crate) mod tests;

pub use context::{LogContext, LogLimits};
pub(crate) use error::is_shortage;
pub use error::{AppendError, LogError, ReadError};
pub use files::FileCache;
pub use flush::{FlushPlan, FlushResult, LogOwner, flush_through, flushed, request_flush, sync_truncations};
pub use line_limit::LogLineLimit;
pub(crate) use log_dirs::list_partitions_briefly;
pub use log_manager::{CleanerConfig, CleanerFigures, LogManager, LogManagerConfig, Placement, UncleanDir};
pub use producer_state::AppendOrigin;
pub use read_plan::{ReadPlan, Records, TimestampLookup, TimestampOffset};
pub use segment::Segment;
pub use tail_cache::TailCache;
pub use transaction_index::AbortedTransaction;
pub use validator::{
    InvalidKind, InvalidRecords, RecordError, ValidatedBatch, ValidationRules, validate, validate_small,
};

pub use self::log::{AppendInfo, Log, OpenLog};
