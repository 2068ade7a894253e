//! The periodic work on the logs of each log directory: flush, checkpoints, retention, removal of files; and the stop.
//!
//! It is `tick`, a function of the time, with one small loop around it for each directory. Owns when what is due.
//! Leaves the work itself to `flush.rs`, `checkpoints.rs` and `log.rs`.

use std::collections::VecDeque;

use super::*;
use crate::log::{
    checkpoints::{CLEAN_SHUTDOWN_FILE, clean_shutdown_text},
    flush::{flush_rolled, flush_through, with_log},
    line_limit::LogLineLimit,
};

/// Delay of the first retention check after the start (`LogManager.initialTaskDelayMs`).
const INITIAL_RETENTION_DELAY: Duration = Duration::from_secs(30);
/// Shortest time between two runs of other work.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);
/// When the ids of new partitions are synced again after no file could be opened.
const SHORTAGE_RETRY: Duration = Duration::from_secs(1);
/// Precision of `flush.ms`.
const LEAST_FLUSH_INTERVAL: Duration = Duration::from_millis(10);

/// When each kind of work is next due, as time on the monotonic clock.
struct Schedule {
    recovery_points: Duration,
    log_start_offsets: Duration,
    high_watermarks: Duration,
    retention: Duration,
    producers: Duration,
    flush: Duration,
}

impl LogManager {
    /// Starts the background work; it ends with the task group. Each directory has its own task, so that a slow
    /// directory does not delay the others.
    pub fn start(self: &Arc<Self>) {
        self.start_cleaner();
        for at in 0..self.dirs.len() {
            let manager = self.clone();
            self.env.tasks.spawn_until_stopped("log-manager", async move {
                loop {
                    manager.wait_for_work(at).await;
                    let worker = manager.clone();
                    manager.env.tasks.blocking("log-manager-tick", move || worker.tick_dir(at)).await;
                }
            });
            let (ctx, env) = (self.dirs[at].ctx.clone(), self.env.clone());
            self.env.tasks.spawn_until_stopped("sync ids of partitions", async move {
                loop {
                    ctx.topic_ids_written().await;
                    let worker = ctx.clone();
                    if !env.tasks.blocking("sync ids of partitions", move || worker.sync_topic_ids()).await {
                        env.clock.sleep_until(env.clock.monotonic() + SHORTAGE_RETRY).await;
                    }
                }
            });
        }
    }

    async fn wait_for_work(&self, at: usize) {
        let ctx = &self.dirs[at].ctx;
        tokio::select! {
            biased;
            () = self.env.clock.sleep_until(self.work[at].next_due(ctx)) => {}
            () = ctx.rolled_notify.notified() => {}
        }
    }

    /// Has the high watermarks written soon, because partitions have got other leaders: a replica that starts with an
    /// old one serves its clients less until it hears of a newer one.
    pub fn checkpoint_high_watermarks_soon(&self) {
        let now = self.env.clock.monotonic();
        for (dir, work) in self.dirs.iter().zip(&self.work) {
            lock(&work.schedule).high_watermarks = now;
            dir.ctx.rolled_notify.notify_one();
        }
    }

    /// Does all work that is due. May wait for the disk.
    pub fn tick(&self) {
        for at in 0..self.dirs.len() {
            self.tick_dir(at);
        }
    }

    fn tick_dir(&self, at: usize) {
        let (dir, work) = (&self.dirs[at], &self.work[at]);
        let now = self.env.clock.monotonic();
        let now_ms = self.env.clock.now_ms();
        let due = lock(&work.schedule).take_due(now, &self.config);
        let logs = self.logs_in_dir(dir);
        if dir.ctx.rolled.swap(false, Ordering::AcqRel) {
            // Makes rolled segments durable, so that later flushes have less to sync.
            work.for_each(dir, &logs, now, "flush rolled segments", flush_rolled);
        }
        if due.flush {
            let interval = self.flush_due(at, &logs, now);
            lock(&work.schedule).flush = now.saturating_add(interval);
        }
        if due.retention {
            work.for_each(dir, &logs, now, "apply retention", |owner| {
                let high_watermark = owner.high_watermark();
                with_log(owner, |log| {
                    log.delete_old_segments(now_ms, high_watermark.unwrap_or(log.log_end_offset())).map(|_| ())
                })
            });
        }
        if due.producers {
            for (_, owner) in &logs {
                with_log(&**owner, |log| log.remove_expired_producers(now_ms));
            }
        }
        if !dir.ctx.is_offline()
            && let Err(error) = checkpoint(dir, &logs, &due)
        {
            work.warn_rate_limited(now, |suppressed| {
                tracing::warn!(dir = %dir.ctx.dir.display(), %error, suppressed, "cannot write checkpoint");
            });
        }
        self.remove_due_files(dir, now);
    }

    pub(super) fn logs_in_dir(&self, dir: &LogDir) -> Vec<Owned> {
        let mut logs = self.registered();
        logs.retain(|(_, ctx, _)| Arc::ptr_eq(ctx, &dir.ctx));
        logs.into_iter().map(|(partition, _, owner)| (partition, owner)).collect()
    }

    /// Flushes the logs whose `flush.ms` has passed. Returns the time until the next check.
    fn flush_due(&self, at: usize, logs: &[Owned], now: Duration) -> Duration {
        let (dir, work) = (&self.dirs[at], &self.work[at]);
        let mut shortest_ms = self.config.high_watermark_checkpoint_interval_ms;
        for (_, owner) in logs {
            shortest_ms = shortest_ms.min(with_log(&**owner, |log| log.config().flush_ms));
        }
        work.for_each(dir, logs, now, "flush", |owner| {
            let up_to = with_log(owner, |log| log.flush_is_due(now).then(|| log.log_end_offset()));
            up_to.map_or(Ok(()), |up_to| flush_through(owner, up_to))
        });
        millis(shortest_ms).max(LEAST_FLUSH_INTERVAL)
    }

    fn remove_due_files(&self, dir: &LogDir, now: Duration) {
        let due = {
            let mut pending_removals = lock(&dir.ctx.pending_removals);
            let (due, later): (VecDeque<_>, VecDeque<_>) =
                pending_removals.drain(..).partition(|pending_removals| pending_removals.due <= now);
            *pending_removals = later;
            due
        };
        for pending_removals in due {
            let disk = &dir.ctx.disk;
            let removed = if pending_removals.is_dir {
                disk.remove_dir_all(&pending_removals.path)
            } else {
                disk.remove_file(&pending_removals.path)
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %pending_removals.path.display(), %error, "cannot remove a deleted file");
                }
                _ => {}
            }
        }
    }

    /// Makes the records durable that recovery has checked, if a log shows its readers only durable records
    /// (`flush.messages`): without this its high watermark would be 0, and clients would see an empty log. One sync
    /// serves a whole volume.
    pub fn sync_recovered(&self) {
        let logs = self.registered();
        for dir in self.dirs.iter().filter(|dir| !dir.ctx.is_offline()) {
            let here = || logs.iter().filter(|(_, ctx, _)| Arc::ptr_eq(ctx, &dir.ctx)).map(|(_, _, owner)| owner);
            let hides = |log: &mut Log| log.visible_end_offset() < log.log_end_offset();
            if !here().any(|owner| with_log(&**owner, hides)) {
                continue;
            }
            let mut prepared = Vec::new();
            for owner in here() {
                match with_log(&**owner, Log::prepare_sync) {
                    Ok(done) => prepared.extend(done.map(|done| (owner, done))),
                    Err(error) => {
                        tracing::warn!(dir = %dir.ctx.dir.display(), %error, "cannot prepare a recovered log for its sync")
                    }
                }
            }
            // A failure takes the directory offline, which reports it.
            if dir.ctx.sync_volume().is_ok() {
                for (owner, done) in prepared {
                    with_log(&**owner, |log| log.flush_done(done));
                }
            }
        }
    }

    /// Closes all logs so that the next start needs no recovery; after that they accept no change. A directory in which
    /// a log could not be closed gets no clean-shutdown file, and is returned.
    pub fn shutdown(&self) -> Vec<UncleanDir> {
        self.dirs.iter().filter_map(|dir| self.close_dir(dir).err()).collect()
    }

    fn close_dir(&self, dir: &LogDir) -> Result<(), UncleanDir> {
        let unclean = |is_synced: bool| {
            move |error: LogError| {
                tracing::error!(dir = %dir.ctx.dir.display(), %error, "cannot close the logs cleanly");
                UncleanDir { dir: dir.ctx.dir.clone(), error, is_synced }
            }
        };
        let logs = self.logs_in_dir(dir);
        let (closed, synced) = close_all(&dir.ctx, &logs);
        synced.map_err(unclean(false))?;
        let checkpointed = checkpoint(dir, &logs, &Due::all());
        closed.and(checkpointed).map_err(unclean(true))?;
        if dir.holds == Holds::MetadataLog {
            return Ok(());
        }
        if !lock(&dir.refused_logs).is_empty() {
            // A log that could not be opened was not closed either: without the clean-shutdown file the next start
            // checks it again.
            return Ok(());
        }
        let path = dir.ctx.dir.join(CLEAN_SHUTDOWN_FILE);
        let text = clean_shutdown_text(self.broker_epoch.load(Ordering::Relaxed));
        let marked = dir.ctx.disk.write_atomically(&path, text.as_bytes());
        marked.map_err(LogError::io("write", &path)).map_err(unclean(true))
    }
}

/// A log of a directory and its partition.
pub(super) type Owned = (TopicPartition, Arc<dyn LogOwner>);

/// A log directory that could not be closed cleanly: the next start recovers its logs.
#[derive(Debug)]
pub struct UncleanDir {
    /// The directory.
    pub dir: PathBuf,
    /// Why.
    pub error: LogError,
    /// Whether all records are durable nevertheless.
    pub is_synced: bool,
}

/// The background work of one log directory.
pub(super) struct DirWork {
    schedule: Mutex<Schedule>,
    warnings: LogLineLimit,
}

impl DirWork {
    pub(super) fn starting_at(now: Duration, config: &LogManagerConfig) -> Self {
        DirWork { schedule: Mutex::new(Schedule::starting_at(now, config)), warnings: LogLineLimit::default() }
    }

    fn next_due(&self, ctx: &LogContext) -> Duration {
        let schedule = lock(&self.schedule);
        let deletion = lock(&ctx.pending_removals).iter().map(|deletion| deletion.due).min();
        [
            schedule.recovery_points,
            schedule.log_start_offsets,
            schedule.high_watermarks,
            schedule.retention,
            schedule.producers,
            schedule.flush,
            deletion.unwrap_or(Duration::MAX),
        ]
        .into_iter()
        .min()
        .unwrap_or(Duration::MAX)
    }

    /// During a shortage the same work fails again and again: log at most one line a minute, with the number of
    /// suppressed lines.
    fn warn_rate_limited(&self, now: Duration, warn: impl FnOnce(u64)) {
        if let Some(suppressed) = self.warnings.admit(now) {
            warn(suppressed);
        }
    }

    fn for_each<E: std::fmt::Display>(
        &self,
        dir: &LogDir,
        logs: &[Owned],
        now: Duration,
        what: &str,
        act: impl Fn(&dyn LogOwner) -> Result<(), E>,
    ) {
        for (partition, owner) in logs {
            if dir.ctx.is_offline() {
                return;
            }
            if let Err(error) = act(&**owner)
                && !dir.ctx.is_offline()
            {
                // An offline directory has been reported already.
                self.warn_rate_limited(
                    now,
                    |suppressed| tracing::warn!(%partition, %error, suppressed, "cannot {what}"),
                );
            }
        }
    }
}

/// Writes the checkpoints that are due. If one fails, the others are still written.
pub(super) fn checkpoint(dir: &LogDir, logs: &[Owned], due: &Due) -> Result<(), LogError> {
    let ctx = &dir.ctx;
    // A log deleted since the list was made may already have a successor with the same name.
    let gather = |read: fn(&Log) -> Offset| -> Vec<(TopicPartition, Offset)> {
        let offset = |(partition, owner): &Owned| {
            let offset = with_log(&**owner, |log| (!log.is_deleted()).then(|| read(log)))?;
            Some((partition.clone(), offset))
        };
        logs.iter().filter_map(offset).collect()
    };
    let write = |checkpoint: &OffsetCheckpoint, gather: &dyn Fn() -> Vec<(TopicPartition, Offset)>| {
        checkpoint.update_gathered(gather).map_err(|error| ctx.handle_io_error(error))
    };
    let mut result = Ok(());
    if due.recovery_points {
        result = result.and(write(&ctx.recovery_points, &|| gather(Log::recovery_point_of_checkpoint)));
    }
    if due.log_start_offsets {
        result = result.and(write(&ctx.log_start_offsets, &|| gather(Log::log_start_offset)));
    }
    if due.high_watermarks {
        let high_watermark = |(partition, owner): &Owned| {
            let is_here = with_log(&**owner, |log| !log.is_deleted());
            is_here.then(|| Some((partition.clone(), owner.high_watermark()?)))?
        };
        result = result.and(write(&ctx.high_watermarks, &|| logs.iter().filter_map(high_watermark).collect()));
    }
    result
}

/// Closes the logs of one directory; if one fails, the others are still closed. The first result says whether all could
/// be closed, the second whether their records are durable.
fn close_all(ctx: &LogContext, logs: &[Owned]) -> (Result<(), LogError>, Result<(), LogError>) {
    let mut closed = Ok(());
    let mut prepared = Vec::new();
    let mut is_dirty = false;
    for (_, owner) in logs {
        match with_log(&**owner, Log::prepare_close) {
            Ok(Some(done)) => prepared.push((owner, done)),
            Ok(None) => {}
            Err(error) => {
                is_dirty = true;
                closed = closed.and(Err(error));
            }
        }
    }
    if let Err(error) = ctx.check_online() {
        return (closed, Err(error));
    }
    if prepared.is_empty() && !is_dirty {
        return (closed, Ok(()));
    }
    // One sync of the volume: thousands of single syncs would make the shutdown too slow.
    let synced = ctx.sync_volume();
    if synced.is_ok() {
        for (owner, done) in prepared {
            with_log(&**owner, |log| log.flush_done(done));
        }
    }
    (closed, synced)
}

pub(super) struct Due {
    recovery_points: bool,
    log_start_offsets: bool,
    high_watermarks: bool,
    retention: bool,
    producers: bool,
    flush: bool,
}

impl Due {
    pub(super) fn all() -> Self {
        Due {
            recovery_points: true,
            log_start_offsets: true,
            high_watermarks: true,
            retention: true,
            producers: true,
            flush: true,
        }
    }
}

impl Schedule {
    fn starting_at(now: Duration, config: &LogManagerConfig) -> Self {
        Schedule {
            recovery_points: now.saturating_add(millis(config.recovery_point_checkpoint_interval_ms)),
            log_start_offsets: now.saturating_add(millis(config.log_start_offset_checkpoint_interval_ms)),
            high_watermarks: now.saturating_add(millis(config.high_watermark_checkpoint_interval_ms)),
            retention: now.saturating_add(millis(config.retention_check_interval_ms).min(INITIAL_RETENTION_DELAY)),
            producers: now.saturating_add(millis(config.producer_id_expiration_check_interval_ms)),
            flush: now.saturating_add(LEAST_FLUSH_INTERVAL),
        }
    }

    fn take_due(&mut self, now: Duration, config: &LogManagerConfig) -> Due {
        let take = |at: &mut Duration, interval_ms: i64| {
            let due = *at <= now;
            if due {
                // Kafka accepts intervals of 0 too; they must not use up a whole core.
                *at = now.saturating_add(millis(interval_ms).max(LEAST_INTERVAL));
            }
            due
        };
        Due {
            recovery_points: take(&mut self.recovery_points, config.recovery_point_checkpoint_interval_ms),
            log_start_offsets: take(&mut self.log_start_offsets, config.log_start_offset_checkpoint_interval_ms),
            high_watermarks: take(&mut self.high_watermarks, config.high_watermark_checkpoint_interval_ms),
            retention: take(&mut self.retention, config.retention_check_interval_ms),
            producers: take(&mut self.producers, config.producer_id_expiration_check_interval_ms),
            flush: self.flush <= now,
        }
    }
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
