//! The process at the other end of a unix socket.
//!
//! Its law: the answer is about the process that connected, held by a descriptor, so that no other can take its number
//! meanwhile (`pidfd_open(2)`).

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
    /// Who connected `socket`.
    ///
    /// Errors: `EINVAL` where it has ended and been reaped, `ENODATA` for a socket that is not connected, `ENOPROTOOPT` before
    /// Linux 6.5.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let mut fd: RawFd = -1;
        let mut size = socklen_t::try_from(size_of::<RawFd>()).map_err(io::Error::other)?;
        let socket = socket.as_fd().as_raw_fd();
        let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERPIDFD);
        let (to, size) = ((&raw mut fd).cast(), &raw mut size);
        // SAFETY: `to` has room for the descriptor that this option is, and `size` says so.
        if unsafe { libc::getsockopt(socket, level, name, to, size) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Its number, while it has one.
    ///
    /// Errors: `NotFound` once it has ended and been reaped.
    pub fn pid(&self) -> io::Result<u32> {
        let info = read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let number = info.lines().find_map(|line| line.strip_prefix("Pid:"));
        // -1 for a process that is gone (proc_pid_fdinfo(5)).
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
    fn a_socket_without_a_peer_has_none() {
        assert!(Peer::of(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).is_err());
    }
}
