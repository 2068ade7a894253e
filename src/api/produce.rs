//! Produce (key 0): appends the record batches of a producer in the order in which they arrive.
//!
//! Behavior: P1–P12, I1–I5. A request runs in its connection's task: it validates and appends the batches one after
//! the other, then waits once for all of them. A batch that takes long to validate is validated in another task; the
//! next request of the connection starts when the last batch is appended. Batches are not copied, and records are only
//! decoded for validation.
//! Deviations: transactional batches are refused with INVALID_TXN_STATE (without a transactional id as Kafka does),
//! because there is no transaction coordinator yet.
//! Version notes: the current leader from version 10 on (KIP-951), topic ids from 13 on (KIP-516).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use super::{
    RequestContext,
    authorized::{AuthorizedTopic, Operation},
    errors,
    leader_hints::LeaderHints,
    reply::Reply,
};
use crate::{
    env::Env,
    log::{AppendInfo, InvalidRecords, ValidatedBatch, ValidationRules, validate, validate_small},
    metrics::TopicCounters,
    protocol::{
        produce::{
            PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, RecordError,
            TopicProduceData, TopicProduceResponse,
        },
        record_batch::BatchView,
    },
    replica::{Partition, PartitionError, partition::Appended},
    types::{LeaderEpoch, Offset, is_internal_topic},
};

const ALL_REPLICAS: i16 = -1;
const NO_ANSWER: i16 = 0;
const LEADER_ONLY: i16 = 1;

/// From this version on responses name current leaders (KIP-951).
const FIRST_WITH_LEADERS: i16 = 10;
/// From this version on topics are named by id.
const FIRST_WITH_TOPIC_IDS: i16 = 13;

/// The work for a partition in addition to the bytes of its batch.
const WORK_PER_PARTITION_BYTES: usize = 16 << 10;
/// See [`Partition::may_lead_soon`].
const LEADER_WAIT: Duration = Duration::from_millis(50);

/// About one millisecond of work.
const WORK_PER_TURN_BYTES: usize = 1 << 20;

/// The client id with which tools may write to internal topics.
const ADMIN_CLIENT_ID: &str = "__admin_client";

pub(crate) async fn handle(ctx: RequestContext, request: ProduceRequest) -> Reply<ProduceResponse> {
    // Holds back the next request until these batches are appended.
    let in_order = ctx.connection.hold_order();
    let mut produce = Produce {
        ctx: &ctx,
        acks: request.acks,
        now_ms: ctx.env().clock.now_ms(),
        unfinished: Vec::new(),
        failed: false,
        pinned_bytes: ctx.request_bytes,
        work: 0,
        leaders_until: None,
    };
    let mut response = ProduceResponse::default();
    let is_refused = request.transactional_id.is_none() && has_transactional_batch(&request);
    for topic in request.topics.into_iter().filter(|topic| !topic.partitions.is_empty()) {
        let topic_at = response.topics.len();
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        let authorized =
            if is_refused { Err(ResponseError::TransactionalIdAuthorizationFailed) } else { authorize(&ctx, &topic) };
        for (at, data) in topic.partitions.into_iter().enumerate() {
            let index = data.index;
            produce.yield_after_work(&data).await;
            let appended = match &authorized {
                Ok(topic) => produce.append(topic, data, (topic_at, at)).await,
                Err(error) => {
                    Err(Refusal::plain(if is_acks(request.acks) { *error } else { ResponseError::InvalidRequiredAcks }))
                }
            };
            partitions.push(match appended {
                Ok(info) => acknowledgement(index, &info),
                Err(refusal) => {
                    produce.failed = true;
                    refusal.into_response(index)
                }
            });
        }
        response.topics.push(TopicProduceResponse { name: topic.name, topic_id: topic.topic_id, partitions });
    }
    drop(in_order);
    let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64);
    produce.reply(response, timeout).await
}

fn authorize(ctx: &RequestContext, topic: &TopicProduceData) -> Result<AuthorizedTopic, ResponseError> {
    let authorized = if ctx.api_version >= FIRST_WITH_TOPIC_IDS {
        ctx.topic_by_id(Operation::Write, topic.topic_id)
    } else {
        ctx.topic(Operation::Write, &topic.name)
    }?;
    authorized.local()?;
    Ok(authorized)
}

/// P11: whether the request has a transactional batch, which requires a transactional id.
fn has_transactional_batch(request: &ProduceRequest) -> bool {
    let mut records =
        request.topics.iter().flat_map(|topic| &topic.partitions).filter_map(|partition| partition.records.as_ref());
    records.any(|records| BatchView::parse(records).is_ok_and(|batch| batch.is_transactional()))
}

fn is_acks(acks: i16) -> bool {
    matches!(acks, ALL_REPLICAS | NO_ANSWER | LEADER_ONLY)
}

struct Produce<'a> {
    ctx: &'a RequestContext,
    acks: i16,
    now_ms: i64,
    unfinished: Vec<Unfinished>,
    /// Whether at least one partition was refused.
    failed: bool,
    /// The frame size, which counts for the first appended batch: a batch in memory keeps the whole frame in memory.
    pinned_bytes: usize,
    /// The work since the last yield, in bytes.
    work: usize,
    /// Until when the request waits for partitions that this broker does not lead yet.
    leaders_until: Option<Duration>,
}

/// An append that may not be acknowledged yet.
struct Unfinished {
    partition: Arc<Partition>,
    leader_epoch: LeaderEpoch,
    last_offset: Offset,
    flush_due: bool,
    /// Indexes of topic and partition in the response.
    answer: (usize, usize),
}

/// Why a partition's batch was not appended.
struct Refusal {
    error: ResponseError,
    message: Option<String>,
    record_errors: Vec<RecordError>,
    log_start_offset: Offset,
}

impl Refusal {
    fn plain(error: ResponseError) -> Self {
        Refusal { error, message: None, record_errors: Vec::new(), log_start_offset: -1 }
    }

    fn into_response(self, index: i32) -> PartitionProduceResponse {
        PartitionProduceResponse {
            record_errors: self.record_errors,
            error_message: self.message,
            log_start_offset: self.log_start_offset,
            ..PartitionProduceResponse::error(index, self.error.code())
        }
    }
}

fn acknowledgement(index: i32, info: &AppendInfo) -> PartitionProduceResponse {
    PartitionProduceResponse {
        error_code: 0,
        base_offset: info.first_offset,
        log_append_time_ms: info.log_append_time_ms,
        log_start_offset: info.log_start_offset,
        ..PartitionProduceResponse::error(index, 0)
    }
}

impl Produce<'_> {
    /// Yields to other tasks from time to time, because a request may have very many partitions.
    async fn yield_after_work(&mut self, data: &PartitionProduceData) {
        self.work += WORK_PER_PARTITION_BYTES + data.records.as_ref().map_or(0, Bytes::len);
        if self.work > WORK_PER_TURN_BYTES {
            self.work = 0;
            self.ctx.tasks().yield_now().await;
        }
    }

    async fn append(
        &mut self,
        topic: &AuthorizedTopic,
        data: PartitionProduceData,
        answer: (usize, usize),
    ) -> Result<AppendInfo, Refusal> {
        if !is_acks(self.acks) {
            return Err(Refusal::plain(ResponseError::InvalidRequiredAcks));
        }
        let local = topic.local().map_err(Refusal::plain)?;
        if is_internal_topic(&local.name) && self.ctx.client_id.as_str() != ADMIN_CLIENT_ID {
            return Err(Refusal::plain(ResponseError::InvalidTopicException));
        }
        let partition = topic.partition(data.index).map_err(Refusal::plain)?;
        let bytes = data.records.as_ref().map_or(0, Bytes::len) as u64;
        let appended = self.append_to(partition, data, answer).await;
        for counters in [&self.ctx.metrics().topics, &local.counters] {
            count(counters, bytes, &appended);
        }
        appended
    }

    async fn append_to(
        &mut self,
        partition: Arc<Partition>,
        data: PartitionProduceData,
        answer: (usize, usize),
    ) -> Result<AppendInfo, Refusal> {
        if !partition.is_led_here() {
            let clock = &self.ctx.env().clock;
            let until = *self.leaders_until.get_or_insert_with(|| clock.monotonic() + LEADER_WAIT);
            // Rare: it must not make the future of every request larger.
            Box::pin(partition.may_lead_soon(until)).await;
        }
        let validated = self.validated(&partition, data.records.unwrap_or_default()).await;
        let batch = validated.map_err(|invalid| Refusal {
            error: errors::invalid_records(invalid.kind),
            log_start_offset: if invalid.answers_log_start_offset() {
                partition.watermarks().log_start_offset
            } else {
                -1
            },
            message: Some(invalid.message),
            record_errors: invalid
                .record_errors
                .into_iter()
                .map(|error| RecordError { batch_index: error.batch_index, message: Some(error.message) })
                .collect(),
        })?;
        if batch.is_transactional() {
            return Err(Refusal::plain(ResponseError::InvalidTxnState));
        }
        let Appended { info, leader_epoch, is_committed } = partition
            .append_as_leader(batch.pinning(self.pinned_bytes), self.acks == ALL_REPLICAS, self.now_ms)
            .map_err(|error| self.refusal(&partition, &error))?;
        self.pinned_bytes = 0;
        if info.flush_due || (self.acks == ALL_REPLICAS && !is_committed) {
            self.unfinished.push(Unfinished {
                partition,
                leader_epoch,
                last_offset: info.last_offset,
                flush_due: info.flush_due,
                answer,
            });
        }
        Ok(info)
    }

    /// Validates a batch; one that may take long is validated in another task.
    async fn validated(&self, partition: &Arc<Partition>, records: Bytes) -> Result<ValidatedBatch, InvalidRecords> {
        let (config, now_ms, version) = (partition.log_config(), self.now_ms, self.ctx.api_version);
        let rules = ValidationRules::new(partition.topic_partition(), &config, now_ms, version);
        if let Some(validated) = validate_small(&records, &rules) {
            return validated;
        }
        let partition = partition.clone();
        let validating = async move {
            validate(records, &ValidationRules::new(partition.topic_partition(), &config, now_ms, version))
        };
        self.ctx.tasks().aside("validate", 0, validating).await
    }

    fn refusal(&self, partition: &Partition, error: &PartitionError) -> Refusal {
        let code = errors::partition(error);
        if code == ResponseError::KafkaStorageError {
            tracing::debug!(partition = %partition.topic_partition(), %error, "a produce request failed");
        }
        let log_start_offset = if is_expected(code) { -1 } else { partition.watermarks().log_start_offset };
        Refusal { message: Some(error.to_string()), log_start_offset, ..Refusal::plain(code) }
    }

    async fn reply(self, mut response: ProduceResponse, timeout: Duration) -> Reply<ProduceResponse> {
        let env = self.ctx.env().clone();
        let waits_for_replicas = self.acks == ALL_REPLICAS;
        match (self.acks, self.unfinished.is_empty()) {
            (NO_ANSWER, true) => {
                if self.failed {
                    Reply::Close
                } else {
                    Reply::None
                }
            }
            (_, true) => {
                name_leaders(self.ctx, &mut response);
                Reply::Answer(response)
            }
            (NO_ANSWER, false) => {
                // The topic's settings require a flush, but no response waits for it.
                for append in self.unfinished.iter().filter(|append| append.flush_due) {
                    append.partition.request_flush(&env.tasks);
                }
                if self.failed { Reply::Close } else { Reply::None }
            }
            (_, false) => {
                finish(env, self.unfinished, &mut response, waits_for_replicas, timeout).await;
                name_leaders(self.ctx, &mut response);
                Reply::Answer(response)
            }
        }
    }
}

/// Names the leaders of partitions that another broker leads.
fn name_leaders(ctx: &RequestContext, response: &mut ProduceResponse) {
    if ctx.api_version < FIRST_WITH_LEADERS {
        return;
    }
    let mut hints = LeaderHints::new(ctx);
    for topic in &mut response.topics {
        for partition in &mut topic.partitions {
            partition.current_leader = hints.of(partition.error_code, &topic.name, topic.topic_id, partition.index);
        }
    }
    response.node_endpoints = hints.into_endpoints();
}

fn count(counters: &TopicCounters, bytes: u64, appended: &Result<AppendInfo, Refusal>) {
    counters.total_produce_requests.add(1);
    match appended.as_ref().map_err(|refusal| refusal.error) {
        Ok(info) => {
            counters.bytes_in.add(bytes);
            counters.messages_in.add((info.last_offset - info.first_offset + 1) as u64);
        }
        Err(ResponseError::MessageTooLarge) => counters.bytes_rejected.add(bytes),
        Err(error) if is_expected(error) => {}
        Err(_) => counters.failed_produce_requests.add(1),
    }
}

/// P12: the errors that `ReplicaManager.appendRecordsToLeader` expects. They do not count as failed requests, and their
/// responses have no log start offset.
fn is_expected(error: ResponseError) -> bool {
    matches!(
        error,
        ResponseError::NotLeaderOrFollower
            | ResponseError::MessageTooLarge
            | ResponseError::RecordListTooLarge
            | ResponseError::CorruptMessage
            | ResponseError::KafkaStorageError
    )
}

/// Waits until every append is flushed and replicated. If this fails, the partition gets the error in the response.
async fn finish(
    env: Env,
    unfinished: Vec<Unfinished>,
    response: &mut ProduceResponse,
    wait_for_replicas: bool,
    timeout: Duration,
) {
    let deadline = env.clock.monotonic() + timeout;
    // Request all flushes before waiting for the first.
    let finishing: Vec<_> = unfinished
        .into_iter()
        .map(|append| (append.answer, append.finish(&env, wait_for_replicas, deadline)))
        .collect();
    for ((topic, partition), finished) in finishing {
        let result = finished.await;
        let answer = &mut response.topics[topic].partitions[partition];
        if let Err(error) = result {
            *answer = PartitionProduceResponse::error(answer.index, error.code());
        }
    }
}

impl Unfinished {
    fn finish(
        self,
        env: &Env,
        wait_for_replicas: bool,
        deadline: Duration,
    ) -> impl Future<Output = Result<(), ResponseError>> + Send {
        let flushed = self.flush_due.then(|| self.partition.flushed(self.last_offset + 1, &env.tasks));
        async move {
            if let Some(flushed) = flushed {
                tokio::select! {
                    biased;
                    flushed = flushed => flushed.map_err(|error| errors::storage(&error))?,
                    // The records are stored. The flush goes on after the client's timeout.
                    () = env.clock.sleep_until(deadline) => return Err(ResponseError::RequestTimedOut),
                }
            }
            if !wait_for_replicas {
                return Ok(());
            }
            tokio::select! {
                biased;
                committed = self.partition.committed(self.last_offset, self.leader_epoch) => committed
                    .and_then(|()| self.partition.check_enough_replicas())
                    .map_err(|error| errors::partition(&error)),
                () = env.clock.sleep_until(deadline) => Err(ResponseError::RequestTimedOut),
            }
        }
    }
}
