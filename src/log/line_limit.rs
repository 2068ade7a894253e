//! Limits how often the same problem is logged: once a minute, with the number of suppressed lines.

use std::{sync::Mutex, time::Duration};

use crate::env::lock::lock;

/// Time between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// The limit for one kind of problem at one place, such as the reads of a partition.
#[derive(Debug, Default)]
pub struct LogLineLimit(Mutex<LimitState>);

#[derive(Debug, Default)]
struct LimitState {
    /// Time of the last line, on the monotonic clock.
    last: Option<Duration>,
    suppressed: u64,
}

impl LogLineLimit {
    /// Returns whether a line may be logged at `now`: then `Some` with the number of lines suppressed since the last
    /// one.
    pub fn admit(&self, now: Duration) -> Option<u64> {
        let mut said = lock(&self.0);
        if said.last.is_some_and(|last| now < last.saturating_add(INTERVAL)) {
            said.suppressed += 1;
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_counts_the_others() {
        let limit = LogLineLimit::default();
        let at = |seconds| limit.admit(Duration::from_secs(seconds));
        assert_eq!([0, 1, 59, 60, 61, 300].map(at), [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
