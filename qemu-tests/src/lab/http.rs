//! A minimal HTTP request.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::scenario::Failure;

/// An HTTP response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body; bytes that are not UTF-8 are replaced.
    pub body: String,
    /// The time from connect to the last byte.
    pub took: Duration,
}

/// `GET path` from a port on loopback. The server closes the connection.
pub(crate) fn get(port: u16, path: &str, limit: Duration) -> Result<Answer, Failure> {
    let started = Instant::now();
    let mut bytes = Vec::new();
    exchange(port, path, limit, &mut bytes).map_err(|error| {
        Failure::failed(format_args!(
            "GET {path} on port {port}: {error}, after {:?} and {} bytes of the response",
            started.elapsed(),
            bytes.len()
        ))
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| {
        Failure::failed(format_args!(
            "no HTTP response on port {port}: {:?}",
            text.get(..200).unwrap_or(&text)
        ))
    })?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| Failure::failed(format_args!("no HTTP status in {head:?}")))?;
    Ok(Answer { status, body: body.to_owned(), took: started.elapsed() })
}

fn exchange(port: u16, path: &str, limit: Duration, answer: &mut Vec<u8>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    stream.read_to_end(answer).map(drop)
}
