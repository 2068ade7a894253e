//! The classic group: JoinGroup, SyncGroup, Heartbeat and LeaveGroup as one state machine.
//!
//! ```text
//!   Empty ──join──▶ PreparingRebalance ──all joined / timeout──▶ CompletingRebalance ──leader syncs──▶ Stable
//!     ▲                │        ▲                                        │                               │
//!     └──no members────┘        └────── join, leave, expiry, changed metadata ───────────────────────────┘
//! ```
//!
//! Owns one live group: its members, pending member ids and waiting requests. It writes only records in the
//! [`Step`]; only a generation that the leader has synced survives a restart. It has no access to other
//! groups, offsets, clocks or connections. Leaves the members and their counts to `classic/members.rs`, JoinGroup to
//! `classic/join.rs` and SyncGroup to `classic/sync.rs`. The behavior is that of Apache's `ClassicGroup` and
//! `GroupMetadataManager`; a comment marks each deliberate difference.

mod join;
mod members;
mod sync;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
pub(crate) use members::protocols_bytes;
use members::{Member, Members};
use uuid::Uuid;

use super::{
    CONSUMER_PROTOCOL_TYPE, DescribedGroup, DescribedMember, GroupConfig, GroupError, GroupState, HeartbeatRequest,
    JoinError, JoinRequest, Joined, JoinedMember, LeavingMember, LeftMember, MemberProtocol, Now, RequestId,
    SyncRequest, Synced,
    consumer_protocol::SubscribedTopics,
    records::{GroupMetadataValue, MemberMetadata, Record},
    shard::{Output, Step},
    timers::{TimerKey, Timers},
};
use crate::types::TimestampMs;

/// How long a new member's JoinGroup may wait. The client sends no heartbeats before it knows its member id, and a
/// client that gave up must not stay in the rebalance forever.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i32 = 5 * 60 * 1000;

/// The least time between two attempts to complete a join phase in which no member rejoined. It prevents a busy loop
/// if a client sets the rebalance timeout to zero.
const MIN_JOIN_RETRY_MS: i32 = 100;

/// The approximate memory of a live group without its members.
const GROUP_OVERHEAD_BYTES: usize = 1024;
/// The approximate memory of a pending member id or a subscribed topic, without its text.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// The state outside the group that a step may use.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a GroupConfig,
    pub(crate) now: Now,
    pub(crate) timers: &'a mut Timers,
    pub(crate) step: &'a mut Step,
    /// The size of the largest record that the log accepts.
    pub(crate) max_record_bytes: usize,
}

/// A live classic group.
#[derive(Debug, Clone)]
pub(crate) struct ClassicGroup {
    group_id: Arc<str>,
    state: GroupState,
    current_state_timestamp_ms: TimestampMs,
    generation_id: i32,
    protocol_type: Option<Arc<str>>,
    protocol_name: Option<Arc<str>>,
    leader: Option<Arc<str>>,
    members: Members,
    /// Protocol name → the number of members that offer it.
    supported_protocols: BTreeMap<Arc<str>, usize>,
    /// Instance id → member id.
    static_members: BTreeMap<Arc<str>, Arc<str>>,
    /// Member ids that were sent with MEMBER_ID_REQUIRED and are not used yet (KIP-394).
    pending_join: BTreeSet<Arc<str>>,
    /// The approximate memory of these ids.
    pending_join_bytes: usize,
    /// Members of this generation that have not sent SyncGroup yet.
    pending_sync: BTreeSet<Arc<str>>,
    /// The topics of the generation's subscriptions; `None` if unknown or not a consumer group.
    subscribed_topics: Option<BTreeSet<Arc<str>>>,
    /// The approximate memory of these topics.
    subscribed_topics_bytes: usize,
    /// Set while the first rebalance of an empty group waits for more members.
    initial_rebalance: Option<InitialRebalance>,
}

#[derive(Debug, Clone, Copy)]
struct InitialRebalance {
    delay_ms: i32,
    remaining_ms: i32,
    new_member_added: bool,
}

impl ClassicGroup {
    /// A new, empty group.
    pub(crate) fn new(group_id: Arc<str>, timestamp_ms: TimestampMs) -> Self {
        ClassicGroup {
            group_id,
            state: GroupState::Empty,
            current_state_timestamp_ms: timestamp_ms,
            generation_id: 0,
            protocol_type: None,
            protocol_name: None,
            leader: None,
            members: Members::default(),
            supported_protocols: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_join: BTreeSet::new(),
            pending_join_bytes: 0,
            pending_sync: BTreeSet::new(),
            subscribed_topics: None,
            subscribed_topics_bytes: 0,
            initial_rebalance: None,
        }
    }

    /// The group as of its last durable generation: Stable if it has members, else Empty.
    pub(crate) fn from_value(group_id: Arc<str>, value: &GroupMetadataValue) -> Self {
        let mut group = ClassicGroup::new(group_id, value.current_state_timestamp_ms);
        group.generation_id = value.generation_id;
        group.protocol_type = Some(value.protocol_type.clone()).filter(|name| !name.is_empty());
        group.protocol_name = value.protocol_name.clone();
        group.leader = value.leader.clone();
        for member in &value.members {
            if let Some(instance_id) = &member.group_instance_id {
                group.static_members.insert(instance_id.clone(), member.member_id.clone());
            }
            let protocol_name = value.protocol_name.clone().unwrap_or_default();
            let protocols = vec![MemberProtocol { name: protocol_name, metadata: member.subscription.clone() }];
            let loaded = Member {
                member_id: member.member_id.clone(),
                group_instance_id: member.group_instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                session_timeout_ms: member.session_timeout_ms,
                protocols,
                assignment: member.assignment.clone(),
                awaiting_join: None,
                awaiting_sync: None,
                is_new: false,
            };
            group.count_protocols(&loaded.protocols, true);
            group.members.push(loaded);
        }
        if !group.members.is_empty() {
            group.state = GroupState::Stable;
            if !group.leader.as_ref().is_some_and(|leader| group.members.contains(leader)) {
                group.leader = group.members.first_id();
            }
        }
        group.learn_subscribed_topics();
        group
    }

    /// Starts the sessions of a loaded group. Its members may be gone, or may not have noticed the reload.
    pub(crate) fn start_sessions(&self, now: Now, timers: &mut Timers) {
        for member in self.members.iter() {
            let deadline_ms = now.monotonic_ms + i64::from(member.session_timeout_ms);
            timers.schedule(self.session_key(&member.member_id), deadline_ms);
        }
    }

    fn to_value(&self) -> GroupMetadataValue {
        let protocol_name = self.protocol_name.as_deref();
        let members = self
            .members
            .iter()
            .map(|member| MemberMetadata {
                member_id: member.member_id.clone(),
                group_instance_id: member.group_instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                session_timeout_ms: member.session_timeout_ms,
                subscription: member.metadata(protocol_name),
                assignment: member.assignment.clone(),
            })
            .collect();
        GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation_id: self.generation_id,
            protocol_name: self.protocol_name.clone(),
            leader: self.leader.clone(),
            current_state_timestamp_ms: self.current_state_timestamp_ms,
            members,
        }
    }

    fn to_record(&self) -> Record {
        Record::GroupMetadata { group_id: self.group_id.clone(), value: Some(self.to_value()) }
    }

    pub(crate) fn group_id(&self) -> &Arc<str> {
        &self.group_id
    }

    pub(crate) fn state(&self) -> GroupState {
        self.state
    }

    pub(crate) fn current_state_timestamp_ms(&self) -> TimestampMs {
        self.current_state_timestamp_ms
    }

    pub(crate) fn protocol_type(&self) -> Option<&Arc<str>> {
        self.protocol_type.as_ref()
    }

    pub(crate) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    pub(crate) fn knows_subscribed_topics(&self) -> bool {
        self.subscribed_topics.is_some()
    }

    /// Whether the topic's offsets are in use. If the subscriptions of a consumer group are unknown, all topics count.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    /// The approximate memory of the live group.
    pub(crate) fn memory_bytes(&self) -> usize {
        GROUP_OVERHEAD_BYTES
            + self.group_id.len()
            + self.members.memory_bytes()
            + self.pending_join_bytes
            + self.subscribed_topics_bytes
    }

    /// The member's share of it; 0 if there is no such member.
    pub(crate) fn member_memory_bytes(&self, member_id: &str) -> usize {
        self.members.get(member_id).map_or(0, Member::memory_bytes)
    }

    /// Whether the live group may be dropped, because its whole state is in the log.
    pub(crate) fn is_idle(&self) -> bool {
        self.state == GroupState::Empty && self.pending_join.is_empty()
    }

    pub(crate) fn describe(&self) -> DescribedGroup {
        let stable = self.state == GroupState::Stable;
        let protocol_name = if stable { self.protocol_name.clone().unwrap_or_default() } else { "".into() };
        let members = self.members.iter().map(|member| DescribedMember {
            member_id: member.member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if stable { member.metadata(Some(&protocol_name)) } else { Bytes::new() },
            assignment: member.assignment.clone(),
        });
        DescribedGroup {
            group_id: self.group_id.clone(),
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            protocol_name,
        }
    }

    // ---- Heartbeat, LeaveGroup, OffsetCommit's check ---------------------------------------------------

    pub(crate) fn heartbeat(
        &mut self,
        context: &mut Context<'_>,
        request: &HeartbeatRequest,
    ) -> Result<(), GroupError> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation_id {
            return Err(GroupError::IllegalGeneration);
        }
        match self.state {
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
            GroupState::PreparingRebalance => {
                self.refresh_session(context, &request.member_id);
                Err(GroupError::RebalanceInProgress)
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.refresh_session(context, &request.member_id);
                Ok(())
            }
        }
    }

    pub(crate) fn leave(&mut self, context: &mut Context<'_>, members: Vec<LeavingMember>) -> Vec<LeftMember> {
        let mut someone_left = false;
        let mut left = Vec::with_capacity(members.len());
        for member in members {
            let error = self.leave_one(context, &member).err();
            someone_left |= error.is_none();
            tracing::debug!(
                group = &*self.group_id,
                member = &*member.member_id,
                reason = member.reason.as_deref().unwrap_or("not provided"),
                ?error,
                "a member leaves"
            );
            left.push(LeftMember { member_id: member.member_id, group_instance_id: member.group_instance_id, error });
        }
        if someone_left {
            match self.state {
                GroupState::Stable | GroupState::CompletingRebalance => {
                    self.prepare_rebalance(context, "a member left")
                }
                GroupState::PreparingRebalance => self.maybe_complete_join_phase(context),
                GroupState::Empty | GroupState::Dead => {}
            }
        }
        left
    }

    fn leave_one(&mut self, context: &mut Context<'_>, leaving: &LeavingMember) -> Result<(), GroupError> {
        let instance_id = leaving.group_instance_id.as_deref();
        let member_id = if leaving.member_id.is_empty() {
            // The Admin client removes static members by instance id alone (KIP-345).
            let known = instance_id.and_then(|instance_id| self.static_members.get(instance_id));
            known.cloned().ok_or(GroupError::UnknownMemberId)?
        } else if self.pending_join.contains(&leaving.member_id) {
            leaving.member_id.clone()
        } else {
            self.validate_member(&leaving.member_id, instance_id)?;
            leaving.member_id.clone()
        };
        self.remove_member(context, &member_id);
        Ok(())
    }

    /// Checks that the member may commit offsets. A commit also keeps the member's session alive.
    pub(crate) fn validate_offset_commit(
        &mut self,
        context: &mut Context<'_>,
        member_id: &str,
        instance_id: Option<&str>,
        generation_id: i32,
    ) -> Result<(), GroupError> {
        if generation_id < 0 && self.state == GroupState::Empty {
            return Ok(());
        }
        if generation_id >= 0 || !member_id.is_empty() || instance_id.is_some() {
            self.validate_member(member_id, instance_id)?;
            if generation_id != self.generation_id {
                return Err(GroupError::IllegalGeneration);
            }
        } else if self.state != GroupState::Empty {
            return Err(GroupError::UnknownMemberId);
        }
        if self.state == GroupState::CompletingRebalance {
            // The member has joined but not synced; it must rejoin.
            return Err(GroupError::RebalanceInProgress);
        }
        if matches!(self.state, GroupState::Stable | GroupState::PreparingRebalance) {
            self.refresh_session(context, member_id);
        }
        Ok(())
    }

    fn validate_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(owner) if &**owner != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains(member_id) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    // ---- timers ----------------------------------------------------------------------------------------

    pub(crate) fn on_session_expired(&mut self, context: &mut Context<'_>, member_id: &Arc<str>) {
        if self.pending_join.contains(member_id) {
            self.remove_member(context, member_id);
            if self.state == GroupState::PreparingRebalance && self.has_all_members_joined() {
                self.complete_join(context);
            }
            return;
        }
        if self.members.get(member_id).is_none_or(Member::has_satisfied_heartbeat) {
            return;
        }
        tracing::debug!(group = &*self.group_id, member = &**member_id, "the session of a member expired");
        self.remove_member(context, member_id);
        match self.state {
            GroupState::Stable | GroupState::CompletingRebalance => {
                self.prepare_rebalance(context, "a session expired");
            }
            GroupState::PreparingRebalance if self.has_all_members_joined() => self.complete_join(context),
            GroupState::PreparingRebalance | GroupState::Empty | GroupState::Dead => {}
        }
    }

    pub(crate) fn on_join_phase_over(&mut self, context: &mut Context<'_>) {
        if self.state != GroupState::PreparingRebalance {
            return;
        }
        match self.initial_rebalance {
            Some(initial) if initial.new_member_added && initial.remaining_ms != 0 => {
                let delay_ms = context.config.group_initial_rebalance_delay_ms.min(initial.remaining_ms);
                let remaining_ms = (initial.remaining_ms - initial.delay_ms).max(0);
                self.initial_rebalance = Some(InitialRebalance { delay_ms, remaining_ms, new_member_added: false });
                self.schedule(context, self.join_key(), delay_ms);
            }
            Some(_) | None => self.complete_join(context),
        }
    }

    pub(crate) fn on_sync_phase_over(&mut self, context: &mut Context<'_>) {
        let syncing = matches!(self.state, GroupState::CompletingRebalance | GroupState::Stable);
        if !syncing || self.pending_sync.is_empty() {
            return;
        }
        let laggards: Vec<Arc<str>> = self.pending_sync.iter().cloned().collect();
        for member_id in &laggards {
            self.remove_member(context, member_id);
        }
        tracing::debug!(group = &*self.group_id, members = ?laggards, "members did not sync and are removed");
        self.prepare_rebalance(context, "members did not sync");
    }

    // ---- helpers ---------------------------------------------------------------------------------------

    /// Removes a member or a pending id with its timer, and ends its waiting requests with an error.
    fn remove_member(&mut self, context: &mut Context<'_>, member_id: &Arc<str>) {
        context.timers.cancel(&self.session_key(member_id));
        self.forget_pending_id(member_id);
        self.pending_sync.remove(member_id);
        let Some(mut member) = self.members.remove(member_id) else { return };
        self.count_protocols(&member.protocols, false);
        if let Some(join) = member.awaiting_join.take() {
            // If the client is still alive, it joins again with a new member id.
            let error = JoinError { error: GroupError::UnknownMemberId, member_id: "".into() };
            context.step.reply(join, Output::Joined(Err(error)));
        }
        if let Some(sync) = member.awaiting_sync.take() {
            context.step.reply(sync, Output::Synced(Err(GroupError::UnknownMemberId)));
        }
        if let Some(instance_id) = &member.group_instance_id {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.first_id();
        }
    }

    fn remember_pending_id(&mut self, member_id: Arc<str>) {
        let bytes = ENTRY_OVERHEAD_BYTES + member_id.len();
        if self.pending_join.insert(member_id) {
            self.pending_join_bytes += bytes;
        }
    }

    fn forget_pending_id(&mut self, member_id: &str) {
        if self.pending_join.remove(member_id) {
            self.pending_join_bytes -= ENTRY_OVERHEAD_BYTES + member_id.len();
        }
    }

    /// Cancels all timers of a deleted group.
    pub(crate) fn cancel_timers(&self, timers: &mut Timers) {
        timers.cancel(&self.join_key());
        timers.cancel(&self.sync_key());
        let member_ids = self.members.iter().map(|member| &member.member_id);
        for member_id in member_ids.chain(&self.pending_join) {
            timers.cancel(&self.session_key(member_id));
        }
    }

    fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    fn rebalance_timeout_ms(&self) -> i32 {
        self.members.iter().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0).max(0)
    }

    fn refresh_session(&self, context: &mut Context<'_>, member_id: &str) {
        if let Some(member) = self.members.get(member_id) {
            self.schedule_session(context, &member.member_id, member.session_timeout_ms);
        }
    }

    fn schedule_session(&self, context: &mut Context<'_>, member_id: &Arc<str>, timeout_ms: i32) {
        self.schedule(context, self.session_key(member_id), timeout_ms);
    }

    fn schedule(&self, context: &mut Context<'_>, key: TimerKey, delay_ms: i32) {
        context.timers.schedule(key, context.now.monotonic_ms + i64::from(delay_ms));
    }

    fn session_key(&self, member_id: &Arc<str>) -> TimerKey {
        TimerKey::Session { group_id: self.group_id.clone(), member_id: member_id.clone() }
    }

    fn join_key(&self) -> TimerKey {
        TimerKey::Join { group_id: self.group_id.clone() }
    }

    fn sync_key(&self) -> TimerKey {
        TimerKey::Sync { group_id: self.group_id.clone() }
    }

    /// The only place where the state changes; see the diagram at the top.
    fn transition_to(&mut self, next: GroupState, now: Now) {
        let valid = match next {
            GroupState::Empty => matches!(self.state, GroupState::PreparingRebalance),
            GroupState::PreparingRebalance => {
                matches!(self.state, GroupState::Stable | GroupState::CompletingRebalance | GroupState::Empty)
            }
            GroupState::CompletingRebalance => matches!(self.state, GroupState::PreparingRebalance),
            GroupState::Stable => matches!(self.state, GroupState::CompletingRebalance),
            GroupState::Dead => true,
        };
        assert!(valid, "group {} must not go from {:?} to {next:?}", self.group_id, self.state);
        self.state = next;
        self.current_state_timestamp_ms = now.timestamp_ms;
    }
}
