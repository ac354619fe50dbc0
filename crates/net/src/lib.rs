//! The socket layer: stream sockets in the Tokio reactor, with one interface for vsock, TCP and Unix.
//!
//! Invariants: no call blocks, nothing is buffered here, and an accept loop survives a lack of descriptors or memory.
//! This crate contains no policy: callers decide who may connect and what is sent.
//!
//! | item | purpose |
//! |---|---|
//! | [`Stream`] | a connected vsock, TCP or Unix socket |
//! | [`Listener`] | a listening vsock, TCP or Unix socket |
//! | [`accept_each`], [`Entrance`] | the accept loop: identifies each peer, and serves each connection in its own task |
//! | [`Gate`], [`connection_capacity()`], [`places`] | limits on concurrent connections: in total, and per peer |
//! | [`identity`] | the identity of a peer |
//! | [`OwnedPort`], [`diag`] | connections to a port only if it belongs to a given service |
//! | [`channel`] | hello and frames over a stream |
//! | [`packets`] | a socket pair between two of Cloister's programs |
//! | [`within`] | a deadline, and an error that names the operation |
//! | [`processors()`] | number of CPUs that this process may use |
//! | [`resources`] | retries when the kernel is out of memory or descriptors |
//! | [`scratch`] | the per-thread buffer for copying bytes |

mod accept;
pub mod channel;
mod deadline;
pub mod diag;
mod gate;
pub mod identity;
mod listener;
mod next;
mod owned;
pub mod packets;
pub mod places;
mod processors;
pub mod resources;
pub mod scratch;
mod stream;

pub use accept::{Admission, Entrance, accept_each};
pub use deadline::{Late, within};
pub use gate::{Gate, Permit, connection_capacity};
pub use identity::Identity;
pub use listener::{Listener, Peer};
pub use owned::{NotReached, OwnedPort, own_cgroup, prepare_diagnosis};
pub use processors::processors;
pub use stream::{Stream, tcp_on_shared_port};
