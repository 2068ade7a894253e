//! Third-party test suites (protocol-tests/suites), each in a network namespace with its own broker, or three.

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

#[test]
fn sarama() {
    suite("sarama");
}
