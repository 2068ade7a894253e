//! AlterPartitionReassignments (key 45).
//!
//! Behavior: Apache's `ReplicationControlManager.alterPartitionReassignments`, as far as it applies to one broker: only
//! the current assignment is accepted, so no replica moves and no reassignment is ever in progress.
//! Version notes: 1+ may refuse a changed number of replicas.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
        alter_partition_reassignments_request::ReassignablePartition,
        alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse},
    },
    protocol::StrBytes,
};

use super::{RequestContext, error_message, errors::check_time_left};
use crate::{
    controller::{ApiError, partitions::validate_manual_assignment},
    metadata::image::MetadataImage,
    types::BrokerId,
};

pub(crate) async fn handle(
    ctx: RequestContext,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    match ctx.check_active_controller() {
        Ok(()) => reassign(&ctx.image(), request),
        Err(error) => refused(request, &error),
    }
}

fn reassign(image: &MetadataImage, request: AlterPartitionReassignmentsRequest) -> AlterPartitionReassignmentsResponse {
    if let (false, Err(error)) = (request.topics.is_empty(), check_time_left(request.timeout_ms)) {
        return refused(request, &error);
    }
    // Apache: `QuorumController` answers an empty request itself, with the default message, which is "".
    let message = request.topics.is_empty().then(StrBytes::new);
    // Most partitions get the same message, so they share one string.
    let mut told: Option<StrBytes> = None;
    let mut shared = |message: Option<StrBytes>| {
        if message != told {
            told = message;
        }
        told.clone()
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|target| {
            let response = ReassignablePartitionResponse::default().with_partition_index(target.partition_index);
            match reassign_partition(image, &topic.name, &target) {
                Ok(()) => response.with_error_message(None),
                Err(error) => response.with_error_code(error.code()).with_error_message(shared(error_message(&error))),
            }
        });
        ReassignableTopicResponse::default().with_partitions(partitions.collect()).with_name(topic.name.clone())
    });
    AlterPartitionReassignmentsResponse::default()
        .with_allow_replication_factor_change(request.allow_replication_factor_change)
        .with_error_message(message)
        .with_responses(topics.collect())
}

/// Apache: `AlterPartitionReassignmentsRequest.getErrorResponse`. The response and each partition carry the code.
fn refused(request: AlterPartitionReassignmentsRequest, error: &ApiError) -> AlterPartitionReassignmentsResponse {
    let message = error_message(error);
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|target| {
            ReassignablePartitionResponse::default()
                .with_partition_index(target.partition_index)
                .with_error_code(error.code())
                .with_error_message(message.clone())
        });
        ReassignableTopicResponse::default().with_partitions(partitions.collect()).with_name(topic.name)
    });
    AlterPartitionReassignmentsResponse::default()
        .with_allow_replication_factor_change(request.allow_replication_factor_change)
        .with_error_code(error.code())
        .with_error_message(message.clone())
        .with_responses(topics.collect())
}

fn reassign_partition(image: &MetadataImage, topic: &str, target: &ReassignablePartition) -> Result<(), ApiError> {
    let unknown = |message| Err(ApiError::new(ResponseError::UnknownTopicOrPartition, message));
    if image.topic(topic).is_none() {
        return unknown(format!("Unable to find a topic named {topic}."));
    }
    let Some(partition) = image.partition(topic, target.partition_index) else {
        return unknown(format!("Unable to find partition {topic}:{}.", target.partition_index));
    };
    let Some(replicas) = &target.replicas else {
        return Err(ApiError::new(
            ResponseError::NoReassignmentInProgress,
            "No partition reassignment is in progress.",
        ));
    };
    let replicas: Vec<BrokerId> = replicas.iter().map(|broker| broker.0).collect();
    validate_manual_assignment(image, &replicas, None)?;
    if replicas != partition.replicas {
        return Err(ApiError::new(
            ResponseError::InvalidReplicaAssignment,
            "Replicas cannot be moved between brokers.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{
        BrokerId as WireBrokerId, alter_partition_reassignments_request::ReassignableTopic,
    };

    use super::*;
    use crate::{
        api::topics::topic_name,
        controller::testing::{add_topic, image_with_brokers},
    };

    fn answer(image: &MetadataImage, topic: &str, index: i32, replicas: Option<&[i32]>) -> (i16, Option<String>) {
        let partition = ReassignablePartition::default()
            .with_partition_index(index)
            .with_replicas(replicas.map(|replicas| replicas.iter().map(|broker| WireBrokerId(*broker)).collect()));
        let topic = ReassignableTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
        let response = reassign(image, AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]));
        let partition = &response.responses[0].partitions[0];
        (partition.error_code, partition.error_message.as_ref().map(|message| message.to_string()))
    }

    #[test]
    fn the_assignment_that_holds_is_the_only_one_that_can_be_asked_for() {
        let mut image = image_with_brokers(&[1]);
        add_topic(&mut image, "t", &[&[1]]);
        let refused = |error: ResponseError, message: &str| (error.code(), Some(message.to_owned()));
        assert_eq!(answer(&image, "t", 0, Some(&[1])), (0, None));
        assert_eq!(
            answer(&image, "t", 0, None),
            refused(ResponseError::NoReassignmentInProgress, "No partition reassignment is in progress.")
        );
        assert_eq!(
            answer(&image, "t", 0, Some(&[1, 2])),
            refused(
                ResponseError::InvalidReplicaAssignment,
                "The manual partition assignment includes broker 2, but no such broker is registered."
            )
        );
        assert_eq!(
            answer(&image, "t", 1, Some(&[1])),
            refused(ResponseError::UnknownTopicOrPartition, "Unable to find partition t:1.")
        );
        assert_eq!(
            answer(&image, "u", 0, None),
            refused(ResponseError::UnknownTopicOrPartition, "Unable to find a topic named u.")
        );
    }
}
