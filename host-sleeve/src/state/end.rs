//! How an enclave ended.
//!
//! Invariant: an end is written once, and states the exit code together with its reason.

use cloister_wire::control::{Cause, State};
use serde::{Deserialize, Serialize};

use crate::values::signal_name;

/// How an enclave ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "the fields of an end")]
pub(crate) struct End {
    /// The exit code of `host-sleeve run`.
    pub(crate) code: u8,
    /// What happened.
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    /// When, in milliseconds since 1970.
    pub(crate) at_ms: u64,
}

/// What happened at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// The enclave reported its final state. Earlier versions wrote this as `told`.
    #[serde(alias = "told")]
    Reported {
        /// Its final state.
        #[serde(rename = "final")]
        state: State,
    },
    /// It was killed on request.
    Killed {
        /// Who requested it, human-readable.
        why: String,
    },
    /// A time limit passed.
    TimedOut {
        /// Which one, human-readable.
        why: String,
    },
    /// It is not the enclave that was expected, and was ended for that.
    NotVerified {
        /// Which check failed, human-readable.
        why: String,
    },
    /// It ended without reporting a final state, or could not be launched.
    Failed {
        /// What is known about the cause, human-readable.
        why: String,
    },
}

impl End {
    /// A short description of the end.
    pub(crate) fn summary(&self) -> String {
        match &self.outcome {
            Outcome::Reported { state } => final_summary(state),
            Outcome::Killed { why } => format!("killed: {why}"),
            Outcome::TimedOut { why } => format!("timed out: {why}"),
            Outcome::NotVerified { why } => format!("not verified: {why}"),
            Outcome::Failed { why } => format!("failed: {why}"),
        }
    }
}

/// A short description of a final state.
pub(super) fn final_summary(state: &State) -> String {
    match state {
        State::Exited { code, .. } => format!("exited ({code})"),
        State::Signaled { signal, cause: Cause::Sent, .. } => signal_name(*signal),
        State::Signaled { signal, cause: Cause::OutOfMemory, .. } => {
            format!("{}, out of memory", signal_name(*signal))
        }
        State::Signaled { signal, cause: Cause::Seccomp(call), .. } => {
            let call = call.as_deref().unwrap_or("a system call");
            format!("{}, {call} is not allowed", signal_name(*signal))
        }
        State::Fatal { stage, error } => format!("fatal: {stage}: {error}"),
        _ => "not ended".to_owned(),
    }
}
