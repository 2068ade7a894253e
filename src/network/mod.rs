//! Sockets: the accept loop with its limits, and one task per connection that reads frames, passes requests to `api`,
//! and writes the responses in order.

mod connection;
mod listener;
mod memory;
mod writer;

pub use listener::{Bound, ConnectionQuota, Limits, SharedLimits};
