//! Tests of the guard against `kafka-protocol`. Random bodies of every (API, version), encoded from the schemas, must
//! pass and decode to the last byte. Damaged bodies that pass must decode without harm.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{messages, protocol::Encodable};
use proptest::prelude::*;

use super::*;
use crate::protocol::fuzzing::{APIS, Api};

fn schema(api_key: i16) -> &'static Schema {
    schemas::REQUESTS.iter().find(|schema| schema.api_key == api_key).expect("every API has a schema")
}

/// Every (API, version) that both the crate and Kafka 4.3.1 support.
fn all_versions() -> impl Iterator<Item = (&'static Api, i16)> {
    APIS.iter().flat_map(|api| {
        let (first, last) = schema(api.key).versions;
        (first.max(api.versions.min)..=last.min(api.versions.max)).map(move |version| (api, version))
    })
}

/// Small random numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// Encodes random messages of a given shape.
struct Author {
    bytes: BytesMut,
    dice: Dice,
    version: i16,
    flexible: bool,
}

impl Author {
    fn write(schema: &Schema, version: i16, seed: u64) -> Bytes {
        let mut author =
            Self { bytes: BytesMut::new(), dice: Dice(seed), version, flexible: version >= schema.flexible_from };
        author.structure(schema.fields);
        author.bytes.freeze()
    }

    fn structure(&mut self, fields: &[Field]) {
        let version = self.version;
        for field in fields.iter().filter(|field| field.is_plain(version)) {
            self.value(&field.kind, within(field.nullable, version));
        }
        if !self.flexible {
            return;
        }
        let mut tags = Vec::new();
        for field in fields.iter().filter(|field| field.is_tagged(version)) {
            if self.dice.below(2) == 0 {
                let before = std::mem::take(&mut self.bytes);
                // The crate does not encode a null that is its default, so this test does not use null here.
                self.value(&field.kind, false);
                tags.push((field.tag, std::mem::replace(&mut self.bytes, before)));
            }
        }
        if self.dice.below(4) == 0 {
            tags.push((99, BytesMut::from(&b"unknown"[..])));
        }
        self.varint(tags.len() as u32);
        for (tag, content) in tags {
            self.varint(tag);
            self.varint(content.len() as u32);
            self.bytes.put(content);
        }
    }

    fn value(&mut self, kind: &Kind, nullable: bool) {
        let null = nullable && self.dice.below(3) == 0;
        match kind {
            // Some are booleans, which are encoded as 0 or 1, so only 0 and 1 stay the same.
            Kind::Fixed(1) => self.bytes.put_u8(self.dice.below(2) as u8),
            Kind::Fixed(length) => (0..*length).for_each(|_| self.bytes.put_u8(self.dice.below(256) as u8)),
            Kind::String if self.flexible => {
                self.text(null, |author, length| author.varint(length.map_or(0, |length| length + 1)))
            }
            Kind::String => {
                self.text(null, |author, length| author.bytes.put_i16(length.map_or(-1, |length| length as i16)))
            }
            Kind::Bytes => self.text(null, Self::length),
            Kind::Struct(fields) => {
                if nullable {
                    self.bytes.put_i8(if null { -1 } else { 1 });
                }
                if !null {
                    self.structure(fields);
                }
            }
            Kind::Array(_) if null => self.length(None),
            Kind::Array(element) => {
                let count = self.dice.below(4) as u32;
                self.length(Some(count));
                (0..count).for_each(|_| self.value(element, false));
            }
        }
    }

    fn text(&mut self, null: bool, put_length: impl FnOnce(&mut Self, Option<u32>)) {
        let length = (!null).then(|| self.dice.below(20) as u32);
        put_length(self, length);
        (0..length.unwrap_or(0)).for_each(|_| self.bytes.put_u8(b'a' + self.dice.below(26) as u8));
    }

    fn length(&mut self, length: Option<u32>) {
        if self.flexible {
            self.varint(length.map_or(0, |length| length + 1));
        } else {
            self.bytes.put_i32(length.map_or(-1, |length| length as i32));
        }
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.put_u8(value as u8);
    }
}

#[test]
fn schemas_are_sorted_by_key() {
    assert!(schemas::REQUESTS.is_sorted_by(|a, b| a.api_key < b.api_key));
    assert_eq!(APIS.len() + 2, schemas::REQUESTS.len(), "the crate lacks the two APIs of streams groups");
}

#[test]
fn default_requests_of_every_version_pass() {
    let mut passed = 0;
    for (api, version) in all_versions() {
        // The default of a field may be null, and this version may not allow null. Then the crate does not encode the
        // message.
        if let Ok(body) = (api.default)(version) {
            assert!(check_request(api.key, version, &body).is_ok(), "key {} version {version}", api.key);
            passed += 1;
        }
    }
    assert!(passed > 200, "{passed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn random_requests_of_every_version_pass_and_decode_to_their_last_byte(seed: u64) {
        for (api, version) in all_versions() {
            let body = Author::write(schema(api.key), version, seed);
            prop_assert!(check_request(api.key, version, &body).is_ok(), "key {} version {}", api.key, version);
            match (api.decode)(version, body.clone()) {
                Ok((left, again)) => {
                    prop_assert_eq!(left, 0, "key {} version {}", api.key, version);
                    prop_assert!(check_request(api.key, version, &again).is_ok(), "key {} version {}", api.key, version);
                }
                Err(error) => prop_assert!(false, "key {} version {}: {error:#}", api.key, version),
            }
        }
    }

    #[test]
    fn every_cut_of_a_request_is_refused(seed: u64, at: prop::sample::Index) {
        for (api, version) in all_versions() {
            let body = Author::write(schema(api.key), version, seed);
            if !body.is_empty() {
                prop_assert!(check_request(api.key, version, &body[..at.index(body.len())]).is_err(), "key {} version {}", api.key, version);
            }
        }
    }

    // If a count of 2^31 passed the guard, the crate would allocate its memory at once and abort the test process.
    #[test]
    fn broken_requests_that_pass_decode_without_harm(seed: u64) {
        let mut dice = Dice(seed);
        for (api, version) in all_versions() {
            let mut body = BytesMut::from(&Author::write(schema(api.key), version, seed)[..]);
            for _ in 0..=dice.below(3) {
                if !body.is_empty() {
                    let at = dice.below(body.len() as u64) as usize;
                    body[at] = match dice.below(4) { 0 => 0xff, 1 => 0x7f, 2 => 0x80, _ => dice.below(256) as u8 };
                }
            }
            let body = body.freeze();
            if check_request(api.key, version, &body).is_ok() {
                let _ = (api.decode)(version, body);
            }
        }
    }
}

fn refused(api_key: i16, version: i16, body: &[u8]) -> DecodeError {
    match check_request(api_key, version, body) {
        Err(GuardError::Field { error, .. }) => error,
        passed => panic!("{passed:?}"),
    }
}

#[test]
fn four_bytes_of_metadata_and_twelve_of_produce_are_refused() {
    assert_eq!(refused(3, 1, &[0x7f, 0xff, 0xff, 0xff]), DecodeError::Truncated);
    assert_eq!(refused(3, 9, &[0xff, 0xff, 0xff, 0xff, 0x0f]), DecodeError::Truncated);
    assert_eq!(refused(0, 3, &[0xff, 0xff, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff]), DecodeError::Truncated);
}

#[test]
fn floods_of_tags_are_refused() {
    // ApiVersions v3: two empty strings, then 200 empty tags.
    let mut body = vec![1, 1, 0xc8, 0x01];
    body.resize(1000, 0);
    assert_eq!(refused(18, 3, &body), DecodeError::TooManyTags);
    // Metadata v9: 100 tags in each of 50 topics.
    let mut body = vec![51];
    for _ in 0..50 {
        body.extend_from_slice(&[1, 100]);
        body.extend_from_slice(&[99, 0].repeat(100));
    }
    body.extend_from_slice(&[0, 0, 0, 0]);
    assert_eq!(refused(3, 9, &body), DecodeError::TooManyTags);
}

#[test]
fn nested_counts_are_refused_at_every_level() {
    // CreateTopics v2: one topic without assignments, then a count of configs without the configs.
    let mut body = BytesMut::new();
    body.put_i32(1);
    body.put_slice(&[0, 1, b't', 0, 0, 0, 1, 0, 1]);
    body.put_i32(0);
    body.put_i32(i32::MAX);
    body.put_i32(30_000);
    assert_eq!(refused(19, 2, &body), DecodeError::Truncated);
}

#[test]
fn millions_of_tiny_elements_are_refused() {
    // Metadata v1: topics with an empty name, each of 2 bytes on the wire and of some 100 bytes in memory.
    let topics = 20 * 1024 * 1024;
    let mut body = BytesMut::new();
    body.put_i32(topics);
    body.put_bytes(0, topics as usize * 2);
    assert_eq!(refused(3, 1, &body), DecodeError::TooManyElements);
}

#[test]
fn the_elements_of_all_arrays_of_a_request_are_counted_together() {
    // ElectLeaders v0: topics with partitions.
    let request = |partitions: &[usize]| {
        let mut body = BytesMut::new();
        body.put_i32(partitions.len() as i32);
        for count in partitions {
            body.put_slice(&[0, 1, b't']);
            body.put_i32(*count as i32);
            body.put_bytes(0, count * 4);
        }
        body.put_i32(1_000);
        body
    };
    assert!(check_request(43, 0, &request(&[100_000, 99_998])).is_ok());
    assert_eq!(refused(43, 0, &request(&[100_000, 99_999])), DecodeError::TooManyElements);
}

#[test]
fn known_tagged_fields_must_fill_their_size() {
    // Fetch v12 has the cluster id as tag 0 of the request.
    let request = messages::FetchRequest::default().with_cluster_id(Some("abc".to_string().into()));
    let mut body = BytesMut::new();
    request.encode(&mut body, 12).unwrap();
    assert!(check_request(1, 12, &body).is_ok());
    let size_at = body.len() - 5;
    assert_eq!(body[size_at..], [4, 4, b'a', b'b', b'c']);
    body[size_at] = 5;
    body.put_u8(0);
    assert_eq!(refused(1, 12, &body), DecodeError::TagSize(0));
    body[size_at] = 3;
    assert_eq!(refused(1, 12, &body), DecodeError::Truncated);
}

/// The crate reads such tags and does not write them, so a forwarded request would differ from the original. Found by
/// fuzzing.
#[test]
fn tags_that_cannot_be_are_refused() {
    let with_tag = |last_byte| [1, 0xff, 0xff, 0xff, 0xff, last_byte, 0];
    assert!(check_request(74, 0, &with_tag(7)).is_ok());
    assert_eq!(refused(74, 0, &with_tag(8)), DecodeError::Tag(0x8fff_ffff));
}

/// If the crate reads null, the guard must not read a struct. Found by fuzzing.
#[test]
fn a_struct_is_there_or_null_and_nothing_else() {
    // DescribeTopicPartitions without topics: the limit, then the cursor.
    let with_cursor = |presence: i8, cursor: &[u8]| [&[1, 0, 0, 0, 9, presence as u8], cursor, &[0]].concat();
    let cursor = [2, b't', 0, 0, 0, 0, 0];
    assert!(check_request(75, 0, &with_cursor(-1, &[])).is_ok());
    assert!(check_request(75, 0, &with_cursor(-128, &[])).is_ok());
    assert!(check_request(75, 0, &with_cursor(1, &cursor)).is_ok());
    for presence in [0, 2, 13, 127] {
        assert_eq!(refused(75, 0, &with_cursor(presence, &cursor)), DecodeError::Presence(presence));
    }
}

#[test]
fn bytes_after_a_request_are_let_through_as_kafka_does() {
    for (api, version) in all_versions() {
        let mut body = BytesMut::from(&Author::write(schema(api.key), version, 1)[..]);
        body.put_slice(b"more");
        assert!(check_request(api.key, version, &body).is_ok());
    }
}

#[test]
fn unknown_keys_and_versions_are_refused() {
    assert_eq!(check_request(4, 0, &[]), Err(GuardError::ApiKey(4)));
    assert_eq!(check_request(-1, 0, &[]), Err(GuardError::ApiKey(-1)));
    assert_eq!(refused(3, 14, &[]), DecodeError::Version(14));
    assert_eq!(refused(0, 2, &[]), DecodeError::Version(2));
}

#[test]
fn the_estimate_of_memory_is_not_below_what_the_crate_takes() {
    use kafka_protocol::messages::*;
    fn element(api_key: i16, field: &str) -> usize {
        let field = schema(api_key).fields.iter().find(|each| each.name == field).unwrap();
        match &field.kind {
            Kind::Array(element) => decoded_bytes(element),
            _ => panic!(),
        }
    }
    for (estimate, taken) in [
        (element(3, "Topics"), size_of::<metadata_request::MetadataRequestTopic>()),
        (element(19, "Topics"), size_of::<create_topics_request::CreatableTopic>()),
        (element(11, "Protocols"), size_of::<join_group_request::JoinGroupRequestProtocol>()),
        (element(14, "Assignments"), size_of::<sync_group_request::SyncGroupRequestAssignment>()),
        (element(13, "Members"), size_of::<leave_group_request::MemberIdentity>()),
        (element(32, "Resources"), size_of::<describe_configs_request::DescribeConfigsResource>()),
        (element(44, "Resources"), size_of::<incremental_alter_configs_request::AlterConfigsResource>()),
        (element(45, "Topics"), size_of::<alter_partition_reassignments_request::ReassignableTopic>()),
        (element(23, "Topics"), size_of::<offset_for_leader_epoch_request::OffsetForLeaderTopic>()),
        (element(30, "Creations"), size_of::<create_acls_request::AclCreation>()),
        (element(49, "Entries"), size_of::<alter_client_quotas_request::EntryData>()),
        (element(37, "Topics"), size_of::<create_partitions_request::CreatePartitionsTopic>()),
    ] {
        assert!(estimate >= taken, "estimated {estimate}, taken {taken}");
    }
}
