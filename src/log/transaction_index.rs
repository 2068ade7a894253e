//! `.txnindex`: the aborted transactions of a segment, by the offset of their marker.
//!
//! Pure: owns the encoding, and which entries a fetch needs. Leaves the file to `segment.rs`.

use crate::types::{Offset, ProducerId};

/// Bytes per entry.
pub(crate) const ENTRY_BYTES: usize = 34;

/// An aborted transaction, as `AbortedTxn` of Apache Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// The producer.
    pub producer_id: ProducerId,
    /// Offset of its first record in this partition.
    pub first_offset: Offset,
    /// Offset of its marker.
    pub last_offset: Offset,
    /// The last stable offset after the abort.
    pub last_stable_offset: Offset,
}

impl AbortedTransaction {
    pub(crate) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[2..10].copy_from_slice(&self.producer_id.to_be_bytes());
        bytes[10..18].copy_from_slice(&self.first_offset.to_be_bytes());
        bytes[18..26].copy_from_slice(&self.last_offset.to_be_bytes());
        bytes[26..34].copy_from_slice(&self.last_stable_offset.to_be_bytes());
        bytes
    }

    /// `None` for an unknown version.
    pub(crate) fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let field = |at: usize| bytes[at..at + 8].iter().fold(0i64, |value, byte| value << 8 | i64::from(*byte));
        (bytes[..2] == [0, 0]).then(|| AbortedTransaction {
            producer_id: field(2),
            first_offset: field(10),
            last_offset: field(18),
            last_stable_offset: field(26),
        })
    }

    /// Whether a reader of `from..to` needs this transaction.
    pub(crate) fn concerns(&self, from: Offset, to: Offset) -> bool {
        self.last_offset >= from && self.first_offset < to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_kafkas() {
        let entry = AbortedTransaction { producer_id: 1, first_offset: 2, last_offset: 3, last_stable_offset: 4 };
        let bytes = entry.encode();
        assert_eq!(bytes[..10], [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(AbortedTransaction::decode(&bytes), Some(entry));
        assert!(entry.concerns(3, 4) && entry.concerns(0, 3));
        assert!(!entry.concerns(4, 9) && !entry.concerns(0, 2));
    }
}
