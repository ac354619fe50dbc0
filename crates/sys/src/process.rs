//! A process of its own: forked into its cgroup, given its descriptors, turned into a program.
//!
//! Its law: what only a child about to exec may do hangs on [`Child`], which only the forks here make. It leaves what
//! happens between fork and exec to the caller.

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

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    /// The caller, and the process that was made.
    Parent(Pid),
    /// The process that was made.
    Child(Child),
}

/// A process between fork and exec: its memory is a copy that will be thrown away.
#[derive(Debug)]
pub struct Child(());

/// The arguments and environment of a program, in the form that exec takes: made before a filter is in force that may refuse
/// what allocating takes.
#[derive(Debug)]
pub struct Arguments<'a> {
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    strings: PhantomData<&'a CStr>,
}

impl<'a> Arguments<'a> {
    /// Points to these strings.
    #[must_use]
    pub fn new(argv: &'a [CString], env: &'a [CString]) -> Self {
        Self { argv: pointers(argv), env: pointers(env), strings: PhantomData }
    }
}

/// The whole of `struct clone_args` up to `cgroup` (`linux/sched.h`, `CLONE_ARGS_SIZE_VER2`).
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

/// `CLONE_INTO_CGROUP` of `linux/sched.h`. A process that is moved later costs a grace period of the whole machine.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `CLONE_NEWPID` of `linux/sched.h`: the child is process 1 of a PID namespace of its own (`pid_namespaces(7)`).
const CLONE_NEWPID: u64 = 0x2000_0000;

/// Forks a child that is a member of the cgroup v2 folder `cgroup` from its first instruction on.
///
/// Errors: `Unsupported` in a process with more than one thread, whose locks a copy could not let go of, or without
/// `/proc`; `EBUSY` and `EOPNOTSUPP` when the folder is no cgroup for processes; `EAGAIN` over a limit of processes.
pub fn fork_into(cgroup: impl AsFd) -> io::Result<Fork> {
    clone_into(cgroup, 0)
}

/// The same, and the child is process 1 of a PID namespace of its own: when it ends, the kernel kills all others of it.
pub fn fork_first_into(cgroup: impl AsFd) -> io::Result<Fork> {
    clone_into(cgroup, CLONE_NEWPID)
}

fn clone_into(cgroup: impl AsFd, flags: u64) -> io::Result<Fork> {
    let cgroup = u64::try_from(cgroup.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    clone(CloneArgs { flags: CLONE_INTO_CGROUP | flags, cgroup, ..CloneArgs::default() })
}

fn clone(args: CloneArgs) -> io::Result<Fork> {
    if threads()? != 1 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "only a process with one thread is forked"));
    }
    let exit_signal = u64::try_from(libc::SIGCHLD).map_err(io::Error::other)?;
    let args = CloneArgs { exit_signal, ..args };
    // SAFETY: no memory is shared (no CLONE_VM) and there is one thread, so the child is a whole copy of this process.
    // musl's cached thread id is the parent's in it; nothing before exec asks for that.
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
    /// Makes `fds` the descriptors 0, 1, 2, … of the program to come, and keeps `aside`, under another number, until exec.
    ///
    /// Whatever had those numbers is closed.
    pub fn take_descriptors(&mut self, fds: &[OwnedFd], aside: OwnedFd) -> io::Result<OwnedFd> {
        let floor = RawFd::try_from(fds.len()).map_err(io::Error::other)?;
        let aside = rustix::io::fcntl_dupfd_cloexec(aside, floor)?;
        let lifted: Vec<OwnedFd> =
            fds.iter().map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, floor)).collect::<Result<_, _>>()?;
        for (number, fd) in (0..floor).zip(&lifted) {
            // SAFETY: this process is a copy on its way to exec: no owner of a replaced number acts again.
            check(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
        }
        Ok(aside)
    }

    /// Makes `file` the descriptor `number`, which exec closes, until then.
    ///
    /// Whatever had that number is closed. Errors: `EINVAL` where `file` has that number itself.
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

    /// Gives this process its own view of mounts, changeable without a trace elsewhere, of cgroups, with its own group
    /// as their root, of System V and POSIX message objects, of which it has none yet (`ipc_namespaces(7)`), and where it is
    /// `also_names` of the host's name.
    ///
    /// Errors: `EPERM` for a process that is not root.
    pub fn leave_namespaces(&mut self, also_names: bool) -> io::Result<()> {
        let names = if also_names { libc::CLONE_NEWUTS } else { 0 };
        let kinds = libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP | libc::CLONE_NEWIPC | names;
        // SAFETY: these flags change what names mean, not which descriptors are open; there is one thread.
        check(unsafe { libc::unshare(kinds) })?;
        Ok(rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?)
    }

    /// Has the parent of this process see it stop for `SIGTRAP` once it has become its program, before the first instruction of
    /// that (`PTRACE_TRACEME`, ptrace(2)). Exec by itself shows less: it closes descriptors, and may kill the process after that.
    ///
    /// The parent sees every other signal before this process does, until it lets go ([`let_go`]).
    pub fn stop_as_program(&mut self) -> io::Result<()> {
        trace(TRACE_ME, None, 0)
    }

    /// Becomes the program in the open file `program`, whatever its name is by now, or says why not. This is one system call:
    /// `execveat(program, "", …, AT_EMPTY_PATH)`.
    pub fn exec_file(&self, program: RawFd, arguments: &Arguments<'_>) -> Result<Infallible, io::Error> {
        let (argv, env) = (arguments.argv.as_ptr(), arguments.env.as_ptr());
        let (name, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
        // SAFETY: the name is empty, and the two lists are NULL-terminated, of strings that outlive the call; a number that is
        // no open file is refused.
        unsafe { libc::syscall(libc::SYS_execveat, program, name, argv, env, flags) };
        Err(io::Error::last_os_error())
    }

    /// Becomes `program`, or says why not.
    pub fn exec(&self, program: &CStr, argv: &[CString], env: &[CString]) -> Result<Infallible, io::Error> {
        let (argv, env) = (pointers(argv), pointers(env));
        // SAFETY: the three are NUL-terminated strings and NULL-terminated lists that outlive the call.
        unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
        Err(io::Error::last_os_error())
    }

    /// Ends without running anything of the parent's.
    pub fn exit(self, code: u8) -> ! {
        // SAFETY: no exit handler runs, so nothing of the parent's copy is used again.
        unsafe { libc::_exit(i32::from(code)) }
    }
}

/// The file at `path` as a mount that is nowhere and takes no change, whatever the rights of those who reach it: for a
/// program that lies outside the view of those who run it.
///
/// Errors: those of `open_tree(2)` and `mount_setattr(2)`.
pub fn read_only_copy(path: &str) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, path, flags)?;
    let attr =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let (size, flags) = (size_of::<libc::mount_attr>(), libc::AT_EMPTY_PATH);
    let (fd, name) = (tree.as_raw_fd(), c"".as_ptr());
    // SAFETY: the name is NUL-terminated and `attr` is live with this size; the kernel only reads both.
    let set = unsafe { libc::syscall(libc::SYS_mount_setattr, fd, name, flags, &raw const attr, size) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(tree) }
}

/// Lets go of a child that stopped as its program, for good. With `signal` it takes that first; 0 is none.
///
/// Errors: `ESRCH` for a process that is no such child, or was killed.
pub fn let_go(child: Pid, signal: u8) -> io::Result<()> {
    trace(DETACH, Some(child), signal)
}

/// Lets a child go on that stopped for `signal` before it became its program.
///
/// Errors: as [`let_go`].
pub fn hand_on(child: Pid, signal: u8) -> io::Result<()> {
    trace(CONTINUE, Some(child), signal)
}

/// `PTRACE_TRACEME` of `linux/ptrace.h`; C libraries disagree about the type.
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

/// How many threads this process has: each is a folder in `/proc/self/task`, which has two links of its own.
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
    fn a_process_stops_as_its_program_until_it_is_let_go() {
        use rustix::process::{Signal, WaitOptions, waitpid};
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new("true");
        // SAFETY: the closure makes one system call, with integers only.
        unsafe { command.pre_exec(|| trace(TRACE_ME, None, 0)) };
        let mut child = command.spawn().unwrap();
        let pid = Pid::from_child(&child);
        let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.stopping_signal(), Some(Signal::TRAP.as_raw()));
        let_go(pid, 0).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(let_go(pid, 0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
