//! The one relay between two byte streams: host and enclave carry every connection with it.
//!
//! Its law: a byte is carried exactly once and in order, an end is carried as an end and a break as a break, and a
//! connection that carries nothing holds nothing but its two sockets and a few hundred bytes. It knows no policy: who may
//! connect to what, and what is counted, is decided by its callers.
//!
//! | module | what it is |
//! |---|---|
//! | [`Stream`] | a connected vsock, TCP or Unix socket in the Tokio reactor |
//! | [`Listener`] | where such streams come from |
//! | [`Gate`], [`room()`] | how many there may be at once |
//! | [`Works`] | what all connections of a service share |
//! | [`relay()`] | the way of the bytes between two of them |

mod closing;
mod flow;
mod full;
mod gate;
mod listener;
mod means;
mod pipes;
mod relay;
mod scratch;
mod stream;
mod works;

pub use gate::{Gate, Pass, room};
pub use listener::{Listener, Peer};
pub use relay::{End, Options, Outcome, Side, relay};
pub use stream::Stream;
pub use works::Works;
