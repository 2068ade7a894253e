//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs, ListConfigResources: rules A5, A6 and A16 of docs/RULES.md.

use serde_json::{Value, json};

use super::{Row, alone, changed, shared};
use crate::differential::case::{Case, served};

pub(super) const CASES: &[Row] = &[
    shared("configs-a5-topic", topic),
    shared("configs-a5-topic-layers", topic_layers),
    shared("configs-a5-broker", broker),
    shared("configs-a5-documentation", documentation),
    shared("configs-a5-resources", resources),
    shared("configs-a6-incremental", incremental),
    shared("configs-a6-incremental-errors", incremental_errors),
    shared("configs-a6-alter", alter),
    shared("configs-a6-alter-errors", alter_errors),
    alone("configs-a6-broker-dynamic", broker_dynamic),
    alone("configs-a6-broker-errors", broker_errors),
    changed("configs-a6-min-isr", min_isr),
    alone("configs-a6-loggers", loggers),
    alone("configs-a16-list-resources", list_resources),
    alone("configs-groups-and-metrics", groups_and_metrics),
];

const TOPIC: i32 = 2;
const BROKER: i32 = 4;
const LOGGER: i32 = 8;
const CLIENT_METRICS: i32 = 16;
const GROUP: i32 = 32;

const SET: i32 = 0;
const DELETE: i32 = 1;
const APPEND: i32 = 2;
const SUBTRACT: i32 = 3;

fn describe(kind: i32, name: &str, keys: Value) -> Value {
    json!({"Resources": [{"ResourceType": kind, "ResourceName": name, "ConfigurationKeys": keys}], "IncludeSynonyms": true})
}

fn change(kind: i32, name: &str, changes: &[(&str, i32, Option<&str>)]) -> Value {
    let list: Vec<Value> = changes
        .iter()
        .map(|(key, operation, value)| json!({"Name": key, "ConfigOperation": operation, "Value": value}))
        .collect();
    json!({"Resources": [{"ResourceType": kind, "ResourceName": name, "Configs": list}]})
}

/// Waits until a setting has a value: Kafka applies changes after it has answered.
fn await_value(case: &mut Case, kind: i32, name: &str, key: &str, value: &str) {
    case.until(&format!("{key} is {value}"), |case| {
        let answer = case.quietly("DescribeConfigs", 4, describe(kind, name, json!([key])));
        answer["Results"][0]["Configs"][0]["Value"] == value
    });
}

fn topic(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[("retention.ms", "1000"), ("cleanup.policy", "compact")]);
    for version in served("DescribeConfigs") {
        for synonyms in [true, false] {
            case.note(format!("all, synonyms {synonyms}"));
            let mut body = describe(TOPIC, &topic, Value::Null);
            body["IncludeSynonyms"] = synonyms.into();
            case.ask("DescribeConfigs", version, body);
        }
        case.note("some, an unknown one, one twice");
        case.ask(
            "DescribeConfigs",
            version,
            describe(TOPIC, &topic, json!(["retention.ms", "foo.bar", "segment.bytes", "segment.bytes"])),
        );
        case.note("an empty list");
        case.ask("DescribeConfigs", version, describe(TOPIC, &topic, json!([])));
    }
}

/// The same setting on the topic, on the broker and as default: which one is in effect, and the order of the synonyms.
fn topic_layers(case: &mut Case) {
    let (plain, _) = case.topic("plain", 1, &[]);
    let (own, _) =
        case.topic("own", 1, &[("retention.ms", "777"), ("segment.ms", "888"), ("max.message.bytes", "999")]);
    let keys = json!([
        "retention.ms",
        "segment.ms",
        "max.message.bytes",
        "cleanup.policy",
        "min.insync.replicas",
        "segment.jitter.ms",
        "flush.ms",
        "compression.type"
    ]);
    for topic in [&plain, &own] {
        case.ask("DescribeConfigs", 4, describe(TOPIC, topic, keys.clone()));
    }
}

fn broker(case: &mut Case) {
    for version in served("DescribeConfigs") {
        case.note("all");
        case.ask("DescribeConfigs", version, describe(BROKER, "1", Value::Null));
    }
    case.note("without synonyms");
    let mut body = describe(BROKER, "1", Value::Null);
    body["IncludeSynonyms"] = false.into();
    case.ask("DescribeConfigs", 4, body);
}

fn documentation(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    for version in served("DescribeConfigs") {
        let mut body = describe(TOPIC, &topic, json!(["retention.ms", "cleanup.policy"]));
        body["IncludeDocumentation"] = true.into();
        let answer = case.quietly("DescribeConfigs", version, body);
        for entry in answer["Results"][0]["Configs"].as_array().into_iter().flatten() {
            let told = entry["Documentation"].as_str().is_some_and(|text| !text.is_empty());
            case.push(format!("{} has a documentation", entry["Name"]), told.into(), None);
        }
    }
}

fn resources(case: &mut Case) {
    for version in served("DescribeConfigs") {
        for (what, kind, name) in [
            ("an unknown topic", TOPIC, case.named("none")),
            ("a bad topic", TOPIC, "a b".into()),
            ("a nameless topic", TOPIC, String::new()),
            ("another broker", BROKER, "9".into()),
            ("a broker that is no number", BROKER, "x".into()),
            ("another broker's loggers", LOGGER, "9".into()),
            ("an unknown type", 3, "x".into()),
            ("type 0", 0, "x".into()),
        ] {
            case.note(what);
            case.ask("DescribeConfigs", version, describe(kind, &name, json!(["retention.ms"])));
        }
        case.note("none");
        case.ask("DescribeConfigs", version, json!({"Resources": []}));
    }
}

fn incremental(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[("retention.ms", "1000")]);
    let keys = json!(["retention.ms", "cleanup.policy", "segment.ms", "min.insync.replicas"]);
    for version in served("IncrementalAlterConfigs") {
        case.note("set");
        case.ask(
            "IncrementalAlterConfigs",
            version,
            change(TOPIC, &topic, &[("retention.ms", SET, Some("2000")), ("segment.ms", SET, Some("60000"))]),
        );
        await_value(case, TOPIC, &topic, "segment.ms", "60000");
        case.ask("DescribeConfigs", 4, describe(TOPIC, &topic, keys.clone()));
        case.note("append");
        case.ask(
            "IncrementalAlterConfigs",
            version,
            change(TOPIC, &topic, &[("cleanup.policy", APPEND, Some("compact"))]),
        );
        await_value(case, TOPIC, &topic, "cleanup.policy", "delete,compact");
        case.note("append again");
        case.ask(
            "IncrementalAlterConfigs",
            version,
            change(TOPIC, &topic, &[("cleanup.policy", APPEND, Some("compact"))]),
        );
        case.note("subtract");
        case.ask(
            "IncrementalAlterConfigs",
            version,
            change(TOPIC, &topic, &[("cleanup.policy", SUBTRACT, Some("delete"))]),
        );
        await_value(case, TOPIC, &topic, "cleanup.policy", "compact");
        case.ask("DescribeConfigs", 4, describe(TOPIC, &topic, keys.clone()));
        case.note("delete");
        case.ask(
            "IncrementalAlterConfigs",
            version,
            change(
                TOPIC,
                &topic,
                &[
                    ("cleanup.policy", DELETE, None),
                    ("segment.ms", DELETE, None),
                    ("flush.ms", DELETE, None),
                    ("retention.ms", DELETE, Some("5")),
                ],
            ),
        );
        await_value(case, TOPIC, &topic, "segment.ms", "604800000");
        case.ask("DescribeConfigs", 4, describe(TOPIC, &topic, keys.clone()));
        case.note("validate only");
        let mut body = change(TOPIC, &topic, &[("retention.ms", SET, Some("5"))]);
        body["ValidateOnly"] = true.into();
        case.ask("IncrementalAlterConfigs", version, body);
        case.ask("DescribeConfigs", 4, describe(TOPIC, &topic, keys.clone()));
    }
}

fn incremental_errors(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[("retention.ms", "1000")]);
    for version in served("IncrementalAlterConfigs") {
        for (what, kind, name, changes) in [
            ("an unknown key", TOPIC, topic.as_str(), vec![("foo.bar", SET, Some("1"))]),
            ("deletes an unknown key", TOPIC, &topic, vec![("foo.bar", DELETE, None)]),
            ("a bad value", TOPIC, &topic, vec![("retention.ms", SET, Some("abc"))]),
            ("a value out of bounds", TOPIC, &topic, vec![("retention.ms", SET, Some("-5"))]),
            (
                "a good and a bad one",
                TOPIC,
                &topic,
                vec![("segment.ms", SET, Some("70000")), ("retention.ms", SET, Some("-5"))],
            ),
            ("no value", TOPIC, &topic, vec![("retention.ms", SET, None)]),
            (
                "the same key twice",
                TOPIC,
                &topic,
                vec![("retention.ms", SET, Some("1")), ("retention.ms", DELETE, None)],
            ),
            ("appends to what is no list", TOPIC, &topic, vec![("retention.ms", APPEND, Some("1"))]),
            ("subtracts from what is no list", TOPIC, &topic, vec![("retention.ms", SUBTRACT, Some("1"))]),
            ("appends nonsense", TOPIC, &topic, vec![("cleanup.policy", APPEND, Some("nonsense"))]),
            ("appends nothing", TOPIC, &topic, vec![("cleanup.policy", APPEND, None)]),
            ("an unknown operation", TOPIC, &topic, vec![("retention.ms", 7, Some("1"))]),
            ("an unknown topic", TOPIC, "no-such-topic", vec![("retention.ms", SET, Some("1"))]),
            ("a bad topic", TOPIC, "a b", vec![("retention.ms", SET, Some("1"))]),
            ("a nameless topic", TOPIC, "", vec![("retention.ms", SET, Some("1"))]),
            ("an unknown type", 3, "x", vec![("retention.ms", SET, Some("1"))]),
            ("nothing to change", TOPIC, &topic, vec![]),
        ] {
            case.note(what);
            case.ask("IncrementalAlterConfigs", version, change(kind, name, &changes));
        }
        case.note("a good resource beside a bad one, and one twice");
        let mut body = change(TOPIC, "no-such-topic", &[("retention.ms", SET, Some("1"))]);
        let good = change(TOPIC, &topic, &[("segment.ms", SET, Some("70000"))])["Resources"][0].clone();
        body["Resources"].as_array_mut().expect("a list").push(good.clone());
        case.ask("IncrementalAlterConfigs", version, body.clone());
        body["Resources"].as_array_mut().expect("a list").push(good);
        case.ask("IncrementalAlterConfigs", version, body);
        await_value(case, TOPIC, &topic, "segment.ms", "70000");
        case.note("no resources");
        case.ask("IncrementalAlterConfigs", version, json!({"Resources": []}));
        case.note("what is set in the end");
        case.ask(
            "DescribeConfigs",
            4,
            describe(TOPIC, &topic, json!(["retention.ms", "segment.ms", "cleanup.policy"])),
        );
    }
}

/// Tests only the root logger: the others are the modules of each server.
fn loggers(case: &mut Case) {
    for version in served("IncrementalAlterConfigs") {
        for (what, name, changes) in [
            ("set", "1", vec![("root", SET, Some("ERROR"))]),
            ("set to fatal", "1", vec![("root", SET, Some("FATAL"))]),
            ("set back", "1", vec![("root", SET, Some("INFO"))]),
            ("nothing to change", "1", vec![]),
            ("an unknown logger", "1", vec![("no.such.logger", SET, Some("INFO"))]),
            ("a nameless logger", "1", vec![("", SET, Some("INFO"))]),
            ("deletes an unknown logger", "1", vec![("no.such.logger", DELETE, None)]),
            ("a level in small letters", "1", vec![("root", SET, Some("debug"))]),
            ("a level that is none", "1", vec![("root", SET, Some("OFF"))]),
            ("no level", "1", vec![("root", SET, None)]),
            ("deletes root", "1", vec![("root", DELETE, None)]),
            ("appends", "1", vec![("root", APPEND, Some("INFO"))]),
            ("subtracts", "1", vec![("root", SUBTRACT, Some("INFO"))]),
            ("appends to an unknown logger", "1", vec![("no.such.logger", APPEND, Some("INFO"))]),
            ("an unknown operation", "1", vec![("root", 9, Some("INFO"))]),
            ("the same twice", "1", vec![("root", SET, Some("WARN")), ("root", SET, Some("INFO"))]),
            ("a good and a bad one", "1", vec![("root", SET, Some("WARN")), ("no.such.logger", SET, Some("INFO"))]),
            ("a nameless broker", "", vec![("root", SET, Some("INFO"))]),
            ("another broker", "9", vec![("root", SET, Some("INFO"))]),
            ("a broker that is no number", "x", vec![("root", SET, Some("INFO"))]),
        ] {
            case.note(what);
            case.ask("IncrementalAlterConfigs", version, change(LOGGER, name, &changes));
            case.ask("DescribeConfigs", 4, describe(LOGGER, "1", json!(["root", "no.such.logger"])));
        }
        case.note("validate only");
        let mut body = change(LOGGER, "1", &[("root", SET, Some("WARN"))]);
        body["ValidateOnly"] = true.into();
        case.ask("IncrementalAlterConfigs", version, body);
        case.ask("DescribeConfigs", 4, describe(LOGGER, "1", json!(["root"])));
    }
}

fn alter(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[("retention.ms", "1000"), ("flush.ms", "5")]);
    let keys = json!(["retention.ms", "segment.ms", "flush.ms"]);
    for version in served("AlterConfigs") {
        case.note("validate only");
        let mut body = json!({"Resources": [{"ResourceType": TOPIC, "ResourceName": topic, "Configs": [{"Name": "segment.ms", "Value": "90000"}]}]});
        body["ValidateOnly"] = true.into();
        case.ask("AlterConfigs", version, body.clone());
        case.ask("DescribeConfigs", 4, describe(TOPIC, &topic, keys.clone()));
        case.note("replaces all");
        body["ValidateOnly"] = false.into();
        case.ask("AlterConfigs", version, body);
        await_value(case, TOPIC, &topic, "segment.ms", "90000");
        case.ask("DescribeConfigs", 4, describe(TOPIC, &topic, keys.clone()));
        case.note("to nothing");
        case.ask(
            "AlterConfigs",
            version,
            json!({"Resources": [{"ResourceType": TOPIC, "ResourceName": topic, "Configs": []}]}),
        );
        await_value(case, TOPIC, &topic, "segment.ms", "604800000");
        case.ask("DescribeConfigs", 4, describe(TOPIC, &topic, keys.clone()));
    }
}

fn alter_errors(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    for version in served("AlterConfigs") {
        for (what, kind, name, key, value) in [
            ("an unknown key", TOPIC, topic.as_str(), "foo.bar", Some("1")),
            ("a bad value", TOPIC, &topic, "retention.ms", Some("abc")),
            ("no value", TOPIC, &topic, "retention.ms", None),
            ("an unknown topic", TOPIC, "no-such-topic", "retention.ms", Some("1")),
            ("a bad topic", TOPIC, "a b", "retention.ms", Some("1")),
            ("an unknown type", 3, "x", "retention.ms", Some("1")),
            ("another broker", BROKER, "9", "log.cleaner.threads", Some("1")),
        ] {
            case.note(what);
            case.ask("AlterConfigs", version, json!({"Resources": [{"ResourceType": kind, "ResourceName": name, "Configs": [{"Name": key, "Value": value}]}]}));
        }
        case.note("the same key twice");
        case.ask(
            "AlterConfigs",
            version,
            json!({"Resources": [{"ResourceType": TOPIC, "ResourceName": topic, "Configs": [
            {"Name": "retention.ms", "Value": "1"}, {"Name": "retention.ms", "Value": "2"}]}]}),
        );
    }
}

/// With eligible leader replicas `min.insync.replicas` is a setting of topics and of the whole cluster only (KIP-966).
fn min_isr(case: &mut Case) {
    const KEY: &str = "min.insync.replicas";
    let incremental = |case: &mut Case, name: &str, operation, value| {
        case.ask("IncrementalAlterConfigs", 1, change(BROKER, name, &[(KEY, operation, value)]));
    };
    let legacy = |case: &mut Case, name: &str, key: &str, value: &str| {
        let configs = json!([{"Name": key, "Value": value}]);
        case.ask(
            "AlterConfigs",
            2,
            json!({"Resources": [
            {"ResourceType": BROKER, "ResourceName": name, "Configs": configs}]}),
        );
    };
    let elr = |case: &mut Case, level: i32, upgrade_type: i32| {
        let feature = "eligible.leader.replicas.version";
        let update = json!({"Feature": feature, "MaxVersionLevel": level, "UpgradeType": upgrade_type});
        case.ask("UpdateFeatures", 1, json!({"timeoutMs": 5000, "FeatureUpdates": [update]}));
    };
    let show = |case: &mut Case, value: &str| {
        await_value(case, BROKER, "1", KEY, value);
        for name in ["", "1"] {
            case.ask("DescribeConfigs", 4, describe(BROKER, name, json!([KEY])));
        }
    };
    let refused = |case: &mut Case| {
        incremental(case, "1", SET, Some("1"));
        incremental(case, "1", DELETE, None);
        incremental(case, "", DELETE, None);
        legacy(case, "1", KEY, "1");
        legacy(case, "", "message.max.bytes", "1000000");
    };
    case.note("enabled");
    show(case, "1");
    refused(case);
    incremental(case, "", SET, Some("2"));
    show(case, "2");
    legacy(case, "", KEY, "1");
    show(case, "1");
    case.note("disabled");
    elr(case, 0, 2);
    incremental(case, "", DELETE, None);
    incremental(case, "1", SET, Some("2"));
    show(case, "2");
    case.note("enabled again");
    elr(case, 1, 1);
    show(case, "1");
    refused(case);
}

fn broker_dynamic(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    let broker_keys = json!(["log.retention.ms", "log.segment.bytes", "message.max.bytes", "log.cleaner.threads"]);
    let topic_keys = json!(["retention.ms", "segment.bytes", "max.message.bytes"]);
    let show = |case: &mut Case| {
        case.ask("DescribeConfigs", 4, describe(BROKER, "1", broker_keys.clone()));
        case.ask("DescribeConfigs", 4, describe(BROKER, "", Value::Null));
        case.ask("DescribeConfigs", 4, describe(TOPIC, &topic, topic_keys.clone()));
    };
    for version in served("IncrementalAlterConfigs") {
        case.note("cluster default");
        case.ask(
            "IncrementalAlterConfigs",
            version,
            change(
                BROKER,
                "",
                &[("log.segment.bytes", SET, Some("2000000")), ("message.max.bytes", SET, Some("500000"))],
            ),
        );
        await_value(case, BROKER, "1", "message.max.bytes", "500000");
        show(case);
        case.note("this broker");
        case.ask(
            "IncrementalAlterConfigs",
            version,
            change(BROKER, "1", &[("log.segment.bytes", SET, Some("3000000"))]),
        );
        await_value(case, BROKER, "1", "log.segment.bytes", "3000000");
        show(case);
        case.note("deleted");
        case.ask("IncrementalAlterConfigs", version, change(BROKER, "1", &[("log.segment.bytes", DELETE, None)]));
        case.ask(
            "IncrementalAlterConfigs",
            version,
            change(BROKER, "", &[("log.segment.bytes", DELETE, None), ("message.max.bytes", DELETE, None)]),
        );
        await_value(case, BROKER, "1", "message.max.bytes", "1048588");
        show(case);
    }
}

fn broker_errors(case: &mut Case) {
    for (what, name, key, value) in [
        ("read only", "1", "num.partitions.nonsense", "3"),
        ("read only for one broker", "1", "log.dirs", "/tmp/x"),
        ("read only for all", "", "broker.id", "3"),
        ("an unknown key", "", "foo.bar", "1"),
        ("a bad value", "", "log.retention.ms", "abc"),
        ("a bad value for one broker", "1", "log.cleaner.threads", "0"),
        ("per broker only", "", "listeners", "PLAINTEXT://:1"),
        ("another broker", "9", "log.retention.ms", "5"),
        ("a broker that is no number", "x", "log.retention.ms", "5"),
        ("a topic's setting", "1", "retention.ms", "5"),
    ] {
        case.note(what);
        let mut body = change(BROKER, name, &[(key, SET, Some(value))]);
        body["ValidateOnly"] = true.into();
        case.ask("IncrementalAlterConfigs", 1, body);
    }
}

fn list_resources(case: &mut Case) {
    case.topic("t", 1, &[]);
    case.note("v0");
    case.ask("ListConfigResources", 0, json!({}));
    for types in [
        vec![TOPIC],
        vec![BROKER],
        vec![LOGGER],
        vec![CLIENT_METRICS],
        vec![GROUP],
        vec![BROKER, LOGGER],
        vec![],
        vec![3],
        vec![BROKER, 99],
        vec![BROKER, BROKER],
    ] {
        case.note(format!("types {types:?}"));
        let mut answer = case.quietly("ListConfigResources", 1, json!({"ResourceTypes": types}));
        if let Some(list) = answer["ConfigResources"].as_array_mut() {
            list.retain(|one| {
                one["ResourceType"] != TOPIC
                    || one["ResourceName"].as_str().is_some_and(|name| name.starts_with("configs-a16"))
            });
        }
        case.push("ListConfigResources v1".into(), answer, Some("ListConfigResources"));
    }
}

/// Settings of resources whose features Ottla does not have yet.
fn groups_and_metrics(case: &mut Case) {
    let group = case.named("g");
    case.ask("DescribeConfigs", 4, describe(GROUP, &group, Value::Null));
    case.ask(
        "IncrementalAlterConfigs",
        1,
        change(GROUP, &group, &[("consumer.session.timeout.ms", SET, Some("50000"))]),
    );
    case.ask("IncrementalAlterConfigs", 1, change(GROUP, &group, &[("foo.bar", SET, Some("1"))]));
    case.ask("DescribeConfigs", 4, describe(CLIENT_METRICS, "m", Value::Null));
    case.ask("IncrementalAlterConfigs", 1, change(CLIENT_METRICS, "m", &[("interval.ms", SET, Some("5"))]));
}
