//! ApiVersions (key 18): lists the supported APIs and versions, and the cluster's features.
//!
//! Behavior: the response lists the table in `api/table.rs`. A feature is reported only if it works.
//! Version notes: if the request version is too new, the connection sends a version 0 response with UNSUPPORTED_VERSION
//! (KIP-511) before any handler runs; from version 3 on the client sends its software name and version (INVALID_REQUEST
//! if malformed); below version 4 features whose minimum is 0 are left out (KAFKA-17492).

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiVersionsRequest, ApiVersionsResponse,
        api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
    },
    protocol::StrBytes,
};

use super::{APIS, Api, RequestContext};
use crate::{controller::features, protocol::quorum_messages::QUORUM_MESSAGES};

const FIRST_WITH_FEATURES: i16 = 3;
const FIRST_WITH_FEATURES_FROM_ZERO: i16 = 4;

pub(crate) async fn handle(ctx: RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse {
    respond(&ctx, &request)
}

fn respond(ctx: &RequestContext, request: &ApiVersionsRequest) -> ApiVersionsResponse {
    if ctx.api_version >= 3
        && !(is_valid_name(&request.client_software_name) && is_valid_name(&request.client_software_version))
    {
        return ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code());
    }
    let served = APIS.iter().filter(|api| api.listeners.contain(ctx.connection.kind) && api.key != QUORUM_MESSAGES);
    let keys = served.map(|api| {
        ApiVersion::default()
            .with_api_key(api.key)
            .with_min_version(api.versions.advertised_min)
            .with_max_version(api.versions.max)
    });
    let response = ApiVersionsResponse::default().with_api_keys(keys.collect());
    if ctx.api_version >= FIRST_WITH_FEATURES { with_features(ctx, response) } else { response }
}

fn with_features(ctx: &RequestContext, response: ApiVersionsResponse) -> ApiVersionsResponse {
    let image = ctx.image();
    let name = |name: String| StrBytes::from_string(name);
    let supported = features::supported_features().into_iter().filter(|(_, (min, _))| {
        // Java clients before 3.9 and 4.0 fail on a minimum of 0.
        *min > 0 || ctx.api_version >= FIRST_WITH_FEATURES_FROM_ZERO
    });
    let supported = supported.map(|(feature, (min, max))| {
        SupportedFeatureKey::default().with_name(name(feature)).with_min_version(min).with_max_version(max)
    });
    let finalized = image.finalized_features().map(|(feature, level)| {
        FinalizedFeatureKey::default()
            .with_name(name(feature.to_owned()))
            .with_min_version_level(level)
            .with_max_version_level(level)
    });
    response
        .with_supported_features(supported.collect())
        .with_finalized_features_epoch(image.finalized_features_epoch())
        .with_finalized_features(finalized.collect())
}

/// The response to a version that is too new: it names the versions of `api`, so that the client retries with one.
pub(super) fn unsupported_version(api: &Api) -> ApiVersionsResponse {
    ApiVersionsResponse::default().with_error_code(ResponseError::UnsupportedVersion.code()).with_api_keys(vec![
        ApiVersion::default()
            .with_api_key(api.key)
            .with_min_version(api.versions.min)
            .with_max_version(api.versions.max),
    ])
}

/// Matches `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`, as KIP-511 requires of names and versions.
fn is_valid_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(is_inner)
}
