//! The 61 bytes in front of every v2 batch, read and patched without the records.
//!
//! Recovery, index lookups and producer state need only these; whole batches are
//! `protocol::record_batch`'s.

pub(crate) use crate::protocol::record_batch::HEADER_BYTES;
use crate::{
    protocol::record_batch::increment_sequence,
    types::{LeaderEpoch, Offset, TimestampMs},
};

/// Bytes in front of what `batch length` counts.
pub(crate) const LENGTH_PREFIX_BYTES: usize = 12;
/// Where the bytes start that the checksum covers.
pub(crate) const CRC_START: usize = 21;

const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// Why bytes are not the head of a v2 batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("the batch length {0} is out of bounds")]
    Length(i32),
    #[error("magic {0} is not 2")]
    Magic(i8),
    #[error("the offset range is not one (base {0}, last delta {1})")]
    Offsets(i64, i32),
}

/// A copy of a batch's header.
#[derive(Clone, Copy)]
pub(crate) struct BatchHeader([u8; HEADER_BYTES]);

macro_rules! field {
    ($get:ident, $type:ty, $at:literal) => {
        pub(crate) fn $get(&self) -> $type {
            const BYTES: usize = size_of::<$type>();
            let mut bytes = [0; BYTES];
            bytes.copy_from_slice(&self.0[$at..$at + BYTES]);
            <$type>::from_be_bytes(bytes)
        }
    };
}

impl BatchHeader {
    field!(base_offset, i64, 0);
    field!(length, i32, 8);
    field!(partition_leader_epoch, i32, 12);
    field!(magic, i8, 16);
    field!(crc, u32, 17);
    field!(attributes, i16, 21);
    field!(last_offset_delta, i32, 23);
    field!(base_timestamp, i64, 27);
    field!(max_timestamp, i64, 35);
    field!(producer_id, i64, 43);
    field!(producer_epoch, i16, 51);
    field!(base_sequence, i32, 53);
    field!(record_count, i32, 57);

    /// The first 61 of `bytes`, which must be there; nothing is checked.
    pub(crate) fn copy_of(bytes: &[u8]) -> Option<BatchHeader> {
        bytes.first_chunk::<HEADER_BYTES>().map(|head| BatchHeader(*head))
    }

    /// A header as it must look in a log: magic 2, a length that holds it, a growing offset range.
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<BatchHeader, HeaderError> {
        let header = BatchHeader(*bytes);
        if header.length() < (HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32 {
            return Err(HeaderError::Length(header.length()));
        }
        if header.magic() != 2 {
            return Err(HeaderError::Magic(header.magic()));
        }
        let (base, delta) = (header.base_offset(), header.last_offset_delta());
        if base < 0 || delta < 0 || base.checked_add(i64::from(delta) + 1).is_none() {
            return Err(HeaderError::Offsets(base, delta));
        }
        Ok(header)
    }

    pub(crate) fn bytes(&self) -> &[u8; HEADER_BYTES] {
        &self.0
    }

    /// Size of the whole batch.
    pub(crate) fn size_bytes(&self) -> u64 {
        LENGTH_PREFIX_BYTES as u64 + self.length().max(0) as u64
    }

    pub(crate) fn last_offset(&self) -> Offset {
        self.base_offset() + Offset::from(self.last_offset_delta())
    }

    pub(crate) fn last_sequence(&self) -> i32 {
        increment_sequence(self.base_sequence(), self.last_offset_delta())
    }

    pub(crate) fn compression_id(&self) -> i16 {
        self.attributes() & COMPRESSION_MASK
    }

    pub(crate) fn is_log_append_time(&self) -> bool {
        self.attributes() & LOG_APPEND_TIME != 0
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL != 0
    }

    pub(crate) fn is_control(&self) -> bool {
        self.attributes() & CONTROL != 0
    }

    pub(crate) fn has_producer_id(&self) -> bool {
        self.producer_id() != -1
    }

    /// Outside the checksum: where the log places the batch.
    pub(crate) fn place(&mut self, base_offset: Offset, leader_epoch: LeaderEpoch) {
        self.0[0..8].copy_from_slice(&base_offset.to_be_bytes());
        self.0[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    }

    /// Inside the checksum; [`BatchHeader::set_crc`] must follow.
    pub(crate) fn set_max_timestamp(&mut self, log_append_time: bool, max_timestamp: TimestampMs) {
        let attributes = match log_append_time {
            true => self.attributes() | LOG_APPEND_TIME,
            false => self.attributes() & !LOG_APPEND_TIME,
        };
        self.0[21..23].copy_from_slice(&attributes.to_be_bytes());
        self.0[35..43].copy_from_slice(&max_timestamp.to_be_bytes());
    }

    /// Inside the checksum.
    pub(crate) fn set_compression(&mut self, id: i16) {
        let attributes = (self.attributes() & !COMPRESSION_MASK) | id;
        self.0[21..23].copy_from_slice(&attributes.to_be_bytes());
    }

    /// The length for records of `records_bytes`.
    pub(crate) fn set_records_bytes(&mut self, records_bytes: usize) {
        let length = (HEADER_BYTES - LENGTH_PREFIX_BYTES + records_bytes) as i32;
        self.0[8..12].copy_from_slice(&length.to_be_bytes());
    }

    /// Recomputes the checksum over this header and the records behind it.
    pub(crate) fn set_crc(&mut self, records: &[u8]) {
        let crc = self.compute_crc(records);
        self.0[17..21].copy_from_slice(&crc.to_be_bytes());
    }

    /// CRC-32C of attributes to the end.
    pub(crate) fn compute_crc(&self, records: &[u8]) -> u32 {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        digest.update(&self.0[CRC_START..]);
        digest.update(records);
        digest.finalize() as u32
    }

    pub(crate) fn crc_is_valid(&self, records: &[u8]) -> bool {
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

/// `DefaultRecordBatch.decrementSequence`.
pub(crate) fn decrement_sequence(sequence: i32, decrement: i32) -> i32 {
    if sequence < decrement { i32::MAX - (decrement - sequence) + 1 } else { sequence - decrement }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i1_sequences_wrap_back_from_zero() {
        assert_eq!(decrement_sequence(1, 3), i32::MAX - 1);
        assert_eq!(decrement_sequence(10, 3), 7);
    }

    #[test]
    fn a_header_that_cannot_be_is_refused() {
        let mut bytes = [0u8; HEADER_BYTES];
        assert_eq!(BatchHeader::parse(&bytes).err(), Some(HeaderError::Length(0)));
        bytes[8..12].copy_from_slice(&49i32.to_be_bytes());
        assert_eq!(BatchHeader::parse(&bytes).err(), Some(HeaderError::Magic(0)));
        bytes[16] = 2;
        assert!(BatchHeader::parse(&bytes).is_ok());
        bytes[23..27].copy_from_slice(&(-1i32).to_be_bytes());
        assert!(BatchHeader::parse(&bytes).is_err());
    }
}
