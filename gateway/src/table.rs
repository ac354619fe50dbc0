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
    place: OwnedPort,
    service: String,
    owner: watch::Sender<Option<u64>>,
    pub(crate) proxy_protocol: bool,
    pub(crate) gate: Gate,
}

impl Table {
    /// These ports, with at most `capacity` connections in total.
    pub(crate) fn new(targets: Vec<gateway::Target>, capacity: usize) -> Self {
        let gates = Gate::divide(capacity, targets.len());
        let unread = gates.first().map_or_else(|| Gate::new(MAX_UNREAD), |gate| gate.beside(MAX_UNREAD));
        let port = |(target, gate): (gateway::Target, Gate)| {
            let port = Port {
                place: OwnedPort::new(target.target),
                service: target.service,
                owner: watch::Sender::new(target.cgroup),
                proxy_protocol: target.proxy_protocol,
                gate,
            };
            (target.port, port)
        };
        Self { ports: targets.into_iter().zip(gates).map(port).collect(), unread }
    }

    /// Updates the owners of the same ports.
    pub(crate) fn update(&self, targets: &[gateway::Target]) {
        for target in targets {
            if let Some(port) = self.ports.get(&target.port) {
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
        self.ports.values().any(|port| *port.owner.borrow() == cgroup)
    }
}

impl Port {
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
