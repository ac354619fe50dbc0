//! What a service can and cannot do: told by a service that tries.

use std::fs;
use std::process::ExitCode;

use rustix::net::{AddressFamily, SocketType, socket};

use crate::guest::say;
use crate::story::{expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The story of a service with nothing but its manifest's user.
pub(super) const DEFAULTS: Scenario =
    Scenario { name: "a_service_has_its_user_no_capabilities_and_no_way_around_the_boundary", host, guest };

fn host(lab: &mut Lab) -> Outcome {
    let manifest =
        "{version: 1, services: {web: {command: [PROBE], user: app, env: {A: b}, restart: never}}}";
    let mut web = lab.boot(manifest, &[])?;
    let ended = web.finish()?;
    ended.expect_code(0)?;
    for fact in [
        "Uid:\t1000\t1000\t1000\t1000",
        "Gid:\t1000\t1000\t1000\t1000",
        "CapBnd:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "vsock: refused",
        "Max core file size        0                    0",
        "/dev: fd full null ptmx pts random shm stderr stdin stdout tty urandom zero",
        "/tmp: empty and writable",
        "/sys/kernel/config: absent or empty",
        "stdout blocks: true",
        "environment: A=b",
    ] {
        expect_in(&ended.stdout, fact, "what the service saw")?;
    }
    expect_eq(&ended.stdout.matches("cgroup: 0::/").count(), &1, "a cgroup of its own")
}

fn guest(_words: &[String]) -> ExitCode {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let vsock = socket(AddressFamily::from_raw(VSOCK), SocketType::STREAM, None);
    let flags = rustix::fs::fcntl_getfl(std::io::stdout());
    let environment: Vec<String> = std::env::vars().map(|(key, value)| format!("{key}={value}")).collect();
    let report = format!(
        "{status}\n{limits}\nvsock: {}\n/dev: {}\n/tmp: {}\n/sys/kernel/config: {}\nstdout blocks: {}\nenvironment: {}\ncgroup: {cgroup}\n",
        if vsock.is_err() { "refused" } else { "allowed" },
        names("/dev").unwrap_or_default().join(" "),
        if names("/tmp").is_some_and(|all| all.is_empty()) && fs::write("/tmp/x", "x").is_ok() {
            "empty and writable"
        } else {
            "not so"
        },
        if names("/sys/kernel/config").unwrap_or_default().is_empty() { "absent or empty" } else { "there" },
        flags.is_ok_and(|flags| !flags.contains(rustix::fs::OFlags::NONBLOCK)),
        environment.join(" "),
    );
    if say(report.as_bytes()).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `AF_VSOCK` of `linux/socket.h`.
const VSOCK: u16 = 40;

/// The sorted names in a folder, if there is one that can be read.
fn names(folder: &str) -> Option<Vec<String>> {
    let mut names: Vec<String> =
        fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Some(names)
}
