//! Which names the addresses of recent DNS answers belong to, per service.
//!
//! Invariant: a binding is made only by an answer to the service that uses it, lasts at least [`MIN_LIFETIME`] and at most
//! [`MAX_LIFETIME`] after the last such answer, and a service has a bounded number of them. One service cannot evict a binding of
//! another, an answer evicts nothing of its own, and the name with most bindings makes room first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::address::{MAX_ADDRESSES, canonical};
use crate::host::Name;

/// The minimum lifetime of a binding: with a TTL of 0 a program still needs time from the answer to its connection, and to retry.
pub const MIN_LIFETIME: Duration = Duration::from_mins(1);

/// The maximum lifetime of a binding: one day, as for the entries of common resolvers (`cache-max-ttl` of Unbound).
pub const MAX_LIFETIME: Duration = Duration::from_hours(24);

/// A limit on the bindings of a service that leaves room for a program that talks to hundreds of names with several addresses each.
/// Measured, as resident memory: 2.2 MB with eight addresses per name, 5.1 MB with one.
pub const BINDINGS_PER_SERVICE: usize = 4096;

/// The maximum number of bindings of one name: four full answers, for names whose addresses rotate.
pub const BINDINGS_PER_NAME: usize = 4 * MAX_ADDRESSES;

/// The bindings of all services. Times are since any fixed moment, such as the boot.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    limit: usize,
    services: BTreeMap<String, Table>,
}

#[derive(Clone, Debug, Default)]
struct Table {
    /// The end of each binding.
    ends: BTreeMap<IpAddr, BTreeMap<Name, Duration>>,
    /// The same bindings by name, sorted by their end.
    names: BTreeMap<Name, Vec<(Duration, IpAddr)>>,
    /// The first end of each name.
    by_end: BTreeSet<(Duration, Name)>,
    /// The number of bindings of each name; of two names with the same number, the last is the one whose first end is earlier.
    by_size: BTreeSet<(usize, Reverse<Duration>, Name)>,
    /// The number of bindings.
    len: usize,
}

impl Bindings {
    /// No bindings yet, and at most `limit` for each of these services. Others can have none.
    pub fn new(services: impl IntoIterator<Item = String>, limit: usize) -> Self {
        let services = services.into_iter().map(|service| (service, Table::default())).collect();
        Self { limit, services }
    }

    /// Binds `name` to the first [`MAX_ADDRESSES`] addresses of an answer to `service` with this TTL. Only what
    /// [`crate::Judge::decide_resolved`] allowed is to be bound. Returns how many bindings were evicted that had not expired.
    pub fn bind(
        &mut self,
        service: &str,
        name: &Name,
        addresses: &[IpAddr],
        ttl: Duration,
        now: Duration,
    ) -> usize {
        let Some(table) = self.services.get_mut(service) else { return 0 };
        table.expire(now);
        let end = now.saturating_add(ttl.clamp(MIN_LIFETIME, MAX_LIFETIME));
        let addresses = addresses.iter().take(MAX_ADDRESSES.min(self.limit));
        let fresh: BTreeSet<IpAddr> = addresses.map(|address| canonical(*address)).collect();
        for address in &fresh {
            table.insert(*address, name, end);
        }
        let mut evicted = 0;
        while table.count(name) > BINDINGS_PER_NAME {
            let Some(address) = table.stale(name, &fresh) else { break };
            table.remove(address, name);
            evicted += 1;
        }
        while table.len > self.limit {
            let Some((address, victim)) = table.victim(name, &fresh) else { break };
            table.remove(address, &victim);
            evicted += 1;
        }
        evicted
    }

    /// The names that are bound to `address` for `service`, sorted.
    pub fn names(&self, service: &str, address: IpAddr, now: Duration) -> impl Iterator<Item = &Name> {
        let names = self.services.get(service).and_then(|table| table.ends.get(&canonical(address)));
        names.into_iter().flatten().filter(move |(_, end)| **end > now).map(|(name, _)| name)
    }

    /// Removes what has expired, and returns when the next binding expires. Only memory depends on when this is called.
    pub fn expire(&mut self, now: Duration) -> Option<Duration> {
        self.services.values_mut().for_each(|table| table.expire(now));
        self.services.values().filter_map(|table| table.by_end.first()).map(|(end, _)| *end).min()
    }

    /// The number of bindings of a service.
    #[must_use]
    pub fn len(&self, service: &str) -> usize {
        self.services.get(service).map_or(0, |table| table.len)
    }
}

impl Table {
    /// An answer never shortens a binding: a connection that follows the earlier answer is still valid.
    fn insert(&mut self, address: IpAddr, name: &Name, end: Duration) {
        let names = self.ends.entry(address).or_default();
        if names.get(name).is_some_and(|known| *known >= end) {
            return;
        }
        names.insert(name.clone(), end);
        self.change(name, |bindings| {
            bindings.retain(|(_, known)| *known != address);
            let place = bindings.partition_point(|known| *known < (end, address));
            bindings.insert(place, (end, address));
        });
    }

    fn remove(&mut self, address: IpAddr, name: &Name) {
        if let Some(names) = self.ends.get_mut(&address) {
            names.remove(name);
            if names.is_empty() {
                self.ends.remove(&address);
            }
        }
        self.change(name, |bindings| bindings.retain(|(_, known)| *known != address));
    }

    /// Changes the bindings of a name, and everything that is sorted by them.
    fn change(&mut self, name: &Name, change: impl FnOnce(&mut Vec<(Duration, IpAddr)>)) {
        let bindings = self.names.entry(name.clone()).or_default();
        if let Some((first, _)) = bindings.first() {
            self.by_end.remove(&(*first, name.clone()));
            self.by_size.remove(&(bindings.len(), Reverse(*first), name.clone()));
        }
        self.len -= bindings.len();
        change(bindings);
        self.len += bindings.len();
        if let Some((first, _)) = bindings.first() {
            self.by_end.insert((*first, name.clone()));
            self.by_size.insert((bindings.len(), Reverse(*first), name.clone()));
        } else {
            self.names.remove(name);
        }
    }

    fn expire(&mut self, now: Duration) {
        while let Some((_, name)) = self.by_end.first().filter(|(end, _)| *end <= now).cloned() {
            let Some(address) = self.first(&name) else { break };
            self.remove(address, &name);
        }
    }

    fn count(&self, name: &Name) -> usize {
        self.names.get(name).map_or(0, Vec::len)
    }

    /// The address of the binding of `name` that ends first.
    fn first(&self, name: &Name) -> Option<IpAddr> {
        self.names.get(name)?.first().map(|(_, address)| *address)
    }

    /// The same, of those that are not in the answer.
    fn stale(&self, name: &Name, fresh: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        self.names.get(name)?.iter().map(|(_, address)| *address).find(|address| !fresh.contains(address))
    }

    /// The binding that makes room for an answer about `name`: of the name with most bindings, but nothing of the answer.
    fn victim(&self, name: &Name, fresh: &BTreeSet<IpAddr>) -> Option<(IpAddr, Name)> {
        let other = self.by_size.iter().rev().find(|(.., known)| known != name);
        let largest = other.map_or(0, |(size, ..)| *size);
        let own = self.stale(name, fresh).filter(|_| self.count(name) >= largest);
        match (own, other) {
            (Some(address), _) => Some((address, name.clone())),
            (None, Some((.., other))) => Some((self.first(other)?, other.clone())),
            (None, None) => None,
        }
    }
}
