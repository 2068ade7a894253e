//! Requests that need three brokers: replicas, in-sync replicas and leaders in answers about topics; requests to a broker
//! that is not the leader, the coordinator or the controller; requests of brokers to the controller. Broker N leads
//! partition N-1 of each topic here unless a case says otherwise.

use serde_json::{Value, json};

use super::{Row, three_brokers};
use crate::differential::{
    batch::Batch,
    case::{Case, fetch, produce, served},
};

pub(super) const CASES: &[Row] = &[
    three_brokers("three-m-topics", topics),
    three_brokers("three-m-brokers", brokers),
    three_brokers("three-a1-factors", factors),
    three_brokers("three-a1-assignments", assignments),
    three_brokers("three-a3-create-partitions", create_partitions),
    three_brokers("three-a7-elect-leaders", elect_leaders),
    three_brokers("three-a7-reassign", reassign),
    three_brokers("three-a8-log-dirs", log_dirs),
    three_brokers("three-a9-quorum", quorum),
    three_brokers("three-a5-configs", configs),
    three_brokers("three-a10-unregister", unregister),
    three_brokers("three-p-not-leader", produce_to_follower),
    three_brokers("three-p-min-isr", min_in_sync_replicas),
    three_brokers("three-f-not-leader", fetch_from_follower),
    three_brokers("three-f-as-follower", fetch_as_follower),
    three_brokers("three-l-not-leader", offsets_of_follower),
    three_brokers("three-g-find-coordinator", find_coordinator),
    three_brokers("three-g-not-coordinator", not_coordinator),
    three_brokers("three-c-broker-listener", controller_requests_to_broker),
    three_brokers("three-c-controller-listener", requests_of_brokers),
    three_brokers("three-c-admin", admin_requests_to_controller),
];

const NODES: [i32; 3] = [1, 2, 3];
/// The replicas of a topic with a partition for each leader.
const EACH_LEADS: &[&[i32]] = &[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]];
const PREFERRED: i32 = 0;
const UNCLEAN: i32 = 1;

/// Creates a topic of this case and returns its name and id.
fn topic(case: &mut Case, suffix: &str, replicas: &[&[i32]]) -> (String, Value) {
    let name = case.named(suffix);
    let id = case.replicated_topic(&name, replicas, &[]);
    (name, id)
}

/// The active controller and another one. Error messages name the active one.
fn controllers(case: &mut Case) -> [(i32, &'static str); 2] {
    let active = case.active_controller();
    let text = |node: &str| format!("The active controller appears to be node {node}.");
    case.name(&text(&active.to_string()).into(), &text("<controller>"));
    [(active, "the active controller"), (active % 3 + 1, "another controller")]
}

/// Runs the steps at each broker.
fn at_each_broker(case: &mut Case, mut steps: impl FnMut(&mut Case, &str)) {
    for broker in NODES {
        case.turn_to_broker(broker);
        let at = format!("at broker {broker}");
        case.note(at.clone());
        steps(case, &at);
    }
}

fn topics(case: &mut Case) {
    let (name, id) = topic(case, "t", EACH_LEADS);
    let (other, _) = topic(case, "with-two-replicas", &[&[1, 2], &[2, 1], &[3, 2], &[1, 3]]);
    at_each_broker(case, |case, at| {
        for version in served("Metadata") {
            case.ask("Metadata", version, json!({"Topics": [{"Name": name}, {"Name": other}]}));
            if version >= 12 {
                case.note(format!("{at}, by id"));
                case.ask("Metadata", version, json!({"Topics": [{"Name": null, "TopicId": id}]}));
                case.note(at);
            }
        }
        let topics = json!([{"Name": name}, {"Name": other}]);
        case.ask("DescribeTopicPartitions", 0, json!({"Topics": topics}));
        case.note(format!("{at}, four partitions"));
        case.ask("DescribeTopicPartitions", 0, json!({"Topics": topics, "ResponsePartitionLimit": 4}));
        case.note(format!("{at}, from partition 2 on"));
        let cursor = json!({"TopicName": name, "PartitionIndex": 2});
        case.ask("DescribeTopicPartitions", 0, json!({"Topics": topics, "Cursor": cursor}));
    });
}

/// DescribeCluster, and Metadata without topics: ids and racks.
fn brokers(case: &mut Case) {
    at_each_broker(case, |case, at| {
        for version in served("DescribeCluster") {
            for (endpoints, include_fenced) in [(1, false), (1, true), (2, false)] {
                if version == 0 && endpoints != 1 || version < 2 && include_fenced {
                    continue;
                }
                case.note(format!("{at}, endpoints {endpoints}, fenced {include_fenced}"));
                let body = json!({"EndpointType": endpoints, "IncludeFencedBrokers": include_fenced});
                case.ask("DescribeCluster", version, body);
            }
        }
        case.note(format!("{at}, no topics"));
        case.ask("Metadata", 12, json!({"Topics": []}));
    });
    for node in NODES {
        case.turn_to_controller(node);
        for version in served("DescribeCluster") {
            for (endpoints, include_fenced) in [(1, false), (2, false), (2, true)] {
                if version == 0 && endpoints != 1 || version < 2 && include_fenced {
                    continue;
                }
                case.note(format!("at controller {node}, endpoints {endpoints}, fenced {include_fenced}"));
                let body = json!({"EndpointType": endpoints, "IncludeFencedBrokers": include_fenced});
                case.ask("DescribeCluster", version, body);
            }
        }
    }
}

fn create(topic: &Value) -> Value {
    json!({"timeoutMs": 10_000, "Topics": [topic]})
}

/// Which brokers lead and follow is random in part, so the transcript has counts only.
fn factors(case: &mut Case) {
    at_each_broker(case, |case, at| {
        for (partitions, factor) in [(3, 1), (3, 2), (6, 3), (1, 4), (-1, -1), (1, 0), (1, 32_767)] {
            case.note(format!("{at}, {partitions} partitions, factor {factor}"));
            let name = case.named(&format!("{}-p{partitions}-f{factor}", at.replace(' ', "-")));
            let sized = json!({"Name": name, "NumPartitions": partitions, "ReplicationFactor": factor});
            for version in [2, 4, 5, 7] {
                let mut body = create(&sized);
                body["validateOnly"] = true.into();
                case.ask("CreateTopics", version, body);
            }
            let created = case.ask("CreateTopics", 7, create(&sized));
            if created["Topics"][0]["ErrorCode"] == 0 {
                case.until("the topic is known", |case| {
                    let answer = case.quietly("Metadata", 9, json!({"Topics": [{"Name": name}]}));
                    answer["Topics"][0]["ErrorCode"] == 0
                });
                let answer = case.quietly("Metadata", 9, json!({"Topics": [{"Name": name}]}));
                push_balance(case, &answer["Topics"][0]["Partitions"]);
            }
        }
    });
}

/// Records how many partitions each broker leads, from the fewest to the most, and how many distinct replicas each
/// partition has.
fn push_balance(case: &mut Case, partitions: &Value) {
    let partitions = partitions.as_array().cloned().unwrap_or_default();
    let mut leads = NODES.map(|id| partitions.iter().filter(|partition| partition["LeaderId"] == id).count());
    leads.sort_unstable();
    let distinct: Vec<usize> = partitions
        .iter()
        .map(|partition| {
            NODES
                .iter()
                .filter(|id| partition["ReplicaNodes"].as_array().is_some_and(|ids| ids.contains(&(**id).into())))
                .count()
        })
        .collect();
    case.push("leaders and replicas".into(), json!({"Led": leads, "Replicas": distinct}), None);
}

/// A partition and its replicas.
type AssignmentRow = (i32, &'static [i32]);

fn assignment_rows(rows: &[AssignmentRow]) -> Value {
    rows.iter().map(|(index, brokers)| json!({"PartitionIndex": index, "BrokerIds": brokers})).collect()
}

fn assignments(case: &mut Case) {
    let rows: &[(&str, &[AssignmentRow])] = &[
        ("good", &[(0, &[1, 2]), (1, &[2, 3])]),
        ("another order", &[(1, &[3, 1]), (0, &[2, 3])]),
        ("an unknown broker", &[(0, &[1, 9])]),
        ("an unknown leader", &[(0, &[9, 1])]),
        ("a negative broker", &[(0, &[1, -1])]),
        ("the same broker twice", &[(0, &[1, 2, 1])]),
        ("no brokers", &[(0, &[])]),
        ("different lengths", &[(0, &[1, 2]), (1, &[1, 2, 3])]),
        ("fewer later", &[(0, &[1, 2, 3]), (1, &[1])]),
        ("none later", &[(0, &[1, 2, 3]), (1, &[])]),
        ("a gap", &[(0, &[1, 2]), (2, &[1, 2])]),
        ("a partition twice", &[(0, &[1, 2]), (0, &[2, 3])]),
        ("a negative partition", &[(-1, &[1, 2])]),
    ];
    at_each_broker(case, |case, at| {
        for (what, rows) in rows {
            case.note(format!("{at}, {what}"));
            let name = case.named(&format!("{at} {what}").replace(' ', "-"));
            let topic = json!({"Name": name, "NumPartitions": -1, "ReplicationFactor": -1,
                "Assignments": assignment_rows(rows)});
            for version in served("CreateTopics") {
                let mut body = create(&topic);
                body["validateOnly"] = true.into();
                case.ask("CreateTopics", version, body);
            }
            let created = case.ask("CreateTopics", 7, create(&topic));
            if created["Topics"][0]["ErrorCode"] == 0 {
                let mut replicas = rows.to_vec();
                replicas.sort_unstable();
                let replicas: Vec<&[i32]> = replicas.into_iter().map(|(_, ids)| ids).collect();
                case.await_replicas(&name, &replicas);
                case.ask("Metadata", 9, json!({"Topics": [{"Name": name}]}));
            }
        }
    });
}

fn create_partitions(case: &mut Case) {
    let body = |name: &str, count: i32, assignments: &Value, validate_only: bool| {
        json!({"TimeoutMs": 10_000, "ValidateOnly": validate_only,
            "Topics": [{"Name": name, "Count": count, "Assignments": assignments}]})
    };
    let lists = |rows: &[&[i32]]| -> Value { rows.iter().map(|ids| json!({"BrokerIds": ids})).collect() };
    for version in served("CreatePartitions") {
        let (name, _) = topic(case, &format!("v{version}"), &[&[1, 2]]);
        case.turn_to_broker(1 + i32::from(version) % 3);
        for (what, count, rows) in [
            ("as many", 1, lists(&[])),
            ("an unknown broker", 2, lists(&[&[1, 9]])),
            ("only unknown brokers", 2, lists(&[&[8, 9]])),
            ("the same broker twice", 2, lists(&[&[1, 1]])),
            ("a negative broker", 2, lists(&[&[1, -1]])),
            ("more replicas", 2, lists(&[&[1, 2, 3]])),
            ("fewer replicas", 2, lists(&[&[1]])),
            ("no replicas", 2, lists(&[&[]])),
            ("different lengths", 3, lists(&[&[1, 2], &[3]])),
            ("too few assignments", 3, lists(&[&[1, 2]])),
            ("too many assignments", 2, lists(&[&[1, 2], &[2, 3]])),
        ] {
            case.note(what);
            case.ask("CreatePartitions", version, body(&name, count, &rows, true));
            case.ask("CreatePartitions", version, body(&name, count, &rows, false));
        }
        case.note("two more");
        let rows = lists(&[&[2, 3], &[3, 1]]);
        case.ask("CreatePartitions", version, body(&name, 3, &rows, true));
        case.ask("CreatePartitions", version, body(&name, 3, &rows, false));
        case.await_replicas(&name, &[&[1, 2], &[2, 3], &[3, 1]]);
        case.ask("Metadata", 9, json!({"Topics": [{"Name": name}]}));
    }
}

fn election(kind: i32, topics: &Value) -> Value {
    json!({"ElectionType": kind, "TimeoutMs": 5000, "TopicPartitions": topics})
}

/// All leaders are the preferred ones, so nothing is to be done.
fn elect_leaders(case: &mut Case) {
    let (name, _) = topic(case, "t", EACH_LEADS);
    at_each_broker(case, |case, at| {
        for version in served("ElectLeaders") {
            for kind in [PREFERRED, UNCLEAN] {
                if version == 0 && kind != PREFERRED {
                    continue;
                }
                case.note(format!("{at}, kind {kind}"));
                case.ask("ElectLeaders", version, election(kind, &json!([{"Topic": name, "Partitions": [0, 1, 2]}])));
                case.note(format!("{at}, kind {kind}, good and unknown"));
                let topics =
                    json!([{"Topic": name, "Partitions": [0, 7]}, {"Topic": case.named("none"), "Partitions": [0]}]);
                case.ask("ElectLeaders", version, election(kind, &topics));
            }
        }
        case.note(format!("{at}, afterwards"));
        case.ask("Metadata", 9, json!({"Topics": [{"Name": name}]}));
    });
}

fn reassign(case: &mut Case) {
    let (name, _) = topic(case, "t", &[&[1, 2]]);
    let body = |name: &str, partition: i32, replicas: Value| {
        json!({"TimeoutMs": 5000, "AllowReplicationFactorChange": true, "Topics": [
            {"Name": name, "Partitions": [{"PartitionIndex": partition, "Replicas": replicas}]}]})
    };
    at_each_broker(case, |case, at| {
        for version in served("AlterPartitionReassignments") {
            for (what, replicas) in [
                ("as it is", json!([1, 2])),
                ("nothing to cancel", Value::Null),
                ("none", json!([])),
                ("the same broker twice", json!([1, 1])),
                ("an unknown broker", json!([1, 9])),
                ("a negative broker", json!([1, -1])),
            ] {
                case.note(format!("{at}, {what}"));
                case.ask("AlterPartitionReassignments", version, body(&name, 0, replicas));
            }
            case.note(format!("{at}, unknown"));
            case.ask("AlterPartitionReassignments", version, body(&name, 7, json!([1, 2])));
            case.ask("AlterPartitionReassignments", version, body(&case.named("none"), 0, json!([1, 2])));
        }
        case.note(format!("{at}, one topic"));
        let topics = json!([{"Name": name, "PartitionIndexes": [0, 7]}]);
        case.ask("ListPartitionReassignments", 0, json!({"TimeoutMs": 5000, "Topics": topics}));
        case.note(format!("{at}, all topics"));
        case.ask("ListPartitionReassignments", 0, json!({"TimeoutMs": 5000, "Topics": null}));
    });
}

/// Each broker lists its own replicas only.
fn log_dirs(case: &mut Case) {
    let (name, _) = topic(case, "t", &[&[1, 2], &[2, 1], &[3, 1]]);
    at_each_broker(case, |case, _| {
        let topics = json!([{"Topic": name, "Partitions": [0, 1, 2, 7]}]);
        case.ask_all("DescribeLogDirs", json!({"Topics": topics}));
    });
    case.note("moved at a broker without a replica");
    case.turn_to_broker(2);
    let dirs = json!([{"Path": "/no/such/directory", "Topics": [{"Name": name, "Partitions": [2]}]}]);
    case.ask_all("AlterReplicaLogDirs", json!({"Dirs": dirs}));
}

fn quorum(case: &mut Case) {
    case.mark("LeaderId", "<controller>");
    let topics = |name: &str, partition: i32| json!({"Topics": [{"TopicName": name, "Partitions": [{"PartitionIndex": partition}]}]});
    at_each_broker(case, |case, at| {
        case.ask_all("DescribeQuorum", topics("__cluster_metadata", 0));
        case.note(format!("{at}, unknown"));
        case.ask_all("DescribeQuorum", topics("__cluster_metadata", 1));
        case.ask_all("DescribeQuorum", topics(&case.named("none"), 0));
    });
    for (node, role) in controllers(case) {
        case.turn_to_controller(node);
        case.note(role);
        case.ask_all("DescribeQuorum", topics("__cluster_metadata", 0));
    }
}

fn configs(case: &mut Case) {
    let (name, _) = topic(case, "t", EACH_LEADS);
    let keys = ["log.retention.ms", "num.io.threads", "node.id", "broker.rack", "min.insync.replicas"];
    let describe = |kind: i32, resource: &str| {
        json!({"IncludeSynonyms": true, "Resources": [
            {"ResourceType": kind, "ResourceName": resource, "ConfigurationKeys": keys}]})
    };
    let alter = |resource: &str, value: &str| {
        json!({"Resources": [{"ResourceType": 4, "ResourceName": resource, "Configs": [
            {"Name": "log.cleaner.threads", "ConfigOperation": 0, "Value": value}]}]})
    };
    at_each_broker(case, |case, at| {
        for broker in ["1", "2", "3", "9", "-1", "x", ""] {
            case.note(format!("{at}, broker {broker:?}"));
            case.ask("DescribeConfigs", 4, describe(4, broker));
            case.ask("DescribeConfigs", 1, describe(4, broker));
            case.note(format!("{at}, loggers of broker {broker:?}"));
            let loggers = json!({"Resources": [
                {"ResourceType": 8, "ResourceName": broker, "ConfigurationKeys": ["no.such.logger"]}]});
            case.ask("DescribeConfigs", 4, loggers);
        }
        case.note(format!("{at}, a topic"));
        let retention = json!({"Resources": [
            {"ResourceType": 2, "ResourceName": name, "ConfigurationKeys": ["retention.ms"]}]});
        case.ask("DescribeConfigs", 4, retention);
    });
    // At the broker itself, and at others.
    for (at, broker) in [(1, "2"), (2, "2"), (3, "1")] {
        for (what, value) in [("two", "2"), ("no number", "x")] {
            case.note(format!("broker {broker} changed at broker {at}: {what}"));
            case.turn_to_broker(at);
            case.ask_all("IncrementalAlterConfigs", alter(broker, value));
        }
        // A broker refuses what concerns another one.
        if at.to_string() == broker {
            case.turn_to_broker(broker.parse().expect("a number"));
            case.until("the broker has the new value", |case| {
                let answer = case.quietly(
                    "DescribeConfigs",
                    4,
                    json!({"Resources": [
                    {"ResourceType": 4, "ResourceName": broker, "ConfigurationKeys": ["log.cleaner.threads"]}]}),
                );
                answer["Results"][0]["Configs"][0]["Value"] == "2"
            });
            case.note(format!("broker {broker} afterwards"));
            let body = json!({"IncludeSynonyms": true, "Resources": [
                {"ResourceType": 4, "ResourceName": broker, "ConfigurationKeys": ["log.cleaner.threads"]}]});
            case.ask("DescribeConfigs", 4, body);
        }
        case.turn_to_broker(at);
        case.note(format!("broker {broker} deleted at broker {at}"));
        let delete = json!({"Resources": [{"ResourceType": 4, "ResourceName": broker, "Configs": [
            {"Name": "log.cleaner.threads", "ConfigOperation": 1, "Value": null}]}]});
        case.ask("IncrementalAlterConfigs", 1, delete);
    }
    for broker in ["9", "x"] {
        case.note(format!("broker {broker} changed"));
        case.ask("IncrementalAlterConfigs", 1, alter(broker, "2"));
    }
}

fn unregister(case: &mut Case) {
    at_each_broker(case, |case, at| {
        for broker in [9, -1] {
            case.note(format!("{at}, broker {broker}"));
            case.ask("UnregisterBroker", 0, json!({"BrokerId": broker}));
        }
    });
}

/// Broker 1 leads partition 0; the others follow. From version 10 on, the answer names the leader (KIP-951).
fn produce_to_follower(case: &mut Case) {
    let (name, id) = topic(case, "t", &[&[1, 2]]);
    let records = Batch::of(1).hex();
    for (broker, role) in [(2, "a follower"), (3, "no replica")] {
        case.turn_to_broker(broker);
        case.note(role);
        for version in served("Produce") {
            case.ask("Produce", version, produce(&name, &id, -1, &records));
            case.ask("Produce", version, produce(&name, &id, 1, &records));
        }
        case.note(format!("{role}, acks 0"));
        let mut connection = case.connect();
        case.send(&mut connection, "Produce", 9, &produce(&name, &id, 0, &records));
        case.outcome("Produce v9", &mut connection);
    }
    // One request with a partition that the broker leads and one that it does not.
    let (name, id) = topic(case, "each", EACH_LEADS);
    case.turn_to_broker(2);
    case.note("led and not led");
    for version in served("Produce") {
        let partitions: Vec<Value> = (0..3).map(|index| json!({"Index": index, "Records": records})).collect();
        let body = json!({"Acks": -1, "TimeoutMs": 5000, "TopicData": [
            {"Name": name, "TopicId": id, "PartitionData": partitions}]});
        case.ask("Produce", version, body);
    }
}

/// Fewer replicas than `min.insync.replicas` demands: all of them suffice.
fn min_in_sync_replicas(case: &mut Case) {
    let name = case.named("t");
    let id = case.replicated_topic(&name, &[&[1, 2]], &[("min.insync.replicas", "3")]);
    let records = Batch::of(1).hex();
    case.turn_to_broker(1);
    for version in served("Produce") {
        // The last one waits until both replicas have everything.
        for acks in [1, -1] {
            case.note(format!("acks {acks}"));
            case.ask("Produce", version, produce(&name, &id, acks, &records));
        }
    }
    case.note("what consumers see");
    case.ask("Fetch", 12, fetch(&name, &id, 0));
    let partition = json!({"PartitionIndex": 0, "Timestamp": -1});
    case.ask("ListOffsets", 5, json!({"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": [partition]}]}));
}

fn fetch_from_follower(case: &mut Case) {
    let (name, id) = topic(case, "t", &[&[1, 2]]);
    case.turn_to_broker(1);
    case.append(&name, &Batch::of(1).hex());
    for (broker, role) in [(1, "the leader"), (2, "a follower"), (3, "no replica")] {
        case.turn_to_broker(broker);
        for version in served("Fetch") {
            for epoch in [-1, 0, 1] {
                if version < 9 && epoch >= 0 {
                    continue;
                }
                case.note(format!("{role}, leader epoch {epoch}"));
                let mut body = fetch(&name, &id, 0);
                body["Topics"][0]["Partitions"][0]["CurrentLeaderEpoch"] = epoch.into();
                case.ask("Fetch", version, body);
            }
        }
    }
}

/// Followers' requests that a leader must refuse. A good one would count as the real follower's.
fn fetch_as_follower(case: &mut Case) {
    let (name, id) = topic(case, "t", &[&[1, 2]]);
    for (broker, role) in [(1, "the leader"), (2, "a follower"), (3, "no replica")] {
        case.turn_to_broker(broker);
        for version in served("Fetch") {
            for (replica, replica_epoch, leader_epoch) in [(3, -1, 0), (9, -1, 0), (9, 1, 0), (3, -1, 1), (2, -1, 1)] {
                if version < 9 && leader_epoch > 0 || version < 15 && replica_epoch > 0 {
                    continue;
                }
                case.note(format!("{role}, replica {replica} of epoch {replica_epoch}, leader epoch {leader_epoch}"));
                let mut body = fetch(&name, &id, 0);
                body["ReplicaId"] = replica.into();
                body["ReplicaState"] = json!({"ReplicaId": replica, "ReplicaEpoch": replica_epoch});
                body["Topics"][0]["Partitions"][0]["CurrentLeaderEpoch"] = leader_epoch.into();
                case.ask("Fetch", version, body);
            }
        }
    }
}

fn offsets_of_follower(case: &mut Case) {
    let (name, id) = topic(case, "t", &[&[1, 2]]);
    case.turn_to_broker(1);
    case.append(&name, &Batch::of(1).hex());
    // The follower's answers depend on what it has fetched.
    case.until("the record is committed", |case| {
        !case.quietly("Fetch", 12, fetch(&name, &id, 0))["Responses"][0]["Partitions"][0]["Records"].is_null()
    });
    for (broker, role) in [(1, "the leader"), (2, "a follower"), (3, "no replica")] {
        case.turn_to_broker(broker);
        for version in served("ListOffsets") {
            for epoch in [-1, 0, 1] {
                if version < 4 && epoch >= 0 {
                    continue;
                }
                for timestamp in [-1, -2] {
                    case.note(format!("{role}, leader epoch {epoch}, timestamp {timestamp}"));
                    let partition = json!({"PartitionIndex": 0, "Timestamp": timestamp, "CurrentLeaderEpoch": epoch});
                    let body = json!({"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": [partition]}]});
                    case.ask("ListOffsets", version, body);
                }
            }
        }
        for version in served("OffsetForLeaderEpoch") {
            for (current, epoch) in [(-1, 0), (0, 0), (0, 5), (1, 0), (-1, -1)] {
                for replica in [-1, 2, 9] {
                    case.note(format!("{role}, leader epoch {current}, asks for epoch {epoch} as {replica}"));
                    let partition = json!({"Partition": 0, "CurrentLeaderEpoch": current, "LeaderEpoch": epoch});
                    let body = json!({"ReplicaId": replica, "Topics": [{"Topic": name, "Partitions": [partition]}]});
                    case.ask("OffsetForLeaderEpoch", version, body);
                }
            }
        }
    }
    case.note("records deleted at a follower");
    case.turn_to_broker(2);
    let partition = json!({"PartitionIndex": 0, "Offset": 1});
    case.ask_all("DeleteRecords", json!({"TimeoutMs": 5000, "Topics": [{"Name": name, "Partitions": [partition]}]}));
    case.note("producers of a follower");
    case.ask_all("DescribeProducers", json!({"Topics": [{"Name": name, "PartitionIndexes": [0]}]}));
}

/// The hash of each of these groups names another partition of `__consumer_offsets`: `a` belongs to broker 2, `b` to
/// broker 3, `c` to broker 1.
fn find_coordinator(case: &mut Case) {
    at_each_broker(case, |case, _| {
        for group in ["a", "b", "c"] {
            for version in served("FindCoordinator") {
                case.ask("FindCoordinator", version, json!({"Key": group, "CoordinatorKeys": [group]}));
            }
        }
        for version in 4..=6 {
            case.ask("FindCoordinator", version, json!({"CoordinatorKeys": ["a", "", "b", "c"]}));
        }
    });
}

/// Asks of broker 1 about a group of broker 2.
fn not_coordinator(case: &mut Case) {
    let (name, id) = topic(case, "t", EACH_LEADS);
    case.turn_to_broker(1);
    let group = "a";
    let offset = json!([{"Name": name, "TopicId": id, "Partitions": [
        {"PartitionIndex": 0, "CommittedOffset": 1, "CommittedMetadata": ""}]}]);
    let partitions = json!([{"Name": name, "TopicId": id, "PartitionIndexes": [0]}]);
    case.ask_all(
        "JoinGroup",
        json!({"GroupId": group, "SessionTimeoutMs": 10_000, "RebalanceTimeoutMs": 10_000,
        "MemberId": "", "ProtocolType": "consumer", "Protocols": [{"Name": "range", "Metadata": ""}]}),
    );
    case.ask_all(
        "SyncGroup",
        json!({"GroupId": group, "MemberId": "m", "GenerationId": 1,
        "ProtocolType": "consumer", "ProtocolName": "range", "Assignments": []}),
    );
    case.ask_all("Heartbeat", json!({"GroupId": group, "MemberId": "m", "GenerationId": 1}));
    case.ask_all("LeaveGroup", json!({"GroupId": group, "MemberId": "m", "Members": [{"MemberId": "m"}]}));
    case.ask_all(
        "OffsetCommit",
        json!({"GroupId": group, "GenerationIdOrMemberEpoch": -1, "MemberId": "",
        "Topics": offset}),
    );
    case.ask_all(
        "OffsetFetch",
        json!({"GroupId": group, "Topics": [{"Name": name, "PartitionIndexes": [0]}],
        "Groups": [{"GroupId": group, "Topics": partitions}, {"GroupId": "c", "Topics": partitions}]}),
    );
    case.ask_all(
        "OffsetDelete",
        json!({"GroupId": group, "Topics": [
        {"Name": name, "Partitions": [{"PartitionIndex": 0}]}]}),
    );
    case.ask_all("DescribeGroups", json!({"Groups": [group, "c"]}));
    case.ask_all("DeleteGroups", json!({"GroupsNames": [group, "c"]}));
    case.note("offsets of one group at each broker");
    for broker in NODES {
        case.turn_to_broker(broker);
        case.ask(
            "OffsetCommit",
            9,
            json!({"GroupId": "b", "GenerationIdOrMemberEpoch": -1, "MemberId": "",
            "Topics": offset}),
        );
        case.ask("OffsetFetch", 9, json!({"Groups": [{"GroupId": "b", "Topics": partitions}]}));
    }
}

/// The APIs for brokers and controllers, sent to the listener for clients.
fn controller_requests_to_broker(case: &mut Case) {
    at_each_broker(case, |case, _| {
        for (api, versions, body) in broker_requests() {
            for version in versions {
                case.ask(api, version, body.clone());
            }
        }
    });
}

/// Requests of a broker 9, which does not exist.
fn broker_requests() -> Vec<(&'static str, std::ops::RangeInclusive<i16>, Value)> {
    let no_id = "AAAAAAAAAAAAAAAAAAAACQ";
    let partition = json!({"PartitionIndex": 0, "NewIsr": [9], "NewIsrWithEpochs": [{"BrokerId": 9}]});
    vec![
        (
            "AlterPartition",
            2..=3,
            json!({"BrokerId": 9, "BrokerEpoch": 1, "Topics": [{"TopicId": no_id, "Partitions": [partition]}]}),
        ),
        ("BrokerHeartbeat", 0..=1, json!({"BrokerId": 9, "BrokerEpoch": 1, "CurrentMetadataOffset": 1})),
        (
            "BrokerRegistration",
            0..=4,
            json!({"BrokerId": 9, "ClusterId": "another", "IncarnationId": no_id, "LogDirs": [no_id],
                "Listeners": [{"Name": "PLAINTEXT", "Host": "127.0.0.1", "Port": 9, "SecurityProtocol": 0}],
                "Features": [{"Name": "metadata.version", "MinSupportedVersion": 7, "MaxSupportedVersion": 30}]}),
        ),
        ("AllocateProducerIds", 0..=0, json!({"BrokerId": 9, "BrokerEpoch": 1})),
        ("AssignReplicasToDirs", 0..=0, json!({"BrokerId": 9, "BrokerEpoch": 1, "Directories": []})),
    ]
}

/// The same APIs on the listener for controllers, at the active one and at another.
fn requests_of_brokers(case: &mut Case) {
    let (_, id) = topic(case, "t", &[&[1, 2]]);
    for (node, role) in controllers(case) {
        case.turn_to_controller(node);
        case.note(role);
        for (api, versions, body) in broker_requests() {
            for version in versions {
                case.ask(api, version, body.clone());
            }
        }
        // An epoch that the broker does not have, and a partition that another one leads.
        for (broker, broker_epoch) in [(1, 0), (1, -1), (2, -1), (3, i64::MAX)] {
            case.note(format!("{role}, broker {broker} of epoch {broker_epoch}"));
            let partition = json!({"PartitionIndex": 0, "LeaderEpoch": 0, "PartitionEpoch": 0, "NewIsr": [1],
                "NewIsrWithEpochs": [{"BrokerId": 1, "BrokerEpoch": -1}]});
            let topics = json!([{"TopicId": id, "Partitions": [partition]}]);
            let body = json!({"BrokerId": broker, "BrokerEpoch": broker_epoch, "Topics": topics});
            for version in 2..=3 {
                case.ask("AlterPartition", version, body.clone());
            }
            let body = json!({"BrokerId": broker, "BrokerEpoch": broker_epoch, "CurrentMetadataOffset": 1});
            for version in 0..=1 {
                case.ask("BrokerHeartbeat", version, body.clone());
            }
            let body = json!({"BrokerId": broker, "BrokerEpoch": broker_epoch});
            case.ask("AllocateProducerIds", 0, body);
            let body = json!({"BrokerId": broker, "BrokerEpoch": broker_epoch, "Directories": []});
            case.ask("AssignReplicasToDirs", 0, body);
        }
    }
    case.note("afterwards");
    case.turn_to_broker(1);
    case.ask("Metadata", 12, json!({"Topics": [{"Name": null, "TopicId": id}]}));
}

/// Requests of tools with `--bootstrap-controller` (KIP-919), and requests that controllers do not serve.
fn admin_requests_to_controller(case: &mut Case) {
    for (node, role) in controllers(case) {
        case.turn_to_controller(node);
        case.note(role);
        let name = case.named("new");
        let topic = json!({"Name": name, "NumPartitions": 3, "ReplicationFactor": 3});
        case.ask_all("CreateTopics", create(&topic));
        let more = json!([{"Name": name, "Count": 2, "Assignments": null}]);
        case.ask_all("CreatePartitions", json!({"TimeoutMs": 5000, "Topics": more}));
        case.ask_all("ElectLeaders", election(PREFERRED, &json!([{"Topic": name, "Partitions": [7]}])));
        case.ask_all("ListPartitionReassignments", json!({"TimeoutMs": 5000, "Topics": null}));
        let target = json!([{"Name": name, "Partitions": [{"PartitionIndex": 7, "Replicas": [1]}]}]);
        case.ask_all("AlterPartitionReassignments", json!({"TimeoutMs": 5000, "Topics": target}));
        let alter = json!({"Resources": [{"ResourceType": 2, "ResourceName": name, "Configs": [
            {"Name": "retention.ms", "ConfigOperation": 0, "Value": "1000"}]}]});
        case.ask_all("IncrementalAlterConfigs", alter);
        let keys = json!(["node.id", "log.retention.ms"]);
        let text = |node: &str| format!("expected {node} or empty string");
        case.name(&text(&node.to_string()).into(), &text("<node>"));
        case.ask_all(
            "DescribeConfigs",
            json!({"Resources": [
            {"ResourceType": 4, "ResourceName": "9", "ConfigurationKeys": keys}]}),
        );
        case.ask(
            "DescribeConfigs",
            4,
            json!({"Resources": [
            {"ResourceType": 4, "ResourceName": "", "ConfigurationKeys": ["log.retention.ms"]}]}),
        );
        case.ask_all("UnregisterBroker", json!({"BrokerId": 9}));
        case.ask_all("DeleteTopics", json!({"TimeoutMs": 5000, "TopicNames": [name], "Topics": [{"Name": name}]}));
        for (api, version, body) in [
            ("Metadata", 12, json!({"Topics": []})),
            ("Produce", 9, produce(&name, &Value::Null, -1, &Batch::of(1).hex())),
            ("ListOffsets", 5, json!({"ReplicaId": -1, "Topics": []})),
            ("FindCoordinator", 4, json!({"CoordinatorKeys": ["a"]})),
            ("ListGroups", 4, json!({})),
            ("DescribeLogDirs", 4, json!({"Topics": []})),
            ("DeleteRecords", 2, json!({"TimeoutMs": 5000, "Topics": []})),
            ("DescribeTopicPartitions", 0, json!({"Topics": []})),
        ] {
            case.ask(api, version, body);
        }
    }
}
