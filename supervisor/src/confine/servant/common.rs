//! System calls that every servant makes: those of a static program with Tokio's reactor and a channel to the
//! supervisor.

use cloister_wire::hold::{Limits, PROGRAM_FD, Place, Spawn};

use crate::confine::allowed::{ALL, Allowed, Argument, INT, int, only, row};
use crate::confine::filter::{self, FilterError};

/// `PROT_EXEC` is not set: no memory becomes executable.
const NOT_CODE: Argument = (2, int(libc::PROT_EXEC), 0);

/// The bits of a socket's type without flags (`SOCK_TYPE_MASK`, `linux/net.h`).
pub(super) const SOCKET_TYPE: u64 = 0xF;

/// `FIONBIO` of `asm-generic/ioctls.h`, whose type differs between C libraries.
pub(super) const NON_BLOCKING: u64 = 0x5421;

/// The flags of `pthread_create` in musl (`src/thread/pthread_create.c`), so that no process or namespace can be
/// created.
const THREAD: u64 = 0x007D_0F00;

const START: &str = "startup of a static program";
const MEMORY: &str = "the allocator";
const THREADS: &str = "threads and locks";
const REACTOR: &str = "Tokio's reactor and clock";
const CHANNEL: &str = "messages and descriptors to and from the supervisor";
const EXIT: &str = "exit, with an error message on stderr";

/// The calls.
pub(super) const COMMON: &[Allowed] = &[
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
    row("sendmsg", libc::SYS_sendmsg, CHANNEL),
    row("recvmsg", libc::SYS_recvmsg, CHANNEL),
    row("writev", libc::SYS_writev, EXIT),
    only("tkill", libc::SYS_tkill, &[&[(1, INT, int(libc::SIGABRT))]], EXIT),
    row("exit", libc::SYS_exit, EXIT),
    row("exit_group", libc::SYS_exit_group, EXIT),
];

/// What distinguishes one servant's confinement from another's.
pub(super) struct Servant<'a> {
    /// The user, and the group of the same number.
    pub(super) uid: u32,
    /// The calls that it may make.
    pub(super) calls: &'a [&'a [Allowed]],
    /// `memory.max` in bytes.
    pub(super) memory: u64,
    /// `pids.max`.
    pub(super) threads: usize,
    /// `RLIMIT_NOFILE`.
    pub(super) descriptors: usize,
}

impl Servant<'_> {
    /// The request to init to start it with these arguments, and so many descriptors.
    pub(super) fn spawn(&self, argv: Vec<String>, fds: u8) -> Result<Spawn, FilterError> {
        let limit = |number: usize| Some(u32::try_from(number).unwrap_or(u32::MAX));
        Ok(Spawn {
            argv,
            env: Vec::new(),
            place: Place::Empty,
            uid: self.uid,
            gid: self.uid,
            groups: Vec::new(),
            capabilities: 0,
            seccomp: filter::allow(self.calls)?,
            limits: Limits {
                memory: Some(self.memory),
                cpu_millis: None,
                pids: limit(self.threads),
                open_files: limit(self.descriptors),
            },
            fds,
        })
    }
}
