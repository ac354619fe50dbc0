//! HTTP/1 for small servers, on both sides of the boundary: hyper on [`cloister_net`] streams, with one response per connection.
//!
//! Invariant: the size of a request's head is bounded, that of its body by the caller ([`body`]); nothing after the request is read.
//! [`serve`] also limits the time and the number of clients; for [`converse`] that is the caller's task. The responses come from the
//! caller.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cloister_net::{Gate, Listener, Stream};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::time;

/// Maximum number of simultaneous scrapers; one is usual. Further ones wait.
const MAX_CLIENTS: usize = 8;

/// Maximum length of a request head in bytes; scrapers and clients of the attestor send several hundred. It is the smallest
/// limit that hyper accepts.
const MAX_HEAD: usize = 8192;

/// Maximum number of header fields in a request; a scraper sends ten.
const MAX_FIELDS: usize = 64;

/// Time limit for a whole connection: sending the request and reading the response.
const LIMIT: Duration = Duration::from_secs(10);

/// Size of a read in bytes: a scraper's whole request; the longest body that is accepted takes eight reads.
const PIECE: usize = 1024;

/// A response body.
pub struct Content(Inner);

enum Inner {
    /// In memory.
    Whole(Option<Bytes>),
    /// So many bytes in pieces, each of which is made when the client has read the one before.
    Pieces(u64, Box<dyn Iterator<Item = Vec<u8>> + Send>),
}

impl Content {
    /// A body that is made while it is sent: `pieces` have `length` bytes together.
    pub fn pieces(length: u64, pieces: impl Iterator<Item = Vec<u8>> + Send + 'static) -> Self {
        Self(Inner::Pieces(length, Box::new(pieces)))
    }
}

/// Serves clients with the responses of `answer`, until it is dropped.
pub async fn serve<A, F>(listener: &Listener, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Content>> + Send,
{
    let gate = Gate::new(MAX_CLIENTS);
    loop {
        let pass = gate.enter().await;
        let (stream, _) = gate.next(listener).await;
        let answer = answer.clone();
        tokio::spawn(async move {
            // A client that disconnects early or exceeds the limit will retry: nothing to report.
            drop(time::timeout(LIMIT, converse(stream, answer)).await);
            drop(pass);
        });
    }
}

/// Answers the request of one client. The caller limits the time and the number of clients.
///
/// # Errors
/// If the client disconnects early, or sends no valid request; hyper has answered the latter.
pub async fn converse<A, F>(stream: Stream, answer: A) -> hyper::Result<()>
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Content>>,
{
    let service = service_fn(|request| {
        let answered = answer(request);
        async { Ok::<_, Infallible>(answered.await) }
    });
    http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .serve_connection(Io(stream), service)
        .await
}

/// Why a request's body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than the limit.
    TooLong,
    /// The client disconnected, or its framing is malformed.
    Broken,
}

/// Reads a request's body of at most `limit` bytes.
///
/// # Errors
/// If it is longer, or the client disconnects.
pub async fn body(mut incoming: Incoming, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut bytes = Vec::new();
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await;
        let Some(frame) = frame else { return Ok(bytes) };
        let Ok(piece) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        if piece.len() > limit.saturating_sub(bytes.len()) {
            return Err(BodyError::TooLong);
        }
        bytes.extend_from_slice(&piece);
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Inner::Whole(Some(bytes.into())))
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self(Inner::Whole(Some(text.into())))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut self.0 {
            Inner::Whole(bytes) => bytes.take(),
            Inner::Pieces(left, pieces) => pieces.next().map(|piece| {
                *left = left.saturating_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                Bytes::from(piece)
            }),
        };
        Poll::Ready(piece.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Whole(bytes) => bytes.is_none(),
            Inner::Pieces(left, _) => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.0 {
            Inner::Whole(bytes) => {
                bytes.as_ref().map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Inner::Pieces(left, _) => *left,
        })
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({:?})", self.size_hint().exact())
    }
}

/// A connection, in hyper's I/O interface.
struct Io(Stream);

impl Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut piece = [0; PIECE];
        let size = into.remaining().min(PIECE);
        let count = ready!(self.0.poll_recv(cx, piece.get_mut(..size).unwrap_or_default()))?;
        into.put_slice(piece.get(..count).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_send(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.end_sending())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;

    /// A server that responds with the requested path, and its address.
    struct Server {
        address: std::net::SocketAddr,
        task: JoinHandle<()>,
    }

    impl Server {
        fn start() -> Self {
            let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.tcp_address().unwrap();
            let answer = |request: Request<Incoming>| async move {
                Response::new(Content::from(format!("requested {}", request.uri().path())))
            };
            Self { address, task: tokio::spawn(async move { serve(&listener, answer).await }) }
        }

        async fn client(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        /// Sends `request` and returns everything that is received until the end or a reset.
        async fn request(&self, request: &str) -> String {
            let mut client = self.client().await;
            client.write_all(request.as_bytes()).await.unwrap();
            read(&mut client).await
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    async fn read(client: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        while let Ok(1..) = client.read_buf(&mut bytes).await {}
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test]
    async fn a_request_is_answered_and_the_connection_ends() {
        let server = Server::start();
        let answer = server.request("GET /x HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n").await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nrequested /x"),
            "{answer}"
        );
        assert!(answer.to_ascii_lowercase().contains("connection: close\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_head_request_is_answered_with_the_length_and_no_body() {
        let answer = Server::start().request("HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.to_ascii_lowercase().contains("content-length: 12\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_request_in_pieces_is_one_request() {
        let server = Server::start();
        let mut client = server.client().await;
        for piece in ["GE", "T /x HTTP/1.1\r", "\nHost: x\r\n", "\r\n"] {
            client.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert!(read(&mut client).await.ends_with("requested /x"));
    }

    #[tokio::test]
    async fn a_request_head_that_is_too_long_is_refused() {
        let server = Server::start();
        let long = "x".repeat(9000);
        let answer = server.request(&format!("GET /x HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let many = "X: y\r\n".repeat(65);
        let answer = server.request(&format!("GET /x HTTP/1.1\r\n{many}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }

    #[tokio::test]
    async fn a_malformed_request_is_refused() {
        let answer = Server::start().request("what is this\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_or_slow_client_is_disconnected() {
        let server = Server::start();
        let (mut idle, mut slow) = (server.client().await, server.client().await);
        slow.write_all(b"GET /x HTTP/1.1\r\nX: ").await.unwrap();
        let begin = Instant::now();
        let slowly = async {
            while slow.write_all(b"y").await.is_ok() && begin.elapsed() < LIMIT * 3 {
                time::sleep(Duration::from_secs(1)).await;
            }
            begin.elapsed()
        };
        let (received, slowly) = tokio::join!(read(&mut idle), slowly);
        assert_eq!(received, "");
        assert!(slowly < LIMIT * 2, "disconnected after {slowly:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_over_the_limit_waits_and_is_then_answered() {
        let server = Server::start();
        let mut idle = Vec::new();
        for _ in 0..MAX_CLIENTS {
            idle.push(server.client().await);
        }
        let begin = Instant::now();
        let answer = server.request("GET /x HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.ends_with("requested /x"), "{answer}");
        // The idle clients occupied all places until their time limit passed.
        assert!(begin.elapsed() >= LIMIT, "{:?}", begin.elapsed());
    }
}
