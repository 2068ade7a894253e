//! QuorumMessages (key 10000): messages of another voter of the metadata quorum.
//!
//! Behavior: the messages are passed on in order. The response does not wait until they are handled. A node that is new
//! does not know the id of its cluster yet, and takes it from the first voter that does.

use kafka_protocol::error::ResponseError;

use super::{RequestContext, authorized::Operation};
use crate::protocol::quorum_messages::{QuorumMessagesRequest, QuorumMessagesResponse};

pub(crate) async fn handle(ctx: RequestContext, request: QuorumMessagesRequest) -> QuorumMessagesResponse {
    let deliver = async {
        let cluster = ctx.cluster(Operation::ClusterAction)?;
        let own = cluster.log_manager().cluster_id();
        if !request.cluster_id.is_empty() && own.is_some_and(|own| *own != *request.cluster_id) {
            return Err(ResponseError::InconsistentClusterId);
        }
        cluster.controller().deliver(request).await;
        Ok(())
    };
    let error = deliver.await.err();
    QuorumMessagesResponse { error_code: error.map_or(0, |error| error.code()) }
}
