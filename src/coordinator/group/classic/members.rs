//! The members of one group: in the order they joined, found by id, and counted.
//!
//! Owns the counts that a step asks for again and again (who waits for the join phase, what the members take in
//! memory and at least in the group's record), so that no step walks over all members for them. Every change of a
//! member goes through [`Members::update`] or [`Members::update_all`], which keep the counts.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::super::{MemberProtocol, RequestId};

/// A member takes about this much in memory besides its strings and bytes: the entry, its timer and its place in maps.
const MEMBER_OVERHEAD_BYTES: usize = 1024;
/// A protocol takes about this much besides its name and metadata.
const PROTOCOL_OVERHEAD_BYTES: usize = 128;
/// Two timeouts, and the lengths of six strings and byte fields.
const RECORD_OVERHEAD_BYTES: usize = 24;

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) member_id: Arc<str>,
    pub(super) group_instance_id: Option<Arc<str>>,
    pub(super) client_id: Arc<str>,
    pub(super) client_host: Arc<str>,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) protocols: Vec<MemberProtocol>,
    pub(super) assignment: Bytes,
    pub(super) awaiting_join: Option<RequestId>,
    pub(super) awaiting_sync: Option<RequestId>,
    /// Has not been answered its first JoinGroup yet.
    pub(super) is_new: bool,
}

impl Member {
    pub(super) fn metadata(&self, protocol_name: Option<&str>) -> Bytes {
        // linear: a member has at most MAX_PROTOCOLS
        let chosen = self.protocols.iter().find(|protocol| Some(&*protocol.name) == protocol_name);
        chosen.map(|protocol| protocol.metadata.clone()).unwrap_or_default()
    }

    /// A parked member cannot send heartbeats, so its session does not run; a new one can vanish, though.
    pub(super) fn has_satisfied_heartbeat(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    fn names_bytes(&self) -> usize {
        let instance_id = self.group_instance_id.as_ref().map_or(0, |id| id.len());
        self.member_id.len() + instance_id + self.client_id.len() + self.client_host.len()
    }

    /// What the member takes in memory, about.
    pub(super) fn memory_bytes(&self) -> usize {
        MEMBER_OVERHEAD_BYTES + self.names_bytes() + protocols_bytes(&self.protocols) + self.assignment.len()
    }

    /// What the member takes at least in the group's record, whatever protocol is chosen.
    pub(super) fn least_record_bytes(&self) -> usize {
        let least = self.protocols.iter().map(|protocol| protocol.metadata.len()).min().unwrap_or(0);
        RECORD_OVERHEAD_BYTES + self.names_bytes() + least
    }
}

/// What the protocols of a member take in memory, about.
pub(crate) fn protocols_bytes(protocols: &[MemberProtocol]) -> usize {
    protocols.iter().map(|protocol| PROTOCOL_OVERHEAD_BYTES + protocol.name.len() + protocol.metadata.len()).sum()
}

#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    in_order: BTreeMap<u64, Member>,
    positions: BTreeMap<Arc<str>, u64>,
    next_position: u64,
    awaiting_join: usize,
    memory_bytes: usize,
    least_record_bytes: usize,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.in_order.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_order.is_empty()
    }

    /// In the order they joined.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.in_order.values()
    }

    pub(super) fn first_id(&self) -> Option<Arc<str>> {
        self.iter().next().map(|member| member.member_id.clone())
    }

    pub(super) fn ids(&self) -> Vec<Arc<str>> {
        self.iter().map(|member| member.member_id.clone()).collect()
    }

    pub(super) fn contains(&self, member_id: &str) -> bool {
        self.positions.contains_key(member_id)
    }

    pub(super) fn get(&self, member_id: &str) -> Option<&Member> {
        self.in_order.get(self.positions.get(member_id)?)
    }

    /// Members whose JoinGroup waits for the end of the join phase.
    pub(super) fn awaiting_join_count(&self) -> usize {
        self.awaiting_join
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    pub(super) fn least_record_bytes(&self) -> usize {
        self.least_record_bytes
    }

    /// Adds a member behind the others.
    pub(super) fn push(&mut self, member: Member) {
        let position = self.next_position;
        self.next_position += 1;
        self.put(position, member);
    }

    pub(super) fn remove(&mut self, member_id: &str) -> Option<Member> {
        self.take(member_id).map(|(_, member)| member)
    }

    /// Gives a member another id; it keeps its place.
    pub(super) fn rename(&mut self, member_id: &str, new_member_id: &Arc<str>, change: impl FnOnce(&mut Member)) {
        let Some((position, mut member)) = self.take(member_id) else { return };
        member.member_id = new_member_id.clone();
        change(&mut member);
        self.put(position, member);
    }

    /// Changes one member, but not its id. `None` if there is no such member.
    pub(super) fn update<T>(&mut self, member_id: &str, change: impl FnOnce(&mut Member) -> T) -> Option<T> {
        let (position, mut member) = self.take(member_id)?;
        let result = change(&mut member);
        self.put(position, member);
        Some(result)
    }

    /// Changes every member, but not their ids.
    pub(super) fn update_all(&mut self, mut change: impl FnMut(&mut Member)) {
        self.in_order.values_mut().for_each(&mut change);
        self.awaiting_join = self.iter().filter(|member| member.awaiting_join.is_some()).count();
        self.memory_bytes = self.iter().map(Member::memory_bytes).sum();
        self.least_record_bytes = self.iter().map(Member::least_record_bytes).sum();
    }

    fn put(&mut self, position: u64, member: Member) {
        self.awaiting_join += usize::from(member.awaiting_join.is_some());
        self.memory_bytes += member.memory_bytes();
        self.least_record_bytes += member.least_record_bytes();
        self.positions.insert(member.member_id.clone(), position);
        self.in_order.insert(position, member);
    }

    fn take(&mut self, member_id: &str) -> Option<(u64, Member)> {
        let position = self.positions.remove(member_id)?;
        let member = self.in_order.remove(&position)?;
        self.awaiting_join -= usize::from(member.awaiting_join.is_some());
        self.memory_bytes -= member.memory_bytes();
        self.least_record_bytes -= member.least_record_bytes();
        Some((position, member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, metadata_bytes: usize) -> Member {
        Member {
            member_id: id.into(),
            group_instance_id: None,
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout_ms: 0,
            session_timeout_ms: 0,
            protocols: vec![MemberProtocol { name: "range".into(), metadata: vec![0; metadata_bytes].into() }],
            assignment: Bytes::new(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: true,
        }
    }

    #[test]
    fn counts_follow_every_change_and_order_is_that_of_joining() {
        let mut members = Members::default();
        ["b", "a", "c"].into_iter().for_each(|id| members.push(member(id, 10)));
        let three = members.memory_bytes();
        members.update("a", |member| member.awaiting_join = Some(RequestId(1)));
        members.update("c", |member| member.protocols[0].metadata = vec![0; 110].into());
        assert_eq!((members.awaiting_join_count(), members.memory_bytes()), (1, three + 100));
        members.rename("b", &"bbb".into(), |member| member.is_new = false);
        assert_eq!(members.ids(), ["bbb".into(), "a".into(), "c".into()] as [Arc<str>; 3]);
        assert_eq!(members.memory_bytes(), three + 102);
        members.update_all(|member| member.awaiting_join = Some(RequestId(2)));
        assert_eq!(members.awaiting_join_count(), 3);
        for id in ["a", "bbb", "c"] {
            assert!(members.remove(id).is_some());
        }
        assert_eq!((members.awaiting_join_count(), members.memory_bytes(), members.least_record_bytes()), (0, 0, 0));
        assert!(members.remove("a").is_none() && members.first_id().is_none());
    }
}
