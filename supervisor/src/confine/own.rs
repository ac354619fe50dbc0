//! The supervisor's own confinement, in effect before it reads the first byte from outside.
//!
//! Invariant: it stays root, whose files it reads, and retains four capabilities, and a fifth where it corrects the date; all
//! others are dropped from every set. Calls that it does not make are refused. None of this can be undone.
//!
//! A call outside the list is refused with `EPERM`, so that an unexpected call of a later library version fails one
//! operation, reported like any other failure, and not the enclave: five exits of the supervisor within a minute are
//! fatal. Calls that start programs or access processes, mounts, namespaces or the kernel kill instead: no library
//! makes them, so the supervisor must be compromised. Services survive that; init starts a successor.

use std::io;

use cloister_sys::ptp;
use libc::c_long;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::capabilities::COUNT;
use super::filter::{FilterError, Rules, chain, encode, errno, never_used};

/// The retained capabilities. `SYS_PTRACE`: `/proc/PID/root` and `mountinfo` of services, for probes of files and for
/// `inspect`. `DAC_READ_SEARCH`: the same if users' directories are not readable by others. `NET_ADMIN`: sharing a
/// source address that is in use (`TCP_REPAIR`). `SYS_RESOURCE`: enough open files for all connections, and sending
/// descriptors to init regardless of how many descriptors services of root have in flight.
const RETAINED: CapabilitySet = CapabilitySet::SYS_PTRACE
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::SYS_RESOURCE);

/// Retained in addition by a supervisor that corrects the date.
const CLOCK_RETAINED: CapabilitySet = CapabilitySet::SYS_TIME;

/// The calls that are allowed with any arguments.
const CALLS: &[c_long] = &[
    // Memory. `mmap` and `mprotect` are below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Files: the manifest, `/proc`, cgroups, memfds of the logs. It creates, renames and removes none.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_fcntl,
    // Pipes of the services, and sealed memory for them, whose mode is set.
    libc::SYS_pipe2,
    libc::SYS_splice,
    libc::SYS_memfd_create,
    libc::SYS_fchmod,
    // Sockets. `socket` and `socketpair` are below.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    // Waiting, and the time if the vDSO cannot provide it.
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_clock_gettime,
    libc::SYS_restart_syscall,
    // Uncontended locks, and random bits.
    libc::SYS_futex,
    libc::SYS_getrandom,
    // The number of threads of a servant.
    libc::SYS_sched_getaffinity,
    // Exits, including panics.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Older variants of some of these, which only x86-64 has and musl prefers.
#[cfg(target_arch = "x86_64")]
const OLDER_CALLS: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
];
/// See above.
#[cfg(not(target_arch = "x86_64"))]
const OLDER_CALLS: &[c_long] = &[];

/// The `ioctl` requests: non-blocking mode, and the sizes of receive and send queues. Requests of devices are refused;
/// the security module's registers are read earlier. These are the numbers in `asm-generic/ioctls.h` (`FIONBIO`,
/// `FIONREAD`, `TIOCOUTQ`), whose type differs between C libraries.
const REQUESTS: [u64; 3] = [0x5421, 0x541B, 0x5411];

/// `PR_GET_AUXV` of `linux/prctl.h`, which the libc crate does not have.
const PR_GET_AUXV: u64 = 0x4155_5856;

/// The address families of sockets: for probes, connections to services, and listeners for programs inside. The host's
/// connections are accepted from listeners created earlier: the supervisor never connects to the outside.
const FAMILIES: [i32; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// The confinement could not be applied. The supervisor exits.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The filter cannot be built.
    #[error("cannot build the supervisor's seccomp filter")]
    Filter(#[from] FilterError),
    /// The kernel refuses a step.
    #[error("{step}")]
    Kernel {
        /// What failed.
        step: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Confines the calling thread, which must be the only one, and everything it starts. `keeps_time`: it may read the hypervisor's
/// clock and correct the date.
///
/// # Errors
/// If a step fails: then nothing must be served.
pub fn confine(keeps_time: bool) -> Result<(), OwnError> {
    let refused = |step| move |source: io::Error| OwnError::Kernel { step, source };
    let retained = if keeps_time { RETAINED.union(CLOCK_RETAINED) } else { RETAINED };
    drop_capabilities(retained).map_err(refused("cannot drop the supervisor's capabilities"))?;
    set_no_new_privs(true).map_err(|e| refused("cannot set no_new_privs")(e.into()))?;
    let program = program(keeps_time)?;
    cloister_sys::seccomp::install(&program)
        .map_err(refused("cannot install the supervisor's seccomp filter"))
}

/// The bounding set comes first: the capability to change it is dropped with the others.
fn drop_capabilities(retained: CapabilitySet) -> io::Result<()> {
    clear_ambient_capability_set()?;
    for number in 0..COUNT {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if retained.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            // The kernel does not know this capability.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let sets =
        CapabilitySets { effective: retained, permitted: retained, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

fn program(keeps_time: bool) -> Result<Vec<u64>, FilterError> {
    let mut program = BpfProgram::new();
    let mut killed = never_used();
    killed.extend([libc::SYS_execve, libc::SYS_execveat].map(|call| (call, Vec::new())));
    chain(&mut program, killed, SeccompAction::Allow, SeccompAction::KillProcess)?;
    chain(&mut program, allowed(keeps_time)?, errno(libc::EPERM), SeccompAction::Allow)?;
    Ok(encode(&program))
}

fn allowed(keeps_time: bool) -> Result<Rules, FilterError> {
    let mut rules: Rules = CALLS.iter().chain(OLDER_CALLS).map(|call| (*call, Vec::new())).collect();
    let equals = |argument, value| -> Result<SeccompRule, FilterError> {
        let equal = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
        Ok(SeccompRule::new(vec![equal])?)
    };
    let families = FAMILIES.map(|family| equals(0, u64::from(family.unsigned_abs())));
    let mut sockets = families.into_iter().collect::<Result<Vec<_>, _>>()?;
    sockets.push(socket_diagnosis()?);
    rules.insert(libc::SYS_socket, sockets);
    // Pairs, of which servants get one end.
    rules.insert(libc::SYS_socketpair, vec![equals(0, u64::from(libc::AF_UNIX.unsigned_abs()))?]);
    let clock = keeps_time.then_some(ptp::REQUEST);
    let requests = REQUESTS.into_iter().chain(clock).map(|request| equals(1, request));
    rules.insert(libc::SYS_ioctl, requests.collect::<Result<_, _>>()?);
    if keeps_time {
        // It has no argument that selects a clock: it is the date's.
        rules.insert(libc::SYS_adjtimex, Vec::new());
    }
    // rustix uses it to read the auxiliary vector.
    rules.insert(libc::SYS_prctl, vec![equals(0, PR_GET_AUXV)?]);
    // An abort of this thread, which is the only one.
    let thread = u64::from(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs());
    let abort = [(0, thread), (1, u64::from(libc::SIGABRT.unsigned_abs()))];
    let abort = abort.map(|(argument, value)| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    });
    let abort = abort.into_iter().collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_tkill, vec![SeccompRule::new(abort)?]);
    // This process's own limits only.
    rules.insert(libc::SYS_prlimit64, vec![equals(0, 0)?]);
    // Memory never becomes executable.
    let execute = u64::from(libc::PROT_EXEC.unsigned_abs());
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let op = SeccompCmpOp::MaskedEq(execute);
        let data = SeccompCondition::new(2, SeccompCmpArgLen::Dword, op, 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![data])?]);
    }
    Ok(rules)
}

/// `socket(AF_NETLINK, …, NETLINK_SOCK_DIAG)`: finds the owner of the socket that accepts a probe's connection.
fn socket_diagnosis() -> Result<SeccompRule, FilterError> {
    let equals = |argument, value: i32| {
        let value = u64::from(value.unsigned_abs());
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    Ok(SeccompRule::new(vec![equals(0, libc::AF_NETLINK)?, equals(2, libc::NETLINK_SOCK_DIAG)?])?)
}

#[cfg(test)]
mod tests {
    use super::super::filter::ALLOW;
    use super::super::filter::tests::{KILL_PROCESS, THIS_ARCH, answer, errno_of};
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use rustix::fs::{CWD, Mode};
    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketType, netlink};

    /// Runs `test` in a thread with the filter; other threads are unaffected.
    fn confined(test: impl FnOnce() + Send + 'static) {
        confined_as(false, test);
    }

    /// The same with the filter of a supervisor that corrects the date, or does not.
    fn confined_as(keeps_time: bool, test: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(move || {
            let program = program(keeps_time).unwrap();
            set_no_new_privs(true).unwrap();
            cloister_sys::seccomp::install(&program).unwrap();
            test();
        });
        thread.join().unwrap();
    }

    #[test]
    fn the_supervisors_own_calls_work_under_its_filter() {
        let (listener, folder) = (TcpListener::bind("127.0.0.1:0").unwrap(), tempfile::tempdir().unwrap());
        let path = folder.path().to_owned();
        std::fs::write(path.join("file"), "text").unwrap();
        confined(move || {
            let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (far, _) = listener.accept().unwrap();
            far.shutdown(std::net::Shutdown::Both).unwrap();
            assert_eq!(near.read(&mut [0; 4]).unwrap(), 0);
            assert_eq!(cloister_sys::splice::readable(&near).unwrap(), 0);
            assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "text");
            assert_eq!(std::fs::read_dir(path).unwrap().count(), 1);
            // Large enough to be mapped.
            assert_eq!(vec![1_u8; 4 << 20].len(), 4 << 20);
            std::os::unix::net::UnixStream::pair().unwrap();
            let memfd = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
            rustix::fs::ftruncate(&memfd, 4096).unwrap();
        });
    }

    #[test]
    fn calls_that_no_library_makes_kill() {
        let program = program(false).unwrap();
        let denied = super::super::denied::DENIED.iter().map(|row| row.number);
        for call in denied.chain([libc::SYS_execve, libc::SYS_execveat]) {
            assert_eq!(answer(&program, call, THIS_ARCH, 0), KILL_PROCESS, "{call}");
        }
        assert_eq!(answer(&program, libc::SYS_read, 0x4000_0003, 0), KILL_PROCESS, "another architecture");
        assert_eq!(answer(&program, libc::SYS_mkdirat, THIS_ARCH, 0), errno_of(libc::EPERM));
        for (process, expected) in [(0, ALLOW), (1, errno_of(libc::EPERM))] {
            assert_eq!(answer(&program, libc::SYS_prlimit64, THIS_ARCH, process), expected);
        }
    }

    #[test]
    fn the_date_is_corrected_only_where_there_is_a_clock_and_is_never_set_otherwise() {
        let [with, without] = [true, false].map(|keeps_time| program(keeps_time).unwrap());
        assert_eq!(answer(&with, libc::SYS_adjtimex, THIS_ARCH, 0), ALLOW);
        assert_eq!(answer(&without, libc::SYS_adjtimex, THIS_ARCH, 0), errno_of(libc::EPERM));
        for call in [libc::SYS_clock_settime, libc::SYS_clock_adjtime, libc::SYS_settimeofday] {
            assert_ne!(answer(&with, call, THIS_ARCH, 0), ALLOW, "{call}");
        }
    }

    #[test]
    fn the_calls_that_read_the_clock_and_correct_the_date_work_under_its_filter() {
        use cloister_sys::{adjust, ptp::Ptp};
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("sys/class/ptp/ptp0")).unwrap();
        std::fs::write(root.path().join("sys/class/ptp/ptp0/clock_name"), "KVM virtual PTP\n").unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        std::fs::write(root.path().join("dev/ptp0"), "").unwrap();
        // A correction by nothing; without the privilege the kernel refuses it, with the filter or without.
        let correct = || adjust::slew(0).map_err(|error| error.raw_os_error());
        let expected = correct();
        for (keeps_time, read, corrected) in
            [(true, libc::ENOTTY, expected), (false, libc::EPERM, Err(Some(libc::EPERM)))]
        {
            let clock = Ptp::open(root.path()).unwrap().unwrap();
            confined_as(keeps_time, move || {
                assert_eq!(clock.read().unwrap_err().raw_os_error(), Some(read), "{keeps_time}");
                assert_eq!(correct(), corrected, "{keeps_time}");
            });
        }
    }

    #[test]
    fn calls_outside_the_list_are_refused() {
        confined(|| {
            assert_eq!(rustix::fs::mkdirat(CWD, "made", Mode::RWXU), Err(Errno::PERM));
            assert_eq!(rustix::fs::unlink("/nothing"), Err(Errno::PERM));
            assert_eq!(rustix::fs::symlink("/nothing", "/nowhere"), Err(Errno::PERM));
            for family in [AddressFamily::NETLINK, AddressFamily::VSOCK] {
                let made = rustix::net::socket(family, SocketType::DGRAM, None);
                assert_eq!(made.unwrap_err(), Errno::PERM, "{family:?}");
            }
            rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::SOCK_DIAG)).unwrap();
            let terminal = File::open("/dev/null").unwrap();
            assert_eq!(rustix::termios::tcgetattr(&terminal).unwrap_err(), Errno::PERM);
            assert!(std::thread::Builder::new().spawn(|| {}).is_err());
        });
    }
}
