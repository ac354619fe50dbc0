//! `first`: process 1 of a service's PID namespace, and the parent of the service's main process.
//!
//! Invariant: it has no privilege that the service does not have. It runs as the service's user, under the same filter, in the
//! same mount view, with the service's environment, stdout and stderr, and reads nothing but signals and wait statuses. When the
//! main process ends, it reports how and exits too, and the kernel kills the remaining processes of the namespace
//! (`pid_namespaces(7)`). Init and the supervisor decide what the exit means.
//!
//! Started by init as `first MAIN`, with MAIN the main process's number in this namespace, all signals blocked, the pipe that
//! reports the start as descriptor 0 and the report socket as descriptor [`REPORT_FD`]. By then the main process has executed its
//! program and is stopped before its first instruction.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use cloister_sys::inherited;
use cloister_sys::signal::{Signals, send};
use cloister_wire::first::{Note, REPORT_FD, RUNS};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

/// `SIGCHLD` of signal(7): for the reaper, never forwarded.
const SIGCHLD: u32 = 17;

/// `SIGCONT` of signal(7).
const SIGCONT: u8 = 18;

/// Exit code if this program itself fails, the same as other container runtimes use (docker-run(1), "Exit status").
const FAILED: u8 = 125;

/// What a shell adds to a signal's number to form an exit code. Init uses the report; the exit code is for humans.
const BY_SIGNAL: u8 = 128;

fn main() -> ExitCode {
    let main = std::env::args().nth(1).and_then(|argument| argument.parse().ok()).and_then(Pid::from_raw);
    ExitCode::from(main.and_then(|main| serve(main).ok()).unwrap_or(FAILED))
}

/// Forwards signals to `main` and reaps children until `main` has ended.
fn serve(main: Pid) -> io::Result<u8> {
    let report = inherited::copy(REPORT_FD)?;
    begin(main)?;
    let signals = Signals::take_all()?;
    loop {
        if let Some(status) = reap(main)? {
            return send_report(&report, status);
        }
        match poll(&mut [PollFd::new(&signals, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        forward(&signals, main)?;
    }
}

/// Reports that this program runs, and lets the main process continue, which must not find the pipe open here.
fn begin(main: Pid) -> io::Result<()> {
    rustix::io::write(rustix::stdio::stdin(), &[RUNS])?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    send(main, SIGCONT)
}

/// Reaps every child that has ended, in any order, until the main process is among them.
fn reap(main: Pid) -> io::Result<Option<WaitStatus>> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == main => return Ok(Some(status)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

fn forward(signals: &Signals, main: Pid) -> io::Result<()> {
    while let Some(signal) = signals.next()? {
        if let Ok(signal) = u8::try_from(signal)
            && u32::from(signal) != SIGCHLD
        {
            // Without CAP_KILL a main process of another user cannot be signalled, as in any container.
            send(main, signal).ok();
        }
    }
    Ok(())
}

/// Reports how the main process ended.
fn send_report(report: &OwnedFd, status: WaitStatus) -> io::Result<u8> {
    let byte = |number: Option<i32>| number.and_then(|number| u8::try_from(number).ok()).unwrap_or(u8::MAX);
    let (note, code) = if status.signaled() {
        let signal = byte(status.terminating_signal());
        (Note::Signal(signal), BY_SIGNAL.saturating_add(signal))
    } else {
        let code = byte(status.exit_status());
        (Note::Code(code), code)
    };
    rustix::io::write(report, &note.encode())?;
    Ok(code)
}
