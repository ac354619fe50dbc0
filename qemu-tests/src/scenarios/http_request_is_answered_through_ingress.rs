//! The main task: an image is built, runs, is reached from the host, reports what it does, and is stopped.

use std::io::Write;
use std::process::ExitCode;

use crate::guest::serve_http;
use crate::scenario::{expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "http_request_is_answered_through_ingress", host, guest };

fn host(lab: &mut Lab) -> Outcome {
    let port = lab.free_port()?;
    let publish = format!("127.0.0.1:{port}:80");
    let mut web = lab.boot(
        "
version: 1
services:
  web:
    command: [PROBE]
    ready: {tcp: 8080}
ingress:
  - {port: 80, service: web, target: 8080}
",
        &["--publish", &publish],
    )?;
    web.wait_ready()?;

    let answer = web.get(port, "/hello")?;
    expect_eq(&answer.status, &200, "the HTTP status")?;
    expect_eq(&answer.body.as_str(), &"you asked for /hello", "the answer")?;

    web.wait_stdout("asked for /hello")?;
    let logs = web.command(&["logs", "web"])?;
    expect_in(&logs.stdout, "asked for /hello", "host-sleeve logs")?;

    let ps = web.command(&["ps"])?;
    expect_in(&ps.stdout, "web", "host-sleeve ps")?;
    expect_in(&ps.stdout, "ready", "host-sleeve ps")?;

    let ended = web.stop()?;
    expect(ended.code.is_some(), "host-sleeve run exited by itself after a stop")
}

fn guest(_args: &[String]) -> ExitCode {
    let served = serve_http(8080, |path| {
        drop(writeln!(std::io::stdout(), "asked for {path}"));
        format!("you asked for {path}")
    });
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
