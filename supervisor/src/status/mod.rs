//! The status: what state the enclave is in, told to the host and to programs inside, and what they may ask.
//!
//! Its law: status is served before the manifest is read, so that what goes wrong with the manifest is readable too; and
//! a reader never delays what it reads about.

mod board;
mod inspect;
pub mod registers;
mod server;
mod stats;

pub use board::Board;
pub use inspect::{inspect, program_below};
pub use server::{Asked, Asking, serve};
pub use stats::{oom_kills, stats};
