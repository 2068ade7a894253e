//! The only place that starts tasks and threads: each has a name, can be asked to stop, and is waited for.
//!
//! A group runs either on tokio, with threads for blocking work, or on one simulated thread ([`SimulatedThread`]), on
//! which the order of all work depends only on a seed. Leaves counting of running tasks to tokio-util's `TaskTracker`.
//! Owns the stop flag: every request reads it, so reading it is one atomic load, and a connection waits for it with one
//! [`Stopping`] for its whole life.
#![allow(clippy::disallowed_methods)] // These calls are allowed only here.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures_util::future::{AbortHandle, AbortRegistration, Abortable};
use tokio::{
    runtime::Handle,
    sync::{Notify, futures::OwnedNotified, oneshot},
};
use tokio_util::task::TaskTracker;

use super::{
    BoxFuture,
    aside::{Aside, AsideShare},
    lock::lock,
};

/// The one thread of a simulation: all tasks, blocking work and threads of its nodes take turns on it.
pub trait SimulatedThread: Send + Sync {
    /// Starts a task. It is never polled inside this call.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>);
    /// Starts blocking work, which takes some simulated time and then runs in one piece.
    fn spawn_blocking(&self, name: &'static str, work: Box<dyn FnOnce() + Send>);
}

/// Where the tasks of a group run.
#[derive(Clone)]
enum Executor {
    /// The runtime in which the group was created: tasks may also be started from threads outside it.
    Tokio(Option<Handle>),
    Simulated(Arc<dyn SimulatedThread>),
}

/// A group of tasks that end together. Clones share the group.
#[derive(Clone)]
pub struct Tasks {
    inner: Arc<Inner>,
}

struct Inner {
    executor: Executor,
    /// Set once, before `stop` is notified.
    is_stopping: AtomicBool,
    stop: Arc<Notify>,
    running: TaskTracker,
    aside: Aside,
    spawned: Mutex<Spawned>,
}

/// The tasks that can be aborted.
#[derive(Default)]
struct Spawned {
    next_id: u64,
    by_id: BTreeMap<u64, AbortHandle>,
}

/// Removes a task from the list when it ends, even by a panic.
struct Forget(Arc<Inner>, u64);

impl Drop for Forget {
    fn drop(&mut self) {
        self.0.spawned().by_id.remove(&self.1);
    }
}

/// Aborts a future when the one that waits for it is dropped.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Inner {
    fn spawned(&self) -> std::sync::MutexGuard<'_, Spawned> {
        lock(&self.spawned)
    }
}

impl Tasks {
    /// A group on tokio with nothing running.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Tasks {
        Tasks::on(Executor::Tokio(Handle::try_current().ok()))
    }

    /// A group on a simulated thread.
    pub fn simulated(thread: Arc<dyn SimulatedThread>) -> Tasks {
        Tasks::on(Executor::Simulated(thread))
    }

    /// Another group in the same place, which stops independently of this one.
    pub fn new_group(&self) -> Tasks {
        Tasks::on(self.inner.executor.clone())
    }

    fn on(executor: Executor) -> Tasks {
        Tasks {
            inner: Arc::new(Inner {
                executor,
                is_stopping: AtomicBool::new(false),
                stop: Arc::default(),
                running: TaskTracker::new(),
                aside: Aside::default(),
                spawned: Mutex::default(),
            }),
        }
    }

    /// Starts a task that is expected to end by itself soon after [`Tasks::stopping`] is ready.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (forget, registration) = self.remember();
        let task = Abortable::new(task, registration);
        let task = self.inner.running.track_future(async move {
            let _forget = forget;
            // An error means that the task was aborted.
            let _ = task.await;
            tracing::trace!(task = name, "ended");
        });
        match &self.inner.executor {
            Executor::Tokio(Some(runtime)) => _ = runtime.spawn(task),
            Executor::Tokio(None) => _ = tokio::spawn(task),
            Executor::Simulated(thread) => thread.spawn(name, Box::pin(task)),
        }
    }

    fn remember(&self) -> (Forget, AbortRegistration) {
        let (handle, registration) = AbortHandle::new_pair();
        let mut spawned = self.inner.spawned();
        let id = spawned.next_id;
        spawned.next_id += 1;
        spawned.by_id.insert(id, handle);
        (Forget(self.inner.clone(), id), registration)
    }

    /// Starts a task that is dropped at its current await point once the group stops.
    pub fn spawn_until_stopped(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping();
        self.spawn(name, async move {
            tokio::select! {
                biased;
                () = stopping => {}
                () = task => {}
            }
        });
    }

    /// Runs a future as a task of its own and waits for it, wherever the caller runs. If the caller is dropped, the
    /// task is aborted. `None` if this group stops first.
    pub async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (work, abort) = futures_util::future::abortable(work);
        let _abort = AbortOnDrop(abort);
        let (done, value) = oneshot::channel();
        self.spawn_until_stopped(name, async move {
            let _ = done.send(work.await);
        });
        value.await.ok()?.ok()
    }

    /// Runs `work` on the blocking pool: fsync, cold reads, anything that may wait for a disk.
    /// A panic inside is passed on to the caller.
    pub async fn blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let running = self.inner.running.token();
        let work = move || {
            let _running = running;
            work()
        };
        let joined = match &self.inner.executor {
            Executor::Tokio(_) => tokio::task::spawn_blocking(work).await,
            Executor::Simulated(thread) => {
                let (done, value) = oneshot::channel();
                thread.spawn_blocking(name, Box::new(move || _ = done.send(work())));
                match value.await {
                    Ok(value) => Ok(value),
                    // The node has crashed.
                    Err(_) => std::future::pending().await,
                }
            }
        };
        match joined {
            Ok(value) => value,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Only a runtime that is being dropped cancels blocking work; nobody waits for the result any more.
            Err(_) => {
                tracing::debug!(task = name, "the runtime ended first");
                std::future::pending().await
            }
        }
    }

    /// Waits for a share of the memory for large requests. A request for more than the total gets all of it.
    pub async fn reserve_large_request_memory(&self, bytes: usize) -> AsideShare {
        self.inner.aside.share(bytes).await
    }

    /// Runs `work` of a request of `request_bytes`, which may compute for long, on separate threads, so that it does
    /// not delay small requests. If the caller drops the future, the work ends at its next await point.
    pub async fn aside<F>(&self, name: &'static str, request_bytes: usize, work: F) -> F::Output
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let running = self.inner.running.token();
        let work = async move {
            let _running = running;
            let output = work.await;
            tracing::trace!(task = name, "ended");
            output
        };
        match &self.inner.executor {
            Executor::Tokio(_) => match self.inner.aside.spawn(request_bytes, work) {
                Ok(task) => task.await,
                Err(work) => work.await,
            },
            Executor::Simulated(_) => work.await,
        }
    }

    /// Lets other tasks run first.
    pub async fn yield_now(&self) {
        tokio::task::yield_now().await;
    }

    /// Starts `work` on the blocking pool, for a caller that does not wait for it.
    pub fn start_blocking(&self, name: &'static str, work: impl FnOnce() + Send + 'static) {
        let running = self.inner.running.token();
        let work = move || {
            let _running = running;
            work();
            tracing::trace!(task = name, "ended");
        };
        match &self.inner.executor {
            Executor::Tokio(Some(runtime)) => _ = runtime.spawn_blocking(work),
            Executor::Tokio(None) => _ = tokio::task::spawn_blocking(work),
            Executor::Simulated(thread) => thread.spawn_blocking(name, Box::new(work)),
        }
    }

    /// Starts a separate thread for `work`, which has its own loop and may wait for disks.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn spawn_thread(
        &self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let running = self.inner.running.token();
        let work = async move {
            let _running = running;
            work.await;
        };
        match &self.inner.executor {
            Executor::Tokio(runtime) => {
                let runtime = runtime.clone().unwrap_or_else(Handle::current);
                std::thread::Builder::new().name(name.into()).spawn(move || runtime.block_on(work))?;
            }
            Executor::Simulated(thread) => thread.spawn(name, Box::pin(work)),
        }
        Ok(())
    }

    /// Does `work` for each item on up to `threads` threads, and returns the results in the order of the items. Blocks
    /// the calling thread until all are done.
    pub fn in_parallel<T: Send, R: Send>(&self, threads: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
        let threads = threads.min(items.len());
        if threads < 2 || matches!(self.inner.executor, Executor::Simulated(_)) {
            return items.into_iter().map(work).collect();
        }
        let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
        let queue = Mutex::new(items.into_iter().enumerate());
        std::thread::scope(|scope| {
            let worker = || {
                loop {
                    // A statement of its own, so that the lock is not held during the work.
                    let next = lock(&queue).next();
                    let Some((at, item)) = next else { return };
                    *lock(&results[at]) = Some(work(item));
                }
            };
            for _ in 1..threads {
                scope.spawn(worker);
            }
            worker();
        });
        let result = |result: Mutex<Option<R>>| result.into_inner().ok().flatten();
        results.into_iter().map(|done| result(done).expect("a panic of a worker ends the scope")).collect()
    }

    /// A future that is ready once the group was asked to stop.
    pub fn stopping(&self) -> Stopping {
        let notified = Box::pin(self.inner.stop.clone().notified_owned());
        Stopping { inner: self.inner.clone(), notified, registered: None }
    }

    /// Whether the group was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.inner.is_stopping.load(Ordering::Acquire)
    }

    /// Asks the group to stop, without waiting.
    pub fn stop(&self) {
        self.inner.is_stopping.store(true, Ordering::Release);
        self.inner.stop.notify_waiters();
    }

    /// Aborts the tasks that still run: each is dropped at its current await point. Returns how many there were.
    pub fn abort(&self) -> usize {
        // Abort outside the lock, because the end of a task takes it.
        let handles: Vec<_> = self.inner.spawned().by_id.values().cloned().collect();
        for handle in &handles {
            handle.abort();
        }
        handles.len()
    }

    /// Asks the group to stop and waits until all its work has ended.
    pub async fn shutdown(&self) {
        self.stop();
        self.inner.running.close();
        self.inner.running.wait().await;
    }
}

/// Ready once a group was asked to stop, and always after that. It may be polled each time a task wakes up: only the
/// first poll of a task takes the lock that all waiters share.
pub struct Stopping {
    inner: Arc<Inner>,
    /// Created before the flag is read, so that a stop in between is not missed.
    notified: Pin<Box<OwnedNotified>>,
    /// The waker that `notified` wakes.
    registered: Option<Waker>,
}

impl Future for Stopping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.inner.is_stopping.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        if self.registered.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        let notified = self.notified.as_mut().poll(cx);
        if notified.is_pending() {
            self.registered = Some(cx.waker().clone());
        }
        notified
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn tasks_are_started_from_threads_too() {
        let tasks = Tasks::new();
        let (done, is_done) = tokio::sync::oneshot::channel();
        let starter = tasks.clone();
        tasks
            .spawn_thread("starts a task", async move {
                starter.spawn("answers", async move { done.send(7).unwrap() });
            })
            .unwrap();
        assert_eq!(is_done.await, Ok(7));
    }

    #[tokio::test]
    async fn a_task_that_is_aborted_is_dropped_where_it_waits() {
        let tasks = Tasks::new();
        let held = Arc::new(());
        let holds = held.clone();
        tasks.spawn("holds", async move {
            std::future::pending::<()>().await;
            drop(holds);
        });
        tasks.spawn("ends", async {});
        tokio::task::yield_now().await;
        assert_eq!(tasks.abort(), 1, "the other has ended by itself");
        tasks.shutdown().await;
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(tasks.abort(), 0);
    }

    #[tokio::test]
    async fn shutdown_waits_for_all_that_runs() {
        let tasks = Tasks::new();
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..10 {
            let (tasks, done) = (tasks.clone(), done.clone());
            tasks.clone().spawn("waits", async move {
                tasks.stopping().await;
                tokio::task::yield_now().await;
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        tasks.spawn_until_stopped("never ends by itself", std::future::pending());
        tasks.shutdown().await;
        assert_eq!(done.load(Ordering::Relaxed), 10);
        assert_eq!(tasks.blocking("adds", || 1 + 1).await, 2);
    }

    #[tokio::test]
    async fn shutdown_waits_for_a_task_that_panics_and_for_a_thread() {
        let tasks = Tasks::new();
        let (end, must_end) = std::sync::mpsc::channel();
        let ended = Arc::new(AtomicBool::new(false));
        let has_ended = ended.clone();
        tasks
            .spawn_thread("ends late", async move {
                must_end.recv().unwrap();
                has_ended.store(true, Ordering::Relaxed);
            })
            .unwrap();
        tasks.spawn("panics", async { panic!("expected by the test") });
        let stopping = tasks.stopping();
        tasks.spawn("lets the thread end", async move {
            stopping.await;
            end.send(()).unwrap();
        });
        tasks.shutdown().await;
        assert!(ended.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn work_in_parallel_keeps_the_order_of_its_items() {
        let tasks = Tasks::new();
        let both = std::sync::Barrier::new(2);
        let results = tasks.in_parallel(2, (0..100).collect(), |item| {
            if item < 2 {
                // Each of the two threads does one of the first two items.
                both.wait();
            }
            item * 2
        });
        assert_eq!(results, (0..100).map(|item| item * 2).collect::<Vec<_>>());
        assert!(tasks.in_parallel(5, Vec::<u8>::new(), |item| item).is_empty());
    }

    struct Wakes(AtomicUsize);

    impl std::task::Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn stopping_wakes_the_task_that_polled_last() {
        let tasks = Tasks::new();
        let wakes = [(); 2].map(|()| Arc::new(Wakes(AtomicUsize::new(0))));
        let mut stopping = std::pin::pin!(tasks.stopping());
        for task in [0, 0, 1, 1] {
            let waker = wakes[task].clone().into();
            assert_eq!(stopping.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
        }
        assert!(!tasks.is_stopping());
        tasks.stop();
        assert!(tasks.is_stopping());
        assert_eq!(wakes.each_ref().map(|wakes| wakes.0.load(Ordering::Relaxed)), [0, 1]);
        for _ in 0..2 {
            assert_eq!(stopping.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
        }
        // A future that is created later is ready at once.
        assert_eq!(std::pin::pin!(tasks.stopping()).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
    }
}
