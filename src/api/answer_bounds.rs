//! What keeps an answer in proportion: names that a request repeats are answered once, and an answer that has become
//! large enough refuses the rest.

use std::{collections::HashSet, hash::Hash};

use super::RequestContext;
use crate::env::Tasks;

/// An answer takes at most so many bytes, and what its last element takes.
const MOST_BYTES: usize = 48 << 20;
/// After so many bytes, or elements, others get their turn.
const TURN_BYTES: usize = 256 << 10;
const TURN_ELEMENTS: usize = 64;

/// The elements whose key was not there before, in their order.
pub(crate) fn unique_by<T, K: Eq + Hash>(elements: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = HashSet::with_capacity(elements.len());
    elements.into_iter().filter(|element| seen.insert(key(element))).collect()
}

/// How large an answer has become.
pub(crate) struct AnswerBudget {
    tasks: Tasks,
    left: usize,
    turn_bytes: usize,
    turn_elements: usize,
}

impl AnswerBudget {
    pub(crate) fn new(ctx: &RequestContext) -> Self {
        Self::of(ctx.tasks().clone(), MOST_BYTES)
    }

    fn of(tasks: Tasks, left: usize) -> Self {
        AnswerBudget { tasks, left, turn_bytes: 0, turn_elements: 0 }
    }

    /// Whether the answer may have another element.
    pub(crate) fn has_room(&self) -> bool {
        self.left > 0
    }

    /// Counts an element of so many bytes in.
    pub(crate) async fn add(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        self.turn_bytes += bytes;
        self.turn_elements += 1;
        if self.turn_bytes >= TURN_BYTES || self.turn_elements >= TURN_ELEMENTS {
            (self.turn_bytes, self.turn_elements) = (0, 0);
            self.tasks.yield_now().await;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// For the tests of handlers: a budget of another size.
    pub(crate) fn budget(left: usize) -> AnswerBudget {
        AnswerBudget::of(Tasks::new(), left)
    }

    #[test]
    fn the_first_of_its_key_stays() {
        assert_eq!(unique_by(vec![(1, 'a'), (2, 'b'), (1, 'c')], |element| element.0), [(1, 'a'), (2, 'b')]);
    }

    #[tokio::test]
    async fn the_last_element_may_be_larger_than_the_rest_of_the_room() {
        let mut budget = budget(1_000);
        for _ in 0..3 {
            assert!(budget.has_room());
            budget.add(400).await;
        }
        assert!(!budget.has_room());
    }
}
