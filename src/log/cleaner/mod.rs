//! Compaction: keeps the newest record of each key (Apache: `LogCleaner`, `Cleaner`).
//!
//! `plan.rs` says what of a log can be cleaned, `cleaning.rs` runs one cleaning, with `offset_map.rs`,
//! `transactions.rs` and `batch.rs` for the decisions. Leaves the exchange of segments to `log/replace.rs`, and the
//! choice of the log and the rate to `log_manager/cleaner.rs`.

mod batch;
mod cleaning;
#[cfg(test)]
mod model_tests;
mod offset_map;
mod plan;
mod transactions;

pub(crate) use self::{
    cleaning::{Cleaning, CleaningFigures, CleaningLimits},
    plan::{CleaningRange, LogView},
};
