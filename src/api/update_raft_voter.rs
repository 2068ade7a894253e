//! UpdateRaftVoter (key 82): a voter of the metadata quorum has new addresses (KIP-853).
//!
//! Behavior: voters of this broker's kind say where they are in each message, so only Kafka's tools send this request.

use kafka_protocol::{
    messages::{BrokerId, UpdateRaftVoterRequest, UpdateRaftVoterResponse, update_raft_voter_response::CurrentLeader},
    protocol::StrBytes,
};

use super::{RequestContext, authorized::Operation, errors::voter_change_error};
use crate::{
    controller::ApiError,
    raft::{
        VoterChange,
        control_records::{KRaftVersionFeature, Voter, VoterEndpoint},
    },
};

pub(crate) async fn handle(ctx: RequestContext, request: UpdateRaftVoterRequest) -> UpdateRaftVoterResponse {
    let error = update(&ctx, request).await.err();
    let leader = ctx.active_controller();
    // linear: the voters are few.
    let address = ctx.controllers().into_iter().find(|(id, ..)| Some(*id) == leader);
    let current = CurrentLeader::default().with_leader_id(BrokerId(leader.unwrap_or(-1)));
    let current = match address {
        Some((_, host, port)) => current.with_host(StrBytes::from_string(host)).with_port(port.into()),
        None => current,
    };
    UpdateRaftVoterResponse::default()
        .with_error_code(error.map_or(0, |error| error.code()))
        .with_current_leader(current)
}

async fn update(ctx: &RequestContext, request: UpdateRaftVoterRequest) -> Result<(), ApiError> {
    let cluster = ctx.cluster(Operation::ClusterAction)?;
    cluster.check_cluster_id(request.cluster_id.as_deref())?;
    let endpoint = |listener: kafka_protocol::messages::update_raft_voter_request::Listener| VoterEndpoint {
        name: listener.name.to_string(),
        host: listener.host.to_string(),
        port: listener.port,
    };
    let feature = &request.k_raft_version_feature;
    let voter = Voter {
        voter_id: request.voter_id,
        voter_directory_id: request.voter_directory_id,
        kraft_version_feature: KRaftVersionFeature {
            min_supported_version: feature.min_supported_version,
            max_supported_version: feature.max_supported_version,
        },
        endpoints: request.listeners.into_iter().map(endpoint).collect(),
    };
    if voter.endpoints.is_empty() {
        return Err(ApiError::invalid_request("a voter has at least one listener"));
    }
    cluster.controller().change_voters(VoterChange::Update(voter)).await.map_err(voter_change_error)
}
