//! Bugs that can be planted into the broker, to see whether the simulation catches them.
//!
//! Owns which one is switched on: the one that the variable `PLANTED` names, in all simulated brokers of the process.
//! The macro `planted!` in the source is where each bug changes one decision; outside of tests it is always false.
//! Leaves the seeds and the table of bugs to `swarm_tests.rs`.

use std::sync::OnceLock;

/// Whether this bug is switched on.
pub fn is_on(bug: &str) -> bool {
    static PLANTED: OnceLock<Option<String>> = OnceLock::new();
    PLANTED.get_or_init(|| std::env::var("PLANTED").ok()).as_deref() == Some(bug)
}
