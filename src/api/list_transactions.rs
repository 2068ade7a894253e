//! ListTransactions (key 66).
//!
//! Behavior: X8; there are no transactions, so the list is always empty. Each unknown state is returned once, in the
//! order of the request.
//! Version notes: 1 filters by duration (KIP-994), 2 by a pattern of transactional ids (KIP-1152).
//! Deviations: the pattern has the syntax of Rust's `regex`, which differs from RE2/J in rare constructs, and at most
//! 1,000 bytes; other patterns get INVALID_REGULAR_EXPRESSION.

use kafka_protocol::{
    error::ResponseError,
    messages::{ListTransactionsRequest, ListTransactionsResponse},
};

use super::{RequestContext, answer_bounds::unique_by};

/// Apache: `TransactionState`.
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];
/// In the worst case, a parsed pattern takes thousands of times its own size.
const MAX_PATTERN_BYTES: usize = 1_000;

/// Needs no authorization, because the list is always empty.
pub(crate) async fn handle(_: RequestContext, request: ListTransactionsRequest) -> ListTransactionsResponse {
    respond(request)
}

fn respond(request: ListTransactionsRequest) -> ListTransactionsResponse {
    let response = ListTransactionsResponse::default();
    if !request.transactional_id_pattern.is_none_or(|pattern| is_valid_pattern(&pattern)) {
        return response.with_error_code(ResponseError::InvalidRegularExpression.code());
    }
    let mut states = unique_by(request.state_filters, Clone::clone);
    // linear: there are eight states
    states.retain(|state| !STATES.contains(&state.as_str()));
    response.with_unknown_state_filters(states)
}

fn is_valid_pattern(pattern: &str) -> bool {
    pattern.len() <= MAX_PATTERN_BYTES && regex_syntax::parse(pattern).is_ok()
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    fn request(states: &[&'static str], pattern: Option<&str>) -> ListTransactionsRequest {
        ListTransactionsRequest::default()
            .with_state_filters(states.iter().map(|state| StrBytes::from_static_str(state)).collect())
            .with_transactional_id_pattern(pattern.map(|pattern| StrBytes::from_string(pattern.to_owned())))
    }

    #[test]
    fn x8_unknown_states_are_told_once_in_the_order_of_the_request() {
        let answer = respond(request(&["b", "Ongoing", "a", "b", "ongoing"], None));
        assert_eq!(
            (answer.error_code, answer.unknown_state_filters),
            (0, ["b", "a", "ongoing"].map(Into::into).to_vec())
        );
        assert!(respond(request(&STATES, Some(""))).unknown_state_filters.is_empty());
    }

    #[test]
    fn x8_a_bad_or_huge_pattern_is_refused_as_a_whole() {
        let huge = "a".repeat(MAX_PATTERN_BYTES + 1);
        for pattern in ["(", "*", "[z-a]", r"\p{Nonsense}", "(?=a)", &huge] {
            let answer = respond(request(&["x"], Some(pattern)));
            assert_eq!((answer.error_code, answer.unknown_state_filters.len()), (128, 0), "{pattern}");
        }
        assert_eq!(respond(request(&["x"], Some(&huge[1..]))).error_code, 0);
    }
}
