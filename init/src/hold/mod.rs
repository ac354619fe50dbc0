//! Holding processes for the supervisor: pure functions that decide what to do.
//!
//! Invariant: `HoldState::on(event, now) → actions` has no side effects. [`crate::serve`] collects the events and performs the
//! actions. The supervisor's requests are checked here, once.
//!
//! ```text
//!            Spawn              program runs            reaped           Forget, no member left
//! (nothing) ──────▶ launching ──────────────▶ running ────────▶ ended ──────────────────────────▶ (nothing)
//!                      │ a step failed, or reaped                  │ Forget, members left
//!                      ▼                                           ▼
//!                    failed ── reaped, SpawnFailed ──▶ (nothing) leaving ── killed, emptied ──▶ (nothing)
//! ```

mod requests;
mod state;
#[cfg(test)]
mod tests;

use cloister_wire::control::Exit;
use cloister_wire::hold::{FromInit, FromSupervisor, RawState, Spawn};

pub use self::state::HoldState;

/// An event.
#[derive(Clone, Debug)]
pub enum Event {
    /// A supervisor was forked.
    SupervisorStarted {
        /// Its process.
        pid: u32,
    },
    /// No supervisor could be forked.
    NoSupervisor(Failure),
    /// The supervisor sent a request.
    Requested(FromSupervisor<RawState>),
    /// The channel to the supervisor is unusable: it closed its socket, does not read, or violated the protocol.
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
    /// The fork for the holding of this name failed.
    NotForked {
        /// The holding.
        name: String,
        /// Why.
        failure: Failure,
    },
    /// A forked process runs its program, or its child that is the main process does.
    Launched {
        /// The process.
        pid: u32,
    },
    /// A forked process could not execute its program, and exits.
    LaunchFailed {
        /// The process.
        pid: u32,
        /// Why.
        failure: Failure,
    },
    /// The forked supervisor did not execute its program in time.
    Late(Failure),
    /// A child exited and was reaped.
    Reaped {
        /// The process.
        pid: u32,
        /// How it exited.
        exit: Exit,
    },
    /// A holding's cgroup has no member left.
    Emptied {
        /// The holding.
        name: String,
    },
    /// The application's root was mounted, or why not.
    RootMounted(Result<(), String>),
    /// A descriptor was added to the stash.
    Stashed {
        /// Its name.
        name: String,
    },
    /// A shutdown was requested, and by what.
    StopRequested(String),
}

/// A process that did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step that failed.
    pub step: String,
    /// The system's error number, 0 if there is none.
    pub errno: i32,
    /// Human-readable: what failed, and why.
    pub error: String,
}

/// An action to perform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this to the supervisor, with its descriptors.
    Send(FromInit),
    /// Print this on the console.
    Print(String),
    /// Fork this process; its descriptors were sent with the request.
    Launch {
        /// The holding.
        name: String,
        /// What to run.
        spec: Box<Spawn>,
    },
    /// Send a signal to a holding's main process, or to the process that will execute it.
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
    /// Stash the descriptor sent with the request, or a new memfd if there is none; an existing stash is handed over as it is.
    Stash {
        /// Its name.
        name: String,
    },
    /// Set the size of the application's root.
    MountRoot {
        /// The size of its writable part in bytes.
        writable_bytes: u64,
        /// Memory that services leave to the supervisor, in addition to what they always leave.
        reserved_bytes: u64,
    },
    /// Fork a supervisor.
    StartSupervisor,
    /// The same after a pause.
    StartSupervisorIn {
        /// How long, in milliseconds.
        pause_ms: u64,
    },
    /// Kill the supervisor and its descendants; its exit is an event of its own.
    KillSupervisor,
    /// Shut the machine down in a state that the host already knows.
    PowerOff {
        /// The state as JSON.
        state: String,
    },
    /// Shut the machine down because of a failure that init has to report.
    Fatal {
        /// The part that failed.
        stage: &'static str,
        /// Human-readable: what happened.
        error: String,
    },
}
