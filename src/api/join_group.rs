//! JoinGroup (key 11): a member of a classic group joins or rejoins, and waits for the other members.
//!
//! Behavior: G1–G5. The response is sent when all members have joined; only the leader gets the list of members.
//! Deviations: a second JoinGroup of a member ends the first one's wait with REBALANCE_IN_PROGRESS; Apache
//! never answers the first. A member may offer at most 100 protocols with 4 MiB of metadata; `ottla.groups.max.bytes`
//! limits the memory of all groups.
//! Version notes: 1 rebalance timeout (before: the session timeout), 4 two-step join (KIP-394), 5 instance
//! id (KIP-345), 7 the protocol may be null (KIP-559), 8 reason (KIP-800), 9 skip_assignment (KIP-814).

use bytes::Bytes;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse, join_group_response::JoinGroupResponseMember};

use super::{
    RequestContext,
    authorized::Operation,
    groups::{code, kept, kept_if_some, wire, wire_if_some},
};
use crate::coordinator::group::{GroupError, JoinError, JoinRequest, Joined, MemberProtocol, shard::MAX_PROTOCOLS};

pub(crate) async fn handle(mut ctx: RequestContext, request: JoinGroupRequest) -> JoinGroupResponse {
    let version = ctx.api_version;
    if request.protocols.len() > MAX_PROTOCOLS {
        let (error, member_id) = (GroupError::InconsistentGroupProtocol, kept(&request.member_id));
        return response(version, Err(JoinError { error, member_id }));
    }
    let client_host = ctx.connection.client_address.ip().to_canonical();
    let request = join_request(version, &ctx.client_id, &format!("/{client_host}"), request);
    // The request's data was copied, so its memory is released before the wait for the other members.
    ctx.release_request_memory();
    let joined = match ctx.group(Operation::Read, &request.group_id) {
        Ok(group) => group.coordinator().join(request).await,
        Err(denied) => Err(JoinError { error: denied.into(), member_id: request.member_id }),
    };
    response(version, joined)
}

fn join_request(version: i16, client_id: &str, client_host: &str, request: JoinGroupRequest) -> JoinRequest {
    let protocols = request.protocols.iter().map(|protocol| MemberProtocol {
        name: kept(&protocol.name),
        // A copy, because the member keeps it; a slice would keep the whole frame in memory.
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    });
    JoinRequest {
        group_id: kept(&request.group_id),
        member_id: kept(&request.member_id),
        group_instance_id: kept_if_some(&request.group_instance_id),
        client_id: kept(client_id),
        client_host: kept(client_host),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: if version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms },
        protocol_type: kept(&request.protocol_type),
        protocols: protocols.collect(),
        requires_known_member_id: version >= 4,
        supports_skip_assignment: version >= 9,
        reason: kept_if_some(&request.reason),
    }
}

fn response(version: i16, result: Result<Joined, JoinError>) -> JoinGroupResponse {
    // Before version 7 the empty string means that no protocol is chosen yet.
    let no_protocol = if version >= 7 { None } else { Some(wire("")) };
    match result {
        Err(JoinError { error, member_id }) => JoinGroupResponse::default()
            .with_error_code(code(Some(error)))
            .with_generation_id(-1)
            .with_protocol_type(None)
            .with_protocol_name(no_protocol)
            .with_member_id(wire(&member_id)),
        Ok(joined) => {
            let members = joined.members.iter().map(|member| {
                JoinGroupResponseMember::default()
                    .with_member_id(wire(&member.member_id))
                    .with_group_instance_id(wire_if_some(member.group_instance_id.as_ref()))
                    .with_metadata(member.metadata.clone())
            });
            JoinGroupResponse::default()
                .with_generation_id(joined.generation_id)
                .with_protocol_type(wire_if_some(joined.protocol_type.as_ref()))
                .with_protocol_name(wire_if_some(joined.protocol_name.as_ref()).or(no_protocol))
                .with_leader(wire(&joined.leader))
                .with_skip_assignment(joined.skip_assignment)
                .with_member_id(wire(&joined.member_id))
                .with_members(members.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::Encodable;

    use super::*;
    use crate::coordinator::group::JoinedMember;

    #[test]
    fn g1_g4_answers_encode_at_every_version() {
        for version in 0..=9 {
            for error in [GroupError::MemberIdRequired, GroupError::InvalidGroupId] {
                let refused = response(version, Err(JoinError { error, member_id: "m".into() }));
                refused.encode(&mut bytes::BytesMut::new(), version).unwrap();
                assert_eq!(refused.generation_id, -1);
            }
            let joined = Joined {
                generation_id: 3,
                protocol_type: Some("consumer".into()),
                protocol_name: Some("range".into()),
                leader: "m".into(),
                skip_assignment: version >= 9,
                member_id: "m".into(),
                members: vec![JoinedMember {
                    member_id: "m".into(),
                    group_instance_id: Some("i".into()),
                    metadata: Bytes::from_static(b"x"),
                }],
            };
            response(version, Ok(joined)).encode(&mut bytes::BytesMut::new(), version).unwrap();
        }
    }

    #[test]
    fn g3_version_0_has_no_rebalance_timeout_of_its_own() {
        let request = || JoinGroupRequest::default().with_session_timeout_ms(7000).with_rebalance_timeout_ms(-1);
        assert_eq!(join_request(0, "c", "/h", request()).rebalance_timeout_ms, 7000);
        let later = join_request(4, "c", "/h", request().with_rebalance_timeout_ms(9000));
        assert_eq!((later.rebalance_timeout_ms, later.requires_known_member_id), (9000, true));
        assert!(!join_request(3, "c", "/h", request()).requires_known_member_id);
        assert!(join_request(9, "c", "/h", request()).supports_skip_assignment);
    }
}
