//! CreateTopics, DeleteTopics, CreatePartitions, DescribeLogDirs, DescribeQuorum and client quotas: rules A1 to A11 of
//! docs/RULES.md.

use serde_json::{Value, json};

use super::{Row, alone, shared};
use crate::differential::{
    batch::Batch,
    case::{Case, served},
};

pub(super) const CASES: &[Row] = &[
    shared("admin-a1-create", create),
    shared("admin-a1-names", names),
    shared("admin-a1-sizes", sizes),
    shared("admin-a1-assignments", assignments),
    shared("admin-a1-configs", configs),
    shared("admin-a1-configs-kept", configs_kept),
    shared("admin-a1-validate-only", validate_only),
    shared("admin-a2-delete", delete),
    shared("admin-a2-delete-by-id", delete_by_id),
    shared("admin-a2-recreate", recreate),
    shared("admin-a3-create-partitions", create_partitions),
    shared("admin-a8-log-dirs", log_dirs),
    alone("admin-a8-log-dirs-all", log_dirs_all),
    alone("admin-a9-quorum", quorum),
    alone("admin-a11-quotas", quotas),
    alone("admin-a11-quota-errors", quota_errors),
    alone("admin-a12-scram-credentials", scram_credentials),
];

fn topic(name: &str, partitions: i32, replication: i32) -> Value {
    json!({"Name": name, "NumPartitions": partitions, "ReplicationFactor": replication})
}

fn create_body(topics: &[Value]) -> Value {
    json!({"timeoutMs": 5000, "Topics": topics})
}

fn configured(name: &str, configs: &[(&str, Option<&str>)]) -> Value {
    let list: Vec<Value> = configs.iter().map(|(name, value)| json!({"Name": name, "Value": value})).collect();
    json!({"Name": name, "NumPartitions": 1, "ReplicationFactor": 1, "Configs": list})
}

fn create(case: &mut Case) {
    for version in served("CreateTopics") {
        let name = case.named(&format!("v{version}"));
        case.note("new");
        case.ask("CreateTopics", version, create_body(&[topic(&name, 2, 1)]));
        case.note("exists");
        case.ask("CreateTopics", version, create_body(&[topic(&name, 2, 1)]));
        case.note("defaults");
        case.ask("CreateTopics", version, create_body(&[topic(&format!("{name}-default"), -1, -1)]));
        case.note("good and bad");
        case.ask(
            "CreateTopics",
            version,
            create_body(&[topic(&format!("{name}-good"), 1, 1), topic(&name, 1, 1), topic("a b", 1, 1)]),
        );
        case.note("the same twice");
        let twice = format!("{name}-twice");
        case.ask(
            "CreateTopics",
            version,
            create_body(&[topic(&twice, 1, 1), topic(&twice, 1, 1), topic(&format!("{name}-beside"), 1, 1)]),
        );
        case.note("none");
        case.ask("CreateTopics", version, create_body(&[]));
        case.note("settings");
        let settings =
            [("retention.ms", Some("1000")), ("cleanup.policy", Some("compact")), ("segment.bytes", Some("1048576"))];
        case.ask("CreateTopics", version, create_body(&[configured(&format!("{name}-settings"), &settings)]));
    }
}

fn names(case: &mut Case) {
    let long = "x".repeat(300);
    for name in
        ["", ".", "..", "../x", "a b", "a/b", "ä", "a:b", "a\u{0}", long.as_str(), &long[..250], "__cluster_metadata"]
    {
        case.note(format!("name {:?}", &name[..name.len().min(20)]));
        for version in [2, 4, 5, 7] {
            case.ask("CreateTopics", version, create_body(&[topic(name, 1, 1)]));
        }
    }
    case.note("the longest");
    case.ask("CreateTopics", 7, create_body(&[topic(&long[..249], 1, 1)]));
    case.note("the same but for . and _");
    case.quietly("CreateTopics", 7, create_body(&[topic("names.a.b", 1, 1)]));
    for name in ["names_a_b", "names.a_b", "names-a-b"] {
        case.ask("CreateTopics", 7, create_body(&[topic(name, 1, 1)]));
    }
}

fn sizes(case: &mut Case) {
    for (partitions, replication) in
        [(0, 1), (-2, 1), (1, 0), (1, -2), (1, 2), (1, 32767), (-1, 1), (1, -1), (0, 0), (100_000, 1)]
    {
        case.note(format!("{partitions} partitions, replication factor {replication}"));
        for version in [2, 5, 7] {
            let name = case.named(&format!("p{partitions}-r{replication}-v{version}"));
            let mut body = create_body(&[topic(&name, partitions, replication)]);
            body["validateOnly"] = true.into();
            case.ask("CreateTopics", version, body);
        }
    }
}

fn assignments(case: &mut Case) {
    let rows = |list: &[(i32, &[i32])]| -> Value {
        list.iter().map(|(index, brokers)| json!({"PartitionIndex": index, "BrokerIds": brokers})).collect()
    };
    for (what, partitions, replication, assignment) in [
        ("good", -1, -1, rows(&[(0, &[1]), (1, &[1])])),
        ("with a count", 2, -1, rows(&[(0, &[1])])),
        ("with a factor", -1, 1, rows(&[(0, &[1])])),
        ("with both", 1, 1, rows(&[(0, &[1])])),
        ("a gap", -1, -1, rows(&[(0, &[1]), (2, &[1])])),
        ("from 1", -1, -1, rows(&[(1, &[1])])),
        ("twice", -1, -1, rows(&[(0, &[1]), (0, &[1])])),
        ("an unknown broker", -1, -1, rows(&[(0, &[9])])),
        ("the same broker twice", -1, -1, rows(&[(0, &[1, 1])])),
        ("no brokers", -1, -1, rows(&[(0, &[])])),
        ("different lengths", -1, -1, rows(&[(0, &[1]), (1, &[1, 9])])),
        ("a negative broker", -1, -1, rows(&[(0, &[-1])])),
    ] {
        case.note(what);
        let name = case.named(&what.replace(' ', "-"));
        case.ask(
            "CreateTopics",
            7,
            create_body(&[json!({"Name": name, "NumPartitions": partitions, "ReplicationFactor": replication,
            "Assignments": assignment})]),
        );
    }
}

/// Topics with one bad setting each.
fn configs(case: &mut Case) {
    let bad: &[(&str, Option<&str>)] = &[
        ("foo.bar", Some("1")),
        ("", Some("1")),
        ("retention.ms", Some("abc")),
        ("retention.ms", Some("-2")),
        ("retention.ms", Some("")),
        ("retention.ms", Some(" 5 ")),
        ("retention.ms", None),
        ("retention.ms", Some("9223372036854775808")),
        ("cleanup.policy", Some("nonsense")),
        ("cleanup.policy", Some("")),
        ("cleanup.policy", Some("compact,nonsense")),
        ("cleanup.policy", Some("delete,delete")),
        ("cleanup.policy", Some(" compact , delete ")),
        ("min.insync.replicas", Some("0")),
        ("min.insync.replicas", Some("-1")),
        ("min.insync.replicas", Some("5")),
        ("max.message.bytes", Some("-1")),
        ("max.message.bytes", Some("2147483648")),
        ("segment.bytes", Some("13")),
        ("segment.bytes", Some("1000")),
        ("segment.ms", Some("0")),
        ("segment.index.bytes", Some("3")),
        ("segment.jitter.ms", Some("-1")),
        ("flush.messages", Some("0")),
        ("flush.ms", Some("-1")),
        ("index.interval.bytes", Some("-1")),
        ("file.delete.delay.ms", Some("-1")),
        ("delete.retention.ms", Some("-1")),
        ("min.compaction.lag.ms", Some("-1")),
        ("max.compaction.lag.ms", Some("0")),
        ("min.cleanable.dirty.ratio", Some("1.5")),
        ("min.cleanable.dirty.ratio", Some("x")),
        ("min.cleanable.dirty.ratio", Some("NaN")),
        ("unclean.leader.election.enable", Some("maybe")),
        ("unclean.leader.election.enable", Some("TRUE")),
        ("preallocate", Some("1")),
        ("compression.type", Some("brotli")),
        ("compression.type", Some("GZIP")),
        ("compression.gzip.level", Some("0")),
        ("compression.gzip.level", Some("10")),
        ("compression.lz4.level", Some("18")),
        ("compression.zstd.level", Some("23")),
        ("message.timestamp.type", Some("createTime")),
        ("message.timestamp.before.max.ms", Some("-1")),
        ("message.timestamp.after.max.ms", Some("-1")),
        ("message.format.version", Some("3.0")),
        ("message.downconversion.enable", Some("false")),
        ("message.timestamp.difference.max.ms", Some("1")),
        ("leader.replication.throttled.replicas", Some("0:1")),
        ("leader.replication.throttled.replicas", Some("x")),
        ("follower.replication.throttled.replicas", Some("*")),
        ("remote.storage.enable", Some("true")),
        ("remote.storage.enable", Some("false")),
        ("local.retention.ms", Some("1000")),
        ("local.retention.bytes", Some("1000")),
        ("log.retention.ms", Some("1000")),
    ];
    for (name, value) in bad {
        case.note(format!("{name}={value:?}"));
        let topic = case.named("t");
        let mut body = create_body(&[configured(&topic, &[(name, *value)])]);
        body["validateOnly"] = true.into();
        let answer = case.quietly("CreateTopics", 7, body);
        case.push("error".into(), answer["Topics"][0]["ErrorCode"].clone(), None);
        case.push("message".into(), answer["Topics"][0]["ErrorMessage"].clone(), None);
    }
    case.note("settings that contradict each other");
    for settings in [
        [("local.retention.ms", Some("5")), ("retention.ms", Some("3"))],
        [("min.compaction.lag.ms", Some("50")), ("max.compaction.lag.ms", Some("3"))],
        [("retention.ms", Some("1")), ("foo", Some("3"))],
        [("retention.ms", Some("1")), ("retention.ms", Some("2"))],
    ] {
        let topic = case.named("t");
        let mut body = create_body(&[configured(&topic, &settings)]);
        body["validateOnly"] = true.into();
        for version in [2, 5, 7] {
            case.ask("CreateTopics", version, body.clone());
        }
    }
}

/// Each setting with a non-default value is in the answer and in DescribeConfigs.
fn configs_kept(case: &mut Case) {
    let settings = [
        ("cleanup.policy", Some("compact,delete")),
        ("segment.ms", Some("70000")),
        ("flush.ms", Some("5000")),
        ("flush.messages", Some("9")),
        ("segment.bytes", Some("1048580")),
        ("segment.index.bytes", Some("4096")),
        ("segment.jitter.ms", Some("3")),
        ("retention.bytes", Some("99")),
        ("retention.ms", Some("-1")),
        ("max.message.bytes", Some("5")),
        ("index.interval.bytes", Some("7")),
        ("file.delete.delay.ms", Some("8")),
        ("delete.retention.ms", Some("9")),
        ("min.compaction.lag.ms", Some("10")),
        ("max.compaction.lag.ms", Some("11")),
        ("min.cleanable.dirty.ratio", Some("0.25")),
        ("unclean.leader.election.enable", Some("true")),
        ("min.insync.replicas", Some("2")),
        ("compression.type", Some("zstd")),
        ("compression.zstd.level", Some("5")),
        ("compression.gzip.level", Some("-1")),
        ("compression.lz4.level", Some("3")),
        ("preallocate", Some("true")),
        ("message.timestamp.type", Some("LogAppendTime")),
        ("message.timestamp.before.max.ms", Some("12")),
        ("message.timestamp.after.max.ms", Some("13")),
    ];
    for version in served("CreateTopics") {
        let name = case.named(&format!("v{version}"));
        case.ask("CreateTopics", version, create_body(&[configured(&name, &settings)]));
    }
    let name = case.named("v7");
    case.ask("DescribeConfigs", 4, json!({"Resources": [{"ResourceType": 2, "ResourceName": name, "ConfigurationKeys": null}], "IncludeSynonyms": true}));
}

fn validate_only(case: &mut Case) {
    let name = case.named("t");
    for version in served("CreateTopics") {
        let mut body = create_body(&[topic(&name, 3, 1)]);
        body["validateOnly"] = true.into();
        case.ask("CreateTopics", version, body);
    }
    case.ask("Metadata", 9, json!({"AllowAutoTopicCreation": false, "Topics": [{"Name": name}]}));
}

fn delete_body(names: &[&str]) -> Value {
    let topics: Vec<Value> = names.iter().map(|name| json!({"Name": name})).collect();
    json!({"TopicNames": names, "Topics": topics, "TimeoutMs": 5000})
}

fn delete(case: &mut Case) {
    for version in served("DeleteTopics") {
        let (one, _) = case.topic(&format!("a{version}"), 1, &[]);
        let (two, _) = case.topic(&format!("b{version}"), 1, &[]);
        let none = case.named("none");
        case.note("known and unknown");
        case.ask("DeleteTopics", version, delete_body(&[&one, &none]));
        case.note("again");
        case.ask("DeleteTopics", version, delete_body(&[&one]));
        case.note("the same twice");
        case.ask("DeleteTopics", version, delete_body(&[&two, &two]));
        case.note("none, bad names");
        case.ask("DeleteTopics", version, delete_body(&[]));
        case.ask("DeleteTopics", version, delete_body(&["", "a b"]));
    }
    let (topic, _) = case.topic("gone", 1, &[]);
    case.note("gone");
    case.quietly("DeleteTopics", 5, delete_body(&[&topic]));
    case.until("the topic is gone", |case| {
        case.quietly("Metadata", 9, json!({"AllowAutoTopicCreation": false, "Topics": [{"Name": topic}]}))["Topics"][0]
            ["ErrorCode"]
            == 3
    });
    case.ask("Metadata", 12, json!({"AllowAutoTopicCreation": false, "Topics": [{"Name": topic}]}));
    case.ask("Produce", 9, crate::differential::case::produce(&topic, &Value::Null, -1, &Batch::of(1).hex()));
    case.ask("Fetch", 12, crate::differential::case::fetch(&topic, &Value::Null, 0));
}

fn delete_by_id(case: &mut Case) {
    let (_, one) = case.topic("a", 1, &[]);
    let (two_name, two) = case.topic("b", 1, &[]);
    case.note("known and unknown");
    case.ask("DeleteTopics", 6, json!({"TimeoutMs": 5000, "Topics": [{"Name": null, "TopicId": one}, {"Name": null, "TopicId": "AAAAAAAAAAAAAAAAAAAAAg"}]}));
    case.note("name and id");
    case.ask("DeleteTopics", 6, json!({"TimeoutMs": 5000, "Topics": [{"Name": two_name, "TopicId": two}]}));
    case.note("neither");
    case.ask("DeleteTopics", 6, json!({"TimeoutMs": 5000, "Topics": [{"Name": null}]}));
    case.note("once by name, once by id");
    case.ask(
        "DeleteTopics",
        6,
        json!({"TimeoutMs": 5000, "Topics": [{"Name": two_name}, {"Name": null, "TopicId": two}]}),
    );
}

fn recreate(case: &mut Case) {
    let (topic, old) = case.topic("t", 1, &[]);
    case.append(&topic, &Batch::of(3).hex());
    case.quietly("DeleteTopics", 5, delete_body(&[&topic]));
    let (_, new) = case.topic("t", 1, &[]);
    case.name(&new, "<second id>");
    case.push("another id".into(), (old != new).into(), None);
    case.ask("Fetch", 12, crate::differential::case::fetch(&topic, &Value::Null, 0));
    case.note("the old id");
    case.ask("Fetch", 13, crate::differential::case::fetch(&topic, &old, 0));
    case.ask("Produce", 13, crate::differential::case::produce(&topic, &old, -1, &Batch::of(1).hex()));
    case.ask("Metadata", 12, json!({"AllowAutoTopicCreation": false, "Topics": [{"Name": null, "TopicId": old}]}));
}

fn create_partitions(case: &mut Case) {
    for version in served("CreatePartitions") {
        let (topic, _) = case.topic(&format!("v{version}"), 2, &[]);
        let ask = |name: &str, count: i32, assignments: Value| json!({"TimeoutMs": 5000, "Topics": [{"Name": name, "Count": count, "Assignments": assignments}]});
        for count in [2, 1, 0, -1] {
            case.note(format!("to {count}"));
            case.ask("CreatePartitions", version, ask(&topic, count, Value::Null));
        }
        case.note("unknown");
        case.ask("CreatePartitions", version, ask(&case.named("none"), 3, Value::Null));
        case.note("validate only");
        let mut body = ask(&topic, 4, Value::Null);
        body["ValidateOnly"] = true.into();
        case.ask("CreatePartitions", version, body);
        case.note("bad assignments");
        for assignments in [
            json!([]),
            json!([{"BrokerIds": [1]}, {"BrokerIds": [1]}]),
            json!([{"BrokerIds": [9]}]),
            json!([{"BrokerIds": [1, 1]}]),
            json!([{"BrokerIds": []}]),
        ] {
            case.ask("CreatePartitions", version, ask(&topic, 3, assignments));
        }
        case.note("the same twice");
        case.ask(
            "CreatePartitions",
            version,
            json!({"TimeoutMs": 5000, "Topics": [
            {"Name": topic, "Count": 3, "Assignments": null}, {"Name": topic, "Count": 4, "Assignments": null}]}),
        );
        case.note("good");
        case.ask("CreatePartitions", version, ask(&topic, 3, json!([{"BrokerIds": [1]}])));
        case.await_topic(&topic, 3);
        case.ask("CreatePartitions", version, ask(&topic, 5, Value::Null));
        case.await_topic(&topic, 5);
        case.ask("Metadata", 9, json!({"AllowAutoTopicCreation": false, "Topics": [{"Name": topic}]}));
    }
}

fn log_dirs(case: &mut Case) {
    let (topic, _) = case.topic("t", 2, &[]);
    case.append(&topic, &Batch::of(3).hex());
    for version in served("DescribeLogDirs") {
        case.note("two partitions");
        case.ask("DescribeLogDirs", version, json!({"Topics": [{"Topic": topic, "Partitions": [0, 1]}]}));
        case.note("unknown");
        case.ask(
            "DescribeLogDirs",
            version,
            json!({"Topics": [{"Topic": topic, "Partitions": [7]}, {"Topic": case.named("none"), "Partitions": [0]}]}),
        );
        case.note("none");
        case.ask("DescribeLogDirs", version, json!({"Topics": []}));
    }
}

fn log_dirs_all(case: &mut Case) {
    case.topic("t", 2, &[]);
    for version in served("DescribeLogDirs") {
        let mut answer = case.quietly("DescribeLogDirs", version, json!({"Topics": null}));
        if let Some(list) = answer["Results"][0]["Topics"].as_array_mut() {
            list.retain(|topic| topic["Name"].as_str().is_some_and(|name| name.starts_with("admin-a8")));
        }
        case.push(format!("DescribeLogDirs v{version}"), answer, Some("DescribeLogDirs"));
    }
}

fn quorum(case: &mut Case) {
    for version in served("DescribeQuorum") {
        for (topic, partitions) in [
            ("__cluster_metadata", vec![0]),
            ("__cluster_metadata", vec![1]),
            ("other", vec![0]),
            ("__cluster_metadata", vec![]),
            ("__cluster_metadata", vec![0, 1]),
        ] {
            case.note(format!("{topic} {partitions:?}"));
            let list: Vec<Value> = partitions.iter().map(|index| json!({"PartitionIndex": index})).collect();
            case.ask("DescribeQuorum", version, json!({"Topics": [{"TopicName": topic, "Partitions": list}]}));
        }
        case.note("no topics");
        case.ask("DescribeQuorum", version, json!({"Topics": []}));
    }
}

fn entity(parts: &[(&str, Option<&str>)]) -> Value {
    parts.iter().map(|(kind, name)| json!({"EntityType": kind, "EntityName": name})).collect()
}

fn quota(entity_parts: &[(&str, Option<&str>)], ops: &[(&str, f64, bool)]) -> Value {
    let ops: Vec<Value> =
        ops.iter().map(|(key, value, remove)| json!({"Key": key, "Value": value, "Remove": remove})).collect();
    json!({"Entity": entity(entity_parts), "Ops": ops})
}

fn quotas(case: &mut Case) {
    let describe = |components: Value, strict: bool| json!({"Components": components, "Strict": strict});
    let component = |kind: &str, match_type: i32, matched: Option<&str>| json!({"EntityType": kind, "MatchType": match_type, "Match": matched});
    for version in served("AlterClientQuotas") {
        case.note("set");
        case.ask("AlterClientQuotas", version, json!({"Entries": [
            quota(&[("user", Some("a"))], &[("producer_byte_rate", 1000.0, false), ("consumer_byte_rate", 2000.5, false)]),
            quota(&[("user", None)], &[("request_percentage", 50.0, false)]),
            quota(&[("user", Some("a")), ("client-id", Some("c"))], &[("controller_mutation_rate", 5.0, false)]),
            quota(&[("client-id", Some("c"))], &[("producer_byte_rate", 7.0, false)]),
            quota(&[("ip", Some("127.0.0.1"))], &[("connection_creation_rate", 9.0, false)])]}));
        wait_for_default_user(case, true);
        for (what, body) in [
            ("all", describe(json!([]), false)),
            ("all, strict", describe(json!([]), true)),
            ("user a", describe(json!([component("user", 0, Some("a"))]), false)),
            ("user a, strict", describe(json!([component("user", 0, Some("a"))]), true)),
            ("default user", describe(json!([component("user", 1, None)]), false)),
            ("any user", describe(json!([component("user", 2, None)]), false)),
            ("any user, strict", describe(json!([component("user", 2, None)]), true)),
            (
                "user a and any client",
                describe(json!([component("user", 0, Some("a")), component("client-id", 2, None)]), true),
            ),
            ("any ip", describe(json!([component("ip", 2, None)]), false)),
            ("nobody", describe(json!([component("user", 0, Some("nobody"))]), false)),
        ] {
            case.note(what);
            case.ask("DescribeClientQuotas", version, body);
        }
        case.note("remove");
        case.ask(
            "AlterClientQuotas",
            version,
            json!({"Entries": [
            quota(&[("user", Some("a"))], &[("producer_byte_rate", 0.0, true)]),
            quota(&[("user", None)], &[("request_percentage", 0.0, true)]),
            quota(&[("user", Some("nobody"))], &[("request_percentage", 0.0, true)])]}),
        );
        case.note("validate only");
        case.ask("AlterClientQuotas", version, json!({"ValidateOnly": true, "Entries": [quota(&[("user", Some("v"))], &[("producer_byte_rate", 1.0, false)])]}));
        wait_for_default_user(case, false);
        case.note("what is left");
        case.ask("DescribeClientQuotas", version, describe(json!([]), false));
    }
}

/// DescribeClientQuotas shows a change only after the broker has applied it; all changes of one request appear
/// together.
fn wait_for_default_user(case: &mut Case, has_quota: bool) {
    let default_user = json!({"Components": [{"EntityType": "user", "MatchType": 1, "Match": null}], "Strict": true});
    case.until("the quotas are applied", |case| {
        let told = case.quietly("DescribeClientQuotas", 1, default_user.clone());
        told["Entries"].as_array().is_some_and(|entries| !entries.is_empty()) == has_quota
    });
}

fn quota_errors(case: &mut Case) {
    for version in served("AlterClientQuotas") {
        for (what, entry) in [
            ("an unknown key", quota(&[("user", Some("e"))], &[("nonsense", 1.0, false)])),
            ("an unknown type", quota(&[("nonsense", Some("e"))], &[("producer_byte_rate", 1.0, false)])),
            ("no entity", quota(&[], &[("producer_byte_rate", 1.0, false)])),
            ("a key of another type", quota(&[("ip", Some("127.0.0.1"))], &[("producer_byte_rate", 1.0, false)])),
            ("a user's key for ip", quota(&[("user", Some("e"))], &[("connection_creation_rate", 1.0, false)])),
            ("a bad ip", quota(&[("ip", Some("a b"))], &[("connection_creation_rate", 1.0, false)])),
            (
                "ip and user",
                quota(&[("ip", Some("127.0.0.1")), ("user", Some("e"))], &[("connection_creation_rate", 1.0, false)]),
            ),
            ("zero", quota(&[("user", Some("e"))], &[("producer_byte_rate", 0.0, false)])),
            ("negative", quota(&[("user", Some("e"))], &[("producer_byte_rate", -1.0, false)])),
            ("a fraction", quota(&[("user", Some("e"))], &[("producer_byte_rate", 1.5, false)])),
            (
                "the same type twice",
                quota(&[("user", Some("e")), ("user", Some("f"))], &[("producer_byte_rate", 1.0, false)]),
            ),
            (
                "the same key twice",
                quota(
                    &[("user", Some("e"))],
                    &[("producer_byte_rate", 1.0, false), ("producer_byte_rate", 2.0, false)],
                ),
            ),
            ("an empty name", quota(&[("user", Some(""))], &[("producer_byte_rate", 1.0, false)])),
            ("no operations", quota(&[("user", Some("e"))], &[])),
        ] {
            case.note(what);
            case.ask("AlterClientQuotas", version, json!({"Entries": [entry], "ValidateOnly": true}));
        }
        for (what, components) in [
            ("an unknown type", json!([{"EntityType": "nonsense", "MatchType": 0, "Match": "a"}])),
            ("an unknown match", json!([{"EntityType": "user", "MatchType": 9, "Match": "a"}])),
            ("exact without a name", json!([{"EntityType": "user", "MatchType": 0, "Match": null}])),
            ("default with a name", json!([{"EntityType": "user", "MatchType": 1, "Match": "a"}])),
            (
                "the same type twice",
                json!([{"EntityType": "user", "MatchType": 2, "Match": null}, {"EntityType": "user", "MatchType": 2, "Match": null}]),
            ),
            (
                "ip and user",
                json!([{"EntityType": "user", "MatchType": 2, "Match": null}, {"EntityType": "ip", "MatchType": 2, "Match": null}]),
            ),
            ("an empty type", json!([{"EntityType": "", "MatchType": 2, "Match": null}])),
        ] {
            case.note(what);
            case.ask("DescribeClientQuotas", version, json!({"Components": components, "Strict": false}));
        }
    }
}

/// No user has SCRAM credentials.
fn scram_credentials(case: &mut Case) {
    let users = |names: &[&str]| names.iter().map(|name| json!({"Name": name})).collect::<Vec<_>>();
    case.note("all users");
    case.ask("DescribeUserScramCredentials", 0, json!({"Users": null}));
    case.ask("DescribeUserScramCredentials", 0, json!({"Users": []}));
    for names in [&["alice"][..], &["alice", "bob"], &["alice", "alice"], &["bob", "alice", "bob", "bob"], &[""]] {
        case.note(names.join(", "));
        case.ask("DescribeUserScramCredentials", 0, json!({"Users": users(names)}));
    }
}
