//! DeleteGroups (key 42): deletes empty groups with all their offsets.
//!
//! Behavior: O6. A group that is named twice is deleted and reported once.

use indexmap::IndexSet;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult,
};

use super::{
    RequestContext,
    authorized::Operation,
    groups::{code, group_id, kept},
};

pub(crate) async fn handle(ctx: RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let asked: IndexSet<_> = request.groups_names.iter().map(|group_id| kept(group_id)).collect();
    let (mut allowed, mut denied) = (Vec::with_capacity(asked.len()), Vec::new());
    let mut coordinator = None;
    for id in asked {
        match ctx.group(Operation::Delete, &id) {
            Ok(group) => {
                allowed.push(id);
                coordinator = Some(group);
            }
            Err(error) => denied.push((id, Some(error.into()))),
        }
    }
    let mut deleted = match coordinator {
        Some(group) => group.coordinator().delete(allowed).await,
        None => Vec::new(),
    };
    deleted.append(&mut denied);
    let results = deleted
        .iter()
        .map(|(id, error)| DeletableGroupResult::default().with_group_id(group_id(id)).with_error_code(code(*error)));
    DeleteGroupsResponse::default().with_results(results.collect())
}
