//! Tests of a quorum of one from end to end: memory log and real disk, restarts, crashes, damaged stores, full disks.

use std::{collections::BTreeMap, path::Path, sync::Mutex};

use kafka_protocol::error::ResponseError;

use super::*;
use crate::{
    controller::{
        configs::{AlterOp, IncrementalAlterConfigs},
        testing::TestSchema,
        topics::{CreatableTopic, CreateTopics, DeleteTopics, TopicReference},
    },
    env::{Disk, Tasks},
    log::{Log, LogContext, OpenLog},
    metadata::{image::ConfigResource, publisher::Subscriber},
    raft::{
        MetadataLog,
        cached_image::{STORE_DIR, open_store},
        control_records::single_voter,
        message,
        metadata_log::log_config,
        snapshot::SnapshotId,
        storage::memory::MemoryLog,
    },
    sim::{SimClock, SimDisk, disk::Faults, until},
    types::{CLUSTER_METADATA_TOPIC, TopicId, TopicPartition},
};

pub(crate) struct Node {
    dir: tempfile::TempDir,
    log: MemoryLog,
    max_bytes_between_snapshots: u64,
    use_sled: bool,
    accept_loss: bool,
}

/// The transport of a node that has no other voters.
struct NoTransport;

impl Transport for NoTransport {
    fn send(&self, to: BrokerId, _: Bytes) {
        tracing::debug!(to, "no other voter can be reached");
    }

    fn snapshots_of(&self, _: BrokerId) -> Option<Box<dyn SnapshotSource>> {
        None
    }

    fn set_voters(&self, _: &VotersRecord) {}

    fn reach(&self, _: BrokerId, _: Uuid, _: Endpoint) {}
}

/// Keeps what would be sent.
#[derive(Default)]
struct Sent(Mutex<Vec<(BrokerId, Message)>>);

impl Transport for Sent {
    fn send(&self, to: BrokerId, message: Bytes) {
        self.0.lock().unwrap().push((to, message::decode(message).unwrap()));
    }

    fn snapshots_of(&self, _: BrokerId) -> Option<Box<dyn SnapshotSource>> {
        None
    }

    fn set_voters(&self, _: &VotersRecord) {}

    fn reach(&self, _: BrokerId, _: Uuid, _: Endpoint) {}
}

struct Running {
    env: Env,
    publisher: Arc<Publisher>,
    started: Started,
    heard: Arc<Mutex<Vec<String>>>,
}

struct RecordingSubscriber(Arc<Mutex<Vec<String>>>);

impl Subscriber for RecordingSubscriber {
    fn on_delta(&self, image: &Arc<MetadataImage>, delta: &MetadataDelta) {
        let topics: Vec<&str> = delta.topics.values().map(|topic| &*topic.name).collect();
        self.0.lock().unwrap().push(format!("{} {}", image.provenance.last_contained_offset, topics.join(",")));
    }
}

impl Node {
    fn new() -> Self {
        Node {
            dir: tempfile::tempdir().unwrap(),
            log: MemoryLog::default(),
            max_bytes_between_snapshots: u64::MAX,
            use_sled: true,
            accept_loss: false,
        }
    }

    fn options(&self) -> Options {
        let directory_id = Uuid::from_u128(4242);
        Options {
            identity: Identity { node_id: 1, directory_id },
            endpoint: None,
            cluster: TestIdentity::known("cluster"),
            addresses: Arc::default(),
            dir: self.dir.path().to_owned(),
            voters: single_voter(1, directory_id, vec![]),
            transport: Arc::new(NoTransport),
            settings: ControllerSettings::default(),
            schema: Arc::new(TestSchema),
            max_bytes_between_snapshots: self.max_bytes_between_snapshots,
            accept_loss: self.accept_loss,
            broker: Some(RegisterBroker {
                cluster_id: "cluster".into(),
                broker_id: 1,
                incarnation_id: Uuid::new_v4(),
                endpoints: vec![],
                features: controller::features::supported_features(),
                rack: None,
                log_dirs: vec![directory_id],
                previous_broker_epoch: -1,
            }),
        }
    }

    async fn try_start(&self) -> Result<Running, StartError> {
        let env = Env::system();
        let (publisher, heard) = (Publisher::new(&env.tasks), Arc::new(Mutex::new(Vec::new())));
        publisher.subscribe(Arc::new(RecordingSubscriber(heard.clone())));
        let store = if self.use_sled { open_store(&env, self.dir.path()) } else { CachedImage::none() };
        let started = start(&env, self.options(), Box::new(self.log.clone()), store, publisher.clone()).await?;
        Ok(Running { env, publisher, started, heard })
    }

    async fn start(&self) -> Running {
        self.try_start().await.unwrap()
    }
}

impl Running {
    async fn try_create(&self, name: &str) -> Result<TopicId, controller::ApiError> {
        let topic =
            CreatableTopic { name: name.into(), num_partitions: 2, replication_factor: 1, ..Default::default() };
        let reply =
            self.started.controller.create_topics(CreateTopics { topics: vec![topic], validate_only: false }).await;
        reply?.remove(0).1.map(|created| created.topic_id)
    }

    async fn create(&self, name: &str) -> TopicId {
        self.try_create(name).await.unwrap()
    }

    async fn delete(&self, name: &str) -> Result<(), controller::ApiError> {
        let topic = TopicReference { name: Some(name.into()), topic_id: TopicId::ZERO };
        let deleted = self.started.controller.delete_topics(DeleteTopics { topics: vec![topic] }).await?;
        deleted.into_iter().try_for_each(|topic| topic.result)
    }

    async fn set_config(&self, topic: &str, key: &str, value: &str) -> Result<(), controller::ApiError> {
        let changes = vec![(key.to_owned(), AlterOp::Set, Some(value.to_owned()))];
        let resources = vec![(ConfigResource::topic(topic), changes)];
        let request = IncrementalAlterConfigs { resources, validate_only: false };
        self.started.controller.incremental_alter_configs(request).await?.remove(0)
    }

    /// The topics of the image, without offsets and epochs, which change with each restart.
    fn topics(&self) -> BTreeMap<String, (TopicId, usize)> {
        let image = self.publisher.image();
        image
            .topics
            .by_name
            .values()
            .map(|topic| (topic.name.to_string(), (topic.id, topic.partitions.len())))
            .collect()
    }

    async fn stop(self) -> MetadataImage {
        self.started.controller.stop().await;
        self.env.tasks.shutdown().await;
        (*self.publisher.image()).clone()
    }
}

#[tokio::test]
async fn a_new_node_is_a_cluster_with_one_unfenced_broker_after_one_fsync() {
    let node = Node::new();
    let running = node.start().await;
    let image = running.publisher.image();
    assert_eq!(node.log.flushes(), 1, "leader change, features, registration and unfencing share one fsync");
    assert_eq!(&*image.cluster_id, "cluster");
    assert_eq!((image.feature_level("metadata.version"), image.kraft_version), (30, 1));
    let broker = image.broker(1).unwrap();
    assert!(broker.is_active());
    assert_eq!(Some(broker.epoch), running.started.broker_epoch);
    assert_eq!(running.heard.lock().unwrap().len(), 1, "one delta holds everything");
    running.stop().await;
}

#[tokio::test]
async fn an_answered_creation_is_published_and_heard_and_synced() {
    let node = Node::new();
    let running = node.start().await;
    let id = running.create("t").await;
    assert_eq!(running.publisher.image().topic_id("t"), Some(id));
    assert!(running.heard.lock().unwrap().last().unwrap().ends_with(" t"));
    node.log.crash();
    let image = running.stop().await;
    assert_eq!(image.topic_id("t"), Some(id));
    let again = node.start().await;
    assert_eq!(again.topics()["t"], (id, 2), "an answered creation survives a power failure");
    again.stop().await;
}

#[tokio::test]
async fn concurrent_requests_share_fsyncs_and_see_each_other() {
    let node = Node::new();
    let running = node.start().await;
    let names: Vec<String> = (0..50).map(|at| format!("t{at}")).collect();
    let creations = names.iter().map(|name| running.create(name));
    futures_util::future::join_all(creations).await;
    assert_eq!(running.topics().len(), 50);
    let flushes = node.log.flushes();
    assert!(flushes < 30, "{flushes} fsyncs for 50 concurrent creations");
    // The second of two concurrent creations must see the first, although nothing is committed yet.
    let twice = ["same", "same"].map(|name| {
        let topic =
            CreatableTopic { name: name.into(), num_partitions: 1, replication_factor: 1, ..Default::default() };
        running.started.controller.create_topics(CreateTopics { topics: vec![topic], validate_only: false })
    });
    let results = futures_util::future::join_all(twice).await;
    let results: Vec<bool> = results.into_iter().map(|result| result.unwrap().remove(0).1.is_ok()).collect();
    assert_eq!(results.iter().filter(|ok| **ok).count(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_restart_raises_epoch_broker_epoch_and_leader_epochs_and_keeps_the_rest() {
    let node = Node::new();
    let first = node.start().await;
    let id = first.create("t").await;
    let before = first.stop().await;
    let second = node.start().await;
    let after = second.publisher.image();
    assert_eq!(after.topic_id("t"), Some(id));
    assert!(after.broker(1).unwrap().epoch > before.broker(1).unwrap().epoch);
    assert_eq!(after.partition("t", 0).unwrap().leader_epoch, 2);
    assert!(after.provenance.last_contained_epoch > before.provenance.last_contained_epoch);
    assert_eq!(
        node.log.flushes(),
        3,
        "one for the start, one for the topic, one for the second start with its registration"
    );
    second.stop().await;
}

#[tokio::test]
async fn deleted_topics_stay_deleted() {
    let node = Node::new();
    let running = node.start().await;
    running.create("a").await;
    running.create("b").await;
    let topics = vec![TopicReference { name: Some("a".into()), topic_id: TopicId::ZERO }];
    let deleted = running.started.controller.delete_topics(DeleteTopics { topics }).await.unwrap();
    assert_eq!(deleted[0].result, Ok(()));
    running.stop().await;
    let again = node.start().await;
    assert_eq!(again.topics().keys().collect::<Vec<_>>(), ["b"]);
    again.stop().await;
}

fn store_dir(node: &Node) -> PathBuf {
    node.dir.path().join(STORE_DIR)
}

/// Damages the store in one way, restarts, and expects the same image as from the log alone.
async fn survives(ruin: impl Fn(&Path)) {
    let node = Node::new();
    let running = node.start().await;
    for at in 0..40 {
        running.create(&format!("t{at}")).await;
    }
    let before = running.stop().await;
    ruin(&store_dir(&node));
    let again = node.start().await;
    let topics = again.topics();
    assert_eq!(topics.len(), 40);
    assert!(topics.iter().all(|(name, (id, _))| before.topic_id(name) == Some(*id)));
    let rebuilt = again.stop().await;
    // The log alone, without any store, must give exactly the same image.
    std::fs::remove_dir_all(store_dir(&node)).unwrap();
    let env = Env::system();
    let driver = Driver::open(
        env,
        node.options(),
        Box::new(node.log.clone()),
        CachedImage::none(),
        Publisher::new(&Tasks::new()),
    )
    .unwrap();
    assert_eq!(driver.committed.checksum(), rebuilt.checksum());
}

#[tokio::test]
async fn inv_m4_a_deleted_store_is_rebuilt() {
    survives(|dir| std::fs::remove_dir_all(dir).unwrap()).await;
}

#[tokio::test]
async fn inv_m4_a_truncated_store_is_rebuilt() {
    survives(|dir| {
        let db = dir.join("db");
        let length = std::fs::metadata(&db).unwrap().len();
        std::fs::OpenOptions::new().write(true).open(db).unwrap().set_len(length / 2).unwrap();
    })
    .await;
}

#[tokio::test]
async fn inv_m4_flipped_bits_anywhere_in_the_store_never_reach_the_image() {
    for step in [997usize, 4099, 16411] {
        survives(|dir| {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    let mut bytes = std::fs::read(&path).unwrap();
                    for at in (step / 2..bytes.len()).step_by(step) {
                        bytes[at] ^= 0x40;
                    }
                    std::fs::write(path, bytes).unwrap();
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn inv_m4_a_store_ahead_of_the_log_shows_that_the_log_has_lost_records() {
    let mut node = Node::new();
    let running = node.start().await;
    running.create("kept").await;
    let end = node.log.log_end_offset();
    running.create("lost").await;
    running.stop().await;
    node.log.clone().truncate_to(end).unwrap();
    for _ in 0..2 {
        let refused = node.try_start().await.err().expect("records are lost").to_string();
        assert!(refused.contains("records are lost") && refused.contains("accept.metadata.loss"), "{refused}");
    }
    node.accept_loss = true;
    let again = node.start().await;
    assert_eq!(again.topics().keys().collect::<Vec<_>>(), ["kept"], "the log decides, not the store");
    again.stop().await;
    assert!(store_dir(&node).with_extension("sled.broken").exists());
    node.accept_loss = false;
    node.start().await.stop().await;
}

#[tokio::test]
async fn a_log_that_ends_before_its_snapshot_has_lost_records() {
    let mut node = Node { max_bytes_between_snapshots: 2_000, use_sled: false, ..Node::new() };
    let running = node.start().await;
    for at in 0..60 {
        running.create(&format!("t{at}")).await;
    }
    running.stop().await;
    node.log = MemoryLog::default();
    let refused = node.try_start().await.err().expect("records are lost").to_string();
    assert!(refused.contains("records are lost") && refused.contains("accept.metadata.loss"), "{refused}");
    node.accept_loss = true;
    let again = node.start().await;
    assert!((1..=60).contains(&again.topics().len()), "the topics of the snapshot are there");
    again.create("more").await;
    again.stop().await;
    node.accept_loss = false;
    node.start().await.stop().await;
}

#[tokio::test]
async fn snapshots_trim_the_log_and_a_restart_needs_only_them_and_the_rest() {
    let node = Node { max_bytes_between_snapshots: 2_000, ..Node::new() };
    let running = node.start().await;
    for at in 0..60 {
        running.create(&format!("t{at}")).await;
    }
    until("the log is trimmed to the older of two snapshots", || {
        let names = running.env.disk.list(node.dir.path()).unwrap();
        let snapshots: Vec<_> = names.iter().filter_map(|entry| SnapshotId::parse(&entry.name)).collect();
        snapshots.len() == 2 && node.log.log_start_offset() == snapshots[0].end_offset
    })
    .await;
    let before = running.stop().await;
    let snapshots = snapshot::list(&crate::env::SystemDisk, node.dir.path()).unwrap();
    // Without a store the image comes from snapshot and log.
    std::fs::remove_dir_all(store_dir(&node)).unwrap();
    let env = Env::system();
    let open = || {
        Driver::open(
            env.clone(),
            node.options(),
            Box::new(node.log.clone()),
            CachedImage::none(),
            Publisher::new(&Tasks::new()),
        )
        .unwrap()
    };
    assert_eq!(open().committed.checksum(), before.checksum());
    // If the newest snapshot is damaged, the image comes from the older one and more of the log.
    let path = node.dir.path().join(snapshots[1].file_name());
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
    assert_eq!(open().committed.checksum(), before.checksum());
    let again = node.start().await;
    assert_eq!(again.topics().len(), 60);
    again.create("more").await;
    again.stop().await;
}

#[tokio::test]
async fn a9_the_quorum_describes_itself() {
    let node = Node { use_sled: false, ..Node::new() };
    let running = node.start().await;
    running.create("t").await;
    let quorum = running.started.controller.describe_quorum().await.unwrap();
    let image = running.publisher.image();
    assert_eq!((quorum.leader_id, quorum.leader_epoch), (1, image.provenance.last_contained_epoch));
    assert_eq!(quorum.high_watermark, image.provenance.last_contained_offset + 1);
    assert_eq!(quorum.voters.len(), 1);
    assert_eq!(quorum.voters[0].log_end_offset, quorum.high_watermark);
    assert_eq!(quorum.voters[0].directory_id, Uuid::from_u128(4242));
    running.stop().await;
}

#[tokio::test]
async fn after_stop_every_request_is_told_so() {
    let node = Node { use_sled: false, ..Node::new() };
    let running = node.start().await;
    let controller = running.started.controller.clone();
    running.stop().await;
    assert_eq!(controller.describe_quorum().await, Err(Unavailable::Stopped));
    let error = controller.create_topics(CreateTopics::default()).await.unwrap_err();
    assert_eq!(error.code(), 7);
}

#[tokio::test]
async fn a_directory_of_another_node_is_refused_by_name() {
    let node = Node { use_sled: false, ..Node::new() };
    node.start().await.stop().await;
    let identity = Identity { node_id: 2, directory_id: Uuid::from_u128(4242) };
    let options = Options { identity, ..node.options() };
    let result = Driver::open(
        Env::system(),
        options,
        Box::new(node.log.clone()),
        CachedImage::none(),
        Publisher::new(&Tasks::new()),
    );
    assert!(result.err().unwrap().to_string().contains("node.id 2 is not a voter"));
}

/// A quorum whose log is on a simulated disk, without a store. Time passes only when the test advances it.
struct Simulated {
    disk: SimDisk,
    clock: SimClock,
    env: Env,
}

impl Simulated {
    fn new() -> Self {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(1_000_000));
        let env = Env { disk: Arc::new(disk.clone()), clock: Arc::new(clock.clone()), ..Env::system() };
        disk.create_dir_all(Path::new("/data")).unwrap();
        Simulated { disk, clock, env }
    }

    fn open_log(&self) -> (Options, Box<MetadataLog>) {
        let context = LogContext::alone(Path::new("/data"), self.env.disk.clone(), self.env.clock.clone()).unwrap();
        let dir = PathBuf::from("/data/__cluster_metadata-0");
        let partition = TopicPartition::new(CLUSTER_METADATA_TOPIC, 0);
        let config = Arc::new(log_config(1 << 20, i64::MAX));
        let log = Log::open(&context, &dir, partition, None, config, OpenLog::default()).unwrap();
        (Options { dir, ..Node::new().options() }, Box::new(MetadataLog::new(&self.env, log)))
    }

    fn open_driver(&self) -> Driver {
        let (options, log) = self.open_log();
        let publisher = Publisher::new(&self.env.tasks);
        Driver::open(self.env.clone(), options, log, CachedImage::none(), publisher).unwrap()
    }

    async fn start(&self) -> Running {
        let (options, log) = self.open_log();
        let (publisher, heard) = (Publisher::new(&self.env.tasks), Arc::new(Mutex::new(Vec::new())));
        publisher.subscribe(Arc::new(RecordingSubscriber(heard.clone())));
        let started = start(&self.env, options, log, CachedImage::none(), publisher.clone()).await.unwrap();
        Running { env: self.env.clone(), publisher, started, heard }
    }
}

#[tokio::test]
async fn a_full_disk_that_keeps_no_room_refuses_changes_and_room_brings_them_back_without_a_restart() {
    let node = Simulated::new();
    node.disk.cannot_reserve_space();
    let running = node.start().await;
    running.create("before").await;
    node.disk.set_capacity(0);
    // The first request is decided but cannot be written; it may succeed later. The requests after it are not decided.
    assert_eq!(running.try_create("waits").await.unwrap_err().code(), ResponseError::RequestTimedOut.code());
    assert_eq!(running.try_create("refused").await.unwrap_err().code(), ResponseError::KafkaStorageError.code());
    assert_eq!(running.topics().keys().collect::<Vec<_>>(), ["before"]);
    assert!(running.started.controller.describe_quorum().await.is_ok(), "queries are answered");
    node.disk.set_capacity(u64::MAX);
    running.create("after").await;
    assert_eq!(running.topics().keys().collect::<Vec<_>>(), ["after", "before", "waits"]);
    running.stop().await;
    node.disk.crash();
    let again = node.start().await;
    assert_eq!(again.topics().keys().collect::<Vec<_>>(), ["after", "before", "waits"]);
    again.stop().await;
}

/// A capacity smaller than the data on the disk. A capacity of 0 bytes would mean that the size is unknown.
const FULL: u64 = 1;

fn code<T>(result: Result<T, controller::ApiError>) -> Option<i16> {
    result.err().map(|error| error.code())
}

#[tokio::test]
async fn on_a_full_disk_topics_are_deleted_and_retention_is_lowered_and_nothing_else() {
    let node = Simulated::new();
    let mut running = node.start().await;
    for at in 0..40 {
        running.create(&format!("t{at}")).await;
    }
    let refused = Some(ResponseError::KafkaStorageError.code());
    let mut left = 40;
    // The disk fills up, has room again and fills up again. Each time there is a crash while it is full.
    for round in 0..3 {
        node.disk.set_capacity(FULL);
        for step in 0..2 {
            assert_eq!(code(running.try_create("refused").await), refused, "{round} {step}");
            for _ in 0..3 {
                left -= 1;
                running.delete(&format!("t{left}")).await.unwrap();
            }
            running.set_config("t0", "retention.ms", &left.to_string()).await.unwrap();
            assert_eq!(code(running.set_config("t0", "unclean.leader.election.enable", "true").await), refused);
            // All answered changes are on the disk, and the node restarts while the disk is full.
            node.disk.crash();
            running.stop().await;
            running = node.start().await;
            assert!(running.started.broker_epoch.is_some(), "the broker is registered");
            assert_eq!(running.topics().len(), left);
            let image = running.publisher.image();
            assert_eq!(image.topic_config("t0").unwrap()["retention.ms"], left.to_string());
        }
        node.disk.set_capacity(u64::MAX);
        running.create(&format!("t{left}")).await;
        left += 1;
    }
    assert!(!running.topics().contains_key("refused"));
    running.stop().await;
}

#[tokio::test]
async fn what_can_be_repeated_without_end_leaves_room_for_deletions() {
    let node = Simulated::new();
    let running = node.start().await;
    running.create("t").await;
    node.disk.set_capacity(FULL);
    let mut changes = 0;
    let long = "1".repeat(17);
    while running.set_config("t", "retention.ms", &format!("{long}{}", changes % 10)).await.is_ok() {
        changes += 1;
        assert!(changes < 100_000);
    }
    assert!(changes > 1000, "{changes}");
    running.delete("t").await.unwrap();
    node.disk.set_capacity(u64::MAX);
    // The reserve is filled up again without a request.
    until("the driver waits for its next attempt", || node.clock.next_wake().is_some()).await;
    node.clock.advance(shortage::RETRY);
    running.create("t").await;
    node.disk.set_capacity(FULL);
    running.set_config("t", "retention.ms", "1").await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn without_file_descriptors_changes_are_refused_and_come_back_without_a_restart() {
    for left in 0..6 {
        let node = Simulated::new();
        let running = node.start().await;
        running.create("before").await;
        node.disk.set_faults(Faults { fail_open: Some(left), ..Faults::default() });
        let mut expected = vec!["after".to_owned(), "before".to_owned()];
        for at in 0..4 {
            let name = format!("while-short-{at}");
            let refused = running.try_create(&name).await.err().map(|error| error.code());
            // If no file had to be opened, the topic was created. If it was decided but not written, it is created
            // later.
            if refused != Some(ResponseError::KafkaStorageError.code()) {
                expected.push(name);
            }
        }
        node.disk.set_faults(Faults::default());
        running.create("after").await;
        assert_eq!(running.topics().keys().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
        running.stop().await;
    }
}

#[tokio::test]
async fn after_a_full_disk_the_driver_goes_on_even_if_nobody_asks() {
    let node = Simulated::new();
    node.disk.cannot_reserve_space();
    let running = node.start().await;
    node.disk.set_capacity(0);
    running.try_create("waits").await.unwrap_err();
    for room in [0, u64::MAX] {
        until("the driver waits for its next attempt", || node.clock.next_wake().is_some()).await;
        node.disk.set_capacity(room);
        node.clock.advance(shortage::RETRY);
    }
    until("the topic is there", || !running.topics().is_empty()).await;
    assert_eq!(running.topics().keys().collect::<Vec<_>>(), ["waits"]);
    running.stop().await;
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_written_is_tried_again_later() {
    let node = Simulated::new();
    let (sender, mut events) = mpsc::channel(8);
    let mut driver = node.open_driver();
    driver.options.max_bytes_between_snapshots = 1;
    driver.begin().unwrap();
    driver.events = Some(sender.downgrade());
    driver.maybe_snapshot();
    assert!(driver.snapshots.running.is_some());
    let written = events.recv().await.unwrap();
    let Event::SnapshotDone(index, Ok(())) = written else { panic!("the snapshot is written") };
    driver.on_snapshot_done(index, Err(io::ErrorKind::StorageFull.into())).unwrap();
    driver.maybe_snapshot();
    assert!(driver.snapshots.running.is_none(), "it is not tried again at once");
    node.clock.advance(snapshots::RETRY);
    driver.maybe_snapshot();
    let Some(Event::SnapshotDone(index, Ok(()))) = events.recv().await else { panic!("it is tried again") };
    driver.on_snapshot_done(index, Ok(())).unwrap();
    driver.maybe_snapshot();
    assert!(driver.snapshots.running.is_none(), "nothing was written since");
}

#[tokio::test]
async fn messages_of_nobody_in_the_quorum_change_nothing() {
    let node = Node::new();
    let running = node.start().await;
    let heartbeat = |from: u64, to: u64| Message {
        msg_type: ::raft::eraftpb::MessageType::MsgHeartbeat,
        from,
        to,
        term: 1_000_000,
        commit: 1_000_000,
        ..Message::default()
    };
    let sent = |from: BrokerId, message: Bytes| QuorumMessagesRequest {
        from,
        messages: vec![message],
        ..QuorumMessagesRequest::default()
    };
    // The node itself is raft's 2.
    for (from, to) in [(1, 2), (2, 2), (3, 2), (u64::MAX, 2), (1, 3)] {
        for sender in [0, 1, 2] {
            running.started.controller.deliver(sent(sender, message::encode(&heartbeat(from, to)))).await;
        }
    }
    running.started.controller.deliver(sent(2, Bytes::from_static(b"no message"))).await;
    running.create("t").await;
    running.stop().await;
}

/// The entry that made it a voter may be on the candidate only, and the leader that wrote it be gone: a node that does
/// not know that it is a voter votes nevertheless, and sends nothing else.
#[tokio::test]
async fn an_observer_votes_when_it_is_asked() {
    let (node, env, sent) = (Node::new(), Env::system(), Arc::new(Sent::default()));
    let directory_id = Uuid::from_u128(4242);
    let other = Uuid::from_u128(2);
    let endpoint = VoterEndpoint { name: "CONTROLLER".to_owned(), host: "localhost".to_owned(), port: 1 };
    let voters = single_voter(2, other, vec![endpoint]);
    let options = Options { voters, transport: sent.clone(), broker: None, ..node.options() };
    let publisher = Publisher::new(&env.tasks);
    let started = start(&env, options, Box::new(node.log.clone()), CachedImage::none(), publisher).await.unwrap();
    let vote = |msg_type| {
        let (to, from) = (raft_id(1), raft_id(2));
        message::encode(&Message { msg_type, to, from, term: 1, index: 9, log_term: 1, ..Message::default() })
    };
    let messages = vec![vote(MessageType::MsgRequestPreVote), vote(MessageType::MsgRequestVote)];
    let request = QuorumMessagesRequest {
        cluster_id: "cluster".into(),
        from: 2,
        from_directory: other,
        to_directory: directory_id,
        messages,
        ..QuorumMessagesRequest::default()
    };
    started.controller.deliver(request).await;
    let responses = || sent.0.lock().unwrap().iter().map(|(to, message)| (*to, message.msg_type)).collect::<Vec<_>>();
    until("it votes", || responses().len() >= 2).await;
    let expected = [MessageType::MsgRequestPreVoteResponse, MessageType::MsgRequestVoteResponse];
    assert_eq!(responses(), expected.map(|kind| (2, kind)));
    assert!(sent.0.lock().unwrap().iter().all(|(_, message)| !message.reject));
    started.controller.stop().await;
}
