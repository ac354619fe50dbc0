//! How many connections there may be at once, and what an accept loop does when the system runs out.
//!
//! Its law: an accept loop neither dies nor spins. Running out of descriptors or memory is weather: it waits until a
//! connection has ended, or a moment has passed, and tries again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::listener::{Listener, Peer};
use crate::stream::Stream;

/// How long to wait when an accept fails and no connection of ours ends: long enough to cost nothing, short enough
/// that a client does not notice.
const PAUSE: Duration = Duration::from_millis(100);

/// The entrance to one service. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    room: Arc<Semaphore>,
    freed: Arc<Notify>,
    cap: usize,
}

/// The right to be one of the connections inside. Dropping it makes room for another.
#[derive(Debug)]
pub struct Pass {
    permit: Option<OwnedSemaphorePermit>,
    freed: Arc<Notify>,
}

impl Gate {
    /// A gate for at most `cap` connections at once.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        let cap = cap.min(Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(cap)), freed: Arc::new(Notify::new()), cap }
    }

    /// A gate for at most `cap` connections of four descriptors each (two sockets, and a watch for room on each), or for as
    /// many as this process has descriptors for when `reserve` are kept for other things. It raises the process's limit as far
    /// as that is allowed.
    #[must_use]
    pub fn within_descriptors(cap: usize, reserve: usize) -> Self {
        let wanted = u64::try_from(cap.saturating_mul(4).saturating_add(reserve)).unwrap_or(u64::MAX);
        let limit = usize::try_from(raise_descriptors(wanted)).unwrap_or(usize::MAX);
        Self::new(cap.min(limit.saturating_sub(reserve) / 4))
    }

    /// Waits until there is room.
    pub async fn enter(&self) -> Pass {
        loop {
            // The semaphore is never closed; were it, this would wait for a pass to come back, not spin.
            let freed = self.freed.notified();
            if let Ok(permit) = Arc::clone(&self.room).acquire_owned().await {
                return self.pass(permit);
            }
            freed.await;
        }
    }

    /// A pass if there is room now.
    #[must_use]
    pub fn try_enter(&self) -> Option<Pass> {
        Arc::clone(&self.room).try_acquire_owned().ok().map(|permit| self.pass(permit))
    }

    /// How many are inside.
    #[must_use]
    pub fn inside(&self) -> usize {
        self.cap.saturating_sub(self.room.available_permits())
    }

    /// Waits until nobody is inside.
    pub async fn empty(&self) {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.inside() == 0 {
                return;
            }
            freed.await;
        }
    }

    /// The next connection of `listener`, however long the system is out of something.
    pub async fn next(&self, listener: &Listener) -> (Stream, Peer) {
        loop {
            match listener.accept().await {
                Ok(connection) => return connection,
                Err(error) if concerns_one_client(&error) => {}
                Err(_) => self.weather().await,
            }
        }
    }

    async fn weather(&self) {
        // Either end of this wait is as good as the other.
        drop(tokio::time::timeout(PAUSE, self.freed.notified()).await);
    }

    fn pass(&self, permit: OwnedSemaphorePermit) -> Pass {
        Pass { permit: Some(permit), freed: Arc::clone(&self.freed) }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // Whoever is told that there is room must find it.
        drop(self.permit.take());
        self.freed.notify_waiters();
    }
}

/// Raises the limit of open descriptors towards `wanted`, and returns what it is then.
fn raise_descriptors(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    // A privileged process may go over its own maximum.
    for maximum in [allowed.max(wanted), allowed] {
        let target = current.max(wanted).min(maximum);
        let new = Rlimit { current: Some(target), maximum: Some(maximum) };
        if setrlimit(Resource::Nofile, new).is_ok() {
            return target;
        }
    }
    current
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
    use std::net::TcpStream;
    use tokio::time::Instant;

    #[tokio::test]
    async fn no_more_than_the_cap_are_inside_at_once() {
        let gate = Gate::new(2);
        let (first, _second) = (gate.enter().await, gate.enter().await);
        assert!(gate.try_enter().is_none());
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        drop(waiting.await.unwrap());
        assert_eq!(gate.inside(), 1);
    }

    #[tokio::test]
    async fn an_empty_gate_is_noticed() {
        let gate = Gate::new(1);
        gate.empty().await;
        let pass = gate.enter().await;
        let empty = tokio::spawn({
            let gate = gate.clone();
            async move { gate.empty().await }
        });
        tokio::task::yield_now().await;
        assert!(!empty.is_finished());
        drop(pass);
        empty.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn bad_weather_ends_when_a_connection_does_or_after_a_moment() {
        let gate = Gate::new(1);
        let start = Instant::now();
        gate.weather().await;
        assert_eq!(start.elapsed(), PAUSE);
        let pass = gate.enter().await;
        tokio::join!(gate.weather(), async { drop(pass) });
        assert_eq!(start.elapsed(), PAUSE);
    }

    #[tokio::test]
    async fn a_listener_hands_out_streams_and_tells_who_they_are() {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = TcpStream::connect(listener.tcp_address().unwrap()).unwrap();
        let (stream, peer) = Gate::new(1).next(&listener).await;
        assert_eq!(peer, Peer::Tcp(client.local_addr().unwrap()));
        stream.send_all(b"hi").await.unwrap();
        let mut heard = [0; 2];
        std::io::Read::read_exact(&mut &client, &mut heard).unwrap();
        assert_eq!(&heard, b"hi");
    }
}
