//! The process at the other end of a Unix socket.
//!
//! Invariant: the process is the one that connected. It is referred to by a pidfd, so that a reused PID is not mistaken
//! for it (`pidfd_open(2)`).

#![expect(unsafe_code, reason = "SO_PEERPIDFD has no safe wrapper")]

use std::fs::read_to_string;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::socklen_t;

/// A process that connected a socket.
#[derive(Debug)]
pub struct Peer(OwnedFd);

impl Peer {
    /// The process that connected `socket`.
    ///
    /// Errors: `EINVAL` if it has exited and been reaped, `ENODATA` if the socket is not connected, `ENOPROTOOPT`
    /// before Linux 6.5.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let mut fd: RawFd = -1;
        let mut size = socklen_t::try_from(size_of::<RawFd>()).map_err(io::Error::other)?;
        let socket = socket.as_fd().as_raw_fd();
        let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERPIDFD);
        let (to, size) = ((&raw mut fd).cast(), &raw mut size);
        // SAFETY: `to` has space for the descriptor that this option returns, and `size` is that space.
        if unsafe { libc::getsockopt(socket, level, name, to, size) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just created this descriptor, and it has no other owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Its PID.
    ///
    /// Errors: `NotFound` once it has exited and been reaped.
    pub fn pid(&self) -> io::Result<u32> {
        let info = read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let number = info.lines().find_map(|line| line.strip_prefix("Pid:"));
        // -1 for a process that was reaped (proc_pid_fdinfo(5)).
        number.and_then(|number| number.trim().parse().ok()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_peer_of_a_socket_pair_is_this_process() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(Peer::of(&ours).unwrap().pid().unwrap(), std::process::id());
    }

    #[test]
    fn a_socket_without_a_peer_is_an_error() {
        assert!(Peer::of(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).is_err());
    }
}
