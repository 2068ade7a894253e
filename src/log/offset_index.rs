//! `.index`: offset → file position, one entry per `index.interval.bytes` of log.
//!
//! Pure: owns entries, their encoding and the search in the file. Leaves entries that are not yet written to
//! `segment.rs`.

use super::index_reader::IndexReader;

/// Bytes per entry: i32 offset minus the segment's base offset, i32 position.
pub(crate) const ENTRY_BYTES: usize = 8;

/// The last offset of a batch (minus the segment's base offset) and the position where the batch starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    pub(crate) relative_offset: u32,
    pub(crate) position: u32,
}

impl OffsetEntry {
    pub(crate) fn encode(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..4].copy_from_slice(&self.relative_offset.to_be_bytes());
        bytes[4..].copy_from_slice(&self.position.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h] = *bytes;
        OffsetEntry { relative_offset: u32::from_be_bytes([a, b, c, d]), position: u32::from_be_bytes([e, f, g, h]) }
    }
}

/// The last entry whose offset is at most `relative_offset`, in the file.
pub(crate) fn floor(reader: &IndexReader, relative_offset: u32) -> std::io::Result<Option<OffsetEntry>> {
    reader.floor::<ENTRY_BYTES, _>(OffsetEntry::decode, |entry| entry.relative_offset <= relative_offset)
}
