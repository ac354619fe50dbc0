//! Servants: Cloister's small programs that run beside the services, each confined to what it needs.
//!
//! Invariant: what a servant does is its [`Duty`]; how it is started, restarted, adopted after a crash of the
//! supervisor and reported is the same for all and is here. A servant is not a service: it is in no manifest, and its
//! exit never ends the enclave. `docs/servants.md` explains how to add one.
//!
//! | module | job |
//! |---|---|
//! | `lifecycle` | starts and restarts; pure |
//! | [`attestor`] | the duty of the attestor |
//! | `confirm` | whether a servant serves |
//! | [`gateway`] | the duty of the gateway |
//! | `rate_limit` | how much a servant may send |
//! | [`terminator`] | the duty of the terminator |

pub(crate) mod attestor;
mod confirm;
pub(crate) mod gateway;
mod lifecycle;
mod rate_limit;
pub(crate) mod terminator;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;

use cloister_wire::control::ServiceStatus;
use cloister_wire::hold::{FromInit, FromSupervisor, Held, SignalTarget, Spawn};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::clock::Moment;
use crate::hold::{Incoming, Outbox};
use crate::launcher::Id;
use crate::logs::{Movers, Shared};
use lifecycle::{Action, Lifecycle};

/// The first character of a servant's name, which no service name has.
const MARK: char = '@';

/// `SIGKILL` of `signal(7)`.
const KILL: u8 = 9;

/// Queued events of all servants.
const EVENTS: usize = 16;

/// What is specific to one servant. Its methods are called from turns of the supervisor and never block.
pub(crate) trait Duty: Send {
    /// Its name, which begins with `@`.
    fn name(&self) -> &'static str;

    /// The request to init to start it, with the descriptors that it gets.
    ///
    /// # Errors
    /// If the system has no descriptors left.
    fn spawn_request(&self) -> io::Result<(Spawn, Vec<OwnedFd>)>;

    /// It runs, either newly or since before this supervisor: it must be sent everything that it needs.
    fn started(&self);

    /// Its process has exited, or did not exist when this supervisor started.
    fn ended(&self);

    /// The cgroup of a service has changed.
    fn owners_changed(&self) {}

    /// It must accept no new work.
    fn drain(&self) {}

    /// Whether it has completed its work since it was drained.
    fn empty(&self) -> watch::Receiver<bool>;

    /// Updates its reported values, within a short time.
    fn refresh(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }

    /// The duty's state that survives crashes of the supervisor.
    fn saved(&self) -> Value {
        Value::Null
    }
}

/// Events from a duty's own tasks.
#[derive(Debug)]
pub(crate) enum Event {
    /// The servant of this name serves.
    Ready(&'static str),
    /// It sent an invalid message.
    Misbehaved(&'static str, String),
}

/// A servant's state that survives crashes of the supervisor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Saved {
    lifecycle: Lifecycle,
    pub(crate) duty: Value,
}

/// The channel for events from duties.
pub(crate) fn events() -> (mpsc::Sender<Event>, mpsc::Receiver<Event>) {
    mpsc::channel(EVENTS)
}

/// All servants of this enclave.
pub(crate) struct Servants {
    list: Vec<Servant>,
    outbox: Outbox,
    logs: Shared,
    movers: Movers,
    changed: bool,
    /// The actions for each when services may start.
    at_start: Vec<(usize, Vec<Action>)>,
}

struct Servant {
    id: Id,
    lifecycle: Lifecycle,
    duty: Box<dyn Duty>,
}

impl std::fmt::Debug for Servants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.list.iter().map(|servant| (servant.duty.name(), &servant.lifecycle)))
            .finish()
    }
}

impl Servants {
    /// The servants with these duties and their `saved` states, whose logs are numbered from `first` on.
    pub(crate) fn resume(
        duties: Vec<Box<dyn Duty>>,
        first: usize,
        saved: &BTreeMap<String, Saved>,
        outbox: Outbox,
        logs: Shared,
        movers: Movers,
    ) -> Self {
        let numbers = (first..).filter_map(|number| u16::try_from(number).ok());
        let servant = |(duty, number): (Box<dyn Duty>, u16)| {
            let lifecycle = saved.get(duty.name()).map(|saved| saved.lifecycle.clone()).unwrap_or_default();
            Servant { id: Id(number), lifecycle, duty }
        };
        let list = duties.into_iter().zip(numbers).map(servant).collect();
        Self { list, outbox, logs, movers, changed: true, at_start: Vec::new() }
    }

    /// Whether this is the name of a servant.
    pub(crate) fn is_name(name: &str) -> bool {
        name.starts_with(MARK)
    }

    /// Takes over the servants that init holds. [`Self::start`] starts the others.
    pub(crate) fn adopt(&mut self, held: &[Held], pipes: &mut BTreeMap<String, Vec<OwnedFd>>) {
        for index in 0..self.list.len() {
            let Some(servant) = self.list.get_mut(index) else { return };
            let name = servant.duty.name();
            let holding = held.iter().find(|held| held.name == name);
            if let Some(pipes) = pipes.remove(name).filter(|pipes| !pipes.is_empty()) {
                start_movers(&mut self.movers, &self.logs, servant.id, pipes);
            }
            match holding {
                Some(held) if held.fds > 0 && held.ended.is_none() => servant.duty.started(),
                _ => servant.duty.ended(),
            }
            let acts = servant.lifecycle.adopt(holding, Moment::now());
            self.at_start.push((index, acts));
        }
    }

    /// Starts the servants that do not run.
    pub(crate) fn start(&mut self) {
        for (index, acts) in std::mem::take(&mut self.at_start) {
            self.perform(index, acts);
        }
    }

    /// Handles a report of init about one of them.
    pub(crate) fn handle_report(&mut self, name: &str, incoming: Incoming) {
        let Some(index) = self.index(name) else { return };
        let Some(servant) = self.list.get_mut(index) else { return };
        let now = Moment::now();
        let acts = match incoming.message {
            FromInit::Spawned { pid, .. } => {
                if !self.movers.drains(servant.id) {
                    start_movers(&mut self.movers, &self.logs, servant.id, incoming.fds);
                }
                servant.duty.started();
                servant.lifecycle.spawned(pid, now)
            }
            FromInit::SpawnFailed { error, .. } => servant.lifecycle.spawn_failed(&error, now),
            FromInit::Exited(ended) => {
                servant.duty.ended();
                servant.lifecycle.exited(ended.exit, now)
            }
            FromInit::Emptied { .. } => servant.lifecycle.emptied(now),
            _ => Vec::new(),
        };
        self.perform(index, acts);
    }

    /// Handles an event from a duty.
    pub(crate) fn handle_event(&mut self, event: Event) {
        let (Event::Ready(name) | Event::Misbehaved(name, _)) = &event;
        let Some(index) = self.index(name) else { return };
        let Some(servant) = self.list.get_mut(index) else { return };
        let acts = match event {
            Event::Ready(_) => {
                servant.lifecycle.ready(Moment::now());
                Vec::new()
            }
            Event::Misbehaved(_, why) => servant.lifecycle.misbehaved(&why, Moment::now()),
        };
        self.perform(index, acts);
    }

    /// Handles expired deadlines.
    pub(crate) fn tick(&mut self) {
        for index in 0..self.list.len() {
            let acts = self.list.get_mut(index).map(|servant| servant.lifecycle.tick(Moment::now()));
            self.perform(index, acts.unwrap_or_default());
        }
    }

    /// The next deadline.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        self.list.iter().filter_map(|servant| servant.lifecycle.deadline()).min()
    }

    /// The cgroup of a service has changed.
    pub(crate) fn owners_changed(&self) {
        self.list.iter().for_each(|servant| servant.duty.owners_changed());
    }

    /// Makes all refuse new work.
    pub(crate) fn drain(&self) {
        self.list.iter().for_each(|servant| servant.duty.drain());
    }

    /// Waits until all have completed their work since they were drained.
    pub(crate) fn empty(&self) -> impl Future<Output = ()> + Send + use<> {
        let all: Vec<_> = self.list.iter().map(|servant| servant.duty.empty()).collect();
        async move {
            for mut empty in all {
                // A duty that no longer exists has no work left.
                drop(empty.wait_for(|empty| *empty).await);
            }
        }
    }

    /// Updates their reported values.
    pub(crate) fn refresh(&self) -> impl Future<Output = ()> + Send + use<> {
        let all: Vec<_> = self.list.iter().map(|servant| servant.duty.refresh()).collect();
        async move {
            for refreshed in all {
                refreshed.await;
            }
        }
    }

    /// Their entries in the status.
    pub(crate) fn statuses(&self) -> Vec<ServiceStatus> {
        self.list.iter().map(|servant| servant.lifecycle.status(servant.duty.name())).collect()
    }

    /// Their problems, human-readable.
    pub(crate) fn problem(&self) -> Option<String> {
        let sentence = |servant: &Servant| {
            let problem = servant.lifecycle.problem()?;
            Some(format!("{} {problem}", servant.duty.name()))
        };
        let all: Vec<String> = self.list.iter().filter_map(sentence).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Their names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.list.iter().map(|servant| servant.duty.name().to_owned()).collect()
    }

    /// The process of the servant of this name, if it has one.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        self.list.get(self.index(name)?)?.lifecycle.pid()
    }

    /// The state for a successor of this supervisor.
    pub(crate) fn saved(&self) -> BTreeMap<String, Saved> {
        let saved = |servant: &Servant| {
            let saved = Saved { lifecycle: servant.lifecycle.clone(), duty: servant.duty.saved() };
            (servant.duty.name().to_owned(), saved)
        };
        self.list.iter().map(saved).collect()
    }

    /// Whether anything about them has changed since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|servant| servant.duty.name() == name)
    }

    fn perform(&mut self, index: usize, acts: Vec<Action>) {
        self.changed = true;
        let Some(servant) = self.list.get(index) else { return };
        let (id, name) = (servant.id, servant.duty.name().to_owned());
        for act in acts {
            match act {
                Action::Spawn => self.spawn(index),
                Action::Kill => {
                    self.send(&FromSupervisor::Signal {
                        name: name.clone(),
                        signal: KILL,
                        to: SignalTarget::Cgroup,
                    });
                }
                Action::Release => {
                    self.movers.finish(id);
                    self.send(&FromSupervisor::Forget { name: name.clone() });
                }
                Action::Log(line) => self.logs.log(Some(id), &line),
            }
        }
    }

    fn spawn(&mut self, index: usize) {
        let Some(servant) = self.list.get_mut(index) else { return };
        let name = servant.duty.name().to_owned();
        let requested = servant.duty.spawn_request().and_then(|(spec, fds)| {
            let message = FromSupervisor::Spawn { name, spec: Box::new(spec) };
            self.outbox.send_with(&message, fds).map_err(io::Error::other)
        });
        if let Err(error) = requested {
            // A failed start always leads to a pause, never to an immediate start.
            let acts = servant.lifecycle.spawn_failed(&error.to_string(), Moment::now());
            self.perform(index, acts);
        }
    }

    fn send(&self, message: &FromSupervisor) {
        // Names are short, so no such message is too long.
        self.outbox.send_with(message, Vec::new()).unwrap_or_default();
    }
}

fn start_movers(movers: &mut Movers, logs: &Shared, id: Id, pipes: Vec<OwnedFd>) {
    if let Err(error) = movers.start(id, pipes, true, None) {
        logs.log(Some(id), &format!("cannot read its output: {error}"));
    }
}
