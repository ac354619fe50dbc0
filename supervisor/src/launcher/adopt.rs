//! The start of a supervisor: reconciles the saved state with what init holds.
//!
//! Invariant: init's holdings take precedence. A supervisor stores a decision before it acts, so after a crash the
//! decision may not have been carried out, and is then carried out again.

use cloister_manifest::model::{Kind, Ready};
use cloister_wire::hold::Held;

use super::event::Action;
use super::lifecycle::{Context, SPAWN_MS};
use super::machine::Launcher;
use super::stage::{EndStage, RECOVERY_SHOWN_MS};
use super::unit::{Stage, Unit};
use crate::clock::Moment;

impl Launcher {
    /// Takes over the services that init holds. The first supervisor finds none.
    pub(super) fn adopt(&mut self, held: &[Held], now: Moment, out: &mut Vec<Action>) {
        for id in self.graph.ids() {
            let name = self.services.get(id.index()).map(|s| s.name.clone()).unwrap_or_default();
            match held.iter().find(|h| h.name == name) {
                Some(holding) => self.with(id, now, out, |u, cx| u.resume(cx, holding)),
                None => self.with(id, now, out, Unit::resume_without),
            }
        }
        match &self.state.stage {
            EndStage::Running if self.state.draining => out.push(Action::Drain),
            EndStage::Running => {}
            EndStage::Draining(_) | EndStage::Stopping(_) | EndStage::Killing(_) => out.push(Action::Drain),
            EndStage::Closing(_) => out.extend([Action::Drain, Action::Conclude]),
            // If the machine still runs, init has not received the request.
            EndStage::Off(state) => out.push(Action::PowerOff { state: state.clone() }),
        }
    }

    /// Makes the status report the crash of the supervisor, until a host has read it.
    pub fn recovered(&mut self, now: Moment) {
        self.state.recovering = Some(now.plus_millis(RECOVERY_SHOWN_MS));
    }
}

impl Unit {
    fn resume(&mut self, cx: &mut Context<'_>, held: &Held) {
        if held.fds == 0 && held.ended.is_none() {
            self.resume_start(cx);
            return;
        }
        let at = Moment::from_nanos(held.at_ns);
        let is_earlier_run = held.pid == self.process && !self.is_current();
        if is_earlier_run {
            cx.out.push(Action::Release { id: cx.id });
            self.resume_without(cx);
            return;
        }
        if self.is_current() {
            self.spawned(cx, held.pid, at);
            self.resume_current(cx);
        } else {
            self.resume_unknown(cx, held, at);
        }
        if let Some(ended) = &held.ended {
            self.exited(cx, held.pid, ended.exit.clone(), Moment::from_nanos(ended.at_ns));
        }
        if !held.populated {
            self.emptied(cx);
        }
    }

    /// It has not executed its program yet, and init will report the result.
    fn resume_start(&mut self, cx: &mut Context<'_>) {
        if self.stage == Stage::Killing {
            self.kill(cx);
        } else if !self.is_spawning() {
            // The state was lost.
            self.run = self.run.max(1);
            self.enter(Stage::Spawning(cx.now.plus_millis(SPAWN_MS)), cx.now);
        }
    }

    /// Whether the state knows the process that init holds.
    const fn is_current(&self) -> bool {
        self.is_running() && !self.is_spawning()
    }

    /// The state knows the process: continues what was in progress.
    fn resume_current(&mut self, cx: &mut Context<'_>) {
        match self.stage {
            Stage::Starting(_) if cx.service.kind == Kind::Service && cx.service.ready != Ready::Notify => {
                self.probe(cx);
            }
            Stage::Ready => self.watch(cx),
            Stage::Stopping(_) => Self::send_stop_signal(cx),
            Stage::Killing => self.kill(cx),
            _ => {}
        }
    }

    /// The state does not know the process: its start was not stored, or the state was lost.
    fn resume_unknown(&mut self, cx: &mut Context<'_>, held: &Held, at: Moment) {
        let is_state_lost = !self.is_spawning();
        self.run = self.run.max(1);
        self.enter(Stage::Spawning(cx.now), cx.now);
        self.spawned(cx, held.pid, at);
        if is_state_lost && held.ended.is_none() && cx.service.ready == Ready::Notify {
            // It may have sent `READY=1` long ago, and sends it only once; its liveness check will find out if it is
            // not ready.
            self.ready(cx);
        }
    }

    /// Init holds nothing of it.
    fn resume_without(&mut self, cx: &mut Context<'_>) {
        if self.is_spawning() {
            self.early.clear();
            cx.out.push(Action::Spawn { id: cx.id, run: self.run });
        } else if self.is_running() {
            self.pid = None;
            self.populated = false;
            self.disappeared(cx);
        }
    }
}
