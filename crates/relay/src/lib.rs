//! The one relay between two byte streams: host and enclave carry every connection with it.
//!
//! Its law: a byte is carried exactly once and in order, an end is carried as an end and a break as a break, and a
//! connection that carries nothing holds nothing but its two sockets and a few hundred bytes. It knows no policy: who may
//! connect to what, and what is counted, is decided by its callers. The sockets are [`cloister_net`]'s.
//!
//! | module | what it is |
//! |---|---|
//! | [`Works`] | what all connections of a service share |
//! | [`relay()`] | the way of the bytes between two of them |

mod closing;
mod flow;
mod full;
mod pipes;
mod relay;
mod works;

pub use relay::{End, Options, Outcome, Side, relay};
pub use works::Works;
