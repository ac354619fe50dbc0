//! What PID 1 says: one line at a time on `/dev/console`.
//!
//! Its law: saying something never blocks PID 1. A line that the console does not take at once is lost, but for the last
//! words, which have a deadline. Only boot stages, crashes of the supervisor and the end are said.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;

/// The console of the kernel's command line.
const PATH: &str = "/dev/console";

/// Where lines go, or are kept until it is there.
#[derive(Debug, Default)]
pub struct Console {
    out: Option<File>,
    early: Vec<String>,
}

impl Console {
    /// A console that keeps its lines until [`Self::open`].
    #[must_use]
    pub const fn new() -> Self {
        Self { out: None, early: Vec::new() }
    }

    /// Opens the device and says what was kept. A machine without a console is no failure: there is nobody to tell.
    pub fn open(&mut self) -> bool {
        self.out = open();
        for line in std::mem::take(&mut self.early) {
            self.say(&line);
        }
        self.out.is_some()
    }

    /// Says one line.
    pub fn say(&mut self, line: &str) {
        match &mut self.out {
            // A line the console does not take is lost: waiting would let whoever reads it stop PID 1.
            Some(out) => drop(out.write_all(format!("{line}\r\n").as_bytes())),
            None => self.early.push(line.to_owned()),
        }
    }
}

/// Says the last line, waiting at most `limit` until the console has taken all of it and sent it on.
pub fn last_words(line: &str, limit: Duration) {
    let Some(mut out) = open() else { return };
    let end = Instant::now() + limit;
    // It starts on a line of its own, whatever stood there.
    let text = format!("\r\n{line}\r\n");
    let mut left = text.as_bytes();
    while !left.is_empty() {
        match out.write(left) {
            Ok(taken) => left = left.get(taken..).unwrap_or_default(),
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
    // Best effort: whoever ends the machine has a deadline of its own.
    rustix::termios::tcdrain(&out).ok();
}

fn open() -> Option<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).ok()?;
    OpenOptions::new().write(true).custom_flags(flags).open(PATH).ok()
}
