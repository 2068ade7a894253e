//! InitProducerId (key 22): assigns an id to an idempotent producer.
//!
//! Behavior: I6. Every broker assigns ids from blocks that the controller allocates.
//! Deviations: a transactional id gets INVALID_TXN_STATE, because there are no transactions yet and no client retries
//! after this error.

use kafka_protocol::{
    error::ResponseError,
    messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId},
};

use super::{RequestContext, authorized::Operation};
use crate::env::LogLimit;

static NO_PRODUCER_IDS: LogLimit = LogLimit::new();

pub(crate) async fn handle(ctx: RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let refused = |error: ResponseError| {
        InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    // The request must have both an id and an epoch, or neither (KIP-360). They only matter with a transactional id.
    if (request.producer_id.0 == -1) != (request.producer_epoch == -1) {
        return refused(ResponseError::InvalidRequest);
    }
    if let Some(transactional_id) = &request.transactional_id {
        return refused(match ctx.transactional_id(Operation::Write, transactional_id) {
            Err(denied) => denied.into(),
            Ok(_) if transactional_id.is_empty() => ResponseError::InvalidRequest,
            Ok(_) => ResponseError::InvalidTxnState,
        });
    }
    let cluster = match ctx.cluster(Operation::IdempotentWrite) {
        Ok(cluster) => cluster,
        Err(denied) => return refused(denied.into()),
    };
    match cluster.producer_ids().next().await {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(error) => {
            if let Some(suppressed) = NO_PRODUCER_IDS.admit(ctx.env().clock.monotonic()) {
                tracing::warn!(?error, suppressed, "cannot get producer ids from the controller");
            }
            refused(ResponseError::CoordinatorLoadInProgress)
        }
    }
}
