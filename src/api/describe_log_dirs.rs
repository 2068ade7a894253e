//! DescribeLogDirs (key 35): the log directories of this broker and the partitions in each.
//!
//! Behavior: A8. Version notes: 4 adds the sizes of the volumes, 5 whether a directory is cordoned (always false here).

use std::collections::{BTreeMap, HashMap, HashSet};

use kafka_protocol::{error::ResponseError, protocol::StrBytes};

use super::{RequestContext, authorized::Operation};
use crate::{
    log::log_manager::LogDirDescription,
    protocol::describe_log_dirs::{
        DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult,
        DescribeLogDirsTopic,
    },
    types::{CLUSTER_METADATA_TOPIC, Offset, TopicPartition},
};

pub(crate) async fn handle(ctx: RequestContext, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let wanted: Option<HashMap<String, HashSet<i32>>> = request.topics.map(|topics| {
        topics.into_iter().map(|topic| (topic.topic.to_string(), topic.partitions.into_iter().collect())).collect()
    });
    let is_wanted = |partition: &TopicPartition| match &wanted {
        // The quorum's log does not belong to the broker, as in Apache.
        _ if &*partition.topic == CLUSTER_METADATA_TOPIC => false,
        None => true,
        Some(wanted) => {
            wanted.get(&*partition.topic).is_some_and(|partitions| partitions.contains(&partition.partition))
        }
    };
    let log_manager = match ctx.cluster(Operation::Describe) {
        Ok(cluster) => cluster.log_manager().clone(),
        Err(denied) => return refused(denied.into()),
    };
    let dirs = ctx.tasks().blocking("describe log dirs", move || log_manager.describe()).await;
    let results = dirs.into_iter().map(|dir| describe(dir, &is_wanted));
    DescribeLogDirsResponse { throttle_time_ms: 0, error_code: 0, results: results.collect() }
}

fn refused(error: ResponseError) -> DescribeLogDirsResponse {
    DescribeLogDirsResponse { throttle_time_ms: 0, error_code: error.code(), results: Vec::new() }
}

fn describe(dir: LogDirDescription, is_wanted: &dyn Fn(&TopicPartition) -> bool) -> DescribeLogDirsResult {
    let mut topics: BTreeMap<std::sync::Arc<str>, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for (partition, size_bytes, offset_lag) in dir.logs.into_iter().filter(|(partition, ..)| is_wanted(partition)) {
        topics.entry(partition.topic).or_default().push(partition_of(partition.partition, size_bytes, offset_lag));
    }
    let topics = topics.into_iter().map(|(name, mut partitions)| {
        partitions.sort_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic { name: StrBytes::from_string(name.to_string()), partitions }
    });
    DescribeLogDirsResult {
        error_code: if dir.offline { ResponseError::KafkaStorageError.code() } else { 0 },
        log_dir: dir.path.display().to_string(),
        topics: topics.collect(),
        total_bytes: dir.total_bytes,
        usable_bytes: dir.usable_bytes,
        is_cordoned: false,
    }
}

fn partition_of(partition_index: i32, size_bytes: u64, offset_lag: Offset) -> DescribeLogDirsPartition {
    DescribeLogDirsPartition { partition_index, size_bytes: size_bytes as i64, offset_lag, is_future: false }
}
