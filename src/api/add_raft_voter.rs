//! AddRaftVoter (key 80): makes a controller a voter of the metadata quorum (KIP-853).
//!
//! Behavior: the controller must run and follow the quorum; the request waits for that, at most for its timeout.
//! Another change of the voters that is not committed yet is waited for, too. Version notes: 1 adds whether the answer
//! waits until the change is committed, or only until the leader has written it (KIP-1186).

use std::time::Duration;

use super::{RequestContext, authorized::Operation, error_message, errors::voter_change_error};
use crate::{
    controller::ApiError,
    protocol::add_raft_voter::{AddRaftVoterListener, AddRaftVoterRequest, AddRaftVoterResponse},
    raft::{
        VoterChange, VoterChangeError,
        control_records::{KRaftVersionFeature, Voter, VoterEndpoint},
    },
};

/// The wait before the next look at a controller that has not caught up.
const RETRY: Duration = Duration::from_millis(100);

pub(crate) async fn handle(ctx: RequestContext, request: AddRaftVoterRequest) -> AddRaftVoterResponse {
    match add(&ctx, request).await {
        Ok(()) => AddRaftVoterResponse::default(),
        Err(error) => AddRaftVoterResponse {
            error_code: error.code(),
            error_message: error_message(&error),
            ..AddRaftVoterResponse::default()
        },
    }
}

async fn add(ctx: &RequestContext, request: AddRaftVoterRequest) -> Result<(), ApiError> {
    let cluster = ctx.cluster(Operation::Alter)?;
    cluster.check_cluster_id(request.cluster_id.as_deref())?;
    let endpoint = |listener: AddRaftVoterListener| VoterEndpoint {
        name: listener.name.to_string(),
        host: listener.host.to_string(),
        port: listener.port,
    };
    let voter = Voter {
        voter_id: request.voter_id,
        voter_directory_id: request.voter_directory_id,
        endpoints: request.listeners.into_iter().map(endpoint).collect(),
        kraft_version_feature: KRaftVersionFeature { min_supported_version: 0, max_supported_version: 1 },
    };
    if voter.voter_id < 0 || voter.endpoints.is_empty() {
        return Err(ApiError::invalid_request("a voter has an id and at least one listener"));
    }
    let change = VoterChange::Add { voter, ack_when_committed: request.ack_when_committed };
    let clock = &ctx.env().clock;
    let deadline = clock.monotonic() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    loop {
        match cluster.controller().change_voters(change.clone()).await {
            Err(VoterChangeError::Lagging | VoterChangeError::Pending) if clock.monotonic() < deadline => {
                clock.sleep_until(clock.monotonic() + RETRY).await;
            }
            result => return result.map_err(voter_change_error),
        }
    }
}
