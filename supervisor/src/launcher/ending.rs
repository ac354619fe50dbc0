//! How the enclave shuts down: what triggers it, and what follows in which order.
//!
//! Invariant: a second request to stop changes nothing, and the first reason stays.

use cloister_manifest::model::Kind;
use cloister_wire::control::State as Enclave;

use super::event::{Action, Id};
use super::machine::Launcher;
use super::outcome::final_state;
use super::stage::{CLOSING_MS, Closing, DRAIN_MS, EndStage, Ending, KILL_GRACE_MS};
use super::unit::{End, Unit};
use crate::clock::Moment;

/// The part of the whole stop timeout that draining may take: one in this many.
const DRAIN_PART: u64 = 2;

impl Launcher {
    /// A stop of the enclave was requested.
    pub(super) fn stop_requested(&mut self, why: String, now: Moment, out: &mut Vec<Action>) {
        if self.state.stage != EndStage::Running {
            return;
        }
        out.push(Action::Log { id: None, line: format!("stopping: {why}") });
        out.push(Action::Drain);
        let until = now.plus_millis(DRAIN_MS.min(self.stop_timeout_ms / DRAIN_PART));
        self.state.stage = EndStage::Draining(Ending { why, by: None, until });
    }

    /// Stops ingress from accepting connections. That is permanent, and open connections are waited for once.
    pub(super) fn drain_requested(&mut self, out: &mut Vec<Action>) {
        if !std::mem::replace(&mut self.state.draining, true) {
            out.push(Action::Drain);
        }
    }

    /// No ingress connection is open now.
    pub(super) fn drained(&mut self, now: Moment) {
        if let EndStage::Draining(ending) = &mut self.state.stage {
            ending.until = now;
        }
    }

    /// Records who has received the final state.
    pub(super) fn closing<F: FnOnce(&mut Closing)>(&mut self, note: F) {
        if let EndStage::Closing(closing) = &mut self.state.stage {
            note(closing);
        }
    }

    /// Applies the rule of the current stage, and returns whether the stage changed.
    pub(super) fn settle_stage(&mut self, now: Moment, out: &mut Vec<Action>) -> bool {
        let idle = !self.state.units.iter().any(Unit::is_running);
        match &self.state.stage {
            EndStage::Running => self.settle_running(now, out),
            EndStage::Draining(e) if idle || now >= e.until => {
                let ending = e.clone();
                self.stop_all(ending, now);
                true
            }
            EndStage::Stopping(e) | EndStage::Killing(e) if idle => {
                let by = e.by;
                self.close(by, now, out);
                true
            }
            EndStage::Stopping(e) if now >= e.until => {
                let ending = e.clone();
                self.kill_all(ending, now, out);
                true
            }
            EndStage::Killing(e) if now >= e.until => {
                let by = e.by;
                out.push(Action::Log {
                    id: None,
                    line: "some processes did not exit after SIGKILL; continuing".into(),
                });
                self.close(by, now, out);
                true
            }
            EndStage::Closing(c) if now >= c.until || (c.seen && c.flushed) => {
                let state = c.state.clone();
                out.push(Action::PowerOff { state: state.clone() });
                self.state.stage = EndStage::Off(state);
                true
            }
            _ => false,
        }
    }

    fn settle_running(&mut self, now: Moment, out: &mut Vec<Action>) -> bool {
        let Some(by) = self.critical_end().or_else(|| self.last_end()) else { return false };
        let Some((service, unit)) = self.services.get(by.index()).zip(self.unit(by)) else { return false };
        let why = format!("{} ended: {}", service.name, unit.describe_exit(service));
        out.push(Action::Log { id: None, line: format!("stopping: {why}") });
        out.push(Action::Drain);
        self.stop_all(Ending { why, by: Some(by), until: now }, now);
        true
    }

    /// The service whose exit is the cause, if a critical one has ended permanently.
    fn critical_end(&self) -> Option<Id> {
        self.graph.ids().find_map(|id| {
            let service = self.services.get(id.index()).filter(|s| s.critical)?;
            match self.unit(id)?.end()? {
                End::Done if service.kind == Kind::Job => None,
                End::Stopped => None,
                End::Done | End::Failed => Some(id),
                End::LostDependency(root) => Some(root),
            }
        })
    }

    /// The service that determines the result, if all have ended and none was stopped on request.
    fn last_end(&self) -> Option<Id> {
        let ends: Option<Vec<End>> = self.state.units.iter().map(Unit::end).collect();
        let ends = ends.filter(|ends| !ends.contains(&End::Stopped))?;
        let failed = ends.iter().position(|end| *end == End::Failed);
        let place = failed.or_else(|| ends.len().checked_sub(1))?;
        u16::try_from(place).ok().map(Id)
    }

    fn stop_all(&mut self, ending: Ending, now: Moment) {
        for unit in &mut self.state.units {
            unit.unwanted = true;
            unit.start_after_exit = false;
        }
        let until = now.plus_millis(self.stop_timeout_ms);
        self.state.stage = EndStage::Stopping(Ending { until, ..ending });
    }

    fn kill_all(&mut self, ending: Ending, now: Moment, out: &mut Vec<Action>) {
        let line = format!(
            "not all services exited within {} ms; killing the remaining processes",
            self.stop_timeout_ms
        );
        out.push(Action::Log { id: None, line });
        for id in self.graph.ids() {
            if self.unit(id).is_some_and(Unit::is_running) {
                self.with(id, now, out, Unit::kill);
            }
        }
        self.state.stage = EndStage::Killing(Ending { until: now.plus_millis(KILL_GRACE_MS), ..ending });
    }

    fn close(&mut self, by: Option<Id>, now: Moment, out: &mut Vec<Action>) {
        let state = self.outcome(by);
        out.push(Action::Conclude);
        let until = now.plus_millis(CLOSING_MS);
        self.state.stage = EndStage::Closing(Closing { state, until, seen: false, flushed: false });
    }

    fn outcome(&self, by: Option<Id>) -> Enclave {
        let critical =
            || self.graph.ids().find(|id| self.services.get(id.index()).is_some_and(|s| s.critical));
        let decider = by.or_else(critical);
        let first = || self.services.first().map(|s| s.name.as_str()).unwrap_or_default();
        match decider.and_then(|id| self.services.get(id.index()).zip(self.unit(id))) {
            Some((service, unit)) => final_state(&service.name, unit.last_exit.as_ref()),
            None => final_state(first(), None),
        }
    }
}
