//! What the broker counts and tells: the table of metrics, the counters behind it, Prometheus' text.
//!
//! A row of `table.rs` says everything about a metric: name, kind, labels, meaning. What is counted while the broker
//! works is in `counters.rs`; everything else is looked up when somebody asks, by whoever serves the page
//! (`network/scrape.rs`), with one arm for each row.

mod counters;
mod table;
mod text;

pub use counters::{Counter, Limit, ListenerCounters, Metrics, RequestCounters, TopicCounters};
pub use table::{Kind, METRICS, Metric, MetricId};
pub use text::{Page, Samples};
