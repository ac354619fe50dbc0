//! The capabilities that the supervisor retains, as the kernel shows them, and what it needs them for: the features that inspect
//! services of other users.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::process::ExitCode;

use crate::guest::{MACHINE, find_process, serve_http};
use crate::scenario::{expect, expect_at, expect_eq};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "the_supervisor_retains_four_capabilities_and_its_own_system_calls",
    host: confined,
    guest,
};

/// `private` is ready by a file in a directory that only its user may enter, in a view that only it has. `open` is recognised as the
/// listener on its port by its descriptors.
const MANIFEST: &str = "
version: 1
services:
  web: {command: [PROBE, serve, '8080'], ready: {http: {port: 8080, path: /}}}
  open: {command: [PROBE, serve, '8081'], user: '1001', ready: {tcp: 8081}}
  private: {command: [PROBE, private], user: '1002', ready: {file: /tmp/private/ready}}
ingress:
  - {port: 80, service: web, target: 8080}
";

/// `DAC_READ_SEARCH`, `NET_ADMIN`, `SYS_PTRACE` and `SYS_RESOURCE` of `linux/capability.h`.
const KEPT: u64 = 1 << 2 | 1 << 12 | 1 << 19 | 1 << 24;

fn confined(lab: &mut Lab) -> Outcome {
    let port = lab.free_port()?;
    let web = lab.boot_with_sender(MANIFEST, &["--publish", &format!("{port}:80")])?;
    web.wait_ready()?;
    let status = web.get(port, "/supervisor")?.body;
    let mask = |bits: u64| format!("{bits:016x}");
    let expected = [
        ("CapInh", mask(0)),
        ("CapPrm", mask(KEPT)),
        ("CapEff", mask(KEPT)),
        ("CapBnd", mask(KEPT)),
        ("CapAmb", mask(0)),
        ("NoNewPrivs", "1".to_owned()),
        ("Seccomp", "2".to_owned()),
        ("Threads", "1".to_owned()),
    ];
    for (name, value) in expected {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        expect_eq(&line.map(str::trim), &Some(value.as_str()), name)?;
    }
    let shown = web.command(&["inspect", "web", "--service", "private", "--json"])?;
    shown.expect_code(0)?;
    let shown = shown.json()?;
    let mounts = shown.pointer("/mounts").and_then(serde_json::Value::as_array);
    expect(mounts.is_some_and(|mounts| !mounts.is_empty()), format_args!("no mounts in {shown}"))?;
    // It is still root, and writes two settings after it has dropped its capabilities: the host name, and the manifest's ports.
    expect_eq(&web.get(port, "/settings")?.body, &"app 8080-8081".to_owned(), "the kernel settings")?;
    expect_at(&web.inspect()?, "/status/supervisor_restarts", 0)
}

fn guest(args: &[String]) -> ExitCode {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["serve", "8080"] => serve_http(8080, |path| match path {
            "/settings" => settings(),
            _ => supervisor(),
        }),
        ["serve", _] => serve_http(8081, |_| String::new()),
        _ => fs::DirBuilder::new()
            .mode(0o700)
            .create("/tmp/private")
            .and_then(|()| fs::write("/tmp/private/ready", ""))
            .map(|()| std::thread::park()),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The supervisor's `status` (proc(5)).
fn supervisor() -> String {
    let status = find_process("supervisor")
        .and_then(|pid| fs::read_to_string(format!("{MACHINE}/{}/status", pid.as_raw_nonzero())));
    status.unwrap_or_else(|error| error.to_string())
}

/// The kernel settings that the supervisor writes.
fn settings() -> String {
    let files = ["/proc/sys/kernel/hostname", "/proc/sys/net/ipv4/ip_local_reserved_ports"];
    let values = files.map(|file| fs::read_to_string(file).unwrap_or_else(|error| error.to_string()));
    values.map(|value| value.trim().to_owned()).join(" ")
}
