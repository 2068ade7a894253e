//! Finalized features: the levels of a new cluster and the changes that UpdateFeatures allows (Apache:
//! `FeatureControlManager`).
//!
//! Only features that work are supported. A feature that is missing here has level 0, and clients then use the older
//! protocol.
//!
//! Deviations: eligible leader replicas are kept at level 0 of their feature, too. The level only decides where
//! `min.insync.replicas` can be set.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;

use super::{ApiError, ConfigSchema, Step, StepContext, configs};
use crate::{
    metadata::{
        ELR_FEATURE, KRAFT_VERSION_FEATURE, METADATA_VERSION_FEATURE,
        image::MetadataImage,
        records::{BeginTransactionRecord, EndTransactionRecord, FeatureLevelRecord, MetadataRecord},
    },
    types::BrokerId,
};

/// The level of new clusters: Kafka 4.3-IV0.
pub const LATEST_METADATA_VERSION: i16 = 30;
/// The lowest level whose records can be read: Kafka 3.3-IV3.
pub const MINIMUM_METADATA_VERSION: i16 = 7;
/// The voters are stored in the log (KIP-853), so that a quorum of one can grow to three.
pub const KRAFT_VERSION: i16 = 1;
/// Eligible leader replicas (KIP-966).
const ELR_VERSION: i16 = 1;

/// Name → supported (min, max), as brokers register it and ApiVersions reports it.
pub fn supported_features() -> BTreeMap<String, (i16, i16)> {
    BTreeMap::from([
        (METADATA_VERSION_FEATURE.to_owned(), (MINIMUM_METADATA_VERSION, LATEST_METADATA_VERSION)),
        (KRAFT_VERSION_FEATURE.to_owned(), (0, KRAFT_VERSION)),
        (ELR_FEATURE.to_owned(), (0, ELR_VERSION)),
    ])
}

/// Kafka's features that Ottla does not support yet. Their level is 0.
const UNSUPPORTED_FEATURES: [&str; 4] = ["transaction.version", "group.version", "share.version", "streams.version"];

/// The first records of a new cluster's log (Apache: `ActivationRecordsGenerator`).
pub fn bootstrap_records(schema: &dyn ConfigSchema) -> Vec<MetadataRecord> {
    let level = |name: &str, feature_level| FeatureLevelRecord { name: name.into(), feature_level }.into();
    let mut records = vec![
        BeginTransactionRecord { name: Some("Bootstrap records".into()) }.into(),
        level(METADATA_VERSION_FEATURE, LATEST_METADATA_VERSION),
        level(ELR_FEATURE, ELR_VERSION),
    ];
    records.extend(configs::unify_min_isr(&MetadataImage::default(), schema));
    records.push(EndTransactionRecord {}.into());
    records
}

/// The upgrade types of the UpdateFeatures request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeType {
    Unknown,
    Upgrade,
    SafeDowngrade,
    UnsafeDowngrade,
}

/// UpdateFeatures.
#[derive(Debug, Clone, Default)]
pub struct UpdateFeatures {
    pub updates: BTreeMap<String, (i16, UpgradeType)>,
    pub validate_only: bool,
}

pub type UpdateFeaturesReply = Result<(), ApiError>;

/// A10: all updates or none.
pub fn update_features(
    image: &MetadataImage,
    context: &mut StepContext<'_>,
    request: UpdateFeatures,
) -> Step<UpdateFeaturesReply> {
    let mut records = Vec::new();
    for (name, (level, upgrade_type)) in &request.updates {
        if let Err(reason) = check_update(context.settings.node_id, image, name, *level, *upgrade_type) {
            let message =
                format!("The update failed for all features since the following feature had an error: {reason}");
            return Step::reply(Err(ApiError::new(ResponseError::InvalidUpdateVersion, message)));
        }
        if name == ELR_FEATURE && *level > 0 {
            records.extend(configs::unify_min_isr(image, context.schema));
        }
        if name != KRAFT_VERSION_FEATURE {
            records.push(FeatureLevelRecord { name: name.clone(), feature_level: *level }.into());
        }
    }
    Step { records, reply: Ok(()) }.without_records_if(request.validate_only)
}

fn check_update(
    node_id: BrokerId,
    image: &MetadataImage,
    name: &str,
    level: i16,
    upgrade_type: UpgradeType,
) -> Result<(), String> {
    check_level(node_id, image, name, level, upgrade_type)
        .map_err(|reason| format!("Invalid update version {level} for feature {name}. {reason}"))?;
    let current = image.feature_level(name);
    if name == METADATA_VERSION_FEATURE && level < current {
        // Ottla can read records of an older level but cannot write them.
        let reason = match upgrade_type {
            UpgradeType::UnsafeDowngrade => "Unsafe metadata downgrade is not supported in this version.",
            _ => "Refusing to perform the requested downgrade because it might delete metadata information.",
        };
        return Err(format!("Unsupported metadata.version downgrade from {current} to {level}. {reason}"));
    }
    Ok(())
}

fn check_level(
    node_id: BrokerId,
    image: &MetadataImage,
    name: &str,
    level: i16,
    upgrade_type: UpgradeType,
) -> Result<(), String> {
    if upgrade_type == UpgradeType::Unknown {
        return Err("The controller does not support the given upgrade type.".into());
    }
    if level < 0 {
        return Err("A feature version cannot be less than 0.".into());
    }
    let supported = supported_features().get(name).copied();
    check_support(&format!("Local controller {node_id}"), supported, level)?;
    for (id, broker) in image.brokers.iter() {
        check_support(&format!("Broker {id}"), broker.features.get(name).copied(), level)?;
    }
    if supported.is_none() && !UNSUPPORTED_FEATURES.contains(&name) {
        return Err(format!("Feature {name} not found."));
    }
    let current = if name == KRAFT_VERSION_FEATURE { KRAFT_VERSION } else { image.feature_level(name) };
    if level < current && upgrade_type == UpgradeType::Upgrade {
        return Err("Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade.".into());
    }
    if level > current && upgrade_type != UpgradeType::Upgrade {
        return Err("Can't downgrade to a newer version.".into());
    }
    if name == KRAFT_VERSION_FEATURE && level != current {
        return Err("Can't downgrade the version of this feature.".into());
    }
    Ok(())
}

/// Apache: `QuorumFeatures.reasonNotSupported`.
fn check_support(who: &str, supported: Option<(i16, i16)>, level: i16) -> Result<(), String> {
    let (min, max) = supported.unwrap_or((0, 0));
    match (min..=max).contains(&level) {
        true => Ok(()),
        false if max == 0 => Err(format!("{who} does not support this feature.")),
        false => Err(format!("{who} only supports versions {min}-{max}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        controller::{
            configs::{
                AlterOp, IncrementalAlterConfigs, LegacyAlterConfigs, incremental_alter_configs, legacy_alter_configs,
            },
            testing::*,
        },
        metadata::image::{BrokerRegistration, ConfigResource},
    };

    fn update(name: &str, level: i16, upgrade_type: UpgradeType) -> UpdateFeaturesReply {
        let mut image = MetadataImage::default();
        apply(&mut image, &bootstrap_records(&TestSchema));
        let request = UpdateFeatures {
            updates: BTreeMap::from([(name.to_owned(), (level, upgrade_type))]),
            validate_only: false,
        };
        with_context(|context| update_features(&image, context, request)).reply
    }

    #[test]
    fn a10_only_levels_that_work_can_be_finalized() {
        assert_eq!(update("metadata.version", 30, UpgradeType::Upgrade), Ok(()));
        let refused = |name, level, upgrade_type| update(name, level, upgrade_type).unwrap_err();
        assert_eq!(refused("transaction.version", 2, UpgradeType::Upgrade).error, ResponseError::InvalidUpdateVersion);
        assert!(
            refused("transaction.version", 2, UpgradeType::Upgrade)
                .message
                .unwrap()
                .contains("does not support this feature")
        );
        assert!(
            refused("kraft.version", 0, UpgradeType::SafeDowngrade)
                .message
                .unwrap()
                .contains("Can't downgrade the version of this feature.")
        );
        let downgrade = refused("metadata.version", 20, UpgradeType::SafeDowngrade).message.unwrap();
        assert!(downgrade.contains("Unsupported metadata.version downgrade from 30 to 20. Refusing"), "{downgrade}");
        assert_eq!(update("group.version", 0, UpgradeType::Upgrade), Ok(()), "its current level");
        let unknown = refused("nope", 0, UpgradeType::Upgrade).message.unwrap();
        assert!(unknown.ends_with("Invalid update version 0 for feature nope. Feature nope not found."), "{unknown}");
        assert!(
            refused("metadata.version", 31, UpgradeType::Upgrade).message.unwrap().contains("only supports versions")
        );
    }

    #[test]
    fn a_new_cluster_reports_metadata_version_30_and_nothing_that_does_not_work() {
        let mut image = MetadataImage::default();
        apply(&mut image, &bootstrap_records(&TestSchema));
        let levels = [("metadata.version".to_owned(), 30), ("eligible.leader.replicas.version".to_owned(), 1)];
        assert_eq!(*image.features, BTreeMap::from(levels));
        assert!(!supported_features().contains_key("transaction.version"));
    }

    #[test]
    fn elr_makes_min_insync_replicas_one_setting_of_the_whole_cluster() {
        const MIN_ISR: &str = "min.insync.replicas";
        let mut image = image_with_brokers(&[1, 2]);
        let supported = |broker: &mut BrokerRegistration| broker.features = supported_features();
        for id in [1, 2] {
            edit_broker(&mut image, id, supported);
        }
        let cluster = ConfigResource::default_broker();
        let set = |image: &mut MetadataImage, resource: &ConfigResource, op, value: Option<&str>| {
            let changes = vec![(MIN_ISR.to_owned(), op, value.map(str::to_owned))];
            let resources = vec![(resource.clone(), changes)];
            let request = IncrementalAlterConfigs { resources, validate_only: false };
            let mut step = with_context(|context| incremental_alter_configs(image, context, request));
            apply(image, &step.records);
            step.reply.remove(0).map_err(|error| error.message.unwrap())
        };
        let level = |image: &mut MetadataImage, level, upgrade_type| {
            let updates = BTreeMap::from([(ELR_FEATURE.to_owned(), (level, upgrade_type))]);
            let request = UpdateFeatures { updates, validate_only: false };
            let step = with_context(|context| update_features(image, context, request));
            apply(image, &step.records);
            step.reply.map_err(|error| error.message.unwrap())
        };
        let values = |image: &MetadataImage| {
            let of = |resource: &ConfigResource| image.config(resource).and_then(|all| all.get(MIN_ISR)).cloned();
            [of(&cluster), of(&ConfigResource::broker(1)), of(&ConfigResource::broker(2))]
        };

        // Without it each broker may have its own, and the cluster none.
        assert_eq!(set(&mut image, &ConfigResource::broker(2), AlterOp::Set, Some("2")), Ok(()));
        edit_broker(&mut image, 2, |broker| broker.features.clear());
        let refused = level(&mut image, 1, UpgradeType::Upgrade).unwrap_err();
        assert!(refused.ends_with("Broker 2 does not support this feature."), "{refused}");
        edit_broker(&mut image, 2, supported);
        assert_eq!(level(&mut image, 1, UpgradeType::Upgrade), Ok(()));
        assert_eq!(values(&image), [Some("1".to_owned()), None, None], "the controller's value");

        let of_broker = Err("Broker-level min.insync.replicas cannot be altered while ELR is enabled.".to_owned());
        assert_eq!(set(&mut image, &ConfigResource::broker(1), AlterOp::Set, Some("1")), of_broker);
        assert_eq!(set(&mut image, &ConfigResource::broker(1), AlterOp::Delete, None), of_broker);
        let removed = Err("Cluster-level min.insync.replicas cannot be removed while ELR is enabled.".to_owned());
        assert_eq!(set(&mut image, &cluster, AlterOp::Delete, None), removed);
        assert_eq!(set(&mut image, &cluster, AlterOp::Set, Some("2")), Ok(()));
        let settings = BTreeMap::from([("message.max.bytes".to_owned(), "1000000".to_owned())]);
        let replace = LegacyAlterConfigs { resources: vec![(cluster.clone(), settings)], validate_only: false };
        let step = with_context(|context| legacy_alter_configs(&image, context, replace));
        assert_eq!(step.reply[0].clone().map_err(|error| error.message.unwrap()), removed, "it is not named");

        assert_eq!(level(&mut image, 0, UpgradeType::SafeDowngrade), Ok(()));
        assert_eq!(set(&mut image, &cluster, AlterOp::Delete, None), Ok(()));
        assert_eq!(set(&mut image, &ConfigResource::broker(1), AlterOp::Set, Some("2")), Ok(()));
    }
}
