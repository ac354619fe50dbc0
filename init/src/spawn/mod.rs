//! Starting a process: the steps before the fork, and the child's verdict.
//!
//! Invariant: a failed start leaves nothing behind, and is reported with the step, the value and the system's error. The
//! child's steps are in `child`; their order matters for security and is fixed there.

mod child;
mod exec;
mod files;
mod first;
mod initctl;
mod places;
mod servant;
mod user;
mod view;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use cloister_sys::process::{Child, Fork, fork_into, fork_into_pid_namespace};
use cloister_wire::first::RUNS;
use cloister_wire::hold::{Place, Spawn};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Uid};

use crate::cgroup::{Cgroup, CgroupError, Cgroups};
use crate::hold::Failure;

pub use first::{Main, Report};

/// The first byte of a [`Failure`] on the pipe, as JSON. It is not the number of a step.
const FAILURE: u8 = b'[';

/// Maximum bytes of a verdict read at a time: the longest path and a short message.
const MAX_VERDICT: u64 = 16 * 1024;

/// A process that was forked for a service.
#[derive(Debug)]
pub struct Started {
    /// The process: the first of its PID namespace.
    pub pid: u32,
    /// Where the first process reports, if it is `first`.
    pub report: Option<Report>,
    /// Where it reports whether it has executed its program.
    pub verdict: Verdict,
    /// The read end of its stdout.
    pub stdout: OwnedFd,
    /// The read end of its stderr.
    pub stderr: OwnedFd,
    /// Its cgroup.
    pub group: Cgroup,
}

/// The pipe on which a child reports the step that it begins ([`begin`]), and why one failed. It is closed by exec, and also by
/// death: it was closed by exec only if its last byte is `goal`. With `first` as first process, the goal is the byte that this
/// program writes ([`RUNS`]). Without, it is [`EXEC`], and the kernel may still kill the process during exec: a service that is
/// process 1 itself stops after exec.
#[derive(Debug)]
pub struct Verdict {
    pipe: File,
    received: Vec<u8>,
    goal: u8,
}

/// The steps of a child, indexed by their bytes on the pipe.
const STEPS: [&str; 9] =
    ["session", "limits", "mounts", "files", "descriptors", "user", "program", "exec", "first process"];
const SESSION: u8 = 0;
const LIMITS: u8 = 1;
const MOUNTS: u8 = 2;
const FILES: u8 = 3;
const DESCRIPTORS: u8 = 4;
const USER: u8 = 5;
const PROGRAM: u8 = 6;
const EXEC: u8 = 7;
const FIRST: u8 = 8;

/// Forks a service or a servant. `fds` become descriptors 3, 4, … in it; `writable_bytes` bounds its own temporary directories.
pub fn service(
    groups: &Cgroups,
    name: &str,
    spec: &Spawn,
    fds: Vec<OwnedFd>,
    writable_bytes: u64,
) -> Result<Started, Failure> {
    let group = groups.hold(name, matches!(spec.place, Place::Empty), &spec.limits)?;
    match fork_service(&group, spec, fds, writable_bytes) {
        Ok(forked) => {
            let Forked { pid, report, verdict, stdout, stderr } = forked;
            Ok(Started { pid, report, verdict, stdout, stderr, group })
        }
        Err(failure) => {
            group.remove()?;
            Err(failure)
        }
    }
}

/// [`Started`] without the group.
struct Forked {
    pid: u32,
    report: Option<Report>,
    verdict: Verdict,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// Forks the supervisor with its end of the channel.
pub fn supervisor(groups: &Cgroups, channel: OwnedFd) -> Result<(u32, Verdict), Failure> {
    let group = groups.supervisor()?;
    fork(&group, false, EXEC, |child, verdict| child::execute_supervisor(child, channel, verdict))
}

fn fork_service(
    group: &Cgroup,
    spec: &Spawn,
    fds: Vec<OwnedFd>,
    writable_bytes: u64,
) -> Result<Forked, Failure> {
    let as_pid_1 = match &spec.place {
        Place::Root(view) => view.as_pid_1,
        Place::Empty => true,
    };
    let (stdout, their_stdout) = output_pipe(spec).at("pipes", "stdout")?;
    let (stderr, their_stderr) = output_pipe(spec).at("pipes", "stderr")?;
    let (report, theirs) = if as_pid_1 {
        (None, None)
    } else {
        let (report, theirs) = first::channel().at("pipes", "report")?;
        (Some(report), Some(theirs))
    };
    let order = child::Order { spec, writable_bytes, stdout: their_stdout, stderr: their_stderr, fds };
    let goal = if as_pid_1 { EXEC } else { RUNS };
    let (pid, verdict) = fork(group, true, goal, |child, verdict| order.execute(child, theirs, verdict))?;
    Ok(Forked { pid, report, verdict, stdout, stderr })
}

/// Forks, into a new PID namespace if it is `first`, and calls `then` in the child, which returns only on failure. `goal` is
/// the last byte of a successful start.
fn fork(
    group: &Cgroup,
    first: bool,
    goal: u8,
    then: impl FnOnce(&mut Child, &mut OwnedFd) -> Failure,
) -> Result<(u32, Verdict), Failure> {
    let (ours, mut theirs) = pipe_with(PipeFlags::CLOEXEC).at("pipes", "verdict")?;
    let forked =
        if first { fork_into_pid_namespace(group.directory()) } else { fork_into(group.directory()) };
    match forked.at("fork", "new process")? {
        Fork::Parent(pid) => {
            rustix::io::ioctl_fionbio(&ours, true).at("pipes", "verdict")?;
            let pid = u32::try_from(pid.as_raw_nonzero().get()).unwrap_or(0);
            Ok((pid, Verdict { pipe: ours.into(), received: Vec::new(), goal }))
        }
        Fork::Child(mut child) => {
            // Process 1 of a namespace is not PID 1 of the machine: its panic must not shut the machine down.
            drop(std::panic::take_hook());
            let failure = then(&mut child, &mut theirs);
            failure.send(&theirs);
            child.exit(NOT_STARTED)
        }
    }
}

/// The exit code of a child that could not execute its program: a shell's "command not found". Nothing depends on it: the
/// verdict precedes it.
const NOT_STARTED: u8 = 127;

/// A pipe whose write end blocks, as programs expect of stdout, and whose read end does not. The service's user owns it:
/// programs that log to `/dev/stdout` open the pipe again by that name, which only its owner may do.
fn output_pipe(spec: &Spawn) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    rustix::fs::fchown(&write, Some(Uid::from_raw(spec.uid)), Some(Gid::from_raw(spec.gid)))?;
    Ok((read, write))
}

/// Reports the step that begins now.
fn begin(verdict: &OwnedFd, step: u8) {
    // It fails only if init is gone, and then the machine is, too.
    rustix::io::write(verdict, &[step]).ok();
}

impl Verdict {
    /// The result of the start, once the pipe is closed.
    pub fn read(&mut self) -> Option<Result<(), Failure>> {
        match (&mut self.pipe).take(MAX_VERDICT).read_to_end(&mut self.received) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            _ => Some(outcome(&self.received, self.goal)),
        }
    }

    /// The failure of a child that has timed out, with the message `what`.
    pub fn late(&mut self, what: &str) -> Failure {
        // The steps so far. The end of the pipe, or a failure on it, does not matter any more.
        (&mut self.pipe).take(MAX_VERDICT).read_to_end(&mut self.received).unwrap_or_default();
        let step = step(&self.received);
        let error = [step, ": ", what].concat();
        Failure { step: step.to_owned(), errno: Errno::TIMEDOUT.raw_os_error(), error }
    }
}

/// The result of a start: `received` is all data of the pipe, the steps and possibly a failure.
fn outcome(received: &[u8], goal: u8) -> Result<(), Failure> {
    let end = received.iter().position(|byte| *byte == FAILURE).unwrap_or(received.len());
    let (steps, failure) = received.split_at(end);
    if !failure.is_empty() {
        return Err(Failure::received(failure));
    }
    if steps.last() == Some(&goal) {
        return Ok(());
    }
    Err(Failure::early(step(steps)))
}

/// The last step that was begun.
fn step(received: &[u8]) -> &'static str {
    received.last().and_then(|last| STEPS.get(usize::from(*last))).copied().unwrap_or("fork")
}

/// The number of a signal or an exit code.
pub(crate) fn byte(number: Option<i32>) -> u8 {
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(u8::MAX)
}

/// To be polled without events: it becomes ready (`POLLHUP`) when the write ends are closed, not with each step.
impl AsFd for Verdict {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Prepends the step and the value to a system's error.
pub(crate) trait At<T> {
    /// `step` as in [`Failure::step`]; `what` is a path or a value.
    fn at(self, step: &'static str, what: impl std::fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: &'static str, what: impl std::fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(step, what, &error.into()))
    }
}

impl Failure {
    fn new(step: &str, what: impl std::fmt::Display, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        Self { step: step.to_owned(), errno, error: format!("{step}: {what}: {error}") }
    }

    /// One write of less than `PIPE_BUF` bytes, so it arrives whole.
    fn send(&self, to: &OwnedFd) {
        let json = serde_json::to_vec(&(&self.step, self.errno, &self.error)).unwrap_or_default();
        // It fails only if init is gone, and then the machine is, too.
        rustix::io::write(to, &json).ok();
    }

    fn received(json: &[u8]) -> Self {
        // Two processes may report a failure. The first counts: the other's exit is its consequence.
        let mut values = serde_json::Deserializer::from_slice(json).into_iter::<(String, i32, String)>();
        match values.next() {
            Some(Ok((step, errno, error))) => Self { step, errno, error },
            _ => Self {
                step: "exec".into(),
                errno: 0,
                error: format!("invalid report {:?}", String::from_utf8_lossy(json)),
            },
        }
    }
}

impl From<CgroupError> for Failure {
    fn from(error: CgroupError) -> Self {
        let errno = error.error.raw_os_error().unwrap_or(0);
        Self { step: "cgroup".into(), errno, error: format!("cgroup: {error}") }
    }
}

#[cfg(test)]
mod tests {
    use cloister_wire::hold::EXITED_BEFORE_EXEC;

    use super::*;

    #[test]
    fn only_a_child_that_reached_its_last_step_has_started() {
        assert_eq!(outcome(&[SESSION, LIMITS, MOUNTS, EXEC], EXEC), Ok(()));
        assert_eq!(outcome(&[SESSION, EXEC, FIRST, RUNS], RUNS), Ok(()));
        for (step, name) in STEPS.iter().zip(0..) {
            assert_eq!(outcome(&[SESSION, name], RUNS).unwrap_err().step, *step);
        }
        let cases: [(&[u8], &str); 3] =
            [(&[], "fork"), (&[SESSION, MOUNTS], "mounts"), (&[SESSION, EXEC, FIRST], "first process")];
        for (received, step) in cases {
            let failure = outcome(received, RUNS).unwrap_err();
            let error = format!("{step}: ended before its program ran");
            assert_eq!(
                (failure.step.as_str(), failure.errno, failure.error),
                (step, EXITED_BEFORE_EXEC, error)
            );
        }
    }

    #[test]
    fn a_failed_step_is_reported_with_its_reason() {
        let failure = Failure::new("exec", "/bin/web", &io::Error::from_raw_os_error(2));
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&read, true).unwrap();
        let mut verdict = Verdict { pipe: read.into(), received: Vec::new(), goal: EXEC };
        assert_eq!(verdict.read(), None);
        begin(&write, MOUNTS);
        assert_eq!(verdict.read(), None, "the step has only begun");
        let late = verdict.late("timed out");
        assert_eq!((late.step.as_str(), late.error.as_str()), ("mounts", "mounts: timed out"));
        begin(&write, EXEC);
        failure.send(&write);
        assert_eq!(verdict.read(), None, "the pipe is still open");
        drop(write);
        assert_eq!(verdict.read(), Some(Err(failure)));
    }
}
