//! Each service is alone with its processes, as in a container: numbers from 1 on, a parent for orphans, and a common end.

use std::fs;
use std::process::{Command, ExitCode};

use rustix::fs::{CWD, FileType, Mode, makedev};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::guest::{POLL_INTERVAL, catch, print, wait_for_file};
use crate::scenario::{expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// What programs written for containers expect of process 1, with Cloister's first process above them and without it.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "process_1_of_a_service_behaves_as_in_a_container", host, guest };

/// `user: app` is not root; both must reach `/proc/1`.
const MANIFEST: &str = "
version: 1
services:
  main: {command: [PROBE, main], ready: {log: main is here}, critical: true}
  below: {command: [PROBE, below], env: {COLOUR: green}, restart: never, after: [main]}
  of-app: {command: [PROBE, below], user: app, env: {COLOUR: green}, restart: never, after: [below]}
  first: {command: [PROBE, first], first_process: service, restart: never, after: [of-app]}
  aborts: {command: [PROBE, aborts], first_process: service, restart: never, after: [of-app]}
  leaver: {command: [PROBE, leaver], kind: job, after: [of-app]}
  maker: {command: [PROBE, maker], capabilities: [mknod], restart: never, after: [of-app]}
  dies: {command: [PROBE, dies], first_process: service, restart: never, after: [of-app]}
";

fn host(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(MANIFEST, &[])?;
    let by_signal = |signal: u8, cause| json!({"signal": {"signal": signal, "cause": cause}});
    for (name, phase, exit) in [
        ("below", "done", json!({"code": 0})),
        ("of-app", "done", json!({"code": 0})),
        ("first", "done", json!({"code": 0})),
        // The kernel ignores a signal that process 1 raises without a handler; the C library then crashes on purpose.
        ("aborts", "failed", by_signal(11, json!("sent"))),
        ("leaver", "done", json!({"code": 0})),
        ("maker", "done", json!({"code": 0})),
        ("dies", "failed", by_signal(31, json!({"seccomp": "delete_module"}))),
    ] {
        let service = web.wait_service(name, phase)?;
        expect_eq(&service.get("last_exit"), &Some(&exit), name)?;
    }
    for name in ["below", "of-app"] {
        let log = web.command(&["logs", "web", "--service", name])?.stdout;
        for fact in [
            "my number is 2, my parent's 1",
            "written to the name of /proc/1/fd/1",
            "process 1 has my colour",
            "an orphan was reaped",
            "the signal to process 1 has arrived",
        ] {
            expect_in(&log, fact, name)?;
        }
    }
    let log = web.command(&["logs", "web", "--service", "first"])?.stdout;
    expect_in(&log, "my number is 1, my parent's 0", "a service that is process 1")?;
    let ended = web.stop()?;
    ended.expect_code(0)?;
    expect(!ended.stdout.contains("the one left behind"), "a child outlived its service")
}

fn guest(args: &[String]) -> ExitCode {
    let done = match args.first().map(String::as_str) {
        Some("main") => run_until_stopped(),
        Some("below") => below(),
        Some("first") => who(),
        Some("aborts") => std::process::abort(),
        Some("leaver") => again("left").and_then(|()| wait_for_file("/var/left")),
        Some("left") => left(),
        Some("maker") => make(),
        Some("middle") => again("orphan"),
        Some("orphan") => Ok(()),
        Some("dies") => rustix::system::delete_module(c"nothing", 0).map_err(Into::into),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(print(format!("{args:?}: {error}\n").as_bytes()));
            ExitCode::FAILURE
        }
    }
}

fn run_until_stopped() -> std::io::Result<()> {
    let mut term = catch(Signal::TERM)?;
    print(b"main is here\n")?;
    term.wait()
}

fn who() -> std::io::Result<()> {
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    print(format!("my number is {}, my parent's {parent}\n", std::process::id()).as_bytes())
}

fn below() -> std::io::Result<()> {
    who()?;
    fs::write("/proc/1/fd/1", "written to the name of /proc/1/fd/1\n")?;
    let environment = fs::read("/proc/1/environ")?;
    if environment.split(|byte| *byte == 0).any(|variable| variable == b"COLOUR=green") {
        print(b"process 1 has my colour\n")?;
    }
    // A parent that does not wait for its child, and exits: the child is then process 1's.
    Command::new("/proc/self/exe").args([SCENARIO.name, "middle"]).status()?;
    while processes()? > 2 {
        std::thread::park_timeout(POLL_INTERVAL);
    }
    print(b"an orphan was reaped\n")?;
    let mut term = catch(Signal::TERM)?;
    kill_process(Pid::INIT, Signal::TERM)?;
    term.wait()?;
    print(b"the signal to process 1 has arrived\n")
}

/// Creates the machine's null device wherever it can, and fails if it can be opened anywhere.
fn make() -> std::io::Result<()> {
    for path in ["/dev/made", "/dev/shm/made", "/tmp/made", "/var/made"] {
        let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o666));
        rustix::fs::mknodat(CWD, path, kind, mode, makedev(1, 3))?;
        match fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            opened => return Err(std::io::Error::other(format!("{path}: {opened:?}"))),
        }
    }
    fs::write("/dev/null", "existing devices can be used")
}

/// The number of processes in `/proc`.
fn processes() -> std::io::Result<usize> {
    let names = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name.parse::<u32>().is_ok()).count())
}

/// Starts this program in another role, and does not wait for it.
fn again(role: &str) -> std::io::Result<()> {
    Command::new("/proc/self/exe").args([SCENARIO.name, role]).spawn().map(drop)
}

/// Keeps running after the main process has exited, if it can.
fn left() -> std::io::Result<()> {
    let mut term = catch(Signal::TERM)?;
    fs::write("/var/left", "")?;
    term.wait()?;
    print(b"the one left behind was asked to stop\n")
}
