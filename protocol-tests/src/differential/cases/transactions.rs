//! ListTransactions and DescribeTransactions on a server without transactions: rule X8 of docs/RULES.md.

use serde_json::{Value, json};

use super::{Row, changed};
use crate::differential::case::{Case, served};

pub(super) const CASES: &[Row] = &[
    changed("transactions-x8-no-coordinator", no_coordinator),
    changed("transactions-x8-list", list),
    changed("transactions-x8-describe", describe),
];

/// Before any client has requested a coordinator.
fn no_coordinator(case: &mut Case) {
    case.ask("DescribeTransactions", 0, json!({"TransactionalIds": ["a", ""]}));
    case.ask_all("ListTransactions", json!({"StateFilters": ["Nonsense"], "TransactionalIdPattern": "a"}));
}

/// Waits for the transaction coordinator: Kafka creates its topic on the first request for a coordinator, and knows no
/// transactional ids before.
fn await_coordinator(case: &mut Case) {
    case.until("the transaction coordinator answers", |case| {
        let body = json!({"Key": "t", "KeyType": 1, "CoordinatorKeys": ["t"]});
        case.quietly("FindCoordinator", 4, body);
        let answer = case.quietly("DescribeTransactions", 0, json!({"TransactionalIds": ["t"]}));
        let listed = case.quietly("ListTransactions", 0, json!({"StateFilters": [], "ProducerIdFilters": []}));
        answer["TransactionStates"][0]["ErrorCode"] == 105 && listed["ErrorCode"] == 0
    });
}

fn list(case: &mut Case) {
    await_coordinator(case);
    let filters = |states: &[&str], producer_ids: &[i64], duration_ms: i64, pattern: Value| {
        json!({"StateFilters": states, "ProducerIdFilters": producer_ids, "DurationFilter": duration_ms,
            "TransactionalIdPattern": pattern})
    };
    for version in served("ListTransactions") {
        for (what, states) in [
            ("no filters", &[][..]),
            (
                "all states",
                &[
                    "Empty",
                    "Ongoing",
                    "PrepareCommit",
                    "PrepareAbort",
                    "CompleteCommit",
                    "CompleteAbort",
                    "Dead",
                    "PrepareEpochFence",
                ],
            ),
            ("a state in small letters", &["ongoing"]),
            ("an unknown state", &["Nonsense"]),
            ("a state without a name", &[""]),
            ("known and unknown states", &["Nonsense", "Ongoing", "Other"]),
            ("an unknown state twice", &["Other", "Nonsense", "Other"]),
            ("a known state twice", &["Empty", "Empty"]),
        ] {
            case.note(what);
            case.ask("ListTransactions", version, filters(states, &[], -1, Value::Null));
        }
        case.note("producer ids");
        case.ask("ListTransactions", version, filters(&[], &[0, -1, 7, 7, i64::MAX], -1, Value::Null));
    }
    for version in [1, 2] {
        for duration_ms in [0, 1, -1, i64::MAX, i64::MIN] {
            case.note(format!("duration {duration_ms}"));
            case.ask("ListTransactions", version, filters(&[], &[], duration_ms, Value::Null));
        }
    }
    for pattern in [
        "",
        ".*",
        "^a+$",
        "a|b",
        "(a)(b)",
        "(?i)a",
        "(?P<n>a)",
        "[a-z0-9_]",
        "[[:alpha:]]",
        r"\d\w\s\b",
        r"\pL\p{Greek}",
        r"\x{10FFFF}",
        "a{2,3}?",
        "ä",
        "(",
        ")",
        "[",
        "*",
        "a**",
        "a{2,1}",
        "a{1001}",
        "(?",
        "(?P<>a)",
        r"\",
        r"\1",
        "(?=a)",
        "(?<=a)",
        r"\p{Nonsense}",
        "[z-a]",
        "(?z)",
        r"\x{110000}",
        "[[:nonsense:]]",
        "a++",
    ] {
        case.note(format!("pattern {pattern:?}"));
        case.ask("ListTransactions", 2, filters(&["Nonsense"], &[], -1, pattern.into()));
    }
}

fn describe(case: &mut Case) {
    await_coordinator(case);
    for (what, ids) in [
        ("none", &[][..]),
        ("one", &["a"]),
        ("two", &["b", "a"]),
        ("the same twice", &["b", "a", "b"]),
        ("an empty one", &[""]),
        ("an empty one among others", &["a", "", "b", ""]),
    ] {
        case.note(what);
        case.ask("DescribeTransactions", 0, json!({"TransactionalIds": ids}));
    }
}
