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
//! | [`channel`] | hello and frames over a stream |
//! | [`within`] | a deadline, and an error that says of what |
//! | [`means`] | what to do when the kernel is out of memory or descriptors |
//! | [`scratch`] | the buffer that bytes pass through when they are copied |

mod accept;
pub mod channel;
mod deadline;
mod gate;
pub mod identity;
mod listener;
pub mod means;
mod next;
pub mod places;
pub mod scratch;
mod stream;

pub use accept::{Admission, Entrance, accept_each};
pub use deadline::{Late, within};
pub use gate::{Gate, Pass, room};
pub use identity::Identity;
pub use listener::{Listener, Peer};
pub use stream::Stream;
