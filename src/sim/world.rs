//! One thread on which simulated nodes take turns: their tasks, blocking work, threads and timers.
//!
//! Owns simulated time, the order of everything that can run, and which nodes run, are paused or have crashed. The seed
//! chooses among all tasks that are ready, so different seeds show different orders, and one seed always shows the
//! same. Computing takes no simulated time; time moves on when nothing is ready. Leaves the network to `net.rs` and the
//! disks to `disk.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use crate::{
    env::{BoxFuture, Clock, Env, Random, SystemRandom, Tasks, tasks::SimulatedThread},
    sim::{SimDisk, locked, net::SimNet},
    types::TimestampMs,
};

/// The number of a node. A node is one process on a host of its own.
pub type NodeId = u32;

/// Wall time at the start of each simulation, in ms: 2026-01-01.
const START_MS: TimestampMs = 1_767_225_600_000;
/// The longest that one piece of blocking work takes, in µs, unless [`World::set_slow_disk`] changes it.
const BLOCKING_MICROS: u64 = 500;
/// The steps between two calls of the probe: most steps change nothing that it looks at.
const PROBE_STEPS: u64 = 32;

/// A simulation. Clones share it.
#[derive(Clone)]
pub struct World {
    inner: Arc<Inner>,
}

/// Owns a simulation: when it is dropped, all tasks end.
pub struct Simulation(World);

impl Simulation {
    /// A simulation without nodes, at time 0.
    pub fn new(seed: u64) -> Simulation {
        let inner = Inner { random: SystemRandom::seeded(seed), state: Mutex::default(), probe: Mutex::default() };
        Simulation(World { inner: Arc::new(inner) })
    }
}

impl Deref for Simulation {
    type Target = World;

    fn deref(&self) -> &World {
        &self.0
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        let tasks = {
            let mut state = self.inner.state();
            state.running.clear();
            std::mem::take(&mut state.tasks)
        };
        *locked(&self.inner.probe) = None;
        // Outside the lock: dropping a task wakes others.
        drop(tasks);
    }
}

struct Inner {
    random: SystemRandom,
    state: Mutex<State>,
    probe: Mutex<Option<Probe>>,
}

/// A check of the nodes that runs between two steps.
type Probe = Box<dyn FnMut() + Send>;

#[derive(Default)]
struct State {
    now: Duration,
    next_id: u64,
    tasks: BTreeMap<u64, SimTask>,
    /// The tasks that can run.
    ready: Vec<u64>,
    /// By time, then in the order in which they were set.
    timers: BTreeMap<(Duration, u64), Waker>,
    paused: BTreeSet<NodeId>,
    /// The nodes that run; the number counts their starts, so that a task of an earlier start is not taken for one of
    /// this start.
    running: BTreeMap<NodeId, u64>,
    starts: u64,
    /// The longest blocking work on nodes with a slow disk, in µs.
    slow: BTreeMap<NodeId, u64>,
    steps: u64,
    /// A checksum of all steps so far.
    trace: u64,
}

struct SimTask {
    /// `None` while it is polled.
    future: Option<BoxFuture<'static, ()>>,
    node: NodeId,
    name: &'static str,
    waker: Waker,
    /// It is in `State::ready`.
    is_ready: Arc<AtomicBool>,
}

/// Wakes one task.
struct TaskWaker {
    id: u64,
    world: Weak<Inner>,
    /// It is in `State::ready`.
    is_ready: Arc<AtomicBool>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.is_ready.swap(true, Ordering::AcqRel)
            && let Some(world) = self.world.upgrade()
        {
            world.state().ready.push(self.id);
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    /// The time since the start of the simulation.
    pub fn now(&self) -> Duration {
        self.inner.state().now
    }

    /// The seeded numbers of the simulation itself.
    pub fn random(&self) -> &dyn Random {
        &self.inner.random
    }

    /// A checksum of all steps so far: two runs of one seed must agree.
    pub fn trace(&self) -> u64 {
        self.inner.state().trace
    }

    /// Starts a node, which must not be running. `skew_ms` is how far its wall clock is ahead.
    pub fn start_node(&self, node: NodeId, disk: SimDisk, net: &SimNet, skew_ms: i64) -> Env {
        let start = {
            let mut state = self.inner.state();
            state.starts += 1;
            let start = state.starts;
            assert!(state.running.insert(node, start).is_none(), "node {node} runs already");
            start
        };
        let thread = NodeThread { world: self.clone(), node, start };
        Env {
            clock: Arc::new(NodeClock { world: self.clone(), skew_ms }),
            disk: Arc::new(disk),
            net: Arc::new(net.of(node)),
            random: Arc::new(SystemRandom::seeded(self.inner.random.next_u64())),
            tasks: Tasks::simulated(Arc::new(thread)),
        }
    }

    /// The clock of the world.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(NodeClock { world: self.clone(), skew_ms: 0 })
    }

    /// Ends a node at once, as `kill -9` does: nothing of it runs any more. The system closes its connections.
    pub fn crash(&self, node: NodeId) {
        let dropped: Vec<_> = {
            let mut state = self.inner.state();
            state.running.remove(&node);
            state.paused.remove(&node);
            let ids: Vec<u64> = state.tasks.iter().filter(|(_, task)| task.node == node).map(|(id, _)| *id).collect();
            ids.iter().filter_map(|id| state.tasks.remove(id)).collect()
        };
        // Outside the lock: dropping a task wakes others.
        drop(dropped);
    }

    /// Stops a node for a while, as SIGSTOP does: the others see that it does not answer.
    pub fn pause(&self, node: NodeId) {
        self.inner.state().paused.insert(node);
    }

    /// Lets a paused node continue.
    pub fn resume(&self, node: NodeId) {
        self.inner.state().paused.remove(&node);
    }

    /// Blocking work on a node, which waits for its disk, takes up to this many µs from now on; `None` for the usual.
    pub fn set_slow_disk(&self, node: NodeId, micros: Option<u64>) {
        let mut state = self.inner.state();
        match micros {
            Some(micros) => _ = state.slow.insert(node, micros),
            None => _ = state.slow.remove(&node),
        }
    }

    /// Calls `probe` again and again while the world runs. It must change nothing, or a seed shows another run.
    pub fn set_probe(&self, probe: impl FnMut() + Send + 'static) {
        *locked(&self.inner.probe) = Some(Box::new(probe));
    }

    /// Runs one task that is ready, or moves time to the next timer. Returns false if nothing can ever happen again.
    pub fn step(&self) -> bool {
        let Some((id, mut future, waker)) = self.take_ready() else { return self.advance() };
        let result = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut state = self.inner.state();
        if result.is_pending() {
            match state.tasks.get_mut(&id) {
                Some(task) => task.future = Some(future),
                // The node has crashed by this step.
                None => {
                    drop(state);
                    drop(future);
                }
            }
            return true;
        }
        let done = state.tasks.remove(&id);
        drop(state);
        drop((future, done));
        true
    }

    /// Draws one of the ready tasks whose node is not paused.
    fn take_ready(&self) -> Option<(u64, BoxFuture<'static, ()>, Waker)> {
        let mut state = self.inner.state();
        let State { ready, tasks, paused, .. } = &mut *state;
        ready.retain(|id| tasks.contains_key(id));
        let may_run: Vec<usize> =
            (0..ready.len()).filter(|at| paused.is_empty() || !paused.contains(&tasks[&ready[*at]].node)).collect();
        if may_run.is_empty() {
            return None;
        }
        let id = ready.swap_remove(may_run[self.inner.random.below(may_run.len() as u64) as usize]);
        let task = tasks.get_mut(&id)?;
        // A wake-up during the poll makes it ready again.
        task.is_ready.store(false, Ordering::Release);
        let (future, waker, node) = (task.future.take()?, task.waker.clone(), task.node);
        let seen = [state.now.as_nanos() as u64, id, u64::from(node)];
        state.trace = seen
            .into_iter()
            .fold(state.trace, |trace, part| (trace.rotate_left(5) ^ part).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Some((id, future, waker))
    }

    /// Moves time to the next timer and wakes all that wait for this time.
    fn advance(&self) -> bool {
        let due: Vec<Waker> = {
            let mut state = self.inner.state();
            let Some((next, _)) = state.timers.keys().next().copied() else { return false };
            let now = state.now.max(next);
            state.now = now;
            let later = state.timers.split_off(&(now, u64::MAX));
            std::mem::replace(&mut state.timers, later).into_values().collect()
        };
        due.into_iter().for_each(Waker::wake);
        true
    }
}

/// Runs a world until something happens.
impl World {
    /// Runs until `condition` holds. Returns false if that takes longer than `limit` of simulated time.
    pub fn runs_until(&self, limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
        let end = self.now() + limit;
        while !condition() {
            if self.now() > end || !self.step() {
                return condition();
            }
            let steps = {
                let mut state = self.inner.state();
                state.steps += 1;
                state.steps
            };
            if steps.is_multiple_of(PROBE_STEPS)
                && let Some(probe) = &mut *locked(&self.inner.probe)
            {
                probe();
            }
        }
        true
    }

    /// Runs until `condition` holds.
    ///
    /// # Panics
    /// With `what`, if that takes longer than `limit` of simulated time.
    pub fn run_until(&self, what: &str, limit: Duration, condition: impl FnMut() -> bool) {
        if !self.runs_until(limit, condition) {
            panic!("{limit:?} of simulated time passed until {what}; the tasks: {:?}", self.tasks());
        }
    }

    /// The nodes with the names of their tasks, and how many there are of each.
    fn tasks(&self) -> BTreeMap<(NodeId, &'static str), usize> {
        let mut tasks = BTreeMap::new();
        for task in self.inner.state().tasks.values() {
            *tasks.entry((task.node, task.name)).or_default() += 1;
        }
        tasks
    }

    /// Runs for this simulated time.
    pub fn run_for(&self, time: Duration) {
        let end = self.now() + time;
        self.set_timer(end, Waker::noop().clone());
        self.runs_until(time, || self.now() >= end);
    }

    /// Runs a future as a task of a node. The result is there once the future has ended.
    pub fn spawn<T: Send + 'static>(
        &self,
        node: NodeId,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Arc<Mutex<Option<T>>> {
        let result = Arc::new(Mutex::new(None));
        let done = result.clone();
        self.spawn_task(
            node,
            "test",
            Box::pin(async move {
                let value = future.await;
                *done.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            }),
        );
        result
    }

    /// Runs a future as a task of a node and waits for its end.
    ///
    /// # Panics
    /// With `what`, if that takes longer than `limit` of simulated time.
    pub fn wait<T: Send + 'static>(
        &self,
        node: NodeId,
        what: &str,
        limit: Duration,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let result = self.spawn(node, future);
        let taken = || result.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut value = None;
        self.run_until(what, limit, || {
            value = value.take().or_else(taken);
            value.is_some()
        });
        value.expect("run_until returns when there is a value")
    }

    fn spawn_task(&self, node: NodeId, name: &'static str, future: BoxFuture<'static, ()>) {
        let mut state = self.inner.state();
        let id = state.next_id();
        let is_ready = Arc::new(AtomicBool::new(true));
        let waker = TaskWaker { id, world: Arc::downgrade(&self.inner), is_ready: is_ready.clone() };
        let task = SimTask { future: Some(future), node, name, waker: Arc::new(waker).into(), is_ready };
        state.tasks.insert(id, task);
        state.ready.push(id);
    }

    /// Wakes `waker` at `at`. Returns the key of the timer.
    pub(super) fn set_timer(&self, at: Duration, waker: Waker) -> (Duration, u64) {
        let mut state = self.inner.state();
        let key = (at, state.next_id());
        state.timers.insert(key, waker);
        key
    }

    fn cancel_timer(&self, key: (Duration, u64)) {
        // The waker is dropped outside the lock.
        let _waker = self.inner.state().timers.remove(&key);
    }

    /// A future that is ready at `at`.
    pub fn sleep_until(&self, at: Duration) -> Sleep {
        Sleep { world: self.clone(), at, timer: None }
    }
}

impl State {
    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// Ready at a simulated time.
pub struct Sleep {
    world: World,
    at: Duration,
    timer: Option<((Duration, u64), Waker)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.world.now() >= self.at {
            return Poll::Ready(());
        }
        if self.timer.as_ref().is_none_or(|(_, waker)| !waker.will_wake(context.waker())) {
            if let Some((key, _)) = self.timer.take() {
                self.world.cancel_timer(key);
            }
            let waker = context.waker().clone();
            self.timer = Some((self.world.set_timer(self.at, waker.clone()), waker));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((key, _)) = self.timer.take() {
            self.world.cancel_timer(key);
        }
    }
}

/// The thread as one start of a node sees it. After the crash of the node it starts nothing any more.
struct NodeThread {
    world: World,
    node: NodeId,
    start: u64,
}

impl NodeThread {
    fn has_crashed(&self) -> bool {
        self.world.inner.state().running.get(&self.node) != Some(&self.start)
    }
}

impl SimulatedThread for NodeThread {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        if !self.has_crashed() {
            self.world.spawn_task(self.node, name, task);
        }
    }

    fn spawn_blocking(&self, name: &'static str, work: Box<dyn FnOnce() + Send>) {
        let longest = self.world.inner.state().slow.get(&self.node).copied().unwrap_or(BLOCKING_MICROS);
        let takes = Duration::from_micros(1 + self.world.inner.random.below(longest));
        let done = self.world.sleep_until(self.world.now() + takes);
        self.spawn(
            name,
            Box::pin(async move {
                done.await;
                work();
            }),
        );
    }
}

/// The clock of a node: the world's time, and a wall clock that may be wrong.
struct NodeClock {
    world: World,
    skew_ms: i64,
}

impl Clock for NodeClock {
    fn now_ms(&self) -> TimestampMs {
        START_MS + self.world.now().as_millis() as TimestampMs + self.skew_ms
    }

    fn monotonic(&self) -> Duration {
        self.world.now()
    }

    fn sleep_until(&self, at: Duration) -> BoxFuture<'static, ()> {
        Box::pin(self.world.sleep_until(at))
    }
}
