//! What can happen to the launcher, and what it can want done.
//!
//! Its law: these are values; nothing here does anything.

use cloister_wire::control::{Exit, State, Verb};
use cloister_wire::hold::{Held, SignalTarget};
use serde::{Deserialize, Serialize};

use crate::clock::Moment;

/// A service by its place in the manifest, which never changes while the enclave lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(pub u16);

impl Id {
    /// The place as an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Something that happened. `run` counts a service's spawns: what is said of an older one is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has come to one of the machine's deadlines; also the first event of all.
    Tick,
    /// The manifest's services may start, or what init holds is taken over.
    Adopt(Vec<Held>),
    /// Init has started a service.
    Spawned {
        /// The service.
        id: Id,
        /// Its main process.
        pid: u32,
        /// When.
        at: Moment,
    },
    /// Init could not start a service.
    SpawnFailed {
        /// The service.
        id: Id,
        /// Whether another attempt may succeed.
        retry: Retry,
        /// The step and the system's words.
        error: String,
    },
    /// The main process of a service ended.
    Exited {
        /// The service.
        id: Id,
        /// The process.
        pid: u32,
        /// How.
        exit: Exit,
        /// When.
        at: Moment,
    },
    /// The last process of a service's cgroup is gone.
    Emptied {
        /// The service.
        id: Id,
    },
    /// A readiness probe, or the service itself, says that it is ready.
    Ready {
        /// The service.
        id: Id,
        /// Which spawn of it.
        run: u32,
    },
    /// Something keeps a service from being ready.
    Missed {
        /// The service.
        id: Id,
        /// Which spawn of it.
        run: u32,
        /// What its readiness probe met, for people.
        why: String,
    },
    /// A liveness check has been answered, or not.
    Checked {
        /// The service.
        id: Id,
        /// Which spawn of it.
        run: u32,
        /// What came of it.
        verdict: Verdict,
    },
    /// `WATCHDOG=1`: the service is alive.
    Petted {
        /// The service.
        id: Id,
    },
    /// `STOPPING=1`: the service is ending by its own decision.
    Leaving {
        /// The service.
        id: Id,
    },
    /// `STATUS=`: what the service says of itself.
    Text {
        /// The service.
        id: Id,
        /// Already bounded to [`cloister_wire::control::MAX_STATUS_TEXT`].
        text: String,
    },
    /// The enclave is to end in order.
    Stop {
        /// Who asked, for people.
        why: String,
    },
    /// One service is to be started, stopped or started again.
    Asked {
        /// The service.
        id: Id,
        /// What is to be done.
        verb: Verb,
    },
    /// Ingress is to take no new connections, from now on.
    DrainAsked,
    /// Ingress has no open connection left since it was drained.
    Drained,
    /// A host has read a status that this supervisor sent.
    Told,
    /// A host has read the final state.
    Seen,
    /// Every log reader has everything, and no ingress connection is open.
    Flushed,
}

/// Whether a start that failed may succeed another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The machine lacked something for a moment: it is tried again soon, which is no restart.
    Soon,
    /// The process was killed on its way to its program, or met what another service did: the restart policy decides, as over
    /// any end.
    ByPolicy,
    /// It is the image: trying again shows nothing new.
    Never,
}

/// What came of a liveness check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The service answered as it should.
    Alive,
    /// It did not.
    Dead,
}

/// Something to be done. Performed in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Have init start the service, as spawn number `run`.
    Spawn {
        /// The service.
        id: Id,
        /// Which spawn of it.
        run: u32,
    },
    /// Have init send a signal.
    Signal {
        /// The service.
        id: Id,
        /// The signal's number.
        signal: u8,
        /// To its main process or its whole cgroup.
        to: SignalTarget,
    },
    /// Take what is left in the service's pipes, then have init drop what it holds of it.
    Forget {
        /// The service.
        id: Id,
    },
    /// Find out when the service is ready, and say [`Event::Ready`].
    Probe {
        /// The service.
        id: Id,
        /// Which spawn of it.
        run: u32,
        /// When that spawn was: output older than this is another's.
        started: Moment,
    },
    /// Check the service again and again, and say [`Event::Checked`].
    Watch {
        /// The service.
        id: Id,
        /// Which spawn of it.
        run: u32,
    },
    /// End what [`Action::Probe`] and [`Action::Watch`] began for the service.
    Unwatch {
        /// The service.
        id: Id,
    },
    /// Write a line into the log: about a service, or about the enclave.
    Say {
        /// The service, if it is about one.
        id: Option<Id>,
        /// The line without its end.
        line: String,
    },
    /// Refuse new ingress connections; say [`Event::Drained`] when none is open.
    Drain,
    /// The state is final: end the log readers when they have everything, and say [`Event::Flushed`].
    Conclude,
    /// Have init power off.
    PowerOff {
        /// The final state.
        state: State,
    },
}

/// Why a request cannot be done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ask {
    /// The manifest names no such service.
    #[error("the manifest has no service {0:?}")]
    Unknown(String),
    /// The enclave is ending.
    #[error("the enclave is ending: no service is started or stopped by hand any more")]
    Ending,
    /// There is no process.
    #[error("{0:?} is not running")]
    NotRunning(String),
}
