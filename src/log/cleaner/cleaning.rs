//! One cleaning of one log (Apache: `Cleaner.doClean`), in steps, so that whoever runs it can keep a rate and stop.
//!
//! First it reads the dirty part and notes the newest offset of each key, as far as the memory goes. Then it copies the
//! log up to there, without the records that have newer ones, into segments that take the place of the old ones. It
//! keeps the last batch of each new segment, if need be without records, so that a segment ends where the next begins.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{
    batch::{self, Cleaned, Newest, Rules},
    offset_map::OffsetMap,
    plan::{CleaningRange, GroupFacts, LogView, group},
    transactions::{Marker, Transactions},
};
use crate::{
    log::{
        AbortedTransaction, LogContext, LogError, LogOwner, Segment,
        file_names::{FileKind, FileLengths, PartitionDir, Stage},
        flush::with_log,
        log::remove_segment_files,
        replace,
        validator::marker_of,
    },
    protocol::record_batch::{BatchHeader, HEADER_BYTES},
    types::{Offset, ProducerEpoch, ProducerId, TimestampMs},
};

/// Bytes of batches that are written with one call.
const RUN_BYTES: usize = 256 << 10;

/// The last batch of each producer: it holds the sequence by which the next one is checked.
pub(super) type LastBatches = BTreeMap<ProducerId, (Option<Offset>, ProducerEpoch)>;

/// What a cleaning needs besides the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CleaningLimits {
    /// `log.cleaner.dedupe.buffer.size` for one cleaning.
    pub(crate) map_bytes: usize,
    /// `log.cleaner.io.buffer.load.factor`.
    pub(crate) map_load: f64,
    /// Makes the hashes of keys unpredictable.
    pub(crate) seed: (u64, u64),
    pub(crate) now_ms: TimestampMs,
}

/// The figures of a cleaning.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CleaningFigures {
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
    /// Size of the segments before and after.
    pub(crate) before_bytes: u64,
    pub(crate) after_bytes: u64,
    pub(crate) map_utilization: f64,
}

/// See the module.
pub(crate) struct Cleaning {
    ctx: Arc<LogContext>,
    owner: Arc<dyn LogOwner>,
    dir: Arc<PartitionDir>,
    view: LogView,
    range: CleaningRange,
    last_batches: LastBatches,
    map: OffsetMap,
    /// All records below it are in the map.
    mapped_to: Offset,
    transactions: Transactions,
    now_ms: TimestampMs,
    phase: Phase,
    /// Whether all of it was done, and not given up because the log has changed.
    is_complete: bool,
    figures: CleaningFigures,
}

enum Phase {
    Mapping {
        at: usize,
        /// `None` before the segment is entered.
        position: Option<u64>,
    },
    Copying {
        waiting: VecDeque<std::ops::Range<usize>>,
        current: Option<Copying>,
    },
    Done,
}

/// A group of segments that becomes one.
struct Copying {
    group: std::ops::Range<usize>,
    at: usize,
    position: Option<u64>,
    cleaned: Arc<Segment>,
    /// Batches that are not written yet.
    run: Vec<u8>,
    run_headers: Vec<BatchHeader>,
    has_changed: bool,
}

impl Cleaning {
    pub(crate) fn new(
        ctx: Arc<LogContext>,
        owner: Arc<dyn LogOwner>,
        view: LogView,
        range: CleaningRange,
        limits: CleaningLimits,
    ) -> Self {
        let (dir, last_batches) =
            with_log(&*owner, |log| (log.partition_dir().clone(), log.producers().last_batches()));
        let at = view.segments.partition_point(|segment| segment.base_offset() <= range.first_dirty).saturating_sub(1);
        Cleaning {
            map: OffsetMap::new(limits.seed, limits.map_bytes, limits.map_load),
            mapped_to: range.first_dirty,
            transactions: Transactions::default(),
            now_ms: limits.now_ms,
            phase: Phase::Mapping { at, position: None },
            is_complete: false,
            figures: CleaningFigures::default(),
            ctx,
            owner,
            dir,
            view,
            range,
            last_batches,
        }
    }

    /// Reads about `bytes` bytes more and writes what stays of them. Returns false at the end. May wait for the disk.
    ///
    /// # Errors
    /// A fault or a shortage of the disk, or [`LogError::Corrupt`]: the log cannot be cleaned.
    pub(crate) fn step(&mut self, bytes: u64) -> Result<bool, LogError> {
        self.ctx.check_online()?;
        let until = self.figures.read_bytes + bytes;
        while self.figures.read_bytes < until {
            let result = match &mut self.phase {
                Phase::Mapping { .. } => self.map_some(until),
                Phase::Copying { .. } => self.copy_some(until),
                Phase::Done => return Ok(false),
            };
            if let Err(error) = result {
                self.give_up();
                return Err(self.ctx.handle_io_error(error));
            }
        }
        Ok(!matches!(self.phase, Phase::Done))
    }

    /// Where the next cleaning begins; `None` if this one has not ended, or the log has changed meanwhile.
    pub(crate) fn cleaned_to(&self) -> Option<Offset> {
        self.is_complete.then_some(self.mapped_to)
    }

    pub(crate) fn figures(&self) -> CleaningFigures {
        CleaningFigures { map_utilization: self.map.utilization(), ..self.figures }
    }

    /// Removes what is not finished.
    pub(crate) fn give_up(&mut self) {
        let phase = std::mem::replace(&mut self.phase, Phase::Done);
        if let Phase::Copying { current: Some(current), .. } = phase {
            // A start removes the files as well.
            let _ = replace::remove(&current.cleaned);
        }
    }

    fn segment_after(&self, at: usize) -> Offset {
        self.view.segments.get(at + 1).map_or(self.view.log_end_offset, |next| next.base_offset())
    }

    /// The aborted transactions with records or markers in a segment from offset `from` on. Each is in the index of the
    /// segment of its marker, which may be a later one. One that ended before `from` must not be among them: its
    /// producer's next transaction would seem to be aborted.
    fn aborted_in(&self, at: usize, from: Offset) -> Result<Vec<AbortedTransaction>, LogError> {
        let to = self.segment_after(at);
        let mut found = Vec::new();
        for segment in &self.view.segments[at..] {
            let here = segment.aborted_transactions()?;
            // No later marker can abort records below this offset.
            let is_complete = here.last().is_some_and(|last| last.last_stable_offset >= to);
            found.extend(here.into_iter().filter(|transaction| transaction.concerns(from, to)));
            if is_complete {
                break;
            }
        }
        Ok(found)
    }

    // --- the newest offset of each key ---

    fn map_some(&mut self, until: u64) -> Result<(), LogError> {
        let Phase::Mapping { at, position } = self.phase else { return Ok(()) };
        if at >= self.range.cleanable {
            // Nothing else is dirty, also if the last segment ends early.
            let end = self.view.segments.get(self.range.cleanable).map_or(self.mapped_to, |next| next.base_offset());
            self.mapped_to = self.mapped_to.max(end);
            return self.begin_to_copy();
        }
        let segment = self.view.segments[at].clone();
        let size = segment.size_bytes();
        let mut position = match position {
            Some(position) => position,
            None => {
                let from = self.mapped_to.max(segment.base_offset());
                let aborted = self.aborted_in(at, from)?;
                self.transactions.add_aborted(aborted);
                segment.find(from, size)?.map_or(size, |(position, _)| position)
            }
        };
        let mut scan = segment.scan(position, size)?;
        while self.figures.read_bytes < until {
            let Some((start, header, records)) = scan.next_if_whole()? else { break };
            check(&segment, start, &header, records)?;
            self.figures.read_bytes += header.size_bytes();
            position = start + header.size_bytes();
            if !self.map_batch(&segment, start, &header, records)? {
                if self.mapped_to <= self.range.first_dirty {
                    let reason = "a batch has more keys than log.cleaner.dedupe.buffer.size has room for";
                    return Err(LogError::Invalid { path: segment.path(FileKind::Log), reason: reason.into() });
                }
                return self.begin_to_copy();
            }
        }
        if position < size && self.figures.read_bytes < until {
            return Err(segment.corrupt(position, "a batch is not whole"));
        }
        self.phase = match position < size {
            true => Phase::Mapping { at, position: Some(position) },
            false => Phase::Mapping { at: at + 1, position: None },
        };
        Ok(())
    }

    /// Returns false if the map has no room for all keys of the batch. It may have some then, which does no harm: a
    /// record with that key is in the log above the part that is cleaned.
    fn map_batch(
        &mut self,
        segment: &Segment,
        position: u64,
        header: &BatchHeader,
        records: &[u8],
    ) -> Result<bool, LogError> {
        if header.is_control() {
            self.transactions.marker(header, commits(header, records));
        } else if !self.transactions.is_aborted(header) {
            let (first_dirty, map) = (self.range.first_dirty, &mut self.map);
            let all = batch::each_record(header, records, &map.hasher(), |offset, _, key, _| {
                key.filter(|_| offset >= first_dirty).is_none_or(|key| map.put(key, offset))
            });
            if !all.map_err(|error| segment.corrupt(position, error.to_string()))? {
                return Ok(false);
            }
        }
        self.mapped_to = self.mapped_to.max(header.next_offset());
        Ok(true)
    }

    // --- the copy ---

    fn begin_to_copy(&mut self) -> Result<(), LogError> {
        let concerned = self.view.segments[..self.range.cleanable]
            .partition_point(|segment| segment.base_offset() < self.mapped_to);
        let facts: Vec<GroupFacts> = self.view.segments[..concerned]
            .iter()
            .enumerate()
            .map(|(at, segment)| GroupFacts {
                base_offset: segment.base_offset(),
                next_offset: self.segment_after(at),
                log_bytes: segment.size_bytes(),
                index_bytes: segment.index_bytes(),
            })
            .collect();
        let config = &self.view.config;
        let (most_bytes, most_index_bytes) = (config.segment_bytes.max(0), config.segment_index_bytes.max(0));
        self.figures.before_bytes = facts.iter().map(|facts| facts.log_bytes).sum();
        self.transactions = Transactions::default();
        let waiting = group(&facts, most_bytes as u64, most_index_bytes as u64).into();
        self.phase = Phase::Copying { waiting, current: None };
        Ok(())
    }

    fn copy_some(&mut self, until: u64) -> Result<(), LogError> {
        let Phase::Copying { mut waiting, current } = std::mem::replace(&mut self.phase, Phase::Done) else {
            return Ok(());
        };
        let mut current = match current {
            Some(current) => current,
            None => match waiting.pop_front() {
                Some(group) => self.begin_group(group)?,
                None => {
                    self.is_complete = true;
                    return Ok(());
                }
            },
        };
        let copied = self.copy_segment(&mut current, until);
        let goes_on = match copied {
            Ok(()) if current.at < current.group.end => true,
            Ok(()) => self.finish_group(&mut current)?,
            Err(error) => {
                self.phase = Phase::Copying { waiting, current: Some(current) };
                return Err(error);
            }
        };
        if goes_on {
            let current = (current.at < current.group.end).then_some(current);
            self.phase = Phase::Copying { waiting, current };
        }
        Ok(())
    }

    fn begin_group(&mut self, group: std::ops::Range<usize>) -> Result<Copying, LogError> {
        let base_offset = self.view.segments[group.start].base_offset();
        remove_segment_files(&self.ctx, &self.dir.path(), base_offset, Stage::Cleaned)?;
        let cleaned = Segment::at_stage(&self.ctx, &self.dir, base_offset, FileLengths::default(), Stage::Cleaned);
        let (run, run_headers) = (Vec::new(), Vec::new());
        Ok(Copying { at: group.start, group, position: None, cleaned, run, run_headers, has_changed: false })
    }

    fn copy_segment(&mut self, current: &mut Copying, until: u64) -> Result<(), LogError> {
        let segment = self.view.segments[current.at].clone();
        let size = segment.size_bytes();
        let mut position = match current.position {
            Some(position) => position,
            None => {
                let aborted = self.aborted_in(current.at, segment.base_offset())?;
                self.transactions.add_aborted(aborted);
                0
            }
        };
        // Empty segments add nothing, so the last batch may be in an earlier one.
        let is_last =
            self.view.segments[current.at + 1..current.group.end].iter().all(|segment| segment.size_bytes() == 0);
        let mut scan = segment.scan(position, size)?;
        while self.figures.read_bytes < until {
            let Some((start, header, records)) = scan.next_if_whole()? else { break };
            check(&segment, start, &header, records)?;
            self.figures.read_bytes += header.size_bytes();
            position = start + header.size_bytes();
            self.copy_batch(current, &segment, start, (&header, records), is_last && position == size)?;
        }
        if position < size && self.figures.read_bytes < until {
            return Err(segment.corrupt(position, "a batch is not whole"));
        }
        if position < size {
            current.position = Some(position);
        } else {
            (current.at, current.position) = (current.at + 1, None);
        }
        Ok(())
    }

    fn copy_batch(
        &mut self,
        current: &mut Copying,
        segment: &Segment,
        position: u64,
        (header, records): (&BatchHeader, &[u8]),
        is_last: bool,
    ) -> Result<(), LogError> {
        let (mut discards_all, mut is_unneeded_marker, mut index_entry) = (false, false, None);
        if header.is_control() {
            match self.transactions.marker(header, commits(header, records)) {
                Marker::Stays => {}
                Marker::StaysWithIndex(transaction) => index_entry = Some(transaction),
                Marker::MayGo => {
                    is_unneeded_marker = true;
                    discards_all = header.record_count() == 0
                        || header.delete_horizon_ms().is_some_and(|horizon_ms| horizon_ms <= self.now_ms);
                }
            }
        } else {
            discards_all = self.transactions.is_aborted(header);
        }
        let rules = Rules {
            newest: Newest { map: &self.map, last_offset: self.mapped_to - 1 },
            discards_all,
            is_unneeded_marker,
            keeps_empty: is_last || self.is_last_of_producer(header),
            now_ms: self.now_ms,
            delete_retention_ms: self.view.config.delete_retention_ms,
        };
        let cleaned = batch::clean(header, records, &rules);
        match cleaned.map_err(|error| segment.corrupt(position, error.to_string()))? {
            Cleaned::Unchanged => current.push(header, records),
            Cleaned::Gone => current.has_changed = true,
            Cleaned::Changed(header, records) => {
                current.has_changed = true;
                current.push(&header, &records);
            }
        }
        if let Some(transaction) = index_entry {
            current.cleaned.append_aborted(transaction)?;
        }
        if current.run.len() >= RUN_BYTES { self.write_run(current) } else { Ok(()) }
    }

    /// Apache: `isBatchLastRecordOfProducer`.
    fn is_last_of_producer(&self, header: &BatchHeader) -> bool {
        if !header.has_producer_id() {
            return false;
        }
        match self.last_batches.get(&header.producer_id()) {
            Some((Some(last_offset), _)) => *last_offset == header.last_offset(),
            Some((None, epoch)) => header.is_control() && *epoch == header.producer_epoch(),
            None => false,
        }
    }

    fn write_run(&mut self, current: &mut Copying) -> Result<(), LogError> {
        if current.run.is_empty() {
            return Ok(());
        }
        let mut position = current.cleaned.write(&[&current.run])?;
        let interval_bytes = self.view.config.index_interval_bytes.max(0) as u64;
        for header in current.run_headers.drain(..) {
            current.cleaned.index(&header, position, interval_bytes)?;
            position += header.size_bytes();
        }
        self.figures.written_bytes += current.run.len() as u64;
        current.run.clear();
        Ok(())
    }

    /// Returns false if the log has changed so that the cleaning must end.
    fn finish_group(&mut self, current: &mut Copying) -> Result<bool, LogError> {
        let sources = &self.view.segments[current.group.clone()];
        if !current.has_changed && sources.len() == 1 {
            self.figures.after_bytes += sources[0].size_bytes();
            replace::remove(&current.cleaned)?;
            return Ok(true);
        }
        self.write_run(current)?;
        self.figures.after_bytes += current.cleaned.size_bytes();
        if current.cleaned.size_bytes() == 0 {
            // All of them are empty.
            replace::remove(&current.cleaned)?;
            return Ok(true);
        }
        current.cleaned.become_inactive()?;
        current.cleaned.sync()?;
        let sources = self.view.segments[current.group.clone()].to_vec();
        replace::replace_segments(&self.ctx, &*self.owner, &sources, &current.cleaned)
    }
}

impl Copying {
    fn push(&mut self, header: &BatchHeader, records: &[u8]) {
        self.run.extend_from_slice(header.bytes());
        self.run.extend_from_slice(records);
        self.run_headers.push(*header);
    }
}

/// The cleaner copies no damage: a new checksum would hide it.
fn check(segment: &Segment, position: u64, header: &BatchHeader, records: &[u8]) -> Result<(), LogError> {
    debug_assert_eq!(records.len() + HEADER_BYTES, header.size_bytes() as usize);
    match header.crc_is_valid(records) {
        true => Ok(()),
        false => Err(segment.corrupt(position, format!("the checksum of {header:?} does not match"))),
    }
}

/// Whether a marker commits its transaction; `None` if it is no marker.
fn commits(header: &BatchHeader, records: &[u8]) -> Option<bool> {
    marker_of(header, records).map(|marker| marker.commit)
}
