//! Fetches from the leaders of the partitions that this broker follows: one task for each leader's broker (and each of
//! `num.replica.fetchers`), with one connection and one fetch session.
//!
//! Owns the requests, the connection, and for each partition the wait after an error, so that one bad partition does
//! not stop the others. A new partition does not wait for the end of a long poll: the request is given up and sent
//! again with it, on a new connection and in the same session. The cost of a request is that of the partitions that
//! have changed, not of those that there are. Leaves all changes of the log to `follower.rs`, which checks that the
//! partition still follows in the epoch of the request.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, RwLock},
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
    context::ReplicaContext,
    follower::{Divergence, FetchPosition, LeaderData, truncate_to_leaders},
    follower_session::FollowerSession,
    isr::PartitionKey,
    partition::{FetchFrom, Partition, PartitionError},
};
use crate::{
    config::BrokerConfig,
    env::{Backoff, Env, Watched, lock},
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
/// A request that opens a session is given up for something new only after this time.
const OPENING_LIMIT: Duration = Duration::from_millis(500);
/// So many requests without a response between them are given up at once.
const GIVEN_UP_AT_ONCE: u32 = 5;

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
    context: Arc<ReplicaContext>,
    settings: FetcherSettings,
    assigned: Mutex<Assigned>,
    endpoints: Arc<RwLock<BTreeMap<BrokerId, Endpoint>>>,
}

struct Assigned {
    /// `num.replica.fetchers`.
    fetchers_per_source: u64,
    sources: BTreeMap<SourceKey, Arc<Source>>,
    partitions: BTreeMap<PartitionKey, SourceKey>,
}

/// The partitions that one task fetches.
#[derive(Default)]
struct Source {
    assignment: Mutex<Assignment>,
    /// Changes when there is something new to fetch, or when the task shall end.
    added: Watched<u64>,
}

#[derive(Default)]
struct Assignment {
    partitions: BTreeMap<PartitionKey, Arc<Partition>>,
    /// The partitions that were added, removed or got a new leader epoch since the task has looked.
    changed: BTreeSet<PartitionKey>,
    /// Those that cannot follow because of an error that does not pass by itself.
    failed: BTreeSet<PartitionKey>,
    /// The task shall end.
    is_over: bool,
}

impl Source {
    fn lock(&self) -> MutexGuard<'_, Assignment> {
        lock::lock(&self.assignment)
    }
}

impl Fetchers {
    pub(super) fn new(env: &Env, context: &Arc<ReplicaContext>, settings: FetcherSettings) -> Fetchers {
        let assigned = Assigned {
            fetchers_per_source: settings.fetchers_per_source,
            sources: BTreeMap::new(),
            partitions: BTreeMap::new(),
        };
        Fetchers {
            env: env.clone(),
            context: context.clone(),
            settings,
            assigned: Mutex::new(assigned),
            endpoints: Arc::default(),
        }
    }

    /// Takes over the addresses of brokers.
    pub(super) fn set_brokers(&self, image: &MetadataImage) {
        let endpoints = image
            .brokers
            .values()
            .filter_map(|broker| Some((broker.id, broker.endpoint(&self.settings.listener)?.clone())));
        *lock::write(&self.endpoints) = endpoints.collect();
    }

    /// Takes over `num.replica.fetchers`: spreads the partitions of each leader over that many tasks.
    pub(super) fn set_fetchers_per_source(&self, fetchers: u64) {
        let assigned = &mut *lock::lock(&self.assigned);
        if assigned.fetchers_per_source == fetchers {
            return;
        }
        assigned.fetchers_per_source = fetchers;
        for source in std::mem::take(&mut assigned.sources).into_values() {
            source.lock().is_over = true;
            source.added.update(|added| *added += 1);
            let moved = std::mem::take(&mut source.lock().partitions);
            for (key, partition) in moved {
                if let Some((leader, _)) = assigned.partitions.remove(&key) {
                    self.assign(assigned, key, &partition, leader);
                }
            }
        }
    }

    /// Fetches a partition from this leader from now on, in the leader epoch that the partition has.
    pub(super) fn follow(&self, key: PartitionKey, partition: &Arc<Partition>, leader: BrokerId) {
        self.assign(&mut lock::lock(&self.assigned), key, partition, leader);
    }

    fn assign(&self, assigned: &mut Assigned, key: PartitionKey, partition: &Arc<Partition>, leader: BrokerId) {
        let source = (leader, fetcher_of(key, assigned.fetchers_per_source));
        if assigned.partitions.get(&key).is_some_and(|before| *before != source) {
            assigned.remove(key);
        }
        assigned.partitions.insert(key, source);
        let task = assigned.sources.entry(source).or_insert_with(|| {
            let source = Arc::new(Source::default());
            let fetcher = Fetcher {
                env: self.env.clone(),
                context: self.context.clone(),
                leader,
                settings: self.settings.clone(),
                endpoints: self.endpoints.clone(),
                source: source.clone(),
                peer: None,
                session: FollowerSession::default(),
                fetching: BTreeMap::new(),
                changed: BTreeSet::new(),
                waits: BTreeMap::new(),
                given_up: 0,
            };
            self.env.tasks.spawn_until_stopped("fetch from a leader", fetcher.run());
            source
        });
        {
            let mut assignment = task.lock();
            assignment.partitions.insert(key, partition.clone());
            assignment.changed.insert(key);
        }
        task.added.update(|added| *added += 1);
    }

    /// The number of partitions that cannot follow because of an error that does not pass by itself.
    pub(super) fn failed_count(&self) -> usize {
        let sources: Vec<_> = lock::lock(&self.assigned).sources.values().cloned().collect();
        sources.iter().map(|source| source.lock().failed.len()).sum()
    }

    /// Fetches a partition no more: this broker leads it, or nobody does, or it is deleted.
    pub(super) fn unfollow(&self, key: PartitionKey) {
        lock::lock(&self.assigned).remove(key);
    }
}

impl Assigned {
    fn remove(&mut self, key: PartitionKey) {
        if let Some(source) = self.partitions.remove(&key).and_then(|source| self.sources.get(&source)) {
            let mut assignment = source.lock();
            assignment.partitions.remove(&key);
            assignment.failed.remove(&key);
            assignment.changed.insert(key);
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
    /// `None` while it is tried again.
    until: Option<Duration>,
    backoff: Backoff,
}

/// The task of one source.
struct Fetcher {
    env: Env,
    context: Arc<ReplicaContext>,
    leader: BrokerId,
    settings: FetcherSettings,
    endpoints: Arc<RwLock<BTreeMap<BrokerId, Endpoint>>>,
    source: Arc<Source>,
    peer: Option<Peer>,
    session: FollowerSession,
    /// The partitions of the session.
    fetching: BTreeMap<PartitionKey, Fetching>,
    /// Those whose position may have changed since the last request.
    changed: BTreeSet<PartitionKey>,
    waits: BTreeMap<PartitionKey, Wait>,
    /// How many requests were given up since the last response.
    given_up: u32,
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

/// A partition of the session, with the position that the leader knows.
#[derive(Clone)]
struct Fetching {
    partition: Arc<Partition>,
    position: FetchPosition,
}

impl Fetcher {
    async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_BACKOFF, self.settings.longest_backoff);
        loop {
            let added = self.source.added.get();
            if self.source.lock().is_over {
                return;
            }
            let next_try = self.take_changes();
            if self.session.is_empty() {
                self.session.restart();
                wait(&self.env, &self.source, added, next_try).await;
                continue;
            }
            match self.fetch(next_try, added).await {
                // Something new came: ask again with it. The request that waits at the leader keeps the connection.
                None => {
                    self.peer = None;
                    self.session.on_given_up();
                    self.given_up += 1;
                }
                Some(Ok(response)) => {
                    backoff.reset();
                    self.given_up = 0;
                    self.context.liveness.on_answer(self.leader);
                    self.process(response).await;
                }
                Some(Err(error)) => {
                    tracing::debug!(leader = self.leader, %error, "cannot fetch from a leader");
                    if error.downcast_ref::<PeerError>().is_some_and(PeerError::is_disconnect) {
                        self.context.liveness.on_lost(self.leader);
                    }
                    self.peer = None;
                    self.session.restart();
                    let until = self.env.clock.monotonic() + backoff.next_wait();
                    wait(&self.env, &self.source, added, Some(until)).await;
                }
            }
        }
    }

    /// Takes into the session what has changed: the assignment, the positions after a response, and waits that are
    /// over. Returns when the next partition that waits may be tried again.
    fn take_changes(&mut self) -> Option<Duration> {
        let now = self.env.clock.monotonic();
        let mut changed = std::mem::take(&mut self.changed);
        let mut assignment = self.source.lock();
        changed.append(&mut assignment.changed);
        let mut next_try = None::<Duration>;
        for (key, wait) in &self.waits {
            match wait.until {
                Some(until) if now < until => next_try = Some(next_try.map_or(until, |next| next.min(until))),
                Some(_) => _ = changed.insert(*key),
                None => {}
            }
        }
        let changed: Vec<_> = changed.into_iter().map(|key| (key, assignment.partitions.get(&key).cloned())).collect();
        drop(assignment);
        for (key, partition) in changed {
            self.take_change(key, partition, now);
        }
        next_try
    }

    fn take_change(&mut self, key: PartitionKey, partition: Option<Arc<Partition>>, now: Duration) {
        let fetching = partition.and_then(|partition| {
            let position = partition.fetch_position()?;
            Some(Fetching { partition, position })
        });
        let Some(fetching) = fetching else {
            self.waits.remove(&key);
            return self.stop(key);
        };
        if let Some(wait) = self.waits.get_mut(&key) {
            if wait.leader_epoch != fetching.position.from.current_leader_epoch {
                self.waits.remove(&key);
            } else if wait.until.is_some_and(|until| now < until) {
                return self.stop(key);
            } else {
                wait.until = None;
            }
        }
        self.session.set(key, &fetching.position, self.settings.partition_max_bytes);
        self.fetching.insert(key, fetching);
    }

    /// Removes a partition from the session.
    fn stop(&mut self, key: PartitionKey) {
        self.fetching.remove(&key);
        self.session.remove(key);
    }

    /// Sends one request. Returns `None` if something new came meanwhile.
    async fn fetch(&mut self, next_try: Option<Duration>, added: u64) -> Option<anyhow::Result<FetchResponse>> {
        let opens_session = self.session.opens_session();
        let named = self.session.request();
        let now = self.env.clock.monotonic();
        let wait = match next_try {
            // The leader answers at once, so that nobody gives the request up before it knows the session.
            _ if opens_session => Duration::ZERO,
            Some(next) => self.settings.wait.min(next.saturating_sub(now)),
            None => self.settings.wait,
        };
        let request = FetchRequest {
            replica_id: self.context.local,
            replica_epoch: self.context.own_epoch(),
            max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: self.settings.min_bytes,
            max_bytes: self.settings.response_max_bytes,
            session_id: named.session_id,
            session_epoch: named.session_epoch,
            topics: named.topics,
            forgotten_topics: named.forgotten_topics,
            ..FetchRequest::default()
        };
        let (env, clock, source) = (self.env.clone(), self.env.clock.clone(), self.source.clone());
        let limit = wait + self.settings.timeout;
        // If new partitions come all the time, responses must come nevertheless.
        let patience = match self.given_up.saturating_sub(GIVEN_UP_AT_ONCE) {
            0 if opens_session => OPENING_LIMIT,
            0 => Duration::ZERO,
            more => (OPENING_LIMIT * (1 << more.min(10))).min(limit),
        };
        let exchange = env.within(limit, async {
            self.connect().await?;
            let peer = self.peer.as_mut().ok_or_else(|| anyhow::anyhow!("the connection is gone"))?;
            let body = peer.exchange(Wire::new(FETCH, FETCH_VERSION, true), &request.encode(FETCH_VERSION)).await?;
            Ok::<_, anyhow::Error>(FetchResponse::decode(FETCH_VERSION, body)?)
        });
        let given_up = async {
            source.added.until(|now| *now != added).await;
            clock.sleep_until(clock.monotonic() + patience).await;
        };
        tokio::select! {
            biased;
            response = exchange => Some(response.unwrap_or_else(|| Err(anyhow::anyhow!("no response within {limit:?}")))),
            () = given_up => None,
        }
    }

    async fn connect(&mut self) -> Result<(), anyhow::Error> {
        if self.peer.is_some() {
            return Ok(());
        }
        let endpoint = lock::read(&self.endpoints).get(&self.leader).cloned();
        let Some(Endpoint { host, port, .. }) = endpoint else {
            anyhow::bail!("broker {} has no listener {}", self.leader, self.settings.listener);
        };
        self.peer = Some(Peer::connect(&self.env, &host, port, "ottla-replica", MAX_RESPONSE_BYTES).await?);
        Ok(())
    }

    async fn process(&mut self, response: FetchResponse) {
        if let Some(error) = ResponseError::try_from_code(response.error_code) {
            // The session has ended, for example because the leader has restarted.
            tracing::debug!(leader = self.leader, %error, "a fetch session has ended");
            return self.session.restart();
        }
        self.session.on_response(response.session_id);
        let now_ms = self.env.clock.now_ms();
        let (mut flushes, mut diverged) = (Vec::new(), Vec::new());
        for topic in response.topics {
            for data in topic.partitions {
                let key = (topic.topic_id, data.partition_index);
                let Some(Fetching { partition, position }) = self.fetching.get(&key).cloned() else { continue };
                self.changed.insert(key);
                // A response that says where the logs diverge has neither records nor watermarks of use (KAFKA-14704).
                if let Some(diverging) = &data.diverging_epoch {
                    if planted!("A1") {
                        let high_watermark = data.high_watermark.max(position.from.offset);
                        let (from, log_start_offset) = (position.from, data.log_start_offset);
                        let data = LeaderData { from, records: Bytes::new(), high_watermark, log_start_offset };
                        let _ = partition.append_as_follower(data, now_ms);
                    }
                    let (leader_epoch, leader_end_offset) = (diverging.epoch, diverging.end_offset);
                    diverged
                        .push((key, Divergence { partition, from: position.from, leader_epoch, leader_end_offset }));
                    continue;
                }
                match self.process_partition(key, &partition, position.from, data, now_ms).await {
                    Ok(flush_before) => {
                        self.on_success(key);
                        if let Some(before) = flush_before {
                            let flush = partition.flushed(before, &self.env.tasks);
                            flushes.push(async move { (key, position.from, partition, flush.await) });
                        }
                    }
                    Err(error) => self.delay(key, &partition, position.from.current_leader_epoch, &error),
                }
            }
        }
        // What a topic's settings demand to be durable is, before the next fetch says that it is here. A flush that
        // fails takes the log directory offline, or finds no space.
        for (key, from, partition, flushed) in join_all(flushes).await {
            if let Err(error) = flushed {
                self.delay(key, &partition, from.current_leader_epoch, &anyhow::anyhow!(error));
            }
        }
        self.truncate(diverged).await;
    }

    async fn truncate(&mut self, diverged: Vec<(PartitionKey, Divergence)>) {
        if diverged.is_empty() {
            return;
        }
        let (keys, divergences): (Vec<_>, Vec<_>) = diverged.into_iter().unzip();
        let of = keys.into_iter().zip(&divergences);
        let of: Vec<_> = of.map(|(key, of)| (key, of.partition.clone(), of.from.current_leader_epoch)).collect();
        let truncate = move || truncate_to_leaders(&divergences);
        let results = self.env.tasks.blocking("truncate logs", truncate).await;
        for ((key, partition, leader_epoch), result) in of.into_iter().zip(results) {
            match result {
                Ok(()) => self.on_success(key),
                Err(error) => self.delay(key, &partition, leader_epoch, &error.into()),
            }
        }
    }

    fn on_success(&mut self, key: PartitionKey) {
        if self.waits.remove(&key).is_some() {
            self.source.lock().failed.remove(&key);
        }
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
        let request =
            ListOffsetsRequest::default().with_replica_id(WireBrokerId(self.context.local)).with_topics(vec![topic]);
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
            Some(fault) if !is_expected(fault) => {
                self.source.lock().failed.insert(key);
                partition.report_failed_follow(fault, self.env.clock.monotonic());
            }
            _ => tracing::debug!(partition = %partition.topic_partition(), %error, "cannot follow a partition now"),
        }
        let mut backoff = match self.waits.get(&key) {
            Some(wait) if wait.leader_epoch == leader_epoch => wait.backoff,
            _ => Backoff::new(FIRST_BACKOFF, self.settings.longest_backoff),
        };
        let until = Some(self.env.clock.monotonic() + backoff.next_wait());
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
