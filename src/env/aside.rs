//! Threads and memory for requests that are much work, beside those that serve connections.
//!
//! The system shares the processors among all threads, and these have a lower priority. So a request that computes for
//! seconds delays others of its kind at most, never the small requests of other clients. The threads start with the first
//! such request.
//!
//! What such requests hold while they are worked on is bounded together. The unit is an estimate from the request's bytes,
//! before anything is decoded.
#![allow(clippy::disallowed_methods)] // The seam itself.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};

const THREADS: usize = 4;
/// Between the priority of the other threads (0) and the lowest (19): about a third of a processor that both want.
const NICE: i32 = 5;

/// What large requests hold together, about. One that would take more takes all of it.
const MEMORY_BYTES: u32 = 64 << 20;

/// See the module.
pub(super) struct Aside {
    runtime: OnceLock<Option<Runtime>>,
    memory: Arc<Semaphore>,
}

impl Default for Aside {
    fn default() -> Self {
        Aside { runtime: OnceLock::new(), memory: Arc::new(Semaphore::new(MEMORY_BYTES as usize)) }
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

    /// Starts `work` there. `Err` gives it back where no thread can be had.
    pub(super) fn spawn<F>(&self, work: F) -> Result<AsideTask<F::Output>, F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let runtime = self.runtime.get_or_init(|| {
            let started = Builder::new_multi_thread()
                .worker_threads(THREADS)
                .thread_name("aside")
                .enable_time()
                .on_thread_start(lower_priority)
                .build();
            started.inspect_err(|error| tracing::warn!(%error, "cannot start threads for large requests")).ok()
        });
        match runtime {
            Some(runtime) => Ok(AsideTask(runtime.spawn(work))),
            None => Err(work),
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(Some(runtime)) = self.runtime.take() {
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
pub(super) struct AsideTask<T>(JoinHandle<T>);

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
    }
}
