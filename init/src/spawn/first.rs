//! The first process of a service's PID namespace, ours by default, and what it reports.
//!
//! Its law: it and the service's main process are confined alike before they part, and the main process becomes its program
//! only once the first has become its own: the copy of PID 1's memory that both begin as is then nowhere left.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use cloister_sys::process::{Child, Fork, read_only_copy};
use cloister_sys::seccomp;
use cloister_wire::first::{Note, PROGRAM, REPORT_FD};
use cloister_wire::hold::Spawn;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, Pid, Signal, kill_process, set_dumpable_behavior};

use super::{At, child, exec};
use crate::hold::Failure;

/// One more than the report's number: what is kept aside until exec has numbers from here on.
const ASIDE: i32 = REPORT_FD + 1;

/// Notes of one service that are read at its end: its main process's number, where nobody has asked for it, and its end.
const MAX_NOTES: usize = 2;

/// A main process that must not go on: the end of its first process opens the gate, too.
struct Doomed(Pid);

impl Drop for Doomed {
    fn drop(&mut self) {
        // If it is gone already, all the better.
        kill_process(self.0, Signal::KILL).unwrap_or_default();
    }
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
        let (gate, key) = pipe_with(PipeFlags::CLOEXEC).at("pipes", "gate")?;
        match child.fork().at("fork", "the main process")? {
            Fork::Parent(main) => match self.begin(child, spec, standard, main, key, verdict)? {},
            Fork::Child(_) => {
                drop(key);
                self.announce().at("first process", "report")?;
                // Nothing is ever written: the read ends when the first process has executed its program.
                rustix::io::read(&gate, &mut [0]).at("first process", "gate")?;
                Ok(())
            }
        }
    }

    /// Becomes the first process, with the service's environment and output. All signals are blocked, as in init: none is
    /// lost before it reads them.
    fn begin(
        self,
        child: &mut Child,
        spec: &Spawn,
        standard: &[OwnedFd; 3],
        main: Pid,
        key: OwnedFd,
        verdict: &mut OwnedFd,
    ) -> Result<Infallible, Failure> {
        let aside = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, ASIDE).at("descriptors", "aside");
        // Each is dropped before the key that is there then, and neither where this process becomes its program.
        let _early = Doomed(main);
        let (program, _key) = (aside(&self.program)?, aside(&key)?);
        let _main = Doomed(main);
        drop((self.program, key));
        let mut descriptors = Vec::new();
        for fd in standard {
            descriptors.push(fd.try_clone().at("descriptors", "standard")?);
        }
        descriptors.push(self.report);
        child::place(child, &descriptors, verdict)?;
        child::limit_files(child::open_files(spec))?;
        let argv = exec::strings(&[PROGRAM.to_owned(), main.as_raw_nonzero().to_string()])?;
        let env: Vec<CString> = exec::strings(&spec.env)?;
        if !spec.seccomp.is_empty() {
            seccomp::install(&spec.seccomp).at("seccomp", "the first process's filter")?;
        }
        child.exec_file(program, &argv, &env).at("exec", PROGRAM)
    }

    /// Notes this process's number in init's namespace.
    fn announce(&self) -> io::Result<()> {
        let number = rustix::fs::readlinkat(&self.numbers, "self", Vec::new())?;
        let number = number.to_str().ok().and_then(|text| text.parse().ok());
        let note = Note::Main(number.ok_or(io::ErrorKind::InvalidData)?);
        rustix::io::write(&self.report, &note.encode())?;
        Ok(())
    }
}

impl Report {
    /// The main process's number. It is the first note, and is there when the main process has become its program.
    pub fn main(&mut self) -> Option<u32> {
        match self.next()? {
            Note::Main(pid) => Some(pid),
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

    fn report(notes: &[Note]) -> Report {
        let (report, theirs) = channel().unwrap();
        for note in notes {
            rustix::io::write(&theirs, &note.encode()).unwrap();
        }
        report
    }

    #[test]
    fn the_main_process_and_its_end_are_read_in_their_order() {
        let mut report = report(&[Note::Main(7), Note::Signal(15)]);
        assert_eq!((report.main(), report.end()), (Some(7), Some(Note::Signal(15))));
    }

    #[test]
    fn an_end_that_was_never_reported_is_not_waited_for() {
        let mut report = report(&[Note::Main(7)]);
        assert_eq!((report.main(), report.end()), (Some(7), None));
    }

    #[test]
    fn a_process_that_never_became_the_program_has_no_number() {
        let mut report = report(&[Note::Code(127)]);
        assert_eq!(report.main(), None);
    }
}
