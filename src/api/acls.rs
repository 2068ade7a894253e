//! Code that the three ACL APIs share (A13). There is no authorizer, so no ACL can be stored, found or deleted.

use kafka_protocol::error::ResponseError;

use super::authorized::{AuthorizedCluster, Denied};
use crate::controller::ApiError;

/// The code of UNKNOWN in all four ACL enumerations. Apache fails to parse a request that contains it and closes the
/// connection; it accepts other codes that it does not know.
const UNKNOWN: i8 = 0;

/// Whether the resource type, pattern type, operation or permission is UNKNOWN.
pub(super) fn has_unknown(codes: [i8; 4]) -> bool {
    codes.contains(&UNKNOWN)
}

/// The error for every request. The message is a parameter because Apache's differs from API to API.
pub(super) fn security_disabled(cluster: Result<AuthorizedCluster<'_>, Denied>, message: &str) -> ApiError {
    match cluster {
        Ok(_) => ApiError::new(ResponseError::SecurityDisabled, message),
        Err(denied) => denied.into(),
    }
}
