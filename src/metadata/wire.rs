//! The flexible-version encoding of Kafka's metadata and control records, with bounded reads.
//!
//! Owns unsigned varints, compact strings and arrays, tagged fields, and the `record_struct!` macro, which makes a
//! struct with `read` and `write` from a list of fields. Counts are not trusted: no allocation has a size that was read
//! from disk, so a damaged record causes an error and does not abort the process. Leaves the records to `records.rs`.

use uuid::Uuid;

/// Kafka allows any number of tagged fields, but its records have only a few.
const MAX_TAGGED_FIELDS: u32 = 128;

/// Why bytes are not a valid record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the record ends within a field")]
    Truncated,
    #[error("{0} byte(s) of garbage after the record")]
    TrailingBytes(usize),
    #[error("a varint is longer than its type allows")]
    Varint,
    #[error("a string is not UTF-8")]
    Utf8,
    #[error("a field that must not be null is null")]
    Null,
    #[error("too many tagged fields")]
    TooManyTags,
    #[error("unknown frame version {0} (only 1 is known)")]
    FrameVersion(u32),
    #[error("unknown metadata record type {0}")]
    UnknownType(u32),
    #[error("{name} has no version {version}")]
    Version { name: &'static str, version: u32 },
}

/// A cursor over one record's bytes.
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes }
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        if count > self.bytes.len() {
            return Err(RecordError::Truncated);
        }
        let (head, tail) = self.bytes.split_at(count);
        self.bytes = tail;
        Ok(head)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let head = self.take(N)?;
        head.try_into().map_err(|_| RecordError::Truncated)
    }

    pub fn unsigned_varint(&mut self) -> Result<u32, RecordError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.take_array::<1>()?[0];
            if shift == 28 && byte > 0x0f {
                return Err(RecordError::Varint);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError::Varint)
    }

    /// Reads the tagged fields of one struct: (tag, content). The caller must skip unknown ones.
    pub fn tagged_fields(&mut self) -> Result<Vec<(u32, &'a [u8])>, RecordError> {
        let count = self.unsigned_varint()?;
        if count > MAX_TAGGED_FIELDS {
            return Err(RecordError::TooManyTags);
        }
        let mut fields = Vec::new();
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            fields.push((tag, self.take(size)?));
        }
        Ok(fields)
    }

    /// Reads the length of a compact array or string; None is null.
    fn compact_length(&mut self) -> Result<Option<usize>, RecordError> {
        Ok((self.unsigned_varint()? as usize).checked_sub(1))
    }

    /// Succeeds only when every byte has been read.
    pub fn finish(&self) -> Result<(), RecordError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(RecordError::TrailingBytes(left)),
        }
    }
}

pub fn write_unsigned_varint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes the tagged-field section: `fields` in any order, each (tag, content).
pub fn write_tagged_fields(mut fields: Vec<(u32, Vec<u8>)>, out: &mut Vec<u8>) {
    fields.sort_by_key(|(tag, _)| *tag);
    write_unsigned_varint(fields.len() as u32, out);
    for (tag, content) in fields {
        write_unsigned_varint(tag, out);
        write_unsigned_varint(content.len() as u32, out);
        out.extend_from_slice(&content);
    }
}

/// A type that a record's field can have.
pub trait Field: Sized {
    fn read(input: &mut Reader<'_>) -> Result<Self, RecordError>;
    fn write(&self, out: &mut Vec<u8>);
}

macro_rules! integer_field {
    ($($ty:ty),*) => {$(
        impl Field for $ty {
            fn read(input: &mut Reader<'_>) -> Result<Self, RecordError> {
                Ok(<$ty>::from_be_bytes(input.take_array()?))
            }
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
        }
    )*};
}
integer_field!(i8, i16, u16, i32, i64, f64);

impl Field for bool {
    fn read(input: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(input.take_array::<1>()?[0] != 0)
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Field for Uuid {
    fn read(input: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Uuid::from_bytes(input.take_array()?))
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

/// A compact byte string.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blob(pub Vec<u8>);

impl Field for Blob {
    fn read(input: &mut Reader<'_>) -> Result<Self, RecordError> {
        let length = input.compact_length()?.ok_or(RecordError::Null)?;
        Ok(Blob(input.take(length)?.to_vec()))
    }
    fn write(&self, out: &mut Vec<u8>) {
        write_unsigned_varint(self.0.len() as u32 + 1, out);
        out.extend_from_slice(&self.0);
    }
}

impl Field for String {
    fn read(input: &mut Reader<'_>) -> Result<Self, RecordError> {
        Option::<String>::read(input)?.ok_or(RecordError::Null)
    }
    fn write(&self, out: &mut Vec<u8>) {
        write_unsigned_varint(self.len() as u32 + 1, out);
        out.extend_from_slice(self.as_bytes());
    }
}

impl Field for Option<String> {
    fn read(input: &mut Reader<'_>) -> Result<Self, RecordError> {
        let Some(length) = input.compact_length()? else { return Ok(None) };
        let text = std::str::from_utf8(input.take(length)?).map_err(|_| RecordError::Utf8)?;
        Ok(Some(text.to_owned()))
    }
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Some(text) => text.write(out),
            None => write_unsigned_varint(0, out),
        }
    }
}

impl<T: Field> Field for Vec<T> {
    fn read(input: &mut Reader<'_>) -> Result<Self, RecordError> {
        Option::<Vec<T>>::read(input)?.ok_or(RecordError::Null)
    }
    fn write(&self, out: &mut Vec<u8>) {
        write_unsigned_varint(self.len() as u32 + 1, out);
        for element in self {
            element.write(out);
        }
    }
}

impl<T: Field> Field for Option<Vec<T>> {
    fn read(input: &mut Reader<'_>) -> Result<Self, RecordError> {
        let Some(length) = input.compact_length()? else { return Ok(None) };
        // Every element has at least one byte, so a length beyond the remaining bytes is invalid. The vector grows and
        // is never preallocated.
        if length > input.remaining() {
            return Err(RecordError::Truncated);
        }
        let mut elements = Vec::new();
        for _ in 0..length {
            elements.push(T::read(input)?);
        }
        Ok(Some(elements))
    }
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Some(elements) => elements.write(out),
            None => write_unsigned_varint(0, out),
        }
    }
}

/// Declares a flexible struct: `field: type [= default] [, since version] [, tag number];`.
/// A tagged field is written only when it differs from its default, as Kafka's generator does.
macro_rules! record_struct {
    ($(#[$doc:meta])* $name:ident { $( $field:ident : $ty:ty $(= $default:expr)? $(, since $since:literal)? $(, tag $tag:literal)? ; )* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name { $(pub $field: $ty,)* }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: record_struct!(@default $ty $(, $default)?),)* }
            }
        }

        impl $name {
            #[allow(unused_mut, unused_variables, unused_assignments)]
            pub fn read_version(input: &mut $crate::metadata::wire::Reader<'_>, version: i16)
                -> Result<Self, $crate::metadata::wire::RecordError> {
                let mut record = $name::default();
                $( record_struct!(@read record, input, version, $field, [$($since)?], [$($tag)?]); )*
                for (tag, content) in input.tagged_fields()? {
                    let mut content = $crate::metadata::wire::Reader::new(content);
                    let mut known = false;
                    $( record_struct!(@read_tag record, content, version, tag, known, $field, [$($since)?], [$($tag)?]); )*
                    if known {
                        content.finish()?;
                    }
                }
                Ok(record)
            }

            #[allow(unused_mut, unused_variables)]
            pub fn write_version(&self, out: &mut Vec<u8>, version: i16) {
                let mut tagged: Vec<(u32, Vec<u8>)> = Vec::new();
                let default = $name::default();
                $( record_struct!(@write self, default, out, tagged, version, $field, [$($since)?], [$($tag)?]); )*
                $crate::metadata::wire::write_tagged_fields(tagged, out);
            }
        }

        impl $crate::metadata::wire::Field for $name {
            fn read(input: &mut $crate::metadata::wire::Reader<'_>) -> Result<Self, $crate::metadata::wire::RecordError> {
                $name::read_version(input, 0)
            }
            fn write(&self, out: &mut Vec<u8>) {
                self.write_version(out, 0);
            }
        }
    };
    (@default $ty:ty, $default:expr) => { $default };
    (@default $ty:ty) => { <$ty>::default() };
    (@since $version:ident, []) => { true };
    (@since $version:ident, [$since:literal]) => { $version >= $since };
    (@read $record:ident, $input:ident, $version:ident, $field:ident, $since:tt, []) => {
        if record_struct!(@since $version, $since) {
            $record.$field = $crate::metadata::wire::Field::read($input)?;
        }
    };
    (@read $record:ident, $input:ident, $version:ident, $field:ident, $since:tt, [$tag:literal]) => {};
    (@read_tag $record:ident, $content:ident, $version:ident, $seen:ident, $known:ident, $field:ident, $since:tt, []) => {};
    (@read_tag $record:ident, $content:ident, $version:ident, $seen:ident, $known:ident, $field:ident, $since:tt, [$tag:literal]) => {
        if $seen == $tag && record_struct!(@since $version, $since) {
            $record.$field = $crate::metadata::wire::Field::read(&mut $content)?;
            $known = true;
        }
    };
    (@write $self:ident, $default:ident, $out:ident, $tagged:ident, $version:ident, $field:ident, $since:tt, []) => {
        if record_struct!(@since $version, $since) {
            $crate::metadata::wire::Field::write(&$self.$field, $out);
        }
    };
    (@write $self:ident, $default:ident, $out:ident, $tagged:ident, $version:ident, $field:ident, $since:tt, [$tag:literal]) => {
        if record_struct!(@since $version, $since) && $self.$field != $default.$field {
            let mut content = Vec::new();
            $crate::metadata::wire::Field::write(&$self.$field, &mut content);
            $tagged.push(($tag, content));
        }
    };
}
pub(crate) use record_struct;
