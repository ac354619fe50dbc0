//! The one socket layer: stream sockets in the Tokio reactor, alike for vsock, TCP and Unix.
//!
//! Its law: no call blocks, nothing is buffered here, and an accept loop survives every shortage of descriptors and
//! memory. It knows no policy: who may connect, and what is said over a connection, is decided by its callers.
//!
//! | module | what it is |
//! |---|---|
//! | [`Stream`] | a connected vsock, TCP or Unix socket |
//! | [`Listener`] | where such streams come from |
//! | [`Gate`], [`room()`] | how many there may be at once |
//! | [`OwnedPort`], [`diag`] | connections to a port of a service, and to nobody else's |
//! | [`packets`] | a pair of sockets between two programs of ours |
//! | [`processors()`] | how many threads of ours can run at once |
//! | [`means`] | what to do when the kernel is out of memory or descriptors |
//! | [`scratch`] | the buffer that bytes pass through when they are copied |

pub mod diag;
mod gate;
mod listener;
pub mod means;
mod owned;
pub mod packets;
mod processors;
pub mod scratch;
mod stream;

pub use gate::{Gate, Pass, room};
pub use listener::{Listener, Peer};
pub use owned::{NotReached, OwnedPort, own_cgroup, prepare_diagnosis};
pub use processors::processors;
pub use stream::{Stream, tcp_beside};
