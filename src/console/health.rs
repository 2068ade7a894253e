//! The health of the broker: `failure` is for supervisors that restart it, `not_ready_reason` for load balancers that
//! send clients to it.

use crate::api::Parts;

/// No log directory can be read or written any more.
pub const ALL_DIRS_OFFLINE: &str = "all log directories are offline";
/// The directory that holds only the metadata log cannot be read or written any more.
pub const METADATA_DIR_OFFLINE: &str = "the directory of the metadata log is offline";
/// The thread of the metadata quorum has ended.
pub const QUORUM_FAILED: &str = "the metadata quorum has failed";
const STOPPING: &str = "the broker is stopping";
const NOT_REGISTERED: &str = "the metadata does not list this broker as active yet";

/// The state of a broker that its supervisor must know.
pub(super) struct Health {
    pub(super) is_stopping: bool,
    pub(super) all_dirs_offline: bool,
    pub(super) metadata_dir_offline: bool,
    pub(super) quorum_has_ended: bool,
    pub(super) is_registered: bool,
}

impl Health {
    pub(super) fn of(parts: &Parts) -> Health {
        let image = parts.metadata.image();
        Health {
            is_stopping: parts.network.is_stopping(),
            all_dirs_offline: parts.log_manager.is_offline(),
            metadata_dir_offline: parts.log_manager.has_metadata_dir_failed(),
            quorum_has_ended: parts.controller.is_stopped(),
            is_registered: image.brokers.get(&parts.config.node_id).is_some_and(|broker| !broker.fenced),
        }
    }

    /// Why a restart is needed. While the broker stops, the end of the quorum is normal and not a failure.
    pub(super) fn failure(&self) -> Option<&'static str> {
        match self {
            Health { all_dirs_offline: true, .. } => Some(ALL_DIRS_OFFLINE),
            Health { metadata_dir_offline: true, .. } => Some(METADATA_DIR_OFFLINE),
            Health { quorum_has_ended: true, is_stopping: false, .. } => Some(QUORUM_FAILED),
            _ => None,
        }
    }

    /// Why clients cannot be served.
    pub(super) fn not_ready_reason(&self) -> Option<&'static str> {
        match self {
            Health { is_stopping: true, .. } => Some(STOPPING),
            Health { is_registered: false, .. } => self.failure().or(Some(NOT_REGISTERED)),
            _ => self.failure(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: Health = Health {
        is_stopping: false,
        all_dirs_offline: false,
        metadata_dir_offline: false,
        quorum_has_ended: false,
        is_registered: true,
    };

    #[test]
    fn each_state_has_its_two_verdicts() {
        for (health, failure, not_ready_reason) in [
            (HEALTHY, None, None),
            (Health { is_stopping: true, ..HEALTHY }, None, Some(STOPPING)),
            (Health { is_stopping: true, quorum_has_ended: true, ..HEALTHY }, None, Some(STOPPING)),
            (Health { quorum_has_ended: true, ..HEALTHY }, Some(QUORUM_FAILED), Some(QUORUM_FAILED)),
            (Health { metadata_dir_offline: true, ..HEALTHY }, Some(METADATA_DIR_OFFLINE), Some(METADATA_DIR_OFFLINE)),
            (Health { all_dirs_offline: true, ..HEALTHY }, Some(ALL_DIRS_OFFLINE), Some(ALL_DIRS_OFFLINE)),
            (Health { is_registered: false, ..HEALTHY }, None, Some(NOT_REGISTERED)),
        ] {
            assert_eq!((health.failure(), health.not_ready_reason()), (failure, not_ready_reason));
        }
    }
}
