//! LeaveGroup (key 13): members leave, or an admin removes them.
//!
//! Behavior: G8. Version notes: 3 several members, each with its own error, also by instance id alone
//! (KIP-345); 5 reason (KIP-800).

use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse, leave_group_response::MemberResponse};

use super::{
    RequestContext,
    authorized::Operation,
    groups::{code, kept, kept_if_some, wire, wire_if_some},
};
use crate::coordinator::group::{GroupError, LeaveRequest, LeavingMember, LeftMember};

const FIRST_WITH_MEMBERS: i16 = 3;

pub(crate) async fn handle(ctx: RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let version = ctx.api_version;
    let leave = leave_request(version, &request);
    let left = async { ctx.group(Operation::Read, &request.group_id)?.coordinator().leave(leave).await };
    response(version, left.await)
}

fn leave_request(version: i16, request: &LeaveGroupRequest) -> LeaveRequest {
    let members = if version >= FIRST_WITH_MEMBERS {
        let leaving = request.members.iter().map(|member| LeavingMember {
            member_id: kept(&member.member_id),
            group_instance_id: kept_if_some(&member.group_instance_id),
            reason: kept_if_some(&member.reason),
        });
        leaving.collect()
    } else {
        vec![LeavingMember { member_id: kept(&request.member_id), group_instance_id: None, reason: None }]
    };
    LeaveRequest { group_id: kept(&request.group_id), members }
}

fn response(version: i16, result: Result<Vec<LeftMember>, GroupError>) -> LeaveGroupResponse {
    match result {
        Err(error) => LeaveGroupResponse::default().with_error_code(code(Some(error))),
        Ok(members) if version >= FIRST_WITH_MEMBERS => {
            let left = members.iter().map(|member| {
                MemberResponse::default()
                    .with_member_id(wire(&member.member_id))
                    .with_group_instance_id(wire_if_some(member.group_instance_id.as_ref()))
                    .with_error_code(code(member.error))
            });
            LeaveGroupResponse::default().with_members(left.collect())
        }
        Ok(members) => {
            let error = members.first().and_then(|member| member.error);
            LeaveGroupResponse::default().with_error_code(code(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::Encodable;

    use super::*;

    #[test]
    fn g8_one_member_before_version_3_and_a_list_from_then_on() {
        let left = |error| Ok(vec![LeftMember { member_id: "m".into(), group_instance_id: None, error }]);
        for version in 0..=5 {
            let refused = response(version, left(Some(GroupError::UnknownMemberId)));
            refused.encode(&mut bytes::BytesMut::new(), version).unwrap();
            assert_eq!((refused.error_code, refused.members.len()), if version < 3 { (25, 0) } else { (0, 1) });
            let failed = response(version, Err(GroupError::NotCoordinator));
            failed.encode(&mut bytes::BytesMut::new(), version).unwrap();
            assert_eq!(failed.error_code, 16);
            response(version, left(None)).encode(&mut bytes::BytesMut::new(), version).unwrap();
        }
        let request = LeaveGroupRequest::default().with_member_id(wire("m"));
        assert_eq!(leave_request(2, &request).members.len(), 1);
        assert_eq!(leave_request(3, &request).members.len(), 0);
    }
}
