//! Servants: small programs of ours that run beside the services, each confined to what it needs.
//!
//! Its law: what a servant does is its [`Duty`]; how it is started, restarted, adopted after a crash of the supervisor and shown
//! is the same for all and is here. A servant is no service: it decides nothing over the enclave's end and is in no manifest.
//! `docs/servants.md` says how to add one.
//!
//! | module | job |
//! |---|---|
//! | `life` | when it is started again; pure |
//! | [`gateway`] | the duty of the gateway |
//! | `pace` | what a servant may send in which time |

pub(crate) mod gateway;
mod life;
mod pace;

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
use life::{Act, Life};

/// What sets a servant's name apart from a service's.
const MARK: char = '@';

/// `SIGKILL` of `signal(7)`.
const KILL: u8 = 9;

/// Events of all servants that wait for their turn.
const EVENTS: usize = 16;

/// What one servant is for. Its methods are called from turns of the supervisor and wait for nothing.
pub(crate) trait Duty: Send {
    /// Its name, which begins with `@`.
    fn name(&self) -> &'static str;

    /// What init is to run, with the descriptors that it gets.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    fn order(&self) -> io::Result<(Spawn, Vec<OwnedFd>)>;

    /// It runs, since now or since before this supervisor: it is to be told all that it has to know.
    fn begins(&self);

    /// Its process is gone, or was when this supervisor began.
    fn ended(&self);

    /// A service runs in another cgroup than before, or in none.
    fn owners_changed(&self);

    /// It is to take nothing new.
    fn drain(&self);

    /// Whether it has nothing left to do since it was drained.
    fn empty(&self) -> watch::Receiver<bool>;

    /// Brings what is shown of it up to date, and does not wait long for that.
    fn refresh(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// What its duty keeps across crashes of the supervisor.
    fn keep(&self) -> Value;
}

/// What a duty's own tasks tell.
#[derive(Debug)]
pub(crate) enum Event {
    /// The servant of this name serves.
    Ready(&'static str),
    /// It sent what it must not.
    Misbehaved(&'static str, String),
}

/// What is kept of a servant across crashes of the supervisor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    life: Life,
    pub(crate) duty: Value,
}

/// Where duties tell, and where that is heard.
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
    /// What is to be done about each when services may start.
    at_start: Vec<(usize, Vec<Act>)>,
}

struct Servant {
    id: Id,
    life: Life,
    duty: Box<dyn Duty>,
}

impl std::fmt::Debug for Servants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list.iter().map(|servant| (servant.duty.name(), &servant.life))).finish()
    }
}

impl Servants {
    /// Those with these duties, whose logs are numbered from `first` on, as they were left.
    pub(crate) fn resume(
        duties: Vec<Box<dyn Duty>>,
        first: usize,
        kept: &BTreeMap<String, Kept>,
        outbox: Outbox,
        logs: Shared,
        movers: Movers,
    ) -> Self {
        let numbers = (first..).filter_map(|number| u16::try_from(number).ok());
        let servant = |(duty, number): (Box<dyn Duty>, u16)| {
            let life = kept.get(duty.name()).map(|kept| kept.life.clone()).unwrap_or_default();
            Servant { id: Id(number), life, duty }
        };
        let list = duties.into_iter().zip(numbers).map(servant).collect();
        Self { list, outbox, logs, movers, changed: true, at_start: Vec::new() }
    }

    /// Whether this is the name of a servant.
    pub(crate) fn is_name(name: &str) -> bool {
        name.starts_with(MARK)
    }

    /// Takes over what init holds of them. What does not run is started with [`Self::start`].
    pub(crate) fn adopt(&mut self, held: &[Held], pipes: &mut BTreeMap<String, Vec<OwnedFd>>) {
        for index in 0..self.list.len() {
            let Some(servant) = self.list.get_mut(index) else { return };
            let name = servant.duty.name();
            let holding = held.iter().find(|held| held.name == name);
            if let Some(pipes) = pipes.remove(name).filter(|pipes| !pipes.is_empty()) {
                start_movers(&mut self.movers, &self.logs, servant.id, pipes);
            }
            match holding {
                Some(held) if held.fds > 0 && held.ended.is_none() => servant.duty.begins(),
                _ => servant.duty.ended(),
            }
            let acts = servant.life.adopt(holding, Moment::now());
            self.at_start.push((index, acts));
        }
    }

    /// Starts those that do not run.
    pub(crate) fn start(&mut self) {
        for (index, acts) in std::mem::take(&mut self.at_start) {
            self.perform(index, acts);
        }
    }

    /// Takes what init says about one of them.
    pub(crate) fn heard(&mut self, name: &str, incoming: Incoming) {
        let Some(index) = self.index(name) else { return };
        let Some(servant) = self.list.get_mut(index) else { return };
        let now = Moment::now();
        let acts = match incoming.message {
            FromInit::Spawned { pid, .. } => {
                if !self.movers.drains(servant.id) {
                    start_movers(&mut self.movers, &self.logs, servant.id, incoming.fds);
                }
                servant.duty.begins();
                servant.life.spawned(pid, now)
            }
            FromInit::SpawnFailed { error, .. } => servant.life.spawn_failed(&error, now),
            FromInit::Exited(ended) => {
                servant.duty.ended();
                servant.life.exited(ended.exit, now)
            }
            FromInit::Emptied { .. } => servant.life.emptied(now),
            _ => Vec::new(),
        };
        self.perform(index, acts);
    }

    /// Takes what a duty tells.
    pub(crate) fn told(&mut self, event: Event) {
        let (Event::Ready(name) | Event::Misbehaved(name, _)) = &event;
        let Some(index) = self.index(name) else { return };
        let Some(servant) = self.list.get_mut(index) else { return };
        let acts = match event {
            Event::Ready(_) => {
                servant.life.ready(Moment::now());
                Vec::new()
            }
            Event::Misbehaved(_, why) => servant.life.misbehaved(&why, Moment::now()),
        };
        self.perform(index, acts);
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self) {
        for index in 0..self.list.len() {
            let acts = self.list.get_mut(index).map(|servant| servant.life.tick(Moment::now()));
            self.perform(index, acts.unwrap_or_default());
        }
    }

    /// When something is due.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        self.list.iter().filter_map(|servant| servant.life.deadline()).min()
    }

    /// A service runs in another cgroup than before, or in none.
    pub(crate) fn owners_changed(&self) {
        self.list.iter().for_each(|servant| servant.duty.owners_changed());
    }

    /// None is to take anything new.
    pub(crate) fn drain(&self) {
        self.list.iter().for_each(|servant| servant.duty.drain());
    }

    /// Waits until none has anything left to do since it was drained.
    pub(crate) fn empty(&self) -> impl Future<Output = ()> + Send + use<> {
        let all: Vec<_> = self.list.iter().map(|servant| servant.duty.empty()).collect();
        async move {
            for mut empty in all {
                // A duty that is gone has nothing left to do.
                drop(empty.wait_for(|empty| *empty).await);
            }
        }
    }

    /// Brings what is shown of them up to date.
    pub(crate) fn refresh(&self) -> impl Future<Output = ()> + Send + use<> {
        let all: Vec<_> = self.list.iter().map(|servant| servant.duty.refresh()).collect();
        async move {
            for refreshed in all {
                refreshed.await;
            }
        }
    }

    /// As the host reads them.
    pub(crate) fn statuses(&self) -> Vec<ServiceStatus> {
        self.list.iter().map(|servant| servant.life.status(servant.duty.name())).collect()
    }

    /// What is amiss, for people.
    pub(crate) fn trouble(&self) -> Option<String> {
        let sentence = |servant: &Servant| {
            let trouble = servant.life.trouble()?;
            Some(format!("{} {trouble}", servant.duty.name()))
        };
        let all: Vec<String> = self.list.iter().filter_map(sentence).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Their names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.list.iter().map(|servant| servant.duty.name().to_owned()).collect()
    }

    /// The process of the one of this name, while it has one.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        self.list.get(self.index(name)?)?.life.pid()
    }

    /// What a successor of this supervisor has to know.
    pub(crate) fn keep(&self) -> BTreeMap<String, Kept> {
        let kept = |servant: &Servant| {
            let kept = Kept { life: servant.life.clone(), duty: servant.duty.keep() };
            (servant.duty.name().to_owned(), kept)
        };
        self.list.iter().map(kept).collect()
    }

    /// Whether something about them has changed since the last time this was asked.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|servant| servant.duty.name() == name)
    }

    fn perform(&mut self, index: usize, acts: Vec<Act>) {
        self.changed = true;
        let Some(servant) = self.list.get(index) else { return };
        let (id, name) = (servant.id, servant.duty.name().to_owned());
        for act in acts {
            match act {
                Act::Spawn => self.spawn(index),
                Act::Kill => {
                    self.send(&FromSupervisor::Signal {
                        name: name.clone(),
                        signal: KILL,
                        to: SignalTarget::Cgroup,
                    });
                }
                Act::Forget => {
                    self.movers.finish(id);
                    self.send(&FromSupervisor::Forget { name: name.clone() });
                }
                Act::Say(line) => self.logs.say(Some(id), &line),
            }
        }
    }

    fn spawn(&mut self, index: usize) {
        let Some(servant) = self.list.get_mut(index) else { return };
        let name = servant.duty.name().to_owned();
        let asked = servant.duty.order().and_then(|(spec, fds)| {
            let message = FromSupervisor::Spawn { name, spec: Box::new(spec) };
            self.outbox.send_with(&message, fds).map_err(io::Error::other)
        });
        if let Err(error) = asked {
            // It can only lead to a pause, not to another start.
            let acts = servant.life.spawn_failed(&error.to_string(), Moment::now());
            self.perform(index, acts);
        }
    }

    fn send(&self, message: &FromSupervisor) {
        // Names are short: no such message is too long.
        self.outbox.send_with(message, Vec::new()).unwrap_or_default();
    }
}

fn start_movers(movers: &mut Movers, logs: &Shared, id: Id, pipes: Vec<OwnedFd>) {
    if let Err(error) = movers.start(id, pipes, true, None) {
        logs.say(Some(id), &format!("its output cannot be read: {error}"));
    }
}
