//! Owns the table of APIs: one row per Kafka API key, one file per row.
//!
//! A row lists the supported versions and listeners, the operations that may need authorization, whether the broker or
//! the controller decides, and the handler function. The table is the source of the ApiVersions response, the dispatch
//! of requests, docs/generated/apis.md, and the test that every row has its file.
//!
//! Leaves the decoding of requests to `dispatch.rs`, and the polling of their futures to `network/connection.rs`.

use bytes::Bytes;

use super::{
    RequestContext,
    authorized::{Operation, ResourceKind},
    dispatch::{Handler, answer},
    *,
};
use crate::protocol::quorum_messages::{QUORUM_MESSAGES, QUORUM_MESSAGES_VERSION};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    /// Kafka's API key.
    pub key: i16,
    /// Kafka's name of the API.
    pub name: &'static str,
    /// The supported versions and the advertised ones.
    pub versions: Versions,
    /// The listeners on which the API is served.
    pub listeners: Listeners,
    /// The operations that a request may need to be authorized for. Debug builds panic if a handler checks another one.
    pub needs: &'static [(Operation, ResourceKind)],
    /// Whether the broker or the controller decides.
    pub forward: Forward,
    /// Whether the next request may start before the response to this one.
    pub order: Order,
    /// Where the handler runs.
    pub cost: Cost,
    /// Whether the response has a throttle time.
    pub throttle: Throttle,
    /// Makes the future that handles a request.
    pub(crate) handle: fn(RequestContext, Bytes) -> Handler,
}

/// Versions of an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The lowest version that ApiVersions returns.
    pub advertised_min: i16,
    /// The lowest supported version; a lower one closes the connection.
    pub min: i16,
    /// The highest supported version.
    pub max: i16,
    /// The first flexible version (tagged fields, header version 2).
    pub flexible_from: i16,
}

impl Versions {
    const NEVER: i16 = i16::MAX;

    const fn served(min: i16, max: i16) -> Versions {
        Versions { advertised_min: min, min, max, flexible_from: Versions::NEVER }
    }

    const fn advertised_from(self, advertised_min: i16) -> Versions {
        Versions { advertised_min, ..self }
    }

    const fn flexible_from(self, flexible_from: i16) -> Versions {
        Versions { flexible_from, ..self }
    }

    /// Whether `version` is supported.
    pub fn contain(self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// Whether `version` is flexible.
    pub fn is_flexible(self, version: i16) -> bool {
        version >= self.flexible_from
    }
}

/// Kinds of listeners, as in the `listeners` of Kafka's message definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listeners {
    /// Only broker listeners.
    Brokers,
    /// Only controller listeners.
    Controllers,
    /// Broker and controller listeners.
    BrokersAndControllers,
}

impl Listeners {
    /// Whether listeners of this kind serve the API.
    pub fn contain(self, kind: ListenerKind) -> bool {
        match self {
            Listeners::Brokers => kind == ListenerKind::Broker,
            Listeners::Controllers => kind == ListenerKind::Controller,
            Listeners::BrokersAndControllers => true,
        }
    }
}

/// Whether the broker or the controller decides on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The broker that gets the request.
    No,
    /// The controller. A broker forwards the request to it.
    ToController,
    /// First the broker, which does its own part of it, and then the controller: the handler forwards the rest.
    AfterCheck,
}

/// Whether requests of one connection may overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The next request starts after the response to this one.
    Serial,
    /// The next request may start earlier, once the order of this one's effects is fixed (its batches are appended).
    Pipelined,
}

/// How much work a request may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// A small request takes microseconds and runs in the connection's task.
    Small,
    /// Even a small request may need much work, so it runs in a task of its own and does not delay others.
    Large,
    /// Like [`Cost::Small`], but the request may wait for other clients. It therefore takes no share of the memory for
    /// large work.
    Waits,
}

/// Whether the response has a throttle time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttle {
    /// The response has `throttle_time_ms`.
    InAnswer,
    /// The response has no such field.
    NotTold,
}

/// All rows, by key.
pub const APIS: &[Api] = &[
    Api {
        key: 0,
        name: "Produce",
        versions: Versions::served(3, 13).advertised_from(0).flexible_from(9),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Write, ResourceKind::Topic), (Operation::Write, ResourceKind::TransactionalId)],
        forward: Forward::No,
        order: Order::Pipelined,
        cost: Cost::Waits,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, produce::handle),
    },
    Api {
        key: 1,
        name: "Fetch",
        versions: Versions::served(4, 18).flexible_from(12),
        listeners: Listeners::BrokersAndControllers,
        needs: &[(Operation::Read, ResourceKind::Topic), (Operation::ClusterAction, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Waits,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, fetch::handle),
    },
    Api {
        key: 2,
        name: "ListOffsets",
        versions: Versions::served(1, 11).flexible_from(6),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Describe, ResourceKind::Topic)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Small,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, list_offsets::handle),
    },
    Api {
        key: 3,
        name: "Metadata",
        versions: Versions::served(0, 13).flexible_from(9),
        listeners: Listeners::Brokers,
        needs: &[
            (Operation::Describe, ResourceKind::Topic),
            (Operation::Create, ResourceKind::Topic),
            (Operation::Create, ResourceKind::Cluster),
            (Operation::Describe, ResourceKind::Cluster),
        ],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Small,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, metadata::handle),
    },
    Api {
        key: 8,
        name: "OffsetCommit",
        versions: Versions::served(2, 10).flexible_from(8),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Read, ResourceKind::Group), (Operation::Read, ResourceKind::Topic)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Small,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, offset_commit::handle),
    },
    Api {
        key: 9,
        name: "OffsetFetch",
        versions: Versions::served(1, 10).flexible_from(6),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Describe, ResourceKind::Group), (Operation::Describe, ResourceKind::Topic)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Small,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, offset_fetch::handle),
    },
    Api {
        key: 10,
        name: "FindCoordinator",
        versions: Versions::served(0, 6).flexible_from(3),
        listeners: Listeners::Brokers,
        needs: &[
            (Operation::Describe, ResourceKind::Group),
            (Operation::Describe, ResourceKind::TransactionalId),
            (Operation::ClusterAction, ResourceKind::Cluster),
        ],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Small,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, find_coordinator::handle),
    },
    Api {
        key: 11,
        name: "JoinGroup",
        versions: Versions::served(0, 9).flexible_from(6),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Read, ResourceKind::Group)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Waits,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, join_group::handle),
    },
    Api {
        key: 12,
        name: "Heartbeat",
        versions: Versions::served(0, 4).flexible_from(4),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Read, ResourceKind::Group)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Small,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, heartbeat::handle),
    },
    Api {
        key: 13,
        name: "LeaveGroup",
        versions: Versions::served(0, 5).flexible_from(4),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Read, ResourceKind::Group)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Small,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, leave_group::handle),
    },
    Api {
        key: 14,
        name: "SyncGroup",
        versions: Versions::served(0, 5).flexible_from(4),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Read, ResourceKind::Group)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Waits,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, sync_group::handle),
    },
    Api {
        key: 15,
        name: "DescribeGroups",
        versions: Versions::served(0, 6).flexible_from(5),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Describe, ResourceKind::Group)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, describe_groups::handle),
    },
    Api {
        key: 16,
        name: "ListGroups",
        versions: Versions::served(0, 5).flexible_from(3),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Describe, ResourceKind::Cluster), (Operation::Describe, ResourceKind::Group)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, list_groups::handle),
    },
    Api {
        key: 17,
        name: "SaslHandshake",
        versions: Versions::served(0, 1),
        listeners: Listeners::BrokersAndControllers,
        needs: &[],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Small,
        throttle: Throttle::NotTold,
        handle: |ctx, body| answer(ctx, body, sasl_handshake::handle),
    },
    Api {
        key: 18,
        name: "ApiVersions",
        versions: Versions::served(0, 4).flexible_from(3),
        listeners: Listeners::BrokersAndControllers,
        needs: &[],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Small,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, api_versions::handle),
    },
    Api {
        key: 19,
        name: "CreateTopics",
        versions: Versions::served(2, 7).flexible_from(5),
        listeners: Listeners::BrokersAndControllers,
        needs: &[
            (Operation::Create, ResourceKind::Cluster),
            (Operation::Create, ResourceKind::Topic),
            (Operation::DescribeConfigs, ResourceKind::Topic),
        ],
        forward: Forward::ToController,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, create_topics::handle),
    },
    Api {
        key: 20,
        name: "DeleteTopics",
        versions: Versions::served(1, 6).flexible_from(4),
        listeners: Listeners::BrokersAndControllers,
        needs: &[(Operation::Delete, ResourceKind::Topic), (Operation::Describe, ResourceKind::Topic)],
        forward: Forward::ToController,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, delete_topics::handle),
    },
    Api {
        key: 21,
        name: "DeleteRecords",
        versions: Versions::served(0, 2).flexible_from(2),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Delete, ResourceKind::Topic)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, delete_records::handle),
    },
    Api {
        key: 22,
        name: "InitProducerId",
        versions: Versions::served(0, 5).flexible_from(2),
        listeners: Listeners::Brokers,
        needs: &[
            (Operation::Write, ResourceKind::TransactionalId),
            (Operation::IdempotentWrite, ResourceKind::Cluster),
            (Operation::Write, ResourceKind::Topic),
        ],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Small,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, init_producer_id::handle),
    },
    Api {
        key: 23,
        name: "OffsetForLeaderEpoch",
        versions: Versions::served(2, 4).flexible_from(4),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Describe, ResourceKind::Topic), (Operation::ClusterAction, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Small,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, offset_for_leader_epoch::handle),
    },
    Api {
        key: 29,
        name: "DescribeAcls",
        versions: Versions::served(1, 3).flexible_from(2),
        listeners: Listeners::BrokersAndControllers,
        needs: &[(Operation::Describe, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, describe_acls::handle),
    },
    Api {
        key: 30,
        name: "CreateAcls",
        versions: Versions::served(1, 3).flexible_from(2),
        listeners: Listeners::BrokersAndControllers,
        needs: &[(Operation::Alter, ResourceKind::Cluster)],
        forward: Forward::ToController,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, create_acls::handle),
    },
    Api {
        key: 31,
        name: "DeleteAcls",
        versions: Versions::served(1, 3).flexible_from(2),
        listeners: Listeners::BrokersAndControllers,
        needs: &[(Operation::Alter, ResourceKind::Cluster)],
        forward: Forward::ToController,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, delete_acls::handle),
    },
    Api {
        key: 32,
        name: "DescribeConfigs",
        versions: Versions::served(1, 4).flexible_from(4),
        listeners: Listeners::BrokersAndControllers,
        needs: &[
            (Operation::DescribeConfigs, ResourceKind::Cluster),
            (Operation::DescribeConfigs, ResourceKind::Topic),
            (Operation::DescribeConfigs, ResourceKind::Group),
        ],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, describe_configs::handle),
    },
    Api {
        key: 33,
        name: "AlterConfigs",
        versions: Versions::served(0, 2).flexible_from(2),
        listeners: Listeners::BrokersAndControllers,
        needs: &[
            (Operation::AlterConfigs, ResourceKind::Cluster),
            (Operation::AlterConfigs, ResourceKind::Topic),
            (Operation::AlterConfigs, ResourceKind::Group),
        ],
        forward: Forward::AfterCheck,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, alter_configs::handle),
    },
    Api {
        key: 34,
        name: "AlterReplicaLogDirs",
        versions: Versions::served(1, 2).flexible_from(2),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Alter, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, alter_replica_log_dirs::handle),
    },
    Api {
        key: 35,
        name: "DescribeLogDirs",
        versions: Versions::served(1, 5).flexible_from(2),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Describe, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, describe_log_dirs::handle),
    },
    Api {
        key: 37,
        name: "CreatePartitions",
        versions: Versions::served(0, 3).flexible_from(2),
        listeners: Listeners::BrokersAndControllers,
        needs: &[(Operation::Alter, ResourceKind::Topic)],
        forward: Forward::ToController,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, create_partitions::handle),
    },
    Api {
        key: 42,
        name: "DeleteGroups",
        versions: Versions::served(0, 2).flexible_from(2),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Delete, ResourceKind::Group)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, delete_groups::handle),
    },
    Api {
        key: 43,
        name: "ElectLeaders",
        versions: Versions::served(0, 2).flexible_from(2),
        listeners: Listeners::BrokersAndControllers,
        needs: &[(Operation::Alter, ResourceKind::Cluster)],
        forward: Forward::ToController,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, elect_leaders::handle),
    },
    Api {
        key: 44,
        name: "IncrementalAlterConfigs",
        versions: Versions::served(0, 1).flexible_from(1),
        listeners: Listeners::BrokersAndControllers,
        needs: &[
            (Operation::AlterConfigs, ResourceKind::Cluster),
            (Operation::AlterConfigs, ResourceKind::Topic),
            (Operation::AlterConfigs, ResourceKind::Group),
        ],
        forward: Forward::AfterCheck,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, incremental_alter_configs::handle),
    },
    Api {
        key: 45,
        name: "AlterPartitionReassignments",
        versions: Versions::served(0, 1).flexible_from(0),
        listeners: Listeners::BrokersAndControllers,
        needs: &[(Operation::Alter, ResourceKind::Cluster)],
        forward: Forward::ToController,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, alter_partition_reassignments::handle),
    },
    Api {
        key: 46,
        name: "ListPartitionReassignments",
        versions: Versions::served(0, 0).flexible_from(0),
        listeners: Listeners::BrokersAndControllers,
        needs: &[(Operation::Describe, ResourceKind::Cluster)],
        forward: Forward::ToController,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, list_partition_reassignments::handle),
    },
    Api {
        key: 47,
        name: "OffsetDelete",
        versions: Versions::served(0, 0),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Delete, ResourceKind::Group), (Operation::Read, ResourceKind::Topic)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, offset_delete::handle),
    },
    Api {
        key: 48,
        name: "DescribeClientQuotas",
        versions: Versions::served(0, 1).flexible_from(1),
        listeners: Listeners::Brokers,
        needs: &[(Operation::DescribeConfigs, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, describe_client_quotas::handle),
    },
    Api {
        key: 49,
        name: "AlterClientQuotas",
        versions: Versions::served(0, 1).flexible_from(1),
        listeners: Listeners::BrokersAndControllers,
        needs: &[(Operation::AlterConfigs, ResourceKind::Cluster)],
        forward: Forward::ToController,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, alter_client_quotas::handle),
    },
    Api {
        key: 50,
        name: "DescribeUserScramCredentials",
        versions: Versions::served(0, 0).flexible_from(0),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Describe, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, describe_user_scram_credentials::handle),
    },
    Api {
        key: 55,
        name: "DescribeQuorum",
        versions: Versions::served(0, 2).flexible_from(0),
        listeners: Listeners::BrokersAndControllers,
        needs: &[(Operation::Describe, ResourceKind::Cluster)],
        forward: Forward::ToController,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::NotTold,
        handle: |ctx, body| answer(ctx, body, describe_quorum::handle),
    },
    Api {
        key: 56,
        name: "AlterPartition",
        versions: Versions::served(2, 3).flexible_from(0),
        listeners: Listeners::Controllers,
        needs: &[(Operation::ClusterAction, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Small,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, alter_partition::handle),
    },
    Api {
        key: 57,
        name: "UpdateFeatures",
        versions: Versions::served(0, 2).flexible_from(0),
        listeners: Listeners::BrokersAndControllers,
        needs: &[(Operation::Alter, ResourceKind::Cluster)],
        forward: Forward::ToController,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, update_features::handle),
    },
    Api {
        key: 59,
        name: "FetchSnapshot",
        versions: Versions::served(0, 1).flexible_from(0),
        listeners: Listeners::Controllers,
        needs: &[(Operation::ClusterAction, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Waits,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, fetch_snapshot::handle),
    },
    Api {
        key: 60,
        name: "DescribeCluster",
        versions: Versions::served(0, 2).flexible_from(0),
        listeners: Listeners::BrokersAndControllers,
        needs: &[(Operation::Describe, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, describe_cluster::handle),
    },
    Api {
        key: 61,
        name: "DescribeProducers",
        versions: Versions::served(0, 0).flexible_from(0),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Read, ResourceKind::Topic)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, describe_producers::handle),
    },
    Api {
        key: 62,
        name: "BrokerRegistration",
        versions: Versions::served(0, 4).flexible_from(0),
        listeners: Listeners::Controllers,
        needs: &[(Operation::ClusterAction, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Small,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, broker_registration::handle),
    },
    Api {
        key: 63,
        name: "BrokerHeartbeat",
        versions: Versions::served(0, 1).flexible_from(0),
        listeners: Listeners::Controllers,
        needs: &[(Operation::ClusterAction, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Small,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, broker_heartbeat::handle),
    },
    Api {
        key: 64,
        name: "UnregisterBroker",
        versions: Versions::served(0, 0).flexible_from(0),
        listeners: Listeners::BrokersAndControllers,
        needs: &[(Operation::Alter, ResourceKind::Cluster)],
        forward: Forward::ToController,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, unregister_broker::handle),
    },
    Api {
        key: 65,
        name: "DescribeTransactions",
        versions: Versions::served(0, 0).flexible_from(0),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Describe, ResourceKind::TransactionalId)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, describe_transactions::handle),
    },
    Api {
        key: 66,
        name: "ListTransactions",
        versions: Versions::served(0, 2).flexible_from(0),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Describe, ResourceKind::TransactionalId)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, list_transactions::handle),
    },
    Api {
        key: 67,
        name: "AllocateProducerIds",
        versions: Versions::served(0, 0).flexible_from(0),
        listeners: Listeners::Controllers,
        needs: &[(Operation::ClusterAction, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Small,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, allocate_producer_ids::handle),
    },
    Api {
        key: 73,
        name: "AssignReplicasToDirs",
        versions: Versions::served(0, 0).flexible_from(0),
        listeners: Listeners::Controllers,
        needs: &[(Operation::ClusterAction, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Small,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, assign_replicas_to_dirs::handle),
    },
    Api {
        key: 74,
        name: "ListConfigResources",
        versions: Versions::served(0, 1).flexible_from(0),
        listeners: Listeners::Brokers,
        needs: &[(Operation::DescribeConfigs, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, list_config_resources::handle),
    },
    Api {
        key: 75,
        name: "DescribeTopicPartitions",
        versions: Versions::served(0, 0).flexible_from(0),
        listeners: Listeners::Brokers,
        needs: &[(Operation::Describe, ResourceKind::Topic)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Large,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, describe_topic_partitions::handle),
    },
    Api {
        key: 80,
        name: "AddRaftVoter",
        versions: Versions::served(0, 1).flexible_from(0),
        listeners: Listeners::BrokersAndControllers,
        needs: &[(Operation::Alter, ResourceKind::Cluster)],
        forward: Forward::ToController,
        order: Order::Serial,
        cost: Cost::Waits,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, add_raft_voter::handle),
    },
    Api {
        key: 81,
        name: "RemoveRaftVoter",
        versions: Versions::served(0, 0).flexible_from(0),
        listeners: Listeners::BrokersAndControllers,
        needs: &[(Operation::Alter, ResourceKind::Cluster)],
        forward: Forward::ToController,
        order: Order::Serial,
        cost: Cost::Waits,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, remove_raft_voter::handle),
    },
    Api {
        key: 82,
        name: "UpdateRaftVoter",
        versions: Versions::served(0, 0).flexible_from(0),
        listeners: Listeners::Controllers,
        needs: &[(Operation::ClusterAction, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Waits,
        throttle: Throttle::InAnswer,
        handle: |ctx, body| answer(ctx, body, update_raft_voter::handle),
    },
    Api {
        key: QUORUM_MESSAGES,
        name: "QuorumMessages",
        versions: Versions::served(QUORUM_MESSAGES_VERSION, QUORUM_MESSAGES_VERSION),
        listeners: Listeners::Controllers,
        needs: &[(Operation::ClusterAction, ResourceKind::Cluster)],
        forward: Forward::No,
        order: Order::Serial,
        cost: Cost::Waits,
        throttle: Throttle::NotTold,
        handle: |ctx, body| answer(ctx, body, quorum_messages::handle),
    },
];

/// Returns the row of an API key, if the API is supported.
pub fn api(key: i16) -> Option<&'static Api> {
    APIS.binary_search_by_key(&key, |api| api.key).ok().map(|at| &APIS[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order_and_their_versions_make_sense() {
        assert!(APIS.is_sorted_by_key(|api| api.key));
        for api in APIS {
            let Versions { advertised_min, min, max, .. } = api.versions;
            assert!(0 <= advertised_min && advertised_min <= min && min <= max, "{}", api.name);
            assert_eq!(super::api(api.key).map(|found| found.name), Some(api.name));
        }
    }
}
