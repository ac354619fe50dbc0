//! A TCP connection with one time limit for everything.
//!
//! Invariant: no read and no write ends later than the deadline, however slowly the other end sends.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// A connection that fails with `TimedOut` from this time on.
#[derive(Debug)]
pub struct Deadline {
    socket: TcpStream,
    end: Instant,
}

impl Deadline {
    /// The connection until `end`.
    #[must_use]
    pub const fn new(socket: TcpStream, end: Instant) -> Self {
        Self { socket, end }
    }

    fn arm(&self) -> io::Result<()> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.socket.set_read_timeout(Some(left))?;
        self.socket.set_write_timeout(Some(left))
    }
}

/// Linux reports an expired limit of a socket as `WouldBlock`.
fn expired(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

impl Read for Deadline {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.arm()?;
        self.socket.read(buffer).map_err(expired)
    }
}

impl Write for Deadline {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.arm()?;
        self.socket.write(bytes).map_err(expired)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}
