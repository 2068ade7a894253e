//! Brokers: registration, fencing, heartbeats, controlled shutdown.
//!
//! Owns the records of Apache's `ClusterControlManager` (registrations, log directories that fail while the broker
//! runs) and the broker half of `ReplicationControlManager`. Leaves the sessions of brokers to `sessions.rs`.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use super::{
    ApiError, Step, StepContext,
    partitions::{BrokerChange, leader_and_isr_updates, leaders_without_directories},
    portions::PORTION,
};
use crate::{
    metadata::{
        METADATA_VERSION_FEATURE,
        image::{BrokerRegistration, Endpoint, MetadataImage},
        records::{
            BrokerEndpoint, BrokerFeature, BrokerRegistrationChangeRecord, MetadataRecord, RegisterBrokerRecord,
            UnregisterBrokerRecord,
        },
    },
    types::{BrokerId, Offset},
};

const FENCE: i8 = 1;
const UNFENCE: i8 = -1;

/// BrokerRegistration: a new broker process registers. It starts fenced.
#[derive(Debug, Clone)]
pub struct RegisterBroker {
    pub cluster_id: String,
    pub broker_id: BrokerId,
    /// Random per process.
    pub incarnation_id: Uuid,
    pub endpoints: Vec<Endpoint>,
    /// Feature name → supported (min, max).
    pub features: BTreeMap<String, (i16, i16)>,
    pub rack: Option<String>,
    pub log_dirs: Vec<Uuid>,
    /// The broker epoch that the last process has stored when it stopped cleanly; -1 if it did not (KIP-966).
    pub previous_broker_epoch: i64,
}

/// The broker epoch, which is the offset of the registration.
pub type RegisterBrokerReply = Result<i64, ApiError>;

/// A new incarnation first loses all leaderships of the old one and leaves all ISRs, as in Apache's
/// `handleBrokerShutdown`. So the leader epochs of its partitions rise, and the log ends of the two processes are not
/// confused. A process that has not stopped cleanly may have lost records that it had acknowledged: the new one is no
/// eligible leader (ELR) either.
pub fn register_broker(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    request: RegisterBroker,
) -> Step<RegisterBrokerReply> {
    match check_registration(image, &request) {
        Ok(()) => {}
        Err(error) => return Step::reply(Err(error)),
    }
    let existing = image.broker(request.broker_id);
    let same_incarnation = existing.filter(|broker| broker.incarnation_id == request.incarnation_id || planted!("A10"));
    let mut record = registration_record(&request);
    let mut records = Vec::new();
    match same_incarnation {
        Some(broker) => {
            record.fenced = broker.fenced;
            record.in_controlled_shutdown = broker.in_controlled_shutdown;
            record.broker_epoch = broker.epoch;
        }
        None => {
            record.broker_epoch = context.next_write_offset;
            if let Some(existing) = existing {
                let is_clean = existing.epoch == request.previous_broker_epoch || planted!("A21");
                let lost = || BrokerChange::is_lost(request.broker_id);
                let change = if is_clean { BrokerChange::leaves(request.broker_id) } else { lost() };
                if !planted!("A11") {
                    records = leader_and_isr_updates(image, context.schema, change).collect();
                }
            }
        }
    }
    let epoch = record.broker_epoch;
    records.push(record.into());
    Step { records, reply: Ok(epoch) }
}

/// Refuses another broker under the id of one that runs. A process that holds the directories of the last one has
/// followed it, since their lock admits only one. A node that registers its own broker need not ask.
pub fn check_not_taken(image: &MetadataImage, request: &RegisterBroker) -> Result<(), ApiError> {
    let running = image.broker(request.broker_id).filter(|broker| !broker.fenced);
    let is_other = running.is_some_and(|running| {
        running.incarnation_id != request.incarnation_id
            // linear: a broker has a few log directories
            && !request.log_dirs.iter().any(|directory| running.directories.contains(directory))
    });
    if !is_other {
        return Ok(());
    }
    let message = "Another broker is registered with that broker id. If the broker was recently restarted this should \
                   self-resolve once the heartbeat manager expires the broker's session.";
    Err(ApiError::new(ResponseError::DuplicateBrokerRegistration, message))
}

fn check_registration(image: &MetadataImage, request: &RegisterBroker) -> Result<(), ApiError> {
    let invalid = |message: String| Err(ApiError::new(ResponseError::InvalidRegistration, message));
    if *image.cluster_id != request.cluster_id {
        let message = format!("Expected cluster ID {}, but got cluster ID {}", image.cluster_id, request.cluster_id);
        return Err(ApiError::new(ResponseError::InconsistentClusterId, message));
    }
    if request.log_dirs.is_empty() {
        return invalid("No directories specified in request".into());
    }
    // linear: a broker has a few log directories
    if request.log_dirs.iter().any(|directory| directory.as_u128() < 100) {
        return invalid("Reserved directory ID in request".into());
    }
    for (at, directory) in request.log_dirs.iter().enumerate() {
        // linear: a broker has a few log directories
        if request.log_dirs[..at].contains(directory) {
            return invalid("Duplicate directory ID in request".into());
        }
        // linear: for each log directory of a broker that registers
        let other = image
            .brokers
            .values()
            .find(|broker| broker.id != request.broker_id && broker.directories.contains(directory));
        if let Some(other) = other {
            return invalid(format!(
                "Broker {} is already registered with directory {}",
                other.id,
                crate::types::uuid_to_base64(*directory)
            ));
        }
    }
    if !request.features.contains_key(METADATA_VERSION_FEATURE) {
        return invalid(format!("Request features do not contain '{METADATA_VERSION_FEATURE}'"));
    }
    for (name, level) in image.features.iter() {
        let (min, max) = request.features.get(name).copied().unwrap_or((0, 0));
        if !(min..=max).contains(level) {
            let message = format!(
                "Unable to register because the broker does not support finalized version {level} of {name}. The broker wants a version between \
                 {min} and {max}, inclusive."
            );
            return Err(ApiError::new(ResponseError::UnsupportedVersion, message));
        }
    }
    Ok(())
}

fn registration_record(request: &RegisterBroker) -> RegisterBrokerRecord {
    let end_point = |endpoint: &Endpoint| BrokerEndpoint {
        name: endpoint.listener.clone(),
        host: endpoint.host.clone(),
        port: endpoint.port,
        security_protocol: endpoint.security_protocol,
    };
    let feature = |(name, (min, max)): (&String, &(i16, i16))| BrokerFeature {
        name: name.clone(),
        min_supported_version: *min,
        max_supported_version: *max,
    };
    RegisterBrokerRecord {
        broker_id: request.broker_id,
        incarnation_id: request.incarnation_id,
        end_points: request.endpoints.iter().map(end_point).collect(),
        features: request.features.iter().map(feature).collect(),
        rack: request.rack.clone(),
        log_dirs: request.log_dirs.clone(),
        ..Default::default()
    }
}

/// BrokerHeartbeat: the state that the broker asks for.
#[derive(Debug, Clone)]
pub struct BrokerHeartbeat {
    pub broker_id: BrokerId,
    pub broker_epoch: i64,
    pub want_fence: bool,
    pub want_shut_down: bool,
    /// Log directories that have failed since the broker registered (KIP-858).
    pub offline_log_dirs: Vec<Uuid>,
    /// Brokers that the controller fences next, as it fences this one: none of them may lead instead.
    pub also_lost: Vec<BrokerId>,
}

impl BrokerHeartbeat {
    /// The heartbeat of a broker that wants to serve.
    pub fn new(broker_id: BrokerId, broker_epoch: i64) -> Self {
        BrokerHeartbeat {
            broker_id,
            broker_epoch,
            want_fence: false,
            want_shut_down: false,
            offline_log_dirs: Vec::new(),
            also_lost: Vec::new(),
        }
    }
}

/// The state of the broker after a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerState {
    pub is_fenced: bool,
    pub should_shut_down: bool,
    /// A broker that has applied this offset knows what the controller knew. -1 if the controller is on the same node,
    /// whose replies wait for that; `None` if the controller does not tell.
    pub metadata_offset: Option<Offset>,
}

pub type BrokerHeartbeatReply = Result<BrokerState, ApiError>;

/// Apache: `processBrokerHeartbeat`, the transitions between fenced, unfenced and shutting down.
pub fn broker_heartbeat(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    request: BrokerHeartbeat,
) -> Step<BrokerHeartbeatReply> {
    if let Err(error) = check_broker_epoch(image, request.broker_id, request.broker_epoch) {
        return Step::reply(Err(error));
    }
    let Some(broker) = image.broker(request.broker_id) else {
        return Step::reply(Err(ApiError::code_only(ResponseError::BrokerIdNotRegistered)));
    };
    let change = |fenced: i8, in_controlled_shutdown: i8| {
        MetadataRecord::from(BrokerRegistrationChangeRecord {
            broker_id: request.broker_id,
            broker_epoch: request.broker_epoch,
            fenced,
            in_controlled_shutdown,
            ..Default::default()
        })
    };
    let electable = without_leaders(image, &request.also_lost);
    let updates = |change| leader_and_isr_updates(&electable, context.schema, change).collect::<Vec<_>>();
    let leave = BrokerChange::leaves(request.broker_id);
    let (mut records, is_fenced, should_shut_down) = if request.want_shut_down && broker.fenced {
        (Vec::new(), true, true)
    } else if request.want_shut_down && !request.want_fence && leads_any(image, request.broker_id) {
        // The controlled shutdown begins: other replicas lead, or none does. The broker goes on until they have learned
        // that, and asks again. If there is no other broker, nobody has to learn anything.
        let mut records: Vec<_> = (!broker.in_controlled_shutdown).then(|| change(0, 1)).into_iter().collect();
        records.extend(updates(leave));
        let is_alone = image.alive_brokers().all(|alive| alive.id == request.broker_id);
        (records, false, is_alone)
    } else if request.want_shut_down {
        // The broker leads nothing: it may stop at once.
        let mut records: Vec<_> = updates(leave);
        records.push(change(FENCE, 0));
        (records, true, true)
    } else if request.want_fence && !broker.fenced {
        let mut records: Vec<_> = if planted!("M3") { Vec::new() } else { updates(leave) };
        records.push(change(FENCE, 0));
        (records, true, false)
    } else if !request.want_fence && broker.fenced {
        let mut records = vec![change(UNFENCE, 0)];
        records.extend(updates(BrokerChange::returns(request.broker_id)));
        (records, false, false)
    } else {
        (Vec::new(), broker.fenced, false)
    };
    if records.is_empty() {
        records = directories_offline(image, context, broker, &request.offline_log_dirs);
    }
    Step { records, reply: Ok(BrokerState { is_fenced, should_shut_down, metadata_offset: Some(-1) }) }
}

/// The image for elections in which these brokers must not win.
fn without_leaders<'a>(image: &'a MetadataImage, lost: &[BrokerId]) -> Cow<'a, MetadataImage> {
    let mut image = Cow::Borrowed(image);
    for broker in lost {
        if let Some(registration) = image.broker(*broker) {
            let leaving =
                BrokerRegistration { in_controlled_shutdown: true, ..BrokerRegistration::clone(registration) };
            Arc::make_mut(&mut image.to_mut().brokers).insert(*broker, Arc::new(leaving));
        }
    }
    image
}

fn leads_any(image: &MetadataImage, broker: BrokerId) -> bool {
    let mut partitions = image.topics.by_name.values().flat_map(|topic| topic.partitions.values());
    partitions.any(|partition| partition.leader == broker)
}

/// Apache: `handleDirectoriesOffline`. Removes the directories from the registration. Partitions whose leader has its
/// replica there get another leader, or none; the last in-sync replica stays in the ISR. A broker that loses its last
/// directory stops itself.
fn directories_offline(
    image: &MetadataImage,
    context: &StepContext<'_>,
    broker: &BrokerRegistration,
    offline: &[Uuid],
) -> Vec<MetadataRecord> {
    // linear: a broker has a few log directories
    let (lost, online): (Vec<Uuid>, Vec<Uuid>) =
        broker.directories.iter().copied().partition(|directory| offline.contains(directory));
    if lost.is_empty() || online.is_empty() {
        return Vec::new();
    }
    let change = BrokerRegistrationChangeRecord {
        broker_id: broker.id,
        broker_epoch: broker.epoch,
        log_dirs: online,
        ..Default::default()
    };
    let mut records = leaders_without_directories(image, context.schema, broker.id, &lost);
    records.push(change.into());
    records
}

/// Apache: `ClusterControlManager.checkBrokerEpoch`.
pub(super) fn check_broker_epoch(
    image: &MetadataImage,
    broker_id: BrokerId,
    broker_epoch: i64,
) -> Result<(), ApiError> {
    let stale = |message: String| Err(ApiError::new(ResponseError::StaleBrokerEpoch, message));
    match image.broker(broker_id) {
        None => stale(format!("No broker registration found for broker id {broker_id}")),
        Some(broker) if broker.epoch != broker_epoch => {
            stale(format!("Expected broker epoch {}, but got broker epoch {broker_epoch}", broker.epoch))
        }
        Some(_) => Ok(()),
    }
}

/// UnregisterBroker: removes a broker that will not come back. It is repeated until the reply is
/// [`Unregistration::Done`], so that other requests get their turn while very many partitions lose their leader.
#[derive(Debug, Clone)]
pub struct UnregisterBroker {
    pub broker_id: BrokerId,
}

/// The state after one portion of an UnregisterBroker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unregistration {
    /// Some partitions have lost their leader; the broker is still registered.
    Begun,
    Done,
}

pub type UnregisterBrokerReply = Result<Unregistration, ApiError>;

pub fn unregister_broker(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    request: UnregisterBroker,
) -> Step<UnregisterBrokerReply> {
    let Some(broker) = image.broker(request.broker_id) else {
        let message = format!("Broker ID {} is not currently registered", request.broker_id);
        return Step::reply(Err(ApiError::new(ResponseError::BrokerIdNotRegistered, message)));
    };
    let change = BrokerChange::is_lost(request.broker_id);
    let mut updates = leader_and_isr_updates(image, context.schema, change);
    let mut records: Vec<MetadataRecord> = updates.by_ref().take(PORTION).collect();
    if updates.next().is_some() {
        return Step { records, reply: Ok(Unregistration::Begun) };
    }
    records.push(UnregisterBrokerRecord { broker_id: broker.id, broker_epoch: broker.epoch }.into());
    Step { records, reply: Ok(Unregistration::Done) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{
        directories::{AssignReplicasToDirs, assign_replicas_to_dirs},
        testing::*,
    };

    fn registration(incarnation: u128) -> RegisterBroker {
        RegisterBroker {
            cluster_id: "cluster".into(),
            broker_id: 1,
            incarnation_id: Uuid::from_u128(incarnation),
            endpoints: vec![],
            features: BTreeMap::from([("metadata.version".into(), (7, 30))]),
            rack: None,
            log_dirs: vec![Uuid::from_u128(1001)],
            previous_broker_epoch: -1,
        }
    }

    fn register(image: &mut MetadataImage, request: RegisterBroker) -> RegisterBrokerReply {
        let step = with_context(|context| register_broker(image, context, request));
        apply(image, &step.records);
        step.reply
    }

    fn heartbeat(image: &mut MetadataImage, want_fence: bool, want_shut_down: bool) -> BrokerState {
        heartbeat_of(image, 1, want_fence, want_shut_down)
    }

    fn heartbeat_of(image: &mut MetadataImage, id: BrokerId, want_fence: bool, want_shut_down: bool) -> BrokerState {
        let broker_epoch = image.broker(id).unwrap().epoch;
        let request = BrokerHeartbeat { want_fence, want_shut_down, ..BrokerHeartbeat::new(id, broker_epoch) };
        let step = with_context(|context| broker_heartbeat(image, context, request));
        apply(image, &step.records);
        step.reply.unwrap()
    }

    #[test]
    fn a_second_broker_under_the_id_of_one_that_runs_is_refused_but_a_restart_is_not() {
        let mut image = MetadataImage { cluster_id: "cluster".into(), ..Default::default() };
        let epoch = register(&mut image, registration(1)).unwrap();
        let step = with_context(|context| broker_heartbeat(&image, context, BrokerHeartbeat::new(1, epoch)));
        apply(&mut image, &step.records);
        let elsewhere = RegisterBroker { log_dirs: vec![Uuid::from_u128(2002)], ..registration(2) };
        let refused = check_not_taken(&image, &elsewhere).unwrap_err();
        assert_eq!(refused.error, ResponseError::DuplicateBrokerRegistration);
        assert_eq!(check_not_taken(&image, &registration(3)), Ok(()), "the same directories: the broker was restarted");
        register(&mut image, registration(3)).unwrap();
        // It is fenced now, as each broker that starts.
        assert_eq!(check_not_taken(&image, &elsewhere), Ok(()), "the disk of a broker that does not run was replaced");
    }

    #[test]
    fn a_broker_registers_fenced_and_is_unfenced_by_its_heartbeat() {
        let mut image = MetadataImage { cluster_id: "cluster".into(), ..Default::default() };
        assert_eq!(
            register(&mut image, registration(1)),
            Ok(100),
            "the broker epoch is the offset of the registration"
        );
        assert!(image.broker(1).unwrap().fenced);
        assert_eq!(
            heartbeat(&mut image, false, false),
            BrokerState { is_fenced: false, should_shut_down: false, metadata_offset: Some(-1) }
        );
        assert!(image.broker(1).unwrap().is_active());
    }

    #[test]
    fn a_restart_raises_leader_epochs_and_the_same_incarnation_only_amends() {
        let mut image = image_with_brokers(&[1]);
        add_topic(&mut image, "t", &[&[1]]);
        assert_eq!(register(&mut image, registration(9)), Ok(100));
        assert_eq!(image.partition("t", 0).unwrap().leader, -1, "no leader while it is fenced");
        heartbeat(&mut image, false, false);
        let partition = image.partition("t", 0).unwrap();
        assert_eq!((partition.leader, partition.leader_epoch), (1, 2));
        assert_eq!(register(&mut image, registration(9)), Ok(100));
        let partition = image.partition("t", 0).unwrap();
        assert_eq!((partition.leader, partition.leader_epoch), (1, 2));
        assert!(!image.broker(1).unwrap().fenced);
    }

    #[test]
    fn inv_m3_a_fenced_or_leaving_broker_leads_nothing() {
        let mut image = image_with_brokers(&[1]);
        add_topic(&mut image, "t", &[&[1]]);
        assert!(heartbeat(&mut image, true, false).is_fenced);
        assert_eq!(image.partition("t", 0).unwrap().leader, -1);
        heartbeat(&mut image, false, false);
        assert_eq!(image.partition("t", 0).unwrap().leader, 1);
        assert!(heartbeat(&mut image, false, true).should_shut_down);
        assert_eq!(image.partition("t", 0).unwrap().leader, -1);
        assert!(image.broker(1).unwrap().in_controlled_shutdown);
    }

    /// Leader, leader epoch, ISR, ELR and the last known leader.
    fn state(image: &MetadataImage, topic: &str) -> (BrokerId, i32, Vec<BrokerId>, Vec<BrokerId>, Vec<BrokerId>) {
        let partition = image.partition(topic, 0).unwrap().clone();
        (partition.leader, partition.leader_epoch, partition.isr, partition.elr, partition.last_known_elr)
    }

    fn replicated(replicas: &[BrokerId], min_isr: usize) -> MetadataImage {
        let mut image = image_with_brokers(replicas);
        add_topic(&mut image, "t", &[replicas]);
        set_config(&mut image, "t", "min.insync.replicas", &min_isr.to_string());
        image
    }

    #[test]
    fn c5_a_new_incarnation_gets_another_broker_epoch_even_while_the_last_one_lives() {
        let mut image = replicated(&[1, 2], 1);
        assert_eq!(register(&mut image, registration(9)), Ok(100));
        assert_eq!(state(&image, "t"), (2, 1, vec![2], vec![], vec![]));
        edit_broker(&mut image, 1, |broker| broker.epoch = 50);
        assert_eq!(register(&mut image, registration(9)), Ok(50), "the same incarnation keeps its epoch");
        assert_eq!(register(&mut image, registration(10)), Ok(100));
    }

    #[test]
    fn c6_an_unclean_restart_leaves_the_isr_and_the_eligible_leaders() {
        let mut image = replicated(&[1, 2, 3], 3);
        let unclean = |image: &mut MetadataImage, id: BrokerId| {
            let log_dirs = vec![Uuid::from_u128(1000 + id as u128)];
            register(image, RegisterBroker { broker_id: id, log_dirs, ..registration(9) }).unwrap();
        };
        assert!(heartbeat_of(&mut image, 2, true, false).is_fenced);
        assert_eq!(state(&image, "t"), (1, 0, vec![1, 3], vec![2], vec![]), "it was silent, and keeps its log");
        unclean(&mut image, 2);
        assert_eq!(state(&image, "t"), (1, 0, vec![1, 3], vec![], vec![]));
        unclean(&mut image, 1);
        assert_eq!(state(&image, "t"), (3, 1, vec![3], vec![], vec![]), "the leader epoch rises with the leader");
    }

    /// The first to be fenced led. The other one may have lost records since, and its former incarnation must not lead.
    #[test]
    fn c6_of_several_lost_brokers_none_leads_instead_of_another() {
        let mut image = replicated(&[1, 2], 2);
        let first = BrokerHeartbeat { want_fence: true, also_lost: vec![2], ..BrokerHeartbeat::new(1, 1) };
        let first = BrokerHeartbeat { broker_epoch: image.broker(1).unwrap().epoch, ..first };
        let step = with_context(|context| broker_heartbeat(&image, context, first));
        apply(&mut image, &step.records);
        assert!(!image.broker(2).unwrap().in_controlled_shutdown);
        heartbeat_of(&mut image, 2, true, false);
        assert_eq!(state(&image, "t"), (-1, 1, vec![], vec![1, 2], vec![1]));
        for id in [2, 1] {
            let log_dirs = vec![Uuid::from_u128(1000 + id as u128)];
            register(&mut image, RegisterBroker { broker_id: id, log_dirs, ..registration(9) }).unwrap();
            heartbeat_of(&mut image, id, false, false);
            assert_eq!(state(&image, "t").0, if id == 1 { 1 } else { -1 }, "the last leader leads again");
        }
    }

    #[test]
    fn c6_a_clean_restart_stays_an_eligible_leader() {
        let mut image = replicated(&[1, 2], 2);
        assert!(!heartbeat(&mut image, false, true).should_shut_down);
        assert!(heartbeat(&mut image, false, true).should_shut_down);
        assert_eq!(state(&image, "t"), (2, 1, vec![2], vec![1], vec![]));
        register(&mut image, RegisterBroker { previous_broker_epoch: 5, ..registration(9) }).unwrap();
        assert_eq!(state(&image, "t"), (2, 1, vec![2], vec![1], vec![]));
        // The other one fails: this one has all committed records, since none was committed meanwhile.
        heartbeat_of(&mut image, 2, true, false);
        assert_eq!(state(&image, "t"), (-1, 2, vec![], vec![1, 2], vec![2]));
        heartbeat(&mut image, false, false);
        assert_eq!(state(&image, "t"), (1, 3, vec![1], vec![2], vec![]));
        assert_eq!(image.partition("t", 0).unwrap().leader_recovery_state, 0, "the election was clean");
    }

    #[test]
    fn c6_the_last_replica_that_stood_leads_again_only_if_no_eligible_one_is_left() {
        let mut image = replicated(&[1, 2], 2);
        heartbeat_of(&mut image, 2, true, false);
        register(&mut image, registration(9)).unwrap();
        assert_eq!(state(&image, "t"), (-1, 1, vec![], vec![2], vec![1]), "the last in-sync replica lost its cache");
        heartbeat(&mut image, false, false);
        assert_eq!(state(&image, "t"), (-1, 1, vec![], vec![2], vec![1]), "2 may have records that 1 lacks");
        let mut both_unclean = image.clone();
        heartbeat_of(&mut image, 2, false, false);
        assert_eq!(state(&image, "t"), (2, 2, vec![2], vec![], vec![]));
        // The same, but 2 has lost its cache as well.
        let image = &mut both_unclean;
        heartbeat(image, true, false);
        let two = RegisterBroker { broker_id: 2, log_dirs: vec![Uuid::from_u128(1002)], ..registration(9) };
        register(image, two).unwrap();
        heartbeat_of(image, 2, false, false);
        assert_eq!(state(image, "t"), (-1, 1, vec![], vec![], vec![1]));
        heartbeat(image, false, false);
        assert_eq!(state(image, "t"), (1, 2, vec![1], vec![], vec![]));
        assert_eq!(image.partition("t", 0).unwrap().leader_recovery_state, 1, "the election was unclean");
    }

    #[test]
    fn c6_an_unregistered_broker_is_no_eligible_leader() {
        let mut image = replicated(&[1, 2], 2);
        let unregister = |image: &mut MetadataImage, broker_id: BrokerId| {
            let step = with_context(|context| unregister_broker(image, context, UnregisterBroker { broker_id }));
            assert_eq!(step.reply, Ok(Unregistration::Done));
            apply(image, &step.records);
        };
        heartbeat(&mut image, true, false);
        assert_eq!(state(&image, "t"), (2, 1, vec![2], vec![1], vec![]));
        unregister(&mut image, 1);
        assert_eq!(state(&image, "t"), (2, 1, vec![2], vec![], vec![]));
        unregister(&mut image, 2);
        assert_eq!(state(&image, "t"), (-1, 2, vec![], vec![], vec![2]));
    }

    #[test]
    fn c8_a_controlled_shutdown_moves_all_leaders_at_once_and_the_broker_stops_when_it_leads_nothing() {
        let mut image = image_with_brokers(&[1, 2]);
        for (topic, replicas) in [("both", &[1, 2][..]), ("alone", &[1]), ("elsewhere", &[2])] {
            add_topic(&mut image, topic, &[replicas]);
        }
        let shutting_down = BrokerState { is_fenced: false, should_shut_down: false, metadata_offset: Some(-1) };
        assert_eq!(heartbeat(&mut image, false, true), shutting_down, "the others must hear of it first");
        assert!(image.broker(1).unwrap().in_controlled_shutdown);
        assert_eq!(state(&image, "both"), (2, 1, vec![2], vec![], vec![]));
        assert_eq!(state(&image, "alone"), (-1, 1, vec![1], vec![], vec![]), "nobody else can lead it");
        assert_eq!(
            heartbeat(&mut image, false, true),
            BrokerState { is_fenced: true, should_shut_down: true, metadata_offset: Some(-1) }
        );
        assert_eq!(
            heartbeat(&mut image, false, true),
            BrokerState { is_fenced: true, should_shut_down: true, metadata_offset: Some(-1) }
        );
        // A broker that leads nothing stops at once.
        let mut image = image_with_brokers(&[1, 2]);
        add_topic(&mut image, "both", &[&[2, 1]]);
        assert_eq!(
            heartbeat(&mut image, false, true),
            BrokerState { is_fenced: true, should_shut_down: true, metadata_offset: Some(-1) }
        );
        assert_eq!(state(&image, "both"), (2, 0, vec![2], vec![], vec![]));
    }

    #[test]
    fn a_directory_that_fails_costs_its_partitions_their_leader_and_not_their_isr() {
        let (a, b) = (Uuid::from_u128(1001), Uuid::from_u128(2002));
        let mut image = image_with_brokers(&[1]);
        edit_broker(&mut image, 1, |broker| broker.directories = vec![a, b]);
        for (topic, directory) in [("in-a", a), ("in-b", b)] {
            add_topic(&mut image, topic, &[&[1]]);
            let directories = [((image.topic_id(topic).unwrap(), 0), directory)].into();
            let request =
                AssignReplicasToDirs { broker_id: 1, broker_epoch: image.broker(1).unwrap().epoch, directories };
            let step = with_context(|context| assign_replicas_to_dirs(&image, context, request));
            apply(&mut image, &step.records);
        }
        let state = |image: &MetadataImage, topic: &str| {
            let partition = image.partition(topic, 0).unwrap();
            (partition.leader, partition.leader_epoch, partition.isr.to_vec())
        };
        let fail = |image: &mut MetadataImage, directories: &[Uuid]| {
            let heartbeat = BrokerHeartbeat::new(1, image.broker(1).unwrap().epoch);
            let request = BrokerHeartbeat { offline_log_dirs: directories.to_vec(), ..heartbeat };
            let step = with_context(|context| broker_heartbeat(image, context, request));
            assert_eq!(
                step.reply,
                Ok(BrokerState { is_fenced: false, should_shut_down: false, metadata_offset: Some(-1) })
            );
            apply(image, &step.records);
            step.records.len()
        };
        assert_eq!(fail(&mut image, &[b]), 2);
        assert_eq!(image.broker(1).unwrap().directories, [a]);
        assert_eq!((state(&image, "in-a"), state(&image, "in-b")), ((1, 0, vec![1]), (-1, 1, vec![1])));
        assert_eq!(fail(&mut image, &[b]), 0, "a failed directory is recorded only once");
        assert_eq!(fail(&mut image, &[a, b]), 0, "the broker stops itself when its last directory fails");
        // At the next start the directory works again.
        register(&mut image, RegisterBroker { log_dirs: vec![a, b], ..registration(9) }).unwrap();
        heartbeat(&mut image, false, false);
        assert_eq!((state(&image, "in-a").0, state(&image, "in-b").0), (1, 1));
    }

    #[test]
    fn registrations_that_kafka_refuses() {
        let mut image = image_with_brokers(&[1, 2]);
        let mut refused = |change: &dyn Fn(&mut RegisterBroker)| {
            let mut request = registration(9);
            change(&mut request);
            register(&mut image, request).unwrap_err().error
        };
        assert_eq!(refused(&|request| request.cluster_id = "x".into()), ResponseError::InconsistentClusterId);
        assert_eq!(refused(&|request| request.log_dirs.clear()), ResponseError::InvalidRegistration);
        assert_eq!(refused(&|request| request.log_dirs.push(Uuid::from_u128(5))), ResponseError::InvalidRegistration);
        assert_eq!(
            refused(&|request| request.log_dirs.push(Uuid::from_u128(1002))),
            ResponseError::InvalidRegistration
        );
        assert_eq!(refused(&|request| request.features.clear()), ResponseError::InvalidRegistration);
    }

    #[test]
    fn a10_a_broker_with_very_many_partitions_is_unregistered_in_portions() {
        let mut image = image_with_brokers(&[1, 2]);
        let replicas = [&[1][..]; 3 * PORTION / 10];
        for topic in 0..10 {
            add_topic(&mut image, &format!("alone{topic}"), &replicas);
        }
        add_topic(&mut image, "both", &[&[1, 2]]);
        let mut portions = Vec::new();
        loop {
            let step = with_context(|context| unregister_broker(&image, context, UnregisterBroker { broker_id: 1 }));
            apply(&mut image, &step.records);
            portions.push(step.records.len());
            if step.reply.unwrap() == Unregistration::Done {
                break;
            }
            assert!(image.broker(1).is_some());
        }
        assert_eq!(portions, [PORTION, PORTION, PORTION, 2], "the last one has one partition and the registration");
        assert!(image.broker(1).is_none());
        let leaders = |topic| image.topic(topic).unwrap().partitions.values().map(|partition| partition.leader).max();
        assert_eq!((leaders("alone0"), leaders("alone9"), leaders("both")), (Some(-1), Some(-1), Some(2)));
    }

    #[test]
    fn a10_unregistering_an_unknown_broker() {
        let image = image_with_brokers(&[1]);
        let step = with_context(|context| unregister_broker(&image, context, UnregisterBroker { broker_id: 7 }));
        assert_eq!(
            step.reply,
            Err(ApiError::new(ResponseError::BrokerIdNotRegistered, "Broker ID 7 is not currently registered"))
        );
    }
}
