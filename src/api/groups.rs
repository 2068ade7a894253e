//! Code that the group handlers share: conversion of strings between requests, responses and the coordinator, and the
//! operations that a client may do on a group.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::{messages::GroupId, protocol::StrBytes};

use super::errors;
use crate::coordinator::group::GroupError;

/// All operations on a group as bits of `AclOperation` (read, delete, describe, describe configs, alter configs).
/// Without an authorizer every client may do all of them.
pub(crate) const GROUP_OPERATIONS: i32 = 0b1101_0100_1000;

/// Copies a string of a request, so that it does not keep the request's frame in memory.
pub(crate) fn kept(text: &str) -> Arc<str> {
    if text.is_empty() { Arc::default() } else { Arc::from(text) }
}

/// Like [`kept`], for a nullable string.
pub(crate) fn kept_if_some(text: &Option<StrBytes>) -> Option<Arc<str>> {
    text.as_deref().map(kept)
}

/// A string for a response.
pub(crate) fn wire(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Like [`wire`], but shares long strings instead of copying them.
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

/// Like [`wire`], for a nullable string.
pub(crate) fn wire_if_some(text: Option<&Arc<str>>) -> Option<StrBytes> {
    text.map(|text| wire(text))
}

/// A group id for a response.
pub(crate) fn group_id(text: &str) -> GroupId {
    GroupId(wire(text))
}

/// The error code; 0 if there is no error.
pub(crate) fn code(error: Option<GroupError>) -> i16 {
    error.map_or(0, |error| errors::group(error).code())
}
