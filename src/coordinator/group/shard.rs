//! One partition of `__consumer_offsets` as a pure state machine: dispatch, group creation and deletion, expiration.
//!
//! [`Shard::step`] reads the durable state (`&Hard`) and changes only the volatile state (`&mut Soft`).
//! Only [`Shard::apply`] changes the durable state, both live and during a load (INV-G4). After a failed append the
//! whole shard is dropped and loaded again, so a step may assume that its records are written.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use uuid::Uuid;

use super::{
    CommitOffsetsRequest, DeleteOffsetsRequest, DescribedGroup, FetchOffsetsRequest, FetchedTopic, GroupConfig,
    GroupCounts, GroupError, GroupFilter, GroupState, GroupType, HeartbeatRequest, JoinError, JoinRequest, Joined,
    LeaveRequest, LeftMember, ListedGroup, MemberProtocol, Now, RequestId, SyncRequest, Synced, TopicOutcome,
    classic::{ClassicGroup, Context, protocols_bytes},
    offsets::{DeletedTopics, OffsetAndMetadata, OffsetPosition, Offsets, PAGE, tombstone},
    records::{GroupMetadataValue, OffsetCommitValue, Record},
    timers::{TimerKey, Timers},
};
use crate::types::{Offset, ProducerId, TimestampMs, TopicId};

/// Strings in records have 16-bit lengths; strings in flexible requests may be longer.
const MAX_STRING_BYTES: usize = i16::MAX as usize;
/// A generated member id is a client or instance id, a dash and a UUID.
const MEMBER_ID_SUFFIX_BYTES: usize = 37;
/// The most protocols that a member may offer. Clients offer one per assignor, and no client has as many as ten.
pub const MAX_PROTOCOLS: usize = 100;
/// The most bytes of one member's protocols, names and metadata together.
pub const MAX_MEMBER_BYTES: usize = 4 * 1024 * 1024;
/// The most timers that one step runs.
const MAX_TIMERS_PER_STEP: usize = 256;
/// The approximate memory of a group's record, and of a member in it, without strings and bytes.
const RECORD_OVERHEAD_BYTES: usize = 256;
const MEMBER_OVERHEAD_BYTES: usize = 256;

/// The inputs of a shard.
#[derive(Debug, Clone)]
pub enum Input {
    /// The UUID is the random part of a new member id, if one is needed.
    Join(JoinRequest, Uuid),
    Sync(SyncRequest),
    Heartbeat(HeartbeatRequest),
    Leave(LeaveRequest),
    CommitOffsets(CommitOffsetsRequest),
    FetchOffsets(FetchOffsetsRequest),
    /// Fetches a page of a group's offsets.
    FetchAllOffsets {
        group_id: Arc<str>,
        require_stable: bool,
        after: Option<OffsetPosition>,
    },
    DeleteOffsets(DeleteOffsetsRequest),
    Describe(Vec<Arc<str>>),
    /// Lists a page of the groups after `after`.
    List {
        filter: Arc<GroupFilter>,
        after: Option<Arc<str>>,
    },
    /// Deletes a group. If it has many offsets, one step deletes only some of them.
    DeleteGroup(Arc<str>),
    /// Deletes the offsets of deleted topics in a page of the groups from `from` on.
    TopicsDeleted {
        topics: Arc<DeletedTopics>,
        from: Option<Arc<str>>,
    },
    /// A timer may be due.
    Tick,
}

/// The result of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Joined(Result<Joined, JoinError>),
    Synced(Result<Synced, GroupError>),
    Heartbeat(Result<(), GroupError>),
    Left(Result<Vec<LeftMember>, GroupError>),
    /// OffsetCommit and OffsetDelete.
    Outcomes(Result<Vec<TopicOutcome>, GroupError>),
    Fetched(Result<Vec<FetchedTopic>, GroupError>),
    /// A page of offsets, and the position of the next page.
    FetchedPage(Vec<FetchedTopic>, Option<OffsetPosition>),
    Described(Vec<Result<DescribedGroup, GroupError>>),
    /// A page of groups, and the group after which the next page starts.
    Listed(Vec<ListedGroup>, Option<Arc<str>>),
    Deleted(Result<Deletion, GroupError>),
    /// The group at which the deletion of the offsets of deleted topics must continue.
    Swept(Option<Arc<str>>),
    Done,
}

/// The progress of the deletion of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    Done,
    /// Some offsets are left; the caller must repeat the input.
    Begun,
}

/// A reply to a request, and when it may be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub request: RequestId,
    /// Send the reply only when all records that the shard has written so far, including this step's, are committed.
    pub after_commit: bool,
    pub output: Output,
}

/// The decisions of a step.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub records: Vec<Record>,
    pub replies: Vec<Reply>,
    /// The limit that refused the input, as a message for the log.
    pub no_room: Option<&'static str>,
}

impl Step {
    pub(crate) fn reply(&mut self, request: RequestId, output: Output) {
        self.replies.push(Reply { request, after_commit: false, output });
    }

    pub(crate) fn reply_after_commit(&mut self, request: RequestId, output: Output) {
        self.replies.push(Reply { request, after_commit: true, output });
    }
}

/// The durable state, built from the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hard {
    groups: BTreeMap<Arc<str>, GroupMetadataValue>,
    /// The approximate memory of the groups' records.
    groups_bytes: usize,
    offsets: Offsets,
}

impl Hard {
    fn put_group(&mut self, group_id: &Arc<str>, value: GroupMetadataValue) {
        self.groups_bytes += record_bytes(group_id, &value);
        if let Some(replaced) = self.groups.insert(group_id.clone(), value) {
            self.groups_bytes -= record_bytes(group_id, &replaced);
        }
    }

    fn remove_group(&mut self, group_id: &str) {
        if let Some(removed) = self.groups.remove(group_id) {
            self.groups_bytes -= record_bytes(group_id, &removed);
        }
    }
}

fn record_bytes(group_id: &str, value: &GroupMetadataValue) -> usize {
    let members = MEMBER_OVERHEAD_BYTES * value.members.len();
    RECORD_OVERHEAD_BYTES + group_id.len() + value.size_bytes() + members
}

/// The volatile state: live groups with their waiting requests, and timers. It is lost when the process ends.
#[derive(Debug, Default)]
struct Soft {
    /// The groups with members or pending ids. Any other group is rebuilt from its record when needed.
    groups: BTreeMap<Arc<str>, ClassicGroup>,
    /// The approximate memory of the live groups.
    groups_bytes: usize,
    timers: Timers,
    expiration_scheduled: bool,
    /// The position of the check for expired offsets, if one is in progress.
    expiration_at: Option<ExpirationPosition>,
}

/// The check has visited all groups before this one, and this group's offsets up to the position.
#[derive(Debug, Clone)]
struct ExpirationPosition {
    group_id: Arc<str>,
    after: Option<OffsetPosition>,
}

/// The state of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct Shard {
    config: Arc<GroupConfig>,
    max_record_bytes: usize,
    /// The number of bytes by which the memory of the groups may grow.
    room_bytes: usize,
    hard: Hard,
    soft: Soft,
}

impl Shard {
    /// An empty shard, ready for [`Shard::apply`]; `max_record_bytes` is the size of the largest value that the log
    /// accepts.
    pub fn new(config: Arc<GroupConfig>, max_record_bytes: usize) -> Self {
        Shard { config, max_record_bytes, room_bytes: usize::MAX, hard: Hard::default(), soft: Soft::default() }
    }

    /// Ends the load: makes the groups with members live and starts their sessions.
    pub fn on_loaded(&mut self, now: Now) {
        for (group_id, value) in &self.hard.groups {
            if !value.members.is_empty() {
                let group = ClassicGroup::from_value(group_id.clone(), value);
                group.start_sessions(now, &mut self.soft.timers);
                self.soft.insert(group);
            }
        }
        if !self.hard.groups.is_empty() {
            self.soft.schedule_expiration(&self.config, now);
        }
    }

    /// Decides on an input. The caller appends the records, applies them, and sends the replies.
    pub fn step(&mut self, now: Now, request: RequestId, input: Input) -> Step {
        let mut step = Step::default();
        let mut transition = Transition {
            config: &self.config,
            max_record_bytes: self.max_record_bytes,
            room_bytes: self.room_bytes,
            hard: &self.hard,
            soft: &mut self.soft,
            now,
            step: &mut step,
            idle: Vec::new(),
        };
        transition.run(request, input);
        transition.forget_idle_groups();
        if !step.records.is_empty() {
            self.soft.schedule_expiration(&self.config, now);
        }
        step
    }

    /// Applies one record of the log to the durable state. `producer_id` is set for records in transactional batches.
    pub fn apply(&mut self, offset: Offset, producer_id: Option<ProducerId>, record: &Record) {
        match record {
            Record::OffsetCommit { group_id, topic, partition, value: Some(value) } => {
                // An offset commit for an unknown group creates a group that only has offsets.
                if !self.hard.groups.contains_key(group_id) {
                    self.hard.put_group(group_id, offsets_only_group(value.commit_timestamp_ms));
                }
                let offset = OffsetAndMetadata { value: value.clone(), record_offset: offset };
                self.hard.offsets.put(group_id, topic, *partition, offset, producer_id);
            }
            Record::OffsetCommit { group_id, topic, partition, value: None } => {
                self.hard.offsets.remove(group_id, topic, *partition);
            }
            Record::GroupMetadata { group_id, value: Some(value) } => {
                self.hard.put_group(group_id, value.clone());
            }
            Record::GroupMetadata { group_id, value: None } => {
                self.hard.remove_group(group_id);
            }
        }
    }

    /// Applies the end of a transaction to the durable state.
    pub fn apply_transaction_end(&mut self, producer_id: ProducerId, committed: bool) {
        self.hard.offsets.end_transaction(producer_id, committed);
    }

    /// The time when the next [`Input::Tick`] is due, in monotonic milliseconds.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.soft.timers.next_deadline_ms()
    }

    /// The approximate memory of groups and offsets.
    pub fn memory_bytes(&self) -> usize {
        self.hard.groups_bytes + self.hard.offsets.memory_bytes() + self.soft.groups_bytes
    }

    /// Sets the number of bytes by which the next steps may increase the memory.
    pub fn set_room(&mut self, room_bytes: usize) {
        self.room_bytes = room_bytes;
    }

    /// The number of groups in the partition.
    pub fn group_count(&self) -> usize {
        self.hard.groups.len()
    }

    /// Adds the partition's groups and offsets to `counts`.
    pub fn count(&self, counts: &mut GroupCounts) {
        // Groups that exist but are not live are Empty.
        let alive = self.soft.groups.values().map(ClassicGroup::state);
        let (live, all) = (self.soft.groups.len(), self.hard.groups.len());
        for state in alive.chain(std::iter::repeat_n(GroupState::Empty, all.saturating_sub(live))) {
            *counts.groups.entry(state).or_default() += 1;
        }
        counts.offsets += self.hard.offsets.len();
    }

    #[cfg(test)]
    pub(crate) fn hard(&self) -> &Hard {
        &self.hard
    }

    #[cfg(test)]
    pub(crate) fn live_group_count(&self) -> usize {
        self.soft.groups.len()
    }
}

impl Soft {
    fn insert(&mut self, group: ClassicGroup) {
        self.groups_bytes += group.memory_bytes();
        if let Some(replaced) = self.groups.insert(group.group_id().clone(), group) {
            self.groups_bytes -= replaced.memory_bytes();
        }
    }

    fn remove(&mut self, group_id: &str) -> Option<ClassicGroup> {
        let removed = self.groups.remove(group_id)?;
        self.groups_bytes -= removed.memory_bytes();
        Some(removed)
    }

    fn schedule_expiration(&mut self, config: &GroupConfig, now: Now) {
        if !self.expiration_scheduled {
            self.expiration_scheduled = true;
            let interval_ms = config.offsets_retention_check_interval_ms;
            self.timers.schedule(TimerKey::OffsetExpiration, now.monotonic_ms.saturating_add(interval_ms));
        }
    }
}

fn offsets_only_group(timestamp_ms: TimestampMs) -> GroupMetadataValue {
    GroupMetadataValue {
        protocol_type: Arc::default(),
        generation_id: 0,
        protocol_name: None,
        leader: None,
        current_state_timestamp_ms: timestamp_ms,
        members: Vec::new(),
    }
}

fn fits(text: &str) -> bool {
    text.len() <= MAX_STRING_BYTES
}

/// A step in progress.
struct Transition<'a> {
    config: &'a GroupConfig,
    max_record_bytes: usize,
    room_bytes: usize,
    hard: &'a Hard,
    soft: &'a mut Soft,
    now: Now,
    step: &'a mut Step,
    /// Live groups that may be dropped at the end of the step. If they were dropped earlier, this step would rebuild
    /// them from records that are not up to date yet.
    idle: Vec<Arc<str>>,
}

impl Transition<'_> {
    fn run(&mut self, id: RequestId, input: Input) {
        match input {
            Input::Join(request, member_uuid) => self.join(id, request, member_uuid),
            Input::Sync(request) => self.sync(id, request),
            Input::Heartbeat(request) => {
                let result = self.heartbeat(&request);
                self.step.reply(id, Output::Heartbeat(result));
            }
            Input::Leave(request) => {
                let result = self.leave(request);
                self.step.reply_after_commit(id, Output::Left(result));
            }
            Input::CommitOffsets(request) => {
                let result = self.commit_offsets(request);
                self.step.reply_after_commit(id, Output::Outcomes(result));
            }
            Input::FetchOffsets(request) => {
                let result = self.fetch_offsets(request);
                self.step.reply_after_commit(id, Output::Fetched(result));
            }
            Input::FetchAllOffsets { group_id, require_stable, after } => {
                let (topics, next) = self.hard.offsets.fetch_all(&group_id, require_stable, after.as_ref());
                self.step.reply_after_commit(id, Output::FetchedPage(topics, next));
            }
            Input::DeleteOffsets(request) => {
                let result = self.delete_offsets(request);
                self.step.reply_after_commit(id, Output::Outcomes(result));
            }
            Input::Describe(group_ids) => {
                let described = group_ids.iter().map(|group_id| self.describe(group_id)).collect();
                self.step.reply_after_commit(id, Output::Described(described));
            }
            Input::List { filter, after } => {
                let (listed, next) = self.list(&filter, after.as_ref());
                self.step.reply_after_commit(id, Output::Listed(listed, next));
            }
            Input::DeleteGroup(group_id) => {
                let result = self.delete_group(&group_id);
                self.step.reply_after_commit(id, Output::Deleted(result));
            }
            Input::TopicsDeleted { topics, from } => {
                let next = self.hard.offsets.tombstones_of_topics(&topics, from.as_ref(), &mut self.step.records);
                self.step.reply_after_commit(id, Output::Swept(next));
            }
            Input::Tick => {
                self.tick();
                self.step.reply(id, Output::Done);
            }
        }
    }

    // ---- live groups -----------------------------------------------------------------------------------

    /// Runs `act` on the live group, which is rebuilt from its record if necessary. Returns `None` if there is no such
    /// group.
    fn with_group<T>(
        &mut self,
        group_id: &str,
        act: impl FnOnce(&mut ClassicGroup, &mut Context<'_>) -> T,
    ) -> Option<T> {
        if !self.soft.groups.contains_key(group_id) {
            let (group_id, value) = self.hard.groups.get_key_value(group_id)?;
            self.soft.insert(ClassicGroup::from_value(group_id.clone(), value));
        }
        let group = self.soft.groups.get_mut(group_id)?;
        let before_bytes = group.memory_bytes();
        let mut context = Context {
            config: self.config,
            now: self.now,
            timers: &mut self.soft.timers,
            step: self.step,
            max_record_bytes: self.max_record_bytes,
        };
        let result = act(group, &mut context);
        self.soft.groups_bytes = self.soft.groups_bytes - before_bytes + group.memory_bytes();
        if group.is_idle() {
            self.idle.push(group.group_id().clone());
        }
        Some(result)
    }

    fn forget_idle_groups(self) {
        for group_id in self.idle {
            if self.soft.groups.get(&group_id).is_some_and(ClassicGroup::is_idle) {
                self.soft.remove(&group_id);
            }
        }
    }

    /// Runs `look` on a group without making it live.
    fn look_at<T>(&self, group_id: &str, look: impl FnOnce(&ClassicGroup) -> T) -> Option<T> {
        match self.soft.groups.get(group_id) {
            Some(group) => Some(look(group)),
            None => {
                let (group_id, value) = self.hard.groups.get_key_value(group_id)?;
                Some(look(&ClassicGroup::from_value(group_id.clone(), value)))
            }
        }
    }

    fn exists(&self, group_id: &str) -> bool {
        self.soft.groups.contains_key(group_id) || self.hard.groups.contains_key(group_id)
    }

    fn may_create_group(&mut self) -> Result<(), GroupError> {
        // Live groups have a record too, so the durable groups are all groups.
        if self.hard.groups.len() < self.config.max_groups_per_partition {
            return Ok(());
        }
        self.step.no_room = Some("a partition of __consumer_offsets has reached its maximum number of groups");
        Err(GroupError::GroupMaxSizeReached)
    }

    /// Returns an error if the memory of the groups may not grow by `more_bytes`.
    fn check_room(&mut self, more_bytes: usize) -> Result<(), GroupError> {
        if more_bytes == 0 || more_bytes <= self.room_bytes {
            return Ok(());
        }
        self.step.no_room = Some("groups and offsets have reached ottla.groups.max.bytes and cannot grow");
        Err(GroupError::GroupMaxSizeReached)
    }

    // ---- membership ------------------------------------------------------------------------------------

    fn join(&mut self, id: RequestId, mut request: JoinRequest, member_uuid: Uuid) {
        if let Err(error) = check_protocols(&request.protocols, self.max_record_bytes) {
            let error = JoinError { error, member_id: request.member_id };
            self.step.reply(id, Output::Joined(Err(error)));
            return;
        }
        let mut names = BTreeSet::new();
        request.protocols.retain(|protocol| names.insert(protocol.name.clone()));
        match self.validate_join(&request) {
            Err(error) => {
                let error = JoinError { error, member_id: request.member_id };
                self.step.reply(id, Output::Joined(Err(error)));
            }
            Ok(true) => {
                self.with_group(&request.group_id.clone(), |group, context| {
                    group.join(context, id, request, member_uuid);
                });
            }
            Ok(false) => self.join_new_group(id, request, member_uuid),
        }
    }

    /// Returns whether the group already exists.
    fn validate_join(&mut self, request: &JoinRequest) -> Result<bool, GroupError> {
        if request.group_id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let session_timeouts = self.config.group_min_session_timeout_ms..=self.config.group_max_session_timeout_ms;
        if !session_timeouts.contains(&request.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if !join_fits_into_a_record(request) {
            return Err(GroupError::UnknownServerError);
        }
        if self.exists(&request.group_id) {
            self.check_room(self.growth_of_join(request))?;
            return Ok(true);
        }
        if !request.member_id.is_empty() {
            return Err(GroupError::UnknownMemberId);
        }
        self.may_create_group()?;
        self.check_room(self.growth_of_join(request))?;
        Ok(false)
    }

    /// Returns how much the memory of the group would grow if this member joined or rejoined.
    fn growth_of_join(&self, request: &JoinRequest) -> usize {
        let group = self.soft.groups.get(&request.group_id);
        let now_bytes = group.map_or(0, |group| group.member_memory_bytes(&request.member_id));
        let id_prefix = request.group_instance_id.as_ref().unwrap_or(&request.client_id);
        let ids = 2 * id_prefix.len() + request.client_id.len() + request.group_id.len();
        (MEMBER_OVERHEAD_BYTES + ids + protocols_bytes(&request.protocols)).saturating_sub(now_bytes)
    }

    fn join_new_group(&mut self, id: RequestId, request: JoinRequest, member_uuid: Uuid) {
        let group_id = request.group_id.clone();
        let group = ClassicGroup::new(group_id.clone(), self.now.timestamp_ms);
        self.soft.insert(group);
        // Like Kafka, write the group's record at once: the group exists after its first JoinGroup, even a refused one.
        let value = GroupMetadataValue {
            protocol_type: Arc::default(),
            generation_id: 0,
            protocol_name: None,
            leader: None,
            current_state_timestamp_ms: self.now.timestamp_ms,
            members: Vec::new(),
        };
        self.step.records.push(Record::GroupMetadata { group_id: group_id.clone(), value: Some(value) });
        self.with_group(&group_id, |group, context| group.join(context, id, request, member_uuid));
    }

    fn sync(&mut self, id: RequestId, request: SyncRequest) {
        if request.group_id.is_empty() {
            self.step.reply(id, Output::Synced(Err(GroupError::InvalidGroupId)));
            return;
        }
        let group_id = request.group_id.clone();
        let assignments_bytes = request.assignments.values().map(|assignment| assignment.len()).sum();
        if let Err(error) = self.check_room(assignments_bytes) {
            self.step.reply(id, Output::Synced(Err(error)));
            return;
        }
        if self.with_group(&group_id, |group, context| group.sync(context, id, request)).is_none() {
            self.step.reply(id, Output::Synced(Err(GroupError::UnknownMemberId)));
        }
    }

    fn heartbeat(&mut self, request: &HeartbeatRequest) -> Result<(), GroupError> {
        if request.group_id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        self.with_group(&request.group_id, |group, context| group.heartbeat(context, request))
            .unwrap_or(Err(GroupError::UnknownMemberId))
    }

    fn leave(&mut self, request: LeaveRequest) -> Result<Vec<LeftMember>, GroupError> {
        if request.group_id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        if !self.exists(&request.group_id) {
            let unknown = |member: super::LeavingMember| LeftMember {
                member_id: member.member_id,
                group_instance_id: member.group_instance_id,
                error: Some(GroupError::UnknownMemberId),
            };
            return Ok(request.members.into_iter().map(unknown).collect());
        }
        let left = self.with_group(&request.group_id, |group, context| group.leave(context, request.members));
        Ok(left.unwrap_or_default())
    }

    // ---- offsets ---------------------------------------------------------------------------------------

    fn commit_offsets(&mut self, request: CommitOffsetsRequest) -> Result<Vec<TopicOutcome>, GroupError> {
        self.validate_commit(&request)?;
        self.check_room(self.growth_of_commit(&request))?;
        let now_ms = self.now.timestamp_ms;
        let expire_timestamp_ms =
            request.retention_time_ms.map(|retention_time_ms| now_ms.saturating_add(retention_time_ms));
        // The record version with an expire timestamp has no topic id and no epoch. They would be lost at a restart,
        // so they are not stored in memory either (INV-G4).
        let has_retention = expire_timestamp_ms.is_some();
        let mut outcomes = Vec::with_capacity(request.topics.len());
        self.step.records.reserve_exact(request.topics.iter().map(|topic| topic.partitions.len()).sum());
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for commit in topic.partitions {
                if self.metadata_is_too_large(&commit.committed_metadata) {
                    partitions.push((commit.partition, Some(GroupError::OffsetMetadataTooLarge)));
                    continue;
                }
                partitions.push((commit.partition, None));
                let value = OffsetCommitValue {
                    offset: commit.committed_offset,
                    leader_epoch: if has_retention { -1 } else { commit.committed_leader_epoch },
                    metadata: commit.committed_metadata,
                    commit_timestamp_ms: now_ms,
                    expire_timestamp_ms,
                    topic_id: if has_retention { TopicId::ZERO } else { topic.topic_id },
                };
                self.step.records.push(Record::OffsetCommit {
                    group_id: request.group_id.clone(),
                    topic: topic.name.clone(),
                    partition: commit.partition,
                    value: Some(value),
                });
            }
            outcomes.push(TopicOutcome { name: topic.name, topic_id: topic.topic_id, partitions });
        }
        Ok(outcomes)
    }

    fn growth_of_commit(&self, request: &CommitOffsetsRequest) -> usize {
        let growth = request.topics.iter().map(|topic| {
            let offsets = topic.partitions.iter().map(|commit| (commit.partition, &*commit.committed_metadata));
            self.hard.offsets.growth_bytes(&request.group_id, &topic.name, offsets)
        });
        let is_new = !self.hard.groups.contains_key(&request.group_id);
        let group_bytes = if is_new { record_bytes(&request.group_id, &offsets_only_group(0)) } else { 0 };
        growth.sum::<usize>() + group_bytes
    }

    fn validate_commit(&mut self, request: &CommitOffsetsRequest) -> Result<(), GroupError> {
        let (member_id, instance_id) = (&request.member_id, request.group_instance_id.as_deref());
        let generation_id = request.generation_id_or_member_epoch;
        let checked = self.with_group(&request.group_id, |group, context| {
            group.validate_offset_commit(context, member_id, instance_id, generation_id)
        });
        match checked {
            Some(result) => result,
            None if !fits(&request.group_id) => Err(GroupError::InvalidGroupId),
            // The Admin client, or a consumer without group management: the commit creates the group.
            None if generation_id < 0 => self.may_create_group(),
            None if request.api_version >= 9 => Err(GroupError::GroupIdNotFound),
            None => Err(GroupError::IllegalGeneration),
        }
    }

    /// Kafka counts the characters of a Java string, which are UTF-16 code units.
    fn metadata_is_too_large(&self, metadata: &str) -> bool {
        let limit = self.config.offset_metadata_max_bytes;
        !fits(metadata) || (metadata.len() > limit && metadata.encode_utf16().count() > limit)
    }

    fn fetch_offsets(&self, request: FetchOffsetsRequest) -> Result<Vec<FetchedTopic>, GroupError> {
        Ok(self.hard.offsets.fetch(&request.group_id, request.topics, request.require_stable))
    }

    fn delete_offsets(&mut self, request: DeleteOffsetsRequest) -> Result<Vec<TopicOutcome>, GroupError> {
        let DeleteOffsetsRequest { group_id, topics } = request;
        if group_id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let names: Vec<&str> = topics.iter().map(|(name, _)| &**name).collect();
        let subscribed = self.look_at(&group_id, |group| {
            // The subscribed topics are only known for consumer groups.
            if group.state() != GroupState::Empty && !group.uses_consumer_protocol() {
                return Err(GroupError::NonEmptyGroup);
            }
            Ok(names.iter().map(|name| group.is_subscribed_to(name)).collect::<Vec<_>>())
        });
        let subscribed = subscribed.unwrap_or(Err(GroupError::GroupIdNotFound))?;
        let mut outcomes = Vec::with_capacity(topics.len());
        for ((name, partitions), subscribed) in topics.into_iter().zip(subscribed) {
            let error = subscribed.then_some(GroupError::GroupSubscribedToTopic);
            for partition in &partitions {
                if error.is_none() && self.hard.offsets.contains(&group_id, &name, *partition) {
                    self.step.records.push(tombstone(&group_id, &name, *partition));
                }
            }
            let partitions = partitions.into_iter().map(|partition| (partition, error)).collect();
            outcomes.push(TopicOutcome { name, topic_id: TopicId::ZERO, partitions });
        }
        Ok(outcomes)
    }

    // ---- describe, list, delete ------------------------------------------------------------------------

    fn describe(&self, group_id: &str) -> Result<DescribedGroup, GroupError> {
        self.look_at(group_id, ClassicGroup::describe).ok_or(GroupError::GroupIdNotFound)
    }

    fn list(&self, filter: &GroupFilter, after: Option<&Arc<str>>) -> (Vec<ListedGroup>, Option<Arc<str>>) {
        let start = after.map_or(Bound::Unbounded, |group_id| Bound::Excluded(group_id.clone()));
        let mut groups = self.hard.groups.range((start, Bound::Unbounded)).peekable();
        let (mut listed, mut last) = (Vec::new(), None);
        // Every group has a record from its first step on.
        for (group_id, value) in groups.by_ref().take(PAGE) {
            let (state, protocol_type) = match self.soft.groups.get(group_id) {
                Some(group) => (group.state(), group.protocol_type().cloned().unwrap_or_default()),
                None => (GroupState::Empty, value.protocol_type.clone()),
            };
            let row = ListedGroup { group_id: group_id.clone(), protocol_type, state, group_type: GroupType::Classic };
            if filter.accepts(row.state, row.group_type) {
                listed.push(row);
            }
            last = Some(group_id);
        }
        (listed, last.filter(|_| groups.peek().is_some()).cloned())
    }

    fn delete_group(&mut self, group_id: &Arc<str>) -> Result<Deletion, GroupError> {
        let state = self.look_at(group_id, ClassicGroup::state).ok_or(GroupError::GroupIdNotFound)?;
        if state != GroupState::Empty {
            return Err(GroupError::NonEmptyGroup);
        }
        if !self.hard.offsets.tombstones_of_group(group_id, &mut self.step.records) {
            return Ok(Deletion::Begun);
        }
        self.forget_group(group_id);
        Ok(Deletion::Done)
    }

    fn forget_group(&mut self, group_id: &Arc<str>) {
        self.step.records.push(Record::GroupMetadata { group_id: group_id.clone(), value: None });
        if let Some(group) = self.soft.remove(group_id) {
            group.cancel_timers(&mut self.soft.timers);
        }
    }

    // ---- timers ----------------------------------------------------------------------------------------

    /// Runs the timers that are due. If there are too many, the next step continues.
    fn tick(&mut self) {
        for _ in 0..MAX_TIMERS_PER_STEP {
            let Some(key) = self.soft.timers.pop_due(self.now.monotonic_ms) else { return };
            match key {
                TimerKey::Session { group_id, member_id } => {
                    self.with_group(&group_id, |group, context| group.on_session_expired(context, &member_id));
                }
                TimerKey::Join { group_id } => {
                    self.with_group(&group_id, |group, context| group.on_join_phase_over(context));
                }
                TimerKey::Sync { group_id } => {
                    self.with_group(&group_id, |group, context| group.on_sync_phase_over(context));
                }
                TimerKey::OffsetExpiration => {
                    self.expire_offsets();
                    return;
                }
            }
        }
    }

    /// Writes tombstones for offsets that were unused for the retention time, and for groups without offsets and
    /// members (O5). Visits one page of groups and offsets; until it has visited all, the timer is due again at once.
    fn expire_offsets(&mut self) {
        self.soft.expiration_scheduled = false;
        let hard = self.hard;
        let from = self.soft.expiration_at.take();
        let start = from.as_ref().map_or(Bound::Unbounded, |at| Bound::Included(at.group_id.clone()));
        let mut after = from.and_then(|at| at.after);
        let mut looked_at = 0;
        for group_id in hard.groups.range((start, Bound::Unbounded)).map(|(group_id, _)| group_id) {
            if looked_at >= PAGE {
                self.continue_expiration_at(ExpirationPosition { group_id: group_id.clone(), after: None });
                return;
            }
            looked_at += 1;
            let (next, visited) = self.expire_offsets_of(group_id, after.take());
            looked_at += visited;
            if next.is_some() {
                self.continue_expiration_at(ExpirationPosition { group_id: group_id.clone(), after: next });
                return;
            }
        }
        if !hard.groups.is_empty() {
            self.soft.schedule_expiration(self.config, self.now);
        }
    }

    fn continue_expiration_at(&mut self, position: ExpirationPosition) {
        self.soft.expiration_at = Some(position);
        self.soft.expiration_scheduled = true;
        self.soft.timers.schedule(TimerKey::OffsetExpiration, self.now.monotonic_ms);
    }

    /// Returns the position of the next page in this group, and the number of visited offsets.
    fn expire_offsets_of(
        &mut self,
        group_id: &Arc<str>,
        after: Option<OffsetPosition>,
    ) -> (Option<OffsetPosition>, usize) {
        let (hard, now_ms, retention_ms) = (self.hard, self.now.timestamp_ms, self.config.offsets_retention_ms);
        let mut records = Vec::new();
        let expired = self.look_at(group_id, |group| {
            let since = |topic: &str, value: &OffsetCommitValue| unused_since(group, topic, value);
            let page = hard.offsets.expire(group_id, after.as_ref(), now_ms, retention_ms, since, &mut records);
            (page, group.is_idle())
        });
        self.step.records.append(&mut records);
        let Some((page, is_idle)) = expired else { return (None, 0) };
        if page.all_expired && is_idle {
            self.forget_group(group_id);
        }
        (page.next, page.looked_at)
    }
}

/// Returns the time since which the group does not use this offset; `None` if the offset is in use.
fn unused_since(group: &ClassicGroup, topic: &str, value: &OffsetCommitValue) -> Option<i64> {
    if group.is_subscribed_to(topic) {
        return None;
    }
    match group.state() {
        _ if group.protocol_type().is_none() => Some(value.commit_timestamp_ms),
        GroupState::Empty => {
            Some(group.current_state_timestamp_ms()).filter(|at| *at != -1).or(Some(value.commit_timestamp_ms))
        }
        GroupState::Stable if group.knows_subscribed_topics() => Some(value.commit_timestamp_ms),
        _ => None,
    }
}

/// Refuses a member with too many or too large protocols before any other check.
fn check_protocols(protocols: &[MemberProtocol], max_record_bytes: usize) -> Result<(), GroupError> {
    if protocols.len() > MAX_PROTOCOLS {
        return Err(GroupError::InconsistentGroupProtocol);
    }
    // The group's record contains the metadata of the chosen protocol.
    let fits = protocols.iter().all(|protocol| protocol.metadata.len() <= max_record_bytes);
    if fits && protocols_bytes(protocols) <= MAX_MEMBER_BYTES { Ok(()) } else { Err(GroupError::UnknownServerError) }
}

fn join_fits_into_a_record(request: &JoinRequest) -> bool {
    let id_prefix = request.group_instance_id.as_ref().unwrap_or(&request.client_id);
    fits(&request.group_id)
        && fits(&request.protocol_type)
        && fits(&request.client_host)
        && id_prefix.len() + MEMBER_ID_SUFFIX_BYTES <= MAX_STRING_BYTES
        && fits(&request.client_id)
        && request.protocols.iter().all(|protocol| fits(&protocol.name))
}
