//! Sockets: accepting within limits, and one task per connection that reads frames, lets `api`
//! answer, and writes the answers in order. Beside them, the page of metrics over HTTP.

mod connection;
mod free_memory;
mod http;
mod listener;
mod memory;
mod scrape;
mod writer;

pub use listener::{Bound, ConnectionQuota, Limits, SharedLimits};
