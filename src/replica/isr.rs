//! Sends proposed changes of ISRs to the controller (AlterPartition) and hands its answers to the partitions.
//!
//! Owns the queue of proposals, one for each partition, and their retries. All that wait go in one request. Leaves the
//! decision to propose to `state.rs`, and the check of a proposal to the controller.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use kafka_protocol::error::ResponseError;
use tokio::sync::Notify;

use super::{
    replica_manager::{Hosted, ReplicaManager},
    state::{IsrAnswer, Proposal},
};
use crate::{
    controller::isr::{AlterPartition, AlteredPartition, ProposedIsr},
    env::{Backoff, Env, lock},
    raft::ControllerChannel,
    types::{BrokerId, TopicId},
};

/// The waits after failures.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// The key of a partition, which survives the deletion and creation of a topic with the same name.
pub(super) type PartitionKey = (TopicId, i32);

/// Proposals that the controller has not answered yet.
#[derive(Default)]
pub(super) struct Proposals {
    waiting: Mutex<BTreeMap<PartitionKey, Proposal>>,
    added: Notify,
}

impl Proposals {
    /// Adds a proposal. It replaces an earlier one of the partition, which newer metadata has ended.
    pub(super) fn add(&self, partition: PartitionKey, proposal: Proposal) {
        lock::lock(&self.waiting).insert(partition, proposal);
        self.added.notify_one();
    }

    pub(super) fn all(&self) -> BTreeMap<PartitionKey, Proposal> {
        lock::lock(&self.waiting).clone()
    }

    /// Removes a proposal, unless a newer one has replaced it.
    fn remove(&self, partition: PartitionKey, sent: &Proposal) {
        let mut waiting = lock::lock(&self.waiting);
        if waiting.get(&partition) == Some(sent) {
            waiting.remove(&partition);
        }
    }
}

/// Sends proposals until the broker stops.
pub(super) async fn send_proposals(manager: Weak<ReplicaManager>, env: Env, channel: Arc<ControllerChannel>) {
    let mut backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
    loop {
        let Some(context) = manager.upgrade().map(|manager| manager.context().clone()) else { return };
        let sent = context.proposals.all();
        if sent.is_empty() {
            backoff.reset();
            context.proposals.added.notified().await;
            continue;
        }
        // A broker that is not registered proposes nothing.
        let answered = match context.own_epoch() {
            -1 => Err(crate::controller::ApiError::code_only(ResponseError::StaleBrokerEpoch)),
            broker_epoch => channel.ask(request(context.local, broker_epoch, &sent)).await,
        };
        let all_answered = match answered {
            Ok(answers) => {
                let Some(manager) = manager.upgrade() else { return };
                let of = |(key, answer)| deliver(&manager, &sent, key, answer);
                answers.into_iter().map(of).filter(|is_final| *is_final).count() == sent.len()
            }
            Err(error) => {
                tracing::debug!(error = %error.error, "the controller does not take changes of in-sync replicas now");
                false
            }
        };
        if !all_answered {
            env.clock.sleep_until(env.clock.monotonic() + backoff.next_wait()).await;
        }
    }
}

fn request(broker_id: BrokerId, broker_epoch: i64, sent: &BTreeMap<PartitionKey, Proposal>) -> AlterPartition {
    let proposed = |proposal: &Proposal| ProposedIsr {
        leader_epoch: proposal.leader_epoch,
        partition_epoch: proposal.partition_epoch,
        isr: proposal.isr.clone(),
        leader_recovery_state: 0,
    };
    let proposals = sent.iter().map(|(key, proposal)| (*key, proposed(proposal))).collect();
    AlterPartition { broker_id, broker_epoch, proposals }
}

/// Hands an answer to its partition. Returns false if the proposal must be sent again.
pub(super) fn deliver(
    manager: &ReplicaManager,
    sent: &BTreeMap<PartitionKey, Proposal>,
    key: PartitionKey,
    answer: Result<AlteredPartition, ResponseError>,
) -> bool {
    let Some(proposal) = sent.get(&key) else { return false };
    let is_gone = matches!(answer, Err(ResponseError::UnknownTopicId));
    if is_gone && planted!("A13") {
        return false;
    }
    let answer = match answer {
        Ok(AlteredPartition { leader_epoch, isr, partition_epoch, .. }) => {
            IsrAnswer::Changed { leader_epoch, isr, partition_epoch }
        }
        // Apache: `Partition.handleAlterPartitionError`.
        Err(ResponseError::IneligibleReplica | ResponseError::OperationNotAttempted) => IsrAnswer::Refused,
        Err(
            ResponseError::UnknownTopicOrPartition
            | ResponseError::UnknownTopicId
            | ResponseError::FencedLeaderEpoch
            | ResponseError::InvalidUpdateVersion
            | ResponseError::InvalidRequest
            | ResponseError::NewLeaderElected,
        ) => IsrAnswer::Outdated,
        Err(_) if planted!("A5") => IsrAnswer::Outdated,
        Err(error) => {
            tracing::debug!(?key, %error, "a change of in-sync replicas is tried again");
            return false;
        }
    };
    // The metadata may have told the partition before; so the change is counted here.
    let counters = &manager.context().counters;
    match answer {
        IsrAnswer::Changed { .. } => counters.count_isr_change(proposal.members_before, proposal.isr.len()),
        IsrAnswer::Refused | IsrAnswer::Outdated => counters.failed_isr_updates.add(1),
    }
    manager.context().proposals.remove(key, proposal);
    // A topic that is deleted meanwhile has no partition here (KAFKA-17190).
    let hosted = manager.topic_by_id(key.0).and_then(|topic| topic.partition(key.1));
    if let Some(Hosted::Online(partition)) = hosted {
        partition.on_isr_answer(proposal.partition_epoch, answer);
    }
    true
}
