//! What this broker has noticed of the life of other brokers and what their fencing does not tell yet, or no longer.
//!
//! Owns two rules for clients that look for a leader while a broker dies, both beyond Kafka. A broker that was fenced a
//! moment ago is still listed in Metadata, as Kafka lists a broker that was killed until its session ends: librdkafka
//! ends its thread for a broker that is not listed, and a partition that this thread has not handed over by then waits
//! for up to a second. And while a broker has just closed its connection to this one, and the controller has not
//! decided yet, requests for leaders wait a moment: with the old leader in its hands, a client would wait for its
//! back-off, which is longer. Leaves the fencing itself to the controller.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    delta::MetadataDelta,
    image::{BrokerRegistration, MetadataImage},
    publisher::Subscriber,
};
use crate::{
    env::{Clock, Watched, lock::lock},
    types::BrokerId,
};

/// How long a fenced broker is still listed. Clients that were connected to it ask for metadata within a second.
const LISTED: Duration = Duration::from_secs(5);
/// The longest time for which a lost connection lets clients wait. A broker whose process has ended is fenced sooner.
const DOUBTED: Duration = Duration::from_millis(200);

/// When a broker's process ends, its connections to clients and to other brokers are lost within this time.
const NOTICED: Duration = Duration::from_millis(5);

/// See the head of the file.
pub struct Liveness {
    clock: Arc<dyn Clock>,
    /// Brokers that are alive, or were a moment ago.
    seen: Mutex<BTreeMap<BrokerId, Seen>>,
    /// Brokers whose connection was lost and that were not reached since, with the time until which clients wait.
    doubts: Watched<BTreeMap<BrokerId, Duration>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    Alive,
    FencedAt(Duration),
}

impl Liveness {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Liveness> {
        Arc::new(Liveness { clock, seen: Mutex::default(), doubts: Watched::default() })
    }

    /// Whether Metadata lists this broker.
    pub fn is_listed(&self, broker: &BrokerRegistration) -> bool {
        // A new image is visible before this subscriber hears of it: what it has not heard of counts as alive.
        !broker.fenced
            || match lock(&self.seen).get(&broker.id) {
                Some(Seen::Alive) => true,
                Some(Seen::FencedAt(at)) => self.clock.monotonic() < *at + LISTED,
                None => false,
            }
    }

    /// The connection to a broker was closed or refused.
    pub fn on_lost(&self, broker: BrokerId) {
        if lock(&self.seen).get(&broker) != Some(&Seen::Alive) {
            return;
        }
        let until = self.clock.monotonic() + DOUBTED;
        // It is lost since the first time.
        self.doubts.update(|doubts| _ = doubts.entry(broker).or_insert(until));
    }

    /// A broker has answered.
    pub fn on_answer(&self, broker: BrokerId) {
        if self.doubts.get().contains_key(&broker) {
            self.doubts.update(|doubts| _ = doubts.remove(&broker));
        }
    }

    /// Waits until no broker is in doubt, so that the current image names leaders that can be reached, as far as this
    /// broker knows.
    pub async fn settled(&self) {
        let now = self.clock.monotonic();
        let Some(last) = self.doubts.get().into_values().filter(|until| *until > now).max() else { return };
        tokio::select! {
            biased;
            _ = self.doubts.until(|doubts| doubts.values().all(|until| *until <= now)) => {}
            () = self.clock.sleep_until(last) => {}
        }
    }

    /// The same for a client that probably asks because it has lost a connection: this broker may lose its own a moment
    /// later.
    pub async fn settled_after_loss(&self) {
        tokio::select! {
            biased;
            _ = self.doubts.until(|doubts| !doubts.is_empty()) => {}
            () = self.clock.sleep_until(self.clock.monotonic() + NOTICED) => {}
        }
        self.settled().await;
    }
}

impl Subscriber for Liveness {
    fn on_delta(&self, image: &Arc<MetadataImage>, delta: &MetadataDelta) {
        let now = self.clock.monotonic();
        let mut seen = lock(&self.seen);
        for id in &delta.brokers {
            let is_alive = image.broker(*id).is_some_and(|broker| !broker.fenced);
            if is_alive {
                seen.insert(*id, Seen::Alive);
                continue;
            }
            if image.broker(*id).is_none() {
                seen.remove(id);
            } else if let Some(seen @ Seen::Alive) = seen.get_mut(id) {
                *seen = Seen::FencedAt(now);
            }
            self.doubts.update(|doubts| _ = doubts.remove(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::{controller::testing::image_with_brokers, sim::SimClock};

    struct World {
        clock: Arc<SimClock>,
        liveness: Arc<Liveness>,
        image: Arc<MetadataImage>,
    }

    impl World {
        fn new() -> World {
            let clock = Arc::new(SimClock::new(1000));
            let liveness = Liveness::new(clock.clone());
            let mut world = World { clock, liveness, image: Arc::default() };
            world.publish(image_with_brokers(&[1, 2]));
            world
        }

        fn publish(&mut self, image: MetadataImage) {
            self.image = Arc::new(image);
            self.liveness.on_delta(&self.image, &MetadataDelta::from_empty(&self.image));
        }

        fn fence(&mut self, id: BrokerId) -> MetadataImage {
            let mut image = MetadataImage::clone(&self.image);
            let broker = BrokerRegistration { fenced: true, ..BrokerRegistration::clone(&image.brokers[&id]) };
            Arc::make_mut(&mut image.brokers).insert(id, Arc::new(broker));
            image
        }

        fn listed(&self) -> Vec<BrokerId> {
            let listed = self.image.brokers.values().filter(|broker| self.liveness.is_listed(broker));
            listed.map(|broker| broker.id).collect()
        }

        fn is_settled(&self) -> bool {
            self.liveness.settled().now_or_never().is_some()
        }
    }

    #[test]
    fn a_fenced_broker_is_listed_for_a_while() {
        let mut world = World::new();
        let fenced = world.fence(2);
        world.image = Arc::new(fenced.clone());
        assert_eq!(world.listed(), [1, 2], "the image is visible, and no subscriber has heard of it");
        world.publish(fenced.clone());
        assert_eq!(world.listed(), [1, 2]);
        world.clock.advance(LISTED);
        assert_eq!(world.listed(), [1]);
        // A node that starts does not list those that were fenced before.
        let liveness = Liveness::new(world.clock.clone());
        liveness.on_delta(&world.image, &MetadataDelta::from_empty(&world.image));
        assert!(!liveness.is_listed(&world.image.brokers[&2]));
    }

    #[test]
    fn clients_wait_while_a_lost_broker_may_be_fenced() {
        let mut world = World::new();
        assert!(world.is_settled());
        world.liveness.on_lost(2);
        assert!(!world.is_settled());
        world.liveness.on_answer(2);
        assert!(world.is_settled(), "it lives");

        world.liveness.on_lost(2);
        world.clock.advance(DOUBTED);
        world.liveness.on_lost(2);
        assert!(world.is_settled(), "it is lost, and the controller does not fence it: clients wait no longer");

        world.liveness.on_answer(2);
        world.liveness.on_lost(2);
        assert!(!world.is_settled());
        let fenced = world.fence(2);
        world.publish(fenced);
        assert!(world.is_settled(), "others lead now");
        world.liveness.on_lost(2);
        assert!(world.is_settled(), "it is known to be lost");
    }

    #[test]
    fn who_asks_after_the_loss_of_a_connection_waits_until_this_broker_has_lost_its_own() {
        let world = World::new();
        let mut first = Box::pin(world.liveness.settled_after_loss());
        assert!((&mut first).now_or_never().is_none());
        world.clock.advance(NOTICED / 2);
        world.liveness.on_lost(2);
        assert!((&mut first).now_or_never().is_none());
        world.liveness.on_answer(2);
        assert!(first.now_or_never().is_some());
        let mut second = Box::pin(world.liveness.settled_after_loss());
        assert!((&mut second).now_or_never().is_none());
        world.clock.advance(NOTICED);
        assert!(second.now_or_never().is_some(), "all live");
    }
}
