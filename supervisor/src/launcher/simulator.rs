//! A simulator for the launcher's tests: a minimal init, and a clock that tests advance.
//!
//! Invariant: it follows the hold protocol and refuses actions that violate it: spawning a service that is held,
//! releasing one that runs.

use std::collections::BTreeMap;

use cloister_manifest::model::{
    Attestation, Control, FirstProcess, Isolation, Kind, Limits, Logs, Manifest, Policy, Ready, Restart,
    Root, Service, VERSION,
};
use cloister_wire::control::{Cause, Exit, Phase, State as Enclave};
use cloister_wire::hold::{Ended, Held, SignalTarget};

use super::{Action, Event, Id, Launcher};
use crate::clock::Moment;

pub(super) fn service(name: &str) -> Service {
    Service {
        name: name.into(),
        kind: Kind::Service,
        argv: vec!["/bin/true".into()],
        env: BTreeMap::new(),
        cwd: "/".into(),
        first_process: FirstProcess::Cloister,
        uid: 0,
        gid: 0,
        groups: vec![],
        after: vec![],
        requires: vec![],
        ready: Ready::Started,
        start_timeout_ms: 1_000,
        live: None,
        restart: Restart {
            policy: Policy::OnFailure,
            delay_ms: 100,
            max_delay_ms: 1_000,
            stable_ms: 10_000,
            burst: 3,
        },
        critical: false,
        stop_signal: 15,
        stop_timeout_ms: 500,
        logs: Logs::Forward,
        limits: Limits { memory: None, cpu_millis: None, pids: None, open_files: 1024 },
        isolation: Isolation { capabilities: vec![], allow_syscalls: vec![], writable: None },
        files: vec![],
        sealed: BTreeMap::new(),
    }
}

pub(super) fn job(name: &str) -> Service {
    Service { kind: Kind::Job, ..service(name) }
}

pub(super) fn manifest(services: Vec<Service>) -> Manifest {
    Manifest {
        version: VERSION,
        name: "simulator".into(),
        platforms: cloister_manifest::Platform::ALL.to_vec(),
        services,
        ingress: vec![],
        root: Root { writable_bytes: 0, additions: Vec::new(), pinned: Vec::new() },
        control: Control { host: vec![], services: vec![] },
        attestation: Attestation::default(),
        stop_timeout_ms: 5_000,
        debug: false,
    }
}

/// The machine, its init and its clock.
pub(super) struct Simulator {
    pub(super) manifest: Manifest,
    pub(super) machine: Launcher,
    pub(super) now: Moment,
    pub(super) held: BTreeMap<String, Held>,
    /// The actions performed since it was last read.
    pub(super) done: Vec<Action>,
    pub(super) off: Option<Enclave>,
    /// Signals that were sent to services and not acted on yet.
    pub(super) signals: Vec<(String, u8)>,
    next_pid: u32,
}

impl Simulator {
    /// Starts the services.
    pub(super) fn new(services: Vec<Service>) -> Self {
        let manifest = manifest(services);
        let machine = Launcher::new(&manifest, None, 7).unwrap();
        let mut sim = Self {
            manifest,
            machine,
            now: Moment::from_millis(1),
            held: BTreeMap::new(),
            done: vec![],
            off: None,
            signals: vec![],
            next_pid: 100,
        };
        sim.on(Event::Adopt(vec![]));
        sim
    }

    pub(super) fn id(&self, name: &str) -> Id {
        self.machine.find(name).unwrap()
    }

    pub(super) fn on(&mut self, event: Event) {
        let actions = self.machine.on(event, self.now);
        for action in actions {
            self.perform(&action);
            self.done.push(action);
        }
    }

    fn name(&self, id: Id) -> String {
        self.manifest.services[id.index()].name.clone()
    }

    fn perform(&mut self, action: &Action) {
        match action {
            Action::Spawn { id, .. } => {
                let name = self.name(*id);
                assert!(!self.held.contains_key(&name), "{name} is spawned while it is held");
                assert_eq!(self.off, None, "{name} is spawned after power-off");
                let (pid, at_ns) = (self.next_pid, self.now.nanos());
                self.next_pid += 1;
                let held =
                    Held { name: name.clone(), pid, at_ns, ended: None, cgroup: 0, populated: true, fds: 0 };
                self.held.insert(name, held);
            }
            Action::Release { id } => {
                let name = self.name(*id);
                let held = self.held.remove(&name).unwrap_or_else(|| panic!("{name} is not held"));
                assert!(held.ended.is_some() && !held.populated, "{name} is released while it runs");
            }
            Action::Signal { id, signal, to } => {
                let name = self.name(*id);
                assert!(self.held.contains_key(&name), "{name} is signalled and not held");
                if *signal == 9 {
                    assert_eq!(*to, SignalTarget::Cgroup);
                }
                self.signals.push((name, *signal));
            }
            Action::PowerOff { state } => {
                assert_eq!(self.off, None, "powered off twice");
                self.off = Some(state.clone());
            }
            _ => {}
        }
    }

    /// The service has executed its program, and init has not reported it: its next welcome does.
    pub(super) fn executed(&mut self, name: &str) {
        self.held.get_mut(name).unwrap().fds = 2;
    }

    /// Init reports that it started the service.
    pub(super) fn spawned(&mut self, name: &str) {
        self.executed(name);
        let held = self.held[name].clone();
        self.on(Event::Spawned { id: self.id(name), pid: held.pid, at: Moment::from_nanos(held.at_ns) });
    }

    /// The main process exits; others of its cgroup may continue.
    pub(super) fn exits(&mut self, name: &str, exit: Exit) {
        let at_ns = self.now.nanos();
        let held = self.held.get_mut(name).unwrap();
        let ended = Ended { name: name.into(), pid: held.pid, exit: exit.clone(), at_ns };
        held.ended = Some(ended);
        let pid = held.pid;
        self.on(Event::Exited { id: self.id(name), pid, exit, at: self.now });
    }

    /// The cgroup empties.
    pub(super) fn empties(&mut self, name: &str) {
        self.held.get_mut(name).unwrap().populated = false;
        self.on(Event::Emptied { id: self.id(name) });
    }

    /// All its processes exit.
    pub(super) fn ends(&mut self, name: &str, code: u8) {
        self.vanishes(name, Exit::Code(code));
    }

    /// It is killed.
    pub(super) fn dies(&mut self, name: &str, signal: u8) {
        self.vanishes(name, Exit::Signal { signal, cause: Cause::Sent });
    }

    /// The exit is reported before the cgroup is empty: a kill in between has no effect and is not counted.
    fn vanishes(&mut self, name: &str, exit: Exit) {
        let before = self.signals.len();
        self.exits(name, exit);
        self.signals.truncate(before);
        if self.held.contains_key(name) {
            self.empties(name);
        }
    }

    pub(super) fn ready(&mut self, name: &str) {
        let id = self.id(name);
        let run = self.machine.run(id).unwrap();
        self.on(Event::Ready { id, run });
    }

    /// Advances the clock, and handles every deadline that expires.
    pub(super) fn wait(&mut self, millis: u64) {
        let end = self.now.plus_millis(millis);
        while let Some(due) = self.machine.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.on(Event::Tick);
            let next = self.machine.next_deadline();
            assert!(next.is_none_or(|next| next > due), "a deadline that passed is still due");
        }
        self.now = end;
    }

    /// The supervisor crashes and a successor takes over. Init has not received the last request, or there would be no
    /// successor.
    pub(super) fn crash(&mut self) {
        self.off = None;
        let saved = serde_json::to_vec(self.machine.state()).unwrap();
        let saved = serde_json::from_slice(&saved).unwrap();
        self.machine = Launcher::new(&self.manifest, Some(saved), 8).unwrap();
        self.machine.recovered(self.now);
        let held = self.held.values().cloned().collect();
        self.on(Event::Adopt(held));
    }

    pub(super) fn phase(&self, name: &str) -> Phase {
        self.machine.statuses().into_iter().find(|s| s.name == name).unwrap().phase
    }

    pub(super) fn restarts(&self, name: &str) -> u32 {
        self.machine.statuses().into_iter().find(|s| s.name == name).unwrap().restarts
    }

    pub(super) fn enclave(&self) -> Enclave {
        self.machine.enclave()
    }

    /// Names of services spawned since the last call, in order.
    pub(super) fn spawns(&mut self) -> Vec<String> {
        let done = std::mem::take(&mut self.done);
        let ids = done.iter().filter_map(|a| if let Action::Spawn { id, .. } = a { Some(*id) } else { None });
        ids.map(|id| self.name(id)).collect()
    }

    /// Signals sent since the last call, in order.
    pub(super) fn signals(&mut self) -> Vec<(String, u8)> {
        std::mem::take(&mut self.signals)
    }

    /// The final state has been read, and everything flushed.
    pub(super) fn acknowledge(&mut self) {
        self.on(Event::Seen);
        self.on(Event::Flushed);
    }
}
