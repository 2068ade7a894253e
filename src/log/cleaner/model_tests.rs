//! Compares a compacted log with "the newest record of each key" over random histories: transactions, tombstones and
//! idempotent producers, cleanings with little memory, and crashes after any change on the disk.
//!
//! `OTTLA_SEED=n cargo test --lib cleaner::model` replays one seed (a failure prints it), `OTTLA_SEEDS=n` runs n of
//! them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::*;
use crate::{
    config::topic::{CleanupPolicy, LogConfig},
    env::{Clock, Disk},
    log::{
        AppendOrigin, Log, LogContext, LogOwner, OpenLog, ValidatedBatch,
        flush::with_log,
        model_tests::{Rng, seeds},
    },
    protocol::{
        compression,
        record_batch::{BatchBuilder, BatchHeader, BatchOptions, BatchView, Compression, RecordIter, iter_batches},
    },
    sim::{SimClock, SimDisk, disk::Faults},
    types::{Offset, ProducerId, TopicPartition},
};

const SEEDS: u64 = 120;
const STEPS: usize = 90;
const NOW_MS: i64 = 1_700_000_000_000;
const KEYS: u64 = 9;
const DELETE_RETENTION_MS: i64 = 10_000;
const CODECS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

#[derive(Clone, Debug, PartialEq)]
struct Record {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    timestamp_ms: i64,
}

#[derive(Clone, Debug)]
struct Written {
    record: Record,
    /// The transaction that it belongs to: producer and number.
    transaction: Option<(ProducerId, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Open,
    Committed,
    Aborted,
}

/// What was appended.
#[derive(Default)]
struct History {
    records: BTreeMap<Offset, Written>,
    /// Outcome and offset of the marker.
    transactions: BTreeMap<(ProducerId, u32), (Outcome, Offset)>,
    /// Last offset and last sequence of each batch of a producer.
    sequences: BTreeMap<ProducerId, Vec<(Offset, i32)>>,
}

struct World {
    rng: Rng,
    disk: SimDisk,
    clock: SimClock,
    config: Arc<LogConfig>,
    ctx: Arc<LogContext>,
    log: Arc<Mutex<Log>>,
    history: History,
    /// Number of transactions of each producer so far; the last may be open.
    transactions: BTreeMap<ProducerId, u32>,
    cleanings: u32,
    crashes: u32,
}

fn partition() -> TopicPartition {
    TopicPartition::new("m", 0)
}

fn open(disk: &SimDisk, clock: &SimClock, config: &Arc<LogConfig>, clean_shutdown: bool) -> (Arc<LogContext>, Log) {
    let ctx = LogContext::alone(Path::new("/data"), Arc::new(disk.clone()), Arc::new(clock.clone())).unwrap();
    let start = OpenLog {
        recovery_point: ctx.recovery_points.get(&partition()).unwrap_or(0),
        clean_shutdown,
        ..OpenLog::default()
    };
    let dir = Path::new("/data/m-0");
    let before = disk.exists(dir).then(|| disk.list(dir).unwrap());
    match Log::open(&ctx, dir, partition(), None, config.clone(), start) {
        Ok(log) => (ctx, log),
        Err(error) => panic!("cannot open {before:#?}: {error}"),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9).wrapping_add(99));
        let (disk, clock) = (SimDisk::new(seed), SimClock::new(NOW_MS));
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let config = Arc::new(LogConfig {
            segment_bytes: 400 + rng.below(2000) as i32,
            index_interval_bytes: rng.below(300) as i32,
            file_delete_delay_ms: 0,
            cleanup_policy: CleanupPolicy { compact: true, delete: false },
            delete_retention_ms: DELETE_RETENTION_MS,
            min_cleanable_dirty_ratio: 0.0,
            ..LogConfig::default()
        });
        let (ctx, log) = open(&disk, &clock, &config, false);
        World {
            rng,
            disk,
            clock,
            config,
            ctx,
            log: Arc::new(Mutex::new(log)),
            history: History::default(),
            transactions: BTreeMap::new(),
            cleanings: 0,
            crashes: 0,
        }
    }

    fn step(&mut self) {
        match self.rng.below(30) {
            0..=9 => self.append(None),
            10..=14 => {
                let producer_id = 1 + self.rng.below(3) as ProducerId;
                self.append(Some(producer_id));
            }
            15..=17 => self.end_transaction(),
            18 => self.log.lock().unwrap().roll().unwrap(),
            19 | 20 => self.flush(),
            21 => self.clock.advance(Duration::from_millis(self.rng.below(8_000))),
            22..=25 => self.clean(),
            26 | 27 => self.clean_and_crash(),
            28 => self.crash(),
            _ => self.restart(),
        }
    }

    fn append(&mut self, producer_id: Option<ProducerId>) {
        let now_ms = self.clock.now_ms();
        let transactional = producer_id.is_some_and(|id| id < 3);
        let sequence = producer_id.map_or(-1, |id| {
            self.history.sequences.get(&id).and_then(|all| all.last()).map_or(0, |(_, sequence)| sequence + 1)
        });
        let options = BatchOptions {
            transactional,
            producer_id: producer_id.unwrap_or(-1),
            producer_epoch: if producer_id.is_some() { 0 } else { -1 },
            base_sequence: sequence,
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        let mut records = Vec::new();
        for _ in 0..=self.rng.below(4) {
            let key = format!("key-{}", self.rng.below(KEYS)).into_bytes();
            let value = (!self.rng.one_in(4)).then(|| vec![self.rng.below(256) as u8; self.rng.below(60) as usize]);
            let timestamp_ms = now_ms + self.rng.below(50) as i64;
            let header: &[(&[u8], Option<&[u8]>)] = if self.rng.one_in(2) { &[(b"h", Some(b"x"))] } else { &[] };
            builder.append(timestamp_ms, Some(&key), value.as_deref(), header);
            records.push(Record { key, value, timestamp_ms });
        }
        let batch = compressed(&builder.build(), CODECS[self.rng.below(3) as usize]);
        let batch = ValidatedBatch::from_broker(batch.into(), AppendOrigin::Coordinator);
        let appended = self.log.lock().unwrap().append_as_leader(batch, 0, now_ms).unwrap();
        let transaction = producer_id.filter(|_| transactional).map(|id| {
            let number = *self.transactions.entry(id).or_default();
            self.history.transactions.entry((id, number)).or_insert((Outcome::Open, Offset::MAX));
            (id, number)
        });
        if let Some(id) = producer_id {
            let last = sequence + records.len() as i32 - 1;
            self.history.sequences.entry(id).or_default().push((appended.last_offset, last));
        }
        for (offset, record) in (appended.first_offset..).zip(records) {
            self.history.records.insert(offset, Written { record, transaction });
        }
        self.commit();
    }

    fn commit(&self) {
        let mut log = self.log.lock().unwrap();
        let end = log.log_end_offset();
        log.on_high_watermark(end);
    }

    fn end_transaction(&mut self) {
        let open = self.history.transactions.iter().find(|(_, (outcome, _))| *outcome == Outcome::Open);
        let Some((id, number)) = open.map(|(transaction, _)| *transaction) else { return };
        let commits = self.rng.one_in(2);
        let options = BatchOptions {
            control: true,
            transactional: true,
            producer_id: id,
            producer_epoch: 0,
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        builder.append(self.clock.now_ms(), Some(&[0, 0, 0, u8::from(commits)]), Some(&[0, 0, 0, 0, 0, 0]), &[]);
        let marker = ValidatedBatch::from_broker(builder.build(), AppendOrigin::Coordinator);
        let appended = self.log.lock().unwrap().append_as_leader(marker, 0, self.clock.now_ms()).unwrap();
        let outcome = if commits { Outcome::Committed } else { Outcome::Aborted };
        self.history.transactions.insert((id, number), (outcome, appended.last_offset));
        self.transactions.insert(id, number + 1);
        self.commit();
    }

    fn flush(&mut self) {
        let mut log = self.log.lock().unwrap();
        log.flush().unwrap();
        let point = log.recovery_point_of_checkpoint();
        if self.rng.one_in(2) {
            self.ctx.recovery_points.update([(partition(), point)]).unwrap();
        }
    }

    fn begin_cleaning(&mut self) -> Option<Cleaning> {
        let owner: Arc<dyn LogOwner> = self.log.clone();
        let view = with_log(&*owner, |log| log.cleaner_view(Some(log.log_end_offset())));
        let view = view?;
        crate::log::flush_through(&*owner, view.committed_offset).unwrap();
        let cleaned_to = self.ctx.cleaner_offsets.get(&partition());
        let range = CleaningRange::of(&view, cleaned_to, self.clock.now_ms()).unwrap();
        if !range.is_due(&self.config) {
            return None;
        }
        let map_bytes = if self.rng.one_in(3) { 8 * 24 } else { 1 << 20 };
        let limits = CleaningLimits {
            map_bytes,
            map_load: 0.9,
            seed: (self.rng.below(1 << 40), 7),
            now_ms: self.clock.now_ms(),
        };
        Some(Cleaning::new(self.ctx.clone(), owner, view, range, limits))
    }

    fn clean(&mut self) {
        let Some(mut cleaning) = self.begin_cleaning() else { return };
        while cleaning.step(1 + self.rng.below(700)).unwrap() {
            if self.rng.one_in(4) {
                self.append(None);
            }
        }
        let cleaned_to = cleaning.cleaned_to().expect("nothing has disturbed it");
        self.ctx.cleaner_offsets.update([(partition(), cleaned_to)]).unwrap();
        self.cleanings += 1;
        let stored = self.stored();
        let mut keys = BTreeSet::new();
        for (offset, record) in stored.iter().flat_map(|batch| &batch.records).rev() {
            let is_first = keys.insert(record.key.clone());
            let dirty = self.is_aborted(*offset);
            assert!(
                is_first || dirty || *offset >= cleaned_to || self.has_newer_only_above(*offset, cleaned_to),
                "offset {offset} has a newer record below {cleaned_to}"
            );
        }
    }

    fn is_aborted(&self, offset: Offset) -> bool {
        let transaction = self.history.records[&offset].transaction;
        transaction.is_some_and(|id| self.history.transactions[&id].0 == Outcome::Aborted)
    }

    /// Whether all later records with the key of the one at `offset` are at or above `limit`, or aborted.
    fn has_newer_only_above(&self, offset: Offset, limit: Offset) -> bool {
        let key = &self.history.records[&offset].record.key;
        let newer = self.history.records.range(offset + 1..limit).filter(|(_, other)| other.record.key == *key);
        newer.map(|(offset, _)| *offset).all(|offset| self.is_aborted(offset))
    }

    fn clean_and_crash(&mut self) {
        let Some(mut cleaning) = self.begin_cleaning() else { return };
        let changes = self.rng.below(40) as u32;
        self.disk.set_faults(Faults { end_after: Some(changes), ..Faults::default() });
        while let Ok(true) = cleaning.step(1_000) {}
        self.crash();
    }

    fn crash(&mut self) {
        let flushed = self.ctx.recovery_points.get(&partition()).unwrap_or(0);
        if self.rng.one_in(2) {
            self.disk.crash();
        } else {
            self.disk.kill();
        }
        let (ctx, log) = open(&self.disk, &self.clock, &self.config, false);
        assert!(log.log_end_offset() >= flushed, "{} < {flushed}", log.log_end_offset());
        self.begin_again(ctx, log);
        self.crashes += 1;
    }

    fn restart(&mut self) {
        {
            let mut log = self.log.lock().unwrap();
            log.close_cleanly().unwrap();
            self.ctx.recovery_points.update([(partition(), log.recovery_point())]).unwrap();
        }
        self.disk.kill();
        let (ctx, log) = open(&self.disk, &self.clock, &self.config, true);
        self.begin_again(ctx, log);
    }

    fn begin_again(&mut self, ctx: Arc<LogContext>, log: Log) {
        let end = log.log_end_offset();
        (self.ctx, self.log) = (ctx, Arc::new(Mutex::new(log)));
        self.history.records.split_off(&end);
        let sequences = self.history.sequences.values_mut();
        sequences.for_each(|all| all.retain(|(last_offset, _)| *last_offset < end));
        for (outcome, marker) in self.history.transactions.values_mut().filter(|(_, marker)| *marker >= end) {
            (*outcome, *marker) = (Outcome::Open, Offset::MAX);
        }
        // Transactions of which nothing is left never began.
        let records = &self.history.records;
        let has_records = |id: &(ProducerId, u32)| records.values().any(|written| written.transaction == Some(*id));
        let ended = |outcome: &Outcome| *outcome != Outcome::Open;
        self.history.transactions.retain(|id, (outcome, _)| ended(outcome) || has_records(id));
        for (id, number) in &mut self.transactions {
            let of_producer = self.history.transactions.range((*id, 0)..=(*id, u32::MAX));
            let last = of_producer.last();
            *number = last.map_or(0, |((_, last), (outcome, _))| last + u32::from(ended(outcome)));
        }
        self.commit();
    }

    fn stored(&self) -> Vec<Stored> {
        let log = self.log.lock().unwrap();
        let (mut from, end) = (log.log_start_offset(), log.log_end_offset());
        let mut stored: Vec<Stored> = Vec::new();
        while from < end {
            let bytes = log.read(from, 1 << 20, end, true).unwrap().records().unwrap().into_bytes().unwrap();
            let before = stored.len();
            stored.extend(iter_batches(&bytes).map(Stored::of));
            assert!(stored.len() > before, "nothing from {from} to {end} of {log:?}");
            from = stored.last().unwrap().header.next_offset();
        }
        assert_eq!(from, end);
        stored
    }

    fn check(&self) {
        let stored = self.stored();
        let pairs = stored.windows(2);
        for pair in pairs {
            assert!(pair[0].header.last_offset() < pair[1].header.base_offset(), "INV-L1: {:?}", pair[1].header);
        }
        let mut newest: BTreeMap<&[u8], Offset> = BTreeMap::new();
        let here: BTreeMap<Offset, &Record> =
            stored.iter().flat_map(|batch| &batch.records).map(|(offset, record)| (*offset, record)).collect();
        for (offset, record) in &here {
            assert_eq!(**record, self.history.records[offset].record, "offset {offset} was changed");
        }
        for (offset, written) in self.history.records.iter().filter(|(offset, _)| !self.is_aborted(**offset)) {
            newest.insert(&written.record.key, *offset);
        }
        for (key, offset) in newest {
            let record = &self.history.records[&offset].record;
            if here.contains_key(&offset) {
                continue;
            }
            assert!(record.value.is_none(), "the newest record of a key, at {offset}, is gone");
            let age_ms = self.clock.now_ms() - record.timestamp_ms + 50;
            assert!(age_ms >= DELETE_RETENTION_MS, "a tombstone at {offset} is gone after {age_ms} ms");
            let older = here.iter().find(|(other, record)| record.key == key && !self.is_aborted(**other));
            assert_eq!(older, None, "the tombstone at {offset} is gone, an older record is not");
        }
        self.check_transactions(&stored);
        self.check_producers();
    }

    fn check_transactions(&self, stored: &[Stored]) {
        let log = self.log.lock().unwrap();
        let index: Vec<_> = log.segments().iter().flat_map(|segment| segment.aborted_transactions().unwrap()).collect();
        let markers: BTreeSet<Offset> =
            stored.iter().filter(|batch| batch.header.is_control()).map(|batch| batch.header.base_offset()).collect();
        for batch in stored.iter().filter(|batch| batch.header.is_transactional() && !batch.header.is_control()) {
            let Some(written) = self.history.records.get(&batch.header.base_offset()) else { continue };
            let (outcome, marker) = self.history.transactions[&written.transaction.unwrap()];
            if outcome == Outcome::Open {
                continue;
            }
            assert!(markers.contains(&marker), "the marker {marker} of {:?} is gone", batch.header);
            let offset = batch.header.base_offset();
            let is_indexed = index.iter().any(|entry| {
                entry.producer_id == batch.header.producer_id()
                    && (entry.first_offset..=entry.last_offset).contains(&offset)
            });
            assert_eq!(is_indexed, outcome == Outcome::Aborted, "the transaction index is wrong about {offset}");
        }
    }

    fn check_producers(&self) {
        let log = self.log.lock().unwrap();
        for (id, all) in self.history.sequences.iter().filter(|(_, all)| !all.is_empty()) {
            let known = log.producers().producers().get(id).map(|entry| entry.last_sequence());
            assert_eq!(known, all.last().map(|(_, sequence)| *sequence), "the last sequence of producer {id}");
        }
    }
}

/// A batch with its records, as they are in the log.
struct Stored {
    header: BatchHeader,
    records: Vec<(Offset, Record)>,
}

impl Stored {
    fn of(batch: BatchView<'_>) -> Stored {
        assert!(batch.crc_is_valid(), "{:?}", *batch);
        let header = *batch;
        if header.is_control() {
            return Stored { header, records: Vec::new() };
        }
        let bytes = compression::decompress(header.compression().unwrap(), batch.records_bytes(), 1 << 20).unwrap();
        let records = RecordIter::new(&bytes, header.record_count()).map(|record| {
            let record = record.unwrap();
            let timestamp_ms = header.base_timestamp() + record.timestamp_delta;
            let (key, value) = (record.key.unwrap().to_vec(), record.value.map(<[u8]>::to_vec));
            (header.base_offset() + Offset::from(record.offset_delta), Record { key, value, timestamp_ms })
        });
        Stored { header, records: records.collect() }
    }
}

fn compressed(batch: &[u8], codec: Compression) -> Vec<u8> {
    let view = BatchView::parse(batch).unwrap();
    let mut header = *view;
    let records = compression::compress(codec, None, view.records_bytes()).unwrap();
    header.set_compression(codec);
    header.set_records_bytes(records.len());
    header.set_crc(&records);
    [&header.bytes()[..], &records].concat()
}

fn run(seed: u64) -> (u32, u32) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
        world.check();
    }
    (world.cleanings, world.crashes)
}

#[test]
fn the_newest_record_of_each_key_stays_whatever_happens() {
    let seeds = seeds(SEEDS);
    let is_one = seeds.len() == 1;
    let (mut cleanings, mut crashes) = (0, 0);
    for seed in seeds {
        let done = std::panic::catch_unwind(|| run(seed));
        let (cleaned, crashed) = done.unwrap_or_else(|_| panic!("seed {seed}: OTTLA_SEED={seed} replays it"));
        (cleanings, crashes) = (cleanings + cleaned, crashes + crashed);
    }
    println!("{cleanings} cleanings, {crashes} crashes");
    assert!(is_one || cleanings > 100 && crashes > 100, "{cleanings} cleanings, {crashes} crashes");
}
