//! The state machine: events in, actions out.
//!
//! Invariant: [`Launcher::on`] first updates the units concerned, then applies the rules between units until none
//! applies. A rule only ever moves a unit or the stage forward, so that this terminates.

use std::sync::Arc;

use cloister_manifest::model::{Kind, Manifest, Service};
use cloister_wire::control::{ServiceStatus, State as Enclave, Verb};

use super::backoff::Jitter;
use super::event::{Action, Event, Id, RequestError};
use super::graph::{Graph, GraphError};
use super::lifecycle::Context;
use super::stage::{CLOSING_MS, Closing, EndStage};
use super::state::LauncherState;
use super::unit::{Early, End, Stage, Unit};
use crate::clock::Moment;

/// The launcher.
#[derive(Debug)]
pub struct Launcher {
    pub(super) services: Arc<[Service]>,
    pub(super) stop_timeout_ms: u64,
    pub(super) graph: Graph,
    pub(super) state: LauncherState,
    jitter: Jitter,
}

impl Launcher {
    /// A launcher for `manifest`, which continues from `state` if an earlier supervisor saved it. `seed` is for jitter.
    pub fn new(manifest: &Manifest, state: Option<LauncherState>, seed: u64) -> Result<Self, GraphError> {
        let services: Arc<[Service]> = manifest.services.clone().into();
        let graph = Graph::new(&services)?;
        let mut state = state.unwrap_or_default();
        state.units.resize_with(services.len(), Unit::default);
        let stop_timeout_ms = manifest.stop_timeout_ms;
        Ok(Self { services, stop_timeout_ms, graph, state, jitter: Jitter::new(seed) })
    }

    /// A launcher that starts nothing and reports a fatal error.
    #[must_use]
    pub fn fatal(part: &str, error: String, now: Moment) -> (Self, Vec<Action>) {
        let line = format!("fatal: {part}: {error}");
        let fatal = Enclave::Fatal { stage: part.to_owned(), error };
        let closing =
            Closing { state: fatal, until: now.plus_millis(CLOSING_MS), seen: false, flushed: false };
        let machine = Self {
            services: Arc::from([]),
            stop_timeout_ms: 0,
            graph: Graph::default(),
            state: LauncherState { stage: EndStage::Closing(closing), ..LauncherState::default() },
            jitter: Jitter::new(0),
        };
        (machine, vec![Action::Log { id: None, line }, Action::Conclude])
    }

    /// The state that must survive a crash of the supervisor.
    #[must_use]
    pub const fn state(&self) -> &LauncherState {
        &self.state
    }

    /// The enclave's state as reported to the host.
    #[must_use]
    pub fn enclave(&self) -> Enclave {
        self.state.enclave(&self.services)
    }

    /// Every service's status as reported to the host.
    #[must_use]
    pub fn statuses(&self) -> Vec<ServiceStatus> {
        let units = self.state.units.iter().zip(self.services.iter());
        units.map(|(unit, service)| unit.status(service)).collect()
    }

    /// The next moment at which [`Event::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let units = self.state.units.iter().filter_map(Unit::deadline);
        units.chain(self.state.stage.deadline()).chain(self.state.recovering).min()
    }

    /// The service of this name.
    pub fn find(&self, name: &str) -> Result<Id, RequestError> {
        let place = self.services.iter().position(|s| s.name == name);
        place
            .and_then(|p| u16::try_from(p).ok())
            .map(Id)
            .ok_or_else(|| RequestError::Unknown(name.to_owned()))
    }

    /// Whether services can still be started and stopped on request.
    pub fn accepts_requests(&self) -> Result<(), RequestError> {
        if self.state.stage == EndStage::Running { Ok(()) } else { Err(RequestError::Ending) }
    }

    /// The main process of a service, if it has one.
    pub fn pid(&self, id: Id) -> Result<u32, RequestError> {
        let name = || self.services.get(id.index()).map(|s| s.name.clone()).unwrap_or_default();
        self.unit(id).and_then(|u| u.pid).ok_or_else(|| RequestError::NotRunning(name()))
    }

    /// Whether init was requested to power off.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        matches!(self.state.stage, EndStage::Off(_))
    }

    /// Whether the state is final and waits to be read.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        matches!(self.state.stage, EndStage::Closing(_))
    }

    /// The number of the service's current run.
    #[must_use]
    pub fn run(&self, id: Id) -> Option<u32> {
        self.unit(id).filter(|u| u.is_running()).map(|u| u.run)
    }

    /// Handles `event` and returns the actions.
    #[must_use]
    pub fn on(&mut self, event: Event, now: Moment) -> Vec<Action> {
        let mut out = Vec::new();
        self.take(event, now, &mut out);
        self.settle(now, &mut out);
        while let Some((id, note)) = self.next_early() {
            self.with(id, now, &mut out, |u, cx| u.handle_early(cx, note));
            self.settle(now, &mut out);
        }
        out
    }

    /// The next notification that a service sent before its start was reported, now that it has been.
    fn next_early(&mut self) -> Option<(Id, Early)> {
        let units = self.graph.ids().zip(&mut self.state.units);
        units.into_iter().find_map(|(id, unit)| unit.next_early().map(|note| (id, note)))
    }

    fn take(&mut self, event: Event, now: Moment, out: &mut Vec<Action>) {
        match event {
            Event::Tick => self.tick(now, out),
            Event::Adopt(held) => self.adopt(&held, now, out),
            Event::Spawned { id, pid, at } => self.with(id, now, out, |u, cx| u.spawned(cx, pid, at)),
            Event::SpawnFailed { id, retry, error } => {
                self.with(id, now, out, |u, cx| u.spawn_failed(cx, retry, error));
            }
            Event::Exited { id, pid, exit, at } => {
                self.with(id, now, out, |u, cx| u.exited(cx, pid, exit, at));
            }
            Event::Emptied { id } => self.with(id, now, out, Unit::emptied),
            Event::ProbeFailed { id, run, why } => {
                self.with_run(id, run, now, out, |u, _| u.probe_failed(why));
            }
            Event::Ready { id, run } => self.with_run(id, run, now, out, Unit::ready),
            Event::Checked { id, run, verdict } => {
                self.with_run(id, run, now, out, |u, cx| u.checked(cx, verdict));
            }
            Event::WatchdogPing { id } => self.with(id, now, out, Unit::watchdog_ping),
            Event::Leaving { id } => self.with(id, now, out, Unit::leaving),
            Event::Text { id, text } => self.with(id, now, out, |u, _| u.text = Some(text)),
            Event::Requested { id, verb } => self.requested(id, verb, now, out),
            Event::Stop { why } => self.stop_requested(why, now, out),
            Event::DrainRequested => self.drain_requested(out),
            Event::Drained => self.drained(now),
            Event::StatusSent => self.state.recovering = None,
            Event::Seen => self.closing(|c| c.seen = true),
            Event::Flushed => self.closing(|c| c.flushed = true),
        }
    }

    fn tick(&mut self, now: Moment, out: &mut Vec<Action>) {
        self.state.recovering = self.state.recovering.filter(|until| *until > now);
        for id in self.graph.ids() {
            self.with(id, now, out, Unit::tick);
        }
    }

    /// Applies a function to one unit.
    pub(super) fn with<F>(&mut self, id: Id, now: Moment, out: &mut Vec<Action>, act: F)
    where
        F: FnOnce(&mut Unit, &mut Context<'_>),
    {
        let service = self.services.get(id.index());
        if let (Some(unit), Some(service)) = (self.state.units.get_mut(id.index()), service) {
            act(unit, &mut Context { id, service, now, jitter: &mut self.jitter, out });
        }
    }

    fn with_run<F>(&mut self, id: Id, run: u32, now: Moment, out: &mut Vec<Action>, act: F)
    where
        F: FnOnce(&mut Unit, &mut Context<'_>),
    {
        if self.unit(id).is_some_and(|u| u.run == run) {
            self.with(id, now, out, act);
        }
    }

    pub(super) fn unit(&self, id: Id) -> Option<&Unit> {
        self.state.units.get(id.index())
    }

    pub(super) fn unit_mut(&mut self, id: Id) -> Option<&mut Unit> {
        self.state.units.get_mut(id.index())
    }

    fn requested(&mut self, id: Id, verb: Verb, now: Moment, out: &mut Vec<Action>) {
        if self.state.stage != EndStage::Running {
            return;
        }
        match verb {
            Verb::Stop => {
                for each in self.graph.requirers(id) {
                    self.with(each, now, out, |u, _| u.unwanted = true);
                }
            }
            Verb::Start => {
                for each in self.graph.requirements(id) {
                    self.with(each, now, out, Unit::request_start);
                }
            }
            Verb::Restart => self.with(id, now, out, Unit::request_restart),
        }
    }

    /// Applies the rules between units, and those of the stage, until none applies.
    fn settle(&mut self, now: Moment, out: &mut Vec<Action>) {
        loop {
            let mut moved = false;
            for id in self.graph.ids() {
                moved |= self.settle_one(id, now, out);
            }
            moved |= self.settle_stage(now, out);
            if !moved {
                break;
            }
        }
        self.state.started |= self.state.is_settled(&self.services);
    }

    fn settle_one(&mut self, id: Id, now: Moment, out: &mut Vec<Action>) -> bool {
        let Some(unit) = self.unit(id) else { return false };
        let (stage, unwanted) = (unit.stage, unit.unwanted);
        let is_wanted = !unwanted && !matches!(stage, Stage::Ended(_));
        if let Some(root) = self.lost(id).filter(|_| is_wanted) {
            return self.mark_lost(id, root);
        }
        match stage {
            Stage::Waiting | Stage::BackingOff(_) if unwanted => {
                let end =
                    self.unit(id).and_then(|u| u.lost_dependency).map_or(End::Stopped, End::LostDependency);
                self.with(id, now, out, |u, cx| u.enter(Stage::Ended(end), cx.now));
                true
            }
            Stage::Waiting if self.may_start(id) => {
                self.with(id, now, out, Unit::start);
                true
            }
            Stage::Starting(_) | Stage::Ready if unwanted && self.may_stop(id) => {
                self.with(id, now, out, Unit::stop);
                true
            }
            _ => false,
        }
    }

    /// Marks `id` as unwanted, because `root` has ended permanently.
    fn mark_lost(&mut self, id: Id, root: Id) -> bool {
        let stopped = self.unit(root).and_then(Unit::end) == Some(End::Stopped);
        self.unit_mut(id).is_some_and(|unit| {
            unit.unwanted = true;
            unit.lost_dependency = (!stopped).then_some(root);
            true
        })
    }

    /// The root cause, if a service that `id` requires has ended permanently.
    fn lost(&self, id: Id) -> Option<Id> {
        let gone = self.graph.requires(id).iter().copied().find(|on| self.is_gone(*on))?;
        match self.unit(gone).and_then(Unit::end) {
            Some(End::LostDependency(root)) => Some(root),
            _ => Some(gone),
        }
    }

    fn is_gone(&self, id: Id) -> bool {
        let is_job = self.services.get(id.index()).is_some_and(|s| s.kind == Kind::Job);
        match self.unit(id).and_then(Unit::end) {
            None => false,
            Some(end) => !(is_job && end == End::Done),
        }
    }

    fn may_start(&self, id: Id) -> bool {
        let is_up =
            |on: &Id| self.unit(*on).is_some_and(|u| matches!(u.stage, Stage::Ready | Stage::Ended(_)));
        self.state.stage == EndStage::Running && self.graph.after(id).iter().all(is_up)
    }

    fn may_stop(&self, id: Id) -> bool {
        let holds = |on: &Id| self.unit(*on).is_some_and(|u| u.unwanted && u.is_running());
        !self.graph.dependents(id).iter().any(holds)
    }
}
