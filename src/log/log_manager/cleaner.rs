//! Which log is cleaned next, and at which rate (Apache: `LogCleaner`, `LogCleanerManager`).
//!
//! Owns what is being cleaned, what cannot be cleaned, and the tasks. Leaves the cleaning itself to `log/cleaner`.

use super::*;
use crate::log::{
    cleaner::{Cleaning, CleaningFigures, CleaningLimits, CleaningRange},
    flush::{flush_through, with_log},
    line_limit::LogLineLimit,
};

/// Settings of the cleaner, which may change at run time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CleanerConfig {
    /// `log.cleaner.enable`.
    pub is_enabled: bool,
    /// `log.cleaner.threads`.
    pub threads: usize,
    /// `log.cleaner.backoff.ms`.
    pub backoff_ms: i64,
    /// `log.cleaner.dedupe.buffer.size`.
    pub dedupe_buffer_bytes: usize,
    /// `log.cleaner.io.buffer.load.factor`.
    pub load_factor: f64,
    /// `log.cleaner.io.buffer.size`.
    pub io_buffer_bytes: u64,
    /// `log.cleaner.io.max.bytes.per.second`.
    pub max_bytes_per_second: f64,
}

impl Default for CleanerConfig {
    fn default() -> Self {
        CleanerConfig {
            is_enabled: true,
            threads: 1,
            backoff_ms: 15_000,
            dedupe_buffer_bytes: 128 << 20,
            load_factor: 0.9,
            io_buffer_bytes: 512 << 10,
            max_bytes_per_second: f64::MAX,
        }
    }
}

/// The least bytes that are read between two looks at the rate.
const LEAST_STEP_BYTES: u64 = 64 << 10;

/// What the cleaner knows besides the checkpoints.
#[derive(Default)]
pub(super) struct CleanerState {
    config: CleanerConfig,
    /// Tasks that run.
    tasks: usize,
    in_progress: BTreeSet<TopicPartition>,
    /// Logs that could not be cleaned. They are left alone until they are opened anew.
    uncleanable: BTreeMap<TopicPartition, Weak<dyn LogOwner>>,
    figures: CleanerFigures,
    warnings: LogLineLimit,
}

impl CleanerState {
    pub(super) fn with(config: CleanerConfig) -> Self {
        CleanerState { config, ..CleanerState::default() }
    }
}

/// Figures for the metrics of Kafka's names.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CleanerFigures {
    /// Logs that cannot be cleaned.
    pub uncleanable_partitions: usize,
    /// The largest part of a log that is dirty and may be cleaned, in percent.
    pub max_dirty_percent: u64,
    /// How full the memory for keys was in the last cleaning, in percent.
    pub max_buffer_utilization_percent: u64,
    /// How much of the bytes remained in the last cleaning, in percent.
    pub recopy_percent: u64,
    /// How long the last cleaning took.
    pub last_clean_time: Duration,
    /// Cleanings so far.
    pub cleanings: u64,
}

/// A cleaning that has begun.
struct Job {
    partition: TopicPartition,
    dir: Arc<LogContext>,
    owner: Arc<dyn LogOwner>,
    cleaning: Cleaning,
    began: Duration,
}

impl LogManager {
    /// The current figures of the cleaner.
    pub fn cleaner_figures(&self) -> CleanerFigures {
        let state = lock(&self.cleaner);
        CleanerFigures { uncleanable_partitions: state.uncleanable.len(), ..state.figures }
    }

    /// Sets new settings of the cleaner; a cleaning that runs keeps its memory.
    pub fn set_cleaner_config(self: &Arc<Self>, config: CleanerConfig) {
        let was_started = {
            let mut state = lock(&self.cleaner);
            state.config = config;
            state.tasks > 0
        };
        if was_started {
            self.start_cleaner();
        }
    }

    /// Starts as many tasks as the settings say, besides those that run.
    pub(super) fn start_cleaner(self: &Arc<Self>) {
        let first = {
            let mut state = lock(&self.cleaner);
            let wanted = if state.config.is_enabled { state.config.threads } else { 0 };
            let first = state.tasks;
            state.tasks = first.max(wanted);
            first..state.tasks
        };
        for at in first {
            let manager = self.clone();
            self.env.tasks.spawn_until_stopped("log cleaner", async move { manager.clean_until_fewer(at).await });
        }
    }

    /// The loop of the task with this number, until there are to be fewer.
    async fn clean_until_fewer(self: Arc<Self>, at: usize) {
        loop {
            let config = {
                let mut state = lock(&self.cleaner);
                if at >= state.config.threads {
                    state.tasks = state.tasks.min(at);
                    return;
                }
                state.config
            };
            let manager = self.clone();
            match self.env.tasks.blocking("choose a log to clean", move || manager.next_job()).await {
                Some(job) => self.run_at_rate(job, &config).await,
                None => {
                    let backoff = Duration::from_millis(config.backoff_ms.max(100).unsigned_abs());
                    self.env.clock.sleep_until(self.env.clock.monotonic().saturating_add(backoff)).await;
                }
            }
        }
    }

    async fn run_at_rate(self: &Arc<Self>, mut job: Job, config: &CleanerConfig) {
        let threads = config.threads.max(1);
        let step_bytes = (config.io_buffer_bytes / threads as u64).max(LEAST_STEP_BYTES);
        let bytes_per_second = config.max_bytes_per_second / threads as f64;
        loop {
            let began = self.env.clock.monotonic();
            let before = moved_bytes(&job.cleaning.figures());
            let manager = self.clone();
            let stepped = self.env.tasks.blocking("clean a log", move || manager.step(job, step_bytes)).await;
            let Some(next) = stepped else { return };
            job = next;
            let bytes = moved_bytes(&job.cleaning.figures()) - before;
            let least = Duration::try_from_secs_f64(bytes as f64 / bytes_per_second).unwrap_or(Duration::ZERO);
            if least > Duration::ZERO {
                self.env.clock.sleep_until(began.saturating_add(least)).await;
            }
        }
    }

    /// Cleans whatever is due, until nothing is or a cleaning fails, for tests and without a rate.
    #[cfg(test)]
    pub(crate) fn clean_all(&self) {
        let done = || self.cleaner_figures().cleanings + self.cleaner_figures().uncleanable_partitions as u64;
        loop {
            let before = done();
            let Some(mut job) = self.next_job() else { return };
            while let Some(next) = self.step(job, LEAST_STEP_BYTES) {
                job = next;
            }
            if done() == before {
                return;
            }
        }
    }

    /// Begins to clean the log with the largest part of dirty bytes among those that are due.
    fn next_job(&self) -> Option<Job> {
        let now_ms = self.env.clock.now_ms();
        let mut most_dirty = 0.0f64;
        let mut best: Option<(f64, Owned, Arc<LogContext>, crate::log::cleaner::LogView, CleaningRange)> = None;
        for (partition, dir, owner) in self.registered() {
            if self.is_left_alone(&partition, &owner) {
                continue;
            }
            let high_watermark = owner.high_watermark();
            let Some(view) = with_log(&*owner, |log| log.cleaner_view(high_watermark)) else { continue };
            let range = match CleaningRange::of(&view, dir.cleaner_offsets.get(&partition), now_ms) {
                Ok(range) => range,
                Err(error) => {
                    self.set_aside_uncleanable(&partition, &owner, &dir, &error);
                    continue;
                }
            };
            let ratio = range.dirty_ratio();
            most_dirty = most_dirty.max(ratio);
            if range.is_due(&view.config) && best.as_ref().is_none_or(|best| ratio > best.0) {
                best = Some((ratio, (partition, owner), dir, view, range));
            }
        }
        let mut state = lock(&self.cleaner);
        state.figures.max_dirty_percent = (most_dirty * 100.0) as u64;
        let (_, (partition, owner), dir, view, range) = best?;
        // Another task may have taken it meanwhile.
        if !state.in_progress.insert(partition.clone()) {
            return None;
        }
        let config = state.config;
        drop(state);
        if let Err(error) = flush_through(&*owner, view.committed_offset) {
            lock(&self.cleaner).in_progress.remove(&partition);
            self.set_aside_uncleanable(&partition, &owner, &dir, &error);
            return None;
        }
        let limits = CleaningLimits {
            map_bytes: config.dedupe_buffer_bytes / config.threads.max(1),
            map_load: config.load_factor,
            seed: self.env.random.uuid().as_u64_pair(),
            now_ms,
        };
        let cleaning = Cleaning::new(dir.clone(), owner.clone(), view, range, limits);
        Some(Job { partition, dir, owner, cleaning, began: self.env.clock.monotonic() })
    }

    fn is_left_alone(&self, partition: &TopicPartition, owner: &Arc<dyn LogOwner>) -> bool {
        let mut state = lock(&self.cleaner);
        if state.in_progress.contains(partition) {
            return true;
        }
        let is_same = |known: &Weak<dyn LogOwner>| std::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(owner));
        let known = state.uncleanable.get(partition).map(is_same);
        if known == Some(false) {
            state.uncleanable.remove(partition);
        }
        known == Some(true)
    }

    /// Returns None if the cleaning has ended, for whatever reason.
    fn step(&self, mut job: Job, bytes: u64) -> Option<Job> {
        let stepped = job.cleaning.step(bytes);
        if matches!(stepped, Ok(true)) {
            return Some(job);
        }
        let ended = stepped.map(|_| job.cleaning.cleaned_to()).and_then(|cleaned_to| {
            let Some(offset) = cleaned_to else { return Ok(()) };
            self.note_cleaning(&job, offset);
            job.dir.cleaner_offsets.update([(job.partition.clone(), offset)])
        });
        if let Err(error) = ended {
            self.set_aside_uncleanable(&job.partition, &job.owner, &job.dir, &error);
        }
        lock(&self.cleaner).in_progress.remove(&job.partition);
        None
    }

    fn note_cleaning(&self, job: &Job, cleaned_to: Offset) {
        let figures = job.cleaning.figures();
        let time = self.env.clock.monotonic().saturating_sub(job.began);
        tracing::info!(
            partition = %job.partition, cleaned_to, before_bytes = figures.before_bytes, after_bytes = figures.after_bytes,
            time_ms = time.as_millis() as u64, "log is compacted"
        );
        let percent = |part: u64, whole: u64| (part * 100).checked_div(whole).unwrap_or(0);
        let known = &mut lock(&self.cleaner).figures;
        known.max_buffer_utilization_percent = (figures.map_utilization * 100.0) as u64;
        known.recopy_percent = percent(figures.after_bytes, figures.before_bytes);
        known.last_clean_time = time;
        known.cleanings += 1;
    }

    /// A log that is damaged is not tried again. A shortage passes, and a failed directory has been reported.
    fn set_aside_uncleanable(
        &self,
        partition: &TopicPartition,
        owner: &Arc<dyn LogOwner>,
        dir: &LogContext,
        error: &LogError,
    ) {
        if dir.is_offline() || matches!(error, LogError::Deleted { .. } | LogError::Closed { .. }) {
            return;
        }
        let mut state = lock(&self.cleaner);
        if error.is_shortage() {
            if let Some(suppressed) = state.warnings.admit(self.env.clock.monotonic()) {
                tracing::warn!(%partition, %error, suppressed, "cannot compact a log now");
            }
            return;
        }
        state.uncleanable.insert(partition.clone(), Arc::downgrade(owner));
        tracing::error!(%partition, %error, "a log cannot be compacted and is left as it is until the next start; others go on");
    }
}

/// The bytes that count for the rate.
fn moved_bytes(figures: &CleaningFigures) -> u64 {
    figures.read_bytes + figures.written_bytes
}
