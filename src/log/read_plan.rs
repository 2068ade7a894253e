//! Reads in two steps: under the lock of the log a plan is made from cheap copies; the plan is run outside the lock,
//! from memory if the batches are in the tail cache, else from the file.

use std::sync::Arc;

use bytes::Bytes;

use super::{LogError, segment::Segment, tail_cache::TailLog, transaction_index::AbortedTransaction, validator};
use crate::{
    env::File,
    protocol::record_batch::{BatchHeader, HEADER_BYTES},
    types::{LeaderEpoch, Offset, TimestampMs},
};

/// Batches to send; always begins at the start of a batch.
pub enum Records {
    /// Nothing.
    Empty,
    /// Whole batches, in parts for a vectored write.
    Memory(Vec<Bytes>),
    /// A range of a segment file; the last batch in it may be cut short.
    File {
        /// The `.log` file.
        file: Arc<dyn File>,
        /// Position of the first byte.
        position: u64,
        /// Number of bytes.
        length: usize,
    },
}

impl Records {
    /// Number of bytes to send.
    pub fn len(&self) -> usize {
        match self {
            Records::Empty => 0,
            Records::Memory(parts) => parts.iter().map(Bytes::len).sum(),
            Records::File { length, .. } => *length,
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads all of it into memory, for callers that do not send it (tests, coordinators that load).
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn into_bytes(self) -> std::io::Result<Bytes> {
        match self {
            Records::Empty => Ok(Bytes::new()),
            Records::Memory(mut parts) if parts.len() == 1 => Ok(parts.remove(0)),
            Records::Memory(parts) => Ok(parts.concat().into()),
            Records::File { file, position, length } => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, position)?;
                Ok(bytes.into())
            }
        }
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Records::Empty => f.write_str("Empty"),
            Records::Memory(parts) => write!(f, "Memory({} bytes in {} parts)", self.len(), parts.len()),
            Records::File { position, length, .. } => write!(f, "File({length} bytes at {position})"),
        }
    }
}

/// A planned read. Holds references only; dropping it costs nothing.
pub struct ReadPlan {
    pub(crate) segments: Arc<Vec<Arc<Segment>>>,
    /// Index of the segment that holds `from`.
    pub(crate) at: usize,
    pub(crate) tail: Arc<TailLog>,
    pub(crate) from: Offset,
    /// Exclusive; never above the log end offset.
    pub(crate) upper_bound: Offset,
    pub(crate) log_end_offset: Offset,
    /// Size of the last segment at the time of the plan.
    pub(crate) active_bytes: u64,
    pub(crate) max_bytes: usize,
    pub(crate) min_one_batch: bool,
}

impl ReadPlan {
    /// Whether it is certain that there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.from >= self.upper_bound || self.max_bytes == 0 && !self.min_one_batch
    }

    /// Returns the records if they are in memory, or if there are none: no I/O, so any task may call it.
    pub fn from_memory(&self) -> Option<Records> {
        if self.is_empty() {
            return Some(Records::Empty);
        }
        let parts = self.tail.read(self.from, self.upper_bound, self.max_bytes, self.min_one_batch)?;
        Some(if parts.is_empty() { Records::Empty } else { Records::Memory(parts) })
    }

    /// Returns the records (F2, F3) from memory, or their range in the file; finding it may wait for the disk.
    ///
    /// # Errors
    /// A fault of the disk; damaged batches are not served.
    pub fn records(&self) -> Result<Records, LogError> {
        match self.from_memory() {
            Some(records) => Ok(records),
            None => self.records_from_file().map_err(|error| handle_io_error(&self.segments, error)),
        }
    }

    /// Base offset of the first good batch that contains the plan's offset or follows it, so damaged batches are
    /// skipped. The log end offset if there is none.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn next_readable(&self) -> Result<Offset, LogError> {
        for at in self.at..self.segments.len() {
            let segment = &self.segments[at];
            let limit = self.segments.get(at + 1).map_or(self.log_end_offset, |next| next.base_offset());
            let found = segment.next_good_batch(self.from.max(segment.base_offset()), self.end_of(at), limit);
            if let Some(offset) = found.map_err(|error| handle_io_error(&self.segments, error))? {
                return Ok(offset);
            }
        }
        Ok(self.log_end_offset)
    }

    fn records_from_file(&self) -> Result<Records, LogError> {
        for at in self.at..self.segments.len() {
            let segment = &self.segments[at];
            let end = self.end_of(at);
            // A segment may end before the next one starts: compaction leaves gaps.
            let Some((position, first)) = segment.find(self.from.max(segment.base_offset()), end)? else {
                // If the log was truncated since the plan was made, the segment ends too early, and the next one was
                // removed before that: what follows there is not what follows `from`.
                if self.segments.get(at + 1).is_some_and(|next| next.is_deleted() && !planted!("K7-TRUNCATED")) {
                    return Ok(Records::Empty);
                }
                continue;
            };
            if first.last_offset() >= self.upper_bound && self.upper_bound < self.log_end_offset {
                return Ok(Records::Empty);
            }
            let end = self.bounded_end(segment, position + first.size_bytes(), end)?;
            let found = self.range(at, position, &first, end)?;
            // If `max_bytes` is too small for the batch here, a smaller one in the next segment is not next.
            if found.is_empty() && planted!("K7") {
                continue;
            }
            return Ok(found);
        }
        Ok(Records::Empty)
    }

    fn range(&self, at: usize, position: u64, first: &BatchHeader, end: u64) -> Result<Records, LogError> {
        let segment = &self.segments[at];
        let limit = self.segments.get(at + 1).map_or(self.log_end_offset, |next| next.base_offset());
        let first_bytes = first.size_bytes() as usize;
        if first_bytes > self.max_bytes && !self.min_one_batch {
            return Ok(Records::Empty);
        }
        let end = end.max(position + first.size_bytes());
        let length = self.max_bytes.max(first_bytes).min((end - position) as usize);
        let length = segment.verify(position, length as u64, limit)? as usize;
        Ok(Records::File { file: segment.deferred_log_file(), position, length })
    }

    /// Position where the segment's part of the log ends, without regard to the upper bound.
    fn end_of(&self, at: usize) -> u64 {
        if at + 1 == self.segments.len() { self.active_bytes } else { self.segments[at].size_bytes() }
    }

    /// The same, limited by the upper bound.
    fn bounded_end(&self, segment: &Segment, first_end: u64, end: u64) -> Result<u64, LogError> {
        if self.upper_bound >= self.log_end_offset {
            return Ok(end);
        }
        match segment.find(self.upper_bound, end) {
            Ok(found) => Ok(found.map_or(end, |(position, _)| position)),
            // All batches before the damage are below the bound.
            Err(LogError::Corrupt { position, .. }) if position >= first_end => Ok(position),
            Err(error) => Err(error),
        }
    }

    /// F5: the aborted transactions that a reader needs for this plan's range up to `to`.
    ///
    /// # Errors
    /// A fault of the disk.
    pub fn aborted_transactions(&self, to: Offset) -> Result<Vec<AbortedTransaction>, LogError> {
        self.aborted_in_segments(to).map_err(|error| handle_io_error(&self.segments, error))
    }

    fn aborted_in_segments(&self, to: Offset) -> Result<Vec<AbortedTransaction>, LogError> {
        let mut concerned = Vec::new();
        for segment in &self.segments[self.at.min(self.segments.len())..] {
            for transaction in segment.aborted_transactions()? {
                if transaction.concerns(self.from, to) {
                    concerned.push(transaction);
                }
                // Transactions of later markers began at or after `to`.
                if transaction.last_stable_offset >= to {
                    return Ok(concerned);
                }
            }
        }
        Ok(concerned)
    }
}

/// A read that meets a fault of the disk takes the log directory offline, as a write does.
fn handle_io_error(segments: &[Arc<Segment>], error: LogError) -> LogError {
    match segments.first() {
        Some(segment) => segment.context().handle_io_error(error),
        None => error,
    }
}

/// A record found by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Of the record.
    pub timestamp_ms: TimestampMs,
    /// Of the record.
    pub offset: Offset,
    /// Of the record's batch; -1 if the batch has none.
    pub leader_epoch: LeaderEpoch,
}

/// A planned search by timestamp (ListOffsets); must be run outside the lock.
pub struct TimestampLookup {
    pub(crate) segments: Arc<Vec<Arc<Segment>>>,
    pub(crate) active_bytes: u64,
    pub(crate) log_start_offset: Offset,
}

impl TimestampLookup {
    /// L2: the first record whose timestamp is at or after `timestamp_ms`.
    ///
    /// # Errors
    /// A fault of the disk, or records that cannot be decompressed.
    pub fn first_at_or_after(&self, timestamp_ms: TimestampMs) -> Result<Option<TimestampOffset>, LogError> {
        self.find_at_or_after(timestamp_ms).map_err(|error| handle_io_error(&self.segments, error))
    }

    fn find_at_or_after(&self, timestamp_ms: TimestampMs) -> Result<Option<TimestampOffset>, LogError> {
        for (at, segment) in self.segments.iter().enumerate() {
            if segment.size_bytes() == 0 || segment.max_timestamp()?.0 < timestamp_ms {
                continue;
            }
            let start = segment.offset_before_timestamp(timestamp_ms)?.max(self.log_start_offset);
            let found = self.search(
                at,
                start,
                |batch| batch.max_timestamp() >= timestamp_ms,
                |record| record.timestamp_ms >= timestamp_ms && record.offset >= self.log_start_offset,
            )?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// KIP-734: the record with the largest timestamp; the first of them, if there are several.
    ///
    /// # Errors
    /// As [`TimestampLookup::first_at_or_after`].
    pub fn max_timestamp(&self) -> Result<Option<TimestampOffset>, LogError> {
        self.find_max_timestamp().map_err(|error| handle_io_error(&self.segments, error))
    }

    fn find_max_timestamp(&self) -> Result<Option<TimestampOffset>, LogError> {
        let mut latest: Option<(usize, TimestampMs, Offset)> = None;
        for (at, segment) in self.segments.iter().enumerate() {
            let (timestamp_ms, offset) = segment.max_timestamp()?;
            if segment.size_bytes() > 0 && latest.is_none_or(|(_, known, _)| timestamp_ms > known) {
                latest = Some((at, timestamp_ms, offset));
            }
        }
        let Some((at, timestamp_ms, offset)) = latest.filter(|latest| latest.1 >= 0) else { return Ok(None) };
        self.search(at, offset, |_| true, |record| record.timestamp_ms == timestamp_ms)
    }

    /// The first record that `wanted` accepts, from the batch of `from` on, only in batches that `promising` accepts.
    fn search(
        &self,
        at: usize,
        from: Offset,
        promising: impl Fn(&BatchHeader) -> bool,
        wanted: impl Fn(&TimestampOffset) -> bool,
    ) -> Result<Option<TimestampOffset>, LogError> {
        let segment = &self.segments[at];
        let end = if at + 1 == self.segments.len() { self.active_bytes } else { segment.size_bytes() };
        let Some((position, _)) = segment.find(from, end)? else { return Ok(None) };
        let mut walk = segment.walk(position, end)?;
        while let Some((position, batch)) = walk.next()? {
            if promising(&batch)
                && let Some(found) = first_record(segment, position, &batch, &wanted)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn first_record(
    segment: &Segment,
    position: u64,
    batch: &BatchHeader,
    wanted: impl Fn(&TimestampOffset) -> bool,
) -> Result<Option<TimestampOffset>, LogError> {
    let mut scan = segment.scan(position, position + batch.size_bytes())?;
    let Some((_, _, records)) = scan.next_if_whole()? else { return Ok(None) };
    debug_assert_eq!(records.len() + HEADER_BYTES, batch.size_bytes() as usize);
    let records =
        validator::open_records(batch, records).map_err(|error| segment.corrupt(position, error.to_string()))?;
    for record in records {
        let record = record.map_err(|error| segment.corrupt(position, error.to_string()))?;
        let timestamp_ms = batch.timestamp_of(record.timestamp_delta);
        let offset = batch.base_offset() + Offset::from(record.offset_delta);
        let found = TimestampOffset { timestamp_ms, offset, leader_epoch: batch.partition_leader_epoch() };
        if wanted(&found) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
