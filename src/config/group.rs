//! The settings of groups (KIP-848, KIP-932, KIP-1071) and of client metrics (KIP-714). They are stored and described;
//! the features that use them are not supported yet.

use super::{
    broker::ANY_NAMES,
    table::{Effect, rows},
    value::Validator::*,
};

rows! {
    /// A group's settings, with the broker settings that give their defaults (`GroupConfig`).
    GROUP, "Group", Effect::None("only classic groups are served yet"), {
        ["consumer.session.timeout.ms"] Int = "45000",
            AtLeast(1), Medium, ClusterWide,
            "Session timeout of the members, in milliseconds.",
            synonyms ["group.consumer.session.timeout.ms" * 1];
        ["consumer.heartbeat.interval.ms"] Int = "5000",
            AtLeast(1), Medium, ClusterWide,
            "Heartbeat interval given to members, in milliseconds.",
            synonyms ["group.consumer.heartbeat.interval.ms" * 1];
        ["consumer.assignment.interval.ms"] Int = "1000",
            AtLeast(0), Medium, ClusterWide,
            "Shortest time between assignments, in milliseconds.",
            synonyms ["group.consumer.assignment.interval.ms" * 1];
        ["share.session.timeout.ms"] Int = "45000",
            AtLeast(1), Medium, ClusterWide,
            "Session timeout of the share group's members, in milliseconds.",
            synonyms ["group.share.session.timeout.ms" * 1];
        ["share.heartbeat.interval.ms"] Int = "5000",
            AtLeast(1), Medium, ClusterWide,
            "Heartbeat interval given to the share group's members, in milliseconds.",
            synonyms ["group.share.heartbeat.interval.ms" * 1];
        ["share.record.lock.duration.ms"] Int = "30000",
            AtLeast(1000), Medium, ClusterWide,
            "How long a delivered record stays locked, in milliseconds.",
            synonyms ["group.share.record.lock.duration.ms" * 1];
        ["share.delivery.count.limit"] Int = "5",
            AtLeast(2), Medium, ClusterWide,
            "Most deliveries of a record before it is archived.",
            synonyms ["group.share.delivery.count.limit" * 1];
        ["share.partition.max.record.locks"] Int = "2000",
            AtLeast(100), Medium, ClusterWide,
            "Records locked at a time in a partition.",
            synonyms ["group.share.partition.max.record.locks" * 1];
        ["share.auto.offset.reset"] String = "latest",
            ShareOffsetReset, Medium, ClusterWide,
            "Where a new share group starts.";
        ["share.isolation.level"] String = "read_uncommitted",
            OneOf(&["read_committed", "read_uncommitted"]), Medium, ClusterWide,
            "Whether a share group sees uncommitted records.";
        ["share.renew.acknowledge.enable"] Boolean = "true",
            Any, Medium, ClusterWide,
            "Whether a record's lock can be renewed.";
        ["share.assignment.interval.ms"] Int = "1000",
            AtLeast(0), Medium, ClusterWide,
            "Shortest time between assignments of the share group, in milliseconds.",
            synonyms ["group.share.assignment.interval.ms" * 1];
        ["streams.session.timeout.ms"] Int = "45000",
            AtLeast(1), Medium, ClusterWide,
            "Session timeout of the streams group's members, in milliseconds.",
            synonyms ["group.streams.session.timeout.ms" * 1];
        ["streams.heartbeat.interval.ms"] Int = "5000",
            AtLeast(1), Medium, ClusterWide,
            "Heartbeat interval given to the streams group's members, in milliseconds.",
            synonyms ["group.streams.heartbeat.interval.ms" * 1];
        ["streams.num.standby.replicas"] Int = "0",
            AtLeast(0), Medium, ClusterWide,
            "Standby replicas of the streams group's tasks.",
            synonyms ["group.streams.num.standby.replicas" * 1];
        ["streams.initial.rebalance.delay.ms"] Int = "3000",
            AtLeast(0), Medium, ClusterWide,
            "How long a new streams group waits for more members, in milliseconds.",
            synonyms ["group.streams.initial.rebalance.delay.ms" * 1];
        ["streams.assignment.interval.ms"] Int = "1000",
            AtLeast(0), Medium, ClusterWide,
            "Shortest time between assignments of the streams group, in milliseconds.",
            synonyms ["group.streams.assignment.interval.ms" * 1];
    }
}

rows! {
    /// The settings of a client metrics subscription (`ClientMetricsConfigs`).
    CLIENT_METRICS, "Client metrics", Effect::None("client telemetry is not served yet"), {
        ["metrics"] List = "",
            ANY_NAMES, Medium, ClusterWide,
            "Prefixes of the metrics asked for; * is all of them.";
        ["interval.ms"] Int = "300000",
            Any, Medium, ClusterWide,
            "How often clients push, in milliseconds.";
        ["match"] List = "",
            ANY_NAMES, Medium, ClusterWide,
            "Which clients push, as selector=pattern.";
    }
}
