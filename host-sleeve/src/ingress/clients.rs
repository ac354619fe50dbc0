//! How many connections one client has at a port at once.
//!
//! Invariant: a client that has as many as it may is refused at once, and costs the others nothing. What is remembered of a client ends
//! with its last connection.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloister_net::Peer;

/// The bits of an IPv6 address that identify a client: each network gets 64 bits of addresses, all of which one machine can use (RFC
/// 4291, section 2.5.4).
const NETWORK: u128 = u128::MAX << 64;

/// The clients of one port.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    /// Maximum number of connections of each; `None` for any.
    most: Option<usize>,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection of a client, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    address: Option<IpAddr>,
    clients: Clients,
}

impl Clients {
    /// Of which each may have so many connections.
    pub(super) fn new(most: Option<usize>) -> Self {
        Self { most, open: Arc::default() }
    }

    /// A place for this client's connection; `None` if it has as many as it may.
    pub(super) fn enter(&self, peer: Peer) -> Option<Place> {
        let place = |address| Some(Place { address, clients: self.clone() });
        let (Some(most), Peer::Tcp(address)) = (self.most, peer) else { return place(None) };
        let client = client(address.ip());
        let mut open = self.lock();
        let count = open.entry(client).or_default();
        if *count >= most {
            return None;
        }
        *count = count.saturating_add(1);
        place(Some(client))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut open = self.clients.lock();
        match open.get_mut(&address) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            Some(_) | None => drop(open.remove(&address)),
        }
    }
}

/// What identifies a client.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & NETWORK)),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::Tcp(address.parse().unwrap())
    }

    #[test]
    fn a_client_has_only_so_many_connections_and_others_have_their_own() {
        let clients = Clients::new(Some(2));
        let first = clients.enter(peer("192.0.2.7:1")).unwrap();
        let _second = clients.enter(peer("192.0.2.7:2")).unwrap();
        assert!(clients.enter(peer("192.0.2.7:3")).is_none());
        assert!(clients.enter(peer("[::ffff:192.0.2.7]:4")).is_none(), "the same address in another form");
        assert!(clients.enter(peer("192.0.2.8:1")).is_some());
        drop(first);
        assert!(clients.enter(peer("192.0.2.7:5")).is_some());
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_client() {
        let clients = Clients::new(Some(1));
        let _place = clients.enter(peer("[2001:db8::1]:1")).unwrap();
        assert!(clients.enter(peer("[2001:db8::ffff:2]:1")).is_none());
        assert!(clients.enter(peer("[2001:db8:0:1::1]:1")).is_some());
    }

    #[test]
    fn nothing_is_remembered_of_clients_that_are_gone_or_not_limited() {
        let limited = Clients::new(Some(1));
        drop(limited.enter(peer("192.0.2.7:1")));
        assert!(limited.lock().is_empty());
        let free = Clients::new(None);
        let places: Vec<_> = (0..3).map(|_| free.enter(peer("192.0.2.7:1"))).collect();
        assert!(places.iter().all(Option::is_some) && free.lock().is_empty());
    }
}
