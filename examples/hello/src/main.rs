//! Answers every HTTP request with a greeting and says on stdout who asked for what.
//!
//! Its law: a slow or silly client costs a bounded amount and never another client's answer. Everything else, such as
//! restarts, limits and where the bytes go, is left to what runs it.

use std::convert::Infallible;
use std::env;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Where to listen unless `PORT` says otherwise.
const PORT: u16 = 8080;

/// Clients served at once: each has a thread.
const MAX_CLIENTS: usize = 64;

/// The longest head of a request in bytes: what common servers take.
const MAX_HEAD: usize = 8 * 1024;

/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);

static CLIENTS: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    match serve() {
        Ok(never) => match never {},
        Err(error) => {
            say(&format!("cannot serve: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Serves until listening itself fails.
fn serve() -> io::Result<Infallible> {
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(PORT);
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    let start = Instant::now();
    say(&format!("listening on port {port}"));
    loop {
        let (stream, client) = listener.accept()?;
        if CLIENTS.fetch_add(1, Ordering::Relaxed) >= MAX_CLIENTS {
            CLIENTS.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        thread::spawn(move || {
            if let Err(error) = answer(stream, client, start) {
                say(&format!("{client}: {error}"));
            }
            CLIENTS.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Reads one request and answers it.
fn answer(mut stream: TcpStream, client: SocketAddr, start: Instant) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = read_head(&mut stream)?;
    if head.is_empty() {
        return Ok(());
    }
    let request = first_line(&head);
    say(&format!("{client} {request}"));
    let (status, body) = match request.split(' ').next() {
        Some("GET" | "HEAD") => ("200 OK", greeting(start)),
        _ => ("405 Method Not Allowed", "only GET and HEAD\n".to_owned()),
    };
    let sent = if request.starts_with("HEAD ") { "" } else { &body };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n")?;
    write!(stream, "Connection: close\r\n\r\n{sent}")
}

/// Everything up to the empty line; nothing for a client that only connects, as a check does.
fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut piece)?;
        if count == 0 && head.is_empty() {
            return Ok(head);
        }
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "left in the middle of its request"));
        }
        if head.len() + count > MAX_HEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a request of more than 8 KiB"));
        }
        head.extend_from_slice(piece.get(..count).unwrap_or(&[]));
    }
    Ok(head)
}

/// The request line, fit for a log: what is not printable is shown as a dot.
fn first_line(head: &[u8]) -> String {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or(&[]);
    line.iter().map(|byte| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' }).collect()
}

fn greeting(start: Instant) -> String {
    let words = env::var("GREETING").unwrap_or_else(|_| "Hello.".to_owned());
    format!("{words}\nUp for {} s.\n", start.elapsed().as_secs())
}

/// One line on stdout. A reader that is gone is no reason to stop serving.
fn say(line: &str) {
    writeln!(io::stdout(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(request: &str) -> String {
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
    fn a_client_gets_its_answer() {
        let answer = asked("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("Hello."), "{answer}");
        assert!(asked("HEAD / HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
        assert!(asked("POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    }
}
