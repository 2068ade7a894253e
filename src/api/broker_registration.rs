//! BrokerRegistration (key 62): a broker that starts registers with the controller.
//!
//! Behavior: the broker epoch of the response is the offset of the registration in the metadata log.
//! Deviations: Apache refuses a broker that was restarted until the session of its last process is over; here a process
//! with the same log directories takes over at once, since their locks admit only one.
//! Version notes: 1 has the flag of a migration from ZooKeeper, 2 log directories, 3 the epoch of the broker's last
//! registration.

use kafka_protocol::messages::{BrokerRegistrationRequest, BrokerRegistrationResponse};

use super::{RequestContext, authorized::Operation};
use crate::controller::ApiError;

pub(crate) async fn handle(ctx: RequestContext, request: BrokerRegistrationRequest) -> BrokerRegistrationResponse {
    let register = async { ctx.cluster(Operation::ClusterAction)?.controller().register_broker(request.into()).await };
    let registered: Result<i64, ApiError> = register.await;
    let response = BrokerRegistrationResponse::default();
    match registered {
        Ok(broker_epoch) => response.with_broker_epoch(broker_epoch),
        Err(error) => response.with_error_code(error.code()).with_broker_epoch(-1),
    }
}
