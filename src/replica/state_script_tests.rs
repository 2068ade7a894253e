//! Script tests of the replica state: each `testdata/<name>.txt` contains events and, under `----`, their effects.
//!
//! This broker is 1. `brokers 2:20` are the brokers that may be in sync, with their epochs. `append 7` makes 7 the log
//! end offset. `fetch 2 5` is a fetch of broker 2 from offset 5; `epoch=` is its broker epoch, `end=` the log end
//! offset when the leader read for it. `fetches-others 2` is a fetch request of broker 2 for other partitions.
//! `recovering=1` is the leader recovery state after an unclean election.

use std::{collections::BTreeMap, time::Duration};

use super::state::*;
use crate::{
    script_tests::{run_script, scripts},
    types::{BrokerId, Offset},
};

scripts! {
    inv_r3_high_watermark
    inv_r5_min_insync_replicas
    inv_r6_growing_the_isr
    shrinking_the_isr
    leader_epochs
    follower
    idle_partitions
    recovery
}

fn run(name: &str) {
    let mut runner = Runner::new();
    run_script(&format!("src/replica/testdata/{name}.txt"), |line| runner.run(line));
}

#[derive(Default)]
struct Brokers {
    epochs: BTreeMap<BrokerId, i64>,
    fetched: BTreeMap<BrokerId, Duration>,
}

impl LiveBrokers for Brokers {
    fn epoch(&self, broker: BrokerId) -> Option<i64> {
        self.epochs.get(&broker).copied()
    }

    fn last_fetch(&self, broker: BrokerId) -> Option<Duration> {
        self.fetched.get(&broker).copied()
    }
}

struct Runner {
    state: ReplicaState,
    now: Duration,
    log_end_offset: Offset,
    min_insync_replicas: i32,
    brokers: Brokers,
}

fn ids(list: &str) -> Vec<BrokerId> {
    list.split(',').filter(|id| !id.is_empty()).map(|id| id.parse().unwrap()).collect()
}

impl Runner {
    fn new() -> Runner {
        Runner {
            state: ReplicaState::new(1, 0),
            now: Duration::from_secs(1000),
            log_end_offset: 0,
            min_insync_replicas: 1,
            brokers: Brokers::default(),
        }
    }

    fn run(&mut self, line: &str) -> String {
        let mut words = line.split(' ');
        let command = words.next().unwrap();
        let (named, plain): (Vec<&str>, Vec<&str>) = words.partition(|word| word.contains('='));
        let named: BTreeMap<&str, &str> = named.into_iter().filter_map(|word| word.split_once('=')).collect();
        let number = |name: &str, default: i64| named.get(name).map_or(default, |text| text.parse().unwrap());
        let plain_number = |at: usize| plain[at].parse::<i64>().unwrap();
        let mut leadership = self.state.leadership().clone();
        leadership.partition_epoch = number("partition-epoch", leadership.partition_epoch.into()) as i32;
        leadership.leader_epoch = number("epoch", leadership.leader_epoch.into()) as i32;
        let list = |name: &str, default: Vec<BrokerId>| named.get(name).map_or(default, |list| ids(list));
        let event = match command {
            "brokers" => {
                let pair =
                    |word: &&str| word.split_once(':').map(|(id, epoch)| (id.parse().unwrap(), epoch.parse().unwrap()));
                self.brokers.epochs = plain.iter().filter_map(pair).collect();
                return String::new();
            }
            "fetches-others" => {
                self.brokers.fetched.insert(plain_number(0) as i32, self.now);
                return String::new();
            }
            "min-insync" => {
                self.min_insync_replicas = plain_number(0) as i32;
                return String::new();
            }
            "advance" => {
                self.now += Duration::from_secs(plain_number(0) as u64);
                return String::new();
            }
            "truncate" => {
                self.log_end_offset = plain_number(0);
                self.state.clamp(0, self.log_end_offset);
                return format!("high watermark {}\n", self.state.high_watermark());
            }
            "metadata" => {
                let (replicas, isr) = (list("replicas", leadership.replicas), list("isr", leadership.isr));
                let leader = number("leader", leadership.leader.into()) as i32;
                let is_recovering = number("recovering", 0) == 1;
                Event::Metadata(Leadership { leader, replicas, isr, is_recovering, ..leadership })
            }
            "append" => {
                self.log_end_offset = plain_number(0);
                Event::Appended
            }
            "fetch" => Event::Fetched(FollowerFetch {
                replica: plain_number(0) as i32,
                broker_epoch: number("epoch", -1),
                offset: plain_number(1),
                leader_end_offset: number("end", self.log_end_offset),
            }),
            "replicated" => {
                self.log_end_offset = plain_number(0);
                Event::Replicated { leader_high_watermark: number("hw", 0) }
            }
            "lag-check" => Event::LagCheck,
            "answer" => {
                let partition_epoch = number("to", self.state.leadership().partition_epoch.into()) as i32;
                let answer = match plain[0] {
                    "changed" => IsrAnswer::Changed {
                        leader_epoch: leadership.leader_epoch,
                        isr: list("isr", Vec::new()),
                        partition_epoch: leadership.partition_epoch,
                    },
                    "refused" => IsrAnswer::Refused,
                    "outdated" => IsrAnswer::Outdated,
                    other => panic!("answer {other}"),
                };
                Event::IsrAnswer { partition_epoch, answer }
            }
            other => panic!("command {other}"),
        };
        let moment = Moment {
            now: self.now,
            log_end_offset: self.log_end_offset,
            visible_end_offset: self.log_end_offset,
            min_insync_replicas: self.min_insync_replicas,
            max_lag: Duration::from_secs(30),
            brokers: &self.brokers,
        };
        let Effects { high_watermark, role, proposal } = self.state.step(event, &moment);
        let mut effects = Vec::new();
        effects.extend(role.map(|role| format!("role {role:?}")));
        effects.extend(high_watermark.map(|offset| format!("high watermark {offset}")));
        effects.extend(proposal.map(|proposal| {
            let isr = proposal.isr.iter().map(|(id, epoch)| format!("{id}:{epoch}")).collect::<Vec<_>>().join(",");
            format!(
                "propose isr={isr} in epoch {}, partition epoch {}",
                proposal.leader_epoch, proposal.partition_epoch
            )
        }));
        if effects.is_empty() {
            effects.push("nothing".to_owned());
        }
        format!("{line}: {}\n", effects.join("; "))
    }
}
