//! Kafka's own tool changes log levels while the broker runs.

use std::time::Duration;

use protocol_tests::{
    broker::Broker,
    java::{ToolResult, tool},
    process::eventually,
    wire::Wire,
};

const LIMIT: Duration = Duration::from_secs(20);

fn loggers(broker: &Broker, more: &str) -> ToolResult {
    let bootstrap = broker.bootstrap();
    let fixed = ["--bootstrap-server", &bootstrap, "--entity-type", "broker-loggers", "--entity-name", "1"];
    let arguments: Vec<&str> = fixed.into_iter().chain(more.split(' ')).collect();
    tool("kafka-configs", &arguments)
}

/// Number of DEBUG lines from `ottla::network::connection`.
fn debug_lines(broker: &Broker) -> usize {
    broker.log().iter().filter(|line| line.contains("DEBUG ottla::network::connection")).count()
}

#[test]
fn a_module_logs_more_or_less_from_the_answer_on() {
    let broker = Broker::start_default();
    let described = loggers(&broker, "--describe").ok();
    for logger in ["root=INFO", "ottla=INFO", "ottla.raft=INFO", "ottla.network.connection=INFO"] {
        assert!(described.contains(logger), "{logger} is missing: {described}");
    }
    assert_eq!(debug_lines(&broker), 0);

    loggers(&broker, "--alter --add-config ottla.network=DEBUG,ottla.raft=WARN").says("Completed updating config");
    let described = loggers(&broker, "--describe").ok();
    for logger in ["root=INFO", "ottla.network.connection=DEBUG", "ottla.raft.driver=WARN"] {
        assert!(described.contains(logger), "{logger} is missing: {described}");
    }
    drop(Wire::connect(&broker.bootstrap()));
    eventually("the end of a connection is logged", LIMIT, || (debug_lines(&broker) > 0).then_some(()));

    loggers(&broker, "--alter --delete-config ottla.network").says("Completed updating config");
    loggers(&broker, "--describe").says("ottla.network.connection=INFO");
    let before = debug_lines(&broker);
    loggers(&broker, "--describe").ok();
    assert_eq!(debug_lines(&broker), before);

    for (wrong, message) in [
        ("--add-config ottla.nope=DEBUG", "ottla.nope"),
        ("--add-config ottla=LOUD", "Cannot set the log level of ottla to LOUD"),
        ("--delete-config root", "Removing the log level of the root logger is not allowed"),
    ] {
        let said = loggers(&broker, &format!("--alter {wrong}")).fails();
        assert!(said.contains(message), "{wrong}: {said}");
    }
}
