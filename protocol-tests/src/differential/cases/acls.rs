//! DescribeAcls, CreateAcls and DeleteAcls without an authorizer: rule A13 of docs/RULES.md.

use serde_json::{Value, json};

use super::{Row, shared};
use crate::differential::case::Case;

pub(super) const CASES: &[Row] =
    &[shared("acls-a13-describe", describe), shared("acls-a13-create", create), shared("acls-a13-delete", delete)];

const UNKNOWN: i32 = 0;
const ANY: i32 = 1;
const TOPIC: i32 = 2;
const CLUSTER: i32 = 4;
const MATCH: i32 = 2;
const LITERAL: i32 = 3;
const READ: i32 = 3;
const ALLOW: i32 = 3;

/// Codes of the four enumerations of an ACL: resource type, pattern type, operation, permission.
type Codes = [i32; 4];

const GOOD: Codes = [TOPIC, LITERAL, READ, ALLOW];

/// In each row one code does not exist, is the first or the last that exists, or is allowed only in filters.
fn codes() -> Vec<(String, Codes)> {
    let mut all = vec![("good".to_owned(), GOOD), ("any".to_owned(), [ANY; 4])];
    let values: [(&str, &[i32]); 4] = [
        ("resource type", &[UNKNOWN, ANY, CLUSTER, 5, 6, 7, 8, -1, 127]),
        ("pattern type", &[UNKNOWN, ANY, MATCH, 4, 5, -1]),
        ("operation", &[UNKNOWN, ANY, 2, 13, 14, 15, 16, -1]),
        ("permission", &[UNKNOWN, ANY, 2, 4, -1]),
    ];
    for (at, (what, values)) in values.into_iter().enumerate() {
        for value in values {
            let mut codes = GOOD;
            codes[at] = *value;
            all.push((format!("{what} {value}"), codes));
        }
    }
    all
}

fn filter([resource_type, pattern_type, operation, permission]: Codes, name: Value) -> Value {
    json!({"ResourceTypeFilter": resource_type, "ResourceNameFilter": name, "PatternTypeFilter": pattern_type,
        "PrincipalFilter": "User:alice", "HostFilter": null, "Operation": operation, "PermissionType": permission})
}

fn creation([resource_type, pattern_type, operation, permission]: Codes, name: &str, principal: &str) -> Value {
    json!({"ResourceType": resource_type, "ResourceName": name, "ResourcePatternType": pattern_type,
        "Principal": principal, "Host": "*", "Operation": operation, "PermissionType": permission})
}

fn describe(case: &mut Case) {
    for (what, codes) in codes() {
        case.note(what);
        case.ask_all("DescribeAcls", filter(codes, "t".into()));
    }
    for name in [Value::Null, "".into(), "*".into()] {
        case.note(format!("name {name}"));
        case.ask_all("DescribeAcls", filter(GOOD, name));
    }
}

fn create(case: &mut Case) {
    for (what, codes) in codes() {
        case.note(what);
        case.ask_all("CreateAcls", json!({"Creations": [creation(codes, "t", "User:alice")]}));
    }
    let good = || creation(GOOD, "t", "User:alice");
    for (what, creations) in [
        ("none", json!([])),
        ("the same twice", json!([good(), good()])),
        ("three", json!([good(), creation([CLUSTER, LITERAL, READ, ALLOW], "kafka-cluster", "User:bob"), good()])),
        ("a good and an unknown one", json!([good(), creation([UNKNOWN, LITERAL, READ, ALLOW], "t", "User:alice")])),
        ("an empty name", json!([creation(GOOD, "", "User:alice")])),
        ("another cluster", json!([creation([CLUSTER, LITERAL, READ, ALLOW], "other", "User:alice")])),
        ("principals that are none", json!([creation(GOOD, "t", ""), creation(GOOD, "t", "alice")])),
    ] {
        case.note(what);
        case.ask_all("CreateAcls", json!({"Creations": creations}));
    }
}

fn delete(case: &mut Case) {
    for (what, codes) in codes() {
        case.note(what);
        case.ask_all("DeleteAcls", json!({"Filters": [filter(codes, "t".into())]}));
    }
    let good = || filter(GOOD, "t".into());
    for (what, filters) in [
        ("none", json!([])),
        ("the same twice", json!([good(), good()])),
        ("three", json!([good(), filter([ANY; 4], Value::Null), good()])),
        ("a good and an unknown one", json!([good(), filter([UNKNOWN, LITERAL, READ, ALLOW], "t".into())])),
    ] {
        case.note(what);
        case.ask_all("DeleteAcls", json!({"Filters": filters}));
    }
}
