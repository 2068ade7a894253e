//! Record batches (magic 2) as they are on the wire and on disk. Owns a view that copies nothing, an iterator over
//! records, a walk over records that keeps none of their bytes, and a builder for the broker's own batches. Leaves the
//! first 61 bytes to `batch_header.rs`.
//!
//! Batches of clients are stored unchanged; only base offset and leader epoch are replaced, which the checksum does not
//! cover. Leaves compression to `compression.rs`, and the check of clients' batches to `log/validator.rs`.

use std::io::{self, BufRead, Write};

use bytes::{BufMut, Bytes, BytesMut};

pub(crate) use super::batch_header::decrement_sequence;
pub use super::batch_header::{
    BatchError, BatchHeader, Compression, HEADER_BYTES, LOG_OVERHEAD_BYTES, MAGIC, crc32c, increment_sequence,
    size_of_batch_at,
};
use super::batch_header::{CONTROL_BIT, CRC_START, TRANSACTIONAL_BIT};
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// The size of the smallest record: length, attributes, two deltas, null key, null value, no headers.
pub const MIN_RECORD_BYTES: usize = 7;

/// A view of the bytes of exactly one batch. The header's length and magic are checked, the content is not.
#[derive(Clone, Copy)]
pub struct BatchView<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Returns the batch that starts at `bytes`, without the bytes after it.
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

    /// Size of header and records in bytes.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the stored checksum matches the bytes.
    pub fn crc_is_valid(&self) -> bool {
        self.crc() == crc32c(&self.bytes[CRC_START..])
    }

    /// The bytes of the records, compressed with the codec in the attributes.
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

/// Iterates over the batches in `bytes`. Ends at the first one that is truncated or malformed; [`Batches::position`] is
/// its position.
pub fn iter_batches(bytes: &[u8]) -> Batches<'_> {
    Batches { bytes, position: 0 }
}

/// See [`iter_batches`].
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Batches<'_> {
    /// The position after the last whole batch.
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
    /// Offset minus the batch's base offset.
    pub offset_delta: i32,
    /// Timestamp minus the batch's base timestamp.
    pub timestamp_delta: i64,
    /// `None` is null, not empty.
    pub key: Option<&'a [u8]>,
    /// `None` is null: a tombstone if the topic is compacted.
    pub value: Option<&'a [u8]>,
    /// Size of this record with its length prefix.
    pub size_bytes: usize,
    header_count: i32,
    header_bytes: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Key and value of each header, in order. A key may occur more than once.
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
    /// An iterator over the `count` records in `bytes`, which must be uncompressed.
    pub fn new(bytes: &'a [u8], count: i32) -> Self {
        RecordIter { cursor: Cursor(bytes), read: 0, count }
    }

    /// The number of bytes not read yet; 0 after the last record of a well-formed batch.
    pub fn remaining_bytes(&self) -> usize {
        self.cursor.0.len()
    }

    fn record(&mut self) -> Option<RecordView<'a>> {
        let before = self.cursor.0.len();
        let mut body = self.cursor.record_body()?;
        let Fields { timestamp_delta, offset_delta, key, value, header_count } = body.fields(&mut |_| {})?;
        let header_bytes = body.0;
        body.skip_headers(header_count)?;
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

/// The properties of a record that a walk returns without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordSummary {
    /// Offset minus the batch's base offset.
    pub offset_delta: i32,
    /// Timestamp minus the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Length of the key; `None` for null.
    pub key_bytes: Option<usize>,
    /// Length of the value; `None` for null.
    pub value_bytes: Option<usize>,
}

/// Why a walk ends before the last record.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A record's fields do not fit its length, or the bytes end within it.
    #[error("record {0} of the batch is malformed")]
    Record(i32),
    /// The bytes of the records cannot be read.
    #[error(transparent)]
    Source(#[from] io::Error),
}

/// Iterates over the records of a batch whose bytes are read piece by piece. A compressed batch is never completely in
/// memory, and a record may be larger than a piece. Ends after `count` records or at the first error.
pub struct RecordWalk<R> {
    source: R,
    read: i32,
    count: i32,
}

impl<R: BufRead> RecordWalk<R> {
    /// A walk over the `count` records in `source`, which must be uncompressed.
    pub fn new(source: R, count: i32) -> Self {
        RecordWalk { source, read: 0, count }
    }

    /// Whether all bytes have been read.
    ///
    /// # Errors
    /// If the source fails.
    pub fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(self.source.fill_buf()?.is_empty())
    }

    /// Copies the records to `sink`, with offset deltas from 0 on and timestamp deltas from the first record's
    /// timestamp, which is returned. `timestamp_of` computes a record's timestamp from its delta.
    ///
    /// # Errors
    /// If a record is malformed, or the source or the sink fails.
    pub fn renumber(
        mut self,
        timestamp_of: impl Fn(i64) -> TimestampMs,
        sink: &mut (impl Write + ?Sized),
    ) -> Result<TimestampMs, WalkError> {
        let mut base_timestamp = None;
        let mut start = RecordStart::default();
        for index in 0..self.count {
            let mut body = Pieces::of_record(&mut self.source);
            let Some((timestamp_delta, _)) = body.deltas() else { return Err(body.error(index)) };
            let timestamp_ms = timestamp_of(timestamp_delta);
            let base = *base_timestamp.get_or_insert(timestamp_ms);
            start.write(timestamp_ms.wrapping_sub(base), index, body.left, sink)?;
            if body.copy_rest(sink)?.is_none() {
                return Err(body.error(index));
            }
        }
        Ok(base_timestamp.unwrap_or(-1))
    }

    /// Copies the records that `is_kept` names by their position in the batch to `sink`, with their offset deltas and
    /// with `timestamp_shift` added to their timestamp deltas.
    ///
    /// # Errors
    /// If a record is malformed, or the source or the sink fails.
    pub fn filter(
        mut self,
        is_kept: impl Fn(usize) -> bool,
        timestamp_shift: i64,
        sink: &mut (impl Write + ?Sized),
    ) -> Result<(), WalkError> {
        let mut start = RecordStart::default();
        for index in 0..self.count {
            let mut body = Pieces::of_record(&mut self.source);
            let Some((timestamp_delta, offset_delta)) = body.deltas() else { return Err(body.error(index)) };
            let copied = match is_kept(index as usize) {
                true => {
                    start.write(timestamp_delta.wrapping_add(timestamp_shift), offset_delta, body.left, sink)?;
                    body.copy_rest(sink)?
                }
                false => body.copy_rest(&mut io::sink())?,
            };
            if copied.is_none() {
                return Err(body.error(index));
            }
        }
        Ok(())
    }

    /// The next record. Passes the bytes of its key to `on_key`, in pieces: a key may be larger than the memory for it.
    pub fn next_with_key(&mut self, on_key: &mut impl FnMut(&[u8])) -> Option<Result<RecordSummary, WalkError>> {
        if self.read >= self.count {
            return None;
        }
        let record = self.record(on_key);
        self.read = if record.is_ok() { self.read + 1 } else { self.count };
        Some(record)
    }

    #[inline]
    fn record(&mut self, on_key: &mut impl FnMut(&[u8])) -> Result<RecordSummary, WalkError> {
        // Almost all records are completely in one piece.
        let piece = self.source.fill_buf()?;
        let mut cursor = Cursor(piece);
        if let Some(mut body) = cursor.record_body() {
            let summary = body.summary(on_key, <[u8]>::len).ok_or(WalkError::Record(self.read))?;
            let bytes = piece.len() - cursor.0.len();
            self.source.consume(bytes);
            return Ok(summary);
        }
        let mut body = Pieces::of_record(&mut self.source);
        body.summary(on_key, |length| length).ok_or_else(|| body.error(self.read))
    }
}

/// Writes what comes before a record's key: its length, attributes and deltas.
#[derive(Default)]
struct RecordStart {
    fields: Vec<u8>,
    length: Vec<u8>,
}

impl RecordStart {
    /// `rest_bytes`: the size of key, value and headers.
    fn write(
        &mut self,
        timestamp_delta: i64,
        offset_delta: i32,
        rest_bytes: usize,
        sink: &mut (impl Write + ?Sized),
    ) -> io::Result<()> {
        self.fields.clear();
        self.fields.push(0); // Attributes.
        put_varlong(&mut self.fields, timestamp_delta);
        put_varlong(&mut self.fields, offset_delta.into());
        self.length.clear();
        put_varlong(&mut self.length, (self.fields.len() + rest_bytes) as i64);
        sink.write_all(&self.length)?;
        sink.write_all(&self.fields)
    }
}

impl<R: BufRead> Iterator for RecordWalk<R> {
    type Item = Result<RecordSummary, WalkError>;

    #[inline]
    fn next(&mut self) -> Option<Result<RecordSummary, WalkError>> {
        self.next_with_key(&mut |_| {})
    }
}

/// A record's fields up to its headers. `B` is the source's type for keys and values.
struct Fields<B> {
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<B>,
    value: Option<B>,
    header_count: i32,
}

/// The body of a record, which is read field by field. `None` means that a field is invalid or does not fit.
trait RecordBody {
    /// The result of reading a run of bytes: the bytes, or only their number.
    type Bytes;

    fn byte(&mut self) -> Option<u8>;
    fn take(&mut self, length: usize) -> Option<Self::Bytes>;
    /// Like `take`, and passes the bytes to `on_bytes`, in pieces.
    fn show(&mut self, length: usize, on_bytes: &mut impl FnMut(&[u8])) -> Option<Self::Bytes>;
    /// The number of bytes of the record that are not read yet.
    fn left(&self) -> usize;

    /// Reads the attributes, which this format does not use, then the deltas of timestamp and offset.
    #[inline]
    fn deltas(&mut self) -> Option<(i64, i32)> {
        self.byte()?;
        Some((self.varlong()?, self.varint()?))
    }

    #[inline]
    fn fields(&mut self, on_key: &mut impl FnMut(&[u8])) -> Option<Fields<Self::Bytes>> {
        let (timestamp_delta, offset_delta) = self.deltas()?;
        let key = match self.varint()? {
            -1 => None,
            length => Some(self.show(usize::try_from(length).ok()?, on_key)?),
        };
        let value = self.bytes()?;
        let header_count = self.varint()?;
        // Each header has at least two bytes, which limits the count.
        if header_count < 0 || header_count as usize > self.left() / 2 {
            return None;
        }
        Some(Fields { timestamp_delta, offset_delta, key, value, header_count })
    }

    /// Reads the rest of the record, which must be exactly `count` headers.
    #[inline]
    fn skip_headers(&mut self, count: i32) -> Option<()> {
        for _ in 0..count {
            self.bytes()??;
            self.bytes()?;
        }
        (self.left() == 0).then_some(())
    }

    #[inline]
    fn summary(
        &mut self,
        on_key: &mut impl FnMut(&[u8]),
        length: impl Fn(Self::Bytes) -> usize,
    ) -> Option<RecordSummary> {
        let Fields { timestamp_delta, offset_delta, key, value, header_count } = self.fields(on_key)?;
        self.skip_headers(header_count)?;
        Some(RecordSummary {
            offset_delta,
            timestamp_delta,
            key_bytes: key.map(&length),
            value_bytes: value.map(length),
        })
    }

    #[inline]
    fn varint(&mut self) -> Option<i32> {
        let raw = u32::try_from(self.unsigned(5)?).ok()?;
        Some((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    #[inline]
    fn varlong(&mut self) -> Option<i64> {
        let raw = self.unsigned(10)?;
        Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    #[inline]
    fn unsigned(&mut self, most_bytes: u32) -> Option<u64> {
        // Almost all varints have one byte.
        let mut byte = self.byte()?;
        let mut value = u64::from(byte & 0x7f);
        for at in 1..most_bytes {
            if byte < 0x80 {
                break;
            }
            byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << (7 * at);
        }
        (byte < 0x80).then_some(value)
    }

    /// `Some(None)` is null.
    #[inline]
    fn bytes(&mut self) -> Option<Option<Self::Bytes>> {
        match self.varint()? {
            -1 => Some(None),
            length => Some(Some(self.take(usize::try_from(length).ok()?)?)),
        }
    }
}

/// Bytes that are completely in memory.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// Returns the body of the record that starts here, if all of it is in memory.
    #[inline]
    fn record_body(&mut self) -> Option<Cursor<'a>> {
        let length = usize::try_from(self.varint()?).ok()?;
        self.take(length).map(Cursor)
    }
}

impl<'a> RecordBody for Cursor<'a> {
    type Bytes = &'a [u8];

    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    #[inline]
    fn show(&mut self, length: usize, on_bytes: &mut impl FnMut(&[u8])) -> Option<&'a [u8]> {
        self.take(length).inspect(|bytes| on_bytes(bytes))
    }

    #[inline]
    fn left(&self) -> usize {
        self.0.len()
    }
}

/// The body of a record that spans several pieces of a source. The bytes read are not kept.
struct Pieces<'a, R> {
    source: &'a mut R,
    left: usize,
    failed: Option<io::Error>,
}

impl<'a, R: BufRead> Pieces<'a, R> {
    /// Reads the record's length. If it is invalid, `left` is 0, so that the first field fails.
    fn of_record(source: &'a mut R) -> Self {
        const LENGTH_BYTES: usize = 5;
        let mut body = Pieces { source, left: LENGTH_BYTES, failed: None };
        body.left = body.varint().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        body
    }

    /// The reason why a field could not be read.
    fn error(&mut self, record: i32) -> WalkError {
        self.failed.take().map_or(WalkError::Record(record), WalkError::Source)
    }

    /// Returns the next piece, of at most `most` bytes; `None` if the source has no more bytes or fails.
    fn piece(&mut self, most: usize) -> Option<&[u8]> {
        match self.source.fill_buf() {
            Ok([]) => None,
            Ok(piece) => Some(&piece[..piece.len().min(most)]),
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }

    /// Copies the rest of the record; `Ok(None)` if the source ends before it.
    fn copy_rest(&mut self, sink: &mut (impl Write + ?Sized)) -> io::Result<Option<()>> {
        while self.left > 0 {
            let Some(piece) = self.piece(self.left) else { return Ok(None) };
            sink.write_all(piece)?;
            let bytes = piece.len();
            self.source.consume(bytes);
            self.left -= bytes;
        }
        Ok(Some(()))
    }
}

impl<R: BufRead> RecordBody for Pieces<'_, R> {
    type Bytes = usize;

    fn byte(&mut self) -> Option<u8> {
        self.left = self.left.checked_sub(1)?;
        let byte = self.piece(1)?[0];
        self.source.consume(1);
        Some(byte)
    }

    fn take(&mut self, length: usize) -> Option<usize> {
        self.show(length, &mut |_| {})
    }

    fn show(&mut self, length: usize, on_bytes: &mut impl FnMut(&[u8])) -> Option<usize> {
        self.left = self.left.checked_sub(length)?;
        let mut missing = length;
        while missing > 0 {
            let piece = self.piece(missing)?;
            on_bytes(piece);
            let bytes = piece.len();
            self.source.consume(bytes);
            missing -= bytes;
        }
        Some(length)
    }

    fn left(&self) -> usize {
        self.left
    }
}

/// The header fields of a batch that the broker writes.
#[derive(Clone, Copy, Debug)]
pub struct BatchOptions {
    /// 0 if the log assigns the offsets.
    pub base_offset: Offset,
    /// -1 if the log assigns it.
    pub leader_epoch: LeaderEpoch,
    /// The batch has control records, such as a transaction marker.
    pub control: bool,
    /// The batch is part of a transaction.
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

    /// Adds a record with the next offset.
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

    /// Size of the batch so far, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Number of records so far.
    pub fn record_count(&self) -> i32 {
        self.count
    }

    /// Returns the batch with its checksum.
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

/// Appends a zigzag varint. The encoding is the same for 32 and 64 bits.
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

        #[test]
        fn inv_s2_a_walk_by_pieces_sees_what_the_reader_sees(
            records in proptest::collection::vec(any::<(u32, Option<Vec<u8>>, Option<Vec<u8>>)>(), 1..20),
            damage in proptest::option::of(any::<(proptest::sample::Index, u8)>()),
            piece_bytes in 1..300_usize,
        ) {
            let records: Vec<_> = records.into_iter().map(|(t, k, v)| (i64::from(t), k, v)).collect();
            let mut bytes = build(&records)[HEADER_BYTES..].to_vec();
            if let Some((at, byte)) = damage {
                *at.get_mut(&mut bytes) = byte;
            }
            let count = records.len() as i32;
            let mut read = RecordIter::new(&bytes, count);
            let mut walk = RecordWalk::new(Few { bytes: &bytes, piece_bytes }, count);
            loop {
                match (read.next(), walk.next()) {
                    (None, None) => {
                        prop_assert_eq!(walk.is_at_end().unwrap(), read.remaining_bytes() == 0);
                        break;
                    }
                    (Some(Ok(record)), Some(Ok(seen))) => {
                        prop_assert_eq!((record.offset_delta, record.timestamp_delta), (seen.offset_delta, seen.timestamp_delta));
                        prop_assert_eq!((record.key.map(<[u8]>::len), record.value.map(<[u8]>::len)), (seen.key_bytes, seen.value_bytes));
                    }
                    (Some(Err(BatchError::Record(at))), Some(Err(WalkError::Record(seen)))) => {
                        prop_assert_eq!(at, seen);
                        break;
                    }
                    (read, walk) => panic!("{read:?}, but by pieces {walk:?}"),
                }
            }
        }

        #[test]
        fn p9_renumbered_records_are_those_that_a_builder_makes(
            records in proptest::collection::vec(any::<(u32, Option<Vec<u8>>, Option<Vec<u8>>)>(), 1..20),
            piece_bytes in 1..300_usize,
        ) {
            let records: Vec<_> = records.into_iter().map(|(t, k, v)| (i64::from(t), k, v)).collect();
            let built = build(&records);
            // As another producer could send it: other offset deltas, and another base of the timestamp deltas.
            let mut sent = Vec::new();
            for record in RecordIter::new(&built[HEADER_BYTES..], records.len() as i32) {
                let record = record.unwrap();
                let mut body = vec![7];
                put_varlong(&mut body, record.timestamp_delta + 1_000_000);
                put_varlong(&mut body, i64::from(record.offset_delta) * 1000);
                put_bytes(&mut body, record.key);
                put_bytes(&mut body, record.value);
                put_varlong(&mut body, record.headers().count() as i64);
                for (key, value) in record.headers() {
                    put_bytes(&mut body, Some(key));
                    put_bytes(&mut body, value);
                }
                put_varlong(&mut sent, body.len() as i64);
                sent.extend_from_slice(&body);
            }
            let mut renumbered = Vec::new();
            let walk = RecordWalk::new(Few { bytes: &sent, piece_bytes }, records.len() as i32);
            let base = walk.renumber(|delta| delta + records[0].0 - 1_000_000, &mut renumbered).unwrap();
            prop_assert_eq!(base, records[0].0);
            prop_assert_eq!(&renumbered[..], &built[HEADER_BYTES..]);
        }
    }

    /// A source that returns a few bytes at a time.
    struct Few<'a> {
        bytes: &'a [u8],
        piece_bytes: usize,
    }

    impl BufRead for Few<'_> {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            Ok(&self.bytes[..self.bytes.len().min(self.piece_bytes)])
        }

        fn consume(&mut self, bytes: usize) {
            self.bytes = &self.bytes[bytes..];
        }
    }

    impl io::Read for Few<'_> {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            unreachable!("the walk must not copy pieces")
        }
    }

    #[test]
    fn an_error_of_the_source_is_told_from_a_malformed_record() {
        struct Broken(&'static [u8]);
        impl BufRead for Broken {
            fn fill_buf(&mut self) -> io::Result<&[u8]> {
                if self.0.is_empty() { Err(io::ErrorKind::InvalidData.into()) } else { Ok(&self.0[..1]) }
            }
            fn consume(&mut self, bytes: usize) {
                self.0 = &self.0[bytes..];
            }
        }
        impl io::Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                unreachable!()
            }
        }
        // Length, attributes, deltas, a null key, and half of a value; at the end a record of length 0.
        for cut in 0..6 {
            let bytes = &[20, 0, 0, 0, 1, 4][..cut];
            assert!(matches!(RecordWalk::new(Broken(bytes), 1).next(), Some(Err(WalkError::Source(_)))), "{cut}");
            assert!(matches!(
                RecordWalk::new(Broken(bytes), 1).renumber(|d| d, &mut io::sink()),
                Err(WalkError::Source(_))
            ));
            assert!(matches!(RecordWalk::new(bytes, 1).next(), Some(Err(WalkError::Record(0)))), "{cut}");
        }
        assert!(matches!(RecordWalk::new(Broken(&[0]), 1).next(), Some(Err(WalkError::Record(0)))));
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
