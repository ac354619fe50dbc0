//! The logs: what the services said, kept bounded, never lost by a crash of ours, read by the host.
//!
//! Its law: a service is never made to wait. Its pipes are drained always; what no longer fits is the oldest, and a
//! reader that comes too late is told how much it missed.
//!
//! ```text
//!  service ─ pipe ─▶ mover ─ splice ─▶ history (ring, index) ─┐
//!  supervisor says ──────── write ───▶ history                 ├─▶ server ─▶ port 17001, local socket
//!                                      a share a service       ┘
//! ```
//!
//! Init holds the memfds: one for each output, one for all that the supervisor says.

mod history;
mod index;
mod mover;
mod needle;
mod ring;
mod server;
mod store;

pub use mover::{Lookout, Movers};
pub use ring::Span;
pub use server::{Readers, serve};
pub use store::{Memfds, OWN_LOG, Output, Shared, Store, output_names, stash_names};
