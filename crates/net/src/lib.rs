//! The one socket layer: stream sockets in the Tokio reactor, alike for vsock, TCP and Unix.
//!
//! Its law: no call blocks, nothing is buffered here, and an accept loop survives every shortage of descriptors and
//! memory. It knows no policy: who may connect, and what is said over a connection, is decided by its callers.
//!
//! | module | what it is |
//! |---|---|
//! | [`Stream`] | a connected vsock, TCP or Unix socket |
//! | [`Listener`] | where such streams come from |
//! | [`accept_each`], [`Entrance`] | the accept loop: who comes in, and each served in a task of its own |
//! | [`Gate`], [`room()`], [`places`] | how many there may be at once: in all, and of each peer |
//! | [`identity`] | who is at the other end |
//! | [`OwnedPort`], [`diag`] | connections to a port of one service, and to no other's |
//! | [`channel`] | hello and frames over a stream |
//! | [`packets`] | a socket pair between two of our programs |
//! | [`within`] | a deadline, and an error that names what was waited for |
//! | [`processors()`] | how many threads of ours can run at once |
//! | [`means`] | what to do when the kernel is out of memory or descriptors |
//! | [`scratch`] | the buffer that bytes pass through when they are copied |

mod accept;
pub mod channel;
mod deadline;
pub mod diag;
mod gate;
pub mod identity;
mod listener;
pub mod means;
mod next;
mod owned;
pub mod packets;
pub mod places;
mod processors;
pub mod scratch;
mod stream;

pub use accept::{Admission, Entrance, accept_each};
pub use deadline::{Late, within};
pub use gate::{Gate, Pass, room};
pub use identity::Identity;
pub use listener::{Listener, Peer};
pub use owned::{NotReached, OwnedPort, own_cgroup, prepare_diagnosis};
pub use processors::processors;
pub use stream::{Stream, tcp_beside};
