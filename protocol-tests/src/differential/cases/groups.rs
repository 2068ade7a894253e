//! Classic groups: rules G1 to G9 of docs/RULES.md.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{DELAYED, Row, alone, shared};
use crate::differential::{
    case::{Case, served},
    wire::Connection,
};

pub(super) const CASES: &[Row] = &[
    shared("groups-g1-bad-joins", bad_joins),
    shared("groups-g2-member-id-required", member_id_required),
    shared("groups-one-member-versions", one_member),
    shared("groups-g4-two-members", two_members),
    shared("groups-g4-rejoins", rejoins),
    shared("groups-g4-protocols", protocols),
    shared("groups-g5-static-members", static_members),
    shared("groups-g5-static-members-versions", static_members_versions),
    shared("groups-g6-bad-syncs", bad_syncs),
    shared("groups-g7-heartbeats", heartbeats),
    shared("groups-g8-leaves", leaves),
    shared("groups-g8-static-leaves", static_leaves),
    // Must run before other cases that create groups.
    alone("groups-g9-list", list),
    // It describes the group with the empty name, to which "committed-o1-simple" commits on the shared server.
    alone("groups-g9-describe", describe),
    shared("groups-o6-delete", delete),
    Row { name: "groups-g3-initial-delay", setup: &DELAYED, run: initial_delay },
];

/// A consumer's subscription to topic "t", version 0, in hex.
pub(super) const SUBSCRIPTION: &str = "0000000000010001740000000000";
const OTHER_SUBSCRIPTION: &str = "0000000000010001750000000000";

pub(super) fn join(group: &str, member: &Value) -> Value {
    json!({"GroupId": group, "SessionTimeoutMs": 10_000, "RebalanceTimeoutMs": 10_000, "MemberId": member, "ProtocolType": "consumer",
        "Protocols": [{"Name": "range", "Metadata": SUBSCRIPTION}], "Reason": "test"})
}

fn sync(group: &str, member: &Value, generation: &Value, assignments: Value) -> Value {
    json!({"GroupId": group, "MemberId": member, "GenerationId": generation, "ProtocolType": "consumer", "ProtocolName": "range",
        "Assignments": assignments})
}

fn heartbeat(group: &str, member: &Value, generation: &Value) -> Value {
    json!({"GroupId": group, "MemberId": member, "GenerationId": generation})
}

/// Gets a member id from the coordinator and names it in the transcript.
fn member_id(case: &mut Case, group: &str) -> Value {
    let id = case.quietly("JoinGroup", 5, join(group, &"".into()))["MemberId"].clone();
    case.name_member(&id);
    id
}

/// Makes a Stable group with one member; returns its member id and generation.
pub(super) fn stable(case: &mut Case, group: &str) -> (Value, Value) {
    let member = member_id(case, group);
    let answer = case.quietly("JoinGroup", 5, join(group, &member));
    let generation = answer["GenerationId"].clone();
    let assignments = json!([{"MemberId": member, "Assignment": "cafe"}]);
    case.quietly("SyncGroup", 5, sync(group, &member, &generation, assignments));
    (member, generation)
}

fn bad_joins(case: &mut Case) {
    let group = case.named("g");
    for version in served("JoinGroup") {
        let none = Value::from("");
        let change = |field: &str, value: Value| {
            let mut body = join(&group, &none);
            body[field] = value;
            body
        };
        for (what, body) in [
            ("an empty group id", change("GroupId", "".into())),
            ("a session timeout of 1 s", change("SessionTimeoutMs", 1000.into())),
            ("a session timeout of an hour", change("SessionTimeoutMs", 3_600_000.into())),
            ("a negative session timeout", change("SessionTimeoutMs", (-1).into())),
            ("an unknown member", change("MemberId", "nobody".into())),
            ("no protocols", change("Protocols", json!([]))),
            ("no protocol type", change("ProtocolType", "".into())),
        ] {
            case.note(what);
            case.ask("JoinGroup", version, body);
        }
    }
}

fn member_id_required(case: &mut Case) {
    for version in 4..=9 {
        let group = case.named(&format!("v{version}"));
        case.note("without an id");
        let answer = case.ask("JoinGroup", version, join(&group, &"".into()));
        case.note("with the id given");
        case.ask("JoinGroup", version, join(&group, &answer["MemberId"]));
        case.note("a second one");
        case.ask("JoinGroup", version, join(&group, &"".into()));
    }
    case.note("client ids");
    let group = case.named("clients");
    let mut connection = case.connect();
    for client_id in [None, Some(""), Some("a b")] {
        let pending = case.send_as(&mut connection, client_id, "JoinGroup", 5, &join(&group, &"".into()));
        case.receive(&mut connection, &pending);
    }
}

/// The life of a group with one member in every version: join, sync, heartbeat, describe, leave.
fn one_member(case: &mut Case) {
    for version in served("JoinGroup") {
        let at_most = |api: &str| version.min(*served(api).end());
        let group = case.named(&format!("v{version}"));
        case.note(format!("life at JoinGroup v{version}"));
        let mut answer = case.ask("JoinGroup", version, join(&group, &"".into()));
        if version >= 4 {
            answer = case.ask("JoinGroup", version, join(&group, &answer["MemberId"]));
        }
        let (member, generation) = (&answer["MemberId"], &answer["GenerationId"]);
        case.ask("DescribeGroups", at_most("DescribeGroups"), json!({"Groups": [group]}));
        case.ask("Heartbeat", at_most("Heartbeat"), heartbeat(&group, member, generation));
        let assignments = json!([{"MemberId": member, "Assignment": "cafe"}]);
        case.ask("SyncGroup", at_most("SyncGroup"), sync(&group, member, generation, assignments));
        case.ask("Heartbeat", at_most("Heartbeat"), heartbeat(&group, member, generation));
        case.ask("SyncGroup", at_most("SyncGroup"), sync(&group, member, generation, json!([])));
        case.ask(
            "DescribeGroups",
            at_most("DescribeGroups"),
            json!({"Groups": [group], "IncludeAuthorizedOperations": true}),
        );
        case.ask(
            "LeaveGroup",
            at_most("LeaveGroup"),
            json!({"GroupId": group, "MemberId": member, "Members": [{"MemberId": member, "Reason": "test"}]}),
        );
        case.ask("DescribeGroups", at_most("DescribeGroups"), json!({"Groups": [group]}));
        case.ask("Heartbeat", at_most("Heartbeat"), heartbeat(&group, member, generation));
    }
}

fn two_members(case: &mut Case) {
    let group = case.named("g");
    for version in [2, 5, 9] {
        let (leader, _) = stable(case, &group);
        case.note(format!("a second member, v{version}"));
        let (mut first, mut second) = (case.connect(), case.connect());
        let member = match version {
            2 => Value::from(""),
            _ => member_id(case, &group),
        };
        let joining = case.send(&mut second, "JoinGroup", version, &join(&group, &member));
        wait_for_state(case, &group, "PreparingRebalance");
        let described = case.quietly("DescribeGroups", 5, json!({"Groups": [group]}));
        let members = described["Groups"][0]["Members"].as_array().cloned().unwrap_or_default();
        members
            .iter()
            .map(|member| &member["MemberId"])
            .filter(|id| **id != leader)
            .for_each(|id| case.name_member(id));
        case.ask("Heartbeat", 4, heartbeat(&group, &leader, &1.into()));
        case.ask("DescribeGroups", 5, json!({"Groups": [group]}));
        let mut body = join(&group, &leader);
        body["Protocols"][0]["Metadata"] = OTHER_SUBSCRIPTION.into();
        let rejoining = case.send(&mut first, "JoinGroup", version, &body);
        let of_leader = case.receive(&mut first, &rejoining);
        let of_member = case.receive(&mut second, &joining);
        let (member, generation) = (&of_member["MemberId"], &of_leader["GenerationId"]);
        case.ask("Heartbeat", 4, heartbeat(&group, member, generation));
        let waiting = case.send(&mut second, "SyncGroup", 5, &sync(&group, member, generation, json!([])));
        let assignments = json!([{"MemberId": leader, "Assignment": "01"}, {"MemberId": member, "Assignment": "0203"}]);
        let giving = case.send(&mut first, "SyncGroup", 5, &sync(&group, &leader, generation, assignments));
        case.receive(&mut first, &giving);
        case.receive(&mut second, &waiting);
        case.ask("DescribeGroups", 5, json!({"Groups": [group]}));
        case.note("the leader leaves");
        case.ask("LeaveGroup", 3, json!({"GroupId": group, "Members": [{"MemberId": leader}]}));
        case.ask("Heartbeat", 4, heartbeat(&group, member, generation));
        let again = case.ask("JoinGroup", version, join(&group, member));
        case.ask(
            "SyncGroup",
            5,
            sync(&group, member, &again["GenerationId"], json!([{"MemberId": member, "Assignment": "04"}])),
        );
        case.ask("LeaveGroup", 3, json!({"GroupId": group, "Members": [{"MemberId": member}]}));
    }
}

fn wait_for_state(case: &mut Case, group: &str, state: &str) {
    case.until(&format!("the group is in {state}"), |case| {
        case.quietly("DescribeGroups", 5, json!({"Groups": [group]}))["Groups"][0]["GroupState"] == state
    });
}

fn rejoins(case: &mut Case) {
    let group = case.named("g");
    let (leader, generation) = stable(case, &group);
    case.note("the leader, unchanged");
    let answer = case.ask("JoinGroup", 9, join(&group, &leader));
    case.note("sync before anything else with the old generation");
    case.ask("SyncGroup", 5, sync(&group, &leader, &generation, json!([])));
    case.ask(
        "SyncGroup",
        5,
        sync(&group, &leader, &answer["GenerationId"], json!([{"MemberId": leader, "Assignment": "07"}])),
    );
    case.note("a follower, unchanged");
    let member = member_id(case, &group);
    let (mut first, mut second) = (case.connect(), case.connect());
    let joining = case.send(&mut second, "JoinGroup", 9, &join(&group, &member));
    wait_for_state(case, &group, "PreparingRebalance");
    let answer = case.ask_on(&mut first, "JoinGroup", 9, join(&group, &leader));
    case.receive(&mut second, &joining);
    let generation = &answer["GenerationId"];
    case.note("joins again before the sync");
    case.ask_on(&mut second, "JoinGroup", 9, join(&group, &member));
    case.ask_on(&mut first, "JoinGroup", 9, join(&group, &leader));
    case.note("in CompletingRebalance");
    case.ask("SyncGroup", 5, sync(&group, &leader, generation, json!([{"MemberId": leader, "Assignment": "08"}])));
    case.note("a follower in Stable");
    case.ask_on(&mut second, "SyncGroup", 5, sync(&group, &member, generation, json!([])));
    case.ask_on(&mut second, "JoinGroup", 9, join(&group, &member));
    case.ask("Heartbeat", 4, heartbeat(&group, &member, generation));
}

fn protocols(case: &mut Case) {
    let group = case.named("g");
    let with = |member: &Value, kind: &str, names: &[&str]| {
        let mut body = join(&group, member);
        body["ProtocolType"] = kind.into();
        body["Protocols"] = names.iter().map(|name| json!({"Name": name, "Metadata": "00"})).collect();
        body
    };
    let first_id = member_id(case, &group);
    case.note("the first brings roundrobin and range");
    case.ask("JoinGroup", 9, with(&first_id, "consumer", &["roundrobin", "range"]));
    let second_id = member_id(case, &group);
    case.note("another type");
    case.ask("JoinGroup", 9, with(&second_id, "connect", &["range"]));
    case.note("nothing in common");
    case.ask("JoinGroup", 9, with(&second_id, "consumer", &["sticky"]));
    case.note("votes");
    let (mut first, mut second) = (case.connect(), case.connect());
    let joining = case.send(&mut second, "JoinGroup", 9, &with(&second_id, "consumer", &["range", "roundrobin"]));
    wait_for_state(case, &group, "PreparingRebalance");
    let answer = case.ask_on(&mut first, "JoinGroup", 9, with(&first_id, "consumer", &["range", "roundrobin"]));
    case.receive(&mut second, &joining);
    case.note("sync with other names");
    for (kind, name) in [("connect", "range"), ("consumer", "roundrobin")] {
        let mut body = sync(&group, &first_id, &answer["GenerationId"], json!([]));
        body["ProtocolType"] = kind.into();
        body["ProtocolName"] = name.into();
        case.ask("SyncGroup", 5, body);
    }
    case.note("sync without names");
    let mut body = sync(&group, &first_id, &answer["GenerationId"], json!([]));
    body["ProtocolType"] = Value::Null;
    body["ProtocolName"] = Value::Null;
    case.ask("SyncGroup", 5, body.clone());
    case.ask("SyncGroup", 4, body);
}

fn static_join(group: &str, member: &Value, instance: &str) -> Value {
    let mut body = join(group, member);
    body["GroupInstanceId"] = instance.into();
    body
}

fn static_members(case: &mut Case) {
    let group = case.named("g");
    let assign = |member: &Value, generation: &Value, instance: &str| {
        let mut body = sync(&group, member, generation, json!([{"MemberId": member, "Assignment": "0a"}]));
        body["GroupInstanceId"] = instance.into();
        body
    };
    for version in [5, 7, 9] {
        case.note(format!("joins, v{version}"));
        let first = case.ask("JoinGroup", version, static_join(&group, &"".into(), "one"));
        case.ask("SyncGroup", 5, assign(&first["MemberId"], &first["GenerationId"], "one"));
        case.note("comes back in Stable");
        let back = case.ask("JoinGroup", version, static_join(&group, &"".into(), "one"));
        case.note("the old member id");
        let mut old = heartbeat(&group, &first["MemberId"], &first["GenerationId"]);
        old["GroupInstanceId"] = "one".into();
        case.ask("Heartbeat", 4, old.clone());
        old["GroupInstanceId"] = Value::Null;
        case.ask("Heartbeat", 4, old);
        case.ask("SyncGroup", 5, assign(&first["MemberId"], &first["GenerationId"], "one"));
        case.ask("JoinGroup", version, static_join(&group, &first["MemberId"], "one"));
        case.note("an unknown instance");
        case.ask("Heartbeat", 4, json!({"GroupId": group, "MemberId": back["MemberId"], "GenerationId": back["GenerationId"], "GroupInstanceId": "two"}));
        case.note("syncs after it came back");
        case.ask("SyncGroup", 5, assign(&back["MemberId"], &back["GenerationId"], "one"));
        case.note("comes back with other metadata");
        let mut body = static_join(&group, &"".into(), "one");
        body["Protocols"][0]["Metadata"] = OTHER_SUBSCRIPTION.into();
        let other = case.ask("JoinGroup", version, body);
        case.ask("SyncGroup", 5, assign(&other["MemberId"], &other["GenerationId"], "one"));
        case.ask("DescribeGroups", 6, json!({"Groups": [group]}));
        case.note("removed by its instance");
        case.ask("LeaveGroup", 5, json!({"GroupId": group, "Members": [{"MemberId": "", "GroupInstanceId": "one"}]}));
        case.ask("DescribeGroups", 6, json!({"Groups": [group]}));
    }
}

fn static_members_versions(case: &mut Case) {
    for version in 5..=9 {
        let group = case.named(&format!("v{version}"));
        case.ask("JoinGroup", version, static_join(&group, &"".into(), "one"));
        case.note("an unknown member id with a known instance");
        case.ask("JoinGroup", version, static_join(&group, &"nobody".into(), "one"));
        case.note("an unknown member id with an unknown instance");
        case.ask("JoinGroup", version, static_join(&group, &"nobody".into(), "two"));
        case.note("");
    }
}

fn bad_syncs(case: &mut Case) {
    let group = case.named("g");
    let (member, generation) = stable(case, &group);
    for version in served("SyncGroup") {
        case.note("an unknown group");
        case.ask("SyncGroup", version, sync(&case.named("none"), &member, &generation, json!([])));
        case.note("an unknown member");
        case.ask("SyncGroup", version, sync(&group, &"nobody".into(), &generation, json!([])));
        case.note("another generation");
        case.ask("SyncGroup", version, sync(&group, &member, &7.into(), json!([])));
        case.ask("SyncGroup", version, sync(&group, &member, &(-1).into(), json!([])));
        case.note("an empty group id");
        case.ask("SyncGroup", version, sync("", &member, &generation, json!([])));
        case.note("good");
        case.ask("SyncGroup", version, sync(&group, &member, &generation, json!([])));
    }
}

fn heartbeats(case: &mut Case) {
    let group = case.named("g");
    let (member, generation) = stable(case, &group);
    for version in served("Heartbeat") {
        case.note("an unknown group");
        case.ask("Heartbeat", version, heartbeat(&case.named("none"), &member, &generation));
        case.note("an unknown member");
        case.ask("Heartbeat", version, heartbeat(&group, &"nobody".into(), &generation));
        case.ask("Heartbeat", version, heartbeat(&group, &"".into(), &generation));
        case.note("another generation");
        case.ask("Heartbeat", version, heartbeat(&group, &member, &9.into()));
        case.note("an empty group id");
        case.ask("Heartbeat", version, heartbeat("", &member, &generation));
        case.note("good");
        case.ask("Heartbeat", version, heartbeat(&group, &member, &generation));
    }
    case.note("Empty");
    case.quietly("LeaveGroup", 3, json!({"GroupId": group, "Members": [{"MemberId": member}]}));
    case.ask("Heartbeat", 4, heartbeat(&group, &member, &generation));
    case.note("a pending member");
    let pending = member_id(case, &group);
    case.ask("Heartbeat", 4, heartbeat(&group, &pending, &generation));
    case.ask("SyncGroup", 5, sync(&group, &pending, &generation, json!([])));
    case.ask("DescribeGroups", 5, json!({"Groups": [group]}));
}

fn leaves(case: &mut Case) {
    let group = case.named("g");
    for version in served("LeaveGroup") {
        let (member, _) = stable(case, &group);
        let leave = |group: &str, members: &[&Value]| {
            let list: Vec<Value> = members.iter().map(|member| json!({"MemberId": member})).collect();
            json!({"GroupId": group, "MemberId": members[0], "Members": list})
        };
        let nobody = Value::from("nobody");
        case.note("an unknown group");
        case.ask("LeaveGroup", version, leave(&case.named("none"), &[&member]));
        case.note("an unknown member");
        case.ask("LeaveGroup", version, leave(&group, &[&nobody]));
        case.note("an empty group id");
        case.ask("LeaveGroup", version, leave("", &[&member]));
        case.note("good, and twice");
        case.ask("LeaveGroup", version, leave(&group, &[&member, &nobody, &member]));
        case.ask("LeaveGroup", version, leave(&group, &[&member]));
    }
    case.note("no members");
    case.ask("LeaveGroup", 5, json!({"GroupId": group, "Members": []}));
    case.note("a pending member");
    let pending = member_id(case, &group);
    case.ask("LeaveGroup", 5, json!({"GroupId": group, "Members": [{"MemberId": pending}]}));
}

fn static_leaves(case: &mut Case) {
    let group = case.named("g");
    for version in 3..=5 {
        let answer = case.quietly("JoinGroup", 9, static_join(&group, &"".into(), "one"));
        case.note("an unknown instance");
        case.ask(
            "LeaveGroup",
            version,
            json!({"GroupId": group, "Members": [{"MemberId": "", "GroupInstanceId": "two"}]}),
        );
        case.note("another member id");
        case.ask(
            "LeaveGroup",
            version,
            json!({"GroupId": group, "Members": [{"MemberId": "nobody", "GroupInstanceId": "one"}]}),
        );
        case.note("both right");
        case.ask(
            "LeaveGroup",
            version,
            json!({"GroupId": group, "Members": [{"MemberId": answer["MemberId"], "GroupInstanceId": "one"}]}),
        );
    }
}

fn describe(case: &mut Case) {
    let group = case.named("g");
    stable(case, &group);
    for version in served("DescribeGroups") {
        case.note("known, unknown and empty");
        case.ask("DescribeGroups", version, json!({"Groups": [group, case.named("none"), ""]}));
        case.note("authorized operations");
        case.ask(
            "DescribeGroups",
            version,
            json!({"Groups": [group, case.named("none")], "IncludeAuthorizedOperations": true}),
        );
        case.note("none");
        case.ask("DescribeGroups", version, json!({"Groups": []}));
    }
}

fn list(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    let (stable_group, empty, simple) = (case.named("stable"), case.named("empty"), case.named("simple"));
    stable(case, &stable_group);
    let (member, _) = stable(case, &empty);
    case.quietly("LeaveGroup", 3, json!({"GroupId": empty, "Members": [{"MemberId": member}]}));
    case.quietly(
        "OffsetCommit",
        8,
        json!({"GroupId": simple, "GenerationIdOrMemberEpoch": -1, "Topics": [{"Name": topic, "Partitions": [
        {"PartitionIndex": 0, "CommittedOffset": 5}]}]}),
    );
    for version in served("ListGroups") {
        case.note("all");
        case.ask("ListGroups", version, json!({}));
    }
    for states in [
        json!(["Stable"]),
        json!(["stable"]),
        json!(["EMPTY", "Stable"]),
        json!(["Dead"]),
        json!(["nonsense"]),
        json!([""]),
    ] {
        case.note(format!("states {states}"));
        case.ask("ListGroups", 4, json!({"StatesFilter": states}));
        case.ask("ListGroups", 5, json!({"StatesFilter": states}));
    }
    for types in
        [json!(["classic"]), json!(["CLASSIC"]), json!(["consumer"]), json!(["share", "classic"]), json!(["nonsense"])]
    {
        case.note(format!("types {types}"));
        case.ask("ListGroups", 5, json!({"TypesFilter": types}));
        case.ask("ListGroups", 5, json!({"TypesFilter": types, "StatesFilter": ["Empty"]}));
    }
}

fn delete(case: &mut Case) {
    let (topic, _) = case.topic("t", 1, &[]);
    for version in served("DeleteGroups") {
        let (busy, empty, simple) = (case.named("busy"), case.named("empty"), case.named("simple"));
        let (busy_member, _) = stable(case, &busy);
        let (member, _) = stable(case, &empty);
        case.quietly("LeaveGroup", 3, json!({"GroupId": empty, "Members": [{"MemberId": member}]}));
        case.quietly(
            "OffsetCommit",
            8,
            json!({"GroupId": simple, "GenerationIdOrMemberEpoch": -1, "Topics": [{"Name": topic, "Partitions": [
            {"PartitionIndex": 0, "CommittedOffset": 5}]}]}),
        );
        case.note("busy, empty, simple, unknown");
        case.ask("DeleteGroups", version, json!({"GroupsNames": [busy, empty, simple, case.named("none")]}));
        case.note("again");
        case.ask("DeleteGroups", version, json!({"GroupsNames": [empty, simple]}));
        case.ask("DescribeGroups", 6, json!({"Groups": [empty, simple]}));
        case.ask("OffsetFetch", 7, json!({"GroupId": simple, "Topics": [{"Name": topic, "PartitionIndexes": [0]}]}));
        case.quietly("LeaveGroup", 3, json!({"GroupId": busy, "Members": [{"MemberId": busy_member}]}));
    }
}

/// A new group waits for more members; a member that joins meanwhile is in the first generation.
fn initial_delay(case: &mut Case) {
    let group = case.named("g");
    let (first_id, second_id) = (member_id(case, &group), member_id(case, &group));
    let join_after = |connection: &mut Connection, case: &mut Case, member: &Value, wait_ms: u64| {
        std::thread::sleep(Duration::from_millis(wait_ms));
        case.send(connection, "JoinGroup", 5, &join(&group, member))
    };
    let (mut first, mut second) = (case.connect(), case.connect());
    let start = Instant::now();
    let one = join_after(&mut first, case, &first_id, 0);
    let two = join_after(&mut second, case, &second_id, 300);
    let answer = case.receive(&mut first, &one);
    case.push_time(start, 700);
    case.receive(&mut second, &two);
    case.push("members".into(), answer["Members"].as_array().map_or(0, Vec::len).into(), None);
}
