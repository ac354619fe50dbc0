//! The state machine: events in, actions out.
//!
//! Its law: [`Launcher::on`] first lets the units concerned move, then applies the rules between units until none applies
//! any more. A rule only ever moves a unit or the stage forward, so that always ends.

use std::sync::Arc;

use cloister_manifest::model::{Kind, Manifest, Service};
use cloister_wire::control::{ServiceStatus, State as Enclave, Verb};

use super::backoff::Jitter;
use super::event::{Action, Ask, Event, Id};
use super::graph::{Graph, GraphError};
use super::life::Context;
use super::stage::{CLOSING_MS, Closing, EndStage};
use super::state::LauncherState;
use super::unit::{Early, End, Life, Unit};
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
    /// A launcher for `manifest`, going on from `state` if a supervisor before this one left it. `seed` is for jitter.
    pub fn new(manifest: &Manifest, state: Option<LauncherState>, seed: u64) -> Result<Self, GraphError> {
        let services: Arc<[Service]> = manifest.services.clone().into();
        let graph = Graph::new(&services)?;
        let mut state = state.unwrap_or_default();
        state.units.resize_with(services.len(), Unit::default);
        let stop_timeout_ms = manifest.stop_timeout_ms;
        Ok(Self { services, stop_timeout_ms, graph, state, jitter: Jitter::new(seed) })
    }

    /// A launcher that launches nothing: the enclave cannot go on, and says so.
    #[must_use]
    pub fn doomed(part: &str, error: String, now: Moment) -> (Self, Vec<Action>) {
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
        (machine, vec![Action::Say { id: None, line }, Action::Conclude])
    }

    /// What must survive a crash of the supervisor.
    #[must_use]
    pub const fn state(&self) -> &LauncherState {
        &self.state
    }

    /// The enclave's state as the host reads it.
    #[must_use]
    pub fn enclave(&self) -> Enclave {
        self.state.enclave(&self.services)
    }

    /// Every service as the host reads it.
    #[must_use]
    pub fn statuses(&self) -> Vec<ServiceStatus> {
        let units = self.state.units.iter().zip(self.services.iter());
        units.map(|(unit, service)| unit.status(service)).collect()
    }

    /// The next moment at which [`Event::Tick`] must be told.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let units = self.state.units.iter().filter_map(Unit::deadline);
        units.chain(self.state.stage.deadline()).chain(self.state.recovering).min()
    }

    /// The service of this name.
    pub fn find(&self, name: &str) -> Result<Id, Ask> {
        let place = self.services.iter().position(|s| s.name == name);
        place.and_then(|p| u16::try_from(p).ok()).map(Id).ok_or_else(|| Ask::Unknown(name.to_owned()))
    }

    /// Whether services can still be started and stopped by hand.
    pub fn may_be_asked(&self) -> Result<(), Ask> {
        if self.state.stage == EndStage::Running { Ok(()) } else { Err(Ask::Ending) }
    }

    /// The main process of a service, while it has one.
    pub fn pid(&self, id: Id) -> Result<u32, Ask> {
        let name = || self.services.get(id.index()).map(|s| s.name.clone()).unwrap_or_default();
        self.unit(id).and_then(|u| u.pid).ok_or_else(|| Ask::NotRunning(name()))
    }

    /// Whether nothing is left to decide.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        matches!(self.state.stage, EndStage::Off(_))
    }

    /// Whether the state is final and waits to be read.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        matches!(self.state.stage, EndStage::Closing(_))
    }

    /// Which spawn of the service runs now.
    #[must_use]
    pub fn run(&self, id: Id) -> Option<u32> {
        self.unit(id).filter(|u| u.is_running()).map(|u| u.run)
    }

    /// Takes note of `event` and says what is to be done.
    #[must_use]
    pub fn on(&mut self, event: Event, now: Moment) -> Vec<Action> {
        let mut out = Vec::new();
        self.take(event, now, &mut out);
        self.settle(now, &mut out);
        while let Some((id, note)) = self.next_early() {
            self.with(id, now, &mut out, |u, cx| u.hear(cx, note));
            self.settle(now, &mut out);
        }
        out
    }

    /// The next thing that a service said before its start was reported, which has been reported now.
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
            Event::Missed { id, run, why } => self.with_run(id, run, now, out, |u, _| u.missed(why)),
            Event::Ready { id, run } => self.with_run(id, run, now, out, Unit::ready),
            Event::Checked { id, run, verdict } => {
                self.with_run(id, run, now, out, |u, cx| u.checked(cx, verdict));
            }
            Event::Petted { id } => self.with(id, now, out, Unit::petted),
            Event::Leaving { id } => self.with(id, now, out, Unit::leaving),
            Event::Text { id, text } => self.with(id, now, out, |u, _| u.text = Some(text)),
            Event::Asked { id, verb } => self.asked(id, verb, now, out),
            Event::Stop { why } => self.stop_asked(why, now, out),
            Event::DrainAsked => self.drain_asked(out),
            Event::Drained => self.drained(now),
            Event::Told => self.state.recovering = None,
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

    /// Does something to one unit.
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

    fn asked(&mut self, id: Id, verb: Verb, now: Moment, out: &mut Vec<Action>) {
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
                    self.with(each, now, out, Unit::want);
                }
            }
            Verb::Restart => self.with(id, now, out, Unit::start_again),
        }
    }

    /// Applies the rules between units, and those of the stage, until none applies any more.
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
        let (life, unwanted) = (unit.life, unit.unwanted);
        let may_lose = !unwanted && !matches!(life, Life::Ended(_));
        if let Some(root) = self.lost(id).filter(|_| may_lose) {
            return self.abandon(id, root);
        }
        match life {
            Life::Waiting | Life::BackingOff(_) if unwanted => {
                let end = self.unit(id).and_then(|u| u.lost).map_or(End::Stopped, End::Bereft);
                self.with(id, now, out, |u, cx| u.enter(Life::Ended(end), cx.now));
                true
            }
            Life::Waiting if self.may_start(id) => {
                self.with(id, now, out, Unit::start);
                true
            }
            Life::Starting(_) | Life::Ready if unwanted && self.may_stop(id) => {
                self.with(id, now, out, Unit::stop);
                true
            }
            _ => false,
        }
    }

    /// Nobody can want `id` any more, because `root` ended for good.
    fn abandon(&mut self, id: Id, root: Id) -> bool {
        let stopped = self.unit(root).and_then(Unit::end) == Some(End::Stopped);
        self.unit_mut(id).is_some_and(|unit| {
            unit.unwanted = true;
            unit.lost = (!stopped).then_some(root);
            true
        })
    }

    /// What `id` requires and has lost for good: the service whose own end was the cause.
    fn lost(&self, id: Id) -> Option<Id> {
        let gone = self.graph.requires(id).iter().copied().find(|on| self.is_gone(*on))?;
        match self.unit(gone).and_then(Unit::end) {
            Some(End::Bereft(root)) => Some(root),
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
        let is_up = |on: &Id| self.unit(*on).is_some_and(|u| matches!(u.life, Life::Ready | Life::Ended(_)));
        self.state.stage == EndStage::Running && self.graph.after(id).iter().all(is_up)
    }

    fn may_stop(&self, id: Id) -> bool {
        let holds = |on: &Id| self.unit(*on).is_some_and(|u| u.unwanted && u.is_running());
        !self.graph.dependents(id).iter().any(holds)
    }
}
