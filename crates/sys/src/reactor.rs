//! A descriptor in the Tokio reactor.
//!
//! Its law: a descriptor registered here stays open and the same until it is deregistered, which is what Tokio asks of
//! whoever calls [`AsyncFd::register`]. It leaves everything else to [`AsyncFd`].

#![expect(unsafe_code, reason = "Tokio cannot see that an owned descriptor keeps its number; its owner can")]

use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An owned descriptor that the reactor watches.
#[derive(Debug)]
pub struct Registered(AsyncFd<OwnedFd>);

impl Registered {
    /// Registers `fd`, which must be non-blocking to be of use, for reading and writing.
    ///
    /// Errors: `EPERM` for what epoll cannot watch, such as a regular file; `ENOSPC` and `ENOMEM`.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Self::with_interest(fd, Interest::READABLE | Interest::WRITABLE)
    }

    /// Registers `fd` for reading alone: room for writing wakes nobody.
    ///
    /// Errors and panics as [`Self::new`].
    pub fn for_reading(fd: OwnedFd) -> io::Result<Self> {
        Self::with_interest(fd, Interest::READABLE)
    }

    /// Registers `fd` for writing alone. A descriptor of a file that is registered already has to be a duplicate, because
    /// epoll knows files by their descriptors.
    ///
    /// Errors and panics as [`Self::new`].
    pub fn for_writing(fd: OwnedFd) -> io::Result<Self> {
        Self::with_interest(fd, Interest::WRITABLE)
    }

    fn with_interest(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        // SAFETY: an OwnedFd is open and keeps its number for as long as it lives. It lives as long as the AsyncFd, since
        // nobody gets at it mutably: this type only lends it.
        let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
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
    async fn one_socket_can_be_watched_for_each_direction_apart() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let writer = Registered::for_writing(near.try_clone().unwrap().into()).unwrap();
        let reader = Registered::for_reading(near.into()).unwrap();
        assert!(writer.writable().await.is_ok());
        rustix::io::write(&far, b"x").unwrap();
        assert!(reader.readable().await.is_ok());
    }

    #[tokio::test]
    async fn a_file_is_refused() {
        assert!(Registered::new(tempfile::tempfile().unwrap().into()).is_err());
    }
}
