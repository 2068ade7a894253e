//! The bounds check of every request before `kafka-protocol` decodes it.
//!
//! That crate allocates memory for the counts it reads (a Metadata body of 4 bytes aborts the process), keeps every
//! unknown tagged field, and reads known tagged fields beyond their declared size. So it must not get a message with a
//! count, length or tag that is too large for the bytes of the message. The check follows the shapes of Kafka's own
//! message definitions (`schemas.rs`). It copies and allocates nothing.
//!
//! Deviations: all arrays of one request together may have 200,000 elements; a request with more closes its connection.
//!
//! Bytes after the message are allowed: Apache Kafka ignores them (tested with 4.3.1's AbstractRequest), and so does
//! the crate. Leaves the bounds of Produce, Fetch and other requests with their own codec to `wire.rs`.

use super::{
    schemas,
    wire::{self, DecodeError, MAX_ELEMENTS_PER_MESSAGE, MAX_STRING_BYTES, MAX_TAGS_PER_MESSAGE, MAX_TAGS_PER_STRUCT},
};

/// The last version of a range without an end.
pub const END: i16 = i16::MAX;

/// The shape of one message over all its versions.
#[derive(Debug)]
pub struct Schema {
    /// Kafka's number of the API.
    pub api_key: i16,
    /// Kafka's name of the message.
    pub name: &'static str,
    /// First and last defined version.
    pub versions: (i16, i16),
    /// First version with compact lengths and tagged fields; [`END`] if there is none.
    pub flexible_from: i16,
    /// The fields in the order of the wire.
    pub fields: &'static [Field],
}

/// One field of a message or of a struct in it.
#[derive(Debug)]
pub struct Field {
    name: &'static str,
    kind: Kind,
    versions: (i16, i16),
    nullable: (i16, i16),
    tag: u32,
    tagged: (i16, i16),
}

/// The type of a field.
#[derive(Debug)]
pub enum Kind {
    /// A number, boolean or id with this number of bytes.
    Fixed(u8),
    String,
    Bytes,
    Struct(&'static [Field]),
    Array(&'static Kind),
}

const NEVER: (i16, i16) = (END, -1);

/// A field that exists in these versions and is never null and never tagged.
pub(super) const fn field(name: &'static str, kind: Kind, first: i16, last: i16) -> Field {
    Field { name, kind, versions: (first, last), nullable: NEVER, tag: 0, tagged: NEVER }
}

impl Field {
    pub(super) const fn nullable(mut self, first: i16, last: i16) -> Self {
        self.nullable = (first, last);
        self
    }

    pub(super) const fn tagged(mut self, tag: u32, first: i16, last: i16) -> Self {
        self.tag = tag;
        self.tagged = (first, last);
        self
    }

    fn is_tagged(&self, version: i16) -> bool {
        within(self.versions, version) && within(self.tagged, version)
    }

    /// Whether the field exists in this version and is not tagged.
    fn is_plain(&self, version: i16) -> bool {
        within(self.versions, version) && !within(self.tagged, version)
    }
}

fn within((first, last): (i16, i16), version: i16) -> bool {
    first <= version && version <= last
}

/// Why a message must not be decoded. The connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// Kafka 4.3 has no such request.
    #[error("no request has the API key {0}")]
    ApiKey(i16),
    /// The field at which the check failed, and the error.
    #[error("{message}, at {field}: {error}")]
    Field { message: &'static str, field: &'static str, error: DecodeError },
}

/// The size of a message that passed the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// The estimated memory in bytes of its decoded arrays.
    pub decoded_bytes: usize,
    /// The number of elements of all its arrays.
    pub elements: usize,
}

/// Checks a request's body, without its header, against the shape of its key and version.
///
/// # Errors
/// [`GuardError`] if decoding these bytes could fail or use too much memory for their number.
pub fn check_request(api_key: i16, version: i16, body: &[u8]) -> Result<Walked, GuardError> {
    let at = schemas::REQUESTS
        .binary_search_by_key(&api_key, |schema| schema.api_key)
        .map_err(|_| GuardError::ApiKey(api_key))?;
    check_message(&schemas::REQUESTS[at], version, body)
}

/// Checks any message against its shape.
///
/// # Errors
/// See [`check_request`].
pub fn check_message(schema: &Schema, version: i16, bytes: &[u8]) -> Result<Walked, GuardError> {
    let memory_bytes = wire::memory_budget_bytes(bytes.len());
    let mut walk = Walk {
        bytes,
        version,
        flexible: version >= schema.flexible_from,
        memory_left_bytes: memory_bytes,
        elements_left: MAX_ELEMENTS_PER_MESSAGE,
        tags_left: MAX_TAGS_PER_MESSAGE,
        field: "the version",
    };
    let walked = if within(schema.versions, version) {
        walk.structure(schema.fields)
    } else {
        Err(DecodeError::Version(version))
    };
    match walked {
        Ok(()) => Ok(Walked {
            decoded_bytes: memory_bytes - walk.memory_left_bytes,
            elements: MAX_ELEMENTS_PER_MESSAGE - walk.elements_left,
        }),
        Err(error) => Err(GuardError::Field { message: schema.name, field: walk.field, error }),
    }
}

type Result<T, E = DecodeError> = std::result::Result<T, E>;

struct Walk<'a> {
    bytes: &'a [u8],
    version: i16,
    flexible: bool,
    memory_left_bytes: usize,
    elements_left: usize,
    tags_left: usize,
    /// The current field, for the error.
    field: &'static str,
}

impl Walk<'_> {
    fn structure(&mut self, fields: &[Field]) -> Result<()> {
        let version = self.version;
        for field in fields.iter().filter(|field| field.is_plain(version)) {
            self.field = field.name;
            self.value(&field.kind, within(field.nullable, version))?;
        }
        if self.flexible { self.tagged_fields(fields) } else { Ok(()) }
    }

    fn value(&mut self, kind: &Kind, nullable: bool) -> Result<()> {
        match kind {
            Kind::Fixed(bytes) => self.skip(usize::from(*bytes)),
            Kind::String => match self.string_length()? {
                Some(length) => self.skip(length),
                None => allow_null(nullable),
            },
            Kind::Bytes => match self.length()? {
                Some(length) => self.skip(length),
                None => allow_null(nullable),
            },
            Kind::Array(element) => match self.length()? {
                Some(count) => self.array(count, element),
                None => allow_null(nullable),
            },
            // A byte stands before a nullable struct: 1, or negative for null. For any other value the crate reads null
            // and Kafka reads a struct, so the crate would read bytes that were not checked. No client sends one.
            Kind::Struct(fields) if nullable => match self.byte()? {
                ..=-1 => Ok(()),
                1 => self.structure(fields),
                other => Err(DecodeError::Presence(other)),
            },
            Kind::Struct(fields) => self.structure(fields),
        }
    }

    fn array(&mut self, count: usize, element: &Kind) -> Result<()> {
        let least_bytes = self.least_bytes(element).max(1);
        if count > self.bytes.len() / least_bytes {
            return Err(DecodeError::Truncated);
        }
        self.elements_left = self.elements_left.checked_sub(count).ok_or(DecodeError::TooManyElements)?;
        self.charge(count.saturating_mul(decoded_bytes(element)))?;
        match element {
            Kind::Fixed(bytes) => self.skip(count * usize::from(*bytes)),
            _ => (0..count).try_for_each(|_| self.value(element, false)),
        }
    }

    fn tagged_fields(&mut self, fields: &[Field]) -> Result<()> {
        /// The crate stores unknown tags in a tree: it allocates a node, and an entry for each tag.
        const FIRST_TAG_BYTES: usize = 512;
        const EACH_TAG_BYTES: usize = 64;
        let count = self.unsigned_varint()? as usize;
        if count == 0 {
            return Ok(());
        }
        self.field = "its tagged fields";
        if count > MAX_TAGS_PER_STRUCT || count > self.tags_left {
            return Err(DecodeError::TooManyTags);
        }
        self.tags_left -= count;
        self.charge(FIRST_TAG_BYTES + count * EACH_TAG_BYTES)?;
        for _ in 0..count {
            let tag = wire::tag(self.unsigned_varint()?)?;
            let size = self.unsigned_varint()? as usize;
            let (content, behind) = self.bytes.split_at_checked(size).ok_or(DecodeError::Truncated)?;
            let known = fields.iter().find(|field| field.tag == tag && field.is_tagged(self.version));
            if let Some(field) = known {
                self.field = field.name;
                self.bytes = content;
                self.value(&field.kind, within(field.nullable, self.version))?;
                if !self.bytes.is_empty() {
                    return Err(DecodeError::TagSize(tag));
                }
            }
            self.bytes = behind;
        }
        Ok(())
    }

    /// The minimum size of a value on the wire in this version.
    fn least_bytes(&self, kind: &Kind) -> usize {
        match kind {
            Kind::Fixed(bytes) => usize::from(*bytes),
            Kind::String | Kind::Bytes | Kind::Array(_) if self.flexible => 1,
            Kind::String => 2,
            Kind::Bytes | Kind::Array(_) => 4,
            Kind::Struct(fields) => {
                let present = fields.iter().filter(|field| field.is_plain(self.version));
                let least = |field: &Field| match field.kind {
                    Kind::Struct(_) if within(field.nullable, self.version) => 1,
                    _ => self.least_bytes(&field.kind),
                };
                present.map(least).sum::<usize>() + usize::from(self.flexible)
            }
        }
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        self.memory_left_bytes = self.memory_left_bytes.checked_sub(bytes).ok_or(DecodeError::TooLarge)?;
        Ok(())
    }

    fn skip(&mut self, bytes: usize) -> Result<()> {
        self.bytes = self.bytes.get(bytes..).ok_or(DecodeError::Truncated)?;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<i8> {
        self.take().map(i8::from_be_bytes)
    }

    fn unsigned_varint(&mut self) -> Result<u32> {
        let (value, bytes) = wire::unsigned_varint(self.bytes)?;
        self.bytes = &self.bytes[bytes..];
        Ok(value)
    }

    fn string_length(&mut self) -> Result<Option<usize>> {
        let length = if self.flexible {
            i64::from(self.unsigned_varint()?) - 1
        } else {
            i16::from_be_bytes(self.take()?).into()
        };
        match usize::try_from(length) {
            Ok(length) if length <= MAX_STRING_BYTES => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            _ => Err(DecodeError::Length(length)),
        }
    }

    fn length(&mut self) -> Result<Option<usize>> {
        let length = if self.flexible {
            i64::from(self.unsigned_varint()?) - 1
        } else {
            i32::from_be_bytes(self.take()?).into()
        };
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(DecodeError::Length(length)),
        }
    }
}

fn allow_null(nullable: bool) -> Result<()> {
    if nullable { Ok(()) } else { Err(DecodeError::Null) }
}

/// The memory in bytes of a value that the crate has decoded, without the heap memory of its arrays. The crate's
/// structs have the fields of all versions, and a map for unknown tags.
fn decoded_bytes(kind: &Kind) -> usize {
    const STRING_BYTES: usize = 32;
    const ARRAY_BYTES: usize = 24;
    const UNKNOWN_TAGS_BYTES: usize = 24;
    match kind {
        Kind::Fixed(bytes) => usize::from(*bytes),
        Kind::String | Kind::Bytes => STRING_BYTES,
        Kind::Array(_) => ARRAY_BYTES,
        Kind::Struct(fields) => {
            let fields: usize = fields.iter().map(|field| decoded_bytes(&field.kind)).sum();
            (fields + UNKNOWN_TAGS_BYTES).next_multiple_of(8)
        }
    }
}

#[cfg(test)]
mod tests;
