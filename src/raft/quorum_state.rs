//! The `quorum-state` file: epoch, leader and vote, in Kafka's JSON (Apache: `FileQuorumStateStore`).
//!
//! The epoch is raft's term. raft's commit index is not stored: the node learns it again, and all records in the store
//! or a snapshot are known to be committed.

use std::{io, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    env::Disk,
    types::{BrokerId, LeaderEpoch, uuid_from_base64, uuid_to_base64},
};

pub const FILE_NAME: &str = "quorum-state";

/// The state that must survive a restart for elections to be safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ElectionState {
    pub epoch: LeaderEpoch,
    pub leader: Option<BrokerId>,
    pub vote: Option<(BrokerId, Uuid)>,
}

/// Kafka's data version 1. Version 0 (before KIP-853), which has no voted directory, is read too.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct QuorumStateData {
    leader_id: i32,
    leader_epoch: i32,
    voted_id: i32,
    #[serde(default)]
    voted_directory_id: Option<String>,
    #[serde(rename = "data_version")]
    data_version: i16,
}

/// The file of one node.
pub struct QuorumStateFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl QuorumStateFile {
    pub fn new(disk: Arc<dyn Disk>, metadata_log_dir: PathBuf) -> Self {
        QuorumStateFile { disk, path: metadata_log_dir.join(FILE_NAME) }
    }

    /// Reads the file; returns None if there is none yet.
    ///
    /// # Errors
    /// `InvalidData` if the file does not have this format.
    pub fn read(&self) -> io::Result<Option<ElectionState>> {
        if !self.disk.exists(&self.path) {
            return Ok(None);
        }
        let invalid =
            |reason: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {reason}", self.path.display()));
        let data: QuorumStateData =
            serde_json::from_slice(&self.disk.read(&self.path)?).map_err(|error| invalid(error.to_string()))?;
        if !(0..=1).contains(&data.data_version) {
            return Err(invalid(format!("data_version {} is not known", data.data_version)));
        }
        let directory = data
            .voted_directory_id
            .map(|id| uuid_from_base64(&id))
            .transpose()
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Some(ElectionState {
            epoch: data.leader_epoch,
            leader: (data.leader_id >= 0).then_some(data.leader_id),
            vote: (data.voted_id >= 0).then_some((data.voted_id, directory.unwrap_or_default())),
        }))
    }

    /// Replaces the file. With `durable` the file and its directory entry are synced when this returns.
    pub fn write(&self, state: &ElectionState, durable: bool) -> io::Result<()> {
        let data = QuorumStateData {
            leader_id: state.leader.unwrap_or(-1),
            leader_epoch: state.epoch,
            voted_id: state.vote.map_or(-1, |(id, _)| id),
            voted_directory_id: Some(uuid_to_base64(state.vote.map_or(Uuid::nil(), |(_, directory)| directory))),
            data_version: 1,
        };
        let content = serde_json::to_vec(&data)?;
        if durable {
            return self.disk.write_atomically(&self.path, &content);
        }
        let temporary = self.path.with_extension("tmp");
        let file = self.disk.open(&temporary, crate::env::Open::Create)?;
        file.set_len(0)?;
        file.write_all_at(&content, 0)?;
        self.disk.rename(&temporary, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SystemDisk;

    #[test]
    fn the_file_is_kafka_s() {
        let dir = tempfile::tempdir().unwrap();
        let file = QuorumStateFile::new(Arc::new(SystemDisk), dir.path().to_owned());
        assert_eq!(file.read().unwrap(), None);
        let state = ElectionState { epoch: 7, leader: Some(1), vote: Some((1, Uuid::from_u128(5))) };
        for durable in [true, false] {
            file.write(&state, durable).unwrap();
            assert_eq!(file.read().unwrap(), Some(state));
        }
        let text = std::fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        assert_eq!(
            text,
            r#"{"leaderId":1,"leaderEpoch":7,"votedId":1,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAABQ","data_version":1}"#
        );
        // As Apache Kafka writes version 0.
        let version_0 = r#"{"clusterId":"","leaderId":1,"leaderEpoch":2,"votedId":-1,"appliedOffset":0,"currentVoters":[],"data_version":0}"#;
        std::fs::write(dir.path().join(FILE_NAME), version_0).unwrap();
        assert_eq!(file.read().unwrap(), Some(ElectionState { epoch: 2, leader: Some(1), vote: None }));
        std::fs::write(dir.path().join(FILE_NAME), "{").unwrap();
        assert_eq!(file.read().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
