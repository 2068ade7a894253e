//! As much of HTTP/1.1 as a scraper needs: one GET or HEAD, one answer, then the connection ends.
//!
//! Bounded: requests by size, connections by number, both by time. What is answered is `scrape.rs`'s.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
};

use super::scrape;
use crate::{
    api::Parts,
    env::net::{Listener, Stream},
    metrics::Page,
};

const MOST_CONNECTIONS: usize = 16;
const MOST_HEAD_BYTES: usize = 8 << 10;
/// For a request and its answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Answers scrapers until the tasks of the network are told to stop.
pub(super) async fn serve(listener: Box<dyn Listener>, parts: Arc<Parts>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        // The system's backlog holds those that come meanwhile.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let clock = parts.env.clock.clone();
        match listener.accept().await {
            Ok((mut stream, client)) => {
                let answering = parts.clone();
                parts.network.spawn_until_stopped("scrape", async move {
                    let _place = place;
                    let deadline = clock.sleep_until(clock.monotonic() + DEADLINE);
                    tokio::select! {
                        done = answer(&mut stream, &answering) => {
                            if let Err(error) = done {
                                tracing::debug!(%client, %error, "a scraper was lost");
                            }
                        }
                        () = deadline => tracing::debug!(%client, "a scraper was too slow"),
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, mostly: the connections that end will free some.
                tracing::error!(%error, "cannot accept a connection for metrics");
                clock.sleep_until(clock.monotonic() + Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(stream: &mut Box<dyn Stream>, parts: &Arc<Parts>) -> io::Result<()> {
    let Some(head) = read_head(stream).await? else { return Ok(()) };
    let (status, content_type, body) = match request(&head) {
        Request::Metrics => {
            let parts = parts.clone();
            let tasks = parts.env.tasks.clone();
            // Many partitions are many lines, and each takes a look under its lock.
            let page = tasks.blocking("scrape", move || scrape::page(&parts).into_text()).await;
            ("200 OK", Page::CONTENT_TYPE, page)
        }
        Request::Elsewhere => ("404 Not Found", "text/plain", "Metrics are at /metrics.\n".to_owned()),
        Request::OtherMethod => ("405 Method Not Allowed\r\nAllow: GET, HEAD", "text/plain", String::new()),
        Request::None => ("400 Bad Request", "text/plain", String::new()),
    };
    let mut text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if !head.starts_with(b"HEAD ") {
        text.push_str(&body);
    }
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// Reads up to the empty line; `None` where the client ends first, or says too much.
async fn read_head(stream: &mut Box<dyn Stream>) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::with_capacity(1024);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= MOST_HEAD_BYTES || stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    Metrics,
    Elsewhere,
    OtherMethod,
    None,
}

fn request(head: &[u8]) -> Request {
    let line = head.split(|byte| *byte == b'\r').next().and_then(|line| std::str::from_utf8(line).ok());
    let mut words = line.unwrap_or_default().split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some(method), Some(path), Some("HTTP/1.1" | "HTTP/1.0")) => match (method, path.split('?').next()) {
            ("GET" | "HEAD", Some("/metrics")) => Request::Metrics,
            ("GET" | "HEAD", _) => Request::Elsewhere,
            _ => Request::OtherMethod,
        },
        _ => Request::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_by_its_first_line() {
        for (line, wanted) in [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Request::Metrics),
            ("HEAD /metrics?x=1 HTTP/1.0\r\n\r\n", Request::Metrics),
            ("GET / HTTP/1.1\r\n\r\n", Request::Elsewhere),
            ("GET /metricsx HTTP/1.1\r\n\r\n", Request::Elsewhere),
            ("POST /metrics HTTP/1.1\r\n\r\n", Request::OtherMethod),
            ("GET /metrics HTTP/2\r\n\r\n", Request::None),
            ("GET /metrics\r\n\r\n", Request::None),
            ("\r\n\r\n", Request::None),
            ("\u{0}\u{1}\r\n\r\n", Request::None),
        ] {
            assert_eq!(request(line.as_bytes()), wanted, "{line:?}");
        }
        assert_eq!(request(&[0xff, 0xfe, b'\r', b'\n']), Request::None);
    }
}
