//! SyncGroup (key 14): the leader sends the assignment of all members, and each member gets its own part.
//!
//! Behavior: G6. No member gets a response before the assignment is in the log and replicated.
//! Version notes: 3 instance id (KIP-345), 5 protocol type and name are mandatory (KIP-559).

use bytes::Bytes;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::{
    RequestContext,
    authorized::Operation,
    groups::{code, kept, kept_if_some, wire_if_some},
};
use crate::coordinator::group::{GroupError, SyncRequest, Synced};

pub(crate) async fn handle(mut ctx: RequestContext, request: SyncGroupRequest) -> SyncGroupResponse {
    if lacks_protocol(ctx.api_version, &request) {
        return response(Err(GroupError::InconsistentGroupProtocol));
    }
    let assignments = request.assignments.iter().map(|assignment| {
        // A copy, because the group keeps it; a slice would keep the whole frame in memory.
        (kept(&assignment.member_id), Bytes::copy_from_slice(&assignment.assignment))
    });
    let request = SyncRequest {
        group_id: kept(&request.group_id),
        generation_id: request.generation_id,
        member_id: kept(&request.member_id),
        group_instance_id: kept_if_some(&request.group_instance_id),
        protocol_type: kept_if_some(&request.protocol_type),
        protocol_name: kept_if_some(&request.protocol_name),
        assignments: assignments.collect(),
    };
    ctx.release_request_memory();
    let synced = async { ctx.group(Operation::Read, &request.group_id)?.coordinator().sync(request).await };
    response(synced.await)
}

fn lacks_protocol(version: i16, request: &SyncGroupRequest) -> bool {
    version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none())
}

fn response(result: Result<Synced, GroupError>) -> SyncGroupResponse {
    match result {
        Err(error) => SyncGroupResponse::default()
            .with_error_code(code(Some(error)))
            .with_protocol_type(None)
            .with_protocol_name(None),
        Ok(synced) => SyncGroupResponse::default()
            .with_protocol_type(wire_if_some(synced.protocol_type.as_ref()))
            .with_protocol_name(wire_if_some(synced.protocol_name.as_ref()))
            .with_assignment(synced.assignment),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::Encodable;

    use super::*;

    #[test]
    fn g6_answers_encode_at_every_version() {
        let synced = Synced {
            protocol_type: Some("consumer".into()),
            protocol_name: None,
            assignment: Bytes::from_static(b"a"),
        };
        for version in 0..=5 {
            for result in [Ok(synced.clone()), Err(GroupError::RebalanceInProgress)] {
                response(result).encode(&mut bytes::BytesMut::new(), version).unwrap();
            }
        }
    }

    #[test]
    fn g6_protocol_type_and_name_are_mandatory_from_version_5_on() {
        let without = SyncGroupRequest::default().with_protocol_type(None).with_protocol_name(None);
        assert!(lacks_protocol(5, &without));
        assert!(!lacks_protocol(4, &without));
    }
}
