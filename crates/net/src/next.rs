//! The next connection of a listener, whatever the system is out of.
//!
//! Invariant: it neither fails nor spins. Running out of descriptors or memory is temporary, so it waits until a connection of this
//! process ends, or for a short pause, and tries again.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use tokio::time::timeout;

use crate::listener::{Listener, Peer};
use crate::stream::Stream;

/// How long to wait when an accept fails and no connection of ours ends: long enough to cost nothing, short enough
/// that a client does not notice.
const PAUSE: Duration = Duration::from_millis(100);

/// The next connection of `listener`. While the system is out of descriptors or memory this waits until one of ours is
/// `freed`, or a moment, and tries again.
pub(crate) async fn next<W: Future>(listener: &Listener, freed: impl Fn() -> W) -> (Stream, Peer) {
    loop {
        match listener.accept().await {
            Ok(connection) => return connection,
            Err(error) if concerns_one_client(&error) => {}
            Err(_) => wait_for_resources(freed()).await,
        }
    }
}

async fn wait_for_resources(freed: impl Future) {
    // Either end of this wait is as good as the other.
    drop(timeout(PAUSE, freed).await);
}

/// Whether an accept failed for the one client that it would have returned. `accept(2)` lists the network errors that a
/// new socket passes on; the listener is sound, and the next client is there or is not.
fn concerns_one_client(error: &io::Error) -> bool {
    const PASSED_ON: [Errno; 3] = [Errno::CONNABORTED, Errno::CONNRESET, Errno::PROTO];
    PASSED_ON.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Gate;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_lack_of_resources_is_waited_out_until_a_connection_ends_or_for_a_moment() {
        let gate = Gate::new(1);
        let start = Instant::now();
        wait_for_resources(gate.one_left()).await;
        let pause = start.elapsed();
        assert!((Duration::from_millis(1)..Duration::from_secs(1)).contains(&pause), "{pause:?}");
        let pass = gate.enter().await;
        tokio::join!(wait_for_resources(gate.one_left()), async { drop(pass) });
        assert_eq!(start.elapsed(), pause, "the end of a connection ends the wait");
    }
}
