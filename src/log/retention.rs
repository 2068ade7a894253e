//! Decides which segments to delete, by their sizes, ages and offsets. Pure.

use crate::types::{Offset, TimestampMs};

/// The facts about a segment that the decision needs.
#[derive(Clone, Copy, Debug)]
pub struct SegmentFacts {
    /// First offset it may hold.
    pub base_offset: Offset,
    /// First offset of the next segment; the log's end for the last.
    pub next_offset: Offset,
    /// Size of the `.log` file.
    pub size_bytes: u64,
    /// `LogSegment.largestTimestamp`.
    pub largest_timestamp_ms: TimestampMs,
}

/// The topic's retention settings.
#[derive(Clone, Copy, Debug)]
pub struct RetentionRules {
    /// Whether `cleanup.policy` contains `delete`; otherwise only the log start offset counts.
    pub delete: bool,
    /// `retention.ms`; negative for no limit.
    pub retention_ms: i64,
    /// `retention.bytes`; negative for no limit.
    pub retention_bytes: i64,
}

/// Why a segment is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// All of it is older than `retention.ms`.
    Time,
    /// The log is larger than `retention.bytes` without it.
    Size,
    /// All of it lies below the log start offset.
    StartOffset,
}

/// Decides from the oldest segment on, and stops at the first one to keep, so that no gaps arise.
pub struct Retention {
    rules: RetentionRules,
    now_ms: TimestampMs,
    log_start_offset: Offset,
    /// Uncommitted records are never deleted.
    high_watermark: Offset,
    surplus_bytes: i64,
}

impl Retention {
    /// Starts the decision for a log of `total_bytes`.
    pub fn new(
        rules: RetentionRules,
        now_ms: TimestampMs,
        log_start_offset: Offset,
        high_watermark: Offset,
        total_bytes: u64,
    ) -> Self {
        let surplus_bytes =
            if rules.delete && rules.retention_bytes >= 0 { total_bytes as i64 - rules.retention_bytes } else { 0 };
        Retention { rules, now_ms, log_start_offset, high_watermark, surplus_bytes }
    }

    /// Why to delete the next segment, or `None` to keep it and all later ones. `UnifiedLog.deleteOldSegments`: an
    /// empty last segment is always kept.
    pub fn next(&mut self, segment: SegmentFacts, is_last: bool) -> Option<Reason> {
        if segment.next_offset > self.high_watermark || is_last && segment.size_bytes == 0 {
            return None;
        }
        let size = segment.size_bytes as i64;
        let reason = if self.rules.delete
            && self.rules.retention_ms >= 0
            && self.now_ms - segment.largest_timestamp_ms > self.rules.retention_ms
        {
            Reason::Time
        } else if self.surplus_bytes >= size && self.surplus_bytes > 0 {
            Reason::Size
        } else if !is_last && segment.next_offset <= self.log_start_offset {
            Reason::StartOffset
        } else {
            return None;
        };
        self.surplus_bytes -= size;
        Some(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: RetentionRules = RetentionRules { delete: true, retention_ms: -1, retention_bytes: -1 };

    fn segment(base: i64, size: u64, largest: i64) -> SegmentFacts {
        SegmentFacts { base_offset: base, next_offset: base + 10, size_bytes: size, largest_timestamp_ms: largest }
    }

    #[test]
    fn by_time_the_oldest_go_and_nothing_after_the_first_that_stays() {
        let mut retention = Retention::new(RetentionRules { retention_ms: 100, ..KEEP }, 1000, 0, 1000, 0);
        assert_eq!(retention.next(segment(0, 5, 899), false), Some(Reason::Time));
        assert_eq!(retention.next(segment(10, 5, 900), false), None);
    }

    #[test]
    fn by_size_only_what_the_log_can_spare_whole() {
        let mut retention = Retention::new(RetentionRules { retention_bytes: 100, ..KEEP }, 1000, 0, 1000, 225);
        assert_eq!(retention.next(segment(0, 75, 0), false), Some(Reason::Size));
        assert_eq!(retention.next(segment(10, 75, 0), false), None);
        let mut retention =
            Retention::new(RetentionRules { retention_bytes: 0, delete: false, ..KEEP }, 1000, 0, 1000, 225);
        assert_eq!(retention.next(segment(0, 75, 0), false), None);
    }

    #[test]
    fn by_start_offset_even_where_nothing_else_is_deleted() {
        let rules = RetentionRules { delete: false, ..KEEP };
        assert_eq!(Retention::new(rules, 0, 10, 1000, 50).next(segment(0, 5, 0), false), Some(Reason::StartOffset));
        assert_eq!(Retention::new(rules, 0, 9, 1000, 50).next(segment(0, 5, 0), false), None);
        assert_eq!(Retention::new(rules, 0, 10, 1000, 50).next(segment(0, 5, 0), true), None);
    }

    #[test]
    fn inv_l2_nothing_above_the_high_watermark_goes_nor_an_empty_last_segment() {
        let rules = RetentionRules { retention_ms: 0, ..KEEP };
        assert_eq!(Retention::new(rules, 1000, 0, 9, 50).next(segment(0, 5, 0), false), None);
        assert_eq!(Retention::new(rules, 1000, 0, 10, 50).next(segment(0, 5, 0), true), Some(Reason::Time));
        assert_eq!(Retention::new(rules, 1000, 0, 10, 50).next(segment(0, 0, 0), true), None);
    }
}
