//! One service: where it is in its life, and how it moves on.
//!
//! Its law: a unit knows itself and its part of the manifest, never another unit. What it may do because of others is
//! decided in [`super::machine`].

use cloister_manifest::model::{Check, Kind, Policy, Ready, Service};
use cloister_wire::control::{Exit, Phase, ServiceStatus};
use cloister_wire::hold::Target;
use serde::{Deserialize, Serialize};

use super::backoff::{Jitter, pause_ms};
use super::event::{Action, Id, Verdict};
use super::outcome::words;
use crate::clock::Moment;

/// `SIGKILL`, the same on every architecture (signal(7)).
const SIGKILL: u8 = 9;

/// Where a service is in its life, with the moment at which that ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Life {
    /// It waits for others.
    #[default]
    Waiting,
    /// Init has been asked to start it.
    Spawning,
    /// It runs and has until then to become ready.
    Starting(Moment),
    /// It runs and is ready.
    Ready,
    /// It was asked to end, and has until then.
    Stopping(Moment),
    /// Its cgroup was killed.
    Killing,
    /// It ended and is started again then.
    BackingOff(Moment),
    /// It is over, unless somebody asks for it.
    Ended(End),
}

/// How a service's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum End {
    /// By itself, and that is all right.
    Done,
    /// By itself, and it is not started again.
    Failed,
    /// Because somebody asked, or the enclave ends.
    Stopped,
    /// Because this service, which it requires, ended for good.
    Bereft(Id),
}

/// Why we ended a service that did nothing of the kind itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fault {
    /// It was not ready in time.
    StartTimeout,
    /// Its liveness check failed too often.
    Unhealthy,
    /// Init could not start it, and never will.
    Unstartable,
}

/// One service's state; it survives a crash of the supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unit {
    pub(super) life: Life,
    /// When `life` began.
    pub(super) since: Moment,
    /// How often it was spawned.
    pub(super) run: u32,
    /// Its main process while it lives.
    pub(super) pid: Option<u32>,
    /// The process of its current or last run.
    pub(super) process: u32,
    /// When that was started.
    pub(super) started: Moment,
    /// Whether its cgroup may have members.
    pub(super) populated: bool,
    /// Nobody wants it to run any more.
    pub(super) unwanted: bool,
    /// What it lost, if that is why it is unwanted.
    pub(super) lost: Option<Id>,
    /// It is to be started again as soon as it has ended.
    pub(super) again: bool,
    /// What we hold against its current run.
    pub(super) fault: Option<Fault>,
    /// Restarts in a row without a stable time between them.
    pub(super) streak: u32,
    pub(super) last_exit: Option<Exit>,
    pub(super) exit_at: Moment,
    pub(super) ready_at: Option<Moment>,
    /// Liveness checks missed in a row.
    pub(super) misses: u32,
    /// When the next `WATCHDOG=1` is due.
    pub(super) watchdog: Option<Moment>,
    pub(super) text: Option<String>,
}

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
    /// Whether there are, or may be, processes of it.
    pub(super) const fn is_running(&self) -> bool {
        !matches!(self.life, Life::Waiting | Life::BackingOff(_) | Life::Ended(_))
    }

    /// How it ended, if it did.
    pub(super) const fn end(&self) -> Option<End> {
        match self.life {
            Life::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// The next moment at which something is due.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match self.life {
            Life::Starting(until) | Life::Stopping(until) | Life::BackingOff(until) => Some(until),
            Life::Ready => self.watchdog,
            Life::Waiting | Life::Spawning | Life::Killing | Life::Ended(_) => None,
        }
    }

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
        self.ask_to_end(cx);
        self.enter(Life::Stopping(cx.now.plus_millis(cx.service.stop_timeout_ms)), cx.now);
    }

    /// Sends the stop signal: to the main process, or to a daemon that left it behind.
    pub(super) fn ask_to_end(&self, cx: &mut Context<'_>) {
        let to = if self.pid.is_some() { Target::Main } else { Target::Cgroup };
        cx.signal(cx.service.stop_signal, to);
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
        let may_be_daemon = exit == Exit::Code(0)
            && cx.service.kind == Kind::Service
            && matches!(self.life, Life::Starting(_) | Life::Ready);
        self.last_exit = Some(exit);
        if !self.populated {
            self.over(cx);
        } else if !may_be_daemon && self.life != Life::Killing {
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

    /// What the status says of it.
    pub(super) fn status(&self, name: &str) -> ServiceStatus {
        ServiceStatus {
            name: name.to_owned(),
            phase: self.phase(),
            pid: self.pid,
            since_ms: self.since.millis(),
            restarts: self.run.saturating_sub(1),
            last_exit: self.last_exit.clone(),
            text: self.text.clone(),
        }
    }

    /// The phase as the status names it.
    pub(super) fn phase(&self) -> Phase {
        match self.life {
            Life::Waiting => Phase::Waiting,
            Life::Spawning | Life::Starting(_) => Phase::Starting,
            Life::Ready => Phase::Ready,
            Life::Killing if self.fault == Some(Fault::Unhealthy) => Phase::Unhealthy,
            Life::Stopping(_) | Life::Killing => Phase::Stopping,
            Life::BackingOff(_) => Phase::BackingOff,
            Life::Ended(End::Done | End::Stopped) => Phase::Done,
            Life::Ended(End::Failed | End::Bereft(_)) => Phase::Failed,
        }
    }
}
