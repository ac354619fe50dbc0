//! The confinement of servants: a user each, no capabilities, and an allow list of system calls.
//!
//! Invariant: a servant is allowed exactly the calls that it makes, and every row states the purpose. Any other call
//! kills it, so a missing row is noticed immediately, and an unnecessary one is an opportunity for an attacker.

use cloister_net::processors;
use cloister_wire::gateway::{MAX_CONNECTIONS, PROGRAM, RESERVED_DESCRIPTORS};
use cloister_wire::hold::{Limits, PROGRAM_FD, Place, Spawn};
use libc::{c_int, c_long};
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::filter::{self, FilterError};

/// The gateway's user and group: in the range of systemd's dynamic users (61,184 to 65,519,
/// `doc/UIDS-GIDS.md` of systemd), so no distribution and no image uses it.
pub const GATEWAY_UID: u32 = 61_184;

/// The gateway's memory limit. 4,000 idle connections were measured at 35 MB: 3 kB each of its own, 5.6 kB of the
/// kernel's. All of [`MAX_CONNECTIONS`] and the pipes at full throughput (9 MiB) leave 19 MiB for bytes in transit. A
/// connection whose receiver does not read holds about 70 kB, so that 700 to 1,200 of them exceed the limit, and the
/// kernel kills the gateway. When idle it uses half a megabyte.
const GATEWAY_MEMORY: u64 = 64 * 1024 * 1024;

/// Descriptors of a connection: two sockets, and one for each to wait for buffer space.
const DESCRIPTORS: usize = 4;

/// A condition for one argument of a call: its position, the bits that are compared, and their value.
type Argument = (u8, u64, u64);

/// All bits of an argument that is an `int`.
const INT: u64 = 0xFFFF_FFFF;

/// All bits of an argument.
const ALL: u64 = u64::MAX;

/// One allowed system call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    pub(super) name: &'static str,
    number: c_long,
    /// The allowed combinations of arguments; all if empty.
    forms: &'static [&'static [Argument]],
    /// Its purpose.
    pub(super) reason: &'static str,
}

impl Allowed {
    /// The rule for the filter.
    pub(super) fn rule(&self) -> Result<(c_long, Vec<SeccompRule>), FilterError> {
        let condition = |(place, mask, value): &Argument| {
            let (length, op) = match *mask {
                ALL => (SeccompCmpArgLen::Qword, SeccompCmpOp::Eq),
                INT => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq),
                mask => (SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask)),
            };
            SeccompCondition::new(*place, length, op, *value)
        };
        let form = |arguments: &&[Argument]| -> Result<SeccompRule, FilterError> {
            Ok(SeccompRule::new(arguments.iter().map(condition).collect::<Result<_, _>>()?)?)
        };
        Ok((self.number, self.forms.iter().map(form).collect::<Result<_, _>>()?))
    }
}

const fn row(name: &'static str, number: c_long, reason: &'static str) -> Allowed {
    Allowed { name, number, forms: &[], reason }
}

const fn only(
    name: &'static str,
    number: c_long,
    forms: &'static [&'static [Argument]],
    reason: &'static str,
) -> Allowed {
    Allowed { name, number, forms, reason }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_sign_loss,
    reason = "constants of the C library, none negative; try_from is not const"
)]
const fn int(value: c_int) -> u64 {
    value as u64
}

/// `PROT_EXEC` is not set: no memory becomes executable.
const NOT_CODE: Argument = (2, int(libc::PROT_EXEC), 0);

/// The bits of a socket's type without flags (`SOCK_TYPE_MASK`, `linux/net.h`).
const SOCKET_TYPE: u64 = 0xF;

/// The flags of `pthread_create` in musl (`src/thread/pthread_create.c`), so that no process or namespace can be
/// created.
const THREAD: u64 = 0x007D_0F00;

/// `FIONREAD`, `FIONBIO` and `TIOCOUTQ` of `asm-generic/ioctls.h`, whose type differs between C libraries.
const QUEUES: [u64; 3] = [0x541B, 0x5421, 0x5411];

const START: &str = "startup of a static program";
const MEMORY: &str = "the allocator";
const THREADS: &str = "threads and locks";
const REACTOR: &str = "Tokio's reactor and clock";
const STREAMS: &str = "data of connections";
const SOCKETS: &str = "opening, configuring and closing connections";
const CHANNEL: &str = "messages and descriptors to and from the supervisor";
const EXIT: &str = "exit, with an error message on stderr";

/// The gateway's calls.
pub(super) const GATEWAY: &[Allowed] = &[
    only(
        "execveat",
        libc::SYS_execveat,
        &[&[(0, INT, int(PROGRAM_FD)), (4, INT, int(libc::AT_EMPTY_PATH))]],
        "init's last call, which executes the program and closes its descriptor",
    ),
    #[cfg(target_arch = "x86_64")]
    row("arch_prctl", libc::SYS_arch_prctl, START),
    #[cfg(target_arch = "x86_64")]
    row("poll", libc::SYS_poll, START),
    row("set_tid_address", libc::SYS_set_tid_address, START),
    row("rt_sigaction", libc::SYS_rt_sigaction, START),
    row("rt_sigprocmask", libc::SYS_rt_sigprocmask, START),
    row("sigaltstack", libc::SYS_sigaltstack, START),
    row("getrandom", libc::SYS_getrandom, "keys of hash tables"),
    only("prlimit64", libc::SYS_prlimit64, &[&[(0, INT, 0)]], "its own limit of open files"),
    only(
        "sched_getaffinity",
        libc::SYS_sched_getaffinity,
        &[&[(0, INT, 0)]],
        "the number of threads to start",
    ),
    row("brk", libc::SYS_brk, MEMORY),
    only("mmap", libc::SYS_mmap, &[&[NOT_CODE]], MEMORY),
    only("mprotect", libc::SYS_mprotect, &[&[NOT_CODE]], MEMORY),
    row("munmap", libc::SYS_munmap, MEMORY),
    row("mremap", libc::SYS_mremap, MEMORY),
    row("madvise", libc::SYS_madvise, MEMORY),
    only("clone", libc::SYS_clone, &[&[(0, ALL, THREAD)]], THREADS),
    row("futex", libc::SYS_futex, THREADS),
    row("gettid", libc::SYS_gettid, THREADS),
    row("sched_yield", libc::SYS_sched_yield, THREADS),
    row("epoll_create1", libc::SYS_epoll_create1, REACTOR),
    row("epoll_ctl", libc::SYS_epoll_ctl, REACTOR),
    row("epoll_pwait", libc::SYS_epoll_pwait, REACTOR),
    row("eventfd2", libc::SYS_eventfd2, REACTOR),
    row("clock_gettime", libc::SYS_clock_gettime, REACTOR),
    row("restart_syscall", libc::SYS_restart_syscall, "made by the kernel after the process was stopped"),
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
    row("sendmsg", libc::SYS_sendmsg, CHANNEL),
    row("recvmsg", libc::SYS_recvmsg, CHANNEL),
    row("writev", libc::SYS_writev, EXIT),
    only("tkill", libc::SYS_tkill, &[&[(1, INT, int(libc::SIGABRT))]], EXIT),
    row("exit", libc::SYS_exit, EXIT),
    row("exit_group", libc::SYS_exit_group, EXIT),
];

/// The request to init to start the gateway.
pub fn gateway() -> Result<Spawn, FilterError> {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(Spawn {
        argv: vec![PROGRAM.to_owned()],
        env: Vec::new(),
        place: Place::Empty,
        uid: GATEWAY_UID,
        gid: GATEWAY_UID,
        groups: Vec::new(),
        capabilities: 0,
        seccomp: filter::allow(GATEWAY)?,
        limits: Limits {
            memory: Some(GATEWAY_MEMORY),
            cpu_millis: None,
            // One thread for each processor that the supervisor may use.
            pids: Some(count(processors())),
            open_files: Some(count(MAX_CONNECTIONS * DESCRIPTORS + RESERVED_DESCRIPTORS)),
        },
        fds: 2,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confine::filter::answer_to;

    const KILL: u32 = 0x8000_0000;
    const ALLOW: u32 = 0x7FFF_0000;

    fn answer(number: c_long, arguments: [u64; 6]) -> u32 {
        answer_to(&filter::allow(GATEWAY).unwrap(), number, arguments)
    }

    #[test]
    fn every_call_is_allowed_with_its_arguments_and_has_a_reason() {
        for row in GATEWAY {
            assert!(!row.reason.is_empty());
            let mut forms: Vec<[u64; 6]> = Vec::new();
            for form in row.forms {
                let mut arguments = [0; 6];
                form.iter().for_each(|(place, _, value)| arguments[usize::from(*place)] = *value);
                forms.push(arguments);
            }
            if forms.is_empty() {
                forms.push([0; 6]);
            } else {
                assert_eq!(answer(row.number, [0x7777_7777; 6]), KILL, "{}", row.name);
            }
            for arguments in forms {
                assert_eq!(answer(row.number, arguments), ALLOW, "{}", row.name);
            }
        }
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
            libc::SYS_socketpair,
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
