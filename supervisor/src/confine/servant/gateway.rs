//! The gateway's confinement.

use std::iter;

use cloister_net::processors;
use cloister_wire::gateway::{MAX_CONNECTIONS, PROGRAM, RESERVED_DESCRIPTORS, WITH_TERMINATOR};
use cloister_wire::hold::Spawn;

use super::common::{COMMON, SOCKET_TYPE, Servant};
use crate::confine::allowed::{Allowed, INT, int, only, row};
use crate::confine::filter::FilterError;

/// The gateway's user and group: in the range of systemd's dynamic users (61,184 to 65,519,
/// `doc/UIDS-GIDS.md` of systemd), so no distribution and no image uses it.
pub const UID: u32 = 61_184;

/// The gateway's memory limit. 4,000 idle connections were measured at 35 MB: 3 kB each of its own, 5.6 kB of the
/// kernel's. All of [`MAX_CONNECTIONS`] and the pipes at full throughput (9 MiB) leave 19 MiB for bytes in transit. A
/// connection whose receiver does not read holds about 70 kB, so that 700 to 1,200 of them exceed the limit, and the
/// kernel kills the gateway. When idle it uses half a megabyte.
const MEMORY: u64 = 64 * 1024 * 1024;

/// Descriptors of a connection: two sockets, and one for each to wait for buffer space.
const DESCRIPTORS: usize = 4;

/// `FIONREAD`, `FIONBIO` and `TIOCOUTQ` of `asm-generic/ioctls.h`, whose type differs between C libraries.
const QUEUES: [u64; 3] = [0x541B, 0x5421, 0x5411];

const STREAMS: &str = "data of connections";
const SOCKETS: &str = "opening, configuring and closing connections";

/// Its calls.
pub(super) const CALLS: [&[Allowed]; 2] = [COMMON, OWN];

/// Calls that not every servant makes.
const OWN: &[Allowed] = &[
    only("prlimit64", libc::SYS_prlimit64, &[&[(0, INT, 0)]], "its own limit of open files"),
    only(
        "sched_getaffinity",
        libc::SYS_sched_getaffinity,
        &[&[(0, INT, 0)]],
        "the number of threads to start",
    ),
    row("ppoll", libc::SYS_ppoll, "whether another connection is waiting"),
    row("read", libc::SYS_read, STREAMS),
    row("write", libc::SYS_write, STREAMS),
    row("recvfrom", libc::SYS_recvfrom, STREAMS),
    row("sendto", libc::SYS_sendto, STREAMS),
    row("splice", libc::SYS_splice, STREAMS),
    row("pipe2", libc::SYS_pipe2, STREAMS),
    only(
        "ioctl",
        libc::SYS_ioctl,
        &[&[(1, INT, QUEUES[0])], &[(1, INT, QUEUES[1])], &[(1, INT, QUEUES[2])]],
        "queue sizes of a socket; non-blocking mode",
    ),
    only(
        "fcntl",
        libc::SYS_fcntl,
        &[
            &[(1, INT, int(libc::F_DUPFD_CLOEXEC))],
            &[(1, INT, int(libc::F_SETFD))],
            &[(1, INT, int(libc::F_SETPIPE_SZ))],
            &[(1, INT, int(libc::F_GETPIPE_SZ))],
        ],
        "duplicates of its descriptors; the capacity of a pipe",
    ),
    only(
        "socket",
        libc::SYS_socket,
        &[
            &[(0, INT, int(libc::AF_INET)), (1, SOCKET_TYPE, int(libc::SOCK_STREAM)), (2, INT, 0)],
            &[(0, INT, int(libc::AF_INET6)), (1, SOCKET_TYPE, int(libc::SOCK_STREAM)), (2, INT, 0)],
            &[(0, INT, int(libc::AF_NETLINK)), (2, INT, int(libc::NETLINK_SOCK_DIAG))],
        ],
        "connections to services, and the owner of the accepting socket",
    ),
    only(
        "socketpair",
        libc::SYS_socketpair,
        &[&[(0, INT, int(libc::AF_UNIX)), (1, SOCKET_TYPE, int(libc::SOCK_STREAM)), (2, INT, 0)]],
        "connections to the terminator",
    ),
    row("accept4", libc::SYS_accept4, SOCKETS),
    row("connect", libc::SYS_connect, SOCKETS),
    row("getsockname", libc::SYS_getsockname, SOCKETS),
    row("shutdown", libc::SYS_shutdown, SOCKETS),
    row("close", libc::SYS_close, SOCKETS),
    only(
        "setsockopt",
        libc::SYS_setsockopt,
        &[
            &[(1, INT, int(libc::SOL_SOCKET)), (2, INT, int(libc::SO_LINGER))],
            &[(1, INT, int(libc::SOL_SOCKET)), (2, INT, int(libc::SO_SNDBUF))],
            &[(1, INT, int(libc::IPPROTO_TCP)), (2, INT, int(libc::TCP_NODELAY))],
        ],
        SOCKETS,
    ),
    only(
        "getsockopt",
        libc::SYS_getsockopt,
        &[
            &[(1, INT, int(libc::SOL_SOCKET)), (2, INT, int(libc::SO_ERROR))],
            &[(1, INT, int(libc::SOL_SOCKET)), (2, INT, int(libc::SO_DOMAIN))],
        ],
        SOCKETS,
    ),
];

/// The request to init to start the gateway, with or without the pair to a terminator.
pub fn spawn(with_terminator: bool) -> Result<Spawn, FilterError> {
    let servant = Servant {
        uid: UID,
        calls: &CALLS,
        memory: MEMORY,
        // One thread for each processor that the supervisor may use.
        threads: processors(),
        descriptors: MAX_CONNECTIONS * DESCRIPTORS + RESERVED_DESCRIPTORS,
    };
    let argument = with_terminator.then(|| WITH_TERMINATOR.to_owned());
    servant
        .spawn(iter::once(PROGRAM.to_owned()).chain(argument).collect(), if with_terminator { 3 } else { 2 })
}

#[cfg(test)]
mod tests {
    use libc::c_long;

    use super::*;
    use crate::confine::allowed::ALL;
    use crate::confine::filter::{self, answer_to};

    const KILL: u32 = 0x8000_0000;
    const ALLOW: u32 = 0x7FFF_0000;

    fn answer(number: c_long, arguments: [u64; 6]) -> u32 {
        answer_to(&filter::allow(&CALLS).unwrap(), number, arguments)
    }

    #[test]
    fn calls_that_open_execute_trace_or_mount_kill_the_gateway() {
        for number in [
            libc::SYS_openat,
            libc::SYS_execve,
            libc::SYS_memfd_create,
            libc::SYS_ptrace,
            libc::SYS_mount,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_dup3,
            libc::SYS_unshare,
            libc::SYS_clone3,
            libc::SYS_kill,
            libc::SYS_prctl,
        ] {
            assert_eq!(answer(number, [0; 6]), KILL, "{number}");
        }
    }

    #[test]
    fn only_pairs_of_streams_can_be_created() {
        let (stream, packets) = (int(libc::SOCK_STREAM | libc::SOCK_CLOEXEC), int(libc::SOCK_SEQPACKET));
        for (family, kind, expected) in
            [(libc::AF_UNIX, stream, ALLOW), (libc::AF_UNIX, packets, KILL), (libc::AF_INET, stream, KILL)]
        {
            let made = answer(libc::SYS_socketpair, [int(family), kind, 0, 0, 0, 0]);
            assert_eq!(made, expected, "{family} {kind}");
        }
    }

    #[test]
    fn only_tcp_sockets_and_the_socket_diagnosis_can_be_created() {
        let (stream, datagram) = (int(libc::SOCK_STREAM | libc::SOCK_CLOEXEC), int(libc::SOCK_DGRAM));
        for (family, kind, protocol, expected) in [
            (libc::AF_INET, stream, 0, ALLOW),
            (libc::AF_INET6, stream, 0, ALLOW),
            (libc::AF_INET, datagram, 0, KILL),
            (libc::AF_VSOCK, stream, 0, KILL),
            (libc::AF_UNIX, stream, 0, KILL),
            (libc::AF_NETLINK, int(libc::SOCK_RAW), 4, ALLOW),
            (libc::AF_NETLINK, int(libc::SOCK_RAW), 0, KILL),
        ] {
            let made = answer(libc::SYS_socket, [int(family), kind, protocol, 0, 0, 0]);
            assert_eq!(made, expected, "{family} {kind} {protocol}");
        }
        let code = [0, 4096, int(libc::PROT_READ | libc::PROT_EXEC), 0x22, ALL, 0];
        assert_eq!(answer(libc::SYS_mmap, code), KILL);
    }
}
