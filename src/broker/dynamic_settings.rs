//! Applies changes of broker settings at run time (KIP-226): passes each new value to the part that uses it.
//!
//! Leaves defaults of topic settings to `replica/replica_manager.rs`. Leaves the validation of a change, before it is
//! stored, to `config/validate.rs`.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    config::{BrokerConfig, ConfigLayers, Configs, StaticConfigs},
    env::{Env, Net},
    log::LogManager,
    metadata::{
        delta::MetadataDelta,
        image::{ConfigResource, MetadataImage},
        publisher::Subscriber,
    },
    network::{ConnectionQuota, SharedLimits},
    types::BrokerId,
};

/// Passes on changes of this broker's settings.
pub(super) struct DynamicSettings {
    pub(super) node_id: BrokerId,
    pub(super) statics: Arc<StaticConfigs>,
    pub(super) env: Env,
    pub(super) limits: Arc<SharedLimits>,
    /// The most connections that the limit of open files allows.
    pub(super) most_connections: usize,
    pub(super) log_manager: Arc<LogManager>,
    /// Number of changes: host names that were resolved for an older change must not be applied.
    pub(super) changes: Arc<AtomicU64>,
}

impl Subscriber for DynamicSettings {
    fn on_delta(&self, image: &Arc<MetadataImage>, delta: &MetadataDelta) {
        let (cluster, broker) = (ConfigResource::default_broker(), ConfigResource::broker(self.node_id));
        if delta.configs.contains(&cluster) || delta.configs.contains(&broker) {
            let layers = ConfigLayers::new(&self.statics, image.config(&cluster), image.config(&broker));
            self.apply(&layers.broker_config());
        }
        if delta.configs.contains(&cluster)
            && let Some((given, value)) = hidden_min_isr(&self.statics, image.config(&cluster))
        {
            tracing::warn!(
                "min.insync.replicas={given} of this node has no effect: it is {value} in the whole cluster, and \
                 kafka-configs --entity-type brokers --entity-default can change that"
            );
        }
    }
}

/// The `min.insync.replicas` with which this node was started and that of the cluster, if they differ (KIP-966: all
/// brokers have one). An operator who sees only the file believes in more replicas than there are.
fn hidden_min_isr<'a>(statics: &'a StaticConfigs, cluster: Option<&'a Configs>) -> Option<(&'a str, &'a str)> {
    const MIN_ISR: &str = "min.insync.replicas";
    let (given, value) = (statics.get(MIN_ISR)?, cluster?.get(MIN_ISR)?);
    (given.trim() != value.trim()).then_some((given, value))
}

impl DynamicSettings {
    fn apply(&self, config: &BrokerConfig) {
        self.log_manager.set_producer_id_expiration_ms(config.producer_id_expiration_ms.into());
        self.log_manager.set_cleaner_config(super::cleaner_config(config));
        let change = self.changes.fetch_add(1, Ordering::AcqRel) + 1;
        let overrides = config.connection_overrides().unwrap_or_default();
        let (addresses, names): (Vec<_>, Vec<_>) =
            overrides.into_iter().partition(|(host, _)| host.parse::<IpAddr>().is_ok());
        let addresses = addresses.iter().filter_map(|(host, count)| Some((host.parse().ok()?, *count)));
        let mut quota = connection_quota(config, self.most_connections, addresses);
        self.limits.allow(quota.clone());
        if names.is_empty() {
            return;
        }
        // Resolving names may be slow, and every response of the controller waits for this call.
        let (env, limits, changes) = (self.env.clone(), self.limits.clone(), self.changes.clone());
        self.env.tasks.spawn("resolve hosts", async move {
            let net = env.net.clone();
            let resolved = env.tasks.blocking("resolve hosts", move || resolve_all(&*net, names)).await;
            if changes.load(Ordering::Acquire) == change {
                quota.per_ip_overrides.extend(resolved);
                limits.allow(quota);
            }
        });
    }
}

/// The connection quota that the settings and the limit of open files allow, with overrides per address. If the limit
/// is lower than the settings, an address without an override still gets at most four fifths of it.
pub(super) fn connection_quota(
    config: &BrokerConfig,
    most_connections: usize,
    overrides: impl Iterator<Item = (IpAddr, i32)>,
) -> ConnectionQuota {
    let count = |count: i32| count.max(0) as usize;
    let (total, per_ip) = (count(config.max_connections), count(config.max_connections_per_ip));
    let most_per_ip = if most_connections < total { most_connections - most_connections / 5 } else { usize::MAX };
    ConnectionQuota {
        total: total.min(most_connections),
        per_ip: per_ip.min(most_per_ip),
        per_ip_overrides: overrides.map(|(address, most)| (address.to_canonical(), count(most))).collect(),
    }
}

fn resolve_all(net: &dyn Net, names: Vec<(String, i32)>) -> Vec<(IpAddr, usize)> {
    let mut resolved = Vec::new();
    for (host, most) in names {
        match net.resolve(&host, 0) {
            Ok(addresses) => {
                resolved.extend(addresses.iter().map(|address| (address.ip().to_canonical(), most.max(0) as usize)))
            }
            Err(error) => {
                tracing::warn!(%host, %error, "cannot resolve a host of max.connections.per.ip.overrides, its override is ignored")
            }
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_min_insync_replicas_of_the_node_without_effect_is_told() {
        let statics = StaticConfigs::of([("min.insync.replicas", "2")]);
        let cluster = |value: &str| Configs::from([("min.insync.replicas".to_owned(), value.to_owned())]);
        assert_eq!(hidden_min_isr(&statics, Some(&cluster("1"))), Some(("2", "1")));
        assert_eq!(hidden_min_isr(&statics, Some(&cluster("2"))), None);
        assert_eq!(hidden_min_isr(&statics, None), None, "ELR is not enabled");
        assert_eq!(hidden_min_isr(&StaticConfigs::of([]), Some(&cluster("1"))), None);
    }
}
