//! What the supervisor may ask, and what is made of it.
//!
//! Its law: the supervisor is trusted to decide, not to be free of bugs. A request that makes no sense changes nothing.

use cloister_wire::hold::{
    FromInit, FromSupervisor, MAX_HELD, MAX_STASHES, Place, RawState, SignalTarget, Spawn,
};
use cloister_wire::logs::MAX_NAME;

use super::Action;
use super::state::{HoldState, Holding, Phase};

/// What the names of servants begin with. No service's does (`crates/manifest`).
const SERVANT: char = '@';

/// `SIGKILL` of `signal(7)`.
const SIGKILL: u8 = 9;

/// The highest signal number (`SIGRTMAX`).
const MAX_SIGNAL: u8 = 64;

impl HoldState {
    pub(super) fn asked(&mut self, request: FromSupervisor<RawState>) -> Vec<Action> {
        match request {
            FromSupervisor::Spawn { name, spec } => self.spawn(name, spec),
            FromSupervisor::Signal { name, signal, to } => self.signal(&name, signal, to),
            FromSupervisor::Forget { name } => self.forget(&name),
            FromSupervisor::Stash { name, .. } => self.keep(name),
            FromSupervisor::MountRoot { writable_bytes, reserved_bytes } => {
                self.mount_root(writable_bytes, reserved_bytes)
            }
            FromSupervisor::PowerOff { state } => vec![Action::PowerOff { state: state.get().to_owned() }],
        }
    }

    fn spawn(&mut self, name: String, spec: Box<Spawn>) -> Vec<Action> {
        let servant = name.starts_with(SERVANT);
        let refused = if !is_name(name.strip_prefix(SERVANT).unwrap_or(&name), b"-") || name.len() > MAX_NAME
        {
            Some((22, "a holding's name is made of a-z, 0-9 and -".to_owned()))
        } else if servant != matches!(spec.place, Place::Empty) {
            Some((22, "names with @ are for servants, and no other".to_owned()))
        } else if self.find(&name).is_some() {
            Some((17, "a process of this name is held already".to_owned()))
        } else if self.held.len() >= MAX_HELD {
            Some((11, format!("{MAX_HELD} processes are held already")))
        } else {
            None
        };
        if let Some((errno, error)) = refused {
            let step = "name".to_owned();
            return self.tell(FromInit::SpawnFailed { name, step, errno, error });
        }
        self.held.push(Holding { name: name.clone(), phase: Phase::Forking, cgroup: 0, populated: false });
        vec![Action::Launch { name, spec }]
    }

    fn signal(&mut self, name: &str, signal: u8, to: SignalTarget) -> Vec<Action> {
        if !(1..=MAX_SIGNAL).contains(&signal) {
            return vec![];
        }
        let Some(held) = self.find(name) else { return vec![] };
        match (to, held.phase.pid()) {
            (SignalTarget::Main, Some(_)) => vec![Action::Signal { name: name.to_owned(), signal }],
            (SignalTarget::Cgroup, _) if held.populated && signal == SIGKILL => {
                vec![Action::KillGroup { name: name.to_owned() }]
            }
            (SignalTarget::Main, None) | (SignalTarget::Cgroup, _) => vec![],
        }
    }

    fn forget(&mut self, name: &str) -> Vec<Action> {
        let Some(held) = self.find(name) else { return vec![] };
        if !matches!(held.phase, Phase::Ended { .. }) {
            return vec![];
        }
        let name = name.to_owned();
        let pipes = Action::ClosePipes { name: name.clone() };
        if held.populated {
            held.phase = Phase::Leaving;
            return vec![pipes, Action::KillGroup { name }];
        }
        self.held.retain(|held| held.name != name);
        vec![pipes, Action::RemoveGroup { name }]
    }

    fn keep(&mut self, name: String) -> Vec<Action> {
        let known = self.stash.contains(&name);
        if known || (is_name(&name, b"-._@") && self.stash.len() < MAX_STASHES) {
            return vec![Action::Stash { name }];
        }
        self.nonsense(&format!("asked to keep {name:?} beside {} others", self.stash.len()))
    }

    fn mount_root(&mut self, writable_bytes: u64, reserved_bytes: u64) -> Vec<Action> {
        if self.root_mounted {
            return self.tell(FromInit::RootMounted { error: None });
        }
        vec![Action::MountRoot { writable_bytes, reserved_bytes }]
    }

    /// There is no answer to such a request, so a supervisor that waits for one would wait for ever.
    fn nonsense(&mut self, what: &str) -> Vec<Action> {
        self.on(super::Event::Lost(format!("it {what}")), 0)
    }
}

/// Names become folders and names of memfds.
fn is_name(name: &str, also: &[u8]) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || also.contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain)
}
