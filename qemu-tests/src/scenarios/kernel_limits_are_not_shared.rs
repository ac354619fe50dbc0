//! Kernel limits per user or per machine: one service takes all it can get, and another one of the same user still gets a little
//! of the same resource.

mod taking;

use std::fs;
use std::io::{ErrorKind, Result};
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::process::Signal;

use crate::guest::{catch, print, serve_http, wait_for_file};
use crate::scenario::{expect, expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};
use taking::KINDS;

/// A service that takes and one that needs.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "kernel_limits_are_not_shared_between_services", host, guest };

/// The taker may open more files than the kernel's per-user limits allow. The server receives no request at its start, so that no
/// connection has a port.
const MANIFEST: &str = "
version: 1
services:
  web: {command: [PROBE, web], critical: true}
  taker: {command: [PROBE, taker], limits: {open_files: 131072}, restart: never, after: [web]}
  needy: {command: [PROBE, needy], kind: job, restart: never, after: [web]}
ingress:
  - {port: 80, service: web, target: 7200}
";

/// The server's port, below the ports that the kernel chooses from.
const PORT: u16 = 7200;

/// The needy service waits for this file while all ports are taken.
const REACHED: &str = "/var/reached";

fn host(lab: &mut Lab) -> Outcome {
    let port = lab.free_port()?;
    let mut web = lab.boot(MANIFEST, &["--publish", &format!("127.0.0.1:{port}:80")])?;
    web.wait_stdout("ports: took")?;
    let reached = web.get(port, "/reached").map(|answer| answer.body).map_err(|error| error.to_string());
    expect_eq(&reached, &Ok("here".to_owned()), "ingress while all ports are taken")?;
    for kind in &KINDS {
        web.wait_stdout(&format!("{}: took", kind.name))?;
    }
    web.wait_service("needy", "done")?;
    let log = web.command(&["logs", "web"])?.stdout;
    for kind in &KINDS {
        expect_in(&log, &format!("{}: got one", kind.name), "the needy service's result")?;
    }
    for service in ["web", "taker"] {
        expect_eq(&web.service(service)?.get("restarts"), &Some(&serde_json::json!(0)), service)?;
    }
    expect_at(&web.inspect()?, "/status/supervisor_restarts", 0)?;
    let ended = web.stop()?;
    expect(!ended.stdout.contains("got none"), format_args!("{}", ended.stdout))
}

fn guest(args: &[String]) -> ExitCode {
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["web"] => serve_http(PORT, |path| answer(path).to_owned()),
        ["taker"] => taker(),
        ["take", kind] => take(kind),
        ["needy"] => needy(),
        _ => Err(ErrorKind::InvalidInput.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(print(format!("{args:?}: {error}\n").as_bytes()));
            ExitCode::FAILURE
        }
    }
}

fn answer(path: &str) -> &'static str {
    if path == "/reached" {
        // Without the file the scenario runs into its time limit.
        fs::write(REACHED, "").unwrap_or_default();
    }
    "here"
}

/// Takes one kind after the other, each in its own process, whose exit releases it.
fn taker() -> Result<()> {
    let mut term = catch(Signal::TERM)?;
    for kind in &KINDS {
        let mut child = again(kind.name)?;
        wait_for_file(&had(kind.name))?;
        child.kill()?;
        child.wait()?;
    }
    term.wait()
}

fn again(kind: &str) -> Result<Child> {
    Command::new("/proc/self/exe").args([SCENARIO.name, "take", kind]).stdin(Stdio::null()).spawn()
}

fn take(name: &str) -> Result<()> {
    let kind = KINDS.iter().find(|kind| kind.name == name).ok_or(ErrorKind::InvalidInput)?;
    let before = taking::memory()?;
    let (taken, last) = (kind.take)()?;
    let after = taking::memory()?;
    let (gone, charged) = (before.0.saturating_sub(after.0), after.1.saturating_sub(before.1));
    let count = taken.len();
    print(format!("{name}: took {count}, then {last}; {gone} KiB gone, {charged} KiB charged\n").as_bytes())?;
    fs::write(full(name), "")?;
    // Until it is killed.
    loop {
        std::thread::park();
    }
}

/// Needs a little of each kind while all of it is taken.
fn needy() -> Result<()> {
    for kind in &KINDS {
        wait_for_file(&full(kind.name))?;
        let line = match (kind.need)() {
            Ok(()) => format!("{}: got one\n", kind.name),
            Err(error) => format!("{}: got none: {error}\n", kind.name),
        };
        print(line.as_bytes())?;
        fs::write(had(kind.name), "")?;
    }
    Ok(())
}

fn full(kind: &str) -> String {
    format!("/var/{kind}.full")
}

fn had(kind: &str) -> String {
    format!("/var/{kind}.had")
}
