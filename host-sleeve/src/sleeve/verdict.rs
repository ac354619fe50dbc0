//! How a lifecycle ended, and the exit code that follows from it.
//!
//! Invariant: each outcome has one exit code, which docs/cli.md lists.

use cloister_wire::control::State;
use cloister_wire::exit;

use crate::backends::MachineExit;
use crate::state::Outcome;

/// How it ended, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The exit code of `host-sleeve run`.
    pub(crate) code: u8,
    /// What happened.
    pub(crate) outcome: Outcome,
}

impl Verdict {
    /// Whether it stands whatever the enclave reports afterwards: what was decided here caused that report.
    pub(super) const fn is_ours(&self) -> bool {
        matches!(self.outcome, Outcome::TimedOut { .. } | Outcome::NotVerified { .. })
    }

    /// The enclave reported its final state itself.
    pub(crate) fn reported(state: State) -> Self {
        let code = match &state {
            State::Exited { code, .. } => *code,
            State::Signaled { signal, .. } => exit::for_signal(*signal),
            _ => exit::OUR_FAILURE,
        };
        Self { code, outcome: Outcome::Reported { state } }
    }

    /// It was killed; the exit code is that of SIGKILL.
    pub(crate) fn killed(why: impl Into<String>) -> Self {
        const KILL: u8 = 9;
        Self { code: exit::for_signal(KILL), outcome: Outcome::Killed { why: why.into() } }
    }

    /// It was killed by Ctrl-C; the exit code is that of SIGINT.
    pub(crate) fn interrupted() -> Self {
        const INTERRUPT: u8 = 2;
        Self { code: exit::for_signal(INTERRUPT), outcome: Outcome::Killed { why: "interrupted".into() } }
    }

    /// A time limit passed.
    pub(crate) fn timed_out(why: impl Into<String>) -> Self {
        Self { code: exit::TIMED_OUT, outcome: Outcome::TimedOut { why: why.into() } }
    }

    /// It is not the enclave that was expected.
    pub(crate) fn not_verified(why: impl Into<String>) -> Self {
        Self { code: exit::NOT_VERIFIED, outcome: Outcome::NotVerified { why: why.into() } }
    }

    /// It ended without reporting a final state.
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self { code: exit::OUR_FAILURE, outcome: Outcome::Failed { why: why.into() } }
    }
}

/// The reason for an end that the enclave has not reported.
pub(super) fn unexplained(ending: &MachineExit) -> String {
    let (how, output) = match ending {
        MachineExit::PoweredOff { output } => {
            ("the enclave powered off without reporting a final state", output.as_ref())
        }
        MachineExit::Failed { how, output } => (how.as_str(), output.as_ref()),
        MachineExit::Unknown => ("it ended; the backend cannot determine how", None),
    };
    match output {
        Some(output) => format!("{how}: {output}"),
        None => how.to_owned(),
    }
}
