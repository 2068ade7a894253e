//! Harness of the black-box tests: starts a broker, talks to it with real clients and reads the files that it wrote. It
//! knows the broker only by its command line, its settings, the wire and the files on disk; it never links it.
//!
//! `OTTLA_BIN` names the binary under test; without it the tests build the workspace's own. `OTTLA_TEST_SERVER=kafka`
//! runs the same scenarios against Apache Kafka: a scenario that Kafka itself fails is wrong.

pub mod broker;
pub mod clients;
pub mod cluster;
pub mod differential;
pub mod foreign;
pub mod hostile;
pub mod java;
pub mod kafka;
pub mod load;
pub mod log_gate;
pub mod network;
pub mod process;
pub mod verifiable;
pub mod wire;
