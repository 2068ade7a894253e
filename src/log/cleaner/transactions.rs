//! Which batches belong to aborted transactions, and which markers are still needed, while a cleaner reads a log in
//! order (Apache: `CleanedTransactionMetadata`). Pure.
//!
//! The records of an aborted transaction go at once. A marker stays for as long as a batch of its transaction is in the
//! log, since a reader needs it to end the transaction; then it gets a delete horizon like a tombstone.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    log::AbortedTransaction,
    protocol::record_batch::BatchHeader,
    types::{Offset, ProducerId},
};

/// See the module.
#[derive(Default)]
pub(super) struct Transactions {
    /// Aborted transactions that begin after the batch that was read last.
    ahead: BTreeMap<(Offset, ProducerId), AbortedTransaction>,
    /// Aborted transactions that have begun, and whether a batch of them was met.
    aborted: BTreeMap<ProducerId, (AbortedTransaction, bool)>,
    /// Producers of which a batch was met since their last marker.
    committed: BTreeSet<ProducerId>,
}

/// What becomes of a control batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// It is needed, or no marker of a transaction.
    Stays,
    /// It is needed, and this is its entry in the transaction index.
    StaysWithIndex(AbortedTransaction),
    /// Nothing of its transaction is left.
    MayGo,
}

impl Transactions {
    /// Adds aborted transactions of the range that is read next; those that are known already do no harm.
    pub(super) fn add_aborted(&mut self, transactions: impl IntoIterator<Item = AbortedTransaction>) {
        self.ahead.extend(transactions.into_iter().map(|entry| ((entry.first_offset, entry.producer_id), entry)));
    }

    fn begin_up_to(&mut self, offset: Offset) {
        while let Some(first) = self.ahead.first_entry().filter(|first| first.key().0 <= offset) {
            let transaction = first.remove();
            self.aborted.entry(transaction.producer_id).or_insert((transaction, false));
        }
    }

    /// Whether the records of a data batch are aborted.
    pub(super) fn is_aborted(&mut self, batch: &BatchHeader) -> bool {
        self.begin_up_to(batch.last_offset());
        if !batch.is_transactional() {
            return false;
        }
        match self.aborted.get_mut(&batch.producer_id()) {
            Some((_, is_met)) => {
                *is_met = true;
                true
            }
            None => {
                self.committed.insert(batch.producer_id());
                false
            }
        }
    }

    /// Reads a control batch; `is_commit` is None if it is no marker of a transaction.
    pub(super) fn marker(&mut self, batch: &BatchHeader, is_commit: Option<bool>) -> Marker {
        self.begin_up_to(batch.last_offset());
        if batch.record_count() == 0 {
            // Only the sequence of its producer is left of it.
            return Marker::MayGo;
        }
        match is_commit {
            None => Marker::Stays,
            Some(true) if self.committed.remove(&batch.producer_id()) => Marker::Stays,
            Some(true) => Marker::MayGo,
            Some(false) => match self.aborted.remove(&batch.producer_id()) {
                Some((transaction, true)) => Marker::StaysWithIndex(transaction),
                _ => Marker::MayGo,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::record_batch::{BatchBuilder, BatchOptions};

    fn batch(offset: Offset, producer_id: ProducerId, transactional: bool) -> BatchHeader {
        let options = BatchOptions { base_offset: offset, producer_id, transactional, ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        builder.append(0, None, None, &[]);
        BatchHeader::copy_of(&builder.build()).unwrap()
    }

    fn aborted(producer_id: ProducerId, first_offset: Offset, last_offset: Offset) -> AbortedTransaction {
        AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset: last_offset + 1 }
    }

    #[test]
    fn records_of_aborted_transactions_go_and_markers_stay_while_anything_of_theirs_is_left() {
        let mut read = Transactions::default();
        let (first, second) = (aborted(1, 2, 6), aborted(1, 8, 9));
        read.add_aborted([first, second]);
        assert!(!read.is_aborted(&batch(0, 1, true)), "an earlier, committed transaction of the producer");
        assert_eq!(read.marker(&batch(1, 1, true), Some(true)), Marker::Stays);
        assert!(read.is_aborted(&batch(2, 1, true)));
        assert!(!read.is_aborted(&batch(3, 2, true)), "another producer");
        assert!(!read.is_aborted(&batch(4, 1, false)), "not in a transaction");
        read.add_aborted([first]);
        assert!(read.is_aborted(&batch(5, 1, true)));
        assert_eq!(read.marker(&batch(6, 1, true), Some(false)), Marker::StaysWithIndex(first));
        assert_eq!(read.marker(&batch(7, 2, true), Some(true)), Marker::Stays);
        // The batches of the second one are gone.
        assert_eq!(read.marker(&batch(9, 1, true), Some(false)), Marker::MayGo);
        assert_eq!(read.marker(&batch(10, 3, true), Some(true)), Marker::MayGo);
        assert_eq!(read.marker(&batch(11, 3, true), None), Marker::Stays, "no marker of a transaction");
        assert!(!read.is_aborted(&batch(12, 1, true)));
    }
}
