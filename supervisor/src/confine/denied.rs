//! The system calls that no service may make unless its manifest asks for them, and why.
//!
//! Its law: this is data. Each row has its reason; what happens is one of three answers, chosen so that an honest program
//! that only tries falls back, and one that has no honest use ends visibly.

use libc::c_long;

/// What a refused call meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer {
    /// `EPERM`: the call exists and is not for you. Programs that try it go on without.
    NotPermitted,
    /// `ENOSYS`: as on a kernel built without it, which is what programs with a fallback look for.
    NotThere,
    /// The process dies of `SIGSYS`: nothing an application does needs it, so whoever calls it is not the application.
    Kill,
}

/// One refused system call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denied {
    /// Its name, by which a manifest allows it.
    pub(super) name: &'static str,
    /// Its number on this architecture.
    pub(super) number: c_long,
    /// What it meets.
    pub(super) answer: Answer,
    /// Why, for people who read what confines a service.
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
const PORTS: &str = "reaches hardware past the kernel";
const SWAP: &str = "writes the enclave's memory to a device the host owns";
const OTHERS: &str = "reads or steers other processes";
const MOUNTS: &str = "changes the mount view that hides devices and makes the root read-only";
const SPACES: &str = "leaves or replaces the namespaces a service was put in";
const KEYS: &str = "the kernel's keyrings are not divided between services";
const RINGS: &str = "its operations pass by this filter, sockets of AF_VSOCK among them";
const PROGRAMS: &str = "runs programs inside the kernel";
const WATCH: &str = "shows what other processes and the kernel do";

/// The table. A socket of the family `AF_VSOCK` is refused besides, see [`super::filter`].
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
    row("unshare", libc::SYS_unshare, Answer::NotPermitted, SPACES),
    row("setns", libc::SYS_setns, Answer::NotPermitted, SPACES),
    row("keyctl", libc::SYS_keyctl, Answer::NotPermitted, KEYS),
    row("add_key", libc::SYS_add_key, Answer::NotPermitted, KEYS),
    row("request_key", libc::SYS_request_key, Answer::NotPermitted, KEYS),
    row("bpf", libc::SYS_bpf, Answer::NotPermitted, PROGRAMS),
    row("userfaultfd", libc::SYS_userfaultfd, Answer::NotPermitted, OTHERS),
    row("perf_event_open", libc::SYS_perf_event_open, Answer::NotPermitted, WATCH),
    row("syslog", libc::SYS_syslog, Answer::NotPermitted, WATCH),
    row("io_uring_setup", libc::SYS_io_uring_setup, Answer::NotThere, RINGS),
    row("io_uring_enter", libc::SYS_io_uring_enter, Answer::NotThere, RINGS),
    row("io_uring_register", libc::SYS_io_uring_register, Answer::NotThere, RINGS),
];
