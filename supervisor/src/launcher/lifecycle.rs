//! One service: its state transitions.
//!
//! Invariant: a unit knows its own state and its part of the manifest, never another unit. Rules between units are in
//! [`super::machine`].

use cloister_manifest::model::{Check, Kind, Policy, Ready, Service};
use cloister_wire::control::Exit;
use cloister_wire::hold::SignalTarget;

use super::backoff::{Jitter, pause_ms, refused_ms};
use super::event::{Action, Id, Retry, Verdict};
use super::outcome::describe;
use super::unit::{Early, End, Failure, MAX_EARLY, Stage, Unit};
use crate::clock::Moment;

/// `SIGKILL`, the same on every architecture (signal(7)).
const SIGKILL: u8 = 9;

/// How long init may take until a new process has executed its program, in milliseconds. It takes milliseconds; sixty
/// at once under emulation take seconds, and a start that takes a minute hangs.
pub(super) const SPAWN_MS: u64 = 60_000;

/// How often in a row a start may fail for lack of processes, memory or descriptors before the restart policy decides.
/// With the pauses of [`refused_ms`] that is half a minute.
pub(super) const MAX_REFUSALS: u32 = 10;

/// What a unit's transitions need.
pub(super) struct Context<'a> {
    pub(super) id: Id,
    pub(super) service: &'a Service,
    pub(super) now: Moment,
    pub(super) jitter: &'a mut Jitter,
    pub(super) out: &'a mut Vec<Action>,
}

impl Context<'_> {
    fn log(&mut self, line: String) {
        self.out.push(Action::Log { id: Some(self.id), line });
    }

    fn signal(&mut self, signal: u8, to: SignalTarget) {
        self.out.push(Action::Signal { id: self.id, signal, to });
    }
}

impl Unit {
    /// Enters `stage` now.
    pub(super) fn enter(&mut self, stage: Stage, now: Moment) {
        self.stage = stage;
        self.since = now;
    }

    /// Requests its start from init.
    pub(super) fn start(&mut self, cx: &mut Context<'_>) {
        *self = Self {
            run: self.run.saturating_add(1),
            streak: self.streak,
            refusals: self.refusals,
            last_exit: self.last_exit.take(),
            exit_at: self.exit_at,
            process: self.process,
            started: self.started,
            ..Self::default()
        };
        self.enter(Stage::Spawning(cx.now.plus_millis(SPAWN_MS)), cx.now);
        cx.out.push(Action::Spawn { id: cx.id, run: self.run });
    }

    /// Init started it, possibly just after the start had timed out.
    pub(super) fn spawned(&mut self, cx: &mut Context<'_>, pid: u32, at: Moment) {
        if !self.is_spawning() && !self.is_unknown(pid) {
            return;
        }
        self.pid = Some(pid);
        self.process = pid;
        self.populated = true;
        self.started = at;
        if !self.is_spawning() {
            return;
        }
        self.refusals = 0;
        self.enter(Stage::Starting(at.plus_millis(cx.service.start_timeout_ms)), at);
        match (cx.service.kind, &cx.service.ready) {
            (Kind::Job, _) | (Kind::Service, Ready::Notify) => {}
            (Kind::Service, Ready::Started) => self.ready(cx),
            (Kind::Service, _) => self.probe(cx),
        }
    }

    /// Whether its start was requested and init has not reported the result.
    pub(super) const fn is_spawning(&self) -> bool {
        matches!(self.stage, Stage::Spawning(_))
    }

    /// Whether this may be the process of a start that timed out and was killed before it was reported.
    pub(super) fn is_unknown(&self, pid: u32) -> bool {
        self.stage == Stage::Killing && self.pid.is_none() && self.process != pid
    }

    /// The first unhandled notification that it sent before its start was reported.
    pub(super) fn next_early(&mut self) -> Option<Early> {
        (!self.is_spawning() && !self.early.is_empty()).then(|| self.early.remove(0))
    }

    /// Handles a notification as if it had been sent now.
    pub(super) fn handle_early(&mut self, cx: &mut Context<'_>, note: Early) {
        match note {
            Early::Ready => self.ready(cx),
            Early::Checked(verdict) => self.checked(cx, verdict),
            Early::Leaving => self.leaving(cx),
        }
    }

    /// Stores a notification that it sent before its start was reported, and returns whether that is the case. A
    /// notification that would change nothing is dropped: one about its liveness before it is ready, and any after
    /// `STOPPING=1`.
    fn is_early(&mut self, cx: &Context<'_>, note: Early) -> bool {
        if !self.is_spawning() {
            return false;
        }
        let is_ready = cx.service.ready == Ready::Started || self.early.contains(&Early::Ready);
        let counts = match note {
            Early::Ready => !self.early.contains(&note),
            Early::Checked(Verdict::Alive) if self.early.last() == Some(&note) => false,
            Early::Checked(_) => is_ready && self.early.len() < MAX_EARLY,
            Early::Leaving => true,
        };
        if counts && !self.early.contains(&Early::Leaving) {
            self.early.push(note);
        }
        true
    }

    /// Starts its readiness probe.
    pub(super) fn probe(&self, cx: &mut Context<'_>) {
        cx.out.push(Action::Probe { id: cx.id, run: self.run, started: self.started });
    }

    /// Init could not start it. After a crash of the supervisor that may concern a process that was already being
    /// started.
    pub(super) fn spawn_failed(&mut self, cx: &mut Context<'_>, retry: Retry, error: String) {
        if !self.is_running() {
            return;
        }
        cx.out.push(Action::Unwatch { id: cx.id });
        self.pid = None;
        self.last_exit = Some(Exit::NotStarted { error });
        self.exit_at = cx.now;
        self.populated = false;
        match retry {
            Retry::ByPolicy => {}
            Retry::Soon => self.failure = Some(Failure::Refused),
            Retry::Never => self.failure = Some(Failure::Unstartable),
        }
        self.decide(cx);
    }

    /// It has become ready.
    pub(super) fn ready(&mut self, cx: &mut Context<'_>) {
        if self.is_early(cx, Early::Ready)
            || !matches!(self.stage, Stage::Starting(_))
            || cx.service.kind == Kind::Job
        {
            return;
        }
        let took = cx.now.since(self.started).as_millis();
        self.enter(Stage::Ready, cx.now);
        self.ready_at = Some(cx.now);
        cx.log(format!("ready after {took} ms"));
        self.watch(cx);
    }

    /// Starts or restarts its liveness check.
    pub(super) fn watch(&mut self, cx: &mut Context<'_>) {
        match &cx.service.live {
            None => {}
            Some(live) if live.check == Check::Watchdog => {
                self.watchdog = Some(cx.now.plus_millis(live.interval_ms.max(1)));
            }
            Some(_) => cx.out.push(Action::Watch { id: cx.id, run: self.run }),
        }
    }

    /// A liveness check has a result.
    pub(super) fn checked(&mut self, cx: &mut Context<'_>, verdict: Verdict) {
        if self.is_early(cx, Early::Checked(verdict)) || self.stage != Stage::Ready {
            return;
        }
        let Some(live) = &cx.service.live else { return };
        match verdict {
            Verdict::Alive => self.misses = 0,
            Verdict::Dead => self.misses = self.misses.saturating_add(1),
        }
        if live.check == Check::Watchdog {
            self.watchdog = Some(cx.now.plus_millis(live.interval_ms.max(1)));
        }
        if self.misses >= live.threshold.max(1) {
            cx.log(format!("unhealthy: {} consecutive liveness checks failed; killing it", self.misses));
            self.failure = Some(Failure::Unhealthy);
            self.kill(cx);
        }
    }

    /// It sent `WATCHDOG=1`.
    pub(super) fn watchdog_ping(&mut self, cx: &mut Context<'_>) {
        if cx.service.live.as_ref().is_some_and(|live| live.check == Check::Watchdog) {
            self.checked(cx, Verdict::Alive);
        }
    }

    /// A start was requested: it starts as if for the first time, unless it is running.
    pub(super) fn request_start(&mut self, cx: &mut Context<'_>) {
        self.start_after_exit |= self.unwanted && self.is_running();
        self.unwanted = false;
        self.lost_dependency = None;
        if matches!(self.stage, Stage::BackingOff(_) | Stage::Ended(_)) {
            self.streak = 0;
            self.refusals = 0;
            self.enter(Stage::Waiting, cx.now);
        }
    }

    /// A restart was requested.
    pub(super) fn request_restart(&mut self, cx: &mut Context<'_>) {
        self.request_start(cx);
        if self.is_running() {
            self.start_after_exit = true;
            self.stop(cx);
        }
    }

    /// It sent `STOPPING=1`.
    pub(super) fn leaving(&mut self, cx: &mut Context<'_>) {
        if !self.is_early(cx, Early::Leaving) && matches!(self.stage, Stage::Starting(_) | Stage::Ready) {
            cx.out.push(Action::Unwatch { id: cx.id });
            self.enter(Stage::Stopping(cx.now.plus_millis(cx.service.stop_timeout_ms)), cx.now);
        }
    }

    /// Stops it.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.stage, Stage::Starting(_) | Stage::Ready) {
            return;
        }
        cx.out.push(Action::Unwatch { id: cx.id });
        Self::send_stop_signal(cx);
        self.enter(Stage::Stopping(cx.now.plus_millis(cx.service.stop_timeout_ms)), cx.now);
    }

    /// Sends the stop signal to the main process.
    pub(super) fn send_stop_signal(cx: &mut Context<'_>) {
        cx.signal(cx.service.stop_signal, SignalTarget::Main);
    }

    /// Kills all its processes.
    pub(super) fn kill(&mut self, cx: &mut Context<'_>) {
        cx.out.push(Action::Unwatch { id: cx.id });
        cx.signal(SIGKILL, SignalTarget::Cgroup);
        self.enter(Stage::Killing, cx.now);
    }

    /// Its main process exited.
    pub(super) fn exited(&mut self, cx: &mut Context<'_>, pid: u32, exit: Exit, at: Moment) {
        if !self.is_running() || self.pid != Some(pid) {
            return;
        }
        self.pid = None;
        self.exit_at = at;
        self.last_exit = Some(exit);
        if !self.populated {
            self.finished(cx);
        } else if self.stage != Stage::Killing {
            self.kill(cx);
        }
    }

    /// The last process of its cgroup has exited.
    pub(super) fn emptied(&mut self, cx: &mut Context<'_>) {
        if !self.is_running() {
            return;
        }
        self.populated = false;
        if self.pid.is_none() && !self.is_spawning() {
            self.finished(cx);
        }
    }

    /// None of its processes is left.
    fn finished(&mut self, cx: &mut Context<'_>) {
        cx.out.push(Action::Unwatch { id: cx.id });
        cx.out.push(Action::Release { id: cx.id });
        self.decide(cx);
    }

    /// Init no longer holds a service that should run: it exited with an unknown status.
    pub(super) fn disappeared(&mut self, cx: &mut Context<'_>) {
        self.exit_at = cx.now;
        self.last_exit = None;
        self.decide(cx);
    }

    fn decide(&mut self, cx: &mut Context<'_>) {
        self.watchdog = None;
        if self.unwanted {
            self.enter(Stage::Ended(self.lost_dependency.map_or(End::Stopped, End::LostDependency)), cx.now);
            cx.log(format!("stopped: {}", self.describe_exit(cx.service)));
        } else if self.start_after_exit {
            self.start_after_exit = false;
            self.streak = 0;
            self.enter(Stage::Waiting, cx.now);
            cx.log(format!("{}; restarting as requested", self.describe_exit(cx.service)));
        } else if self.failure == Some(Failure::Refused) && self.refusals < MAX_REFUSALS {
            self.refusals = self.refusals.saturating_add(1);
            let pause = refused_ms(self.refusals, cx.jitter);
            self.enter(Stage::BackingOff(self.exit_at.plus_millis(pause)), cx.now);
            let count = self.refusals;
            cx.log(format!(
                "{}; retrying in {pause} ms ({count} of {MAX_REFUSALS})",
                self.describe_exit(cx.service)
            ));
        } else {
            self.refusals = 0;
            self.decide_by_policy(cx);
        }
    }

    fn decide_by_policy(&mut self, cx: &mut Context<'_>) {
        let restart = &cx.service.restart;
        let success = self.failure.is_none() && self.last_exit == Some(Exit::Code(0));
        let wanted = match restart.policy {
            Policy::Always => !(success && cx.service.kind == Kind::Job),
            Policy::OnFailure => !success,
            Policy::Never => false,
        };
        if self.ready_at.is_some_and(|at| self.exit_at.since(at).as_millis() >= restart.stable_ms.into()) {
            self.streak = 0;
        }
        if !wanted || self.failure == Some(Failure::Unstartable) {
            self.enter(Stage::Ended(if success { End::Done } else { End::Failed }), cx.now);
            cx.log(self.describe_exit(cx.service));
        } else if self.streak >= restart.burst {
            self.enter(Stage::Ended(End::Failed), cx.now);
            cx.log(format!(
                "failed: {} after {} consecutive restarts",
                self.describe_exit(cx.service),
                self.streak
            ));
        } else {
            self.streak = self.streak.saturating_add(1);
            let pause = pause_ms(restart, self.streak, cx.jitter);
            self.enter(Stage::BackingOff(self.exit_at.plus_millis(pause)), cx.now);
            cx.log(format!("restarting in {pause} ms after {}", self.describe_exit(cx.service)));
        }
    }

    /// Handles an expired deadline.
    pub(super) fn tick(&mut self, cx: &mut Context<'_>) {
        if self.deadline().is_none_or(|at| at > cx.now) {
            return;
        }
        match self.stage {
            Stage::Spawning(_) => {
                cx.log(format!("did not execute its program within {SPAWN_MS} ms; killing it"));
                self.kill(cx);
            }
            Stage::Starting(_) => {
                self.failure = Some(Failure::StartTimeout);
                let waited = self.describe_wait(cx.service);
                cx.log(format!("not ready within {} ms{waited}; stopping it", cx.service.start_timeout_ms));
                self.stop(cx);
            }
            Stage::Stopping(_) => {
                cx.log(format!("did not exit within {} ms; killing it", cx.service.stop_timeout_ms));
                self.kill(cx);
            }
            Stage::BackingOff(_) => self.enter(Stage::Waiting, cx.now),
            Stage::Ready => self.checked(cx, Verdict::Dead),
            Stage::Waiting | Stage::Killing | Stage::Ended(_) => {}
        }
    }

    /// What it waited for, as part of a sentence.
    fn describe_wait(&self, service: &Service) -> String {
        self.waits_for(service).map(|what| format!(" (waited for {what})")).unwrap_or_default()
    }

    /// Its exit, as part of a sentence.
    pub(super) fn describe_exit(&self, service: &Service) -> String {
        let exit = self.last_exit.as_ref().map_or_else(|| "no exit status".to_owned(), describe);
        match self.failure {
            Some(Failure::StartTimeout) => {
                format!("not ready in time{}, {exit}", self.describe_wait(service))
            }
            Some(Failure::Unhealthy) => format!("unhealthy, {exit}"),
            Some(Failure::Refused | Failure::Unstartable) | None => exit,
        }
    }
}
