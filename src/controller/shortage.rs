//! The requests that are still allowed while the disk of the metadata log is full.
//!
//! Some disk space is reserved for the metadata log (`raft::driver`). Owns the rule which requests may use it: those
//! that free space, since only they end the shortage, and those by which a broker reports its state. All other requests
//! are refused until there is room.

use super::{
    Request,
    configs::{IncrementalAlterConfigs, LegacyAlterConfigs},
};
use crate::metadata::image::{ConfigResource, ConfigResourceType};

/// The part of the reserved disk space that a request may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// Nothing: the request is refused.
    None,
    /// A part of it, since such requests can be repeated without end. The rest stays reserved for deletions.
    Part,
    /// All of it.
    All,
}

impl Request {
    /// The part of the reserve that this request may use.
    pub fn reserve(&self) -> Reserve {
        match self {
            Request::DeleteTopics(_) => Reserve::All,
            Request::IncrementalAlterConfigs(IncrementalAlterConfigs { resources, .. }) => part_if(
                resources
                    .iter()
                    .all(|(resource, changes)| changes.iter().all(|(key, ..)| is_retention_setting(resource, key))),
            ),
            Request::LegacyAlterConfigs(LegacyAlterConfigs { resources, .. }) => part_if(
                resources
                    .iter()
                    .all(|(resource, configs)| configs.keys().all(|key| is_retention_setting(resource, key))),
            ),
            // The broker itself sends these to report its state and its replicas.
            Request::RegisterBroker(_)
            | Request::BrokerHeartbeat(_)
            | Request::UnregisterBroker(_)
            | Request::AssignReplicasToDirs(_)
            | Request::AlterPartition(_) => Reserve::Part,
            Request::CreateTopics(_)
            | Request::CreatePartitions(_)
            | Request::AlterClientQuotas(_)
            | Request::AllocateProducerIds(_)
            | Request::UpdateFeatures(_)
            | Request::ElectLeaders(_)
            | Request::RebalanceLeaders(_)
            | Request::ElectUncleanLeaders(_) => Reserve::None,
        }
    }
}

fn part_if(allowed: bool) -> Reserve {
    if allowed { Reserve::Part } else { Reserve::None }
}

/// Whether the setting limits the size of a log. It does not matter whether a change lowers or raises it: both records
/// are small.
fn is_retention_setting(resource: &ConfigResource, key: &str) -> bool {
    let key = match resource.resource_type {
        ConfigResourceType::Topic => key,
        ConfigResourceType::Broker => match key.strip_prefix("log.") {
            Some("segment.delete.delay.ms") => return true,
            Some(key) => key,
            None => return false,
        },
        _ => return false,
    };
    matches!(
        key,
        "retention.ms"
            | "retention.minutes"
            | "retention.hours"
            | "retention.bytes"
            | "file.delete.delay.ms"
            | "cleanup.policy"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{
        configs::AlterOp,
        topics::{CreateTopics, DeleteTopics},
    };

    fn reserve(resource: ConfigResource, keys: &[&str]) -> Reserve {
        let changes = keys.iter().map(|key| ((*key).to_owned(), AlterOp::Set, Some("1".to_owned()))).collect();
        let request = IncrementalAlterConfigs { resources: vec![(resource, changes)], validate_only: false };
        Request::from(request).reserve()
    }

    #[test]
    fn whatever_frees_space_is_decided_on_a_full_disk_and_nothing_that_takes_some() {
        assert_eq!(Request::from(DeleteTopics::default()).reserve(), Reserve::All);
        assert_eq!(Request::from(CreateTopics::default()).reserve(), Reserve::None);
        let topic = || ConfigResource::topic("t");
        assert_eq!(reserve(topic(), &["retention.ms", "retention.bytes"]), Reserve::Part);
        assert_eq!(reserve(topic(), &["retention.ms", "compression.type"]), Reserve::None);
        assert_eq!(reserve(ConfigResource::default_broker(), &["log.retention.ms"]), Reserve::Part);
        assert_eq!(reserve(ConfigResource::default_broker(), &["retention.ms", "num.io.threads"]), Reserve::None);
        let configs = [("cleanup.policy".to_owned(), "delete".to_owned())].into();
        let request = LegacyAlterConfigs { resources: vec![(topic(), configs)], validate_only: false };
        assert_eq!(Request::from(request).reserve(), Reserve::Part);
    }
}
