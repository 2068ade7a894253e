//! Compares the log with a `Vec` (INV-L1, INV-L3 to INV-L5): random operations, crashes and shortages on the simulated
//! disk; offsets with gaps as a follower of a compacted log sees them; and retention with a moving clock.
//!
//! `OTTLA_SEED=n cargo test --lib log::model` replays one seed (a failure prints it), `OTTLA_SEEDS=n` runs n of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use super::{producer_state::ProducerState, *};
use crate::{
    config::topic::LogConfig,
    env::Clock,
    protocol::record_batch::{BatchBuilder, BatchHeader, BatchOptions, BatchView, HEADER_BYTES, iter_batches},
    sim::{SimClock, SimDisk, disk::Faults},
    types::{LeaderEpoch, Offset, TopicPartition},
};

const SEEDS: u64 = 150;
const STEPS: usize = 120;
const NOW_MS: i64 = 1_700_000_000_000;

pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 >> 29) ^ self.0;
        (mixed >> 16) % bound.max(1)
    }

    pub(super) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// The expected bytes of a stored batch.
#[derive(Clone, PartialEq)]
struct Stored(Bytes);

impl Stored {
    fn view(&self) -> BatchView<'_> {
        BatchView::parse(&self.0).unwrap()
    }
}

/// The expected content of the log.
#[derive(Clone, Default)]
struct Timeline {
    batches: Vec<Stored>,
    end: Offset,
}

impl Timeline {
    fn cut(&mut self, offset: Offset) {
        self.batches.retain(|batch| batch.view().last_offset() < offset);
        let end = self.batches.last().map_or(offset, |batch| batch.view().next_offset());
        // A batch that contains `offset` is removed as a whole.
        self.end = if end < offset && offset < self.end { end.max(offset.min(self.end)) } else { end.min(offset) };
    }
}

struct World {
    rng: Rng,
    disk: SimDisk,
    clock: SimClock,
    config: Arc<LogConfig>,
    ctx: Arc<LogContext>,
    log: Log,
    now: Timeline,
    /// Older contents that a crash may bring back, besides prefixes of `now`: truncations that are not yet durable.
    earlier: Vec<Timeline>,
    flushed: Offset,
    start: Offset,
    highest_start: Offset,
    epoch: LeaderEpoch,
    next_sequence: [i32; 3],
    /// Whether file descriptors are short (EMFILE).
    is_short: bool,
}

fn dir() -> PathBuf {
    PathBuf::from("/data")
}

fn partition() -> TopicPartition {
    TopicPartition::new("m", 0)
}

fn context(disk: &SimDisk, clock: &SimClock) -> Arc<LogContext> {
    LogContext::alone(&dir(), Arc::new(disk.clone()), Arc::new(clock.clone())).unwrap()
}

/// A context with few open files and a small tail cache, so that reads and appends open files often.
fn narrow_context(disk: &SimDisk, clock: &SimClock) -> Arc<LogContext> {
    let (files, tail) = (Arc::new(FileCache::new(4)), Arc::new(TailCache::new(4000)));
    let (disk, clock) = (Arc::new(disk.clone()), Arc::new(clock.clone()));
    LogContext::new(&dir(), disk, clock, files, tail, &LogLimits::default()).unwrap()
}

/// Larger than the age of a new record, so that retention deletes records only after the clock has moved.
const RETENTION_MS: i64 = 20_000;

fn open(ctx: &Arc<LogContext>, config: &Arc<LogConfig>, clean_shutdown: bool) -> Result<Log, LogError> {
    let start = OpenLog {
        log_start_offset: ctx.log_start_offsets.get(&partition()).unwrap_or(0),
        recovery_point: ctx.recovery_points.get(&partition()).unwrap_or(0),
        clean_shutdown,
        acknowledged_is_synced: false,
    };
    Log::open(ctx, &dir().join("m-0"), partition(), None, config.clone(), start)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9).wrapping_add(77));
        let disk = SimDisk::new(seed);
        let clock = SimClock::new(NOW_MS);
        use crate::env::Disk;
        disk.create_dir_all(&dir()).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let config = Arc::new(LogConfig {
            segment_bytes: 2000 + rng.below(4000) as i32,
            index_interval_bytes: rng.below(600) as i32,
            file_delete_delay_ms: 0,
            retention_ms: -1,
            ..LogConfig::default()
        });
        let ctx = narrow_context(&disk, &clock);
        let log = open(&ctx, &config, false).unwrap();
        World {
            rng,
            disk,
            clock,
            config,
            ctx,
            log,
            now: Timeline::default(),
            earlier: Vec::new(),
            flushed: 0,
            start: 0,
            highest_start: 0,
            epoch: 0,
            next_sequence: [0; 3],
            is_short: false,
        }
    }

    fn step(&mut self) {
        let step = self.rng.below(44);
        if matches!(step, 22..=34 | 38) {
            // These steps run without a shortage; other tests combine them with one.
            self.end_shortage();
        }
        match step {
            0..=18 => self.append(),
            19..=21 => self.append_run_as_follower(),
            22 => self.log.roll().unwrap(),
            23..=25 => self.flush(),
            26 => self.flush_rolled(),
            27..=29 => self.checkpoint(),
            30 => self.truncate(),
            31 => self.delete_some(),
            32 => self.crash(),
            33 => self.restart_cleanly(),
            34 => self.expire(),
            35 => self.epoch += 1 + self.rng.below(2) as i32,
            36 => self.clock.advance(Duration::from_millis(self.rng.below(1000))),
            37 => self.begin_shortage(),
            38 => {}
            _ => self.read_somewhere(),
        }
        self.highest_start = self.highest_start.max(self.start);
        assert_eq!(self.log.log_end_offset(), self.now.end);
        assert!(self.log.recovery_point() <= self.log.log_end_offset());
        assert!(!self.ctx.is_offline(), "a shortage is no fault");
    }

    fn begin_shortage(&mut self) {
        self.disk.set_faults(Faults { fail_open: Some(self.rng.below(4) as u32), ..Faults::default() });
        self.is_short = true;
    }

    fn end_shortage(&mut self) {
        self.disk.set_faults(Faults::default());
        self.is_short = false;
    }

    /// The result, or `None` if the append failed by a shortage.
    fn ignore_shortage<T>(&self, result: Result<T, AppendError>) -> Option<T> {
        match result {
            Err(AppendError::Storage(error)) if self.is_short && error.is_shortage() => None,
            other => Some(other.unwrap()),
        }
    }

    fn build(&mut self, base_offset: Offset) -> Bytes {
        let producer = self.rng.below(6) as usize;
        let count = 1 + self.rng.below(4);
        let mut options = BatchOptions { base_offset, leader_epoch: self.epoch, ..BatchOptions::default() };
        if let Some(next) = self.next_sequence.get_mut(producer) {
            options.producer_id = producer as i64;
            options.producer_epoch = 0;
            options.base_sequence = *next;
            *next += count as i32;
        }
        let mut builder = BatchBuilder::new(options);
        for _ in 0..count {
            let timestamp = self.clock.now_ms() - self.rng.below(5000) as i64;
            let value = vec![self.rng.below(256) as u8; self.rng.below(400) as usize];
            builder.append(timestamp, None, Some(&value), &[]);
        }
        builder.build()
    }

    fn append(&mut self) {
        let batch = self.build(0);
        let rules = ValidationRules::new(self.log.partition(), &self.config, self.clock.now_ms(), 9);
        let validated = validate(batch.clone(), &rules).unwrap();
        let appended = self.log.append_as_leader(validated, self.epoch, self.clock.now_ms());
        let Some(info) = self.ignore_shortage(appended) else { return self.relearn_sequences() };
        assert!(!info.duplicate);
        assert_eq!(info.first_offset, self.now.end);
        let mut header = BatchHeader::copy_of(&batch).unwrap();
        header.place(info.first_offset, self.epoch);
        self.now.batches.push(Stored([&header.bytes()[..], &batch[HEADER_BYTES..]].concat().into()));
        self.now.end = info.last_offset + 1;
    }

    fn append_run_as_follower(&mut self) {
        let mut bytes = Vec::new();
        let mut sent = Vec::new();
        let mut next_offset = self.now.end;
        for _ in 0..1 + self.rng.below(6) {
            let base_offset = next_offset + self.gap();
            let batch = self.build(base_offset);
            bytes.extend_from_slice(&batch);
            next_offset = BatchView::parse(&batch).unwrap().next_offset();
            sent.push(Stored(batch));
        }
        let now_ms = self.clock.now_ms();
        let appended = match self.rng.below(2) {
            0 => self.log.append_for_readers(bytes.into(), now_ms),
            _ => self.log.append_as_follower(bytes.into(), now_ms),
        };
        let is_whole = self.ignore_shortage(appended).is_some();
        // If a run fails by a shortage at a roll, the batches before the roll are stored.
        let end = self.log.log_end_offset();
        sent.retain(|batch| batch.view().last_offset() < end);
        assert!(!is_whole || end == next_offset);
        self.now.end = sent.last().map_or(self.now.end, |last| last.view().next_offset());
        self.now.batches.extend(sent);
        if !is_whole {
            self.relearn_sequences();
        }
    }

    /// How many offsets compaction removed before the next batch: sometimes more than a segment's indexes can express.
    fn gap(&mut self) -> Offset {
        match self.rng.below(40) {
            0..=4 => 1 + self.rng.below(20) as Offset,
            5 => Offset::from(i32::MAX) + self.rng.below(3) as Offset,
            6 => 1 << 33,
            _ => 0,
        }
    }

    fn flush(&mut self) {
        self.log.flush().unwrap();
        assert_eq!(self.log.recovery_point(), self.now.end);
        self.flushed = self.now.end;
        self.earlier.clear();
    }

    fn flush_rolled(&mut self) {
        let active = self.log.segments().last().unwrap().base_offset();
        if self.log.recovery_point() < active {
            let (plan, planned_end) = (self.log.flush_plan(active), self.now.end);
            // Appends continue while the flush runs.
            self.append();
            let done = plan.run().unwrap();
            self.log.flush_done(done);
            // If the append failed after a roll over a gap, the active segment starts above the log's end.
            let durable = active.min(planned_end);
            // A roll over a gap may have flushed more.
            assert!(self.log.recovery_point() >= durable);
            self.flushed = self.flushed.max(durable);
        }
    }

    fn checkpoint(&mut self) {
        self.ctx.recovery_points.update([(partition(), self.log.recovery_point_of_checkpoint())]).unwrap();
        self.ctx.log_start_offsets.update([(partition(), self.log.log_start_offset())]).unwrap();
    }

    fn truncate(&mut self) {
        let span = (self.now.end - self.start) as u64;
        let to = self.start + self.rng.below(span + 1) as i64;
        let before = self.now.clone();
        let straddled = self
            .now
            .batches
            .iter()
            .map(|batch| (batch.view().base_offset(), batch.view().last_offset()))
            .find(|(base, last)| *base < to && to <= *last);
        if self.log.truncate_to(to).unwrap() {
            let cut = straddled.map_or(to, |(base, _)| base);
            self.now.cut(cut);
            // If the truncation is in a gap, the log ends with the batch before it: the end inside the gap is not
            // stored.
            let last = self.now.batches.last().map_or(0, |batch| batch.view().next_offset());
            let end = self.log.log_end_offset();
            assert!(end <= cut && end >= last.min(cut), "cut at {cut}, last batch to {last}, log to {end}");
            self.now.end = end;
            self.earlier.push(before);
            // The start offset of an emptied log is not durable at once; that loses no records.
            self.flushed = if self.log.size_bytes() == 0 { 0 } else { self.flushed.min(end) };
            self.start = self.log.log_start_offset();
            self.relearn_sequences();
        }
    }

    fn delete_some(&mut self) {
        let span = (self.now.end - self.start) as u64;
        let to = self.start + self.rng.below(span + 1) as i64;
        self.log.maybe_increment_log_start_offset(to).unwrap();
        self.log.delete_old_segments(self.clock.now_ms(), self.now.end).unwrap();
        self.start = self.log.log_start_offset();
        assert_eq!(self.start, to);
        let first = self.log.segments()[0].base_offset();
        let mut visible = self.now.batches.iter().filter(|batch| batch.view().last_offset() >= self.start);
        assert!(visible.all(|batch| batch.view().base_offset() >= first), "a visible batch was deleted");
    }

    /// Advances the clock and applies retention by time: it must delete whole segments from the oldest on, as long as
    /// all their records are older than `retention.ms`.
    fn expire(&mut self) {
        self.clock.advance(Duration::from_millis(self.rng.below(2 * RETENTION_MS as u64)));
        let config = LogConfig { retention_ms: RETENTION_MS, ..(*self.config).clone() };
        self.log.update_config(Arc::new(config));
        let horizon = self.clock.now_ms() - RETENTION_MS;
        let segments: Vec<_> = self.log.segments().iter().map(|segment| segment.base_offset()).collect();
        self.log.delete_old_segments(self.clock.now_ms(), self.now.end).unwrap();
        self.log.update_config(self.config.clone());
        let first = self.log.segments()[0].base_offset();
        for (at, base) in segments.iter().enumerate() {
            let next = segments.get(at + 1).copied().unwrap_or(self.now.end);
            let mut held = self.now.batches.iter().filter(|batch| (*base..next).contains(&batch.view().base_offset()));
            let is_old = held.clone().count() > 0 && held.all(|batch| batch.view().max_timestamp() < horizon);
            // A segment below the log start offset may be deleted as well.
            let may_go = is_old || next <= self.start;
            assert!(*base >= first || may_go, "segment {base}..{next} was deleted too early");
            // If the append failed after a roll over a gap, the next segment starts above the high watermark.
            if !is_old || next > self.now.end {
                break;
            }
            assert!(*base < first, "segment {base}..{next} is older than retention allows");
        }
        self.start = self.log.log_start_offset();
    }

    fn crash(&mut self) {
        self.disk.crash();
        self.is_short = false;
        self.ctx = narrow_context(&self.disk, &self.clock);
        self.log = open(&self.ctx, &self.config, false).unwrap();
        let content = self.content_on_disk();
        let end = self.log.log_end_offset();
        assert!(end >= self.flushed, "INV-L4: flushed up to {}, found only {end}", self.flushed);
        self.start = self.log.log_start_offset();
        let known = [&self.now]
            .into_iter()
            .chain(&self.earlier)
            .find(|timeline| is_prefix(&content, &timeline.batches, self.start));
        let known =
            known.unwrap_or_else(|| panic!("INV-L4: {:?} is no prefix of any written content", self.log)).clone();
        self.now = Timeline {
            batches: known.batches.into_iter().filter(|batch| batch.view().last_offset() < end).collect(),
            end,
        };
        self.earlier.clear();
        self.relearn_sequences();
        self.check_all();
    }

    fn restart_cleanly(&mut self) {
        self.log.close_cleanly().unwrap();
        self.checkpoint();
        self.flushed = self.now.end;
        self.earlier.clear();
        if self.rng.one_in(2) {
            self.disk.crash(); // After a clean stop even a crash loses nothing.
        }
        self.ctx = narrow_context(&self.disk, &self.clock);
        self.log = open(&self.ctx, &self.config, true).unwrap();
        // If the append failed after a roll over a gap, the log continues after the gap.
        let active = self.log.segments().last().unwrap();
        let end = self.log.log_end_offset();
        assert!(end == self.now.end || active.size_bytes() == 0 && active.base_offset() == end && end > self.now.end);
        self.now.end = end;
        // A log start offset inside a gap moves up to the next segment.
        let start = self.log.log_start_offset();
        let mut kept = self.now.batches.iter().filter(|batch| batch.view().last_offset() >= self.start);
        assert!(start >= self.start && kept.all(|batch| batch.view().last_offset() >= start));
        self.start = start;
        self.check_all();
    }

    fn content_on_disk(&self) -> Vec<Stored> {
        let mut content: Vec<Stored> = Vec::new();
        let mut from = self.log.log_start_offset();
        // If only the empty segment after a gap has remained, no batch is at the end.
        while from < self.log.log_end_offset() {
            let read = self.log.read(from, usize::MAX, Offset::MAX, true).unwrap();
            let bytes = read.records().unwrap().into_bytes().unwrap();
            content.extend(iter_batches(&bytes).map(|batch| Stored(Bytes::copy_from_slice(batch.bytes()))));
            match iter_batches(&bytes).last() {
                Some(last) => from = last.next_offset(),
                None => break,
            }
        }
        content
    }

    fn check_all(&mut self) {
        let content = self.content_on_disk();
        assert!(is_prefix(&content, &self.now.batches, self.start), "INV-L3: content differs");
        let kept = self.now.batches.iter().filter(|batch| batch.view().last_offset() >= self.start);
        assert_eq!(content.len(), kept.count(), "INV-L3: all of it is there");
        let mut producers = ProducerState::default();
        for batch in &self.now.batches {
            producers.apply(&BatchHeader::copy_of(&batch.0).unwrap(), None);
        }
        for (id, entry) in producers.producers() {
            let last = entry.recent_batches().last().unwrap();
            // A crash may undo a move of the log start offset, but producers below that offset may be lost already.
            if last.first_offset() >= self.highest_start {
                let found = self
                    .log
                    .producers()
                    .producers()
                    .get(id)
                    .unwrap_or_else(|| panic!("INV-L5: producer {id} is forgotten"));
                assert_eq!((found.last_sequence(), found.epoch), (entry.last_sequence(), entry.epoch));
            }
        }
        for batch in &content {
            let view = batch.view();
            let offset = view.base_offset().max(self.start);
            assert_eq!(
                self.log.leader_epochs().epoch_for_offset(offset),
                Some(view.partition_leader_epoch()),
                "INV-L5: epoch at {offset}"
            );
        }
        for _ in 0..10 {
            self.read_somewhere();
        }
    }

    fn relearn_sequences(&mut self) {
        self.next_sequence = [0; 3];
        for (id, next) in self.next_sequence.iter_mut().enumerate() {
            if let Some(entry) = self.log.producers().producers().get(&(id as i64)) {
                *next = entry.last_sequence() + 1;
            }
        }
    }

    fn read_somewhere(&mut self) {
        let span = (self.now.end - self.start) as u64;
        let from = self.start + self.rng.below(span + 1) as i64;
        let upper = from + self.rng.below(span + 1) as i64;
        let max_bytes = self.rng.below(3000) as usize;
        let min_one_batch = self.rng.one_in(2);
        let records = match self.log.read(from, max_bytes, upper, min_one_batch).unwrap().records() {
            Err(error) if self.is_short && error.is_shortage() => return,
            other => other.unwrap(),
        };
        let limit = match &records {
            Records::File { .. } => max_bytes,
            _ => usize::MAX,
        };
        let bytes = match records.into_bytes() {
            // The file is opened only now, when it is read.
            Err(_) if self.is_short => return,
            other => other.unwrap(),
        };
        let visible: Vec<_> = self
            .now
            .batches
            .iter()
            .filter(|batch| batch.view().last_offset() >= from && batch.view().last_offset() < upper)
            .collect();
        let expected: Vec<u8> = visible.iter().flat_map(|batch| batch.0.to_vec()).collect();
        assert!(expected.starts_with(&bytes), "INV-L3: read of {from}..{upper}");
        match visible.first() {
            Some(first) if min_one_batch => assert!(bytes.len() >= first.0.len(), "F2: the first batch is whole"),
            Some(first) if max_bytes >= first.0.len() => {
                assert!(bytes.len() >= first.0.len() && bytes.len() <= limit.max(max_bytes))
            }
            _ => assert!(bytes.is_empty(), "F2: no head of a batch that does not fit"),
        }
        let timestamp = self.clock.now_ms() - self.rng.below(7000) as i64;
        let expected = self.first_record_at_or_after(timestamp);
        let found = match self.log.timestamp_lookup().first_at_or_after(timestamp) {
            Err(error) if self.is_short && error.is_shortage() => return,
            other => other.unwrap(),
        };
        assert_eq!(
            found.map(|found| (found.timestamp_ms, found.offset)),
            expected,
            "L2: first record at or after {timestamp}"
        );
    }

    fn first_record_at_or_after(&self, timestamp: i64) -> Option<(i64, Offset)> {
        use crate::protocol::record_batch::RecordIter;
        let records = self.now.batches.iter().flat_map(|batch| {
            let view = batch.view();
            let records: Vec<_> = RecordIter::new(view.records_bytes(), view.record_count())
                .map(Result::unwrap)
                .map(|record| {
                    (
                        view.base_timestamp() + record.timestamp_delta,
                        view.base_offset() + i64::from(record.offset_delta),
                    )
                })
                .collect();
            records
        });
        let mut records = records.filter(|(_, offset)| *offset >= self.start);
        records.find(|(found, _)| *found >= timestamp)
    }
}

/// Whether `content` is a prefix of `batches` without those that end below `start`.
fn is_prefix(content: &[Stored], batches: &[Stored], start: Offset) -> bool {
    let kept: Vec<_> = batches.iter().filter(|batch| batch.view().last_offset() >= start).collect();
    content.len() <= kept.len() && content.iter().zip(kept).all(|(found, expected)| found == expected)
}

/// The seed that `OTTLA_SEED` names, or as many as `OTTLA_SEEDS` says.
pub(super) fn seeds(usual: u64) -> Vec<u64> {
    match std::env::var("OTTLA_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..std::env::var("OTTLA_SEEDS").map_or(usual, |count| count.parse().unwrap())).collect(),
    }
}

#[test]
fn inv_l4_random_operations_and_crashes_leave_what_was_promised() {
    for seed in seeds(SEEDS) {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..STEPS {
                world.step();
            }
            world.crash();
        });
        if run.is_err() {
            panic!("failed with OTTLA_SEED={seed}");
        }
    }
}

fn small_log(disk: &SimDisk, batches: usize) -> (Arc<LogContext>, Log) {
    use crate::env::Disk;
    let clock = SimClock::new(NOW_MS);
    disk.create_dir_all(&dir()).unwrap();
    let ctx = context(disk, &clock);
    let mut log = open(&ctx, &Arc::default(), false).unwrap();
    for _ in 0..batches {
        append_one(&mut log).unwrap();
    }
    (ctx, log)
}

fn append_in(log: &mut Log, leader_epoch: LeaderEpoch) {
    let rules = ValidationRules::new(log.partition(), log.config(), NOW_MS, 9);
    let validated = validate(super::tests::plain(2, &[7; 300], NOW_MS), &rules).unwrap();
    log.append_as_leader(validated, leader_epoch, NOW_MS).unwrap();
}

/// KAFKA-16541. A start reads the epochs below the recovery point from their file. If a power cut brought an older file
/// back, a follower would say that it has an older epoch than it has, and its leader would have it truncate what is
/// committed. On a full disk the file is not written, and the recovery point of the checkpoint stays below.
#[test]
fn inv_l5_a_power_cut_takes_no_leader_epoch_below_the_recovery_point() {
    for (seed, is_full, is_cut) in
        (0..10).flat_map(|seed| [(false, false), (true, false), (false, true), (true, true)].map(|(a, b)| (seed, a, b)))
    {
        let disk = SimDisk::new(seed);
        let (ctx, mut log) = small_log(&disk, 1);
        crate::env::Disk::sync_dir(&disk, Path::new("/")).unwrap();
        append_in(&mut log, 1);
        log.flush().unwrap();
        ctx.recovery_points.update([(partition(), log.recovery_point_of_checkpoint())]).unwrap();
        if is_cut {
            log.truncate_to(2).unwrap();
        }
        append_in(&mut log, 4);
        disk.set_room(is_full.then_some(0));
        log.flush().unwrap();
        disk.set_room(None);
        // There is room again, but nothing asks for a flush of this log, which has no new records.
        ctx.recovery_points.update([(partition(), log.recovery_point_of_checkpoint())]).unwrap();
        let (flushed, epochs) = (log.recovery_point(), log.leader_epochs().clone());
        drop(log);
        disk.crash();
        let log = open(&context(&disk, &SimClock::new(NOW_MS)), &Arc::default(), false).unwrap();
        assert!(log.log_end_offset() >= flushed);
        let what = format!("seed {seed}, full {is_full}, truncated {is_cut}");
        assert_eq!(log.leader_epochs(), &epochs, "{what}: a start after a power cut knows other epochs");
    }
}

fn append_one(log: &mut Log) -> Result<AppendInfo, AppendError> {
    let rules = ValidationRules::new(log.partition(), log.config(), NOW_MS, 9);
    let validated = validate(super::tests::plain(2, &[7; 300], NOW_MS), &rules).unwrap();
    log.append_as_leader(validated, 0, NOW_MS)
}

#[test]
fn inv_l4_a_failed_sync_is_never_tried_again() {
    let disk = SimDisk::new(1);
    let (ctx, mut log) = small_log(&disk, 3);
    let heard = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = heard.clone();
    ctx.on_failure(move |_, _| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    disk.set_faults(Faults { fail_sync: Some(1), ..Faults::default() });
    assert!(matches!(log.flush(), Err(LogError::Io { action: "sync", .. })));
    assert!(ctx.is_offline());
    assert_eq!(log.recovery_point(), 0);
    let syncs = disk.syncs();
    assert!(matches!(log.flush(), Err(LogError::DirOffline { .. })));
    assert!(matches!(log.close_cleanly(), Err(LogError::DirOffline { .. })));
    assert!(matches!(append_one(&mut log), Err(AppendError::Storage(LogError::DirOffline { .. }))));
    assert!(matches!(log.read(0, 100, 6, true), Err(ReadError::Storage(_))));
    assert_eq!(disk.syncs(), syncs);
    assert_eq!(heard.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn a_failed_write_takes_the_directory_offline_and_the_tail_is_cut_at_the_next_start() {
    let disk = SimDisk::new(1);
    let (ctx, mut log) = small_log(&disk, 3);
    disk.set_faults(Faults { fail_write: Some(1), ..Faults::default() });
    assert!(append_one(&mut log).is_err());
    assert!(ctx.is_offline());
    let clock = SimClock::new(NOW_MS);
    let log = open(&context(&disk, &clock), &Arc::default(), false).unwrap();
    assert_eq!(log.log_end_offset(), 6);
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let disk = SimDisk::new(1);
    let (ctx, mut log) = small_log(&disk, 3);
    disk.set_capacity(3000);
    let mut appended = 3;
    let error = loop {
        match append_one(&mut log) {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, AppendError::Storage(error) if error.is_disk_full()), "{error}");
    assert!(!ctx.is_offline());
    disk.set_capacity(u64::MAX);
    assert_eq!(append_one(&mut log).unwrap().first_offset, appended * 2);
    let clock = SimClock::new(NOW_MS);
    log.flush().unwrap();
    let log = open(&context(&disk, &clock), &Arc::default(), false).unwrap();
    assert_eq!(log.log_end_offset(), appended * 2 + 2);
    assert_eq!(iter_batches(&super::tests::read_all(&log)).count() as i64, appended + 1);
}

/// A batch that a shortage kept out of the tail cache would be acknowledged and on disk, but never seen by consumers at
/// the tail.
#[test]
fn a_batch_that_was_written_while_no_index_could_be_opened_is_read_at_the_tail() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(NOW_MS));
    crate::env::Disk::create_dir_all(&disk, &dir()).unwrap();
    let (files, tail) = (Arc::new(FileCache::new(64)), Arc::new(TailCache::new(1 << 20)));
    let (shared, clock) = (Arc::new(disk.clone()), Arc::new(clock.clone()));
    let ctx = LogContext::new(&dir(), shared, clock, files, tail, &LogLimits::default()).unwrap();
    // Each batch gets an index entry, and so many entries are pending that they must be written.
    let config = Arc::new(LogConfig { index_interval_bytes: 0, ..LogConfig::default() });
    let mut log = open(&ctx, &config, false).unwrap();
    append_one(&mut log).unwrap();
    disk.set_faults(Faults { fail_open: Some(0), ..Faults::default() });
    for at in 1..600 {
        let info = append_one(&mut log).unwrap();
        assert_eq!(info.first_offset, at * 2);
        let records = log.read(at * 2, usize::MAX, Offset::MAX, true).unwrap().records().unwrap();
        let bytes = records.into_bytes().unwrap();
        assert_eq!(iter_batches(&bytes).next().map(|batch| batch.base_offset()), Some(at * 2));
    }
    assert!(!ctx.is_offline());
    assert!(log.flush().unwrap_err().is_shortage(), "its indexes cannot be opened");
    assert!(!ctx.is_offline());
    disk.set_faults(Faults::default());
    log.flush().unwrap();
    assert_eq!(log.recovery_point(), 1200);
    let index = crate::env::Disk::read(&disk, &dir().join("m-0/00000000000000000000.index")).unwrap();
    assert_eq!(index.len(), 599 * 8, "no entry is lost");
}

#[test]
fn a_fault_met_by_a_read_takes_the_directory_offline_and_a_shortage_does_not() {
    let disk = SimDisk::new(1);
    let (_, mut log) = small_log(&disk, 3);
    log.flush().unwrap();
    let read = |faults: Faults| {
        let ctx = narrow_context(&disk, &SimClock::new(NOW_MS));
        let log = open(&ctx, &Arc::default(), false).unwrap();
        while ctx.files.close_some() {}
        disk.set_faults(faults);
        let by_offset = log.read(2, 100, 6, true).unwrap().records().map(|_| ());
        disk.set_faults(Faults::default());
        (by_offset, ctx)
    };
    let (result, ctx) = read(Faults { fail_read: Some(1), ..Faults::default() });
    assert!(matches!(result, Err(LogError::Io { action: "read", .. })), "{result:?}");
    assert!(ctx.is_offline());
    let (result, ctx) = read(Faults { fail_open: Some(0), ..Faults::default() });
    assert!(result.is_err_and(|error| error.is_shortage()));
    assert!(!ctx.is_offline());

    let ctx = narrow_context(&disk, &SimClock::new(NOW_MS));
    let log = open(&ctx, &Arc::default(), false).unwrap();
    disk.set_faults(Faults { fail_read: Some(1), ..Faults::default() });
    assert!(log.timestamp_lookup().first_at_or_after(0).is_err());
    assert!(ctx.is_offline(), "a search by time");
}

#[test]
fn a_damaged_batch_does_not_withhold_those_before_it() {
    let disk = SimDisk::new(1);
    let (_, mut log) = small_log(&disk, 5);
    log.close_cleanly().unwrap();
    let bytes = super::tests::read_all(&log);
    let batch_bytes = bytes.len() / 5;
    drop(log);
    let clock = SimClock::new(NOW_MS);
    // Damages the records of the third batch, then the length in its header.
    for position in [2 * batch_bytes + HEADER_BYTES + 5, 2 * batch_bytes + 9] {
        let path = dir().join("m-0/00000000000000000000.log");
        let ctx = context(&disk, &clock);
        let log = open(&ctx, &Arc::default(), true).unwrap();
        disk.flip_byte(&path, position).unwrap();
        let read = |upper| {
            log.read(0, usize::MAX, upper, true).unwrap().records().map(|records| records.into_bytes().unwrap())
        };
        for upper in [8, 10] {
            assert_eq!(read(upper).unwrap(), bytes[..2 * batch_bytes], "up to {upper}");
        }
        let at_it = log.read(4, usize::MAX, 10, true).unwrap().records();
        assert!(matches!(at_it, Err(LogError::Corrupt { .. })));
        assert!(!ctx.is_offline());
        disk.flip_byte(&path, position).unwrap();
    }
}

#[test]
fn a_closed_log_takes_no_change() {
    let disk = SimDisk::new(1);
    let (_, mut log) = small_log(&disk, 3);
    log.close_cleanly().unwrap();
    let closed =
        |result: Result<AppendInfo, AppendError>| matches!(result, Err(AppendError::Storage(LogError::Closed { .. })));
    assert!(closed(append_one(&mut log)));
    assert!(closed(log.append_as_follower(super::tests::plain(1, b"x", 1), NOW_MS)));
    assert!(matches!(log.roll(), Err(LogError::Closed { .. })));
    assert!(matches!(log.truncate_to(0), Err(LogError::Closed { .. })));
    assert_eq!(log.delete_old_segments(i64::MAX, 6).unwrap(), 0);
    assert_eq!(log.log_end_offset(), 6);
    assert!(log.read(0, 100, 6, true).is_ok(), "readers finish");
}

#[test]
fn inv_l4_damage_below_the_recovery_point_is_reported_and_neither_served_nor_cut() {
    for clean in [false, true] {
        for position in [0, 8, 16, 20, 30, 200, 700, 1300, 2000] {
            let disk = SimDisk::new(1);
            let (ctx, mut log) = small_log(&disk, 5);
            log.close_cleanly().unwrap();
            ctx.recovery_points.update([(partition(), log.recovery_point())]).unwrap();
            let path = dir().join("m-0/00000000000000000000.log");
            use crate::env::Disk;
            let len = disk.read(&path).unwrap().len();
            disk.flip_byte(&path, position).unwrap();
            let clock = SimClock::new(NOW_MS);
            let ctx = context(&disk, &clock);
            let refused = match open(&ctx, &Arc::default(), clean) {
                Err(LogError::Corrupt { .. }) => true,
                Err(other) => panic!("{other}"),
                Ok(log) => {
                    let served: Vec<_> = (0..10)
                        .filter_map(|from| {
                            let records = log.read(from, usize::MAX, 10, true).unwrap().records().ok()?;
                            Some(records.into_bytes().unwrap())
                        })
                        .collect();
                    for bytes in &served {
                        assert!(
                            iter_batches(bytes).all(|batch| batch.crc_is_valid()),
                            "clean {clean}, position {position}"
                        );
                    }
                    served.len() < 10
                }
            };
            // The checksum of a batch does not cover its offset, length and leader epoch (its first 16 bytes).
            assert!(refused, "clean {clean}, position {position}");
            assert_eq!(disk.read(&path).unwrap().len(), len, "nothing is truncated");
            assert!(!ctx.is_offline());
        }
    }
}
