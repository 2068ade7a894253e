//! The life of this broker as the controller sees it: registration, then heartbeats. Apache: `BrokerLifecycleManager`.
//!
//! Owns the retries, for the controller may be on any node and move. Leaves the only voter of a quorum alone: its
//! controller registers its broker itself, with the first fsync.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use kafka_protocol::error::ResponseError;
use tokio::sync::Mutex;

use crate::{
    controller::{
        ApiError,
        brokers::{BrokerHeartbeat, BrokerState, RegisterBroker},
    },
    env::Env,
    metadata::publisher::Publisher,
    raft::ControllerChannel,
    replica::ReplicaManager,
};

/// The wait after an attempt that has failed.
const RETRY: Duration = Duration::from_millis(100);
/// The wait while other brokers take over leaders.
const LEAVE_RETRY: Duration = Duration::from_millis(20);
/// A broker that cannot hand over its leaders within this time stops anyway.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// See the head of the file.
pub(super) struct Lifecycle {
    pub(super) env: Env,
    pub(super) channel: Arc<ControllerChannel>,
    pub(super) publisher: Arc<Publisher>,
    /// `broker.heartbeat.interval.ms`.
    pub(super) heartbeat_interval: Duration,
    pub(super) registration: RegisterBroker,
    /// It wants to know that this broker is not fenced.
    pub(super) replica_manager: Arc<ReplicaManager>,
    /// The controlled shutdown has begun: every heartbeat says so.
    pub(super) is_leaving: AtomicBool,
    /// One heartbeat at a time: none that was made before the controlled shutdown is sent after it has begun.
    pub(super) turn: Mutex<()>,
}

impl Lifecycle {
    /// Registers this broker, and waits until this node has applied the registration: then its image is not older than
    /// its start.
    ///
    /// # Errors
    /// The controller refuses this broker for good.
    pub(super) async fn register(&self) -> anyhow::Result<()> {
        loop {
            match self.channel.ask(self.registration.clone()).await {
                Ok(epoch) => {
                    self.publisher.published(epoch).await;
                    return Ok(());
                }
                Err(error) if is_final(&error) => {
                    bail!("the controller refuses this broker: {}", error.message.unwrap_or_default())
                }
                Err(error) => {
                    tracing::debug!(?error, "this broker is not registered yet");
                    self.wait(RETRY).await;
                }
            }
        }
    }

    /// The broker epoch of this process, if this node has applied its registration.
    fn epoch(&self) -> Option<i64> {
        let image = self.publisher.image();
        let own = image.broker(self.registration.broker_id)?;
        (own.incarnation_id == self.registration.incarnation_id).then_some(own.epoch)
    }

    /// Waits until the controller has unfenced this broker, and sends heartbeats until it stops. The only voter begins
    /// when it gets others: it knows itself that it lives.
    ///
    /// # Errors
    /// The registration is not valid any more.
    pub(super) async fn keep_alive(self: Arc<Self>, is_only_voter: bool) -> anyhow::Result<()> {
        if !is_only_voter {
            self.unfence().await?;
        }
        self.env.tasks.clone().spawn_until_stopped("broker heartbeat", async move {
            if is_only_voter {
                // Nobody could fence it.
                self.replica_manager.on_unfenced(Duration::MAX);
                self.channel.local().has_other_voters().await;
                self.replica_manager.on_unfenced(self.env.clock.monotonic());
            }
            loop {
                while let Err(error) = self.beat().await {
                    if is_stale(&error) {
                        tracing::warn!("another process was registered under the id of this broker");
                        return;
                    }
                    self.wait(RETRY).await;
                }
                tokio::select! {
                    biased;
                    () = self.wait(self.heartbeat_interval) => {}
                    () = self.replica_manager.heartbeat_wanted() => {}
                }
            }
        });
        Ok(())
    }

    async fn unfence(&self) -> anyhow::Result<()> {
        loop {
            match self.beat().await {
                Ok(state) if !state.is_fenced => return Ok(()),
                Err(error) if is_stale(&error) => {
                    return Err(anyhow::anyhow!("{error:?}")).context("this broker was registered anew meanwhile");
                }
                _ => self.wait(RETRY).await,
            }
        }
    }

    /// The controlled shutdown: returns when the controller has given the leaders of this broker to others, so that
    /// clients find them before it stops. If no other broker lives, there is nobody to give them to. If a majority of
    /// the voters has ended, since all of them are stopped, there is no controller that could do it.
    pub(super) async fn leave(&self) {
        let own = self.registration.broker_id;
        if !self.publisher.image().alive_brokers().any(|broker| broker.id != own) {
            return;
        }
        self.is_leaving.store(true, Ordering::Release);
        let given = async {
            loop {
                match self.beat().await {
                    Ok(state) if state.should_shut_down => return,
                    Err(error) if is_stale(&error) => return,
                    _ => self.wait(LEAVE_RETRY).await,
                }
            }
        };
        let left = self.env.within(LEAVE_LIMIT, async {
            tokio::select! {
                biased;
                () = given => {}
                () = self.channel.local().quorum_has_ended() => {}
            }
        });
        if left.await.is_none() {
            tracing::warn!("no controller has given the leaders of this broker to others within {LEAVE_LIMIT:?}");
        }
    }

    async fn beat(&self) -> Result<BrokerState, ApiError> {
        let Some(epoch) = self.epoch() else {
            return Err(ApiError::code_only(ResponseError::BrokerIdNotRegistered));
        };
        let _turn = self.turn.lock().await;
        let want_shut_down = self.is_leaving.load(Ordering::Acquire);
        let heartbeat = BrokerHeartbeat::new(self.registration.broker_id, epoch);
        let sent_at = self.env.clock.monotonic();
        let state = self.channel.ask(BrokerHeartbeat { want_shut_down, ..heartbeat }).await?;
        if let Some(metadata_offset) = state.metadata_offset.filter(|_| !state.is_fenced) {
            // The heartbeat may have unfenced this broker. What happened while it was fenced comes with the metadata.
            let (publisher, replica_manager) = (self.publisher.clone(), self.replica_manager.clone());
            self.env.tasks.spawn_until_stopped("apply what a heartbeat has told", async move {
                if !planted!("G3-HEARTBEAT") {
                    publisher.published(metadata_offset).await;
                }
                replica_manager.on_unfenced(sent_at);
            });
        }
        Ok(state)
    }

    async fn wait(&self, time: Duration) {
        self.env.clock.sleep_until(self.env.clock.monotonic() + time).await;
    }
}

/// Whether another attempt would fail, too.
fn is_final(error: &ApiError) -> bool {
    [ResponseError::InconsistentClusterId, ResponseError::InvalidRegistration, ResponseError::UnsupportedVersion]
        .iter()
        .any(|kind| kind.code() == error.code())
}

fn is_stale(error: &ApiError) -> bool {
    error.code() == ResponseError::StaleBrokerEpoch.code()
        || error.code() == ResponseError::BrokerIdNotRegistered.code()
}
