//! The resources that services use and the bytes through ingress are reported live, as text and for Prometheus.

use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::guest::{print, serve_http};
use crate::lab::{COMMAND_LIMIT, Running, http};
use crate::scenario::{Failure, expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "usage_ingress_and_restarts_are_reported_live", host, guest };

/// Bytes that the eater allocates.
const EATEN: usize = 32 << 20;

/// Threads of the eater besides its first.
const THREADS: u64 = 3;

/// Requests of the scenario.
const REQUESTS: u64 = 5;

const MANIFEST: &str = "
version: 1
services:
  web: {command: [PROBE, web], ready: {tcp: 8080}, critical: true}
  eater: {command: [PROBE, eater], ready: {log: fed}}
  burner: {command: [PROBE, burner], limits: {cpu: 0.1}}
  fragile: {command: [PROBE, fragile], restart: {policy: on-failure, delay: 10ms}}
ingress: [{port: 80, service: web, target: 8080}]
";

fn host(lab: &mut Lab) -> Outcome {
    let port = lab.free_port()?;
    let mut web = lab.boot(MANIFEST, &["--publish", &format!("127.0.0.1:{port}:80"), "--metrics", ":0"])?;
    let ready = web.wait_ready()?;
    usage(&web)?;
    for _ in 0..REQUESTS {
        expect_eq(&web.get(port, "/")?.status, &200, "the HTTP status")?;
    }
    let ingress = web.inspect()?;
    let counter = |name| ingress.pointer(&format!("/status/ingress/{name}")).and_then(Value::as_u64);
    expect_eq(&counter("accepted"), &Some(REQUESTS), "connections, although no state has changed")?;
    expect(counter("bytes_out") > Some(0), format_args!("bytes to clients: {ingress}"))?;

    let own = ready.get("metrics").and_then(Value::as_str).and_then(|address| address.rsplit_once(':'));
    let own = own.and_then(|(_, port)| port.parse().ok()).ok_or_else(|| Failure::failed("no metrics"))?;
    metrics_of(own)?;
    every_enclave(lab)?;
    web.stop().map(drop)
}

/// `stats` reports the services' usage.
fn usage(web: &Running) -> Outcome {
    let eater = service(web, "eater")?;
    let of = |usage: &Value, what: &str| usage.get(what).and_then(Value::as_u64).unwrap_or_default();
    let least = u64::try_from(EATEN).unwrap_or_default();
    expect(
        of(&eater, "memory") >= least,
        format_args!("memory of a service that holds {least} bytes: {eater}"),
    )?;
    expect(of(&eater, "memory_peak") >= of(&eater, "memory"), format_args!("the peak: {eater}"))?;
    expect_eq(&of(&eater, "pids"), &THREADS.saturating_add(2), "the eater, its threads and its parent")?;
    // It is ready once it has started, which is before it fails.
    web.until("the restart of the service that fails once", || {
        Ok((of(&service(web, "fragile")?, "restarts") == 1).then_some(()))
    })?;
    let before = of(&service(web, "burner")?, "cpu_us");
    let began = Instant::now();
    while of(&service(web, "burner")?, "cpu_us") <= before {
        expect(began.elapsed() < COMMAND_LIMIT, "the CPU time of the burner grows")?;
    }
    Ok(())
}

/// One service in `stats --json`.
fn service(web: &Running, name: &str) -> Result<Value, Failure> {
    let stats = web.command(&["stats", "web", "--json"])?.json()?;
    let services = stats.pointer("/0/services").and_then(Value::as_array).cloned().unwrap_or_default();
    services
        .into_iter()
        .find(|one| one.get("name").and_then(Value::as_str) == Some(name))
        .ok_or_else(|| Failure::failed(format_args!("stats shows no service {name}: {stats}")))
}

/// A scrape of this port reports what has happened in the scenario.
fn metrics_of(port: u16) -> Outcome {
    let answer = http::get(port, "/metrics", COMMAND_LIMIT)?;
    expect_eq(&answer.status, &200, "the status of the scrape")?;
    for line in [
        "cloister_enclave_up{enclave=\"web\"} 1",
        "cloister_enclave_state{enclave=\"web\",state=\"ready\"} 1",
        "cloister_supervisor_restarts_total{enclave=\"web\"} 0",
        "cloister_ingress_connections_total{enclave=\"web\"} 5",
        "cloister_service_restarts_total{enclave=\"web\",service=\"fragile\"} 1",
        "cloister_service_phase{enclave=\"web\",service=\"eater\",phase=\"ready\"} 1",
        "cloister_service_pids{enclave=\"web\",service=\"eater\"} 5",
    ] {
        expect_in(&answer.body, line, "the metrics")?;
    }
    expect(
        answer.body.contains("cloister_service_cpu_seconds_total{enclave=\"web\",service=\"burner\"} ")
            && answer.body.contains("cloister_enclave_uptime_seconds{enclave=\"web\"} "),
        format_args!("CPU and uptime in:\n{}", answer.body),
    )
}

/// `host-sleeve metrics` reports the same, and prints its address.
fn every_enclave(lab: &Lab) -> Outcome {
    let mut command = lab.sleeve(&["metrics", "--listen", ":0"]).into_command();
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
    let port = line.trim().strip_suffix("/metrics").and_then(|url| url.rsplit_once(':')?.1.parse().ok());
    let outcome = match (read, port) {
        (Some(Ok(_)), Some(port)) => metrics_of(port),
        _ => Err(Failure::failed(format_args!("metrics does not print its address: {line:?}"))),
    };
    child.kill()?;
    child.wait()?;
    outcome
}

fn guest(args: &[String]) -> ExitCode {
    let done = match args.first().map(String::as_str) {
        Some("web") => serve_http(8080, |_| "here".to_owned()),
        Some("eater") => eat(),
        Some("burner") => burn(),
        Some("fragile") => fail_once(),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    };
    if let Err(error) = &done {
        drop(writeln!(std::io::stderr(), "{error}"));
    }
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Holds memory, and threads that wait.
fn eat() -> std::io::Result<()> {
    let held = vec![1_u8; EATEN];
    for _ in 0..THREADS {
        thread::spawn(|| {
            loop {
                thread::park();
            }
        });
    }
    print(b"fed\n")?;
    loop {
        thread::park();
        std::hint::black_box(&held);
    }
}

/// Uses as much processor time as it gets.
fn burn() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

fn fail_once() -> std::io::Result<()> {
    if std::fs::exists("/var/failed")? {
        loop {
            thread::park();
        }
    }
    std::fs::write("/var/failed", "")?;
    Err(std::io::Error::other("the first start always fails"))
}
