//! Builds record batches for the cases, good ones and every kind of bad one, and describes batches in answers.

use std::io::Write;

use crc_fast::{CrcAlgorithm, checksum};
use serde_json::{Value, json};

use super::codec::hex;

/// 2023-11-14; the brokers under test have no retention by time.
pub const BASE_TIMESTAMP_MS: i64 = 1_700_000_000_000;
const HEADER_BYTES: usize = 61;
/// The checksum covers the bytes from this position on.
const CHECKED_FROM: usize = 21;

pub const GZIP: i16 = 1;
pub const SNAPPY: i16 = 2;
pub const LZ4: i16 = 3;
pub const ZSTD: i16 = 4;
pub const LOG_APPEND_TIME: i16 = 1 << 3;
pub const TRANSACTIONAL: i16 = 1 << 4;
pub const CONTROL: i16 = 1 << 5;

/// A v2 batch to build; every header field may have a wrong value.
#[derive(Debug, Clone)]
pub struct Batch {
    pub base_offset: i64,
    pub leader_epoch: i32,
    pub magic: u8,
    pub attributes: i16,
    pub last_offset_delta: Option<i32>,
    pub base_timestamp_ms: i64,
    pub max_timestamp_ms: Option<i64>,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: Option<i32>,
    pub length: Option<i32>,
    /// Bits to flip in the correct checksum.
    pub checksum_xor: u32,
    pub records: Vec<Record>,
}

#[derive(Debug, Clone, Default)]
pub struct Record {
    pub timestamp_delta_ms: i64,
    pub offset_delta: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Record {
    pub fn new(key: Option<&str>, value: &str) -> Record {
        Record { key: key.map(Into::into), value: Some(value.into()), ..Record::default() }
    }
}

impl Batch {
    pub fn new(records: Vec<Record>) -> Batch {
        Batch {
            base_offset: 0,
            leader_epoch: -1,
            magic: 2,
            attributes: 0,
            last_offset_delta: None,
            base_timestamp_ms: BASE_TIMESTAMP_MS,
            max_timestamp_ms: None,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count: None,
            length: None,
            checksum_xor: 0,
            records,
        }
    }

    /// `count` records with the keys k0, k1, … and the values v0, v1, …, a millisecond apart.
    pub fn of(count: i32) -> Batch {
        let record = |at: i32| Record {
            timestamp_delta_ms: at.into(),
            ..Record::new(Some(&format!("k{at}")), &format!("v{at}"))
        };
        Batch::new((0..count).map(record).collect())
    }

    /// A batch with one record whose value has this many bytes.
    pub fn of_bytes(bytes: usize) -> Batch {
        Batch::new(vec![Record { value: Some(vec![b'x'; bytes]), ..Record::default() }])
    }

    pub fn with(mut self, change: impl FnOnce(&mut Batch)) -> Batch {
        change(&mut self);
        self
    }

    pub fn codec(self, codec: i16) -> Batch {
        self.with(|batch| batch.attributes |= codec)
    }

    pub fn at_ms(self, timestamp_ms: i64) -> Batch {
        self.with(|batch| batch.base_timestamp_ms = timestamp_ms)
    }

    pub fn idempotent(self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Batch {
        self.with(|batch| {
            batch.producer_id = producer_id;
            batch.producer_epoch = producer_epoch;
            batch.base_sequence = base_sequence;
        })
    }

    /// The encoded batch as hex text, which codec.rs accepts for records.
    pub fn hex(&self) -> String {
        hex(&self.bytes())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let count = self.records.len() as i32;
        let last_delta_ms = self.records.iter().map(|record| record.timestamp_delta_ms).max().unwrap_or_default();
        let mut plain = Vec::new();
        for (at, record) in self.records.iter().enumerate() {
            put_record(&mut plain, record, record.offset_delta.unwrap_or(at as i32));
        }
        let mut batch = Vec::with_capacity(HEADER_BYTES + plain.len());
        batch.extend(self.base_offset.to_be_bytes());
        batch.extend([0; 4]);
        batch.extend(self.leader_epoch.to_be_bytes());
        batch.push(self.magic);
        batch.extend([0; 4]);
        batch.extend(self.attributes.to_be_bytes());
        batch.extend(self.last_offset_delta.unwrap_or(count - 1).to_be_bytes());
        batch.extend(self.base_timestamp_ms.to_be_bytes());
        batch.extend(self.max_timestamp_ms.unwrap_or(self.base_timestamp_ms + last_delta_ms).to_be_bytes());
        batch.extend(self.producer_id.to_be_bytes());
        batch.extend(self.producer_epoch.to_be_bytes());
        batch.extend(self.base_sequence.to_be_bytes());
        batch.extend(self.count.unwrap_or(count).to_be_bytes());
        batch.extend(compressed(self.attributes & 7, &plain));
        let length = self.length.unwrap_or(batch.len() as i32 - 12);
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        let sum = crc32c(&batch[CHECKED_FROM..]) ^ self.checksum_xor;
        batch[17..21].copy_from_slice(&sum.to_be_bytes());
        batch
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn put_record(bytes: &mut Vec<u8>, record: &Record, offset_delta: i32) {
    let mut body = vec![0];
    put_varint(&mut body, record.timestamp_delta_ms);
    put_varint(&mut body, offset_delta.into());
    put_blob(&mut body, record.key.as_deref());
    put_blob(&mut body, record.value.as_deref());
    put_varint(&mut body, record.headers.len() as i64);
    for (key, value) in &record.headers {
        put_blob(&mut body, Some(key));
        put_blob(&mut body, value.as_deref());
    }
    put_varint(bytes, body.len() as i64);
    bytes.extend(body);
}

fn put_blob(bytes: &mut Vec<u8>, blob: Option<&[u8]>) {
    put_varint(bytes, blob.map_or(-1, |blob| blob.len() as i64));
    bytes.extend(blob.unwrap_or_default());
}

/// Writes a zigzag varint.
fn put_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut value = ((value << 1) ^ (value >> 63)) as u64;
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn compressed(codec: i16, plain: &[u8]) -> Vec<u8> {
    const IN_MEMORY: &str = "writing to memory does not fail";
    match codec {
        GZIP => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            writer.write_all(plain).expect(IN_MEMORY);
            writer.finish().expect(IN_MEMORY)
        }
        SNAPPY => snap::raw::Encoder::new().compress_vec(plain).expect(IN_MEMORY),
        LZ4 => {
            let mut writer = lz4_flex::frame::FrameEncoder::new(Vec::new());
            writer.write_all(plain).expect(IN_MEMORY);
            writer.finish().expect(IN_MEMORY)
        }
        ZSTD => zstd::bulk::compress(plain, 3).expect(IN_MEMORY),
        _ => plain.to_vec(),
    }
}

/// Batches in an answer as JSON: one object per complete batch. An incomplete one at the end, which Kafka may send, is
/// ignored.
pub fn describe(mut bytes: &[u8]) -> Value {
    let mut batches = Vec::new();
    while bytes.len() >= HEADER_BYTES {
        let length = 12 + i32::from_be_bytes(fixed(bytes, 8)).max(0) as usize;
        if length < HEADER_BYTES || length > bytes.len() {
            break;
        }
        batches.push(describe_one(&bytes[..length]));
        bytes = &bytes[length..];
    }
    Value::Array(batches)
}

fn describe_one(batch: &[u8]) -> Value {
    let attributes = i16::from_be_bytes(fixed(batch, 21));
    let records = &batch[HEADER_BYTES..];
    let mut text = json!({
        "base_offset": i64::from_be_bytes(fixed(batch, 0)),
        "bytes": batch.len(),
        "leader_epoch": i32::from_be_bytes(fixed(batch, 12)),
        "magic": batch[16],
        "crc_is_valid": u32::from_be_bytes(fixed(batch, 17)) == crc32c(&batch[CHECKED_FROM..]),
        "attributes": attributes,
        "last_offset_delta": i32::from_be_bytes(fixed(batch, 23)),
        "base_timestamp": i64::from_be_bytes(fixed(batch, 27)),
        "max_timestamp": i64::from_be_bytes(fixed(batch, 35)),
        "ProducerId": i64::from_be_bytes(fixed(batch, 43)),
        "producer_epoch": i16::from_be_bytes(fixed(batch, 51)),
        "base_sequence": i32::from_be_bytes(fixed(batch, 53)),
        "count": i32::from_be_bytes(fixed(batch, 57)),
        "records_crc": crc32c(records),
    });
    if attributes & LOG_APPEND_TIME != 0 {
        text["max_timestamp"] = "<time>".into();
    }
    text
}

fn fixed<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the caller checked the length")
}
