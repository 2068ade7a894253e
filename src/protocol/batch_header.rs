//! The header of a v2 batch (61 bytes), which is read and changed without the records.
//!
//! Scans of a log, producer state and index lookups need only the header. Leaves the whole batch to `record_batch.rs`,
//! which also re-exports these names.

use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// Size of the header, which comes before the records.
pub const HEADER_BYTES: usize = 61;
/// Size of base offset and length, the two fields that the batch length does not count.
pub const LOG_OVERHEAD_BYTES: usize = 12;
/// The magic of the only record format since Kafka 4.
pub const MAGIC: i8 = 2;
/// The checksum covers the bytes from here to the end of the batch.
pub(super) const CRC_START: usize = ATTRIBUTES_AT;

const LENGTH_AT: usize = 8;
const LEADER_EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const LAST_OFFSET_DELTA_AT: usize = 23;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;
const PRODUCER_ID_AT: usize = 43;
const PRODUCER_EPOCH_AT: usize = 51;
const BASE_SEQUENCE_AT: usize = 53;
const RECORD_COUNT_AT: usize = 57;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME_BIT: i16 = 0x08;
pub(super) const TRANSACTIONAL_BIT: i16 = 0x10;
pub(super) const CONTROL_BIT: i16 = 0x20;
const DELETE_HORIZON_BIT: i16 = 0x40;

/// Why bytes are not a valid batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// There are fewer bytes than the batch's length says, or than a header needs.
    #[error("the batch is cut short")]
    Truncated,
    /// The length field is invalid.
    #[error("a batch length of {0} is impossible")]
    Length(i32),
    /// The bytes have an older message format or are no batch.
    #[error("magic {0} where 2 was expected")]
    Magic(i8),
    /// The offset range is negative or overflows.
    #[error("the offset range is not one (base {0}, last delta {1})")]
    Offsets(Offset, i32),
    /// A record's fields do not fit its length.
    #[error("record {0} of the batch is malformed")]
    Record(i32),
    /// The attributes name a codec that does not exist.
    #[error("unknown compression codec {0}")]
    Compression(i8),
}

/// The codec of a batch's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// Not compressed.
    None,
    /// gzip.
    Gzip,
    /// snappy, raw or in Java's framing.
    Snappy,
    /// lz4 frames.
    Lz4,
    /// zstd.
    Zstd,
}

impl Compression {
    /// Returns the codec with this id, which is in the three lowest bits of the attributes.
    pub fn from_id(id: i8) -> Result<Self, BatchError> {
        Ok(match id {
            0 => Compression::None,
            1 => Compression::Gzip,
            2 => Compression::Snappy,
            3 => Compression::Lz4,
            4 => Compression::Zstd,
            other => return Err(BatchError::Compression(other)),
        })
    }

    /// The id in the attributes.
    pub fn id(self) -> i8 {
        self as i8
    }
}

/// Computes the CRC-32C, the checksum of batches and snapshots.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Returns the size in bytes of the batch that starts at `bytes`. Reads only its first 12 bytes.
pub fn size_of_batch_at(bytes: &[u8]) -> Result<usize, BatchError> {
    let prefix = bytes.first_chunk::<LOG_OVERHEAD_BYTES>().ok_or(BatchError::Truncated)?;
    let length = i32::from_be_bytes([prefix[8], prefix[9], prefix[10], prefix[11]]);
    if length < (HEADER_BYTES - LOG_OVERHEAD_BYTES) as i32 {
        return Err(BatchError::Length(length));
    }
    Ok(LOG_OVERHEAD_BYTES + length as usize)
}

/// A copy of a batch's header, which can be changed and written in place of the original.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader([u8; HEADER_BYTES]);

macro_rules! field {
    ($(#[$doc:meta])* $get:ident, $type:ty, $at:ident) => {
        $(#[$doc])*
        #[inline]
        pub fn $get(&self) -> $type {
            const BYTES: usize = size_of::<$type>();
            let mut bytes = [0; BYTES];
            bytes.copy_from_slice(&self.0[$at..$at + BYTES]);
            <$type>::from_be_bytes(bytes)
        }
    };
}

impl BatchHeader {
    field!(
        /// The number of bytes after the first 12.
        length, i32, LENGTH_AT);
    field!(
        /// The leader's epoch at the append.
        partition_leader_epoch, LeaderEpoch, LEADER_EPOCH_AT);
    field!(
        /// The format version, 2 in all batches.
        magic, i8, MAGIC_AT);
    field!(
        /// The stored checksum.
        crc, u32, CRC_AT);
    field!(
        /// The attribute bits.
        attributes, i16, ATTRIBUTES_AT);
    field!(
        /// Last offset minus base offset.
        last_offset_delta, i32, LAST_OFFSET_DELTA_AT);
    field!(
        /// The timestamp to which the records' timestamp deltas are added.
        base_timestamp, TimestampMs, BASE_TIMESTAMP_AT);
    field!(
        /// The largest timestamp of the records.
        max_timestamp, TimestampMs, MAX_TIMESTAMP_AT);
    field!(
        /// -1 if the producer is not idempotent.
        producer_id, ProducerId, PRODUCER_ID_AT);
    field!(
        /// -1 if the producer is not idempotent.
        producer_epoch, ProducerEpoch, PRODUCER_EPOCH_AT);
    field!(
        /// The first record's sequence number; -1 if the producer is not idempotent.
        base_sequence, i32, BASE_SEQUENCE_AT);
    field!(
        /// The number of records according to the header. It must not decide the size of an allocation.
        record_count, i32, RECORD_COUNT_AT);

    /// Copies the first 61 of `bytes`; None if there are fewer. Checks nothing else.
    pub fn copy_of(bytes: &[u8]) -> Option<BatchHeader> {
        bytes.first_chunk::<HEADER_BYTES>().map(|head| BatchHeader(*head))
    }

    /// Reads a header and checks that it is valid in a log: magic 2, a length that includes the header, a valid offset
    /// range.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<BatchHeader, BatchError> {
        let header = BatchHeader(*bytes);
        size_of_batch_at(bytes)?;
        if header.magic() != MAGIC {
            return Err(BatchError::Magic(header.magic()));
        }
        let (base, delta) = (header.base_offset(), header.last_offset_delta());
        if base < 0 || delta < 0 || base.checked_add(i64::from(delta) + 1).is_none() {
            return Err(BatchError::Offsets(base, delta));
        }
        Ok(header)
    }

    /// The encoded header.
    pub fn bytes(&self) -> &[u8; HEADER_BYTES] {
        &self.0
    }

    /// The offset of the first record when the batch was produced. Compaction does not change it.
    pub fn base_offset(&self) -> Offset {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        Offset::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// Size of the whole batch in bytes.
    pub fn size_bytes(&self) -> u64 {
        LOG_OVERHEAD_BYTES as u64 + self.length().max(0) as u64
    }

    /// The last record's offset.
    pub fn last_offset(&self) -> Offset {
        self.base_offset().saturating_add(Offset::from(self.last_offset_delta()))
    }

    /// The base offset of the next batch if there is no gap.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().saturating_add(1)
    }

    /// The last record's sequence number. After `i32::MAX` sequence numbers continue at 0.
    pub fn last_sequence(&self) -> i32 {
        increment_sequence(self.base_sequence(), self.last_offset_delta())
    }

    /// The records' codec.
    ///
    /// # Errors
    /// The attributes contain an unknown codec.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_id((self.attributes() & CODEC_MASK) as i8)
    }

    /// Whether the topic uses LogAppendTime: `max_timestamp` is then the time of the append, for all records.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes() & LOG_APPEND_TIME_BIT != 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL_BIT != 0
    }

    /// Whether the records are control records of the broker, not a client's data.
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL_BIT != 0
    }

    /// A record's timestamp, from its delta: with LogAppendTime all records have the time of the append.
    pub fn timestamp_of(&self, timestamp_delta: i64) -> TimestampMs {
        match self.is_log_append_time() {
            true => self.max_timestamp(),
            false => self.base_timestamp().wrapping_add(timestamp_delta),
        }
    }

    /// From when on the tombstones and the marker in the batch may be removed, in milliseconds of wall-clock time
    /// (KIP-534). A cleaner sets it when it first meets the batch, in the place of the base timestamp.
    pub fn delete_horizon_ms(&self) -> Option<TimestampMs> {
        (self.attributes() & DELETE_HORIZON_BIT != 0).then(|| self.base_timestamp())
    }

    /// Whether the producer is idempotent. Any negative id means no (`RecordBatch.hasProducerId`).
    pub fn has_producer_id(&self) -> bool {
        self.producer_id() > -1
    }

    /// Sets base offset and leader epoch, which the checksum does not cover.
    pub(crate) fn place(&mut self, base_offset: Offset, leader_epoch: LeaderEpoch) {
        self.0[..LENGTH_AT].copy_from_slice(&base_offset.to_be_bytes());
        self.0[LEADER_EPOCH_AT..MAGIC_AT].copy_from_slice(&leader_epoch.to_be_bytes());
    }

    /// Covered by the checksum, so [`BatchHeader::set_crc`] must follow.
    pub(crate) fn set_max_timestamp(&mut self, log_append_time: bool, max_timestamp: TimestampMs) {
        let attributes = match log_append_time {
            true => self.attributes() | LOG_APPEND_TIME_BIT,
            false => self.attributes() & !LOG_APPEND_TIME_BIT,
        };
        self.set_attributes(attributes);
        self.0[MAX_TIMESTAMP_AT..PRODUCER_ID_AT].copy_from_slice(&max_timestamp.to_be_bytes());
    }

    /// Covered by the checksum, so [`BatchHeader::set_crc`] must follow. Clears unknown attributes, like Kafka's
    /// builder.
    pub(crate) fn set_compression(&mut self, codec: Compression) {
        let kept = self.attributes() & (LOG_APPEND_TIME_BIT | TRANSACTIONAL_BIT | CONTROL_BIT);
        self.set_attributes(kept | i16::from(codec.id()));
    }

    /// Covered by the checksum, so [`BatchHeader::set_crc`] must follow. The records' timestamp deltas count from it.
    pub(crate) fn set_delete_horizon_ms(&mut self, horizon_ms: TimestampMs) {
        self.set_attributes(self.attributes() | DELETE_HORIZON_BIT);
        self.set_base_timestamp(horizon_ms);
    }

    /// Covered by the checksum, so [`BatchHeader::set_crc`] must follow.
    pub(crate) fn set_record_count(&mut self, count: i32) {
        self.0[RECORD_COUNT_AT..].copy_from_slice(&count.to_be_bytes());
    }

    /// The header of this batch without its records, which keeps its offsets and its producer's sequence
    /// (`DefaultRecordBatch.writeEmptyHeader`).
    pub(crate) fn emptied(mut self) -> BatchHeader {
        self.set_compression(Compression::None);
        self.set_base_timestamp(-1);
        self.set_record_count(0);
        self.set_records_bytes(0);
        self.set_crc(&[]);
        self
    }

    /// Covered by the checksum, so [`BatchHeader::set_crc`] must follow.
    pub(crate) fn set_base_timestamp(&mut self, base_timestamp: TimestampMs) {
        self.0[BASE_TIMESTAMP_AT..MAX_TIMESTAMP_AT].copy_from_slice(&base_timestamp.to_be_bytes());
    }

    fn set_attributes(&mut self, attributes: i16) {
        self.0[ATTRIBUTES_AT..LAST_OFFSET_DELTA_AT].copy_from_slice(&attributes.to_be_bytes());
    }

    /// Sets the length field for records of `records_bytes` bytes.
    pub(crate) fn set_records_bytes(&mut self, records_bytes: usize) {
        let length = (HEADER_BYTES - LOG_OVERHEAD_BYTES + records_bytes) as i32;
        self.0[LENGTH_AT..LEADER_EPOCH_AT].copy_from_slice(&length.to_be_bytes());
    }

    /// Recomputes the checksum over this header and the records after it.
    pub(crate) fn set_crc(&mut self, records: &[u8]) {
        let crc = self.compute_crc(records);
        self.0[CRC_AT..CRC_START].copy_from_slice(&crc.to_be_bytes());
    }

    /// The CRC-32C from the attributes to the end of the records.
    fn compute_crc(&self, records: &[u8]) -> u32 {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        digest.update(&self.0[CRC_START..]);
        digest.update(records);
        digest.finalize() as u32
    }

    /// Whether the stored checksum matches this header and the records after it.
    pub fn crc_is_valid(&self, records: &[u8]) -> bool {
        self.crc() == self.compute_crc(records)
    }
}

impl std::fmt::Debug for BatchHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "batch {}..={} of {} bytes, epoch {}",
            self.base_offset(),
            self.last_offset(),
            self.size_bytes(),
            self.partition_leader_epoch()
        )
    }
}

/// Returns `sequence` + `by`. After `i32::MAX` it continues at 0; -1 (none) stays -1.
pub fn increment_sequence(sequence: i32, by: i32) -> i32 {
    if sequence < 0 {
        return sequence;
    }
    ((i64::from(sequence) + i64::from(by)) % (1 << 31)) as i32
}

/// `DefaultRecordBatch.decrementSequence`.
pub(crate) fn decrement_sequence(sequence: i32, decrement: i32) -> i32 {
    if sequence < decrement { i32::MAX - (decrement - sequence) + 1 } else { sequence - decrement }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i1_sequences_wrap_at_zero_both_ways() {
        assert_eq!(increment_sequence(i32::MAX, 1), 0);
        assert_eq!(increment_sequence(i32::MAX - 1, 3), 1);
        assert_eq!(increment_sequence(-1, 3), -1);
        assert_eq!(decrement_sequence(1, 3), i32::MAX - 1);
        assert_eq!(decrement_sequence(10, 3), 7);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_header_that_cannot_be_is_refused() {
        let mut bytes = [0u8; HEADER_BYTES];
        assert_eq!(BatchHeader::parse(&bytes).err(), Some(BatchError::Length(0)));
        bytes[8..12].copy_from_slice(&49i32.to_be_bytes());
        assert_eq!(BatchHeader::parse(&bytes).err(), Some(BatchError::Magic(0)));
        bytes[16] = 2;
        assert!(BatchHeader::parse(&bytes).is_ok());
        bytes[23..27].copy_from_slice(&(-1i32).to_be_bytes());
        assert_eq!(BatchHeader::parse(&bytes).err(), Some(BatchError::Offsets(0, -1)));
    }
}
