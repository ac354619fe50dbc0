//! Boot scenarios: tests of an enclave on a real kernel under QEMU.
//!
//! Invariant: a scenario is one file with both of its halves. The host half drives `host-sleeve` as a user would and checks
//! what it prints and how it exits; the guest half is what the service in the enclave does. No test uses a back door into
//! Cloister.
//!
//! ```text
//! qemu-tests (host)                              probe (guest, static)
//!   lab.boot(manifest) ── host-sleeve run ──▶ QEMU: init → supervisor → /probe SCENARIO ROLE
//!   asserts on output, ps, logs, exit code         runs guest() of the same file
//! ```

pub mod facts;
pub mod guest;
pub mod lab;
pub mod runner;
pub mod scenario;
pub mod scenarios;
pub mod soak;
pub mod tsm;

pub use lab::{Lab, Running};
pub use scenario::{Failure, Need, Outcome, Scenario, Shared, Vsock};
