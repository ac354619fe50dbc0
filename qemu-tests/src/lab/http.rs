//! One HTTP request, as plain as it can be.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::story::Failure;

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status line's number.
    pub status: u16,
    /// Everything after the head; bytes that are not UTF-8 are replaced.
    pub body: String,
    /// From connect to the last byte.
    pub took: Duration,
}

/// `GET path` from a port on loopback, the connection closed by the server.
pub(crate) fn get(port: u16, path: &str, limit: Duration) -> Result<Answer, Failure> {
    let started = Instant::now();
    let mut bytes = Vec::new();
    exchange(port, path, limit, &mut bytes).map_err(|error| {
        Failure::broken(format_args!(
            "GET {path} on port {port}: {error}, {:?} after the start and {} bytes of an answer",
            started.elapsed(),
            bytes.len()
        ))
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| {
        Failure::broken(format_args!("no HTTP answer on port {port}: {:?}", text.get(..200).unwrap_or(&text)))
    })?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| Failure::broken(format_args!("no HTTP status in {head:?}")))?;
    Ok(Answer { status, body: body.to_owned(), took: started.elapsed() })
}

fn exchange(port: u16, path: &str, limit: Duration, answer: &mut Vec<u8>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    stream.read_to_end(answer).map(drop)
}
