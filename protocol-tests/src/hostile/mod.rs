//! Requests that are legal and as large as they can be, and what another client sees of them.
//!
//! `requests.rs` writes the requests of any API from Kafka's schemas, `world.rs` makes the state that they name (a
//! topic, a group, many producers), `attack.rs` sends them, `probe.rs` is the other client, `trial.rs` puts all of it
//! together and holds the demands.

pub mod attack;
pub mod probe;
pub mod requests;
pub mod trial;
pub mod world;
