//! DeleteGroups (key 42): empty groups go, with all their offsets.
//!
//! Behavior: O6. A group named twice is deleted, and answered, once.

use indexmap::IndexSet;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult,
};

use super::{
    RequestContext,
    groups::{code, group_id, kept},
};

pub(crate) async fn handle(ctx: &RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let asked: IndexSet<_> = request.groups_names.iter().map(|group_id| kept(group_id)).collect();
    let deleted = ctx.parts.groups.delete(asked.into_iter().collect()).await;
    let results = deleted
        .iter()
        .map(|(id, error)| DeletableGroupResult::default().with_group_id(group_id(id)).with_error_code(code(*error)));
    DeleteGroupsResponse::default().with_results(results.collect())
}
