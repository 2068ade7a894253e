//! Fetches from the leaders of the partitions that this broker follows: one task for each leader's broker (and each of
//! `num.replica.fetchers`), with one connection and one fetch session.
//!
//! Owns the requests, the connection, and for each partition the wait after an error, so that one bad partition does
//! not stop the others. A new partition does not wait for the end of a long poll: the request is given up and sent
//! again with it. Leaves all changes of the log to `follower.rs`, which checks that the partition still follows in the
//! epoch of the request.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId as WireBrokerId, ListOffsetsRequest, TopicName,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    },
    protocol::StrBytes,
};

use super::{
    follower::{FetchPosition, LeaderData},
    follower_session::FollowerSession,
    isr::PartitionKey,
    partition::{FetchFrom, Partition, PartitionError},
};
use crate::{
    config::BrokerConfig,
    env::{Env, Watched, lock},
    log::{AppendError, LogError},
    metadata::image::{Endpoint, MetadataImage},
    peer::{Peer, PeerError, Wire},
    protocol::fetch::{FetchRequest, FetchResponse, FetchedRecords, PartitionData},
    types::{BrokerId, Offset},
};

const FETCH: i16 = 1;
const FETCH_VERSION: i16 = 18;
const LIST_OFFSETS_VERSION: i16 = 7;
/// The largest batch may be as large as a request, and it is returned whatever the limit is.
const MAX_RESPONSE_BYTES: usize = 256 << 20;
/// The first wait after an error of a partition or of the connection. It doubles up to `replica.fetch.backoff.ms`. It
/// is short because a new leader often hears of its leadership a moment later than its followers.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);

/// The settings of the fetchers.
#[derive(Clone, Debug)]
pub struct FetcherSettings {
    pub fetchers_per_source: u64,
    pub wait: Duration,
    pub min_bytes: i32,
    pub partition_max_bytes: i32,
    pub response_max_bytes: i32,
    pub longest_backoff: Duration,
    /// A leader that does not answer for this long is given up.
    pub timeout: Duration,
    /// The name of the listener for other brokers.
    pub listener: String,
}

impl FetcherSettings {
    pub fn new(config: &BrokerConfig, listener: &str) -> FetcherSettings {
        let ms = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        FetcherSettings {
            fetchers_per_source: u64::try_from(config.num_replica_fetchers).unwrap_or(1).max(1),
            wait: ms(config.replica_fetch_wait_max_ms),
            min_bytes: config.replica_fetch_min_bytes,
            partition_max_bytes: config.replica_fetch_max_bytes,
            response_max_bytes: config.replica_fetch_response_max_bytes,
            longest_backoff: ms(config.replica_fetch_backoff_ms).max(FIRST_BACKOFF),
            timeout: ms(config.replica_socket_timeout_ms),
            listener: listener.to_owned(),
        }
    }
}

/// A leader's broker and the number of its fetcher.
type SourceKey = (BrokerId, u64);

/// See the head of the file.
pub(super) struct Fetchers {
    env: Env,
    local: BrokerId,
    settings: FetcherSettings,
    assigned: Mutex<Assigned>,
    brokers: Arc<Brokers>,
}

#[derive(Default)]
struct Assigned {
    sources: BTreeMap<SourceKey, Arc<Source>>,
    partitions: BTreeMap<PartitionKey, SourceKey>,
}

/// What the metadata says about brokers.
#[derive(Default)]
struct Brokers {
    endpoints: RwLock<BTreeMap<BrokerId, Endpoint>>,
    /// The epoch of this broker; -1 if it is not registered.
    own_epoch: RwLock<i64>,
}

/// The partitions that one task fetches.
#[derive(Default)]
struct Source {
    partitions: Mutex<BTreeMap<PartitionKey, Arc<Partition>>>,
    /// Changes when there is something new to fetch.
    added: Watched<u64>,
}

impl Fetchers {
    pub(super) fn new(env: &Env, local: BrokerId, settings: FetcherSettings) -> Fetchers {
        Fetchers {
            env: env.clone(),
            local,
            settings,
            assigned: Mutex::default(),
            brokers: Arc::new(Brokers { own_epoch: RwLock::new(-1), ..Brokers::default() }),
        }
    }

    /// Takes over the addresses of brokers.
    pub(super) fn set_brokers(&self, image: &MetadataImage) {
        let endpoints = image
            .brokers
            .values()
            .filter_map(|broker| Some((broker.id, broker.endpoint(&self.settings.listener)?.clone())));
        *lock::write(&self.brokers.endpoints) = endpoints.collect();
        *lock::write(&self.brokers.own_epoch) = image.broker(self.local).map_or(-1, |broker| broker.epoch);
    }

    /// Fetches a partition from this leader from now on, in the leader epoch that the partition has.
    pub(super) fn follow(&self, key: PartitionKey, partition: &Arc<Partition>, leader: BrokerId) {
        let source = (leader, fetcher_of(key, self.settings.fetchers_per_source));
        let assigned = &mut *lock::lock(&self.assigned);
        if assigned.partitions.get(&key).is_some_and(|before| *before != source) {
            assigned.remove(key);
        }
        assigned.partitions.insert(key, source);
        let task = assigned.sources.entry(source).or_insert_with(|| {
            let source = Arc::new(Source::default());
            let fetcher = Fetcher {
                env: self.env.clone(),
                local: self.local,
                leader,
                settings: self.settings.clone(),
                brokers: self.brokers.clone(),
                source: source.clone(),
                peer: None,
                session: FollowerSession::default(),
                waits: BTreeMap::new(),
            };
            self.env.tasks.spawn_until_stopped("fetch from a leader", fetcher.run());
            source
        });
        lock::lock(&task.partitions).insert(key, partition.clone());
        task.added.update(|added| *added += 1);
    }

    /// Fetches a partition no more: this broker leads it, or nobody does, or it is deleted.
    pub(super) fn unfollow(&self, key: PartitionKey) {
        lock::lock(&self.assigned).remove(key);
    }
}

impl Assigned {
    fn remove(&mut self, key: PartitionKey) {
        if let Some(source) = self.partitions.remove(&key).and_then(|source| self.sources.get(&source)) {
            lock::lock(&source.partitions).remove(&key);
        }
    }
}

/// Spreads partitions over the fetchers of one source.
fn fetcher_of(key: PartitionKey, fetchers: u64) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    (key.0.0, key.1).hash(&mut hasher);
    hasher.finish() % fetchers
}

/// The wait of a partition after an error. It ends early if its leader epoch changes.
#[derive(Clone, Copy, Debug)]
struct Wait {
    leader_epoch: i32,
    until: Duration,
    backoff: Duration,
}

/// The task of one source.
struct Fetcher {
    env: Env,
    local: BrokerId,
    leader: BrokerId,
    settings: FetcherSettings,
    brokers: Arc<Brokers>,
    source: Arc<Source>,
    peer: Option<Peer>,
    session: FollowerSession,
    waits: BTreeMap<PartitionKey, Wait>,
}

/// Waits until this time, or until there is something new to fetch.
async fn wait(env: &Env, source: &Source, added: u64, until: Option<Duration>) {
    let is_new = source.added.until(|now| *now != added);
    match until {
        None => _ = is_new.await,
        Some(until) => {
            tokio::select! {
                biased;
                _ = is_new => {}
                () = env.clock.sleep_until(until) => {}
            }
        }
    }
}

/// A partition in the current request.
struct Fetching {
    partition: Arc<Partition>,
    position: FetchPosition,
}

impl Fetcher {
    async fn run(mut self) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let added = self.source.added.get();
            let (fetching, next_try) = self.due();
            if fetching.is_empty() {
                self.session.restart();
                wait(&self.env, &self.source, added, next_try).await;
                continue;
            }
            match self.fetch(&fetching, next_try, added).await {
                // Something new came: ask again with it.
                None => {
                    self.peer = None;
                    self.session.restart();
                }
                Some(Ok(response)) => {
                    backoff = FIRST_BACKOFF;
                    self.process(response, &fetching).await;
                }
                Some(Err(error)) => {
                    tracing::debug!(leader = self.leader, %error, "cannot fetch from a leader");
                    self.peer = None;
                    self.session.restart();
                    let until = self.env.clock.monotonic() + backoff;
                    backoff = self.settings.longest_backoff.min(2 * backoff);
                    wait(&self.env, &self.source, added, Some(until)).await;
                }
            }
        }
    }

    /// The partitions to fetch now, and when the next of the others may be tried again.
    fn due(&mut self) -> (BTreeMap<PartitionKey, Fetching>, Option<Duration>) {
        let now = self.env.clock.monotonic();
        let partitions = lock::lock(&self.source.partitions).clone();
        self.waits.retain(|key, _| partitions.contains_key(key));
        let (mut due, mut next_try) = (BTreeMap::new(), None::<Duration>);
        for (key, partition) in partitions {
            let Some(position) = partition.fetch_position() else { continue };
            match self.waits.get(&key) {
                Some(wait) if wait.leader_epoch == position.from.current_leader_epoch && now < wait.until => {
                    next_try = Some(next_try.map_or(wait.until, |next| next.min(wait.until)));
                }
                _ => _ = due.insert(key, Fetching { partition, position }),
            }
        }
        (due, next_try)
    }

    /// Sends one request. Returns `None` if something new came meanwhile.
    async fn fetch(
        &mut self,
        fetching: &BTreeMap<PartitionKey, Fetching>,
        next_try: Option<Duration>,
        added: u64,
    ) -> Option<anyhow::Result<FetchResponse>> {
        let wanted = fetching.iter().map(|(key, fetching)| (*key, fetching.position)).collect();
        let named = self.session.request(&wanted, self.settings.partition_max_bytes);
        let now = self.env.clock.monotonic();
        let wait = next_try.map_or(self.settings.wait, |next| self.settings.wait.min(next.saturating_sub(now)));
        let request = FetchRequest {
            replica_id: self.local,
            replica_epoch: *lock::read(&self.brokers.own_epoch),
            max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: self.settings.min_bytes,
            max_bytes: self.settings.response_max_bytes,
            session_id: named.session_id,
            session_epoch: named.session_epoch,
            topics: named.topics,
            forgotten_topics: named.forgotten_topics,
            ..FetchRequest::default()
        };
        let (env, source) = (self.env.clone(), self.source.clone());
        let limit = wait + self.settings.timeout;
        let exchange = env.within(limit, async {
            self.connect().await?;
            let peer = self.peer.as_mut().ok_or_else(|| anyhow::anyhow!("the connection is gone"))?;
            let body = peer.exchange(Wire::new(FETCH, FETCH_VERSION, true), &request.encode(FETCH_VERSION)).await?;
            Ok::<_, anyhow::Error>(FetchResponse::decode(FETCH_VERSION, body)?)
        });
        tokio::select! {
            biased;
            response = exchange => Some(response.unwrap_or_else(|| Err(anyhow::anyhow!("no response within {limit:?}")))),
            _ = source.added.until(|now| *now != added) => None,
        }
    }

    async fn connect(&mut self) -> Result<(), anyhow::Error> {
        if self.peer.is_some() {
            return Ok(());
        }
        let endpoint = lock::read(&self.brokers.endpoints).get(&self.leader).cloned();
        let Some(Endpoint { host, port, .. }) = endpoint else {
            anyhow::bail!("broker {} has no listener {}", self.leader, self.settings.listener);
        };
        self.peer = Some(Peer::connect(&self.env, &host, port, "ottla-replica", MAX_RESPONSE_BYTES).await?);
        Ok(())
    }

    async fn process(&mut self, response: FetchResponse, fetching: &BTreeMap<PartitionKey, Fetching>) {
        if let Some(error) = ResponseError::try_from_code(response.error_code) {
            // The session has ended, for example because the leader has restarted.
            tracing::debug!(leader = self.leader, %error, "a fetch session has ended");
            return self.session.restart();
        }
        self.session.on_response(response.session_id);
        let now_ms = self.env.clock.now_ms();
        let mut flushes = Vec::new();
        for topic in response.topics {
            for data in topic.partitions {
                let key = (topic.topic_id, data.partition_index);
                let Some(Fetching { partition, position }) = fetching.get(&key) else { continue };
                match self.process_partition(key, partition, position.from, data, now_ms).await {
                    Ok(None) => _ = self.waits.remove(&key),
                    Ok(Some(flush_before)) => {
                        self.waits.remove(&key);
                        flushes.push(partition.flushed(flush_before, &self.env.tasks));
                    }
                    Err(error) => self.delay(key, partition, position.from.current_leader_epoch, &error),
                }
            }
        }
        // What a topic's settings demand to be durable is, before the next fetch says that it is here. A flush that
        // fails takes the log directory offline.
        join_all(flushes).await;
    }

    /// Returns the offset below which records must be flushed now.
    async fn process_partition(
        &mut self,
        key: PartitionKey,
        partition: &Arc<Partition>,
        from: FetchFrom,
        data: PartitionData,
        now_ms: i64,
    ) -> anyhow::Result<Option<Offset>> {
        // A response that says where the logs diverge has neither records nor watermarks of use (KAFKA-14704).
        if let Some(diverging) = data.diverging_epoch {
            if planted!("A1") {
                let (high_watermark, log_start_offset) = (data.high_watermark.max(from.offset), data.log_start_offset);
                let data = LeaderData { from, records: Bytes::new(), high_watermark, log_start_offset };
                partition.append_as_follower(data, now_ms)?;
            }
            let partition = partition.clone();
            let truncate = move || partition.truncate_to_leader(&from, (diverging.epoch, diverging.end_offset));
            self.env.tasks.blocking("truncate a log", truncate).await?;
            return Ok(None);
        }
        match ResponseError::try_from_code(data.error_code) {
            None => {
                let records = match data.records {
                    FetchedRecords::Memory(pieces) => pieces.into_iter().next().unwrap_or_default(),
                    FetchedRecords::Empty | FetchedRecords::File { .. } => Bytes::new(),
                };
                let (high_watermark, log_start_offset) = (data.high_watermark, data.log_start_offset);
                let data = LeaderData { from, records, high_watermark, log_start_offset };
                Ok(partition.append_as_follower(data, now_ms)?.flush_before)
            }
            Some(ResponseError::OffsetOutOfRange) => {
                let (start, end) =
                    (self.leader_offset(partition, &from, -2).await?, self.leader_offset(partition, &from, -1).await?);
                let partition = partition.clone();
                self.env.tasks.blocking("truncate a log", move || partition.continue_at(&from, start, end)).await?;
                Ok(None)
            }
            Some(_) if planted!("A15") => std::future::pending().await,
            Some(error) => {
                tracing::debug!(partition = ?key, %error, "the leader refuses a fetch");
                Err(error.into())
            }
        }
    }

    /// The leader's earliest (-2) or latest (-1) offset.
    async fn leader_offset(
        &mut self,
        partition: &Partition,
        from: &FetchFrom,
        timestamp: i64,
    ) -> anyhow::Result<Offset> {
        let name = partition.topic_partition();
        let wanted = ListOffsetsPartition::default()
            .with_partition_index(name.partition)
            .with_current_leader_epoch(from.current_leader_epoch)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(TopicName(StrBytes::from_string(name.topic.to_string())))
            .with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default().with_replica_id(WireBrokerId(self.local)).with_topics(vec![topic]);
        let (env, timeout) = (self.env.clone(), self.settings.timeout);
        let response = env.within(timeout, async {
            self.connect().await?;
            // A connection whose call does not end is not used again.
            let mut peer = self.peer.take().ok_or_else(|| anyhow::anyhow!("the connection is gone"))?;
            let response = peer.call(LIST_OFFSETS_VERSION, &request).await?;
            self.peer = Some(peer);
            Ok::<_, anyhow::Error>(response)
        });
        let response = response.await.ok_or_else(|| anyhow::anyhow!("no response within {timeout:?}"))??;
        let found = response.topics.first().and_then(|topic| topic.partitions.first());
        let found = found.ok_or(PeerError::OutOfStep)?;
        match ResponseError::try_from_code(found.error_code) {
            Some(error) => Err(error.into()),
            None => Ok(found.offset),
        }
    }

    /// A partition with an error waits, and the others go on (KAFKA-8346).
    fn delay(&mut self, key: PartitionKey, partition: &Partition, leader_epoch: i32, error: &anyhow::Error) {
        match error.downcast_ref::<PartitionError>() {
            Some(fault) if !is_expected(fault) => partition.report_failed_follow(fault, self.env.clock.monotonic()),
            _ => tracing::debug!(partition = %partition.topic_partition(), %error, "cannot follow a partition now"),
        }
        let backoff = match self.waits.get(&key) {
            Some(wait) if wait.leader_epoch == leader_epoch => self.settings.longest_backoff.min(2 * wait.backoff),
            _ => FIRST_BACKOFF,
        };
        let until = self.env.clock.monotonic() + backoff;
        self.waits.insert(key, Wait { leader_epoch, until, backoff });
    }
}

/// Errors that the broker has reported elsewhere, or that the end of a log causes.
fn is_expected(error: &PartitionError) -> bool {
    let (PartitionError::Storage(error) | PartitionError::Append(AppendError::Storage(error))) = error else {
        return false;
    };
    matches!(error, LogError::Closed { .. } | LogError::Deleted { .. } | LogError::DirOffline { .. })
}
