//! The headers of requests and responses. They have their own parser, because they are read before the client is
//! authenticated.
//!
//! Owns request headers v1 and v2 and response headers v0 and v1. Leaves the supported keys and versions, and the first
//! flexible version of each key, to `api/mod.rs`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use super::wire::{DecodeError, Reader};

/// ApiVersions: the only key whose version may be unknown, and whose responses always have header v0.
pub const API_VERSIONS: i16 = 18;

/// The header of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    pub api_key: i16,
    pub api_version: i16,
    /// Sent back with the response.
    pub correlation_id: i32,
    /// The client's name for itself; Kafka treats null and empty alike.
    pub client_id: StrBytes,
}

/// Reads the key and version at the start of a frame, with which the API's row in the table can be found.
///
/// # Errors
/// [`DecodeError::Truncated`] if the frame has fewer than four bytes.
pub fn api_key_and_version(frame: &[u8]) -> Result<(i16, i16), DecodeError> {
    match frame {
        [k0, k1, v0, v1, ..] => Ok((i16::from_be_bytes([*k0, *k1]), i16::from_be_bytes([*v0, *v1]))),
        _ => Err(DecodeError::Truncated),
    }
}

impl RequestHeader {
    /// Splits a frame into header and body. `flexible` says whether this version of the key is flexible; for
    /// ApiVersions all versions from 3 on are, also those that do not exist yet.
    ///
    /// # Errors
    /// After any error the connection must be closed, since the frame cannot be trusted.
    pub fn parse(mut frame: Bytes, flexible: bool) -> Result<(Self, Bytes), DecodeError> {
        let (api_key, api_version) = api_key_and_version(&frame)?;
        if frame.len() < 10 {
            return Err(DecodeError::Truncated);
        }
        frame.advance(4);
        let correlation_id = frame.get_i32();
        let client_id = client_id(&mut frame)?;
        let mut rest = Reader::new(frame, flexible);
        // Kafka defines no tagged fields here. They are skipped, not kept: an unauthenticated client could send
        // millions.
        rest.skip_tags()?;
        Ok((Self { api_key, api_version, correlation_id, client_id }, rest.into_rest()))
    }
}

/// Also in flexible headers the client id has the old form, a nullable string with a 16-bit length. As in Java, bytes
/// that are not UTF-8 are replaced and the client is not refused.
fn client_id(frame: &mut Bytes) -> Result<StrBytes, DecodeError> {
    let length = frame.get_i16();
    if length == -1 {
        return Ok(StrBytes::new());
    }
    let length = usize::try_from(length).map_err(|_| DecodeError::Length(length.into()))?;
    if length > frame.len() {
        return Err(DecodeError::Truncated);
    }
    let bytes = frame.split_to(length);
    Ok(StrBytes::from_utf8(bytes.clone())
        .unwrap_or_else(|_| StrBytes::from_string(String::from_utf8_lossy(&bytes).into_owned())))
}

/// Writes the header of a response. `flexible` says whether the request's version is flexible.
pub fn put_response_header(buffer: &mut BytesMut, api_key: i16, flexible: bool, correlation_id: i32) {
    buffer.put_i32(correlation_id);
    // A client must be able to read the response to an ApiVersions version that the broker does not support (KIP-511).
    if flexible && api_key != API_VERSIONS {
        buffer.put_u8(0);
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{RequestHeader as Oracle, ResponseHeader},
        protocol::{Decodable, Encodable},
    };

    use super::*;

    fn frame(version: i16, client_id: Option<&str>) -> Bytes {
        let mut header = Oracle::default();
        header.request_api_key = 3;
        header.request_api_version = 12;
        header.correlation_id = 77;
        header.client_id = client_id.map(|id| StrBytes::from_string(id.into()));
        let mut bytes = BytesMut::new();
        header.encode(&mut bytes, version).unwrap();
        bytes.put_slice(b"body");
        bytes.freeze()
    }

    #[test]
    fn headers_of_both_versions_leave_the_body() {
        for (version, flexible) in [(1, false), (2, true)] {
            for client_id in [Some("c-1"), Some(""), None] {
                let (header, body) = RequestHeader::parse(frame(version, client_id), flexible).unwrap();
                assert_eq!((header.api_key, header.api_version, header.correlation_id), (3, 12, 77));
                assert_eq!(header.client_id.as_str(), client_id.unwrap_or_default());
                assert_eq!(body, &b"body"[..]);
            }
        }
    }

    #[test]
    fn every_cut_of_a_header_is_an_error_and_no_panic() {
        let whole = frame(2, Some("client"));
        for length in 0..whole.len() - b"body".len() {
            assert_eq!(
                RequestHeader::parse(whole.slice(..length), true),
                Err(DecodeError::Truncated),
                "{length} bytes"
            );
        }
        assert_eq!(api_key_and_version(&[0, 18, 0]), Err(DecodeError::Truncated));
    }

    #[test]
    fn a_flood_of_tags_is_refused_before_authentication() {
        let mut bytes = BytesMut::from(&[0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff][..]);
        bytes.put_slice(&[0x80, 0x89, 0x7a]); // two million tags
        bytes.put_bytes(0, 4 * 1024 * 1024);
        assert_eq!(RequestHeader::parse(bytes.freeze(), true), Err(DecodeError::TooManyTags));
    }

    #[test]
    fn unknown_tags_are_skipped() {
        let bytes = Bytes::from_static(&[0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 1, 9, 2, 5, 5, b'b']);
        assert_eq!(RequestHeader::parse(bytes, true).unwrap().1, &b"b"[..]);
    }

    #[test]
    fn a_client_id_that_is_not_utf8_is_replaced_as_java_does() {
        let bytes = Bytes::from_static(&[0, 18, 0, 4, 0, 0, 0, 1, 0, 1, 0xff, 0]);
        assert_eq!(RequestHeader::parse(bytes, true).unwrap().0.client_id.as_str(), "\u{fffd}");
        let negative = Bytes::from_static(&[0, 18, 0, 4, 0, 0, 0, 1, 0xff, 0xfe, 0]);
        assert_eq!(RequestHeader::parse(negative, true), Err(DecodeError::Length(-2)));
    }

    #[test]
    fn api_versions_answers_always_keep_header_zero() {
        for (key, flexible, version) in [(3, false, 0), (3, true, 1), (API_VERSIONS, true, 0), (API_VERSIONS, false, 0)]
        {
            let mut bytes = BytesMut::new();
            put_response_header(&mut bytes, key, flexible, 77);
            let mut bytes = bytes.freeze();
            assert_eq!(ResponseHeader::decode(&mut bytes, version).unwrap().correlation_id, 77);
            assert!(bytes.is_empty());
        }
    }
}
