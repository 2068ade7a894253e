//! The only place that starts tasks and threads: each has a name, is told to stop, and is
//! waited for.
#![allow(clippy::disallowed_methods)] // The seam itself.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::aside::Aside;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};

/// A group of tasks that end together. Clones share the group.
#[derive(Clone)]
pub struct Tasks {
    inner: Arc<Inner>,
}

struct Inner {
    /// The runtime that the group was made in: work is started from threads of our own, too.
    runtime: Option<Handle>,
    stop: watch::Sender<bool>,
    running: AtomicUsize,
    ended: Notify,
    aside: Aside,
}

/// Counts a running task, whatever way it ends.
struct Running(Arc<Inner>);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

impl Tasks {
    /// A group with nothing running.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Tasks {
        Tasks {
            inner: Arc::new(Inner {
                runtime: Handle::try_current().ok(),
                stop: watch::Sender::new(false),
                running: AtomicUsize::new(0),
                ended: Notify::new(),
                aside: Aside::default(),
            }),
        }
    }

    /// Starts a task that is expected to end by itself soon after [`Tasks::stopping`] is ready.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let running = self.running();
        let task = async move {
            let _running = running;
            task.await;
            tracing::trace!(task = name, "ended");
        };
        match &self.inner.runtime {
            Some(runtime) => runtime.spawn(task),
            None => tokio::spawn(task),
        };
    }

    /// Starts a task that is dropped where it waits once the group stops.
    pub fn spawn_until_stopped(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let tasks = self.clone();
        self.spawn(name, async move {
            tokio::select! {
                biased;
                () = tasks.stopping() => {}
                () = task => {}
            }
        });
    }

    /// Runs `work` on the blocking pool: fsync, cold reads, anything that may wait for a disk.
    /// A panic inside is passed on to the caller.
    pub async fn blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let running = self.running();
        let joined = tokio::task::spawn_blocking(move || {
            let _running = running;
            work()
        })
        .await;
        match joined {
            Ok(value) => value,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Only a runtime that is being dropped cancels blocking work; nobody is left to be told.
            Err(_) => {
                tracing::debug!(task = name, "the runtime ended first");
                std::future::pending().await
            }
        }
    }

    /// Runs `work`, which may compute for long, on threads where it delays nobody who does little. Where the caller stops
    /// waiting, the work ends the next time it waits.
    pub async fn aside<F>(&self, name: &'static str, work: F) -> F::Output
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let running = self.running();
        let work = async move {
            let _running = running;
            let output = work.await;
            tracing::trace!(task = name, "ended");
            output
        };
        match self.inner.aside.spawn(work) {
            Ok(task) => task.await,
            Err(work) => work.await,
        }
    }

    /// Lets others run first.
    pub async fn yield_now(&self) {
        tokio::task::yield_now().await;
    }

    /// Starts a thread of its own, for work that owns its loop.
    pub fn spawn_thread(&self, name: &'static str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let running = self.running();
        std::thread::Builder::new().name(name.into()).spawn(move || {
            let _running = running;
            work();
        })?;
        Ok(())
    }

    /// Ready once the group has been told to stop.
    pub async fn stopping(&self) {
        let mut stop = self.inner.stop.subscribe();
        // The sender lives as long as `self`, so this ends only with the value.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Whether the group has been told to stop.
    pub fn is_stopping(&self) -> bool {
        *self.inner.stop.borrow()
    }

    /// Tells the group to stop, without waiting.
    pub fn stop(&self) {
        self.inner.stop.send_replace(true);
    }

    /// Tells the group to stop and waits until nothing of it runs.
    pub async fn shutdown(&self) {
        self.stop();
        loop {
            let ended = self.inner.ended.notified();
            if self.inner.running.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }

    fn running(&self) -> Running {
        self.inner.running.fetch_add(1, Ordering::AcqRel);
        Running(self.inner.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_are_started_from_threads_too() {
        let tasks = Tasks::new();
        let (done, is_done) = tokio::sync::oneshot::channel();
        let starter = tasks.clone();
        tasks
            .spawn_thread("starts a task", move || {
                starter.spawn("answers", async move { done.send(7).unwrap() });
            })
            .unwrap();
        assert_eq!(is_done.await, Ok(7));
    }

    #[tokio::test]
    async fn shutdown_waits_for_all_that_runs() {
        let tasks = Tasks::new();
        let (done, mut is_done) = watch::channel(0);
        let done = Arc::new(done);
        for _ in 0..10 {
            let (tasks, done) = (tasks.clone(), done.clone());
            tasks.clone().spawn("waits", async move {
                tasks.stopping().await;
                tokio::task::yield_now().await;
                done.send_modify(|count| *count += 1);
            });
        }
        tasks.spawn_until_stopped("never ends by itself", std::future::pending());
        tasks.shutdown().await;
        assert_eq!(*is_done.borrow_and_update(), 10);
        assert_eq!(tasks.blocking("adds", || 1 + 1).await, 2);
    }
}
