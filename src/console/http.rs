//! HTTP/1.1 for the console: one GET or HEAD per connection, then the connection ends. hyper reads and writes the
//! messages.
//!
//! Limits the number of connections, the size of a request's head, and the time of a connection from its start to its
//! last byte. A request with a body is refused before the body is read.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;

use super::pages::{Page, Pages};
use crate::env::{
    Clock, Tasks,
    net::{Listener, Stream},
};

const MAX_CONNECTIONS: usize = 16;
/// The minimum that hyper accepts. The response to a longer head is 431.
const MAX_HEAD_BYTES: usize = 8 << 10;
const MAX_HEADERS: usize = 64;
/// The time limit for request and response. The connection of a slower client is closed.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// The pause after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

pub(super) struct Server {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tasks: Tasks,
    pub(super) pages: Arc<Pages>,
}

impl Server {
    /// Accepts until it is dropped.
    pub(super) async fn run(self, listener: Box<dyn Listener>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // Further clients wait in the system's backlog.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, client)) => {
                    let (pages, clock) = (self.pages.clone(), self.clock.clone());
                    self.tasks.spawn_until_stopped("console connection", async move {
                        let _place = place;
                        if let Err(reason) = serve(stream, pages, &*clock).await {
                            tracing::debug!(%client, reason, "closed a connection of the console");
                        }
                    });
                }
                Err(error) => {
                    // Usually no file descriptors are left. Connections that end will free some.
                    tracing::error!(%error, "cannot accept a connection of the console");
                    self.clock.sleep_until(self.clock.monotonic() + ACCEPT_RETRY).await;
                }
            }
        }
    }
}

/// Serves one connection until its end. The error is the reason why it was closed early.
async fn serve(stream: Box<dyn Stream>, pages: Arc<Pages>, clock: &dyn Clock) -> Result<(), String> {
    let service = service_fn(|request| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(respond(&request, &pages).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .auto_date_header(false)
        // CONNECTION_LIMIT below covers it, with the broker's clock.
        .header_read_timeout(None)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        served = connection => served.map_err(|error| error.to_string()),
        () = clock.sleep_until(clock.monotonic() + CONNECTION_LIMIT) => Err("it took too long".to_owned()),
    }
}

async fn respond(request: &Request<Incoming>, pages: &Pages) -> Response<Text> {
    let page = match *request.method() {
        Method::GET | Method::HEAD if request.body().is_end_stream() => pages.get(request.uri().path()).await,
        Method::GET | Method::HEAD => Page::line(StatusCode::PAYLOAD_TOO_LARGE, "A request must not have a body."),
        _ => Page::line(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are allowed."),
    };
    let mut response = Response::new(Text(Some(page.text.into())));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    if page.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// The whole body of a response.
struct Text(Option<Bytes>);

impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, Bytes::len) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::{io, net::SocketAddr};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::{env::net::Socket, sim::SimClock};

    impl Stream for DuplexStream {
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(([127, 0, 0, 1], 1).into())
        }

        fn socket(&self) -> Option<Socket<'_>> {
            None
        }

        fn is_closed_by_peer(&self) -> bool {
            false
        }
    }

    /// One connection to a console whose broker is starting.
    async fn connect(clock: &SimClock) -> (DuplexStream, tokio::task::JoinHandle<Result<(), String>>) {
        let (client, server) = duplex(1 << 20);
        let clock = clock.clone();
        let serving = tokio::spawn(async move { serve(Box::new(server), Arc::default(), &clock).await });
        // The server has started to wait, so that the clock can be advanced.
        tokio::task::yield_now().await;
        (client, serving)
    }

    async fn ask(request: &[u8]) -> String {
        let (mut client, _) = connect(&SimClock::new(0)).await;
        client.write_all(request).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// The status line of the response.
    async fn status(request: &str) -> String {
        ask(request.as_bytes()).await.lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn a_request_is_answered_once_and_its_connection_ends() {
        let answer = ask(b"GET /health?x=1 HTTP/1.1\r\nHost: a\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("Connection: close") && head.contains("Content-Type: text/plain"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
        assert_eq!(body, "the broker is starting\n");
        let head = ask(b"HEAD /health HTTP/1.1\r\n\r\n").await;
        assert!(head.contains(&format!("Content-Length: {}", body.len())) && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[tokio::test]
    async fn what_is_no_get_of_a_page_is_refused() {
        for (request, wanted) in [
            ("GET /ready HTTP/1.0\r\n\r\n", "HTTP/1.0 503 Service Unavailable"),
            ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
            ("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
            ("GET /metrics\r\n\r\n", "HTTP/1.1 400 Bad Request"),
            ("\u{16}\u{3}\u{1}\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ] {
            assert_eq!(status(request).await, wanted, "{request:?}");
        }
    }

    #[tokio::test]
    async fn a_request_with_a_body_is_refused_before_the_body_comes() {
        for body in ["Content-Length: 1", "Content-Length: 1000000000", "Transfer-Encoding: chunked"] {
            let request = format!("GET /health HTTP/1.1\r\nExpect: 100-continue\r\n{body}\r\n\r\n");
            assert_eq!(status(&request).await, "HTTP/1.1 413 Payload Too Large");
        }
    }

    #[tokio::test]
    async fn a_head_is_bounded_in_bytes_and_in_headers() {
        let long = format!("GET /health HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(MAX_HEAD_BYTES));
        let many = format!("GET /health HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_HEADERS + 1));
        for request in [&long, &many, &"x".repeat(2 * MAX_HEAD_BYTES)] {
            let status = status(request).await;
            assert!(status == "HTTP/1.1 431 Request Header Fields Too Large" || status.contains(" 400 "), "{status}");
        }
        let fits = format!("GET /health HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_HEADERS));
        assert_eq!(status(&fits).await, "HTTP/1.1 200 OK");
    }

    #[tokio::test]
    async fn a_slow_client_is_cut_in_the_middle_of_its_request() {
        let clock = SimClock::new(0);
        let (mut client, serving) = connect(&clock).await;
        for _ in 0..9 {
            client.write_all(b"G").await.unwrap();
            clock.advance(CONNECTION_LIMIT / 10);
            tokio::task::yield_now().await;
            assert!(!serving.is_finished());
        }
        clock.advance(CONNECTION_LIMIT / 10);
        assert_eq!(serving.await.unwrap(), Err("it took too long".to_owned()));
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut_in_the_middle_of_its_answer() {
        let clock = SimClock::new(0);
        let (mut client, server) = duplex(64);
        let serving = tokio::spawn({
            let clock = clock.clone();
            async move { serve(Box::new(server), Arc::default(), &clock).await }
        });
        client.write_all(b"GET /health HTTP/1.1\r\n\r\n").await.unwrap();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!serving.is_finished(), "the response is longer than the pipe's buffer");
        clock.advance(CONNECTION_LIMIT);
        assert!(serving.await.unwrap().is_err());
    }
}
