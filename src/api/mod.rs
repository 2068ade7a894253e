//! Owns the APIs: their table (`table.rs`), the context of a request (`context.rs`), and one file for each row.
//!
//! Leaves the reading of requests and the writing of responses to `network/connection.rs`.

mod acls;
mod answer_bounds;
mod answers;
mod authorized;
mod broker_loggers;
mod context;
mod dispatch;
mod errors;
mod groups;
mod reply;
mod table;
mod topics;

mod allocate_producer_ids;
mod alter_client_quotas;
mod alter_configs;
mod alter_partition;
mod alter_partition_reassignments;
mod alter_replica_log_dirs;
mod api_versions;
mod assign_replicas_to_dirs;
mod broker_heartbeat;
mod broker_registration;
mod create_acls;
mod create_partitions;
mod create_topics;
mod delete_acls;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_acls;
mod describe_client_quotas;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod describe_transactions;
mod describe_user_scram_credentials;
mod elect_leaders;
mod fetch;
mod fetch_snapshot;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leader_hints;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod quorum_messages;
mod sasl_handshake;
mod sync_group;
mod unregister_broker;
mod update_features;

pub use context::{ConnectionInfo, ListenerKind, Parts, RequestContext};
pub(crate) use dispatch::{Handler, start, unsupported_version_response};
use errors::error_message;
pub(crate) use reply::{EncodeError, Encoded, MalformedRequest, Refused, RequestBody, ResponseBody};
#[cfg(test)]
pub(crate) use table::Forward;
pub use table::{APIS, Api, Cost, Listeners, Order, api};
