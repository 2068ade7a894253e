//! ApiVersions and its features (KIP-35, KIP-511, KIP-584).

use serde_json::json;

use super::{Row, shared};
use crate::differential::case::Case;

pub(super) const CASES: &[Row] = &[
    shared("apiversions-answers", answers),
    shared("apiversions-unknown-version", unknown_version),
    shared("apiversions-client-names", client_names),
];

fn answers(case: &mut Case) {
    case.ask_all("ApiVersions", json!({"ClientSoftwareName": "differential", "ClientSoftwareVersion": "1.0"}));
}

/// A version above the broker's gets an answer in version 0 with error 35 and the versions of this one key, and the
/// connection stays open.
fn unknown_version(case: &mut Case) {
    let mut connection = case.connect();
    for version in [5, 99, 32767] {
        let header = crate::differential::wire::request(18, version, 7, Some("c"), true, &[1, 2, 3]);
        connection.send_bytes(&crate::differential::wire::framed(&header));
        case.outcome(&format!("ApiVersions v{version}"), &mut connection);
    }
    case.ask_on(&mut connection, "Metadata", 1, json!({"Topics": []}));
}

fn client_names(case: &mut Case) {
    for name in ["", " ", "a", "a b", "-a", "a-", "a.b-c", "ä", "a_b"] {
        case.note(format!("name {name:?}"));
        let answer = case.quietly("ApiVersions", 3, json!({"ClientSoftwareName": name, "ClientSoftwareVersion": "1"}));
        case.push("error of name".into(), answer["ErrorCode"].clone(), None);
        let answer = case.quietly("ApiVersions", 4, json!({"ClientSoftwareName": "a", "ClientSoftwareVersion": name}));
        case.push("error of version".into(), answer["ErrorCode"].clone(), None);
    }
    case.note("the whole answer");
    for version in [3, 4] {
        case.ask("ApiVersions", version, json!({"ClientSoftwareName": "a b", "ClientSoftwareVersion": "1"}));
    }
}
