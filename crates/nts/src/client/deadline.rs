//! One time limit for everything that happens on a connection.
//!
//! Invariant: no read and no write ends later than the deadline, however slowly the other end sends.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A time limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Instant);

/// A connection that fails with `TimedOut` from the deadline on.
#[derive(Debug)]
pub(super) struct Limited {
    pub(super) socket: TcpStream,
    pub(super) deadline: Deadline,
}

impl Deadline {
    pub(super) fn after(limit: Duration) -> Self {
        let now = Instant::now();
        // A limit that is out of range is no limit that anyone waits for: it is over at once.
        Self(now.checked_add(limit).unwrap_or(now))
    }

    /// The time that is left, which is not zero.
    pub(super) fn left(self) -> io::Result<Duration> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// Whether an error means that the time is over. Linux reports an expired limit of a socket as `WouldBlock`.
pub(super) fn is_expired(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The same in one form: TLS would treat `WouldBlock` as a request to try again.
fn expired(error: io::Error) -> io::Error {
    if is_expired(&error) { io::ErrorKind::TimedOut.into() } else { error }
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.deadline.left()?))?;
        self.socket.read(buffer).map_err(expired)
    }
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.deadline.left()?))?;
        self.socket.write(bytes).map_err(expired)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}
