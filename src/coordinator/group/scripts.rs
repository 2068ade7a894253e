//! Script tests of the shard: each `testdata/<name>.txt` contains commands and, under `----`, their outcomes.
//!
//! `#7` means the seventh generated UUID, so a member id is `c-#7`. Records are applied when they are
//! written. `restart` builds a new shard from them and checks that its durable state is the same (INV-G4).

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    consumer_protocol::subscription,
    records::{Decoded, Record},
    shard::{Input, Output, Shard, Step},
    *,
};
use crate::{
    script_tests::{run_script, scripts},
    types::TopicId,
};

const START_MS: i64 = 1_000_000;

scripts! {
    g1_join_is_refused_as_kafka_refuses_it
    g2_dynamic_member_joins_in_two_steps
    g3_first_rebalance_waits_for_more_members
    g3_join_phase_ends_with_all_or_at_the_timeout
    g4_generation_protocol_and_leader
    g5_static_members
    g6_sync
    g7_heartbeat
    g8_leave
    g9_describe_and_list
    g10_state_survives_a_restart
    o1_who_may_commit
    o2_metadata_and_partial_success
    o4_fetch
    o5_offsets_expire
    o6_delete_groups_and_offsets
    o7_deleted_topics
}

fn run(name: &str) {
    let mut runner = Runner::new();
    run_script(&format!("src/coordinator/group/testdata/{name}.txt"), |line| runner.run(line));
}

struct Runner {
    config: GroupConfig,
    max_record_bytes: usize,
    shard: Shard,
    log: Vec<Record>,
    now_ms: i64,
    uuids: u128,
    requests: BTreeMap<RequestId, String>,
    next_request: u64,
}

struct Arguments(BTreeMap<String, String>, Vec<String>);

impl Arguments {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn text(&self, name: &str, default: &str) -> Arc<str> {
        self.get(name).unwrap_or(default).into()
    }

    fn optional(&self, name: &str) -> Option<Arc<str>> {
        self.get(name).map(Arc::from)
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        self.get(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
    }

    fn list(&self, name: &str) -> Vec<&str> {
        self.get(name).map_or(Vec::new(), |text| text.split(',').collect())
    }
}

fn duration_ms(text: &str) -> i64 {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
    let scale = match unit {
        "ms" | "" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        other => panic!("unit {other}"),
    };
    number.parse::<i64>().unwrap() * scale
}

fn topic_id(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

/// `range:t1+t2,sticky:t1` → protocols with consumer subscriptions; `range:!junk` → the text itself as metadata.
fn protocols(text: &str) -> Vec<MemberProtocol> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, topics) = part.split_once(':').unwrap_or((part, "t"));
            let metadata = match topics.strip_prefix('!') {
                Some(raw) => Bytes::copy_from_slice(raw.as_bytes()),
                None => subscription(&topics.split('+').filter(|topic| !topic.is_empty()).collect::<Vec<_>>()),
            };
            MemberProtocol { name: name.into(), metadata }
        })
        .collect()
}

/// `t@1:0,1;u:0` → topics with ids and partitions.
fn topics(text: &str) -> Vec<(Arc<str>, TopicId, Vec<&str>)> {
    text.split(';')
        .map(|topic| {
            let (name, partitions) = topic.split_once(':').unwrap();
            let (name, id) = name.split_once('@').unwrap_or((name, "0"));
            (name.into(), topic_id(id.parse().unwrap()), partitions.split(',').collect())
        })
        .collect()
}

impl Runner {
    fn new() -> Self {
        let config = GroupConfig::default();
        Runner {
            shard: Shard::new(Arc::new(config.clone()), 10_000),
            max_record_bytes: 10_000,
            config,
            log: Vec::new(),
            now_ms: 0,
            uuids: 0,
            requests: BTreeMap::new(),
            next_request: 0,
        }
    }

    fn now(&self) -> Now {
        Now { timestamp_ms: START_MS + self.now_ms, monotonic_ms: self.now_ms }
    }

    fn run(&mut self, line: &str) -> String {
        // Replaces `#7` in arguments with the UUID.
        let line: String = {
            let mut parts = line.split('#');
            let mut expanded = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
                write!(expanded, "{}{}", Uuid::from_u128(part[..digits].parse().unwrap()), &part[digits..]).unwrap();
            }
            expanded
        };
        let mut words = line.split_whitespace();
        let command = words.next().unwrap();
        let mut arguments = Arguments(BTreeMap::new(), Vec::new());
        for word in words {
            match word.split_once('=') {
                Some((name, value)) => {
                    arguments.0.insert(name.into(), value.into());
                }
                None => arguments.1.push(word.into()),
            }
        }
        match command {
            "config" => self.configure(&arguments),
            "advance" => return self.advance(duration_ms(&arguments.1[0])),
            "restart" => return self.restart(),
            "timers" => return format!("next {:?}\n", self.shard.next_deadline_ms().map(|at| at - self.now_ms)),
            _ => {
                let input = self.input(command, &arguments);
                return self.step(arguments.1.first().map_or(command, String::as_str), input);
            }
        }
        String::new()
    }

    fn configure(&mut self, arguments: &Arguments) {
        let config = &mut self.config;
        config.group_max_size = arguments.number("max-size", config.group_max_size);
        config.max_groups_per_partition = arguments.number("max-groups", config.max_groups_per_partition);
        config.max_pending_members = arguments.number("max-pending", config.max_pending_members);
        config.group_initial_rebalance_delay_ms = arguments.number("delay", config.group_initial_rebalance_delay_ms);
        self.max_record_bytes = arguments.number("max-record", 10_000);
        self.shard = Shard::new(Arc::new(config.clone()), self.max_record_bytes);
        self.log.clear();
        self.requests.clear();
        self.uuids = 0;
    }

    fn input(&mut self, command: &str, arguments: &Arguments) -> Input {
        let group_id = arguments.text("group", "g");
        let member_id = arguments.text("member", "");
        let group_instance_id = arguments.optional("instance");
        let generation_id = arguments.number("gen", 1);
        match command {
            "join" => {
                self.uuids += 1;
                let version = arguments.number("v", 9);
                let request = JoinRequest {
                    group_id,
                    member_id,
                    group_instance_id,
                    client_id: arguments.text("client", "c"),
                    client_host: "/127.0.0.1".into(),
                    session_timeout_ms: duration_ms(arguments.get("session").unwrap_or("10s")) as i32,
                    rebalance_timeout_ms: duration_ms(arguments.get("rebalance").unwrap_or("60s")) as i32,
                    protocol_type: arguments.text("type", "consumer"),
                    protocols: protocols(arguments.get("protocols").unwrap_or("range:t")),
                    requires_known_member_id: version >= 4,
                    supports_skip_assignment: version >= 9,
                    reason: None,
                };
                Input::Join(request, Uuid::from_u128(self.uuids))
            }
            "sync" => {
                let assignments = arguments.list("assign").into_iter().map(|pair| {
                    let (member_id, assignment) = pair.split_once(':').unwrap();
                    (member_id.into(), Bytes::copy_from_slice(assignment.as_bytes()))
                });
                Input::Sync(SyncRequest {
                    group_id,
                    generation_id,
                    member_id,
                    group_instance_id,
                    protocol_type: arguments.optional("type"),
                    protocol_name: arguments.optional("name"),
                    assignments: assignments.collect(),
                })
            }
            "heartbeat" => Input::Heartbeat(HeartbeatRequest { group_id, generation_id, member_id, group_instance_id }),
            "leave" => {
                let members = arguments.list("members").into_iter().map(|member| {
                    let (member_id, instance) = member.split_once('@').unwrap_or((member, ""));
                    let group_instance_id = (!instance.is_empty()).then(|| instance.into());
                    LeavingMember { member_id: member_id.into(), group_instance_id, reason: None }
                });
                Input::Leave(LeaveRequest { group_id, members: members.collect() })
            }
            "commit" => {
                let topics = topics(arguments.get("offsets").unwrap_or("t@1:0=5"));
                let topics = topics.into_iter().map(|(name, topic_id, partitions)| CommitTopic {
                    name,
                    topic_id,
                    partitions: partitions
                        .into_iter()
                        .map(|partition| {
                            let (partition, offset) = partition.split_once('=').unwrap();
                            CommitPartition {
                                partition: partition.parse().unwrap(),
                                committed_offset: offset.parse().unwrap(),
                                committed_leader_epoch: arguments.number("epoch", -1),
                                committed_metadata: match arguments.get("metadata-length") {
                                    Some(length) => "é".repeat(length.parse().unwrap()).into(),
                                    None => arguments.text("metadata", ""),
                                },
                            }
                        })
                        .collect(),
                });
                Input::CommitOffsets(CommitOffsetsRequest {
                    group_id,
                    generation_id_or_member_epoch: generation_id,
                    member_id,
                    group_instance_id,
                    retention_time_ms: arguments.get("retention").map(duration_ms),
                    api_version: arguments.number("v", 9),
                    topics: topics.collect(),
                })
            }
            "fetch" => {
                let require_stable = arguments.get("stable").is_some();
                let Some(text) = arguments.get("topics") else {
                    return Input::FetchAllOffsets { group_id, require_stable, after: None };
                };
                let topics = topics(text).into_iter().map(|(name, topic_id, partitions)| FetchOffsetsTopic {
                    name,
                    topic_id,
                    partitions: partitions.into_iter().map(|partition| partition.parse().unwrap()).collect(),
                });
                Input::FetchOffsets(FetchOffsetsRequest {
                    group_id,
                    member_id: None,
                    member_epoch: -1,
                    require_stable,
                    topics: topics.collect(),
                })
            }
            "delete-offsets" => {
                let topics = topics(arguments.get("topics").unwrap()).into_iter().map(|(name, _, partitions)| {
                    (name, partitions.into_iter().map(|partition| partition.parse().unwrap()).collect())
                });
                Input::DeleteOffsets(DeleteOffsetsRequest { group_id, topics: topics.collect() })
            }
            "describe" => Input::Describe(vec![group_id]),
            "list" => {
                let (states, types) = (arguments.list("states"), arguments.list("types"));
                let filter = Arc::new(GroupFilter::new(states.into_iter(), types.into_iter()));
                Input::List { filter, after: None }
            }
            "delete" => Input::DeleteGroup(group_id),
            "topics-deleted" => {
                let topics = arguments.list("topics").into_iter().map(|topic| {
                    let (name, id) = topic.split_once('@').unwrap();
                    (name.into(), topic_id(id.parse().unwrap()))
                });
                Input::TopicsDeleted { topics: Arc::new(topics.collect()), from: None }
            }
            other => panic!("unknown command {other}"),
        }
    }

    fn step(&mut self, label: &str, input: Input) -> String {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.requests.insert(id, label.to_owned());
        let step = self.shard.step(self.now(), id, input);
        self.settle(step)
    }

    fn settle(&mut self, step: Step) -> String {
        let mut printed = String::new();
        for record in step.records {
            let decoded = Record::decode(Some(&record.key()), record.value().as_deref()).unwrap();
            assert_eq!(decoded, Decoded::Record(record.clone()), "a record must read back as it was written");
            writeln!(printed, "write {}", print_record(&record)).unwrap();
            self.shard.apply(self.log.len() as i64, None, &record);
            self.log.push(record);
        }
        for reply in step.replies {
            let label = self.requests.remove(&reply.request).expect("a request must get only one reply");
            let text = print_output(&reply.output);
            if label != "tick" {
                writeln!(printed, "{label}: {text}").unwrap();
            }
        }
        (1..=self.uuids).rev().fold(printed, |text, n| text.replace(&Uuid::from_u128(n).to_string(), &format!("#{n}")))
    }

    fn advance(&mut self, by_ms: i64) -> String {
        let until_ms = self.now_ms + by_ms;
        let mut printed = String::new();
        while let Some(deadline_ms) = self.shard.next_deadline_ms().filter(|at| *at <= until_ms) {
            self.now_ms = self.now_ms.max(deadline_ms);
            let outcome = self.step("tick", Input::Tick);
            if !outcome.is_empty() {
                writeln!(printed, "at {}s", self.now_ms as f64 / 1000.0).unwrap();
                printed += &outcome;
            }
        }
        self.now_ms = until_ms;
        printed
    }

    fn restart(&mut self) -> String {
        let mut reloaded = Shard::new(Arc::new(self.config.clone()), self.max_record_bytes);
        for (offset, record) in self.log.iter().enumerate() {
            reloaded.apply(offset as i64, None, record);
        }
        assert_eq!(reloaded.hard(), self.shard.hard(), "INV-G4: replaying the log gives the live state");
        reloaded.on_loaded(self.now());
        self.shard = reloaded;
        let waiting = std::mem::take(&mut self.requests).into_values();
        waiting.map(|label| format!("{label}: (forgotten)\n")).collect()
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn subscribed(metadata: &[u8]) -> String {
    let mut subscribed = super::consumer_protocol::SubscribedTopics::default();
    match subscribed.add(&Bytes::copy_from_slice(metadata)) {
        Ok(()) => subscribed.into_topics().iter().map(|topic| &**topic).collect::<Vec<_>>().join("+"),
        Err(_) => format!("!{}", text_of(metadata)),
    }
}

fn or_dash(text: Option<&str>) -> &str {
    text.unwrap_or("-")
}

fn print_record(record: &Record) -> String {
    match record {
        Record::OffsetCommit { group_id, topic, partition, value: None } => {
            format!("{group_id} {topic}-{partition} tombstone")
        }
        Record::OffsetCommit { group_id, topic, partition, value: Some(value) } => {
            let expire = value.expire_timestamp_ms.map(|at| format!(" expires={}", at - START_MS)).unwrap_or_default();
            format!("{group_id} {topic}-{partition} offset={} epoch={}{expire}", value.offset, value.leader_epoch)
        }
        Record::GroupMetadata { group_id, value: None } => format!("{group_id} tombstone"),
        Record::GroupMetadata { group_id, value: Some(value) } => {
            let members: Vec<String> = value
                .members
                .iter()
                .map(|m| format!("{}={}:{}", m.member_id, subscribed(&m.subscription), text_of(&m.assignment)))
                .collect();
            format!(
                "{group_id} gen={} type={} protocol={} leader={} [{}]",
                value.generation_id,
                value.protocol_type,
                or_dash(value.protocol_name.as_deref()),
                or_dash(value.leader.as_deref()),
                members.join(" "),
            )
        }
    }
}

fn print_topics<T>(topics: &[T], print: impl Fn(&T) -> (Arc<str>, Vec<String>)) -> String {
    let printed = topics.iter().map(|topic| {
        let (name, partitions) = print(topic);
        format!("{name}[{}]", partitions.join(" "))
    });
    printed.collect::<Vec<_>>().join(" ")
}

fn print_error(error: Option<GroupError>) -> String {
    error.map_or("ok".into(), |error| format!("{error:?}"))
}

fn print_output(output: &Output) -> String {
    match output {
        Output::Joined(Ok(joined)) => {
            let members: Vec<String> =
                joined.members.iter().map(|m| format!("{}={}", m.member_id, subscribed(&m.metadata))).collect();
            format!(
                "joined gen={} protocol={}/{} leader={} member={} [{}]{}",
                joined.generation_id,
                or_dash(joined.protocol_type.as_deref()),
                or_dash(joined.protocol_name.as_deref()),
                joined.leader,
                joined.member_id,
                members.join(" "),
                if joined.skip_assignment { " skip-assignment" } else { "" },
            )
        }
        Output::Joined(Err(error)) => format!("{:?} member={}", error.error, error.member_id),
        Output::Synced(Ok(synced)) => format!(
            "synced {}/{} {:?}",
            or_dash(synced.protocol_type.as_deref()),
            or_dash(synced.protocol_name.as_deref()),
            text_of(&synced.assignment)
        ),
        Output::Synced(Err(error)) | Output::Heartbeat(Err(error)) | Output::Left(Err(error)) => format!("{error:?}"),
        Output::Outcomes(Err(error)) | Output::Fetched(Err(error)) => format!("{error:?}"),
        Output::Heartbeat(Ok(())) => "ok".into(),
        Output::Left(Ok(members)) => {
            let print = |m: &LeftMember| {
                format!("{}{}={}", m.member_id, m.group_instance_id.as_deref().unwrap_or(""), print_error(m.error))
            };
            members.iter().map(print).collect::<Vec<_>>().join(" ")
        }
        Output::Outcomes(Ok(topics)) => print_topics(topics, |topic| {
            let partitions = topic.partitions.iter().map(|(p, error)| format!("{p}={}", print_error(*error)));
            (topic.name.clone(), partitions.collect())
        }),
        Output::Fetched(Ok(topics)) | Output::FetchedPage(topics, _) => print_topics(topics, |topic| {
            let print = |p: &FetchedOffset| match p.error {
                Some(error) => format!("{}={error:?}", p.partition),
                None if p.metadata.is_empty() => format!("{}={}", p.partition, p.committed_offset),
                None => format!("{}={}({})", p.partition, p.committed_offset, p.metadata),
            };
            (topic.name.clone(), topic.partitions.iter().map(print).collect())
        }),
        Output::Described(groups) => {
            let print = |group: &Result<DescribedGroup, GroupError>| match group {
                Err(error) => format!("{error:?}"),
                Ok(group) => {
                    let print = |m: &DescribedMember| {
                        let metadata = if m.metadata.is_empty() { "-".into() } else { subscribed(&m.metadata) };
                        format!("{}={metadata}:{}", m.member_id, text_of(&m.assignment))
                    };
                    let members: Vec<String> = group.members.iter().map(print).collect();
                    let state = group.state.as_str();
                    format!("{state} {}/{} [{}]", group.protocol_type, group.protocol_name, members.join(" "))
                }
            };
            groups.iter().map(print).collect::<Vec<_>>().join("; ")
        }
        Output::Listed(groups, _) => {
            let print = |g: &ListedGroup| {
                format!("{}({},{},{})", g.group_id, g.protocol_type, g.state.as_str(), g.group_type.as_str())
            };
            groups.iter().map(print).collect::<Vec<_>>().join(" ")
        }
        Output::Deleted(result) => print_error(result.err()),
        Output::Swept(_) => "done".into(),
        Output::Done => "done".into(),
    }
}
