//! The table of metrics, one row each. docs/generated/metrics.md is generated from it.
//!
//! The names are those that the usual configuration of the Prometheus JMX exporter gives to Kafka's metrics, so that
//! dashboards for Kafka work. Metrics that Kafka does not have are called `ottla_…`, and the metrics of the process
//! have the names of all Prometheus clients.

/// Whether a metric only increases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only increases, from 0 at the start of the process.
    Counter,
    /// It increases and decreases.
    Gauge,
}

impl Kind {
    /// Prometheus' name of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name in the code.
    pub id: MetricId,
    /// Prometheus' name, such as `process_open_fds`.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// The labels that its samples may have.
    pub labels: &'static [&'static str],
    /// Its meaning, in one sentence.
    pub doc: &'static str,
    /// The title of its section in docs/generated/metrics.md.
    pub section: &'static str,
}

/// Defines the rows: a name for the code, kind, name, labels, meaning.
macro_rules! metrics {
    ($( section $section:literal { $( $id:ident $kind:ident $name:literal [$($label:literal),*] $doc:literal; )* } )*) => {
        /// The metrics by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum MetricId { $( $( $id, )* )* }

        /// All rows, in the order in which they are written.
        pub const METRICS: &[Metric] = &[ $( $( Metric {
            id: MetricId::$id,
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            doc: $doc,
            section: $section,
        }, )* )* ];
    };
}

metrics! {
    section "Traffic" {
        MessagesIn Counter "kafka_server_brokertopicmetrics_messagesin_total" ["topic"]
            "Records appended for producers; without a topic, of all topics there have been.";
        BytesIn Counter "kafka_server_brokertopicmetrics_bytesin_total" ["topic"]
            "Bytes of the batches appended for producers.";
        BytesOut Counter "kafka_server_brokertopicmetrics_bytesout_total" ["topic"]
            "Bytes of the batches answered to consumers.";
        BytesRejected Counter "kafka_server_brokertopicmetrics_bytesrejected_total" ["topic"]
            "Bytes of the batches refused as larger than max.message.bytes.";
        TotalProduceRequests Counter "kafka_server_brokertopicmetrics_totalproducerequests_total" ["topic"]
            "Partitions that Produce requests wrote to, or tried to.";
        FailedProduceRequests Counter "kafka_server_brokertopicmetrics_failedproducerequests_total" ["topic"]
            "Those that failed, but for reasons that clients deal with themselves, as Kafka counts.";
        TotalFetchRequests Counter "kafka_server_brokertopicmetrics_totalfetchrequests_total" ["topic"]
            "Partitions that Fetch requests read from, or tried to; once for each request.";
        FailedFetchRequests Counter "kafka_server_brokertopicmetrics_failedfetchrequests_total" ["topic"]
            "Those that failed, but for reasons that clients deal with themselves, as Kafka counts.";
    }
    section "Requests" {
        Requests Counter "kafka_network_requestmetrics_requests_total" ["request", "version"]
            "Requests, by API and version.";
        RequestErrors Counter "kafka_network_requestmetrics_errors_total" ["request", "error"]
            "Errors in answers, by API; one answer may hold several, and NONE is counted as well.";
    }
    section "Connections" {
        Connections Gauge "kafka_server_socket_server_metrics_connection_count" ["listener"]
            "Connections open.";
        ConnectionsOpened Counter "kafka_server_socket_server_metrics_connection_creation_total" ["listener"]
            "Connections accepted.";
        ConnectionsClosed Counter "kafka_server_socket_server_metrics_connection_close_total" ["listener"]
            "Connections ended.";
        BytesReceived Counter "kafka_server_socket_server_metrics_incoming_byte_total" ["listener"]
            "Bytes read from connections.";
        BytesSent Counter "kafka_server_socket_server_metrics_outgoing_byte_total" ["listener"]
            "Bytes written to connections.";
        LimitReached Counter "ottla_limit_reached_total" ["limit"]
            "How often a limit refused, closed or delayed something, by the setting that is the limit.";
    }
    section "Partitions" {
        PartitionCount Gauge "kafka_server_replicamanager_partitioncount" []
            "Partitions on this broker, offline ones included.";
        LeaderCount Gauge "kafka_server_replicamanager_leadercount" []
            "Partitions that this broker leads.";
        OfflineReplicas Gauge "kafka_server_replicamanager_offlinereplicacount" []
            "Partitions on this broker whose log cannot be used.";
        UnderReplicated Gauge "kafka_server_replicamanager_underreplicatedpartitions" []
            "Partitions led here with replicas out of sync.";
        UnderMinIsr Gauge "kafka_server_replicamanager_underminisrpartitioncount" []
            "Partitions led here with fewer replicas in sync than min.insync.replicas.";
        AtMinIsr Gauge "kafka_server_replicamanager_atminisrpartitioncount" []
            "Partitions led here with exactly min.insync.replicas in sync.";
        IsrShrinks Counter "kafka_server_replicamanager_isrshrinks_total" []
            "Changes that made the in-sync replicas of a partition led here fewer, as its leader proposed.";
        IsrExpands Counter "kafka_server_replicamanager_isrexpands_total" []
            "Changes that made the in-sync replicas of a partition led here more.";
        FailedIsrUpdates Counter "kafka_server_replicamanager_failedisrupdates_total" []
            "Such changes that the controller refused.";
        FetcherMaxLag Gauge "kafka_server_replicafetchermanager_maxlag" []
            "The most records that a follower on this broker lacks of what is committed on its leader.";
        FetcherFailedPartitions Gauge "kafka_server_replicafetchermanager_failedpartitionscount" []
            "Partitions on this broker that cannot follow their leader because of an error that does not pass by itself.";
        PartitionUnderMinIsr Gauge "kafka_cluster_partition_underminisr" ["topic", "partition"]
            "1 where a partition led here has fewer replicas in sync than min.insync.replicas.";
        PartitionAtMinIsr Gauge "kafka_cluster_partition_atminisr" ["topic", "partition"]
            "1 where a partition led here has exactly min.insync.replicas in sync.";
        LogSize Gauge "kafka_log_log_size" ["topic", "partition"]
            "Bytes of a partition's segments.";
        LogStartOffset Gauge "kafka_log_log_logstartoffset" ["topic", "partition"]
            "First offset of a partition.";
        LogEndOffset Gauge "kafka_log_log_logendoffset" ["topic", "partition"]
            "Offset that the next record of a partition gets.";
        HighWatermark Gauge "kafka_topic_partition_current_offset" ["topic", "partition"]
            "Offset up to which consumers read: the high watermark.";
        OfflineLogDirs Gauge "kafka_log_logmanager_offlinelogdirectorycount" []
            "Log directories that have failed.";
        UncleanablePartitions Gauge "kafka_log_logcleanermanager_uncleanable_partitions_count" []
            "Compacted logs that cannot be cleaned, because they are damaged.";
        MaxDirtyPercent Gauge "kafka_log_logcleanermanager_max_dirty_percent" []
            "The largest part of a compacted log that is dirty and could be cleaned.";
        CleanerBufferPercent Gauge "kafka_log_logcleaner_max_buffer_utilization_percent" []
            "How full the cleaner's memory for keys was at the end of the last cleaning.";
        CleanerRecopyPercent Gauge "kafka_log_logcleaner_cleaner_recopy_percent" []
            "The part of the bytes that the last cleaning kept.";
        CleanTime Gauge "kafka_log_logcleaner_max_clean_time_secs" []
            "How long the last cleaning took, in seconds.";
        Cleanings Counter "ottla_log_cleanings_total" []
            "Cleanings of logs.";
        TailCacheBytes Gauge "ottla_tail_cache_bytes" []
            "Memory that holds the last produced batches.";
    }
    section "Cluster" {
        ActiveController Gauge "kafka_controller_kafkacontroller_activecontrollercount" []
            "1 on the node whose controller is active.";
        ActiveBrokers Gauge "kafka_controller_kafkacontroller_activebrokercount" []
            "Brokers that are registered and not fenced.";
        FencedBrokers Gauge "kafka_controller_kafkacontroller_fencedbrokercount" []
            "Brokers that are registered and fenced.";
        LeaderElections Counter "ottla_leader_elections_total" []
            "Leaders that the controller elected, as this node saw since its start.";
        UncleanElections Counter "kafka_controller_controllerstats_uncleanleaderelections_total" []
            "Those of them that may lack committed records.";
        QuorumLeader Gauge "kafka_server_raft_metrics_current_leader" []
            "The node that leads the metadata quorum; -1 if this node knows none.";
        QuorumEpoch Gauge "kafka_server_raft_metrics_current_epoch" []
            "The epoch of the metadata quorum.";
        QuorumHighWatermark Gauge "kafka_server_raft_metrics_high_watermark" []
            "The offset after the last metadata record that this node knows to be committed.";
        QuorumLogEnd Gauge "kafka_server_raft_metrics_log_end_offset" []
            "Where the metadata log of this node ends.";
        GlobalTopics Gauge "kafka_controller_kafkacontroller_globaltopiccount" []
            "Topics of the cluster.";
        GlobalPartitions Gauge "kafka_controller_kafkacontroller_globalpartitioncount" []
            "Partitions of the cluster.";
        OfflinePartitions Gauge "kafka_controller_kafkacontroller_offlinepartitionscount" []
            "Partitions of the cluster without a leader.";
        PreferredReplicaImbalance Gauge "kafka_controller_kafkacontroller_preferredreplicaimbalancecount" []
            "Partitions of the cluster that another replica leads than the first of their list.";
    }
    section "Groups" {
        Groups Gauge "kafka_coordinator_group_groupmetadatamanager_numgroups" []
            "Groups that this broker coordinates.";
        GroupsPreparing Gauge "kafka_coordinator_group_groupmetadatamanager_numgroupspreparingrebalance" []
            "Of those, the ones that wait for members to join.";
        GroupsCompleting Gauge "kafka_coordinator_group_groupmetadatamanager_numgroupscompletingrebalance" []
            "Of those, the ones that wait for the leader's assignment.";
        GroupsStable Gauge "kafka_coordinator_group_groupmetadatamanager_numgroupsstable" []
            "Of those, the ones whose members have their assignment.";
        GroupsEmpty Gauge "kafka_coordinator_group_groupmetadatamanager_numgroupsempty" []
            "Of those, the ones without members.";
        GroupsDead Gauge "kafka_coordinator_group_groupmetadatamanager_numgroupsdead" []
            "Of those, the ones about to be removed.";
        CommittedOffsets Gauge "kafka_coordinator_group_groupmetadatamanager_numoffsets" []
            "Offsets that groups have committed.";
        FetchSessions Gauge "kafka_server_fetchsessioncache_numincrementalfetchsessions" []
            "Incremental fetch sessions.";
        FetchSessionPartitions Gauge "kafka_server_fetchsessioncache_numincrementalfetchpartitionscached" []
            "Partitions in incremental fetch sessions.";
        FetchSessionEvictions Counter "kafka_server_fetchsessioncache_incrementalfetchsessionevictions_total" []
            "Sessions that had to make room for others.";
    }
    section "Process" {
        BrokerState Gauge "kafka_server_kafkaserver_brokerstate" []
            "3 while the broker serves, 6 while it shuts down.";
        BuildInfo Gauge "ottla_build_info" ["version"]
            "1; the label is what tells.";
        Uptime Gauge "ottla_uptime_seconds" []
            "How long the process has run.";
        CpuSeconds Counter "process_cpu_seconds_total" []
            "Processor time used, by the kernel for us included.";
        ResidentMemory Gauge "process_resident_memory_bytes" []
            "Memory in use.";
        OpenFiles Gauge "process_open_fds" []
            "File descriptors open.";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_prometheus_names_and_each_is_there_once() {
        let mut names = BTreeSet::new();
        for metric in METRICS {
            assert!(
                metric.name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')),
                "{}",
                metric.name
            );
            // A Kafka timer counts its events as …_count, and some gauges have that ending, too.
            let (is_total, is_count) = (metric.name.ends_with("_total"), metric.name.ends_with("_count"));
            assert_eq!(
                metric.kind == Kind::Counter,
                is_total || is_count && metric.kind == Kind::Counter,
                "{}",
                metric.name
            );
            assert!(metric.doc.ends_with('.'), "{}", metric.name);
            assert!(names.insert(metric.name), "{} occurs twice", metric.name);
        }
    }
}
