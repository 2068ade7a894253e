//! Kafka's metadata records, the content of the metadata log and its snapshots.
//!
//! Owns the record types of Kafka 4.3's `common/metadata/*.json`, their frame (unsigned varints: frame version 1, type,
//! version; then the flexible message) and the version in which each is written. Leaves the effect of a record to
//! `image.rs`. Kafka's `kafka-dump-log --cluster-metadata-decoder` can read these records.

use uuid::Uuid;

use super::wire::{Blob, Reader, RecordError, record_struct, write_unsigned_varint};

const FRAME_VERSION: u32 = 1;

/// `PartitionChangeRecord.leader`: the leader and its epoch do not change.
pub const NO_LEADER_CHANGE: i32 = -2;
/// A partition without leader (Apache: `LeaderConstants.NO_LEADER`).
pub const NO_LEADER: i32 = -1;

record_struct! { BrokerEndpoint { name: String; host: String; port: u16; security_protocol: i16; } }
record_struct! { BrokerFeature { name: String; min_supported_version: i16; max_supported_version: i16; } }
record_struct! { RegisterBrokerRecord {
    broker_id: i32; is_migrating_zk_broker: bool, since 2; incarnation_id: Uuid; broker_epoch: i64;
    end_points: Vec<BrokerEndpoint>; features: Vec<BrokerFeature>; rack: Option<String>; fenced: bool = true;
    in_controlled_shutdown: bool, since 1; log_dirs: Vec<Uuid>, since 3, tag 0;
    cordoned_log_dirs: Option<Vec<Uuid>>, since 4, tag 1;
} }
record_struct! { UnregisterBrokerRecord { broker_id: i32; broker_epoch: i64; } }
record_struct! { TopicRecord { name: String; topic_id: Uuid; } }
record_struct! { PartitionRecord {
    partition_id: i32 = -1; topic_id: Uuid; replicas: Vec<i32>; isr: Vec<i32>; removing_replicas: Vec<i32>;
    adding_replicas: Vec<i32>; leader: i32 = NO_LEADER; leader_recovery_state: i8, tag 0; leader_epoch: i32 = -1;
    partition_epoch: i32 = -1; directories: Vec<Uuid>, since 1;
    eligible_leader_replicas: Option<Vec<i32>>, since 2, tag 1; last_known_elr: Option<Vec<i32>>, since 2, tag 2;
} }
record_struct! { ConfigRecord { resource_type: i8; resource_name: String; name: String; value: Option<String>; } }
record_struct! { PartitionChangeRecord {
    partition_id: i32 = -1; topic_id: Uuid; isr: Option<Vec<i32>>, tag 0; leader: i32 = NO_LEADER_CHANGE, tag 1;
    replicas: Option<Vec<i32>>, tag 2; removing_replicas: Option<Vec<i32>>, tag 3; adding_replicas: Option<Vec<i32>>, tag 4;
    leader_recovery_state: i8 = -1, tag 5; directories: Option<Vec<Uuid>>, since 1, tag 8;
    eligible_leader_replicas: Option<Vec<i32>>, since 2, tag 6; last_known_elr: Option<Vec<i32>>, since 2, tag 7;
} }
record_struct! { FenceBrokerRecord { id: i32; epoch: i64; } }
record_struct! { UnfenceBrokerRecord { id: i32; epoch: i64; } }
record_struct! { RemoveTopicRecord { topic_id: Uuid; } }
record_struct! { DelegationTokenRecord {
    owner: String; requester: String; renewers: Vec<String>; issue_timestamp: i64; max_timestamp: i64;
    expiration_timestamp: i64; token_id: String;
} }
record_struct! { UserScramCredentialRecord {
    name: String; mechanism: i8; salt: Blob; stored_key: Blob; server_key: Blob; iterations: i32;
} }
record_struct! { FeatureLevelRecord { name: String; feature_level: i16; } }
record_struct! { QuotaEntityData { entity_type: String; entity_name: Option<String>; } }
record_struct! { ClientQuotaRecord { entity: Vec<QuotaEntityData>; key: String; value: f64; remove: bool; } }
record_struct! { ProducerIdsRecord { broker_id: i32; broker_epoch: i64 = -1; next_producer_id: i64; } }
record_struct! { BrokerRegistrationChangeRecord {
    broker_id: i32; broker_epoch: i64; fenced: i8, tag 0; in_controlled_shutdown: i8, since 1, tag 1;
    log_dirs: Vec<Uuid>, since 2, tag 2; cordoned_log_dirs: Option<Vec<Uuid>>, since 3, tag 3;
} }
record_struct! { AccessControlEntryRecord {
    id: Uuid; resource_type: i8; resource_name: String; pattern_type: i8; principal: String; host: String; operation: i8;
    permission_type: i8;
} }
record_struct! { RemoveAccessControlEntryRecord { id: Uuid; } }
record_struct! { NoOpRecord {} }
record_struct! { ZkMigrationStateRecord { zk_migration_state: i8; } }
record_struct! { RemoveUserScramCredentialRecord { name: String; mechanism: i8; } }
record_struct! { BeginTransactionRecord { name: Option<String>, tag 0; } }
record_struct! { EndTransactionRecord {} }
record_struct! { AbortTransactionRecord { reason: Option<String>, tag 0; } }
record_struct! { RemoveDelegationTokenRecord { token_id: String; } }
record_struct! { RegisterControllerRecord {
    controller_id: i32; incarnation_id: Uuid; zk_migration_ready: bool; end_points: Vec<BrokerEndpoint>;
    features: Vec<BrokerFeature>;
} }
record_struct! { ClearElrRecord { topic_name: String; } }

macro_rules! metadata_records {
    ($( $key:literal $variant:ident($record:ident) up_to $max:literal; )*) => {
        /// One metadata record.
        #[derive(Debug, Clone, PartialEq)]
        pub enum MetadataRecord { $( $variant($record), )* }

        impl MetadataRecord {
            /// Kafka's type number and name.
            pub fn type_and_name(&self) -> (u32, &'static str) {
                match self { $( MetadataRecord::$variant(_) => ($key, stringify!($record)), )* }
            }

            fn write_body(&self, out: &mut Vec<u8>, version: i16) {
                match self { $( MetadataRecord::$variant(record) => record.write_version(out, version), )* }
            }

            fn read_body(key: u32, version: u32, input: &mut Reader<'_>) -> Result<Self, RecordError> {
                match key {
                    $( $key => {
                        if version > $max {
                            return Err(RecordError::Version { name: stringify!($record), version });
                        }
                        Ok(MetadataRecord::$variant($record::read_version(input, version as i16)?))
                    } )*
                    unknown => Err(RecordError::UnknownType(unknown)),
                }
            }
        }

        $( impl From<$record> for MetadataRecord {
            fn from(record: $record) -> Self { MetadataRecord::$variant(record) }
        } )*
    };
}

metadata_records! {
    0 RegisterBroker(RegisterBrokerRecord) up_to 4;
    1 UnregisterBroker(UnregisterBrokerRecord) up_to 0;
    2 Topic(TopicRecord) up_to 0;
    3 Partition(PartitionRecord) up_to 2;
    4 Config(ConfigRecord) up_to 0;
    5 PartitionChange(PartitionChangeRecord) up_to 2;
    7 FenceBroker(FenceBrokerRecord) up_to 0;
    8 UnfenceBroker(UnfenceBrokerRecord) up_to 0;
    9 RemoveTopic(RemoveTopicRecord) up_to 0;
    10 DelegationToken(DelegationTokenRecord) up_to 0;
    11 UserScramCredential(UserScramCredentialRecord) up_to 0;
    12 FeatureLevel(FeatureLevelRecord) up_to 0;
    14 ClientQuota(ClientQuotaRecord) up_to 0;
    15 ProducerIds(ProducerIdsRecord) up_to 0;
    17 BrokerRegistrationChange(BrokerRegistrationChangeRecord) up_to 3;
    18 AccessControlEntry(AccessControlEntryRecord) up_to 0;
    19 RemoveAccessControlEntry(RemoveAccessControlEntryRecord) up_to 0;
    20 NoOp(NoOpRecord) up_to 0;
    21 ZkMigrationState(ZkMigrationStateRecord) up_to 0;
    22 RemoveUserScramCredential(RemoveUserScramCredentialRecord) up_to 0;
    23 BeginTransaction(BeginTransactionRecord) up_to 0;
    24 EndTransaction(EndTransactionRecord) up_to 0;
    25 AbortTransaction(AbortTransactionRecord) up_to 0;
    26 RemoveDelegationToken(RemoveDelegationTokenRecord) up_to 0;
    27 RegisterController(RegisterControllerRecord) up_to 0;
    28 ClearElr(ClearElrRecord) up_to 0;
}

impl MetadataRecord {
    /// The version that Kafka 4.3's controller writes at metadata.version 30.
    pub fn version(&self) -> i16 {
        match self {
            MetadataRecord::RegisterBroker(_) => 4,
            MetadataRecord::Partition(_) | MetadataRecord::PartitionChange(_) => 2,
            // Kafka writes the lowest version that has the fields that are set.
            MetadataRecord::BrokerRegistrationChange(record) if record.cordoned_log_dirs.is_some() => 3,
            MetadataRecord::BrokerRegistrationChange(record) if !record.log_dirs.is_empty() => 2,
            MetadataRecord::BrokerRegistrationChange(record) if record.in_controlled_shutdown != 0 => 1,
            _ => 0,
        }
    }

    /// Appends the framed record to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let version = self.version();
        write_unsigned_varint(FRAME_VERSION, out);
        write_unsigned_varint(self.type_and_name().0, out);
        write_unsigned_varint(version as u32, out);
        self.write_body(out, version);
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.encode(&mut out);
        out
    }

    /// Reads one framed record. No bytes may follow it.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut input = Reader::new(bytes);
        let frame_version = input.unsigned_varint()?;
        if frame_version != FRAME_VERSION {
            return Err(RecordError::FrameVersion(frame_version));
        }
        let key = input.unsigned_varint()?;
        let version = input.unsigned_varint()?;
        let record = MetadataRecord::read_body(key, version, &mut input)?;
        input.finish()?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(record: impl Into<MetadataRecord>) {
        let record = record.into();
        let bytes = record.to_bytes();
        assert_eq!(MetadataRecord::decode(&bytes), Ok(record), "{bytes:?}");
        for cut in 0..bytes.len() {
            assert!(MetadataRecord::decode(&bytes[..cut]).is_err(), "a record cut at {cut} must not decode");
        }
    }

    #[test]
    fn every_shape_of_field_survives_a_round_trip() {
        let id = Uuid::from_u128(7);
        round_trip(RegisterBrokerRecord {
            broker_id: 1,
            incarnation_id: id,
            broker_epoch: 9,
            end_points: vec![BrokerEndpoint {
                name: "PLAINTEXT".into(),
                host: "h".into(),
                port: 65000,
                security_protocol: 0,
            }],
            features: vec![BrokerFeature {
                name: "metadata.version".into(),
                min_supported_version: 7,
                max_supported_version: 30,
            }],
            rack: Some("r".into()),
            log_dirs: vec![id],
            cordoned_log_dirs: Some(vec![]),
            ..Default::default()
        });
        round_trip(PartitionRecord {
            partition_id: 0,
            topic_id: id,
            replicas: vec![1, 2],
            isr: vec![1],
            leader: 1,
            leader_epoch: 0,
            partition_epoch: 0,
            directories: vec![id, id],
            eligible_leader_replicas: Some(vec![2]),
            ..Default::default()
        });
        round_trip(PartitionChangeRecord {
            partition_id: 3,
            topic_id: id,
            leader: -1,
            isr: Some(vec![]),
            ..Default::default()
        });
        round_trip(ConfigRecord { resource_type: 2, resource_name: "t".into(), name: "k".into(), value: None });
        round_trip(ClientQuotaRecord {
            entity: vec![QuotaEntityData { entity_type: "user".into(), entity_name: None }],
            key: "producer_byte_rate".into(),
            value: 1.5,
            remove: false,
        });
        round_trip(BeginTransactionRecord { name: Some("Bootstrap records".into()) });
        round_trip(EndTransactionRecord {});
        round_trip(UserScramCredentialRecord { salt: Blob(vec![1, 2]), ..Default::default() });
    }

    #[test]
    fn the_bytes_are_those_of_kafka_s_serializer() {
        // org.apache.kafka.metadata.MetadataRecordSerde, 4.3.1.
        let record = MetadataRecord::from(TopicRecord { name: "foo".into(), topic_id: Uuid::from_u128(0x0102) });
        assert_eq!(record.to_bytes(), [&[1, 2, 0, 4, b'f', b'o', b'o'][..], &[0; 14], &[1, 2, 0]].concat());
        let record = MetadataRecord::from(FeatureLevelRecord { name: "metadata.version".into(), feature_level: 30 });
        assert_eq!(record.to_bytes(), [&[1, 12, 0, 17][..], b"metadata.version", &[0, 30, 0]].concat());
    }

    #[test]
    fn a_lying_count_is_an_error_and_not_an_allocation() {
        // A ConfigRecord whose name has a declared length of 2^28, and a PartitionRecord with that many replicas.
        assert!(MetadataRecord::decode(&[1, 4, 0, 2, 0xff, 0xff, 0xff, 0x7f]).is_err());
        let mut bytes = vec![1, 3, 0, 0, 0, 0, 0];
        bytes.extend([0; 16]);
        bytes.extend([0xff, 0xff, 0xff, 0x7f]);
        assert!(MetadataRecord::decode(&bytes).is_err());
    }

    #[test]
    fn unknown_types_versions_and_trailing_bytes_are_refused_and_unknown_tags_skipped() {
        assert_eq!(MetadataRecord::decode(&[1, 99, 0]), Err(RecordError::UnknownType(99)));
        assert!(matches!(MetadataRecord::decode(&[1, 20, 1, 0]), Err(RecordError::Version { version: 1, .. })));
        assert_eq!(MetadataRecord::decode(&[2, 20, 0, 0]), Err(RecordError::FrameVersion(2)));
        assert_eq!(MetadataRecord::decode(&[1, 20, 0, 0, 0]), Err(RecordError::TrailingBytes(1)));
        assert_eq!(MetadataRecord::decode(&[1, 20, 0, 1, 77, 2, 5, 5]), Ok(MetadataRecord::NoOp(NoOpRecord {})));
    }
}
