//! RemoveRaftVoter (key 81): a voter leaves the metadata quorum (KIP-853).
//!
//! Behavior: Kafka's leader removes itself and resigns then. Here it hands over its leadership first, and passes the
//! request on to the next leader.

use std::time::Duration;

use kafka_protocol::messages::{RemoveRaftVoterRequest, RemoveRaftVoterResponse};

use super::{RequestContext, authorized::Operation, error_message, errors::voter_change_error};
use crate::{
    controller::ApiError,
    raft::{Identity, VoterChange, VoterChangeError},
};

/// The next leader must be known within this time.
const HAND_OVER: Duration = Duration::from_secs(5);

pub(crate) async fn handle(ctx: RequestContext, request: RemoveRaftVoterRequest) -> RemoveRaftVoterResponse {
    let refused = |error: ApiError| {
        RemoveRaftVoterResponse::default().with_error_code(error.code()).with_error_message(error_message(&error))
    };
    match remove(&ctx, &request).await {
        Ok(None) => RemoveRaftVoterResponse::default(),
        Ok(Some(response)) => response,
        Err(error) => refused(error),
    }
}

/// Returns the response of the next leader, if this node was the one to remove.
async fn remove(
    ctx: &RequestContext,
    request: &RemoveRaftVoterRequest,
) -> Result<Option<RemoveRaftVoterResponse>, ApiError> {
    let cluster = ctx.cluster(Operation::Alter)?;
    cluster.check_cluster_id(request.cluster_id.as_deref())?;
    let identity = Identity { node_id: request.voter_id, directory_id: request.voter_directory_id };
    match cluster.controller().change_voters(VoterChange::Remove(identity)).await {
        Ok(()) => Ok(None),
        Err(VoterChangeError::HandsOver) => {
            let next = ctx.env().within(HAND_OVER, cluster.controller().led_by_another()).await;
            match next {
                Some(()) => Ok(Some(ctx.ask_controller(request).await?)),
                None => Err(voter_change_error(VoterChangeError::HandsOver)),
            }
        }
        Err(error) => Err(voter_change_error(error)),
    }
}
