//! Holding processes for the supervisor: what to do is decided here, by pure functions.
//!
//! Its law: `HoldState::on(event, now) → actions` touches nothing. [`crate::serve`] finds out what happened and performs what
//! was decided. What a supervisor asks for is checked here, once.
//!
//! ```text
//!            Spawn              program runs            reaped           Forget, and no member left
//! (nothing) ──────▶ launching ──────────────▶ running ────────▶ ended ──────────────────────────▶ (nothing)
//!                      │ a step failed, or reaped                  │ Forget, members left
//!                      ▼                                           ▼
//!                    failed ── reaped, SpawnFailed ──▶ (nothing) leaving ── killed, emptied ──▶ (nothing)
//! ```

mod asked;
mod state;
#[cfg(test)]
mod tests;

use cloister_wire::control::Exit;
use cloister_wire::hold::{FromInit, FromSupervisor, RawState, Spawn};

pub use self::state::HoldState;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A supervisor was forked.
    SupervisorStarted {
        /// Its process.
        pid: u32,
    },
    /// No supervisor could be forked.
    NoSupervisor(Failure),
    /// The supervisor asks for something.
    Asked(FromSupervisor<RawState>),
    /// The supervisor cannot be talked to any more: it closed its socket, does not read, or does not speak the protocol.
    Lost(String),
    /// A process was forked for the holding of this name.
    Forked {
        /// The holding.
        name: String,
        /// The process.
        pid: u32,
        /// Its cgroup's number.
        cgroup: u64,
    },
    /// Nothing was forked for it.
    NotForked {
        /// The holding.
        name: String,
        /// Why.
        failure: Failure,
    },
    /// A forked process became its program, or with it the child of it that is to.
    Launched {
        /// The process.
        pid: u32,
    },
    /// A forked process could not become its program, and ends.
    LaunchFailed {
        /// The process.
        pid: u32,
        /// Why.
        failure: Failure,
    },
    /// The supervisor that was forked is on its way to its program for too long.
    Late(Failure),
    /// A child ended and was reaped.
    Reaped {
        /// The process.
        pid: u32,
        /// How it ended.
        exit: Exit,
    },
    /// A holding's cgroup has no member left.
    Emptied {
        /// The holding.
        name: String,
    },
    /// The application's root is mounted, or why not.
    RootMounted(Result<(), String>),
    /// A descriptor is kept.
    Stashed {
        /// Its name.
        name: String,
    },
    /// Somebody wants the machine to end.
    StopRequested(String),
}

/// A process that did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step that failed.
    pub step: String,
    /// The system's error number, 0 where there is none.
    pub errno: i32,
    /// For people: what, and why.
    pub error: String,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this to the supervisor, with the descriptors that belong to it.
    Tell(FromInit),
    /// Say this on the console.
    Say(String),
    /// Fork this process; its descriptors came with the request.
    Launch {
        /// The holding.
        name: String,
        /// What to run.
        spec: Box<Spawn>,
    },
    /// Send a signal to a holding's main process, or to the one that is to become it.
    Signal {
        /// The holding.
        name: String,
        /// The signal's number.
        signal: u8,
    },
    /// Kill a holding's cgroup as a whole.
    KillGroup {
        /// The holding.
        name: String,
    },
    /// Close a holding's pipes.
    ClosePipes {
        /// The holding.
        name: String,
    },
    /// Remove a holding's empty cgroup.
    RemoveGroup {
        /// The holding.
        name: String,
    },
    /// Keep the descriptor that came with the request, or a new memfd, or hand over what is kept.
    Stash {
        /// Its name.
        name: String,
    },
    /// Put the application's root together.
    MountRoot {
        /// The size of its writable part in bytes.
        writable_bytes: u64,
        /// Memory that the services leave to the supervisor, beside what they always leave.
        reserved_bytes: u64,
    },
    /// Fork a supervisor.
    StartSupervisor,
    /// The same after a pause.
    StartSupervisorIn {
        /// How long, in milliseconds.
        pause_ms: u64,
    },
    /// Kill the supervisor and all that comes from it; its end is told by the reaper.
    KillSupervisor,
    /// End the machine in a state that the host knows already.
    PowerOff {
        /// The state as JSON.
        state: String,
    },
    /// End the machine because of a failure that init has to tell.
    Fatal {
        /// The part that failed.
        stage: &'static str,
        /// What happened, for people.
        error: String,
    },
}
