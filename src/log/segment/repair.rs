//! Recovery of one segment, before anybody else knows it: which index entries are true, where the file ends.

use super::*;

impl Segment {
    /// Cuts the indexes to what describes the first `position` bytes, which end at `end_offset`; all of
    /// them where that cannot be told. Answers the last entry that stayed.
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
        // The two are written together; a time index that has lost entries is rebuilt with the other.
        let (offsets, times) = if times == 0 { (0, 0) } else { (offsets, times) };
        self.cut_offset_index(&mut state, offsets)?;
        self.cut_time_index(&mut state, times)?;
        Ok(state.offsets.last)
    }

    /// How many entries from the start are each acceptable behind the one before.
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

    /// Drops the entries of transactions whose marker is at or beyond `end_offset`.
    pub(crate) fn truncate_aborted(&self, end_offset: Offset) -> Result<(), LogError> {
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

    /// Cuts the `.log` file to `size`, without touching the indexes.
    pub(crate) fn cut_log(&self, size: u64) -> Result<(), LogError> {
        self.io("truncate", FileKind::Log, self.log_file()?.set_len(size))?;
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    /// Readies the indexes for batches to be noted again from the answered position on, the start of a batch at or
    /// before the one of `recovery_point`. Index entries for what lies before are kept if they prove true.
    pub(crate) fn prepare_recovery(&self, recovery_point: Offset) -> Result<u64, LogError> {
        let mut last = self.trim_indexes(self.size_bytes(), recovery_point)?;
        // Entries that were being written at the crash may be anything. They are the last ones.
        while let Some(entry) = last {
            if self.entry_is_true(entry)? && self.last_time_is_true()? {
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

    /// Whether the batch that an index entry points to is there.
    fn entry_is_true(&self, entry: OffsetEntry) -> Result<bool, LogError> {
        let mut scan = self.scan(entry.position.into(), self.size_bytes())?;
        let batch = scan.next_if_whole()?;
        Ok(batch.is_some_and(|(_, batch, records)| {
            batch.last_offset() == self.base_offset + Offset::from(entry.relative_offset) && batch.crc_is_valid(records)
        }))
    }

    /// Whether the batch of the last time entry is there and has that timestamp.
    fn last_time_is_true(&self) -> Result<bool, LogError> {
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

    /// Index entries will be made for batches from here on, so far behind the last entry.
    pub(super) fn resume_indexing(&self, bytes_since_index_entry: u64, max_timestamp: (TimestampMs, Offset)) {
        let mut state = lock(&self.state);
        state.bytes_since_index_entry = bytes_since_index_entry;
        state.max_timestamp = Some(max_timestamp);
    }

    /// Notes that the checksums hold from `position` on.
    pub(crate) fn trust_from(&self, position: u64) {
        lock(&self.verified).trusted_from = position;
    }
}
