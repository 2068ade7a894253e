//! Owns the map from leader epoch to the first offset written in it (`LeaderEpochFileCache`), which truncation and
//! OffsetForLeaderEpoch use (KIP-101, KIP-279), and the text of its checkpoint. Pure; leaves the file to `log.rs`.

use crate::types::{LeaderEpoch, Offset};

/// No epoch, on the wire.
const UNDEFINED_EPOCH: LeaderEpoch = -1;

/// Epochs and start offsets, both in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl LeaderEpochs {
    /// All (epoch, start offset), ascending.
    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    /// The newest epoch.
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// Adds `epoch`, which starts at `start_offset`. Returns whether anything changed. Removes entries that contradict
    /// the new one (later epoch or later start).
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        if epoch < 0
            || self.latest().is_some_and(|latest| latest >= epoch)
                && self.entries.last().is_some_and(|last| last.1 <= start_offset)
        {
            return false;
        }
        self.entries.retain(|(old, start)| *old < epoch && *start < start_offset);
        self.entries.push((epoch, start_offset));
        true
    }

    /// L4: the largest epoch ≤ `epoch` and its end offset; `None` if nothing is known.
    pub fn end_offset_for(&self, epoch: LeaderEpoch, log_end_offset: Offset) -> Option<(LeaderEpoch, Offset)> {
        if epoch == UNDEFINED_EPOCH {
            return None;
        }
        if self.latest() == Some(epoch) {
            return Some((epoch, log_end_offset));
        }
        let above = self.entries.partition_point(|(known, _)| *known <= epoch);
        // Newer than all known epochs: undefined (`UNDEFINED_EPOCH_OFFSET`).
        let (_, end) = self.entries.get(above)?;
        Some(match above.checked_sub(1) {
            // Older than all known epochs: it ended where the first known epoch starts.
            None => (epoch, *end),
            Some(floor) => (self.entries[floor].0, *end),
        })
    }

    /// The epoch of the record at `offset`.
    pub fn epoch_for_offset(&self, offset: Offset) -> Option<LeaderEpoch> {
        let above = self.entries.partition_point(|(_, start)| *start <= offset);
        above.checked_sub(1).map(|at| self.entries[at].0)
    }

    /// Removes epochs that start at or above `end_offset`. Returns whether anything changed.
    pub fn truncate_from_end(&mut self, end_offset: Offset) -> bool {
        let before = self.entries.len();
        self.entries.retain(|(_, start)| *start < end_offset);
        before != self.entries.len()
    }

    /// Removes epochs that ended before `start_offset`; the epoch of `start_offset` now starts there.
    pub fn truncate_from_start(&mut self, start_offset: Offset) -> bool {
        let above = self.entries.partition_point(|(_, start)| *start <= start_offset);
        let Some(spanning) = above.checked_sub(1) else { return false };
        if spanning == 0 && self.entries[0].1 == start_offset {
            return false;
        }
        self.entries.drain(..spanning);
        self.entries[0].1 = start_offset;
        true
    }

    /// Removes all epochs.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The text of `leader-epoch-checkpoint`.
    pub fn to_text(&self) -> String {
        use std::fmt::Write;
        let mut text = format!("0\n{}\n", self.entries.len());
        for (epoch, start) in &self.entries {
            let _ = writeln!(text, "{epoch} {start}"); // Writing to a String cannot fail.
        }
        text
    }

    /// Parses the text of `leader-epoch-checkpoint`; `None` if it is damaged.
    pub fn from_text(text: &str) -> Option<LeaderEpochs> {
        let mut lines = text.lines();
        if lines.next()?.trim() != "0" {
            return None;
        }
        let count: usize = lines.next()?.trim().parse().ok()?;
        let mut epochs = LeaderEpochs::default();
        for line in lines.by_ref().take(count) {
            let (epoch, start) = line.trim().split_once(' ')?;
            epochs.entries.push((epoch.parse().ok()?, start.parse().ok()?));
        }
        let ascending = epochs.entries.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        (epochs.entries.len() == count && lines.next().is_none() && ascending).then_some(epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
        LeaderEpochs { entries: entries.to_vec() }
    }

    #[test]
    fn l4_end_offsets_are_starts_of_the_next_epoch() {
        let known = epochs(&[(2, 10), (4, 20), (7, 35)]);
        assert_eq!(known.end_offset_for(7, 50), Some((7, 50)));
        assert_eq!(known.end_offset_for(4, 50), Some((4, 35)));
        assert_eq!(known.end_offset_for(5, 50), Some((4, 35)));
        assert_eq!(known.end_offset_for(1, 50), Some((1, 10)));
        assert_eq!(known.end_offset_for(8, 50), None);
        assert_eq!(known.end_offset_for(-1, 50), None);
        assert_eq!(LeaderEpochs::default().end_offset_for(0, 0), None);
        assert_eq!(known.epoch_for_offset(34), Some(4));
        assert_eq!(known.epoch_for_offset(9), None);
    }

    #[test]
    fn assigning_replaces_what_it_contradicts() {
        let mut known = epochs(&[(2, 10), (4, 20)]);
        assert!(!known.assign(4, 25));
        assert!(!known.assign(3, 25));
        assert!(known.assign(5, 15));
        assert_eq!(known, epochs(&[(2, 10), (5, 15)]));
        assert!(known.assign(6, 15));
        assert_eq!(known, epochs(&[(2, 10), (6, 15)]));
    }

    #[test]
    fn truncation_at_both_ends() {
        let mut known = epochs(&[(2, 10), (4, 20), (7, 35)]);
        assert!(known.truncate_from_end(35));
        assert!(!known.truncate_from_end(35));
        assert!(known.truncate_from_start(22));
        assert_eq!(known, epochs(&[(4, 22)]));
        assert!(!known.truncate_from_start(22));
        assert!(!known.truncate_from_start(5));
    }

    #[test]
    fn inv_l5_the_checkpoint_is_kafkas_text_and_damage_is_noticed() {
        let known = epochs(&[(0, 0), (3, 17)]);
        assert_eq!(known.to_text(), "0\n2\n0 0\n3 17\n");
        assert_eq!(LeaderEpochs::from_text(&known.to_text()), Some(known));
        for damaged in ["", "1\n0\n", "0\n2\n0 0\n", "0\n1\n0 x\n", "0\n2\n3 0\n2 5\n", "0\n0\n1 1\n"] {
            assert_eq!(LeaderEpochs::from_text(damaged), None, "{damaged:?}");
        }
    }
}
