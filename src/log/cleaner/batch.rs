//! What a cleaner makes of one batch (Apache: `MemoryRecords.filterTo` and `Cleaner.shouldRetainRecord`). Pure.
//!
//! Offsets, producer and sequences of a batch stay, also if records go. The records are decompressed piece by piece:
//! first only to decide which stay, and again only if some go and others stay.

use std::io;

use super::offset_map::{KeyHash, KeyHasher, OffsetMap};
use crate::{
    protocol::{
        compression::{self, OpenLimits},
        record_batch::{BatchHeader, RecordWalk, WalkError},
    },
    types::{Offset, TimestampMs},
};

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cleaned {
    /// It stays as it is.
    Unchanged,
    /// Nothing of it is left.
    Gone,
    /// This header and these records take its place.
    Changed(BatchHeader, Vec<u8>),
}

/// Which keys have newer records.
pub(super) struct Newest<'a> {
    /// The newest offset of each key in the dirty part of the log.
    pub(super) map: &'a OffsetMap,
    /// Records above this offset are not in the map.
    pub(super) last_offset: Offset,
}

/// The facts about a batch and the topic that decide.
pub(super) struct Rules<'a> {
    pub(super) newest: Newest<'a>,
    /// All records go: they are aborted, or a marker that nobody needs after its delete horizon.
    pub(super) discards_all: bool,
    /// It is a marker of a transaction of which nothing is left, so it gets a delete horizon.
    pub(super) is_unneeded_marker: bool,
    /// Without records it stays as an empty batch: the last one of its producer or of its segment.
    pub(super) keeps_empty: bool,
    pub(super) now_ms: TimestampMs,
    /// `delete.retention.ms`.
    pub(super) delete_retention_ms: i64,
}

/// Which records of a batch stay.
#[derive(Default)]
struct Kept {
    positions: Positions,
    count: usize,
    max_timestamp: TimestampMs,
    has_tombstone: bool,
}

/// Which of a batch's records, by their position, stay: one bit each, since a batch may have millions.
#[derive(Default)]
struct Positions {
    words: Vec<u64>,
    len: usize,
}

impl Positions {
    fn push(&mut self, stays: bool) {
        if self.len.is_multiple_of(64) {
            self.words.push(0);
        }
        self.words[self.len / 64] |= u64::from(stays) << (self.len % 64);
        self.len += 1;
    }

    fn get(&self, at: usize) -> bool {
        self.words.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
}

/// Decides about a batch, whose checksum is valid.
///
/// # Errors
/// Its records cannot be read.
pub(super) fn clean(header: &BatchHeader, records: &[u8], rules: &Rules<'_>) -> Result<Cleaned, WalkError> {
    let kept = match rules.discards_all {
        true => Kept::default(),
        false => decide(header, records, rules)?,
    };
    if kept.count == 0 {
        return Ok(match (rules.keeps_empty, header.record_count()) {
            (true, 0) => Cleaned::Unchanged,
            (true, _) => Cleaned::Changed(header.emptied(), Vec::new()),
            (false, _) => Cleaned::Gone,
        });
    }
    let needs_horizon = (kept.has_tombstone || rules.is_unneeded_marker) && header.delete_horizon_ms().is_none();
    if kept.count == kept.positions.len && !needs_horizon {
        return Ok(Cleaned::Unchanged);
    }
    let horizon_ms = needs_horizon.then(|| rules.now_ms.saturating_add(rules.delete_retention_ms.max(0)));
    rewrite(header, records, &kept, horizon_ms)
}

fn decide(header: &BatchHeader, records: &[u8], rules: &Rules<'_>) -> Result<Kept, WalkError> {
    let mut kept = Kept { max_timestamp: -1, ..Kept::default() };
    let is_past_horizon = header.delete_horizon_ms().is_some_and(|horizon_ms| horizon_ms <= rules.now_ms);
    each_record(header, records, &rules.newest.map.hasher(), |offset, timestamp_ms, key, has_value| {
        let is_kept = header.is_control()
            || offset > rules.newest.last_offset
            || key.is_some_and(|key| {
                let is_newest = rules.newest.map.get(key).is_none_or(|newest| offset >= newest);
                is_newest && (has_value || !is_past_horizon)
            });
        kept.positions.push(is_kept);
        if is_kept {
            kept.count += 1;
            kept.max_timestamp = kept.max_timestamp.max(timestamp_ms);
            kept.has_tombstone |= !has_value && !header.is_control();
        }
        true
    })?;
    Ok(kept)
}

/// Calls `visit` with offset, timestamp, hash of the key, and whether there is a value, of each record, until it
/// returns false. Returns whether all were visited.
///
/// # Errors
/// The records cannot be read.
pub(super) fn each_record(
    header: &BatchHeader,
    records: &[u8],
    fresh: &KeyHasher,
    mut visit: impl FnMut(Offset, TimestampMs, Option<KeyHash>, bool) -> bool,
) -> Result<bool, WalkError> {
    let codec = header.compression().map_err(|error| WalkError::Source(io::Error::other(error)))?;
    let opened = compression::open(codec, records, OpenLimits::STORED)?;
    let mut walk = RecordWalk::new(opened, header.record_count());
    loop {
        let mut hasher = fresh.clone();
        let Some(record) = walk.next_with_key(&mut |piece| hasher.write(piece)) else { return Ok(true) };
        let record = record?;
        let timestamp_ms = header.timestamp_of(record.timestamp_delta);
        let key = record.key_bytes.map(|_| hasher.finish());
        let offset = header.base_offset() + Offset::from(record.offset_delta);
        if !visit(offset, timestamp_ms, key, record.value_bytes.is_some()) {
            return Ok(false);
        }
    }
}

fn rewrite(
    header: &BatchHeader,
    records: &[u8],
    kept: &Kept,
    horizon_ms: Option<TimestampMs>,
) -> Result<Cleaned, WalkError> {
    let mut header = *header;
    let codec = header.compression().map_err(|error| WalkError::Source(io::Error::other(error)))?;
    let shift = horizon_ms.map_or(0, |horizon_ms| header.base_timestamp().wrapping_sub(horizon_ms));
    let opened = compression::open(codec, records, OpenLimits::STORED)?;
    let walk = RecordWalk::new(opened, header.record_count());
    let mut unread = None;
    let is_kept = |at: usize| kept.positions.get(at);
    let written = compression::compress_to(codec, None, Vec::new(), |sink| {
        let filtered = walk.filter(is_kept, shift, sink);
        filtered.map_err(|error| {
            unread = Some(error);
            io::Error::other("the records cannot be read")
        })
    });
    let records = written.map_err(|error| unread.unwrap_or(WalkError::Source(error)))?;
    if let Some(horizon_ms) = horizon_ms {
        header.set_delete_horizon_ms(horizon_ms);
    }
    if !header.is_log_append_time() {
        header.set_max_timestamp(false, kept.max_timestamp);
    }
    header.set_record_count(kept.count as i32);
    header.set_records_bytes(records.len());
    header.set_crc(&records);
    Ok(Cleaned::Changed(header, records))
}
