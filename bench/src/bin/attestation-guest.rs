//! The guest half of the attestation benchmark: requests evidence as a service does, over the local socket.
//!
//! `attestation-guest PORT` answers each connection: it reads `CALLERS REQUESTS`, has so many threads request evidence so many times
//! each, and writes the latency of each request in microseconds, one per line, then `end` and the whole time.
//! Invariant: each request has a connection and a nonce of its own; a response without evidence ends the connection without `end`.

use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use cloister_wire::ports::LOCAL_ATTESTATION;

/// Time limit for one request: longer than the attestor's own.
const LIMIT: Duration = Duration::from_secs(25);

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let port: u16 = port.ok_or_else(|| io::Error::other("usage: attestation-guest PORT"))?;
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    loop {
        let (client, _) = listener.accept()?;
        if let Err(error) = serve(client) {
            writeln!(io::stderr(), "attestation-guest: {error}")?;
        }
    }
}

fn serve(mut client: TcpStream) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(client.try_clone()?).read_line(&mut line)?;
    let numbers: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let &[callers, requests] = numbers.as_slice() else {
        return Err(io::Error::other(format!("unexpected line {line:?}")));
    };
    let start = Instant::now();
    let threads: Vec<_> = (0..callers).map(|caller| thread::spawn(move || call(caller, requests))).collect();
    let mut text = String::new();
    for thread in threads {
        let latencies = thread.join().map_err(|_| io::Error::other("a caller panicked"))??;
        text.extend(latencies.iter().map(|latency| format!("{}\n", latency.as_micros())));
    }
    writeln!(client, "{text}end {}", start.elapsed().as_micros())
}

/// The latencies of so many requests, one after another.
fn call(caller: u32, requests: u32) -> io::Result<Vec<Duration>> {
    (0..requests).map(|request| timed(caller, request)).collect()
}

fn timed(caller: u32, request: u32) -> io::Result<Duration> {
    let start = Instant::now();
    let mut attestor = UnixStream::connect_addr(&SocketAddr::from_abstract_name(LOCAL_ATTESTATION)?)?;
    attestor.set_read_timeout(Some(LIMIT))?;
    // 24 bytes in base64, different for each request.
    let body = format!(r#"{{"nonce":"{caller:016x}{request:016x}"}}"#);
    let head =
        format!("POST /v1/evidence HTTP/1.1\r\nHost: attestor\r\nContent-Length: {}\r\n\r\n", body.len());
    attestor.write_all([head, body].concat().as_bytes())?;
    let mut response = Vec::new();
    attestor.read_to_end(&mut response)?;
    let took = start.elapsed();
    if response.starts_with(b"HTTP/1.1 200 ") {
        return Ok(took);
    }
    let text = String::from_utf8_lossy(&response);
    Err(io::Error::other(format!("there was no evidence: {}", text.lines().last().unwrap_or_default())))
}
