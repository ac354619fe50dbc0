//! The guest half of the soak: services that print numbered lines, one that leaves orphans, and the killer, which kills and
//! counts for the host.
//!
//! Invariant: the guest decides nothing. The host orders each kill, and what happened is reported as it was seen.

use std::io::{self, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::killer;
use super::numbered_output::NumberedOutput;
use crate::guest::{catch, serve_http};

/// The interval between two lines of a talker: about fifty a second from each, of which a ring of a mebibyte holds ten minutes
/// without a reader.
const BETWEEN_LINES: Duration = Duration::from_millis(20);

/// The interval between two orphans: a start takes about thirty milliseconds on an emulated processor.
const BETWEEN_ORPHANS: Duration = Duration::from_millis(250);

/// What a service of the soak does, by its arguments.
pub(super) fn guest(args: &[String]) -> ExitCode {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["web"] => web(),
        ["talker", name] => repeat(name, BETWEEN_LINES, || Ok(())),
        ["forker"] => repeat("forker", BETWEEN_ORPHANS, || probe("parent")?.wait().map(drop)),
        ["parent"] => probe("orphan").map(drop),
        ["orphan"] => {
            outlive_parent();
            Ok(())
        }
        ["killer"] => killer::serve(),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    if let Err(error) = &done {
        // Without a stderr there is nowhere to report it.
        drop(writeln!(io::stderr(), "{args:?}: {error}"));
    }
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a line for each request that it answers.
fn web() -> io::Result<()> {
    let (stopped, mut output) = (stop_requests()?, NumberedOutput::begin("web")?);
    let (ask, asked) = mpsc::channel();
    thread::spawn(move || {
        let served = serve_http(8080, |_| {
            let (answer, answered) = mpsc::channel();
            drop(ask.send(answer));
            answered.recv().unwrap_or_default()
        });
        drop(served);
    });
    loop {
        match asked.recv_timeout(BETWEEN_LINES) {
            Ok(answer) => {
                output.line()?;
                drop(answer.send("here".to_owned()));
            }
            Err(_) if stopped.try_recv().is_ok() => return output.end(),
            Err(_) => {}
        }
    }
}

/// Acts and prints a line repeatedly until it receives SIGTERM.
fn repeat(name: &str, pause: Duration, act: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let (stopped, mut output) = (stop_requests()?, NumberedOutput::begin(name)?);
    while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        act()?;
        output.line()?;
    }
    output.end()
}

/// Receives a message on SIGTERM.
fn stop_requests() -> io::Result<Receiver<()>> {
    let (sender, stopped) = mpsc::channel();
    let mut term = catch(Signal::TERM)?;
    thread::spawn(move || term.wait().is_ok_and(|()| sender.send(()).is_ok()));
    Ok(stopped)
}

/// Starts this program in another role.
fn probe(role: &str) -> io::Result<std::process::Child> {
    Command::new("/probe").args([super::NAME, role]).stdin(Stdio::null()).spawn()
}

/// Exits after its parent: only init can reap it then.
fn outlive_parent() {
    let first = rustix::process::getppid();
    while rustix::process::getppid() == first && first != Some(rustix::process::Pid::INIT) {
        thread::yield_now();
    }
}
