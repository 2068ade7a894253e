//! Three whole brokers under load, and faults of many kinds at once.
//!
//! Owns the faults, when they begin and end, and what must hold when all have ended. Each seed switches a random half
//! of the kinds of faults off (swarm testing), so that those that remain have room to do harm. `swarm_tests/load.rs`
//! has the clients and what they may see, `swarm_tests/invariants.rs` what must hold inside of the brokers at any time.
//!
//! What is promised (KIP-966): a record that was acknowledged with acks=all survives the loss of the page caches of
//! `min.insync.replicas` - 1 brokers in any order. A broker that was killed cannot prove that it has lost nothing, so
//! it counts as one that has lost its page cache until it is in sync again. [`Swarm::may_lose_cache`] is this rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use invariants::Invariants;
use load::{CHURN, Client, IDEMPOTENT, LOOSE, SAFE, Shared};

use super::{
    NodeId,
    cluster::{CLIENT, Cluster},
    quorum_tests, seeds,
    tests::VOTERS,
};
use crate::types::{BrokerId, GROUP_METADATA_TOPIC};

mod invariants;
mod load;

const LIMIT: Duration = Duration::from_secs(90);
/// After the faults, the time in which nothing may be fenced or elected.
const CALM: Duration = Duration::from_secs(10);
const STEPS: usize = 10;
/// The clients, by what they do.
const CLIENTS: [&str; 8] = [
    "producer",
    "producer with acks=1",
    "producer of a topic that is deleted",
    "idempotent producer",
    "reader",
    "asks for the end",
    "commits offsets",
    "creates topics",
];

/// The kinds of faults, and what ends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    PowerCut,
    /// The power is cut, and the disk is replaced by an empty one.
    Wipe,
    Stop,
    RollingRestart,
    Pause,
    Isolate,
    /// Nothing that a node sends to others, or that others send to it, arrives.
    OneWay,
    /// Each node hears only one of the others.
    Ring,
    /// Two nodes do not reach each other; both reach the third.
    Bridge,
    Reset,
    SlowLinks,
    SlowDisk,
    FullDisk,
    Skew,
}

const ALL: [Fault; 15] = [
    Fault::Kill,
    Fault::PowerCut,
    Fault::Wipe,
    Fault::Stop,
    Fault::RollingRestart,
    Fault::Pause,
    Fault::Isolate,
    Fault::OneWay,
    Fault::Ring,
    Fault::Bridge,
    Fault::Reset,
    Fault::SlowLinks,
    Fault::SlowDisk,
    Fault::FullDisk,
    Fault::Skew,
];

/// One simulation.
struct Swarm {
    seed: u64,
    cluster: Cluster,
    shared: Shared,
    invariants: Arc<Mutex<Invariants>>,
    enabled: Vec<Fault>,
    /// Brokers that have lost what was not synced, and are not in sync again.
    lossy: BTreeSet<NodeId>,
    paused: BTreeSet<NodeId>,
    full: BTreeSet<NodeId>,
    are_links_bad: bool,
    done: Vec<(Duration, Fault, NodeId)>,
}

/// A failure needs to be understood: the faults, and what each broker thinks of each partition, come with it.
impl Drop for Swarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, faults until {:?}: {:?}", self.seed, self.cluster.world.now(), self.done);
            invariants::describe(&self.cluster.observer());
        }
    }
}

impl Swarm {
    /// Three brokers with topics and clients.
    fn new(seed: u64, enabled: impl FnOnce(&dyn Fn(u64) -> u64) -> Vec<Fault>) -> Swarm {
        let mut cluster = Cluster::new(seed);
        let (enabled, is_quick) = {
            let random = |bound: u64| cluster.world.random().below(bound);
            (enabled(&random), random(2) == 0)
        };
        let mut settings = vec![
            "min.insync.replicas=2",
            "offsets.topic.num.partitions=2",
            "log.segment.bytes=1048576",
            "group.initial.rebalance.delay.ms=0",
        ];
        if is_quick {
            settings.extend(["replica.lag.time.max.ms=2000", "leader.imbalance.check.interval.seconds=5"]);
        }
        for node in VOTERS {
            cluster.add_voter(node, &VOTERS, &settings);
        }
        VOTERS.iter().for_each(|node| cluster.begin_start(*node));
        let all_serve = || VOTERS.iter().all(|node| cluster.is_serving(*node));
        cluster.world.run_until("all brokers serve", LIMIT, all_serve);

        let loose_may_lose = enabled.iter().any(|fault| matches!(fault, Fault::PowerCut | Fault::Wipe));
        let shared = Shared { seed, loose_may_lose, ..Shared::default() };
        let invariants = Arc::new(Mutex::new(Invariants::new(seed, loose_may_lose, cluster.observer())));
        let checked = invariants.clone();
        cluster.world.set_probe(move || checked.lock().unwrap().check());
        let client = || Client::new(cluster.clients(), &shared);
        cluster.world.wait(CLIENT, "the topics exist", LIMIT, load::create_topics(client()));
        let world = &cluster.world;
        world.spawn(CLIENT, load::produce_for_ever(client(), SAFE, -1, "producer"));
        world.spawn(CLIENT, load::produce_for_ever(client(), LOOSE, 1, "producer with acks=1"));
        world.spawn(CLIENT, load::produce_for_ever(client(), CHURN, -1, "producer of a topic that is deleted"));
        world.spawn(CLIENT, load::produce_in_order(client()));
        for (topic, index) in [(SAFE, 0), (SAFE, IDEMPOTENT), (LOOSE, 0), (CHURN, 0)] {
            world.spawn(CLIENT, load::read_for_ever(client(), topic, index));
        }
        world.spawn(CLIENT, load::ask_for_the_end(client()));
        world.spawn(CLIENT, load::commit_for_ever(client()));
        world.spawn(CLIENT, load::churn_for_ever(client()));
        let swarm = Swarm {
            seed,
            cluster,
            shared,
            invariants,
            enabled,
            lossy: BTreeSet::new(),
            paused: BTreeSet::new(),
            full: BTreeSet::new(),
            are_links_bad: false,
            done: Vec::new(),
        };
        swarm.demand_progress();
        swarm
    }

    fn random(&self, bound: u64) -> u64 {
        self.cluster.world.random().below(bound)
    }

    fn run_ms(&self, ms: u64) {
        self.cluster.world.run_for(Duration::from_millis(ms));
    }

    fn others(node: NodeId) -> impl Iterator<Item = NodeId> {
        VOTERS.into_iter().filter(move |other| *other != node)
    }

    /// Whether all partitions that lose nothing satisfy `condition`, which gets the ISR and the ELR.
    fn all_safe(&self, condition: impl Fn(&[BrokerId], &[BrokerId]) -> bool) -> bool {
        let invariants = self.invariants.lock().unwrap();
        let Some(image) = invariants.newest() else { return false };
        image
            .topics
            .by_name
            .values()
            .filter(|topic| &*topic.name != LOOSE)
            .all(|topic| topic.partitions.values().all(|partition| condition(&partition.isr, &partition.elr)))
    }

    /// Forgets the loss of brokers that are in sync again everywhere.
    fn update_lossy(&mut self) {
        for node in self.lossy.clone() {
            let is_back = self.cluster.is_serving(node) && self.all_safe(|isr, _| isr.contains(&(node as BrokerId)));
            if is_back {
                self.lossy.remove(&node);
            }
        }
    }

    /// Whether the process of this broker may end without a clean stop: see the head of this file. With `cache` it
    /// loses what was not synced, too.
    fn may_lose_cache(&mut self, node: NodeId, cache: bool) -> bool {
        self.update_lossy();
        if self.cluster.is_stopped(node) || self.lossy.iter().any(|lossy| *lossy != node) {
            return false;
        }
        let cluster = &self.cluster;
        let has_copy = |isr: &[BrokerId], elr: &[BrokerId]| {
            Swarm::others(node).any(|other| {
                let other_id = other as BrokerId;
                cluster.is_serving(other) && (isr.contains(&other_id) || elr.contains(&other_id))
            })
        };
        !cache || self.all_safe(has_copy)
    }

    /// Whether all replicas of the topic are in sync.
    fn is_in_sync_everywhere(&self, topic: &str) -> bool {
        let invariants = self.invariants.lock().unwrap();
        let topic = invariants.newest().and_then(|image| image.topic(topic).cloned());
        topic.is_some_and(|topic| {
            topic.partitions.values().all(|partition| partition.isr.len() == partition.replicas.len())
        })
    }

    fn is_healthy(&self) -> bool {
        !self.are_links_bad
            && self.paused.is_empty()
            && self.full.is_empty()
            && VOTERS.iter().all(|node| self.cluster.is_serving(*node))
    }

    /// Lets one fault happen, if it may.
    fn inject(&mut self, fault: Fault, node: NodeId) {
        let is_up = !self.cluster.is_stopped(node) && self.cluster.refused(node).is_none();
        match fault {
            Fault::Kill if is_up && self.may_lose_cache(node, false) => {
                self.cluster.kill(node);
                self.paused.remove(&node);
            }
            Fault::PowerCut if is_up && self.may_lose_cache(node, true) => {
                self.cluster.cut_power(node);
                self.paused.remove(&node);
                self.lossy.insert(node);
            }
            // It forgets its vote: until it is a voter again, no other voter's disk may be emptied.
            Fault::Wipe if self.is_healthy() && self.may_lose_cache(node, true) => {
                self.wait_for_voters();
                // Partitions whose only in-sync replica has lost its disk wait for an operator.
                self.cluster.world.run_until("all replicas have a copy", LIMIT, || self.is_in_sync_everywhere(LOOSE));
                self.cluster.cut_power(node);
                self.cluster.replace_disk(node);
                self.lossy.insert(node);
                self.run_ms(self.random(3_000));
                self.cluster.start(node);
            }
            Fault::Stop if self.cluster.is_serving(node) && !self.paused.contains(&node) => {
                let is_clean = self.cluster.stop(node);
                assert!(is_clean || self.full.contains(&node), "seed {}: the stop was not clean", self.seed);
            }
            Fault::RollingRestart if self.is_healthy() => {
                for node in VOTERS {
                    // Of two voters none may be stopped: one whose disk was emptied must first have a vote again. And
                    // the only in-sync replica of a partition has nobody to hand it over to.
                    self.wait_for_voters();
                    self.wait_until_whole();
                    assert!(self.cluster.stop(node), "seed {}: the stop was not clean", self.seed);
                    // Two of three serve everybody (C7), with nobody's help.
                    self.demand_progress_of(&CLIENTS);
                    self.cluster.start(node);
                }
            }
            Fault::Pause if is_up => {
                self.cluster.world.pause(node);
                self.paused.insert(node);
            }
            Fault::Isolate => self.cluster.net.isolate(node, VOTERS),
            Fault::OneWay => {
                let is_sender = self.random(2) == 0;
                for other in Swarm::others(node) {
                    let (from, to) = if is_sender { (node, other) } else { (other, node) };
                    self.cluster.net.cut(from, to);
                }
            }
            Fault::Ring => [(1, 2), (2, 3), (3, 1)].into_iter().for_each(|(from, to)| self.cluster.net.cut(from, to)),
            Fault::Bridge => {
                if let [a, b] = Swarm::others(node).collect::<Vec<_>>()[..] {
                    self.cluster.net.isolate(a, [b]);
                }
            }
            Fault::Reset => Swarm::others(node).for_each(|other| self.cluster.net.reset(node, other)),
            Fault::SlowLinks => self.cluster.net.set_delay((1_000, 60_000)),
            Fault::SlowDisk => self.cluster.world.set_slow_disk(node, Some(300_000)),
            Fault::FullDisk => {
                self.cluster.disk(node).set_room(Some(self.random(20_000)));
                self.full.insert(node);
            }
            Fault::Skew => {
                let skew_ms = self.random(600_000) as i64 - 300_000;
                self.cluster.set_skew_ms(node, skew_ms);
            }
            _ => return,
        }
        self.are_links_bad |=
            matches!(fault, Fault::Isolate | Fault::OneWay | Fault::Ring | Fault::Bridge | Fault::SlowLinks);
        self.done.push((self.cluster.world.now(), fault, node));
    }

    fn wait_for_voters(&self) {
        let what = format!("seed {}: all nodes are voters", self.seed);
        let expected = VOTERS.map(|node| (node, quorum_tests::directory_id(&self.cluster, node)));
        quorum_tests::wait_for_voters(&self.cluster, &what, move |voters| *voters == expected);
    }

    fn mend_links(&mut self) {
        self.cluster.net.mend();
        self.cluster.net.set_delay((50, 500));
        self.are_links_bad = false;
    }

    fn start(&mut self, node: NodeId) {
        if let Some(reason) = self.cluster.refused(node) {
            assert!(self.full.contains(&node), "seed {}: node {node} was refused: {reason}", self.seed);
            self.cluster.kill(node);
        }
        if self.cluster.is_stopped(node) {
            self.cluster.begin_start(node);
        }
    }

    /// Ends some of the faults.
    fn heal_some(&mut self) {
        for node in VOTERS {
            if self.random(3) == 0 {
                self.resume(node);
            }
            if self.random(2) == 0 {
                self.start(node);
            }
            if self.random(3) == 0 {
                self.free(node);
            }
        }
        if self.random(2) == 0 {
            self.mend_links();
        }
    }

    /// Waits until all brokers live and all replicas are in sync.
    fn wait_until_whole(&self) {
        let is_whole = || {
            let invariants = self.invariants.lock().unwrap();
            invariants.newest().is_some_and(|image| {
                let mut partitions = image.topics.by_name.values().flat_map(|topic| topic.partitions.values());
                image.alive_brokers().count() == VOTERS.len()
                    && partitions
                        .all(|partition| partition.leader >= 0 && partition.isr.len() == partition.replicas.len())
            })
        };
        if !self.cluster.world.runs_until(LIMIT, is_whole) {
            let invariants = self.invariants.lock().unwrap();
            let partitions: Vec<_> = invariants.newest().map_or(Vec::new(), |image| {
                let all = image.topics.by_name.values();
                all.map(|topic| format!("{}: {:?}", topic.name, topic.partitions)).collect()
            });
            panic!("seed {}: after {LIMIT:?} without faults not all replicas are in sync: {partitions:#?}", self.seed);
        }
    }

    fn resume(&mut self, node: NodeId) {
        if self.paused.remove(&node) {
            self.cluster.world.resume(node);
        }
    }

    fn free(&mut self, node: NodeId) {
        self.cluster.disk(node).set_room(None);
        self.cluster.world.set_slow_disk(node, None);
        // A start that the full disk refused is tried again.
        if self.full.contains(&node) && self.cluster.refused(node).is_some() {
            self.start(node);
        }
        self.full.remove(&node);
    }

    /// Ends all faults, and demands that the cluster is whole soon and stays so.
    fn heal(&mut self) {
        self.mend_links();
        for node in VOTERS {
            self.resume(node);
            self.free(node);
            self.start(node);
        }
        let (cluster, seed) = (&self.cluster, self.seed);
        let all_serve = || VOTERS.iter().all(|node| cluster.is_serving(*node) || cluster.refused(*node).is_some());
        cluster.world.run_until(&format!("all brokers serve (seed {seed})"), LIMIT, all_serve);
        let refused: BTreeMap<_, _> = VOTERS.iter().filter_map(|node| Some((*node, cluster.refused(*node)?))).collect();
        assert!(refused.is_empty(), "seed {seed}: refused to start: {refused:?}");
        self.wait_until_whole();
        self.demand_progress();
        let counts = || {
            let invariants = self.invariants.lock().unwrap();
            (invariants.fencings, invariants.elections)
        };
        let before = counts();
        cluster.world.run_for(CALM);
        let after = counts();
        // Leaders may return to their preferred replicas.
        let partitions = 7;
        assert!(
            after.0 == before.0 && after.1 - before.1 <= partitions,
            "seed {seed}: without faults {} brokers were fenced and {} leaders elected",
            after.0 - before.0,
            after.1 - before.1
        );
    }

    /// Waits until each client has succeeded again.
    fn demand_progress(&self) {
        self.demand_progress_of(&CLIENTS);
    }

    fn demand_progress_of(&self, clients: &[&str]) {
        let progress = || self.shared.history.lock().unwrap().progress.clone();
        let before = progress();
        for client in clients {
            let count = |progress: &BTreeMap<&'static str, u64>| progress.get(*client).copied().unwrap_or(0);
            if !self.cluster.world.runs_until(LIMIT, || count(&progress()) > count(&before)) {
                let last = &self.shared.history.lock().unwrap().last;
                panic!(
                    "seed {}: for {LIMIT:?} this client does not succeed: {client}; clients were told: {last:?}",
                    self.seed
                );
            }
        }
    }

    /// All that was acknowledged is there, once and in order, and the replicas are the same.
    fn check_records(&self) {
        let (cluster, seed) = (&self.cluster, self.seed);
        let client = || Client::new(cluster.clients(), &self.shared);
        for index in [0, IDEMPOTENT] {
            let acknowledged: BTreeMap<_, _> = {
                let history = self.shared.history.lock().unwrap();
                let image = self.invariants.lock().unwrap().newest().cloned().expect("there is metadata");
                let key = (image.topic_id(SAFE).expect("the topic exists"), index);
                history.acknowledged.get(&key).cloned().unwrap_or_default()
            };
            let stored =
                cluster.world.wait(CLIENT, "all records are read", LIMIT, load::read_all(client(), SAFE, index));
            for (offset, value) in &acknowledged {
                let found = stored.get(offset);
                assert_eq!(
                    found,
                    Some(value),
                    "seed {seed}: INV-R4: offset {offset} of {SAFE}-{index} was acknowledged"
                );
            }
            if index == IDEMPOTENT {
                let numbers = stored.values().map(|value| value.parse::<u64>().unwrap());
                let wrong = (0u64..).zip(numbers).find(|(expected, found)| expected != found);
                assert_eq!(wrong, None, "seed {seed}: INV-T4: a record is missing, there twice, or out of order");
            }
        }
        let partitions = [(SAFE, 0), (SAFE, 1), (LOOSE, 0), (GROUP_METADATA_TOPIC, 0), (GROUP_METADATA_TOPIC, 1)];
        for (topic, index) in partitions {
            let logs = VOTERS.map(|node| cluster.log_bytes(node, topic, index));
            let common = logs.iter().map(|(high_watermark, _)| *high_watermark).min().unwrap_or(0);
            let below = |log: &[(i64, Vec<u8>)]| {
                log.iter().filter(|(base_offset, _)| *base_offset < common).cloned().collect::<Vec<_>>()
            };
            let first = below(&logs[0].1);
            for (node, (_, log)) in VOTERS.iter().zip(&logs).skip(1) {
                assert!(
                    first == below(log),
                    "seed {seed}: INV-R1: {topic}-{index} differs on nodes 1 and {node} below {common}"
                );
            }
        }
    }

    /// A deleted topic does not come back.
    fn check_deletions(&self) {
        let deleted = self.shared.history.lock().unwrap().deleted.clone();
        for node in VOTERS {
            let client = Client::new(self.cluster.clients(), &self.shared);
            let known = self.cluster.world.wait(CLIENT, "the topics", LIMIT, load::topics_of(client, node));
            let back: Vec<_> = known.intersection(&deleted).collect();
            assert!(back.is_empty(), "seed {}: node {node} still tells of deleted topics: {back:?}", self.seed);
        }
    }
}

/// A random half of the faults.
fn half(random: &dyn Fn(u64) -> u64) -> Vec<Fault> {
    ALL.into_iter().filter(|_| random(2) == 0).collect()
}

/// Prints the log of the brokers if the variable `LOG` is set to a level.
fn print_log() {
    if let Ok(level) = std::env::var("LOG") {
        let level = level.parse().unwrap_or(tracing::Level::WARN);
        let _ = tracing_subscriber::fmt().with_max_level(level).without_time().with_ansi(false).try_init();
    }
}

/// Runs one seed. Returns a checksum of all that happened and the number of faults.
fn swarm(seed: u64) -> (u64, usize) {
    print_log();
    let mut swarm = Swarm::new(seed, half);
    for _ in 0..STEPS {
        if !swarm.enabled.is_empty() {
            let fault = swarm.enabled[swarm.random(swarm.enabled.len() as u64) as usize];
            let node = VOTERS[swarm.random(3) as usize];
            swarm.inject(fault, node);
        }
        // Mostly a moment, sometimes longer than a session.
        let longest = [300, 1_000, 4_000, 12_000][swarm.random(4) as usize];
        swarm.run_ms(swarm.random(longest));
        swarm.heal_some();
    }
    if std::env::var_os("FAULTS").is_some() {
        println!("{:?}: {:#?}", swarm.enabled, swarm.done);
    }
    swarm.heal();
    swarm.check_records();
    swarm.check_deletions();
    (swarm.cluster.world.trace(), swarm.done.len())
}

#[test]
fn inv_r4_a_swarm_of_faults_loses_nothing_and_ends_in_a_whole_cluster() {
    // An optimized seed takes 0.4 s.
    let (fixed, fresh) = if cfg!(debug_assertions) { (8, 4) } else { (200, 50) };
    for seed in seeds(fixed, fresh) {
        swarm(seed);
    }
}

#[test]
fn a_swarm_replays_from_its_seed() {
    for seed in seeds(0, 1) {
        assert_eq!(swarm(seed), swarm(seed), "seed {seed}");
    }
}

/// The planted bugs that the swarm catches. docs/TESTING.md says what each breaks.
const PLANTED: [&str; 15] =
    ["A1", "A2", "A8", "A10", "A11", "A15", "A21", "K5", "K8", "K9", "K11", "K12-ISR", "M3", "R1", "SYNC"];
/// Those that it reaches rarely, or that another line of defence makes harmless in a cluster, each with its own test.
const PLANTED_FOR_A_TEST: &[(&str, &str)] = &[
    (
        "A3",
        "replica::partition::tests::a_follower_appends_nothing_that_it_fetched_in_another_epoch_or_that_is_of_a_newer_one",
    ),
    ("A4", "replica::state_script_tests::inv_r3_high_watermark"),
    ("A4-CONTROLLER", "controller::isr::tests::c3_members_must_be_active_and_in_the_incarnation_that_the_leader_heard"),
    (
        "A5",
        "replica::replica_manager::tests::a_change_of_the_isr_is_repeated_until_it_is_answered_or_its_topic_is_deleted",
    ),
    ("A6", "controller::isr::tests::c1_epochs_ahead_of_this_controller_are_for_another_one"),
    ("A7", "replica::state_script_tests::inv_r3_high_watermark"),
    ("A9", "log::model_tests::inv_l5_a_power_cut_takes_no_leader_epoch_below_the_recovery_point"),
    ("A9-FULL", "log::model_tests::inv_l5_a_power_cut_takes_no_leader_epoch_below_the_recovery_point"),
    (
        "A13",
        "replica::replica_manager::tests::a_change_of_the_isr_is_repeated_until_it_is_answered_or_its_topic_is_deleted",
    ),
    (
        "A14",
        "replica::partition::tests::f8_a_fetch_of_a_replica_is_checked_for_the_leader_and_its_epoch_before_the_replica",
    ),
    ("A16", "replica::partition::tests::a_follower_out_of_its_leaders_range_goes_on_where_the_leader_begins_or_ends"),
    ("A17", "coordinator::runtime::tests::inv_g3_an_answer_overtakes_no_record_that_was_written_before_it"),
    ("A18", "replica::partition::tests::inv_r4_a_truncation_below_the_high_watermark_is_noticed"),
    ("A19", "replica::partition::tests::inv_r5_a_record_is_committed_only_in_the_epoch_in_which_it_was_appended"),
    ("EPOCHS", "log::flush::tests::an_old_flush_does_not_bring_back_the_epochs_that_a_truncation_has_removed"),
    (
        "G3-FOLLOWERS",
        "sim::replication_tests::inv_g3_a_coordinator_that_only_the_controller_does_not_reach_answers_nothing_old",
    ),
    ("G3-HEARTBEAT", "sim::replication_tests::inv_g3_a_coordinator_that_was_fenced_meanwhile_answers_nothing_old"),
    ("K1", "coordinator::runtime::tests::g6_nobody_is_answered_before_the_assignment_is_committed"),
    ("K7", "log::tests::f2_a_read_is_empty_or_begins_with_its_offset_and_has_no_gap"),
    ("K7-TRUNCATED", "log::tests::f2_a_read_that_a_truncation_overtakes_skips_no_offsets"),
    ("K10", "replica::partition::tests::a_new_leader_that_cannot_write_its_epoch_takes_the_directory_offline"),
    ("K12", "replica::state_script_tests::inv_r3_high_watermark"),
    ("L3", "replica::partition::tests::l3_a_new_leader_tells_its_end_once_it_knows_the_high_watermark"),
    ("R4", "replica::replica_manager::tests::what_is_deleted_before_it_was_opened_is_not_opened"),
    ("R6", "replica::state_script_tests::inv_r6_growing_the_isr"),
];

/// Runs one test of this crate with a bug. Returns whether it passed, and what it printed.
fn run_with_bug(bug: &str, test: &str, seeds: &str) -> (bool, String, String) {
    let output = std::process::Command::new(std::env::current_exe().expect("the path of this test"))
        .args([test, "--exact", "--nocapture"])
        .env("PLANTED", bug)
        .env("SEEDS", seeds)
        .env_remove("FULL")
        .output()
        .expect("the test can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn planted_bugs_are_caught_by_their_tests() {
    for (bug, test) in PLANTED_FOR_A_TEST {
        let (_, without, _) = run_with_bug("none", test, "0");
        assert!(without.contains("1 passed"), "{test} does not exist, or fails without a bug: {without}");
        let (passes, ..) = run_with_bug(bug, test, "0");
        assert!(!passes, "{test} does not catch {bug}");
    }
}

/// Runs the swarm with each planted bug until a seed fails, and prints after how many seeds and by which check.
#[test]
fn planted_bugs_are_caught() {
    if std::env::var_os("FULL").is_none() {
        println!("skipped: FULL=1 runs it, which takes long");
        return;
    }
    let only = std::env::var("BUGS").ok();
    let seeds = std::env::var("MOST").ok().and_then(|most| most.parse().ok()).unwrap_or(100u64);
    let mut missed = Vec::new();
    for bug in &PLANTED {
        if only.as_ref().is_some_and(|only| !only.split(',').any(|name| name == *bug)) {
            continue;
        }
        let swarm = "sim::swarm_tests::inv_r4_a_swarm_of_faults_loses_nothing_and_ends_in_a_whole_cluster";
        let (passes, output, errors) = run_with_bug(bug, swarm, &format!("0..{seeds}"));
        let ran = output.lines().filter(|line| line.starts_with("seed ")).count();
        if passes {
            println!("{bug:14} not caught by {ran} seeds");
            missed.push(*bug);
        } else {
            let reason = errors.lines().skip_while(|line| !line.contains("panicked at")).nth(1).unwrap_or("no message");
            println!("{bug:14} caught by seed {:3}: {}", ran - 1, reason.chars().take(150).collect::<String>());
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
