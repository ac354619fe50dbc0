//! The system calls that services must not make unless their manifest allows them, and why.
//!
//! Invariant: this is data. Each row has a reason, and one of three results, chosen so that a program that merely
//! probes for a call falls back, and a program that has no legitimate use for it is killed visibly.

use libc::c_long;

/// The result of a refused call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer {
    /// `EPERM`: the call exists and is not allowed. Programs that try it continue without it.
    NotPermitted,
    /// `ENOSYS`: as on a kernel built without it, which programs with a fallback check for.
    NotImplemented,
    /// The process is killed by `SIGSYS`: no application needs the call, so a process that makes it is compromised.
    Kill,
}

/// One refused system call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denied {
    /// Its name, as used in a manifest.
    pub(super) name: &'static str,
    /// Its number on this architecture.
    pub(super) number: c_long,
    /// Its result.
    pub(super) answer: Answer,
    /// The reason, for the documentation.
    pub(super) reason: &'static str,
}

const fn row(name: &'static str, number: c_long, answer: Answer, reason: &'static str) -> Denied {
    Denied { name, number, answer, reason }
}

/// `kexec_file_load`, which musl's headers leave out on 64-bit ARM: its number there is that of `asm-generic/unistd.h`.
#[cfg(target_arch = "x86_64")]
const KEXEC_FILE_LOAD: i64 = libc::SYS_kexec_file_load;
/// See above.
#[cfg(not(target_arch = "x86_64"))]
const KEXEC_FILE_LOAD: i64 = 294;

const MODULES: &str = "changes the measured kernel";
const KEXEC: &str = "replaces the measured kernel";
#[cfg(target_arch = "x86_64")]
const PORTS: &str = "accesses hardware and bypasses the kernel";
const SWAP: &str = "writes the enclave's memory to a device the host owns";
const OTHERS: &str = "reads or controls other processes";
const MOUNTS: &str = "changes the mount view that hides devices and makes the root read-only";
const NAMESPACES: &str = "leaves or replaces the service's namespaces";
const KEYS: &str = "the kernel's keyrings are not separated between services";
const RINGS: &str = "its operations bypass this filter, including AF_VSOCK sockets";
const PROGRAMS: &str = "runs programs inside the kernel";
const WATCH: &str = "reveals activity of other processes and of the kernel";

/// The table. Sockets of the family `AF_VSOCK` are refused too, see [`super::filter`].
pub(super) const DENIED: &[Denied] = &[
    row("init_module", libc::SYS_init_module, Answer::Kill, MODULES),
    row("finit_module", libc::SYS_finit_module, Answer::Kill, MODULES),
    row("delete_module", libc::SYS_delete_module, Answer::Kill, MODULES),
    row("kexec_load", libc::SYS_kexec_load, Answer::Kill, KEXEC),
    row("kexec_file_load", KEXEC_FILE_LOAD, Answer::Kill, KEXEC),
    #[cfg(target_arch = "x86_64")]
    row("iopl", libc::SYS_iopl, Answer::Kill, PORTS),
    #[cfg(target_arch = "x86_64")]
    row("ioperm", libc::SYS_ioperm, Answer::Kill, PORTS),
    row("swapon", libc::SYS_swapon, Answer::Kill, SWAP),
    row("swapoff", libc::SYS_swapoff, Answer::Kill, SWAP),
    row("ptrace", libc::SYS_ptrace, Answer::NotPermitted, OTHERS),
    row("process_vm_readv", libc::SYS_process_vm_readv, Answer::NotPermitted, OTHERS),
    row("process_vm_writev", libc::SYS_process_vm_writev, Answer::NotPermitted, OTHERS),
    row("pidfd_getfd", libc::SYS_pidfd_getfd, Answer::NotPermitted, OTHERS),
    row("kcmp", libc::SYS_kcmp, Answer::NotPermitted, OTHERS),
    row("mount", libc::SYS_mount, Answer::NotPermitted, MOUNTS),
    row("umount2", libc::SYS_umount2, Answer::NotPermitted, MOUNTS),
    row("pivot_root", libc::SYS_pivot_root, Answer::NotPermitted, MOUNTS),
    row("open_tree", libc::SYS_open_tree, Answer::NotPermitted, MOUNTS),
    row("move_mount", libc::SYS_move_mount, Answer::NotPermitted, MOUNTS),
    row("fsopen", libc::SYS_fsopen, Answer::NotPermitted, MOUNTS),
    row("fsconfig", libc::SYS_fsconfig, Answer::NotPermitted, MOUNTS),
    row("fsmount", libc::SYS_fsmount, Answer::NotPermitted, MOUNTS),
    row("fspick", libc::SYS_fspick, Answer::NotPermitted, MOUNTS),
    row("mount_setattr", libc::SYS_mount_setattr, Answer::NotPermitted, MOUNTS),
    row("open_by_handle_at", libc::SYS_open_by_handle_at, Answer::NotPermitted, MOUNTS),
    row("unshare", libc::SYS_unshare, Answer::NotPermitted, NAMESPACES),
    row("setns", libc::SYS_setns, Answer::NotPermitted, NAMESPACES),
    row("keyctl", libc::SYS_keyctl, Answer::NotPermitted, KEYS),
    row("add_key", libc::SYS_add_key, Answer::NotPermitted, KEYS),
    row("request_key", libc::SYS_request_key, Answer::NotPermitted, KEYS),
    row("bpf", libc::SYS_bpf, Answer::NotPermitted, PROGRAMS),
    row("userfaultfd", libc::SYS_userfaultfd, Answer::NotPermitted, OTHERS),
    row("perf_event_open", libc::SYS_perf_event_open, Answer::NotPermitted, WATCH),
    row("syslog", libc::SYS_syslog, Answer::NotPermitted, WATCH),
    row("io_uring_setup", libc::SYS_io_uring_setup, Answer::NotImplemented, RINGS),
    row("io_uring_enter", libc::SYS_io_uring_enter, Answer::NotImplemented, RINGS),
    row("io_uring_register", libc::SYS_io_uring_register, Answer::NotImplemented, RINGS),
];
