//! Which cgroup each service currently runs in, and connections to the services' ports.
//!
//! Invariant: init reports the number for each run; a service that is not running has none, so no listener belongs to
//! it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloister_net::{OwnedPort, Stream};

/// No cgroup has this number (`cgroup_id`, `linux/cgroup.h`: numbers begin at 1).
const NO_CGROUP: u64 = 0;

/// The cgroups of the services by name. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Owners(Arc<Mutex<BTreeMap<String, u64>>>);

impl Owners {
    /// Records that the service now runs in this cgroup.
    pub fn started(&self, service: &str, cgroup: u64) {
        self.numbers().insert(service.to_owned(), cgroup);
    }

    /// Records that the service's cgroup no longer exists.
    pub fn gone(&self, service: &str) {
        self.numbers().remove(service);
    }

    /// The service's cgroup, while it has one.
    #[must_use]
    pub fn of(&self, service: &str) -> Option<u64> {
        self.numbers().get(service).copied()
    }

    /// The port `port` of `service`.
    #[must_use]
    pub fn port(&self, service: &str, port: u16) -> ServicePort {
        ServicePort { service: service.to_owned(), place: OwnedPort::new(port), owners: self.clone() }
    }

    fn numbers(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The port of a service on the loopback interface.
#[derive(Debug)]
pub struct ServicePort {
    service: String,
    place: OwnedPort,
    owners: Owners,
}

impl ServicePort {
    /// Connects to the service, on `127.0.0.1` and, if that fails, on `::1`.
    ///
    /// # Errors
    /// If nothing listens, or another program does, the message names the addresses. Other errors are those of
    /// connecting.
    pub async fn connect(&self) -> io::Result<Stream> {
        let owner = self.owners.of(&self.service).unwrap_or(NO_CGROUP);
        let connected = self.place.connect(owner, Stream::connect_tcp).await;
        connected.map_err(|refused| refused.into_error(&self.service, self.place.number()))
    }
}
