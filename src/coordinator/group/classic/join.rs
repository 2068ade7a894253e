//! JoinGroup and the join phase: admits members, waits until all have joined, and starts the next generation.

use indexmap::IndexMap;

use super::*;

impl ClassicGroup {
    /// `member_uuid` becomes the random part of a new member id.
    pub(crate) fn join(&mut self, context: &mut Context<'_>, id: RequestId, request: JoinRequest, member_uuid: Uuid) {
        if !self.accepts_joining_member(context, &request) {
            self.refuse_join(context, id, "".into(), GroupError::GroupMaxSizeReached);
            if self.members.contains(&request.member_id) {
                // Apache removes the member too, but then lets the others wait for the rebalance timeout, to no
                // benefit.
                self.remove_member(context, &request.member_id);
                self.maybe_complete_join_phase(context);
            }
        } else if !self.supports_protocols(&request.protocol_type, &request.protocols) {
            self.refuse_join(context, id, request.member_id, GroupError::InconsistentGroupProtocol);
        } else if request.member_id.is_empty() {
            self.join_new_member(context, id, request, member_uuid);
        } else {
            self.join_known_member(context, id, request);
        }
    }

    fn refuse_join(&self, context: &mut Context<'_>, id: RequestId, member_id: Arc<str>, error: GroupError) {
        context.step.reply(id, Output::Joined(Err(JoinError { error, member_id })));
    }

    fn accepts_joining_member(&self, context: &Context<'_>, request: &JoinRequest) -> bool {
        let config = context.config;
        let member = self.members.get(&request.member_id);
        if member.is_none() && self.least_record_bytes_with(request) > context.max_record_bytes {
            // The record of its generations would be too large for the log.
            return false;
        }
        let known = member.is_some() || self.pending_join.contains(&request.member_id);
        let has_room_for_id = known || self.pending_join.len() < config.max_pending_members;
        match self.state {
            GroupState::Empty | GroupState::Dead => has_room_for_id,
            // Counts only members that have rejoined. If the limit was lowered, the last ones to rejoin are removed.
            GroupState::PreparingRebalance => {
                member.is_some_and(|member| member.awaiting_join.is_some())
                    || (has_room_for_id && self.members.awaiting_join_count() < config.group_max_size)
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                member.is_some() || (has_room_for_id && self.members.len() < config.group_max_size)
            }
        }
    }

    /// The least size of the group's record if this member were added. A static member that comes back without its
    /// member id replaces the old one.
    fn least_record_bytes_with(&self, request: &JoinRequest) -> usize {
        let replaces = request.group_instance_id.as_ref().is_some_and(|id| self.static_members.contains_key(id));
        let added = if replaces { 0 } else { request.client_id.len() + request.client_host.len() };
        self.members.least_record_bytes() + added
    }

    fn supports_protocols(&self, protocol_type: &str, protocols: &[MemberProtocol]) -> bool {
        if self.state == GroupState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            // linear: a member has at most MAX_PROTOCOLS
            && protocols.iter().any(|protocol| self.all_members_support(&protocol.name))
    }

    fn all_members_support(&self, protocol_name: &str) -> bool {
        self.supported_protocols.get(protocol_name).copied().unwrap_or(0) == self.members.len()
    }

    pub(super) fn count_protocols(&mut self, protocols: &[MemberProtocol], added: bool) {
        for protocol in protocols {
            let count = self.supported_protocols.entry(protocol.name.clone()).or_default();
            *count = if added { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.supported_protocols.remove(&protocol.name);
            }
        }
    }

    fn join_new_member(&mut self, context: &mut Context<'_>, id: RequestId, request: JoinRequest, member_uuid: Uuid) {
        let prefix = request.group_instance_id.as_ref().unwrap_or(&request.client_id);
        let member_id: Arc<str> = format!("{prefix}-{member_uuid}").into();
        match &request.group_instance_id {
            Some(instance_id) => match self.static_members.get(instance_id).cloned() {
                Some(old_member_id) => self.replace_static_member(context, id, request, &old_member_id, member_id),
                None => self.add_member(context, id, request, member_id),
            },
            None if request.requires_known_member_id => {
                self.remember_pending_id(member_id.clone());
                self.schedule_session(context, &member_id, request.session_timeout_ms);
                self.refuse_join(context, id, member_id, GroupError::MemberIdRequired);
            }
            None => self.add_member(context, id, request, member_id),
        }
    }

    fn join_known_member(&mut self, context: &mut Context<'_>, id: RequestId, request: JoinRequest) {
        let member_id = request.member_id.clone();
        if self.pending_join.contains(&member_id) {
            if request.group_instance_id.is_some() {
                // Only dynamic members get pending ids.
                self.refuse_join(context, id, member_id, GroupError::UnknownMemberId);
            } else {
                self.add_member(context, id, request, member_id);
            }
            return;
        }
        if let Err(error) = self.validate_member(&member_id, request.group_instance_id.as_deref()) {
            self.refuse_join(context, id, member_id, error);
            return;
        }
        let unchanged = self.members.get(&member_id).is_some_and(|member| member.protocols == request.protocols);
        match self.state {
            GroupState::PreparingRebalance => self.update_member_and_rebalance(context, id, request),
            // The member may have missed this generation's JoinGroup response.
            GroupState::CompletingRebalance if unchanged => {
                let joined = self.joined(&member_id, false);
                context.step.reply(id, Output::Joined(Ok(joined)));
            }
            // A leader that rejoins asks for a new assignment, for instance because partitions were added.
            GroupState::Stable if unchanged && !self.is_leader(&member_id) => {
                let joined = self.joined(&member_id, false);
                context.step.reply(id, Output::Joined(Ok(joined)));
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.update_member_and_rebalance(context, id, request);
            }
            GroupState::Empty | GroupState::Dead => {
                self.refuse_join(context, id, member_id, GroupError::UnknownMemberId);
            }
        }
    }

    fn add_member(&mut self, context: &mut Context<'_>, id: RequestId, request: JoinRequest, member_id: Arc<str>) {
        if let Some(initial) = &mut self.initial_rebalance {
            initial.new_member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member_id.clone());
        }
        if let Some(instance_id) = &request.group_instance_id {
            self.static_members.insert(instance_id.clone(), member_id.clone());
        }
        self.forget_pending_id(&member_id);
        let member = Member {
            member_id: member_id.clone(),
            group_instance_id: request.group_instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
            awaiting_join: Some(id),
            awaiting_sync: None,
            is_new: true,
        };
        self.count_protocols(&member.protocols, true);
        self.members.push(member);
        self.schedule_session(context, &member_id, NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.prepare_rebalance_or_complete_join(context, "a member joined");
    }

    fn update_member_and_rebalance(&mut self, context: &mut Context<'_>, id: RequestId, request: JoinRequest) {
        self.update_member(context, id, request);
        self.prepare_rebalance_or_complete_join(context, "a member rejoined");
    }

    fn update_member(&mut self, context: &mut Context<'_>, id: RequestId, request: JoinRequest) {
        self.count_protocols(&request.protocols, true);
        let updated = self.members.update(&request.member_id, |member| {
            member.rebalance_timeout_ms = request.rebalance_timeout_ms;
            member.session_timeout_ms = request.session_timeout_ms;
            (std::mem::replace(&mut member.protocols, request.protocols), member.awaiting_join.replace(id))
        });
        let Some((replaced, superseded)) = updated else { return };
        if let Some(superseded) = superseded {
            // The client sent JoinGroup again on another connection; Apache never answers the first request.
            let error = JoinError { error: GroupError::RebalanceInProgress, member_id: request.member_id };
            context.step.reply(superseded, Output::Joined(Err(error)));
        }
        self.count_protocols(&replaced, false);
    }

    /// A static member that came back without its member id replaces the old one (KIP-345).
    fn replace_static_member(
        &mut self,
        context: &mut Context<'_>,
        id: RequestId,
        mut request: JoinRequest,
        old_member_id: &Arc<str>,
        member_id: Arc<str>,
    ) {
        let old_leader = self.leader.clone().unwrap_or_default();
        let supports_skip_assignment = request.supports_skip_assignment;
        self.rename_static_member(context, old_member_id, &member_id);
        request.member_id = member_id.clone();
        self.update_member(context, id, request);
        match self.state {
            GroupState::Stable => {
                let keeps_protocol = self.select_protocol() == self.protocol_name;
                if keeps_protocol && self.to_value().size_bytes() <= context.max_record_bytes {
                    self.members.update(&member_id, |member| member.awaiting_join = None);
                    // No rebalance is needed: the old assignment stays, and the new member id is written to the log.
                    let mut joined = self.joined(&member_id, supports_skip_assignment);
                    if !supports_skip_assignment {
                        // An old client that learns it is the leader would compute a new assignment in vain (KIP-814).
                        joined.leader = old_leader;
                        joined.members = Vec::new();
                    }
                    context.step.records.push(self.to_record());
                    context.step.reply_after_commit(id, Output::Joined(Ok(joined)));
                } else {
                    self.prepare_rebalance_or_complete_join(context, "a static member changes the protocol");
                }
            }
            // The leader may just be computing an assignment for the old id.
            GroupState::CompletingRebalance => self.prepare_rebalance(context, "a static member came back"),
            GroupState::PreparingRebalance | GroupState::Empty | GroupState::Dead => {
                self.maybe_complete_join_phase(context);
            }
        }
    }

    fn rename_static_member(&mut self, context: &mut Context<'_>, old_member_id: &Arc<str>, member_id: &Arc<str>) {
        let Some(member) = self.members.get(old_member_id) else { return };
        let (instance_id, session_timeout_ms) = (member.group_instance_id.clone(), member.session_timeout_ms);
        let (mut join, mut sync) = (None, None);
        self.members.rename(old_member_id, member_id, |member| {
            (join, sync) = (member.awaiting_join.take(), member.awaiting_sync.take());
            member.is_new = false;
        });
        if let Some(join) = join {
            let error = JoinError { error: GroupError::FencedInstanceId, member_id: old_member_id.clone() };
            context.step.reply(join, Output::Joined(Err(error)));
        }
        if let Some(sync) = sync {
            context.step.reply(sync, Output::Synced(Err(GroupError::FencedInstanceId)));
        }
        context.timers.cancel(&self.session_key(old_member_id));
        self.pending_sync.remove(old_member_id);
        if let Some(instance_id) = instance_id {
            self.static_members.insert(instance_id, member_id.clone());
        }
        if self.leader.as_ref() == Some(old_member_id) {
            self.leader = Some(member_id.clone());
        }
        self.schedule_session(context, member_id, session_timeout_ms);
    }

    fn joined(&self, member_id: &Arc<str>, supports_skip_assignment: bool) -> Joined {
        let leads = self.is_leader(member_id);
        let protocol_name = self.protocol_name.as_deref();
        let described = |member: &Member| JoinedMember {
            member_id: member.member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            metadata: member.metadata(protocol_name),
        };
        Joined {
            generation_id: self.generation_id,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: supports_skip_assignment && leads,
            member_id: member_id.clone(),
            members: if leads { self.members.iter().map(described).collect() } else { Vec::new() },
        }
    }

    pub(super) fn prepare_rebalance_or_complete_join(&mut self, context: &mut Context<'_>, reason: &str) {
        match self.state {
            GroupState::Empty | GroupState::CompletingRebalance | GroupState::Stable => {
                self.prepare_rebalance(context, reason);
            }
            GroupState::PreparingRebalance | GroupState::Dead => self.maybe_complete_join_phase(context),
        }
    }

    pub(super) fn prepare_rebalance(&mut self, context: &mut Context<'_>, reason: &str) {
        if self.state == GroupState::CompletingRebalance {
            self.refuse_syncs(context, GroupError::RebalanceInProgress);
        }
        self.pending_sync.clear();
        context.timers.cancel(&self.sync_key());
        let initial = self.state == GroupState::Empty;
        self.transition_to(GroupState::PreparingRebalance, context.now);
        tracing::debug!(
            group = &*self.group_id,
            generation = self.generation_id,
            members = self.members.len(),
            reason,
            "group prepares to rebalance"
        );
        if initial {
            let delay_ms = context.config.group_initial_rebalance_delay_ms;
            let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms).max(0);
            self.initial_rebalance = Some(InitialRebalance { delay_ms, remaining_ms, new_member_added: false });
            self.schedule(context, self.join_key(), delay_ms);
        } else if self.has_all_members_joined() {
            self.complete_join(context);
        } else {
            self.schedule(context, self.join_key(), self.rebalance_timeout_ms());
        }
    }

    /// Completes the join phase when all members have joined. The initial rebalance of an empty group always waits for
    /// its whole delay.
    pub(super) fn maybe_complete_join_phase(&mut self, context: &mut Context<'_>) {
        let waits = self.state == GroupState::PreparingRebalance && self.initial_rebalance.is_none();
        if waits && self.has_all_members_joined() {
            self.complete_join(context);
        }
    }

    pub(super) fn has_all_members_joined(&self) -> bool {
        self.pending_join.is_empty() && self.members.awaiting_join_count() == self.members.len()
    }

    pub(super) fn complete_join(&mut self, context: &mut Context<'_>) {
        context.timers.cancel(&self.join_key());
        self.initial_rebalance = None;
        self.remove_members_that_did_not_rejoin(context);
        if !self.elect_joined_leader() && !self.members.is_empty() {
            // Only static members are left, and none has rejoined: wait until one does or all sessions expire.
            let retry_ms = self.rebalance_timeout_ms().max(MIN_JOIN_RETRY_MS);
            self.schedule(context, self.join_key(), retry_ms);
            return;
        }
        self.init_next_generation(context.now);
        if self.state == GroupState::Empty {
            tracing::debug!(group = &*self.group_id, generation = self.generation_id, "group is now empty");
            context.step.records.push(self.to_record());
            return;
        }
        // Debug level, because clients decide how many groups there are and how often they rebalance.
        tracing::debug!(
            group = &*self.group_id,
            generation = self.generation_id,
            members = self.members.len(),
            "group has a new generation"
        );
        self.answer_joins(context);
        self.schedule(context, self.sync_key(), self.rebalance_timeout_ms());
    }

    fn answer_joins(&mut self, context: &mut Context<'_>) {
        for member_id in self.members.ids() {
            let joined = self.joined(&member_id, false);
            let updated = self.members.update(&member_id, |member| {
                member.is_new = false;
                (member.awaiting_join.take(), member.session_timeout_ms)
            });
            let Some((join, session_timeout_ms)) = updated else { continue };
            if let Some(id) = join {
                context.step.reply(id, Output::Joined(Ok(joined)));
            }
            self.schedule_session(context, &member_id, session_timeout_ms);
            self.pending_sync.insert(member_id);
        }
    }

    fn remove_members_that_did_not_rejoin(&mut self, context: &mut Context<'_>) {
        let laggards: Vec<Arc<str>> = self
            .members
            .iter()
            .filter(|member| member.awaiting_join.is_none() && member.group_instance_id.is_none())
            .map(|member| member.member_id.clone())
            .collect();
        for member_id in &laggards {
            self.remove_member(context, member_id);
        }
        if !laggards.is_empty() {
            tracing::debug!(group = &*self.group_id, members = ?laggards, "members did not rejoin and are removed");
        }
    }

    /// Makes a member that has joined the leader, because the leader must compute the assignment. Returns false if no
    /// member has joined.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |member: &Member| member.awaiting_join.is_some();
        if self.leader.as_ref().and_then(|leader| self.members.get(leader)).is_some_and(joined) {
            return true;
        }
        // linear: once per generation
        match self.members.iter().find(|member| joined(member)) {
            Some(member) => {
                self.leader = Some(member.member_id.clone());
                true
            }
            None => false,
        }
    }

    fn init_next_generation(&mut self, now: Now) {
        self.generation_id = self.generation_id.saturating_add(1);
        self.protocol_name = self.select_protocol();
        self.learn_subscribed_topics();
        self.pending_sync.clear();
        let next = if self.members.is_empty() { GroupState::Empty } else { GroupState::CompletingRebalance };
        self.transition_to(next, now);
    }

    /// Returns the protocol that most members prefer among those that all support. If there is a tie, the protocol with
    /// the first vote wins.
    fn select_protocol(&self) -> Option<Arc<str>> {
        let mut votes: IndexMap<&Arc<str>, usize> = IndexMap::new();
        let first = self.members.iter().next()?;
        let candidates: BTreeSet<&Arc<str>> =
            first.protocols.iter().map(|p| &p.name).filter(|name| self.all_members_support(name)).collect();
        for member in self.members.iter() {
            // linear: a member has at most MAX_PROTOCOLS
            if let Some(vote) = member.protocols.iter().find(|protocol| candidates.contains(&protocol.name)) {
                *votes.entry(&vote.name).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        // linear: at most MAX_PROTOCOLS, once per generation
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.clone())
    }

    pub(super) fn learn_subscribed_topics(&mut self) {
        self.subscribed_topics = self.compute_subscribed_topics();
        let topics = self.subscribed_topics.iter().flatten();
        self.subscribed_topics_bytes = topics.map(|topic| ENTRY_OVERHEAD_BYTES + topic.len()).sum();
    }

    fn compute_subscribed_topics(&self) -> Option<BTreeSet<Arc<str>>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let mut subscribed = SubscribedTopics::default();
        let protocol_name = self.protocol_name.as_deref()?;
        for member in self.members.iter() {
            if let Err(error) = subscribed.add(&member.metadata(Some(protocol_name))) {
                tracing::debug!(group = &*self.group_id, %error, "cannot read a subscription");
                return None;
            }
        }
        Some(subscribed.into_topics())
    }
}
