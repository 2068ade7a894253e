//! Heartbeat (key 12): a member reports that it is alive and learns whether it must rejoin.
//!
//! Behavior: G7. Version notes: 3 instance id (KIP-345).

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{
    RequestContext,
    authorized::Operation,
    groups::{code, kept, kept_if_some},
};
use crate::coordinator::group;

pub(crate) async fn handle(ctx: RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
    let request = group::HeartbeatRequest {
        group_id: kept(&request.group_id),
        generation_id: request.generation_id,
        member_id: kept(&request.member_id),
        group_instance_id: kept_if_some(&request.group_instance_id),
    };
    let beat = async { ctx.group(Operation::Read, &request.group_id)?.coordinator().heartbeat(request).await };
    let error = beat.await.err();
    HeartbeatResponse::default().with_error_code(code(error))
}
