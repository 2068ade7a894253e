//! Maps Ottla's errors to Kafka's error codes. This is the only place that does it: one exhaustive match per
//! error type, so that a new variant does not compile without a code.

use kafka_protocol::error::ResponseError;

use crate::{
    controller::ApiError,
    coordinator::group::GroupError,
    log::{AppendError, InvalidKind, LogError, ReadError},
    raft::VoterChangeError,
    replica::PartitionError,
};

/// The error code of a partition error.
pub(crate) fn partition(error: &PartitionError) -> ResponseError {
    match error {
        PartitionError::NotLeader(_) => ResponseError::NotLeaderOrFollower,
        PartitionError::FencedLeaderEpoch { .. } => ResponseError::FencedLeaderEpoch,
        PartitionError::UnknownLeaderEpoch { .. } => ResponseError::UnknownLeaderEpoch,
        PartitionError::NotEnoughReplicas { .. } => ResponseError::NotEnoughReplicas,
        PartitionError::NotEnoughReplicasAfterAppend(_) => ResponseError::NotEnoughReplicasAfterAppend,
        PartitionError::OffsetNotAvailable(_) => ResponseError::OffsetNotAvailable,
        PartitionError::Append(error) => append(error),
        PartitionError::Read(error) => read(error),
        PartitionError::Storage(error) => storage(error),
    }
}

/// The error of a change of the metadata quorum's voters (Apache: `AddVoterHandler`, `RemoveVoterHandler`).
pub(crate) fn voter_change_error(error: VoterChangeError) -> ApiError {
    let kind = match error {
        VoterChangeError::NotController => ResponseError::NotController,
        VoterChangeError::Pending | VoterChangeError::Lagging | VoterChangeError::HandsOver => {
            ResponseError::RequestTimedOut
        }
        VoterChangeError::Duplicate => ResponseError::DuplicateVoter,
        VoterChangeError::NotFound => ResponseError::VoterNotFound,
    };
    ApiError::new(kind, error.to_string())
}

/// The error code of an invalid record batch (P3–P8).
pub(crate) fn invalid_records(kind: InvalidKind) -> ResponseError {
    match kind {
        InvalidKind::CorruptMessage => ResponseError::CorruptMessage,
        InvalidKind::InvalidRecord => ResponseError::InvalidRecord,
        InvalidKind::InvalidTimestamp => ResponseError::InvalidTimestamp,
        InvalidKind::MessageTooLarge => ResponseError::MessageTooLarge,
        InvalidKind::UnsupportedCompressionType => ResponseError::UnsupportedCompressionType,
    }
}

fn append(error: &AppendError) -> ResponseError {
    match error {
        AppendError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
        AppendError::InvalidProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
        AppendError::InvalidTxnState { .. } => ResponseError::InvalidTxnState,
        AppendError::TransactionCoordinatorFenced { .. } => ResponseError::TransactionCoordinatorFenced,
        AppendError::LargerThanSegment { .. } => ResponseError::RecordListTooLarge,
        AppendError::UnexpectedOffset { .. } | AppendError::Corrupt { .. } => ResponseError::CorruptMessage,
        AppendError::Storage(error) => storage(error),
    }
}

fn read(error: &ReadError) -> ResponseError {
    match error {
        ReadError::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
        ReadError::Storage(error) => storage(error),
    }
}

/// The error code of a storage error. The client can only retry later, on this broker or another.
pub(crate) fn storage(error: &LogError) -> ResponseError {
    match error {
        // Like Apache's `CorruptRecordException`: consumers stop with an error that contains the offset.
        LogError::Corrupt { .. } => ResponseError::CorruptMessage,
        LogError::Io { .. }
        | LogError::DirOffline { .. }
        | LogError::DirMissing { .. }
        | LogError::Lost { .. }
        | LogError::Locked { .. }
        | LogError::Invalid { .. } => ResponseError::KafkaStorageError,
        // The client then refreshes its metadata and retries: a topic or segment was deleted, or the log was closed.
        LogError::Deleted { .. } | LogError::Closed { .. } => ResponseError::NotLeaderOrFollower,
    }
}

/// The error code of a group coordinator error.
pub(crate) fn group(error: GroupError) -> ResponseError {
    match error {
        GroupError::UnknownServerError => ResponseError::UnknownServerError,
        GroupError::OffsetMetadataTooLarge => ResponseError::OffsetMetadataTooLarge,
        GroupError::CoordinatorLoadInProgress => ResponseError::CoordinatorLoadInProgress,
        GroupError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
        GroupError::NotCoordinator => ResponseError::NotCoordinator,
        GroupError::IllegalGeneration => ResponseError::IllegalGeneration,
        GroupError::InconsistentGroupProtocol => ResponseError::InconsistentGroupProtocol,
        GroupError::InvalidGroupId => ResponseError::InvalidGroupId,
        GroupError::UnknownMemberId => ResponseError::UnknownMemberId,
        GroupError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
        GroupError::RebalanceInProgress => ResponseError::RebalanceInProgress,
        GroupError::NonEmptyGroup => ResponseError::NonEmptyGroup,
        GroupError::GroupIdNotFound => ResponseError::GroupIdNotFound,
        GroupError::MemberIdRequired => ResponseError::MemberIdRequired,
        GroupError::GroupMaxSizeReached => ResponseError::GroupMaxSizeReached,
        GroupError::FencedInstanceId => ResponseError::FencedInstanceId,
        GroupError::GroupSubscribedToTopic => ResponseError::GroupSubscribedToTopic,
        GroupError::GroupAuthorizationFailed => ResponseError::GroupAuthorizationFailed,
        GroupError::UnstableOffsetCommit => ResponseError::UnstableOffsetCommit,
    }
}

/// Returns REQUEST_TIMED_OUT if the timeout leaves no time for the controller. Apache then does nothing, too.
pub(super) fn check_time_left(timeout_ms: i32) -> Result<(), crate::controller::ApiError> {
    if timeout_ms > 0 { Ok(()) } else { Err(crate::controller::ApiError::code_only(ResponseError::RequestTimedOut)) }
}

/// The controller's message for the client. Without one, the client prints the default message of the code.
pub(super) fn error_message(error: &crate::controller::ApiError) -> Option<kafka_protocol::protocol::StrBytes> {
    error.message.clone().map(kafka_protocol::protocol::StrBytes::from_string)
}
