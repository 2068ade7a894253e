//! What the three APIs about ACLs share (A13). There is no authorizer, so no ACL can be stored, found or deleted.

use kafka_protocol::error::ResponseError;

use super::authorized::{AuthorizedCluster, Denied};
use crate::controller::ApiError;

/// UNKNOWN in all four enumerations of an ACL. Apache fails to parse a request with one, which closes the connection;
/// it takes other codes that it does not know.
const UNKNOWN: i8 = 0;

/// Whether the request names an enumeration's UNKNOWN: resource type, pattern type, operation or permission.
pub(super) fn has_unknown(codes: [i8; 4]) -> bool {
    codes.contains(&UNKNOWN)
}

/// What every request is told; Apache's text differs from API to API.
pub(super) fn security_disabled(cluster: Result<AuthorizedCluster<'_>, Denied>, message: &str) -> ApiError {
    match cluster {
        Ok(_) => ApiError::new(ResponseError::SecurityDisabled, message),
        Err(denied) => denied.into(),
    }
}
