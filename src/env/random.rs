//! Randomness behind a trait, for ids, jitter and shuffles. Must not influence decisions that a log records.
#![allow(clippy::disallowed_methods)] // These calls are allowed only here.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// A source of random numbers.
pub trait Random: Send + Sync + 'static {
    /// 64 random bits.
    fn next_u64(&self) -> u64;

    /// A number from 0 to `bound` - 1; 0 if `bound` is 0.
    fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64 }
    }

    /// A random (version 4) uuid. As with Kafka's `Uuid.randomUuid`, it is never a reserved id, and its text never
    /// starts with a dash, which command lines would take for an option.
    fn uuid(&self) -> Uuid {
        loop {
            let id = uuid::Builder::from_random_bytes(
                ((u128::from(self.next_u64()) << 64) | u128::from(self.next_u64())).to_be_bytes(),
            )
            .into_uuid();
            if id.as_u128() > 100 && !crate::types::uuid_to_base64(id).starts_with('-') {
                return id;
            }
        }
    }
}

/// A splitmix64 generator.
pub struct SystemRandom {
    state: AtomicU64,
}

impl SystemRandom {
    /// A generator with a seed from the operating system.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        SystemRandom::seeded(high ^ low.rotate_left(32))
    }

    /// A generator that returns the same numbers in each run.
    pub fn seeded(seed: u64) -> Self {
        SystemRandom { state: AtomicU64::new(seed) }
    }
}

impl Random for SystemRandom {
    fn next_u64(&self) -> u64 {
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.state.fetch_add(GOLDEN, Ordering::Relaxed).wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_stays_below_and_reaches_the_edges() {
        let random = SystemRandom::seeded(7);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[random.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn uuids_never_print_with_a_leading_dash() {
        let random = SystemRandom::seeded(1);
        for _ in 0..5000 {
            assert!(!crate::types::uuid_to_base64(random.uuid()).starts_with('-'));
        }
    }
}
