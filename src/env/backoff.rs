//! The waits between attempts that fail: each is twice the one before, up to the longest.

use std::time::Duration;

/// See the head of the file.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// The first wait is at most the longest.
    pub fn new(first: Duration, longest: Duration) -> Backoff {
        let first = first.min(longest);
        Backoff { first, longest, next: first }
    }

    /// The wait after another failure.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = self.longest.min(2 * wait);
        wait
    }

    /// An attempt has succeeded: the next wait is the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(70));
        let waits: Vec<u128> = (0..4).map(|_| backoff.next_wait().as_millis()).collect();
        assert_eq!(waits, [20, 40, 70, 70]);
        backoff.reset();
        assert_eq!(backoff.next_wait().as_millis(), 20);
        let mut short = Backoff::new(Duration::from_millis(20), Duration::from_millis(5));
        assert_eq!(short.next_wait().as_millis(), 5);
    }
}
