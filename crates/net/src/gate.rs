//! How many connections there may be at once, and what an accept loop does when the system runs out.
//!
//! Its law: an accept loop neither dies nor spins. Running out of descriptors or memory is temporary: it waits until a
//! connection has ended, or a moment has passed, and tries again. Where several entrances lead to one service, none of them
//! can take the room that is kept for the others.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::listener::{Listener, Peer};
use crate::stream::Stream;

/// How long to wait when an accept fails and no connection of ours ends: long enough to cost nothing, short enough
/// that a client does not notice.
const PAUSE: Duration = Duration::from_millis(100);

/// Descriptors of a connection: two sockets, and a watch for room on each.
const DESCRIPTORS: usize = 4;

/// Of the room, so much is divided among the entrances, and the rest goes to whichever needs it. Half: an entrance that is
/// alone in use gets more than half of the room, and each of the others keeps enough to go on.
const KEPT_PART: usize = 2;

/// An entrance to a service. Clones are the same entrance.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Room for this entrance alone.
    own: Arc<Semaphore>,
    /// Room for any of the entrances.
    common: Arc<Semaphore>,
    inside: Arc<Inside>,
}

/// Connections through all entrances.
#[derive(Debug, Default)]
struct Inside {
    count: AtomicUsize,
    freed: Notify,
}

/// The right to be one of the connections inside. Dropping it makes room for another.
#[derive(Debug)]
pub struct Pass {
    permit: Option<OwnedSemaphorePermit>,
    inside: Arc<Inside>,
}

impl Gate {
    /// A gate for at most `cap` connections at once.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self::with(cap, Arc::new(Semaphore::new(0)), Arc::default())
    }

    fn with(own: usize, common: Arc<Semaphore>, inside: Arc<Inside>) -> Self {
        Self { own: Arc::new(Semaphore::new(own.min(Semaphore::MAX_PERMITS))), common, inside }
    }

    /// Entrances for at most `cap` connections in all. Half of the room is divided among them, so that connections through
    /// one never shut another, however long they last; the other half goes to whoever comes first. Each lets at least one
    /// connection in, even where `cap` is smaller than their number.
    #[must_use]
    pub fn divide(cap: usize, entrances: usize) -> Vec<Self> {
        let cap = cap.min(Semaphore::MAX_PERMITS);
        let kept = match entrances {
            0 | 1 => cap,
            _ => (cap / KEPT_PART / entrances).max(1),
        };
        let common = Arc::new(Semaphore::new(cap.saturating_sub(kept.saturating_mul(entrances))));
        let inside = Arc::<Inside>::default();
        (0..entrances).map(|_| Self::with(kept, Arc::clone(&common), Arc::clone(&inside))).collect()
    }

    /// Another entrance to the same service, for at most `cap` connections of its own and none of the common room.
    #[must_use]
    pub fn beside(&self, cap: usize) -> Self {
        Self::with(cap, Arc::new(Semaphore::new(0)), Arc::clone(&self.inside))
    }

    /// Waits until there is room.
    pub async fn enter(&self) -> Pass {
        loop {
            // No semaphore is ever closed; were one, this would wait for a pass to come back, not spin.
            let freed = self.inside.freed.notified();
            if let Some(pass) = self.try_enter() {
                return pass;
            }
            let entered = tokio::select! {
                biased;
                own = Arc::clone(&self.own).acquire_owned() => own,
                common = Arc::clone(&self.common).acquire_owned() => common,
            };
            if let Ok(permit) = entered {
                return self.pass(permit);
            }
            freed.await;
        }
    }

    /// A pass if there is room now.
    #[must_use]
    pub fn try_enter(&self) -> Option<Pass> {
        [&self.own, &self.common]
            .into_iter()
            .find_map(|room| Arc::clone(room).try_acquire_owned().ok())
            .map(|permit| self.pass(permit))
    }

    /// How many are inside, through this entrance or another.
    #[must_use]
    pub fn inside(&self) -> usize {
        self.inside.count.load(Ordering::Acquire)
    }

    /// Waits until there is no connection inside.
    pub async fn empty(&self) {
        loop {
            let mut freed = std::pin::pin!(self.inside.freed.notified());
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
                Err(_) => self.wait_for_resources().await,
            }
        }
    }

    async fn wait_for_resources(&self) {
        // Either end of this wait is as good as the other.
        drop(tokio::time::timeout(PAUSE, self.inside.freed.notified()).await);
    }

    fn pass(&self, permit: OwnedSemaphorePermit) -> Pass {
        self.inside.count.fetch_add(1, Ordering::AcqRel);
        Pass { permit: Some(permit), inside: Arc::clone(&self.inside) }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // Whoever is notified of room must find it.
        drop(self.permit.take());
        self.inside.count.fetch_sub(1, Ordering::AcqRel);
        self.inside.freed.notify_waiters();
    }
}

/// How many connections this process may have at once: `cap`, or as many as it has descriptors for when `reserve` are kept
/// for other things. It raises the process's limit of descriptors as far as that is allowed; what it starts from then on
/// inherits that.
#[must_use]
pub fn room(cap: usize, reserve: usize) -> usize {
    let wanted = cap.saturating_mul(DESCRIPTORS).saturating_add(reserve);
    let limit = raise_descriptors(u64::try_from(wanted).unwrap_or(u64::MAX));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    cap.min(limit.saturating_sub(reserve) / DESCRIPTORS)
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
    async fn connections_through_one_entrance_leave_room_to_the_others() {
        let gates = Gate::divide(16, 4);
        let [idle, other, ..] = gates.as_slice() else { panic!() };
        // Two of its own, and the common half.
        let taken: Vec<Pass> = std::iter::from_fn(|| idle.try_enter()).collect();
        assert_eq!(taken.len(), 10);
        let kept: Vec<Pass> = std::iter::from_fn(|| other.try_enter()).collect();
        assert_eq!((kept.len(), other.inside()), (2, 12));
        let waiting = tokio::spawn({
            let other = other.clone();
            async move { other.enter().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(taken);
        drop(waiting.await.unwrap());
    }

    #[test]
    fn the_only_entrance_has_all_the_room() {
        let gates = Gate::divide(5, 1);
        let taken: Vec<Pass> =
            gates.iter().flat_map(|gate| std::iter::from_fn(|| gate.try_enter())).collect();
        assert_eq!(taken.len(), 5);
    }

    #[test]
    fn an_entrance_lets_at_least_one_in_however_many_there_are() {
        let gates = Gate::divide(2, 8);
        let taken: Vec<Pass> = gates.iter().filter_map(Gate::try_enter).collect();
        assert_eq!(taken.len(), 8);
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
    async fn a_lack_of_resources_is_waited_out_until_a_connection_ends_or_for_a_moment() {
        let gate = Gate::new(1);
        let start = Instant::now();
        gate.wait_for_resources().await;
        let moment = start.elapsed();
        assert!((Duration::from_millis(1)..Duration::from_secs(1)).contains(&moment), "{moment:?}");
        let pass = gate.enter().await;
        tokio::join!(gate.wait_for_resources(), async { drop(pass) });
        assert_eq!(start.elapsed(), moment, "an end of a connection is not waited past");
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
