//! Limits on the number of concurrent connections.
//!
//! Invariants: an accept loop neither exits nor busy-loops. Running out of descriptors or memory is temporary: it waits
//! until a connection is closed, or for a short pause, and tries again. If several listeners share a limit, none of
//! them can use the capacity reserved for the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::listener::{Listener, Peer};
use crate::next::next;
use crate::stream::Stream;

/// Descriptors of a connection: two sockets, and a duplicate of each that waits until the socket is writable.
const DESCRIPTORS: usize = 4;

/// The capacity divided by this is reserved and split among the listeners; the rest is shared by all. Half: a listener
/// that alone is in use gets more than half of the capacity, and each of the others keeps enough to continue.
const RESERVED_PART: usize = 2;

/// The connection limit of a listener. Clones share the limit.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Capacity reserved for this listener.
    own: Arc<Semaphore>,
    /// Capacity shared with other listeners.
    common: Arc<Semaphore>,
    inside: Arc<Inside>,
}

/// Open connections of all listeners that share a limit.
#[derive(Debug, Default)]
struct Inside {
    count: AtomicUsize,
    freed: Notify,
}

/// A permit for one connection. Dropping it releases the capacity.
#[derive(Debug)]
pub struct Permit {
    permit: Option<OwnedSemaphorePermit>,
    inside: Arc<Inside>,
}

impl Gate {
    /// A gate for at most `cap` concurrent connections.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self::with(cap, Arc::new(Semaphore::new(0)), Arc::default())
    }

    fn with(own: usize, common: Arc<Semaphore>, inside: Arc<Inside>) -> Self {
        Self { own: Arc::new(Semaphore::new(own.min(Semaphore::MAX_PERMITS))), common, inside }
    }

    /// Gates for several listeners with at most `cap` connections in total. Half of the capacity is divided among them,
    /// so that long-lived connections of one cannot block another; the other half is first come, first served. Each
    /// gate admits at least one connection, even if `cap` is smaller than their number.
    #[must_use]
    pub fn divide(cap: usize, listeners: usize) -> Vec<Self> {
        let cap = cap.min(Semaphore::MAX_PERMITS);
        let reserved = match listeners {
            0 | 1 => cap,
            _ => (cap / RESERVED_PART / listeners).max(1),
        };
        let common = Arc::new(Semaphore::new(cap.saturating_sub(reserved.saturating_mul(listeners))));
        let inside = Arc::<Inside>::default();
        (0..listeners).map(|_| Self::with(reserved, Arc::clone(&common), Arc::clone(&inside))).collect()
    }

    /// A further gate with at most `cap` connections of its own and no shared capacity. Its connections count as open
    /// here too.
    #[must_use]
    pub fn beside(&self, cap: usize) -> Self {
        Self::with(cap, Arc::new(Semaphore::new(0)), Arc::clone(&self.inside))
    }

    /// Waits for a permit.
    pub async fn enter(&self) -> Permit {
        loop {
            // No semaphore is ever closed; if one were, this would wait for a permit to be released instead of
            // busy-looping.
            let freed = self.inside.freed.notified();
            if let Some(permit) = self.try_enter() {
                return permit;
            }
            let entered = tokio::select! {
                biased;
                own = Arc::clone(&self.own).acquire_owned() => own,
                common = Arc::clone(&self.common).acquire_owned() => common,
            };
            if let Ok(permit) = entered {
                return self.issue(permit);
            }
            freed.await;
        }
    }

    /// A permit, if one is available now.
    #[must_use]
    pub fn try_enter(&self) -> Option<Permit> {
        [&self.own, &self.common]
            .into_iter()
            .find_map(|capacity| Arc::clone(capacity).try_acquire_owned().ok())
            .map(|permit| self.issue(permit))
    }

    /// Number of open connections, of this and all related gates.
    #[must_use]
    pub fn inside(&self) -> usize {
        self.inside.count.load(Ordering::Acquire)
    }

    /// Waits until no connection is open.
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

    /// The next connection of `listener`; waits while the system is out of resources.
    pub async fn next(&self, listener: &Listener) -> (Stream, Peer) {
        next(listener, || self.connection_closed()).await
    }

    /// Waits until a connection of any related gate is closed.
    pub(crate) fn connection_closed(&self) -> impl Future<Output = ()> {
        self.inside.freed.notified()
    }

    fn issue(&self, permit: OwnedSemaphorePermit) -> Permit {
        self.inside.count.fetch_add(1, Ordering::AcqRel);
        Permit { permit: Some(permit), inside: Arc::clone(&self.inside) }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // A notified waiter must find the capacity available.
        drop(self.permit.take());
        self.inside.count.fetch_sub(1, Ordering::AcqRel);
        self.inside.freed.notify_waiters();
    }
}

/// Number of concurrent connections that this process supports: `cap`, or fewer if its descriptors do not suffice, of
/// which `reserve` are for other purposes. It raises the process's descriptor limit as far as allowed; child processes
/// started after that inherit it.
#[must_use]
pub fn connection_capacity(cap: usize, reserve: usize) -> usize {
    let wanted = cap.saturating_mul(DESCRIPTORS).saturating_add(reserve);
    let limit = raise_descriptors(u64::try_from(wanted).unwrap_or(u64::MAX));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    cap.min(limit.saturating_sub(reserve) / DESCRIPTORS)
}

/// Raises the limit on open descriptors towards `wanted`, and returns the new limit.
fn raise_descriptors(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    // A privileged process may exceed its own maximum.
    for maximum in [allowed.max(wanted), allowed] {
        let target = current.max(wanted).min(maximum);
        let new = Rlimit { current: Some(target), maximum: Some(maximum) };
        if setrlimit(Resource::Nofile, new).is_ok() {
            return target;
        }
    }
    current
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[tokio::test]
    async fn no_more_connections_than_the_limit_are_open() {
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
    async fn connections_of_one_listener_leave_capacity_for_the_others() {
        let gates = Gate::divide(16, 4);
        let [idle, other, ..] = gates.as_slice() else { panic!() };
        // Two reserved ones, and the shared half.
        let taken: Vec<Permit> = std::iter::from_fn(|| idle.try_enter()).collect();
        assert_eq!(taken.len(), 10);
        let kept: Vec<Permit> = std::iter::from_fn(|| other.try_enter()).collect();
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
    fn a_single_listener_has_the_whole_capacity() {
        let gates = Gate::divide(5, 1);
        let taken: Vec<Permit> =
            gates.iter().flat_map(|gate| std::iter::from_fn(|| gate.try_enter())).collect();
        assert_eq!(taken.len(), 5);
    }

    #[test]
    fn every_listener_admits_at_least_one_connection() {
        let gates = Gate::divide(2, 8);
        let taken: Vec<Permit> = gates.iter().filter_map(Gate::try_enter).collect();
        assert_eq!(taken.len(), 8);
    }

    #[tokio::test]
    async fn an_empty_gate_is_noticed() {
        let gate = Gate::new(1);
        gate.empty().await;
        let permit = gate.enter().await;
        let empty = tokio::spawn({
            let gate = gate.clone();
            async move { gate.empty().await }
        });
        tokio::task::yield_now().await;
        assert!(!empty.is_finished());
        drop(permit);
        empty.await.unwrap();
    }

    #[tokio::test]
    async fn a_listener_returns_streams_and_their_peers() {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = TcpStream::connect(listener.tcp_address().unwrap()).unwrap();
        let (stream, peer) = Gate::new(1).next(&listener).await;
        assert_eq!(peer, Peer::Tcp(client.local_addr().unwrap()));
        stream.send_all(b"hi").await.unwrap();
        let mut received = [0; 2];
        std::io::Read::read_exact(&mut &client, &mut received).unwrap();
        assert_eq!(&received, b"hi");
    }
}
