//! The task with which a controller becomes a voter by itself (KIP-853).
//!
//! Owns when it does so: with `controller.quorum.auto.join.enable`; or if `controller.quorum.voters` lists this node
//! and its metadata directory is new. The second is how a node whose disk was replaced comes back: its former directory
//! is removed from the voters and the new one is added, each by a majority of the others, so that it never votes as its
//! former self. Leaves the checks to the leader.

use std::{sync::Arc, time::Duration};

use kafka_protocol::{
    error::ResponseError,
    messages::{AddRaftVoterRequest, RemoveRaftVoterRequest, add_raft_voter_request::Listener},
    protocol::StrBytes,
};

use super::{
    channel::{Active, ControllerChannel},
    control_records::{Voter, VoterEndpoint},
    handle::ControllerHandle,
    requests::check,
    transport::SelfAddress,
};
use crate::{controller::ApiError, env::Env};

/// The wait between two attempts, and before the first.
const RETRY: Duration = Duration::from_millis(200);
/// The leader waits this long until this node has caught up.
const CATCH_UP_MS: i32 = 3_000;

/// See the head of the file.
pub struct Join {
    pub env: Env,
    pub own: SelfAddress,
    /// The controller listener of this node.
    pub listener: VoterEndpoint,
    pub controller: ControllerHandle,
    pub channel: Arc<ControllerChannel>,
    /// `controller.quorum.auto.join.enable`.
    pub is_automatic: bool,
    /// `controller.quorum.voters` lists this node.
    pub is_listed: bool,
    /// The metadata log of this node was empty at its start.
    pub is_new: bool,
}

impl Join {
    /// Runs until this node is a voter. If it is removed later, only `is_automatic` lets it come back.
    pub async fn run(self) {
        let mut may_join = self.is_automatic || (self.is_listed && self.is_new);
        if !may_join && !self.is_listed {
            return;
        }
        self.controller.addresses().until_stored().await;
        if self.controller.addresses().voters().contains(self.own.identity) {
            may_join = self.is_automatic;
        }
        loop {
            self.controller.observes().await;
            self.env.clock.sleep_until(self.env.clock.monotonic() + RETRY).await;
            let voters = self.controller.addresses().voters();
            let former = voters.voter(self.own.identity.node_id);
            let result = match former {
                _ if voters.contains(self.own.identity) => {
                    may_join = self.is_automatic;
                    continue;
                }
                Some(former) => {
                    may_join = true;
                    self.remove(former).await
                }
                None if may_join => self.add().await,
                None => continue,
            };
            if let Err(error) = result {
                tracing::debug!(error = ?error, "this node is no voter yet");
            }
        }
    }

    async fn remove(&self, former: &Voter) -> Result<(), ApiError> {
        let request = RemoveRaftVoterRequest::default()
            .with_cluster_id(self.own.cluster.cluster_id().map(StrBytes::from_string))
            .with_voter_id(former.voter_id)
            .with_voter_directory_id(former.voter_directory_id);
        let response = self.channel.call(self.leader()?, 0, &request).await?;
        check(response.error_code)?;
        tracing::info!("the former directory of this node was removed from the voters of the metadata quorum");
        Ok(())
    }

    async fn add(&self) -> Result<(), ApiError> {
        let VoterEndpoint { name, host, port } = self.listener.clone();
        let listener = Listener::default()
            .with_name(StrBytes::from_string(name))
            .with_host(StrBytes::from_string(host))
            .with_port(port);
        let request = AddRaftVoterRequest::default()
            .with_cluster_id(self.own.cluster.cluster_id().map(StrBytes::from_string))
            .with_timeout_ms(CATCH_UP_MS)
            .with_voter_id(self.own.identity.node_id)
            .with_voter_directory_id(self.own.identity.directory_id)
            .with_listeners(vec![listener]);
        let response = self.channel.call(self.leader()?, 0, &request).await?;
        check(response.error_code)?;
        tracing::info!("this node was added to the voters of the metadata quorum");
        Ok(())
    }

    fn leader(&self) -> Result<i32, ApiError> {
        match self.channel.active() {
            Some(Active::At(leader)) => Ok(leader),
            _ => Err(ApiError::code_only(ResponseError::NotController)),
        }
    }
}
