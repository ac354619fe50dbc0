//! The loopback interface.
//!
//! Its law: it touches no interface but `lo`. Routes and rules are netlink's and have other owners.

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

/// Switches the loopback interface on; the kernel gives it `127.0.0.1` and `::1` by itself (netdevice(7)).
///
/// Errors: `EPERM`, `EAFNOSUPPORT` in a kernel without IPv4.
pub fn loopback_up() -> io::Result<()> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: ifreq is made of integers and pointers that nobody follows, for which zero is a value.
    let mut request = unsafe { MaybeUninit::<ifreq>::zeroed().assume_init() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = c_char::try_from(*from).map_err(io::Error::other)?;
    }
    ask(&socket, GET_FLAGS, &mut request)?;
    let up = c_short::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    // SAFETY: the request just made fills this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | up;
    ask(&socket, SET_FLAGS, &mut request)
}

fn ask(socket: &OwnedFd, what: Ioctl, request: &mut ifreq) -> io::Result<()> {
    // SAFETY: both requests read and write one ifreq, which is live.
    let done: c_int = unsafe { libc::ioctl(socket.as_raw_fd(), what, request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_can_be_switched_on_twice() {
        if rustix::process::geteuid().is_root() {
            loopback_up().unwrap();
            loopback_up().unwrap();
        }
    }
}
