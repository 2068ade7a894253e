//! Makes logs durable without holding their locks: a plan is made under the lock of the log, run outside the lock, and
//! then the recovery point is advanced under the lock.
//!
//! Group commit: a caller that needs a flush registers ([`flushed`]) and waits without a thread. The log is put into
//! the queue of its log directory, and a few flusher threads per directory take one log after the other; one sync
//! serves all callers that registered before it. A slow directory delays only its own flushers.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tokio::sync::oneshot;

use super::{Log, LogContext, LogError, segment::Segment};
use crate::{
    env::{Open, Tasks, lock::lock},
    types::Offset,
};

/// How many logs of one directory are flushed at a time. File systems commit the syncs of several files together.
const FLUSHERS_PER_DIR: usize = 8;

/// More truncations than this are made durable by a sync of the whole volume.
const TRUNCATIONS_SYNCED_ONE_BY_ONE: usize = 16;

/// The owner of a log, which keeps it behind a lock.
pub trait LogOwner: Send + Sync {
    /// Runs `act` on the log, under the lock.
    fn with_log(&self, act: &mut dyn FnMut(&mut Log));

    /// The high watermark to write to the checkpoint; `None` for a log without one.
    fn high_watermark(&self) -> Option<Offset> {
        None
    }
}

impl LogOwner for Mutex<Log> {
    fn with_log(&self, act: &mut dyn FnMut(&mut Log)) {
        act(&mut lock(self));
    }
}

/// [`LogOwner::with_log`] that returns a value.
pub fn with_log<T>(owner: &dyn LogOwner, act: impl FnOnce(&mut Log) -> T) -> T {
    let mut act = Some(act);
    let mut result = None;
    owner.with_log(&mut |log| {
        if let Some(act) = act.take() {
            result = Some(act(log));
        }
    });
    match result {
        Some(result) => result,
        None => unreachable!("with_log runs its argument"),
    }
}

/// What must be synced to make a log durable up to an offset.
pub struct FlushPlan {
    pub(crate) ctx: Arc<LogContext>,
    pub(crate) flushes: Arc<LogFlushes>,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) dir: PathBuf,
    /// `partition.metadata` and producer snapshots that were written since the last flush.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) epochs: Option<String>,
    pub(crate) sync_dir: bool,
    pub(crate) sync_parent: bool,
    /// Whether index entries that are only in memory are written first.
    pub(crate) write_indexes: bool,
    pub(crate) done: FlushDone,
}

/// The result of a plan that was run; pass it to [`Log::flush_done`].
#[derive(Clone, Copy, Debug)]
pub struct FlushDone {
    pub(crate) up_to: Offset,
    pub(crate) truncations: u64,
    pub(crate) names: u64,
    pub(crate) epochs: u64,
}

impl FlushPlan {
    /// Leaves the leader epoch file to a later flush; it can be rebuilt from the batches.
    pub(crate) fn postpone_epochs(&mut self) {
        self.epochs = None;
        self.done.epochs = 0;
    }

    /// Leaves the indexes to a later flush. Must not be used for logs with retention by time: after a crash the index
    /// of an older segment would lack its last entries.
    pub(crate) fn postpone_indexes(&mut self) {
        self.write_indexes = false;
    }

    /// Runs the plan and waits for the disk; must run on the blocking pool.
    ///
    /// # Errors
    /// A failed sync is final: the log directory goes offline, and the sync is never retried.
    pub fn run(mut self) -> Result<FlushDone, LogError> {
        self.ctx.check_online()?;
        match self.sync() {
            Ok(()) => Ok(self.done),
            Err(error) => Err(self.ctx.handle_io_error(error)),
        }
    }

    fn sync(&mut self) -> Result<(), LogError> {
        for segment in &self.segments {
            if self.write_indexes { segment.sync()? } else { segment.sync_log()? }
        }
        for path in &self.files {
            match self.ctx.disk.open(path, Open::ReadWrite) {
                Ok(file) => file.sync_data().map_err(LogError::io("sync", path))?,
                // It was deleted with its segment in the meantime.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(LogError::io("open", path)(error)),
            }
        }
        match self.epochs.clone().map_or(Ok(()), |text| self.write_epochs(&text)) {
            // This must not fail the flush: the records are durable already, and the epochs can be rebuilt from them.
            Err(error @ LogError::Io { action: "write" | "rename", .. }) if error.is_shortage() => {
                self.postpone_epochs()
            }
            Err(LogError::Io { .. }) if planted!("K10") => self.postpone_epochs(),
            other => other?,
        }
        if self.sync_dir || self.epochs.is_some() && !planted!("A9") {
            self.ctx.disk.sync_dir(&self.dir).map_err(LogError::io("sync", &self.dir))?;
        }
        if self.sync_parent {
            self.ctx.sync_partitions()?;
        }
        Ok(())
    }

    /// Writes nothing if newer epochs are written: those of this plan may have been truncated. As
    /// [`crate::env::Disk::replace`], but the error says whether the write or the sync failed: only the write may
    /// fail for lack of space.
    fn write_epochs(&mut self, text: &str) -> Result<(), LogError> {
        let flushes = self.flushes.clone();
        let mut written = lock(&flushes.epochs_written);
        if *written > self.done.epochs && !planted!("EPOCHS") {
            self.postpone_epochs();
            return Ok(());
        }
        let disk = &self.ctx.disk;
        let path = self.dir.join(super::log::LEADER_EPOCH_FILE);
        let temporary = self.dir.join(format!("{}.tmp", super::log::LEADER_EPOCH_FILE));
        let opened = disk.open(&temporary, Open::Create).and_then(|file| {
            file.set_len(0)?;
            file.write_all_at(text.as_bytes(), 0)?;
            Ok(file)
        });
        let file = opened.map_err(LogError::io("write", &temporary))?;
        if !planted!("A9") {
            file.sync_all().map_err(LogError::io("sync", &temporary))?;
        }
        disk.rename(&temporary, &path).map_err(LogError::io("rename", &temporary))?;
        *written = self.done.epochs;
        Ok(())
    }
}

/// The result of a flush, given to each of its waiters.
pub type FlushResult = Result<(), Arc<LogError>>;

/// The flush lock and the flush waiters of one log.
#[derive(Default)]
pub(crate) struct LogFlushes {
    /// Held while a plan runs, except by those that run a plan under the lock of the log.
    turn: Mutex<()>,
    /// The number of the newest epochs that were written. Held while they are written, since not all who write them
    /// have the turn.
    pub(crate) epochs_written: Mutex<u64>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// The waiters, each with the offset up to which it needs the log durable.
    waiters: Vec<(Offset, oneshot::Sender<FlushResult>)>,
    /// When there are this many waiters, those that gave up are removed.
    sweep_at: usize,
    /// Whether the log is in the queue of its directory.
    is_queued: bool,
}

/// With fewer waiters it does not pay to search for those that gave up.
const LEAST_SWEEP: usize = 16;

impl LogFlushes {
    /// Locks out flushes: none runs while the guard is held. For renaming the directory.
    pub(crate) fn turn(&self) -> std::sync::MutexGuard<'_, ()> {
        lock(&self.turn)
    }

    /// Registers a waiter for the flush up to `offset`.
    fn wait_for(&self, offset: Offset) -> oneshot::Receiver<FlushResult> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        waiting.waiters.push((offset, sender));
        if waiting.waiters.len() >= waiting.sweep_at.max(LEAST_SWEEP) {
            waiting.waiters.retain(|(_, waiter)| !waiter.is_closed());
            waiting.sweep_at = 2 * waiting.waiters.len();
        }
        receiver
    }

    /// Notifies the waiters whose records are below `offset`, which are durable.
    fn complete(&self, offset: Offset) {
        let mut waiting = lock(&self.waiting);
        for (_, waiter) in waiting.waiters.extract_if(.., |(wanted, _)| *wanted <= offset) {
            let _ = waiter.send(Ok(())); // An error means that the waiter gave up.
        }
    }

    fn fail(&self, error: &Arc<LogError>) {
        for (_, waiter) in std::mem::take(&mut lock(&self.waiting).waiters) {
            let _ = waiter.send(Err(error.clone()));
        }
    }
}

/// The logs of one directory with a requested flush, in the order of the requests.
#[derive(Default)]
pub(crate) struct FlushQueue(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    logs: VecDeque<Arc<dyn LogOwner>>,
    flushers: usize,
}

impl FlushQueue {
    /// Adds a log. Returns whether the caller must start another flusher.
    fn push(&self, owner: Arc<dyn LogOwner>) -> bool {
        let mut queue = lock(&self.0);
        queue.logs.push_back(owner);
        let is_wanted = queue.flushers < FLUSHERS_PER_DIR;
        queue.flushers += usize::from(is_wanted);
        is_wanted
    }

    /// Returns the next log for a flusher. On `None` the flusher must end.
    fn next(&self) -> Option<Arc<dyn LogOwner>> {
        let mut queue = lock(&self.0);
        let next = queue.logs.pop_front();
        queue.flushers -= usize::from(next.is_none());
        next
    }

    fn work(&self) {
        while let Some(owner) = self.next() {
            let flushes = with_log(&*owner, |log| log.flushes());
            // The waiters have received the error, and a fault of the disk has been logged.
            let _ = flush_in_turn(&*owner, &flushes, Offset::MAX, Log::log_end_offset);
        }
    }
}

/// Requests a flush of everything that the log holds now, without waiting for it.
pub fn request_flush(owner: &Arc<dyn LogOwner>, tasks: &Tasks) {
    let (ctx, flushes) = with_log(&**owner, |log| (log.context().clone(), log.flushes()));
    if std::mem::replace(&mut lock(&flushes.waiting).is_queued, true) {
        return;
    }
    if ctx.flush_queue.push(owner.clone()) {
        tasks.start_blocking("flush", move || ctx.flush_queue.work());
    }
}

/// The future is ready when all records below `offset` are durable. The call itself requests the flush, so it happens
/// even if the future is dropped.
///
/// # Errors
/// As [`FlushPlan::run`].
pub fn flushed(
    owner: &Arc<dyn LogOwner>,
    offset: Offset,
    tasks: &Tasks,
) -> impl Future<Output = FlushResult> + Send + use<> {
    let flushes = with_log(&**owner, |log| needs_flush(log, offset).then(|| log.flushes()));
    let waiting = flushes.map(|flushes| {
        let receiver = flushes.wait_for(offset);
        request_flush(owner, tasks);
        receiver
    });
    async move {
        match waiting {
            None => Ok(()),
            // The sender is dropped without a result only if the log itself is dropped.
            Some(receiver) => receiver.await.unwrap_or(Ok(())),
        }
    }
}

/// Returns when all records below `offset` are durable; for a thread that may block.
///
/// # Errors
/// As [`FlushPlan::run`].
pub fn flush_through(owner: &dyn LogOwner, offset: Offset) -> FlushResult {
    flush(owner, offset, Log::log_end_offset)
}

/// Makes the inactive segments durable; leaves the active one alone.
///
/// # Errors
/// As [`FlushPlan::run`].
pub(crate) fn flush_rolled(owner: &dyn LogOwner) -> FlushResult {
    let up_to = with_log(owner, |log| log.active_base_offset());
    flush(owner, up_to, Log::active_base_offset)
}

/// Makes truncations durable that [`Log::cut_to`] has made. With many of them, one sync serves a whole volume. A
/// failure takes the log directory offline, which reports it.
pub fn sync_truncations(owners: &[Arc<dyn LogOwner>]) {
    if owners.len() <= TRUNCATIONS_SYNCED_ONE_BY_ONE {
        for owner in owners {
            let flushes = with_log(&**owner, |log| log.flushes());
            let _ = flush_in_turn(&**owner, &flushes, Offset::MAX, Log::log_end_offset);
        }
        return;
    }
    let (mut dirs, mut prepared) = (Vec::<Arc<LogContext>>::new(), Vec::new());
    for owner in owners {
        let (ctx, done) = with_log(&**owner, |log| (log.context().clone(), log.prepare_sync()));
        let Ok(Some(done)) = done else { continue };
        prepared.push((owner, ctx.clone(), done));
        // linear: a broker has a few log directories
        if !dirs.iter().any(|known| Arc::ptr_eq(known, &ctx)) {
            dirs.push(ctx);
        }
    }
    dirs.retain(|ctx| ctx.sync_volume().is_ok());
    for (owner, ctx, done) in prepared {
        // linear: a broker has a few log directories
        if dirs.iter().any(|synced| Arc::ptr_eq(synced, &ctx)) {
            with_log(&**owner, |log| log.flush_done(done));
        }
    }
}

fn needs_flush(log: &Log, wanted: Offset) -> bool {
    log.recovery_point() < wanted || log.has_unsynced_truncation()
}

/// Unless all records below `wanted` are durable, flushes up to the offset that `extent` returns once the flush lock is
/// held.
fn flush(owner: &dyn LogOwner, wanted: Offset, extent: impl Fn(&Log) -> Offset) -> FlushResult {
    match with_log(owner, |log| needs_flush(log, wanted).then(|| log.flushes())) {
        Some(flushes) => flush_in_turn(owner, &flushes, wanted, extent),
        None => Ok(()),
    }
}

fn flush_in_turn(
    owner: &dyn LogOwner,
    flushes: &LogFlushes,
    wanted: Offset,
    extent: impl Fn(&Log) -> Offset,
) -> FlushResult {
    let _turn = flushes.turn();
    // A waiter that registers from here on may be too late for the plan, so it must queue the log again.
    lock(&flushes.waiting).is_queued = false;
    let plan = with_log(owner, |log| {
        // A log that was deleted in the meantime needs no flush.
        let is_needed = needs_flush(log, wanted.min(log.log_end_offset())) && !log.is_deleted();
        is_needed.then(|| log.flush_plan(extent(log)))
    });
    if let Some(plan) = plan {
        match plan.run() {
            Ok(done) => with_log(owner, |log| log.flush_done(done)),
            Err(error) => {
                let error = Arc::new(error);
                flushes.fail(&error);
                return Err(error);
            }
        }
    }
    // Only now: the owner has published the new recovery point.
    flushes.complete(with_log(owner, |log| if log.is_deleted() { Offset::MAX } else { log.recovery_point() }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        config::topic::LogConfig,
        env::Disk,
        log::OpenLog,
        protocol::record_batch::{BatchBuilder, BatchOptions},
        sim::{SimClock, SimDisk, until, until_blocking},
        types::TopicPartition,
    };

    /// One log for each of `names`, all in one directory on `disk`.
    fn logs(disk: &SimDisk, names: &[&str]) -> Vec<Arc<dyn LogOwner>> {
        disk.create_dir_all(Path::new("/d")).unwrap();
        let ctx = LogContext::alone(Path::new("/d"), Arc::new(disk.clone()), Arc::new(SimClock::new(1000))).unwrap();
        let open = |name: &&str| -> Arc<dyn LogOwner> {
            let (dir, partition) = (Path::new("/d").join(format!("{name}-0")), TopicPartition::new(*name, 0));
            Arc::new(Mutex::new(Log::open(&ctx, &dir, partition, None, Arc::default(), OpenLog::default()).unwrap()))
        };
        names.iter().map(open).collect()
    }

    /// Appends a record. Returns the log's end.
    fn append(owner: &Arc<dyn LogOwner>) -> Offset {
        with_log(&**owner, |log| {
            let mut batch = BatchBuilder::new(BatchOptions { base_offset: log.log_end_offset(), ..Default::default() });
            batch.append(1000, None, Some(b"v"), &[]);
            log.append_as_follower(batch.build(), 1000).unwrap().last_offset + 1
        })
    }

    fn end_offsets(logs: &[Arc<dyn LogOwner>]) -> Vec<Offset> {
        logs.iter().map(|owner| with_log(&**owner, |log| log.log_end_offset())).collect()
    }

    #[test]
    fn truncations_are_durable_after_their_sync_and_before_the_next_append() {
        let few = vec!["t0", "t1"];
        let many: Vec<String> = (0..TRUNCATIONS_SYNCED_ONE_BY_ONE + 1).map(|at| format!("t{at}")).collect();
        for names in [few, many.iter().map(String::as_str).collect()] {
            for waits_for_append in [false, true] {
                let disk = SimDisk::new(3);
                let open = logs(&disk, &names);
                for owner in &open {
                    (0..3).for_each(|_| _ = append(owner));
                    flush_through(&**owner, 3).unwrap();
                    with_log(&**owner, |log| {
                        assert!(log.cut_to(1).unwrap());
                        assert!(log.has_unsynced_truncation());
                    });
                }
                if waits_for_append {
                    open.iter().for_each(|owner| assert_eq!(append(owner), 2));
                } else {
                    sync_truncations(&open);
                }
                assert!(!open.iter().any(|owner| with_log(&**owner, |log| log.has_unsynced_truncation())));
                drop(open);
                disk.crash();
                // Of the appended records none was synced.
                let ends = end_offsets(&logs(&disk, &names));
                assert!(ends.iter().all(|end| *end == 1 || waits_for_append && *end == 2), "{ends:?}");
            }
        }
    }

    #[test]
    fn a_truncation_that_finds_no_space_for_its_sync_is_made_up_for_by_the_next_append() {
        let disk = SimDisk::new(3);
        let open = logs(&disk, &["t0"]);
        (0..3).for_each(|_| _ = append(&open[0]));
        disk.set_room(Some(0));
        with_log(&*open[0], |log| assert!(log.cut_to(1).unwrap()));
        sync_truncations(&open);
        disk.set_room(None);
        assert_eq!(append(&open[0]), 2);
        assert!(!with_log(&*open[0], |log| log.has_unsynced_truncation()));
    }

    #[tokio::test]
    async fn a_slow_directory_takes_few_threads_and_keeps_no_other_waiting() {
        let (slow_disk, fast_disk, tasks) = (SimDisk::new(1), SimDisk::new(2), Tasks::new());
        let names: Vec<String> = (0..20).map(|at| format!("t{at}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (slow, fast) = (logs(&slow_disk, &names), logs(&fast_disk, &names[..1]).remove(0));
        slow_disk.block_syncs(true);
        let waiting: Vec<_> = (0..700)
            .map(|at| {
                let owner = &slow[at % slow.len()];
                flushed(owner, append(owner), &tasks)
            })
            .collect();
        until("all flushers wait", || slow_disk.waiting_syncs() == FLUSHERS_PER_DIR).await;
        for _ in 0..10 {
            flushed(&fast, append(&fast), &tasks).await.unwrap();
        }
        assert_eq!(slow_disk.waiting_syncs(), FLUSHERS_PER_DIR, "no thread for a waiter");
        let before = slow_disk.syncs();
        slow_disk.block_syncs(false);
        for flushed in waiting {
            flushed.await.unwrap();
        }
        // Each log is flushed once for the waiters that came before the first flush began, and once more for the
        // others.
        let syncs = slow_disk.syncs() - before;
        assert!(syncs <= 4 * slow.len() as u64, "{syncs} syncs for 700 waiters of {} logs", slow.len());
        tasks.shutdown().await;
    }

    #[tokio::test]
    async fn those_who_give_up_are_forgotten_and_the_flush_happens_all_the_same() {
        let (disk, tasks) = (SimDisk::new(1), Tasks::new());
        let owner = logs(&disk, &["t"]).remove(0);
        disk.block_syncs(true);
        for _ in 0..10_000 {
            drop(flushed(&owner, append(&owner), &tasks));
        }
        let flushes = with_log(&*owner, |log| log.flushes());
        assert!(lock(&flushes.waiting).waiters.len() <= 2 * LEAST_SWEEP);
        request_flush(&owner, &tasks);
        disk.block_syncs(false);
        until("all is flushed", || with_log(&*owner, |log| log.recovery_point()) == 10_000).await;
        tasks.shutdown().await;
    }

    #[tokio::test]
    async fn everybody_who_waits_hears_of_a_failed_flush() {
        let (disk, tasks) = (SimDisk::new(1), Tasks::new());
        let owner = logs(&disk, &["t"]).remove(0);
        disk.block_syncs(true);
        let waiting: Vec<_> = (0..3).map(|_| flushed(&owner, append(&owner), &tasks)).collect();
        until("the flusher waits", || disk.waiting_syncs() == 1).await;
        disk.set_faults(crate::sim::disk::Faults { fail_sync: Some(1), ..Default::default() });
        disk.block_syncs(false);
        for flushed in waiting {
            assert!(matches!(&*flushed.await.unwrap_err(), LogError::Io { action: "sync", .. }));
        }
        assert!(matches!(&*flushed(&owner, 3, &tasks).await.unwrap_err(), LogError::DirOffline { .. }));
        tasks.shutdown().await;
    }

    #[test]
    fn a_flush_without_room_for_the_epochs_leaves_them_for_later() {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/d")).unwrap();
        let ctx = LogContext::alone(Path::new("/d"), Arc::new(disk.clone()), Arc::new(SimClock::new(1000))).unwrap();
        let config = Arc::new(LogConfig::default());
        let mut log =
            Log::open(&ctx, Path::new("/d/t-0"), TopicPartition::new("t", 0), None, config, OpenLog::default())
                .unwrap();
        let mut batch = BatchBuilder::new(BatchOptions { leader_epoch: 3, ..Default::default() });
        batch.append(1000, None, Some(b"v"), &[]);
        log.append_as_follower(batch.build(), 1000).unwrap();
        disk.set_capacity(0);
        log.flush().unwrap();
        assert_eq!((log.recovery_point(), ctx.is_offline()), (1, false));
        let epochs = Path::new("/d/t-0/leader-epoch-checkpoint");
        assert!(!disk.exists(epochs));
        disk.set_capacity(u64::MAX);
        log.flush().unwrap();
        assert!(disk.exists(epochs));
    }

    /// A disk on which a rename of the epochs' temporary file waits for a second one, 200 ms at most.
    struct Meeting {
        disk: SimDisk,
        renames: Mutex<usize>,
        more: std::sync::Condvar,
    }

    impl Meeting {
        fn new(disk: &SimDisk) -> Arc<Meeting> {
            disk.create_dir_all(Path::new("/d")).unwrap();
            Arc::new(Meeting { disk: disk.clone(), renames: Mutex::new(2), more: std::sync::Condvar::new() })
        }

        /// So many renames have come; the first two wait for each other.
        fn set_renames(&self, count: usize) {
            *lock(&self.renames) = count;
            self.more.notify_all();
        }
    }

    impl Disk for Meeting {
        fn open(&self, path: &Path, how: Open) -> std::io::Result<Arc<dyn crate::env::File>> {
            self.disk.open(path, how)
        }
        fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
            if from.ends_with("leader-epoch-checkpoint.tmp") {
                let mut renames = lock(&self.renames);
                *renames += 1;
                self.more.notify_all();
                let limit = std::time::Duration::from_millis(200);
                drop(self.more.wait_timeout_while(renames, limit, |renames| *renames < 2).unwrap());
            }
            self.disk.rename(from, to)
        }
        fn remove_file(&self, path: &Path) -> std::io::Result<()> {
            self.disk.remove_file(path)
        }
        fn remove_dir_all(&self, path: &Path) -> std::io::Result<()> {
            self.disk.remove_dir_all(path)
        }
        fn create_dir_all(&self, path: &Path) -> std::io::Result<()> {
            self.disk.create_dir_all(path)
        }
        fn list(&self, path: &Path) -> std::io::Result<Vec<crate::env::disk::DirEntry>> {
            self.disk.list(path)
        }
        fn exists(&self, path: &Path) -> bool {
            self.disk.exists(path)
        }
        fn modified_ms(&self, path: &Path) -> std::io::Result<crate::types::TimestampMs> {
            self.disk.modified_ms(path)
        }
        fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
            self.disk.read(path)
        }
        fn sync_dir(&self, path: &Path) -> std::io::Result<()> {
            self.disk.sync_dir(path)
        }
        fn sync_volume(&self, path: &Path) -> std::io::Result<()> {
            self.disk.sync_volume(path)
        }
        fn lock(&self, path: &Path) -> std::io::Result<Box<dyn std::any::Any + Send + Sync>> {
            self.disk.lock(path)
        }
        fn space(&self, path: &Path) -> std::io::Result<crate::env::disk::Space> {
            self.disk.space(path)
        }
        fn open_files_limit(&self) -> usize {
            self.disk.open_files_limit()
        }
    }

    #[test]
    fn an_append_during_the_sync_of_a_truncation_does_not_take_the_directory_offline() {
        let sim = SimDisk::new(3);
        let disk = Meeting::new(&sim);
        let ctx = LogContext::alone(Path::new("/d"), disk.clone(), Arc::new(SimClock::new(1000))).unwrap();
        let (dir, name) = (Path::new("/d/t-0"), TopicPartition::new("t", 0));
        let owner: Arc<dyn LogOwner> =
            Arc::new(Mutex::new(Log::open(&ctx, dir, name, None, Arc::default(), OpenLog::default()).unwrap()));
        let append = |base_offset, leader_epoch| {
            with_log(&*owner, |log| {
                let mut batch = BatchBuilder::new(BatchOptions { base_offset, leader_epoch, ..Default::default() });
                batch.append(1000, None, Some(b"v"), &[]);
                log.append_as_follower(batch.build(), 1000).map(|info| info.last_offset)
            })
        };
        append(0, 1).unwrap();
        append(1, 2).unwrap();
        flush_through(&*owner, 2).unwrap();
        disk.set_renames(0);
        with_log(&*owner, |log| assert!(log.cut_to(1).unwrap()));
        sim.block_syncs(true);
        let syncing = owner.clone();
        std::thread::scope(|scope| {
            // As `replica::follower::truncate` does.
            scope.spawn(move || sync_truncations(&[syncing]));
            until_blocking("the sync waits", || sim.waiting_syncs() == 1);
            // This broker becomes the leader, and a producer's record comes.
            let appending = scope.spawn(|| append(1, 3));
            until_blocking("the append waits", || sim.waiting_syncs() == 2 || appending.is_finished());
            sim.block_syncs(false);
            assert_eq!(appending.join().unwrap().unwrap(), 1);
        });
        assert!(!ctx.is_offline());
    }

    /// A flush that has begun before a truncation ends after it.
    #[test]
    fn an_old_flush_does_not_bring_back_the_epochs_that_a_truncation_has_removed() {
        let disk = SimDisk::new(3);
        disk.create_dir_all(Path::new("/d")).unwrap();
        let open = |at: usize, ctx: &Arc<LogContext>, clean_shutdown| {
            let (dir, name) = (Path::new("/d").join(format!("t-{at}")), TopicPartition::new("t", at as i32));
            let start = OpenLog { clean_shutdown, ..OpenLog::default() };
            Log::open(ctx, &dir, name, None, Arc::default(), start).unwrap()
        };
        let context =
            || LogContext::alone(Path::new("/d"), Arc::new(disk.clone()), Arc::new(SimClock::new(1000))).unwrap();
        let ctx = context();
        let owners: Vec<Arc<dyn LogOwner>> = (0..TRUNCATIONS_SYNCED_ONE_BY_ONE + 1)
            .map(|at| -> Arc<dyn LogOwner> { Arc::new(Mutex::new(open(at, &ctx, false))) })
            .collect();
        let append = |owner: &Arc<dyn LogOwner>, base_offset, leader_epoch| {
            with_log(&**owner, |log| {
                let mut batch = BatchBuilder::new(BatchOptions { base_offset, leader_epoch, ..Default::default() });
                batch.append(1000, None, Some(b"v"), &[]);
                log.append_as_follower(batch.build(), 1000).unwrap();
            });
        };
        for owner in &owners {
            append(owner, 0, 1);
            append(owner, 1, 5);
        }
        disk.block_syncs(true);
        std::thread::scope(|scope| {
            // `flush.ms`, or a roll.
            scope.spawn(|| flush_through(&*owners[0], 2).unwrap());
            until_blocking("the flush waits", || disk.waiting_syncs() == 1);
            owners.iter().for_each(|owner| with_log(&**owner, |log| assert!(log.cut_to(1).unwrap())));
            let truncating = scope.spawn(|| sync_truncations(&owners));
            until_blocking("the epochs are written", || disk.waiting_syncs() == 2 || truncating.is_finished());
            disk.block_syncs(false);
        });
        // The leader has more records of the epoch before.
        append(&owners[0], 1, 1);
        append(&owners[0], 2, 1);
        with_log(&*owners[0], |log| {
            assert_eq!(log.latest_epoch(), Some(1));
            log.close_cleanly().unwrap();
        });
        drop(owners);
        assert_eq!(open(0, &context(), true).latest_epoch(), Some(1));
    }
}
