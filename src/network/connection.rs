//! One connection, one task: read a frame, start its request, answer in order.
//!
//! Requests start one after the other. The next may start before the last is answered only where
//! both rows of the API table say `pipelined`; answers leave in the order of their requests in any
//! case. What the protocol refuses ends the connection without an answer and with one line.
//!
//! At shutdown the task finishes what it has started, answers it, and closes.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::{
    io::AsyncReadExt,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{free_memory::FreeMemory, listener::Limits, writer::Writer};
use crate::{
    api::{self, Api, ConnectionInfo, EncodeError, MalformedRequest, Parts, Reply, RequestContext},
    env::{BoxFuture, net::Stream},
    metrics::{Limit, ListenerCounters},
    protocol::{
        frame::{FrameError, FrameReader},
        header::{self, RequestHeader},
        part::Part,
        wire::DecodeError,
    },
};

/// Requests started and not answered, on one connection.
const MOST_IN_FLIGHT: usize = 64;
/// Frames up to this size arrive without asking for a part of the shared budget.
const FREE_FRAME_BYTES: usize = 32 << 10;
/// Requests up to this size take no memory worth giving back.
const SMALL_FRAME_BYTES: usize = 4 << 10;

/// Longer than a broker runs, and short enough to be added to a time.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Limits that each connection keeps to, and the budget that all share.
pub(super) struct ConnectionLimits {
    request_bytes: usize,
    queued_request_bytes: usize,
    budget: Arc<Semaphore>,
    idle: Duration,
    frame_deadline: Duration,
    free_memory: Arc<FreeMemory>,
}

impl ConnectionLimits {
    pub(super) fn new(limits: &Limits) -> Self {
        let queued_request_bytes =
            limits.queued_request_bytes.unwrap_or(Semaphore::MAX_PERMITS).clamp(1, Semaphore::MAX_PERMITS);
        ConnectionLimits {
            request_bytes: limits.request_bytes,
            queued_request_bytes,
            budget: Arc::new(Semaphore::new(queued_request_bytes)),
            idle: limits.idle.map_or(NEVER, |idle| idle.min(NEVER)),
            frame_deadline: limits.frame_deadline,
            free_memory: Arc::default(),
        }
    }
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("the client closed it")]
    ByClient,
    #[error("the broker is shutting down")]
    Stopping,
    #[error("connections.max.idle.ms is over")]
    Idle,
    #[error("a request was not complete in time")]
    FrameDeadline,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Header(#[from] DecodeError),
    #[error("{0}")]
    Malformed(#[from] MalformedRequest),
    #[error("api key {key} version {version} is not served")]
    Unsupported { key: i16, version: i16 },
    #[error("an error without an answer (acks=0)")]
    WithoutAnswer,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Encode(#[from] EncodeError),
}

impl Closed {
    /// The limit that was met, where it was one.
    fn limit(&self) -> Option<Limit> {
        match self {
            Closed::Idle => Some(Limit::ConnectionsMaxIdleMs),
            Closed::FrameDeadline => Some(Limit::FrameDeadlineMs),
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
        limits,
        frame_budget: None,
        waits_for_budget: false,
        pending: VecDeque::new(),
        writer: Writer::default(),
        last_activity: now,
        frame_started: None,
        timer,
        timer_at: Duration::MAX,
        parts,
    };
    let closed = connection.run().await;
    if let Some(limit) = closed.limit() {
        connection.parts.metrics.limit_reached(limit);
    }
    match closed {
        Closed::ByClient | Closed::Stopping => tracing::debug!(%client, "connection closed"),
        Closed::Io(error) => tracing::debug!(%client, %error, "connection lost"),
        Closed::Idle => tracing::debug!(%client, "closed an idle connection"),
        Closed::Encode(error) => tracing::error!(%client, %error, "closed a connection over an answer of ours"),
        refused => tracing::info!(%client, reason = %refused, "closed a connection"),
    }
}

struct Connection {
    stream: Box<dyn Stream>,
    counters: Arc<ListenerCounters>,
    info: Arc<ConnectionInfo>,
    parts: Arc<Parts>,
    limits: Arc<ConnectionLimits>,
    reader: FrameReader,
    /// A whole frame that waits for its turn.
    next: Option<Bytes>,
    /// Taken for the frame that is arriving.
    frame_budget: Option<OwnedSemaphorePermit>,
    /// Which was not to be had at once.
    waits_for_budget: bool,
    /// Requests started, oldest first.
    pending: VecDeque<Pending>,
    writer: Writer,
    last_activity: Duration,
    frame_started: Option<Duration>,
    timer: BoxFuture<'static, ()>,
    timer_at: Duration,
}

struct Pending {
    api: &'static Api,
    version: i16,
    correlation_id: i32,
    answer: Answer,
    /// Given back when the answer is ready.
    _budget: Option<OwnedSemaphorePermit>,
}

enum Answer {
    Ready(Vec<Part>),
    Waiting(BoxFuture<'static, Result<Vec<Part>, EncodeError>>),
}

/// What the task waited for.
enum Event {
    Answer(Result<Vec<Part>, EncodeError>),
    Read(Result<usize, FrameError>),
    Budget(OwnedSemaphorePermit),
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
            // What came before the request that ends the connection is answered all the same.
            self.write_ready().await?;
            return Err(closed);
        }
        if self.write_ready().await? {
            return Ok(());
        }
        if self.parts.network.is_stopping() && self.pending.is_empty() {
            return Err(Closed::Stopping);
        }
        match self.wait().await {
            Event::Answer(parts) => self.pending[0].answer = Answer::Ready(parts?),
            Event::Read(read) => self.on_read(read?)?,
            Event::Budget(permit) => {
                self.frame_budget = Some(permit);
                self.waits_for_budget = false;
            }
            Event::Timer => self.on_timer()?,
            Event::Stopping => {}
        }
        Ok(())
    }

    async fn start_all(&mut self) -> Result<(), Closed> {
        while let Some(frame) = self.next_frame()? {
            self.start(frame).await?;
        }
        Ok(())
    }

    /// Writes the answers that are ready; whether there were any.
    async fn write_ready(&mut self) -> io::Result<bool> {
        if !self.take_ready() {
            return Ok(false);
        }
        let clock = &self.parts.env.clock;
        let last_activity = &mut self.last_activity;
        let sent = &self.counters.bytes_sent;
        let on_progress = |bytes: usize| {
            *last_activity = clock.monotonic();
            sent.add(bytes as u64);
        };
        self.writer.write_to(&mut self.stream, &self.parts.env.tasks, on_progress).await?;
        Ok(true)
    }

    /// The next request's frame, where it is complete and may start now.
    fn next_frame(&mut self) -> Result<Option<Bytes>, Closed> {
        if self.parts.network.is_stopping() {
            return Ok(None);
        }
        if self.next.is_none() {
            self.next = self.reader.take_frame()?;
            if self.next.is_some() {
                self.frame_started = self.reader.has_started().then_some(self.last_activity);
            }
        }
        Ok(self.next.take_if(|frame| may_start(&self.pending, frame)))
    }

    async fn start(&mut self, frame: Bytes) -> Result<(), Closed> {
        if frame.len() > SMALL_FRAME_BYTES {
            self.limits.free_memory.on_free(&self.parts.env);
        }
        let budget = self.frame_budget.take();
        let request_bytes = frame.len();
        let (key, version) = header::api_key_and_version(&frame)?;
        let api = api::api(key).ok_or(Closed::Unsupported { key, version })?;
        let (header, body) = RequestHeader::parse(frame, version >= api.flexible_from)?;
        if !(api.min..=api.max).contains(&version) {
            let answer = api::answer_to_unserved_version(api).ok_or(Closed::Unsupported { key, version })?;
            self.push(api, header.correlation_id, 0, Answer::Ready(answer?), None);
            return Ok(());
        }
        let ctx = RequestContext {
            parts: self.parts.clone(),
            connection: self.info.clone(),
            api_version: header.api_version,
            client_id: header.client_id,
            request_bytes,
        };
        self.parts.metrics.requests.count(api.key, version);
        match api::dispatch(&ctx, api.key, body).await? {
            Reply::Now(answer) => {
                self.push(api, header.correlation_id, header.api_version, Answer::Ready(answer?), None)
            }
            Reply::Later(answer) => {
                self.push(api, header.correlation_id, header.api_version, Answer::Waiting(answer), budget)
            }
            Reply::None => {}
            Reply::Close => return Err(Closed::WithoutAnswer),
        }
        Ok(())
    }

    fn push(
        &mut self,
        api: &'static Api,
        correlation_id: i32,
        version: i16,
        answer: Answer,
        budget: Option<OwnedSemaphorePermit>,
    ) {
        debug_assert!((0..=api.max).contains(&version));
        self.pending.push_back(Pending { api, version, correlation_id, answer, _budget: budget });
    }

    /// Moves the answers that are ready, up to the first that is not, to the writer.
    fn take_ready(&mut self) -> bool {
        let mut any = false;
        while let Some(Pending { answer: Answer::Ready(_), .. }) = self.pending.front() {
            let Some(Pending { api, version, correlation_id, answer: Answer::Ready(parts), .. }) =
                self.pending.pop_front()
            else {
                break;
            };
            let length: usize = parts.iter().map(Part::len).sum();
            self.writer.push(Part::Bytes(response_header(api, version, correlation_id, length)));
            for part in parts {
                self.writer.push(part);
            }
            any = true;
        }
        any
    }

    async fn wait(&mut self) -> Event {
        let wants_budget = self.budget_wanted();
        let may_read = wants_budget.is_none() && self.next.is_none();
        let stopping = self.parts.network.is_stopping();
        let answer = async {
            match self.pending.front_mut() {
                Some(Pending { answer: Answer::Waiting(answer), .. }) => answer.await,
                _ => std::future::pending().await,
            }
        };
        let budget = async {
            match wants_budget {
                Some(bytes) => match self.limits.budget.clone().try_acquire_many_owned(bytes) {
                    Ok(permit) => Some(permit),
                    Err(_) => {
                        if !std::mem::replace(&mut self.waits_for_budget, true) {
                            self.parts.metrics.limit_reached(Limit::QueuedMaxRequestBytes);
                        }
                        self.limits.budget.clone().acquire_many_owned(bytes).await.ok()
                    }
                },
                None => None,
            }
        };
        let read = async {
            match self.reader.space_to_read() {
                Ok(space) => Ok(self.stream.read_buf(space).await?),
                Err(error) => Err(error),
            }
        };
        tokio::select! {
            biased;
            answer = answer => Event::Answer(answer),
            Some(permit) = budget => Event::Budget(permit),
            read = read, if may_read => Event::Read(read),
            () = &mut self.timer => Event::Timer,
            () = self.parts.network.stopping(), if !stopping => Event::Stopping,
        }
    }

    /// The bytes to take from the shared budget before more of the started frame is read.
    fn budget_wanted(&self) -> Option<u32> {
        let bytes = self.reader.frame_bytes().ok()??;
        (self.frame_budget.is_none() && bytes > FREE_FRAME_BYTES)
            .then(|| bytes.min(self.limits.queued_request_bytes) as u32)
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

    /// The timer is armed seldom and looks at the clock when it rings: traffic costs no timer.
    fn on_timer(&mut self) -> Result<(), Closed> {
        let now = self.parts.env.clock.monotonic();
        let waits_for_client = self.pending.is_empty();
        let frame_due = self.frame_started.map(|started| started + self.limits.frame_deadline);
        let idle_due = self.last_activity + self.limits.idle;
        // A frame that waits for a part of the budget is late by our fault, not the client's.
        if waits_for_client && frame_due.is_some_and(|due| now >= due) && self.budget_wanted().is_none() {
            return Err(Closed::FrameDeadline);
        }
        if waits_for_client && now >= idle_due {
            return Err(Closed::Idle);
        }
        self.timer_at = Duration::MAX;
        let earliest = now + Duration::from_secs(1);
        self.arm_timer(frame_due.map_or(idle_due, |due| due.min(idle_due)).max(earliest));
        Ok(())
    }

    fn arm_timer(&mut self, at: Duration) {
        if at < self.timer_at {
            self.timer = self.parts.env.clock.sleep_until(at);
            self.timer_at = at;
        }
    }
}

/// Whether the order of answers and the bound on requests in flight let the next request start.
fn may_start(pending: &VecDeque<Pending>, frame: &[u8]) -> bool {
    if pending.is_empty() {
        return true;
    }
    let is_pipelined =
        header::api_key_and_version(frame).is_ok_and(|(key, _)| api::api(key).is_some_and(|api| api.pipelined));
    is_pipelined && pending.len() < MOST_IN_FLIGHT && pending.iter().all(|pending| pending.api.pipelined)
}

/// The frame's size and the header.
fn response_header(api: &Api, version: i16, correlation_id: i32, body_bytes: usize) -> Bytes {
    let mut header = BytesMut::with_capacity(9);
    header.put_i32(0);
    header::put_response_header(&mut header, api.key, version >= api.flexible_from, correlation_id);
    let size_bytes = header.len() - 4 + body_bytes;
    header[..4].copy_from_slice(&(size_bytes as i32).to_be_bytes());
    header.freeze()
}
