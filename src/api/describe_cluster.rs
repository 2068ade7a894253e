//! DescribeCluster (key 60): the cluster's id and its brokers.
//!
//! Behavior: M6. On a controller listener the response lists the controllers.
//! Version notes: 1 adds the endpoint type (brokers are listed on the listeners of brokers and controllers on those of
//! controllers; otherwise the error is MISMATCHED_ENDPOINT_TYPE, or INVALID_REQUEST in version 0), 2 adds fenced
//! brokers.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, DescribeClusterRequest, DescribeClusterResponse, describe_cluster_response::DescribeClusterBroker,
    },
    protocol::StrBytes,
};

use super::{ListenerKind, RequestContext, topics};
use crate::metadata::image::MetadataImage;

const ENDPOINT_BROKERS: i8 = 1;
const ENDPOINT_CONTROLLERS: i8 = 2;

pub(crate) async fn handle(ctx: RequestContext, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let refused = |error: ResponseError, message: String| {
        DescribeClusterResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(message)))
    };
    let kind = ctx.connection.kind;
    match (request.endpoint_type, kind) {
        (ENDPOINT_BROKERS, ListenerKind::Broker) | (ENDPOINT_CONTROLLERS, ListenerKind::Controller) => {}
        (ENDPOINT_BROKERS | ENDPOINT_CONTROLLERS, _) => {
            let (here, wanted) = match kind {
                ListenerKind::Broker => ("BROKER", "CONTROLLER"),
                ListenerKind::Controller => ("CONTROLLER", "BROKER"),
            };
            // Apache: `AuthHelper.computeDescribeClusterResponse`. Clients of version 0 do not know the other code.
            let error = match ctx.api_version {
                0 => ResponseError::InvalidRequest,
                _ => ResponseError::MismatchedEndpointType,
            };
            return refused(
                error,
                format!(
                    "The request was sent to an endpoint of type {here}, but we wanted an endpoint of type {wanted}"
                ),
            );
        }
        (other, _) => {
            return refused(ResponseError::UnsupportedEndpointType, format!("Unsupported endpoint type {other}"));
        }
    }
    let image = ctx.image();
    let mut response = DescribeClusterResponse::default()
        .with_endpoint_type(request.endpoint_type)
        .with_cluster_id(StrBytes::from_string(image.cluster_id.to_string()));
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = topics::CLUSTER_OPERATIONS;
    }
    match kind {
        ListenerKind::Broker => with_brokers(&ctx, &image, request.include_fenced_brokers, response),
        ListenerKind::Controller => with_controllers(&ctx, response),
    }
}

fn with_brokers(
    ctx: &RequestContext,
    image: &MetadataImage,
    include_fenced_brokers: bool,
    response: DescribeClusterResponse,
) -> DescribeClusterResponse {
    let brokers =
        image.brokers.values().filter(|broker| !broker.fenced || include_fenced_brokers).filter_map(|broker| {
            let (host, port) = ctx.endpoint_of(broker)?;
            Some(
                DescribeClusterBroker::default()
                    .with_broker_id(BrokerId(broker.id))
                    .with_host(host)
                    .with_port(port)
                    .with_rack(broker.rack.clone().map(StrBytes::from_string))
                    .with_is_fenced(broker.fenced),
            )
        });
    response
        .with_controller_id(BrokerId(image.alive_brokers().next().map_or(-1, |broker| broker.id)))
        .with_brokers(brokers.collect())
}

fn with_controllers(ctx: &RequestContext, response: DescribeClusterResponse) -> DescribeClusterResponse {
    let controller = |(id, host, port): (i32, String, u16)| {
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(id))
            .with_host(StrBytes::from_string(host))
            .with_port(port.into())
    };
    response
        .with_controller_id(BrokerId(ctx.active_controller().unwrap_or(-1)))
        .with_brokers(ctx.controllers().into_iter().map(controller).collect())
}
