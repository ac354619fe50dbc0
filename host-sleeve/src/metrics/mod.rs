//! Metrics of one enclave, or of all enclaves of a user, in Prometheus' text format over HTTP.
//!
//! Invariant: read-only; each scrape reports the current values. Data from an enclave becomes numbers and escaped labels; any
//! other request is refused. The limits on clients are in [`cloister_http`].

mod text;

use std::time::Duration;

use cloister_http::Content;
use cloister_net::Listener;
use cloister_wire::causes;
use cloister_wire::control::{self, Reply, Stats};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time;

use crate::client::EnclaveRequest;
use crate::client::usage;
use crate::error::{Error, Result};
use crate::state::{Record, Root};

use text::Enclave;

/// The content type of Prometheus' text format.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Time limit for the enclave's reply with its counters; without it the other metrics are served.
const STATS_LIMIT: Duration = Duration::from_secs(3);

/// The source of a scrape's data.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// The sleeve of one enclave.
    One {
        /// The enclave's current record.
        record: watch::Receiver<Record>,
        /// Requests to the enclave.
        requests: mpsc::Sender<EnclaveRequest>,
    },
    /// The state directory with all enclaves, whose sleeves are queried.
    All(Root),
}

/// Serves scrapers until it is dropped.
pub(crate) async fn serve(listener: Listener, source: Source) {
    cloister_http::serve(&listener, move |request| answer(wanted(&request), source.clone())).await;
}

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Metrics,
    /// Another path.
    Unknown,
    /// Another method than GET or HEAD.
    Change,
}

fn wanted(request: &Request<Incoming>) -> Wanted {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics" | "/") => Wanted::Metrics,
        (_, "/metrics" | "/") => Wanted::Change,
        _ => Wanted::Unknown,
    }
}

async fn answer(wanted: Wanted, source: Source) -> Response<Content> {
    let (status, text) = match wanted {
        Wanted::Metrics => match source.read().await {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", causes::line(&error))),
        },
        Wanted::Unknown => (StatusCode::NOT_FOUND, "the metrics are at /metrics\n".to_owned()),
        Wanted::Change => (StatusCode::METHOD_NOT_ALLOWED, "the metrics are read-only: use GET\n".to_owned()),
    };
    let mut response = Response::new(Content::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(FORMAT));
    if wanted == Wanted::Change {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

impl Source {
    async fn read(self) -> Result<String> {
        match self {
            Self::One { record, requests } => {
                let now = stats(&requests).await;
                let record = record.borrow().clone();
                Ok(text::render(&[Enclave { alive: true, record, now }]))
            }
            Self::All(root) => match tokio::task::spawn_blocking(move || all(&root)).await {
                Ok(text) => text,
                Err(error) => Err(Error::internal("a task of host-sleeve panicked").because(error)),
            },
        }
    }
}

/// The metrics of all enclaves of the user, including ended ones, so that an end is noticed. An unreadable record is omitted;
/// `ps` shows it.
fn all(root: &Root) -> Result<String> {
    let seen: Vec<_> = root.list()?.into_iter().filter_map(|(_, seen)| seen.ok()).collect();
    let now = usage::query_all(root, &seen.iter().collect::<Vec<_>>());
    let all: Vec<Enclave> = seen
        .into_iter()
        .zip(now)
        .map(|(seen, now)| Enclave { alive: seen.alive, record: seen.record, now })
        .collect();
    Ok(text::render(&all))
}

/// The enclave's current counters, if it replies.
async fn stats(requests: &mpsc::Sender<EnclaveRequest>) -> Option<Stats> {
    let (answer, reply) = oneshot::channel();
    let request = EnclaveRequest { request: control::Request::Stats, answer: Some(answer) };
    let reply = async {
        requests.send(request).await.ok()?;
        reply.await.ok()
    };
    match time::timeout(STATS_LIMIT, reply).await {
        Ok(Some(Reply::Stats(stats))) => Some(stats),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::state::record::tests::launched;

    async fn scrape(request: &str) -> String {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut client = TcpStream::connect(listener.tcp_address().unwrap()).await.unwrap();
        let (_keep, record) = watch::channel(launched("web"));
        let (requests, _) = mpsc::channel(1);
        let server = tokio::spawn(serve(listener, Source::One { record, requests }));
        client.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        server.abort();
        text
    }

    #[tokio::test]
    async fn metrics_are_served_at_prometheus_default_path() {
        let answer = scrape("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
        assert!(answer.contains("cloister_enclave_info{enclave=\"web\""), "{answer}");
    }

    #[tokio::test]
    async fn a_head_request_is_answered_without_a_body() {
        let answer = scrape("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn other_methods_and_paths_are_refused() {
        let posted = scrape("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n").await;
        assert!(posted.starts_with("HTTP/1.1 405 ") && posted.contains("allow: GET, HEAD\r\n"), "{posted}");
        assert!(scrape("GET /etc/passwd HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 404 "));
    }

    #[test]
    fn a_user_without_enclaves_has_no_metrics() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(all(&Root::at(&dir.path().join("run")).unwrap()).unwrap(), "");
    }
}
