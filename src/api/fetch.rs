//! Fetch (key 1): returns record batches from an offset on, as they are on disk.
//!
//! Behavior: F1–F9, F11, F13. The partitions of the fetch session are read in turn, within the byte limits. If there is
//! too little data, the request waits until a watermark moves and reads again, until there is enough data or
//! `max_wait_ms` has passed. Reads that may wait for a disk run on the blocking pool.
//! A request of a follower is read up to the log end offset. It also ends when the high watermark is above the one that
//! the follower knows (KIP-1166). With a session it reads only the partitions that have changed.
//! Version notes: sessions from version 7 on (KIP-227), epochs 9 (KIP-320), diverging epochs 12, topic
//! ids 13 (KIP-516), the current leader 16 (KIP-951).

use std::{sync::Arc, time::Duration};

use kafka_protocol::{
    error::{ParseResponseErrorCode, ResponseError},
    protocol::StrBytes,
};

use super::{
    ListenerKind, RequestContext,
    authorized::{AuthorizedTopic, Operation, partition_of},
    errors,
    groups::kept,
    leader_hints::LeaderHints,
    metadata_fetch,
    topics::MAX_NAME_BYTES,
};
use crate::{
    env::{Env, Tasks},
    log::Records,
    metrics::TopicCounters,
    protocol::fetch::{
        AbortedTransaction, EpochEndOffset, FetchRequest, FetchResponse, FetchTopic, FetchableTopicResponse,
        FetchedRecords, NodeEndpoint, PartitionData,
    },
    replica::{
        FetchIsolation, Partition, PartitionError,
        fetch_session::{FetchContext, FetchKey, PartitionRequest, PartitionUpdate, SessionError},
        partition::FetchFrom,
        replica_manager::LocalTopic,
        waiters::Waiter,
    },
    types::BrokerId,
};

/// From this version on topics are named by id.
const FIRST_WITH_TOPIC_IDS: i16 = 13;
/// F14: the replica id of a consumer that reads from any replica.
const DEBUGGING_CONSUMER: i32 = -2;
/// From this version on responses name current leaders (KIP-951).
const FIRST_WITH_LEADERS: i16 = 16;
/// Up to this version clients do not know KAFKA_STORAGE_ERROR (F11).
const LAST_WITHOUT_STORAGE_ERROR: i16 = 5;

pub(crate) async fn handle(mut ctx: RequestContext, request: FetchRequest) -> FetchResponse {
    if ctx.connection.kind == ListenerKind::Controller {
        return Box::pin(metadata_fetch::handle(ctx, request)).await;
    }
    let clock = ctx.env().clock.clone();
    let start = clock.monotonic();
    let is_follower = request.replica_id >= 0;
    if is_follower {
        ctx.on_follower_fetch(request.replica_id);
    }
    let mut context = match begin(&ctx, &request, start) {
        Ok(context) => context,
        Err(error) => return FetchResponse { error_code: session_error(error).code(), ..Default::default() },
    };
    let mut fetch = Fetch::new(&ctx, &request, &context);
    let deadline = start + Duration::from_millis(request.max_wait_ms.max(0) as u64);
    let refused_topics: Vec<_> = refused_topics(&request).collect();
    // The request's data was copied, so its memory is released before the wait for records.
    drop(request);
    ctx.release_request_memory();
    let found = match context.changed().is_some() {
        true => fetch.read_changed_until(&ctx, &mut context, deadline).await,
        false => fetch.read_until(deadline).await,
    };
    fetch.count(&found, &ctx.metrics().topics);
    let updates = fetch.updates(&found);
    let (session_id, included) = ctx.fetch_sessions().finish(&context, &updates, clock.monotonic());
    let mut topics = by_topic(&context, found.partitions, included);
    topics.extend(refused_topics);
    let mut node_endpoints = name_leaders(&ctx, &mut topics);
    if is_follower {
        // Brokers know each other.
        node_endpoints.clear();
        ctx.on_follower_answered();
    }
    FetchResponse { session_id, topics, node_endpoints, ..Default::default() }
}

/// Names the leaders of partitions that the client expects elsewhere. Returns the leaders' addresses.
fn name_leaders(ctx: &RequestContext, topics: &mut [FetchableTopicResponse]) -> Vec<NodeEndpoint> {
    if ctx.api_version < FIRST_WITH_LEADERS {
        return Vec::new();
    }
    let mut hints = LeaderHints::new(ctx);
    for topic in topics {
        for data in &mut topic.partitions {
            data.current_leader = hints.of(data.error_code, &topic.name, topic.topic_id, data.partition_index);
        }
    }
    hints.into_endpoints()
}

fn session_error(error: SessionError) -> ResponseError {
    match error {
        SessionError::NotFound => ResponseError::FetchSessionIdNotFound,
        SessionError::InvalidEpoch => ResponseError::InvalidFetchSessionEpoch,
        SessionError::TopicIdMix => ResponseError::FetchSessionTopicIdError,
    }
}

fn begin(ctx: &RequestContext, request: &FetchRequest, now: Duration) -> Result<FetchContext, SessionError> {
    let kind = (ctx.api_version >= FIRST_WITH_TOPIC_IDS, request.replica_id >= 0);
    let Named { wanted, forgotten } = named(request);
    ctx.fetch_sessions().begin(request.session_id, request.session_epoch, wanted, &forgotten, kind, now)
}

/// The partitions that a request names, and those that it removes from its fetch session.
struct Named {
    wanted: Vec<(FetchKey, PartitionRequest)>,
    forgotten: Vec<FetchKey>,
}

/// Copies each topic name once for all its partitions. Names that are too long for a topic are skipped.
fn named(request: &FetchRequest) -> Named {
    let count = |topic: &FetchTopic| if has_valid_length(&topic.name) { topic.partitions.len() } else { 0 };
    let mut wanted = Vec::with_capacity(request.topics.iter().map(count).sum());
    for topic in request.topics.iter().filter(|topic| has_valid_length(&topic.name)) {
        let name = kept(&topic.name);
        wanted.extend(topic.partitions.iter().map(|partition| {
            let from = FetchFrom {
                offset: partition.fetch_offset,
                // Every negative epoch means no epoch here (`FetchRequest.optionalEpoch`).
                current_leader_epoch: partition.current_leader_epoch.max(-1),
                last_fetched_epoch: partition.last_fetched_epoch,
            };
            (
                FetchKey { topic: name.clone(), topic_id: topic.topic_id, partition: partition.partition },
                PartitionRequest {
                    from,
                    max_bytes: partition.partition_max_bytes,
                    known_high_watermark: partition.high_watermark,
                },
            )
        }));
    }
    let mut forgotten = Vec::new();
    for topic in request.forgotten_topics.iter().filter(|topic| has_valid_length(&topic.name)) {
        let name = kept(&topic.name);
        let key = |partition: &i32| FetchKey { topic: name.clone(), topic_id: topic.topic_id, partition: *partition };
        forgotten.extend(topic.partitions.iter().map(key));
    }
    Named { wanted, forgotten }
}

fn has_valid_length(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
}

/// Returns errors for the topics whose name is too long. Fetch sessions do not store them.
fn refused_topics(request: &FetchRequest) -> impl Iterator<Item = FetchableTopicResponse> {
    let topics = request.topics.iter().filter(|topic| !has_valid_length(&topic.name));
    topics.map(|topic| FetchableTopicResponse {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| not_read(partition.partition, ResponseError::UnknownTopicOrPartition))
            .collect(),
    })
}

/// Returns an error for a partition that is not read. Kafka then leaves the default, an empty list and not null.
fn not_read(index: i32, error: ResponseError) -> PartitionData {
    PartitionData { aborted_transactions: Some(Vec::new()), ..PartitionData::error(index, error.code()) }
}

fn authorize(ctx: &RequestContext, key: &FetchKey) -> Result<AuthorizedTopic, ResponseError> {
    if key.topic_id.is_zero() {
        ctx.topic(Operation::Read, &key.topic)
    } else {
        ctx.topic_by_id(Operation::Read, key.topic_id)
    }
}

/// The data of a fetch. It is owned, so that it can move to the blocking pool.
#[derive(Clone)]
struct Fetch {
    partitions: Arc<Vec<Target>>,
    env: Env,
    network: Tasks,
    isolation: FetchIsolation,
    /// The follower and its broker epoch; `None` for a consumer.
    follower: Option<(BrokerId, i64)>,
    /// F14: followers answer, too.
    any_replica: bool,
    max_bytes: usize,
    min_bytes: usize,
    api_version: i16,
}

struct Target {
    /// `None` if this broker does not host the topic.
    topic: Option<Arc<LocalTopic>>,
    partition: Result<Arc<Partition>, ResponseError>,
    index: i32,
    wanted: PartitionRequest,
}

impl Target {
    /// False for unknown partitions. They are reported when the wait ends, as in `KafkaApis.handleFetchRequest`, so
    /// that a client with stale metadata does not fetch in a busy loop.
    fn is_read(&self) -> bool {
        !matches!(self.partition, Err(ResponseError::UnknownTopicOrPartition | ResponseError::UnknownTopicId))
    }
}

/// The result of one pass over the partitions.
#[derive(Default)]
struct Found {
    partitions: Vec<PartitionData>,
    /// For each partition whether the follower that reads has all of it.
    settled: Vec<bool>,
    bytes: usize,
    /// There is an error or a diverging epoch, so the response is sent at once.
    is_urgent: bool,
}

/// The partitions of the context, as they are on this broker. The partitions of a topic mostly follow each other, so
/// each run of them takes one lookup.
fn targets(ctx: &RequestContext, context: &FetchContext) -> Vec<Target> {
    let by_id = ctx.api_version >= FIRST_WITH_TOPIC_IDS;
    let mut last: Option<(&FetchKey, Result<AuthorizedTopic, ResponseError>)> = None;
    let targets = context.partitions.iter().map(|(key, wanted)| {
        let topic = if by_id && key.topic_id.is_zero() {
            Err(ResponseError::UnknownTopicId)
        } else {
            let is_same =
                last.as_ref().is_some_and(|(last, _)| last.topic_id == key.topic_id && last.topic == key.topic);
            if !is_same {
                last = None;
            }
            let (_, topic) = last.get_or_insert_with(|| (key, authorize(ctx, key)));
            topic.clone()
        };
        let partition = partition_of(&topic, key.partition);
        if let (Some(changed), Ok(partition)) = (context.changed(), &partition) {
            partition.observe(changed);
        }
        let topic = topic.and_then(|topic| topic.local().cloned());
        Target { topic: topic.ok(), partition, index: key.partition, wanted: *wanted }
    });
    targets.collect()
}

impl Fetch {
    fn new(ctx: &RequestContext, request: &FetchRequest, context: &FetchContext) -> Fetch {
        let follower = (request.replica_id >= 0).then_some((request.replica_id, request.replica_epoch));
        Fetch {
            partitions: Arc::new(targets(ctx, context)),
            env: ctx.env().clone(),
            network: ctx.network().clone(),
            isolation: match (follower, request.isolation_level) {
                (Some(_), _) => FetchIsolation::LogEnd,
                (None, 1) => FetchIsolation::LastStable,
                (None, _) => FetchIsolation::HighWatermark,
            },
            follower,
            any_replica: request.replica_id == DEBUGGING_CONSUMER,
            max_bytes: request.max_bytes.min(ctx.config().fetch_max_bytes).max(0) as usize,
            min_bytes: request.min_bytes.max(0) as usize,
            api_version: ctx.api_version,
        }
    }

    /// F1: reads until there is enough data, an error or a diverging epoch, or the deadline has passed. It reads again
    /// only when a partition has changed.
    async fn read_until(&self, deadline: Duration) -> Found {
        let clock = &self.env.clock;
        let mut wait = None;
        loop {
            let changes = self.changes();
            let found = self.read().await;
            if self.is_enough(&found) || clock.monotonic() >= deadline {
                return found;
            }
            // If there are too few records, they are dropped and read again, so that the wait holds no memory and no
            // file.
            let found = Some(found).filter(|found| found.bytes == 0);
            let (waiter, timeout) = wait.get_or_insert_with(|| (Waiter::new(), clock.sleep_until(deadline)));
            for partition in self.readable() {
                partition.register(waiter, self.isolation);
            }
            // A change before the registration does not wake the waiter, so check again.
            if self.changes() != changes {
                continue;
            }
            tokio::select! {
                biased;
                () = waiter.woken() => continue,
                () = timeout => {}
                () = self.network.stopping() => {}
            }
            return match found {
                Some(found) => found,
                None => self.read().await,
            };
        }
    }

    /// As [`Fetch::read_until`], for a follower's session: reads only the partitions that have changed.
    async fn read_changed_until(
        &mut self,
        ctx: &RequestContext,
        context: &mut FetchContext,
        deadline: Duration,
    ) -> Found {
        let clock = self.env.clock.clone();
        let mut timeout = clock.sleep_until(deadline);
        let mut is_wanted = false;
        loop {
            let found = self.read().await;
            let is_over = is_wanted || clock.monotonic() >= deadline || self.network.is_stopping();
            if found.is_urgent || found.bytes >= self.min_bytes || is_over {
                return found;
            }
            if !context.settle(&self.updates(&found)) {
                return Found::default();
            }
            drop(found);
            tokio::select! {
                biased;
                () = context.has_changed() => {}
                () = ctx.follower_answer_wanted() => is_wanted = true,
                () = &mut timeout => {}
                () = self.network.stopping() => {}
            }
            if !context.take_changed() {
                return Found::default();
            }
            self.partitions = Arc::new(targets(ctx, context));
        }
    }

    /// What the fetch session must know of each partition.
    fn updates(&self, found: &Found) -> Vec<PartitionUpdate> {
        let read = self.partitions.iter().zip(&found.partitions).zip(&found.settled);
        read.map(|((target, data), is_settled)| update_of(&target.wanted, data, *is_settled)).collect()
    }

    /// The number of changes of all partitions.
    fn changes(&self) -> u64 {
        self.readable().map(|partition| partition.changes(self.isolation)).fold(0, u64::wrapping_add)
    }

    fn readable(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.partitions.iter().filter_map(|target| target.partition.as_ref().ok())
    }

    /// Like `ReplicaManager.readFromLog`: errors that clients handle themselves do not count as failed requests.
    fn count(&self, found: &Found, all: &TopicCounters) {
        for (target, data) in self.partitions.iter().zip(&found.partitions) {
            let Some(topic) = target.topic.as_ref().filter(|_| target.is_read()) else { continue };
            let bytes = data.records.size_bytes() as u64;
            let failed = !matches!(
                data.error_code.err(),
                None | Some(
                    ResponseError::NotLeaderOrFollower
                        | ResponseError::UnknownLeaderEpoch
                        | ResponseError::FencedLeaderEpoch
                        | ResponseError::OffsetOutOfRange
                        | ResponseError::KafkaStorageError
                )
            );
            for counters in [all, &topic.counters] {
                counters.total_fetch_requests.add(1);
                counters.bytes_out.add(bytes);
                counters.failed_fetch_requests.add(failed.into());
            }
        }
    }

    fn is_enough(&self, found: &Found) -> bool {
        // linear: once per pass, which visits all partitions anyway
        !self.partitions.iter().any(Target::is_read) || found.is_urgent || found.bytes >= self.min_bytes
    }

    async fn read(&self) -> Found {
        if let Some(found) = self.pass(false) {
            return found;
        }
        let fetch = self.clone();
        self.env
            .tasks
            .blocking("fetch", move || fetch.pass(true).unwrap_or_else(|| unreachable!("this pass may block")))
            .await
    }

    /// Reads all partitions in turn (F2). Returns `None` if this needs I/O and `may_wait` is false.
    fn pass(&self, may_wait: bool) -> Option<Found> {
        let count = self.partitions.len();
        let mut found =
            Found { partitions: Vec::with_capacity(count), settled: Vec::with_capacity(count), ..Found::default() };
        for target in self.partitions.iter() {
            let (data, is_settled) = self.read_partition(target, &found, may_wait)?;
            found.settled.push(is_settled);
            found.bytes += data.records.size_bytes();
            found.is_urgent |= target.is_read() && data.error_code != 0
                || data.diverging_epoch.is_some()
                || data.high_watermark > target.wanted.known_high_watermark;
            found.partitions.push(data);
        }
        Some(found)
    }

    /// Returns also whether a follower has all of the partition.
    fn read_partition(&self, target: &Target, found: &Found, may_wait: bool) -> Option<(PartitionData, bool)> {
        let refused =
            |error| Some((PartitionData::error(target.index, known_since(self.api_version, error).code()), false));
        let partition = match &target.partition {
            Ok(partition) => partition,
            Err(error) if !target.is_read() => return Some((not_read(target.index, *error), false)),
            Err(error) => return refused(*error),
        };
        let max_bytes = self.max_bytes.saturating_sub(found.bytes).min(target.wanted.max_bytes.max(0) as usize);
        match self.read_from(partition, target, max_bytes, found.bytes == 0, may_wait) {
            Ok(data) => data,
            Err(error) => {
                let code = errors::partition(&error);
                if matches!(code, ResponseError::KafkaStorageError | ResponseError::CorruptMessage) {
                    partition.report_failed_read(&error, self.env.clock.monotonic());
                }
                refused(code)
            }
        }
    }

    fn read_from(
        &self,
        partition: &Partition,
        target: &Target,
        max_bytes: usize,
        min_one_batch: bool,
        may_wait: bool,
    ) -> Result<Option<(PartitionData, bool)>, PartitionError> {
        let from = &target.wanted.from;
        let read = match self.follower {
            Some(follower) => partition.read_for_follower(from, max_bytes, min_one_batch, follower)?,
            None if self.any_replica => partition.read_any_replica(from, max_bytes, self.isolation, min_one_batch)?,
            None => partition.read(from, max_bytes, self.isolation, min_one_batch)?,
        };
        let mut data = PartitionData {
            error_code: 0,
            high_watermark: read.watermarks.high_watermark,
            last_stable_offset: read.watermarks.last_stable_offset,
            log_start_offset: read.watermarks.log_start_offset,
            diverging_epoch: read.diverging_epoch.map(|(epoch, end_offset)| EpochEndOffset { epoch, end_offset }),
            ..PartitionData::error(target.index, 0)
        };
        let Some(plan) = read.plan else { return Ok(Some((data, read.is_settled))) };
        let records = match plan.from_memory() {
            Some(records) => records,
            None if may_wait => plan.records()?,
            None => return Ok(None),
        };
        if self.isolation == FetchIsolation::LastStable {
            let aborted = plan.aborted_transactions(read.watermarks.last_stable_offset)?;
            let aborted = aborted.into_iter().map(|aborted| AbortedTransaction {
                producer_id: aborted.producer_id,
                first_offset: aborted.first_offset,
            });
            data.aborted_transactions = Some(aborted.collect());
        }
        data.records = match records {
            Records::Empty => FetchedRecords::Empty,
            Records::Memory(pieces) => FetchedRecords::Memory(pieces),
            Records::File { file, position, length } => FetchedRecords::File { file, position, length },
        };
        Ok(Some((data, read.is_settled)))
    }
}

fn update_of(wanted: &PartitionRequest, data: &PartitionData, is_settled: bool) -> PartitionUpdate {
    let has_records = data.records.size_bytes() > 0;
    let is_error = data.error_code != 0;
    PartitionUpdate {
        // A follower says which high watermark it knows, so that a response that was lost does not matter.
        must_include: has_records
            || is_error
            || data.diverging_epoch.is_some()
            || data.high_watermark > wanted.known_high_watermark,
        has_records,
        is_error,
        high_watermark: data.high_watermark,
        log_start_offset: data.log_start_offset,
        is_settled,
    }
}

/// Groups the partitions of the response by topic, in the order of the context.
fn by_topic(
    context: &FetchContext,
    partitions: Vec<PartitionData>,
    included: Vec<bool>,
) -> Vec<FetchableTopicResponse> {
    let mut topics: Vec<FetchableTopicResponse> = Vec::new();
    let told = context.partitions.iter().zip(partitions).zip(included).filter(|(_, told)| *told);
    for (((key, _), data), _) in told {
        match topics.last_mut() {
            Some(topic) if topic.name.as_str() == &*key.topic && topic.topic_id == key.topic_id => {
                topic.partitions.push(data)
            }
            _ => topics.push(FetchableTopicResponse {
                name: StrBytes::from_string(key.topic.to_string()),
                topic_id: key.topic_id,
                partitions: vec![data],
            }),
        }
    }
    topics
}

/// F11: returns an error that a client of this version knows. The substitute makes the client refresh its metadata.
fn known_since(api_version: i16, error: ResponseError) -> ResponseError {
    match error {
        ResponseError::KafkaStorageError if api_version <= LAST_WITHOUT_STORAGE_ERROR => {
            ResponseError::NotLeaderOrFollower
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::Pin, task::Poll};

    use super::*;
    use crate::{
        env::Clock,
        protocol::fetch::{FetchPartition, ForgottenTopic},
        replica::partition::tests::{append, led_partition},
        sim::SimClock,
        types::TopicId,
    };

    /// A fetch of one partition from offset 0, and its clock.
    fn waiting_fetch(partition: &Arc<Partition>, min_bytes: usize) -> (Fetch, SimClock) {
        let clock = SimClock::new(0);
        let from = FetchFrom { offset: 0, current_leader_epoch: -1, last_fetched_epoch: -1 };
        let target = Target {
            topic: None,
            partition: Ok(partition.clone()),
            index: 0,
            wanted: PartitionRequest { from, max_bytes: 1 << 20, known_high_watermark: i64::MAX },
        };
        let fetch = Fetch {
            partitions: Arc::new(vec![target]),
            env: Env { clock: Arc::new(clock.clone()), ..Env::system() },
            network: Tasks::new(),
            isolation: FetchIsolation::HighWatermark,
            follower: None,
            any_replica: false,
            max_bytes: 1 << 20,
            min_bytes,
            api_version: 12,
        };
        (fetch, clock)
    }

    async fn poll(read: &mut Pin<&mut impl Future<Output = Found>>) -> Option<Found> {
        std::future::poll_fn(|context| match read.as_mut().poll(context) {
            Poll::Ready(found) => Poll::Ready(Some(found)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    const WAIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn f1_a_fetch_that_waits_ends_with_the_next_record() {
        let partition = led_partition(Default::default());
        let (fetch, clock) = waiting_fetch(&partition, 1);
        let mut read = std::pin::pin!(fetch.read_until(clock.monotonic() + WAIT));
        assert!(poll(&mut read).await.is_none());
        append(&partition);
        let found = poll(&mut read).await.expect("the new record must end the wait");
        assert!(found.bytes > 0);
        assert_eq!(found.partitions[0].high_watermark, 1);
    }

    #[tokio::test]
    async fn f1_too_few_records_are_returned_when_the_time_is_over() {
        let partition = led_partition(Default::default());
        for appended_first in [false, true] {
            let (fetch, clock) = waiting_fetch(&partition, 1 << 20);
            let mut read = std::pin::pin!(fetch.read_until(clock.monotonic() + WAIT));
            assert!(poll(&mut read).await.is_none());
            if !appended_first {
                append(&partition);
                assert!(poll(&mut read).await.is_none());
            }
            clock.advance(WAIT);
            let found = poll(&mut read).await.expect("the deadline must end the wait");
            assert!(found.bytes > 0);
        }
    }

    #[tokio::test]
    async fn f1_a_fetch_that_waits_hears_of_the_end_of_leadership() {
        let partition = led_partition(Default::default());
        let (fetch, clock) = waiting_fetch(&partition, 1);
        let mut read = std::pin::pin!(fetch.read_until(clock.monotonic() + WAIT));
        assert!(poll(&mut read).await.is_none());
        partition.resign();
        let found = poll(&mut read).await.expect("the end of leadership must end the wait");
        assert_eq!(found.partitions[0].error_code, ResponseError::NotLeaderOrFollower.code());
    }

    /// If a record arrives after the first read and before the registration, the fetch must not start to wait.
    #[tokio::test]
    async fn f1_a_record_that_comes_between_the_read_and_the_wait_is_found() {
        for _ in 0..200 {
            let partition = led_partition(Default::default());
            let (fetch, clock) = waiting_fetch(&partition, 1);
            let deadline = clock.monotonic() + WAIT;
            let appending = partition.clone();
            let appended = tokio::task::spawn_blocking(move || _ = append(&appending));
            let reading = tokio::time::timeout(Duration::from_secs(30), fetch.read_until(deadline));
            let found = reading.await.expect("the change must not be lost");
            assert!(found.bytes > 0);
            appended.await.unwrap();
        }
    }

    #[test]
    fn a_name_is_kept_once_and_an_impossible_one_not_at_all() {
        let long = StrBytes::from_string("x".repeat(MAX_NAME_BYTES + 1));
        let name = StrBytes::from_string("x".repeat(MAX_NAME_BYTES));
        let topic = |name: &StrBytes| FetchTopic {
            name: name.clone(),
            topic_id: TopicId::ZERO,
            partitions: vec![FetchPartition { partition: 7, ..Default::default() }; 2],
        };
        let forgotten_topic =
            |name: &StrBytes| ForgottenTopic { name: name.clone(), topic_id: TopicId::ZERO, partitions: vec![1, 2] };
        let request = FetchRequest {
            topics: vec![topic(&long), topic(&name)],
            forgotten_topics: vec![forgotten_topic(&long), forgotten_topic(&name)],
            ..Default::default()
        };
        let Named { wanted, forgotten } = named(&request);
        let [(first, _), (second, _)] = &wanted[..] else { panic!("{} wanted", wanted.len()) };
        assert!(Arc::ptr_eq(&first.topic, &second.topic));
        let [first, second] = &forgotten[..] else { panic!("{} forgotten", forgotten.len()) };
        assert!(Arc::ptr_eq(&first.topic, &second.topic));
        let refused: Vec<_> = refused_topics(&request).collect();
        let codes = refused[0].partitions.iter().map(|data| (data.partition_index, data.error_code));
        assert_eq!((refused.len(), &refused[0].name, codes.collect::<Vec<_>>()), (1, &long, vec![(7, 3), (7, 3)]));
    }

    #[test]
    fn f11_old_clients_hear_of_another_leader_instead_of_a_broken_disk() {
        use ResponseError::{KafkaStorageError, NotLeaderOrFollower, OffsetOutOfRange};
        assert_eq!(
            [4, 5, 6, 18].map(|version| known_since(version, KafkaStorageError)),
            [NotLeaderOrFollower, NotLeaderOrFollower, KafkaStorageError, KafkaStorageError]
        );
        assert_eq!(known_since(4, OffsetOutOfRange), OffsetOutOfRange);
    }
}
