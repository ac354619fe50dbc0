//! Which names the addresses of recent DNS answers belong to, per service.
//!
//! Invariant: a binding is made only by an answer to the service that uses it, lasts at least [`MIN_LIFETIME`] and at most
//! [`MAX_LIFETIME`] after the last such answer, and a service has a bounded number of them: the one that ends first makes room. One
//! service cannot evict a binding of another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::address::canonical;
use crate::host::Name;

/// The minimum lifetime of a binding: with a TTL of 0 a program still needs time from the answer to its connection, and to retry.
pub const MIN_LIFETIME: Duration = Duration::from_mins(1);

/// The maximum lifetime of a binding: one day, as for the entries of common resolvers (`cache-max-ttl` of Unbound).
pub const MAX_LIFETIME: Duration = Duration::from_hours(24);

/// A limit on the bindings of a service that leaves room for a program that talks to hundreds of names with several addresses each, in
/// about a megabyte.
pub const BINDINGS_PER_SERVICE: usize = 4096;

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
    /// The same bindings by their end.
    order: BTreeSet<(Duration, IpAddr, Name)>,
}

impl Bindings {
    /// No bindings yet, and at most `limit` for each of these services. Others can have none.
    pub fn new(services: impl IntoIterator<Item = String>, limit: usize) -> Self {
        let services = services.into_iter().map(|service| (service, Table::default())).collect();
        Self { limit, services }
    }

    /// Binds `name` to the addresses of an answer to `service` with this TTL. Returns how many bindings that had not ended were evicted.
    pub fn bind(
        &mut self,
        service: &str,
        name: &Name,
        addresses: &[IpAddr],
        ttl: Duration,
        now: Duration,
    ) -> usize {
        let Some(table) = self.services.get_mut(service) else { return 0 };
        let end = now.saturating_add(ttl.clamp(MIN_LIFETIME, MAX_LIFETIME));
        for address in addresses {
            table.insert(canonical(*address), name, end);
        }
        let mut evicted = 0;
        while table.order.len() > self.limit {
            let Some((end, address, name)) = table.order.pop_first() else { break };
            table.forget(address, &name);
            evicted += usize::from(end > now);
        }
        evicted
    }

    /// The names that are bound to `address` for `service`, sorted.
    pub fn names(&self, service: &str, address: IpAddr, now: Duration) -> impl Iterator<Item = &Name> {
        let names = self.services.get(service).and_then(|table| table.ends.get(&canonical(address)));
        names.into_iter().flatten().filter(move |(_, end)| **end > now).map(|(name, _)| name)
    }

    /// Removes what has ended, and returns when the next binding ends. Only memory depends on when this is called.
    pub fn expire(&mut self, now: Duration) -> Option<Duration> {
        for table in self.services.values_mut() {
            while let Some((_, address, name)) = table.pop_ended(now) {
                table.forget(address, &name);
            }
        }
        self.services.values().filter_map(|table| table.order.first()).map(|(end, ..)| *end).min()
    }

    /// The number of bindings of a service.
    #[must_use]
    pub fn len(&self, service: &str) -> usize {
        self.services.get(service).map_or(0, |table| table.order.len())
    }
}

impl Table {
    /// An answer never shortens a binding: a connection that follows the earlier answer is still valid.
    fn insert(&mut self, address: IpAddr, name: &Name, end: Duration) {
        let names = self.ends.entry(address).or_default();
        if let Some(known) = names.get(name).copied() {
            if known >= end {
                return;
            }
            self.order.remove(&(known, address, name.clone()));
        }
        names.insert(name.clone(), end);
        self.order.insert((end, address, name.clone()));
    }

    /// The first entry of the order, if it has ended.
    fn pop_ended(&mut self, now: Duration) -> Option<(Duration, IpAddr, Name)> {
        let ended = self.order.first().is_some_and(|(end, ..)| *end <= now);
        if ended { self.order.pop_first() } else { None }
    }

    fn forget(&mut self, address: IpAddr, name: &Name) {
        if let Some(names) = self.ends.get_mut(&address) {
            names.remove(name);
            if names.is_empty() {
                self.ends.remove(&address);
            }
        }
    }
}
