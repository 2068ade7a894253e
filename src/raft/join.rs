//! The task with which a controller becomes a voter by itself (KIP-853).
//!
//! Owns when it does so: with `controller.quorum.auto.join.enable`; or if `controller.quorum.voters` lists this node
//! and its metadata directory is new. The second is how a node whose disk was replaced comes back: its former directory
//! is removed from the voters and the new one is added, each by a majority of the others, so that it never votes as its
//! former self. A file keeps that the second step is due. Leaves the checks to the leader.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

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
use crate::{
    controller::ApiError,
    env::{Disk, Env},
};

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
    /// `None` if this node has been a voter with its directory, or was alone from its start.
    pub mark: Option<JoinMark>,
}

/// The name of the file.
const MARK_FILE: &str = "joining";

/// A file beside the metadata log, which says that this node has not been a voter yet with its metadata directory. An
/// operator who removes a voter does not want it back; but without this file a node that stops after the removal of its
/// former directory would look the same.
pub struct JoinMark {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl JoinMark {
    /// The file, if there is one. It is written if the metadata log `is_new`, and must be there before that log gets
    /// its first entry.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(disk: Arc<dyn Disk>, metadata_log_dir: &Path, is_new: bool) -> io::Result<Option<JoinMark>> {
        let path = metadata_log_dir.join(MARK_FILE);
        let is_there = disk.exists(&path);
        if is_new && !is_there {
            disk.write_atomically(&path, b"")?;
        }
        Ok((is_new || is_there).then_some(JoinMark { disk, path }))
    }

    /// This node is a voter. That the file is gone must be durable: it would bring back a voter that is removed later.
    fn clear(&self) -> io::Result<()> {
        self.disk.remove_file(&self.path)?;
        self.path.parent().map_or(Ok(()), |dir| self.disk.sync_dir(dir))
    }
}

impl Join {
    /// Runs until this node is a voter. If it is removed later, only `is_automatic` lets it come back.
    pub async fn run(mut self) {
        let mut may_join = self.is_automatic || (self.is_listed && self.mark.is_some());
        if !may_join && !self.is_listed {
            return;
        }
        let mut was_voter = false;
        let controller = self.controller.clone();
        let addresses = controller.addresses();
        addresses.until_stored().await;
        loop {
            if addresses.voters().contains(self.own.identity) {
                (may_join, was_voter) = (self.is_automatic, true);
                self.on_voter().await;
                addresses.until_voters(|voters| !voters.contains(self.own.identity)).await;
            }
            self.env.clock.sleep_until(self.env.clock.monotonic() + RETRY).await;
            let voters = addresses.voters();
            let former = voters.voter(self.own.identity.node_id);
            let result = match former {
                _ if voters.contains(self.own.identity) => continue,
                // If this process was a voter, another one with the same id has taken its place. They must not remove
                // each other for ever.
                Some(former) if may_join && !was_voter => self.remove(former).await,
                None if may_join => self.add().await,
                _ => continue,
            };
            if let Err(error) = result {
                tracing::debug!(error = ?error, "this node is no voter yet");
            }
        }
    }

    async fn on_voter(&mut self) {
        let Some(mark) = self.mark.take() else { return };
        let cleared = self.env.tasks.blocking("note that this node is a voter", move || mark.clear()).await;
        if let Err(error) = cleared {
            tracing::warn!(%error, "cannot note that this node has become a voter: if it is removed, its next start adds it");
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
