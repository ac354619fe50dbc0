//! Performs the launcher's actions.
//!
//! Invariant: nothing is decided here and nothing blocks: a message is queued, or a task is started or aborted.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloister_manifest::model::{FirstProcess, Logs, Ready, Service};
use cloister_wire::control::Confinement;
use cloister_wire::hold::FromSupervisor;

use super::CoreError;
use super::turn::Core;
use crate::clock::Moment;
use crate::confine;
use crate::launcher::{Action, Event, Id, Retry};
use crate::logs::TextWatch;
use crate::probe::{self, Roots, Subject};
use crate::status;
use crate::world::Paths;

impl Core {
    pub(super) fn perform(&mut self, action: Action) -> Result<(), CoreError> {
        match action {
            Action::Spawn { id, .. } => self.spawn(id)?,
            Action::Signal { id, signal, to } => {
                let name = self.name(id);
                self.hold.send(&FromSupervisor::Signal { name, signal, to })?;
            }
            Action::Release { id } => {
                self.movers.finish(id);
                let name = self.name(id);
                // The cgroup and its counters are removed with the holding. An out-of-memory kill always ends the whole
                // service.
                let killed = status::oom_kills(&self.paths.cgroups, &name);
                let before = self.oom_kills.entry(name.clone()).or_default();
                *before = before.saturating_add(killed);
                self.owners.gone(&name);
                self.servants.owners_changed();
                self.hold.send(&FromSupervisor::Forget { name })?;
            }
            Action::Probe { id, run, .. } => self.probe(id, run),
            Action::Watch { id, run } => self.watch(id, run),
            Action::Unwatch { id } => self.unwatch(id),
            Action::Log { id, line } => self.logs.log(id, &line),
            Action::Drain => self.drain(),
            Action::Conclude => self.conclude(),
            Action::PowerOff { state } => self.hold.send(&FromSupervisor::PowerOff { state })?,
        }
        Ok(())
    }

    /// Starts draining a service's output. `since` is the start of a service that is taken over.
    pub(super) fn drain_pipes(&mut self, id: Id, pipes: Vec<OwnedFd>, since: Option<Moment>) {
        let Some(service) = self.services.get(id.index()) else { return };
        let stores = service.logs == Logs::Forward;
        let watch = self.text_watch(id, service, since);
        if let Err(error) = self.movers.start(id, pipes, stores, watch.as_ref()) {
            self.logs.log(Some(id), &format!("cannot read its output: {error}"));
        }
    }

    fn text_watch(&self, id: Id, service: &Service, since: Option<Moment>) -> Option<TextWatch> {
        let Ready::Log(text) = &service.ready else { return None };
        let run = self.machine.run(id)?;
        let events = self.events.clone();
        let found = move || events.send(Event::Ready { id, run }).unwrap_or_default();
        Some(TextWatch { text: text.clone(), since, found: Arc::new(found) })
    }

    fn spawn(&mut self, id: Id) -> Result<(), CoreError> {
        let Some(service) = self.services.get(id.index()) else { return Ok(()) };
        let failed = |retry, error| Event::SpawnFailed { id, retry, error };
        match (confine::spawn(service, &self.root), confine::hand_over(&service.sealed)) {
            (Ok(spec), Ok(fds)) => {
                let name = service.name.clone();
                self.hold.send_with(&FromSupervisor::Spawn { name, spec: Box::new(spec) }, fds)?;
            }
            (Err(error), _) => self.pending.push_back(failed(Retry::Never, error.to_string())),
            (_, Err(error)) => self.pending.push_back(failed(Retry::Soon, format!("sealed memory: {error}"))),
        }
        Ok(())
    }

    fn probe(&mut self, id: Id, run: u32) {
        let Some(service) = self.services.get(id.index()) else { return };
        let (ready, subject, events) =
            (service.ready.clone(), self.subject(id, service), self.events.clone());
        let task = tokio::spawn(async move {
            let failed = |why| events.send(Event::ProbeFailed { id, run, why }).unwrap_or_default();
            probe::ready(ready, subject, failed).await;
            events.send(Event::Ready { id, run }).unwrap_or_default();
        });
        self.probes.entry(id).or_default().push(task.abort_handle());
    }

    fn watch(&mut self, id: Id, run: u32) {
        let Some(service) = self.services.get(id.index()) else { return };
        let Some(live) = service.live.clone() else { return };
        let (subject, events) = (self.subject(id, service), self.events.clone());
        let report = move |verdict| events.send(Event::Checked { id, run, verdict }).unwrap_or_default();
        let task = tokio::spawn(probe::watch(live, subject, report));
        self.probes.entry(id).or_default().push(task.abort_handle());
    }

    fn unwatch(&mut self, id: Id) {
        for task in self.probes.remove(&id).unwrap_or_default() {
            task.abort();
        }
    }

    /// Makes the servants refuse new work, and sends [`Event::Drained`] when they are done.
    fn drain(&mut self) {
        self.servants.drain();
        let (empty, events) = (self.servants.empty(), self.events.clone());
        drop(tokio::spawn(async move {
            empty.await;
            events.send(Event::Drained).unwrap_or_default();
        }));
    }

    /// Flushes the log readers and the open connections, and sends [`Event::Flushed`] when they are done.
    fn conclude(&mut self) {
        self.readers.conclude();
        let (readers, empty, events) =
            (Arc::clone(&self.readers), self.servants.empty(), self.events.clone());
        drop(tokio::spawn(async move {
            readers.gone().await;
            empty.await;
            events.send(Event::Flushed).unwrap_or_default();
        }));
    }

    fn subject(&self, id: Id, service: &Service) -> Subject {
        Subject { service: service.name.clone(), owners: self.owners.clone(), roots: self.roots(id) }
    }

    /// The service's root as its main process sees it, then as init assembled it.
    fn roots(&self, id: Id) -> Roots {
        let own = self.machine.pid(id).ok().map(|pid| self.paths.proc.join(pid.to_string()).join("root"));
        Roots(own.into_iter().chain([self.paths.root.clone()]).collect())
    }

    pub(super) fn name(&self, id: Id) -> String {
        self.services.get(id.index()).map(|s| s.name.clone()).unwrap_or_default()
    }

    /// What confines a running servant.
    pub(super) fn inspect_servant(&self, name: &str, pid: u32) -> io::Result<Confinement> {
        let paths = Paths { cgroups: self.paths.servants.clone(), ..self.paths.clone() };
        status::inspect(&paths, name, pid)
    }

    /// What confines the program of a running service, whose process 1 is `pid`.
    pub(super) fn inspect(&self, id: Id, pid: u32) -> io::Result<Confinement> {
        let name = self.name(id);
        let has_first = |service: &Service| service.first_process == FirstProcess::Cloister;
        let is_below = self.services.get(id.index()).is_some_and(has_first);
        let pid = if is_below { status::program_below(&self.paths, &name, pid) } else { pid };
        status::inspect(&self.paths, &name, pid)
    }
}
