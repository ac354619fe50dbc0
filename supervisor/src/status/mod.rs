//! The enclave's status for the host and for programs inside, and their requests.
//!
//! Invariant: the status is served before the manifest is read, so that errors in the manifest are readable too; and
//! a reader never delays the services.

mod board;
mod inspect;
pub mod registers;
mod server;
mod stats;
pub mod time;

pub use board::Board;
pub use inspect::{inspect, program_below};
pub use server::{Context, PendingRequest, serve};
pub use stats::{oom_kills, stats};
