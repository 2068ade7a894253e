//! Opens a log: lists the directory, checks which files are valid, and rebuilds the others.
//!
//! INV-L4: below the recovery point everything was durable, so damage there is corruption. It is reported, never
//! truncated and never served; the batches before and after it are served. Above the recovery point a crash may leave a
//! torn tail, which is truncated at the first batch that is not whole. If good batches follow a bad one, the truncated
//! bytes are kept in a file in the same directory. INV-L5: indexes, snapshots and epochs can be rebuilt from the `.log`
//! files, also after a clean stop.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Log, LogContext, LogError, OpenLog,
    checkpoints::{is_damaged_copy, parse_partition_metadata, read_if_exists},
    file_names::{FileKind, FileLengths, PartitionDir, Stage, file_name, parse_file_name, parse_offset},
    leader_epochs::LeaderEpochs,
    log::{
        Dirty, LEADER_EPOCH_FILE, PARTITION_METADATA_FILE, SNAPSHOT_EXTENSION, aborted, is_gap_between,
        remove_if_exists, remove_segment_files,
    },
    producer_state::{EndTxnMarker, ProducerState},
    replace,
    segment::{BatchSearch, Rebuilt, Segment},
    validator::marker_of,
};
use crate::{
    config::topic::LogConfig,
    env::Disk,
    protocol::record_batch::{BatchHeader, HEADER_BYTES},
    types::{CLUSTER_METADATA_TOPIC, Offset, TopicId, TopicPartition},
};

/// See [`Log::open`].
pub(super) fn open(
    ctx: &Arc<LogContext>,
    dir: &Path,
    partition: TopicPartition,
    topic_id: Option<TopicId>,
    config: Arc<LogConfig>,
    start: OpenLog,
) -> Result<Log, LogError> {
    let found = Found::list(ctx, dir)?;
    let found_topic_id = found.topic_id(ctx, dir, topic_id)?;
    // An earlier attempt to create it may have made the directory and failed after that.
    let parent = found.holds_nothing().then(|| ctx.partition_created());
    let mut log = Log {
        ctx: ctx.clone(),
        partition,
        topic_id: found_topic_id,
        dir: PartitionDir::new(dir.to_owned()),
        config,
        segments: Arc::default(),
        log_start_offset: 0,
        log_end_offset: 0,
        recovery_point: 0,
        producers: ProducerState::default(),
        snapshots: found.snapshots,
        epochs: LeaderEpochs::default(),
        tail: Arc::default(),
        dirty: Dirty { parent, ..Dirty::default() },
        last_flush: ctx.clock.monotonic(),
        flushes: Arc::default(),
        swapping: None,
        deleted: false,
        closed: false,
    };
    if found.segments.is_empty() {
        log.begin_empty(start, found.is_new)?;
    } else {
        log.begin_with(&found.segments, start, found.has_epochs)?;
    }
    if let (None, Some(topic_id)) = (log.topic_id, topic_id) {
        log.set_topic_id(topic_id)?;
    }
    Ok(log)
}

/// The content of the directory.
#[derive(Default)]
struct Found {
    is_new: bool,
    segments: BTreeMap<Offset, FileLengths>,
    snapshots: BTreeSet<Offset>,
    has_epochs: bool,
    has_metadata: bool,
}

impl Found {
    fn list(ctx: &Arc<LogContext>, dir: &Path) -> Result<Found, LogError> {
        if !ctx.disk.exists(dir) {
            ctx.disk.create_dir_all(dir).map_err(LogError::io("create", dir))?;
            return Ok(Found { is_new: true, ..Found::default() });
        }
        let mut found = Found::default();
        let mut swaps: BTreeMap<Offset, FileLengths> = BTreeMap::new();
        let (mut first_cleaned, mut unfinished) = (Offset::MAX, Vec::new());
        for entry in ctx.disk.list(dir).map_err(LogError::io("list", dir))? {
            let name = entry.name.as_str();
            if let Some((base_offset, kind)) = name.strip_suffix(Stage::Swap.suffix()).and_then(parse_file_name) {
                swaps.entry(base_offset).or_default().0[kind as usize] = Some(entry.len);
            } else if let Some((base_offset, kind)) = parse_file_name(name) {
                found.segments.entry(base_offset).or_default().0[kind as usize] = Some(entry.len);
            } else if let Some(offset) =
                name.strip_suffix(SNAPSHOT_EXTENSION).and_then(|stem| parse_offset(stem.strip_suffix('.')?))
            {
                found.snapshots.insert(offset);
            } else if name == LEADER_EPOCH_FILE {
                found.has_epochs = true;
            } else if name == PARTITION_METADATA_FILE {
                found.has_metadata = true;
            } else if [".deleted", ".cleaned", ".tmp"].iter().any(|suffix| name.ends_with(suffix)) {
                // Left by a crash: work that had not taken effect, or that only had to remove this file.
                let cleaned = name.strip_suffix(Stage::Cleaned.suffix()).and_then(parse_file_name);
                first_cleaned = cleaned.map_or(first_cleaned, |(base_offset, _)| first_cleaned.min(base_offset));
                unfinished.push(dir.join(name));
            }
        }
        for (base_offset, lengths) in swaps {
            // Files of a segment get their suffixes one by one, and a segment may be replaced by several, which get
            // them from the last to the first. So beside a `.cleaned` file they may not be complete.
            if base_offset >= first_cleaned {
                remove_segment_files(ctx, dir, base_offset, Stage::Swap)?;
            } else {
                found.complete_swap(ctx, dir, base_offset, lengths)?;
            }
        }
        // Only now, since these tell which swaps are not complete.
        for path in unfinished {
            remove_if_exists(ctx, &path)?;
        }
        // An index without its log is useless.
        let orphans: Vec<Offset> = found
            .segments
            .iter()
            .filter(|(_, lengths)| lengths.of(FileKind::Log).is_none())
            .map(|(base, _)| *base)
            .collect();
        for base_offset in orphans {
            found.segments.remove(&base_offset);
            remove_segment_files(ctx, dir, base_offset, Stage::InUse)?;
        }
        Ok(found)
    }

    /// A cleaned segment was about to take the place of others: removes what is left of them, and gives it its name.
    fn complete_swap(
        &mut self,
        ctx: &Arc<LogContext>,
        dir: &Path,
        base_offset: Offset,
        lengths: FileLengths,
    ) -> Result<(), LogError> {
        if lengths.of(FileKind::Log).is_none() {
            return self.complete_names(ctx, dir, base_offset, lengths);
        }
        let swap = Segment::at_stage(ctx, &PartitionDir::new(dir.to_owned()), base_offset, lengths, Stage::Swap);
        let end_offset = swap.end_of_walk(0, swap.size_bytes())?.max(base_offset + 1);
        let replaced: Vec<Offset> = self.segments.range(base_offset..end_offset).map(|(base, _)| *base).collect();
        for base in &replaced {
            remove_segment_files(ctx, dir, *base, Stage::InUse)?;
            self.segments.remove(base);
            if *base != base_offset && self.snapshots.remove(base) {
                remove_if_exists(ctx, &dir.join(file_name(*base, SNAPSHOT_EXTENSION)))?;
            }
        }
        // The old segments must not come back beside the new one.
        ctx.disk.sync_dir(dir).map_err(LogError::io("sync", dir))?;
        swap.advance_to(Stage::InUse)?;
        ctx.disk.sync_dir(dir).map_err(LogError::io("sync", dir))?;
        tracing::info!(dir = %dir.display(), base_offset, ?replaced, "an interrupted compaction is completed");
        self.segments.insert(base_offset, lengths);
        Ok(())
    }

    /// Gives the indexes of a cleaned segment their names, if its `.log` file has its name already.
    fn complete_names(
        &mut self,
        ctx: &LogContext,
        dir: &Path,
        base_offset: Offset,
        lengths: FileLengths,
    ) -> Result<(), LogError> {
        let Some(known) = self.segments.get_mut(&base_offset).filter(|known| known.of(FileKind::Log).is_some()) else {
            return remove_segment_files(ctx, dir, base_offset, Stage::Swap);
        };
        for kind in FileKind::ALL.into_iter().filter(|kind| lengths.of(*kind).is_some()) {
            let at = |stage: Stage| dir.join(stage.file_name(base_offset, kind));
            let (from, to) = (at(Stage::Swap), at(Stage::InUse));
            ctx.disk.rename(&from, &to).map_err(LogError::io("rename", &from))?;
            known.0[kind as usize] = lengths.of(kind);
        }
        ctx.disk.sync_dir(dir).map_err(LogError::io("sync", dir))
    }

    fn holds_nothing(&self) -> bool {
        self.segments.values().all(|lengths| lengths.of(FileKind::Log) == Some(0))
    }

    /// The topic id on disk. A file that a crash left without content counts as missing.
    fn topic_id(&self, ctx: &LogContext, dir: &Path, given: Option<TopicId>) -> Result<Option<TopicId>, LogError> {
        if !self.has_metadata {
            return Ok(None);
        }
        match (topic_id_in(&*ctx.disk, dir)?, given) {
            (Some(found), Some(given)) if is_damaged_copy(found, given) => {
                tracing::warn!(
                    path = %dir.join(PARTITION_METADATA_FILE).display(), %found, topic_id = %given,
                    "a damaged topic id is rewritten"
                );
                Ok(None)
            }
            (None, Some(given)) => {
                tracing::warn!(
                    path = %dir.join(PARTITION_METADATA_FILE).display(), topic_id = %given,
                    "a partition has no readable topic id; it is rewritten"
                );
                Ok(None)
            }
            (Some(found), Some(given)) if found != given => Err(LogError::Invalid {
                path: dir.join(PARTITION_METADATA_FILE),
                reason: format!("it belongs to topic id {found}, not to {given}"),
            }),
            (found, _) => Ok(found),
        }
    }
}

/// Whether a partition's directory has records, or had some once.
pub(super) fn holds_records(ctx: &Arc<LogContext>, dir: &Path) -> Result<bool, LogError> {
    let found = Found::list(ctx, dir)?;
    Ok(!found.holds_nothing() || found.segments.keys().any(|base_offset| *base_offset > 0))
}

/// The topic id in a partition's directory, if there is a readable one.
pub(super) fn topic_id_in(disk: &dyn Disk, dir: &Path) -> Result<Option<TopicId>, LogError> {
    let bytes = read_if_exists(disk, &dir.join(PARTITION_METADATA_FILE))?;
    Ok(bytes.and_then(|bytes| parse_partition_metadata(&bytes)))
}

impl Log {
    fn begin_empty(&mut self, start: OpenLog, is_new: bool) -> Result<(), LogError> {
        let offset = start.log_start_offset.max(0);
        if !is_new && start.recovery_point > offset {
            return Err(LogError::Corrupt {
                path: self.dir.path(),
                position: 0,
                reason: format!(
                    "the segments are gone, although all records below offset {} were durable",
                    start.recovery_point
                ),
            });
        }
        let segment = Segment::new(&self.ctx, &self.dir, offset, FileLengths::default());
        segment.log_file()?;
        Arc::make_mut(&mut self.segments).push(segment);
        self.dirty.names += 1;
        (self.log_start_offset, self.log_end_offset, self.recovery_point) = (offset, offset, offset);
        self.producers = ProducerState::new(offset);
        self.remove_snapshots(|_| true)
    }

    fn begin_with(
        &mut self,
        found: &BTreeMap<Offset, FileLengths>,
        start: OpenLog,
        has_epochs: bool,
    ) -> Result<(), LogError> {
        let segments: Vec<_> =
            found.iter().map(|(base, lengths)| Segment::new(&self.ctx, &self.dir, *base, *lengths)).collect();
        self.segments = Arc::new(segments);
        let first = self.segments.first().map_or(0, |segment| segment.base_offset());
        self.log_start_offset = start.log_start_offset.max(first);
        if has_epochs {
            self.epochs = self.load_epochs()?.unwrap_or_default();
        }
        let recovered_from = if start.clean_shutdown {
            self.log_end_offset = self.load_end(start.recovery_point)?;
            self.recovery_point = self.log_end_offset;
            if self.log_start_offset > self.log_end_offset {
                tracing::warn!(
                    partition = %self.partition, log_start_offset = self.log_start_offset, log_end_offset = self.log_end_offset,
                    "the log start offset checkpoint is damaged; the log starts with its first segment"
                );
                self.log_start_offset = first;
            }
            self.check_transaction_indexes()?
        } else {
            let from = start.recovery_point.max(first);
            // The scan will add these epochs again, if they are still valid.
            if self.epochs.truncate_from_end(from) {
                self.dirty.changed_epochs(from);
            }
            self.log_end_offset = self.recover(from, start.acknowledged_is_synced)?;
            self.recovery_point = from;
            // At least the indexes were truncated. A clean shutdown must make the new ones durable.
            self.dirty.names += 1;
            Some(from)
        };
        if self.log_start_offset > self.log_end_offset {
            // `LogLoader`: the crash lost all records above the log start offset. Offsets below it must not be used
            // again.
            tracing::warn!(
                partition = %self.partition, log_start_offset = self.log_start_offset, log_end_offset = self.log_end_offset,
                "all remaining records had been deleted before the crash; the log is empty"
            );
            return self.truncate_fully_and_start_at(self.log_start_offset);
        }
        let cut =
            self.epochs.truncate_from_end(self.log_end_offset) | self.epochs.truncate_from_start(self.log_start_offset);
        self.dirty.epochs += u64::from(cut);
        if self.epochs.entries().first().map_or(self.log_end_offset, |(_, start)| *start) > self.log_start_offset {
            self.complete_epochs()?;
        }
        self.reload_producers(recovered_from)
    }

    fn load_epochs(&self) -> Result<Option<LeaderEpochs>, LogError> {
        let bytes = read_if_exists(&*self.ctx.disk, &self.dir.path().join(LEADER_EPOCH_FILE))?;
        let epochs = bytes.and_then(|bytes| LeaderEpochs::from_text(std::str::from_utf8(&bytes).ok()?));
        if epochs.is_none() {
            tracing::warn!(partition = %self.partition, "the checkpoint of leader epochs is damaged and is rebuilt from the log");
        }
        Ok(epochs)
    }

    /// INV-L5: reads the epochs of batches before the first known one from their headers. None is known if the
    /// checkpoint is lost, and some are missing if a crash has undone a move of the log start offset.
    fn complete_epochs(&mut self) -> Result<(), LogError> {
        let known = std::mem::take(&mut self.epochs);
        let known_from = known.entries().first().map_or(self.log_end_offset, |(_, start)| *start);
        for segment in self.segments.clone().iter().filter(|segment| segment.base_offset() < known_from) {
            match self.read_epochs(segment, known_from) {
                Err(LogError::Corrupt { .. }) => {
                    tracing::warn!(partition = %self.partition, ?segment, "leader epochs after a bad batch are not known");
                }
                other => other?,
            }
        }
        for (epoch, start) in known.entries() {
            self.epochs.assign(*epoch, *start);
        }
        self.dirty.epochs += u64::from(self.epochs != known);
        Ok(())
    }

    fn read_epochs(&mut self, segment: &Segment, limit: Offset) -> Result<(), LogError> {
        let size = segment.size_bytes();
        let first = self.log_start_offset.max(segment.base_offset());
        let Some((position, _)) = segment.find(first, size)? else { return Ok(()) };
        let mut walk = segment.walk(position, size)?;
        while let Some((_, batch)) = walk.next()? {
            if batch.base_offset() >= limit {
                break;
            }
            self.epochs.assign(batch.partition_leader_epoch(), batch.base_offset().max(self.log_start_offset));
        }
        Ok(())
    }

    /// After a clean shutdown: finds the end of the last segment. Returns the log end offset.
    fn load_end(&self, recovery_point: Offset) -> Result<Offset, LogError> {
        let Some(active) = self.segments.last() else { return Ok(0) };
        let interval_bytes = self.config.index_interval_bytes.max(0) as u64;
        let found = if active.size_bytes() > 0 {
            active.load_end_or_rebuild(interval_bytes)?
        } else {
            Rebuilt { end_offset: active.base_offset(), damage: None }
        };
        // A clean stop leaves a producer snapshot at the log's end, and that offset as recovery point in the
        // checkpoint. Either may be lost or wrong.
        let snapshot = self.snapshots.last().copied().unwrap_or(0);
        let end = found.end_offset;
        match found.damage {
            Some((position, offset)) => {
                tracing::error!(
                    partition = %self.partition, segment = active.base_offset(), position, offset,
                    "the log contains a bad batch; the records before and after it are served, those in it are not"
                );
                Ok(end.max(snapshot).max(recovery_point))
            }
            None if snapshot > end => Err(active.corrupt(
                active.size_bytes(),
                format!("the log ends at offset {end}, although it reached offset {snapshot} when it was closed"),
            )),
            None if recovery_point > end => {
                tracing::warn!(
                    partition = %self.partition, recovery_point, log_end_offset = end,
                    "the recovery point checkpoint is damaged; the end of the log is read from its segments"
                );
                Ok(end)
            }
            None => Ok(end),
        }
    }

    /// After a clean shutdown: empties the transaction indexes from the first invalid one on. Returns the offset from
    /// which aborted transactions must be indexed again.
    fn check_transaction_indexes(&self) -> Result<Option<Offset>, LogError> {
        let mut reindex_from = None;
        for (at, segment) in self.segments.iter().enumerate() {
            let limit = self.segments.get(at + 1).map_or(self.log_end_offset, |next| next.base_offset());
            if reindex_from.is_none() && segment.aborted_transactions_are_sane(limit)? {
                continue;
            }
            if reindex_from.is_none() {
                tracing::warn!(
                    partition = %self.partition, ?segment, "a transaction index is damaged and is rebuilt from the log"
                );
            }
            reindex_from = reindex_from.or(Some(segment.base_offset()));
            segment.truncate_aborted(segment.base_offset())?;
        }
        Ok(reindex_from)
    }

    /// After a crash: checks everything at or above `recovery_point` and truncates batches that are not whole. Returns
    /// the log end offset.
    fn recover(&mut self, recovery_point: Offset, acknowledged_is_synced: bool) -> Result<Offset, LogError> {
        // Starts with the segment that ends at the recovery point: its last index entries may not have been written.
        let first = self.segments.partition_point(|segment| segment.base_offset() < recovery_point).saturating_sub(1);
        let mut next_offset = recovery_point;
        let mut kept = self.segments.len();
        for at in first..self.segments.len() {
            let segment = self.segments[at].clone();
            let limit = self.segments.get(at + 1).map(|next| next.base_offset());
            let recovered = self.recover_segment(&segment, recovery_point, limit, acknowledged_is_synced)?;
            next_offset = recovered.end_offset;
            // Everything before a gap that no segment can span was made durable, but the offset where the gap began is
            // not known.
            let is_before_gap = limit.is_some_and(|limit| {
                is_gap_between(segment.base_offset(), limit) || self.may_end_early(limit, recovery_point)
            });
            if next_offset < recovery_point.min(limit.unwrap_or(Offset::MAX)) && !is_before_gap {
                return Err(segment.corrupt(
                    segment.size_bytes(),
                    format!("the log ends at offset {next_offset}, {}", durable_below(recovery_point)),
                ));
            }
            // A segment that ends early has lost its tail, even if it ends with a whole batch.
            if recovered.cut || limit.is_some_and(|limit| next_offset < limit) && !is_before_gap {
                kept = at + 1;
                break;
            }
            if limit.is_some() {
                segment.become_inactive()?;
            }
        }
        let torn = self.snapshots.iter().any(|offset| *offset > next_offset) || kept < self.segments.len();
        self.remove_snapshots(|offset| offset > next_offset)?;
        let beyond: Vec<_> = Arc::make_mut(&mut self.segments).drain(kept..).collect();
        for segment in beyond {
            self.drop_segment(&segment, next_offset, acknowledged_is_synced)?;
        }
        if torn {
            // Removed snapshots and segments must not reappear after new records are appended.
            let dir = self.dir.path();
            self.ctx.disk.sync_dir(&dir).map_err(LogError::io("sync", &dir))?;
        }
        Ok(next_offset)
    }

    /// The offsets of the metadata log follow one another, so a batch after a gap has a damaged offset.
    fn may_skip_offsets(&self) -> bool {
        *self.partition.topic != *CLUSTER_METADATA_TOPIC
    }

    /// Whether a cleaner may have taken batches from `offset` on.
    fn may_have_gap(&self, offset: Offset) -> bool {
        let cleaned_to = self.ctx.cleaner_offsets.get(&self.partition);
        self.config.cleanup_policy.compact || cleaned_to.is_some_and(|cleaned_to| cleaned_to > offset)
    }

    /// Whether Apache Kafka's cleaner may have taken the last batch of a segment whose successor begins at `limit`. It
    /// makes a segment durable first. The cleaner of this broker keeps the last batch.
    fn may_end_early(&self, limit: Offset, recovery_point: Offset) -> bool {
        self.config.cleanup_policy.compact && limit <= recovery_point
            || self.ctx.cleaner_offsets.get(&self.partition).is_some_and(|cleaned| cleaned >= limit)
    }

    /// Removes a segment after a torn one from the log.
    fn drop_segment(
        &self,
        segment: &Segment,
        end_offset: Offset,
        acknowledged_is_synced: bool,
    ) -> Result<(), LogError> {
        let followed = BatchSearch::new(segment).next(0, segment.base_offset(), None)?.is_some();
        if followed && acknowledged_is_synced {
            return Err(segment.corrupt(0, format!("the log ends at offset {end_offset} in the segment before")));
        }
        if !followed {
            tracing::warn!(partition = %self.partition, segment = segment.base_offset(), "a segment after a torn one is dropped");
            return replace::remove(segment);
        }
        let bytes = segment.size_bytes();
        let kept = segment.set_aside()?;
        tracing::warn!(
            partition = %self.partition, segment = segment.base_offset(), bytes, kept = %kept.display(),
            "a segment with good batches follows a torn one: its records are lost to the log; the file is kept"
        );
        Ok(())
    }

    fn recover_segment(
        &mut self,
        segment: &Segment,
        recovery_point: Offset,
        limit: Option<Offset>,
        acknowledged_is_synced: bool,
    ) -> Result<Recovered, LogError> {
        let mut position = segment.prepare_recovery(recovery_point)?;
        let size = segment.size_bytes();
        let mut end_offset = segment.base_offset();
        let mut search = BatchSearch::new(segment);
        let mut cut = false;
        loop {
            let checked = self.note_good_batches(segment, (position, end_offset), recovery_point, limit)?;
            (position, end_offset) = (checked.position, checked.end_offset);
            if position == size {
                break;
            }
            if end_offset >= recovery_point {
                self.cut_tail(segment, &checked, limit, acknowledged_is_synced)?;
                cut = true;
                break;
            }
            // Skip only bytes that are no batch: if an offset is wrong, it may be the offset of the batch before.
            let damage = segment
                .corrupt(position, format!("a bad batch at offset {end_offset}, {}", durable_below(recovery_point)));
            if checked.is_whole || acknowledged_is_synced {
                return Err(damage);
            }
            tracing::error!(
                partition = %self.partition, error = %damage,
                "the log contains a bad batch; the records before and after it are served, those in it are not"
            );
            match search.next(position + 1, end_offset, limit)? {
                Some(next) => {
                    segment.force_index_entry();
                    segment.trust_from(next);
                    position = next;
                }
                None => {
                    // All of it was durable, so nothing is truncated.
                    segment.force_index_entry();
                    segment.trust_from(size);
                    end_offset = recovery_point.min(limit.unwrap_or(Offset::MAX));
                    break;
                }
            }
        }
        segment.truncate_aborted(end_offset.min(recovery_point))?;
        Ok(Recovered { end_offset, cut })
    }

    /// Indexes the batches from a position on, up to the first bad one.
    fn note_good_batches(
        &mut self,
        segment: &Segment,
        (mut position, mut end_offset): (u64, Offset),
        recovery_point: Offset,
        limit: Option<Offset>,
    ) -> Result<Checked, LogError> {
        let mut scan = segment.scan(position, segment.size_bytes())?;
        while let Some((at, batch, records)) = scan.next_if_whole()? {
            // Where a scan begins behind the segment's start, the offset is not known before the first batch.
            let is_known = position == 0 || end_offset > segment.base_offset();
            let skips = is_known && batch.base_offset() > end_offset && !self.may_skip_offsets();
            let follows =
                batch.base_offset() >= end_offset && !skips && limit.is_none_or(|limit| batch.last_offset() < limit);
            // Checksums do not cover offsets, but a flush always ended with a whole batch. A cleaner may have taken it.
            let leaps_from = if self.may_have_gap(end_offset) { batch.base_offset() } else { end_offset };
            let leaps = leaps_from < recovery_point && batch.last_offset() >= recovery_point;
            let is_whole = batch.crc_is_valid(records);
            if !follows || leaps || !is_whole {
                return Ok(Checked { position, end_offset, is_whole });
            }
            end_offset = batch.last_offset() + 1;
            segment.index(&batch, at, self.config.index_interval_bytes.max(0) as u64)?;
            if batch.base_offset() >= recovery_point
                && self.epochs.assign(batch.partition_leader_epoch(), batch.base_offset())
            {
                self.dirty.changed_epochs(batch.base_offset());
            }
            position = at + batch.size_bytes();
        }
        Ok(Checked { position, end_offset, is_whole: false })
    }

    /// Truncates the log after the last good batch.
    fn cut_tail(
        &self,
        segment: &Segment,
        tail: &Checked,
        limit: Option<Offset>,
        acknowledged_is_synced: bool,
    ) -> Result<(), LogError> {
        let (position, offset) = (tail.position, tail.end_offset);
        let bytes = segment.size_bytes() - position;
        let next = match tail.is_whole {
            true => Some(position),
            false => BatchSearch::new(segment).next(position + 1, offset, limit)?,
        };
        match next {
            Some(next) if acknowledged_is_synced && !segment.has_unwritten_sector(position, next)? => {
                let reason =
                    format!("a bad batch at offset {offset}, although good ones follow that were written later");
                return Err(segment.corrupt(position, reason));
            }
            Some(_) => {
                let kept = segment.copy_tail_to_cut_file(position)?;
                tracing::warn!(
                    partition = %self.partition, segment = segment.base_offset(), offset, bytes, kept = %kept.display(),
                    "the unflushed part of the log contains a bad batch with good ones behind it: all of it is cut and kept in a file"
                );
            }
            None => tracing::warn!(
                partition = %self.partition, segment = segment.base_offset(), offset, bytes, "torn tail is cut"
            ),
        }
        segment.cut_log(position)?;
        // The truncated bytes must not reappear before a later segment.
        segment.sync()
    }

    /// Rebuilds the producer state at the log's end from the newest good snapshot and the batches after it. Adds
    /// aborted transactions at or above `reindex_from` to the transaction indexes again.
    pub(super) fn reload_producers(&mut self, reindex_from: Option<Offset>) -> Result<(), LogError> {
        let (start, end) = (self.log_start_offset, self.log_end_offset);
        self.remove_snapshots(|offset| offset > end)?;
        // A snapshot above the recovery point may be torn, so it is not read; remove it, so that a new one can be
        // written.
        let newest = reindex_from.unwrap_or(Offset::MAX);
        self.remove_snapshots(|offset| offset > newest)?;
        self.producers = self.load_snapshot(newest)?.unwrap_or_else(|| ProducerState::new(start));
        let from = self.producers.end_offset();
        let segments = self.segments.clone();
        let first = segments.partition_point(|segment| segment.base_offset() <= from).saturating_sub(1);
        for segment in segments[first..].iter().filter(|_| from < end) {
            match self.replay(segment, from, reindex_from.unwrap_or(Offset::MAX)) {
                Err(LogError::Corrupt { .. }) => {
                    tracing::warn!(partition = %self.partition, ?segment, "the producer state after a bad batch is not known");
                }
                other => other?,
            }
        }
        self.producers.on_log_start_offset(start);
        Ok(())
    }

    /// Loads the newest good snapshot at or below `newest`.
    fn load_snapshot(&mut self, newest: Offset) -> Result<Option<ProducerState>, LogError> {
        while let Some(offset) = self.snapshots.range(..=newest).next_back().copied() {
            let bytes = read_if_exists(&*self.ctx.disk, &self.snapshot_path(offset))?.unwrap_or_default();
            let now_ms = self.ctx.clock.now_ms();
            let expiration_ms = self.ctx.producer_id_expiration_ms.load(Ordering::Relaxed);
            let state = ProducerState::from_snapshot(&bytes, offset, now_ms, expiration_ms);
            if state.is_some() {
                return Ok(state);
            }
            tracing::warn!(partition = %self.partition, offset, "a damaged producer snapshot is dropped, an older one is used");
            self.remove_snapshots(|other| other == offset)?;
        }
        Ok(None)
    }

    fn replay(&mut self, segment: &Segment, from: Offset, reindex_from: Offset) -> Result<(), LogError> {
        let size = segment.size_bytes();
        let Some((position, _)) = segment.find(from, size)? else { return Ok(()) };
        let mut walk = segment.walk(position, size)?;
        while let Some((position, batch)) = walk.next()? {
            let marker = read_marker(segment, position, &batch)?;
            let completed = self.producers.apply(&batch, marker);
            self.producers.keep_at_most(self.ctx.max_producer_ids);
            let completed = completed.filter(|transaction| transaction.aborted);
            if let Some(transaction) = completed.filter(|transaction| transaction.last_offset >= reindex_from) {
                segment.append_aborted(aborted(&transaction))?;
            }
        }
        Ok(())
    }
}

struct Recovered {
    end_offset: Offset,
    cut: bool,
}

/// Up to where a segment is good.
struct Checked {
    position: u64,
    end_offset: Offset,
    /// Whether a whole batch with a valid checksum, but with a wrong offset, is at `position`.
    is_whole: bool,
}

fn durable_below(recovery_point: Offset) -> String {
    format!(
        "although all records below offset {recovery_point} were durable (if recovery-point-offset-checkpoint is damaged, and not the \
         log, remove the partition's line from it)"
    )
}

/// The transaction marker in the batch at `position`, if it contains one.
fn read_marker(segment: &Segment, position: u64, batch: &BatchHeader) -> Result<Option<EndTxnMarker>, LogError> {
    if !batch.is_control() || !batch.has_producer_id() {
        return Ok(None);
    }
    let mut scan = segment.scan(position, position + batch.size_bytes())?;
    let whole = scan.next_if_whole()?;
    debug_assert!(
        whole.as_ref().is_none_or(|(_, _, records)| records.len() + HEADER_BYTES == batch.size_bytes() as usize)
    );
    Ok(whole.and_then(|(_, batch, records)| marker_of(&batch, records)))
}
