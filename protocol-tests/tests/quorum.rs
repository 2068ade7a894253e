//! The metadata quorum of real processes: nodes with one role, and voters that come and go by Kafka's own tool.

use std::{fs, path::PathBuf, time::Duration};

use protocol_tests::{
    broker::Broker,
    clients::{Record, create_replicated_topic, produce, read_all},
    java::{ToolResult, tool},
    process::{eventually, free_port},
};

const LIMIT: Duration = Duration::from_secs(60);

/// A node that has these roles and finds the quorum by `quorum`, a setting and its value.
fn node(id: i32, roles: &str, controller: u16, quorum: (&str, &str)) -> Broker {
    let mut listeners = Vec::new();
    if roles.contains("broker") {
        listeners.push(format!("PLAINTEXT://127.0.0.1:{}", free_port()));
    }
    if roles.contains("controller") {
        listeners.push(format!("CONTROLLER://127.0.0.1:{controller}"));
    }
    Broker::options()
        .set("node.id", id)
        .set("process.roles", roles)
        .set("listeners", listeners.join(","))
        .set("controller.listener.names", "CONTROLLER")
        .set(quorum.0, quorum.1)
        .set("offsets.topic.num.partitions", 1)
        .set("offsets.topic.replication.factor", 1)
        .expect_log("fenced a broker whose process has ended")
        .expect_log("fenced a broker that has sent no heartbeat")
        .expect_log("fenced a broker that is silent")
        .start()
}

fn quorum(bootstrap: &str, arguments: &[&str]) -> ToolResult {
    tool("kafka-metadata-quorum", &[&["--bootstrap-server", bootstrap], arguments].concat())
}

fn directory_id(node: &Broker) -> String {
    let meta = fs::read_to_string(node.data().join("meta.properties")).expect("meta.properties");
    let id = meta.lines().find_map(|line| line.strip_prefix("directory.id="));
    id.expect("a directory id").to_owned()
}

/// The settings of a node as a file, which the tool reads to add its controller.
fn settings(id: i32, controller: u16, node: &Broker) -> PathBuf {
    let path = node.data().join("controller.properties");
    let listener = format!("CONTROLLER://127.0.0.1:{controller}");
    let text = format!(
        "process.roles=controller\nnode.id={id}\nlog.dirs={}\nlisteners={listener}\nadvertised.listeners={listener}\n\
         controller.listener.names=CONTROLLER\ncontroller.quorum.bootstrap.servers=127.0.0.1:{controller}\n",
        node.data().display()
    );
    fs::write(&path, text).expect("write the settings");
    path
}

/// The status of a node in `describe --replication`.
fn status(bootstrap: &str, id: i32) -> Option<String> {
    replication(bootstrap, id)?.pop()
}

/// The row of a node in `describe --replication`: id, directory, end offset, lag, last fetch, last caught up, status.
fn replication(bootstrap: &str, id: i32) -> Option<Vec<String>> {
    let table = quorum(bootstrap, &["describe", "--replication"]);
    let rows = table.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.into_iter().find(|columns| columns.first() == Some(&id.to_string().as_str()))?;
    Some(row.into_iter().map(str::to_owned).collect())
}

#[test]
fn kafkas_tool_adds_and_removes_controllers_of_a_node_that_was_alone() {
    let ports = [free_port(), free_port(), free_port()];
    let known = format!("127.0.0.1:{},127.0.0.1:{}", ports[0], ports[1]);
    let mut first =
        node(1, "broker,controller", ports[0], ("controller.quorum.voters", &format!("1@127.0.0.1:{}", ports[0])));
    let bootstrap = first.bootstrap();
    let others = [2, 3].map(|id| {
        node(id, "broker,controller", ports[id as usize - 1], ("controller.quorum.bootstrap.servers", &known))
    });
    create_replicated_topic(&bootstrap, "kept", 1, 3, &[("min.insync.replicas", "2")]);
    produce(&bootstrap, "kept", &[], &[Record::to_partition(0, "before")]);
    for (id, other) in [2, 3].into_iter().zip(&others) {
        assert_eq!(status(&bootstrap, id).as_deref(), Some("Observer"));
        let settings = settings(id, ports[id as usize - 1], other);
        let added = quorum(&bootstrap, &["--command-config", settings.to_str().expect("a path"), "add-controller"]);
        added.says(&format!("Added controller {id}"));
        assert_eq!(status(&bootstrap, id).as_deref(), Some("Follower"));
        eventually("the tool shows when the voter was heard and had all records", LIMIT, || {
            let row = replication(&bootstrap, id)?;
            row[4..6].iter().all(|time| time.parse().is_ok_and(|ms: i64| ms > 1_600_000_000_000)).then_some(())
        });
    }
    let removed = quorum(
        &others[0].bootstrap(),
        &["remove-controller", "--controller-id", "1", "--controller-directory-id", &directory_id(&first)],
    );
    removed.says("Removed");
    eventually("it follows without a vote", LIMIT, || {
        (status(&others[0].bootstrap(), 1).as_deref() == Some("Observer")).then_some(())
    });
    first.kill();
    let rest = format!("{},{}", others[0].bootstrap(), others[1].bootstrap());
    produce(&rest, "kept", &[], &[Record::to_partition(0, "after")]);
    let texts: Vec<String> = read_all(&rest, "kept").iter().map(|record| record.text()).collect();
    assert_eq!(texts, ["before", "after"]);
}

#[test]
fn brokers_without_a_vote_follow_a_controller_without_partitions() {
    let port = free_port();
    let voters = format!("1@127.0.0.1:{port}");
    let mut controller = node(1, "controller", port, ("controller.quorum.voters", &voters));
    let mut brokers = [11, 12].map(|id| node(id, "broker", 0, ("controller.quorum.voters", &voters)));
    let bootstrap = format!("{},{}", brokers[0].bootstrap(), brokers[1].bootstrap());
    create_replicated_topic(&bootstrap, "followed", 2, 2, &[]);
    let record = |text: &str| Record::to_partition(0, text);
    produce(&bootstrap, "followed", &[], &[record("1")]);
    controller.restart();
    create_replicated_topic(&bootstrap, "later", 1, 2, &[]);
    brokers[0].restart();
    produce(&bootstrap, "followed", &[], &[record("2")]);
    let texts: Vec<String> = read_all(&bootstrap, "followed").iter().map(|record| record.text()).collect();
    assert_eq!(texts, ["1", "2"]);
    let state = quorum(&brokers[1].bootstrap(), &["describe", "--status"]).ok();
    assert!(state.contains("LeaderId:               1") && state.contains("\"id\": 12"), "{state}");
}
