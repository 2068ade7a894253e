//! SaslHandshake (key 17): always refused, because no listener supports SASL yet.
//!
//! Behavior: on a listener without SASL Apache returns ILLEGAL_SASL_STATE and keeps the connection open.

use kafka_protocol::{
    error::ResponseError,
    messages::{SaslHandshakeRequest, SaslHandshakeResponse},
};

use super::RequestContext;

pub(crate) async fn handle(_: RequestContext, _: SaslHandshakeRequest) -> SaslHandshakeResponse {
    SaslHandshakeResponse::default().with_error_code(ResponseError::IllegalSaslState.code())
}
