//! Apache Kafka 4.3.1's own command-line tools, used as an operator would.

use std::{collections::BTreeSet, path::Path};

use protocol_tests::{
    broker::Broker,
    clients::{Record, create_topic, produce, read_all},
    java::{ToolResult, process, tool, tool_with_input},
};

/// Runs tools against one broker.
struct Cli {
    bootstrap: String,
}

impl Cli {
    fn of(broker: &Broker) -> Cli {
        Cli { bootstrap: broker.bootstrap() }
    }

    /// Runs `kafka-NAME --bootstrap-server … ARGUMENTS`; the arguments are one text, split at spaces.
    fn run(&self, name: &str, arguments: &str) -> ToolResult {
        let all: Vec<&str> =
            ["--bootstrap-server", &self.bootstrap].into_iter().chain(arguments.split_whitespace()).collect();
        tool(name, &all)
    }

    fn run_with_input(&self, name: &str, arguments: &str, input: &str) -> ToolResult {
        let all: Vec<&str> =
            ["--bootstrap-server", &self.bootstrap].into_iter().chain(arguments.split_whitespace()).collect();
        tool_with_input(name, &all, input)
    }
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect()
}

/// The columns of the first row that begins with the given ones.
fn row<'a>(text: &'a str, begins: &[&str]) -> Vec<&'a str> {
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|columns| columns.starts_with(begins))
        .unwrap_or_else(|| panic!("no row {begins:?} in\n{text}"))
}

#[test]
fn console_producer_and_consumer_as_processes_of_their_own() {
    let broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    let sent = "first line\nsecond line\nümläut ✓\n";
    process("kafka-console-producer", &["--bootstrap-server", &bootstrap, "--topic", "typed"], sent).ok();
    let consumer = [
        "--bootstrap-server",
        &bootstrap,
        "--topic",
        "typed",
        "--from-beginning",
        "--max-messages",
        "3",
        "--timeout-ms",
        "30000",
    ];
    let ran = process("kafka-console-consumer", &consumer, "");
    assert!(ran.stderr.contains("Processed a total of 3 messages"), "{ran:?}");
    assert_eq!(ran.ok(), sent);
    let texts: Vec<String> = read_all(&bootstrap, "typed").iter().map(|record| record.text()).collect();
    assert_eq!(texts, ["first line", "second line", "ümläut ✓"]);
}

#[test]
fn console_tools_with_keys_headers_nulls_and_codecs() {
    let broker = Broker::start_default();
    let cli = Cli::of(&broker);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let produce = format!(
            "--topic c-{codec} --compression-codec {codec} --reader-property parse.key=true --reader-property parse.headers=true \
             --reader-property key.separator=: --reader-property null.marker=NULL"
        );
        cli.run_with_input("kafka-console-producer", &produce, "a:1,b:2\tk1:v1\nNULL\tk2:NULL\nx:y\tNULL:v3\n").ok();
        let consume = format!(
            "--topic c-{codec} --from-beginning --max-messages 3 --timeout-ms 30000 --formatter-property print.key=true \
             --formatter-property print.headers=true --formatter-property print.partition=true --formatter-property print.offset=true \
             --formatter-property print.value=true"
        );
        let read = cli.run("kafka-console-consumer", &consume).ok();
        let expected = [
            "Partition:0\tOffset:0\ta:1,b:2\tk1\tv1",
            "Partition:0\tOffset:1\tNO_HEADERS\tk2\tnull",
            "Partition:0\tOffset:2\tx:y\tnull\tv3",
        ];
        assert_eq!(lines(&read), expected, "{codec}");
    }
}

#[test]
fn topics_are_created_listed_described_altered_and_deleted() {
    let broker = Broker::start_default();
    let cli = Cli::of(&broker);
    cli.run("kafka-topics", "--create --topic t --partitions 3 --replication-factor 1 --config retention.ms=100000")
        .says("Created topic t.");
    let again = cli.run("kafka-topics", "--create --topic t --partitions 3").fails();
    assert!(again.contains("Topic 't' already exists."), "{again}");
    cli.run("kafka-topics", "--create --topic t --if-not-exists").ok();
    cli.run("kafka-topics", "--create --topic u").says("Created topic u.");
    assert_eq!(lines(&cli.run("kafka-topics", "--list").ok()), ["t", "u"]);

    let described = cli.run("kafka-topics", "--describe --topic t").ok();
    let head = described.lines().next().expect("a first line");
    for part in ["Topic: t", "TopicId: ", "PartitionCount: 3", "ReplicationFactor: 1", "retention.ms=100000"] {
        assert!(head.contains(part), "{part} is missing: {head}");
    }
    for partition in 0..3 {
        let line = described.lines().nth(partition + 1).expect("a line for each partition");
        for part in [&format!("Partition: {partition}"), "Leader: 1", "Replicas: 1", "Isr: 1"] {
            assert!(line.contains(part), "{part} is missing: {line}");
        }
    }
    for nothing in ["--under-replicated-partitions", "--unavailable-partitions", "--under-min-isr-partitions"] {
        assert_eq!(cli.run("kafka-topics", &format!("--describe {nothing}")).ok().trim(), "");
    }
    cli.run("kafka-topics", "--alter --topic t --partitions 5").ok();
    cli.run("kafka-topics", "--describe --topic t").says("PartitionCount: 5");
    let fewer = cli.run("kafka-topics", "--alter --topic t --partitions 4").fails();
    assert!(fewer.contains("5"), "{fewer}");
    cli.run("kafka-topics", "--delete --topic t").ok();
    assert_eq!(lines(&cli.run("kafka-topics", "--list").ok()), ["u"]);
    let gone = cli.run("kafka-topics", "--describe --topic t").fails();
    assert!(gone.contains("does not exist"), "{gone}");
    let bad = cli.run("kafka-topics", "--create --topic v --config no.such=1").fails();
    assert!(bad.contains("no.such"), "{bad}");
}

#[test]
fn configs_of_topics_and_brokers() {
    let broker = Broker::start_default();
    let cli = Cli::of(&broker);
    create_topic(&cli.bootstrap, "t", 1, &[]);
    let topic = "--entity-type topics --entity-name t";
    cli.run(
        "kafka-configs",
        &format!("{topic} --alter --add-config retention.ms=12345,cleanup.policy=[compact,delete]"),
    )
    .says("Completed updating config for topic t.");
    let described = cli.run("kafka-configs", &format!("{topic} --describe")).ok();
    assert!(
        described.contains("retention.ms=12345 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=12345"),
        "{described}"
    );
    assert!(described.contains("cleanup.policy=compact,delete"), "{described}");
    let all = cli.run("kafka-configs", &format!("{topic} --describe --all")).ok();
    assert!(
        all.contains("segment.bytes=1073741824 sensitive=false synonyms={DEFAULT_CONFIG:log.segment.bytes=1073741824}"),
        "{all}"
    );
    cli.run("kafka-configs", &format!("{topic} --alter --delete-config retention.ms")).ok();
    let described = cli.run("kafka-configs", &format!("{topic} --describe")).ok();
    assert!(!described.contains("retention.ms"), "{described}");
    let bad = cli.run("kafka-configs", &format!("{topic} --alter --add-config retention.ms=soon")).fails();
    assert!(bad.contains("retention.ms"), "{bad}");

    cli.run("kafka-configs", "--entity-type brokers --entity-name 1 --alter --add-config log.cleaner.threads=2").ok();
    cli.run("kafka-configs", "--entity-type brokers --entity-name 1 --describe").says("log.cleaner.threads=2");
    cli.run("kafka-configs", "--entity-type brokers --entity-default --alter --add-config message.max.bytes=2000000")
        .ok();
    cli.run("kafka-configs", "--entity-type brokers --entity-default --describe").says("message.max.bytes=2000000");
    cli.run("kafka-configs", &format!("{topic} --describe --all")).says("max.message.bytes=2000000");
    let all = cli.run("kafka-configs", "--entity-type brokers --entity-name 1 --describe --all").ok();
    assert!(lines(&all).len() > 200, "only {} settings", lines(&all).len());
}

#[test]
fn client_quotas_are_stored_and_told() {
    let broker = Broker::start_default();
    let cli = Cli::of(&broker);
    cli.run(
        "kafka-configs",
        "--entity-type clients --entity-name app --alter --add-config producer_byte_rate=1000,consumer_byte_rate=2000",
    )
    .ok();
    cli.run("kafka-configs", "--entity-type clients --entity-default --alter --add-config request_percentage=50").ok();
    let app = cli.run("kafka-configs", "--entity-type clients --entity-name app --describe").ok();
    assert!(app.contains("producer_byte_rate=1000.0") && app.contains("consumer_byte_rate=2000.0"), "{app}");
    cli.run("kafka-configs", "--entity-type clients --entity-default --describe").says("request_percentage=50.0");
    cli.run("kafka-configs", "--entity-type clients --entity-name app --alter --delete-config producer_byte_rate").ok();
    let app = cli.run("kafka-configs", "--entity-type clients --entity-name app --describe").ok();
    assert!(!app.contains("producer_byte_rate") && app.contains("consumer_byte_rate=2000.0"), "{app}");

    // For users the tool also requests SCRAM credentials.
    cli.run("kafka-configs", "--entity-type users --describe").ok();
    cli.run("kafka-configs", "--entity-type users --entity-name alice --alter --add-config producer_byte_rate=3000")
        .ok();
    for users in ["--entity-name alice", ""] {
        let described = cli.run("kafka-configs", &format!("--entity-type users {users} --describe")).ok();
        assert!(described.contains("alice") && described.contains("producer_byte_rate=3000.0"), "{described}");
    }
}

#[test]
fn producers_of_a_partition_are_described() {
    let broker = Broker::start_default();
    let cli = Cli::of(&broker);
    create_topic(&cli.bootstrap, "t", 2, &[]);
    let records: Vec<Record> = (0..3).map(|n| Record::to_partition(0, format!("{n}"))).collect();
    produce(&cli.bootstrap, "t", &[("enable.idempotence", "true"), ("linger.ms", "100")], &records);
    let producers = |partition: i32| {
        let described =
            cli.run("kafka-transactions", &format!("describe-producers --topic t --partition {partition}")).ok();
        lines(&described).iter().skip(1).map(|line| (*line).to_owned()).collect::<Vec<_>>()
    };
    let [producer] = &producers(0)[..] else { panic!("one producer: {:?}", producers(0)) };
    // Id, epoch, the latest coordinator's epoch, the last sequence number and its time, the start of its transaction.
    let columns: Vec<&str> = producer.split_whitespace().collect();
    assert_eq!((columns[1], columns[2], columns[3], columns[5]), ("0", "-1", "2", "None"), "{producer}");
    assert!(producers(1).is_empty(), "{:?}", producers(1));
}

#[test]
fn consumer_groups_are_listed_described_reset_and_deleted() {
    let broker = Broker::start_default();
    let cli = Cli::of(&broker);
    create_topic(&cli.bootstrap, "t", 2, &[]);
    create_topic(&cli.bootstrap, "u", 1, &[]);
    let records: Vec<Record> = (0..20)
        .map(|i| Record {
            timestamp_ms: Some(1_700_000_000_000 + i64::from(i) * 1000),
            ..Record::to_partition(i % 2, format!("{i}"))
        })
        .collect();
    produce(&cli.bootstrap, "t", &[], &records);
    produce(&cli.bootstrap, "u", &[], &records[..1]);
    let consume =
        "--group g --from-beginning --max-messages 20 --timeout-ms 30000 --command-property enable.auto.commit=true";
    cli.run("kafka-console-consumer", &format!("--topic t {consume}")).ok();
    cli.run("kafka-console-consumer", "--topic u --group g --from-beginning --max-messages 1 --timeout-ms 30000").ok();

    assert_eq!(lines(&cli.run("kafka-consumer-groups", "--list").ok()), ["g"]);
    let states = cli.run("kafka-consumer-groups", "--list --state").ok();
    assert_eq!(row(&states, &["g"]), ["g", "Empty"]);
    let state = cli.run("kafka-consumer-groups", "--describe --group g --state").ok();
    let columns = row(&state, &["g"]);
    assert!(columns.contains(&"Empty") && columns.last() == Some(&"0"), "{state}");

    let offsets = |cli: &Cli| {
        let described = cli.run("kafka-consumer-groups", "--describe --group g").ok();
        [("t", "0"), ("t", "1"), ("u", "0")].map(|(topic, partition)| {
            let columns = row(&described, &["g", topic, partition]);
            (columns[3].to_owned(), columns[4].to_owned(), columns[5].to_owned())
        })
    };
    let triple = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(offsets(&cli), [triple("10", "10", "0"), triple("10", "10", "0"), triple("1", "1", "0")]);

    let reset = |how: &str| {
        cli.run("kafka-consumer-groups", &format!("--reset-offsets --group g --topic t {how} --execute")).ok()
    };
    reset("--to-offset 4");
    assert_eq!(offsets(&cli)[0], triple("4", "10", "6"));
    reset("--shift-by -1");
    assert_eq!(offsets(&cli)[1], triple("3", "10", "7"));
    reset("--to-datetime 2023-11-14T22:13:30.000");
    assert_eq!(offsets(&cli)[..2], [triple("5", "10", "5"), triple("5", "10", "5")]);
    reset("--to-earliest");
    assert_eq!(offsets(&cli)[0], triple("0", "10", "10"));
    let dry = cli.run("kafka-consumer-groups", "--reset-offsets --group g --topic t --to-latest --dry-run").ok();
    assert!(dry.contains("10"), "{dry}");
    assert_eq!(offsets(&cli)[0], triple("0", "10", "10"), "a dry run changes nothing");
    // After the reset the records are read again.
    let again = cli.run("kafka-console-consumer", &format!("--topic t {consume}")).ok();
    assert_eq!(lines(&again).len(), 20);

    cli.run("kafka-consumer-groups", "--delete-offsets --group g --topic u").ok();
    let described = cli.run("kafka-consumer-groups", "--describe --group g").ok();
    assert!(!described.lines().any(|line| line.split_whitespace().nth(1) == Some("u")), "{described}");
    cli.run("kafka-consumer-groups", "--delete --group g").says("successful");
    assert_eq!(cli.run("kafka-consumer-groups", "--list").ok().trim(), "");
    let gone = cli.run("kafka-consumer-groups", "--delete --group g");
    assert!((gone.stdout.clone() + &gone.stderr).contains("GroupIdNotFound"), "{gone:?}");
}

#[test]
fn members_of_a_live_group_are_described() {
    let broker = Broker::start_default();
    let cli = Cli::of(&broker);
    create_topic(&cli.bootstrap, "t", 2, &[]);
    produce(&cli.bootstrap, "t", &[], &[Record::to_partition(0, "a")]);
    let member = protocol_tests::clients::consumer(
        &cli.bootstrap,
        "live",
        &[("client.id", "the-member"), ("heartbeat.interval.ms", "200")],
    );
    use rdkafka::consumer::Consumer;
    member.subscribe(&["t"]).expect("subscribe");
    protocol_tests::process::eventually("the group is stable", protocol_tests::clients::CALL_LIMIT, || {
        member.poll(std::time::Duration::from_millis(50))?.ok()
    });
    let members = cli.run("kafka-consumer-groups", "--describe --group live --members --verbose").ok();
    let columns = row(&members, &["live"]);
    assert!(columns.contains(&"the-member") && columns.contains(&"2"), "{members}");
    assert!(columns.contains(&"t:0,1"), "{members}");
    let state = cli.run("kafka-consumer-groups", "--describe --group live --state").ok();
    assert!(row(&state, &["live"]).contains(&"Stable") && state.contains("range"), "{state}");
    let deleted = cli.run("kafka-consumer-groups", "--delete --group live");
    assert!((deleted.stdout.clone() + &deleted.stderr).contains("GroupNotEmpty"), "{deleted:?}");
    cli.run("kafka-groups", "--list").says("live");
}

#[test]
fn offsets_log_dirs_versions_quorum_and_cluster_id() {
    let broker = Broker::start_default();
    let cli = Cli::of(&broker);
    create_topic(&cli.bootstrap, "t", 3, &[]);
    let records: Vec<Record> = (0..9)
        .map(|i| Record { timestamp_ms: Some(1000 + i64::from(i)), ..Record::to_partition(i % 2, "x") })
        .collect();
    produce(&cli.bootstrap, "t", &[], &records);
    assert_eq!(lines(&cli.run("kafka-get-offsets", "--topic t").ok()), ["t:0:5", "t:1:4", "t:2:0"]);
    assert_eq!(lines(&cli.run("kafka-get-offsets", "--topic t --time earliest").ok()), ["t:0:0", "t:1:0", "t:2:0"]);
    assert_eq!(lines(&cli.run("kafka-get-offsets", "--topic t --time max-timestamp").ok())[..2], ["t:0:4", "t:1:3"]);
    assert_eq!(lines(&cli.run("kafka-get-offsets", "--topic t --time 1004 --partitions 0").ok()), ["t:0:2"]);

    let dirs = cli.run("kafka-log-dirs", "--describe --topic-list t").ok();
    let json = dirs.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no JSON in {dirs}"));
    let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let dir = &json["brokers"][0]["logDirs"][0];
    assert_eq!(dir["logDir"].as_str().map(Path::new), Some(broker.data().as_path()), "{json}");
    assert_eq!(dir["error"], serde_json::Value::Null, "{json}");
    let partitions: BTreeSet<&str> =
        dir["partitions"].as_array().expect("partitions").iter().filter_map(|p| p["partition"].as_str()).collect();
    assert_eq!(partitions, BTreeSet::from(["t-0", "t-1", "t-2"]));
    assert!(dir["partitions"].as_array().expect("partitions").iter().any(|p| p["size"].as_u64() > Some(60)), "{json}");

    let versions = cli.run("kafka-broker-api-versions", "").ok();
    for api in ["Produce(0): ", "Fetch(1): 4 to 18", "Metadata(3): ", "JoinGroup(11): ", "InitProducerId(22): "] {
        assert!(versions.contains(api), "{api} is missing:\n{versions}");
    }
    let status = cli.run("kafka-metadata-quorum", "describe --status").ok();
    for part in ["ClusterId:", "LeaderId:", "LeaderEpoch:", "HighWatermark:", "MaxFollowerLag:", "CurrentVoters:"] {
        assert!(status.contains(part), "{part} is missing:\n{status}");
    }
    let replication = cli.run("kafka-metadata-quorum", "describe --replication").ok();
    assert_eq!(row(&replication, &["1"]).last(), Some(&"Leader"), "{replication}");
}

#[test]
fn cluster_id_and_features() {
    let broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    let said = tool("kafka-cluster", &["cluster-id", "--bootstrap-server", &bootstrap]).says("Cluster ID: ");
    let id = said.trim().rsplit(' ').next().expect("an id");
    let properties = std::fs::read_to_string(broker.data().join("meta.properties")).expect("read meta.properties");
    assert!(properties.contains(id), "{id} is not in {properties}");
    tool("kafka-features", &["--bootstrap-server", &bootstrap, "describe"]).says("metadata.version");
}

#[test]
fn acls_need_an_authorizer() {
    let broker = Broker::start_default();
    let cli = Cli::of(&broker);
    let listed = cli.run("kafka-acls", "--list").fails();
    assert!(listed.contains("SecurityDisabledException: No Authorizer is configured on the broker"), "{listed}");
    let acl = "--allow-principal User:alice --operation Read --topic t";
    for change in ["--add", "--remove --force"] {
        let refused = cli.run("kafka-acls", &format!("{change} {acl}")).fails();
        assert!(refused.contains("SecurityDisabledException: No Authorizer is configured"), "{refused}");
    }
}

#[test]
fn no_transactions_are_listed() {
    let broker = Broker::start_default();
    let cli = Cli::of(&broker);
    create_topic(&cli.bootstrap, "t", 1, &[]);
    for arguments in ["list", "list --duration-filter 1000", "list --transactional-id-pattern a.*"] {
        let listed = cli.run("kafka-transactions", arguments).ok();
        let columns: Vec<&str> = listed.split_whitespace().collect();
        assert_eq!(columns, ["TransactionalId", "Coordinator", "ProducerId", "TransactionState"], "{arguments}");
    }
    let refused = cli.run("kafka-transactions", "list --transactional-id-pattern (").fails();
    assert!(refused.contains("INVALID_REGULAR_EXPRESSION"), "{refused}");
    let hanging = cli.run("kafka-transactions", "find-hanging --broker-id 1").ok();
    assert_eq!(lines(&hanging).len(), 1, "only the heading: {hanging}");
}

#[test]
fn features_are_upgraded_as_far_as_they_work() {
    let broker = Broker::start_default();
    let cli = Cli::of(&broker);
    let same = "--feature metadata.version=30";
    cli.run("kafka-features", &format!("upgrade {same} --dry-run")).says("metadata.version can be upgraded to 30.");
    cli.run("kafka-features", &format!("upgrade {same}")).says("metadata.version was upgraded to 30.");
    let unknown = cli.run("kafka-features", "upgrade --feature no.such=3").fails();
    assert!(unknown.contains("Could not upgrade no.such to 3."), "{unknown}");
    assert!(unknown.contains("Local controller 1 does not support this feature."), "{unknown}");
    for command in ["downgrade", "downgrade --unsafe"] {
        let refused = cli.run("kafka-features", &format!("{command} --feature metadata.version=20")).fails();
        assert!(refused.contains("Unsupported metadata.version downgrade from 30 to 20."), "{refused}");
    }
    let described = cli.run("kafka-features", "describe").ok();
    assert!(row(&described, &["Feature:", "metadata.version"]).contains(&"4.3-IV0"), "{described}");
}

#[test]
fn a_broker_is_unregistered_until_it_starts_again() {
    let mut broker = Broker::options().expect_log("a client has unregistered this broker").start();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "t", 1, &[]);
    produce(&bootstrap, "t", &[], &[Record::of("k", "before")]);
    let unregister = |id| tool("kafka-cluster", &["unregister", "--bootstrap-server", &bootstrap, "--id", id]);
    let unknown = unregister("7").fails();
    assert!(unknown.contains("BrokerIdNotRegisteredException: Broker ID 7 is not currently registered"), "{unknown}");
    unregister("1").says("Broker 1 is no longer registered.");
    // Clients find no broker in Metadata.
    use rdkafka::consumer::Consumer;
    let client = protocol_tests::clients::consumer(&bootstrap, "g", &[]);
    let metadata = client.fetch_metadata(None, protocol_tests::clients::CALL_LIMIT).expect("fetch metadata");
    assert_eq!(metadata.brokers().len(), 0);
    drop(client);

    // Apache Kafka's broker cannot stop by itself now: it waits for the controller, which no longer knows it.
    if Broker::is_kafka() {
        broker.kill();
    } else {
        broker.stop();
    }
    broker.start();
    produce(&bootstrap, "t", &[], &[Record::of("k", "after")]);
    let texts: Vec<String> = read_all(&bootstrap, "t").iter().map(|record| record.text()).collect();
    assert_eq!(texts, ["before", "after"]);
}

#[test]
fn performance_and_verifiable_tools() {
    let broker = Broker::start_default();
    let cli = Cli::of(&broker);
    create_topic(&cli.bootstrap, "perf", 2, &[]);
    let produced = cli
        .run("kafka-producer-perf-test", "--topic perf --num-records 50000 --record-size 200 --throughput -1 --command-property acks=all compression.type=lz4")
        .says("50000 records sent");
    assert!(!produced.contains("ERROR"), "{produced}");
    let consumed =
        cli.run("kafka-consumer-perf-test", "--topic perf --num-records 50000 --timeout 60000 --hide-header").ok();
    assert!(
        consumed.lines().any(|line| line.split(',').nth(4).is_some_and(|count| count.trim() == "50000")),
        "{consumed}"
    );
    assert_eq!(read_all(&cli.bootstrap, "perf").len(), 50_000);

    // These two tools print their results from a JVM shutdown hook, so they need their own processes.
    let server = ["--bootstrap-server", &cli.bootstrap];
    let options = ["--topic", "verified", "--max-messages", "1000", "--throughput", "-1", "--acks", "-1"];
    let verified = process("kafka-verifiable-producer", &[&server[..], &options[..]].concat(), "").ok();
    assert!(
        verified.lines().any(|line| line.contains("\"name\":\"tool_data\"") && line.contains("\"acked\":1000")),
        "{verified}"
    );
    let options =
        ["--topic", "verified", "--group-id", "v", "--max-messages", "1000", "--reset-policy", "earliest", "--verbose"];
    let read = process("kafka-verifiable-consumer", &[&server[..], &options[..]].concat(), "").ok();
    let values: BTreeSet<String> = read
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|event| event["name"] == "record_data")
        .map(|event| event["value"].to_string())
        .collect();
    assert_eq!(values.len(), 1000);
    let latency = tool(
        "kafka-e2e-latency",
        &[
            "--bootstrap-server",
            &cli.bootstrap,
            "--topic",
            "e2e",
            "--num-records",
            "200",
            "--producer-acks",
            "all",
            "--record-size",
            "100",
        ],
    );
    latency.says("Percentiles");
}

#[test]
fn formatters_and_dump_log_read_the_internal_topics() {
    let mut broker = Broker::options().set("log.segment.bytes", 1 << 20).set("offsets.topic.num.partitions", 3).start();
    let cli = Cli::of(&broker);
    create_topic(&cli.bootstrap, "t", 1, &[]);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let records: Vec<Record> =
            (0..3000).map(|i| Record::of(format!("k{i}"), format!("{codec} {i} {}", "y".repeat(i % 500)))).collect();
        produce(
            &cli.bootstrap,
            "t",
            &[("compression.codec", codec), ("enable.idempotence", "true"), ("batch.num.messages", "200")],
            &records,
        );
    }
    cli.run("kafka-console-consumer", "--topic t --group g --from-beginning --max-messages 15000 --timeout-ms 60000")
        .ok();
    cli.run("kafka-configs", "--entity-type topics --entity-name t --alter --add-config retention.ms=123456789").ok();

    let consume = "--topic __consumer_offsets --from-beginning --timeout-ms 5000 --formatter";
    let offsets = cli
        .run("kafka-console-consumer", &format!("{consume} org.apache.kafka.tools.consumer.OffsetsMessageFormatter"))
        .stdout;
    assert!(offsets.contains("\"group\":\"g\"") && offsets.contains("\"offset\":15000"), "{offsets}");
    let groups = cli
        .run(
            "kafka-console-consumer",
            &format!("{consume} org.apache.kafka.tools.consumer.GroupMetadataMessageFormatter"),
        )
        .stdout;
    assert!(groups.contains("\"protocolType\":\"consumer\""), "{groups}");

    broker.stop();
    let segments = nothing_wrong(&broker.data(), "t-0", &[]);
    assert!(segments > 1, "{segments} segments");
    let mut dumped = String::new();
    for partition in 0..3 {
        nothing_wrong(&broker.data(), &format!("__consumer_offsets-{partition}"), &["--offsets-decoder"]);
        dumped += &dump(
            &broker.data().join(format!("__consumer_offsets-{partition}/00000000000000000000.log")),
            &["--offsets-decoder"],
        );
    }
    assert!(dumped.contains("\"group\":\"g\"") && dumped.contains("\"offset\":15000"), "{dumped}");
    nothing_wrong(&broker.data(), "__cluster_metadata-0", &["--cluster-metadata-decoder"]);
    let metadata =
        dump(&broker.data().join("__cluster_metadata-0/00000000000000000000.log"), &["--cluster-metadata-decoder"]);
    for record in [
        "\"TOPIC_RECORD\"",
        "\"PARTITION_RECORD\"",
        "\"CONFIG_RECORD\"",
        "\"FEATURE_LEVEL_RECORD\"",
        "\"REGISTER_BROKER_RECORD\"",
    ] {
        assert!(metadata.contains(record), "{record} is missing:\n{metadata}");
    }
    assert!(metadata.contains("123456789"), "the altered setting is missing:\n{metadata}");
    // All records are still there after the tools have read the files.
    broker.start();
    assert_eq!(read_all(&broker.bootstrap(), "t").len(), 15_000);
}

fn dump(file: &Path, more: &[&str]) -> String {
    let file = file.display().to_string();
    let arguments: Vec<&str> =
        ["--deep-iteration", "--print-data-log", "--files", &file].iter().chain(more).copied().collect();
    tool("kafka-dump-log", &arguments).ok()
}

/// Runs every check of kafka-dump-log on every file of a partition. Returns the number of segments.
pub(crate) fn nothing_wrong(data: &Path, partition: &str, decoder: &[&str]) -> usize {
    let mut segments = 0;
    let mut names: Vec<_> = std::fs::read_dir(data.join(partition))
        .unwrap_or_else(|error| panic!("list {partition}: {error}"))
        .map(|entry| entry.expect("directory entry").path())
        .collect();
    names.sort();
    for path in names {
        let file = path.display().to_string();
        let checks: &[&[&str]] = match path.extension().and_then(|extension| extension.to_str()) {
            Some("log") => {
                segments += 1;
                &[&["--deep-iteration", "--print-data-log"]]
            }
            Some("index") => &[&["--index-sanity-check"], &["--verify-index-only"], &[]],
            Some("timeindex") => &[&["--index-sanity-check"], &["--verify-index-only"], &[]],
            Some("snapshot" | "txnindex") => &[&[]],
            _ => continue,
        };
        for check in checks {
            let arguments: Vec<&str> = ["--files", &file].iter().chain(*check).chain(decoder).copied().collect();
            let ran = tool("kafka-dump-log", &arguments);
            let said = ran.stdout.clone() + &ran.stderr;
            let wrong = [
                "isvalid: false",
                "Mismatches",
                "Found timestamp mismatch",
                "not found in log",
                "corrupt",
                "Exception",
                "out of order",
            ];
            let mut wrong: Vec<&str> = wrong.into_iter().filter(|text| said.contains(text)).collect();
            // The tool prints "-1 is followed by N" at the start of every segment except the first; ignore it.
            wrong.extend(
                said.lines().filter(|line| line.contains(" is followed by ") && !line.trim().starts_with("-1 ")),
            );
            assert!(
                ran.exit_code == 0 && wrong.is_empty(),
                "{file} {check:?}: {wrong:?}\n{}",
                said.lines()
                    .filter(|line| !line.contains("isvalid: true") && !line.starts_with("| "))
                    .collect::<Vec<_>>()
                    .join("\n")
            );
        }
    }
    segments
}
