//! Kafka's own message schemas, read at run time from the kafka-clients jar, so that every version of every API is
//! covered without code per message. Leaves encoding and decoding to `codec.rs`.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
    ops::RangeInclusive,
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// All requests and responses by API name ("Fetch", "ListOffsets", …).
#[derive(Debug)]
pub struct Schemas {
    apis: BTreeMap<String, Api>,
}

/// The schemas of one API key.
#[derive(Debug)]
pub struct Api {
    pub key: i16,
    pub request: Message,
    pub response: Message,
}

#[derive(Debug)]
pub struct Message {
    pub versions: Versions,
    pub flexible: Versions,
    pub fields: Vec<Field>,
}

#[derive(Debug, Clone)]
pub struct Field {
    pub name: String,
    pub kind: Kind,
    pub versions: Versions,
    pub nullable: Versions,
    pub tagged: Versions,
    pub tag: Option<u32>,
    pub default: Value,
}

#[derive(Debug, Clone)]
pub enum Kind {
    Bool,
    Int8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Float64,
    Uuid,
    String,
    Bytes,
    Records,
    Struct(Vec<Field>),
    Array(Box<Kind>),
}

/// A range of versions in the notation of the schemas: "none", "3", "0-5", "4+".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    low: i16,
    high: i16,
}

impl Versions {
    const NONE: Versions = Versions { low: 0, high: -1 };

    pub fn contains(self, version: i16) -> bool {
        self.low <= version && version <= self.high
    }

    pub fn range(self) -> RangeInclusive<i16> {
        self.low..=self.high
    }

    fn parse(text: &str) -> Result<Versions> {
        let number = |part: &str| part.parse::<i16>().with_context(|| format!("read versions {text:?}"));
        if text == "none" {
            Ok(Versions::NONE)
        } else if let Some(low) = text.strip_suffix('+') {
            Ok(Versions { low: number(low)?, high: i16::MAX })
        } else if let Some((low, high)) = text.split_once('-') {
            Ok(Versions { low: number(low)?, high: number(high)? })
        } else {
            Ok(Versions { low: number(text)?, high: number(text)? })
        }
    }
}

impl Schemas {
    /// Reads the schemas of the kafka-clients jar in the directory.
    pub fn load(jars: &Path) -> Result<Schemas> {
        let jar = std::fs::read_dir(jars)
            .with_context(|| format!("list {}", jars.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kafka-clients-")))
            .with_context(|| format!("no kafka-clients jar in {}", jars.display()))?;
        let jar = std::fs::read(&jar).with_context(|| format!("read {}", jar.display()))?;
        let mut requests = HashMap::new();
        let mut responses = HashMap::new();
        for (name, text) in json_members(&jar)? {
            let schema: Value =
                serde_json::from_str(&without_comments(&text)).with_context(|| format!("parse {name}"))?;
            let title = schema["name"].as_str().unwrap_or_default().to_owned();
            match schema["type"].as_str() {
                Some("request") => requests.insert(title.trim_end_matches("Request").to_owned(), schema),
                Some("response") => responses.insert(title.trim_end_matches("Response").to_owned(), schema),
                _ => None,
            };
        }
        let mut apis = BTreeMap::new();
        for (name, request) in requests {
            // Keys 4 to 7 are still in the jar, but have no valid version.
            if request["validVersions"] == "none" {
                continue;
            }
            let response = responses.get(&name).with_context(|| format!("{name} has no response"))?;
            let key = request["apiKey"].as_i64().context("apiKey")? as i16;
            let api = Api { key, request: message(&request)?, response: message(response)? };
            apis.insert(name, api);
        }
        ensure!(apis.len() > 60, "the jar holds {} APIs only", apis.len());
        Ok(Schemas { apis })
    }

    /// # Panics
    /// If there is no such API: the name is a constant of a test case.
    pub fn api(&self, name: &str) -> &Api {
        self.apis.get(name).unwrap_or_else(|| panic!("no API is called {name:?}"))
    }

    /// The name of the API with this key.
    pub fn name(&self, key: i16) -> Option<&str> {
        self.apis.iter().find_map(|(name, api)| (api.key == key).then_some(name.as_str()))
    }
}

fn message(schema: &Value) -> Result<Message> {
    let structs: HashMap<&str, &Value> = schema["commonStructs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| Some((one["name"].as_str()?, &one["fields"])))
        .collect();
    Ok(Message {
        versions: Versions::parse(schema["validVersions"].as_str().context("validVersions")?)?,
        flexible: Versions::parse(schema["flexibleVersions"].as_str().unwrap_or("none"))?,
        fields: fields(&schema["fields"], &structs)?,
    })
}

fn fields(list: &Value, structs: &HashMap<&str, &Value>) -> Result<Vec<Field>> {
    list.as_array().context("fields")?.iter().map(|field| self::field(field, structs)).collect()
}

fn field(schema: &Value, structs: &HashMap<&str, &Value>) -> Result<Field> {
    let name = schema["name"].as_str().context("field name")?.to_owned();
    let versions = |key: &str| schema[key].as_str().map_or(Ok(Versions::NONE), Versions::parse);
    let kind = kind(schema["type"].as_str().context("type")?, &schema["fields"], structs)
        .with_context(|| format!("field {name}"))?;
    let default = default_of(&kind, &schema["default"]).with_context(|| format!("default of {name}"))?;
    Ok(Field {
        kind,
        default,
        versions: versions("versions")?,
        nullable: versions("nullableVersions")?,
        tagged: versions("taggedVersions")?,
        tag: schema["tag"].as_u64().map(|tag| tag as u32),
        name,
    })
}

fn kind(name: &str, own: &Value, structs: &HashMap<&str, &Value>) -> Result<Kind> {
    Ok(match name {
        "bool" => Kind::Bool,
        "int8" => Kind::Int8,
        "int16" => Kind::Int16,
        "uint16" => Kind::Uint16,
        "int32" => Kind::Int32,
        "uint32" => Kind::Uint32,
        "int64" => Kind::Int64,
        "float64" => Kind::Float64,
        "uuid" => Kind::Uuid,
        "string" => Kind::String,
        "bytes" => Kind::Bytes,
        "records" => Kind::Records,
        _ => match name.strip_prefix("[]") {
            Some(element) => Kind::Array(Box::new(kind(element, own, structs)?)),
            None if own.is_array() => Kind::Struct(fields(own, structs)?),
            None => match structs.get(name) {
                Some(common) => Kind::Struct(fields(common, structs)?),
                None => bail!("unknown type {name:?}"),
            },
        },
    })
}

fn default_of(kind: &Kind, given: &Value) -> Result<Value> {
    let text = match given {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    Ok(match kind {
        _ if text == "null" => Value::Null,
        Kind::Bool => (text == "true").into(),
        Kind::Float64 => text.parse().unwrap_or(0.0).into(),
        Kind::Uuid => super::codec::ZERO_UUID.into(),
        Kind::String | Kind::Bytes => text.into(),
        Kind::Records => Value::Null,
        Kind::Struct(_) => Value::Object(Default::default()),
        Kind::Array(_) => Value::Array(Vec::new()),
        _ if text.is_empty() => 0.into(),
        _ => match text.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16)?.into(),
            None => text.parse::<i64>()?.into(),
        },
    })
}

/// Removes the `//` comments of the schemas, which JSON does not allow.
fn without_comments(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for line in text.lines() {
        let mut quoted = false;
        let mut before = '\0';
        let end = line.char_indices().find_map(|(at, letter)| {
            quoted ^= letter == '"';
            let comment = letter == '/' && before == '/' && !quoted;
            before = letter;
            comment.then(|| at - 1)
        });
        clean.push_str(&line[..end.unwrap_or(line.len())]);
        clean.push('\n');
    }
    clean
}

/// Returns name and text of the .json files below common/message in a zip archive. Supports only the features that a
/// jar uses: stored and deflated files, found through the central directory.
fn json_members(jar: &[u8]) -> Result<Vec<(String, String)>> {
    let number = |at: usize, bytes: usize| -> Result<usize> {
        let slice = jar.get(at..at + bytes).context("the jar is cut short")?;
        Ok(slice.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let end = jar.windows(4).rposition(|four| four == b"PK\x05\x06").context("not a zip archive")?;
    let mut at = number(end + 16, 4)?;
    let mut members = Vec::new();
    for _ in 0..number(end + 10, 2)? {
        let (method, packed_bytes) = (number(at + 10, 2)?, number(at + 20, 4)?);
        let name_bytes = number(at + 28, 2)?;
        let local = number(at + 42, 4)?;
        let name = jar.get(at + 46..at + 46 + name_bytes).context("the jar is cut short")?;
        let name = String::from_utf8_lossy(name).into_owned();
        at += 46 + name_bytes + number(at + 30, 2)? + number(at + 32, 2)?;
        if !(name.starts_with("common/message/") && name.ends_with(".json")) {
            continue;
        }
        let start = local + 30 + number(local + 26, 2)? + number(local + 28, 2)?;
        let packed = jar.get(start..start + packed_bytes).context("the jar is cut short")?;
        let mut text = String::new();
        match method {
            0 => text = String::from_utf8_lossy(packed).into_owned(),
            8 => drop(flate2::read::DeflateDecoder::new(packed).read_to_string(&mut text).context("inflate")?),
            other => bail!("{name} is packed by method {other}"),
        }
        members.push((name, text));
    }
    Ok(members)
}
