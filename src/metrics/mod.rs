//! The metrics of the broker: their table, the counters, and Prometheus' text format.
//!
//! A row of `table.rs` defines a metric: name, kind, labels, meaning. `counters.rs` has the values that are counted
//! while the broker runs. All other values are computed when the page is requested, in `console/scrape.rs`, which has
//! one arm for each row.

mod counters;
mod table;
mod text;

pub use counters::{Counter, Limit, ListenerCounters, Metrics, RequestCounters, TopicCounters};
pub use table::{Kind, METRICS, Metric, MetricId};
pub use text::{Page, Samples};
