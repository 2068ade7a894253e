//! Reads and writes the primitive types of Kafka's coordinator records, in non-flexible and flexible (compact)
//! versions.
//!
//! No read goes beyond the record, and no memory is allocated by a count from disk.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::types::TopicId;

/// The reason why the bytes of a record do not match their version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CodecError {
    #[error("the record ends too early")]
    Truncated,
    #[error("a length is negative or larger than the record")]
    BadLength,
    #[error("a string is not UTF-8")]
    NotUtf8,
    #[error("a variable-length number is too long")]
    BadVarint,
}

/// A cursor over one key or value.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// Whether lengths are compact and structs have tagged fields (KIP-482).
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes, flexible: false }
    }

    pub(crate) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], CodecError> {
        let (head, tail) = self.rest.split_at_checked(length).ok_or(CodecError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(CodecError::Truncated)?;
        self.rest = tail;
        Ok(*head)
    }

    pub(crate) fn int16(&mut self) -> Result<i16, CodecError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn int32(&mut self) -> Result<i32, CodecError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn int64(&mut self) -> Result<i64, CodecError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn uuid(&mut self) -> Result<TopicId, CodecError> {
        self.array().map(|bytes| TopicId(uuid::Uuid::from_bytes(bytes)))
    }

    pub(crate) fn unsigned_varint(&mut self) -> Result<u32, CodecError> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            if shift == 28 && byte > 0x0f {
                return Err(CodecError::BadVarint);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CodecError::BadVarint)
    }

    /// Reads a length in the format of this version; `None` is null. `wide` lengths are int32 if not compact.
    fn length(&mut self, wide: bool) -> Result<Option<usize>, CodecError> {
        let length = if self.flexible {
            i64::from(self.unsigned_varint()?) - 1
        } else if wide {
            i64::from(self.int32()?)
        } else {
            i64::from(self.int16()?)
        };
        match length {
            -1 => Ok(None),
            ..-1 => Err(CodecError::BadLength),
            0.. => usize::try_from(length).map(Some).map_err(|_| CodecError::BadLength),
        }
    }

    pub(crate) fn nullable_string(&mut self) -> Result<Option<&'a str>, CodecError> {
        match self.length(false)? {
            None => Ok(None),
            Some(length) => str::from_utf8(self.take(length)?).map(Some).map_err(|_| CodecError::NotUtf8),
        }
    }

    pub(crate) fn string(&mut self) -> Result<&'a str, CodecError> {
        self.nullable_string()?.ok_or(CodecError::BadLength)
    }

    pub(crate) fn shared_string(&mut self) -> Result<Arc<str>, CodecError> {
        self.string().map(|text| if text.is_empty() { Arc::default() } else { Arc::from(text) })
    }

    pub(crate) fn nullable_shared_string(&mut self) -> Result<Option<Arc<str>>, CodecError> {
        Ok(self.nullable_string()?.map(Arc::from))
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, CodecError> {
        let length = self.length(true)?.ok_or(CodecError::BadLength)?;
        self.take(length).map(Bytes::copy_from_slice)
    }

    /// Reads the length of an array whose elements take at least `element_bytes` each.
    pub(crate) fn array_length(&mut self, element_bytes: usize) -> Result<usize, CodecError> {
        let count = self.length(true)?.ok_or(CodecError::BadLength)?;
        if count.saturating_mul(element_bytes) > self.remaining() {
            return Err(CodecError::BadLength);
        }
        Ok(count)
    }

    /// Reads the tagged fields. Calls `known` with each tag and a reader over exactly its bytes.
    pub(crate) fn tagged_fields(
        &mut self,
        mut known: impl FnMut(u32, &mut Reader<'a>) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        if !self.flexible {
            return Ok(());
        }
        let count = self.unsigned_varint()?;
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            let mut field = Reader { rest: self.take(size)?, flexible: true };
            known(tag, &mut field)?;
        }
        Ok(())
    }
}

/// Builds one key or value.
pub(crate) struct Writer {
    bytes: Vec<u8>,
    flexible: bool,
}

impl Writer {
    pub(crate) fn new(version: i16, flexible: bool) -> Self {
        let mut writer = Writer { bytes: Vec::with_capacity(64), flexible };
        writer.int16(version);
        writer
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn int16(&mut self, value: i16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn int32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn int64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn uuid(&mut self, value: TopicId) {
        self.bytes.extend_from_slice(value.0.as_bytes());
    }

    pub(crate) fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Lengths come from requests that were decoded with the same limits, so they fit. A longer one is a bug and
    /// panics.
    fn length(&mut self, length: Option<usize>, wide: bool) {
        if self.flexible {
            let compact = length.map_or(0, |length| length + 1);
            self.unsigned_varint(u32::try_from(compact).expect("a record field must be shorter than 4 GiB"));
        } else if wide {
            self.int32(length.map_or(-1, |l| i32::try_from(l).expect("a bytes field must be shorter than 2 GiB")));
        } else {
            self.int16(length.map_or(-1, |l| i16::try_from(l).expect("a string field must be shorter than 32 KiB")));
        }
    }

    pub(crate) fn string(&mut self, value: &str) {
        self.nullable_string(Some(value));
    }

    pub(crate) fn nullable_string(&mut self, value: Option<&str>) {
        self.length(value.map(str::len), false);
        self.bytes.extend_from_slice(value.unwrap_or_default().as_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.length(Some(value.len()), true);
        self.bytes.extend_from_slice(value);
    }

    pub(crate) fn array_length(&mut self, count: usize) {
        self.length(Some(count), true);
    }

    /// Writes the tagged fields of a struct, which has at most this one.
    pub(crate) fn single_tagged_field(&mut self, tag: u32, field: Option<TopicId>) {
        match field {
            None => self.unsigned_varint(0),
            Some(id) => {
                self.unsigned_varint(1);
                self.unsigned_varint(tag);
                self.unsigned_varint(16);
                self.uuid(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_beyond_the_record_are_errors_not_allocations() {
        assert_eq!(Reader::new(&[0x7f, 0xff, b'x']).string(), Err(CodecError::Truncated));
        assert_eq!(Reader::new(&[0xff, 0xfe]).nullable_string(), Err(CodecError::BadLength));
        assert_eq!(Reader::new(&[0x7f, 0xff, 0xff, 0xff]).array_length(1), Err(CodecError::BadLength));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).unsigned_varint(), Err(CodecError::BadVarint));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).unsigned_varint(), Ok(u32::MAX));
    }
}
