//! Builds one request of any API and version directly from the schema, with one very large array (or byte field).
//!
//! All other fields have the values that a well-behaved client would send, so that the request is processed and not
//! refused at once: existing names (`world.rs`), short timeouts, one element in every other array.

use super::world::World;
use crate::differential::{
    batch::Batch,
    codec::{put_unsigned_varint, uuid},
    schema::{Api, Field, Kind},
};

/// How the elements of the large array differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elements {
    /// All elements are the same and name something that exists.
    Repeated,
    /// Each element has a different, short name.
    Distinct,
    /// Each element has a different name of the maximum string length.
    Long,
}

/// The large field of a request, and its size.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Field names from the message down to the large field.
    pub path: Vec<String>,
    pub elements: Elements,
    /// Number of elements in the arrays around it; the size is divided among them.
    pub spread: usize,
    /// Resource type, for the APIs that have one.
    pub resource_type: i8,
    /// The flag of that name, for the APIs that have one.
    pub validate_only: bool,
    pub bytes: usize,
}

impl Shape {
    /// Description for a report.
    pub fn label(&self) -> String {
        let Shape { path, elements, spread, resource_type, validate_only, bytes } = self;
        let path = path.join(".");
        format!("{path} {elements:?} spread {spread} type {resource_type} validate {validate_only} {bytes} B")
    }
}

const TOPIC: i8 = 2;
/// Codes of an ACL's operation and permission.
const READ: i8 = 3;
const ALLOW: i8 = 3;
const NODE: [i8; 2] = [4, 8];
const RESOURCE_TYPES: [i8; 5] = [2, 4, 8, 16, 32];
/// Near the maximum length of a string, with space for a number.
const LONG_STRING_BYTES: usize = 32_000;

/// All shapes for a version of an API. The newest version gets all variations, older ones only the first of each.
pub fn shapes(api: &Api, version: i16, is_newest: bool, bytes: usize) -> Vec<Shape> {
    let mut large = Vec::new();
    large_fields(&api.request.fields, version, &mut Vec::new(), &mut large);
    let has = |name: &str| mentions(&api.request.fields, version, name);
    let resource_types = if is_newest && has("ResourceType") { &RESOURCE_TYPES[..] } else { &RESOURCE_TYPES[..1] };
    let validate_only: &[bool] = if has("ValidateOnly") { &[true, false] } else { &[false] };
    let mut shapes = Vec::new();
    for (path, is_array, has_text) in large {
        let elements: &[Elements] = match (is_array, has_text && is_newest) {
            (false, _) => &[Elements::Repeated],
            (true, false) => &[Elements::Repeated, Elements::Distinct],
            (true, true) => &[Elements::Repeated, Elements::Distinct, Elements::Long],
        };
        let spreads: &[usize] = if is_newest && path.len() > 1 { &[1, 30] } else { &[1] };
        for elements in elements {
            for spread in spreads {
                for resource_type in resource_types {
                    for validate_only in validate_only {
                        shapes.push(Shape {
                            path: path.clone(),
                            elements: *elements,
                            spread: *spread,
                            resource_type: *resource_type,
                            validate_only: *validate_only,
                            bytes,
                        });
                    }
                }
            }
        }
    }
    shapes
}

/// Finds the fields that can be large: their path, whether they are arrays, and whether their elements contain text.
fn large_fields(fields: &[Field], version: i16, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, bool, bool)>) {
    for field in fields.iter().filter(|field| field.versions.contains(version)) {
        path.push(field.name.clone());
        match &field.kind {
            Kind::Array(element) => {
                found.push((path.clone(), true, has_text(element, version)));
                if let Kind::Struct(fields) = &**element {
                    large_fields(fields, version, path, found);
                }
            }
            Kind::Struct(fields) => large_fields(fields, version, path, found),
            Kind::Bytes => found.push((path.clone(), false, false)),
            _ => {}
        }
        path.pop();
    }
}

fn has_text(kind: &Kind, version: i16) -> bool {
    match kind {
        Kind::String => true,
        Kind::Struct(fields) => {
            fields.iter().any(|field| field.versions.contains(version) && matches!(field.kind, Kind::String))
        }
        _ => false,
    }
}

fn mentions(fields: &[Field], version: i16, name: &str) -> bool {
    fields.iter().filter(|field| field.versions.contains(version)).any(|field| {
        field.name.eq_ignore_ascii_case(name)
            || match &field.kind {
                Kind::Struct(fields) => mentions(fields, version, name),
                Kind::Array(element) => match &**element {
                    Kind::Struct(fields) => mentions(fields, version, name),
                    _ => false,
                },
                _ => false,
            }
    })
}

/// Builds the body of a request.
pub fn body(name: &str, api: &Api, version: i16, shape: &Shape, world: &World) -> Vec<u8> {
    let mut writer = Writer {
        api: name,
        version,
        flexible: api.request.flexible.contains(version),
        shape,
        world,
        records: Batch::of(1).bytes(),
        request: world.unique(),
        bytes: Vec::with_capacity(shape.bytes + 1024),
        path: Vec::new(),
        is_inside: false,
        number: 0,
    };
    writer.fields(&api.request.fields);
    writer.bytes
}

struct Writer<'a> {
    api: &'a str,
    version: i16,
    flexible: bool,
    shape: &'a Shape,
    world: &'a World,
    records: Vec<u8>,
    /// A number that only this request has.
    request: u64,
    bytes: Vec<u8>,
    path: Vec<&'a str>,
    /// Whether the writer is within the large array.
    is_inside: bool,
    /// Number of the current element.
    number: u64,
}

impl<'a> Writer<'a> {
    fn fields(&mut self, fields: &'a [Field]) {
        let version = self.version;
        let (tagged, plain): (Vec<&Field>, Vec<&Field>) = fields
            .iter()
            .filter(|field| field.versions.contains(version))
            .partition(|field| field.tagged.contains(version));
        for field in plain {
            self.field(field);
        }
        if self.flexible {
            let large: Vec<&Field> = tagged.into_iter().filter(|field| self.leads_to_large(&field.name)).collect();
            put_unsigned_varint(&mut self.bytes, large.len() as u32);
            for field in large {
                let outer = std::mem::take(&mut self.bytes);
                self.field(field);
                let inner = std::mem::replace(&mut self.bytes, outer);
                put_unsigned_varint(&mut self.bytes, field.tag.unwrap_or_default());
                put_unsigned_varint(&mut self.bytes, inner.len() as u32);
                self.bytes.extend(inner);
            }
        }
    }

    fn leads_to_large(&self, name: &str) -> bool {
        self.shape.path.get(self.path.len()).is_some_and(|wanted| wanted == name)
            && self.shape.path.iter().zip(&self.path).all(|(wanted, name)| wanted == name)
    }

    fn field(&mut self, field: &'a Field) {
        self.path.push(&field.name);
        match &field.kind {
            Kind::Struct(fields) => {
                if field.nullable.contains(self.version) {
                    // The only nullable structure is a cursor, and a first request has none.
                    self.bytes.push(0xff);
                } else {
                    self.fields(fields);
                }
            }
            // Null asks for everything.
            Kind::Array(_) if self.is_inside && field.nullable.contains(self.version) && !self.differs() => {
                self.null_array();
            }
            Kind::Array(element) => self.array(element),
            kind => self.value(kind, field),
        }
        self.path.pop();
    }

    fn is_large(&self) -> bool {
        self.path.len() == self.shape.path.len()
            && self.path.iter().zip(&self.shape.path).all(|(name, wanted)| name == wanted)
    }

    fn is_around_large(&self) -> bool {
        self.path.len() < self.shape.path.len()
            && self.path.iter().zip(&self.shape.path).all(|(name, wanted)| name == wanted)
    }

    fn array(&mut self, element: &'a Kind) {
        let outer = std::mem::take(&mut self.bytes);
        let mut count = 0;
        if self.is_large() {
            let bytes = self.shape.bytes / self.shape.spread;
            self.is_inside = true;
            while self.bytes.len() < bytes {
                self.number += 1;
                count += 1;
                self.element(element);
            }
            self.is_inside = false;
        } else {
            let wanted = if self.is_around_large() { self.shape.spread } else { 1 };
            for _ in 0..wanted {
                self.number += 1;
                count += 1;
                self.element(element);
            }
        }
        let inner = std::mem::replace(&mut self.bytes, outer);
        self.count(count);
        self.bytes.extend(inner);
    }

    fn element(&mut self, element: &'a Kind) {
        match element {
            Kind::Struct(fields) => self.fields(fields),
            Kind::String => {
                let text = self.text(self.path[self.path.len() - 1], "").unwrap_or_default();
                self.string(Some(&text));
            }
            Kind::Uuid => self.uuid(),
            number => self.integer(number, self.path[self.path.len() - 1], 0),
        }
    }

    fn value(&mut self, kind: &Kind, field: &Field) {
        match kind {
            Kind::Bool => {
                let wanted = match field.name.to_ascii_lowercase().as_str() {
                    "validateonly" => self.shape.validate_only,
                    "includesynonyms" | "includedocumentation" => true,
                    _ => field.default.as_bool().unwrap_or_default(),
                };
                self.bytes.push(wanted.into());
            }
            Kind::Float64 => self.bytes.extend(1000f64.to_be_bytes()),
            Kind::Uuid => self.uuid(),
            Kind::String => {
                let default = field.default.as_str().unwrap_or_default();
                let text = self.text(&field.name, default);
                match text {
                    None if !field.nullable.contains(self.version) => self.string(Some("")),
                    text => self.string(text.as_deref()),
                }
            }
            Kind::Bytes if self.is_large() => self.blob(&vec![7; self.shape.bytes / self.shape.spread]),
            Kind::Bytes => self.blob(b"x"),
            Kind::Records => {
                let records = std::mem::take(&mut self.records);
                self.blob(&records);
                self.records = records;
            }
            number => self.integer(number, &field.name, field.default.as_i64().unwrap_or_default()),
        }
    }

    /// Whether the current value must differ from element to element.
    fn differs(&self) -> bool {
        self.is_inside && self.shape.elements != Elements::Repeated
    }

    fn integer(&mut self, kind: &Kind, name: &str, default: i64) {
        let number = self.number as i64;
        let value = match name {
            "ResourceType" => self.shape.resource_type.into(),
            "TimeoutMs" | "timeoutMs" | "RebalanceTimeoutMs" => 1000,
            "SessionTimeoutMs" => 10_000,
            "NumPartitions" | "ReplicationFactor" | "EndpointType" => 1,
            "Count" => 2,
            "BrokerIds" | "Replicas" if !self.differs() => self.world.node_id.into(),
            "Acks" | "ReplicaId" | "Timestamp" => -1,
            "MaxWaitMs" | "MinBytes" | "SessionEpoch" | "FetchOffset" => 0,
            "PartitionMaxBytes" => 1 << 20,
            "Partition" | "Partitions" | "PartitionIndex" | "PartitionIndexes" | "Index" | "BrokerIds" | "Replicas"
            | "ProducerIdFilters"
                if self.differs() =>
            {
                number
            }
            // Code 0 in an ACL closes the connection.
            "Operation" => READ.into(),
            "PermissionType" => ALLOW.into(),
            "ResourceTypeFilter" => TOPIC.into(),
            "ResourceTypes" if self.differs() => number,
            "ResourceTypes" => TOPIC.into(),
            _ => default,
        };
        match kind {
            Kind::Int8 => self.bytes.push(value as u8),
            Kind::Int16 | Kind::Uint16 => self.bytes.extend((value as i16).to_be_bytes()),
            Kind::Int32 | Kind::Uint32 => self.bytes.extend((value as i32).to_be_bytes()),
            Kind::Int64 => self.bytes.extend(value.to_be_bytes()),
            other => panic!("{other:?} is no number"),
        }
    }

    fn text(&self, name: &str, default: &str) -> Option<String> {
        if let Some(fixed) = self.fixed_text(name) {
            return fixed;
        }
        if self.differs() {
            let number = format!("h{:x}", self.number);
            return Some(match self.shape.elements {
                Elements::Long => number.clone() + &"x".repeat(LONG_STRING_BYTES - number.len()),
                _ => number,
            });
        }
        let around = self.path.iter().rev().nth(1).copied().unwrap_or_default();
        Some(match (around, name) {
            ("Configs", "Name") | (_, "ConfigurationKeys") => "retention.ms".to_owned(),
            ("Configs", "Value") => "1000".to_owned(),
            (_, "Name" | "Topic" | "TopicName" | "TopicNames") => self.world.topic.clone(),
            (_, "GroupId" | "Groups" | "GroupsNames" | "CoordinatorKeys" | "Key") => self.world.group.clone(),
            (_, "ResourceName") if NODE.contains(&self.shape.resource_type) => self.world.node_id.to_string(),
            (_, "ResourceName") if self.shape.resource_type == TOPIC => self.world.topic.clone(),
            (_, "ResourceName") => self.world.group.clone(),
            (_, "Path") => self.world.data.clone(),
            (_, "StatesFilter") => "Stable".to_owned(),
            (_, "TypesFilter") => "classic".to_owned(),
            (_, "ProtocolName") => "range".to_owned(),
            (_, "EntityName" | "Match") => "somebody".to_owned(),
            _ => default.to_owned(),
        })
    }

    /// Returns the text of fields that have the same value in every shape; the inner `None` means null.
    fn fixed_text(&self, name: &str) -> Option<Option<String>> {
        let text = |text: &str| Some(Some(text.to_owned()));
        match (self.api, name) {
            // Each request gets a new group: in an existing one, the answer waits for the other members.
            ("JoinGroup", "GroupId") => Some(Some(format!("join-{}", self.request))),
            // A static member joins at once.
            ("JoinGroup", "GroupInstanceId") => text("static"),
            ("JoinGroup", "MemberId") => text(""),
            ("JoinGroup" | "SyncGroup", "ProtocolType") => text("consumer"),
            ("AlterClientQuotas", "Key") => text("producer_byte_rate"),
            (_, "EntityType") => text("user"),
            ("OffsetCommit" | "OffsetFetch", "MemberId") => text(""),
            ("Fetch", "ClusterId") | (_, "TransactionalId") => Some(None),
            ("OffsetCommit" | "Heartbeat", "GroupInstanceId") => Some(None),
            _ => None,
        }
    }

    fn uuid(&mut self) {
        match self.differs() {
            true => {
                self.bytes.extend(0x1234_5678_0000_4000_u64.to_be_bytes());
                self.bytes.extend((self.number | 1 << 63).to_be_bytes());
            }
            false => self.bytes.extend(uuid(&self.world.topic_id)),
        }
    }

    fn count(&mut self, count: usize) {
        match self.flexible {
            true => put_unsigned_varint(&mut self.bytes, count as u32 + 1),
            false => self.bytes.extend((count as i32).to_be_bytes()),
        }
    }

    fn null_array(&mut self) {
        match self.flexible {
            true => self.bytes.push(0),
            false => self.bytes.extend((-1i32).to_be_bytes()),
        }
    }

    fn string(&mut self, text: Option<&str>) {
        match (self.flexible, text) {
            (true, None) => self.bytes.push(0),
            (true, Some(text)) => self.count(text.len()),
            (false, None) => self.bytes.extend((-1i16).to_be_bytes()),
            (false, Some(text)) => self.bytes.extend((text.len() as i16).to_be_bytes()),
        }
        self.bytes.extend(text.unwrap_or_default().as_bytes());
    }

    fn blob(&mut self, blob: &[u8]) {
        self.count(blob.len());
        self.bytes.extend(blob);
    }
}
