//! A connection with one time limit for everything.
//!
//! Invariant: no read and no write ends later than the deadline, however slowly the other end sends.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A connection that fails with `TimedOut` from this time on.
#[derive(Debug)]
pub struct Deadline<S> {
    socket: S,
    end: Instant,
}

/// A blocking socket whose calls can be limited in time.
pub trait Socket: Read + Write {
    /// Limits each call from now on to `left`, which is not zero.
    ///
    /// # Errors
    /// Those of the system.
    fn limit(&self, left: Duration) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn limit(&self, left: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(left))?;
        self.set_write_timeout(Some(left))
    }
}

impl Socket for UnixStream {
    fn limit(&self, left: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(left))?;
        self.set_write_timeout(Some(left))
    }
}

impl<S: Socket> Deadline<S> {
    /// The connection until `end`.
    #[must_use]
    pub const fn new(socket: S, end: Instant) -> Self {
        Self { socket, end }
    }

    fn arm(&self) -> io::Result<()> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.socket.limit(left)
    }
}

/// Linux reports an expired limit of a socket as `WouldBlock`.
fn expired(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

impl<S: Socket> Read for Deadline<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.arm()?;
        self.socket.read(buffer).map_err(expired)
    }
}

impl<S: Socket> Write for Deadline<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.arm()?;
        self.socket.write(bytes).map_err(expired)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}
