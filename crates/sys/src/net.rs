//! What the machine's own network needs: the loopback interface up, and a name.
//!
//! Its law: two settings and nothing more; routes and addresses of a real network belong to whoever brings that network.

#![expect(unsafe_code, reason = "interface flags are set by an ioctl that rustix does not wrap")]

use std::io;

use rustix::ioctl::{Opcode, Setter, Updater, ioctl};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// The loopback interface's name.
const LOOPBACK: &[u8] = b"lo";

/// Brings the loopback interface up; the kernel gives it 127.0.0.1 and `::1` by itself.
pub fn loopback_up() -> io::Result<()> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is a value: integers and a union of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(LOOPBACK) {
        *to = (*from).try_into().unwrap_or_default();
    }
    // SAFETY: SIOCGIFFLAGS (netdevice(7)) reads the name and writes the flags of an ifreq, which is what is given.
    let get = unsafe { Updater::<GET_FLAGS, libc::ifreq>::new(&mut request) };
    // SAFETY: the request is made for exactly this number, above.
    unsafe { ioctl(&socket, get) }?;
    // SAFETY: the call above wrote the flags, so that member of the union is the live one.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | UP;
    // SAFETY: SIOCSIFFLAGS only reads an ifreq, which is what is given.
    let set = unsafe { Setter::<SET_FLAGS, libc::ifreq>::new(request) };
    // SAFETY: the request is made for exactly this number, above.
    unsafe { ioctl(&socket, set) }?;
    Ok(())
}

/// Gives the machine its name.
pub fn set_hostname(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// `SIOCGIFFLAGS` of `linux/sockios.h`.
const GET_FLAGS: Opcode = 0x8913;

/// `SIOCSIFFLAGS` of `linux/sockios.h`.
const SET_FLAGS: Opcode = 0x8914;

/// `IFF_UP` and `IFF_RUNNING` of netdevice(7), in the width of `ifr_flags`.
const UP: libc::c_short = 0x1 | 0x40;
