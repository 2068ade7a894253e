//! ListGroups (key 16): lists the groups that this broker coordinates.
//!
//! Behavior: G9. A group that only has offsets has an empty protocol type.
//! Version notes: 4 filter by state (KIP-518), 5 filter by type (KIP-848).

use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse, list_groups_response::ListedGroup};

use super::{
    RequestContext,
    authorized::Operation,
    groups::{code, shared, wire},
};
use crate::coordinator::group::{self, GroupError, GroupFilter};

pub(crate) async fn handle(ctx: RequestContext, request: ListGroupsRequest) -> ListGroupsResponse {
    let (states, types) = (request.states_filter.iter(), request.types_filter.iter());
    let filter = GroupFilter::new(states.map(|name| name.as_str()), types.map(|name| name.as_str()));
    response(async { ctx.cluster(Operation::Describe)?.groups().list(filter).await }.await)
}

fn response(result: Result<Vec<group::ListedGroup>, GroupError>) -> ListGroupsResponse {
    let listed = |group: &group::ListedGroup| {
        ListedGroup::default()
            .with_group_id(GroupId(shared(&group.group_id)))
            .with_protocol_type(wire(&group.protocol_type))
            .with_group_state(wire(group.state.as_str()))
            .with_group_type(wire(group.group_type.as_str()))
    };
    match result {
        Ok(groups) => ListGroupsResponse::default().with_groups(groups.iter().map(listed).collect()),
        Err(error) => ListGroupsResponse::default().with_error_code(code(Some(error))),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::Encodable;

    use super::*;
    use crate::coordinator::group::{GroupState, GroupType};

    #[test]
    fn g9_answers_encode_at_every_version() {
        let group = group::ListedGroup {
            group_id: "g".into(),
            protocol_type: "consumer".into(),
            state: GroupState::Stable,
            group_type: GroupType::Classic,
        };
        for version in 0..=5 {
            response(Ok(vec![group.clone()])).encode(&mut bytes::BytesMut::new(), version).unwrap();
            let failed = response(Err(GroupError::CoordinatorLoadInProgress));
            failed.encode(&mut bytes::BytesMut::new(), version).unwrap();
            assert_eq!(failed.error_code, 14);
        }
    }
}
