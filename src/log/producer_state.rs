//! Owns a partition's state of its idempotent and transactional producers (I1–I5, X6, X7), as `ProducerStateManager`
//! and `ProducerAppendInfo`, and the format of its snapshots.
//!
//! Pure: `check` changes nothing, `apply` cannot fail, and the same `apply` runs at the append, at recovery and on
//! replicas. Leaves snapshot files to `log.rs`.

use std::collections::BTreeMap;

use super::AppendError;
use crate::{
    protocol::record_batch::{BatchHeader, crc32c, decrement_sequence},
    types::{Offset, ProducerEpoch, ProducerId, TimestampMs, TopicPartition},
};

/// I1: batches remembered per producer; an idempotent producer may have no more in flight.
pub const BATCHES_RETAINED: usize = 5;
const NO_EPOCH: ProducerEpoch = -1;

/// The source of an append (`AppendOrigin`): sequences are checked only for clients, nothing is checked for replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A produce request.
    Client,
    /// A coordinator of this broker (records and transaction markers).
    Coordinator,
    /// The metadata quorum's leader.
    RaftLeader,
    /// Another replica.
    Replication,
}

/// A batch that was appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchMetadata {
    /// Last sequence number.
    pub last_sequence: i32,
    /// Last offset.
    pub last_offset: Offset,
    /// Last offset minus first offset.
    pub offset_delta: i32,
    /// Largest timestamp.
    pub timestamp_ms: TimestampMs,
}

impl BatchMetadata {
    /// First sequence number.
    pub fn first_sequence(&self) -> i32 {
        decrement_sequence(self.last_sequence, self.offset_delta)
    }

    /// First offset.
    pub fn first_offset(&self) -> Offset {
        self.last_offset - Offset::from(self.offset_delta)
    }
}

/// The last batches, oldest first, without an allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RecentBatches {
    batches: [BatchMetadata; BATCHES_RETAINED],
    len: u8,
}

impl RecentBatches {
    fn as_slice(&self) -> &[BatchMetadata] {
        &self.batches[..usize::from(self.len)]
    }

    fn push(&mut self, batch: BatchMetadata) {
        if usize::from(self.len) == BATCHES_RETAINED {
            self.batches.copy_within(1.., 0);
            self.len -= 1;
        }
        self.batches[usize::from(self.len)] = batch;
        self.len += 1;
    }
}

/// One producer (`ProducerStateEntry`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    /// Newest epoch seen.
    pub epoch: ProducerEpoch,
    /// Coordinator epoch of the last marker; -1 before the first one.
    pub coordinator_epoch: i32,
    /// Timestamp of the last batch or marker.
    pub last_timestamp_ms: TimestampMs,
    /// First offset of its open transaction in this partition.
    pub current_txn_first_offset: Option<Offset>,
    /// Offset of its last batch or marker; after a restart, of its last batch.
    last_offset: Offset,
    recent: RecentBatches,
}

impl ProducerEntry {
    fn new() -> Self {
        ProducerEntry {
            epoch: NO_EPOCH,
            coordinator_epoch: -1,
            last_timestamp_ms: -1,
            current_txn_first_offset: None,
            last_offset: -1,
            recent: RecentBatches::default(),
        }
    }

    /// Batches of the current epoch, oldest first.
    pub fn recent_batches(&self) -> &[BatchMetadata] {
        self.recent.as_slice()
    }

    /// Last sequence number; -1 if there is none.
    pub fn last_sequence(&self) -> i32 {
        self.recent_batches().last().map_or(-1, |batch| batch.last_sequence)
    }

    fn enter_epoch(&mut self, epoch: ProducerEpoch) {
        if self.epoch != epoch {
            self.recent = RecentBatches::default();
            self.epoch = epoch;
        }
    }

    fn duplicate_of(&self, batch: &BatchHeader) -> Option<BatchMetadata> {
        if batch.producer_epoch() != self.epoch {
            return None;
        }
        let (first, last) = (batch.base_sequence(), batch.last_sequence());
        self.recent_batches()
            .iter()
            .find(|known| known.first_sequence() == first && known.last_sequence == last)
            .copied()
    }
}

/// The end of a transaction, from a control batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTxnMarker {
    /// Whether it is a commit; else it is an abort.
    pub commit: bool,
    /// Epoch of the transaction coordinator.
    pub coordinator_epoch: i32,
}

impl EndTxnMarker {
    /// Parses a control record's key and value (X6); `None` for other control records.
    pub fn parse(key: &[u8], value: &[u8]) -> Option<Self> {
        let commit = match key {
            [_, _, 0, 0, ..] => false,
            [_, _, 0, 1, ..] => true,
            _ => return None,
        };
        let [_, _, a, b, c, d, ..] = *value else { return None };
        Some(EndTxnMarker { commit, coordinator_epoch: i32::from_be_bytes([a, b, c, d]) })
    }
}

/// A transaction that ended with a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedTxn {
    /// The producer.
    pub producer_id: ProducerId,
    /// Offset of its first record in this partition.
    pub first_offset: Offset,
    /// Offset of its marker.
    pub last_offset: Offset,
    /// Whether it was aborted; else it was committed.
    pub aborted: bool,
    /// The last stable offset once the marker is committed.
    pub last_stable_offset: Offset,
}

/// Whether a batch may be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendCheck {
    /// It may be appended.
    New,
    /// I2: it was appended before; respond with the original's offsets.
    Duplicate(BatchMetadata),
}

/// All producers of a partition.
#[derive(Debug, Default)]
pub struct ProducerState {
    producers: BTreeMap<ProducerId, ProducerEntry>,
    /// Open transactions: first offset → producer.
    ongoing: BTreeMap<Offset, ProducerId>,
    /// Ended transactions: first offset → marker's offset, until the marker is committed.
    unreplicated: BTreeMap<Offset, Offset>,
    /// All batches below this offset are applied.
    end_offset: Offset,
}

impl ProducerState {
    /// An empty state that continues at `end_offset`.
    pub fn new(end_offset: Offset) -> Self {
        ProducerState { end_offset, ..Default::default() }
    }

    /// All batches below this offset are applied.
    pub fn end_offset(&self) -> Offset {
        self.end_offset
    }

    /// All producers, by id.
    pub fn producers(&self) -> &BTreeMap<ProducerId, ProducerEntry> {
        &self.producers
    }

    /// The last offset of each producer's last batch, if its epoch has one, and its epoch. A cleaner keeps that batch,
    /// since a start reads the sequence from it.
    pub(crate) fn last_batches(&self) -> BTreeMap<ProducerId, (Option<Offset>, ProducerEpoch)> {
        let last = |entry: &ProducerEntry| entry.recent_batches().last().map(|batch| batch.last_offset);
        self.producers.iter().map(|(producer_id, entry)| (*producer_id, (last(entry), entry.epoch))).collect()
    }

    /// Whether no producer is known.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty() && self.unreplicated.is_empty()
    }

    /// Checks a batch before it is written.
    ///
    /// # Errors
    /// The batch violates I3, I4, X6 or X7.
    pub(crate) fn check(
        &self,
        partition: &TopicPartition,
        batch: &BatchHeader,
        marker: Option<EndTxnMarker>,
        origin: AppendOrigin,
    ) -> Result<AppendCheck, AppendError> {
        if !batch.has_producer_id() || origin == AppendOrigin::Replication {
            return Ok(AppendCheck::New);
        }
        let producer_id = batch.producer_id();
        let Some(entry) = self.producers.get(&producer_id) else { return Ok(AppendCheck::New) };
        if origin == AppendOrigin::Client
            && let Some(original) = entry.duplicate_of(batch)
        {
            return Ok(AppendCheck::Duplicate(original));
        }
        let epoch = batch.producer_epoch();
        if epoch < entry.epoch {
            return Err(AppendError::InvalidProducerEpoch {
                producer_id,
                partition: partition.clone(),
                epoch,
                current: entry.epoch,
            });
        }
        match marker {
            Some(marker) => check_coordinator(partition, producer_id, entry, marker)?,
            None if batch.is_control() => {}
            None => {
                if origin == AppendOrigin::Client {
                    check_sequence(partition, batch, entry)?;
                }
                if entry.current_txn_first_offset.is_some() && !batch.is_transactional() {
                    return Err(AppendError::InvalidTxnState { producer_id, partition: partition.clone() });
                }
            }
        }
        Ok(AppendCheck::New)
    }

    /// Applies a batch of the log, with its final offsets. Returns the transaction that it ends.
    pub(crate) fn apply(&mut self, batch: &BatchHeader, marker: Option<EndTxnMarker>) -> Option<CompletedTxn> {
        self.end_offset = batch.last_offset() + 1;
        if !batch.has_producer_id() {
            return None;
        }
        if batch.is_control() {
            return marker.and_then(|marker| self.apply_marker(batch, marker));
        }
        let entry = self.producers.entry(batch.producer_id()).or_insert_with(ProducerEntry::new);
        entry.enter_epoch(batch.producer_epoch());
        entry.recent.push(BatchMetadata {
            last_sequence: batch.last_sequence(),
            last_offset: batch.last_offset(),
            offset_delta: batch.last_offset_delta(),
            timestamp_ms: batch.max_timestamp(),
        });
        entry.last_timestamp_ms = batch.max_timestamp();
        entry.last_offset = batch.last_offset();
        if batch.is_transactional() && entry.current_txn_first_offset.is_none() {
            entry.current_txn_first_offset = Some(batch.base_offset());
            self.ongoing.insert(batch.base_offset(), batch.producer_id());
        }
        None
    }

    fn apply_marker(&mut self, batch: &BatchHeader, marker: EndTxnMarker) -> Option<CompletedTxn> {
        let producer_id = batch.producer_id();
        let entry = self.producers.entry(producer_id).or_insert_with(ProducerEntry::new);
        entry.enter_epoch(batch.producer_epoch());
        entry.coordinator_epoch = marker.coordinator_epoch;
        entry.last_timestamp_ms = batch.max_timestamp();
        entry.last_offset = batch.last_offset();
        let first_offset = entry.current_txn_first_offset.take()?;
        let last_offset = batch.base_offset();
        self.ongoing.remove(&first_offset);
        self.unreplicated.insert(first_offset, last_offset);
        let last_stable_offset = self.ongoing.keys().next().copied().unwrap_or(last_offset + 1);
        Some(CompletedTxn { producer_id, first_offset, last_offset, aborted: !marker.commit, last_stable_offset })
    }

    /// First offset of the oldest transaction that is open, or whose marker is not yet committed.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        let ongoing = self.ongoing.keys().next();
        let unreplicated = self.unreplicated.keys().next();
        ongoing.into_iter().chain(unreplicated).min().copied()
    }

    /// Markers below `high_watermark` are committed.
    pub fn on_high_watermark(&mut self, high_watermark: Offset) {
        if !self.unreplicated.is_empty() {
            self.unreplicated.retain(|_, marker| *marker >= high_watermark);
        }
    }

    /// I4: producers stay known when their records are deleted; only the offsets move.
    pub fn on_log_start_offset(&mut self, log_start_offset: Offset) {
        self.on_high_watermark(log_start_offset);
        self.end_offset = self.end_offset.max(log_start_offset);
    }

    /// I5: removes producers that have not written for `expiration_ms` and have no open transaction.
    pub fn remove_expired(&mut self, now_ms: TimestampMs, expiration_ms: i64) {
        self.producers.retain(|_, entry| !is_expired(entry, now_ms, expiration_ms));
    }

    /// Bounds the map even if clients invent producer ids: of more than `most` producers without an open transaction,
    /// removes those that have not written for longest. The effect is that of expiry: the producer's next batch may
    /// have any sequence number (I4).
    pub(crate) fn keep_at_most(&mut self, most: usize) {
        let idle_count = self.producers.len() - self.ongoing.len();
        if idle_count <= most {
            return;
        }
        let is_idle = |entry: &ProducerEntry| entry.current_txn_first_offset.is_none();
        let mut idle: Vec<(Offset, ProducerId)> = self
            .producers
            .iter()
            .filter(|(_, entry)| is_idle(entry))
            .map(|(id, entry)| (entry.last_offset, *id))
            .collect();
        // Remove a tenth more than necessary, so that not every new id costs a search.
        let surplus = idle_count - most + most / 10;
        if surplus < idle.len() {
            idle.select_nth_unstable(surplus);
        }
        for (_, producer_id) in idle.iter().take(surplus) {
            self.producers.remove(producer_id);
        }
    }

    /// A snapshot's bytes (`ProducerSnapshot` version 1): an entry for each remembered batch of each producer, the last
    /// one with the producer's state. Kafka writes the last batch only, and reads the last entry of each producer. So
    /// after a restart it takes the batches before for out of order, and producers that repeat several in flight write
    /// them twice under a new id.
    pub fn snapshot(&self) -> Vec<u8> {
        let count: usize = self.producers.values().map(|entry| entry.recent_batches().len().max(1)).sum();
        let mut bytes = Vec::with_capacity(SNAPSHOT_HEADER_BYTES + 4 + count * SNAPSHOT_ENTRY_BYTES);
        bytes.extend_from_slice(&1i16.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(count as i32).to_be_bytes());
        let mut put =
            |producer_id: &ProducerId, epoch: ProducerEpoch, batch: BatchMetadata, coordinator_epoch: i32, txn| {
                bytes.extend_from_slice(&producer_id.to_be_bytes());
                bytes.extend_from_slice(&epoch.to_be_bytes());
                bytes.extend_from_slice(&batch.last_sequence.to_be_bytes());
                bytes.extend_from_slice(&batch.last_offset.to_be_bytes());
                bytes.extend_from_slice(&batch.offset_delta.to_be_bytes());
                bytes.extend_from_slice(&batch.timestamp_ms.to_be_bytes());
                bytes.extend_from_slice(&coordinator_epoch.to_be_bytes());
                bytes.extend_from_slice(&Option::<Offset>::unwrap_or(txn, -1).to_be_bytes());
            };
        for (producer_id, entry) in &self.producers {
            let none = BatchMetadata { last_sequence: -1, last_offset: -1, ..BatchMetadata::default() };
            let (last, before) = entry.recent_batches().split_last().unwrap_or((&none, &[]));
            for batch in before {
                put(producer_id, entry.epoch, *batch, entry.coordinator_epoch, None);
            }
            let last = BatchMetadata { timestamp_ms: entry.last_timestamp_ms, ..*last };
            put(producer_id, entry.epoch, last, entry.coordinator_epoch, entry.current_txn_first_offset);
        }
        let crc = crc32c(&bytes[SNAPSHOT_HEADER_BYTES..]);
        bytes[2..6].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads the state at `offset` from that offset's snapshot; `None` if it is damaged.
    pub fn from_snapshot(bytes: &[u8], offset: Offset, now_ms: TimestampMs, expiration_ms: i64) -> Option<Self> {
        let mut state = ProducerState::new(offset);
        let (header, body) = bytes.split_at_checked(SNAPSHOT_HEADER_BYTES)?;
        let crc = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
        if header[..2] != 1i16.to_be_bytes() || crc != crc32c(body) {
            return None;
        }
        let (count, entries) = body.split_at_checked(4)?;
        let count = i32::from_be_bytes([count[0], count[1], count[2], count[3]]);
        if entries.len() != usize::try_from(count).ok()? * SNAPSHOT_ENTRY_BYTES {
            return None;
        }
        for bytes in entries.chunks_exact(SNAPSHOT_ENTRY_BYTES) {
            let (producer_id, mut entry) = decode_entry(bytes)?;
            if let Some(before) = state.producers.get(&producer_id).filter(|before| before.epoch == entry.epoch) {
                let batches = std::mem::replace(&mut entry.recent, before.recent);
                batches.as_slice().iter().for_each(|batch| entry.recent.push(*batch));
            }
            state.producers.insert(producer_id, entry);
        }
        state.producers.retain(|_, entry| !is_expired(entry, now_ms, expiration_ms));
        let open = |(id, entry): (&ProducerId, &ProducerEntry)| Some((entry.current_txn_first_offset?, *id));
        state.ongoing = state.producers.iter().filter_map(open).collect();
        Some(state)
    }
}

const SNAPSHOT_HEADER_BYTES: usize = 6;
const SNAPSHOT_ENTRY_BYTES: usize = 46;

fn decode_entry(bytes: &[u8]) -> Option<(ProducerId, ProducerEntry)> {
    let i64_at = |at: usize| Some(i64::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let i32_at = |at: usize| Some(i32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let mut entry = ProducerEntry::new();
    entry.epoch = i16::from_be_bytes(*bytes.get(8..)?.first_chunk()?);
    entry.last_timestamp_ms = i64_at(26)?;
    entry.coordinator_epoch = i32_at(34)?;
    entry.current_txn_first_offset = Some(i64_at(38)?).filter(|offset| *offset >= 0);
    let last_offset = i64_at(14)?;
    entry.last_offset = last_offset;
    if last_offset >= 0 {
        let (last_sequence, offset_delta) = (i32_at(10)?, i32_at(22)?);
        entry.recent.push(BatchMetadata {
            last_sequence,
            last_offset,
            offset_delta,
            timestamp_ms: entry.last_timestamp_ms,
        });
    }
    Some((i64_at(0)?, entry))
}

fn is_expired(entry: &ProducerEntry, now_ms: TimestampMs, expiration_ms: i64) -> bool {
    entry.current_txn_first_offset.is_none() && now_ms - entry.last_timestamp_ms >= expiration_ms
}

fn check_sequence(partition: &TopicPartition, batch: &BatchHeader, entry: &ProducerEntry) -> Result<(), AppendError> {
    let sequence = batch.base_sequence();
    let last_sequence = entry.last_sequence();
    let in_order = if batch.producer_epoch() != entry.epoch {
        sequence == 0 || entry.epoch == NO_EPOCH
    } else {
        // After a marker no batch of this epoch is known: the last sequence is -1, and the next is 0.
        i64::from(sequence) == i64::from(last_sequence) + 1 || sequence == 0 && last_sequence == i32::MAX
    };
    if in_order {
        return Ok(());
    }
    Err(AppendError::OutOfOrderSequence {
        producer_id: batch.producer_id(),
        partition: partition.clone(),
        sequence,
        last_sequence,
    })
}

fn check_coordinator(
    partition: &TopicPartition,
    producer_id: ProducerId,
    entry: &ProducerEntry,
    marker: EndTxnMarker,
) -> Result<(), AppendError> {
    if entry.coordinator_epoch <= marker.coordinator_epoch {
        return Ok(());
    }
    Err(AppendError::TransactionCoordinatorFenced {
        producer_id,
        partition: partition.clone(),
        coordinator_epoch: marker.coordinator_epoch,
        current: entry.coordinator_epoch,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::record_batch::{BatchBuilder, BatchOptions};

    const DAY_MS: i64 = 86_400_000;

    fn header(
        base_offset: Offset,
        epoch: ProducerEpoch,
        sequence: i32,
        count: i32,
        transactional: bool,
    ) -> BatchHeader {
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset,
            producer_id: 9,
            producer_epoch: epoch,
            base_sequence: sequence,
            transactional,
            ..Default::default()
        });
        for _ in 0..count {
            builder.append(1000, None, Some(b"v"), &[]);
        }
        BatchHeader::copy_of(&builder.build()).unwrap()
    }

    fn partition() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    fn check(state: &ProducerState, batch: &BatchHeader) -> Result<AppendCheck, AppendError> {
        state.check(&partition(), batch, None, AppendOrigin::Client)
    }

    /// Ten batches of two records from sequence 0 on.
    fn filled() -> ProducerState {
        let mut state = ProducerState::default();
        for i in 0..10 {
            let batch = header(i * 2, 1, i as i32 * 2, 2, false);
            assert_eq!(check(&state, &batch).unwrap(), AppendCheck::New);
            state.apply(&batch, None);
        }
        state
    }

    #[test]
    fn i1_a_negative_producer_id_is_none() {
        for producer_id in [-1, -2, i64::MIN] {
            let mut builder = BatchBuilder::new(BatchOptions { producer_id, producer_epoch: 0, ..Default::default() });
            builder.append(1000, None, Some(b"v"), &[]);
            let batch = BatchHeader::copy_of(&builder.build()).unwrap();
            let mut state = ProducerState::default();
            assert_eq!(check(&state, &batch).unwrap(), AppendCheck::New);
            state.apply(&batch, None);
            assert!(state.producers().is_empty(), "{producer_id}");
        }
    }

    #[test]
    fn i2_resent_batch_answers_original_offset_for_each_of_the_last_five() {
        let state = filled();
        for i in 5..10 {
            match check(&state, &header(0, 1, i * 2, 2, false)).unwrap() {
                AppendCheck::Duplicate(original) => assert_eq!(original.first_offset(), Offset::from(i) * 2),
                AppendCheck::New => panic!("batch {i} would be appended twice"),
            }
        }
        assert!(matches!(check(&state, &header(0, 1, 8, 2, false)), Err(AppendError::OutOfOrderSequence { .. })));
        // A duplicate must have the same range of sequences.
        assert!(matches!(check(&state, &header(0, 1, 18, 1, false)), Err(AppendError::OutOfOrderSequence { .. })));
    }

    #[test]
    fn i3_sequences_have_no_gaps_and_epochs_do_not_fall() {
        let state = filled();
        assert!(check(&state, &header(0, 1, 20, 1, false)).is_ok());
        assert!(matches!(
            check(&state, &header(0, 1, 21, 1, false)),
            Err(AppendError::OutOfOrderSequence { last_sequence: 19, .. })
        ));
        assert!(matches!(
            check(&state, &header(0, 0, 20, 1, false)),
            Err(AppendError::InvalidProducerEpoch { current: 1, .. })
        ));
        assert!(matches!(check(&state, &header(0, 2, 20, 1, false)), Err(AppendError::OutOfOrderSequence { .. })));
        assert!(check(&state, &header(0, 2, 0, 1, false)).is_ok());
    }

    #[test]
    fn i3_sequence_wraps_after_the_largest() {
        let mut state = ProducerState::default();
        let last = header(0, 0, i32::MAX - 1, 2, false);
        assert!(check(&state, &last).is_ok());
        state.apply(&last, None);
        assert_eq!(check(&state, &header(2, 0, 0, 1, false)).unwrap(), AppendCheck::New);
        assert!(check(&state, &header(2, 0, 1, 1, false)).is_err());
    }

    #[test]
    fn i4_an_unknown_producer_may_start_anywhere() {
        assert_eq!(check(&ProducerState::default(), &header(0, 3, 42, 1, false)).unwrap(), AppendCheck::New);
    }

    #[test]
    fn i5_expiry_spares_open_transactions_and_snapshots_survive() {
        let mut state = filled();
        let bytes = state.snapshot();
        let reread = ProducerState::from_snapshot(&bytes, 20, 2000, DAY_MS).unwrap();
        assert_eq!(reread.producers()[&9].recent_batches().len(), BATCHES_RETAINED);
        assert_eq!(reread.producers()[&9].recent_batches(), state.producers()[&9].recent_batches());
        for sequence in [10, 12, 14, 16, 18] {
            assert!(matches!(check(&reread, &header(0, 1, sequence, 2, false)).unwrap(), AppendCheck::Duplicate(_)));
        }
        assert!(ProducerState::from_snapshot(&bytes, 20, 1000 + DAY_MS, DAY_MS).unwrap().is_empty());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(ProducerState::from_snapshot(&damaged, 20, 2000, DAY_MS).is_none(), "byte {at}");
        }
        state.remove_expired(999 + DAY_MS, DAY_MS);
        assert!(!state.is_empty());
        state.apply(&header(20, 1, 20, 1, true), None);
        state.remove_expired(2000 + DAY_MS, DAY_MS);
        assert!(!state.is_empty());
    }

    #[test]
    fn invented_ids_push_out_those_silent_for_longest_but_no_open_transaction() {
        let of = |producer_id: ProducerId, base_offset: Offset, transactional: bool| {
            let mut builder = BatchBuilder::new(BatchOptions {
                base_offset,
                producer_id,
                producer_epoch: 0,
                base_sequence: 0,
                transactional,
                ..Default::default()
            });
            builder.append(1000, None, Some(b"v"), &[]);
            BatchHeader::copy_of(&builder.build()).unwrap()
        };
        let mut state = ProducerState::default();
        state.apply(&of(0, 0, true), None);
        for offset in 1..5000 {
            // Producer 1 writes again and again.
            state.apply(&of(if offset % 50 == 0 { 1 } else { offset }, offset, false), None);
            state.keep_at_most(100);
            assert!(state.producers().len() <= 101, "{}", state.producers().len());
        }
        assert!(state.producers()[&0].current_txn_first_offset.is_some());
        for id in [1, 4949, 4999] {
            assert!(state.producers().contains_key(&id), "{id}");
        }
        assert!(!state.producers().contains_key(&2));
    }

    #[test]
    fn x6_markers_end_transactions_and_move_the_first_unstable_offset() {
        let mut state = ProducerState::default();
        state.apply(&header(5, 0, 0, 3, true), None);
        assert_eq!(state.first_unstable_offset(), Some(5));
        assert!(matches!(check(&state, &header(8, 0, 3, 1, false)), Err(AppendError::InvalidTxnState { .. })));
        let marker = EndTxnMarker::parse(&[0, 0, 0, 0], &[0, 0, 0, 0, 0, 7]).unwrap();
        assert_eq!(marker, EndTxnMarker { commit: false, coordinator_epoch: 7 });
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset: 8,
            control: true,
            transactional: true,
            producer_id: 9,
            producer_epoch: 0,
            ..Default::default()
        });
        builder.append(1, Some(&[0, 0, 0, 0]), Some(&[0, 0, 0, 0, 0, 7]), &[]);
        let control = BatchHeader::copy_of(&builder.build()).unwrap();
        let origin = AppendOrigin::Coordinator;
        assert!(state.check(&partition(), &control, Some(marker), origin).is_ok());
        let completed = state.apply(&control, Some(marker)).unwrap();
        assert_eq!((completed.first_offset, completed.last_offset, completed.last_stable_offset), (5, 8, 9));
        assert!(completed.aborted);
        assert_eq!(state.first_unstable_offset(), Some(5));
        state.on_high_watermark(9);
        assert_eq!(state.first_unstable_offset(), None);
        let zombie = EndTxnMarker { coordinator_epoch: 6, ..marker };
        assert!(matches!(
            state.check(&partition(), &control, Some(zombie), origin),
            Err(AppendError::TransactionCoordinatorFenced { current: 7, .. })
        ));
    }
}
