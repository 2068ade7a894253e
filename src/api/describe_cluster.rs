//! DescribeCluster (key 60): the cluster's id and its brokers.
//!
//! Behavior: M6. Version notes: 1 adds the endpoint type (clients ask for controllers on a controller listener, so
//! that type gets MISMATCHED_ENDPOINT_TYPE here), 2 adds fenced brokers.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, DescribeClusterRequest, DescribeClusterResponse, describe_cluster_response::DescribeClusterBroker,
    },
    protocol::StrBytes,
};

use super::{RequestContext, topics};

const ENDPOINT_BROKERS: i8 = 1;
const ENDPOINT_CONTROLLERS: i8 = 2;

pub(crate) async fn handle(ctx: RequestContext, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let refused = |error: ResponseError, message: String| {
        DescribeClusterResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(message)))
    };
    match request.endpoint_type {
        ENDPOINT_BROKERS => {}
        ENDPOINT_CONTROLLERS => {
            return refused(
                ResponseError::MismatchedEndpointType,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER"
                    .to_owned(),
            );
        }
        other => return refused(ResponseError::UnsupportedEndpointType, format!("Unsupported endpoint type {other}")),
    }
    let image = ctx.image();
    let brokers =
        image.brokers.values().filter(|broker| !broker.fenced || request.include_fenced_brokers).filter_map(|broker| {
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
    let mut response = DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(image.cluster_id.to_string()))
        .with_controller_id(BrokerId(image.alive_brokers().next().map_or(-1, |broker| broker.id)))
        .with_brokers(brokers.collect());
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = topics::CLUSTER_OPERATIONS;
    }
    response
}
