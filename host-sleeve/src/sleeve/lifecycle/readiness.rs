//! What an enclave reports about its readiness, and what must happen before it is reported as ready here.
//!
//! Invariant: a check advances in one direction only.

use cloister_wire::control::State;

/// What must happen between the enclave's own report that it is ready and ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// It must be verified.
    Due,
    /// It is being verified.
    Running,
    /// Nothing: it is verified, or need not be.
    Done,
    /// Nothing, and it was reported as ready.
    Announced,
}

impl Check {
    /// The check of an enclave that must be verified, or need not be.
    pub(crate) const fn of(required: bool) -> Self {
        if required { Self::Due } else { Self::Done }
    }
}

/// What an enclave that serves reports about its services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// All of them serve.
    Ready,
    /// At least one does not.
    Degraded,
}

impl Health {
    /// Its report in this state, if it serves.
    pub(super) const fn of(state: &State) -> Option<Self> {
        match state {
            State::Ready => Some(Self::Ready),
            State::Degraded { .. } => Some(Self::Degraded),
            _ => None,
        }
    }
}
