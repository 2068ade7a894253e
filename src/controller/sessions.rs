//! The sessions of brokers: who has not sent a heartbeat for too long, or has ended. Apache: `BrokerHeartbeatManager`.
//!
//! Owns the time of each broker's last heartbeat, which only the active controller knows and no record holds. Beyond
//! Kafka it knows the nodes whose process has ended: they are fenced at once. Leaves the records of fencing to
//! `brokers.rs`, and the proof that a process has ended to `raft/transport.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::brokers::BrokerHeartbeat;
use crate::{metadata::image::MetadataImage, types::BrokerId};

/// The last heartbeats of all brokers, in monotonic time.
#[derive(Debug, Default)]
pub struct BrokerSessions {
    last_contact: BTreeMap<BrokerId, Duration>,
    /// Nodes whose process has ended, and that have sent nothing since. A controller that is not active remembers them,
    /// too: the next one may be this.
    ended: BTreeSet<BrokerId>,
}

/// A broker that must be fenced.
#[derive(Debug)]
pub struct Expired {
    pub fence: BrokerHeartbeat,
    /// Its process has ended; otherwise its session is over.
    pub has_ended: bool,
}

impl BrokerSessions {
    /// A broker has sent a heartbeat, or is known to live.
    pub fn on_heartbeat(&mut self, broker: BrokerId, now: Duration) {
        self.last_contact.insert(broker, now);
        self.ended.remove(&broker);
    }

    /// The process of a node has ended.
    pub fn on_end(&mut self, node: BrokerId) {
        self.ended.insert(node);
    }

    /// Whether the process of a node has ended, as far as this node knows.
    pub fn has_ended(&self, node: BrokerId) -> bool {
        self.ended.contains(&node)
    }

    /// A node has sent a message, so its process runs.
    pub fn on_message(&mut self, node: BrokerId) {
        self.ended.remove(&node);
    }

    /// All sessions begin anew: this controller was not active, or did not run, and has heard nobody meanwhile.
    pub fn restart(&mut self) {
        self.last_contact.clear();
    }

    /// The request that fences a broker whose session is over, or whose process has ended. One at a time, so that the
    /// leaders of the next are chosen when this one is fenced.
    pub fn expired(&mut self, image: &MetadataImage, now: Duration, timeout: Duration) -> Option<Expired> {
        let BrokerSessions { last_contact, ended } = self;
        let mut alive = image.alive_brokers();
        // A broker that was never heard begins its session now.
        let mut is_silent = |broker: BrokerId| *last_contact.entry(broker).or_insert(now) + timeout < now;
        let expired = alive.find(|broker| ended.contains(&broker.id) || is_silent(broker.id))?;
        let fence = BrokerHeartbeat { want_fence: true, ..BrokerHeartbeat::new(expired.id, expired.epoch) };
        Some(Expired { fence, has_ended: ended.contains(&expired.id) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::*;

    #[test]
    fn a_broker_is_fenced_when_it_was_silent_for_its_session() {
        let image = image_with_brokers(&[1, 2]);
        let mut sessions = BrokerSessions::default();
        let (second, timeout) = (Duration::from_secs(1), Duration::from_secs(9));
        let expired = |sessions: &mut BrokerSessions, at: u32| {
            sessions.expired(&image, second * at, timeout).map(|expired| expired.fence.broker_id)
        };
        assert_eq!(expired(&mut sessions, 100), None, "a new controller gives each broker a whole session");
        assert_eq!(expired(&mut sessions, 109), None);
        sessions.on_heartbeat(2, second * 105);
        assert_eq!(expired(&mut sessions, 110), Some(1));
        sessions.restart();
        assert_eq!(expired(&mut sessions, 120), None);
        assert_eq!(expired(&mut sessions, 130), Some(1), "then the other, once this one is fenced");
    }

    #[test]
    fn a_broker_whose_process_has_ended_is_fenced_at_once_until_it_is_heard_again() {
        let image = image_with_brokers(&[1, 2]);
        let mut sessions = BrokerSessions::default();
        let (now, timeout) = (Duration::from_secs(100), Duration::from_secs(9));
        let expired = |sessions: &mut BrokerSessions| {
            sessions.expired(&image, now, timeout).map(|expired| (expired.fence.broker_id, expired.has_ended))
        };
        sessions.on_end(2);
        // The next controller has learned of it before it became active.
        sessions.restart();
        assert_eq!(expired(&mut sessions), Some((2, true)));
        sessions.on_message(2);
        assert_eq!(expired(&mut sessions), None);
        sessions.on_end(2);
        sessions.on_heartbeat(2, now);
        assert_eq!(expired(&mut sessions), None);
    }
}
