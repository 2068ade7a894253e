//! SaslHandshake (key 17): refused, as no listener speaks SASL yet.
//!
//! Behavior: on a listener without SASL Apache answers ILLEGAL_SASL_STATE and goes on.

use kafka_protocol::{
    error::ResponseError,
    messages::{SaslHandshakeRequest, SaslHandshakeResponse},
};

use super::RequestContext;

pub(crate) async fn handle(_: RequestContext, _: SaslHandshakeRequest) -> SaslHandshakeResponse {
    SaslHandshakeResponse::default().with_error_code(ResponseError::IllegalSaslState.code())
}
