//! Harness of the black-box tests: what a test needs to start a broker, talk to it with real clients and read what it
//! left behind. It knows the broker only by its command line, its settings, the wire and the files on disk; it never
//! links it.
//!
//! `OTTLA_BIN` names the binary under test (otherwise the workspace's own is built). `OTTLA_TEST_SERVER=kafka` runs the
//! same scenarios against Apache Kafka: a scenario that Kafka itself fails is not a fair one.

pub mod broker;
pub mod clients;
pub mod differential;
pub mod foreign;
pub mod hostile;
pub mod java;
pub mod kafka;
pub mod log_gate;
pub mod process;
pub mod wire;
