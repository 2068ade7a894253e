//! The page of metrics, with one arm for each row of the table. Counters are read; all other values are computed at
//! this moment.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use kafka_protocol::error::ParseResponseErrorCode;

use crate::{
    api::{self, Parts},
    coordinator::group::{GroupCounts, GroupState},
    env::Disk,
    metadata::image::{MetadataImage, PartitionImage},
    metrics::{Counter, METRICS, MetricId, Page, Samples, TopicCounters},
    replica::{
        Partition,
        fetch_session::FetchSessionCounts,
        replica_manager::{Hosted, LocalTopic},
    },
};

/// Returns all current metrics. Waits for locks that are held briefly, and reads a few files of the kernel.
pub(super) fn page(parts: &Parts) -> Page {
    let moment = MetricsSnapshot::of(parts);
    let mut page = Page::default();
    for metric in METRICS {
        moment.tell(metric.id, &mut page.metric(metric));
    }
    page
}

/// The state from which the metrics are computed.
struct MetricsSnapshot<'a> {
    parts: &'a Parts,
    image: Arc<MetadataImage>,
    topics: Vec<Arc<LocalTopic>>,
    partitions: Vec<LocalPartition>,
    groups: GroupCounts,
    fetch_sessions: FetchSessionCounts,
    process: Process,
}

/// A partition on this broker.
struct LocalPartition {
    topic: Arc<str>,
    index: i32,
    /// `None` if its log cannot be used.
    partition: Option<Arc<Partition>>,
    leads: bool,
    replicas: usize,
    in_sync: usize,
    min_in_sync: usize,
}

impl LocalPartition {
    fn new(image: &MetadataImage, topic: &LocalTopic, index: i32, hosted: Hosted) -> LocalPartition {
        let partition = match hosted {
            Hosted::Online(partition) => Some(partition),
            Hosted::Opening | Hosted::Offline => None,
        };
        let registered = image.topic_by_id(topic.id).and_then(|topic| topic.partitions.get(&index));
        let count = |replicas: fn(&PartitionImage) -> &Vec<i32>| registered.map_or(0, |known| replicas(known).len());
        let replicas = count(|known| &known.replicas);
        let wanted =
            partition.as_ref().map_or(0, |partition| partition.log_config().min_insync_replicas.max(0) as usize);
        LocalPartition {
            topic: topic.name.clone(),
            index,
            leads: partition.as_ref().is_some_and(|partition| partition.is_leader()),
            partition,
            replicas,
            in_sync: count(|known| &known.isr),
            min_in_sync: wanted.min(replicas),
        }
    }
}

impl<'a> MetricsSnapshot<'a> {
    fn of(parts: &'a Parts) -> Self {
        let image = parts.metadata.image();
        let topics = parts.replica_manager.topics();
        let here = |topic: &Arc<LocalTopic>| {
            let hosted = topic.hosted().into_iter();
            hosted.map(|(index, hosted)| LocalPartition::new(&image, topic, index, hosted)).collect::<Vec<_>>()
        };
        MetricsSnapshot {
            partitions: topics.iter().flat_map(here).collect(),
            topics,
            groups: parts.groups.counts(),
            fetch_sessions: parts.fetch_sessions.counts(),
            process: Process::read(&*parts.env.disk),
            image,
            parts,
        }
    }

    fn tell(&self, id: MetricId, to: &mut Samples<'_>) {
        let MetricsSnapshot { parts, image, groups, fetch_sessions, process, .. } = self;
        let cleaner = || parts.log_manager.cleaner_figures();
        match id {
            MetricId::MessagesIn => self.by_topic(to, |topic| &topic.messages_in),
            MetricId::BytesIn => self.by_topic(to, |topic| &topic.bytes_in),
            MetricId::BytesOut => self.by_topic(to, |topic| &topic.bytes_out),
            MetricId::BytesRejected => self.by_topic(to, |topic| &topic.bytes_rejected),
            MetricId::TotalProduceRequests => self.by_topic(to, |topic| &topic.total_produce_requests),
            MetricId::FailedProduceRequests => self.by_topic(to, |topic| &topic.failed_produce_requests),
            MetricId::TotalFetchRequests => self.by_topic(to, |topic| &topic.total_fetch_requests),
            MetricId::FailedFetchRequests => self.by_topic(to, |topic| &topic.failed_fetch_requests),

            MetricId::Requests => {
                for (key, version, count) in parts.metrics.requests.requests() {
                    to.labelled(&[&api_name(key), &version], count);
                }
            }
            MetricId::RequestErrors => {
                for (key, code, count) in parts.metrics.requests.errors() {
                    to.labelled(&[&api_name(key), &error_name(code)], count);
                }
            }

            MetricId::Connections => {
                for listener in &parts.metrics.listeners {
                    // `closed` is read first, so that it never exceeds `opened`.
                    let closed = listener.closed.get();
                    to.labelled(&[&listener.name], listener.opened.get().saturating_sub(closed));
                }
            }
            MetricId::ConnectionsOpened => self.by_listener(to, |listener| &listener.opened),
            MetricId::ConnectionsClosed => self.by_listener(to, |listener| &listener.closed),
            MetricId::BytesReceived => self.by_listener(to, |listener| &listener.bytes_received),
            MetricId::BytesSent => self.by_listener(to, |listener| &listener.bytes_sent),
            MetricId::LimitReached => {
                for (setting, count) in parts.metrics.limits_reached() {
                    to.labelled(&[&setting], count);
                }
                to.labelled(&[&"max.incremental.fetch.session.cache.slots"], fetch_sessions.refused);
            }

            MetricId::PartitionCount => to.total(self.partitions.len()),
            MetricId::LeaderCount => to.total(self.count(|here| here.leads)),
            MetricId::OfflineReplicas => to.total(self.count(|here| here.partition.is_none())),
            MetricId::UnderReplicated => to.total(self.count(|here| here.leads && here.in_sync < here.replicas)),
            MetricId::UnderMinIsr => to.total(self.count(is_under_min_isr)),
            MetricId::AtMinIsr => to.total(self.count(is_at_min_isr)),
            MetricId::IsrShrinks => to.total(parts.replica_manager.counters().isr_shrinks.get()),
            MetricId::IsrExpands => to.total(parts.replica_manager.counters().isr_expands.get()),
            MetricId::FailedIsrUpdates => to.total(parts.replica_manager.counters().failed_isr_updates.get()),
            MetricId::FetcherMaxLag => {
                let followers = self.partitions.iter().filter(|here| !here.leads);
                let lags = followers.filter_map(|here| Some(here.partition.as_ref()?.follower_lag()));
                to.total(lags.max().unwrap_or(0));
            }
            MetricId::FetcherFailedPartitions => to.total(parts.replica_manager.failed_followers()),
            MetricId::PartitionUnderMinIsr => {
                self.by_partition(to, |here, _| here.leads.then(|| i64::from(is_under_min_isr(here))))
            }
            MetricId::PartitionAtMinIsr => {
                self.by_partition(to, |here, _| here.leads.then(|| i64::from(is_at_min_isr(here))))
            }
            MetricId::LogSize => self.by_partition(to, |_, partition| Some(partition.size_bytes() as i64)),
            MetricId::LogStartOffset => {
                self.by_partition(to, |_, partition| Some(partition.watermarks().log_start_offset))
            }
            MetricId::LogEndOffset => self.by_partition(to, |_, partition| Some(partition.watermarks().log_end_offset)),
            MetricId::HighWatermark => {
                self.by_partition(to, |_, partition| Some(partition.watermarks().high_watermark))
            }
            MetricId::UncleanablePartitions => to.total(cleaner().uncleanable_partitions),
            MetricId::MaxDirtyPercent => to.total(cleaner().max_dirty_percent),
            MetricId::CleanerBufferPercent => to.total(cleaner().max_buffer_utilization_percent),
            MetricId::CleanerRecopyPercent => to.total(cleaner().recopy_percent),
            MetricId::CleanTime => to.total(cleaner().last_clean_time.as_secs()),
            MetricId::Cleanings => to.total(cleaner().cleanings),
            MetricId::OfflineLogDirs => to.total(parts.log_manager.offline_dirs()),
            MetricId::TailCacheBytes => to.total(parts.log_manager.tail_cache_bytes()),

            MetricId::ActiveController => to.total(i32::from(parts.controller.is_active())),
            MetricId::ActiveBrokers => to.total(image.alive_brokers().count()),
            MetricId::FencedBrokers => to.total(image.brokers.values().filter(|broker| broker.fenced).count()),
            MetricId::LeaderElections => to.total(parts.replica_manager.counters().leader_elections.get()),
            MetricId::UncleanElections => to.total(parts.replica_manager.counters().unclean_elections.get()),
            MetricId::QuorumLeader => to.total(parts.controller.leader().unwrap_or(-1)),
            MetricId::QuorumEpoch => to.total(parts.controller.gauges().epoch.load(Ordering::Relaxed)),
            MetricId::QuorumHighWatermark => to.total(parts.controller.gauges().high_watermark.load(Ordering::Relaxed)),
            MetricId::QuorumLogEnd => to.total(parts.controller.gauges().log_end_offset.load(Ordering::Relaxed)),
            MetricId::GlobalTopics => to.total(image.topics.by_name.len()),
            MetricId::GlobalPartitions => to.total(partitions_of(image).count()),
            MetricId::OfflinePartitions => {
                to.total(partitions_of(image).filter(|partition| partition.leader < 0).count());
            }
            MetricId::PreferredReplicaImbalance => {
                to.total(
                    partitions_of(image)
                        .filter(|partition| partition.replicas.first() != Some(&partition.leader))
                        .count(),
                );
            }

            MetricId::Groups => to.total(groups.groups.values().sum::<usize>()),
            MetricId::GroupsPreparing => to.total(self.groups_in(GroupState::PreparingRebalance)),
            MetricId::GroupsCompleting => to.total(self.groups_in(GroupState::CompletingRebalance)),
            MetricId::GroupsStable => to.total(self.groups_in(GroupState::Stable)),
            MetricId::GroupsEmpty => to.total(self.groups_in(GroupState::Empty)),
            MetricId::GroupsDead => to.total(self.groups_in(GroupState::Dead)),
            MetricId::CommittedOffsets => to.total(groups.offsets),
            MetricId::FetchSessions => to.total(fetch_sessions.sessions),
            MetricId::FetchSessionPartitions => to.total(fetch_sessions.partitions),
            MetricId::FetchSessionEvictions => to.total(fetch_sessions.evicted),

            MetricId::BrokerState => to.total(if parts.network.is_stopping() { 6 } else { 3 }),
            MetricId::BuildInfo => to.labelled(&[&env!("CARGO_PKG_VERSION")], 1),
            MetricId::Uptime => to.total(parts.env.clock.monotonic().as_secs_f64()),
            MetricId::CpuSeconds => process.cpu_seconds.iter().for_each(|seconds| to.total(seconds)),
            MetricId::ResidentMemory => process.resident_bytes.iter().for_each(|bytes| to.total(bytes)),
            MetricId::OpenFiles => process.open_files.iter().for_each(|count| to.total(count)),
        }
    }

    fn by_topic(&self, to: &mut Samples<'_>, counter: fn(&TopicCounters) -> &Counter) {
        to.total(counter(&self.parts.metrics.topics).get());
        for topic in &self.topics {
            to.labelled(&[&topic.name], counter(&topic.counters).get());
        }
    }

    fn by_listener(&self, to: &mut Samples<'_>, counter: fn(&crate::metrics::ListenerCounters) -> &Counter) {
        for listener in &self.parts.metrics.listeners {
            to.labelled(&[&listener.name], counter(listener).get());
        }
    }

    fn by_partition(&self, to: &mut Samples<'_>, value: impl Fn(&LocalPartition, &Partition) -> Option<i64>) {
        for here in &self.partitions {
            if let Some(value) = here.partition.as_ref().and_then(|partition| value(here, partition)) {
                to.labelled(&[&here.topic, &here.index], value);
            }
        }
    }

    fn count(&self, which: impl Fn(&LocalPartition) -> bool) -> usize {
        self.partitions.iter().filter(|here| which(here)).count()
    }

    fn groups_in(&self, state: GroupState) -> usize {
        self.groups.groups.get(&state).copied().unwrap_or_default()
    }
}

fn is_under_min_isr(here: &LocalPartition) -> bool {
    here.leads && here.in_sync < here.min_in_sync
}

fn is_at_min_isr(here: &LocalPartition) -> bool {
    here.leads && here.in_sync == here.min_in_sync
}

fn partitions_of(image: &MetadataImage) -> impl Iterator<Item = &PartitionImage> {
    image.topics.by_name.values().flat_map(|topic| topic.partitions.values())
}

fn api_name(key: i16) -> &'static str {
    api::api(key).map_or("unknown", |api| api.name)
}

/// Kafka's name of an error code, such as UNKNOWN_TOPIC_OR_PARTITION.
fn error_name(code: i16) -> String {
    let Some(error) = code.err() else { return "NONE".to_owned() };
    let mut name = String::new();
    for c in format!("{error:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

/// The state of the process from Linux's /proc; on other systems the values are unknown.
struct Process {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    open_files: Option<usize>,
}

impl Process {
    fn read(disk: &dyn Disk) -> Process {
        let stat = disk.read(Path::new("/proc/self/stat")).ok();
        let stat = stat.and_then(|stat| Stat::parse(&String::from_utf8_lossy(&stat)));
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        Process {
            cpu_seconds: stat.as_ref().map(|stat| stat.cpu_ticks as f64 / per_second),
            resident_bytes: stat.map(|stat| stat.resident_pages * rustix::param::page_size() as u64),
            open_files: disk.list(Path::new("/proc/self/fd")).ok().map(|files| files.len()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    resident_pages: u64,
}

impl Stat {
    /// proc(5): the fields come after the process name in parentheses, which may contain any character.
    fn parse(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.trim().parse::<u64>().ok();
        Some(Stat { cpu_ticks: field(14)? + field(15)?, resident_pages: field(24)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_kafkas_names() {
        for (code, name) in [
            (0, "NONE"),
            (-1, "UNKNOWN_SERVER_ERROR"),
            (3, "UNKNOWN_TOPIC_OR_PARTITION"),
            (6, "NOT_LEADER_OR_FOLLOWER"),
            (87, "INVALID_RECORD"),
        ] {
            assert_eq!(error_name(code), name);
        }
    }

    #[test]
    fn the_kernels_line_is_read_whatever_the_process_is_called() {
        let line =
            "7 (a) b) S 1 7 7 0 -1 4194560 3000 0 0 0 120 34 0 0 20 0 5 0 999 12345678 2048 18446744073709551615 1\n";
        assert_eq!(Stat::parse(line), Some(Stat { cpu_ticks: 154, resident_pages: 2048 }));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(Stat::parse(""), None);
    }
}
