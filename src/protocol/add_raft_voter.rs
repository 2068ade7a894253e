//! AddRaftVoter (key 80), versions 0–1. It has its own codec, since `kafka-protocol` ends at version 0.
//!
//! Owns the form on the wire. Leaves the meaning to `api/add_raft_voter.rs`.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{
    part::Part,
    wire::{DecodeError, Reader, Writer},
};

/// A request to make a controller a voter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddRaftVoterRequest {
    pub cluster_id: Option<StrBytes>,
    pub timeout_ms: i32,
    pub voter_id: i32,
    pub voter_directory_id: Uuid,
    pub listeners: Vec<AddRaftVoterListener>,
    /// Version 1 (KIP-1186): false if the response is wanted when the change is in the leader's log.
    pub ack_when_committed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddRaftVoterListener {
    pub name: StrBytes,
    pub host: StrBytes,
    pub port: u16,
}

impl AddRaftVoterRequest {
    /// Decodes a request's body.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a valid request. The memory used is proportional to their number.
    pub fn decode(version: i16, body: Bytes) -> Result<Self, DecodeError> {
        Reader::message(body, version, 0..=1, 0, |r| {
            Ok(Self {
                cluster_id: r.nullable_string()?,
                timeout_ms: r.i32()?,
                voter_id: r.i32()?,
                voter_directory_id: r.uuid()?,
                listeners: r.array(5, |r| {
                    r.structure(|r| {
                        let (name, host) = (r.string()?, r.string()?);
                        Ok(AddRaftVoterListener { name, host, port: r.i16()?.cast_unsigned() })
                    })
                })?,
                ack_when_committed: if version >= 1 { r.bool()? } else { true },
            })
        })
    }
}

/// The response, which is the same in both versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddRaftVoterResponse {
    pub throttle_time_ms: i32,
    pub error_code: i16,
    pub error_message: Option<StrBytes>,
}

impl AddRaftVoterResponse {
    /// Encodes the response body as the parts that the connection sends.
    pub fn into_parts(self, _version: i16) -> Vec<Part> {
        let mut writer = Writer::new(true, 64);
        writer.i32(self.throttle_time_ms);
        writer.i16(self.error_code);
        writer.nullable_string(self.error_message.as_deref());
        writer.no_tags();
        vec![Part::Bytes(writer.into_bytes())]
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{self, add_raft_voter_request::Listener};

    use super::*;
    use crate::protocol::testing::oracle_encode;

    #[test]
    fn both_versions_are_as_the_oracle_writes_them_and_version_1_ends_with_the_kind_of_acknowledgement() {
        let listener = Listener::default()
            .with_name(StrBytes::from_static_str("CONTROLLER"))
            .with_host(StrBytes::from_static_str("node-2"))
            .with_port(0xF00D);
        for cluster_id in [None, Some(StrBytes::from_static_str("cluster"))] {
            let oracle = messages::AddRaftVoterRequest::default()
                .with_cluster_id(cluster_id.clone())
                .with_timeout_ms(7)
                .with_voter_id(2)
                .with_voter_directory_id(Uuid::from_u128(9))
                .with_listeners(vec![listener.clone()]);
            let bytes = oracle_encode(&oracle, 0);
            let expected = |ack_when_committed| AddRaftVoterRequest {
                cluster_id: cluster_id.clone(),
                timeout_ms: 7,
                voter_id: 2,
                voter_directory_id: Uuid::from_u128(9),
                listeners: vec![AddRaftVoterListener {
                    name: listener.name.clone(),
                    host: listener.host.clone(),
                    port: 0xF00D,
                }],
                ack_when_committed,
            };
            assert_eq!(AddRaftVoterRequest::decode(0, bytes.clone()), Ok(expected(true)));
            for ack_when_committed in [false, true] {
                // The new field is before the tagged fields.
                let mut newer = bytes[..bytes.len() - 1].to_vec();
                newer.extend([u8::from(ack_when_committed), 0]);
                let newer = Bytes::from(newer);
                assert_eq!(AddRaftVoterRequest::decode(1, newer.clone()), Ok(expected(ack_when_committed)));
                for cut in 0..newer.len() {
                    assert!(AddRaftVoterRequest::decode(1, newer.slice(..cut)).is_err());
                }
            }
            assert_eq!(AddRaftVoterRequest::decode(2, bytes), Err(DecodeError::Version(2)));
        }
        for error_message in [None, Some(StrBytes::from_static_str("why"))] {
            let oracle = messages::AddRaftVoterResponse::default()
                .with_throttle_time_ms(3)
                .with_error_code(126)
                .with_error_message(error_message.clone());
            let response = AddRaftVoterResponse { throttle_time_ms: 3, error_code: 126, error_message };
            for version in [0, 1] {
                let parts = response.clone().into_parts(version);
                assert!(matches!(&parts[..], [Part::Bytes(bytes)] if *bytes == oracle_encode(&oracle, 0)));
            }
        }
    }
}
