//! CreateAcls (key 30).
//!
//! Behavior: A13; one result for each ACL. Version notes: 3+ has the resource type USER.

use kafka_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, create_acls_request::AclCreation, create_acls_response::AclCreationResult,
};

use super::{RequestContext, acls, authorized::Operation, error_message, reply::Reply};

pub(crate) async fn handle(ctx: RequestContext, request: CreateAclsRequest) -> Reply<CreateAclsResponse> {
    let has_unknown = |acl: &AclCreation| {
        acls::has_unknown([acl.resource_type, acl.resource_pattern_type, acl.operation, acl.permission_type])
    };
    // linear: runs once per request
    if request.creations.iter().any(has_unknown) {
        return Reply::Close;
    }
    let error = acls::security_disabled(ctx.cluster(Operation::Alter), "No Authorizer is configured.");
    let result = AclCreationResult::default().with_error_code(error.code()).with_error_message(error_message(&error));
    Reply::Answer(CreateAclsResponse::default().with_results(vec![result; request.creations.len()]))
}
