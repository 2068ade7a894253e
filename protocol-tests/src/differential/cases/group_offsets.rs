//! Committed offsets: rules O1 to O7 of docs/RULES.md.

use serde_json::{Value, json};

use super::{
    Row,
    groups::{join, stable},
    shared,
};
use crate::differential::case::{Case, served};

pub(super) const CASES: &[Row] = &[
    shared("committed-o1-simple", simple),
    shared("committed-o1-members", members),
    shared("committed-o1-rebalancing", rebalancing),
    shared("committed-o2-partitions", partitions),
    shared("committed-o4-fetch", fetch),
    shared("committed-o4-fetch-all", fetch_all),
    shared("committed-o4-fetch-groups", fetch_groups),
    shared("committed-o6-delete-offsets", delete_offsets),
    shared("committed-o7-recreated-topic", recreated_topic),
];

/// A commit for partition 0 by name (up to v9) and id (v10).
fn commit(group: &str, generation: &Value, member: &Value, topic: &str, id: &Value, offset: i64) -> Value {
    json!({"GroupId": group, "GenerationIdOrMemberEpoch": generation, "MemberId": member, "Topics": [{"Name": topic, "TopicId": id,
        "Partitions": [{"PartitionIndex": 0, "CommittedOffset": offset, "CommittedLeaderEpoch": 0, "CommittedMetadata": "m"}]}]})
}

/// An OffsetFetch for partitions 0 and 1, with the fields of all versions.
fn fetch_two(group: &str, topic: &str, id: &Value) -> Value {
    json!({"GroupId": group, "Topics": [{"Name": topic, "PartitionIndexes": [0, 1]}],
        "Groups": [{"GroupId": group, "MemberEpoch": -1, "Topics": [{"Name": topic, "TopicId": id, "PartitionIndexes": [0, 1]}]}]})
}

fn simple(case: &mut Case) {
    let (topic, id) = case.topic("t", 2, &[]);
    for version in served("OffsetCommit") {
        let group = case.named(&format!("v{version}"));
        case.note("a group that is not there");
        case.ask("OffsetCommit", version, commit(&group, &(-1).into(), &"".into(), &topic, &id, 11));
        case.ask("OffsetFetch", version.min(9), fetch_two(&group, &topic, &id));
        case.note("a generation without a group");
        case.ask("OffsetCommit", version, commit(&case.named("none"), &5.into(), &"".into(), &topic, &id, 12));
        case.ask("OffsetCommit", version, commit(&case.named("none"), &5.into(), &"nobody".into(), &topic, &id, 12));
        case.note("a member without a group");
        case.ask("OffsetCommit", version, commit(&case.named("none"), &(-1).into(), &"nobody".into(), &topic, &id, 12));
        case.note("an empty group id");
        case.ask("OffsetCommit", version, commit("", &(-1).into(), &"".into(), &topic, &id, 13));
        case.note("a generation in an empty group");
        case.ask("OffsetCommit", version, commit(&group, &1.into(), &"".into(), &topic, &id, 14));
        case.note("no topics");
        case.ask("OffsetCommit", version, json!({"GroupId": group, "GenerationIdOrMemberEpoch": -1, "Topics": []}));
        case.note("a retention");
        let mut body = commit(&group, &(-1).into(), &"".into(), &topic, &id, 15);
        body["RetentionTimeMs"] = 60_000.into();
        case.ask("OffsetCommit", version, body);
    }
}

fn members(case: &mut Case) {
    let (topic, id) = case.topic("t", 2, &[]);
    let group = case.named("g");
    let (member, generation) = stable(case, &group);
    for version in served("OffsetCommit") {
        case.note("good");
        case.ask("OffsetCommit", version, commit(&group, &generation, &member, &topic, &id, 21));
        case.note("another generation");
        case.ask("OffsetCommit", version, commit(&group, &9.into(), &member, &topic, &id, 22));
        case.ask("OffsetCommit", version, commit(&group, &(-1).into(), &member, &topic, &id, 22));
        case.note("an unknown member");
        case.ask("OffsetCommit", version, commit(&group, &generation, &"nobody".into(), &topic, &id, 23));
        case.note("not a member");
        case.ask("OffsetCommit", version, commit(&group, &(-1).into(), &"".into(), &topic, &id, 24));
        if version >= 7 {
            case.note("an unknown instance");
            let mut body = commit(&group, &generation, &member, &topic, &id, 25);
            body["GroupInstanceId"] = "nobody".into();
            case.ask("OffsetCommit", version, body);
        }
    }
    case.ask("OffsetFetch", 7, fetch_two(&group, &topic, &id));
}

fn rebalancing(case: &mut Case) {
    let (topic, id) = case.topic("t", 2, &[]);
    let group = case.named("g");
    let (member, _) = stable(case, &group);
    let answer = case.quietly("JoinGroup", 5, join(&group, &member));
    case.note("CompletingRebalance");
    for version in [5, 9, 10] {
        case.ask("OffsetCommit", version, commit(&group, &answer["GenerationId"], &member, &topic, &id, 31));
    }
    case.ask("OffsetFetch", 7, fetch_two(&group, &topic, &id));
}

fn partitions(case: &mut Case) {
    let (topic, id) = case.topic("t", 2, &[]);
    let group = case.named("g");
    let long = "x".repeat(4097);
    for version in served("OffsetCommit") {
        case.note("known and unknown, metadata of all lengths");
        case.ask("OffsetCommit", version, json!({"GroupId": group, "GenerationIdOrMemberEpoch": -1, "Topics": [
            {"Name": topic, "TopicId": id, "Partitions": [
                {"PartitionIndex": 0, "CommittedOffset": 1, "CommittedMetadata": long[1..]},
                {"PartitionIndex": 1, "CommittedOffset": 2, "CommittedMetadata": long},
                {"PartitionIndex": 7, "CommittedOffset": 3, "CommittedMetadata": null},
                {"PartitionIndex": -1, "CommittedOffset": 3, "CommittedMetadata": null}]},
            {"Name": case.named("none"), "TopicId": "AAAAAAAAAAAAAAAAAAAAAg", "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 4}]}]}));
        case.note("odd offsets");
        for offset in [-1, -5, i64::MAX] {
            case.ask("OffsetCommit", version, commit(&group, &(-1).into(), &"".into(), &topic, &id, offset));
            case.ask("OffsetFetch", 7, fetch_two(&group, &topic, &id));
        }
        case.note("null metadata, epoch 5");
        case.ask("OffsetCommit", version, json!({"GroupId": group, "GenerationIdOrMemberEpoch": -1, "Topics": [
            {"Name": topic, "TopicId": id, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 9, "CommittedLeaderEpoch": 5, "CommittedMetadata": null}]}]}));
        case.ask("OffsetFetch", 7, fetch_two(&group, &topic, &id));
        case.note("the same twice");
        case.ask("OffsetCommit", version, json!({"GroupId": group, "GenerationIdOrMemberEpoch": -1, "Topics": [
            {"Name": topic, "TopicId": id, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 40}, {"PartitionIndex": 0, "CommittedOffset": 41}]}]}));
        case.ask("OffsetFetch", 7, fetch_two(&group, &topic, &id));
    }
    case.note("the zero id");
    case.ask("OffsetCommit", 10, commit(&group, &(-1).into(), &"".into(), &topic, &Value::Null, 5));
}

fn fetch(case: &mut Case) {
    let (topic, id) = case.topic("t", 2, &[]);
    let group = case.named("g");
    case.quietly("OffsetCommit", 9, commit(&group, &(-1).into(), &"".into(), &topic, &id, 77));
    for version in served("OffsetFetch") {
        case.note("one committed, one not");
        case.ask("OffsetFetch", version, fetch_two(&group, &topic, &id));
        case.note("stable offsets only");
        let mut body = fetch_two(&group, &topic, &id);
        body["RequireStable"] = true.into();
        case.ask("OffsetFetch", version, body);
        case.note("an unknown group");
        case.ask("OffsetFetch", version, fetch_two(&case.named("none"), &topic, &id));
        case.note("an empty group id");
        case.ask("OffsetFetch", version, fetch_two("", &topic, &id));
        case.note("an unknown topic");
        case.ask("OffsetFetch", version, fetch_two(&group, &case.named("none"), &json!("AAAAAAAAAAAAAAAAAAAAAg")));
    }
    for version in [9, 10] {
        case.note("a member that is none");
        let mut body = fetch_two(&group, &topic, &id);
        body["Groups"][0]["MemberId"] = "nobody".into();
        body["Groups"][0]["MemberEpoch"] = 3.into();
        case.ask("OffsetFetch", version, body);
    }
    case.note("the zero id");
    case.ask("OffsetFetch", 10, fetch_two(&group, &topic, &Value::Null));
}

fn fetch_all(case: &mut Case) {
    let (topic, id) = case.topic("t", 2, &[]);
    let (other, other_id) = case.topic("u", 1, &[]);
    let (group, none) = (case.named("g"), case.named("none"));
    case.quietly("OffsetCommit", 9, commit(&group, &(-1).into(), &"".into(), &topic, &id, 77));
    case.quietly("OffsetCommit", 9, commit(&group, &(-1).into(), &"".into(), &other, &other_id, 78));
    for version in 2..=10 {
        for group in [&group, &none] {
            case.note(format!("all of {group}"));
            case.ask("OffsetFetch", version, json!({"GroupId": group, "Topics": null, "Groups": [{"GroupId": group, "MemberEpoch": -1, "Topics": null}]}));
            case.note(format!("nothing of {group}"));
            case.ask("OffsetFetch", version, json!({"GroupId": group, "Topics": [], "Groups": [{"GroupId": group, "MemberEpoch": -1, "Topics": []}]}));
        }
    }
}

fn fetch_groups(case: &mut Case) {
    let (topic, id) = case.topic("t", 2, &[]);
    let groups = ["a", "b", "c"].map(|suffix| case.named(suffix));
    for (at, group) in groups.iter().enumerate() {
        case.quietly("OffsetCommit", 9, commit(group, &(-1).into(), &"".into(), &topic, &id, at as i64));
    }
    for version in 8..=10 {
        let list: Vec<Value> = groups
            .iter()
            .chain([&String::new(), &case.named("none")])
            .map(|group| json!({"GroupId": group, "MemberEpoch": -1, "Topics": [{"Name": topic, "TopicId": id, "PartitionIndexes": [0]}]}))
            .collect();
        case.ask("OffsetFetch", version, json!({"Groups": list}));
        case.note("no groups");
        case.ask("OffsetFetch", version, json!({"Groups": []}));
        case.note("");
    }
}

fn delete_offsets(case: &mut Case) {
    let (topic, id) = case.topic("t", 2, &[]);
    let group = case.named("g");
    let delete = |group: &str, topic: &str, partitions: &[i32]| {
        let list: Vec<Value> = partitions.iter().map(|index| json!({"PartitionIndex": index})).collect();
        json!({"GroupId": group, "Topics": [{"Name": topic, "Partitions": list}]})
    };
    case.note("unknown group");
    case.ask("OffsetDelete", 0, delete(&group, &topic, &[0]));
    case.ask("OffsetDelete", 0, delete("", &topic, &[0]));
    case.quietly("OffsetCommit", 9, commit(&group, &(-1).into(), &"".into(), &topic, &id, 77));
    case.note("committed, not committed, unknown");
    case.ask("OffsetDelete", 0, delete(&group, &topic, &[0, 1, 9]));
    case.ask("OffsetFetch", 7, fetch_two(&group, &topic, &id));
    case.note("the group went with its last offset?");
    case.ask("DescribeGroups", 6, json!({"Groups": [group]}));
    case.ask("OffsetDelete", 0, delete(&group, &topic, &[0]));
    case.note("unknown topic");
    case.quietly("OffsetCommit", 9, commit(&group, &(-1).into(), &"".into(), &topic, &id, 77));
    case.ask("OffsetDelete", 0, delete(&group, &case.named("none"), &[0]));
    case.note("no topics");
    case.ask("OffsetDelete", 0, json!({"GroupId": group, "Topics": []}));
    case.note("a group that consumes another topic");
    let busy = case.named("busy");
    let (member, generation) = stable(case, &busy);
    case.quietly("OffsetCommit", 9, commit(&busy, &generation, &member, &topic, &id, 5));
    case.ask("OffsetDelete", 0, delete(&busy, &topic, &[0]));
    case.ask("OffsetDelete", 0, delete(&busy, "t", &[0]));
    case.note("a group of another type");
    let connect = case.named("connect");
    let mut body = join(&connect, &"".into());
    body["ProtocolType"] = "connect".into();
    let given = case.quietly("JoinGroup", 5, body.clone());
    body["MemberId"] = given["MemberId"].clone();
    case.quietly("JoinGroup", 5, body);
    case.ask("OffsetDelete", 0, delete(&connect, &topic, &[0]));
}

fn recreated_topic(case: &mut Case) {
    let (topic, id) = case.topic("t", 1, &[]);
    let group = case.named("g");
    case.quietly("OffsetCommit", 9, commit(&group, &(-1).into(), &"".into(), &topic, &id, 77));
    case.ask("OffsetFetch", 10, fetch_two(&group, &topic, &id));
    case.quietly("DeleteTopics", 5, json!({"TopicNames": [topic], "TimeoutMs": 5000}));
    case.until("the offsets are gone", |case| {
        let answer = case.quietly("OffsetFetch", 7, fetch_two(&group, &topic, &id));
        answer["Topics"][0]["Partitions"][0]["CommittedOffset"] == -1
    });
    let (_, new_id) = case.topic("t", 1, &[]);
    case.name(&new_id, "<second id of t>");
    case.ask("OffsetFetch", 7, fetch_two(&group, &topic, &new_id));
    case.ask("OffsetFetch", 10, fetch_two(&group, &topic, &new_id));
}
