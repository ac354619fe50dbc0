//! The loopback interface.
//!
//! Invariant: only `lo` is changed. Routes and rules are configured by netlink elsewhere.

#![expect(unsafe_code, reason = "the interface ioctls have no safe wrapper")]

use std::ffi::{c_char, c_short};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

use libc::{Ioctl, c_int, ifreq};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// `SIOCGIFFLAGS` and `SIOCSIFFLAGS` of `linux/sockios.h`, in the type that this C library's ioctl takes.
const GET_FLAGS: Ioctl = 0x8913;
/// See [`GET_FLAGS`].
const SET_FLAGS: Ioctl = 0x8914;

/// Brings the loopback interface up; the kernel then assigns `127.0.0.1` and `::1` (netdevice(7)).
///
/// Errors: `EPERM`, `EAFNOSUPPORT` in a kernel without IPv4.
pub fn loopback_up() -> io::Result<()> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: ifreq consists of integers and pointers that are not dereferenced, for which zero is valid.
    let mut request = unsafe { MaybeUninit::<ifreq>::zeroed().assume_init() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = c_char::try_from(*from).map_err(io::Error::other)?;
    }
    exchange(&socket, GET_FLAGS, &mut request)?;
    let up = c_short::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    // SAFETY: the request just made fills this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | up;
    exchange(&socket, SET_FLAGS, &mut request)
}

fn exchange(socket: &OwnedFd, what: Ioctl, request: &mut ifreq) -> io::Result<()> {
    // SAFETY: both requests read and write one ifreq, which is live.
    let done: c_int = unsafe { libc::ioctl(socket.as_raw_fd(), what, request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_can_be_brought_up_twice() {
        if rustix::process::geteuid().is_root() {
            loopback_up().unwrap();
            loopback_up().unwrap();
        }
    }
}
