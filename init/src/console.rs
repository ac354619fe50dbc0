//! The messages of PID 1: one line at a time on `/dev/console`.
//!
//! Invariant: printing never blocks PID 1. A line that the console does not accept at once is lost, except the final one, which
//! has a deadline. Only boot stages, crashes of the supervisor, unexpected errors and the final state are printed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;

/// The console of the kernel's command line.
const PATH: &str = "/dev/console";

/// The console. Lines are buffered until it is open.
#[derive(Debug, Default)]
pub struct Console {
    out: Option<File>,
    early: Vec<String>,
}

impl Console {
    /// A console that buffers its lines until [`Self::open`].
    #[must_use]
    pub const fn new() -> Self {
        Self { out: None, early: Vec::new() }
    }

    /// Opens the device and prints the buffered lines. A machine without a console is not an error.
    pub fn open(&mut self) -> bool {
        self.out = open();
        for line in std::mem::take(&mut self.early) {
            self.print(&line);
        }
        self.out.is_some()
    }

    /// Prints one line.
    pub fn print(&mut self, line: &str) {
        match &mut self.out {
            // A line that the console does not accept is lost: if PID 1 waited, the console's reader could stop it.
            Some(out) => drop(out.write_all(format!("{line}\r\n").as_bytes())),
            None => self.early.push(line.to_owned()),
        }
    }
}

/// Prints the final line, and waits at most `limit` until the console has accepted and transmitted all of it.
pub fn print_final(line: &str, limit: Duration) {
    let Some(mut out) = open() else { return };
    let end = Instant::now() + limit;
    // It starts on a line of its own, also after an unfinished one.
    let text = format!("\r\n{line}\r\n");
    let mut left = text.as_bytes();
    while !left.is_empty() {
        match out.write(left) {
            Ok(written) => left = left.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let Ok(timeout) = Timespec::try_from(end.saturating_duration_since(Instant::now())) else {
                    return;
                };
                match rustix::event::poll(&mut [PollFd::new(&out, PollFlags::OUT)], Some(&timeout)) {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
            Err(_) => return,
        }
    }
    // Best effort: the shutdown has a deadline of its own.
    rustix::termios::tcdrain(&out).ok();
}

fn open() -> Option<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).ok()?;
    OpenOptions::new().write(true).custom_flags(flags).open(PATH).ok()
}
