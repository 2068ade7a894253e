//! The seeds of a test's simulations.
//!
//! Owns which seeds a run takes: some that are always the same, some that are new in each run, or those of the variable
//! `SEEDS`, as `SEEDS=17` or `SEEDS=0..20000`. Each seed is printed before its simulation, so that a failed test shows
//! it as the last one.

use std::time::{SystemTime, UNIX_EPOCH};

/// The seeds 0 to `fixed` - 1 and `fresh` others, or those of `SEEDS`.
///
/// # Panics
/// `SEEDS` is neither a number nor a range of numbers.
pub fn seeds(fixed: u64, fresh: u64) -> impl Iterator<Item = u64> {
    let seeds: Vec<u64> = match std::env::var("SEEDS") {
        Ok(given) => parse(&given).unwrap_or_else(|| panic!("SEEDS={given} is neither N nor FROM..TO")),
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
            (0..fixed).chain((0..fresh).map(|at| (now >> 10).wrapping_add(at))).collect()
        }
    };
    seeds.into_iter().inspect(|seed| println!("seed {seed}"))
}

fn parse(given: &str) -> Option<Vec<u64>> {
    match given.split_once("..") {
        Some((from, to)) => Some((from.parse().ok()?..to.parse().ok()?).collect()),
        None => Some(vec![given.parse().ok()?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_or_a_range_of_them_can_be_chosen() {
        assert_eq!(parse("17"), Some(vec![17]));
        assert_eq!(parse("3..6"), Some(vec![3, 4, 5]));
        assert_eq!((parse("x"), parse("1..x")), (None, None));
    }
}
