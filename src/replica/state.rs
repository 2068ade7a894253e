//! The state of one replica: the leadership of its partition, the progress of its followers, the high watermark and
//! the changes of the ISR. It is pure: [`ReplicaState::step`] takes an event and returns its effects.
//!
//! Invariants: INV-R3 (the high watermark is the minimum over the maximal ISR and never decreases while this broker
//! leads), INV-R5 (acks=all needs `min.insync.replicas`), INV-R6 (while a change of the ISR is in flight, old and
//! proposed members bound the high watermark). Leaves locks, the log and requests to `partition.rs` and `isr.rs`.

use std::time::Duration;

use crate::types::{BrokerId, LeaderEpoch, Offset};

/// The part of a partition's metadata that a replica needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// -1 if there is none.
    pub leader: BrokerId,
    /// The epoch of this leader.
    pub leader_epoch: LeaderEpoch,
    /// The number of changes of this metadata.
    pub partition_epoch: i32,
    /// All replicas, preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// The in-sync replicas.
    pub isr: Vec<BrokerId>,
    /// The leader was elected uncleanly and has not confirmed yet that it has recovered (leader recovery state 1).
    pub is_recovering: bool,
}

/// What is known of the other brokers.
pub trait LiveBrokers {
    /// The broker epoch, if the broker may be in sync: it is registered, not fenced and not in a controlled shutdown.
    fn epoch(&self, broker: BrokerId) -> Option<i64>;
    /// When the broker last sent a fetch request as a follower, for whichever partitions.
    fn last_fetch(&self, broker: BrokerId) -> Option<Duration>;
}

/// What a step needs to know beside its event.
pub struct Moment<'a> {
    /// The monotonic time.
    pub now: Duration,
    /// The log end offset.
    pub log_end_offset: Offset,
    /// The end of the records that readers may see: below the log end offset while a demanded flush is outstanding.
    pub visible_end_offset: Offset,
    /// `min.insync.replicas`.
    pub min_insync_replicas: i32,
    /// `replica.lag.time.max.ms`.
    pub max_lag: Duration,
    /// The brokers that may be in sync.
    pub brokers: &'a dyn LiveBrokers,
}

/// An event of one replica.
#[derive(Debug)]
pub enum Event {
    /// New metadata.
    Metadata(Leadership),
    /// This leader has appended, or a flush has made records visible.
    Appended,
    /// A follower has fetched, and the read has succeeded.
    Fetched(FollowerFetch),
    /// This follower has appended what its leader returned, with the leader's high watermark.
    Replicated { leader_high_watermark: Offset },
    /// Time to look for followers that are too far behind.
    LagCheck,
    /// The controller has handled the proposal made in this partition epoch.
    IsrAnswer { partition_epoch: i32, answer: IsrAnswer },
}

/// A follower's fetch.
#[derive(Clone, Copy, Debug)]
pub struct FollowerFetch {
    /// The follower.
    pub replica: BrokerId,
    /// Its broker epoch; -1 if it does not send one.
    pub broker_epoch: i64,
    /// The offset from which it fetches: it has all records below.
    pub offset: Offset,
    /// The log end offset of this leader when it read for the follower.
    pub leader_end_offset: Offset,
}

/// The controller's answer to a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsrAnswer {
    /// The state of the partition, with the change or after another one.
    Changed { leader_epoch: LeaderEpoch, isr: Vec<BrokerId>, partition_epoch: i32 },
    /// The change was refused, and the last state holds (KIP-841: a member may not be in sync).
    Refused,
    /// The controller knows newer metadata, which will arrive here and end the proposal.
    Outdated,
}

/// The effects of an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The new high watermark.
    pub high_watermark: Option<Offset>,
    /// The change of this broker's role.
    pub role: Option<RoleChange>,
    /// A change of the ISR that the controller must confirm.
    pub proposal: Option<Proposal>,
}

/// A change of this broker's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleChange {
    /// This broker leads in a new epoch.
    Leader,
    /// This broker follows a leader, or has no leader, in a new epoch. `has_resigned`: it led before.
    Follower { has_resigned: bool },
}

/// A change of the ISR. It is immutable: a retry sends the same one (KAFKA-15353).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The leader epoch in which it is made.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch that it changes.
    pub partition_epoch: i32,
    /// The new members with their broker epochs (KIP-903); -1 where it is not known.
    pub isr: Vec<(BrokerId, i64)>,
    /// The number of members that the ISR had.
    pub members_before: usize,
}

/// The progress of one follower. All fields are from its fetches in the current leader epoch.
#[derive(Clone, Copy, Debug, Default)]
struct Follower {
    end_offset: Option<Offset>,
    broker_epoch: Option<i64>,
    /// The leader's end offset at the last fetch, and when it was.
    last_fetch: Option<(Offset, Duration)>,
    /// The last time at which it had all records.
    caught_up_at: Option<Duration>,
}

impl Follower {
    /// Apache: `ReplicaState.isCaughtUp`.
    fn is_caught_up(&self, at: &Moment<'_>) -> bool {
        self.end_offset == Some(at.log_end_offset)
            || self.caught_up_at.is_some_and(|caught_up_at| at.now.saturating_sub(caught_up_at) <= at.max_lag)
    }

    /// Apache: `Replica.updateFetchStateOrThrow`. A follower that fetches from the end is caught up now. One that
    /// fetches from where the end was at its last fetch was caught up then, so that it stays in sync under load.
    fn on_fetch(&mut self, fetch: &FollowerFetch, now: Duration) {
        let caught_up_at = match self.last_fetch {
            _ if fetch.offset >= fetch.leader_end_offset => Some(now),
            Some((end_offset, time)) if fetch.offset >= end_offset => Some(time),
            _ => None,
        };
        self.caught_up_at = self.caught_up_at.max(caught_up_at);
        self.end_offset = Some(fetch.offset);
        self.broker_epoch = Some(fetch.broker_epoch).filter(|epoch| *epoch >= 0);
        self.last_fetch = Some((fetch.leader_end_offset, now));
    }
}

/// The state of one replica.
#[derive(Debug)]
pub struct ReplicaState {
    local: BrokerId,
    leadership: Leadership,
    high_watermark: Offset,
    /// Where the log ended at the last event.
    log_end_offset: Offset,
    /// Where the log ended when this broker became the leader in this epoch.
    epoch_start_offset: Offset,
    /// The other replicas, while this broker leads (by the replica set, not by the ISR: a replica that has left the ISR
    /// must be able to return). A list, because a map takes 850 bytes for two of them.
    followers: Vec<(BrokerId, Follower)>,
    /// The proposed ISR, while the controller has not confirmed it.
    proposed: Option<Vec<BrokerId>>,
}

impl ReplicaState {
    /// A replica without metadata, with the high watermark of the checkpoint.
    pub fn new(local: BrokerId, high_watermark: Offset) -> Self {
        let leadership = Leadership {
            leader: -1,
            leader_epoch: -1,
            partition_epoch: -1,
            replicas: Vec::new(),
            isr: Vec::new(),
            is_recovering: false,
        };
        ReplicaState {
            local,
            leadership,
            high_watermark,
            log_end_offset: 0,
            epoch_start_offset: 0,
            followers: Vec::new(),
            proposed: None,
        }
    }

    /// Whether this broker is the leader.
    pub fn is_leader(&self) -> bool {
        self.leadership.leader == self.local
    }

    /// The current metadata, or newer if the controller has confirmed a change of the ISR.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// INV-R5: the number of in-sync replicas.
    pub fn in_sync_replicas(&self) -> usize {
        self.leadership.isr.len()
    }

    /// The number of in-sync replicas that acks=all needs: at most the number of replicas
    /// (`Partition.effectiveMinIsr`).
    pub fn needed_replicas(&self, min_insync_replicas: i32) -> usize {
        let replicas = self.leadership.replicas.len();
        usize::try_from(min_insync_replicas).unwrap_or(0).min(replicas)
    }

    /// All records below this offset are on every in-sync replica.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Whether the high watermark is up to date. A new leader does not know yet which of the records that it got as a
    /// follower were committed (KIP-207).
    pub fn knows_high_watermark(&self) -> bool {
        self.high_watermark >= self.epoch_start_offset || planted!("L3")
    }

    /// Whether this broker leads and other brokers have replicas.
    pub fn has_followers(&self) -> bool {
        !self.followers.is_empty()
    }

    /// Whether this replica is in sync.
    pub fn is_in_sync(&self, replica: BrokerId) -> bool {
        // linear: a partition has a few replicas
        self.leadership.isr.contains(&replica)
    }

    /// The brokers that the controller may elect after this leader: the other members of the ISR, and of the proposed
    /// one, which the controller may have confirmed already.
    pub fn successors(&self) -> impl Iterator<Item = BrokerId> {
        let proposed = self.proposed.iter().flatten();
        self.leadership.isr.iter().chain(proposed).copied().filter(|broker| *broker != self.local)
    }

    /// Whether another broker may fetch as a follower.
    pub fn is_follower(&self, replica: BrokerId) -> bool {
        self.follower(replica).is_some()
    }

    fn follower(&self, replica: BrokerId) -> Option<&Follower> {
        // linear: a partition has a few replicas
        self.followers.iter().find(|(id, _)| *id == replica).map(|(_, follower)| follower)
    }

    /// Keeps the high watermark within the log after its start has moved or its end was truncated.
    pub fn clamp(&mut self, log_start_offset: Offset, log_end_offset: Offset) {
        self.high_watermark = self.high_watermark.clamp(log_start_offset, log_end_offset);
    }

    /// Handles one event.
    pub fn step(&mut self, event: Event, at: &Moment<'_>) -> Effects {
        let (mut role, mut proposal) = (None, None);
        match event {
            Event::Metadata(leadership) => {
                role = self.on_metadata(leadership, at);
                proposal = self.recovered();
            }
            Event::Appended => self.on_append(at),
            Event::Fetched(fetch) => proposal = self.on_fetch(&fetch, at),
            Event::Replicated { leader_high_watermark } => {
                return Effects { high_watermark: self.follow(leader_high_watermark, at), ..Effects::default() };
            }
            Event::LagCheck => proposal = self.recovered().or_else(|| self.shrink(at)),
            Event::IsrAnswer { partition_epoch, answer } => self.on_isr_answer(partition_epoch, answer),
        }
        self.log_end_offset = at.log_end_offset;
        Effects { high_watermark: self.advance(at), role, proposal }
    }

    /// Metadata that is older than the current one changes nothing.
    fn on_metadata(&mut self, leadership: Leadership, at: &Moment<'_>) -> Option<RoleChange> {
        if leadership.partition_epoch < self.leadership.partition_epoch {
            return None;
        }
        if leadership.partition_epoch > self.leadership.partition_epoch {
            self.proposed = None;
        }
        let is_new_epoch = leadership.leader_epoch > self.leadership.leader_epoch;
        let was_leader = self.is_leader();
        self.leadership = leadership;
        if !self.is_leader() {
            self.followers = Vec::new();
            self.proposed = None;
            return (is_new_epoch || was_leader).then_some(RoleChange::Follower { has_resigned: was_leader });
        }
        if is_new_epoch {
            self.epoch_start_offset = at.log_end_offset;
        }
        self.set_followers(is_new_epoch, was_leader, at);
        is_new_epoch.then_some(RoleChange::Leader)
    }

    /// Apache: `Replica.resetReplicaState`. At the start of an epoch the members of the ISR count as caught up now, and
    /// no other replica does: it must not hold the high watermark.
    fn set_followers(&mut self, is_new_epoch: bool, was_leader: bool, at: &Moment<'_>) {
        let before = std::mem::take(&mut self.followers);
        let by_isr = planted!("K12-ISR");
        let replicas = if by_isr { &self.leadership.isr } else { &self.leadership.replicas };
        self.followers.reserve_exact(replicas.len().saturating_sub(1));
        for replica in replicas.iter().filter(|replica| **replica != self.local) {
            // linear: a partition has a few replicas
            let known = before.iter().find(|(id, _)| id == replica);
            let mut follower = known.map(|(_, follower)| *follower).unwrap_or_default();
            if is_new_epoch {
                // linear: a partition has a few replicas
                let in_sync_since = self.leadership.isr.contains(replica).then_some(at.now);
                let last_fetch = in_sync_since.filter(|_| was_leader).map(|now| (at.log_end_offset, now));
                follower = Follower { last_fetch, caught_up_at: in_sync_since, ..follower };
            }
            self.followers.push((*replica, follower));
        }
    }

    /// A follower that had all records until now was caught up when its broker last fetched: its fetches name only the
    /// partitions that have changed, so that this partition may have none for long.
    fn on_append(&mut self, at: &Moment<'_>) {
        if at.log_end_offset == self.log_end_offset {
            return;
        }
        for (replica, follower) in &mut self.followers {
            if follower.end_offset == Some(self.log_end_offset) {
                follower.caught_up_at = follower.caught_up_at.max(at.brokers.last_fetch(*replica));
            }
        }
    }

    /// After an unclean election: this leader confirms that it has recovered. Its log was recovered when it was opened,
    /// so there is nothing left to do (Apache: `Partition.makeLeader`).
    fn recovered(&mut self) -> Option<Proposal> {
        let is_due = self.is_leader() && self.leadership.is_recovering && self.proposed.is_none();
        is_due.then(|| self.propose(self.leadership.isr.clone()))
    }

    /// Records the progress of a follower, and proposes to add it to the ISR if it is in sync again. The test and the
    /// proposal use the same snapshot of the follower (KAFKA-15221).
    fn on_fetch(&mut self, fetch: &FollowerFetch, at: &Moment<'_>) -> Option<Proposal> {
        if !self.is_leader() {
            return None;
        }
        // linear: a partition has a few replicas
        let (_, follower) = self.followers.iter_mut().find(|(id, _)| *id == fetch.replica)?;
        // A fetch that an earlier process of the broker has sent (KIP-903).
        if !planted!("A4")
            && fetch.broker_epoch >= 0
            && follower.broker_epoch.is_some_and(|epoch| fetch.broker_epoch < epoch)
        {
            return None;
        }
        follower.on_fetch(fetch, at.now);
        let is_in_sync = fetch.offset >= self.high_watermark && fetch.offset >= self.epoch_start_offset;
        let follower = *follower;
        let may_join = is_in_sync && self.proposed.is_none() && self.is_eligible(fetch.replica, &follower, at);
        // linear: a partition has a few replicas
        if !may_join || self.leadership.isr.contains(&fetch.replica) {
            return None;
        }
        let isr = self.leadership.isr.iter().copied().chain([fetch.replica]).collect();
        Some(self.propose(isr))
    }

    /// Apache: `isReplicaIsrEligible`.
    fn is_eligible(&self, replica: BrokerId, follower: &Follower, at: &Moment<'_>) -> bool {
        at.brokers.epoch(replica).is_some_and(|epoch| follower.broker_epoch.is_none_or(|fetched| fetched == epoch))
    }

    /// Proposes to remove the followers that were not caught up for too long.
    fn shrink(&mut self, at: &Moment<'_>) -> Option<Proposal> {
        if !self.is_leader() || self.proposed.is_some() {
            return None;
        }
        let is_out_of_sync =
            |replica: &BrokerId| self.follower(*replica).is_some_and(|follower| !follower.is_caught_up(at));
        let isr: Vec<BrokerId> =
            self.leadership.isr.iter().copied().filter(|replica| !is_out_of_sync(replica)).collect();
        // The controller refuses an ISR without the leader.
        // linear: a partition has a few replicas
        (isr.len() < self.leadership.isr.len() && isr.contains(&self.local)).then(|| self.propose(isr))
    }

    fn propose(&mut self, isr: Vec<BrokerId>) -> Proposal {
        let epoch = |replica: &BrokerId| self.follower(*replica).and_then(|follower| follower.broker_epoch);
        let proposal = Proposal {
            leader_epoch: self.leadership.leader_epoch,
            partition_epoch: self.leadership.partition_epoch,
            isr: isr.iter().map(|replica| (*replica, epoch(replica).unwrap_or(-1))).collect(),
            members_before: self.leadership.isr.len(),
        };
        self.proposed = Some(isr);
        proposal
    }

    fn on_isr_answer(&mut self, proposed_in: i32, answer: IsrAnswer) {
        // Newer metadata has already ended the proposal.
        if self.proposed.is_none() || proposed_in != self.leadership.partition_epoch {
            return;
        }
        match answer {
            IsrAnswer::Changed { leader_epoch, isr, partition_epoch } => {
                // Anything else comes with the metadata.
                if leader_epoch == self.leadership.leader_epoch && partition_epoch >= proposed_in {
                    self.leadership.isr = isr;
                    self.leadership.partition_epoch = partition_epoch;
                    self.leadership.is_recovering = false;
                    self.proposed = None;
                }
            }
            IsrAnswer::Refused => self.proposed = None,
            IsrAnswer::Outdated => {}
        }
    }

    /// Updates the high watermark of a leader. Returns it if it has increased (INV-R3).
    fn advance(&mut self, at: &Moment<'_>) -> Option<Offset> {
        // KIP-966: a record counts as committed only if enough replicas have it.
        let needed = self.needed_replicas(at.min_insync_replicas);
        if !self.is_leader() || self.in_sync_replicas() < needed && !planted!("A8") {
            return None;
        }
        let holds = |replica: BrokerId, follower: &Follower| {
            // linear: a partition has a few replicas
            self.leadership.isr.contains(&replica)
                || !planted!("R6") && self.proposed.as_ref().is_some_and(|proposed| proposed.contains(&replica))
                // A replica that will join soon must not find the high watermark above its end, as long as it may join
                // at all (KAFKA-15021).
                || follower.is_caught_up(at) && (planted!("A7") || self.is_eligible(replica, follower, at))
        };
        let mut lowest = at.visible_end_offset;
        for (replica, follower) in &self.followers {
            let end_offset = follower.end_offset.unwrap_or(self.high_watermark);
            if end_offset < lowest && holds(*replica, follower) {
                lowest = end_offset;
            }
        }
        self.raise(lowest)
    }

    /// The high watermark of a follower.
    fn follow(&mut self, leader_high_watermark: Offset, at: &Moment<'_>) -> Option<Offset> {
        if self.is_leader() {
            return None;
        }
        self.raise(leader_high_watermark.min(at.log_end_offset))
    }

    fn raise(&mut self, high_watermark: Offset) -> Option<Offset> {
        (high_watermark > self.high_watermark || planted!("K12")).then(|| {
            self.high_watermark = high_watermark;
            high_watermark
        })
    }
}
