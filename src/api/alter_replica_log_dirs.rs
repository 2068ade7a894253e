//! AlterReplicaLogDirs (key 34): checks whether a partition may move to another log directory of this broker.
//!
//! Behavior: Apache's `ReplicaManager.alterReplicaLogDirs` for the directory that a partition is in.
//! Deviations: a partition cannot move; any other log directory of the broker gets KAFKA_STORAGE_ERROR.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, TopicName,
        alter_replica_log_dirs_request::AlterReplicaLogDir,
        alter_replica_log_dirs_response::{AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult},
    },
};

use super::{RequestContext, authorized::Operation};
use crate::types::TopicPartition;

/// The facts about a log directory that this API needs.
struct LogDir {
    path: PathBuf,
    offline: bool,
    partitions: HashSet<TopicPartition>,
}

pub(crate) async fn handle(ctx: RequestContext, request: AlterReplicaLogDirsRequest) -> AlterReplicaLogDirsResponse {
    let log_manager = match ctx.cluster(Operation::Alter) {
        Ok(cluster) => cluster.log_manager().clone(),
        Err(denied) => return refused(&request, denied.into()),
    };
    let described = ctx.tasks().blocking("describe log dirs", move || log_manager.describe()).await;
    let dirs: Vec<LogDir> = described
        .into_iter()
        .map(|dir| LogDir {
            path: dir.path,
            offline: dir.offline,
            partitions: dir.logs.into_iter().map(|(partition, ..)| partition).collect(),
        })
        .collect();
    let hosted = |partition: &TopicPartition| ctx.is_hosted(partition);
    let results = request.dirs.iter().flat_map(|wanted| alter(&dirs, wanted, &hosted));
    AlterReplicaLogDirsResponse::default().with_results(merge(results))
}

/// Returns the same error for all requested partitions.
fn refused(request: &AlterReplicaLogDirsRequest, error: ResponseError) -> AlterReplicaLogDirsResponse {
    let topics = request.dirs.iter().flat_map(|dir| &dir.topics);
    let outcomes =
        topics.flat_map(|topic| topic.partitions.iter().map(|index| (topic.name.clone(), *index, error.code())));
    AlterReplicaLogDirsResponse::default().with_results(merge(outcomes))
}

/// Returns the error code for each partition that the request moves to the directory `wanted`.
fn alter<'a>(
    dirs: &'a [LogDir],
    wanted: &'a AlterReplicaLogDir,
    hosted: &'a dyn Fn(&TopicPartition) -> Result<(), ResponseError>,
) -> impl Iterator<Item = (TopicName, i32, i16)> + 'a {
    wanted.topics.iter().flat_map(move |topic| {
        let name: Arc<str> = (&*topic.name.0).into();
        topic.partitions.iter().map(move |index| {
            let partition = TopicPartition { topic: name.clone(), partition: *index };
            let outcome = alter_partition(dirs, Path::new(&*wanted.path), &partition, hosted);
            (topic.name.clone(), *index, outcome.err().map_or(0, |error| error.code()))
        })
    })
}

fn alter_partition(
    dirs: &[LogDir],
    wanted: &Path,
    partition: &TopicPartition,
    hosted: &dyn Fn(&TopicPartition) -> Result<(), ResponseError>,
) -> Result<(), ResponseError> {
    // linear: there are a few log directories
    let dir = dirs.iter().find(|dir| dir.path == wanted).ok_or(ResponseError::LogDirNotFound)?;
    if dir.offline {
        return Err(ResponseError::KafkaStorageError);
    }
    hosted(partition)?;
    if dir.partitions.contains(partition) { Ok(()) } else { Err(ResponseError::KafkaStorageError) }
}

/// One entry per topic, in the order of the request.
fn merge(outcomes: impl Iterator<Item = (TopicName, i32, i16)>) -> Vec<AlterReplicaLogDirTopicResult> {
    let mut results: Vec<AlterReplicaLogDirTopicResult> = Vec::new();
    let mut positions: HashMap<TopicName, usize> = HashMap::new();
    for (topic, index, error_code) in outcomes {
        let partition =
            AlterReplicaLogDirPartitionResult::default().with_partition_index(index).with_error_code(error_code);
        let position = *positions.entry(topic.clone()).or_insert(results.len());
        if position == results.len() {
            results.push(AlterReplicaLogDirTopicResult::default().with_topic_name(topic));
        }
        results[position].partitions.push(partition);
    }
    results
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    #[test]
    fn outcomes_of_many_topics_are_merged_by_topic_in_their_order() {
        let topic = |number: i32| TopicName(StrBytes::from_string(format!("t{number}")));
        let outcomes = (0..2).flat_map(|index| (0..80_000).map(move |number| (number, index)));
        let merged = merge(outcomes.map(|(number, index)| (topic(number), index, 0)));
        assert_eq!(merged.len(), 80_000);
        let indexes: Vec<i32> = merged[79_999].partitions.iter().map(|partition| partition.partition_index).collect();
        assert_eq!((&merged[79_999].topic_name, indexes), (&topic(79_999), vec![0, 1]));
    }

    #[test]
    fn a_partition_may_be_where_it_is() {
        let here = TopicPartition { topic: "t".into(), partition: 0 };
        let dir = |path: &str, offline, partitions: &[&TopicPartition]| LogDir {
            path: path.into(),
            offline,
            partitions: partitions.iter().map(|partition| (*partition).clone()).collect(),
        };
        let dirs = [dir("/a", false, &[&here]), dir("/b", false, &[]), dir("/c", true, &[])];
        let hosted = |partition: &TopicPartition| {
            if *partition == here { Ok(()) } else { Err(ResponseError::UnknownTopicOrPartition) }
        };
        let ask = |path: &str, partition: &TopicPartition| alter_partition(&dirs, Path::new(path), partition, &hosted);
        assert_eq!(ask("/a", &here), Ok(()));
        assert_eq!(ask("/b", &here), Err(ResponseError::KafkaStorageError));
        assert_eq!(ask("/c", &here), Err(ResponseError::KafkaStorageError));
        assert_eq!(ask("/d", &here), Err(ResponseError::LogDirNotFound));
        assert_eq!(
            ask("/a", &TopicPartition { topic: "t".into(), partition: 1 }),
            Err(ResponseError::UnknownTopicOrPartition)
        );
    }

    #[test]
    fn a_topic_is_told_once() {
        let name = |name: &'static str| TopicName(kafka_protocol::protocol::StrBytes::from_static_str(name));
        let merged = merge([(name("t"), 0, 0), (name("u"), 0, 57), (name("t"), 1, 56)].into_iter());
        let told: Vec<_> = merged.iter().map(|topic| (topic.topic_name.to_string(), topic.partitions.len())).collect();
        assert_eq!(told, [("t".to_owned(), 2), ("u".to_owned(), 1)]);
    }
}
