//! The domain types of group coordination: requests, results, errors and settings.
//!
//! Owns the types shared by the state machine ([`shard`], [`classic`], [`offsets`]), the runtime and the API
//! handlers. Leaves request versions to `api/`, record schemas to [`records`], and time, disk and waiting to
//! `coordinator::runtime`. Invariants: INV-G1 (one owner of a partition per generation), INV-G2 (generations never
//! decrease), INV-G3 (OffsetFetch returns the last committed offset or a later one), INV-G4 (replaying the log gives
//! the live state).

mod classic;
mod codec;
mod consumer_protocol;
mod offsets;
pub mod records;
pub mod shard;
mod small_map;
mod timers;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
pub use offsets::{DeletedTopics, OffsetPosition};
use thiserror::Error;

use crate::{
    config::BrokerConfig,
    types::{Offset, TimestampMs, TopicId},
};

/// The protocol type of consumers. The broker reads their subscriptions to learn which topics are in use.
pub const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// The settings of the group coordinator. A field has the name of Kafka's setting, unless its comment says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// The smallest session timeout that a classic member may request.
    pub group_min_session_timeout_ms: i32,
    /// The largest session timeout that a classic member may request.
    pub group_max_session_timeout_ms: i32,
    /// How long the first rebalance of an empty group waits for more members.
    pub group_initial_rebalance_delay_ms: i32,
    /// The most members of a classic group.
    pub group_max_size: usize,
    /// The most characters of metadata in an offset commit.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// The interval between two checks for expired offsets.
    pub offsets_retention_check_interval_ms: i64,
    /// How long a response waits for its records to be replicated.
    pub offsets_commit_timeout_ms: i32,
    /// The number of partitions with which `__consumer_offsets` will be created.
    pub offsets_topic_num_partitions: i32,
    /// The number of bytes per read while a partition is loaded.
    pub offsets_load_buffer_size: usize,
    /// The most groups in one partition of `__consumer_offsets`. Kafka has no such limit.
    pub max_groups_per_partition: usize,
    /// The most memory for all groups and offsets of the broker. Kafka has no such limit.
    pub max_bytes: usize,
    /// Damaged records of `__consumer_offsets` that are skipped: a partition and an offset, or a whole partition.
    pub accepted_loss: BTreeSet<(i32, Option<Offset>)>,
    /// The most member ids per group that were assigned but not yet used to join. Kafka has no such limit.
    pub max_pending_members: usize,
}

impl Default for GroupConfig {
    fn default() -> Self {
        GroupConfig {
            group_min_session_timeout_ms: 6_000,
            group_max_session_timeout_ms: 1_800_000,
            group_initial_rebalance_delay_ms: 3_000,
            group_max_size: i32::MAX as usize,
            offset_metadata_max_bytes: 4096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1000,
            offsets_retention_check_interval_ms: 600_000,
            offsets_commit_timeout_ms: 5_000,
            offsets_topic_num_partitions: 50,
            offsets_load_buffer_size: 5 * 1024 * 1024,
            max_groups_per_partition: 100_000,
            max_bytes: 256 * 1024 * 1024,
            accepted_loss: BTreeSet::new(),
            max_pending_members: 10_000,
        }
    }
}

impl From<&BrokerConfig> for GroupConfig {
    fn from(config: &BrokerConfig) -> Self {
        let count = |value: i32| usize::try_from(value).unwrap_or(0);
        GroupConfig {
            group_min_session_timeout_ms: config.group_min_session_timeout_ms,
            group_max_session_timeout_ms: config.group_max_session_timeout_ms,
            group_initial_rebalance_delay_ms: config.group_initial_rebalance_delay_ms,
            group_max_size: count(config.group_max_size),
            offset_metadata_max_bytes: count(config.offset_metadata_max_bytes),
            offsets_retention_ms: i64::from(config.offsets_retention_minutes) * 60_000,
            offsets_retention_check_interval_ms: config.offsets_retention_check_interval_ms,
            offsets_commit_timeout_ms: config.offsets_commit_timeout_ms,
            offsets_topic_num_partitions: config.offsets_topic_num_partitions,
            offsets_load_buffer_size: count(config.offsets_load_buffer_size),
            max_groups_per_partition: count(config.ottla_max_groups_per_partition),
            max_bytes: usize::try_from(config.ottla_groups_max_bytes).unwrap_or(usize::MAX),
            ..GroupConfig::default()
        }
    }
}

/// The errors of a request to the group coordinator. Each variant is one of Kafka's error codes, with Kafka's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GroupError {
    /// UNKNOWN_SERVER_ERROR(-1): the group's state does not fit into one record.
    #[error("the group's metadata cannot be stored")]
    UnknownServerError,
    /// OFFSET_METADATA_TOO_LARGE(12)
    #[error("the metadata of the offset commit is too large")]
    OffsetMetadataTooLarge,
    /// COORDINATOR_LOAD_IN_PROGRESS(14)
    #[error("the coordinator is loading its state")]
    CoordinatorLoadInProgress,
    /// COORDINATOR_NOT_AVAILABLE(15)
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// NOT_COORDINATOR(16)
    #[error("this broker does not coordinate that group")]
    NotCoordinator,
    /// ILLEGAL_GENERATION(22)
    #[error("the generation is not the group's current one")]
    IllegalGeneration,
    /// INCONSISTENT_GROUP_PROTOCOL(23)
    #[error("the member's protocols do not fit those of the group")]
    InconsistentGroupProtocol,
    /// INVALID_GROUP_ID(24)
    #[error("the group id is not valid")]
    InvalidGroupId,
    /// UNKNOWN_MEMBER_ID(25)
    #[error("the coordinator does not know this member")]
    UnknownMemberId,
    /// INVALID_SESSION_TIMEOUT(26)
    #[error("the session timeout is outside the broker's bounds")]
    InvalidSessionTimeout,
    /// REBALANCE_IN_PROGRESS(27)
    #[error("the group is rebalancing, rejoin it")]
    RebalanceInProgress,
    /// NON_EMPTY_GROUP(68)
    #[error("the group is not empty")]
    NonEmptyGroup,
    /// GROUP_ID_NOT_FOUND(69)
    #[error("the group does not exist")]
    GroupIdNotFound,
    /// MEMBER_ID_REQUIRED(79): the client must join again with the member id of the response (KIP-394).
    #[error("join again with the given member id")]
    MemberIdRequired,
    /// GROUP_MAX_SIZE_REACHED(81)
    #[error("the group is full")]
    GroupMaxSizeReached,
    /// FENCED_INSTANCE_ID(82): another member took over the instance id (KIP-345).
    #[error("the instance id belongs to another member")]
    FencedInstanceId,
    /// GROUP_SUBSCRIBED_TO_TOPIC(86)
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    /// UNSTABLE_OFFSET_COMMIT(88): an open transaction holds a newer offset (KIP-447).
    #[error("a transaction with a newer offset is open")]
    UnstableOffsetCommit,
    /// GROUP_AUTHORIZATION_FAILED(30): checked before the request reaches the coordinator.
    #[error("the client may not use the group")]
    GroupAuthorizationFailed,
}

/// An assignment protocol that a member offers; the broker does not interpret `metadata`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberProtocol {
    pub name: Arc<str>,
    pub metadata: Bytes,
}

/// JoinGroup.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    pub group_id: Arc<str>,
    /// Empty for a member without an id.
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    /// As Kafka prints it: a slash and the address.
    pub client_host: Arc<str>,
    pub session_timeout_ms: i32,
    /// Equal to the session timeout for version 0.
    pub rebalance_timeout_ms: i32,
    pub protocol_type: Arc<str>,
    /// In the member's order of preference.
    pub protocols: Vec<MemberProtocol>,
    /// Version 4 and later: a dynamic member must join again with the id that it gets (KIP-394).
    pub requires_known_member_id: bool,
    /// Version 9 and later: the response may tell a returning static leader to skip the assignment (KIP-814).
    pub supports_skip_assignment: bool,
    /// Why the member joins (KIP-800).
    pub reason: Option<Arc<str>>,
}

/// A successful JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub generation_id: i32,
    pub protocol_type: Option<Arc<str>>,
    pub protocol_name: Option<Arc<str>>,
    pub leader: Arc<str>,
    pub skip_assignment: bool,
    pub member_id: Arc<str>,
    /// Filled for the leader only.
    pub members: Vec<JoinedMember>,
}

/// A member in the list for the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub metadata: Bytes,
}

/// A refused JoinGroup. The response contains `member_id`; for MEMBER_ID_REQUIRED it is the new id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinError {
    pub error: GroupError,
    pub member_id: Arc<str>,
}

/// SyncGroup.
#[derive(Debug, Clone)]
pub struct SyncRequest {
    pub group_id: Arc<str>,
    pub generation_id: i32,
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub protocol_type: Option<Arc<str>>,
    pub protocol_name: Option<Arc<str>>,
    /// The leader's assignments by member id; empty from followers.
    pub assignments: BTreeMap<Arc<str>, Bytes>,
}

/// A successful SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: Option<Arc<str>>,
    pub protocol_name: Option<Arc<str>>,
    pub assignment: Bytes,
}

/// Heartbeat.
#[derive(Debug, Clone)]
pub struct HeartbeatRequest {
    pub group_id: Arc<str>,
    pub generation_id: i32,
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
}

/// LeaveGroup; versions before 3 have exactly one member.
#[derive(Debug, Clone)]
pub struct LeaveRequest {
    pub group_id: Arc<str>,
    pub members: Vec<LeavingMember>,
}

/// A member to remove, by member id, or by instance id if the member id is empty.
#[derive(Debug, Clone)]
pub struct LeavingMember {
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub reason: Option<Arc<str>>,
}

/// The result of one member of a LeaveGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftMember {
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub error: Option<GroupError>,
}

/// OffsetCommit. The caller has checked that the topics and partitions exist.
#[derive(Debug, Clone)]
pub struct CommitOffsetsRequest {
    pub group_id: Arc<str>,
    /// Classic generation or consumer-group member epoch; -1 without group membership.
    pub generation_id_or_member_epoch: i32,
    /// Empty without group membership.
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    /// Versions 2–4: how long to keep the offset instead of the broker's retention.
    pub retention_time_ms: Option<i64>,
    /// If the group does not exist, the error is ILLEGAL_GENERATION up to version 8, and GROUP_ID_NOT_FOUND from 9 on.
    pub api_version: i16,
    pub topics: Vec<CommitTopic>,
}

#[derive(Debug, Clone)]
pub struct CommitTopic {
    pub name: Arc<str>,
    pub topic_id: TopicId,
    pub partitions: Vec<CommitPartition>,
}

#[derive(Debug, Clone)]
pub struct CommitPartition {
    pub partition: i32,
    pub committed_offset: i64,
    /// -1 when unknown.
    pub committed_leader_epoch: i32,
    pub committed_metadata: Arc<str>,
}

/// Per-partition outcome of OffsetCommit or OffsetDelete, in the request's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOutcome {
    pub name: Arc<str>,
    pub topic_id: TopicId,
    pub partitions: Vec<(i32, Option<GroupError>)>,
}

/// OffsetFetch of one group.
#[derive(Debug, Clone)]
pub struct FetchOffsetsRequest {
    pub group_id: Arc<str>,
    /// Version 9 and later, for consumer groups; empty otherwise.
    pub member_id: Option<Arc<str>>,
    /// -1 when not given.
    pub member_epoch: i32,
    /// Return UNSTABLE_OFFSET_COMMIT for partitions with an open transaction (KIP-447).
    pub require_stable: bool,
    pub topics: Vec<FetchOffsetsTopic>,
}

#[derive(Debug, Clone)]
pub struct FetchOffsetsTopic {
    pub name: Arc<str>,
    /// [`TopicId::ZERO`] before version 10.
    pub topic_id: TopicId,
    pub partitions: Vec<i32>,
}

/// Committed offsets of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedTopic {
    pub name: Arc<str>,
    pub topic_id: TopicId,
    pub partitions: Vec<FetchedOffset>,
}

/// A committed offset; -1 if there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedOffset {
    pub partition: i32,
    pub committed_offset: i64,
    pub committed_leader_epoch: i32,
    pub metadata: Arc<str>,
    pub error: Option<GroupError>,
}

/// OffsetDelete. The caller has checked that the topics and partitions exist.
#[derive(Debug, Clone)]
pub struct DeleteOffsetsRequest {
    pub group_id: Arc<str>,
    pub topics: Vec<(Arc<str>, Vec<i32>)>,
}

/// The states of a classic group, with Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    Dead,
}

impl GroupState {
    pub const ALL: [GroupState; 5] = [
        GroupState::Empty,
        GroupState::PreparingRebalance,
        GroupState::CompletingRebalance,
        GroupState::Stable,
        GroupState::Dead,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

/// The number of groups and offsets of a coordinator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// The number of groups in each state.
    pub groups: BTreeMap<GroupState, usize>,
    /// The number of committed offsets of all groups.
    pub offsets: usize,
}

/// The type of a group, as in ListGroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupType {
    Classic,
}

impl GroupType {
    pub fn as_str(self) -> &'static str {
        match self {
            GroupType::Classic => "classic",
        }
    }
}

/// A group as in DescribeGroups. A missing group is an `Err(GroupIdNotFound)` instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedGroup {
    pub group_id: Arc<str>,
    pub state: GroupState,
    pub protocol_type: Arc<str>,
    /// The chosen protocol; empty unless Stable.
    pub protocol_name: Arc<str>,
    pub members: Vec<DescribedMember>,
}

impl DescribedGroup {
    /// The approximate size of the group in a response.
    pub fn size_bytes(&self) -> usize {
        const STRUCT_BYTES: usize = 200;
        let members = self.members.iter().map(|member| {
            let names = member.member_id.len() + member.client_id.len() + member.client_host.len();
            STRUCT_BYTES + names + member.metadata.len() + member.assignment.len()
        });
        STRUCT_BYTES + self.group_id.len() + members.sum::<usize>()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    /// Empty unless the group is Stable.
    pub metadata: Bytes,
    pub assignment: Bytes,
}

/// A group as in ListGroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    pub group_id: Arc<str>,
    /// Empty for a group that only has offsets.
    pub protocol_type: Arc<str>,
    pub state: GroupState,
    pub group_type: GroupType,
}

/// The filter of ListGroups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupFilter {
    /// `None` means all states.
    states: Option<BTreeSet<GroupState>>,
    /// `None` means all types.
    types: Option<BTreeSet<GroupType>>,
}

impl GroupFilter {
    /// Names are case-insensitive. An empty list means no filter; an unknown name matches no group.
    pub fn new<'a>(states: impl Iterator<Item = &'a str>, types: impl Iterator<Item = &'a str>) -> Self {
        GroupFilter {
            states: wanted(states, &GroupState::ALL, |state| state.as_str()),
            types: wanted(types, &[GroupType::Classic], |group_type| group_type.as_str()),
        }
    }

    pub(crate) fn accepts(&self, state: GroupState, group_type: GroupType) -> bool {
        self.states.as_ref().is_none_or(|states| states.contains(&state))
            && self.types.as_ref().is_none_or(|types| types.contains(&group_type))
    }
}

fn wanted<'a, T: Copy + Ord>(
    names: impl Iterator<Item = &'a str>,
    all: &[T],
    name_of: impl Fn(T) -> &'static str,
) -> Option<BTreeSet<T>> {
    let mut names = names.peekable();
    names.peek()?;
    // linear: there are at most five
    let find = |name: &str| all.iter().copied().find(|each| name.trim().eq_ignore_ascii_case(name_of(*each)));
    Some(names.filter_map(find).collect())
}

/// The two clocks of a step. Records contain wall-clock time; timers use monotonic time, so that a change of the
/// wall clock expires no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub timestamp_ms: TimestampMs,
    pub monotonic_ms: i64,
}

/// The id of a waiting request in a shard. The runtime maps it to the waiting task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

#[cfg(test)]
mod bounds_tests;
#[cfg(test)]
mod scripts;
#[cfg(test)]
mod simulation;
