//! The enclave as a whole: how far its end has come.
//!
//! Its law: each stage but the first ends by a deadline, so that a stop always ends.

use cloister_wire::control::State as Enclave;
use serde::{Deserialize, Serialize};

use super::event::Id;
use crate::clock::Moment;

/// The longest wait for open ingress connections after a stop was asked for, in milliseconds: long enough for a
/// request in flight, short beside the ten seconds after which people expect `stop` to kill.
pub const DRAIN_MS: u64 = 3_000;

/// After everything was killed, how long the kernel gets to finish it, in milliseconds. A process in uninterruptible
/// sleep does not die; the enclave must.
pub const KILL_GRACE_MS: u64 = 1_000;

/// How long the final state waits for a host to read it and the last log lines, in milliseconds.
pub const CLOSING_MS: u64 = 2_000;

/// How long at most the status stays `degraded` after a crash of the supervisor for a host to read it, in milliseconds:
/// ingress is promised back within a second.
pub const RECOVERY_SHOWN_MS: u64 = 1_000;

/// How far the enclave's end has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum EndStage {
    /// It serves.
    #[default]
    Running,
    /// Ingress takes nothing new, and what is open may end until then.
    Draining(Ending),
    /// Services are asked to end, in reverse order; what is left then is killed.
    Stopping(Ending),
    /// Everything was killed; what is left then is left.
    Killing(Ending),
    /// The final state is there to be read until then.
    Closing(Closing),
    /// Init was asked to power off.
    Off(Enclave),
}

/// Why the enclave ends and which service decides how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ending {
    pub(super) why: String,
    /// The service whose end is the enclave's; `None`: the first critical one, however it ends.
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
    /// When it ends by itself.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match self {
            Self::Running | Self::Off(_) => None,
            Self::Draining(e) | Self::Stopping(e) | Self::Killing(e) => Some(e.until),
            Self::Closing(c) => Some(c.until),
        }
    }
}
