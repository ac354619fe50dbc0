//! The soak inside: services that talk, one that leaves orphans, and the warden, who kills and counts for the host.
//!
//! Its law: nothing here decides: the host orders each kill, and what happened is told as it was seen.

use std::io::{self, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::voice::Voice;
use super::warden;
use crate::guest::{catch, serve_http};

/// The pause between two lines of a talker: some fifty a second from each, which a ring of a mebibyte holds for ten
/// minutes without a reader.
const BETWEEN_LINES: Duration = Duration::from_millis(20);

/// The pause between two orphans: a start takes some thirty milliseconds of an emulated processor.
const BETWEEN_ORPHANS: Duration = Duration::from_millis(250);

/// What a service of the soak does, by its words.
pub(super) fn guest(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["web"] => web(),
        ["talker", name] => repeat(name, BETWEEN_LINES, || Ok(())),
        ["forker"] => repeat("forker", BETWEEN_ORPHANS, || probe("parent")?.wait().map(drop)),
        ["parent"] => probe("orphan").map(drop),
        ["orphan"] => {
            outlive_parent();
            Ok(())
        }
        ["warden"] => warden::serve(),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    if let Err(error) = &done {
        // Without a stderr there is nobody to tell.
        drop(writeln!(io::stderr(), "{words:?}: {error}"));
    }
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says a line for each request that it answers.
fn web() -> io::Result<()> {
    let (ended, mut voice) = (ending()?, Voice::begin("web")?);
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
                voice.line()?;
                drop(answer.send("here".to_owned()));
            }
            Err(_) if ended.try_recv().is_ok() => return voice.end(),
            Err(_) => {}
        }
    }
}

/// Does something and says a line, again and again, until it is asked to end.
fn repeat(name: &str, pause: Duration, act: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let (ended, mut voice) = (ending()?, Voice::begin(name)?);
    while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        act()?;
        voice.line()?;
    }
    voice.end()
}

/// Hears of SIGTERM.
fn ending() -> io::Result<Receiver<()>> {
    let (tell, told) = mpsc::channel();
    let mut term = catch(Signal::TERM)?;
    thread::spawn(move || term.wait().is_ok_and(|()| tell.send(()).is_ok()));
    Ok(told)
}

/// Starts this program in another role.
fn probe(role: &str) -> io::Result<std::process::Child> {
    Command::new("/probe").args([super::NAME, role]).stdin(Stdio::null()).spawn()
}

/// Ends after its parent has: nobody but init can reap it then.
fn outlive_parent() {
    let first = rustix::process::getppid();
    while rustix::process::getppid() == first && first != Some(rustix::process::Pid::INIT) {
        thread::yield_now();
    }
}
