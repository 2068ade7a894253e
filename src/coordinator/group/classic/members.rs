//! The members of one group, in the order in which they joined and by member id.
//!
//! Owns the counts that steps often need (the members that wait in the join phase, the memory of all members, and the
//! least size of the group's record), so that no step iterates over all members for them. Every change of a member
//! goes through [`Members::update`] or [`Members::update_all`], which update the counts.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::super::{MemberProtocol, RequestId};

/// The approximate memory of a member without its strings and bytes: the struct, its timer and its map entries.
const MEMBER_OVERHEAD_BYTES: usize = 1024;
/// The approximate memory of a protocol without its name and metadata.
const PROTOCOL_OVERHEAD_BYTES: usize = 128;
/// The bytes of two timeouts and of the lengths of six string and bytes fields.
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
    /// The member waits for the response to its first JoinGroup.
    pub(super) is_new: bool,
}

impl Member {
    pub(super) fn metadata(&self, protocol_name: Option<&str>) -> Bytes {
        // linear: a member has at most MAX_PROTOCOLS
        let chosen = self.protocols.iter().find(|protocol| Some(&*protocol.name) == protocol_name);
        chosen.map(|protocol| protocol.metadata.clone()).unwrap_or_default()
    }

    /// A member that waits for a response sends no heartbeats, so its session must not expire. A new member may have
    /// disconnected, so its session can expire.
    pub(super) fn has_satisfied_heartbeat(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    fn names_bytes(&self) -> usize {
        let instance_id = self.group_instance_id.as_ref().map_or(0, |id| id.len());
        self.member_id.len() + instance_id + self.client_id.len() + self.client_host.len()
    }

    /// The approximate memory of the member.
    pub(super) fn memory_bytes(&self) -> usize {
        MEMBER_OVERHEAD_BYTES + self.names_bytes() + protocols_bytes(&self.protocols) + self.assignment.len()
    }

    /// The least size of the member in the group's record, for any chosen protocol.
    pub(super) fn least_record_bytes(&self) -> usize {
        let least = self.protocols.iter().map(|protocol| protocol.metadata.len()).min().unwrap_or(0);
        RECORD_OVERHEAD_BYTES + self.names_bytes() + least
    }
}

/// The approximate memory of a member's protocols.
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

    /// The members in the order in which they joined.
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

    /// The number of members whose JoinGroup waits for the end of the join phase.
    pub(super) fn awaiting_join_count(&self) -> usize {
        self.awaiting_join
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    pub(super) fn least_record_bytes(&self) -> usize {
        self.least_record_bytes
    }

    /// Adds a member at the end.
    pub(super) fn push(&mut self, member: Member) {
        let position = self.next_position;
        self.next_position += 1;
        self.put(position, member);
    }

    pub(super) fn remove(&mut self, member_id: &str) -> Option<Member> {
        self.take(member_id).map(|(_, member)| member)
    }

    /// Changes the id of a member, which keeps its position.
    pub(super) fn rename(&mut self, member_id: &str, new_member_id: &Arc<str>, change: impl FnOnce(&mut Member)) {
        let Some((position, mut member)) = self.take(member_id) else { return };
        member.member_id = new_member_id.clone();
        change(&mut member);
        self.put(position, member);
    }

    /// Changes one member, but not its id. Returns `None` if there is no such member.
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
