//! Closing both sides of a connection that did not end cleanly.
//!
//! Invariant: bytes already accepted are still delivered, and neither peer can mistake the break for an orderly end. A TCP peer
//! sees a reset after the bytes in flight to it; the other end of the boundary reads [`chunks::BREAK`], or finds no last chunk.

use std::time::Duration;

use cloister_wire::chunks;
use tokio::time::timeout;

use cloister_net::Stream;
use cloister_net::scratch;

/// How long closing waits for the other side: for acknowledgements, and on the boundary for the peer to close. A healthy peer
/// answers within one round trip, so only a peer that hangs or is gone runs into this limit.
const LINGER: Duration = Duration::from_secs(5);

/// What remains to be done for the two sockets of a connection that did not end cleanly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    /// Whether to send a break on the boundary and wait there until the other end has closed.
    pub(crate) send_break: bool,
    /// Whether the local peer can still receive what was written to it.
    pub(crate) local_open: bool,
}

/// Prepares both sides so that the caller's close looks like a connection broken by the network.
pub(crate) async fn break_off(boundary: &Stream, local: &Stream, closing: Closing) {
    let sending = async {
        if closing.send_break && boundary.send_all(&chunks::BREAK).await.is_ok() {
            closed(boundary).await;
        }
    };
    let delivering = async {
        if closing.local_open {
            // Bytes not acknowledged by then are lost, as in any network failure.
            drop(timeout(LINGER, local.delivered()).await);
        }
        // Only TCP has a reset. Other sockets refuse the option and are simply closed.
        drop(local.reset_on_close());
    };
    // If the peer accepts neither, the caller's close has to do.
    tokio::join!(async { drop(timeout(LINGER, sending).await) }, delivering);
}

/// Waits until the other end of the boundary has closed, and discards what it still sends.
pub(crate) async fn wait_for_close(boundary: &Stream) {
    drop(timeout(LINGER, closed(boundary)).await);
}

async fn closed(boundary: &Stream) {
    while boundary.recv_some(scratch::SIZE).await.is_ok_and(|bytes| !bytes.is_empty()) {}
}
