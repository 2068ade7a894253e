//! The pages and their paths. If the status is not 200, the page gives the reason in one line.

use std::sync::{Arc, OnceLock};

use hyper::StatusCode;

use super::{health::Health, scrape};
use crate::{api::Parts, metrics};

const TEXT: &str = "text/plain; charset=utf-8";
const STARTING: &str = "the broker is starting";

/// The pages. Until the broker has started they only report that it is starting.
#[derive(Default)]
pub(super) struct Pages {
    parts: OnceLock<Arc<Parts>>,
}

/// One response.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) text: String,
}

impl Page {
    /// A page with one line.
    pub(super) fn line(status: StatusCode, line: &str) -> Page {
        Page { status, content_type: TEXT, text: format!("{line}\n") }
    }

    fn verdict(well: &str, fault: Option<&str>) -> Page {
        match fault {
            None => Page::line(StatusCode::OK, well),
            Some(fault) => Page::line(StatusCode::SERVICE_UNAVAILABLE, fault),
        }
    }
}

impl Pages {
    pub(super) fn set_started(&self, parts: &Arc<Parts>) {
        // A console belongs to one broker, which starts once.
        let _ = self.parts.set(parts.clone());
    }

    pub(super) async fn get(&self, path: &str) -> Page {
        let parts = self.parts.get();
        match (path, parts) {
            ("/metrics", Some(parts)) => metrics(parts).await,
            ("/health", Some(parts)) => Page::verdict("healthy", Health::of(parts).failure()),
            ("/ready", Some(parts)) => Page::verdict("ready", Health::of(parts).not_ready_reason()),
            // A recovery may take long. A supervisor must not restart the broker because of it.
            ("/health", None) => Page::line(StatusCode::OK, STARTING),
            ("/metrics" | "/ready", None) => Page::line(StatusCode::SERVICE_UNAVAILABLE, STARTING),
            _ => Page::line(StatusCode::NOT_FOUND, "The pages are /metrics, /health and /ready."),
        }
    }
}

async fn metrics(parts: &Arc<Parts>) -> Page {
    let tasks = parts.env.tasks.clone();
    let parts = parts.clone();
    // There is a line for each partition, and each needs a lock, so this may take long.
    let text = tasks.blocking("scrape", move || scrape::page(&parts).into_text()).await;
    Page { status: StatusCode::OK, content_type: metrics::Page::CONTENT_TYPE, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_starting_broker_is_healthy_and_not_ready() {
        let pages = Pages::default();
        for (path, status) in [("/health", 200), ("/ready", 503), ("/metrics", 503), ("/", 404), ("/metricsx", 404)] {
            let page = pages.get(path).await;
            assert_eq!(page.status, status, "{path}");
            assert_eq!(page.text.contains(STARTING), status != 404, "{path}");
        }
    }
}
