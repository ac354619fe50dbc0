//! The logs: the services' output, stored within bounds, preserved across crashes of the supervisor, read by the host.
//!
//! Invariant: a service never blocks. Its pipes are always drained; the oldest output is overwritten, and a reader that
//! is too late is sent the number of records it missed.
//!
//! ```text
//!  service ─ pipe ─▶ mover ─ splice ─▶ history (ring, index) ─┐
//!  supervisor's lines ───── write ───▶ history                 ├─▶ server ─▶ port 17001, local socket
//!                                      (a share per service)   ┘
//! ```
//!
//! Init holds the memfds: one for each output, one for all lines of the supervisor.

mod history;
mod index;
mod mover;
mod needle;
mod ring;
mod server;
mod store;

pub use mover::{Movers, TextWatch};
pub use ring::Span;
pub use server::{Readers, serve};
pub use store::{Memfds, OWN_LOG, Output, Shared, Store, output_names, stash_names};
