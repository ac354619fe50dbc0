//! The terminator's confinement.

use cloister_wire::hold::Spawn;
use cloister_wire::terminator::{MAX_CONNECTIONS, PROGRAM};

use super::common::{COMMON, Servant};
use crate::confine::allowed::{Allowed, INT, int, only, row};
use crate::confine::filter::FilterError;

/// Its user and group, next to the [attestor's](super::attestor).
const UID: u32 = 61_186;

/// Its memory limit: [`MAX_CONNECTIONS`] of 40 KiB, and as much for the program and the kernel's buffers of its sockets.
const MEMORY: u64 = 16 * 1024 * 1024;

/// Descriptors: four for each connection, two of which wait for buffer space, and those of the reactor, the pairs and the
/// standard streams.
const DESCRIPTORS: usize = MAX_CONNECTIONS * 4 + 32;

/// `FIONBIO` of `asm-generic/ioctls.h`, whose type differs between C libraries.
const NON_BLOCKING: u64 = 0x5421;

const CLIENTS: &str = "connections of clients, and to the attestor";

/// Its calls.
pub(super) const CALLS: [&[Allowed]; 2] = [COMMON, OWN];

/// Calls that not every servant makes.
const OWN: &[Allowed] = &[
    only("ioctl", libc::SYS_ioctl, &[&[(1, INT, NON_BLOCKING)]], "non-blocking mode"),
    only(
        "fcntl",
        libc::SYS_fcntl,
        &[&[(1, INT, int(libc::F_DUPFD_CLOEXEC))], &[(1, INT, int(libc::F_SETFD))]],
        "duplicates of its descriptors",
    ),
    only(
        "socketpair",
        libc::SYS_socketpair,
        &[&[(0, INT, int(libc::AF_UNIX)), (2, INT, 0)]],
        "the decrypted side of a connection",
    ),
    row("getpid", libc::SYS_getpid, "the first ID of its questions"),
    row("write", libc::SYS_write, "wakes its reactor"),
    row("ppoll", libc::SYS_ppoll, "waits for a signature"),
    row("recvfrom", libc::SYS_recvfrom, CLIENTS),
    row("sendto", libc::SYS_sendto, CLIENTS),
    row("shutdown", libc::SYS_shutdown, CLIENTS),
    row("close", libc::SYS_close, CLIENTS),
];

/// The request to init to start the terminator.
pub fn spawn() -> Result<Spawn, FilterError> {
    let servant = Servant { uid: UID, calls: &CALLS, memory: MEMORY, threads: 1, descriptors: DESCRIPTORS };
    servant.spawn(vec![PROGRAM.to_owned()], 4)
}
