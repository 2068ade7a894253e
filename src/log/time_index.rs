//! `.timeindex`: largest timestamp so far → offset, written with each `.index` entry and at the roll.
//!
//! Pure: entries, their encoding and the search.

use super::index_reader::IndexReader;
use crate::types::TimestampMs;

/// Bytes per entry: i64 timestamp, i32 offset minus the segment's base offset.
pub(crate) const ENTRY_BYTES: usize = 12;

/// The largest timestamp up to here, and the last offset of the batch that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub(crate) timestamp_ms: TimestampMs,
    pub(crate) relative_offset: u32,
}

impl TimeEntry {
    pub(crate) fn encode(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.timestamp_ms.to_be_bytes());
        bytes[8..].copy_from_slice(&self.relative_offset.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let (timestamp, offset) = bytes.split_at(8);
        TimeEntry {
            timestamp_ms: timestamp.iter().fold(0i64, |value, byte| value << 8 | i64::from(*byte)),
            relative_offset: offset.iter().fold(0u32, |value, byte| value << 8 | u32::from(*byte)),
        }
    }
}

/// The last entry whose timestamp is at most `timestamp_ms`, in the file.
pub(crate) fn floor(reader: &IndexReader, timestamp_ms: TimestampMs) -> std::io::Result<Option<TimeEntry>> {
    reader.floor::<ENTRY_BYTES, _>(TimeEntry::decode, |entry| entry.timestamp_ms <= timestamp_ms)
}
