//! A model of three brokers that stop, lose their page caches and come back in any order: whoever is elected cleanly
//! has every committed record (KIP-966).
//!
//! Owns the brokers' disks, as one question: does a broker have all committed records? All decisions are those of the
//! controller.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{
    Entropy,
    brokers::{BrokerHeartbeat, RegisterBroker, broker_heartbeat, register_broker},
    elections::{RebalanceLeaders, rebalance_leaders},
    isr::{AlterPartition, ProposedIsr, alter_partition},
    partitions::RECOVERED,
    testing::*,
};
use crate::{
    metadata::{
        METADATA_VERSION_FEATURE,
        image::{MetadataImage, PartitionImage},
        records::{MetadataRecord, NO_LEADER},
    },
    types::{BrokerId, Offset},
};

const BROKERS: [BrokerId; 3] = [1, 2, 3];
const SEEDS: u64 = 500;
const STEPS: usize = 60;

struct Model {
    image: MetadataImage,
    entropy: TestEntropy,
    min_isr: usize,
    next_offset: Offset,
    /// The broker epoch of each process that runs.
    running: BTreeMap<BrokerId, i64>,
    /// The broker epoch that each process has stored when it stopped cleanly.
    stored: BTreeMap<BrokerId, i64>,
    /// The brokers that have all committed records.
    complete: BTreeSet<BrokerId>,
    commits: usize,
    unclean: usize,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut image = image_with_brokers(&BROKERS);
        add_topic(&mut image, "t", &[&BROKERS]);
        let min_isr = 1 + seed as usize % BROKERS.len();
        set_config(&mut image, "t", "min.insync.replicas", &min_isr.to_string());
        Model {
            image,
            entropy: TestEntropy(seed),
            min_isr,
            next_offset: 100,
            running: BROKERS.map(|broker| (broker, 5)).into(),
            stored: BTreeMap::new(),
            complete: BROKERS.into(),
            commits: 0,
            unclean: 0,
        }
    }

    fn partition(&self) -> &PartitionImage {
        self.image.partition("t", 0).unwrap()
    }

    /// Applies the records of one step.
    fn apply(&mut self, records: &[MetadataRecord]) {
        let before = self.partition().clone();
        apply(&mut self.image, records);
        self.next_offset += 100;
        let partition = self.partition().clone();
        let is_unclean = partition.leader_recovery_state != RECOVERED && partition.leader_epoch > before.leader_epoch;
        if is_unclean && partition.leader != NO_LEADER {
            // The records that the new leader lacks are lost, and the election says so.
            self.unclean += usize::from(!self.complete.contains(&partition.leader));
            self.complete = [partition.leader].into();
        }
    }

    fn heartbeat(&mut self, broker: BrokerId, want_fence: bool, want_shut_down: bool) -> bool {
        let Some(epoch) = self.image.broker(broker).map(|broker| broker.epoch) else { return false };
        let request = BrokerHeartbeat { want_fence, want_shut_down, ..BrokerHeartbeat::new(broker, epoch) };
        let step = with_context(|context| broker_heartbeat(&self.image, context, request));
        self.apply(&step.records);
        step.reply.unwrap().should_shut_down
    }

    fn start(&mut self, broker: BrokerId) {
        let request = RegisterBroker {
            cluster_id: "cluster".into(),
            broker_id: broker,
            incarnation_id: self.entropy.uuid(),
            endpoints: vec![],
            features: BTreeMap::from([(METADATA_VERSION_FEATURE.to_owned(), (7, 30))]),
            rack: None,
            log_dirs: vec![Uuid::from_u128(1000 + broker as u128)],
            previous_broker_epoch: self.stored.remove(&broker).unwrap_or(-1),
        };
        let next_write_offset = self.next_offset;
        let step = with_context(|context| {
            context.next_write_offset = next_write_offset;
            register_broker(&self.image, context, request)
        });
        self.apply(&step.records);
        self.running.insert(broker, step.reply.unwrap());
    }

    /// The leader, if its process runs and knows that it leads.
    fn leader(&self) -> Option<BrokerId> {
        let leader = self.partition().leader;
        let epoch = self.running.get(&leader)?;
        (self.image.broker(leader)?.epoch == *epoch).then_some(leader)
    }

    /// The leader proposes itself and some brokers that run. They have fetched all that it has.
    fn propose(&mut self) {
        let Some(leader) = self.leader() else { return };
        let others = BROKERS.into_iter().filter(|broker| *broker != leader && self.running.contains_key(broker));
        let chosen: Vec<BrokerId> = others.collect();
        let chosen: Vec<BrokerId> = chosen.into_iter().filter(|_| self.entropy.below(3) > 0).collect();
        let members = std::iter::once(leader).chain(chosen).map(|broker| (broker, self.running[&broker]));
        let partition = self.partition();
        let proposal = ProposedIsr {
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: members.collect(),
            leader_recovery_state: RECOVERED,
        };
        let proposals = [((self.image.topic_id("t").unwrap(), 0), proposal.clone())].into();
        let request = AlterPartition { broker_id: leader, broker_epoch: self.running[&leader], proposals };
        let step = with_context(|context| alter_partition(&self.image, context, request));
        let accepted = step.reply.unwrap().into_values().all(|result| result.is_ok());
        self.apply(&step.records);
        if accepted && self.complete.contains(&leader) {
            self.complete.extend(proposal.isr.iter().map(|(broker, _)| *broker));
        }
    }

    /// The leader commits a record once the whole ISR has it; the others lack it.
    fn commit(&mut self) {
        let (Some(leader), isr) = (self.leader(), self.partition().isr.clone()) else { return };
        let have_fetched = isr.iter().all(|broker| self.running.contains_key(broker));
        if isr.len() >= self.min_isr && have_fetched && self.complete.contains(&leader) {
            self.complete = isr.into_iter().collect();
            self.commits += 1;
        }
    }

    fn step(&mut self) {
        let broker = BROKERS[self.entropy.below(BROKERS.len())];
        let is_running = self.running.contains_key(&broker);
        match self.entropy.below(8) {
            // The session of a broker is over, or it comes back.
            0 => _ = self.heartbeat(broker, true, false),
            1 | 2 if is_running => _ = self.heartbeat(broker, false, false),
            1 | 2 => self.start(broker),
            // A controlled shutdown; each heartbeat is a step of its own, and the broker may be killed in between.
            3 if is_running => {
                if self.heartbeat(broker, false, true) {
                    self.stored.extend(self.running.remove(&broker).map(|epoch| (broker, epoch)));
                }
            }
            // The power of a host fails: its page cache is lost.
            4 if is_running => {
                self.running.remove(&broker);
                self.complete.remove(&broker);
            }
            5 | 6 => self.propose(),
            _ => self.commit(),
        }
        if self.entropy.below(10) == 0 {
            let step = with_context(|context| rebalance_leaders(&self.image, context, RebalanceLeaders));
            self.apply(&step.records);
        }
    }

    fn check(&self) {
        let partition = self.partition();
        let is_member = |broker: &BrokerId| partition.replicas.contains(broker);
        assert!(partition.isr.iter().chain(&partition.elr).all(is_member));
        assert!(!partition.isr.iter().any(|broker| partition.elr.contains(broker)), "ISR and ELR are disjoint");
        assert!(partition.isr.len() < self.min_isr || partition.elr.is_empty(), "the ELR is for small ISRs only");
        if partition.leader != NO_LEADER {
            assert!(partition.isr.contains(&partition.leader));
            assert!(self.image.broker(partition.leader).unwrap().is_active());
            assert!(partition.last_known_elr.is_empty());
        }
        if let Some(leader) = self.leader() {
            assert!(self.complete.contains(&leader), "the leader {leader} lacks committed records: {partition:?}");
        }
    }
}

#[test]
fn c6_whoever_is_elected_cleanly_has_every_committed_record() {
    let (mut commits, mut unclean) = (0, 0);
    for seed in 0..SEEDS {
        let mut model = Model::new(seed);
        for step in 0..STEPS {
            model.step();
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| model.check()));
            assert!(checked.is_ok(), "seed {seed}, step {step}");
        }
        commits += model.commits;
        unclean += model.unclean;
        // All come back: somebody leads.
        for broker in BROKERS {
            let is_stopping = model.image.broker(broker).is_some_and(|broker| broker.in_controlled_shutdown);
            if is_stopping || !model.running.contains_key(&broker) {
                model.start(broker);
            }
            model.heartbeat(broker, false, false);
        }
        model.check();
        assert_ne!(model.partition().leader, NO_LEADER, "seed {seed}: {:?}", model.partition());
    }
    assert!(commits > 500 && unclean > 10, "{commits} commits, {unclean} elections that lost records");
}
