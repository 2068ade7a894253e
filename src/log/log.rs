//! `Log`: one partition. Owns its segments, producer state and leader epochs, and decides at which offsets and in which
//! segment batches are stored.
//!
//! Keeps INV-L1 (offsets without gaps) and INV-L2 as far as it knows the offsets. It has no lock inside: the owner
//! serializes changes. Under the owner's lock it only writes to the page cache; work that may wait for the disk is
//! returned as a plan ([`ReadPlan`], [`FlushPlan`], [`TimestampLookup`]). Leaves opening to `recovery.rs`.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;

use super::{
    AppendError, FlushPlan, LogContext, LogError, ReadError, ReadPlan, TimestampLookup,
    checkpoints::{partition_metadata_text, write_unsynced},
    file_names::{FileKind, FileLengths, PartitionDir, Stage, file_name},
    flush::{FlushDone, LogFlushes},
    leader_epochs::LeaderEpochs,
    producer_state::{AppendCheck, CompletedTxn, EndTxnMarker, ProducerState},
    retention::{Retention, RetentionRules, SegmentFacts},
    segment::Segment,
    tail_cache::TailLog,
    transaction_index::AbortedTransaction,
    validator::{ValidatedBatch, marker_of},
};
use crate::{
    config::topic::{LogConfig, TimestampType},
    env::lock::lock,
    protocol::record_batch::{BatchHeader, HEADER_BYTES},
    types::{LeaderEpoch, Offset, TimestampMs, TopicId, TopicPartition},
};

pub(crate) const LEADER_EPOCH_FILE: &str = "leader-epoch-checkpoint";
pub(crate) const PARTITION_METADATA_FILE: &str = "partition.metadata";
pub(crate) const SNAPSHOT_EXTENSION: &str = "snapshot";

/// How a log starts: the values that the checkpoints of its directory hold for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenLog {
    /// From `log-start-offset-checkpoint`; 0 if there is none.
    pub log_start_offset: Offset,
    /// From `recovery-point-offset-checkpoint`: everything below was durable; 0 if there is none.
    pub recovery_point: Offset,
    /// The directory contained the clean-shutdown file.
    pub clean_shutdown: bool,
    /// Every acknowledged record was synced first, as in the metadata log. Good batches after a bad one then prove that
    /// the bad one was durable: it is corruption, not a torn write.
    pub acknowledged_is_synced: bool,
}

/// Where a batch was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendInfo {
    /// Offset of the first record.
    pub first_offset: Offset,
    /// Offset of the last record.
    pub last_offset: Offset,
    /// P7: the broker's time if the topic uses LogAppendTime, else -1. For a duplicate, the original's timestamp (I2).
    pub log_append_time_ms: TimestampMs,
    /// First offset of the log.
    pub log_start_offset: Offset,
    /// I2: the batch was appended before, and these are the original's offsets.
    pub duplicate: bool,
    /// `flush.messages` records are not flushed: the response must wait for `flush_through(last_offset + 1)`.
    pub flush_due: bool,
}

/// One partition on disk; see the module.
pub struct Log {
    pub(super) ctx: Arc<LogContext>,
    pub(super) partition: TopicPartition,
    pub(super) topic_id: Option<TopicId>,
    pub(super) dir: Arc<PartitionDir>,
    pub(super) config: Arc<LogConfig>,
    /// In ascending order, never empty; the last is the active one.
    pub(super) segments: Arc<Vec<Arc<Segment>>>,
    pub(super) log_start_offset: Offset,
    pub(super) log_end_offset: Offset,
    pub(super) recovery_point: Offset,
    pub(super) producers: ProducerState,
    /// Offsets of the producer snapshot files.
    pub(super) snapshots: BTreeSet<Offset>,
    pub(super) epochs: LeaderEpochs,
    pub(super) tail: Arc<TailLog>,
    pub(super) dirty: Dirty,
    /// Time on the monotonic clock.
    pub(super) last_flush: Duration,
    pub(super) flushes: Arc<LogFlushes>,
    /// A cleaned segment whose files get their final names; see `replace.rs`.
    pub(super) swapping: Option<Arc<Segment>>,
    pub(super) deleted: bool,
    /// The broker is stopping: no change is accepted, since the clean-shutdown file says that the files are complete.
    pub(super) closed: bool,
}

/// Who reads the batches that were just appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readers {
    /// They come at once, so the tail cache keeps the batches.
    AtTheTail,
    /// Clients read from the leader. A follower that cached its batches would leave the leaders on the same broker less
    /// of the cache, and each small batch would keep the whole response in memory that it came with.
    Few,
}

/// Changes outside the segments that are not durable yet. These are counters, so that dropping a plan loses nothing.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// How often the log was truncated: an older flush plan may have synced files that have changed since.
    pub(super) truncations: u64,
    pub(super) truncations_synced: u64,
    /// How often files were created or renamed, and how many of these changes are durable.
    pub(super) names: u64,
    pub(super) names_synced: u64,
    /// How often leader epochs changed.
    pub(super) epochs: u64,
    pub(super) epochs_synced: u64,
    /// From this offset on, the epochs in the checkpoint on disk may be others than those of the records.
    pub(super) epochs_from: Option<Offset>,
    /// Files outside the segments that were written and not synced, each with the value of `names` at that time.
    pub(super) files: Vec<(u64, PathBuf)>,
    /// The partition's own directory entry, if not durable: its number in `LogContext::partitions_created`.
    pub(super) parent: Option<u64>,
}

impl Dirty {
    /// Records that a file was written that may be new.
    fn wrote(&mut self, path: PathBuf) {
        self.names += 1;
        self.files.push((self.names, path));
    }

    /// Records that the leader epochs of the records from `offset` on changed.
    pub(super) fn changed_epochs(&mut self, offset: Offset) {
        self.epochs += 1;
        self.epochs_from = Some(self.epochs_from.map_or(offset, |from| from.min(offset)));
    }

    fn any(&self) -> bool {
        self.truncations > self.truncations_synced
            || self.names > self.names_synced
            || self.epochs > self.epochs_synced
            || self.parent.is_some()
    }
}

/// A truncation inside of the segments.
struct Cut {
    /// How many segments remain.
    kept: usize,
    /// Where the last of them is cut; `None` if it remains whole.
    position: Option<u64>,
    /// Where the log ends then.
    end: Offset,
}

impl Log {
    /// Opens the log in `dir`, or creates it there.
    ///
    /// After a clean shutdown only the end of the last segment is read. Otherwise everything above the recovery point
    /// is checked, and truncated at the first bad batch.
    ///
    /// # Errors
    /// A fault of the disk, or [`LogError::Corrupt`] if something below the recovery point is damaged: then nothing is
    /// changed on the disk.
    pub fn open(
        ctx: &Arc<LogContext>,
        dir: &Path,
        partition: TopicPartition,
        topic_id: Option<TopicId>,
        config: Arc<LogConfig>,
        start: OpenLog,
    ) -> Result<Log, LogError> {
        ctx.check_online()?;
        super::recovery::open(ctx, dir, partition, topic_id, config, start).map_err(|error| ctx.handle_io_error(error))
    }

    /// The partition's topic and index.
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// The topic's id, if one was given or found in `partition.metadata`.
    pub fn topic_id(&self) -> Option<TopicId> {
        self.topic_id
    }

    /// The settings in force.
    pub fn config(&self) -> &Arc<LogConfig> {
        &self.config
    }

    /// The directory of the partition, which a deletion renames.
    pub(super) fn partition_dir(&self) -> &Arc<PartitionDir> {
        &self.dir
    }

    /// The directory of the partition.
    pub fn dir(&self) -> PathBuf {
        self.dir.path()
    }

    /// State shared with the other logs of the log directory.
    pub fn context(&self) -> &Arc<LogContext> {
        &self.ctx
    }

    /// First offset that may be read.
    pub fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }

    /// The offset of the next record.
    pub fn log_end_offset(&self) -> Offset {
        self.log_end_offset
    }

    /// All records below this offset are durable.
    pub fn recovery_point(&self) -> Offset {
        self.recovery_point
    }

    /// The recovery point for the checkpoint. A start reads the leader epochs of the records below it from the file of
    /// epochs, so it may not be above a change that this file does not have yet because the disk was full: a follower
    /// would then truncate to the end of an older epoch (KAFKA-16541).
    pub fn recovery_point_of_checkpoint(&self) -> Offset {
        let changed = self.dirty.epochs_from.filter(|_| !planted!("A9-FULL"));
        changed.map_or(self.recovery_point, |from| from.min(self.recovery_point))
    }

    /// First offset of the oldest transaction that is open or whose marker is not yet committed.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        self.producers.first_unstable_offset().map(|offset| offset.max(self.log_start_offset))
    }

    /// Below it no transaction is open, if everything below `high_watermark` is committed.
    pub fn last_stable_offset(&self, high_watermark: Offset) -> Offset {
        self.first_unstable_offset().map_or(high_watermark, |first| first.min(high_watermark))
    }

    /// State of the producers (DescribeProducers).
    pub fn producers(&self) -> &ProducerState {
        &self.producers
    }

    /// The start offset of each leader epoch.
    pub fn leader_epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    /// The newest leader epoch in the log.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.latest()
    }

    /// L4: the largest epoch ≤ `epoch` and its end offset.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.end_offset_for(epoch, self.log_end_offset)
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size_bytes()).sum()
    }

    /// Segments, oldest first.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// Sets new settings; they apply from the next batch on.
    pub fn update_config(&mut self, config: Arc<LogConfig>) {
        self.config = config;
    }

    /// Sets the topic's id and writes it to `partition.metadata`, if it is not set yet.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_topic_id(&mut self, topic_id: TopicId) -> Result<(), LogError> {
        if self.topic_id == Some(topic_id) {
            return Ok(());
        }
        let path = self.dir.path().join(PARTITION_METADATA_FILE);
        write_unsynced(&*self.ctx.disk, &path, partition_metadata_text(topic_id).as_bytes())
            .map_err(LogError::io("write", &path))
            .map_err(|error| self.ctx.handle_io_error(error))?;
        self.topic_id = Some(topic_id);
        self.ctx.wrote_topic_id(path.clone());
        self.dirty.wrote(path);
        Ok(())
    }

    /// Markers below `high_watermark` are committed: their transactions become stable.
    pub fn on_high_watermark(&mut self, high_watermark: Offset) {
        self.producers.on_high_watermark(high_watermark);
    }

    /// I5: removes producers that have not written for `producer.id.expiration.ms`.
    pub fn remove_expired_producers(&mut self, now_ms: TimestampMs) {
        self.producers.remove_expired(now_ms, self.ctx.producer_id_expiration_ms.load(Ordering::Relaxed));
    }

    // --- append ---

    fn active(&self) -> &Arc<Segment> {
        match self.segments.last() {
            Some(active) => active,
            None => unreachable!("a log has a segment"),
        }
    }

    /// Appends a batch that [`super::validate`] accepted, at the next offsets.
    ///
    /// # Errors
    /// The reason why the batch may not be appended; nothing has changed then. After a fault of the disk the outcome is
    /// unknown, and the log directory is offline unless it is merely full.
    pub fn append_as_leader(
        &mut self,
        batch: ValidatedBatch,
        leader_epoch: LeaderEpoch,
        now_ms: TimestampMs,
    ) -> Result<AppendInfo, AppendError> {
        self.check_usable()?;
        self.settle_truncation()?;
        let ValidatedBatch { mut header, records, marker, origin, pinned_bytes } = batch;
        if let AppendCheck::Duplicate(original) = self.producers.check(&self.partition, &header, marker, origin)? {
            return Ok(AppendInfo {
                first_offset: original.first_offset(),
                last_offset: original.last_offset,
                log_append_time_ms: original.timestamp_ms,
                log_start_offset: self.log_start_offset,
                duplicate: true,
                // The original may not be durable yet, and the client never got its response.
                flush_due: self.flush_is_due_by_messages(),
            });
        }
        self.check_fits_segment(&header)?;
        header.place(self.log_end_offset, leader_epoch);
        self.maybe_roll(&header, now_ms)?;
        let active = self.active().clone();
        let written = active.write(&[header.bytes(), &records]);
        let position = written.map_err(|error| self.ctx.handle_io_error(error))?;
        // First update all state that readers use, then do the steps that may fail: readers must see either the batch
        // or an offline directory.
        let completed = self.note_appended(&header, marker);
        self.ctx.tail.push(&self.tail, header, records, pinned_bytes);
        self.index_appended(&active, &header, position, completed)?;
        Ok(AppendInfo {
            first_offset: header.base_offset(),
            last_offset: header.last_offset(),
            log_append_time_ms: match self.config.message_timestamp_type {
                TimestampType::LogAppendTime => header.max_timestamp(),
                TimestampType::CreateTime => -1,
            },
            log_start_offset: self.log_start_offset,
            duplicate: false,
            flush_due: self.flush_is_due_by_messages(),
        })
    }

    /// Appends batches copied from another log, with their offsets and epochs.
    ///
    /// # Errors
    /// As [`Log::append_as_leader`]; also if the bytes are not whole, valid batches in order from the end of this log
    /// on.
    pub fn append_as_follower(&mut self, batches: Bytes, now_ms: TimestampMs) -> Result<AppendInfo, AppendError> {
        self.append_placed(&batches, now_ms, Readers::Few)
    }

    /// Like [`Log::append_as_follower`], for a log whose newest batches are read at once (the metadata log).
    ///
    /// # Errors
    /// As [`Log::append_as_follower`].
    pub fn append_for_readers(&mut self, batches: Bytes, now_ms: TimestampMs) -> Result<AppendInfo, AppendError> {
        self.append_placed(&batches, now_ms, Readers::AtTheTail)
    }

    fn append_placed(
        &mut self,
        batches: &Bytes,
        now_ms: TimestampMs,
        readers: Readers,
    ) -> Result<AppendInfo, AppendError> {
        self.check_usable()?;
        self.settle_truncation()?;
        let placed = self.check_batches(batches)?;
        let Some((first, last)) =
            placed.first().zip(placed.last()).map(|(first, last)| (first.1.base_offset(), last.1.last_offset()))
        else {
            return Ok(self.nothing_appended());
        };
        let (mut run_start, mut run_bytes) = (0, 0);
        for (index, (at, header)) in placed.iter().enumerate() {
            if self.should_roll(header, run_bytes, now_ms)? {
                self.append_run(batches, &placed[run_start..index], readers)?;
                self.roll_before(header)?;
                (run_start, run_bytes) = (index, 0);
            }
            run_bytes += header.size_bytes();
            debug_assert!(*at < batches.len());
        }
        self.append_run(batches, &placed[run_start..], readers)?;
        Ok(AppendInfo {
            first_offset: first,
            last_offset: last,
            flush_due: self.flush_is_due_by_messages(),
            ..self.nothing_appended()
        })
    }

    fn nothing_appended(&self) -> AppendInfo {
        AppendInfo {
            first_offset: self.log_end_offset,
            last_offset: self.log_end_offset - 1,
            log_append_time_ms: -1,
            log_start_offset: self.log_start_offset,
            duplicate: false,
            flush_due: false,
        }
    }

    /// Checks the batches. Returns where each starts in `bytes`.
    fn check_batches(&self, bytes: &Bytes) -> Result<Vec<(usize, BatchHeader)>, AppendError> {
        let corrupt = |reason: String| AppendError::Corrupt { partition: self.partition.clone(), reason };
        let mut placed = Vec::new();
        let mut next_offset = self.log_end_offset;
        let mut at = 0;
        while let Some(head) = bytes[at..].first_chunk::<HEADER_BYTES>() {
            let header = BatchHeader::parse(head).map_err(|error| corrupt(error.to_string()))?;
            let size = header.size_bytes() as usize;
            let Some(batch) = bytes[at..].get(..size) else { break }; // The fetch cut it short.
            if !header.crc_is_valid(&batch[HEADER_BYTES..]) {
                return Err(corrupt(format!("the checksum of {header:?} does not match")));
            }
            if header.base_offset() < next_offset {
                return Err(AppendError::UnexpectedOffset {
                    offset: header.base_offset(),
                    log_end_offset: next_offset,
                    partition: self.partition.clone(),
                });
            }
            next_offset = header.last_offset() + 1;
            placed.push((at, header));
            at += size;
        }
        Ok(placed)
    }

    /// Writes consecutive batches with one call.
    fn append_run(&mut self, bytes: &Bytes, run: &[(usize, BatchHeader)], readers: Readers) -> Result<(), AppendError> {
        let Some(((start, _), (last_start, last))) = run.first().zip(run.last()).map(|(first, last)| (*first, *last))
        else {
            return Ok(());
        };
        let active = self.active().clone();
        let end = last_start + last.size_bytes() as usize;
        let mut position = active.write(&[&bytes[start..end]]).map_err(|error| self.ctx.handle_io_error(error))?;
        for (at, header) in run {
            let records = bytes.slice(at + HEADER_BYTES..at + header.size_bytes() as usize);
            let completed = self.note_appended(header, marker_of(header, &records));
            if planted!("K5") {
                self.producers = ProducerState::new(self.log_end_offset);
            }
            match readers {
                Readers::AtTheTail => {
                    let pinned_bytes = records.len();
                    self.ctx.tail.push(&self.tail, *header, records, pinned_bytes);
                }
                Readers::Few => self.tail.clear(),
            }
            self.index_appended(&active, header, position, completed)?;
            position += header.size_bytes();
        }
        Ok(())
    }

    /// Updates the state in memory after a batch was written to the file; this cannot fail. Returns the transaction
    /// that the batch ends.
    fn note_appended(&mut self, header: &BatchHeader, marker: Option<EndTxnMarker>) -> Option<CompletedTxn> {
        assert!(header.base_offset() >= self.log_end_offset, "INV-L1: {header:?} behind {}", self.log_end_offset);
        self.log_end_offset = header.last_offset() + 1;
        if self.epochs.assign(header.partition_leader_epoch(), header.base_offset()) {
            self.dirty.changed_epochs(header.base_offset());
        }
        let completed = self.producers.apply(header, marker);
        self.producers.keep_at_most(self.ctx.max_producer_ids);
        // The first abort of a segment creates its transaction index.
        self.dirty.names += u64::from(completed.is_some_and(|transaction| transaction.aborted));
        completed
    }

    /// Adds a batch to the indexes of its segment. Fails only by a fault of the disk, which takes the directory
    /// offline.
    fn index_appended(
        &self,
        active: &Segment,
        header: &BatchHeader,
        position: u64,
        completed: Option<CompletedTxn>,
    ) -> Result<(), LogError> {
        let aborted_transaction = completed.filter(|transaction| transaction.aborted);
        active
            .index(header, position, self.config.index_interval_bytes.max(0) as u64)
            .and_then(|()| {
                aborted_transaction.map_or(Ok(()), |transaction| active.append_aborted(aborted(&transaction)))
            })
            .map_err(|error| self.ctx.handle_io_error(error))
    }

    fn check_usable(&self) -> Result<(), LogError> {
        self.check_readable()?;
        if self.closed { Err(LogError::Closed { path: self.dir.path() }) } else { Ok(()) }
    }

    fn check_readable(&self) -> Result<(), LogError> {
        if self.deleted {
            return Err(LogError::Deleted { path: self.dir.path() });
        }
        self.ctx.check_online()
    }

    fn check_fits_segment(&self, header: &BatchHeader) -> Result<(), AppendError> {
        let segment_bytes = self.config.segment_bytes;
        if header.size_bytes() <= segment_bytes.max(0) as u64 {
            return Ok(());
        }
        Err(AppendError::LargerThanSegment {
            size_bytes: header.size_bytes(),
            segment_bytes,
            partition: self.partition.clone(),
        })
    }

    fn flush_is_due_by_messages(&self) -> bool {
        self.log_end_offset - self.recovery_point >= self.config.flush_messages
    }

    // --- roll ---

    fn maybe_roll(&mut self, next: &BatchHeader, now_ms: TimestampMs) -> Result<(), LogError> {
        if self.should_roll(next, 0, now_ms)? {
            self.roll_before(next)?;
        }
        Ok(())
    }

    /// The new segment starts where the one before ended, unless the gap of offsets is too wide for an index.
    fn roll_before(&mut self, next: &BatchHeader) -> Result<(), LogError> {
        let is_over_gap = next.last_offset() - self.log_end_offset > Offset::from(i32::MAX)
            && is_gap_between(self.active().base_offset(), next.base_offset());
        self.roll_to(if is_over_gap { next.base_offset() } else { self.log_end_offset })
    }

    /// `LogSegment.shouldRoll`, if `pending_bytes` will be written before `next`.
    fn should_roll(&self, next: &BatchHeader, pending_bytes: u64, now_ms: TimestampMs) -> Result<bool, LogError> {
        let active = self.active();
        let size = active.size_bytes() + pending_bytes;
        // An empty segment may start above the next offset, if the append failed after a roll over a gap.
        let is_out_of_reach = next.last_offset() - active.base_offset() > Offset::from(i32::MAX)
            || next.base_offset() < active.base_offset();
        if size == 0 {
            return Ok(is_out_of_reach);
        }
        Ok(is_out_of_reach
            || size + next.size_bytes() > self.config.segment_bytes.max(0) as u64
            || active.waited_for_roll(now_ms, next.max_timestamp())?
                > self.config.segment_ms - self.roll_jitter_ms(active)
            || active.indexes_are_full(self.config.segment_index_bytes))
    }

    /// `segment.jitter.ms`: spreads rolls, by a hash instead of Kafka's random number.
    fn roll_jitter_ms(&self, active: &Segment) -> i64 {
        use std::hash::{Hash, Hasher};
        let most = self.config.segment_jitter_ms.min(self.config.segment_ms);
        if most <= 0 {
            return 0;
        }
        let mut hasher = std::hash::DefaultHasher::new();
        (&self.partition, active.base_offset()).hash(&mut hasher);
        (hasher.finish() % most as u64) as i64
    }

    /// Starts a new segment at the log's end, unless the active one is empty.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn roll(&mut self) -> Result<(), LogError> {
        self.check_usable()?;
        self.roll_to(self.log_end_offset)
    }

    fn roll_to(&mut self, base_offset: Offset) -> Result<(), LogError> {
        let rolled = self.try_roll_to(base_offset);
        rolled.map_err(|error| self.ctx.handle_io_error(error))
    }

    fn try_roll_to(&mut self, base_offset: Offset) -> Result<(), LogError> {
        if self.active().size_bytes() == 0 {
            let is_there = self.active().base_offset() == base_offset;
            return if is_there { Ok(()) } else { self.replace_empty_segment(base_offset) };
        }
        let is_over_gap = is_gap_between(self.active().base_offset(), base_offset);
        self.active().become_inactive()?;
        self.take_snapshot()?;
        self.start_segment(base_offset)?;
        self.ctx.announce_roll();
        self.flush_before_gap(is_over_gap)
    }

    /// A recovery cannot tell such a gap from a lost tail, so everything before it must be durable. Gaps are rare
    /// enough to wait for the flush here.
    fn flush_before_gap(&mut self, is_over_gap: bool) -> Result<(), LogError> {
        if is_over_gap { self.flush() } else { Ok(()) }
    }

    fn start_segment(&mut self, base_offset: Offset) -> Result<(), LogError> {
        let segment = Segment::new(&self.ctx, &self.dir, base_offset, FileLengths::default());
        segment.log_file()?;
        Arc::make_mut(&mut self.segments).push(segment);
        self.dirty.names += 1;
        Ok(())
    }

    /// Replaces the active segment, which is empty and does not start at the offset that the next batch needs.
    fn replace_empty_segment(&mut self, base_offset: Offset) -> Result<(), LogError> {
        let empty = self.active().clone();
        self.start_segment(base_offset)?;
        Arc::make_mut(&mut self.segments).retain(|segment| !Arc::ptr_eq(segment, &empty));
        let is_over_gap = is_gap_between(empty.base_offset(), base_offset);
        self.remove_segments(vec![empty], self.config.file_delete_delay_ms)?;
        self.flush_before_gap(is_over_gap)
    }

    /// Writes a snapshot of the producer state at the log's end; a restart loads it.
    pub(super) fn take_snapshot(&mut self) -> Result<(), LogError> {
        let offset = self.log_end_offset;
        if self.snapshots.contains(&offset) || offset == self.log_start_offset && self.producers.is_empty() {
            return Ok(());
        }
        let path = self.snapshot_path(offset);
        write_unsynced(&*self.ctx.disk, &path, &self.producers.snapshot()).map_err(LogError::io("write", &path))?;
        self.snapshots.insert(offset);
        self.dirty.wrote(path);
        Ok(())
    }

    pub(super) fn snapshot_path(&self, offset: Offset) -> PathBuf {
        self.dir.path().join(file_name(offset, SNAPSHOT_EXTENSION))
    }

    pub(super) fn remove_snapshots(&mut self, which: impl Fn(Offset) -> bool) -> Result<(), LogError> {
        let gone: Vec<Offset> = self.snapshots.iter().copied().filter(|offset| which(*offset)).collect();
        for offset in gone {
            let path = self.snapshot_path(offset);
            remove_if_exists(&self.ctx, &path)?;
            self.snapshots.remove(&offset);
            self.dirty.files.retain(|(_, dirty)| *dirty != path);
        }
        Ok(())
    }

    /// Reserves disk space for `bytes` more in the active segment. Returns the segment's base offset, and the position
    /// in its file up to which space is reserved.
    ///
    /// # Errors
    /// The disk does not have the space; or the file system cannot reserve any ([`io::ErrorKind::Unsupported`]); or a
    /// fault of the disk.
    pub fn reserve_space(&self, bytes: u64) -> Result<(Offset, u64), LogError> {
        self.check_usable()?;
        let active = self.active();
        let kept = active.reserve_space(bytes);
        kept.map_err(|error| self.ctx.handle_io_error(error))?;
        Ok((active.base_offset(), active.size_bytes() + bytes))
    }

    /// Releases the space reserved for a segment that is no longer active.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn release_space(&self, base_offset: Offset) -> Result<(), LogError> {
        let inactive = self.segments.split_last().map_or(&[][..], |(_, inactive)| inactive);
        match inactive.iter().find(|segment| segment.base_offset() == base_offset) {
            Some(segment) => segment.release_space().map_err(|error| self.ctx.handle_io_error(error)),
            None => Ok(()),
        }
    }

    // --- read ---

    /// Plans a read that starts at `from`: at most `max_bytes`, but at least one whole batch if `min_one_batch` (F2),
    /// only batches below `upper_bound` (exclusive: high watermark, last stable offset or log end).
    ///
    /// # Errors
    /// F4: the offset is outside of the log; or the log directory is offline.
    pub fn read(
        &self,
        from: Offset,
        max_bytes: usize,
        upper_bound: Offset,
        min_one_batch: bool,
    ) -> Result<ReadPlan, ReadError> {
        self.check_readable()?;
        if from < self.log_start_offset || from > self.log_end_offset {
            return Err(ReadError::OffsetOutOfRange {
                offset: from,
                partition: self.partition.clone(),
                log_start_offset: self.log_start_offset,
                log_end_offset: self.log_end_offset,
            });
        }
        Ok(ReadPlan {
            at: self.segments.partition_point(|segment| segment.base_offset() <= from).saturating_sub(1),
            segments: self.segments.clone(),
            tail: self.tail.clone(),
            from,
            upper_bound: upper_bound.min(self.log_end_offset),
            log_end_offset: self.log_end_offset,
            active_bytes: self.active().size_bytes(),
            max_bytes,
            min_one_batch,
        })
    }

    /// Plans a search by timestamp.
    pub fn timestamp_lookup(&self) -> TimestampLookup {
        TimestampLookup {
            segments: self.segments.clone(),
            active_bytes: self.active().size_bytes(),
            log_start_offset: self.log_start_offset,
        }
    }

    // --- flush ---

    /// Lists what must be synced to make everything below `up_to` durable. The plan must be run outside the lock.
    pub fn flush_plan(&self, up_to: Offset) -> FlushPlan {
        let up_to = up_to.min(self.log_end_offset);
        // Starts with the segment that ends at the recovery point: a roll there has added to its indexes.
        let first =
            self.segments.partition_point(|segment| segment.base_offset() < self.recovery_point).saturating_sub(1);
        // The last segment may have been emptied; that must become durable too.
        let whole = up_to == self.log_end_offset;
        let last = if whole {
            self.segments.len()
        } else {
            self.segments.partition_point(|segment| segment.base_offset() < up_to)
        };
        FlushPlan {
            ctx: self.ctx.clone(),
            flushes: self.flushes.clone(),
            segments: self.segments[first.min(last)..last].to_vec(),
            dir: self.dir.path(),
            files: self.dirty.files.iter().map(|(_, path)| path.clone()).collect(),
            epochs: (self.dirty.epochs > self.dirty.epochs_synced).then(|| self.epochs.to_text()),
            sync_dir: self.dirty.names > self.dirty.names_synced,
            sync_parent: self
                .dirty
                .parent
                .is_some_and(|created| self.ctx.partitions_synced.load(Ordering::Acquire) < created),
            write_indexes: true,
            done: FlushDone {
                up_to,
                truncations: self.dirty.truncations,
                names: self.dirty.names,
                epochs: self.dirty.epochs,
            },
        }
    }

    /// Applies the result of a plan that was run: advances the recovery point.
    pub fn flush_done(&mut self, done: FlushDone) {
        self.last_flush = self.ctx.clock.monotonic();
        if done.truncations != self.dirty.truncations {
            return;
        }
        self.dirty.truncations_synced = done.truncations;
        self.dirty.names_synced = self.dirty.names_synced.max(done.names);
        self.dirty.epochs_synced = self.dirty.epochs_synced.max(done.epochs);
        if self.dirty.epochs_synced == self.dirty.epochs {
            self.dirty.epochs_from = None;
        }
        self.dirty.files.retain(|(names, _)| *names > done.names);
        self.dirty.parent = None;
        self.recovery_point = self.recovery_point.max(done.up_to);
    }

    /// Flushes in the calling thread, for callers that hold the only handle (start, stop, tests, the metadata log).
    ///
    /// # Errors
    /// As [`FlushPlan::run`].
    pub fn flush(&mut self) -> Result<(), LogError> {
        let done = self.flush_plan(self.log_end_offset).run()?;
        self.flush_done(done);
        Ok(())
    }

    /// Whether there are unflushed records and `flush.ms` has passed or `flush.messages` is reached.
    pub fn flush_is_due(&self, now: Duration) -> bool {
        self.log_end_offset > self.recovery_point
            && (now.saturating_sub(self.last_flush).as_millis() >= self.config.flush_ms.max(0) as u128
                || self.flush_is_due_by_messages())
    }

    /// Bytes in the active segment.
    pub(crate) fn active_size_bytes(&self) -> u64 {
        self.active().size_bytes()
    }

    /// The base offset of the active segment.
    pub(crate) fn active_base_offset(&self) -> Offset {
        self.active().base_offset()
    }

    /// The lock and the waiters for flushes of this log.
    pub(super) fn flushes(&self) -> Arc<LogFlushes> {
        self.flushes.clone()
    }

    /// Writes everything that a clean start needs (indexes, snapshot, epochs) and makes it durable. After that the log
    /// accepts no change.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn close_cleanly(&mut self) -> Result<(), LogError> {
        if self.deleted {
            return Ok(());
        }
        self.closed = true;
        self.ctx.check_online()?;
        if self.is_closed_cleanly() {
            return Ok(());
        }
        let closed = self.active().write_indexes().and_then(|()| self.take_snapshot());
        closed.map_err(|error| self.ctx.handle_io_error(error))?;
        self.flush()?;
        self.close_files();
        Ok(())
    }

    /// [`Log::close_cleanly`] without the wait: everything is written, and durable once the caller has synced the whole
    /// volume. Then the caller must pass the returned value, if any, to [`Log::flush_done`].
    ///
    /// # Errors
    /// A fault of the disk.
    pub(super) fn prepare_close(&mut self) -> Result<Option<FlushDone>, LogError> {
        self.closed = true;
        if self.deleted || self.is_closed_cleanly() {
            return Ok(None);
        }
        self.ctx.check_online()?;
        let prepared =
            self.active().write_indexes().and_then(|()| self.take_snapshot()).and_then(|()| self.write_epochs());
        prepared.map_err(|error| self.ctx.handle_io_error(error))?;
        self.close_files();
        Ok(Some(self.flush_plan(self.log_end_offset).done))
    }

    /// [`Log::prepare_close`] for a log that stays open: its records, and a truncation, become durable with the volume.
    /// A full disk is no error for indexes and epochs, which can be rebuilt.
    pub(super) fn prepare_sync(&mut self) -> Result<Option<FlushDone>, LogError> {
        if self.deleted || self.recovery_point == self.log_end_offset && !self.has_unsynced_truncation() {
            return Ok(None);
        }
        let mut done = self.flush_plan(self.log_end_offset).done;
        match self.active().write_indexes() {
            Err(error) if !error.is_shortage() => return Err(self.ctx.handle_io_error(error)),
            _ => {}
        }
        match self.write_epochs() {
            Ok(()) => {}
            Err(error) if error.is_shortage() => done.epochs = 0,
            Err(error) => return Err(self.ctx.handle_io_error(error)),
        }
        Ok(Some(done))
    }

    /// Writes the epochs without waiting for the disk; a torn file would be noticed, and can be rebuilt from the
    /// batches.
    fn write_epochs(&mut self) -> Result<(), LogError> {
        if self.dirty.epochs == self.dirty.epochs_synced {
            return Ok(());
        }
        let path = self.dir.path().join(LEADER_EPOCH_FILE);
        let mut written = lock(&self.flushes.epochs_written);
        write_unsynced(&*self.ctx.disk, &path, self.epochs.to_text().as_bytes())
            .map_err(LogError::io("write", &path))?;
        *written = self.dirty.epochs;
        Ok(())
    }

    fn close_files(&self) {
        for segment in self.segments.iter() {
            segment.close();
        }
    }

    /// Whether nothing has changed since the log was opened or closed cleanly.
    fn is_closed_cleanly(&self) -> bool {
        let snapshot = self.snapshots.contains(&self.log_end_offset) || self.log_end_offset == self.log_start_offset;
        snapshot && self.recovery_point == self.log_end_offset && !self.dirty.any()
    }

    // --- truncation and deletion ---

    /// Moves the log start offset up to `offset` (DeleteRecords, or a follower's leader). Returns whether it moved. The
    /// caller must have checked `offset` against the high watermark.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn maybe_increment_log_start_offset(&mut self, offset: Offset) -> Result<bool, LogError> {
        self.check_usable()?;
        assert!(offset <= self.log_end_offset, "INV-L2: log start {offset} beyond the end {}", self.log_end_offset);
        if offset <= self.log_start_offset {
            return Ok(false);
        }
        self.log_start_offset = offset;
        if self.epochs.truncate_from_start(offset) {
            self.dirty.epochs += 1;
        }
        self.producers.on_log_start_offset(offset);
        Ok(true)
    }

    /// Deletes the segments that retention no longer keeps, oldest first, none above `high_watermark`. Returns how many
    /// were deleted: 0 if the log itself was deleted or closed in the meantime.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn delete_old_segments(&mut self, now_ms: TimestampMs, high_watermark: Offset) -> Result<usize, LogError> {
        if self.deleted || self.closed {
            return Ok(0);
        }
        self.check_usable()?;
        let deletable = self.deletable_segments(now_ms, high_watermark)?;
        let all = deletable == self.segments.len();
        self.delete_oldest(deletable.min(self.segments.len() - 1))?;
        if all {
            // Roll only now: on a full disk the new segment needs the space that the deleted ones free.
            self.roll()?;
            self.delete_oldest(1)?;
        }
        Ok(deletable)
    }

    fn delete_oldest(&mut self, count: usize) -> Result<(), LogError> {
        if count == 0 {
            return Ok(());
        }
        let gone = Arc::make_mut(&mut self.segments).drain(..count).collect();
        self.remove_segments(gone, self.config.file_delete_delay_ms)?;
        let first = self.segments.first().map_or(self.log_end_offset, |segment| segment.base_offset());
        self.maybe_increment_log_start_offset(first).map(|_| ())
    }

    fn deletable_segments(&self, now_ms: TimestampMs, high_watermark: Offset) -> Result<usize, LogError> {
        let rules = RetentionRules {
            delete: self.config.cleanup_policy.delete,
            retention_ms: self.config.retention_ms,
            retention_bytes: self.config.retention_bytes,
        };
        let mut retention = Retention::new(rules, now_ms, self.log_start_offset, high_watermark, self.size_bytes());
        for (at, segment) in self.segments.iter().enumerate() {
            let facts = SegmentFacts {
                base_offset: segment.base_offset(),
                next_offset: self.segments.get(at + 1).map_or(self.log_end_offset, |next| next.base_offset()),
                size_bytes: segment.size_bytes(),
                largest_timestamp_ms: segment.largest_timestamp()?,
            };
            match retention.next(facts, at + 1 == self.segments.len()) {
                None => return Ok(at),
                Some(reason) => {
                    tracing::info!(partition = %self.partition, segment = facts.base_offset, ?reason, "segment is deleted");
                }
            }
        }
        Ok(self.segments.len())
    }

    /// Renames a segment's files to `.deleted`, to be removed after `delay_ms`.
    pub(super) fn retire(&self, segment: &Segment, delay_ms: i64) -> Result<(), LogError> {
        for path in segment.mark_deleted()? {
            self.ctx.schedule_removal(path, false, delay_ms);
        }
        Ok(())
    }

    /// Retires segments and removes their snapshots.
    fn remove_segments(&mut self, gone: Vec<Arc<Segment>>, delay_ms: i64) -> Result<(), LogError> {
        self.end_swap().map_err(|error| self.ctx.handle_io_error(error))?;
        for segment in gone {
            self.retire(&segment, delay_ms).map_err(|error| self.ctx.handle_io_error(error))?;
            self.remove_snapshots(|offset| offset == segment.base_offset())?;
            self.dirty.names += 1;
        }
        Ok(())
    }

    /// Truncates everything from `offset` on, including the whole batch that contains `offset`. Returns whether
    /// anything was truncated. The truncation is durable then.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn truncate_to(&mut self, offset: Offset) -> Result<bool, LogError> {
        let is_cut = self.cut_to(offset)?;
        self.settle_truncation()?;
        Ok(is_cut)
    }

    /// [`Log::truncate_to`] that leaves the wait for the disk to [`super::flush::sync_truncations`], which can do it
    /// outside of the log's lock. An append that comes before it waits for the disk itself. If the checkpoint of
    /// recovery points has one above [`Log::end_of_cut`], it is written here.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn cut_to(&mut self, offset: Offset) -> Result<bool, LogError> {
        self.check_usable()?;
        if offset >= self.log_end_offset {
            return Ok(false);
        }
        if self.segments.first().is_some_and(|first| first.base_offset() > offset) {
            self.truncate_fully_and_start_at(offset)?;
            return Ok(true);
        }
        let cut = self.try_cut_to(offset);
        cut.map_err(|error| self.ctx.handle_io_error(error))?;
        Ok(true)
    }

    /// Where the log will end if it is truncated to `offset`; `None` if nothing is to be truncated.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn end_of_cut(&self, offset: Offset) -> Result<Option<Offset>, LogError> {
        self.check_usable()?;
        if offset >= self.log_end_offset || self.segments.first().is_some_and(|first| first.base_offset() > offset) {
            return Ok(None);
        }
        self.find_cut(offset).map(|cut| Some(cut.end)).map_err(|error| self.ctx.handle_io_error(error))
    }

    fn find_cut(&self, offset: Offset) -> Result<Cut, LogError> {
        let kept = self.segments.partition_point(|segment| segment.base_offset() <= offset);
        let active = &self.segments[kept - 1];
        let position = active.find(offset, active.size_bytes())?.map(|(position, _)| position);
        // After a gap the log must end where a restart would find its end.
        let end = active.end_before(position.unwrap_or(active.size_bytes()))?;
        Ok(Cut { kept, position, end })
    }

    /// Waits for the disk if [`Log::cut_to`] is not durable yet: the truncated batches must not reappear before or
    /// behind a later one.
    fn settle_truncation(&mut self) -> Result<(), LogError> {
        if self.has_unsynced_truncation() { self.flush() } else { Ok(()) }
    }

    /// Whether [`Log::cut_to`] is not durable yet.
    pub fn has_unsynced_truncation(&self) -> bool {
        self.dirty.truncations > self.dirty.truncations_synced
    }

    fn try_cut_to(&mut self, offset: Offset) -> Result<(), LogError> {
        let Cut { kept, position, end } = self.find_cut(offset)?;
        let active = self.segments[kept - 1].clone();
        // This must come first: a later start would take a recovery point above the log's end for data loss.
        self.ctx.recovery_points.lower([(self.partition.clone(), end)])?;
        self.ctx.cleaner_offsets.lower([(self.partition.clone(), end)])?;
        self.end_swap()?;
        self.begin_truncation();
        // The newest first: a crash in between must leave no gap.
        let gone: Vec<_> = Arc::make_mut(&mut self.segments).drain(kept..).rev().collect();
        self.remove_segments(gone, self.config.file_delete_delay_ms)?;
        if let Some(position) = position {
            active.truncate_at(position)?;
        }
        active.truncate_aborted(end)?;
        self.finish_cut(end)
    }

    fn begin_truncation(&mut self) {
        self.dirty.truncations += 1;
        self.tail.clear();
    }

    fn finish_cut(&mut self, end: Offset) -> Result<(), LogError> {
        self.log_end_offset = end;
        self.recovery_point = self.recovery_point.min(end);
        self.log_start_offset = self.log_start_offset.min(end);
        if self.epochs.truncate_from_end(end) {
            self.dirty.changed_epochs(end);
        }
        // Removed files (later segments, snapshots) must not reappear after new records are appended.
        self.dirty.names += 1;
        self.reload_producers(None)
    }

    /// Removes all records; the next record gets `offset`.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn truncate_fully_and_start_at(&mut self, offset: Offset) -> Result<(), LogError> {
        self.check_usable()?;
        let emptied = self.try_truncate_fully(offset);
        emptied.map_err(|error| self.ctx.handle_io_error(error))
    }

    fn try_truncate_fully(&mut self, offset: Offset) -> Result<(), LogError> {
        self.ctx.recovery_points.remove(&self.partition)?;
        self.ctx.cleaner_offsets.remove(&self.partition)?;
        self.begin_truncation();
        // The newest first: a crash in between leaves the beginning of the log.
        let gone = std::mem::take(Arc::make_mut(&mut self.segments)).into_iter().rev().collect();
        let segment = Segment::new(&self.ctx, &self.dir, offset, FileLengths::default());
        Arc::make_mut(&mut self.segments).push(segment.clone());
        self.remove_segments(gone, self.config.file_delete_delay_ms)?;
        let dir = self.dir.path();
        self.ctx.disk.sync_dir(&dir).map_err(LogError::io("sync", &dir))?;
        segment.log_file()?;
        self.dirty.names += 1;
        self.epochs.clear();
        self.dirty.changed_epochs(offset);
        self.remove_snapshots(|_| true)?;
        self.producers = ProducerState::new(offset);
        self.log_start_offset = offset;
        self.log_end_offset = offset;
        self.recovery_point = offset;
        self.dirty.truncations_synced = self.dirty.truncations;
        Ok(())
    }

    /// Renames the directory to `<topic>-<partition>.<unique>-delete`; it is removed after `file.delete.delay.ms`.
    /// Existing read plans can still finish; every other call on the log fails.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn delete(&mut self, unique: &str) -> Result<(), LogError> {
        self.check_usable()?;
        let from = self.dir.path();
        let to = self.ctx.dir.join(moved_dir_name(&self.partition, unique, "delete"));
        let renamed = self.dir.delete(&*self.ctx.disk, to.clone()).map_err(LogError::io("rename", &from));
        let is_there = renamed.map_err(|error| self.ctx.handle_io_error(error))?;
        for checkpoint in self.ctx.checkpoints() {
            checkpoint.forget(&self.partition);
        }
        self.deleted = true;
        self.tail.clear();
        if is_there {
            self.ctx.schedule_removal(to, true, self.config.file_delete_delay_ms);
        }
        Ok(())
    }

    /// The offset up to which readers may read: only the durable records while a flush that `flush.messages` demands is
    /// outstanding.
    pub fn visible_end_offset(&self) -> Offset {
        if self.flush_is_due_by_messages() { self.recovery_point } else { self.log_end_offset }
    }

    /// Whether [`Log::delete`] was called.
    pub fn is_deleted(&self) -> bool {
        self.deleted
    }
}

/// Whether the base offsets of two segments are too far apart for the first to reach the second. Without a gap of
/// offsets, a segment ends where the next one starts, and its range fits into its indexes.
pub(super) fn is_gap_between(base_offset: Offset, next_base_offset: Offset) -> bool {
    next_base_offset - base_offset > Offset::from(i32::MAX) + 1
}

/// `LocalLog.logDeleteDirName` and `logStrayDirName`: at most 255 characters; the topic's name is shortened.
pub(super) fn moved_dir_name(partition: &TopicPartition, unique: &str, suffix: &str) -> String {
    let suffix = format!("-{}.{unique}-{suffix}", partition.partition);
    let room = 255usize.saturating_sub(suffix.len());
    let topic: String = partition.topic.chars().take(room).collect();
    topic + &suffix
}

pub(super) fn aborted(transaction: &CompletedTxn) -> AbortedTransaction {
    AbortedTransaction {
        producer_id: transaction.producer_id,
        first_offset: transaction.first_offset,
        last_offset: transaction.last_offset,
        last_stable_offset: transaction.last_stable_offset,
    }
}

/// Removes what there is of the files of a segment at a stage.
pub(super) fn remove_segment_files(
    ctx: &LogContext,
    dir: &Path,
    base_offset: Offset,
    stage: Stage,
) -> Result<(), LogError> {
    FileKind::ALL.into_iter().try_for_each(|kind| remove_if_exists(ctx, &dir.join(stage.file_name(base_offset, kind))))
}

pub(super) fn remove_if_exists(ctx: &LogContext, path: &Path) -> Result<(), LogError> {
    match ctx.disk.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "log {} {}..{} in {:?}", self.partition, self.log_start_offset, self.log_end_offset, self.segments)
    }
}
