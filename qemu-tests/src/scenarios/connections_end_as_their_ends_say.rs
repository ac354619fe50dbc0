//! An end is carried as an end of its direction alone, and a break as a break, whatever the vsock below makes of either. An
//! answer that was given before a break is not lost with it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::guest::kill_supervisor;
use crate::lab::COMMAND_LIMIT;
use crate::story::{expect, expect_eq};
use crate::{Failure, Lab, Outcome, Scenario};

/// The story.
pub(super) const SCENARIO: Scenario = Scenario { name: "connections_end_as_their_ends_say", host, guest };

/// The story of the programs that carry connections, killed in the middle of an answer.
pub(super) const KILLED: Scenario =
    Scenario { name: "what_a_kill_cuts_off_is_no_whole_answer", host: killed, guest };

/// Bytes of an upload: many times what all buffers on the way hold.
const UPLOAD: usize = 3_000_000;

/// Bytes of an upload that a service refuses before it has read them.
const REFUSED_UPLOAD: usize = 8_000_000;

/// Clients that make such an upload, side by side.
const UPLOADERS: usize = 25;

/// The whole answer to them.
const REFUSAL: &str = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Bytes said to a service that has said all it had to say.
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
    // The connection that asks for it is carried by the supervisor, too, and dies with it.
    let killing = open(port, "kill")?.read(&mut [0]).map_err(|error| error.kind());
    expect_eq(&killing, &Err(io::ErrorKind::ConnectionReset), "what the killer sees")?;
    let seen = served.read(&mut [0]).map_err(|error| error.kind());
    expect_eq(&seen, &Err(io::ErrorKind::ConnectionReset), "what a client sees of a killed supervisor")?;
    web.wait_stdout("the client broke off")?;
    web.wait_stderr("is ready again")?;

    let mut served = open(port, "listen")?;
    served.read_exact(&mut [0])?;
    web.signal(Signal::KILL)?;
    let seen = served.read(&mut [0]).map_err(|error| error.kind());
    expect_eq(&seen, &Err(io::ErrorKind::ConnectionReset), "what a client sees of a killed sleeve")
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
    expect_eq(&answer, &format!("{UPLOAD} bytes"), "the answer to a question that has ended")?;

    let mut left = open(port, "leave")?;
    let mut farewell = String::new();
    left.read_to_string(&mut farewell)?;
    expect_eq(&farewell.as_str(), &"bye", "what a service said before it ended its direction")?;
    left.write_all(&[b'x'; AFTERWARDS])?;
    left.shutdown(Shutdown::Write)?;
    web.wait_stdout(&format!("heard {AFTERWARDS} bytes afterwards"))?;

    let mut broken = open(port, "break")?;
    broken.read_exact(&mut [0; 4])?;
    broken.write_all(b"!")?;
    let seen = broken.read(&mut [0; 4]).map_err(|error| error.kind());
    expect_eq(&seen, &Err(io::ErrorKind::ConnectionReset), "what follows half an answer")?;

    let mut leaving = open(port, "listen")?;
    leaving.read_exact(&mut [0])?;
    rustix::net::sockopt::set_socket_linger(&leaving, Some(Duration::ZERO)).map_err(io::Error::from)?;
    drop(leaving);
    web.wait_stdout("the client broke off")?;

    let mut flooded = open(port, "pour")?;
    flooded.shutdown(Shutdown::Write)?;
    flooded.read_exact(&mut [0; 4096])?;
    // With bytes unread: a reset.
    drop(flooded);
    web.wait_stdout("the client takes no more")?;

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

/// Every client that posts more than the service will read sees why it was refused.
fn refused_uploads(port: u16) -> Outcome {
    let heard = thread::scope(|scope| {
        let clients: Vec<_> = (0..UPLOADERS).map(|_| scope.spawn(|| upload(port))).collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|_| Ok(String::new())))
            .collect::<Vec<_>>()
    });
    for (client, heard) in heard.into_iter().enumerate() {
        expect_eq(
            &heard?.as_str(),
            &REFUSAL,
            &format!("what uploader {client} of {UPLOADERS} was answered"),
        )?;
    }
    Ok(())
}

/// Posts more than the service will read, and gives the answer.
fn upload(port: u16) -> Result<String, Failure> {
    let mut client = open(port, "refuse")?;
    let piece = vec![b'x'; 64 * 1024];
    let mut sent = 0_usize;
    while sent < REFUSED_UPLOAD && client.write_all(&piece).is_ok() {
        sent = sent.saturating_add(piece.len());
    }
    let mut answer = Vec::new();
    // A reset behind the answer is what a network would end it with.
    drop(client.read_to_end(&mut answer));
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn guest(_words: &[String]) -> ExitCode {
    let Ok(listener) = TcpListener::bind(("127.0.0.1", 8080)) else { return ExitCode::FAILURE };
    for client in listener.incoming().flatten() {
        // The probe for readiness connects as well, and asks nothing.
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
            writeln!(io::stdout(), "heard {count} bytes afterwards")
        }
        "listen" => {
            client.write_all(b"!")?;
            let broken = io::copy(&mut reader, &mut io::sink()).is_err();
            writeln!(io::stdout(), "the client {}", if broken { "broke off" } else { "ended" })
        }
        "kill" => {
            kill_supervisor()?;
            reader.read_exact(&mut [0])
        }
        "pour" => {
            while client.write_all(&[b'x'; 4096]).is_ok() {}
            writeln!(io::stdout(), "the client takes no more")
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
