//! kafka-python and confluent-kafka: protocol-tests/clients/python.

use std::process::Command;

use protocol_tests::foreign::{installed, program, scenario};

fn python(file: &str, name: &str) {
    let mut command = Command::new(installed("python").join("bin/python"));
    command.arg(program("python", file));
    scenario(command, name);
}

#[test]
fn kafka_python_reads_what_it_produced() {
    python("kafka_python.py", "roundtrip");
}

#[test]
fn kafka_python_compresses_with_every_codec() {
    python("kafka_python.py", "codecs");
}

#[test]
fn kafka_python_shares_partitions_in_a_group() {
    python("kafka_python.py", "group");
}

#[test]
fn kafka_python_administers() {
    python("kafka_python.py", "admin");
}

#[test]
fn confluent_kafka_reads_what_it_produced() {
    python("confluent.py", "roundtrip");
}

#[test]
fn confluent_kafka_compresses_with_every_codec() {
    python("confluent.py", "codecs");
}

#[test]
fn confluent_kafka_shares_partitions_in_a_group() {
    python("confluent.py", "group");
}

#[test]
fn confluent_kafka_administers() {
    python("confluent.py", "admin");
}
