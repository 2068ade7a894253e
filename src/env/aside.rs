//! Owns separate threads and a memory limit for expensive requests.
//!
//! The system shares the processors among all threads, and these threads have a lower priority. So a request that
//! computes for seconds delays only other expensive requests, never small requests of other clients. The threads start
//! with the first such request.
//!
//! One limit bounds the memory of all such requests together. The memory is estimated from the request's size before it
//! is decoded.
#![allow(clippy::disallowed_methods)] // These calls are allowed only here.

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

/// Number of threads for requests below `LARGEST_FROM_BYTES`, and for larger ones. The larger ones share one thread,
/// because the allocator keeps the memory of the largest request for each thread.
const THREADS: usize = 3;
const THREADS_FOR_LARGEST: usize = 1;
const LARGEST_FROM_BYTES: usize = 128 << 10;
/// Between the priority of the other threads (0) and the lowest (19): gives about a third of a processor that both
/// need.
const NICE: i32 = 5;

/// Approximate memory of all large requests together. A request that needs more gets all of it.
const MEMORY_BYTES: u32 = 64 << 20;

/// Both thread groups and the memory limit; see the module.
pub(super) struct Aside {
    small: Threads,
    large: Threads,
    memory: Arc<Semaphore>,
}

/// A group of threads.
struct Threads {
    count: usize,
    /// None before the first request.
    runtime: Mutex<Option<Runtime>>,
}

impl Default for Aside {
    fn default() -> Self {
        let [small, large] = [THREADS, THREADS_FOR_LARGEST].map(|count| Threads { count, runtime: Mutex::default() });
        Aside { small, large, memory: Arc::new(Semaphore::new(MEMORY_BYTES as usize)) }
    }
}

/// A part of the memory for large requests. Dropping it releases the memory.
pub struct AsideShare(#[allow(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit);

impl Aside {
    /// Waits until `bytes` of the memory are free.
    pub(super) async fn share(&self, bytes: usize) -> AsideShare {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(MEMORY_BYTES);
        match self.memory.clone().acquire_many_owned(permits).await {
            Ok(permit) => AsideShare(permit),
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }

    /// Starts the work of a request of `request_bytes`. Returns it as `Err` if no thread can be started.
    pub(super) fn spawn<F>(&self, request_bytes: usize, work: F) -> Result<AsideTask<F::Output>, F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        if request_bytes >= LARGEST_FROM_BYTES { self.large.spawn(work) } else { self.small.spawn(work) }
    }
}

impl Threads {
    fn spawn<F>(&self, work: F) -> Result<AsideTask<F::Output>, F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let mut runtime = lock(&self.runtime);
        if runtime.is_none() {
            let started = Builder::new_multi_thread()
                .worker_threads(self.count)
                .thread_name("aside")
                .enable_time()
                .on_thread_start(lower_priority)
                .build();
            *runtime =
                started.inspect_err(|error| tracing::warn!(%error, "cannot start threads for large requests")).ok();
        }
        match &*runtime {
            Some(runtime) => Ok(AsideTask(runtime.spawn(work))),
            None => Err(work),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_background();
        }
    }
}

/// Not every system allows it; then these threads keep the normal priority.
fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
        tracing::debug!(%error, "cannot lower the priority of a thread");
    }
}

/// Work on the separate threads. Dropping this ends it at its current await point. A panic is passed on.
pub(super) struct AsideTask<T>(JoinHandle<T>);

impl<T> Future for AsideTask<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.0).poll(context) {
            Poll::Ready(Ok(value)) => Poll::Ready(value),
            Poll::Ready(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The process is ending: nobody waits for the result.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl<T> Drop for AsideTask<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
