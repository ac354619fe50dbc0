//! Answers every HTTP request with a greeting and logs the requests on stdout.
//!
//! Invariant: a slow or broken client has a bounded cost and never affects another client's response. Restarts, limits and
//! networking are left to its environment.

use std::convert::Infallible;
use std::env;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The default port, if `PORT` is not set.
const PORT: u16 = 8080;

/// Clients served at once: each has a thread.
const MAX_CLIENTS: usize = 64;

/// The maximum size of a request's head in bytes, as in common servers.
const MAX_HEAD: usize = 8 * 1024;

/// How long a client may take to send or receive data.
const TIMEOUT: Duration = Duration::from_secs(10);

static CLIENTS: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    match serve() {
        Ok(never) => match never {},
        Err(error) => {
            log(&format!("cannot serve: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Serves until listening itself fails.
fn serve() -> io::Result<Infallible> {
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(PORT);
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    let start = Instant::now();
    log(&format!("listening on port {port}"));
    loop {
        let (stream, client) = listener.accept()?;
        if CLIENTS.fetch_add(1, Ordering::Relaxed) >= MAX_CLIENTS {
            CLIENTS.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        thread::spawn(move || {
            if let Err(error) = answer(stream, client, start) {
                log(&format!("{client}: {error}"));
            }
            CLIENTS.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Reads one request and answers it.
fn answer(mut stream: TcpStream, client: SocketAddr, start: Instant) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let head = read_head(&mut stream)?;
    if head.is_empty() {
        return Ok(());
    }
    let request = first_line(&head);
    log(&format!("{client} {request}"));
    let (status, body) = match request.split(' ').next() {
        Some("GET" | "HEAD") => ("200 OK", greeting(start)),
        _ => ("405 Method Not Allowed", "only GET and HEAD\n".to_owned()),
    };
    let sent = if request.starts_with("HEAD ") { "" } else { &body };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n")?;
    write!(stream, "Connection: close\r\n\r\n{sent}")
}

/// Everything up to the empty line; empty for a client that only connects, such as a TCP check.
fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut piece)?;
        if count == 0 && head.is_empty() {
            return Ok(head);
        }
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the client closed before the end of its request",
            ));
        }
        if head.len() + count > MAX_HEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the request head is larger than 8 KiB"));
        }
        head.extend_from_slice(piece.get(..count).unwrap_or(&[]));
    }
    Ok(head)
}

/// The request line, safe for a log: characters that are not printable become dots.
fn first_line(head: &[u8]) -> String {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or(&[]);
    line.iter().map(|byte| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' }).collect()
}

fn greeting(start: Instant) -> String {
    let greeting = env::var("GREETING").unwrap_or_else(|_| "Hello.".to_owned());
    format!("{greeting}\nUp for {} s.\n", start.elapsed().as_secs())
}

/// Prints one line on stdout. Serving continues even if nothing reads it.
fn log(line: &str) {
    writeln!(io::stdout(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response_to(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        let (stream, address) = listener.accept().unwrap();
        answer(stream, address, Instant::now()).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_log_line_cannot_be_forged() {
        assert_eq!(first_line(b"GET /\x1b[2J\nfake HTTP/1.1\r\nHost: x\r\n\r\n"), "GET /.[2J.fake HTTP/1.1");
    }

    #[test]
    fn a_client_gets_a_response() {
        let answer = response_to("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("Hello."), "{answer}");
        assert!(response_to("HEAD / HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
        assert!(response_to("POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    }
}
