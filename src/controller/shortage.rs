//! What is still decided while the disk of the metadata log is full.
//!
//! The disk keeps some room for the metadata log (`raft::driver`). Here it is decided who may use it: whoever frees
//! space, since that is the way out, and whoever says what this broker cannot serve. All other requests are refused
//! until there is room.

use super::{
    Request,
    configs::{IncrementalAlterConfigs, LegacyAlterConfigs},
};
use crate::metadata::image::{ConfigResource, ConfigResourceType};

/// What a request may take of the room that is kept for the time in which the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// Nothing: it is refused.
    None,
    /// A part, since it can be repeated without end: the rest stays for deletions.
    Part,
    /// All.
    All,
}

impl Request {
    /// What the request may take of the reserve.
    pub fn reserve(&self) -> Reserve {
        match self {
            Request::DeleteTopics(_) => Reserve::All,
            Request::IncrementalAlterConfigs(IncrementalAlterConfigs { resources, .. }) => part_if(
                resources
                    .iter()
                    .all(|(resource, changes)| changes.iter().all(|(key, ..)| decides_on_space(resource, key))),
            ),
            Request::LegacyAlterConfigs(LegacyAlterConfigs { resources, .. }) => part_if(
                resources.iter().all(|(resource, configs)| configs.keys().all(|key| decides_on_space(resource, key))),
            ),
            // The broker itself asks these: which replicas it has, whether it is there.
            Request::RegisterBroker(_)
            | Request::BrokerHeartbeat(_)
            | Request::UnregisterBroker(_)
            | Request::AssignReplicasToDirs(_) => Reserve::Part,
            Request::CreateTopics(_)
            | Request::CreatePartitions(_)
            | Request::AlterClientQuotas(_)
            | Request::AllocateProducerIds(_)
            | Request::UpdateFeatures(_) => Reserve::None,
        }
    }
}

fn part_if(allowed: bool) -> Reserve {
    if allowed { Reserve::Part } else { Reserve::None }
}

/// Whether a setting says how much is kept of a log. Whether a change of it lowers that is not asked: the record is as
/// small.
fn decides_on_space(resource: &ConfigResource, key: &str) -> bool {
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
