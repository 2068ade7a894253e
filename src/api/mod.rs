//! The table of APIs: one row per Kafka API key, one file per row.
//!
//! A row says which versions are served and which function answers. Derived from it: the
//! ApiVersions answer, the dispatch of requests, docs/generated/apis.md, and tests that every
//! row has its file and its answers encode at every version.
//!
//! What connections do with requests and answers is `network/connection.rs`.

mod context;
mod error_codes;
mod errors;
mod groups;
mod reply;
mod topics;

pub use context::{ConnectionInfo, Parts, RequestContext};
use errors::error_message;
pub(crate) use reply::{EncodeError, EncodedReply, IntoReply, MalformedRequest, Reply, RequestBody, ResponseBody};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    /// Kafka's number for it.
    pub key: i16,
    /// Kafka's name for it.
    pub name: &'static str,
    /// The lowest version that ApiVersions tells clients of.
    pub advertised_min: i16,
    /// The lowest version that is answered; below it the connection is closed.
    pub min: i16,
    /// The highest version.
    pub max: i16,
    /// Requests from this version on are of the flexible kind (tagged fields, header version 2).
    pub flexible_from: i16,
    /// Whether the connection may start the next request before this one is answered.
    pub pipelined: bool,
}

/// Writes the table and the dispatch over it. A row: key, name, versions (advertised from, answered
/// from, to), first flexible version, and the module whose `handle` answers.
macro_rules! apis {
    ($($key:literal $name:ident $advertised:literal | $min:literal..=$max:literal flexible $flexible:literal $module:ident $($pipelined:ident)?;)*) => {
        $(mod $module;)*

        /// All rows, by key.
        pub const APIS: &[Api] = &[$(Api {
            key: $key,
            name: stringify!($name),
            advertised_min: $advertised,
            min: $min,
            max: $max,
            flexible_from: $flexible,
            pipelined: apis!(@pipelined $($pipelined)?),
        }),*];

        /// Decodes the body, lets the API's handler answer, encodes the answer. The version must be
        /// one that the row serves. Handlers are boxed, except for the two that carry the data.
        pub(crate) async fn dispatch(ctx: &RequestContext, key: i16, body: bytes::Bytes) -> Result<EncodedReply, MalformedRequest> {
            match key {
                $($key => {
                    let request = RequestBody::decode_body(ctx.api_version, body)?;
                    let reply = Box::pin($module::handle(ctx, request)).await.into_reply();
                    Ok(reply.encode(ctx, key))
                })*
                _ => Err(MalformedRequest(format!("api key {key} is not served"))),
            }
        }
    };
    (@pipelined pipelined) => { true };
    (@pipelined) => { false };
}

apis! {
    0 Produce 0 | 3..=13 flexible 9 produce pipelined;
    1 Fetch 4 | 4..=18 flexible 12 fetch;
    2 ListOffsets 1 | 1..=11 flexible 6 list_offsets;
    3 Metadata 0 | 0..=13 flexible 9 metadata;
    8 OffsetCommit 2 | 2..=10 flexible 8 offset_commit;
    9 OffsetFetch 1 | 1..=10 flexible 6 offset_fetch;
    10 FindCoordinator 0 | 0..=6 flexible 3 find_coordinator;
    11 JoinGroup 0 | 0..=9 flexible 6 join_group;
    12 Heartbeat 0 | 0..=4 flexible 4 heartbeat;
    13 LeaveGroup 0 | 0..=5 flexible 4 leave_group;
    14 SyncGroup 0 | 0..=5 flexible 4 sync_group;
    15 DescribeGroups 0 | 0..=6 flexible 5 describe_groups;
    16 ListGroups 0 | 0..=5 flexible 3 list_groups;
    17 SaslHandshake 0 | 0..=1 flexible 99 sasl_handshake;
    18 ApiVersions 0 | 0..=4 flexible 3 api_versions;
    19 CreateTopics 2 | 2..=7 flexible 5 create_topics;
    20 DeleteTopics 1 | 1..=6 flexible 4 delete_topics;
    21 DeleteRecords 0 | 0..=2 flexible 2 delete_records;
    22 InitProducerId 0 | 0..=5 flexible 2 init_producer_id;
    23 OffsetForLeaderEpoch 2 | 2..=4 flexible 4 offset_for_leader_epoch;
    32 DescribeConfigs 1 | 1..=4 flexible 4 describe_configs;
    33 AlterConfigs 0 | 0..=2 flexible 2 alter_configs;
    34 AlterReplicaLogDirs 1 | 1..=2 flexible 2 alter_replica_log_dirs;
    35 DescribeLogDirs 1 | 1..=5 flexible 2 describe_log_dirs;
    37 CreatePartitions 0 | 0..=3 flexible 2 create_partitions;
    42 DeleteGroups 0 | 0..=2 flexible 2 delete_groups;
    43 ElectLeaders 0 | 0..=2 flexible 2 elect_leaders;
    44 IncrementalAlterConfigs 0 | 0..=1 flexible 1 incremental_alter_configs;
    45 AlterPartitionReassignments 0 | 0..=1 flexible 0 alter_partition_reassignments;
    46 ListPartitionReassignments 0 | 0..=0 flexible 0 list_partition_reassignments;
    47 OffsetDelete 0 | 0..=0 flexible 99 offset_delete;
    48 DescribeClientQuotas 0 | 0..=1 flexible 1 describe_client_quotas;
    49 AlterClientQuotas 0 | 0..=1 flexible 1 alter_client_quotas;
    50 DescribeUserScramCredentials 0 | 0..=0 flexible 0 describe_user_scram_credentials;
    55 DescribeQuorum 0 | 0..=2 flexible 0 describe_quorum;
    60 DescribeCluster 0 | 0..=2 flexible 0 describe_cluster;
    61 DescribeProducers 0 | 0..=0 flexible 0 describe_producers;
    74 ListConfigResources 0 | 0..=1 flexible 0 list_config_resources;
    75 DescribeTopicPartitions 0 | 0..=0 flexible 0 describe_topic_partitions;
}

/// The row of a key, where it is served.
pub fn api(key: i16) -> Option<&'static Api> {
    APIS.binary_search_by_key(&key, |api| api.key).ok().map(|at| &APIS[at])
}

/// What a version that is not served is answered: nothing (the connection is closed), except that
/// ApiVersions tells in its oldest form which versions of itself there are (KIP-511).
pub(crate) fn answer_to_unserved_version(api: &Api) -> Option<Result<Vec<crate::protocol::part::Part>, EncodeError>> {
    (api.key == crate::protocol::header::API_VERSIONS).then(|| api_versions::unsupported_version(api).encode_body(0))
}
