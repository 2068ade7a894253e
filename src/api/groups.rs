//! What the handlers of groups share: strings between the wire and the coordinator, and the operations a
//! client may do on a group.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::{messages::GroupId, protocol::StrBytes};

use super::errors;
use crate::coordinator::group::GroupError;

/// Without an authorizer everybody may do everything: the bits of `AclOperation` that a group knows (read,
/// delete, describe, describe configs, alter configs).
pub(crate) const GROUP_OPERATIONS: i32 = 0b1101_0100_1000;

/// A string of a request, to be kept: it must not hold on to the frame.
pub(crate) fn kept(text: &str) -> Arc<str> {
    if text.is_empty() { Arc::default() } else { Arc::from(text) }
}

/// As [`kept`], where there may be none.
pub(crate) fn kept_if_some(text: &Option<StrBytes>) -> Option<Arc<str>> {
    text.as_deref().map(kept)
}

/// A string of an answer.
pub(crate) fn wire(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// As [`wire`], without a copy where one would count.
pub(crate) fn shared(text: &Arc<str>) -> StrBytes {
    const WORTH_SHARING_BYTES: usize = 256;
    if text.len() < WORTH_SHARING_BYTES {
        return wire(text);
    }
    StrBytes::from_utf8(Bytes::from_owner(Shared(text.clone()))).unwrap_or_else(|_| wire(text))
}

struct Shared(Arc<str>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// As [`wire`], where there may be none.
pub(crate) fn wire_if_some(text: Option<&Arc<str>>) -> Option<StrBytes> {
    text.map(|text| wire(text))
}

/// A group's id in an answer.
pub(crate) fn group_id(text: &str) -> GroupId {
    GroupId(wire(text))
}

/// 0 where there is no error.
pub(crate) fn code(error: Option<GroupError>) -> i16 {
    error.map_or(0, |error| errors::group(error).code())
}
