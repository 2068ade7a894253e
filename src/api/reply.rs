//! The reply of a handler, and the traits that decode requests and encode responses.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Encodable, Request};

use super::answers::AnswerFields;
use crate::protocol::part::Part;

/// The reply of a handler to its connection.
pub(crate) enum Reply<R> {
    /// A response.
    Answer(R),
    /// The protocol has no response here (Produce with acks=0).
    None,
    /// Kafka closes the connection here without a response.
    Close,
}

/// The types that a handler may return: a [`Reply`], or only the response.
pub(crate) trait IntoReply {
    type Response: ResponseBody;
    fn into_reply(self) -> Reply<Self::Response>;
}

impl<R: ResponseBody> IntoReply for R {
    type Response = R;
    fn into_reply(self) -> Reply<R> {
        Reply::Answer(self)
    }
}

impl<R: ResponseBody> IntoReply for Reply<R> {
    type Response = R;
    fn into_reply(self) -> Reply<R> {
        self
    }
}

/// A reply with an encoded response.
pub(crate) enum Encoded {
    /// The body of the response.
    Answer(Vec<Part>),
    /// See [`Reply::None`].
    None,
    /// See [`Reply::Close`].
    Close,
}

/// The reason why a request has no reply. The connection is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0}")]
    Malformed(#[from] MalformedRequest),
    #[error("{0}")]
    Encode(#[from] EncodeError),
}

/// The response cannot be encoded in its version. This is a bug; the connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode the answer: {0}")]
pub(crate) struct EncodeError(pub(crate) anyhow::Error);

/// The bytes are not a valid request of this API key and version.
#[derive(Debug, thiserror::Error)]
#[error("malformed request: {0}")]
pub(crate) struct MalformedRequest(pub(crate) String);

/// A request that can be decoded from untrusted bytes with bounded memory.
pub(crate) trait RequestBody: Sized + Send + 'static {
    /// Returns about how many bytes the request and its response take together. It may already fail for a malformed
    /// request.
    fn work_bytes(version: i16, body: &Bytes) -> Result<usize, MalformedRequest>;

    /// Decodes a body after [`RequestBody::work_bytes`] has accepted it. Strings and records may be slices of the
    /// frame.
    fn decode_body(version: i16, body: Bytes) -> Result<Self, MalformedRequest>;
}

/// A response that can be encoded in every supported version.
pub(crate) trait ResponseBody: AnswerFields + Send + 'static {
    /// Returns the body as pieces, in order.
    fn encode_body(self, version: i16) -> Result<Vec<Part>, EncodeError>;
}

// kafka-protocol allocates by the counts in the request, so the guard checks the bytes before they are decoded.
impl<R: Request + Send + 'static> RequestBody for R {
    fn work_bytes(version: i16, body: &Bytes) -> Result<usize, MalformedRequest> {
        /// The memory for an element of the response, as a struct and encoded.
        const ANSWER_BYTES_PER_ELEMENT: usize = 320;
        let walked = crate::protocol::guard::check_request(R::KEY, version, body)
            .map_err(|error| MalformedRequest(error.to_string()))?;
        Ok(2 * walked.decoded_bytes + ANSWER_BYTES_PER_ELEMENT * walked.elements)
    }

    fn decode_body(version: i16, mut body: Bytes) -> Result<Self, MalformedRequest> {
        R::decode(&mut body, version).map_err(|error| MalformedRequest(format!("{error:#}")))
    }
}

impl<R: Encodable + AnswerFields + Send + 'static> ResponseBody for R {
    fn encode_body(self, version: i16) -> Result<Vec<Part>, EncodeError> {
        // A growing buffer would take three times the memory of a large response.
        let mut bytes = BytesMut::with_capacity(self.compute_size(version).map_err(EncodeError)?);
        self.encode(&mut bytes, version).map_err(EncodeError)?;
        Ok(vec![Part::Bytes(bytes.freeze())])
    }
}

/// Implements the traits for messages with a codec of our own.
macro_rules! own_codec {
    ($request:ty, $response:ty) => {
        impl $crate::api::RequestBody for $request {
            fn work_bytes(_: i16, body: &bytes::Bytes) -> Result<usize, $crate::api::MalformedRequest> {
                /// A partition takes about 18 bytes in a request and needs about 1,000 bytes of memory until the
                /// response.
                const WORK_BYTES_PER_BYTE: usize = 60;
                Ok(body.len().saturating_mul(WORK_BYTES_PER_BYTE))
            }

            fn decode_body(version: i16, body: bytes::Bytes) -> Result<Self, $crate::api::MalformedRequest> {
                <$request>::decode(version, body).map_err(|error| $crate::api::MalformedRequest(error.to_string()))
            }
        }

        impl $crate::api::ResponseBody for $response {
            fn encode_body(self, version: i16) -> Result<Vec<$crate::protocol::part::Part>, $crate::api::EncodeError> {
                Ok(self.into_parts(version))
            }
        }
    };
}

own_codec!(crate::protocol::add_raft_voter::AddRaftVoterRequest, crate::protocol::add_raft_voter::AddRaftVoterResponse);
own_codec!(crate::protocol::produce::ProduceRequest, crate::protocol::produce::ProduceResponse);
own_codec!(crate::protocol::fetch::FetchRequest, crate::protocol::fetch::FetchResponse);
own_codec!(crate::protocol::list_offsets::ListOffsetsRequest, crate::protocol::list_offsets::ListOffsetsResponse);
own_codec!(crate::protocol::offset_commit::OffsetCommitRequest, crate::protocol::offset_commit::OffsetCommitResponse);
own_codec!(crate::protocol::offset_fetch::OffsetFetchRequest, crate::protocol::offset_fetch::OffsetFetchResponse);
own_codec!(
    crate::protocol::quorum_messages::QuorumMessagesRequest,
    crate::protocol::quorum_messages::QuorumMessagesResponse
);
own_codec!(
    crate::protocol::describe_log_dirs::DescribeLogDirsRequest,
    crate::protocol::describe_log_dirs::DescribeLogDirsResponse
);
