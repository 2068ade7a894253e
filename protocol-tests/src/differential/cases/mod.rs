//! The cases, one file per family of APIs. A case shares its server with others, so it names its topics and groups
//! after itself (`case.named`). Cases that need other settings, or that request all topics or groups, have their own
//! setup.

use super::case::Case;

mod acls;
mod admin;
mod api_versions;
mod cluster;
mod configs;
mod connection;
mod fetch;
mod group_offsets;
mod groups;
mod limits;
mod metadata;
mod offsets;
mod partitions;
mod produce;
mod stopped_broker;
mod three_brokers;
mod timeouts;
mod transactions;

/// A server's settings for some of the cases.
#[derive(Debug)]
pub struct Setup {
    pub name: &'static str,
    /// Keys and values of server.properties; both servers get the same.
    pub properties: &'static [(&'static str, &'static str)],
    /// How many cases run at a time.
    pub at_a_time: usize,
    /// One broker that is alone, or a cluster of three.
    pub is_cluster: bool,
}

/// The server that most cases share. It has no retention by time, because the batches of the cases are old.
pub static SHARED: Setup = Setup {
    name: "shared",
    properties: &[
        ("log.retention.ms", "-1"),
        ("group.initial.rebalance.delay.ms", "0"),
        ("auto.create.topics.enable", "false"),
    ],
    at_a_time: 4,
    is_cluster: false,
};

/// For cases that request all topics or groups; they run one after the other.
pub static ALONE: Setup = Setup { name: "alone", properties: SHARED.properties, at_a_time: 1, is_cluster: false };

pub static AUTO_CREATE: Setup = Setup {
    name: "auto-create",
    properties: &[("log.retention.ms", "-1"), ("num.partitions", "3")],
    at_a_time: 4,
    is_cluster: false,
};

pub static DELAYED: Setup = Setup {
    name: "delayed",
    properties: &[("group.initial.rebalance.delay.ms", "800")],
    at_a_time: 4,
    is_cluster: false,
};

pub static LIMITS: Setup = Setup {
    name: "limits",
    properties: &[
        ("group.initial.rebalance.delay.ms", "0"),
        ("group.min.session.timeout.ms", "100"),
        ("group.max.session.timeout.ms", "20000"),
        ("group.max.size", "2"),
        ("socket.request.max.bytes", "100000"),
        ("fetch.max.bytes", "2048"),
        ("message.max.bytes", "3000"),
        ("max.incremental.fetch.session.cache.slots", "0"),
        ("max.request.partition.size.limit", "3"),
        ("delete.topic.enable", "false"),
        ("offset.metadata.max.bytes", "10"),
        ("num.partitions", "4"),
        ("log.message.timestamp.type", "LogAppendTime"),
        ("log.retention.hours", "5"),
        ("log.roll.hours", "6"),
        ("compression.type", "lz4"),
    ],
    at_a_time: 4,
    is_cluster: false,
};

/// For cases that change the cluster itself; they run one after the other: its features, its transaction coordinator,
/// and, in the last case, the registration of its broker.
pub static CHANGED: Setup = Setup {
    name: "changed",
    properties: &[("group.initial.rebalance.delay.ms", "0"), ("transaction.state.log.num.partitions", "1")],
    at_a_time: 1,
    is_cluster: false,
};

/// Three brokers, each of them a voter of the metadata quorum and in a rack of its own.
pub static THREE_BROKERS: Setup = Setup {
    name: "three-brokers",
    properties: &[
        ("log.retention.ms", "-1"),
        ("group.initial.rebalance.delay.ms", "0"),
        ("auto.create.topics.enable", "false"),
        // Leaders move only when a case asks for it.
        ("auto.leader.rebalance.enable", "false"),
        ("default.replication.factor", "3"),
        ("offsets.topic.replication.factor", "3"),
        ("offsets.topic.num.partitions", "3"),
    ],
    at_a_time: 1,
    is_cluster: true,
};

/// The same, for the case that stops a broker.
pub static STOPPED_BROKER: Setup =
    Setup { name: "stopped-broker", properties: THREE_BROKERS.properties, at_a_time: 1, is_cluster: true };

impl Setup {
    pub const ALL: &[&Setup] =
        &[&SHARED, &ALONE, &AUTO_CREATE, &DELAYED, &LIMITS, &CHANGED, &THREE_BROKERS, &STOPPED_BROKER];
}

pub struct Row {
    pub name: &'static str,
    pub setup: &'static Setup,
    pub run: fn(&mut Case),
}

const fn shared(name: &'static str, run: fn(&mut Case)) -> Row {
    Row { name, setup: &SHARED, run }
}

const fn alone(name: &'static str, run: fn(&mut Case)) -> Row {
    Row { name, setup: &ALONE, run }
}

const fn changed(name: &'static str, run: fn(&mut Case)) -> Row {
    Row { name, setup: &CHANGED, run }
}

const fn three_brokers(name: &'static str, run: fn(&mut Case)) -> Row {
    Row { name, setup: &THREE_BROKERS, run }
}

pub const CASES: &[&[Row]] = &[
    api_versions::CASES,
    connection::CASES,
    produce::CASES,
    fetch::CASES,
    offsets::CASES,
    metadata::CASES,
    groups::CASES,
    group_offsets::CASES,
    admin::CASES,
    configs::CASES,
    partitions::CASES,
    limits::CASES,
    timeouts::CASES,
    acls::CASES,
    transactions::CASES,
    cluster::CASES,
    three_brokers::CASES,
    stopped_broker::CASES,
];
