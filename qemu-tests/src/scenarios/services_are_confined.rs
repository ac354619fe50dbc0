//! What a service can and cannot do, as found by services that try.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, netlink, socket};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, kill_process_group, prlimit};
use serde_json::{Value, json};

use super::protected_files_cannot_be_replaced::change;
use crate::guest::{catch, print};
use crate::lab::Running;
use crate::scenario::{Failure, expect, expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// A service with nothing but its manifest's user.
pub(super) const DEFAULTS: Scenario =
    Scenario { name: "a_service_has_its_user_no_capabilities_and_no_escape", host, guest };

/// The kernel's view of two services, one of them with every confinement option of a manifest.
pub(super) const INSPECTED: Scenario =
    Scenario { name: "inspect_reports_the_confinement_of_the_manifest", host: inspected, guest: confined };

/// A service that uses the whole machine's memory.
pub(super) const MEMORY: Scenario = Scenario {
    name: "out_of_memory_kills_the_service_and_ends_the_enclave_in_order",
    host: memory,
    guest: greedy,
};

/// A service that is root and sends signals to every process.
pub(super) const SIGNALS: Scenario = Scenario {
    name: "a_root_service_that_kills_everything_kills_its_own_children_only",
    host: signals,
    guest: deadly,
};

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
        "socket diagnosis: refused as unknown, routes: allowed",
        "Max core file size        0                    0",
        "/dev: fd full null ptmx pts random shm stderr stdin stdout tty urandom zero",
        "/tmp: empty and writable",
        "/sys/kernel/config: absent or empty",
        "stdout blocks: true",
        "written to the name of /dev/stdout",
        "environment: A=b",
    ] {
        expect_in(&ended.stdout, fact, "the service's result")?;
    }
    expect_eq(&ended.stdout.matches("cgroup: 0::/").count(), &1, "a cgroup of its own")
}

fn guest(_args: &[String]) -> ExitCode {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let vsock = socket(AddressFamily::from_raw(VSOCK), SocketType::STREAM, None);
    // The default protocol is `NETLINK_ROUTE`, with which programs list network interfaces.
    let made = |protocol| socket(AddressFamily::NETLINK, SocketType::DGRAM, protocol);
    let unknown = made(Some(netlink::SOCK_DIAG)).is_err_and(|error| error == Errno::PROTONOSUPPORT);
    let flags = rustix::fs::fcntl_getfl(std::io::stdout());
    let environment: Vec<String> = std::env::vars().map(|(key, value)| format!("{key}={value}")).collect();
    let report = format!(
        "{status}\n{limits}\nvsock: {}\nsocket diagnosis: {}, routes: {}\n/dev: {}\n/tmp: {}\n/sys/kernel/config: {}\nstdout blocks: {}\nenvironment: {}\ncgroup: {cgroup}\n",
        if vsock.is_err() { "refused" } else { "allowed" },
        if unknown { "refused as unknown" } else { "not refused as unknown" },
        if made(None).is_ok() { "allowed" } else { "refused" },
        names("/dev").unwrap_or_default().join(" "),
        if names("/tmp").is_some_and(|all| all.is_empty()) && fs::write("/tmp/x", "x").is_ok() {
            "empty and writable"
        } else {
            "not empty or not writable"
        },
        if names("/sys/kernel/config").unwrap_or_default().is_empty() { "absent or empty" } else { "there" },
        flags.is_ok_and(|flags| !flags.contains(rustix::fs::OFlags::NONBLOCK)),
        environment.join(" "),
    );
    let by_name = fs::write("/dev/stdout", "written to the name of /dev/stdout\n");
    if print(report.as_bytes()).is_ok() && by_name.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `AF_VSOCK` of `linux/socket.h`.
const VSOCK: u16 = 40;

/// The sorted names in a directory, if it can be read.
fn names(folder: &str) -> Option<Vec<String>> {
    let mut names: Vec<String> =
        fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Some(names)
}

/// One service with nothing but its command, one with every option that confines.
const TWO_SERVICES: &str = "
version: 1
services:
  plain: {command: [PROBE, plain], ready: {file: /var/plain}}
  web:
    command: [PROBE, web]
    user: app
    groups: [4242]
    capabilities: [net_bind_service]
    writable: [/var]
    limits: {memory: 64MiB, cpu: 0.5, pids: 20, open_files: 512}
    files: {/etc/app.conf: {content: hello, mode: 0400}}
    after: [plain]
    ready: {log: end of report}
";

fn inspected(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(TWO_SERVICES, &[])?;
    web.wait_ready()?;
    same(
        &confinement(&web, "web")?,
        &json!({
            "uids": [1000, 1000, 1000, 1000],
            "gids": [1000, 1000, 1000, 1000],
            "groups": [4242],
            "no_new_privs": true,
            "seccomp": 2,
            "capabilities_bounding": 1024,
            "capabilities_effective": 1024,
            "oom_score_adj": 0,
            "cgroup": [
                ["memory.max", "67108864"],
                ["cpu.max", "50000 100000"],
                ["pids.max", "21"],
                ["memory.oom.group", "1"],
            ],
            "limits": [["Max core file size", "0", "0"], ["Max open files", "512", "512"]],
        }),
    )?;
    let plain = confinement(&web, "plain")?;
    same(
        &plain,
        &json!({
            "uids": [0, 0, 0, 0],
            "groups": [],
            "no_new_privs": true,
            "seccomp": 2,
            "capabilities_bounding": 0,
            "capabilities_effective": 0,
            "oom_score_adj": 0,
            "limits": [["Max core file size", "0", "0"], ["Max open files", "65536", "65536"]],
        }),
    )?;
    memory_is_left(&plain)?;
    let ended = web.stop()?;
    for fact in TRIED {
        expect_in(&ended.stdout, &format!("{fact}\n"), "the service's result")?;
    }
    Ok(())
}

/// The machine's memory, in bytes: the default for a small image.
const GIVEN: u64 = 512 << 20;

/// What the services leave of it to init and the supervisor, in bytes.
const LEFT: u64 = 16 << 20;

/// The results of a service with `writable: [/var]`.
const TRIED: [&str; 22] = [
    "/etc/open/new: Read-only file system",
    "chmod /etc/open: Read-only file system",
    "chown /etc/open: Read-only file system",
    "setxattr /etc/open: Read-only file system",
    "utimes /etc/open: Read-only file system",
    "chmod /etc/passwd: Read-only file system",
    "chmod /var/open/new: done",
    "chown /var/open/new: done",
    "setxattr /var/open/new: done",
    "utimes /var/open/new: done",
    "another service's /etc/app.conf: ",
    "/var/new: Permission denied",
    "/var/open/new: written",
    "/tmp/new: written",
    "/sys/kernel/profiling: Read-only file system",
    "/proc/sys/kernel/hostname: Read-only file system",
    "/etc/app.conf: hello",
    "/tmp/plain: not there",
    "/proc/7: not there",
    "/dev/nsm: not there",
    "/cloister/manifest.json: not there",
    "unmount /tmp: Operation not permitted",
];

/// All services together must not use the whole machine.
fn memory_is_left(confinement: &Value) -> Outcome {
    let together = confinement.get("services_memory").and_then(Value::as_u64).unwrap_or(u64::MAX);
    let most = GIVEN - LEFT;
    expect(
        (GIVEN / 2..most).contains(&together),
        format_args!("services may use {together} of {GIVEN} bytes"),
    )
}

/// `host-sleeve inspect web --service NAME --json`: the confinement of a service.
pub(super) fn confinement(web: &Running, service: &str) -> Result<Value, Failure> {
    let asked = web.command(&["inspect", "web", "--service", service, "--json"])?;
    asked.expect_code(0)?;
    asked.json()
}

/// Every field of `expected` has the same value in `found`.
fn same(found: &Value, expected: &Value) -> Outcome {
    for (field, value) in expected.as_object().into_iter().flatten() {
        expect_eq(&found.get(field), &Some(value), field)?;
    }
    Ok(())
}

fn confined(args: &[String]) -> ExitCode {
    let name = args.first().map_or("", String::as_str);
    let result = catch(Signal::TERM).and_then(|mut term| {
        let done = if name == "plain" { open_up() } else { try_everything() };
        done.and_then(|()| term.wait())
    });
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Creates two directories that any user may write by their mode, so that the mode is not the reason for a refusal.
fn open_up() -> std::io::Result<()> {
    for folder in ["/etc/open", "/var/open"] {
        fs::create_dir(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777))?;
    }
    fs::write("/var/another", fs::read("/etc/app.conf")?)?;
    fs::write("/tmp/plain", "")?;
    fs::write("/var/plain", "")
}

/// Tries everything, and prints the results.
fn try_everything() -> std::io::Result<()> {
    let mut report = String::new();
    let mut fact = |what: &str, came: String| report.push_str(&[what, ": ", &came, "\n"].concat());
    let reason = |error: std::io::Error| error.to_string().split(" (").next().unwrap_or_default().to_owned();
    for path in [
        "/etc/open/new",
        "/var/new",
        "/var/open/new",
        "/tmp/new",
        "/sys/kernel/profiling",
        "/proc/sys/kernel/hostname",
    ] {
        fact(path, fs::write(path, "x").map_or_else(reason, |()| "written".to_owned()));
    }
    for path in ["/etc/open", "/etc/passwd", "/var/open/new"] {
        for (of, attempt) in change(path) {
            fact(&format!("{of} {path}"), attempt.map_or_else(reason, |()| "done".to_owned()));
        }
    }
    fact("another service's /etc/app.conf", fs::read_to_string("/var/another").unwrap_or_else(reason));
    fact("/etc/app.conf", fs::read_to_string("/etc/app.conf").unwrap_or_else(reason));
    for path in ["/tmp/plain", "/proc/7", "/dev/nsm", "/cloister/manifest.json"] {
        fact(path, if fs::exists(path).is_ok_and(|there| there) { "there" } else { "not there" }.to_owned());
    }
    let unmounted = rustix::mount::unmount("/tmp", rustix::mount::UnmountFlags::empty());
    fact("unmount /tmp", unmounted.map_or_else(|error| reason(error.into()), |()| "done".to_owned()));
    report.push_str("end of report\n");
    print(report.as_bytes())
}

fn memory(lab: &mut Lab) -> Outcome {
    let manifest = "
version: 1
services:
  web: {command: [PROBE, eat], critical: true, restart: never, after: [other]}
  other: {command: [PROBE, other], ready: {file: /var/other}}
";
    let ended = lab.boot(manifest, &["--memory", "256MiB"])?.finish()?;
    ended.expect_code(137)?;
    expect_in(&ended.stderr, "web ended: signal 9 SIGKILL: out of memory", "the cause")?;
    expect_in(&ended.stdout, "other was asked to stop", "the stop of the others")?;
    expect(!ended.stderr.contains("restarted after a crash"), "the supervisor kept running")
}

fn greedy(args: &[String]) -> ExitCode {
    if args.first().is_some_and(|role| role == "eat") {
        let mut eaten: Vec<Vec<u8>> = Vec::new();
        loop {
            eaten.push(vec![1; BITE]);
            // Pages are allocated when written; the compiler must not optimise the writes away.
            std::hint::black_box(&eaten);
        }
    }
    let result = catch(Signal::TERM).and_then(|mut term| {
        fs::write("/var/other", "")?;
        term.wait()?;
        print(b"other was asked to stop\n")
    });
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How much is allocated at once, in bytes.
const BITE: usize = 1 << 20;

/// Neither service names a user, so both are root, like the supervisor and init.
const DEADLY: &str = "
version: 1
services:
  calm: {command: [PROBE, calm], ready: {file: /var/calm}}
  rogue: {command: [PROBE, rogue], kind: job, writable: [], after: [calm]}
  another: {command: [PROBE, rogue], kind: job, after: [rogue]}
  last: {command: [PROBE, calm], ready: {file: /var/calm}, after: [another]}
";

fn signals(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(DEADLY, &[])?;
    web.wait_ready()?;
    for rogue in ["rogue", "another"] {
        let log = web.command(&["logs", "web", "--service", rogue])?;
        for fact in
            ["processes: 1 2", "its own core: done", "a child: killed", "everybody: its own child was killed"]
        {
            expect_in(&log.stdout, &format!("{fact}\n"), rogue)?;
        }
    }
    let inspected = web.inspect()?;
    expect_at(&inspected, "/status/supervisor_restarts", 0)?;
    for name in ["calm", "last"] {
        expect_eq(&web.service(name)?.get("restarts"), &Some(&json!(0)), name)?;
    }
    let ended = web.stop()?;
    expect_eq(&ended.stdout.matches("calm was asked to stop").count(), &2, "the services that ran to the end")
}

fn deadly(args: &[String]) -> ExitCode {
    let result = match args.first().map(String::as_str) {
        Some("rogue") => kill_all(),
        Some("child") => catch(Signal::TERM).and_then(|mut term| term.wait()),
        _ => catch(Signal::TERM).and_then(|mut term| {
            fs::write("/var/calm", "")?;
            term.wait()?;
            print(b"calm was asked to stop\n")
        }),
    };
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints the processes that it sees, sends signals to all of them, and prints the results.
fn kill_all() -> std::io::Result<()> {
    let seen = names("/proc").unwrap_or_default().into_iter();
    let seen: Vec<String> = seen.filter(|name| name.parse::<u32>().is_ok()).collect();
    print(format!("processes: {}\n", seen.join(" ")).as_bytes())?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    came("its own core", prlimit(None, Resource::Core, none).map(drop))?;
    let mut child = sleeper()?;
    kill_process(Pid::from_child(&child), Signal::KILL)?;
    if child.wait()?.signal() == Some(Signal::KILL.as_raw()) {
        print(b"a child: killed\n")?;
    }
    let mut child = sleeper()?;
    // The group of number 1 contains every visible process, except for the first process and the sender (kill(2), a pid of -1).
    kill_process_group(Pid::INIT, Signal::KILL)?;
    if child.wait()?.signal() == Some(Signal::KILL.as_raw()) {
        print(b"everybody: its own child was killed\n")?;
    }
    Ok(())
}

/// Prints the result of an attempt, without the error's number.
fn came<E: Into<std::io::Error>>(of: &str, attempt: Result<(), E>) -> std::io::Result<()> {
    let result = attempt.map_or_else(|error| error.into().to_string(), |()| "done".to_owned());
    print(format!("{of}: {}\n", result.split(" (").next().unwrap_or_default()).as_bytes())
}

/// A child that runs until it is killed.
fn sleeper() -> std::io::Result<Child> {
    Command::new("/proc/self/exe").args([SIGNALS.name, "child"]).spawn()
}
