//! The 61 bytes in front of every v2 batch, read and patched without the records.
//!
//! Walks over a log, producer state and index lookups need only these; the batch around them is
//! `record_batch.rs`'s, which also passes these names on.

use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// Bytes before the records.
pub const HEADER_BYTES: usize = 61;
/// Base offset and length: what comes before the bytes that `batch_length` counts.
pub const LOG_OVERHEAD_BYTES: usize = 12;
/// The only format there is since Kafka 4.
pub const MAGIC: i8 = 2;
/// Where the bytes start that the checksum covers.
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

/// Why bytes are not a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the batch says it has, or than a header takes.
    #[error("the batch is cut short")]
    Truncated,
    /// The length field cannot be true.
    #[error("a batch length of {0} is impossible")]
    Length(i32),
    /// An older message format, or no batch at all.
    #[error("magic {0} where 2 was expected")]
    Magic(i8),
    /// Offsets that do not grow, or leave their range.
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
    /// From the three lowest bits of the attributes.
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

    /// As it stands in the attributes.
    pub fn id(self) -> i8 {
        self as i8
    }
}

/// CRC-32C, as batches and snapshots use it.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// The size in bytes of the batch that starts at `bytes`, from its first 12 bytes alone.
pub fn size_of_batch_at(bytes: &[u8]) -> Result<usize, BatchError> {
    let prefix = bytes.first_chunk::<LOG_OVERHEAD_BYTES>().ok_or(BatchError::Truncated)?;
    let length = i32::from_be_bytes([prefix[8], prefix[9], prefix[10], prefix[11]]);
    if length < (HEADER_BYTES - LOG_OVERHEAD_BYTES) as i32 {
        return Err(BatchError::Length(length));
    }
    Ok(LOG_OVERHEAD_BYTES + length as usize)
}

/// A batch's header, copied: to be read, and to be changed and written in place of the original.
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
        /// Bytes behind the first 12.
        length, i32, LENGTH_AT);
    field!(
        /// The leader's epoch at the append.
        partition_leader_epoch, LeaderEpoch, LEADER_EPOCH_AT);
    field!(
        /// 2 in all batches there are.
        magic, i8, MAGIC_AT);
    field!(
        /// The checksum as the batch carries it.
        crc, u32, CRC_AT);
    field!(
        /// The attribute bits.
        attributes, i16, ATTRIBUTES_AT);
    field!(
        /// Last offset less base offset.
        last_offset_delta, i32, LAST_OFFSET_DELTA_AT);
    field!(
        /// What the records' timestamp deltas count from.
        base_timestamp, TimestampMs, BASE_TIMESTAMP_AT);
    field!(
        /// The largest timestamp of the records.
        max_timestamp, TimestampMs, MAX_TIMESTAMP_AT);
    field!(
        /// -1 where the producer is not idempotent.
        producer_id, ProducerId, PRODUCER_ID_AT);
    field!(
        /// -1 where the producer is not idempotent.
        producer_epoch, ProducerEpoch, PRODUCER_EPOCH_AT);
    field!(
        /// The first record's sequence number; -1 where the producer is not idempotent.
        base_sequence, i32, BASE_SEQUENCE_AT);
    field!(
        /// How many records the batch says it holds. Not to be trusted for an allocation.
        record_count, i32, RECORD_COUNT_AT);

    /// The first 61 of `bytes`, if there are as many; nothing else is checked.
    pub fn copy_of(bytes: &[u8]) -> Option<BatchHeader> {
        bytes.first_chunk::<HEADER_BYTES>().map(|head| BatchHeader(*head))
    }

    /// A header as it must look in a log: magic 2, a length that holds it, a growing offset range.
    ///
    /// # Errors
    /// What is wrong with it.
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

    /// As it stands before the records.
    pub fn bytes(&self) -> &[u8; HEADER_BYTES] {
        &self.0
    }

    /// The first record's offset (of the batch as it was produced: compaction keeps it).
    pub fn base_offset(&self) -> Offset {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        Offset::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// Size of the whole batch.
    pub fn size_bytes(&self) -> u64 {
        LOG_OVERHEAD_BYTES as u64 + self.length().max(0) as u64
    }

    /// The last record's offset.
    pub fn last_offset(&self) -> Offset {
        self.base_offset().saturating_add(Offset::from(self.last_offset_delta()))
    }

    /// Where the next batch starts, if nothing is missing between.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().saturating_add(1)
    }

    /// The last record's sequence number, which after `i32::MAX` goes on at 0.
    pub fn last_sequence(&self) -> i32 {
        increment_sequence(self.base_sequence(), self.last_offset_delta())
    }

    /// The records' codec.
    ///
    /// # Errors
    /// The attributes name none that exists.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_id((self.attributes() & CODEC_MASK) as i8)
    }

    /// Whether `max_timestamp` is the broker's time at the append and that of every record.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes() & LOG_APPEND_TIME_BIT != 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL_BIT != 0
    }

    /// Whether the records are the broker's marks rather than a client's data.
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL_BIT != 0
    }

    /// Whether the producer is idempotent. Any negative id is none (`RecordBatch.hasProducerId`).
    pub fn has_producer_id(&self) -> bool {
        self.producer_id() > -1
    }

    /// Outside the checksum: where the log places the batch.
    pub(crate) fn place(&mut self, base_offset: Offset, leader_epoch: LeaderEpoch) {
        self.0[..LENGTH_AT].copy_from_slice(&base_offset.to_be_bytes());
        self.0[LEADER_EPOCH_AT..MAGIC_AT].copy_from_slice(&leader_epoch.to_be_bytes());
    }

    /// Inside the checksum; [`BatchHeader::set_crc`] must follow.
    pub(crate) fn set_max_timestamp(&mut self, log_append_time: bool, max_timestamp: TimestampMs) {
        let attributes = match log_append_time {
            true => self.attributes() | LOG_APPEND_TIME_BIT,
            false => self.attributes() & !LOG_APPEND_TIME_BIT,
        };
        self.set_attributes(attributes);
        self.0[MAX_TIMESTAMP_AT..PRODUCER_ID_AT].copy_from_slice(&max_timestamp.to_be_bytes());
    }

    /// Inside the checksum; [`BatchHeader::set_crc`] must follow. Attributes that mean nothing here are cleared, as
    /// Kafka's builder does.
    pub(crate) fn set_compression(&mut self, codec: Compression) {
        let kept = self.attributes() & (LOG_APPEND_TIME_BIT | TRANSACTIONAL_BIT | CONTROL_BIT);
        self.set_attributes(kept | i16::from(codec.id()));
    }

    /// Inside the checksum; [`BatchHeader::set_crc`] must follow.
    pub(crate) fn set_base_timestamp(&mut self, base_timestamp: TimestampMs) {
        self.0[BASE_TIMESTAMP_AT..MAX_TIMESTAMP_AT].copy_from_slice(&base_timestamp.to_be_bytes());
    }

    fn set_attributes(&mut self, attributes: i16) {
        self.0[ATTRIBUTES_AT..LAST_OFFSET_DELTA_AT].copy_from_slice(&attributes.to_be_bytes());
    }

    /// The length for records of `records_bytes`.
    pub(crate) fn set_records_bytes(&mut self, records_bytes: usize) {
        let length = (HEADER_BYTES - LOG_OVERHEAD_BYTES + records_bytes) as i32;
        self.0[LENGTH_AT..LEADER_EPOCH_AT].copy_from_slice(&length.to_be_bytes());
    }

    /// Recomputes the checksum over this header and the records behind it.
    pub(crate) fn set_crc(&mut self, records: &[u8]) {
        let crc = self.compute_crc(records);
        self.0[CRC_AT..CRC_START].copy_from_slice(&crc.to_be_bytes());
    }

    /// CRC-32C of attributes to the end.
    fn compute_crc(&self, records: &[u8]) -> u32 {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        digest.update(&self.0[CRC_START..]);
        digest.update(records);
        digest.finalize() as u32
    }

    /// Whether the checksum is that of this header and the records behind it.
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

/// `sequence` + `by`, going on at 0 after `i32::MAX`; -1 (none) stays -1.
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
