//! However a process ends, the host is told how, and no end looks like another.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{Signal, getpid, kill_process};
use serde_json::json;

use crate::guest::{LOOK_AGAIN, attempts, catch, say, wait_for_file};
use crate::story::{expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The story of a service that ends with each code there is.
pub(super) const CODES: Scenario =
    Scenario { name: "every_exit_code_is_told_as_it_was", host: codes, guest: next_code };

/// The story of a service that dies of each signal that kills.
pub(super) const SIGNALS: Scenario =
    Scenario { name: "every_fatal_signal_is_told_by_its_number", host: signals, guest: next_signal };

/// The story of ends that share a signal, and of services without a process or a voice.
pub(super) const CAUSES: Scenario = Scenario {
    name: "out_of_memory_a_kill_and_a_refused_system_call_are_told_apart",
    host: causes,
    guest: caused,
};

/// The story of a machine that QEMU runs no further, as it does after an error inside KVM.
pub(super) const HALTED: Scenario =
    Scenario { name: "a_machine_that_qemu_stopped_is_an_end_with_its_reason", host: halted, guest: idle };

/// Signals whose default is death (signal(7)), the realtime ones with them. 32 and 33 belong to the C library.
const FATAL: [u8; 54] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 24, 25, 26, 27, 29, 30, 31, 34, 35, 36, 37, 38,
    39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64,
];

/// How much the greedy service takes at once, in bytes.
const BITE: usize = 1 << 20;

fn halted(lab: &mut Lab) -> Outcome {
    let image = lab.image("{version: 1, services: {web: {command: [PROBE]}}}")?;
    let (mut web, monitor) = lab.run_with_monitor(&image, &[])?;
    web.wait_ready()?;
    monitor.execute("stop")?;
    let ended = web.finish()?;
    ended.expect_code(125)?;
    expect_in(&ended.stderr, "QEMU stopped the machine (paused)", "what ended it")
}

fn idle(_words: &[String]) -> ExitCode {
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
    expect_in(&ended.stderr, "failed: exit code 255 after 255 restarts in a row", "the last code")
}

fn next_code(_words: &[String]) -> ExitCode {
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
        let told = |words: &str| ended.stderr.contains(&format!(" signal {signal}{words}"));
        expect(told("\n") || told(" SIG"), format_args!("signal {signal} is missing in:\n{}", ended.stderr))?;
    }
    expect(
        !ended.stderr.contains("its filter") && !ended.stderr.contains("memory"),
        format_args!("a signal that was sent has another cause in:\n{}", ended.stderr),
    )
}

fn next_signal(_words: &[String]) -> ExitCode {
    let next = attempts("/var/signals").ok().and_then(|before| FATAL.get(before).copied());
    let died = next.map(|signal| die_of(i32::from(signal)));
    drop(writeln!(std::io::stderr(), "it lives on after {next:?}: {died:?}"));
    ExitCode::FAILURE
}

/// Ends this process by a signal. Rust's runtime ignores `SIGPIPE`, which the second call undoes first.
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
    expect(!ended.stdout.contains("the daemon was asked to end"), "what was left behind was killed")?;
    let mute = ended.stderr.lines().find(|line| line.contains("mute: stopped"));
    expect_eq(
        &mute,
        &Some("cloister: mute: stopped: exit code 6"),
        "the end of a service that closed its output",
    )
}

fn caused(words: &[String]) -> ExitCode {
    let done = match words.first().map(String::as_str) {
        Some("main") => live("main"),
        Some("greedy") => eat(),
        Some("killed") => kill_process(getpid(), Signal::KILL).map_err(Into::into),
        Some("refused") => rustix::system::delete_module(c"nothing", 0).map_err(Into::into),
        Some("mute") => Err(without_voice(&["muted"]).exec()),
        Some("muted") => return if live("mute").is_ok() { ExitCode::from(6) } else { ExitCode::FAILURE },
        // Twice a parent that does not wait: the daemon is the first process's child when the main process ends.
        Some("parent") => again(&["middle"]).spawn().and_then(|_| wait_for_file("/var/daemon")),
        Some("middle") => again(&["daemon"]).spawn().map(drop),
        Some("daemon") => live("daemon"),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(9) }
}

/// Lives until it is asked to end. One whose output is closed says it to nobody.
fn live(name: &str) -> std::io::Result<()> {
    let mut term = catch(Signal::TERM)?;
    say(format!("{name} is here\n").as_bytes())?;
    std::fs::write(format!("/var/{name}"), "")?;
    term.wait()?;
    say(format!("the {name} was asked to end\n").as_bytes())
}

fn eat() -> std::io::Result<()> {
    wait_for_file("/var/main")?;
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(vec![1; BITE]);
        // Pages are taken when they are written, which the compiler must not find needless.
        std::hint::black_box(&eaten);
    }
}

/// This program once more, in another role of the same story.
fn again(words: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(CAUSES.name).args(words);
    command
}

/// The same, with no end of the service's pipes.
fn without_voice(words: &[&str]) -> Command {
    let mut command = again(words);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A mother of [`ORPHANS`]: an ELF for x86-64 that forks 500 children, which end at once, and ends without waiting. Of any
/// larger program ten thousand forks take minutes under translation.
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

/// The story of orphans by the thousand.
pub(super) const ORPHANS: Scenario =
    Scenario { name: "ten_thousand_orphans_are_reaped", host: orphans, guest: mothers };

/// Mothers: ten thousand orphans in all.
const MOTHERS: usize = 20;

fn orphans(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    std::fs::write(root.join("mother"), MOTHER)?;
    std::fs::set_permissions(root.join("mother"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let manifest = lab.manifest("{version: 1, services: {web: {command: [PROBE], restart: never}}}")?;
    let image = lab.build(&root, &manifest)?;
    let ended = lab.run(&image, &[])?.finish()?;
    ended.expect_code(0)?;
    expect_in(&ended.stdout, "none is left", "what the service counts in its cgroup")?;
    let forks = ended.stdout.split_whitespace().find_map(|word| word.parse::<usize>().ok());
    expect(
        forks.is_some_and(|forks| forks >= 10_000),
        format_args!("forks, as the kernel counts them: {forks:?}"),
    )
}

fn mothers(_words: &[String]) -> ExitCode {
    let before = forks();
    let mothers = (0..MOTHERS).all(|_| Command::new("/mother").status().is_ok_and(|mother| mother.success()));
    let made = forks().saturating_sub(before);
    let told = none_is_left().and_then(|()| say(format!("{made} forks, none is left\n").as_bytes()));
    if mothers && told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Waits until this process and the first are alone in their cgroup, where one that ended counts until it is reaped.
fn none_is_left() -> std::io::Result<()> {
    while std::fs::read_to_string("/sys/fs/cgroup/pids.current")?.trim() != "2" {
        std::thread::park_timeout(LOOK_AGAIN);
    }
    Ok(())
}

/// Forks since boot (`processes` in `/proc/stat`).
fn forks() -> usize {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let count = stat.lines().find_map(|line| line.strip_prefix("processes "));
    count.and_then(|count| count.parse().ok()).unwrap_or_default()
}
