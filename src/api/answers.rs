//! The fields that all responses have: their error codes and the throttle time.
//!
//! Errors are counted as in Kafka (`AbstractResponse.errorCounts`): the error of the response itself, and the error of
//! each group, topic or partition in it.

use std::iter::once;

use kafka_protocol::messages::{
    AllocateProducerIdsResponse, AlterClientQuotasResponse, AlterConfigsResponse, AlterPartitionReassignmentsResponse,
    AlterPartitionResponse, AlterReplicaLogDirsResponse, ApiVersionsResponse, AssignReplicasToDirsResponse,
    BrokerHeartbeatResponse, BrokerRegistrationResponse, CreateAclsResponse, CreatePartitionsResponse,
    CreateTopicsResponse, DeleteAclsResponse, DeleteGroupsResponse, DeleteRecordsResponse, DeleteTopicsResponse,
    DescribeAclsResponse, DescribeClientQuotasResponse, DescribeClusterResponse, DescribeConfigsResponse,
    DescribeGroupsResponse, DescribeProducersResponse, DescribeQuorumResponse, DescribeTopicPartitionsResponse,
    DescribeTransactionsResponse, DescribeUserScramCredentialsResponse, ElectLeadersResponse, FetchSnapshotResponse,
    FindCoordinatorResponse, HeartbeatResponse, IncrementalAlterConfigsResponse, InitProducerIdResponse,
    JoinGroupResponse, LeaveGroupResponse, ListConfigResourcesResponse, ListGroupsResponse,
    ListPartitionReassignmentsResponse, ListTransactionsResponse, MetadataResponse, OffsetDeleteResponse,
    OffsetForLeaderEpochResponse, RemoveRaftVoterResponse, SaslHandshakeResponse, SyncGroupResponse,
    UnregisterBrokerResponse, UpdateFeaturesResponse, UpdateRaftVoterResponse,
};

use crate::{
    metrics::RequestCounters,
    protocol::{
        add_raft_voter::AddRaftVoterResponse, describe_log_dirs::DescribeLogDirsResponse, fetch::FetchResponse,
        list_offsets::ListOffsetsResponse, offset_commit::OffsetCommitResponse, offset_fetch::OffsetFetchResponse,
        produce::ProduceResponse, quorum_messages::QuorumMessagesResponse,
    },
};

/// The fields that responses share.
pub(crate) trait AnswerFields {
    /// Sets the throttle time, if the response has a field for it.
    fn set_throttle_time_ms(&mut self, throttle_time_ms: i32);

    /// Calls `each` with every code; 0 means no error.
    fn error_codes(&self, each: &mut dyn FnMut(i16));

    /// Adds the error codes to the counters of the API.
    fn count_errors(&self, key: i16, counters: &RequestCounters) {
        // Successive codes are mostly equal, so each run of equal codes is counted in one step.
        let (mut last, mut times) = (0, 0);
        self.error_codes(&mut |code| {
            if code != last {
                counters.count_errors(key, last, std::mem::take(&mut times));
                last = code;
            }
            times += 1;
        });
        counters.count_errors(key, last, times);
    }
}

/// A row: the response, whether it is one of the few without `throttle_time_ms`, and its codes.
macro_rules! answers {
    ($($response:ident($answer:ident) $($not_throttled:ident)? => $codes:expr;)*) => {
        $(impl AnswerFields for $response {
            fn set_throttle_time_ms(&mut self, throttle_time_ms: i32) {
                answers!(@throttle self throttle_time_ms $($not_throttled)?);
            }

            fn error_codes(&self, each: &mut dyn FnMut(i16)) {
                let $answer = self;
                $codes.for_each(each);
            }
        })*
    };
    (@throttle $self:ident $time_ms:ident not_throttled) => {
        let _ = $time_ms;
    };
    (@throttle $self:ident $time_ms:ident) => {
        $self.throttle_time_ms = $time_ms;
    };
}

/// The codes of all partitions of all topics.
macro_rules! partitions {
    ($topics:expr) => {
        $topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code)
    };
}

/// The codes of a list.
macro_rules! each {
    ($list:expr) => {
        $list.iter().map(|one| one.error_code)
    };
}

answers! {
    ProduceResponse(answer) => partitions!(answer.topics);
    FetchResponse(answer) => once(answer.error_code).chain(partitions!(answer.topics));
    ListOffsetsResponse(answer) => partitions!(answer.topics);
    MetadataResponse(answer) => each!(answer.topics).chain(partitions!(answer.topics));
    OffsetCommitResponse(answer) => partitions!(answer.topics);
    OffsetFetchResponse(answer) =>
        each!(answer.groups).chain(answer.groups.iter().flat_map(|group| partitions!(group.topics)));
    FindCoordinatorResponse(answer) =>
        answer.coordinators.is_empty().then_some(answer.error_code).into_iter().chain(each!(answer.coordinators));
    JoinGroupResponse(answer) => once(answer.error_code);
    HeartbeatResponse(answer) => once(answer.error_code);
    LeaveGroupResponse(answer) => once(answer.error_code).chain(each!(answer.members));
    SyncGroupResponse(answer) => once(answer.error_code);
    DescribeGroupsResponse(answer) => each!(answer.groups);
    ListGroupsResponse(answer) => once(answer.error_code);
    SaslHandshakeResponse(answer) not_throttled => once(answer.error_code);
    ApiVersionsResponse(answer) => once(answer.error_code);
    CreateTopicsResponse(answer) => each!(answer.topics);
    DeleteTopicsResponse(answer) => each!(answer.responses);
    DeleteRecordsResponse(answer) => partitions!(answer.topics);
    InitProducerIdResponse(answer) => once(answer.error_code);
    OffsetForLeaderEpochResponse(answer) => partitions!(answer.topics);
    DescribeAclsResponse(answer) => once(answer.error_code);
    CreateAclsResponse(answer) => each!(answer.results);
    DeleteAclsResponse(answer) => each!(answer.filter_results);
    DescribeConfigsResponse(answer) => each!(answer.results);
    AlterConfigsResponse(answer) => each!(answer.responses);
    AlterReplicaLogDirsResponse(answer) => partitions!(answer.results);
    DescribeLogDirsResponse(answer) => once(answer.error_code).chain(each!(answer.results));
    CreatePartitionsResponse(answer) => each!(answer.results);
    DeleteGroupsResponse(answer) => each!(answer.results);
    ElectLeadersResponse(answer) => once(answer.error_code).chain(
        answer.replica_election_results.iter().flat_map(|topic| each!(topic.partition_result)));
    IncrementalAlterConfigsResponse(answer) => each!(answer.responses);
    AlterPartitionReassignmentsResponse(answer) => once(answer.error_code).chain(partitions!(answer.responses));
    ListPartitionReassignmentsResponse(answer) => once(answer.error_code);
    OffsetDeleteResponse(answer) => once(answer.error_code).chain(partitions!(answer.topics));
    DescribeClientQuotasResponse(answer) => once(answer.error_code);
    AlterClientQuotasResponse(answer) => each!(answer.entries);
    DescribeUserScramCredentialsResponse(answer) => once(answer.error_code).chain(each!(answer.results));
    DescribeProducersResponse(answer) => partitions!(answer.topics);
    DescribeQuorumResponse(answer) not_throttled => once(answer.error_code).chain(partitions!(answer.topics));
    UpdateFeaturesResponse(answer) => once(answer.error_code).chain(each!(answer.results));
    FetchSnapshotResponse(answer) => once(answer.error_code).chain(partitions!(answer.topics));
    DescribeClusterResponse(answer) => once(answer.error_code);
    AddRaftVoterResponse(answer) => once(answer.error_code);
    AllocateProducerIdsResponse(answer) => once(answer.error_code);
    RemoveRaftVoterResponse(answer) => once(answer.error_code);
    UpdateRaftVoterResponse(answer) => once(answer.error_code);
    AlterPartitionResponse(answer) => once(answer.error_code).chain(partitions!(answer.topics));
    AssignReplicasToDirsResponse(answer) => once(answer.error_code);
    BrokerRegistrationResponse(answer) => once(answer.error_code);
    BrokerHeartbeatResponse(answer) => once(answer.error_code);
    QuorumMessagesResponse(answer) not_throttled => once(answer.error_code);
    UnregisterBrokerResponse(answer) => once(answer.error_code);
    DescribeTransactionsResponse(answer) => each!(answer.transaction_states);
    ListTransactionsResponse(answer) => once(answer.error_code);
    ListConfigResourcesResponse(answer) => once(answer.error_code);
    DescribeTopicPartitionsResponse(answer) => each!(answer.topics).chain(partitions!(answer.topics));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metrics::Metrics,
        protocol::produce::{PartitionProduceResponse, TopicProduceResponse},
    };

    #[test]
    fn every_partition_of_an_answer_counts() {
        let metrics = Metrics::new([(0, 13)].into_iter(), [].into_iter());
        let topic = |codes: &[i16]| TopicProduceResponse {
            partitions: codes.iter().map(|code| PartitionProduceResponse::error(0, *code)).collect(),
            ..Default::default()
        };
        let answer = ProduceResponse { topics: vec![topic(&[0, 0, 3]), topic(&[3, 10, 0])], ..Default::default() };
        answer.count_errors(0, &metrics.requests);
        assert_eq!(metrics.requests.errors().collect::<Vec<_>>(), [(0, 0, 3), (0, 3, 2), (0, 10, 1)]);
    }
}
