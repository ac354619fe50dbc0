//! The supervisor is killed, and the services, new connections and the log continue.
//!
//! No service can do that, so the lab's init has a process beside it that does.

use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use cloister_wire::ports::{LOCAL_CONTROL, LOCAL_LOGS};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::Value;

use crate::guest::{catch, find_process, kill_supervisor, print, serve_http};
use crate::lab::Running;
use crate::scenario::{Failure, expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// Crashes under load.
pub(super) const UNDER_LOAD: Scenario = Scenario {
    name: "a_killed_supervisor_costs_no_service_no_log_line_and_less_than_a_second_of_ingress",
    host: under_load,
    guest,
};

/// Repeated crashes.
pub(super) const TOO_OFTEN: Scenario = Scenario {
    name: "a_supervisor_that_keeps_dying_is_a_fatal_state_with_the_reason",
    host: too_often,
    guest,
};

/// Parallel clients: one is measured, the others make sure that connections are open whenever the supervisor dies.
const CLIENTS: usize = 3;

/// Crashes in the scenario: the second one hits a supervisor that has taken over what it did not start.
const CRASHES: u64 = 2;

/// Answers before the next crash, so that there is load and a log line between two of them.
const ANSWERS: u32 = 20;

/// Maximum time without ingress: the limit that the design sets, for a machine on which an answer takes no longer than 25 ms.
const LONGEST_GAP: Duration = Duration::from_secs(1);

/// The same limit in answers. A slower machine, such as the emulated one of `scripts/nested` on a busy host (1.4 seconds), also
/// starts a supervisor proportionally slower.
const GAP_IN_ANSWERS: u32 = 40;

/// The pause between two numbered lines: about a hundred a second, far from filling a ring before it is read.
const BETWEEN_LINES: Duration = Duration::from_millis(2);

const MANIFEST: &str = "
version: 1
services:
  web: {command: [PROBE, web], ready: {tcp: 8080}, critical: true}
  talker: {command: [PROBE, talker], user: app}
ingress: [{port: 80, service: web, target: 8080}]
";

fn under_load(lab: &mut Lab) -> Outcome {
    let port = lab.free_port()?;
    let mut web = lab.boot_with_sender(MANIFEST, &["--publish", &format!("127.0.0.1:{port}:80")])?;
    let before = web.wait_ready()?;
    let (calm, _) = measured(&web, port, || (0..ANSWERS).try_for_each(|_| web.get(port, "/").map(drop)))?;
    let (crashed, answer) =
        measured(&web, port, || (1..=CRASHES).try_for_each(|count| crash(&web, port, count)))?;
    let limit = LONGEST_GAP.max(answer.saturating_mul(GAP_IN_ANSWERS)).saturating_add(calm);
    expect(
        crashed < limit,
        format_args!(
            "ingress was away for {crashed:?}; an answer took {answer:?}, the longest without a crash {calm:?}"
        ),
    )?;
    let after = web.inspect()?;
    expect_eq(&pids(&after), &pids(&before), "the processes of the services")?;
    expect_eq(&number(&after, "/status/services/0/restarts"), &Some(0), "restarts of a service")?;
    let ended = web.stop()?;
    expect(
        !ended.stdout.contains(TAKEN),
        ended.stdout.lines().find(|line| line.contains(TAKEN)).unwrap_or_default(),
    )?;
    each_line_once(&web)
}

fn too_often(lab: &mut Lab) -> Outcome {
    let manifest = "{version: 1, services: {web: {command: [PROBE, assassin]}}}";
    let mut web = lab.boot_with_sender(manifest, &[])?;
    let ended = web.finish()?;
    ended.expect_code(125)?;
    expect_in(&ended.stderr, "supervisor: ended 5 times within 60 s", "the reason")?;
    expect_in(&ended.stderr, "most recently killed by signal 9", "its cause of death")
}

/// Kills the supervisor for the `count`th time and waits until another has taken over.
fn crash(web: &Running, port: u16, count: u64) -> Outcome {
    for _ in 0..ANSWERS {
        web.get(port, "/")?;
    }
    // The answer comes through the supervisor, and is lost with it.
    drop(web.get(port, "/kill"));
    web.wait_stderr_times("is degraded: the supervisor was restarted after a crash", count)?;
    web.wait_stderr_times("is ready again", count)?;
    // The record is written just after the line on stderr.
    web.until("a record that counts the restart", || {
        let now = web.wait_ready()?;
        Ok((number(&now, "/status/supervisor_restarts") == Some(count)).then_some(()))
    })
}

/// Does `work` under load. Returns the longest time that one client was without an answer, and the shortest median time of an
/// answer among the clients.
fn measured(
    web: &Running,
    port: u16,
    work: impl FnOnce() -> Outcome,
) -> Result<(Duration, Duration), Failure> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| gaps(web, port, &stop))).collect();
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let measured =
            clients.into_iter().map(|client| client.join().unwrap_or((Duration::MAX, Duration::ZERO)));
        let (longest, usual): (Vec<_>, Vec<_>) = measured.unzip();
        done.map(|()| {
            (longest.into_iter().max().unwrap_or(Duration::MAX), usual.into_iter().min().unwrap_or_default())
        })
    })
}

/// Sends requests repeatedly, and returns the longest time between two answers and the median.
fn gaps(web: &Running, port: u16, stop: &AtomicBool) -> (Duration, Duration) {
    let (mut all, mut last) = (Vec::new(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        if web.get(port, "/").is_ok_and(|answer| answer.status == 200) {
            all.push(last.elapsed());
            last = Instant::now();
        }
    }
    all.push(last.elapsed());
    all.sort_unstable();
    let middle = all.get(all.len() / 2).copied().unwrap_or_default();
    (all.last().copied().unwrap_or_default(), middle)
}

/// The talker's lines as received by the host: numbers from 1 to the last, each once, in order.
fn each_line_once(web: &Running) -> Outcome {
    let logs = web.command(&["logs", "web", "--service", "talker"])?;
    logs.expect_code(0)?;
    let (lines, last) = logs.stdout.split_once("the last was ").ok_or_else(|| {
        Failure::failed(format_args!("the talker's last line is missing:\n{}", logs.stderr))
    })?;
    let mut expected = 0_u64;
    for line in lines.lines() {
        expected = expected.saturating_add(1);
        expect_eq(&line, &format!("line {expected}").as_str(), "the next line of the log")?;
    }
    expect_eq(&last.trim(), &expected.to_string().as_str(), "the number of lines")?;
    expect(expected > 0, "the talker printed lines")
}

fn pids(inspected: &Value) -> Vec<Option<u64>> {
    (0..2).map(|place| number(inspected, &format!("/status/services/{place}/pid"))).collect()
}

fn number(inspected: &Value, pointer: &str) -> Option<u64> {
    inspected.pointer(pointer).and_then(Value::as_u64)
}

fn guest(args: &[String]) -> ExitCode {
    let done = match args.first().map(String::as_str) {
        Some("web") => web(),
        Some("talker") => talk(),
        Some("assassin") => assassinate(),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    };
    if let Err(error) = &done {
        drop(writeln!(std::io::stderr(), "{error}"));
    }
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn web() -> std::io::Result<()> {
    serve_http(8080, |path| match path {
        "/kill" => format!("{:?}", take_over()),
        _ => "here".to_owned(),
    })
}

/// Kills the supervisor, and tries to listen at its addresses until there is another.
fn take_over() -> std::io::Result<()> {
    let killed = find_process("supervisor")?;
    kill_supervisor()?;
    while find_process("supervisor").is_ok_and(|pid| pid == killed) {
        thread::yield_now();
    }
    loop {
        for name in [LOCAL_CONTROL, LOCAL_LOGS, NOTIFY] {
            let address = SocketAddr::from_abstract_name(name)?;
            // Each kind of socket has its own address space (`unix_abstract_hash` of Linux).
            let taken = match name {
                NOTIFY => UnixDatagram::bind_addr(&address).is_ok(),
                _ => UnixListener::bind_addr(&address).is_ok(),
            };
            if taken {
                print(format!("{name}{TAKEN}\n").as_bytes())?;
            }
        }
        if find_process("supervisor").is_ok() {
            return Ok(());
        }
    }
}

/// Printed by the service for an address that it could take.
const TAKEN: &str = " could be taken";

/// The address of the notify socket (docs/protocol.md).
const NOTIFY: &str = "cloister/notify";

/// Prints numbered lines until it is asked to stop, and then their number.
fn talk() -> std::io::Result<()> {
    let (sender, stopped) = mpsc::channel();
    let mut term = catch(Signal::TERM)?;
    thread::spawn(move || sender.send(term.wait().is_ok()).is_ok());
    let mut count = 0_u64;
    while stopped.recv_timeout(BETWEEN_LINES) == Err(RecvTimeoutError::Timeout) {
        count = count.saturating_add(1);
        print(format!("line {count}\n").as_bytes())?;
    }
    print(format!("the last was {count}\n").as_bytes())
}

/// Kills every supervisor as soon as it exists.
fn assassinate() -> std::io::Result<()> {
    loop {
        match kill_supervisor() {
            Err(error) if is_gone(&error) => thread::yield_now(),
            killed => killed?,
        }
    }
}

/// Whether there is no supervisor, or no longer one.
fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}
