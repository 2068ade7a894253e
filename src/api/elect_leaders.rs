//! ElectLeaders (key 43).
//!
//! Behavior: Apache's `ReplicationControlManager.electLeaders`. If this broker is the only replica of a partition, it
//! is already the leader or cannot be elected. So no request changes anything, and the response is made from the image.
//! Version notes: 1+ has the election type and an error for the whole request.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ElectLeadersRequest, ElectLeadersResponse,
        elect_leaders_response::{PartitionResult, ReplicaElectionResult},
    },
    protocol::StrBytes,
};

use super::{RequestContext, error_message, errors::check_time_left, topics::topic_name};
use crate::{
    controller::ApiError,
    metadata::image::{MetadataImage, PartitionImage},
};

/// Apache: `ElectionType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Election {
    Preferred,
    Unclean,
}

pub(crate) async fn handle(ctx: RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let response = elect(&ctx.image(), &request);
    if ctx.api_version == 0 { response.with_error_code(0) } else { response }
}

fn elect(image: &MetadataImage, request: &ElectLeadersRequest) -> ElectLeadersResponse {
    let response = ElectLeadersResponse::default();
    let is_about_nothing = request.topic_partitions.as_ref().is_some_and(Vec::is_empty);
    if let (false, Err(error)) = (is_about_nothing, check_time_left(request.timeout_ms)) {
        return refused(request, &error);
    }
    let election = match request.election_type {
        0 => Election::Preferred,
        1 => Election::Unclean,
        unknown => return refused(request, &ApiError::invalid_request(format!("Unknown election type {unknown}"))),
    };
    response.with_replica_election_results(match &request.topic_partitions {
        Some(topics) => {
            let of_topic = |topic: &str, partitions: &[i32]| {
                partitions
                    .iter()
                    .map(|index| partition_result(*index, &elect_partition(image, topic, *index, election)))
                    .collect()
            };
            let results =
                topics.iter().map(|asked| topic_result(&asked.topic, of_topic(&asked.topic, &asked.partitions)));
            results.collect()
        }
        None => all_topics(image, election),
    })
}

/// Results of all partitions except those that already have the desired leader.
fn all_topics(image: &MetadataImage, election: Election) -> Vec<ReplicaElectionResult> {
    let results = image.topics.by_name.values().map(|topic| {
        let partitions = topic.partitions.iter().filter_map(|(index, partition)| {
            let error = outcome(partition, election);
            (error.error != ResponseError::ElectionNotNeeded).then(|| partition_result(*index, &error))
        });
        topic_result(&topic.name, partitions.collect())
    });
    results.collect()
}

fn elect_partition(image: &MetadataImage, topic: &str, index: i32, election: Election) -> ApiError {
    let unknown = |message| ApiError::new(ResponseError::UnknownTopicOrPartition, message);
    match (image.topic(topic), image.partition(topic, index)) {
        (None, _) => unknown(format!("No such topic as {topic}")),
        (_, None) => unknown(format!("No such partition as {topic}-{index}")),
        (_, Some(partition)) => outcome(partition, election),
    }
}

fn outcome(partition: &PartitionImage, election: Election) -> ApiError {
    let has_leader = match election {
        Election::Preferred => partition.replicas.first() == Some(&partition.leader),
        Election::Unclean => partition.leader >= 0,
    };
    match (has_leader, election) {
        (true, _) => ApiError::new(ResponseError::ElectionNotNeeded, "Leader election not needed for topic partition."),
        (false, Election::Preferred) => {
            ApiError::new(ResponseError::PreferredLeaderNotAvailable, "The preferred leader was not available.")
        }
        (false, Election::Unclean) => ApiError::new(
            ResponseError::EligibleLeadersNotAvailable,
            "Eligible topic partition leaders are not available.",
        ),
    }
}

/// Apache: `ElectLeadersRequest.getErrorResponse`. The response and each partition carry the code.
fn refused(request: &ElectLeadersRequest, error: &ApiError) -> ElectLeadersResponse {
    let topics = request.topic_partitions.iter().flatten();
    let results = topics.map(|asked| {
        topic_result(&asked.topic, asked.partitions.iter().map(|index| partition_result(*index, error)).collect())
    });
    ElectLeadersResponse::default().with_error_code(error.code()).with_replica_election_results(results.collect())
}

fn topic_result(name: &str, partitions: Vec<PartitionResult>) -> ReplicaElectionResult {
    ReplicaElectionResult::default().with_topic(topic_name(name)).with_partition_result(partitions)
}

fn partition_result(index: i32, error: &ApiError) -> PartitionResult {
    let message: Option<StrBytes> = error_message(error);
    PartitionResult::default().with_partition_id(index).with_error_code(error.code()).with_error_message(message)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::elect_leaders_request::TopicPartitions;

    use super::*;
    use crate::controller::testing::{add_topic, image_with_brokers};

    fn request(election: i8, topic: &str, partitions: &[i32]) -> ElectLeadersRequest {
        let topics =
            vec![TopicPartitions::default().with_topic(topic_name(topic)).with_partitions(partitions.to_vec())];
        ElectLeadersRequest::default().with_election_type(election).with_topic_partitions(Some(topics))
    }

    fn codes(response: &ElectLeadersResponse) -> Vec<i16> {
        response
            .replica_election_results
            .iter()
            .flat_map(|topic| topic.partition_result.iter().map(|partition| partition.error_code))
            .collect()
    }

    #[test]
    fn without_time_nothing_is_elected_and_a_request_about_nothing_needs_none() {
        let mut image = image_with_brokers(&[1]);
        add_topic(&mut image, "t", &[&[1]]);
        let timed_out = ResponseError::RequestTimedOut.code();
        for timeout_ms in [0, -1] {
            let answer = elect(&image, &request(0, "t", &[0, 7]).with_timeout_ms(timeout_ms));
            assert_eq!((answer.error_code, codes(&answer)), (timed_out, vec![timed_out; 2]));
            let nothing = request(0, "t", &[]).with_topic_partitions(Some(vec![])).with_timeout_ms(timeout_ms);
            assert_eq!(elect(&image, &nothing).error_code, 0);
        }
    }

    #[test]
    fn one_broker_has_nothing_to_elect() {
        let mut image = image_with_brokers(&[1]);
        add_topic(&mut image, "t", &[&[1], &[1]]);
        let not_needed = ResponseError::ElectionNotNeeded.code();
        let unknown = ResponseError::UnknownTopicOrPartition.code();
        for election in [0, 1] {
            assert_eq!(codes(&elect(&image, &request(election, "t", &[0, 1, 2]))), [not_needed, not_needed, unknown]);
            assert_eq!(codes(&elect(&image, &request(election, "none", &[0]))), [unknown]);
        }
        // A request for all partitions returns only those that need an election.
        let all = elect(&image, &ElectLeadersRequest::default().with_topic_partitions(None));
        assert_eq!(all.replica_election_results.len(), 1);
        assert_eq!(codes(&all), [0; 0]);
        let refused = elect(&image, &request(2, "t", &[0]));
        assert_eq!(
            (refused.error_code, codes(&refused)),
            (ResponseError::InvalidRequest.code(), vec![ResponseError::InvalidRequest.code()])
        );
    }
}
