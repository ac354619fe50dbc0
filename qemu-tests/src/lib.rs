//! Boot scenarios: stories about an enclave, told on a real kernel under QEMU.
//!
//! Its law: a scenario is one file with both halves of its story. The host half drives `host-sleeve` as a user would and
//! looks at what it prints and how it ends; the guest half is what the service in the enclave does. Nothing reaches into
//! Cloister from the side.
//!
//! ```text
//! qemu-tests (host)                              probe (guest, static)
//!   lab.boot(manifest) ── host-sleeve run ──▶ QEMU: init → supervisor → /probe SCENARIO ROLE
//!   asserts on output, ps, logs, exit code         does what guest() of the same file says
//! ```

pub mod guest;
pub mod lab;
pub mod runner;
pub mod scenarios;
pub mod soak;
pub mod story;

pub use lab::{Lab, Running};
pub use story::{Failure, Need, Outcome, Scenario, Shared, Vsock};
