//! Resolves the addresses to listen on and those for clients, from `listeners`, `advertised.listeners`,
//! `listener.security.protocol.map` and `controller.listener.names`. Leaves the metadata quorum to `quorum.rs`.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use super::{broker::BrokerConfig, quorum::QuorumSettings};

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A host name or an address. An IPv6 address has no brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The name, in upper case.
    pub name: String,
    /// The host to bind; `None` means all interfaces.
    pub host: Option<String>,
    /// The port to bind; 0 means a free one.
    pub port: u16,
    /// Whether it belongs to the controller and is not sent to clients.
    pub is_controller: bool,
    /// The endpoint that clients get; with `None` each client gets the address to which it has connected. Port 0 means
    /// the port that was bound.
    pub advertised: Option<Endpoint>,
}

/// All listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listeners {
    /// The listeners in the order of the setting.
    pub all: Vec<Listener>,
    /// The name of the listener for traffic between brokers.
    pub inter_broker: String,
    /// The part of this node in the metadata quorum.
    pub quorum: QuorumSettings,
}

/// A parsed `NAME://host:port`.
struct Parsed {
    name: String,
    host: Option<String>,
    port: u16,
}

impl Listeners {
    /// Resolves the settings.
    ///
    /// # Errors
    /// The problem, in a sentence that names the setting.
    pub(super) fn resolve(config: &BrokerConfig, map_is_given: bool) -> Result<Listeners, String> {
        let controllers = upper(&config.controller_listener_names);
        let protocols = security_protocols(config, &controllers, map_is_given)?;
        let bound = parse_all("listeners", &config.listeners, &protocols)?;
        distinct_names("listeners", &bound)?;
        distinct_ports(&config.listeners, &bound)?;
        let mut advertised = match &config.advertised_listeners {
            Some(given) => parse_all("advertised.listeners", given, &protocols)?,
            None => Vec::new(),
        };
        distinct_names("advertised.listeners", &advertised)?;
        check_advertised(&advertised, &bound)?;
        let is_broker = config.process_roles.iter().any(|role| role == "broker");
        if is_broker && bound.iter().all(|listener| controllers.contains(&listener.name)) {
            return Err("There must be at least one broker advertised listener. \
                        Perhaps all listeners appear in controller.listener.names?"
                .to_owned());
        }
        let all: Vec<Listener> = bound
            .into_iter()
            .map(|parsed| {
                let told = advertised.iter().position(|told| told.name == parsed.name).map(|at| advertised.remove(at));
                Listener {
                    is_controller: controllers.contains(&parsed.name),
                    advertised: told.and_then(|told| Some(Endpoint { host: told.host?, port: told.port })),
                    name: parsed.name,
                    host: parsed.host,
                    port: parsed.port,
                }
            })
            .collect();
        let quorum = QuorumSettings::resolve(config, &all)?;
        let inter_broker = if quorum.is_broker { inter_broker(config, &all)? } else { String::new() };
        Ok(Listeners { all, inter_broker, quorum })
    }

    /// The listeners of the controller.
    pub fn for_controllers(&self) -> impl Iterator<Item = &Listener> {
        self.all.iter().filter(|listener| listener.is_controller)
    }

    /// The listeners that serve clients.
    pub fn for_clients(&self) -> impl Iterator<Item = &Listener> {
        self.all.iter().filter(|listener| !listener.is_controller)
    }
}

fn upper(names: &[String]) -> Vec<String> {
    names.iter().map(|name| name.to_uppercase()).collect()
}

fn security_protocols(
    config: &BrokerConfig,
    controllers: &[String],
    map_is_given: bool,
) -> Result<BTreeMap<String, String>, String> {
    let key = "listener.security.protocol.map";
    let mut protocols = BTreeMap::new();
    for pair in config.listener_security_protocol_map.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, protocol) =
            pair.split_once(':').ok_or_else(|| format!("{key} has '{pair}', which is not NAME:PROTOCOL"))?;
        let protocol = protocol.trim().to_uppercase();
        if !matches!(protocol.as_str(), "PLAINTEXT" | "SSL" | "SASL_PLAINTEXT" | "SASL_SSL") {
            return Err(format!("Invalid security protocol `{protocol}` defined in {key}"));
        }
        protocols.insert(name.trim().to_uppercase(), protocol);
    }
    if !map_is_given {
        for name in controllers {
            protocols.entry(name.clone()).or_insert_with(|| "PLAINTEXT".to_owned());
        }
    }
    Ok(protocols)
}

fn parse_all(key: &str, given: &[String], protocols: &BTreeMap<String, String>) -> Result<Vec<Parsed>, String> {
    given
        .iter()
        .map(|text| {
            let parsed = parse(text).ok_or_else(|| format!("Unable to parse {text} of {key} to a broker endpoint"))?;
            let name = &parsed.name;
            match protocols.get(name).map(String::as_str) {
                None => Err(format!("No security protocol defined for listener {name}: add it to listener.security.protocol.map")),
                Some("PLAINTEXT") => Ok(parsed),
                Some(protocol) => {
                    let missing = if protocol == "SSL" { "TLS is" } else { "SASL and TLS are" };
                    Err(format!("{key} has {text} with security protocol {protocol}, but {missing} not served yet: use PLAINTEXT"))
                }
            }
        })
        .collect()
}

fn parse(text: &str) -> Option<Parsed> {
    let (name, address) = text.trim().split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '%' | '.' | '_' | ':');
    if name.is_empty() || !host.chars().all(allowed) {
        return None;
    }
    let host = if host.is_empty() { None } else { Some(host.to_owned()) };
    Some(Parsed { name: name.to_uppercase(), host, port: port.parse().ok()? })
}

fn distinct_names(key: &str, parsed: &[Parsed]) -> Result<(), String> {
    for (index, one) in parsed.iter().enumerate() {
        if parsed[..index].iter().any(|other| other.name == one.name) {
            return Err(format!("Each listener must have a different name, {key}: {} occurs twice", one.name));
        }
    }
    Ok(())
}

/// Two listeners may share a port only if one has an IPv4 address and the other an IPv6 address (KIP-797).
fn distinct_ports(given: &[String], parsed: &[Parsed]) -> Result<(), String> {
    let family =
        |one: &Parsed| one.host.as_deref().and_then(|host| host.parse().ok()).map(|address: IpAddr| address.is_ipv4());
    for (index, one) in parsed.iter().enumerate().filter(|(_, one)| one.port != 0) {
        for other in parsed[..index].iter().filter(|other| other.port == one.port) {
            match (family(one), family(other)) {
                (Some(a), Some(b)) if a != b => {}
                _ => {
                    return Err(format!("Each listener must have a different port, listeners: {}", given.join(",")));
                }
            }
        }
    }
    Ok(())
}

fn check_advertised(advertised: &[Parsed], bound: &[Parsed]) -> Result<(), String> {
    for told in advertised {
        if told.host.as_deref() == Some("0.0.0.0") {
            return Err(
                "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP address."
                    .to_owned(),
            );
        }
        if !bound.iter().any(|listener| listener.name == told.name) {
            let known: Vec<&str> = bound.iter().map(|listener| listener.name.as_str()).collect();
            return Err(format!(
                "advertised.listeners listener names must be equal to or a subset of the ones defined in listeners. \
                 Found {}. The valid options based on the current configuration are {}",
                told.name,
                known.join(",")
            ));
        }
    }
    Ok(())
}

/// Returns `inter.broker.listener.name`, or the PLAINTEXT listener, or else the first one: a single node does not
/// connect to other nodes.
fn inter_broker(config: &BrokerConfig, all: &[Listener]) -> Result<String, String> {
    let names: Vec<&str> =
        all.iter().filter(|listener| !listener.is_controller).map(|listener| listener.name.as_str()).collect();
    if let Some(name) = &config.inter_broker_listener_name {
        let name = name.to_uppercase();
        if !names.contains(&name.as_str()) {
            return Err(format!(
                "inter.broker.listener.name must be a listener name defined in advertised.listeners. \
                 The valid options based on currently configured listeners are {}",
                names.join(",")
            ));
        }
        return Ok(name);
    }
    if config.security_inter_broker_protocol != "PLAINTEXT" {
        let protocol = &config.security_inter_broker_protocol;
        return Err(format!("security.inter.broker.protocol is {protocol}, but TLS and SASL are not served yet"));
    }
    let name = names.iter().find(|name| **name == "PLAINTEXT").or(names.first());
    name.map(|name| (*name).to_owned()).ok_or_else(|| "listeners has no listener for clients".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(change: impl FnOnce(&mut BrokerConfig)) -> Result<Listeners, String> {
        let mut config = BrokerConfig::default();
        change(&mut config);
        let map = config.listener_security_protocol_map != BrokerConfig::default().listener_security_protocol_map;
        Listeners::resolve(&config, map)
    }

    fn list(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn the_default_is_one_listener_on_loopback_told_as_it_is_reached() {
        let listeners = resolve(|_| {}).expect("the default");
        assert_eq!(listeners.inter_broker, "PLAINTEXT");
        let only = &listeners.all[0];
        assert_eq!((only.host.as_deref(), only.port, &only.advertised), (Some("127.0.0.1"), 9092, &None));
    }

    #[test]
    fn an_empty_host_is_every_interface_and_port_0_stays_free() {
        let listeners =
            resolve(|config| config.listeners = list("plaintext://:0,CONTROLLER://[::1]:9093")).expect("both");
        assert_eq!(
            (listeners.all[0].name.as_str(), &listeners.all[0].host, listeners.all[0].port),
            ("PLAINTEXT", &None, 0)
        );
        assert_eq!(listeners.all[1].host.as_deref(), Some("::1"));
        assert!(listeners.all[1].is_controller);
        assert_eq!(listeners.for_clients().count(), 1);
    }

    #[test]
    fn secured_listeners_are_refused_not_ignored() {
        for (listener, map) in
            [("SSL://:9092", None), ("SASL_PLAINTEXT://:9092", None), ("A://:9092", Some("A:SASL_SSL"))]
        {
            let error = resolve(|config| {
                config.listeners = list(listener);
                if let Some(map) = map {
                    config.listener_security_protocol_map = map.to_owned();
                }
            })
            .expect_err(listener);
            assert!(error.contains("not served yet"), "{error}");
        }
        assert!(
            resolve(|config| config.listeners = list("X://:1")).expect_err("unmapped").contains("No security protocol")
        );
    }

    #[test]
    fn names_ports_and_advertised_listeners_are_checked() {
        let error = |change: fn(&mut BrokerConfig)| resolve(change).expect_err("it is wrong");
        assert!(error(|c| c.listeners = list("PLAINTEXT://:1,PLAINTEXT://:2")).contains("different name"));
        assert!(error(|c| c.listeners = list("PLAINTEXT://:1,CONTROLLER://:1")).contains("different port"));
        assert!(error(|c| c.listeners = list("PLAINTEXT:9092")).contains("Unable to parse"));
        assert!(error(|c| c.listeners = list("CONTROLLER://:9092")).contains("at least one broker"));
        assert!(error(|c| c.advertised_listeners = Some(list("PLAINTEXT://0.0.0.0:1"))).contains("0.0.0.0"));
        assert!(error(|c| c.advertised_listeners = Some(list("SSL://a:1"))).contains("SSL"));
        assert!(error(|c| c.inter_broker_listener_name = Some("B".into())).contains("valid options"));
        assert!(resolve(|c| c.listeners = list("PLAINTEXT://127.0.0.1:1,CONTROLLER://[::1]:1")).is_ok());
    }
}
