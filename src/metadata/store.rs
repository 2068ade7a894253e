//! A store of the applied metadata, so that a restart need not replay the whole log.
//!
//! Owns the `MetadataStore` trait, its layout (one key per broker, topic, block of partitions, resource, quota entity),
//! and the implementations in sled and in memory. The store is a cache of the metadata log (INV-M4: never ahead of it).
//! Every value has a version and a CRC-32C, and there is a checksum over all entries. Image and applied offset change
//! in one atomic batch. A store with any fault is discarded: `raft::driver` rebuilds it from snapshot and log. Only
//! `checkpoint` syncs.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    delta::MetadataDelta,
    image::{self, ClientQuotaEntity, ConfigResource, MetadataImage, Provenance, TopicImage},
    records::MetadataRecord,
    wire::{Field, Reader, write_unsigned_varint},
};
use crate::{
    env::{Disk, Open},
    protocol::record_batch::crc32c,
    types::{BrokerId, TopicId},
};

const VALUE_VERSION: u8 = 1;
/// Partitions per value. It keeps values near the size of a page, so that one ISR change does not rewrite a large
/// topic.
const PARTITIONS_PER_VALUE: i32 = 32;

const META_KEY: &[u8] = &[0];
const FEATURES: u8 = 1;
const BROKER: u8 = 2;
const TOPIC: u8 = 3;
const PARTITIONS: u8 = 4;
const CONFIG: u8 = 5;
const QUOTA: u8 = 6;
const PRODUCER_IDS: u8 = 7;

/// Why the store cannot be used. After each of these errors it is rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0}")]
    Engine(String),
    #[error("the value of key {key:02x?} is damaged: {reason}")]
    Damaged { key: Vec<u8>, reason: String },
    #[error("keys are missing or obsolete (checksum {actual:016x}, expected {expected:016x})")]
    Checksum { expected: u64, actual: u64 },
    #[error("io: {0}")]
    Io(#[from] std::io::Error),
}

/// Keeps the applied image across restarts; see the head of the file.
pub trait MetadataStore: Send {
    /// Loads the stored image; None if nothing is stored yet. The cluster id is not part of it.
    fn load(&mut self) -> Result<Option<MetadataImage>, StoreError>;
    /// Stores the parts of `image` that `delta` names, and its offset, in one atomic step. They are durable after
    /// `checkpoint`.
    fn apply(&mut self, image: &MetadataImage, delta: &MetadataDelta) -> Result<(), StoreError>;
    /// Makes all applied changes durable.
    fn checkpoint(&mut self) -> Result<(), StoreError>;
}

/// A key with its new value; None removes it.
type Change = (Vec<u8>, Option<Vec<u8>>);

fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind];
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

fn broker_key(id: BrokerId) -> Vec<u8> {
    key(BROKER, &[&id.to_be_bytes()])
}

fn topic_key(id: TopicId) -> Vec<u8> {
    key(TOPIC, &[id.0.as_bytes()])
}

fn partitions_key(id: TopicId, block: i32) -> Vec<u8> {
    key(PARTITIONS, &[id.0.as_bytes(), &block.to_be_bytes()])
}

fn config_key(resource: &ConfigResource) -> Vec<u8> {
    key(CONFIG, &[&[resource.resource_type.id() as u8], resource.name.as_bytes()])
}

fn quota_key(entity: &ClientQuotaEntity) -> Vec<u8> {
    let mut encoded = Vec::new();
    image::quota_entity_data(entity).write(&mut encoded);
    key(QUOTA, &[&encoded])
}

/// The value of an entry: version, CRC-32C of key and payload, payload.
fn encode_value(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(payload.len() + 5);
    value.push(VALUE_VERSION);
    value.extend(crc32c(&[key, payload].concat()).to_be_bytes());
    value.extend_from_slice(payload);
    value
}

fn decode_value<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let damaged = |reason: &str| StoreError::Damaged { key: key.to_vec(), reason: reason.into() };
    let (head, payload) = value.split_at_checked(5).ok_or_else(|| damaged("too short"))?;
    if head[0] != VALUE_VERSION {
        return Err(damaged("unknown version"));
    }
    if head[1..] != crc32c(&[key, payload].concat()).to_be_bytes() {
        return Err(damaged("wrong checksum"));
    }
    Ok(payload)
}

fn seal_records(key: Vec<u8>, records: impl IntoIterator<Item = MetadataRecord>) -> Change {
    let mut payload = Vec::new();
    for record in records {
        let bytes = record.to_bytes();
        write_unsigned_varint(bytes.len() as u32, &mut payload);
        payload.extend(bytes);
    }
    // No records are left under this key, so it is deleted.
    let value = (!payload.is_empty()).then(|| encode_value(&key, &payload));
    (key, value)
}

fn read_records(payload: &[u8]) -> Result<Vec<MetadataRecord>, super::wire::RecordError> {
    let mut input = Reader::new(payload);
    let mut records = Vec::new();
    while input.remaining() > 0 {
        let length = input.unsigned_varint()? as usize;
        records.push(MetadataRecord::decode(input.take(length)?)?);
    }
    Ok(records)
}

/// The keys that `delta` touches, with their values in `image`.
fn changes(image: &MetadataImage, delta: &MetadataDelta) -> Vec<Change> {
    let mut changes = Vec::new();
    if delta.features {
        changes.push(seal_records(vec![FEATURES], image.feature_records()));
    }
    for id in &delta.brokers {
        changes.push(seal_records(broker_key(*id), image.broker(*id).map(|broker| image::broker_record(broker))));
    }
    for (id, topic) in &delta.deleted_topics {
        changes.push((topic_key(*id), None));
        changes.extend(blocks(topic.partitions.keys()).into_iter().map(|block| (partitions_key(*id, block), None)));
    }
    for (id, topic_delta) in &delta.topics {
        let Some(topic) = image.topic_by_id(*id) else { continue };
        if topic_delta.created {
            changes.push(seal_records(topic_key(*id), [image::topic_record(topic)]));
        }
        changes.extend(blocks(topic_delta.partitions.iter()).into_iter().map(|block| seal_block(topic, block)));
    }
    for resource in &delta.configs {
        changes.push(seal_records(config_key(resource), image.config_records(resource)));
    }
    for entity in &delta.client_quotas {
        changes.push(seal_records(quota_key(entity), image.quota_records(entity)));
    }
    if delta.producer_ids {
        changes.push(seal_records(vec![PRODUCER_IDS], image.producer_id_record()));
    }
    changes
}

fn blocks<'a>(partitions: impl Iterator<Item = &'a i32>) -> std::collections::BTreeSet<i32> {
    partitions.map(|partition| partition / PARTITIONS_PER_VALUE).collect()
}

fn seal_block(topic: &TopicImage, block: i32) -> Change {
    let first = block * PARTITIONS_PER_VALUE;
    let records =
        (first..first + PARTITIONS_PER_VALUE).filter_map(|partition| image::partition_record(topic, partition));
    seal_records(partitions_key(topic.id, block), records)
}

/// The part of one entry in the checksum over all entries. The order does not matter, so the checksum is updated by
/// subtraction and addition.
fn checksum_part(key: &[u8], value: &[u8]) -> u64 {
    let crc = u64::from(crc32c(&[key, value].concat()));
    (crc << 32 | u64::from(crc32c(value))).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn seal_meta(provenance: Provenance, sum: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    provenance.last_contained_offset.write(&mut payload);
    provenance.last_contained_epoch.write(&mut payload);
    provenance.last_contained_log_time_ms.write(&mut payload);
    (sum as i64).write(&mut payload);
    encode_value(META_KEY, &payload)
}

fn read_meta(value: &[u8]) -> Result<(Provenance, u64), StoreError> {
    let mut input = Reader::new(decode_value(META_KEY, value)?);
    let mut read = || {
        let provenance = Provenance {
            last_contained_offset: i64::read(&mut input)?,
            last_contained_epoch: i32::read(&mut input)?,
            last_contained_log_time_ms: i64::read(&mut input)?,
        };
        Ok::<_, super::wire::RecordError>((provenance, i64::read(&mut input)? as u64))
    };
    read().map_err(|error| StoreError::Damaged { key: META_KEY.to_vec(), reason: error.to_string() })
}

/// Builds the image from all entries, which must come in key order. Returns it with the checksum of the entries.
fn load_entries<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    entries: impl Iterator<Item = Result<(K, V), StoreError>>,
) -> Result<Option<(MetadataImage, u64)>, StoreError> {
    let mut image = MetadataImage::default();
    let (mut meta, mut sum, mut delta) = (None, 0u64, MetadataDelta::default());
    for entry in entries {
        let (key, value) = entry?;
        let (key, value) = (key.as_ref(), value.as_ref());
        if key == META_KEY {
            meta = Some(read_meta(value)?);
            continue;
        }
        sum = sum.wrapping_add(checksum_part(key, value));
        let damaged = |reason: String| StoreError::Damaged { key: key.to_vec(), reason };
        for record in read_records(decode_value(key, value)?).map_err(|error| damaged(error.to_string()))? {
            image.apply(&record, &mut delta).map_err(|error| damaged(error.to_string()))?;
        }
    }
    match meta {
        None if sum == 0 => Ok(None),
        None => Err(StoreError::Damaged { key: META_KEY.to_vec(), reason: "missing".into() }),
        Some((_, expected)) if expected != sum => Err(StoreError::Checksum { expected, actual: sum }),
        Some((provenance, _)) => {
            image.provenance = provenance;
            Ok(Some((image, sum)))
        }
    }
}

/// The store of tests and simulations: a map with the same layout.
#[derive(Clone, Default)]
pub struct MemStore {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    sum: u64,
}

impl MetadataStore for MemStore {
    fn load(&mut self) -> Result<Option<MetadataImage>, StoreError> {
        let loaded = load_entries(self.entries.iter().map(Ok))?;
        Ok(loaded.map(|(image, _)| image))
    }

    fn apply(&mut self, image: &MetadataImage, delta: &MetadataDelta) -> Result<(), StoreError> {
        for (key, value) in changes(image, delta) {
            let before = match &value {
                Some(value) => self.entries.insert(key.clone(), value.clone()),
                None => self.entries.remove(&key),
            };
            let weigh = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, |value| checksum_part(&key, value));
            self.sum = self.sum.wrapping_sub(weigh(&before)).wrapping_add(weigh(&value));
        }
        self.entries.insert(META_KEY.to_vec(), seal_meta(image.provenance, self.sum));
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The store in a sled database.
pub struct SledStore {
    db: PanicSafe<sled::Db>,
    path: PathBuf,
    disk: Arc<dyn Disk>,
    sum: u64,
}

/// Keeps only the text of sled's errors, since all of them are handled alike.
fn engine(error: sled::Error) -> StoreError {
    StoreError::Engine(error.to_string())
}

/// Runs `work` and converts a panic to an error: sled panics on damaged files, which must not stop the broker.
fn catch_panic<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = |panic: &Box<dyn Any + Send>| {
            panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
        };
        Err(StoreError::Engine(format!("panicked: {}", text(&panic).unwrap_or_default())))
    })
}

/// A value that is dropped under [`catch_panic`]: sled's destructor writes unsaved data and panics if that fails.
struct PanicSafe<T>(Option<T>);

impl<T> PanicSafe<T> {
    fn new(value: T) -> Self {
        PanicSafe(Some(value))
    }
}

impl<T> std::ops::Deref for PanicSafe<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => unreachable!("the value exists until the drop"),
        }
    }
}

impl<T> Drop for PanicSafe<T> {
    fn drop(&mut self) {
        let value = self.0.take();
        let dropped = catch_panic(|| {
            drop(value);
            Ok(())
        });
        if let Err(error) = dropped {
            // All needed data were synced by `checkpoint`, or its error was reported; the next start checks the whole
            // store.
            tracing::warn!(%error, "closing the metadata store failed");
        }
    }
}

impl SledStore {
    /// Opens or creates the database in directory `path`.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, StoreError> {
        let db = catch_panic(|| {
            sled::Config::new()
                .path(path)
                // There are few small keys, which are read once at the start: a small cache is enough, and no thread
                // should wake up to flush.
                .cache_capacity(1 << 20)
                .segment_size(SEGMENT_BYTES)
                .mode(sled::Mode::LowSpace)
                .flush_every_ms(None)
                .open()
                .map_err(engine)
        })?;
        Ok(SledStore { db: PanicSafe::new(db), path: path.to_owned(), disk, sum: 0 })
    }
}

/// sled's buffers have this size, and several are in use at once. Its default of 512 KiB is meant for large databases.
const SEGMENT_BYTES: usize = 64 << 10;

impl MetadataStore for SledStore {
    fn load(&mut self) -> Result<Option<MetadataImage>, StoreError> {
        let db = &self.db;
        let loaded = catch_panic(|| load_entries(db.iter().map(|entry| entry.map_err(engine))))?;
        Ok(loaded.map(|(image, sum)| {
            self.sum = sum;
            image
        }))
    }

    fn apply(&mut self, image: &MetadataImage, delta: &MetadataDelta) -> Result<(), StoreError> {
        let (db, mut sum) = (&self.db, self.sum);
        catch_panic(|| {
            let mut batch = sled::Batch::default();
            for (key, value) in changes(image, delta) {
                if let Some(before) = db.get(&key).map_err(engine)? {
                    sum = sum.wrapping_sub(checksum_part(&key, &before));
                }
                match value {
                    Some(value) => {
                        sum = sum.wrapping_add(checksum_part(&key, &value));
                        batch.insert(key, value);
                    }
                    None => batch.remove(key),
                }
            }
            batch.insert(META_KEY, seal_meta(image.provenance, sum));
            db.apply_batch(batch).map_err(engine)
        })?;
        self.sum = sum;
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        catch_panic(|| self.db.flush().map_err(engine))?;
        // sled's flush does not sync file sizes and directory entries, so a power failure could lose or damage the
        // database.
        for entry in self.disk.list(&self.path)? {
            let ours = matches!(entry.name.as_str(), "db" | "conf") || entry.name.starts_with("snap.");
            if !entry.is_dir && ours {
                self.disk.open(&self.path.join(entry.name), Open::ReadWrite)?.sync_all()?;
            }
        }
        self.disk.sync_dir(&self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
