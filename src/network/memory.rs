//! The limits of the memory that clients use (INV-S2): for requests while they arrive and are processed, and for
//! responses that are not read.
//!
//! Requests take memory in steps as their bytes arrive, so a length without data takes none. If no memory is left, one
//! request at a time may exceed the limit, so that partly received requests cannot block each other. Responses are
//! counted once they are made; while they exceed the limit, no further request is started. Leaves the decision which
//! client is too slow to `connection.rs`.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The memory that a request takes in one step.
const STEP_BYTES: usize = 256 << 10;

/// The memory of all requests.
pub(super) struct RequestMemory {
    bytes: Arc<Semaphore>,
    /// The permit to exceed the limit.
    beyond: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// The share of one request. It is returned when dropped.
#[derive(Default)]
pub(super) struct RequestShare {
    permit: Option<OwnedSemaphorePermit>,
    held_bytes: usize,
    beyond: Option<OwnedSemaphorePermit>,
}

impl RequestMemory {
    pub(super) fn new(bytes: usize) -> Arc<RequestMemory> {
        Arc::new(RequestMemory {
            bytes: Arc::new(Semaphore::new(bytes.clamp(1, Semaphore::MAX_PERMITS))),
            beyond: Arc::new(Semaphore::new(1)),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Whether a request waits for memory.
    pub(super) fn is_contended(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Takes `bytes` at once, if they are available.
    pub(super) fn try_take(&self, bytes: usize) -> Option<RequestShare> {
        let permit = self.bytes.clone().try_acquire_many_owned(permits(bytes)).ok()?;
        Some(RequestShare { permit: Some(permit), held_bytes: bytes, beyond: None })
    }

    /// Waits for `bytes`, or for the permit to exceed the limit.
    pub(super) async fn take(&self, bytes: usize) -> RequestShare {
        let _waiting = Waiting::new(&self.waiting);
        tokio::select! {
            biased;
            Ok(permit) = self.bytes.clone().acquire_many_owned(permits(bytes)) => {
                RequestShare { permit: Some(permit), held_bytes: bytes, beyond: None }
            }
            Ok(beyond) = self.beyond.clone().acquire_owned() => {
                RequestShare { permit: None, held_bytes: 0, beyond: Some(beyond) }
            }
            else => std::future::pending().await,
        }
    }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl RequestShare {
    /// The memory that must be taken before more is read of a frame of `frame_bytes`, of which `arrived_bytes` have
    /// arrived; 0 if none. Both numbers include the frame's length field.
    pub(super) fn missing_bytes(&self, frame_bytes: usize, arrived_bytes: usize) -> usize {
        if self.beyond.is_some() || arrived_bytes < self.held_bytes {
            return 0;
        }
        (arrived_bytes + STEP_BYTES).min(frame_bytes).saturating_sub(self.held_bytes)
    }

    /// The number of bytes that may be read of a frame of which `arrived_bytes` have arrived.
    pub(super) fn room_bytes(&self, arrived_bytes: usize) -> usize {
        if self.beyond.is_some() { usize::MAX } else { self.held_bytes.saturating_sub(arrived_bytes) }
    }

    pub(super) fn add(&mut self, more: RequestShare) {
        match (&mut self.permit, more.permit) {
            (Some(permit), Some(more)) => permit.merge(more),
            (permit, more @ Some(_)) => *permit = more,
            (_, None) => {}
        }
        self.held_bytes += more.held_bytes;
        self.beyond = self.beyond.take().or(more.beyond);
    }
}

/// The memory of all responses.
pub(super) struct AnswerMemory {
    used_bytes: AtomicUsize,
    most_bytes: usize,
    freed: Notify,
}

impl AnswerMemory {
    pub(super) fn new(most_bytes: usize) -> Arc<AnswerMemory> {
        Arc::new(AnswerMemory { used_bytes: AtomicUsize::new(0), most_bytes, freed: Notify::new() })
    }

    /// Whether the responses exceed the limit.
    pub(super) fn is_full(&self) -> bool {
        self.used_bytes.load(Ordering::Acquire) > self.most_bytes
    }

    /// Waits until the responses are within the limit.
    pub(super) async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            if !self.is_full() {
                return;
            }
            freed.await;
        }
    }

    /// A share for the responses of one connection.
    pub(super) fn share(self: &Arc<Self>) -> AnswerShare {
        AnswerShare { memory: self.clone(), bytes: AtomicUsize::new(0) }
    }
}

/// The memory of one connection's responses. It is returned when dropped.
pub(super) struct AnswerShare {
    memory: Arc<AnswerMemory>,
    bytes: AtomicUsize,
}

impl AnswerShare {
    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.memory.used_bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(super) fn give_back(&self, bytes: usize) {
        let bytes = bytes.min(self.bytes.load(Ordering::Relaxed));
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let before = self.memory.used_bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before > self.memory.most_bytes && before - bytes <= self.memory.most_bytes {
            self.memory.freed.notify_waiters();
        }
    }
}

impl Drop for AnswerShare {
    fn drop(&mut self) {
        self.give_back(self.bytes.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn inv_s2_a_length_takes_nothing_and_bytes_take_a_step_ahead() {
        let share = RequestShare::default();
        assert_eq!(share.missing_bytes(100 << 20, 0), STEP_BYTES);
        assert_eq!(share.missing_bytes(40_000, 32_000), 40_000);
        let memory = RequestMemory::new(1 << 20);
        let mut share = memory.try_take(STEP_BYTES).unwrap();
        assert_eq!((share.missing_bytes(100 << 20, STEP_BYTES - 1), share.room_bytes(STEP_BYTES - 1)), (0, 1));
        assert_eq!(share.missing_bytes(100 << 20, STEP_BYTES), STEP_BYTES);
        share.add(memory.try_take(3 * STEP_BYTES).unwrap());
        assert!(memory.try_take(1).is_none());
        drop(share);
        assert!(memory.try_take(4 * STEP_BYTES).is_some());
    }

    /// If an incomplete frame had no room for a read, the empty read would look like the end of the connection.
    #[test]
    fn inv_s2_there_is_room_until_the_whole_frame_is_here() {
        for frame_bytes in [40_000, STEP_BYTES, STEP_BYTES + 4, STEP_BYTES + 5, 3 * STEP_BYTES + 1] {
            let memory = RequestMemory::new(frame_bytes);
            let (mut share, mut arrived_bytes) = (RequestShare::default(), 4);
            while arrived_bytes < frame_bytes {
                match share.missing_bytes(frame_bytes, arrived_bytes) {
                    0 => arrived_bytes += share.room_bytes(arrived_bytes).min(30_000),
                    missing => share.add(memory.try_take(missing).expect("the frame fits")),
                }
                let may_go_on =
                    share.missing_bytes(frame_bytes, arrived_bytes) > 0 || share.room_bytes(arrived_bytes) > 0;
                assert!(may_go_on || arrived_bytes >= frame_bytes, "stuck at {arrived_bytes} of {frame_bytes}");
            }
        }
    }

    #[test]
    fn inv_s2_one_request_at_a_time_goes_on_beyond_the_bound() {
        let memory = RequestMemory::new(STEP_BYTES);
        let held = memory.try_take(STEP_BYTES).unwrap();
        assert!(!memory.is_contended());
        let mut first = memory.take(STEP_BYTES).now_or_never().expect("the first may exceed the limit");
        assert_eq!(first.missing_bytes(100 << 20, 50 << 20), 0);
        let mut second = Box::pin(memory.take(STEP_BYTES));
        assert!((&mut second).now_or_never().is_none());
        assert!(memory.is_contended());
        drop(held);
        first.add(second.now_or_never().expect("memory was returned"));
        assert!(!memory.is_contended());
    }

    #[tokio::test]
    async fn inv_s2_answers_that_are_read_make_room() {
        let memory = AnswerMemory::new(100);
        let (a, b) = (memory.share(), memory.share());
        a.add(90);
        assert!(!memory.is_full());
        b.add(20);
        assert!(memory.is_full());
        let room = memory.room();
        tokio::pin!(room);
        assert!((&mut room).now_or_never().is_none());
        a.give_back(50);
        room.await;
        drop(b);
        a.give_back(1000);
        assert_eq!(memory.used_bytes.load(Ordering::Relaxed), 0);
    }
}
