//! Between fork and exec: a child confines itself and executes its program.
//!
//! Invariant: the order. Steps that need root precede the change of user, calls that the filter could refuse precede the
//! filter, and no step lifts an earlier restriction. The child is a copy of PID 1 with one thread, so it may allocate; it never
//! returns.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;

use cloister_sys::process::Child;
use cloister_sys::{landlock, seccomp, signal};
use cloister_wire::hold::{Place, Spawn, View};
use rustix::process::{Resource, Rlimit};

use super::{
    At, DESCRIPTORS, EXEC, FILES, LIMITS, MOUNTS, PROGRAM, SESSION, USER, begin, exec, files, first, servant,
    user, view,
};
use crate::hold::Failure;

/// The supervisor's program in ramdisk 1.
const SUPERVISOR: &str = "/sbin/supervisor";

/// Default limit of a service's open files: systemd's default for the hard limit (NEWS, version 240).
const OPEN_FILES: u64 = 524_288;

/// The process to become.
pub(super) struct Order<'a> {
    pub(super) spec: &'a Spawn,
    pub(super) writable_bytes: u64,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// They become descriptors 3, 4, ….
    pub(super) fds: Vec<OwnedFd>,
}

impl Order<'_> {
    /// Executes the program, as the child of `first` if there is a `report` for that to write. Returns only on failure.
    pub(super) fn execute(
        self,
        child: &mut Child,
        report: Option<OwnedFd>,
        verdict: &mut OwnedFd,
    ) -> Failure {
        match self.steps(child, report, verdict) {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    fn steps(
        self,
        child: &mut Child,
        report: Option<OwnedFd>,
        verdict: &mut OwnedFd,
    ) -> Result<Infallible, Failure> {
        let spec = self.spec;
        begin(verdict, SESSION);
        rustix::process::setsid().at("session", "setsid")?;
        begin(verdict, LIMITS);
        killable_again()?;
        limit(spec)?;
        match &spec.place {
            Place::Root(view) => self.service(view, child, report, verdict),
            Place::Empty => servant::execute(self, child, verdict),
        }
    }

    fn service(
        self,
        view: &View,
        child: &mut Child,
        report: Option<OwnedFd>,
        verdict: &mut OwnedFd,
    ) -> Result<Infallible, Failure> {
        let spec = self.spec;
        let first = report.map(first::First::take).transpose()?;
        begin(verdict, MOUNTS);
        view::enter(child, view, self.writable_bytes)?;
        begin(verdict, FILES);
        files::mount(&view.files, spec.uid, spec.gid)?;
        begin(verdict, DESCRIPTORS);
        let standard = [open_null()?, self.stdout, self.stderr];
        view::make_working_dir(view, spec).at("cwd", &view.cwd)?;
        rustix::process::chdir(view.cwd.as_str()).at("cwd", &view.cwd)?;
        lower(spec, verdict)?;
        begin(verdict, PROGRAM);
        let program = exec::Program::prepare(&spec.argv, &spec.env)?;
        if let Some(first) = first {
            first.split(child, spec, &standard, verdict)?;
            rustix::process::setsid().at("session", "setsid of the main process")?;
        }
        child.stop_after_exec().at("privileges", "stop after exec")?;
        let mut descriptors = Vec::from(standard);
        descriptors.extend(self.fds);
        place(child, &descriptors, verdict)?;
        // Lowered once init's own descriptors, whose numbers may exceed a small limit, are closed.
        limit_files(open_files(spec))?;
        signal::restore_defaults().at("signals", "default actions")?;
        if !spec.seccomp.is_empty() {
            seccomp::install(&spec.seccomp).at("seccomp", "filter")?;
        }
        begin(verdict, EXEC);
        program.exec(child)
    }
}

/// Drops root's privileges, and the right to signal other services' processes.
pub(super) fn lower(spec: &Spawn, verdict: &OwnedFd) -> Result<(), Failure> {
    begin(verdict, USER);
    user::become_user(spec)?;
    rustix::thread::set_no_new_privs(true).at("privileges", "no_new_privs")?;
    landlock::confine().at("landlock", "signal scope")
}

/// Executes the supervisor: as root, in init's view of the machine, with its channel as descriptor 3 and the console as stdout
/// and stderr, exempt from the out-of-memory killer like init. Returns only on failure.
pub(super) fn execute_supervisor(child: &mut Child, channel: OwnedFd, verdict: &mut OwnedFd) -> Failure {
    match supervisor_steps(child, channel, verdict) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn supervisor_steps(
    child: &mut Child,
    channel: OwnedFd,
    verdict: &mut OwnedFd,
) -> Result<Infallible, Failure> {
    begin(verdict, SESSION);
    rustix::process::setsid().at("session", "setsid")?;
    no_core()?;
    let console = console()?;
    let copy = console.try_clone().at("descriptors", "console")?;
    place(child, &[open_null()?, console, copy, channel], verdict)?;
    rustix::thread::set_no_new_privs(true).at("privileges", "no_new_privs")?;
    let program = exec::Program::prepare(&[SUPERVISOR.to_owned()], &[])?;
    signal::restore_defaults().at("signals", "default actions")?;
    begin(verdict, EXEC);
    program.exec(child)
}

/// The supervisor's stdout and stderr: `/dev/console`, or `/dev/null` on a machine without one.
fn console() -> Result<OwnedFd, Failure> {
    match OpenOptions::new().write(true).open("/dev/console") {
        Ok(console) => Ok(console.into()),
        Err(_) => open_null(),
    }
}

pub(super) fn open_null() -> Result<OwnedFd, Failure> {
    let null: File =
        OpenOptions::new().read(true).write(true).open("/dev/null").at("descriptors", "/dev/null")?;
    Ok(null.into())
}

/// Makes `fds` the descriptors 0, 1, 2, …, and moves the verdict's to a free number.
pub(super) fn place(child: &mut Child, fds: &[OwnedFd], verdict: &mut OwnedFd) -> Result<(), Failure> {
    let copy = verdict.try_clone().at("descriptors", "verdict")?;
    let moved = child.take_descriptors(fds, copy).at("descriptors", "numbering")?;
    // The old number may belong to one of `fds` by now, which must stay open. If it does not, exec closes it.
    std::mem::forget(std::mem::replace(verdict, moved));
    Ok(())
}

/// Init and the supervisor are exempt from the out-of-memory killer; processes that they start are not.
fn killable_again() -> Result<(), Failure> {
    std::fs::write("/proc/self/oom_score_adj", "0").at("limits", "oom_score_adj")
}

/// The limit of the service's open files.
pub(super) fn open_files(spec: &Spawn) -> u64 {
    spec.limits.open_files.map_or(OPEN_FILES, u64::from)
}

/// Sets the limit of open files.
pub(super) fn limit_files(limit: u64) -> Result<(), Failure> {
    let limit = Some(limit);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit })
        .at("limits", "open files")
}

fn limit(spec: &Spawn) -> Result<(), Failure> {
    // Raising it needs a privilege that the service's user does not have.
    limit_files(open_files(spec).max(OPEN_FILES))?;
    // The kernel counts these per user, across services. The cgroup counts processes, and memory bounds the others.
    for by_user in [Resource::Nproc, Resource::Sigpending, Resource::Msgqueue] {
        rustix::process::setrlimit(by_user, Rlimit { current: None, maximum: None })
            .at("limits", "per-user limits")?;
    }
    no_core()
}

fn no_core() -> Result<(), Failure> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).at("limits", "core size")
}
