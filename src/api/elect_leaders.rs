//! ElectLeaders (key 43).
//!
//! Behavior: A7, C9. Partitions that do not exist or already have the desired leader are answered from the image; the
//! controller decides the others, in portions.
//! Version notes: 1+ has the election type and an error for the whole request.

use kafka_protocol::messages::{
    ElectLeadersRequest, ElectLeadersResponse,
    elect_leaders_response::{PartitionResult, ReplicaElectionResult},
};

use super::{
    RequestContext,
    authorized::{AuthorizedCluster, Operation},
    error_message,
    errors::check_time_left,
    topics::topic_name,
};
use crate::{
    controller::{
        ApiError,
        elections::{ElectLeaders, ElectionType, check_needed},
    },
    metadata::image::MetadataImage,
};

pub(crate) async fn handle(ctx: RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let elect = async {
        ctx.check_active_controller()?;
        let mut plan = Plan::new(&ctx.image(), &request)?;
        plan.elect(&ctx.cluster(Operation::Alter)?).await?;
        Ok(plan)
    };
    let response = match elect.await {
        Ok(plan) => plan.into_response(),
        Err(error) => refused(&request, &error),
    };
    if ctx.api_version == 0 { response.with_error_code(0) } else { response }
}

/// The results. Those of the open partitions are for the controller.
struct Plan {
    election_type: ElectionType,
    results: Vec<ReplicaElectionResult>,
    /// The positions of a topic in the results and of a partition in those of the topic.
    open: Vec<(usize, usize)>,
}

impl Plan {
    fn new(image: &MetadataImage, request: &ElectLeadersRequest) -> Result<Self, ApiError> {
        let is_about_nothing = request.topic_partitions.as_ref().is_some_and(Vec::is_empty);
        if !is_about_nothing {
            check_time_left(request.timeout_ms)?;
        }
        let unknown = || ApiError::invalid_request(format!("Unknown election type {}", request.election_type));
        let election_type = ElectionType::from_id(request.election_type).ok_or_else(unknown)?;
        let mut plan = Plan { election_type, results: Vec::new(), open: Vec::new() };
        match &request.topic_partitions {
            Some(topics) => {
                for asked in topics {
                    plan.add(image, &asked.topic, asked.partitions.iter().copied(), |_| true);
                }
            }
            // Partitions that already have the desired leader are not in the response.
            None => {
                for topic in image.topics.by_name.values() {
                    plan.add(image, &topic.name, topic.partitions.keys().copied(), Result::is_ok);
                }
            }
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        image: &MetadataImage,
        topic: &str,
        partitions: impl Iterator<Item = i32>,
        is_included: impl Fn(&Result<(), ApiError>) -> bool,
    ) {
        let mut results = Vec::new();
        for index in partitions {
            let needed = check_needed(image, topic, index, self.election_type);
            if is_included(&needed) {
                if needed.is_ok() {
                    self.open.push((self.results.len(), results.len()));
                }
                results.push(partition_result(index, &needed));
            }
        }
        self.results.push(topic_result(topic, results));
    }

    /// Lets the controller decide the open partitions.
    async fn elect(&mut self, cluster: &AuthorizedCluster<'_>) -> Result<(), ApiError> {
        for (position, portion) in self.open.chunks(ElectLeaders::PORTION).enumerate() {
            let named = portion.iter().map(|(topic, partition)| {
                let topic = &self.results[*topic];
                (topic.topic.to_string(), topic.partition_result[*partition].partition_id)
            });
            let request = ElectLeaders { election_type: self.election_type, partitions: named.collect() };
            let decided = match cluster.controller().call(request).await {
                Ok(decided) => decided,
                Err(error) if position == 0 => return Err(error.into()),
                Err(error) => vec![Err(error.into()); portion.len()],
            };
            for ((topic, partition), result) in portion.iter().zip(decided) {
                let decided = &mut self.results[*topic].partition_result[*partition];
                *decided = partition_result(decided.partition_id, &result);
            }
        }
        Ok(())
    }

    fn into_response(self) -> ElectLeadersResponse {
        ElectLeadersResponse::default().with_replica_election_results(self.results)
    }
}

/// Apache: `ElectLeadersRequest.getErrorResponse`. The response and each partition carry the code.
fn refused(request: &ElectLeadersRequest, error: &ApiError) -> ElectLeadersResponse {
    let topics = request.topic_partitions.iter().flatten();
    let refused = Err(error.clone());
    let results = topics.map(|asked| {
        topic_result(&asked.topic, asked.partitions.iter().map(|index| partition_result(*index, &refused)).collect())
    });
    ElectLeadersResponse::default().with_error_code(error.code()).with_replica_election_results(results.collect())
}

fn topic_result(name: &str, partitions: Vec<PartitionResult>) -> ReplicaElectionResult {
    ReplicaElectionResult::default().with_topic(topic_name(name)).with_partition_result(partitions)
}

fn partition_result(index: i32, result: &Result<(), ApiError>) -> PartitionResult {
    let partition = PartitionResult::default().with_partition_id(index);
    match result {
        Ok(()) => partition,
        Err(error) => partition.with_error_code(error.code()).with_error_message(error_message(error)),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{error::ResponseError, messages::elect_leaders_request::TopicPartitions};

    use super::*;
    use crate::controller::testing::{add_topic, image_with_brokers};

    fn request(election: i8, topic: &str, partitions: &[i32]) -> ElectLeadersRequest {
        let topics =
            vec![TopicPartitions::default().with_topic(topic_name(topic)).with_partitions(partitions.to_vec())];
        ElectLeadersRequest::default().with_election_type(election).with_topic_partitions(Some(topics))
    }

    /// The response if no partition needs the controller.
    fn elect(image: &MetadataImage, request: &ElectLeadersRequest) -> ElectLeadersResponse {
        match Plan::new(image, request) {
            Ok(plan) => plan.into_response(),
            Err(error) => refused(request, &error),
        }
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

    #[test]
    fn only_partitions_that_need_an_election_go_to_the_controller() {
        let mut image = image_with_brokers(&[1, 2]);
        add_topic(&mut image, "t", &[&[1, 2], &[1]]);
        let topics = std::sync::Arc::make_mut(image.topics.by_name.get_mut("t").unwrap());
        topics.partitions.get_mut(&0).unwrap().leader = 2;
        topics.partitions.get_mut(&1).unwrap().leader = -1;
        let open = |request: &ElectLeadersRequest| {
            let Plan { results, open, .. } = Plan::new(&image, request).ok().unwrap();
            let id = |(topic, partition): (usize, usize)| results[topic].partition_result[partition].partition_id;
            open.into_iter().map(id).collect::<Vec<_>>()
        };
        assert_eq!(open(&request(0, "t", &[0, 1, 7])), [0, 1]);
        assert_eq!(open(&request(1, "t", &[0, 1, 7])), [1]);
        let all = ElectLeadersRequest::default().with_topic_partitions(None).with_election_type(1);
        assert_eq!(open(&all), [1]);
    }
}
