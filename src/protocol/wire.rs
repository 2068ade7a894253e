//! Reading and writing of Kafka's primitive types, the base of all codecs in this layer.
//!
//! A [`Reader`] owns the frame and returns slices of it. It uses memory only in proportion to the bytes that are really
//! there: a count is checked against the remaining bytes and charged to a budget before anything is allocated. A
//! [`Writer`] fills one buffer and stores the positions at which other pieces (records) must be inserted.

use std::ops::RangeInclusive;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::part::Part;
use crate::types::TopicId;

/// The maximum length of a string in Kafka, also in the compact form (the generated readers of Kafka check it).
pub const MAX_STRING_BYTES: usize = i16::MAX as usize;
/// The maximum number of tagged fields in one struct. Kafka defines at most four; its own reader has no limit
/// (CVE-2026-111115).
pub const MAX_TAGS_PER_STRUCT: usize = 128;
/// The maximum number of tagged fields in one message. A [`Reader`] counts only unknown ones: a follower names
/// thousands of partitions, each of them with a tagged field.
pub const MAX_TAGS_PER_MESSAGE: usize = 4096;
/// The maximum number of elements in all arrays of one request. The cost of a request grows with them, and no client of
/// one broker needs more: it would have to name 200,000 partitions at once.
pub const MAX_ELEMENTS_PER_MESSAGE: usize = 200_000;

/// Why bytes are not a valid message. The connection is closed, as in Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before a field does.
    #[error("the message ends within a field")]
    Truncated,
    /// A length or count is invalid.
    #[error("a length of {0} is invalid here")]
    Length(i64),
    /// A field is null, but not nullable.
    #[error("null in a field that must have a value")]
    Null,
    /// The byte before a nullable struct is neither 1 nor negative.
    #[error("the byte {0} before a nullable struct is neither 1 nor negative")]
    Presence(i8),
    /// A varint has more than five bytes or more than 32 bits.
    #[error("a variable-length number is too long")]
    Varint,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// There are more tagged fields than any message of Kafka has.
    #[error("too many tagged fields")]
    TooManyTags,
    /// A tag is negative as an `int`, Kafka's type for it. kafka-protocol reads such tags but does not write them.
    #[error("{0} is too large for the tag of a field")]
    Tag(u32),
    /// The content of a known tagged field does not have the declared size.
    #[error("tagged field {0} does not have its declared size")]
    TagSize(u32),
    /// The decoded message would need far too much memory for the number of its bytes.
    #[error("the message would take too much memory")]
    TooLarge,
    /// The arrays of the message have too many elements.
    #[error("the message has more than {MAX_ELEMENTS_PER_MESSAGE} array elements")]
    TooManyElements,
    /// This codec does not support the version.
    #[error("version {0} is not supported")]
    Version(i16),
}

/// The maximum memory for decoding a message of this size. Valid messages need less than sixteen times their size, and
/// the largest of them (hundreds of thousands of partitions) far less than the constant limit.
pub(super) fn memory_budget_bytes(message_bytes: usize) -> usize {
    const SMALL_MESSAGE_BYTES: usize = 1024 * 1024;
    const MOST_BYTES: usize = 128 * 1024 * 1024;
    SMALL_MESSAGE_BYTES.saturating_add(message_bytes.saturating_mul(16)).min(MOST_BYTES)
}

/// The tag of a field, if it can be one.
///
/// # Errors
/// [`DecodeError::Tag`].
pub(super) fn tag(number: u32) -> Result<u32> {
    if i32::try_from(number).is_ok() { Ok(number) } else { Err(DecodeError::Tag(number)) }
}

/// A bounded cursor over one message.
#[derive(Debug)]
pub struct Reader {
    bytes: Bytes,
    /// The version has compact lengths and tagged fields (KIP-482).
    flexible: bool,
    memory_left_bytes: usize,
    elements_left: usize,
    tags_left: usize,
}

type Result<T> = std::result::Result<T, DecodeError>;

impl Reader {
    /// A reader at the first byte of a message. `flexible` versions have compact lengths and tagged fields.
    pub fn new(bytes: Bytes, flexible: bool) -> Self {
        let memory_left_bytes = memory_budget_bytes(bytes.len());
        Self {
            bytes,
            flexible,
            memory_left_bytes,
            elements_left: MAX_ELEMENTS_PER_MESSAGE,
            tags_left: MAX_TAGS_PER_MESSAGE,
        }
    }

    /// Reads a message from `body`. `version` must be one of `versions`. Bytes after the message are ignored, as in
    /// Kafka.
    pub fn message<T>(
        body: Bytes,
        version: i16,
        versions: RangeInclusive<i16>,
        first_flexible: i16,
        fields: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        if !versions.contains(&version) {
            return Err(DecodeError::Version(version));
        }
        Reader::new(body, version >= first_flexible).structure(fields)
    }

    /// Reads the fields of a struct, and skips the tagged fields at its end.
    pub fn structure<T>(&mut self, fields: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let value = fields(self)?;
        self.skip_tags()?;
        Ok(value)
    }

    /// Reads a topic: its id if the version has ids (KIP-516), else its name.
    pub fn topic(&mut self, by_id: bool) -> Result<(StrBytes, TopicId)> {
        Ok(if by_id { (StrBytes::new(), self.topic_id()?) } else { (self.string()?, TopicId::ZERO) })
    }

    /// The number of bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the bytes that were not read. Kafka ignores bytes after a message.
    pub fn into_rest(self) -> Bytes {
        self.bytes
    }

    fn need(&self, bytes: usize) -> Result<()> {
        if self.bytes.len() < bytes { Err(DecodeError::Truncated) } else { Ok(()) }
    }

    pub fn i8(&mut self) -> Result<i8> {
        self.need(1)?;
        Ok(self.bytes.get_i8())
    }

    /// Reads one byte. Every value except 0 is true, as in Kafka.
    pub fn bool(&mut self) -> Result<bool> {
        Ok(self.i8()? != 0)
    }

    pub fn i16(&mut self) -> Result<i16> {
        self.need(2)?;
        Ok(self.bytes.get_i16())
    }

    pub fn i32(&mut self) -> Result<i32> {
        self.need(4)?;
        Ok(self.bytes.get_i32())
    }

    pub fn i64(&mut self) -> Result<i64> {
        self.need(8)?;
        Ok(self.bytes.get_i64())
    }

    pub fn uuid(&mut self) -> Result<Uuid> {
        self.need(16)?;
        Ok(Uuid::from_u128(self.bytes.get_u128()))
    }

    pub fn topic_id(&mut self) -> Result<TopicId> {
        self.uuid().map(TopicId)
    }

    pub fn unsigned_varint(&mut self) -> Result<u32> {
        let (value, bytes) = unsigned_varint(&self.bytes)?;
        self.bytes.advance(bytes);
        Ok(value)
    }

    /// The length before a string; None for null.
    fn string_length(&mut self) -> Result<Option<usize>> {
        let length = if self.flexible { i64::from(self.unsigned_varint()?) - 1 } else { i64::from(self.i16()?) };
        match usize::try_from(length) {
            Ok(length) if length <= MAX_STRING_BYTES => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            _ => Err(DecodeError::Length(length)),
        }
    }

    /// The length before bytes, or the count before an array; None for null.
    fn length(&mut self) -> Result<Option<usize>> {
        let length = if self.flexible { i64::from(self.unsigned_varint()?) - 1 } else { i64::from(self.i32()?) };
        match usize::try_from(length) {
            Ok(length) if length <= self.bytes.len() => Ok(Some(length)),
            Ok(_) => Err(DecodeError::Truncated),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(DecodeError::Length(length)),
        }
    }

    fn take(&mut self, length: usize) -> Result<Bytes> {
        self.need(length)?;
        Ok(self.bytes.split_to(length))
    }

    pub fn nullable_string(&mut self) -> Result<Option<StrBytes>> {
        let Some(length) = self.string_length()? else { return Ok(None) };
        StrBytes::from_utf8(self.take(length)?).map(Some).map_err(|_| DecodeError::Utf8)
    }

    pub fn string(&mut self) -> Result<StrBytes> {
        self.nullable_string()?.ok_or(DecodeError::Null)
    }

    /// Returns a slice of the message, without a copy.
    pub fn nullable_bytes(&mut self) -> Result<Option<Bytes>> {
        let Some(length) = self.length()? else { return Ok(None) };
        self.take(length).map(Some)
    }

    pub fn bytes(&mut self) -> Result<Bytes> {
        self.nullable_bytes()?.ok_or(DecodeError::Null)
    }

    /// Reads an array whose elements have at least `min_element_bytes` on the wire.
    pub fn nullable_array<T>(
        &mut self,
        min_element_bytes: usize,
        mut element: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(count) = self.length()? else { return Ok(None) };
        if count > self.bytes.len() / min_element_bytes {
            return Err(DecodeError::Truncated);
        }
        self.elements_left = self.elements_left.checked_sub(count).ok_or(DecodeError::TooManyElements)?;
        self.memory_left_bytes = count
            .checked_mul(size_of::<T>())
            .and_then(|bytes| self.memory_left_bytes.checked_sub(bytes))
            .ok_or(DecodeError::TooLarge)?;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    pub fn array<T>(
        &mut self,
        min_element_bytes: usize,
        element: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.nullable_array(min_element_bytes, element)?.ok_or(DecodeError::Null)
    }

    /// Skips the tagged fields at the end of a struct, if the version has tagged fields.
    pub fn skip_tags(&mut self) -> Result<()> {
        self.tags(|_, _| Ok(false))
    }

    /// Reads the tagged fields at the end of a struct. `known` reads a field and returns true, or returns false for an
    /// unknown field, which is skipped. A known field must have exactly its declared size.
    pub fn tags(&mut self, mut known: impl FnMut(u32, &mut Self) -> Result<bool>) -> Result<()> {
        if !self.flexible {
            return Ok(());
        }
        let count = self.unsigned_varint()? as usize;
        if count > MAX_TAGS_PER_STRUCT {
            return Err(DecodeError::TooManyTags);
        }
        for _ in 0..count {
            let tag = tag(self.unsigned_varint()?)?;
            let size = self.unsigned_varint()? as usize;
            let after = self.bytes.len().checked_sub(size).ok_or(DecodeError::Truncated)?;
            let behind = self.bytes.split_off(size);
            let is_known = known(tag, self)?;
            if is_known && !self.bytes.is_empty() {
                return Err(DecodeError::TagSize(tag));
            }
            if !is_known {
                self.tags_left = self.tags_left.checked_sub(1).ok_or(DecodeError::TooManyTags)?;
            }
            debug_assert_eq!(behind.len(), after);
            self.bytes = behind;
        }
        Ok(())
    }
}

/// Reads an unsigned varint. Returns its value and its size in bytes.
pub(super) fn unsigned_varint(bytes: &[u8]) -> Result<(u32, usize)> {
    let mut value: u64 = 0;
    for at in 0..5 {
        let byte = *bytes.get(at).ok_or(DecodeError::Truncated)?;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((u32::try_from(value).map_err(|_| DecodeError::Varint)?, at + 1));
        }
    }
    Err(DecodeError::Varint)
}

/// Writes one message.
#[derive(Debug)]
pub struct Writer {
    buffer: BytesMut,
    flexible: bool,
    /// Pieces that are not in `buffer`, each with the position in `buffer` before which it is inserted.
    pieces: Vec<(usize, Part)>,
}

impl Writer {
    /// An empty message. `capacity_bytes` is an estimate of its size without the inserted pieces.
    pub fn new(flexible: bool, capacity_bytes: usize) -> Self {
        Self { buffer: BytesMut::with_capacity(capacity_bytes), flexible, pieces: Vec::new() }
    }

    pub fn i8(&mut self, value: i8) {
        self.buffer.put_i8(value);
    }

    /// Bytes as they are; the caller writes their length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
    }

    pub fn bool(&mut self, value: bool) {
        self.buffer.put_u8(u8::from(value));
    }

    pub fn i16(&mut self, value: i16) {
        self.buffer.put_i16(value);
    }

    pub fn i32(&mut self, value: i32) {
        self.buffer.put_i32(value);
    }

    pub fn i64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }

    pub fn topic_id(&mut self, value: TopicId) {
        self.buffer.put_u128(value.0.as_u128());
    }

    pub fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buffer.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(value as u8);
    }

    /// Writes a string. Text that is too long for Kafka's strings is cut at a character boundary.
    pub fn string(&mut self, value: &str) {
        let mut end = value.len().min(MAX_STRING_BYTES);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        let value = &value[..end];
        if self.flexible {
            self.unsigned_varint(value.len() as u32 + 1);
        } else {
            self.buffer.put_i16(value.len() as i16);
        }
        self.buffer.put_slice(value.as_bytes());
    }

    pub fn nullable_string(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.string(value),
            None if self.flexible => self.buffer.put_u8(0),
            None => self.buffer.put_i16(-1),
        }
    }

    /// Writes the count before an array, or the length before bytes.
    pub fn length(&mut self, length: usize) {
        if self.flexible {
            self.unsigned_varint(length as u32 + 1);
        } else {
            self.buffer.put_i32(length as i32);
        }
    }

    pub fn null_length(&mut self) {
        if self.flexible {
            self.buffer.put_u8(0);
        } else {
            self.buffer.put_i32(-1);
        }
    }

    pub fn array<T>(&mut self, elements: &[T], mut element: impl FnMut(&mut Self, &T)) {
        self.length(elements.len());
        for each in elements {
            element(self, each);
        }
    }

    /// Writes the number of an array's elements, which the caller writes itself.
    pub fn count(&mut self, count: usize) {
        self.length(count);
    }

    pub fn nullable_array<T>(&mut self, elements: Option<&[T]>, element: impl FnMut(&mut Self, &T)) {
        match elements {
            Some(elements) => self.array(elements, element),
            None => self.null_length(),
        }
    }

    /// Ends a struct without tagged fields.
    pub fn no_tags(&mut self) {
        if self.flexible {
            self.buffer.put_u8(0);
        }
    }

    /// Writes the number of tagged fields that follow.
    pub fn tag_count(&mut self, count: usize) {
        self.unsigned_varint(count as u32);
    }

    /// Writes one tagged field. Fields must be written in the order of their tags.
    pub fn tag(&mut self, tag: u32, content: impl FnOnce(&mut Self)) {
        let mut field = Writer::new(self.flexible, 32);
        content(&mut field);
        self.unsigned_varint(tag);
        self.unsigned_varint(field.buffer.len() as u32);
        self.buffer.unsplit(field.buffer);
    }

    /// Inserts a piece at this position without copying it. The caller writes its length field.
    pub fn piece(&mut self, part: Part) {
        if !part.is_empty() {
            self.pieces.push((self.buffer.len(), part));
        }
    }

    /// Returns the message. No piece may have been inserted.
    pub fn into_bytes(self) -> Bytes {
        debug_assert!(self.pieces.is_empty());
        self.buffer.freeze()
    }

    /// Returns the parts of the message in the order of the wire: slices of the buffer, with the pieces between them.
    pub fn into_parts(self) -> Vec<Part> {
        let mut rest = self.buffer.freeze();
        let mut parts = Vec::with_capacity(self.pieces.len() * 2 + 1);
        let mut written = 0;
        for (at, piece) in self.pieces {
            if at > written {
                parts.push(Part::Bytes(rest.split_to(at - written)));
                written = at;
            }
            parts.push(piece);
        }
        if !rest.is_empty() {
            parts.push(Part::Bytes(rest));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &'static [u8], flexible: bool) -> Reader {
        Reader::new(Bytes::from_static(bytes), flexible)
    }

    #[test]
    fn primitives_survive_the_way_there_and_back_in_both_forms() {
        for flexible in [false, true] {
            let mut writer = Writer::new(flexible, 0);
            writer.i8(-3);
            writer.bool(true);
            writer.i16(i16::MIN);
            writer.i32(7);
            writer.i64(i64::MAX);
            writer.topic_id(TopicId(Uuid::from_u128(42)));
            writer.string("ottla");
            writer.nullable_string(None);
            writer.array(&[1, 2, 3], |w, v| w.i32(*v));
            writer.nullable_array::<i32>(None, |w, v| w.i32(*v));
            writer.no_tags();
            let mut reader = Reader::new(writer.into_bytes(), flexible);
            assert_eq!(reader.i8(), Ok(-3));
            assert_eq!(reader.bool(), Ok(true));
            assert_eq!(reader.i16(), Ok(i16::MIN));
            assert_eq!(reader.i32(), Ok(7));
            assert_eq!(reader.i64(), Ok(i64::MAX));
            assert_eq!(reader.topic_id(), Ok(TopicId(Uuid::from_u128(42))));
            assert_eq!(reader.string().unwrap().as_str(), "ottla");
            assert_eq!(reader.nullable_string(), Ok(None));
            assert_eq!(reader.array(4, Reader::i32), Ok(vec![1, 2, 3]));
            assert_eq!(reader.nullable_array(4, Reader::i32), Ok(None));
            assert_eq!(reader.skip_tags(), Ok(()));
            assert_eq!(reader.remaining(), 0);
        }
    }

    #[test]
    fn counts_beyond_the_bytes_are_refused_before_memory_is_taken() {
        assert_eq!(reader(&[0x7f, 0xff, 0xff, 0xff, 1, 2], false).array(1, Reader::i8), Err(DecodeError::Truncated));
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x0f], true).array(1, Reader::i8), Err(DecodeError::Truncated));
        assert_eq!(reader(&[0, 0, 0, 2, 0, 0, 0, 1], false).array(4, Reader::i32), Err(DecodeError::Truncated));
        assert_eq!(reader(&[0xff, 0xff, 0xff, 0xfe], false).array(1, Reader::i8), Err(DecodeError::Length(-2)));
        assert_eq!(reader(&[0xff, 0xfe], false).nullable_string(), Err(DecodeError::Length(-2)));
        assert_eq!(reader(&[0xff, 0xff], false).string(), Err(DecodeError::Null));
    }

    #[test]
    fn many_elements_of_little_content_exceed_the_budget() {
        let array = |count: usize| {
            let mut bytes = vec![0_u8; 4 + count];
            bytes[..4].copy_from_slice(&(count as i32).to_be_bytes());
            Reader::new(bytes.into(), false)
        };
        let refused = array(MAX_ELEMENTS_PER_MESSAGE).array(1, |r| r.i8().map(|_| [0_u8; 64]));
        assert_eq!(refused.unwrap_err(), DecodeError::TooLarge);
        assert_eq!(array(MAX_ELEMENTS_PER_MESSAGE).array(1, Reader::i8).unwrap().len(), MAX_ELEMENTS_PER_MESSAGE);
        let refused = array(MAX_ELEMENTS_PER_MESSAGE + 1).array(1, Reader::i8);
        assert_eq!(refused.unwrap_err(), DecodeError::TooManyElements);
    }

    #[test]
    fn varints_end_within_five_bytes_and_32_bits() {
        assert_eq!(unsigned_varint(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok((u32::MAX, 5)));
        assert_eq!(unsigned_varint(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(DecodeError::Varint));
        assert_eq!(unsigned_varint(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]), Err(DecodeError::Varint));
        assert_eq!(unsigned_varint(&[0x80]), Err(DecodeError::Truncated));
    }

    #[test]
    fn tags_are_bounded_in_number_and_size() {
        // Two tags: 7 unknown with 2 bytes, 1 known with one byte.
        let mut seen = None;
        let mut tags = reader(&[2, 7, 2, 9, 9, 1, 1, 5], true);
        assert_eq!(
            tags.tags(|tag, r| if tag == 1 {
                seen = Some(r.i8()?);
                Ok(true)
            } else {
                Ok(false)
            }),
            Ok(())
        );
        assert_eq!((seen, tags.remaining()), (Some(5), 0));
        // A known field whose content is shorter than its size, and one whose content is longer.
        assert_eq!(reader(&[1, 1, 2, 5, 5], true).tags(|_, r| r.i8().map(|_| true)), Err(DecodeError::TagSize(1)));
        assert_eq!(reader(&[1, 1, 1, 5, 5], true).tags(|_, r| r.i16().map(|_| true)), Err(DecodeError::Truncated));
        assert_eq!(reader(&[1, 1, 9, 5], true).skip_tags(), Err(DecodeError::Truncated));
        assert_eq!(reader(&[0x81, 0x01], true).skip_tags(), Err(DecodeError::TooManyTags));
        assert_eq!(reader(&[1, 0xff, 0xff, 0xff, 0xff, 7, 0], true).skip_tags(), Ok(()));
        assert_eq!(reader(&[1, 0x80, 0x80, 0x80, 0x80, 8, 0], true).skip_tags(), Err(DecodeError::Tag(1 << 31)));
        assert_eq!(reader(&[], false).skip_tags(), Ok(()));
    }

    #[test]
    fn pieces_stand_where_they_were_put() {
        let mut writer = Writer::new(false, 0);
        writer.piece(Part::Bytes(Bytes::from_static(b"a")));
        writer.i8(1);
        writer.piece(Part::Bytes(Bytes::new()));
        writer.piece(Part::Bytes(Bytes::from_static(b"b")));
        writer.piece(Part::Bytes(Bytes::from_static(b"c")));
        writer.i8(2);
        let parts: Vec<Bytes> = writer
            .into_parts()
            .into_iter()
            .map(|part| match part {
                Part::Bytes(bytes) => bytes,
                Part::File { .. } => unreachable!(),
            })
            .collect();
        assert_eq!(parts.concat(), b"a\x01bc\x02");
        assert_eq!(parts.len(), 5);
    }

    #[test]
    fn strings_too_long_for_the_wire_are_cut_at_a_character() {
        let mut writer = Writer::new(false, 0);
        writer.string(&"ö".repeat(20_000));
        assert_eq!(Reader::new(writer.into_bytes(), false).string().unwrap().len(), 32_766);
    }
}
