//! Makes the future that handles a request from the request's bytes.
//!
//! The connection owns the future and polls it. A request that is large or may need much work runs in a task of its
//! own (`Tasks::aside`), so that it does not delay others; all other requests run in the connection's task.

use std::future::Future;

use bytes::Bytes;

use super::{
    Api, EncodeError, Encoded, ListenerKind, RequestBody, RequestContext, ResponseBody,
    answers::AnswerFields,
    api_versions,
    reply::{IntoReply, Refused, Reply},
    table::{Cost, Forward, Order, Throttle},
};
use crate::{
    env::BoxFuture,
    protocol::{header::API_VERSIONS, part::Part},
};

/// Decoding a larger request takes a noticeable time.
const LARGE_REQUEST_BYTES: usize = 32 << 10;

/// If a request and its response need more memory than this, the request waits until enough memory is free.
const MAX_WORK_WITHOUT_SHARE_BYTES: usize = 1 << 20;

impl Cost {
    fn needs_memory_share(self, work_bytes: usize) -> bool {
        work_bytes > MAX_WORK_WITHOUT_SHARE_BYTES && self != Cost::Waits
    }
}

/// The future that handles one request. Dropping it drops the response and the request's resources; changes that the
/// request has already made stay.
pub(crate) type Handler = BoxFuture<'static, Result<Encoded, Refused>>;

/// Returns the future for a request. Nothing runs until the caller polls it.
pub(crate) fn start(ctx: RequestContext, body: Bytes) -> Handler {
    let api = ctx.api;
    if api.forward == Forward::ToController && ctx.connection.kind == ListenerKind::Broker {
        return Box::pin(async move {
            match ctx.forward(&body).await {
                Some(response) => Ok(Encoded::Answer(vec![Part::Bytes(response)])),
                None => start_here(ctx, body).await,
            }
        });
    }
    start_here(ctx, body)
}

/// Returns the future for a request that this node handles.
fn start_here(ctx: RequestContext, body: Bytes) -> Handler {
    let api = ctx.api;
    // Produce requests stay in the connection's task, which keeps their order; `produce.rs` moves the work of large
    // ones.
    let is_large = ctx.request_bytes > LARGE_REQUEST_BYTES && api.order == Order::Serial;
    if api.cost == Cost::Large || is_large {
        let (tasks, request_bytes) = (ctx.tasks().clone(), ctx.request_bytes);
        return Box::pin(async move { tasks.aside(api.name, request_bytes, (api.handle)(ctx, body)).await });
    }
    (api.handle)(ctx, body)
}

/// Decodes the body, calls `handle` and encodes the response.
pub(super) fn answer<Q, F>(ctx: RequestContext, body: Bytes, handle: fn(RequestContext, Q) -> F) -> Handler
where
    Q: RequestBody,
    F: Future<Output: IntoReply> + Send + 'static,
{
    Box::pin(async move {
        let _share = match Q::work_bytes(ctx.api_version, &body)? {
            bytes if ctx.api.cost.needs_memory_share(bytes) => {
                Some(ctx.tasks().reserve_large_request_memory(bytes).await)
            }
            _ => None,
        };
        let request = Q::decode_body(ctx.api_version, body)?;
        let answering = ctx.answering();
        let (api, version) = (ctx.api, ctx.api_version);
        match handle(ctx, request).await.into_reply() {
            Reply::Answer(mut response) => {
                if api.throttle == Throttle::InAnswer {
                    response.set_throttle_time_ms(answering.throttle_time_ms());
                }
                response.count_errors(api.key, answering.request_counters());
                Ok(Encoded::Answer(response.encode_body(version)?))
            }
            Reply::None => Ok(Encoded::None),
            Reply::Close => Ok(Encoded::Close),
        }
    })
}

/// The response to an unsupported version: None, which closes the connection, except for ApiVersions. That returns a
/// version 0 response with the supported versions of ApiVersions (KIP-511).
pub(crate) fn unsupported_version_response(api: &Api) -> Option<Result<Vec<Part>, EncodeError>> {
    (api.key == API_VERSIONS).then(|| api_versions::unsupported_version(api).encode_body(0))
}
