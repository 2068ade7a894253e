//! Prometheus' text format, version 0.0.4. Pure.

use std::fmt::{Display, Write};

use super::table::Metric;

/// The page that is being written.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// The HTTP content type of the page.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Begins a metric, to which its samples are added.
    pub fn metric(&mut self, metric: &'static Metric) -> Samples<'_> {
        let Metric { name, doc, kind, .. } = metric;
        // Writing to a string cannot fail; the same holds below.
        let _ = write!(self.0, "# HELP {name} {doc}\n# TYPE {name} {}\n", kind.as_str());
        Samples { page: &mut self.0, metric }
    }

    /// The whole text.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// The samples of one metric.
pub struct Samples<'a> {
    page: &'a mut String,
    metric: &'static Metric,
}

impl Samples<'_> {
    /// Adds the only sample of a metric, or the one without labels.
    pub fn total(&mut self, value: impl Display) {
        self.labelled(&[], value);
    }

    /// Adds a sample with the values of the metric's labels, in their order.
    pub fn labelled(&mut self, labels: &[&dyn Display], value: impl Display) {
        debug_assert!(labels.is_empty() || labels.len() == self.metric.labels.len(), "labels of {}", self.metric.name);
        self.page.push_str(self.metric.name);
        for (at, (name, label)) in self.metric.labels.iter().zip(labels).enumerate() {
            let _ = write!(self.page, "{}{name}=\"", if at == 0 { '{' } else { ',' });
            let _ = write!(Escaped(self.page), "{label}");
            self.page.push('"');
        }
        let _ = writeln!(self.page, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

/// Writes text with the escapes that are needed within quotes.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{METRICS, MetricId};

    fn metric(id: MetricId) -> &'static Metric {
        METRICS.iter().find(|metric| metric.id == id).unwrap()
    }

    #[test]
    fn samples_stand_under_what_they_mean_and_labels_are_escaped() {
        let mut page = Page::default();
        page.metric(metric(MetricId::LeaderCount)).total(3);
        let mut samples = page.metric(metric(MetricId::LogSize));
        samples.labelled(&[&"t", &0], 17u64);
        samples.labelled(&[&"a\"b\\c\nd", &12], 0.5);
        assert_eq!(
            page.into_text(),
            "# HELP kafka_server_replicamanager_leadercount Partitions that this broker leads.\n\
             # TYPE kafka_server_replicamanager_leadercount gauge\n\
             kafka_server_replicamanager_leadercount 3\n\
             # HELP kafka_log_log_size Bytes of a partition's segments.\n\
             # TYPE kafka_log_log_size gauge\n\
             kafka_log_log_size{topic=\"t\",partition=\"0\"} 17\n\
             kafka_log_log_size{topic=\"a\\\"b\\\\c\\nd\",partition=\"12\"} 0.5\n"
        );
    }
}
