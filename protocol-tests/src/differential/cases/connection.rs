//! The reaction of a connection to invalid requests, and the order of pipelined answers.

use serde_json::{Value, json};

use super::{Row, shared};
use crate::differential::{
    batch::Batch,
    case::{Case, SERVED, fetch, produce},
    wire::{framed, request},
};

pub(super) const CASES: &[Row] = &[
    shared("connection-unknown-keys", unknown_keys),
    shared("connection-unsupported-versions", unsupported_versions),
    shared("connection-frames", frames),
    shared("connection-bodies", bodies),
    shared("connection-client-ids", client_ids),
    shared("connection-unknown-tags", unknown_tags),
    shared("connection-pipelined", pipelined),
    shared("connection-sasl-handshake", sasl_handshake),
];

fn unknown_keys(case: &mut Case) {
    for key in [-1, 4, 5, 6, 7, 95, 999, i16::MAX] {
        case.raw(&format!("key {key} v0"), &framed(&request(key, 0, 1, Some("c"), false, &[])));
    }
    // APIs that only controllers have.
    for key in [52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82] {
        case.raw(&format!("key {key} v0"), &framed(&request(key, 0, 1, Some("c"), true, &[0; 64])));
    }
}

/// Each supported key with versions just outside its range; ApiVersions has its own case.
fn unsupported_versions(case: &mut Case) {
    for (api, versions) in SERVED.iter().filter(|(api, _)| *api != "ApiVersions") {
        for version in [versions.start() - 1, versions.end() + 1] {
            let body = [0; 64];
            let key = case.key(api);
            case.raw(&format!("{api} v{version}"), &framed(&request(key, version, 1, Some("c"), version > 8, &body)));
        }
    }
    for version in [0, 1, 2] {
        case.raw(&format!("Produce v{version}"), &framed(&request(0, version, 1, Some("c"), false, &[0xff; 10])));
    }
}

fn frames(case: &mut Case) {
    case.raw("a size of -1", &(-1i32).to_be_bytes());
    case.raw("a size of 0", &0i32.to_be_bytes());
    case.raw("a size above 100 MiB", &(104_857_601i32).to_be_bytes());
    case.raw("a size of i32::MAX", &i32::MAX.to_be_bytes());
    case.raw("a header of 3 bytes", &framed(&[0, 18, 0]));
    case.raw("a header without client id", &framed(&[0, 18, 0, 0, 0, 0, 0, 1]));
    case.raw("a client id beyond the frame", &framed(&[0, 3, 0, 1, 0, 0, 0, 1, 0, 9, b'a']));
    case.raw("half a frame", &[0, 0, 0, 20, 0, 18]);
    case.raw("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
}

fn bodies(case: &mut Case) {
    case.raw("Metadata v1 without body", &framed(&request(3, 1, 1, Some("c"), false, &[])));
    case.raw("Metadata v1, 2^31-1 topics", &framed(&request(3, 1, 1, Some("c"), false, &i32::MAX.to_be_bytes())));
    case.raw("Metadata v9, cut", &framed(&request(3, 9, 1, Some("c"), true, &[3, 2])));
    let mut connection = case.connect();
    connection.send_bytes(&framed(&request(3, 1, 1, Some("c"), false, &[0, 0, 0, 1, 0, 2, 0xff, 0xfe])));
    case.outcome_kind("Metadata v1, no UTF-8", &mut connection);
    case.raw("Produce v9, empty", &framed(&request(0, 9, 1, Some("c"), true, &[])));
    case.raw("Fetch v12, empty", &framed(&request(1, 12, 1, Some("c"), true, &[])));
    let mut trailing = case.body("Metadata", 1, &json!({"Topics": []}));
    trailing.extend([1, 2, 3]);
    let mut connection = case.connect();
    connection.send_bytes(&framed(&request(3, 1, 1, Some("c"), false, &trailing)));
    case.outcome_kind("Metadata v1, three bytes more", &mut connection);
}

fn client_ids(case: &mut Case) {
    let mut connection = case.connect();
    for client_id in [None, Some(""), Some("ä"), Some("a b/c")] {
        case.note(format!("client id {client_id:?}"));
        for version in [1, 12] {
            let pending = case.send_as(&mut connection, client_id, "Metadata", version, &json!({"Topics": []}));
            case.receive(&mut connection, &pending);
        }
    }
}

fn unknown_tags(case: &mut Case) {
    case.ask("Metadata", 12, json!({"Topics": [], "__tags": {"77": "cafe", "78": ""}}));
    case.ask("FindCoordinator", 4, json!({"CoordinatorKeys": ["x"], "__tags": {"0": "00"}}));
}

/// Answers are sent, and batches are appended, in the order of the requests.
fn pipelined(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    let mut connection = case.connect();
    let mut pending = Vec::new();
    for count in 1..=5 {
        let body = produce(&topic, &id, if count % 2 == 0 { 1 } else { -1 }, &Batch::of(count).hex());
        pending.push(case.send(&mut connection, "Produce", 9, &body));
        pending.push(case.send(&mut connection, "Fetch", 12, &fetch(&topic, &id, 0)));
        pending.push(case.send(&mut connection, "Metadata", 5, &json!({"Topics": []})));
    }
    // A Fetch that waits delays the requests after it.
    let mut waits = fetch(&topic, &id, 15);
    waits["MaxWaitMs"] = Value::from(300);
    pending.push(case.send(&mut connection, "Fetch", 12, &waits));
    pending.push(case.send(&mut connection, "Metadata", 5, &json!({"Topics": []})));
    for one in &pending {
        case.receive(&mut connection, one);
    }
}

fn sasl_handshake(case: &mut Case) {
    for version in [0, 1] {
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "nonsense", ""] {
            case.note(format!("mechanism {mechanism:?}"));
            case.ask("SaslHandshake", version, json!({"Mechanism": mechanism}));
        }
    }
    case.note("after the handshake");
    case.ask("Metadata", 1, json!({"Topics": []}));
}
