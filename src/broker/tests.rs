//! A whole broker on a simulated disk, driven below its sockets.

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::{
    config::Arguments,
    controller::topics::{CreatableTopic, CreateTopics},
    coordinator::group::{CommitOffsetsRequest, CommitPartition, CommitTopic},
    env::Disk,
    raft::CachedImage,
    sim::{SimDisk, disk::Faults},
    types::{GROUP_METADATA_TOPIC, TopicId},
};

/// The simulated disk. There is no copy of the metadata: sled writes to real files.
struct World {
    disk: SimDisk,
}

/// What the log directories are below.
const ROOT: &str = "/data";

impl World {
    fn new(seed: u64) -> Self {
        let (disk, root) = (SimDisk::new(seed), Path::new(ROOT));
        // Whoever set up the machine made the directories, long ago.
        for log_dir in ["a", "b"] {
            disk.create_dir_all(&root.join(log_dir)).unwrap();
        }
        disk.sync_volume(root).unwrap();
        World { disk }
    }

    /// A broker with these log directories.
    async fn start(&self, dirs: &[&str], overrides: &[&str]) -> Broker {
        let dirs: Vec<String> = dirs.iter().map(|dir| format!("{ROOT}/{dir}")).collect();
        let dirs = format!("log.dirs={}", dirs.join(","));
        let fixed = [&*dirs, "listeners=PLAINTEXT://127.0.0.1:0", "offsets.topic.num.partitions=1"];
        let overrides = fixed.iter().chain(overrides).map(|text| (*text).to_owned()).collect();
        let arguments = Arguments { config_files: Vec::new(), overrides };
        let settings = Settings::load(&arguments, [], &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
        let env = Env { disk: Arc::new(self.disk.clone()), ..Env::system() };
        let loggers = Arc::new(Loggers::new(Default::default(), |_| {}));
        Broker::start(settings, env, |_, _| CachedImage::none(), loggers).await.unwrap()
    }
}

impl Broker {
    async fn create(&self, name: &str) -> bool {
        let topic =
            CreatableTopic { name: name.into(), num_partitions: 1, replication_factor: 1, ..Default::default() };
        let topics = CreateTopics { topics: vec![topic], validate_only: false };
        let created = self.parts.controller.create_topics(topics).await;
        created.is_ok_and(|mut topics| topics.remove(0).1.is_ok())
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
async fn g3_with_flush_messages_1_an_acknowledged_commit_survives_the_power() {
    for seed in 0..6 {
        let world = World::new(seed);
        let settings = ["log.flush.interval.messages=1"];
        let broker = world.start(&["a"], &settings).await;
        assert!(broker.create(GROUP_METADATA_TOPIC).await);
        for offset in 0..5 {
            broker.commit(offset).await;
        }
        world.disk.crash();
        // Nothing of it runs any more, not even what would close its files.
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
    assert!(wait(50).await.is_err());
    world.disk.set_faults(Faults { fail_sync: Some(1), ..Faults::default() });
    assert!(!broker.create("t").await);
    assert_eq!(wait(10_000).await.unwrap(), "all log directories are offline");
    broker.shutdown().await;
}

/// The status and the text of a page of the console.
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

#[test]
fn negative_limits_are_no_limits() {
    let of = |queued_max_request_bytes, connections_max_idle_ms| {
        let config = BrokerConfig { queued_max_request_bytes, connections_max_idle_ms, ..BrokerConfig::default() };
        let limits = limits(&config).unwrap();
        (limits.queued_request_bytes, limits.idle)
    };
    assert_eq!(of(-1, -1), (None, None));
    assert_eq!(of(7, 9), (Some(7), Some(Duration::from_millis(9))));
    assert_eq!(of(7, 0).1, Some(Duration::ZERO));
}
