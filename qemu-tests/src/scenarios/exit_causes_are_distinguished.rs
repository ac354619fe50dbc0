//! The host receives the exact cause of every exit, and no two causes look alike.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{Signal, getpid, kill_process};
use serde_json::json;

use crate::guest::{POLL_INTERVAL, attempts, catch, print, wait_for_file};
use crate::scenario::{expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// A service that exits with every possible code.
pub(super) const CODES: Scenario =
    Scenario { name: "every_exit_code_is_reported_exactly", host: codes, guest: next_code };

/// A service that dies from every fatal signal.
pub(super) const SIGNALS: Scenario =
    Scenario { name: "every_fatal_signal_is_reported_by_number", host: signals, guest: next_signal };

/// Exits with the same signal and different causes, a service whose main process exits, and one without output.
pub(super) const CAUSES: Scenario =
    Scenario { name: "exit_causes_are_distinguished", host: causes, guest: caused };

/// A machine that QEMU has stopped, as it does after an error inside KVM.
pub(super) const STOPPED: Scenario =
    Scenario { name: "a_machine_stopped_by_qemu_ends_the_run_with_the_reason", host: stopped, guest: idle };

/// Signals whose default action is termination (signal(7)), including the realtime signals. 32 and 33 belong to the C library.
const FATAL: [u8; 54] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 24, 25, 26, 27, 29, 30, 31, 34, 35, 36, 37, 38,
    39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64,
];

/// How much the greedy service allocates at once, in bytes.
const BITE: usize = 1 << 20;

fn stopped(lab: &mut Lab) -> Outcome {
    let image = lab.image("{version: 1, services: {web: {command: [PROBE]}}}")?;
    let (mut web, monitor) = lab.run_with_monitor(&image, &[])?;
    web.wait_ready()?;
    monitor.execute("stop")?;
    let ended = web.finish()?;
    ended.expect_code(125)?;
    expect_in(&ended.stderr, "QEMU stopped the machine (paused)", "the cause")
}

fn idle(_args: &[String]) -> ExitCode {
    let waited = catch(Signal::TERM).and_then(|mut term| term.wait());
    if waited.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn codes(lab: &mut Lab) -> Outcome {
    let manifest = "{version: 1, services: {web: {command: [PROBE], restart: {policy: always, delay: 1ms, max_delay: 1ms, burst: 255}}}}";
    let ended = lab.boot(manifest, &[])?.finish()?;
    ended.expect_code(255)?;
    for code in 0..255 {
        expect_in(&ended.stderr, &format!("restarting in 1 ms after exit code {code}\n"), "a code")?;
    }
    expect_in(&ended.stderr, "failed: exit code 255 after 255 consecutive restarts", "the last code")
}

fn next_code(_args: &[String]) -> ExitCode {
    attempts("/var/codes")
        .ok()
        .and_then(|before| u8::try_from(before).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}

fn signals(lab: &mut Lab) -> Outcome {
    let burst = FATAL.len().saturating_sub(1);
    let manifest = format!(
        "{{version: 1, services: {{web: {{command: [PROBE], restart: {{policy: always, delay: 1ms, max_delay: 1ms, burst: {burst}}}}}}}}}"
    );
    let ended = lab.boot(&manifest, &[])?.finish()?;
    let last = FATAL.last().copied().unwrap_or_default();
    ended.expect_code(i32::from(last).saturating_add(128))?;
    for signal in FATAL {
        let reported = |rest: &str| ended.stderr.contains(&format!(" signal {signal}{rest}"));
        expect(
            reported("\n") || reported(" SIG"),
            format_args!("signal {signal} is missing in:\n{}", ended.stderr),
        )?;
    }
    expect(
        !ended.stderr.contains("seccomp filter") && !ended.stderr.contains("memory"),
        format_args!("a sent signal is reported with another cause in:\n{}", ended.stderr),
    )
}

fn next_signal(_args: &[String]) -> ExitCode {
    let next = attempts("/var/signals").ok().and_then(|before| FATAL.get(before).copied());
    let died = next.map(|signal| die_of(i32::from(signal)));
    drop(writeln!(std::io::stderr(), "still alive after {next:?}: {died:?}"));
    ExitCode::FAILURE
}

/// Kills this process with a signal. Rust's runtime ignores `SIGPIPE`, which the second call undoes first.
fn die_of(signal: i32) -> std::io::Result<()> {
    signal_hook::low_level::raise(signal)?;
    signal_hook::low_level::emulate_default_handler(signal)
}

fn causes(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(
        "
version: 1
services:
  main: {command: [PROBE, main], ready: {log: main is here}, critical: true}
  greedy: {command: [PROBE, greedy], limits: {memory: 16MiB}, restart: never}
  killed: {command: [PROBE, killed], restart: never}
  refused: {command: [PROBE, refused], restart: never}
  mute: {command: [PROBE, mute], ready: {file: /var/mute}, restart: never}
  leaver: {command: [PROBE, parent], restart: never}
",
        &[],
    )?;
    let by_signal = |signal: u8, cause| json!({"signal": {"signal": signal, "cause": cause}});
    for (name, exit) in [
        ("greedy", by_signal(9, json!("out-of-memory"))),
        ("killed", by_signal(9, json!("sent"))),
        ("refused", by_signal(31, json!({"seccomp": "delete_module"}))),
    ] {
        let service = web.wait_service(name, "failed")?;
        expect_eq(&service.get("last_exit"), &Some(&exit), name)?;
    }
    web.wait_service("mute", "ready")?;
    let leaver = web.wait_service("leaver", "done")?;
    expect_eq(&leaver.get("last_exit"), &Some(&json!({"code": 0})), "a service ends with its main process")?;
    let ended = web.stop()?;
    ended.expect_code(0)?;
    expect(!ended.stdout.contains("the daemon was asked to stop"), "the remaining process was killed")?;
    let mute = ended.stderr.lines().find(|line| line.contains("mute: stopped"));
    expect_eq(
        &mute,
        &Some("cloister: mute: stopped: exit code 6"),
        "the exit of a service that closed its output",
    )
}

fn caused(args: &[String]) -> ExitCode {
    let done = match args.first().map(String::as_str) {
        Some("main") => run_until_stopped("main"),
        Some("greedy") => eat(),
        Some("killed") => kill_process(getpid(), Signal::KILL).map_err(Into::into),
        Some("refused") => rustix::system::delete_module(c"nothing", 0).map_err(Into::into),
        Some("mute") => Err(without_output(&["muted"]).exec()),
        Some("muted") => {
            return if run_until_stopped("mute").is_ok() { ExitCode::from(6) } else { ExitCode::FAILURE };
        }
        // Two parents exit without waiting: the daemon is the first process's child when the main process exits.
        Some("parent") => again(&["middle"]).spawn().and_then(|_| wait_for_file("/var/daemon")),
        Some("middle") => again(&["daemon"]).spawn().map(drop),
        Some("daemon") => run_until_stopped("daemon"),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(9) }
}

/// Runs until it is asked to stop. If its output is closed, the line is lost.
fn run_until_stopped(name: &str) -> std::io::Result<()> {
    let mut term = catch(Signal::TERM)?;
    print(format!("{name} is here\n").as_bytes())?;
    std::fs::write(format!("/var/{name}"), "")?;
    term.wait()?;
    print(format!("the {name} was asked to stop\n").as_bytes())
}

fn eat() -> std::io::Result<()> {
    wait_for_file("/var/main")?;
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(vec![1; BITE]);
        // Pages are allocated when written; the compiler must not optimise the writes away.
        std::hint::black_box(&eaten);
    }
}

/// This program again, in another role of the same scenario.
fn again(args: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(CAUSES.name).args(args);
    command
}

/// The same, without the service's pipes.
fn without_output(args: &[&str]) -> Command {
    let mut command = again(args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A mother of [`ORPHANS`]: an ELF for x86-64 that forks 500 children, which exit at once, and exits without waiting. With a
/// larger program ten thousand forks take minutes under emulation.
#[rustfmt::skip]
const MOTHER: [u8; 151] = [
    0x7F, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, // 64-bit, little-endian
    2, 0, 62, 0, 1, 0, 0, 0, 0x78, 0, 0x40, 0, 0, 0, 0, 0, // executable, x86-64, begins at 0x400078
    64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // program headers at 64, no sections
    0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0, // one program header of 56 bytes
    1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // load, read and execute, from the file's start
    0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, // at 0x400000
    151, 0, 0, 0, 0, 0, 0, 0, 151, 0, 0, 0, 0, 0, 0, 0, // 151 bytes
    0, 0x10, 0, 0, 0, 0, 0, 0, // aligned to pages
    0xBB, 0xF4, 1, 0, 0, // mov ebx, 500
    0xB8, 57, 0, 0, 0, 0x0F, 0x05, // again: fork()
    0x85, 0xC0, 0x74, 6, // a child ends
    0x78, 0xF3, // no fork: again
    0xFF, 0xCB, 0x75, 0xEF, // one more until there are 500
    0xB8, 60, 0, 0, 0, 0x31, 0xFF, 0x0F, 0x05, // exit(0)
];

/// Orphans by the thousand.
pub(super) const ORPHANS: Scenario =
    Scenario { name: "ten_thousand_orphans_are_reaped", host: orphans, guest: mothers };

/// Mothers: ten thousand orphans in total.
const MOTHERS: usize = 20;

fn orphans(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    std::fs::write(root.join("mother"), MOTHER)?;
    std::fs::set_permissions(root.join("mother"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let manifest = lab.manifest("{version: 1, services: {web: {command: [PROBE], restart: never}}}")?;
    let image = lab.build(&root, &manifest)?;
    let ended = lab.run(&image, &[])?.finish()?;
    ended.expect_code(0)?;
    expect_in(&ended.stdout, "no zombie is left", "the service's count of its cgroup")?;
    let forks = ended.stdout.split_whitespace().find_map(|number| number.parse::<usize>().ok());
    expect(forks.is_some_and(|forks| forks >= 10_000), format_args!("the kernel's count of forks: {forks:?}"))
}

fn mothers(_args: &[String]) -> ExitCode {
    let before = forks();
    let mothers = (0..MOTHERS).all(|_| Command::new("/mother").status().is_ok_and(|mother| mother.success()));
    let made = forks().saturating_sub(before);
    let printed =
        no_zombie_is_left().and_then(|()| print(format!("{made} forks, no zombie is left\n").as_bytes()));
    if mothers && printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Waits until only this process and the first are left in their cgroup, which counts an exited process until it is reaped.
fn no_zombie_is_left() -> std::io::Result<()> {
    while std::fs::read_to_string("/sys/fs/cgroup/pids.current")?.trim() != "2" {
        std::thread::park_timeout(POLL_INTERVAL);
    }
    Ok(())
}

/// Forks since boot (`processes` in `/proc/stat`).
fn forks() -> usize {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let count = stat.lines().find_map(|line| line.strip_prefix("processes "));
    count.and_then(|count| count.parse().ok()).unwrap_or_default()
}
