//! The process that stays with one enclave for as long as it lives.
//!
//! Its law: [`life`] decides, everything else reports to it or does what it says. Whatever happens, at the end nothing runs
//! and the record tells the truth.
//!
//! ```text
//!   control (17000) ─┐                       ┌─ stop, seen → control
//!   console ─────────┤                       ├─ drain → logs (17001)
//!   machine ─────────┼─ events → life → acts ┼─ kill → machine
//!   requests ────────┤                       ├─ record → state.json
//!   signals, clock ──┘                       └─ report → whoever launched it
//! ```

mod console;
pub(crate) mod control;
mod keeper;
mod launch;
mod life;
mod logs;
pub(crate) mod order;
mod pulse;
pub(crate) mod requests;
pub(crate) mod run;
