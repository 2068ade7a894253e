//! Sends the largest legal requests and measures their effect on another client.
//!
//! `requests.rs` builds the requests of any API from Kafka's schemas, `world.rs` creates the state that they name (a
//! topic, a group, many producers), `attack.rs` sends them, `probe.rs` is the other client, `trial.rs` runs all of it
//! and checks the limits.

pub mod attack;
pub mod probe;
pub mod requests;
pub mod trial;
pub mod world;
