//! The launcher: which service runs, when, and what happens when it ends.
//!
//! Its law: deciding is pure. [`Launcher::on`] takes an [`Event`] and the [`Moment`](crate::clock::Moment) it is handled at,
//! and returns [`Action`]s; it waits for nothing and asks nobody. Its whole [`LauncherState`] is a value that survives a crash of
//! the supervisor. Performing the actions, and finding out what happened, is the work of [`crate::core`].
//!
//! One service:
//!
//! ```text
//!  waiting ─▶ spawning ─▶ starting ─▶ ready ──────────┐
//!     ▲          │            │          │            │ asked to end, timed out, lost what it requires
//!     │          │            └────┬─────┘            ▼
//!     │          ▼                 │ it ended      stopping ─▶ killing
//!  backing-off ◀─┴─────────────────┴──────────────────┴───────────┘
//!     and after the last of them: ended (done, failed, stopped, bereft)
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
mod life;
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

pub use event::{Action, Ask, Event, Id, Retry, Verdict};
pub use graph::GraphError;
pub use machine::Launcher;
pub(crate) use outcome::words;
pub use stage::{CLOSING_MS, DRAIN_MS, KILL_GRACE_MS, RECOVERY_SHOWN_MS};
pub use state::LauncherState;
