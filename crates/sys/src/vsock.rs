//! Stream sockets of the address family `AF_VSOCK`: between a virtual machine and whoever started it.
//!
//! Its law: every socket made here is a non-blocking, close-on-exec [`OwnedFd`], and what comes from the kernel as an
//! address is checked before it is believed. It leaves waiting to the caller, but for [`connect`], which waits to a
//! deadline. The address is `struct sockaddr_vm` of `linux/vm_sockets.h`.

#![expect(unsafe_code, reason = "neither std nor rustix knows the address family AF_VSOCK")]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::{Duration, Instant};

use libc::{c_int, sockaddr, sockaddr_vm, socklen_t};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Any of this machine's CIDs, for [`listen`] (`VMADDR_CID_ANY`).
pub const CID_ANY: u32 = libc::VMADDR_CID_ANY;

/// One end of a vsock stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The machine: 2 is the host as the guest sees it, 3 and up are guests.
    pub cid: u32,
    /// The port.
    pub port: u32,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "vsock:{}:{}", self.cid, self.port)
    }
}

/// A listener on `port` for peers of any CID, with room for `backlog` connections that nobody has accepted yet.
///
/// Errors: `EAFNOSUPPORT` where the kernel has no vsock, `EADDRINUSE`.
pub fn listen(port: u32, backlog: u32) -> io::Result<OwnedFd> {
    let socket = stream()?;
    let (address, length) = encode(Address { cid: CID_ANY, port })?;
    // SAFETY: `address` is a live sockaddr_vm and `length` its size; the kernel only reads it.
    check(unsafe { libc::bind(socket.as_raw_fd(), ptr::from_ref(&address).cast::<sockaddr>(), length) })?;
    rustix::net::listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

/// Takes one waiting connection and tells who is at its other end.
///
/// Errors: `WouldBlock` when none waits, `EMFILE`, `ENFILE` and `ENOBUFS` when resources run out: the connection keeps
/// waiting.
pub fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, Address)> {
    let mut storage = MaybeUninit::<sockaddr_vm>::zeroed();
    let mut length = address_length()?;
    let fd = listener.as_fd().as_raw_fd();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let peer = storage.as_mut_ptr().cast::<sockaddr>();
    // SAFETY: `storage` has room for `length` bytes, and both outlive the call.
    let accepted = check(unsafe { libc::accept4(fd, peer, &raw mut length, flags) })?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(accepted) };
    // SAFETY: every field is an integer and the storage was zeroed, so any bytes the kernel left are a value.
    let address = unsafe { storage.assume_init() };
    if c_int::from(address.svm_family) != libc::AF_VSOCK {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the listener is no vsock"));
    }
    Ok((socket, Address { cid: address.svm_cid, port: address.svm_port }))
}

/// Starts to connect. The socket becomes writable when it is decided, and [`finish_connect`] then tells how.
///
/// Errors: what the kernel knows at once, such as `ENODEV` where no transport leads to that CID.
pub fn start_connect(to: Address) -> io::Result<OwnedFd> {
    let socket = stream()?;
    let (address, length) = encode(to)?;
    // SAFETY: `address` is a live sockaddr_vm and `length` its size; the kernel only reads it.
    match check(unsafe {
        libc::connect(socket.as_raw_fd(), ptr::from_ref(&address).cast::<sockaddr>(), length)
    }) {
        Ok(_) => Ok(socket),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// What became of [`start_connect`], once its socket is writable.
///
/// Errors: `ECONNREFUSED` or `ECONNRESET` when nobody listens, `ETIMEDOUT` when the machine does not answer.
pub fn finish_connect(socket: impl AsFd) -> io::Result<()> {
    rustix::net::sockopt::socket_error(socket)??;
    Ok(())
}

/// Connects, waiting for at most `deadline`.
///
/// Errors: as [`start_connect`] and [`finish_connect`], and `TimedOut`.
pub fn connect(to: Address, deadline: Duration) -> io::Result<OwnedFd> {
    let end = Instant::now().checked_add(deadline);
    let socket = start_connect(to)?;
    loop {
        let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
        let timeout = Timespec::try_from(left).ok();
        let mut waiting = [PollFd::new(&socket, PollFlags::OUT)];
        match rustix::event::poll(&mut waiting, timeout.as_ref()) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    finish_connect(&socket)?;
    Ok(socket)
}

fn stream() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?)
}

fn encode(address: Address) -> io::Result<(sockaddr_vm, socklen_t)> {
    // SAFETY: sockaddr_vm is made of integers, for which zero is a value; `svm_zero` must be zero.
    let mut encoded = unsafe { MaybeUninit::<sockaddr_vm>::zeroed().assume_init() };
    encoded.svm_family = libc::sa_family_t::try_from(libc::AF_VSOCK).map_err(io::Error::other)?;
    encoded.svm_cid = address.cid;
    encoded.svm_port = address.port;
    Ok((encoded, address_length()?))
}

fn address_length() -> io::Result<socklen_t> {
    socklen_t::try_from(size_of::<sockaddr_vm>()).map_err(io::Error::other)
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_the_kernel_reads_it() {
        let (encoded, length) = encode(Address { cid: 7, port: 17003 }).unwrap();
        assert_eq!((encoded.svm_family, encoded.svm_cid, encoded.svm_port, length), (40, 7, 17003, 16));
    }

    #[test]
    fn a_socket_that_is_no_vsock_is_refused_not_misread() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(accept(&listener).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_machine_that_nobody_reaches_is_an_error_before_the_deadline() {
        let nobody = Address { cid: 4_000_000_000, port: 1 };
        assert!(connect(nobody, Duration::from_millis(200)).is_err());
    }
}
