//! UpdateFeatures and UnregisterBroker: rule A10 of docs/RULES.md.

use serde_json::{Value, json};

use super::{Row, changed};
use crate::differential::case::{Case, served};

pub(super) const CASES: &[Row] = &[
    changed("cluster-a10-features", features),
    changed("cluster-a10-feature-levels", feature_levels),
    changed("cluster-a10-features-elsewhere", features_elsewhere),
    changed("cluster-a10-unregister-unknown", unregister_unknown),
    changed("cluster-a10-unregister-itself", unregister_itself),
];

const UPGRADE: i32 = 1;
const SAFE_DOWNGRADE: i32 = 2;
const UNSAFE_DOWNGRADE: i32 = 3;
/// Kafka 4.3's metadata.version.
const LATEST: i32 = 30;

/// Version 0 has no upgrade types, only a flag that allows a downgrade.
fn update(feature: &str, level: i32, upgrade_type: i32) -> Value {
    json!({"Feature": feature, "MaxVersionLevel": level, "UpgradeType": upgrade_type,
        "AllowDowngrade": upgrade_type > UPGRADE})
}

fn body(updates: &[Value]) -> Value {
    json!({"timeoutMs": 5000, "FeatureUpdates": updates})
}

fn validate_only(updates: &[Value]) -> Value {
    let mut body = body(updates);
    body["ValidateOnly"] = true.into();
    body
}

/// Requests that leave every feature at its level.
fn features(case: &mut Case) {
    let same = || update("metadata.version", LATEST, UPGRADE);
    let unknown = |name: &str| update(name, 1, UPGRADE);
    for version in served("UpdateFeatures") {
        for (what, updates) in [
            ("none", vec![]),
            ("the level that it has", vec![same()]),
            ("unknown", vec![unknown("no.such.feature")]),
            ("unknown, level 0", vec![update("no.such.feature", 0, UPGRADE)]),
            ("unknown, deleted", vec![update("no.such.feature", 0, SAFE_DOWNGRADE)]),
            ("unknown, level -1", vec![update("no.such.feature", -1, UPGRADE)]),
            ("nameless", vec![unknown("")]),
            ("good, then unknown", vec![same(), unknown("no.such.feature")]),
            ("unknown, then good", vec![unknown("no.such.feature"), same()]),
            ("two unknown", vec![unknown("b"), unknown("a")]),
            ("the same twice", vec![same(), same()]),
            ("an unknown one twice", vec![unknown("a"), unknown("a")]),
            ("good, then the same with a bad level", vec![same(), update("metadata.version", 31, UPGRADE)]),
            ("a bad level, then the same and good", vec![update("metadata.version", 31, UPGRADE), same()]),
        ] {
            case.note(what);
            case.ask("UpdateFeatures", version, body(&updates));
            if version > 0 {
                case.note(format!("{what}, validate only"));
                case.ask("UpdateFeatures", version, validate_only(&updates));
            }
        }
        for timeout_ms in [0, -1, 1] {
            case.note(format!("time-out {timeout_ms}"));
            for updates in [vec![], vec![same()], vec![unknown("no.such.feature")]] {
                let mut body = body(&updates);
                body["timeoutMs"] = timeout_ms.into();
                case.ask("UpdateFeatures", version, body);
            }
        }
    }
}

fn feature_levels(case: &mut Case) {
    for version in 1..=2 {
        for level in [LATEST + 1, LATEST, LATEST - 1, 25, 20, 8, 7, 6, 1, 0, -1, 32_767, -32_768] {
            for upgrade_type in [UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE] {
                case.note(format!("level {level}, type {upgrade_type}"));
                let updates = [update("metadata.version", level, upgrade_type)];
                case.ask("UpdateFeatures", version, validate_only(&updates));
            }
        }
        for upgrade_type in [0, 4, -1, 127] {
            case.note(format!("type {upgrade_type}"));
            for name in ["metadata.version", "no.such.feature"] {
                let updates = [update(name, LATEST, upgrade_type)];
                case.ask("UpdateFeatures", version, validate_only(&updates));
            }
        }
    }
    for level in [LATEST + 1, LATEST - 1, 6, 0, -1] {
        case.note(format!("level {level}"));
        case.ask("UpdateFeatures", 0, body(&[update("metadata.version", level, UPGRADE)]));
        case.note(format!("level {level}, downgrade allowed"));
        case.ask("UpdateFeatures", 0, body(&[update("metadata.version", level, SAFE_DOWNGRADE)]));
    }
}

/// Features of Kafka beside metadata.version.
fn features_elsewhere(case: &mut Case) {
    for name in [
        "kraft.version",
        "transaction.version",
        "group.version",
        "share.version",
        "streams.version",
        "eligible.leader.replicas.version",
    ] {
        for (level, upgrade_type) in [(0, UPGRADE), (0, SAFE_DOWNGRADE), (1, UPGRADE), (2, UPGRADE), (9, UPGRADE)] {
            case.note(format!("{name} {level}, type {upgrade_type}"));
            case.ask("UpdateFeatures", 2, validate_only(&[update(name, level, upgrade_type)]));
        }
    }
}

fn unregister_unknown(case: &mut Case) {
    for broker_id in [0, 2, -1, i32::MAX, i32::MIN] {
        case.note(format!("broker {broker_id}"));
        case.ask("UnregisterBroker", 0, json!({"BrokerId": broker_id}));
    }
}

/// Unregisters the only broker while it is running.
fn unregister_itself(case: &mut Case) {
    case.ask("UnregisterBroker", 0, json!({"BrokerId": 1}));
    case.note("again");
    case.ask("UnregisterBroker", 0, json!({"BrokerId": 1}));
    case.note("afterwards");
    case.ask("DescribeCluster", 2, json!({"EndpointType": 1, "IncludeFencedBrokers": true}));
}
