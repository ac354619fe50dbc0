//! Starting a process: what is done before the fork, and how the child's verdict comes back.
//!
//! Its law: what fails leaves nothing behind, and is told with the step, the value and the system's words. The child's
//! steps are in `child`; which order they come in is a matter of safety and is fixed there.

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

/// What a [`Failure`] begins with on the pipe, as JSON, and no step is.
const FAILURE: u8 = b'[';

/// Most bytes of a verdict that are read at once: the longest path and a few words.
const MAX_VERDICT: u64 = 16 * 1024;

/// A process that was forked for a service.
#[derive(Debug)]
pub struct Started {
    /// The process: the first of its PID namespace.
    pub pid: u32,
    /// Where the first process reports, if it is ours.
    pub report: Option<Report>,
    /// Where it says whether it became its program.
    pub verdict: Verdict,
    /// The read end of its stdout.
    pub stdout: OwnedFd,
    /// The read end of its stderr.
    pub stderr: OwnedFd,
    /// Its cgroup.
    pub group: Cgroup,
}

/// The pipe on which a child says which step it begins ([`begin`]), and why one failed. Exec closes it, and so does death: only
/// one whose last word is `goal` was closed by exec. With a first process of ours the goal is what that says as its program
/// ([`RUNS`]). Else it is [`EXEC`], and the kernel may still kill what exec makes of it: a service that is process 1 itself stops
/// once it has become its program.
#[derive(Debug)]
pub struct Verdict {
    pipe: File,
    heard: Vec<u8>,
    goal: u8,
}

/// The steps of a child, by the bytes that stand for them on its pipe.
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

/// Forks a service or a servant. `fds` become 3, 4, … in it; `writable_bytes` bounds what it can write to its own temporary folders.
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

/// What [`Started`] has beside the group.
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
    fork(&group, false, EXEC, |child, verdict| child::become_supervisor(child, channel, verdict))
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
    let (pid, verdict) = fork(group, true, goal, |child, verdict| order.follow(child, theirs, verdict))?;
    Ok(Forked { pid, report, verdict, stdout, stderr })
}

/// Forks, into a PID namespace of its own where it is `first`, and in the child does `then`, which comes back only with a
/// failure. `goal` is the last that is heard of one that succeeds.
fn fork(
    group: &Cgroup,
    first: bool,
    goal: u8,
    then: impl FnOnce(&mut Child, &mut OwnedFd) -> Failure,
) -> Result<(u32, Verdict), Failure> {
    let (ours, mut theirs) = pipe_with(PipeFlags::CLOEXEC).at("pipes", "verdict")?;
    let forked = if first { fork_into_pid_namespace(group.folder()) } else { fork_into(group.folder()) };
    match forked.at("fork", "a process")? {
        Fork::Parent(pid) => {
            rustix::io::ioctl_fionbio(&ours, true).at("pipes", "verdict")?;
            let pid = u32::try_from(pid.as_raw_nonzero().get()).unwrap_or(0);
            Ok((pid, Verdict { pipe: ours.into(), heard: Vec::new(), goal }))
        }
        Fork::Child(mut child) => {
            // Process 1 of a namespace is not PID 1 of the machine: a panic must not take the machine's exit door.
            drop(std::panic::take_hook());
            let failure = then(&mut child, &mut theirs);
            failure.send(&theirs);
            child.exit(NOT_STARTED)
        }
    }
}

/// The exit code of a child that could not become its program; a shell's "command not found". Nobody relies on it: the
/// verdict has come before.
const NOT_STARTED: u8 = 127;

/// A pipe whose write end blocks, as programs expect of stdout, and whose read end does not. It is the service's user's:
/// programs that log to `/dev/stdout` open the pipe anew by that name, which only its owner may.
fn output_pipe(spec: &Spawn) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    rustix::fs::fchown(&write, Some(Uid::from_raw(spec.uid)), Some(Gid::from_raw(spec.gid)))?;
    Ok((read, write))
}

/// Says which step begins now.
fn begin(verdict: &OwnedFd, step: u8) {
    // If this fails init is gone, and the machine with it.
    rustix::io::write(verdict, &[step]).ok();
}

impl Verdict {
    /// What became of the child once its pipe is closed: its program, or why not.
    pub fn read(&mut self) -> Option<Result<(), Failure>> {
        match (&mut self.pipe).take(MAX_VERDICT).read_to_end(&mut self.heard) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            _ => Some(judge(&self.heard, self.goal)),
        }
    }

    /// The failure of a child that is on its way for too long: `what` says so.
    pub fn late(&mut self, what: &str) -> Failure {
        // What it has said so far. Its end, and a failure, are no news any more.
        (&mut self.pipe).take(MAX_VERDICT).read_to_end(&mut self.heard).unwrap_or_default();
        let step = step(&self.heard);
        let error = [step, ": ", what].concat();
        Failure { step: step.to_owned(), errno: Errno::TIMEDOUT.raw_os_error(), error }
    }
}

/// What the steps, and a failure behind them, mean at the pipe's end.
fn judge(heard: &[u8], goal: u8) -> Result<(), Failure> {
    let end = heard.iter().position(|byte| *byte == FAILURE).unwrap_or(heard.len());
    let (steps, failure) = heard.split_at(end);
    if !failure.is_empty() {
        return Err(Failure::received(failure));
    }
    if steps.last() == Some(&goal) {
        return Ok(());
    }
    Err(Failure::early(step(steps)))
}

/// The last step that was begun.
fn step(heard: &[u8]) -> &'static str {
    heard.last().and_then(|last| STEPS.get(usize::from(*last))).copied().unwrap_or("fork")
}

/// The number of a signal or an exit code.
pub(crate) fn byte(number: Option<i32>) -> u8 {
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(u8::MAX)
}

/// It becomes ready when its other ends are closed, not with each step: what is to be heard is asked for by no event.
impl AsFd for Verdict {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Names the step and the value in front of a system's error.
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
        let words = serde_json::to_vec(&(&self.step, self.errno, &self.error)).unwrap_or_default();
        // If this fails init is gone, and the machine with it.
        rustix::io::write(to, &words).ok();
    }

    fn received(words: &[u8]) -> Self {
        // The first of the two processes that may write counts: the other one's end follows from it.
        let mut values = serde_json::Deserializer::from_slice(words).into_iter::<(String, i32, String)>();
        match values.next() {
            Some(Ok((step, errno, error))) => Self { step, errno, error },
            _ => Self {
                step: "exec".into(),
                errno: 0,
                error: format!("the child said {:?}", String::from_utf8_lossy(words)),
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
    fn only_a_child_that_came_to_its_last_step_became_its_program() {
        assert_eq!(judge(&[SESSION, LIMITS, MOUNTS, EXEC], EXEC), Ok(()));
        assert_eq!(judge(&[SESSION, EXEC, FIRST, RUNS], RUNS), Ok(()));
        for (step, name) in STEPS.iter().zip(0..) {
            assert_eq!(judge(&[SESSION, name], RUNS).unwrap_err().step, *step);
        }
        let cases: [(&[u8], &str); 3] =
            [(&[], "fork"), (&[SESSION, MOUNTS], "mounts"), (&[SESSION, EXEC, FIRST], "first process")];
        for (heard, step) in cases {
            let failure = judge(heard, RUNS).unwrap_err();
            let error = format!("{step}: it ended before its program ran");
            assert_eq!(
                (failure.step.as_str(), failure.errno, failure.error),
                (step, EXITED_BEFORE_EXEC, error)
            );
        }
    }

    #[test]
    fn a_step_that_failed_is_told_with_its_reason() {
        let failure = Failure::new("exec", "/bin/web", &io::Error::from_raw_os_error(2));
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&read, true).unwrap();
        let mut verdict = Verdict { pipe: read.into(), heard: Vec::new(), goal: EXEC };
        assert_eq!(verdict.read(), None);
        begin(&write, MOUNTS);
        assert_eq!(verdict.read(), None, "it has only begun");
        let late = verdict.late("it hangs");
        assert_eq!((late.step.as_str(), late.error.as_str()), ("mounts", "mounts: it hangs"));
        begin(&write, EXEC);
        failure.send(&write);
        assert_eq!(verdict.read(), None, "it has not ended");
        drop(write);
        assert_eq!(verdict.read(), Some(Err(failure)));
    }
}
