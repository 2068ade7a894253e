//! The part of this node in the metadata quorum, from `process.roles`, `controller.quorum.voters`,
//! `controller.quorum.bootstrap.servers` and the listeners.
//!
//! Leaves the voters of a cluster that exists to its metadata log.

use super::{
    broker::BrokerConfig,
    listeners::{Endpoint, Listener},
};
use crate::types::BrokerId;

const VOTERS: &str = "controller.quorum.voters";
const BOOTSTRAP: &str = "controller.quorum.bootstrap.servers";

/// See the head of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuorumSettings {
    /// Whether this node stores partitions and serves clients.
    pub is_broker: bool,
    /// Whether this node may be a voter.
    pub is_controller: bool,
    /// `controller.quorum.voters`: the voters of a new cluster.
    pub voters: Vec<(BrokerId, Endpoint)>,
    /// `controller.quorum.bootstrap.servers` without this node: where to find the quorum.
    pub bootstrap: Vec<Endpoint>,
    /// Where other nodes reach the controller of this node, and the name of that listener.
    pub own: Option<(String, Endpoint)>,
}

impl QuorumSettings {
    /// # Errors
    /// The problem, in a sentence that names the setting.
    pub(super) fn resolve(config: &BrokerConfig, listeners: &[Listener]) -> Result<QuorumSettings, String> {
        let has_role = |role: &str| config.process_roles.iter().any(|given| given == role);
        let (is_broker, is_controller) = (has_role("broker"), has_role("controller"));
        let voters = voters(config)?;
        let listener = listeners.iter().find(|listener| listener.is_controller);
        let listed = voters.iter().find(|(id, _)| *id == config.node_id).map(|(_, endpoint)| endpoint.clone());
        let own = listener.map(|listener| {
            let endpoint = listed.clone().unwrap_or_else(|| address_of(listener));
            (listener.name.clone(), endpoint)
        });
        let is_own = |endpoint: &Endpoint| own.as_ref().is_some_and(|(_, own)| is_same(endpoint, own));
        let mut bootstrap = bootstrap(config)?;
        bootstrap.retain(|endpoint| !(is_controller && is_own(endpoint)));
        let settings = QuorumSettings { is_broker, is_controller, voters, bootstrap, own };
        settings.check(config.node_id, listeners)?;
        Ok(settings)
    }

    fn check(&self, node: BrokerId, listeners: &[Listener]) -> Result<(), String> {
        let is_listed = self.voters.iter().any(|(id, _)| *id == node);
        if !self.is_controller && is_listed {
            return Err(format!("process.roles is broker, so {VOTERS} must not contain node.id {node}"));
        }
        if !self.is_controller && self.voters.is_empty() && self.bootstrap.is_empty() {
            return Err(format!(
                "process.roles is broker, so {VOTERS} or {BOOTSTRAP} must say where the controllers are"
            ));
        }
        if self.is_controller && !self.voters.is_empty() && !is_listed {
            return Err(format!(
                "process.roles contains controller, so {VOTERS} must contain node.id {node}; to add a controller to a \
                 cluster that exists, set {BOOTSTRAP} instead"
            ));
        }
        if self.is_controller && !self.is_alone() && self.own.is_none() {
            return Err("this node is not the only controller, so listeners must contain a listener that \
                        controller.listener.names names: the others could not reach this one"
                .to_owned());
        }
        if !self.is_broker && (self.own.is_none() || listeners.iter().any(|listener| !listener.is_controller)) {
            return Err("process.roles is controller, so listeners must contain exactly the listeners that \
                        controller.listener.names names"
                .to_owned());
        }
        if !self.is_controller && self.own.is_some() {
            return Err("process.roles is broker, so listeners must not contain a listener that \
                        controller.listener.names names"
                .to_owned());
        }
        Ok(())
    }

    /// Whether this node forms a new cluster without waiting for others.
    pub fn is_alone(&self) -> bool {
        // A list of one voter contains this node.
        self.is_controller && self.voters.len() < 2 && self.bootstrap.is_empty()
    }
}

/// The address that others use for a listener.
fn address_of(listener: &Listener) -> Endpoint {
    let host = || listener.host.clone().filter(|host| host != "0.0.0.0" && host != "::");
    let port = listener.port;
    match &listener.advertised {
        Some(Endpoint { host, port: advertised }) => {
            Endpoint { host: host.clone(), port: if *advertised == 0 { port } else { *advertised } }
        }
        None => Endpoint { host: host().unwrap_or_default(), port },
    }
}

/// Whether two addresses are of one listener on this host. An empty host is every interface.
fn is_same(endpoint: &Endpoint, own: &Endpoint) -> bool {
    let is_local = |host: &str| matches!(host, "" | "localhost" | "127.0.0.1" | "::1");
    endpoint.port == own.port && (endpoint.host == own.host || is_local(&endpoint.host) && is_local(&own.host))
}

/// Parses `host:port`.
fn endpoint(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some(Endpoint { host: host.to_owned(), port: port.parse().ok()? })
}

fn voters(config: &BrokerConfig) -> Result<Vec<(BrokerId, Endpoint)>, String> {
    let mut voters: Vec<(BrokerId, Endpoint)> = Vec::new();
    for voter in &config.controller_quorum_voters {
        let parsed = voter.split_once('@').and_then(|(id, address)| Some((id.parse().ok()?, endpoint(address)?)));
        let (id, endpoint) = parsed.ok_or_else(|| format!("{VOTERS} has '{voter}', which is not id@host:port"))?;
        // linear: a quorum has a few voters
        if voters.iter().any(|(other, _)| *other == id) {
            return Err(format!("{VOTERS} has voter {id} twice"));
        }
        voters.push((id, endpoint));
    }
    Ok(voters)
}

fn bootstrap(config: &BrokerConfig) -> Result<Vec<Endpoint>, String> {
    let parse =
        |text: &String| endpoint(text).ok_or_else(|| format!("{BOOTSTRAP} has '{text}', which is not host:port"));
    config.controller_quorum_bootstrap_servers.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    fn resolve(roles: &str, listeners: &str, voters: &str, bootstrap: &str) -> Result<QuorumSettings, String> {
        let given = |text: &str| if text.is_empty() { Vec::new() } else { list(text) };
        let config = BrokerConfig {
            process_roles: list(roles),
            listeners: list(listeners),
            controller_quorum_voters: given(voters),
            controller_quorum_bootstrap_servers: given(bootstrap),
            ..BrokerConfig::default()
        };
        super::super::Listeners::resolve(&config, false).map(|listeners| listeners.quorum)
    }

    const BOTH: &str = "broker,controller";
    const CLIENTS: &str = "PLAINTEXT://:9092";
    const TWO: &str = "PLAINTEXT://:9092,CONTROLLER://:9093";

    #[test]
    fn a_node_is_alone_unless_it_names_others() {
        for (voters, bootstrap, is_alone) in [
            ("", "", true),
            ("1@localhost:9093", "", true),
            // As in the server.properties that Kafka ships.
            ("", "localhost:9093", true),
            ("", "controller-0:9093", false),
            ("", "localhost:9093,controller-0:9093", false),
            ("1@a:9093,2@b:9093", "", false),
        ] {
            assert_eq!(resolve(BOTH, TWO, voters, bootstrap).unwrap().is_alone(), is_alone, "{voters} {bootstrap}");
        }
        assert!(resolve(BOTH, CLIENTS, "", "").unwrap().is_alone());
        assert!(!resolve("broker", CLIENTS, "2@a:9093", "").unwrap().is_alone());
    }

    #[test]
    fn the_roles_must_fit_the_voters_and_the_listeners() {
        let error = |roles: &str, listeners: &str, voters: &str| resolve(roles, listeners, voters, "").unwrap_err();
        assert!(error(BOTH, TWO, "2@a:1,3@b:1").contains("must contain node.id 1"));
        assert!(error(BOTH, TWO, "1@a:1,2@b:1,1@c:1").contains("twice"));
        assert!(error(BOTH, TWO, "1@a").contains("id@host:port"));
        assert!(error(BOTH, CLIENTS, "1@a:1,2@b:1").contains("controller.listener.names"));
        assert!(error("broker", CLIENTS, "1@a:1").contains("must not contain node.id 1"));
        assert!(error("broker", CLIENTS, "").contains("where the controllers are"));
        assert!(error("broker", TWO, "2@a:1").contains("must not contain a listener"));
        assert!(error("controller", TWO, "").contains("exactly the listeners"));
        assert!(resolve("controller", "CONTROLLER://:9093", "1@a:9093", "").is_ok());
        assert!(resolve(BOTH, TWO, "", "nonsense").unwrap_err().contains("host:port"));
    }

    #[test]
    fn others_reach_the_controller_at_the_listed_address_or_at_that_of_its_listener() {
        let own = |voters: &str, listeners: &str| resolve(BOTH, listeners, voters, "").unwrap().own;
        let at = |host: &str, port| Some(("CONTROLLER".to_owned(), Endpoint { host: host.into(), port }));
        assert_eq!(own("1@a:9,2@b:9", TWO), at("a", 9));
        assert_eq!(own("", "PLAINTEXT://:9092,CONTROLLER://c:9093"), at("c", 9093));
        assert_eq!(own("", CLIENTS), None);
    }
}
