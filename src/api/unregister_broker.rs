//! UnregisterBroker (key 64): removes the registration of a broker that will not come back.
//!
//! Behavior: A10. As in Apache, a running broker can be unregistered too. It then leads no partition and is missing in
//! the metadata until its next start.

use kafka_protocol::{
    messages::{UnregisterBrokerRequest, UnregisterBrokerResponse},
    protocol::StrBytes,
};

use super::{RequestContext, authorized::Operation, error_message};
use crate::controller::brokers::UnregisterBroker;

pub(crate) async fn handle(ctx: RequestContext, request: UnregisterBrokerRequest) -> UnregisterBrokerResponse {
    let broker_id = request.broker_id.0;
    let unregister =
        async { ctx.cluster(Operation::Alter)?.controller().unregister_broker(UnregisterBroker { broker_id }).await };
    let response = UnregisterBrokerResponse::default();
    match unregister.await {
        Ok(()) => {
            log(broker_id, ctx.config().node_id);
            // Apache leaves the message empty here, not null.
            response.with_error_message(Some(StrBytes::default()))
        }
        Err(error) => response.with_error_code(error.code()).with_error_message(error_message(&error)),
    }
}

fn log(broker_id: i32, node_id: i32) {
    if broker_id == node_id {
        tracing::warn!("a client has unregistered this broker: it leads no partition until it is started again");
    } else {
        tracing::info!(broker_id, "a client has unregistered a broker");
    }
}
