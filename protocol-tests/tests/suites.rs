//! Third-party test suites (protocol-tests/suites), each in a network namespace with its own broker.

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
