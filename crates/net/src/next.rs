//! The next connection of a listener, even if the system runs out of resources.
//!
//! Invariant: it neither fails nor spins. Running out of descriptors or memory is temporary, so it waits until a
//! connection of this process ends, or for a short pause, and tries again.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use tokio::time::timeout;

use crate::listener::{Listener, Peer};
use crate::stream::Stream;

/// Pause after a failed accept if no connection of this process is closed: long enough to cost nothing, short enough
/// that a client does not notice.
const PAUSE: Duration = Duration::from_millis(100);

/// The next connection of `listener`. If the system is out of descriptors or memory, it waits until `freed` completes,
/// or for a short pause, and tries again.
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
    // It does not matter which of the two ends the wait.
    drop(timeout(PAUSE, freed).await);
}

/// Whether an accept failed because of the pending client only. `accept(2)` lists the network errors of a new socket
/// that it returns; the listener itself is not affected.
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
    async fn a_wait_for_resources_ends_when_a_connection_closes_or_after_a_pause() {
        let gate = Gate::new(1);
        let start = Instant::now();
        wait_for_resources(gate.connection_closed()).await;
        let pause = start.elapsed();
        assert!((Duration::from_millis(1)..Duration::from_secs(1)).contains(&pause), "{pause:?}");
        let permit = gate.enter().await;
        tokio::join!(wait_for_resources(gate.connection_closed()), async { drop(permit) });
        assert_eq!(start.elapsed(), pause, "the end of a connection ends the wait");
    }
}
