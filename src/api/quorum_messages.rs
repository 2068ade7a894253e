//! QuorumMessages (key 10000): messages of another voter of the metadata quorum.
//!
//! Behavior: the messages are passed on in order. The response does not wait until they are handled.

use kafka_protocol::error::ResponseError;

use super::{RequestContext, authorized::Operation};
use crate::protocol::quorum_messages::{QuorumMessagesRequest, QuorumMessagesResponse};

pub(crate) async fn handle(ctx: RequestContext, request: QuorumMessagesRequest) -> QuorumMessagesResponse {
    let deliver = async {
        let cluster = ctx.cluster(Operation::ClusterAction)?;
        if *request.cluster_id != *cluster.log_manager().cluster_id() {
            return Err(ResponseError::InconsistentClusterId);
        }
        for message in request.messages {
            cluster.controller().deliver(message).await;
        }
        Ok(())
    };
    let error = deliver.await.err();
    QuorumMessagesResponse { error_code: error.map_or(0, |error| error.code()) }
}
