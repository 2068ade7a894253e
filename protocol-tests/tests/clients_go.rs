//! franz-go, in Go: protocol-tests/clients/go.

use std::process::Command;

use protocol_tests::foreign::{installed, scenario};

fn franz(name: &str) {
    scenario(Command::new(installed("go").join("franz")), name);
}

#[test]
fn franz_go_reads_what_it_produced() {
    franz("roundtrip");
}

#[test]
fn franz_go_compresses_with_every_codec() {
    franz("codecs");
}

#[test]
fn franz_go_shares_partitions_in_a_group() {
    franz("group");
}

#[test]
fn franz_go_hears_at_once_that_there_are_no_transactions() {
    franz("transactions");
}

#[test]
fn franz_go_administers() {
    franz("admin");
}
