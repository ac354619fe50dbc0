//! The first process of a service's PID namespace, ours by default, and what it reports.
//!
//! Its law: it and the service's main process are confined alike before they part. The main process becomes its program first,
//! and is stopped before the first instruction of that until the first process has become its own: the copy of PID 1's memory
//! that both begin as is then nowhere left.

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

/// One more than the report's number: what is kept aside until exec has numbers from here on.
const ASIDE: i32 = REPORT_FD + 1;

/// Notes of one service that are read at its end: its main process's number, where nobody has asked for it, and its end.
const MAX_NOTES: usize = 2;

/// A main process that must not go on.
struct Doomed(Pid);

impl Drop for Doomed {
    fn drop(&mut self) {
        // If it is gone already, all the better.
        kill_process(self.0, Signal::KILL).unwrap_or_default();
    }
}

/// The main process of a service.
#[derive(Debug)]
pub struct Main {
    /// Its number in init's namespace, which may be another's once the first process has reaped it.
    pub pid: u32,
    /// It, and never another.
    pub fd: OwnedFd,
}

/// Where init reads what the first process and the main process note.
#[derive(Debug)]
pub struct Report(File);

/// What a first process needs of init's view of the machine, taken before that is left.
pub(super) struct First {
    /// The program, on a mount that nobody can write through: `/proc/1/exe` leads to it.
    program: OwnedFd,
    /// Init's `/proc`, where a process reads its number in init's namespace.
    numbers: OwnedFd,
    report: OwnedFd,
}

/// Sockets for notes: init's end, which does not block, and the service's. Of a pipe the service could open either end, through
/// `/proc/1/fd`, and write notes or take them away; a socket cannot be opened by its name there.
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

    /// Parts the two. It comes back in the process that is to be the main one. `standard` are descriptors 0, 1 and 2.
    pub(super) fn part(
        self,
        child: &mut Child,
        spec: &Spawn,
        standard: &[OwnedFd; 3],
        verdict: &mut OwnedFd,
    ) -> Result<(), Failure> {
        // The service is this process's equal from here on, and must not read what it is a copy of.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).at("first process", "not dumpable")?;
        match child.fork().at("fork", "the main process")? {
            Fork::Parent(main) => match self.become_first(child, spec, standard, main, verdict)? {},
            Fork::Child(_) => self.announce().at("first process", "report"),
        }
    }

    /// Becomes the first process, with the service's environment and output. All signals are blocked, as in init: none is
    /// lost before it reads them.
    fn become_first(
        self,
        child: &mut Child,
        spec: &Spawn,
        standard: &[OwnedFd; 3],
        main: Pid,
        verdict: &mut OwnedFd,
    ) -> Result<Infallible, Failure> {
        // Dropped where this process does not become its program.
        let _main = Doomed(main);
        let aside = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, ASIDE).at("descriptors", "aside");
        let (program, report) = (aside(&self.program)?, aside(&self.report)?);
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
        // Before the filter, which refuses what this takes.
        stop(main).map_err(|ended| did_not_start(spec, &report, ended))?;
        drop(report);
        begin(verdict, FIRST);
        if !spec.seccomp.is_empty() {
            seccomp::install(&spec.seccomp).at("seccomp", "the first process's filter")?;
        }
        child.exec_file(program.as_raw_fd(), &Arguments::new(&argv, &env)).at("exec", PROGRAM)
    }

    /// Notes this process's number in init's namespace, with a descriptor of itself.
    fn announce(&self) -> io::Result<()> {
        let number = rustix::fs::readlinkat(&self.numbers, "self", Vec::new())?;
        let number = number.to_str().ok().and_then(|text| text.parse().ok());
        let note = Note::Main(number.ok_or(io::ErrorKind::InvalidData)?);
        let own = pidfd_open(getpid(), PidfdFlags::empty())?;
        send_with_fds(&self.report, &note.encode(), &[own.as_fd()])?;
        Ok(())
    }
}

/// Waits until the main process has become its program, and has it stop there: it goes on at the next `SIGCONT`. Or says how it
/// ended.
fn stop(main: Pid) -> Result<(), WaitStatus> {
    loop {
        let Ok(Some((_, status))) = waitpid(Some(main), WaitOptions::empty()) else { continue };
        // What fails here fails because it was killed, which the next wait tells.
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

/// What became of a main process that ended before its first instruction. What it says itself comes before this.
fn did_not_start(spec: &Spawn, report: &OwnedFd, ended: WaitStatus) -> Failure {
    if ended.signaled() {
        let note = Note::Signal(byte(ended.terminating_signal()));
        // If this fails init is gone, and the machine with it.
        rustix::io::write(report, &note.encode()).ok();
    }
    let program = spec.argv.first().map_or("", String::as_str);
    let error = ["exec: ", program, " ended before its first instruction"].concat();
    Failure { step: "exec".to_owned(), errno: EXITED_BEFORE_EXEC, error }
}

impl Report {
    /// The main process. It is the first note, and is there when the main process has become its program.
    pub fn main(&mut self) -> Option<Main> {
        let mut bytes = [0; Note::SIZE];
        let (_, fds) = recv_with_fds(&self.0, &mut bytes).ok()?;
        match Note::decode(bytes)? {
            Note::Main(pid) => Some(Main { pid, fd: fds.into_iter().next()? }),
            Note::Code(_) | Note::Signal(_) => None,
        }
    }

    /// How the main process ended, once the first has: nobody is left who could write more.
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

    /// A report on which this process is announced as the main one, with further notes behind.
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
    fn the_main_process_and_its_end_are_read_in_their_order() {
        let mut report = announced(&[Note::Signal(15)]);
        let main = report.main().unwrap();
        assert_eq!((main.pid, report.end()), (std::process::id(), Some(Note::Signal(15))));
        cloister_sys::signal::send_by(&main.fd, 0).unwrap();
    }

    #[test]
    fn an_end_is_found_behind_a_main_process_that_nobody_asked_for() {
        assert_eq!(announced(&[Note::Code(3)]).end(), Some(Note::Code(3)));
    }

    #[test]
    fn an_end_that_was_never_reported_is_not_waited_for() {
        assert_eq!(announced(&[]).end(), None);
    }

    #[test]
    fn a_process_that_never_became_the_program_has_no_number() {
        let (mut report, theirs) = channel().unwrap();
        rustix::io::write(&theirs, &Note::Code(127).encode()).unwrap();
        assert!(report.main().is_none());
    }
}
