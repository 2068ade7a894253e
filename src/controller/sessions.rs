//! The sessions of brokers: who has not sent a heartbeat for too long. Apache: `BrokerHeartbeatManager`.
//!
//! Owns the time of each broker's last heartbeat, which only the active controller knows and no record holds. Leaves
//! the records of fencing to `brokers.rs`.

use std::{collections::BTreeMap, time::Duration};

use super::brokers::BrokerHeartbeat;
use crate::{metadata::image::MetadataImage, types::BrokerId};

/// The last heartbeats of all brokers, in monotonic time.
#[derive(Debug, Default)]
pub struct BrokerSessions {
    last_contact: BTreeMap<BrokerId, Duration>,
}

impl BrokerSessions {
    /// A broker has sent a heartbeat.
    pub fn on_heartbeat(&mut self, broker: BrokerId, now: Duration) {
        self.last_contact.insert(broker, now);
    }

    /// All sessions begin anew: this controller was not active, or did not run, and has heard nobody meanwhile.
    pub fn restart(&mut self) {
        self.last_contact.clear();
    }

    /// The request that fences a broker whose session is over. One at a time, so that the leaders of the next are
    /// chosen when this one is fenced.
    pub fn expired(&mut self, image: &MetadataImage, now: Duration, timeout: Duration) -> Option<BrokerHeartbeat> {
        let last_contact = &mut self.last_contact;
        let mut alive = image.alive_brokers();
        // A broker that was never heard begins its session now.
        let expired = alive.find(|broker| *last_contact.entry(broker.id).or_insert(now) + timeout < now)?;
        Some(BrokerHeartbeat { want_fence: true, ..BrokerHeartbeat::new(expired.id, expired.epoch) })
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
            sessions.expired(&image, second * at, timeout).map(|heartbeat| heartbeat.broker_id)
        };
        assert_eq!(expired(&mut sessions, 100), None, "a new controller gives each broker a whole session");
        assert_eq!(expired(&mut sessions, 109), None);
        sessions.on_heartbeat(2, second * 105);
        assert_eq!(expired(&mut sessions, 110), Some(1));
        sessions.restart();
        assert_eq!(expired(&mut sessions, 120), None);
        assert_eq!(expired(&mut sessions, 130), Some(1), "then the other, once this one is fenced");
    }
}
