//! Loads a partition of `__consumer_offsets` into a shard.
//!
//! Owns the handling of damaged batches. Their commits are lost, and a group would silently continue from an older
//! commit. So all requests for the partition are refused (NOT_COORDINATOR, like in Kafka), and one log line lists the
//! damage and the remedies; an operator may accept exactly this loss (`ottla.accept.group.loss`). Groups of other
//! partitions are served. Leaves loaded shards to `runtime.rs`.

use std::io;

use super::*;
use crate::{
    coordinator::group::records::Decoded,
    protocol::{
        compression::decompress,
        record_batch::{BatchView, Compression, RecordIter, iter_batches},
    },
    types::GROUP_METADATA_TOPIC,
};

/// The maximum decompressed size of a batch. Another broker may have written the log.
const MAX_DECOMPRESSED_BYTES: usize = 256 * 1024 * 1024;
/// The delay before the next attempt of a load that failed because files or memory were short.
const SHORTAGE_RETRY: Duration = Duration::from_secs(1);
/// The most damaged batches that are listed. If there are more, the setting names the whole partition.
const MOST_NAMED: usize = 16;

/// The reason why a partition cannot be loaded.
#[derive(Debug, Error)]
pub(super) enum LoadError {
    #[error("this broker does not host the partition")]
    NotHere,
    #[error("cannot read the log: {0}")]
    Read(#[from] io::Error),
    #[error("the log has no batch at offset {0}")]
    NoProgress(Offset),
    #[error(
        "{} of its batches are damaged, the first at offset {} ({}); the commits in them are lost. All groups of this partition \
         are refused; groups of other partitions are served. Restore the directory {GROUP_METADATA_TOPIC}-{partition} from a \
         backup; or, to continue without these commits, start with --set ottla.accept.group.loss={}",
        damages.len(), damages[0].offset, damages[0].reason, acceptance(*partition, damages)
    )]
    Damaged { partition: i32, damages: Vec<Damage> },
}

impl LoadError {
    fn is_shortage(&self) -> bool {
        matches!(self, LoadError::Read(error) if error.kind() == io::ErrorKind::ResourceBusy)
    }
}

/// A damaged batch, or bytes that are not a batch.
#[derive(Debug)]
pub(super) struct Damage {
    /// The offset after the last valid batch.
    offset: Offset,
    reason: String,
}

/// The value of `ottla.accept.group.loss` that accepts all these damages.
fn acceptance(partition: i32, damages: &[Damage]) -> String {
    if damages.len() > MOST_NAMED {
        return partition.to_string();
    }
    let each: Vec<String> = damages.iter().map(|damage| format!("{partition}:{}", damage.offset)).collect();
    each.join(",")
}

impl Inner {
    pub(super) fn spawn_load(self: &Arc<Self>, cell: &Arc<Cell>, load: u64) {
        let (inner, cell) = (self.clone(), cell.clone());
        self.env.tasks.spawn_until_stopped("group-coordinator-load", async move {
            let mut is_short = false;
            let loaded = loop {
                match inner.read_log(&cell, load).await {
                    Err(error) if error.is_shortage() && cell.is_loading(load) => {
                        if !std::mem::replace(&mut is_short, true) {
                            let partition = cell.partition;
                            tracing::warn!(partition, %error, "cannot load a partition of {GROUP_METADATA_TOPIC} yet");
                        }
                        let clock = &inner.env.clock;
                        clock.sleep_until(clock.monotonic() + SHORTAGE_RETRY).await;
                    }
                    loaded => break loaded,
                }
            };
            inner.finish_load(&cell, load, loaded);
        });
    }

    /// Reads the whole log, one buffer at a time, and decodes it on the blocking pool.
    async fn read_log(&self, cell: &Cell, load: u64) -> Result<(Shard, Offset), LoadError> {
        let partition = cell.partition;
        let started = self.env.clock.monotonic();
        let (mut next, end) = self.log.bounds(partition).ok_or(LoadError::NotHere)?;
        let end = if planted!("R1") { next } else { end };
        let mut replay = Replay { shard: self.new_shard(cell), next, records: 0, skipped: 0 };
        let mut damages = Vec::new();
        while next < end && cell.is_loading(load) {
            let (bad, resume) = match self.log.read(partition, next, self.config.offsets_load_buffer_size).await {
                Ok(bytes) => {
                    let replayed = self.env.tasks.blocking("group-coordinator-replay", move || {
                        let outcome = replay.replay(&bytes);
                        (replay, outcome)
                    });
                    let outcome;
                    (replay, outcome) = replayed.await;
                    match outcome {
                        Ok(()) if replay.next > next => {
                            next = replay.next;
                            continue;
                        }
                        Ok(()) => (Damage { offset: next, reason: "there is no batch".into() }, None),
                        Err(BadBatch { reason, next_offset }) => (Damage { offset: replay.next, reason }, next_offset),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    (Damage { offset: next, reason: error.to_string() }, None)
                }
                Err(error) => return Err(error.into()),
            };
            let resume = match resume {
                Some(resume) => resume,
                None => self.log.next_readable(partition, bad.offset).await?.min(end),
            };
            if resume <= bad.offset {
                return Err(LoadError::NoProgress(bad.offset));
            }
            if self.is_accepted(partition, bad.offset) {
                tracing::warn!(
                    partition,
                    offset = bad.offset,
                    goes_on_at = resume,
                    reason = bad.reason,
                    "skipped a damaged batch of {GROUP_METADATA_TOPIC}, because ottla.accept.group.loss accepts the loss"
                );
            } else {
                damages.push(bad);
            }
            (next, replay.next) = (resume, resume);
        }
        if !damages.is_empty() {
            return Err(LoadError::Damaged { partition, damages });
        }
        if replay.skipped > 0 {
            tracing::warn!(
                partition,
                records = replay.skipped,
                "skipped records of {GROUP_METADATA_TOPIC} that this broker does not know or cannot read"
            );
        }
        let took_ms = self.env.clock.monotonic().saturating_sub(started).as_millis();
        let (records, groups) = (replay.records, replay.shard.group_count());
        tracing::debug!(partition, records, groups, took_ms, "loaded a partition of {GROUP_METADATA_TOPIC}");
        let (mut shard, now) = (replay.shard, self.now());
        let on_loaded = move || {
            shard.on_loaded(now);
            shard
        };
        Ok((self.env.tasks.blocking("group-coordinator-load", on_loaded).await, next))
    }

    fn is_accepted(&self, partition: i32, offset: Offset) -> bool {
        let accepted = &self.config.accepted_loss;
        accepted.contains(&(partition, None)) || accepted.contains(&(partition, Some(offset)))
    }
}

/// A shard that is being built from its log.
struct Replay {
    shard: Shard,
    next: Offset,
    records: u64,
    skipped: u64,
}

/// A batch that cannot be replayed.
struct BadBatch {
    reason: String,
    /// The offset of the next batch, if the batch's header can be trusted.
    next_offset: Option<Offset>,
}

impl Replay {
    /// Replays all batches up to the first damaged one, and leaves `next` at that one.
    fn replay(&mut self, bytes: &[u8]) -> Result<(), BadBatch> {
        for batch in iter_batches(bytes) {
            if batch.last_offset() >= self.next {
                self.replay_batch(&batch)?;
                self.next = batch.next_offset();
            }
        }
        Ok(())
    }

    fn replay_batch(&mut self, batch: &BatchView<'_>) -> Result<(), BadBatch> {
        if !batch.crc_is_valid() {
            return Err(BadBatch { reason: "the checksum is wrong".into(), next_offset: None });
        }
        let bad = |reason: String| BadBatch { reason, next_offset: Some(batch.next_offset()) };
        let compression = batch.compression().map_err(|error| bad(error.to_string()))?;
        let decompressed;
        let records = match compression {
            Compression::None => batch.records_bytes(),
            compressed => {
                decompressed = decompress(compressed, batch.records_bytes(), MAX_DECOMPRESSED_BYTES)
                    .map_err(|error| bad(error.to_string()))?;
                &decompressed[..]
            }
        };
        let producer_id = batch.is_transactional().then(|| batch.producer_id());
        for record in RecordIter::new(records, batch.record_count()) {
            let record = record.map_err(|error| bad(error.to_string()))?;
            let offset = batch.base_offset() + i64::from(record.offset_delta);
            self.records += 1;
            if batch.is_control() {
                self.replay_marker(producer_id, record.key);
                continue;
            }
            match Record::decode(record.key, record.value) {
                Ok(Decoded::Record(record)) => self.shard.apply(offset, producer_id, &record),
                Ok(Decoded::Unknown { .. }) => self.skipped += 1,
                Err(error) => {
                    tracing::warn!(offset, %error, "skipped an unreadable record of {GROUP_METADATA_TOPIC}");
                    self.skipped += 1;
                }
            }
        }
        Ok(())
    }

    /// Applies a transaction marker: key int16 version, int16 type (0 abort, 1 commit). Other control records
    /// do not concern groups.
    fn replay_marker(&mut self, producer_id: Option<i64>, key: Option<&[u8]>) {
        if let (Some(producer_id), Some(&[_, _, 0, kind @ (0 | 1), ..])) = (producer_id, key) {
            self.shard.apply_transaction_end(producer_id, kind == 1);
        }
    }
}
