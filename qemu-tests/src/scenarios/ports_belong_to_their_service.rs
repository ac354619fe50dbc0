//! A service's port is its own: a process that takes it while the service restarts gets no client, and makes nothing ready.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};
use rustix::process::Signal;

use crate::guest::{POLL_INTERVAL, answer_one, attempts, catch, print, serve_http, wait_for_file};
use crate::scenario::{expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "a_port_taken_by_another_service_gets_no_client_and_makes_nothing_ready", host, guest };

/// A port that two programs share.
pub(super) const SHARED: Scenario = Scenario {
    name: "a_service_that_shares_another_ones_port_gets_none_of_its_clients",
    host: shared,
    guest: sharing,
};

/// Requests while the port is shared and not, in turns.
const REQUESTS: usize = 200;

/// How long the other service shares the port, and how long it does not: some requests are made in each state, and some
/// while it changes.
const TURN: Duration = Duration::from_millis(150);

/// The port on which the service listens, and the other one while it can.
const PORT: u16 = 7101;

/// The file that shows that the other service has the port.
const TAKEN: &str = "/var/taken";

fn host(lab: &mut Lab) -> Outcome {
    let port = lab.free_port()?;
    let mut web = lab.boot(
        "
version: 1
control: [signal]
services:
  web: {command: [PROBE, web], ready: {tcp: 7101}, restart: {delay: 1ms}}
  thief: {command: [PROBE, thief], after: [web], restart: never}
ingress:
  - {port: 80, service: web, target: 7101}
",
        &["--publish", &format!("127.0.0.1:{port}:80")],
    )?;
    web.wait_ready()?;
    expect_eq(&web.get(port, "/")?.body.as_str(), &"web", "before")?;
    web.command(&["service", "signal", "web", "web", "KILL"])?.expect_code(0)?;
    let mut refused = 0usize;
    web.until("the service, while another process has its port", || {
        match web.get(port, "/") {
            // A connection may have arrived before the kill.
            Ok(answer) => expect_eq(&answer.body.as_str(), &"web", "the answering service")?,
            Err(_) => refused = refused.saturating_add(1),
        }
        let status = web.service("web")?;
        let waits = status.get("waits_for").and_then(|text| text.as_str()).unwrap_or_default();
        if refused <= 10 || !waits.contains("does not belong to web") {
            return Ok(None);
        }
        expect_in(waits, "TCP port 7101: the listener on 127.0.0.1:7101", "the reason for waiting")?;
        expect_eq(&crate::lab::phase(&status), &"starting", "its phase").map(Some)
    })?;
    web.command(&["service", "signal", "web", "thief", "USR1"])?.expect_code(0)?;
    web.wait_service("web", "ready")?;
    expect_eq(&web.get(port, "/")?.body.as_str(), &"web", "after")?;
    let ended = web.stop()?;
    expect(!ended.stdout.contains("thief"), format_args!("the other service had a client:\n{}", ended.stdout))
}

fn guest(args: &[String]) -> ExitCode {
    let done = match args.first().map(String::as_str) {
        Some("web") => serve(),
        _ => steal(),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(9) }
}

fn serve() -> std::io::Result<()> {
    if attempts("/var/web")? > 0 {
        wait_for_file(TAKEN)?;
        while TcpListener::bind(("127.0.0.1", PORT)).is_err() {
            std::thread::park_timeout(POLL_INTERVAL);
        }
    }
    serve_http(PORT, |_| "web".to_owned())
}

/// Takes the port as soon as it is free, and releases it on a signal.
fn steal() -> std::io::Result<()> {
    let mut signal = catch(Signal::USR1)?;
    let listener = loop {
        match TcpListener::bind(("127.0.0.1", PORT)) {
            Ok(listener) => break listener,
            Err(_) => std::thread::park_timeout(POLL_INTERVAL),
        }
    };
    std::fs::write(TAKEN, "")?;
    std::thread::spawn(move || {
        for client in listener.incoming() {
            // A connection in progress when the port changed hands may still arrive; it is closed before any byte of a client.
            let asked = client.and_then(|mut client| client.read(&mut [0; 1]));
            drop(asked.and_then(|bytes| if bytes > 0 { print(b"thief has a client\n") } else { Ok(()) }));
        }
    });
    signal.wait()
}

fn shared(lab: &mut Lab) -> Outcome {
    let port = lab.free_port()?;
    let mut web = lab.boot(
        "
version: 1
services:
  web: {command: [PROBE, web], ready: {tcp: 7101}}
  thief: {command: [PROBE, thief], after: [web]}
ingress:
  - {port: 80, service: web, target: 7101}
",
        &["--publish", &format!("127.0.0.1:{port}:80")],
    )?;
    web.wait_ready()?;
    let answers = (0..REQUESTS).filter_map(|_| web.get(port, "/").ok().map(|answer| answer.body));
    let (ours, others): (Vec<String>, Vec<String>) = answers.partition(|body| body == "web");
    expect_eq(&others, &Vec::new(), "answers of the other service")?;
    expect(ours.len() > REQUESTS / 2, format_args!("{} of {REQUESTS} requests were answered", ours.len()))?;
    let ended = web.stop()?;
    expect_in(&ended.stdout, "thief shares the port", "the output")?;
    expect(
        !ended.stdout.contains("has a client"),
        format_args!("the other service had one:\n{}", ended.stdout),
    )
}

fn sharing(args: &[String]) -> ExitCode {
    let done = match args.first().map(String::as_str) {
        Some("web") => listen_shared().map(|listener| {
            for client in listener.incoming() {
                drop(client.and_then(|client| answer_one(client, |_| "web".to_owned())));
            }
        }),
        _ => flap(),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(9) }
}

/// Listens on the port that other sockets of the user may share (`SO_REUSEPORT`).
fn listen_shared() -> std::io::Result<TcpListener> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::sockopt::set_socket_reuseport(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)))?;
    rustix::net::listen(&socket, 128)?;
    Ok(TcpListener::from(socket))
}

/// Shares the port repeatedly, and prints the bytes of its clients.
fn flap() -> std::io::Result<()> {
    loop {
        let listener = listen_shared()?;
        listener.set_nonblocking(true)?;
        print(b"thief shares the port\n")?;
        let until = Instant::now() + TURN;
        while Instant::now() < until {
            let Ok((mut client, _)) = listener.accept() else {
                std::thread::park_timeout(POLL_INTERVAL);
                continue;
            };
            client.set_nonblocking(false)?;
            client.set_read_timeout(Some(TURN))?;
            if client.read(&mut [0; 1]).is_ok_and(|bytes| bytes > 0) {
                print(b"thief has a client\n")?;
                drop(client.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nthief"));
            }
        }
        drop(listener);
        std::thread::park_timeout(TURN);
    }
}
