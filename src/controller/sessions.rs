//! The sessions of brokers: who has not sent a heartbeat for too long, has ended, or is silent. Apache:
//! `BrokerHeartbeatManager`.
//!
//! Owns the times at which brokers were heard, which only the active controller knows and no record holds. Beyond Kafka
//! it fences the nodes whose process has ended at once, and those that are silent soon: a broker that was not heard for
//! a while is asked whether it lives, and if it does, only its session counts. Leaves the records of fencing to
//! `brokers.rs`, the proof that a process has ended to `raft/transport.rs`, and the asking to `raft/driver/fencing.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use uuid::Uuid;

use super::brokers::BrokerHeartbeat;
use crate::{
    metadata::image::{BrokerRegistration, MetadataImage},
    types::{BrokerId, Offset},
};

/// What a controller that is not active knows of a silent broker is of use for this long.
const RECENT: Duration = Duration::from_secs(3);

/// When brokers were heard, in monotonic time.
#[derive(Debug, Default)]
pub struct BrokerSessions {
    /// The last heartbeats.
    last_contact: BTreeMap<BrokerId, Duration>,
    /// When each node has last sent anything. A controller that is not active hears the active one, so that it knows at
    /// once if that one was silent before.
    heard: BTreeMap<BrokerId, Duration>,
    /// The brokers that are being asked whether they live.
    asked: BTreeSet<BrokerId>,
    /// Those that have closed a connection, and must be asked at once.
    disconnected: BTreeSet<BrokerId>,
    /// Those that did not answer, and have sent nothing since, with the time at which they were asked.
    silent: BTreeMap<BrokerId, Duration>,
    /// Nodes whose process has ended, and that have sent nothing since. A controller that is not active remembers them,
    /// too: the next one may be this.
    ended: BTreeSet<BrokerId>,
    /// The incarnations in which nodes run, as far as this node knows, each with the end of its metadata log when it
    /// learned that. A broker that was registered before in another has ended, although its node sends messages. One
    /// that was registered later is a newer one: a node that has lost its disk, and so its vote, sends no messages.
    incarnations: BTreeMap<BrokerId, (Uuid, Offset)>,
    /// Until then this node itself did not run: others could not be heard.
    paused_until: Duration,
}

/// A broker that must be fenced.
#[derive(Debug)]
pub struct Expired {
    pub fence: BrokerHeartbeat,
    pub lost: Lost,
}

/// Why a broker must be fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Its process has ended.
    Ended,
    /// It sends nothing and does not answer.
    Silent,
    /// It has sent no heartbeat for its session.
    SessionOver,
}

/// What came of asking a broker whether it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Lives,
    /// It refuses connections.
    HasEnded,
    /// There was none in time.
    None,
}

impl BrokerSessions {
    /// A broker has sent a heartbeat, or is known to live.
    pub fn on_heartbeat(&mut self, broker: BrokerId, now: Duration) {
        self.last_contact.insert(broker, now);
        self.on_message(broker, now);
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
    pub fn on_message(&mut self, node: BrokerId, now: Duration) {
        self.ended.remove(&node);
        self.silent.remove(&node);
        self.heard.insert(node, now);
    }

    /// A node runs in this incarnation of its broker, if it has one. `log_end_offset` is the end of this node's
    /// metadata log.
    pub fn on_incarnation(&mut self, node: BrokerId, incarnation: Uuid, log_end_offset: Offset) {
        if incarnation.is_nil() {
            self.incarnations.remove(&node);
        } else {
            self.incarnations.insert(node, (incarnation, log_end_offset));
        }
    }

    /// All sessions begin anew.
    pub fn restart(&mut self) {
        self.last_contact.clear();
    }

    /// This controller is not active, and is not sent what shows that a broker lives, unless that one is active.
    pub fn on_inactive(&mut self, now: Duration) {
        self.restart();
        self.silent.retain(|_, asked_at| *asked_at + RECENT > now);
    }

    /// This node itself did not run until now, and has heard nobody meanwhile.
    pub fn on_own_pause(&mut self, now: Duration) {
        self.heard.clear();
        self.paused_until = now;
    }

    /// A broker has closed a connection to this controller.
    pub fn on_disconnect(&mut self, broker: BrokerId) {
        self.disconnected.insert(broker);
    }

    /// The brokers other than this one that were not heard for `silence`, or have closed a connection. They must be
    /// asked whether they live; until there is an answer they are not returned again. A controller that is not active
    /// may be the next one: it asks the active one, which it has heard until recently.
    pub fn to_ask(
        &mut self,
        image: &MetadataImage,
        own: BrokerId,
        is_active: bool,
        silence: Duration,
        now: Duration,
    ) -> Vec<BrokerId> {
        let BrokerSessions { heard, asked, disconnected, .. } = self;
        let disconnected = std::mem::take(disconnected);
        let others = image.alive_brokers().map(|broker| broker.id).filter(|broker| *broker != own);
        let mut is_silent = |broker: &BrokerId| match heard.get(broker) {
            Some(at) => *at + silence < now && (is_active || *at + RECENT > now),
            // A broker that was never heard gets its time now.
            None if is_active => {
                heard.insert(*broker, now);
                false
            }
            None => false,
        };
        others.filter(|broker| (is_silent(broker) || disconnected.contains(broker)) && asked.insert(*broker)).collect()
    }

    /// A broker was asked at `begun` whether it lives.
    pub fn on_asked(&mut self, broker: BrokerId, begun: Duration, answer: Answer, now: Duration) {
        self.asked.remove(&broker);
        let was_heard = self.heard.get(&broker).is_some_and(|heard| *heard > begun) || self.paused_until > begun;
        match answer {
            Answer::Lives => _ = self.heard.insert(broker, now),
            Answer::HasEnded if !was_heard => self.on_end(broker),
            Answer::None if !was_heard => _ = self.silent.insert(broker, begun),
            // What it had sent before may have come later than the question: ask again.
            Answer::HasEnded => _ = self.disconnected.insert(broker),
            Answer::None => {}
        }
    }

    /// The request that fences a broker whose session is over, or that is lost. One at a time, so that the leaders of
    /// the next are chosen when this one is fenced; the request names the others, which must not lead. Former
    /// incarnations come first.
    pub fn expired(&mut self, image: &MetadataImage, now: Duration, timeout: Duration) -> Option<Expired> {
        let BrokerSessions { last_contact, ended, silent, incarnations, .. } = self;
        // A broker that was never heard begins its session now.
        let mut is_over = |broker: BrokerId| *last_contact.entry(broker).or_insert(now) + timeout < now;
        let is_former = |broker: &BrokerRegistration| {
            // A broker epoch is the offset of its registration.
            incarnations
                .get(&broker.id)
                .is_some_and(|(runs, known_at)| *runs != broker.incarnation_id && broker.epoch < *known_at)
        };
        let mut lost = Vec::new();
        for broker in image.alive_brokers() {
            match broker.id {
                _ if is_former(broker) => lost.insert(0, (broker, Lost::Ended)),
                id if ended.contains(&id) => lost.push((broker, Lost::Ended)),
                id if silent.contains_key(&id) => lost.push((broker, Lost::Silent)),
                id if is_over(id) => lost.push((broker, Lost::SessionOver)),
                _ => {}
            }
        }
        let ((first, why), others) = lost.split_first()?;
        let also_lost = others.iter().map(|(broker, _)| broker.id).collect();
        let fence = BrokerHeartbeat { want_fence: true, also_lost, ..BrokerHeartbeat::new(first.id, first.epoch) };
        Some(Expired { fence, lost: *why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::*;

    const SILENCE: Duration = Duration::from_millis(600);
    const SESSION: Duration = Duration::from_secs(9);

    fn at(ms: u64) -> Duration {
        Duration::from_secs(100) + Duration::from_millis(ms)
    }

    /// A controller that had fenced broker 1 first would elect what broker 2 was before it was started again.
    #[test]
    fn former_incarnations_are_fenced_before_all_others() {
        let image = image_with_brokers(&[1, 2]);
        let mut sessions = BrokerSessions::default();
        sessions.on_end(1);
        sessions.on_message(2, at(0));
        let first = |sessions: &mut BrokerSessions| {
            let fence = sessions.expired(&image, at(0), SESSION).unwrap().fence;
            (fence.broker_id, fence.also_lost)
        };
        let epoch = image.broker(2).unwrap().epoch;
        sessions.on_incarnation(2, image.broker(2).unwrap().incarnation_id, epoch + 1);
        assert_eq!(first(&mut sessions), (1, vec![]));
        sessions.on_incarnation(2, Uuid::from_u128(99), epoch);
        assert_eq!(first(&mut sessions), (1, vec![]), "2 was registered after this was heard: it is a newer one");
        sessions.on_incarnation(2, Uuid::from_u128(99), epoch + 1);
        assert_eq!(first(&mut sessions), (2, vec![1]));
        sessions.on_incarnation(2, Uuid::nil(), epoch + 1);
        assert_eq!(first(&mut sessions), (1, vec![]), "the node has no broker");
    }

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
            sessions.expired(&image, now, timeout).map(|expired| (expired.fence.broker_id, expired.lost))
        };
        sessions.on_end(2);
        // The next controller has learned of it before it became active.
        sessions.restart();
        assert_eq!(expired(&mut sessions), Some((2, Lost::Ended)));
        sessions.on_message(2, now);
        assert_eq!(expired(&mut sessions), None);
        sessions.on_end(2);
        sessions.on_heartbeat(2, now);
        assert_eq!(expired(&mut sessions), None);
    }

    #[test]
    fn a_broker_that_is_silent_is_asked_and_fenced_if_it_does_not_answer() {
        let image = image_with_brokers(&[1, 2, 3]);
        let mut sessions = BrokerSessions::default();
        // The other two become silent. This is broker 1.
        assert!(sessions.to_ask(&image, 1, true, SILENCE, at(0)).is_empty(), "their time begins");
        assert!(sessions.to_ask(&image, 1, true, SILENCE, at(600)).is_empty());
        assert_eq!(sessions.to_ask(&image, 1, true, SILENCE, at(601)), [2, 3]);
        assert!(sessions.to_ask(&image, 1, true, SILENCE, at(700)).is_empty(), "they are being asked");
        sessions.on_asked(2, at(601), Answer::Lives, at(800));
        sessions.on_asked(3, at(601), Answer::None, at(1201));
        let expired = sessions.expired(&image, at(1201), SESSION).expect("one is lost");
        assert_eq!((expired.fence.broker_id, expired.lost), (3, Lost::Silent));
        // It comes back.
        sessions.on_message(3, at(1300));
        assert!(sessions.expired(&image, at(1300), SESSION).is_none());
        // Broker 2 goes on to send nothing, and to answer.
        assert_eq!(sessions.to_ask(&image, 1, true, SILENCE, at(1401)), [2]);
        sessions.on_asked(2, at(1401), Answer::Lives, at(1402));
        assert!(sessions.expired(&image, at(1402), SESSION).is_none());
    }

    #[test]
    fn a_broker_that_closes_a_connection_is_asked_at_once() {
        let image = image_with_brokers(&[1, 2, 3]);
        let mut sessions = BrokerSessions::default();
        sessions.on_message(2, at(0));
        sessions.on_disconnect(2);
        assert_eq!(sessions.to_ask(&image, 1, true, SILENCE, at(1)), [2]);
        sessions.on_asked(2, at(1), Answer::Lives, at(2));
        assert!(sessions.to_ask(&image, 1, true, SILENCE, at(3)).is_empty(), "it has lost one connection only");
        sessions.on_disconnect(2);
        assert_eq!(sessions.to_ask(&image, 1, true, SILENCE, at(4)), [2]);
        sessions.on_asked(2, at(4), Answer::HasEnded, at(30));
        let expired = sessions.expired(&image, at(30), SESSION).expect("it is lost");
        assert_eq!((expired.fence.broker_id, expired.lost), (2, Lost::Ended));

        // The other sent a message just before it ended, and that came just after it was asked.
        sessions.on_disconnect(3);
        assert_eq!(sessions.to_ask(&image, 1, true, SILENCE, at(40)), [3]);
        sessions.on_message(3, at(41));
        sessions.on_asked(3, at(40), Answer::HasEnded, at(60));
        assert_eq!(sessions.to_ask(&image, 1, true, SILENCE, at(60)), [3]);
        sessions.on_asked(3, at(60), Answer::HasEnded, at(80));
        assert_eq!(sessions.expired(&image, at(80), SESSION).map(|expired| expired.fence.broker_id), Some(2));
        assert!(sessions.has_ended(3));
    }

    #[test]
    fn a_controller_that_is_not_active_asks_the_active_one_when_that_is_silent() {
        let image = image_with_brokers(&[1, 2, 3]);
        let mut sessions = BrokerSessions::default();
        // Broker 2 is active, 3 sends nothing to this one.
        sessions.on_message(2, at(0));
        assert_eq!(sessions.to_ask(&image, 1, false, SILENCE, at(601)), [2]);
        sessions.on_asked(2, at(601), Answer::None, at(1201));
        sessions.on_inactive(at(1250));
        let expired = sessions.expired(&image, at(1250), SESSION).expect("this one is active now");
        assert_eq!((expired.fence.broker_id, expired.lost), (2, Lost::Silent));
        // What was known long ago counts no more.
        sessions.on_inactive(at(4000));
        assert!(sessions.expired(&image, at(4000), SESSION).is_none());
        assert!(sessions.to_ask(&image, 1, false, SILENCE, at(4000)).is_empty());
    }

    #[test]
    fn nobody_is_silent_while_this_node_itself_did_not_run() {
        let image = image_with_brokers(&[1, 2]);
        let mut sessions = BrokerSessions::default();
        sessions.on_message(2, at(0));
        assert_eq!(sessions.to_ask(&image, 1, true, SILENCE, at(601)), [2]);
        sessions.on_own_pause(at(5000));
        sessions.on_asked(2, at(601), Answer::None, at(5001));
        assert!(sessions.expired(&image, at(5001), SESSION).is_none());
        assert!(sessions.to_ask(&image, 1, true, SILENCE, at(5002)).is_empty());
        assert_eq!(sessions.to_ask(&image, 1, true, SILENCE, at(5603)), [2]);
        // An answer that was on its way when the broker was heard again says nothing.
        sessions.on_message(2, at(5700));
        sessions.on_asked(2, at(5603), Answer::None, at(6203));
        assert!(sessions.expired(&image, at(6203), SESSION).is_none());
    }
}
