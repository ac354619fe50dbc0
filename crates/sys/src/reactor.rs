//! A descriptor in the Tokio reactor.
//!
//! Its law: a descriptor registered here stays open and the same until it is deregistered, which is what Tokio asks of
//! whoever calls [`AsyncFd::register`]. It leaves everything else to [`AsyncFd`].

#![expect(unsafe_code, reason = "Tokio cannot see that an owned descriptor keeps its number; its owner can")]

use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// An owned descriptor that the reactor watches for reading and writing.
#[derive(Debug)]
pub struct Registered(AsyncFd<OwnedFd>);

impl Registered {
    /// Registers `fd`, which must be non-blocking to be of use.
    ///
    /// Errors: `EPERM` for what epoll cannot watch, such as a regular file; `ENOSPC` and `ENOMEM`.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an OwnedFd is open and keeps its number for as long as it lives. It lives as long as the AsyncFd, since
        // nobody gets at it mutably: this type only lends it.
        let registered = unsafe { AsyncFd::register(fd) };
        Ok(Self(registered?))
    }
}

impl Deref for Registered {
    type Target = AsyncFd<OwnedFd>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_registered_socket_tells_when_it_can_be_read() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let near = Registered::new(near.into()).unwrap();
        rustix::io::write(&far, b"x").unwrap();
        assert!(near.readable().await.is_ok());
    }

    #[tokio::test]
    async fn a_file_is_refused() {
        assert!(Registered::new(tempfile::tempfile().unwrap().into()).is_err());
    }
}
