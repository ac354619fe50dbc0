//! The enclave as a whole: the stages of its shutdown.
//!
//! Invariant: each stage except the first and the last has a deadline, so that a stop always completes.

use cloister_wire::control::State as Enclave;
use serde::{Deserialize, Serialize};

use super::event::Id;
use crate::clock::Moment;

/// Maximum wait for open ingress connections after a stop was requested, in milliseconds: long enough for a
/// request in flight, short compared with the ten seconds after which users expect `stop` to kill.
pub const DRAIN_MS: u64 = 3_000;

/// How long the kernel gets to end processes after everything was killed, in milliseconds. A process in uninterruptible
/// sleep does not exit; the enclave must.
pub const KILL_GRACE_MS: u64 = 1_000;

/// How long the enclave waits for a host to read the final state and the last log lines, in milliseconds.
pub const CLOSING_MS: u64 = 2_000;

/// Maximum time for which the status stays `degraded` after a crash of the supervisor so that a host can read it, in
/// milliseconds: ingress is guaranteed to be back within a second.
pub const RECOVERY_SHOWN_MS: u64 = 1_000;

/// The stage of the enclave's shutdown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum EndStage {
    /// It serves.
    #[default]
    Running,
    /// Ingress accepts no connections, and open ones may continue until the deadline.
    Draining(Ending),
    /// Services are stopped in reverse order; those still running at the deadline are killed.
    Stopping(Ending),
    /// Everything was killed; processes that remain at the deadline are ignored.
    Killing(Ending),
    /// The final state can be read until the deadline.
    Closing(Closing),
    /// Init was requested to power off.
    Off(Enclave),
}

/// Why the enclave stops and which service determines the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ending {
    pub(super) why: String,
    /// The service whose exit becomes the enclave's; `None`: the first critical one.
    pub(super) by: Option<Id>,
    pub(super) until: Moment,
}

/// The final state and who has read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Closing {
    pub(super) state: Enclave,
    pub(super) until: Moment,
    pub(super) seen: bool,
    pub(super) flushed: bool,
}

impl EndStage {
    /// The stage's deadline, if it has one.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match self {
            Self::Running | Self::Off(_) => None,
            Self::Draining(e) | Self::Stopping(e) | Self::Killing(e) => Some(e.until),
            Self::Closing(c) => Some(c.until),
        }
    }
}
