//! Hostile bytes at the socket: the broker keeps running, its memory does not grow, the connection closes, and one log
//! line says why.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, ApiVersionsRequest},
    protocol::StrBytes,
};
use protocol_tests::{
    broker::Broker,
    clients::{Record, create_topic, produce, read_all},
    process::{eventually, poll},
    wire::{Answer, Wire},
};

/// Limit for the memory that remains after one bomb.
const GROWTH_BYTES: u64 = 1 << 20;
const CLOSE_LIMIT: Duration = Duration::from_secs(20);

/// Sends bytes on a new connection, which the broker must close without an answer.
fn must_close(broker: &Broker, what: &str, send: impl FnOnce(&mut Wire)) {
    let mut wire = Wire::connect(&broker.bootstrap());
    send(&mut wire);
    match wire.answer(CLOSE_LIMIT) {
        Answer::Closed => {}
        other => panic!("{what}: the connection should be closed, but there was {other:?}"),
    }
}

/// A client's first request: ApiVersions v3 without a client name would be refused.
fn hello() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("wire"))
        .with_client_software_version(StrBytes::from_static_str("1"))
}

fn is_alive(broker: &mut Broker) {
    assert!(broker.process().is_running(), "the broker died");
    let answer = Wire::connect(&broker.bootstrap()).ask(3, &hello());
    assert!(answer.api_keys.len() > 20);
}

/// Starts a broker and warms it up, so that the memory of its first requests is not measured.
fn warm_broker() -> Broker {
    let mut broker = Broker::start_default();
    create_topic(&broker.bootstrap(), "t", 1, &[]);
    produce(&broker.bootstrap(), "t", &[], &[Record::of("k", "v")]);
    for _ in 0..20 {
        is_alive(&mut broker);
    }
    broker
}

/// Waits until the broker has returned the memory for frames, which happens some time after the last large one.
fn wait_until_memory_released(broker: &mut Broker, what: &str, before: u64) {
    let mut grown_bytes = u64::MAX;
    let released = poll(CLOSE_LIMIT, || {
        grown_bytes = broker.process().memory_bytes("VmRSS").saturating_sub(before);
        (grown_bytes < GROWTH_BYTES).then_some(())
    });
    assert!(
        released.is_some(),
        "{what}: after {CLOSE_LIMIT:?} the broker still has {grown_bytes} bytes more than before"
    );
}

/// Request bodies whose counts promise more than the frame can contain.
fn bodies() -> Vec<(&'static str, ApiKey, i16, Vec<u8>)> {
    let max = i32::MAX.to_be_bytes();
    // The largest unsigned varint of 32 bits: a compact array of 2^32-2 elements.
    let compact_max = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let mut produce_v3 = vec![0xff, 0xff, 0, 1, 0, 0, 0x75, 0x30];
    produce_v3.extend_from_slice(&max);
    // One topic "t", then an enormous count of partitions.
    let mut nested = vec![0xff, 0xff, 0, 1, 0, 0, 0x75, 0x30, 0, 0, 0, 1, 0, 1, b't'];
    nested.extend_from_slice(&max);
    let mut fetch = vec![0xff; 4];
    fetch.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0]);
    fetch.extend_from_slice(&max);
    let mut tags = BytesMut::new();
    tags.put_slice(&[1, 1]); // two empty compact strings
    put_tags(&mut tags, 1_500_000);
    vec![
        ("a 4-byte Metadata body", ApiKey::Metadata, 1, max.to_vec()),
        ("a 5-byte Metadata body", ApiKey::Metadata, 9, compact_max.to_vec()),
        ("a 12-byte Produce body", ApiKey::Produce, 3, produce_v3),
        ("nested counts in Produce", ApiKey::Produce, 3, nested),
        ("counts in Fetch", ApiKey::Fetch, 4, fetch),
        ("a flood of tags", ApiKey::ApiVersions, 3, tags.to_vec()),
        ("counts in CreateTopics", ApiKey::CreateTopics, 2, max.to_vec()),
        (
            "counts in OffsetCommit",
            ApiKey::OffsetCommit,
            2,
            [&[0, 1, b'g', 0, 0, 0, 0, 0, 0][..], &[0; 8][..], &max[..]].concat(),
        ),
        (
            "counts in JoinGroup",
            ApiKey::JoinGroup,
            0,
            [&[0, 1, b'g', 0, 0, 0x27, 0x10, 0, 0, 0, 0][..], &max[..]].concat(),
        ),
        ("no body at all", ApiKey::Produce, 9, Vec::new()),
        ("half a body", ApiKey::ListOffsets, 1, vec![0xff, 0xff]),
    ]
}

fn put_tags(body: &mut BytesMut, count: u32) {
    put_varint(body, count);
    for tag in 0..count {
        put_varint(body, tag);
        put_varint(body, 0);
    }
}

fn put_varint(body: &mut BytesMut, mut number: u32) {
    while number >= 0x80 {
        body.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    body.put_u8(number as u8);
}

#[test]
fn bodies_that_promise_too_much_close_the_connection_and_cost_nothing() {
    let mut broker = warm_broker();
    for (what, key, version, body) in bodies() {
        let before = broker.process().memory_bytes("VmRSS");
        let lines = broker.log().len();
        for _ in 0..5 {
            must_close(&broker, what, |wire| wire.send_body(key as i16, version, &body));
        }
        is_alive(&mut broker);
        wait_until_memory_released(&mut broker, what, before);
        eventually(&format!("{what}: one line for each connection"), CLOSE_LIMIT, || {
            (broker.log().len() >= lines + 5).then_some(())
        });
        let log_lines = broker.log()[lines..].to_vec();
        assert!(
            log_lines.len() == 5 && log_lines.iter().all(|line| line.contains("127.0.0.1")),
            "{what}: {log_lines:#?}"
        );
    }
    assert_eq!(read_all(&broker.bootstrap(), "t").len(), 1);
}

#[test]
fn frames_that_are_none_close_the_connection() {
    let mut broker = warm_broker();
    let before = broker.process().memory_bytes("VmRSS");
    must_close(&broker, "a 3-byte header", |wire| wire.send_frame(&[0, 3, 0]));
    must_close(&broker, "an empty frame", |wire| wire.send_frame(&[]));
    must_close(&broker, "a negative length", |wire| wire.send_bytes(&[0xff; 4]));
    must_close(&broker, "the largest length", |wire| wire.send_bytes(&i32::MAX.to_be_bytes()));
    must_close(&broker, "HTTP", |wire| wire.send_bytes(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    must_close(&broker, "a TLS hello", |wire| {
        wire.send_bytes(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03])
    });
    must_close(&broker, "an unknown API", |wire| wire.send_frame(&[0x27, 0x0f, 0, 0, 0, 0, 0, 1, 0xff, 0xff]));
    must_close(&broker, "an unknown version", |wire| wire.send_frame(&[0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff]));
    must_close(&broker, "a client id longer than the frame", |wire| {
        wire.send_frame(&[0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, b'x'])
    });
    is_alive(&mut broker);
    let grown = broker.process().memory_bytes("VmRSS").saturating_sub(before);
    assert!(grown < GROWTH_BYTES, "memory grew by {grown} bytes");
}

/// The exception: a client that does not know the broker's versions yet gets the list of them (KIP-511).
#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let broker = Broker::start_default();
    let mut wire = Wire::connect(&broker.bootstrap());
    wire.send_frame(&[0, 18, 0, 99, 0, 0, 0, 7, 0, 1, b'x', 0]);
    let Answer::Frame(frame) = wire.answer(CLOSE_LIMIT) else { panic!("no answer") };
    assert_eq!(frame[..6], [0, 0, 0, 7, 0, 35], "correlation id and UNSUPPORTED_VERSION");
    // The connection stays open.
    assert!(wire.ask(3, &hello()).api_keys.len() > 20);
}

#[test]
fn a_length_without_its_bytes_reserves_nothing() {
    let mut broker = warm_broker();
    let before = broker.process().memory_bytes("VmRSS");
    // 50 connections, each announcing a large frame within the limit.
    let mut open: Vec<Wire> = (0..50).map(|_| Wire::connect(&broker.bootstrap())).collect();
    for wire in &mut open {
        wire.send_bytes(&(100_000_000_i32).to_be_bytes());
        wire.send_bytes(&[0, 0, 0, 9]);
    }
    is_alive(&mut broker);
    let grown = broker.process().memory_bytes("VmRSS").saturating_sub(before);
    assert!(grown < 50 * 32 * 1024 + GROWTH_BYTES, "memory grew by {grown} bytes");
}

#[test]
fn a_frame_that_begins_must_end_within_its_deadline() {
    let mut broker = Broker::options().set("ottla.frame.deadline.ms", 1000).start();
    let mut slow = Wire::connect(&broker.bootstrap());
    let mut idle = Wire::connect(&broker.bootstrap());
    slow.send_bytes(&[0, 0, 0, 100]);
    let begun = std::time::Instant::now();
    // Sending a byte now and then does not extend the deadline.
    let closed = eventually("the slow connection is closed", CLOSE_LIMIT, || {
        slow.send_bytes(&[0]);
        match slow.answer(Duration::from_millis(100)) {
            Answer::Closed => Some(begun.elapsed()),
            Answer::Silence => None,
            Answer::Frame(frame) => panic!("an answer to nothing: {frame:?}"),
        }
    });
    assert!(closed >= Duration::from_millis(900), "closed too early, after {closed:?}");
    // A connection without an unfinished frame stays open.
    assert!(idle.ask(3, &hello()).api_keys.len() > 20);
    is_alive(&mut broker);
}

/// 300 MiB in a few KiB: zeros that are not a record, and one record with a value of zeros.
#[test]
fn compressed_bombs_are_refused_in_little_memory() {
    let mut broker = warm_broker();
    let zeros = vec![0; 300 << 20];
    let mut record = vec![0, 0, 0, 1]; // attributes, deltas, a null key
    put_zigzag(&mut record, zeros.len() as u64);
    record.extend_from_slice(&zeros);
    record.push(0); // no headers
    let mut records = Vec::new();
    put_zigzag(&mut records, record.len() as u64);
    records.extend_from_slice(&record);
    // Level 22 requests a window of 128 MiB and gets 8, level 3 requests 2.
    let pack = |level, bytes: &[u8]| (4, zstd::encode_all(bytes, level).expect("compress"));
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, bytes).expect("compress");
        (1, encoder.finish().expect("compress"))
    };
    let bombs = [
        ("a record in gzip", gzip(&records), 0),
        ("zeros", pack(3, &zeros), 2 << 20),
        ("a record", pack(3, &records), 2 << 20),
        ("a record of level 22", pack(22, &records), 8 << 20),
    ];
    drop((zeros, record, records));
    for (what, (codec, bomb), looks_back_on_bytes) in bombs {
        let request = produce_request("t", &batch(codec, 1, &bomb));
        let (before, before_peak) = (broker.process().memory_bytes("VmRSS"), broker.process().memory_bytes("VmHWM"));
        let mut wire = Wire::connect(&broker.bootstrap());
        wire.send_body(ApiKey::Produce as i16, 9, &request);
        match wire.answer(Duration::from_secs(60)) {
            // v9: correlation id, tags, then one topic, its name, one partition, its index and the error code.
            Answer::Frame(frame) => {
                let error = i16::from_be_bytes([frame[13], frame[14]]);
                assert!([10, 87].contains(&error), "{what}: MESSAGE_TOO_LARGE or INVALID_RECORD, not {error}");
            }
            other => panic!("{what}: there should be an answer, not {other:?}"),
        }
        is_alive(&mut broker);
        let allowed = request.len() as u64 + looks_back_on_bytes + GROWTH_BYTES;
        let peak = broker.process().memory_bytes("VmHWM").saturating_sub(before_peak);
        assert!(peak < allowed, "{what}: memory grew by {peak} bytes");
        wait_until_memory_released(&mut broker, what, before);
    }
    assert_eq!(read_all(&broker.bootstrap(), "t").len(), 1);
}

fn put_zigzag(to: &mut Vec<u8>, number: u64) {
    let mut varint = BytesMut::new();
    put_varint(&mut varint, u32::try_from(2 * number).expect("a small number"));
    to.extend_from_slice(&varint);
}

/// A v2 batch with these compressed records and a correct CRC.
pub(crate) fn batch(compression: i16, count: i32, records: &[u8]) -> Vec<u8> {
    let mut crc_part = BytesMut::new();
    crc_part.put_i16(compression);
    crc_part.put_i32(count - 1);
    crc_part.put_i64(1_000); // base timestamp
    crc_part.put_i64(1_000); // max timestamp
    crc_part.put_i64(-1); // producer id
    crc_part.put_i16(-1); // producer epoch
    crc_part.put_i32(-1); // base sequence
    crc_part.put_i32(count);
    crc_part.put_slice(records);
    let mut batch = BytesMut::new();
    batch.put_i64(0); // base offset
    batch.put_i32(4 + 1 + 4 + crc_part.len() as i32);
    batch.put_i32(-1); // partition leader epoch
    batch.put_i8(2); // magic
    batch.put_u32(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &crc_part) as u32);
    batch.put_slice(&crc_part);
    batch.to_vec()
}

/// A Produce 9 body with one batch for partition 0 of `topic`, acks all.
fn produce_request(topic: &str, batch: &[u8]) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u8(0); // no transactional id
    body.put_i16(-1);
    body.put_i32(30_000);
    body.put_slice(&[2, topic.len() as u8 + 1]);
    body.put_slice(topic.as_bytes());
    body.put_slice(&[2, 0, 0, 0, 0]); // partition 0
    put_varint(&mut body, batch.len() as u32 + 1);
    body.put_slice(batch);
    body.put_slice(&[0, 0, 0]); // tags of partition, topic, request
    body.to_vec()
}
