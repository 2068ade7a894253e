//! Sockets: accepting within limits, and one task per connection that reads frames, lets `api`
//! answer, and writes the answers in order.

mod connection;
mod free_memory;
mod listener;
mod memory;
mod writer;

pub use listener::{Bound, ConnectionQuota, Limits, SharedLimits};
