//! What of a log can be cleaned, how urgent that is, and which segments become one (Apache: `LogCleanerManager` and
//! `Cleaner.groupSegmentsBySize`).

use std::{ops::Range, sync::Arc};

use crate::{
    config::topic::LogConfig,
    log::{LogError, Segment},
    types::{Offset, TimestampMs},
};

/// A copy of what a cleaner needs to know about a log, taken under its lock.
pub(crate) struct LogView {
    pub(crate) segments: Arc<Vec<Arc<Segment>>>,
    pub(crate) config: Arc<LogConfig>,
    pub(crate) log_start_offset: Offset,
    pub(crate) log_end_offset: Offset,
    /// Below it all records are committed, and so are the markers of their transactions.
    pub(crate) settled_offset: Offset,
    /// The high watermark. Everything below must be durable before the cleaning begins: a crash may not take the newer
    /// record, or the marker, for which an older record was removed.
    pub(crate) committed_offset: Offset,
}

/// The parts of a log for a cleaner, by index of `LogView::segments`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CleaningRange {
    /// From here on no key was compared with later ones.
    pub(super) first_dirty: Offset,
    /// Number of segments that may be cleaned.
    pub(super) cleanable: usize,
    /// Bytes of the segments that were cleaned before.
    pub(super) clean_bytes: u64,
    /// Bytes of the segments that are dirty and may be cleaned.
    pub(crate) dirty_bytes: u64,
    /// Whether a record has waited for `max.compaction.lag.ms`.
    pub(super) is_overdue: bool,
}

impl CleaningRange {
    /// Apache: `cleanableOffsets`, `LogToClean`. `cleaned_to` is the offset of the cleaner's checkpoint.
    ///
    /// # Errors
    /// A fault of the disk, or a damaged log.
    pub(crate) fn of(view: &LogView, cleaned_to: Option<Offset>, now_ms: TimestampMs) -> Result<Self, LogError> {
        let segments = &view.segments[..];
        let cleaned_to = cleaned_to.filter(|offset| (view.log_start_offset..=view.log_end_offset).contains(offset));
        let first_dirty = cleaned_to.unwrap_or(view.log_start_offset);
        // Only whole segments, and never the active one.
        let settled = segments.partition_point(|segment| segment.base_offset() <= view.settled_offset);
        let mut cleanable = settled.min(segments.len()).saturating_sub(1);
        let first_dirty_at =
            segments.partition_point(|segment| segment.base_offset() <= first_dirty).saturating_sub(1).min(cleanable);
        let lag_ms = view.config.min_compaction_lag_ms;
        if lag_ms > 0 {
            for (at, segment) in segments[..cleanable].iter().enumerate().skip(first_dirty_at) {
                if segment.largest_timestamp()? > now_ms.saturating_sub(lag_ms) {
                    cleanable = at;
                    break;
                }
            }
        }
        let first_dirty_at = first_dirty_at.min(cleanable);
        // The segment in which the last cleaning ended counts as both, as in Kafka.
        let clean_until = segments[..cleanable].partition_point(|segment| segment.base_offset() < first_dirty);
        let bytes = |range: Range<usize>| segments[range].iter().map(|segment| segment.size_bytes()).sum::<u64>();
        Ok(CleaningRange {
            first_dirty,
            cleanable,
            clean_bytes: bytes(0..clean_until),
            dirty_bytes: bytes(first_dirty_at..cleanable),
            is_overdue: is_overdue(view, first_dirty_at, now_ms)?,
        })
    }

    /// The part of the bytes that is dirty, from 0 to 1.
    pub(crate) fn dirty_ratio(&self) -> f64 {
        let total = self.clean_bytes + self.dirty_bytes;
        if total == 0 { 0.0 } else { self.dirty_bytes as f64 / total as f64 }
    }

    /// Whether the log should be cleaned now.
    pub(crate) fn is_due(&self, config: &LogConfig) -> bool {
        self.dirty_bytes > 0 && (self.is_overdue || self.dirty_ratio() > config.min_cleanable_dirty_ratio)
    }
}

/// `max.compaction.lag.ms`: whether a dirty record, which may lie in a segment that cannot be cleaned yet, has waited
/// for longer.
fn is_overdue(view: &LogView, first_dirty_at: usize, now_ms: TimestampMs) -> Result<bool, LogError> {
    let lag_ms = view.config.max_compaction_lag_ms;
    if lag_ms == i64::MAX {
        return Ok(false);
    }
    let until_ms = now_ms.saturating_sub(lag_ms.max(0));
    let inactive = view.segments.len() - 1;
    for segment in &view.segments[first_dirty_at.min(inactive)..inactive] {
        let first_ms = segment.first_timestamp()?;
        if first_ms > 0 && first_ms < until_ms {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The sizes by which segments are put together.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupFacts {
    pub(super) base_offset: Offset,
    /// Base offset of the segment after it.
    pub(super) next_offset: Offset,
    pub(super) log_bytes: u64,
    /// Bytes of the larger one of the two indexes.
    pub(super) index_bytes: u64,
}

/// Puts neighbours together that will fit into one segment, even if nothing of them goes.
pub(super) fn group(segments: &[GroupFacts], most_bytes: u64, most_index_bytes: u64) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let (mut log_bytes, mut index_bytes) = (0, 0);
    for (at, segment) in segments.iter().enumerate() {
        let fits = groups.last().is_some_and(|group| {
            log_bytes + segment.log_bytes <= most_bytes
                && index_bytes + segment.index_bytes <= most_index_bytes
                && segment.next_offset - 1 - segments[group.start].base_offset <= Offset::from(i32::MAX)
        });
        match groups.last_mut().filter(|_| fits) {
            Some(group) => {
                group.end = at + 1;
                log_bytes += segment.log_bytes;
                index_bytes += segment.index_bytes;
            }
            None => {
                groups.push(at..at + 1);
                (log_bytes, index_bytes) = (segment.log_bytes, segment.index_bytes);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_segment_while_bytes_and_offsets_fit() {
        let far = Offset::from(i32::MAX);
        let facts = |base_offset, next_offset, log_bytes, index_bytes| GroupFacts {
            base_offset,
            next_offset,
            log_bytes,
            index_bytes,
        };
        let small = [facts(0, 10, 40, 8), facts(10, 20, 40, 8), facts(20, 30, 40, 8), facts(30, 40, 130, 8)];
        assert_eq!(group(&small, 100, 100), [0..2, 2..3, 3..4], "a large one stays alone");
        assert_eq!(group(&small, 1_000, 16), [0..2, 2..4], "the index is full");
        let wide = [facts(0, far, 1, 1), facts(far, far + 1, 1, 1), facts(far + 1, far + 2, 1, 1)];
        assert_eq!(group(&wide, 100, 100), [0..2, 2..3], "offsets in a segment have 31 bits");
        assert_eq!(group(&[], 100, 100), []);
    }
}
