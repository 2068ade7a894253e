//! The broker's settings that Ottla uses: the fields of [`BrokerConfig`], and the broker-wide defaults of the topics'
//! settings. Leaves settings without effect to `accepted.rs`.
//!
//! To add a setting, add a row and use its field; `UPDATE=1 cargo test config` rewrites config.toml and the docs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{
    table::{Effect, rows, settings},
    value::Validator::{self, *},
};

/// A list of names without duplicates; it may be empty.
pub(super) const ANY_NAMES: Validator = Distinct { allowed: &[], may_be_empty: true };
/// At least one name, without duplicates.
pub(super) const SOME_NAMES: Validator = Distinct { allowed: &[], may_be_empty: false };
/// Cleanup policies. An empty list keeps all segments (KIP-1161).
pub(super) const POLICIES: Validator = Distinct { allowed: &["compact", "delete"], may_be_empty: true };

settings! {
    /// The broker's settings, resolved over all sources. The fields have the names of Kafka's settings, with
    /// underscores for dots.
    #[derive(Clone, Debug, PartialEq)]
    pub struct BrokerConfig, rows FIELDS {
        section "Identity" {
            ["node.id"] node_id: i32 = "1",
                AtLeast(0), High, ReadOnly,
                "Identifier of this node in its cluster; the same value as broker.id.",
                deviation "Kafka has no default; a single node starts without any setting.";
            ["process.roles"] process_roles: Vec<String> = "broker,controller",
                Distinct { allowed: &["broker", "controller"], may_be_empty: false }, High, ReadOnly,
                "Roles of this node: broker, controller or both.",
                deviation "Kafka has no default; one node is broker and controller at once.";
            ["broker.rack"] broker_rack: Option<String> = null,
                Any, Medium, ReadOnly,
                "Rack of this broker; clients get it for rack-aware decisions.";
            ["log.dir"] log_dir: Vec<String> = "./data",
                SOME_NAMES, High, ReadOnly,
                "Directory of the logs where log.dirs is not set.",
                deviation "Kafka's default is under /tmp, which a reboot may empty.";
            ["log.dirs"] log_dirs: Option<Vec<String>> = null,
                SOME_NAMES, High, ReadOnly,
                "Directories of the logs, separated by commas; takes precedence over log.dir.";
            ["metadata.log.dir"] metadata_log_dir: Option<String> = null,
                Any, High, ReadOnly,
                "Directory of the metadata log; the first of log.dirs where not set.";
        }
        section "Listeners" {
            ["listeners"] listeners: Vec<String> = "PLAINTEXT://127.0.0.1:9092",
                SOME_NAMES, High, PerBroker,
                "Addresses to listen on, as NAME://host:port; an empty host is every interface, port 0 picks a free port.",
                deviation "Kafka listens on every interface; without authentication the loopback interface is the safe start.";
            ["advertised.listeners"] advertised_listeners: Option<Vec<String>> = null,
                SOME_NAMES, High, ReadOnly,
                "Addresses that clients and other brokers get; if not set, the hosts of listeners, and the address that a client connected to if a node that is alone listens on every interface.";
            ["listener.security.protocol.map"] listener_security_protocol_map: String = "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT",
                Any, Low, PerBroker,
                "Security protocol of each listener name.";
            ["inter.broker.listener.name"] inter_broker_listener_name: Option<String> = null,
                Any, Medium, ReadOnly,
                "Listener that brokers use among themselves.";
            ["security.inter.broker.protocol"] security_inter_broker_protocol: String = "PLAINTEXT",
                OneOf(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]), Medium, ReadOnly,
                "Security protocol among brokers where inter.broker.listener.name is not set.";
            ["controller.listener.names"] controller_listener_names: Vec<String> = "CONTROLLER",
                SOME_NAMES, High, ReadOnly,
                "Listeners of the controller; clients never get them.",
                deviation "Kafka has no default; one node needs no controller listener.";
            ["controller.quorum.voters"] controller_quorum_voters: Vec<String> = "",
                Any, High, ReadOnly,
                "The metadata quorum's voters as id@host:port.";
            ["controller.quorum.bootstrap.servers"] controller_quorum_bootstrap_servers: Vec<String> = "",
                Any, High, ReadOnly,
                "Addresses to find the metadata quorum at.";
            ["controller.quorum.auto.join.enable"] controller_quorum_auto_join_enable: bool = "false",
                Any, Low, ReadOnly,
                "A controller adds itself to the voters.";
        }
        section "Bounds" {
            ["socket.request.max.bytes"] socket_request_max_bytes: i32 = "104857600",
                AtLeast(1), High, ReadOnly,
                "Largest request accepted, in bytes; a larger one closes its connection.";
            ["queued.max.request.bytes"] queued_max_request_bytes: i64 = "268435456",
                Any, Medium, ReadOnly,
                "Largest total size of requests in memory, in bytes; the broker stops reading above it, -1 is no limit.",
                deviation "Kafka's default is no bound; memory held for requests is finite here.";
            ["max.connections"] max_connections: i32 = "10000",
                AtLeast(0), Medium, ClusterWide,
                "Connections open at a time.",
                deviation "Kafka's default is no bound; connections are finite here.";
            ["max.connections.per.ip"] max_connections_per_ip: i32 = "8000",
                AtLeast(0), Medium, ClusterWide,
                "Connections open at a time from one address.",
                deviation "Kafka's default is no bound; one address cannot take every connection here.";
            ["max.connections.per.ip.overrides"] max_connections_per_ip_overrides: String = "",
                Any, Medium, ClusterWide,
                "Exceptions to max.connections.per.ip, as host:count separated by commas.";
            ["connections.max.idle.ms"] connections_max_idle_ms: i64 = "600000",
                Any, Medium, ReadOnly,
                "A connection without traffic for this long is closed, in milliseconds.";
            ["max.request.partition.size.limit"] max_request_partition_size_limit: i32 = "2000",
                AtLeast(1), Medium, ReadOnly,
                "Most partitions in one DescribeTopicPartitions answer.";
            ["fetch.max.bytes"] fetch_max_bytes: i32 = "57671680",
                AtLeast(1024), Medium, ReadOnly,
                "Most bytes of records in one Fetch response; the first batch is returned even if it is larger.";
            ["max.incremental.fetch.session.cache.slots"] max_incremental_fetch_session_cache_slots: i32 = "1000",
                AtLeast(0), Medium, ReadOnly,
                "Incremental fetch sessions kept at a time.";
        }
        section "Topics" {
            ["auto.create.topics.enable"] auto_create_topics_enable: bool = "true",
                Any, High, ReadOnly,
                "A topic asked for by a client that allows it is created.";
            ["delete.topic.enable"] delete_topic_enable: bool = "true",
                Any, High, ReadOnly,
                "Topics can be deleted.";
            ["num.partitions"] num_partitions: i32 = "1",
                AtLeast(1), Medium, ReadOnly,
                "Partitions of a topic created without a number.";
            ["default.replication.factor"] default_replication_factor: i32 = "1",
                Any, Medium, ReadOnly,
                "Replicas of a topic created without a number.";
        }
        section "Log" {
            ["log.flush.offset.checkpoint.interval.ms"] log_flush_offset_checkpoint_interval_ms: i32 = "60000",
                AtLeast(0), High, ReadOnly,
                "How often the recovery points are written, in milliseconds.";
            ["log.flush.start.offset.checkpoint.interval.ms"] log_flush_start_offset_checkpoint_interval_ms: i32 = "60000",
                AtLeast(0), High, ReadOnly,
                "How often the log start offsets are written, in milliseconds.";
            ["log.cleaner.enable"] log_cleaner_enable: bool = "true",
                Any, Medium, ReadOnly,
                "Compacted topics are compacted.";
            ["log.cleaner.threads"] log_cleaner_threads: i32 = "1",
                AtLeast(0), Medium, ClusterWide,
                "Logs that are compacted at the same time.";
            ["log.cleaner.backoff.ms"] log_cleaner_backoff_ms: i64 = "15000",
                AtLeast(0), Medium, ClusterWide,
                "How long the cleaner sleeps without work, in milliseconds.";
            ["log.cleaner.dedupe.buffer.size"] log_cleaner_dedupe_buffer_size: i64 = "134217728",
                Any, Medium, ClusterWide,
                "Most memory for the keys of the logs that are compacted, in bytes over all threads; taken only as far as there are keys.";
            ["log.cleaner.io.buffer.load.factor"] log_cleaner_io_buffer_load_factor: f64 = "0.9",
                Any, Medium, ClusterWide,
                "How full the memory for keys may get.";
            ["log.cleaner.io.buffer.size"] log_cleaner_io_buffer_size: i32 = "524288",
                AtLeast(0), Medium, ClusterWide,
                "Bytes that the cleaner reads before it checks its rate, over all threads.";
            ["log.cleaner.io.max.bytes.per.second"] log_cleaner_io_max_bytes_per_second: f64 = "1.7976931348623157E308",
                Any, Medium, ClusterWide,
                "Most bytes the cleaner reads and writes each second.";
            ["log.retention.check.interval.ms"] log_retention_check_interval_ms: i64 = "300000",
                AtLeast(1), Medium, ReadOnly,
                "How often the broker checks logs for segments to delete, in milliseconds.";
            ["num.recovery.threads.per.data.dir"] num_recovery_threads_per_data_dir: i32 = "2",
                AtLeast(1), High, ClusterWide,
                "Logs recovered at the same time in each data directory at start.";
            ["replica.high.watermark.checkpoint.interval.ms"] replica_high_watermark_checkpoint_interval_ms: i64 = "5000",
                Any, High, ReadOnly,
                "How often the high watermarks are written, in milliseconds.";
            ["producer.id.expiration.ms"] producer_id_expiration_ms: i32 = "86400000",
                AtLeast(1), Low, ClusterWide,
                "An idempotent producer's state is dropped after this long without a write, in milliseconds.";
            ["producer.id.expiration.check.interval.ms"] producer_id_expiration_check_interval_ms: i32 = "600000",
                AtLeast(1), Low, ReadOnly internal,
                "How often producers are looked at for expiry, in milliseconds.";
        }
        section "Replication" {
            ["auto.leader.rebalance.enable"] auto_leader_rebalance_enable: bool = "true",
                Any, High, ReadOnly,
                "Leaders move back to their preferred replica.";
            ["leader.imbalance.check.interval.seconds"] leader_imbalance_check_interval_seconds: i64 = "300",
                AtLeast(1), High, ReadOnly,
                "How often the controller checks whether leaders must be rebalanced, in seconds.";
            ["unclean.leader.election.interval.ms"] unclean_leader_election_interval_ms: i64 = "300000",
                AtLeast(1), Medium, ReadOnly internal,
                "How often the controller looks for partitions without leader whose topic allows an unclean election, in milliseconds.";
            ["num.replica.fetchers"] num_replica_fetchers: i32 = "1",
                AtLeast(1), High, ClusterWide,
                "Fetchers of each source broker.";
            ["replica.fetch.backoff.ms"] replica_fetch_backoff_ms: i32 = "1000",
                AtLeast(0), Medium, ReadOnly,
                "Wait after a failed replica fetch, in milliseconds.";
            ["replica.fetch.max.bytes"] replica_fetch_max_bytes: i32 = "1048576",
                AtLeast(0), Medium, ReadOnly,
                "Bytes fetched for each partition by a replica.";
            ["replica.fetch.min.bytes"] replica_fetch_min_bytes: i32 = "1",
                Any, High, ReadOnly,
                "Fewest bytes a replica fetch waits for.";
            ["replica.fetch.response.max.bytes"] replica_fetch_response_max_bytes: i32 = "10485760",
                AtLeast(0), Medium, ReadOnly,
                "Most bytes of a replica fetch.";
            ["replica.fetch.wait.max.ms"] replica_fetch_wait_max_ms: i32 = "500",
                Any, High, ReadOnly,
                "Longest wait of a replica fetch, in milliseconds.";
            ["replica.lag.time.max.ms"] replica_lag_time_max_ms: i64 = "30000",
                Any, High, ReadOnly,
                "A follower behind for longer leaves the in-sync replicas, in milliseconds.";
            ["replica.socket.timeout.ms"] replica_socket_timeout_ms: i32 = "30000",
                Any, High, ReadOnly,
                "Socket timeout of replica fetches, in milliseconds.";
        }
        section "Groups" {
            ["group.initial.rebalance.delay.ms"] group_initial_rebalance_delay_ms: i32 = "3000",
                Any, Medium, ReadOnly,
                "How long the first rebalance of an empty group waits for more members, in milliseconds.";
            ["group.min.session.timeout.ms"] group_min_session_timeout_ms: i32 = "6000",
                Any, Medium, ReadOnly,
                "Shortest session timeout a member may ask for, in milliseconds.";
            ["group.max.session.timeout.ms"] group_max_session_timeout_ms: i32 = "1800000",
                Any, Medium, ReadOnly,
                "Longest session timeout a member may ask for, in milliseconds.";
            ["group.max.size"] group_max_size: i32 = "2147483647",
                AtLeast(1), Medium, ReadOnly,
                "Most members of a classic group.";
            ["offset.metadata.max.bytes"] offset_metadata_max_bytes: i32 = "4096",
                Any, High, ReadOnly,
                "Longest metadata text of an offset commit, in bytes.";
            ["offsets.commit.timeout.ms"] offsets_commit_timeout_ms: i32 = "5000",
                AtLeast(1), High, ReadOnly,
                "An offset commit is refused when not replicated within this time, in milliseconds.";
            ["offsets.load.buffer.size"] offsets_load_buffer_size: i32 = "5242880",
                AtLeast(1), High, ReadOnly,
                "Bytes read at a time while offsets are loaded.";
            ["offsets.retention.check.interval.ms"] offsets_retention_check_interval_ms: i64 = "600000",
                AtLeast(1), High, ReadOnly,
                "How often the broker checks for expired offsets, in milliseconds.";
            ["offsets.retention.minutes"] offsets_retention_minutes: i32 = "10080",
                AtLeast(1), High, ReadOnly,
                "Offsets of a group without members are kept this long, in minutes.";
            ["offsets.topic.num.partitions"] offsets_topic_num_partitions: i32 = "50",
                AtLeast(1), High, ReadOnly,
                "Partitions of the offsets topic; fixed once the topic exists.";
            ["offsets.topic.replication.factor"] offsets_topic_replication_factor: i16 = "3",
                AtLeast(1), High, ReadOnly,
                "Replicas of the offsets topic; no more than there are brokers.";
            ["offsets.topic.segment.bytes"] offsets_topic_segment_bytes: i32 = "104857600",
                AtLeast(1), High, ReadOnly,
                "Segment size of the offsets topic, in bytes.";
        }
        section "Metadata" {
            ["broker.heartbeat.interval.ms"] broker_heartbeat_interval_ms: i32 = "2000",
                Any, Medium, ReadOnly,
                "How often a broker sends a heartbeat to the controller, in milliseconds.";
            ["broker.session.timeout.ms"] broker_session_timeout_ms: i32 = "9000",
                Any, Medium, ReadOnly,
                "A broker without heartbeat for this long is fenced, in milliseconds.";
            ["metadata.log.segment.bytes"] metadata_log_segment_bytes: i32 = "1073741824",
                AtLeast(8_388_608), High, ReadOnly,
                "Segment size of the metadata log, in bytes.";
            ["metadata.log.segment.ms"] metadata_log_segment_ms: i64 = "604800000",
                Any, High, ReadOnly,
                "The metadata log starts a new segment after this long, in milliseconds.";
            ["metadata.log.max.record.bytes.between.snapshots"] metadata_log_max_record_bytes_between_snapshots: i64 = "20971520",
                AtLeast(1), High, ReadOnly,
                "Metadata record bytes after which a snapshot is written.";
        }
        section "Ottla's own" {
            ["ottla.frame.deadline.ms"] ottla_frame_deadline_ms: i64 = "30000",
                AtLeast(1), Medium, ReadOnly,
                "Longest time between the first and the last byte of a request, in milliseconds.";
            ["ottla.queued.max.response.bytes"] ottla_queued_max_response_bytes: i64 = "134217728",
                AtLeast(1), Medium, ReadOnly,
                "Largest total size of responses in memory, in bytes; above it the broker starts no request and closes connections of clients that do not read.";
            ["ottla.tail.cache.bytes"] ottla_tail_cache_bytes: i64 = "16777216",
                AtLeast(0), Medium, ReadOnly,
                "Memory for the newest batches, from which consumers at the end of a log are served, in bytes.";
            ["ottla.max.open.segments"] ottla_max_open_segments: i32 = "1024",
                AtLeast(16), Medium, ReadOnly,
                "Most segments with open files; above it the least recently used one is closed.";
            ["ottla.http.listener"] ottla_http_listener: Option<String> = null,
                Any, Medium, ReadOnly,
                "Address of the HTTP pages, as host:port: /metrics in Prometheus' text format, /health (200 unless the broker has failed), /ready (200 while clients are served). An empty host is every interface, port 0 picks a free port. If not set, there are no HTTP pages.";
            ["ottla.metrics.listener"] ottla_metrics_listener: Option<String> = null,
                Any, Medium, ReadOnly,
                "The earlier name of ottla.http.listener; if both are set, ottla.http.listener wins.";
            ["ottla.max.groups.per.partition"] ottla_max_groups_per_partition: i32 = "100000",
                AtLeast(1), Medium, ReadOnly,
                "Most groups in each partition of the offsets topic; a join that would create one more is refused.";
            ["ottla.groups.max.bytes"] ottla_groups_max_bytes: i64 = "268435456",
                AtLeast(1048576), Medium, ReadOnly,
                "Approximate limit of memory for all groups and committed offsets, in bytes; requests that would exceed it are refused.";
            ["ottla.broker.silence.timeout.ms"] ottla_broker_silence_timeout_ms: i32 = "1200",
                AtLeast(0), Medium, ReadOnly,
                "A broker from which the active controller hears nothing for half of this time, and that answers no request for the other half, is fenced; 0 leaves silent brokers to broker.session.timeout.ms.";
            ["ottla.fetch.sessions.max.bytes"] ottla_fetch_sessions_max_bytes: i64 = "16777216",
                AtLeast(0), Medium, ReadOnly,
                "Approximate limit of memory for all fetch sessions, in bytes; above it clients get no session.";
            ["ottla.max.partitions"] ottla_max_partitions: i32 = "20000",
                AtLeast(1), Medium, ReadOnly,
                "Most partitions of all topics together; a change that would create more is refused.";
            ["ottla.metadata.max.bytes"] ottla_metadata_max_bytes: i64 = "67108864",
                AtLeast(1048576), Medium, ReadOnly,
                "Approximate limit for the size of all topics, settings and quotas as records, in bytes; a change that would exceed it is refused.";
            ["ottla.max.producer.ids.per.partition"] ottla_max_producer_ids_per_partition: i32 = "10000",
                AtLeast(100), Medium, ReadOnly,
                "Most producer ids without an open transaction in the state of a partition; above it those with the oldest writes expire early.";
            ["ottla.accept.metadata.loss"] ottla_accept_metadata_loss: bool = "false",
                Any, High, ReadOnly,
                "Whether to start although the metadata log is damaged, emptied or gone, with the remaining metadata; without it such a start is refused. Partitions of topics that are then unknown are renamed to …-stray. Set it for one start only.";
            ["ottla.accept.group.loss"] ottla_accept_group_loss: Vec<String> = "",
                Any, High, ReadOnly,
                "Damaged batches of __consumer_offsets to skip, as partition:offset, or as partition for all of them; groups that committed in them continue from another commit. Without it all groups of such a partition are refused.";
        }
    }
}

rows! {
    /// The broker settings that give the defaults of topics' settings (`ServerTopicConfigSynonyms`).
    TOPIC_DEFAULTS, "Defaults of topics", Effect::TopicDefault, {
        ["log.cleanup.policy"] List = "delete",
            POLICIES, Medium, ClusterWide,
            "What happens to old segments: delete, compact or both.";
        ["log.flush.interval.messages"] Long = "9223372036854775807",
            AtLeast(1), High, ClusterWide,
            "Messages in a log after which it is flushed to disk.";
        ["log.flush.interval.ms"] Long = null,
            Any, High, ClusterWide,
            "Longest time a message stays unflushed, in milliseconds; log.flush.scheduler.interval.ms where not set.";
        ["log.flush.scheduler.interval.ms"] Long = "9223372036854775807",
            Any, High, ReadOnly,
            "Longest time a message stays unflushed where log.flush.interval.ms is not set, in milliseconds.";
        ["log.index.interval.bytes"] Int = "4096",
            AtLeast(0), Medium, ClusterWide,
            "Bytes of records between two entries of the offset index.";
        ["log.index.size.max.bytes"] Int = "10485760",
            AtLeast(4), Medium, ClusterWide,
            "Largest size of an offset index, in bytes.";
        ["log.message.timestamp.after.max.ms"] Long = "3600000",
            AtLeast(0), Medium, ClusterWide,
            "How far a message's timestamp may be ahead of the broker's clock, in milliseconds.";
        ["log.message.timestamp.before.max.ms"] Long = "9223372036854775807",
            AtLeast(0), Medium, ClusterWide,
            "How far a message's timestamp may be behind the broker's clock, in milliseconds.";
        ["log.message.timestamp.type"] String = "CreateTime",
            OneOf(&["CreateTime", "LogAppendTime"]), Medium, ClusterWide,
            "Whether a message's timestamp is set by the producer or at append.";
        ["log.preallocate"] Boolean = "false",
            Any, Medium, ClusterWide,
            "New segment files are allocated in full.";
        ["log.retention.bytes"] Long = "-1",
            Any, High, ClusterWide,
            "Bytes of a partition's log kept before old segments are deleted; -1 is no limit.";
        ["log.retention.hours"] Int = "168",
            Any, High, ReadOnly,
            "Hours a segment is kept; log.retention.minutes and log.retention.ms take precedence.";
        ["log.retention.minutes"] Int = null,
            Any, High, ReadOnly,
            "Minutes a segment is kept; log.retention.ms takes precedence.";
        ["log.retention.ms"] Long = null,
            Any, High, ClusterWide,
            "Milliseconds a segment is kept; -1 is no limit.";
        ["log.roll.hours"] Int = "168",
            AtLeast(1), High, ReadOnly,
            "Hours after which a new segment is started; log.roll.ms takes precedence.";
        ["log.roll.ms"] Long = null,
            Any, High, ClusterWide,
            "Milliseconds after which a new segment is started.";
        ["log.roll.jitter.hours"] Int = "0",
            AtLeast(0), High, ReadOnly,
            "Most hours subtracted at random from the roll time; log.roll.jitter.ms takes precedence.";
        ["log.roll.jitter.ms"] Long = null,
            Any, High, ClusterWide,
            "Most milliseconds subtracted at random from the roll time.";
        ["log.segment.bytes"] Int = "1073741824",
            AtLeast(1_048_576), High, ClusterWide,
            "Size of a log segment, in bytes.";
        ["log.segment.delete.delay.ms"] Long = "60000",
            AtLeast(0), High, ClusterWide,
            "How long a deleted segment's files stay on disk, in milliseconds.";
        ["message.max.bytes"] Int = "1048588",
            AtLeast(0), High, ClusterWide,
            "Largest record batch accepted, in bytes.";
        ["min.insync.replicas"] Int = "1",
            AtLeast(1), High, ClusterWide,
            "Replicas that must have a write before acks=all is answered. A new cluster takes the value of its first controller; afterwards it changes for all brokers together.";
        ["unclean.leader.election.enable"] Boolean = "false",
            Any, High, ClusterWide,
            "A replica that is not in sync may become leader; records that it does not have are lost.";
        ["compression.type"] String = "producer",
            OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), High, ClusterWide,
            "Codec of stored batches; producer keeps the producer's.";
        ["compression.gzip.level"] Int = "-1",
            GzipLevel, Medium, ClusterWide,
            "Level of gzip where compression.type is gzip.";
        ["compression.lz4.level"] Int = "9",
            Between(1, 17), Medium, ClusterWide,
            "Level of lz4 where compression.type is lz4.";
        ["compression.zstd.level"] Int = "3",
            Between(-131_072, 22), Medium, ClusterWide,
            "Level of zstd where compression.type is zstd.";
        ["log.cleaner.delete.retention.ms"] Long = "86400000",
            AtLeast(0), Medium, ClusterWide,
            "How long a delete marker is kept in a compacted topic, in milliseconds.";
        ["log.cleaner.max.compaction.lag.ms"] Long = "9223372036854775807",
            AtLeast(1), Medium, ClusterWide,
            "Longest time a message stays uncompacted, in milliseconds.";
        ["log.cleaner.min.compaction.lag.ms"] Long = "0",
            AtLeast(0), Medium, ClusterWide,
            "Shortest time a message stays uncompacted, in milliseconds.";
        ["log.cleaner.min.cleanable.ratio"] Double = "0.5",
            Within(0.0, 1.0), Medium, ClusterWide,
            "Part of a log that must be dirty before it is compacted.";
        ["log.local.retention.bytes"] Long = "-2",
            AtLeast(-2), Medium, ClusterWide,
            "Bytes kept on local disk of a tiered partition; -2 is log.retention.bytes.";
        ["log.local.retention.ms"] Long = "-2",
            AtLeast(-2), Medium, ClusterWide,
            "Milliseconds a segment of a tiered partition stays on local disk; -2 is log.retention.ms.";
    }
}

rows! {
    /// Settings that exist only at run time (`QuotaConfig.brokerQuotaConfigs`).
    DYNAMIC_ONLY, "At run time only", Effect::None("quotas are stored but not enforced yet"), {
        ["leader.replication.throttled.rate"] Long = "9223372036854775807",
            AtLeast(0), Medium, ClusterWide,
            "Most bytes each second that leaders send to throttled replicas.";
        ["follower.replication.throttled.rate"] Long = "9223372036854775807",
            AtLeast(0), Medium, ClusterWide,
            "Most bytes each second that throttled replicas fetch.";
        ["replica.alter.log.dirs.io.max.bytes.per.second"] Long = "9223372036854775807",
            AtLeast(0), Medium, ClusterWide,
            "Most bytes each second for replicas moving between directories.";
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        BrokerConfig::from_values(&mut |name| {
            FIELDS.iter().find(|definition| definition.name == name).and_then(|definition| definition.default_value())
        })
    }
}

impl BrokerConfig {
    /// The data directories: `log.dirs`, or `log.dir` if that is not set.
    pub fn data_dirs(&self) -> Vec<PathBuf> {
        self.log_dirs.as_ref().unwrap_or(&self.log_dir).iter().map(PathBuf::from).collect()
    }

    /// The directory of the metadata log: `metadata.log.dir`, or the first data directory.
    pub fn metadata_dir(&self) -> PathBuf {
        match &self.metadata_log_dir {
            Some(dir) => PathBuf::from(dir),
            None => self.data_dirs().into_iter().next().unwrap_or_default(),
        }
    }

    /// Host and port of `ottla.http.listener`, if it is set. No host means all interfaces.
    ///
    /// # Errors
    /// A sentence with the setting and its invalid value.
    pub fn http_listener(&self) -> Result<Option<(Option<String>, u16)>, String> {
        let names = [
            ("ottla.http.listener", &self.ottla_http_listener),
            ("ottla.metrics.listener", &self.ottla_metrics_listener),
        ];
        let mut given = names.iter().filter_map(|(name, value)| Some((name, value.as_deref()?.trim())));
        let Some((name, text)) = given.find(|(_, text)| !text.is_empty()) else { return Ok(None) };
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            Some(((!host.is_empty()).then(|| host.to_owned()), port.parse().ok()?))
        });
        parsed.map(Some).ok_or_else(|| format!("{name} is '{text}', which is not host:port"))
    }

    /// `ottla.accept.group.loss`: pairs of a partition and an offset; without an offset the whole partition.
    ///
    /// # Errors
    /// A sentence with the entry that is neither.
    pub fn accepted_group_loss(&self) -> Result<BTreeSet<(i32, Option<i64>)>, String> {
        let places = self.ottla_accept_group_loss.iter().map(|place| place.trim()).filter(|place| !place.is_empty());
        places
            .map(|place| {
                let parsed = match place.split_once(':') {
                    Some((partition, offset)) => partition
                        .parse()
                        .ok()
                        .zip(offset.parse().ok())
                        .map(|(partition, offset)| (partition, Some(offset))),
                    None => place.parse().ok().map(|partition| (partition, None)),
                };
                parsed.ok_or_else(|| {
                    format!("ottla.accept.group.loss has '{place}', which is neither partition:offset nor a partition")
                })
            })
            .collect()
    }

    /// `max.connections.per.ip.overrides` by host name or address.
    ///
    /// # Errors
    /// A sentence with the entry that is not `host:count`.
    pub fn connection_overrides(&self) -> Result<BTreeMap<String, i32>, String> {
        let pairs = self.max_connections_per_ip_overrides.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let parsed = pair.rsplit_once(':').and_then(|(host, count)| {
                    let count: i32 = count.trim().parse().ok().filter(|count| *count >= 0)?;
                    let host = host.trim();
                    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '%');
                    (!host.is_empty() && host.chars().all(allowed)).then(|| (host.to_owned(), count))
                });
                parsed.ok_or_else(|| format!("max.connections.per.ip.overrides has '{pair}', which is not host:count"))
            })
            .collect()
    }
}
