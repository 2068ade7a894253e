//! Keeps the last produced batches, as slices of their request frames, for readers at the tail.
//!
//! Leaves out what a follower appends, since consumers read from leaders. Bounded in bytes over all logs, first in,
//! first out: consumers that keep up nearly always read the newest batches.
//! Holds references, not copies: the 61 patched header bytes and a slice of the frame.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Bytes, BytesMut};

use crate::{
    env::lock::lock,
    protocol::record_batch::{BatchHeader, HEADER_BYTES},
    types::Offset,
};

/// Memory of an entry besides its records.
const ENTRY_OVERHEAD_BYTES: usize = 192;
/// Smaller batches are copied into one buffer: one more part of a vectored write costs more than the copy.
const COPY_BELOW_BYTES: usize = 4 << 10;

/// The cache of all logs.
pub struct TailCache {
    budget_bytes: usize,
    used_bytes: AtomicUsize,
    /// The log and the cost of each entry, oldest first.
    order: Mutex<VecDeque<(Weak<TailLog>, usize)>>,
}

/// The entries of one log: consecutive batches up to its end.
#[derive(Default)]
pub(crate) struct TailLog {
    entries: Mutex<VecDeque<Entry>>,
}

struct Entry {
    header: BatchHeader,
    records: Bytes,
}

impl Entry {
    fn size(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }
}

impl TailCache {
    /// A cache that keeps about `budget_bytes` of batches.
    pub fn new(budget_bytes: usize) -> Self {
        TailCache { budget_bytes, used_bytes: AtomicUsize::new(0), order: Mutex::default() }
    }

    /// Bytes in the cache.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Adds the batch that was just appended to `log`. `pinned_bytes` is the memory that the records keep alive: that
    /// of their whole request frame, if no other batch is charged for it.
    pub(crate) fn push(&self, log: &Arc<TailLog>, header: BatchHeader, records: Bytes, pinned_bytes: usize) {
        let cost = pinned_bytes.max(records.len()) + ENTRY_OVERHEAD_BYTES;
        if cost > self.budget_bytes / 2 {
            log.clear(); // The entries must be consecutive up to the log's end.
            return;
        }
        {
            let mut entries = lock(&log.entries);
            if entries.back().is_some_and(|back| back.header.last_offset() + 1 != header.base_offset()) {
                entries.clear(); // A reader that crosses a gap must read the files.
            }
            entries.push_back(Entry { header, records });
        }
        let mut used = self.used_bytes.fetch_add(cost, Ordering::Relaxed) + cost;
        let mut order = lock(&self.order);
        order.push_back((Arc::downgrade(log), cost));
        while used > self.budget_bytes {
            let Some((oldest, cost)) = order.pop_front() else { break };
            used = self.used_bytes.fetch_sub(cost, Ordering::Relaxed) - cost;
            if let Some(log) = oldest.upgrade() {
                lock(&log.entries).pop_front();
            }
        }
    }
}

impl TailLog {
    /// Removes all entries; after a truncation.
    pub(crate) fn clear(&self) {
        // `order` still counts these bytes until their turn comes; newer entries of the log may be removed too early by
        // that much, which is harmless.
        lock(&self.entries).clear();
    }

    /// Whole batches from the one that holds `from` on, below `upper_bound`, at most `max_bytes` (but at least one
    /// batch if `min_one_batch`). `None` if `from` is older than the cached batches, or newer.
    pub(crate) fn read(
        &self,
        from: Offset,
        upper_bound: Offset,
        max_bytes: usize,
        min_one_batch: bool,
    ) -> Option<Vec<Bytes>> {
        let entries = lock(&self.entries);
        let (front, back) = (entries.front()?, entries.back()?);
        let is_newer = back.header.last_offset() < from && from < upper_bound;
        if front.header.base_offset() > from || is_newer {
            return None;
        }
        let start = entries.partition_point(|entry| entry.header.last_offset() < from);
        let mut parts = Vec::new();
        let mut together = BytesMut::new();
        let mut taken = 0;
        for entry in entries.range(start..).take_while(|entry| entry.header.last_offset() < upper_bound) {
            let first = taken == 0;
            taken += entry.size();
            if taken > max_bytes && !(first && min_one_batch) {
                break;
            }
            together.extend_from_slice(entry.header.bytes());
            if entry.records.len() < COPY_BELOW_BYTES {
                together.extend_from_slice(&entry.records);
            } else {
                parts.push(together.split().freeze());
                parts.push(entry.records.clone());
            }
        }
        if !together.is_empty() {
            parts.push(together.freeze());
        }
        Some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::record_batch::{BatchBuilder, BatchOptions};

    fn batch(base_offset: Offset, value_bytes: usize) -> (BatchHeader, Bytes) {
        let mut builder = BatchBuilder::new(BatchOptions { base_offset, ..Default::default() });
        builder.append(1, None, Some(&vec![7; value_bytes]), &[]);
        let bytes = builder.build();
        (BatchHeader::copy_of(&bytes).unwrap(), bytes.slice(HEADER_BYTES..))
    }

    fn push(cache: &TailCache, log: &Arc<TailLog>, base_offset: Offset, value_bytes: usize) -> Vec<u8> {
        let (header, records) = batch(base_offset, value_bytes);
        cache.push(log, header, records.clone(), 0);
        [&header.bytes()[..], &records].concat()
    }

    #[test]
    fn inv_l3_what_is_read_is_what_was_appended() {
        let cache = TailCache::new(1 << 20);
        let log = Arc::default();
        let batches: Vec<Vec<u8>> = (0..6).map(|i| push(&cache, &log, i, if i % 2 == 0 { 10 } else { 9000 })).collect();
        assert_eq!(log.read(2, 6, usize::MAX, false).unwrap().concat(), batches[2..].concat());
        assert_eq!(log.read(2, 4, usize::MAX, false).unwrap().concat(), batches[2..4].concat());
        assert_eq!(log.read(1, 6, batches[1].len(), false).unwrap().concat(), batches[1]);
        assert!(log.read(1, 6, 10, false).unwrap().is_empty());
        assert_eq!(log.read(1, 6, 10, true).unwrap().concat(), batches[1]);
        assert!(log.read(6, 6, 10, true).unwrap().is_empty());
    }

    #[test]
    fn entries_behind_a_missing_batch_replace_those_before_it() {
        let cache = TailCache::new(1 << 20);
        let log = Arc::default();
        push(&cache, &log, 0, 10);
        push(&cache, &log, 1, 10);
        let last = push(&cache, &log, 3, 10);
        assert!(log.read(1, 4, usize::MAX, true).is_none(), "the batch at offset 2 is in the file");
        assert_eq!(log.read(3, 4, usize::MAX, true).unwrap().concat(), last);
    }

    #[test]
    fn what_was_appended_without_the_cache_is_in_the_file() {
        let cache = TailCache::new(1 << 20);
        let log = Arc::default();
        push(&cache, &log, 0, 10);
        assert!(log.read(1, 2, usize::MAX, true).is_none(), "the batch at offset 1 is in the file");
        assert!(log.read(1, 1, usize::MAX, true).unwrap().is_empty());
    }

    #[test]
    fn inv_s2_a_small_batch_is_charged_the_large_frame_that_it_keeps_in_memory() {
        let cache = TailCache::new(10_000);
        let log = Arc::default();
        let (header, records) = batch(0, 10);
        cache.push(&log, header, records, 4000);
        assert!(cache.used_bytes() >= 4000);
        push(&cache, &log, 1, 3000);
        push(&cache, &log, 2, 3000);
        assert!(cache.used_bytes() <= 10_000);
        assert!(log.read(0, 3, usize::MAX, true).is_none(), "the frame had to go");
        let (header, records) = batch(3, 10);
        cache.push(&log, header, records, 1 << 30);
        assert!(cache.used_bytes() <= 10_000);
    }

    #[test]
    fn inv_s2_the_budget_holds_over_all_logs_and_the_oldest_go_first() {
        let cache = TailCache::new(10_000);
        let (a, b) = (Arc::default(), Arc::default());
        push(&cache, &a, 0, 3000);
        push(&cache, &b, 0, 3000);
        push(&cache, &b, 1, 3000);
        push(&cache, &b, 2, 3000);
        assert!(cache.used_bytes() <= 10_000);
        assert!(a.read(0, 1, usize::MAX, true).is_none());
        assert!(b.read(2, 3, usize::MAX, true).is_some_and(|parts| !parts.is_empty()));
        push(&cache, &b, 3, 9_000);
        assert!(b.read(2, 3, usize::MAX, true).is_none(), "nothing may be missing between what is held and the end");
    }
}
