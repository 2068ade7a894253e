//! Tests of a whole broker on a simulated disk, called below its sockets.

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::{
    config::Arguments,
    controller::topics::{CreatableTopic, CreateTopics, DeleteTopics, TopicReference},
    coordinator::group::{CommitOffsetsRequest, CommitPartition, CommitTopic},
    env::Disk,
    log::{
        AppendOrigin, LogError, ValidatedBatch, ValidationRules, flush::with_log, flush_through, tests::plain, validate,
    },
    raft::CachedImage,
    replica::{Partition, PartitionError},
    sim::{SimDisk, disk::Faults, until},
    types::{GROUP_METADATA_TOPIC, TopicId},
};

/// The simulated disk. The stored copy of the metadata image is not used: sled writes to real files.
struct World {
    disk: SimDisk,
}

/// The parent of the log directories.
const ROOT: &str = "/data";

impl World {
    fn new(seed: u64) -> Self {
        World { disk: SimDisk::new(seed) }
    }

    /// A broker with these log directories.
    async fn start(&self, dirs: &[&str], overrides: &[&str]) -> Broker {
        self.try_start(dirs, overrides).await.unwrap()
    }

    async fn refusal(&self, dirs: &[&str], overrides: &[&str]) -> String {
        let refused = format!("{:#}", self.try_start(dirs, overrides).await.err().expect("the start is refused"));
        // The crash ends the process and its locks.
        self.disk.sync_volume(Path::new(ROOT)).unwrap();
        self.disk.crash();
        refused
    }

    async fn try_start(&self, dirs: &[&str], overrides: &[&str]) -> anyhow::Result<Broker> {
        let dirs: Vec<String> = dirs.iter().map(|dir| format!("{ROOT}/{dir}")).collect();
        let dirs = format!("log.dirs={}", dirs.join(","));
        let fixed = [&*dirs, "listeners=PLAINTEXT://127.0.0.1:0", "offsets.topic.num.partitions=1"];
        let overrides = fixed.iter().chain(overrides).map(|text| (*text).to_owned()).collect();
        let arguments = Arguments { config_files: Vec::new(), overrides };
        let settings = Settings::load(&arguments, [], &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
        let env = Env { disk: Arc::new(self.disk.clone()), ..Env::system() };
        let loggers = Arc::new(Loggers::new(Default::default(), |_| {}));
        Broker::start(settings, env, |_, _| CachedImage::none(), loggers).await
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(ROOT).join(name)
    }
}

fn append(parts: &Parts, partition: &Partition) {
    try_append(parts, partition).unwrap();
}

fn try_append(parts: &Parts, partition: &Partition) -> Result<(), PartitionError> {
    let batch = ValidatedBatch::from_broker(plain(1, b"v", 1000), AppendOrigin::Coordinator);
    partition.append_as_leader(batch, false, parts.env.clock.now_ms()).map(|_| ())
}

impl Broker {
    fn partition(&self, topic: &str) -> Arc<Partition> {
        self.parts.replica_manager.partition(topic, 0).unwrap()
    }

    fn produce(&self, topic: &str) {
        let partition = self.partition(topic);
        let config = partition.log_config();
        let rules = ValidationRules::new(partition.topic_partition(), &config, 1000, 9);
        let batch = validate(plain(1, b"v", 1000), &rules).unwrap();
        let appended = partition.append_as_leader(batch, true, 1000).unwrap();
        if appended.info.flush_due {
            flush_through(&*partition, appended.info.last_offset + 1).unwrap();
        }
    }

    /// The leader in the metadata, and the high watermark if the partition is served.
    fn state(&self, topic: &str) -> (i32, Option<i64>) {
        let leader = self.parts.metadata.image().partition(topic, 0).unwrap().leader;
        let partition = self.parts.replica_manager.partition(topic, 0);
        (leader, partition.map(|partition| partition.watermarks().high_watermark))
    }

    async fn create(&self, name: &str) -> bool {
        let topic =
            CreatableTopic { name: name.into(), num_partitions: 1, replication_factor: 1, ..Default::default() };
        let topics = CreateTopics { topics: vec![topic], validate_only: false };
        let created = self.parts.controller.create_topics(topics).await;
        created.is_ok_and(|mut topics| topics.remove(0).1.is_ok())
    }

    async fn delete(&self, name: &str) -> bool {
        let topics = vec![TopicReference { name: Some(name.into()), topic_id: TopicId::ZERO }];
        let deleted = self.parts.controller.delete_topics(DeleteTopics { topics }).await;
        deleted.is_ok_and(|mut topics| topics.remove(0).result.is_ok())
    }

    async fn commit(&self, offset: i64) {
        let partition = CommitPartition {
            partition: 0,
            committed_offset: offset,
            committed_leader_epoch: -1,
            committed_metadata: "".into(),
        };
        let topic = CommitTopic { name: "t".into(), topic_id: TopicId::ZERO, partitions: vec![partition] };
        let request = CommitOffsetsRequest {
            group_id: "g".into(),
            generation_id_or_member_epoch: -1,
            member_id: "".into(),
            group_instance_id: None,
            retention_time_ms: None,
            api_version: 9,
            topics: vec![topic],
        };
        self.parts.groups.commit_offsets(request).await.unwrap();
    }

    async fn committed(&self) -> BTreeMap<i32, i64> {
        self.parts.groups.loaded(0).await;
        let topics = self.parts.groups.fetch_all_offsets(&"g".into(), false).await.unwrap();
        topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .map(|offset| (offset.partition, offset.committed_offset))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_g3_with_flush_messages_1_an_acknowledged_commit_survives_the_power() {
    for seed in 0..6 {
        let world = World::new(seed);
        let settings = ["log.flush.interval.messages=1"];
        let broker = world.start(&["a"], &settings).await;
        assert!(broker.create(GROUP_METADATA_TOPIC).await);
        for offset in 0..5 {
            broker.commit(offset).await;
        }
        world.disk.crash();
        // A killed process runs no destructors.
        std::mem::forget(broker);
        let again = world.start(&["a"], &settings).await;
        assert_eq!(again.committed().await, [(0, 4)].into(), "seed {seed}");
        again.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_last_log_directory_fails_says_so() {
    let world = World::new(1);
    let broker = world.start(&["a"], &[]).await;
    let wait = |limit_ms| tokio::time::timeout(Duration::from_millis(limit_ms), broker.failed());
    assert!(wait(0).await.is_err());
    world.disk.set_faults(Faults { fail_sync: Some(1), ..Faults::default() });
    assert!(!broker.create("t").await);
    assert_eq!(wait(10_000).await.unwrap(), "all log directories are offline");
    broker.shutdown().await;
}

/// The status and the body of a page of the console.
async fn page(broker: &Broker, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = broker.console.as_ref().expect("the console is served").address();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), text.trim_end().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_learn_that_a_broker_serves_stops_or_has_failed() {
    let world = World::new(1);
    let listener = ["ottla.http.listener=127.0.0.1:0"];
    let broker = world.start(&["a"], &listener).await;
    assert_eq!(page(&broker, "/health").await, (200, "healthy".into()));
    assert_eq!(page(&broker, "/ready").await, (200, "ready".into()));
    broker.parts.network.stop();
    assert_eq!(page(&broker, "/health").await, (200, "healthy".into()));
    assert_eq!(page(&broker, "/ready").await, (503, "the broker is stopping".into()));
    broker.shutdown().await;

    let broker = world.start(&["a"], &listener).await;
    world.disk.set_faults(Faults { fail_sync: Some(1), ..Faults::default() });
    assert!(!broker.create("t").await);
    broker.failed().await;
    for path in ["/health", "/ready"] {
        assert_eq!(page(&broker, path).await, (503, crate::console::ALL_DIRS_OFFLINE.into()));
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_its_metadata_log_says_so_even_if_other_directories_are_left() {
    let world = World::new(1);
    let broker = world.start(&["a", "b"], &[]).await;
    world.disk.set_faults(Faults { fail_sync: Some(1), ..Faults::default() });
    assert!(!broker.create("t").await);
    let reason = tokio::time::timeout(Duration::from_secs(10), broker.failed()).await.unwrap();
    assert_eq!(reason, "the metadata quorum has failed");
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_separate_metadata_directory_fails_ends_and_names_it() {
    let settings = ["metadata.log.dir=/data/m", "ottla.http.listener=127.0.0.1:0"];
    for fault in
        [Faults { fail_write: Some(1), ..Faults::default() }, Faults { fail_sync: Some(1), ..Faults::default() }]
    {
        let world = World::new(1);
        let broker = world.start(&["a", "b"], &settings).await;
        assert!(broker.create("t").await);
        broker.produce("t");
        let image = broker.parts.metadata.image();
        assert_eq!(image.broker(1).unwrap().log_dirs.len(), 2, "the cluster knows only the data directories");
        world.disk.set_faults(Faults { below: world.path("m"), ..fault });
        assert!(!broker.create("u").await);
        let reason = tokio::time::timeout(Duration::from_secs(10), broker.failed()).await.unwrap();
        assert_eq!(reason, "the directory of the metadata log is offline: /data/m");
        assert_eq!(page(&broker, "/health").await, (503, crate::console::METADATA_DIR_OFFLINE.into()));
        broker.shutdown().await;
        world.disk.set_faults(Faults::default());
        let broker = world.start(&["a", "b"], &settings).await;
        assert_eq!(broker.state("t"), (1, Some(1)));
        assert!(broker.shutdown().await.is_empty());
    }
    let world = World::new(1);
    world.disk.create_dir_all(Path::new(ROOT)).unwrap();
    world.disk.open(&world.path("m"), crate::env::Open::CreateNew).unwrap();
    assert!(world.refusal(&["a"], &settings).await.contains("/data/m"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_directory_that_is_not_there_takes_its_partitions_offline_and_brings_them_back() {
    let world = World::new(1);
    let topics = ["t0", "t1", "t2", "t3"];
    let broker = world.start(&["a", "b"], &[]).await;
    assert!(broker.found().starts_with("new cluster "), "{}", broker.found());
    for topic in topics {
        assert!(broker.create(topic).await);
        broker.produce(topic);
    }
    broker.shutdown().await;
    let (in_a, in_b): (Vec<_>, Vec<_>) =
        topics.into_iter().partition(|topic| world.disk.exists(&world.path("a").join(format!("{topic}-0"))));
    assert_eq!((in_a.len(), in_b.len()), (2, 2));

    for dirs in [&["a"][..], &["a", "b"]] {
        let moved = dirs.len() == 2;
        if moved {
            // The volume of b is not mounted: its mount point is an empty directory.
            world.disk.rename(&world.path("b"), &world.path("unmounted")).unwrap();
            world.disk.create_dir_all(&world.path("b")).unwrap();
        }
        let broker = world.start(dirs, &[]).await;
        assert!(broker.found().ends_with(": 4 topics, 4 partitions"), "{}", broker.found());
        for topic in &in_a {
            assert_eq!(broker.state(topic), (1, Some(1)));
        }
        for topic in if moved { &in_b[1..] } else { &in_b } {
            assert_eq!(broker.state(topic), (-1, None));
        }
        assert!(broker.create("new").await);
        broker.produce("new");
        assert!(broker.delete("new").await);
        if !moved {
            // The name of a topic with a missing log can be used again once the topic is deleted.
            assert!(broker.delete(in_b[0]).await && broker.create(in_b[0]).await);
        }
        broker.shutdown().await;
        if moved {
            world.disk.remove_dir_all(&world.path("b")).unwrap();
            world.disk.rename(&world.path("unmounted"), &world.path("b")).unwrap();
        }
        let broker = world.start(&["a", "b"], &[]).await;
        for topic in &in_b[1..] {
            assert_eq!(broker.state(topic), (1, Some(1)));
        }
        assert_eq!(broker.state(in_b[0]), (1, Some(0)), "a new topic of that name, not the old one");
        broker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_directory_that_fails_at_run_time_takes_the_leader_of_its_partitions_until_it_is_good_again() {
    for fault in
        [Faults { fail_write: Some(1), ..Faults::default() }, Faults { fail_sync: Some(1), ..Faults::default() }]
    {
        let world = World::new(1);
        let fault = Faults { below: world.path("b"), ..fault };
        let broker = world.start(&["a", "b"], &[]).await;
        let topics = ["t0", "t1", "t2", "t3"];
        for topic in topics {
            assert!(broker.create(topic).await);
            broker.produce(topic);
            crate::log::flush::with_log(&*broker.partition(topic), |log| log.flush()).unwrap();
        }
        let (in_a, in_b): (Vec<_>, Vec<_>) =
            topics.into_iter().partition(|topic| world.disk.exists(&world.path("a").join(format!("{topic}-0"))));
        assert_eq!((in_a.len(), in_b.len()), (2, 2));
        let (failed, other) = (broker.partition(in_b[0]), broker.partition(in_b[1]));
        world.disk.set_faults(fault);
        let first = try_append(&broker.parts, &failed)
            .and_then(|()| with_log(&*failed, |log| log.flush()).map_err(PartitionError::from));
        assert!(matches!(first, Err(PartitionError::Append(_) | PartitionError::Storage(_))), "{first:?}");
        // The image is published before the partitions are told.
        until("the partitions of the failed directory have no leader", || {
            in_b.iter().all(|topic| broker.state(topic).0 == -1) && !failed.is_leader() && !other.is_leader()
        })
        .await;
        let image = broker.parts.metadata.image();
        for topic in &in_b {
            let partition = image.partition(topic, 0).unwrap();
            assert_eq!((&*partition.isr, &*partition.replicas), (&[1][..], &[1][..]));
            assert!(!crate::controller::directories::has_online_directory(&image, partition, 1), "it must be offline");
        }
        // Clients get the reason, and not only that there is no leader.
        for partition in [&failed, &other] {
            let refused = try_append(&broker.parts, partition);
            assert!(matches!(refused, Err(PartitionError::Storage(LogError::DirOffline { .. }))), "{refused:?}");
        }
        for topic in &in_a {
            assert_eq!(broker.state(topic), (1, Some(1)));
            broker.produce(topic);
        }
        assert!(broker.create("new").await);
        broker.produce("new");
        assert_eq!(broker.shutdown().await.len(), 1);

        world.disk.set_faults(Faults::default());
        let broker = world.start(&["a", "b"], &[]).await;
        for topic in &in_b {
            // A record that could not be synced may be lost or not.
            assert!(matches!(broker.state(topic), (1, Some(1 | 2))), "{:?}", broker.state(topic));
            broker.produce(topic);
        }
        broker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_topics_with_flush_messages_show_at_once_what_was_acknowledged() {
    for seed in 0..5 {
        let world = World::new(seed);
        let settings = ["log.flush.interval.messages=1"];
        let broker = world.start(&["a"], &settings).await;
        assert!(broker.create("t").await);
        for _ in 0..5 {
            broker.produce("t");
        }
        world.disk.crash();
        std::mem::forget(broker);
        let broker = world.start(&["a"], &settings).await;
        assert_eq!(broker.state("t"), (1, Some(5)), "seed {seed}");
        broker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_serves_what_is_there_and_goes_on_when_there_is_room() {
    for is_clean in [true, false] {
        let world = World::new(3);
        let settings = ["log.flush.interval.messages=1"];
        let broker = world.start(&["a"], &settings).await;
        assert!(broker.create("t").await);
        broker.produce("t");
        broker.produce("t");
        if is_clean {
            broker.shutdown().await;
        } else {
            world.disk.crash();
            std::mem::forget(broker);
        }
        world.disk.set_capacity(0);
        let broker = world.start(&["a"], &settings).await;
        assert_eq!(broker.state("t"), (1, Some(2)));
        assert_eq!(broker.partition("t").delete_records_before(1).unwrap(), 1);
        assert!(!broker.create("u").await);
        world.disk.set_capacity(u64::MAX);
        assert!(broker.create("u").await);
        broker.produce("u");
        broker.produce("t");
        assert_eq!((broker.state("t"), broker.state("u")), ((1, Some(3)), (1, Some(1))));
        broker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_log_that_is_gone_or_emptied_is_not_the_start_of_a_new_cluster() {
    for ruin in ["gone", "emptied"] {
        let world = World::new(1);
        let broker = world.start(&["a", "b"], &[]).await;
        assert!(broker.create("t").await);
        broker.produce("t");
        broker.shutdown().await;
        let log = world.path("a/__cluster_metadata-0");
        world.disk.remove_dir_all(&log).unwrap();
        if ruin == "emptied" {
            world.disk.create_dir_all(&log).unwrap();
        }
        for _ in 0..2 {
            let refused = world.refusal(&["a", "b"], &[]).await;
            assert!(refused.contains("1 partitions (t-0)") && refused.contains("accept.metadata.loss"), "{refused}");
        }
        let broker = world.start(&["a", "b"], &["ottla.accept.metadata.loss=true"]).await;
        assert!(broker.parts.metadata.image().topic("t").is_none());
        broker.shutdown().await;
        // The data is kept in a renamed directory.
        let strays = |dir: &str| {
            let entries = world.disk.list(&world.path(dir)).unwrap();
            entries.iter().filter(|entry| entry.name.ends_with("-stray")).count()
        };
        assert_eq!(strays("a") + strays("b"), 1);
        world.start(&["a", "b"], &[]).await.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_acknowledged_metadata_is_no_torn_tail() {
    let world = World::new(1);
    let broker = world.start(&["a"], &[]).await;
    for topic in 0..10 {
        assert!(broker.create(&format!("t{topic}")).await);
    }
    world.disk.sync_volume(Path::new(ROOT)).unwrap();
    world.disk.crash();
    std::mem::forget(broker);
    let path = world.path("a/__cluster_metadata-0/00000000000000000000.log");
    let len = world.disk.read(&path).unwrap().len();
    world.disk.flip_byte(&path, len / 2).unwrap();
    let refused = world.refusal(&["a"], &[]).await;
    assert!(refused.contains("corrupt at position") && refused.contains("accept.metadata.loss"), "{refused}");
    assert_eq!(world.disk.read(&path).unwrap().len(), len);
    let broker = world.start(&["a"], &["ottla.accept.metadata.loss=true"]).await;
    let left = broker.parts.metadata.image().topics.by_name.len();
    assert!((1..10).contains(&left), "{left}");
    // The damaged log and the partitions are kept.
    let names = |dir: &str, ending: &str| {
        world.disk.list(&world.path(dir)).unwrap().iter().filter(|entry| entry.name.ends_with(ending)).count()
    };
    assert_eq!((names("a/__cluster_metadata-0", ".cut"), names("a", "-stray")), (1, 10 - left));
    world.disk.sync_volume(Path::new(ROOT)).unwrap();
    world.disk.crash();
    std::mem::forget(broker);
    // The setting is needed only once.
    let broker = world.start(&["a"], &[]).await;
    assert_eq!(broker.parts.metadata.image().topics.by_name.len(), left);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_commit_refuses_its_groups_and_no_others_until_the_loss_is_accepted() {
    use crate::coordinator::group::GroupError;
    for where_in_batch in [20, 57, 90] {
        let world = World::new(1);
        let broker = world.start(&["a"], &[]).await;
        assert!(broker.create(GROUP_METADATA_TOPIC).await);
        for offset in 0..9 {
            broker.commit(offset).await;
        }
        broker.shutdown().await;
        let path = world.path("a/__consumer_offsets-0/00000000000000000000.log");
        let bytes = world.disk.read(&path).unwrap();
        let batches: Vec<usize> = crate::protocol::record_batch::iter_batches(&bytes)
            .scan(0, |end, batch| Some(std::mem::replace(end, *end + batch.size_bytes())))
            .collect();
        assert_eq!(batches.len(), 9);
        for damaged in [3, 8] {
            world.disk.flip_byte(&path, batches[damaged] + where_in_batch).unwrap();
        }
        let broker = world.start(&["a"], &[]).await;
        broker.parts.groups.loaded(0).await;
        let refused = broker.parts.groups.fetch_all_offsets(&"g".into(), false).await;
        assert_eq!(refused, Err(GroupError::NotCoordinator), "{where_in_batch}");
        broker.shutdown().await;
        let broker = world.start(&["a"], &["ottla.accept.group.loss=0:3,0:8"]).await;
        assert_eq!(broker.committed().await, [(0, 7)].into(), "{where_in_batch}");
        broker.commit(20).await;
        assert_eq!(broker.committed().await, [(0, 20)].into());
        broker.shutdown().await;
        let refused = world.try_start(&["a"], &["ottla.accept.group.loss=0:x"]).await.err().expect("it is refused");
        assert!(refused.to_string().contains("'0:x'"), "{refused:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_on_a_full_disk_does_not_say_that_everything_is_well() {
    let world = World::new(1);
    let broker = world.start(&["a", "b"], &[]).await;
    assert!(broker.create("t").await);
    let partition = broker.parts.replica_manager.partition("t", 0).unwrap();
    append(&broker.parts, &partition);
    world.disk.set_capacity(0);
    let unclean = broker.shutdown().await;
    assert!(!unclean.is_empty());
    assert!(unclean.iter().all(|dir| dir.is_synced && dir.error.is_disk_full()), "{unclean:?}");
    assert!(!world.disk.exists(&world.path("a/.kafka_cleanshutdown")));
    world.disk.set_capacity(u64::MAX);
    world.disk.crash();
    let again = world.start(&["a", "b"], &[]).await;
    assert_eq!(again.parts.replica_manager.partition("t", 0).unwrap().watermarks().log_end_offset, 1);
    assert!(again.shutdown().await.is_empty());
    assert!(world.disk.exists(&world.path("a/.kafka_cleanshutdown")));
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_a_clean_stop_stores_the_broker_epoch_for_the_next_start() {
    let world = World::new(1);
    let broker = world.start(&["a"], &[]).await;
    let epoch = broker.parts.metadata.image().broker(broker.node_id()).unwrap().epoch;
    assert!(broker.shutdown().await.is_empty());
    let text = world.disk.read(&world.path("a/.kafka_cleanshutdown")).unwrap();
    assert_eq!(String::from_utf8_lossy(&text), format!("{{\"version\":0,\"brokerEpoch\":{epoch}}}"));
    let again = world.start(&["a"], &[]).await;
    assert_eq!(again.parts.log_manager.previous_broker_epoch(), epoch);
    again.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_with_a_failed_directory_names_it() {
    let world = World::new(1);
    let broker = world.start(&["a", "b"], &[]).await;
    assert!(broker.create("t").await && broker.create("u").await);
    let partition = broker.parts.replica_manager.partition("t", 0).unwrap();
    let dir = with_log(&*partition, |log| log.context().dir.clone());
    append(&broker.parts, &partition);
    world.disk.set_faults(Faults { fail_write: Some(1), ..Faults::default() });
    assert!(try_append(&broker.parts, &partition).is_err());
    let unclean = broker.shutdown().await;
    let found: Vec<_> = unclean.iter().map(|unclean| (&unclean.dir, unclean.is_synced)).collect();
    assert_eq!(found, [(&dir, false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_nothing_is_appended() {
    let world = World::new(1);
    let broker = world.start(&["a"], &[]).await;
    assert!(broker.create("t").await);
    let parts = broker.parts.clone();
    let partition = parts.replica_manager.partition("t", 0).unwrap();
    append(&broker.parts, &partition);
    assert!(broker.shutdown().await.is_empty());
    assert!(try_append(&parts, &partition).is_err());
    assert_eq!(partition.watermarks().log_end_offset, 1);
}

#[test]
fn negative_limits_are_no_limits() {
    let of = |queued_max_request_bytes, connections_max_idle_ms| {
        let config = BrokerConfig { queued_max_request_bytes, connections_max_idle_ms, ..BrokerConfig::default() };
        let limits = limits(&Env::system(), &config, usize::MAX).unwrap();
        (limits.queued_request_bytes, limits.idle)
    };
    assert_eq!(of(-1, -1), (None, None));
    assert_eq!(of(7, 9), (Some(7), Some(Duration::from_millis(9))));
    assert_eq!(of(7, 0).1, Some(Duration::ZERO));
}
