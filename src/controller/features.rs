//! Finalized features: the levels of a new cluster and the changes that UpdateFeatures allows (Apache:
//! `FeatureControlManager`).
//!
//! Only features that work are supported. A feature that is missing here has level 0, and clients then use the older
//! protocol.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;

use super::{ApiError, Step, StepContext};
use crate::{
    metadata::{
        KRAFT_VERSION_FEATURE, METADATA_VERSION_FEATURE,
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

/// Name → supported (min, max), as brokers register it and ApiVersions reports it.
pub fn supported_features() -> BTreeMap<String, (i16, i16)> {
    BTreeMap::from([
        (METADATA_VERSION_FEATURE.to_owned(), (MINIMUM_METADATA_VERSION, LATEST_METADATA_VERSION)),
        (KRAFT_VERSION_FEATURE.to_owned(), (0, KRAFT_VERSION)),
    ])
}

/// Kafka's features that Ottla does not support yet. Their level is 0.
const UNSUPPORTED_FEATURES: [&str; 5] =
    ["transaction.version", "group.version", "eligible.leader.replicas.version", "share.version", "streams.version"];

/// The first records of a new cluster's log (Apache: `ActivationRecordsGenerator`).
pub fn bootstrap_records() -> Vec<MetadataRecord> {
    vec![
        BeginTransactionRecord { name: Some("Bootstrap records".into()) }.into(),
        FeatureLevelRecord { name: METADATA_VERSION_FEATURE.into(), feature_level: LATEST_METADATA_VERSION }.into(),
        EndTransactionRecord {}.into(),
    ]
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
    let (min, max) = supported.unwrap_or((0, 0));
    if !(min..=max).contains(&level) {
        let what = format!("Local controller {node_id}");
        return Err(if max == 0 {
            format!("{what} does not support this feature.")
        } else {
            format!("{what} only supports versions {min}-{max}")
        });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::*;

    fn update(name: &str, level: i16, upgrade_type: UpgradeType) -> UpdateFeaturesReply {
        let mut image = MetadataImage::default();
        apply(&mut image, &bootstrap_records());
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
        apply(&mut image, &bootstrap_records());
        assert_eq!(*image.features, BTreeMap::from([("metadata.version".to_owned(), 30)]));
        assert!(!supported_features().contains_key("transaction.version"));
    }
}
