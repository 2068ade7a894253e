//! Record batches (magic 2) as they are on the wire and on disk: a view that copies nothing,
//! an iterator over records, and a builder for the batches the broker writes itself.
//!
//! Batches of clients are stored as they came; only base offset and leader epoch, which the
//! checksum leaves out, are replaced. Compression is `compression.rs`; what a client's batch
//! must satisfy is `log/validator.rs`.

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// Bytes before the records.
pub const HEADER_BYTES: usize = 61;
/// Base offset and length: what comes before the bytes that `batch_length` counts.
pub const LOG_OVERHEAD_BYTES: usize = 12;
/// The only format there is since Kafka 4.
pub const MAGIC: i8 = 2;
/// The smallest record: length, attributes, two deltas, null key, null value, no headers.
pub const MIN_RECORD_BYTES: usize = 7;

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
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;

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

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// The size in bytes of the batch that starts at `bytes`, from its first 12 bytes alone.
pub fn size_of_batch_at(bytes: &[u8]) -> Result<usize, BatchError> {
    if bytes.len() < LOG_OVERHEAD_BYTES {
        return Err(BatchError::Truncated);
    }
    let length = i32::from_be_bytes(array(bytes, LENGTH_AT));
    if length < (HEADER_BYTES - LOG_OVERHEAD_BYTES) as i32 {
        return Err(BatchError::Length(length));
    }
    Ok(LOG_OVERHEAD_BYTES + length as usize)
}

/// One batch in somebody else's bytes: exactly the bytes of the batch, header checked for
/// bounds and magic, content not.
#[derive(Clone, Copy)]
pub struct BatchView<'a>(&'a [u8]);

impl<'a> BatchView<'a> {
    /// The batch that starts at `bytes`; whatever follows it is left out.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let size = size_of_batch_at(bytes)?;
        if bytes.len() > MAGIC_AT && bytes[MAGIC_AT] as i8 != MAGIC {
            return Err(BatchError::Magic(bytes[MAGIC_AT] as i8));
        }
        if bytes.len() < size {
            return Err(BatchError::Truncated);
        }
        Ok(BatchView(&bytes[..size]))
    }

    /// A view of a header alone (61 bytes or more), for walks over a file that do not need the records.
    /// [`BatchView::size_bytes`] is still that of the whole batch; the records and the checksum must not be asked for.
    pub fn header_only(bytes: &'a [u8]) -> Result<Self, BatchError> {
        size_of_batch_at(bytes)?;
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::Truncated);
        }
        if bytes[MAGIC_AT] as i8 != MAGIC {
            return Err(BatchError::Magic(bytes[MAGIC_AT] as i8));
        }
        Ok(BatchView(bytes))
    }

    /// All bytes of the batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Header and records.
    pub fn size_bytes(&self) -> usize {
        LOG_OVERHEAD_BYTES + i32::from_be_bytes(array(self.0, LENGTH_AT)) as usize
    }

    /// The first record's offset (of the batch as it was produced: compaction keeps it).
    pub fn base_offset(&self) -> Offset {
        i64::from_be_bytes(array(self.0, 0))
    }

    /// The last record's offset.
    pub fn last_offset(&self) -> Offset {
        self.base_offset().saturating_add(i64::from(self.last_offset_delta()))
    }

    /// Where the next batch starts, if nothing is missing between.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().saturating_add(1)
    }

    /// The leader's epoch at the append.
    pub fn partition_leader_epoch(&self) -> LeaderEpoch {
        i32::from_be_bytes(array(self.0, LEADER_EPOCH_AT))
    }

    /// The checksum as the batch carries it.
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(array(self.0, CRC_AT))
    }

    /// Whether the checksum is that of the bytes.
    pub fn crc_is_valid(&self) -> bool {
        self.crc() == crc32c(&self.0[ATTRIBUTES_AT..])
    }

    /// The attribute bits.
    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(array(self.0, ATTRIBUTES_AT))
    }

    /// The records' codec.
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

    /// Last offset less base offset.
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(array(self.0, LAST_OFFSET_DELTA_AT))
    }

    /// What the records' timestamp deltas count from.
    pub fn base_timestamp(&self) -> TimestampMs {
        i64::from_be_bytes(array(self.0, BASE_TIMESTAMP_AT))
    }

    /// The largest timestamp of the records.
    pub fn max_timestamp(&self) -> TimestampMs {
        i64::from_be_bytes(array(self.0, MAX_TIMESTAMP_AT))
    }

    /// -1 where the producer is not idempotent.
    pub fn producer_id(&self) -> ProducerId {
        i64::from_be_bytes(array(self.0, PRODUCER_ID_AT))
    }

    /// -1 where the producer is not idempotent.
    pub fn producer_epoch(&self) -> ProducerEpoch {
        i16::from_be_bytes(array(self.0, PRODUCER_EPOCH_AT))
    }

    /// The first record's sequence number; -1 where the producer is not idempotent.
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(array(self.0, BASE_SEQUENCE_AT))
    }

    /// The last record's sequence number, which after `i32::MAX` goes on at 0.
    pub fn last_sequence(&self) -> i32 {
        increment_sequence(self.base_sequence(), self.last_offset_delta())
    }

    /// How many records the batch says it holds. Not to be trusted for an allocation.
    pub fn record_count(&self) -> i32 {
        i32::from_be_bytes(array(self.0, RECORD_COUNT_AT))
    }

    /// The records, compressed as the attributes say.
    pub fn records_bytes(&self) -> &'a [u8] {
        &self.0[HEADER_BYTES..]
    }
}

/// `sequence` + `by`, going on at 0 after `i32::MAX`; -1 (none) stays -1.
pub fn increment_sequence(sequence: i32, by: i32) -> i32 {
    if sequence < 0 {
        return sequence;
    }
    ((i64::from(sequence) + i64::from(by)) % (1 << 31)) as i32
}

/// The batches that stand one behind the other in `bytes`. Ends at the first that is cut short or
/// malformed; [`Batches::position`] tells where.
pub fn iter_batches(bytes: &[u8]) -> Batches<'_> {
    Batches { bytes, position: 0 }
}

/// See [`iter_batches`].
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Batches<'_> {
    /// Bytes of whole batches seen so far.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = BatchView<'a>;

    fn next(&mut self) -> Option<BatchView<'a>> {
        let batch = BatchView::parse(&self.bytes[self.position..]).ok()?;
        self.position += batch.size_bytes();
        Some(batch)
    }
}

/// A copy of the first 61 bytes of a batch, to be changed and written in place of the original.
#[derive(Clone)]
pub struct BatchHeader(pub [u8; HEADER_BYTES]);

impl BatchHeader {
    /// The header of `batch`.
    pub fn of(batch: &BatchView<'_>) -> Self {
        BatchHeader(array(batch.bytes(), 0))
    }

    /// Outside the checksum.
    pub fn set_base_offset(&mut self, offset: Offset) {
        self.0[..8].copy_from_slice(&offset.to_be_bytes());
    }

    /// Outside the checksum.
    pub fn set_partition_leader_epoch(&mut self, epoch: LeaderEpoch) {
        self.0[LEADER_EPOCH_AT..LEADER_EPOCH_AT + 4].copy_from_slice(&epoch.to_be_bytes());
    }

    /// Inside the checksum: [`BatchHeader::update_crc`] must follow.
    pub fn set_max_timestamp(&mut self, timestamp_ms: TimestampMs, log_append_time: bool) {
        self.0[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&timestamp_ms.to_be_bytes());
        let mut attributes = i16::from_be_bytes(array(&self.0, ATTRIBUTES_AT));
        attributes = if log_append_time { attributes | LOG_APPEND_TIME_BIT } else { attributes & !LOG_APPEND_TIME_BIT };
        self.0[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
    }

    /// Makes the checksum that of this header followed by `records`.
    pub fn update_crc(&mut self, records: &[u8]) {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        digest.update(&self.0[ATTRIBUTES_AT..]);
        digest.update(records);
        self.0[CRC_AT..CRC_AT + 4].copy_from_slice(&(digest.finalize() as u32).to_be_bytes());
    }
}

/// A record, read from uncompressed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Offset less the batch's base offset.
    pub offset_delta: i32,
    /// Timestamp less the batch's base timestamp.
    pub timestamp_delta: i64,
    /// `None` is null, not empty.
    pub key: Option<&'a [u8]>,
    /// `None` is null: a tombstone where the topic is compacted.
    pub value: Option<&'a [u8]>,
    /// Bytes of this record with its length prefix.
    pub size_bytes: usize,
    header_count: i32,
    header_bytes: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Key and value of each header, in order; a key may come more than once.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut cursor = Cursor(self.header_bytes);
        (0..self.header_count).map_while(move |_| Some((cursor.bytes()??, cursor.bytes()?)))
    }
}

/// The records in uncompressed bytes. Ends after `record_count` records or at the first malformed one.
pub struct RecordIter<'a> {
    cursor: Cursor<'a>,
    read: i32,
    count: i32,
}

impl<'a> RecordIter<'a> {
    /// The `count` records that `bytes` (uncompressed) should hold.
    pub fn new(bytes: &'a [u8], count: i32) -> Self {
        RecordIter { cursor: Cursor(bytes), read: 0, count }
    }

    /// Bytes not yet read; 0 after the last record of a well-formed batch.
    pub fn remaining_bytes(&self) -> usize {
        self.cursor.0.len()
    }

    fn record(&mut self) -> Option<RecordView<'a>> {
        let before = self.cursor.0.len();
        let length = usize::try_from(self.cursor.varint()?).ok()?;
        let mut body = Cursor(self.cursor.take(length)?);
        body.take(1)?; // Attributes: unused in this format.
        let timestamp_delta = body.varlong()?;
        let offset_delta = body.varint()?;
        let key = body.bytes()?;
        let value = body.bytes()?;
        let header_count = body.varint()?;
        // Each header takes two bytes or more, so a count cannot lie by much.
        if header_count < 0 || header_count as usize > body.0.len() / 2 {
            return None;
        }
        let header_bytes = body.0;
        for _ in 0..header_count {
            body.bytes()??;
            body.bytes()?;
        }
        if !body.0.is_empty() {
            return None;
        }
        let size_bytes = before - self.cursor.0.len();
        Some(RecordView { offset_delta, timestamp_delta, key, value, size_bytes, header_count, header_bytes })
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read >= self.count {
            return None;
        }
        let record = self.record().ok_or(BatchError::Record(self.read));
        self.read = if record.is_ok() { self.read + 1 } else { self.count };
        Some(record)
    }
}

/// Zigzag varints and length-prefixed bytes, bounds checked.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    #[inline]
    fn varint(&mut self) -> Option<i32> {
        // Nearly all are one byte long.
        if let Some((&byte, rest)) = self.0.split_first()
            && byte < 0x80
        {
            self.0 = rest;
            return Some(i32::from(byte >> 1) ^ -i32::from(byte & 1));
        }
        let raw = self.unsigned(5)?;
        let raw = u32::try_from(raw).ok()?;
        Some((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    fn varlong(&mut self) -> Option<i64> {
        let raw = self.unsigned(10)?;
        Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    fn unsigned(&mut self, most_bytes: usize) -> Option<u64> {
        let mut value = 0u64;
        for at in 0..most_bytes {
            let byte = *self.0.get(at)?;
            value |= u64::from(byte & 0x7f).checked_shl(7 * at as u32)?;
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Some(value);
            }
        }
        None
    }

    /// `Some(None)` is null.
    fn bytes(&mut self) -> Option<Option<&'a [u8]>> {
        match self.varint()? {
            -1 => Some(None),
            length => Some(Some(self.take(usize::try_from(length).ok()?)?)),
        }
    }
}

/// What a batch that the broker writes says of itself.
#[derive(Clone, Copy, Debug)]
pub struct BatchOptions {
    /// 0 where the log assigns offsets.
    pub base_offset: Offset,
    /// -1 where the log assigns it.
    pub leader_epoch: LeaderEpoch,
    /// A marker or another mark of the broker's.
    pub control: bool,
    /// Part of a transaction.
    pub transactional: bool,
    /// -1 for none.
    pub producer_id: ProducerId,
    /// -1 for none.
    pub producer_epoch: ProducerEpoch,
    /// -1 for none.
    pub base_sequence: i32,
}

impl Default for BatchOptions {
    fn default() -> Self {
        BatchOptions {
            base_offset: 0,
            leader_epoch: -1,
            control: false,
            transactional: false,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
        }
    }
}

/// Builds one uncompressed batch.
pub struct BatchBuilder {
    buffer: BytesMut,
    options: BatchOptions,
    base_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
    count: i32,
    record: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(options: BatchOptions) -> Self {
        let mut buffer = BytesMut::with_capacity(512);
        buffer.put_bytes(0, HEADER_BYTES);
        BatchBuilder { buffer, options, base_timestamp: -1, max_timestamp: -1, count: 0, record: Vec::new() }
    }

    /// Adds a record; offsets are consecutive.
    pub fn append(
        &mut self,
        timestamp_ms: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        if self.count == 0 {
            self.base_timestamp = timestamp_ms;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        let record = &mut self.record;
        record.clear();
        record.push(0);
        put_varlong(record, timestamp_ms - self.base_timestamp);
        put_varlong(record, self.count.into());
        put_bytes(record, key);
        put_bytes(record, value);
        put_varlong(record, headers.len() as i64);
        for (key, value) in headers {
            put_bytes(record, Some(key));
            put_bytes(record, *value);
        }
        let mut length = Vec::with_capacity(5);
        put_varlong(&mut length, record.len() as i64);
        self.buffer.put_slice(&length);
        self.buffer.put_slice(record);
        self.count += 1;
    }

    /// Bytes of the batch so far.
    pub fn size_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Records so far.
    pub fn record_count(&self) -> i32 {
        self.count
    }

    /// The batch, with its checksum.
    pub fn build(mut self) -> Bytes {
        let mut attributes = 0;
        if self.options.control {
            attributes |= CONTROL_BIT;
        }
        if self.options.transactional {
            attributes |= TRANSACTIONAL_BIT;
        }
        let length = (self.buffer.len() - LOG_OVERHEAD_BYTES) as i32;
        let mut header = &mut self.buffer[..HEADER_BYTES];
        header.put_i64(self.options.base_offset);
        header.put_i32(length);
        header.put_i32(self.options.leader_epoch);
        header.put_i8(MAGIC);
        header.put_u32(0);
        header.put_i16(attributes);
        header.put_i32(self.count - 1);
        header.put_i64(self.base_timestamp);
        header.put_i64(self.max_timestamp);
        header.put_i64(self.options.producer_id);
        header.put_i16(self.options.producer_epoch);
        header.put_i32(self.options.base_sequence);
        header.put_i32(self.count);
        let crc = crc32c(&self.buffer[ATTRIBUTES_AT..]);
        self.buffer[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
        self.buffer.freeze()
    }
}

/// Appends a zigzag varint (of 32 or 64 bits: the encoding is the same).
pub fn put_varlong(to: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        to.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    to.push(raw as u8);
}

fn put_bytes(to: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varlong(to, -1),
        Some(bytes) => {
            put_varlong(to, bytes.len() as i64);
            to.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Built = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

    fn build(records: &[Built]) -> Bytes {
        let mut builder = BatchBuilder::new(BatchOptions {
            producer_id: 7,
            producer_epoch: 1,
            base_sequence: 5,
            ..Default::default()
        });
        for (timestamp, key, value) in records {
            builder.append(*timestamp, key.as_deref(), value.as_deref(), &[(b"h", None), (b"h", Some(b"twice"))]);
        }
        builder.build()
    }

    proptest! {
        #[test]
        fn what_is_built_is_read_back(records in proptest::collection::vec(any::<(u32, Option<Vec<u8>>, Option<Vec<u8>>)>(), 1..20)) {
            let records: Vec<_> = records.into_iter().map(|(t, k, v)| (i64::from(t), k, v)).collect();
            let bytes = build(&records);
            let batch = BatchView::parse(&bytes).unwrap();
            prop_assert!(batch.crc_is_valid());
            prop_assert_eq!(batch.size_bytes(), bytes.len());
            prop_assert_eq!(batch.last_offset_delta() as usize + 1, records.len());
            prop_assert_eq!(batch.max_timestamp(), records.iter().map(|r| r.0).max().unwrap());
            let mut iter = RecordIter::new(batch.records_bytes(), batch.record_count());
            for (delta, (timestamp, key, value)) in records.iter().enumerate() {
                let record = iter.next().unwrap().unwrap();
                prop_assert_eq!(record.offset_delta as usize, delta);
                prop_assert_eq!(batch.base_timestamp() + record.timestamp_delta, *timestamp);
                prop_assert_eq!(record.key, key.as_deref());
                prop_assert_eq!(record.value, value.as_deref());
                let headers: Vec<_> = record.headers().collect();
                prop_assert_eq!(headers, vec![(&b"h"[..], None), (&b"h"[..], Some(&b"twice"[..]))]);
            }
            prop_assert!(iter.next().is_none());
            prop_assert_eq!(iter.remaining_bytes(), 0);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), count in any::<i32>()) {
            let _ = BatchView::parse(&bytes);
            let _ = BatchView::header_only(&bytes);
            let read = RecordIter::new(&bytes, count).map_while(Result::ok).filter(|r| r.headers().count() <= bytes.len()).count();
            prop_assert!(read <= bytes.len() / MIN_RECORD_BYTES);
        }
    }

    #[test]
    fn a_flipped_bit_fails_the_checksum_and_a_new_place_in_the_log_does_not() {
        let bytes = build(&[(1, None, Some(b"x".to_vec()))]);
        let batch = BatchView::parse(&bytes).unwrap();
        let mut header = BatchHeader::of(&batch);
        header.set_base_offset(99);
        header.set_partition_leader_epoch(4);
        let moved = [&header.0[..], batch.records_bytes()].concat();
        let moved = BatchView::parse(&moved).unwrap();
        assert!(moved.crc_is_valid());
        assert_eq!((moved.base_offset(), moved.partition_leader_epoch()), (99, 4));
        header.set_max_timestamp(1234, true);
        let stale = [&header.0[..], batch.records_bytes()].concat();
        assert!(!BatchView::parse(&stale).unwrap().crc_is_valid());
        header.update_crc(batch.records_bytes());
        let stamped = [&header.0[..], batch.records_bytes()].concat();
        let stamped = BatchView::parse(&stamped).unwrap();
        assert!(stamped.crc_is_valid() && stamped.is_log_append_time());
        assert_eq!(stamped.max_timestamp(), 1234);
    }

    #[test]
    fn i1_sequences_wrap_to_zero() {
        assert_eq!(increment_sequence(i32::MAX, 1), 0);
        assert_eq!(increment_sequence(i32::MAX - 1, 3), 1);
        assert_eq!(increment_sequence(-1, 3), -1);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
