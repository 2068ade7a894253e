//! Limits on the size of a response: repeated names of a request are answered once, and a response that has become too
//! large refuses the rest.

use std::{collections::HashSet, hash::Hash};

use super::RequestContext;
use crate::env::Tasks;

/// A response stops after this many bytes. Its last element may exceed the limit.
const MOST_BYTES: usize = 48 << 20;
/// After this many bytes or elements, the task yields to other tasks.
const TURN_BYTES: usize = 256 << 10;
const TURN_ELEMENTS: usize = 64;

/// Keeps the first element of each key, in the original order.
pub(crate) fn unique_by<T, K: Eq + Hash>(elements: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = HashSet::with_capacity(elements.len());
    elements.into_iter().filter(|element| seen.insert(key(element))).collect()
}

/// Counts the size of a response while it is built.
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

    /// Whether the response may have another element.
    pub(crate) fn has_room(&self) -> bool {
        self.left > 0
    }

    /// Counts an element of this size, and yields to other tasks from time to time.
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

    /// A budget of a given size, for the tests of handlers.
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
