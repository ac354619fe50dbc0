//! A descriptor in the Tokio reactor.
//!
//! Invariant: a descriptor registered here stays open and unchanged until it is deregistered, as [`AsyncFd::register`]
//! requires. Everything else is done by [`AsyncFd`].

#![expect(unsafe_code, reason = "Tokio cannot know that an owned descriptor keeps its number; its owner can")]

use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An owned descriptor that the reactor watches.
#[derive(Debug)]
pub struct Registered(AsyncFd<OwnedFd>);

impl Registered {
    /// Registers `fd`, which should be non-blocking, for reading and writing.
    ///
    /// Errors: `EPERM` for files that epoll does not support, such as a regular file; `ENOSPC` and `ENOMEM`.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Self::with_interest(fd, Interest::READABLE | Interest::WRITABLE)
    }

    /// Registers `fd` for reading only: writability causes no wakeups.
    ///
    /// Errors and panics as [`Self::new`].
    pub fn for_reading(fd: OwnedFd) -> io::Result<Self> {
        Self::with_interest(fd, Interest::READABLE)
    }

    /// Registers `fd` for writing only. If the file is already registered, `fd` must be a duplicate, because epoll
    /// identifies files by their descriptors.
    ///
    /// Errors and panics as [`Self::new`].
    pub fn for_writing(fd: OwnedFd) -> io::Result<Self> {
        Self::with_interest(fd, Interest::WRITABLE)
    }

    fn with_interest(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        // SAFETY: an OwnedFd stays open and keeps its number for its lifetime. It lives as long as the AsyncFd, since
        // this type gives out only shared references.
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
    async fn a_registered_socket_reports_readability() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let near = Registered::new(near.into()).unwrap();
        rustix::io::write(&far, b"x").unwrap();
        assert!(near.readable().await.is_ok());
    }

    #[tokio::test]
    async fn one_socket_can_be_registered_separately_for_each_direction() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let writer = Registered::for_writing(near.try_clone().unwrap().into()).unwrap();
        let reader = Registered::for_reading(near.into()).unwrap();
        assert!(writer.writable().await.is_ok());
        rustix::io::write(&far, b"x").unwrap();
        assert!(reader.readable().await.is_ok());
    }

    #[tokio::test]
    async fn a_regular_file_is_refused() {
        assert!(Registered::new(tempfile::tempfile().unwrap().into()).is_err());
    }
}
