//! AllocateProducerIds (key 67): a broker gets a block of producer ids from the controller.
//!
//! Behavior: I6; no id is allocated twice.

use kafka_protocol::messages::{AllocateProducerIdsRequest, AllocateProducerIdsResponse, ProducerId};

use super::{RequestContext, authorized::Operation};
use crate::controller::{ApiError, producer_ids::ProducerIdsBlock};

pub(crate) async fn handle(ctx: RequestContext, request: AllocateProducerIdsRequest) -> AllocateProducerIdsResponse {
    let allocate =
        async { ctx.cluster(Operation::ClusterAction)?.controller().allocate_producer_ids(request.into()).await };
    let allocated: Result<ProducerIdsBlock, ApiError> = allocate.await;
    let response = AllocateProducerIdsResponse::default();
    match allocated {
        Ok(block) => response.with_producer_id_start(ProducerId(block.first)).with_producer_id_len(block.count),
        Err(error) => response.with_error_code(error.code()),
    }
}
