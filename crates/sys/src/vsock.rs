//! Stream sockets of the address family `AF_VSOCK`: between a virtual machine and its host.
//!
//! Invariant: every socket created here is a non-blocking, close-on-exec [`OwnedFd`], and addresses from the kernel are
//! checked before they are used. The caller waits for readiness, except for [`connect`], which waits until a deadline.
//! An address is `struct sockaddr_vm` of `linux/vm_sockets.h`.

#![expect(unsafe_code, reason = "neither std nor rustix supports the address family AF_VSOCK")]

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

/// A listener on `port` for peers of any CID, with a queue of `backlog` pending connections.
///
/// Errors: `EAFNOSUPPORT` in a kernel without vsock, `EADDRINUSE`.
pub fn listen(port: u32, backlog: u32) -> io::Result<OwnedFd> {
    let socket = stream()?;
    let (address, length) = encode(Address { cid: CID_ANY, port })?;
    // SAFETY: `address` is a live sockaddr_vm and `length` its size; the kernel only reads it.
    check(unsafe { libc::bind(socket.as_raw_fd(), ptr::from_ref(&address).cast::<sockaddr>(), length) })?;
    rustix::net::listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

/// Accepts a pending connection and returns it with the address of its peer.
///
/// Errors: `WouldBlock` if none is pending; `EMFILE`, `ENFILE` and `ENOBUFS` if resources run out, in which case the
/// connection stays pending.
pub fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, Address)> {
    let mut storage = MaybeUninit::<sockaddr_vm>::zeroed();
    let mut length = address_length()?;
    let fd = listener.as_fd().as_raw_fd();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let peer = storage.as_mut_ptr().cast::<sockaddr>();
    // SAFETY: `storage` has space for `length` bytes, and both outlive the call.
    let accepted = check(unsafe { libc::accept4(fd, peer, &raw mut length, flags) })?;
    // SAFETY: the kernel just created this descriptor, and it has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(accepted) };
    // SAFETY: every field is an integer and the storage was zeroed, so it is initialised whatever the kernel wrote.
    let address = unsafe { storage.assume_init() };
    if c_int::from(address.svm_family) != libc::AF_VSOCK {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the listener is not a vsock socket"));
    }
    Ok((socket, Address { cid: address.svm_cid, port: address.svm_port }))
}

/// Starts to connect. The socket becomes writable when connecting has succeeded or failed, and [`finish_connect`]
/// returns the result.
///
/// Errors: those that the kernel detects immediately, such as `ENODEV` if no transport reaches that CID.
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

/// The result of [`start_connect`], once its socket is writable.
///
/// Errors: `ECONNREFUSED` or `ECONNRESET` if nothing listens, `ETIMEDOUT` if the machine does not respond.
pub fn finish_connect(socket: impl AsFd) -> io::Result<()> {
    rustix::net::sockopt::socket_error(socket)??;
    Ok(())
}

/// Connects, waiting at most `deadline`.
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
    // SAFETY: sockaddr_vm consists of integers, for which zero is valid; `svm_zero` must be zero.
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
    fn an_address_is_encoded_as_the_kernel_expects_it() {
        let (encoded, length) = encode(Address { cid: 7, port: 17003 }).unwrap();
        assert_eq!((encoded.svm_family, encoded.svm_cid, encoded.svm_port, length), (40, 7, 17003, 16));
    }

    #[test]
    fn accept_on_a_tcp_listener_is_an_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(accept(&listener).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_unreachable_machine_is_an_error() {
        let unreachable = Address { cid: 4_000_000_000, port: 1 };
        assert!(connect(unreachable, Duration::from_millis(200)).is_err());
    }
}
