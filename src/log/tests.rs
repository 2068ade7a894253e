//! Tests of `Log` through its public methods, on the real disk.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::{
    config::topic::LogConfig,
    env::{Clock, Disk, SystemClock, SystemDisk},
    protocol::record_batch::{BatchBuilder, BatchOptions, BatchView, iter_batches},
    sim::{SimClock, SimDisk},
    types::{Offset, TopicPartition},
};

pub(super) fn partition() -> TopicPartition {
    TopicPartition::new("t", 0)
}

/// One batch of `count` records from a non-idempotent producer.
pub(crate) fn plain(count: usize, value: &[u8], timestamp_ms: i64) -> Bytes {
    batch(BatchOptions::default(), count, value, timestamp_ms)
}

pub(super) fn batch(options: BatchOptions, count: usize, value: &[u8], timestamp_ms: i64) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for index in 0..count {
        builder.append(timestamp_ms + index as i64, Some(b"k"), Some(value), &[]);
    }
    builder.build()
}

pub(super) struct Fixture {
    pub(super) dir: tempfile::TempDir,
    pub(super) ctx: Arc<LogContext>,
    pub(super) config: LogConfig,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ctx = LogContext::alone(dir.path(), Arc::new(SystemDisk), Arc::new(SystemClock::new())).unwrap();
        Fixture { dir, ctx, config: LogConfig { message_timestamp_after_max_ms: i64::MAX, ..LogConfig::default() } }
    }

    pub(super) fn open(&self, start: OpenLog) -> Result<Log, LogError> {
        Log::open(&self.ctx, &self.dir.path().join("t-0"), partition(), None, Arc::new(self.config.clone()), start)
    }

    pub(super) fn clean(&self) -> Log {
        self.open(OpenLog { clean_shutdown: true, ..OpenLog::default() }).unwrap()
    }

    pub(super) fn append(&self, log: &mut Log, batch: Bytes) -> Result<AppendInfo, AppendError> {
        let rules = ValidationRules::new(log.partition(), log.config(), 1_000_000, 9);
        let validated = validate(batch, &rules).unwrap();
        log.append_as_leader(validated, 0, 1_000_000)
    }
}

pub(super) fn read_all(log: &Log) -> Bytes {
    let mut from = log.log_start_offset();
    let mut all = Vec::new();
    while from < log.log_end_offset() {
        let bytes = log.read(from, usize::MAX, Offset::MAX, true).unwrap().records().unwrap().into_bytes().unwrap();
        assert!(!bytes.is_empty(), "nothing at {from} of {log:?}");
        from = iter_batches(&bytes).last().unwrap().next_offset();
        all.extend_from_slice(&bytes);
    }
    all.into()
}

#[test]
fn inv_l1_offsets_have_no_gaps_and_batches_are_served_as_stored() {
    let fixture = Fixture::new();
    let mut log = fixture.clean();
    for index in 0..50 {
        let info = fixture.append(&mut log, plain(3, b"hello", 1000)).unwrap();
        assert_eq!((info.first_offset, info.last_offset), (index * 3, index * 3 + 2));
    }
    let bytes = read_all(&log);
    let batches: Vec<BatchView<'_>> = iter_batches(&bytes).collect();
    assert_eq!(batches.len(), 50);
    for (index, batch) in batches.iter().enumerate() {
        assert!(batch.crc_is_valid());
        assert_eq!((batch.base_offset(), batch.partition_leader_epoch()), (index as i64 * 3, 0));
    }
}

#[test]
fn i2_resent_batch_answers_original_offset_and_is_not_stored_again() {
    let fixture = Fixture::new();
    let mut log = fixture.clean();
    let now_ms = fixture.ctx.clock.now_ms(); // Recent, so that the producer does not expire.
    let idempotent = |sequence: i32| {
        batch(
            BatchOptions { producer_id: 4, producer_epoch: 0, base_sequence: sequence, ..BatchOptions::default() },
            2,
            b"v",
            now_ms,
        )
    };
    for index in 0..5 {
        assert_eq!(fixture.append(&mut log, idempotent(index * 2)).unwrap().first_offset, i64::from(index) * 2);
    }
    for index in 0..5 {
        let info = fixture.append(&mut log, idempotent(index * 2)).unwrap();
        assert!(info.duplicate);
        assert_eq!((info.first_offset, info.last_offset), (i64::from(index) * 2, i64::from(index) * 2 + 1));
        assert_eq!(info.log_append_time_ms, now_ms + 1, "I2: the cached batch timestamp");
    }
    assert_eq!(log.log_end_offset(), 10);
    assert!(matches!(fixture.append(&mut log, idempotent(12)), Err(AppendError::OutOfOrderSequence { .. })));
    // I5: the producer state survives a restart, clean or not.
    log.close_cleanly().unwrap();
    for clean_shutdown in [true, false] {
        let mut log = fixture.open(OpenLog { clean_shutdown, ..OpenLog::default() }).unwrap();
        assert!(fixture.append(&mut log, idempotent(8)).unwrap().duplicate);
        assert!(matches!(fixture.append(&mut log, idempotent(12)), Err(AppendError::OutOfOrderSequence { .. })));
    }
}

#[test]
fn p5_a_batch_larger_than_a_segment_is_refused() {
    let mut fixture = Fixture::new();
    fixture.config.segment_bytes = 500;
    let mut log = fixture.clean();
    assert!(matches!(
        fixture.append(&mut log, plain(1, &[0; 600], 1)),
        Err(AppendError::LargerThanSegment { segment_bytes: 500, .. })
    ));
    assert_eq!(log.log_end_offset(), 0);
}

#[test]
fn segments_roll_by_size_by_age_and_when_an_index_is_full() {
    let mut fixture = Fixture::new();
    fixture.config.segment_bytes = 1000;
    let mut log = fixture.clean();
    for _ in 0..10 {
        fixture.append(&mut log, plain(1, &[0; 300], 1)).unwrap();
    }
    assert_eq!(log.segments().len(), 5);
    assert!(log.segments().iter().all(|segment| segment.size_bytes() <= 1000));

    fixture.config = LogConfig { segment_ms: 5000, ..LogConfig::default() };
    log.update_config(Arc::new(fixture.config.clone()));
    log.roll().unwrap();
    let before = log.segments().len();
    fixture.append(&mut log, plain(1, b"x", 10_000)).unwrap();
    fixture.append(&mut log, plain(1, b"x", 15_000)).unwrap();
    assert_eq!(log.segments().len(), before);
    fixture.append(&mut log, plain(1, b"x", 15_001)).unwrap();
    assert_eq!(log.segments().len(), before + 1);

    fixture.config =
        LogConfig { segment_index_bytes: 48, index_interval_bytes: 0, segment_ms: i64::MAX, ..LogConfig::default() };
    log.update_config(Arc::new(fixture.config.clone()));
    log.roll().unwrap();
    let before = log.segments().len();
    // The time index has room for four entries, the last one for the roll; the first batch gets none.
    for index in 0..5 {
        fixture.append(&mut log, plain(1, b"x", 20_000 + index)).unwrap();
    }
    assert_eq!(log.segments().len(), before + 1);
    assert_eq!(iter_batches(&read_all(&log)).count() as i64, log.log_end_offset());
}

#[test]
fn inv_l5_indexes_snapshots_and_epochs_are_rebuilt_from_the_log_alone() {
    let mut fixture = Fixture::new();
    fixture.config = LogConfig { segment_bytes: 20_000, index_interval_bytes: 500, ..fixture.config };
    let mut log = fixture.clean();
    for index in 0..200 {
        let options = BatchOptions {
            producer_id: index % 3,
            producer_epoch: 0,
            base_sequence: (index / 3) as i32,
            ..BatchOptions::default()
        };
        let rules = ValidationRules::new(log.partition(), log.config(), 1_000_000, 9);
        let validated = validate(batch(options, 1, &[1; 300], 5000 + index), &rules).unwrap();
        log.append_as_leader(validated, (index / 50) as i32, 1_000_000).unwrap();
    }
    log.close_cleanly().unwrap();
    let (content, epochs, snapshot) = (read_all(&log), log.leader_epochs().clone(), log.producers().snapshot());
    let files = |fixture: &Fixture| -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = std::fs::read_dir(fixture.dir.path().join("t-0"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "index" || extension == "timeindex"))
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let indexes = files(&fixture);
    assert!(indexes.iter().filter(|(_, bytes)| bytes.len() > 100).count() > 3);
    for entry in std::fs::read_dir(fixture.dir.path().join("t-0")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "log") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let mut log = fixture.open(OpenLog::default()).unwrap();
    assert_eq!(read_all(&log), content);
    assert_eq!(log.leader_epochs(), &epochs);
    assert_eq!(log.producers().snapshot(), snapshot);
    log.close_cleanly().unwrap();
    assert_eq!(files(&fixture), indexes);
}

#[test]
fn f4_offsets_outside_of_the_log_are_out_of_range() {
    let fixture = Fixture::new();
    let mut log = fixture.clean();
    fixture.append(&mut log, plain(5, b"x", 1)).unwrap();
    log.maybe_increment_log_start_offset(2).unwrap();
    for offset in [-1, 0, 1, 6] {
        assert!(
            matches!(log.read(offset, 100, Offset::MAX, true), Err(ReadError::OffsetOutOfRange { .. })),
            "{offset}"
        );
    }
    assert!(log.read(5, 100, Offset::MAX, true).unwrap().records().unwrap().is_empty());
    // F3: the whole batch is returned although it starts below the log start offset.
    let bytes = log.read(3, 1, Offset::MAX, true).unwrap().records().unwrap().into_bytes().unwrap();
    assert_eq!(BatchView::parse(&bytes).unwrap().base_offset(), 0);
    assert!(log.read(3, 1, Offset::MAX, false).unwrap().records().unwrap().is_empty());
    assert!(log.read(3, 1000, 3, true).unwrap().records().unwrap().is_empty());
}

#[test]
fn i4_deleting_records_keeps_producer_state() {
    let mut fixture = Fixture::new();
    fixture.config.file_delete_delay_ms = 0;
    let mut log = fixture.clean();
    let idempotent = |sequence: i32| {
        batch(
            BatchOptions { producer_id: 4, producer_epoch: 0, base_sequence: sequence, ..BatchOptions::default() },
            1,
            b"v",
            999_000,
        )
    };
    fixture.append(&mut log, idempotent(0)).unwrap();
    log.maybe_increment_log_start_offset(1).unwrap();
    log.roll().unwrap();
    assert_eq!(log.delete_old_segments(1_000_000, 1).unwrap(), 1);
    assert!(fixture.append(&mut log, idempotent(0)).unwrap().duplicate);
    assert_eq!(fixture.append(&mut log, idempotent(1)).unwrap().first_offset, 1);
}

#[test]
fn inv_t3_aborted_transactions_are_indexed_and_found_again_after_a_crash() {
    let fixture = Fixture::new();
    let mut log = fixture.clean();
    let transactional = |producer_id: i64, sequence: i32| {
        batch(
            BatchOptions {
                producer_id,
                producer_epoch: 0,
                base_sequence: sequence,
                transactional: true,
                ..BatchOptions::default()
            },
            2,
            b"v",
            1,
        )
    };
    let marker = |producer_id: i64, commit: bool| {
        let mut builder = BatchBuilder::new(BatchOptions {
            producer_id,
            producer_epoch: 0,
            transactional: true,
            control: true,
            ..BatchOptions::default()
        });
        builder.append(1, Some(&[0, 0, 0, u8::from(commit)]), Some(&[0, 0, 0, 0, 0, 1]), &[]);
        ValidatedBatch::from_broker(builder.build(), AppendOrigin::Coordinator)
    };
    fixture.append(&mut log, transactional(1, 0)).unwrap();
    fixture.append(&mut log, transactional(2, 0)).unwrap();
    assert_eq!(log.first_unstable_offset(), Some(0));
    log.append_as_leader(marker(1, false), 0, 1).unwrap();
    log.on_high_watermark(5);
    assert_eq!(log.first_unstable_offset(), Some(2));
    log.append_as_leader(marker(2, true), 0, 1).unwrap();
    log.on_high_watermark(6);
    assert_eq!(log.first_unstable_offset(), None);
    let expected = AbortedTransaction { producer_id: 1, first_offset: 0, last_offset: 4, last_stable_offset: 2 };
    let plan = |log: &Log, from| log.read(from, 1, Offset::MAX, true).unwrap();
    assert_eq!(plan(&log, 0).aborted_transactions(6).unwrap(), [expected]);
    assert_eq!(plan(&log, 5).aborted_transactions(6).unwrap(), []);
    drop(log);
    std::fs::remove_file(fixture.dir.path().join("t-0/00000000000000000000.txnindex")).unwrap();
    let log = fixture.open(OpenLog::default()).unwrap();
    assert_eq!(plan(&log, 0).aborted_transactions(6).unwrap(), [expected]);
}

#[test]
fn readers_finish_what_they_started_when_the_segment_or_the_log_is_deleted() {
    let mut fixture = Fixture::new();
    fixture.config = LogConfig { segment_bytes: 500, retention_ms: -1, ..fixture.config };
    let mut log = fixture.clean();
    for _ in 0..4 {
        fixture.append(&mut log, plain(1, &[3; 300], 1)).unwrap();
    }
    log.close_cleanly().unwrap();
    let mut log = fixture.clean();
    let (first, second) = (log.read(0, 1, 4, true).unwrap(), log.read(1, 1, 4, true).unwrap());
    log.maybe_increment_log_start_offset(1).unwrap();
    assert_eq!(log.delete_old_segments(1, 4).unwrap(), 1);
    assert_eq!(first.records().unwrap().into_bytes().unwrap().len(), 61 + 300 + 10);
    log.delete("0123").unwrap();
    assert!(fixture.dir.path().join("t-0.0123-delete").exists());
    assert_eq!(second.records().unwrap().into_bytes().unwrap().len(), 61 + 300 + 10);
    assert!(log.read(1, 1, 4, true).is_err());
}

/// A read that had stopped by its size inside of a segment went on in the next one, and skipped the offsets between: a
/// follower or consumer never got them.
#[test]
fn f2_a_read_is_empty_or_begins_with_its_offset_and_has_no_gap() {
    let mut fixture = Fixture::new();
    fixture.config = LogConfig { segment_bytes: 1500, retention_ms: -1, ..fixture.config };
    let mut log = fixture.clean();
    let sizes = [10, 400, 700, 20, 1300, 10, 10, 900, 500, 30];
    for size in sizes {
        fixture.append(&mut log, plain(1, &vec![3; size], 1)).unwrap();
    }
    assert!(log.segments().len() >= 4);
    log.close_cleanly().unwrap();
    // Nothing is in the tail cache, so all is read from the files.
    let log = fixture.clean();
    for (from, max_bytes, min_one_batch) in (0..10)
        .flat_map(|from| (0..40).map(move |step| (from, step * 50)))
        .flat_map(|(from, bytes)| [(from, bytes, false), (from, bytes, true)])
    {
        let records = log.read(from, max_bytes, 10, min_one_batch).unwrap().records().unwrap().into_bytes().unwrap();
        let mut next = from;
        for batch in iter_batches(&records) {
            assert_eq!(batch.base_offset(), next, "{max_bytes} bytes from {from}, at least one: {min_one_batch}");
            next = batch.next_offset();
        }
        assert!(!min_one_batch || next > from, "nothing at {from}");
    }
}

/// The plan was made before the truncation: its segment ends early now, and the next one of the plan, which was
/// removed, does not continue it. A follower took the offsets that were missing for a gap that compaction had left.
#[test]
fn f2_a_read_that_a_truncation_overtakes_skips_no_offsets() {
    let mut fixture = Fixture::new();
    fixture.config = LogConfig { segment_bytes: 1000, retention_ms: -1, ..fixture.config };
    let mut log = fixture.clean();
    for _ in 0..9 {
        fixture.append(&mut log, plain(1, &[3; 200], 1)).unwrap();
    }
    log.close_cleanly().unwrap();
    let mut log = fixture.clean();
    let bases: Vec<Offset> = log.segments().iter().map(|segment| segment.base_offset()).collect();
    assert_eq!(bases, [0, 3, 6]);
    let plans: Vec<_> = (0..9).map(|from| (from, log.read(from, 10_000, 9, true).unwrap())).collect();
    log.truncate_to(1).unwrap();
    for (from, plan) in plans {
        // A file that was removed has no records of this log any more; what it had may be returned or not.
        let records = plan.records().unwrap().into_bytes().unwrap();
        let first = iter_batches(&records).next().map(|batch| batch.base_offset());
        assert!(first.is_none_or(|first| first == from), "the read from {from} begins at {first:?}");
    }
}

#[test]
fn opening_a_clean_log_reads_only_its_end_and_open_files_are_bounded() {
    let mut fixture = Fixture::new();
    fixture.config.segment_bytes = 500;
    fixture.ctx = LogContext::new(
        fixture.dir.path(),
        Arc::new(SystemDisk),
        Arc::new(SystemClock::new()),
        Arc::new(FileCache::new(8)),
        Arc::new(TailCache::new(0)),
        &LogLimits::default(),
    )
    .unwrap();
    let mut log = fixture.clean();
    for _ in 0..50 {
        fixture.append(&mut log, plain(1, &[3; 300], 999_999)).unwrap();
    }
    assert_eq!(read_all(&log).len(), 50 * (61 + 300 + 10));
    assert!(fixture.ctx.files.len() <= 8, "{}", fixture.ctx.files.len());
    log.close_cleanly().unwrap();
    drop(log);
    // Only the last segment is checked.
    std::fs::write(fixture.dir.path().join("t-0/00000000000000000007.log"), [0; 371]).unwrap();
    let log = fixture.clean();
    assert_eq!((log.log_end_offset(), log.segments().len()), (50, 50));
    assert!(
        matches!(log.read(7, 1, 50, true).unwrap().records(), Err(LogError::Corrupt { .. })),
        "the damaged segment is not served"
    );
    assert!(!fixture.ctx.is_offline());
}

#[test]
fn flush_messages_asks_for_a_flush_and_one_sync_serves_all_who_wait() {
    use std::sync::Mutex;
    let mut fixture = Fixture::new();
    fixture.config.flush_messages = 2;
    let mut log = fixture.clean();
    assert!(!fixture.append(&mut log, plain(1, b"x", 1)).unwrap().flush_due);
    assert!(fixture.append(&mut log, plain(1, b"x", 1)).unwrap().flush_due);
    // I2: a batch that is resent because its response was lost must also wait until it is durable.
    let options = BatchOptions { producer_id: 4, producer_epoch: 0, base_sequence: 0, ..BatchOptions::default() };
    let idempotent = || batch(options, 1, b"x", 1);
    assert!(fixture.append(&mut log, idempotent()).unwrap().flush_due);
    let resent = fixture.append(&mut log, idempotent()).unwrap();
    assert!(resent.duplicate && resent.flush_due);
    let owner = Mutex::new(log);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| flush_through(&owner, 3).unwrap());
        }
    });
    let log = owner.into_inner().unwrap();
    assert_eq!(log.recovery_point(), 3);
    assert!(!log.flush_is_due(std::time::Duration::MAX));
}

#[test]
fn partition_metadata_of_another_topic_is_refused() {
    let fixture = Fixture::new();
    let id = |n: u128| Some(crate::types::TopicId(uuid::Uuid::from_u128(n << 64 | n << 32 | n)));
    let open = |topic_id| {
        let config = Arc::new(fixture.config.clone());
        Log::open(&fixture.ctx, &fixture.dir.path().join("t-0"), partition(), topic_id, config, OpenLog::default())
    };
    assert_eq!(open(id(0x1234_5678)).unwrap().topic_id(), id(0x1234_5678));
    assert_eq!(open(None).unwrap().topic_id(), id(0x1234_5678));
    assert!(matches!(open(id(0xfedc_ba98)), Err(LogError::Invalid { .. })));
    assert!(!fixture.ctx.is_offline());
}

#[test]
fn followers_take_batches_verbatim_and_refuse_what_does_not_fit() {
    let mut fixture = Fixture::new();
    fixture.config.segment_bytes = 2000;
    let mut log = fixture.clean();
    let at = |base_offset: Offset, epoch| {
        batch(BatchOptions { base_offset, leader_epoch: epoch, ..BatchOptions::default() }, 2, &[1; 400], 7)
    };
    let all: Vec<u8> = (0..6).flat_map(|index| at(index * 2, index as i32 / 3).to_vec()).collect();
    let info = log.append_as_follower(all.clone().into(), 1).unwrap();
    assert_eq!((info.first_offset, info.last_offset), (0, 11));
    assert_eq!(read_all(&log), all);
    assert_eq!(log.leader_epochs().entries(), [(0, 0), (1, 6)]);
    assert!(log.segments().len() > 2);
    assert!(matches!(log.append_as_follower(at(11, 1), 1), Err(AppendError::UnexpectedOffset { .. })));
    let mut damaged = at(12, 1).to_vec();
    damaged[100] ^= 1;
    assert!(matches!(log.append_as_follower(damaged.into(), 1), Err(AppendError::Corrupt { .. })));
    assert_eq!(log.log_end_offset(), 12);
    assert!(log.truncate_to(7).unwrap());
    assert_eq!(log.log_end_offset(), 6, "the whole batch that holds the offset is removed");
    assert_eq!(log.end_offset_for_epoch(1), None);
    log.truncate_fully_and_start_at(100).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (100, 100));
    log.append_as_follower(at(100, 2), 1).unwrap();
    assert_eq!(read_all(&log), at(100, 2));
}

/// What a start has not checked ends where the file ended, and after a truncation that is inside of a new batch.
#[test]
fn a_batch_that_crosses_the_former_end_of_a_truncated_file_is_read() {
    let fixture = Fixture::new();
    let mut log = fixture.clean();
    let at = |base_offset: Offset, bytes: usize| {
        batch(BatchOptions { base_offset, ..BatchOptions::default() }, 1, &vec![1; bytes], 7)
    };
    for offset in 0..4 {
        log.append_as_follower(at(offset, 100), 1).unwrap();
    }
    log.close_cleanly().unwrap();
    let mut log = fixture.clean();
    log.truncate_to(2).unwrap();
    let batches = [at(2, 100), at(3, 700), at(4, 100)];
    for batch in &batches {
        log.append_as_follower(batch.clone(), 1).unwrap();
    }
    for (offset, batch) in (2..).zip(&batches) {
        let found = log.read(offset, batch.len(), log.log_end_offset(), true).unwrap().records().unwrap();
        assert_eq!(found.into_bytes().unwrap(), batch, "at offset {offset}");
    }
}

#[test]
fn what_a_damaged_index_skips_is_found_all_the_same() {
    let mut fixture = Fixture::new();
    fixture.config.index_interval_bytes = 1;
    let mut log = fixture.clean();
    for _ in 0..50 {
        fixture.append(&mut log, plain(1, &[3; 100], 999_999)).unwrap();
    }
    log.close_cleanly().unwrap();
    drop(log);
    // Lowers the offsets of index entries, so that each points to a batch far after its offset.
    let path = fixture.dir.path().join("t-0/00000000000000000000.index");
    let mut index = std::fs::read(&path).unwrap();
    let entries = index.len() / 8;
    for entry in index.chunks_exact_mut(8).skip(entries / 2) {
        let offset = u32::from_be_bytes(entry[..4].try_into().unwrap());
        entry[..4].copy_from_slice(&(offset - 20).to_be_bytes());
    }
    std::fs::write(&path, index).unwrap();
    let log = fixture.clean();
    for offset in 0..50 {
        let bytes = log.read(offset, 1, Offset::MAX, true).unwrap().records().unwrap().into_bytes().unwrap();
        assert_eq!(BatchView::parse(&bytes).unwrap().base_offset(), offset);
    }
}

#[test]
fn readers_see_what_flush_messages_made_durable() {
    let mut fixture = Fixture::new();
    fixture.config.flush_messages = 2;
    let mut log = fixture.clean();
    fixture.append(&mut log, plain(1, b"x", 1)).unwrap();
    assert_eq!(log.visible_end_offset(), 1, "one record may be unflushed");
    fixture.append(&mut log, plain(1, b"x", 1)).unwrap();
    assert_eq!(log.visible_end_offset(), 0, "two records may not");
    log.flush().unwrap();
    assert_eq!(log.visible_end_offset(), 2);
}

/// The largest timestamp of each segment, as retention sees it.
fn ages(log: &Log) -> Vec<i64> {
    log.segments.iter().map(|segment| segment.largest_timestamp().unwrap()).collect()
}

#[test]
fn records_without_a_timestamp_age_from_the_last_write_also_after_a_restart() {
    const DAY_MS: i64 = 86_400_000;
    let day = std::time::Duration::from_millis(DAY_MS as u64);
    let dir = std::path::Path::new("/d/t-0");
    for clean_shutdown in [true, false] {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(DAY_MS));
        disk.set_clock(clock.clone());
        disk.create_dir_all(dir).unwrap();
        let config = LogConfig { segment_bytes: 200, retention_ms: 3 * DAY_MS, ..LogConfig::default() };
        let open = |start: OpenLog| {
            let ctx =
                LogContext::alone(dir.parent().unwrap(), Arc::new(disk.clone()), Arc::new(clock.clone())).unwrap();
            Log::open(&ctx, dir, partition(), None, Arc::new(config.clone()), start).unwrap()
        };
        let mut log = open(OpenLog::default());
        for _ in 0..3 {
            let batch = plain(1, &[7; 100], -1);
            let rules = ValidationRules::new(log.partition(), log.config(), clock.now_ms(), 9);
            log.append_as_leader(validate(batch, &rules).unwrap(), 0, clock.now_ms()).unwrap();
            log.flush().unwrap();
            clock.advance(day);
        }
        assert_eq!(ages(&log), [DAY_MS, 2 * DAY_MS, 3 * DAY_MS]);
        if clean_shutdown {
            log.close_cleanly().unwrap();
        }
        drop(log);
        disk.crash();
        // Now it is day 4; a start must not count as a modification, even if it repairs files.
        let mut log = open(OpenLog { clean_shutdown, ..OpenLog::default() });
        assert_eq!(ages(&log), [DAY_MS, 2 * DAY_MS, 3 * DAY_MS], "clean: {clean_shutdown}");
        let end = log.log_end_offset();
        assert_eq!(log.delete_old_segments(clock.now_ms(), end).unwrap(), 0);
        clock.advance(day);
        assert_eq!(log.delete_old_segments(clock.now_ms(), end).unwrap(), 1);
        assert_eq!(log.log_start_offset(), 1);
        // Truncating is a modification, unless nothing is truncated.
        assert!(!log.truncate_to(end).unwrap());
        assert_eq!(ages(&log), [2 * DAY_MS, 3 * DAY_MS]);
        assert!(log.truncate_to(2).unwrap());
        assert_eq!(ages(&log)[0], 2 * DAY_MS);
    }
}

#[test]
fn recovery_modifies_no_file_that_it_does_not_cut() {
    let fixture = Fixture::new();
    let mut log = fixture.clean();
    fixture.append(&mut log, plain(1, b"v", -1)).unwrap();
    log.flush().unwrap();
    drop(log);
    let path = fixture.dir.path().join("t-0/00000000000000000000.log");
    let a_day_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_modified(a_day_ago).unwrap();
    let expected = SystemDisk.modified_ms(&path).unwrap();
    for clean_shutdown in [true, false] {
        let mut log = fixture.open(OpenLog { clean_shutdown, ..OpenLog::default() }).unwrap();
        assert_eq!(ages(&log), [expected]);
        log.close_cleanly().unwrap();
        assert_eq!(SystemDisk.modified_ms(&path).unwrap(), expected);
    }
}
