//! Reads a segment batch by batch: [`Walk`] only headers, [`Scan`] also the records.

use super::*;

/// Bytes read at once while looking for a batch.
const WALK_BYTES: usize = 8 << 10;
/// Bytes read at once while checking batches.
const SCAN_BYTES: usize = 256 << 10;

/// See [`Segment::walk`].
pub(crate) struct Walk<'a> {
    segment: &'a Segment,
    file: Arc<dyn File>,
    position: u64,
    end: u64,
    buffer: Vec<u8>,
    buffer_start: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(segment: &'a Segment, file: Arc<dyn File>, position: u64, end: u64) -> Self {
        Walk { segment, file, position, end, buffer: Vec::new(), buffer_start: 0 }
    }

    /// Returns the next batch and its position. Anything but whole batches up to the end is corruption.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, BatchHeader)>, LogError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        if self.end - position < HEADER_BYTES as u64 {
            return Err(self.segment.corrupt(position, "a batch is cut short"));
        }
        let header = self.header_at(position)?;
        let header = BatchHeader::parse(&header).map_err(|error| self.segment.corrupt(position, error.to_string()))?;
        if header.size_bytes() > self.end - position {
            return Err(self.segment.corrupt(position, format!("{header:?} is cut short")));
        }
        if header.last_offset() < self.segment.base_offset {
            return Err(self.segment.corrupt(position, format!("{header:?} is older than its segment")));
        }
        self.position += header.size_bytes();
        Ok(Some((position, header)))
    }

    fn header_at(&mut self, position: u64) -> Result<[u8; HEADER_BYTES], LogError> {
        let held =
            position.checked_sub(self.buffer_start).filter(|at| at + HEADER_BYTES as u64 <= self.buffer.len() as u64);
        let at = match held {
            Some(at) => at as usize,
            None => {
                let length = WALK_BYTES.min((self.end - position) as usize);
                self.buffer.resize(length, 0);
                self.segment.io("read", FileKind::Log, self.file.read_exact_at(&mut self.buffer, position))?;
                self.buffer_start = position;
                0
            }
        };
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&self.buffer[at..at + HEADER_BYTES]);
        Ok(header)
    }
}

/// See [`Segment::scan`].
pub(crate) struct Scan<'a> {
    segment: &'a Segment,
    file: Arc<dyn File>,
    /// Where the next batch starts.
    pub(crate) position: u64,
    end: u64,
    /// The bytes at `start` and after are those of the file at `position` and after.
    buffer: Vec<u8>,
    start: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn new(segment: &'a Segment, file: Arc<dyn File>, position: u64, end: u64) -> Self {
        Scan { segment, file, position, end, buffer: Vec::new(), start: 0 }
    }

    /// The next batch with its records; `None` at the end, or if no whole batch follows.
    #[allow(clippy::type_complexity)] // Position, header, records.
    pub(crate) fn next_if_whole(&mut self) -> Result<Option<(u64, BatchHeader, &[u8])>, LogError> {
        let left = self.end - self.position;
        if left < HEADER_BYTES as u64 {
            return Ok(None);
        }
        self.fill(HEADER_BYTES)?;
        let Some(head) = self.buffer[self.start..].first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let Ok(header) = BatchHeader::parse(head) else { return Ok(None) };
        if header.size_bytes() > left {
            return Ok(None);
        }
        let size = header.size_bytes() as usize;
        self.fill(size)?;
        let (position, start) = (self.position, self.start);
        self.position += size as u64;
        self.start += size;
        Ok(Some((position, header, &self.buffer[start + HEADER_BYTES..start + size])))
    }

    /// Reads until the buffer holds at least `bytes`, which the file must have.
    fn fill(&mut self, bytes: usize) -> Result<(), LogError> {
        let held = self.buffer.len() - self.start;
        if held >= bytes {
            return Ok(());
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        let wanted = bytes.max(SCAN_BYTES).min((self.end - self.position) as usize);
        self.buffer.resize(wanted, 0);
        let read = self.file.read_exact_at(&mut self.buffer[held..], self.position + held as u64);
        self.segment.io("read", FileKind::Log, read)
    }
}
