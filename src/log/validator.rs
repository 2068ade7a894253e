//! Validates a client's records before they are appended (P3–P5, P7–P9), as `LogValidator` and
//! `UnifiedLog.analyzeAndValidateRecords`. Pure, and run outside the partition's lock.
//!
//! The batch keeps the bytes that the client sent; only its header is patched. The records are rebuilt only if the
//! topic wants another codec or the offsets in the batch are not consecutive. Compressed records are decompressed piece
//! by piece and never held as a whole (INV-S2). Leaves sequences and epochs to `producer_state.rs`, the segment's size
//! to `log.rs`.
//!
//! Deviations: a compressed batch that decompresses to more than 256 times `max.message.bytes` (at least 16 MiB, at
//! most 2 GiB) is refused with MESSAGE_TOO_LARGE, which makes the Java client split it; so is one whose codec needs a
//! window of more than 4 times `max.message.bytes` (at least 8 MiB, at most 128). Apache decompresses without a limit.

use std::io::{self, BufRead, Write};

use bytes::Bytes;

use super::producer_state::{AppendOrigin, EndTxnMarker};
use crate::{
    config::topic::{CompressionType, LogConfig, TimestampType},
    protocol::{
        compression::{self, CompressionError, OpenLimits, Opened},
        record_batch::{
            BatchError, BatchHeader, Compression, HEADER_BYTES, LOG_OVERHEAD_BYTES, RecordIter, RecordSummary,
            RecordWalk, WalkError,
        },
    },
    types::{TimestampMs, TopicPartition},
};

/// KIP-467 responses list every bad record; this many are enough to act on.
const MAX_RECORD_ERRORS: usize = 1000;
/// A batch is small up to this many uncompressed bytes.
const SMALL_BYTES: usize = 1 << 20;
/// A batch is small up to this many records.
const SMALL_RECORDS: i32 = 20_000;
const ZSTD_SINCE_PRODUCE_VERSION: i16 = 7;

/// The rules that a partition's batches must satisfy.
#[derive(Clone, Debug)]
pub struct ValidationRules<'a> {
    /// The partition, for error messages.
    pub partition: &'a TopicPartition,
    /// `max.message.bytes`.
    pub max_message_bytes: i32,
    /// `compression.type`.
    pub compression_type: CompressionType,
    /// Compression level for `compression_type`, if the codec has levels.
    pub compression_level: Option<i32>,
    /// `cleanup.policy` contains `compact`: every record needs a key.
    pub compacted: bool,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// The broker's time, in milliseconds.
    pub now_ms: TimestampMs,
    /// Version of the produce request.
    pub produce_version: i16,
    /// Most bytes to which a compressed batch may decompress, besides the limit by `max_message_bytes`.
    pub max_decompressed_bytes: usize,
}

impl<'a> ValidationRules<'a> {
    /// The rules of a topic's settings.
    pub fn new(partition: &'a TopicPartition, config: &LogConfig, now_ms: TimestampMs, produce_version: i16) -> Self {
        ValidationRules {
            partition,
            max_message_bytes: config.max_message_bytes,
            compression_type: config.compression_type,
            compression_level: match config.compression_type {
                CompressionType::Gzip => Some(config.compression_gzip_level).filter(|level| *level >= 0),
                CompressionType::Lz4 => Some(config.compression_lz4_level),
                CompressionType::Zstd => Some(config.compression_zstd_level),
                _ => None,
            },
            compacted: config.cleanup_policy.compact,
            timestamp_type: config.message_timestamp_type,
            timestamp_before_max_ms: config.message_timestamp_before_max_ms,
            timestamp_after_max_ms: config.message_timestamp_after_max_ms,
            now_ms,
            produce_version,
            max_decompressed_bytes: usize::MAX,
        }
    }
}

/// A batch that may be appended: its records and its header, in which only offset and leader epoch are not final.
#[derive(Clone, Debug)]
pub struct ValidatedBatch {
    pub(crate) header: BatchHeader,
    pub(crate) records: Bytes,
    pub(crate) marker: Option<EndTxnMarker>,
    pub(crate) origin: AppendOrigin,
    /// See [`ValidatedBatch::pinning`].
    pub(crate) pinned_bytes: usize,
}

impl ValidatedBatch {
    /// A batch that this broker built itself (coordinators, markers): exactly one batch from `BatchBuilder`.
    ///
    /// # Panics
    /// If the bytes are not exactly one batch, which is a bug of the broker.
    pub fn from_broker(batch: Bytes, origin: AppendOrigin) -> Self {
        let header = match BatchHeader::copy_of(&batch) {
            Some(header) if header.size_bytes() == batch.len() as u64 => header,
            _ => panic!("the broker built something that is not one batch, {} bytes long", batch.len()),
        };
        let records = batch.slice(HEADER_BYTES..);
        ValidatedBatch { marker: marker_of(&header, &records), header, records, origin, pinned_bytes: 0 }
    }

    /// Records that these records keep `bytes` of memory alive: those of the request frame that they are a slice of.
    /// Call it once per frame, on the first batch of it that is appended.
    pub fn pinning(mut self, bytes: usize) -> Self {
        self.pinned_bytes = bytes;
        self
    }

    /// Size of the batch in bytes.
    pub fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// Number of records.
    pub fn record_count(&self) -> i32 {
        self.header.record_count()
    }

    /// -1 if there is none.
    pub fn producer_id(&self) -> i64 {
        self.header.producer_id()
    }

    /// -1 if there is none.
    pub fn producer_epoch(&self) -> i16 {
        self.header.producer_epoch()
    }

    /// -1 if there is none.
    pub fn base_sequence(&self) -> i32 {
        self.header.base_sequence()
    }

    /// Whether it belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.header.is_transactional()
    }
}

/// The error code for a refused batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidKind {
    /// `CORRUPT_MESSAGE`: bytes were damaged on the way; the client may send them again.
    CorruptMessage,
    /// `INVALID_RECORD`: the client built something that is not allowed.
    InvalidRecord,
    /// `INVALID_TIMESTAMP`.
    InvalidTimestamp,
    /// `MESSAGE_TOO_LARGE`: the Java client splits the batch and tries again.
    MessageTooLarge,
    /// `UNSUPPORTED_COMPRESSION_TYPE`.
    UnsupportedCompressionType,
}

/// KIP-467: one record that made its batch invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Index of the record in its batch.
    pub batch_index: i32,
    /// Why.
    pub message: String,
}

/// Why a batch is refused, always as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRecords {
    /// The error.
    pub kind: InvalidKind,
    /// Error message.
    pub message: String,
    /// The bad records, if single records are bad. Only then does Kafka send `message` to the client.
    pub record_errors: Vec<RecordError>,
    /// `ProduceRequest.validateRecords` refuses it, before Kafka accesses a log.
    before_log: bool,
}

impl InvalidRecords {
    fn new(kind: InvalidKind, message: impl Into<String>) -> Self {
        InvalidRecords { kind, message: message.into(), record_errors: Vec::new(), before_log: false }
    }

    /// P12: whether the response contains the log start offset (`ReplicaManager.appendRecordsToLeader`).
    pub fn answers_log_start_offset(&self) -> bool {
        !self.before_log
            && !matches!(
                self.kind,
                InvalidKind::CorruptMessage | InvalidKind::MessageTooLarge | InvalidKind::UnsupportedCompressionType
            )
    }
}

fn invalid<T>(message: impl Into<String>) -> Result<T, InvalidRecords> {
    Err(InvalidRecords::new(InvalidKind::InvalidRecord, message))
}

fn not_one_batch<T>(message: String) -> Result<T, InvalidRecords> {
    Err(InvalidRecords { before_log: true, ..InvalidRecords::new(InvalidKind::InvalidRecord, message) })
}

/// Validates the records of one partition of a produce request.
///
/// # Errors
/// The error that Kafka would return; the checks run in Kafka's order.
pub fn validate(records: Bytes, rules: &ValidationRules<'_>) -> Result<ValidatedBatch, InvalidRecords> {
    let (header, codec, records) = single_batch(records, rules)?;
    check_header(&header, rules)?;
    let target = target_codec(rules.compression_type, codec);
    let seen = match codec {
        Compression::None => check_records(&header, codec, &records[..], rules)?,
        _ => check_records(&header, codec, open(codec, &records, rules)?, rules)?,
    };
    let mut validated = if target == codec && seen.offsets_count_up {
        restamp(header, records, seen.max_timestamp, rules)
    } else {
        rebuild(header, codec, &records, target, seen.max_timestamp, rules)?
    };
    if validated.size_bytes() > rules.max_message_bytes.max(0) as usize {
        return Err(too_large(validated.size_bytes(), rules));
    }
    validated.marker = None;
    Ok(validated)
}

/// As [`validate`], if that takes a millisecond or two at most; else `None`.
pub fn validate_small(records: &Bytes, rules: &ValidationRules<'_>) -> Option<Result<ValidatedBatch, InvalidRecords>> {
    let header = BatchHeader::copy_of(records);
    let codec = header.as_ref().and_then(|header| header.compression().ok()).unwrap_or(Compression::None);
    // Decompressing costs more than reading the records, and recompressing costs more than that.
    let most_bytes = match codec {
        _ if target_codec(rules.compression_type, codec) != codec => SMALL_BYTES / 16,
        Compression::None => SMALL_BYTES,
        _ => SMALL_BYTES / 4,
    };
    if records.len() > most_bytes || header.is_some_and(|header| header.record_count() > SMALL_RECORDS) {
        return None;
    }
    let rules = ValidationRules { max_decompressed_bytes: most_bytes, ..rules.clone() };
    match validate(records.clone(), &rules) {
        // It may only be too large for a small batch.
        Err(refused) if refused.kind == InvalidKind::MessageTooLarge => None,
        done => Some(done),
    }
}

/// P3, P4, P5: `ProduceRequest.validateRecords` and `UnifiedLog.analyzeAndValidateRecords`.
fn single_batch(
    records: Bytes,
    rules: &ValidationRules<'_>,
) -> Result<(BatchHeader, Compression, Bytes), InvalidRecords> {
    let version = rules.produce_version;
    let Some(size) = batch_size_at(&records)? else {
        return not_one_batch(format!(
            "Produce requests with version {version} must have at least one record batch per partition"
        ));
    };
    if records[16] != 2 {
        return not_one_batch(format!(
            "Produce requests with version {version} are only allowed to contain record batches with magic version 2"
        ));
    }
    let Some(header) = BatchHeader::copy_of(&records[..size]) else {
        return Err(InvalidRecords::new(InvalidKind::CorruptMessage, "the batch is shorter than its header"));
    };
    let codec = header.compression().map_err(|error| match error {
        BatchError::Compression(id) => {
            InvalidRecords::new(InvalidKind::UnsupportedCompressionType, format!("Unknown compression type id: {id}"))
        }
        other => InvalidRecords::new(InvalidKind::CorruptMessage, other.to_string()),
    })?;
    if version < ZSTD_SINCE_PRODUCE_VERSION && codec == Compression::Zstd {
        let message = format!("Produce requests with version {version} are not allowed to use ZStandard compression");
        return Err(InvalidRecords::new(InvalidKind::UnsupportedCompressionType, message));
    }
    // Trailing bytes that are not a whole batch are ignored.
    if batch_size_at(&records[size..])?.is_some() {
        return not_one_batch(format!(
            "Produce requests with version {version} are only allowed to contain exactly one record batch per partition"
        ));
    }
    if header.base_offset() != 0 {
        return invalid(format!(
            "The baseOffset of the record batch in the append to {} should be 0, but it is {}",
            rules.partition,
            header.base_offset()
        ));
    }
    if size > rules.max_message_bytes.max(0) as usize {
        return Err(too_large(size, rules));
    }
    let body = records.slice(HEADER_BYTES..size);
    if !header.crc_is_valid(&body) {
        let message =
            format!("Record is corrupt (stored crc = {}) in topic partition {}.", header.crc(), rules.partition);
        return Err(InvalidRecords::new(InvalidKind::CorruptMessage, message));
    }
    Ok((header, codec, body))
}

/// `ByteBufferLogInputStream.nextBatchSize`: the size of the whole batch that starts here, or `None` if there is none.
fn batch_size_at(bytes: &[u8]) -> Result<Option<usize>, InvalidRecords> {
    /// Length of a record of the oldest format: no batch of any format is shorter.
    const LEAST_LENGTH: i32 = 14;
    /// Length prefix and magic.
    const LEAST_BYTES: usize = 17;
    let Some((prefix, _)) = bytes.split_first_chunk::<LOG_OVERHEAD_BYTES>() else { return Ok(None) };
    let length = i32::from_be_bytes([prefix[8], prefix[9], prefix[10], prefix[11]]);
    if length < LEAST_LENGTH {
        let message = format!("Record size {length} is less than the minimum record overhead ({LEAST_LENGTH})");
        return Err(InvalidRecords::new(InvalidKind::CorruptMessage, message));
    }
    if bytes.len() < LEAST_BYTES {
        return Ok(None);
    }
    if bytes[16] > 2 {
        return Err(InvalidRecords::new(
            InvalidKind::CorruptMessage,
            format!("Invalid magic found in record: {}", bytes[16]),
        ));
    }
    let size = LOG_OVERHEAD_BYTES + length as usize;
    Ok((size <= bytes.len()).then_some(size))
}

fn too_large(size: usize, rules: &ValidationRules<'_>) -> InvalidRecords {
    InvalidRecords::new(
        InvalidKind::MessageTooLarge,
        format!(
            "The record batch size in the append to {} is {size} bytes which exceeds the maximum configured value of {}).",
            rules.partition, rules.max_message_bytes
        ),
    )
}

/// P3: `LogValidator.validateBatch`.
fn check_header(header: &BatchHeader, rules: &ValidationRules<'_>) -> Result<(), InvalidRecords> {
    let partition = rules.partition;
    let (last, count) = (header.last_offset(), header.record_count());
    if header.last_offset_delta() < 0 {
        return invalid(format!("Batch has an invalid offset range: [0, {last}] in topic partition {partition}"));
    }
    if count <= 0 {
        return invalid(format!("Invalid reported count for record batch: {count} in topic partition {partition}"));
    }
    if i64::from(count) != last + 1 {
        return invalid(format!(
            "Inconsistent batch offset range [0, {last}] and count of records {count} in topic partition {partition}"
        ));
    }
    if header.is_control() {
        return invalid(format!("Clients are not allowed to write control records in topic partition {partition}"));
    }
    if header.has_producer_id() && header.base_sequence() < 0 {
        return invalid(format!(
            "Invalid sequence number {} in record batch with producerId {} in topic partition {partition}",
            header.base_sequence(),
            header.producer_id()
        ));
    }
    Ok(())
}

/// `BrokerCompressionType.targetCompression`.
fn target_codec(wanted: CompressionType, source: Compression) -> Compression {
    match wanted {
        CompressionType::Producer => source,
        CompressionType::Uncompressed => Compression::None,
        CompressionType::Gzip => Compression::Gzip,
        CompressionType::Snappy => Compression::Snappy,
        CompressionType::Lz4 => Compression::Lz4,
        CompressionType::Zstd => Compression::Zstd,
    }
}

/// Limits for decompressing a batch. Producers limit their batches before compression, or by an earlier compression
/// ratio, so valid batches stay far below; a malicious one costs no more time and memory than this.
fn open_limits(rules: &ValidationRules<'_>) -> OpenLimits {
    let times = |factor: usize| (rules.max_message_bytes.max(0) as usize).saturating_mul(factor);
    OpenLimits {
        opened_bytes: times(256).clamp(16 << 20, OpenLimits::STORED.opened_bytes).min(rules.max_decompressed_bytes),
        window_bytes: times(4).clamp(8 << 20, OpenLimits::STORED.window_bytes),
    }
}

fn open<'a>(codec: Compression, records: &'a [u8], rules: &ValidationRules<'_>) -> Result<Opened<'a>, InvalidRecords> {
    compression::open(codec, records, open_limits(rules)).map_err(|error| unopened(codec, error))
}

/// The error for compressed records that cannot be decompressed.
fn unopened(codec: Compression, error: io::Error) -> InvalidRecords {
    match CompressionError::of(codec, error) {
        error @ CompressionError::TooLarge { .. } => {
            InvalidRecords::new(InvalidKind::MessageTooLarge, error.to_string())
        }
        error @ CompressionError::Corrupt { .. } => {
            InvalidRecords::new(InvalidKind::InvalidRecord, format!("Failed to decompress record stream: {error}"))
        }
    }
}

fn unread(codec: Compression, error: WalkError) -> InvalidRecords {
    match error {
        WalkError::Record(_) => InvalidRecords::new(InvalidKind::InvalidRecord, "Found invalid record structure"),
        WalkError::Source(error) => unopened(codec, error),
    }
}

/// Result of checking the records.
struct Seen {
    max_timestamp: TimestampMs,
    /// Offset deltas are 0, 1, 2 …
    offsets_count_up: bool,
}

/// P8, P9: `LogValidator.validateRecord` for each.
fn check_records(
    header: &BatchHeader,
    codec: Compression,
    records: impl BufRead,
    rules: &ValidationRules<'_>,
) -> Result<Seen, InvalidRecords> {
    let mut seen = Seen { max_timestamp: -1, offsets_count_up: true };
    let mut errors = Vec::new();
    let mut timestamp_errors = false;
    let mut walk = RecordWalk::new(records, header.record_count());
    for (index, record) in (0..).zip(&mut walk) {
        let record = record.map_err(|error| unread(codec, error))?;
        seen.offsets_count_up &= record.offset_delta == index;
        match check_record(header, &record, rules) {
            Ok(timestamp_ms) => seen.max_timestamp = seen.max_timestamp.max(timestamp_ms),
            Err(fault) => {
                timestamp_errors |= !matches!(fault, RecordFault::NoKey);
                if errors.len() < MAX_RECORD_ERRORS {
                    errors.push(RecordError { batch_index: index, message: fault.message(&record, rules) });
                }
            }
        }
    }
    if !walk.is_at_end().map_err(|error| unopened(codec, error))? {
        return invalid("Incorrect declared batch size, records still remaining in file");
    }
    if errors.is_empty() { Ok(seen) } else { Err(refuse_records(errors, timestamp_errors)) }
}

/// The fault of a record. The message is built only if it is sent: a batch may hold millions of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecordFault {
    /// A compacted topic needs a key.
    NoKey,
    /// P8: too old, or too far in the future.
    TimestampOutOfRange(TimestampMs),
    /// The producer set the timestamp type to LogAppendTime.
    TimestampType(TimestampMs),
}

impl RecordFault {
    fn message(self, record: &RecordSummary, rules: &ValidationRules<'_>) -> String {
        let offset = record.offset_delta;
        match self {
            RecordFault::NoKey => {
                format!("Compacted topic cannot accept message without key in topic partition {}", rules.partition)
            }
            RecordFault::TimestampOutOfRange(timestamp_ms) => format!(
                "Timestamp {timestamp_ms} of message with offset {offset} is out of range. The timestamp should be within [{}, {}]",
                rules.now_ms.wrapping_sub(rules.timestamp_before_max_ms),
                rules.now_ms.wrapping_add(rules.timestamp_after_max_ms)
            ),
            RecordFault::TimestampType(timestamp_ms) => format!(
                "Invalid timestamp type in message DefaultRecord(offset={offset}, timestamp={timestamp_ms}, key={} bytes, value={} bytes). \
                 Producer should not set timestamp type to LogAppendTime.",
                record.key_bytes.unwrap_or(0),
                record.value_bytes.unwrap_or(0)
            ),
        }
    }
}

/// P8: `message.timestamp.before.max.ms` and `message.timestamp.after.max.ms`.
fn check_timestamp(timestamp_ms: TimestampMs, rules: &ValidationRules<'_>) -> Result<(), RecordFault> {
    // i128, because the limits may be the largest i64 and the client may send any timestamp.
    let behind = i128::from(rules.now_ms) - i128::from(timestamp_ms);
    if behind <= i128::from(rules.timestamp_before_max_ms) && -behind <= i128::from(rules.timestamp_after_max_ms) {
        return Ok(());
    }
    Err(RecordFault::TimestampOutOfRange(timestamp_ms))
}

/// Returns the record's timestamp, or its fault.
fn check_record(
    header: &BatchHeader,
    record: &RecordSummary,
    rules: &ValidationRules<'_>,
) -> Result<TimestampMs, RecordFault> {
    if rules.compacted && record.key_bytes.is_none() {
        return Err(RecordFault::NoKey);
    }
    let timestamp_ms = header.timestamp_of(record.timestamp_delta);
    if rules.timestamp_type == TimestampType::CreateTime && timestamp_ms != -1 {
        check_timestamp(timestamp_ms, rules)?;
    } else if header.is_log_append_time() {
        // On a CreateTime topic Kafka accepts the bit, and clears it when it sets the final timestamp type.
        return Err(RecordFault::TimestampType(timestamp_ms));
    }
    Ok(timestamp_ms)
}

/// `LogValidator.processRecordErrors`.
fn refuse_records(errors: Vec<RecordError>, timestamp_errors: bool) -> InvalidRecords {
    let (kind, message) = if timestamp_errors {
        (InvalidKind::InvalidTimestamp, "One or more records have been rejected due to invalid timestamp".to_owned())
    } else {
        let shown: Vec<String> = errors
            .iter()
            .take(3)
            .map(|error| format!("RecordError(batchIndex={}, message='{}')", error.batch_index, error.message))
            .collect();
        let message = format!(
            "One or more records have been rejected due to {} record errors in total, and only showing the first three errors at most: [{}]",
            errors.len(),
            shown.join(", ")
        );
        (InvalidKind::InvalidRecord, message)
    };
    InvalidRecords { record_errors: errors, ..InvalidRecords::new(kind, message) }
}

/// P7: keeps the records and sets the timestamps in the header as the topic demands; computes a new checksum only if a
/// byte has changed.
fn restamp(
    mut header: BatchHeader,
    records: Bytes,
    max_timestamp: TimestampMs,
    rules: &ValidationRules<'_>,
) -> ValidatedBatch {
    let (log_append_time, max_timestamp) = stamp(max_timestamp, rules);
    if header.is_log_append_time() != log_append_time || header.max_timestamp() != max_timestamp {
        header.set_max_timestamp(log_append_time, max_timestamp);
        header.set_crc(&records);
    }
    ValidatedBatch { header, records, marker: None, origin: AppendOrigin::Client, pinned_bytes: 0 }
}

fn stamp(max_timestamp: TimestampMs, rules: &ValidationRules<'_>) -> (bool, TimestampMs) {
    match rules.timestamp_type {
        TimestampType::LogAppendTime => (true, rules.now_ms),
        TimestampType::CreateTime => (false, max_timestamp),
    }
}

/// P9: rebuilds the batch from the same records with consecutive offsets, in the topic's codec.
fn rebuild(
    mut header: BatchHeader,
    codec: Compression,
    records: &[u8],
    target: Compression,
    max_timestamp: TimestampMs,
    rules: &ValidationRules<'_>,
) -> Result<ValidatedBatch, InvalidRecords> {
    let walk = RecordWalk::new(open(codec, records, rules)?, header.record_count());
    let sink = Kept { bytes: Vec::new(), most_bytes: rules.max_message_bytes.max(0) as usize, written_bytes: 0 };
    let mut base_timestamp = Ok(-1);
    let rebuilt = compression::compress_to(target, rules.compression_level, sink, |writer| {
        base_timestamp = walk.renumber(|delta| header.timestamp_of(delta), writer);
        Ok(())
    });
    let base_timestamp = base_timestamp.map_err(|error| unread(codec, error))?;
    let records = match rebuilt {
        Ok(sink) if sink.written_bytes > sink.bytes.len() => {
            return Err(too_large(HEADER_BYTES + sink.written_bytes, rules));
        }
        Ok(sink) => Bytes::from(sink.bytes),
        Err(error) => return invalid(format!("Failed to compress the records: {error}")),
    };
    let (log_append_time, max_timestamp) = stamp(max_timestamp, rules);
    header.set_compression(target);
    header.set_base_timestamp(base_timestamp);
    header.set_max_timestamp(log_append_time, max_timestamp);
    header.set_records_bytes(records.len());
    header.set_crc(&records);
    Ok(ValidatedBatch { header, records, marker: None, origin: AppendOrigin::Client, pinned_bytes: 0 })
}

/// Keeps written bytes up to a limit, and counts all of them.
struct Kept {
    bytes: Vec<u8>,
    most_bytes: usize,
    written_bytes: usize,
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.most_bytes - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.written_bytes += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stored batch's records, uncompressed.
pub(crate) fn open_records<'a>(header: &BatchHeader, records: &'a [u8]) -> io::Result<RecordWalk<Opened<'a>>> {
    let codec = header.compression().map_err(io::Error::other)?;
    Ok(RecordWalk::new(compression::open(codec, records, OpenLimits::STORED)?, header.record_count()))
}

/// The transaction marker in a batch, if it contains one.
pub(crate) fn marker_of(header: &BatchHeader, records: &[u8]) -> Option<EndTxnMarker> {
    if !header.is_control() || !header.has_producer_id() {
        return None;
    }
    let record = RecordIter::new(records, header.record_count()).next()?.ok()?;
    EndTxnMarker::parse(record.key?, record.value?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::record_batch::{BatchBuilder, BatchOptions, BatchView, crc32c, put_varlong};

    const NOW_MS: i64 = 1_700_000_000_000;

    fn partition() -> TopicPartition {
        TopicPartition::new("t", 3)
    }

    fn records(timestamps: &[i64]) -> Bytes {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for timestamp in timestamps {
            builder.append(*timestamp, Some(b"k"), Some(b"value value value value"), &[(b"h", Some(b"x"))]);
        }
        builder.build()
    }

    /// The batch with some bytes replaced and the checksum corrected.
    fn patched(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
        let mut patched = batch.to_vec();
        patched[at..at + bytes.len()].copy_from_slice(bytes);
        let crc = crc32c(&patched[21..]);
        patched[17..21].copy_from_slice(&crc.to_be_bytes());
        patched.into()
    }

    /// The same records in another codec.
    fn compressed(batch: &Bytes, codec: Compression) -> Bytes {
        let records = compression::compress(codec, None, &batch[HEADER_BYTES..]).unwrap();
        let mut header = BatchHeader::copy_of(batch).unwrap();
        header.set_compression(codec);
        header.set_records_bytes(records.len());
        header.set_crc(&records);
        [&header.bytes()[..], &records].concat().into()
    }

    fn check_with(batch: Bytes, change: impl FnOnce(&mut LogConfig)) -> Result<Bytes, InvalidRecords> {
        check_version(batch, 9, change)
    }

    fn check_version(batch: Bytes, version: i16, change: impl FnOnce(&mut LogConfig)) -> Result<Bytes, InvalidRecords> {
        let mut config = LogConfig::default();
        change(&mut config);
        let partition = partition();
        let validated = validate(batch, &ValidationRules::new(&partition, &config, NOW_MS, version))?;
        Ok([&validated.header.bytes()[..], &validated.records].concat().into())
    }

    fn check(batch: Bytes) -> Result<Bytes, InvalidRecords> {
        check_with(batch, |_| {})
    }

    fn kind(result: Result<Bytes, InvalidRecords>) -> InvalidKind {
        result.expect_err("it should be refused").kind
    }

    #[test]
    fn inv_l3_a_good_batch_stays_the_bytes_it_was() {
        let batch = records(&[NOW_MS, NOW_MS + 5, NOW_MS - 5]);
        assert_eq!(check(batch.clone()).unwrap(), batch);
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let batch = compressed(&batch, codec);
            assert_eq!(check(batch.clone()).unwrap(), batch, "{codec:?}");
        }
    }

    #[test]
    fn p3_exactly_one_batch_of_magic_2_with_honest_counts() {
        let batch = records(&[NOW_MS, NOW_MS]);
        let twice: Bytes = [&batch[..], &batch].concat().into();
        let cases: [(&str, Bytes); 9] = [
            ("nothing", Bytes::new()),
            ("cut short", batch.slice(..batch.len() - 1)),
            ("two", twice),
            ("magic 1", patched(&batch, 16, &[1])),
            ("base offset", patched(&batch, 0, &1i64.to_be_bytes())),
            ("last offset delta", patched(&batch, 23, &2i32.to_be_bytes())),
            ("count", patched(&batch, 57, &0i32.to_be_bytes())),
            ("control", patched(&batch, 21, &0x20i16.to_be_bytes())),
            ("producer without sequence", patched(&batch, 43, &7i64.to_be_bytes())),
        ];
        for (what, batch) in cases {
            assert_eq!(kind(check(batch)), InvalidKind::InvalidRecord, "{what}");
        }
        // P4: bytes after the last whole batch are ignored.
        let tail: Bytes = [&batch[..], &batch[..30]].concat().into();
        assert_eq!(check(tail).unwrap(), batch);
    }

    #[test]
    fn p3_zstd_needs_produce_7() {
        let batch = compressed(&records(&[NOW_MS]), Compression::Zstd);
        assert_eq!(kind(check_version(batch.clone(), 6, |_| {})), InvalidKind::UnsupportedCompressionType);
        assert!(check_version(batch, 7, |_| {}).is_ok());
        assert_eq!(
            kind(check(patched(&records(&[NOW_MS]), 21, &5i16.to_be_bytes()))),
            InvalidKind::UnsupportedCompressionType
        );
    }

    #[test]
    fn p4_a_bad_checksum_is_corrupt_not_invalid() {
        let mut batch = records(&[NOW_MS]).to_vec();
        let last = batch.len() - 1;
        batch[last] ^= 1;
        let refused = check(batch.into()).unwrap_err();
        assert_eq!(refused.kind, InvalidKind::CorruptMessage);
        assert!(!refused.answers_log_start_offset());
        assert_eq!(kind(check(patched(&records(&[NOW_MS]), 8, &5i32.to_be_bytes()))), InvalidKind::CorruptMessage);
    }

    #[test]
    fn p5_max_message_bytes_counts_the_whole_batch_also_after_recompression() {
        let batch = records(&[NOW_MS; 50]);
        let size = batch.len() as i32;
        assert!(check_with(batch.clone(), |config| config.max_message_bytes = size).is_ok());
        assert_eq!(
            kind(check_with(batch.clone(), |config| config.max_message_bytes = size - 1)),
            InvalidKind::MessageTooLarge
        );
        let small = compressed(&batch, Compression::Gzip);
        let refused = check_with(small, |config| {
            config.max_message_bytes = size - 1;
            config.compression_type = CompressionType::Uncompressed;
        });
        assert_eq!(kind(refused), InvalidKind::MessageTooLarge);
    }

    #[test]
    fn p7_max_timestamp_is_recomputed_and_log_append_time_stamped() {
        let batch = records(&[NOW_MS, NOW_MS + 9, NOW_MS]);
        let lying = patched(&batch, 35, &(NOW_MS + 50).to_be_bytes());
        assert_eq!(check(lying).unwrap(), batch);
        let stamped =
            check_with(batch.clone(), |config| config.message_timestamp_type = TimestampType::LogAppendTime).unwrap();
        let view = BatchView::parse(&stamped).unwrap();
        assert!(view.crc_is_valid() && view.is_log_append_time());
        assert_eq!(view.max_timestamp(), NOW_MS);
        assert_eq!(view.records_bytes(), &batch[HEADER_BYTES..]);
    }

    #[test]
    fn p7_a_client_that_stamps_for_the_broker_is_refused_where_the_broker_stamps() {
        let forged = patched(&records(&[NOW_MS]), 21, &0x08i16.to_be_bytes());
        let refused = check_with(forged.clone(), |config| config.message_timestamp_type = TimestampType::LogAppendTime)
            .unwrap_err();
        assert_eq!(refused.kind, InvalidKind::InvalidTimestamp);
        assert_eq!(
            refused.record_errors[0].message,
            format!(
                "Invalid timestamp type in message DefaultRecord(offset=0, timestamp={NOW_MS}, key=1 bytes, value=23 bytes). \
                 Producer should not set timestamp type to LogAppendTime."
            )
        );
        // As in Kafka: on a CreateTime topic the bit is cleared.
        assert_eq!(check(forged).unwrap(), records(&[NOW_MS]));
    }

    #[test]
    fn p8_timestamps_out_of_bounds_name_the_records() {
        let hour = 3_600_000;
        assert!(check(records(&[NOW_MS + hour, -1, 0])).is_ok());
        let refused = check(records(&[NOW_MS, NOW_MS + hour + 1, NOW_MS])).unwrap_err();
        assert_eq!(refused.kind, InvalidKind::InvalidTimestamp);
        assert_eq!(refused.message, "One or more records have been rejected due to invalid timestamp");
        assert_eq!(refused.record_errors.len(), 1);
        assert_eq!(refused.record_errors[0].batch_index, 1);
        let before = |batch| check_with(batch, |config| config.message_timestamp_before_max_ms = 1000);
        assert!(before(records(&[NOW_MS - 1000])).is_ok());
        assert_eq!(kind(before(records(&[NOW_MS - 1001]))), InvalidKind::InvalidTimestamp);
        let log_append_time = check_with(records(&[NOW_MS + hour * 300]), |config| {
            config.message_timestamp_type = TimestampType::LogAppendTime;
        });
        assert!(log_append_time.is_ok());
    }

    #[test]
    fn p8_of_many_bad_records_the_first_thousand_are_described_and_all_count() {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for _ in 0..1500 {
            builder.append(NOW_MS, None, Some(b"v"), &[]);
        }
        builder.append(NOW_MS + 3_600_001, Some(b"k"), Some(b"v"), &[]);
        let refused = check_with(builder.build(), |config| config.cleanup_policy.compact = true).unwrap_err();
        assert_eq!(refused.kind, InvalidKind::InvalidTimestamp, "the last record is bad too");
        let named: Vec<i32> = refused.record_errors.iter().map(|error| error.batch_index).collect();
        assert_eq!(named, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn p8_null_keys_on_a_compacted_topic_name_the_records_in_kafkas_words() {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(NOW_MS, Some(b"k"), None, &[]);
        builder.append(NOW_MS, None, Some(b"v"), &[]);
        let batch = builder.build();
        assert!(check(batch.clone()).is_ok());
        for batch in [compressed(&batch, Compression::Lz4), batch] {
            let refused = check_with(batch, |config| config.cleanup_policy.compact = true).unwrap_err();
            assert_eq!(refused.kind, InvalidKind::InvalidRecord);
            assert_eq!(
                refused.message,
                "One or more records have been rejected due to 1 record errors in total, and only showing the first three errors at most: \
                 [RecordError(batchIndex=1, message='Compacted topic cannot accept message without key in topic partition t-3')]"
            );
            assert_eq!(refused.record_errors[0].batch_index, 1);
        }
    }

    #[test]
    fn p9_another_codec_is_recompressed_and_the_records_are_the_same() {
        let batch = records(&[NOW_MS, NOW_MS + 3, NOW_MS + 1]);
        let wanted = [
            (CompressionType::Uncompressed, Compression::None),
            (CompressionType::Gzip, Compression::Gzip),
            (CompressionType::Snappy, Compression::Snappy),
            (CompressionType::Lz4, Compression::Lz4),
            (CompressionType::Zstd, Compression::Zstd),
        ];
        for (setting, codec) in wanted {
            for source in [batch.clone(), compressed(&batch, Compression::Gzip)] {
                let stored = check_with(source, |config| config.compression_type = setting).unwrap();
                let view = BatchView::parse(&stored).unwrap();
                assert!(view.crc_is_valid());
                assert_eq!(view.compression(), Ok(codec));
                assert_eq!((view.record_count(), view.max_timestamp()), (3, NOW_MS + 3));
                let header = BatchHeader::copy_of(&stored).unwrap();
                let opened = compression::decompress(codec, view.records_bytes(), 1 << 20).unwrap();
                assert_eq!(opened, batch[HEADER_BYTES..]);
                assert_eq!(open_records(&header, view.records_bytes()).unwrap().count(), 3);
            }
        }
    }

    #[test]
    fn p9_offsets_that_do_not_count_up_are_renumbered() {
        let batch = records(&[NOW_MS, NOW_MS]);
        let mut swapped = batch.to_vec();
        // Length, attributes, timestamp delta, then the offset delta of the first record.
        let mut one = Vec::new();
        put_varlong(&mut one, 1);
        swapped[HEADER_BYTES + 3] = one[0];
        let swapped = patched(&swapped.into(), 16, &[2]);
        assert_eq!(check(swapped).unwrap(), batch);
    }

    #[test]
    fn damaged_records_with_a_good_checksum_are_invalid() {
        let batch = records(&[NOW_MS, NOW_MS]);
        assert_eq!(kind(check(patched(&batch, HEADER_BYTES, &[0xff, 0xff]))), InvalidKind::InvalidRecord);
        assert_eq!(kind(check(patched(&batch, HEADER_BYTES, &[2]))), InvalidKind::InvalidRecord);
        let longer: Bytes = {
            let mut longer = batch.to_vec();
            longer.push(0);
            let length = (longer.len() - 12) as i32;
            longer[8..12].copy_from_slice(&length.to_be_bytes());
            patched(&longer.into(), 16, &[2])
        };
        assert_eq!(kind(check(longer)), InvalidKind::InvalidRecord);
        let not_gzip = patched(&batch, 21, &1i16.to_be_bytes());
        assert_eq!(kind(check(not_gzip)), InvalidKind::InvalidRecord);
    }

    /// A zstd batch whose header counts one record and whose uncompressed content is `records_bytes`.
    fn zstd_batch(records_bytes: &[u8]) -> Bytes {
        let packed = compression::compress(Compression::Zstd, None, records_bytes).unwrap();
        let mut header = BatchHeader::copy_of(&records(&[NOW_MS])).unwrap();
        header.set_compression(Compression::Zstd);
        header.set_records_bytes(packed.len());
        header.set_crc(&packed);
        [&header.bytes()[..], &packed].concat().into()
    }

    /// A record whose value is `value_bytes` zeros.
    fn record_of(value_bytes: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(NOW_MS, None, Some(&vec![0; value_bytes]), &[]);
        builder.build()[HEADER_BYTES..].to_vec()
    }

    #[test]
    fn inv_s2_a_batch_may_open_to_256_times_its_largest_size_and_no_more() {
        let max_message_bytes = 100_000;
        let most = 256 * max_message_bytes as usize;
        for (value_bytes, refused) in [(most - 100, false), (most, true)] {
            let batch = zstd_batch(&record_of(value_bytes));
            assert!(batch.len() < 10_000);
            let checked = check_with(batch.clone(), |config| config.max_message_bytes = max_message_bytes);
            match refused {
                true => assert_eq!(kind(checked), InvalidKind::MessageTooLarge),
                false => assert_eq!(checked.unwrap(), batch),
            }
        }
    }

    #[test]
    fn inv_s2_what_is_no_record_ends_at_the_first_byte() {
        // Decompressed to its end, this would be too large.
        let bomb = zstd_batch(&vec![0; 300 << 20]);
        let refused = check(bomb).unwrap_err();
        assert_eq!(
            (refused.kind, &refused.message[..]),
            (InvalidKind::InvalidRecord, "Found invalid record structure")
        );
    }

    #[test]
    fn damage_behind_the_records_of_a_compressed_batch_is_seen() {
        let batch = records(&[NOW_MS]);
        let longer = [&batch[HEADER_BYTES..], &[0][..]].concat();
        let refused = check(zstd_batch(&longer)).unwrap_err();
        assert_eq!(refused.kind, InvalidKind::InvalidRecord);
        assert!(refused.message.contains("records still remaining"), "{refused}");
        // gzip's own checksum comes after all compressed data.
        let gzip = compressed(&batch, Compression::Gzip);
        let damaged = patched(&gzip, gzip.len() - 8, &[0xff, 0xff]);
        assert_eq!(kind(check(damaged)), InvalidKind::InvalidRecord);
    }

    #[test]
    fn p5_a_bomb_that_is_to_be_stored_opened_is_too_large() {
        let bomb = zstd_batch(&record_of(20 << 20));
        let refused = check_with(bomb, |config| config.compression_type = CompressionType::Uncompressed).unwrap_err();
        assert_eq!(refused.kind, InvalidKind::MessageTooLarge);
        let bytes = HEADER_BYTES + record_of(20 << 20).len();
        assert!(refused.message.contains(&format!("is {bytes} bytes")), "{refused}");
    }
}
