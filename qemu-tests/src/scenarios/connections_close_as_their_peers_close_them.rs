//! The end of one direction is forwarded as the end of that direction alone, and a reset as a reset, regardless of what the
//! vsock below does with either. An answer sent before a reset is not lost.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use cloister_wire::gateway::NAME;
use rustix::process::Signal;

use crate::guest::{find_servant, send_from_outside};
use crate::lab::COMMAND_LIMIT;
use crate::scenario::{expect, expect_eq};
use crate::{Failure, Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "connections_close_as_their_peers_close_them", host, guest };

/// The programs that forward connections, killed in the middle of an answer.
pub(super) const KILLED: Scenario =
    Scenario { name: "a_killed_connection_ends_with_a_reset", host: killed, guest };

/// Bytes of an upload: many times the size of all buffers on the path.
const UPLOAD: usize = 3_000_000;

/// Bytes of an upload that a service refuses before it has read them.
const REFUSED_UPLOAD: usize = 8_000_000;

/// Clients that make such an upload in parallel.
const UPLOADERS: usize = 25;

/// The complete answer to them.
const REFUSAL: &str = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Bytes sent to a service that has finished sending.
const AFTERWARDS: usize = 1000;

const MANIFEST: &str = "
version: 1
services:
  web:
    command: [PROBE]
    ready: {tcp: 8080}
ingress:
  - {port: 80, service: web, target: 8080}
";

fn killed(lab: &mut Lab) -> Outcome {
    let port = lab.free_port()?;
    let web = lab.boot_with_sender(MANIFEST, &["--publish", &format!("127.0.0.1:{port}:80")])?;
    web.wait_ready()?;

    let mut served = open(port, "listen")?;
    served.read_exact(&mut [0])?;
    // The request for the kill also passes through the gateway, and is reset with it.
    let reset = open(port, "kill")?.read(&mut [0]).map_err(|error| error.kind());
    expect_eq(&reset, &Err(io::ErrorKind::ConnectionReset), "the connection that requested the kill")?;
    let seen = served.read(&mut [0]).map_err(|error| error.kind());
    expect_eq(&seen, &Err(io::ErrorKind::ConnectionReset), "a client's view of a killed gateway")?;
    web.wait_stdout("the client's connection broke")?;

    // The next connection waits in the listen queue, which outlives the gateway.
    let mut served = open(port, "listen")?;
    served.read_exact(&mut [0])?;
    web.signal(Signal::KILL)?;
    let seen = served.read(&mut [0]).map_err(|error| error.kind());
    expect_eq(&seen, &Err(io::ErrorKind::ConnectionReset), "a client's view of a killed sleeve")
}

fn host(lab: &mut Lab) -> Outcome {
    let port = lab.free_port()?;
    let publish = format!("127.0.0.1:{port}:80");
    let mut web = lab.boot(MANIFEST, &["--publish", &publish])?;
    web.wait_ready()?;

    let mut asking = open(port, "count")?;
    asking.write_all(&vec![b'x'; UPLOAD])?;
    asking.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    asking.read_to_string(&mut answer)?;
    expect_eq(&answer, &format!("{UPLOAD} bytes"), "the answer after the request's end")?;

    let mut left = open(port, "leave")?;
    let mut farewell = String::new();
    left.read_to_string(&mut farewell)?;
    expect_eq(&farewell.as_str(), &"bye", "the service's data before it ended its direction")?;
    left.write_all(&[b'x'; AFTERWARDS])?;
    left.shutdown(Shutdown::Write)?;
    web.wait_stdout(&format!("received {AFTERWARDS} bytes afterwards"))?;

    let mut broken = open(port, "break")?;
    broken.read_exact(&mut [0; 4])?;
    broken.write_all(b"!")?;
    let seen = broken.read(&mut [0; 4]).map_err(|error| error.kind());
    expect_eq(&seen, &Err(io::ErrorKind::ConnectionReset), "what follows half an answer")?;

    let mut leaving = open(port, "listen")?;
    leaving.read_exact(&mut [0])?;
    rustix::net::sockopt::set_socket_linger(&leaving, Some(Duration::ZERO)).map_err(io::Error::from)?;
    drop(leaving);
    web.wait_stdout("the client's connection broke")?;

    let mut flooded = open(port, "pour")?;
    flooded.shutdown(Shutdown::Write)?;
    flooded.read_exact(&mut [0; 4096])?;
    // With unread bytes: a reset.
    drop(flooded);
    web.wait_stdout("the client accepts no more")?;

    refused_uploads(port)?;

    let ended = web.stop()?;
    expect(ended.code.is_some(), "host-sleeve run ended by itself after a stop")
}

fn open(port: u16, what: &str) -> Result<TcpStream, Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let limit: Duration = COMMAND_LIMIT;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    writeln!(stream, "{what}")?;
    Ok(stream)
}

/// Every client whose upload the service refuses receives the refusal.
fn refused_uploads(port: u16) -> Outcome {
    let answers = thread::scope(|scope| {
        let clients: Vec<_> = (0..UPLOADERS).map(|_| scope.spawn(|| upload(port))).collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|_| Ok(String::new())))
            .collect::<Vec<_>>()
    });
    for (client, answer) in answers.into_iter().enumerate() {
        expect_eq(&answer?.as_str(), &REFUSAL, &format!("the answer to uploader {client} of {UPLOADERS}"))?;
    }
    Ok(())
}

/// Uploads more than the service reads, and returns the answer.
fn upload(port: u16) -> Result<String, Failure> {
    let mut client = open(port, "refuse")?;
    let piece = vec![b'x'; 64 * 1024];
    let mut sent = 0_usize;
    while sent < REFUSED_UPLOAD && client.write_all(&piece).is_ok() {
        sent = sent.saturating_add(piece.len());
    }
    let mut answer = Vec::new();
    // A network would reset the connection after the answer.
    drop(client.read_to_end(&mut answer));
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn guest(_args: &[String]) -> ExitCode {
    let Ok(listener) = TcpListener::bind(("127.0.0.1", 8080)) else { return ExitCode::FAILURE };
    for client in listener.incoming().flatten() {
        // The readiness check connects too, and sends no request.
        thread::spawn(move || answer(&client));
    }
    ExitCode::FAILURE
}

fn answer(mut client: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(client);
    let mut what = String::new();
    reader.read_line(&mut what)?;
    match what.trim() {
        "count" => {
            let count = io::copy(&mut reader, &mut io::sink())?;
            write!(client, "{count} bytes")
        }
        "leave" => {
            client.write_all(b"bye")?;
            client.shutdown(Shutdown::Write)?;
            let count = io::copy(&mut reader, &mut io::sink())?;
            writeln!(io::stdout(), "received {count} bytes afterwards")
        }
        "listen" => {
            client.write_all(b"!")?;
            let broken = io::copy(&mut reader, &mut io::sink()).is_err();
            writeln!(io::stdout(), "the client's connection {}", if broken { "broke" } else { "ended" })
        }
        "kill" => {
            send_from_outside(find_servant(NAME)?, Signal::KILL.as_raw())?;
            reader.read_exact(&mut [0])
        }
        "pour" => {
            while client.write_all(&[b'x'; 4096]).is_ok() {}
            writeln!(io::stdout(), "the client accepts no more")
        }
        "refuse" => {
            reader.read_exact(&mut [0; 1024])?;
            client.write_all(REFUSAL.as_bytes())
        }
        "break" => {
            client.write_all(b"half")?;
            reader.read_exact(&mut [0])?;
            Ok(rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO))?)
        }
        _ => Ok(()),
    }
}
