//! Produce (key 0): the batches of a producer, appended in the order in which they come.
//!
//! Behavior: P1–P12, I1–I5. A request runs start to end in its connection's task: every partition's
//! batch is validated and appended before anything is waited for, then one wait serves all. Batches are
//! never decoded into records that outlive their check, nor copied.
//! Deviations: transactional batches are refused with INVALID_TXN_STATE (without a transactional id as Kafka
//! does): there is no transaction coordinator yet.
//! Version notes: topic ids from version 13 on (KIP-516), hints at the leader from 10 on (KIP-951).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::{error::ResponseError, protocol::StrBytes};

use super::{Reply, RequestContext, errors};
use crate::{
    env::Env,
    log::{AppendInfo, ValidationRules, validate},
    metrics::TopicCounters,
    protocol::{
        produce::{
            PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, RecordError,
            TopicProduceResponse,
        },
        record_batch::BatchView,
    },
    replica::{Partition, PartitionError, partition::Appended, replica_manager::LocalTopic, waiters::Waiter},
    types::{LeaderEpoch, Offset, is_internal_topic},
};

const ALL_REPLICAS: i16 = -1;
const NO_ANSWER: i16 = 0;
const LEADER_ONLY: i16 = 1;

/// From this version on topics are named by id.
const FIRST_WITH_TOPIC_IDS: i16 = 13;

/// The client id with which tools may write to internal topics.
const ADMIN_CLIENT_ID: &str = "__admin_client";

pub(crate) async fn handle(ctx: &RequestContext, request: ProduceRequest) -> Reply<ProduceResponse> {
    let mut produce = Produce {
        ctx,
        acks: request.acks,
        now_ms: ctx.parts.env.clock.now_ms(),
        unfinished: Vec::new(),
        failed: false,
        pinned_bytes: ctx.request_bytes,
    };
    let mut response = ProduceResponse::default();
    let is_refused = request.transactional_id.is_none() && has_transactional_batch(&request);
    for topic in request.topics.into_iter().filter(|topic| !topic.partitions.is_empty()) {
        let topic_at = response.topics.len();
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        let local = match (is_refused, ctx.api_version >= FIRST_WITH_TOPIC_IDS && topic.topic_id.is_zero()) {
            (true, _) => Err(ResponseError::TransactionalIdAuthorizationFailed),
            (false, true) => Err(ResponseError::UnknownTopicId),
            (false, false) => ctx.topic(&topic.name, topic.topic_id),
        };
        for (at, data) in topic.partitions.into_iter().enumerate() {
            let index = data.index;
            let appended = match &local {
                Ok(local) => produce.append(local, data, (topic_at, at)),
                Err(error) => {
                    Err(Refusal::plain(if is_acks(request.acks) { *error } else { ResponseError::InvalidRequiredAcks }))
                }
            };
            partitions.push(match appended {
                Ok(info) => acknowledgement(index, &info),
                Err(refusal) => {
                    produce.failed = true;
                    refusal.into_response(ctx, &topic.name, index)
                }
            });
        }
        response.topics.push(TopicProduceResponse { name: topic.name, topic_id: topic.topic_id, partitions });
    }
    let deadline = Duration::from_millis(request.timeout_ms.max(0) as u64);
    produce.reply(response, deadline)
}

/// P11: such a batch needs a transactional id in its request.
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
    /// Some partition was refused.
    failed: bool,
    /// What the first batch that is kept keeps in memory: its whole frame.
    pinned_bytes: usize,
}

/// An append that may not be acknowledged yet.
struct Unfinished {
    partition: Arc<Partition>,
    leader_epoch: LeaderEpoch,
    last_offset: Offset,
    flush_due: bool,
    /// Indexes of topic and partition in the answer.
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

    fn into_response(self, ctx: &RequestContext, topic: &StrBytes, index: i32) -> PartitionProduceResponse {
        let _ = (ctx, topic);
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
    fn append(
        &mut self,
        topic: &LocalTopic,
        data: PartitionProduceData,
        answer: (usize, usize),
    ) -> Result<AppendInfo, Refusal> {
        if !is_acks(self.acks) {
            return Err(Refusal::plain(ResponseError::InvalidRequiredAcks));
        }
        if is_internal_topic(&topic.name) && self.ctx.client_id.as_str() != ADMIN_CLIENT_ID {
            return Err(Refusal::plain(ResponseError::InvalidTopicException));
        }
        let partition = self.ctx.partition_of(topic, data.index).map_err(Refusal::plain)?;
        let bytes = data.records.as_ref().map_or(0, Bytes::len) as u64;
        let appended = self.append_to(partition, data, answer);
        for counters in [&self.ctx.parts.metrics.topics, &topic.counters] {
            count(counters, bytes, &appended);
        }
        appended
    }

    fn append_to(
        &mut self,
        partition: Arc<Partition>,
        data: PartitionProduceData,
        answer: (usize, usize),
    ) -> Result<AppendInfo, Refusal> {
        let config = partition.log_config();
        let rules = ValidationRules::new(partition.topic_partition(), &config, self.now_ms, self.ctx.api_version);
        let batch = validate(data.records.unwrap_or_default(), &rules).map_err(|invalid| Refusal {
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
        let Appended { info, leader_epoch } = partition
            .append_as_leader(batch.pinning(self.pinned_bytes), self.acks == ALL_REPLICAS, self.now_ms)
            .map_err(|error| self.refusal(&partition, &error))?;
        self.pinned_bytes = 0;
        let is_replicated = partition.watermarks().high_watermark > info.last_offset;
        if info.flush_due || (self.acks == ALL_REPLICAS && !is_replicated) {
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

    fn refusal(&self, partition: &Partition, error: &PartitionError) -> Refusal {
        let code = errors::partition(error);
        if code == ResponseError::KafkaStorageError {
            tracing::debug!(partition = %partition.topic_partition(), %error, "a produce request failed");
        }
        let log_start_offset = if is_expected(code) { -1 } else { partition.watermarks().log_start_offset };
        Refusal { message: Some(error.to_string()), log_start_offset, ..Refusal::plain(code) }
    }

    fn reply(self, mut response: ProduceResponse, timeout: Duration) -> Reply<ProduceResponse> {
        let env = self.ctx.parts.env.clone();
        let waits_for_replicas = self.acks == ALL_REPLICAS;
        match (self.acks, self.unfinished.is_empty()) {
            (NO_ANSWER, true) => {
                if self.failed {
                    Reply::Close
                } else {
                    Reply::None
                }
            }
            (_, true) => Reply::Now(response),
            (NO_ANSWER, false) => {
                // The flush that the topic asks for happens all the same; nobody hears of it.
                let tasks = env.tasks.clone();
                tasks.spawn("flush", async move { finish(env, self.unfinished, &mut response, false, timeout).await });
                if self.failed { Reply::Close } else { Reply::None }
            }
            (_, false) => Reply::Later(Box::pin(async move {
                finish(env, self.unfinished, &mut response, waits_for_replicas, timeout).await;
                response
            })),
        }
    }
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

/// P12: the errors that `ReplicaManager.appendRecordsToLeader` expects: they are no failures of the broker's, and their
/// answers do not tell where the log starts.
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

/// Waits until every append may be acknowledged, or says in the answer why it may not.
async fn finish(
    env: Env,
    unfinished: Vec<Unfinished>,
    response: &mut ProduceResponse,
    wait_for_replicas: bool,
    timeout: Duration,
) {
    let deadline = env.clock.monotonic() + timeout;
    for append in unfinished {
        let (topic, partition) = append.answer;
        let result = append.finish(&env, wait_for_replicas, deadline).await;
        let answer = &mut response.topics[topic].partitions[partition];
        if let Err(error) = result {
            *answer = PartitionProduceResponse::error(answer.index, error.code());
        }
    }
}

impl Unfinished {
    async fn finish(self, env: &Env, wait_for_replicas: bool, deadline: Duration) -> Result<(), ResponseError> {
        if self.flush_due {
            let (partition, through) = (self.partition.clone(), self.last_offset + 1);
            env.tasks
                .blocking("flush", move || partition.flush_through(through))
                .await
                .map_err(|error| errors::storage(&error))?;
        }
        if wait_for_replicas { self.replicated(env, deadline).await } else { Ok(()) }
    }

    async fn replicated(&self, env: &Env, deadline: Duration) -> Result<(), ResponseError> {
        let waiter = Waiter::new();
        loop {
            self.partition.register(&waiter);
            if self.partition.watermarks().high_watermark > self.last_offset {
                return Ok(());
            }
            let (_, epoch) = self.partition.leader();
            if !self.partition.is_leader() || epoch != self.leader_epoch {
                return Err(ResponseError::NotLeaderOrFollower);
            }
            tokio::select! {
                () = waiter.woken() => {}
                () = env.clock.sleep_until(deadline) => return Err(ResponseError::RequestTimedOut),
            }
        }
    }
}
