//! An end is carried as an end of its direction alone, and a break as a break, whatever the vsock below makes of either.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use crate::lab::COMMAND_LIMIT;
use crate::story::{expect, expect_eq};
use crate::{Failure, Lab, Outcome, Scenario};

/// The story.
pub(super) const SCENARIO: Scenario = Scenario { name: "connections_end_as_their_ends_say", host, guest };

/// Bytes of an upload: many times what all buffers on the way hold.
const UPLOAD: usize = 3_000_000;

/// Bytes said to a service that has said all it had to say.
const AFTERWARDS: usize = 1000;

fn host(lab: &mut Lab) -> Outcome {
    let port = lab.free_port()?;
    let publish = format!("127.0.0.1:{port}:80");
    let manifest = "
version: 1
services:
  web:
    command: [PROBE]
    ready: {tcp: 8080}
ingress:
  - {port: 80, service: web, target: 8080}
";
    let mut web = lab.boot(manifest, &["--publish", &publish])?;
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

fn guest(_words: &[String]) -> ExitCode {
    let Ok(listener) = TcpListener::bind(("127.0.0.1", 8080)) else { return ExitCode::FAILURE };
    for client in listener.incoming() {
        // The probe for readiness connects as well, and asks nothing.
        drop(client.and_then(|client| answer(&client)));
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
        "break" => {
            client.write_all(b"half")?;
            reader.read_exact(&mut [0])?;
            Ok(rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO))?)
        }
        _ => Ok(()),
    }
}
