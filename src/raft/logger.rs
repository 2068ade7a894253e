//! Passes the log messages of raft-rs, which uses slog, to tracing. Elections do not interest the operator of a single
//! node, so raft's info becomes debug.

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};

struct Tracing;

impl Drain for Tracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        match record.level() {
            Level::Critical | Level::Error => tracing::error!("{}", record.msg()),
            Level::Warning => tracing::warn!("{}", record.msg()),
            Level::Info => tracing::debug!("{}", record.msg()),
            Level::Debug | Level::Trace => tracing::trace!("{}", record.msg()),
        }
        Ok(())
    }
}

pub(super) fn logger() -> Logger {
    Logger::root(Tracing, o!())
}
