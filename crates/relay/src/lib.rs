//! The one relay between two byte streams: host and enclave forward every connection through it.
//!
//! Invariant: every byte is forwarded exactly once and in order, an orderly end arrives as an orderly end and a broken
//! connection as a reset, and an idle connection costs its two sockets and a few hundred bytes of memory. The relay has no
//! policy: its callers decide who may connect to what, and what is counted. The sockets come from [`cloister_net`].
//!
//! | module | what it is |
//! |---|---|
//! | [`Works`] | the pipes and counters shared by all connections of a service |
//! | [`relay()`] | forwards bytes between two streams, both ways |

mod closing;
mod flow;
mod full;
mod pipes;
mod relay;
mod works;

pub use relay::{End, Options, Outcome, Side, relay};
pub use works::Works;
