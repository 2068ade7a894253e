//! The same requests go to Apache Kafka and to Ottla; the answers, decoded by Kafka's own schemas and masked where they
//! must differ, are equal. Kafka's answers are kept in protocol-tests/differential/recorded, so that a comparison needs
//! no Kafka; differences that we want are listed in protocol-tests/differential/accepted.txt, with a reason each.
//!
//! A case (cases/) is a function that asks; what it asks and gets is the transcript. Who asks and how is in case.rs and
//! wire.rs.

pub mod batch;
pub mod case;
pub mod cases;
pub mod codec;
pub mod compare;
pub mod mask;
pub mod run;
pub mod schema;
pub mod wire;
