//! The supervisor's requests, and the actions that follow from them.
//!
//! Invariant: the supervisor is trusted to decide, not to be free of bugs. An invalid request changes nothing.

use cloister_wire::hold::{
    FromInit, FromSupervisor, MAX_HELD, MAX_STASHES, Place, RawState, SignalTarget, Spawn,
};
use cloister_wire::logs::MAX_NAME;

use super::Action;
use super::state::{HoldState, Holding, Phase};

/// The first character of servants' names. No service's name begins with it (`crates/manifest`).
const SERVANT: char = '@';

/// `SIGKILL` of `signal(7)`.
const SIGKILL: u8 = 9;

/// The highest signal number (`SIGRTMAX`).
const MAX_SIGNAL: u8 = 64;

impl HoldState {
    pub(super) fn requested(&mut self, request: FromSupervisor<RawState>) -> Vec<Action> {
        match request {
            FromSupervisor::Spawn { name, spec } => self.spawn(name, spec),
            FromSupervisor::Signal { name, signal, to } => self.signal(&name, signal, to),
            FromSupervisor::Forget { name } => self.forget(&name),
            FromSupervisor::Stash { name, .. } => self.add_stash(name),
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
            Some((22, "a name consists of a-z, 0-9 and -".to_owned()))
        } else if servant != matches!(spec.place, Place::Empty) {
            Some((22, "names of servants, and no others, begin with @".to_owned()))
        } else if self.find(&name).is_some() {
            Some((17, "a process of this name is already held".to_owned()))
        } else if self.held.len() >= MAX_HELD {
            Some((11, format!("{MAX_HELD} processes are already held")))
        } else {
            None
        };
        if let Some((errno, error)) = refused {
            let step = "name".to_owned();
            return self.send(FromInit::SpawnFailed { name, step, errno, error });
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

    fn add_stash(&mut self, name: String) -> Vec<Action> {
        let exists = self.stash.contains(&name);
        if exists || (is_name(&name, b"-._@") && self.stash.len() < MAX_STASHES) {
            return vec![Action::Stash { name }];
        }
        // There is no error response to this request, so a supervisor that waits for one would wait forever.
        let why = format!("invalid request for stash {name:?}, {} exist", self.stash.len());
        self.on(super::Event::Lost(why), 0)
    }

    fn mount_root(&mut self, writable_bytes: u64, reserved_bytes: u64) -> Vec<Action> {
        if self.root_mounted {
            return self.send(FromInit::RootMounted { error: None });
        }
        vec![Action::MountRoot { writable_bytes, reserved_bytes }]
    }
}

/// Names are used for directories and memfds.
fn is_name(name: &str, also: &[u8]) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || also.contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(allowed)
}
