//! The task of one connection: it reads frames, starts their requests, and writes the responses in order.
//!
//! A request is a future that this task owns and polls. Requests start one after the other. The next one may start
//! before the last is answered only if both have `Pipelined` in the API table, and once the order of the last one's
//! effect is fixed. Responses always leave in the order of their requests. A protocol error closes the connection
//! without a response and with one log line.
//!
//! While requests wait, the task still notices that its client has disconnected. Then it drops the waiting requests,
//! except Produce requests that must still be appended, since a client may send them without waiting for a response
//! (acks=0). The connection of a client that neither sends nor reads is closed: after `connections.max.idle.ms`, or
//! within seconds if others wait for the memory that it holds.
//!
//! At shutdown the task finishes the started requests, sends their responses, and closes the connection.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::{io::AsyncReadExt, sync::Semaphore};

use super::{
    listener::Limits,
    memory::{AnswerMemory, AnswerShare, RequestMemory, RequestShare},
    writer::{Sent, Writer},
};
use crate::{
    api::{
        self, Api, ConnectionInfo, EncodeError, Encoded, Handler, MalformedRequest, Order, Parts, Refused,
        RequestContext,
    },
    env::{BoxFuture, LogLimit, net::Stream, tasks::Stopping},
    metrics::{Limit, ListenerCounters},
    protocol::{
        frame::{FrameError, FrameReader},
        header::{self, RequestHeader},
        part::Part,
        wire::DecodeError,
    },
};

/// The maximum number of requests in flight on one connection.
const MOST_IN_FLIGHT: usize = 64;
/// Frames up to this size do not count against the shared budget.
const FREE_FRAME_BYTES: usize = 32 << 10;
/// Requests up to this size use so little memory that it need not be returned to the system.
const SMALL_FRAME_BYTES: usize = 4 << 10;
/// The interval of the checks for slow clients.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// If fewer bytes move between two checks while others wait for memory, the connection is closed.
const LEAST_BYTES_PER_CHECK: usize = 16 << 10;

/// Longer than any broker runs, but small enough to be added to a time without overflow.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The limits of each connection, and the memory that all share.
pub(super) struct ConnectionLimits {
    request_bytes: usize,
    requests: Arc<RequestMemory>,
    answers: Arc<AnswerMemory>,
    idle: Duration,
    frame_deadline: Duration,
}

impl ConnectionLimits {
    pub(super) fn new(limits: &Limits) -> Self {
        ConnectionLimits {
            request_bytes: limits.request_bytes,
            requests: RequestMemory::new(limits.queued_request_bytes.unwrap_or(Semaphore::MAX_PERMITS)),
            answers: AnswerMemory::new(limits.queued_response_bytes),
            idle: limits.idle.map_or(NEVER, |idle| idle.min(NEVER)),
            frame_deadline: limits.frame_deadline,
        }
    }
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("the client closed the connection")]
    ByClient,
    #[error("the broker is shutting down")]
    Stopping,
    #[error("the connection was idle for connections.max.idle.ms")]
    Idle,
    #[error("a request was not complete in time")]
    FrameDeadline,
    #[error("a request arrives too slowly while other connections wait for memory")]
    SlowRequest,
    #[error("the client reads responses too slowly while other connections wait for memory")]
    SlowReader,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Header(#[from] DecodeError),
    #[error("{0}")]
    Malformed(#[from] MalformedRequest),
    #[error("API key {key} version {version} is not supported")]
    Unsupported { key: i16, version: i16 },
    #[error("a request with acks=0 failed and cannot be answered")]
    WithoutAnswer,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Encode(#[from] EncodeError),
}

impl From<Refused> for Closed {
    fn from(refused: Refused) -> Closed {
        match refused {
            Refused::Malformed(error) => Closed::Malformed(error),
            Refused::Encode(error) => Closed::Encode(error),
        }
    }
}

impl Closed {
    /// The limit that closed the connection, if it was one.
    fn limit(&self) -> Option<Limit> {
        match self {
            Closed::Idle => Some(Limit::ConnectionsMaxIdleMs),
            Closed::FrameDeadline => Some(Limit::FrameDeadlineMs),
            Closed::SlowRequest => Some(Limit::QueuedMaxRequestBytes),
            Closed::SlowReader => Some(Limit::QueuedMaxResponseBytes),
            Closed::Frame(FrameError::Length { .. }) => Some(Limit::SocketRequestMaxBytes),
            _ => None,
        }
    }
}

/// Serves the connection until either side ends it.
pub(super) async fn serve(
    stream: Box<dyn Stream>,
    info: Arc<ConnectionInfo>,
    parts: Arc<Parts>,
    limits: Arc<ConnectionLimits>,
) {
    let client = info.client_address;
    let counters = parts.metrics.listener(&info.listener);
    let now = parts.env.clock.monotonic();
    let timer = parts.env.clock.sleep_until(now + limits.idle);
    let mut connection = Connection {
        stream,
        counters,
        info,
        reader: FrameReader::new(limits.request_bytes),
        next: None,
        answers: limits.answers.share(),
        limits,
        share: RequestShare::default(),
        waits_for_memory: false,
        client_is_gone: false,
        pending: VecDeque::new(),
        writer: Writer::default(),
        last_activity: now,
        frame_started: None,
        checked: (now, 0),
        timer,
        timer_at: Duration::MAX,
        stopping: parts.network.stopping(),
        parts,
    };
    let closed = connection.run().await;
    if let Some(node) = connection.info.node() {
        connection.parts.controller.broker_has_disconnected(node).await;
    }
    connection.finish_appends().await;
    if let Some(limit) = closed.limit() {
        connection.parts.metrics.limit_reached(limit);
    }
    match closed {
        Closed::ByClient | Closed::Stopping => tracing::debug!(%client, "connection closed"),
        Closed::Io(error) => tracing::debug!(%client, %error, "connection lost"),
        Closed::Idle => tracing::debug!(%client, "closed an idle connection"),
        Closed::Encode(error) => tracing::error!(%client, %error, "closed a connection: cannot encode a response"),
        refused => {
            if let Some(suppressed) = CLOSED.admit(connection.parts.env.clock.monotonic()) {
                tracing::info!(%client, reason = %refused, suppressed, "closed a connection");
            }
        }
    }
}

static CLOSED: LogLimit = LogLimit::new();

struct Connection {
    stream: Box<dyn Stream>,
    counters: Arc<ListenerCounters>,
    info: Arc<ConnectionInfo>,
    parts: Arc<Parts>,
    limits: Arc<ConnectionLimits>,
    reader: FrameReader,
    /// A complete frame that cannot start yet.
    next: Option<Bytes>,
    /// The arriving frame's share of the memory for requests.
    share: RequestShare,
    /// The arriving frame waits for more memory.
    waits_for_memory: bool,
    /// The memory of responses that are not written yet.
    answers: AnswerShare,
    /// The client has closed its side. Bytes that it sent before may still be unread.
    client_is_gone: bool,
    /// Requests started, oldest first.
    pending: VecDeque<Pending>,
    writer: Writer,
    last_activity: Duration,
    frame_started: Option<Duration>,
    /// The time of the last check of the arriving frame, and the number of its bytes at that time.
    checked: (Duration, usize),
    timer: BoxFuture<'static, ()>,
    timer_at: Duration,
    stopping: Stopping,
}

struct Pending {
    api: &'static Api,
    version: i16,
    correlation_id: i32,
    answer: Answer,
}

enum Answer {
    Ready(Vec<Part>),
    Waiting(Handler),
}

/// The event that ended a wait.
enum Event {
    /// The request at this position of the queue is done.
    Answer(usize, Result<Encoded, Refused>),
    /// The next request may start.
    Ordered,
    Read(Result<usize, FrameError>),
    RequestMemory(RequestShare),
    AnswerMemory,
    Timer,
    Stopping,
}

impl Connection {
    async fn run(&mut self) -> Closed {
        self.arm_timer(self.last_activity + self.limits.idle);
        loop {
            if let Err(closed) = self.turn().await {
                return closed;
            }
        }
    }

    /// Starts what can be started, writes what is ready, or waits for the next event.
    async fn turn(&mut self) -> Result<(), Closed> {
        if let Err(closed) = self.start_all().await {
            // Earlier requests are answered although this request closes the connection.
            self.write_ready().await?;
            return Err(closed);
        }
        if self.write_ready().await? {
            return Ok(());
        }
        if self.client_is_gone && self.give_up_waiting() {
            return Ok(());
        }
        if self.parts.network.is_stopping() && self.pending.is_empty() {
            return Err(Closed::Stopping);
        }
        match self.wait().await {
            Event::Answer(at, reply) => self.on_reply(at, reply)?,
            Event::Read(read) => self.on_read(read?)?,
            Event::RequestMemory(share) => {
                self.share.add(share);
                self.waits_for_memory = false;
            }
            Event::Timer => self.on_timer()?,
            Event::Ordered | Event::AnswerMemory | Event::Stopping => {}
        }
        Ok(())
    }

    /// Drops the requests whose responses nobody will read. Returns whether there were any.
    fn give_up_waiting(&mut self) -> bool {
        let any = !self.pending.is_empty() && !self.info.is_order_held();
        if any {
            self.pending.clear();
        }
        any
    }

    /// Batches that were sent are appended even if the client has disconnected, since it may not expect a response
    /// (acks=0).
    async fn finish_appends(&mut self) {
        while self.info.is_order_held() {
            let Some(Pending { answer: Answer::Waiting(handler), .. }) = self.pending.back_mut() else { return };
            let info = &self.info;
            std::future::poll_fn(|context| match handler.as_mut().poll(context) {
                Poll::Pending if info.is_order_held() => Poll::Pending,
                _ => Poll::Ready(()),
            })
            .await;
        }
    }

    async fn start_all(&mut self) -> Result<(), Closed> {
        while let Some(frame) = self.next_frame()? {
            self.start(frame).await?;
        }
        Ok(())
    }

    /// Writes the ready responses. Returns whether there were any.
    async fn write_ready(&mut self) -> Result<bool, Closed> {
        if !self.take_ready() {
            return Ok(false);
        }
        let clock = &*self.parts.env.clock;
        let last_activity = &mut self.last_activity;
        let (counters, answers) = (&self.counters, &self.answers);
        let sent_since = AtomicUsize::new(0);
        let on_progress = |sent: Sent| {
            *last_activity = clock.monotonic();
            counters.bytes_sent.add(sent.bytes as u64);
            sent_since.fetch_add(sent.bytes, Ordering::Relaxed);
            answers.give_back(sent.freed_bytes);
        };
        let writing = self.writer.write_to(&mut self.stream, &self.parts.env.tasks, on_progress);
        tokio::pin!(writing);
        // Usually the socket accepts everything at once, so no timer is needed.
        if let Poll::Ready(written) = poll_once(writing.as_mut()).await {
            written?;
            return Ok(true);
        }
        let mut stalled = Duration::ZERO;
        loop {
            tokio::select! {
                biased;
                written = &mut writing => {
                    written?;
                    return Ok(true);
                }
                () = clock.sleep_until(clock.monotonic() + CHECK_INTERVAL) => {
                    let sent_bytes = sent_since.swap(0, Ordering::Relaxed);
                    if self.limits.answers.is_full() && sent_bytes < LEAST_BYTES_PER_CHECK {
                        return Err(Closed::SlowReader);
                    }
                    stalled = if sent_bytes == 0 { stalled + CHECK_INTERVAL } else { Duration::ZERO };
                    if stalled >= self.limits.idle {
                        return Err(Closed::Idle);
                    }
                }
            }
        }
    }

    /// Returns the frame of the next request, if it is complete and may start now.
    fn next_frame(&mut self) -> Result<Option<Bytes>, Closed> {
        if self.parts.network.is_stopping() || self.limits.answers.is_full() {
            return Ok(None);
        }
        if self.next.is_none() {
            self.next = self.reader.take_frame()?;
            if self.next.is_some() {
                self.frame_started = self.reader.has_started().then_some(self.last_activity);
            }
        }
        if self.info.is_order_held() {
            return Ok(None);
        }
        Ok(self.next.take_if(|frame| may_start(&self.pending, frame)))
    }

    async fn start(&mut self, frame: Bytes) -> Result<(), Closed> {
        let share = std::mem::take(&mut self.share);
        let request_bytes = frame.len();
        let (key, version) = header::api_key_and_version(&frame)?;
        let api = api::api(key).filter(|api| api.listeners.contain(self.info.kind));
        let api = api.ok_or(Closed::Unsupported { key, version })?;
        let (header, body) = RequestHeader::parse(frame, api.versions.is_flexible(version))?;
        let correlation_id = header.correlation_id;
        if !api.versions.contain(version) {
            let answer = api::unsupported_version_response(api).ok_or(Closed::Unsupported { key, version })?;
            self.push(api, correlation_id, 0, Answer::Ready(answer?));
            return Ok(());
        }
        self.parts.metrics.requests.count(api.key, version);
        let is_large = request_bytes > SMALL_FRAME_BYTES || api.cost == api::Cost::Large;
        let memory = is_large.then(|| Box::new(share) as Box<dyn Send + Sync>);
        let ctx = RequestContext::new(self.parts.clone(), self.info.clone(), api, header, request_bytes, memory);
        let mut handler = api::start(ctx, body);
        match poll_once(handler.as_mut()).await {
            Poll::Pending => self.push(api, correlation_id, version, Answer::Waiting(handler)),
            Poll::Ready(reply) => match reply? {
                Encoded::Answer(parts) => self.push(api, correlation_id, version, Answer::Ready(parts)),
                Encoded::None => {}
                Encoded::Close => return Err(Closed::WithoutAnswer),
            },
        }
        Ok(())
    }

    /// Handles the end of a request that had to wait.
    fn on_reply(&mut self, at: usize, reply: Result<Encoded, Refused>) -> Result<(), Closed> {
        match reply? {
            Encoded::Answer(parts) => self.pending[at].answer = Answer::Ready(parts),
            Encoded::None => drop(self.pending.remove(at)),
            Encoded::Close => return Err(Closed::WithoutAnswer),
        }
        Ok(())
    }

    fn push(&mut self, api: &'static Api, correlation_id: i32, version: i16, answer: Answer) {
        debug_assert!((0..=api.versions.max).contains(&version));
        self.pending.push_back(Pending { api, version, correlation_id, answer });
    }

    /// Moves the ready responses to the writer, up to the first one that is not ready.
    fn take_ready(&mut self) -> bool {
        let mut any = false;
        while let Some(Pending { answer: Answer::Ready(_), .. }) = self.pending.front() {
            let Some(Pending { api, version, correlation_id, answer: Answer::Ready(parts), .. }) =
                self.pending.pop_front()
            else {
                break;
            };
            let length: usize = parts.iter().map(Part::len).sum();
            let header = response_header(api, version, correlation_id, length);
            self.answers.add(header.len() + parts.iter().map(Part::memory_bytes).sum::<usize>());
            self.writer.push(Part::Bytes(header));
            for part in parts {
                self.writer.push(part);
            }
            any = true;
        }
        any
    }

    async fn wait(&mut self) -> Event {
        let missing_bytes = self.missing_bytes();
        let may_read = missing_bytes == 0 && self.next.is_none();
        let answers_are_full = self.limits.answers.is_full();
        let stopping = self.parts.network.is_stopping();
        if !may_read {
            // Without a read the task would not notice that the client has disconnected.
            self.arm_timer(self.parts.env.clock.monotonic() + CHECK_INTERVAL);
        }
        let was_held = self.info.is_order_held();
        let (pending, info) = (&mut self.pending, &self.info);
        let replies = std::future::poll_fn(|context| {
            // Only the first can be answered next. The last one is polled while the order of its effect is not fixed
            // yet.
            let last = pending.len().saturating_sub(1);
            for at in if was_held { [0, last] } else { [0, 0] } {
                if let Some(Pending { answer: Answer::Waiting(handler), .. }) = pending.get_mut(at)
                    && let Poll::Ready(reply) = handler.as_mut().poll(context)
                {
                    return Poll::Ready(Event::Answer(at, reply));
                }
            }
            if was_held && !info.is_order_held() { Poll::Ready(Event::Ordered) } else { Poll::Pending }
        });
        let memory = async {
            if let Some(share) = self.limits.requests.try_take(missing_bytes) {
                return share;
            }
            if !std::mem::replace(&mut self.waits_for_memory, true) {
                self.parts.metrics.limit_reached(Limit::QueuedMaxRequestBytes);
            }
            self.limits.requests.take(missing_bytes).await
        };
        let room_bytes = match self.reader.whole_frame_bytes() {
            Ok(Some(bytes)) if bytes > FREE_FRAME_BYTES => self.share.room_bytes(self.reader.arrived_bytes()),
            _ => usize::MAX,
        };
        let read = async {
            match self.reader.space_to_read() {
                Ok(space) => Ok(self.stream.read_buf(&mut space.limit(room_bytes)).await?),
                Err(error) => Err(error),
            }
        };
        tokio::select! {
            biased;
            event = replies => event,
            share = memory, if missing_bytes > 0 => Event::RequestMemory(share),
            () = self.limits.answers.room(), if answers_are_full => Event::AnswerMemory,
            read = read, if may_read => Event::Read(read),
            () = &mut self.timer => Event::Timer,
            () = &mut self.stopping, if !stopping => Event::Stopping,
        }
    }

    /// The memory that must be reserved before more of the arriving frame is read.
    fn missing_bytes(&self) -> usize {
        match self.reader.whole_frame_bytes() {
            Ok(Some(bytes)) if bytes > FREE_FRAME_BYTES && self.next.is_none() => {
                self.share.missing_bytes(bytes, self.reader.arrived_bytes())
            }
            _ => 0,
        }
    }

    fn on_read(&mut self, read: usize) -> Result<(), Closed> {
        if read == 0 {
            return Err(Closed::ByClient);
        }
        self.counters.bytes_received.add(read as u64);
        let now = self.parts.env.clock.monotonic();
        self.last_activity = now;
        if self.frame_started.is_none() {
            self.frame_started = Some(now);
            self.arm_timer(now + self.limits.frame_deadline);
        }
        Ok(())
    }

    /// The timer is set rarely, and its handler compares the clock with the deadlines, so that traffic does not set
    /// timers.
    fn on_timer(&mut self) -> Result<(), Closed> {
        let now = self.parts.env.clock.monotonic();
        self.timer_at = Duration::MAX;
        let waits_for_client = self.pending.is_empty();
        let missing_bytes = self.missing_bytes();
        let frame_due = self.frame_started.map(|started| started + self.limits.frame_deadline);
        let idle_due = self.last_activity + self.limits.idle;
        // If the frame waits for memory, the broker causes the delay, not the client.
        if waits_for_client && frame_due.is_some_and(|due| now >= due) && missing_bytes == 0 {
            return Err(Closed::FrameDeadline);
        }
        if waits_for_client && now >= idle_due {
            return Err(Closed::Idle);
        }
        self.client_is_gone |= self.stream.is_closed_by_peer();
        let holds_memory = self.check_pace(now, missing_bytes > 0)?;
        let earliest = now + CHECK_INTERVAL;
        let due = frame_due.map_or(idle_due, |due| due.min(idle_due)).max(earliest);
        self.arm_timer(if holds_memory { earliest } else { due });
        Ok(())
    }

    /// Returns whether the arriving frame holds memory. If others wait for memory, the frame must arrive fast enough.
    fn check_pace(&mut self, now: Duration, waits: bool) -> Result<bool, Closed> {
        let arrived = self.reader.arrived_bytes();
        let holds_memory = self.next.is_none() && arrived > FREE_FRAME_BYTES;
        let (checked_at, before) = self.checked;
        if !holds_memory || waits || arrived < before {
            self.checked = (now, arrived);
            return Ok(holds_memory);
        }
        if now < checked_at + CHECK_INTERVAL {
            return Ok(true);
        }
        if self.limits.requests.is_contended() && arrived - before < LEAST_BYTES_PER_CHECK {
            return Err(Closed::SlowRequest);
        }
        self.checked = (now, arrived);
        Ok(true)
    }

    fn arm_timer(&mut self, at: Duration) {
        if at < self.timer_at {
            self.timer = self.parts.env.clock.sleep_until(at);
            self.timer_at = at;
        }
    }
}

/// Whether the next request may start, given the order of responses and the limit of requests in flight.
fn may_start(pending: &VecDeque<Pending>, frame: &[u8]) -> bool {
    if pending.is_empty() {
        return true;
    }
    let is_pipelined = header::api_key_and_version(frame).is_ok_and(|(key, _)| api::api(key).is_some_and(is_pipelined));
    is_pipelined && pending.len() < MOST_IN_FLIGHT && pending.iter().all(|pending| self::is_pipelined(pending.api))
}

/// Polls the future once.
async fn poll_once<T>(mut future: Pin<&mut (impl Future<Output = T> + ?Sized)>) -> Poll<T> {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

fn is_pipelined(api: &Api) -> bool {
    api.order == Order::Pipelined
}

/// The size field of the frame and the response header.
fn response_header(api: &Api, version: i16, correlation_id: i32, body_bytes: usize) -> Bytes {
    let mut header = BytesMut::with_capacity(9);
    header.put_i32(0);
    header::put_response_header(&mut header, api.key, api.versions.is_flexible(version), correlation_id);
    let size_bytes = header.len() - 4 + body_bytes;
    header[..4].copy_from_slice(&(size_bytes as i32).to_be_bytes());
    header.freeze()
}
