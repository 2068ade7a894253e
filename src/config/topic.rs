//! A topic's settings: the fields of [`LogConfig`], with the broker settings that give their defaults.

use super::{
    broker::POLICIES,
    table::{Effect, FieldType, rows, settings},
    value::{ConfigType, Validator::*, Value},
};

/// `cleanup.policy`. With neither of them, segments are kept forever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Keep the last record of each key.
    pub compact: bool,
    /// Delete by time and size.
    pub delete: bool,
}

/// `compression.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// The codec of the producer's batch.
    Producer,
    /// Stored uncompressed.
    Uncompressed,
    /// gzip.
    Gzip,
    /// snappy.
    Snappy,
    /// lz4.
    Lz4,
    /// zstd.
    Zstd,
}

/// `message.timestamp.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's time.
    CreateTime,
    /// The broker's time at the append.
    LogAppendTime,
}

impl FieldType for CleanupPolicy {
    const TYPE: ConfigType = ConfigType::List;
    fn take(value: Option<Value>) -> Option<Self> {
        let Some(Value::List(policies)) = value else {
            return None;
        };
        let has = |policy: &str| policies.iter().any(|given| given == policy);
        Some(CleanupPolicy { compact: has("compact"), delete: has("delete") })
    }
}

impl FieldType for CompressionType {
    const TYPE: ConfigType = ConfigType::String;
    fn take(value: Option<Value>) -> Option<Self> {
        let Some(Value::Text(name)) = value else {
            return None;
        };
        match name.as_str() {
            "producer" => Some(CompressionType::Producer),
            "uncompressed" => Some(CompressionType::Uncompressed),
            "gzip" => Some(CompressionType::Gzip),
            "snappy" => Some(CompressionType::Snappy),
            "lz4" => Some(CompressionType::Lz4),
            "zstd" => Some(CompressionType::Zstd),
            _ => None,
        }
    }
}

impl FieldType for TimestampType {
    const TYPE: ConfigType = ConfigType::String;
    fn take(value: Option<Value>) -> Option<Self> {
        let Some(Value::Text(name)) = value else {
            return None;
        };
        match name.as_str() {
            "CreateTime" => Some(TimestampType::CreateTime),
            "LogAppendTime" => Some(TimestampType::LogAppendTime),
            _ => None,
        }
    }
}

settings! {
    /// A topic's settings, resolved over all layers. The fields have the names of Kafka's settings.
    #[derive(Clone, Debug, PartialEq)]
    pub struct LogConfig, rows FIELDS {
        section "Topic" {
            ["segment.bytes"] segment_bytes: i32 = "1073741824",
                AtLeast(1_048_576), Medium, ClusterWide,
                "Size of a log segment, in bytes.",
                synonyms ["log.segment.bytes" * 1];
            ["segment.ms"] segment_ms: i64 = "604800000",
                AtLeast(1), Medium, ClusterWide,
                "A new segment is started after this long, in milliseconds.",
                synonyms ["log.roll.ms" * 1, "log.roll.hours" * 3_600_000];
            ["segment.jitter.ms"] segment_jitter_ms: i64 = "0",
                AtLeast(0), Medium, ClusterWide,
                "Most milliseconds subtracted at random from segment.ms.",
                synonyms ["log.roll.jitter.ms" * 1, "log.roll.jitter.hours" * 3_600_000];
            ["segment.index.bytes"] segment_index_bytes: i32 = "10485760",
                AtLeast(4), Medium, ClusterWide,
                "Largest size of an offset index, in bytes.",
                synonyms ["log.index.size.max.bytes" * 1];
            ["flush.messages"] flush_messages: i64 = "9223372036854775807",
                AtLeast(1), Medium, ClusterWide,
                "Messages after which the log is flushed to disk.",
                synonyms ["log.flush.interval.messages" * 1];
            ["flush.ms"] flush_ms: i64 = "9223372036854775807",
                AtLeast(0), Medium, ClusterWide,
                "Longest time a message stays unflushed, in milliseconds.",
                synonyms ["log.flush.interval.ms" * 1, "log.flush.scheduler.interval.ms" * 1];
            ["retention.bytes"] retention_bytes: i64 = "-1",
                Any, Medium, ClusterWide,
                "Bytes of a partition kept before old segments are deleted; -1 is no limit.",
                synonyms ["log.retention.bytes" * 1];
            ["retention.ms"] retention_ms: i64 = "604800000",
                AtLeast(-1), Medium, ClusterWide,
                "Milliseconds a segment is kept; -1 is no limit.",
                synonyms ["log.retention.ms" * 1, "log.retention.minutes" * 60_000, "log.retention.hours" * 3_600_000];
            ["max.message.bytes"] max_message_bytes: i32 = "1048588",
                AtLeast(0), Medium, ClusterWide,
                "Largest record batch accepted, in bytes.",
                synonyms ["message.max.bytes" * 1];
            ["index.interval.bytes"] index_interval_bytes: i32 = "4096",
                AtLeast(0), Medium, ClusterWide,
                "Bytes of records between two entries of the offset index.",
                synonyms ["log.index.interval.bytes" * 1];
            ["delete.retention.ms"] delete_retention_ms: i64 = "86400000",
                AtLeast(0), Medium, ClusterWide,
                "How long a delete marker is kept where the topic is compacted, in milliseconds.",
                synonyms ["log.cleaner.delete.retention.ms" * 1];
            ["min.compaction.lag.ms"] min_compaction_lag_ms: i64 = "0",
                AtLeast(0), Medium, ClusterWide,
                "Shortest time a message stays uncompacted, in milliseconds.",
                synonyms ["log.cleaner.min.compaction.lag.ms" * 1];
            ["max.compaction.lag.ms"] max_compaction_lag_ms: i64 = "9223372036854775807",
                AtLeast(1), Medium, ClusterWide,
                "Longest time a message stays uncompacted, in milliseconds.",
                synonyms ["log.cleaner.max.compaction.lag.ms" * 1];
            ["file.delete.delay.ms"] file_delete_delay_ms: i64 = "60000",
                AtLeast(0), Medium, ClusterWide,
                "How long a deleted segment's files stay on disk, in milliseconds.",
                synonyms ["log.segment.delete.delay.ms" * 1];
            ["min.cleanable.dirty.ratio"] min_cleanable_dirty_ratio: f64 = "0.5",
                Within(0.0, 1.0), Medium, ClusterWide,
                "Part of the log that must be dirty before it is compacted.",
                synonyms ["log.cleaner.min.cleanable.ratio" * 1];
            ["cleanup.policy"] cleanup_policy: CleanupPolicy = "delete",
                POLICIES, Medium, ClusterWide,
                "What happens to old segments: delete, compact or both; nothing where empty.",
                synonyms ["log.cleanup.policy" * 1];
            ["unclean.leader.election.enable"] unclean_leader_election_enable: bool = "false",
                Any, Medium, ClusterWide,
                "A replica that is not in sync may become leader; records that it does not have are lost.",
                synonyms ["unclean.leader.election.enable" * 1];
            ["min.insync.replicas"] min_insync_replicas: i32 = "1",
                AtLeast(1), Medium, ClusterWide,
                "Replicas that must have a write before acks=all is answered.",
                synonyms ["min.insync.replicas" * 1];
            ["compression.type"] compression_type: CompressionType = "producer",
                OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), Medium, ClusterWide,
                "Codec of stored batches; producer keeps the producer's.",
                synonyms ["compression.type" * 1];
            ["compression.gzip.level"] compression_gzip_level: i32 = "-1",
                GzipLevel, Medium, ClusterWide,
                "Level of gzip where compression.type is gzip.",
                synonyms ["compression.gzip.level" * 1];
            ["compression.lz4.level"] compression_lz4_level: i32 = "9",
                Between(1, 17), Medium, ClusterWide,
                "Level of lz4 where compression.type is lz4.",
                synonyms ["compression.lz4.level" * 1];
            ["compression.zstd.level"] compression_zstd_level: i32 = "3",
                Between(-131_072, 22), Medium, ClusterWide,
                "Level of zstd where compression.type is zstd.",
                synonyms ["compression.zstd.level" * 1];
            ["preallocate"] preallocate: bool = "false",
                Any, Medium, ClusterWide,
                "New segment files are allocated in full.",
                synonyms ["log.preallocate" * 1];
            ["message.timestamp.type"] message_timestamp_type: TimestampType = "CreateTime",
                OneOf(&["CreateTime", "LogAppendTime"]), Medium, ClusterWide,
                "Whether a message's timestamp is set by the producer or at append.",
                synonyms ["log.message.timestamp.type" * 1];
            ["message.timestamp.before.max.ms"] message_timestamp_before_max_ms: i64 = "9223372036854775807",
                AtLeast(0), Medium, ClusterWide,
                "How far a message's timestamp may be behind the broker's clock, in milliseconds.",
                synonyms ["log.message.timestamp.before.max.ms" * 1];
            ["message.timestamp.after.max.ms"] message_timestamp_after_max_ms: i64 = "3600000",
                AtLeast(0), Medium, ClusterWide,
                "How far a message's timestamp may be ahead of the broker's clock, in milliseconds.",
                synonyms ["log.message.timestamp.after.max.ms" * 1];
        }
    }
}

rows! {
    /// A topic's settings that are known but not read.
    ACCEPTED, "Topic", Effect::None("neither throttled replication nor tiered storage is served yet"), {
        ["leader.replication.throttled.replicas"] List = "",
            ThrottledReplicas, Medium, ClusterWide,
            "Replicas throttled at the leader, as partition:broker or *.";
        ["follower.replication.throttled.replicas"] List = "",
            ThrottledReplicas, Medium, ClusterWide,
            "Replicas throttled at the follower, as partition:broker or *.";
        ["remote.storage.enable"] Boolean = "false",
            Any, Medium, ClusterWide,
            "Old segments move to remote storage.";
        ["local.retention.ms"] Long = "-2",
            AtLeast(-2), Medium, ClusterWide,
            "Milliseconds a tiered segment stays on local disk; -2 is retention.ms.",
            synonyms ["log.local.retention.ms" * 1];
        ["local.retention.bytes"] Long = "-2",
            AtLeast(-2), Medium, ClusterWide,
            "Bytes of a tiered partition kept on local disk; -2 is retention.bytes.",
            synonyms ["log.local.retention.bytes" * 1];
        ["remote.log.copy.disable"] Boolean = "false",
            Any, Medium, ClusterWide,
            "Segments are no longer copied to remote storage.";
        ["remote.log.delete.on.disable"] Boolean = "false",
            Any, Medium, ClusterWide,
            "Remote segments are deleted when tiering is switched off.";
        ["internal.segment.bytes"] Int = null,
            Any, Medium, ClusterWide internal,
            "Segment size in tests, in bytes; may be smaller than segment.bytes allows.";
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig::from_values(&mut |name| {
            FIELDS.iter().find(|definition| definition.name == name).and_then(|definition| definition.default_value())
        })
    }
}
