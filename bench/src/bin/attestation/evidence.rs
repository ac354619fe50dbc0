//! Evidence of running enclaves: requested by their services inside, and over TLS from outside.
//!
//! Inside is the attestor's own path: the supervisor hands it a connection, and its provider makes evidence. From outside there are
//! the relays, a handshake and the terminator as well.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use cloister_bench::figures::{median, quantile, table};
use cloister_client::{Answer, Deadline};

use crate::progress;

/// Numbers of callers, and requests of each of them in a round.
const LOADS: [(u32, u32); 2] = [(1, 20), (16, 4)];

/// Time limit for one caller: an enclave in an emulator may take a second for a handshake.
const LIMIT: Duration = Duration::from_mins(2);

/// A running enclave.
struct Enclave {
    name: String,
    /// The ports of both guest halves: a service may have eight connections to the attestor at once.
    inside: [u16; 2],
    /// The port of the attestation server.
    tls: u16,
}

/// Where evidence is requested from.
#[derive(Clone, Copy)]
enum From {
    Inside,
    Outside,
}

/// One way of requesting evidence of one enclave, and what was measured.
struct Path<'a> {
    enclave: &'a Enclave,
    from: From,
    callers: u32,
    requests: u32,
    /// Of each round.
    per_second: Vec<f64>,
    /// Milliseconds of each request.
    latencies: Vec<f64>,
}

/// The latencies of a round in milliseconds, and the seconds that it took.
type Round = (Vec<f64>, f64);

/// Measures these enclaves, and returns the table.
pub(crate) fn measure(rounds: u32, enclaves: &[&str]) -> io::Result<String> {
    let enclaves = enclaves.iter().map(|text| enclave(text)).collect::<io::Result<Vec<_>>>()?;
    let mut paths: Vec<Path<'_>> = Vec::new();
    for from in [From::Inside, From::Outside] {
        for (callers, requests) in LOADS {
            paths.extend(enclaves.iter().map(|enclave| Path {
                enclave,
                from,
                callers,
                requests,
                per_second: Vec::new(),
                latencies: Vec::new(),
            }));
        }
    }
    for round in 0..rounds {
        for path in &mut paths {
            path.measure()?;
        }
        progress("evidence", round, rounds);
    }
    let rows: Vec<_> = paths.iter().map(Path::row).collect();
    Ok(table(&["platform", "requested", "callers", "evidence/s", "p50, ms", "p99, ms"], &rows))
}

/// An enclave from its argument.
fn enclave(text: &str) -> io::Result<Enclave> {
    let parts: Vec<&str> = text.split(',').collect();
    let port = |text: &str| text.parse().map_err(|_| io::Error::other(format!("{text:?} is no port")));
    let &[name, first, second, tls] = parts.as_slice() else {
        return Err(io::Error::other(format!("{text:?} is not NAME,FIRST,SECOND,TLS")));
    };
    Ok(Enclave { name: name.to_owned(), inside: [port(first)?, port(second)?], tls: port(tls)? })
}

impl Path<'_> {
    fn measure(&mut self) -> io::Result<()> {
        let (latencies, seconds) = match self.from {
            From::Inside => inside(self.enclave.inside, self.callers, self.requests)?,
            From::Outside => outside(self.enclave.tls, self.callers, self.requests)?,
        };
        self.per_second.push(f64::from(self.callers) * f64::from(self.requests) / seconds);
        self.latencies.extend(latencies);
        Ok(())
    }

    fn row(&self) -> Vec<String> {
        let from = match self.from {
            From::Inside => "inside, by a service",
            From::Outside => "from outside, over TLS",
        };
        vec![
            self.enclave.name.clone(),
            from.to_owned(),
            self.callers.to_string(),
            format!("{:.1}", median(&self.per_second)),
            format!("{:.1}", median(&self.latencies)),
            format!("{:.1}", quantile(&self.latencies, 99)),
        ]
    }
}

/// Has the guest halves request evidence: one of them for one caller, else both at once.
fn inside(ports: [u16; 2], callers: u32, requests: u32) -> io::Result<Round> {
    let halves =
        if callers == 1 { vec![(ports[0], 1)] } else { ports.map(|port| (port, callers / 2)).into() };
    let threads: Vec<_> = halves
        .into_iter()
        .map(|(port, callers)| thread::spawn(move || half(port, callers, requests)))
        .collect();
    let (mut latencies, mut seconds) = (Vec::new(), 0.0_f64);
    for thread in threads {
        let (some, took) = thread.join().map_err(|_| io::Error::other("a caller panicked"))??;
        latencies.extend(some);
        // Both measure by the guest's clock, and began at the same time.
        seconds = seconds.max(took);
    }
    Ok((latencies, seconds))
}

/// What one guest half measures.
fn half(port: u16, callers: u32, requests: u32) -> io::Result<Round> {
    let mut guest = Deadline::new(TcpStream::connect(("127.0.0.1", port))?, Instant::now() + LIMIT);
    writeln!(guest, "{callers} {requests}")?;
    let mut text = String::new();
    guest.read_to_string(&mut text)?;
    let failed = || io::Error::other(format!("a service got no evidence; its log says why: {text:?}"));
    let (latencies, whole) = text.trim_end().rsplit_once("end ").ok_or_else(failed)?;
    let number = |text: &str| text.parse::<f64>().map_err(io::Error::other);
    let latencies = latencies.lines().map(|line| number(line).map(|micros| micros / 1e3));
    Ok((latencies.collect::<io::Result<_>>()?, number(whole)? / 1e6))
}

/// Requests evidence from the attestation server, with a handshake for each request.
fn outside(port: u16, callers: u32, requests: u32) -> io::Result<Round> {
    let start = Instant::now();
    let threads: Vec<_> = (0..callers)
        .map(|_| thread::spawn(move || (0..requests).map(|_| request(port)).collect::<io::Result<Vec<_>>>()))
        .collect();
    let mut latencies = Vec::new();
    for thread in threads {
        latencies.extend(thread.join().map_err(|_| io::Error::other("a caller panicked"))??);
    }
    Ok((latencies, start.elapsed().as_secs_f64()))
}

/// The milliseconds that one request takes, with its connection.
fn request(port: u16) -> io::Result<f64> {
    let start = Instant::now();
    let socket = TcpStream::connect(("127.0.0.1", port))?;
    // The end of the handshake and the request are two writes: else the second waits for the other end's delayed acknowledgement.
    socket.set_nodelay(true)?;
    let socket = Deadline::new(socket, start + LIMIT);
    let answer = Answer::request(socket, "127.0.0.1", port).map_err(io::Error::other)?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    if answer.evidence.is_empty() { Err(io::Error::other("the evidence is empty")) } else { Ok(took) }
}
