//! Broker settings that Kafka applies at run time also change at run time in Ottla.

use std::time::Duration;

use kafka_protocol::{
    messages::{
        ApiVersionsRequest, DescribeProducersRequest, IncrementalAlterConfigsRequest, TopicName,
        describe_producers_request::TopicRequest,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
    protocol::StrBytes,
};
use protocol_tests::{
    broker::Broker,
    clients::{Record, create_topic, produce},
    process::eventually,
    wire::{Answer, Wire},
};

const LIMIT: Duration = Duration::from_secs(20);
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;

/// Changes a setting of all brokers (empty name) or of one, over an open connection.
fn alter(wire: &mut Wire, broker: &str, setting: &'static str, value: Option<&str>) {
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_static_str(setting))
        .with_config_operation(if value.is_some() { SET } else { DELETE })
        .with_value(value.map(|value| StrBytes::from_string(value.to_owned())));
    let resource = AlterConfigsResource::default()
        .with_resource_type(BROKER)
        .with_resource_name(StrBytes::from_string(broker.to_owned()))
        .with_configs(vec![config]);
    let answer = wire.ask(1, &IncrementalAlterConfigsRequest::default().with_resources(vec![resource]));
    let outcome = &answer.responses[0];
    assert_eq!(outcome.error_code, 0, "{setting}={value:?}: {:?}", outcome.error_message);
}

/// Opens a connection; returns None if the broker closes it at once.
fn connect(broker: &Broker) -> Option<Wire> {
    let mut wire = Wire::connect(&broker.bootstrap());
    wire.send_body(18, 0, &[]);
    match wire.answer(LIMIT) {
        Answer::Frame(_) => Some(wire),
        Answer::Closed => None,
        Answer::Silence => panic!("neither an answer nor an end"),
    }
}

fn serves(wire: &mut Wire) -> bool {
    wire.ask(0, &ApiVersionsRequest::default()).api_keys.len() > 20
}

#[test]
fn fewer_connections_from_one_address_are_allowed_from_the_answer_on() {
    let broker = Broker::start_default();
    let mut open: Vec<Wire> = (0..4).map(|_| connect(&broker).expect("the default is 8,000")).collect();
    alter(&mut open[0], "", "max.connections.per.ip", Some("3"));
    assert!(connect(&broker).is_none(), "four connections are open and three are allowed");
    assert!(open.iter_mut().all(serves), "open connections stay open");
    open.truncate(2);
    let third = eventually("a third connection is accepted", LIMIT, || connect(&broker));
    assert!(connect(&broker).is_none(), "a fourth connection is refused");
    open.push(third);

    alter(&mut open[0], "", "max.connections.per.ip", Some("5"));
    let more: Vec<Wire> = (0..2).map(|_| connect(&broker).expect("five are allowed")).collect();
    assert!(connect(&broker).is_none());
    // The value for this broker overrides the value for all brokers.
    alter(&mut open[0], "1", "max.connections.per.ip", Some("6"));
    let sixth = connect(&broker).expect("six are allowed");
    assert!(connect(&broker).is_none());
    // Without both, the value from the start applies.
    alter(&mut open[0], "1", "max.connections.per.ip", None);
    alter(&mut open[0], "", "max.connections.per.ip", None);
    assert!(connect(&broker).is_some());
    drop((more, sixth));
}

#[test]
fn exceptions_by_address_and_by_name_are_taken_over() {
    let broker = Broker::start_default();
    let mut first = connect(&broker).expect("a connection");
    alter(&mut first, "", "max.connections.per.ip", Some("1"));
    assert!(connect(&broker).is_none());
    alter(&mut first, "", "max.connections.per.ip.overrides", Some("127.0.0.1:2"));
    let second = connect(&broker).expect("an exception for two");
    assert!(connect(&broker).is_none());
    // The broker resolves host names after it has answered.
    alter(&mut first, "", "max.connections.per.ip.overrides", Some("localhost:3"));
    let third = eventually("an exception for three", LIMIT, || connect(&broker));
    assert!(connect(&broker).is_none());
    drop((second, third));
}

#[test]
fn the_sum_of_connections_changes_and_outlasts_a_restart() {
    let mut broker = Broker::start_default();
    let mut open: Vec<Wire> = (0..3).map(|_| connect(&broker).expect("a connection")).collect();
    alter(&mut open[0], "", "max.connections", Some("3"));
    assert!(connect(&broker).is_none());
    drop(open);
    broker.restart();
    // The connections of the check that the broker is ready may still be counted.
    let open: Vec<Wire> = (0..3).map(|_| eventually("three are allowed again", LIMIT, || connect(&broker))).collect();
    assert!(connect(&broker).is_none());
    drop(open);
}

#[test]
fn producers_are_kept_as_long_as_the_setting_says_now() {
    let broker = Broker::options().set("producer.id.expiration.check.interval.ms", 50).start();
    create_topic(&broker.bootstrap(), "t", 1, &[]);
    produce(&broker.bootstrap(), "t", &[("enable.idempotence", "true")], &[Record::of("k", "v")]);
    let mut wire = connect(&broker).expect("a connection");
    let producers = |wire: &mut Wire| {
        let topic = TopicRequest::default()
            .with_name(TopicName(StrBytes::from_static_str("t")))
            .with_partition_indexes(vec![0]);
        let answer = wire.ask(0, &DescribeProducersRequest::default().with_topics(vec![topic]));
        answer.topics[0].partitions[0].active_producers.len()
    };
    assert_eq!(producers(&mut wire), 1);
    alter(&mut wire, "", "producer.id.expiration.ms", Some("1"));
    eventually("the producer is forgotten", LIMIT, || (producers(&mut wire) == 0).then_some(()));
}
