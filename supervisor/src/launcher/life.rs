//! One service: how it moves on.
//!
//! Its law: a unit knows itself and its part of the manifest, never another unit. What it may do because of others is
//! decided in [`super::machine`].

use cloister_manifest::model::{Check, Kind, Policy, Ready, Service};
use cloister_wire::control::Exit;
use cloister_wire::hold::Target;

use super::backoff::{Jitter, pause_ms};
use super::event::{Action, Id, Verdict};
use super::outcome::words;
use super::unit::{End, Fault, Life, Unit};
use crate::clock::Moment;

/// `SIGKILL`, the same on every architecture (signal(7)).
const SIGKILL: u8 = 9;

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

    fn signal(&mut self, signal: u8, to: Target) {
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
            last_exit: self.last_exit.take(),
            exit_at: self.exit_at,
            process: self.process,
            started: self.started,
            ..Self::default()
        };
        self.enter(Life::Spawning, cx.now);
        cx.out.push(Action::Spawn { id: cx.id, run: self.run });
    }

    /// Init started it.
    pub(super) fn spawned(&mut self, cx: &mut Context<'_>, pid: u32, at: Moment) {
        if self.life != Life::Spawning {
            return;
        }
        self.pid = Some(pid);
        self.process = pid;
        self.populated = true;
        self.started = at;
        self.enter(Life::Starting(at.plus_millis(cx.service.start_timeout_ms)), at);
        match (cx.service.kind, &cx.service.ready) {
            (Kind::Job, _) | (Kind::Service, Ready::Notify) => {}
            (Kind::Service, Ready::Started) => self.ready(cx),
            (Kind::Service, _) => self.probe(cx),
        }
    }

    /// Asks for its readiness to be found out.
    pub(super) fn probe(&self, cx: &mut Context<'_>) {
        cx.out.push(Action::Probe { id: cx.id, run: self.run, started: self.started });
    }

    /// Init could not start it. After a crash of the supervisor that can be told of a process that was seen being started.
    pub(super) fn spawn_failed(&mut self, cx: &mut Context<'_>, passing: bool, error: String) {
        if !self.is_running() {
            return;
        }
        cx.out.push(Action::Unwatch { id: cx.id });
        self.pid = None;
        self.last_exit = Some(Exit::NotStarted { error });
        self.exit_at = cx.now;
        self.populated = false;
        if !passing {
            self.fault = Some(Fault::Unstartable);
        }
        self.decide(cx);
    }

    /// It is ready.
    pub(super) fn ready(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.life, Life::Starting(_)) || cx.service.kind == Kind::Job {
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
        if self.life != Life::Ready {
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
        if matches!(self.life, Life::Starting(_) | Life::Ready) {
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
        cx.signal(cx.service.stop_signal, Target::Main);
    }

    /// Kills all of it.
    pub(super) fn kill(&mut self, cx: &mut Context<'_>) {
        cx.out.push(Action::Unwatch { id: cx.id });
        cx.signal(SIGKILL, Target::Cgroup);
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
        if self.pid.is_none() && self.life != Life::Spawning {
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
            cx.say(format!("stopped: {}", self.exit_words()));
        } else if self.again {
            self.again = false;
            self.streak = 0;
            self.enter(Life::Waiting, cx.now);
            cx.say(format!("{}; starting again as asked", self.exit_words()));
        } else {
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
            cx.say(self.exit_words());
        } else if self.streak >= restart.burst {
            self.enter(Life::Ended(End::Failed), cx.now);
            cx.say(format!("failed: {} after {} restarts in a row", self.exit_words(), self.streak));
        } else {
            self.streak = self.streak.saturating_add(1);
            let pause = pause_ms(restart, self.streak, cx.jitter);
            self.enter(Life::BackingOff(self.exit_at.plus_millis(pause)), cx.now);
            cx.say(format!("restarting in {pause} ms after {}", self.exit_words()));
        }
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, cx: &mut Context<'_>) {
        if self.deadline().is_none_or(|at| at > cx.now) {
            return;
        }
        match self.life {
            Life::Starting(_) => {
                self.fault = Some(Fault::StartTimeout);
                cx.say(format!("not ready within {} ms; stopping it", cx.service.start_timeout_ms));
                self.stop(cx);
            }
            Life::Stopping(_) => {
                cx.say(format!("did not end within {} ms; killing it", cx.service.stop_timeout_ms));
                self.kill(cx);
            }
            Life::BackingOff(_) => self.enter(Life::Waiting, cx.now),
            Life::Ready => self.checked(cx, Verdict::Dead),
            Life::Waiting | Life::Spawning | Life::Killing | Life::Ended(_) => {}
        }
    }

    fn exit_words(&self) -> String {
        let exit = self.last_exit.as_ref().map_or_else(|| "it never ran".to_owned(), words);
        match self.fault {
            Some(Fault::StartTimeout) => format!("not ready in time, {exit}"),
            Some(Fault::Unhealthy) => format!("unhealthy, {exit}"),
            Some(Fault::Unstartable) | None => exit,
        }
    }
}
