//! More parallel clients than a login's usual limit of open files allows one process.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::lab::COMMAND_LIMIT;
use crate::scenario::{Failure, expect};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario { name: "many_clients_are_served_at_once", host, guest };

/// The soft limit of open files of most logins.
const USUAL_LIMIT: u64 = 1024;

/// Parallel clients.
const CLIENTS: usize = 1500;

/// Clients that connect before their greetings are read: an emulated guest accepts about a hundred a second.
const AT_ONCE: usize = 50;

/// Descriptors of this process: one per client, and its other files.
const WANTED: u64 = 4096;

fn host(lab: &mut Lab) -> Outcome {
    let port = lab.free_port()?;
    let publish = format!("127.0.0.1:{port}:80");
    let manifest = "
version: 1
services:
  web: {command: [PROBE], ready: {tcp: 8080}}
ingress: [{port: 80, service: web, target: 8080}]
";
    // The sleeve inherits the limit, and so do the programs that it starts.
    limit(USUAL_LIMIT)?;
    let mut web = lab.boot(manifest, &["--publish", &publish])?;
    limit(WANTED)?;
    web.wait_ready()?;
    let mut open: Vec<TcpStream> = Vec::new();
    let mut refused = 0_usize;
    while open.len().saturating_add(refused) < CLIENTS {
        let batch: Vec<TcpStream> = (0..AT_ONCE).map(|_| connect(port)).collect::<Result<_, Failure>>()?;
        for mut client in batch {
            match client.read_exact(&mut [0]) {
                Ok(()) => open.push(client),
                Err(_) => refused = refused.saturating_add(1),
            }
        }
    }
    expect(refused == 0, format_args!("{refused} of {CLIENTS} clients were not served\n{}", web.stderr()))?;
    let connected = web.inspect()?.pointer("/status/ingress/open").and_then(serde_json::Value::as_u64);
    expect(
        connected >= u64::try_from(CLIENTS).ok(),
        format_args!("{connected:?} of {CLIENTS} clients are connected"),
    )?;
    drop(open);
    let ended = web.stop()?;
    expect(
        !ended.stderr.contains("refused a connection"),
        format_args!("a refused connection:\n{}", ended.stderr),
    )
}

/// Sets this process's soft limit of open files.
fn limit(wanted: u64) -> Outcome {
    let now = getrlimit(Resource::Nofile);
    let current = now.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..now }).map_err(io::Error::from)?)
}

fn connect(port: u16) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(COMMAND_LIMIT))?;
    Ok(stream)
}

/// Greets every client and keeps its connection open.
fn guest(_args: &[String]) -> ExitCode {
    let Ok(listener) = TcpListener::bind(("127.0.0.1", 8080)) else { return ExitCode::FAILURE };
    let mut clients = Vec::new();
    for mut client in listener.incoming().flatten() {
        if client.write_all(b"!").is_ok() {
            clients.push(client);
        }
    }
    ExitCode::FAILURE
}
