//! The choice of the logs that are cleaned, their rate, and what happens with those that cannot be cleaned.

use super::{tests::*, *};
use crate::{
    config::topic::CleanupPolicy,
    env::{Clock, Disk},
    log::{AppendOrigin, ValidatedBatch, flush_through},
    protocol::record_batch::{BatchBuilder, BatchOptions, RecordIter, iter_batches},
    sim::{SimClock, SimDisk, disk::Faults},
};

fn compacted() -> LogConfig {
    LogConfig {
        cleanup_policy: CleanupPolicy { compact: true, delete: false },
        segment_bytes: 1_000,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    }
}

fn put(log: &Mutex<Log>, key: &str, value: Option<&str>, now_ms: i64) {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(now_ms, Some(key.as_bytes()), value.map(str::as_bytes), &[]);
    let batch = ValidatedBatch::from_broker(builder.build(), AppendOrigin::Coordinator);
    log.lock().unwrap().append_as_leader(batch, 0, now_ms).unwrap();
}

/// Offset, key and value of all records.
fn records(log: &Mutex<Log>) -> Vec<(Offset, String, Option<String>)> {
    let log = log.lock().unwrap();
    let (mut from, end) = (log.log_start_offset(), log.log_end_offset());
    let mut found = Vec::new();
    while from < end {
        let bytes = log.read(from, 1 << 20, end, true).unwrap().records().unwrap().into_bytes().unwrap();
        for batch in iter_batches(&bytes) {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let records = RecordIter::new(batch.records_bytes(), batch.record_count());
            found.extend(records.map(|record| {
                let record = record.unwrap();
                let offset = batch.base_offset() + Offset::from(record.offset_delta);
                (offset, text(record.key.unwrap()), record.value.map(text))
            }));
            from = batch.next_offset();
        }
    }
    found
}

fn roll(log: &Mutex<Log>) {
    log.lock().unwrap().roll().unwrap();
}

struct Node {
    disk: SimDisk,
    clock: SimClock,
    manager: Arc<LogManager>,
}

fn node(cleaner: CleanerConfig) -> Node {
    let (disk, clock) = (SimDisk::new(3), SimClock::new(1_000_000));
    let config = LogManagerConfig { cleaner, ..LogManagerConfig::new(vec!["/a".into()], 1) };
    let manager = LogManager::open(&env(&disk, &clock), config).unwrap();
    Node { disk, clock, manager }
}

#[test]
fn the_newest_record_of_each_key_stays_and_a_tombstone_for_its_time() {
    let Node { clock, manager, .. } = node(CleanerConfig::default());
    let log = open(&manager, "t", LogConfig { delete_retention_ms: 60_000, segment_bytes: 10_000, ..compacted() });
    for n in 0..10 {
        put(&log, "a", Some(&format!("a{n}")), 1_000_000);
        put(&log, "b", Some(&format!("b{n}")), 1_000_000);
    }
    put(&log, "b", None, 1_000_000);
    put(&log, "c", Some("c"), 1_000_000);
    manager.clean_all();
    assert_eq!(records(&log).len(), 22, "the active segment is left alone");
    roll(&log);
    manager.clean_all();
    let a = (18, "a".to_owned(), Some("a9".to_owned()));
    let (tombstone, c) = ((20, "b".to_owned(), None), (21, "c".to_owned(), Some("c".to_owned())));
    assert_eq!(records(&log), [a.clone(), tombstone.clone(), c.clone()]);
    assert_eq!(log.lock().unwrap().log_end_offset(), 22);
    let figures = manager.cleaner_figures();
    assert_eq!((figures.cleanings, figures.uncleanable_partitions, figures.max_dirty_percent), (1, 0, 0));

    let clean_again = |seconds: u64, value: &str| {
        clock.advance(Duration::from_secs(seconds));
        put(&log, "d", Some(value), clock.now_ms());
        roll(&log);
        clock.advance(Duration::from_millis(10));
        manager.clean_all();
    };
    // The new record is less than half of the log, so nothing happens before `max.compaction.lag.ms`.
    clean_again(1, "d0");
    assert_eq!(records(&log).len(), 4);
    log.lock().unwrap().update_config(Arc::new(LogConfig {
        delete_retention_ms: 60_000,
        max_compaction_lag_ms: 1,
        segment_bytes: 10_000,
        ..compacted()
    }));
    clean_again(58, "d1");
    assert_eq!(records(&log).len(), 4, "{:?}", records(&log));
    assert!(records(&log).contains(&tombstone));
    clean_again(2, "d2");
    assert_eq!(records(&log).into_iter().map(|(offset, ..)| offset).collect::<Vec<_>>(), [18, 21, 24]);
}

#[test]
fn the_dirtiest_comes_first_and_lags_are_kept() {
    let Node { clock, manager, .. } = node(CleanerConfig::default());
    let log = open(&manager, "t", LogConfig { min_compaction_lag_ms: 10_000, ..compacted() });
    for n in 0..30 {
        put(&log, "a", Some(&format!("value {n}")), clock.now_ms());
    }
    roll(&log);
    manager.clean_all();
    assert_eq!(records(&log).len(), 30, "they are younger than min.compaction.lag.ms");
    clock.advance(Duration::from_millis(10_001));
    manager.clean_all();
    assert_eq!(records(&log).len(), 1);
    let deleted = open(
        &manager,
        "deleted",
        LogConfig { cleanup_policy: CleanupPolicy { compact: false, delete: true }, ..compacted() },
    );
    for _ in 0..30 {
        put(&deleted, "a", Some("value"), clock.now_ms());
    }
    roll(&deleted);
    manager.clean_all();
    assert_eq!(records(&deleted).len(), 30, "it is not compacted");
}

#[test]
fn a_damaged_log_is_set_aside_and_others_go_on() {
    let Node { disk, manager, .. } = node(CleanerConfig::default());
    let logs = ["bad", "good"].map(|name| open(&manager, name, compacted()));
    for log in &logs {
        for n in 0..30 {
            put(log, "a", Some(&format!("value {n}")), 1_000_000);
        }
        roll(log);
        flush_through(&**log, 30).unwrap();
    }
    disk.flip_byte(Path::new("/a/bad-0/00000000000000000000.log"), 200).unwrap();
    manager.clean_all();
    assert_eq!(manager.cleaner_figures().uncleanable_partitions, 1);
    assert_eq!(records(&logs[1]).len(), 1);
    assert!(!disk.list(Path::new("/a/bad-0")).unwrap().iter().any(|entry| entry.name.contains("cleaned")));
    let end = logs[0].lock().unwrap().log_end_offset();
    assert_eq!(end, 30, "nothing of it has changed");
}

#[test]
fn a_full_disk_only_delays_and_a_fault_takes_the_directory_offline() {
    let Node { disk, manager, .. } = node(CleanerConfig::default());
    let log = open(&manager, "t", compacted());
    for n in 0..30 {
        put(&log, "a", Some(&format!("value {n}")), 1_000_000);
    }
    roll(&log);
    flush_through(&*log, 30).unwrap();
    disk.set_room(Some(0));
    manager.clean_all();
    assert_eq!((records(&log).len(), manager.cleaner_figures().uncleanable_partitions), (30, 0));
    disk.set_room(None);
    manager.clean_all();
    assert_eq!(records(&log).len(), 1);
    for n in 0..30 {
        put(&log, "a", Some(&format!("value {n}")), 1_000_000);
    }
    roll(&log);
    flush_through(&*log, 60).unwrap();
    disk.set_faults(Faults { fail_sync: Some(1), ..Faults::default() });
    manager.clean_all();
    assert!(manager.is_offline());
}

#[tokio::test]
async fn the_rate_is_kept() {
    let bytes_per_second = 10_000.0;
    let cleaner = CleanerConfig { max_bytes_per_second: bytes_per_second, ..CleanerConfig::default() };
    let Node { clock, manager, .. } = node(cleaner);
    let log = open(&manager, "t", LogConfig { segment_bytes: 200_000, ..compacted() });
    for n in 0..1_000 {
        put(&log, &format!("key {n}"), Some(&"v".repeat(400)), 1_000_000);
    }
    roll(&log);
    let bytes = log.lock().unwrap().size_bytes() as f64;
    manager.start_cleaner();
    let mut passed = Duration::ZERO;
    while manager.cleaner_figures().cleanings == 0 {
        clock.advance(Duration::from_millis(50));
        passed += Duration::from_millis(50);
        tokio::task::yield_now().await;
    }
    // Each byte is read twice. None is written, since nothing goes. Time passes only here, so it cannot be less by
    // chance.
    let least = Duration::from_secs_f64(2.0 * bytes / bytes_per_second * 0.9);
    assert!(passed > least, "{passed:?} for {bytes} bytes");
}
