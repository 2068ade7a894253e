//! Metadata, DescribeTopicPartitions, DescribeCluster, FindCoordinator: rules M1 to M7 of docs/RULES.md.

use serde_json::{Value, json};

use super::{ALONE, AUTO_CREATE, Row, alone, shared};
use crate::differential::{
    batch::Batch,
    case::{Case, produce, served},
};

pub(super) const CASES: &[Row] = &[
    shared("metadata-m1-topics", topics),
    shared("metadata-m1-by-id", by_id),
    shared("metadata-m2-no-auto-creation", no_auto_creation),
    shared("metadata-m3-names", names),
    shared("metadata-m4-authorized-operations", authorized_operations),
    alone("metadata-m1-all", all),
    alone("metadata-m5-describe-all", describe_all),
    Row { name: "metadata-m2-auto-creation", setup: &AUTO_CREATE, run: auto_creation },
    Row { name: "metadata-m2-producer-auto-creates", setup: &AUTO_CREATE, run: producer_auto_creates },
    shared("metadata-m5-describe", describe),
    shared("metadata-m5-cursor", cursor),
    Row { name: "metadata-m6-cluster", setup: &ALONE, run: cluster },
    shared("metadata-m7-coordinators", coordinators),
];

fn topics(case: &mut Case) {
    let (one, _) = case.topic("a", 1, &[]);
    let (three, _) = case.topic("b", 3, &[]);
    let unknown = case.named("none");
    for version in served("Metadata") {
        case.note("two topics and an unknown one");
        case.ask(
            "Metadata",
            version,
            json!({"AllowAutoTopicCreation": false, "Topics": [{"Name": three}, {"Name": unknown}, {"Name": one}]}),
        );
        case.note("the same twice");
        case.ask(
            "Metadata",
            version,
            json!({"AllowAutoTopicCreation": false, "Topics": [{"Name": one}, {"Name": one}]}),
        );
        if version > 0 {
            case.note("none");
            case.ask("Metadata", version, json!({"Topics": []}));
        }
    }
    case.note("internal");
    for version in [0, 1, 12] {
        let mut answer = case.quietly("Metadata", version, json!({"Topics": [{"Name": "__consumer_offsets"}]}));
        let partitions = answer["Topics"][0]["Partitions"].as_array().map_or(0, Vec::len);
        answer["Topics"][0]["Partitions"] = partitions.into();
        case.push(format!("Metadata v{version}"), answer, Some("Metadata"));
    }
}

fn by_id(case: &mut Case) {
    let (topic, id) = case.topic("t", 2, &[]);
    for version in 10..=13 {
        case.note("by id");
        case.ask(
            "Metadata",
            version,
            json!({"AllowAutoTopicCreation": false, "Topics": [{"TopicId": id, "Name": null}]}),
        );
        case.note("an unknown id");
        case.ask(
            "Metadata",
            version,
            json!({"AllowAutoTopicCreation": false, "Topics": [{"TopicId": "AAAAAAAAAAAAAAAAAAAAAg", "Name": null}]}),
        );
        case.note("id and name");
        case.ask(
            "Metadata",
            version,
            json!({"AllowAutoTopicCreation": false, "Topics": [{"TopicId": id, "Name": topic}]}),
        );
        case.note("id and another name");
        case.ask(
            "Metadata",
            version,
            json!({"AllowAutoTopicCreation": false, "Topics": [{"TopicId": id, "Name": "other"}]}),
        );
        case.note("neither");
        case.ask("Metadata", version, json!({"AllowAutoTopicCreation": false, "Topics": [{"Name": null}]}));
        case.note("one by id, one by name");
        case.ask(
            "Metadata",
            version,
            json!({"AllowAutoTopicCreation": false, "Topics": [{"TopicId": id, "Name": null}, {"Name": topic}]}),
        );
    }
}

fn no_auto_creation(case: &mut Case) {
    let topic = case.named("none");
    for version in served("Metadata") {
        case.ask("Metadata", version, json!({"AllowAutoTopicCreation": true, "Topics": [{"Name": topic}]}));
    }
}

fn names(case: &mut Case) {
    let long = "x".repeat(250);
    for name in ["", ".", "..", "a b", "a/b", "ä", long.as_str(), &long[1..], "a\u{0}b", "__consumer_offsets2"] {
        case.note(format!("name {:?}", &name[..name.len().min(20)]));
        for version in [0, 1, 4, 9, 12, 13] {
            for allow in [false, true] {
                case.ask("Metadata", version, json!({"AllowAutoTopicCreation": allow, "Topics": [{"Name": name}]}));
            }
        }
    }
}

fn authorized_operations(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    for version in 8..=13 {
        for (cluster, topics) in [(true, false), (false, true), (true, true)] {
            case.note(format!("cluster {cluster}, topics {topics}"));
            case.ask(
                "Metadata",
                version,
                json!({"AllowAutoTopicCreation": false, "Topics": [{"Name": topic}, {"Name": "none-of-it"}],
                "IncludeClusterAuthorizedOperations": cluster, "IncludeTopicAuthorizedOperations": topics}),
            );
        }
    }
}

/// Removes Kafka's internal topics from the list.
fn own(list: &mut Value) {
    if let Some(list) = list.as_array_mut() {
        list.retain(|topic| !topic["Name"].as_str().unwrap_or_default().starts_with("__"));
    }
}

fn all(case: &mut Case) {
    case.topic("a", 1, &[]);
    case.topic("b", 2, &[]);
    for version in served("Metadata") {
        let topics = if version == 0 { json!([]) } else { Value::Null };
        let mut answer = case.quietly("Metadata", version, json!({"AllowAutoTopicCreation": true, "Topics": topics}));
        own(&mut answer["Topics"]);
        case.push(format!("Metadata v{version}"), answer, Some("Metadata"));
    }
}

fn auto_creation(case: &mut Case) {
    for version in served("Metadata") {
        let topic = case.named(&format!("v{version}"));
        case.note("not allowed");
        if version >= 4 {
            case.ask("Metadata", version, json!({"AllowAutoTopicCreation": false, "Topics": [{"Name": topic}]}));
        }
        case.note("first answer");
        case.ask("Metadata", version, json!({"AllowAutoTopicCreation": true, "Topics": [{"Name": topic}]}));
        case.until("the topic is there", |case| {
            let answer =
                case.quietly("Metadata", version, json!({"AllowAutoTopicCreation": true, "Topics": [{"Name": topic}]}));
            answer["Topics"][0]["ErrorCode"] == 0
        });
        case.note("later answer");
        case.ask("Metadata", version, json!({"AllowAutoTopicCreation": true, "Topics": [{"Name": topic}]}));
    }
    case.note("bad names");
    for name in ["", "..", "a b"] {
        case.ask("Metadata", 12, json!({"AllowAutoTopicCreation": true, "Topics": [{"Name": name}]}));
    }
    case.note("a name that collides");
    let dotted = case.named("x.y");
    let underscored = case.named("x_y");
    case.quietly("Metadata", 12, json!({"AllowAutoTopicCreation": true, "Topics": [{"Name": dotted}]}));
    case.await_topic(&dotted, 3);
    case.ask("Metadata", 12, json!({"AllowAutoTopicCreation": true, "Topics": [{"Name": underscored}]}));
}

fn producer_auto_creates(case: &mut Case) {
    let topic = case.named("t");
    case.ask("Produce", 9, produce(&topic, &Value::Null, -1, &Batch::of(1).hex()));
    case.ask("Metadata", 9, json!({"AllowAutoTopicCreation": true, "Topics": [{"Name": topic}]}));
    case.await_topic(&topic, 3);
    case.ask("Produce", 9, produce(&topic, &Value::Null, -1, &Batch::of(1).hex()));
}

fn describe(case: &mut Case) {
    let (b, _) = case.topic("b", 1, &[]);
    let (a, _) = case.topic("a", 2, &[]);
    let none = case.named("none");
    let ask = |topics: &[&str]| {
        let topics: Vec<Value> = topics.iter().map(|name| json!({"Name": name})).collect();
        json!({"Topics": topics, "ResponsePartitionLimit": 2000})
    };
    case.ask("DescribeTopicPartitions", 0, ask(&[&b, &a]));
    case.note("unknown and bad names");
    case.ask("DescribeTopicPartitions", 0, ask(&[&none, &b, "a b", "", ".."]));
    case.note("the same twice");
    case.ask("DescribeTopicPartitions", 0, ask(&[&b, &b]));
}

fn describe_all(case: &mut Case) {
    case.topic("a", 1, &[]);
    for limit in [2000, 0, -1] {
        case.note(format!("limit {limit}"));
        let mut answer =
            case.quietly("DescribeTopicPartitions", 0, json!({"Topics": [], "ResponsePartitionLimit": limit}));
        own(&mut answer["Topics"]);
        case.push("DescribeTopicPartitions v0".into(), answer, Some("DescribeTopicPartitions"));
    }
}

fn cursor(case: &mut Case) {
    let (a, _) = case.topic("a", 3, &[]);
    let (b, _) = case.topic("b", 2, &[]);
    let none = case.named("aa-none");
    let both = json!([{"Name": b}, {"Name": a}]);
    for limit in [1, 2, 3, 4, 5, 6, 0, -1] {
        case.note(format!("limit {limit}"));
        case.ask("DescribeTopicPartitions", 0, json!({"Topics": both, "ResponsePartitionLimit": limit}));
    }
    for (topic, partition) in [(&a, 0), (&a, 1), (&a, 2), (&a, 3), (&b, 0), (&b, 1), (&b, 9), (&a, -1), (&none, 0)] {
        case.note(format!("from {topic} {partition}"));
        case.ask(
            "DescribeTopicPartitions",
            0,
            json!({"Topics": both, "ResponsePartitionLimit": 2,
            "Cursor": {"TopicName": topic, "PartitionIndex": partition}}),
        );
    }
    case.note("cursor at an unknown topic in the list");
    case.ask(
        "DescribeTopicPartitions",
        0,
        json!({"Topics": [{"Name": a}, {"Name": none}, {"Name": b}], "ResponsePartitionLimit": 2,
        "Cursor": {"TopicName": none, "PartitionIndex": 0}}),
    );
}

fn cluster(case: &mut Case) {
    for version in served("DescribeCluster") {
        for include in [false, true] {
            case.note(format!("authorized operations {include}"));
            case.ask("DescribeCluster", version, json!({"IncludeClusterAuthorizedOperations": include}));
        }
        for endpoint in [0, 1, 2, 3] {
            case.note(format!("endpoint type {endpoint}"));
            case.ask("DescribeCluster", version, json!({"EndpointType": endpoint}));
        }
        case.note("fenced too");
        case.ask("DescribeCluster", version, json!({"IncludeFencedBrokers": true}));
    }
}

fn coordinators(case: &mut Case) {
    for version in served("FindCoordinator") {
        for (what, key) in [("a group", "some-group"), ("an empty key", ""), ("a long key", "ä b/c")] {
            case.note(what);
            case.ask("FindCoordinator", version, json!({"Key": key, "KeyType": 0, "CoordinatorKeys": [key]}));
        }
        case.note("several keys");
        case.ask("FindCoordinator", version, json!({"Key": "g", "CoordinatorKeys": ["a", "b", "", "a"]}));
        case.note("no keys");
        case.ask("FindCoordinator", version, json!({"Key": "g", "CoordinatorKeys": []}));
        for kind in [3, -1] {
            case.note(format!("key type {kind}"));
            case.ask("FindCoordinator", version, json!({"Key": "g", "KeyType": kind, "CoordinatorKeys": ["g", "h"]}));
        }
        case.note("share key of a wrong form");
        case.ask("FindCoordinator", version, json!({"Key": "g", "KeyType": 2, "CoordinatorKeys": ["g", "g:x:0"]}));
    }
}
