//! UpdateFeatures (key 57).
//!
//! Behavior: A10; all updates or none. If a feature is named twice, the last entry wins. The timeout has no effect.
//! Version notes: 0 can only upgrade: its `allow_downgrade` flag has no effect, as in Apache's controller. 1 adds the
//! upgrade types and `validate_only`. 2 has no results of single features.
//! Deviations: features that are not supported yet, such as `transaction.version`, stay at level 0.

use std::collections::BTreeMap;

use kafka_protocol::{
    messages::{
        UpdateFeaturesRequest, UpdateFeaturesResponse, update_features_request::FeatureUpdateKey,
        update_features_response::UpdatableFeatureResult,
    },
    protocol::StrBytes,
};

use super::{RequestContext, authorized::Operation, error_message};
use crate::controller::features::{UpdateFeatures, UpdateFeaturesReply, UpgradeType};

const FIRST_WITHOUT_RESULTS: i16 = 2;

pub(crate) async fn handle(ctx: RequestContext, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
    let version = ctx.api_version;
    let update = async {
        let cluster = ctx.cluster(Operation::Alter)?;
        cluster.controller().update_features(controller_request(&request)).await
    };
    let reply = update.await;
    response(version, request.feature_updates, reply)
}

fn controller_request(request: &UpdateFeaturesRequest) -> UpdateFeatures {
    let updates: BTreeMap<String, (i16, UpgradeType)> = request
        .feature_updates
        .iter()
        .map(|update| (update.feature.to_string(), (update.max_version_level, upgrade_type(update.upgrade_type))))
        .collect();
    UpdateFeatures { updates, validate_only: request.validate_only }
}

fn upgrade_type(id: i8) -> UpgradeType {
    match id {
        1 => UpgradeType::Upgrade,
        2 => UpgradeType::SafeDowngrade,
        3 => UpgradeType::UnsafeDowngrade,
        _ => UpgradeType::Unknown,
    }
}

fn response(version: i16, updates: Vec<FeatureUpdateKey>, reply: UpdateFeaturesReply) -> UpdateFeaturesResponse {
    let response = UpdateFeaturesResponse::default();
    match reply {
        Err(error) => response.with_error_code(error.code()).with_error_message(error_message(&error)),
        Ok(()) if version >= FIRST_WITHOUT_RESULTS => response,
        Ok(()) => response.with_results(updates.into_iter().map(|update| updated(update.feature)).collect()),
    }
}

/// Apache sends "NONE", the name of the error code 0, as the message.
fn updated(feature: StrBytes) -> UpdatableFeatureResult {
    UpdatableFeatureResult::default().with_feature(feature).with_error_message(Some(StrBytes::from_static_str("NONE")))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::{
        error::ResponseError,
        protocol::{Decodable, Encodable},
    };

    use super::*;
    use crate::controller::ApiError;

    fn update(name: &'static str, level: i16, upgrade_type: i8) -> FeatureUpdateKey {
        FeatureUpdateKey::default()
            .with_feature(StrBytes::from_static_str(name))
            .with_max_version_level(level)
            .with_upgrade_type(upgrade_type)
    }

    #[test]
    fn a10_the_last_entry_of_a_feature_wins() {
        let request = UpdateFeaturesRequest::default().with_feature_updates(vec![update("f", 1, 1), update("f", 2, 3)]);
        let updates = controller_request(&request).updates;
        assert_eq!(updates, BTreeMap::from([("f".to_owned(), (2, UpgradeType::UnsafeDowngrade))]));
    }

    #[test]
    fn a10_version_0_only_upgrades() {
        let allowed = update("f", 1, 1).with_allow_downgrade(true);
        let mut bytes = BytesMut::new();
        UpdateFeaturesRequest::default().with_feature_updates(vec![allowed]).encode(&mut bytes, 0).unwrap();
        let request = UpdateFeaturesRequest::decode(&mut bytes, 0).unwrap();
        assert_eq!(controller_request(&request).updates["f"], (1, UpgradeType::Upgrade));
    }

    #[test]
    fn a10_answers_encode_at_every_version() {
        for version in 0..=2 {
            let updates = || vec![update("f", 1, 1), update("f", 1, 1)];
            for (reply, code, results) in [
                (Ok(()), 0, if version < 2 { 2 } else { 0 }),
                (Err(ApiError::new(ResponseError::InvalidUpdateVersion, "no")), 95, 0),
            ] {
                let mut bytes = BytesMut::new();
                response(version, updates(), reply).encode(&mut bytes, version).unwrap();
                let decoded = UpdateFeaturesResponse::decode(&mut bytes, version).unwrap();
                assert_eq!((decoded.error_code, decoded.results.len()), (code, results));
            }
        }
    }
}
