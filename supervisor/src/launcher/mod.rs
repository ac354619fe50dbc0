//! The launcher: which service runs, when, and what happens when it ends.
//!
//! Invariant: deciding is pure. [`Launcher::on`] takes an [`Event`] and the [`Moment`](crate::clock::Moment) it is
//! handled at, and returns [`Action`]s; it does no I/O and never blocks. Its whole [`LauncherState`] is a value that
//! survives a crash of the supervisor. [`crate::core`] performs the actions and collects the events.
//!
//! One service:
//!
//! ```text
//!  waiting ─▶ spawning ─▶ starting ─▶ ready ──────────┐
//!     ▲          │            │          │            │ stop requested, timed out, lost a dependency
//!     │          │            └────┬─────┘            ▼
//!     │          ▼                 │ exited        stopping ─▶ killing
//!  backing-off ◀─┴─────────────────┴──────────────────┴───────────┘
//!     and finally: ended (done, failed, stopped, lost dependency)
//! ```
//!
//! The enclave:
//!
//! ```text
//!  running ─▶ draining ─▶ stopping ─▶ closing ─▶ off
//! ```

mod adopt;
mod backoff;
mod ending;
mod event;
mod graph;
mod lifecycle;
mod machine;
mod outcome;
mod stage;
mod state;
mod unit;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod simulator;
#[cfg(test)]
mod starts;
#[cfg(test)]
mod tables;

pub use event::{Action, Event, Id, RequestError, Retry, Verdict};
pub use graph::GraphError;
pub use machine::Launcher;
pub(crate) use outcome::describe;
pub use stage::{CLOSING_MS, DRAIN_MS, KILL_GRACE_MS, RECOVERY_SHOWN_MS};
pub use state::LauncherState;
