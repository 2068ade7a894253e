//! Apache Kafka's Java clients: the scenarios of clients/java/src/Scenarios.java, one test each.

use protocol_tests::{broker::Broker, java::tool};

fn scenario(name: &str) {
    let broker = Broker::start_default();
    let said = tool("scenario", &[name, &broker.bootstrap()]).ok();
    assert!(said.contains(&format!("{name} passed")), "{said}");
}

#[test]
fn every_codec_both_ways() {
    scenario("codecs");
}

#[test]
fn cooperative_members_come_and_go() {
    scenario("cooperativeGroup");
}

#[test]
fn static_members_keep_their_partitions() {
    scenario("staticMembership");
}

#[test]
fn seek_pause_and_times() {
    scenario("seekPauseAndTimes");
}

#[test]
fn admin_calls() {
    scenario("administration");
}

#[test]
fn transactional_producers_hear_at_once_that_there_are_no_transactions() {
    scenario("transactionsAreRefused");
}

#[test]
fn idempotent_producer_and_large_batches() {
    scenario("producer");
}
