//! Makes an answer comparable: values that must differ between two servers (ids, ports, times) are replaced by a name
//! or a mark, and lists without a meaningful order are sorted. Equal ids get equal names within a case, so a wrong id
//! is still found.

use serde_json::{Map, Value};

use super::codec::ZERO_UUID;

/// The names that a case has given to ids so far.
#[derive(Debug, Default)]
pub struct Names {
    known: Vec<(String, String)>,
    given: usize,
    /// Fields whose values differ in this case only, like `MARKED`.
    marked: Vec<(&'static str, &'static str)>,
    /// Fields with lists of numbers whose order differs in this case.
    unordered: Vec<&'static str>,
}

/// Lists that become objects with this field as the key, so that one additional or missing element is one difference.
const KEYED: &[(&str, &str, &str)] = &[
    ("ApiVersions", "ApiKeys", "ApiKey"),
    ("ApiVersions", "SupportedFeatures", "Name"),
    ("ApiVersions", "FinalizedFeatures", "Name"),
    ("DescribeConfigs", "Configs", "Name"),
    ("CreateTopics", "Configs", "Name"),
];

/// Lists with a meaningful order.
const ORDERED: &[&str] = &["Synonyms", "Nodes", "Records", "Endpoints", "AbortedTransactions"];
/// APIs whose answers have a meaningful order.
const ORDERED_APIS: &[&str] = &["Fetch", "DescribeTopicPartitions", "DescribeTransactions", "UpdateFeatures"];

/// Fields that identify the elements of a list, the most specific first.
const IDENTITY: &[&str] = &[
    "Name",
    "Topic",
    "TopicName",
    "TopicId",
    "GroupId",
    "Key",
    "ResourceType",
    "ResourceName",
    "ConfigName",
    "GroupInstanceId",
    "ClientId",
    "MemberMetadata",
    "Metadata",
    "PartitionIndex",
    "Partition",
    "PartitionId",
    "Index",
    "NodeId",
    "BrokerId",
    "ReplicaId",
    "User",
    "EntityType",
    "EntityName",
    "Entity",
    "ErrorCode",
    "MemberId",
];

/// Fields whose whole text is a UUID.
const UUID_FIELDS: &[&str] = &["TopicId", "ReplicaDirectoryId", "ClusterId", "DirectoryId"];
/// Fields with numbers that a server chooses.
const ID_FIELDS: &[&str] = &["ProducerId", "SessionId"];
/// Fields whose values may differ between servers unless they are negative.
const MARKED: &[(&str, &str)] = &[
    ("Port", "<port>"),
    ("LogAppendTimeMs", "<time>"),
    ("FinalizedFeaturesEpoch", "<epoch>"),
    ("TotalBytes", "<bytes>"),
    ("UsableBytes", "<bytes>"),
    ("LastFetchTimestamp", "<time>"),
    ("LastCaughtUpTimestamp", "<time>"),
];
/// The same for DescribeQuorum: our metadata log does not contain the same records as Kafka's.
const MARKED_IN_QUORUM: &[(&str, &str)] =
    &[("LeaderEpoch", "<epoch>"), ("HighWatermark", "<offset>"), ("LogEndOffset", "<offset>")];
/// Settings whose values contain ports and directories.
const OWN_SETTINGS: &[&str] = &[
    "listeners",
    "advertised.listeners",
    "log.dirs",
    "log.dir",
    "controller.quorum.voters",
    "controller.quorum.bootstrap.servers",
    "metadata.log.dir",
];

impl Names {
    /// Replaces the value by this name from now on.
    pub fn insert(&mut self, value: &Value, name: &str) {
        let text = match value {
            Value::String(text) if !text.is_empty() && text != ZERO_UUID => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return,
        };
        if self.find(&text).is_none() {
            self.known.push((text, name.to_owned()));
        }
    }

    /// Replaces the values of this field by this mark from now on.
    pub fn mark(&mut self, field: &'static str, mark: &'static str) {
        self.marked.push((field, mark));
    }

    /// Sorts the numbers in the lists of this field from now on.
    pub fn ignore_order(&mut self, field: &'static str) {
        self.unordered.push(field);
    }

    /// Replaces the value by this word and the next number from now on.
    pub fn insert_next(&mut self, text: &str, word: &str) {
        self.given += 1;
        self.insert(&text.into(), &format!("<{word} {}>", self.given));
    }

    pub fn mask(&mut self, api: &str, answer: &mut Value) {
        self.replace(api, "", answer, false);
        sort(api, "", answer);
        self.sort_numbers("", answer);
        self.replace(api, "", answer, true);
        key_lists(api, answer);
    }

    fn sort_numbers(&self, field: &str, value: &mut Value) {
        match value {
            Value::Object(object) => object.iter_mut().for_each(|(name, value)| self.sort_numbers(name, value)),
            Value::Array(list) if self.unordered.contains(&field) => list.sort_by_key(Value::as_i64),
            Value::Array(list) => list.iter_mut().for_each(|one| self.sort_numbers(field, one)),
            _ => {}
        }
    }

    fn find(&self, text: &str) -> Option<&str> {
        self.known.iter().find(|(known, _)| known == text).map(|(_, name)| name.as_str())
    }

    /// Replaces values by marks and names; with `invent`, ids not seen before also get names (in the order of the
    /// sorted answer).
    fn replace(&mut self, api: &str, field: &str, value: &mut Value, invent: bool) {
        match value {
            Value::Object(object) => {
                mask_own_setting(object);
                for (name, value) in object {
                    self.replace(api, name, value, invent);
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|one| self.replace(api, field, one, invent)),
            Value::Number(number) => {
                if let Some(mask) = self.number(api, field, number.as_i64().unwrap_or(-1), invent) {
                    *value = mask.into();
                }
            }
            Value::String(text) => {
                if let Some(mask) = self.text(field, text, invent) {
                    *value = mask.into();
                }
            }
            _ => {}
        }
    }

    fn number(&mut self, api: &str, field: &str, number: i64, invent: bool) -> Option<String> {
        let in_quorum = if api == "DescribeQuorum" { MARKED_IN_QUORUM } else { &[] };
        if let Some((_, mark)) = MARKED.iter().chain(in_quorum).chain(&self.marked).find(|(name, _)| *name == field) {
            return (number >= 0).then(|| (*mark).to_owned());
        }
        if ID_FIELDS.contains(&field) && number >= 0 && !(field == "SessionId" && number == 0) {
            return self.name(&number.to_string(), field, invent);
        }
        None
    }

    fn text(&mut self, field: &str, text: &str, invent: bool) -> Option<String> {
        if field == "LogDir" {
            return Some("<dir>".into());
        }
        if UUID_FIELDS.contains(&field) {
            return if text == ZERO_UUID || text.starts_with('<') { None } else { self.name(text, field, invent) };
        }
        // A member id is a client id or an instance id, followed by a UUID.
        if let Some(at) = text.len().checked_sub(36).filter(|at| text.is_char_boundary(*at)) {
            let (prefix, uuid) = text.split_at(at);
            if is_uuid(uuid) {
                return self.name(uuid, "uuid", invent).map(|name| format!("{prefix}{name}"));
            }
        }
        let known = self.known.iter().find(|(known, _)| known.len() > 8 && text.contains(known.as_str()));
        known.map(|(known, name)| text.replace(known, name))
    }

    fn name(&mut self, text: &str, field: &str, invent: bool) -> Option<String> {
        if self.find(text).is_none() && invent {
            self.given += 1;
            self.known.push((text.to_owned(), format!("<{field} {}>", self.given)));
        }
        self.find(text).map(str::to_owned)
    }
}

fn is_uuid(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}

fn mask_own_setting(object: &mut Map<String, Value>) {
    let is_own = object.get("Name").and_then(Value::as_str).is_some_and(|name| OWN_SETTINGS.contains(&name));
    if is_own && object.get("Value").is_some_and(Value::is_string) {
        object.insert("Value".into(), "<own>".into());
    }
}

fn sort(api: &str, field: &str, value: &mut Value) {
    match value {
        Value::Object(object) => object.iter_mut().for_each(|(name, value)| sort(api, name, value)),
        Value::Array(list) => {
            list.iter_mut().for_each(|one| sort(api, field, one));
            if !ORDERED_APIS.contains(&api) && !ORDERED.contains(&field) && list.iter().all(Value::is_object) {
                list.sort_by_cached_key(identity);
            }
        }
        _ => {}
    }
}

fn identity(element: &Value) -> Vec<String> {
    let telling = IDENTITY.iter().filter_map(|field| element.get(field));
    telling.map(|value| value.as_i64().map_or_else(|| value.to_string(), |number| format!("{number:020}"))).collect()
}

fn key_lists(api: &str, value: &mut Value) {
    let Value::Object(object) = value else {
        if let Value::Array(list) = value {
            list.iter_mut().for_each(|one| key_lists(api, one));
        }
        return;
    };
    for (name, value) in object {
        let row = KEYED.iter().find(|(of, list, _)| *of == api && list == name);
        if let (Some((_, _, key)), Value::Array(list)) = (row, &mut *value) {
            let keyed = list.drain(..).map(|mut element| {
                let key = element.as_object_mut().and_then(|object| object.remove(*key)).unwrap_or_default();
                (key.as_str().map_or_else(|| key.to_string(), str::to_owned), element)
            });
            *value = Value::Object(keyed.collect());
        }
        key_lists(api, value);
    }
}
