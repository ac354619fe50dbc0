//! One service: how it moves on.
//!
//! Its law: a unit knows itself and its part of the manifest, never another unit. What it may do because of others is
//! decided in [`super::machine`].

use cloister_manifest::model::{Check, Kind, Policy, Ready, Service};
use cloister_wire::control::Exit;
use cloister_wire::hold::SignalTarget;

use super::backoff::{Jitter, pause_ms, refused_ms};
use super::event::{Action, Id, Retry, Verdict};
use super::outcome::words;
use super::unit::{Early, End, Fault, Life, MAX_EARLY, Unit};
use crate::clock::Moment;

/// `SIGKILL`, the same on every architecture (signal(7)).
const SIGKILL: u8 = 9;

/// How long init may take to make a process the program it is to be, in milliseconds. It takes milliseconds; sixty at once
/// under emulation take seconds, and what takes a minute hangs.
pub(super) const SPAWN_MS: u64 = 60_000;

/// How often in a row a start may be refused for want of processes, memory or descriptors before the restart policy decides.
/// With the pauses of [`refused_ms`] that is half a minute.
pub(super) const MAX_REFUSALS: u32 = 10;

/// What a unit needs to move on.
pub(super) struct Context<'a> {
    pub(super) id: Id,
    pub(super) service: &'a Service,
    pub(super) now: Moment,
    pub(super) jitter: &'a mut Jitter,
    pub(super) out: &'a mut Vec<Action>,
}

impl Context<'_> {
    fn say(&mut self, line: String) {
        self.out.push(Action::Say { id: Some(self.id), line });
    }

    fn signal(&mut self, signal: u8, to: SignalTarget) {
        self.out.push(Action::Signal { id: self.id, signal, to });
    }
}

impl Unit {
    /// Goes to `life` now.
    pub(super) fn enter(&mut self, life: Life, now: Moment) {
        self.life = life;
        self.since = now;
    }

    /// Has init start it.
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
        self.enter(Life::Spawning(cx.now.plus_millis(SPAWN_MS)), cx.now);
        cx.out.push(Action::Spawn { id: cx.id, run: self.run });
    }

    /// Init started it, maybe in the moment in which it was given up.
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
        self.enter(Life::Starting(at.plus_millis(cx.service.start_timeout_ms)), at);
        match (cx.service.kind, &cx.service.ready) {
            (Kind::Job, _) | (Kind::Service, Ready::Notify) => {}
            (Kind::Service, Ready::Started) => self.ready(cx),
            (Kind::Service, _) => self.probe(cx),
        }
    }

    /// Whether init has been asked to start it and has not reported what came of that.
    pub(super) const fn is_spawning(&self) -> bool {
        matches!(self.life, Life::Spawning(_))
    }

    /// Whether this may be the process of a start that took too long and was killed before it was reported.
    pub(super) fn is_unknown(&self, pid: u32) -> bool {
        self.life == Life::Killing && self.pid.is_none() && self.process != pid
    }

    /// What it said first of all before its start was reported and has not been heard yet.
    pub(super) fn next_early(&mut self) -> Option<Early> {
        (!self.is_spawning() && !self.early.is_empty()).then(|| self.early.remove(0))
    }

    /// Hears it as if it were said now.
    pub(super) fn hear(&mut self, cx: &mut Context<'_>, note: Early) {
        match note {
            Early::Ready => self.ready(cx),
            Early::Checked(verdict) => self.checked(cx, verdict),
            Early::Leaving => self.leaving(cx),
        }
    }

    /// Keeps what it said before its start was reported, and says whether that is so. What would change nothing if it were
    /// heard in time is not kept: a word of its health before it is ready, anything after it said that it is ending.
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

    /// Asks for its readiness to be found out.
    pub(super) fn probe(&self, cx: &mut Context<'_>) {
        cx.out.push(Action::Probe { id: cx.id, run: self.run, started: self.started });
    }

    /// Init could not start it. After a crash of the supervisor that can be told of a process that was seen being started.
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
            Retry::Soon => self.fault = Some(Fault::Refused),
            Retry::Never => self.fault = Some(Fault::Unstartable),
        }
        self.decide(cx);
    }

    /// It is ready.
    pub(super) fn ready(&mut self, cx: &mut Context<'_>) {
        if self.is_early(cx, Early::Ready)
            || !matches!(self.life, Life::Starting(_))
            || cx.service.kind == Kind::Job
        {
            return;
        }
        let took = cx.now.since(self.started).as_millis();
        self.enter(Life::Ready, cx.now);
        self.ready_at = Some(cx.now);
        cx.say(format!("ready after {took} ms"));
        self.watch(cx);
    }

    /// Begins, or begins again, its liveness check.
    pub(super) fn watch(&mut self, cx: &mut Context<'_>) {
        match &cx.service.live {
            None => {}
            Some(live) if live.check == Check::Watchdog => {
                self.watchdog = Some(cx.now.plus_millis(live.interval_ms.max(1)));
            }
            Some(_) => cx.out.push(Action::Watch { id: cx.id, run: self.run }),
        }
    }

    /// A liveness check came to a verdict.
    pub(super) fn checked(&mut self, cx: &mut Context<'_>, verdict: Verdict) {
        if self.is_early(cx, Early::Checked(verdict)) || self.life != Life::Ready {
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
            cx.say(format!("unhealthy: {} liveness checks in a row failed; killing it", self.misses));
            self.fault = Some(Fault::Unhealthy);
            self.kill(cx);
        }
    }

    /// It said that it is alive.
    pub(super) fn petted(&mut self, cx: &mut Context<'_>) {
        if cx.service.live.as_ref().is_some_and(|live| live.check == Check::Watchdog) {
            self.checked(cx, Verdict::Alive);
        }
    }

    /// Somebody wants it to run: it starts as if for the first time, unless it runs.
    pub(super) fn want(&mut self, cx: &mut Context<'_>) {
        self.again |= self.unwanted && self.is_running();
        self.unwanted = false;
        self.lost = None;
        if matches!(self.life, Life::BackingOff(_) | Life::Ended(_)) {
            self.streak = 0;
            self.refusals = 0;
            self.enter(Life::Waiting, cx.now);
        }
    }

    /// Somebody wants it to end and to run again.
    pub(super) fn start_again(&mut self, cx: &mut Context<'_>) {
        self.want(cx);
        if self.is_running() {
            self.again = true;
            self.stop(cx);
        }
    }

    /// It said that it is ending by its own decision.
    pub(super) fn leaving(&mut self, cx: &mut Context<'_>) {
        if !self.is_early(cx, Early::Leaving) && matches!(self.life, Life::Starting(_) | Life::Ready) {
            cx.out.push(Action::Unwatch { id: cx.id });
            self.enter(Life::Stopping(cx.now.plus_millis(cx.service.stop_timeout_ms)), cx.now);
        }
    }

    /// Asks it to end.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.life, Life::Starting(_) | Life::Ready) {
            return;
        }
        cx.out.push(Action::Unwatch { id: cx.id });
        Self::ask_to_end(cx);
        self.enter(Life::Stopping(cx.now.plus_millis(cx.service.stop_timeout_ms)), cx.now);
    }

    /// Sends the stop signal to the main process.
    pub(super) fn ask_to_end(cx: &mut Context<'_>) {
        cx.signal(cx.service.stop_signal, SignalTarget::Main);
    }

    /// Kills all of it.
    pub(super) fn kill(&mut self, cx: &mut Context<'_>) {
        cx.out.push(Action::Unwatch { id: cx.id });
        cx.signal(SIGKILL, SignalTarget::Cgroup);
        self.enter(Life::Killing, cx.now);
    }

    /// Its main process ended.
    pub(super) fn exited(&mut self, cx: &mut Context<'_>, pid: u32, exit: Exit, at: Moment) {
        if !self.is_running() || self.pid != Some(pid) {
            return;
        }
        self.pid = None;
        self.exit_at = at;
        self.last_exit = Some(exit);
        if !self.populated {
            self.over(cx);
        } else if self.life != Life::Killing {
            self.kill(cx);
        }
    }

    /// The last process of its cgroup is gone.
    pub(super) fn emptied(&mut self, cx: &mut Context<'_>) {
        if !self.is_running() {
            return;
        }
        self.populated = false;
        if self.pid.is_none() && !self.is_spawning() {
            self.over(cx);
        }
    }

    /// Nothing of it is left.
    fn over(&mut self, cx: &mut Context<'_>) {
        cx.out.push(Action::Unwatch { id: cx.id });
        cx.out.push(Action::Forget { id: cx.id });
        self.decide(cx);
    }

    /// Init no longer holds what should run: it ended, nobody knows how.
    pub(super) fn lost_sight(&mut self, cx: &mut Context<'_>) {
        self.exit_at = cx.now;
        self.last_exit = None;
        self.decide(cx);
    }

    fn decide(&mut self, cx: &mut Context<'_>) {
        self.watchdog = None;
        if self.unwanted {
            self.enter(Life::Ended(self.lost.map_or(End::Stopped, End::Bereft)), cx.now);
            cx.say(format!("stopped: {}", self.exit_words(cx.service)));
        } else if self.again {
            self.again = false;
            self.streak = 0;
            self.enter(Life::Waiting, cx.now);
            cx.say(format!("{}; starting again as asked", self.exit_words(cx.service)));
        } else if self.fault == Some(Fault::Refused) && self.refusals < MAX_REFUSALS {
            self.refusals = self.refusals.saturating_add(1);
            let pause = refused_ms(self.refusals, cx.jitter);
            self.enter(Life::BackingOff(self.exit_at.plus_millis(pause)), cx.now);
            let count = self.refusals;
            cx.say(format!(
                "{}; trying again in {pause} ms ({count} of {MAX_REFUSALS})",
                self.exit_words(cx.service)
            ));
        } else {
            self.refusals = 0;
            self.decide_by_policy(cx);
        }
    }

    fn decide_by_policy(&mut self, cx: &mut Context<'_>) {
        let restart = &cx.service.restart;
        let success = self.fault.is_none() && self.last_exit == Some(Exit::Code(0));
        let wanted = match restart.policy {
            Policy::Always => !(success && cx.service.kind == Kind::Job),
            Policy::OnFailure => !success,
            Policy::Never => false,
        };
        if self.ready_at.is_some_and(|at| self.exit_at.since(at).as_millis() >= restart.stable_ms.into()) {
            self.streak = 0;
        }
        if !wanted || self.fault == Some(Fault::Unstartable) {
            self.enter(Life::Ended(if success { End::Done } else { End::Failed }), cx.now);
            cx.say(self.exit_words(cx.service));
        } else if self.streak >= restart.burst {
            self.enter(Life::Ended(End::Failed), cx.now);
            cx.say(format!(
                "failed: {} after {} restarts in a row",
                self.exit_words(cx.service),
                self.streak
            ));
        } else {
            self.streak = self.streak.saturating_add(1);
            let pause = pause_ms(restart, self.streak, cx.jitter);
            self.enter(Life::BackingOff(self.exit_at.plus_millis(pause)), cx.now);
            cx.say(format!("restarting in {pause} ms after {}", self.exit_words(cx.service)));
        }
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, cx: &mut Context<'_>) {
        if self.deadline().is_none_or(|at| at > cx.now) {
            return;
        }
        match self.life {
            Life::Spawning(_) => {
                cx.say(format!("did not become its program within {SPAWN_MS} ms; killing it"));
                self.kill(cx);
            }
            Life::Starting(_) => {
                self.fault = Some(Fault::StartTimeout);
                let waited = self.waited_words(cx.service);
                cx.say(format!("not ready within {} ms{waited}; stopping it", cx.service.start_timeout_ms));
                self.stop(cx);
            }
            Life::Stopping(_) => {
                cx.say(format!("did not end within {} ms; killing it", cx.service.stop_timeout_ms));
                self.kill(cx);
            }
            Life::BackingOff(_) => self.enter(Life::Waiting, cx.now),
            Life::Ready => self.checked(cx, Verdict::Dead),
            Life::Waiting | Life::Killing | Life::Ended(_) => {}
        }
    }

    /// What it waited for, as a part of a sentence.
    fn waited_words(&self, service: &Service) -> String {
        self.waits_for(service).map(|what| format!(" (waited for {what})")).unwrap_or_default()
    }

    /// Its end, as a part of a sentence.
    pub(super) fn exit_words(&self, service: &Service) -> String {
        let exit = self.last_exit.as_ref().map_or_else(|| "it never ran".to_owned(), words);
        match self.fault {
            Some(Fault::StartTimeout) => format!("not ready in time{}, {exit}", self.waited_words(service)),
            Some(Fault::Unhealthy) => format!("unhealthy, {exit}"),
            Some(Fault::Refused | Fault::Unstartable) | None => exit,
        }
    }
}
