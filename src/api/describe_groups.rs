//! DescribeGroups (key 15): classic groups, their members and assignments.
//!
//! Behavior: G9. A group that does not exist is Dead, without an error before version 6.
//! Deviations: a group that is named twice is described once; once the response exceeds 48 MiB, the other groups get
//! COORDINATOR_LOAD_IN_PROGRESS, so that the client asks for them again.
//! Version notes: 3 authorized operations, 4 instance ids (KIP-345), 6 GROUP_ID_NOT_FOUND with a message (KIP-1043).

use std::sync::Arc;

use kafka_protocol::{
    messages::{
        DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
    },
    protocol::StrBytes,
};

use super::{
    RequestContext,
    answer_bounds::{AnswerBudget, unique_by},
    authorized::Operation,
    groups::{GROUP_OPERATIONS, code, kept, wire, wire_if_some},
};
use crate::coordinator::group::{self, GroupError, GroupState};

pub(crate) async fn handle(ctx: RequestContext, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let mut budget = AnswerBudget::new(&ctx);
    let names = unique_by(request.groups, |group_id| group_id.clone());
    let mut groups = Vec::with_capacity(names.len());
    for name in names {
        let group_id = kept(&name);
        let result = if budget.has_room() {
            describe(&ctx, &group_id).await
        } else {
            Err(GroupError::CoordinatorLoadInProgress)
        };
        budget.add(result.as_ref().map_or(group_id.len(), group::DescribedGroup::size_bytes)).await;
        let described = described_group(ctx.api_version, name, result);
        if request.include_authorized_operations && ctx.api_version >= 3 && described.error_code == 0 {
            groups.push(described.with_authorized_operations(GROUP_OPERATIONS));
        } else {
            groups.push(described);
        }
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

async fn describe(ctx: &RequestContext, group_id: &Arc<str>) -> Result<group::DescribedGroup, GroupError> {
    let group = ctx.group(Operation::Describe, group_id)?;
    let mut described = group.coordinator().describe(vec![group.id.clone()]).await;
    described.pop().unwrap_or(Err(GroupError::UnknownServerError))
}

fn described_group(version: i16, id: GroupId, result: Result<group::DescribedGroup, GroupError>) -> DescribedGroup {
    let described = DescribedGroup::default().with_group_id(id.clone());
    match result {
        Ok(group) => described
            .with_group_state(StrBytes::from_static_str(group.state.as_str()))
            .with_protocol_type(wire(&group.protocol_type))
            .with_protocol_data(wire(&group.protocol_name))
            .with_members(group.members.iter().map(described_member).collect()),
        Err(GroupError::GroupIdNotFound) => {
            let dead = described.with_group_state(StrBytes::from_static_str(GroupState::Dead.as_str()));
            if version < 6 {
                return dead;
            }
            dead.with_error_code(code(Some(GroupError::GroupIdNotFound)))
                .with_error_message(Some(wire(&format!("Group {} not found.", id.as_str()))))
        }
        Err(error) => described.with_error_code(code(Some(error))),
    }
}

fn described_member(member: &group::DescribedMember) -> DescribedGroupMember {
    DescribedGroupMember::default()
        .with_member_id(wire(&member.member_id))
        .with_group_instance_id(wire_if_some(member.group_instance_id.as_ref()))
        .with_client_id(wire(&member.client_id))
        .with_client_host(wire(&member.client_host))
        .with_member_metadata(member.metadata.clone())
        .with_member_assignment(member.assignment.clone())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::protocol::Encodable;

    use super::{super::groups::group_id, *};

    #[test]
    fn g9_answers_encode_at_every_version_and_missing_groups_are_dead() {
        for version in 0..=6 {
            let group = group::DescribedGroup {
                group_id: "g".into(),
                state: GroupState::Stable,
                protocol_type: "consumer".into(),
                protocol_name: "range".into(),
                members: vec![group::DescribedMember {
                    member_id: "m".into(),
                    group_instance_id: Some("i".into()),
                    client_id: "c".into(),
                    client_host: "/h".into(),
                    metadata: Bytes::from_static(b"m"),
                    assignment: Bytes::from_static(b"a"),
                }],
            };
            let missing = described_group(version, group_id("g"), Err(GroupError::GroupIdNotFound));
            assert_eq!(&*missing.group_state, "Dead");
            assert_eq!(missing.error_code, if version < 6 { 0 } else { 69 });
            let groups = vec![
                described_group(version, group_id("g"), Ok(group)),
                missing,
                described_group(version, group_id("g"), Err(GroupError::NotCoordinator)),
            ];
            let response = DescribeGroupsResponse::default().with_groups(groups);
            response.encode(&mut bytes::BytesMut::new(), version).unwrap();
        }
    }
}
