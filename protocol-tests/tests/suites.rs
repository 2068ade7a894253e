//! Third-party test suites (protocol-tests/suites), each in a network namespace with its own broker, or three.

use protocol_tests::foreign::{suite, suite_on_three_brokers};

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
    if std::env::var_os("FULL").is_some() {
        suite_on_three_brokers("librdkafka");
    }
}

#[test]
fn sarama() {
    suite("sarama");
}
