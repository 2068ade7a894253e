//! Owns the start order and the stop order of a broker.
//!
//! [`Broker::start`] builds the parts from the settings and connects them; [`Broker::shutdown`] stops them in the
//! reverse order. Leaves everything about requests to the parts.

mod dynamic_settings;
mod lifecycle;
mod open_files;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::Context as _;
use dynamic_settings::{DynamicSettings, connection_quota};
use lifecycle::Lifecycle;
use open_files::OpenFilesPlan;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{
    api::{self, ListenerKind, Parts},
    config::{BrokerConfig, Endpoint as ConfiguredEndpoint, Listener, QuorumSettings, Settings, StaticConfigs},
    console::{self, Console},
    controller::{ControllerSettings, brokers::RegisterBroker, features},
    coordinator::{
        group::GroupConfig,
        partition_log::{CoordinatorListener, GroupMetadataLog},
        runtime::GroupCoordinator,
    },
    env::{Env, Tasks, Watched},
    log::{CleanerConfig, LogLimits, LogManager, LogManagerConfig, UncleanDir},
    loggers::Loggers,
    metadata::{
        image::{Endpoint, MetadataImage},
        publisher::{Publisher, Subscriber},
    },
    metrics::Metrics,
    network::{Bound, Limits, SharedLimits},
    raft::{
        self, Addresses, ClusterIdentity, ControllerChannel, Identity, Join, JoinMark, MetadataLog, OpenStore,
        QuorumTransport, SelfAddress,
        control_records::{KRaftVersionFeature, Voter, VoterEndpoint, VotersRecord},
        storage::BatchLog,
    },
    replica::{ReplicaManager, ReplicationSettings, fetch_session::FetchSessionCache, producer_ids::ProducerIds},
    types::BrokerId,
};

/// An active controller that stops waits this long for the next one.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(1);
/// How long connections may take to finish at shutdown before they are aborted.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Time until the next attempt to report directories to the controller, if one has failed.
const DIRECTORIES_RETRY: Duration = Duration::from_secs(1);
/// How long the tasks of aborted connections may take to end.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// A running broker.
pub struct Broker {
    parts: Arc<Parts>,
    /// The HTTP pages, if they are configured.
    console: Option<Console>,
    /// The replica manager holds only a weak reference to it.
    _coordinator_news: Arc<CoordinatorListener>,
    listening: Vec<(String, SocketAddr)>,
    data_dirs: Vec<PathBuf>,
    /// The id of this process in the registration of the broker.
    incarnation_id: Uuid,
    /// The life of the broker at the controller; `None` if this node is only a controller.
    session: Option<Arc<Lifecycle>>,
    offline_dirs: Offline,
    found: String,
}

/// The directories that are offline.
#[derive(Clone)]
struct Offline {
    /// Those in `log.dirs`.
    data: Arc<Watched<Vec<PathBuf>>>,
    /// The one that holds only the metadata log.
    metadata: Arc<Watched<Option<PathBuf>>>,
}

impl Broker {
    /// Starts everything, and returns when clients are served. `open_store` opens the stored copy of the metadata
    /// image.
    ///
    /// # Errors
    /// The failed step, as text for the operator.
    pub async fn start(
        settings: Settings,
        env: Env,
        open_store: OpenStore,
        loggers: Arc<Loggers>,
    ) -> anyhow::Result<Broker> {
        let config = Arc::new(settings.broker);
        let statics = Arc::new(settings.statics);
        let data_dirs = config.data_dirs();

        // Disks first: a lock held by another process must be noticed before anything is changed.
        let has_metadata_dir = !data_dirs.contains(&config.metadata_dir());
        let open_files = plan_open_files(&env, &config, data_dirs.len() + usize::from(has_metadata_dir));
        let log_manager_config = log_manager_config(&config, &data_dirs, settings.cluster_id, open_files);
        let quorum = settings.listeners.quorum.clone();
        let is_alone = quorum.is_alone();
        let log_manager = LogManager::open(&env, LogManagerConfig { is_alone, ..log_manager_config })?;
        let offline_dirs = offline_dirs(&log_manager, has_metadata_dir.then(|| config.metadata_dir()));

        // Addresses next, so that the registration contains the ports that the system chose.
        let bound = bind(&env, settings.listeners.for_clients())?;
        let controller_bound = bind(&env, settings.listeners.for_controllers())?;
        let listening: Vec<_> = bound
            .iter()
            .chain(&controller_bound)
            .map(|(listener, bound)| (listener.name.clone(), bound.address()))
            .collect();
        let console = start_console(&env, &config)?;

        // Metadata: the image, its subscribers in the order of notification, then the quorum that feeds them.
        let publisher = Publisher::new(&env.tasks);
        let replication = ReplicationSettings::new(&config, &settings.listeners.inter_broker);
        let replica_manager =
            ReplicaManager::new(config.node_id, env.clone(), statics.clone(), log_manager.clone(), replication);
        let groups_log = Arc::new(GroupMetadataLog::new(env.clone(), replica_manager.clone()));
        let accepted_loss = config.accepted_group_loss().map_err(anyhow::Error::msg)?;
        let group_config = GroupConfig { accepted_loss, ..GroupConfig::from(&*config) };
        let groups = Arc::new(GroupCoordinator::new(group_config, env.clone(), groups_log));
        let news = CoordinatorListener::new(groups.clone());
        replica_manager.listen(news.listener());
        let limits = SharedLimits::new(limits(&env, &config, open_files.connections)?);
        // Subscribe it before the logs are opened: `producer.id.expiration.ms` is among these settings.
        publisher.subscribe(Arc::new(DynamicSettings {
            node_id: config.node_id,
            statics: statics.clone(),
            env: env.clone(),
            limits: limits.clone(),
            most_connections: open_files.connections,
            log_manager: log_manager.clone(),
            changes: Arc::default(),
        }));
        let incarnation_id = env.random.uuid();
        let registration = RegisterBroker {
            // The only voter knows it. Other brokers register when they know it.
            cluster_id: log_manager.cluster_id().unwrap_or_default(),
            broker_id: config.node_id,
            incarnation_id,
            endpoints: endpoints(&env, &bound, is_alone),
            features: features::supported_features(),
            rack: config.broker_rack.clone(),
            log_dirs: log_manager.directory_ids().map(|(_, id)| id).collect(),
            previous_broker_epoch: log_manager.previous_broker_epoch(),
        };
        let quorum_start = Quorum {
            env: &env,
            config: &config,
            statics: &statics,
            log_manager: &log_manager,
            settings: &quorum,
            inter_broker_listener: &settings.listeners.inter_broker,
            own: own_address(&env, &quorum, &controller_bound),
            broker: quorum.is_broker.then(|| registration.clone()),
        };
        let StartedQuorum { controller, is_only_voter, join } =
            quorum_start.start(publisher.clone(), open_store).await?;
        // A channel sends one request at a time, so heartbeats and changes of ISRs do not share one with requests of
        // clients, which may take long.
        let new_channel = || Arc::new(ControllerChannel::new(&env, config.node_id, controller.clone()));
        let [channel, heartbeats, isr_changes] = [new_channel(), new_channel(), new_channel()];

        let parts = Arc::new(Parts {
            network: env.tasks.new_group(),
            fetch_sessions: FetchSessionCache::new(
                config.max_incremental_fetch_session_cache_slots.max(0) as usize,
                usize::try_from(config.ottla_fetch_sessions_max_bytes).unwrap_or(0),
                env.random.clone(),
            ),
            producer_ids: ProducerIds::new(config.node_id, publisher.clone(), channel.clone()),
            metrics: Metrics::new(
                api::APIS.iter().map(|api| (api.key, api.versions.max)),
                listening.iter().map(|(name, _)| name.clone()),
            ),
            env,
            loggers,
            statics,
            metadata: publisher,
            controller,
            channel,
            log_manager: log_manager.clone(),
            replica_manager,
            groups,
            config,
        });
        parts.replica_manager.start_replication(isr_changes);
        if let Some(join) = join {
            let channel = parts.channel.clone();
            parts.env.tasks.spawn_until_stopped("join the voters", join(channel).run());
        }
        // The other voters are served first: without them there is no controller.
        for (_, bound) in controller_bound {
            bound.serve(&parts, &limits);
        }
        let session = match quorum.is_broker {
            true => Some(begin_session(&parts, heartbeats, registration, is_only_voter).await?),
            false => None,
        };
        // From here on the image is not older than this start. With an older one, replicas would follow leaders that
        // were replaced long ago and truncate their logs to theirs, and directories of later topics would look like
        // earlier ones.
        let Parts { env, replica_manager, metadata, .. } = &*parts;
        let subscribers: [Arc<dyn Subscriber>; 3] = [
            replica_manager.clone(),
            news.clone(),
            // After those that move leaders and coordinators: clients that waited find them.
            replica_manager.liveness().clone(),
        ];
        let publisher = metadata.clone();
        let subscribe = move || subscribers.into_iter().for_each(|subscriber| publisher.subscribe(subscriber));
        env.tasks.blocking("open the logs", subscribe).await;
        if quorum.is_broker {
            replica_manager.set_aside_strays(&metadata.image()).context("cannot look for stray partitions")?;
            note_directories(env, replica_manager, &parts.channel, offline_dirs.data.clone()).await;
        }
        let recovered = log_manager.clone();
        env.tasks.blocking("sync recovered logs", move || recovered.sync_recovered()).await;
        let found = found(&log_manager, &metadata.image());
        if let Some(lifecycle) = &session {
            lifecycle.clone().keep_alive(is_only_voter).await?;
        }
        log_manager.start();
        for (_, bound) in bound {
            bound.serve(&parts, &limits);
        }
        if let Some(console) = &console {
            console.set_started(&parts);
        }
        Ok(Broker {
            parts,
            console,
            _coordinator_news: news,
            listening,
            data_dirs,
            incarnation_id,
            session,
            offline_dirs,
            found,
        })
    }

    /// The listeners' names and addresses, with the ports that the system chose.
    pub fn listening(&self) -> &[(String, SocketAddr)] {
        &self.listening
    }

    /// The data directories.
    pub fn data_dirs(&self) -> &[PathBuf] {
        &self.data_dirs
    }

    /// What the start has found, as text for the operator: a new cluster, or the numbers of topics and partitions.
    pub fn found(&self) -> &str {
        &self.found
    }

    /// The partitions of this broker.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn replica_manager(&self) -> &ReplicaManager {
        &self.parts.replica_manager
    }

    /// The newest metadata that this node has published.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        self.parts.metadata.image()
    }

    /// How many voters the metadata quorum has, as far as this node knows.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn voter_count(&self) -> usize {
        self.parts.controller.addresses().voters().voters.len()
    }

    /// The epoch of the metadata quorum, as far as this node knows.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn quorum_epoch(&self) -> i64 {
        self.parts.controller.gauges().epoch.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// `node.id`.
    pub fn node_id(&self) -> i32 {
        self.parts.config.node_id
    }

    /// Ready when the broker can no longer work, with the reason; Kafka halts in the same cases. The process must end
    /// instead of returning errors for ever, so that its supervisor can react.
    pub async fn failed(&self) -> String {
        let all = self.data_dirs.len();
        tokio::select! {
            biased;
            _ = self.offline_dirs.data.until(|dirs| dirs.len() == all) => console::ALL_DIRS_OFFLINE.to_owned(),
            dir = self.offline_dirs.metadata.until(Option::is_some) => {
                format!("{}: {}", console::METADATA_DIR_OFFLINE, dir.unwrap_or_default().display())
            }
            () = self.parts.controller.stopped() => console::QUORUM_FAILED.to_owned(),
        }
    }

    /// The controlled shutdown: accepts no new requests, finishes those in flight, makes everything durable, and writes
    /// the clean-shutdown files. Returns the directories for which that failed.
    pub async fn shutdown(self) -> Vec<UncleanDir> {
        let Parts { env, network, groups, controller, log_manager, replica_manager, .. } = &*self.parts;
        if let Some(lifecycle) = &self.session {
            lifecycle.leave().await;
        }
        if !controller.hand_over(env, self.node_id(), HAND_OVER_LIMIT).await {
            tracing::info!("no other voter has taken over the metadata quorum within {HAND_OVER_LIMIT:?}");
        }
        network.stop();
        groups.shutdown();
        if !ends_within(env, network, SHUTDOWN_GRACE).await {
            let cut = network.abort();
            tracing::info!(connections = cut, "aborted the connections that did not finish in time");
            // A task that computes ends at its next await point. If it still appends, it is refused: the logs are
            // closed.
            ends_within(env, network, ABORT_GRACE).await;
        }
        controller.stop().await;
        // With it the next start proves that this process has flushed its logs.
        if let Some(own) = controller.image().broker(self.node_id())
            && own.incarnation_id == self.incarnation_id
        {
            log_manager.set_broker_epoch(own.epoch);
        }
        let (replicas, manager) = (replica_manager.clone(), log_manager.clone());
        let close = move || {
            replicas.finish_removals();
            manager.shutdown()
        };
        let unclean = env.tasks.blocking("close logs", close).await;
        if let Some(console) = &self.console {
            console.stop().await;
        }
        env.tasks.shutdown().await;
        unclean
    }
}

/// Waits for the tasks of a group that was asked to stop. Returns whether they have ended.
async fn ends_within(env: &Env, tasks: &Tasks, grace: Duration) -> bool {
    env.within(grace, tasks.shutdown()).await.is_some()
}

fn found(log_manager: &LogManager, image: &MetadataImage) -> String {
    let cluster_id = log_manager.cluster_id().unwrap_or_default();
    if log_manager.is_new_cluster() {
        return format!("new cluster {cluster_id}");
    }
    let topics = &image.topics.by_name;
    let partitions: usize = topics.values().map(|topic| topic.partitions.len()).sum();
    format!("cluster {cluster_id}: {} topics, {partitions} partitions", topics.len())
}

/// Reports to the controller which directory each partition is in, now and whenever one is created, and which
/// directories fail.
async fn note_directories(
    env: &Env,
    replica_manager: &Arc<ReplicaManager>,
    controller: &Arc<ControllerChannel>,
    offline_dirs: Arc<Watched<Vec<PathBuf>>>,
) {
    let mut reported = offline_dirs.get().len();
    if let Err(error) = replica_manager.report_directories(controller).await {
        tracing::warn!(%error, "cannot report the directories of partitions to the controller yet");
    }
    let (clock, replica_manager, controller) = (env.clock.clone(), replica_manager.clone(), controller.clone());
    env.tasks.spawn_until_stopped("note directories", async move {
        loop {
            tokio::select! {
                biased;
                () = replica_manager.directories_changed() => {}
                failed = offline_dirs.until(|dirs| dirs.len() > reported) => reported = failed.len(),
            }
            while let Err(error) = replica_manager.report_directories(&controller).await {
                tracing::debug!(%error, "cannot report the directories of partitions to the controller");
                clock.sleep_until(clock.monotonic() + DIRECTORIES_RETRY).await;
            }
        }
    });
}

/// A receiver of the offline directories. `metadata_dir` is the one that holds only the metadata log.
fn offline_dirs(log_manager: &LogManager, metadata_dir: Option<PathBuf>) -> Offline {
    let offline = Offline {
        data: Arc::new(Watched::new(log_manager.offline_dir_paths().map(Path::to_owned).collect::<Vec<_>>())),
        metadata: Arc::new(Watched::new(None)),
    };
    let failed = offline.clone();
    log_manager.on_dir_failure(move |dir, _| match &metadata_dir {
        Some(metadata_dir) if metadata_dir == dir => failed.metadata.set(Some(dir.to_owned())),
        _ => failed.data.update(|dirs| dirs.push(dir.to_owned())),
    });
    offline
}

fn plan_open_files(env: &Env, config: &BrokerConfig, log_dirs: usize) -> OpenFilesPlan {
    let count = |count: i32| count.max(1) as usize;
    let wanted =
        OpenFilesPlan { segments: count(config.ottla_max_open_segments), connections: count(config.max_connections) };
    let limit = env.disk.open_files_limit();
    let plan = OpenFilesPlan::new(limit, log_dirs, wanted);
    if plan != wanted {
        let OpenFilesPlan { segments, connections } = plan;
        tracing::info!(
            limit,
            segments,
            connections,
            "the limit of open files allows fewer connections or open segments than the settings"
        );
    }
    // At run time max.connections may be raised up to what the limit allows.
    let most = OpenFilesPlan { segments: plan.segments, connections: usize::MAX };
    OpenFilesPlan { segments: plan.segments, connections: OpenFilesPlan::new(limit, log_dirs, most).connections }
}

fn log_manager_config(
    config: &BrokerConfig,
    dirs: &[PathBuf],
    cluster_id: Option<String>,
    open_files: OpenFilesPlan,
) -> LogManagerConfig {
    LogManagerConfig {
        cluster_id,
        metadata_dir: Some(config.metadata_dir()),
        limits: LogLimits {
            open_files: open_files.segments,
            tail_cache_bytes: config.ottla_tail_cache_bytes.max(0) as usize,
            producer_id_expiration_ms: config.producer_id_expiration_ms.into(),
            producer_ids: config.ottla_max_producer_ids_per_partition.max(1) as usize,
        },
        recovery_point_checkpoint_interval_ms: config.log_flush_offset_checkpoint_interval_ms.into(),
        log_start_offset_checkpoint_interval_ms: config.log_flush_start_offset_checkpoint_interval_ms.into(),
        high_watermark_checkpoint_interval_ms: config.replica_high_watermark_checkpoint_interval_ms,
        retention_check_interval_ms: config.log_retention_check_interval_ms,
        producer_id_expiration_check_interval_ms: config.producer_id_expiration_check_interval_ms.into(),
        cleaner: cleaner_config(config),
        ..LogManagerConfig::new(dirs.to_vec(), config.node_id)
    }
}

/// The settings of the cleaner, at the start and when they change.
fn cleaner_config(config: &BrokerConfig) -> CleanerConfig {
    CleanerConfig {
        is_enabled: config.log_cleaner_enable,
        threads: usize::try_from(config.log_cleaner_threads).unwrap_or(0),
        backoff_ms: config.log_cleaner_backoff_ms,
        dedupe_buffer_bytes: usize::try_from(config.log_cleaner_dedupe_buffer_size).unwrap_or(0),
        load_factor: config.log_cleaner_io_buffer_load_factor,
        io_buffer_bytes: u64::try_from(config.log_cleaner_io_buffer_size).unwrap_or(0),
        max_bytes_per_second: config.log_cleaner_io_max_bytes_per_second,
    }
}

fn limits(env: &Env, config: &BrokerConfig, most_connections: usize) -> anyhow::Result<Limits> {
    let ms = |ms: i64| Duration::from_millis(ms.max(0) as u64);
    Ok(Limits {
        connections: connection_quota(config, most_connections, connection_overrides(env, config)?.into_iter()),
        request_bytes: config.socket_request_max_bytes.max(0) as usize,
        queued_request_bytes: usize::try_from(config.queued_max_request_bytes).ok().filter(|bytes| *bytes > 0),
        queued_response_bytes: usize::try_from(config.ottla_queued_max_response_bytes).unwrap_or_default(),
        idle: u64::try_from(config.connections_max_idle_ms).ok().map(Duration::from_millis),
        frame_deadline: ms(config.ottla_frame_deadline_ms),
    })
}

/// `max.connections.per.ip.overrides`, with host names resolved once, as Kafka does.
fn connection_overrides(env: &Env, config: &BrokerConfig) -> anyhow::Result<Vec<(IpAddr, i32)>> {
    let mut overrides = Vec::new();
    for (host, count) in config.connection_overrides().map_err(anyhow::Error::msg)? {
        let addresses = env.net.resolve(&host, 0);
        let addresses =
            addresses.with_context(|| format!("cannot resolve {host} of max.connections.per.ip.overrides"))?;
        overrides.extend(addresses.iter().map(|address| (address.ip(), count)));
    }
    Ok(overrides)
}

fn bind<'a>(env: &Env, listeners: impl Iterator<Item = &'a Listener>) -> anyhow::Result<Vec<(Listener, Bound)>> {
    let mut bound = Vec::new();
    for listener in listeners {
        let address = resolve(env, listener.host.as_deref(), listener.port)?;
        let kind = if listener.is_controller { ListenerKind::Controller } else { ListenerKind::Broker };
        let socket = Bound::bind(&*env.net, &listener.name, kind, address)
            .with_context(|| format!("cannot listen on {}://{address}", listener.name))?;
        bound.push((listener.clone(), socket));
    }
    Ok(bound)
}

/// Starts the HTTP pages, if they are configured. They are served from now on, even while the logs are opened.
fn start_console(env: &Env, config: &BrokerConfig) -> anyhow::Result<Option<Console>> {
    let Some((host, port)) = config.http_listener().map_err(anyhow::Error::msg)? else { return Ok(None) };
    let address = resolve(env, host.as_deref(), port)?;
    let console =
        Console::start(env, address).with_context(|| format!("cannot listen on {address} (ottla.http.listener)"))?;
    tracing::info!("metrics are at http://{}/metrics, health at /health, readiness at /ready", console.address());
    Ok(Some(console))
}

/// Without a host returns the wildcard address of all interfaces.
fn resolve(env: &Env, host: Option<&str>, port: u16) -> anyhow::Result<SocketAddr> {
    let Some(host) = host else { return Ok(env.net.wildcard(port)) };
    let addresses =
        env.net.resolve(host, port).with_context(|| format!("cannot resolve the host {host} of a listener"))?;
    // Prefer IPv4, as Java: on many hosts localhost resolves to ::1 first, but clients often use 127.0.0.1.
    let first = addresses.iter().find(|address| address.is_ipv4()).or_else(|| addresses.first());
    first.copied().with_context(|| format!("the host {host} of a listener has no address"))
}

/// The addresses for clients and for other brokers. A broker that is alone and listens on all interfaces tells each
/// client the address that it has reached; other brokers need a name.
fn endpoints(env: &Env, bound: &[(Listener, Bound)], is_alone: bool) -> Vec<Endpoint> {
    let host = |listener: &Listener| match listener.host.as_deref() {
        Some(host) if !matches!(host, "0.0.0.0" | "::") => host.to_owned(),
        _ if is_alone => String::new(),
        _ => env.net.host_name(),
    };
    let endpoint = |(listener, bound): &(Listener, Bound)| {
        let picked = bound.address().port();
        let (host, port) = match &listener.advertised {
            Some(told) => (told.host.clone(), if told.port == 0 { picked } else { told.port }),
            None => (host(listener), picked),
        };
        Endpoint { listener: listener.name.clone(), host, port, security_protocol: 0 }
    };
    bound.iter().map(endpoint).collect()
}

/// Begins the life of this broker at the controller: it is registered, and this node has applied that.
async fn begin_session(
    parts: &Parts,
    channel: Arc<ControllerChannel>,
    registration: RegisterBroker,
    is_only_voter: bool,
) -> anyhow::Result<Arc<Lifecycle>> {
    let cluster_id = parts.log_manager.known_cluster_id().await;
    let lifecycle = Arc::new(Lifecycle {
        env: parts.env.clone(),
        channel,
        publisher: parts.metadata.clone(),
        heartbeat_interval: Duration::from_millis(
            u64::try_from(parts.config.broker_heartbeat_interval_ms).unwrap_or(0),
        ),
        registration: RegisterBroker { cluster_id, ..registration },
        replica_manager: parts.replica_manager.clone(),
        is_leaving: AtomicBool::new(false),
        turn: Mutex::default(),
    });
    if !is_only_voter {
        lifecycle.register().await?;
    }
    Ok(lifecycle)
}

/// The name and the address of the controller listener, as other nodes reach it.
fn own_address(
    env: &Env,
    quorum: &QuorumSettings,
    bound: &[(Listener, Bound)],
) -> Option<(String, ConfiguredEndpoint)> {
    let (name, mut endpoint) = quorum.own.clone()?;
    if endpoint.host.is_empty() {
        endpoint.host = env.net.host_name();
    }
    if endpoint.port == 0 {
        endpoint.port = bound.iter().find(|(listener, _)| listener.name == name)?.1.address().port();
    }
    Some((name, endpoint))
}

/// Makes the task with which a controller becomes a voter by itself, when there is a way to the other controllers.
type MakeJoin = Box<dyn FnOnce(Arc<ControllerChannel>) -> Join + Send>;

/// The metadata quorum as this node has started it.
struct StartedQuorum {
    controller: raft::ControllerHandle,
    /// Whether this node is the only voter.
    is_only_voter: bool,
    /// `None` if this node cannot become a voter.
    join: Option<MakeJoin>,
}

/// What the start of the metadata quorum needs.
struct Quorum<'a> {
    env: &'a Env,
    config: &'a BrokerConfig,
    statics: &'a Arc<StaticConfigs>,
    log_manager: &'a Arc<LogManager>,
    settings: &'a QuorumSettings,
    /// The name of the listener for other brokers.
    inter_broker_listener: &'a str,
    /// The controller listener of this node: its name and its address.
    own: Option<(String, ConfiguredEndpoint)>,
    /// The broker, which the only voter registers itself.
    broker: Option<RegisterBroker>,
}

impl Quorum<'_> {
    async fn start(self, publisher: Arc<Publisher>, open_store: OpenStore) -> anyhow::Result<StartedQuorum> {
        let Quorum { env, config, statics, log_manager, settings, .. } = self;
        let log_config =
            raft::metadata_log::log_config(config.metadata_log_segment_bytes, config.metadata_log_segment_ms);
        let accept_loss = config.ottla_accept_metadata_loss;
        let log = MetadataLog::open(env, log_manager, log_config, accept_loss, !settings.is_alone())
            .context("cannot open the metadata log")?;
        let (dir, is_new) = (log.dir(), log.log_end_offset() == 0);
        let directory_id =
            log_manager.metadata_directory_id(&dir).context("the metadata log is in no log directory")?;
        let identity = Identity { node_id: config.node_id, directory_id };
        let is_listed = settings.is_controller && settings.voters.iter().any(|(id, _)| *id == identity.node_id);
        let mark = (is_listed && !settings.is_alone()).then(|| JoinMark::begin(env.disk.clone(), &dir, is_new));
        let mark = mark.transpose().context("cannot write to the directory of the metadata log")?.flatten();
        let addresses = Arc::new(Addresses::new(&settings.voters, &settings.bootstrap));
        let own = self.own.as_ref();
        let listener = own.map(|(name, endpoint)| VoterEndpoint {
            name: name.clone(),
            host: endpoint.host.clone(),
            port: endpoint.port,
        });
        let cluster: Arc<dyn ClusterIdentity> = log_manager.clone();
        let address = SelfAddress {
            identity,
            broker_incarnation: self.broker.as_ref().map(|broker| broker.incarnation_id).unwrap_or_default(),
            endpoint: own.map(|(_, endpoint)| endpoint.clone()),
            cluster: cluster.clone(),
        };
        let transport = QuorumTransport::new(env, address.clone(), addresses.clone());
        let options = raft::Options {
            identity,
            endpoint: listener.clone(),
            cluster,
            addresses: addresses.clone(),
            dir: dir.clone(),
            voters: self.voters_record(identity),
            transport: transport.clone(),
            settings: ControllerSettings {
                node_id: config.node_id,
                default_num_partitions: config.num_partitions,
                default_replication_factor: config.default_replication_factor as i16,
                delete_topic_enable: config.delete_topic_enable,
                rebalance_interval: config.auto_leader_rebalance_enable.then(|| {
                    Duration::from_secs(u64::try_from(config.leader_imbalance_check_interval_seconds).unwrap_or(1))
                }),
                unclean_election_interval: Duration::from_millis(
                    u64::try_from(config.unclean_leader_election_interval_ms).unwrap_or(0),
                ),
                broker_session_timeout: Duration::from_millis(
                    u64::try_from(config.broker_session_timeout_ms).unwrap_or(0),
                ),
                broker_silence_timeout: u64::try_from(config.ottla_broker_silence_timeout_ms)
                    .ok()
                    .filter(|ms| *ms > 0)
                    .map(Duration::from_millis),
                inter_broker_listener: self.inter_broker_listener.to_owned(),
                max_partitions: usize::try_from(config.ottla_max_partitions).unwrap_or(0),
                max_metadata_bytes: usize::try_from(config.ottla_metadata_max_bytes).unwrap_or(usize::MAX),
            },
            schema: Arc::new(crate::controller::schema::SettingsSchema::new(config.node_id, statics.clone())),
            max_bytes_between_snapshots: config.metadata_log_max_record_bytes_between_snapshots.max(0) as u64,
            accept_loss,
            broker: self.broker,
        };
        let store = open_store(env, &dir);
        let started = raft::start(env, options, Box::new(log), store, publisher).await;
        let controller = started.context("cannot start the metadata quorum")?.controller;
        transport.report_to(controller.clone());
        let follow = raft::follow(env.clone(), address.clone(), controller.clone());
        env.tasks.spawn_until_stopped("follow the quorum", follow);
        let voters = addresses.voters();
        let is_only_voter = voters.voters.len() == 1 && voters.contains(identity);
        let join = listener.filter(|_| settings.is_controller).map(|listener| {
            let (env, controller) = (env.clone(), controller.clone());
            let is_automatic = config.controller_quorum_auto_join_enable;
            let join: MakeJoin = Box::new(move |channel| Join {
                env,
                own: address,
                listener,
                controller,
                channel,
                is_automatic,
                is_listed,
                mark,
            });
            join
        });
        Ok(StartedQuorum { controller, is_only_voter, join })
    }

    /// The voters of a new cluster. The directories of the others are not known yet. A node that is to be added to a
    /// cluster knows no voters.
    fn voters_record(&self, Identity { node_id: own, directory_id }: Identity) -> VotersRecord {
        let name = self.own.as_ref().map_or_else(
            || self.config.controller_listener_names.first().cloned().unwrap_or_default(),
            |(name, _)| name.clone(),
        );
        let voter = |voter_id: BrokerId, endpoint: Option<&ConfiguredEndpoint>| Voter {
            voter_id,
            voter_directory_id: if voter_id == own { directory_id } else { Uuid::nil() },
            endpoints: endpoint
                .into_iter()
                .map(|at| VoterEndpoint { name: name.clone(), host: at.host.clone(), port: at.port })
                .collect(),
            kraft_version_feature: KRaftVersionFeature { min_supported_version: 0, max_supported_version: 1 },
        };
        let voters = match &self.settings.voters[..] {
            [] if self.settings.is_alone() => vec![voter(own, self.own.as_ref().map(|(_, endpoint)| endpoint))],
            voters => voters.iter().map(|(id, endpoint)| voter(*id, Some(endpoint))).collect(),
        };
        VotersRecord { version: 0, voters }
    }
}
