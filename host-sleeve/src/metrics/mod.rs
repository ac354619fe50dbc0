//! Metrics of one enclave, or of every enclave of a user, in Prometheus' text format, over HTTP.
//!
//! Its law: it only tells, and each scrape tells what is so at that moment. What an enclave says becomes numbers and escaped labels; a client that asks for anything else is
//! refused, one that says nothing is cut off.

mod text;

use std::sync::Arc;
use std::time::Duration;

use cloister_wire::control::{Reply, Request, Stats};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time;

use crate::error::{Error, Result};
use crate::sleeve::control::Ask;
use crate::state::{Record, Root};
use crate::usage;

use text::Enclave;

/// Scrapers at once: one is usual.
const MAX_CLIENTS: usize = 8;

/// The longest request head in bytes; a scraper sends some hundred.
const MAX_HEAD: usize = 8192;

/// How long a client may take to ask and to read.
const LIMIT: Duration = Duration::from_secs(10);

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
pub(crate) async fn serve(listener: TcpListener, source: Source) {
    let slots = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let source = source.clone();
                tokio::spawn(async move {
                    // A client that breaks off comes again.
                    drop(time::timeout(LIMIT, answer(stream, source)).await);
                    drop(slot);
                });
            }
            // Out of descriptors: some come back when a connection ends.
            Err(_) => time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(mut stream: TcpStream, source: Source) -> std::io::Result<()> {
    let head = read_head(&mut stream).await?;
    let (status, body) = match wanted(&head) {
        Wanted::Metrics => match source.read().await {
            Ok(text) => ("200 OK", text),
            Err(error) => ("503 Service Unavailable", format!("{error}\n")),
        },
        Wanted::Nothing => ("404 Not Found", "the metrics are at /metrics\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
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

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Metrics,
    Nothing,
}

fn wanted(head: &[u8]) -> Wanted {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    match (words.next(), words.next()) {
        (Some(b"GET"), Some(b"/metrics" | b"/")) => Wanted::Metrics,
        _ => Wanted::Nothing,
    }
}

async fn read_head(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = stream.read(&mut piece).await?;
        if count == 0 || head.len() > MAX_HEAD {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        head.extend_from_slice(piece.get(..count).unwrap_or_default());
    }
    Ok(head)
}

/// What the enclave counts now; nothing if it does not say.
async fn stats(asks: &mpsc::Sender<Ask>) -> Option<Stats> {
    let (answer, reply) = oneshot::channel();
    let ask = Ask { request: Request::Stats, answer: Some(answer) };
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
    use super::*;
    use crate::state::record::tests::launched;

    async fn scrape(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
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
        assert!(answer.contains("cloister_enclave_info{enclave=\"web\""), "{answer}");
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        assert!(scrape("POST /metrics HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 404"));
        assert!(scrape("GET /etc/passwd HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn a_user_without_enclaves_has_no_metrics() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(every(&Root::at(&dir.path().join("run")).unwrap()).unwrap(), "");
    }

    #[test]
    fn a_request_is_its_first_line() {
        assert_eq!(wanted(b"GET /metrics HTTP/1.1\r\nX: GET /\r\n\r\n"), Wanted::Metrics);
        assert_eq!(wanted(b""), Wanted::Nothing);
        assert_eq!(wanted(b"\xff\xff"), Wanted::Nothing);
    }
}
