//! DescribeTransactions (key 65).
//!
//! Behavior: X8; no transactional id exists. The response has the order and the duplicates of the request.
//! Deviations: Apache returns NOT_COORDINATOR until `__transaction_state` exists.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeTransactionsRequest, DescribeTransactionsResponse, TransactionalId,
        describe_transactions_response::TransactionState,
    },
};

use super::{RequestContext, authorized::Operation};

pub(crate) async fn handle(ctx: RequestContext, request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    let states = request.transactional_ids.into_iter().map(|id| {
        let error = match ctx.transactional_id(Operation::Describe, &id) {
            Ok(_) => refusal(&id),
            Err(denied) => denied.into(),
        };
        TransactionState::default().with_transactional_id(id).with_error_code(error.code())
    });
    DescribeTransactionsResponse::default().with_transaction_states(states.collect())
}

/// There is no transaction coordinator yet, so no transactional id is known.
fn refusal(id: &TransactionalId) -> ResponseError {
    if id.is_empty() { ResponseError::InvalidRequest } else { ResponseError::TransactionalIdNotFound }
}
