//! One `.log` file and its indexes.
//!
//! Only the owner of the log appends (under its lock). Every holder of the `Arc` may read at the same time, below the
//! file size in its plan. Files are opened at first use, and the `FileCache` may close them again. Index entries are
//! collected in memory and written a few hundred at a time: they can be rebuilt from the `.log` file, so only a flush
//! needs them on disk.

mod damage;
mod deferred_file;
mod repair;
mod walk;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
};

use walk::{Scan, Walk};

pub(crate) use self::{damage::BatchSearch, repair::Rebuilt};
use super::{
    LogContext, LogError,
    file_names::{FileKind, FileLengths, PartitionDir, Stage},
    index_reader::IndexReader,
    offset_index::{self, OffsetEntry},
    time_index::{self, TimeEntry},
    transaction_index::{self, AbortedTransaction},
};
use crate::{
    env::{File, Open, lock::lock},
    protocol::record_batch::{BatchHeader, HEADER_BYTES},
    types::{Offset, TimestampMs},
};

/// Index entries are written when this many are in memory: those of about 1 MiB of log.
const PENDING_ENTRIES: usize = 256;
/// As `bytes_since_index_entry` this forces an index entry for the next batch, at any interval.
const FORCE_ENTRY: u64 = u64::MAX / 2;

/// An index whose newest entries are in memory.
struct IndexTail<E> {
    /// Entries in the file.
    written: u32,
    /// The entries after those, not yet written.
    pending: Vec<E>,
    /// The newest entry of all, if `loaded`.
    last: Option<E>,
    loaded: bool,
}

impl<E: Copy> IndexTail<E> {
    fn new(written: u32) -> Self {
        IndexTail { written, pending: Vec::new(), last: None, loaded: written == 0 }
    }

    /// An index of which nothing is in the file yet.
    fn of(pending: Vec<E>) -> Self {
        IndexTail { written: 0, last: pending.last().copied(), pending, loaded: true }
    }

    fn push(&mut self, entry: E) {
        self.pending.push(entry);
        self.last = Some(entry);
    }

    fn len(&self) -> u32 {
        self.written + self.pending.len() as u32
    }
}

struct SegmentState {
    offsets: IndexTail<OffsetEntry>,
    times: IndexTail<TimeEntry>,
    bytes_since_index_entry: u64,
    /// Largest timestamp so far and the last offset of its batch; `None` in a segment of an earlier process, until it
    /// is read from the index.
    max_timestamp: Option<(TimestampMs, Offset)>,
    /// Whether index files were truncated since the last sync.
    cut: bool,
    /// The largest timestamp of the first batch; `segment.ms` counts from it.
    rolling_timestamp: Option<TimestampMs>,
    /// The largest timestamp appended while `max_timestamp` was unknown.
    noted_timestamp: Option<(TimestampMs, Offset)>,
    /// Aborted transactions that are not in the transaction index yet.
    aborted_pending: Vec<AbortedTransaction>,
}

impl SegmentState {
    fn note_timestamp(&mut self, batch: &BatchHeader) {
        let noted = (batch.max_timestamp(), batch.last_offset());
        let known = if self.max_timestamp.is_some() { &mut self.max_timestamp } else { &mut self.noted_timestamp };
        if known.is_none_or(|(max_timestamp, _)| noted.0 > max_timestamp) {
            *known = Some(noted);
        }
        self.rolling_timestamp.get_or_insert(batch.max_timestamp());
    }
}

/// Ignores a shortage, for work that may be done later.
fn ignore_shortage(result: Result<(), LogError>) -> Result<(), LogError> {
    match result {
        Err(error) if error.is_shortage() => Ok(()),
        other => other,
    }
}

/// One segment; see the module.
pub struct Segment {
    ctx: Arc<LogContext>,
    dir: Arc<PartitionDir>,
    this: Weak<Segment>,
    base_offset: Offset,
    created_ms: TimestampMs,
    size: AtomicU64,
    files: [Mutex<Option<Arc<dyn File>>>; 4],
    used: AtomicU8,
    /// A [`Stage`].
    stage: AtomicU8,
    deleted: AtomicBool,
    has_aborted: AtomicBool,
    state: Mutex<SegmentState>,
    verified: Mutex<Verified>,
    /// Whether this process has rebuilt its indexes.
    rebuilt: AtomicBool,
}

/// The part of the `.log` file whose checksums this process knows to be good.
struct Verified {
    /// This process wrote or scanned the file from here on.
    trusted_from: u64,
    /// A range before that which was checked for readers: one is enough for a consumer that catches up.
    window: (u64, u64),
}

impl Segment {
    /// A segment whose files have these `lengths`.
    pub(crate) fn new(
        ctx: &Arc<LogContext>,
        dir: &Arc<PartitionDir>,
        base_offset: Offset,
        lengths: FileLengths,
    ) -> Arc<Segment> {
        Segment::at_stage(ctx, dir, base_offset, lengths, Stage::InUse)
    }

    /// [`Segment::new`] for a segment that is not part of the log yet.
    pub(crate) fn at_stage(
        ctx: &Arc<LogContext>,
        dir: &Arc<PartitionDir>,
        base_offset: Offset,
        lengths: FileLengths,
        stage: Stage,
    ) -> Arc<Segment> {
        let entries = |kind: FileKind, bytes: usize| (lengths.of(kind).unwrap_or(0) / bytes as u64) as u32;
        let size = lengths.of(FileKind::Log).unwrap_or(0);
        Arc::new_cyclic(|this| Segment {
            this: this.clone(),
            ctx: ctx.clone(),
            dir: dir.clone(),
            base_offset,
            created_ms: ctx.clock.now_ms(),
            size: AtomicU64::new(size),
            files: Default::default(),
            used: AtomicU8::new(0),
            stage: AtomicU8::new(stage as u8),
            deleted: AtomicBool::new(false),
            has_aborted: AtomicBool::new(lengths.of(FileKind::TxnIndex).is_some_and(|len| len > 0)),
            state: Mutex::new(SegmentState {
                offsets: IndexTail::new(entries(FileKind::Index, offset_index::ENTRY_BYTES)),
                times: IndexTail::new(entries(FileKind::TimeIndex, time_index::ENTRY_BYTES)),
                bytes_since_index_entry: 0,
                cut: false,
                max_timestamp: (size == 0).then_some((-1, base_offset)),
                rolling_timestamp: None,
                noted_timestamp: None,
                aborted_pending: Vec::new(),
            }),
            verified: Mutex::new(Verified { trusted_from: size, window: (0, 0) }),
            rebuilt: AtomicBool::new(false),
        })
    }

    /// State shared with the other segments of the log directory.
    pub(crate) fn context(&self) -> &LogContext {
        &self.ctx
    }

    /// The first offset it may hold.
    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// Bytes in the `.log` file.
    pub fn size_bytes(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// The path of one of its files.
    pub(crate) fn path(&self, kind: FileKind) -> PathBuf {
        self.path_in(&self.dir.read(), kind)
    }

    fn path_in(&self, dir: &Path, kind: FileKind) -> PathBuf {
        let stage = Stage::ALL[usize::from(self.stage.load(Ordering::Acquire))];
        let mut name = stage.file_name(self.base_offset, kind);
        if self.deleted.load(Ordering::Acquire) {
            name.push_str(".deleted");
        }
        dir.join(name)
    }

    // --- files ---

    /// Returns the file of `kind`. If no file descriptor is left, closes files of other segments.
    fn file(&self, kind: FileKind) -> Result<Arc<dyn File>, LogError> {
        match self.open_file(kind) {
            Err(error) if error.is_out_of_files() && self.ctx.files.close_some() => self.open_file(kind),
            other => other,
        }
    }

    fn open_file(&self, kind: FileKind) -> Result<Arc<dyn File>, LogError> {
        let mut slot = lock(&self.files[kind as usize]);
        self.used.fetch_or(1 << kind as u8, Ordering::Relaxed);
        if let Some(file) = &*slot {
            return Ok(file.clone());
        }
        let dir = self.dir.read();
        let deleted = self.deleted.load(Ordering::Acquire) || self.dir.is_deleted();
        let path = self.path_in(&dir, kind);
        let how = if deleted { Open::ReadWrite } else { Open::Create };
        let file = self.ctx.disk.open(&path, how).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if deleted => LogError::Deleted { path: path.clone() },
            _ => LogError::io("open", &path)(error),
        })?;
        drop(dir);
        *slot = Some(file.clone());
        drop(slot);
        self.ctx.files.opened(self.this.clone(), kind);
        Ok(file)
    }

    /// The `.log` file.
    pub(crate) fn log_file(&self) -> Result<Arc<dyn File>, LogError> {
        self.file(FileKind::Log)
    }

    /// For the file cache: closes the file unless it was used since the last call. Returns whether it is closed.
    pub(crate) fn close_if_unused(&self, kind: FileKind) -> bool {
        let bit = 1 << kind as u8;
        if self.used.fetch_and(!bit, Ordering::Relaxed) & bit != 0 {
            return false;
        }
        *lock(&self.files[kind as usize]) = None;
        true
    }

    fn io<T>(&self, action: &'static str, kind: FileKind, result: io::Result<T>) -> Result<T, LogError> {
        result.map_err(|source| LogError::Io { action, path: self.path(kind), source })
    }

    pub(crate) fn corrupt(&self, position: u64, reason: impl Into<String>) -> LogError {
        LogError::Corrupt { path: self.path(FileKind::Log), position, reason: reason.into() }
    }

    // --- appending, by the owner of the log only ---

    /// Writes whole batches at the end; if that fails, nothing has changed.
    pub(crate) fn write(&self, parts: &[&[u8]]) -> Result<u64, LogError> {
        let position = self.size_bytes();
        let file = self.log_file()?;
        if let Err(error) = file.write_all_vectored_at(parts, position) {
            // A full disk is not a broken one: remove the partly written batch and stay online.
            if super::error::is_disk_full(&error) {
                self.io("truncate", FileKind::Log, file.set_len(position))?;
            }
            return self.io("write", FileKind::Log, Err(error));
        }
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.size.store(position + bytes as u64, Ordering::Release);
        Ok(position)
    }

    /// Indexes the batch at `position` (`LogSegment.append`). A shortage is no error: the batch is stored, and a later
    /// batch gets the index entry.
    pub(crate) fn index(&self, batch: &BatchHeader, position: u64, interval_bytes: u64) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        state.note_timestamp(batch);
        if state.bytes_since_index_entry > interval_bytes {
            ignore_shortage(self.add_index_entries(&mut state, batch, position))?;
        }
        state.bytes_since_index_entry += batch.size_bytes();
        Ok(())
    }

    fn add_index_entries(&self, state: &mut SegmentState, batch: &BatchHeader, position: u64) -> Result<(), LogError> {
        self.load_last(state)?;
        let (max_timestamp, max_offset) = self.max_timestamp_of(state)?;
        let relative_offset = (batch.last_offset() - self.base_offset) as u32;
        state.offsets.push(OffsetEntry { relative_offset, position: position as u32 });
        self.push_time_entry(state, max_timestamp, max_offset);
        state.bytes_since_index_entry = 0;
        if state.offsets.pending.len() >= PENDING_ENTRIES { self.write_pending(state) } else { Ok(()) }
    }

    fn push_time_entry(&self, state: &mut SegmentState, timestamp_ms: TimestampMs, offset: Offset) {
        let last = state.times.last.map_or(-1, |entry| entry.timestamp_ms);
        if timestamp_ms > last {
            state.times.push(TimeEntry { timestamp_ms, relative_offset: (offset - self.base_offset) as u32 });
        }
    }

    /// Writes the entries that are only in memory. They stay there if disk space or file descriptors are short.
    fn write_pending(&self, state: &mut SegmentState) -> Result<(), LogError> {
        if !state.offsets.pending.is_empty() {
            let file = self.file(FileKind::Index)?;
            let bytes: Vec<u8> = state.offsets.pending.iter().flat_map(|entry| entry.encode()).collect();
            let position = u64::from(state.offsets.written) * offset_index::ENTRY_BYTES as u64;
            self.io("write", FileKind::Index, file.write_all_at(&bytes, position))?;
            state.offsets.written += state.offsets.pending.len() as u32;
            state.offsets.pending = Vec::new();
        }
        if !state.times.pending.is_empty() {
            let file = self.file(FileKind::TimeIndex)?;
            let bytes: Vec<u8> = state.times.pending.iter().flat_map(|entry| entry.encode()).collect();
            let position = u64::from(state.times.written) * time_index::ENTRY_BYTES as u64;
            self.io("write", FileKind::TimeIndex, file.write_all_at(&bytes, position))?;
            state.times.written += state.times.pending.len() as u32;
            state.times.pending = Vec::new();
        }
        self.write_pending_aborted(state)
    }

    fn write_pending_aborted(&self, state: &mut SegmentState) -> Result<(), LogError> {
        if state.aborted_pending.is_empty() {
            return Ok(());
        }
        let file = self.file(FileKind::TxnIndex)?;
        let len = self.io("read", FileKind::TxnIndex, file.len())?;
        let end = len - len % transaction_index::ENTRY_BYTES as u64;
        let bytes: Vec<u8> = state.aborted_pending.iter().flat_map(|transaction| transaction.encode()).collect();
        if let Err(error) = file.write_all_at(&bytes, end) {
            // On a full disk a part may have been written; all entries will be written again.
            ignore_shortage(self.io("truncate", FileKind::TxnIndex, file.set_len(end)))?;
            return self.io("write", FileKind::TxnIndex, Err(error));
        }
        state.aborted_pending = Vec::new();
        Ok(())
    }

    /// At a roll: adds the last time index entry, and writes both indexes to their files.
    pub(crate) fn become_inactive(&self) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        self.load_last(&mut state)?;
        let (timestamp_ms, offset) = self.max_timestamp_of(&mut state)?;
        if timestamp_ms >= 0 {
            self.push_time_entry(&mut state, timestamp_ms, offset);
        }
        ignore_shortage(self.write_pending(&mut state))?;
        self.file(FileKind::Index)?;
        self.file(FileKind::TimeIndex)?;
        Ok(())
    }

    /// Adds an aborted transaction. Readers see it at once; during a shortage it is written later.
    pub(crate) fn append_aborted(&self, transaction: AbortedTransaction) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        state.aborted_pending.push(transaction);
        self.has_aborted.store(true, Ordering::Release);
        ignore_shortage(self.write_pending_aborted(&mut state))
    }

    /// Whether an index has no room for another entry and the one at the roll.
    pub(crate) fn indexes_are_full(&self, index_bytes: i32) -> bool {
        let state = lock(&self.state);
        let most = |entry_bytes: usize| (index_bytes.max(0) as usize / entry_bytes) as u32;
        state.offsets.len() >= most(offset_index::ENTRY_BYTES) || state.times.len() + 1 >= most(time_index::ENTRY_BYTES)
    }

    /// `LogSegment.timeWaitedForRoll`, in milliseconds, at the arrival of a batch.
    pub(crate) fn waited_for_roll(
        &self,
        now_ms: TimestampMs,
        batch_timestamp_ms: TimestampMs,
    ) -> Result<i64, LogError> {
        if self.size_bytes() == 0 {
            return Ok(0);
        }
        let first = self.first_timestamp()?;
        Ok(if first >= 0 { batch_timestamp_ms - first } else { now_ms - self.created_ms })
    }

    /// The largest timestamp of the first batch, or -1 (`LogSegment.getFirstBatchTimestamp`).
    pub(crate) fn first_timestamp(&self) -> Result<TimestampMs, LogError> {
        if self.size_bytes() == 0 {
            return Ok(-1);
        }
        if let Some(known) = lock(&self.state).rolling_timestamp {
            return Ok(known);
        }
        let first = match self.walk(0, self.size_bytes())?.next() {
            // A damaged first batch must not keep others from being appended.
            Err(LogError::Corrupt { .. }) => -1,
            first => first?.map_or(-1, |(_, batch)| batch.max_timestamp()),
        };
        lock(&self.state).rolling_timestamp = Some(first);
        Ok(first)
    }

    /// The number of bytes of the larger one of the two indexes.
    pub(crate) fn index_bytes(&self) -> u64 {
        let state = lock(&self.state);
        let bytes = |entries: u32, entry_bytes: usize| u64::from(entries) * entry_bytes as u64;
        bytes(state.offsets.len(), offset_index::ENTRY_BYTES).max(bytes(state.times.len(), time_index::ENTRY_BYTES))
    }

    /// Truncates everything from the batch at `position` on, in the indexes too.
    pub(crate) fn truncate_at(&self, position: u64) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        // Do everything that may fail by a shortage before anything is truncated.
        self.write_pending(&mut state)?;
        self.file(FileKind::Index)?;
        self.file(FileKind::TimeIndex)?;
        self.cut_log(position)?;
        let index = IndexReader::new(self.file(FileKind::Index)?, state.offsets.written);
        let kept = self.io(
            "read",
            FileKind::Index,
            index.partition_point::<{ offset_index::ENTRY_BYTES }, _>(OffsetEntry::decode, |entry| {
                u64::from(entry.position) < position
            }),
        )?;
        self.cut_offset_index(&mut state, kept)?;
        let start = state.offsets.last.map_or(0, |entry| u64::from(entry.position));
        let end = self.end_of_walk(start, position)?;
        let times = IndexReader::new(self.file(FileKind::TimeIndex)?, state.times.written);
        let kept = self.io(
            "read",
            FileKind::TimeIndex,
            times.partition_point::<{ time_index::ENTRY_BYTES }, _>(TimeEntry::decode, |entry| {
                self.base_offset + Offset::from(entry.relative_offset) < end
            }),
        )?;
        self.cut_time_index(&mut state, kept)?;
        state.rolling_timestamp = state.rolling_timestamp.filter(|_| position > 0);
        (state.max_timestamp, state.noted_timestamp) = (None, None);
        drop(state);
        self.load_end().map(|_| ())
    }

    /// The offset after the last batch before `position`; a batch starts there, or the file ends.
    pub(crate) fn end_before(&self, position: u64) -> Result<Offset, LogError> {
        let mut state = lock(&self.state);
        self.load_last(&mut state)?;
        let start = state.offsets.last.map_or(0, |entry| u64::from(entry.position));
        self.end_of_walk(if start < position { start } else { 0 }, position)
    }

    /// The offset after the last batch between two positions, or the segment's base offset.
    pub(crate) fn end_of_walk(&self, start: u64, end: u64) -> Result<Offset, LogError> {
        let mut walk = self.walk(start, end)?;
        let mut next_offset = self.base_offset;
        while let Some((_, batch)) = walk.next()? {
            next_offset = batch.last_offset() + 1;
        }
        Ok(next_offset)
    }

    fn cut_offset_index(&self, state: &mut SegmentState, entries: u32) -> Result<(), LogError> {
        let len = u64::from(entries) * offset_index::ENTRY_BYTES as u64;
        self.io("truncate", FileKind::Index, self.file(FileKind::Index)?.set_len(len))?;
        state.offsets = IndexTail::new(entries);
        state.cut = true;
        self.load_last(state)
    }

    fn cut_time_index(&self, state: &mut SegmentState, entries: u32) -> Result<(), LogError> {
        let len = u64::from(entries) * time_index::ENTRY_BYTES as u64;
        self.io("truncate", FileKind::TimeIndex, self.file(FileKind::TimeIndex)?.set_len(len))?;
        state.times = IndexTail::new(entries);
        state.cut = true;
        self.load_last(state)
    }

    // --- reading ---

    /// Walks over headers from the batch at `position` on, up to `end`.
    pub(crate) fn walk(&self, position: u64, end: u64) -> Result<Walk<'_>, LogError> {
        Ok(Walk::new(self, self.log_file()?, position, end))
    }

    /// Reads whole batches from the one at `position` on, up to `end`.
    pub(crate) fn scan(&self, position: u64, end: u64) -> Result<Scan<'_>, LogError> {
        Ok(Scan::new(self, self.log_file()?, position, end))
    }

    /// The position of a batch at or before the one that holds `offset`.
    pub(crate) fn floor_position(&self, offset: Offset) -> Result<u64, LogError> {
        let relative =
            u32::try_from(offset - self.base_offset).unwrap_or(if offset < self.base_offset { 0 } else { u32::MAX });
        let mut state = lock(&self.state);
        if state.offsets.len() == 0 {
            return Ok(0);
        }
        self.load_last(&mut state)?;
        let pending = &state.offsets.pending;
        if pending.first().is_some_and(|first| first.relative_offset <= relative) {
            let above = pending.partition_point(|entry| entry.relative_offset <= relative);
            return Ok(pending[above - 1].position.into());
        }
        let written = state.offsets.written;
        drop(state);
        if written == 0 {
            return Ok(0);
        }
        let reader = IndexReader::new(self.file(FileKind::Index)?, written);
        let entry = self.io("read", FileKind::Index, offset_index::floor(&reader, relative))?;
        Ok(entry.map_or(0, |entry| entry.position.into()))
    }

    /// The first batch with a last offset at or above `offset`, before position `end`.
    ///
    /// If the index does not lead to it, rebuilds the index and searches again: either the index was damaged, or the
    /// log is, and then the new index leads past the damage.
    pub(crate) fn find(&self, offset: Offset, end: u64) -> Result<Option<(u64, BatchHeader)>, LogError> {
        match self.find_by_index(offset, end) {
            Ok(Some(found)) => Ok(found),
            damaged @ (Ok(None) | Err(LogError::Corrupt { .. })) => match self.rebuild_indexes_once()? {
                Some(_) => self.find_by_index(offset, end).map(Option::flatten),
                None => damaged.map(Option::flatten),
            },
            Err(error) => Err(error),
        }
    }

    /// `None` if the index does not belong to the file.
    #[allow(clippy::option_option)] // The inner one is the result.
    fn find_by_index(&self, offset: Offset, end: u64) -> Result<Option<Option<(u64, BatchHeader)>>, LogError> {
        let start = self.floor_position(offset)?;
        if start == 0 && end > repair::INDEXED_BYTES && lock(&self.state).offsets.len() == 0 && !self.was_rebuilt() {
            return Ok(None);
        }
        if start >= end {
            // The index points beyond `end`: no such batch is below `end`, unless the file was truncated just now.
            return Ok(Some(None).filter(|_| start < self.size_bytes() || start == 0));
        }
        let mut walk = self.walk(start, end)?;
        while let Some((position, batch)) = walk.next()? {
            if position == start && start > 0 && batch.base_offset() > offset {
                // The index points to a batch after the wanted one: the batches in between must not be missed.
                return Ok(None);
            }
            if batch.last_offset() >= offset {
                return Ok(Some(Some((position, batch))));
            }
        }
        Ok(Some(None))
    }

    /// The offset at which to start a search for the first record at or after `timestamp_ms`.
    pub(crate) fn offset_before_timestamp(&self, timestamp_ms: TimestampMs) -> Result<Offset, LogError> {
        let entry = self.floor_time(timestamp_ms)?;
        let entry = match entry {
            Some(_) if !self.time_is_valid(entry)? => {
                self.rebuild_indexes_once()?;
                self.floor_time(timestamp_ms)?
            }
            other => other,
        };
        Ok(self.base_offset + entry.map_or(0, |entry| Offset::from(entry.relative_offset)))
    }

    /// The last time entry at or before `timestamp_ms`.
    fn floor_time(&self, timestamp_ms: TimestampMs) -> Result<Option<TimeEntry>, LogError> {
        let mut state = lock(&self.state);
        if state.times.len() == 0 {
            return Ok(None);
        }
        self.load_last(&mut state)?;
        let pending = &state.times.pending;
        if pending.first().is_some_and(|first| first.timestamp_ms <= timestamp_ms) {
            let above = pending.partition_point(|entry| entry.timestamp_ms <= timestamp_ms);
            return Ok(Some(pending[above - 1]));
        }
        let written = state.times.written;
        drop(state);
        let reader = IndexReader::new(self.file(FileKind::TimeIndex)?, written);
        self.io("read", FileKind::TimeIndex, time_index::floor(&reader, timestamp_ms))
    }

    /// Largest timestamp and the last offset of its batch; (-1, _) if no batch has a timestamp.
    pub(crate) fn max_timestamp(&self) -> Result<(TimestampMs, Offset), LogError> {
        let known = lock(&self.state).max_timestamp;
        if let Some(known) = known {
            return Ok(known);
        }
        // Retention uses this: a damaged index must not cause a deletion.
        let last = {
            let mut state = lock(&self.state);
            self.load_last(&mut state)?;
            state.times.last
        };
        if !self.time_is_valid(last)? {
            self.rebuild_indexes_once()?;
        }
        self.max_timestamp_of(&mut lock(&self.state))
    }

    /// `LogSegment.largestTimestamp`: the time that retention uses. If no record has a timestamp, returns the file's
    /// modification time: the age must not start over with each start of the process.
    pub(crate) fn largest_timestamp(&self) -> Result<TimestampMs, LogError> {
        let (max_timestamp, _) = self.max_timestamp()?;
        if max_timestamp >= 0 {
            return Ok(max_timestamp);
        }
        match self.ctx.disk.modified_ms(&self.path(FileKind::Log)) {
            // The file was removed from outside. Retention need not report that.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(self.created_ms),
            modified => self.io("read", FileKind::Log, modified),
        }
    }

    fn max_timestamp_of(&self, state: &mut SegmentState) -> Result<(TimestampMs, Offset), LogError> {
        if let Some(known) = state.max_timestamp {
            return Ok(known);
        }
        // An inactive segment got its last entry at the roll.
        self.load_last(state)?;
        let last = self.last_time(state);
        let max = state.noted_timestamp.take().filter(|noted| noted.0 > last.0).unwrap_or(last);
        state.max_timestamp = Some(max);
        Ok(max)
    }

    /// For an active segment of an earlier process, or a truncated one: reads the batches after the last index entry to
    /// find the largest timestamp (`LogSegment.loadLargestTimestamp`). Returns where the segment ends.
    pub(crate) fn load_end(&self) -> Result<Offset, LogError> {
        let (start, mut max) = {
            let mut state = lock(&self.state);
            self.load_last(&mut state)?;
            (state.offsets.last.map_or(0, |entry| u64::from(entry.position)), self.last_time(&state))
        };
        let size = self.size_bytes();
        if start >= size && start > 0 {
            return Err(self.corrupt(size, format!("the file ends before the batch at {start} of its index")));
        }
        let mut end_offset = self.base_offset;
        let mut walk = self.walk(start, size)?;
        while let Some((_, batch)) = walk.next()? {
            end_offset = batch.last_offset() + 1;
            if batch.max_timestamp() > max.0 {
                max = (batch.max_timestamp(), batch.last_offset());
            }
        }
        self.resume_indexing(size - start, max);
        Ok(end_offset)
    }

    fn last_time(&self, state: &SegmentState) -> (TimestampMs, Offset) {
        let last =
            state.times.last.map(|entry| (entry.timestamp_ms, self.base_offset + Offset::from(entry.relative_offset)));
        last.unwrap_or((-1, self.base_offset))
    }

    /// Reads the newest entry of each index, once.
    fn load_last(&self, state: &mut SegmentState) -> Result<(), LogError> {
        if !state.offsets.loaded {
            let reader = IndexReader::new(self.file(FileKind::Index)?, state.offsets.written);
            let (written, last) = self.io("read", FileKind::Index, reader.last(OffsetEntry::decode))?;
            (state.offsets.written, state.offsets.last, state.offsets.loaded) = (written, last, true);
        }
        if !state.times.loaded {
            let reader = IndexReader::new(self.file(FileKind::TimeIndex)?, state.times.written);
            let (written, last) = self.io("read", FileKind::TimeIndex, reader.last(TimeEntry::decode))?;
            (state.times.written, state.times.last, state.times.loaded) = (written, last, true);
        }
        Ok(())
    }

    /// The aborted transactions whose markers this segment holds, by marker.
    pub(crate) fn aborted_transactions(&self) -> Result<Vec<AbortedTransaction>, LogError> {
        if !self.has_aborted.load(Ordering::Acquire) {
            return Ok(Vec::new());
        }
        // Read both under one lock, or an entry that is just being written could be in neither.
        let (file, len, pending) = {
            let state = lock(&self.state);
            let file = self.file(FileKind::TxnIndex)?;
            let len = self.io("read", FileKind::TxnIndex, file.len())?;
            (file, len, state.aborted_pending.clone())
        };
        let mut bytes = vec![0; len as usize];
        self.io("read", FileKind::TxnIndex, file.read_exact_at(&mut bytes, 0))?;
        let entries = bytes.as_chunks::<{ transaction_index::ENTRY_BYTES }>().0;
        Ok(entries.iter().map_while(AbortedTransaction::decode).chain(pending).collect())
    }

    /// Checks, once per process, the checksums of the batches in `position..position + length` before they are served
    /// from the file. Returns the length of the whole batches in it. Kafka serves without a check; a damaged record
    /// must not leave this broker. `limit` is the first offset that cannot be in this segment: checksums do not cover
    /// offsets.
    pub(crate) fn verify(&self, position: u64, length: u64, limit: Offset) -> Result<u64, LogError> {
        let end = {
            let verified = lock(&self.verified);
            let end = (position + length).min(verified.trusted_from);
            if position >= end || position >= verified.window.0 && end <= verified.window.1 {
                return Ok(length);
            }
            end
        };
        let mut scan = self.scan(position, end)?;
        let (mut next_offset, mut previous) = (self.base_offset, position);
        while let Some((at, batch, records)) = scan.next_if_whole()? {
            // Serve the batches before the damage; the reader gets the error with its next fetch.
            if !batch.crc_is_valid(records) {
                let reason = || self.corrupt(at, format!("the checksum of {batch:?} does not match"));
                return if at > position { Ok(at - position) } else { Err(reason()) };
            }
            if batch.base_offset() < next_offset || batch.last_offset() >= limit {
                // Either this batch or the one before has a wrong offset.
                let reason = || self.corrupt(at, format!("{batch:?} is not between {next_offset} and {limit}"));
                return if previous > position { Ok(previous - position) } else { Err(reason()) };
            }
            (next_offset, previous) = (batch.last_offset() + 1, at);
        }
        let seen = (position, scan.position);
        let mut verified = lock(&self.verified);
        let window = verified.window;
        verified.window =
            if window.0 <= seen.1 && seen.0 <= window.1 { (window.0.min(seen.0), window.1.max(seen.1)) } else { seen };
        if verified.window.1 >= verified.trusted_from {
            verified.trusted_from = verified.trusted_from.min(verified.window.0);
            return Ok(length);
        }
        Ok(seen.1 - seen.0)
    }

    // --- durability and the end ---

    /// Waits until all of the segment is durable. Must not be called under the lock of the log.
    pub(crate) fn sync(&self) -> Result<(), LogError> {
        let written = {
            let mut state = lock(&self.state);
            self.write_pending(&mut state)?;
            let cut = std::mem::take(&mut state.cut);
            let aborted = self.has_aborted.load(Ordering::Acquire);
            // Truncating a file must become durable too.
            [
                true,
                cut || state.offsets.written > 0,
                cut || state.times.written > 0,
                aborted || cut && self.has_file(FileKind::TxnIndex),
            ]
        };
        for (kind, written) in FileKind::ALL.into_iter().zip(written) {
            if written {
                self.io("sync", kind, self.file(kind)?.sync_data())?;
            }
        }
        Ok(())
    }

    /// [`Segment::sync`] of the records only, from which the indexes can be rebuilt.
    pub(crate) fn sync_log(&self) -> Result<(), LogError> {
        self.io("sync", FileKind::Log, self.log_file()?.sync_data())
    }

    /// Reserves disk space for `bytes` after the end of the `.log` file.
    pub(crate) fn reserve_space(&self, bytes: u64) -> Result<(), LogError> {
        let file = self.log_file()?;
        self.io("keep room in", FileKind::Log, file.reserve_space(self.size_bytes(), bytes))
    }

    /// Releases the space that [`Segment::reserve_space`] reserved and nothing has used.
    pub(crate) fn release_space(&self) -> Result<(), LogError> {
        let file = self.log_file()?;
        self.io("truncate", FileKind::Log, file.set_len(self.size_bytes()))
    }

    fn was_rebuilt(&self) -> bool {
        self.rebuilt.load(Ordering::Acquire)
    }

    fn has_file(&self, kind: FileKind) -> bool {
        self.ctx.disk.exists(&self.path(kind))
    }

    /// Writes the index entries that are only in memory; for a clean stop.
    pub(crate) fn write_indexes(&self) -> Result<(), LogError> {
        self.write_pending(&mut lock(&self.state))?;
        self.file(FileKind::Index)?;
        self.file(FileKind::TimeIndex)?;
        Ok(())
    }

    /// Renames the files for the next stage, the `.log` file first: `recovery.rs` tells by it how far a crash has come.
    /// Returns false if the segment was deleted.
    pub(crate) fn advance_to(&self, stage: Stage) -> Result<bool, LogError> {
        // Nobody may open a file by its old name in the meantime.
        let _slots: Vec<_> = self.files.iter().map(lock).collect();
        if self.is_deleted() {
            return Ok(false);
        }
        let dir = self.dir.read();
        for kind in FileKind::ALL {
            let from = self.path_in(&dir, kind);
            let to = dir.join(stage.file_name(self.base_offset, kind));
            match self.ctx.disk.rename(&from, &to) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && kind != FileKind::Log => {}
                renamed => renamed.map_err(LogError::io("rename", &from))?,
            }
        }
        self.stage.store(stage as u8, Ordering::Release);
        Ok(true)
    }

    /// Renames the files to `….deleted`; readers that have them open can still read. Returns the new paths.
    pub(crate) fn mark_deleted(&self) -> Result<Vec<PathBuf>, LogError> {
        let mut renamed = Vec::new();
        // Nobody may open a file by its old name in the meantime.
        let _slots: Vec<_> = self.files.iter().map(lock).collect();
        for kind in FileKind::ALL {
            let from = self.path(kind);
            let mut to = from.clone().into_os_string();
            to.push(".deleted");
            let to = PathBuf::from(to);
            match self.ctx.disk.rename(&from, &to) {
                Ok(()) => renamed.push(to),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // No space for the new name, and this deletion frees space. Readers that have the file open can still
                // read it.
                Err(error) if super::error::is_disk_full(&error) => {
                    self.ctx.disk.remove_file(&from).map_err(LogError::io("remove", &from))?;
                }
                Err(source) => return Err(LogError::Io { action: "rename", path: from, source }),
            }
        }
        self.deleted.store(true, Ordering::Release);
        Ok(renamed)
    }

    /// Whether [`Segment::mark_deleted`] was called.
    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Closes the files; the next use opens them again.
    pub(crate) fn close(&self) {
        for slot in &self.files {
            *lock(slot) = None;
        }
    }
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "segment {} of {} bytes", self.base_offset, self.size_bytes())
    }
}
