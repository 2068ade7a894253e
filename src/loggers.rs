//! The broker's loggers and their levels, which clients list and change while the broker runs (KIP-412).
//!
//! Owns the names, the hierarchy and the levels. A logger is a module of this crate; a module without its own level
//! inherits that of its parent module, and finally that of `root`. Changes last until the restart, as in Apache. Leaves
//! the effect on the output to a function that `main.rs` passes in, and the rules for requests to
//! `api/broker_loggers.rs`.

mod modules;

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{Mutex, MutexGuard},
};

pub use modules::MODULES;
use tracing::level_filters::LevelFilter;

use crate::env::lock::lock;

/// The logger whose level applies to everything without its own level, including libraries; as
/// `Log4jController.ROOT_LOGGER`.
pub const ROOT: &str = "root";

/// Kafka's levels (`LogLevelConfig`), and `Off`, which only the command line has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// No lines. Cannot be set by a request.
    Off,
    /// The same as `Error`: the broker has no lines of this level.
    Fatal,
    /// What an operator must look at.
    Error,
    /// What an operator should look at.
    Warn,
    /// What an operator may want to know.
    Info,
    /// What a developer may want to know.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// In the order of Apache's error message.
    pub const SETTABLE: [LogLevel; 6] =
        [LogLevel::Debug, LogLevel::Error, LogLevel::Fatal, LogLevel::Info, LogLevel::Trace, LogLevel::Warn];

    /// Kafka's name of the level.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Off => "OFF",
            LogLevel::Fatal => "FATAL",
            LogLevel::Error => "ERROR",
            LogLevel::Warn => "WARN",
            LogLevel::Info => "INFO",
            LogLevel::Debug => "DEBUG",
            LogLevel::Trace => "TRACE",
        }
    }

    /// The filter that lets the lines of this level pass.
    pub fn filter(self) -> LevelFilter {
        match self {
            LogLevel::Off => LevelFilter::OFF,
            LogLevel::Fatal | LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LogLevel {
    type Err = ();

    /// Parses one of [`LogLevel::SETTABLE`], in capitals as in Apache.
    fn from_str(text: &str) -> Result<Self, ()> {
        LogLevel::SETTABLE.into_iter().find(|level| level.as_str() == text).ok_or(())
    }
}

impl From<LevelFilter> for LogLevel {
    fn from(filter: LevelFilter) -> Self {
        match filter {
            LevelFilter::OFF => LogLevel::Off,
            LevelFilter::ERROR => LogLevel::Error,
            LevelFilter::WARN => LogLevel::Warn,
            LevelFilter::INFO => LogLevel::Info,
            LevelFilter::DEBUG => LogLevel::Debug,
            _ => LogLevel::Trace,
        }
    }
}

/// Levels by logger name, including `root`.
pub type Levels = BTreeMap<String, LogLevel>;

/// A change of one logger: its new level, or `None` to inherit its level again.
pub type LevelChange = (String, Option<LogLevel>);

/// The logger name for a target of log lines. Kafka's tools do not accept colons in the names of settings.
pub fn name_of(target: &str) -> String {
    target.replace("::", ".")
}

/// The target of log lines for a logger name.
pub fn target_of(name: &str) -> String {
    name.replace('.', "::")
}

/// All loggers of this process.
pub struct Loggers {
    own: Mutex<Levels>,
    names: Vec<String>,
    apply: Box<dyn Fn(&Levels) + Send + Sync>,
}

impl Loggers {
    /// Starts with the levels of the command line, by logger; the names need not be modules of this crate. `apply` must
    /// put levels into effect.
    pub fn new(given: Levels, apply: impl Fn(&Levels) + Send + Sync + 'static) -> Loggers {
        let mut own = given;
        own.entry(ROOT.to_owned()).or_insert(LogLevel::Off);
        let mut names: Vec<String> = MODULES.iter().map(|name| (*name).to_owned()).chain(own.keys().cloned()).collect();
        names.sort();
        names.dedup();
        Loggers { own: Mutex::new(own), names, apply: Box::new(apply) }
    }

    /// Whether the logger exists.
    pub fn exists(&self, name: &str) -> bool {
        self.names.binary_search_by(|known| known.as_str().cmp(name)).is_ok()
    }

    /// The level of each logger, its own or inherited.
    pub fn levels(&self) -> Levels {
        self.effective(&self.own())
    }

    /// Applies changes, one after the other. The caller must have refused unknown loggers, and `None` for `root`.
    pub fn change(&self, changes: &[LevelChange]) {
        let mut own = self.own();
        for (name, level) in changes {
            match level {
                Some(level) => _ = own.insert(name.clone(), *level),
                None => _ = own.remove(name),
            }
        }
        // Under the lock, so that the last change is also the last to be applied.
        (self.apply)(&self.effective(&own));
    }

    fn own(&self) -> MutexGuard<'_, Levels> {
        lock(&self.own)
    }

    fn effective(&self, own: &Levels) -> Levels {
        let level = |name: &str| {
            let own_or_outer = std::iter::successors(Some(name), |name| Some(name.rsplit_once('.')?.0));
            let found = own_or_outer.chain([ROOT]).find_map(|name| own.get(name));
            found.copied().unwrap_or(LogLevel::Off)
        };
        self.names.iter().map(|name| (name.clone(), level(name))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn loggers() -> (Loggers, Arc<Mutex<Levels>>) {
        let applied = Arc::new(Mutex::new(Levels::new()));
        let given = [(ROOT.to_owned(), LogLevel::Info), ("library".to_owned(), LogLevel::Warn)];
        let seen = applied.clone();
        (Loggers::new(given.into(), move |levels| *seen.lock().unwrap() = levels.clone()), applied)
    }

    #[test]
    fn a_logger_has_its_own_level_or_that_of_the_module_around_it() {
        let (loggers, applied) = loggers();
        let level = |name: &str| loggers.levels()[name];
        assert_eq!(
            (level("root"), level("ottla"), level("ottla.raft.driver")),
            (LogLevel::Info, LogLevel::Info, LogLevel::Info)
        );
        loggers.change(&[
            ("ottla.raft".into(), Some(LogLevel::Debug)),
            ("ottla.raft.driver".into(), Some(LogLevel::Trace)),
        ]);
        assert_eq!((level("ottla.raft"), level("ottla.raft.driver")), (LogLevel::Debug, LogLevel::Trace));
        assert_eq!((level("ottla.raft.storage"), level("ottla.replica")), (LogLevel::Debug, LogLevel::Info));
        loggers.change(&[("ottla.raft.driver".into(), None), ("root".into(), Some(LogLevel::Fatal))]);
        assert_eq!(
            (level("ottla.raft.driver"), level("ottla"), level("library")),
            (LogLevel::Debug, LogLevel::Fatal, LogLevel::Warn)
        );
        assert_eq!(*applied.lock().unwrap(), loggers.levels());
    }

    #[test]
    fn a_module_is_not_around_another_because_its_name_begins_the_same() {
        let (loggers, _) = loggers();
        assert!(loggers.exists("ottla.log.log") && loggers.exists("ottla.log.log_manager"));
        loggers.change(&[("ottla.log.log".into(), Some(LogLevel::Trace))]);
        assert_eq!(loggers.levels()["ottla.log.log_manager"], LogLevel::Info);
    }

    #[test]
    fn only_modules_and_what_the_command_line_names_exist() {
        let (loggers, _) = loggers();
        for (name, exists) in [("root", true), ("ottla", true), ("library", true), ("ottla.no", false), ("", false)] {
            assert_eq!(loggers.exists(name), exists, "{name}");
        }
    }

    #[test]
    fn levels_are_read_in_capitals_and_off_is_none_of_them() {
        for level in LogLevel::SETTABLE {
            assert_eq!(level.as_str().parse(), Ok(level));
        }
        for wrong in ["debug", "OFF", "ALL", "", "VERBOSE"] {
            assert_eq!(wrong.parse::<LogLevel>(), Err(()));
        }
    }
}
