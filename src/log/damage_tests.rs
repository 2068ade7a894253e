//! Files that were damaged while the broker was down: tests which records are still served, which files are rebuilt,
//! and that truncated bytes are kept.

use std::{ops::Range, path::PathBuf, sync::Arc};

use super::{
    tests::{Fixture, plain},
    *,
};
use crate::{
    config::topic::LogConfig,
    protocol::record_batch::{BatchView, iter_batches},
    types::{CLUSTER_METADATA_TOPIC, Offset, TopicId, TopicPartition},
};

/// One record per batch.
const BATCHES: i64 = 200;

struct Stored {
    fixture: Fixture,
    /// The position of each batch in the last segment, and the segment's end.
    positions: Vec<usize>,
}

impl Stored {
    /// A cleanly closed log of [`BATCHES`], in segments of at most `segment_bytes`.
    fn new(segment_bytes: i32) -> Stored {
        let mut fixture = Fixture::new();
        fixture.config = LogConfig { segment_bytes, index_interval_bytes: 1000, ..fixture.config };
        let mut log = fixture.clean();
        for at in 0..BATCHES {
            fixture.append(&mut log, plain(1, &[at as u8; 300], 500_000 + at)).unwrap();
        }
        log.close_cleanly().unwrap();
        let bytes = std::fs::read(log.segments().last().unwrap().path(file_names::FileKind::Log)).unwrap();
        let sizes = iter_batches(&bytes).map(|batch| batch.size_bytes());
        let positions = std::iter::once(0)
            .chain(sizes.scan(0, |position, size| {
                *position += size;
                Some(*position)
            }))
            .collect();
        Stored { fixture, positions }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.fixture.dir.path().join("t-0").join(name)
    }

    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.fixture.dir.path().join("t-0")).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.to_str().unwrap().ends_with(ending));
        files.sort();
        files
    }

    fn flip(&self, path: &PathBuf, position: usize) {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[position] ^= 4;
        std::fs::write(path, bytes).unwrap();
    }

    fn clean(&self) -> Log {
        self.fixture.open(OpenLog { clean_shutdown: true, recovery_point: BATCHES, ..OpenLog::default() }).unwrap()
    }

    fn killed(&self, recovery_point: Offset) -> Result<Log, LogError> {
        self.fixture.open(OpenLog { recovery_point, ..OpenLog::default() })
    }
}

fn served(log: &Log, from: Offset) -> Option<Offset> {
    let bytes = log.read(from, 1000, Offset::MAX, true).unwrap().records().ok()?.into_bytes().unwrap();
    assert!(iter_batches(&bytes).all(|batch| batch.crc_is_valid()));
    Some(BatchView::parse(&bytes).ok()?.base_offset())
}

fn assert_serves_all_but(log: &Log, lost: Range<Offset>) {
    for offset in 0..BATCHES {
        let expected = (!lost.contains(&offset)).then_some(offset);
        assert_eq!(served(log, offset), expected, "offset {offset}, lost {lost:?}");
    }
}

fn append_some(stored: &Stored, log: &mut Log) {
    let end = log.log_end_offset();
    for at in 0..20 {
        stored.fixture.append(log, plain(1, &[7; 300], 900_000 + at)).unwrap();
    }
    for offset in end..end + 20 {
        assert_eq!(served(log, offset), Some(offset));
    }
}

/// Returns the damaged content of a file, or `None` to remove the file.
type Damage = fn(Vec<u8>) -> Option<Vec<u8>>;

/// All kinds of damage, for files that the log can rebuild.
fn damages() -> Vec<(&'static str, Damage)> {
    vec![
        ("removed", |_| None),
        ("emptied", |_| Some(Vec::new())),
        ("garbage behind", |bytes| Some([bytes, vec![0xa7; 777]].concat())),
        ("garbage instead", |bytes| Some(vec![0xa7; bytes.len()])),
        ("cut", |bytes| Some(bytes[..bytes.len() / 2 + 1].to_vec())),
        ("zeros", |bytes| Some(vec![0; bytes.len()])),
        ("last byte", |mut bytes| {
            *bytes.last_mut()? ^= 4;
            Some(bytes)
        }),
        ("first byte", |mut bytes| {
            *bytes.first_mut()? ^= 64;
            Some(bytes)
        }),
    ]
}

#[test]
fn inv_l5_whatever_is_damaged_beside_the_log_after_a_clean_stop_is_rebuilt_from_it() {
    for segment_bytes in [1 << 30, 20_000] {
        for ending in [".index", ".timeindex", ".snapshot", "leader-epoch-checkpoint", "partition.metadata"] {
            for (what, ruin) in damages() {
                let stored = Stored::new(segment_bytes);
                let mut log = stored.clean();
                log.set_topic_id(TopicId(uuid::Uuid::from_u128(7 << 90))).unwrap();
                log.close_cleanly().unwrap();
                drop(log);
                let files = stored.files(ending);
                assert!(!files.is_empty());
                for path in files {
                    match ruin(std::fs::read(&path).unwrap()) {
                        Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                        None => std::fs::remove_file(&path).unwrap(),
                    }
                }
                let context = format!("{ending} {what}, segments of {segment_bytes}");
                let mut log = stored.clean();
                assert_eq!(log.log_end_offset(), BATCHES, "{context}");
                assert_eq!(log.leader_epochs().entries(), [(0, 0)], "{context}");
                assert_serves_all_but(&log, 0..0);
                for offset in [0, 17, BATCHES - 1] {
                    let found = log.timestamp_lookup().first_at_or_after(500_000 + offset).unwrap();
                    assert_eq!(found.map(|found| found.offset), Some(offset), "{context}");
                }
                // Retention uses the time index; no record is older than this.
                log.update_config(Arc::new(LogConfig {
                    retention_ms: 600_000,
                    segment_bytes,
                    ..stored.fixture.config.clone()
                }));
                assert_eq!(log.delete_old_segments(1_000_000, BATCHES).unwrap(), 0, "{context}");
                append_some(&stored, &mut log);
            }
        }
    }
}

#[test]
fn one_bad_batch_withholds_neither_those_before_nor_those_behind_it() {
    for (at, byte) in [(0, 16), (100, 9), (100, 16), (100, 70), (100, 200), (199, 9), (199, 70)] {
        for recovery_point in [None, Some(BATCHES)] {
            let stored = Stored::new(1 << 30);
            let path = stored.path("00000000000000000000.log");
            stored.flip(&path, stored.positions[at] + byte);
            let before = std::fs::read(&path).unwrap();
            let mut log = match recovery_point {
                None => stored.clean(),
                Some(recovery_point) => stored.killed(recovery_point).unwrap(),
            };
            assert_eq!(log.log_end_offset(), BATCHES, "batch {at}, byte {byte}");
            // A wrong length may hide the batch after it.
            assert_serves_all_but(&log, at as i64..at as i64 + 1);
            assert_eq!(std::fs::read(&path).unwrap(), before, "nothing is truncated");
            append_some(&stored, &mut log);
        }
    }
}

#[test]
fn a_log_that_lost_its_end_after_a_clean_stop_does_not_use_its_offsets_again() {
    let stored = Stored::new(1 << 30);
    let path = stored.path("00000000000000000000.log");
    let bytes = std::fs::read(&path).unwrap();
    for end in [0, stored.positions[20]] {
        std::fs::write(&path, &bytes[..end]).unwrap();
        let opened = stored.fixture.open(OpenLog { clean_shutdown: true, ..OpenLog::default() });
        assert!(matches!(opened, Err(LogError::Corrupt { .. })), "{:?}", opened.err());
    }
}

#[test]
fn checkpoints_that_say_more_than_the_log_has_cost_nothing_after_a_clean_stop() {
    let stored = Stored::new(1 << 30);
    for start in [
        OpenLog { clean_shutdown: true, recovery_point: 9000, ..OpenLog::default() },
        OpenLog { clean_shutdown: true, log_start_offset: 9000, ..OpenLog::default() },
    ] {
        let log = stored.fixture.open(start).unwrap();
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (0, BATCHES));
        assert_serves_all_but(&log, 0..0);
    }
}

#[test]
fn what_is_cut_although_good_batches_follow_is_kept_beside_the_log() {
    let stored = Stored::new(1 << 30);
    let path = stored.path("00000000000000000000.log");
    stored.flip(&path, stored.positions[100] + 70);
    let before = std::fs::read(&path).unwrap();
    let log = stored.killed(50).unwrap();
    assert_eq!(log.log_end_offset(), 100);
    let kept = stored.files(".cut");
    assert_eq!(kept.len(), 1);
    assert_eq!(std::fs::read(&kept[0]).unwrap(), before[stored.positions[100]..]);
    drop(log);
    assert_eq!(stored.killed(50).unwrap().log_end_offset(), 100, "the kept bytes are no part of the log");

    // The torn tail of a crash holds no whole batch.
    let stored = Stored::new(1 << 30);
    let path = stored.path("00000000000000000000.log");
    let torn = std::fs::read(&path).unwrap()[..stored.positions[150] + 100].to_vec();
    std::fs::write(&path, torn).unwrap();
    assert_eq!(stored.killed(50).unwrap().log_end_offset(), 150);
    assert_eq!(stored.files(".cut"), Vec::<PathBuf>::new());
}

#[test]
fn segments_behind_a_torn_one_are_kept_beside_the_log() {
    let stored = Stored::new(20_000);
    let segments = stored.files(".log");
    stored.flip(&segments[1], 70);
    let behind: Vec<_> = segments[2..].iter().map(|path| std::fs::read(path).unwrap()).collect();
    let log = stored.killed(0).unwrap();
    assert!(log.log_end_offset() < BATCHES);
    let kept: Vec<_> = stored.files(".cut").iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert_eq!(kept[1..], behind[..], "the first file is the rest of the torn segment");
    assert_eq!(stored.files(".log").len(), 2);
}

#[test]
fn where_the_acknowledged_was_synced_a_bad_batch_before_good_ones_is_no_torn_write() {
    let open = |stored: &Stored| {
        stored.fixture.open(OpenLog { recovery_point: 50, acknowledged_is_synced: true, ..OpenLog::default() })
    };
    for at in [20, 100, 198] {
        let stored = Stored::new(1 << 30);
        let path = stored.path("00000000000000000000.log");
        stored.flip(&path, stored.positions[at] + 70);
        let before = std::fs::read(&path).unwrap();
        let refused = open(&stored);
        // Bytes before the newest index entry below the recovery point are not read.
        assert!(matches!(refused, Err(LogError::Corrupt { .. })) || at == 20, "{at}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
    // First a batch that was being written; then sectors that never reached the disk although later ones did.
    for torn in [stored_cut as fn(&Stored), stored_unwritten] {
        let stored = Stored::new(1 << 30);
        torn(&stored);
        let log = open(&stored).unwrap();
        assert_eq!(log.log_end_offset(), 150);
    }
}

fn stored_cut(stored: &Stored) {
    let path = stored.path("00000000000000000000.log");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..stored.positions[150] + 100]).unwrap();
}

fn stored_unwritten(stored: &Stored) {
    let path = stored.path("00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let sector = stored.positions[150].next_multiple_of(512);
    bytes[stored.positions[150]..sector + 512].fill(0);
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn a_damaged_transaction_index_is_rebuilt_after_a_clean_stop() {
    use crate::protocol::record_batch::{BatchBuilder, BatchOptions};
    let fixture = Fixture::new();
    let options = BatchOptions { producer_id: 1, producer_epoch: 0, transactional: true, ..BatchOptions::default() };
    let mut log = fixture.clean();
    for sequence in 0..3 {
        let batch = tests::batch(BatchOptions { base_sequence: sequence, ..options }, 1, b"v", 1);
        fixture.append(&mut log, batch).unwrap();
        let mut marker = BatchBuilder::new(BatchOptions { control: true, ..options });
        marker.append(1, Some(&[0, 0, 0, 0]), Some(&[0, 0, 0, 0, 0, 1]), &[]);
        let marker = ValidatedBatch::from_broker(marker.build(), AppendOrigin::Coordinator);
        log.append_as_leader(marker, 0, 1).unwrap();
    }
    let expected = log.read(0, 1, Offset::MAX, true).unwrap().aborted_transactions(6).unwrap();
    assert_eq!(expected.len(), 3);
    log.close_cleanly().unwrap();
    drop(log);
    let path = fixture.dir.path().join("t-0/00000000000000000000.txnindex");
    for (what, ruin) in damages().into_iter().filter(|(what, _)| !["removed", "emptied"].contains(what)) {
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, ruin(whole).unwrap()).unwrap();
        let mut log = fixture.clean();
        if what != "last byte" {
            // A wrong last stable offset in an entry cannot be detected.
            assert_eq!(log.read(0, 1, Offset::MAX, true).unwrap().aborted_transactions(6).unwrap(), expected, "{what}");
        }
        log.close_cleanly().unwrap();
    }
}

/// A checksum does not cover offsets, and only the metadata log has all of them.
#[test]
fn a_damaged_offset_in_the_metadata_log_is_not_taken_for_a_gap() {
    let stored = Stored::new(1 << 20);
    let partition = TopicPartition::new(CLUSTER_METADATA_TOPIC, 0);
    let dir = stored.fixture.dir.path().join(partition.to_string());
    std::fs::rename(stored.fixture.dir.path().join("t-0"), &dir).unwrap();
    let log_file = dir.join("00000000000000000000.log");
    let whole = std::fs::read(&log_file).unwrap();
    for byte in 0..8 {
        std::fs::write(&log_file, &whole).unwrap();
        stored.flip(&log_file, stored.positions[100] + byte);
        let config = Arc::new(stored.fixture.config.clone());
        let ctx = stored.fixture.ctx.clone();
        let log = Log::open(&ctx, &dir, partition.clone(), None, config, OpenLog::default()).unwrap();
        assert_eq!(log.log_end_offset(), 100, "byte {byte} of the offset");
    }
    for recovery_point in [0, 1, 100, 150, BATCHES] {
        std::fs::write(&log_file, &whole).unwrap();
        let (config, ctx) = (Arc::new(stored.fixture.config.clone()), stored.fixture.ctx.clone());
        let start = OpenLog { recovery_point, acknowledged_is_synced: true, ..OpenLog::default() };
        let log = Log::open(&ctx, &dir, partition.clone(), None, config, start).unwrap();
        assert_eq!(log.log_end_offset(), BATCHES, "from {recovery_point}");
    }
}
