//! The terminator's confinement.

use cloister_wire::hold::Spawn;
use cloister_wire::terminator::{MAX_CONNECTIONS, PROGRAM};

use super::common::{COMMON, NON_BLOCKING, SOCKET_TYPE, Servant};
use crate::confine::allowed::{Allowed, INT, int, only, row};
use crate::confine::filter::FilterError;

/// Its user and group, next to the [attestor's](super::attestor).
const UID: u32 = 61_186;

/// Its memory limit: [`MAX_CONNECTIONS`] of 64 KiB, the longest first message of a handshake that the TLS library reads, and as much
/// for the program, heads of requests and the kernel's buffers of its sockets.
const MEMORY: u64 = 16 * 1024 * 1024;

/// Descriptors: four for each connection, two of which wait for buffer space, and those of the reactor, the pairs and the
/// standard streams.
const DESCRIPTORS: usize = MAX_CONNECTIONS * 4 + 32;

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
        &[&[(0, INT, int(libc::AF_UNIX)), (1, SOCKET_TYPE, int(libc::SOCK_STREAM)), (2, INT, 0)]],
        "the decrypted side of a connection",
    ),
    only(
        "setsockopt",
        libc::SYS_setsockopt,
        &[&[(1, INT, int(libc::SOL_SOCKET)), (2, INT, int(libc::SO_SNDBUF))]],
        "how much that side holds",
    ),
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

#[cfg(test)]
mod tests {
    use libc::c_long;

    use super::*;
    use crate::confine::filter::{self, answer_to};

    const KILL: u32 = 0x8000_0000;
    const ALLOW: u32 = 0x7FFF_0000;

    fn answer(number: c_long, arguments: [u64; 6]) -> u32 {
        answer_to(&filter::allow(&CALLS).unwrap(), number, arguments)
    }

    #[test]
    fn calls_that_open_connect_or_execute_kill_the_terminator() {
        for number in [
            libc::SYS_openat,
            libc::SYS_execve,
            libc::SYS_memfd_create,
            libc::SYS_ptrace,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_accept4,
            libc::SYS_kill,
            libc::SYS_getpid,
        ] {
            assert_eq!(answer(number, [0; 6]), KILL, "{number}");
        }
    }

    #[test]
    fn it_creates_pairs_of_streams_and_limits_their_buffers() {
        let pair = |family, kind| answer(libc::SYS_socketpair, [int(family), int(kind), 0, 0, 0, 0]);
        assert_eq!(pair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC), ALLOW);
        assert_eq!(pair(libc::AF_UNIX, libc::SOCK_SEQPACKET), KILL);
        let option = |level, name| answer(libc::SYS_setsockopt, [5, int(level), int(name), 0, 4, 0]);
        assert_eq!(option(libc::SOL_SOCKET, libc::SO_SNDBUF), ALLOW);
        assert_eq!(option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE), KILL);
    }
}
