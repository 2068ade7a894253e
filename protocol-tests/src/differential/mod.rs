//! Sends the same requests to Apache Kafka and to Ottla and compares the answers, decoded by Kafka's own schemas and
//! masked where they must differ. Kafka's answers are stored in protocol-tests/differential/recorded, so that a
//! comparison needs no Kafka; protocol-tests/differential/accepted.txt lists the wanted differences with a reason for
//! each.
//!
//! A case (cases/) is a function that sends requests; its transcript holds the requests and the answers. case.rs and
//! wire.rs send them.

pub mod batch;
pub mod case;
pub mod cases;
pub mod codec;
pub mod compare;
pub mod mask;
pub mod run;
pub mod schema;
pub mod wire;
