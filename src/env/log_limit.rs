//! Limits log lines that clients cause: their number per time, and the length of text from clients.

use std::{sync::Mutex, time::Duration};

use crate::env::lock::lock;

const WINDOW: Duration = Duration::from_secs(10);
const LINES_PER_WINDOW: u32 = 100;
const MAX_TEXT_BYTES: usize = 128;

/// The limit for one kind of line. Lines above the limit are counted and suppressed.
pub struct LogLimit {
    lines: u32,
    window: Duration,
    now: Mutex<Window>,
}

struct Window {
    start: Option<Duration>,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        LogLimit::of(LINES_PER_WINDOW, WINDOW)
    }

    /// Allows `lines` lines per `window`.
    pub const fn of(lines: u32, window: Duration) -> Self {
        LogLimit { lines, window, now: Mutex::new(Window { start: None, lines: 0, suppressed: 0 }) }
    }

    /// Returns whether the line may be logged: then `Some` with the number of lines suppressed before it. `now` is
    /// monotonic time.
    pub fn admit(&self, now: Duration) -> Option<u64> {
        let mut window = lock(&self.now);
        if window.start.is_none_or(|start| now >= start + self.window) {
            (window.start, window.lines) = (Some(now), 0);
        }
        if window.lines >= self.lines {
            window.suppressed += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

/// The first bytes of a client's text, for a log line.
pub fn clip(text: &str) -> &str {
    let end = (0..=MAX_TEXT_BYTES.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_counted_and_not_written() {
        let limit = LogLimit::new();
        let at = Duration::from_secs;
        let written = (0..1_000_000).filter(|_| limit.admit(at(5)).is_some()).count();
        assert_eq!(written, LINES_PER_WINDOW as usize);
        assert_eq!(limit.admit(at(15)), Some(1_000_000 - u64::from(LINES_PER_WINDOW)));
        assert_eq!(limit.admit(at(15)), Some(0));
    }

    #[test]
    fn a_long_text_is_clipped_between_characters() {
        assert_eq!(clip("short"), "short");
        let long = "a".to_owned() + &"é".repeat(200);
        assert_eq!(clip(&long).len(), 127);
    }
}
