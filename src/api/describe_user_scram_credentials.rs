//! DescribeUserScramCredentials (key 50): lists the users that have SCRAM credentials.
//!
//! Behavior: Apache's `ScramImage.describe` of an empty image, because credentials cannot be stored yet. A requested
//! user gets RESOURCE_NOT_FOUND; a user that is named twice gets DUPLICATE_RESOURCE once.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
        describe_user_scram_credentials_response::DescribeUserScramCredentialsResult,
    },
    protocol::StrBytes,
};

use super::RequestContext;

pub(crate) async fn handle(
    _: RequestContext,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let mut users: Vec<StrBytes> = request.users.unwrap_or_default().into_iter().map(|user| user.name).collect();
    users.sort();
    let results = users.chunk_by(|a, b| a == b).map(|same| {
        let user = &same[0];
        let (error, message) = match same.len() {
            1 => (ResponseError::ResourceNotFound, "Attempt to describe a user credential that does not exist: "),
            _ => (
                ResponseError::DuplicateResource,
                "Cannot describe SCRAM credentials for the same user twice in a single request: ",
            ),
        };
        DescribeUserScramCredentialsResult::default()
            .with_user(user.clone())
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(format!("{message}{user}"))))
    });
    DescribeUserScramCredentialsResponse::default().with_results(results.collect())
}
