//! TCP socket options and queries that rustix does not support.
//!
//! Invariant: they concern only when and from which port packets are sent, never their contents.

#![expect(unsafe_code, reason = "rustix supports neither TCP_REPAIR nor TCP_DEFER_ACCEPT")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use libc::{c_int, c_void, socklen_t};

/// While `on`, an unconnected socket can be bound to a port that is in use. Its connections are still unique by their
/// two addresses. It needs `CAP_NET_ADMIN`.
///
/// The option is `TCP_REPAIR`; a socket in that mode is bound without a check for conflicts (`SK_FORCE_REUSE` in
/// `inet_csk_get_port`, `net/ipv4/inet_connection_sock.c`).
///
/// Errors: `PermissionDenied` without the capability, `ENOPROTOOPT` or `EOPNOTSUPP` if this is not a TCP socket.
pub fn share_any_port(socket: impl AsFd, on: bool) -> io::Result<()> {
    // Off without a window probe (`TCP_REPAIR_OFF_NO_WP`), which is only for repaired connections.
    set(socket, libc::TCP_REPAIR, if on { 1 } else { -1 })
}

/// Makes a listener accept a connection only with its first data (`TCP_DEFER_ACCEPT`, `tcp(7)`), for up to a second.
///
/// Errors: `ENOPROTOOPT` or `EOPNOTSUPP` if this is not a TCP socket.
#[cfg(feature = "defer-accept")]
pub fn defer_accept(listener: impl AsFd) -> io::Result<()> {
    set(listener, libc::TCP_DEFER_ACCEPT, 1)
}

fn set(socket: impl AsFd, option: c_int, value: c_int) -> io::Result<()> {
    let length = socklen_t::try_from(size_of::<c_int>()).map_err(io::Error::other)?;
    let fd = socket.as_fd().as_raw_fd();
    let value = ptr::from_ref(&value).cast::<c_void>();
    // SAFETY: `value` points to a live c_int and `length` is its size; the kernel only reads it.
    let result = unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, option, value, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Number of bytes written to a connected socket that the peer's system has not acknowledged yet, including the end of
/// the stream (`SIOCOUTQ`, `tcp(7)`). On a Unix socket: bytes that the peer has not read.
///
/// Errors: `EINVAL` on a listener, `ENOTTY` if the socket does not support it.
pub fn unacknowledged(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: c_int = 0;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: this request writes one c_int to the given address, which is live.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(usize::try_from(bytes).unwrap_or(0)) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn bytes_that_do_not_fit_in_the_peers_buffer_are_not_acknowledged() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        assert_eq!(unacknowledged(&near).unwrap(), 0);
        let mut written = 0;
        while let Ok(count) = near.write(&[0; 16_000]) {
            written += count;
        }
        assert!(unacknowledged(&near).unwrap() > 0);
        let mut read = 0;
        while read < written {
            read += far.read(&mut [0; 16_000]).unwrap();
        }
        // The last acknowledgement may still be in flight.
        while unacknowledged(&near).unwrap() > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_unix_socket_is_refused() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(share_any_port(&socket, true).is_err());
    }
}
