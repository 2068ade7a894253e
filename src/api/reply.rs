//! When and how a handler answers, and how messages become bytes.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Encodable, Request};

use super::answers::AnswerFields;
use crate::protocol::part::Part;

/// What a handler hands back to its connection.
pub(crate) enum Reply<R> {
    /// The answer.
    Answer(R),
    /// The protocol has no answer here (Produce with acks=0).
    None,
    /// Kafka closes the connection here, without an answer.
    Close,
}

/// What a handler may return: a [`Reply`], or simply the answer.
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

/// A reply whose answer is bytes.
pub(crate) enum Encoded {
    /// The body of the answer.
    Answer(Vec<Part>),
    /// As [`Reply::None`].
    None,
    /// As [`Reply::Close`].
    Close,
}

/// Why a request has no reply: the connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0}")]
    Malformed(#[from] MalformedRequest),
    #[error("{0}")]
    Encode(#[from] EncodeError),
}

/// Our answer does not fit its version: a bug, and the end of the connection.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode the answer: {0}")]
pub(crate) struct EncodeError(pub(crate) anyhow::Error);

/// The bytes are not a request of that key and version.
#[derive(Debug, thiserror::Error)]
#[error("malformed request: {0}")]
pub(crate) struct MalformedRequest(pub(crate) String);

/// A request that can be read from untrusted bytes within bounds.
pub(crate) trait RequestBody: Sized + Send + 'static {
    /// About how many bytes the request and its answer will take together. What cannot be decoded may be an error
    /// already.
    fn work_bytes(version: i16, body: &Bytes) -> Result<usize, MalformedRequest>;

    /// Reads a body whose [`RequestBody::work_bytes`] are known. Strings and records may stay slices of the frame.
    fn decode_body(version: i16, body: Bytes) -> Result<Self, MalformedRequest>;
}

/// An answer that can be written for any version that is served.
pub(crate) trait ResponseBody: AnswerFields + Send + 'static {
    /// The body, as pieces in order.
    fn encode_body(self, version: i16) -> Result<Vec<Part>, EncodeError>;
}

// kafka-protocol preallocates from counts on the wire, so its decoder sees only what the guard let pass.
impl<R: Request + Send + 'static> RequestBody for R {
    fn work_bytes(version: i16, body: &Bytes) -> Result<usize, MalformedRequest> {
        /// An element of the answer, while it grows and encoded.
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
        // A buffer that grows takes three times what a large answer needs.
        let mut bytes = BytesMut::with_capacity(self.compute_size(version).map_err(EncodeError)?);
        self.encode(&mut bytes, version).map_err(EncodeError)?;
        Ok(vec![Part::Bytes(bytes.freeze())])
    }
}

/// Ties messages that have a codec of our own to the traits that handlers are dispatched by.
macro_rules! own_codec {
    ($request:ty, $response:ty) => {
        impl $crate::api::RequestBody for $request {
            fn work_bytes(_: i16, body: &bytes::Bytes) -> Result<usize, $crate::api::MalformedRequest> {
                /// A partition has about 18 bytes in a request, and takes some 1,000 until it is answered.
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

own_codec!(crate::protocol::produce::ProduceRequest, crate::protocol::produce::ProduceResponse);
own_codec!(crate::protocol::fetch::FetchRequest, crate::protocol::fetch::FetchResponse);
own_codec!(crate::protocol::list_offsets::ListOffsetsRequest, crate::protocol::list_offsets::ListOffsetsResponse);
own_codec!(crate::protocol::offset_commit::OffsetCommitRequest, crate::protocol::offset_commit::OffsetCommitResponse);
own_codec!(crate::protocol::offset_fetch::OffsetFetchRequest, crate::protocol::offset_fetch::OffsetFetchResponse);
own_codec!(
    crate::protocol::describe_log_dirs::DescribeLogDirsRequest,
    crate::protocol::describe_log_dirs::DescribeLogDirsResponse
);
