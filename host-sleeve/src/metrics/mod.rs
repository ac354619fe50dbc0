//! Metrics of one enclave, or of every enclave of a user, in Prometheus' text format, over HTTP.
//!
//! Its law: it only reports, and each scrape reports what is so at that moment. What an enclave says becomes numbers and
//! escaped labels; a client that asks for anything else is refused. The bounds of clients are in [`http`].

mod http;
mod text;

use std::time::Duration;

use cloister_net::Listener;
use cloister_wire::causes;
use cloister_wire::control::{self, Reply, Stats};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time;

use crate::client::Ask;
use crate::client::usage;
use crate::error::{Error, Result};
use crate::state::{Record, Root};

use http::Text;
use text::Enclave;

/// Prometheus' text format, in its one version.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long the enclave may take to tell its numbers; without them the rest is served.
const STATS_LIMIT: Duration = Duration::from_secs(3);

/// Where a scrape finds what it tells.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// In the sleeve of one enclave.
    One {
        /// The enclave's record, as it is now.
        record: watch::Receiver<Record>,
        /// Requests to the enclave.
        asks: mpsc::Sender<Ask>,
    },
    /// In the folder of all enclaves, whose sleeves are asked.
    Every(Root),
}

/// Serves scrapers until it is dropped.
pub(crate) async fn serve(listener: Listener, source: Source) {
    http::serve(&listener, move |request| answer(wanted(&request), source.clone())).await;
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Metrics,
    /// There is nothing else.
    Nothing,
    /// Nothing here can be changed.
    Change,
}

fn wanted(request: &Request<Incoming>) -> Wanted {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics" | "/") => Wanted::Metrics,
        (_, "/metrics" | "/") => Wanted::Change,
        _ => Wanted::Nothing,
    }
}

async fn answer(wanted: Wanted, source: Source) -> Response<Text> {
    let (status, text) = match wanted {
        Wanted::Metrics => match source.read().await {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", causes::line(&error))),
        },
        Wanted::Nothing => (StatusCode::NOT_FOUND, "the metrics are at /metrics\n".to_owned()),
        Wanted::Change => (StatusCode::METHOD_NOT_ALLOWED, "the metrics can be read with GET\n".to_owned()),
    };
    let mut response = Response::new(Text::from(text));
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
            Self::One { record, asks } => {
                let now = stats(&asks).await;
                let record = record.borrow().clone();
                Ok(text::render(&[Enclave { alive: true, record, now }]))
            }
            Self::Every(root) => match tokio::task::spawn_blocking(move || every(&root)).await {
                Ok(text) => text,
                Err(error) => Err(Error::internal("a part of host-sleeve broke off").because(error)),
            },
        }
    }
}

/// Every enclave of the user, ended ones too: what has ended is news as well. A record that cannot be read is left out, as
/// there is nothing to tell of it; `ps` shows it.
fn every(root: &Root) -> Result<String> {
    let seen: Vec<_> = root.list()?.into_iter().filter_map(|(_, seen)| seen.ok()).collect();
    let now = usage::ask_all(root, &seen.iter().collect::<Vec<_>>());
    let all: Vec<Enclave> = seen
        .into_iter()
        .zip(now)
        .map(|(seen, now)| Enclave { alive: seen.alive, record: seen.record, now })
        .collect();
    Ok(text::render(&all))
}

/// What the enclave counts now; nothing if it does not say.
async fn stats(asks: &mpsc::Sender<Ask>) -> Option<Stats> {
    let (answer, reply) = oneshot::channel();
    let ask = Ask { request: control::Request::Stats, answer: Some(answer) };
    let asked = async {
        asks.send(ask).await.ok()?;
        reply.await.ok()
    };
    match time::timeout(STATS_LIMIT, asked).await {
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
        let (asks, _) = mpsc::channel(1);
        let server = tokio::spawn(serve(listener, Source::One { record, asks }));
        client.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        server.abort();
        text
    }

    #[tokio::test]
    async fn metrics_are_served_where_prometheus_looks() {
        let answer = scrape("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
        assert!(answer.contains("cloister_enclave_info{enclave=\"web\""), "{answer}");
    }

    #[tokio::test]
    async fn whether_there_are_metrics_can_be_asked_without_reading_them() {
        let answer = scrape("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let posted = scrape("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n").await;
        assert!(posted.starts_with("HTTP/1.1 405 ") && posted.contains("allow: GET, HEAD\r\n"), "{posted}");
        assert!(scrape("GET /etc/passwd HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 404 "));
    }

    #[test]
    fn a_user_without_enclaves_has_no_metrics() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(every(&Root::at(&dir.path().join("run")).unwrap()).unwrap(), "");
    }
}
