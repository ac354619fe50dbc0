//! The process that accompanies one enclave for its whole lifetime.
//!
//! Invariant: [`lifecycle`] makes all decisions; everything else sends events to it or performs its actions. When a sleeve
//! exits, regardless of the reason, nothing of the enclave is running and the record states how it ended.
//!
//! ```text
//!   control (17000) ─┐                               ┌─ stop, seen → control
//!   console ─────────┤                               ├─ drain → logs (17001)
//!   machine ─────────┼─ events → lifecycle → actions ┼─ kill → machine
//!   requests ────────┤                               ├─ record → state.json
//!   signals, clock ──┘                               └─ report → the launching command
//! ```
//!
//! Ingress and the development security module (17004) are served beside that, and take no part in decisions. `verification` asks the
//! enclave for evidence over its own ingress, and reports the result as an event.

mod console;
pub(crate) mod control;
mod keeper;
mod launch;
mod lifecycle;
mod logs;
mod module;
pub(crate) mod order;
mod published;
mod pulse;
pub(crate) mod requests;
pub(crate) mod run;
mod verdict;
mod verification;
