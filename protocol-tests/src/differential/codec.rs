//! Converts JSON to Kafka's wire format and back, for any message by its schema. Numbers, strings and booleans are
//! JSON's own, UUIDs are in Kafka's base64url, bytes are hex text, and decoded records are a list of described batches
//! (see batch.rs).

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{
    batch,
    schema::{Field, Kind, Message},
};

pub const ZERO_UUID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// Encodes the body of a message for a version. Fields missing in the value get their default; fields that do not exist
/// in this version are left out, so that one value serves every version.
///
/// # Panics
/// If the value does not match the schema; the value is a constant of a test case.
pub fn encode(message: &Message, version: i16, value: &Value) -> Vec<u8> {
    let mut writer = Writer { bytes: Vec::new(), version, flexible: message.flexible.contains(version) };
    writer.fields(&message.fields, value);
    writer.bytes
}

/// Decodes the body of a message to JSON. Bytes after the message appear as `__trailing`.
pub fn decode(message: &Message, version: i16, bytes: &[u8]) -> Result<Value> {
    let mut reader = Reader { bytes, version, flexible: message.flexible.contains(version) };
    let mut object = reader.fields(&message.fields)?;
    if !reader.bytes.is_empty() {
        object.insert("__trailing".into(), hex(reader.bytes).into());
    }
    Ok(Value::Object(object))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// # Panics
/// If the text is not hex.
pub fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd hex text {text:?}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits")).collect()
}

pub fn put_unsigned_varint(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

struct Writer {
    bytes: Vec<u8>,
    version: i16,
    flexible: bool,
}

impl Writer {
    fn fields(&mut self, fields: &[Field], value: &Value) {
        let empty = Map::new();
        let object = value.as_object().unwrap_or(&empty);
        for key in object.keys() {
            assert!(key == "__tags" || fields.iter().any(|field| field.name == *key), "no field is called {key:?}");
        }
        let (tagged, plain): (Vec<&Field>, Vec<&Field>) = fields
            .iter()
            .filter(|field| field.versions.contains(self.version))
            .partition(|field| field.tagged.contains(self.version));
        for field in plain {
            self.field(field, object.get(&field.name).unwrap_or(&field.default));
        }
        if self.flexible {
            self.tags(&tagged, object);
        }
    }

    fn tags(&mut self, fields: &[&Field], object: &Map<String, Value>) {
        let mut tags: Vec<(u32, Vec<u8>)> = Vec::new();
        for field in fields {
            let Some(value) = object.get(&field.name).filter(|value| **value != field.default) else { continue };
            let mut inner = Writer { bytes: Vec::new(), version: self.version, flexible: true };
            inner.field(field, value);
            tags.push((field.tag.unwrap_or_default(), inner.bytes));
        }
        // Unknown tags, for the cases about them: {"__tags": {"9": "cafe"}}.
        for (tag, bytes) in object.get("__tags").and_then(Value::as_object).into_iter().flatten() {
            tags.push((tag.parse().expect("a tag is a number"), unhex(bytes.as_str().unwrap_or_default())));
        }
        put_unsigned_varint(&mut self.bytes, tags.len() as u32);
        for (tag, bytes) in tags {
            put_unsigned_varint(&mut self.bytes, tag);
            put_unsigned_varint(&mut self.bytes, bytes.len() as u32);
            self.bytes.extend(bytes);
        }
    }

    fn field(&mut self, field: &Field, value: &Value) {
        if let Kind::Struct(fields) = &field.kind {
            if field.nullable.contains(self.version) {
                self.bytes.push(if value.is_null() { 0xff } else { 1 });
            }
            if !value.is_null() || !field.nullable.contains(self.version) {
                self.fields(fields, value);
            }
        } else if value.is_null() && !field.nullable.contains(self.version) && !matches!(field.kind, Kind::Records) {
            // An earlier answer of the case did not have the value, or the field is not nullable in this version: send
            // the neutral value.
            self.value(&field.kind, &neutral(&field.kind));
        } else {
            self.value(&field.kind, value);
        }
    }

    fn value(&mut self, kind: &Kind, value: &Value) {
        let integer = || match value {
            Value::Null => 0,
            other => other.as_i64().unwrap_or_else(|| panic!("{other} is no integer")),
        };
        match kind {
            Kind::Bool => self.bytes.push(value.as_bool().unwrap_or_default().into()),
            Kind::Int8 => self.bytes.push(integer() as u8),
            Kind::Int16 | Kind::Uint16 => self.bytes.extend((integer() as i16).to_be_bytes()),
            Kind::Int32 | Kind::Uint32 => self.bytes.extend((integer() as i32).to_be_bytes()),
            Kind::Int64 => self.bytes.extend(integer().to_be_bytes()),
            Kind::Float64 => self.bytes.extend(value.as_f64().unwrap_or_default().to_be_bytes()),
            Kind::Uuid => self.bytes.extend(uuid(value.as_str().unwrap_or(ZERO_UUID))),
            Kind::String => self.text(value.as_str()),
            Kind::Bytes | Kind::Records => self.blob(value.as_str().map(unhex).as_deref()),
            Kind::Struct(fields) => self.fields(fields, value),
            Kind::Array(element) => {
                let list = value.as_array();
                self.count(list.map(Vec::len));
                for one in list.into_iter().flatten() {
                    self.value(element, one);
                }
            }
        }
    }

    fn count(&mut self, count: Option<usize>) {
        match (self.flexible, count) {
            (true, None) => self.bytes.push(0),
            (true, Some(count)) => put_unsigned_varint(&mut self.bytes, count as u32 + 1),
            (false, None) => self.bytes.extend((-1i32).to_be_bytes()),
            (false, Some(count)) => self.bytes.extend((count as i32).to_be_bytes()),
        }
    }

    fn text(&mut self, text: Option<&str>) {
        match (self.flexible, text) {
            (true, _) => self.count(text.map(str::len)),
            (false, None) => self.bytes.extend((-1i16).to_be_bytes()),
            (false, Some(text)) => self.bytes.extend((text.len() as i16).to_be_bytes()),
        }
        self.bytes.extend(text.unwrap_or_default().as_bytes());
    }

    fn blob(&mut self, blob: Option<&[u8]>) {
        self.count(blob.map(<[u8]>::len));
        self.bytes.extend(blob.unwrap_or_default());
    }
}

fn neutral(kind: &Kind) -> Value {
    match kind {
        Kind::String | Kind::Bytes => "".into(),
        Kind::Array(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    }
}

pub fn uuid(text: &str) -> [u8; 16] {
    let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_else(|_| panic!("{text:?} is no UUID"));
    bytes.try_into().unwrap_or_else(|_| panic!("{text:?} is no UUID"))
}

struct Reader<'a> {
    bytes: &'a [u8],
    version: i16,
    flexible: bool,
}

impl<'a> Reader<'a> {
    fn fields(&mut self, fields: &[Field]) -> Result<Map<String, Value>> {
        let mut object = Map::new();
        for field in fields {
            if !field.versions.contains(self.version) || field.tagged.contains(self.version) {
                continue;
            }
            let value = self.field(field).with_context(|| format!("read {}", field.name))?;
            object.insert(field.name.clone(), value);
        }
        if self.flexible {
            self.tags(fields, &mut object)?;
        }
        Ok(object)
    }

    fn tags(&mut self, fields: &[Field], object: &mut Map<String, Value>) -> Result<()> {
        for _ in 0..self.unsigned_varint()? {
            let tag = self.unsigned_varint()?;
            let length = self.unsigned_varint()? as usize;
            let mut inner = Reader { bytes: self.take(length)?, version: self.version, flexible: true };
            let known = fields.iter().find(|field| field.tag == Some(tag) && field.tagged.contains(self.version));
            match known {
                Some(field) => {
                    let value = inner.field(field).with_context(|| format!("read tag {}", field.name))?;
                    ensure!(inner.bytes.is_empty(), "tag {} is longer than its field", field.name);
                    object.insert(field.name.clone(), value);
                }
                None => drop(object.insert(format!("__tag{tag}"), hex(inner.bytes).into())),
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &Field) -> Result<Value> {
        match &field.kind {
            Kind::Struct(_) if field.nullable.contains(self.version) && self.take(1)? == [0xff] => Ok(Value::Null),
            kind => self.value(kind),
        }
    }

    fn value(&mut self, kind: &Kind) -> Result<Value> {
        Ok(match kind {
            Kind::Bool => (self.take(1)? != [0]).into(),
            Kind::Int8 => i8::from_be_bytes(self.array()?).into(),
            Kind::Int16 => i16::from_be_bytes(self.array()?).into(),
            Kind::Uint16 => u16::from_be_bytes(self.array()?).into(),
            Kind::Int32 => i32::from_be_bytes(self.array()?).into(),
            Kind::Uint32 => u32::from_be_bytes(self.array()?).into(),
            Kind::Int64 => i64::from_be_bytes(self.array()?).into(),
            Kind::Float64 => f64::from_be_bytes(self.array()?).into(),
            Kind::Uuid => URL_SAFE_NO_PAD.encode(self.take(16)?).into(),
            Kind::String => match self.text_length()? {
                Some(length) => std::str::from_utf8(self.take(length)?).context("UTF-8")?.into(),
                None => Value::Null,
            },
            Kind::Bytes => match self.count()? {
                Some(length) => hex(self.take(length)?).into(),
                None => Value::Null,
            },
            Kind::Records => match self.count()? {
                Some(length) => batch::describe(self.take(length)?),
                None => Value::Null,
            },
            Kind::Struct(fields) => Value::Object(self.fields(fields)?),
            Kind::Array(element) => match self.count()? {
                Some(count) => (0..count).map(|_| self.value(element)).collect::<Result<Vec<_>>>()?.into(),
                None => Value::Null,
            },
        })
    }

    fn count(&mut self) -> Result<Option<usize>> {
        let count = match self.flexible {
            true => i64::from(self.unsigned_varint()?) - 1,
            false => i64::from(i32::from_be_bytes(self.array()?)),
        };
        ensure!(count <= self.bytes.len() as i64, "a count of {count} in {} bytes", self.bytes.len());
        Ok(usize::try_from(count).ok())
    }

    fn text_length(&mut self) -> Result<Option<usize>> {
        match self.flexible {
            true => self.count(),
            false => Ok(usize::try_from(i16::from_be_bytes(self.array()?)).ok()),
        }
    }

    fn unsigned_varint(&mut self) -> Result<u32> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        anyhow::bail!("an overlong varint")
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        ensure!(length <= self.bytes.len(), "{length} bytes wanted, {} left", self.bytes.len());
        let (taken, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("take gives what was asked for"))
    }
}
