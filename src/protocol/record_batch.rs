//! Record batches (magic 2) as they are on the wire and on disk: a view that copies nothing,
//! an iterator over records, and a builder for the batches the broker writes itself. Their first 61
//! bytes are `batch_header.rs`'s.
//!
//! Batches of clients are stored as they came; only base offset and leader epoch, which the
//! checksum leaves out, are replaced. Compression is `compression.rs`; what a client's batch
//! must satisfy is `log/validator.rs`.

use bytes::{BufMut, Bytes, BytesMut};

pub(crate) use super::batch_header::decrement_sequence;
pub use super::batch_header::{
    BatchError, BatchHeader, Compression, HEADER_BYTES, LOG_OVERHEAD_BYTES, MAGIC, crc32c, increment_sequence,
    size_of_batch_at,
};
use super::batch_header::{CONTROL_BIT, CRC_START, TRANSACTIONAL_BIT};
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// The smallest record: length, attributes, two deltas, null key, null value, no headers.
pub const MIN_RECORD_BYTES: usize = 7;

/// One batch in somebody else's bytes: exactly the bytes of the batch, header checked for
/// bounds and magic, content not.
#[derive(Clone, Copy)]
pub struct BatchView<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// The batch that starts at `bytes`; whatever follows it is left out.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let size = size_of_batch_at(bytes)?;
        let header = BatchHeader::copy_of(bytes).ok_or(BatchError::Truncated)?;
        if header.magic() != MAGIC {
            return Err(BatchError::Magic(header.magic()));
        }
        let bytes = bytes.get(..size).ok_or(BatchError::Truncated)?;
        Ok(BatchView { header, bytes })
    }

    /// All bytes of the batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Header and records.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the checksum is that of the bytes.
    pub fn crc_is_valid(&self) -> bool {
        self.crc() == crc32c(&self.bytes[CRC_START..])
    }

    /// The records, compressed as the attributes say.
    pub fn records_bytes(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }
}

impl std::ops::Deref for BatchView<'_> {
    type Target = BatchHeader;

    fn deref(&self) -> &BatchHeader {
        &self.header
    }
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
        let crc = crc32c(&self.buffer[CRC_START..]);
        self.buffer[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
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
            let read = RecordIter::new(&bytes, count).map_while(Result::ok).filter(|r| r.headers().count() <= bytes.len()).count();
            prop_assert!(read <= bytes.len() / MIN_RECORD_BYTES);
        }
    }

    #[test]
    fn a_flipped_bit_fails_the_checksum_and_a_new_place_in_the_log_does_not() {
        let bytes = build(&[(1, None, Some(b"x".to_vec()))]);
        let batch = BatchView::parse(&bytes).unwrap();
        let mut header = *batch;
        header.place(99, 4);
        let moved = [&header.bytes()[..], batch.records_bytes()].concat();
        let moved = BatchView::parse(&moved).unwrap();
        assert!(moved.crc_is_valid());
        assert_eq!((moved.base_offset(), moved.partition_leader_epoch()), (99, 4));
        header.set_max_timestamp(true, 1234);
        let stale = [&header.bytes()[..], batch.records_bytes()].concat();
        assert!(!BatchView::parse(&stale).unwrap().crc_is_valid());
        header.set_crc(batch.records_bytes());
        let stamped = [&header.bytes()[..], batch.records_bytes()].concat();
        let stamped = BatchView::parse(&stamped).unwrap();
        assert!(stamped.crc_is_valid() && stamped.is_log_append_time());
        assert_eq!(stamped.max_timestamp(), 1234);
    }
}
