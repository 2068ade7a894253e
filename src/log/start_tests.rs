//! Starts with log directories that are missing, emptied, broken or damaged.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use uuid::Uuid;

use super::{checkpoints::MetaProperties, flush::with_log, tests::plain, *};
use crate::{
    config::topic::LogConfig,
    env::{Disk, Env, Open, SystemNet, SystemRandom, Tasks},
    raft::MetadataLog,
    sim::{SimClock, SimDisk},
    types::{TopicId, TopicPartition},
};

const TOPIC_ID: TopicId = TopicId(Uuid::from_u128(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));

fn env(disk: &SimDisk) -> Env {
    Env {
        clock: Arc::new(SimClock::new(1_000_000)),
        disk: Arc::new(disk.clone()),
        net: Arc::new(SystemNet),
        random: Arc::new(SystemRandom::new()),
        tasks: Tasks::new(),
    }
}

fn try_open(disk: &SimDisk, dirs: &[&str]) -> Result<Arc<LogManager>, LogError> {
    LogManager::open(&env(disk), LogManagerConfig::new(dirs.iter().map(|dir| dir.into()).collect(), 1))
}

fn open(disk: &SimDisk, dirs: &[&str]) -> Arc<LogManager> {
    try_open(disk, dirs).unwrap()
}

fn refusal(disk: &SimDisk, dirs: &[&str]) -> String {
    try_open(disk, dirs).err().expect("the start is refused").to_string()
}

fn tp(name: &str) -> TopicPartition {
    TopicPartition::new(name, 0)
}

fn open_log(manager: &LogManager, name: &str, placement: Placement) -> Result<Arc<Mutex<Log>>, LogError> {
    let log = manager.open_log(&tp(name), Some(TOPIC_ID), Arc::new(LogConfig::default()), placement)?;
    let ctx = log.context().clone();
    let log = Arc::new(Mutex::new(log));
    let owner: Arc<dyn LogOwner> = log.clone();
    manager.register(&tp(name), &ctx, Arc::downgrade(&owner));
    Ok(log)
}

fn append(log: &Mutex<Log>) {
    let mut log = log.lock().unwrap();
    let (config, partition) = (log.config().clone(), log.partition().clone());
    let rules = ValidationRules::new(&partition, &config, 1_000_000, 9);
    log.append_as_leader(validate(plain(1, &[1; 100], 1_000_000), &rules).unwrap(), 0, 1_000_000).unwrap();
}

/// The path and the `directory.id` of a log's directory.
fn place(manager: &LogManager, log: &Mutex<Log>) -> (String, Uuid) {
    with_log(log, |log| (log.context().dir.to_str().unwrap().to_owned(), manager.directory_id_of(log).unwrap()))
}

fn existing(directory: Option<Uuid>, lacks_directory: bool) -> Placement {
    Placement::Existing { directory, lacks_directory }
}

#[test]
fn a_partition_whose_directory_is_not_there_is_not_made_anew() {
    let disk = SimDisk::new(1);
    let manager = open(&disk, &["/a", "/b"]);
    let logs: Vec<_> = ["t", "u"].iter().map(|name| open_log(&manager, name, Placement::New(None)).unwrap()).collect();
    let places: Vec<_> = logs.iter().map(|log| place(&manager, log)).collect();
    assert_ne!(places[0].0, places[1].0, "each directory has one log");
    append(&logs[1]);
    let (gone, kept) = (&places[1], &places[0]);
    manager.shutdown();
    drop((logs, manager));

    // The directory is not in log.dirs.
    let manager = open(&disk, &[&kept.0]);
    open_log(&manager, "t", existing(Some(kept.1), true)).unwrap();
    for noted in [Some(gone.1), None] {
        let refused = open_log(&manager, "u", existing(noted, true)).err();
        assert!(matches!(refused, Some(LogError::DirMissing { .. })), "{refused:?}");
    }
    assert!(!disk.exists(&Path::new(&kept.0).join("u-0")));
    drop(manager);

    // It is in log.dirs again.
    let manager = open(&disk, &["/a", "/b"]);
    let log = open_log(&manager, "u", existing(Some(gone.1), false)).unwrap();
    assert_eq!(log.lock().unwrap().log_end_offset(), 1);
    drop((log, manager));

    // It is empty, like a mount point whose volume is not mounted.
    disk.remove_dir_all(Path::new(&gone.0)).unwrap();
    let manager = open(&disk, &["/a", "/b"]);
    assert_eq!(manager.new_dirs().collect::<Vec<_>>(), [Path::new(&gone.0)]);
    let refused = open_log(&manager, "u", existing(Some(gone.1), true)).err();
    assert!(matches!(refused, Some(LogError::DirMissing { directory_id: Some(_) })), "{refused:?}");
}

#[test]
fn a_partition_that_was_committed_and_not_created_before_a_crash_is_created() {
    let disk = SimDisk::new(1);
    let manager = open(&disk, &["/a", "/b"]);
    let id = manager.directory_ids().next().unwrap().1;
    let (noted, not_noted) =
        (open_log(&manager, "t", existing(Some(id), false)), open_log(&manager, "u", existing(None, false)));
    assert_eq!(place(&manager, &noted.unwrap()).1, id);
    not_noted.unwrap();
}

#[test]
fn a_partition_whose_directory_was_removed_is_not_made_anew_if_it_is_known_to_have_held_records() {
    let disk = SimDisk::new(1);
    let manager = open(&disk, &["/a"]);
    let id = manager.directory_ids().next().unwrap().1;
    let logs = ["t", "u"].map(|name| open_log(&manager, name, Placement::New(None)).unwrap());
    logs.iter().for_each(|log| append(log));
    manager.shutdown();
    drop((logs, manager));
    disk.remove_dir_all(Path::new("/a/t-0")).unwrap();
    let manager = open(&disk, &["/a"]);
    let refused = open_log(&manager, "t", existing(Some(id), false)).err();
    assert!(matches!(refused, Some(LogError::Lost { offset: 1, .. })), "{refused:?}");
    // A deleted topic stays in the checkpoint for a while, and a new topic may already use its name.
    let log = open_log(&manager, "u", existing(Some(id), false)).unwrap();
    manager.delete_log(&tp("u"), &*log).unwrap();
    drop((log, manager));
    let manager = open(&disk, &["/a"]);
    open_log(&manager, "u", existing(Some(id), false)).unwrap();
    // The name of the lost partition can be used again.
    open_log(&manager, "t", Placement::New(Some(id))).unwrap();
}

#[test]
fn a_partition_that_is_in_two_directories_stops_the_start() {
    let disk = SimDisk::new(1);
    let manager = open(&disk, &["/a", "/b"]);
    drop(open_log(&manager, "t", Placement::New(None)).unwrap());
    drop(manager);
    for (dir, id) in [("/a", TOPIC_ID), ("/b", TOPIC_ID)] {
        disk.create_dir_all(&Path::new(dir).join("t-0")).unwrap();
        let path = Path::new(dir).join("t-0/partition.metadata");
        checkpoints::write_unsynced(&disk, &path, checkpoints::partition_metadata_text(id).as_bytes()).unwrap();
    }
    let refused = refusal(&disk, &["/a", "/b"]);
    assert!(refused.contains("/b/t-0") && refused.contains("/a/t-0"), "{refused}");
    // A partition of an earlier topic of the same name is no copy.
    let other = checkpoints::partition_metadata_text(TopicId(Uuid::from_u128(!0)));
    checkpoints::write_unsynced(&disk, Path::new("/a/t-0/partition.metadata"), other.as_bytes()).unwrap();
    let manager = open(&disk, &["/a", "/b"]);
    let log = open_log(&manager, "t", existing(None, false)).unwrap();
    assert_eq!(place(&manager, &log).0, "/b");
    assert!(!disk.exists(Path::new("/a/t-0")), "it was set aside");
}

#[test]
fn one_broken_directory_does_not_stop_the_start() {
    let disk = SimDisk::new(1);
    let manager = open(&disk, &["/a", "/b"]);
    let logs: Vec<_> = ["t", "u"].iter().map(|name| open_log(&manager, name, Placement::New(None)).unwrap()).collect();
    let (_, b) = manager.directory_ids().find(|(path, _)| *path == Path::new("/b")).unwrap();
    let (in_a, in_b) = if place(&manager, &logs[0]).0 == "/a" { ("t", "u") } else { ("u", "t") };
    drop((logs, manager));
    disk.rename(Path::new("/b"), Path::new("/elsewhere")).unwrap();
    disk.open(Path::new("/b"), Open::CreateNew).unwrap();
    let manager = open(&disk, &["/a", "/b"]);
    assert_eq!((manager.offline_dirs(), manager.is_offline()), (1, false));
    assert_eq!(manager.offline_dir_paths().collect::<Vec<_>>(), [Path::new("/b")]);
    assert_eq!(manager.directory_ids().count(), 1);
    open_log(&manager, in_a, existing(None, false)).unwrap();
    for noted in [Some(b), None] {
        assert!(open_log(&manager, in_b, existing(noted, false)).is_err());
    }
    open_log(&manager, "new", Placement::New(None)).unwrap();
    assert!(manager.describe().iter().any(|dir| dir.offline));
    drop(manager);
    // If it is the only directory, the start fails.
    assert!(refusal(&disk, &["/b"]).contains("/b"));
}

/// Runs the command in `message` that writes `meta.properties`.
fn follow(disk: &SimDisk, message: &str) {
    let (text, path) = message.split_once("printf '").unwrap().1.split_once("' > ").unwrap();
    checkpoints::write_unsynced(disk, Path::new(path), text.replace("\\n", "\n").as_bytes()).unwrap();
}

#[test]
fn a_directory_with_partitions_and_without_identity_is_never_taken_for_a_fresh_one() {
    let path = Path::new("/a").join(MetaProperties::FILE_NAME);
    for is_removed in [true, false] {
        let disk = SimDisk::new(1);
        let manager = open(&disk, &["/a"]);
        let id = manager.directory_ids().next().unwrap().1;
        append(&open_log(&manager, "t", Placement::New(None)).unwrap());
        drop(manager);
        if is_removed {
            disk.remove_file(&path).unwrap();
        } else {
            disk.flip_byte(&path, 40).unwrap();
        }
        for _ in 0..2 {
            let refused = refusal(&disk, &["/a"]);
            assert!(refused.contains("1 partitions (t-0)") && refused.contains("Nothing was changed"), "{refused}");
        }
        follow(&disk, &refusal(&disk, &["/a"]));
        let manager = open(&disk, &["/a"]);
        // The directory has a new id, and the partition is found nevertheless.
        assert_ne!(manager.directory_ids().next().unwrap().1, id);
        let log = open_log(&manager, "t", existing(Some(id), true)).unwrap();
        assert_eq!(log.lock().unwrap().log_end_offset(), 1);
    }
    // A directory that only has a name like a partition is none.
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/a/backup-2")).unwrap();
    assert!(open(&disk, &["/a"]).is_new_cluster());
}

#[test]
fn a_node_of_a_quorum_keeps_its_directories_and_takes_the_id_of_the_cluster_later() {
    let disk = SimDisk::new(1);
    let dirs = || LogManagerConfig { is_alone: false, ..LogManagerConfig::new(vec!["/a".into(), "/b".into()], 1) };
    let env = env(&disk);
    let ids = |manager: &LogManager| manager.directory_ids().map(|(_, id)| id).collect::<Vec<_>>();
    let manager = LogManager::open(&env, dirs()).unwrap();
    let first = ids(&manager);
    assert_eq!((manager.cluster_id(), manager.is_new_cluster()), (None, true));
    drop(manager);
    disk.crash();
    let manager = LogManager::open(&env, dirs()).unwrap();
    assert_eq!((manager.cluster_id(), ids(&manager)), (None, first.clone()));
    manager.adopt_cluster_id("4L6g3nShT-eMCtK--X86sw").unwrap();
    manager.adopt_cluster_id("another").unwrap();
    drop(manager);
    disk.crash();
    let manager = LogManager::open(&env, dirs()).unwrap();
    assert_eq!((manager.cluster_id().as_deref(), ids(&manager)), (Some("4L6g3nShT-eMCtK--X86sw"), first));
    let other = LogManagerConfig { cluster_id: Some("another".into()), ..dirs() };
    drop(manager);
    assert!(LogManager::open(&env, other).err().unwrap().to_string().contains("belongs to cluster 4L6g3nShT"));
}

fn with_metadata_dir(disk: &SimDisk) -> Result<Arc<LogManager>, LogError> {
    let config = LogManagerConfig::new(vec!["/a".into(), "/b".into()], 1);
    LogManager::open(&env(disk), LogManagerConfig { metadata_dir: Some("/m".into()), ..config })
}

fn open_metadata_log(disk: &SimDisk, manager: &LogManager) -> Result<MetadataLog, LogError> {
    MetadataLog::open(&env(disk), manager, LogConfig::default(), false, false)
}

#[test]
fn a_metadata_directory_outside_the_log_directories_holds_the_metadata_log_and_nothing_else() {
    let disk = SimDisk::new(1);
    let manager = with_metadata_dir(&disk).unwrap();
    let log = open_metadata_log(&disk, &manager).unwrap();
    assert_eq!(log.dir(), Path::new("/m/__cluster_metadata-0"));
    let own = manager.metadata_directory_id(&log.dir()).expect("the directory has an id");
    let of_data: Vec<_> = manager.directory_ids().map(|(path, id)| (path.to_owned(), id)).collect();
    assert_eq!(of_data.iter().map(|(path, _)| path.as_path()).collect::<Vec<_>>(), [Path::new("/a"), Path::new("/b")]);
    assert!(of_data.iter().all(|(_, id)| *id != own));
    assert!(manager.describe().iter().all(|dir| dir.path != Path::new("/m")));
    for at in 0..6 {
        assert_ne!(place(&manager, &open_log(&manager, &format!("t{at}"), Placement::New(None)).unwrap()).0, "/m");
    }
    // It is locked like the others.
    assert!(matches!(with_metadata_dir(&disk).err(), Some(LogError::Locked { .. })));
    manager.set_broker_epoch(5);
    manager.shutdown();
    drop((log, manager));
    // Apache Kafka neither removes nor writes the mark of a clean stop there.
    assert!(!disk.exists(Path::new("/m/.kafka_cleanshutdown")));
    let manager = with_metadata_dir(&disk).unwrap();
    assert_eq!((manager.previous_broker_epoch(), manager.was_clean_shutdown()), (5, true));
    assert_eq!(manager.metadata_directory_id(Path::new("/m/__cluster_metadata-0")), Some(own));
}

#[test]
fn a_metadata_directory_that_was_emptied_or_is_missing_is_not_begun_anew() {
    for has_partitions in [false, true] {
        for is_missing in [false, true] {
            let disk = SimDisk::new(1);
            let manager = with_metadata_dir(&disk).unwrap();
            let log = open_metadata_log(&disk, &manager).unwrap();
            let dirs = [log.dir()];
            if has_partitions {
                open_log(&manager, "t", Placement::New(None)).unwrap();
            }
            manager.shutdown();
            drop((log, manager));
            disk.remove_dir_all(&dirs[0]).unwrap();
            disk.remove_file(Path::new("/m/meta.properties")).unwrap();
            if is_missing {
                disk.remove_dir_all(Path::new("/m")).unwrap();
            }
            let manager = with_metadata_dir(&disk).unwrap();
            let refused = open_metadata_log(&disk, &manager).err().expect("the start is refused").to_string();
            let proof = if has_partitions { "1 partitions (t-0)" } else { "metadata.log.dir is empty" };
            assert!(refused.contains(proof) && refused.contains("ottla.accept.metadata.loss"), "{refused}");
        }
    }
}

#[test]
fn a_metadata_directory_that_is_foreign_doubled_misplaced_or_broken_stops_the_start() {
    let refusal = |disk: &SimDisk| with_metadata_dir(disk).err().expect("the start is refused").to_string();
    let meta = Path::new("/m/meta.properties");
    let fresh = || {
        let disk = SimDisk::new(1);
        let manager = with_metadata_dir(&disk).unwrap();
        drop(open_metadata_log(&disk, &manager).unwrap());
        disk
    };
    // It belongs to another cluster or to another node.
    for (node_id, what) in [(1, "belongs to cluster other"), (2, "belongs to node.id 2")] {
        let disk = fresh();
        let text = format!("version=1\ncluster.id=other\nnode.id={node_id}\ndirectory.id=AAAAAAAAAAAAAAAAAAAABQ\n");
        checkpoints::write_unsynced(&disk, meta, text.as_bytes()).unwrap();
        disk.remove_file(Path::new("/b/meta.properties")).unwrap();
        let refused = refusal(&disk);
        assert!(refused.contains(what) || refused.contains("not to other"), "{refused}");
    }
    // Its identity is gone, but its log is there.
    let disk = fresh();
    checkpoints::write_unsynced(&disk, Path::new("/m/__cluster_metadata-0/1.log"), b"x").unwrap();
    disk.remove_file(meta).unwrap();
    assert!(refusal(&disk).contains("__cluster_metadata-0"));
    // The log is in two directories.
    let disk = fresh();
    disk.create_dir_all(Path::new("/a/__cluster_metadata-0")).unwrap();
    let refused = refusal(&disk);
    assert!(refused.contains("/m/__cluster_metadata-0") && refused.contains("/a/__cluster_metadata-0"), "{refused}");
    // The log is where it was before the setting was changed.
    let disk = fresh();
    disk.remove_dir_all(Path::new("/m")).unwrap();
    disk.create_dir_all(Path::new("/b/__cluster_metadata-0")).unwrap();
    assert!(refusal(&disk).contains("Move it there, with a copy of meta.properties"));
    // The directory was one of log.dirs.
    let disk = fresh();
    disk.create_dir_all(Path::new("/m/t-0")).unwrap();
    assert!(refusal(&disk).contains("holds partitions of topics (t-0)"));
    // It is no directory.
    let disk = fresh();
    disk.remove_dir_all(Path::new("/m")).unwrap();
    disk.open(Path::new("/m"), Open::CreateNew).unwrap();
    assert!(refusal(&disk).contains("/m"));
    // A broken data directory does not stop it.
    let disk = fresh();
    disk.remove_dir_all(Path::new("/b")).unwrap();
    disk.open(Path::new("/b"), Open::CreateNew).unwrap();
    let manager = with_metadata_dir(&disk).unwrap();
    assert_eq!((manager.offline_dirs(), manager.is_offline(), manager.has_metadata_dir_failed()), (1, false, false));
    open_metadata_log(&disk, &manager).unwrap();
}

#[test]
fn a_directory_with_partitions_that_joins_others_is_not_taken_for_a_fresh_one() {
    let disk = SimDisk::new(1);
    let manager = open(&disk, &["/a", "/b"]);
    let cluster_id = manager.cluster_id().expect("a node alone chooses it");
    for name in ["t", "u"] {
        open_log(&manager, name, Placement::New(None)).unwrap();
    }
    drop(manager);
    disk.remove_file(Path::new("/b/meta.properties")).unwrap();
    let refused = refusal(&disk, &["/a", "/b"]);
    assert!(refused.contains(&format!("cluster.id={cluster_id}")), "{refused}");
    follow(&disk, &refused);
    let manager = open(&disk, &["/a", "/b"]);
    assert_eq!((manager.cluster_id(), manager.is_new_cluster()), (Some(cluster_id), false));
}

#[test]
fn a_damaged_checkpoint_does_not_stop_the_start() {
    for name in ["recovery-point-offset-checkpoint", "log-start-offset-checkpoint", "replication-offset-checkpoint"] {
        for is_clean in [true, false] {
            let disk = SimDisk::new(1);
            let manager = open(&disk, &["/a"]);
            let log = open_log(&manager, "t", Placement::New(None)).unwrap();
            append(&log);
            manager.shutdown();
            drop((log, manager));
            checkpoints::write_unsynced(&disk, &Path::new("/a").join(name), b"0\n7\nt").unwrap();
            if !is_clean {
                disk.remove_file(Path::new("/a/.kafka_cleanshutdown")).unwrap();
            }
            let manager = open(&disk, &["/a"]);
            let log = open_log(&manager, "t", existing(None, false)).unwrap();
            assert_eq!(log.lock().unwrap().log_end_offset(), 1);
        }
    }
}

#[test]
fn a_changed_bit_in_a_topic_id_does_not_cost_the_partition() {
    let text = checkpoints::partition_metadata_text(TOPIC_ID);
    for bit in 0..text.len() * 8 {
        let disk = SimDisk::new(1);
        let manager = open(&disk, &["/a"]);
        append(&open_log(&manager, "t", Placement::New(None)).unwrap());
        drop(manager);
        let mut damaged = text.clone().into_bytes();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let path = Path::new("/a/t-0/partition.metadata");
        checkpoints::write_unsynced(&disk, path, &damaged).unwrap();
        let manager = open(&disk, &["/a"]);
        let log = open_log(&manager, "t", existing(None, false)).unwrap();
        assert_eq!(log.lock().unwrap().log_end_offset(), 1, "bit {bit}");
        assert_eq!(checkpoints::parse_partition_metadata(&disk.read(path).unwrap()), Some(TOPIC_ID), "bit {bit}");
    }
}

#[test]
fn inv_l4_what_was_flushed_in_a_fresh_directory_survives_with_the_directory() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let manager = open(&disk, &["/var/lib/ottla/a"]);
        let log = open_log(&manager, "t", Placement::New(None)).unwrap();
        append(&log);
        flush_through(&*log, 1).unwrap();
        drop((log, manager));
        disk.crash();
        let manager = open(&disk, &["/var/lib/ottla/a"]);
        assert!(!manager.is_new_cluster(), "seed {seed}");
        let log = open_log(&manager, "t", existing(None, false)).unwrap();
        assert_eq!(log.lock().unwrap().log_end_offset(), 1, "seed {seed}");
    }
}

#[test]
fn what_recovery_has_checked_becomes_durable_with_one_sync_where_readers_wait_for_it() {
    let disk = SimDisk::new(1);
    let config = |flush_messages| Arc::new(LogConfig { flush_messages, ..LogConfig::default() });
    let logs = |manager: &LogManager, flush_messages| -> Vec<Arc<Mutex<Log>>> {
        (0..100)
            .map(|at| {
                let partition = TopicPartition::new("t", at);
                let log =
                    manager.open_log(&partition, Some(TOPIC_ID), config(flush_messages), Placement::New(None)).unwrap();
                let ctx = log.context().clone();
                let log = Arc::new(Mutex::new(log));
                let owner: Arc<dyn LogOwner> = log.clone();
                manager.register(&partition, &ctx, Arc::downgrade(&owner));
                log
            })
            .collect()
    };
    let manager = open(&disk, &["/a"]);
    for log in logs(&manager, 1) {
        append(&log);
        flush_through(&*log, 1).unwrap();
    }
    drop(manager);
    disk.crash();
    for flush_messages in [i64::MAX, 1] {
        let manager = open(&disk, &["/a"]);
        let opened = logs(&manager, flush_messages);
        let syncs = disk.syncs();
        manager.sync_recovered();
        assert_eq!(disk.syncs() - syncs, u64::from(flush_messages == 1));
        for log in &opened {
            assert_eq!(log.lock().unwrap().visible_end_offset(), 1);
        }
        drop((opened, manager));
    }
}
