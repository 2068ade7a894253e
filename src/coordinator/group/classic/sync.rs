//! SyncGroup: stores the leader's assignment, then sends it to all members that wait for it.

use super::*;

impl ClassicGroup {
    pub(crate) fn sync(&mut self, context: &mut Context<'_>, id: RequestId, request: SyncRequest) {
        if let Err(error) = self.validate_sync(&request) {
            context.step.reply(id, Output::Synced(Err(error)));
            return;
        }
        let member_id = request.member_id.clone();
        match self.state {
            GroupState::PreparingRebalance => {
                context.step.reply(id, Output::Synced(Err(GroupError::RebalanceInProgress)));
            }
            GroupState::CompletingRebalance => {
                let superseded = self.members.update(&member_id, |member| member.awaiting_sync.replace(id));
                if let Some(superseded) = superseded.flatten() {
                    context.step.reply(superseded, Output::Synced(Err(GroupError::RebalanceInProgress)));
                }
                self.remove_pending_sync(context, &member_id);
                if self.is_leader(&member_id) {
                    self.store_assignment(context, request.assignments);
                }
            }
            GroupState::Stable => {
                self.remove_pending_sync(context, &member_id);
                let assignment = self.members.get(&member_id).map(|m| m.assignment.clone()).unwrap_or_default();
                context.step.reply_after_commit(id, Output::Synced(Ok(self.synced(assignment))));
            }
            GroupState::Empty | GroupState::Dead => {
                context.step.reply(id, Output::Synced(Err(GroupError::UnknownMemberId)));
            }
        }
    }

    fn validate_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation_id {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |given: &Option<Arc<str>>, own: &Option<Arc<str>>| given.is_some() && given != own;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol_name, &self.protocol_name)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    /// Stores the leader's assignment, which makes the generation durable. No member gets a response before that (G6).
    fn store_assignment(&mut self, context: &mut Context<'_>, mut assignments: BTreeMap<Arc<str>, Bytes>) {
        self.members.update_all(|member| {
            member.assignment = assignments.remove(&member.member_id).unwrap_or_default();
        });
        let value = self.to_value();
        if value.size_bytes() > context.max_record_bytes {
            self.refuse_syncs(context, GroupError::UnknownServerError);
            self.prepare_rebalance_or_complete_join(context, "the assignment is too large to be stored");
            return;
        }
        context.step.records.push(Record::GroupMetadata { group_id: self.group_id.clone(), value: Some(value) });
        self.transition_to(GroupState::Stable, context.now);
        let mut answered = Vec::new();
        self.members.update_all(|member| {
            if let Some(sync) = member.awaiting_sync.take() {
                answered.push((sync, member.member_id.clone(), member.assignment.clone(), member.session_timeout_ms));
            }
        });
        for (sync, member_id, assignment, session_timeout_ms) in answered {
            context.step.reply_after_commit(sync, Output::Synced(Ok(self.synced(assignment))));
            self.schedule_session(context, &member_id, session_timeout_ms);
        }
    }

    fn synced(&self, assignment: Bytes) -> Synced {
        Synced { protocol_type: self.protocol_type.clone(), protocol_name: self.protocol_name.clone(), assignment }
    }

    pub(super) fn refuse_syncs(&mut self, context: &mut Context<'_>, error: GroupError) {
        let mut answered = Vec::new();
        self.members.update_all(|member| {
            member.assignment = Bytes::new();
            if let Some(sync) = member.awaiting_sync.take() {
                context.step.reply(sync, Output::Synced(Err(error)));
                answered.push((member.member_id.clone(), member.session_timeout_ms));
            }
        });
        for (member_id, session_timeout_ms) in answered {
            self.schedule_session(context, &member_id, session_timeout_ms);
        }
    }

    fn remove_pending_sync(&mut self, context: &mut Context<'_>, member_id: &str) {
        self.pending_sync.remove(member_id);
        if self.pending_sync.is_empty() {
            context.timers.cancel(&self.sync_key());
        }
    }
}
