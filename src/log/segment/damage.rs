//! Handles bytes of a `.log` file that are no whole batch: finds good batches after them, and keeps a copy of truncated
//! bytes.
//!
//! Leaves to `recovery.rs` the decision whether bytes are torn or damaged, and what to do.

use super::*;

/// Bytes read at once while looking for a batch.
const SEARCH_BYTES: u64 = 256 << 10;
/// A disk writes this many bytes either whole or not at all.
const SECTOR_BYTES: u64 = 512;
/// Fewer zeros than this may be the content of a batch.
const LEAST_UNWRITTEN_BYTES: usize = 12;

/// A search for whole batches after bytes that are no batch. Records may contain bytes that look like batches, so the
/// bytes to checksum are limited to a few times the file's size.
pub(crate) struct BatchSearch<'a> {
    segment: &'a Segment,
    end: u64,
    budget_bytes: u64,
}

impl<'a> BatchSearch<'a> {
    pub(crate) fn new(segment: &'a Segment) -> Self {
        let end = segment.size_bytes();
        BatchSearch { segment, end, budget_bytes: end.saturating_mul(8) }
    }

    /// Position of the first batch at or after `from` that is whole, has a valid checksum, and holds only offsets from
    /// `least` on and below `limit`.
    pub(crate) fn next(&mut self, from: u64, least: Offset, limit: Option<Offset>) -> Result<Option<u64>, LogError> {
        let limit = limit.unwrap_or(self.segment.base_offset.saturating_add(i64::from(u32::MAX)));
        let file = self.segment.log_file()?;
        let mut start = from;
        while start + HEADER_BYTES as u64 <= self.end {
            let mut bytes = vec![0; SEARCH_BYTES.min(self.end - start) as usize];
            self.segment.io("read", FileKind::Log, file.read_exact_at(&mut bytes, start))?;
            for (position, head) in (start..).zip(bytes.windows(HEADER_BYTES)) {
                let Some(batch) = head.first_chunk().and_then(|head| self.plausible(head, position, least, limit))
                else {
                    continue;
                };
                match self.budget_bytes.checked_sub(batch.size_bytes()) {
                    Some(left) => self.budget_bytes = left,
                    None => return Ok(None),
                }
                if self.segment.is_valid_batch(position, self.end)? {
                    return Ok(Some(position));
                }
            }
            start += (bytes.len() - HEADER_BYTES + 1) as u64;
        }
        Ok(None)
    }

    fn plausible(&self, head: &[u8; HEADER_BYTES], position: u64, least: Offset, limit: Offset) -> Option<BatchHeader> {
        let batch = BatchHeader::parse(head).ok()?;
        let fits =
            batch.size_bytes() <= self.end - position && batch.base_offset() >= least && batch.last_offset() < limit;
        fits.then_some(batch)
    }
}

impl Segment {
    /// Whether a whole batch with a valid checksum starts at `position`.
    pub(crate) fn is_valid_batch(&self, position: u64, end: u64) -> Result<bool, LogError> {
        let mut scan = self.scan(position, end)?;
        Ok(scan.next_if_whole()?.is_some_and(|(_, batch, records)| batch.crc_is_valid(records)))
    }

    /// Base offset of the first batch that is whole, has a valid checksum and contains or follows `offset`; only before
    /// position `end` and with offsets below `limit`.
    pub(crate) fn next_good_batch(&self, offset: Offset, end: u64, limit: Offset) -> Result<Option<Offset>, LogError> {
        let mut search = BatchSearch::new(self);
        let mut position = self.floor_position(offset)?;
        let mut next_offset = self.base_offset;
        while position < end {
            let mut scan = self.scan(position, end)?;
            while let Some((at, batch, records)) = scan.next_if_whole()? {
                let is_in_order = batch.base_offset() >= next_offset && batch.last_offset() < limit;
                if !is_in_order || !batch.crc_is_valid(records) {
                    break;
                }
                if batch.last_offset() >= offset {
                    return Ok(Some(batch.base_offset()));
                }
                next_offset = batch.last_offset() + 1;
                position = at + batch.size_bytes();
            }
            if position < end {
                position = search.next(position + 1, next_offset.max(offset), Some(limit))?.unwrap_or(end);
            }
        }
        Ok(None)
    }

    /// Whether a part of `position..end` looks like a sector that was never written: it reads as zeros. After a power
    /// failure a disk may have such sectors, in any order, among unsynced data.
    pub(crate) fn has_unwritten_sector(&self, position: u64, end: u64) -> Result<bool, LogError> {
        let file = self.log_file()?;
        let mut sector = [0; SECTOR_BYTES as usize];
        let mut at = position;
        while at < end {
            let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
            let part = &mut sector[..(next - at) as usize];
            self.io("read", FileKind::Log, file.read_exact_at(part, at))?;
            if part.len() >= LEAST_UNWRITTEN_BYTES && part.iter().all(|byte| *byte == 0) {
                return Ok(true);
            }
            at = next;
        }
        Ok(false)
    }

    /// Copies the bytes from `position` on to a file beside the segment and returns its path. The content is durable,
    /// the name not yet. The broker never reads it: it is for the operator.
    pub(crate) fn copy_tail_to_cut_file(&self, position: u64) -> Result<PathBuf, LogError> {
        let mut path = self.path(FileKind::Log).into_os_string();
        path.push(format!(".{position}.cut"));
        let path = PathBuf::from(path);
        let copied = self.ctx.disk.open(&path, Open::Create).and_then(|copy| {
            let (file, size) = (self.log_file().map_err(io::Error::other)?, self.size_bytes());
            let mut at = position;
            copy.set_len(0)?;
            while at < size {
                let mut bytes = vec![0; SEARCH_BYTES.min(size - at) as usize];
                file.read_exact_at(&mut bytes, at)?;
                copy.write_all_at(&bytes, at - position)?;
                at += bytes.len() as u64;
            }
            copy.sync_all()
        });
        copied.map_err(LogError::io("write", &path))?;
        Ok(path)
    }

    /// Removes the segment from the log, but keeps its records: renames the `.log` file and removes the others.
    pub(crate) fn set_aside(&self) -> Result<PathBuf, LogError> {
        let from = self.path(FileKind::Log);
        let mut to = from.clone().into_os_string();
        to.push(".0.cut");
        let to = PathBuf::from(to);
        self.ctx.disk.rename(&from, &to).map_err(LogError::io("rename", &from))?;
        for kind in FileKind::ALL {
            match self.ctx.disk.remove_file(&self.path(kind)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => self.io("remove", kind, Err(error))?,
                _ => {}
            }
        }
        self.deleted.store(true, Ordering::Release);
        Ok(to)
    }
}
