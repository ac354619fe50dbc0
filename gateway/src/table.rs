//! The targets of the ports, and their current owners.
//!
//! Invariant: the manifest's ports never change; the cgroups of their services change with each restart. A service may
//! listen before the supervisor's update with its new cgroup arrives, so a connection that finds an unknown cgroup
//! waits for an update, for a limited time.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use cloister_net::{Gate, NotReached, OwnedPort, Stream};
use cloister_wire::gateway::{self, MAX_UNREAD};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::loans::Loans;

/// How long a connection waits for the cgroup of a service that has just been started: init reports it to the
/// supervisor, which updates the gateway. That takes milliseconds, plus a restart of the supervisor if it has just
/// crashed. While another program uses the port, each connection is refused this much later.
const TABLE_TIME: Duration = Duration::from_millis(500);

/// No cgroup has this number (`cgroup_id`, `linux/cgroup.h`: numbers begin at 1).
const NO_CGROUP: u64 = 0;

/// All ports.
#[derive(Debug)]
pub(crate) struct Table {
    ports: BTreeMap<u16, Port>,
    /// The slots of connections whose header has not been read.
    pub(crate) unread: Gate,
}

/// One port.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) leads_to: LeadsTo,
    pub(crate) gate: Gate,
}

/// What is behind a port.
#[derive(Debug)]
pub(crate) enum LeadsTo {
    /// A service.
    Service(ServicePort),
    /// The attestation server, behind the terminator.
    Attestation,
}

/// The port of a service.
#[derive(Debug)]
pub(crate) struct ServicePort {
    place: OwnedPort,
    service: String,
    owner: watch::Sender<Option<u64>>,
    pub(crate) proxy_protocol: bool,
}

impl Table {
    /// These ports, and that of the attestation server, with at most `capacity` connections in total.
    pub(crate) fn new(targets: Vec<gateway::Target>, attestation: Option<u16>, capacity: usize) -> Self {
        let gates = Gate::divide(capacity, targets.len().saturating_add(usize::from(attestation.is_some())));
        let unread = gates.first().map_or_else(|| Gate::new(MAX_UNREAD), |gate| gate.beside(MAX_UNREAD));
        let service = |target: gateway::Target| {
            let port = ServicePort {
                place: OwnedPort::new(target.target),
                service: target.service,
                owner: watch::Sender::new(target.cgroup),
                proxy_protocol: target.proxy_protocol,
            };
            (target.port, LeadsTo::Service(port))
        };
        let attestation = attestation.map(|port| (port, LeadsTo::Attestation));
        let ports = targets.into_iter().map(service).chain(attestation).zip(gates);
        Self {
            ports: ports.map(|((port, leads_to), gate)| (port, Port { leads_to, gate })).collect(),
            unread,
        }
    }

    /// Updates the owners of the same ports.
    pub(crate) fn update(&self, targets: &[gateway::Target]) {
        for target in targets {
            if let Some(Port { leads_to: LeadsTo::Service(port), .. }) = self.ports.get(&target.port) {
                port.owner.send_if_modified(|owner| std::mem::replace(owner, target.cgroup) != target.cgroup);
            }
        }
    }

    /// The port of this number.
    pub(crate) fn get(&self, number: u16) -> Option<&Port> {
        self.ports.get(&number)
    }

    /// Whether this cgroup belongs to one of the services.
    fn is_known(&self, cgroup: Option<u64>) -> bool {
        self.ports.values().any(|port| match &port.leads_to {
            LeadsTo::Service(port) => *port.owner.borrow() == cgroup,
            LeadsTo::Attestation => false,
        })
    }
}

impl ServicePort {
    /// The port on which its service listens.
    pub(crate) const fn target(&self) -> u16 {
        self.place.number()
    }

    /// Connects to its service.
    pub(crate) async fn connect(&self, table: &Table, loans: &Loans) -> io::Result<Stream> {
        let mut owner = self.owner.subscribe();
        let dial = |to| Stream::connect_tcp_borrowing(to, move || loans.borrow(to));
        loop {
            let known = owner.borrow_and_update().unwrap_or(NO_CGROUP);
            let refused = match self.place.connect(known, dial).await {
                Ok(stream) => return Ok(stream),
                Err(refused) => refused,
            };
            let may_be_new =
                matches!(refused, NotReached::Taken(_, by) if by.is_some() && !table.is_known(by));
            if !may_be_new || !matches!(timeout(TABLE_TIME, owner.changed()).await, Ok(Ok(()))) {
                return Err(refused.into_error(&self.service, self.target()));
            }
        }
    }
}
