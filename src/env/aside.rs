//! Threads and memory for requests that are much work, beside those that serve connections.
//!
//! The system shares the processors among all threads, and these have a lower priority. So a request that computes for
//! seconds delays others of its kind at most, never the small requests of other clients. The threads start with the
//! first such request, and end when there has been none for a while.
//!
//! What such requests hold while they are worked on is bounded together. The unit is an estimate from the request's
//! bytes, before anything is decoded.
#![allow(clippy::disallowed_methods)] // The seam itself.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};

use super::lock::lock;

/// Threads for requests of so many bytes, and for larger ones. The latter take turns on one thread: the allocator keeps
/// for each thread what the largest of its requests took.
const THREADS: usize = 3;
const THREADS_FOR_LARGEST: usize = 1;
const LARGEST_FROM_BYTES: usize = 128 << 10;
/// Between the priority of the other threads (0) and the lowest (19): about a third of a processor that both want.
const NICE: i32 = 5;

/// What large requests hold together, about. One that would take more takes all of it.
const MEMORY_BYTES: u32 = 64 << 20;

/// See the module.
pub(super) struct Aside {
    small: Arc<Threads>,
    large: Arc<Threads>,
    memory: Arc<Semaphore>,
}

/// Some threads, while they are wanted.
struct Threads {
    count: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    runtime: Option<Runtime>,
    /// Requests that run there.
    running: usize,
}

impl Default for Aside {
    fn default() -> Self {
        let [small, large] =
            [THREADS, THREADS_FOR_LARGEST].map(|count| Arc::new(Threads { count, state: Mutex::default() }));
        Aside { small, large, memory: Arc::new(Semaphore::new(MEMORY_BYTES as usize)) }
    }
}

/// A part of the memory for large requests. Given back when dropped.
pub struct AsideShare(#[allow(dead_code, reason = "it is there to be dropped")] OwnedSemaphorePermit);

impl Aside {
    /// Waits for its turn, and for so much memory.
    pub(super) async fn share(&self, bytes: usize) -> AsideShare {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(MEMORY_BYTES);
        match self.memory.clone().acquire_many_owned(permits).await {
            Ok(permit) => AsideShare(permit),
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }

    /// Starts the work for a request of so many bytes. `Err` gives it back where no thread can be had.
    pub(super) fn spawn<F>(&self, request_bytes: usize, work: F) -> Result<AsideTask<F::Output>, F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        if request_bytes >= LARGEST_FROM_BYTES { self.large.spawn(work) } else { self.small.spawn(work) }
    }

    /// Ends threads that have no work: what the allocator keeps for a thread goes back to the system only then.
    pub(super) fn end_idle_threads(&self) {
        self.small.end_if_idle();
        self.large.end_if_idle();
    }
}

impl Threads {
    fn spawn<F>(self: &Arc<Self>, work: F) -> Result<AsideTask<F::Output>, F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let mut state = lock(&self.state);
        if state.runtime.is_none() {
            let started = Builder::new_multi_thread()
                .worker_threads(self.count)
                .thread_name("aside")
                .enable_time()
                .on_thread_start(lower_priority)
                .build();
            state.runtime =
                started.inspect_err(|error| tracing::warn!(%error, "cannot start threads for large requests")).ok();
        }
        match &state.runtime {
            Some(runtime) => {
                let task = runtime.spawn(work);
                state.running += 1;
                Ok(AsideTask(task, self.clone()))
            }
            None => Err(work),
        }
    }

    fn end_if_idle(&self) {
        let mut state = lock(&self.state);
        let idle = if state.running == 0 { state.runtime.take() } else { None };
        drop(state);
        if let Some(runtime) = idle {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = lock(&self.state).runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Not every system allows it; then these threads are as good as the others.
fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
        tracing::debug!(%error, "cannot lower the priority of a thread");
    }
}

/// Work that runs aside. It ends where it waits when this is dropped. A panic is passed on.
pub(super) struct AsideTask<T>(JoinHandle<T>, Arc<Threads>);

impl<T> Future for AsideTask<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.0).poll(context) {
            Poll::Ready(Ok(value)) => Poll::Ready(value),
            Poll::Ready(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The process ends: nobody is left to be told.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl<T> Drop for AsideTask<T> {
    fn drop(&mut self) {
        self.0.abort();
        lock(&self.1.state).running -= 1;
    }
}
