//! RemoveRaftVoter (key 81): a voter leaves the metadata quorum (KIP-853).
//!
//! Behavior: Kafka's leader removes itself and resigns then. Here it hands over its leadership first, and passes the
//! request on to the next leader.

use std::time::Duration;

use kafka_protocol::{
    error::ResponseError,
    messages::{RemoveRaftVoterRequest, RemoveRaftVoterResponse},
};

use super::{RequestContext, authorized::Operation, error_message, errors::voter_change_error};
use crate::{
    controller::ApiError,
    raft::{Identity, VoterChange, VoterChangeError},
};

/// The next leader must have answered within this time.
const HAND_OVER: Duration = Duration::from_secs(5);
/// The wait before it is asked again.
const RETRY: Duration = Duration::from_millis(50);

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
            let response = ctx.env().within(HAND_OVER, ask_the_next_leader(ctx, request)).await;
            response.map(Some).ok_or_else(|| voter_change_error(VoterChangeError::HandsOver))
        }
        Err(error) => Err(voter_change_error(error)),
    }
}

/// The next leader decides nothing before its first batch is committed.
async fn ask_the_next_leader(ctx: &RequestContext, request: &RemoveRaftVoterRequest) -> RemoveRaftVoterResponse {
    let clock = &ctx.env().clock;
    loop {
        ctx.led_by_another().await;
        match ctx.ask_controller(request).await {
            Ok(response) if response.error_code != ResponseError::NotController.code() => return response,
            _ => clock.sleep_until(clock.monotonic() + RETRY).await,
        }
    }
}
