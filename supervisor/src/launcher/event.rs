//! The launcher's inputs (events) and outputs (actions).
//!
//! Invariant: these are plain values without behaviour.

use cloister_wire::control::{Exit, State, Verb};
use cloister_wire::hold::{Held, SignalTarget};
use serde::{Deserialize, Serialize};

use crate::clock::Moment;

/// A service by its position in the manifest, which never changes while the enclave runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(pub u16);

impl Id {
    /// The position as an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// An input. `run` counts a service's spawns: events of an earlier run are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A deadline of the machine has expired.
    Tick,
    /// The first event: the manifest's services may start, or those that init holds are taken over.
    Adopt(Vec<Held>),
    /// Init has started a service.
    Spawned {
        /// The service.
        id: Id,
        /// Its main process.
        pid: u32,
        /// The moment.
        at: Moment,
    },
    /// Init could not start a service.
    SpawnFailed {
        /// The service.
        id: Id,
        /// Whether another attempt may succeed.
        retry: Retry,
        /// The step and the system's error.
        error: String,
    },
    /// The main process of a service exited.
    Exited {
        /// The service.
        id: Id,
        /// The process.
        pid: u32,
        /// The exit status.
        exit: Exit,
        /// The moment.
        at: Moment,
    },
    /// The last process of a service's cgroup has exited.
    Emptied {
        /// The service.
        id: Id,
    },
    /// A readiness probe, or the service itself, reports that it is ready.
    Ready {
        /// The service.
        id: Id,
        /// The run.
        run: u32,
    },
    /// A readiness probe failed.
    ProbeFailed {
        /// The service.
        id: Id,
        /// The run.
        run: u32,
        /// The probe's error, human-readable.
        why: String,
    },
    /// A liveness check has a result.
    Checked {
        /// The service.
        id: Id,
        /// The run.
        run: u32,
        /// The result.
        verdict: Verdict,
    },
    /// `WATCHDOG=1`: the service is alive.
    WatchdogPing {
        /// The service.
        id: Id,
    },
    /// `STOPPING=1`: the service is exiting on its own.
    Leaving {
        /// The service.
        id: Id,
    },
    /// `STATUS=`: the service's own status text.
    Text {
        /// The service.
        id: Id,
        /// At most [`cloister_wire::control::MAX_STATUS_TEXT`] bytes.
        text: String,
    },
    /// An orderly stop of the enclave is requested.
    Stop {
        /// Who requested it, human-readable.
        why: String,
    },
    /// A request to start, stop or restart one service.
    Requested {
        /// The service.
        id: Id,
        /// The operation.
        verb: Verb,
    },
    /// A request that ingress accepts no more connections.
    DrainRequested,
    /// Ingress has been drained: no connection is open.
    Drained,
    /// A host has read a status that this supervisor sent.
    StatusSent,
    /// A host has read the final state.
    Seen,
    /// Every log reader has received everything, and no ingress connection is open.
    Flushed,
}

/// Whether a failed start is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// For lack of resources: it is retried soon, which does not count as a restart.
    Soon,
    /// The process was killed before it executed its program, or another service caused the failure: the restart policy
    /// decides, as it does after an exit.
    ByPolicy,
    /// The image is the cause: a retry would fail the same way.
    Never,
}

/// The result of a liveness check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The service responded as expected.
    Alive,
    /// It did not.
    Dead,
}

/// An output. Actions are performed in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Have init start the service, as run number `run`.
    Spawn {
        /// The service.
        id: Id,
        /// The run.
        run: u32,
    },
    /// Have init send a signal.
    Signal {
        /// The service.
        id: Id,
        /// The signal's number.
        signal: u8,
        /// Its main process or its whole cgroup.
        to: SignalTarget,
    },
    /// Read the rest from the service's pipes, then have init release the holding.
    Release {
        /// The service.
        id: Id,
    },
    /// Probe the service until it is ready, and send [`Event::Ready`].
    Probe {
        /// The service.
        id: Id,
        /// The run.
        run: u32,
        /// When the run was started: older output belongs to an earlier run.
        started: Moment,
    },
    /// Check the service's liveness periodically, and send [`Event::Checked`].
    Watch {
        /// The service.
        id: Id,
        /// The run.
        run: u32,
    },
    /// Stop the service's [`Action::Probe`] and [`Action::Watch`].
    Unwatch {
        /// The service.
        id: Id,
    },
    /// Write a line to the log: about a service, or about the enclave.
    Log {
        /// The service, if the line is about one.
        id: Option<Id>,
        /// The line without its newline.
        line: String,
    },
    /// Refuse new ingress connections; send [`Event::Drained`] when none is open.
    Drain,
    /// The state is final: close the log readers when they have received everything, and send [`Event::Flushed`].
    Conclude,
    /// Have init power off.
    PowerOff {
        /// The final state.
        state: State,
    },
}

/// Why a request cannot be performed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The manifest has no such service.
    #[error("the manifest has no service {0:?}")]
    Unknown(String),
    /// The enclave is stopping.
    #[error("the enclave is stopping: services can no longer be started or stopped")]
    Ending,
    /// The service has no process.
    #[error("service {0:?} is not running")]
    NotRunning(String),
}
