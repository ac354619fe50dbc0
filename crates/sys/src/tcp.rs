//! What TCP sockets can be told or asked that rustix has no call for.
//!
//! Its law: only what says or changes when and from where packets leave, never which bytes are in them.

#![expect(unsafe_code, reason = "rustix knows neither TCP_DEFER_ACCEPT nor TCP_REPAIR")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use libc::{c_int, c_void, socklen_t};

/// Tells a socket that has not connected yet that it will speak first. The last packet of the handshake then waits for the
/// first bytes and goes with them, so that the other side is woken once, by a connection that can be read at once. Where no
/// bytes come it leaves after 200 ms (`TCP_DELACK_MAX`).
///
/// The option is `TCP_DEFER_ACCEPT`, which `tcp(7)` describes for listeners only; on a client it is read by
/// `tcp_rcv_synsent_state_process` of Linux ("Save one ACK").
///
/// Errors: `ENOPROTOOPT` or `EOPNOTSUPP` when this is no TCP socket.
pub fn speaks_first(socket: impl AsFd) -> io::Result<()> {
    // Seconds, which only a listener counts.
    set(socket, libc::TCP_DEFER_ACCEPT, 1)
}

/// Lets a socket that is not connected be bound to a port that others are bound to, while `on`. A connection from there is
/// still one of a kind by its two ends. It needs `CAP_NET_ADMIN`.
///
/// The option is `TCP_REPAIR`; a socket in that mode is bound without a look at others (`SK_FORCE_REUSE` of
/// `inet_csk_get_port`, `net/ipv4/inet_connection_sock.c`).
///
/// Errors: `PermissionDenied` without the capability, `ENOPROTOOPT` or `EOPNOTSUPP` when this is no TCP socket.
pub fn share_any_port(socket: impl AsFd, on: bool) -> io::Result<()> {
    // Off, without the probe of the window that a connection would be repaired with (`TCP_REPAIR_OFF_NO_WP`).
    set(socket, libc::TCP_REPAIR, if on { 1 } else { -1 })
}

fn set(socket: impl AsFd, option: c_int, value: c_int) -> io::Result<()> {
    let length = socklen_t::try_from(size_of::<c_int>()).map_err(io::Error::other)?;
    let fd = socket.as_fd().as_raw_fd();
    let value = ptr::from_ref(&value).cast::<c_void>();
    // SAFETY: `value` points to a live c_int and `length` is its size; the kernel only reads it.
    let result = unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, option, value, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Bytes written to a connected socket that the peer's system has not acknowledged yet, an end among them (`SIOCOUTQ` of
/// `tcp(7)`). On a Unix socket: those that its peer has not read.
///
/// Errors: `EINVAL` on a listener, `ENOTTY` where there is no such thing.
pub fn unacknowledged(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: c_int = 0;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: this request writes one c_int to the place it is given, which is live.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(usize::try_from(bytes).unwrap_or(0)) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};

    use rustix::net::{AddressFamily, SocketType};

    use super::*;

    #[test]
    fn a_socket_that_speaks_first_is_accepted_with_its_first_bytes() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        speaks_first(&socket).unwrap();
        rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        TcpStream::from(socket.try_clone().unwrap()).write_all(b"hi").unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        let mut heard = [0; 2];
        accepted.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hi");
    }

    #[test]
    fn what_a_peer_has_no_room_for_is_not_acknowledged() {
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
        // The last acknowledgement may be on its way.
        while unacknowledged(&near).unwrap() > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn another_socket_is_refused() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(speaks_first(&socket).is_err());
    }
}
