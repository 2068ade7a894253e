//! kafkajs: protocol-tests/clients/js.

use std::process::Command;

use protocol_tests::foreign::{installed, scenario};

fn kafkajs(name: &str) {
    let mut command = Command::new("node");
    command.arg(installed("js").join("kafkajs.mjs"));
    scenario(command, name);
}

#[test]
fn kafkajs_reads_what_it_produced() {
    kafkajs("roundtrip");
}

#[test]
fn kafkajs_compresses_with_every_codec() {
    kafkajs("codecs");
}

#[test]
fn kafkajs_shares_partitions_in_a_group() {
    kafkajs("group");
}

#[test]
fn kafkajs_administers() {
    kafkajs("admin");
}
