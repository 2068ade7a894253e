//! Where the controllers are.
//!
//! Owns the three sources of their addresses: `controller.quorum.voters` in this node's settings, which comes first,
//! the voters in the metadata log, and the leader as other nodes have named it. Leaves the resolution of host names to
//! each connection, since an address may change.

use std::{collections::BTreeMap, sync::Mutex};

use super::control_records::VotersRecord;
use crate::{
    config::Endpoint,
    env::{Watched, lock::lock},
    types::BrokerId,
};

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Addresses {
    /// `controller.quorum.voters`.
    configured: BTreeMap<BrokerId, Endpoint>,
    /// `controller.quorum.bootstrap.servers`.
    bootstrap: Vec<Endpoint>,
    /// The newest voters in the metadata log, or those of the settings, if the log has none yet.
    voters: Watched<VotersRecord>,
    /// The log has voters.
    are_stored: Watched<bool>,
    /// The leader that another node has named, for a node that does not know the voters yet.
    leader: Mutex<Option<(BrokerId, Endpoint)>>,
}

impl Addresses {
    /// The addresses of the settings.
    pub fn new(configured: &[(BrokerId, Endpoint)], bootstrap: &[Endpoint]) -> Self {
        let configured = configured.iter().cloned().collect();
        Addresses { configured, bootstrap: bootstrap.to_vec(), ..Addresses::default() }
    }

    /// The voters, as far as this node knows them.
    pub fn voters(&self) -> VotersRecord {
        self.voters.get()
    }

    pub(super) fn set_voters(&self, voters: VotersRecord, are_stored: bool) {
        self.voters.set(voters);
        self.are_stored.set(are_stored);
    }

    /// Waits until the metadata log of this node has voters.
    pub(super) async fn until_stored(&self) {
        self.are_stored.until(|are_stored| *are_stored).await;
    }

    /// Waits until the voters are as `holds` says.
    pub(super) async fn until_voters(&self, holds: impl FnMut(&VotersRecord) -> bool) {
        self.voters.until(holds).await;
    }

    pub(super) fn set_leader(&self, id: BrokerId, endpoint: Endpoint) {
        *lock(&self.leader) = Some((id, endpoint));
    }

    /// Whether `controller.quorum.voters` lists this node.
    pub(super) fn lists(&self, id: BrokerId) -> bool {
        self.configured.contains_key(&id)
    }

    /// The address of one controller.
    pub fn of(&self, id: BrokerId) -> Option<Endpoint> {
        let stored = || {
            let voters = self.voters();
            let endpoint = voters.voter(id)?.endpoint()?;
            Some(Endpoint { host: endpoint.host.clone(), port: endpoint.port })
        };
        let named = || lock(&self.leader).as_ref().filter(|(leader, _)| *leader == id).map(|(_, at)| at.clone());
        self.configured.get(&id).cloned().or_else(stored).or_else(named)
    }

    /// The voters that have an address.
    pub fn controllers(&self) -> Vec<(BrokerId, Endpoint)> {
        let voters = self.voters();
        voters.voters.iter().filter_map(|voter| Some((voter.voter_id, self.of(voter.voter_id)?))).collect()
    }

    /// All addresses where a controller may be.
    pub(super) fn all(&self) -> Vec<Endpoint> {
        let voters = self.voters();
        let stored = voters.voters.iter().filter_map(|voter| self.of(voter.voter_id));
        let named = lock(&self.leader).as_ref().map(|(_, endpoint)| endpoint.clone());
        let mut all: Vec<Endpoint> = Vec::new();
        for endpoint in named
            .into_iter()
            .chain(stored)
            .chain(self.configured.values().cloned())
            .chain(self.bootstrap.iter().cloned())
        {
            if !all.contains(&endpoint) {
                all.push(endpoint);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::control_records::{VoterEndpoint, single_voter};

    fn at(host: &str) -> Endpoint {
        Endpoint { host: host.into(), port: 9093 }
    }

    #[test]
    fn the_settings_come_before_the_log_and_the_log_before_what_others_say() {
        let addresses = Addresses::new(&[(1, at("set"))], &[at("boot"), at("set")]);
        assert_eq!(
            (addresses.of(1), addresses.of(2), addresses.all()),
            (Some(at("set")), None, vec![at("set"), at("boot")])
        );
        addresses.set_leader(2, at("named"));
        assert_eq!(addresses.of(2), Some(at("named")));
        let endpoint = |host: &str| VoterEndpoint { name: "C".into(), host: host.into(), port: 9093 };
        let mut voters = single_voter(1, Default::default(), vec![endpoint("log1")]);
        voters.voters.extend(single_voter(2, Default::default(), vec![endpoint("log2")]).voters);
        addresses.set_voters(voters, true);
        assert_eq!(addresses.controllers(), [(1, at("set")), (2, at("log2"))]);
        assert_eq!(addresses.all(), [at("named"), at("set"), at("log2"), at("boot")]);
    }
}
