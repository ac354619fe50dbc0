//! A service's output reaches the host as it was written, regardless of its content and speed.

use std::io::Write;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal};

use super::killed_processes_leave_nothing_behind::process_of;
use crate::guest::{catch, print, serve_http};
use crate::scenario::{expect_eq, expect_in};
use crate::{Lab, Outcome, Running, Scenario, Shared};

const MANIFEST: &str = "{version: 1, services: {web: {command: [PROBE], restart: never}}}";

/// A quiet service, a fast one, and a reader that starts after both. The reader runs inside the enclave: the host keeps a copy of
/// its own of what it has read.
const FAST: &str = "
version: 1
control: {services: [reader]}
services:
  quiet: {command: [PROBE, quiet], ready: {log: line of the quiet}, critical: true}
  fast: {command: [PROBE, fast], kind: job, after: [quiet]}
  reader: {command: [PROBE, read-again], kind: job, after: [fast]}
";

/// Lines of the fast service, each in its own write: several times the capacity of a stream's index.
const SHORT_LINES: usize = 250_000;

/// The quiet service's output.
const QUIET_LINE: &[u8] = b"the line of the quiet service\n";

/// The length of the long line in bytes.
const LONG_LINE: usize = 10 * 1024 * 1024;

/// Bytes that the flooding service writes in total: far more than the capacity of any ring.
const FLOOD: usize = 400 * 1024 * 1024;

/// Bytes that are not text.
const NOT_TEXT: &[u8] = b"before \xff\xfe\x00\x80 after\n";

/// One very long line.
pub(super) const ONE_LONG_LINE: Scenario = Scenario {
    name: "a_line_of_ten_megabytes_arrives_complete",
    host: long_line_host,
    guest: long_line_guest,
};

/// Bytes that are not UTF-8.
pub(super) const RAW_BYTES: Shared = Shared {
    name: "log_bytes_that_are_not_utf8_arrive_unchanged",
    services: "  raw: {command: [PROBE], kind: job}",
    control: &[],
    host: raw_host,
    guest: raw_guest,
};

/// A service that no reader can keep up with.
pub(super) const FLOODING: Scenario =
    Scenario { name: "a_flood_of_output_never_blocks_the_service", host: flood_host, guest: flood_guest };

/// A host that reads nothing while the service writes all that.
pub(super) const UNREAD: Scenario = Scenario {
    name: "output_that_the_host_does_not_read_never_blocks_the_service",
    host: unread_host,
    guest: unread_guest,
};

/// A service that writes many short lines beside another that writes one.
pub(super) const SHORT: Scenario = Scenario {
    name: "many_short_lines_of_one_service_erase_no_line_of_another",
    host: short_host,
    guest: short_guest,
};

fn short_host(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(FAST, &[])?;
    web.wait_service("reader", "done")?;
    let ended = web.stop()?;
    expect_in(&ended.stdout, "read again: the line of the quiet service", "the records sent to a late reader")
}

fn short_guest(args: &[String]) -> ExitCode {
    let done = match args.first().map(String::as_str) {
        Some("quiet") => catch(Signal::TERM).and_then(|mut term| {
            print(QUIET_LINE)?;
            term.wait()
        }),
        Some("fast") => {
            (0..SHORT_LINES).try_for_each(|line| print(format!("{:05}\n", line % 100_000).as_bytes()))
        }
        _ => Command::new("/run/cloister/initctl").args(["logs", "quiet"]).output().and_then(|output| {
            output
                .stdout
                .split_inclusive(|byte| *byte == b'\n')
                .try_for_each(|line| print(&[b"read again: ".as_slice(), line].concat()))
        }),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn long_line_host(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(MANIFEST, &[])?;
    let ended = web.finish()?;
    ended.expect_code(0)?;
    expect_in(&ended.stdout, "after the long line", "the output after the long line")
}

fn long_line_guest(_args: &[String]) -> ExitCode {
    let mut line = vec![b'x'; LONG_LINE];
    line.extend_from_slice(b"\nafter the long line\n");
    if print(&line).is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn raw_host(web: &Running) -> Outcome {
    web.wait_service("raw", "done")?;
    web.wait_stdout_bytes(NOT_TEXT)
}

fn raw_guest(_args: &[String]) -> ExitCode {
    if print(NOT_TEXT).is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn flood_host(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(MANIFEST, &[])?;
    let ended = web.finish()?;
    ended.expect_code(7)?;
    expect_in(&ended.stdout, "the flood is over", "the last line")
}

fn unread_host(lab: &mut Lab) -> Outcome {
    let port = lab.free_port()?;
    let manifest = "{version: 1, services: {web: {command: [PROBE], ready: {tcp: 8080}, restart: never}}, ingress: [{port: 80, target: 8080}]}";
    let mut web = lab.boot(manifest, &["--publish", &format!("{port}:80")])?;
    let qemu = process_of(&web.wait_ready()?, "qemu")?;
    expect_eq(&web.get(port, "/go")?.body, &"/go".to_owned(), "the start of the flood")?;
    web.signal(Signal::STOP)?;
    // Only a service that was not blocked reaches its end, and the machine with it.
    let ended =
        web.until("the machine's exit while the sleeve is stopped", || Ok(has_ended(qemu).then_some(())));
    web.signal(Signal::CONT)?;
    ended?;
    web.finish()?.expect_code(7)
}

/// Whether a process has exited, reaped or not (proc(5), the state in `stat`).
fn has_ended(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    stat.map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

fn unread_guest(args: &[String]) -> ExitCode {
    let (sender, started) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        serve_http(8080, |path| {
            // The host has the answer by then.
            sender.send(()).unwrap_or_default();
            path.to_owned()
        })
    });
    if started.recv().is_ok() { flood_guest(args) } else { ExitCode::FAILURE }
}

fn flood_guest(_args: &[String]) -> ExitCode {
    let line = [b"0123456789abcdef".repeat(63).as_slice(), b"\n"].concat();
    let mut written = 0usize;
    let mut out = std::io::stdout();
    while written < FLOOD {
        if out.write_all(&line).is_err() {
            return ExitCode::from(1);
        }
        written = written.saturating_add(line.len());
    }
    if print(b"the flood is over\n").is_ok() { ExitCode::from(7) } else { ExitCode::from(1) }
}
