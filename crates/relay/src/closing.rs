//! How a connection that did not end in order is closed on both sides.
//!
//! Its law: what was delivered stays delivered, and what broke off is seen as broken off. A TCP peer sees a reset, after all
//! bytes that were on their way to it; the other end of the boundary reads [`chunks::BREAK`], or finds no last chunk.

use std::time::Duration;

use cloister_wire::chunks;
use tokio::time::timeout;

use cloister_net::Stream;
use cloister_net::scratch;

/// How long a close waits for the other side: for its acknowledgements, and on the boundary for its own close. A peer that
/// lives answers within a round trip, so this only runs out when it hangs or is gone.
const LINGER: Duration = Duration::from_secs(5);

/// What there is still to do for the two sockets of a connection that did not end in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    /// Whether to say on the boundary that the connection broke off, and to wait there until the other end has closed.
    pub(crate) tell: bool,
    /// Whether the local peer is still there to get what was written to it.
    pub(crate) local_lives: bool,
}

/// Gets both sides ready to be closed by the caller as a network closes a connection that breaks.
pub(crate) async fn break_off(boundary: &Stream, local: &Stream, closing: Closing) {
    let telling = async {
        if closing.tell && boundary.send_all(&chunks::BREAK).await.is_ok() {
            closed(boundary).await;
        }
    };
    let delivering = async {
        if closing.local_lives {
            // What is not acknowledged by then is lost, as it is when a network breaks.
            drop(timeout(LINGER, local.delivered()).await);
        }
        // Only TCP has a reset. Another socket refuses this, and closing it is all there is.
        drop(local.reset_on_close());
    };
    // A peer that takes neither is left to the caller's close.
    tokio::join!(async { drop(timeout(LINGER, telling).await) }, delivering);
}

/// Waits until the other end of the boundary has closed, and takes what still comes from it.
pub(crate) async fn wait_for_close(boundary: &Stream) {
    drop(timeout(LINGER, closed(boundary)).await);
}

async fn closed(boundary: &Stream) {
    while boundary.recv_some(scratch::SIZE).await.is_ok_and(|bytes| !bytes.is_empty()) {}
}
