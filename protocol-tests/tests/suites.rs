//! Suites that others wrote, each in a network namespace with a broker of its own: protocol-tests/suites.

use protocol_tests::foreign::suite;

#[test]
fn franz_go() {
    suite("franz-go");
}

#[test]
fn kafka_python() {
    suite("kafka-python");
}

#[test]
fn rdkafka() {
    suite("rdkafka");
}

#[test]
fn librdkafka() {
    suite("librdkafka");
}
