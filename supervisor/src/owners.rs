//! Which cgroup each service runs in now, and connections to the ports of these.
//!
//! Its law: the numbers are init's word for each run; a service that does not run has none, so nothing that listens is its own.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloister_net::{OwnedPort, Stream};

/// No cgroup has this number (`cgroup_id`, `linux/cgroup.h`: numbers begin at 1).
const NOBODY: u64 = 0;

/// The cgroups of the services by name. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Owners(Arc<Mutex<BTreeMap<String, u64>>>);

impl Owners {
    /// The service runs in this cgroup from now on.
    pub fn started(&self, service: &str, cgroup: u64) {
        self.numbers().insert(service.to_owned(), cgroup);
    }

    /// The service's cgroup is gone.
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
    /// Connects to the service, on `127.0.0.1` or else on `::1`.
    ///
    /// # Errors
    /// Where nothing listens, or another program does, the text says on which addresses. Else those of connecting.
    pub async fn connect(&self) -> io::Result<Stream> {
        let owner = self.owners.of(&self.service).unwrap_or(NOBODY);
        let connected = self.place.connect(owner, Stream::connect_tcp).await;
        connected.map_err(|refused| refused.into_error(&self.service, self.place.number()))
    }
}
