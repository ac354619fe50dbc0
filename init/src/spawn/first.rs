//! The first process of a service's PID namespace, by default the program `first`, and its reports.
//!
//! Invariant: it and the service's main process are confined identically before they are separated by a fork. The main process
//! executes its program first, and is stopped before the program's first instruction until the first process has executed its
//! own: by then no copy of PID 1's memory, as which both start, is left.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use cloister_sys::fdpass::{recv_with_fds, send_with_fds};
use cloister_sys::process::{Arguments, Child, Fork, detach, read_only_copy, resume};
use cloister_sys::seccomp;
use cloister_wire::first::{Note, PROGRAM, REPORT_FD};
use cloister_wire::hold::{EXITED_BEFORE_EXEC, Spawn};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, kill_process, pidfd_open,
    set_dumpable_behavior, waitpid,
};

use super::{At, FIRST, begin, byte, child, exec};
use crate::hold::Failure;

/// One more than the report's number: descriptors that stay open until exec have numbers from here on.
const ASIDE: i32 = REPORT_FD + 1;

/// Notes that are read at the exit of a service: its main process's number, if it has not been read before, and its exit.
const MAX_NOTES: usize = 2;

/// Kills the main process when dropped.
struct KillOnDrop(Pid);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // It may have exited already.
        kill_process(self.0, Signal::KILL).unwrap_or_default();
    }
}

/// The main process of a service.
#[derive(Debug)]
pub struct Main {
    /// Its number in init's namespace, which may be another's once the first process has reaped it.
    pub pid: u32,
    /// A pidfd, which never refers to another process.
    pub fd: OwnedFd,
}

/// Init's end of the socket for the notes of the first process and the main process.
#[derive(Debug)]
pub struct Report(File);

/// What a first process needs from init's view of the machine, opened before it leaves that.
pub(super) struct First {
    /// The program, on a read-only mount, since services can reach it through `/proc/1/exe`.
    program: OwnedFd,
    /// Init's `/proc`, where a process reads its number in init's namespace.
    numbers: OwnedFd,
    report: OwnedFd,
}

/// A socket pair for notes: init's end, which does not block, and the service's. If it were a pipe, the service could open
/// either end through `/proc/1/fd`, and write or read notes; a socket cannot be opened there.
pub(super) fn channel() -> io::Result<(Report, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((Report(ours.into()), theirs))
}

impl First {
    pub(super) fn take(report: OwnedFd) -> Result<Self, Failure> {
        let program = read_only_copy(PROGRAM).at("first process", PROGRAM)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let numbers = rustix::fs::open("/proc", flags, Mode::empty()).at("first process", "/proc")?;
        Ok(Self { program, numbers, report })
    }

    /// Forks the main process, and returns in it. `standard` are descriptors 0, 1 and 2.
    pub(super) fn split(
        self,
        child: &mut Child,
        spec: &Spawn,
        standard: &[OwnedFd; 3],
        verdict: &mut OwnedFd,
    ) -> Result<(), Failure> {
        // The service has the same rights as this process from here on, and must not read its memory, a copy of init's.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).at("first process", "not dumpable")?;
        match child.fork().at("fork", "main process")? {
            Fork::Parent(main) => match self.become_first(child, spec, standard, main, verdict)? {},
            Fork::Child(_) => self.announce().at("first process", "report"),
        }
    }

    /// Becomes the first process, with the service's environment and output. All signals are blocked, as in init, so none is
    /// lost before the program reads them.
    fn become_first(
        self,
        child: &mut Child,
        spec: &Spawn,
        standard: &[OwnedFd; 3],
        main: Pid,
        verdict: &mut OwnedFd,
    ) -> Result<Infallible, Failure> {
        // Dropped if this process does not execute its program.
        let _main = KillOnDrop(main);
        let copy = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, ASIDE).at("descriptors", "copy");
        let (program, report) = (copy(&self.program)?, copy(&self.report)?);
        drop(self.program);
        let [_, stdout, stderr] = standard;
        let mut descriptors = Vec::new();
        for fd in [&*verdict, stdout, stderr] {
            descriptors.push(fd.try_clone().at("descriptors", "standard")?);
        }
        descriptors.push(self.report);
        child::place(child, &descriptors, verdict)?;
        child::limit_files(child::open_files(spec))?;
        let argv = exec::strings(&[PROGRAM.to_owned(), main.as_raw_nonzero().to_string()])?;
        let env: Vec<CString> = exec::strings(&spec.env)?;
        // Before the filter, which refuses the calls that this needs.
        stop(main).map_err(|status| did_not_start(spec, &report, status))?;
        drop(report);
        begin(verdict, FIRST);
        if !spec.seccomp.is_empty() {
            seccomp::install(&spec.seccomp).at("seccomp", "filter of the first process")?;
        }
        child.exec_file(program.as_raw_fd(), &Arguments::new(&argv, &env)).at("exec", PROGRAM)
    }

    /// Sends init this process's number in init's namespace, and a pidfd of it.
    fn announce(&self) -> io::Result<()> {
        let number = rustix::fs::readlinkat(&self.numbers, "self", Vec::new())?;
        let number = number.to_str().ok().and_then(|text| text.parse().ok());
        let note = Note::Main(number.ok_or(io::ErrorKind::InvalidData)?);
        let own = pidfd_open(getpid(), PidfdFlags::empty())?;
        send_with_fds(&self.report, &note.encode(), &[own.as_fd()])?;
        Ok(())
    }
}

/// Waits until the main process has executed its program, and leaves it stopped there until the next `SIGCONT`.
///
/// Errors: its status if it has exited.
fn stop(main: Pid) -> Result<(), WaitStatus> {
    loop {
        let Ok(Some((_, status))) = waitpid(Some(main), WaitOptions::empty()) else { continue };
        // A call fails here only if it was killed, which the next wait reports.
        match status.stopping_signal() {
            None => return Err(status),
            Some(signal) if signal == Signal::TRAP.as_raw() => {
                if detach(main, byte(Some(Signal::STOP.as_raw()))).is_ok() {
                    return Ok(());
                }
            }
            Some(signal) => resume(main, byte(Some(signal))).unwrap_or_default(),
        }
    }
}

/// The failure of a main process that exited before its first instruction. If it reports one itself, that precedes this.
fn did_not_start(spec: &Spawn, report: &OwnedFd, status: WaitStatus) -> Failure {
    if status.signaled() {
        let note = Note::Signal(byte(status.terminating_signal()));
        // It fails only if init is gone, and then the machine is, too.
        rustix::io::write(report, &note.encode()).ok();
    }
    let program = spec.argv.first().map_or("", String::as_str);
    let error = ["exec: ", program, " ended before its first instruction"].concat();
    Failure { step: "exec".to_owned(), errno: EXITED_BEFORE_EXEC, error }
}

impl Report {
    /// The main process: the first note, which is available once the main process has executed its program.
    pub fn main(&mut self) -> Option<Main> {
        let mut bytes = [0; Note::SIZE];
        let (_, fds) = recv_with_fds(&self.0, &mut bytes).ok()?;
        match Note::decode(bytes)? {
            Note::Main(pid) => Some(Main { pid, fd: fds.into_iter().next()? }),
            Note::Code(_) | Note::Signal(_) => None,
        }
    }

    /// How the main process exited. To be read after the first process has exited, when no process can write more.
    pub fn end(&mut self) -> Option<Note> {
        std::iter::from_fn(|| self.next()).take(MAX_NOTES).find(|note| !matches!(note, Note::Main(_)))
    }

    fn next(&mut self) -> Option<Note> {
        let mut bytes = [0; Note::SIZE];
        self.0.read_exact(&mut bytes).ok()?;
        Note::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report on which this process is announced as the main one, followed by these notes.
    fn announced(notes: &[Note]) -> Report {
        let (report, theirs) = channel().unwrap();
        let numbers = File::open("/proc").unwrap().into();
        let first = First { program: File::open("/").unwrap().into(), numbers, report: theirs };
        first.announce().unwrap();
        for note in notes {
            rustix::io::write(&first.report, &note.encode()).unwrap();
        }
        report
    }

    #[test]
    fn the_main_process_and_its_exit_are_read_in_order() {
        let mut report = announced(&[Note::Signal(15)]);
        let main = report.main().unwrap();
        assert_eq!((main.pid, report.end()), (std::process::id(), Some(Note::Signal(15))));
        cloister_sys::signal::send_by(&main.fd, 0).unwrap();
    }

    #[test]
    fn the_exit_is_found_after_an_unread_announcement() {
        assert_eq!(announced(&[Note::Code(3)]).end(), Some(Note::Code(3)));
    }

    #[test]
    fn a_missing_exit_note_is_not_waited_for() {
        assert_eq!(announced(&[]).end(), None);
    }

    #[test]
    fn a_main_process_that_never_ran_has_no_number() {
        let (mut report, theirs) = channel().unwrap();
        rustix::io::write(&theirs, &Note::Code(127).encode()).unwrap();
        assert!(report.main().is_none());
    }
}
