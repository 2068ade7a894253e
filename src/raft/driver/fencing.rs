//! Which brokers the active controller fences, and how soon: those whose session is over, whose process has ended, or
//! that are silent. Apache: `BrokerHeartbeatManager` and `ReplicationControlManager.maybeFenceReplicas`.
//!
//! Owns the question to a broker that has sent nothing for a while, whether it lives: an ApiVersions request on a
//! connection of its own, which a live broker answers whatever its disks and its metadata thread do. Leaves the times
//! to `controller/sessions.rs` and the records to `controller/brokers.rs`.

use super::*;
use crate::{
    controller::sessions::{Answer, Expired, Lost},
    metadata::image::Endpoint,
    peer::{Peer, PeerError, Wire},
};

/// A tick that comes later than this shows that the process did not run, and could hear nobody.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// After a pause of this length heartbeats of all brokers may be missing. A slow disk alone pauses the metadata thread
/// for less, and sessions must end nevertheless.
const LONG_PAUSE: Duration = Duration::from_secs(1);
const API_VERSIONS: i16 = 18;
/// A broker that refuses this many connections has ended. One that restarts may refuse the first.
const REFUSALS: usize = 3;
/// The wait before the next attempt to connect.
const ASK_AGAIN: Duration = Duration::from_millis(10);
const MAX_RESPONSE_BYTES: usize = 64 << 10;

/// The answer to the question whether a broker lives.
#[derive(Debug)]
pub(in crate::raft) struct Asked {
    broker: BrokerId,
    /// When it was asked.
    begun: Duration,
    answer: Answer,
}

impl Driver {
    /// A new active controller fences the brokers whose process has ended at once: it may be active because they have.
    pub(super) fn begin_to_decide(&mut self) -> Result<(), Fatal> {
        if !self.is_active() || self.decides_in == self.leads_in {
            return Ok(());
        }
        self.decides_in = self.leads_in;
        self.fence_lost_brokers(self.env.clock.monotonic())?;
        self.drive()
    }

    /// Without a majority of the voters there is no controller until they are started again.
    pub(super) fn note_lost_quorum(&mut self) {
        let voters = &self.node.store().voters().voters;
        let ended = voters.iter().filter(|voter| self.sessions.has_ended(voter.voter_id)).count();
        let is_lost = 2 * (voters.len() - ended) <= voters.len() && ended > 0;
        if self.quorum_has_ended.get() != is_lost {
            self.quorum_has_ended.set(is_lost);
        }
    }

    /// This tick comes this much too late.
    pub(super) fn note_late_tick(&mut self, late: Duration, now: Duration) {
        if late > LONGEST_PAUSE {
            // What the others have sent meanwhile is still to be read.
            self.sessions.on_own_pause(now);
        }
        if late > LONG_PAUSE {
            self.sessions.restart();
        }
    }

    /// The process of another voter has ended.
    pub(super) fn on_end_of_voter(&mut self, voter: BrokerId) -> Result<(), Fatal> {
        self.sessions.on_end(voter);
        if self.node.leader() == Some(voter) {
            self.node.on_leader_end()?;
        }
        self.fence_lost_brokers(self.env.clock.monotonic())
    }

    /// The active controller fences the brokers that are lost, and asks those that have been silent.
    pub(super) fn fence_lost_brokers(&mut self, now: Duration) -> Result<(), Fatal> {
        if !self.is_active() {
            self.sessions.on_inactive(now);
            self.ask_silent_brokers(now);
            return Ok(());
        }
        if self.node.store().is_sole_voter() {
            // Its broker sends no heartbeats.
            self.sessions.on_heartbeat(self.options.settings.node_id, now);
        } else if let Some(own) = &self.options.broker {
            let log_end_offset = self.node.store().end_offset();
            self.sessions.on_incarnation(own.broker_id, own.incarnation_id, log_end_offset);
        }
        let session = self.options.settings.broker_session_timeout;
        while let Some(Expired { fence, lost }) = self.sessions.expired(&self.working, now, session) {
            let broker = fence.broker_id;
            if self.decide(fence.into())?.is_err() {
                break;
            }
            let reason = match lost {
                Lost::Ended => "whose process has ended".to_owned(),
                Lost::Silent => "that is silent and answers no request".to_owned(),
                Lost::SessionOver => format!("that has sent no heartbeat for {session:?}"),
            };
            tracing::warn!(broker, "fenced a broker {reason}; others lead its partitions");
        }
        self.ask_silent_brokers(now);
        Ok(())
    }

    pub(super) fn ask_silent_brokers(&mut self, now: Duration) {
        let Some(limit) = self.options.settings.broker_silence_timeout else { return };
        let (own, is_active) = (self.options.settings.node_id, self.is_active());
        for broker in self.sessions.to_ask(&self.working, own, is_active, limit / 2, now) {
            self.ask(broker, limit / 2);
        }
    }

    /// Asks a broker whether it lives.
    fn ask(&mut self, broker: BrokerId, limit: Duration) {
        let listener = &self.options.settings.inter_broker_listener;
        let endpoint = self.working.broker(broker).and_then(|registration| {
            // A node that is only a controller may not know the name of the listener.
            registration.endpoint(listener).or(registration.endpoints.first()).cloned()
        });
        let (env, begun) = (self.env.clone(), self.env.clock.monotonic());
        self.send_after("ask a broker whether it lives", async move {
            let answer = match endpoint {
                Some(endpoint) => env.within(limit, answer(&env, &endpoint)).await.unwrap_or(Answer::None),
                // It has just been unregistered.
                None => Answer::Lives,
            };
            Event::Asked(Asked { broker, begun, answer })
        });
    }

    pub(super) fn on_asked(&mut self, Asked { broker, begun, answer }: Asked) -> Result<(), Fatal> {
        let now = self.env.clock.monotonic();
        self.sessions.on_asked(broker, begun, answer, now);
        self.fence_lost_brokers(now)
    }
}

/// Asks until there is an answer.
async fn answer(env: &Env, Endpoint { host, port, .. }: &Endpoint) -> Answer {
    let (mut refused, mut closed) = (0, 0);
    loop {
        match Peer::connect(env, host, *port, "ottla-controller", MAX_RESPONSE_BYTES).await {
            Ok(mut peer) => {
                // A broker that closes the connection has too many of them, or is just being killed.
                closed += usize::from(peer.exchange(Wire::new(API_VERSIONS, 0, false), &[]).await.is_err());
                if closed != 1 {
                    return Answer::Lives;
                }
            }
            Err(PeerError::Connect(_, error)) if error.kind() == io::ErrorKind::ConnectionRefused => refused += 1,
            Err(_) => {}
        }
        if refused == REFUSALS {
            return Answer::HasEnded;
        }
        env.clock.sleep_until(env.clock.monotonic() + ASK_AGAIN).await;
    }
}
