//! Tests of the log directories and their background work on a simulated disk and clock.

use super::{
    background::{Due, checkpoint},
    *,
};
use crate::{
    env::{Disk, Open, SystemNet, SystemRandom, Tasks},
    log::{ValidationRules, checkpoints::CLEAN_SHUTDOWN_FILE, flush_through, tests::plain, validate},
    sim::{SimClock, SimDisk, disk::Faults},
};

pub(super) fn env(disk: &SimDisk, clock: &SimClock) -> Env {
    Env {
        clock: Arc::new(clock.clone()),
        disk: Arc::new(disk.clone()),
        net: Arc::new(SystemNet),
        random: Arc::new(SystemRandom::new()),
        tasks: Tasks::new(),
    }
}

fn two_dirs() -> LogManagerConfig {
    LogManagerConfig::new(vec!["/a".into(), "/b".into()], 1)
}

fn tp(name: &str) -> TopicPartition {
    TopicPartition::new(name, 0)
}

fn append(log: &Mutex<Log>, now_ms: i64) {
    let mut log = log.lock().unwrap();
    let config = log.config().clone();
    let partition = log.partition().clone();
    let batch = validate(plain(1, &[1; 500], now_ms), &ValidationRules::new(&partition, &config, now_ms, 9)).unwrap();
    log.append_as_leader(batch, 0, now_ms).unwrap();
}

pub(super) fn open(manager: &LogManager, name: &str, config: LogConfig) -> Arc<Mutex<Log>> {
    let log = manager.open_log(&tp(name), None, Arc::new(config), Placement::New(None)).unwrap();
    let ctx = log.context().clone();
    let log = Arc::new(Mutex::new(log));
    let owner: Arc<dyn LogOwner> = log.clone();
    manager.register(&tp(name), &ctx, Arc::downgrade(&owner));
    log
}

#[test]
fn a_fresh_directory_is_initialised_and_belongs_to_its_node_and_cluster_from_then_on() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(1000));
    let env = env(&disk, &clock);
    let manager = LogManager::open(&env, two_dirs()).unwrap();
    let cluster_id = manager.cluster_id();
    assert_eq!(cluster_id.as_ref().unwrap().len(), 22);
    let refused = LogManager::open(&env, two_dirs()).err().unwrap();
    assert!(matches!(&refused, LogError::Locked { dir } if dir == Path::new("/a")), "{refused}");
    assert!(refused.to_string().contains("in use by another process"));
    let ids: Vec<_> = manager.directory_ids().map(|(_, id)| id).collect();
    drop(manager);
    let again = LogManager::open(&env, two_dirs()).unwrap();
    assert_eq!(again.cluster_id(), cluster_id);
    assert_eq!(again.directory_ids().map(|(_, id)| id).collect::<Vec<_>>(), ids);
    drop(again);
    let other = LogManagerConfig { node_id: 2, ..two_dirs() };
    assert!(LogManager::open(&env, other).err().unwrap().to_string().contains("belongs to node.id 1"));
    let other = LogManagerConfig { cluster_id: Some("x".into()), ..two_dirs() };
    assert!(LogManager::open(&env, other).err().unwrap().to_string().contains("belongs to cluster"));
}

#[test]
fn new_logs_go_where_the_fewest_are() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(1000));
    let manager = LogManager::open(&env(&disk, &clock), two_dirs()).unwrap();
    let _logs: Vec<_> = (0..6).map(|index| open(&manager, &format!("t{index}"), LogConfig::default())).collect();
    assert!(manager.describe().iter().all(|dir| dir.logs.len() == 3 && !dir.offline));
    let mut partitions: Vec<_> = manager.partition_dirs().unwrap().into_iter().map(|(_, tp)| tp).collect();
    partitions.sort();
    assert_eq!(partitions.len(), 6);
    assert_eq!(partitions[5], tp("t5"));
}

#[test]
fn c6_a_clean_stop_proves_itself_by_the_broker_epoch_in_all_directories() {
    let (disk, clock) = (SimDisk::new(7), SimClock::new(1_000_000));
    let env = env(&disk, &clock);
    let start = |dirs: &[&str]| {
        let dirs = dirs.iter().map(|dir| dir.into()).collect();
        LogManager::open(&env, LogManagerConfig::new(dirs, 1)).unwrap()
    };
    let stop = |manager: Arc<LogManager>, epoch: i64| {
        manager.set_broker_epoch(epoch);
        manager.shutdown();
    };
    let manager = start(&["/a", "/b"]);
    assert_eq!(manager.previous_broker_epoch(), -1, "a new broker");
    stop(manager, 17);
    let manager = start(&["/a", "/b"]);
    assert_eq!(manager.previous_broker_epoch(), 17);
    drop(manager);
    let manager = start(&["/a", "/b"]);
    assert_eq!(manager.previous_broker_epoch(), -1, "the last process was killed");
    stop(manager, 18);
    stop(start(&["/a"]), 19);
    let manager = start(&["/a", "/b"]);
    assert_eq!((manager.previous_broker_epoch(), manager.was_clean_shutdown()), (-1, true), "/b is older");
    drop(manager);
    for content in ["", "{}", "{\"version\":0,\"brokerEpoch\":\"x\"}", "\u{0}"] {
        disk.write_atomically(Path::new("/a/.kafka_cleanshutdown"), content.as_bytes()).unwrap();
        let manager = start(&["/a"]);
        assert_eq!((manager.previous_broker_epoch(), manager.was_clean_shutdown()), (-1, true), "{content}");
    }
}

#[test]
fn inv_l4_after_a_clean_stop_nothing_is_recovered_and_after_a_crash_nothing_flushed_is_missing() {
    for clean in [true, false] {
        let (disk, clock) = (SimDisk::new(7), SimClock::new(1_000_000));
        let env = env(&disk, &clock);
        let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
        let log = open(&manager, "t", LogConfig::default());
        for _ in 0..5 {
            append(&log, 1_000_000);
        }
        flush_through(&*log, 3).unwrap();
        append(&log, 1_000_000);
        if clean {
            manager.shutdown();
        } else {
            clock.advance(Duration::from_secs(60));
            manager.tick();
        }
        drop((log, manager));
        disk.crash();
        let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
        assert_eq!(manager.was_clean_shutdown(), clean);
        assert!(!disk.exists(Path::new("/a/.kafka_cleanshutdown")), "the clean-shutdown file is valid once");
        let log = open(&manager, "t", LogConfig::default());
        let end = log.lock().unwrap().log_end_offset();
        assert!(end == 6 || !clean && end == 5, "{end}");
    }
}

#[test]
fn flush_ms_and_rolled_segments_become_durable_by_themselves() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
    let manager = LogManager::open(&env(&disk, &clock), LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
    let timed = open(&manager, "timed", LogConfig { flush_ms: 1000, ..LogConfig::default() });
    let rolled = open(&manager, "rolled", LogConfig { segment_bytes: 600, ..LogConfig::default() });
    for _ in 0..3 {
        append(&timed, 1_000_000);
        append(&rolled, 1_000_000);
    }
    manager.tick();
    assert_eq!(rolled.lock().unwrap().recovery_point(), 2, "all but the active segment");
    assert_eq!(timed.lock().unwrap().recovery_point(), 0);
    clock.advance(Duration::from_millis(1010));
    manager.tick();
    assert_eq!(timed.lock().unwrap().recovery_point(), 3);
    let syncs = disk.syncs();
    for _ in 0..100 {
        clock.advance(Duration::from_secs(1));
        manager.tick();
    }
    assert_eq!(disk.syncs(), syncs + 2, "two checkpoints have changed, and an idle broker writes nothing");
}

#[test]
fn retention_runs_and_deleted_files_go_after_their_delay() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
    let manager = LogManager::open(&env(&disk, &clock), LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
    let config =
        LogConfig { segment_bytes: 600, retention_ms: 60_000, file_delete_delay_ms: 5000, ..LogConfig::default() };
    let log = open(&manager, "t", config);
    for _ in 0..3 {
        append(&log, 1_000_000);
    }
    clock.advance(Duration::from_secs(29));
    manager.tick();
    assert_eq!(log.lock().unwrap().log_start_offset(), 0);
    clock.advance(Duration::from_secs(300));
    manager.tick();
    assert_eq!(with_log(&*log, |log| (log.log_start_offset(), log.log_end_offset())), (3, 3));
    let deleted =
        || disk.list(Path::new("/a/t-0")).unwrap().iter().filter(|entry| entry.name.ends_with(".deleted")).count();
    assert!(deleted() >= 3);
    clock.advance(Duration::from_secs(5));
    manager.tick();
    assert_eq!(deleted(), 0);

    manager.delete_log(&tp("t"), &*log).unwrap();
    assert!(!disk.exists(Path::new("/a/t-0")));
    assert!(manager.partition_dirs().unwrap().is_empty());
    // Retention may have taken its list of logs just before.
    let late = with_log(&*log, |log| log.delete_old_segments(i64::MAX, 3));
    assert_eq!(late.unwrap(), 0);
    clock.advance(Duration::from_secs(5));
    manager.tick();
    assert!(disk.list(Path::new("/a")).unwrap().iter().all(|entry| !entry.is_dir));
}

#[test]
fn a_delete_waits_for_the_flush_under_way_and_ends_those_behind_it() {
    // A real disk: its fsync takes long enough to overlap with the delete.
    let directory = tempfile::tempdir().unwrap();
    let env = Env { disk: Arc::new(crate::env::disk::SystemDisk), ..env(&SimDisk::new(1), &SimClock::new(1_000_000)) };
    let manager = LogManager::open(&env, LogManagerConfig::new(vec![directory.path().into()], 1)).unwrap();
    for _ in 0..20 {
        let log = open(&manager, "t", LogConfig { segment_bytes: 600, ..LogConfig::default() });
        for _ in 0..5 {
            append(&log, 1_000_000);
        }
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| flush_through(&*log, 5).unwrap());
            }
            manager.delete_log(&tp("t"), &*log).unwrap();
        });
        assert!(!manager.dirs[0].ctx.is_offline());
        assert!(!directory.path().join("t-0").exists());
    }
}

#[tokio::test]
async fn the_topic_ids_of_new_partitions_are_soon_durable() {
    for partitions in [2, super::super::context::IDS_SYNCED_ONE_BY_ONE + 2] {
        let disk = SimDisk::new(1);
        let env = env(&disk, &SimClock::new(1_000_000));
        let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
        manager.start();
        let open = |index| {
            let name = TopicPartition::new("t", i32::try_from(index).unwrap());
            manager.open_log(&name, topic_id(3), Arc::default(), Placement::New(None)).unwrap()
        };
        let logs: Vec<_> = (0..partitions).map(open).collect();
        let ctx = manager.dirs[0].ctx.clone();
        crate::sim::until("the ids are synced", || ctx.synced_ids() == partitions).await;
        disk.crash();
        for index in 0..logs.len() {
            let dir = format!("/a/t-{index}");
            assert_eq!(topic_id_in(&disk, Path::new(&dir)).unwrap(), topic_id(3), "{dir}");
        }
        env.tasks.shutdown().await;
    }
}

#[test]
fn the_topic_ids_of_new_partitions_are_synced_later_if_no_file_can_be_opened() {
    let disk = SimDisk::new(1);
    let manager = LogManager::open(&env(&disk, &SimClock::new(1_000_000)), LogManagerConfig::new(vec!["/a".into()], 1));
    let manager = manager.unwrap();
    let _logs =
        ["t", "u"].map(|name| manager.open_log(&tp(name), topic_id(3), Arc::default(), Placement::New(None)).unwrap());
    let ctx = manager.dirs[0].ctx.clone();
    disk.set_faults(Faults { fail_open: Some(0), ..Faults::default() });
    assert!(!ctx.sync_topic_ids());
    disk.set_faults(Faults::default());
    assert!(ctx.sync_topic_ids());
    assert_eq!(ctx.synced_ids(), 2);
}

fn topic_id(id: u128) -> Option<TopicId> {
    // As different from one another as random ids.
    Some(TopicId(Uuid::from_u128(id.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))))
}

fn names(disk: &SimDisk, suffix: &str) -> usize {
    disk.list(Path::new("/a")).unwrap().iter().filter(|entry| entry.name.ends_with(suffix)).count()
}

#[test]
fn what_no_topic_has_is_set_aside_and_a_name_can_be_used_again() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
    let manager = LogManager::open(&env(&disk, &clock), LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
    let config = || Arc::new(LogConfig::default());
    for (name, id) in [("known", 1), ("gone", 2), ("other-id", 3)] {
        manager.open_log(&tp(name), topic_id(id), config(), Placement::New(None)).unwrap();
    }
    // A broker that was killed after its topic was deleted and before its directory was.
    manager.set_aside_strays(|partition, id| &*partition.topic == "known" || id == topic_id(3)).unwrap();
    assert_eq!((names(&disk, "-stray"), names(&disk, "-0")), (1, 2));
    let log = manager.open_log(&tp("other-id"), topic_id(4), config(), Placement::New(None)).unwrap();
    assert_eq!((log.topic_id(), log.log_end_offset()), (topic_id(4), 0));
    assert_eq!(names(&disk, "-stray"), 2);
    // A log that cannot be opened is deleted with its topic nevertheless.
    manager.delete_closed_log(&tp("known")).unwrap();
    manager.delete_closed_log(&tp("never-there")).unwrap();
    assert_eq!((names(&disk, "-delete"), names(&disk, "-0")), (1, 1));
    manager.tick();
    assert_eq!(names(&disk, "-delete"), 0);
}

#[test]
fn inv_l4_a_log_that_was_refused_is_refused_again_after_a_clean_stop() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
    let env = env(&disk, &clock);
    let config = || LogManagerConfig::new(vec!["/a".into()], 1);
    let manager = LogManager::open(&env, config()).unwrap();
    let log = open(&manager, "t", LogConfig::default());
    append(&log, 1);
    log.lock().unwrap().flush().unwrap();
    clock.advance(Duration::from_secs(60));
    manager.tick();
    drop((log, manager));
    disk.crash();
    disk.remove_file(Path::new("/a/t-0/00000000000000000000.log")).unwrap();
    for _ in 0..2 {
        let manager = LogManager::open(&env, config()).unwrap();
        let refused = manager.open_log(&tp("t"), None, Arc::new(LogConfig::default()), Placement::New(None));
        assert!(matches!(refused, Err(LogError::Corrupt { .. })), "{:?}", refused.err());
        manager.shutdown();
        assert!(!disk.exists(Path::new("/a").join(CLEAN_SHUTDOWN_FILE).as_path()));
    }
}

#[test]
fn deleting_logs_writes_no_checkpoint_and_a_late_one_says_nothing_of_them() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
    let env = env(&disk, &clock);
    let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
    let logs: Vec<_> = (0..50).map(|index| open(&manager, &format!("t{index}"), LogConfig::default())).collect();
    for log in &logs {
        append(log, 1);
        log.lock().unwrap().flush().unwrap();
    }
    let dir = &manager.dirs[0];
    checkpoint(dir, &manager.logs_in_dir(dir), &Due::all()).unwrap();
    let stale = manager.logs_in_dir(dir);
    let syncs = disk.syncs();
    for (index, log) in logs.iter().enumerate() {
        manager.delete_log(&tp(&format!("t{index}")), &**log).unwrap();
    }
    assert_eq!(disk.syncs(), syncs);
    let again = open(&manager, "t7", LogConfig::default());
    // A tick that made its list of logs before the deletes.
    checkpoint(dir, &stale, &Due::all()).unwrap();
    drop((again, logs, stale, manager));
    disk.crash();
    let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
    assert_eq!(manager.dirs[0].ctx.recovery_points.get(&tp("t7")), None);
    assert_eq!(manager.dirs[0].ctx.recovery_points.get(&tp("t8")), None);
}

#[test]
fn what_runs_short_is_not_a_broken_disk() {
    use rustix::io::Errno;
    let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
    let manager = LogManager::open(&env(&disk, &clock), LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
    let ctx = &manager.dirs[0].ctx;
    let fault = |errno: Errno| LogError::io("open", Path::new("/a/t-0"))(errno.into());
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOSPC, Errno::DQUOT] {
        ctx.handle_io_error(fault(errno));
        assert!(!ctx.is_offline(), "{errno}");
    }
    ctx.handle_io_error(fault(Errno::IO));
    assert!(ctx.is_offline());
}

#[test]
fn what_is_deleted_goes_at_once_where_there_is_no_room_for_a_new_name() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
    let manager = LogManager::open(&env(&disk, &clock), LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
    let config = LogConfig { segment_bytes: 600, retention_ms: 60_000, ..LogConfig::default() };
    let log = open(&manager, "t", config);
    for _ in 0..3 {
        append(&log, 1_000_000);
    }
    disk.set_capacity(0);
    disk.set_faults(Faults { no_space_for_names: true, ..Default::default() });
    clock.advance(Duration::from_secs(400));
    manager.tick();
    assert_eq!(with_log(&*log, |log| log.log_start_offset()), 2);
    assert!(!disk.exists(Path::new("/a/t-0/00000000000000000000.log")));
    let plan = log.lock().unwrap().read(2, 1000, Offset::MAX, true).unwrap();
    manager.delete_log(&tp("t"), &*log).unwrap();
    assert!(!disk.exists(Path::new("/a/t-0")) && !manager.is_offline());
    assert!(
        plan.records().and_then(|records| records.into_bytes().map_err(LogError::io("read", Path::new("/a")))).is_ok()
    );
    disk.create_dir_all(Path::new("/a/closed-0")).unwrap();
    manager.delete_closed_log(&tp("closed")).unwrap();
    assert!(!disk.exists(Path::new("/a/closed-0")));
}

#[test]
fn retention_makes_room_on_a_full_disk() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
    let manager = LogManager::open(&env(&disk, &clock), LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
    let config =
        LogConfig { segment_bytes: 600, retention_ms: 60_000, file_delete_delay_ms: 0, ..LogConfig::default() };
    let log = open(&manager, "t", config);
    for _ in 0..3 {
        append(&log, 1_000_000);
    }
    let start = || with_log(&*log, |log| log.log_start_offset());
    disk.set_capacity(0);
    clock.advance(Duration::from_secs(400));
    manager.tick();
    assert_eq!(start(), 2, "all but the segment whose end needs a new one");
    disk.set_capacity(u64::MAX);
    clock.advance(Duration::from_secs(400));
    manager.tick();
    assert_eq!(start(), 3);
    assert!(!manager.is_offline());
}

#[test]
fn a_topic_created_again_has_nothing_to_do_with_the_checkpoints_of_the_old_one() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
    let env = env(&disk, &clock);
    let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
    let log = open(&manager, "t", LogConfig::default());
    append(&log, 1);
    flush_through(&*log, 1).unwrap();
    clock.advance(Duration::from_secs(60));
    manager.tick();
    manager.delete_log(&tp("t"), &*log).unwrap();
    let log = open(&manager, "t", LogConfig::default());
    assert_eq!(log.lock().unwrap().log_end_offset(), 0);
    assert_eq!(manager.dirs[0].ctx.checkpointed_high_watermark(&tp("t")), None);
    drop((log, manager));
    disk.crash();
    let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
    assert_eq!(open(&manager, "t", LogConfig::default()).lock().unwrap().log_end_offset(), 0);
}

#[tokio::test]
async fn the_background_work_wakes_at_a_roll() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
    let env = env(&disk, &clock);
    let manager = LogManager::open(&env, LogManagerConfig::new(vec!["/a".into()], 1)).unwrap();
    let log = open(&manager, "t", LogConfig { segment_bytes: 600, ..LogConfig::default() });
    manager.start();
    append(&log, 1);
    append(&log, 1);
    crate::sim::until("the closed segment is flushed", || log.lock().unwrap().recovery_point() >= 1).await;
    env.tasks.shutdown().await;
}

#[test]
fn a_directory_that_fails_is_reported_once_and_the_other_goes_on() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
    let manager = LogManager::open(&env(&disk, &clock), two_dirs()).unwrap();
    let failed: Arc<Mutex<Vec<PathBuf>>> = Arc::default();
    let heard = failed.clone();
    manager.on_dir_failure(move |dir, _| heard.lock().unwrap().push(dir.to_owned()));
    let (a, b) = (open(&manager, "t", LogConfig::default()), open(&manager, "u", LogConfig::default()));
    append(&a, 1);
    append(&b, 1);
    disk.set_faults(crate::sim::disk::Faults { fail_sync: Some(1), ..Default::default() });
    assert!(flush_through(&*a, 1).is_err());
    assert!(flush_through(&*a, 1).is_err());
    flush_through(&*b, 1).unwrap();
    assert_eq!(*failed.lock().unwrap(), [PathBuf::from("/a")]);
    assert!(!manager.is_offline());
    manager.shutdown();
    assert!(!disk.exists(Path::new("/a/.kafka_cleanshutdown")));
    assert!(disk.exists(Path::new("/b/.kafka_cleanshutdown")));
    assert!(disk.open(Path::new("/b/recovery-point-offset-checkpoint"), Open::Read).is_ok());
}
