//! DeleteAcls (key 31).
//!
//! Behavior: A13; one result for each filter. Version notes: 3+ has the resource type USER.

use kafka_protocol::messages::{
    DeleteAclsRequest, DeleteAclsResponse, delete_acls_request::DeleteAclsFilter,
    delete_acls_response::DeleteAclsFilterResult,
};

use super::{RequestContext, acls, authorized::Operation, error_message, reply::Reply};

pub(crate) async fn handle(ctx: RequestContext, request: DeleteAclsRequest) -> Reply<DeleteAclsResponse> {
    let has_unknown = |filter: &DeleteAclsFilter| {
        acls::has_unknown([
            filter.resource_type_filter,
            filter.pattern_type_filter,
            filter.operation,
            filter.permission_type,
        ])
    };
    // linear: runs once per request
    if request.filters.iter().any(has_unknown) {
        return Reply::Close;
    }
    let error = acls::security_disabled(ctx.cluster(Operation::Alter), "No Authorizer is configured.");
    let result =
        DeleteAclsFilterResult::default().with_error_code(error.code()).with_error_message(error_message(&error));
    Reply::Answer(DeleteAclsResponse::default().with_filter_results(vec![result; request.filters.len()]))
}
