//! DescribeAcls (key 29).
//!
//! Behavior: A13. Version notes: 3+ has the resource type USER.

use kafka_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};

use super::{RequestContext, acls, authorized::Operation, error_message, reply::Reply};

pub(crate) async fn handle(ctx: RequestContext, request: DescribeAclsRequest) -> Reply<DescribeAclsResponse> {
    let codes = [request.resource_type_filter, request.pattern_type_filter, request.operation, request.permission_type];
    if acls::has_unknown(codes) {
        return Reply::Close;
    }
    let error = acls::security_disabled(ctx.cluster(Operation::Describe), "No Authorizer is configured on the broker");
    Reply::Answer(
        DescribeAclsResponse::default().with_error_code(error.code()).with_error_message(error_message(&error)),
    )
}
