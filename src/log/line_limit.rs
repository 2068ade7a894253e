//! How often the same trouble may be said: once a minute, with the count of the lines that were left out.

use std::{sync::Mutex, time::Duration};

use crate::env::lock::lock;

/// Between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// For one kind of trouble at one place, such as the reads of a partition.
#[derive(Debug, Default)]
pub struct LogLineLimit(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    /// On the monotonic clock.
    last: Option<Duration>,
    unsaid: u64,
}

impl LogLineLimit {
    /// Whether a line may be logged at `now`; if so, how many were left out since the last one.
    pub fn admit(&self, now: Duration) -> Option<u64> {
        let mut said = lock(&self.0);
        if said.last.is_some_and(|last| now < last.saturating_add(INTERVAL)) {
            said.unsaid += 1;
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.unsaid))
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
