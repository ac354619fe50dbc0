//! Starting a process: fork into a cgroup, set up descriptors, exec a program.
//!
//! Invariant: operations that are only valid in a child before exec are methods of [`Child`], which only the forks here
//! create. The caller decides what happens between fork and exec.

#![expect(unsafe_code, reason = "clone3, dup2 to a chosen number, execve and _exit have no safe wrapper")]

use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::mount::{MountPropagationFlags, OpenTreeFlags};
use rustix::process::Pid;

/// The result of a fork.
#[derive(Debug)]
pub enum Fork {
    /// In the parent: the PID of the child.
    Parent(Pid),
    /// In the child.
    Child(Child),
}

/// A process between fork and exec: its memory is a copy that exec discards.
#[derive(Debug)]
pub struct Child(());

/// The arguments and environment of a program, in the form that exec takes. They are built before a seccomp filter is
/// installed that may deny the system calls of the allocator.
#[derive(Debug)]
pub struct Arguments<'a> {
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    strings: PhantomData<&'a CStr>,
}

impl<'a> Arguments<'a> {
    /// Refers to these strings.
    #[must_use]
    pub fn new(argv: &'a [CString], env: &'a [CString]) -> Self {
        Self { argv: pointers(argv), env: pointers(env), strings: PhantomData }
    }
}

/// `struct clone_args` up to `cgroup` (`linux/sched.h`, `CLONE_ARGS_SIZE_VER2`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// `CLONE_INTO_CGROUP` of `linux/sched.h`. Moving a process later costs an RCU grace period.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `CLONE_NEWPID` of `linux/sched.h`: the child is process 1 of a PID namespace of its own (`pid_namespaces(7)`).
const CLONE_NEWPID: u64 = 0x2000_0000;

/// Forks a child that is a member of the cgroup v2 directory `cgroup` from its first instruction on.
///
/// Errors: `Unsupported` in a process with more than one thread, whose locks the copy could never release, or without
/// `/proc`; `EBUSY` and `EOPNOTSUPP` if the directory is not a cgroup for processes; `EAGAIN` at a limit on processes.
pub fn fork_into(cgroup: impl AsFd) -> io::Result<Fork> {
    clone_into(cgroup, 0)
}

/// As [`fork_into`], with the child as process 1 of a new PID namespace: when it exits, the kernel kills all others in
/// it.
pub fn fork_into_pid_namespace(cgroup: impl AsFd) -> io::Result<Fork> {
    clone_into(cgroup, CLONE_NEWPID)
}

fn clone_into(cgroup: impl AsFd, flags: u64) -> io::Result<Fork> {
    let cgroup = u64::try_from(cgroup.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    clone(CloneArgs { flags: CLONE_INTO_CGROUP | flags, cgroup, ..CloneArgs::default() })
}

fn clone(args: CloneArgs) -> io::Result<Fork> {
    if threads()? != 1 {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "cannot fork a process with more than one thread",
        ));
    }
    let exit_signal = u64::try_from(libc::SIGCHLD).map_err(io::Error::other)?;
    let args = CloneArgs { exit_signal, ..args };
    // SAFETY: no memory is shared (no CLONE_VM) and there is one thread, so the child is a complete copy of this
    // process. Its thread ID cached by musl is that of the parent; nothing before exec uses it.
    let made = unsafe { libc::syscall(libc::SYS_clone3, ptr::from_ref(&args), size_of::<CloneArgs>()) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    match i32::try_from(made).map_err(io::Error::other)? {
        0 => Ok(Fork::Child(Child(()))),
        pid => Pid::from_raw(pid).map(Fork::Parent).ok_or_else(|| io::ErrorKind::Other.into()),
    }
}

impl Child {
    /// Makes `fds` the descriptors 0, 1, 2, … of the program, and returns `aside` under another number, which exec
    /// closes.
    ///
    /// Descriptors that had those numbers are closed.
    pub fn take_descriptors(&mut self, fds: &[OwnedFd], aside: OwnedFd) -> io::Result<OwnedFd> {
        let floor = RawFd::try_from(fds.len()).map_err(io::Error::other)?;
        let aside = rustix::io::fcntl_dupfd_cloexec(aside, floor)?;
        let lifted: Vec<OwnedFd> =
            fds.iter().map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, floor)).collect::<Result<_, _>>()?;
        for (number, fd) in (0..floor).zip(&lifted) {
            // SAFETY: this process is a copy that only execs: no owner of a replaced number uses it again.
            check(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
        }
        Ok(aside)
    }

    /// Makes `file` the descriptor `number`, close-on-exec.
    ///
    /// A descriptor that had that number is closed. Errors: `EINVAL` if `file` itself has that number.
    pub fn take_as(&mut self, file: impl AsFd, number: RawFd) -> io::Result<()> {
        // SAFETY: as in `take_descriptors`.
        check(unsafe { libc::dup3(file.as_fd().as_raw_fd(), number, libc::O_CLOEXEC) })
    }

    /// Forks a child of this child, in the same cgroup and namespaces.
    ///
    /// Errors: as [`fork_into`].
    pub fn fork(&self) -> io::Result<Fork> {
        clone(CloneArgs::default())
    }

    /// Moves this process into new namespaces: of mounts, whose changes are not visible elsewhere; of cgroups, with its
    /// own cgroup as the root; of System V and POSIX message objects, initially empty (`ipc_namespaces(7)`); and, with
    /// `also_names`, of the host name.
    ///
    /// Errors: `EPERM` if the process is not root.
    pub fn unshare_namespaces(&mut self, also_names: bool) -> io::Result<()> {
        let names = if also_names { libc::CLONE_NEWUTS } else { 0 };
        let kinds = libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP | libc::CLONE_NEWIPC | names;
        // SAFETY: these flags change name spaces, not which descriptors are open; there is one thread.
        check(unsafe { libc::unshare(kinds) })?;
        Ok(rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?)
    }

    /// Makes this process stop with `SIGTRAP` after a successful exec, before the program's first instruction
    /// (`PTRACE_TRACEME`, ptrace(2)). Closed descriptors alone do not prove a successful exec, which may still kill the
    /// process after closing them.
    ///
    /// The parent is notified of every other signal before this process receives it, until it detaches ([`detach`]).
    pub fn stop_after_exec(&mut self) -> io::Result<()> {
        trace(TRACE_ME, None, 0)
    }

    /// Executes the program in the open file `program`, regardless of its current name; returns only on failure. This
    /// is one system call: `execveat(program, "", …, AT_EMPTY_PATH)`.
    pub fn exec_file(&self, program: RawFd, arguments: &Arguments<'_>) -> Result<Infallible, io::Error> {
        let (argv, env) = (arguments.argv.as_ptr(), arguments.env.as_ptr());
        let (name, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
        // SAFETY: the name is empty, and the two lists are NULL-terminated and their strings outlive the call; a number
        // that is not an open file is refused.
        unsafe { libc::syscall(libc::SYS_execveat, program, name, argv, env, flags) };
        Err(io::Error::last_os_error())
    }

    /// Executes `program`; returns only on failure.
    pub fn exec(&self, program: &CStr, argv: &[CString], env: &[CString]) -> Result<Infallible, io::Error> {
        let (argv, env) = (pointers(argv), pointers(env));
        // SAFETY: the three are NUL-terminated strings and NULL-terminated lists that outlive the call.
        unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
        Err(io::Error::last_os_error())
    }

    /// Exits without running exit handlers of the parent.
    pub fn exit(self, code: u8) -> ! {
        // SAFETY: no exit handler runs, so the copy of the parent's state is not used again.
        unsafe { libc::_exit(i32::from(code)) }
    }
}

/// The file at `path` as a detached mount that is read-only for every process, regardless of privileges: for a program
/// outside the root of the processes that execute it.
///
/// Errors: those of `open_tree(2)` and `mount_setattr(2)`.
pub fn read_only_copy(path: &str) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, path, flags)?;
    let attr =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let (size, flags) = (size_of::<libc::mount_attr>(), libc::AT_EMPTY_PATH);
    let (fd, name) = (tree.as_raw_fd(), c"".as_ptr());
    // SAFETY: the name is NUL-terminated and `attr` is live with this size; the kernel only reads them.
    let set = unsafe { libc::syscall(libc::SYS_mount_setattr, fd, name, flags, &raw const attr, size) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(tree) }
}

/// Detaches from a child that stopped after exec, which then continues. It receives `signal` first, unless that is 0.
///
/// Errors: `ESRCH` if the process is not such a child, or was killed.
pub fn detach(child: Pid, signal: u8) -> io::Result<()> {
    trace(DETACH, Some(child), signal)
}

/// Continues a child that stopped because of `signal` before its exec, and delivers the signal.
///
/// Errors: as [`detach`].
pub fn resume(child: Pid, signal: u8) -> io::Result<()> {
    trace(CONTINUE, Some(child), signal)
}

/// `PTRACE_TRACEME` of `linux/ptrace.h`; its type differs between C libraries.
const TRACE_ME: libc::c_long = 0;
/// `PTRACE_CONT`.
const CONTINUE: libc::c_long = 7;
/// `PTRACE_DETACH`.
const DETACH: libc::c_long = 17;

fn trace(request: libc::c_long, child: Option<Pid>, signal: u8) -> io::Result<()> {
    let child = child.map_or(0, |child| child.as_raw_nonzero().get());
    let signal = libc::c_ulong::from(signal);
    // SAFETY: none of the three requests reads or writes memory of this process.
    let done = unsafe { libc::syscall(libc::SYS_ptrace, request, child, 0_usize, signal) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The number of threads of this process: each is a directory in `/proc/self/task`, which itself has two links.
fn threads() -> io::Result<u32> {
    let (here, flags) = (rustix::fs::CWD, rustix::fs::AtFlags::empty());
    let task = rustix::fs::statx(here, "/proc/self/task", flags, rustix::fs::StatxFlags::NLINK)?;
    Ok(task.stx_nlink.saturating_sub(2))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        let here = std::fs::File::open("/").unwrap();
        let (hold, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        assert_eq!(fork_into(&here).unwrap_err().kind(), io::ErrorKind::Unsupported);
        drop(hold);
        assert!(thread.join().unwrap().is_err());
    }

    #[test]
    fn a_traced_process_stops_after_exec_until_it_is_detached() {
        use rustix::process::{Signal, WaitOptions, waitpid};
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new("true");
        // SAFETY: the closure makes one system call, with integer arguments only.
        unsafe { command.pre_exec(|| trace(TRACE_ME, None, 0)) };
        let mut child = command.spawn().unwrap();
        let pid = Pid::from_child(&child);
        let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.stopping_signal(), Some(Signal::TRAP.as_raw()));
        detach(pid, 0).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(detach(pid, 0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
