//! Several enclaves on one host, in the foreground and in the background: each has its own ports, state and exit.

use std::collections::HashSet;
use std::process::{ExitCode, Stdio};

use serde_json::Value;

use crate::guest::serve_http;
use crate::lab::{Finished, path_str};
use crate::scenario::{Failure, expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario { name: "several_enclaves_run_side_by_side", host, guest };

const MANIFEST: &str = "{version: 1, name: app, services: {web: {command: [PROBE], ready: {tcp: 8080}}}, ingress: [{port: 80, target: 8080}]}";

/// Enclaves in the background, beside the one in the foreground: two are enough to have them boot at the same time.
const BEHIND: usize = 2;

fn host(lab: &mut Lab) -> Outcome {
    let image = lab.image(MANIFEST)?;
    let mut ports = vec![lab.free_port()?];
    let publish = format!("{}:80", ports.first().copied().unwrap_or_default());
    // All boot at the same time.
    let mut front = lab.run(&image, &["--publish", &publish])?;
    let run = ["run", path_str(&image)?, "--detach", "--publish", "0:80", "--json"];
    let starting = (0..BEHIND).map(|_| lab.sleeve(&run).into_command().stdout(Stdio::piped()).spawn());
    let starting = starting.collect::<std::io::Result<Vec<_>>>()?;
    let mut names = Vec::new();
    for child in starting {
        let record: Value = serde_json::from_slice(&child.wait_with_output()?.stdout)?;
        let (name, port) = name_and_port(&record)?;
        names.push(name);
        ports.push(port);
    }
    front.wait_ready()?;
    let machines =
        ports.iter().map(|port| Ok(front.get(*port, "/")?.body)).collect::<Result<HashSet<_>, Failure>>()?;
    expect_eq(&machines.len(), &ports.len(), "different machines behind the ports")?;
    expect_eq(&running(&lab.sleeve(&["ps", "--json"]).finish()?)?, &ports.len(), "what ps shows")?;
    front.stop()?;
    for port in ports.iter().skip(1) {
        expect(machines.contains(&front.get(*port, "/")?.body), "the others keep running")?;
    }
    let stop: Vec<&str> = std::iter::once("stop").chain(names.iter().map(String::as_str)).collect();
    lab.sleeve(&stop).finish()?.expect_code(0)?;
    expect_eq(&running(&lab.sleeve(&["ps", "--json"]).finish()?)?, &0, "what ps shows")?;
    let all = lab.sleeve(&["ps", "--all"]).finish()?;
    names
        .iter()
        .map(String::as_str)
        .chain(["web"])
        .try_for_each(|name| expect_in(&all.stdout, name, "the terminated enclaves"))
}

/// A record's name and published port.
fn name_and_port(record: &Value) -> Result<(String, u16), Failure> {
    let name = record.pointer("/name").and_then(Value::as_str).map(str::to_owned);
    let listen = record.pointer("/publish/0/listen").and_then(Value::as_str);
    let port = listen.and_then(|listen| listen.rsplit_once(':')?.1.parse().ok());
    name.zip(port).ok_or_else(|| Failure::failed(format_args!("no name and port in {record}")))
}

fn running(ps: &Finished) -> Result<usize, Failure> {
    ps.expect_code(0)?;
    let listed = ps.json()?;
    Ok(listed
        .as_array()
        .map_or(0, |all| all.iter().filter(|one| one.pointer("/alive") == Some(&Value::Bool(true))).count()))
}

fn guest(_args: &[String]) -> ExitCode {
    // Random and new at each boot (random(4)): equal for two requests to one machine, never for two machines.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let served = serve_http(8080, |_| boot.trim().to_owned());
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
