//! Repairs damaged indexes (INV-L5). Recovery, which runs before anybody else uses the segment, keeps the valid entries
//! and adds the others again. If an index proves wrong after a clean stop, or later, both indexes are rebuilt from the
//! `.log` file.

use super::*;

/// Bytes of log between two index entries, used without the topic's setting: Kafka's default.
const REBUILD_INTERVAL_BYTES: u64 = 4096;
/// A larger segment without any index entry must have lost them: no setting in use gives so few entries.
pub(super) const INDEXED_BYTES: u64 = 1 << 20;

/// The result of reading a whole segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rebuilt {
    /// The offset after its last good batch.
    pub(crate) end_offset: Offset,
    /// The position of its first bad bytes, and the offset that was expected there.
    pub(crate) damage: Option<(u64, Offset)>,
}

impl Segment {
    /// Truncates the indexes to the valid entries for the first `position` bytes, which end at `end_offset`; to nothing
    /// if the time index has no valid entry. Returns the last entry that remains.
    fn trim_indexes(&self, position: u64, end_offset: Offset) -> Result<Option<OffsetEntry>, LogError> {
        let mut state = lock(&self.state);
        let offsets = self.sane_prefix::<{ offset_index::ENTRY_BYTES }, _>(
            FileKind::Index,
            state.offsets.written,
            OffsetEntry::decode,
            |last, entry| {
                u64::from(entry.position) < position
                    && self.base_offset + Offset::from(entry.relative_offset) < end_offset
                    && last.is_none_or(|last: OffsetEntry| {
                        last.relative_offset < entry.relative_offset && last.position < entry.position
                    })
            },
        )?;
        let times = self.sane_prefix::<{ time_index::ENTRY_BYTES }, _>(
            FileKind::TimeIndex,
            state.times.written,
            TimeEntry::decode,
            |last, entry| {
                self.base_offset + Offset::from(entry.relative_offset) < end_offset
                    && last.is_none_or(|last: TimeEntry| {
                        last.timestamp_ms < entry.timestamp_ms && last.relative_offset <= entry.relative_offset
                    })
            },
        )?;
        // Both indexes are written together; if the time index has lost its entries, rebuild both.
        let (offsets, times) = if times == 0 { (0, 0) } else { (offsets, times) };
        self.cut_offset_index(&mut state, offsets)?;
        self.cut_time_index(&mut state, times)?;
        Ok(state.offsets.last)
    }

    /// How many entries from the start `accept` accepts, each together with the one before.
    fn sane_prefix<const N: usize, E: Copy>(
        &self,
        kind: FileKind,
        entries: u32,
        decode: impl Fn(&[u8; N]) -> E,
        accept: impl Fn(Option<E>, E) -> bool,
    ) -> Result<u32, LogError> {
        let mut bytes = vec![0; entries as usize * N];
        let file = self.file(kind)?;
        self.io("read", kind, file.read_exact_at(&mut bytes, 0))?;
        let mut last = None;
        let mut sane = 0;
        for entry in bytes.as_chunks::<N>().0 {
            let entry = decode(entry);
            if !accept(last, entry) {
                break;
            }
            last = Some(entry);
            sane += 1;
        }
        Ok(sane)
    }

    /// Removes the entries of transactions whose marker is at or above `end_offset`.
    pub(crate) fn truncate_aborted(&self, end_offset: Offset) -> Result<(), LogError> {
        self.write_pending_aborted(&mut lock(&self.state))?;
        let transactions = self.aborted_transactions()?;
        let kept = transactions.partition_point(|transaction| transaction.last_offset < end_offset);
        if !self.has_aborted.load(Ordering::Acquire) {
            return Ok(());
        }
        let len = (kept * transaction_index::ENTRY_BYTES) as u64;
        self.io("truncate", FileKind::TxnIndex, self.file(FileKind::TxnIndex)?.set_len(len))?;
        self.has_aborted.store(kept > 0, Ordering::Release);
        lock(&self.state).cut = true;
        Ok(())
    }

    /// Truncates the `.log` file to `size`, without changing the indexes. A file that is not longer is left alone, so
    /// that its modification time stays: see [`Segment::largest_timestamp`].
    pub(crate) fn cut_log(&self, size: u64) -> Result<(), LogError> {
        let file = self.log_file()?;
        if self.io("read", FileKind::Log, file.len())? > size {
            self.io("truncate", FileKind::Log, file.set_len(size))?;
        }
        self.size.store(size, Ordering::Release);
        // What comes there is this process's own. A former end of the file would be inside of a new batch.
        let mut verified = lock(&self.verified);
        verified.trusted_from = verified.trusted_from.min(size);
        verified.window = (verified.window.0.min(size), verified.window.1.min(size));
        Ok(())
    }

    /// Prepares the indexes so that batches can be indexed again from the returned position on. A batch starts there,
    /// at or before the one that contains `recovery_point`. Earlier index entries are kept if they are valid.
    pub(crate) fn prepare_recovery(&self, recovery_point: Offset) -> Result<u64, LogError> {
        let mut last = self.trim_indexes(self.size_bytes(), recovery_point)?;
        // Entries that were being written at the crash may have any content. They are the last ones.
        while let Some(entry) = last {
            if self.entry_is_valid(entry)? && self.last_time_is_valid()? {
                break;
            }
            let end_offset = self.base_offset + Offset::from(entry.relative_offset);
            last = self.trim_indexes(entry.position.into(), end_offset.min(recovery_point))?;
        }
        let start = last.map_or(0, |entry| entry.position.into());
        if last.is_none() {
            self.trim_indexes(0, self.base_offset)?;
        }
        let max_timestamp = self.last_time(&lock(&self.state));
        self.resume_indexing(0, max_timestamp);
        self.trust_from(start);
        Ok(start)
    }

    /// Whether an index entry points to a valid batch with that last offset.
    fn entry_is_valid(&self, entry: OffsetEntry) -> Result<bool, LogError> {
        let mut scan = self.scan(entry.position.into(), self.size_bytes())?;
        let batch = scan.next_if_whole()?;
        Ok(batch.is_some_and(|(_, batch, records)| {
            batch.last_offset() == self.base_offset + Offset::from(entry.relative_offset) && batch.crc_is_valid(records)
        }))
    }

    /// Whether the batch of the last time index entry exists and has that timestamp.
    fn last_time_is_valid(&self) -> Result<bool, LogError> {
        let (timestamp_ms, offset) = self.last_time(&lock(&self.state));
        let start = self.floor_position(offset)?;
        let mut scan = self.scan(start, self.size_bytes())?;
        while let Some((_, batch, _)) = scan.next_if_whole()? {
            if batch.last_offset() >= offset {
                return Ok(batch.last_offset() == offset && batch.max_timestamp() == timestamp_ms);
            }
        }
        Ok(false)
    }

    // --- after a clean stop, or later ---

    /// Whether the last entry of each index matches an existing batch. Indexes that Kafka wrote may hold the offset of
    /// a record inside the batch, or of a batch that was appended with it. An empty index is valid if the segment is
    /// too small for an entry.
    fn last_entries_are_valid(&self, interval_bytes: u64) -> Result<bool, LogError> {
        let (offsets, times) = {
            let mut state = lock(&self.state);
            self.load_last(&mut state)?;
            (state.offsets.last, state.times.last)
        };
        let Some(entry) = offsets else { return Ok(!self.should_have_entries(interval_bytes)?) };
        let named = self.header_at(entry.position.into(), self.size_bytes())?;
        let offset = self.base_offset + Offset::from(entry.relative_offset);
        Ok(named.is_some_and(|batch| batch.base_offset() <= offset) && self.time_is_valid(times)?)
    }

    /// Whether [`Segment::index`] would have added an entry.
    pub(super) fn should_have_entries(&self, interval_bytes: u64) -> Result<bool, LogError> {
        let mut walk = self.walk(0, self.size_bytes())?;
        let mut bytes = 0;
        loop {
            match walk.next() {
                Ok(Some(_)) if bytes > interval_bytes => return Ok(true),
                Ok(Some((_, batch))) => bytes += batch.size_bytes(),
                Ok(None) | Err(LogError::Corrupt { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the last time index entry of a segment with batches points to a batch with that timestamp.
    pub(super) fn time_is_valid(&self, entry: Option<TimeEntry>) -> Result<bool, LogError> {
        let size = self.size_bytes();
        let Some(entry) = entry else {
            return Ok(self.header_at(0, size)?.is_none_or(|batch| batch.max_timestamp() < 0));
        };
        let offset = self.base_offset + Offset::from(entry.relative_offset);
        let start = self.floor_position(offset)?;
        let mut walk = self.walk(start.min(size), size)?;
        loop {
            match walk.next() {
                Ok(Some((_, batch))) if batch.last_offset() < offset => {}
                Ok(found) => {
                    return Ok(found.is_some_and(|(_, batch)| {
                        batch.base_offset() <= offset && batch.max_timestamp() == entry.timestamp_ms
                    }));
                }
                Err(LogError::Corrupt { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// The header of the batch at `position`, if one can start there.
    fn header_at(&self, position: u64, end: u64) -> Result<Option<BatchHeader>, LogError> {
        if position.checked_add(HEADER_BYTES as u64).is_none_or(|head_end| head_end > end) {
            return Ok(None);
        }
        match self.walk(position, end)?.next() {
            Ok(found) => Ok(found.map(|(_, batch)| batch)),
            Err(LogError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Rebuilds both indexes, once per process: a batch that they do not lead to after that does not exist. Returns
    /// `None` the second time.
    pub(super) fn rebuild_indexes_once(&self) -> Result<Option<Rebuilt>, LogError> {
        if self.rebuilt.swap(true, Ordering::AcqRel) {
            return Ok(None);
        }
        tracing::warn!(segment = %self.path(FileKind::Log).display(), "an index is damaged and is rebuilt from the log");
        self.rebuild_indexes().map(Some)
    }

    /// Reads the whole file, including any good batches after a bad one, so that they can be served.
    fn rebuild_indexes(&self) -> Result<Rebuilt, LogError> {
        let mut state = lock(&self.state);
        let size = self.size_bytes();
        let mut search = BatchSearch::new(self);
        let (mut position, mut rebuilt) = (0, Rebuilt { end_offset: self.base_offset, damage: None });
        let (mut offsets, mut times, mut max) = (Vec::new(), Vec::<TimeEntry>::new(), (-1, self.base_offset));
        let mut bytes_since_entry = 0;
        let time_entry = |(timestamp_ms, offset): (TimestampMs, Offset)| TimeEntry {
            timestamp_ms,
            relative_offset: (offset - self.base_offset) as u32,
        };
        while position < size {
            let mut scan = self.scan(position, size)?;
            while let Some((at, batch, records)) = scan.next_if_whole()? {
                if !batch.crc_is_valid(records) || batch.base_offset() < rebuilt.end_offset {
                    break;
                }
                rebuilt.end_offset = batch.last_offset() + 1;
                position = at + batch.size_bytes();
                if batch.max_timestamp() > max.0 {
                    max = (batch.max_timestamp(), batch.last_offset());
                }
                if bytes_since_entry > REBUILD_INTERVAL_BYTES {
                    let relative_offset = (batch.last_offset() - self.base_offset) as u32;
                    offsets.push(OffsetEntry { relative_offset, position: at as u32 });
                    if times.last().map_or(-1, |entry| entry.timestamp_ms) < max.0 {
                        times.push(time_entry(max));
                    }
                    bytes_since_entry = 0;
                }
                bytes_since_entry += batch.size_bytes();
            }
            if position < size {
                rebuilt.damage.get_or_insert((position, rebuilt.end_offset));
                position = search.next(position + 1, rebuilt.end_offset, None)?.unwrap_or(size);
                // An entry for the next batch lets readers skip the damage.
                bytes_since_entry = FORCE_ENTRY;
            }
        }
        if times.last().map_or(-1, |entry| entry.timestamp_ms) < max.0 {
            times.push(time_entry(max));
        }
        self.replace_indexes(&mut state, offsets, times)?;
        state.bytes_since_index_entry = bytes_since_entry;
        state.max_timestamp = Some(max);
        drop(state);
        if rebuilt.damage.is_none() {
            self.trust_from(0);
        }
        Ok(rebuilt)
    }

    fn replace_indexes(
        &self,
        state: &mut SegmentState,
        offsets: Vec<OffsetEntry>,
        times: Vec<TimeEntry>,
    ) -> Result<(), LogError> {
        for kind in [FileKind::Index, FileKind::TimeIndex] {
            self.io("truncate", kind, self.file(kind)?.set_len(0))?;
        }
        state.offsets = IndexTail::of(offsets);
        state.times = IndexTail::of(times);
        state.cut = true;
        ignore_shortage(self.write_pending(state))
    }

    /// After a clean stop: finds the segment's end and its first damage. Rebuilds the indexes unless their last entries
    /// are valid.
    pub(crate) fn load_end_or_rebuild(&self, interval_bytes: u64) -> Result<Rebuilt, LogError> {
        if self.last_entries_are_valid(interval_bytes)? {
            match self.load_end() {
                Ok(end_offset) => return Ok(Rebuilt { end_offset, damage: None }),
                Err(LogError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match self.rebuild_indexes_once()? {
            Some(rebuilt) => Ok(rebuilt),
            None => self.load_end().map(|end_offset| Rebuilt { end_offset, damage: None }),
        }
    }

    /// Whether its `.txnindex`, if it has one, may be valid: whole entries, in order, with offsets of this segment.
    pub(crate) fn aborted_transactions_are_sane(&self, limit: Offset) -> Result<bool, LogError> {
        if !self.has_aborted.load(Ordering::Acquire) {
            return Ok(true);
        }
        let len = self.io("read", FileKind::TxnIndex, self.file(FileKind::TxnIndex)?.len())?;
        let transactions = self.aborted_transactions()?;
        let mut next = self.base_offset;
        let in_order = transactions.iter().all(|transaction| {
            let sane = transaction.producer_id >= 0
                && (0..=transaction.last_offset).contains(&transaction.first_offset)
                && (next..limit).contains(&transaction.last_offset)
                && transaction.last_stable_offset >= 0;
            next = transaction.last_offset.saturating_add(1);
            sane
        });
        Ok(in_order && len == (transactions.len() * transaction_index::ENTRY_BYTES) as u64)
    }

    /// Continues indexing this many bytes after the last entry.
    pub(super) fn resume_indexing(&self, bytes_since_index_entry: u64, max_timestamp: (TimestampMs, Offset)) {
        let mut state = lock(&self.state);
        state.bytes_since_index_entry = bytes_since_index_entry;
        state.max_timestamp = Some(max_timestamp);
    }

    /// Gives the next batch an index entry, so that readers need not read the damaged bytes before it.
    pub(crate) fn force_index_entry(&self) {
        lock(&self.state).bytes_since_index_entry = FORCE_ENTRY;
    }

    /// Records that the checksums from `position` on are known to be good.
    pub(crate) fn trust_from(&self, position: u64) {
        lock(&self.verified).trusted_from = position;
    }
}
