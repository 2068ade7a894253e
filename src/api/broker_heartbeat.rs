//! BrokerHeartbeat (key 63): a broker tells the controller that it lives and what it wants.
//!
//! Behavior: the broker is unfenced once it has applied its own registration.
//! Version notes: 1 has the log directories that have failed.

use kafka_protocol::messages::{BrokerHeartbeatRequest, BrokerHeartbeatResponse};

use super::{ListenerKind, RequestContext, authorized::Operation};
use crate::{
    controller::{ApiError, brokers::BrokerState},
    raft::tell_offset,
};

pub(crate) async fn handle(ctx: RequestContext, request: BrokerHeartbeatRequest) -> BrokerHeartbeatResponse {
    if ctx.connection.kind == ListenerKind::Controller {
        ctx.connection.belongs_to(request.broker_id.0);
    }
    let is_caught_up = request.current_metadata_offset >= request.broker_epoch;
    let heartbeat = request.clone().into();
    let beat = async { ctx.cluster(Operation::ClusterAction)?.controller().broker_heartbeat(heartbeat).await };
    let state: Result<BrokerState, ApiError> = beat.await;
    let response = BrokerHeartbeatResponse::default();
    match state {
        Ok(state) => {
            let response = response
                .with_is_caught_up(is_caught_up)
                .with_is_fenced(state.is_fenced)
                .with_should_shut_down(state.should_shut_down);
            // The reply has waited until its records are in the image.
            tell_offset(&request, response, ctx.image().provenance.last_contained_offset)
        }
        Err(error) => response.with_error_code(error.code()).with_is_fenced(true),
    }
}
