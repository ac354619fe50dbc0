//! What init holds, and the transitions of it.
//!
//! Invariant: it contains everything that a new supervisor's welcome needs, and nothing else.

use std::collections::VecDeque;

use cloister_wire::control::{self, Cause, Exit};
use cloister_wire::hello;
use cloister_wire::hold::{EXITED_BEFORE_EXEC, Ended, FromInit, Held, Welcome};

use super::{Action, Event, Failure};

/// Exits of the supervisor within [`CRASH_WINDOW_NS`] that are fatal: more restarts would only hide the cause.
pub(super) const MAX_CRASHES: usize = 5;

/// The window for [`MAX_CRASHES`]: a minute, long enough that a crash at each start is noticed at any speed of machine.
pub(super) const CRASH_WINDOW_NS: u64 = 60_000_000_000;

/// Errors of a supervisor's start that may be temporary: the machine lacked a resource (`EAGAIN`, `ENOMEM`, `ENFILE`, `EMFILE`,
/// `ENOSPC`), or the process was killed before its program ran, or took too long (`ETIMEDOUT`). Others are caused by the
/// ramdisk.
const TEMPORARY: [i32; 7] = [11, 12, 23, 24, 28, 110, EXITED_BEFORE_EXEC];

/// How often in a row a supervisor's start may fail temporarily. With [`FIRST_PAUSE_MS`] doubled each time that is 6.3 s: a
/// resource that is lacking for longer than a stop takes will not become available.
pub(super) const MAX_RETRIES: u32 = 6;

/// The pause after the first such failure, in milliseconds.
pub(super) const FIRST_PAUSE_MS: u64 = 100;

/// The state of init while it holds processes.
#[derive(Debug)]
pub struct HoldState {
    pub(super) platform: &'static str,
    pub(super) boot: Vec<control::FinishedStage>,
    pub(super) supervisor: Supervisor,
    pub(super) held: Vec<Holding>,
    pub(super) stash: Vec<String>,
    pub(super) root_mounted: bool,
    stop_requested: Option<String>,
}

/// The current supervisor.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    pid: Option<u32>,
    /// Whether it was welcomed and can receive messages.
    listens: bool,
    /// Why its channel was lost, if that preceded its exit.
    lost: Option<String>,
    restarts: u32,
    crashes: VecDeque<u64>,
    /// Why its last start failed, until it is reaped.
    failed: Option<Failure>,
    /// Consecutive starts that failed.
    retries: u32,
}

/// One held process and its cgroup.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) name: String,
    pub(super) phase: Phase,
    /// Its cgroup's number, once it has one.
    pub(super) cgroup: u64,
    /// Whether its cgroup has members.
    pub(super) populated: bool,
}

/// The phase of a holding's lifecycle; the diagram is in [`super`].
#[derive(Debug)]
pub(super) enum Phase {
    Forking,
    Launching { pid: u32, at_ns: u64 },
    Running { pid: u32, at_ns: u64 },
    Ended { ended: Ended, at_ns: u64 },
    Failed { pid: u32, at_ns: u64, failure: Failure },
    Leaving,
}

impl Phase {
    /// The process, while it has not been reaped.
    pub(super) const fn pid(&self) -> Option<u32> {
        match self {
            Self::Launching { pid, .. } | Self::Running { pid, .. } | Self::Failed { pid, .. } => Some(*pid),
            Self::Forking | Self::Ended { .. } | Self::Leaving => None,
        }
    }
}

impl HoldState {
    /// Nothing is held yet, on `platform`, after these boot stages.
    #[must_use]
    pub fn new(platform: &'static str, boot: Vec<control::FinishedStage>) -> Self {
        Self {
            platform,
            boot,
            supervisor: Supervisor::default(),
            held: Vec::new(),
            stash: Vec::new(),
            root_mounted: false,
            stop_requested: None,
        }
    }

    /// Applies an event that happened at `now_ns` since boot, and returns the actions to perform, in order.
    pub fn on(&mut self, event: Event, now_ns: u64) -> Vec<Action> {
        match event {
            Event::SupervisorStarted { pid } => self.welcome(pid),
            Event::NoSupervisor(failure) => self.no_supervisor(failure),
            Event::Requested(request) => self.requested(request),
            Event::Lost(why) => self.lost(why),
            Event::Forked { name, pid, cgroup } => self.forked(&name, pid, cgroup, now_ns),
            Event::NotForked { name, failure } => self.not_forked(&name, failure),
            Event::Launched { pid } => self.launched(pid, now_ns),
            Event::LaunchFailed { pid, failure } => self.launch_failed(pid, failure),
            Event::Late(failure) => self.late(failure),
            Event::Reaped { pid, exit } => self.reaped(pid, exit, now_ns),
            Event::Emptied { name } => self.emptied(&name),
            Event::RootMounted(result) => {
                self.root_mounted |= result.is_ok();
                self.send(FromInit::RootMounted { error: result.err() })
            }
            Event::Stashed { name } => {
                if !self.stash.contains(&name) {
                    self.stash.push(name.clone());
                }
                self.send(FromInit::Stashed { name })
            }
            Event::StopRequested(why) => {
                self.stop_requested = Some(why.clone());
                self.send(FromInit::StopRequested { why })
            }
        }
    }

    /// Sends a message to the supervisor, if there is one: the next welcome contains everything that was not received.
    pub(super) fn send(&self, message: FromInit) -> Vec<Action> {
        if self.supervisor.listens { vec![Action::Send(message)] } else { vec![] }
    }

    fn welcome(&mut self, pid: u32) -> Vec<Action> {
        self.supervisor.pid = Some(pid);
        self.supervisor.listens = true;
        self.supervisor.lost = None;
        let mut actions = self.send(FromInit::Welcome(Welcome {
            version: hello::VERSION,
            platform: self.platform.to_owned(),
            boot: self.boot.clone(),
            restarts: self.supervisor.restarts,
            root_mounted: self.root_mounted,
            stash: self.stash.clone(),
            held: self.held.iter().filter_map(Holding::for_welcome).collect(),
        }));
        if let Some(why) = self.stop_requested.clone() {
            actions.extend(self.send(FromInit::StopRequested { why }));
        }
        actions
    }

    fn lost(&mut self, why: String) -> Vec<Action> {
        if !self.supervisor.listens {
            return vec![];
        }
        self.supervisor.listens = false;
        self.supervisor.lost = Some(why);
        vec![Action::KillSupervisor]
    }

    fn forked(&mut self, name: &str, pid: u32, cgroup: u64, at_ns: u64) -> Vec<Action> {
        if let Some(held) = self.find(name) {
            held.phase = Phase::Launching { pid, at_ns };
            held.cgroup = cgroup;
            held.populated = true;
        }
        vec![]
    }

    fn not_forked(&mut self, name: &str, failure: Failure) -> Vec<Action> {
        self.held.retain(|held| held.name != name);
        self.send(failure.into_message(name))
    }

    fn launched(&mut self, pid: u32, at_ns: u64) -> Vec<Action> {
        // A supervisor that is being killed because it was late has not started, even if its program runs meanwhile.
        if self.supervisor.pid == Some(pid) && self.supervisor.failed.is_none() {
            self.supervisor.retries = 0;
        }
        let launching =
            |held: &&mut Holding| matches!(held.phase, Phase::Launching { pid: of, .. } if of == pid);
        let Some(held) = self.held.iter_mut().find(launching) else { return vec![] };
        held.phase = Phase::Running { pid, at_ns };
        let (name, cgroup) = (held.name.clone(), held.cgroup);
        self.send(FromInit::Spawned { name, pid, at_ns, cgroup })
    }

    fn launch_failed(&mut self, pid: u32, failure: Failure) -> Vec<Action> {
        if self.supervisor.pid == Some(pid) {
            // If it was killed because it was late, that is the failure.
            self.supervisor.failed.get_or_insert(failure);
            return vec![];
        }
        if let Some(held) = self.held.iter_mut().find(|held| held.phase.pid() == Some(pid)) {
            let Phase::Launching { at_ns, .. } = held.phase else { return vec![] };
            held.phase = Phase::Failed { pid, at_ns, failure };
        }
        vec![]
    }

    /// The supervisor is killed: its exit counts as a failed start. If it does not exit, it is stuck in the kernel for good.
    fn late(&mut self, failure: Failure) -> Vec<Action> {
        if self.supervisor.failed.is_some() {
            let error = [&failure.error, "; cannot kill it"].concat();
            return vec![Action::Fatal { stage: "supervisor", error }];
        }
        self.supervisor.failed = Some(failure);
        vec![Action::KillSupervisor]
    }

    fn reaped(&mut self, pid: u32, exit: Exit, now_ns: u64) -> Vec<Action> {
        if self.supervisor.pid == Some(pid) {
            return self.supervisor_exited(&exit, now_ns);
        }
        let Some(index) = self.held.iter().position(|held| held.phase.pid() == Some(pid)) else {
            return vec![];
        };
        let Some(held) = self.held.get_mut(index) else { return vec![] };
        let name = held.name.clone();
        match std::mem::replace(&mut held.phase, Phase::Leaving) {
            Phase::Failed { failure, .. } => self.did_not_start(index, failure, &exit),
            // The kernel killed it after exec had closed the pipe on which it could have reported a failure.
            Phase::Launching { .. } => self.did_not_start(index, Failure::early("exec"), &exit),
            Phase::Running { at_ns, .. } => {
                let ended = Ended { name: name.clone(), pid, exit, at_ns: now_ns };
                let emptied = !held.populated;
                held.phase = Phase::Ended { ended: ended.clone(), at_ns };
                let mut actions = self.send(FromInit::Exited(ended));
                if emptied {
                    actions.extend(self.send(FromInit::Emptied { name }));
                }
                actions
            }
            Phase::Forking | Phase::Ended { .. } | Phase::Leaving => vec![],
        }
    }

    fn did_not_start(&mut self, index: usize, mut failure: Failure, exit: &Exit) -> Vec<Action> {
        let name = self.held.remove(index).name;
        failure.add_exit(exit);
        let mut actions = vec![Action::ClosePipes { name: name.clone() }];
        actions.push(Action::RemoveGroup { name: name.clone() });
        actions.extend(self.send(failure.into_message(&name)));
        actions
    }

    /// The last member of a cgroup is gone. This is reported after the exit of the main process, never before it.
    fn emptied(&mut self, name: &str) -> Vec<Action> {
        let Some(held) = self.find(name) else { return vec![] };
        if !std::mem::replace(&mut held.populated, false) {
            return vec![];
        }
        match held.phase {
            Phase::Leaving => {
                self.held.retain(|held| held.name != name);
                vec![Action::RemoveGroup { name: name.to_owned() }]
            }
            Phase::Ended { .. } => self.send(FromInit::Emptied { name: name.to_owned() }),
            _ => vec![],
        }
    }

    fn supervisor_exited(&mut self, exit: &Exit, now_ns: u64) -> Vec<Action> {
        let supervisor = &mut self.supervisor;
        supervisor.pid = None;
        supervisor.listens = false;
        if let Some(mut failure) = supervisor.failed.take() {
            failure.add_exit(exit);
            return self.no_supervisor(failure);
        }
        let how = match supervisor.lost.take() {
            Some(why) => format!("{} ({why})", describe(exit)),
            None => describe(exit),
        };
        let recent = |at: &u64| now_ns.saturating_sub(*at) < CRASH_WINDOW_NS;
        supervisor.crashes.retain(recent);
        supervisor.crashes.push_back(now_ns);
        if supervisor.crashes.len() >= MAX_CRASHES {
            let error = format!(
                "ended {MAX_CRASHES} times within {} s, most recently {how}",
                CRASH_WINDOW_NS / 1_000_000_000
            );
            return vec![Action::Fatal { stage: "supervisor", error }];
        }
        supervisor.restarts = supervisor.restarts.saturating_add(1);
        vec![Action::Print(format!("supervisor: {how}; restarting")), Action::StartSupervisor]
    }

    /// If the program cannot be executed, a retry is useless. If the machine lacked a resource, the start is retried after a
    /// pause.
    fn no_supervisor(&mut self, failure: Failure) -> Vec<Action> {
        let retries = self.supervisor.retries;
        if !TEMPORARY.contains(&failure.errno) || retries >= MAX_RETRIES {
            return vec![Action::Fatal { stage: "supervisor", error: failure.error }];
        }
        self.supervisor.retries = retries.saturating_add(1);
        let pause_ms = FIRST_PAUSE_MS << retries;
        let line = ["supervisor: ", &failure.error, "; retrying"].concat();
        vec![Action::Print(line), Action::StartSupervisorIn { pause_ms }]
    }

    pub(super) fn find(&mut self, name: &str) -> Option<&mut Holding> {
        self.held.iter_mut().find(|held| held.name == name)
    }
}

impl Holding {
    /// Its entry in a new supervisor's welcome; none if the supervisor has forgotten it, or a fork is pending.
    fn for_welcome(&self) -> Option<Held> {
        let (pid, at_ns, ended, fds) = match &self.phase {
            // The result of its start is reported later, to the supervisor of that time.
            Phase::Launching { pid, at_ns } | Phase::Failed { pid, at_ns, .. } => (*pid, *at_ns, None, 0),
            Phase::Running { pid, at_ns, .. } => (*pid, *at_ns, None, 2),
            Phase::Ended { ended, at_ns } => (ended.pid, *at_ns, Some(ended.clone()), 2),
            Phase::Forking | Phase::Leaving => return None,
        };
        let (name, cgroup) = (self.name.clone(), self.cgroup);
        Some(Held { name, pid, at_ns, ended, cgroup, populated: self.populated, fds })
    }
}

impl Failure {
    /// The failure of a child that ended in a step without reporting an error.
    pub(crate) fn early(step: &str) -> Self {
        let error = [step, ": ended before its program ran"].concat();
        Self { step: step.to_owned(), errno: EXITED_BEFORE_EXEC, error }
    }

    /// Adds how a child that reported no error exited.
    fn add_exit(&mut self, exit: &Exit) {
        if self.errno == EXITED_BEFORE_EXEC {
            self.error.push_str(": ");
            self.error.push_str(&describe(exit));
        }
    }

    fn into_message(self, name: &str) -> FromInit {
        FromInit::SpawnFailed { name: name.to_owned(), step: self.step, errno: self.errno, error: self.error }
    }
}

fn describe(exit: &Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited with code {code}"),
        Exit::Signal { cause: Cause::OutOfMemory, .. } => "out of memory".to_owned(),
        Exit::Signal { signal, .. } => format!("killed by signal {signal}"),
        Exit::NotStarted { error } => error.clone(),
    }
}
